"""Atomic writers and fingerprints of files (adapter_qa/core/files.py)."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import json
import lzma
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import (
    atomic_file,
    atomic_folder,
    decode,
    expand_paths,
    file_fingerprint,
    files_fingerprint,
    sha256,
    temporary_path,
    write_chunks,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_json_is_indented_utf8_in_the_order_given(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": "São Luís", "a": [1, 0.1]})
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "São Luís" in text
    assert list(json.loads(text)) == ["b", "a"]
    assert names(tmp_path) == ["a.json"]


def test_content_is_on_the_disk_before_the_file_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operations: list[tuple[str, str, bytes]] = []
    sync, replace = os.fsync, os.replace

    def recorded_sync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        operations.append(("fsync", path.name, path.read_bytes()))
        sync(descriptor)

    def recorded_replace(source: Path, target: Path) -> None:
        operations.append(("replace", source.name, source.read_bytes()))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_sync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    write_chunks(tmp_path / "a", [b"one ", b"two"])
    assert operations == [("fsync", "a.writing", b"one two"), ("replace", "a.writing", b"one two")]
    assert (tmp_path / "a").read_bytes() == b"one two"


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted_chunks() -> Iterator[bytes]:
    yield b"half"
    full_disk()


def test_failed_write_keeps_the_old_file_and_removes_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(OSError, match="No space left"):
        write_chunks(path, interrupted_chunks())
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_leftover_of_a_killed_run_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    temporary_path(path).write_text("a longer text that a killed run left")
    write_text(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.json"]


def test_writers_of_the_same_file_have_their_own_temporary_names(tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    with atomic_file(path, "host-1") as first, atomic_file(path, "host-2") as second:
        first.write_text("1")
        second.write_text("2")
        assert names(tmp_path) == ["sweep.json.host-1.writing", "sweep.json.host-2.writing"]
    assert path.read_text() == "1"
    assert names(tmp_path) == ["sweep.json"]


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    documents = [{"round": number, "history": [number] * (3000 if number % 2 else 1)} for number in range(150)]
    write_json(path, documents[0])

    def write_all() -> None:
        for document in documents:
            write_json(path, document)

    thread = threading.Thread(target=write_all)
    thread.start()
    seen = []
    running = True
    while running:
        running = thread.is_alive()
        seen.append(json.loads(path.read_text(encoding="utf-8")))
    thread.join()
    assert all(document in documents for document in seen)
    assert seen[-1] == documents[-1]


def test_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "adapters-qa"
    folder.mkdir()
    (folder / "old").touch()
    temporary_path(folder).mkdir()
    (temporary_path(folder) / "left by a killed run").touch()
    with atomic_folder(folder) as temporary:
        assert names(temporary) == []
        (temporary / "new").touch()
        assert names(folder) == ["old"]
    assert names(folder) == ["new"]
    assert names(tmp_path) == ["adapters-qa"]


def test_only_own_folders_are_removed(tmp_path: Path) -> None:
    """A folder with .old in its name is someone else's; what a killed run had moved aside goes, once it is replaced."""
    folder, others, left = tmp_path / "outputs", tmp_path / "outputs.old", tmp_path / "outputs.old.writing"
    for path in (others, left):
        path.mkdir()
        (path / "adapters").touch()
    for content in ("first", "second"):
        with atomic_folder(folder) as temporary:
            (temporary / content).touch()
            assert names(left) == ["adapters"] if content == "first" else not left.exists()
        assert names(folder) == [content]
        assert names(tmp_path) == ["outputs", "outputs.old"]
    assert names(others) == ["adapters"]


def test_failure_keeps_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "adapters-qa"
    folder.mkdir()
    (folder / "old").touch()

    def write_half() -> None:
        with atomic_folder(folder) as temporary:
            (temporary / "new").touch()
            full_disk()

    with pytest.raises(OSError, match="No space left"):
        write_half()
    assert names(folder) == ["old"]
    assert names(tmp_path) == ["adapters-qa"]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_fingerprints_of_files(tmp_path: Path, size: int) -> None:
    path = tmp_path / "data.json"
    content = os.urandom(size)
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    assert file_fingerprint(path) == file_fingerprint(str(path)) == {"file": str(path), "bytes": size, "sha256": digest}
    assert sha256(path) == digest


# --- paths and patterns --------------------------------------------------------------------------------------


def test_paths_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.json", "a.json", "a.txt", "[1].json", "sub/c.json", "sub/deep/d.json"):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def expand(*values: str) -> list[str]:
        return [str(path) for path in expand_paths(values, "train_file")]

    assert expand("b.json", "a.json") == ["b.json", "a.json"]
    assert expand("a.txt", "?.json") == ["a.txt", "a.json", "b.json"]
    assert expand("[1].json") == ["[1].json"]
    assert expand("[ab].json") == ["a.json", "b.json"]
    assert expand("sub/**/*.json", "./b.json") == ["sub/c.json", "sub/deep/d.json", "b.json"]
    assert expand("s*/*") == ["sub/c.json"]  # without the folder sub/deep
    assert expand() == []
    assert expand_paths(["sub"], "train_file", folders=True) == (Path("sub"),)
    Path("link.json").symlink_to("a.json")
    with pytest.raises(UserError) as caught:
        expand("none.json", "sub", "*.csv", "b.json", "a.json", "./b.json", "link.json")
    assert caught.value.problems == [
        "--train_file none.json: no such file; give the path of a file",
        "--train_file sub: is a folder; give the files in it, such as 'sub/*', or a data set with --dataset_name",
        "--train_file *.csv: no file matches; give a path, or a pattern that matches",
        "--train_file b.json: is given 2 times; give every file once",
        "--train_file a.json: is given 2 times; give every file once",
    ]


def test_fingerprint_of_several_files(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text(path.name)
    assert files_fingerprint(paths[:1]) == file_fingerprint(paths[0])
    both = files_fingerprint(paths)
    assert both["files"] == [file_fingerprint(path) for path in paths]
    digests = "".join(hashlib.sha256(path.name.encode()).hexdigest() for path in paths)
    assert both == {"files": both["files"], "sha256": hashlib.sha256(digests.encode()).hexdigest()}
    assert files_fingerprint(paths[::-1])["sha256"] != both["sha256"]


# --- what is not UTF-8 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "meaning"),
    [
        ("ação".encode("latin-1"), "it seems to be Latin-1; save the file as UTF-8"),
        ("ação – “não”".encode("cp1252"), "it seems to be Windows-1252; save the file as UTF-8"),
        ("ação".encode("utf-16"), "it seems to be UTF-16; save the file as UTF-8"),
        ("ação".encode("utf-32"), "it seems to be UTF-16; save the file as UTF-8"),
        (("ação " * 50).encode("utf-16-le"), "it seems to be UTF-16; save the file as UTF-8"),
        ("ação".encode() + b"\xe3o", "before that it is; the file is damaged or mixes encodings"),
        (b"\x89PNG\r\n\0\0", "it seems to be no text; save the file as UTF-8 text"),
        (gzip.compress(b"x" * 99, mtime=0), "it seems to be compressed by gzip; its name should end in .gz"),
        (bz2.compress(b"x" * 99), "it seems to be compressed by bzip2; its name should end in .bz2"),
        (lzma.compress(b"x" * 99), "it seems to be compressed by xz; its name should end in .xz"),
        (b"\x28\xb5\x2f\xfd\x20", "it seems to be compressed by zstd; its name should end in .zst"),
        (b"PK\x03\x04\xff", "it seems to be a ZIP archive or an Excel workbook; unpack it, or save it as CSV"),
        (b"PAR1\x15\xff", "it seems to be a Parquet table; its name should end in .parquet"),
        (b"ARROW1\0\0\xff\xff\xff\xff", "it seems to be an Arrow table; its name should end in .arrow"),
    ],
)
def test_content_that_is_not_utf8(content: bytes, meaning: str) -> None:
    with pytest.raises(UserError) as caught:
        decode("a.json", content)
    (problem,) = caught.value.problems
    assert problem.startswith("a.json: not UTF-8 at byte ")
    assert problem.partition(": ")[2].partition(": ")[2] == meaning

"""The reader of the SQuAD-pt archive (adapter_qa/data/readers/squad_archive.py) and the archives that it refuses."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from support.archives import Pack, archive_formats

from adapter_qa.core.errors import UserError
from adapter_qa.data.readers import squad_archive
from adapter_qa.data.readers.squad_archive import ARCHIVE_MEMBERS, read_archive

TRAIN, DEV = ARCHIVE_MEMBERS
CONTENT = b'{"data": []}' * 100


def problems_of(archive: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_archive(archive)
    return caught.value.problems


@archive_formats
def test_members_are_read_from_any_folder(tmp_path: Path, pack: Pack, name: str) -> None:
    archive = pack(tmp_path / name, [("pt/leiame.txt", b"?"), (f"pt/{DEV}", b"[1]"), (f"../other/{TRAIN}", CONTENT)])
    assert read_archive(archive) == {TRAIN: CONTENT, DEV: b"[1]"}


@pytest.mark.parametrize("link_type", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symlink", "hardlink"])
@archive_formats
def test_links_are_refused(tmp_path: Path, pack: Pack, name: str, link_type: bytes) -> None:
    archive = pack(tmp_path / name, [(f"pt/{TRAIN}", CONTENT)], ((f"pt/{DEV}", link_type),))
    assert problems_of(archive) == [f"{archive}: {DEV} is a link or device, not a file"]


REMEDY = "unpack another archive and give the file in it"


@archive_formats
def test_incomplete_ambiguous_or_oversized_archives(
    tmp_path: Path, pack: Pack, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(tmp_path / name, [(f"a/{TRAIN}", CONTENT), ("b/squad-dev.json", CONTENT)])
    assert problems_of(archive) == [f"{archive}: holds no {DEV}; {REMEDY}"]
    pack(archive, [("x", b"")])
    assert problems_of(archive) == [f"{archive}: holds no {TRAIN} and no {DEV}; {REMEDY}"]
    pack(archive, [(f"a/{TRAIN}", CONTENT), (f"b/{TRAIN}", CONTENT)])
    assert problems_of(archive) == [f"{archive}: holds {TRAIN} more than once"]
    pack(archive, [(TRAIN, CONTENT), (DEV, CONTENT)])
    monkeypatch.setattr(squad_archive, "MAX_BYTES", len(CONTENT) - 1)
    assert problems_of(archive) == [f"{archive}: {TRAIN} has {len(CONTENT):,} bytes; allowed: {len(CONTENT) - 1:,}"]


@archive_formats
def test_damaged_archives(tmp_path: Path, pack: Pack, name: str) -> None:
    archive = pack(tmp_path / name, [(TRAIN, CONTENT), (DEV, CONTENT)])
    content = archive.read_bytes()
    for damaged in (b"", b"neither tar nor zip", content[: len(content) // 2]):
        archive.write_bytes(damaged)
        (problem,) = problems_of(archive)
        assert problem.startswith(f"{archive}: not a readable archive: ")
    assert list(tmp_path.iterdir()) == [archive]

"""Bounded readers for untrusted files, the writers of atomic files and folders, and hashes of files."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from adapter_qa.core.errors import UserError, raise_if_any
from adapter_qa.core.messages import log_note

MAX_BYTES = 512 * 1024**2  # SQuAD v1.1 has 30 MB; a file that is made to fill the memory is refused


def expand_paths(values: Sequence[str], option: str, *, folders: bool = False) -> tuple[Path, ...]:
    """Return the files that paths and patterns such as `parts/*.json` name, in order; those of a pattern sorted.

    A path that exists is taken as it is, whatever characters its name has.

    Args:
        values: paths and patterns.
        option: the option that gives them, without dashes, for messages.
        folders: whether a folder is allowed; the caller then reads what is in it.

    Raises:
        UserError: a path does not exist or is a folder, a pattern matches no file, or a file is given twice.
    """
    paths: list[Path] = []
    problems = []
    for value in values:
        path = Path(value)
        is_folder = os.path.isdir(path)  # unlike Path.is_dir, False for a name that is too long
        if os.path.isfile(path) or (folders and is_folder):
            paths.append(path)
        elif is_folder:
            problems.append(
                f"--{option} {value}: is a folder; give the files in it, such as '{path / '*'}', or a data set with "
                "--dataset_name"
            )
        elif glob.has_magic(value):
            found = sorted(name for name in glob.glob(value, recursive=True) if os.path.isfile(name))
            paths += map(Path, found)
            if not found:
                problems.append(f"--{option} {value}: no file matches; give a path, or a pattern that matches")
        else:
            problems.append(f"--{option} {value}: no such file; give the path of a file")
    counts = Counter(path.resolve() for path in paths)
    first = {path.resolve(): path for path in reversed(paths)}
    problems += [
        f"--{option} {first[path]}: is given {count} times; give every file once"
        for path, count in counts.items()
        if count > 1
    ]
    raise_if_any(problems)
    return tuple(paths)


def resolved_name(name: str) -> str:
    """Return the absolute path of a folder, and any other name, such as an id of the hub, as it is."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def read_bytes(path: str | Path, max_bytes: int | None = None) -> bytes:
    """Return the content of a file of at most `max_bytes`; None: `MAX_BYTES`.

    Raises:
        UserError: the file cannot be read or is too large.
    """
    limit = max_bytes or MAX_BYTES
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size  # 0 for a device, which may never end
            content = stream.read(min(size or limit, limit) + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: cannot be read: {reason}") from error
    return _bounded(path, content, limit)


def read_stdin() -> bytes:
    """Read standard input to its end; a note on a terminal says how to end it.

    Raises:
        UserError: the input is larger than `MAX_BYTES`.
    """
    return _bounded("standard input", open_stdin().read(MAX_BYTES + 1), MAX_BYTES)


def open_stdin() -> BinaryIO:
    """Return standard input; a note on a terminal says how to end it."""
    if sys.stdin.isatty():
        log_note(["reading standard input; end it with Ctrl-D"])
    return sys.stdin.buffer


def _bounded(name: str | Path, content: bytes, limit: int) -> bytes:
    if len(content) > limit:
        raise UserError(f"{name}: is larger than {limit:,} bytes, the most that is read; give a part of it")
    return content


def decode(name: str | Path, content: bytes) -> str:
    """Decode UTF-8 and remove the byte order mark.

    Raises:
        UserError: the content is not UTF-8, and what it seems to be; or it has nothing but white space.
    """
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 at byte {error.start}: {_likely_content(content, error.start)}") from error
    if not text.strip():
        raise UserError(f"{name}: the file is empty")
    return text


# First bytes of files that are not text.
SIGNATURES = {
    b"\x1f\x8b": "compressed by gzip; its name should end in .gz",
    b"BZh": "compressed by bzip2; its name should end in .bz2",
    b"\xfd7zXZ": "compressed by xz; its name should end in .xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; its name should end in .zst",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook; unpack it, or save it as CSV",
    b"PAR1": "a Parquet table; its name should end in .parquet",
    b"ARROW1": "an Arrow table; its name should end in .arrow",
}


def _likely_content(content: bytes, position: int) -> str:
    """Return what content seems to be that is UTF-8 up to a position, and what to do about it."""
    for signature, meaning in SIGNATURES.items():
        if content.startswith(signature):
            return f"it seems to be {meaning}"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or content[:200].count(0) > 50:
        encoding = "UTF-16"
    elif b"\0" in content:
        return "it seems to be no text; save the file as UTF-8 text"
    elif not content[:position].isascii():
        return "before that it is; the file is damaged or mixes encodings"
    else:
        encoding = "Windows-1252" if re.search(rb"[\x80-\x9f]", content) else "Latin-1"
    return f"it seems to be {encoding}; save the file as UTF-8"


def read_text(path: str | Path) -> str:
    """Return the text of a UTF-8 file of at most `MAX_BYTES`.

    Raises:
        UserError: the file cannot be read, is too large, empty or not UTF-8.
    """
    return decode(path, read_bytes(path))


def parse_json(text: str, *, one_line: bool = False) -> Any:
    """Parse a JSON document, or one line of a file.

    Raises:
        ValueError: the text is not JSON; the message names the position.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if one_line:
            raise ValueError(f"not JSON at column {error.colno}: {error.msg}") from error
        hint = ""
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            hint = "; the file seems to be cut off"
        raise ValueError(f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}{hint}") from error
    except (ValueError, RecursionError) as error:  # numbers of too many digits, nesting too deep
        raise ValueError(f"JSON that cannot be read: {error}") from error


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        UserError: the file cannot be read, is not JSON, or holds another value than an object.
    """
    text = read_text(path)
    try:
        document = parse_json(text)
    except ValueError as error:
        raise UserError(f"{path}: {error}; the file is damaged or incomplete") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: holds {kind(document)} where an object is expected")
    return document


def kind(value: object) -> str:
    """Describe the type of a JSON value in words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true/false", type(None): "null"}
    if isinstance(value, float) and value != value:
        return "NaN"
    return kinds.get(type(value)) or ("a number" if isinstance(value, (int, float)) else type(value).__name__)


def is_text(value: object) -> bool:
    """Return whether a value is a string without lone surrogates.

    JSON can express lone surrogates, but neither tokenizers nor UTF-8 files accept them.
    """
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


# ---------------------------------------------------------------- writing

TEMPORARY_SUFFIX = ".writing"  # of files and folders that are being written; a killed run leaves them behind


class Obstacle(NamedTuple):
    """What prevents a folder from being written: a file in its path, or a folder in which nothing may be made."""

    path: Path
    is_file: bool

    def __str__(self) -> str:
        return f"{self.path} is a file" if self.is_file else f"no permission to write in {self.path}"


def find_obstacle(folder: Path) -> Obstacle | None:
    """Return what prevents a folder, which need not exist yet, from being written; None if nothing does."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return None
    return Obstacle(existing, not existing.is_dir())


def temporary_path(path: Path, writer: str = "") -> Path:
    """Return the name beside a file or folder under which it is written before it is renamed.

    Several processes that may write it at the same time need different names of the `writer`.
    """
    return path.with_name(path.name + (f".{writer}" if writer else "") + TEMPORARY_SUFFIX)


@contextmanager
def atomic_file(path: Path, writer: str = "") -> Iterator[Path]:
    """Yield a temporary path; the file written there replaces `path` if the block ends without an error.

    `path` is never half written: the content is on the disk before the file is renamed. After an error the temporary
    file is removed.
    """
    temporary = temporary_path(path, writer)
    try:
        yield temporary
        fsync_path(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Write several files; none is replaced before the content of all has been written."""
    with ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(atomic_file(path)).write_bytes(content)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a new, empty temporary folder, which replaces `folder` if the block ends without an error.

    After an error the temporary folder is removed, and an older `folder` is unchanged. The older one is removed after
    the new one is completely on the disk.
    """
    temporary = temporary_path(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        fsync_tree(temporary)
        old = temporary_path(folder, "old")  # the suffix is ours: a folder of that name is what a killed run left
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_path(path: Path) -> None:
    """Remove a file, a link, or a folder with its content, if there is one. What a link points to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def write_chunks(path: Path, chunks: Iterable[bytes], writer: str = "") -> None:
    """Write a file from consecutive chunks, as `atomic_file` does."""
    with atomic_file(path, writer) as temporary, temporary.open("wb") as stream:
        stream.writelines(chunks)


def write_text(path: Path, text: str, writer: str = "") -> None:
    """Write a UTF-8 file, as `atomic_file` does."""
    write_chunks(path, [text.encode("utf-8")], writer)


def write_json(path: Path, document: Any, writer: str = "") -> None:
    """Write an indented JSON file, as `atomic_file` does."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n", writer)


def json_lines(items: Iterable[tuple[str, object]]) -> Iterator[bytes]:
    """Yield a JSON object in chunks, with one line for each key."""
    import msgspec  # late: --help does not need it

    encode = msgspec.json.Encoder().encode
    yield b"{"
    separator = b"\n"
    for key, value in items:
        yield separator + encode(key) + b": " + encode(value)
        separator = b",\n"
    yield b"\n}\n"


def fsync_tree(folder: Path) -> None:
    """Call `fsync_path` for a folder and everything in it."""
    for path in [*folder.rglob("*"), folder]:
        fsync_path(path)


def fsync_path(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems do not support it for folders
            raise
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------- hashes


def sha256(path: str | Path) -> str:
    """Return the SHA-256 digest of a file as hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_fingerprint(path: str | Path) -> dict[str, Any]:
    """Return name, size in bytes and SHA-256 of a data file, as run.json records them."""
    return {"file": str(path), "bytes": os.path.getsize(path), "sha256": sha256(path)}


def files_fingerprint(paths: Sequence[Path]) -> dict[str, Any]:
    """Return `file_fingerprint` of one file; of several a list of them as "files", and "sha256" over their digests."""
    return join_fingerprints([file_fingerprint(path) for path in paths])


def join_fingerprints(files: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what `files_fingerprint` returns for files with these fingerprints."""
    return files[0] if len(files) == 1 else {"files": files, "sha256": joint_sha256(files)}


def joint_sha256(files: Iterable[dict[str, Any]]) -> str:
    """Return the SHA-256 digest over the digests in fingerprints."""
    return hashlib.sha256("".join(file["sha256"] for file in files).encode()).hexdigest()

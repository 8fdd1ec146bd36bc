"""Files that others wrote, read as bounded bytes, text or JSON: data whatever is in them, a line for each defect."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from adapter_qa.core.errors import UserError
from adapter_qa.core.messages import log_note

MAX_BYTES = 512 * 1024**2  # SQuAD v1.1 is 30 MB: room enough, yet what is made to fill the memory is refused


def read_bytes(path: str | Path, most: int = MAX_BYTES) -> bytes:
    """The content of a file of at most `most` bytes.

    Raises:
        UserError: it cannot be read, or is larger.
    """
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size  # 0 of a device, which may never end
            content = stream.read(min(size or most, most) + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: cannot be read: {reason}") from error
    return _bounded(path, content, most)


def read_stdin(most: int = MAX_BYTES) -> bytes:
    """What comes on standard input, to its end; says so where somebody is to type it.

    Raises:
        UserError: it is larger than `most` bytes.
    """
    if sys.stdin.isatty():
        log_note(["reading standard input; end it with Ctrl-D"])
    return _bounded("standard input", sys.stdin.buffer.read(most + 1), most)


def _bounded(name: str | Path, content: bytes, most: int) -> bytes:
    """The content, unless it is larger than what is read."""
    if len(content) > most:
        raise UserError(f"{name}: is larger than {most:,} bytes, the most that is read; give a part of it")
    return content


def decode(name: str | Path, content: bytes) -> str:
    """UTF-8 as text, without its byte order mark.

    Raises:
        UserError: it is no UTF-8, or there is nothing in it.
    """
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 at byte {error.start}: save the file as UTF-8") from error
    if not text.strip():
        raise UserError(f"{name}: the file is empty")
    return text


def read_text(path: str | Path, most: int = MAX_BYTES) -> str:
    """The text of a UTF-8 file of at most `most` bytes.

    Raises:
        UserError: as `read_bytes` and `decode`.
    """
    return decode(path, read_bytes(path, most))


def parse_json(text: str, *, one_line: bool = False) -> Any:
    """The value of a JSON document.

    Args:
        text: the document.
        one_line: it is a line of a file, whose number goes without saying.

    Raises:
        ValueError: it is none; the message says where it goes wrong.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if one_line:
            raise ValueError(f"not JSON at column {error.colno}: {error.msg}") from error
        hint = ""
        if error.msg == "Extra data":
            hint = "; one record a line is read from .jsonl files"
        elif error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            hint = "; the file seems to be cut off"
        raise ValueError(f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}{hint}") from error
    except (ValueError, RecursionError) as error:  # absurd numbers, absurd nesting
        raise ValueError(f"JSON that cannot be read: {error}") from error


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: the file cannot be read, or holds no object.
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
    """What a JSON value is, in words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true/false", type(None): "null"}
    if isinstance(value, float) and value != value:
        return "NaN"
    return kinds.get(type(value)) or ("a number" if isinstance(value, (int, float)) else type(value).__name__)


def is_text(value: object) -> bool:
    """Whether it is text; no lone surrogates: JSON can spell them, but no tokenizer and no UTF-8 file takes them."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


WRITING = ".writing"  # at the end of a file's name while it is being written


def file_fingerprint(path: str | Path) -> dict[str, Any]:
    """Name, size in bytes and sha256 of a data file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return {"file": str(path), "bytes": os.path.getsize(path), "sha256": digest.hexdigest()}


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON document as `write_text` does."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file aside and renames it, so that it is never half written, by a power cut either."""
    aside = path.with_name(path.name + WRITING)
    aside.write_text(text, encoding="utf-8")
    fsync_path(aside)
    os.replace(aside, path)


def fsync_tree(folder: Path) -> None:
    """`fsync_path` for a folder and all that is in it."""
    for path in [*folder.rglob("*"), folder]:
        fsync_path(path)


def fsync_path(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot do it for folders
            raise
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Digest of a file, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def replace_folder(aside: Path, folder: Path) -> None:
    """Renames `aside` to `folder`; an older `folder` goes away only once the new one is complete, on the disk too."""
    fsync_tree(aside)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(aside, folder)
    shutil.rmtree(old, ignore_errors=True)

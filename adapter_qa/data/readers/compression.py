"""Read files, compressed or not."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from adapter_qa.core import files
from adapter_qa.core.errors import UserError

COMPRESSION_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
READ_STEP = 1024**2  # bytes


def format_of(path: Path) -> str:
    """Return the lower-case suffix of a path without that of a compression, such as ".json" for `train.JSON.gz`."""
    return unpacked_name(path).suffix.lower()


def unpacked_name(path: Path) -> Path:
    """Return a path without the suffix of a compression."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSION_SUFFIXES else path


def read_content(path: Path, max_bytes: int | None = None) -> bytes:
    """Return the content of a file, decompressed if its suffix is one of `COMPRESSION_SUFFIXES`.

    Args:
        path: the file.
        max_bytes: the most that is read, counted after decompression; None: `core.files.MAX_BYTES`.

    Raises:
        UserError: the file cannot be read, is not compressed as its suffix says, or is too large.
    """
    suffix = path.suffix.lower()
    if suffix not in COMPRESSION_SUFFIXES:
        return files.read_bytes(path, max_bytes)
    limit = max_bytes or files.MAX_BYTES
    content = bytearray()
    with reported_reading(path), _open_compressed(path, suffix) as stream:
        while len(content) <= limit and (chunk := stream.read(READ_STEP)):
            content += chunk
    if len(content) > limit:
        raise UserError(f"{path}: unpacks to more than {limit:,} bytes, the most that is read; give a part of it")
    return bytes(content)


@contextmanager
def reported_reading(path: Path) -> Iterator[None]:
    """Turn the errors of reading a file, compressed or not, into UserError."""
    suffix = path.suffix.lower()
    try:
        yield
    except UnicodeDecodeError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        if suffix not in COMPRESSION_SUFFIXES:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{path}: cannot be read: {reason}") from error
        raise UserError(f"{path}: cannot be unpacked as {suffix}: {error}; the file is damaged or misnamed") from error


def open_any(path: Path) -> IO[bytes]:
    """Open a file, compressed or not, for reading its content as a stream."""
    suffix = path.suffix.lower()
    return _open_compressed(path, suffix) if suffix in COMPRESSION_SUFFIXES else path.open("rb")


def _open_compressed(path: Path, suffix: str) -> IO[bytes]:
    if suffix == ".zst":
        import pyarrow as pa  # imported here because it is slow

        return cast(IO[bytes], pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    openers: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return cast(IO[bytes], openers[suffix](path))

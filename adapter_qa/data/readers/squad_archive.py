"""Read the SQuAD-pt archive into memory, within bounds and without extracting anything to a path."""

from __future__ import annotations

import gzip
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import MAX_BYTES

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".zip")
ARCHIVE_MEMBERS = ("squad-train-v1.1.json", "squad-dev-v1.1.json")
MAX_ARCHIVE_BYTES = 2 * MAX_BYTES  # unpacked size of the whole archive


class _Member(NamedTuple):
    """A member of an archive; `stream` is None if it is a link or a device."""

    name: str
    size: int
    stream: IO[bytes] | None


def read_archive(path: Path) -> dict[str, bytes]:
    """Read the files `ARCHIVE_MEMBERS` from any folder of the archive.

    Raises:
        UserError: the archive cannot be read, or a member is missing, repeated, a link or too large.
    """
    members = _zip_members(path) if path.suffix.lower() == ".zip" else _tar_members(path)
    contents: dict[str, bytes] = {}
    try:
        for name, size, stream in members:
            if name in contents:
                raise UserError(f"{path}: holds {name} more than once")
            if stream is None:
                raise UserError(f"{path}: {name} is a link or device, not a file")
            if size > MAX_BYTES:
                raise UserError(f"{path}: {name} has {size:,} bytes; allowed: {MAX_BYTES:,}")
            contents[name] = stream.read(size)
    except (OSError, EOFError, ValueError, zlib.error, struct.error, tarfile.TarError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable archive: {error}") from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile: encrypted, unknown compression
        raise UserError(f"{path}: cannot be unpacked: {error}") from error
    missing = [name for name in ARCHIVE_MEMBERS if name not in contents]
    if missing:
        raise UserError(f"{path}: holds no {' and no '.join(missing)}; unpack another archive and give the file in it")
    return {name: contents[name] for name in ARCHIVE_MEMBERS}


class _BoundedGzipFile(gzip.GzipFile):
    """A gzip file that limits its unpacked size, because tarfile reads headers of any size into memory."""

    bytes_read = 0

    def read(self, size: int | None = -1) -> bytes:
        """Read the next bytes; raise UserError if more than `MAX_ARCHIVE_BYTES` have been read."""
        content = super().read(size)
        self.bytes_read += len(content)
        if self.bytes_read > MAX_ARCHIVE_BYTES:
            raise UserError(f"{self.name}: unpacks to more than {MAX_ARCHIVE_BYTES:,} bytes, the most that is read")
        return content


def _tar_members(path: Path) -> Iterator[_Member]:
    # In stream mode ("r|") every byte is read once and in order, so that the limit covers the whole archive.
    with _BoundedGzipFile(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if name in ARCHIVE_MEMBERS and not member.isdir():
                yield _Member(name, member.size, archive.extractfile(member) if member.isreg() else None)


def _zip_members(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.rpartition("/")[2]
            if name in ARCHIVE_MEMBERS:
                is_link = stat.S_ISLNK(member.external_attr >> 16)  # Unix archivers store the file mode there
                yield _Member(name, member.file_size, None if is_link else archive.open(member))

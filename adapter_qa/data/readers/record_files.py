"""Records of a file in any of the formats that are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from adapter_qa.core import files
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import decode
from adapter_qa.data.readers.columnar import TABLE_SUFFIXES, read_table
from adapter_qa.data.readers.compression import (
    COMPRESSION_SUFFIXES,
    format_of,
    open_any,
    read_content,
    reported_reading,
)
from adapter_qa.data.readers.json_csv import CSV_SUFFIXES, LINE_SUFFIXES, read_records, stream_records
from adapter_qa.data.readers.records import Record, TableRows

RECORD_SUFFIXES = (".json", *LINE_SUFFIXES, *CSV_SUFFIXES, *TABLE_SUFFIXES)
UNREAD_ARCHIVES = (".zip", ".tar", ".tgz")


def read_rows(path: Path, needed: Mapping[str, str] | None = None, max_bytes: int | None = None) -> TableRows:
    """Read a file whose format is one of `RECORD_SUFFIXES`, compressed or not; see `read_records` and `read_table`.

    Raises:
        UserError: the format is another one, or the file cannot be read.
    """
    suffix = _record_suffix(path)
    if suffix in TABLE_SUFFIXES:
        return read_table(path, max_bytes)
    return TableRows(read_records(str(path), read_content(path, max_bytes), suffix, needed), {})


def stream_rows(path: Path, needed: Mapping[str, str] | None = None) -> Iterator[Record]:
    """Yield the records of such a file while it is read, so that it may have any size.

    Bounded is what is in memory at once: a line of text, `STREAMED_ROWS` rows of Parquet, or a batch of Arrow. A .json
    file and a compressed table are read whole.

    Raises:
        UserError: as `read_rows`.
    """
    suffix = _record_suffix(path)
    if suffix in TABLE_SUFFIXES:
        yield from read_table(path, is_stream=True).records
    elif suffix in (*LINE_SUFFIXES, *CSV_SUFFIXES):
        try:
            with reported_reading(path), open_any(path) as stream:
                yield from stream_records(str(path), stream, suffix, needed)
        except UnicodeDecodeError as error:
            with open_any(path) as stream:
                decode(path, stream.read(files.MAX_BYTES))  # names the byte
            raise UserError(f"{path}: not UTF-8 after {files.MAX_BYTES:,} bytes; save the file as UTF-8") from error
    else:
        yield from read_rows(path, needed).records


def _record_suffix(path: Path) -> str:
    """Return the format of a file of records; UserError if it is none of `RECORD_SUFFIXES`."""
    suffix = format_of(path)
    if suffix in UNREAD_ARCHIVES:
        raise UserError(f"{path}: is an archive; unpack it and give the file in it")
    if suffix not in RECORD_SUFFIXES:
        raise UserError(
            f"{path}: extension {suffix!r}; allowed: {', '.join(RECORD_SUFFIXES)}, also compressed "
            f"({', '.join(COMPRESSION_SUFFIXES)})"
        )
    return suffix

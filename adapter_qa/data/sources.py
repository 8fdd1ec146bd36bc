"""Where records come from: files, compressed or not, tables of columns, and data sets of the `datasets` library."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from adapter_qa.core import files
from adapter_qa.core.errors import UserError

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

TABLE_SUFFIXES = (".parquet", ".arrow")
COMPRESSION_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
ROWS_AT_ONCE = 1000  # of a table; more do not make reading faster
READ_STEP = 1024**2  # bytes


@dataclass(frozen=True, slots=True)
class Record:
    """An unchecked record of a file or data set.

    Attributes:
        where: position in the source, such as `data[3].paragraphs[0].qas[2]`, `line 7` or `row 12`.
        fields: a flat object by column or key; any JSON value if the source is malformed here.
        problem: why the record cannot be read; empty if it can.
    """

    where: str
    fields: Any
    problem: str = ""


class TableRows(NamedTuple):
    """The rows of a table or data set.

    Attributes:
        records: one for each row, read while they are taken.
        class_names: the names of integer classes, by the column whose values (or lists of values) are such integers.
    """

    records: Iterable[Record]
    class_names: dict[str, tuple[str, ...]]


def format_of(path: Path) -> str:
    """Return the lower-case suffix of a path without that of a compression, such as ".json" for `train.JSON.gz`."""
    return Path(_uncompressed_name(path)).suffix.lower()


def _uncompressed_name(path: Path) -> str:
    return path.stem if path.suffix.lower() in COMPRESSION_SUFFIXES else path.name


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
    chunks, size = [], 0
    errors = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
    try:
        with _open_compressed(path, suffix) as stream:
            while size <= limit and (chunk := stream.read(READ_STEP)):
                chunks.append(chunk)
                size += len(chunk)
    except errors as error:
        raise UserError(f"{path}: cannot be unpacked as {suffix}: {error}") from error
    if size > limit:
        raise UserError(f"{path}: unpacks to more than {limit:,} bytes, the most that is read; give a part of it")
    return b"".join(chunks)


def _open_compressed(path: Path, suffix: str) -> IO[bytes]:
    if suffix == ".zst":
        import pyarrow as pa  # imported here because it is slow

        return cast(IO[bytes], pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    openers: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return cast(IO[bytes], openers[suffix](path))


def read_table(path: Path, max_bytes: int | None = None) -> TableRows:
    """Read a table in the format of Parquet or of Arrow (stream or file), compressed or not.

    Args:
        path: the file.
        max_bytes: the most that is read, counted after decompression; None: `core.files.MAX_BYTES`.

    Raises:
        UserError: the file cannot be read or is not such a table; the records raise it if they are too large.
    """
    import pyarrow as pa

    content = read_content(path, max_bytes)
    try:
        schema, batches = _open_table(content, format_of(path))
        class_names = _class_names_of_schema(schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable {format_of(path)} table: {error}") from error
    return TableRows(_table_records(path, batches, max_bytes or files.MAX_BYTES), class_names)


def _open_table(content: bytes, suffix: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.py_buffer(content)
    if suffix == ".parquet":
        parquet = pq.ParquetFile(buffer)
        return parquet.schema_arrow, parquet.iter_batches(ROWS_AT_ONCE)
    if content.startswith(b"ARROW1"):
        file = pa.ipc.open_file(buffer)
        return file.schema, (file.get_batch(index) for index in range(file.num_record_batches))
    stream = pa.ipc.open_stream(io.BytesIO(content))
    return stream.schema, iter(stream)


def _class_names_of_schema(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Return the names of classes that the `datasets` library noted in the schema of a table."""
    import datasets

    return _class_names(datasets.Features.from_arrow_schema(schema))


def _class_names(features: datasets.Features) -> dict[str, tuple[str, ...]]:
    import datasets

    names = {}
    for column, feature in features.items():
        inner = feature
        while isinstance(inner, (datasets.List, datasets.LargeList)):
            inner = inner.feature
        if isinstance(inner, datasets.ClassLabel):
            names[column] = tuple(inner.names)
    return names


def _table_records(path: Path, batches: Iterator[pa.RecordBatch], limit: int) -> Iterator[Record]:
    import pyarrow as pa

    size = number = 0
    try:
        for batch in batches:
            size += batch.nbytes
            if size > limit:
                raise UserError(f"{path}: holds more than {limit:,} bytes, the most that is read; give a part of it")
            for fields in batch.to_pylist():
                yield Record(f"row {number}", fields)
                number += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read after row {number}: {error}") from error


def load_dataset(name: str, config: str | None, split: str) -> TableRows:
    """Load a split of a data set: a folder that `datasets` reads or has saved, or else a data set of the hub.

    Code of a data set never runs.

    Raises:
        UserError: the data set cannot be loaded.
    """
    import datasets  # takes seconds, and reading files does not need it

    try:
        rows = _load_rows(name, config, split)
    except Exception as error:  # the library documents no closed set: network, hub, parser and value errors
        raise _load_error(f"dataset {name!r}, configuration {config!r}, split {split!r}", error) from error
    features = rows.features if isinstance(rows, datasets.Dataset) else None
    records = (Record(f"row {index}", row) for index, row in enumerate(rows))
    return TableRows(records, _class_names(features) if features is not None else {})


def split_names(name: str, config: str | None) -> list[str]:
    """Return the names of the splits of a data set, which is as for `load_dataset`.

    Raises:
        UserError: the data set cannot be found.
    """
    import datasets

    try:
        return datasets.get_dataset_split_names(name, config)
    except Exception as error:  # as in `load_dataset`
        raise _load_error(f"dataset {name!r}, configuration {config!r}", error) from error


def _load_error(what: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or "no reason given"
    return UserError(f"{what}: cannot be loaded: {type(error).__name__}: {reason}")


def _load_rows(name: str, config: str | None, split: str) -> datasets.Dataset:
    import datasets

    folder = Path(name)
    if (folder / "dataset_dict.json").is_file():
        return datasets.load_from_disk(name)[split]
    return datasets.load_dataset(name, config, split=split)

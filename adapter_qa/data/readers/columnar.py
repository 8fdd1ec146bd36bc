"""Records in tables of Parquet and Arrow."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from adapter_qa.core import files
from adapter_qa.core.errors import UserError, error_line
from adapter_qa.data.readers.compression import COMPRESSION_SUFFIXES, READ_STEP, format_of, read_content
from adapter_qa.data.readers.records import Record, TableRows, class_names

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_SUFFIXES = (".parquet", ".arrow")
ROWS_AT_ONCE = 1000  # of a table; more do not make reading faster
STREAMED_ROWS = 50  # of Parquet; all of them may have the longest text
VALUE_BYTES = 32  # counted for every value of a table, beside the characters of texts


def read_table(path: Path, max_bytes: int | None = None, *, is_stream: bool = False) -> TableRows:
    """Read a table in the format of Parquet or of Arrow (stream or file), compressed or not.

    Args:
        path: the file.
        max_bytes: the most that is read, counted as if every value were written out; None: `core.files.MAX_BYTES`.
        is_stream: count every batch of rows by itself, because the caller does not keep the records.

    Raises:
        UserError: the file cannot be read or is not such a table; taking the records raises it if they are too large.
    """
    import pyarrow as pa  # imported here because it is slow

    limit = max_bytes or files.MAX_BYTES
    packed = path.suffix.lower() in COMPRESSION_SUFFIXES
    content = read_content(path, limit) if packed else b""
    try:
        source = pa.BufferReader(content) if packed else pa.OSFile(str(path))
        table = _open_parquet(source, is_stream) if format_of(path) == ".parquet" else _open_arrow(source)
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
        raise UserError(f"{path}: not a readable {format_of(path)} table: {error_line(error)}") from error
    if table.bytes > limit and not is_stream:
        raise _too_large(path, limit)
    return TableRows(_table_records(path, table.batches, limit, is_stream=is_stream), _classes_in_schema(table.schema))


class _Table(NamedTuple):
    """An open table.

    Attributes:
        schema: names and types of the columns.
        bytes: after decompression, as the file declares them.
        batches: of rows, read while they are taken.
    """

    schema: pa.Schema
    bytes: int
    batches: Iterator[pa.RecordBatch]


def _open_parquet(source: pa.NativeFile, is_stream: bool) -> _Table:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(source)
    groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
    chunks = [group.column(column) for group in groups for column in range(group.num_columns)]
    declared = sum(chunk.total_uncompressed_size + VALUE_BYTES * chunk.num_values for chunk in chunks)
    if is_stream:
        # A dictionary grows with the row group, which may be the whole file; so does what is read without a buffer.
        batches = pq.ParquetFile(source, buffer_size=READ_STEP).iter_batches(STREAMED_ROWS)
    else:
        # Texts are read as dictionaries, because one long text may stand in a million rows.
        leaves = [file.schema.column(column) for column in range(file.metadata.num_columns)]
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        batches = pq.ParquetFile(source, read_dictionary=texts).iter_batches(ROWS_AT_ONCE)
    return _Table(file.schema_arrow, declared, batches)


def _open_arrow(source: pa.NativeFile) -> _Table:
    """Open a stream, or a file, which is a stream between two marks."""
    import pyarrow as pa

    start = 8 if source.read(6) == b"ARROW1" else 0
    source.seek(start)
    declared = sum(map(_unpacked_bytes, pa.ipc.MessageReader.open_stream(source)))
    source.seek(start)
    stream = pa.ipc.open_stream(source)
    return _Table(stream.schema, declared, iter(stream))


def _unpacked_bytes(message: pa.ipc.Message) -> int:
    """Return the bytes of a message's body after decompression, which its buffers declare.

    pyarrow decompresses without a limit, so the metadata is read here. It is a flatbuffer: a table points to the
    offsets of its fields.
    """
    if message.type not in ("record batch", "dictionary"):
        return 0
    metadata, body = message.metadata.to_pybytes(), message.body

    def follow(position: int) -> int:
        return position + int(struct.unpack_from("<I", metadata, position)[0])

    def field(table: int, number: int) -> int:
        offsets = table - int(struct.unpack_from("<i", metadata, table)[0])
        end, entry = int(struct.unpack_from("<H", metadata, offsets)[0]), 4 + 2 * number
        offset = int(struct.unpack_from("<H", metadata, offsets + entry)[0]) if entry < end else 0
        return table + offset if offset else 0

    batch = follow(field(follow(0), 2))
    if message.type == "dictionary":
        batch = follow(field(batch, 1))
    if not field(batch, 3):  # no compression
        return int(body.size)
    buffers, total = follow(field(batch, 2)), 0
    for number in range(struct.unpack_from("<I", metadata, buffers)[0]):
        start, length = struct.unpack_from("<qq", metadata, buffers + 4 + 16 * number)
        total += length if length < 8 else max(length, struct.unpack("<q", body[start : start + 8])[0])
    return total


def _table_records(path: Path, batches: Iterator[pa.RecordBatch], limit: int, *, is_stream: bool) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.compute as pc

    size = number = 0
    try:
        for batch in batches:
            batch.validate(full=True)  # wrong offsets in a damaged file would end the process
            size = sum(map(_plain_bytes, batch.columns)) + (0 if is_stream else size)
            if size > limit:
                raise _too_large(path, limit)
            columns = [_as_json_type(pc.dictionary_decode(column)) for column in batch.columns]
            for fields in pa.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist():
                yield Record(f"row {number}", fields)
                number += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read after row {number}: {error_line(error)}") from error


def _as_json_type(column: pa.Array) -> pa.Array:
    """Return dates, times and decimals as text, which JSON has no type for; any other column as it is."""
    import pyarrow as pa

    types, kind = pa.types, column.type
    is_time = types.is_date(kind) or types.is_time(kind) or types.is_timestamp(kind)
    return column.cast(pa.string()) if is_time or types.is_decimal(kind) else column


def _plain_bytes(array: pa.Array) -> int:
    """Return the bytes of an array in which every value is written out.

    Raises:
        ValueError: values are of a type that may hide more of them than are known here.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    size, types, kind = VALUE_BYTES * len(array), pa.types, array.type
    if types.is_dictionary(kind) and _is_text(kind.value_type):
        size += pc.sum(pc.take(pc.binary_length(array.dictionary), array.indices)).as_py() or 0
    elif _is_text(kind):
        size += pc.sum(pc.binary_length(array)).as_py() or 0
    elif types.is_string_view(kind) or types.is_binary_view(kind):  # 16 bytes a value, of which 4 are its length
        views = np.frombuffer(array.buffers()[1], np.int32).reshape(-1, 4)
        size += int(views[array.offset : array.offset + len(array), 0].sum(dtype=np.int64))
    elif types.is_struct(kind):
        size += sum(map(_plain_bytes, array.flatten()))
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        size += _plain_bytes(array.flatten())
    elif types.is_map(kind):
        size += _plain_bytes(array.keys) + _plain_bytes(array.items)
    elif isinstance(array, pa.ExtensionArray):
        size += _plain_bytes(array.storage)
    elif not _has_fixed_size(kind.value_type if types.is_dictionary(kind) else kind):
        raise ValueError(f"a column has the type {kind}; write it as text, numbers or lists")
    return size


def _has_fixed_size(kind: pa.DataType) -> bool:
    import pyarrow as pa

    types = pa.types
    checks = (types.is_primitive, types.is_null, types.is_decimal, types.is_fixed_size_binary)
    return any(check(kind) for check in checks)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    types = pa.types
    checks = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(check(kind) for check in checks)


def _too_large(path: Path, limit: int) -> UserError:
    return UserError(f"{path}: unpacks to more than {limit:,} bytes, the most that is read; give a part of it")


def _classes_in_schema(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Return the names of classes that the `datasets` library noted in the schema of a table."""
    note = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(note).get("info", {}).get("features", {})
    except (ValueError, AttributeError):  # a note of something else
        return {}
    return class_names(features) if isinstance(features, dict) else {}

"""Where records come from: files, compressed or not, tables of columns, and data sets of the `datasets` library."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from adapter_qa.core import files
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import decode, parse_json

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

LINE_SUFFIXES = (".jsonl", ".ndjson")
CSV_SUFFIXES = (".csv", ".tsv")
TABLE_SUFFIXES = (".parquet", ".arrow")
RECORD_SUFFIXES = (".json", *LINE_SUFFIXES, *CSV_SUFFIXES, *TABLE_SUFFIXES)
COMPRESSION_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz")
SAVED_MARKS = ("dataset_dict.json", "state.json")  # in a folder of `datasets.save_to_disk`

DELIMITERS = ",;\t|"
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n')  # Excel writes and reads such a first line
ROWS_AT_ONCE = 1000  # of a table; more do not make reading faster
STREAMED_ROWS = 50  # of Parquet; all of them may have the longest text
READ_STEP = 1024**2  # bytes
VALUE_BYTES = 32  # counted for every value of a table, beside the characters of texts


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


# ---------------------------------------------------------------- files


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
    with _reported_reading(path), _open_compressed(path, suffix) as stream:
        while len(content) <= limit and (chunk := stream.read(READ_STEP)):
            content += chunk
    if len(content) > limit:
        raise UserError(f"{path}: unpacks to more than {limit:,} bytes, the most that is read; give a part of it")
    return bytes(content)


@contextmanager
def _reported_reading(path: Path) -> Iterator[None]:
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


def _open_compressed(path: Path, suffix: str) -> IO[bytes]:
    if suffix == ".zst":
        import pyarrow as pa  # imported here because it is slow

        return cast(IO[bytes], pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    openers: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return cast(IO[bytes], openers[suffix](path))


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
            with _reported_reading(path), _open_any(path) as stream:
                yield from stream_records(str(path), stream, suffix, needed)
        except UnicodeDecodeError as error:
            with _open_any(path) as stream:
                decode(path, stream.read(files.MAX_BYTES))  # names the byte
            raise UserError(f"{path}: not UTF-8 after {files.MAX_BYTES:,} bytes; save the file as UTF-8") from error
    else:
        yield from read_rows(path, needed).records


def _open_any(path: Path) -> IO[bytes]:
    suffix = path.suffix.lower()
    return _open_compressed(path, suffix) if suffix in COMPRESSION_SUFFIXES else path.open("rb")


def _record_suffix(path: Path) -> str:
    """Return the format of a file of records; UserError if it is none of `RECORD_SUFFIXES`."""
    suffix = format_of(path)
    if suffix in ARCHIVE_SUFFIXES:
        raise UserError(f"{path}: is an archive; unpack it and give the file in it")
    if suffix not in RECORD_SUFFIXES:
        raise UserError(
            f"{path}: extension {suffix!r}; allowed: {', '.join(RECORD_SUFFIXES)}, also compressed "
            f"({', '.join(COMPRESSION_SUFFIXES)})"
        )
    return suffix


# ---------------------------------------------------------------- JSON and CSV


def read_records(name: str, content: bytes, suffix: str, needed: Mapping[str, str] | None = None) -> Iterator[Record]:
    """Split the content of a text file into records.

    .json is a list, `{"data": [...]}`, a single record, or an object of columns such as `{"id": [...], "question":
    [...]}`; a file with a JSON value on each line is read like .jsonl. The cells of .csv and .tsv are text.

    Args:
        name: path or name of the file, for error messages.
        content: UTF-8 with or without a byte order mark.
        suffix: .json, or one of `LINE_SUFFIXES` and `CSV_SUFFIXES`.
        needed: by option, the columns that the header of CSV must have, and of which a single record or an object of
            columns has one; without it any columns will do.

    Raises:
        UserError: the content does not have the format.
    """
    text = decode(name, content)
    if suffix in CSV_SUFFIXES:
        return _csv_records(name, io.StringIO(text, newline=""), needed or {})
    if suffix in LINE_SUFFIXES:
        return _line_records(text.split("\n"))
    return _json_records(name, text, needed or {})


def stream_records(
    name: str, stream: IO[bytes], suffix: str, needed: Mapping[str, str] | None = None
) -> Iterator[Record]:
    """Yield the records of a stream in one of `LINE_SUFFIXES` and `CSV_SUFFIXES`; see `read_records`.

    Raises:
        UserError: as `read_records`, or a line has more than `core.files.MAX_BYTES` characters.
        UnicodeDecodeError: the stream is not UTF-8.
    """
    lines = _text_lines(name, io.TextIOWrapper(stream, "utf-8-sig", newline="" if suffix in CSV_SUFFIXES else "\n"))
    return _csv_records(name, lines, needed or {}) if suffix in CSV_SUFFIXES else _line_records(lines)


def _text_lines(name: str, text: IO[str]) -> Iterator[str]:
    """Yield the lines of a text; UserError if all of them are blank, or one is too long."""
    is_empty = True
    while line := text.readline(files.MAX_BYTES):
        if len(line) >= files.MAX_BYTES:
            raise UserError(f"{name}: a line has more than {files.MAX_BYTES:,} characters, the most that is read")
        is_empty = is_empty and not line.strip()
        yield line
    if is_empty:
        raise UserError(f"{name}: the file is empty")


def _json_records(name: str, text: str, needed: Mapping[str, str]) -> Iterator[Record]:
    try:
        document = parse_json(text)
    except ValueError as error:
        yield from _lines_in_json(name, text, error)
        return
    items = document.get("data", document) if isinstance(document, dict) else document
    if isinstance(items, list):
        for index, item in enumerate(items):
            yield Record(f"data[{index}]", item)
        return
    if isinstance(document, dict) and any(isinstance(document.get(key), str) for key in needed.values()):
        yield Record("data", document)
        return
    columns = items if isinstance(items, dict) else {}
    columns = {key: value for key, value in columns.items() if isinstance(value, (list, dict))}
    if not columns or (needed and not {*needed.values()} & {*columns}):
        found = f"; found: {', '.join(document)}" if isinstance(document, dict) else ""
        raise UserError(f"{name}: the top level must be a list or an object whose 'data' is a list{found}")
    yield from _column_records(name, columns)


def _lines_in_json(name: str, text: str, error: ValueError) -> Iterator[Record]:
    """Yield the records of a file that is not one JSON document if each of its lines is; raise UserError otherwise."""
    records = _line_records(text.split("\n"))
    first = next(records)
    if first.problem:
        raise UserError(f"{name}: {error}") from error
    others = list(records)
    defect = next((record for record in others if record.problem), None)
    if defect is not None:
        lines = f"read as one record on each line, {defect.where} is {defect.problem}"
        raise UserError(f"{name}: {error}; {lines}") from error
    yield first
    yield from others


def _column_records(name: str, columns: Mapping[str, Any]) -> Iterator[Record]:
    """Yield the rows of columns: lists, or the objects by row that pandas writes."""
    rows = _rows_of(next(iter(columns.values())))
    for column, values in columns.items():
        if _rows_of(values) != rows:
            raise UserError(f"{name}: column {column!r} has other rows than {next(iter(columns))!r}; all need the same")
    for row in rows:
        yield Record(f"row {row}", {column: values[row] for column, values in columns.items()})


def _rows_of(values: list[Any] | dict[str, Any]) -> list[Any]:
    return list(values) if isinstance(values, dict) else list(range(len(values)))


def _line_records(lines: Iterable[str]) -> Iterator[Record]:
    """Yield the values on lines that end with a line feed: a JSON string may contain U+2028 and other separators."""
    for number, ended_line in enumerate(lines, start=1):
        line = ended_line.removesuffix("\n")
        if not line.strip():
            continue
        try:
            yield Record(f"line {number}", parse_json(line, one_line=True))
        except ValueError as error:
            yield Record(f"line {number}", line, str(error))


def _csv_records(name: str, text: Iterable[str], needed: Mapping[str, str]) -> Iterator[Record]:
    """Yield the rows of a table with a header, which shows the delimiter, from the lines of a text."""
    csv.field_size_limit(files.MAX_BYTES)  # the default limit is 128 KiB
    lines = iter(text)
    top = [*_first_lines(lines)]
    separator = SEPARATOR_LINE.match(top[0])
    delimiter = separator[1] if separator else _delimiter(top[-1], {*needed.values()})
    rows = csv.reader(chain([] if separator else top, lines), delimiter=delimiter, strict=True)
    line = skipped = 1 if separator else 0
    try:
        header = next((row for row in rows if row), [])
        _check_header(name, header, needed)
        line = rows.line_num + skipped
        for row in rows:
            line = rows.line_num + skipped
            if row:
                fits = len(row) == len(header)
                problem = "" if fits else f"the number of values is not {len(header)}, the number of columns"
                yield Record(f"line {line}", dict(zip(header, row, strict=False)), problem)
    except csv.Error as error:
        raise UserError(f"{name}: not CSV after line {line}: {error}") from error


def _first_lines(lines: Iterator[str]) -> Iterator[str]:
    """Yield the first line that is not blank, and those before it."""
    for line in lines:
        yield line
        if line.strip():
            return


def _delimiter(header: str, needed: set[str]) -> str:
    """Return the delimiter by which a header has the most of the needed columns, and then the most columns.

    If none divides the line it is the tab: texts in a single column may contain any other.
    """
    header = header.lstrip().splitlines()[0]

    def fit(delimiter: str) -> tuple[int, int]:
        columns = next(csv.reader([header], delimiter=delimiter))
        return len(needed.intersection(columns)), len(columns)

    best = max(DELIMITERS, key=fit)
    return best if fit(best)[1] > 1 else "\t"


def _check_header(name: str, header: Sequence[str], needed: Mapping[str, str]) -> None:
    repeated = [column for column, count in Counter(header).items() if count > 1]
    if repeated:
        raise UserError(f"{name}: more than one column {', '.join(repeated)}; each needs its own name")
    missing = {option: column for option, column in needed.items() if column not in header}
    if missing:
        columns, options = ", ".join(missing.values()), ", ".join(f"--{option}" for option in missing)
        raise UserError(f"{name}: no column {columns}; found: {', '.join(header)}; name others with {options}")


# ---------------------------------------------------------------- Parquet and Arrow


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
        raise UserError(f"{path}: not a readable {format_of(path)} table: {_one_line(error)}") from error
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
            size = sum(map(_plain_bytes, batch.columns)) + (0 if is_stream else size)
            if size > limit:
                raise _too_large(path, limit)
            columns = [pc.dictionary_decode(column) for column in batch.columns]
            for fields in pa.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist():
                yield Record(f"row {number}", fields)
                number += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read after row {number}: {_one_line(error)}") from error


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _classes_in_schema(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Return the names of classes that the `datasets` library noted in the schema of a table."""
    note = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(note).get("info", {}).get("features", {})
    except (ValueError, AttributeError):  # a note of something else
        return {}
    return _class_names(features) if isinstance(features, dict) else {}


def _class_names(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the names of classes by column, from features as `datasets` writes them."""
    names = {}
    for column, feature in features.items():
        inner = feature
        while isinstance(inner, list) or (isinstance(inner, dict) and isinstance(inner.get("feature"), (list, dict))):
            inner = (inner or [None])[0] if isinstance(inner, list) else inner["feature"]
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and isinstance(inner.get("names"), list):
            names[column] = tuple(map(str, inner["names"]))
    return names


# ---------------------------------------------------------------- data sets


def load_dataset(name: str, config: str | None, split: str) -> TableRows:
    """Load a split of a data set: a folder that `datasets` reads or has saved, or else a data set of the hub.

    Code of a data set never runs.

    Raises:
        UserError: the data set cannot be loaded.
    """
    import datasets  # takes seconds, and reading files does not need it

    what = f"dataset {name!r}, configuration {config!r}, split {split!r}"
    with _reported_load(what):
        saved = _saved_splits(name)
        if saved and split not in saved:
            raise UserError(f"{what}: cannot be loaded: its splits are {', '.join(saved)}")
        rows = saved[split] if saved else datasets.load_dataset(name, config, split=split)
    return TableRows(_dataset_records(rows), _class_names(rows.features.to_dict()))


def dataset_source(name: str, config: str | None, split: str) -> dict[str, Any]:
    """Return where the records of `load_dataset` come from, for run.json: a folder as an absolute path."""
    folder = Path(name)
    return {"dataset": str(folder.resolve()) if folder.is_dir() else name, "config": config, "split": split}


def split_names(name: str, config: str | None) -> list[str]:
    """Return the names of the splits of a data set, which is as for `load_dataset`.

    Raises:
        UserError: the data set cannot be found.
    """
    import datasets

    with _reported_load(f"dataset {name!r}, configuration {config!r}"):
        return [*_saved_splits(name)] or list(datasets.get_dataset_split_names(name, config))


@contextmanager
def _reported_load(what: str) -> Iterator[None]:
    """Turn every exception of the `datasets` library into UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the library documents no closed set: network, hub, parser and value errors
        raise UserError(f"{what}: cannot be loaded: {type(error).__name__}: {_one_line(error)}") from error


def _saved_splits(name: str) -> dict[str, datasets.Dataset]:
    """Return the splits in a folder of `save_to_disk`; none if it is another folder or a data set of the hub.

    Raises:
        UserError: the name can be neither a folder nor an id of the hub.
    """
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as FORMATS

    folder = Path(name)
    if folder.is_file():
        raise UserError(
            f"--dataset_name {name}: is a file; give it with --train_file, --validation_file or --test_file"
        )
    if folder.is_dir():
        if not any((folder / mark).is_file() for mark in SAVED_MARKS):
            return {}
        saved = datasets.load_from_disk(name)
        return dict(saved) if isinstance(saved, datasets.DatasetDict) else {str(saved.split or "train"): saved}
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"--dataset_name {name}: no such folder; give a folder or an id of the hub, OWNER/NAME")
    if name in FORMATS:  # `datasets` would read such files in the current folder, pickles too
        raise UserError(f"--dataset_name {name}: is a format of files; give a folder or an id of the hub, OWNER/NAME")
    return {}


def _dataset_records(rows: datasets.Dataset) -> Iterator[Record]:
    number = 0
    for table in rows.with_format("arrow").iter(ROWS_AT_ONCE):
        for fields in table.to_pylist():
            yield Record(f"row {number}", fields)
            number += 1

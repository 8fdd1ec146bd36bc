"""Records in JSON, lines of JSON, CSV and TSV."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import IO, Any

from adapter_qa.core import files
from adapter_qa.core.errors import UserError, first_names
from adapter_qa.core.files import decode, parse_json
from adapter_qa.core.readable import count
from adapter_qa.data.readers.records import Record

LINE_SUFFIXES = (".jsonl", ".ndjson")
CSV_SUFFIXES = (".csv", ".tsv")
DELIMITERS = ",;\t|"
TAB_ADVICE = "quote cells that have quotation marks and double these, or save as JSON lines"
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n')  # Excel writes and reads such a first line


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
        found = f"; found: {first_names(document)}" if isinstance(document, dict) else ""
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
            if any(map(str.strip, row)):  # spreadsheets write rows and columns without values
                problem = ""
                if len(row) != len(header):
                    advice = f"; quote values that contain {delimiter!r}" if len(row) > len(header) else ""
                    problem = f"{count(len(row), 'value')} for {count(len(header), 'column')}{advice}"
                # A program that quotes nothing wrote quotation marks at the start and end of cells in different rows.
                if delimiter == "\t" and len(header) > 1 and any("\t" in cell and "\n" in cell for cell in row):
                    problem = f"a cell holds a tab and a line break; {TAB_ADVICE}"
                cells = {column: cell for column, cell in zip(header, row, strict=False) if column}
                yield Record(f"line {line}", cells, problem)
    except csv.Error as error:
        advice = f"; {TAB_ADVICE}" if delimiter == "\t" else ""
        raise UserError(f"{name}: not CSV after line {line}: {error}{advice}") from error


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
    repeated = [column for column, count in Counter(header).items() if column and count > 1]
    if repeated:
        raise UserError(f"{name}: more than one column {', '.join(repeated)}; each needs its own name")
    missing = {option: column for option, column in needed.items() if column not in header}
    if missing:
        columns, options = ", ".join(missing.values()), ", ".join(f"--{option}" for option in missing)
        raise UserError(
            f"{name}: no column {columns}; found: {first_names(filter(None, header))}; name others with {options}"
        )

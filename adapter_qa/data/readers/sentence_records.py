"""Words and labels in the records of JSON and CSV files, of tables and of data sets, unchecked."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from adapter_qa.core.errors import UserError, first_names
from adapter_qa.core.files import is_text, kind, parse_json
from adapter_qa.data.label_schemes import LABEL
from adapter_qa.data.readers.json_csv import DELIMITERS
from adapter_qa.data.readers.records import Record, TableRows

WORD_KEYS = ("tokens", "words")  # the first that a record has
LABEL_KEY, OTHER_LABEL_KEYS = "ner_tags", ("tags", "labels", "ner")
LIST_ITEM = re.compile(r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|-?\d++""")
LIST = re.compile(rf"\[((?:[\s,]|{LIST_ITEM.pattern})*+)\]")  # numpy puts no commas between items


@dataclass(frozen=True)
class SentenceColumns:
    """Where words and labels stand, if the user says so.

    Attributes:
        words: number of a column of text, from 1 or from -1 backwards, or a key of records; None: the source decides.
        labels: the same for labels.
        class_names: the names of labels that are integers, in the order of these.
    """

    words: str | None = None
    labels: str | None = None
    class_names: tuple[str, ...] = ()


class ParsedSentence(NamedTuple):
    """A sentence before its words and labels are checked.

    Attributes:
        where: position of the record; for text with columns the number of each word's line.
        words: the words.
        labels: text, or integers; "" for a word that has none.
        class_names: the names of integer labels; empty if they are not known.
        problems: why the sentence cannot be read, with positions.
    """

    where: str | list[int]
    words: Sequence[str]
    labels: Sequence[str | int]
    class_names: tuple[str, ...]
    problems: list[str]

    def position(self, index: int = 0) -> str:
        """Return where the word with an index stands."""
        return self.where if isinstance(self.where, str) else f"line {self.where[index]}"


def parse_records(rows: TableRows, columns: SentenceColumns, need_labels: bool) -> Iterator[ParsedSentence]:
    """Find words and labels of every record; labels only if they are needed."""
    for record in rows.records:
        try:
            yield _record(record, columns, rows.class_names, need_labels)
        except ValueError as error:
            yield ParsedSentence(record.where, [], [], (), [f"{record.where}: {error}"])


def _record(
    record: Record, columns: SentenceColumns, class_names: Mapping[str, tuple[str, ...]], need_labels: bool
) -> ParsedSentence:
    """Find words and labels of a record, or raise ValueError if it has none or in a wrong form."""
    if record.problem:
        raise ValueError(record.problem)
    fields = record.fields
    if not isinstance(fields, dict):
        raise ValueError(f'{kind(fields)} instead of an object {{"tokens": [...], "ner_tags": [...]}}')
    words_key = columns.words or next((key for key in WORD_KEYS if key in fields), None)
    if words_key not in fields:
        wanted = repr(words_key) if words_key else " or ".join(map(repr, WORD_KEYS))
        raise ValueError(f"no {wanted}; found: {first_names(fields)}; --word_column names another key")
    labels_key = _labels_key(fields, columns.labels) if need_labels else None
    words, labels = fields[words_key], [] if labels_key is None else fields[labels_key]
    if not isinstance(words, list) or not all(map(is_text, words)):
        raise ValueError(f"{words_key!r} must be a list of text, a word each")
    if not isinstance(labels, list) or not all(type(label) is int or is_text(label) for label in labels):
        raise ValueError(f"{labels_key!r} must be a list of labels such as B-LOC, or of whole numbers")
    if need_labels and not labels and words:
        keys = [LABEL_KEY, *OTHER_LABEL_KEYS] if columns.labels is None else [columns.labels]
        raise ValueError(f"no labels under {' or '.join(map(repr, keys))}; --label_column names another key")
    names = columns.class_names or class_names.get(labels_key or "", ())
    return ParsedSentence(record.where, words, labels, names, [])


def _labels_key(fields: dict[str, Any], chosen: str | None) -> str | None:
    """Return the key of a record's labels; None if it has none. Raise ValueError if it is not clear which."""
    if chosen is not None:
        keys = [chosen]
    else:
        keys = [LABEL_KEY] if fields.get(LABEL_KEY) is not None else list(OTHER_LABEL_KEYS)
    present = [key for key in keys if fields.get(key) is not None]
    if len(present) > 1:
        raise ValueError(f"labels may be {' or '.join(map(repr, present))}; choose with --label_column")
    return present[0] if present else None


def has_list_cells(path: Path, text: str, words_key: str | None) -> bool:
    """Return whether a .csv or .tsv file is a table with lists in its cells; otherwise it has a word on each line.

    Raises:
        UserError: the file has a word on each row of a table.
    """
    header, row = [*re.split(r"[\r\n]+", text.strip(), maxsplit=2), ""][:2]
    names = {name.strip('" ') for name in re.split(f"[{DELIMITERS}]", header.strip())}
    if names & {*WORD_KEYS, words_key} and "[" in row:
        return True
    if all(re.search("[,;]", line) and not LABEL.fullmatch(line.split()[-1]) for line in (header, row)):
        raise UserError(
            f"{path}: no column {' or '.join(WORD_KEYS)} with lists; a {path.suffix} file has a sentence on each row, "
            "or a word on each line with its label after a tab or blank"
        )
    return False


def with_list_cells(records: Iterable[Record]) -> Iterator[Record]:
    """Yield records in which cells that hold lists, as JSON, Python or numpy write them, are such."""
    for record in records:
        yield replace(record, fields={key: _cell_value(cell) for key, cell in record.fields.items() if cell})


def _cell_value(cell: str) -> str | list[str | int]:
    match = LIST.fullmatch(cell.strip())
    with contextlib.suppress(ValueError, SyntaxError):  # a number such as 007, an unknown escape sequence
        return [ast.literal_eval(item) for item in LIST_ITEM.findall(match[1])] if match is not None else cell
    return cell


def document_names(suffix: str, content: bytes) -> tuple[str, ...]:
    """Return the class names that a JSON document holds as "label_names" beside its "data"; empty without them."""
    if suffix != ".json" or b'"label_names"' not in content:
        return ()
    try:
        document = parse_json(content.decode("utf-8-sig"))
    except ValueError:  # `read_records` reports it
        return ()
    names = document.get("label_names") if isinstance(document, dict) else None
    return tuple(names) if isinstance(names, list) and all(map(is_text, names)) else ()

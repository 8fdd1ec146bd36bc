"""Sentences with entity labels, read from text with columns, JSON, CSV, tables and data sets. Labels become IOB2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from adapter_qa.core.errors import UserError, raise_first_problems
from adapter_qa.core.files import decode
from adapter_qa.core.readable import count
from adapter_qa.data.label_schemes import ALLOWED_LABELS, IOB2, LABEL, OUTSIDE, to_iob2
from adapter_qa.data.readers.columnar import TABLE_SUFFIXES, read_table
from adapter_qa.data.readers.compression import format_of, read_content
from adapter_qa.data.readers.conll import read_columns
from adapter_qa.data.readers.dataset_library import load_dataset
from adapter_qa.data.readers.json_csv import CSV_SUFFIXES, LINE_SUFFIXES, read_records
from adapter_qa.data.readers.records import TableRows
from adapter_qa.data.readers.sentence_records import (
    ParsedSentence,
    SentenceColumns,
    document_names,
    has_list_cells,
    parse_records,
    with_list_cells,
)

NO_WORD = re.compile(r"\A(?: |\Z)|[\t\n\r]| \Z")


@dataclass(frozen=True, slots=True)
class Sentence:
    """The words of a sentence and their IOB2 labels; no labels if they are not known or not needed."""

    words: tuple[str, ...]
    labels: tuple[str, ...]


class SentenceSource(NamedTuple):
    """Checked sentences of a file or data set.

    Attributes:
        sentences: at least one.
        scheme: of the labels before they became IOB2.
        has_integers: whether labels were integers.
        notes: what the user should know.
    """

    sentences: list[Sentence]
    scheme: str
    has_integers: bool
    notes: list[str]


def read_sentence_file(path: Path, columns: SentenceColumns, *, need_labels: bool) -> SentenceSource:
    """Read the sentences of a file.

    A JSON file has records `{"tokens": [...], "ner_tags": [...]}`: in a list, in a list under "data", or one on each
    line. A table (.parquet, .arrow, or .csv and .tsv with lists in the cells) has such columns. Every other file has a
    word on each line (`read_columns`).

    Args:
        path: the file, compressed or not.
        columns: where words and labels stand.
        need_labels: whether every sentence must have labels. Labels that are not needed are left out.

    Raises:
        UserError: the file cannot be read or contains no sentence, or labels are missing or not in one scheme.
    """
    suffix = format_of(path)
    if suffix in TABLE_SUFFIXES:
        return _from_rows(str(path), read_table(path), columns, need_labels)
    content = read_content(path)
    if suffix in (".json", *LINE_SUFFIXES):
        if not columns.class_names:
            columns = replace(columns, class_names=document_names(suffix, content))
        records = TableRows(read_records(str(path), content, suffix), {})
        return _from_rows(str(path), records, columns, need_labels)
    text = decode(path, content)
    if suffix in CSV_SUFFIXES and has_list_cells(path, text, columns.words):
        records = TableRows(with_list_cells(read_records(str(path), content, suffix)), {})
        return _from_rows(str(path), records, columns, need_labels)
    word_column = _column_number(path, "word_column", columns.words)
    label_column = _column_number(path, "label_column", columns.labels)
    file = read_columns(str(path), text, word_column, label_column)
    parsed = [
        ParsedSentence(
            item.lines, item.words, item.labels if any(item.labels) else [], columns.class_names, item.problems
        )
        for item in file.sentences
    ]
    return _checked(str(path), parsed, file.notes, need_labels)


def load_sentence_dataset(
    name: str, config: str | None, split: str, columns: SentenceColumns, *, need_labels: bool
) -> SentenceSource:
    """Load the sentences of a data set's split; see `dataset_library.load_dataset` and `read_sentence_file`.

    Raises:
        UserError: as for these.
    """
    return _from_rows(f"{name} ({split})", load_dataset(name, config, split), columns, need_labels)


def label_names(sentences: Iterable[Sentence]) -> list[str]:
    """Return "O", then the B- and I- label of every entity type, types in alphabetical order."""
    types = sorted({label[2:] for sentence in sentences for label in sentence.labels if label != OUTSIDE})
    return [OUTSIDE, *[f"{prefix}-{entity}" for entity in types for prefix in ("B", "I")]]


def format_sentences(sentences: Sequence[Sentence]) -> str:
    """Return the text of a CoNLL file; its columns are separated by blanks, or by tabs if a word has a blank."""
    separator = "\t" if any(" " in word for sentence in sentences for word in sentence.words) else " "
    blocks = (
        "".join(f"{word}{separator}{label}\n" for word, label in zip(sentence.words, sentence.labels, strict=True))
        for sentence in sentences
    )
    return "\n".join(blocks)


def _from_rows(name: str, rows: TableRows, columns: SentenceColumns, need_labels: bool) -> SentenceSource:
    """Read records. One without words is left out: published data sets have such records."""
    parsed = list(parse_records(rows, columns, need_labels))
    kept = [item for item in parsed if item.words or item.problems]
    empty = len(parsed) - len(kept)
    notes = [f"{name}: {count(empty, 'sentence')} without words left out"] if empty else []
    return _checked(name, kept, notes, need_labels)


def _column_number(path: Path, option: str, value: str | None) -> int | None:
    """Return the number of a column.

    Raises:
        UserError: the value is not one.
    """
    if value is None:
        return None
    if not value.removeprefix("-").isdecimal() or int(value) == 0:
        raise UserError(
            f"--{option} {value}: {path} has columns without names; give a number, 1 the first, -1 the last"
        )
    return int(value)


def _checked(name: str, parsed: Sequence[ParsedSentence], notes: list[str], need_labels: bool) -> SentenceSource:
    """Check words and labels, and convert the labels to IOB2.

    Raises:
        UserError: there is no sentence, or some are not valid.
    """
    if not parsed:
        raise UserError(f"{name}: holds no sentence; a sentence has words, and a label for each of them")
    distinct = {label for item in parsed for label in item.labels}
    integers = [label for label in distinct if _is_integer(label)]
    if need_labels and integers and not all(item.class_names for item in parsed if item.labels):
        raise UserError(
            f"{name}: labels are numbers, {min(map(int, integers))} to {max(map(int, integers))}; give their names in "
            "this order: --label_names O B-PER I-PER ..."
        )
    valid = {label for label in distinct if isinstance(label, str) and LABEL.fullmatch(label)}
    labels: list[tuple[str, ...]] = []
    problems = []
    for item in parsed:
        try:
            labels.append(_checked_labels(item, valid, need_labels))
        except ValueError as error:
            problems.append(f"{name}, {error}")
    raise_first_problems(problems, name)
    if not need_labels:
        return SentenceSource([Sentence(tuple(item.words), ()) for item in parsed], IOB2, False, notes)
    converted = to_iob2(labels)
    problems = [
        f"{name}, {parsed[number].position(index)}: {parsed[number].words[index]} has {text}"
        for number, index, text in converted.problems
    ]
    raise_first_problems(problems, name)
    sentences = [Sentence(tuple(item.words), row) for item, row in zip(parsed, converted.labels, strict=True)]
    return SentenceSource(sentences, converted.scheme, bool(integers), notes)


def _is_integer(label: str | int) -> bool:
    return isinstance(label, int) or label.isdecimal()


def _checked_labels(item: ParsedSentence, valid: set[str], need_labels: bool) -> tuple[str, ...]:
    """Check the words of a sentence, and return its labels as text, or raise ValueError with the first defect.

    `valid` are the labels of the source that are text and such by their form.
    """
    if item.problems:
        raise ValueError(item.problems[0])
    for index, word in enumerate(item.words):
        if NO_WORD.search(word):
            raise ValueError(
                f"{item.position(index)}: {word!r} is not a word; a word is not empty, has no blanks at its ends, and "
                "no tabs or line breaks"
            )
    if not item.labels and need_labels:
        raise ValueError(f"{item.position()}: no labels")
    if len(item.labels) > len(item.words):
        raise ValueError(f"{item.position()}: {len(item.labels)} labels for {len(item.words)} words")
    labels = []
    for index, label in enumerate(item.labels):
        if label in valid:
            labels.append(str(label))
        elif need_labels or not (label == "" or _is_integer(label)):
            try:
                labels.append(_named_label(label, item.class_names))
            except ValueError as error:
                raise ValueError(f"{item.position(index)}: {item.words[index]} {error}") from error
    if need_labels and len(labels) < len(item.words):
        raise ValueError(f"{item.position(len(labels))}: {item.words[len(labels)]} has no label")
    return tuple(labels)


def _named_label(label: str | int, class_names: Sequence[str]) -> str:
    """Return the name of an integer label, or raise ValueError for what is no label."""
    if label == "":
        raise ValueError("has no label")
    name = str(label)
    if _is_integer(label):
        if not 0 <= int(label) < len(class_names):
            raise ValueError(f"has label {label}; the names are for 0 to {len(class_names) - 1}")
        name = class_names[int(label)]
    if not LABEL.fullmatch(name):
        raise ValueError(f"has label {name}; allowed: {ALLOWED_LABELS}")
    return name

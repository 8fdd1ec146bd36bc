"""Text files with a word on each line: columns at tabs or blanks, comments, document marks, running indices."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from adapter_qa.core.errors import UserError
from adapter_qa.data.label_schemes import LABEL

LINE_END = re.compile(r"\r{0,2}\n|\r")  # also "\r" of old files, and "\r\r\n" of files that were converted twice
BLANKS = " \t"  # other white space, such as U+00A0 or U+2028, is part of a word, or is the word
DOCUMENT_MARK = "-DOCSTART-"
COMMENT = "#"
INDEX = re.compile(r"\d+([-.]\d+)*")  # also 3-4 and 8.1, the ranges and empty nodes of CoNLL-U
LANGUAGE_PREFIX = re.compile(r"[a-z]{2,}(-[a-z]+)*:")
SHOWN_COLUMNS = 12  # of a line in a message
COLUMN_OPTIONS = "give --word_column and --label_column, counted from 1"


class ColumnSentence(NamedTuple):
    """A sentence of a file, unchecked.

    Attributes:
        lines: the number of each word's line, from 1.
        words: the words.
        labels: "" for a word that has none.
        problems: lines that have other columns than the file.
    """

    lines: list[int]
    words: list[str]
    labels: list[str]
    problems: list[str]


class ColumnFile(NamedTuple):
    """The sentences of a file, and what the user should know of how it was read."""

    sentences: list[ColumnSentence]
    notes: list[str]


class _Line(NamedTuple):
    """A line that is not blank.

    Attributes:
        cells: its columns, without blanks at their borders.
        size: number of columns up to the last that is not empty.
        times: how often the file has it.
    """

    cells: list[str]
    size: int
    times: int


class _Word(NamedTuple):
    """What a line means.

    Attributes:
        word: its word.
        label: "" if it has none.
        problem: why it has other columns than the file; empty if it has not.
        is_comment: whether it is a comment if it stands before the first word of a sentence.
        is_skipped: whether it is a range of words or an empty node of CoNLL-U.
    """

    word: str
    label: str
    problem: str
    is_comment: bool
    is_skipped: bool


@dataclass(frozen=True)
class _Layout:
    """Where the words and labels of a file stand.

    Attributes:
        size: number of columns of most lines.
        word: index of the column of the words; negative from the end of a line.
        label: the same for the labels; None if the file has no column for them.
        fixed: whether every line must have `size` columns, because the user named none.
        labelled: whether most labels are such by their form.
        index: the column of a running index that has plain numbers and that is not read; None if there is none.
    """

    size: int
    word: int
    label: int | None
    fixed: bool
    labelled: bool
    index: int | None


def read_columns(
    name: str,
    text: str,
    word_column: int | None = None,
    label_column: int | None = None,
    remedy: str = COLUMN_OPTIONS,
) -> ColumnFile:
    """Read sentences from the lines of a text, a word on each; blank lines and document marks stand between sentences.

    The columns are separated by tabs if most lines have tabs, and otherwise by blanks; by both if every label would
    have a blank. By default the word is in the first column and the label in the last. A line that begins with "#"
    before the first word of a sentence is a comment if it lacks the columns of the file, or if its label is none.

    Args:
        name: of the file, for messages.
        text: its content.
        word_column: number of the column of the words, from 1, or from -1 backwards; None: the first.
        label_column: the same for the labels; None: the last.
        remedy: what the user can do if columns cannot be told apart, for messages.

    Raises:
        UserError: the columns cannot be told apart: the first one is a running index or holds the labels.
    """
    texts = [line.strip(BLANKS) and line.strip(" ") for line in LINE_END.split(text)]
    lines = _distinct_lines(texts)
    if not lines:
        return ColumnFile([], [])
    sample = {text: line for text, line in lines.items() if not text.startswith(COMMENT)} or lines
    first_line = texts.index(next(iter(sample))) + 1
    shown_line = " | ".join(next(iter(sample.values())).cells[:SHOWN_COLUMNS])
    advice = f"{remedy}; line {first_line} has: {shown_line}"
    layout = _layout(name, [*sample.values()], _index(word_column), _index(label_column), advice)
    sentences, comments = _sentences(texts, {text: _word(line, layout, remedy) for text, line in lines.items()})
    notes = []
    if comments:
        shown = texts[comments[0] - 1].replace("\t", " ")
        notes.append(f"{name}: {len(comments)} comments left out, the first in line {comments[0]}: {shown}")
    prefix = _language_prefix(sentences)
    if prefix:
        notes.append(f"{name}: every word begins with {prefix} as in WikiANN; the words are read without it")
        sentences = [item._replace(words=[word.removeprefix(prefix) for word in item.words]) for item in sentences]
    return ColumnFile(sentences, notes)


def _index(number: int | None) -> int | None:
    return number if number is None or number < 0 else number - 1


def _distinct_lines(texts: Sequence[str]) -> dict[str, _Line]:
    """Split lines into columns, each text once; without blank lines and document marks."""
    counts = Counter(texts)
    counts = Counter({text: count for text, count in counts.items() if text and not _is_document_mark(text)})
    words = {text: count for text, count in counts.items() if not text.startswith(COMMENT)} or counts
    with_tabs = [text for text in words if "\t" in text.strip(BLANKS)]
    has_tabs = sum(words[text] for text in with_tabs) * 2 >= sum(words.values())
    mixed = has_tabs and all(
        " " in text.rpartition("\t")[2].strip(BLANKS) for text in with_tabs
    )  # no label has a blank
    if mixed:
        return {text: _line(text.replace("\t", " "), count, has_tabs=False) for text, count in counts.items()}
    return {text: _line(text, count, has_tabs=has_tabs) for text, count in counts.items()}


def _is_document_mark(text: str) -> bool:
    return re.split("[ \t]", text, maxsplit=1)[0] == DOCUMENT_MARK


def _line(text: str, count: int, *, has_tabs: bool) -> _Line:
    if has_tabs or "\t" in text.strip(BLANKS):
        cells = [cell.strip(" ") for cell in text.split("\t")]
    else:
        cells = re.split(" +", text.strip(BLANKS))
    return _Line(cells, max(index for index, cell in enumerate(cells, 1) if cell), count)


def _layout(name: str, sample: Sequence[_Line], word: int | None, label: int | None, advice: str) -> _Layout:
    """Decide which columns hold words and labels; `advice` is the end of a message.

    Raises:
        UserError: as for `read_columns`.
    """
    total, sizes = sum(line.times for line in sample), Counter[int]()
    for line in sample:
        sizes[line.size] += line.times
    size = max(sizes, key=lambda columns: (sizes[columns], columns))
    first = min(next(index for index, cell in enumerate(line.cells) if cell) for line in sample)

    firsts = [line.cells[first] for line in sample]
    ends_with_labels = all(LABEL.fullmatch(line.cells[line.size - 1]) for line in sample)
    indexed = size - first > 1 and total > 1 and all(map(INDEX.fullmatch, firsts))
    if word is None and indexed and (size - first > 2 or not ends_with_labels):
        raise UserError(f"{name}: the first column is a running index, not words; {advice}")
    if word is label is None and size > 1 and not ends_with_labels and all(map(LABEL.fullmatch, firsts)):
        raise UserError(f"{name}: the first column holds labels, not words; {advice}")

    word_index, label_index = first if word is None else word, label
    if label is None and word_index % size != size - 1:
        label_index = size - 1
    if label_index is not None and label_index % size == word_index % size:
        raise UserError(f"{name}: words and labels are both in column {word_index % size + 1}; {advice}")
    labelled = 0
    if label_index is not None:
        labelled = sum(line.times for line in sample if LABEL.fullmatch(_cell(line.cells, label_index)))
    return _Layout(
        size=size,
        word=word_index,
        label=label_index,
        fixed=word is None and label is None,
        labelled=labelled * 2 > total,
        index=first if indexed and word_index != first and any(map(str.isdecimal, firsts)) else None,
    )


def _cell(cells: Sequence[str], index: int) -> str:
    """Return a cell; "" if the line has no such column."""
    return cells[index] if -len(cells) <= index < len(cells) else ""


def _word(line: _Line, layout: _Layout, remedy: str) -> _Word:
    """Read a line; tabs that only this line has at its end are left out."""
    cells = line.cells[: max(layout.size, line.size)]
    label = "" if layout.label is None else _cell(cells, layout.label)
    problem = ""
    if layout.fixed and len(cells) != layout.size and line.size > 1:
        problem = (
            f"{len(cells)} columns where most lines have {layout.size}: {' | '.join(cells[:SHOWN_COLUMNS])}; words "
            f"with blanks need tabs between columns, or {remedy}"
        )
    lacks_columns = line.size != layout.size or (layout.labelled and not LABEL.fullmatch(label))
    return _Word(
        word=_cell(cells, layout.word),
        label=label,
        problem=problem,
        is_comment=cells[0].startswith(COMMENT) and lacks_columns,
        is_skipped=layout.index is not None and not _cell(cells, layout.index).isdecimal(),
    )


def _sentences(texts: Sequence[str], words: dict[str, _Word]) -> tuple[list[ColumnSentence], list[int]]:
    """Return the sentences of a file, and the numbers of the lines that are comments."""
    sentences = [ColumnSentence([], [], [], [])]
    comments = []
    for number, text in enumerate(texts, 1):
        sentence, line = sentences[-1], words.get(text)
        if line is None:  # a blank line or a document mark
            if sentence.words:
                sentences.append(ColumnSentence([], [], [], []))
        elif line.is_comment and not sentence.words:
            comments.append(number)
        elif not line.is_skipped:
            if line.problem:
                sentence.problems.append(f"line {number}: {line.problem}")
            sentence.lines.append(number)
            sentence.words.append(line.word)
            sentence.labels.append(line.label)
    return [sentence for sentence in sentences if sentence.words], comments


def _language_prefix(sentences: Sequence[ColumnSentence]) -> str:
    """Return the language code with a colon by which all words begin in WikiANN; empty if there is none."""
    words = [word for sentence in sentences for word in sentence.words]
    match = LANGUAGE_PREFIX.match(words[0]) if len(words) > 1 else None
    if match is None or not all(word.startswith(match[0]) and word != match[0] for word in words):
        return ""
    return match[0]

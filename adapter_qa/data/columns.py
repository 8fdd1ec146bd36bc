"""Text files with a word on each line: columns at tabs or blanks, comments, document marks, running indices."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from adapter_qa.core.errors import UserError
from adapter_qa.data.label_schemes import LABEL

BLANKS = " \t\r"  # other white space, such as U+00A0 or U+2028, is part of a word, or is the word
DOCUMENT_MARK = "-DOCSTART-"
COMMENT = "#"
INDEX = re.compile(r"\d+([-.]\d+)*")  # also 3-4 and 8.1, the ranges and empty nodes of CoNLL-U
LANGUAGE_PREFIX = re.compile(r"[a-z]{2,}(-[a-z]+)*:")
SHOWN_COLUMNS = 12  # of a line in a message


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
    """A line that is not blank; `cells` are its columns, without blanks at their borders."""

    number: int
    cells: list[str]

    @property
    def size(self) -> int:
        """Number of columns up to the last that is not empty."""
        return max(index for index, cell in enumerate(self.cells, 1) if cell)

    @property
    def is_comment_like(self) -> bool:
        return self.cells[0].startswith(COMMENT)

    @property
    def is_document_mark(self) -> bool:
        return self.cells[0] == DOCUMENT_MARK


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


def read_columns(name: str, text: str, word_column: int | None, label_column: int | None) -> ColumnFile:
    """Read sentences from the lines of a text, a word on each; blank lines and document marks stand between sentences.

    The columns are separated by tabs if most lines have tabs, and otherwise by blanks. By default the word is in the
    first column and the label in the last. A line that begins with "#" before the first word of a sentence is a
    comment if it lacks the columns of the file, or if its label is none.

    Args:
        name: of the file, for messages.
        text: its content.
        word_column: number of the column of the words, from 1, or from -1 backwards; None: the first.
        label_column: the same for the labels; None: the last.

    Raises:
        UserError: the columns cannot be told apart: the first one is a running index or holds the labels.
    """
    lines = _split_lines(text)
    sample = [line for line in lines if line is not None and not (line.is_comment_like or line.is_document_mark)]
    sample = sample or [line for line in lines if line is not None and not line.is_document_mark]
    if not sample:
        return ColumnFile([], [])
    layout = _layout(name, sample, _index(word_column), _index(label_column))
    sentences, comments = _sentences(lines, layout)
    notes = []
    if comments:
        shown = " ".join(comments[0].cells)
        notes.append(f"{name}: {len(comments)} comments left out, the first in line {comments[0].number}: {shown}")
    prefix = _language_prefix(sentences)
    if prefix:
        notes.append(f"{name}: every word begins with {prefix} as in WikiANN; the words are read without it")
        sentences = [item._replace(words=[word.removeprefix(prefix) for word in item.words]) for item in sentences]
    return ColumnFile(sentences, notes)


def _index(number: int | None) -> int | None:
    return number if number is None or number < 0 else number - 1


def _split_lines(text: str) -> list[_Line | None]:
    """Split lines into columns; a blank line is None."""
    lines = [line.strip(BLANKS) and line.strip(" \r") for line in text.split("\n")]
    words = [line for line in lines if line and not line.startswith((COMMENT, DOCUMENT_MARK))]
    has_tabs = sum("\t" in line.strip() for line in words) * 2 >= max(len(words), 1)
    return [_Line(number, _cells(line, has_tabs)) if line else None for number, line in enumerate(lines, 1)]


def _cells(line: str, has_tabs: bool) -> list[str]:
    if has_tabs or "\t" in line.strip(BLANKS):
        return [cell.strip(" \r") for cell in line.split("\t")]
    return re.split(" +", line.strip(BLANKS))


def _layout(name: str, sample: Sequence[_Line], word: int | None, label: int | None) -> _Layout:
    """Decide which columns hold words and labels.

    Raises:
        UserError: as for `read_columns`.
    """
    sizes = Counter(line.size for line in sample)
    size = max(sizes, key=lambda columns: (sizes[columns], columns))
    first = min(next(index for index, cell in enumerate(line.cells) if cell) for line in sample)
    shown = " | ".join(sample[0].cells[:SHOWN_COLUMNS])
    remedy = f"give --word_column and --label_column, counted from 1; line {sample[0].number} has: {shown}"

    firsts = [line.cells[first] for line in sample]
    ends_with_labels = all(LABEL.fullmatch(line.cells[line.size - 1]) for line in sample)
    indexed = size - first > 1 and len(sample) > 1 and all(map(INDEX.fullmatch, firsts))
    if word is None and indexed and (size - first > 2 or not ends_with_labels):
        raise UserError(f"{name}: the first column is a running index, not words; {remedy}")
    if word is label is None and size > 1 and not ends_with_labels and all(map(LABEL.fullmatch, firsts)):
        raise UserError(f"{name}: the first column holds labels, not words; {remedy}")

    word_index, label_index = first if word is None else word, label
    if label is None and word_index % size != size - 1:
        label_index = size - 1
    if label_index is not None and label_index % size == word_index % size:
        raise UserError(f"{name}: words and labels are both in column {word_index % size + 1}; {remedy}")
    labels = [] if label_index is None else [_cell(line.cells, label_index) for line in sample]
    return _Layout(
        size=size,
        word=word_index,
        label=label_index,
        fixed=word is None and label is None,
        labelled=sum(LABEL.fullmatch(text) is not None for text in labels) * 2 > len(sample),
        index=first if indexed and word_index != first and any(map(str.isdecimal, firsts)) else None,
    )


def _cell(cells: Sequence[str], index: int) -> str:
    """Return a cell; "" if the line has no such column."""
    return cells[index] if -len(cells) <= index < len(cells) else ""


def _sentences(lines: Sequence[_Line | None], layout: _Layout) -> tuple[list[ColumnSentence], list[_Line]]:
    """Return the sentences of a file, and its comments."""
    sentences = [ColumnSentence([], [], [], [])]
    comments = []
    for line in lines:
        sentence = sentences[-1]
        if line is None or line.is_document_mark:
            if sentence.words:
                sentences.append(ColumnSentence([], [], [], []))
            continue
        cells = line.cells[: max(layout.size, line.size)]  # without tabs at the end of some lines only
        label = "" if layout.label is None else _cell(cells, layout.label)
        if (
            not sentence.words
            and line.is_comment_like
            and (line.size != layout.size or (layout.labelled and not LABEL.fullmatch(label)))
        ):
            comments.append(line)
            continue
        if layout.index is not None and not _cell(cells, layout.index).isdecimal():
            continue  # of CoNLL-U: a range of words, which follow one by one, or an empty node
        if layout.fixed and len(cells) != layout.size and line.size > 1:
            sentence.problems.append(_size_problem(line, cells, layout.size))
        sentence.lines.append(line.number)
        sentence.words.append(_cell(cells, layout.word))
        sentence.labels.append(label)
    return [sentence for sentence in sentences if sentence.words], comments


def _size_problem(line: _Line, cells: Sequence[str], size: int) -> str:
    return (
        f"line {line.number}: {len(cells)} columns where most lines have {size}: {' | '.join(cells[:SHOWN_COLUMNS])}; "
        "words with blanks need tabs between columns; --word_column and --label_column choose columns"
    )


def _language_prefix(sentences: Sequence[ColumnSentence]) -> str:
    """Return the language code with a colon by which all words begin in WikiANN; empty if there is none."""
    words = [word for sentence in sentences for word in sentence.words]
    match = LANGUAGE_PREFIX.match(words[0]) if len(words) > 1 else None
    if match is None or not all(word.startswith(match[0]) and word != match[0] for word in words):
        return ""
    return match[0]

"""Sentences with entity labels: their one form in memory, and reading them from CoNLL and JSON files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import is_text, read_bytes, read_text
from adapter_qa.data.squad import Record, read_records

OUTSIDE = "O"
LABEL = re.compile(r"O|[BI]-[\w.:/&+-]{1,100}")  # types name metrics and curves, so no other signs
BETWEEN_COLUMNS = re.compile(r"[ \t]+")  # other white space, U+2028 too, may stand in a word
JSON_SUFFIXES = (".json", ".jsonl")
SHOWN_PROBLEMS = 10


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words and their IOB2 labels, as many; labels are empty where they are not given."""

    words: tuple[str, ...]
    labels: tuple[str, ...]


def read_sentences(path: str | Path, *, need_labels: bool) -> list[Sentence]:
    """Sentences of a CoNLL file (word first, label last on a line, blank lines between sentences) or of JSON records
    `{"tokens": [...], "ner_tags": [...]}`, as a list, under "data", or one a line in .jsonl.

    Raises:
        UserError: the file cannot be read, holds no sentence, or labels are missing or no IOB2; ten are named at most.
    """
    found: list[tuple[int | str, Sentence | str]]
    if Path(path).suffix.lower() in JSON_SUFFIXES:
        found = [_json_sentence(record) for record in read_records(str(path), read_bytes(path))]
    else:
        found = list(_conll_sentences(read_text(path)))
    problems = [
        f"{path}, {problem}"
        for where, sentence in found
        if (problem := _sentence_problem(where, sentence, need_labels)) is not None
    ]
    if not found:
        problems = [f"{path}: holds no sentence; write a word and its label a line, blank lines between sentences"]
    if problems:
        rest = len(problems) - SHOWN_PROBLEMS
        raise UserError(problems[:SHOWN_PROBLEMS] + ([f"{path}: and {rest} more"] if rest > 0 else []))
    return [sentence for _, sentence in found if isinstance(sentence, Sentence)]


def _conll_sentences(text: str) -> Iterator[tuple[int | str, Sentence | str]]:
    """Sentences with the number of their first line. A line without a label gives its word the label ""."""
    words: list[str] = []
    labels: list[str] = []
    first = 1
    for number, line in enumerate([*text.split("\n"), ""], 1):
        columns = BETWEEN_COLUMNS.split(line.strip()) if line.strip() else []
        if columns and columns[0] != "-DOCSTART-":
            words.append(columns[0])
            labels.append(columns[-1] if len(columns) > 1 else "")
            continue
        if words:
            yield first, Sentence(tuple(words), tuple(labels) if any(labels) else ())
            words, labels = [], []
        first = number + 1


def _json_sentence(record: Record) -> tuple[int | str, Sentence | str]:
    """A record's place and its sentence, or what is wrong with it."""
    form = 'a record is {"tokens": [...], "ner_tags": [...]}'
    if record.problem:
        return record.where, record.problem
    if not isinstance(record.fields, dict) or "tokens" not in record.fields:
        return record.where, f"no 'tokens'; {form}"
    words, labels = record.fields["tokens"], record.fields.get("ner_tags")
    labels = [] if labels is None else labels
    if not isinstance(words, list) or not isinstance(labels, list) or not all(map(is_text, [*words, *labels])):
        return record.where, f"tokens and ner_tags must be lists of text, labels such as B-LOC, no numbers; {form}"
    return record.where, Sentence(tuple(words), tuple(labels))


def _sentence_problem(where: int | str, sentence: Sentence | str, need_labels: bool) -> str | None:
    """What is wrong with a sentence, if anything: words that are none, labels that are missing or no IOB2.

    Args:
        where: number of its first line, of which each word has one, or its place in words.
        sentence: it, or why there is none.
        need_labels: there must be labels.
    """
    place = f"line {where}" if isinstance(where, int) else where
    if isinstance(sentence, str):
        return f"{place}: {sentence}"
    if not sentence.words:
        return f"{place}: a sentence without words"
    for word in sentence.words:
        if not word.strip() or BETWEEN_COLUMNS.search(word) or "\n" in word or "\r" in word:
            return f"{place}: {word!r} is no word; words have no blanks in them"
    if not sentence.labels:
        return f"{place}: has no labels" if need_labels else None
    if len(sentence.labels) > len(sentence.words):
        return f"{place}: more labels than words"
    before = OUTSIDE
    for number, word in enumerate(sentence.words):
        label = sentence.labels[number] if number < len(sentence.labels) else ""
        problem = _label_problem(word, label, before)
        if problem is not None:
            return f"line {where + number}: {problem}" if isinstance(where, int) else f"{place}: {problem}"
        before = label
    return None


def _label_problem(word: str, label: str, before: str) -> str | None:
    """What is wrong with the label of a word, if anything."""
    if not label:
        return f"a word without a label: {word}"
    if not LABEL.fullmatch(label):
        return f"{word} has label {label}; labels are {OUTSIDE}, B-TYPE or I-TYPE"
    entity = label[2:]
    if label[0] == "I" and before not in (f"B-{entity}", f"I-{entity}"):
        return f"{word} has {label} after {before}; in IOB2 an entity begins with B-{entity}"
    return None


def label_names(sentences: Sequence[Sentence]) -> list[str]:
    """All labels, "O" first, then B- and I- of each entity type in alphabetical order."""
    types = sorted({label[2:] for sentence in sentences for label in sentence.labels if label != OUTSIDE})
    return [OUTSIDE, *[f"{prefix}-{entity}" for entity in types for prefix in ("B", "I")]]

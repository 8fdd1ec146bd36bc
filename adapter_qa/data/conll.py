"""Sentences with entity labels in the IOB2 scheme, and readers for CoNLL and JSON files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from adapter_qa.core.files import is_text, read_bytes, read_text
from adapter_qa.data.sources import Record
from adapter_qa.data.squad import raise_first_problems, read_records

OUTSIDE = "O"
LABEL = re.compile(r"O|[BI]-[\w.:/&+-]{1,100}")  # entity types become names of metrics: no other characters
COLUMN_SEPARATOR = re.compile(r"[ \t]+")  # a word may contain other white space, such as U+2028
JSON_SUFFIXES = (".json", ".jsonl")
JSON_FORMAT = 'a record is {"tokens": [...], "ner_tags": [...]}'


@dataclass(frozen=True, slots=True)
class Sentence:
    """The words of a sentence and their IOB2 labels; no labels if the file has none."""

    words: tuple[str, ...]
    labels: tuple[str, ...]


class _ParsedSentence(NamedTuple):
    """A sentence of a file before its labels are checked.

    Attributes:
        where: number of its first line in a CoNLL file, where every word has a line; otherwise the record's position.
        sentence: the words and labels; "" is the label of a word that has none.
        problem: why the record is not a sentence; empty if it is.
    """

    where: int | str
    sentence: Sentence
    problem: str = ""


def read_sentences(path: str | Path, *, need_labels: bool) -> list[Sentence]:
    """Read the sentences of a CoNLL or JSON file.

    A CoNLL file has a word per line, the word in the first column and the label in the last one, and blank lines
    between sentences. A JSON file has records `{"tokens": [...], "ner_tags": [...]}`: in a list, in a list under
    "data", or one per line of a .jsonl file.

    Args:
        path: the file; .json and .jsonl are JSON, every other extension is CoNLL.
        need_labels: whether every sentence must have labels.

    Raises:
        UserError: the file cannot be read or contains no sentence, or labels are missing or not IOB2.
    """
    if Path(path).suffix.lower() in JSON_SUFFIXES:
        parsed = [_json_sentence(record) for record in read_records(str(path), read_bytes(path))]
    else:
        parsed = list(_conll_sentences(read_text(path)))
    problems = [f"{path}, {problem}" for item in parsed if (problem := _sentence_problem(item, need_labels))]
    if not parsed:
        problems = [f"{path}: holds no sentence; write a word and its label per line, blank lines between sentences"]
    raise_first_problems(problems, path)
    return [item.sentence for item in parsed]


def label_names(sentences: Sequence[Sentence]) -> list[str]:
    """Return "O", then the B- and I- label of every entity type, types in alphabetical order."""
    types = sorted({label[2:] for sentence in sentences for label in sentence.labels if label != OUTSIDE})
    return [OUTSIDE, *[f"{prefix}-{entity}" for entity in types for prefix in ("B", "I")]]


def _conll_sentences(text: str) -> Iterator[_ParsedSentence]:
    words: list[str] = []
    labels: list[str] = []
    first_line = 1
    for number, line in enumerate([*text.split("\n"), ""], 1):
        columns = COLUMN_SEPARATOR.split(line.strip()) if line.strip() else []
        if columns and columns[0] != "-DOCSTART-":
            words.append(columns[0])
            labels.append(columns[-1] if len(columns) > 1 else "")
            continue
        if words:
            yield _ParsedSentence(first_line, Sentence(tuple(words), tuple(labels) if any(labels) else ()))
            words, labels = [], []
        first_line = number + 1


def _json_sentence(record: Record) -> _ParsedSentence:
    problem, words, labels = record.problem, [], []
    if not problem and (not isinstance(record.fields, dict) or "tokens" not in record.fields):
        problem = f"no 'tokens'; {JSON_FORMAT}"
    if not problem:
        words, labels = record.fields["tokens"], record.fields.get("ner_tags")
        labels = [] if labels is None else labels
        if not isinstance(words, list) or not isinstance(labels, list) or not all(map(is_text, [*words, *labels])):
            problem = f"'tokens' and 'ner_tags' must be lists of text, with labels such as B-LOC; {JSON_FORMAT}"
            words, labels = [], []
    return _ParsedSentence(record.where, Sentence(tuple(words), tuple(labels)), problem)


def _sentence_problem(parsed: _ParsedSentence, need_labels: bool) -> str:
    """Return the first defect of a sentence with its position; empty if there is none."""
    where, sentence, problem = parsed
    position = f"line {where}" if isinstance(where, int) else where
    if problem:
        return f"{position}: {problem}"
    if not sentence.words:
        return f"{position}: a sentence without words"
    for word in sentence.words:
        if not word.strip() or COLUMN_SEPARATOR.search(word) or "\n" in word or "\r" in word:
            return f"{position}: {word!r} is not a word; a word is not empty and has no spaces, tabs or line breaks"
    if not sentence.labels:
        return f"{position}: no labels" if need_labels else ""
    if len(sentence.labels) > len(sentence.words):
        return f"{position}: {len(sentence.labels)} labels for {len(sentence.words)} words"
    previous = OUTSIDE
    pairs = itertools.zip_longest(sentence.words, sentence.labels, fillvalue="")
    for index, (word, label) in enumerate(pairs):
        problem = _label_problem(word, label, previous)
        if problem:
            return f"line {where + index}: {problem}" if isinstance(where, int) else f"{position}: {problem}"
        previous = label
    return ""


def _label_problem(word: str, label: str, previous: str) -> str:
    if not label:
        return f"{word} has no label"
    if not LABEL.fullmatch(label):
        return f"{word} has label {label}; allowed: {OUTSIDE}, B-TYPE, I-TYPE"
    entity = label[2:]
    if label[0] == "I" and previous not in (f"B-{entity}", f"I-{entity}"):
        return f"{word} has label {label} after {previous}; in IOB2 an entity begins with B-{entity}"
    return ""

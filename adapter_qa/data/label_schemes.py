"""Schemes of entity labels: IOB2, IOB1, BIOES, BILOU and their relatives; all become IOB2."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

OUTSIDE = "O"
LABEL_CHARACTER = r"[\w.:/&+-]"  # types become names of metrics, so that they have no other characters
LABEL = re.compile(rf"O|[BIESLUMW]-{LABEL_CHARACTER}{{1,100}}")
IOB_LABEL = re.compile(rf"O|[BI]-{LABEL_CHARACTER}{{1,100}}")
ALLOWED_LABELS = "O, B-TYPE, I-TYPE, or those of IOB1, BIOES and BILOU"
IOB2 = "IOB2"
INSIDE, LAST, SINGLE = "IM", "EL", "SUW"  # prefixes of the middle, the last and the only word of an entity


class LabelProblem(NamedTuple):
    """A label that the scheme does not allow in its place; `sentence` and `word` are indices."""

    sentence: int
    word: int
    text: str


class SchemeLabels(NamedTuple):
    """The labels of a source in IOB2.

    Attributes:
        scheme: what the source uses.
        labels: of every sentence; meaningless if there are problems.
        problems: the first one of each sentence.
    """

    scheme: str
    labels: list[tuple[str, ...]]
    problems: list[LabelProblem]


def to_iob2(sentences: Sequence[Sequence[str]]) -> SchemeLabels:
    """Find the one scheme that all sentences of a source follow, and convert their labels to IOB2.

    Labels that are valid IOB2 stay as they are. IOB1 begins an entity with B- only right after another one of the same
    type. The other schemes mark the last word of an entity and an entity of one word.

    Args:
        sentences: the labels of each sentence; every one matches `LABEL`.
    """
    prefixes = {label[0] for labels in sentences for label in labels if label != OUTSIDE}
    if not prefixes <= set("BI"):
        return _from_closed_scheme(sentences, prefixes)
    problems = _problems(_iob2_problem(labels) for labels in sentences)
    if problems and not any(map(_violates_iob1, sentences)):
        return SchemeLabels("IOB1", [begin_entities(labels) for labels in sentences], [])
    return SchemeLabels(IOB2, [tuple(labels) for labels in sentences], problems)


def _problems(of_sentences: Iterator[tuple[int, str] | None]) -> list[LabelProblem]:
    return [LabelProblem(index, *problem) for index, problem in enumerate(of_sentences) if problem is not None]


def _with_previous(labels: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Yield index, label and the label before; `OUTSIDE` stands before the first."""
    yield from zip(range(len(labels)), labels, [OUTSIDE, *labels], strict=False)


def _iob2_problem(labels: Sequence[str]) -> tuple[int, str] | None:
    """Return index and description of the first label that is not IOB2."""
    for index, label, previous in _with_previous(labels):
        if label[0] == "I" and previous[1:] != label[1:]:
            return index, f"label {label} after {previous}; in IOB2 an entity begins with B-{label[2:]}"
    return None


def _violates_iob1(labels: Sequence[str]) -> bool:
    return any(label[0] == "B" and previous[1:] != label[1:] for _, label, previous in _with_previous(labels))


def begin_entities(labels: Sequence[str]) -> tuple[str, ...]:
    """Return labels in which every entity begins with B-: IOB2 from IOB1, or from what a model predicts.

    An I- label begins an entity if no label of its type stands before it, as conlleval and seqeval read it.
    """
    return tuple(
        f"B{label[1:]}" if label.startswith("I-") and previous[1:] != label[1:] else label
        for _, label, previous in _with_previous(labels)
    )


def _from_closed_scheme(sentences: Sequence[Sequence[str]], prefixes: set[str]) -> SchemeLabels:
    """Convert labels of a scheme that marks the ends of entities."""
    name = "BILOU" if prefixes & set("LU") else "BMES" if prefixes & set("MW") else "BIOES"
    starts, middles = f"B{SINGLE}", f"{INSIDE}{LAST}"
    table = str.maketrans(starts + middles, "B" * len(starts) + "I" * len(middles))
    converted = [
        tuple(label if label == OUTSIDE else label[0].translate(table) + label[1:] for label in labels)
        for labels in sentences
    ]
    doubled = [used for letters in (INSIDE, LAST, SINGLE) if len(used := sorted(prefixes & set(letters))) > 1]
    if doubled:
        first, second = doubled[0][:2]
        problems = _problems(_mixture_problem(labels, first, second) for labels in sentences)[:1]
    else:
        shown = next(label for labels in sentences for label in labels if label[0] not in f"BI{OUTSIDE}")
        problems = _problems(_closed_problem(labels, name, shown) for labels in sentences)
    return SchemeLabels(name, converted, problems)


def _mixture_problem(labels: Sequence[str], first: str, second: str) -> tuple[int, str] | None:
    """Return the first label with prefix `second`, which means the same as prefix `first`."""
    for index, label in enumerate(labels):
        if label[0] == second:
            return index, f"label {label} in a file that has {first}- for the same; one scheme has one of them"
    return None


def _closed_problem(labels: Sequence[str], scheme: str, shown: str) -> tuple[int, str] | None:
    """Return the first label that begins or ends an entity wrongly; `shown` is a label that only the scheme has."""
    for index, label, previous in _with_previous([*labels, OUTSIDE]):
        is_open, continues = previous[0] in f"B{INSIDE}", label[0] in INSIDE + LAST
        if is_open and not (continues and previous[1:] == label[1:]):
            ends = "L- or U-" if scheme == "BILOU" else "E- or S-"
            return index - 1, f"label {previous} before {label}; in {scheme} (as {shown}) an entity ends with {ends}"
        if continues and not is_open:
            return index, f"label {label} after {previous}; in {scheme} (as {shown}) a longer entity begins with B-"
    return None

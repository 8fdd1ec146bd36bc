"""The forms in which the question-answering pipeline of transformers 4 took questions and contexts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import GeneratorType
from typing import Any, NamedTuple

from adapter_qa.core.errors import UserError, first_problems
from adapter_qa.core.files import is_text, kind

FORMS = "give question and context, a dictionary of both, or a list of such dictionaries"


class CallError(UserError, ValueError):
    """A `UserError` that is a ValueError too, which the pipeline raises for wrong arguments."""


class Pair(NamedTuple):
    """A question and its context."""

    question: str
    context: str


Item = Pair | list[Pair]  # one dictionary with lists of questions and contexts is one item


def is_stream(inputs: Any) -> bool:
    """Return whether inputs are read one by one: a generator, or a data set of torch, which has no `__iter__`."""
    return isinstance(inputs, GeneratorType) or not isinstance(inputs, Iterable)


def read_stream(inputs: Any) -> Iterator[Item]:
    """Yield the items of a generator or data set of dictionaries while it is read.

    Raises:
        CallError: if `inputs` cannot be iterated over, or an item is wrong.
    """
    try:
        entries = iter(inputs)
    except TypeError as error:
        raise CallError(f"question is {kind(inputs)} and context is not given; {FORMS}") from error
    return (item for number, entry in enumerate(entries, start=1) for item in checked([_read_entry(entry, number)]))


def read_items(question: Any, context: Any) -> list[Item]:
    """Return the questions of a call with their contexts.

    Raises:
        CallError: the arguments have none of the forms, or a text is empty or not valid.
    """
    if context is not None and not isinstance(context, Mapping):
        return checked(list[Item](_broadcast(question, context)))
    if context is not None:  # two dictionaries
        entries = [question, context]
    elif isinstance(question, Mapping):
        entries = [question]
    elif isinstance(question, Iterable) and not isinstance(question, str):
        entries = list(question)
    else:
        raise CallError(f"question is {kind(question)} and context is not given; {FORMS}")
    return checked([_read_entry(entry, number) for number, entry in enumerate(entries, start=1)])


def _read_entry(entry: Any, number: int) -> Item:
    """Return the pair of a dictionary, or the pairs of one with lists."""
    if not isinstance(entry, Mapping):
        raise CallError(f"item {number} is {kind(entry)}; {FORMS}")
    missing = [repr(name) for name in Pair._fields if name not in entry]
    if missing:
        raise CallError(f"item {number}: no {' and no '.join(missing)}; {FORMS}")
    pairs = _broadcast(entry["question"], entry["context"])
    return pairs if isinstance(entry["question"], list) else pairs[0]


def _broadcast(question: Any, context: Any) -> list[Pair]:
    """Return one pair, one for each question of a list about one context, or one for each of two lists."""
    if isinstance(question, list):
        contexts = context if isinstance(context, list) else [context] * len(question)
        if len(question) != len(contexts):
            raise CallError(f"{len(question)} questions and {len(contexts)} contexts; give as many, or one context")
        return [Pair(*texts) for texts in zip(question, contexts, strict=True)]
    if isinstance(context, list):
        raise CallError(f"context is a list and question is {kind(question)}; give a list of questions too")
    return [Pair(question, context)]


def flat(items: Iterable[Item]) -> list[Pair]:
    """Return all pairs of items."""
    return [pair for item in items for pair in (item if isinstance(item, list) else [item])]


def checked(items: list[Item]) -> list[Item]:
    """Return items whose texts are valid.

    Raises:
        CallError: a text is missing, empty or not valid.
    """
    pairs = flat(items)
    problems = []
    for number, pair in enumerate(pairs, start=1):
        where = f"question {number} of {len(pairs)}: " if len(pairs) > 1 else ""
        for name, text in zip(Pair._fields, pair, strict=True):
            if not isinstance(text, str):
                problems.append(f"{where}{name} is {kind(text)}; it must be text")
            elif not text:
                problems.append(f"{where}{name} is empty")
            elif not is_text(text):
                problems.append(f"{where}{name} has a lone surrogate, which is not valid text")
    if problems:
        raise CallError(first_problems(problems))
    return items

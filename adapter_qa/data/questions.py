"""A question about a context, with its gold answers. It needs the standard library only."""

from __future__ import annotations

from dataclasses import dataclass

NO_START = -1  # start index of an answer that the context does not contain, or whose place is not known


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a context.

    Attributes:
        answer_texts: gold answers; empty if the question is unanswerable (v2) or its answers are not known.
        answer_starts: index in `context` of the first character of each gold answer. Published data contains wrong
            indices; `NO_START` marks an answer without one. See `is_aligned`.
        answers_known: whether the data says what the answers are, also that there are none.
    """

    id: str
    question: str
    context: str
    answer_texts: tuple[str, ...]
    answer_starts: tuple[int, ...]
    title: str = ""
    answers_known: bool = True


def is_aligned(question: Question, index: int = 0) -> bool:
    """Return whether a gold answer is more than whitespace and the context contains it at its start index."""
    text, start = question.answer_texts[index], question.answer_starts[index]
    return start >= 0 and text.strip() != "" and question.context.startswith(text, start)

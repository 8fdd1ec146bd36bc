"""Putting answers back where they stand in their context, after cleaning both: the care machine translation needs."""

from __future__ import annotations

import html
import re
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html.entities import html5
from typing import Literal

from adapter_qa.data.squad import Question

# How an answer was found: where it was said to be; elsewhere; with other case, accents, quotes, dashes or spacing;
# or not, because the context does not hold it or because there is nothing to look for.
Outcome = Literal["as it was", "moved", "loose", "not found", "empty"]

UNALIGNED = -1  # answer_start of an answer that the context does not hold

_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]*);")
_LONGEST_ENTITY = 1 + max(map(len, html5))

_TYPOGRAPHY = {
    **dict.fromkeys("‘’‚‛‹›′´`ʼ", "'"),
    **dict.fromkeys("“”„‟«»″", '"'),
    **dict.fromkeys("‐‑‒–—―−﹘﹣－", "-"),
}


@dataclass(frozen=True, slots=True)
class Tracked:
    """A text made from another one.

    Attributes:
        origin: for each character of `text`, the index of the character that it came from; never decreasing.
        entities: HTML entities resolved on the way.
    """

    text: str
    origin: Sequence[int]
    entities: int = 0


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where an answer stands. Unless `start` is `UNALIGNED`, `context.startswith(text, start)` holds."""

    text: str
    start: int
    outcome: Outcome


class Passage:
    """A context ready for alignment: cleaned once, and folded once if ever needed, for all of its questions."""

    def __init__(self, raw: str):
        self.cleaned = clean(raw)
        self.text = self.cleaned.text

    @cached_property
    def folded(self) -> Tracked:
        return fold(self.text)


def clean(raw: str) -> Tracked:
    """`raw` without HTML entities and without whitespace around it.

    Entities need their semicolon (`&para` may be Portuguese), and what comes out is unescaped again until none is
    left, since machine-translated files hold `&amp;quot;`. Cleaning a clean text changes nothing. Linear time.
    """
    may_have_entities = "&" in raw and ";" in raw
    whole = _unescape(raw) if may_have_entities else Tracked(raw, range(len(raw)))
    start, stop = len(whole.text) - len(whole.text.lstrip()), len(whole.text.rstrip())
    return Tracked(whole.text[start:stop], whole.origin[start:stop], whole.entities)


def fold(text: str) -> Tracked:
    """`text` without what a loose match overlooks: case, accents, shape of quotes and dashes, amount of whitespace."""
    folded: list[str] = []
    origin = array("I")
    for index, character in enumerate(text):
        plain = _FOLDED[character]
        if plain and not (plain == " " and folded and folded[-1] == " "):
            folded.append(plain)
            origin.append(index)
    return Tracked("".join(folded), origin)


def align_answer(passage: Passage, raw_text: str, raw_start: int) -> Alignment:
    """Finds the cleaned answer in the cleaned context, as near as can be to where it was said to be.

    An exact occurrence goes before a loose one (see `fold`), whose text becomes the context's own.

    Args:
        raw_start: character index in the context as it was before cleaning; need not be right.

    Returns:
        The cleaned answer with start `UNALIGNED` when it is empty or not found.
    """
    answer = clean(raw_text)
    if not answer.text:
        return Alignment("", UNALIGNED, "empty")
    near = bisect_left(passage.cleaned.origin, raw_start + answer.origin[0])
    if passage.text.startswith(answer.text, near):
        return Alignment(answer.text, near, "as it was")
    start = _nearest(passage.text, answer.text, near)
    if start >= 0:
        return Alignment(answer.text, start, "moved")
    span = _find_loosely(passage, answer.text, near)
    if span is None:
        return Alignment(answer.text, UNALIGNED, "not found")
    return Alignment(passage.text[span], span.start, "loose")


def realign(question: Question, passage: Passage, *, keep_unaligned: bool) -> tuple[Question, list[Alignment]]:
    """Cleans a question and aligns its answers.

    Args:
        passage: the question's context.
        keep_unaligned: keep answers that the context does not hold, with start `UNALIGNED`: no span can be trained
            on them, but predictions can be compared with their text. Empty answers serve neither and always go.

    Returns:
        The question with the answers that remain, and what became of each of its answers, in order.
    """
    answers = zip(question.answer_texts, question.answer_starts, strict=True)
    alignments = [align_answer(passage, text, start) for text, start in answers]
    unwanted = {"empty"} if keep_unaligned else {"empty", "not found"}
    remaining = [alignment for alignment in alignments if alignment.outcome not in unwanted]
    cleaned = Question(
        id=question.id,
        question=clean(question.question).text,
        context=passage.text,
        answer_texts=tuple(alignment.text for alignment in remaining),
        answer_starts=tuple(alignment.start for alignment in remaining),
        title=clean(question.title).text,
    )
    return cleaned, alignments


def _nearest(text: str, piece: str, near: int) -> int:
    """Start of the occurrence of `piece` nearest to `near`, the left one of two; -1 when there is none."""
    left = text.rfind(piece, 0, near + len(piece))
    right = text.find(piece, near + 1)
    if left < 0 or (right >= 0 and right - near < near - left):
        return right
    return left


def _find_loosely(passage: Passage, answer: str, near: int) -> slice | None:
    """The nearest loose occurrence of a clean answer in `passage.text`."""
    folded = passage.folded
    piece = fold(answer).text.strip()
    if not piece:  # nothing but combining marks
        return None
    first = _nearest(folded.text, piece, bisect_left(folded.origin, near))
    if first < 0:
        return None
    # Up to the next character that was kept: between it and the last one of the match, which is no space, only
    # combining marks can stand, and they belong to the match.
    after = first + len(piece)
    stop = folded.origin[after] if after < len(folded.text) else len(passage.text)
    return slice(folded.origin[first], stop)


def _unescape(raw: str) -> Tracked:
    """Resolves entities until none is left, in one pass: only a semicolon can complete one."""
    text: list[str] = []
    origin = array("I")
    entities = 0
    for index, character in enumerate(raw):
        text.append(character)
        origin.append(index)
        while text and text[-1] == ";":
            tail = "".join(text[-_LONGEST_ENTITY:])
            entity = tail[tail.rfind("&") :]
            if not _ENTITY.fullmatch(entity) or (entity[1] != "#" and entity[1:] not in html5):
                break
            value, start = html.unescape(entity), origin[-len(entity)]
            del text[-len(entity) :], origin[-len(entity) :]
            text.extend(value)
            origin.extend([start] * len(value))
            entities += 1
    return Tracked("".join(text), origin, entities)


class _FoldTable(dict[str, str]):
    """What `fold` makes of a character: one character, or none for a combining mark; worked out when first met.

    A character that would become several (the German sharp s, a Hangul syllable) stays as it is, so that whatever
    is found in a folded text covers whole characters of the text itself.
    """

    def __missing__(self, character: str) -> str:
        if character.isspace():
            folded = " "
        else:
            base = _without_marks(_TYPOGRAPHY.get(character, character))
            folded = _without_marks(base.casefold())
        self[character] = folded if len(folded) <= 1 else character
        return self[character]


def _without_marks(text: str) -> str:
    return "".join(mark for mark in unicodedata.normalize("NFD", text) if not unicodedata.combining(mark))


_FOLDED = _FoldTable()

"""Clean contexts and answers and correct the answers' start indices, which machine translation often breaks."""

from __future__ import annotations

import html
import re
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, cached_property
from html.entities import html5

from adapter_qa.data.questions import NO_START, Question

_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]*);")
_LONGEST_ENTITY = 1 + max(map(len, html5))

_PLAIN_PUNCTUATION = {
    **dict.fromkeys("‘’‚‛‹›′´`ʼ", "'"),
    **dict.fromkeys("“”„‟«»″", '"'),
    **dict.fromkeys("‐‑‒–—―−﹘﹣－", "-"),
}


class MatchType(StrEnum):
    """How an answer was found in its context. The values are keys of the counts file.

    Attributes:
        EXACT: at its start index.
        MOVED: at another index.
        NORMALIZED: with other case, accents, quotes, dashes or white space; see `normalize`.
        NOT_FOUND: the context does not contain it.
        EMPTY: it contains only white space.
    """

    EXACT = "as it was"
    MOVED = "moved"
    NORMALIZED = "loose"
    NOT_FOUND = "not found"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class MappedText:
    """A text derived from a source text, with a mapping between their characters.

    Attributes:
        text: the derived text.
        source_indices: for every character of `text`, the index of its source character; never decreasing.
        entities: number of HTML entities that were replaced.
    """

    text: str
    source_indices: Sequence[int]
    entities: int = 0


@dataclass(frozen=True, slots=True)
class AlignedAnswer:
    """A clean answer and its position in the clean context.

    Attributes:
        text: the answer; for a normalized match, the text of the context.
        start: index of its first character in the context; `NO_START` if it is empty or not found.
        match: how it was found.
        is_ambiguous: whether it had no start index and occurs more than once; `start` is the first occurrence.
    """

    text: str
    start: int
    match: MatchType
    is_ambiguous: bool = False


class AlignmentContext:
    """A clean context, mapped to the raw one; it is normalized at most once for all its questions."""

    def __init__(self, raw: str):
        self.cleaned = clean(raw)
        self.text = self.cleaned.text

    @cached_property
    def normalized(self) -> MappedText:
        """The normalized text, mapped to `text`."""
        return normalize(self.text)


def clean(raw: str) -> MappedText:
    """Replace HTML entities by their characters and strip surrounding white space, in linear time.

    An entity must end in a semicolon, because `&para` may be Portuguese. Entities are replaced until none is left,
    because machine-translated files contain `&amp;quot;`. Cleaning a clean text changes nothing.
    """
    unescaped = _unescape(raw) if "&" in raw and ";" in raw else MappedText(raw, range(len(raw)))
    start, end = len(unescaped.text) - len(unescaped.text.lstrip()), len(unescaped.text.rstrip())
    return MappedText(unescaped.text[start:end], unescaped.source_indices[start:end], unescaped.entities)


def normalize(text: str) -> MappedText:
    """Remove differences of case, accents, quotation marks, dashes and amount of white space."""
    normalized: list[str] = []
    source_indices = array("I")
    for index, character in enumerate(text):
        plain = _normalize_character(character)
        if plain and not (plain == " " and normalized and normalized[-1] == " "):
            normalized.append(plain)
            source_indices.append(index)
    return MappedText("".join(normalized), source_indices)


def align_answer(context: AlignmentContext, raw_text: str, raw_start: int) -> AlignedAnswer:
    """Find a cleaned answer in the cleaned context, at its start index or else as close to it as possible.

    A match that is not a part of longer words is preferred, even if it is a normalized one; among these, and among the
    others, an exact match is preferred, however close a normalized one is. Without a start index the first is taken.

    Args:
        context: the cleaned context.
        raw_text: the answer before cleaning.
        raw_start: its start index in the context before cleaning; may be wrong. `NO_START`: there is none.
    """
    answer = clean(raw_text)
    if not answer.text:
        return AlignedAnswer("", NO_START, MatchType.EMPTY)
    index = NO_START
    if raw_start != NO_START:
        index = bisect_left(context.cleaned.source_indices, raw_start + answer.source_indices[0])
        if context.text.startswith(answer.text, index):
            return AlignedAnswer(answer.text, index, MatchType.EXACT)
    return _nearest_match(context, answer.text, index)


def align_question(
    question: Question, context: AlignmentContext, *, keep_unaligned: bool
) -> tuple[Question, list[AlignedAnswer]]:
    """Clean a question and align its answers.

    Args:
        question: a question with raw texts.
        context: its cleaned context.
        keep_unaligned: keep answers that the context does not contain, with start `NO_START`. Evaluation can compare
            predictions with their text; training has no span for them. Empty answers are always dropped.

    Returns:
        The cleaned question with the remaining answers, and the alignment of every original answer, in order.
    """
    answers = zip(question.answer_texts, question.answer_starts, strict=True)
    aligned = [align_answer(context, text, start) for text, start in answers]
    dropped = {MatchType.EMPTY} if keep_unaligned else {MatchType.EMPTY, MatchType.NOT_FOUND}
    remaining = [answer for answer in aligned if answer.match not in dropped]
    cleaned = replace(
        question,
        question=clean(question.question).text,
        context=context.text,
        answer_texts=tuple(answer.text for answer in remaining),
        answer_starts=tuple(answer.start for answer in remaining),
        title=clean(question.title).text,
    )
    return cleaned, aligned


def _nearest_match(context: AlignmentContext, answer: str, index: int) -> AlignedAnswer:
    """Find a clean answer that is not exactly at `index`; the first match if `index` is `NO_START`."""
    normalized, pattern = context.normalized, _normalized_pattern(answer)
    normalized_index = NO_START if index == NO_START else bisect_left(normalized.source_indices, index)
    exact, loose = _occurrences(context.text, answer), _occurrences(normalized.text, pattern)
    whole_exact, whole_loose = _whole_words(context.text, answer, exact), _whole_words(normalized.text, pattern, loose)
    at_index = [start for start in whole_loose if normalized.source_indices[start] == index]
    matches = ((at_index, False), (whole_exact, True), (whole_loose, False), (exact, True), (loose, False))
    for starts, is_exact in matches:
        if starts:
            start = _nearest(starts, index if is_exact else normalized_index)
            span = slice(start, start + len(answer)) if is_exact else _original_span(context, pattern, start)
            match = MatchType.MOVED if is_exact else MatchType.NORMALIZED
            is_ambiguous = index == NO_START and len(starts) > 1
            return AlignedAnswer(context.text[span], span.start, match, is_ambiguous)
    return AlignedAnswer(answer, NO_START, MatchType.NOT_FOUND)


def _nearest(starts: Sequence[int], index: int) -> int:
    """Return the start closest to `index`, the left one if two are; the first if `index` is `NO_START`."""
    return min(starts, key=lambda start: abs(start - index))


def _occurrences(text: str, pattern: str) -> list[int]:
    """Return where a pattern occurs, without overlaps; nowhere if it is empty."""
    starts = []
    start = text.find(pattern) if pattern else -1
    while start >= 0:
        starts.append(start)
        start = text.find(pattern, start + len(pattern))
    return starts


def _whole_words(text: str, pattern: str, starts: list[int]) -> list[int]:
    """Return those occurrences that are not a part of longer words and split no character from its marks."""
    padded = f" {text} "

    def is_whole(start: int) -> bool:
        following = padded[start + len(pattern) + 1]
        if following.isalnum() or _is_mark(following) or _is_mark(text[start]):
            return False
        before = start
        while _is_mark(padded[before]):
            before -= 1
        return not padded[before].isalnum()

    return [start for start in starts if is_whole(start)]


def _is_mark(character: str) -> bool:
    """Return whether a character belongs to the one before it: an accent or a vowel sign, for example."""
    return unicodedata.category(character).startswith("M")


def _normalized_pattern(answer: str) -> str:
    """Return what to look for in a normalized text; nothing if the answer has combining marks only."""
    return normalize(answer).text.strip()


def _original_span(context: AlignmentContext, pattern: str, start: int) -> slice:
    """Return the span of `context.text` whose normalization has `pattern` at `start`."""
    # The match extends to the next character that normalization kept. Only combining marks can stand between that
    # character and the last one of the match, which is not a space; they belong to the match.
    normalized = context.normalized
    following = start + len(pattern)
    end = normalized.source_indices[following] if following < len(normalized.text) else len(context.text)
    return slice(normalized.source_indices[start], end)


def _unescape(raw: str) -> MappedText:
    """Replace entities until none is left. One pass is enough: only a semicolon can complete an entity."""
    text: list[str] = []
    source_indices = array("I")
    entities = 0
    for index, character in enumerate(raw):
        text.append(character)
        source_indices.append(index)
        while text and text[-1] == ";":
            tail = "".join(text[-_LONGEST_ENTITY:])
            entity = tail[tail.rfind("&") :]
            if not _ENTITY.fullmatch(entity) or (entity[1] != "#" and entity[1:] not in html5):
                break
            value, start = html.unescape(entity), source_indices[-len(entity)]
            del text[-len(entity) :], source_indices[-len(entity) :]
            text.extend(value)
            source_indices.extend([start] * len(value))
            entities += 1
    return MappedText("".join(text), source_indices, entities)


@cache
def _normalize_character(character: str) -> str:
    """Return the normalized character; empty for a combining mark.

    A character whose normalization has several characters (the German sharp s, a Hangul syllable) stays unchanged, so
    that a match in a normalized text always covers whole characters of the original text.
    """
    if character.isspace():
        return " "
    base = _without_accents(_PLAIN_PUNCTUATION.get(character, character))
    normalized = _without_accents(base.casefold())
    return normalized if len(normalized) <= 1 else character


def _without_accents(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char))

"""Split questions and their contexts into windows that fit the encoder.

A *window* is one input of the encoder: the question, special tokens and a range of the context's tokens. A long context
is split into several windows, which overlap by `doc_stride` tokens. Every distinct text is tokenized once; a window is
stored as a range of its context's tokens and assembled when it is used.

This module needs numpy and tokenizers only: `answer.py` in every exported folder is written from its source.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from adapter_qa.core.errors import UserError
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.pair_tokenizer import PairTokenizer
from adapter_qa.data.questions import Question, is_aligned

TEXTS_PER_CALL = 250  # tokenized in one call: enough to use all of the tokenizer's threads, few enough to bound memory
ANSWERS_PER_SEARCH = 8192  # found in one binary search; bounds memory

OnProgress = Callable[[int, int], None]  # called with the number of texts that are tokenized, and of all texts


@dataclass(frozen=True)
class Tokens:
    """Tokens of several texts, without special tokens; text i owns `text_offsets[i]:text_offsets[i + 1]`.

    Attributes:
        ids: (tokens,) int32.
        char_spans: (tokens, 2) int32, start and end character of each token in its text, as in
            `PairTokenizer.char_spans`: without white space at both ends. Start and end are equal for a token of white
            space only, which neither begins nor ends an answer.
        text_offsets: (texts + 1,) int64.
    """

    ids: np.ndarray
    char_spans: np.ndarray
    text_offsets: np.ndarray

    def lengths(self, texts: np.ndarray) -> np.ndarray:
        """Return the number of tokens, int64, of each of some texts, given by index."""
        lengths: np.ndarray = self.text_offsets[texts + 1] - self.text_offsets[texts]
        return lengths

    @cached_property
    def have_distinct_borders(self) -> bool:
        """Whether every token has characters, and no two of a text begin or end at the same one.

        Spans of distinct tokens then have distinct characters. The bytes of an emoji, for example, share theirs.
        """
        increases = np.diff(self.char_spans, axis=0) > 0
        starts = self.text_offsets[(self.text_offsets > 0) & (self.text_offsets < len(self.ids))]
        increases[starts - 1] = True  # the first token of the next text
        return bool(increases.all() and (self.char_spans[:, 1] > self.char_spans[:, 0]).all())

    def extended(self, other: Tokens) -> Tokens:
        """Return the tokens of these texts, followed by those of `other`."""
        return Tokens(
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.char_spans, other.char_spans]),
            np.concatenate([self.text_offsets, self.text_offsets[-1] + other.text_offsets[1:]]),
        )


@dataclass(frozen=True)
class PairLayout:
    """How a tokenizer joins two texts: `before`, first text, `between`, second text, `after`.

    Attributes:
        before: (n,) int32, ids of the special tokens before the first text.
        between: (n,) int32, ids of the special tokens between the texts.
        after: (n,) int32, ids of the special tokens after the second text.
        token_types: (special tokens + 2,) int8, with one element for each text; None if the encoder takes none.
        is_context: (special tokens + 2,) bool, with one element for each text.
        question_first: the question is the first text.
        cls_position: position of the classification token.
    """

    before: np.ndarray
    between: np.ndarray
    after: np.ndarray
    token_types: np.ndarray | None
    is_context: np.ndarray
    question_first: bool
    cls_position: int

    @property
    def special_tokens(self) -> int:
        """Return the number of special tokens in a window."""
        return len(self.before) + len(self.between) + len(self.after)

    def context_positions(self, question_lengths: np.ndarray) -> np.ndarray:
        """Return (n,) int64, the position of the first context token in windows with such questions, (n,) int64."""
        if self.question_first:
            return len(self.before) + question_lengths + len(self.between)
        return np.full_like(question_lengths, len(self.before))


class Window(NamedTuple):
    """One input of the encoder, without padding.

    Attributes:
        input_ids: (tokens,) int32.
        token_type_ids: (tokens,) int8; None if the encoder takes none.
        context_mask: (tokens,) bool, true at tokens of the context.
        start_position: as in `Windows`.
        end_position: as in `Windows`.
        cls_position: position of the classification token.
        char_spans: (context tokens, 2) int32, as in `Tokens`; None if `Tokens.have_distinct_borders`.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray | None
    context_mask: np.ndarray
    start_position: int
    end_position: int
    cls_position: int
    char_spans: np.ndarray | None = None


@dataclass(frozen=True)
class Windows:
    """All windows of several questions, in the order of the questions.

    Attributes:
        texts: tokens of the distinct questions and contexts.
        question_index: (windows,) int32, the question that a window belongs to.
        question_text: (windows,) int32, index of its question in `texts`.
        context_text: (windows,) int32, index of its context in `texts`.
        context_start: (windows,) int32, first token of the context in the window.
        context_end: (windows,) int32, end of its range of the context's tokens, exclusive.
        start_position: (windows,) int32, first token of the first gold answer, counted from the window's beginning;
            `layout.cls_position` if there is no answer, or another window of the question contains all of it and this
            one does not; `IGNORE_INDEX` if no window contains it.
        end_position: (windows,) int32, last token of the first gold answer; otherwise as `start_position`.
        cut_questions: number of questions that were too long and lost their end.
        answers_without_tokens: number of first gold answers at their start index that have no token, because the
            tokenizer removes all their characters.
        answers_in_no_window: number of first gold answers that have tokens, but no window contains all of them.
        answer_tokens: (questions,) int32, tokens of the shortest gold answer; 0 if no answer has a token.
    """

    layout: PairLayout
    texts: Tokens
    question_index: np.ndarray
    question_text: np.ndarray
    context_text: np.ndarray
    context_start: np.ndarray
    context_end: np.ndarray
    start_position: np.ndarray
    end_position: np.ndarray
    cut_questions: int
    answers_without_tokens: int
    answers_in_no_window: int
    answer_tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.question_index)

    def __getitem__(self, index: int) -> Window:
        layout, ids, offsets = self.layout, self.texts.ids, self.texts.text_offsets
        question_text, context_offset = self.question_text[index], offsets[self.context_text[index]]
        question = ids[offsets[question_text] : offsets[question_text + 1]]
        tokens = slice(context_offset + self.context_start[index], context_offset + self.context_end[index])
        context = ids[tokens]
        first, second = (question, context) if layout.question_first else (context, question)
        before, between, after = ([1] * len(special) for special in (layout.before, layout.between, layout.after))
        repeats = [*before, len(first), *between, len(second), *after]
        return Window(
            np.concatenate([layout.before, first, layout.between, second, layout.after]),
            None if layout.token_types is None else layout.token_types.repeat(repeats),
            layout.is_context.repeat(repeats),
            int(self.start_position[index]),
            int(self.end_position[index]),
            layout.cls_position,
            None if self.texts.have_distinct_borders else self.texts.char_spans[tokens],
        )

    def lengths(self) -> np.ndarray:
        """Return (windows,) int64, the number of tokens of each window, special tokens included."""
        texts: np.ndarray = self.texts.lengths(self.question_text) + self.context_end - self.context_start
        return self.layout.special_tokens + texts

    def token_shifts(self, rows: np.ndarray) -> np.ndarray:
        """Return (n,) int64: for context tokens of windows `rows`, index in `texts` minus position in the window."""
        positions = self.layout.context_positions(self.texts.lengths(self.question_text[rows]))
        shifts: np.ndarray = self.texts.text_offsets[self.context_text[rows]] + self.context_start[rows] - positions
        return shifts

    def char_spans(self, rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Return start and end characters, (n, 2) int32, of context tokens at positions (n,) in windows `rows` (n,)."""
        char_spans: np.ndarray = self.texts.char_spans[positions + self.token_shifts(rows)]
        return char_spans


def make_windows(
    questions: Sequence[Question],
    tokenizer: PairTokenizer,
    *,
    max_seq_length: int,
    doc_stride: int,
    on_progress: OnProgress | None = None,
) -> Windows:
    """Split questions with their contexts into labelled windows, for training, evaluation and inference alike.

    Windows and labels are those of `run_qa.py` in the examples of transformers: the question first, the context second;
    the other way round if the tokenizer pads on the left. These are different:

    - An answer that begins in the last token of a window is labelled there; the script labels the position after it.
    - An answer is labelled without characters at its ends that no token has, such as white space; the script labels the
      next token, or no answer.
    - The windows of an answer that is in none of them are ignored; the script labels no answer.
    - A question that is too long for the window is cut; the script fails.

    Args:
        questions: at least one.
        tokenizer: see `adapter_qa.data.window_dataset.pair_tokenizer`.
        max_seq_length: tokens of a window, special tokens included.
        doc_stride: context tokens that neighbouring windows of a question share.
        on_progress: called after every `TEXTS_PER_CALL` texts.

    Raises:
        UserError: there are no questions, or as in `window_layout`.
    """
    if not questions:
        raise UserError("there are no questions; give at least one")
    layout = window_layout(tokenizer, max_seq_length, doc_stride)
    capacity = max_seq_length - layout.special_tokens
    texts = _tokenize_distinct(questions, tokenizer, on_progress)
    texts, cut_questions = _cut_long_questions(questions, texts, tokenizer, capacity, doc_stride)
    question_lengths = texts.tokens.lengths(texts.question)
    context_lengths = texts.tokens.lengths(texts.context)
    ranges = _context_ranges(capacity - question_lengths, context_lengths, doc_stride)
    answers = _find_answers(questions, texts.context, texts.tokens)
    labels = _label_windows(layout, texts, ranges, answers)
    return Windows(
        layout=layout,
        texts=texts.tokens,
        question_index=ranges.question,
        question_text=texts.question[ranges.question],
        context_text=texts.context[ranges.question],
        context_start=ranges.start,
        context_end=ranges.end,
        start_position=labels.start_position,
        end_position=labels.end_position,
        cut_questions=cut_questions,
        answers_without_tokens=int((answers.are_aligned & (answers.first < 0)).sum()),
        answers_in_no_window=labels.answers_in_no_window,
        answer_tokens=answers.shortest,
    )


def window_layout(tokenizer: PairTokenizer, max_seq_length: int, doc_stride: int) -> PairLayout:
    """Return how a tokenizer joins question and context in windows of `max_seq_length` tokens.

    Raises:
        UserError: the stride leaves no space for new context tokens, or the tokenizer joins texts in an unknown way.
    """
    layout = pair_layout(tokenizer)
    remedy = stride_remedy(layout, max_seq_length, doc_stride)
    if remedy is not None:
        problem = f"--doc_stride {doc_stride} leaves no space in --max_seq_length {max_seq_length}"
        raise UserError(f"{problem}; give {remedy}")
    return layout


def stride_remedy(layout: PairLayout, max_seq_length: int, doc_stride: int) -> str | None:
    """Return which stride or length leaves space for new context tokens in every window; None if these do."""
    most = max_seq_length - layout.special_tokens - 2
    if doc_stride <= most:
        return None
    return f"a stride of at most {most}" if most >= 0 else f"a length of at least {max_seq_length - most}"


def pair_layout(tokenizer: PairTokenizer) -> PairLayout:
    """Find out how a tokenizer joins question and context, from the tokens of one pair.

    Raises:
        UserError: the joined pair is not the two texts with special tokens around them.
    """
    pair = tokenizer.encode_pair("a", "b")
    first, second = (encoding.ids for encoding in tokenizer.encode(["a", "b"]))
    ids = np.array(pair.ids, np.int32)
    a, b = pair.sequence_ids.index(0), pair.sequence_ids.index(1)
    before, between, after = ids[:a], ids[a + len(first) : b], ids[b + len(second) :]
    if [*before, *first, *between, *second, *after] != pair.ids or tokenizer.cls_token_id not in before:
        raise UserError(
            f"{tokenizer.name}: the tokenizer joins two texts in a way that is not supported; its classification token "
            "must come first"
        )
    # All special tokens, and the first token of each text.
    kept = np.r_[: a + 1, a + len(first) : b + 1, b + len(second) : len(ids)]
    question_first = not tokenizer.pad_left
    return PairLayout(
        before,
        between,
        after,
        np.array(pair.type_ids, np.int8)[kept] if tokenizer.has_token_types else None,
        kept == (b if question_first else a),
        question_first,
        before.tolist().index(tokenizer.cls_token_id),
    )


def tokenize(texts: Sequence[str], tokenizer: PairTokenizer, on_progress: OnProgress | None = None) -> Tokens:
    """Tokenize each text by itself."""
    ids, char_spans, text_offsets = array("i"), array("i"), array("q", [0])  # grow in place: no second copy at the end
    for first in range(0, len(texts), TEXTS_PER_CALL):
        block, begin = texts[first : first + TEXTS_PER_CALL], len(ids)
        encodings = tokenizer.encode(block)
        for encoding in encodings:
            ids.extend(encoding.ids)
            text_offsets.append(len(ids))
        char_spans.frombytes(tokenizer.char_spans(block, encodings, np.array(ids[begin:])).tobytes())
        if on_progress is not None:
            on_progress(first + len(encodings), len(texts))
    return Tokens(
        np.frombuffer(ids, np.int32),
        np.frombuffer(char_spans, np.int32).reshape(-1, 2),
        np.frombuffer(text_offsets, np.int64),
    )


def pad_windows(
    windows: Sequence[Window], pad_token_id: int, *, pad_left: bool, length: int | None = None, multiple: int = 1
) -> dict[str, np.ndarray]:
    """Pad windows to a batch.

    Args:
        windows: at least one.
        pad_token_id: id of the padding token.
        pad_left: pad on the left.
        length: tokens to pad to; None: the longest window of the batch.
        multiple: the longest window's length is rounded up to a multiple of this.

    Returns:
        `input_ids`, `attention_mask`, `token_type_ids` (if the encoder takes them), all (windows, length) int64;
        `context_mask`, (windows, length) bool; `start_positions`, `end_positions`, `cls_positions` and `first_token`
        (where the window begins), all (windows,) int64. If the windows have `char_spans`: `span_starts` and `span_ends`
        of `_span_borders`.
    """
    sizes = [len(window.input_ids) for window in windows]
    shape = (len(windows), length or -(-max(sizes) // multiple) * multiple)
    first_token = np.array([shape[1] - size if pad_left else 0 for size in sizes])
    ids = np.full(shape, pad_token_id, dtype=np.int64)
    token_types = np.zeros(shape, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    context_mask = np.zeros(shape, dtype=bool)
    for row, (window, start, size) in enumerate(zip(windows, first_token.tolist(), sizes, strict=True)):
        columns = slice(start, start + size)
        ids[row, columns] = window.input_ids
        attention_mask[row, columns] = 1
        context_mask[row, columns] = window.context_mask
        if window.token_type_ids is not None:
            token_types[row, columns] = window.token_type_ids
    labels = np.array([[window.start_position for window in windows], [window.end_position for window in windows]])
    start_positions, end_positions = np.where(labels == IGNORE_INDEX, IGNORE_INDEX, labels + first_token)
    batch = {
        "input_ids": ids,
        "attention_mask": attention_mask,
        "token_type_ids": token_types,
        "context_mask": context_mask,
        "start_positions": start_positions,
        "end_positions": end_positions,
        "cls_positions": np.array([window.cls_position for window in windows]) + first_token,
        "first_token": first_token,
    }
    if windows[0].token_type_ids is None:
        del batch["token_type_ids"]
    if windows[0].char_spans is not None:
        chars = np.full((*shape, 2), -1)
        chars[context_mask] = np.concatenate([window.char_spans for window in windows])
        batch["span_starts"], batch["span_ends"] = _span_borders(chars)
    return batch


def _span_borders(char_spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the token that stands for each token as the first of a span, and the one that stands for it as the last.

    Of tokens with the same start character the first stands for all of them, of those with the same end the last. So a
    span has all tokens of its characters, and distinct spans have distinct characters.

    Args:
        char_spans: (windows, length, 2) int, -1 outside of the context.

    Returns:
        Two arrays (windows, length) int64 of positions; 0, which is no context token, for tokens without characters.
    """
    has_chars = char_spans[..., 1] > char_spans[..., 0]
    ends = _first_of_equal(char_spans[:, ::-1, 1], has_chars[:, ::-1])[:, ::-1]
    last_position = char_spans.shape[1] - 1
    starts = _first_of_equal(char_spans[..., 0], has_chars)
    return np.where(has_chars, starts, 0), np.where(has_chars, last_position - ends, 0)


def _first_of_equal(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return, for each position, the first position of its run of equal values; (windows, length) int64.

    Positions where `counts`, (windows, length) bool, is False are skipped: they neither begin nor break a run.
    """
    position = np.arange(values.shape[1])
    seen = np.maximum.accumulate(np.where(counts, position + 1, 0), axis=1)  # the last one that counts, from 1; 0: none
    before = np.pad(seen, ((0, 0), (1, 0)))[:, :-1]
    is_first = counts & (values != np.take_along_axis(np.pad(values, ((0, 0), (1, 0)), constant_values=-1), before, 1))
    first: np.ndarray = np.maximum.accumulate(np.where(is_first, position, 0), axis=1)
    return first


class _Texts(NamedTuple):
    """The tokens of the distinct texts, and the index of each question and context in them, (questions,) int32."""

    tokens: Tokens
    question: np.ndarray
    context: np.ndarray


def _tokenize_distinct(
    questions: Sequence[Question], tokenizer: PairTokenizer, on_progress: OnProgress | None
) -> _Texts:
    """Tokenize every distinct question and context once, contexts first."""
    texts = [question.context for question in questions] + [question.question.lstrip() for question in questions]
    numbers: dict[str, int] = {}
    text_index = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int32, len(texts))
    context, question = text_index.reshape(2, -1)
    return _Texts(tokenize(list(numbers), tokenizer, on_progress), question, context)


def _cut_long_questions(
    questions: Sequence[Question], texts: _Texts, tokenizer: PairTokenizer, capacity: int, doc_stride: int
) -> tuple[_Texts, int]:
    """Cut the questions that leave no new context token in a window.

    With q tokens of the question, c of its context, capacity C and stride s, a question is cut

        if q + s + 1 > C and q + c > C,  to  max(C - 2s - 1, floor((C - s) / 2))  tokens.

    The s + 1 new context tokens that this leaves in a window, or half of C - s if that is less, bound the number of
    windows: with one, a question would need a window for each token of its context.

    Returns:
        The texts with those of the cut questions, and the number of these.
    """
    tokens, question, context = texts
    lengths = tokens.lengths(question)
    too_long = np.flatnonzero((lengths + doc_stride + 1 > capacity) & (lengths + tokens.lengths(context) > capacity))
    if not len(too_long):
        return texts, 0
    most = max(capacity - 2 * doc_stride - 1, (capacity - doc_stride) // 2)
    cut_texts = [cut_text(questions[index].question.lstrip(), tokenizer, most) for index in too_long.tolist()]
    question = question.copy()
    question[too_long] = len(tokens.text_offsets) - 1 + np.arange(len(too_long))
    return _Texts(tokens.extended(tokenize(cut_texts, tokenizer)), question, context), len(too_long)


def cut_text(text: str, tokenizer: PairTokenizer, most: int) -> str:
    """Return the longest prefix of a text that ends with a token and has at most `most` tokens by itself.

    Byte-level tokenizers make several tokens of one character, so the prefix that ends with the last allowed token may
    still be too long.
    """
    ends = [end for _, end in tokenizer.encode([text])[0].offsets]
    for end in reversed(ends[:most]):
        if len(tokenizer.encode([text[:end]])[0].ids) <= most:
            return text[:end]
    return ""


class _ContextRanges(NamedTuple):
    """The index of the question of each window, and the range of its context's tokens; all (windows,) int32."""

    question: np.ndarray
    start: np.ndarray
    end: np.ndarray


def _context_ranges(capacity: np.ndarray, context_lengths: np.ndarray, doc_stride: int) -> _ContextRanges:
    """Split the contexts of questions into ranges of at most `capacity` tokens, (questions,), that overlap."""
    step = capacity - doc_stride  # above 0 for all contexts that need several windows
    counts = 1 + -(-np.maximum(context_lengths - capacity, 0) // np.maximum(step, 1))
    question = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(question)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = number * step[question]
    end = np.minimum(start + capacity[question], context_lengths[question])
    return _ContextRanges(question.astype(np.int32), start.astype(np.int32), end.astype(np.int32))


class _GoldAnswers(NamedTuple):
    """The gold answers of several questions, all (questions,).

    Attributes:
        are_given: bool, the question has a gold answer.
        are_aligned: bool, the first gold answer is at its start index.
        first: int64, first token of the first gold answer, by its index in `Tokens`; -1 if it has no token.
        last: int64, last token of the first gold answer; -1 if it has no token.
        shortest: int32, tokens of the shortest gold answer; 0 if no answer has a token.
    """

    are_given: np.ndarray
    are_aligned: np.ndarray
    first: np.ndarray
    last: np.ndarray
    shortest: np.ndarray


def _find_answers(questions: Sequence[Question], context_text: np.ndarray, tokens: Tokens) -> _GoldAnswers:
    """Find the tokens of all gold answers; `context_text` is (questions,), the index of each context in `tokens`."""
    are_given = np.array([bool(question.answer_texts) for question in questions])
    # Question, number of the answer, start and end character.
    answers = np.array(
        [
            (index, number, start, start + len(text))
            for index, question in enumerate(questions)
            for number, (text, start) in enumerate(zip(question.answer_texts, question.answer_starts, strict=True))
            if is_aligned(question, number)
        ],
        np.int64,
    ).reshape(-1, 4)
    index, number, start, end = answers.T
    first, last = tokens_of_chars(tokens, context_text[index], start, end)
    shortest = np.full(len(questions), np.iinfo(np.int32).max, np.int32)
    has_tokens = first >= 0
    np.minimum.at(shortest, index[has_tokens], last[has_tokens] - first[has_tokens] + 1)
    of_first = np.full((2, len(questions)), -1)
    of_first[:, index[number == 0]] = np.stack([first, last])[:, number == 0]
    are_aligned = np.zeros(len(questions), bool)
    are_aligned[index[number == 0]] = True
    shortest[shortest == np.iinfo(np.int32).max] = 0
    return _GoldAnswers(are_given, are_aligned, of_first[0], of_first[1], shortest)


class _Labels(NamedTuple):
    """The labels of windows, (windows,) int32, and a number of questions; all as in `Windows`."""

    start_position: np.ndarray
    end_position: np.ndarray
    answers_in_no_window: int


def _label_windows(layout: PairLayout, texts: _Texts, ranges: _ContextRanges, answers: _GoldAnswers) -> _Labels:
    """Label windows with the first gold answer of their questions."""
    question = ranges.question
    context_offset = texts.tokens.text_offsets[texts.context[question]]
    begin, end = context_offset + ranges.start, context_offset + ranges.end
    first, last = answers.first[question], answers.last[question]
    contains_answer = (first >= begin) & (last < end)
    is_lost = answers.are_given.copy()
    is_lost[question[contains_answer]] = False
    without_answer = np.where(is_lost[question], IGNORE_INDEX, layout.cls_position)
    shifts = begin - layout.context_positions(texts.tokens.lengths(texts.question[question]))
    return _Labels(
        np.where(contains_answer, first - shifts, without_answer).astype(np.int32),
        np.where(contains_answer, last - shifts, without_answer).astype(np.int32),
        int((is_lost & (answers.first >= 0)).sum()),
    )


def tokens_of_chars(
    tokens: Tokens, texts: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the first and the last token of ranges of characters, without characters at their ends that no token has.

    Of several tokens that have the first character the last is taken, and of those that have the last character the
    first, as in `run_qa.py`; if these are in the wrong order, the first and the last of them.

    Args:
        tokens: tokens of several texts.
        texts: (n,), index of the text of each range.
        starts: (n,) int64, first character.
        ends: (n,) int64, last character, exclusive.

    Returns:
        Indices in `tokens`, -1 if no token has any of the characters, both (n,) int64.
    """
    found = np.full((2, len(texts)), -1)
    order = np.argsort(texts, kind="stable")
    for begin in range(0, len(texts), ANSWERS_PER_SEARCH):
        block = order[begin : begin + ANSWERS_PER_SEARCH]
        text = texts[block].astype(np.int64)
        numbers = np.arange(text[0], text[-1] + 1)
        base, stop = tokens.text_offsets[[text[0], text[-1] + 1]]
        spans = tokens.char_spans[base:stop]
        has_chars = np.flatnonzero(spans[:, 1] > spans[:, 0])
        # One search over all of these texts: a key is the number of the text, then the character. A token before all
        # and one behind all of them stand for no token.
        keys = (np.repeat(numbers, tokens.lengths(numbers)) << 32)[:, None] + spans
        token_starts, token_ends = np.pad(keys[has_chars].T, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, 1 << 62)))
        start, end = (text << 32) + starts[block], (text << 32) + ends[block]
        first = np.searchsorted(token_starts, start, side="right") - 1
        last = np.searchsorted(token_ends, end, side="left")
        first += token_ends[first] <= start  # no token has the first character
        first = np.searchsorted(token_starts, token_starts[first], side="right") - 1
        last -= token_starts[last] >= end
        last = np.searchsorted(token_ends, token_ends[last], side="left")
        is_found = (token_starts[first] < end) & (token_ends[last] > start)
        crossed = first > last
        first[crossed] = np.searchsorted(token_starts, token_starts[first[crossed]], side="left")
        last[crossed] = np.searchsorted(token_ends, token_ends[last[crossed]], side="right") - 1
        last = np.maximum(first, last)
        both = np.stack([first, last])[:, is_found]
        found[:, block[is_found]] = base + has_chars[both - 1]
    return found[0], found[1]

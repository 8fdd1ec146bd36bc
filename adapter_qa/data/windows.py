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
from itertools import chain
from typing import NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer

from adapter_qa.core.errors import UserError
from adapter_qa.data.labels import IGNORED
from adapter_qa.data.questions import Question, is_aligned

TEXTS_PER_CALL = 250  # tokenized in one call: enough to use all of the tokenizer's threads, few enough to bound memory
WINDOWS_PER_SEARCH = 8192  # labelled in one binary search; bounds memory

OnProgress = Callable[[int, int], None]  # called with the number of texts that are tokenized, and of all texts


@dataclass(frozen=True)
class PairTokenizer:
    """A tokenizer and what is needed to join question and context with it.

    Attributes:
        name: for error messages.
        pad_left: padding is on the left; then the context comes first and the question second.
        has_token_types: the encoder takes token types.
        split_special_tokens: the spelling of a special token within a text is tokenized as any other text.
    """

    tokenizer: Tokenizer
    name: str
    cls_token_id: int
    pad_token_id: int
    pad_left: bool
    has_token_types: bool
    split_special_tokens: bool = False

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Tokenize each text by itself, without special tokens, truncation and padding."""
        self._reset()
        encodings: list[Encoding] = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return encodings

    def encode_pair(self, first: str, second: str) -> Encoding:
        """Tokenize two texts together, with special tokens, without truncation and padding."""
        self._reset()
        return self.tokenizer.encode(first, second)

    def _reset(self) -> None:
        # Written only if they differ: writing fails while another thread tokenizes.
        if self.tokenizer.truncation is not None:
            self.tokenizer.no_truncation()
        if self.tokenizer.padding is not None:
            self.tokenizer.no_padding()
        if self.tokenizer.encode_special_tokens != self.split_special_tokens:
            self.tokenizer.encode_special_tokens = self.split_special_tokens


@dataclass(frozen=True)
class Tokens:
    """Tokens of several texts, without special tokens; text i owns `text_offsets[i]:text_offsets[i + 1]`.

    Attributes:
        ids: (tokens,) int32.
        char_spans: (tokens, 2) int32, start and end character of each token in its text.
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
        is_later = (np.diff(self.char_spans, axis=0) > 0).all(axis=1)
        starts = self.text_offsets[(self.text_offsets > 0) & (self.text_offsets < len(self.ids))]
        is_later[starts - 1] = True  # of the next text
        return bool(is_later.all() and (self.char_spans[:, 1] > self.char_spans[:, 0]).all())

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
            `layout.cls_position` if there is no answer or the window does not contain all of it; `IGNORED` if the
            context does not contain the answer at its start index.
        end_position: (windows,) int32, last token of the first gold answer; otherwise as `start_position`.
        cut_questions: number of questions that were too long and lost their end.
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
        layout = self.layout
        position = np.full(len(rows), len(layout.before))
        if layout.question_first:
            position += self.texts.lengths(self.question_text[rows]) + len(layout.between)
        shifts: np.ndarray = self.texts.text_offsets[self.context_text[rows]] + self.context_start[rows] - position
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
    the other way round if the tokenizer pads on the left. There are two differences. An answer that begins in the last
    token of a window is labelled there; the script labels the position after it. A question that is too long for the
    window is cut; the script fails.

    Args:
        questions: at least one.
        tokenizer: see `adapter_qa.data.window_dataset.pair_tokenizer`.
        max_seq_length: tokens of a window, special tokens included.
        doc_stride: context tokens that neighbouring windows of a question share.
        on_progress: called after every `TEXTS_PER_CALL` texts.

    Raises:
        UserError: the stride leaves no space for new context tokens, or the tokenizer joins texts in an unknown way.
    """
    layout = pair_layout(tokenizer)
    capacity = max_seq_length - layout.special_tokens
    if capacity - doc_stride < 2:
        raise UserError(
            f"--doc_stride {doc_stride} leaves no space in --max_seq_length {max_seq_length}; "
            f"give a stride of at most {capacity - 2}"
        )
    texts = [question.context for question in questions] + [question.question.lstrip() for question in questions]
    numbers: dict[str, int] = {}  # of the distinct texts, contexts first
    text_index = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int32, len(texts))
    context_text, question_text = text_index.reshape(2, -1)
    tokens = tokenize(list(numbers), tokenizer, on_progress)

    # Cut the questions that leave no new context token in a window and do not fit together with their whole context.
    context_lengths, question_lengths = tokens.lengths(context_text), tokens.lengths(question_text)
    too_long = np.flatnonzero(
        (question_lengths > capacity - doc_stride - 1) & (question_lengths + context_lengths > capacity)
    )
    if len(too_long):
        # With space for one new token only, a question would need a window for each token of its context. So space for
        # `doc_stride` + 1 new tokens is left, if possible.
        most = max(1, capacity - 2 * doc_stride - 1)
        cut_texts = [_cut_text(questions[index].question.lstrip(), tokenizer, most) for index in too_long.tolist()]
        question_text[too_long] = len(numbers) + np.arange(len(too_long))
        tokens = tokens.extended(tokenize(cut_texts, tokenizer))

    context_capacity = capacity - tokens.lengths(question_text)
    question_index, context_start, context_end = _context_ranges(context_capacity, context_lengths, doc_stride)
    labels = np.full((2, len(question_index)), layout.cls_position, dtype=np.int32)
    windows = Windows(
        layout,
        tokens,
        question_index,
        question_text[question_index],
        context_text[question_index],
        context_start,
        context_end,
        labels[0],
        labels[1],
        len(too_long),
    )
    _write_labels(windows, questions)
    return windows


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
    """Tokenize each text by itself; the character spans are those that the tokenizer gives within a pair."""
    ids, char_spans, text_offsets = array("i"), array("i"), array("q", [0])  # grow in place: no second copy at the end
    for first in range(0, len(texts), TEXTS_PER_CALL):
        encodings = tokenizer.encode(texts[first : first + TEXTS_PER_CALL])
        for encoding in encodings:
            ids.extend(encoding.ids)
            char_spans.extend(chain.from_iterable(encoding.offsets))
            text_offsets.append(len(ids))
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
    start_positions, end_positions = np.where(labels == IGNORED, IGNORED, labels + first_token)
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
    """Return, for each position, the first of the run of equal values that it belongs to; (windows, length) int64.

    Positions that do not count, by `counts`, (windows, length) bool, neither begin nor break a run.
    """
    position = np.arange(values.shape[1])
    seen = np.maximum.accumulate(np.where(counts, position + 1, 0), axis=1)  # the last one that counts, from 1; 0: none
    before = np.pad(seen, ((0, 0), (1, 0)))[:, :-1]
    is_first = counts & (values != np.take_along_axis(np.pad(values, ((0, 0), (1, 0)), constant_values=-1), before, 1))
    first: np.ndarray = np.maximum.accumulate(np.where(is_first, position, 0), axis=1)
    return first


def _cut_text(text: str, tokenizer: PairTokenizer, most: int) -> str:
    """Return the longest prefix of a text that ends with a token and has at most `most` tokens by itself.

    Byte-level tokenizers make several tokens of one character, so the prefix that ends with the last allowed token may
    still be too long.
    """
    ends = [end for _, end in tokenizer.encode([text])[0].offsets]
    for end in reversed(ends[:most]):
        if len(tokenizer.encode([text[:end]])[0].ids) <= most:
            return text[:end]
    return ""


def _context_ranges(
    capacity: np.ndarray, context_lengths: np.ndarray, doc_stride: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split the contexts of questions into ranges of at most `capacity` tokens, (questions,), that overlap.

    Returns:
        Index of the question, start and end (exclusive) of the range, all (windows,) int32.
    """
    step = capacity - doc_stride  # above 0 for all contexts that need several windows
    counts = 1 + -(-np.maximum(context_lengths - capacity, 0) // np.maximum(step, 1))
    question = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(question)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = number * step[question]
    end = np.minimum(start + capacity[question], context_lengths[question])
    return question.astype(np.int32), start.astype(np.int32), end.astype(np.int32)


def _answer_chars(question: Question) -> tuple[int, int]:
    """Return start and end of the first gold answer; (0, 0) if there is none, (-1, -1) if it is not at its start."""
    if not question.answer_texts:
        return 0, 0
    if not is_aligned(question):
        return -1, -1
    start = question.answer_starts[0]
    return start, start + len(question.answer_texts[0])


def _write_labels(windows: Windows, questions: Sequence[Question]) -> None:
    """Write the tokens of the first gold answers into `start_position` and `end_position`; see `Windows`."""
    texts = windows.texts
    starts, ends = np.array([_answer_chars(question) for question in questions])[windows.question_index].T
    windows.start_position[starts < 0] = windows.end_position[starts < 0] = IGNORED
    context_offsets = texts.text_offsets[windows.context_text]
    first, last = context_offsets + windows.context_start, context_offsets + windows.context_end - 1
    rows = np.flatnonzero((ends > starts) & (last >= first))
    contains_answer = texts.char_spans[first[rows], 0] <= starts[rows]
    contains_answer &= texts.char_spans[last[rows], 1] >= ends[rows]
    rows = rows[contains_answer]
    rows = rows[np.argsort(windows.context_text[rows], kind="stable")]
    for begin in range(0, len(rows), WINDOWS_PER_SEARCH):
        block = rows[begin : begin + WINDOWS_PER_SEARCH]
        text = windows.context_text[block].astype(np.int64)
        contexts = np.arange(text[0], text[-1] + 1)
        base = texts.text_offsets[text[0]]
        char_spans = texts.char_spans[base : texts.text_offsets[text[-1] + 1]]
        # One search over all of these contexts: a key is the number of the text, then the character.
        keys = np.repeat(contexts, texts.lengths(contexts)) << 32
        start = base + np.searchsorted(keys + char_spans[:, 0], (text << 32) + starts[block], side="right") - 1
        end = base + np.searchsorted(keys + char_spans[:, 1], (text << 32) + ends[block], side="left")
        shifts = windows.token_shifts(block)
        windows.start_position[block] = np.minimum(start, last[block]) - shifts
        windows.end_position[block] = np.maximum(end, first[block]) - shifts

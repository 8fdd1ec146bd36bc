"""Split questions and their contexts into windows that fit the encoder.

A *window* is one input of the encoder: the question, special tokens and a range of the context's tokens. A long context
is split into several windows, which overlap by `doc_stride` tokens. Every distinct text is tokenized once; a window is
stored as a range of its context's tokens and assembled when it is used.

This module needs numpy and tokenizers only: `answer.py` in every exported folder is written from its source.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer

from adapter_qa.core.errors import UserError
from adapter_qa.data.labels import IGNORED
from adapter_qa.data.squad import Question, is_aligned

TEXTS_PER_CALL = 250  # tokenized in one call: enough to use all of the tokenizer's threads, few enough to bound memory
WINDOWS_PER_SEARCH = 8192  # labelled in one binary search; bounds memory

OnProgress = Callable[[int, int], None]  # called with the number of texts that are tokenized, and of all texts


@dataclass(frozen=True)
class PairTokenizer:
    """A tokenizer and what is needed to join question and context with it.

    Attributes:
        tokenizer: the tokenizer itself.
        name: name for error messages.
        cls_token_id: id of the classification token.
        pad_token_id: id of the padding token.
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
        """Undo settings that another user of the same tokenizer has left.

        Settings are written only if they differ: writing fails while another thread tokenizes.
        """
        if self.tokenizer.truncation is not None:
            self.tokenizer.no_truncation()
        if self.tokenizer.padding is not None:
            self.tokenizer.no_padding()
        if self.tokenizer.encode_special_tokens != self.split_special_tokens:
            self.tokenizer.encode_special_tokens = self.split_special_tokens


@dataclass(frozen=True)
class Tokens:
    """Tokens of several texts, without special tokens, in flat arrays.

    Text i owns `text_offsets[i]:text_offsets[i + 1]`.

    Attributes:
        ids: (tokens,) int32.
        char_spans: (tokens, 2) int32, start and end character of each token in its text.
        text_offsets: (texts + 1,) int64.
    """

    ids: np.ndarray
    char_spans: np.ndarray
    text_offsets: np.ndarray

    def lengths(self) -> np.ndarray:
        """Return (texts,) int64, the number of tokens of each text."""
        return np.diff(self.text_offsets)

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
        token_types: int8 token types of the five parts; one element for each text, one per token for the others.
        question_first: the question is the first text.
    """

    before: np.ndarray
    between: np.ndarray
    after: np.ndarray
    token_types: tuple[np.ndarray, ...]
    question_first: bool

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
        start_position: first token of the gold answer; see `Windows`.
        end_position: last token of the gold answer; see `Windows`.
        cls_position: the classification token.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray | None
    context_mask: np.ndarray
    start_position: int
    end_position: int
    cls_position: int


@dataclass(frozen=True)
class Windows:
    """All windows of several questions, in the order of the questions.

    Attributes:
        layout: how question and context are joined.
        questions: tokens of the distinct questions.
        contexts: tokens of the distinct contexts.
        question_index: (windows,) int32, the question that a window belongs to.
        question_text: (windows,) int32, index of its text in `questions`.
        context_text: (windows,) int32, index of its text in `contexts`.
        context_start: (windows,) int32, first token of the context in the window.
        context_end: (windows,) int32, end of its range of the context's tokens, exclusive.
        start_position: (windows,) int32, first token of the first gold answer, counted from the window's beginning;
            `cls_position` if there is no answer or the window does not contain all of it; `IGNORED` if the context does
            not contain the answer at its start index.
        end_position: (windows,) int32, last token of the first gold answer; otherwise as `start_position`.
        cls_position: position of the classification token in every window.
        has_token_types: the encoder takes token types.
        cut_questions: number of questions that were too long and lost their end.
    """

    layout: PairLayout
    questions: Tokens
    contexts: Tokens
    question_index: np.ndarray
    question_text: np.ndarray
    context_text: np.ndarray
    context_start: np.ndarray
    context_end: np.ndarray
    start_position: np.ndarray
    end_position: np.ndarray
    cls_position: int
    has_token_types: bool
    cut_questions: int

    def __len__(self) -> int:
        return len(self.question_index)

    def lengths(self) -> np.ndarray:
        """Return (windows,) int64, the number of tokens of each window, special tokens included."""
        texts: np.ndarray = self.questions.lengths()[self.question_text] + self.context_end - self.context_start
        return self.layout.special_tokens + texts

    def context_positions(self) -> np.ndarray:
        """Return (windows,) int64, the position of the first context token in each window."""
        if not self.layout.question_first:
            return np.full(len(self), len(self.layout.before))
        question_lengths: np.ndarray = self.questions.lengths()[self.question_text]
        return len(self.layout.before) + question_lengths + len(self.layout.between)

    def char_spans(self, rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Return the start and end characters, (n, 2) int32, of context tokens.

        Args:
            rows: (n,) int, indices of windows.
            positions: (n,) int, position of a context token in each of these windows.
        """
        context_offsets = self.contexts.text_offsets[self.context_text[rows]]
        tokens = context_offsets + self.context_start[rows] + positions - self.context_positions()[rows]
        char_spans: np.ndarray = self.contexts.char_spans[tokens]
        return char_spans

    def __getitem__(self, index: int) -> Window:
        layout = self.layout
        question_start, question_end = self.questions.text_offsets[self.question_text[index] :][:2]
        question = self.questions.ids[question_start:question_end]
        offset = self.contexts.text_offsets[self.context_text[index]]
        context = self.contexts.ids[offset + self.context_start[index] : offset + self.context_end[index]]
        first, second = (question, context) if layout.question_first else (context, question)
        token_types = None
        if self.has_token_types:
            repeats = (1, len(first), 1, len(second), 1)
            token_types = np.concatenate(
                [np.tile(types, count) for types, count in zip(layout.token_types, repeats, strict=True)]
            )
        context_mask = np.zeros(layout.special_tokens + len(first) + len(second), dtype=bool)
        context_position = len(layout.before) + (len(first) + len(layout.between) if layout.question_first else 0)
        context_mask[context_position : context_position + len(context)] = True
        return Window(
            np.concatenate([layout.before, first, layout.between, second, layout.after]),
            token_types,
            context_mask,
            int(self.start_position[index]),
            int(self.end_position[index]),
            self.cls_position,
        )


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
        UserError: the stride leaves no room for new context tokens, or the tokenizer joins texts in an unknown way.
    """
    layout = pair_layout(tokenizer)
    room = max_seq_length - layout.special_tokens
    if room - doc_stride < 2:
        raise UserError(
            f"--doc_stride {doc_stride} leaves no room in --max_seq_length {max_seq_length}; "
            f"give a stride of at most {room - 2}"
        )
    question_texts, question_text = _distinct([question.question.lstrip() for question in questions])
    context_texts, context_text = _distinct([question.context for question in questions])
    tokens = tokenize([*context_texts, *question_texts], tokenizer, on_progress)
    contexts, question_tokens = _split(tokens, len(context_texts))
    context_lengths = contexts.lengths()[context_text]

    too_long = _too_long(question_tokens.lengths()[question_text], context_lengths, room, doc_stride)
    if len(too_long):
        # Cut so that only one new context token fits, a question would need a window for each token of its context.
        # So room for `doc_stride` + 1 new tokens is left, if possible.
        most = max(1, room - 2 * doc_stride - 1)
        cut_texts = [_cut_text(questions[index].question.lstrip(), tokenizer, most) for index in too_long]
        question_text[too_long] = len(question_texts) + np.arange(len(too_long))
        question_tokens = question_tokens.extended(tokenize(cut_texts, tokenizer))

    question_index, context_start, context_end = _context_ranges(
        room - question_tokens.lengths()[question_text], context_lengths, doc_stride
    )
    cls_position = int(np.flatnonzero(layout.before == tokenizer.cls_token_id)[0])
    unlabelled = np.full(len(question_index), cls_position, dtype=np.int32)
    windows = Windows(
        layout,
        question_tokens,
        contexts,
        question_index,
        question_text[question_index],
        context_text[question_index],
        context_start,
        context_end,
        unlabelled,
        unlabelled,
        cls_position,
        tokenizer.has_token_types,
        len(too_long),
    )
    return _labelled(windows, questions)


def pair_layout(tokenizer: PairTokenizer) -> PairLayout:
    """Find out how a tokenizer joins question and context, from the tokens of one pair.

    Raises:
        UserError: the joined pair is not the two texts with special tokens around them.
    """
    pair = tokenizer.encode_pair("a", "b")
    first, second = (encoding.ids for encoding in tokenizer.encode(["a", "b"]))
    ids, types = np.array(pair.ids, np.int32), np.array(pair.type_ids, np.int8)
    a, b = pair.sequence_ids.index(0), pair.sequence_ids.index(1)
    before, between, after = slice(0, a), slice(a + len(first), b), slice(b + len(second), None)
    joined = [*ids[before], *first, *ids[between], *second, *ids[after]]
    if joined != ids.tolist() or tokenizer.cls_token_id not in ids[before]:
        raise UserError(
            f"{tokenizer.name}: the tokenizer joins two texts in a way that is not supported; its classification token "
            "must come first"
        )
    token_types = (types[before], types[a : a + 1], types[between], types[b : b + 1], types[after])
    return PairLayout(ids[before], ids[between], ids[after], token_types, not tokenizer.pad_left)


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
        (where the window begins), all (windows,) int64.
    """
    longest = max(len(window.input_ids) for window in windows)
    shape = (len(windows), length or -(-longest // multiple) * multiple)
    ids = np.full(shape, pad_token_id, dtype=np.int64)
    token_types = np.zeros(shape, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    context_mask = np.zeros(shape, dtype=bool)
    first_token = np.zeros(len(windows), dtype=np.int64)
    for row, window in enumerate(windows):
        size = len(window.input_ids)
        first_token[row] = shape[1] - size if pad_left else 0
        columns = slice(first_token[row], first_token[row] + size)
        ids[row, columns] = window.input_ids
        attention_mask[row, columns] = 1
        context_mask[row, columns] = window.context_mask
        if window.token_type_ids is not None:
            token_types[row, columns] = window.token_type_ids
    starts = np.array([window.start_position for window in windows])
    ends = np.array([window.end_position for window in windows])
    batch = {
        "input_ids": ids,
        "attention_mask": attention_mask,
        "token_type_ids": token_types,
        "context_mask": context_mask,
        "start_positions": np.where(starts == IGNORED, IGNORED, starts + first_token),
        "end_positions": np.where(ends == IGNORED, IGNORED, ends + first_token),
        "cls_positions": np.array([window.cls_position for window in windows]) + first_token,
        "first_token": first_token,
    }
    if windows[0].token_type_ids is None:
        del batch["token_type_ids"]
    return batch


def _distinct(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the distinct texts in order of appearance, and the index of each text among them, (texts,) int32."""
    numbers: dict[str, int] = {}
    index = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int32, len(texts))
    return list(numbers), index


def _split(tokens: Tokens, texts: int) -> tuple[Tokens, Tokens]:
    """Return the tokens of the first `texts` texts and those of the others, as views."""
    cut = tokens.text_offsets[texts]
    return (
        Tokens(tokens.ids[:cut], tokens.char_spans[:cut], tokens.text_offsets[: texts + 1]),
        Tokens(tokens.ids[cut:], tokens.char_spans[cut:], tokens.text_offsets[texts:] - cut),
    )


def _too_long(question_lengths: np.ndarray, context_lengths: np.ndarray, room: int, doc_stride: int) -> np.ndarray:
    """Return the indices of the questions that must be cut.

    These are the ones that leave no new context token in a window and do not fit together with their whole context.
    """
    is_too_long = (question_lengths > room - doc_stride - 1) & (question_lengths + context_lengths > room)
    return np.flatnonzero(is_too_long)


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
    room: np.ndarray, context_lengths: np.ndarray, doc_stride: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split contexts into overlapping ranges of tokens.

    Args:
        room: (questions,) int, context tokens that fit in a window beside each question.
        context_lengths: (questions,) int, tokens of its context.
        doc_stride: tokens that neighbouring ranges share.

    Returns:
        Index of the question, start and end (exclusive) of the range, all (windows,) int32.
    """
    step = room - doc_stride
    remaining = np.maximum(context_lengths - room, 0)
    counts = 1 + np.where(remaining > 0, -(-remaining // np.maximum(step, 1)), 0)
    question = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(question)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = number * step[question]
    end = np.minimum(start + room[question], context_lengths[question])
    return question.astype(np.int32), start.astype(np.int32), end.astype(np.int32)


def _labelled(windows: Windows, questions: Sequence[Question]) -> Windows:
    """Return the windows with the start and end token of the first gold answer; see `Windows`."""
    count = len(questions)
    has_answer = np.fromiter((bool(question.answer_texts) for question in questions), bool, count)
    aligned = np.fromiter((bool(question.answer_texts) and is_aligned(question) for question in questions), bool, count)
    starts = (question.answer_starts[0] if question.answer_texts else 0 for question in questions)
    sizes = (len(question.answer_texts[0]) if question.answer_texts else 0 for question in questions)
    char_starts = np.fromiter(starts, np.int64, count)
    char_ends = char_starts + np.fromiter(sizes, np.int64, count)
    answers = np.stack([char_starts, char_ends], axis=1)[windows.question_index]

    labels = np.full((2, len(windows)), windows.cls_position, dtype=np.int32)
    labels[:, (has_answer & ~aligned)[windows.question_index]] = IGNORED
    rows = np.flatnonzero(aligned[windows.question_index] & (windows.context_end > windows.context_start))
    context_offsets = windows.contexts.text_offsets[windows.context_text[rows]]
    first, last = context_offsets + windows.context_start[rows], context_offsets + windows.context_end[rows] - 1
    char_spans = windows.contexts.char_spans
    rows = rows[(char_spans[first, 0] <= answers[rows, 0]) & (char_spans[last, 1] >= answers[rows, 1])]
    rows = rows[np.argsort(windows.context_text[rows], kind="stable")]
    for block in range(0, len(rows), WINDOWS_PER_SEARCH):
        _label(windows, rows[block : block + WINDOWS_PER_SEARCH], answers, labels)
    return replace(windows, start_position=labels[0], end_position=labels[1])


def _label(windows: Windows, rows: np.ndarray, answers: np.ndarray, labels: np.ndarray) -> None:
    """Find the tokens of the answers in windows that contain them.

    Args:
        windows: all windows.
        rows: (n,) int, indices of windows, sorted by their contexts.
        answers: (windows, 2) int64, start and end character of each window's answer.
        labels: (2, windows) int32, start and end tokens; filled in at `rows`.
    """
    contexts, text = windows.contexts, windows.context_text[rows].astype(np.int64)
    base, end = contexts.text_offsets[text[0]], contexts.text_offsets[text[-1] + 1]
    # One search over all of these contexts: a key is the number of the text, then the character.
    keys = np.repeat(np.arange(text[0], text[-1] + 1), contexts.lengths()[text[0] : text[-1] + 1]) << 32
    char_spans = contexts.char_spans[base:end]
    starts = base + np.searchsorted(keys + char_spans[:, 0], (text << 32) + answers[rows, 0], side="right") - 1
    ends = base + np.searchsorted(keys + char_spans[:, 1], (text << 32) + answers[rows, 1], side="left")
    first = contexts.text_offsets[text] + windows.context_start[rows]
    last = contexts.text_offsets[text] + windows.context_end[rows] - 1
    shift = windows.context_positions()[rows] - first
    labels[0, rows] = np.minimum(starts, last) + shift
    labels[1, rows] = np.maximum(ends, first) + shift

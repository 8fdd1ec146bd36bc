"""From questions to windows, and from windows to batches.

A *window* is one input of the encoder: question, special tokens and as much of the context as fits; a long context
makes several, which share `doc_stride` tokens. Every text is tokenized once, however many questions a context has and
however many windows a question; a window is a range of its context's tokens, put together when it is used.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

from adapter_qa.core.errors import UserError
from adapter_qa.data.labels import IGNORED
from adapter_qa.data.squad import Question, is_aligned

TEXTS_AT_ONCE = 250  # tokenized in one call: fills the tokenizer's threads, bounds its memory
FEW_TEXTS = 1000  # so many are done before a bar could be read
ROWS_AT_ONCE = 8192  # windows labelled in one search
Windowed = dict[str, Any]


@dataclass(frozen=True)
class Tokens:
    """Texts as tokens, without special ones; text i owns `borders[i]:borders[i + 1]` of the flat arrays.

    Attributes:
        ids: (tokens,) int32.
        offsets: (tokens, 2) int32, first and past-last character in the text.
        borders: (texts + 1,) int64.
    """

    ids: np.ndarray
    offsets: np.ndarray
    borders: np.ndarray

    def lengths(self) -> np.ndarray:
        """(texts,) int64, tokens of each text."""
        return np.diff(self.borders)


@dataclass(frozen=True)
class PairLayout:
    """How a tokenizer joins two texts: `before` first `between` second `after`, special tokens all three.

    Attributes:
        before, between, after: int32 ids.
        types: token types of the five parts, each an int8 array, of one element for the two texts.
        question_first: whether the question is the first text; with padding on the left it is the second.
    """

    before: np.ndarray
    between: np.ndarray
    after: np.ndarray
    types: tuple[np.ndarray, ...]
    question_first: bool

    @property
    def specials(self) -> int:
        """Number of special tokens."""
        return len(self.before) + len(self.between) + len(self.after)

    def question_mask(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """(batch, length) bool, where the question's tokens are in a batch of `WindowCollator`."""
        context = batch["context_mask"].sum(1)
        question = batch["attention_mask"].sum(1) - self.specials - context
        begin = batch["first_token"] + len(self.before)
        if not self.question_first:
            begin = begin + context + len(self.between)
        place = torch.arange(batch["context_mask"].shape[1], device=begin.device)
        return (place >= begin[:, None]) & (place < (begin + question)[:, None])


@dataclass(frozen=True)
class Windows(Dataset):
    """All windows of some questions, in the order of the questions, without padding.

    Attributes:
        layout: how question and context are joined.
        questions, contexts: their tokens, each text once.
        question: (windows,) int32, index of the question.
        question_text, context_text: (windows,) int32, its texts among `questions` and `contexts`.
        first, past: (windows,) int32, the range of the context's tokens that the window holds.
        start, end: (windows,) int32, tokens of the first gold answer, counted from the window's beginning; the
            classification token where the window does not hold it or there is none; `IGNORED` where it cannot be
            placed in the context.
        cls: position of the classification token in every window.
        has_types: the encoder takes token types.
        cut_questions: how many questions were too long and lost their end.
    """

    layout: PairLayout
    questions: Tokens
    contexts: Tokens
    question: np.ndarray
    question_text: np.ndarray
    context_text: np.ndarray
    first: np.ndarray
    past: np.ndarray
    start: np.ndarray
    end: np.ndarray
    cls: int
    has_types: bool
    cut_questions: int

    def __len__(self) -> int:
        return len(self.question)

    def lengths(self) -> np.ndarray:
        """(windows,) int64, tokens of each window, special ones included."""
        return self.layout.specials + self.questions.lengths()[self.question_text] + self.past - self.first

    def context_begins(self) -> np.ndarray:
        """(windows,) int64, position of the first context token in each window."""
        if not self.layout.question_first:
            return np.full(len(self), len(self.layout.before))
        return len(self.layout.before) + self.questions.lengths()[self.question_text] + len(self.layout.between)

    def characters(self, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """First and past-last character, (n, 2) int32, of context tokens given by window and position in it, (n,)."""
        text = self.contexts.borders[self.context_text[rows]]
        return self.contexts.offsets[text + self.first[rows] + tokens - self.context_begins()[rows]]

    def __getitem__(self, index: int) -> Windowed:
        layout = self.layout
        asked = self.questions.borders[self.question_text[index] :][:2]
        question = self.questions.ids[asked[0] : asked[1]]
        begin = self.contexts.borders[self.context_text[index]]
        context = self.contexts.ids[begin + self.first[index] : begin + self.past[index]]
        first, second = (question, context) if layout.question_first else (context, question)
        sizes = (1, len(first), 1, len(second), 1)
        inside = np.zeros(layout.specials + len(first) + len(second), dtype=bool)
        place = len(layout.before) + (len(first) + len(layout.between) if layout.question_first else 0)
        inside[place : place + len(context)] = True
        return {
            "input_ids": np.concatenate([layout.before, first, layout.between, second, layout.after]),
            "type_ids": np.concatenate([np.tile(part, size) for part, size in zip(layout.types, sizes, strict=True)])
            if self.has_types
            else None,
            "in_context": inside,
            "start": int(self.start[index]),
            "end": int(self.end[index]),
            "cls": self.cls,
        }


def make_windows(
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_seq_length: int,
    doc_stride: int,
    description: str = "windows",
) -> Windows:
    """Cuts questions with their contexts into windows, with labels; the same for training, evaluation and asking.

    Windows and labels are those of the ecosystem's `run_qa.py`: the question first, the context second; with a
    tokenizer that pads on the left, the other way round. Two things differ: an answer that begins in the last token of
    a window is labelled there, where the script labels the position after it; and a question too long for the window
    is cut, where the script crashes.

    Args:
        questions: at least one.
        tokenizer: a fast one.
        max_seq_length: tokens of a window, special tokens included.
        doc_stride: tokens that neighbouring windows share.
        description: label of the progress bar.

    Raises:
        UserError: the stride leaves no room for new context tokens, or the tokenizer joins texts in an unknown way.
    """
    layout = pair_layout(tokenizer)
    room = max_seq_length - layout.specials
    if room - doc_stride < 2:
        raise UserError(
            f"--doc_stride {doc_stride} leaves no room in --max_seq_length {max_seq_length}; "
            f"give a stride of at most {room - 2}"
        )
    texts, question_text = _distinct([question.question.lstrip() for question in questions])
    context_texts, context_text = _distinct([question.context for question in questions])
    contexts = tokenize(context_texts, tokenizer, description)
    whole = tokenize(texts, tokenizer, f"{description}: questions")
    texts, question_text, cut = _fit_questions(
        texts, question_text, whole.lengths(), contexts.lengths()[context_text], tokenizer, room, doc_stride
    )
    asked_tokens = whole if not cut else tokenize(texts, tokenizer, f"{description}: questions")
    question, first, past = _ranges(
        room - asked_tokens.lengths()[question_text], contexts.lengths()[context_text], doc_stride
    )
    windows = Windows(
        layout,
        asked_tokens,
        contexts,
        question,
        question_text[question],
        context_text[question],
        first,
        past,
        np.empty(0, np.int32),
        np.empty(0, np.int32),
        _cls_position(layout, tokenizer),
        "token_type_ids" in tokenizer.model_input_names,
        cut,
    )
    return _labelled(windows, questions)


def pair_layout(tokenizer: PreTrainedTokenizerFast) -> PairLayout:
    """How the tokenizer joins question and context, read off one pair.

    Raises:
        UserError: the joined pair is not the two texts with special tokens around them.
    """
    words = ["a", "b"]
    pair = tokenizer(*words, return_token_type_ids=True)
    alone = tokenizer(words, add_special_tokens=False)["input_ids"]
    ids, owner = np.array(pair["input_ids"], np.int32), pair.sequence_ids(0)
    types = np.array(pair["token_type_ids"], np.int8)
    a, b = owner.index(0), owner.index(1)
    past_a, past_b = a + len(alone[0]), b + len(alone[1])
    before, between, after = slice(0, a), slice(past_a, b), slice(past_b, None)
    joined = [*ids[before], *alone[0], *ids[between], *alone[1], *ids[after]]
    if joined != ids.tolist() or tokenizer.cls_token_id not in ids[before]:
        raise UserError(
            f"{tokenizer.name_or_path}: the tokenizer ({type(tokenizer).__name__}) joins two texts in a way that is "
            "not supported; its classification token must come first"
        )
    parts = (types[before], types[a : a + 1], types[between], types[b : b + 1], types[after])
    return PairLayout(ids[before], ids[between], ids[after], parts, tokenizer.padding_side == "right")


def _cls_position(layout: PairLayout, tokenizer: PreTrainedTokenizerFast) -> int:
    return int(np.flatnonzero(layout.before == tokenizer.cls_token_id)[0])


def _distinct(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Each text once, in order of appearance, and where each of the given ones is among them, (texts,) int32."""
    places: dict[str, int] = {}
    index = np.fromiter((places.setdefault(text, len(places)) for text in texts), np.int32, len(texts))
    return list(places), index


def tokenize(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, description: str) -> Tokens:
    """Tokens of texts, each by itself, with offsets as the tokenizer gives them within a pair."""
    ids, offsets, borders = array("i"), array("i"), array("q", [0])  # they grow in place: no second copy at the end
    bar = tqdm(total=len(texts), desc=description, unit="text", disable=len(texts) <= FEW_TEXTS)
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        encoded = tokenizer(
            list(texts[first : first + TEXTS_AT_ONCE]),
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        ids.extend(chain.from_iterable(encoded["input_ids"]))
        offsets.extend(chain.from_iterable(chain.from_iterable(encoded["offset_mapping"])))
        borders.extend((np.cumsum([len(one) for one in encoded["input_ids"]]) + borders[-1]).tolist())
        bar.update(len(encoded["input_ids"]))
    bar.close()
    return Tokens(
        np.frombuffer(ids, np.int32), np.frombuffer(offsets, np.int32).reshape(-1, 2), np.frombuffer(borders, np.int64)
    )


def _fit_questions(
    texts: list[str],
    question_text: np.ndarray,
    question_lengths: np.ndarray,
    context_lengths: np.ndarray,
    tokenizer: PreTrainedTokenizerFast,
    room: int,
    doc_stride: int,
) -> tuple[list[str], np.ndarray, int]:
    """Questions of which every window keeps at least one new context token.

    A question is cut, at a token's end, only where it leaves less and does not fit together with its whole context.
    Cut so that just one new token were left, it would make a window for each; so `doc_stride` + 1 are.

    Returns:
        The texts, cut ones added, the text of each question, and how many questions were cut.
    """
    longest = room - doc_stride - 1
    lengths = question_lengths[question_text]
    too_long = np.flatnonzero((lengths > longest) & (lengths + context_lengths > room))
    if not len(too_long):
        return texts, question_text, 0
    texts, question_text = list(texts), question_text.copy()
    for index in too_long:
        texts.append(_cut_text(texts[question_text[index]], tokenizer, max(1, 2 * longest - room + 1)))
        question_text[index] = len(texts) - 1
    return texts, question_text, len(too_long)


def _cut_text(text: str, tokenizer: PreTrainedTokenizerFast, longest: int) -> str:
    """The longest beginning of a text, up to some token's end, that has at most `longest` tokens by itself.

    Byte-level tokenizers make several tokens of one character, so the text up to the token in question may still be
    too long.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ends = [end for _, end in encoded["offset_mapping"]]
    for end in reversed(ends[:longest]):
        if len(tokenizer(text[:end], add_special_tokens=False, verbose=False)["input_ids"]) <= longest:
            return text[:end]
    return ""


def _ranges(room: np.ndarray, lengths: np.ndarray, doc_stride: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The windows of each question.

    Args:
        room: (questions,) context tokens that fit beside each question.
        lengths: (questions,) tokens of its context.
        doc_stride: tokens that neighbouring windows share.

    Returns:
        (windows,) int32 each: index of the question, first and past-last token of the context.
    """
    step = room - doc_stride
    more = np.maximum(lengths - room, 0)
    counts = 1 + np.where(more > 0, -(-more // np.maximum(step, 1)), 0)
    question = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(question)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = number * step[question]
    past = np.minimum(first + room[question], lengths[question])
    return question.astype(np.int32), first.astype(np.int32), past.astype(np.int32)


def _labelled(windows: Windows, questions: Sequence[Question]) -> Windows:
    """The same windows with the start and end token of the first gold answer; see `Windows`."""
    known = np.fromiter((bool(one.answer_texts) for one in questions), bool, len(questions))
    aligned = np.fromiter((bool(one.answer_texts) and is_aligned(one) for one in questions), bool, len(questions))
    begins = (one.answer_starts[0] if one.answer_texts else 0 for one in questions)
    sizes = (len(one.answer_texts[0]) if one.answer_texts else 0 for one in questions)
    first_chars = np.fromiter(begins, np.int64, len(questions))
    past_chars = first_chars + np.fromiter(sizes, np.int64, len(questions))
    chars = np.stack([first_chars, past_chars], axis=1)[windows.question]
    start, end = np.full((2, len(windows)), windows.cls, dtype=np.int32)
    start[(known & ~aligned)[windows.question]] = end[(known & ~aligned)[windows.question]] = IGNORED
    rows = np.flatnonzero(aligned[windows.question] & (windows.past > windows.first))
    tokens, borders = windows.contexts, windows.contexts.borders[windows.context_text]
    low, high = (borders + windows.first)[rows], (borders + windows.past - 1)[rows]
    holds = (tokens.offsets[low, 0] <= chars[rows, 0]) & (tokens.offsets[high, 1] >= chars[rows, 1])
    rows = rows[holds]
    rows = rows[np.argsort(windows.context_text[rows], kind="stable")]
    for block in range(0, len(rows), ROWS_AT_ONCE):
        _place(windows, rows[block : block + ROWS_AT_ONCE], chars, start, end)
    return replace(windows, start=start, end=end)


def _place(windows: Windows, rows: np.ndarray, chars: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
    """Fills in the tokens of the answers that some windows hold.

    Args:
        windows: all of them.
        rows: windows in the order of their contexts.
        chars: (windows, 2), first and past-last character of the answers.
        start, end: (windows,), to fill.
    """
    tokens, text = windows.contexts, windows.context_text[rows].astype(np.int64)
    base, past = tokens.borders[text[0]], tokens.borders[text[-1] + 1]
    # One search over all of these contexts: the text's number goes before the character.
    number = np.repeat(np.arange(text[0], text[-1] + 1), tokens.lengths()[text[0] : text[-1] + 1]) << 32
    offsets = tokens.offsets[base:past]
    begins = base + np.searchsorted(number + offsets[:, 0], (text << 32) + chars[rows, 0], side="right") - 1
    ends = base + np.searchsorted(number + offsets[:, 1], (text << 32) + chars[rows, 1], side="left")
    low, high = tokens.borders[text] + windows.first[rows], tokens.borders[text] + windows.past[rows] - 1
    shift = windows.context_begins()[rows] - low
    start[rows] = np.minimum(begins, high) + shift
    end[rows] = np.maximum(ends, low) + shift

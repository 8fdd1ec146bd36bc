"""From questions to windows, and from logits to spans to answers, in arrays.

A *window* is one input of the encoder: question, special tokens and as much of the context as fits; a long context
makes several, which share `doc_stride` tokens. A *span* is a pair of tokens of one window. All character offsets are
into the question's own context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

from adapter_qa.errors import UserError
from adapter_qa.records import write_json
from adapter_qa.squad import Question, is_aligned

IGNORED = -100  # label of a window whose gold answer cannot be placed; cross entropy skips it
NO_SPAN_ODDS = 1e6  # null odds of a question without any valid span: above every threshold, and still valid JSON
QUESTIONS_AT_ONCE = 1000  # tokenized in one call: fills the tokenizer's threads, bounds its memory
Windowed = dict[str, Any]


# ---------------------------------------------------------------- questions to windows


@dataclass(frozen=True)
class Windows(Dataset):
    """All windows of some questions, in the order of the questions, without padding.

    Arrays over all tokens, flat, (tokens,): window i owns `borders[i]:borders[i + 1]`.

    Attributes:
        token_ids: (tokens,) int32.
        type_ids: (tokens,) int8, or None where the tokenizer has no token types.
        offsets: (tokens, 2) int32, first and past-last character in the context; -1 outside the context.
        borders: (windows + 1,) int64.
        question: (windows,) int32, index of the question.
        start, end: (windows,) int32, tokens of the first gold answer; the classification token where the window does
            not hold it or there is none; `IGNORED` where it cannot be placed in the context.
        cls: (windows,) int32, position of the classification token.
        cut_questions: how many questions were too long and lost their end.
    """

    token_ids: np.ndarray
    type_ids: np.ndarray | None
    offsets: np.ndarray
    borders: np.ndarray
    question: np.ndarray
    start: np.ndarray
    end: np.ndarray
    cls: np.ndarray
    cut_questions: int

    def __len__(self) -> int:
        return len(self.question)

    def lengths(self) -> np.ndarray:
        """(windows,) int64, tokens of each window."""
        return np.diff(self.borders)

    def __getitem__(self, index: int) -> Windowed:
        tokens = slice(self.borders[index], self.borders[index + 1])
        return {
            "input_ids": self.token_ids[tokens],
            "type_ids": None if self.type_ids is None else self.type_ids[tokens],
            "in_context": self.offsets[tokens, 0] >= 0,
            "start": int(self.start[index]),
            "end": int(self.end[index]),
            "cls": int(self.cls[index]),
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
        UserError: the stride leaves no room for new context tokens.
    """
    room = max_seq_length - tokenizer.num_special_tokens_to_add(pair=True)
    if room - doc_stride < 2:
        raise UserError(
            f"--doc_stride {doc_stride} leaves no room in --max_seq_length {max_seq_length}; "
            f"give a stride of at most {room - 2}"
        )
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("ids", "types", "offsets", "lengths", "question")}
    cut = 0
    few = len(questions) <= QUESTIONS_AT_ONCE
    for first in tqdm(range(0, len(questions), QUESTIONS_AT_ONCE), desc=description, unit="k", disable=few):
        chunk = questions[first : first + QUESTIONS_AT_ONCE]
        texts, cut_here = _fitting_questions(chunk, tokenizer, room=room, longest=room - doc_stride - 1)
        cut += cut_here
        _tokenize(chunk, texts, first, tokenizer, max_seq_length, doc_stride, parts)
    arrays = {name: np.concatenate(chunks) for name, chunks in parts.items()}
    borders = np.concatenate([[0], np.cumsum(arrays["lengths"])])
    cls = _cls_positions(arrays["ids"], borders, tokenizer)
    start, end = _label(questions, arrays["offsets"], borders, arrays["question"], cls)
    has_types = "token_type_ids" in tokenizer.model_input_names
    return Windows(
        arrays["ids"],
        arrays["types"] if has_types else None,
        arrays["offsets"],
        borders,
        arrays["question"],
        start,
        end,
        cls,
        cut,
    )


def _fitting_questions(
    questions: Sequence[Question], tokenizer: PreTrainedTokenizerFast, *, room: int, longest: int
) -> tuple[list[str], int]:
    """Question texts of which every window keeps at least one new context token.

    A question is cut, at a token's end, only where it has more than `longest` tokens and does not fit together with
    its whole context: the tokenizer library would fail on it, in a way that cannot even be caught.

    Returns:
        The texts, leading white space removed, and how many were cut.
    """
    texts = [question.question.lstrip() for question in questions]
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)
    cut = 0
    for index, ids in enumerate(encoded["input_ids"]):
        if len(ids) <= longest:
            continue
        context = tokenizer(questions[index].context, add_special_tokens=False, verbose=False)
        if len(ids) + len(context["input_ids"]) > room:
            # Cut to `longest`, each window would hold one new context token; so it holds doc_stride + 1 of them.
            texts[index] = _cut_text(texts[index], tokenizer, max(1, 2 * longest - room + 1))
            cut += 1
    return texts, cut


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


def _tokenize(
    questions: Sequence[Question],
    texts: list[str],
    first: int,
    tokenizer: PreTrainedTokenizerFast,
    max_seq_length: int,
    doc_stride: int,
    parts: dict[str, list[np.ndarray]],
) -> None:
    """Appends the windows of some questions, of which the first has index `first`, to `parts`."""
    contexts = [question.context for question in questions]
    question_first = tokenizer.padding_side == "right"
    encoded = tokenizer(
        texts if question_first else contexts,
        contexts if question_first else texts,
        truncation="only_second" if question_first else "only_first",
        max_length=max_seq_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=True,
        padding=False,
    )
    sequence = 1 if question_first else 0
    for index, ids in enumerate(encoded["input_ids"]):
        inside = np.array([part == sequence for part in encoded.sequence_ids(index)])
        offsets = np.array(encoded["offset_mapping"][index], dtype=np.int32)
        offsets[~inside] = -1
        parts["ids"].append(np.array(ids, dtype=np.int32))
        parts["types"].append(np.array(encoded["token_type_ids"][index], dtype=np.int8))
        parts["offsets"].append(offsets)
    parts["lengths"].append(np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64))
    parts["question"].append(np.array(encoded["overflow_to_sample_mapping"], dtype=np.int32) + np.int32(first))


def _cls_positions(ids: np.ndarray, borders: np.ndarray, tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """(windows,) int32, the first classification token of each window, relative to the window."""
    places = np.flatnonzero(ids == tokenizer.cls_token_id)
    return (places[np.searchsorted(places, borders[:-1])] - borders[:-1]).astype(np.int32)


def _label(
    questions: Sequence[Question], offsets: np.ndarray, borders: np.ndarray, question: np.ndarray, cls: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Start and end token of the first gold answer in each window, (windows,) int32 both; see `Windows`."""
    start, end = cls.copy(), cls.copy()
    for index, number in enumerate(question):
        gold = questions[number]
        if not gold.answer_texts:
            continue
        if not is_aligned(gold):
            start[index] = end[index] = IGNORED
            continue
        window = offsets[borders[index] : borders[index + 1]]
        context = np.flatnonzero(window[:, 0] >= 0)
        if not len(context):
            continue
        first_char = gold.answer_starts[0]
        past_char = first_char + len(gold.answer_texts[0])
        starts, ends = window[context, 0], window[context, 1]
        if starts[0] <= first_char and ends[-1] >= past_char:
            start[index] = context[np.searchsorted(starts, first_char, side="right") - 1]
            end[index] = context[np.searchsorted(ends, past_char, side="left")]
    return start, end


@dataclass(frozen=True)
class WindowCollator:
    """Pads windows to a batch of tensors.

    Attributes:
        pad_id: token id of padding.
        left: padding goes to the left.
        length: pad to this many tokens; None pads to the longest window of the batch.
        multiple: rounds that length up, for tensor cores.
    """

    pad_id: int
    left: bool
    length: int | None = None
    multiple: int = 1

    def __call__(self, windows: Sequence[Windowed]) -> dict[str, torch.Tensor]:
        """Tensors of a batch: `input_ids`, `attention_mask`, `token_type_ids` (where the encoder has types) and
        `context_mask`, all (batch, length) int64, the last one bool; `start_positions`, `end_positions` (int64) and
        `cls_positions`, `first_token` (int64, where the window begins), all (batch,).
        """
        longest = max(len(window["input_ids"]) for window in windows)
        length = self.length or -(-longest // self.multiple) * self.multiple
        shape = (len(windows), length)
        ids = np.full(shape, self.pad_id, dtype=np.int64)
        types = np.zeros(shape, dtype=np.int64)
        attention = np.zeros(shape, dtype=np.int64)
        context = np.zeros(shape, dtype=bool)
        first = np.zeros(len(windows), dtype=np.int64)
        for row, window in enumerate(windows):
            size = len(window["input_ids"])
            first[row] = length - size if self.left else 0
            place = slice(first[row], first[row] + size)
            ids[row, place] = window["input_ids"]
            attention[row, place] = 1
            context[row, place] = window["in_context"]
            if window["type_ids"] is not None:
                types[row, place] = window["type_ids"]
        starts = np.array([window["start"] for window in windows])
        ends = np.array([window["end"] for window in windows])
        batch = {
            "input_ids": ids,
            "attention_mask": attention,
            "token_type_ids": types,
            "context_mask": context,
            "start_positions": np.where(starts == IGNORED, IGNORED, starts + first),
            "end_positions": np.where(ends == IGNORED, IGNORED, ends + first),
            "cls_positions": np.array([window["cls"] for window in windows]) + first,
            "first_token": first,
        }
        if windows[0]["type_ids"] is None:
            del batch["token_type_ids"]
        return {name: torch.from_numpy(array) for name, array in batch.items()}


# ---------------------------------------------------------------- logits to spans


def best_spans(
    start_logits: torch.Tensor,
    end_logits: torch.Tensor,
    context_mask: torch.Tensor,
    *,
    n_best_size: int,
    max_answer_length: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best of all spans of each window: both ends in the context, at most `max_answer_length` tokens.

    Every valid pair is scored, start logit plus end logit in float32; nothing is pruned. Equal scores go to the span
    that starts, then ends, first.

    Args:
        start_logits, end_logits: (windows, length), any float dtype.
        context_mask: (windows, length) bool.
        n_best_size: spans wanted for each window.
        max_answer_length: tokens.

    Returns:
        Scores (float32, -inf where there are fewer spans), first and last token (int64), all (windows, n_best_size),
        best first.
    """
    windows, length = start_logits.shape
    width = min(max_answer_length, length)
    start = start_logits.float().masked_fill(~context_mask, -torch.inf)
    end = end_logits.float().masked_fill(~context_mask, -torch.inf)
    # ends[w, i, k] is the end logit k tokens after i, a view of the padded logits.
    ends = functional.pad(end, (0, width - 1), value=-torch.inf).unfold(1, width, 1)
    scores = (start[:, :, None] + ends).reshape(windows, -1)
    kept = min(n_best_size, scores.shape[1])
    top, place = scores.topk(kept, dim=1)
    place, order = place.sort(dim=1)  # topk leaves open in which order equal scores come
    top, order = top.gather(1, order).sort(dim=1, descending=True, stable=True)
    place = place.gather(1, order)
    top = functional.pad(top, (0, n_best_size - kept), value=-torch.inf)
    place = functional.pad(place, (0, n_best_size - kept))
    first = place // width
    return top, first, first + place % width


@dataclass(frozen=True)
class WindowSpans:
    """The best spans of windows, tokens counted from each window's own beginning.

    Attributes:
        scores: (windows, n_best) float32, -inf where there is no span.
        first, last: (windows, n_best) int, tokens.
        start_logits: (windows, n_best) float32; the end logit is the score less this.
        null_starts, null_ends: (windows,) float32, the classification token's start and end logit.
    """

    scores: np.ndarray
    first: np.ndarray
    last: np.ndarray
    start_logits: np.ndarray
    null_starts: np.ndarray
    null_ends: np.ndarray


def window_spans(
    batch: dict[str, torch.Tensor],
    start_logits: torch.Tensor,
    end_logits: torch.Tensor,
    *,
    n_best_size: int,
    max_answer_length: int,
) -> tuple[torch.Tensor, ...]:
    """The fields of `WindowSpans` as tensors, for one batch of `WindowCollator` and its logits, (batch, length)."""
    scores, first, last = best_spans(
        start_logits,
        end_logits,
        batch["context_mask"],
        n_best_size=n_best_size,
        max_answer_length=max_answer_length,
    )
    starts = start_logits.float().gather(1, first)
    cls = batch["cls_positions"][:, None]
    null_starts = start_logits.float().gather(1, cls).squeeze(1)
    null_ends = end_logits.float().gather(1, cls).squeeze(1)
    begin = batch["first_token"][:, None]
    return scores, first - begin, last - begin, starts, null_starts, null_ends


# ---------------------------------------------------------------- spans to answers


@dataclass(frozen=True)
class Candidate:
    """One possible answer to a question.

    Attributes:
        text: the answer; "" for no answer.
        start, end: first and past-last character in the context; both 0 for no answer.
        start_logit, end_logit: logits of its two ends; their sum is its score.
        probability: softmax of the scores over the question's n-best list.
    """

    text: str
    start: int
    end: int
    start_logit: float
    end_logit: float
    probability: float


@dataclass(frozen=True)
class Answers:
    """Answers to questions, by id.

    Attributes:
        chosen: the answer; without `version_2` the best span.
        n_best: all candidates, best first.
        null_odds: v2 only: no-answer score less the best span's score; above the threshold, there is no answer.
    """

    chosen: dict[str, Candidate]
    n_best: dict[str, list[Candidate]]
    null_odds: dict[str, float] = field(default_factory=dict)

    def texts(self) -> dict[str, str]:
        """The chosen answers' texts by id."""
        return {name: candidate.text for name, candidate in self.chosen.items()}

    def span_texts(self) -> dict[str, str]:
        """The best spans' texts by id, "" only where there is no span: v2 thresholds are searched over these."""
        return {name: next((one.text for one in best if one.text), "") for name, best in self.n_best.items()}

    def write(self, folder: Path, prefix: str) -> None:
        """Writes `<prefix>_predictions.json`, `_nbest_predictions.json` and, for v2, `_null_odds.json`."""
        write_json(folder / f"{prefix}_predictions.json", self.texts())
        listed = {name: [vars(candidate) for candidate in best] for name, best in self.n_best.items()}
        write_json(folder / f"{prefix}_nbest_predictions.json", listed)
        if self.null_odds:
            write_json(folder / f"{prefix}_null_odds.json", self.null_odds)


def choose_answers(
    questions: Sequence[Question],
    windows: Windows,
    spans: WindowSpans,
    *,
    n_best_size: int,
    version_2: bool = False,
    null_score_diff_threshold: float = 0.0,
) -> Answers:
    """Merges the spans of each question's windows into its n-best list and chooses.

    A span that two windows share counts once, with its better score. For v2 the no-answer score of a question is the
    minimum over its windows: all of them must see no answer (Devlin et al., BERT, section 4.3, and its reference code).

    Args:
        questions: those that `windows` was made from.
        windows: with their offsets.
        spans: of every window, in the same order.
        n_best_size: candidates kept for each question.
        version_2: whether "no answer" is a candidate.
        null_score_diff_threshold: how much better it must be than the best span, in logits.
    """
    pool = _span_pool(windows, spans)
    nulls = _null_candidates(len(questions), windows, spans)
    borders = np.searchsorted(pool["question"], np.arange(len(questions) + 1))
    chosen, n_best, null_odds = {}, {}, {}
    for index, question in enumerate(questions):
        rows = slice(borders[index], min(borders[index] + n_best_size, borders[index + 1]))
        found = _candidates(question.context, pool, rows, nulls[index] if version_2 else None)
        n_best[question.id] = found
        best = next((candidate for candidate in found if candidate.text), found[0])
        if version_2:
            odds = sum(nulls[index]) - best.start_logit - best.end_logit if best.text else NO_SPAN_ODDS
            null_odds[question.id] = odds
            if odds > null_score_diff_threshold:
                best = next(candidate for candidate in found if not candidate.text)
        chosen[question.id] = best
    return Answers(chosen, n_best, null_odds)


def _null_candidates(questions: int, windows: Windows, spans: WindowSpans) -> list[tuple[float, float]]:
    """Start and end logit of "no answer" of each question, from the window where their sum is least."""
    order = np.lexsort((spans.null_starts + spans.null_ends, windows.question))
    least = order[np.searchsorted(windows.question[order], np.arange(questions))]
    return list(zip(spans.null_starts[least].tolist(), spans.null_ends[least].tolist(), strict=True))


def _span_pool(windows: Windows, spans: WindowSpans) -> dict[str, np.ndarray]:
    """All distinct spans as flat arrays, sorted by question, then best first, then by place in the context."""
    row, column = np.nonzero(np.isfinite(spans.scores))
    base = windows.borders[row]
    pool = {
        "question": windows.question[row],
        "score": spans.scores[row, column],
        "start_logit": spans.start_logits[row, column],
        "start": windows.offsets[base + spans.first[row, column], 0],
        "end": windows.offsets[base + spans.last[row, column], 1],
    }
    order = np.lexsort((pool["end"], pool["start"], -pool["score"], pool["question"]))
    pool = {name: values[order] for name, values in pool.items()}
    # The first of equal (question, start, end) is the best one; zero-width tokens make no answer.
    places = np.stack([pool["question"], pool["start"], pool["end"]], axis=1)
    _, first = np.unique(places, axis=0, return_index=True)
    keep = np.sort(first)
    keep = keep[pool["end"][keep] > pool["start"][keep]]
    return {name: values[keep] for name, values in pool.items()}


def _candidates(
    context: str, pool: dict[str, np.ndarray], rows: slice, null: tuple[float, float] | None
) -> list[Candidate]:
    """The n-best list of one question, "no answer" among it where it has logits; never empty."""
    found = [
        (float(score), float(logit), int(start), int(end))
        for score, logit, start, end in zip(
            pool["score"][rows], pool["start_logit"][rows], pool["start"][rows], pool["end"][rows], strict=True
        )
    ]
    if null is not None:
        found.append((sum(null), null[0], 0, 0))
        found.sort(key=lambda item: -item[0])
    if not found:
        return [Candidate("", 0, 0, 0.0, 0.0, 1.0)]
    scores = np.array([item[0] for item in found], dtype=np.float64)
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    return [
        Candidate(context[start:end], start, end, logit, score - logit, float(weight))
        for (score, logit, start, end), weight in zip(found, weights, strict=True)
    ]

"""From logits to spans to answers, in arrays.

A *span* is a pair of tokens of one window. All character offsets are into the question's own context.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch.nn import functional

from adapter_qa.data.squad import Question
from adapter_qa.data.windows import Windows

QUESTIONS_AT_ONCE = 1024  # bounds the memory of choosing and writing
NO_SPAN_ODDS = 1e6  # null odds of a question without any valid span: above every threshold, and still valid JSON


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
        first, last: (windows, n_best) int16, tokens.
        start_logits: (windows, n_best) float32; the end logit is the score less this.
        null_starts, null_ends: (windows,) float32, the classification token's start and end logit.
    """

    scores: np.ndarray
    first: np.ndarray
    last: np.ndarray
    start_logits: np.ndarray
    null_starts: np.ndarray
    null_ends: np.ndarray


class SpanCollector:
    """Takes the spans of batch after batch and puts them where their windows are.

    Args:
        order: (windows,), in which the windows come.
        n_best_size: spans of each.
        device: where they come; they stay there until all are asked for, so that no batch waits for it.
    """

    def __init__(self, order: np.ndarray, n_best_size: int, device: torch.device | str = "cpu"):
        count, shape = len(order), (len(order), n_best_size)
        made = partial(torch.empty, device=device)
        self.taken = {
            "scores": made(shape, dtype=torch.float32),
            "first": made(shape, dtype=torch.int16),
            "last": made(shape, dtype=torch.int16),
            "start_logits": made(shape, dtype=torch.float32),
            "null_starts": made(count, dtype=torch.float32),
            "null_ends": made(count, dtype=torch.float32),
        }
        self.order = torch.from_numpy(order).to(device)
        self.done = 0

    @property
    def spans(self) -> WindowSpans:
        """What came so far; complete after as many windows as `order` has."""
        return WindowSpans(**{name: array.cpu().numpy() for name, array in self.taken.items()})

    def take(self, batch: Sequence[torch.Tensor]) -> None:
        """The next windows' spans, as `window_spans` gives them."""
        rows = self.order[self.done : self.done + len(batch[0])]
        for array, tensor in zip(self.taken.values(), batch, strict=True):
            array[rows] = tensor.to(array.dtype)
        self.done += len(rows)


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
    first, last = (first - begin).int(), (last - begin).int()  # no smaller type can be gathered from other processes
    return scores, first, last, starts, null_starts, null_ends


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
    """Answers to questions, and their n-best lists, in arrays over all candidates.

    The candidates of question i, best first, are `borders[i]:borders[i + 1]`; there is at least one.

    Attributes:
        questions: what was asked.
        borders: (questions + 1,) int64.
        start, end: (candidates,) int32, first and past-last character in the context; both 0 for no answer.
        scores, start_logits: (candidates,) float32; the end logit is the score less this.
        probabilities: (candidates,) float32.
        best, picked: (questions,) int64, candidate that is the best span (where there is none, no answer), and the one
            that is the answer.
        odds: (questions,) float64, v2 only: no-answer score less the best span's; above the threshold, no answer.
    """

    questions: Sequence[Question]
    borders: np.ndarray
    start: np.ndarray
    end: np.ndarray
    scores: np.ndarray
    start_logits: np.ndarray
    probabilities: np.ndarray
    best: np.ndarray
    picked: np.ndarray
    odds: np.ndarray | None = None

    @property
    def chosen(self) -> dict[str, Candidate]:
        """The answer to each question, by its id; without v2 the best span."""
        return {one.id: self._candidate(index, row) for index, (one, row) in self._enumerated(self.picked)}

    @property
    def n_best(self) -> dict[str, list[Candidate]]:
        """All candidates of each question, by its id, best first."""
        return {one.id: self.candidates(index) for index, one in enumerate(self.questions)}

    def candidates(self, index: int, most: int | None = None) -> list[Candidate]:
        """The candidates of one question, or the first `most` of them, best first."""
        rows = range(self.borders[index], self.borders[index + 1])[:most]
        return [self._candidate(index, row) for row in rows]

    @property
    def null_odds(self) -> dict[str, float]:
        """The odds by id; empty for v1."""
        odds = [] if self.odds is None else self.odds.tolist()
        return {one.id: value for one, value in zip(self.questions, odds, strict=False)}

    def texts(self) -> dict[str, str]:
        """The chosen answers' texts by id."""
        return self._texts(self.picked)

    def span_texts(self) -> dict[str, str]:
        """The best spans' texts by id, "" only where there is no span: v2 thresholds are searched over these."""
        return self._texts(self.best)

    def write(self, folder: Path, prefix: str) -> None:
        """Writes `<prefix>_predictions.json`, `_nbest_predictions.json` and, for v2, `_null_odds.json`."""
        count = len(self.questions)
        blocks = [slice(first, first + QUESTIONS_AT_ONCE) for first in range(0, count, QUESTIONS_AT_ONCE)]
        _write(folder / f"{prefix}_predictions.json", (self._texts(self.picked, block) for block in blocks))
        _write(folder / f"{prefix}_nbest_predictions.json", map(self._listed, blocks))
        if self.odds is not None:
            _write(folder / f"{prefix}_null_odds.json", [self.null_odds])

    def _enumerated(self, rows: np.ndarray) -> Iterator[tuple[int, tuple[Question, int]]]:
        return enumerate(zip(self.questions, rows.tolist(), strict=True))

    def _texts(self, rows: np.ndarray, block: slice = slice(None)) -> dict[str, str]:
        """Text by id of one candidate for each question, or for a block of the questions."""
        rows = rows[block]
        places = zip(self.questions[block], self.start[rows].tolist(), self.end[rows].tolist(), strict=True)
        return {one.id: one.context[start:end] for one, start, end in places}

    def _candidate(self, index: int, row: int) -> Candidate:
        start, end = int(self.start[row]), int(self.end[row])
        logit = float(self.start_logits[row])
        text = self.questions[index].context[start:end]
        return Candidate(text, start, end, logit, float(self.scores[row]) - logit, float(self.probabilities[row]))

    def _listed(self, block: slice) -> dict[str, list[NBestEntry]]:
        """The n-best lists of a block of questions as they are written; in columns, since there are so many values."""
        questions = self.questions[block]
        borders = self.borders[block.start : block.start + len(questions) + 1]
        rows = slice(borders[0], borders[-1])
        contexts = [one.context for one in questions]
        owner = np.repeat(np.arange(len(questions)), np.diff(borders)).tolist()
        start, end = self.start[rows].tolist(), self.end[rows].tolist()
        texts = [contexts[index][low:high] for index, low, high in zip(owner, start, end, strict=True)]
        logits = self.start_logits[rows].tolist()
        ends = (self.scores[rows] - self.start_logits[rows]).tolist()
        listed = list(map(NBestEntry, texts, start, end, logits, ends, self.probabilities[rows].tolist()))
        borders = (borders - borders[0]).tolist()
        return {one.id: listed[borders[index] : borders[index + 1]] for index, one in enumerate(questions)}


class NBestEntry(msgspec.Struct, gc=False):
    """A candidate in the n-best file: the ecosystem's keys, and the characters of the context that it spans."""

    text: str
    start: int
    end: int
    start_logit: float
    end_logit: float
    probability: float


def _write(path: Path, pieces: Iterable[dict[str, Any]]) -> None:
    """Writes one JSON object, given in pieces, aside and renames it: a line for each key, however long its value."""
    aside, encode = path.with_name(path.name + ".writing"), msgspec.json.Encoder().encode
    with aside.open("wb") as stream:
        stream.write(b"{")
        between = b"\n"
        for piece in pieces:
            lines = [encode(key) + b": " + encode(value) for key, value in piece.items()]
            stream.write(between + b",\n".join(lines))
            between = b",\n"
        stream.write(b"\n}\n")
    os.replace(aside, path)


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
        n_best_size: candidates kept for each question, beside "no answer".
        version_2: whether "no answer" is a candidate.
        null_score_diff_threshold: how much better it must be than the best span, in logits.
    """
    parts = []
    for first in range(0, len(questions), QUESTIONS_AT_ONCE):
        past = min(first + QUESTIONS_AT_ONCE, len(questions))
        rows = slice(*np.searchsorted(windows.question, [first, past]))
        pool = _span_pool(windows, spans, rows, n_best_size)
        if version_2:
            nulls = _nulls(np.arange(first, past), windows, spans, rows)
        else:
            nulls = _no_spans(np.setdiff1d(np.arange(first, past), pool["question"]))
        parts.append(_listed_together(pool, nulls, first, past, null_score_diff_threshold if version_2 else None))
    # Taken out of the parts as it goes, so that nothing is held twice.
    lists = {name: np.concatenate([part.pop(name) for part in parts]) for name in tuple(parts[0])}
    begins = np.cumsum(lists["sizes"]) - lists["sizes"]
    return Answers(
        questions,
        np.append(begins, lists["sizes"].sum()),
        lists["start"],
        lists["end"],
        lists["score"],
        lists["start_logit"],
        lists["probability"],
        begins + lists["best"],
        begins + lists["picked"],
        lists["odds"] if version_2 else None,
    )


def _listed_together(
    pool: dict[str, np.ndarray], nulls: dict[str, np.ndarray], first: int, past: int, threshold: float | None
) -> dict[str, np.ndarray]:
    """The n-best lists of the questions from `first` to before `past`, and what is chosen from them.

    Args:
        pool: their spans.
        nulls: "no answer" as candidates.
        first, past: indexes of questions.
        threshold: of the odds, for v2.

    Returns:
        Arrays over candidates, as in `Answers`; over questions, `sizes` of the lists, and `best` and `picked`, counted
        within them, and `odds`.
    """
    both = {name: np.concatenate([pool[name], nulls[name]]) for name in pool}
    order = np.lexsort((both["end"] == 0, -both["score"], both["question"]))  # at equal scores, spans go first
    both = {name: values[order] for name, values in both.items()}
    borders = np.searchsorted(both["question"], np.arange(first, past + 1))
    # The first row that is a span; where there is none, "no answer", the only row.
    rows = np.arange(len(order))
    is_span = both["end"] > 0
    first_span = np.minimum.reduceat(np.where(is_span, rows, len(rows)), borders[:-1])
    best = np.where(first_span < len(rows), first_span, borders[:-1])
    picked, odds = best, np.zeros(past - first)
    if threshold is not None:
        null_row = np.flatnonzero(~is_span)
        odds = np.where(is_span[best], both["score"][null_row] - both["score"][best], NO_SPAN_ODDS)
        picked = np.where(odds > threshold, null_row, best)
    return {
        "sizes": np.diff(borders),
        "start": both["start"].astype(np.int32),
        "end": both["end"].astype(np.int32),
        "score": both["score"].astype(np.float32),
        "start_logit": both["start_logit"].astype(np.float32),
        "probability": _softmax(both["score"], borders).astype(np.float32),
        "best": best - borders[:-1],
        "picked": picked - borders[:-1],
        "odds": odds,
    }


def _span_pool(windows: Windows, spans: WindowSpans, rows: slice, n_best_size: int) -> dict[str, np.ndarray]:
    """The best distinct spans of each question in some windows as flat arrays: by question, best first, by place."""
    row, column = np.nonzero(np.isfinite(spans.scores[rows]))
    row += rows.start
    pool = {
        "question": windows.question[row],
        "score": spans.scores[row, column].astype(np.float64),
        "start_logit": spans.start_logits[row, column].astype(np.float64),
        "start": windows.characters(row, spans.first[row, column])[:, 0].astype(np.int64),
        "end": windows.characters(row, spans.last[row, column])[:, 1].astype(np.int64),
    }
    real = np.flatnonzero(pool["end"] > pool["start"])  # zero-width tokens make no answer
    pool = {name: values[real] for name, values in pool.items()}
    # Question, start and end in one number: sorting by it costs a third of sorting by three keys.
    longest = pool["end"].max(initial=0) + 1
    place = (pool["question"].astype(np.int64) * longest + pool["start"]) * longest + pool["end"]
    by_place = np.lexsort((-pool["score"], place))
    sorted_places = place[by_place]
    best = by_place[np.append(True, sorted_places[1:] != sorted_places[:-1])[: len(by_place)]]
    order = best[np.lexsort((-pool["score"][best], pool["question"][best]))]  # stable: at equal scores, by place
    question = pool["question"][order]
    rank = np.arange(len(order)) - np.searchsorted(question, question)
    return {name: values[order[rank < n_best_size]] for name, values in pool.items()}


def _nulls(questions: np.ndarray, windows: Windows, spans: WindowSpans, rows: slice) -> dict[str, np.ndarray]:
    """ "No answer" of each question as a candidate, from the one of its windows where its score is least."""
    starts, ends = spans.null_starts[rows].astype(np.float64), spans.null_ends[rows].astype(np.float64)
    question = windows.question[rows]
    order = np.lexsort((starts + ends, question))
    least = order[np.searchsorted(question[order], questions)]
    nowhere = np.zeros(len(questions), dtype=np.int64)
    return {
        "question": questions,
        "score": starts[least] + ends[least],
        "start_logit": starts[least],
        "start": nowhere,
        "end": nowhere,
    }


def _no_spans(questions: np.ndarray) -> dict[str, np.ndarray]:
    """The only candidate of questions of v1 without any valid span: nothing, with score 0."""
    nothing = np.zeros(len(questions), dtype=np.int64)
    return {"question": questions, "start": nothing, "end": nothing} | {
        name: np.zeros(len(questions)) for name in ("score", "start_logit")
    }


def _softmax(scores: np.ndarray, borders: np.ndarray) -> np.ndarray:
    """Softmax within each stretch between borders, none of which is empty."""
    sizes = np.diff(borders)
    weights = np.exp(scores - np.repeat(np.maximum.reduceat(scores, borders[:-1]), sizes))
    return weights / np.repeat(np.add.reduceat(weights, borders[:-1]), sizes)

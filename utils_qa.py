"""From logits to spans to answers, in arrays.

A *span* is a pair of tokens of one window. All character offsets are into the question's own context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from adapter_qa.records import write_json
from adapter_qa.squad import Question
from adapter_qa.windows import Windows

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
    pool = {
        "question": windows.question[row],
        "score": spans.scores[row, column],
        "start_logit": spans.start_logits[row, column],
        "start": windows.characters(row, spans.first[row, column])[:, 0],
        "end": windows.characters(row, spans.last[row, column])[:, 1],
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

"""Find the best spans of windows, and merge the spans of a question's windows into its answer.

A *span* is a pair of tokens of one window. Character positions are those of the question's own context.

This module needs numpy only: `answer.py` in every exported folder is written from its source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from adapter_qa.core.errors import RunError
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.answers import Answers
from adapter_qa.data.questions import Question
from adapter_qa.data.windows import Windows

QUESTIONS_PER_BLOCK = 1024  # whose candidates are merged at once; bounds memory
NULL_SCORE_DIFF_WITHOUT_SPAN = 1e6  # of a question without any valid span: above all thresholds, and still valid JSON


def best_spans(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    context_mask: np.ndarray,
    *,
    n_best_size: int,
    max_answer_length: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the best spans of each window among all spans within the context of at most `max_answer_length` tokens.

    A span's score is start logit plus end logit in float32; no pair is pruned. Among equal scores, the span that starts
    first comes first, then the one that ends first. `utils_qa.best_spans` does the same with torch.

    Args:
        start_logits: (windows, length), any float dtype.
        end_logits: (windows, length), any float dtype.
        context_mask: (windows, length) bool.
        n_best_size: spans to return for each window.
        max_answer_length: longest span, in tokens.

    Returns:
        Scores (float32, -inf if a window has fewer spans), first and last tokens (int64), all (windows, n_best_size),
        best first.
    """
    windows, length = start_logits.shape
    width = min(max_answer_length, length)
    start = np.where(context_mask, start_logits.astype(np.float32), np.float32(-np.inf))
    end = np.where(context_mask, end_logits.astype(np.float32), np.float32(-np.inf))
    padded = np.pad(end, ((0, 0), (0, width - 1)), constant_values=-np.inf)
    # ends[w, i, k] is the end logit k tokens after i, a view of the padded logits.
    ends = np.lib.stride_tricks.sliding_window_view(padded, width, axis=1)
    scores = (start[:, :, None] + ends).reshape(windows, -1)
    pairs = np.argsort(-scores, axis=1, kind="stable")[:, :n_best_size]
    top = np.take_along_axis(scores, pairs, axis=1)
    missing = ((0, 0), (0, n_best_size - pairs.shape[1]))
    top, pairs = np.pad(top, missing, constant_values=-np.inf), np.pad(pairs, missing)
    first = pairs // width
    return top, first, first + pairs % width


def log_totals(
    start_logits: np.ndarray, end_logits: np.ndarray, context_mask: np.ndarray, max_answer_length: int
) -> np.ndarray:
    """Return log Σ exp(score) over all spans that `best_spans` can choose; the arguments are those of `best_spans`.

    The end logits that a start can have are summed in a binary decomposition of their number, so that a window takes
    O(length · log(max_answer_length)) additions of positive terms, and none is lost by cancellation.
    `utils_qa.log_totals` does the same with torch.

    Returns:
        (windows,) float32; -inf for a window without a span.
    """
    start = np.where(context_mask, start_logits.astype(np.float64), -np.inf)
    end = np.where(context_mask, end_logits.astype(np.float64), -np.inf)
    largest = [np.nan_to_num(logits.max(1, keepdims=True), neginf=0.0) for logits in (start, end)]
    starts, ends = np.exp(start - largest[0]), np.exp(end - largest[1])
    length, size, done = ends.shape[1], 1, 0
    sums = np.zeros_like(ends)  # of the end logits from each token on, `done` of them
    remaining = min(max_answer_length, length)
    while remaining:
        if remaining & 1:
            sums[:, : length - done] += ends[:, done:]
            done += size
        ends[:, : length - size] += ends[:, size:].copy()  # now the sum of 2 · size of them
        size, remaining = 2 * size, remaining // 2
    with np.errstate(divide="ignore"):
        logs = np.log((starts * sums).sum(1)) + largest[0][:, 0] + largest[1][:, 0]
    totals: np.ndarray = logs.astype(np.float32)
    return totals


class WindowSpans(NamedTuple):
    """The best spans of windows; tokens are counted from each window's own beginning.

    Attributes:
        scores: (windows, n_best) float32, start plus end logit; -inf where there is no span.
        first: (windows, n_best) int, first token.
        last: (windows, n_best) int, last token.
        start_logits: (windows, n_best) float32; the end logit is the score minus this.
        null_starts: (windows,) float32, start logit of the classification token.
        null_ends: (windows,) float32, end logit of the classification token.
        log_totals: (windows,) float32, log Σ exp(score / temperature) over all spans of the window; -inf if it has
            none.
        temperature: divides the scores before probabilities are computed.
    """

    scores: np.ndarray
    first: np.ndarray
    last: np.ndarray
    start_logits: np.ndarray
    null_starts: np.ndarray
    null_ends: np.ndarray
    log_totals: np.ndarray
    temperature: float = 1.0


def check_logits(spans: WindowSpans) -> None:
    """Check that a model that is asked has usable logits. A training checks its losses and weights itself.

    Raises:
        RunError: logits are NaN or infinite.
    """
    if not ((spans.log_totals < np.inf).all() and np.isfinite(spans.null_starts + spans.null_ends).all()):
        raise RunError(
            "the model's logits are NaN or infinite, so it has no answers; train it again, with a lower --learning_rate"
        )


def join_spans(batches: Sequence[WindowSpans], rows: np.ndarray) -> WindowSpans:
    """Return the spans of batches that follow one another, then taken in the order of `rows`, (windows,) int."""
    *fields, temperatures = zip(*batches, strict=True)
    arrays = (np.concatenate(field)[rows] for field in fields)
    return WindowSpans(*arrays)._replace(temperature=temperatures[0])


def window_spans(
    batch: dict[str, np.ndarray], start_logits: np.ndarray, end_logits: np.ndarray, options: AnsweringOptions
) -> WindowSpans:
    """Find the best spans with distinct characters of a batch of `pad_windows` from its logits, (windows, length).

    Of tokens with the same start or end character the best logit counts, and each span has all tokens of its
    characters. Tokens without characters begin and end no span. The temperature divides the logits in `log_totals`
    only; it changes probabilities and no choice.
    """
    longest, temperature = options.max_answer_length, options.temperature
    rows = np.arange(len(start_logits))
    starts, ends = start_logits, end_logits
    if "span_starts" in batch:
        starts = _best_logits(start_logits, rows, batch["span_starts"])
        ends = _best_logits(end_logits, rows, batch["span_ends"])
    scores, first, last = best_spans(
        starts, ends, batch["context_mask"], n_best_size=options.spans_to_keep(), max_answer_length=longest
    )
    return WindowSpans(
        scores,
        first - batch["first_token"][:, None],
        last - batch["first_token"][:, None],
        starts[rows[:, None], first].astype(np.float32),
        start_logits[rows, batch["cls_positions"]].astype(np.float32),
        end_logits[rows, batch["cls_positions"]].astype(np.float32),
        log_totals(starts / temperature, ends / temperature, batch["context_mask"], longest),
        temperature,
    )


def _best_logits(logits: np.ndarray, rows: np.ndarray, borders: np.ndarray) -> np.ndarray:
    """Return the best logit of the tokens that each position stands for, -inf for none; all (windows, length)."""
    best = np.full(logits.shape, -np.inf, dtype=np.float32)
    np.maximum.at(best, (rows[:, None], borders), logits.astype(np.float32))
    return best


class _Candidates(NamedTuple):
    """Candidates of several questions in columns, all (candidates,) int64 or float64; as in `Answers`.

    `mass` is log Σ exp(score / temperature) over the windows that keep the span.
    """

    question: np.ndarray
    start: np.ndarray
    end: np.ndarray
    score: np.ndarray
    start_logit: np.ndarray
    mass: np.ndarray

    def take(self, rows: np.ndarray) -> _Candidates:
        return _Candidates(*(column[rows] for column in self))


def choose_answers(
    questions: Sequence[Question], windows: Windows, spans: WindowSpans, options: AnsweringOptions
) -> Answers:
    """Merge the spans of each question's windows into its n-best list, and choose the answer.

    A span that is in two windows counts once, with its better score. In SQuAD v2 the score of "no answer" is its
    minimum over the question's windows: all of them must see no answer (Devlin et al., BERT, section 4.3, and its
    reference code).

    Args:
        questions: the questions that `windows` was made from.
        windows: all windows of the questions.
        spans: the spans of every window, in the same order.
        options: how many candidates are kept, and whether and from when on there is no answer.
    """
    threshold = options.null_score_diff_threshold if options.version_2 else None
    blocks = []
    for first in range(0, len(questions), QUESTIONS_PER_BLOCK):
        numbers = np.arange(first, min(first + QUESTIONS_PER_BLOCK, len(questions)))
        rows = slice(*np.searchsorted(windows.question_index, [numbers[0], numbers[-1] + 1]))
        candidates = _best_candidates(windows, spans, rows, options.n_best_size)
        if threshold is not None:
            nulls = _null_candidates(numbers, windows, spans, rows, threshold)
        else:
            # An empty answer with score 0, the only candidate of questions without any valid span.
            without_span = np.setdiff1d(numbers, candidates.question)
            nulls = _Candidates(without_span, *[np.zeros_like(without_span)] * 5)
        first_windows = np.searchsorted(windows.question_index[rows], numbers)
        mass = np.logaddexp.reduceat(spans.log_totals[rows].astype(np.float64), first_windows)
        blocks.append(_merge(candidates, nulls, numbers, mass, threshold))
    columns = [list(parts) for parts in zip(*blocks, strict=True)]
    del blocks
    # Column after column, so that only one of them is in memory twice.
    merged = _Merged._make(np.concatenate(columns.pop(0)) for _ in _Merged._fields)
    ends = np.cumsum(merged.sizes)
    return Answers(
        questions,
        offsets=np.append(0, ends),
        start=merged.start,
        end=merged.end,
        scores=merged.scores,
        start_logits=merged.start_logits,
        probabilities=merged.probabilities,
        best=ends - merged.sizes + merged.best,
        selected=ends - merged.sizes + merged.selected,
        null_score_diff=merged.null_score_diff if options.version_2 else None,
    )


def _best_candidates(windows: Windows, spans: WindowSpans, rows: slice, n_best_size: int) -> _Candidates:
    """Return the best distinct spans of each question in a range of windows.

    They are sorted by question, then by score in descending order, then by position in the context.
    """
    row, column = np.nonzero(np.isfinite(spans.scores[rows]))
    row += rows.start
    candidates = _Candidates(
        windows.question_index[row].astype(np.int64),
        windows.char_spans(row, spans.first[row, column])[:, 0].astype(np.int64),
        windows.char_spans(row, spans.last[row, column])[:, 1].astype(np.int64),
        spans.scores[row, column].astype(np.float64),
        spans.start_logits[row, column].astype(np.float64),
        spans.scores[row, column].astype(np.float64) / spans.temperature,
    )
    # One key of question, start and end: sorting by it takes a third of the time of sorting by three keys.
    size = candidates.end.max(initial=0) + 1
    key = (candidates.question * size + candidates.start) * size + candidates.end
    by_key = np.lexsort((-candidates.score, key))
    is_new = np.append(True, np.diff(key[by_key]) != 0)[: len(by_key)]
    first = np.flatnonzero(is_new)
    mass = np.logaddexp.reduceat(candidates.mass[by_key], first) if len(first) else candidates.mass
    distinct = candidates.take(by_key[first])._replace(mass=mass)
    ranked = distinct.take(np.lexsort((-distinct.score, distinct.question)))  # stable: equal scores by position
    rank = np.arange(len(ranked.question)) - np.searchsorted(ranked.question, ranked.question)
    return ranked.take(np.flatnonzero(rank < n_best_size))


def _null_candidates(
    numbers: np.ndarray, windows: Windows, spans: WindowSpans, rows: slice, threshold: float
) -> _Candidates:
    """Return "no answer" for each question, from the one of its windows where its score is lowest."""
    starts, ends = spans.null_starts[rows].astype(np.float64), spans.null_ends[rows].astype(np.float64)
    question = windows.question_index[rows]
    order = np.lexsort((starts + ends, question))
    lowest = order[np.searchsorted(question[order], numbers)]
    zeros = np.zeros(len(numbers), dtype=np.int64)
    scores = starts[lowest] + ends[lowest]
    return _Candidates(numbers, zeros, zeros, scores, starts[lowest], (scores - threshold) / spans.temperature)


class _Merged(NamedTuple):
    """The n-best lists of consecutive questions.

    `sizes` is the number of candidates of each question, `best` and `selected` are ranks in its list; the others are
    columns of `Answers`.
    """

    sizes: np.ndarray
    start: np.ndarray
    end: np.ndarray
    scores: np.ndarray
    start_logits: np.ndarray
    probabilities: np.ndarray
    best: np.ndarray
    selected: np.ndarray
    null_score_diff: np.ndarray


def _merge(
    candidates: _Candidates, nulls: _Candidates, numbers: np.ndarray, span_mass: np.ndarray, threshold: float | None
) -> _Merged:
    """Merge spans and "no answer" into the n-best lists of consecutive questions, and choose their answers.

    Args:
        candidates: spans of the questions.
        nulls: "no answer" as a candidate.
        numbers: (questions,) int64, indices of the questions.
        span_mass: (questions,) float64, log Σ exp(score / temperature) over all spans of all windows; -inf without any.
        threshold: of the score difference; None for SQuAD v1.
    """
    both = _Candidates(*(np.concatenate(columns) for columns in zip(candidates, nulls, strict=True)))
    both = both.take(np.lexsort((both.end == 0, -both.score, both.question)))  # of equal scores, spans come first
    offsets = np.searchsorted(both.question, np.append(numbers, numbers[-1] + 1))
    starts = offsets[:-1]
    # The first row that is a span; if there is none, "no answer", the only row.
    rows, is_span = np.arange(len(both.end)), both.end > 0
    mass = span_mass.copy()  # of spans and no answer
    null_rows = nulls.question - numbers[0]
    with np.errstate(invalid="ignore"):  # NaN logits have NaN probabilities
        mass[null_rows] = np.logaddexp(mass[null_rows], nulls.mass)
    first_span = np.minimum.reduceat(np.where(is_span, rows, len(rows)), starts)
    best = np.where(first_span < len(rows), first_span, starts)
    selected, null_score_diff = best, np.zeros(len(numbers))
    if threshold is not None:
        null_row = np.flatnonzero(~is_span)
        difference = both.score[null_row] - both.score[best]
        null_score_diff = np.where(is_span[best], difference, NULL_SCORE_DIFF_WITHOUT_SPAN)
        selected = np.where(null_score_diff > threshold, null_row, best)
    sizes = np.diff(offsets)
    return _Merged(
        sizes,
        start=both.start.astype(np.int32),
        end=both.end.astype(np.int32),
        scores=both.score.astype(np.float32),
        start_logits=both.start_logit.astype(np.float32),
        probabilities=np.exp(np.minimum(both.mass - np.repeat(mass, sizes), 0.0)).astype(np.float32),
        best=best - starts,
        selected=selected - starts,
        null_score_diff=null_score_diff,
    )

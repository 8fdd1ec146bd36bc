"""Spans and answers by brute force: plain loops over all pairs of tokens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from support.questions import window_offsets

from adapter_qa.data.windows import Windows


def all_spans(
    start: Sequence[float], end: Sequence[float], mask: Sequence[bool], longest: int
) -> list[tuple[float, int, int]]:
    """Return score, first and last token of every valid span, best first, equal scores by position."""
    spans = [
        (start[i] + end[j], i, j)
        for i, j in itertools.product(range(len(start)), repeat=2)
        if mask[i] and mask[j] and 0 <= j - i < longest
    ]
    return sorted(spans, key=lambda span: (-span[0], span[1], span[2]))


def best_scores(
    question: int, windows: Windows, start: np.ndarray, end: np.ndarray, longest: int
) -> dict[tuple[int, int], float]:
    """Return the best score of every distinct span of a question over all its windows, by its characters.

    A span begins at a character where tokens begin, and ends at one where tokens end; the best logits of these count.
    It is valid if all of these tokens are among `longest` tokens.

    Args:
        question: index of the question.
        windows: the windows.
        start: (windows, length) float32, start logits.
        end: (windows, length) float32, end logits.
        longest: longest span, in tokens.
    """
    best: dict[tuple[int, int], float] = {}
    for scores in scores_of_windows(question, windows, start, end, longest):
        for characters, score in scores.items():
            best[characters] = max(score, best.get(characters, -np.inf))
    return best


def probabilities(
    scores: Sequence[dict[tuple[int, int], float]], n_best: int, null: float = -np.inf
) -> dict[tuple[int, int], float]:
    """Return the softmax over all spans of all windows and no answer with score `null`, by the spans' characters.

    A span in several windows gets the sum over those where it is among the `n_best` best; `scores` has one dictionary
    for each window, as of `scores_of_windows`.
    """
    total = math.fsum(math.exp(score) for window in scores for score in window.values()) + math.exp(null)
    shares: dict[tuple[int, int], float] = {}
    for window in scores:
        for characters, score in sorted(window.items(), key=lambda item: -item[1])[:n_best]:
            shares[characters] = shares.get(characters, 0.0) + math.exp(score) / total
    return shares


def scores_of_windows(
    question: int, windows: Windows, start: np.ndarray, end: np.ndarray, longest: int
) -> list[dict[tuple[int, int], float]]:
    """Return the score of every span of each window of a question; arguments as of `best_scores`."""
    scores = []
    for index in np.flatnonzero(windows.question_index == question):
        window: dict[tuple[int, int], float] = {}
        begins: dict[int, list[int]] = {}
        ends: dict[int, list[int]] = {}
        for token, (first, last) in enumerate(window_offsets(windows, int(index)).tolist()):
            if last > first:
                begins.setdefault(first, []).append(token)
                ends.setdefault(last, []).append(token)
        for (first, first_tokens), (last, last_tokens) in itertools.product(begins.items(), ends.items()):
            if last > first and max(last_tokens) - min(first_tokens) < longest:
                window[first, last] = float(max(start[index][first_tokens]) + max(end[index][last_tokens]))
        scores.append(window)
    return scores

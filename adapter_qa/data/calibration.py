"""Fit temperature and threshold to questions that are set aside, and measure how far probabilities can be trusted.

The threshold is fitted first, with undivided scores, for the best F1. In the softmax it is taken off the score of no
answer, which would otherwise be improbable where it is chosen: it is one of many candidates, and the spans share the
rest. Then the temperature, which divides all scores before the softmax (Guo et al., 2017, arXiv 1706.04599), is fitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from adapter_qa.data.questions import Question, is_aligned
from adapter_qa.data.spans import Answers, WindowSpans, log_totals
from adapter_qa.data.squad_metrics import question_scores
from adapter_qa.data.windows import Windows, tokens_of_chars

BINS = 10  # of a reliability curve, with about equally many questions
WINDOWS_PER_BLOCK = 1024  # whose spans are summed at once; bounds memory
TOLERANCE = 1e-4  # of the logarithm of the temperature
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class GoldLikelihood:
    """The likelihood of the gold answers at any temperature.

    Attributes:
        logits: (windows, 2, length) float32, of the tokens that begin and end spans, from each window's first token
            on; -inf elsewhere.
        max_answer_length: tokens of the longest span.
        owners: (windows,) int, index of each window's question, in order.
        nulls: (questions,) float64, score of no answer minus the threshold; None for SQuAD v1.
        gold_owners: (golds,) int, index of the question of each gold span in each window that contains it.
        gold_scores: (golds,) float64, their scores.
    """

    logits: np.ndarray
    max_answer_length: int
    owners: np.ndarray
    nulls: np.ndarray | None
    gold_owners: np.ndarray
    gold_scores: np.ndarray

    def window_totals(self, temperature: float) -> np.ndarray:
        """Return `WindowSpans.log_totals` of the windows, (windows,) float32."""
        blocks = []
        for first in range(0, len(self.logits), WINDOWS_PER_BLOCK):
            starts, ends = self.logits[first : first + WINDOWS_PER_BLOCK].swapaxes(0, 1)
            mask = np.isfinite(starts) | np.isfinite(ends)
            blocks.append(log_totals(starts / temperature, ends / temperature, mask, self.max_answer_length))
        return np.concatenate(blocks)

    def losses(self, temperature: float) -> np.ndarray:
        """Return the negative log likelihood of each question whose gold answer is a span or no answer, in nats.

        It is the sum of the probabilities of all gold spans. A gold answer that is in no window, or too long, is no
        span.
        """
        questions = int(self.owners[-1]) + 1
        totals = self.window_totals(temperature).astype(np.float64)
        mass = np.logaddexp.reduceat(totals, np.searchsorted(self.owners, np.arange(questions)))
        gold = np.full(questions, -np.inf)
        np.logaddexp.at(gold, self.gold_owners, self.gold_scores / temperature)
        if self.nulls is not None:
            mass = np.logaddexp(mass, self.nulls / temperature)
        known = np.isfinite(gold)
        losses: np.ndarray = (mass - gold)[known]
        return losses

    def loss(self, temperature: float) -> float:
        """Return the mean of `losses`."""
        return float(self.losses(temperature).mean())


def gold_likelihood(
    questions: Sequence[Question],
    windows: Windows,
    spans: WindowSpans,
    logits: np.ndarray,
    *,
    max_answer_length: int,
    threshold: float | None,
) -> GoldLikelihood:
    """Find the scores of the gold answers of questions.

    Args:
        questions: those that `windows` was made from.
        windows: all windows of the questions.
        spans: of every window.
        logits: as in `GoldLikelihood`.
        max_answer_length: tokens of the longest span.
        threshold: what is taken off the score of no answer, which is right for questions without a gold answer; None
            for SQuAD v1.
    """
    owners = windows.question_index
    firsts = np.searchsorted(owners, np.arange(len(questions) + 1))
    gold_owners: list[int] = []
    gold_scores: list[float] = []
    for index, (start, end) in _gold_chars(questions, windows, firsts):
        for row in range(firsts[index], firsts[index + 1]):
            score = _span_score(windows, row, logits[row], (start, end), max_answer_length)
            if score is not None:
                gold_owners.append(index)
                gold_scores.append(score)
    nulls = None
    if threshold is not None:
        nulls = np.minimum.reduceat(spans.null_starts.astype(np.float64) + spans.null_ends, firsts[:-1]) - threshold
        without = [index for index, question in enumerate(questions) if not question.answer_texts]
        gold_owners += without
        gold_scores += nulls[without].tolist()
    return GoldLikelihood(
        logits, max_answer_length, owners, nulls, np.array(gold_owners, np.int64), np.array(gold_scores, np.float64)
    )


def _gold_chars(
    questions: Sequence[Question], windows: Windows, firsts: np.ndarray
) -> list[tuple[int, tuple[int, int]]]:
    """Return index of the question, first character and end of each distinct gold span, in whole tokens."""
    golds = [
        (index, start, start + len(text))
        for index, question in enumerate(questions)
        for number, (text, start) in enumerate(zip(question.answer_texts, question.answer_starts, strict=True))
        if is_aligned(question, number)
    ]
    if not golds:
        return []
    owners, starts, ends = np.array(golds).T
    texts = windows.context_text[firsts[owners]]
    first, last = tokens_of_chars(windows.texts, texts, starts, ends)
    chars = windows.texts.char_spans
    return sorted(
        {
            (int(owner), (int(chars[begin, 0]), int(chars[end, 1])))
            for owner, begin, end in zip(owners, first, last, strict=True)
            if begin >= 0
        }
    )


def _span_score(
    windows: Windows, row: int, logits: np.ndarray, chars: tuple[int, int], max_answer_length: int
) -> float | None:
    """Return the score of a span of characters in a window, None if it is none of the window's spans."""
    shift = int(windows.token_shifts(np.array([row]))[0])
    positions = np.flatnonzero(np.isfinite(logits).any(0))
    spans = windows.texts.char_spans[positions + shift]
    first = positions[(spans[:, 0] == chars[0]) & np.isfinite(logits[0, positions])]
    last = positions[(spans[:, 1] == chars[1]) & np.isfinite(logits[1, positions])]
    if len(first) == 0 or len(last) == 0 or not 0 <= last[0] - first[0] < max_answer_length:
        return None
    return float(logits[0, first[0]]) + float(logits[1, last[0]])


class FittedTemperature(NamedTuple):
    """A temperature, the questions that it was fitted to, and their mean negative log likelihood in nats.

    Attributes:
        value: the temperature.
        questions: those whose gold answer is a span or no answer.
        loss: at this temperature.
    """

    value: float
    questions: int
    loss: float


def fit_temperature(likelihood: GoldLikelihood, limits: tuple[float, float]) -> FittedTemperature:
    """Return the temperature with the smallest loss, between two limits.

    Raises:
        ValueError: if no question has a gold answer that is a span or no answer.
    """
    questions = len(likelihood.losses(1.0))
    if not questions:
        raise ValueError("no gold answer is a span")
    value = math.exp(_minimum(lambda log: likelihood.loss(math.exp(log)), math.log(limits[0]), math.log(limits[1])))
    return FittedTemperature(value, questions, likelihood.loss(value))


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function of the logarithm of the temperature is smallest, by golden section search.

    The loss of one gold span is convex in 1 / temperature, so that it has one minimum.
    """
    points = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)]
    values = [function(point) for point in points]
    while high - low > TOLERANCE:
        if values[0] <= values[1]:
            high = points[1]
            points = [high - GOLDEN * (high - low), points[0]]
            values = [function(points[0]), values[0]]
        else:
            low = points[0]
            points = [points[1], low + GOLDEN * (high - low)]
            values = [values[1], function(points[1])]
    return (low + high) / 2


class FittedThreshold(NamedTuple):
    """A threshold of `Answers.null_score_diff`, and the F1 of the questions that it was fitted to, in percent."""

    value: float
    f1: float


def fit_threshold(questions: Sequence[Question], answers: Answers) -> FittedThreshold:
    """Return the threshold with the best F1 as SQuAD v2.0 defines it; of equally good ones the smallest.

    It lies halfway between the odds of the last question that is answered and of the next one. If all questions are to
    be answered it is not below 0, if none is, not above 0: further questions have higher and lower odds than these.
    Unlike for `best_f1_thresh`, questions with equal odds are answered together.

    Raises:
        ValueError: if the answers are not those of SQuAD v2.
    """
    if answers.null_score_diff is None:
        raise ValueError("SQuAD v1 has no odds of no answer")
    texts = answers.span_texts()
    f1 = [score for _, score in question_scores(texts, questions, version_2=True)]
    unanswered = np.array([not question.answer_texts for question in questions])
    order = np.argsort(answers.null_score_diff, kind="stable")
    odds = answers.null_score_diff[order].astype(np.float64)
    totals = unanswered.sum() + np.append(0, np.cumsum(np.array(f1)[order] - unanswered[order]))
    last_of_equal = np.append(True, np.append(odds[1:] != odds[:-1], True))
    count = int(np.argmax(np.where(last_of_equal, totals, -np.inf)))  # of answered questions
    if count == 0:
        value = min(0.0, np.nextafter(odds[0], -np.inf))
    elif count == len(odds):
        value = max(0.0, odds[-1])
    else:
        value = (odds[count - 1] + odds[count]) / 2
    return FittedThreshold(float(value), 100 * float(totals[count]) / len(questions))


@dataclass(frozen=True)
class Calibration:
    """What was fitted to the questions that are set aside.

    Attributes:
        temperature: fitted with the threshold.
        threshold: None for SQuAD v1.
        loss_before: mean negative log likelihood in nats with temperature 1 and threshold 0.
    """

    temperature: FittedTemperature
    threshold: FittedThreshold | None
    loss_before: float


class Confidence(NamedTuple):
    """The probability of each answer and whether it is an exact match, both (questions,) float64."""

    probability: np.ndarray
    correct: np.ndarray

    def brier(self) -> float:
        """Return the mean squared difference, 0 to 1."""
        return float(np.mean((self.probability - self.correct) ** 2))

    def reliability(self) -> list[ReliabilityBin]:
        """Return the bins of the reliability curve: `BINS` with about equally many questions, in order."""
        order = np.argsort(self.probability, kind="stable")
        return [
            ReliabilityBin(float(self.probability[rows].mean()), float(self.correct[rows].mean()), len(rows))
            for rows in np.array_split(order, BINS)
            if len(rows)
        ]


class Trust(NamedTuple):
    """How far probabilities and odds can be trusted.

    Attributes:
        metrics: `ece` and `brier`, 0 to 1; for SQuAD v2 `pr_exact_ap` and `pr_f1_ap` in percent.
        curves: for JSON, what the figures come from.
    """

    metrics: dict[str, float]
    curves: dict[str, Any]


def measure_trust(questions: Sequence[Question], answers: Answers, *, version_2: bool) -> Trust:
    """Measure the trust in answers to questions whose gold answers are known."""
    sureness = confidence(questions, answers, version_2=version_2)
    bins = sureness.reliability()
    metrics = {"ece": expected_calibration_error(bins), "brier": sureness.brier()}
    curves: dict[str, Any] = {"reliability": [part._asdict() for part in bins]}
    if version_2 and any(question.answer_texts for question in questions):
        scores = question_scores(answers.span_texts(), questions, version_2=True)
        for index, name in enumerate(("exact", "f1")):
            curve = answering_curve(questions, answers, [pair[index] for pair in scores])
            metrics[f"pr_{name}_ap"] = 100 * curve.average_precision
            curves[f"precision_recall_{name}"] = curve._asdict()
    return Trust(metrics, curves)


class ReliabilityBin(NamedTuple):
    """Mean probability, share of exact matches and number of questions of a bin."""

    probability: float
    correct: float
    questions: int


def confidence(questions: Sequence[Question], answers: Answers, *, version_2: bool) -> Confidence:
    """Return how sure the answers are, no answer among them, and which are right."""
    scores = question_scores(answers.texts(), questions, version_2=version_2)
    correct = np.array([exact for exact, _ in scores])
    return Confidence(answers.probabilities[answers.selected].astype(np.float64), correct)


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the mean difference between probability and share of exact matches of the bins, by their questions."""
    total = sum(part.questions for part in bins)
    return sum(part.questions * abs(part.probability - part.correct) for part in bins) / total


class AnsweringCurve(NamedTuple):
    """Precision and recall if only the questions with the lowest odds of no answer are answered, 0 to 1.

    Attributes:
        odds: the highest odds that are answered, one for each point.
        precision: sum of the scores of the answers, divided by their number.
        recall: the same sum, divided by the number of questions with a gold answer.
        average_precision: mean precision, weighted by the increase of recall.
    """

    odds: list[float]
    precision: list[float]
    recall: list[float]
    average_precision: float


def answering_curve(questions: Sequence[Question], answers: Answers, scores: Sequence[float]) -> AnsweringCurve:
    """Return the curve that evaluate-v2.0.py computes (`make_precision_recall_eval`).

    Args:
        questions: at least one with a gold answer.
        answers: of SQuAD v2.
        scores: exact match or F1 of the best span of each question, 0 to 1.

    Raises:
        ValueError: if the answers are not those of SQuAD v2.
    """
    if answers.null_score_diff is None:
        raise ValueError("SQuAD v1 has no odds of no answer")
    answerable = np.array([bool(question.answer_texts) for question in questions])
    order = np.argsort(answers.null_score_diff, kind="stable")
    odds = answers.null_score_diff[order]
    sums = np.cumsum(np.where(answerable, scores, 0.0)[order])
    last_of_equal = np.flatnonzero(np.append(odds[1:] != odds[:-1], True))
    precision = sums[last_of_equal] / (last_of_equal + 1)
    recall = sums[last_of_equal] / answerable.sum()
    average = float((precision * np.diff(recall, prepend=0.0)).sum())
    return AnsweringCurve(odds[last_of_equal].tolist(), precision.tolist(), recall.tolist(), average)

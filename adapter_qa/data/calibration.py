"""Fit temperature and threshold to questions that are set aside, and measure how far probabilities can be trusted.

The threshold is fitted first, with undivided scores, for the best F1. In the softmax it is taken off the score of no
answer, which would otherwise be improbable where it is chosen: it is one of many candidates, and the spans share the
rest. Then the temperature, which divides all scores before the softmax (Guo et al., 2017, arXiv 1706.04599), is fitted,
so that the probability of the chosen answer tells how likely it is an exact match.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from adapter_qa.data.answers import Answers
from adapter_qa.data.questions import Question
from adapter_qa.data.spans import WindowSpans, log_totals
from adapter_qa.data.squad_metrics import by_measure, question_scores

BINS = 10  # of a reliability curve, with about equally many questions
WINDOWS_PER_BLOCK = 1024  # whose spans are summed at once; bounds memory
EPS = 1e-12  # a smaller probability counts as this one
GRID = 16  # temperatures
TOLERANCE = 1e-4  # of the logarithm of the temperature
GOLDEN = (math.sqrt(5) - 1) / 2


def at_temperature(
    spans: WindowSpans, logits: np.ndarray, temperature: float, *, max_answer_length: int
) -> WindowSpans:
    """Return spans with the probabilities of another temperature.

    Args:
        spans: of all windows.
        logits: (windows, 2, length) float32, of the tokens that begin and end spans, from each window's first token
            on; -inf elsewhere.
        temperature: divides the scores.
        max_answer_length: tokens of the longest span.
    """
    totals = []
    for first in range(0, len(logits), WINDOWS_PER_BLOCK):
        starts, ends = logits[first : first + WINDOWS_PER_BLOCK].swapaxes(0, 1)
        mask = np.isfinite(starts) | np.isfinite(ends)
        totals.append(log_totals(starts / temperature, ends / temperature, mask, max_answer_length))
    return spans._replace(log_totals=np.concatenate(totals), temperature=temperature)


class FittedTemperature(NamedTuple):
    """A temperature, and the log loss (`Confidence.log_loss`) with it and with 1."""

    value: float
    loss: float
    loss_before: float


def fit_temperature(loss: Callable[[float], float], limits: tuple[float, float]) -> FittedTemperature:
    """Return the temperature of the smallest loss, between two limits.

    The best of `GRID` temperatures and its neighbours bound a golden section search.

    Args:
        loss: of a temperature.
        limits: the lowest and the highest temperature.
    """
    logs = np.linspace(math.log(limits[0]), math.log(limits[1]), GRID)
    best = int(np.argmin([loss(math.exp(log)) for log in logs]))
    low, high = float(logs[max(best - 1, 0)]), float(logs[min(best + 1, GRID - 1)])
    value = math.exp(_minimum(lambda log: loss(math.exp(log)), low, high))
    return FittedTemperature(value, loss(value), loss(1.0))


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with one minimum between two numbers is smallest, by golden section search."""
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
    Unlike for `best_f1_thresh`, questions with equal odds are answered together, and no answer counts as in the
    evaluation: it is right, too, if no gold answer has a word.

    Raises:
        ValueError: if the answers are not those of SQuAD v2.
    """
    if answers.null_score_diff is None:
        raise ValueError("SQuAD v1 has no odds of no answer")
    texts = answers.span_texts()
    f1 = np.array([score.f1 for score in question_scores(texts, questions, version_2=True)])
    empty = dict.fromkeys(texts, "")
    unanswered_f1 = np.array([score.f1 for score in question_scores(empty, questions, version_2=True)])
    order = np.argsort(answers.null_score_diff, kind="stable")
    odds = answers.null_score_diff[order].astype(np.float64)
    totals = unanswered_f1.sum() + np.append(0, np.cumsum((f1 - unanswered_f1)[order]))
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
    """

    temperature: FittedTemperature
    threshold: FittedThreshold | None


class Confidence(NamedTuple):
    """The probability of each answer and whether it is an exact match, both (questions,) float64."""

    probability: np.ndarray
    correct: np.ndarray

    def brier(self) -> float:
        """Return the mean squared difference, 0 to 1."""
        return float(np.mean((self.probability - self.correct) ** 2))

    def log_loss(self) -> float:
        """Return the mean negative log likelihood of right and wrong, in nats."""
        likelihood = np.where(self.correct == 1, self.probability, 1 - self.probability)
        return float(-np.log(np.clip(likelihood, EPS, None)).mean())

    def reliability(self) -> list[ReliabilityBin]:
        """Return the bins of the reliability curve: `BINS` with about equally many questions, in order."""
        order = np.argsort(self.probability, kind="stable")
        return [
            ReliabilityBin(float(self.probability[rows].mean()), float(self.correct[rows].mean()), len(rows))
            for rows in np.array_split(order, BINS)
            if len(rows)
        ]


class CalibrationQuality(NamedTuple):
    """How far probabilities and odds can be trusted.

    Attributes:
        metrics: `ece` and `brier`, 0 to 1, and `log_loss` in nats; for SQuAD v2 `pr_exact_ap` and `pr_f1_ap` in
            percent.
        curves: what the figures come from.
    """

    metrics: dict[str, float]
    curves: CalibrationCurves


def measure_calibration(questions: Sequence[Question], answers: Answers, *, version_2: bool) -> CalibrationQuality:
    """Measure the calibration of answers to questions whose gold answers are known."""
    sureness = confidence(questions, answers, version_2=version_2)
    bins = sureness.reliability()
    metrics = {
        "ece": expected_calibration_error(bins),
        "brier": sureness.brier(),
        "log_loss": sureness.log_loss(),
    }
    if not (version_2 and any(question.answer_texts for question in questions)):
        return CalibrationQuality(metrics, CalibrationCurves(bins))
    scores = by_measure(question_scores(answers.span_texts(), questions, version_2=True))
    exact, f1 = (answering_curve(questions, answers, values) for values in scores.values())
    metrics |= {"pr_exact_ap": 100 * exact.average_precision, "pr_f1_ap": 100 * f1.average_precision}
    return CalibrationQuality(metrics, CalibrationCurves(bins, exact, f1))


class ReliabilityBin(msgspec.Struct, frozen=True):
    """Mean probability, share of exact matches and number of questions of a bin."""

    probability: float
    correct: float
    questions: int


def confidence(questions: Sequence[Question], answers: Answers, *, version_2: bool) -> Confidence:
    """Return how sure the answers are, no answer among them, and which are right."""
    scores = question_scores(answers.texts(), questions, version_2=version_2)
    correct = np.array([score.exact for score in scores])
    return Confidence(answers.probabilities[answers.selected].astype(np.float64), correct)


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the mean difference between probability and share of exact matches of the bins, by their questions."""
    total = sum(part.questions for part in bins)
    return sum(part.questions * abs(part.probability - part.correct) for part in bins) / total


class AnsweringCurve(msgspec.Struct, frozen=True):
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


class CalibrationCurves(msgspec.Struct, omit_defaults=True):
    """The content of <split>_curves.json.

    Attributes:
        precision_recall_exact: of SQuAD v2, as `precision_recall_f1`.
        uncalibrated: of calibrated runs, the reliability without the calibration.
    """

    reliability: list[ReliabilityBin]
    precision_recall_exact: AnsweringCurve | None = None
    precision_recall_f1: AnsweringCurve | None = None
    uncalibrated: CalibrationCurves | None = None


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

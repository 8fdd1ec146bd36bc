"""Calibration against plain loops over all spans, scipy's minimum and scikit-learn's curves."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from reference.span_search import scores_of_windows
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss
from support.questions import make_questions
from transformers import AutoTokenizer

import utils_qa
from adapter_qa.config.options import MAX_TEMPERATURE, MIN_TEMPERATURE
from adapter_qa.data import calibration
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.answers import Answers
from adapter_qa.data.calibration import (
    BINS,
    Confidence,
    answering_curve,
    at_temperature,
    confidence,
    expected_calibration_error,
    fit_temperature,
    fit_threshold,
    measure_calibration,
)
from adapter_qa.data.questions import Question
from adapter_qa.data.spans import choose_answers
from adapter_qa.data.squad_metrics import question_scores, squad_metrics
from adapter_qa.data.window_dataset import pair_tokenizer
from adapter_qa.data.windows import Windows, make_windows, pad_windows
from utils_qa import kept_logits

LONGEST = 6  # tokens of an answer
LIMITS = (MIN_TEMPERATURE, MAX_TEMPERATURE)


class Case:
    """Questions with random logits.

    Attributes:
        questions: with one gold answer, with two, with one that is too long, and without.
        start: (windows, longest window) float32, start logits.
        end: the same, of ends.
    """

    def __init__(self, base: Path, *, left: bool = False, version_2: bool = True, count: int = 12):
        self.questions = made_questions(count, version_2=version_2)
        tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left" if left else "right")
        self.windows: Windows = make_windows(
            self.questions, pair_tokenizer(tokenizer), max_seq_length=40, doc_stride=14
        )
        draw = np.random.default_rng(count)
        rows = [self.windows[index] for index in range(len(self.windows))]
        self.batch = {name: torch.from_numpy(array) for name, array in pad_windows(rows, 0, pad_left=left).items()}
        self.start, self.end = 2 * draw.normal(size=(2, *self.batch["input_ids"].shape)).astype(np.float32)
        self.version_2 = version_2
        self.left = left

    def options(self, temperature: float = 1.0, threshold: float = 0.0) -> AnsweringOptions:
        return AnsweringOptions(40, 14, 2000, LONGEST, self.version_2, threshold, temperature)

    def answers(self, temperature: float = 1.0, threshold: float = 0.0) -> Answers:
        options = self.options(temperature, threshold)
        logits = torch.from_numpy(self.start), torch.from_numpy(self.end)
        collector = utils_qa.SpanCollector(np.arange(len(self.windows)), 240, temperature=temperature)
        collector.add_batch(utils_qa.window_spans(self.batch, *logits, options))
        return choose_answers(self.questions, self.windows, collector.spans, options)

    def at(self, temperature: float, threshold: float = 0.0) -> Answers:
        """Return answers whose probabilities are recomputed from kept logits of spans found at temperature 1."""
        logits = torch.from_numpy(self.start), torch.from_numpy(self.end)
        length = int(self.windows.lengths().max())
        collector = utils_qa.SpanCollector(np.arange(len(self.windows)), 240, logit_length=length)
        spans = utils_qa.window_spans(self.batch, *logits, self.options())
        collector.add_batch(spans, kept_logits(self.batch, *logits, length))
        assert collector.logits is not None
        kept = at_temperature(collector.spans, collector.logits.numpy(), temperature, max_answer_length=LONGEST)
        return choose_answers(self.questions, self.windows, kept, self.options(temperature, threshold))

    def probabilities(self, temperature: float, threshold: float) -> list[dict[tuple[int, int], float]]:
        """Return the probability of each candidate of each question by its characters, by loops over all spans."""
        rows, shifts = len(self.windows), self.batch["first_token"].numpy()
        start, end = (
            np.array([np.roll(logits[row], -shifts[row]) for row in range(rows)]) for logits in (self.start, self.end)
        )
        found = []
        for number in range(len(self.questions)):
            masses: dict[tuple[int, int], float] = {}
            for window in scores_of_windows(number, self.windows, start, end, LONGEST):
                for chars, score in window.items():
                    masses[chars] = masses.get(chars, 0.0) + math.exp(score / temperature)
            if self.version_2:
                of_question = np.flatnonzero(self.windows.question_index == number)
                null = min(start[row][0] + end[row][0] for row in of_question) - threshold
                masses[0, 0] = math.exp(null / temperature)
            found.append({chars: mass / math.fsum(masses.values()) for chars, mass in masses.items()})
        return found


def made_questions(count: int, *, version_2: bool) -> list[Question]:
    questions = make_questions(count, 3, sentences=7)
    for index, question in enumerate(questions):
        name = question.question.removeprefix("Onde nasceu ").rstrip("?")
        text, start = question.answer_texts[0], question.answer_starts[0]
        if index % 4 == 1:  # two different gold answers, one of them twice
            golds = (text, name, text), (start, question.context.index(name), start)
            questions[index] = replace(question, answer_texts=golds[0], answer_starts=golds[1])
        elif index % 4 == 2 and version_2:
            questions[index] = replace(question, answer_texts=(), answer_starts=())
        elif index % 4 == 3:  # too long for a span
            questions[index] = replace(question, answer_texts=(question.context[:90],), answer_starts=(0,))
    return questions


@pytest.mark.parametrize("version_2", [True, False])
@pytest.mark.parametrize(("base", "left"), [("tiny_bert", False), ("tiny_bert", True), ("tiny_roberta", False)])
def test_probabilities_at_another_temperature_equal_loops_over_all_spans(
    base: str, left: bool, version_2: bool, request: pytest.FixtureRequest
) -> None:
    case = Case(request.getfixturevalue(base), left=left, version_2=version_2)
    assert len(case.windows) > 2 * len(case.questions)
    for temperature, threshold in ((0.3, 0.0), (1.0, -2.0), (2.7, 1.0)):
        expected = case.probabilities(temperature, threshold)
        for answers in (case.at(temperature, threshold), case.answers(temperature, threshold)):
            n_best = list(answers.n_best.values())
            got = [{(entry.start, entry.end): entry.probability for entry in entries} for entries in n_best]
            for mine, theirs in zip(got, expected, strict=True):
                assert mine == pytest.approx(theirs, abs=1e-5)


def half_right(case: Case) -> list[Question]:
    """Return the questions of a case with changed gold answers: about half of the best spans are right."""
    texts = case.answers().span_texts().values()
    return [
        replace(question, answer_texts=(text,)) if index % 4 == 0 or index % 8 == 1 else question
        for index, (question, text) in enumerate(zip(case.questions, texts, strict=True))
    ]


@pytest.mark.parametrize(("factor", "version_2"), [(0.5, True), (2.0, False)])
def test_temperature_is_the_minimum_that_scipy_finds(tiny_bert: Path, factor: float, version_2: bool) -> None:
    case = Case(tiny_bert, count=40, version_2=version_2)
    case.start *= factor
    case.end *= factor
    case.questions = half_right(case)

    def loss(temperature: float) -> float:
        return confidence(case.questions, case.at(temperature), version_2=version_2).log_loss()

    bounds = (math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    expected = min(  # from several beginnings
        (
            minimize_scalar(lambda log: loss(math.exp(log)), bounds=part, method="bounded", options={"xatol": 1e-6})
            for part in ((bounds[0], 0.0), (-1.0, 1.0), (0.0, bounds[1]))
        ),
        key=lambda result: result.fun,
    )
    fitted = fit_temperature(loss, LIMITS)
    assert fitted.loss == pytest.approx(expected.fun, abs=1e-5)
    assert fitted.value == pytest.approx(math.exp(expected.x), rel=2e-2)
    assert fitted.loss < fitted.loss_before == loss(1.0)


@pytest.mark.parametrize(
    "best", [MIN_TEMPERATURE, MIN_TEMPERATURE * 1.01, 0.8, 3.0, MAX_TEMPERATURE / 1.01, MAX_TEMPERATURE]
)
def test_the_minimum_can_be_anywhere_between_the_limits(best: float) -> None:
    fitted = fit_temperature(lambda temperature: math.log(temperature / best) ** 2, LIMITS)
    assert fitted.value == pytest.approx(best, rel=1e-4)
    assert fitted.loss == pytest.approx(0, abs=1e-8)
    assert fitted.loss_before == math.log(1 / best) ** 2


def test_the_number_of_windows_in_memory_changes_no_probability(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tiny_bert, count=4)
    expected = case.at(1.5)
    monkeypatch.setattr(calibration, "WINDOWS_PER_BLOCK", 7)
    assert len(case.windows) % 7
    assert np.array_equal(case.at(1.5).probabilities, expected.probabilities)


def test_temperature_changes_probabilities_and_no_choice(tiny_bert: Path) -> None:
    case = Case(tiny_bert)
    plain, calibrated = case.answers(), case.answers(temperature=2.0)
    assert calibrated.texts() == plain.texts()
    assert calibrated.null_odds == plain.null_odds
    assert np.array_equal(calibrated.scores, plain.scores)
    assert not np.allclose(calibrated.probabilities, plain.probabilities, atol=1e-2)


def test_the_answer_is_the_more_probable_of_the_best_span_and_no_answer(tiny_bert: Path) -> None:
    case = Case(tiny_bert)
    odds = sorted(case.answers().null_odds.values())
    answers = case.answers(temperature=1.7, threshold=odds[len(odds) // 2] + 0.01)
    for answer in answers.plain():
        assert answer.no_answer is not None
        best = max(candidate.probability for candidate in answer.n_best if candidate.end)
        assert (answer.text == "") == (answer.no_answer > best)


def with_odds(case: Case, odds: list[float]) -> Answers:
    return replace(case.answers(), null_score_diff=np.array(odds))


def f1_at(case: Case, odds: list[float], threshold: float) -> float:
    texts = case.answers().span_texts()
    chosen = {
        question.id: "" if odd > threshold else texts[question.id]
        for question, odd in zip(case.questions, odds, strict=True)
    }
    return squad_metrics(chosen, case.questions, version_2=True)["f1"]


@pytest.mark.parametrize("seed", range(8))
def test_threshold_has_the_best_f1_of_all(tiny_bert: Path, seed: int) -> None:
    case = Case(tiny_bert, count=16)
    case.questions = half_right(case)
    odds = np.random.default_rng(seed).integers(-4, 5, len(case.questions)).astype(float).tolist()  # some are equal
    fitted = fit_threshold(case.questions, with_odds(case, odds))
    best = max(f1_at(case, odds, threshold) for threshold in [-9.0, *odds])
    assert f1_at(case, odds, fitted.value) == pytest.approx(best, abs=1e-9) == pytest.approx(fitted.f1, abs=1e-9)
    distinct = (np.array(odds) + np.arange(len(odds)) / 100).tolist()
    null_odds = dict(zip((question.id for question in case.questions), distinct, strict=True))
    official = squad_metrics(case.answers().span_texts(), case.questions, version_2=True, null_odds=null_odds)
    of_distinct = fit_threshold(case.questions, with_odds(case, distinct))
    assert of_distinct.f1 == pytest.approx(official["best_f1"], abs=1e-9)
    last = official["best_f1_thresh"]
    if last != 0.0 and last != max(distinct):  # 0 also means that nothing is answered
        following = min(odd for odd in distinct if odd > last)
        assert of_distinct.value == pytest.approx((last + following) / 2, abs=1e-9)


def test_no_answer_is_right_if_the_gold_answer_has_no_word(tiny_bert: Path) -> None:
    case = Case(tiny_bert, count=8)
    texts = case.answers().span_texts()
    case.questions = [
        replace(question, answer_texts=(texts[question.id] if index < 4 else ".",))
        for index, question in enumerate(case.questions)
    ]
    odds = [-9.0, -8.0, -7.0, -6.0, -4.0, -3.0, -2.0, -1.0]
    fitted = fit_threshold(case.questions, with_odds(case, odds))
    assert (fitted.value, fitted.f1) == (-5.0, 100.0)
    assert f1_at(case, odds, fitted.value) == 100.0


@pytest.mark.parametrize(("lowest", "expected"), [(-3.0, np.nextafter(-3.0, -4.0)), (3.0, 0.0)])
def test_a_threshold_that_answers_nothing_is_below_all_odds_and_not_above_zero(
    tiny_bert: Path, lowest: float, expected: float
) -> None:
    case = Case(tiny_bert, count=4)
    case.questions = [replace(question, answer_texts=(), answer_starts=()) for question in case.questions]
    odds = [lowest, lowest + 2, lowest + 5, lowest]
    fitted = fit_threshold(case.questions, with_odds(case, odds))
    assert (fitted.value, fitted.f1) == (expected, 100.0)
    assert f1_at(case, odds, fitted.value) == 100.0


@pytest.mark.parametrize(("highest", "expected"), [(-10.0, 0.0), (3.0, 3.0)])
def test_a_threshold_that_answers_everything_answers_further_questions(
    tiny_bert: Path, highest: float, expected: float
) -> None:
    case = Case(tiny_bert, count=4)
    texts = case.answers().span_texts().values()
    case.questions = [
        replace(question, answer_texts=(text,)) for question, text in zip(case.questions, texts, strict=True)
    ]
    fitted = fit_threshold(case.questions, with_odds(case, [-30.0, highest, -20.0, -12.0]))
    assert (fitted.value, fitted.f1) == (expected, 100.0)


@pytest.mark.parametrize("count", [7, 203, 200])
def test_reliability_equals_scikit_learn(count: int) -> None:
    draw = np.random.default_rng(count)
    probability = draw.permutation(np.linspace(0.01, 0.99, count))
    correct = (draw.random(count) < probability**2).astype(float)
    sureness = Confidence(probability, correct)
    bins = sureness.reliability()
    assert sum(part.questions for part in bins) == count
    assert max(part.questions for part in bins) - min(part.questions for part in bins) <= 1
    assert sureness.brier() == pytest.approx(brier_score_loss(correct, probability))
    assert sureness.log_loss() == pytest.approx(log_loss(correct, probability))
    if count % BINS == 0:
        shares, means = calibration_curve(correct, probability, n_bins=BINS, strategy="quantile")
        assert [part.correct for part in bins] == pytest.approx(shares.tolist())
        assert [part.probability for part in bins] == pytest.approx(means.tolist())
    loop = 0.0
    for part in np.array_split(np.argsort(probability), BINS):
        loop += abs(sum(probability[index] - correct[index] for index in part)) / count
    assert expected_calibration_error(bins) == pytest.approx(loop, abs=1e-12)


def test_a_probability_of_0_for_what_is_right_has_a_finite_loss() -> None:
    assert Confidence(np.array([0.0, 1.0]), np.array([1.0, 0.0])).log_loss() == pytest.approx(12 * math.log(10))


def test_confidence_is_that_of_the_answer_and_of_no_answer(tiny_bert: Path) -> None:
    case = Case(tiny_bert)
    odds = sorted(case.answers().null_odds.values())
    answers = case.answers(temperature=1.5, threshold=odds[len(odds) // 2])
    texts = answers.texts()
    assert 0 < sum(text == "" for text in texts.values()) < len(texts)
    sureness = confidence(case.questions, answers, version_2=True)
    for number, question in enumerate(case.questions):
        chosen = answers.chosen[question.id]
        assert sureness.probability[number] == pytest.approx(chosen.probability)
        gold = question.answer_texts or ("",)
        assert sureness.correct[number] == float(chosen.text in gold)


def test_answering_curve_equals_the_official_loop_and_scikit_learn(tiny_bert: Path) -> None:
    case = Case(tiny_bert, count=30)
    odds = np.random.default_rng(0).integers(-6, 7, 30).astype(float).tolist()  # some are equal
    answers = with_odds(case, odds)
    answerable = [bool(question.answer_texts) for question in case.questions]
    exact = (np.random.default_rng(1).random(30) < 0.5).astype(float).tolist()
    curve = answering_curve(case.questions, answers, exact)
    # as evaluate-v2.0.py computes it
    order = sorted(range(30), key=lambda index: odds[index])
    found, average, recalls, precisions = 0.0, 0.0, [0.0], []
    for position, index in enumerate(order):
        found += exact[index] if answerable[index] else 0.0
        if position == 29 or odds[index] != odds[order[position + 1]]:
            precisions.append(found / (position + 1))
            recalls.append(found / sum(answerable))
            average += precisions[-1] * (recalls[-1] - recalls[-2])
    assert curve.precision == pytest.approx(precisions)
    assert curve.recall == pytest.approx(recalls[1:])
    assert curve.odds == sorted({*odds})
    assert curve.average_precision == pytest.approx(average)
    hits = [right * able for right, able in zip(exact, answerable, strict=True)]
    of_sklearn = average_precision_score(hits, [-odd for odd in odds])  # its recall has the hits as denominator
    assert curve.average_precision == pytest.approx(of_sklearn * sum(hits) / sum(answerable))


def test_calibration_quality_of_v1_has_no_odds(tiny_bert: Path) -> None:
    case = Case(tiny_bert, version_2=False)
    quality = measure_calibration(case.questions, case.answers(), version_2=False)
    assert set(quality.metrics) == {"ece", "brier", "log_loss"}
    assert set(msgspec.to_builtins(quality.curves)) == {"reliability"}
    in_v2 = Case(tiny_bert)
    scores = question_scores(in_v2.answers().span_texts(), in_v2.questions, version_2=True)
    quality = measure_calibration(in_v2.questions, in_v2.answers(), version_2=True)
    expected = answering_curve(in_v2.questions, in_v2.answers(), [f1 for _, f1 in scores])
    assert quality.metrics["pr_f1_ap"] == 100 * expected.average_precision
    assert quality.curves.precision_recall_f1 == expected
    without_gold = [replace(question, answer_texts=(), answer_starts=()) for question in in_v2.questions]
    quality = measure_calibration(without_gold, in_v2.answers(), version_2=True)
    assert set(quality.metrics) == {"ece", "brier", "log_loss"}
    with pytest.raises(ValueError, match="v1"):
        fit_threshold(case.questions, case.answers())

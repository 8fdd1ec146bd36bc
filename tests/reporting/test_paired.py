"""The bootstrap over contexts, against plain loops and scipy."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from adapter_qa.data import bootstrap
from adapter_qa.data.bootstrap import RESAMPLES, Estimate, context_numbers, resampled_means
from adapter_qa.reporting.paired import pair_rows


def make_scores(seed: int, contexts: int = 30, rows: int = 3) -> tuple[NDArray[np.float64], list[int]]:
    """Return scores (questions, rows, 2) and the context of each of one to five questions per context."""
    generator = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(contexts), generator.integers(1, 6, size=contexts))
    generator.shuffle(numbers)
    return 100 * generator.random((len(numbers), rows, 2)), context_numbers([str(number) for number in numbers])


def scipy_interval(differences: NDArray[np.float64], contexts: Sequence[int]) -> tuple[float, float]:
    """Return the percentile interval of a ratio of sums over contexts."""
    result = stats.bootstrap(
        (np.bincount(contexts, differences), np.bincount(contexts)),
        lambda sums, sizes, axis: sums.sum(axis=axis) / sizes.sum(axis=axis),
        paired=True,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return result.confidence_interval.low, result.confidence_interval.high


def test_contexts_are_numbered_by_their_text() -> None:
    assert context_numbers(["a", "b", "a", "c", "b"]) == [0, 1, 0, 2, 1]


def test_means_are_those_of_a_loop_over_the_questions_of_drawn_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 50)
    scores, contexts = make_scores(1, contexts=12)
    generator, expected = np.random.default_rng(0), []
    for _ in range(50):
        drawn = [
            scores[question, 0]
            for context in generator.integers(0, 12, size=12)
            for question in range(len(contexts))
            if contexts[question] == context
        ]
        expected.append([statistics.fmean(score[measure] for score in drawn) for measure in (0, 1)])
    np.testing.assert_allclose(resampled_means(scores[:, 0], contexts), expected, rtol=1e-12)


def test_intervals_are_those_of_scipy() -> None:
    scores, contexts = make_scores(2)
    for row, result in enumerate(pair_rows(scores, contexts, has_best=True)):
        assert (result.questions, result.contexts) == (len(contexts), 30)
        assert result.f1[1:] == pytest.approx(scipy_interval(scores[:, row, 1], contexts), abs=1e-9)
        assert result.to_best is not None
        for measure, difference in enumerate((result.to_best.exact, result.to_best.f1)):
            differences = scores[:, row, measure] - scores[:, 0, measure]
            assert difference.value == pytest.approx(differences.mean(), abs=1e-9)
            assert difference[1:] == pytest.approx(scipy_interval(differences, contexts), abs=1e-9)


def test_the_number_of_draws_in_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, contexts = make_scores(3)
    expected = resampled_means(scores[:, 0], contexts)
    monkeypatch.setattr(bootstrap, "DRAWS_AT_ONCE", 1000)
    np.testing.assert_allclose(resampled_means(scores[:, 0], contexts), expected, rtol=1e-12)


def test_a_context_says_no_more_with_ten_equal_questions_than_with_one() -> None:
    scores, _ = make_scores(4, rows=2)
    scores = scores[:20]
    once, tenfold = (
        pair_rows(np.repeat(scores, times, axis=0), np.repeat(np.arange(20), times).tolist(), has_best=True)[1]
        for times in (1, 10)
    )
    assert (once.questions, tenfold.questions) == (20, 200)
    assert tenfold.f1 == pytest.approx(once.f1, abs=1e-9)
    assert once.to_best is not None
    assert tenfold.to_best is not None
    assert tenfold.to_best.f1 == pytest.approx(once.to_best.f1, abs=1e-9)


def test_rows_with_a_constant_difference_have_an_interval_without_width() -> None:
    scores, contexts = make_scores(5, rows=1)
    same, lower = pair_rows(np.concatenate([scores, scores, scores - 2.5], axis=1), contexts, has_best=True)[1:]
    assert same.to_best is not None
    assert lower.to_best is not None
    assert same.to_best.f1 == same.to_best.exact == (0, 0, 0)
    assert lower.to_best.f1 == pytest.approx((-2.5, -2.5, -2.5), abs=1e-9)
    assert (same.to_best.f1.includes_zero, lower.to_best.f1.includes_zero) == (True, False)


def test_rows_without_the_best_one_have_no_differences() -> None:
    assert [row.to_best for row in pair_rows(*make_scores(6), has_best=False)] == [None, None, None]


@pytest.mark.parametrize(
    ("low", "high", "includes"),
    [(-1, 1, True), (-1, -1e-12, True), (1e-12, 1, True), (-1, -0.01, False), (0.01, 1, False)],
)  # fmt: skip
def test_zero_within_rounding_is_in_an_interval(low: float, high: float, includes: bool) -> None:
    assert Estimate((low + high) / 2, low, high).includes_zero is includes


def draw_answers(generator: np.random.Generator, contexts: int) -> tuple[NDArray[np.float64], list[int]]:
    """Return scores (questions, 2 rows, 2) of simulated rows, each better at some contexts, and the contexts."""
    sizes = 1 + generator.poisson(4, contexts)
    numbers = np.repeat(np.arange(contexts), sizes)
    difficulty = generator.normal(0, 1, (contexts, 1))[numbers] + generator.normal(0, 1, (len(numbers), 1))
    odds = np.array([0.8, 0.5]) + difficulty + generator.normal(0, 1, (contexts, 2))[numbers]
    right = generator.random(odds.shape) < 1 / (1 + np.exp(-odds))
    return np.where(np.stack([right, right], axis=2), 100.0, 0.0).astype(np.float64), numbers.tolist()


@pytest.mark.slow
def test_intervals_cover_the_true_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 1000)
    generator = np.random.default_rng(1)
    many = draw_answers(generator, 1_000_000)[0][:, :, 0].mean(axis=0)
    covered = np.zeros(2)
    for _ in range(1000):
        scores, contexts = draw_answers(generator, 100)
        for index, units in enumerate((contexts, list(range(len(contexts))))):
            to_best = pair_rows(scores, units, has_best=True)[1].to_best
            assert to_best is not None
            covered[index] += to_best.f1.low <= many[1] - many[0] <= to_best.f1.high
    by_context, by_question = covered / 1000
    assert by_context == pytest.approx(0.94, abs=0.023)  # of 6,000 data sets; three standard errors of 1,000
    assert by_question < 0.9

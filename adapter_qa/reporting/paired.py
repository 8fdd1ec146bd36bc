"""Scores of rows that answered the same questions, and their differences to the best row, with intervals of 95 %.

Contexts are resampled as `data.bootstrap` says, for all rows the same ones (Berg-Kirkpatrick et al. 2012, "An empirical
investigation of statistical significance in NLP").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapter_qa.data.bootstrap import RESAMPLES, Estimate, estimate, resampled_means

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ToBest:
    """The differences of a row to the best row, as row minus best."""

    f1: Estimate
    exact: Estimate


@dataclass(frozen=True)
class PairedRow:
    """What the answers of a row say beyond its scores.

    Attributes:
        questions: Number of questions.
        contexts: Number of different contexts, which are resampled.
        f1: F1 with its interval.
        to_best: None if the best row is not among the rows whose answers could be read.
    """

    questions: int
    contexts: int
    f1: Estimate
    to_best: ToBest | None


def pair_rows(scores: NDArray[np.float64], contexts: Sequence[int], *, has_best: bool) -> list[PairedRow]:
    """Compare rows with the first one.

    Args:
        scores: (questions, rows, 2): exact match and F1 in percent, means over the seeds of a row.
        contexts: `context_numbers` of the questions; of at least `MIN_CONTEXTS` contexts.
        has_best: Whether the first row is the best one; if not, the rows have no differences.
    """
    questions, rows, _ = scores.shape
    means = resampled_means(scores.reshape(questions, -1), contexts).reshape(RESAMPLES, rows, 2)
    values = scores.mean(axis=0)
    paired = []
    for row in range(rows):
        exact, f1 = (
            estimate(values[row, measure] - values[0, measure], means[:, row, measure] - means[:, 0, measure])
            for measure in (0, 1)
        )
        own = estimate(values[row, 1], means[:, row, 1])
        paired.append(PairedRow(questions, max(contexts) + 1, own, ToBest(f1, exact) if has_best else None))
    return paired

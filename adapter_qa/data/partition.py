"""Parts of a set of questions that have no article, or no context, in common.

Questions about one text resemble each other. If they were on both sides of a split, the scores would be too high.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from adapter_qa.data.questions import Question

GroupBy = Literal["article", "context"]
CALIBRATION_SEED = 0
ARTICLES_PER_FOLD = 2  # without a choice of the user, with fewer articles a fold would often be one large article


class FoldScheme(NamedTuple):
    """How questions are divided for a cross-validation.

    Attributes:
        folds: number of folds.
        by: what is never divided; None: articles if there are `ARTICLES_PER_FOLD` for each fold, else contexts.
        choosing_share: share of the questions outside the scored fold that chooses the epoch, 0 for none.
        seed: of the random order of the groups.
    """

    folds: int
    by: GroupBy | None
    choosing_share: float
    seed: int

    def decided(self, questions: Sequence[Question]) -> GroupBy:
        """Return what is never divided."""
        if self.by is not None:
            return self.by
        titles = {question.title for question in questions} - {""}
        return "article" if len(titles) >= ARTICLES_PER_FOLD * self.folds else "context"


class FoldParts(NamedTuple):
    """Which questions a fold trains on, chooses the epoch on, and is scored on; each (questions,) bool."""

    train: npt.NDArray[np.bool_]
    choosing: npt.NDArray[np.bool_]
    scored: npt.NDArray[np.bool_]


def divide(questions: Sequence[Question], scheme: FoldScheme) -> list[FoldParts]:
    """Return the parts of each fold; a group is in one part of a fold, and scored in one fold.

    Raises:
        ValueError: if there are fewer groups than folds, or too few outside a fold for a share of them.
    """
    groups = group_names(questions, scheme.decided(questions))
    fold_of = assign_folds(groups, scheme.folds, scheme.seed)
    parts = []
    for fold in range(scheme.folds):
        scored = fold_of == fold
        choosing = np.zeros_like(scored)
        if scheme.choosing_share:
            others = np.flatnonzero(~scored)
            choosing[others] = set_aside([groups[index] for index in others], scheme.choosing_share, scheme.seed + fold)
        parts.append(FoldParts(~scored & ~choosing, choosing, scored))
    return parts


def group_names(questions: Sequence[Question], by: GroupBy) -> list[str]:
    """Return the group of each question: the title of its article, or its context; without a title its context."""
    return [question.title or question.context if by == "article" else question.context for question in questions]


def assign_folds(groups: Sequence[str], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the fold of each question, (questions,) from 0 to `folds` - 1, int64; a group is in one fold.

    The groups are taken from the largest to the smallest, equal ones in random order. Each goes to the fold that has
    the fewest questions by then.

    Args:
        groups: of each question.
        folds: number of folds.
        seed: of the random order.

    Raises:
        ValueError: if there are fewer groups than folds.
    """
    sizes = Counter(groups)
    if len(sizes) < folds:
        raise ValueError(f"{len(sizes)} groups cannot make {folds} folds")
    names = _shuffled(sizes, seed)
    names.sort(key=lambda name: -sizes[name])
    totals = [0] * folds
    fold_of: dict[str, int] = {}
    for name in names:
        fold = totals.index(min(totals))
        fold_of[name] = fold
        totals[fold] += sizes[name]
    return np.array([fold_of[name] for name in groups], dtype=np.int64)


def set_aside(groups: Sequence[str], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return which questions are set aside, (questions,) bool; a group is set aside as a whole.

    The groups are taken in random order. A group that brings the part nearer to the share is added to it. At least one
    group is set aside and at least one is left.

    Args:
        groups: of each question.
        share: of the questions, above 0 and below 1.
        seed: of the random order.

    Raises:
        ValueError: if there are fewer than two groups.
    """
    sizes = Counter(groups)
    if len(sizes) < 2:
        raise ValueError(f"{len(sizes)} group cannot be divided")
    wanted = share * len(groups)
    chosen: set[str] = set()
    total = 0
    for name in _shuffled(sizes, seed):
        is_nearer = abs(total + sizes[name] - wanted) < abs(total - wanted)
        if is_nearer and len(chosen) < len(sizes) - 1:
            chosen.add(name)
            total += sizes[name]
    if not chosen:  # every group is more than twice the share
        chosen.add(min(sorted(sizes), key=lambda name: sizes[name]))
    return np.array([name in chosen for name in groups], dtype=np.bool_)


def calibration_parts(questions: Sequence[Question], share: float) -> tuple[list[Question], list[Question]]:
    """Return the questions to calibrate on, a share of whole articles, and those to score.

    The articles do not depend on the seed of a run, so that runs with several seeds are scored on the same questions.

    Raises:
        ValueError: if there are fewer than two articles.
    """
    aside = set_aside(group_names(questions, "article"), share, CALIBRATION_SEED)
    fitted_on = [question for question, is_aside in zip(questions, aside, strict=True) if is_aside]
    scored = [question for question, is_aside in zip(questions, aside, strict=True) if not is_aside]
    return fitted_on, scored


def _shuffled(names: Counter[str], seed: int) -> list[str]:
    """Return the names in an order that depends on the names and the seed only."""
    order = np.random.default_rng(seed).permutation(len(names))
    ordered = sorted(names)
    return [ordered[index] for index in order]

"""Parts of questions: groups are whole, sizes are near to what was asked for, and a seed decides."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from adapter_qa.data.partition import FoldScheme, GroupBy, assign_folds, divide, group_names, set_aside
from adapter_qa.data.questions import Question

GROUPS = [name for name, size in zip("abcdefghij", (40, 25, 10, 9, 8, 7, 5, 3, 2, 1), strict=True) for _ in range(size)]


def question(title: str, context: str) -> Question:
    return Question("1", "?", context, (), (), title)


def test_group_names() -> None:
    questions = [question("A", "x"), question("A", "y"), question("", "x")]
    assert group_names(questions, "article") == ["A", "A", "x"]
    assert group_names(questions, "context") == ["x", "y", "x"]


def test_folds_keep_groups_whole_and_sizes_close() -> None:
    folds = assign_folds(GROUPS, 3, seed=1)
    assert folds.dtype == np.int64
    assert all(len({folds[i] for i, name in enumerate(GROUPS) if name == group}) == 1 for group in set(GROUPS))
    assert sorted(Counter(folds.tolist()).values()) == [35, 35, 40]


def test_folds_depend_on_the_seed_and_not_on_the_order() -> None:
    groups = [str(number % 30) for number in range(90)]
    first = dict(zip(groups, assign_folds(groups, 5, seed=1), strict=True))
    assert first == dict(zip(groups[::-1], assign_folds(groups[::-1], 5, seed=1), strict=True))
    assert first != dict(zip(groups, assign_folds(groups, 5, seed=2), strict=True))
    assert Counter(first.values()) == dict.fromkeys(range(5), 6)


def test_too_few_groups_for_folds() -> None:
    with pytest.raises(ValueError, match="10 groups cannot make 11 folds"):
        assign_folds(GROUPS, 11, seed=1)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_set_aside_is_near_the_share(share: float, seed: int) -> None:
    groups = [str(number % 50) for number in range(500)]
    part = set_aside(groups, share, seed)
    assert part.sum() == share * 500
    assert all(len({part[i] for i in range(500) if groups[i] == group}) == 1 for group in set(groups))


def test_set_aside_takes_and_leaves_a_group() -> None:
    assert set_aside(["a", "a", "a", "b", "b"], 0.01, seed=1).tolist() == [False, False, False, True, True]
    assert set_aside(["a", "b"], 0.99, seed=1).sum() == 1
    with pytest.raises(ValueError, match="1 group cannot be divided"):
        set_aside(["a", "a"], 0.5, seed=1)


@pytest.mark.parametrize("by", ["article", "context"])
def test_a_group_is_in_one_part_of_a_fold_and_scored_once(by: GroupBy) -> None:
    questions = [question(f"title {number % 20}", f"context {number % 60}") for number in range(240)]
    folds = divide(questions, FoldScheme(4, by, 0.1, seed=3))
    groups = np.array(group_names(questions, by))
    for parts in folds:
        assert (np.sum(parts, axis=0) == 1).all()
        assert sum(len({*groups[part]}) for part in parts) == len({*groups})
        assert abs(parts.choosing.sum() - 0.1 * (~parts.scored).sum()) <= 12 / 2  # half of an article
    assert (np.sum([parts.scored for parts in folds], axis=0) == 1).all()
    assert len({tuple(parts.choosing.tolist()) for parts in folds}) == 4
    assert not any(parts.choosing.any() for parts in divide(questions, FoldScheme(4, by, 0.0, seed=3)))


def test_what_a_fold_does_not_divide_by_default() -> None:
    questions = [question(f"title {number % 10}", str(number)) for number in range(100)]
    assert FoldScheme(5, None, 0.1, seed=1).decided(questions) == "article"
    assert FoldScheme(6, None, 0.1, seed=1).decided(questions) == "context"
    assert FoldScheme(6, "article", 0.1, seed=1).decided(questions) == "article"
    assert FoldScheme(2, None, 0.1, seed=1).decided([question("", str(number)) for number in range(100)]) == "context"

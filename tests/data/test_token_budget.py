"""Batches that are split by a number of tokens (adapter_qa/data/token_budget.py)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapter_qa.data.token_budget import row_widths, split_batch, split_rows


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 200))
def test_groups_hold_every_row_once_and_keep_to_the_budget(widths: list[int], tokens: int) -> None:
    groups = split_rows(widths, tokens)
    assert sorted(row for group in groups for row in group) == list(range(len(widths)))
    for group in groups:
        assert group == sorted(group)
        assert len(group) == 1 or len(group) * max(widths[row] for row in group) <= tokens
    longest = [max(widths[row] for row in group) for group in groups]
    assert longest == sorted(longest, reverse=True)
    # No more groups than when each is filled with the longest rows that remain.
    remaining, fewest = sorted(widths, reverse=True), 0
    while remaining:
        fewest += 1
        remaining = remaining[max(tokens // remaining[0], 1) :]
    assert len(groups) == fewest


@pytest.mark.parametrize(
    ("widths", "tokens", "groups"),
    [
        ([5, 5, 5, 5], 20, [[0, 1, 2, 3]]),
        ([5, 5, 5, 5], 19, [[0, 1], [2, 3]]),  # not three and one
        ([5] * 7, 20, [[0, 1, 2, 3], [4, 5, 6]]),
        ([2, 9, 3, 8], 18, [[1, 3], [0, 2]]),
        ([2, 30, 3, 8], 18, [[1], [3], [0, 2]]),
        ([4], 1, [[0]]),
        ([4, 3], 10**12, [[0, 1]]),
    ],
)
def test_groups_are_of_about_equal_size(widths: list[int], tokens: int, groups: list[list[int]]) -> None:
    assert split_rows(widths, tokens) == groups


MASK = torch.tensor([[1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 0], [1, 0, 1, 0, 0, 0, 0]])


def test_widths_end_at_the_last_token() -> None:
    assert row_widths(MASK) == [2, 5, 6, 3]
    assert row_widths(MASK.bool(), 4) == [4, 7, 7, 4]  # never beyond the length


def batch_of(mask: torch.Tensor) -> dict[str, torch.Tensor]:
    ids = torch.arange(mask.numel()).view(mask.shape)
    return {"input_ids": ids, "attention_mask": mask, "context_mask": mask.bool(), "starts": torch.arange(len(mask))}


def test_padding_on_the_right_is_cut_off_and_rows_stay_together() -> None:
    parts = split_batch(batch_of(MASK), MASK, 12)
    assert [part["starts"].tolist() for part in parts] == [[1, 2], [0, 3]]
    assert [part["input_ids"].tolist() for part in parts] == [
        [[7, 8, 9, 10, 11, 12], [14, 15, 16, 17, 18, 19]],
        [[0, 1, 2], [21, 22, 23]],
    ]
    for part in parts:
        assert part["attention_mask"].equal(MASK[part["starts"], : part["input_ids"].shape[1]])
        assert part["context_mask"].equal(part["attention_mask"].bool())
        assert all(values.is_contiguous() for values in part.values())


def test_padding_on_the_left_and_padding_without_a_mask_stay() -> None:
    left = MASK.flip(1)
    assert [tuple(part["input_ids"].shape) for part in split_batch(batch_of(left), left, 14)] == [(2, 7), (2, 7)]
    assert [tuple(part["input_ids"].shape) for part in split_batch(batch_of(MASK), None, 14)] == [(2, 7), (2, 7)]


def test_a_batch_that_is_small_enough_stays_as_it_is() -> None:
    mask = MASK[:, :6]
    batch = batch_of(mask)
    (part,) = split_batch(batch, mask, 24)
    assert part.keys() == batch.keys()
    assert all(part[name].equal(batch[name]) for name in batch)

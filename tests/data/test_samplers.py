"""Batches by length (adapter_qa/data/samplers.py): every example once, the same order everywhere, little padding."""

from __future__ import annotations

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, RandomSampler

from adapter_qa.data.batches import padding_share
from adapter_qa.data.samplers import BucketSampler, LongestFirst


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=300),
    size=st.integers(1, 20),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_every_example_occurs_once_and_the_longest_is_in_the_first_batch(
    lengths: list[int], size: int, seed: int, epoch: int
) -> None:
    sampler = BucketSampler(np.array(lengths), size, seed)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths)))
    assert len(sampler) == len(lengths)
    assert order == list(sampler)
    if len(lengths) >= size and len(lengths) % size == 0:
        assert max(lengths) in [lengths[index] for index in order[:size]]


def test_batches_hold_neighbours_by_length_the_longest_first_and_the_incomplete_one_last() -> None:
    lengths = 1 + np.random.default_rng(0).permutation(107)
    drawn = [int(lengths[index]) for index in BucketSampler(lengths, 10, seed=0)]
    batches = [drawn[start : start + 10] for start in range(0, 107, 10)]
    expected = [list(range(longest, max(longest - 10, 0), -1)) for longest in range(107, 0, -10)]
    assert sorted(batches, reverse=True) == expected
    assert (batches[0], batches[-1]) == (expected[0], expected[-1])
    assert batches[1:-1] != expected[1:-1]
    assert [int(lengths[index]) for index in LongestFirst(lengths)] == list(range(107, 0, -1))


def test_order_depends_on_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(20, 380, 1000)
    orders = {}
    for seed, epoch in [(1, 0), (1, 1), (2, 0)]:
        sampler = BucketSampler(lengths, 16, seed)
        sampler.set_epoch(epoch)
        orders[seed, epoch] = tuple(sampler)
    assert len(set(orders.values())) == 3


def test_batches_differ_between_epochs() -> None:
    lengths = np.random.default_rng(0).integers(20, 380, 4000)
    sampler = BucketSampler(lengths, 16, 0)
    batches = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        order = np.array(list(sampler)).reshape(-1, 16)
        batches.append({frozenset(batch.tolist()) for batch in order})
    assert len(batches[0]) == len(batches[1]) == 250
    assert not batches[0] & batches[1]


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_have_batches_of_similar_length_in_each_step(processes: int) -> None:
    """Each process takes every n-th batch of the same order, so that no process waits long for another."""
    lengths = np.random.default_rng(0).integers(20, 380, 64 * 32)
    sampler = BucketSampler(lengths, 8 * processes, 0)
    shards = [
        [np.array(batch) for batch in BatchSamplerShard(BatchSampler(sampler, 8, False), processes, rank)]
        for rank in range(processes)
    ]
    assert sorted(np.concatenate([np.concatenate(shard) for shard in shards])) == list(range(len(lengths)))
    ranges = []
    for step in zip(*shards, strict=True):
        sizes = lengths[np.concatenate(step)]
        ranges.append(sizes.max() - sizes.min())
    assert np.median(ranges) < 0.1 * 360


def test_buckets_have_less_padding_than_random_batches() -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.gamma(7, 26, 8000).astype(int), 40, 384)  # like SQuAD-pt: mean about 181
    plain = padding_share(RandomSampler(range(len(lengths))), lengths, 16)
    fixed = padding_share(range(len(lengths)), lengths, 16, fixed=384)
    buckets = padding_share(BucketSampler(lengths, 16, 0), lengths, 16)
    assert fixed == pytest.approx(1 - lengths.mean() / 384)
    assert buckets < 0.02 < 0.3 < plain < fixed
    assert padding_share(LongestFirst(lengths), lengths, 16) < 0.002


def test_padding_share_by_hand() -> None:
    lengths = np.array([3, 5, 2, 9, 4])
    assert padding_share([0, 1, 2, 3, 4], lengths, 2) == pytest.approx(1 - 23 / (5 * 2 + 9 * 2 + 4))
    assert padding_share([0, 1, 2, 3, 4], lengths, 2, multiple=8) == pytest.approx(1 - 23 / (8 * 2 + 16 * 2 + 8))

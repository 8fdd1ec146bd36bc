"""Samplers that put examples of similar length into a batch, so that little is padded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

BATCHES_SORTED_TOGETHER = 50  # enough batches to leave little padding, few enough that batches stay mixed


class BucketSampler(Sampler[int]):
    """Random batches of examples of similar length; an epoch holds every example once.

    The examples are shuffled. Every `BATCHES_SORTED_TOGETHER` batches of them are sorted by length. Then the batches
    are shuffled, and the batch with the longest example moves to the front, so that a run without enough memory fails
    in its first step. An incomplete batch comes last. The order depends on seed and epoch only, so that it
    is the same in every process and after a resume.

    Args:
        lengths: (examples,) number of tokens.
        batch_size: examples per step over all processes.
        seed: seed of the shuffling.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int):
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0; accelerate's data loader calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.lengths))
        group_size = BATCHES_SORTED_TOGETHER * self.batch_size
        groups = [order[start : start + group_size] for start in range(0, len(order), group_size)]
        order = np.concatenate([group[np.argsort(-self.lengths[group], kind="stable")] for group in groups])
        full_end = len(order) // self.batch_size * self.batch_size
        batches = order[:full_end].reshape(-1, self.batch_size)
        batches = batches[rng.permutation(len(batches))]
        if len(batches):
            longest = int(self.lengths[batches].max(axis=1).argmax())
            batches[[0, longest]] = batches[[longest, 0]]
        yield from batches.ravel().tolist()
        yield from order[full_end:].tolist()


class LongestFirst(Sampler[int]):
    """Examples from the longest to the shortest: the least padding, and the largest batch comes first."""

    def __init__(self, lengths: np.ndarray):
        self.order = np.argsort(-lengths, kind="stable")

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order.tolist())

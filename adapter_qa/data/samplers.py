"""Which examples go into a batch together: of similar length, so that little is padded; and how an encoder takes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.utils.data import Sampler

IGNORED = -100  # label of what no loss counts, PyTorch's own default for it
BATCHES_SORTED_TOGETHER = 50  # enough to leave little padding, few enough that batches stay mixed


def encoder_inputs(batch: dict[str, torch.Tensor], names: Iterable[str]) -> dict[str, torch.Tensor]:
    """The named tensors of a batch as an encoder takes them.

    The mask becomes (batch, 1, length). Of one of two dimensions the library asks whether it is without padding, for
    which it would wait for the GPU in every step.
    """
    inputs = {name: batch[name] for name in names}
    return {**inputs, "attention_mask": inputs["attention_mask"][:, None]}


class BucketSampler(Sampler[int]):
    """Every example once an epoch, in random batches of similar length.

    The examples are shuffled; stretches of `BATCHES_SORTED_TOGETHER` batches are sorted by length; the batches are
    shuffled; the one with the longest example comes first, so that memory that does not suffice fails at once. All of
    it follows from seed and epoch alone: the same in every process and after a resume.

    Args:
        lengths: (examples,) tokens of each.
        batch_size: examples that are in the model at once, over all processes.
        seed: of the shuffling.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int):
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of an epoch, from 0; data loaders call it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draw = np.random.default_rng((self.seed, self.epoch))
        order = draw.permutation(len(self.lengths))
        stretch = BATCHES_SORTED_TOGETHER * self.batch_size
        pieces = [order[first : first + stretch] for first in range(0, len(order), stretch)]
        order = np.concatenate([piece[np.argsort(-self.lengths[piece], kind="stable")] for piece in pieces])
        full = len(order) // self.batch_size * self.batch_size
        batches = order[:full].reshape(-1, self.batch_size)
        batches = batches[draw.permutation(len(batches))]
        if len(batches):
            longest = int(self.lengths[batches].max(axis=1).argmax())
            batches[[0, longest]] = batches[[longest, 0]]
        yield from batches.ravel().tolist()
        yield from order[full:].tolist()


class LongestFirst(Sampler[int]):
    """Examples from the longest to the shortest: least padding, and the largest batch comes first."""

    def __init__(self, lengths: np.ndarray):
        self.order = np.argsort(-lengths, kind="stable")

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order.tolist())


def padding_share(
    order: Iterable[int], lengths: np.ndarray, batch_size: int, *, fixed: int | None = None, multiple: int = 1
) -> float:
    """Share of padding among all tokens that are computed with.

    Args:
        order: the examples as they go into batches.
        lengths: (examples,) tokens of each.
        batch_size: examples a batch.
        fixed: the length that every batch is padded to; None: its own longest.
        multiple: to which that one is rounded up.
    """
    sizes = lengths[np.fromiter(order, np.int64)]
    starts = np.arange(0, len(sizes), batch_size)
    longest = -(-np.maximum.reduceat(sizes, starts) // multiple) * multiple
    if fixed is not None:
        longest = np.full(len(starts), fixed)
    counts = np.diff(np.append(starts, len(sizes)))
    return 1 - float(sizes.sum()) / float((longest * counts).sum())

"""The encoder's inputs from a batch, and the share of padding in batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def encoder_inputs(
    batch: dict[str, torch.Tensor], names: Iterable[str], mask_dimensions: int = 3
) -> dict[str, torch.Tensor]:
    """Select the named tensors of a batch and give the attention mask the shape that the encoder takes.

    For a mask of two dimensions, (batch, length), transformers checks whether it contains padding. That check waits for
    the GPU in every step; a mask of three, (batch, 1, length), skips it. Not every encoder takes three.

    Args:
        batch: with a mask of two dimensions.
        names: of the encoder's inputs.
        mask_dimensions: 2 or 3.
    """
    inputs = {name: batch[name] for name in names}
    if mask_dimensions == 3:
        inputs["attention_mask"] = inputs["attention_mask"][:, None]
    return inputs


def padding_share(
    order: Iterable[int], lengths: np.ndarray, batch_size: int, *, fixed: int | None = None, multiple: int = 1
) -> float:
    """Return the share of padding among all tokens that the encoder processes, from 0 to 1.

    Args:
        order: indices of the examples in the order in which they are batched.
        lengths: (examples,) number of tokens.
        batch_size: examples per batch.
        fixed: length to which every batch is padded; None: the longest example of the batch.
        multiple: the longest example's length is rounded up to a multiple of this.
    """
    sizes = lengths[np.fromiter(order, np.int64)]
    starts = np.arange(0, len(sizes), batch_size)
    longest = -(-np.maximum.reduceat(sizes, starts) // multiple) * multiple
    if fixed is not None:
        longest = np.full(len(starts), fixed)
    counts = np.diff(np.append(starts, len(sizes)))
    return 1 - float(sizes.sum()) / float((longest * counts).sum())

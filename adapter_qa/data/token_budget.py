"""Batches that are split by a number of tokens, so that the memory of a training step is bounded."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def split_batch(
    batch: dict[str, torch.Tensor], mask: torch.Tensor | None, tokens: int, multiple: int = 1
) -> list[dict[str, torch.Tensor]]:
    """Split a batch into parts of about `tokens` tokens, padding included; each row is in one of them.

    Padding on the right of all rows of a part is cut off. Padding on the left stays, since it is counted in a token's
    position. A batch that is small enough stays as it is.

    Args:
        batch: tensors of (rows, length) or (rows,).
        mask: (rows, length), 0 at padding; None if padding must stay, or if there is none.
        tokens: rows times longest row of a part; a longer row is a part by itself.
        multiple: lengths are rounded up to a multiple of this.

    Returns:
        The parts, those of the longest rows first; the rows of a part are in their order in the batch.
    """
    rows, length = batch["input_ids"].shape
    widths = [length] * rows if mask is None else row_widths(mask, multiple)
    parts = []
    for part in split_rows(widths, tokens):
        width = max(widths[row] for row in part)
        parts.append(
            {
                # Contiguous, as every batch is: a compiled model would be compiled again for another layout.
                name: values[part][:, :width].contiguous() if values.dim() > 1 else values[part]
                for name, values in batch.items()
            }
        )
    return parts


def row_widths(mask: torch.Tensor, multiple: int = 1) -> list[int]:
    """Return the number of columns up to the last token of each row, at least 1; waits for the device once.

    Args:
        mask: (rows, length), 0 at padding.
        multiple: numbers are rounded up to a multiple of this, but not beyond the length.
    """
    length = mask.shape[1]
    widths = length - (mask != 0).int().flip(1).argmax(1)  # the first of several equal values: the last token
    return [min(-(-width // multiple) * multiple, length) for width in widths.tolist()]


def split_rows(widths: Sequence[int], tokens: int) -> list[list[int]]:
    """Group rows so that rows times longest row of each group are at most `tokens`; a longer row stands alone.

    There are no more groups than necessary, and their sizes are about equal: many groups of full size and a last one
    of few rows would need more memory and not less time.

    Args:
        widths: number of columns of each row, at least 1.
        tokens: at least 1.

    Returns:
        Indices of the rows of each group, in ascending order; groups of the longest rows first.
    """
    needed = len(_grouped(widths, tokens))
    lowest = bisect_left(range(tokens), True, key=lambda budget: len(_grouped(widths, budget)) <= needed)
    return [sorted(group) for group in _grouped(widths, lowest)]


def _grouped(widths: Sequence[int], tokens: int) -> list[list[int]]:
    """Return groups that are filled one after the other with the longest rows that remain."""
    order = sorted(range(len(widths)), key=lambda row: -widths[row])
    groups: list[list[int]] = []
    while order:
        size = max(tokens // widths[order[0]], 1)
        groups.append(order[:size])
        order = order[size:]
    return groups

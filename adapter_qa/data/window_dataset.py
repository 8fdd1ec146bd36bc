"""Batches of windows as torch tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from adapter_qa.data.labels import IGNORED
from adapter_qa.data.windows import Windowed


@dataclass(frozen=True)
class WindowCollator:
    """Pads windows to a batch of tensors.

    Attributes:
        pad_id: token id of padding.
        left: padding goes to the left.
        length: pad to this many tokens; None pads to the longest window of the batch.
        multiple: rounds that length up, for tensor cores.
    """

    pad_id: int
    left: bool
    length: int | None = None
    multiple: int = 1

    def __call__(self, windows: Sequence[Windowed]) -> dict[str, torch.Tensor]:
        """Tensors of a batch: `input_ids`, `attention_mask`, `token_type_ids` (where the encoder has types) and
        `context_mask`, all (batch, length) int64, the last one bool; `start_positions`, `end_positions` (int64) and
        `cls_positions`, `first_token` (int64, where the window begins), all (batch,).
        """
        longest = max(len(window["input_ids"]) for window in windows)
        length = self.length or -(-longest // self.multiple) * self.multiple
        shape = (len(windows), length)
        ids = np.full(shape, self.pad_id, dtype=np.int64)
        types = np.zeros(shape, dtype=np.int64)
        attention = np.zeros(shape, dtype=np.int64)
        context = np.zeros(shape, dtype=bool)
        first = np.zeros(len(windows), dtype=np.int64)
        for row, window in enumerate(windows):
            size = len(window["input_ids"])
            first[row] = length - size if self.left else 0
            place = slice(first[row], first[row] + size)
            ids[row, place] = window["input_ids"]
            attention[row, place] = 1
            context[row, place] = window["in_context"]
            if window["type_ids"] is not None:
                types[row, place] = window["type_ids"]
        starts = np.array([window["start"] for window in windows])
        ends = np.array([window["end"] for window in windows])
        batch = {
            "input_ids": ids,
            "attention_mask": attention,
            "token_type_ids": types,
            "context_mask": context,
            "start_positions": np.where(starts == IGNORED, IGNORED, starts + first),
            "end_positions": np.where(ends == IGNORED, IGNORED, ends + first),
            "cls_positions": np.array([window["cls"] for window in windows]) + first,
            "first_token": first,
        }
        if windows[0]["type_ids"] is None:
            del batch["token_type_ids"]
        return {name: torch.from_numpy(array) for name, array in batch.items()}

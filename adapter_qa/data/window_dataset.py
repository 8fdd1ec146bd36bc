"""Windows for torch: the tokenizer of transformers as `make_windows` takes it, a dataset, and batches of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Never

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

from adapter_qa.data.pair_tokenizer import PairTokenizer
from adapter_qa.data.questions import Question
from adapter_qa.data.windows import OnProgress, PairLayout, Window, Windows, pad_windows

MIN_TEXTS_FOR_BAR = 1000  # fewer texts are tokenized before anybody could read a progress bar


def pair_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PairTokenizer:
    """Return a fast tokenizer as `make_windows` takes it; the underlying tokenizer is copied only if it is mended.

    Raises:
        UserError: the tokenizer reports wrong characters for its tokens; see `PairTokenizer.checked`.
    """
    tokenizer_of_pairs = PairTokenizer(
        tokenizer.backend_tokenizer,
        name=f"{tokenizer.name_or_path} ({type(tokenizer).__name__})",
        cls_token_id=int(tokenizer.cls_token_id),
        pad_token_id=int(tokenizer.pad_token_id),
        pad_left=tokenizer.padding_side == "left",
        has_token_types="token_type_ids" in tokenizer.model_input_names,
        split_special_tokens=tokenizer.split_special_tokens,
    )
    return tokenizer_of_pairs.checked()


def progress_bar(description: str) -> OnProgress:
    """Return a callback for `make_windows` that shows a bar if there are more than `MIN_TEXTS_FOR_BAR` texts."""
    bar: tqdm[Never] | None = None

    def update(done: int, total: int) -> None:
        nonlocal bar
        if total <= MIN_TEXTS_FOR_BAR:
            return
        if bar is None:
            bar = tqdm(total=total, desc=description, unit="text", disable=None, leave=False)  # None: on a terminal
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return update


class WindowDataset(Dataset[Window]):
    """Windows as a dataset of torch."""

    def __init__(self, windows: Windows):
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Window:
        return self.windows[index]

    def lengths(self) -> np.ndarray:
        """Return (windows,) int64, the number of tokens of each window."""
        return self.windows.lengths()


class QuestionDataset(WindowDataset):
    """Questions and all of their windows, in the same order."""

    def __init__(self, questions: Sequence[Question], windows: Windows):
        super().__init__(windows)
        self.questions = questions


@dataclass(frozen=True)
class WindowCollator:
    """Collator that pads windows to a batch of tensors; see `pad_windows`."""

    pad_id: int
    left: bool
    length: int | None = None
    multiple: int = 1

    def __call__(self, windows: Sequence[Window]) -> dict[str, torch.Tensor]:
        """Return the arrays of `pad_windows` as tensors."""
        batch = pad_windows(windows, self.pad_id, pad_left=self.left, length=self.length, multiple=self.multiple)
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def question_mask(batch: dict[str, torch.Tensor], layout: PairLayout) -> torch.Tensor:
    """Return (windows, length) bool, true at the question's tokens in a batch of `WindowCollator`."""
    context_length = batch["context_mask"].sum(1)
    question_length = batch["attention_mask"].sum(1) - layout.special_tokens - context_length
    start = batch["first_token"] + len(layout.before)
    if not layout.question_first:
        start = start + context_length + len(layout.between)
    positions = torch.arange(batch["context_mask"].shape[1], device=start.device)
    return (positions >= start[:, None]) & (positions < (start + question_length)[:, None])

"""Masked language modelling data: texts to blocks of tokens, blocks to masked blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from adapter_qa.core.errors import UserError
from adapter_qa.data.labels import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

KEPT, REPLACED = 0.1, 0.1  # shares of the chosen tokens (BERT, section 3.1); the others are masked
TEXTS_PER_CALL, CHARACTERS_PER_CALL = 1000, 2**22  # tokenized at once; a token takes some 400 bytes meanwhile


@dataclass(frozen=True)
class MaskedLMDataset(Dataset[dict[str, np.ndarray]]):
    """Blocks of token ids; evaluation blocks have fixed masks.

    Attributes:
        ids: (blocks, block_size) int64.
        labels: (blocks, block_size) int64, `IGNORE_INDEX` where nothing is predicted; None if the trainer masks the
            blocks again at every use.
    """

    ids: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each block, (blocks,) int64; all are equal."""
        return np.full(len(self.ids), self.ids.shape[1])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        item = {"input_ids": self.ids[index]}
        return item if self.labels is None else {**item, "labels": self.labels[index]}


def split_into_blocks(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, block_size: int) -> np.ndarray:
    """Join texts with separator tokens and split them into blocks of `block_size` tokens, special tokens included.

    Returns:
        (blocks, block_size) int64. Tokens at the end that do not fill a block are dropped.

    Raises:
        UserError: the texts have fewer tokens than one block.
    """
    parts: list[np.ndarray] = []
    with tqdm(total=len(texts), desc="texts", disable=len(texts) <= TEXTS_PER_CALL or None, leave=False) as progress:
        for batch in _batches(texts):
            encoded = tokenizer(batch, add_special_tokens=False, verbose=False)
            parts += [np.array([*ids, tokenizer.sep_token_id], dtype=np.int64) for ids in encoded["input_ids"]]
            progress.update(len(batch))
    tokens = np.concatenate(parts)
    text_size = block_size - tokenizer.num_special_tokens_to_add(pair=False)
    count = len(tokens) // text_size
    if count == 0:
        raise UserError(
            f"the text has {len(tokens)} tokens, not enough for one block of --block_size {block_size}; "
            "give more text or a smaller --block_size"
        )
    rows = tokens[: count * text_size].reshape(count, text_size).tolist()
    return np.array([tokenizer.build_inputs_with_special_tokens(row) for row in rows], dtype=np.int64)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Group texts for the tokenizer: at most `TEXTS_PER_CALL`, and `CHARACTERS_PER_CALL` unless one has more."""
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and (len(batch) == TEXTS_PER_CALL or size + len(text) > CHARACTERS_PER_CALL):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    yield batch


def mask_tokens(
    ids: torch.Tensor,
    tokenizer: PreTrainedTokenizerFast,
    probability: float,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the tokens to predict: 80 % are masked, 10 % replaced at random, 10 % kept (BERT, section 3.1).

    Args:
        ids: (batch, length) int64, on any device; special tokens are never chosen.
        tokenizer: tokenizer of the ids.
        probability: share of tokens to choose.
        generator: random generator; None uses PyTorch's global generator, which checkpoints restore.

    Returns:
        Masked ids and labels, both (batch, length) int64; labels are `IGNORE_INDEX` where nothing is predicted.
    """
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids, device=ids.device))
    draws = torch.rand((3, *ids.shape), device=ids.device, generator=generator)
    chosen = (draws[0] < probability) & ~special
    labels = torch.where(chosen, ids, IGNORE_INDEX)
    random_ids = (draws[2] * len(tokenizer)).long()
    masked = torch.where(chosen & (draws[1] >= KEPT + REPLACED), int(tokenizer.mask_token_id), ids)
    masked = torch.where(chosen & (draws[1] < REPLACED), random_ids, masked)
    return masked, labels


def make_fixed_mask_dataset(
    ids: np.ndarray, tokenizer: PreTrainedTokenizerFast, probability: float, seed: int
) -> MaskedLMDataset:
    """Mask evaluation blocks (see `mask_tokens`) once, so that losses of epochs and of runs with one seed compare.

    Raises:
        UserError: if no token is masked.
    """
    generator = torch.Generator().manual_seed(seed)
    masked, labels = mask_tokens(torch.from_numpy(ids), tokenizer, probability, generator)
    if (labels == IGNORE_INDEX).all():
        raise UserError(
            f"--mlm_probability {probability}: masks none of the {ids.size} tokens of the evaluation text, so nothing "
            "can be scored; give more text"
        )
    return MaskedLMDataset(masked.numpy(), labels.numpy())

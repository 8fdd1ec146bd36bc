"""Masked language modelling: text to blocks, blocks to masked blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

from adapter_qa.core.errors import UserError
from adapter_qa.data.labels import IGNORED

KEPT, REPLACED = 0.1, 0.1  # of the chosen tokens: left as they are, replaced at random (BERT, section 3.1)


TEXTS_AT_ONCE = 1000


def make_blocks(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, block_size: int) -> np.ndarray:
    """Joins texts, a separator token between them, and cuts them into blocks.

    Args:
        texts: paragraphs.
        tokenizer: a fast one.
        block_size: tokens of a block, special tokens included.

    Returns:
        (blocks, block_size) int64. The rest at the end that fills no block is dropped.

    Raises:
        UserError: there is not enough text for one block.
    """
    pieces: list[np.ndarray] = []
    few = len(texts) <= TEXTS_AT_ONCE
    for first in tqdm(range(0, len(texts), TEXTS_AT_ONCE), desc="blocks", unit="k", disable=few):
        encoded = tokenizer(list(texts[first : first + TEXTS_AT_ONCE]), add_special_tokens=False, verbose=False)
        for ids in encoded["input_ids"]:
            pieces.append(np.array([*ids, tokenizer.sep_token_id], dtype=np.int64))
    tokens = np.concatenate(pieces)
    room = block_size - tokenizer.num_special_tokens_to_add(pair=False)
    count = len(tokens) // room
    if count == 0:
        raise UserError(f"the text has {len(tokens)} tokens, not enough for one block of --block_size {block_size}")
    rows = tokens[: count * room].reshape(count, room).tolist()
    return np.array([tokenizer.build_inputs_with_special_tokens(row) for row in rows], dtype=np.int64)


class Blocks(Dataset):
    """Blocks for the trainer, with labels where they are masked already.

    Args:
        ids: (blocks, block_size) int64.
        labels: the same shape, `IGNORED` where nothing is predicted; None: masked anew whenever they are used.
    """

    def __init__(self, ids: np.ndarray, labels: np.ndarray | None = None):
        self.ids = ids
        self.labels = labels

    def __len__(self) -> int:
        return len(self.ids)

    def lengths(self) -> np.ndarray:
        """(blocks,) int64, tokens of each: all the same."""
        return np.full(*self.ids.shape)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        item = {"input_ids": self.ids[index]}
        return item if self.labels is None else {**item, "labels": self.labels[index]}


def mask_tokens(
    ids: torch.Tensor,
    tokenizer: PreTrainedTokenizerFast,
    probability: float,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Chooses tokens to predict: 80 % of them masked, 10 % replaced at random, 10 % kept (BERT, section 3.1).

    Args:
        ids: (batch, length) int64, on any device; special tokens are never chosen.
        tokenizer: for the ids of its special tokens and its size.
        probability: share of tokens chosen.
        generator: source of randomness; None uses torch's own, which checkpoints restore.

    Returns:
        Masked ids and labels, both (batch, length) int64; labels are `IGNORED` where nothing is predicted.
    """
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids, device=ids.device))
    draws = torch.rand((3, *ids.shape), device=ids.device, generator=generator)
    chosen = (draws[0] < probability) & ~special
    labels = torch.where(chosen, ids, IGNORED)
    words = (draws[2] * len(tokenizer)).long()
    masked = torch.where(chosen & (draws[1] >= KEPT + REPLACED), int(tokenizer.mask_token_id), ids)
    masked = torch.where(chosen & (draws[1] < REPLACED), words, masked)
    return masked, labels


def masked_once(ids: np.ndarray, tokenizer: PreTrainedTokenizerFast, probability: float, seed: int) -> Blocks:
    """Evaluation blocks, masked once and for all, so that losses of different epochs and runs compare."""
    generator = torch.Generator().manual_seed(seed)
    masked, labels = mask_tokens(torch.from_numpy(ids), tokenizer, probability, generator)
    return Blocks(masked.numpy(), labels.numpy())

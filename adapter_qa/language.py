"""Masked language modelling: text to blocks, blocks to masked blocks, and the trainer of a language adapter."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast
from transformers.trainer_utils import EvalLoopOutput

from adapter_qa.batching import IGNORED
from adapter_qa.errors import UserError
from adapter_qa.setup_trainer import SetupTrainer

KEPT, REPLACED = 0.1, 0.1  # of the chosen tokens: left as they are, replaced at random (BERT, section 3.1)
TEXTS_AT_ONCE = 1000
LARGEST_EXPONENT = math.log(sys.float_info.max)  # of e: JSON has no infinity


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


class LanguageTrainer(SetupTrainer):
    """`SetupTrainer` for masked language modelling.

    Training blocks are masked here, batch by batch in the main process, so that masks are new in every epoch and the
    same at any number of data loading workers. The vocabulary is multiplied with the tokens to predict alone: with all
    of them it would be a fifth of the arithmetic of BERT-base, and more memory than all the rest.

    Args:
        tokenizer: of the blocks.
        mlm_probability: share of tokens that are predicted.
        others: as for `SetupTrainer`.
    """

    def __init__(self, *, tokenizer: PreTrainedTokenizerFast, mlm_probability: float, **others: Any):
        super().__init__(**others)
        self.tokenizer_of_blocks = tokenizer
        self.mlm_probability = mlm_probability
        self.predicted: torch.Tensor | None = None  # places of the tokens to predict among all of the batch under way
        self.model.get_output_embeddings().register_forward_pre_hook(self._take_predicted)

    def _take_predicted(self, vocabulary: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """(predicted, h) of (batch, length, h), before they are multiplied with the vocabulary."""
        return given[0] if self.predicted is None else given[0].flatten(0, 1).index_select(0, self.predicted)

    def task_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Cross entropy of the predicted tokens of a batch, in float32, and their number, which may be 0."""
        if "labels" in inputs:
            ids, labels = inputs["input_ids"], inputs["labels"]
        else:
            ids, labels = mask_tokens(inputs["input_ids"], self.tokenizer_of_blocks, self.mlm_probability)
        predicted = (labels.flatten() != IGNORED).nonzero().squeeze(1)
        self.predicted = predicted
        outputs = model(input_ids=ids)
        self.predicted = None
        total = functional.cross_entropy(outputs.logits.float(), labels.flatten()[predicted], reduction="sum")
        return total, total.new_tensor(len(predicted)), outputs

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The library's loop, with the perplexity beside the loss."""
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        metrics = output.metrics or {}
        metrics[f"{metric_key_prefix}_perplexity"] = math.exp(
            min(metrics[f"{metric_key_prefix}_loss"], LARGEST_EXPONENT)
        )
        return output._replace(metrics=metrics)

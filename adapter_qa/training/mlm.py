"""The trainer of a language adapter: masked language modelling."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from adapter_qa.data.label_entropy import entropy
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.masked_lm import mask_tokens
from adapter_qa.training.adapter_trainer import AdapterTrainer, TaskLoss

MAX_EXPONENT = math.log(sys.float_info.max)  # a perplexity above e**MAX_EXPONENT would be infinite: not JSON


class MLMTrainer(AdapterTrainer):
    """`AdapterTrainer` for masked language modelling.

    Training blocks are masked here, batch by batch, so that masks are new in every epoch and the same with any number
    of data loading workers. The output embeddings are multiplied with the hidden states of the masked tokens only.
    For all tokens this product would be a fifth of the arithmetic of BERT-base, and take most of the memory.

    Args:
        tokenizer: of the blocks.
        mlm_probability: share of the tokens that are predicted, 0 to 1.
        kwargs: as for `AdapterTrainer`.
    """

    def __init__(self, *, tokenizer: PreTrainedTokenizerFast, mlm_probability: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.block_tokenizer = tokenizer
        self.mlm_probability = mlm_probability
        self.predicted: torch.Tensor | None = None  # (predicted,) positions in the flattened current batch
        self.model.get_output_embeddings().register_forward_pre_hook(self._select_predicted)

    def _select_predicted(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return (predicted, hidden) of (batch, length, hidden), the input of the output embeddings."""
        hidden = inputs[0]
        return hidden if self.predicted is None else hidden.flatten(0, 1).index_select(0, self.predicted)

    def task_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> TaskLoss:
        """Return the sum of the cross entropies of the predicted tokens, and their number, which may be 0."""
        inputs = self.with_labels(inputs)
        labels = inputs["labels"]
        predicted = (labels.flatten() != IGNORE_INDEX).nonzero().squeeze(1)
        self.predicted = predicted
        outputs = model(input_ids=inputs["input_ids"])
        self.predicted = None
        total = functional.cross_entropy(
            outputs.logits.float(), labels.flatten()[predicted], reduction="sum", label_smoothing=self.smoothing(model)
        )
        return TaskLoss(total, self.loss_weight(inputs), outputs)

    def _mask_duplicate_rows(self, batch: dict[str, torch.Tensor], batch_size: int) -> None:
        """Mark the repeated rows of a batch for training, whose labels are drawn later."""
        own_rows = self.own_rows(batch_size)
        if "labels" not in batch and own_rows is not None:
            ids = batch["input_ids"]
            batch["is_repeated"] = torch.arange(len(ids), device=ids.device) >= own_rows
        super()._mask_duplicate_rows(batch, batch_size)

    def with_labels(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return a batch with its labels; blocks for training are masked for it."""
        if "labels" in inputs:
            return inputs
        ids, labels = mask_tokens(inputs["input_ids"], self.block_tokenizer, self.mlm_probability)
        if "is_repeated" in inputs:
            labels[inputs["is_repeated"]] = IGNORE_INDEX
        return {"input_ids": ids, "labels": labels}

    def loss_weight(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the number of predicted tokens."""
        return (inputs["labels"] != IGNORE_INDEX).sum().float()

    def label_entropy(self) -> float:
        """Return the entropy of the tokens of the training blocks, special tokens left out."""
        dataset: Any = self.train_dataset
        is_special = np.isin(dataset.ids, self.block_tokenizer.all_special_ids)
        return entropy(np.bincount(dataset.ids[~is_special]))

    def loss_scores(self, loss: float) -> dict[str, float]:
        """Return the loss of an evaluation and its perplexity."""
        return {"loss": loss, "perplexity": math.exp(min(loss, MAX_EXPONENT))}

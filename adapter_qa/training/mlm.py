"""Masked language modelling: text to blocks, blocks to masked blocks, and the trainer of a language adapter."""

from __future__ import annotations

import math
import sys
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast
from transformers.trainer_utils import EvalLoopOutput

from adapter_qa.data.masked_lm import mask_tokens
from adapter_qa.data.labels import IGNORED
from adapter_qa.training.adapter_trainer import AdapterTrainer

LARGEST_EXPONENT = math.log(sys.float_info.max)  # of e: JSON has no infinity


class MLMTrainer(AdapterTrainer):
    """`AdapterTrainer` for masked language modelling.

    Training blocks are masked here, batch by batch in the main process, so that masks are new in every epoch and the
    same at any number of data loading workers. The vocabulary is multiplied with the tokens to predict alone: with all
    of them it would be a fifth of the arithmetic of BERT-base, and more memory than all the rest.

    Args:
        tokenizer: of the blocks.
        mlm_probability: share of tokens that are predicted.
        others: as for `AdapterTrainer`.
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

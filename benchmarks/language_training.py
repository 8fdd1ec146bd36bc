"""Measure language adapter training: with logits of every token, or of the predicted tokens only."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from data_path import tiny_tokenizer
from measuring import bert_config, median_seconds, speed_rows
from torch.nn import functional
from transformers import BertForMaskedLM, PreTrainedModel

from adapter_qa.config.options import AdapterOptions
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.masked_lm import MaskedLMDataset
from adapter_qa.models.build import build_setup
from adapter_qa.models.setup_decisions import resolve_setup
from adapter_qa.training.mlm import MLMTrainer
from adapter_qa.training.training_args import TrainerArguments

VOCAB_SIZE = 29_794  # of BERTimbau
BLOCK_SIZE, MLM_PROBABILITY = 128, 0.15
Loss = Callable[[MLMTrainer, torch.Tensor, torch.Tensor], torch.Tensor]


def measure_language(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure blocks per second in the training of a Pfeiffer language adapter, invertible, with reduction 2."""
    generator = np.random.default_rng(0)
    ids = generator.integers(1000, VOCAB_SIZE, (options.steps * options.batch_size, BLOCK_SIZE))
    labels = np.where(generator.random(ids.shape) < MLM_PROBABILITY, ids, IGNORE_INDEX)
    trainer = make_trainer(options, MaskedLMDataset(ids, labels))

    def steps(loss: Loss) -> Callable[[], None]:
        return lambda: run_steps(loss, trainer, ids, labels, options)

    variants = {"vocabulary for every token": steps(loss_of_all_tokens), "ours": steps(trainer_loss)}
    variants["ours"]()  # warm-up
    title = (
        f"language adapter, {options.layers} layers of {options.hidden_size}, batch {options.batch_size} of "
        f"{BLOCK_SIZE}"
    )
    return speed_rows(title, len(ids), "blocks/s", median_seconds(variants, options.rounds))


def make_trainer(options: argparse.Namespace, blocks: MaskedLMDataset) -> MLMTrainer:
    """Make the trainer of a language adapter in a model with random weights."""
    torch.manual_seed(0)
    config = bert_config(VOCAB_SIZE, options.hidden_size, options.layers)
    model: PreTrainedModel = BertForMaskedLM(config)
    adapter = AdapterOptions(adapter_config="pfeiffer+inv", adapter_reduction_factor=2, madx2=True)
    setup = resolve_setup("mlm", config.to_dict(), adapter)
    assert setup is not None  # not full fine-tuning
    build_setup(model, setup)
    return MLMTrainer(
        model=model.to(options.device).train(),
        setup=setup,
        args=TrainerArguments(tempfile.mkdtemp(), report_to=[], use_cpu=options.device == "cpu"),
        tokenizer=tiny_tokenizer([]),
        mlm_probability=MLM_PROBABILITY,
        train_dataset=blocks,
    )


def loss_of_all_tokens(trainer: MLMTrainer, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the loss from the logits of all tokens, most of which it ignores."""
    return functional.cross_entropy(trainer.model(input_ids=ids).logits.flatten(0, 1).float(), labels.flatten())


def trainer_loss(trainer: MLMTrainer, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the loss as the trainer computes it."""
    total, weight, _ = trainer.task_loss(trainer.model, {"input_ids": ids, "labels": labels})
    return total / weight


def run_steps(
    loss_function: Loss, trainer: MLMTrainer, ids: np.ndarray, labels: np.ndarray, options: argparse.Namespace
) -> None:
    """Take optimizer steps over all blocks, (blocks, tokens) ids and labels."""
    trained = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-5, fused=True)
    device_type = options.device.split(":")[0]
    for first in range(0, len(ids), options.batch_size):
        rows = slice(first, first + options.batch_size)
        batch_ids, batch_labels = (torch.from_numpy(array[rows]).to(options.device) for array in (ids, labels))
        with torch.autocast(device_type, dtype=torch.bfloat16, enabled=options.dtype == "bfloat16"):
            loss = loss_function(trainer, batch_ids, batch_labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if device_type == "cuda":
        torch.cuda.synchronize()

"""Masked language modelling of a language adapter: the vocabulary for every token, and for those to predict alone."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from data_path import tiny_tokenizer
from measuring import as_rows, timed
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM

from adapter_qa.config.options import AdapterOptions
from adapter_qa.data.masked_lm import MaskedLMDataset
from adapter_qa.data.labels import IGNORED
from adapter_qa.models.adapter_setup import resolve_setup
from adapter_qa.models.build import build_setup
from adapter_qa.training.mlm import MLMTrainer
from adapter_qa.training.training_args import TrainerArguments

VOCABULARY = 29_794  # of BERTimbau
BLOCK, MASKED = 128, 0.15


def measure_language(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Blocks a second in the training of a language adapter, Pfeiffer, invertible, reduction 2."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=options.hidden_size, num_hidden_layers=options.layers,
        num_attention_heads=options.hidden_size // 64, intermediate_size=4 * options.hidden_size,
    )  # fmt: skip
    model: Any = BertForMaskedLM(config)
    adapter = AdapterOptions(adapter_config="pfeiffer+inv", adapter_reduction_factor=2, madx2=True)
    setup = resolve_setup("mlm", config.to_dict(), adapter)
    assert setup is not None
    build_setup(model, setup)
    draw = np.random.default_rng(0)
    ids = draw.integers(1000, VOCABULARY, (options.steps * options.batch_size, BLOCK))
    labels = np.where(draw.random(ids.shape) < MASKED, ids, IGNORED)
    run = TrainerArguments(tempfile.mkdtemp(), report_to=[], use_cpu=options.device == "cpu")
    trainer = MLMTrainer(
        model=model.to(options.device).train(), setup=setup, args=run, tokenizer=tiny_tokenizer([]),
        mlm_probability=MASKED, train_dataset=MaskedLMDataset(ids, labels),
    )  # fmt: skip
    losses = {"vocabulary for every token": plain_loss, "ours": our_loss}
    ways: dict[str, Callable[[], Any]] = {
        name: partial(train_with, loss, trainer, options) for name, loss in losses.items()
    }
    ways["ours"]()  # warm-up
    what = f"language adapter, {options.layers} layers of {options.hidden_size}, batch {options.batch_size} of {BLOCK}"
    return as_rows(what, len(ids), "blocks/s", timed(ways, options.rounds))


def plain_loss(trainer: MLMTrainer, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Logits of all tokens, most of which no loss counts."""
    return functional.cross_entropy(trainer.model(input_ids=ids).logits.flatten(0, 1).float(), labels.flatten())


def our_loss(trainer: MLMTrainer, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """As the trainer computes it."""
    total, weight, _ = trainer.task_loss(trainer.model, {"input_ids": ids, "labels": labels})
    return total / weight


def train_with(loss: Callable[..., torch.Tensor], trainer: MLMTrainer, options: argparse.Namespace) -> None:
    """Optimizer steps over all blocks."""
    blocks: Any = trainer.train_dataset
    optimizer = torch.optim.AdamW([one for one in trainer.model.parameters() if one.requires_grad], 1e-5, fused=True)
    kind = options.device.split(":")[0]
    for first in range(0, len(blocks), options.batch_size):
        rows = slice(first, first + options.batch_size)
        batch = [torch.from_numpy(part[rows]).to(options.device) for part in (blocks.ids, blocks.labels)]
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=options.dtype == "bfloat16"):
            found = loss(trainer, *batch)
        found.backward()
        optimizer.step()
        optimizer.zero_grad()
    if kind == "cuda":
        torch.cuda.synchronize()

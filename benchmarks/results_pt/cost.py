#!/usr/bin/env python
"""Estimate what each setup costs on a GPU: memory of a training step and hours of a training. Nothing is trained.

    python benchmarks/results_pt/cost.py                      # BERT-large, all of SQuAD-pt, the H200 that was measured
    python benchmarks/results_pt/cost.py --hidden_size 768 --layers 12

Memory is weights, gradients and the optimizer's two moments, and the tensors that a forward pass saves for the
backward pass in the longest batch. They are counted on the CPU in models of two and three layers, in bfloat16, and grow
by the same number of bytes with each layer. Hours are multiply-adds of a window (`whole_runs.multiply_adds`) over the
rate that fusion training of BERT-large reached. Temporary tensors of a step, fragmentation and CUDA itself come on top.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import BertForQuestionAnswering, PreTrainedModel

sys.path += [str(Path(__file__).resolve().parents[level]) for level in (1, 2)]

from measuring import bert_config
from whole_runs import multiply_adds

from adapter_qa.config.options import AdapterOptions, FusionOptions, LanguageAdapterOptions
from adapter_qa.models.build import build_setup, cast_frozen_weights
from adapter_qa.models.setup_decisions import resolve_setup

VOCABULARY = 29_794  # of BERTimbau
MAX_LENGTH = 384
MEAN_LENGTH = 181  # tokens of a window of SQuAD-pt
EVALUATION_WINDOWS = 10_917  # of 10,570 questions
WINDOWS = round(87_510 * EVALUATION_WINDOWS / 10_570)  # of the training part, if its questions have as many
MEASURED_WINDOWS = 173.1  # a second: fusion training, BERT-large, batch 16, bfloat16, one H200 (docs/speed.md)
SETUPS = ("full", "qa", "lang_qa", "fusion")


class Memory(NamedTuple):
    """Bytes of a training step."""

    weights: int
    gradients_and_moments: int
    activations: int


def main() -> None:
    """Print the costs of all setups as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden_size", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    rows = {}
    for setup in SETUPS:
        memory = estimate_memory(setup, options.hidden_size, options.layers, options.batch_size)
        seconds = estimate_seconds(setup, options.hidden_size, options.layers)
        rows[setup] = {
            **{f"{name}_gb": round(size / 1e9, 2) for name, size in memory._asdict().items()},
            "total_gb": round(sum(memory) / 1e9, 1),
            "hours": round(options.epochs * seconds / 3600, 2),
        }
    print(json.dumps({**vars(options), "windows": WINDOWS, "tokens": MAX_LENGTH, "setups": rows}, indent=1))


def estimate_memory(setup: str, width: int, layers: int, batch: int) -> Memory:
    """Estimate the memory of a step from models of two and three layers; the last one has no adapter."""
    few, more = (make_model(setup, width, count) for count in (2, 3))

    def extrapolate(smaller: int, larger: int) -> int:
        return smaller + (layers - 2) * (larger - smaller)

    weights = extrapolate(*(sum(tensor.nbytes for tensor in model.parameters()) for model in (few, more)))
    trained = extrapolate(*(sum(tensor.nbytes for tensor in trained_weights(model)) for model in (few, more)))
    activations = extrapolate(*(saved_bytes(model, batch) for model in (few, more)))
    return Memory(weights, 3 * trained, activations)


def make_model(setup: str, width: int, layers: int) -> PreTrainedModel:
    """Make a BERT with random weights for the training of a setup with MAD-X 2.0 and adapters as in 2021."""
    config = bert_config(VOCABULARY, width, layers)
    model: PreTrainedModel = BertForQuestionAnswering(config)
    model.train()
    if setup == "full":
        return model
    language = LanguageAdapterOptions(load_lang_adapter="new", lang_adapter_non_linearity="gelu")
    decided = resolve_setup(
        "qa",
        config.to_dict(),
        AdapterOptions(madx2=True, adapter_non_linearity="gelu"),
        language if setup in ("lang_qa", "fusion") else None,
        FusionOptions(fuse_adapters=["qa=new", "ner=new"] if setup == "fusion" else None),
        random_init=True,
    )
    assert decided is not None  # not full fine-tuning
    build_setup(model, decided)
    cast_frozen_weights(model, torch.bfloat16)
    return model


def trained_weights(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """Return the weights that are trained."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def saved_bytes(model: PreTrainedModel, batch: int) -> int:
    """Return the bytes that a forward pass saves for the backward pass, weights left out."""
    storages: dict[int, int] = {weight.untyped_storage().data_ptr(): 0 for weight in model.parameters()}
    kept: list[torch.Tensor] = []  # alive, so that no address is used twice

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in storages:
            storages[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    ids = torch.randint(0, VOCABULARY, (batch, MAX_LENGTH))
    hooks = torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    del output
    return sum(storages.values())


def estimate_seconds(setup: str, width: int, layers: int) -> float:
    """Estimate the seconds of an epoch and its evaluation from the measured rate of fusion training."""
    lengths = np.full(1, MEAN_LENGTH)
    rate = MEASURED_WINDOWS * multiply_adds("fusion", "training", lengths, 1024, 24)
    kind = {"full": "full", "fusion": "fusion"}.get(setup, "adapter")
    training = WINDOWS * multiply_adds(kind, "training", lengths, width, layers)
    evaluation = EVALUATION_WINDOWS * multiply_adds(kind, "evaluation", lengths, width, layers)
    seconds: float = (training + evaluation) / rate
    return seconds


if __name__ == "__main__":
    main()

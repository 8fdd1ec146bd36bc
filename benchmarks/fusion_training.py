"""Measure fusion training: padded, grouped by length, and with our samplers and fusion layers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adapters import AdapterFusionConfig
from adapters.methods.bottleneck import BottleneckLayer
from adapters.methods.modeling import BertFusion
from measuring import OperatorCounter, bert_config, matrix_rate, median_seconds, speed_rows
from torch.profiler import ProfilerActivity, profile
from transformers import BertForQuestionAnswering, PreTrainedModel
from transformers.trainer_pt_utils import LengthGroupedSampler

from adapter_qa.config.options import AdapterOptions, FusionOptions, LanguageAdapterOptions
from adapter_qa.data.batches import encoder_inputs
from adapter_qa.data.samplers import BucketSampler
from adapter_qa.data.window_dataset import WindowCollator
from adapter_qa.data.windows import Window
from adapter_qa.models.build import build_setup, cast_frozen_weights
from adapter_qa.models.fast_step import use_fast_step
from adapter_qa.models.fusion import REGULARIZATION, FusionLayer, fusion_regularization
from adapter_qa.models.parameters import fusion_values
from adapter_qa.models.setup_decisions import resolve_setup
from trainer_qa import span_loss

MAX_LENGTH = 384
# Windows of SQuAD-pt with a cased Portuguese vocabulary and at most 384 tokens: mean 181 tokens, 5 % below 101, median
# 167, 5 % above 321. This gamma distribution, cut at both ends, has mean 182 and percentiles 100, 173 and 290.
GAMMA_SHAPE, GAMMA_SCALE, MIN_LENGTH = 9.0, 20.0, 40
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class FusionTraining:
    """A model in fusion training, and how its steps are computed.

    Attributes:
        model: the model.
        forward: the model, or its compiled form.
        optimizer: its optimizer.
        regularization: returns the loss to add, from the value matrices, (h, h) each.
        select_inputs: returns the encoder's input, from a batch and the names of tensors.
    """

    model: PreTrainedModel
    forward: Callable[..., Any]
    optimizer: torch.optim.Optimizer
    regularization: Callable[[Sequence[torch.nn.Parameter]], torch.Tensor]
    select_inputs: Callable[[Batch, Iterable[str]], Batch]


def measure_training(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure fusion training of Stack(mlm, Fuse(qa, ner)) with MAD-X 2.0 and a frozen base.

    The rows have windows per second, useful tokens per second, the useful arithmetic as a share of the device's matrix
    rate, and the number of operators in a step.
    """
    generator = np.random.default_rng(0)
    sizes = generator.gamma(GAMMA_SHAPE, GAMMA_SCALE, 50 * options.batch_size)
    lengths = np.clip(sizes, MIN_LENGTH, MAX_LENGTH).astype(int)
    library, ours = make_training(options, fast=False), make_training(options, fast=True)
    grouped = list(LengthGroupedSampler(options.batch_size, lengths=lengths.tolist()))
    shuffled = generator.permutation(len(lengths)).tolist()
    bucketed = list(BucketSampler(lengths, options.batch_size, 0))
    setups: dict[str, tuple[FusionTraining, list[int], int | None]] = {
        "padded to 384": (library, shuffled, MAX_LENGTH),
        "grouped by length, library's fusion": (library, grouped, None),
        "ours": (ours, bucketed, None),
    }
    for mode in options.compile:
        compiled = replace(ours, forward=torch.compile(ours.model, dynamic=True, mode=mode))
        setups[f"ours, compiled, {mode}"] = (compiled, bucketed, None)

    def steps(training: FusionTraining, batches: list[Batch]) -> Callable[[], None]:
        return lambda: run_steps(training, batches, options)

    variants: dict[str, Callable[[], None]] = {}
    lengths_of = {}
    for name, (training, order, padded_length) in setups.items():
        rows = typical_rows(order, lengths, options)
        lengths_of[name] = lengths[rows]
        variants[name] = steps(training, list(random_batches(lengths[rows], options, padded_length)))
    for run in variants.values():
        run()  # warm-up
    if options.profile is not None:
        write_profiles(variants, Path(options.profile) / f"profile_fusion_{options.device.split(':')[0]}.txt")
    seconds = median_seconds(variants, options.rounds)
    title = f"fusion training, {options.layers} layers of {options.hidden_size}, batch {options.batch_size}"
    table = speed_rows(title, options.batch_size * options.steps, "windows/s", seconds)
    tokens = int(lengths.mean() * options.batch_size)
    rate = matrix_rate(options.device, options.dtype, options.hidden_size, tokens).multiply_adds
    for row, (name, value) in zip(table, seconds.items(), strict=True):
        if "compiled" not in name:
            with OperatorCounter() as operators:
                variants[name]()
            row["operators_per_step"] = round(operators.count / options.steps)
        row["useful_tokens_per_second"] = int(lengths_of[name].sum()) / value
        row["share_of_matrix_rate"] = useful_multiply_adds(lengths_of[name], options) / value / rate
    return table


def useful_multiply_adds(lengths: np.ndarray, options: argparse.Namespace) -> float:
    """Return the multiply-adds that a forward and backward pass over windows needs, without padding.

    Forward, for each token and layer of width h: attention 4h² + 2·length·h; feed-forward 8h²; language adapter h²
    (reduction 2); two task adapters (reduction 16) h²/8 for their down-projections; their fusion 2·h²/8, because R is
    h/8. Backward: the same for gradients of inputs, except below the first fusion, and for gradients of weights the
    fusion only. Products that are computed once per step (`models.fusion`) are left out. The last layer has no adapters
    (MAD-X 2.0).

    Args:
        lengths: (windows,) tokens of each window.
        options: `hidden_size` and `layers`.
    """
    width, layers = options.hidden_size, options.layers
    base = 12 * width**2 + 2 * lengths * width
    adapters = width**2 + width**2 / 8
    fusion = width**2 / 4
    forward = layers * base + (layers - 1) * (adapters + fusion)
    # Both products in attention have two inputs with gradients.
    backward = (layers - 1) * (base + 2 * lengths * width) + (layers - 2) * (adapters + fusion) + (layers - 1) * fusion
    return float((lengths * (forward + backward)).sum())


def write_profiles(variants: dict[str, Callable[[], None]], path: Path) -> None:
    """Write the operators that take most of each variant's time, as text."""
    tables = []
    for name, run in variants.items():
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        with profile(activities=activities) as profiler:
            run()
        order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=order, row_limit=15, max_name_column_width=40)
        tables.append(f"{name}\n\n{table}")
    lines = [line.rstrip() for line in "\n\n".join(tables).splitlines()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def typical_rows(order: list[int], lengths: np.ndarray, options: argparse.Namespace) -> np.ndarray:
    """Choose as many batches as there are steps, spread evenly over the batches' mean lengths.

    Args:
        order: the windows of an epoch in the order of its batches.
        lengths: (windows,) tokens of each window.
        options: `batch_size` and `steps`.

    Returns:
        (steps * batch_size,) indices of windows.
    """
    complete = len(order) // options.batch_size * options.batch_size  # windows in complete batches
    batches = np.array(order[:complete]).reshape(-1, options.batch_size)
    by_length = batches[np.argsort(lengths[batches].mean(axis=1))]
    chosen = ((np.arange(options.steps) + 0.5) * len(by_length) / options.steps).astype(int)
    rows: np.ndarray = by_length[chosen].ravel()
    return rows


def make_training(options: argparse.Namespace, *, fast: bool) -> FusionTraining:
    """Make a model with random weights for fusion training, with our or the library's fusion layers."""
    torch.manual_seed(0)
    config = bert_config(29_794, options.hidden_size, options.layers)
    model: PreTrainedModel = BertForQuestionAnswering(config)
    setup = resolve_setup(
        "qa",
        config.to_dict(),
        AdapterOptions(madx2=True, adapter_non_linearity="gelu"),
        LanguageAdapterOptions(load_lang_adapter="new", lang_adapter_non_linearity="gelu"),
        FusionOptions(fuse_adapters=["qa=new", "ner=new"]),
        random_init=True,
    )
    assert setup is not None  # not full fine-tuning
    build_setup(model, setup)
    if not fast:
        restore_library_fusion(model)
    else:
        if options.dtype != "float32":
            cast_frozen_weights(model, getattr(torch, options.dtype))
        if options.device == "cpu":
            use_fast_step(model)
    model.to(options.device).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return FusionTraining(
        model,
        forward=model,
        optimizer=torch.optim.AdamW(weights, lr=1e-5, fused=fast),
        regularization=fusion_regularization if fast else library_regularization,
        select_inputs=encoder_inputs if fast else library_inputs,
    )


def restore_library_fusion(model: torch.nn.Module) -> None:
    """Replace our fusion layers by the library's, with the same parameters."""
    config = AdapterFusionConfig.load("dynamic")
    for site in (module for module in model.modules() if isinstance(module, BottleneckLayer)):
        for name, layer in site.adapter_fusion_layer.items():
            if isinstance(layer, FusionLayer):
                restored = BertFusion(config, layer.query.in_features, layer.dropout.p)
                restored.query, restored.key, restored.value = layer.query, layer.key, layer.value
                site.adapter_fusion_layer[name] = restored
                del site.compose_fuse


def library_regularization(values: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """Return the regularization of value matrices, (h, h) each, with the library's arithmetic."""
    total = torch.zeros((), device=values[0].device)
    for weight in values:
        total = total + (weight - torch.eye(len(weight), device=weight.device)).pow(2).sum()
    return REGULARIZATION * total


def library_inputs(batch: Batch, names: Iterable[str]) -> Batch:
    """Return the named tensors unchanged."""
    return {name: batch[name] for name in names}


def random_batches(lengths: np.ndarray, options: argparse.Namespace, padded_length: int | None) -> Iterator[Batch]:
    """Generate batches of windows with random tokens.

    Args:
        lengths: (windows,) tokens of each window.
        options: `batch_size`, `dtype` and `device`.
        padded_length: tokens to pad to; None for the longest window of each batch.
    """
    generator = np.random.default_rng(1)
    collator = WindowCollator(0, False, length=padded_length, multiple=8 if options.dtype == "bfloat16" else 1)
    for first in range(0, len(lengths), options.batch_size):
        windows = []
        for size in lengths[first : first + options.batch_size]:
            in_context = np.arange(size) > 15
            token_types = in_context.astype(np.int8)
            ids = generator.integers(1000, 29_000, size)
            windows.append(Window(ids, token_types, in_context, start_position=20, end_position=22, cls_position=0))
        yield {name: tensor.to(options.device) for name, tensor in collator(windows).items()}


def run_steps(training: FusionTraining, batches: list[Batch], options: argparse.Namespace) -> None:
    """Take an optimizer step for each batch, as the trainer does."""
    values = [weight for _, weight in fusion_values(training.model)]
    trained = [weight for weight in training.model.parameters() if weight.requires_grad]
    device_type = options.device.split(":")[0]
    for batch in batches:
        with torch.autocast(device_type, dtype=torch.bfloat16, enabled=options.dtype == "bfloat16"):
            output = training.forward(**training.select_inputs(batch, INPUTS))
        loss = span_loss(output.start_logits, output.end_logits, batch, None) + training.regularization(values)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        training.optimizer.step()
        training.optimizer.zero_grad()
    if device_type == "cuda":
        torch.cuda.synchronize()

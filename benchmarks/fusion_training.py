"""Fusion training: padded, grouped by length, and our way; useful arithmetic against what the device can do."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adapters import AdapterFusionConfig
from adapters.methods.bottleneck import BottleneckLayer
from adapters.methods.modeling import BertFusion
from measuring import Launches, as_rows, matrix_rate, timed
from torch.profiler import ProfilerActivity, profile
from transformers import BertConfig, BertForQuestionAnswering
from transformers.trainer_pt_utils import LengthGroupedSampler

from adapter_qa.config.options import AdapterOptions, FusionOptions, LanguageAdapterOptions
from adapter_qa.data.batches import encoder_inputs
from adapter_qa.data.samplers import BucketSampler
from adapter_qa.data.window_dataset import WindowCollator
from adapter_qa.data.windows import Window
from adapter_qa.models.adapter_setup import resolve_setup
from adapter_qa.models.build import build_setup, cast_frozen_weights
from adapter_qa.models.fusion import REGULARIZATION, FusionLayer, fusion_regularization
from adapter_qa.models.parameters import fusion_values
from trainer_qa import span_loss

PADDED = 384
# SQuAD-pt with a cased Portuguese vocabulary, question and context at most 384 tokens: mean 181, 5 % below 101, median
# 167, 5 % above 321. A gamma distribution of this shape, cut at both ends, has mean 182, 5th 100, 50th 173, 95th 290.
SHAPE, SCALE, SHORTEST = 9.0, 20.0, 40
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def measure_training(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Fusion training, Stack(mlm, Fuse(qa, ner)) with MAD-X 2.0, the base frozen: windows a second, useful tokens a
    second, the share of the device's matrix rate that useful arithmetic makes, and the operators of a step.
    """
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.gamma(SHAPE, SCALE, 50 * options.batch_size), SHORTEST, PADDED).astype(int)
    plain, ours = fusion_model(options, exact=False), fusion_model(options, exact=True)
    grouped = list(LengthGroupedSampler(options.batch_size, lengths=lengths.tolist()))
    shuffled = draw.permutation(len(lengths)).tolist()
    bucketed = list(BucketSampler(lengths, options.batch_size, 0))
    orders = {
        "padded to 384": (plain, shuffled, PADDED),
        "grouped by length, library's fusion": (plain, grouped, None),
        "ours": (ours, bucketed, None),
    }
    for mode in options.compile:
        compiled = {**ours, "forward": torch.compile(ours["model"], dynamic=True, mode=mode)}
        orders[f"ours, compiled, {mode}"] = (compiled, bucketed, None)
    ways: dict[str, Callable[[], Any]] = {}
    chosen = {}
    for name, (trainer, order, fixed) in orders.items():
        chosen[name] = lengths[typical(order, lengths, options)]
        batches = list(random_batches(typical(order, lengths, options), lengths, options, fixed))
        ways[name] = partial(train_on, trainer, batches, options)
    for way in ways.values():
        way()  # warm-up
    if options.profile is not None:
        write_profiles(ways, Path(options.profile) / f"profile_fusion_{options.device.split(':')[0]}.txt")
    seconds = timed(ways, options.rounds)
    what = f"fusion training, {options.layers} layers of {options.hidden_size}, batch {options.batch_size}"
    rows = as_rows(what, options.batch_size * options.steps, "windows/s", seconds)
    rate = matrix_rate(options.device, getattr(torch, options.dtype))
    for row, (name, value) in zip(rows, seconds.items(), strict=True):
        if "compiled" not in name:
            with Launches() as launches:
                ways[name]()
            row["operators_per_step"] = round(launches.count / options.steps)
        row["useful_tokens_per_second"] = int(chosen[name].sum()) / value
        row["share_of_matrix_rate"] = useful_arithmetic(chosen[name], options) / value / rate
    return rows


def useful_arithmetic(lengths: np.ndarray, options: argparse.Namespace) -> float:
    """Multiply-adds of one forward and backward pass over windows without padding, as far as they are needed.

    Forward, a token and layer of width h: attention 4h² + 2·length·h, feed-forward 8h², language adapter h² (reduction
    2); two task adapters (reduction 16), h²/8 for their down-projections, and a fusion of them, 2·h²/8, R being h/8.
    Backward: the same for gradients of inputs, except below the first fusion; for weights, the fusion's alone. What
    is multiplied once a step (`adapter_qa.fusion`) is left out. The last layer has no adapters (MAD-X 2.0).
    """
    width, layers = options.hidden_size, options.layers
    base = 12 * width**2 + 2 * lengths * width
    adapters = width**2 + width**2 / 8
    fusion = width**2 / 4
    forward = layers * base + (layers - 1) * (adapters + fusion)
    # Attention's two products each have two inputs that want gradients.
    backward = (layers - 1) * (base + 2 * lengths * width) + (layers - 2) * (adapters + fusion) + (layers - 1) * fusion
    return float((lengths * (forward + backward)).sum())


def write_profiles(ways: dict[str, Callable[[], Any]], path: Path) -> None:
    """Where the time of each way goes, as text: the operators that take most of it."""
    parts = []
    for name, way in ways.items():
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        with profile(activities=kinds) as watched:
            way()
        order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        parts.append(f"{name}\n\n{watched.key_averages().table(sort_by=order, row_limit=15, max_name_column_width=40)}")
    lines = [line.rstrip() for line in "\n\n".join(parts).splitlines()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def typical(order: list[int], lengths: np.ndarray, options: argparse.Namespace) -> list[int]:
    """As many batches as are measured, spread over an epoch's lengths: neither the short nor the long ones alone."""
    full = len(order) // options.batch_size * options.batch_size
    batches = np.array(order[:full]).reshape(-1, options.batch_size)
    by_length = batches[np.argsort(lengths[batches].mean(axis=1))]
    places = ((np.arange(options.steps) + 0.5) * len(by_length) / options.steps).astype(int)
    return by_length[places].ravel().tolist()


def fusion_model(options: argparse.Namespace, *, exact: bool) -> dict[str, Any]:
    """A model with random weights in fusion training, its optimizer, and its regulariser."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=29_794, hidden_size=options.hidden_size, num_hidden_layers=options.layers,
        num_attention_heads=options.hidden_size // 64, intermediate_size=4 * options.hidden_size,
    )  # fmt: skip
    model: Any = BertForQuestionAnswering(config)
    setup = resolve_setup(
        "qa",
        config.to_dict(),
        AdapterOptions(madx2=True, adapter_non_linearity="gelu"),
        LanguageAdapterOptions(load_lang_adapter="new", lang_adapter_non_linearity="gelu"),
        FusionOptions(fuse_adapters=["qa=new", "ner=new"]),
        random_init=True,
    )
    assert setup is not None
    build_setup(model, setup)
    if not exact:
        put_library_fusion_back(model)
    elif options.dtype != "float32":
        cast_frozen_weights(model, getattr(torch, options.dtype))
    model.to(options.device).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5, fused=exact)
    return {
        "model": model,
        "forward": model,
        "optimizer": optimizer,
        "pull": fusion_regularization if exact else plain_pull,
        "inputs": encoder_inputs if exact else plain_inputs,
    }


def put_library_fusion_back(model: torch.nn.Module) -> None:
    """The library's layer with the same parameters in place of ours."""
    config = AdapterFusionConfig.load("dynamic")
    for place in (module for module in model.modules() if isinstance(module, BottleneckLayer)):
        for name, layer in place.adapter_fusion_layer.items():
            assert isinstance(layer, FusionLayer)
            plain = BertFusion(config, layer.query.in_features, layer.dropout.p)
            plain.query, plain.key, plain.value = layer.query, layer.key, layer.value
            place.adapter_fusion_layer[name] = plain
            del place.compose_fuse


def plain_pull(values: list[torch.nn.Parameter]) -> torch.Tensor:
    """The regulariser as the library computes it."""
    total = torch.zeros((), device=values[0].device)
    for weight in values:
        total = total + (weight - torch.eye(len(weight), device=weight.device)).pow(2).sum()
    return REGULARIZATION * total


def plain_inputs(batch: dict[str, torch.Tensor], names: Iterable[str]) -> dict[str, torch.Tensor]:
    """The named tensors as they are."""
    return {name: batch[name] for name in names}


def random_batches(
    order: Sequence[int], lengths: np.ndarray, options: argparse.Namespace, fixed: int | None
) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of random tokens in the order given."""
    draw = np.random.default_rng(1)
    collator = WindowCollator(0, False, length=fixed, multiple=8 if options.dtype == "bfloat16" else 1)
    for first in range(0, len(order), options.batch_size):
        rows = []
        for index in order[first : first + options.batch_size]:
            size = int(lengths[index])
            ids = draw.integers(1000, 29_000, size)
            types = np.arange(size) > 15
            rows.append(Window(ids, types, types, start_position=20, end_position=22, cls_position=0))
        yield {name: tensor.to(options.device) for name, tensor in collator(rows).items()}


def train_on(trainer: dict[str, Any], batches: list[dict[str, torch.Tensor]], options: argparse.Namespace) -> None:
    """Optimizer steps as the trainer does them."""
    model, optimizer = trainer["model"], trainer["optimizer"]
    values = [weight for _, weight in fusion_values(model)]
    kind = options.device.split(":")[0]
    for batch in batches:
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=options.dtype == "bfloat16"):
            output = trainer["forward"](**trainer["inputs"](batch, INPUTS))
        loss = span_loss(output.start_logits, output.end_logits, batch, None) + trainer["pull"](values)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([one for one in model.parameters() if one.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
    if kind == "cuda":
        torch.cuda.synchronize()

"""A model exported by export_qa.py against its source in torch, on the CPU: forward passes of the same inputs."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fusion_training import make_training
from measuring import median_seconds

SHAPES = ((1, 64), (1, 384), (16, 64), (16, 384))  # windows, tokens


def measure_exported(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Windows a second of both, in each of `SHAPES`, all tokens real; they take turns.

    The model is that of --run, or Stack(mlm, Fuse(qa, ner)) with random weights, of --layers and --hidden_size.
    """
    from adapter_qa.inference.onnx_export import ask_graph, export_graph, logits_of, open_graph
    from adapter_qa.models.fusion import use_inference_fusion
    from predictor_qa import QuestionAnswerer

    what = f"{options.layers} layers of {options.hidden_size}, Stack[mlm, Fuse[qa, ner]]"
    if options.run is None:
        model = make_training(argparse.Namespace(**vars(options) | {"device": "cpu"}), fast=True).model
        use_inference_fusion(model)
    else:
        answerer = QuestionAnswerer(options.run, device="cpu")
        model, what = answerer.model, f"{Path(options.run).name}, {answerer.setup.block if answerer.setup else 'whole'}"
    model.eval()
    draw = torch.Generator().manual_seed(0)
    batches = [
        {
            "input_ids": torch.randint(1000, 20_000, shape, generator=draw),
            "attention_mask": torch.ones(shape, dtype=torch.int64),
            "token_type_ids": torch.ones(shape, dtype=torch.int64),
        }
        for shape in SHAPES
    ]
    path = Path(tempfile.mkdtemp()) / "model.onnx"
    export_graph(model, list(batches[0]), path, opset=25)
    session = open_graph(path, torch.get_num_threads())
    rows: list[dict[str, Any]] = []
    for (windows, tokens), batch in zip(SHAPES, batches, strict=True):
        ways: dict[str, Callable[[], Any]] = {
            "torch": partial(logits_of, model, batch),
            "onnxruntime": partial(ask_graph, session, batch),
        }
        for way in ways.values():
            way()  # warm-up
        seconds = median_seconds(ways, options.rounds)
        for name, value in seconds.items():
            rows.append(
                {
                    "what": f"{what}, {windows} x {tokens}: {name}",
                    "figure": windows / value,
                    "unit": "windows/s",
                    "times": f"{seconds['torch'] / value:.2f} x",
                    "load": os.getloadavg()[0],
                }
            )
    return rows

"""Compare exported models, float32 and int8, with their source in torch, on the CPU: forward passes of same inputs."""

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
from measuring import median_seconds, speed_rows

OPSET = 23  # the default of export_qa.py
SHAPES = ((1, 64), (1, 384), (16, 64), (16, 384))  # windows, tokens


def measure_exported(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the windows per second of all three for each of `SHAPES`, without padding.

    The model is that of --run, or Stack(mlm, Fuse(qa, ner)) with random weights and --layers and --hidden_size.
    """
    from adapter_qa.inference.exported_model import open_session
    from adapter_qa.inference.onnx_export import export_graph, graph_logits, model_logits
    from adapter_qa.inference.quantization import write_int8_graph
    from adapter_qa.models.fusion import use_inference_fusion
    from predictor_qa import QuestionAnswerer

    if options.run is None:
        title = f"{options.layers} layers of {options.hidden_size}, Stack[mlm, Fuse[qa, ner]]"
        model = make_training(argparse.Namespace(**vars(options) | {"device": "cpu"}), fast=True).model
        use_inference_fusion(model)
    else:
        answerer = QuestionAnswerer(options.run, device="cpu")
        title = f"{Path(options.run).name}, {answerer.setup.block if answerer.setup else 'full fine-tuning'}"
        model = answerer.model
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
    folder = Path(tempfile.mkdtemp())
    export_graph(model, list(batches[0]), folder / "float32.onnx", opset=OPSET)
    sample = {name: tensor[:1].numpy() for name, tensor in batches[1].items()}
    write_int8_graph(folder / "float32.onnx", folder / "int8.onnx", [sample])
    sessions = {name: open_session(folder / f"{name}.onnx", torch.get_num_threads()) for name in ("float32", "int8")}
    rows: list[dict[str, Any]] = []
    for (windows, tokens), batch in zip(SHAPES, batches, strict=True):
        variants: dict[str, Callable[[], object]] = {"torch": partial(model_logits, model, batch)}
        for name, session in sessions.items():
            variants[f"onnxruntime, {name}"] = partial(graph_logits, session, batch)
        for run in variants.values():
            run()  # warm-up
        seconds = median_seconds(variants, options.rounds)
        load = {"load": os.getloadavg()[0]}
        rows += [row | load for row in speed_rows(f"{title}, {windows} x {tokens}", windows, "windows/s", seconds)]
    return rows

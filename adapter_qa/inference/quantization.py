"""Replace the float32 graph of an exported folder by one in 8-bit integers, and measure what that costs in F1."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata
from tqdm import tqdm

from adapter_qa.core.errors import RunError
from adapter_qa.data.questions import Question
from adapter_qa.data.squad_metrics import squad_metrics
from adapter_qa.inference.export_layout import GRAPH_FILE
from adapter_qa.inference.exported_model import ExportedModel, open_session

INT8_FILE = "int8.onnx"  # until it replaces GRAPH_FILE


def quantize_export(folder: Path, questions: Sequence[Question], max_f1_loss: float) -> dict[str, Any]:
    """Replace the graph of an exported folder by its int8 form, if that answers questions nearly as well.

    Returns:
        What the folder's `EXPORT_FILE` says about it: the form, and scores of both graphs in percent.

    Raises:
        RunError: the int8 graph loses more than `max_f1_loss` points of F1.
    """
    model = ExportedModel.load(folder)
    before = score(model, questions, "float32")
    write_int8_graph(folder / GRAPH_FILE, folder / INT8_FILE)
    after = score(dataclasses.replace(model, session=open_session(folder / INT8_FILE)), questions, "int8")
    loss = before["f1"] - after["f1"]
    if loss > max_f1_loss:
        raise RunError(
            f"int8 loses {loss:.2f} points of F1 on {len(questions)} questions (float32 {before['f1']:.2f}, int8 "
            f"{after['f1']:.2f}), allowed are {max_f1_loss:g}; nothing was written; leave out --int8, or allow more "
            "with --max_f1_loss"
        )
    for path in folder.glob(f"{GRAPH_FILE}*"):  # weights of more than 2 GB have a file of their own
        path.unlink()
    (folder / INT8_FILE).rename(folder / GRAPH_FILE)
    return {
        "precision": "int8: weights per channel, activations dynamic; embeddings, attention and head in float32",
        "evaluation": {"float32": before, "int8": after, "f1_loss": loss},
    }


def write_int8_graph(source: Path, target: Path) -> None:
    """Write a graph whose products of activations and weights are in 8-bit integers, all but those of the head."""
    model = onnx.load(source)
    add_pre_process_metadata(model)  # else a warning: the graph is optimized when it is loaded
    quantize_dynamic(
        model,
        target,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=_head(model.graph),
    )


def _head(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the products that give the logits: the last one, the nodes being in the order of the work."""
    return [node.name for node in graph.node if node.op_type == "MatMul"][-1:]


def score(model: ExportedModel, questions: Sequence[Question], name: str) -> dict[str, float]:
    """Answer questions, with a progress bar, and return the scores of `squad_metrics` in percent."""
    with tqdm(desc=f"answering, {name}", unit=" windows", leave=False, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        answers = model.answer_all(questions, on_progress=show)
    return squad_metrics(answers.texts(), questions, version_2=model.options["version_2"])

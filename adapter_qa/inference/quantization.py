"""Replace the float32 graph of an exported folder by one in 8-bit integers, and measure what that costs in F1."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata
from tqdm import tqdm

from adapter_qa.core.errors import RunError
from adapter_qa.data.questions import Question
from adapter_qa.data.squad_metrics import squad_metrics
from adapter_qa.data.windows import make_windows, pad_windows
from adapter_qa.inference.export_layout import GRAPH_FILE
from adapter_qa.inference.exported_model import ExportedModel, open_session

INT8_FILE = "int8.onnx"  # until it replaces GRAPH_FILE
SAMPLES = 16  # windows that are read to find outliers
# A fusion on an e5 encoder, F1 46.7 on 150 questions: 43.5 with all products but the head in int8, 45.5 with 0.4 (25 of
# 169 stay float32), 49.0 with 0.25 (41), 48.1 with 0.15 (55); of its answers 88 % are those of float32 with 0.25.
LARGEST_STEP = 0.25
Inputs = dict[str, np.ndarray]


def quantize_export(folder: Path, questions: Sequence[Question], max_f1_loss: float) -> dict[str, Any]:
    """Replace the graph of an exported folder by its int8 form, if that answers questions nearly as well.

    Returns:
        What the folder's `EXPORT_FILE` says about it: the form, and scores of both graphs in percent.

    Raises:
        RunError: the int8 graph loses more than `max_f1_loss` points of F1.
    """
    model = ExportedModel.load(folder)
    before = score(model, questions, "float32")
    kept = write_int8_graph(folder / GRAPH_FILE, folder / INT8_FILE, sample_windows(model, questions))
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
        "precision": "int8 products: weights per channel, activations dynamic; all else in float32",
        "float32_products": kept,
        "evaluation": {"float32": before, "int8": after, "f1_loss": loss},
    }


def sample_windows(model: ExportedModel, questions: Sequence[Question]) -> Iterator[Inputs]:
    """Yield the first `SAMPLES` windows of questions, each by itself."""
    sizes = {name: model.options[name] for name in ("max_seq_length", "doc_stride")}
    windows = make_windows(questions[:SAMPLES], model.tokenizer, **sizes)
    for index in range(min(SAMPLES, len(windows))):
        batch = pad_windows([windows[index]], model.tokenizer.pad_token_id, pad_left=model.tokenizer.pad_left)
        yield {name: batch[name] for name in model.inputs}


def write_int8_graph(source: Path, target: Path, samples: Iterable[Inputs]) -> list[str]:
    """Write a graph whose products of activations and weights are in 8-bit integers; return those that stay float32.

    These are the head, and what `products_with_outliers` finds with the samples, one window without padding each.
    """
    kept = products_with_outliers(source, samples)
    model = onnx.load(source)
    head = [node.name for node in model.graph.node if node.op_type == "MatMul"][-1]  # nodes are in the order of work
    kept = [*kept, head] if head not in kept else kept
    add_pre_process_metadata(model)  # else a warning: the graph is optimized when it is loaded
    quantize_dynamic(
        model,
        target,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
    )
    return kept


def products_with_outliers(source: Path, samples: Iterable[Inputs]) -> list[str]:
    """Return the names of the products whose activations cannot be rounded to 256 steps over their range.

    Encoders have activations 100 times as large as all others, at few tokens; the steps are then as large as what the
    other tokens hold. A product is returned if a step exceeds `LARGEST_STEP` of the root mean square of a median token.
    """
    graph = onnx.load(source, load_external_data=False)
    weights = {tensor.name for tensor in graph.graph.initializer}
    products = [node for node in graph.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    names = list(dict.fromkeys(node.input[0] for node in products))
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    probe = source.with_name("probe.onnx")  # beside the weights that the graph may have in another file
    onnx.save(graph, probe)
    session = open_session(probe)
    lowest, highest = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)  # onnxruntime's range contains 0, too
    sizes: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for sample in samples:
        for name, array in zip(names, session.run(names, sample), strict=True):
            lowest[name], highest[name] = min(lowest[name], array.min()), max(highest[name], array.max())
            sizes[name].append(np.sqrt((array**2).mean(-1)).ravel())
    probe.unlink()
    allowed = {name: LARGEST_STEP * np.median(np.concatenate(sizes[name])) for name in names}
    steps = {name: (highest[name] - lowest[name]) / 255 for name in names}
    return [node.name for node in products if steps[node.input[0]] > allowed[node.input[0]]]


def score(model: ExportedModel, questions: Sequence[Question], name: str) -> dict[str, float]:
    """Answer questions, with a progress bar, and return the scores of `squad_metrics` in percent."""
    with tqdm(desc=f"answering, {name}", unit=" windows", leave=False, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        answers = model.answer_all(questions, on_progress=show)
    return squad_metrics(answers.texts(), questions, version_2=model.options["version_2"])

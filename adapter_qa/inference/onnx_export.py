"""Export a model that answers questions as an ONNX graph, to serve it without torch, transformers and adapters.

Base model, adapters, fusion and head become one graph, which takes batches and windows of any size. `torch.onnx` writes
it from `torch.export`. Its logits are compared with those of the model.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx_ir.passes.common import DeduplicateInitializersPass
from torch import nn
from torch.onnx.errors import OnnxExporterError
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from adapter_qa.core.errors import RunError, error_line
from adapter_qa.core.files import write_json, write_text
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.window_dataset import pair_tokenizer
from adapter_qa.inference.answer_script import answer_script
from adapter_qa.inference.export_layout import ANSWER_FILE, CONFIG_FILE, EXPORT_FILE, GRAPH_FILE
from adapter_qa.inference.exported_model import OUTPUTS, open_session
from adapter_qa.models.encoders import ENCODERS
from adapter_qa.models.low_rank import merge_low_rank

COMPARED_BATCHES = ((1, 1.0), (2, 0.1), (3, 0.4), (16, 0.15))  # windows, and share of the longest window
Inputs = dict[str, torch.Tensor]
Logits = tuple[np.ndarray, np.ndarray]


def write_export(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    options: AnsweringOptions,
    *,
    opset: int,
    tolerance: float,
) -> dict[str, Any]:
    """Write the graph, the tokenizer, the model's configuration and `answer.py` into an existing folder.

    The model loses its LoRA or (IA)3: they are merged into the weights, so the graph has no operators for them.

    `answer.py` answers with `options`. Logits of graph and model may differ by `tolerance`.

    Returns:
        What `answer.py` reads from `EXPORT_FILE`, and facts about the export; the caller writes the file.

    Raises:
        RunError: the model cannot be exported, or the graph's logits differ too much.
    """
    names = tokenizer.model_input_names
    pair = pair_tokenizer(tokenizer)
    batches = list(example_inputs(model, names, options.max_seq_length))
    expected = [model_logits(model, batch) for batch in batches]
    merge_low_rank(model)
    export_graph(model, names, folder / GRAPH_FILE, opset=opset)
    difference = largest_difference(folder / GRAPH_FILE, batches, expected)
    if not difference <= tolerance:  # NaN is refused, too
        raise RunError(
            f"the exported model's logits differ from the run's by up to {difference:.1e}, allowed are "
            f"{tolerance:.1e}; nothing was written; try another --opset, or allow more with --tolerance"
        )
    tokenizer.save_pretrained(folder)
    write_json(folder / CONFIG_FILE, plain_config(model))
    write_text(folder / ANSWER_FILE, answer_script())
    return {
        "inputs": names,
        "windows": options.document(),
        "tokenizer": {
            field.name: getattr(pair, field.name) for field in fields(pair) if field.name not in ("tokenizer", "name")
        },
        "opset": opset,
        "largest_difference": difference,
        "compared": [list(batch["input_ids"].shape) for batch in batches],
        "bytes": file_sizes(folder),
    }


def file_sizes(folder: Path) -> dict[str, int]:
    """Return the sizes in bytes of the files in a folder by name, without that of `EXPORT_FILE`, which has them."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != EXPORT_FILE}


class _LogitsModule(nn.Module):
    """A model that takes its inputs by position and returns both logits as a tuple, as a graph does."""

    def __init__(self, model: PreTrainedModel, names: Sequence[str]):
        super().__init__()
        self.model, self.names = model, tuple(names)
        self.rotates_positions = ENCODERS[model.config.model_type].rotates_positions

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return start and end logits."""
        arguments = dict(zip(self.names, inputs, strict=True))
        if self.rotates_positions:
            # One row of positions for all windows: the exporter makes an operator of it that takes one for each window.
            ids = arguments["input_ids"]
            arguments["position_ids"] = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        output = self.model(**arguments)
        return output.start_logits, output.end_logits


def export_graph(model: PreTrainedModel, names: Sequence[str], path: Path, *, opset: int) -> None:
    """Write the graph; weights of more than 2 GB go into a second file beside it.

    The model is on the CPU, in evaluation mode, float32, prepared by `fusion.use_inference_fusion`.

    Raises:
        RunError: the model cannot be exported.
    """
    # The exporter turns sizes of 1 into constants, and one tensor used twice into one input.
    example = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in names)
    sizes = {
        0: torch.export.Dim("batch", min=1),
        1: torch.export.Dim("tokens", min=1, max=model.config.max_position_embeddings),
    }
    for name in ("torch.onnx", "onnxscript"):  # of packages that are not needed, of operators that are not folded
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # all of them are about the exporter itself
            program = torch.onnx.export(
                _LogitsModule(model, names).eval(),
                example,
                dynamo=True,
                opset_version=opset,
                input_names=list(names),
                output_names=OUTPUTS,
                dynamic_shapes=(tuple(sizes for _ in names),),
                verbose=False,
            )
            if program is None:  # as without `dynamo`
                raise OnnxExporterError("there is no graph")
            if ENCODERS[model.config.model_type].shares_layers:  # the exporter has a copy of a weight for every use
                DeduplicateInitializersPass(size_limit=2**40)(program.model)
            program.save(path, external_data=False)
    except OnnxExporterError as error:
        raise RunError(f"the model cannot be exported: {error_line(error, 500)}") from error


def example_inputs(model: PreTrainedModel, names: Sequence[str], longest: int) -> Iterator[Inputs]:
    """Yield batches of random tokens in several sizes, of at most `longest` tokens; their windows differ in length.

    Yields:
        int64 tensors (windows, tokens) by input.
    """
    draw = torch.Generator().manual_seed(0)
    config = model.config
    for windows, share in COMPARED_BATCHES:
        tokens = max(2, round(longest * share))
        lengths = torch.linspace(tokens, max(1, tokens // 3), windows).long()
        mask = (torch.arange(tokens) < lengths[:, None]).long()
        ids = torch.randint(config.vocab_size, (windows, tokens), generator=draw)
        token_types = (torch.arange(tokens) >= tokens // 4).long().expand(windows, tokens) * mask
        inputs = {
            "input_ids": ids.masked_fill(mask == 0, int(config.pad_token_id or 0)),
            "attention_mask": mask,
            "token_type_ids": token_types.contiguous(),
        }
        yield {name: inputs[name] for name in names}


@torch.inference_mode()
def model_logits(model: PreTrainedModel, inputs: Inputs) -> Logits:
    """Return the model's start and end logits, float32 (windows, tokens)."""
    output = model(**inputs)
    return output.start_logits.numpy(), output.end_logits.numpy()


def graph_logits(session: onnxruntime.InferenceSession, inputs: Inputs) -> Logits:
    """Return the graph's start and end logits, float32 (windows, tokens)."""
    start_logits, end_logits = session.run(OUTPUTS, {name: tensor.numpy() for name, tensor in inputs.items()})
    return start_logits, end_logits


def largest_difference(path: Path, batches: Sequence[Inputs], expected: Sequence[Logits]) -> float:
    """Return the largest difference of logits over all tokens but padding; NaN if there is a NaN among the logits."""
    session = open_session(path)
    differences = [
        np.abs(ours - theirs)[batch["attention_mask"].numpy() == 1].max()
        for batch, logits in zip(batches, expected, strict=True)
        for ours, theirs in zip(graph_logits(session, batch), logits, strict=True)
    ]
    return float(np.max(differences))


def plain_config(model: PreTrainedModel) -> dict[str, Any]:
    """Return the model's config.json without adapters and without the path that it was loaded from."""
    config = model.config.to_diff_dict() | {"architectures": [type(model).__name__]}
    return {key: value for key, value in config.items() if key not in ("adapters", "_name_or_path")}

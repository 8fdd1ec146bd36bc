"""A model that answers questions as one plain ONNX graph, for serving without torch, transformers and adapters.

Base, adapters, fusion and head become one graph by `torch.onnx`'s exporter over `torch.export`; batch and tokens may
have any size. The graph is held against the model before anything is left behind.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.onnx.errors import OnnxExporterError
from transformers import PreTrainedModel

from adapter_qa.core.errors import RunError

OUTPUTS = ("start_logits", "end_logits")
COMPARED = ((1, 1.0), (2, 0.1), (3, 0.4), (16, 0.15))  # batch, and share of the longest window
Inputs = dict[str, torch.Tensor]


class Logits(nn.Module):
    """A model with its inputs by position and both logits as a tuple, which is what a graph has.

    Args:
        model: with a question answering head.
        names: its inputs in order.
    """

    def __init__(self, model: PreTrainedModel, names: Sequence[str]):
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Start and end logits, float32 (batch, tokens), of int64 inputs (batch, tokens)."""
        output = self.model(**dict(zip(self.names, inputs, strict=True)))
        return output.start_logits, output.end_logits


def export_graph(model: PreTrainedModel, names: Sequence[str], path: Path, *, opset: int) -> None:
    """Writes the graph; beyond 2 GB its weights go into a file of their own beside it.

    Args:
        model: on the CPU, in evaluation mode, float32, its fusions folded (`fusion.use_inference_fusion`).
        names: the inputs that it takes, in order.
        path: the file to write.
        opset: version of ONNX's operators.

    Raises:
        RunFailure: the exporter cannot.
    """
    # Sizes of at least 2, of 1 the exporter would make constants; and a tensor for each, one alone would be one input.
    example = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in names)
    sizes = {
        0: torch.export.Dim("batch", min=1),
        1: torch.export.Dim("tokens", min=1, max=model.config.max_position_embeddings),
    }
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # that torchvision is not installed, four times
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own making, none about the model
            program = torch.onnx.export(
                Logits(model, names).eval(),
                example,
                dynamo=True,
                opset_version=opset,
                input_names=list(names),
                output_names=list(OUTPUTS),
                dynamic_shapes=(tuple(sizes for _ in names),),
                verbose=False,
            )
    except OnnxExporterError as error:
        raise RunError(f"the model cannot be exported: {' '.join(str(error).split())[:500]}") from error
    assert program is not None
    program.save(path)


def example_inputs(model: PreTrainedModel, names: Sequence[str], longest: int) -> Iterator[Inputs]:
    """Batches of random tokens in several sizes, each window of another length but the first, which fills its batch.

    Args:
        model: its configuration says which tokens there are.
        names: the inputs that it takes.
        longest: tokens of the longest window.

    Returns:
        Tensors by input, int64, (batch, tokens).
    """
    draw = torch.Generator().manual_seed(0)
    config = model.config
    for batch, share in COMPARED:
        tokens = max(2, round(longest * share))
        lengths = torch.linspace(tokens, max(1, tokens // 3), batch).long()
        mask = (torch.arange(tokens) < lengths[:, None]).long()
        ids = torch.randint(config.vocab_size, (batch, tokens), generator=draw)
        types = (torch.arange(tokens) >= tokens // 4).long().expand(batch, tokens) * mask
        whole = {
            "input_ids": ids.masked_fill(mask == 0, int(config.pad_token_id or 0)),
            "attention_mask": mask,
            "token_type_ids": types.contiguous(),
        }
        yield {name: whole[name] for name in names}


@torch.inference_mode()
def logits_of(model: PreTrainedModel, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Start and end logits of torch's model, float32 (batch, tokens)."""
    output = model(**inputs)
    return output.start_logits.numpy(), output.end_logits.numpy()


def open_graph(path: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """The graph, ready to be asked on the CPU.

    Args:
        path: its file.
        threads: to compute with; None leaves that to the library.
    """
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def ask_graph(session: onnxruntime.InferenceSession, inputs: Inputs) -> list[np.ndarray]:
    """Start and end logits of the graph, float32 (batch, tokens)."""
    return session.run(list(OUTPUTS), {name: tensor.numpy() for name, tensor in inputs.items()})


def largest_difference(path: Path, inputs: Sequence[Inputs], wanted: Sequence[Sequence[np.ndarray]]) -> float:
    """The largest difference between the graph's logits and those wanted, over all tokens that are not padding."""
    session = open_graph(path)
    differences = [
        np.abs(mine - theirs)[batch["attention_mask"].numpy() == 1].max()
        for batch, logits in zip(inputs, wanted, strict=True)
        for mine, theirs in zip(ask_graph(session, batch), logits, strict=True)
    ]
    return float(max(differences))  # NaN where there is one: it compares as unequal


def plain_config(model: PreTrainedModel) -> dict[str, Any]:
    """The model's config.json without adapters and without the path it came from."""
    config = model.config.to_diff_dict() | {"architectures": [type(model).__name__]}
    return {key: value for key, value in config.items() if key not in ("adapters", "_name_or_path")}

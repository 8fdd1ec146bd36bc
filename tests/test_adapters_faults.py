"""Faults of `adapters` and of the ONNX exporter that this project works around, shown in plain code of the libraries.

A test fails here when a new version has mended a fault. Then the work-around that it names can go, with the test.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import adapters
import onnxruntime
import pytest
import torch
from adapters.methods.bottleneck import hook_fn
from adapters.wrappers.interfaces import CUSTOM_INTERFACES
from support.tiny_encoders import save_tiny
from transformers import AutoModelForQuestionAnswering, PreTrainedModel

from adapter_qa.inference import onnx_export
from adapter_qa.models.encoders import ENCODERS

IDS = torch.tensor([[5, 17, 23, 9, 41, 30, 12, 8]])
TWO_LENGTHS = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0, 0]])


@pytest.fixture(scope="module")
def modernbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("modernbert", tmp_path_factory.mktemp("modernbert"))


def load(folder: Path) -> Any:
    torch.manual_seed(0)
    return AutoModelForQuestionAnswering.from_pretrained(folder).eval()


@torch.no_grad()
def start_logits(model: PreTrainedModel) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=IDS).start_logits
    return logits


def test_every_hook_has_the_norm_of_the_last_layer(modernbert: Path) -> None:
    """Mended: `_hook_with_norm` in adapter_qa/models/encoder_adapters.py can go."""
    model = load(modernbert)
    adapters.init(model, interface=replace(CUSTOM_INTERFACES["modernbert"], adapter_methods=["bottleneck"]))
    norms = [
        hook.args[1]()
        for layer in model.model.layers
        for hook in layer.attn.Wo._forward_hooks.values()
        if isinstance(hook, partial) and hook.func is hook_fn
    ]
    assert len(norms) == len(model.model.layers) > 1
    assert [norm is model.model.layers[-1].mlp_norm for norm in norms] == [True] * len(norms)


def test_the_interface_of_modernbert_changes_the_logits_before_an_adapter_is_added(modernbert: Path) -> None:
    """LoRA gives `Wqkv` a random bias. Mended: `METHODS` in adapter_qa/models/encoder_adapters.py can go."""
    model = load(modernbert)
    before = start_logits(model)
    adapters.init(model)
    assert not torch.allclose(start_logits(model), before, rtol=0, atol=1e-4)


def test_camembert_is_not_known(tmp_path: Path) -> None:
    """Known: `loaded_as` in adapter_qa/models/encoders.py can go."""
    model = load(save_tiny("camembert", tmp_path))
    with pytest.raises(ValueError, match="Model camembert not pre-supported"):
        adapters.init(model)


@pytest.mark.parametrize("name", [name for name, encoder in ENCODERS.items() if encoder.mask_dimensions == 2])
def test_a_mask_of_three_dimensions_is_not_taken(name: str, tmp_path: Path) -> None:
    """Taken, with the same logits: `mask_dimensions` of the encoder in adapter_qa/models/encoders.py can be 3."""
    model = load(save_tiny(name, tmp_path))
    ids = IDS.expand(2, -1)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=TWO_LENGTHS).start_logits
        try:
            logits = model(input_ids=ids, attention_mask=TWO_LENGTHS[:, None]).start_logits
        except (RuntimeError, ValueError):
            return
    assert not torch.allclose(logits[TWO_LENGTHS == 1], expected[TWO_LENGTHS == 1], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_graph_with_one_row_of_rotations_fails_for_several_windows(
    modernbert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mended: `rotates_positions` in adapter_qa/models/encoders.py and its use in `onnx_export` can go."""
    monkeypatch.setitem(ENCODERS, "modernbert", replace(ENCODERS["modernbert"], rotates_positions=False))
    graph = tmp_path / "model.onnx"
    onnx_export.export_graph(load(modernbert), ["input_ids", "attention_mask"], graph, opset=23)
    inputs = {"input_ids": IDS.expand(3, -1).numpy(), "attention_mask": torch.ones(3, 8, dtype=torch.int64).numpy()}
    with pytest.raises(Exception, match="expected to have the same shape"):
        onnxruntime.InferenceSession(graph).run(None, inputs)

"""Saved setups: their files, and whether they can be loaded again, here and with the adapters library alone."""

from __future__ import annotations

import json
from pathlib import Path

import adapters
import pytest
import torch
from safetensors.torch import load_file
from support.setups import SETUPS, Maker
from transformers import AutoModelForQuestionAnswering

from adapter_qa.models.save import trainable_state
from adapter_qa.models.saved_adapters import ATTENTION_ONLY_LAST_LAYER
from adapter_qa.models.setup_decisions import setup_from_saved

IDS = torch.tensor([[5, 17, 23, 9, 41, 30, 12, 8], [6, 7, 8, 9, 10, 11, 12, 13]])


@pytest.mark.parametrize("name", SETUPS)
def test_a_loaded_setup_has_the_same_weights_and_outputs(maker: Maker, saved: dict[str, Path], name: str) -> None:
    composition, options = SETUPS[name]
    model, setup, folder = maker.make(f"again {name}", *options(saved))
    loaded_setup = setup_from_saved("--load_adapter", str(folder), setup.task, maker.config)
    assert str(loaded_setup.block) == composition
    loaded = maker.model(loaded_setup)
    with torch.no_grad():
        for output, expected in zip(loaded(IDS).to_tuple(), model(IDS).to_tuple(), strict=True):
            assert torch.equal(output, expected)
    expected_state = trainable_state(model)
    assert all(torch.equal(weight, expected_state[key]) for key, weight in trainable_state(loaded).items())


def test_files_of_a_saved_fusion(maker: Maker, saved: dict[str, Path]) -> None:
    _, _, folder = maker.make("files", *SETUPS["lang+fusion"][1](saved))
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    expected = [
        f"{name}/{file}" for name in ("mlm", "qa", "ner") for file in ("adapter_config.json", "adapter.safetensors")
    ]
    expected += ["qa,ner/adapter_fusion_config.json", "qa,ner/model_adapter_fusion.safetensors"]
    expected += ["adapter_setup.json", "head_config.json", "model_head.safetensors"]
    assert files == sorted(expected)
    assert all(weight.numel() for path in folder.rglob("*.safetensors") for weight in load_file(path).values())


def test_the_adapters_library_loads_a_saved_fusion(maker: Maker, saved: dict[str, Path]) -> None:
    model, _, folder = maker.make("plain", *SETUPS["lang+fusion"][1](saved))
    plain = AutoModelForQuestionAnswering.from_pretrained(maker.options.model_name_or_path)
    adapters.init(plain)
    plain.load_adapter_setup(str(folder), set_active=True, use_safetensors=True)
    plain.eval()
    with torch.no_grad():
        # The library multiplies by key and value in another order than `fusion.FusionLayer`.
        torch.testing.assert_close(plain(IDS).start_logits, model(IDS).start_logits, rtol=1e-5, atol=1e-5)


def test_an_adapter_without_the_last_feed_forward_block_is_saved_so(saved: dict[str, Path]) -> None:
    weights = load_file(saved["hqa"] / "qa" / "adapter.safetensors")
    last_layer = [name for name in weights if ".layer.3." in name]
    assert last_layer
    assert all(".attention.output." in name for name in last_layer)
    assert any(".layer.2.output." in name for name in weights)
    assert json.loads((saved["hqa"] / "qa" / "adapter_config.json").read_text())[ATTENTION_ONLY_LAST_LAYER] is True

"""The fusion in a saved folder (adapter_qa/models/saved_fusion.py)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.problems import problem_of
from support.setups import SETUPS, Maker

from adapter_qa.models.saved_fusion import fusion_notes, read_fusion_config
from adapter_qa.models.setup_decisions import setup_for_inference
from adapter_qa.models.setup_notes import setup_notes

IDS = torch.tensor([[5, 17, 23, 9, 41, 30, 12, 8]])


@pytest.fixture
def fusion(maker: Maker, saved: dict[str, Path], tmp_path: Path) -> Path:
    """A saved fusion, which a test may change."""
    return Path(shutil.copytree(maker.make("saved fusion", *SETUPS["fusion"][1](saved))[2], tmp_path / "fusion"))


def change(folder: Path, **values: Any) -> Path:
    path = folder / "qa,ner" / "adapter_fusion_config.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "config": {**document["config"], **values}}))
    return path


@pytest.mark.parametrize("dropout", ["x", 1.5, -1, True, [0.1]])
def test_an_invalid_dropout_is_refused_before_a_model_exists(maker: Maker, fusion: Path, dropout: Any) -> None:
    path = change(fusion, dropout_prob=dropout)
    assert problem_of(setup_for_inference, "RUN", str(fusion), maker.config, None) == (
        f"{path}: dropout_prob {dropout!r}; must be a number from 0 to 1, or null for the encoder's"
    )


def test_what_is_no_configuration_is_refused_before_a_model_exists(maker: Maker, fusion: Path) -> None:
    path = change(fusion)
    path.write_text(json.dumps({**json.loads(path.read_text()), "config": "static"}))
    problem = problem_of(setup_for_inference, "RUN", str(fusion), maker.config, None)
    assert problem.startswith(f"{path}: holds no configuration of a fusion (")


def test_a_dropout_may_be_missing(fusion: Path) -> None:
    path = change(fusion)
    document = json.loads(path.read_text())
    del document["config"]["dropout_prob"]  # as in a file of adapter-transformers 2.x
    path.write_text(json.dumps(document))
    assert read_fusion_config(path.parent).dropout_prob is None


def test_a_temperature_is_1(maker: Maker, fusion: Path) -> None:
    """The library would begin with 50, and lower it with every forward pass."""

    def outputs() -> list[torch.Tensor]:
        model = maker.model(setup_for_inference("RUN", str(fusion), maker.config, None))
        with torch.no_grad():
            return [model(IDS).start_logits for _ in range(2)]

    expected = outputs()
    change(fusion, temperature=True)
    assert all(torch.equal(actual, expected[0]) for actual in outputs())
    assert setup_notes(setup_for_inference("RUN", str(fusion), maker.config, None)) == [
        f"{fusion / 'qa,ner'}: its temperature is taken as 1, to which it falls in training; the folder does not "
        "record it"
    ]


def test_weights_that_the_configuration_does_not_use_are_noted(fusion: Path) -> None:
    folder = change(fusion).parent
    assert fusion_notes(folder) == []
    change(fusion, query=False, key=False)
    assert fusion_notes(folder) == [
        f"{folder}: its weights of key and query are left out; they are false in its adapter_fusion_config.json"
    ]

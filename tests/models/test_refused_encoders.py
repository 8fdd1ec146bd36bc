"""Encoders that are refused (adapter_qa/models/refused_encoders.py), each with what works in its place."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.problems import problem_of
from transformers import CONFIG_MAPPING

from adapter_qa.config.options import ModelOptions
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.encoders import ENCODERS
from adapter_qa.models.refused_encoders import REFUSED, refusal

OTHER_PROGRAMS = {"eurobert", "nomic_bert", "new", "neobert"}  # whose code is in the models' folders


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_refusal_is_one_line_that_names_supported_encoders_only(model_type: str) -> None:
    assert model_type not in ENCODERS
    assert (model_type in CONFIG_MAPPING.keys()) == (model_type not in OTHER_PROGRAMS)  # noqa: SIM118 - it is lazy
    line = refusal(model_type)
    assert line.startswith(f"model_type {model_type}: ")
    assert line.endswith(f"; supported: {', '.join(ENCODERS)}")
    assert "\n" not in line
    suggested = re.findall(r"\(([a-z0-9-]+)\)", REFUSED[model_type])
    assert set(suggested) <= {*ENCODERS}


@pytest.mark.parametrize(
    ("model_type", "advice"),
    [
        ("longformer", "for long texts give a ModernBERT"),
        ("big_bird", "for long texts give a ModernBERT"),
        ("eurobert", "code from a model's folder is not run"),
        ("mpnet", "paraphrase-multilingual-mpnet-base-v2 is an XLM-R and works"),
        ("t5", "give an encoder"),
        ("something_new", "model_type something_new; supported: "),
    ],
)
def test_a_base_of_another_encoder_is_refused_with_advice(model_type: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    (tmp_path / "model.safetensors").touch()
    problem = problem_of(read_base_config, ModelOptions(str(tmp_path)))
    assert problem.startswith(f"{tmp_path / 'config.json'}: model_type {model_type}")
    assert advice in problem

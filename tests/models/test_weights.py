"""Files of weights (adapter_qa/models/weights.py); tests/test_untrusted.py has hostile ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.problems import problem_of

from adapter_qa.models.weights import check_finite, read_weights, weight_names


def test_only_weights_with_a_name_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_adapter.bin"
    torch.save({"a": torch.ones(2), 1: torch.ones(2)}, path)
    assert problem_of(read_weights, path) == (
        f"{path}: holds something other than named tensors (1); it is damaged, or not a model's state_dict"
    )
    assert weight_names(path) == ["a"]
    assert list(read_weights(path, only_weights=False)) == ["a"]


@pytest.mark.parametrize("name", ["int32", "float8_e4m3fn", "bool"])
def test_other_numbers_than_floats_are_refused(tmp_path: Path, name: str) -> None:
    state = {"a": torch.ones(2), "b": torch.ones(2).to(getattr(torch, name))}
    for path, save in ((tmp_path / "a.safetensors", save_file), (tmp_path / "a.bin", torch.save)):
        save(state, path)
        assert problem_of(read_weights, path) == (
            f"{path}: stores weights as {name}; give them as float32, float16, bfloat16 or float64"
        )
        assert torch.equal(read_weights(path, only_weights=False)["b"], state["b"])  # such as positions in a base model


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_without_a_value_are_named(value: float) -> None:
    broken = torch.ones(3, 2)
    broken[1, 1] = value
    weights = {"a": torch.ones(2), "b": broken, "c": torch.tensor([math.inf, -math.inf])}
    assert problem_of(check_finite, "FILE", weights) == (
        "FILE: 2 of 3 weights are NaN or infinite (b, c); the training that saved them failed, or the file is damaged"
    )


@pytest.mark.parametrize("weight", [torch.full((4,), 6e4).half(), torch.full((4,), 3e38), torch.ones(2, device="meta")])
def test_weights_whose_sum_overflows_are_finite(weight: Any) -> None:
    check_finite("FILE", {"a": weight})

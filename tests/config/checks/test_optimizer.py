"""Optimizers, DeepSpeed files and launchers (adapter_qa/config/checks/optimizer.py)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.configs import qa_config
from support.scripts import ROOT

from adapter_qa.config.checks.optimizer import optimizer_problems
from adapter_qa.config.validation import validate_config


def test_deepspeed_and_batches_in_parts_exclude_each_other() -> None:
    options: dict[str, Any] = {"dry_run": True, "deepspeed": str(ROOT / "ds_config_zero2.json")}
    problem = "--tokens_per_batch: DeepSpeed takes every part for a batch of its own; leave out --tokens_per_batch or "
    assert f"{problem}--deepspeed" in optimizer_problems(qa_config(**options, tokens_per_batch=4096))
    assert problem not in str(optimizer_problems(qa_config(**options)))


def test_a_deepspeed_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reads, read_text = tmp_path / "ds.json", [], Path.read_text

    def counted(file: Path, **options: Any) -> str:
        reads.append(file)
        return read_text(file, **options)

    monkeypatch.setattr(Path, "read_text", counted)
    given: dict[str, Any] = {"deepspeed": str(path), "optim": "lomo", "head_learning_rate": 0.01}
    config = replace(qa_config(dry_run=True, **given), given=frozenset(given))
    path.write_text("{}")
    problems = [problem for problem in validate_config(config) if "is not installed" not in problem]
    assert problems[:2] == [
        f"--deepspeed {path}: zero_optimization.stage is 0; it must be 1, 2 or 3",
        "--head_learning_rate: --optim lomo has one learning rate for all weights; leave out one of the two",
    ]
    path.write_text('{"zero_optimization": {"stage": 2}, "optimizer": {}}')
    validate_config(config)
    assert reads == [path, path]


@pytest.mark.parametrize("own", [["optimizer"], ["scheduler"], ["optimizer", "scheduler"], []])
def test_deepspeed_optimizer_has_one_learning_rate(own: list[str], tmp_path: Path) -> None:
    stage: dict[str, Any] = {"zero_optimization": {"stage": 2}}
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(stage | {name: {"type": "Other", "params": {}} for name in own}))
    config = qa_config(dry_run=True, deepspeed=str(path), head_learning_rate=0.01)
    problems = [problem for problem in optimizer_problems(config) if problem.startswith("--head_learning_rate")]
    assert len(problems) == bool(own)
    assert f"remove {' and '.join(own)} from the file" in str(problems) or not own


@pytest.mark.parametrize(
    ("file", "optim", "end"),
    [
        ("ds_config_zero2.json", "adafactor", "keeps the optimizer in CPU memory, which is for AdamW only"),
        ("ds_config_zero3.json", "adagrad", "keeps the optimizer in CPU memory, which is for AdamW only"),
        ("ds_config_zero3.json", "adamw_torch", None),
        ("ds_config_zero3.json", "adamw_torch_fused", None),
        ("own.json", "adamw_torch", "has an optimizer of its own"),
        ("own.json", None, None),
        ("on_gpu.json", "adafactor", None),
        ("unreplaced.json", "adafactor", None),
    ],
)
def test_deepspeed_files_may_not_replace_the_optimizer(
    file: str, optim: str | None, end: str | None, tmp_path: Path
) -> None:
    offload = {"device": "cpu"}
    files: dict[str, dict[str, Any]] = {
        "own.json": {"zero_optimization": {"stage": 2, "offload_optimizer": offload}, "optimizer": {"type": "AdamW"}},
        "on_gpu.json": {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "none"}}},
        "unreplaced.json": {
            "zero_optimization": {"stage": 2, "offload_optimizer": offload},
            "zero_force_ds_cpu_optimizer": False,
        },
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    path = tmp_path / file if file in files else ROOT / file
    given: dict[str, Any] = {"deepspeed": str(path)} | ({} if optim is None else {"optim": optim})
    config = replace(qa_config(dry_run=True, **given), given=frozenset(given))
    problems = [problem for problem in optimizer_problems(config) if problem.startswith("--optim ")]
    assert len(problems) == (end is not None)
    assert end is None or problems[0].startswith(f"--optim {optim}: --deepspeed {path} {end}; leave out --optim")


@pytest.mark.parametrize("optim", ["lomo", "galore_adamw", "apollo_adamw_layerwise"])
def test_optimizers_with_one_learning_rate(optim: str) -> None:
    (problem,) = optimizer_problems(qa_config(dry_run=True, optim=optim, head_learning_rate=0.01))
    assert problem.startswith(f"--head_learning_rate: --optim {optim} has one learning rate for all weights")


@pytest.mark.parametrize(
    ("variable", "start"),
    [
        ("ACCELERATE_USE_FSDP", "--fsdp (or accelerate's FSDP setting): is not supported"),
        ("ACCELERATE_USE_DEEPSPEED", "accelerate's DeepSpeed setting: give --deepspeed"),
    ],
)
def test_settings_of_accelerate_are_refused(variable: str, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "true")
    (problem,) = optimizer_problems(qa_config(dry_run=True))
    assert problem.startswith(start)
    monkeypatch.setenv(variable, "false")
    assert optimizer_problems(qa_config(dry_run=True)) == []


def test_fsdp_is_refused() -> None:
    (problem,) = optimizer_problems(qa_config(dry_run=True, fsdp="full_shard"))
    assert problem.startswith("--fsdp (or accelerate's FSDP setting): is not supported")

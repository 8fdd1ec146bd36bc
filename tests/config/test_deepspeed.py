"""DeepSpeed files (adapter_qa/config/deepspeed.py): old keys, schedules that cannot run, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapter_qa.config.deepspeed import read_deepspeed
from adapter_qa.core.errors import UserError

ZERO_3 = {  # keys as in the ZeRO files that transformers 4.8 documented
    "fp16": {"enabled": "auto", "loss_scale": 0},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto"}},
    "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_num_steps": "auto", "total_num_steps": "auto"}},
    "zero_optimization": {"stage": 3, "stage3_gather_fp16_weights_on_model_save": True, "overlap_comm": True},
    "train_batch_size": "auto",
}
# Keys that a file may leave out, and without which DeepSpeed or the library would use another value.
ADDED = dict.fromkeys(
    ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"), "auto"
) | {"fp16": {"enabled": "auto"}, "bf16": {"enabled": "auto"}}
STAGE_2 = {"zero_optimization": {"stage": 2}}


def write(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document))
    return str(path)


def test_old_keys_are_renamed(tmp_path: Path) -> None:
    path = write(tmp_path / "ds.json", ZERO_3)
    config, notes = read_deepspeed(path, warmup=False)
    assert config == ADDED | {
        **{key: ZERO_3[key] for key in ("fp16", "optimizer", "train_batch_size")},
        "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True, "overlap_comm": True},
    }
    assert notes == [
        f"--deepspeed {path}: stage3_gather_fp16_weights_on_model_save is now "
        "stage3_gather_16bit_weights_on_model_save",
        f"--deepspeed {path}: its WarmupDecayLR schedule is ignored, since DeepSpeed refuses it without warm-up steps; "
        "--lr_scheduler_type sets the schedule, linear by default",
    ]


@pytest.mark.parametrize(
    ("kind", "steps", "warmup", "kept"),
    [
        ("WarmupDecayLR", "auto", True, True),
        ("WarmupDecayLR", 100, False, True),
        ("WarmupDecayLR", 0, True, False),
        ("WarmupLR", "auto", False, False),
        ("OneCycle", "auto", False, True),
    ],
)
def test_only_a_schedule_that_cannot_run_is_ignored(
    tmp_path: Path, kind: str, steps: Any, warmup: bool, kept: bool
) -> None:
    scheduler = {"type": kind, "params": {"warmup_num_steps": steps}}
    config, notes = read_deepspeed(write(tmp_path / "ds.json", {"scheduler": scheduler, **STAGE_2}), warmup=warmup)
    assert ("scheduler" in config) == kept
    assert len(notes) == (not kept)


def test_offload_booleans_become_objects(tmp_path: Path) -> None:
    zero = {"stage": 2, "cpu_offload": True, "cpu_offload_params": False, "cpu_offload_use_pin_memory": True}
    config, notes = read_deepspeed(write(tmp_path / "a.json", {"zero_optimization": zero, "amp": {}}), warmup=False)
    assert config == ADDED | {
        "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu", "pin_memory": True}}
    }
    assert len(notes) == 3


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"zero_optimization": 2}', "{}", '{"zero_optimization": {"stage": 0}}', None,
     '{"zero_optimization": {"stage": 2}, "fp16": true}', '{"zero_optimization": {"stage": 2}, "scheduler": []}',
     '{"zero_optimization": {"stage": 2}, "optimizer": "AdamW"}',
     '{"zero_optimization": {"stage": 2, "offload_optimizer": null}}'],
)  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ds.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as caught:
        read_deepspeed(str(path), warmup=False)
    (problem,) = caught.value.problems
    assert problem.startswith(f"--deepspeed {path}: ")
    assert "\n" not in problem


@pytest.mark.parametrize("params", [None, []])
def test_parameters_must_be_objects(tmp_path: Path, params: Any) -> None:
    blocks = {"scheduler": {"type": "WarmupLR", "params": params}, "optimizer": {"type": "AdamW", "params": params}}
    path = write(tmp_path / "ds.json", STAGE_2 | blocks)
    with pytest.raises(UserError) as caught:
        read_deepspeed(path, warmup=False)
    assert caught.value.problems == [
        f'--deepspeed {path}: scheduler.params must be an object, such as {{"warmup_num_steps": "auto"}}',
        f'--deepspeed {path}: optimizer.params must be an object, such as {{"lr": "auto"}}',
    ]

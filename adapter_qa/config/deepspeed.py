"""DeepSpeed files of any year: keys that have another name today, and schedules that DeepSpeed refuses to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adapter_qa.core.errors import UserError

# Off-loading was a switch before DeepSpeed 0.3.16 made it a block.
SWITCHES = {
    "cpu_offload": "offload_optimizer",
    "cpu_offload_params": "offload_param",
    "cpu_offload_param": "offload_param",
}
STAGES = (1, 2, 3)
# What the options say and the file need not.
SIZES = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
GATHER = ("stage3_gather_fp16_weights_on_model_save", "stage3_gather_16bit_weights_on_model_save")


def read_deepspeed(path: str, *, warmup: bool) -> tuple[dict[str, Any], list[str]]:
    """A DeepSpeed file in today's terms.

    Args:
        path: the JSON file.
        warmup: the run has warm-up steps, which "auto" in the file stands for.

    Returns:
        The configuration, and a line for each change.

    Raises:
        UserError: the file cannot be read, or is no configuration.
    """
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--deepspeed {path}: cannot be read as JSON ({' '.join(str(error).split())})") from error
    zero = config.get("zero_optimization", {}) if isinstance(config, dict) else None
    if not isinstance(zero, dict):
        raise UserError(f"--deepspeed {path}: holds no DeepSpeed configuration, an object with zero_optimization in it")
    if zero.get("stage", 0) not in STAGES:
        raise UserError(f"--deepspeed {path}: zero_optimization.stage is {zero.get('stage', 0)}; it must be 1, 2 or 3")
    notes = _rename_legacy_keys(zero)
    for name in SIZES:
        config.setdefault(name, "auto")
    for precision in ("fp16", "bf16"):  # without a word on them DeepSpeed computes in float16
        config.setdefault(precision, {}).setdefault("enabled", "auto")
    if "amp" in config:
        del config["amp"]
        notes.append("its amp block, for apex, is left out; --fp16 and --bf16 say the precision")
    scheduler = config.get("scheduler", {})
    steps = scheduler.get("params", {}).get("warmup_num_steps", "auto")
    if str(scheduler.get("type", "")).startswith("Warmup") and (steps == 0 or (steps == "auto" and not warmup)):
        del config["scheduler"]
        notes.append(
            f"its {scheduler['type']} schedule is left out, since DeepSpeed refuses it without warm-up steps; "
            "--lr_scheduler_type decides, linear by default, from the first step on"
        )
    return config, [f"--deepspeed {path}: {one}" for one in notes]


def _rename_legacy_keys(zero: dict[str, Any]) -> list[str]:
    """Renames keys in place; returns a line for each."""
    notes = []
    pinned = bool(zero.pop("cpu_offload_use_pin_memory", False))
    for old, new in SWITCHES.items():
        if old in zero:
            if zero.pop(old):
                zero[new] = {"device": "cpu", "pin_memory": pinned}
            notes.append(f"{old} is {new} now")
    if GATHER[0] in zero:
        zero[GATHER[1]] = zero.pop(GATHER[0])
        notes.append(f"{GATHER[0]} is {GATHER[1]} now")
    return notes

"""DeepSpeed configuration files, also those with the keys of old DeepSpeed versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adapter_qa.core.errors import UserError, error_line

# Before DeepSpeed 0.3.16 offloading was a boolean; since then it is an object.
OFFLOAD_KEYS = {
    "cpu_offload": "offload_optimizer",
    "cpu_offload_params": "offload_param",
    "cpu_offload_param": "offload_param",
}
GATHER_KEY = "stage3_gather_16bit_weights_on_model_save"
OLD_GATHER_KEY = "stage3_gather_fp16_weights_on_model_save"
# Keys that the training options fill if the file leaves them out.
AUTO_KEYS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
# Values of --optim that accelerate replaces by DeepSpeed's optimizer for CPU memory, which does the same. It would
# replace others by Adam, or fail (Adagrad).
OFFLOADED_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused")

# Entries that must be objects if they are there, each with an example.
OBJECTS = {
    "fp16": '{"enabled": "auto"}',
    "bf16": '{"enabled": "auto"}',
    "scheduler": '{"type": "WarmupLR"}',
    "scheduler.params": '{"warmup_num_steps": "auto"}',
    "optimizer": '{"type": "AdamW"}',
    "optimizer.params": '{"lr": "auto"}',
    "zero_optimization.offload_optimizer": '{"device": "cpu"}',
    "zero_optimization.offload_param": '{"device": "cpu"}',
}


def read_deepspeed(path: str, *, warmup: bool) -> tuple[dict[str, Any], list[str]]:
    """Return a DeepSpeed file in the present form, and a note for the user on each change.

    Args:
        path: the JSON file.
        warmup: whether the training options ask for warm-up steps, which "auto" in the file stands for.

    Raises:
        UserError: if the file cannot be read or is not a DeepSpeed configuration.
    """
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--deepspeed {path}: cannot be read as JSON ({error_line(error)})") from error
    zero = config.get("zero_optimization", {}) if isinstance(config, dict) else None
    if not isinstance(zero, dict):
        raise UserError(f"--deepspeed {path}: is not a DeepSpeed configuration, an object with zero_optimization in it")
    if zero.get("stage", 0) not in (1, 2, 3):
        raise UserError(f"--deepspeed {path}: zero_optimization.stage is {zero.get('stage', 0)}; it must be 1, 2 or 3")
    notes = _rename_legacy_keys(zero)
    others = [name for name in OBJECTS if not isinstance(_entry(config, name), dict)]
    if others:
        raise UserError([f"--deepspeed {path}: {name} must be an object, such as {OBJECTS[name]}" for name in others])
    for name in AUTO_KEYS:
        config.setdefault(name, "auto")
    for precision in ("fp16", "bf16"):  # without these keys DeepSpeed computes in float16
        config.setdefault(precision, {}).setdefault("enabled", "auto")
    if "amp" in config:
        del config["amp"]
        notes.append("its amp block, for apex, is ignored; --fp16 and --bf16 set the precision")
    scheduler = config.get("scheduler", {})
    steps = scheduler.get("params", {}).get("warmup_num_steps", "auto")
    if str(scheduler.get("type", "")).startswith("Warmup") and (steps == 0 or (steps == "auto" and not warmup)):
        del config["scheduler"]
        notes.append(
            f"its {scheduler['type']} schedule is ignored, since DeepSpeed refuses it without warm-up steps; "
            "--lr_scheduler_type sets the schedule, linear by default"
        )
    return config, [f"--deepspeed {path}: {note}" for note in notes]


def offloads_optimizer(config: dict[str, Any]) -> bool:
    """Return whether accelerate replaces the optimizer by one of DeepSpeed for CPU memory.

    Args:
        config: as `read_deepspeed` returns it.
    """
    device = config["zero_optimization"].get("offload_optimizer", {}).get("device", "none")
    return bool(device != "none" and config.get("zero_force_ds_cpu_optimizer", True))


def _entry(config: dict[str, Any], name: str) -> Any:
    """Return an entry by its keys, joined with dots; an empty object if it or what holds it is not there."""
    value: Any = config
    for key in name.split("."):
        value = value.get(key, {}) if isinstance(value, dict) else {}
    return value


def _rename_legacy_keys(zero: dict[str, Any]) -> list[str]:
    """Rename keys in place and return a note on each."""
    notes = []
    pin_memory = bool(zero.pop("cpu_offload_use_pin_memory", False))
    for old, new in OFFLOAD_KEYS.items():
        if old in zero:
            if zero.pop(old):
                zero[new] = {"device": "cpu", "pin_memory": pin_memory}
            notes.append(f"{old} is now {new}")
    if OLD_GATHER_KEY in zero:
        zero[GATHER_KEY] = zero.pop(OLD_GATHER_KEY)
        notes.append(f"{OLD_GATHER_KEY} is now {GATHER_KEY}")
    return notes

"""The problems of the optimizer: what it cannot be combined with, and how --deepspeed and launchers divide it."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from adapter_qa.config.deepspeed import OFFLOADED_OPTIMIZERS, offloads_optimizer, read_deepspeed
from adapter_qa.config.options import TrainingOptions
from adapter_qa.config.run_configs import RunConfig
from adapter_qa.core.errors import UserError


def optimizer_problems(config: RunConfig) -> list[str]:
    """Return the problems of the options for the optimizer, and of the file that --deepspeed names."""
    training = config.training
    problems = _launcher_problems(training)
    deepspeed: dict[str, Any] = {}
    if training.deepspeed is not None:
        try:
            deepspeed, _ = read_deepspeed(str(training.deepspeed), warmup=training.warms_up)
        except UserError as error:
            problems += error.problems
        if importlib.util.find_spec("deepspeed") is None:
            problems.append('--deepspeed: the package is not installed; pip install "adapter-qa[deepspeed]"')
    reason = one_rate_reason(training, deepspeed)
    if training.head_learning_rate is not None and reason is not None:
        problems.append(f"--head_learning_rate: {reason}")
    return problems + _optim_problems(config, deepspeed) + _split_problems(training)


def _launcher_problems(training: TrainingOptions) -> list[str]:
    """Return the settings that divide weights and optimizer among processes, and that are not those of --deepspeed."""
    problems = []
    if training.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true"):
        problems.append(
            "--fsdp (or accelerate's FSDP setting): is not supported, since no test shows that adapters train and "
            "are saved completely under it; give --deepspeed ds_config_zero3.json, which divides the weights as well"
        )
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() in ("1", "true"):
        problems.append(
            "accelerate's DeepSpeed setting: give --deepspeed ds_config_zero2.json or ds_config_zero3.json instead, "
            "so that the run records it"
        )
    return problems


def one_rate_reason(training: TrainingOptions, deepspeed: dict[str, Any]) -> str | None:
    """Return why the head cannot have a learning rate of its own; None if it can.

    Args:
        training: the options.
        deepspeed: the content of the DeepSpeed file; empty without one.
    """
    if training.optim.startswith(("lomo", "adalomo", "galore", "apollo")):
        return f"--optim {training.optim} has one learning rate for all weights; leave out one of the two"
    own = [name for name in ("optimizer", "scheduler") if name in deepspeed]
    if not own:
        return None
    return (
        f"--deepspeed {training.deepspeed} has an {own[0]} of its own, with one learning rate for all weights; remove "
        f"{' and '.join(own)} from the file, or leave out the option"
    )


def _optim_problems(config: RunConfig, deepspeed: dict[str, Any]) -> list[str]:
    """Return why --optim would not be the optimizer of a run with a DeepSpeed file, whose content is given."""
    training = config.training
    if not deepspeed:
        return []
    if "optimizer" in deepspeed:
        if "optim" not in config.given:
            return []
        other = "has an optimizer of its own; leave out --optim, or remove optimizer from the file"
    elif offloads_optimizer(deepspeed) and training.optim not in OFFLOADED_OPTIMIZERS:
        other = (
            "keeps the optimizer in CPU memory, which is for AdamW only; leave out --optim, or remove offload_optimizer"
        )
    else:
        return []
    return [f"--optim {training.optim}: --deepspeed {training.deepspeed} {other}"]


def _split_problems(training: TrainingOptions) -> list[str]:
    """Return what --tokens_per_batch cannot be combined with: anything that counts on one backward pass for a batch."""
    if training.tokens_per_batch is None:
        return []
    problems = []
    if training.deepspeed is not None:
        problems.append(
            "--tokens_per_batch: DeepSpeed takes every part for a batch of its own; leave out --tokens_per_batch or "
            "--deepspeed"
        )
    if training.optim in ("lomo", "adalomo") or training.optim.endswith("layerwise"):
        problems.append(
            f"--tokens_per_batch: --optim {training.optim} would update the weights after every part of a batch; "
            "choose another optimizer, or leave out --tokens_per_batch"
        )
    return problems

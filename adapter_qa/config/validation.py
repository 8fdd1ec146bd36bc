"""What no run may ask for, as far as the options alone show it: found before anything slow is imported, all at once."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from adapter_qa.config.deepspeed import read_deepspeed
from adapter_qa.config.options import ADAPTER_NAME, TrainingOptions
from adapter_qa.core.errors import UserError

# Options that the library takes at any value, with the least and the largest that can be meant.
RANGES: dict[str, tuple[float, float]] = {
    "learning_rate": (0, math.inf), "weight_decay": (0, math.inf), "max_grad_norm": (0, math.inf),
    "adam_beta1": (0, 1), "adam_beta2": (0, 1), "adam_epsilon": (0, math.inf), "num_train_epochs": (0, math.inf),
    "warmup_ratio": (0, 1), "warmup_steps": (0, math.inf), "label_smoothing_factor": (0, 1),
    "max_steps": (-1, math.inf),
    "seed": (0, 2**32 - 1), "data_seed": (0, 2**32 - 1), "dataloader_num_workers": (0, math.inf),
    "eval_delay": (0, math.inf), "neftune_noise_alpha": (0, math.inf),
}  # fmt: skip
COUNTS = (  # those that are at least 1 where they are given
    "early_stopping_patience", "per_device_train_batch_size", "per_device_eval_batch_size",
    "gradient_accumulation_steps", "save_total_limit", "eval_accumulation_steps", "dataloader_prefetch_factor",
)  # fmt: skip
ABOVE_ZERO = ("logging_steps", "eval_steps", "save_steps")  # in steps, or a share of all of them

PUSHED_ONCE = ("every_save", "end")  # --hub_strategy: the library's default, and what is done


def parse_fuse_adapters(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """`NAME=PATH` words of --fuse_adapters.

    Returns:
        The paths by name in the order given, and the problems found (wrong form, name used twice, fewer than two).
    """
    paths: dict[str, str] = {}
    problems = []
    for word in words:
        name, separator, path = word.partition("=")
        if not separator or not path or not ADAPTER_NAME.fullmatch(name):
            problems.append(f"--fuse_adapters {word}: write NAME=PATH, the name of letters, digits, - and _")
        elif name in paths:
            problems.append(f"--fuse_adapters {word}: the name {name} is used twice; each adapter needs its own")
        else:
            paths[name] = path
    if not problems and len(paths) < 2:
        problems.append(f"--fuse_adapters: {len(paths)} adapter given; a fusion needs two or more NAME=PATH")
    return paths, problems


def check_files(options: Any) -> list[str]:
    """Problems with the data files of any door: each part of a run needs its file, and files must exist."""
    named = [("train_file", "do_train"), ("validation_file", "do_eval"), ("test_file", "do_predict")]
    return [
        f"--{name} {path}: no such file; give the path of a file"
        for name, _ in named
        if name in {f.name for f in fields(options)}
        and (path := vars(options)[name]) is not None
        and not Path(path).is_file()
    ]


def check_counts(options: Any, names: Sequence[str]) -> list[str]:
    """Problems with options that must be at least 1 where they are given."""
    values = vars(options)
    return [
        f"--{name} {values[name]}: must be at least 1"
        for name in names
        if values[name] is not None and values[name] < 1
    ]


def check_ranges(options: Any, ranges: dict[str, tuple[float, float]]) -> list[str]:
    """Problems with options below the least or above the largest value that they can have."""
    values = vars(options)
    return [
        f"--{name} {values[name]:g}: "
        + (f"must be at least {least:g}" if largest == math.inf else f"must lie between {least:g} and {largest:.10g}")
        for name, (least, largest) in ranges.items()
        if values[name] is not None and not least <= values[name] <= largest
    ]


def check_run(run: TrainingOptions, metrics: Sequence[str]) -> list[str]:
    """Problems within the training options that every door has.

    Args:
        run: the options; `greater_is_better` is set to what the chosen metric wants, `do_eval` where --eval_strategy
            asks for it.
        metrics: names that the door's evaluation computes.
    """
    run.do_eval = run.do_eval or run.evaluates() != "no"
    problems = check_counts(run, COUNTS) + check_ranges(run, RANGES)
    steps = {name: vars(run)[name] for name in ABOVE_ZERO if vars(run)[name] is not None}
    problems += [f"--{name} {count:g}: must be above 0" for name, count in steps.items() if count <= 0]
    if not (run.do_train or run.do_eval or run.do_predict or run.dry_run):
        problems.append("nothing to do: give --do_train, --do_eval, --do_predict or --dry_run")
    bare = str(run.metric_for_best_model).removeprefix("eval_")
    if bare not in metrics:
        problems.append(f"--metric_for_best_model {bare}: not computed here; choose from {', '.join(metrics)}")
    greater = not bare.endswith("loss")
    if run.greater_is_better not in (None, greater):
        problems.append(f"--greater_is_better {run.greater_is_better}: cannot be for {bare}; leave the option out")
    run.greater_is_better = greater
    if run.early_stopping_patience is not None and run.do_train and run.evaluates() == "no":
        problems.append("--early_stopping_patience needs evaluation while training; add --do_eval")
    if run.load_best_model_at_end and run.do_train and run.evaluates() != run.save_strategy:
        problems.append(
            f"--load_best_model_at_end: evaluation ({run.evaluates()}) and checkpoints ({run.save_strategy}) must come "
            "together; add --do_eval, or give --eval_strategy and --save_strategy the same value"
        )
    if run.save_only_model:
        problems.append("--save_only_model: a run that was stopped could not go on from its checkpoints; leave it out")
    if run.bf16 and run.fp16:
        problems.append("--bf16 and --fp16 exclude each other; give one")
    problems += _sharding_problems(run)
    if run.resume_from_checkpoint is not None:
        problems.append("--resume_from_checkpoint: the same command with the same --output_dir goes on by itself")
    if run.push_to_hub:
        problems += _hub_problems(run)
    if run.num_train_epochs == 0 and run.max_steps <= 0:
        problems.append("--num_train_epochs 0: must be above 0; training needs epochs or --max_steps")
    return problems


def _sharding_problems(run: TrainingOptions) -> list[str]:
    """What is wrong with how weights and optimizer are to be divided among processes."""
    problems = []
    if run.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true"):
        problems.append(
            "--fsdp (or accelerate's FSDP setting): is not supported, since no run has shown that adapters train and "
            "are saved whole under it; give --deepspeed ds_config_zero3.json, which divides the weights as well"
        )
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() in ("1", "true"):
        problems.append(
            "accelerate's DeepSpeed setting: give --deepspeed ds_config_zero2.json or ds_config_zero3.json instead, "
            "so that the run records it"
        )
    if run.deepspeed is None:
        return problems
    try:
        read_deepspeed(str(run.deepspeed), warmup=False)
    except UserError as error:
        problems += error.problems
    if importlib.util.find_spec("deepspeed") is None:
        problems.append("--deepspeed: the package is not installed; pip install -r requirements-deepspeed.txt")
    return problems


def _hub_problems(run: TrainingOptions) -> list[str]:
    """What is missing for --push_to_hub, before hours go into what cannot be pushed."""
    from huggingface_hub import constants, get_token  # late: only those who push wait for it
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    problems = []
    if not run.do_train:
        problems.append("--push_to_hub: only what a run trains is saved and pushed; add --do_train")
    if run.hub_model_id is None:
        problems.append("--push_to_hub needs --hub_model_id, the repository to push to, e.g. name/qa-pt")
    elif "/" not in run.hub_model_id:
        problems.append(f"--hub_model_id {run.hub_model_id}: write OWNER/NAME, by which its card loads it")
    else:
        try:
            validate_repo_id(run.hub_model_id)
        except HFValidationError as error:
            problems.append(f"--hub_model_id {run.hub_model_id}: {error}")
    if not (run.hub_token or run.push_to_hub_token or get_token()):
        problems.append("--push_to_hub needs a token: run hf auth login, or set HF_TOKEN, or give --hub_token")
    if run.hub_strategy not in (*PUSHED_ONCE, None):
        problems.append(f"--hub_strategy {run.hub_strategy}: a run is pushed once, at its end; leave the option out")
    if constants.HF_HUB_OFFLINE:
        problems.append("--push_to_hub: HF_HUB_OFFLINE is set; unset it, or push when the run is finished")
    return problems

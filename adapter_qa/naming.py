"""The folder of a run whose --output_dir was left out, as it was derived in 2021."""

from __future__ import annotations

import hashlib
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from adapter_qa.planning import Plan
from adapter_qa.training_arguments import TrainingRun

# Options that the 2021 name leaves out: they are appended where they differ from their default, so that the trials
# of a sweep never share a folder.
APPENDED = (
    "seed", "adapter_reduction_factor", "adapter_non_linearity", "weight_decay", "warmup_ratio", "warmup_steps",
    "lr_scheduler_type", "max_steps", "bf16", "max_seq_length", "doc_stride", "block_size", "version_2_with_negative",
    "max_train_samples", "fusion_regularization", "fusion_decay_values", "weighted_loss", "weighted_loss_constant",
    "next_sentence", "label_all_tokens", "bucket_by_length",
)  # fmt: skip
LONGEST_NAME = 240  # file systems end at 255 bytes


def derived_output_dir(model_name: str, data: str, plan: Plan | None, run: TrainingRun, *options: Any) -> Path:
    """`outputs/<model>_<data>/<setup>/<hyperparameters>`.

    Args:
        model_name: folder or hub id of the base model; slashes become dashes.
        data: data set name or data file.
        plan: the setup; None for full fine-tuning.
        run: the training options.
        options: the other option groups, whose values are appended where they are not the defaults.
    """
    model = model_name.strip("/").replace("/", "-")
    setup = "qa_full" if plan is None else _setup_name(plan)
    last = 0 if plan is None else plan.layers - 1
    members = () if plan is None else plan.members
    fused = [f"ad{number}{source.name.replace('_', '')}" for number, source in enumerate(plan.tasks, 1)] if plan else []
    parts = [
        f"lr{run.learning_rate}",
        f"bs{run.per_device_train_batch_size}",
        f"GAS{run.gradient_accumulation_steps}",
        f"eps{run.adam_epsilon}",
        f"epochs{float(run.num_train_epochs)}",
        f"patience{run.early_stopping_patience or 0}",
        f"wamlm{plan is not None and plan.language is not None}",
        f"madx2{bool(members) and all(last in source.config['leave_out'] for source in members)}",
        f"houlsby_MHA_lastlayer{any(source.trick for source in members)}",
        f"ds{run.deepspeed is not None}",
        f"fp16{run.fp16}",
        f"best{run.load_best_model_at_end}",
        f"metric{run.metric_for_best_model}",
        f"adapterconfig{_kind(plan)}",
        *(fused if plan is not None and plan.fused else []),
        *_appended(run, *options),
    ]
    name = "_".join(parts)
    if len(name) > LONGEST_NAME:
        name = name[: LONGEST_NAME - 9] + "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return Path("outputs") / f"{model}_{Path(data).stem}" / setup / name


def _setup_name(plan: Plan) -> str:
    """E.g. `mlm_qa_fusion_AdCompostack`."""
    parts = ["mlm"] if plan.language else []
    parts += [plan.task] + (["fusion"] if plan.fused else [])
    return "_".join([*parts, f"AdCompo{plan.composition}"])


def _kind(plan: Plan | None) -> str:
    """The 2021 name of the first task adapter's kind."""
    if plan is None:
        return "none"
    config = plan.tasks[0].config
    return ("houlsby" if config["mh_adapter"] else "pfeiffer") + ("+inv" if config["inv_adapter"] else "")


def _appended(*options: Any) -> list[str]:
    """Name and value of each option of `APPENDED` that is not at its default."""
    return [
        f"{one.name}{_plain(vars(group)[one.name])}"
        for group in options
        for one in fields(group)
        if one.name in APPENDED and vars(group)[one.name] != _default(one)
    ]


def _default(one: Field[Any]) -> Any:
    return one.default if one.default is not MISSING else None


def _plain(value: Any) -> str:
    return str(value.value if hasattr(value, "value") else value)

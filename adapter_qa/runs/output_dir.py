"""The folder of a run whose --output_dir was left out, as it was derived in 2021."""

from __future__ import annotations

import hashlib
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.training.training_args import TrainerArguments

# Options that the 2021 name leaves out: they are appended where they differ from their default, so that the trials
# of a sweep never share a folder.
APPENDED = (
    "seed", "adapter_reduction_factor", "adapter_non_linearity", "weight_decay", "warmup_ratio", "warmup_steps",
    "lr_scheduler_type", "max_steps", "bf16", "max_seq_length", "doc_stride", "block_size", "version_2_with_negative",
    "max_train_samples", "fusion_regularization", "fusion_decay_values", "weighted_loss", "weighted_loss_constant",
    "next_sentence", "label_all_tokens", "bucket_by_length",
)  # fmt: skip
LONGEST_NAME = 240  # file systems end at 255 bytes


def derived_output_dir(
    model_name: str, data: str, setup: AdapterSetup | None, run: TrainerArguments, *options: Any
) -> Path:
    """`outputs/<model>_<data>/<setup>/<hyperparameters>`.

    Args:
        model_name: folder or hub id of the base model; slashes become dashes.
        data: data set name or data file.
        setup: the setup; None for full fine-tuning.
        run: the training options.
        options: the other option groups, whose values are appended where they are not the defaults.
    """
    model = model_name.strip("/").replace("/", "-")
    setup_name = "qa_full" if setup is None else _setup_name(setup)
    last = 0 if setup is None else setup.layers - 1
    adapters = () if setup is None else setup.adapters
    fused = (
        [f"ad{number}{source.name.replace('_', '')}" for number, source in enumerate(setup.tasks, 1)] if setup else []
    )
    parts = [
        f"lr{run.learning_rate}",
        f"bs{run.per_device_train_batch_size}",
        f"GAS{run.gradient_accumulation_steps}",
        f"eps{run.adam_epsilon}",
        f"epochs{float(run.num_train_epochs)}",
        f"patience{run.early_stopping_patience or 0}",
        f"wamlm{setup is not None and setup.language is not None}",
        f"madx2{bool(adapters) and all(last in source.config['leave_out'] for source in adapters)}",
        f"houlsby_MHA_lastlayer{any(source.attention_only_last_layer for source in adapters)}",
        f"ds{run.deepspeed is not None}",
        f"fp16{run.fp16}",
        f"best{run.load_best_model_at_end}",
        f"metric{run.metric_for_best_model}",
        f"adapterconfig{_kind(setup)}",
        *(fused if setup is not None and setup.fused else []),
        *_appended(run, *options),
    ]
    name = "_".join(parts)
    if len(name) > LONGEST_NAME:
        name = name[: LONGEST_NAME - 9] + "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return Path("outputs") / f"{model}_{Path(data).stem}" / setup_name / name


def _setup_name(setup: AdapterSetup) -> str:
    """E.g. `mlm_qa_fusion_AdCompostack`."""
    parts = ["mlm"] if setup.language else []
    parts += [setup.task] + (["fusion"] if setup.fused else [])
    return "_".join([*parts, f"AdCompo{setup.composition}"])


def _kind(setup: AdapterSetup | None) -> str:
    """The 2021 name of the first task adapter's kind."""
    if setup is None:
        return "none"
    config = setup.tasks[0].config
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

"""The folder of a run without --output_dir, named after its options as the trainer for adapter-transformers 2.x did."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapter_qa.models.adapter_config import kind_of
from adapter_qa.models.adapter_setup import AdapterSetup

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Options that old names did not contain, in their order in a name. Those that are not at their default are appended, so
# that the trials of a sweep never share a folder.
APPENDED = (
    "weight_decay", "max_steps", "lr_scheduler_type", "warmup_ratio", "warmup_steps", "seed", "bf16",
    "label_smoothing_factor", "fp32_products", "head_learning_rate", "bucket_by_length",
    "do_lower_case", "strip_accents",
    "question_column", "context_column", "answer_column", "answer_start_column", "word_column", "label_column",
    "text_column", "block_size", "max_train_samples", "folds", "fold_by", "fold_choosing_share", "max_seq_length",
    "doc_stride", "version_2_with_negative", "calibration_share", "label_all_tokens", "next_sentence", "weighted_loss",
    "weighted_loss_constant",
    "adapter_non_linearity", "adapter_reduction_factor",
    "fusion_head", "fusion_regularization", "fusion_decay_values",
)  # fmt: skip
MAX_NAME = 240  # characters; file systems allow 255 bytes
WITHOUT_BRACKETS = str.maketrans({"[": "-", ",": "-", "=": None, "]": None})  # which shells take for patterns
DIGEST = 8  # hexadecimal digits at the end of a name that was cut


def derived_output_dir(
    model_name: str, data: str, setup: AdapterSetup | None, options: Sequence[DataclassInstance]
) -> Path:
    """Return `outputs/<model>_<data>/<setup>/<hyperparameters>`.

    Args:
        model_name: folder or hub id of the base model.
        data: name of the data set, or a data file.
        setup: None for full fine-tuning.
        options: the groups of options; None stands for a default that the device decides.
    """
    model = model_name.strip("/").replace("/", "-")
    setup_name = "qa_full" if setup is None else _setup_name(setup)
    name = "_".join([*_hyperparameters(setup, options), *_appended(options)])
    if len(name) > MAX_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:DIGEST]
        name = f"{name[: MAX_NAME - DIGEST - 1]}_{digest}"
    return Path("outputs") / f"{model}_{Path(data).stem}" / setup_name / name


def _setup_name(setup: AdapterSetup) -> str:
    """Return, for example, `mlm_qa_fusion_AdCompostack`."""
    language = "mlm_" if setup.language else ""
    fusion = "_fusion" if setup.fused else ""
    return f"{language}{setup.task}{fusion}_AdCompo{setup.composition}"


def _hyperparameters(setup: AdapterSetup | None, options: Sequence[DataclassInstance]) -> list[str]:
    """Return the parts of a name that the trainer for adapter-transformers 2.x wrote, in its order."""
    values: dict[str, Any] = {field.name: getattr(group, field.name) for group in options for field in fields(group)}
    adapters = () if setup is None else setup.adapters
    madx2 = setup is not None and all(setup.layers - 1 in source.config["leave_out"] for source in adapters)
    parts = [
        f"lr{values['learning_rate']}",
        f"bs{values['per_device_train_batch_size']}",
        f"GAS{values['gradient_accumulation_steps']}",
        f"eps{values['adam_epsilon']}",
        f"epochs{float(values['num_train_epochs'])}",
        f"patience{values['early_stopping_patience'] or 0}",
        f"wamlm{setup is not None and setup.language is not None}",
        f"madx2{madx2}",
        f"houlsby_MHA_lastlayer{any(source.attention_only_last_layer for source in adapters)}",
        f"ds{values['deepspeed'] is not None}",
        f"fp16{bool(values['fp16'])}",
        f"best{bool(values['load_best_model_at_end'])}",
        f"metric{values['metric_for_best_model']}",
        f"adapterconfig{'none' if setup is None else kind_of(setup.tasks[0].config).translate(WITHOUT_BRACKETS)}",
    ]
    if setup is not None and setup.fused:
        parts += [f"ad{number}{source.name.replace('_', '')}" for number, source in enumerate(setup.tasks, 1)]
    if setup is not None and setup.swapped_out is not None and setup.language is not None:
        parts.append(f"swap{str(setup.language.folder).replace('/', '-')}")
    return parts


def _appended(options: Sequence[DataclassInstance]) -> list[str]:
    """Return name and value of each option of `APPENDED` that is not at its default."""
    values = {field.name: (getattr(group, field.name), field.default) for group in options for field in fields(group)}
    parts = []
    for name in APPENDED:
        value, default = values.get(name, (None, None))
        if value != default:
            shown = str(value.value if isinstance(value, Enum) else value)
            parts.append(f"{name}{shown.replace('/', '-')}")
    return parts

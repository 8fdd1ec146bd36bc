"""The limits of options, and values that cannot be recorded (adapter_qa/config/option_fields.py)."""

from __future__ import annotations

import math
from typing import Any

import pytest

from adapter_qa.config.option_fields import field_problems
from adapter_qa.config.options import (
    AdapterOptions,
    FusionOptions,
    MLMDataOptions,
    ModelOptions,
    NERDataOptions,
    QADataOptions,
    TrainingOptions,
)

# The limits that options had before they stood in the fields: name, smallest and largest value (None: no limit).
LIMITS: dict[Any, list[tuple[str, float | None, float | None]]] = {
    TrainingOptions: [
        *(
            (name, 0, None)
            for name in ("learning_rate", "head_learning_rate", "weight_decay", "max_grad_norm", "adam_epsilon")
        ),
        *((name, 0, None) for name in ("num_train_epochs", "warmup_steps", "dataloader_num_workers", "eval_delay")),
        *((name, 0, 1) for name in ("adam_beta1", "adam_beta2", "warmup_ratio", "label_smoothing_factor")),
        *((name, 0, 2**32 - 1) for name in ("seed", "data_seed")),
        ("neftune_noise_alpha", 0, None),
        ("max_steps", -1, None),
        *((name, 1, None) for name in ("early_stopping_patience", "save_total_limit", "eval_accumulation_steps")),
        ("tokens_per_batch", 1, None),
        *((name, 1, None) for name in ("per_device_train_batch_size", "per_device_eval_batch_size")),
        *((name, 1, None) for name in ("gradient_accumulation_steps", "dataloader_prefetch_factor")),
    ],
    QADataOptions: [
        *((name, 1, None) for name in ("max_train_samples", "max_eval_samples", "max_predict_samples")),
        *((name, 1, None) for name in ("n_best_size", "max_answer_length")),
        ("doc_stride", 0, None),
        ("temperature", 0.05, 20),
        ("folds", 2, None),
        ("fold", 1, None),
        ("fold_choosing_share", 0, None),  # and below 1
    ],
    NERDataOptions: [
        *((name, 1, None) for name in ("max_train_samples", "max_eval_samples", "max_predict_samples")),
        ("max_seq_length", 8, None),
        ("weighted_loss_constant", 0, None),
    ],
    MLMDataOptions: [*((name, 1, None) for name in ("max_train_samples", "max_eval_samples")), ("block_size", 8, None)],
}
# Options whose limits are not allowed values themselves.
OPEN_LIMITS: dict[Any, list[tuple[str, float, float | None]]] = {
    TrainingOptions: [(name, 0, None) for name in ("logging_steps", "eval_steps", "save_steps")],
    QADataOptions: [("calibration_share", 0, 1)],
    MLMDataOptions: [("mlm_probability", 0, 1), ("validation_split_percentage", 0, 100)],
}


@pytest.mark.parametrize(
    ("group", "name", "smallest", "largest"),
    [(group, *limits) for group, entries in LIMITS.items() for limits in entries],
)
def test_values_beyond_closed_limits_are_refused(
    group: Any, name: str, smallest: float | None, largest: float | None
) -> None:
    for limit, beyond in ((smallest, -1), (largest, 1)):
        if limit is None:
            continue
        assert field_problems([group(**{name: limit})]) == []
        (problem,) = field_problems([group(**{name: limit + beyond})])
        assert problem.startswith(f"--{name} {limit + beyond}: must be ")
        assert f"{limit}" in problem.split("must be")[1]


@pytest.mark.parametrize(
    ("group", "name", "above", "below"),
    [(group, *limits) for group, entries in OPEN_LIMITS.items() for limits in entries],
)
def test_values_at_open_limits_are_refused(group: Any, name: str, above: float, below: float | None) -> None:
    assert field_problems([group(**{name: above + 1e-6})]) == []
    (problem,) = field_problems([group(**{name: above})])
    assert problem.startswith(f"--{name} {above}: must be above {above}")
    if below is not None:
        assert field_problems([group(**{name: below - 1e-6})]) == []
        (problem,) = field_problems([group(**{name: below})])
        assert problem == f"--{name} {below}: must be above {above} and below {below}"


def test_only_the_listed_options_have_limits() -> None:
    for group in {*LIMITS, *OPEN_LIMITS}:
        listed = {name for name, *_ in [*LIMITS.get(group, []), *OPEN_LIMITS.get(group, [])]}
        limited = {name for name, field in group.__dataclass_fields__.items() if "limits" in field.metadata}
        assert limited == listed


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_once(value: float) -> None:
    problem = f"--learning_rate {value}: must be a finite number"
    assert field_problems([TrainingOptions(learning_rate=value)]) == [problem]


def test_text_that_cannot_be_recorded_is_refused() -> None:
    reason = "has a NUL character or is not UTF-8, and cannot be recorded"
    groups = [ModelOptions("a\0b"), FusionOptions(fuse_adapters=["a=b", "c=\udcff"]), AdapterOptions(language="ção")]
    assert field_problems(groups) == [f"--model_name_or_path a\0b: {reason}", f"--fuse_adapters c=\udcff: {reason}"]

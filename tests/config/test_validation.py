"""All problems together, and options without use (adapter_qa/config/validation.py, option_effects.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.configs import NOTHING_TO_DO, QA_METRICS, mlm_config, ner_config, qa_config

from adapter_qa.config.option_effects import unused_notes
from adapter_qa.config.options import (
    AdapterOptions,
    FusionOptions,
    MLMDataOptions,
    NERDataOptions,
    QADataOptions,
)
from adapter_qa.config.run_configs import RunConfig
from adapter_qa.config.validation import validate_config


def test_all_problems_are_reported_at_once() -> None:
    config = qa_config(
        QADataOptions(max_answer_length=0),
        per_device_train_batch_size=0,
        per_device_eval_batch_size=-1,
        gradient_accumulation_steps=0,
        learning_rate=-1e-4,
        metric_for_best_model="x",
    )
    assert validate_config(config) == [
        "--max_answer_length 0: must be between 1 and 1048575",
        "--per_device_train_batch_size 0: must be at least 1",
        "--per_device_eval_batch_size -1: must be at least 1",
        "--gradient_accumulation_steps 0: must be at least 1",
        "--learning_rate -0.0001: must be at least 0",
        NOTHING_TO_DO,
        f"--metric_for_best_model x: not computed here; choose from {QA_METRICS}",
    ]


@pytest.mark.parametrize(
    ("config", "given", "names"),
    [
        (
            qa_config(),
            {"save_steps", "logging_steps", "eval_steps", "eval_delay"},
            ["save_steps", "eval_steps", "eval_delay"],
        ),
        (qa_config(save_strategy="steps", eval_strategy="steps"), {"save_steps", "eval_steps", "eval_delay"}, []),
        (qa_config(logging_strategy="epoch"), {"logging_steps", "seed"}, ["logging_steps"]),
        (qa_config(max_steps=5), {"num_train_epochs", "max_steps"}, ["num_train_epochs"]),
        (qa_config(warmup_steps=5), {"warmup_ratio", "warmup_steps"}, ["warmup_ratio"]),
        (qa_config(lr_scheduler_type="constant"), {"warmup_ratio", "warmup_steps"}, ["warmup_ratio", "warmup_steps"]),
        (qa_config(), {"hub_model_id", "hub_revision", "gradient_checkpointing_kwargs"}, None),
        (
            qa_config(push_to_hub=True, gradient_checkpointing=True),
            {"hub_model_id", "gradient_checkpointing_kwargs"},
            [],
        ),
        (qa_config(), {"null_score_diff_threshold"}, ["null_score_diff_threshold"]),
        (qa_config(QADataOptions(version_2_with_negative=True)), {"null_score_diff_threshold"}, []),
        (qa_config(), {"fusion_head", "fusion_regularization", "fusion_decay_values"}, None),
        (replace(qa_config(), adapter=AdapterOptions(load_adapter="a")), {"fusion_regularization"}, []),
        (qa_config(), {"adapter_config", "madx2"}, []),
        (replace(qa_config(), fusion=FusionOptions(train_adapter=False)), {"adapter_config", "madx2"}, None),
        (qa_config(do_eval=False), {"validation_file", "max_eval_samples", "test_file", "max_predict_samples"}, None),
        (qa_config(do_eval=True, do_predict=True), {"validation_file", "test_file", "max_predict_samples"}, []),
        (ner_config(), {"weighted_loss_constant"}, ["weighted_loss_constant"]),
        (ner_config(NERDataOptions(weighted_loss=True)), {"weighted_loss_constant"}, []),
        (mlm_config(MLMDataOptions(validation_file=["a"])), {"validation_split_percentage"}, None),
        (mlm_config(), {"validation_split_percentage"}, []),
        (qa_config(), {"eval_accumulation_steps"}, None),
        (mlm_config(), {"eval_accumulation_steps"}, None),
        (ner_config(), {"eval_accumulation_steps"}, []),
        (qa_config(), set(), []),
    ],
)
def test_given_options_that_are_not_used_are_named(config: RunConfig, given: set[str], names: list[str] | None) -> None:
    notes = unused_notes(replace(config, given=frozenset(given)))
    found = [note.removeprefix("--").partition(" is not used: ")[0] for note in notes]
    assert sorted(found) == sorted(given if names is None else names)

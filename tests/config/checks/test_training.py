"""Training options and metrics that contradict each other (adapter_qa/config/checks/training.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.configs import NOTHING_TO_DO, QA_METRICS, mlm_config, ner_config, qa_config

from adapter_qa.config.checks.training import training_problems
from adapter_qa.config.options import (
    QADataOptions,
    TrainingOptions,
    resolve_training_options,
)
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig, RunConfig
from adapter_qa.config.validation import validate_config


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        ({"do_train": True, "do_eval": True, "early_stopping_patience": 3}, []),
        ({"dry_run": True}, []),
        ({"do_predict": True, "early_stopping_patience": 3}, []),
        ({"do_train": True, "max_steps": 5, "num_train_epochs": 0}, []),
        ({}, [NOTHING_TO_DO]),
        (
            {"do_train": True, "metric_for_best_model": "eval_accuracy"},
            [f"--metric_for_best_model accuracy: not computed here; choose from {QA_METRICS}"],
        ),
        (
            {"do_train": True, "greater_is_better": False},
            ["--greater_is_better False: must be True for f1; leave the option out"],
        ),
        (
            {"do_train": True, "metric_for_best_model": "loss", "greater_is_better": True},
            ["--greater_is_better True: must be False for loss; leave the option out"],
        ),
        (
            {"do_train": True, "early_stopping_patience": 3},
            ["--early_stopping_patience needs evaluation while training; add --do_eval"],
        ),
        (
            {"do_train": True, "num_train_epochs": 0},
            ["--num_train_epochs 0: must be above 0; training needs epochs or --max_steps"],
        ),
        (
            {"do_train": True, "load_best_model_at_end": True},
            [
                "--load_best_model_at_end: evaluation (no) and checkpoints (epoch) must come together; add --do_eval, "
                "or give --eval_strategy and --save_strategy the same value"
            ],
        ),
        (
            {"do_train": True, "save_only_model": True},
            ["--save_only_model True: an interrupted run could not resume from its checkpoints; leave it out"],
        ),
        *(
            (
                {"do_train": True, "tokens_per_batch": 4096, "optim": optim},
                [
                    f"--tokens_per_batch: --optim {optim} would update the weights after every part of a batch; choose "
                    "another optimizer, or leave out --tokens_per_batch"
                ],
            )
            for optim in ("lomo", "adalomo", "apollo_adamw_layerwise")
        ),
        ({"do_train": True, "bf16": True, "fp16": True}, ["--bf16 and --fp16 exclude each other; give one"]),
        (
            {"do_train": True, "resume_from_checkpoint": "x"},
            ["--resume_from_checkpoint x: the same command with the same --output_dir resumes; leave it out"],
        ),
    ],
)
def test_contradicting_training_options_are_refused(values: dict[str, Any], problems: list[str]) -> None:
    data = QADataOptions(train_file=[__file__], validation_file=[__file__], test_file=[__file__])
    assert validate_config(qa_config(data, **values)) == problems


def test_mixed_precision_of_accelerate_is_refused_unless_it_is_that_of_the_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    for options in (TrainingOptions(dry_run=True), TrainingOptions(dry_run=True, fp16=True)):
        (problem,) = training_problems(resolve_training_options(options))
        assert problem.startswith("accelerate's mixed precision (bf16): give --bf16 True")
    assert training_problems(resolve_training_options(TrainingOptions(dry_run=True, bf16=True))) == []
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert training_problems(resolve_training_options(TrainingOptions(dry_run=True))) == []


@pytest.mark.parametrize(
    ("config", "metrics"),
    [
        (qa_config(), QA_METRICS),
        (qa_config(QADataOptions(version_2_with_negative=True)), f"{QA_METRICS}, HasAns_f1, HasAns_exact, HasA"),
        (ner_config(), "f1, precision, recall, entities, loss, runtime, samples_per_second, steps_per_second, or "),
        (mlm_config(), "loss, perplexity, runtime, samples_per_second, steps_per_second"),
    ],
)
def test_each_script_names_its_metrics(config: QARunConfig | NERRunConfig | MLMRunConfig, metrics: str) -> None:
    training = replace(config.training, metric_for_best_model="bleu", greater_is_better=None)
    problems = validate_config(replace(config, training=training))  # type: ignore[arg-type]
    start = f"--metric_for_best_model bleu: not computed here; choose from {metrics}"
    assert [problem for problem in problems if problem.startswith(start)]


@pytest.mark.parametrize(
    ("config", "metric", "greatest"),
    [
        (qa_config(QADataOptions(version_2_with_negative=True)), "HasAns_f1", True),
        (qa_config(QADataOptions(version_2_with_negative=True)), "eval_best_exact", True),
        (qa_config(), "total", True),
        (qa_config(), "scores_runtime", False),
        (ner_config(), "PER_f1", True),
        (ner_config(), "first_name_entities", True),
        (mlm_config(), "perplexity", False),
    ],
)
def test_every_printed_metric_decides_which_epoch_is_best(config: RunConfig, metric: str, greatest: bool) -> None:
    training = replace(config.training, metric_for_best_model=metric, greater_is_better=None, dry_run=True)
    resolved = replace(config, training=training).resolved()  # type: ignore[arg-type]
    assert validate_config(resolved) == []
    assert resolved.training.greater_is_better is greatest


def test_top_k_needs_as_many_candidates() -> None:
    config = qa_config(QADataOptions(n_best_size=4), metric_for_best_model="top_5_f1")
    assert "--metric_for_best_model top_5_f1: needs --n_best_size 5 or more" in validate_config(config)
    config = qa_config(QADataOptions(n_best_size=5), metric_for_best_model="top_5_f1")
    assert not [problem for problem in validate_config(config) if "top_5" in problem]


@pytest.mark.parametrize("metric", ["HasAns_f1", "NoAns_total", "best_f1_thresh"])
def test_metrics_of_squad_v2_need_its_option(metric: str) -> None:
    (problem,) = validate_config(qa_config(dry_run=True, metric_for_best_model=metric))
    assert problem == f"--metric_for_best_model {metric}: needs --version_2_with_negative True"

"""Options and run configurations: limits, defaults that follow from others, splits."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from typing import Any, get_type_hints

import pytest
from adapters import AdapterConfig
from support.scripts import ROOT

from adapter_qa.config.option_fields import Limits
from adapter_qa.config.options import (
    ADAPTER_CONFIGS,
    AdapterOptions,
    FusionOptions,
    LanguageAdapterOptions,
    MLMAdapterOptions,
    MLMDataOptions,
    MLMTrainingOptions,
    ModelOptions,
    NERDataOptions,
    NERTrainingOptions,
    QADataOptions,
    TrainingOptions,
    resolve_training_options,
)
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig, Split
from adapter_qa.config.training_options import LibraryTrainingOptions
from adapter_qa.runs.run_record import NEUTRAL_OPTIONS

MODEL, ADAPTER, LANGUAGE, FUSION = ModelOptions("bert"), AdapterOptions(), LanguageAdapterOptions(), FusionOptions()


def qa_config(data: QADataOptions, **training: Any) -> QARunConfig:
    return QARunConfig(MODEL, data, ADAPTER, LANGUAGE, FUSION, TrainingOptions(**training)).resolved()


def ner_config(data: NERDataOptions, **training: Any) -> NERRunConfig:
    return NERRunConfig(MODEL, data, ADAPTER, LANGUAGE, NERTrainingOptions(**training)).resolved()


def mlm_config(data: MLMDataOptions, **training: Any) -> MLMRunConfig:
    return MLMRunConfig(MODEL, data, MLMAdapterOptions(), MLMTrainingOptions(**training)).resolved()


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("limits", "words", "allowed", "refused"),
    [
        (Limits(minimum=1), "at least 1", (1, 2, math.inf), (0, 0.999, -1)),
        (Limits(maximum=3), "at most 3", (3, -math.inf), (3.001,)),
        (Limits(minimum=0, maximum=2**32 - 1), "between 0 and 4294967295", (0, 2**32 - 1), (-1, 2**32)),
        (Limits(above=0), "above 0", (1e-9,), (0, -0.0, -1)),
        (Limits(above=0, below=1), "above 0 and below 1", (0.5,), (0, 1)),
        (Limits(above=0, maximum=1), "above 0 and at most 1", (1,), (0, 1.1)),
    ],
)
def test_limits(limits: Limits, words: str, allowed: tuple[float, ...], refused: tuple[float, ...]) -> None:
    assert str(limits) == words
    assert all(limits.allow(value) for value in allowed)
    assert not any(limits.allow(value) for value in refused)


def test_limits_of_library_options_change_nothing_else() -> None:
    library = {field.name: field for field in fields(LibraryTrainingOptions)}
    limited = [field for field in fields(TrainingOptions) if "limits" in field.metadata]
    assert len(limited) > 20
    for field in limited:
        if field.name not in library or field.name in ("learning_rate", "logging_steps", "save_total_limit"):
            continue  # these have their own default and help text
        assert field.default == library[field.name].default
        assert field.metadata["help"] == library[field.name].metadata["help"]


@pytest.mark.parametrize(
    "group",
    [
        *(ModelOptions, AdapterOptions, LanguageAdapterOptions, FusionOptions),
        *(QADataOptions, MLMDataOptions, NERDataOptions),
    ],
)
def test_every_option_has_a_help_text(group: Any) -> None:
    assert [field.name for field in fields(group) if not field.metadata.get("help", "").endswith(".")] == []


@pytest.mark.parametrize(("config", "run"), [(QARunConfig, "qa"), (NERRunConfig, "ner"), (MLMRunConfig, "mlm")])
def test_options_that_earlier_versions_lack_say_how_those_trained(config: type[Any], run: str) -> None:
    """Options of versions 0.1.0 and 0.2.0 are the same; a later one needs `before` or must change nothing."""
    document = json.loads((ROOT / "tests" / "fixtures" / "runs_0.1.0" / run / "run.json").read_text("utf-8"))
    types = get_type_hints(config)
    options = [option for name in config.group_names() for option in fields(types[name])]
    assert len(options) > 130
    later = [option for option in options if option.name not in document["options"]]
    undeclared = [option.name for option in later if "before" not in option.metadata]
    assert [name for name in undeclared if not NEUTRAL_OPTIONS.fullmatch(name)] == []
    assert [option.name for option in options if option not in later and "before" in option.metadata] == []


@pytest.mark.parametrize(("old", "new"), [(old, new) for old, new in ADAPTER_CONFIGS.items() if old != new])
def test_old_adapter_names_mean_what_the_library_says(old: str, new: str) -> None:
    assert AdapterConfig.load(old).to_dict() == AdapterConfig.load(new).to_dict()


# ---------------------------------------------------------------- options that follow from others


@pytest.mark.parametrize(
    ("values", "strategy", "evaluates"),
    [
        ({}, "no", False),
        ({"do_train": True}, "no", False),
        ({"do_eval": True}, "no", True),
        ({"do_train": True, "do_eval": True}, "epoch", True),
        ({"do_train": True, "do_eval": True, "eval_strategy": "no"}, "no", True),
        ({"do_train": True, "eval_strategy": "epoch"}, "epoch", True),
        ({"do_train": True, "do_eval": True, "eval_strategy": "steps"}, "steps", True),
    ],
)
def test_evaluation_follows_from_the_options(values: dict[str, Any], strategy: str, evaluates: bool) -> None:
    options = TrainingOptions(**values)
    resolved = resolve_training_options(options)
    assert options.effective_eval_strategy == resolved.effective_eval_strategy == strategy
    assert resolved.do_eval is evaluates


@pytest.mark.parametrize(
    ("metric", "greater"), [("f1", True), ("eval_f1", True), ("exact", True), ("loss", False), ("eval_loss", False)]
)
def test_less_loss_is_better(metric: str, greater: bool) -> None:
    resolved = resolve_training_options(TrainingOptions(metric_for_best_model=metric))
    assert resolved.greater_is_better is greater
    assert resolved.best_metric == metric.removeprefix("eval_")


@pytest.mark.parametrize(
    ("values", "saving", "keeps_best"),
    [
        ({"do_train": True}, ("epoch", 500), False),
        ({"do_train": True, "do_eval": True}, ("epoch", 500), True),
        ({"do_train": True, "do_eval": True, "save_strategy": "no"}, ("no", 500), False),
        ({"do_train": True, "eval_strategy": "steps", "eval_steps": 7}, ("steps", 7), True),
        ({"do_train": True, "eval_strategy": "steps"}, ("steps", 0.01), True),
        ({"do_train": True, "eval_strategy": "steps", "eval_steps": 7, "save_steps": 14}, ("steps", 14), True),
        (
            {"do_train": True, "eval_strategy": "steps", "eval_steps": 7, "save_strategy": "epoch"},
            ("epoch", 500),
            False,
        ),
        ({"do_train": True, "eval_strategy": "epoch", "load_best_model_at_end": False}, ("epoch", 500), False),
        ({"do_train": True, "eval_strategy": "no", "save_strategy": "no"}, ("no", 500), False),
    ],
)
def test_checkpoints_come_with_evaluations_unless_they_are_given(
    values: dict[str, Any], saving: tuple[str, float], keeps_best: bool
) -> None:
    resolved = resolve_training_options(TrainingOptions(**values), frozenset(values))
    assert (resolved.save_strategy, resolved.save_steps) == saving
    assert resolved.keeps_best is keeps_best


def test_a_given_direction_is_kept_for_validation() -> None:
    assert resolve_training_options(TrainingOptions(greater_is_better=False)).greater_is_better is False


def test_resolving_changes_only_options_that_follow_from_others() -> None:
    options = TrainingOptions(do_train=True, learning_rate=3.0)
    assert resolve_training_options(options) == replace(options, greater_is_better=True)


def test_label_inputs_and_loss_by_task() -> None:
    qa, ner, mlm = qa_config(QADataOptions()), ner_config(NERDataOptions()), mlm_config(MLMDataOptions())
    assert [config.training.label_names for config in (qa, ner, mlm)] == [None, ["labels"], ["labels"]]
    assert ner.class_names() == ner.resolved().class_names() == ()
    named = ner_config(NERDataOptions(), label_names=["O", "B-X"])
    assert named.class_names() == named.resolved().class_names() == ("O", "B-X")
    assert [config.training.prediction_loss_only for config in (qa, ner, mlm)] == [False, False, True]
    assert [config.training.metric_for_best_model for config in (qa, ner, mlm)] == ["f1", "f1", "loss"]
    assert [config.training.greater_is_better for config in (qa, ner, mlm)] == [True, True, False]


# ---------------------------------------------------------------- splits

QA_FILES = QADataOptions(train_file=["t.json"], validation_file=["v.json"], max_eval_samples=7)
NER_FILES = NERDataOptions(train_file=["t.conll"], test_file=["p.conll"], max_predict_samples=2)
MLM_FILES = MLMDataOptions(train_file=["t.txt"], max_train_samples=5)


def test_splits_know_their_options() -> None:
    assert qa_config(QA_FILES, do_eval=True).all_splits() == (
        Split("train", "train_file", ("t.json",), "train", None, False),
        Split("eval", "validation_file", ("v.json",), "validation", 7, True),
        Split("predict", "test_file", (), "test", None, False),
    )
    assert ner_config(NER_FILES, do_predict=True).all_splits() == (
        Split("train", "train_file", ("t.conll",), "train", None, False),
        Split("eval", "validation_file", (), "validation", None, False),
        Split("predict", "test_file", ("p.conll",), "test", 2, True),
    )
    assert mlm_config(MLM_FILES, do_train=True).all_splits() == (
        Split("train", "train_file", ("t.txt",), "train", 5, True, folders=True),
        Split("eval", "validation_file", (), "validation", None, False, folders=True),
    )


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (qa_config(QA_FILES), []),
        (qa_config(QA_FILES, do_train=True), ["train"]),
        (qa_config(QA_FILES, do_train=True, eval_strategy="epoch"), ["train", "eval"]),
        (qa_config(QA_FILES, dry_run=True), ["train", "eval"]),
        (qa_config(QADataOptions(dataset_name="squad"), do_eval=True, do_predict=True), ["eval", "predict"]),
        (qa_config(QADataOptions(dataset_name="squad"), dry_run=True), []),
        (ner_config(NER_FILES, do_train=True), ["train"]),
        (ner_config(NER_FILES, dry_run=True), ["train", "predict"]),
        (mlm_config(MLM_FILES), ["train"]),
        (mlm_config(MLM_FILES, do_eval=True), ["train"]),
        (mlm_config(replace(MLM_FILES, validation_file=["v.txt"]), do_eval=True), ["train", "eval"]),
    ],
)
def test_splits_that_a_run_reads(config: QARunConfig | NERRunConfig | MLMRunConfig, names: list[str]) -> None:
    assert [split.name for split in config.splits()] == names

"""The library's training arguments from the options (adapter_qa/training/training_args.py).

Oracle for the defaults: `transformers.TrainingArguments` itself.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from support.problems import problem_of
from transformers import TrainingArguments

from adapter_qa.config.options import (
    AdapterOptions,
    FusionOptions,
    LanguageAdapterOptions,
    ModelOptions,
    QADataOptions,
    TrainingOptions,
)
from adapter_qa.config.run_configs import QARunConfig
from adapter_qa.core.errors import UserError
from adapter_qa.training.precision import choose_precision
from adapter_qa.training.training_args import (
    TrainerArguments,
    decide_arithmetic,
    options_record,
    resolve_training_args,
)


def training_options(**values: Any) -> TrainingOptions:
    return TrainingOptions(output_dir="out", report_to=[], **values)


@pytest.mark.parametrize(
    ("values", "strategy", "load_best"),
    [
        ({}, "no", False),
        ({"do_train": True}, "no", False),
        ({"do_eval": True}, "no", False),
        ({"do_train": True, "do_eval": True}, "epoch", True),
        ({"do_train": True, "do_eval": False}, "no", False),
        ({"do_train": True, "do_eval": True, "load_best_model_at_end": False}, "epoch", False),
        ({"do_train": True, "do_eval": True, "eval_strategy": "no"}, "no", False),
        ({"do_train": True, "eval_strategy": "epoch"}, "epoch", True),
        ({"do_train": True, "do_eval": True, "eval_strategy": "steps", "eval_steps": 10}, "steps", False),
        (
            {"do_train": True, "do_eval": True, "eval_strategy": "steps", "eval_steps": 5}
            | {"save_strategy": "steps", "save_steps": 10},
            "steps",
            True,
        ),
        ({"do_train": True, "do_eval": True, "save_strategy": "no"}, "epoch", False),
    ],
)
def test_evaluation_and_best_epoch_follow_from_the_options(
    values: dict[str, Any], strategy: str, load_best: bool
) -> None:
    args = resolve_training_args(training_options(**values))
    assert args.eval_strategy == strategy
    assert args.load_best_model_at_end is load_best


def test_json_values_become_mappings() -> None:
    options = training_options(lr_scheduler_type="cosine_with_restarts", lr_scheduler_kwargs='{"num_cycles": 2}')
    assert resolve_training_args(options).lr_scheduler_kwargs == {"num_cycles": 2}


def test_other_arguments_have_the_defaults_of_the_library() -> None:
    args, library = resolve_training_args(training_options()), TrainingArguments(output_dir="out", report_to=[])
    own = {"eval_strategy", "save_strategy", "logging_strategy", "logging_steps", "save_total_limit", "learning_rate"}
    own |= {"metric_for_best_model", "greater_is_better", "load_best_model_at_end", "remove_unused_columns"}
    own |= {"dataloader_pin_memory", "ddp_find_unused_parameters", "logging_dir", "trackio_space_id"}
    names = [field.name for field in fields(library) if field.init]
    assert {name for name in names if getattr(args, name) != getattr(library, name)} <= own


def test_library_error_becomes_a_one_line_user_error() -> None:
    with pytest.raises(UserError) as caught:
        resolve_training_args(training_options(max_steps=2, save_strategy="steps", save_steps=7.5))
    (problem,) = caught.value.problems
    assert problem.startswith("--save_steps must be an integer if bigger than 1")
    assert "\n" not in problem


def test_a_schedule_is_checked_with_the_learning_rate_of_the_run() -> None:
    polynomial = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 5e-3}}
    assert resolve_training_args(training_options(learning_rate=1e-2, **polynomial)).learning_rate == 1e-2
    problem = problem_of(resolve_training_args, training_options(learning_rate=1e-4, **polynomial))
    assert problem.endswith("lr_end (0.005) must be smaller than initial lr (0.0001)")
    cosine = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5}}
    problem = problem_of(resolve_training_args, training_options(learning_rate=0.0, **cosine))
    assert problem.endswith("float division by zero")


@pytest.mark.parametrize(
    ("capability", "autocast", "reason"),
    [
        ((9, 0), "bf16", "A GPU computes it in hardware"),
        ((8, 0), "bf16", "A GPU computes it in hardware"),
        ((7, 5), "fp16", "A GPU computes it in hardware"),
        ((7, 0), "fp16", "A GPU computes it in hardware"),
        ((6, 1), "no", "A GPU has no matrix units for 16 bits"),
    ],
)
def test_precision_depends_on_the_device(
    capability: tuple[int, int], autocast: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    precision = choose_precision(training_options(do_train=True), None)
    assert precision == (autocast, "ieee", f"{reason}; --bf16 or --fp16 decides otherwise")
    for option, value in (("bf16", False), ("fp16", True), ("bf16", True), ("fp16", False)):
        precision = choose_precision(training_options(**{option: value}), None)
        assert precision == (option if value else "no", "ieee", f"given by --{option} {value}")
    reason = "the default of an evaluation by itself; --bf16 or --fp16 decides otherwise"
    assert choose_precision(training_options(), None) == ("no", "ieee", reason)
    options = training_options(use_cpu=True, do_train=True)
    assert choose_precision(options, None) == ("no", "ieee", "this CPU has no bfloat16 units to use")


def test_float16_without_an_accelerator_becomes_float32_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    assert not resolve_training_args(training_options(fp16=True, use_cpu=True)).fp16
    assert capsys.readouterr().err == "note: --fp16 needs an accelerator; on the CPU the run is in float32\n"


@pytest.mark.parametrize(("option", "other"), [("fp16_full_eval", "bf16"), ("bf16_full_eval", "fp16")])
def test_weights_of_an_evaluation_do_not_mix_two_types_of_16_bits(
    option: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert problem_of(decide_arithmetic, training_options(**{option: True, other: True})) == (
        f"--{option} True: the run computes in {other} (given by --{other} True); leave it out, or give --{other} False"
    )


def test_an_evaluation_in_bfloat16_needs_no_accelerator() -> None:
    args = resolve_training_args(training_options(bf16_full_eval=True))
    assert (args.bf16_full_eval, args.bf16, args.use_cpu) == (True, False, True)


def test_apple_gpu_is_not_used(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_training_args(TrainingOptions(output_dir="out", report_to=[])).use_cpu
    assert "the run is on the CPU" in capsys.readouterr().err
    resolve_training_args(TrainingOptions(output_dir="out", report_to=[], use_cpu=True))
    assert capsys.readouterr().err == ""


def test_options_record_has_every_option_as_json_without_secrets() -> None:
    groups = ModelOptions("bert"), QADataOptions(), AdapterOptions(), LanguageAdapterOptions()
    fusion = FusionOptions(fuse_adapters=["a=b", "c=d"])
    options = training_options(do_train=True, hub_token="hf_secret")
    record = options_record(QARunConfig(*groups, fusion, options), resolve_training_args(options))
    assert json.loads(json.dumps(record)) == record
    for group in (*groups, fusion):
        assert {name: record[name] for name in vars(group)} == vars(group)
    assert {field.name for field in fields(TrainerArguments) if field.init} <= set(record)
    assert (record["do_train"], record["eval_strategy"], record["learning_rate"]) == (True, "no", 1e-4)
    assert "hf_secret" not in json.dumps(record)


def test_options_record_has_a_single_file_as_text_as_earlier_versions_wrote_it() -> None:
    data = QADataOptions(train_file=["a.json"], validation_file=["a.json", "b.json"])
    config = QARunConfig(
        ModelOptions("bert"), data, AdapterOptions(), LanguageAdapterOptions(), FusionOptions(), training_options()
    )
    record = options_record(config, resolve_training_args(training_options()))
    assert (record["train_file"], record["validation_file"]) == ("a.json", ["a.json", "b.json"])
    assert record["test_file"] is None


def test_compilation_on_a_cpu_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    options = training_options(do_train=True, torch_compile=True, use_cpu=True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="needs a C\\+\\+ compiler on a CPU, and no-such-compiler is not found"):
        resolve_training_args(options)
    assert resolve_training_args(replace(options, torch_compile_backend="eager")).torch_compile
    monkeypatch.setenv("CXX", sys.executable)  # any program that exists
    assert resolve_training_args(options).torch_compile

"""Training from Python (adapter_qa/api.py): the same runs as on the command line, and nothing left in the process."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file
from support.scripts import ROOT, run_main
from transformers.trainer_utils import IntervalStrategy, SchedulerType
from transformers.utils import logging

import adapter_qa
import run_qa_adapter
from adapter_qa import (
    Interrupted,
    QuestionAnswerer,
    RunError,
    TrainingResult,
    UserError,
    train_mlm,
    train_ner,
    train_qa,
)
from adapter_qa.core.process_state import restored_process
from adapter_qa.inference.call_inputs import CallError
from adapter_qa.runs.lock import is_locked
from adapter_qa.training.adapter_trainer import AdapterTrainer


@pytest.fixture(scope="module")
def options(tiny_bert: Path, squad_files: tuple[Path, Path]) -> dict[str, object]:
    """Options of a run of 6 steps, with values of every kind."""
    train, dev = squad_files
    return {
        "train_file": [train],
        "validation_file": str(dev),
        "model_name_or_path": tiny_bert,
        "do_train": True,
        "do_eval": True,
        "max_seq_length": np.int64(64),
        "doc_stride": 16,
        "learning_rate": 1e-2,
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "lr_scheduler_kwargs": {},
        "report_to": ("none",),
        "config_name": None,
    }


def command_line(options: dict[str, object]) -> list[str]:
    """Return the words that a user would type."""
    words: list[str] = []
    for name, value in options.items():
        values = value if isinstance(value, (list, tuple)) else [json.dumps(value) if value == {} else value]
        words += [] if value is None else [f"--{name}", *map(str, values)]
    return words


@pytest.fixture(scope="module")
def by_script(options: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run, made by the script."""
    folder = tmp_path_factory.mktemp("script") / "run"
    run = run_main(run_qa_adapter.main, *command_line({**options, "output_dir": folder}))
    assert run.returncode == 0, run.stderr
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapters-qa" / "qa" / "adapter.safetensors")


def random_states() -> list[object]:
    """Return the states of the random generators, as values that can be compared."""
    numpy_state = np.random.get_state(legacy=False)["state"]["key"]
    return [random.getstate(), str(numpy_state.tolist()), torch.get_rng_state().tolist()]


def same_weights(first: Path, second: Path) -> bool:
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def without_times(value: Any) -> Any:
    """Return a part of run.json without what differs between two runs of the same command."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not key.endswith(("time", "runtime", "per_second"))}
        return {key: without_times(item) for key, item in kept.items()}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def test_a_run_is_that_of_the_command_line(options: dict[str, object], by_script: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = train_qa({**options, "output_dir": folder})
    expected, record = (json.loads((path / "run.json").read_text("utf-8")) for path in (by_script, folder))
    assert result.record == record
    assert (result.folder, result.saved) == (folder, folder / "adapters-qa")
    assert (result.was_finished, result.resumed_from) == (False, None)
    assert result.metrics["eval"]["eval_f1"] == expected["metrics"]["eval"]["eval_f1"]
    assert result.best == expected["best"]
    for key in ("script", "status", "metrics", "history", "data", "parameters"):
        assert without_times(record[key]) == without_times(expected[key]), key
    own = ("output_dir", "logging_dir", "run_name")
    for name, value in expected["options"].items():
        assert name in own or record["options"][name] == value
    assert same_weights(folder, by_script)

    assert not is_locked(folder)
    assert QuestionAnswerer(folder).ask("Onde nasceu Ana?", "Ana nasceu em Recife.").text
    again = train_qa({**options, "output_dir": folder})
    assert (again.was_finished, again.metrics) == (True, result.metrics)


def test_a_run_leaves_nothing_to_the_next_one(
    options: dict[str, object], by_script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # as a training with transformers alone leaves it
    environment, argv, verbosity = dict(os.environ), sys.argv, logging.get_verbosity()
    loggers = [logging.get_logger(name) for name in ("transformers.modeling_utils", "adapters.model_mixin")]
    filters = [[*logger.filters] for logger in loggers], [*warnings.filters]
    generators, threads = random_states(), threading.enumerate()
    torch.backends.cuda.enable_cudnn_sdp(True)
    half = {**options, "bf16": True, "full_determinism": True, "log_level": "error", "report_to": "tensorboard"}
    train_qa({**half, "output_dir": tmp_path / "bf16"})
    assert not same_weights(tmp_path / "bf16", by_script)
    assert (dict(os.environ), sys.argv, logging.get_verbosity()) == (environment, argv, verbosity)
    assert not torch.are_deterministic_algorithms_enabled()
    assert AcceleratorState._shared_state == PartialState._shared_state == {}
    assert ([logger.filters for logger in loggers], warnings.filters) == filters
    assert (random_states(), threading.enumerate()) == (generators, threads)
    assert torch.backends.cuda.cudnn_sdp_enabled()
    train_qa({**options, "output_dir": tmp_path / "float32"})
    assert same_weights(tmp_path / "float32", by_script)


def test_an_interrupt_saves_a_checkpoint_and_the_same_call_resumes(
    options: dict[str, object], by_script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    options = {**options, "report_to": "tensorboard"}
    handler, threads = signal.getsignal(signal.SIGINT), threading.enumerate()
    steps: list[int] = []
    step = AdapterTrainer.training_step

    def interrupted_step(trainer: AdapterTrainer, *args: Any) -> Any:
        steps.append(trainer.state.global_step)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return step(trainer, *args)

    with monkeypatch.context() as patch:
        patch.setattr(AdapterTrainer, "training_step", interrupted_step)
        with pytest.raises(Interrupted) as caught:
            train_qa({**options, "output_dir": folder})
    assert (steps, caught.value.exit_code) == ([0, 1], 128 + signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), threading.enumerate()) == (handler, threads)
    assert not is_locked(folder)
    result = train_qa({**options, "output_dir": folder})
    assert result.resumed_from == folder / "checkpoint-2"
    assert same_weights(folder, by_script)


@pytest.mark.parametrize(
    "error",
    [UserError(["a\u202e", "b" * 3000]), RunError("a"), Interrupted(15, ["a", "b"]), CallError("a")],
    ids=lambda error: type(error).__name__,
)
def test_a_pool_of_processes_passes_errors_on(error: adapter_qa.ReportedError) -> None:
    """Pools pickle the exceptions of their processes; one that cannot be read again breaks the pool."""
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert (again.problems, again.exit_code, str(again)) == (error.problems, error.exit_code, str(error))


def test_mistakes_are_exceptions(options: dict[str, object]) -> None:
    with pytest.raises(UserError) as caught:
        train_qa({**options, "learning_rate": "fast", "seed": -1})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "argument --learning_rate",
        "--seed -1",
    ]
    with pytest.raises(UserError, match=r"^train_qa: unknown option learning_rat; .*learning_rate"):
        train_qa({**options, "learning_rat": 1e-3})
    with pytest.raises(UserError) as caught:
        train_qa({"seed": object(), "lr_scheduler_kwargs": {"power": {1}}, "hub_token": {1: "a"}})
    allowed = "give text, a number, True, False, a path, a list of them, or a dictionary with keys of text"
    assert caught.value.problems == [
        f"train_qa: seed has a value of type object; {allowed}",
        f"train_qa: lr_scheduler_kwargs has a value of type set; {allowed}",
        f"train_qa: hub_token has a key of type int; {allowed}",
    ]
    with pytest.raises(UserError, match=r"^train_qa: unknown option --seed; write it as seed$"):
        train_qa({**options, "--seed": 1})
    with pytest.raises(UserError, match=r"^train_qa: deepspeed needs processes of its own; start run_qa_adapter\.py$"):
        train_qa({**options, "deepspeed": "ds_config_zero2.json"})
    for train, function in ((train_ner, "train_ner"), (train_mlm, "train_mlm")):
        with pytest.raises(UserError, match=f"^{function}: unknown option doc_stride"):
            train({"doc_stride": 1})
    assert not issubclass(UserError, ValueError)
    assert issubclass(RunError, adapter_qa.ReportedError)


def test_values_of_numpy_and_of_the_libraries_are_taken(options: dict[str, object]) -> None:
    values = {
        "eval_strategy": IntervalStrategy.EPOCH,
        "bf16": np.bool_(False),
        "learning_rate": np.float32(1e-3),
        "lr_scheduler_type": SchedulerType.COSINE_WITH_RESTARTS,
        "lr_scheduler_kwargs": {"num_cycles": np.int64(2)},
    }
    record = train_qa({**options, **values, "dry_run": True}).record
    assert {name: record["options"][name] for name in values} == {
        "eval_strategy": "epoch",
        "bf16": False,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine_with_restarts",
        "lr_scheduler_kwargs": {"num_cycles": 2},
    }


def test_the_result_of_a_moved_run_is_where_it_is_now(
    options: dict[str, object], by_script: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(by_script, tmp_path / "moved")
    result = train_qa({**options, "output_dir": moved})
    assert (result.was_finished, result.folder, result.saved) == (True, moved, moved / "adapters-qa")


def test_several_processes_are_refused(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"^train_qa: is for one process; several start run_qa_adapter\.py with"):
        train_qa(options)


def test_a_thread_trains_and_no_second_one(options: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    results: list[TrainingResult] = []
    refusals: list[str] = []

    def refused(*_: object) -> None:
        with pytest.raises(UserError) as caught:
            train_qa({**options, "dry_run": True})
        refusals.extend(caught.value.problems)

    def train() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("adapter_qa.training.run_messages.print_dry_run", refused)
            results.append(train_qa({**options, "dry_run": True}))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert refusals == ["train_qa: another run is at work in this process; wait for it, or start another process"]
    (result,) = results
    assert (result.folder, result.saved, result.metrics, result.best) == (None, None, {}, None)
    assert result.record["parameters"]["trainable"] > 0


def change_settings() -> None:
    with restored_process("a.py"):
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.deterministic = True
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]  # the stubs lack it
        os.environ["A_VARIABLE"] = "1"
        assert sys.argv == ["a.py"]
        raise UserError("x")


def test_settings_are_restored_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    products: str = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    with pytest.raises(UserError):
        change_settings()
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.deterministic
    assert torch.backends.mkldnn.matmul.fp32_precision == products  # type: ignore[attr-defined]
    assert "A_VARIABLE" not in os.environ


def test_the_public_names_can_be_listed() -> None:
    code = "import adapter_qa, sys\nprint({*adapter_qa.__all__} <= {*dir(adapter_qa)}, 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("True False\n", "")


def test_a_name_that_is_not_public_is_an_error() -> None:
    """Also for mypy, which reports the comment if it takes every name."""
    with pytest.raises(ImportError):
        from adapter_qa import train_everything  # type: ignore[attr-defined]  # noqa: F401


def test_option_errors_need_no_torch() -> None:
    code = (
        "import sys, adapter_qa\n"
        "assert not {'run_qa_adapter', 'yaml', 'torch'} & {*sys.modules}\n"
        "try:\n    adapter_qa.train_qa({'seed': 'x'})\n"
        "except adapter_qa.UserError as error:\n    print(len(error.problems))\n"
        "assert not {'torch', 'transformers'} & {*sys.modules}"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (int(run.stdout) > 0, run.stderr) == (True, "")

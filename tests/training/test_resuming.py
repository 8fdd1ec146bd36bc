"""Interrupted training: a resumed run equals an uninterrupted one, and damaged checkpoints are never used.

Interruptions are signals, power cuts, full disks, read-only folders, too little memory and NaN.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.scripts import override
from support.trainers import fusion_command, make_trainer
from transformers import EarlyStoppingCallback, TrainerCallback

import run_qa_adapter
from adapter_qa.core.errors import Interrupted, ReportedError, RunError, UserError
from adapter_qa.data.samplers import BucketSampler
from adapter_qa.models.save import trainable_state
from adapter_qa.runs.checkpoints import checkpoint_error, checkpoint_steps, newest_checkpoint
from adapter_qa.training import callbacks
from trainer_qa import QuestionAnsweringTrainer

MakeArgv = Callable[..., list[str]]
STEPS = 12  # optimizer steps of a run of `make_argv`; 3 are an epoch


class AtStep(TrainerCallback):
    """A callback that calls a function at the end of an optimizer step, once."""

    def __init__(self, step: int, action: Callable[[], Any]) -> None:
        self.step = step
        self.action = action

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.action()


class AtEvaluation(TrainerCallback):
    """A callback that calls a function during the evaluation after an optimizer step."""

    def __init__(self, step: int, action: Callable[[], Any]) -> None:
        self.step = step
        self.action = action

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.action()


def cut_power() -> None:
    raise KeyboardInterrupt


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def make_argv(tiny_bert: Path, squad_files: tuple[Path, Path]) -> MakeArgv:
    """Return a function that makes the command line of a run of 4 epochs of 3 steps, logged every second step."""
    return lambda folder, *argv: fusion_command(tiny_bert, squad_files, folder, "--logging_steps", "0.1", *argv)


@pytest.fixture(scope="module")
def uninterrupted(make_argv: MakeArgv, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert run_qa_adapter.main(make_argv(folder)) == 0
    results = read_results(folder)
    assert [len(results[name]) for name in ("history", "losses", "weights")] == [4, 6, 4]
    return results


def interrupt(argv: list[str], callback: TrainerCallback, error_type: type[BaseException]) -> BaseException:
    """Start a run with a callback, require that it ends with an error, and return the error."""
    original = callbacks.make_callbacks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "make_callbacks", lambda *args: [*original(*args), callback])
        with pytest.raises(error_type) as caught:
            run_qa_adapter.main(argv)
    return caught.value


def report(argv: list[str], callback: TrainerCallback, error_type: type[ReportedError]) -> ReportedError:
    """Interrupt a run and return the error that it reports."""
    error = interrupt(argv, callback, error_type)
    assert isinstance(error, ReportedError)
    return error


def status(folder: Path) -> str:
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return str(document["status"])


def read_results(folder: Path) -> dict[str, Any]:
    """Return everything in a finished run that must not depend on interruptions."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert run["status"] == "finished"
    untimed = {
        part: [
            {name: value for name, value in entry.items() if "runtime" not in name and "per_second" not in name}
            for entry in entries
        ]
        for part, entries in (
            ("history", run["history"]),
            ("losses", run["losses"]),
            *((split, [metrics]) for split, metrics in run["metrics"].items()),
        )
    }
    files = sorted((folder / "adapters-fusion").rglob("*.safetensors"))
    return {
        **untimed,
        **{key: run[key] for key in ("best", "steps", "epochs")},
        "weights": [path.read_bytes() for path in files],
        "predictions": (folder / "eval_predictions.json").read_text(encoding="utf-8"),
        "checkpoints": checkpoint_steps(folder),
    }


@pytest.mark.parametrize(
    ("callback", "saved_step"),
    [
        (AtStep(1, terminate), 1),
        (AtStep(5, terminate), 5),
        (AtStep(6, terminate), 6),  # the last of its epoch: with the epoch's evaluation
        (AtEvaluation(6, terminate), 6),
        (AtStep(STEPS, terminate), STEPS),
    ],
)
def test_run_resumed_after_a_signal_equals_an_uninterrupted_run(
    make_argv: MakeArgv,
    uninterrupted: dict[str, Any],
    tmp_path: Path,
    callback: TrainerCallback,
    saved_step: int,
) -> None:
    folder = tmp_path / "run"
    error = report(make_argv(folder), callback, Interrupted)
    assert checkpoint_steps(folder)[-1] == saved_step
    assert error.exit_code == 143
    assert error.problems == [
        f"{folder}/checkpoint-{saved_step} is saved; the same command resumes from step {saved_step} of {STEPS}"
    ]
    assert status(folder) == "interrupted"
    assert run_qa_adapter.main(make_argv(folder)) == 0
    assert read_results(folder) == uninterrupted


def test_run_resumed_after_a_power_cut_equals_an_uninterrupted_run(
    make_argv: MakeArgv, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    interrupt(make_argv(folder), AtStep(8, cut_power), KeyboardInterrupt)
    assert checkpoint_steps(folder)[-1] == 6
    assert status(folder) == "interrupted"
    assert run_qa_adapter.main(make_argv(folder)) == 0
    assert read_results(folder) == uninterrupted


@pytest.mark.parametrize(
    "options",
    [
        ("--eval_on_start", "True"),
        ("--group_by_length", "True", "--bucket_by_length", "False"),
        ("--bucket_by_length", "False"),
        ("--save_strategy", "steps", "--save_steps", "3", "--load_best_model_at_end", "False"),
        ("--save_strategy", "no", "--logging_strategy", "epoch"),
        ("--max_steps", "10"),
        ("--lr_scheduler_type", "reduce_lr_on_plateau"),
        pytest.param(  # PyTorch waits seconds for such workers to end
            ("--dataloader_num_workers", "1", "--dataloader_persistent_workers", "True"), marks=pytest.mark.slow
        ),
    ],
)
def test_training_with_other_options_resumes_too(make_argv: MakeArgv, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert run_qa_adapter.main(make_argv(tmp_path / "uninterrupted", *options)) == 0
    folder = tmp_path / "run"
    for step in (4, 9):  # within an epoch, and at the end of an epoch
        interrupt(make_argv(folder, *options), AtStep(step, terminate), Interrupted)
    assert run_qa_adapter.main(make_argv(folder, *options)) == 0
    results, expected = read_results(folder), read_results(tmp_path / "uninterrupted")
    results.pop("checkpoints"), expected.pop("checkpoints")
    assert results == expected


def test_run_resumes_after_its_folder_was_moved(
    make_argv: MakeArgv, uninterrupted: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Stopped at the last step, so that no later checkpoint records the path of the best checkpoint again.
    keep = ["--keep_checkpoint", "True"]
    interrupt([*make_argv(tmp_path / "run"), *keep], AtStep(STEPS, terminate), Interrupted)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    capsys.readouterr()
    assert run_qa_adapter.main([*make_argv(tmp_path / "moved"), *keep]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert f"  resumes     from checkpoint-{STEPS}\n" in printed.out
    best = checkpoint_steps(tmp_path / "moved")
    assert read_results(tmp_path / "moved") == uninterrupted | {"checkpoints": best}
    assert len(best) == 1
    state = json.loads((tmp_path / "moved" / "trainer_state.json").read_text(encoding="utf-8"))
    assert Path(state["best_model_checkpoint"]).parent == tmp_path / "moved"
    assert checkpoint_error(Path(state["best_model_checkpoint"])) is None


def test_given_once_keep_checkpoint_holds_for_every_resumption(make_argv: MakeArgv, tmp_path: Path) -> None:
    argv = make_argv(tmp_path)
    interrupt([*argv, "--keep_checkpoint", "True"], AtStep(2, terminate), Interrupted)
    interrupt(argv, AtStep(4, terminate), Interrupted)
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["options"]["keep_checkpoint"] is True
    assert run_qa_adapter.main(argv) == run_qa_adapter.main(argv) == 0
    assert len(checkpoint_steps(tmp_path)) == 1


def test_resumed_training_keeps_the_patience_and_does_not_train_past_the_early_stop(
    tiny_bert: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"num_train_epochs": 7, "save_total_limit": 1}
    first = make_trainer(
        tiny_bert, tmp_path, [10, 50, 40], **options, callbacks=[EarlyStoppingCallback(2), AtStep(10, cut_power)]
    )
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = make_trainer(tiny_bert, tmp_path, [30], **options, callbacks=[EarlyStoppingCallback(2)])
    second._load_best_model = cut_power  # type: ignore[method-assign]  # called after the last step
    with pytest.raises(KeyboardInterrupt):
        second.train(resume_from_checkpoint=str(newest_checkpoint(tmp_path)))
    assert checkpoint_steps(tmp_path) == [6, 12]
    third = make_trainer(tiny_bert, tmp_path, [], **options, callbacks=[EarlyStoppingCallback(2)])
    third.train(resume_from_checkpoint=str(newest_checkpoint(tmp_path)))
    assert (third.state.epoch, third.state.global_step, third.state.best_global_step) == (4, 12, 6)
    assert third.state.num_train_epochs == 7
    assert [entry["eval_f1"] for entry in third.state.log_history if "eval_f1" in entry] == [10, 50, 40, 30]
    reference = make_trainer(tiny_bert, tmp_path / "reference", [10, 50, 40, 30], num_train_epochs=7,
                             callbacks=[EarlyStoppingCallback(2)])  # fmt: skip
    reference.train()
    now, expected = trainable_state(third.model), trainable_state(reference.model)
    assert all(torch.equal(now[name], expected[name]) for name in expected)


def test_new_best_is_saved_between_two_regular_saves(tiny_bert: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 2}
    trainer = make_trainer(
        tiny_bert, tmp_path, [10, 20, 90, 30, 40, 50], num_train_epochs=2, load_best_model_at_end=True, **options,
        callbacks=[snapshot := WeightsAtStep(3)],
    )  # fmt: skip
    trainer.train()
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-3")
    now = trainable_state(trainer.model)
    assert all(torch.equal(now[name], snapshot.weights[name]) for name in now)


def test_a_best_step_without_a_checkpoint_takes_the_place_of_none(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        tiny_bert, tmp_path, [10, 20, 90, 30, 40, 50], num_train_epochs=2, load_best_model_at_end=False,
        eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=2, save_total_limit=2,
    )  # fmt: skip
    trainer.train()
    assert checkpoint_steps(tmp_path) == [4, 6]
    assert (trainer.state.best_global_step, trainer.state.best_model_checkpoint) == (3, None)


def test_the_best_step_is_known_without_checkpoints(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        tiny_bert, tmp_path, [10, 90, 30], num_train_epochs=3, load_best_model_at_end=False, save_strategy="no"
    )
    trainer.train()
    assert (trainer.state.best_global_step, trainer.state.best_metric) == (6, 90)


class WeightsAtStep(TrainerCallback):
    """A callback that copies the trainable weights after a step."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.weights: dict[str, torch.Tensor] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.weights = {name: weight.clone() for name, weight in trainable_state(model).items()}


def test_group_by_length_uses_the_sampler_whose_order_can_be_resumed(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [], group_by_length=True)
    trainer.bucketed = False
    assert isinstance(trainer._get_train_sampler(), BucketSampler)


# ---------------------------------------------------------------- damaged checkpoints


@pytest.fixture
def interrupted_run(make_argv: MakeArgv, tmp_path: Path) -> Path:
    """A run with three checkpoints that was stopped in its last epoch."""
    folder = tmp_path / "run"
    interrupt(make_argv(folder, "--save_total_limit", "9"), AtStep(11, cut_power), KeyboardInterrupt)
    assert checkpoint_steps(folder) == [3, 6, 9]
    return folder


def test_truncated_checkpoint_is_skipped(
    make_argv: MakeArgv, interrupted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_qa_adapter.main(make_argv(tmp_path / "uninterrupted", "--save_total_limit", "9")) == 0
    os.truncate(interrupted_run / "checkpoint-9" / "optimizer.pt", 1000)
    (interrupted_run / "checkpoint.writing").mkdir()
    capsys.readouterr()
    assert run_qa_adapter.main(make_argv(interrupted_run, "--save_total_limit", "9")) == 0
    assert "checkpoint-9: has a optimizer.pt of 1000 bytes" in capsys.readouterr().err
    assert read_results(interrupted_run) == read_results(tmp_path / "uninterrupted")


def test_run_without_a_complete_checkpoint_restarts_only_on_request(make_argv: MakeArgv, interrupted_run: Path) -> None:
    for step in (3, 6, 9):
        (interrupted_run / f"checkpoint-{step}" / "trained.safetensors").unlink()
    before = sorted(interrupted_run.rglob("*"))
    message = r"checkpoint-9: lacks trained\.safetensors; restore it, or start again with"
    with pytest.raises(UserError, match=message):
        run_qa_adapter.main(make_argv(interrupted_run, "--save_total_limit", "9"))
    assert sorted(interrupted_run.rglob("*")) == before
    assert run_qa_adapter.main(make_argv(interrupted_run, "--save_total_limit", "9", "--overwrite_output_dir")) == 0


def test_truncated_best_weights_are_reported(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        tiny_bert, tmp_path, [50, 40], num_train_epochs=2, save_total_limit=1,
        callbacks=[AtStep(5, lambda: os.truncate(tmp_path / "checkpoint-3" / "trained.safetensors", 100))],
    )  # fmt: skip
    with pytest.raises(RunError, match=r"checkpoint-3: has a trained.safetensors of 100 bytes.* cannot be loaded"):
        trainer.train()
    assert checkpoint_error(tmp_path / "checkpoint-6") is None


# ---------------------------------------------------------------- errors during a run


@pytest.fixture
def limit_file_size() -> Iterator[Callable[[int], None]]:
    """Return a function that limits the size of the files that this process writes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def assert_only_first_checkpoint_is_left(folder: Path) -> None:
    assert checkpoint_steps(folder) == [3]
    assert checkpoint_error(folder / "checkpoint-3") is None


@pytest.mark.parametrize("size", [40_000, 80_000])  # too small for the weights; too small for the optimizer's state
def test_full_disk_keeps_the_last_checkpoint_and_the_run_resumes(
    make_argv: MakeArgv,
    uninterrupted: dict[str, Any],
    limit_file_size: Callable[[int], None],
    tmp_path: Path,
    size: int,
) -> None:
    folder = tmp_path / "run"
    error = report(make_argv(folder), AtStep(5, lambda: limit_file_size(size)), RunError)
    assert error.problems == [
        f"{folder}/checkpoint-6: cannot be written (File too large); solve that and give the same command, it resumes "
        "from checkpoint-3"
    ]
    assert status(folder) == "failed"
    assert_only_first_checkpoint_is_left(folder)
    assert not (folder / "checkpoint.writing").exists()
    limit_file_size(resource.RLIM_INFINITY)
    assert run_qa_adapter.main(make_argv(folder)) == 0
    assert read_results(folder) == uninterrupted


def test_full_disk_before_the_first_checkpoint_is_reported(
    make_argv: MakeArgv, limit_file_size: Callable[[int], None], tmp_path: Path
) -> None:
    error = report(make_argv(tmp_path / "run"), AtStep(1, lambda: limit_file_size(40_000)), RunError)
    assert error.problems[0].endswith("solve that and give the same command, it starts anew")


@pytest.fixture
def lockable_folder(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], Any]]]:
    """A folder, and a function that makes it read-only.

    Root may write to any folder; for root the folder is mounted read-only.
    """
    folder = tmp_path / "lockable"
    folder.mkdir()
    if os.geteuid() != 0:
        yield folder, lambda: folder.chmod(0o500)
        folder.chmod(0o700)
        return
    mount = ["mount", "--bind", str(folder), str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("root can write to any folder, and mounting a folder is not allowed here")
    subprocess.run(["umount", str(folder)], check=True)
    remount = ["mount", "-o", "remount,bind,ro", str(folder)]
    yield folder, lambda: [subprocess.run(command, check=True) for command in (mount, remount)]
    subprocess.run(["umount", str(folder)], check=True)


def test_folder_that_becomes_read_only_is_reported(
    make_argv: MakeArgv, lockable_folder: tuple[Path, Callable[[], Any]]
) -> None:
    folder, lock = lockable_folder
    error = report(make_argv(folder), AtStep(4, lock), RunError)
    assert error.problems[0].startswith(f"{folder}/")
    assert "Read-only file system" in error.problems[0] or "Permission denied" in error.problems[0]
    assert_only_first_checkpoint_is_left(folder)


def changed_task_loss(change: Callable[[QuestionAnsweringTrainer, torch.Tensor], torch.Tensor]) -> Any:
    """Return a `task_loss` whose loss is changed by a function."""
    original = QuestionAnsweringTrainer.task_loss

    def task_loss(self: QuestionAnsweringTrainer, model: Any, inputs: Any) -> Any:
        total, weight, outputs = original(self, model, inputs)
        return change(self, total), weight, outputs

    return task_loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_or_infinite_loss_ends_the_run_before_a_checkpoint(
    make_argv: MakeArgv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    folder = tmp_path / "run"

    def change(trainer: QuestionAnsweringTrainer, loss: torch.Tensor) -> torch.Tensor:
        return loss * value if trainer.model.training and trainer.state.global_step == 4 else loss

    monkeypatch.setattr(QuestionAnsweringTrainer, "task_loss", changed_task_loss(change))
    with pytest.raises(RunError, match=r"^step 5: the loss is infinite or NaN; lower --learning_rate"):
        run_qa_adapter.main(make_argv(folder, "--logging_strategy", "no"))
    assert status(folder) == "failed"
    assert_only_first_checkpoint_is_left(folder)


def test_losses_are_checked_when_they_are_logged(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [], num_train_epochs=2, logging_steps=2, save_strategy="no",
                           eval_strategy="no", load_best_model_at_end=False)  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            QuestionAnsweringTrainer, "task_loss", changed_task_loss(lambda trainer, loss: loss * float("nan"))
        )
        with pytest.raises(RunError, match=r"^step 1: "):
            trainer.train()
    assert trainer.state.global_step == 2


def test_nan_weights_are_never_saved(make_argv: MakeArgv, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    error = report(make_argv(folder), NaNWeight(6), RunError)
    assert error.problems[0].startswith("step 6: ")
    assert checkpoint_steps(folder) == [3]
    assert not (folder / "checkpoint.writing").exists()


class NaNWeight(TrainerCallback):
    """A callback that sets a weight to NaN after a step whose loss was finite."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == self.step:
            with torch.no_grad():
                next(weight for weight in model.parameters() if weight.requires_grad).view(-1)[0] = float("nan")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_out_of_memory_error_names_options_that_help(
    make_argv: MakeArgv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def change(trainer: QuestionAnsweringTrainer, loss: torch.Tensor) -> torch.Tensor:
        raise error

    monkeypatch.setattr(QuestionAnsweringTrainer, "task_loss", changed_task_loss(change))
    with pytest.raises(RunError, match=r"^out of memory .*--per_device_train_batch_size"):
        run_qa_adapter.main(make_argv(tmp_path / "run"))
    assert status(tmp_path / "run") == "failed"


def test_results_file_is_complete_or_unchanged_after_a_power_cut(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [])
    trainer.save_metrics("train", {"loss": 1.0})
    replace = os.replace

    def replace_or_cut_power(source: Path, target: Path) -> None:
        replace(source, target) if target.name != "all_results.json" else cut_power()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace_or_cut_power)
        with pytest.raises(KeyboardInterrupt):
            trainer.save_metrics("eval", {"f1": 2.0})
    assert json.loads((tmp_path / "all_results.json").read_text()) == {"loss": 1.0}
    trainer.save_metrics("eval", {"f1": 2.0})
    assert json.loads((tmp_path / "all_results.json").read_text()) == {"loss": 1.0, "f1": 2.0}


def test_signal_handlers_are_restored(make_argv: MakeArgv, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(ReportedError):
        run_qa_adapter.main(make_argv(tmp_path / "run", "--max_seq_length", "3"))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize(("split", "option"), [(0, "train_file"), (1, "validation_file")])
def test_changed_data_are_refused_by_an_interrupted_run_and_noted_by_a_finished_one(
    make_argv: MakeArgv, squad_files: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], split: int,
    option: str,
) -> None:  # fmt: skip
    folder, data = tmp_path / "run", tmp_path / "data.json"
    content = squad_files[split].read_bytes()
    data.write_bytes(content)
    argv = override(make_argv(folder), f"--{option}", data)
    report(argv, AtStep(1, terminate), Interrupted)
    data.write_bytes(content + b"\n")
    before = (folder / "run.json").read_bytes()
    problem = f"{folder}: --{option} {data} changed since this run began; "
    with pytest.raises(UserError) as caught:
        run_qa_adapter.main(argv)
    remedy = "give the content of then, another folder, or --overwrite_output_dir to start anew"
    assert caught.value.problems == [problem + remedy]
    assert (folder / "run.json").read_bytes() == before
    data.write_bytes(content)
    assert run_qa_adapter.main(argv) == 0
    capfd.readouterr()
    assert run_qa_adapter.main(argv) == 0
    assert "changed since" not in capfd.readouterr().err
    data.write_bytes(content + b"\n")
    assert run_qa_adapter.main(argv) == 0
    assert f"{problem}--overwrite_output_dir does it again" in capfd.readouterr().err


def test_changed_test_questions_are_noted_by_a_finished_run(
    make_argv: MakeArgv, squad_files: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, data = tmp_path / "run", tmp_path / "data.json"
    data.write_bytes(squad_files[1].read_bytes())
    argv = make_argv(folder, "--do_predict", "--test_file", data)
    assert run_qa_adapter.main(argv) == 0
    data.write_bytes(squad_files[1].read_bytes() + b"\n")
    capfd.readouterr()
    assert run_qa_adapter.main(argv) == 0
    note = f"note: {folder}: --test_file {data} changed since this run began; --overwrite_output_dir does it again"
    assert note in capfd.readouterr().err.splitlines()


def test_a_run_does_not_overwrite_what_it_loads(
    make_argv: MakeArgv, tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    report(make_argv(folder), AtStep(STEPS, terminate), Interrupted)
    assert run_qa_adapter.main(make_argv(folder)) == 0
    saved = folder / "adapters-fusion"
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    evaluation = ["--model_name_or_path", str(tiny_bert), "--do_eval", "--validation_file", str(squad_files[1])]
    evaluation += ["--report_to", "none", "--output_dir", str(folder), "--overwrite_output_dir"]
    evaluation += ["--max_seq_length", "64", "--doc_stride", "16"]
    with pytest.raises(UserError) as caught:
        run_qa_adapter.main([*evaluation, "--load_adapter", str(folder)])
    removed = f"--overwrite_output_dir would remove {saved / 'qa'}"
    assert caught.value.problems == [f"--output_dir {folder}: {removed}, which this run loads; give another folder"]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files

"""Training that does not come to its end: stopped by a signal, a power cut, a full disk, memory or numbers, it goes on
as if nothing had been; and what is not whole is never gone on from.
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
from support.trainers import fusion_command, make_trainer
from transformers import EarlyStoppingCallback, TrainerCallback

import run_qa_adapter
from adapter_qa.core.errors import Interrupted, ReportedError, RunError, UserError
from adapter_qa.data.samplers import BucketSampler
from adapter_qa.models.save import trainable_state
from adapter_qa.runs.checkpoints import checkpoint_error, checkpoint_steps, newest_checkpoint
from adapter_qa.training import callbacks
from trainer_qa import QuestionAnsweringTrainer

Words = Callable[..., list[str]]
STEPS = 12  # optimizer steps of a run of `command`; 3 are an epoch


class At(TrainerCallback):
    """Does something at the end of an optimizer step, once."""

    def __init__(self, step: int, action: Callable[[], Any]) -> None:
        self.step = step
        self.action = action

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step == self.step:
            self.action()


class AtEvaluation(At):
    """The same while an evaluation is under way."""

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Nothing."""

    def on_prediction_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step == self.step:
            self.action()


def power_cut() -> None:
    raise KeyboardInterrupt


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def words(tiny_bert: Path, squad_files: tuple[Path, Path]) -> Words:
    """The command line of a run in a folder: 4 epochs of 3 steps, a log every second step."""
    return lambda folder, *more: fusion_command(tiny_bert, squad_files, folder, "--logging_steps", "0.1", *more)


@pytest.fixture
def disturbed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Starts a run in which a callback acts, and expects its end by an exception."""
    original = callbacks.make_callbacks

    def run(command_line: list[str], callback: TrainerCallback, expected: type[BaseException]) -> BaseException:
        with monkeypatch.context() as patch:
            patch.setattr(callbacks, "make_callbacks", lambda *args: [*original(*args), callback])
            with pytest.raises(expected) as caught:
                run_qa_adapter.main(command_line)
        return caught.value

    return run


def status(folder: Path) -> str:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"]


def result(folder: Path) -> dict[str, Any]:
    """What must not depend on interruptions."""
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
    ("callback", "saved"),
    [
        (At(1, terminate), 1),
        (At(5, terminate), 5),
        (At(6, terminate), 6),  # the last of its epoch: with the epoch's evaluation
        (AtEvaluation(6, terminate), 6),
        (At(STEPS, terminate), STEPS),
        (At(8, power_cut), 6),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    words: Words, disturbed: Callable[..., Any], tmp_path: Path, callback: TrainerCallback, saved: int
) -> None:
    assert run_qa_adapter.main(words(tmp_path / "whole")) == 0
    torn = tmp_path / "torn"
    cut = isinstance(callback, At) and callback.action is power_cut
    error = disturbed(words(torn), callback, KeyboardInterrupt if cut else Interrupted)
    assert checkpoint_steps(torn)[-1] == saved
    if not cut:
        assert error.exit_code == 143
        assert error.problems == [
            f"{torn}/checkpoint-{saved} is saved; the same command resumes from step {saved} of {STEPS}"
        ]
    assert status(torn) == "running" if cut else "interrupted"
    assert run_qa_adapter.main(words(torn)) == 0
    expected = result(tmp_path / "whole")
    assert len(expected["history"]) == 4 and len(expected["losses"]) == 6 and len(expected["weights"]) == 4
    assert result(torn) == expected


@pytest.mark.parametrize(
    "more",
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
def test_other_ways_to_train_resume_as_well(
    words: Words, disturbed: Callable[..., Any], tmp_path: Path, more: tuple[str, ...]
) -> None:
    assert run_qa_adapter.main(words(tmp_path / "whole", *more)) == 0
    torn = tmp_path / "torn"
    for step in (4, 9):  # within an epoch, and at the end of one
        disturbed(words(torn, *more), At(step, terminate), Interrupted)
    assert run_qa_adapter.main(words(torn, *more)) == 0
    found, expected = result(torn), result(tmp_path / "whole")
    found.pop("checkpoints"), expected.pop("checkpoints")
    assert found == expected


def test_a_run_goes_on_where_its_folder_was_moved_to(
    words: Words, disturbed: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_qa_adapter.main(words(tmp_path / "whole")) == 0
    disturbed(words(tmp_path / "torn"), At(STEPS, terminate), Interrupted)  # no later checkpoint names the best anew
    shutil.move(tmp_path / "torn", tmp_path / "moved")
    capsys.readouterr()
    assert run_qa_adapter.main(words(tmp_path / "moved")) == 0
    said = capsys.readouterr()
    assert said.err == "" and "the run resumes from here" in said.out
    assert result(tmp_path / "moved") == result(tmp_path / "whole")
    state = json.loads((tmp_path / "moved" / "trainer_state.json").read_text(encoding="utf-8"))
    assert Path(state["best_model_checkpoint"]).parent == tmp_path / "moved"
    assert checkpoint_error(Path(state["best_model_checkpoint"])) is None


def test_early_stopping_counts_on_and_a_training_that_was_over_stays_so(tiny_bert: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_train_epochs": 7, "save_total_limit": 1}
    first = make_trainer(
        tiny_bert, tmp_path, [10, 50, 40], **options, callbacks=[EarlyStoppingCallback(2), At(10, power_cut)]
    )
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = make_trainer(tiny_bert, tmp_path, [30], **options, callbacks=[EarlyStoppingCallback(2)])
    second._load_best_model = power_cut  # type: ignore[method-assign]  # the next thing after the last step
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


def test_a_new_best_is_saved_even_between_two_saves(tiny_bert: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 2}
    trainer = make_trainer(
        tiny_bert, tmp_path, [10, 20, 90, 30, 40, 50], num_train_epochs=2, load_best_model_at_end=True, **options,
        callbacks=[kept := Kept(3)],
    )  # fmt: skip
    trainer.train()
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-3")
    now = trainable_state(trainer.model)
    assert all(torch.equal(now[name], kept.weights[name]) for name in now)


class Kept(TrainerCallback):
    """The trainable weights after a step."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.weights: dict[str, torch.Tensor] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        if state.global_step == self.step:
            self.weights = {name: weight.clone() for name, weight in trainable_state(model).items()}


def test_the_order_of_a_resumed_epoch_does_not_depend_on_what_was_drawn_before(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [], group_by_length=True)
    trainer.bucketed = False
    assert isinstance(trainer._get_train_sampler(), BucketSampler)


# ---------------------------------------------------------------- what is not whole


@pytest.fixture
def half_way(words: Words, disturbed: Callable[..., Any], tmp_path: Path) -> Path:
    """A run with three checkpoints that was stopped in its last epoch."""
    folder = tmp_path / "run"
    disturbed(words(folder, "--save_total_limit", "9"), At(11, power_cut), KeyboardInterrupt)
    assert checkpoint_steps(folder) == [3, 6, 9]
    return folder


def test_a_torn_checkpoint_is_passed_over(
    words: Words, half_way: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_qa_adapter.main(words(tmp_path / "whole", "--save_total_limit", "9")) == 0
    os.truncate(half_way / "checkpoint-9" / "optimizer.pt", 1000)
    (half_way / "checkpoint.writing").mkdir()
    capsys.readouterr()
    assert run_qa_adapter.main(words(half_way, "--save_total_limit", "9")) == 0
    assert "checkpoint-9: has a optimizer.pt of 1000 bytes" in capsys.readouterr().err
    assert result(half_way) == result(tmp_path / "whole")


def test_nothing_is_begun_anew_unasked_where_no_checkpoint_is_whole(words: Words, half_way: Path) -> None:
    for step in (3, 6, 9):
        (half_way / f"checkpoint-{step}" / "trained.safetensors").unlink()
    before = sorted(half_way.rglob("*"))
    with pytest.raises(UserError, match="checkpoint-9: lacks trained.safetensors; restore it, or start again with"):
        run_qa_adapter.main(words(half_way, "--save_total_limit", "9"))
    assert sorted(half_way.rglob("*")) == before
    assert run_qa_adapter.main(words(half_way, "--save_total_limit", "9", "--overwrite_output_dir")) == 0


def test_best_weights_that_someone_removed_are_missed(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        tiny_bert, tmp_path, [50, 40], num_train_epochs=2, save_total_limit=1,
        callbacks=[At(5, lambda: os.truncate(tmp_path / "checkpoint-3" / "trained.safetensors", 100))],
    )  # fmt: skip
    with pytest.raises(RunError, match=r"checkpoint-3: has a trained.safetensors of 100 bytes.* cannot be loaded"):
        trainer.train()
    assert checkpoint_error(tmp_path / "checkpoint-6") is None


# ---------------------------------------------------------------- what breaks a run


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Lets no file of this process grow beyond a size, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [40_000, 80_000])  # for the weights it is too little, for the optimizer's state
def test_a_full_disk_leaves_the_last_checkpoint(
    words: Words,
    disturbed: Callable[..., Any],
    small_files: Callable[[int], None],
    tmp_path: Path,
    size: int,
) -> None:
    assert run_qa_adapter.main(words(tmp_path / "whole")) == 0
    torn = tmp_path / "torn"
    error = disturbed(words(torn), At(5, lambda: small_files(size)), RunError)
    assert error.problems == [
        f"{torn}/checkpoint-6: cannot be written (File too large); solve that and give the same command, it resumes "
        "from checkpoint-3"
    ]
    assert status(torn) == "failed"
    assert checkpoint_steps(torn) == [3] and checkpoint_error(torn / "checkpoint-3") is None
    assert not (torn / "checkpoint.writing").exists()
    small_files(resource.RLIM_INFINITY)
    assert run_qa_adapter.main(words(torn)) == 0
    assert result(torn) == result(tmp_path / "whole")


def test_a_disk_that_was_full_from_the_start(
    words: Words, disturbed: Callable[..., Any], small_files: Callable[[int], None], tmp_path: Path
) -> None:
    error = disturbed(words(tmp_path / "torn"), At(1, lambda: small_files(40_000)), RunError)
    assert error.problems[0].endswith("solve that and give the same command, it starts anew")


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], Any]]]:
    """A folder, and what makes it unwritable: for root, who may write to all folders, by a mount in its place."""
    folder = tmp_path / "locked"
    folder.mkdir()
    if os.geteuid() != 0:
        yield folder, lambda: folder.chmod(0o500)
        folder.chmod(0o700)
        return
    mount = ["mount", "--bind", str(folder), str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("root writes to any folder, and may not mount one here")
    subprocess.run(["umount", str(folder)], check=True)
    yield (
        folder,
        lambda: [subprocess.run(one, check=True) for one in (mount, ["mount", "-o", "remount,bind,ro", folder])],
    )
    subprocess.run(["umount", str(folder)], check=True)


def test_a_folder_that_became_read_only(
    words: Words, disturbed: Callable[..., Any], locked: tuple[Path, Callable[[], Any]]
) -> None:
    folder, lock = locked
    error = disturbed(words(folder), At(4, lock), RunError)
    assert error.problems[0].startswith(f"{folder}/")
    assert "Read-only file system" in error.problems[0] or "Permission denied" in error.problems[0]
    assert checkpoint_steps(folder) == [3] and checkpoint_error(folder / "checkpoint-3") is None


def with_loss(change: Callable[[QuestionAnsweringTrainer, torch.Tensor], torch.Tensor]) -> Any:
    """`task_loss` with another loss."""
    original = QuestionAnsweringTrainer.task_loss

    def task_loss(self: QuestionAnsweringTrainer, model: Any, inputs: Any) -> Any:
        total, weight, outputs = original(self, model, inputs)
        return change(self, total), weight, outputs

    return task_loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(
    words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    folder = tmp_path / "run"

    def change(trainer: QuestionAnsweringTrainer, loss: torch.Tensor) -> torch.Tensor:
        return loss * value if trainer.model.training and trainer.state.global_step == 4 else loss

    monkeypatch.setattr(QuestionAnsweringTrainer, "task_loss", with_loss(change))
    with pytest.raises(RunError, match=r"^step 5: the loss is infinite or NaN; lower --learning_rate"):
        run_qa_adapter.main(words(folder, "--logging_strategy", "no"))
    assert status(folder) == "failed"
    assert checkpoint_steps(folder) == [3] and checkpoint_error(folder / "checkpoint-3") is None


def test_losses_are_looked_at_when_they_are_logged(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [], num_train_epochs=2, logging_steps=2, save_strategy="no",
                           eval_strategy="no", load_best_model_at_end=False)  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QuestionAnsweringTrainer, "task_loss", with_loss(lambda trainer, loss: loss * float("nan")))
        with pytest.raises(RunError, match="^step 1: "):
            trainer.train()
    assert trainer.state.global_step == 2


def test_weights_that_are_no_numbers_are_never_saved(
    words: Words, disturbed: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    error = disturbed(words(folder), Spoil(6), RunError)
    assert error.problems[0].startswith("step 6: ")
    assert checkpoint_steps(folder) == [3] and not (folder / "checkpoint.writing").exists()


class Spoil(TrainerCallback):
    """Spoils one weight after a step, whose loss was a number."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
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
def test_memory_that_does_not_suffice_names_what_helps(
    words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def change(trainer: QuestionAnsweringTrainer, loss: torch.Tensor) -> torch.Tensor:
        raise error

    monkeypatch.setattr(QuestionAnsweringTrainer, "task_loss", with_loss(change))
    with pytest.raises(RunError, match="^out of memory .*--per_device_train_batch_size"):
        run_qa_adapter.main(words(tmp_path / "run"))
    assert status(tmp_path / "run") == "failed"


def test_a_results_file_is_whole_or_as_it_was(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [])
    trainer.save_metrics("train", {"loss": 1.0})
    replace = os.replace

    def cut(before: Path, after: Path) -> None:
        replace(before, after) if after.name != "all_results.json" else power_cut()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            trainer.save_metrics("eval", {"f1": 2.0})
    assert json.loads((tmp_path / "all_results.json").read_text()) == {"loss": 1.0}
    trainer.save_metrics("eval", {"f1": 2.0})
    assert json.loads((tmp_path / "all_results.json").read_text()) == {"loss": 1.0, "f1": 2.0}


def test_signal_handlers_are_those_of_before(words: Words, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(ReportedError):
        run_qa_adapter.main(words(tmp_path / "run", "--max_seq_length", "3"))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before

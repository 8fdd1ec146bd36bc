"""Runs that are killed or signalled, and whose results equal those of an uninterrupted run.

    bash run_tests.sh tests/faults            a few stops of each kind, under a minute
    bash run_tests.sh --slow tests/faults     every file operation, 25 random moments, all scripts: half an hour

Weights are compared by hash, tensor by tensor; history, losses, best epoch, metrics and predictions for equality.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from support.killed_runs import SCRIPTS, Operation, Run, Stop, exit_code
from support.scripts import ROOT

from adapter_qa.runs.checkpoints import checkpoint_steps

CHECKPOINT = "checkpoint.writing"
CONLL = (
    "O O\nTribunal B-ORGANIZACAO\nde I-ORGANIZACAO\nBelém I-ORGANIZACAO\ndecidiu O\n. O\n\n"
    "Ana B-PESSOA\nnasceu O\nem O\nRecife B-LOCAL\n. O\n\n"
)


@dataclass(frozen=True)
class Uninterrupted:
    """A run that was not interrupted.

    Attributes:
        results: results of the run.
        operations: its file operations, in order.
        seconds: duration of the run.
    """

    results: dict[str, Any]
    operations: list[Operation]
    seconds: float


@pytest.fixture(scope="session", autouse=True)
def _fork_server() -> None:
    multiprocessing.get_context("forkserver").set_forkserver_preload(["support.killed_runs"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()  # it keeps this environment


@pytest.fixture(scope="session")
def commands(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[str]]:
    """The command line of a small run of each script, without the output folder."""
    conll = tmp_path_factory.mktemp("conll") / "ner.conll"
    conll.write_text(CONLL * 10, encoding="utf-8")
    common = [
        "--model_name_or_path", str(tiny_bert), "--do_train", "--do_eval", "--num_train_epochs", "6",
        "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2", "--learning_rate", "1e-2",
        "--logging_steps", "2", "--disable_tqdm", "True", "--report_to", "none",
    ]  # fmt: skip
    train, dev = map(str, squad_files)
    return {
        "qa": [
            *common, "--random_init", "True", "--fuse_adapters", "qa=new", "ner=new", "--train_file", train,
            "--validation_file", dev, "--max_seq_length", "64", "--doc_stride", "16", "--early_stopping_patience", "2",
        ],
        "mlm": [*common, "--train_file", train, "--block_size", "32"],
        "ner": [
            *common, "--train_file", str(conll), "--validation_file", str(conll), "--max_seq_length", "32",
            "--weighted_loss", "--next_sentence",
        ],
    }  # fmt: skip


@pytest.fixture(scope="session")
def uninterrupted_runs(
    commands: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Uninterrupted]:
    """An uninterrupted run of each script."""
    runs = {}
    for script in SCRIPTS:
        Run(script, commands[script], tmp_path_factory.mktemp("warm_up") / script).run()  # later runs take as long
        run = Run(script, commands[script], tmp_path_factory.mktemp("uninterrupted") / script)
        began = time.perf_counter()
        results = run.finish()
        seconds = time.perf_counter() - began
        runs[script] = Uninterrupted(results, run.operations(), seconds)
    return runs


def occurrence(operations: list[Operation], kind: str, path: str, number: int = 0) -> int:
    """Return the index of an operation's occurrence; occurrences are numbered from 0."""
    return [index for index, operation in enumerate(operations) if operation == Operation(kind, path)][number]


def checkpoint_operations(operations: list[Operation]) -> range:
    """Return the indices of the first save of a checkpoint that removes an older checkpoint."""
    first = last = next(
        index for index, operation in enumerate(operations) if operation.path.startswith("checkpoint.removing")
    )
    while operations[first - 1].path.startswith("checkpoint") or operations[first - 1].kind == "os.fsync":
        first -= 1
    while operations[last].path.startswith("checkpoint"):
        last += 1
    return range(first, last)


def selected_stops(operations: list[Operation]) -> list[Stop]:
    """Return a stop of each kind."""
    save = checkpoint_operations(operations)
    indices = {operations[index]: index for index in save}
    return [
        Stop(occurrence(operations, "os.rename", "run.json.writing")),
        Stop(indices[Operation("torch.save", f"{CHECKPOINT}/optimizer.pt")], half_written=True),
        Stop(indices[Operation("open", f"{CHECKPOINT}/manifest.json")], half_written=True),
        Stop(indices[Operation("os.rename", CHECKPOINT)]),
        Stop(save[-2]),
        Stop(occurrence(operations, "open", "trainer_state.json"), half_written=True),
    ]


def all_stops(operations: list[Operation]) -> list[Stop]:
    """Return a stop before every operation and a stop in the middle of every write; of all checkpoints, only one."""
    save = checkpoint_operations(operations)
    indices = [
        index
        for index, operation in enumerate(operations)
        if index in save or not operation.path.startswith(CHECKPOINT)
    ]
    before = [Stop(index) for index in indices]
    return before + [Stop(index, half_written=True) for index in indices if operations[index].writes]


def differences(results: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return the names of the results that differ."""
    return [name for name in expected if results[name] != expected[name]]


def differences_after_stops(
    script: str, argv: list[str], uninterrupted: Uninterrupted, stops: list[Stop], folder: Path
) -> dict[str, list[str]]:
    """Kill a run at each of the stops, resume it, and return the results that differ, by stop."""
    by_stop = {}
    for stop in stops:
        run = Run(script, argv, folder / f"{stop.operation}{'h' * stop.half_written}")
        assert run.run(stop) == -signal.SIGKILL, run.stderr()
        assert run.operations() == uninterrupted.operations[: stop.operation + 1]
        names = differences(run.finish(), uninterrupted.results)
        if names:
            by_stop[f"{stop} {uninterrupted.operations[stop.operation]}"] = names
    return by_stop


def test_stops_cover_a_complete_checkpoint(uninterrupted_runs: dict[str, Uninterrupted]) -> None:
    for run in uninterrupted_runs.values():
        indices = checkpoint_operations(run.operations)
        saving = [run.operations[index] for index in indices]
        kinds = [operation.kind for operation in saving]
        assert {operation.path for operation in saving if operation.writes} == {
            f"{CHECKPOINT}/{name}"
            for name in ("trained.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json",
                         "progress.json", "manifest.json")
        }  # fmt: skip
        assert kinds[0] == "os.mkdir"
        assert kinds.count("os.fsync") == 9
        assert saving[kinds.index("os.rename")].path == CHECKPOINT
        assert saving[-1] == Operation("os.rmdir", "checkpoint.removing")
        assert {stop.operation for stop in all_stops(run.operations)} >= set(indices)
        assert len(run.results["history"]) > 2
        assert not {name for name in run.results["files"] if name.startswith(("checkpoint", "frozen"))}


def test_run_killed_at_selected_file_operations_resumes(
    uninterrupted_runs: dict[str, Uninterrupted], commands: dict[str, list[str]], tmp_path: Path
) -> None:
    uninterrupted = uninterrupted_runs["qa"]
    stops = selected_stops(uninterrupted.operations)
    assert differences_after_stops("qa", commands["qa"], uninterrupted, stops, tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_run_killed_at_every_file_operation_resumes(
    script: str, uninterrupted_runs: dict[str, Uninterrupted], commands: dict[str, list[str]], tmp_path: Path
) -> None:
    uninterrupted = uninterrupted_runs[script]
    stops = all_stops(uninterrupted.operations)
    assert len(stops) > 80
    assert differences_after_stops(script, commands[script], uninterrupted, stops, tmp_path) == {}


def kill_at_random_moments(run: Run, seconds: float, times: int, draw: random.Random) -> int:
    """Start a run several times, kill each process within `seconds`, and return how many were killed before the end."""
    killed = 0
    for _ in range(times):
        process = run.start()
        time.sleep(draw.uniform(0, seconds))
        process.kill()
        killed += exit_code(process) == -signal.SIGKILL
    return killed


@pytest.mark.parametrize("script", ["mlm", "ner"])
def test_run_killed_at_two_random_moments_resumes(
    script: str, uninterrupted_runs: dict[str, Uninterrupted], commands: dict[str, list[str]], tmp_path: Path
) -> None:
    uninterrupted = uninterrupted_runs[script]
    run = Run(script, commands[script], tmp_path / "run")
    kill_at_random_moments(run, uninterrupted.seconds, 2, random.Random(script))
    assert differences(run.finish(), uninterrupted.results) == []


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_runs_killed_at_25_random_moments_resume(
    script: str, uninterrupted_runs: dict[str, Uninterrupted], commands: dict[str, list[str]], tmp_path: Path
) -> None:
    uninterrupted = uninterrupted_runs[script]
    draw = random.Random(script)
    killed = number = 0
    while killed < 25:
        run = Run(script, commands[script], tmp_path / str(number))
        killed += kill_at_random_moments(run, uninterrupted.seconds, 5, draw)
        assert differences(run.finish(), uninterrupted.results) == []
        number += 1


def signal_at(script: str, argv: list[str], folder: Path, operation: int, number: signal.Signals) -> Run:
    """Send a signal to a run at a file operation; require its exit code, and a last line that tells how to resume."""
    run = Run(script, argv, folder)
    assert run.run(Stop(operation, signal_number=number)) == 128 + number, run.stderr()
    assert "Traceback" not in run.stderr()
    last_line = run.stderr().splitlines()[-1]
    assert last_line.startswith("stopped: ")
    assert "the same command resumes" in last_line
    return run


@pytest.mark.parametrize("script", SCRIPTS)
def test_signal_during_training_saves_a_checkpoint_and_the_run_resumes(
    script: str, uninterrupted_runs: dict[str, Uninterrupted], commands: dict[str, list[str]], tmp_path: Path
) -> None:
    uninterrupted = uninterrupted_runs[script]
    second_checkpoint = occurrence(uninterrupted.operations, "os.rename", CHECKPOINT, 1)
    run = signal_at(script, commands[script], tmp_path / "run", second_checkpoint, signal.SIGTERM)
    assert json.loads((run.folder / "run.json").read_text(encoding="utf-8"))["status"] == "interrupted"
    assert checkpoint_steps(run.folder)[-1] == uninterrupted.results["history"][1]["step"] + 1
    assert differences(run.finish(), uninterrupted.results) == []


def test_run_resumes_after_signals_at_other_stages(
    uninterrupted_runs: dict[str, Uninterrupted], commands: dict[str, list[str]], tmp_path: Path
) -> None:
    uninterrupted = uninterrupted_runs["qa"]
    record_writes = [
        index
        for index, operation in enumerate(uninterrupted.operations)
        if operation == Operation("open", "run.json.writing")
    ]
    second_checkpoint = occurrence(uninterrupted.operations, "os.rename", CHECKPOINT, 1)
    stages = {
        "before training": record_writes[1],
        "evaluation": max(index for index in record_writes if index < second_checkpoint),
        "after training": record_writes[-3],  # the last two say that it is finished, and what came of it
    }
    states = {}
    for stage, operation in stages.items():
        run = signal_at("qa", commands["qa"], tmp_path / stage.replace(" ", "_"), operation, signal.SIGINT)
        status = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))["status"]
        states[stage] = (status, checkpoint_steps(run.folder)[-1:])
        assert differences(run.finish(), uninterrupted.results) == []
    assert states == {
        "before training": ("interrupted", []),
        "evaluation": ("interrupted", [uninterrupted.results["history"][1]["step"]]),
        "after training": ("interrupted", [uninterrupted.results["steps"]]),
    }


def test_signal_reaches_a_run_whose_data_loader_has_workers(commands: dict[str, list[str]], tmp_path: Path) -> None:
    argv = [*commands["qa"], "--save_strategy", "steps", "--save_steps", "1", "--load_best_model_at_end", "False"]
    uninterrupted = Run("qa", argv, tmp_path / "uninterrupted")
    results = uninterrupted.finish()
    first_checkpoint = occurrence(uninterrupted.operations(), "os.rename", CHECKPOINT)  # in the middle of an epoch
    for number in (signal.SIGINT, signal.SIGTERM):
        run = signal_at(
            "qa", [*argv, "--dataloader_num_workers", "2"], tmp_path / number.name, first_checkpoint, number
        )
        notice, last_line = run.stderr().splitlines()[-2:]
        assert notice == f"{number.name}: saving a checkpoint after this step; a second signal stops at once"
        assert last_line.startswith(
            f"stopped: {run.folder}/checkpoint-2 is saved; the same command resumes from step 2 of "
        )
        assert differences(run.finish(), results) == []


def wait_for_operation(run: Run, operation: Operation) -> None:
    """Wait until the current process of a run has come to an operation."""
    while not run.log.is_file() or operation not in run.operations():
        time.sleep(0.02)


def test_second_process_is_rejected_while_the_first_is_alive(commands: dict[str, list[str]], tmp_path: Path) -> None:
    run = Run("qa", commands["qa"], tmp_path / "run")
    first = run.start()
    wait_for_operation(run, Operation("os.rename", CHECKPOINT))
    assert first.pid is not None
    os.kill(first.pid, signal.SIGSTOP)
    second = Run("qa", commands["qa"], tmp_path / "run")
    second.log = tmp_path / "second.operations"
    before = sorted((path, path.stat().st_mtime_ns) for path in run.folder.rglob("*"))
    assert second.run() == 2
    assert second.stderr().startswith(
        f"error: --output_dir {run.folder}: another run is working there (process {first.pid} on "
    )
    assert sorted((path, path.stat().st_mtime_ns) for path in run.folder.rglob("*")) == before
    first.kill()
    exit_code(first)
    second.finish()

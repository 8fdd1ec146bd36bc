"""Runs that are killed, again and again, and end as a run does that never was.

    bash run_tests.sh tests/faults            a few stops of each kind, under a minute
    bash run_tests.sh --slow tests/faults     every file operation of a run, 25 random moments, all doors: half an hour

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
from pathlib import Path
from typing import Any

import pytest
from lives import DOORS, Operation, Run, Stop

from adapter_qa.runs.checkpoints import checkpoint_steps

CHECKPOINT = "checkpoint.writing"
HERE = Path(__file__).resolve().parent
CONLL = (
    "O O\nTribunal B-ORGANIZACAO\nde I-ORGANIZACAO\nBelém I-ORGANIZACAO\ndecidiu O\n. O\n\n"
    "Ana B-PESSOA\nnasceu O\nem O\nRecife B-LOCAL\n. O\n\n"
)


@dataclass(frozen=True)
class Whole:
    """A run that nothing happened to.

    Attributes:
        outcome: what it came to.
        operations: its file operations, in order.
        checkpoints: steps of those that are left.
        seconds: how long it took.
    """

    outcome: dict[str, Any]
    operations: list[Operation]
    checkpoints: list[int]
    seconds: float


@pytest.fixture(scope="session", autouse=True)
def _server() -> None:
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    multiprocessing.get_context("forkserver").set_forkserver_preload(["lives"])


@pytest.fixture(scope="session")
def commands(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[str]]:
    """A small run of each door, without its folder."""
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
def whole_runs(commands: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Whole]:
    """An uninterrupted run of each door, which is then a measure for the others."""
    runs = {}
    for door in DOORS:
        run = Run(door, commands[door], tmp_path_factory.mktemp("whole") / door)
        run.live()  # the first life in a server loads what later ones find in memory
        run = Run(door, commands[door], tmp_path_factory.mktemp("whole") / door)
        began = time.perf_counter()
        outcome = run.finish()
        seconds = time.perf_counter() - began
        runs[door] = Whole(outcome, run.operations(), checkpoint_steps(run.folder), seconds)
    return runs


def occurrence(operations: list[Operation], kind: str, path: str, number: int = 0) -> int:
    """Where an operation comes for the `number`-th time, from 0."""
    return [index for index, one in enumerate(operations) if one == Operation(kind, path)][number]


def span_of_a_save(operations: list[Operation]) -> range:
    """All operations of the first save of a checkpoint that removes an older one."""
    first = last = next(index for index, one in enumerate(operations) if one.path.startswith("checkpoint.removing"))
    while operations[first - 1].path.startswith("checkpoint") or operations[first - 1].kind == "os.fsync":
        first -= 1
    while operations[last].path.startswith("checkpoint"):
        last += 1
    return range(first, last)


def some_stops(operations: list[Operation]) -> list[Stop]:
    """A stop of each kind."""
    save = span_of_a_save(operations)
    place = {operations[index]: index for index in save}
    return [
        Stop(occurrence(operations, "os.rename", "run.json.writing")),
        Stop(place[Operation("torch.save", f"{CHECKPOINT}/optimizer.pt")], torn=True),
        Stop(place[Operation("open", f"{CHECKPOINT}/manifest.json")], torn=True),
        Stop(place[Operation("os.rename", CHECKPOINT)]),
        Stop(save[-2]),
        Stop(occurrence(operations, "open", "trainer_state.json"), torn=True),
    ]


def all_stops(operations: list[Operation]) -> list[Stop]:
    """A stop before every operation, and one in the middle of each that can be torn; of all saves only one."""
    save = span_of_a_save(operations)
    places = [index for index, one in enumerate(operations) if index in save or not one.path.startswith(CHECKPOINT)]
    return [Stop(index) for index in places] + [Stop(index, torn=True) for index in places if operations[index].writes]


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Names of what is not the same."""
    return [name for name in expected if found[name] != expected[name]]


def killed_once(run: Run, stop: Stop, whole: Whole) -> list[str]:
    """Lets a run be killed once and go on; what came out different."""
    assert run.live(stop) == -signal.SIGKILL, run.said()
    assert run.operations() == whole.operations[: stop.operation + 1]
    return differences(run.finish(), whole.outcome)


def killed_everywhere(
    door: str, words: list[str], whole: Whole, stops: list[Stop], folder: Path
) -> dict[str, list[str]]:
    """What came out different, by the place of the stop."""
    wrong = {}
    for stop in stops:
        run = Run(door, words, folder / f"{stop.operation}{'t' * stop.torn}")
        found = killed_once(run, stop, whole)
        if found:
            wrong[f"{stop} {whole.operations[stop.operation]}"] = found
    return wrong


def test_the_stops_are_where_they_should_be(whole_runs: dict[str, Whole]) -> None:
    for whole in whole_runs.values():
        saved = [whole.operations[index] for index in span_of_a_save(whole.operations)]
        kinds = [one.kind for one in saved]
        written = {one.path for one in saved if one.writes}
        assert written == {
            f"{CHECKPOINT}/{name}"
            for name in ("trained.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json",
                         "progress.json", "manifest.json")
        }  # fmt: skip
        assert kinds[0] == "os.mkdir" and kinds.count("os.fsync") == 9
        assert saved[kinds.index("os.rename")].path == CHECKPOINT
        assert saved[-1] == Operation("os.rmdir", "checkpoint.removing")
        assert {stop.operation for stop in all_stops(whole.operations)} >= set(span_of_a_save(whole.operations))
        assert len(whole.outcome["history"]) > 2 and whole.checkpoints == [whole.outcome["best"]["step"]]


def test_killed_at_some_file_operations(
    whole_runs: dict[str, Whole], commands: dict[str, list[str]], tmp_path: Path
) -> None:
    whole = whole_runs["qa"]
    assert killed_everywhere("qa", commands["qa"], whole, some_stops(whole.operations), tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_killed_at_every_file_operation(
    door: str, whole_runs: dict[str, Whole], commands: dict[str, list[str]], tmp_path: Path
) -> None:
    whole = whole_runs[door]
    stops = all_stops(whole.operations)
    assert len(stops) > 80
    assert killed_everywhere(door, commands[door], whole, stops, tmp_path) == {}


def killed_at_random(run: Run, whole: Whole, times: int, draw: random.Random) -> int:
    """Lets a run be killed at random moments, one life each; how many lives that ended."""
    kills = 0
    for _ in range(times):
        process = run.start()
        time.sleep(draw.uniform(0, whole.seconds))
        process.kill()
        kills += run.end(process) == -signal.SIGKILL
    return kills


@pytest.mark.parametrize("door", ["mlm", "ner"])
def test_killed_at_two_random_moments(
    door: str, whole_runs: dict[str, Whole], commands: dict[str, list[str]], tmp_path: Path
) -> None:
    run = Run(door, commands[door], tmp_path / "run")
    killed_at_random(run, whole_runs[door], 2, random.Random(door))
    assert differences(run.finish(), whole_runs[door].outcome) == []


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_killed_at_25_random_moments(
    door: str, whole_runs: dict[str, Whole], commands: dict[str, list[str]], tmp_path: Path
) -> None:
    draw = random.Random(door)
    kills = number = 0
    while kills < 25:
        run = Run(door, commands[door], tmp_path / str(number))
        kills += killed_at_random(run, whole_runs[door], 5, draw)
        assert differences(run.finish(), whole_runs[door].outcome) == []
        number += 1


def signalled(door: str, words: list[str], folder: Path, operation: int, number: signal.Signals) -> Run:
    """A run that gets a signal at a file operation and stops with a line that says how to go on."""
    run = Run(door, words, folder)
    assert run.live(Stop(operation, number=number)) == 128 + number, run.said()
    assert "Traceback" not in run.said()
    last = run.said().splitlines()[-1]
    assert last.startswith("stopped: ") and "the same command resumes" in last
    return run


@pytest.mark.parametrize("door", DOORS)
def test_a_signal_while_training(
    door: str, whole_runs: dict[str, Whole], commands: dict[str, list[str]], tmp_path: Path
) -> None:
    whole = whole_runs[door]
    committed = occurrence(whole.operations, "os.rename", CHECKPOINT, 1)
    run = signalled(door, commands[door], tmp_path / "run", committed, signal.SIGTERM)
    assert json.loads((run.folder / "run.json").read_text(encoding="utf-8"))["status"] == "interrupted"
    assert checkpoint_steps(run.folder)[-1] == whole.outcome["history"][1]["step"] + 1
    assert differences(run.finish(), whole.outcome) == []


def test_signals_at_other_stages(whole_runs: dict[str, Whole], commands: dict[str, list[str]], tmp_path: Path) -> None:
    whole = whole_runs["qa"]
    notes = [index for index, one in enumerate(whole.operations) if one == Operation("open", "run.json.writing")]
    committed = occurrence(whole.operations, "os.rename", CHECKPOINT, 1)
    evaluating = max(index for index in notes if index < committed)
    found = {}
    for stage, operation in (("before training", notes[1]), ("evaluation", evaluating), ("after training", notes[-2])):
        run = signalled("qa", commands["qa"], tmp_path / stage.replace(" ", "_"), operation, signal.SIGINT)
        status = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))["status"]
        found[stage] = (status, checkpoint_steps(run.folder)[-1:])
        assert differences(run.finish(), whole.outcome) == []
    assert found == {
        "before training": ("running", []),
        "evaluation": ("interrupted", [whole.outcome["history"][1]["step"]]),
        "after training": ("running", [whole.outcome["steps"]]),
    }


def wait_for(run: Run, operation: Operation) -> None:
    """Until the life under way has come to an operation."""
    while not run.log.is_file() or operation not in run.operations():
        time.sleep(0.02)


def test_a_signal_while_workers_are_at_work(commands: dict[str, list[str]], tmp_path: Path) -> None:
    saves = ["--save_strategy", "steps", "--save_steps", "1", "--load_best_model_at_end", "False"]
    whole = Run("qa", [*commands["qa"], *saves], tmp_path / "whole")
    outcome = whole.finish()
    committed = occurrence(whole.operations(), "os.rename", CHECKPOINT)  # after the first step, within an epoch
    for number in (signal.SIGINT, signal.SIGTERM):
        words = [*commands["qa"], *saves, "--dataloader_num_workers", "2"]
        run = signalled("qa", words, tmp_path / number.name, committed, number)
        first, last = run.said().splitlines()[-2:]
        assert first == f"{number.name}: saving a checkpoint after this step; a second signal stops at once"
        assert last.startswith(f"stopped: {run.folder}/checkpoint-2 is saved; the same command resumes from step 2 of ")
        assert differences(run.finish(), outcome) == []


def test_second_process_is_refused_while_the_first_lives(commands: dict[str, list[str]], tmp_path: Path) -> None:
    run = Run("qa", commands["qa"], tmp_path / "run")
    first = run.start()
    wait_for(run, Operation("os.rename", CHECKPOINT))
    assert first.pid is not None
    os.kill(first.pid, signal.SIGSTOP)
    second = Run("qa", commands["qa"], tmp_path / "run")
    second.log = tmp_path / "second.operations"
    before = sorted((path, path.stat().st_mtime_ns) for path in run.folder.rglob("*"))
    assert second.live() == 2
    assert second.said().startswith(
        f"error: --output_dir {run.folder}: another run is working there (process {first.pid} on "
    )
    assert sorted((path, path.stat().st_mtime_ns) for path in run.folder.rglob("*")) == before
    first.kill()
    run.end(first)
    second.finish()

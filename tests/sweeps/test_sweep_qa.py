"""sweep_qa.py: which trials there are, that each is done once whatever happens to workers, and what is told of them."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from support import fake_trainer
from support.scripts import ROOT, run_script

import sweep_qa
from adapter_qa.core.errors import Interrupted, RunError, UserError
from adapter_qa.runs.layout import LOCK_FILE
from adapter_qa.runs.lock import is_locked
from adapter_qa.sweeps import study
from adapter_qa.sweeps import worker as worker_module
from adapter_qa.sweeps.search_space import TPE, MedianPruning, Sweep, read_sweep
from adapter_qa.sweeps.study import TrialStore, first_trials, open_storage

FAKE = Path(fake_trainer.__file__)
WORKER = (
    "import sys, pathlib; sys.path.insert(0, {root!r}); import sweep_qa; from adapter_qa.core.cli import run_cli;"
    "sweep_qa.SCRIPT = pathlib.Path({script!r}); sys.exit(run_cli(sweep_qa.main))"
)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_qa, "SCRIPT", FAKE)
    monkeypatch.setattr(worker_module, "POLL", 0.05)
    monkeypatch.setattr(worker_module, "IDLE", 0.05)
    monkeypatch.setenv("FAKE_SECONDS", "0.1")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a sweep's file; options and search are added to, everything else replaced."""

    def writer(**entries: Any) -> Path:
        data = tmp_path / "data.json"
        data.write_text("{}", encoding="utf-8")
        options = {"model_name_or_path": "base", "do_train": True, "do_eval": True}
        options |= {"train_file": str(data), "validation_file": str(data), **entries.pop("options", {})}
        search = entries.pop("search", {"seed": {"choices": [1, 2, 3]}})
        document = {"trials": 3, "sampler": "grid", "options": options, "search": search, **entries}
        path = tmp_path / "sweep.yaml"
        kept = {name: value for name, value in document.items() if value is not ...}
        path.write_text(yaml.safe_dump(kept, allow_unicode=True, sort_keys=False), encoding="utf-8")
        return path

    return writer


def sweep_main(file: Path, *words: str) -> int:
    """A worker in this process, in the folder `sweep` beside the file."""
    return sweep_qa.main([str(file), "--output_dir", str(file.parent / "sweep"), *words])


def report(file: Path) -> dict[str, Any]:
    """sweep.json of that folder."""
    return dict(json.loads((file.parent / "sweep" / "sweep.json").read_text(encoding="utf-8")))


def starts(file: Path) -> Counter[str]:
    """How often each trial was started, and from how many evaluations on: `0003 0`."""
    return Counter((file.parent / "sweep" / "trials" / "starts.txt").read_text(encoding="utf-8").splitlines())


def start_worker(file: Path, *words: str, script: Path = FAKE, seconds: float = 0.1) -> subprocess.Popen[str]:
    """A worker as its user starts it, its lines to be read; an evaluation of the fake trainer takes some seconds."""
    code = WORKER.format(root=str(ROOT), script=str(script))
    command = [sys.executable, "-u", "-c", code, str(file), "--output_dir", str(file.parent / "sweep"), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "FAKE_SECONDS": str(seconds)}
    pipe, merged = subprocess.PIPE, subprocess.STDOUT
    return subprocess.Popen(command, stdout=pipe, stderr=merged, text=True, env=environment, start_new_session=True)


def lines_until(worker: subprocess.Popen[str], *parts: str) -> list[str]:
    """What a worker prints up to the first line that holds each of some texts, one after the other."""
    lines: list[str] = []
    assert worker.stdout is not None
    for part in parts:
        for line in worker.stdout:
            lines.append(line.rstrip())
            if part in line:
                break
        else:
            pytest.fail(f"no {part!r} in {lines}")
    return lines


# What is asked for.


def test_the_example_is_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for part in ("train", "dev"):
        (tmp_path / "data" / f"pt_squad-{part}-v1.1.json").write_text("{}", encoding="utf-8")
    sweep = read_sweep(ROOT / "sweeps" / "qa.yaml")
    assert (sweep.trials, sweep.metric, sweep.seed, sweep.sampler) == (40, "f1", 42, TPE())
    assert sweep.pruner == MedianPruning(n_startup_trials=5, n_warmup_steps=2)
    assert {name: entry.describe() for name, entry in sweep.search.items()} == {
        "learning_rate": "1e-05 to 0.001, log",
        "adapter_reduction_factor": "2, 4, 16",
        "weight_decay": "0 to 0.1, step 0.02",
        "warmup_steps": "0 to 1000, step 100",
        "setup": "plain, on_language_adapter, houlsby",
    }
    for params in first_trials(sweep, 20):
        assert 1e-5 <= params["learning_rate"] <= 1e-3 and params["adapter_reduction_factor"] in (2, 4, 16)
        assert params["warmup_steps"] in range(0, 1001, 100) and isinstance(params["warmup_steps"], int)
        assert min(abs(params["weight_decay"] - step * 0.02) for step in range(6)) < 1e-12
    words = sweep.trainer_args({"learning_rate": 3e-4, "setup": "houlsby"})
    assert words[-2:] == ["--learning_rate=0.0003", "--adapter_config=houlsby"]


def test_parameters_come_from_seed_and_number(write: Callable[..., Path]) -> None:
    space = {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}
    drawn = {
        seed: first_trials(read_sweep(write(trials=9, sampler="random", seed=seed, search=space)), 9) for seed in (1, 2)
    }
    again = first_trials(read_sweep(write(trials=4, sampler="random", seed=1, search=space)), 9)
    assert again == drawn[1][:4]  # of more trials the first are the same
    values = [params["learning_rate"] for params in (*drawn[1], *drawn[2])]
    assert len(set(values)) == 18


def test_a_grid_has_each_combination_once(write: Callable[..., Path]) -> None:
    search = {
        "seed": {"low": 1, "high": 3},
        "weight_decay": {"low": 0.0, "high": 0.3, "step": 0.1},
        "kind": {"choices": {"small": {"adapter_reduction_factor": 32}, "large": {"adapter_reduction_factor": 2}}},
    }
    sweep = read_sweep(write(trials=..., search=search))
    assert sweep.trials == 24
    found = [(one["seed"], round(one["weight_decay"], 6), one["kind"]) for one in first_trials(sweep, 100)]
    assert found == [(s, w, k) for s in (1, 2, 3) for w in (0, 0.1, 0.2, 0.3) for k in ("small", "large")]
    assert read_sweep(write(trials=5, search=search)).trials == 5


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"trials": 0}, ["trials 0: Expected int >= 1"]),
    ({"trials": ..., "sampler": "tpe"}, ["trials is missing; give the number of trials"]),
    (
        {"trails": 3},
        ["unknown entry trails; choose from trials, metric, seed, sampler, pruner, launcher, options, search"],
    ),
    (
        {"seed": -1, "metric": "bleu", "sampler": "gp", "pruner": "sha", "launcher": ["torchrun"]},
        [
            "seed -1: Expected int >= 0",
            "metric bleu: not computed; choose from f1, exact, loss",
            "sampler gp: choose from tpe, random, grid",
            "pruner sha: choose from median, hyperband, none",
            "launcher is a list; write e.g. torchrun --nproc_per_node 4",
        ],
    ),
    (
        {"pruner": {"kind": "median", "n_min_trials": 0, "patience": 2}, "sampler": {"kind": "grid", "x": 1}},
        [
            "sampler grid: unknown entry x; there are no settings",
            "pruner median: unknown entry patience; choose from n_startup_trials, n_warmup_steps, interval_steps, "
            "n_min_trials",
            "pruner median: n_min_trials 0: Expected int >= 1",
        ],
    ),
    ({"launcher": "a 'b"}, ["launcher a 'b: No closing quotation; write it as on a command line"]),
    (
        {"options": {"learning_rat": 1, "output-dir": "x", "hub_token": "y"}},
        [
            "options: output-dir is set by the sweep for each trial; leave it out",
            "options: hub_token would be recorded; give it in the environment (HF_TOKEN)",
            "options: unknown option learning_rat; did you mean learning_rate?",
        ],
    ),
    ({"options": {"do_eval": False}}, ["options: do_eval is not true; trials are compared by the evaluation's f1"]),
    ({"options": {"warmup_ratio": 7}}, ["--warmup_ratio 7: must be between 0 and 1"]),
    ({"options": {"seed": 7}}, ["seed is given in options and search: seed; give it once"]),
    ({"search": {}}, ["search is empty; give a mapping such as 'learning_rate: {low: 1e-5, high: 1e-3}'"]),
    (
        {
            "search": {
                "learning_rat": {"low": 1, "high": 2},
                "seed": {"low": 1.5, "high": 2},
                "learning_rate": {"low": "1e-3", "high": "1e-5"},
                "weight_decay": {"low": 0, "high": 1, "log": True},
                "adam_beta1": {"low": 0.5, "high": 0.9, "steps": 0.1},
                "adam_beta2": {"low": 0.5, "high": 0.9, "step": 1},
                "bf16": {"low": 0, "high": 1},
                "warmup_steps": {"low": 0, "choices": [1]},
                "lr_scheduler_type": {"choices": []},
                "doc_stride": {"choices": [8, "8"]},
                "max_seq_length": {"choices": [[1]]},
                "language": 5,
            }
        },
        [
            "search: unknown option learning_rat; did you mean learning_rate?",
            "search: seed: low 1.5: Expected int, got float",
            "search: learning_rate: low 0.001 must be below high 1e-05",
            "search: weight_decay: log: true needs low above 0 and no step",
            "search: adam_beta1: unknown entry steps; choose from low, high, step, log",
            "search: adam_beta2: step 1 must be above 0 and at most high - low",
            "search: bf16: the option is not a number; give choices: [...]",
            "search: warmup_steps: give choices: [...], or low and high",
            "search: lr_scheduler_type: choices must be a list of values",
            "search: doc_stride: a choice appears twice; give each once",
            "search: max_seq_length: choices must be words, numbers, true, false or null; sets of options need names",
            "search: language: give choices: [...], or low and high",
        ],
    ),
    (
        {"search": {"learning_rate": [-1, 0.1], "num_train_epochs": {"low": 0, "high": 3, "step": 1}}},
        [
            "--learning_rate -1: must be at least 0",
            "--num_train_epochs 0: must be above 0; training needs epochs or --max_steps",
        ],
    ),
    (
        {"search": {"seed": {"choices": {"a": {}}}, "setup": {"choices": {"b": 1, "c": {"sed": 1, "dry_run": True}}}}},
        [
            "search: seed: is an option; a choice between sets of options needs another name",
            "search: setup: b is a number; give a mapping of options",
            "search: setup: c: dry_run is set by the sweep for each trial; leave it out",
            "search: setup: c: unknown option sed; did you mean seed?",
        ],
    ),
    (
        {"search": {"setup": {"choices": {"b": {"seed": 1}}}, "seed": [2]}},
        ["seed is given in search: setup and search: seed; give it once"],
    ),
    (
        {"search": {"learning_rate": {"low": 0.1, "high": 1}}},
        ["sampler grid is not possible: learning_rate: give choices or a step"],
    ),
    (
        {"search": {"seed": {"low": 1, "high": 1000}, "warmup_steps": {"low": 1, "high": 101}}},
        ["sampler grid is not possible: more than 100,000 trials"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("entries", "problems"), WRONG)
def test_all_that_is_wrong_is_said_before_any_trial(
    write: Callable[..., Path], entries: dict[str, Any], problems: list[str]
) -> None:
    file = write(**entries)
    with pytest.raises(UserError) as caught:
        sweep_main(file)
    assert caught.value.problems == [f"{file}: {problem}" for problem in problems]
    assert not (file.parent / "sweep").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- a", "holds a list; a sweep is a mapping with the entries trials, metric, seed, sampler, pruner, launcher, "
        "options, search"),
        ("a: [", "cannot be read as a sweep: while parsing a flow node expected the node content, but found "
        "'<stream end>' in \"<unicode string>\", line 1, column 5: a: [ ^"),
        ("", "the file is empty"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_sweep(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        sweep_main(file)
    assert caught.value.problems == [f"{file}: {problem}"]


def test_the_command_line_is_looked_at_with_the_file(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "optuna" else pytest.fail(name))
    file = write(trials=-1)
    with pytest.raises(UserError) as caught:
        sweep_qa.main([str(file), "--lease", "0", "--output_dir", str(file)])
    assert caught.value.problems == [
        "--lease 0.0: must be above 0 (seconds)",
        'optuna is not installed; pip install "adapter-qa[sweep]"',
        f"--output_dir {file}: is a file; give a folder",
        f"{file}: trials -1: Expected int >= 1",
    ]


def test_a_dry_run_prints_commands_and_writes_nothing(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    search = {
        "learning_rate": [1e-4, "3e-4"],
        "setup": {"choices": {"a b": {"fuse_adapters": ["x=1", "y=2"]}, "c": {}}},
    }
    file = write(trials=..., search=search, launcher="torchrun --nproc_per_node 2", options={"language": "pt br"})
    assert sweep_main(file, "--dry_run") == 0
    data, folder = tmp_path / "data.json", tmp_path / "sweep"
    shared = (
        f"torchrun --nproc_per_node 2 {FAKE} --model_name_or_path=base --do_train=True --do_eval=True "
        f"--train_file={data} --validation_file={data} '--language=pt br'"
    )
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}: 4 trials, f1, sampler grid, pruner none",
        "  learning_rate: 0.0001, 0.0003",
        "  setup: a b, c",
        f"{shared} --learning_rate=0.0001 --fuse_adapters x=1 y=2 --output_dir {folder}/trials/0000",
        f"{shared} --learning_rate=0.0001 --output_dir {folder}/trials/0001",
        f"{shared} --learning_rate=0.0003 --fuse_adapters x=1 y=2 --output_dir {folder}/trials/0002",
    ]
    assert not folder.exists()


# One worker.


def test_a_sweep_and_what_it_leaves(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    file = write()
    folder, data = file.parent / "sweep", file.parent / "data.json"
    assert sweep_main(file) == 0
    told = capsys.readouterr().out.splitlines()
    again = (
        f"again: {sys.executable} {FAKE} --model_name_or_path=base --do_train=True --do_eval=True --train_file={data} "
        f"--validation_file={data} --seed=3"
    )
    assert told[:3] == [
        f"{folder}: 3 trials, f1, sampler grid, pruner none",
        "  seed: 1, 2, 3",
        f"trial 0 of 3: seed=1 (log: {folder}/trials/0000.log)",
    ]
    assert [line for line in told if line.startswith("trial 2: evaluation")] == [
        f"trial 2: evaluation {number}, f1 {10 * number + 3}" for number in (1, 2, 3, 4)
    ]
    assert told[-3:] == ["best: trial 2, seed=3, f1 43", f"folder: {folder}/trials/0002", again]
    document = report(file)
    seconds = [one.pop("seconds") for one in document["trials"]]
    assert all(0.4 <= one < 60 for one in seconds)
    assert document == {
        "study": "sweep",
        "settings": {"trials": 3, **read_sweep(file).settings()},
        "best": 2,
        "trials": [
            {
                "number": number,
                "state": "finished",
                "params": {"seed": number + 1},
                "f1": 41.0 + number,
                "evaluations": [11.0 + number, 21.0 + number, 31.0 + number, 41.0 + number],
                "folder": f"{folder}/trials/000{number}",
                "exit_code": 0,
                "why": None,
            }
            for number in range(3)
        ],
    }
    names = {path.name for path in folder.iterdir()}
    assert names == {"journal.log", "sweep.json", "trials"}

    assert sweep_main(file) == 0  # done: nothing is started
    assert capsys.readouterr().out.splitlines() == [*told[:2], *told[-3:]]
    assert starts(file) == {"0000 0": 1, "0001 0": 1, "0002 0": 1}


def test_more_trials_may_be_asked_for_and_nothing_else(write: Callable[..., Path]) -> None:
    assert sweep_main(write(trials=1)) == 0
    file = write(trials=2)
    assert sweep_main(file) == 0
    assert starts(file) == {"0000 0": 1, "0001 0": 1}
    with pytest.raises(UserError) as caught:
        sweep_main(write(trials=2, seed=1, options={"language": "pt"}))
    assert caught.value.problems == [
        "sweep sweep: was started with other settings (seed, options); give another --output_dir"
    ]


def test_what_every_trial_would_be_refused_for_ends_a_sweep_before_it_begins(write: Callable[..., Path]) -> None:
    file = write(options={"run_name": fake_trainer.REFUSED})
    with pytest.raises(UserError) as caught:
        sweep_main(file)
    assert caught.value.problems == ["--run_name refused: is refused", "--seed: too"]
    assert not (file.parent / "sweep").exists()


def test_failed_trials_count_and_the_sweep_goes_on(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["fine", fake_trainer.CRASHES, fake_trainer.BROKEN, fake_trainer.REFUSED, fake_trainer.KILLED, "good"]
    file = write(trials=..., search={"run_name": names})
    assert sweep_main(file) == 0
    document = report(file)
    run_json = file.parent / "sweep" / "trials" / "0002" / "run.json"
    assert [(one["state"], one["exit_code"], one["why"]) for one in document["trials"]] == [
        ("finished", 0, None),
        ("failed", 1, ["the disk is full"]),
        ("failed", 0, [f"{run_json}: has no eval_f1"]),
        ("failed", 2, ["--run_name refused: is refused", "--seed: too"]),
        ("failed", -9, ["it printed nothing"]),
        ("finished", 0, None),
    ]
    told = capsys.readouterr()
    assert told.err == f"note: 4 of 6 trials failed; {file.parent / 'sweep' / 'sweep.json'} has the reasons\n"
    assert (
        "trial 3: run_name=refused: failed with exit code 2: --run_name refused: is refused; --seed: too, " in told.out
    )
    assert document["best"] == 0  # the first of equals


def test_a_sweep_without_a_result_is_a_failure(write: Callable[..., Path]) -> None:
    file = write(trials=1, options={"run_name": fake_trainer.CRASHES})
    with pytest.raises(RunError) as caught:
        sweep_main(file)
    assert caught.value.problems == [f"no trial finished; {file.parent / 'sweep' / 'sweep.json'} has the reasons"]


def test_three_refusals_in_a_row_end_it(write: Callable[..., Path]) -> None:
    file = write(trials=..., search={"run_name": ["fine", fake_trainer.REFUSED], "seed": [1, 2, 3, 4]})
    with pytest.raises(UserError) as caught:
        sweep_main(file)
    prefix = "3 trials in a row were refused, the last one for: "
    assert caught.value.problems == [f"{prefix}--run_name refused: is refused", f"{prefix}--seed: too"]
    assert [one["state"] for one in report(file)["trials"]] == ["finished"] * 4 + ["failed"] * 3


def test_a_trial_stopped_by_somebody_else_is_not_lost(write: Callable[..., Path]) -> None:
    file = write(trials=1, options={"run_name": fake_trainer.STOPPED})
    for evaluated in (1, 2):
        with pytest.raises(Interrupted) as caught:
            sweep_main(file)
        assert caught.value.problems == ["trial 0: its process was stopped; the same command resumes it"]
        assert caught.value.exit_code == 143
        trial = report(file)["trials"][0]
        assert trial["state"] == "waiting" and len(trial["evaluations"]) == evaluated
    assert starts(file) == {"0000 0": 1, "0000 1": 1}


def test_poor_trials_are_pruned(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.5")  # time to notice before the next one
    pruner = {"kind": "median", "n_startup_trials": 2, "n_warmup_steps": 1}
    file = write(trials=..., search={"seed": [8, 9, 1, 10]}, pruner=pruner)
    assert sweep_main(file) == 0
    # Median of 8 and 9 after two evaluations, the first at which trials may be pruned: 28.5, above 21.
    assert [(one["state"], len(one["evaluations"]), one["f1"]) for one in report(file)["trials"]] == [
        ("finished", 4, 48.0),
        ("finished", 4, 49.0),
        ("pruned", 2, 21.0),
        ("finished", 4, 50.0),
    ]


def test_hyperband_prunes_by_its_own_settings(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.5")  # time to notice before the next one
    pruner = {"kind": "hyperband", "min_resource": 1, "max_resource": 4, "reduction_factor": 4}
    file = write(trials=..., search={"seed": [5, 4, 3, 2]}, pruner=pruner)
    assert sweep_main(file) == 0
    found = [(one["state"], len(one["evaluations"])) for one in report(file)["trials"]]
    study = optuna.create_study(
        study_name="sweep", direction="maximize", pruner=optuna.pruners.HyperbandPruner(1, 4, 4)
    )
    expected = []
    for seed in (5, 4, 3, 2):  # optuna alone, told the same values
        trial, told = study.ask(), 0
        for told in range(1, 5):
            trial.report(10.0 * told + seed, told - 1)
            if trial.should_prune():
                break
        pruned = told < 4
        study.tell(trial, None if pruned else 40.0 + seed, TrialState.PRUNED if pruned else TrialState.COMPLETE)
        expected.append(("pruned" if pruned else "finished", told))
    assert found == expected and {"pruned", "finished"} == {state for state, _ in found}


def test_a_database_that_gives_way_is_told_in_a_line() -> None:
    with pytest.raises(RunError) as caught, study.report_storage_errors():
        raise optuna.exceptions.StorageInternalError("gone away\nand more")
    assert caught.value.problems == ["the storage failed (gone away); the same command resumes the sweep"]


def test_a_smaller_loss_is_better(write: Callable[..., Path]) -> None:
    sweep = read_sweep(write(metric="eval_loss"))
    book = TrialStore(sweep, Path("unused"), optuna.storages.InMemoryStorage(), "loss", 60)
    for value in (2.0, 1.0, 3.0):
        trial = book.claim()
        assert trial is not None and book.record_outcome(trial.number, TrialState.COMPLETE, value)
    best = book.best()
    assert best is not None and (best.number, best.value, book.study.best_trial.number) == (1, 1.0, 1)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense", "cannot be opened (Could not parse SQLAlchemy URL from given URL string); give a URL such as "
        "mysql+pymysql://USER@HOST/DATABASE"),
        ("oracle://user:secret@host/db", "the driver of oracle is not installed; install it with pip"),
    ],
)  # fmt: skip
def test_a_storage_that_cannot_be_opened(write: Callable[..., Path], url: str, why: str) -> None:
    with pytest.raises(UserError) as caught:
        sweep_main(write(), "--storage", url)
    assert caught.value.problems == [f"--storage: {why}"]


def test_a_folder_that_cannot_be_written(write: Callable[..., Path], tmp_path: Path) -> None:
    file = write()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        sweep_qa.main([str(file), "--output_dir", str(tmp_path / "file" / "sweep")])
    assert caught.value.problems == [
        f"--output_dir {tmp_path / 'file' / 'sweep'}: cannot be written (Not a directory); give another folder"
    ]


# Several workers.


@pytest.fixture(params=["journal", "sqlite"])
def books(
    request: pytest.FixtureRequest, write: Callable[..., Path], tmp_path: Path
) -> Callable[[int], list[TrialStore]]:
    """As many workers' books on one sweep of three trials, each with a storage of its own as in processes."""
    url = f"sqlite:///{tmp_path / 'sweep.db'}" if request.param == "sqlite" else None
    sweep: Sweep = read_sweep(write())
    return lambda count: [
        TrialStore(sweep, tmp_path / "sweep", open_storage(tmp_path / "sweep", url), "sweep", lease=60)
        for _ in range(count)
    ]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock of all workers; the time is its only element."""
    now = [1000.0]
    monkeypatch.setattr(study.time, "monotonic", lambda: now[0])
    return now


def states(book: TrialStore) -> list[TrialState]:
    return [one.state for one in book.trials()]


def test_trials_are_shared_out_and_no_more_are_made(books: Callable[[int], list[TrialStore]]) -> None:
    one, two = books(2)
    taken = [book.claim() for book in (one, two, one, two, one)]
    assert [trial.number if trial else None for trial in taken] == [0, 1, 2, None, None]
    assert not one.all_done()
    # Two workers that have seen the same free place: the second one's trial is one too many, and is not run.
    two.trials = list  # type: ignore[method-assign]
    assert two.claim() is None
    assert [trial.state for trial in one.study.trials] == [TrialState.RUNNING] * 3 + [TrialState.WAITING]
    for book, number in ((one, 0), (one, 2)):
        assert book.record_outcome(number, TrialState.COMPLETE, 1.0)
    assert not one.record_outcome(1, TrialState.COMPLETE, 1.0)  # the other's
    del two.trials
    assert two.record_outcome(1, TrialState.FAIL, why=["x"])
    assert one.all_done() and two.all_done() and one.claim() is None


def test_what_a_dead_worker_leaves_is_taken_up_with_its_parameters_and_evaluations(
    books: Callable[[int], list[TrialStore]], clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    dead, one, two = books(3)
    left = dead.claim()
    assert left is not None
    left.report(11.0, 0)
    mine = one.claim()
    assert mine is not None and mine.number == 1
    for second in range(0, 61, 10):  # as long as one lease lasts, as seen from here
        clock[0] = 1000.0 + second
        one.requeue_abandoned()
        assert states(one) == [TrialState.RUNNING] * 2
    clock[0] = 1061.0
    assert one.renew_lease(mine)
    assert states(two) == [TrialState.WAITING, TrialState.RUNNING]
    assert capsys.readouterr().err == f"note: trial 0: {dead.worker} does not respond; another worker resumes it\n"
    taken = two.claim()
    assert taken is not None and (taken.number, taken.params) == (0, left.params)
    assert two.trials()[0].intermediate_values == {0: 11.0}
    # It was only held up: it finds the trial another's, and neither ends it nor gives it back.
    assert not dead.renew_lease(left) and not dead.record_outcome(0, TrialState.COMPLETE, 1.0)
    dead.release(0)
    assert states(one) == [TrialState.RUNNING] * 2 and two.owns(0)


def test_a_lease_that_is_renewed_is_respected(books: Callable[[int], list[TrialStore]], clock: list[float]) -> None:
    one, two = books(2)
    trial = one.claim()
    assert trial is not None
    for _ in range(20):
        clock[0] += 30
        assert one.renew_lease(trial)
        two.requeue_abandoned()
    assert states(two) == [TrialState.RUNNING]


def test_who_was_held_up_itself_does_not_judge_others(
    books: Callable[[int], list[TrialStore]], clock: list[float]
) -> None:
    one, two = books(2)
    trial = one.claim()
    assert trial is not None
    two.requeue_abandoned()
    clock[0] += 100  # e.g. both wait for the journal, whose lock a killed worker has left
    two.requeue_abandoned()
    assert one.renew_lease(trial)
    clock[0] += 20
    two.requeue_abandoned()
    assert states(two) == [TrialState.RUNNING]


def test_a_worker_killed_before_it_could_sign_its_trial(
    books: Callable[[int], list[TrialStore]], clock: list[float]
) -> None:
    one, two = books(2)
    unsigned = one.study.ask()  # no lease, no parameters yet
    for _ in range(8):
        two.requeue_abandoned()
        clock[0] += 10
    taken = two.claim()
    assert taken is not None and (taken.number, taken.params) == (unsigned.number, {"seed": 1})


def test_a_trial_waits_for_the_process_that_a_killed_worker_left(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(trials=1)
    folder = file.parent / "sweep" / "trials" / "0000"
    folder.mkdir(parents=True)
    swap_weights = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; from adapter_qa.runs.lock import lock_run_dir; "
    swap_weights += f"lock_run_dir(Path({str(folder)!r})); print('held', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", swap_weights], stdin=pipe, stdout=pipe, text=True) as orphan:
        assert orphan.stdout is not None and orphan.stdout.readline() == "held\n"
        assert is_locked(folder)
        worker = start_worker(file)
        lines_until(worker, f"trial 0: waiting for the process that still works in {folder}")
        assert not (folder.parent / "starts.txt").exists()
        assert orphan.stdin is not None
        orphan.stdin.close()
        lines_until(worker, "best: trial 0")
    assert worker.wait() == 0
    assert not is_locked(folder) and (folder / LOCK_FILE).exists()


def test_a_file_system_without_locks_keeps_no_trial_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LOCK_FILE).write_text("", encoding="utf-8")
    monkeypatch.setattr("fcntl.lockf", Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    assert not is_locked(tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_worker_gives_its_trial_back_with_a_checkpoint(
    write: Callable[..., Path], number: int, code: int
) -> None:
    file = write()
    worker = start_worker(file, seconds=1)
    lines_until(worker, "trial 0: evaluation 1")
    os.killpg(worker.pid, number)  # as a terminal does: all processes of the group
    last = lines_until(worker, "stopped: ")[-1]
    assert worker.wait() == code
    assert last == f"stopped: by {signal.Signals(number).name}; the same command resumes from what is done"
    assert [one["state"] for one in report(file)["trials"]] == ["waiting"]
    assert (file.parent / "sweep" / "trials" / "0000.log").read_text(encoding="utf-8").splitlines() == [
        "SIGTERM: saving a checkpoint after this step; a second signal stops at once",
        "stopped: by SIGTERM; the same command resumes from what is done",
    ]
    done = len(report(file)["trials"][0]["evaluations"])
    assert sweep_main(file) == 0
    assert starts(file) == {"0000 0": 1, f"0000 {done}": 1, "0001 0": 1, "0002 0": 1} and 0 < done < 4


def test_a_second_signal_does_not_wait_for_the_checkpoint(write: Callable[..., Path]) -> None:
    file = write(trials=1)
    worker = start_worker(file, seconds=600)
    lines_until(worker, "trial 0 of 1")
    while not (file.parent / "sweep" / "trials" / "0000" / "run.json").exists():
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    lines_until(worker, "SIGTERM: saving a checkpoint after this step")
    log = file.parent / "sweep" / "trials" / "0000.log"
    while "SIGTERM: saving a checkpoint" not in log.read_text(encoding="utf-8"):
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait() == 143
    assert [one["state"] for one in report(file)["trials"]] == ["waiting"]


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_twelve_trials_by_three_workers_one_of_them_killed(
    write: Callable[..., Path], tmp_path: Path, storage: str
) -> None:
    search = {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "seed": {"low": 1, "high": 1000}}
    file = write(trials=12, sampler="random", search=search)
    words = ["--lease", "3"] + (["--storage", f"sqlite:///{tmp_path / 'sweep.db'}"] if storage == "sqlite" else [])
    workers = [start_worker(file, *words, seconds=seconds) for seconds in (0.4, 1, 0.4)]  # the slow one is killed
    victim = workers[1]
    lines = lines_until(victim, " of 12: ", " of 12: ", "evaluation 1, ")
    victim.send_signal(signal.SIGKILL)
    killed = int(lines[-1].split(":")[0].removeprefix("trial "))
    for worker in (workers[0], workers[2]):
        output, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0 and "best: trial " in output
    victim.communicate()

    trials = report(file)["trials"]
    assert [(one["number"], one["state"]) for one in trials] == [(number, "finished") for number in range(12)]
    assert [one["params"] for one in trials] == first_trials(read_sweep(file), 12)
    assert len({str(one["params"]) for one in trials}) == 12
    assert [one["f1"] for one in trials] == [40.0 + one["params"]["seed"] for one in trials]
    begun = starts(file)
    assert [begun[f"{number:04d} 0"] for number in range(12)] == [1] * 12
    (again,) = set(begun) - {f"{number:04d} 0" for number in range(12)}
    # It goes on from its checkpoint, which its process saved when its worker was killed.
    assert again in (f"{killed:04d} 1", f"{killed:04d} 2") and begun[again] == 1


# The trainer itself.


def real_sweep(
    write: Callable[..., Path], base: Path, files: tuple[Path, Path], more: dict[str, Any] | None = None, **entries: Any
) -> Path:
    """A sweep of the real trainer over small questions, with more options if given."""
    options = {
        "model_name_or_path": str(base), "train_file": str(files[0]), "validation_file": str(files[1]),
        "max_seq_length": 64, "doc_stride": 16, "num_train_epochs": 2, "report_to": "none", "use_cpu": True,
    }  # fmt: skip
    return write(options=options | (more or {}), **entries)


def test_the_trainer_is_swept(write: Callable[..., Path], tiny_bert: Path, squad_files: tuple[Path, Path]) -> None:
    file = real_sweep(write, tiny_bert, squad_files, trials=..., search={"learning_rate": [1e-2, "2e-2"]})
    folder = file.parent / "sweep é"
    done = run_script("sweep_qa.py", file, "--output_dir", folder)
    assert done.returncode == 0, done.stderr
    trials = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["trials"]
    assert [(one["state"], one["params"]) for one in trials] == [
        ("finished", {"learning_rate": 0.01}),
        ("finished", {"learning_rate": 0.02}),
    ]
    for one in trials:
        run = json.loads((Path(one["folder"]) / "run.json").read_text(encoding="utf-8"))
        assert run["options"]["learning_rate"] == one["params"]["learning_rate"]
        assert one["f1"] == run["metrics"]["eval"]["eval_f1"] == max(one["evaluations"])
        assert one["evaluations"] == [entry["eval_f1"] for entry in run["history"]] and len(run["history"]) == 2


def test_the_trainers_refusal_comes_before_anything_is_written(
    write: Callable[..., Path], tiny_bert: Path, squad_files: tuple[Path, Path]
) -> None:
    file = real_sweep(write, tiny_bert / "none", squad_files)
    done = run_script("sweep_qa.py", file, "--output_dir", file.parent / "sweep")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line == (
        f"error: --model_name_or_path {tiny_bert / 'none'}: no such folder; give a model folder or a hub id such as "
        "org/name"
    )
    assert not (file.parent / "sweep").exists()


@pytest.mark.slow
def test_twelve_real_trainings_by_three_workers_one_of_them_killed(
    write: Callable[..., Path], tiny_bert: Path, squad_files: tuple[Path, Path]
) -> None:
    search = {"learning_rate": {"low": 1e-3, "high": 3e-2, "log": True}}
    long = {"num_train_epochs": 20}  # so that one is killed midway
    file = real_sweep(write, tiny_bert, squad_files, more=long, trials=12, sampler="tpe", search=search)
    workers = [start_worker(file, "--lease", "20", script=ROOT / "run_qa_adapter.py") for _ in range(3)]
    victim = workers[1]
    lines = lines_until(victim, " of 12: ", " of 12: ", "evaluation 1, ")
    victim.send_signal(signal.SIGKILL)
    killed = int(lines[-1].split(":")[0].removeprefix("trial "))
    for worker in (workers[0], workers[2]):
        output, _ = worker.communicate(timeout=1200)
        assert worker.returncode == 0, output
    victim.communicate()
    trials = report(file)["trials"]
    assert [(one["number"], one["state"]) for one in trials] == [(number, "finished") for number in range(12)]
    assert len({one["params"]["learning_rate"] for one in trials}) == 12
    for one in trials:
        folder = Path(one["folder"])
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        assert run["status"] == "finished" and one["f1"] == run["metrics"]["eval"]["eval_f1"]
        assert run["options"]["learning_rate"] == one["params"]["learning_rate"]
        log = folder.with_suffix(".log").read_text(encoding="utf-8")
        begun, resumed = log.count("setup: Stack[qa]"), log.count("the run goes on from here")
        assert (begun, resumed) == ((2, 1) if one["number"] == killed else (1, 0))
        assert len(run["history"]) == len(one["evaluations"]) == 20

"""Workers: each trial is done once, whatever happens to workers and to the processes of trials."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import optuna
import pytest
from optuna.trial import TrialState
from support import fake_trainer
from support.scripts import ROOT
from support.sweeps import FAKE, WriteSweep, read_lines_until, read_report, read_starts, run_worker, start_worker

import sweep_qa
from adapter_qa.core.errors import Interrupted, RunError, UserError
from adapter_qa.core.files import write_json
from adapter_qa.runs.layout import LOCK_FILE
from adapter_qa.runs.lock import is_locked
from adapter_qa.runs.run_document import UNKNOWN_RUN, RunDocument, Times
from adapter_qa.sweeps import analysis, summary
from adapter_qa.sweeps.search_space import read_sweep
from adapter_qa.sweeps.study import first_trials
from adapter_qa.sweeps.worker import was_stopped


def test_output_and_files_of_a_sweep(
    write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "draw_trials", analysis.draw_trials)
    file = write_sweep()
    folder, data = file.parent / "sweep", file.parent / "data.json"
    assert run_worker(file) == 0
    lines = capsys.readouterr().out.splitlines()
    again = (
        f"again: {sys.executable} {FAKE} --model_name_or_path=base --do_train=True --do_eval=True --train_file={data} "
        f"--validation_file={data} --seed=3"
    )
    assert lines[:3] == [
        f"{folder}: 3 trials, f1, sampler grid, pruner none",
        "  seed: 1, 2, 3",
        f"trial 0 of 3: seed=1 (log: {folder}/trials/0000.log)",
    ]
    assert [line for line in lines if line.startswith("trial 2: evaluation")] == [
        f"trial 2: evaluation {number}, F1 {10 * number + 3}.0" for number in (1, 2, 3, 4)
    ]
    ended = [re.sub(r"\b\d+ s\b", "N s", line) for line in lines if line.startswith("trial ") and "[" in line]
    assert ended == [
        "trial 0: seed=1: F1 41.0, 4 evaluations, N s [1 of 3 done; best F1 41.0 (trial 0); about N s left]",
        "trial 1: seed=2: F1 42.0, 4 evaluations, N s [2 of 3 done; best F1 42.0 (trial 1); about N s left]",
        "trial 2: seed=3: F1 43.0, 4 evaluations, N s [3 of 3 done; best F1 43.0 (trial 2)]",
    ]
    last = lines.index("next:") - 6
    assert lines[last].startswith("3 trials: 3 finished; ")
    assert lines[last + 1 : last + 9] == [
        f"report: {folder}/sweep.json",
        f"picture: {folder}/parallel_coordinates.png",
        "best: trial 2, seed=3, F1 43.0",
        f"folder: {folder}/trials/0002",
        again,
        "next:",
        f'  python ask_qa.py {folder}/trials/0002 --question "..." --context "..."',
        f"  python report_qa.py {folder}/trials --output_dir report",
    ]
    document = read_report(file)
    seconds = [trial.pop("seconds") for trial in document["trials"]]
    assert all(0.4 <= duration < 60 for duration in seconds)
    assert document == {
        "study": "sweep",
        "settings": {"trials": 3, **read_sweep(file).settings()},
        "best": 2,
        "importance": None,
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
    assert names == {"journal.log", "parallel_coordinates.png", "sweep.json", "trials"}

    assert run_worker(file) == 0  # done: nothing is started
    assert capsys.readouterr().out.splitlines() == [*lines[:2], *lines[last:]]
    assert read_starts(file) == {"0000 0": 1, "0001 0": 1, "0002 0": 1}


def test_number_of_trials_may_grow_and_nothing_else_may_change(write_sweep: WriteSweep) -> None:
    assert run_worker(write_sweep(trials=1)) == 0
    file = write_sweep(trials=2)
    assert run_worker(file) == 0
    assert read_starts(file) == {"0000 0": 1, "0001 0": 1}
    with pytest.raises(UserError) as caught:
        run_worker(write_sweep(trials=2, seed=1, options={"language": "pt"}))
    assert caught.value.problems == [
        "sweep sweep: was started with other settings (seed, options); give another --output_dir"
    ]


def test_renamed_folder_continues_its_sweep(write_sweep: WriteSweep) -> None:
    assert run_worker(write_sweep(trials=1)) == 0
    file = write_sweep(trials=2)
    renamed = (file.parent / "sweep").rename(file.parent / "renamed")
    assert sweep_qa.main([str(file), "--output_dir", str(renamed)]) == 0
    report = json.loads((renamed / "sweep.json").read_text(encoding="utf-8"))
    assert report["study"] == "sweep"
    assert [trial["f1"] for trial in report["trials"]] == [41.0, 42.0]
    assert (renamed / "trials" / "starts.txt").read_text(encoding="utf-8").split("\n") == ["0000 0", "0001 0", ""]


def test_order_of_the_search_may_change(write_sweep: WriteSweep) -> None:
    sets = {"plain": {}, "pt": {"language": "pt"}}
    search = {"seed": [1, 2], "setup": {"choices": sets}}
    assert run_worker(write_sweep(trials=1, search=search)) == 0
    reordered = {"setup": {"choices": dict(reversed(sets.items()))}, "seed": [1, 2]}
    file = write_sweep(trials=4, search=reordered)
    assert run_worker(file) == 0
    assert [trial["params"] for trial in read_report(file)["trials"]] == [
        {"seed": 1, "setup": "plain"},
        {"seed": 1, "setup": "pt"},
        {"seed": 2, "setup": "plain"},
        {"seed": 2, "setup": "pt"},
    ]


def test_refusal_of_the_first_trial_ends_the_sweep_before_it_starts(write_sweep: WriteSweep) -> None:
    file = write_sweep(options={"run_name": fake_trainer.REFUSED})
    with pytest.raises(UserError) as caught:
        run_worker(file)
    assert caught.value.problems == ["--run_name refused: is refused", "--seed: too"]
    assert not (file.parent / "sweep").exists()


def test_failed_trials_count_and_do_not_stop_the_sweep(
    write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["fine", fake_trainer.CRASHES, fake_trainer.BROKEN, fake_trainer.REFUSED, fake_trainer.KILLED, "good"]
    file = write_sweep(trials=..., search={"run_name": names})
    assert run_worker(file) == 0
    document = read_report(file)
    run_json = file.parent / "sweep" / "trials" / "0002" / "run.json"
    assert [(trial["state"], trial["exit_code"], trial["why"]) for trial in document["trials"]] == [
        ("finished", 0, None),
        ("failed", 1, ["the disk is full"]),
        ("failed", 0, [f"{run_json}: has no eval_f1"]),
        ("failed", 2, ["--run_name refused: is refused", "--seed: too"]),
        ("failed", -9, ["it printed nothing"]),
        ("finished", 0, None),
    ]
    output = capsys.readouterr()
    assert output.err == f"note: 4 of 6 trials failed; {file.parent / 'sweep' / 'sweep.json'} has the reasons\n"
    assert (
        "trial 3: run_name=refused: failed with exit code 2: --run_name refused: is refused; --seed: too, "
        in output.out
    )
    assert document["best"] == 0  # the first of equals


def test_sweep_without_a_finished_trial_fails(write_sweep: WriteSweep) -> None:
    file = write_sweep(trials=1, options={"run_name": fake_trainer.CRASHES})
    with pytest.raises(RunError) as caught:
        run_worker(file)
    assert caught.value.problems == [f"no trial finished; {file.parent / 'sweep' / 'sweep.json'} has the reasons"]


def test_three_refusals_in_a_row_end_the_sweep(write_sweep: WriteSweep) -> None:
    file = write_sweep(trials=..., search={"run_name": ["fine", fake_trainer.REFUSED], "seed": [1, 2, 3, 4]})
    with pytest.raises(UserError) as caught:
        run_worker(file)
    prefix = "3 trials in a row were refused, the last one for: "
    assert caught.value.problems == [f"{prefix}--run_name refused: is refused", f"{prefix}--seed: too"]
    assert [trial["state"] for trial in read_report(file)["trials"]] == ["finished"] * 4 + ["failed"] * 3


def test_trial_stopped_by_somebody_else_is_resumed(write_sweep: WriteSweep) -> None:
    file = write_sweep(trials=1, options={"run_name": fake_trainer.STOPPED})
    for evaluated in (1, 2):
        with pytest.raises(Interrupted) as caught:
            run_worker(file)
        assert caught.value.problems == ["trial 0: its process was stopped; the same command resumes it"]
        assert caught.value.exit_code == 143
        trial = read_report(file)["trials"][0]
        assert trial["state"] == "waiting"
        assert len(trial["evaluations"]) == evaluated
    assert read_starts(file) == {"0000 0": 1, "0000 1": 1}


def test_interrupted_trial_that_fails_before_it_resumes(write_sweep: WriteSweep) -> None:
    file = write_sweep(trials=..., search={"run_name": ["fine", fake_trainer.UNLOADABLE]})
    interrupted = file.parent / "sweep" / "trials" / "0001" / "run.json"
    interrupted.parent.mkdir(parents=True)
    write_json(interrupted, {"status": "interrupted", "script": "run_qa_adapter.py", "options": {}})
    assert run_worker(file) == 0
    assert [(trial["state"], trial["exit_code"], trial["why"]) for trial in read_report(file)["trials"]] == [
        ("finished", 0, None),
        ("failed", 1, ["out of memory"]),
    ]


def test_trial_that_its_launcher_reports_as_failed_was_interrupted() -> None:
    before, after = (
        RunDocument(status="interrupted", script="run_qa_adapter.py", options={}, times=Times(seconds=seconds))
        for seconds in (1, 2)
    )
    assert was_stopped(1, before, after)
    assert was_stopped(1, UNKNOWN_RUN, after)
    assert not was_stopped(1, before, before)
    assert not was_stopped(2, before, after)
    assert was_stopped(143, before, before)


def test_poor_trials_are_pruned(write_sweep: WriteSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.5")  # time to prune before the next evaluation
    pruner = {"kind": "median", "n_startup_trials": 2, "n_warmup_steps": 1}
    file = write_sweep(trials=..., search={"seed": [8, 9, 1, 10]}, pruner=pruner)
    assert run_worker(file) == 0
    # Median of 8 and 9 after two evaluations, the first at which trials may be pruned: 28.5, above 21.
    assert [(trial["state"], len(trial["evaluations"]), trial["f1"]) for trial in read_report(file)["trials"]] == [
        ("finished", 4, 48.0),
        ("finished", 4, 49.0),
        ("pruned", 2, 21.0),
        ("finished", 4, 50.0),
    ]


def test_hyperband_prunes_as_optuna_alone_does(write_sweep: WriteSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.5")  # time to prune before the next evaluation
    pruner = {"kind": "hyperband", "min_resource": 1, "max_resource": 4, "reduction_factor": 4}
    file = write_sweep(trials=..., search={"seed": [5, 4, 3, 2]}, pruner=pruner)
    assert run_worker(file) == 0
    outcomes = [(trial["state"], len(trial["evaluations"])) for trial in read_report(file)["trials"]]
    study = optuna.create_study(
        study_name="sweep", direction="maximize", pruner=optuna.pruners.HyperbandPruner(1, 4, 4)
    )
    expected = []
    for seed in (5, 4, 3, 2):  # optuna alone, with the same values
        trial, evaluations = study.ask(), 0
        for evaluations in range(1, 5):
            trial.report(10.0 * evaluations + seed, evaluations - 1)
            if trial.should_prune():
                break
        pruned = evaluations < 4
        study.tell(trial, None if pruned else 40.0 + seed, TrialState.PRUNED if pruned else TrialState.COMPLETE)
        expected.append(("pruned" if pruned else "finished", evaluations))
    assert outcomes == expected
    assert {"pruned", "finished"} == {state for state, _ in outcomes}


def test_trial_waits_for_the_process_of_a_killed_worker(
    write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_sweep(trials=1)
    folder = file.parent / "sweep" / "trials" / "0000"
    folder.mkdir(parents=True)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path\n"
        "from adapter_qa.runs.lock import lock_run_dir\n"
        f"lock_run_dir(Path({str(folder)!r})); print('held', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as orphan:
        assert orphan.stdout is not None
        assert orphan.stdout.readline() == "held\n"
        assert is_locked(folder)
        worker = start_worker(file)
        read_lines_until(worker, f"trial 0: waiting for the process that still works in {folder}")
        assert not (folder.parent / "starts.txt").exists()
        assert orphan.stdin is not None
        orphan.stdin.close()
        read_lines_until(worker, "best: trial 0")
    assert worker.wait() == 0
    assert not is_locked(folder)
    assert (folder / LOCK_FILE).exists()


def test_no_trial_waits_on_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LOCK_FILE).write_text("", encoding="utf-8")
    monkeypatch.setattr("fcntl.lockf", Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    assert not is_locked(tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_stopped_worker_releases_its_trial_with_a_checkpoint(write_sweep: WriteSweep, number: int, code: int) -> None:
    file = write_sweep()
    worker = start_worker(file, seconds=1)
    read_lines_until(worker, "trial 0: evaluation 1")
    os.killpg(worker.pid, number)  # as a terminal does: all processes of the group
    last = read_lines_until(worker, "stopped: ")[-1]
    assert worker.wait() == code
    assert last == f"stopped: by {signal.Signals(number).name}; the same command resumes from what is done"
    assert [trial["state"] for trial in read_report(file)["trials"]] == ["waiting"]
    assert (file.parent / "sweep" / "trials" / "0000.log").read_text(encoding="utf-8").splitlines() == [
        "SIGTERM: saving a checkpoint after this step; a second signal stops at once",
        "stopped: by SIGTERM; the same command resumes from what is done",
    ]
    done = len(read_report(file)["trials"][0]["evaluations"])
    assert run_worker(file) == 0
    assert read_starts(file) == {"0000 0": 1, f"0000 {done}": 1, "0001 0": 1, "0002 0": 1}
    assert 0 < done < 4


def test_second_signal_does_not_wait_for_the_checkpoint(write_sweep: WriteSweep) -> None:
    file = write_sweep(trials=1)
    worker = start_worker(file, seconds=600)
    read_lines_until(worker, "trial 0 of 1")
    while not (file.parent / "sweep" / "trials" / "0000" / "run.json").exists():
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    read_lines_until(worker, "SIGTERM: saving a checkpoint after this step")
    log = file.parent / "sweep" / "trials" / "0000.log"
    while "SIGTERM: saving a checkpoint" not in log.read_text(encoding="utf-8"):
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait() == 143
    assert [trial["state"] for trial in read_report(file)["trials"]] == ["waiting"]


@pytest.mark.parametrize("storage", ["journal", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_twelve_trials_with_three_workers_one_of_them_killed(
    write_sweep: WriteSweep, tmp_path: Path, storage: str
) -> None:
    search = {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "seed": {"low": 1, "high": 1000}}
    file = write_sweep(trials=12, sampler="random", search=search)
    words = ["--lease", "3"] + (["--storage", f"sqlite:///{tmp_path / 'sweep.db'}"] if storage == "sqlite" else [])
    workers = [start_worker(file, *words, seconds=seconds) for seconds in (0.4, 1, 0.4)]  # the slow worker is killed
    victim = workers[1]
    lines = read_lines_until(victim, " of 12: ", " of 12: ", "evaluation 1, ")
    victim.send_signal(signal.SIGKILL)
    killed = int(lines[-1].split(":")[0].removeprefix("trial "))
    for worker in (workers[0], workers[2]):
        output, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0
        assert "best: trial " in output
    victim.communicate()

    trials = read_report(file)["trials"]
    assert [(trial["number"], trial["state"]) for trial in trials] == [(number, "finished") for number in range(12)]
    assert [trial["params"] for trial in trials] == first_trials(read_sweep(file), 12)
    assert len({str(trial["params"]) for trial in trials}) == 12
    assert [trial["f1"] for trial in trials] == [40.0 + trial["params"]["seed"] for trial in trials]
    starts = read_starts(file)
    assert [starts[f"{number:04d} 0"] for number in range(12)] == [1] * 12
    (resumed,) = set(starts) - {f"{number:04d} 0" for number in range(12)}
    # It was resumed from the checkpoint that its process saved when its worker was killed.
    assert resumed in (f"{killed:04d} 1", f"{killed:04d} 2")
    assert starts[resumed] == 1

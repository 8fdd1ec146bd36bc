"""What a worker prints when all trials are done."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path

import pytest
from optuna.trial import TrialState
from support.sweeps import FAKE, WriteSweep

from adapter_qa.sweeps import summary
from adapter_qa.sweeps.search_space import read_sweep
from adapter_qa.sweeps.study import TrialStore, open_storage


def finished_store(file: Path, folder: Path) -> TrialStore:
    """Three trials: finished, failed, finished and best."""
    store = TrialStore(read_sweep(file), folder, open_storage(folder, None), "a sweep", lease=60)
    for value in (40.25, None, 41.75):
        trial = store.claim()
        assert trial is not None
        trial.set_user_attr("seconds", 40.0)
        assert store.record_outcome(trial.number, TrialState.FAIL if value is None else TrialState.COMPLETE, value)
    return store


@pytest.fixture
def store(write_sweep: WriteSweep, tmp_path: Path) -> TrialStore:
    return finished_store(write_sweep(), tmp_path / "a sweep")


def test_summary(store: TrialStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    weights = {"learning_rate": 0.873, "seed": 0.127}
    result = {"evaluator": "PED-ANOVA", "trials": 2, "parameters": weights}
    monkeypatch.setattr(summary, "importance", lambda *_: result)
    monkeypatch.setattr(summary, "draw_trials", lambda *_: "no picture: why")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    summary.print_summary(store, FAKE)
    output = capsys.readouterr()
    assert output.err.splitlines() == [
        f"note: 1 of 3 trials failed; {store.folder}/sweep.json has the reasons",
        "note: no picture: why",
    ]
    *lines, again, title, ask, report = output.out.splitlines()
    assert lines == [
        "3 trials: 2 finished, 1 failed; 2 min 0 s of training",
        "importance for F1 (PED-ANOVA, 2 finished trials):",
        "  learning_rate   87%",
        "  seed            13%",
        f"report: {store.folder}/sweep.json",
        "best: trial 2, seed=3, F1 41.8",
        f"folder: {store.folder}/trials/0002",
    ]
    assert again.startswith("again: ")
    assert again.endswith(" --seed=3")
    assert (title, ask, report) == (
        "next:",
        f"""  python ask_qa.py '{store.folder}/trials/0002' --question "..." --context "...\"""",
        f"  python report_qa.py '{store.folder}/trials' --output_dir report",
    )


def test_a_cross_validation_is_not_asked(
    write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    file = write_sweep(options={"folds": 3, "validation_file": None, "do_eval": None})
    summary.print_summary(finished_store(file, tmp_path / "cv"), FAKE)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "next:",
        f"  python report_qa.py {tmp_path}/cv/trials --output_dir report",
    ]


def test_dashboard_is_named_where_it_is_installed(store: TrialStore, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = store.folder / "journal.log"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert summary.next_commands(store, store.folder)[-1] == f"optuna-dashboard '{journal}'"
    journal.unlink()  # the trials are in a database
    assert not any(line.startswith("optuna-dashboard") for line in summary.next_commands(store, store.folder))


@pytest.mark.skipif(importlib.util.find_spec("optuna_dashboard") is None, reason="optuna-dashboard is not installed")
def test_dashboard_finds_the_study(store: TrialStore) -> None:
    from optuna_dashboard._storage_url import get_storage  # what its command line calls

    _, argument = shlex.split(summary.next_commands(store, store.folder)[-1])
    (study,) = get_storage(argument).get_all_studies()
    assert study.study_name == "a sweep"

"""Trials in the storage: their parameters and owners, and that none is lost or done twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from support.sweeps import WriteSweep, run_worker

import sweep_qa
from adapter_qa.core.errors import RunError, UserError
from adapter_qa.sweeps import study
from adapter_qa.sweeps.search_space import read_sweep
from adapter_qa.sweeps.study import TrialStore, first_trials, open_storage, study_name

MakeStores = Callable[[int], list[TrialStore]]


@pytest.fixture(params=["journal", "sqlite"])
def stores(request: pytest.FixtureRequest, write_sweep: WriteSweep, tmp_path: Path) -> MakeStores:
    """Return a function that opens one sweep of three trials for several workers, each with its own storage object."""
    url = f"sqlite:///{tmp_path / 'sweep.db'}" if request.param == "sqlite" else None
    sweep = read_sweep(write_sweep())
    return lambda count: [
        TrialStore(sweep, tmp_path / "sweep", open_storage(tmp_path / "sweep", url), "sweep", lease=60)
        for _ in range(count)
    ]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace the monotonic clock of all workers; the list's only element is the time."""
    now = [1000.0]
    monkeypatch.setattr("adapter_qa.sweeps.study.time.monotonic", lambda: now[0])
    return now


def states(store: TrialStore) -> list[TrialState]:
    return [trial.state for trial in store.trials()]


def test_parameters_depend_on_seed_and_number_only(write_sweep: WriteSweep) -> None:
    space = {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}
    drawn = {
        seed: first_trials(read_sweep(write_sweep(trials=9, sampler="random", seed=seed, search=space)), 9)
        for seed in (1, 2)
    }
    again = first_trials(read_sweep(write_sweep(trials=4, sampler="random", seed=1, search=space)), 9)
    assert again == drawn[1][:4]  # a larger sweep begins with the same trials
    values = [params["learning_rate"] for params in (*drawn[1], *drawn[2])]
    assert len(set(values)) == 18


def test_smaller_loss_is_better(write_sweep: WriteSweep) -> None:
    sweep = read_sweep(write_sweep(metric="eval_loss"))
    store = TrialStore(sweep, Path("unused"), optuna.storages.InMemoryStorage(), "loss", 60)
    for value in (2.0, 1.0, 3.0):
        trial = store.claim()
        assert trial is not None
        assert store.record_outcome(trial.number, TrialState.COMPLETE, value)
    best = store.best()
    assert best is not None
    assert (best.number, best.value, store.study.best_trial.number) == (1, 1.0, 1)


def test_storage_error_is_reported_in_one_line() -> None:
    with pytest.raises(RunError) as caught, study.report_storage_errors():
        raise optuna.exceptions.StorageInternalError("gone away\nand more")
    assert caught.value.problems == ["the storage failed (gone away); the same command resumes the sweep"]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense", "cannot be opened (Could not parse SQLAlchemy URL from given URL string); give a URL such as "
        "mysql+pymysql://USER@HOST/DATABASE"),
        ("oracle://user:secret@host/db", "the driver of oracle is not installed; install it with pip"),
    ],
)  # fmt: skip
def test_storage_that_cannot_be_opened(write_sweep: WriteSweep, url: str, why: str) -> None:
    with pytest.raises(UserError) as caught:
        run_worker(write_sweep(), "--storage", url)
    assert caught.value.problems == [f"--storage: {why}"]


def test_folder_that_cannot_be_written(write_sweep: WriteSweep, tmp_path: Path) -> None:
    file = write_sweep()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        sweep_qa.main([str(file), "--output_dir", str(tmp_path / "file" / "sweep")])
    assert caught.value.problems == [
        f"--output_dir {tmp_path / 'file' / 'sweep'}: cannot be written (Not a directory); give another folder"
    ]


def test_each_trial_is_claimed_once(stores: MakeStores) -> None:
    first, second = stores(2)
    claimed = [store.claim() for store in (first, second, first, second, first)]
    assert [trial.number if trial else None for trial in claimed] == [0, 1, 2, None, None]
    assert not first.all_done()
    # Two workers have seen the same free number: the second worker's trial is superfluous and is not run.
    second.trials = list  # type: ignore[method-assign]
    assert second.claim() is None
    assert [trial.state for trial in first.study.trials] == [TrialState.RUNNING] * 3 + [TrialState.WAITING]
    for store, number in ((first, 0), (first, 2)):
        assert store.record_outcome(number, TrialState.COMPLETE, 1.0)
    assert not first.record_outcome(1, TrialState.COMPLETE, 1.0)  # the other worker's
    del second.trials
    assert second.record_outcome(1, TrialState.FAIL, why=["x"])
    assert first.all_done()
    assert second.all_done()
    assert first.claim() is None


def test_trial_of_a_dead_worker_keeps_parameters_and_evaluations(
    stores: MakeStores, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    dead, first, second = stores(3)
    abandoned = dead.claim()
    assert abandoned is not None
    abandoned.report(11.0, 0)
    running = first.claim()
    assert running is not None
    assert running.number == 1
    for elapsed in range(0, 61, 10):  # within the lease, by this worker's clock
        clock[0] = 1000.0 + elapsed
        first.requeue_abandoned()
        assert states(first) == [TrialState.RUNNING] * 2
    clock[0] = 1061.0
    assert first.renew_lease(running)
    assert states(second) == [TrialState.WAITING, TrialState.RUNNING]
    assert capsys.readouterr().err == f"note: trial 0: {dead.worker} does not respond; another worker resumes it\n"
    claimed = second.claim()
    assert claimed is not None
    assert (claimed.number, claimed.params) == (0, abandoned.params)
    assert second.trials()[0].intermediate_values == {0: 11.0}
    # The first owner was only delayed: it sees that the trial is another worker's, and does not change it.
    assert not dead.renew_lease(abandoned)
    assert not dead.record_outcome(0, TrialState.COMPLETE, 1.0)
    dead.release(0)
    assert states(first) == [TrialState.RUNNING] * 2
    assert second.owns(0)


def test_renewed_lease_is_respected(stores: MakeStores, clock: list[float]) -> None:
    first, second = stores(2)
    trial = first.claim()
    assert trial is not None
    for _ in range(20):
        clock[0] += 30
        assert first.renew_lease(trial)
        second.requeue_abandoned()
    assert states(second) == [TrialState.RUNNING]


def test_delayed_worker_does_not_take_trials_of_others(stores: MakeStores, clock: list[float]) -> None:
    first, second = stores(2)
    trial = first.claim()
    assert trial is not None
    second.requeue_abandoned()
    clock[0] += 100  # e.g. both wait for the journal, which a killed worker has locked
    second.requeue_abandoned()
    assert first.renew_lease(trial)
    clock[0] += 20
    second.requeue_abandoned()
    assert states(second) == [TrialState.RUNNING]


def test_trial_without_a_lease_is_requeued(stores: MakeStores, clock: list[float]) -> None:
    first, second = stores(2)
    unsigned = first.study.ask()  # no lease, no parameters yet
    for _ in range(8):
        second.requeue_abandoned()
        clock[0] += 10
    claimed = second.claim()
    assert claimed is not None
    assert (claimed.number, claimed.params) == (unsigned.number, {"seed": 1})


def test_name_of_the_study(write_sweep: WriteSweep, tmp_path: Path) -> None:
    sweep = read_sweep(write_sweep())
    folder, renamed = tmp_path / "first", tmp_path / "renamed"
    journal = open_storage(folder, None)
    assert study_name(journal, folder) == "first"
    TrialStore(sweep, folder, journal, "first", 60)
    assert study_name(journal, renamed) == "first"
    assert study_name(journal, tmp_path / "first") == "first"
    TrialStore(sweep, renamed, journal, "renamed", 60)  # as earlier versions did after a folder was renamed
    assert study_name(journal, renamed) == "renamed"
    assert study_name(journal, tmp_path / "other") == "first"
    database = open_storage(folder, f"sqlite:///{tmp_path / 'sweeps.db'}")
    TrialStore(sweep, folder, database, "first", 60)
    assert study_name(database, renamed) == "renamed"  # it holds the studies of many folders

"""The importance of parameters and the picture of trials."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from PIL import Image
from support.sweeps import WriteSweep

from adapter_qa.sweeps import analysis
from adapter_qa.sweeps.search_space import read_sweep
from adapter_qa.sweeps.study import TrialStore

SEARCH = {
    "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
    "weight_decay": {"low": 0.0, "high": 0.1},
    "setup": {"choices": {"a $x_$": {}, "b $^$": {}}},
    "seed": [1],
}


def run_trials(write_sweep: WriteSweep, count: int, metric: str = "f1", weight: float = 1e5) -> TrialStore:
    """Return a store of finished trials whose metric is a constant plus `weight` times the learning rate."""
    sweep = read_sweep(write_sweep(trials=count, sampler="random", metric=metric, search=SEARCH))
    store = TrialStore(sweep, Path("unused"), InMemoryStorage(), "sweep", 60)
    for _ in range(count):
        trial = store.claim()
        assert trial is not None
        assert store.record_outcome(trial.number, TrialState.COMPLETE, 1 + weight * trial.params["learning_rate"])
    return store


@pytest.mark.parametrize("metric", ["f1", "loss"])
def test_importance_of_the_only_parameter_with_an_effect(write_sweep: WriteSweep, metric: str) -> None:
    store = run_trials(write_sweep, 30, metric)
    result = analysis.importance(store.trials(), store.sweep)
    assert result is not None
    assert (result["evaluator"], result["trials"]) == ("PED-ANOVA", 30)
    first, *others = result["parameters"].items()  # seed is not varied
    assert first[0] == "learning_rate"
    assert first[1] > 0.7
    assert sorted(name for name, _ in others) == ["setup", "weight_decay"]
    assert sum(result["parameters"].values()) == pytest.approx(1)


@pytest.mark.parametrize(("count", "weight"), [(4, 1.0), (9, 0.0)], ids=["few trials", "equal metrics"])
def test_no_importance_without_evidence(write_sweep: WriteSweep, count: int, weight: float) -> None:
    store = run_trials(write_sweep, count, weight=weight)
    assert analysis.importance(store.trials(), store.sweep) is None


@pytest.mark.parametrize(("metric", "bad", "good"), [("f1", 0.0, 70.0), ("loss", 9.0, 1.0)])
def test_no_importance_if_the_best_tenth_is_as_good_as_all(
    write_sweep: WriteSweep, recwarn: pytest.WarningsRecorder, metric: str, bad: float, good: float
) -> None:
    sweep = read_sweep(write_sweep(trials=30, sampler="random", metric=metric, search=SEARCH))
    store = TrialStore(sweep, Path("unused"), InMemoryStorage(), "sweep", 60)
    for number in range(30):
        trial = store.claim()
        assert trial is not None
        assert store.record_outcome(trial.number, TrialState.COMPLETE, good if number < 2 else bad)
    recwarn.clear()
    assert analysis.importance(store.trials(), sweep) is None  # the third of the best is as bad as the others
    assert list(recwarn) == []


def test_no_importance_of_a_single_parameter(write_sweep: WriteSweep) -> None:
    store = run_trials(write_sweep, 9)
    one = read_sweep(write_sweep(trials=9, sampler="random", search={"learning_rate": SEARCH["learning_rate"]}))
    assert analysis.importance(store.trials(), store.sweep) is not None
    assert analysis.importance(store.trials(), one) is None


def test_picture(write_sweep: WriteSweep, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    store = run_trials(write_sweep, 2)
    path = tmp_path / "trials.png"
    recwarn.clear()
    assert analysis.draw_trials(store.trials(), store.sweep, path, "me") is None
    with Image.open(path) as image:
        assert image.size[0] > 1.5 * image.size[1]
        colours = image.convert("RGB").getcolors(1 << 24)
    assert len(colours or []) > 20
    assert list(tmp_path.glob("*.png*")) == [path]
    assert list(recwarn) == []


def test_no_picture(write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = run_trials(write_sweep, 2)
    path = tmp_path / "trials.png"
    reason = analysis.draw_trials(store.trials()[:1], store.sweep, path, "me")
    assert reason == "no picture of the trials: it needs two that finished"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    reason = analysis.draw_trials(store.trials(), store.sweep, path, "me")
    assert reason == 'no picture of the trials: matplotlib is not installed; pip install "adapter-qa[report]"'
    assert not path.exists()

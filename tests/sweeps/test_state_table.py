"""The table of a sweep's trials: what it shows, that it fits the screen, and the estimate of the time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from support.sweeps import WriteSweep

from adapter_qa.sweeps.search_space import Sweep, read_sweep
from adapter_qa.sweeps.state_table import state_table, time_left, totals

NOW = datetime(2026, 1, 1, 12)
SEARCH = {
    "learning_rate": [1e-4, 3e-4],
    "adapter_reduction_factor": [2, 16],
    "setup": {"choices": {"a": {}, "b b": {}}},
}
PARAMS = {"learning_rate": 0.00031234, "adapter_reduction_factor": 16, "setup": "b b"}


def trial(
    number: int,
    state: TrialState,
    evaluations: Sequence[float] = (),
    seconds: float = 0.0,
    params: dict[str, Any] = PARAMS,
) -> FrozenTrial:
    """Make a trial; one that runs was resumed after 10 seconds and has run for `seconds` since then."""
    running = state == TrialState.RUNNING
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=evaluations[-1] if state == TrialState.COMPLETE else None,
        datetime_start=NOW - timedelta(seconds=seconds if running else 1000),
        datetime_complete=NOW if state.is_finished() else None,
        params=params,
        distributions={name: CategoricalDistribution((value,)) for name, value in params.items()},
        user_attrs={"seconds": 10.0 if running else seconds},
        system_attrs={},
        intermediate_values=dict(enumerate(evaluations)),
    )


@pytest.fixture
def sweep(write_sweep: WriteSweep) -> Sweep:
    return read_sweep(write_sweep(trials=6, sampler="random", search=SEARCH))


TRIALS = [
    trial(0, TrialState.COMPLETE, [41.26, 44.18], 61),
    trial(1, TrialState.PRUNED, [20.04], 30),
    trial(2, TrialState.FAIL, [], 2),
    trial(3, TrialState.RUNNING, [43.0, 42.0], 25),
    trial(4, TrialState.WAITING, [], 0),
]


def test_table_at_80_columns(sweep: Sweep) -> None:
    assert state_table(TRIALS, sweep, NOW, os.terminal_size((80, 24))) == [
        "trial  state     evals    F1   time  learning_rate  adapter_reduction_f…  setup",
        "    0  finished      2  44.2  01:01       0.000312                    16    b b",
        "    1  pruned        1  20.0  00:30       0.000312                    16    b b",
        "    2  failed        0     -  00:02       0.000312                    16    b b",
        "    3  running       2  43.0  00:35       0.000312                    16    b b",
        "    4  waiting       0     -  00:00       0.000312                    16    b b",
        "3 of 6 done, 1 running, 1 failed; best F1 44.2 (trial 0); about 1 min 57 s left",
    ]


def test_names_are_whole_at_120_columns(sweep: Sweep) -> None:
    head, *_ = state_table(TRIALS, sweep, NOW, os.terminal_size((120, 24)))
    assert head == "trial  state     evals    F1   time  learning_rate  adapter_reduction_factor  setup"


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 60), (40, 10), (20, 5), (1, 1)])
def test_table_fits_the_screen(sweep: Sweep, columns: int, rows: int) -> None:
    trials = [trial(number, TrialState.COMPLETE, [float(number == 50)], 9) for number in range(100)]
    trials += [trial(100, TrialState.RUNNING, [], 9), trial(101, TrialState.RUNNING, [], 9)]
    lines = state_table(trials, sweep, NOW, os.terminal_size((columns, rows)))
    assert len(lines) <= max(rows - 2, 2)  # beside the empty line and that of the cursor
    assert all(len(line) < columns for line in lines)
    if rows >= 10:
        numbers = [int(line.split()[0]) for line in lines[1:-2]]
        count = min(16, rows - 5)
        assert numbers == [50, *range(103 - count, 102)]  # the best, and the latest
        assert lines[-2] == f"{102 - count} more: {102 - count} finished"


def test_smallest_loss_is_shown(write_sweep: WriteSweep) -> None:
    sweep = read_sweep(write_sweep(metric="loss", trials=3, sampler="random", search=SEARCH))
    trials = [trial(0, TrialState.RUNNING, [2.5, 0.051, 0.7]), trial(1, TrialState.COMPLETE, [0.3, 0.4])]
    lines = state_table(trials, sweep, NOW, os.terminal_size((120, 24)))
    assert [line.split()[3] for line in lines[:3]] == ["loss", "0.051", "0.40"]
    assert totals(trials, sweep, NOW).startswith("1 of 3 done, 1 running; best loss 0.40 (trial 1)")


def test_time_left(sweep: Sweep) -> None:
    finished, pruned = trial(0, TrialState.COMPLETE, [1.0], 100), trial(1, TrialState.PRUNED, [1.0], 20)
    running = trial(2, TrialState.RUNNING, [], 30)  # 40 s with its first attempt
    assert time_left([running], sweep, NOW) is None
    assert time_left([finished, pruned, running], sweep, NOW) == (100 - 40) + 3 * 60
    both = [finished, pruned, running, trial(3, TrialState.RUNNING, [], 0)]  # 10 s: both ended ones took longer
    assert time_left(both, sweep, NOW) == ((100 - 40) + (60 - 10) + 2 * 60) / 2
    assert time_left(both, sweep, NOW, idle=1) == ((100 - 40) + (60 - 10) + 2 * 60) / 3
    longest = [finished, *(trial(number, TrialState.COMPLETE, [1.0], 100) for number in range(1, 5)), running]
    assert time_left(longest, sweep, NOW, idle=5) == 60  # no worker can help the last trial
    overdue = [finished, *longest[1:5], trial(5, TrialState.RUNNING, [], 500)]
    assert time_left(overdue, sweep, NOW) == 0
    assert time_left([*longest[:5], trial(5, TrialState.COMPLETE, [1.0], 1)], sweep, NOW) is None

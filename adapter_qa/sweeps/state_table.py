"""The state of a sweep as a table that fits a terminal, and the time that is left."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from statistics import fmean
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm
from tqdm.utils import disp_trim

from adapter_qa.core.errors import escape_control_chars
from adapter_qa.core.readable import duration, metric_label, metric_value
from adapter_qa.sweeps.search_space import Sweep
from adapter_qa.sweeps.study import STATES, best_trial

MAX_TRIALS = 16  # rows of the table
OTHER_LINES = 5  # of the screen: the empty line above the table, its head, the omitted trials, the totals, the cursor's
SEPARATOR = "  "
FIXED = 5  # columns before those of the parameters


def state_table(trials: Sequence[FrozenTrial], sweep: Sweep, now: datetime, size: os.terminal_size) -> list[str]:
    """Return the lines of the table: trials, those that are omitted, and the totals.

    If the screen is too small for all trials, the running ones come first, then the best, then the latest.

    Args:
        trials: those that the study has so far.
        sweep: the sweep.
        now: local time, as in the study.
        size: of the screen.
    """
    best = best_trial(trials, sweep)
    space = max(min(MAX_TRIALS, size.lines - OTHER_LINES), 0)
    by_priority = sorted(
        trials, key=lambda trial: (trial.state != TrialState.RUNNING, trial is not best, -trial.number)
    )
    shown = sorted(by_priority[:space], key=lambda trial: trial.number)
    omitted = Counter(STATES[trial.state] for trial in by_priority[space:])
    lines = _rows(shown, sweep, now, size.columns - 1) if shown else []
    if omitted:
        lines.append(f"{omitted.total()} more: {', '.join(f'{number} {state}' for state, number in omitted.items())}")
    return [disp_trim(line, size.columns - 1) for line in [*lines, totals(trials, sweep, now)]]


def _rows(trials: Sequence[FrozenTrial], sweep: Sweep, now: datetime, columns: int) -> list[str]:
    """Return the head of the table and one line for each trial. Names of parameters are shortened to fit `columns`."""
    names = list(sweep.search)
    head = ["trial", "state", "evals", metric_label(sweep.metric), "time", *names]
    table = [
        [
            str(trial.number),
            STATES[trial.state],
            str(len(trial.intermediate_values)),
            _best_value(trial, sweep),
            tqdm.format_interval(seconds_spent(trial, now)),
            *(param_text(trial.params[name]) if name in trial.params else "" for name in names),
        ]
        for trial in trials
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    widths[:FIXED] = [max(width, len(name)) for width, name in zip(widths[:FIXED], head, strict=False)]
    longest = max(map(len, head))
    while longest > 1 and sum(_widened(widths, head, longest)) + len(SEPARATOR) * (len(head) - 1) > columns:
        longest -= 1
    widths = _widened(widths, head, longest)
    head = [name if len(name) <= width else f"{name[: width - 1]}…" for name, width in zip(head, widths, strict=True)]
    return [
        SEPARATOR.join(
            cell.ljust(width) if index == 1 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *table]
    ]


def _widened(widths: Sequence[int], head: Sequence[str], longest: int) -> list[int]:
    """Return the widths of columns whose names have at most `longest` characters."""
    return [max(width, min(len(name), longest)) for width, name in zip(widths, head, strict=True)]


def _best_value(trial: FrozenTrial, sweep: Sweep) -> str:
    """Return the metric after the training, or the best one so far; "-" before the first evaluation."""
    values = list(trial.intermediate_values.values()) if trial.state != TrialState.COMPLETE else [trial.value or 0.0]
    select = max if sweep.maximize else min
    return metric_value(sweep.metric, select(values)) if values else "-"


def param_text(value: Any) -> str:
    """Return the value of a parameter; floats have three digits."""
    return f"{value:.3g}" if isinstance(value, float) else escape_control_chars(value)


def totals(trials: Sequence[FrozenTrial], sweep: Sweep, now: datetime, *, idle: int = 0) -> str:
    """Return how many trials are done, the best one and the time left; for the arguments see `time_left`."""
    counts = Counter(trial.state for trial in trials)
    done = sum(trial.state.is_finished() for trial in trials)
    states = [f"{counts[state]} {STATES[state]}" for state in (TrialState.RUNNING, TrialState.FAIL) if counts[state]]
    best, left = best_trial(trials, sweep), time_left(trials, sweep, now, idle=idle)
    parts = [", ".join([f"{done} of {sweep.trials} done", *states])]
    if best is not None:
        parts.append(f"best {metric_label(sweep.metric)} {metric_value(sweep.metric, best.value or 0.0)}")
        parts[-1] += f" (trial {best.number})"
    if left is not None:
        parts.append(f"about {duration(left)} left")
    return "; ".join(parts)


def seconds_spent(trial: FrozenTrial, now: datetime) -> float:
    """Return how long a trial has trained, in all its attempts whose worker was not killed."""
    spent = float(trial.user_attrs.get("seconds", 0.0))
    if trial.state == TrialState.RUNNING and trial.datetime_start is not None:
        spent += max((now - trial.datetime_start).total_seconds(), 0.0)  # the clocks of two machines may differ
    return spent


def time_left(trials: Sequence[FrozenTrial], sweep: Sweep, now: datetime, *, idle: int = 0) -> float | None:
    """Estimate the seconds until the sweep ends.

    A trial is expected to take the mean time of the finished and pruned ones, a running trial that of those which took
    longer than it has taken so far.

    Args:
        trials: those that the study has so far.
        sweep: the sweep.
        now: local time, as in the study.
        idle: workers between two trials; there are as many others as running trials.

    Returns:
        None if no trial has finished, or nothing is left.
    """
    ended = [seconds_spent(trial, now) for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    started = [seconds_spent(trial, now) for trial in trials if not trial.state.is_finished()]
    if not ended or (not started and len(trials) == sweep.trials):
        return None
    rest = [fmean([seconds for seconds in ended if seconds > spent] or [spent]) - spent for spent in started]
    work = sum(rest) + (sweep.trials - len(trials)) * fmean(ended)
    workers = sum(trial.state == TrialState.RUNNING for trial in trials) + idle
    return max([work / max(workers, 1), *rest])

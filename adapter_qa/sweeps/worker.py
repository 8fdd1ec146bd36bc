"""Run the trials of a sweep, one after the other, each as a process of the trainer.

Any number of workers on any number of machines work on one sweep. A worker learns about a trial's progress from its
run.json only. It stops a trial with SIGTERM, after which the trainer saves a checkpoint: when the trial is pruned and
when the worker is stopped. If the worker is killed, the kernel sends that signal.
"""

from __future__ import annotations

import ctypes
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from optuna.trial import Trial, TrialState

from adapter_qa.core.errors import EXIT_BAD_INPUT, Interrupted, RunError, UserError
from adapter_qa.core.readable import count, duration, metric_label, metric_value
from adapter_qa.core.signals import SIGNALS, DeferredSignal
from adapter_qa.runs.layout import RUN_FILE, trial_folder
from adapter_qa.runs.lock import is_locked
from adapter_qa.runs.run_document import UNKNOWN_RUN, RunDocument, read_run_document
from adapter_qa.sweeps.live_display import LiveDisplay
from adapter_qa.sweeps.search_space import Sweep
from adapter_qa.sweeps.state_table import param_text
from adapter_qa.sweeps.study import TrialStore, first_trials

POLL = 0.5  # seconds between two checks of a trial's process
IDLE = 1.0  # seconds between two checks of the storage while other workers run the last trials
PR_SET_PDEATHSIG = 1  # linux/prctl.h
STOP_CODES = {code for number in SIGNALS for code in (128 + number, -number)}
MAX_REFUSALS_IN_A_ROW = 3
LOG_TAIL = 64 * 1024  # bytes at the end of a log that are searched for the reason of a failure

# Why a trial's process was stopped. This worker stopped it: the trial was pruned, the worker was stopped, or another
# worker took the trial over. Or somebody else did. None: the process ended by itself.
Stop = Literal["pruned", "stopped", "lost", "by somebody else"] | None


def _stop_with_parent() -> Callable[[], None] | None:
    """Return what a new process calls to get SIGTERM when this one ends; None on macOS, which has no such call."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def ask_for_signal() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))

    return ask_for_signal


class TrialProcess:
    """A process of the trainer whose output is appended to a log. Leaving its context stops the process."""

    def __init__(self, command: list[str], log: Path):
        self.log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,  # otherwise Ctrl-C would signal it twice: by the terminal and by the worker
                preexec_fn=_stop_with_parent(),  # noqa: PLW1509 - one system call, which needs no lock of another thread
            )

    def __enter__(self) -> TrialProcess:
        """Return the process."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the process if it is still running, and wait for its end."""
        if self._process.poll() is None:
            self.stop()
            self._process.wait()

    def wait(self, seconds: float | None) -> int | None:
        """Return the exit code; None if the process does not end in the given time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """Ask the process to save a checkpoint and to end."""
        self._process.send_signal(signal.SIGTERM)

    def failure_reasons(self) -> list[str]:
        """Return the `error:` lines that the process printed, or else its last line."""
        with self.log.open("rb") as stream:
            stream.seek(max(self._log_start, self.log.stat().st_size - LOG_TAIL))
            lines = stream.read().decode("utf-8", "replace").splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return errors or [line for line in lines if line.strip()][-1:] or ["it printed nothing"]


class Worker:
    """One of the processes that work on a sweep.

    Args:
        store: the trials.
        script: the trainer.
        interruption: records the signal that stops this worker; its context must be active.
        display: what it prints.
    """

    def __init__(self, store: TrialStore, script: Path, interruption: DeferredSignal, display: LiveDisplay):
        self.store = store
        self.sweep = store.sweep
        self.script = script
        self.interruption = interruption
        self.display = display

    def work(self) -> None:
        """Run trials until all trials of the sweep have ended, including those that other workers abandon.

        After a signal the current trial is released, and the method returns early.

        Raises:
            UserError: if several trials in a row were refused as bad input.
            Interrupted: if somebody else stopped a trial's process, or a second signal came.
        """
        refusals, waiting = 0, False
        self.store.write_report()
        while not self.store.all_done() and self.interruption.number is None:
            trial = self.store.claim()
            if trial is None:
                if not waiting:
                    self.display.print_event("no trial is free; waiting for the trials of other workers")
                waiting = True
                self.store.requeue_abandoned()
                self.display.refresh()
                time.sleep(IDLE)
                continue
            waiting = False
            try:
                refusals = refusals + 1 if self.run(trial) == EXIT_BAD_INPUT else 0
            finally:
                self.store.release(trial.number)
                self.store.write_report()
            if refusals == MAX_REFUSALS_IN_A_ROW:
                reasons = self.store.trials()[trial.number].user_attrs["why"]
                raise UserError(
                    [f"{refusals} trials in a row were refused, the last one for: {why}" for why in reasons]
                )
        self.store.write_report()

    def run(self, trial: Trial) -> int | None:
        """Run a trial and record its outcome.

        Returns:
            The exit code of its process; None if no process was started, or another worker took the trial over.
        """
        folder = trial_folder(self.store.folder, trial.number)
        if not self._wait_until_unlocked(trial, folder):
            return None
        log = folder.with_suffix(".log")
        self.display.print_event(
            f"trial {trial.number} of {self.sweep.trials}: {describe_params(trial.params)} (log: {log})"
        )
        before = read_run(folder)
        with TrialProcess(trial_command(self.sweep, self.script, folder, trial.params), log) as process:
            started = time.monotonic()
            code, stop = self._follow(trial, process, folder)
        if stop is None and was_stopped(code, before, read_run(folder)):
            stop = "by somebody else"
        seconds = trial.user_attrs.get("seconds", 0.0) + time.monotonic() - started
        return self._record(trial, process, code, stop, round(seconds, 1))

    def _wait_until_unlocked(self, trial: Trial, folder: Path) -> bool:
        """Wait for the process of a killed worker, which still saves a checkpoint. Return whether to start."""
        noted = False
        while is_locked(folder):
            if self.interruption.number is not None or not self.store.renew_lease(trial):
                return False
            if not noted:
                self.display.print_line(f"trial {trial.number}: waiting for the process that still works in {folder}")
            noted = True
            self.display.refresh()
            time.sleep(POLL)
        return self.interruption.number is None

    def _follow(self, trial: Trial, process: TrialProcess, folder: Path) -> tuple[int, Stop]:
        """Report evaluations to the study while a trial's process runs, and stop the process if there is a reason."""
        reported = len(self.store.trials()[trial.number].intermediate_values)
        stop: Stop = None
        while True:
            self.display.refresh()
            exit_code = process.wait(POLL)
            owned = self.store.renew_lease(trial)
            prune = False
            new = read_evaluations(folder, self.sweep.metric)[reported:] if owned and stop != "pruned" else []
            for value in new:
                trial.report(value, reported)  # optuna counts steps from 0, and so do the settings of its pruners
                reported += 1
                self.display.print_event(f"trial {trial.number}: evaluation {reported}, {self._metric_text(value)}")
                if exit_code is None and stop is None and trial.should_prune():
                    prune = True
                    break  # later evaluations must not count, so that timing does not decide what is pruned
            if exit_code is not None:
                return exit_code, stop
            if stop is None:
                stopped = self.interruption.number is not None
                stop = "lost" if not owned else "stopped" if stopped else "pruned" if prune else None
                if stop is not None:
                    process.stop()

    def _metric_text(self, value: float) -> str:
        return f"{metric_label(self.sweep.metric)} {metric_value(self.sweep.metric, value)}"

    def _record(self, trial: Trial, process: TrialProcess, code: int, stop: Stop, seconds: float) -> int | None:
        """Store and print a trial's outcome. For the returned value see `run`."""
        number = trial.number
        if stop == "lost" or not self.store.owns(number):
            self.display.note([f"trial {number}: another worker has taken it over"])
            return None
        trial.set_user_attr("seconds", seconds)
        folder = trial_folder(self.store.folder, number)
        run = read_run(folder)
        value = run.metrics.get("eval", {}).get(f"eval_{self.sweep.metric}")
        if code == 0 and isinstance(value, (int, float)) and math.isfinite(value):
            self.store.record_outcome(number, TrialState.COMPLETE, float(value), exit_code=code)
            result = self._metric_text(float(value))
        elif stop == "pruned":
            self.store.record_outcome(number, TrialState.PRUNED, exit_code=code)
            result = "pruned"
        elif stop == "stopped":
            return code
        elif stop == "by somebody else":
            raise Interrupted(signal.SIGTERM, f"trial {number}: its process was stopped; the same command resumes it")
        else:
            reasons = process.failure_reasons() if code else [f"{folder / RUN_FILE}: has no eval_{self.sweep.metric}"]
            self.store.record_outcome(number, TrialState.FAIL, exit_code=code, why=reasons)
            result = f"failed with exit code {code}: {'; '.join(reasons)}"
        evaluations = count(len(self.store.trials()[number].intermediate_values), "evaluation")
        state = f" [{self.display.totals()}]" if not self.display.on_terminal else ""
        self.display.print_line(
            f"trial {number}: {describe_params(trial.params)}: {result}, {evaluations}, {duration(seconds)}{state}"
        )
        return code


def was_stopped(code: int, before: RunDocument, after: RunDocument) -> bool:
    """Return whether a process was stopped by a signal.

    A launcher has an exit code of its own, but the trainer says so in run.json.

    Args:
        code: exit code of the process.
        before: run.json before the process started. One that did not change is of an earlier process.
        after: run.json now.
    """
    says_so = after != before and after.status == "interrupted"
    return code in STOP_CODES or (code not in (0, EXIT_BAD_INPUT) and says_so)


def trial_command(sweep: Sweep, script: Path, folder: Path | None, params: Mapping[str, Any]) -> list[str]:
    """Return the command line of a trial; without a folder the trainer derives one."""
    output_dir = ["--output_dir", str(folder)] if folder is not None else []
    return [*(sweep.launcher or [sys.executable]), str(script), *sweep.trainer_args(params), *output_dir]


def first_commands(sweep: Sweep, script: Path, folder: Path, count: int) -> list[list[str]]:
    """Return the command lines of the first trials."""
    return [
        trial_command(sweep, script, trial_folder(folder, number), params)
        for number, params in enumerate(first_trials(sweep, count))
    ]


def check_first_trial(sweep: Sweep, script: Path) -> None:
    """Run the first trial with --dry_run, to report bad options before the sweep starts.

    Raises:
        UserError: if the trainer refuses it.
        RunError: if the trainer fails for another reason.
    """
    args = sweep.trainer_args(first_trials(sweep, 1)[0])
    with (
        tempfile.TemporaryDirectory() as folder,
        TrialProcess([sys.executable, str(script), *args, "--dry_run"], Path(folder) / "log") as process,
    ):
        code = process.wait(None)
        reasons = process.failure_reasons()
    if code == EXIT_BAD_INPUT:
        raise UserError(reasons)
    if code != 0:
        raise RunError([f"a dry run of the first trial fails: {reason}" for reason in reasons])


def read_run(folder: Path) -> RunDocument:
    """Return run.json of a trial; `UNKNOWN_RUN` if it does not exist yet."""
    return read_run_document(folder) if (folder / RUN_FILE).is_file() else UNKNOWN_RUN


def read_evaluations(folder: Path, metric: str) -> list[float]:
    """Return the metric of every evaluation during a trial's training so far."""
    history = read_run(folder).history or []
    return [float(entry[f"eval_{metric}"]) for entry in history if f"eval_{metric}" in entry]


def describe_params(params: Mapping[str, Any]) -> str:
    """Return parameters in one line."""
    return " ".join(f"{name}={param_text(value)}" for name, value in params.items())

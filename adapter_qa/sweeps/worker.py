"""A worker of a sweep: takes trials one after the other, runs each as a process of the trainer, and tells what came of
it. Any number of workers on any number of machines work on one sweep.

A trial's process is followed through its run.json alone. It is asked to stop by SIGTERM, upon which the trainer saves a
checkpoint: when the trial is pruned, when the worker is stopped, and, by the kernel, when the worker is killed.
"""

from __future__ import annotations

import ctypes
import json
import math
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from optuna.trial import Trial, TrialState

from adapter_qa.core.errors import EXIT_BAD_INPUT, Interrupted, RunError, UserError, escape_control_chars
from adapter_qa.core.messages import log_note
from adapter_qa.core.signals import DeferredSignal
from adapter_qa.runs.run_record import RUN_FILE, is_locked
from adapter_qa.sweeps.search_space import Sweep
from adapter_qa.sweeps.study import SWEEP_FILE, TrialStore, first_trials, trial_folder

POLL = 0.5  # seconds between two looks at a trial's process
IDLE = 1.0  # seconds between two looks at the storage while others run the last trials
PR_SET_PDEATHSIG = 1  # linux/prctl.h
STOPPED = {128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM}
BAD_INPUTS_IN_A_ROW = 3
TAIL = 64 * 1024  # bytes of a log that are searched for the reason of a failure


@dataclass
class TrialOutcome:
    """How a trial's process ended.

    Attributes:
        exit_code: of the process; negative: the signal that killed it.
        stop: why it was asked to stop: "pruned", "stopped" (the worker was), "lost" (the trial is another's), or None.
        evaluations: how many there were.
        seconds: that this process took.
    """

    exit_code: int
    stop: str | None
    evaluations: int
    seconds: float


class Worker:
    """One of the processes that work on a sweep.

    Args:
        book: the trials.
        script: the trainer.
        interruption: entered; a signal that came is kept in it.
    """

    def __init__(self, book: TrialStore, script: Path, interruption: DeferredSignal):
        self.book = book
        self.sweep = book.sweep
        self.script = script
        self.interruption = interruption

    def work(self) -> None:
        """Takes and runs trials until every trial has come to its end, others' included: what another worker leaves
        behind is taken up. Returns early at a signal, its trial given back.

        Raises:
            UserError: trials in a row were refused as bad input.
            Interrupted: a trial's process was stopped by somebody else, or a second signal came.
        """
        refused, waiting = 0, False
        self.book.write_report()
        while not self.book.all_done() and self.interruption.number is None:
            trial = self.book.claim()
            if trial is None:
                if not waiting:
                    print("no trial is free; waiting for those of other workers", flush=True)
                waiting = True
                self.book.free_abandoned()
                time.sleep(IDLE)
                continue
            waiting = False
            try:
                refused = refused + 1 if self.run(trial) == EXIT_BAD_INPUT else 0
            finally:
                self.book.release(trial.number)
                self.book.write_report()
            if refused == BAD_INPUTS_IN_A_ROW:
                why = self.book.trials()[trial.number].user_attrs["why"]
                raise UserError([f"{refused} trials in a row were refused, the last one for: {one}" for one in why])
        self.book.write_report()

    def run(self, trial: Trial) -> int | None:
        """Runs a trial and tells what came of it.

        Returns:
            Its process's exit code; None if there was none, or the trial is no longer this worker's.
        """
        folder = trial_folder(self.book.folder, trial.number)
        if not self.wait_until_free(trial, folder):
            return None
        log = folder.with_suffix(".log")
        print(
            escape_control_chars(f"trial {trial.number} of {self.sweep.trials}: {in_words(trial.params)} (log: {log})"),
            flush=True,
        )
        start = log.stat().st_size if log.exists() else 0
        process = begin(trial_command(self.sweep, self.script, folder, trial.params), log)
        try:
            ending = self.follow(trial, process, folder)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait()
        return self.record(trial, ending, folder, partial(reasons, log, start))

    def wait_until_free(self, trial: Trial, folder: Path) -> bool:
        """Waits for the process that a killed worker has left behind, which is saving a checkpoint.

        Returns:
            Whether the trial may begin; not if it has become another's, or this worker is to stop.
        """
        told = False
        while is_locked(folder):
            if self.interruption.number is not None or not self.book.keep(trial):
                return False
            if not told:
                print(
                    f"trial {trial.number}: waiting for the process at work in {escape_control_chars(folder)}",
                    flush=True,
                )
            told = True
            time.sleep(POLL)
        return self.interruption.number is None

    def follow(self, trial: Trial, process: subprocess.Popen[bytes], folder: Path) -> TrialOutcome:
        """Reports evaluations while a trial's process runs, and asks it to stop where there is a reason."""
        began = time.monotonic()
        known = len(self.book.trials()[trial.number].intermediate_values)
        stop: str | None = None
        while True:
            code = wait_for(process, POLL)
            ours = self.book.keep(trial)
            fresh = list(enumerate(evaluations(folder, self.sweep.metric)))[known:]
            reason = None if ours else "lost"
            if reason is None and self.interruption.number is not None:
                reason = "stopped"
            while fresh and ours and stop != "pruned":  # one at a time: what is pruned is no matter of timing
                step, value = fresh.pop(0)
                trial.report(value, step)  # optuna's steps begin at 0, its pruners' settings count on it
                print(f"trial {trial.number}: evaluation {step + 1}, {self.sweep.metric} {value:.4g}", flush=True)
                known += 1
                if code is None and stop is None and trial.should_prune():
                    reason = reason or "pruned"
                    break
            if code is not None:
                return TrialOutcome(code, stop, known, time.monotonic() - began)
            if stop is None and reason is not None:
                stop = reason
                process.send_signal(signal.SIGTERM)

    def record(self, trial: Trial, ending: TrialOutcome, folder: Path, why: Callable[[], list[str]]) -> int | None:
        """Tells the study what came of a trial, and prints it.

        Args:
            trial, ending, folder: the trial, its process's end and its folder.
            why: reads the reason of a failure.

        Returns:
            The exit code; None if the trial is no longer this worker's.

        Raises:
            Interrupted: its process was stopped by a signal that this worker did not send.
        """
        number, code = trial.number, ending.exit_code
        run = read_run(folder)
        if ending.stop == "lost" or not self.book.still_ours(number):
            log_note([f"trial {number}: another worker has taken it over"])
            return None
        seconds = round(trial.user_attrs.get("seconds", 0.0) + ending.seconds, 1)
        trial.set_user_attr("seconds", seconds)
        value = run.get("metrics", {}).get("eval", {}).get(f"eval_{self.sweep.metric}")
        if code == 0 and isinstance(value, (int, float)) and math.isfinite(value):
            self.book.close(number, TrialState.COMPLETE, float(value), exit_code=code)
            what = f"{self.sweep.metric} {value:.4g}"
        elif ending.stop == "pruned":
            self.book.close(number, TrialState.PRUNED, exit_code=code)
            what = "pruned"
        elif ending.stop == "stopped":
            return code
        elif code in STOPPED or (code not in (0, EXIT_BAD_INPUT) and run.get("status") == "interrupted"):
            raise Interrupted(
                signal.SIGTERM, f"trial {number}: its process was stopped; the same command goes on with it"
            )
        else:
            lines = why() if code != 0 else [f"{folder / RUN_FILE}: holds no eval_{self.sweep.metric}"]
            self.book.close(number, TrialState.FAIL, exit_code=code, why=lines)
            what = f"failed with exit code {code}: {'; '.join(lines)}"
        done = sum(one.state.is_finished() for one in self.book.trials())
        taken = f"{ending.evaluations} evaluation{'s' if ending.evaluations != 1 else ''}, {seconds:.0f} s"
        print(
            escape_control_chars(
                f"trial {number}: {in_words(trial.params)}: {what}, {taken} [{done}/{self.sweep.trials}]"
            ),
            flush=True,
        )
        return code


def trial_command(sweep: Sweep, script: Path, folder: Path | None, params: dict[str, Any]) -> list[str]:
    """The command line of a trial; without a folder the trainer derives one."""
    words = ["--output_dir", str(folder)] if folder is not None else []
    return [*(sweep.launcher or [sys.executable]), str(script), *sweep.words(params), *words]


def first_commands(sweep: Sweep, script: Path, folder: Path, count: int) -> list[list[str]]:
    """The command lines of the first trials."""
    return [
        trial_command(sweep, script, trial_folder(folder, number), params)
        for number, params in enumerate(first_trials(sweep, count))
    ]


def probe(sweep: Sweep, script: Path) -> None:
    """A dry run of the first trial, before there is any: what every trial would be refused for ends the sweep here.

    Raises:
        UserError: what the trainer says of it.
        RunFailure: it fails otherwise.
    """
    words = sweep.words(first_trials(sweep, 1)[0])
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as stream:
            command = [sys.executable, str(script), *words, "--dry_run"]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, check=False)
        if done.returncode == EXIT_BAD_INPUT:
            raise UserError(reasons(log, 0))
        if done.returncode != 0:
            raise RunError([f"a dry run of the first trial fails: {one}" for one in reasons(log, 0)])


def begin(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts a trial's process, its output at the end of a log.

    It is of a session of its own, so that Ctrl-C in a terminal does not reach it beside this worker's one signal, which
    would be the second one. The kernel sends it SIGTERM should this process be killed.
    """
    with log.open("ab") as stream:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            # One system call, and no other thread of ours holds a lock that it could need.
            preexec_fn=partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, int(signal.SIGTERM)),  # noqa: PLW1509
        )


def wait_for(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Exit code of a process that ends within some seconds, else None."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def read_run(folder: Path) -> dict[str, Any]:
    """run.json of a trial; empty if there is none yet."""
    try:
        return dict(json.loads((folder / RUN_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def evaluations(folder: Path, metric: str) -> list[float]:
    """What each evaluation of a training has measured so far."""
    history = read_run(folder).get("history", [])
    return [float(entry[f"eval_{metric}"]) for entry in history if f"eval_{metric}" in entry]


def reasons(log: Path, start: int) -> list[str]:
    """Why a process failed, from what it has printed since byte `start`: its `error:` lines, or else the last line."""
    with log.open("rb") as stream:
        stream.seek(max(start, log.stat().st_size - TAIL))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return told or [line for line in lines if line.strip()][-1:] or ["it printed nothing"]


def in_words(params: dict[str, Any]) -> str:
    """Parameters in a line."""
    return " ".join(
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )


def conclude(book: TrialStore, script: Path) -> None:
    """Prints the best trial and the command that does it again.

    Raises:
        RunFailure: no trial came to a value.
    """
    best = book.best()
    failed = [one for one in book.trials() if one.state == TrialState.FAIL]
    if failed:
        log_note([f"{len(failed)} of {book.sweep.trials} trials failed; {book.folder / SWEEP_FILE} says why"])
    if best is None:
        raise RunError(f"no trial was finished; {book.folder / SWEEP_FILE} has all of them")
    print(
        escape_control_chars(
            f"best: trial {best.number}, {in_words(best.params)}, {book.sweep.metric} {best.value:.4g}"
        )
    )
    print(escape_control_chars(f"folder: {trial_folder(book.folder, best.number)}"))
    print(
        escape_control_chars(f"again: {shlex.join(trial_command(book.sweep, script, None, best.params))}"), flush=True
    )

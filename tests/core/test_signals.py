"""Signals that are raised at once or deferred (adapter_qa/core/signals.py)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from adapter_qa.core.errors import Interrupted
from adapter_qa.core.signals import SIGNALS, DeferredSignal, WorkerInit, raise_on_signal


@pytest.fixture(autouse=True)
def _restore_handlers() -> Iterator[None]:
    """Restore the signal handlers after each test."""
    before = [signal.getsignal(number) for number in SIGNALS]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup starts programs that ignore it
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signals_raise_at_once_and_handlers_are_restored(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, raise_on_signal():
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == code
    assert caught.value.problems == [f"by {number.name}; the same command resumes from what is done"]
    assert signal.getsignal(number) is before


def test_handlers_that_are_not_pythons_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """`getsignal` returns None for them, and `signal` does not take that as a handler."""
    before = [signal.getsignal(number) for number in SIGNALS]
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    with raise_on_signal():
        monkeypatch.undo()
        assert [signal.getsignal(number) for number in SIGNALS] == before


def test_first_signal_is_deferred_and_second_raises(capfd: pytest.CaptureFixture[str]) -> None:
    def send_two() -> None:
        with raise_on_signal(), DeferredSignal() as deferred:
            os.kill(os.getpid(), signal.SIGTERM)
            assert deferred.number == signal.SIGTERM
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        send_two()
    assert caught.value.exit_code == 130
    assert capfd.readouterr().err == "SIGTERM: saving a checkpoint after this step; a second signal stops at once\n"


def test_several_processes_agree_on_a_step(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Interrupted), DeferredSignal():
        os.kill(os.getpid(), signal.SIGTERM)
    error = "SIGTERM: saving a checkpoint after a step on which the processes agree; a second signal stops at once\n"
    assert capfd.readouterr().err == error


def test_unhandled_deferred_signal_raises_at_the_end() -> None:
    with pytest.raises(Interrupted) as caught, DeferredSignal():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.exit_code == 143

    def fail_after_signal() -> None:
        with DeferredSignal():
            os.kill(os.getpid(), signal.SIGTERM)
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        fail_after_signal()


def test_ignored_signals_stay_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with raise_on_signal(), DeferredSignal() as deferred:
        os.kill(os.getpid(), signal.SIGINT)
        assert deferred.number is None


def test_forked_processes_do_not_raise() -> None:
    with raise_on_signal(), DeferredSignal():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_workers_ignore_signals_except_sigterm_of_the_parent() -> None:
    ready, report = os.pipe()
    worker = os.fork()
    if worker == 0:
        WorkerInit(lambda number: None)(0)
        WorkerInit(None)(0)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        time.sleep(0.1)  # SIGTERM is taken by a thread
        os.write(report, b".")
        time.sleep(600)
    assert os.read(ready, 1) == b"."
    os.kill(worker, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0


def test_previous_worker_init_fn_is_called() -> None:
    called: list[int] = []
    child = os.fork()
    if child == 0:
        WorkerInit(called.append)(3)
        os._exit(called[0])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3

"""What ends a run, told in a line (adapter_qa/core/resource_errors.py): memory, disk, numbers; and signals (interruption.py)."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from adapter_qa.core.errors import Interrupted, RunError, UserError
from adapter_qa.core.resource_errors import nan_loss_error, report_resource_errors, write_error_reason
from adapter_qa.core.signals import DeferredSignal, WorkerInit, raise_on_signal


def failure(error: BaseException) -> str:
    with pytest.raises(RunError) as caught, report_resource_errors():
        raise error
    (problem,) = caught.value.problems
    assert caught.value.exit_code == 1 and caught.value.__cause__ is error
    return problem


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0"), "CUDA out of memory. Tried"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), "[enforce fail] DefaultCPU"),
    ],
)
def test_out_of_memory_names_the_options_that_help(error: BaseException, reason: str) -> None:
    problem = failure(error)
    assert problem.startswith(f"out of memory ({reason}")
    for option in ("per_device_train_batch_size", "gradient_accumulation_steps", "max_seq_length", "block_size",
                   "per_device_eval_batch_size", "gradient_checkpointing", "bf16", "fp16"):  # fmt: skip
        assert f"--{option}" in problem


def test_memory_that_there_is_not() -> None:
    with pytest.raises(RunError, match="out of memory .*can't allocate memory"), report_resource_errors():
        torch.empty(10**15)


def test_errors_of_the_system_name_the_file() -> None:
    problem = failure(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "outputs/run/run.json.writing"))
    assert problem == (
        "outputs/run/run.json.writing: No space left on device; mend that and give the same command, it goes on"
    )


@pytest.mark.parametrize(
    "error",
    [RuntimeError("size mismatch"), OSError("a library's own"), ValueError("x"), UserError("x"), KeyboardInterrupt()],
)
def test_other_errors_stay_what_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, report_resource_errors():
        raise error
    assert caught.value is error


def test_reason_of_a_write_that_failed(tmp_path: Path) -> None:
    assert write_error_reason(OSError(errno.EROFS, "Read-only file system"), tmp_path) == "Read-only file system"
    assert write_error_reason(RuntimeError("iostream error\nmore"), tmp_path / "gone") == "No such file or directory"
    assert write_error_reason(RuntimeError("iostream error\nmore"), tmp_path) == "iostream error"


def test_what_to_try_when_the_loss_is_no_number() -> None:
    problems = [
        nan_loss_error(12, learning_rate=0.1, max_grad_norm=1.0, fp16=fp16).problems[0] for fp16 in (False, True)
    ]
    for problem in problems:
        assert problem.startswith("step 12: the loss is infinite or no number;")
        assert "--learning_rate (now 0.1)" in problem and "--max_grad_norm (now 1.0)" in problem
    assert ["--bf16" in problem for problem in problems] == [False, True]


# ---------------------------------------------------------------- signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Whatever a test does, the handlers before it are those after it."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_stop_at_once_and_handlers_come_back(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, raise_on_signal():
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == code
    assert caught.value.problems == [f"by {number.name}; the same command goes on from what is done"]
    assert signal.getsignal(number) is before


def test_the_first_signal_waits_and_the_second_does_not(capfd: pytest.CaptureFixture[str]) -> None:
    interruption = DeferredSignal()
    with pytest.raises(Interrupted) as caught, raise_on_signal(), interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.number == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)
    assert caught.value.exit_code == 130
    assert capfd.readouterr().err == "SIGTERM: saving a checkpoint after this step; once more stops at once\n"


def test_a_signal_that_nobody_acted_on_stops_at_the_end() -> None:
    with pytest.raises(Interrupted) as caught, DeferredSignal():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.exit_code == 143
    with pytest.raises(ValueError, match="first"), DeferredSignal():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("first")


def test_ignored_signals_stay_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with raise_on_signal(), DeferredSignal() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.number is None


def test_processes_forked_from_the_owner_leave_it_the_signal() -> None:
    with raise_on_signal(), DeferredSignal():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_workers_leave_signals_to_the_process_that_trains_and_obey_it() -> None:
    ready, tell = os.pipe()
    worker = os.fork()
    if worker == 0:
        WorkerInit(lambda number: None)(0)
        WorkerInit(None)(0)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        time.sleep(0.1)  # SIGTERM is taken by a thread
        os.write(tell, b".")
        time.sleep(600)
    assert os.read(ready, 1) == b"."
    os.kill(worker, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0


def test_workers_still_do_what_they_did() -> None:
    called: list[int] = []
    child = os.fork()
    if child == 0:
        WorkerInit(called.append)(3)
        os._exit(called[0])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3

"""Handling of SIGTERM, SIGINT (Ctrl-C) and SIGHUP (closed terminal): raised at once, or deferred while a model trains.

The trainer looks at a deferred signal after each step and saves a checkpoint.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from adapter_qa.core.distributed import process_count
from adapter_qa.core.errors import Interrupted

# Windows, which the scripts refuse later, has no SIGHUP.
SIGNALS = tuple(number for number in signal.Signals if number.name in ("SIGTERM", "SIGINT", "SIGHUP"))
CLEAR_LINE = "\r\x1b[K"  # of a terminal (ECMA-48: carriage return, erase in line)


@contextmanager
def _handle_signals(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle `SIGNALS`. Ignored ones (nohup) stay ignored. Outside the main thread, Python allows no handlers.

    A handler that was installed in C, as servers do that embed Python, stays too: Python could not restore it.
    """
    is_main = threading.current_thread() is threading.main_thread()
    numbers = [number for number in SIGNALS if is_main and signal.getsignal(number) not in (signal.SIG_IGN, None)]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old_handler in previous.items():
            signal.signal(number, old_handler)


@contextmanager
def raise_on_signal(*, resumes: bool = True) -> Iterator[None]:
    """Raise `Interrupted` when one of `SIGNALS` comes; also a decorator.

    Raises:
        Interrupted: a signal came; the message says how to resume, if the work `resumes`.
    """
    owner = os.getpid()
    with _handle_signals(lambda number, frame: _raise_interrupted(number, owner, resumes=resumes)):
        yield


def _raise_interrupted(number: int, owner: int, *, resumes: bool = True) -> None:
    """Raise `Interrupted` in the process `owner`; forked processes return, because their owner ends them."""
    if os.getpid() == owner:
        advice = "; the same command resumes from what is done" if resumes else ""
        raise Interrupted(number, f"by {signal.Signals(number).name}{advice}")


class DeferredSignal:
    """A context in which the first signal is stored for the trainer, and a second one raises `Interrupted`.

    Attributes:
        number: the first signal; None until it comes. If it came, a normal exit from the context raises `Interrupted`.
    """

    number: int | None = None

    def __enter__(self) -> DeferredSignal:
        self.number, self._owner = None, os.getpid()
        self._handlers = ExitStack()
        self._handlers.enter_context(_handle_signals(self._handle))
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        self._handlers.close()
        if error_type is None and self.number is not None:
            _raise_interrupted(self.number, self._owner)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            _raise_interrupted(number, self._owner)
        elif os.getpid() == self._owner:
            self.number = number
            name = signal.Signals(number).name
            # Not print(): the signal may interrupt another print(), and its buffer must not be entered twice.
            clear = CLEAR_LINE if os.isatty(2) else ""  # the progress bar stands there
            when = "after this step" if process_count() == 1 else "after a step on which the processes agree"
            os.write(2, f"{clear}{name}: saving a checkpoint {when}; a second signal stops at once\n".encode())


class WorkerInit:
    """The `worker_init_fn` of a data loader whose workers leave signals to the training process.

    Args:
        worker_init_fn: what the data loader had before; it is called as well.
    """

    def __init__(self, worker_init_fn: Callable[[int], None] | None):
        self.worker_init_fn = worker_init_fn

    def __call__(self, worker: int) -> None:
        """Ignore SIGINT, and accept SIGTERM from the parent process only; macOS cannot tell who sent it."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if sys.platform != "darwin":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=_exit_with_parent, daemon=True).start()
        if self.worker_init_fn is not None:
            self.worker_init_fn(worker)


if sys.platform != "darwin":

    def _exit_with_parent() -> None:
        """Exit at a SIGTERM of the parent process, which ends its workers this way if they do not end by themselves."""
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

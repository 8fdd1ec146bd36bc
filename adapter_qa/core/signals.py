"""SIGTERM and SIGINT (Ctrl-C): while a model trains they wait for a good moment, at any other time they stop at once.

What is done at the good moment, saving a checkpoint, is the trainer's business.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from adapter_qa.core.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)
Handlers = dict[int, Any]  # what signal.signal returned for each


def install(handler: Callable[[int, Any], None]) -> Handlers:
    """Sets a handler for both signals, except where they are ignored (nohup and the like); returns the ones before."""
    return {
        number: signal.signal(number, handler) for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN
    }


def restore(handlers: Handlers) -> None:
    """Sets the handlers that `install` returned."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextmanager
def raise_on_signal() -> Iterator[None]:
    """Within it, also as a decorator, both signals raise `Interrupted` with a line that says how to go on."""
    owner = os.getpid()
    before = install(lambda number, frame: stop(number, owner))
    try:
        yield
    finally:
        restore(before)


def stop(number: int, owner: int) -> None:
    """Stops the process `owner`; one that was forked from it is left to it.

    Raises:
        Interrupted: this process is the owner.
    """
    if os.getpid() == owner:
        raise Interrupted(number, f"by {signal.Signals(number).name}; the same command goes on from what is done")


class DeferredSignal:
    """While it is entered, the first signal is kept for the trainer to look at, and a second stops at once.

    A signal that nobody acted on before it is left raises `Interrupted` then.

    Attributes:
        number: the first signal; None until it comes.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._owner = os.getpid()
        self._before: Handlers = {}

    def __enter__(self) -> DeferredSignal:
        self.number, self._owner = None, os.getpid()
        self._before = install(self._take)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        restore(self._before)
        if kind is None and self.number is not None:
            stop(self.number, self._owner)

    def _take(self, number: int, frame: Any) -> None:
        if self.number is not None:
            stop(number, self._owner)
        elif os.getpid() == self._owner:
            self.number = number
            name = signal.Signals(number).name
            # Not print(): the signal may come in the middle of one, whose buffer cannot be entered twice.
            os.write(2, f"{name}: saving a checkpoint after this step; once more stops at once\n".encode())


class WorkerInit:
    """Start of a data loader's worker: signals of the whole group are left to the process that trains.

    Args:
        then: what is called with the worker's number afterwards; None: nothing.
    """

    def __init__(self, then: Callable[[int], None] | None):
        self.then = then

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()
        if self.then is not None:
            self.then(worker)


def _end_with_parent() -> None:
    """Ends the process at a SIGTERM of its parent, which ends workers so that do not end by themselves."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)

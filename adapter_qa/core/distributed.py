"""The processes of one run, as `torchrun` starts them: which one is the main process, and decisions that all share."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from adapter_qa.core.errors import Interrupted, ReportedError, RunError, UserError

Result = TypeVar("Result")


def process_count() -> int:
    """Return the number of processes of the run; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Return whether this is the process of the run that writes files and prints."""
    return os.environ.get("RANK", "0") == "0"


def is_local_main() -> bool:
    """Return whether this is the process of its machine that prints what all processes would print."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def on_main_process(step: Callable[[], Result]) -> Result:
    """Run a step in the main process and return its result in all processes.

    All processes must call this, and the process group must exist (`training.training_args.resolve_training_args`).

    Raises:
        ReportedError: the step raised it. In the other processes it has no problems, so that they are printed once.
    """
    if process_count() == 1:
        return step()
    from torch.distributed import broadcast_object_list  # late: `is_main_process` is used before anything slow

    if is_main_process():
        try:
            result = step()
        except ReportedError as error:
            broadcast_object_list([None, UserError([]) if isinstance(error, UserError) else RunError([])])
            raise
        broadcast_object_list([result, None])
        return result
    received: list[Any] = [None, None]
    broadcast_object_list(received)
    result, failure = received
    if failure is not None:
        raise failure
    return result


@contextmanager
def destroy_process_group_on_exit() -> Iterator[None]:
    """Decorate a script's `main` so that the process group is destroyed after it.

    Otherwise the threads of the group live until the interpreter exits, and about one run in seven aborts (gloo,
    "terminate called without an active exception"). The threads end with the group, which the wrapper of the model
    keeps alive until it is collected. After an error the group stays, since another process may be waiting in it.
    """
    try:
        yield
    except Interrupted:
        _destroy_process_group()  # the signal ends the other processes, too
        raise
    _destroy_process_group()


def _destroy_process_group() -> None:
    if process_count() > 1:
        from torch import distributed

        if distributed.is_initialized():
            gc.collect()
            distributed.destroy_process_group()

"""Several processes of one run, as `torchrun` and the like start them: who is first, and what all must agree on."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from adapter_qa.core.errors import ReportedError, RunError, UserError

Result = TypeVar("Result")


def process_count() -> int:
    """Processes of the run, by the launcher's word; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process is the one that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


def on_main_process(step: Callable[[], Result]) -> Result:
    """What a step comes to in the first process, for all of them; the others do not take it.

    The processes must have found each other (`training_arguments.resolve_training_args`), and all must call.

    Raises:
        ForPeople: the step did. Only the first process has something to say about it.
    """
    if process_count() == 1:
        return step()
    from torch.distributed import broadcast_object_list  # late: doors look at `is_main_process` before anything slow

    outcome: list[tuple[Result | None, ReportedError | None] | None] = [None]
    if is_main_process():
        try:
            outcome = [(step(), None)]
        except ReportedError as error:
            told = UserError([]) if isinstance(error, UserError) else RunError([])
            broadcast_object_list([(None, told)])
            raise
    broadcast_object_list(outcome)
    assert outcome[0] is not None
    result, failure = outcome[0]
    if failure is not None:
        raise failure
    return result  # type: ignore[return-value]


@contextmanager
def destroy_process_group_on_exit() -> Iterator[None]:
    """Around a script's `main`, as a decorator: once it is done, the processes let go of each other.

    Threads of the process group that are left to the end of the interpreter abort one run in seven or so (gloo,
    "terminate called without an active exception"). They end with the group, which the model's wrapper holds on to.
    """
    yield
    if process_count() > 1:
        from torch import distributed

        if distributed.is_initialized():
            gc.collect()
            distributed.destroy_process_group()


def is_local_main() -> bool:
    """Whether this process is the one of its machine that says what all of them would say."""
    return os.environ.get("LOCAL_RANK", "0") == "0"

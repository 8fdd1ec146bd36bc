"""What ends a run that was well begun, told in a line: memory, disk, a loss that is no number."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapter_qa.core.errors import RunError

CPU_MEMORY = ("can't allocate memory", "not enough memory")  # what PyTorch says on Linux and elsewhere
PROBE = 1 << 20  # bytes


@contextmanager
def report_resource_errors() -> Iterator[None]:
    """Within it, also as a decorator, errors of memory and of the operating system come out as `RunError`.

    Raises:
        RunFailure: what happened and which options help.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            f"out of memory ({first_line(error)}); lower --per_device_train_batch_size and raise "
            "--gradient_accumulation_steps by as much, lower --max_seq_length (--block_size) or "
            "--per_device_eval_batch_size, or give --gradient_checkpointing True, --bf16 True or --fp16 True; with "
            "other options a run needs another --output_dir, or --overwrite_output_dir"
        ) from error
    except OSError as error:
        if error.strerror is None or error.errno == errno.ENAMETOOLONG:  # a library's own; the user's mistake
            raise
        place = error.filename or "a file could not be read or written"
        raise RunError(f"{place}: {error.strerror}; mend that and give the same command, it goes on") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is the processor's or an accelerator's memory that did not suffice."""
    import torch  # late: doors use `report_resource_errors` before they need anything slow

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error) for words in CPU_MEMORY)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 200 characters; its name if there is no text."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def write_error_reason(error: BaseException, folder: Path) -> str:
    """The system's reason for a file that could not be written.

    PyTorch says "iostream error" for a full disk, so that a file of `PROBE` bytes is tried in the folder.
    """
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror
    try:
        (folder / "probe").write_bytes(bytes(PROBE))
    except OSError as found:
        return str(found.strerror)
    return first_line(error)


def nan_loss_error(step: int, *, learning_rate: float, max_grad_norm: float, fp16: bool) -> RunError:
    """The failure of a training whose loss, or whose weights, are infinite or no number since an optimizer step."""
    tries = [f"lower --learning_rate (now {learning_rate})", f"lower --max_grad_norm (now {max_grad_norm})"]
    if fp16:
        tries.insert(0, "give --bf16 True instead of --fp16")
    return RunError(
        f"step {step}: the loss is infinite or no number; {', or '.join(tries)}, with another --output_dir; "
        "checkpoints of earlier steps stay as they are"
    )

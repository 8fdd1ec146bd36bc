"""Out of memory, full disks and NaN losses as `RunError` with advice."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapter_qa.core.errors import RunError

CPU_MEMORY_MESSAGES = ("can't allocate memory", "not enough memory")  # of PyTorch, on Linux and elsewhere
PROBE_BYTES = 1 << 20
MAX_REASON_CHARS = 200


@contextmanager
def report_resource_errors(folder: Path | None = None) -> Iterator[None]:
    """Turn errors of memory and of the operating system into `RunError`; also a decorator.

    Args:
        folder: where files are written, for errors of the system that do not name a file.

    Raises:
        RunError: memory or a file operation failed; the message names the options that help.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            f"out of memory ({first_line(error)}); give --tokens_per_batch 4096 or less, or lower "
            "--per_device_train_batch_size and raise --gradient_accumulation_steps by the same factor, lower "
            "--max_seq_length (--block_size) or --per_device_eval_batch_size, or give --gradient_checkpointing True, "
            "--bf16 True or --fp16 True; a run with other options needs another --output_dir, or "
            "--overwrite_output_dir"
        ) from error
    except BrokenPipeError:  # the reader of the output closed it; `run_cli` knows
        raise
    except OSError as error:
        if error.strerror is None or error.errno == errno.ENAMETOOLONG:  # a library's own error; the user's mistake
            raise
        place = error.filename or folder or "a file could not be read or written"
        raise RunError(f"{place}: {error.strerror}; fix that and give the same command, it resumes") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of the CPU or of an accelerator was not sufficient."""
    import torch  # late: `report_resource_errors` is used before anything slow

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(message in str(error) for message in CPU_MEMORY_MESSAGES)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, shortened; the name of its class if it has no text."""
    return (str(error).splitlines() or [type(error).__name__])[0][:MAX_REASON_CHARS]


def write_error_reason(error: BaseException, folder: Path) -> str:
    """Return the operating system's reason why a file in a folder could not be written.

    PyTorch says "iostream error" for a full disk, so this function writes a small file to get the system's own error.
    """
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror
    try:
        (folder / "probe").write_bytes(bytes(PROBE_BYTES))
    except OSError as probe_error:
        return str(probe_error.strerror)
    return first_line(error)


def nan_loss_error(step: int, *, learning_rate: float, max_grad_norm: float, fp16: bool) -> RunError:
    """Return the error of a training whose loss or weights became infinite or NaN at an optimizer step."""
    advice = [f"lower --learning_rate (now {learning_rate})", f"lower --max_grad_norm (now {max_grad_norm})"]
    if fp16:
        advice.insert(0, "give --bf16 True instead of --fp16")
    return RunError(
        f"step {step}: the loss is infinite or NaN; {', or '.join(advice)}, with another --output_dir; "
        "checkpoints of earlier steps are unchanged"
    )

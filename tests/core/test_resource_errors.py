"""Reports of memory, disk and NaN errors (adapter_qa/core/resource_errors.py)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from adapter_qa.core.errors import RunError, UserError
from adapter_qa.core.resource_errors import nan_loss_error, report_resource_errors, write_error_reason


def run_error(error: BaseException) -> str:
    with pytest.raises(RunError) as caught, report_resource_errors():
        raise error
    (problem,) = caught.value.problems
    assert caught.value.exit_code == 1
    assert caught.value.__cause__ is error
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
    problem = run_error(error)
    assert problem.startswith(f"out of memory ({reason}")
    for option in ("tokens_per_batch", "per_device_train_batch_size", "gradient_accumulation_steps", "max_seq_length",
                   "block_size", "per_device_eval_batch_size", "gradient_checkpointing", "bf16", "fp16"):  # fmt: skip
        assert f"--{option}" in problem


def test_allocation_beyond_the_memory() -> None:
    with pytest.raises(RunError, match=r"out of memory .*can't allocate memory"), report_resource_errors():
        torch.empty(10**15)


def test_errors_of_the_operating_system_name_the_file() -> None:
    problem = run_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "outputs/run/run.json.writing"))
    assert problem == (
        "outputs/run/run.json.writing: No space left on device; fix that and give the same command, it resumes"
    )


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("size mismatch"),
        OSError("a library's own"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        ValueError("x"),
        UserError("x"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_not_changed(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, report_resource_errors():
        raise error
    assert caught.value is error


def test_reason_of_a_failed_write(tmp_path: Path) -> None:
    assert write_error_reason(OSError(errno.EROFS, "Read-only file system"), tmp_path) == "Read-only file system"
    assert write_error_reason(RuntimeError("iostream error\nmore"), tmp_path / "gone") == "No such file or directory"
    assert write_error_reason(RuntimeError("iostream error\nmore"), tmp_path) == "iostream error"


def test_advice_for_a_nan_loss() -> None:
    problems = [
        nan_loss_error(12, learning_rate=0.1, max_grad_norm=1.0, fp16=fp16).problems[0] for fp16 in (False, True)
    ]
    for problem in problems:
        assert problem.startswith("step 12: the loss is infinite or NaN;")
        assert "--learning_rate (now 0.1)" in problem
        assert "--max_grad_norm (now 1.0)" in problem
    assert ["--bf16" in problem for problem in problems] == [False, True]


def test_an_error_without_a_file_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught, report_resource_errors(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.problems[0].startswith(f"{tmp_path}: No space left on device; ")

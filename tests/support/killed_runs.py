"""Training processes that are stopped at a chosen file operation, and what their runs leave.

A process runs a script with a command line. It is forked from a server that has imported everything, so that it starts
in a second or two instead of ten.

File operations in the run's folder are counted. Before one of them, or in the middle of it, the process sends itself a
signal. Counted are changes of directories, files opened for writing, and writes that Python's audit hooks do not see:
safetensors, torch.save and fsync.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors.torch import load_file

import run_mlm_adapter
import run_ner_adapter
import run_qa_adapter
from adapter_qa.core.cli import run_cli
from adapter_qa.core.files import TEMPORARY_SUFFIX
from adapter_qa.training import workflow  # noqa: F401  (imported in the server and not in every process)

SCRIPTS = {"qa": run_qa_adapter, "mlm": run_mlm_adapter, "ner": run_ner_adapter}
DIRECTORY_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT
SPEED_METRICS = ("runtime", "per_second")


@dataclass(frozen=True)
class Stop:
    """Where a process stops.

    Attributes:
        operation: number of the file operation, from 0; -1: the process is not stopped.
        half_written: stop in the middle of the operation, with half of the file written; otherwise before it.
        signal_number: the signal that the process sends to itself and its workers.
    """

    operation: int = -1
    half_written: bool = False
    signal_number: int = signal.SIGKILL


NO_STOP = Stop()


@dataclass(frozen=True)
class Operation:
    """A file operation of a process.

    Attributes:
        kind: the name of Python's audit event, or of the function that was called.
        path: relative to the run's folder.
    """

    kind: str
    path: str

    @property
    def writes(self) -> bool:
        """Whether the operation can stop in the middle."""
        return self.kind in ("open", "torch.save", "safetensors")


class OperationCounter:
    """A counter of this process's file operations in a folder that stops the process at one of them.

    Args:
        folder: the folder.
        log: a file outside the folder; gets a line for each operation.
        stop: where the process stops.
    """

    def __init__(self, folder: Path, log: Path, stop: Stop):
        self.folder = str(folder)
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.stop = stop
        self.count = 0
        self.is_inside = False  # whether the current operation is part of a counted operation

    def install(self) -> None:
        """Count all operations from now on; this cannot be undone."""
        serialize_file, save, fsync = safetensors.serialize_file, torch.save, os.fsync

        def counted_serialize_file(tensors: Any, filename: Any, *args: Any, **kwargs: Any) -> Any:
            return self.run("safetensors", str(filename), lambda: serialize_file(tensors, filename, *args, **kwargs))

        def counted_save(value: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
            return self.run("torch.save", str(path), lambda: save(value, path, *args, **kwargs))

        def counted_fsync(descriptor: int) -> None:
            self.run("os.fsync", os.readlink(f"/proc/self/fd/{descriptor}"), lambda: fsync(descriptor))

        replacements: list[tuple[Any, str, Any]] = [
            (safetensors.torch, "serialize_file", counted_serialize_file),
            (torch, "save", counted_save),
            (os, "fsync", counted_fsync),
        ]
        for module, name, replacement in replacements:
            setattr(module, name, replacement)
        sys.addaudithook(self.audit)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's audit hook (PEP 578)."""
        if event == "open":
            path, mode, flags = arguments
            writes = flags & WRITE_FLAGS or any(letter in (mode or "") for letter in "wax+")
            if isinstance(path, (str, bytes)) and writes:
                self.run("open", os.fsdecode(path), lambda: None)
        elif event in DIRECTORY_CHANGES:
            path = os.fsdecode(arguments[0])
            folder = arguments[-1]  # a descriptor, if shutil.rmtree removes the name
            if isinstance(folder, int) and folder >= 0 and not os.path.isabs(path):
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
            self.run(event, path, lambda: None)

    def run(self, kind: str, path: str, operation: Callable[[], Any]) -> Any:
        """Run an operation; count it if it is in the folder and not part of a counted operation."""
        if self.is_inside or not (path + "/").startswith(self.folder + "/"):
            return operation()
        self.is_inside = True
        os.write(self.log, f"{json.dumps([kind, os.path.relpath(path, self.folder)])}\n".encode())
        if self.count == self.stop.operation:
            if self.stop.half_written:
                write_half(kind, path, operation)
            signal_process_group(self.stop.signal_number)
        self.count += 1
        try:
            return operation()
        finally:
            self.is_inside = False


def signal_process_group(number: int) -> None:
    """Send a signal to this process and its data loaders' workers, as a scheduler or Ctrl-C does.

    The sender is a shell: a signal that comes while Python runs the functions after `os.fork` would be lost. The shell
    belongs to the group, so its own exit code does not matter.
    """
    subprocess.run(["sh", "-c", f"kill -{int(number)} -{os.getpgid(0)}"], check=False)


def write_half(kind: str, path: str, operation: Callable[[], Any]) -> None:
    """Leave a file as a process does that is killed while it writes."""
    operation()
    if kind == "open":
        Path(path).write_bytes(b'{"half": ')
    else:
        os.truncate(path, os.path.getsize(path) // 2)


def run_in_process(script: str, argv: list[str], folder: Path, log: Path, stop: Stop) -> None:
    """Run a script in a new process, up to the stop; its output goes to files beside `log`."""
    os.setpgid(0, 0)
    for number, suffix in ((1, ".out"), (2, ".err")):
        descriptor = os.open(log.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # for workers, as in a process that was not forked itself
    sys.argv = [SCRIPTS[script].__name__ + ".py", *argv]
    OperationCounter(folder, log, stop).install()
    try:
        exit_code = run_cli(SCRIPTS[script].main)
    except KeyboardInterrupt:
        exit_code = 128 + signal.SIGINT
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


class Run:
    """A command line, its output folder and the processes that run it.

    Args:
        script: "qa", "mlm" or "ner".
        argv: the command line without --output_dir.
        folder: the run's folder; logs of its processes go beside it.
    """

    def __init__(self, script: str, argv: list[str], folder: Path):
        self.script = script
        self.argv = [*argv, "--output_dir", str(folder)]
        self.folder = folder
        self.log = folder.with_name(folder.name + ".operations")

    def start(self, stop: Stop = NO_STOP) -> BaseProcess:
        """Start a process."""
        process = multiprocessing.get_context("forkserver").Process(
            target=run_in_process, args=(self.script, self.argv, self.folder, self.log, stop)
        )
        process.start()
        return process

    def run(self, stop: Stop = NO_STOP) -> int:
        """Start a process, wait for its end and return its exit code, as `exit_code` does."""
        return exit_code(self.start(stop))

    def finish(self) -> dict[str, Any]:
        """Run a process that must succeed, and return the results of the run."""
        assert self.run() == 0, self.stderr()
        return read_results(self.folder)

    def operations(self) -> list[Operation]:
        """Return the file operations of the last process."""
        return [Operation(*json.loads(line)) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def stderr(self) -> str:
        """Return what the last process wrote on stderr."""
        return self.log.with_suffix(".err").read_text(encoding="utf-8")


def exit_code(process: BaseProcess) -> int:
    """Wait for the end of a process and return its exit code; it is negative for a signal."""
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def without_speed(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if not any(part in name for part in SPEED_METRICS)}


def read_results(folder: Path) -> dict[str, Any]:
    """Return everything in a finished run that must not depend on interruptions."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert run["status"] == "finished"
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    saved = Path(run["saved"])
    return {
        "weights": {path.relative_to(saved).as_posix(): tensors_sha256(path) for path in saved.rglob("*.safetensors")},
        "history": [without_speed(entry) for entry in run["history"]],
        "losses": [without_speed(entry) for entry in run["losses"]],
        "best": run["best"],
        "steps": run["steps"],
        "epochs": (run["epochs"], state["num_train_epochs"]),
        "metrics": {split: without_speed(metrics) for split, metrics in run["metrics"].items()},
        "results": without_speed(json.loads((folder / "all_results.json").read_text(encoding="utf-8"))),
        "predictions": {path.name: path.read_bytes() for path in folder.glob("*_predictions.*")},
        "files": sorted(path.name for path in folder.iterdir() if not path.name.endswith(TEMPORARY_SUFFIX)),
    }


def tensors_sha256(path: Path) -> str:
    """Return a digest of the names and bytes of all tensors in a file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

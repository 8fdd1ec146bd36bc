"""Training processes that are killed: how one is started, where it is stopped, and what a run left to be compared.

A life is a real process that runs a door from the command line to its end. It is forked from a server that has imported
everything, so that it costs a second or two instead of ten.

A stop is injected: file operations in the run's folder are counted, and before one of them, or in the middle of it, the
process sends itself SIGKILL or another signal. Counted are directory changes, files opened for writing, and what writes
past Python: safetensors, torch.save and fsync.
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
from adapter_qa.runs.checkpoints import checkpoint_error, checkpoint_steps
from adapter_qa.training import workflow  # noqa: F401  (imported here once and not in every life)

ROOT = Path(__file__).resolve().parent.parent.parent
DOORS = {"qa": run_qa_adapter, "mlm": run_mlm_adapter, "ner": run_ner_adapter}
DIRECTORY_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
TIMES = ("runtime", "per_second")


@dataclass(frozen=True)
class Stop:
    """Where a life ends.

    Attributes:
        operation: number of the file operation, from 0; -1: it is not stopped.
        torn: in the middle of it, half of the file written; otherwise before it.
        number: of the signal that it sends itself and its workers.
    """

    operation: int = -1
    torn: bool = False
    number: int = signal.SIGKILL


@dataclass(frozen=True)
class Operation:
    """A file operation of a life.

    Attributes:
        kind: an audit event of Python, or the function called.
        path: relative to the run's folder.
    """

    kind: str
    path: str

    @property
    def writes(self) -> bool:
        """Whether it can be torn."""
        return self.kind in ("open", "torch.save", "safetensors")


class Counter:
    """Counts the operations of this process in a folder, tells them to a file outside it, and stops at one of them."""

    def __init__(self, folder: Path, log: Path, stop: Stop):
        self.folder = str(folder)
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.stop = stop
        self.number = 0
        self.ours = False  # whether the operation under way is the injection's own

    def install(self) -> None:
        """From now on every operation is counted; there is no way back."""
        write, save, sync = safetensors.torch.serialize_file, torch.save, os.fsync

        def serialize_file(tensors: Any, filename: Any, *others: Any, **named: Any) -> Any:
            return self.around("safetensors", str(filename), lambda: write(tensors, filename, *others, **named))

        def torch_save(value: Any, path: Any, *others: Any, **named: Any) -> Any:
            return self.around("torch.save", str(path), lambda: save(value, path, *others, **named))

        def fsync(descriptor: int) -> None:
            self.around("os.fsync", os.readlink(f"/proc/self/fd/{descriptor}"), lambda: sync(descriptor))

        safetensors.torch.serialize_file, torch.save, os.fsync = serialize_file, torch_save, fsync
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's audit hook (PEP 578)."""
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, (str, bytes)) and (flags & WRITES or any(sign in (mode or "") for sign in "wax+")):
                self.around("open", os.fsdecode(path), lambda: None)
        elif event in DIRECTORY_CHANGES:
            path = os.fsdecode(arguments[0])
            folder = arguments[-1]  # of a name that shutil.rmtree removes
            if isinstance(folder, int) and folder >= 0 and not os.path.isabs(path):
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
            self.around(event, path, lambda: None)

    def around(self, kind: str, path: str, operation: Callable[[], Any]) -> Any:
        """Does an operation; counts it if it is in the folder and no other one's part."""
        if self.ours or not (path + "/").startswith(self.folder + "/"):
            return operation()
        self.ours = True
        done = Operation(kind, os.path.relpath(path, self.folder))
        os.write(self.log, f"{json.dumps([done.kind, done.path])}\n".encode())
        if self.number == self.stop.operation:
            if self.stop.torn:
                tear(kind, path, operation)
            signal_group(self.stop.number)
        self.number += 1
        try:
            return operation()
        finally:
            self.ours = False


def signal_group(number: int) -> None:
    """Signals this process and the workers of its data loaders, as a scheduler or Ctrl-C does: from another process.

    Not one made by os.fork: the signal could come while Python runs the functions that follow a fork, where what is
    raised is swallowed. The shell is of the group and may die of its own signal.
    """
    subprocess.run(["sh", "-c", f"kill -{int(number)} -{os.getpgid(0)}"], check=False)


def tear(kind: str, path: str, operation: Callable[[], Any]) -> None:
    """Leaves a file as a process does that is killed while writing it."""
    operation()
    if kind == "open":
        Path(path).write_bytes(b'{"half": ')
    else:
        os.truncate(path, os.path.getsize(path) // 2)


def live(door: str, words: list[str], folder: Path, log: Path, stop: Stop) -> None:
    """The body of a life: a door with its command line, its output going to files beside `log`."""
    os.setpgid(0, 0)
    for number, suffix in ((1, ".out"), (2, ".err")):
        descriptor = os.open(log.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # for workers, as in a process that was not forked itself
    sys.argv = [DOORS[door].__name__ + ".py", *words]
    Counter(folder, log, stop).install()
    code = run_cli(DOORS[door].main)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Run:
    """A command line, its folder, and the lives it takes.

    Args:
        door: "qa", "mlm" or "ner".
        words: the command line without --output_dir.
        folder: of the run; what a life says goes beside it.
    """

    def __init__(self, door: str, words: list[str], folder: Path):
        self.door = door
        self.words = [*words, "--output_dir", str(folder)]
        self.folder = folder
        self.log = folder.with_name(folder.name + ".operations")

    def start(self, stop: Stop = Stop()) -> BaseProcess:
        """Begins a life."""
        process = multiprocessing.get_context("forkserver").Process(
            target=live, args=(self.door, self.words, self.folder, self.log, stop)
        )
        process.start()
        return process

    def end(self, process: BaseProcess) -> int:
        """Waits for the end of a life; returns its exit code, negative for a signal."""
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    def live(self, stop: Stop = Stop()) -> int:
        """A life from its beginning to its end."""
        return self.end(self.start(stop))

    def finish(self) -> dict[str, Any]:
        """A last life, which must succeed; returns what the run came to."""
        code = self.live()
        assert code == 0, self.said()
        return outcome(self.folder)

    def operations(self) -> list[Operation]:
        """File operations of the last life."""
        return [Operation(*json.loads(line)) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def said(self) -> str:
        """What the last life wrote on stderr."""
        return self.log.with_suffix(".err").read_text(encoding="utf-8")


def timeless(entry: dict[str, Any]) -> dict[str, Any]:
    """Metrics without those of speed."""
    return {name: value for name, value in entry.items() if not any(word in name for word in TIMES)}


def outcome(folder: Path) -> dict[str, Any]:
    """All of a finished run that must not depend on how often it was killed: weights, history, best epoch, answers."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert run["status"] == "finished"
    assert (
        [checkpoint_error(path) for path in folder.glob("checkpoint-*")].count(None)
        == len(checkpoint_steps(folder))
        > 0
    )
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    saved = Path(run["saved"])
    return {
        "weights": {path.relative_to(saved).as_posix(): tensors_sha256(path) for path in saved.rglob("*.safetensors")},
        "history": [timeless(entry) for entry in run["history"]],
        "losses": [timeless(entry) for entry in run["losses"]],
        "best": run["best"],
        "steps": run["steps"],
        "epochs": (run["epochs"], state["num_train_epochs"]),
        "metrics": {split: timeless(metrics) for split, metrics in run["metrics"].items()},
        "results": timeless(json.loads((folder / "all_results.json").read_text(encoding="utf-8"))),
        "predictions": {path.name: path.read_bytes() for path in folder.glob("*_predictions.*")},
    }


def tensors_sha256(path: Path) -> str:
    """Digest of the names and bytes of all tensors in a file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

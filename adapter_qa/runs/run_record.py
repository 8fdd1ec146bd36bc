"""run.json: what a run was asked, what it ran on, what came out; and whether a folder may be used for a run.

Everything a script wants to know of a run is in `<output_dir>/run.json`. It is written whole at every stage, aside
and renamed, so that a reader never sees half of it. Nothing is written before `RunRecord.begin`, which comes when all
that can be wrong with the input has been looked at.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from adapter_qa.core.distributed import is_main_process, process_count
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import TEMPORARY_SUFFIX, write_json
from adapter_qa.core.messages import log_note
from adapter_qa.runs.checkpoints import newest_checkpoint

RUN_FILE = "run.json"
ONLY_RESULTS = re.compile(
    r"overwrite_output_dir|dry_run|output_dir|run_name|logging_dir|report_to|disable_tqdm|resume_from_checkpoint"
    r"|local_rank|push_to_hub.*|push_at_end|hub_.*|license"
)  # options that do not change what is trained
LOCK_FILE = "run.lock"
PACKAGES = ("adapters", "transformers", "torch", "tokenizers", "numpy", "accelerate", "safetensors")
MADE_BY_RUNS = (  # file patterns of a run folder beside RUN_FILE; the last two lines are a fully fine-tuned model
    "checkpoint-*", "checkpoint.writing", "checkpoint.removing", "*.json.writing", "README.md.writing",
    "adapters-*", "base", "runs", "frozen.safetensors", "trainer_state.json",
    "*_results.json", "*_predictions.json", "*_predictions.conll", "*_null_odds.json", "fusion_attention.json",
    "config.json", "model.safetensors", "full_setup.json", "special_tokens_map.json",
    "tokenizer*.json", "vocab.*", "merges.txt",
)  # fmt: skip


@dataclass
class RunRecord:
    """One run, on its way into run.json.

    Attributes:
        folder: the run's output folder; None in a dry run, which writes nothing.
        document: what is in the file.
        resume_from: newest complete checkpoint of an interrupted run with the same options, if any.
        finished: the folder holds a finished run with the same options; there is nothing to do.
        replaces: what the folder holds of an earlier run is removed when this one begins.
        begun: the folder is this process's; from then on the file is written. Of several processes one begins.
    """

    folder: Path | None
    document: dict[str, Any]
    resume_from: Path | None = None
    finished: bool = False
    replaces: bool = False
    begun: bool = False
    started: float = field(default_factory=time.perf_counter)

    def begin(self) -> None:
        """Takes the folder. A dry run has none, and of several processes only the first one writes.

        Raises:
            UserError: it cannot be written to.
        """
        if self.folder is None or self.begun or not is_main_process():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock_run_dir(self.folder)
            if self.replaces:
                _remove_old_run(self.folder)
            self.begun = True
            self.update(status="running")
        except OSError as error:
            raise UserError(
                f"--output_dir {self.folder}: cannot be written ({error.strerror}); give another folder"
            ) from error

    def update(self, **facts: Any) -> None:
        """Adds facts and, once the run has begun, writes the file."""
        self.document.update(facts)
        self.document["times"]["seconds"] = round(time.perf_counter() - self.started, 2)
        if self.folder is not None and self.begun:
            write_json(self.folder / RUN_FILE, self.document)

    def finish(self) -> None:
        """Marks the run as finished; from now on the same command finds nothing to do."""
        self.document["times"]["finished"] = now()
        self.update(status="finished")


def open_run(
    folder: Path | None, argv: Sequence[str], script: str, options: dict[str, Any], *, overwrite: bool
) -> RunRecord:
    """Looks at the folder of a run: free, or left by the same run that was interrupted or finished. Writes nothing
    but who is at work there, where a run was before.

    Of several processes the first one looks (`processes.on_main_process`).

    Args:
        folder: the output folder; None for a dry run.
        argv: the command line.
        script: name of the door.
        options: every option's value.
        overwrite: what an earlier run left is to be removed.

    Raises:
        UserError: the folder holds another run, or files that no run made, or a process is at work there.
    """
    record = RunRecord(folder, _new_document(argv, script, options))
    if folder is None:
        return record
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output_dir {folder}: is a file; give a folder")
    standing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK | os.X_OK):
        reason = "is a file" if not standing.is_dir() else "may not be written to"
        raise UserError(f"--output_dir {folder}: {standing} {reason}; give another folder")
    if os.access(folder / LOCK_FILE, os.W_OK):
        lock_run_dir(folder)
    if (folder / RUN_FILE).is_file():
        record.replaces = overwrite
        if not overwrite:
            _resume_or_reject(record, folder)
    elif folder.is_dir() and {path.name for path in folder.iterdir()} - {LOCK_FILE, RUN_FILE + TEMPORARY_SUFFIX}:
        raise UserError(
            f"--output_dir {folder}: is not empty and holds no run; give another folder or empty it yourself"
        )
    return record


def _resume_or_reject(record: RunRecord, folder: Path) -> None:
    """Compares with the run in the folder: finished, to be resumed, or another one.

    Raises:
        UserError: it is another one; its differing options are named.
    """
    try:
        old = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        before = dict(old["options"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / RUN_FILE}: cannot be read ({error}); give --overwrite_output_dir or another folder"
        ) from error
    before = {"processes": 1} | before
    now_asked = record.document["options"]
    differing = [
        f"{name} was {before.get(name)}, now {now_asked.get(name)}"
        for name in sorted({*before, *now_asked})
        if not ONLY_RESULTS.fullmatch(name) and before.get(name) != now_asked.get(name)
    ]
    if differing:
        raise UserError(
            f"--output_dir {folder}: holds a run with other options ({'; '.join(differing[:5])}); "
            "give another folder, or --overwrite_output_dir to replace it"
        )
    record.finished = old.get("status") == "finished"
    if not record.finished:
        record.resume_from = newest_checkpoint(folder)


# Lock files by process and folder, so that a forked process knows it has none. Closing one would give its folder back.
HELD: dict[tuple[int, Path], IO[str]] = {}


def lock_run_dir(folder: Path) -> None:
    """Keeps other processes off a run's folder for as long as this one lives, however it ends.

    It is a record lock (`lockf`) and no `flock`: that one lives on in data loaders' workers, which outlast a killed run
    by seconds.

    Raises:
        UserError: another process holds it.
        OSError: the lock file cannot be written.
    """
    key = (os.getpid(), folder.resolve())
    if key in HELD:
        return
    stream = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    try:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # which one, POSIX leaves open
        stream.seek(0)
        holder = stream.read(200).strip()
        raise UserError(
            f"--output_dir {folder}: another run is at work there ({holder}); wait for it, or give another folder"
        ) from error
    except OSError as error:
        log_note([f"{folder}: cannot be locked ({error.strerror}); take care that one run at a time is at work there"])
        return
    stream.truncate(0)
    print(f"process {os.getpid()} on {socket.gethostname()}", file=stream, flush=True)
    HELD[key] = stream


def is_locked(folder: Path) -> bool:
    """Whether a process is at work in a run's folder: what `lock_run_dir` would refuse. Reading is enough to ask."""
    if (os.getpid(), folder.resolve()) in HELD:
        return True  # closing the file below would give it away
    try:
        stream = (folder / LOCK_FILE).open(encoding="utf-8")
    except OSError:
        return False
    with stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:  # a file system without locks, of which `lock_run_dir` tells
            return False
    return False


def _remove_old_run(folder: Path) -> None:
    """Removes what runs write, and only that: other files of the user stay. run.json goes last: without it the rest
    would be a stranger's.
    """
    card = ["README.md"] if (folder / "full_setup.json").is_file() else []  # else it is not a run's
    for pattern in (*card, *MADE_BY_RUNS, RUN_FILE):
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _new_document(argv: Sequence[str], script: str, options: dict[str, Any]) -> dict[str, Any]:
    return {
        "status": "planned",
        "script": script,
        "command": [script, *without_secrets(argv)],
        "options": options | {"processes": process_count()},
        "versions": versions(),
        "commit": source_commit(),
        "device": device_name(),
        "times": {"started": now()},
    }


def without_secrets(argv: Sequence[str]) -> list[str]:
    """The words of a command line, the values of options that hold a token replaced."""
    words: list[str] = []
    for word in argv:
        name, separator, _ = word.partition("=")
        if words and words[-1].startswith("--") and words[-1].endswith("token"):
            words.append("<hidden>")
        else:
            words.append(f"{name}=<hidden>" if separator and name.endswith("token") else word)
    return words


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def source_commit() -> str | None:
    """Commit of this trainer's checkout, with "-dirty" if files differ; None outside a checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).resolve().parent, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def device_name() -> str:
    """The accelerator's name, or the processor's kind and number of threads."""
    import torch  # the rest of this module is of use before anything slow is imported

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"CPU {platform.machine()}, {torch.get_num_threads()} threads"


def now() -> str:
    """Local time, ISO 8601 with its zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")

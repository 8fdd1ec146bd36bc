"""run.json: what a run was asked, what it ran on, what came out; and whether a folder may be used for a run.

Everything a script wants to know of a run is in `<output_dir>/run.json`. It is written whole at every stage, aside
and renamed, so that a reader never sees half of it. Nothing is written before `RunRecord.begin`, which comes when all
that can be wrong with the input has been looked at.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapter_qa.arguments import ONLY_RESULTS
from adapter_qa.errors import UserError

RUN_FILE = "run.json"
PACKAGES = ("adapters", "transformers", "torch", "tokenizers", "numpy", "accelerate", "safetensors")
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
MADE_BY_RUNS = (  # file patterns of a run folder; the last two lines are a fully fine-tuned model
    RUN_FILE, "checkpoint-*", "adapters-*", "base", "runs", "frozen.safetensors", "trainer_state.json",
    "*_results.json", "*_predictions.json", "*_predictions.conll", "*_null_odds.json",
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
        begun: the folder is this run's; from then on the file is written.
    """

    folder: Path | None
    document: dict[str, Any]
    resume_from: Path | None = None
    finished: bool = False
    replaces: bool = False
    begun: bool = False
    started: float = field(default_factory=time.perf_counter)

    def begin(self) -> None:
        """Takes the folder; a dry run has none.

        Raises:
            UserError: it cannot be written to.
        """
        if self.folder is None or self.begun:
            return
        try:
            if self.replaces:
                _remove_old_run(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            self.begun = True
            self.note(status="running")
        except OSError as error:
            raise UserError(
                f"--output_dir {self.folder}: cannot be written ({error.strerror}); give another folder"
            ) from error

    def note(self, **facts: Any) -> None:
        """Adds facts and, once the run has begun, writes the file."""
        self.document.update(facts)
        self.document["times"]["seconds"] = round(time.perf_counter() - self.started, 2)
        if self.folder is not None and self.begun:
            write_json(self.folder / RUN_FILE, self.document)

    def finish(self) -> None:
        """Marks the run as finished; from now on the same command finds nothing to do."""
        self.document["times"]["finished"] = now()
        self.note(status="finished")


def open_run(
    folder: Path | None, argv: Sequence[str], script: str, options: dict[str, Any], *, overwrite: bool
) -> RunRecord:
    """Looks at the folder of a run: free, or left by the same run that was interrupted or finished. Writes nothing.

    Args:
        folder: the output folder; None for a dry run.
        argv: the command line.
        script: name of the door.
        options: every option's value.
        overwrite: what an earlier run left is to be removed.

    Raises:
        UserError: the folder holds another run, or files that no run made.
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
    if (folder / RUN_FILE).is_file():
        record.replaces = overwrite
        if not overwrite:
            _take_up(record, folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"--output_dir {folder}: is not empty and holds no run; give another folder or empty it yourself"
        )
    return record


def _take_up(record: RunRecord, folder: Path) -> None:
    """Compares with the run in the folder: finished, to be resumed, or another one.

    Raises:
        UserError: it is another one; its differing options are named.
    """
    try:
        old = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        before = old["options"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / RUN_FILE}: cannot be read ({error}); give --overwrite_output_dir or another folder"
        ) from error
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
    record.resume_from = newest_checkpoint(folder)


def newest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the most steps; trainer_state.json is written last, so it tells completeness."""
    found = [
        (int(match.group(1)), path)
        for path in folder.glob("checkpoint-*")
        if (match := CHECKPOINT.fullmatch(path.name)) and (path / "trainer_state.json").is_file()
    ]
    return max(found)[1] if found else None


def _remove_old_run(folder: Path) -> None:
    """Removes what runs write, and only that: other files of the user stay."""
    for pattern in MADE_BY_RUNS:
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
        "options": options,
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


def file_fingerprint(path: str | Path) -> dict[str, Any]:
    """Name, size in bytes and sha256 of a data file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return {"file": str(path), "bytes": os.path.getsize(path), "sha256": digest.hexdigest()}


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON document aside and renames it, so that the file is never half written."""
    aside = path.with_name(path.name + ".writing")
    aside.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(aside, path)

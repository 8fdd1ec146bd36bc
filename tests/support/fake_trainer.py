"""Replace run_qa_adapter.py in tests of sweeps: same command line, run.json, lock, signals and exit codes, no model.

An evaluation takes FAKE_SECONDS; F1 after the n-th of four evaluations is 10 n + the seed. Every start adds a line to
starts.txt beside the run's folder: the folder's name, and the number of evaluations that the run already has.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from adapter_qa.core.cli import run_cli
from adapter_qa.core.errors import ReportedError, UserError
from adapter_qa.core.files import write_json
from adapter_qa.core.signals import DeferredSignal
from adapter_qa.runs.layout import RUN_FILE
from adapter_qa.runs.lock import lock_run_dir

EVALUATIONS = 4
REFUSED = "refused"  # values of --run_name, each a way in which a run ends
CRASHES = "crashes"
BROKEN = "broken"
UNLOADABLE = "unloadable"
KILLED = "killed"
STOPPED = "stopped"


def option(argv: list[str], name: str) -> str | None:
    """Return the value of an option, written as --name value or --name=value; None if it is not given."""
    for index, word in enumerate(argv):
        if word == f"--{name}":
            return argv[index + 1]
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    return None


def main(argv: list[str]) -> int:
    """Run four evaluations, or end as --run_name says."""
    how, seed = option(argv, "run_name"), int(option(argv, "seed") or 0)
    if how == REFUSED:
        raise UserError(["--run_name refused: is refused", "--seed: too"])
    if "--dry_run" in argv:
        return 0
    if how == UNLOADABLE:
        raise ReportedError("out of memory")
    folder = Path(str(option(argv, "output_dir")))
    folder.mkdir(exist_ok=True)
    lock_run_dir(folder)
    file = folder / RUN_FILE
    run: dict[str, Any] = {"script": "run_qa_adapter.py", "options": {}, "history": []}
    if file.exists():
        run = json.loads(file.read_text(encoding="utf-8"))
    with (folder.parent / "starts.txt").open("a", encoding="utf-8") as stream:
        print(folder.name, len(run["history"]), file=stream)
    if run.get("status") == "finished":
        return 0
    write_json(file, run | {"status": "running"})
    with DeferredSignal() as interruption:
        while len(run["history"]) < EVALUATIONS:
            time.sleep(float(os.environ["FAKE_SECONDS"]))
            if interruption.number is not None:
                write_json(file, run | {"status": "interrupted"})
                break
            run["history"].append({"eval_f1": 10.0 * (len(run["history"]) + 1) + seed})
            write_json(file, run | {"status": "running"})
            end(how)
    if how != BROKEN:
        run["metrics"] = {"eval": {"eval_f1": run["history"][-1]["eval_f1"]}}
    write_json(file, run | {"status": "finished"})
    return 0


def end(how: str | None) -> None:
    """End the run as --run_name says."""
    if how == CRASHES:
        raise ReportedError("the disk is full")
    if how in (KILLED, STOPPED):
        os.kill(os.getpid(), signal.SIGKILL if how == KILLED else signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(run_cli(main))

"""Files, workers and reports of sweeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import fake_trainer
from support.scripts import ROOT

import sweep_qa

WriteSweep = Callable[..., Path]
FAKE = Path(fake_trainer.__file__)
WORKER = (
    "import sys, pathlib; sys.path.insert(0, {root!r}); import sweep_qa; from adapter_qa.core.cli import run_cli;"
    "sweep_qa.SCRIPT = pathlib.Path({script!r}); sys.exit(run_cli(sweep_qa.main))"
)


def run_worker(file: Path, *args: str) -> int:
    """Run a worker in this process, in the folder `sweep` beside the sweep's file."""
    return sweep_qa.main([str(file), "--output_dir", str(file.parent / "sweep"), *args])


def worker_command(file: Path, *args: str, script: Path = FAKE) -> list[str]:
    """Return the command of a worker whose trials run a script."""
    code = WORKER.format(root=str(ROOT), script=str(script))
    return [sys.executable, "-u", "-c", code, str(file), "--output_dir", str(file.parent / "sweep"), *args]


def start_worker(file: Path, *args: str, script: Path = FAKE, seconds: float = 0.1) -> subprocess.Popen[str]:
    """Start a worker's process, whose output is a pipe; an evaluation of the fake trainer takes `seconds`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "FAKE_SECONDS": str(seconds)}
    pipe, merged = subprocess.PIPE, subprocess.STDOUT
    command = worker_command(file, *args, script=script)
    return subprocess.Popen(command, stdout=pipe, stderr=merged, text=True, env=environment, start_new_session=True)


def read_lines_until(worker: subprocess.Popen[str], *parts: str) -> list[str]:
    """Return a worker's output up to the first lines that contain the given texts, one text after the other."""
    lines: list[str] = []
    assert worker.stdout is not None
    for part in parts:
        for line in worker.stdout:
            lines.append(line.rstrip())
            if part in line:
                break
        else:
            pytest.fail(f"no {part!r} in {lines}")
    return lines


def read_report(file: Path) -> dict[str, Any]:
    """Return sweep.json of the folder `sweep` beside the sweep's file."""
    return dict(json.loads((file.parent / "sweep" / "sweep.json").read_text(encoding="utf-8")))


def read_starts(file: Path) -> Counter[str]:
    """Return how often each trial was started from which number of evaluations, e.g. {"0003 0": 1}."""
    return Counter((file.parent / "sweep" / "trials" / "starts.txt").read_text(encoding="utf-8").splitlines())

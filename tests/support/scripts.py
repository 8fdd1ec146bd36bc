"""Folders of the repository, and two ways to run one of its scripts: in a process of its own, or in this process."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from adapter_qa.core.cli import run_cli

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"


def override(argv: Sequence[object], *changes: object) -> list[str]:
    """Return a command line with options changed or added; the scripts refuse an option that is given twice."""
    names = {str(word).partition("=")[0] for word in changes if str(word).startswith("--")}
    kept: list[str] = []
    keeping = True
    for word in map(str, argv):
        if word.startswith("--"):
            keeping = word.partition("=")[0] not in names
        if keeping:
            kept.append(word)
    return [*kept, *map(str, changes)]


def run_script(name: str, *argv: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script of the repository in a process of its own, offline."""
    command = [sys.executable, str(ROOT / name), *map(str, argv)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=600, check=False)


def run_main(
    main: Callable[[list[str]], int], *argv: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script's `main` in this process and return what `run_script` would return.

    The working directory and the environment are restored: transformers leaves settings in the environment.
    """
    command = [f"{main.__module__}.py", *map(str, argv)]
    stdout, stderr = io.StringIO(), io.StringIO()
    environment = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command)
        if cwd is not None:
            patch.chdir(cwd)
        try:
            with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
                exit_code = run_cli(main)
        except SystemExit as error:  # of --help
            exit_code = int(error.code or 0)
        except KeyboardInterrupt:  # as a shell says it
            exit_code = 128 + signal.SIGINT
        finally:
            os.environ.clear()
            os.environ.update(environment)
    return subprocess.CompletedProcess(command, exit_code, stdout.getvalue(), stderr.getvalue())

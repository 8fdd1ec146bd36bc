"""The repository's folders, and its scripts run as their users run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"


def run_script(name: str, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script of the repository in a process of its own, offline."""
    command = [sys.executable, str(ROOT / name), *map(str, words)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=600, check=False)

"""Where a result came from: command line, versions, source commit, device and time, as run.json records them."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import adapter_qa

PACKAGES = ("adapters", "transformers", "torch", "tokenizers", "numpy", "accelerate", "safetensors")


def hide_secrets(argv: Sequence[str]) -> list[str]:
    """Return the words of a command line with the values of options named `...token` replaced by `<hidden>`."""
    words: list[str] = []
    for word in argv:
        name, separator, _ = word.partition("=")
        if words and words[-1].startswith("--") and words[-1].endswith("token"):
            words.append("<hidden>")
        else:
            words.append(f"{name}=<hidden>" if separator and name.endswith("token") else word)
    return words


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of the packages that affect results."""
    return {
        "python": platform.python_version(),
        "adapter-qa": adapter_qa.__version__,
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def source_commit() -> str | None:
    """Return the commit of the checkout that this module runs from, followed by "-dirty" if tracked files differ.

    None outside a checkout. An installed copy may lie inside the git repository of another project, for example in its
    .venv, so the commit counts only if that repository tracks this file.
    """
    module = Path(__file__).resolve()
    if _git(module.parent, "ls-files", "--error-unmatch", module.name) is None:
        return None
    return _git(module.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *words: str) -> str | None:
    """Return the output of a git command; None if git is not installed or the command fails."""
    try:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def device_name() -> str:
    """Return number and name of the accelerators, or the processor's architecture and number of threads."""
    import torch  # late: this module is imported before anything slow

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return cpu_name()


def cpu_name() -> str:
    """Return the processor's architecture and the number of threads that PyTorch uses."""
    import torch  # late, as above

    threads = torch.get_num_threads()
    return f"CPU {platform.machine()}, {threads} thread{'s' if threads > 1 else ''}"


def now() -> str:
    """Return the local time with its zone in ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")

"""The problems of --report_to trackio."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

from adapter_qa.config.options import TrainingOptions
from adapter_qa.core.files import find_obstacle

TRACKIO_VERSION = "0.20.2"  # the newest one beside the pinned huggingface-hub


def trackio_problems(training: TrainingOptions) -> list[str]:
    """Return why --report_to trackio cannot log: the library would fail when the training begins."""
    installed = importlib.util.find_spec("trackio") is not None
    names = training.report_to or []
    if "trackio" not in names and not (installed and "all" in names):
        return []
    remedy = f'pip install "trackio=={TRACKIO_VERSION}"'
    if not installed:
        return [f"--report_to trackio: is not installed; {remedy}"]
    from importlib.metadata import version as installed_version  # late: slow

    version = installed_version("trackio")
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < tuple(map(int, TRACKIO_VERSION.split("."))):
        return [f"--report_to trackio: version {version} is installed, which lacks what transformers calls; {remedy}"]
    from huggingface_hub import constants, get_token  # late: slow

    space = training.trackio_space_id or os.environ.get("TRACKIO_SPACE_ID")
    if space is None:
        folder = Path(os.environ.get("TRACKIO_DIR") or Path(constants.HF_HOME) / "trackio").absolute()
        if find_obstacle(folder) is None:
            return []
        return [f"--report_to trackio: {folder} cannot be written; name another folder in TRACKIO_DIR"]
    if constants.HF_HUB_OFFLINE:
        return [f"--trackio_space_id {space}: cannot be reached, HF_HUB_OFFLINE is set; leave out one of the two"]
    if get_token() is None:
        return [f"--trackio_space_id {space}: needs a login; run hf auth login or set HF_TOKEN"]
    return []

"""Versions, commits, devices and hidden secrets in run.json (adapter_qa/runs/provenance.py)."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support.scripts import ROOT

import adapter_qa
from adapter_qa.runs.provenance import PACKAGES, device_name, hide_secrets, now, source_commit, versions

PRINT_PROVENANCE = """
import json
from adapter_qa.runs import provenance
print(json.dumps([provenance.__file__, provenance.source_commit(), provenance.versions()["adapter-qa"]]))
"""


def git(folder: Path, *words: str) -> str:
    author = ("-c", "user.name=Ana", "-c", "user.email=ana@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *author, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def copy_package(parent: Path) -> Path:
    """Copy the package below a folder, as a checkout or an installation has it."""
    shutil.copytree(ROOT / "adapter_qa", parent / "adapter_qa", ignore=shutil.ignore_patterns("__pycache__"))
    return parent


def provenance_of(parent: Path, **environment: str) -> tuple[str | None, str]:
    """Return commit and version that a copy of the package records."""
    variables = {**os.environ, "PYTHONPATH": str(parent), "GIT_CEILING_DIRECTORIES": "/tmp", **environment}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_PROVENANCE], cwd=parent, env=variables, capture_output=True, text=True, check=True
    )
    file, commit, version = json.loads(done.stdout)
    assert Path(file).is_relative_to(parent)
    return commit, version


def test_checkout_records_its_commit_and_changes(tmp_path: Path) -> None:
    checkout = copy_package(tmp_path)
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "first")
    git(checkout, "tag", "-a", "v1.0", "-m", "a tag must not hide the commit")
    commit = git(checkout, "rev-parse", "HEAD")
    assert len(commit) == 40
    assert provenance_of(checkout) == (commit, adapter_qa.__version__)
    (checkout / "adapter_qa" / "__init__.py").write_text('__version__ = "9.9"\n')
    assert provenance_of(checkout) == (f"{commit}-dirty", "9.9")


def test_installed_copy_inside_a_foreign_repository_records_no_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text(".venv\n")
    git(tmp_path, "add", ".gitignore")
    git(tmp_path, "commit", "-q", "-m", "of another project")
    installed = copy_package(tmp_path / ".venv" / "lib" / "site-packages")
    assert provenance_of(installed) == (None, adapter_qa.__version__)


@pytest.mark.parametrize("path", [None, "/nonexistent"])
def test_no_commit_without_repository_or_without_git(tmp_path: Path, path: str | None) -> None:
    copy = copy_package(tmp_path)
    if path is not None:
        git(copy, "init", "-q")
        git(copy, "add", ".")
        git(copy, "commit", "-q", "-m", "first")
    assert provenance_of(copy, **({} if path is None else {"PATH": path})) == (None, adapter_qa.__version__)


def test_commit_of_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("adapter_qa.runs.provenance.__file__", str(tmp_path / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert source_commit() is None


def test_versions_are_those_of_the_imported_packages() -> None:
    recorded = versions()
    assert set(recorded) == {"python", "adapter-qa", *PACKAGES}
    assert recorded["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert (recorded["transformers"], recorded["numpy"]) == (transformers.__version__, np.__version__)


def test_device_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert re.fullmatch(r"CPU \w+, \d+ threads?", device_name())
    gpu: dict[str, Any] = {"is_available": lambda: True, "device_count": lambda: 2}
    for name, function in (gpu | {"get_device_name": lambda index: f"GPU {index}"}).items():
        monkeypatch.setattr(torch.cuda, name, function)
    assert device_name() == "2 x GPU 0"


def test_now_is_local_time_with_its_zone() -> None:
    moment = datetime.datetime.strptime(now(), "%Y-%m-%dT%H:%M:%S%z")
    assert abs((datetime.datetime.now(datetime.UTC) - moment).total_seconds()) < 5


def test_tokens_on_the_command_line_are_hidden() -> None:
    words = ["--seed", "1", "--hub_token", "hf_secret", "--push_to_hub_token=hf_other", "--label_all_tokens", "True"]
    assert hide_secrets(words) == [
        "--seed", "1", "--hub_token", "<hidden>", "--push_to_hub_token=<hidden>", "--label_all_tokens", "True",
    ]  # fmt: skip

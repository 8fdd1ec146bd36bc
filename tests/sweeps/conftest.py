"""A function that writes the file of a sweep; trials run a trainer without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.sweeps import FAKE, WriteSweep

import sweep_qa
from adapter_qa.sweeps import summary, worker


@pytest.fixture(autouse=True)
def _fast_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_qa, "SCRIPT", FAKE)
    monkeypatch.setattr(worker, "POLL", 0.05)
    monkeypatch.setattr(worker, "IDLE", 0.05)
    monkeypatch.setattr(summary, "draw_trials", lambda *_: None)  # takes half a second
    monkeypatch.setenv("FAKE_SECONDS", "0.1")


@pytest.fixture
def write_sweep(tmp_path: Path) -> WriteSweep:
    """Return a function that writes a sweep's file.

    `options` are added to the default options. Other entries replace the default entries; `...` removes an entry.
    """

    def write(**entries: Any) -> Path:
        data = tmp_path / "data.json"
        data.write_text("{}", encoding="utf-8")
        options = {"model_name_or_path": "base", "do_train": True, "do_eval": True}
        options |= {"train_file": str(data), "validation_file": str(data), **entries.pop("options", {})}
        search = entries.pop("search", {"seed": {"choices": [1, 2, 3]}})
        document = {"trials": 3, "sampler": "grid", "options": options, "search": search, **entries}
        path = tmp_path / "sweep.yaml"
        document = {name: value for name, value in document.items() if value is not ...}
        path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), encoding="utf-8")
        return path

    return write

"""Run folders made up for the tests of the report: run.json as the training scripts write it, with chosen figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

OPTIONS = {
    "model_name_or_path": "base", "train_file": "train.json", "validation_file": "dev.json", "max_eval_samples": None,
    "version_2_with_negative": False, "train_adapter": True, "load_lang_adapter": None, "fuse_adapters": None,
    "adapter_composition": "stack", "do_train": True, "do_eval": True, "seed": 42, "data_seed": None,
    "learning_rate": 1e-4, "weight_decay": 0.0, "max_seq_length": 128, "doc_stride": 32, "report_to": ["tensorboard"],
}  # fmt: skip
PARAMETERS = {
    "base": 1000, "added": 110, "trainable": 120, "percent_added": 11.0, "parts": {"qa": 110, "head": 10}
}  # fmt: skip


def made_run(folder: Path, f1: float | None = 50.0, *, status: str = "finished", **options: Any) -> Path:
    """A question answering run of two epochs, of which the second is the best, with an F1 of `f1`."""
    evaluations = [
        {"eval_f1": score, "eval_exact": score - 10, "eval_loss": loss, "epoch": epoch, "step": int(epoch * 5)}
        for epoch, score, loss in ((1.0, (f1 or 0) / 2, 3.0), (2.0, f1 or 0, 2.0))
    ]
    document: dict[str, Any] = {
        "status": status,
        "script": "run_qa_adapter.py",
        "options": {**OPTIONS, "output_dir": str(folder), **options},
        "setup": "Stack[qa]",
        "parameters": PARAMETERS,
        "data": {"train": {"file": "train.json", "sha256": "a" * 64}, "eval": {"file": "dev.json", "sha256": "b" * 64}},
        "times": {"started": "2026-11-25T03:43:35+0000", "seconds": 70.0},
        "history": evaluations if f1 is not None else [],
        "losses": [{"loss": 5.0 - step / 4, "epoch": step / 5, "step": step} for step in range(1, 11)],
        "best": {"step": 10, "metric": f1},
    }
    if status == "finished":
        train = {"train_runtime": 60.0 + (f1 or 0), "epoch": 2.0}
        document["metrics"] = {"train": train} | ({"eval": evaluations[-1]} if f1 is not None else {})
    folder.mkdir(parents=True, exist_ok=True)
    return write_run(folder, document)


def write_run(folder: Path, document: dict[str, Any]) -> Path:
    """Writes run.json; returns the folder."""
    (folder / "run.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def change_run(folder: Path, **changes: Any) -> Path:
    """Changes top-level keys of a run.json."""
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return write_run(folder, document | changes)

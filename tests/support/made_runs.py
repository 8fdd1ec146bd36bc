"""Run folders with made-up results: run.json as the training scripts write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adapter_qa.core.files import file_fingerprint
from adapter_qa.data.questions import Question
from adapter_qa.data.squad_metrics import squad_metrics
from adapter_qa.models.metadata import FusionAttentionDocument
from adapter_qa.reporting.groups import Group, group_runs
from adapter_qa.reporting.runs import Run, find_runs, read_run

OPTIONS = {
    "model_name_or_path": "base", "train_file": "train.json", "validation_file": "dev.json", "max_eval_samples": None,
    "version_2_with_negative": False, "train_adapter": True, "load_lang_adapter": None, "fuse_adapters": None,
    "adapter_composition": "stack", "do_train": True, "do_eval": True, "seed": 42, "data_seed": None,
    "learning_rate": 1e-4, "weight_decay": 0.0, "max_seq_length": 128, "doc_stride": 32, "report_to": ["tensorboard"],
}  # fmt: skip
PARAMETERS = {
    "base": 1000, "added": 110, "trainable": 120, "percent_added": 11.0, "parts": {"qa": 110, "head": 10}
}  # fmt: skip
ATTENTION: FusionAttentionDocument = {
    "adapters": ["qa", "ner"],
    "windows": 7,
    "places": ["0", "1", "2"],
    "question": [[0.7, 0.3], [0.5, 0.5], [0.1, 0.9]],
    "context": [[0.6, 0.4], [0.5, 0.5], [0.2, 0.8]],
    "all": [[0.65, 0.35], [0.5, 0.5], [0.15, 0.85]],
}
WRONG_ANSWER = "errado"


def make_run(folder: Path, f1: float | None = 50.0, *, status: str = "finished", **options: Any) -> Path:
    """Write a question answering run of two epochs, the second of which is the best and has this F1."""
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
    return _write_run(folder, document)


def update_run(folder: Path, **changes: Any) -> Path:
    """Replace top-level keys of a run.json."""
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return _write_run(folder, document | changes)


def _write_run(folder: Path, document: dict[str, Any]) -> Path:
    (folder / "run.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def write_predictions(folder: Path, answers: dict[str, Any]) -> Path:
    """Write the answers of a run."""
    path = folder / "eval_predictions.json"
    path.write_text(json.dumps(answers), encoding="utf-8")
    return path


def make_answered_run(folder: Path, data: Path, questions: list[Question], wrong: int, **options: Any) -> Run:
    """Write a run whose first answers are `WRONG_ANSWER` and the others right, with the F1 that this gives."""
    answers = {
        question.id: WRONG_ANSWER if index < wrong else question.answer_texts[0]
        for index, question in enumerate(questions)
    }
    scores = squad_metrics(answers, questions)
    make_run(folder, scores["f1"], validation_file=str(data), **options)
    update_run(
        folder,
        data={"eval": file_fingerprint(data) | {"questions": len(questions)}},
        metrics={"eval": {"eval_f1": scores["f1"], "eval_exact": scores["exact"]}, "train": {"train_runtime": 60.0}},
    )
    write_predictions(folder, answers)
    return read_run(folder)


def make_three_groups(folder: Path) -> list[Group]:
    """Return an adapter with two seeds, full fine-tuning, and a model that was only evaluated."""
    for seed, f1 in ((1, 50.0), (2, 54.0)):
        make_run(folder / f"a{seed}", f1, seed=seed)
    full = {"base": 1000, "added": 0, "trainable": 1000, "parts": {"head": 10}}
    update_run(make_run(folder / "full", 48.0, train_adapter=False), parameters=full, setup="full fine-tuning")
    update_run(make_run(folder / "none", 5.0, do_train=False, weight_decay=1.0), setup="full $_{fine}$-tuning")
    return groups_in(folder)


def groups_in(*folders: Path) -> list[Group]:
    """Return the groups of the runs in folders, all of which are readable and distinct."""
    runs, problems = find_runs(folders)
    groups, notes = group_runs(runs)
    assert problems == []
    assert notes == []
    return groups

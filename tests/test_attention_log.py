"""Fusion attention of a run: its file and its curves in TensorBoard."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

import run_qa_adapter
import trainer_qa


@pytest.fixture
def logged_figures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list of the logged figures, which are texts in place of matplotlib figures."""
    logged: list[str] = []
    figures: Any = ModuleType("adapter_qa.reporting.figures")
    figures.attention_figure = lambda document: "figure"
    monkeypatch.setitem(sys.modules, "adapter_qa.reporting.figures", figures)
    monkeypatch.setattr(trainer_qa, "find_spec", lambda name: name)
    monkeypatch.setattr(SummaryWriter, "add_figure", lambda self, tag, figure, step: logged.append(figure))
    return logged


def read_document(run: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((run / "fusion_attention.json").read_text(encoding="utf-8"))
    return document


def test_run_saves_and_logs_the_attention_of_its_evaluations(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path, logged_figures: list[str]
) -> None:
    """The file has the attention of the best weights; an evaluation of the saved run gives the same attention."""
    train, dev = map(str, squad_files)
    run_dir, again_dir = tmp_path / "run", tmp_path / "again"
    evaluation = ["--validation_file", dev, "--do_eval", "--max_seq_length", "48", "--doc_stride", "8"]
    evaluation += ["--disable_tqdm", "True", "--report_to", "tensorboard"]
    training = ["--random_init", "True", "--fuse_adapters", "qa=new", "ner=new", "--train_file", train, "--do_train"]
    training += ["--num_train_epochs", "2", "--learning_rate", "1e-2", "--output_dir", str(run_dir)]
    assert run_qa_adapter.main(["--model_name_or_path", str(tiny_bert), *evaluation, *training]) == 0

    document = read_document(run_dir)
    record = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
    assert list(document) == ["adapters", "windows", "places", "question", "context", "all"]
    assert document["windows"] == record["data"]["eval"]["windows"]
    assert document["places"] == ["0", "1", "2", "3"]

    events = [EventAccumulator(str(path)).Reload() for path in run_dir.rglob("events.*")]
    tags = {tag for file in events for tag in file.Tags()["scalars"] if tag.startswith("fusion_attention/")}
    assert tags == {f"fusion_attention/{site}/{name}" for site in range(4) for name in ("qa", "ner")}
    points = [point for file in events for point in file.Scalars("fusion_attention/2/ner")]
    points.sort(key=lambda point: point.wall_time)
    assert [point.step for point in points] == [5, 10, record["best"]["step"]]  # each epoch, the best weights
    assert points[-1].value == pytest.approx(document["all"][2][1], abs=1e-6)
    assert logged_figures == ["figure"]

    again = ["--model_name_or_path", str(run_dir / "base"), *evaluation, "--load_adapter", str(run_dir)]
    assert run_qa_adapter.main([*again, "--output_dir", str(again_dir)]) == 0
    document_again = read_document(again_dir)
    for part in ("question", "context", "all"):
        np.testing.assert_allclose(document_again[part], document[part], rtol=0, atol=1e-6)


def test_without_matplotlib_only_numbers_are_logged(
    tmp_path: Path, logged_figures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_qa, "find_spec", lambda name: None)
    document: Any = {"adapters": ["a", "b"], "windows": 1, "places": ["0"], "all": [[0.25, 0.75]]}
    with SummaryWriter(str(tmp_path)) as writer:
        trainer_qa.log_fusion_attention(writer, document, 7, with_figure=True)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [events.Scalars(f"fusion_attention/0/{name}")[0].value for name in "ab"] == [0.25, 0.75]
    assert logged_figures == []

"""Runs that version 0.1.0 left on disk count as finished, resume, load and answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.scripts import ROOT, override

import run_mlm_adapter
import run_ner_adapter
import run_qa_adapter
from adapter_qa.training import training_args
from predictor_qa import QuestionAnswerer

RUNS = ROOT / "tests" / "fixtures" / "runs_0.1.0"
COMMANDS: dict[str, list[str]] = json.loads((RUNS / "commands.json").read_text(encoding="utf-8"))
ANSWERS: dict[str, Any] = json.loads((RUNS / "answers.json").read_text(encoding="utf-8"))
QUESTION = ("Onde nasceu Ana?", "Ana nasceu em Recife e é médica. Davi nasceu em Natal e é poeta.")


def main_of(name: str) -> Callable[[list[str]], int]:
    return {"mlm": run_mlm_adapter.main, "ner": run_ner_adapter.main}.get(name, run_qa_adapter.main)


def read_run(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return document


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the runs to a folder and make it the working folder, as it was for the original runs."""
    copy = tmp_path / "runs"
    shutil.copytree(RUNS, copy)
    for path in copy.rglob("*_setup.json"):
        path.write_text(path.read_text(encoding="utf-8").replace("FOLDER", str(copy)), encoding="utf-8")
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def bf16_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings be in bfloat16 by default, which version 0.1.0 did not do on a CPU."""
    monkeypatch.setattr(training_args, "cpu_bf16_units", lambda: "AMX")


@pytest.mark.usefixtures("bf16_units")
@pytest.mark.parametrize("name", ["mlm", "ner", "qa", "fusion", "full"])
def test_finished_runs_count_as_finished(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in (folder / name).rglob("*") if path.is_file()}
    assert main_of(name)(COMMANDS[name]) == 0
    assert f"{name}: this run is finished" in capsys.readouterr().out
    after = {path: path.read_bytes() for path in (folder / name).rglob("*") if path.is_file()}
    after.pop(folder / name / "run.lock", None)
    assert after == before


@pytest.mark.usefixtures("bf16_units")
def test_interrupted_run_resumes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_run(folder / "interrupted")
    assert (before["status"], len(before["history"])) == ("interrupted", 1)
    assert run_qa_adapter.main(COMMANDS["interrupted"]) == 0
    out = capsys.readouterr().out
    assert "  resumes     from checkpoint-4\n" in out
    assert "  precision   float32: as the run in interrupted began\n  step        plain\n" in out
    after = read_run(folder / "interrupted")
    assert (after["status"], after["steps"], after["epochs"]) == ("finished", 6, 2.0)
    assert after["history"][0] == before["history"][0]
    assert [after["options"][name] for name in ("bf16", "fp32_products", "fast_step")] == [False, "ieee", False]
    assert len(after["history"]) == 2
    # Its version kept the best checkpoint.
    kept = [path.name for path in (folder / "interrupted").glob("checkpoint-*")]
    assert kept == [f"checkpoint-{after['best']['step']}"]


@pytest.mark.parametrize("name", ["qa", "fusion", "full"])
def test_runs_answer_as_in_version_0_1_0(folder: Path, name: str) -> None:
    answer = QuestionAnswerer(name).ask(*QUESTION)
    assert (answer.text, answer.start, answer.end) == tuple(ANSWERS[name][key] for key in ("answer", "start", "end"))
    # Version 0.1.0 had the softmax over the candidates that it kept.
    share = answer.probability / sum(candidate.probability for candidate in answer.n_best)
    assert share == pytest.approx(ANSWERS[name]["probability"], rel=1e-3)


def test_saved_adapters_are_loaded_into_a_new_fusion(folder: Path) -> None:
    argv = override(COMMANDS["fusion"], "--num_train_epochs", "1", "--output_dir", "new_fusion")
    assert run_qa_adapter.main(argv) == 0
    adapters = [folder / run / "adapters-fusion" / "mlm" / "adapter.safetensors" for run in ("fusion", "new_fusion")]
    before, after = (load_file(path) for path in adapters)
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)


def test_saved_fusion_is_evaluated_with_its_scores(folder: Path) -> None:
    data = ["--validation_file", "data/dev.json", "--max_seq_length", "64", "--doc_stride", "16"]
    argv = ["--model_name_or_path", "base", "--do_eval", *data, "--load_adapter", "fusion", "--report_to", "none"]
    assert run_qa_adapter.main([*argv, "--output_dir", "evaluated"]) == 0
    before, after = (read_run(folder / name)["metrics"]["eval"] for name in ("fusion", "evaluated"))
    assert after["eval_f1"] == before["eval_f1"]
    assert after["eval_loss"] == pytest.approx(before["eval_loss"], rel=1e-4)

"""Runs that set questions aside: what they fit, save and score, and that asking and exporting use it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.questions import make_questions, write_squad
from support.scripts import override, run_main

import run_qa_adapter
from adapter_qa.data.partition import calibration_parts
from adapter_qa.data.questions import Question
from adapter_qa.data.squad_metrics import squad_metrics
from adapter_qa.reporting.error_analysis import evaluated_questions, question_source, read_answers
from adapter_qa.reporting.runs import read_run
from predictor_qa import Overrides, QuestionAnswerer

SHARE = 0.3


def v2_questions(count: int, seed: int) -> list[Question]:
    """Return questions about articles of two, every third without an answer."""
    return [
        replace(
            question,
            id=f"s{seed}{question.id}",
            title=f"article {number // 2}",
            answer_texts=() if number % 3 == 0 else question.answer_texts,
            answer_starts=() if number % 3 == 0 else question.answer_starts,
        )
        for number, question in enumerate(make_questions(count, seed))
    ]


class Runs:
    """A trained run with --calibration_share in the folder share, and its files."""

    def __init__(self, folder: Path, base: Path):
        self.folder = folder
        self.dev = v2_questions(20, 7)
        files = {"train": v2_questions(18, 8), "dev": self.dev, "other": v2_questions(20, 9)}
        self.paths = {name: write_squad(folder / f"{name}.json", part) for name, part in files.items()}
        self.argv = [
            "--model_name_or_path", str(base), "--validation_file", str(self.paths["dev"]), "--do_eval",
            "--version_2_with_negative", "--max_seq_length", "64", "--doc_stride", "16", "--report_to", "none",
        ]  # fmt: skip
        self.printed = self.run(
            "--train_file", self.paths["train"], "--do_train", "--num_train_epochs", "2", "--learning_rate", "1e-2",
            "--calibration_share", SHARE, "--output_dir", "share",
        )  # fmt: skip

    def run(self, *argv: object) -> str:
        process = run_main(run_qa_adapter.main, *self.argv, *argv, cwd=self.folder)
        assert process.returncode == 0, process.stderr[-3000:]
        return process.stdout

    def read(self, *parts: str) -> Any:
        return json.loads(self.folder.joinpath(*parts).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Runs:
    return Runs(tmp_path_factory.mktemp("calibrated"), tiny_bert)


def test_questions_that_are_set_aside_are_in_no_score(runs: Runs) -> None:
    fitted_on, scored = calibration_parts(runs.dev, SHARE)
    assert len(fitted_on) + len(scored) == len(runs.dev)
    assert not {question.title for question in fitted_on} & {question.title for question in scored}
    assert list(runs.read("share", "eval_predictions.json")) == [question.id for question in scored]
    assert list(runs.read("share", "calibration_predictions.json")) == [question.id for question in fitted_on]
    document = runs.read("share", "run.json")
    assert document["data"]["eval"]["questions"] == len(scored)
    assert document["data"]["calibration"]["questions"] == len(fitted_on)
    assert [entry["eval_total"] for entry in document["history"]] == [len(scored)] * 2
    results = runs.read("share", "eval_results.json")
    assert (results["eval_questions"], document["metrics"]["calibration"]["calibration_questions"]) == (
        len(scored), len(fitted_on),
    )  # fmt: skip


def test_the_fit_is_saved_recorded_and_used(runs: Runs) -> None:
    calibration, results = runs.read("share", "calibration.json"), runs.read("share", "eval_results.json")
    assert calibration == runs.read("share", "run.json")["calibration"]
    assert calibration["temperature"] != 1.0
    assert calibration["log_loss"]["after"] < calibration["log_loss"]["before"]
    windows = runs.read("share", "adapters-qa", "adapter_setup.json")["trainer"]["windows"]
    fitted = {name: calibration[name] for name in ("temperature", "null_score_diff_threshold")}
    assert {name: windows[name] for name in fitted} == fitted
    fitted_on, scored = calibration_parts(runs.dev, SHARE)
    answerer = QuestionAnswerer(runs.folder / "share", device="cpu")
    asked = answerer.answer(scored)
    assert asked.texts() == runs.read("share", "eval_predictions.json")
    n_best = runs.read("share", "eval_nbest_predictions.json")
    for question in scored:
        assert [candidate.probability for candidate in asked.n_best[question.id]] == pytest.approx(
            [entry["probability"] for entry in n_best[question.id]], abs=1e-5
        )
    # The threshold is the best one of the other questions, not of those that are scored.
    answers = answerer.answer(fitted_on)
    official = squad_metrics(answers.span_texts(), fitted_on, version_2=True, null_odds=answers.null_odds)
    assert calibration["f1"]["after"] == pytest.approx(official["best_f1"])
    zero = Overrides(null_score_diff_threshold=0.0)
    plain = QuestionAnswerer(runs.folder / "share", overrides=zero, device="cpu").answer(scored)
    assert results["eval_f1_uncalibrated"] == pytest.approx(squad_metrics(plain.texts(), scored, version_2=True)["f1"])
    assert 0 <= results["eval_ece"] <= 1
    assert {
        "eval_brier",
        "eval_brier_uncalibrated",
        "eval_ece_uncalibrated",
        "eval_log_loss",
        "eval_log_loss_uncalibrated",
    } <= {*results}
    curves = runs.read("share", "eval_curves.json")
    assert {"reliability", "uncalibrated", "precision_recall_exact", "precision_recall_f1"} == {*curves}
    assert sum(part["questions"] for part in curves["reliability"]) == len(scored)
    assert f"calibration: temperature {calibration['temperature']:.2f}, log loss " in runs.printed
    assert "\nevaluation without -> with calibration:\n  F1 " in runs.printed


def test_a_saved_run_is_evaluated_as_it_was_calibrated(runs: Runs) -> None:
    runs.run("--load_adapter", "share", "--calibration_file", runs.paths["other"], "--output_dir", "file")
    calibration = runs.read("file", "calibration.json")
    assert calibration["source"]["file"] == str(runs.paths["other"])
    assert calibration["questions"] == 20
    assert runs.read("file", "eval_results.json")["eval_total"] == len(runs.dev)
    # Calibrated anew, it does not begin with the earlier fit.
    assert runs.read("file", "run.json")["options"]["temperature"] == 1.0
    runs.run("--load_adapter", "file", "--output_dir", "again")
    first, again = (runs.read(name, "eval_results.json") for name in ("file", "again"))
    for name in ("eval_f1", "eval_exact", "eval_ece", "eval_brier", "eval_NoAns_f1"):
        assert again[name] == pytest.approx(first[name], abs=1e-6)
    options = runs.read("again", "run.json")["options"]
    assert {name: options[name] for name in ("temperature", "null_score_diff_threshold")} == {
        name: calibration[name] for name in ("temperature", "null_score_diff_threshold")
    }
    finished = runs.run("--load_adapter", "file", "--output_dir", "again")
    assert "this run is finished" in finished


def test_v1_has_a_temperature_and_no_threshold(runs: Runs, squad_files: tuple[Path, Path]) -> None:
    argv = [word for word in runs.argv if word != "--version_2_with_negative"]
    argv = override(
        argv, "--validation_file", squad_files[1], "--calibration_file", squad_files[0], "--output_dir", "v1"
    )
    process = run_main(run_qa_adapter.main, *argv, "--train_adapter", "False", cwd=runs.folder)
    assert process.returncode == 0, process.stderr[-3000:]
    calibration = runs.read("v1", "calibration.json")
    assert "null_score_diff_threshold" not in calibration
    windows = runs.read("v1", "full_setup.json")["trainer"]["windows"]
    assert windows["temperature"] == calibration["temperature"] != 1.0
    assert windows["null_score_diff_threshold"] == 0.0
    assert QuestionAnswerer(runs.folder / "v1", device="cpu").options.temperature == calibration["temperature"]


def test_questions_about_evaluated_contexts_are_refused(runs: Runs) -> None:
    argv = [*runs.argv, "--calibration_file", runs.paths["dev"], "--output_dir", "refused"]
    process = run_main(run_qa_adapter.main, *argv, cwd=runs.folder)
    assert process.returncode == 2
    assert "the contexts of 20 of its 20 questions are also evaluated on" in process.stderr
    one = write_squad(runs.folder / "one.json", runs.dev[:2])  # one article
    share = override([*runs.argv, "--calibration_share", "0.5", "--output_dir", "refused"], "--validation_file", one)
    process = run_main(run_qa_adapter.main, *share, cwd=runs.folder)
    assert process.returncode == 2
    assert "--calibration_share 0.5: the evaluation questions are about one article" in process.stderr


def test_reports_read_the_questions_that_were_scored(runs: Runs) -> None:
    run = read_run(runs.folder / "share")
    questions = evaluated_questions(run)
    assert [question.id for question in questions] == list(runs.read("share", "eval_predictions.json"))
    read_answers(run, questions)  # compares their F1 with the recorded one
    assert question_source(run).set_aside == SHARE
    assert "without --calibration_share 0.3" in run.describe_evaluation()
    options = run.document.options | {"calibration_share": 0.4}
    others = replace(run, document=msgspec.structs.replace(run.document, options=options))
    assert others.evaluated != run.evaluated

"""How sure answers are: curves of runs, their picture and their table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.made_runs import groups_in, make_run, update_run

from adapter_qa.reporting import figures
from adapter_qa.reporting.calibration_quality import calibration_row, curves_of
from adapter_qa.reporting.differences import compare_to_best
from adapter_qa.reporting.html_report import write_report

MEASURES = {
    "eval_f1": 60.0, "eval_exact": 50.0, "eval_ece": 0.04, "eval_brier": 0.2, "eval_log_loss": 1.5,
    "eval_f1_uncalibrated": 55.04, "eval_exact_uncalibrated": 50.0, "eval_ece_uncalibrated": 0.125,
    "eval_brier_uncalibrated": 0.25, "eval_log_loss_uncalibrated": 2.0,
}  # fmt: skip


def bins(shift: float) -> list[dict[str, float]]:
    return [{"probability": p, "correct": p + shift, "questions": 5} for p in (0.2, 0.5, 0.8)]


def make_runs(folder: Path) -> None:
    """Write two seeds of a calibrated run, and a run of SQuAD v1 without calibration."""
    curve = {"odds": [-1.0, 2.0], "precision": [0.9, 0.6], "recall": [0.4, 0.7], "average_precision": 0.5}
    for seed, ece in ((1, 0.04), (2, 0.06)):
        path = update_run(make_run(folder / f"a{seed}", seed=seed), metrics={"eval": {**MEASURES, "eval_ece": ece}})
        document = {"reliability": bins(0.01 * seed), "uncalibrated": {"reliability": bins(-0.1)}}
        document |= {"precision_recall_f1": curve, "precision_recall_exact": curve}
        (path / "eval_curves.json").write_text(json.dumps(document), encoding="utf-8")
    plain = update_run(
        make_run(folder / "plain", 40.0, weight_decay=1.0), metrics={"eval": {"eval_f1": 40.0, "eval_ece": 0.3}}
    )
    (plain / "eval_curves.json").write_text(json.dumps({"reliability": bins(-0.2)}), encoding="utf-8")
    make_run(folder / "earlier", 30.0, weight_decay=2.0)


def test_table_has_means_without_and_with_calibration(tmp_path: Path) -> None:
    make_runs(tmp_path)
    calibrated, plain, earlier = groups_in(tmp_path)
    assert calibration_row(calibrated).cells == [
        "0.125 → 0.050",
        "0.250 → 0.200",
        "2.000 → 1.500",
        "55.0 → 60.0",
        "50.0 → 50.0",
    ]
    assert calibration_row(plain).cells == ["0.300", "", "", "40.0", ""]
    assert calibration_row(earlier).cells[0] == ""


def test_picture_shows_the_curves_of_the_first_seed(tmp_path: Path) -> None:
    make_runs(tmp_path)
    groups = groups_in(tmp_path)
    curves, problems = curves_of(groups)
    assert (list(curves), problems) == ([1, 2], [])
    figure = figures.calibration_figure(groups[:2], curves)
    reliability, answering = figure.axes
    diagonal, calibrated, uncalibrated, plain = (np.array(line.get_xydata()) for line in reliability.lines)
    assert diagonal.tolist() == [[0, 0], [1, 1]]
    for line, shift in ((calibrated, 0.01), (uncalibrated, -0.1), (plain, -0.2)):
        assert line == pytest.approx(np.array([[p, p + shift] for p in (0.2, 0.5, 0.8)]))
    assert [np.array(line.get_xydata()).tolist() for line in answering.lines] == [[[0.4, 0.9], [0.7, 0.6]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "1  a1 +1: Stack[qa]", "1  a1 +1: Stack[qa], without calibration", "2  plain: Stack[qa]",
    ]  # fmt: skip
    assert len(figures.calibration_figure(groups[1:2], curves).axes) == 1  # SQuAD v1


def test_page_has_the_section(tmp_path: Path) -> None:
    make_runs(tmp_path / "runs")
    page = write_report(*compare_to_best(groups_in(tmp_path / "runs")), [], tmp_path / "report")
    text = page.read_text(encoding="utf-8")
    assert "<h2>How sure the answers are</h2>" in text
    assert "<td>0.125 → 0.050</td><td>0.250 → 0.200</td>" in text
    assert (tmp_path / "report" / "calibration_1.png").read_bytes().startswith(b"\x89PNG")


def test_curves_of_another_program_are_refused(tmp_path: Path) -> None:
    (make_run(tmp_path) / "eval_curves.json").write_text('{"reliability": 3}', encoding="utf-8")
    curves, (problem,) = curves_of(groups_in(tmp_path))
    assert (curves, "not written by this trainer" in problem) == ({}, True)

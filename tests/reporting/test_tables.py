"""The table of runs for a terminal and as CSV, Markdown and JSON."""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path

import pytest
from support.made_runs import groups_in, make_run, update_run

from adapter_qa.reporting.tables import as_csv, as_json, as_markdown, as_terminal, format_duration, shorten


def cells_of(text: str) -> list[list[str]]:
    """Return the cells of a terminal table, which two spaces separate."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_terminal_table(tmp_path: Path) -> None:
    for seed, f1 in ((1, 50.0), (2, 53.0)):
        make_run(tmp_path / f"a{seed}", f1, seed=seed)
    make_run(tmp_path / "b", 45.123, learning_rate=3e-5)
    make_run(tmp_path / "c", 30.0, status="failed")
    text, omitted = as_terminal(groups_in(tmp_path), None)
    assert omitted == []
    assert cells_of(text) == [
        ["setup", "F1", "EM", "n", "best epoch", "trainable", "% of base", "learning_rate", "train time", "status",
         "folder"],
        ["Stack[qa]", "51.50 ± 2.12", "41.50 ± 2.12", "2", "2", "120", "12.00", "0.0001", "1:52", "finished",
         f"{tmp_path}/a1 +1"],
        ["Stack[qa]", "45.12", "35.12", "1", "2", "120", "12.00", "3e-05", "1:45", "finished", f"{tmp_path}/b"],
        ["Stack[qa]", "30.00", "20.00", "1", "2", "120", "12.00", "0.0001", "failed", f"{tmp_path}/c"],
    ]  # fmt: skip


@pytest.mark.parametrize("width", [40, 60, 79, 100, 200])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    for number in range(3):
        make_run(tmp_path / ("x" * 100) / f"run {number}", 50.0 + number, weight_decay=0.1 * number)
    text, omitted = as_terminal(groups_in(tmp_path), width)
    headings = cells_of(text)[0]
    assert max(map(len, text.splitlines())) <= width
    assert {"setup", "F1", "status"} <= set(headings)
    assert set(omitted).isdisjoint(headings)
    assert ("EM" in omitted) == (width < 79)


def test_text_is_shortened_in_its_middle() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefghij", 6) == "ab…hij"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (3599.6, "1:00:00"), (7385, "2:03:05")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


def test_csv_has_unrounded_numbers(tmp_path: Path) -> None:
    for seed, f1 in ((1, 50.0), (2, 53.0)):
        make_run(tmp_path / f"a, {seed}", f1, seed=seed)
    make_run(tmp_path / "b", 100 / 3, learning_rate=3e-5)
    first, second = csv.DictReader(io.StringIO(as_csv(groups_in(tmp_path))))
    assert float(first["f1_mean"]) == 51.5
    assert float(first["f1_deviation"]) == statistics.stdev([50, 53])
    assert first["folders"] == f"{tmp_path}/a, 1 {tmp_path}/a, 2"
    assert (first["seeds"], first["n"]) == ("1 2", "2")
    assert float(second["f1_mean"]) == 100 / 3
    assert (second["f1_deviation"], second["learning_rate"]) == ("", "3e-05")


def test_json_has_every_run_and_null_for_nan(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 50.0, seed=1)
    make_run(tmp_path / "b", 53.0, seed=2)
    update_run(tmp_path / "b", metrics={"eval": {"eval_f1": 53.0, "eval_loss": float("nan")}})
    (group,) = json.loads(as_json(groups_in(tmp_path)), parse_constant=pytest.fail)
    assert (group["f1_mean"], group["n"], group["options"]) == (51.5, 2, {"learning_rate": 1e-4})
    assert [(run["seed"], run["f1"], run["loss"]) for run in group["runs"]] == [(1, 50.0, 2.0), (2, 53.0, None)]


def test_markdown_escapes_pipes(tmp_path: Path) -> None:
    make_run(tmp_path / "a|b", 50.0)
    headings, rule, row = as_markdown(groups_in(tmp_path)).splitlines()
    assert headings.count("|") == rule.count("|") == row.replace("\\|", "").count("|")
    assert row.endswith(f"| {tmp_path}/a\\|b |")


def test_control_characters_are_escaped(tmp_path: Path) -> None:
    update_run(make_run(tmp_path), setup="\x1b[31mred")
    groups = groups_in(tmp_path)
    assert "\x1b" not in as_terminal(groups, None)[0] + as_markdown(groups) + as_csv(groups) + as_json(groups)

"""The table of runs for a terminal and as CSV, Markdown and JSON."""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path

import pytest
from support.made_runs import groups_in, make_run, update_run

from adapter_qa.reporting.tables import NOT_COMPARABLE, as_csv, as_json, as_markdown, as_terminal, format_duration


def cells_of(text: str) -> list[list[str]]:
    """Return the cells of a terminal table, which two spaces separate."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_columns_show_what_varies_and_a_line_what_does_not(tmp_path: Path) -> None:
    for seed, f1 in ((1, 50.0), (2, 53.0)):
        make_run(tmp_path / f"a{seed}", f1, seed=seed)
    make_run(tmp_path / "b", 45.163, learning_rate=3e-5, max_train_samples=100)
    make_run(tmp_path / "c", 30.0, status="failed")
    text, omitted = as_terminal(groups_in(tmp_path), None)
    assert omitted == []
    title, shared, *table = text.splitlines()
    assert title == "evaluated on questions of dev.json"
    assert shared == "all rows: base base; train_file train.json; trainable 120; % of base 12.00"
    assert cells_of("\n".join(table)) == [
        ["setup", "F1", "EM", "seed", "best epoch", "learning_rate", "max_train_samples", "train time", "status",
         "folder"],
        ["Stack[qa]", "51.5 ± 2.1", "41.5 ± 2.1", "1 2", "2", "0.0001", "-", "1:52", "finished", f"{tmp_path}/a1 +1"],
        ["Stack[qa]", "45.2", "35.2", "42", "2", "3e-05", "100", "1:45", "finished", f"{tmp_path}/b"],
        ["Stack[qa]", "30.0", "20.0", "42", "2", "0.0001", "-", "failed", f"{tmp_path}/c"],
    ]  # fmt: skip


def test_what_cannot_be_compared_has_its_own_table(tmp_path: Path) -> None:
    make_run(tmp_path / "all", 50.0)
    make_run(tmp_path / "few", 90.0, max_eval_samples=5, learning_rate=0.5)
    source = {"file": "x/dev.json", "sha256": "b" * 64, "questions": 5}
    update_run(tmp_path / "few", data={"eval": source, "train": {"file": "train.json", "sha256": "a" * 64}})
    update_run(make_run(tmp_path / "ner", 70.0), script="run_ner_adapter.py",
               data={"eval": {"file": "d.conll", "sentences": 9}})  # fmt: skip
    text, _ = as_terminal(groups_in(tmp_path), 80)
    warning, few, every, ner = text.split("\n\n")
    assert warning.split() == NOT_COMPARABLE.split()
    assert few.splitlines()[0] == "evaluated on 5 questions of dev.json (--max_eval_samples 5)"
    assert "learning_rate 0.5;" in few
    assert "learning_rate 0.0001;" in every
    assert cells_of(ner)[0] == ["evaluated on 9 sentences of d.conll"]
    assert [cells_of(table)[-1][1] for table in (few, every, ner)] == ["90.0", "50.0", "70.0"]
    assert as_markdown(groups_in(tmp_path)).startswith(NOT_COMPARABLE)
    rows = csv.DictReader(io.StringIO(as_csv(groups_in(tmp_path))))
    assert next(rows)["evaluated_on"] == "5 questions of dev.json (--max_eval_samples 5)"


def test_an_evaluation_without_training_trained_nothing(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 50.0)
    make_run(tmp_path / "b", 40.0, do_train=False, learning_rate=0.5)  # its run.json counts 120 trainable parameters
    text, _ = as_terminal(groups_in(tmp_path), None)
    assert "learning_rate 0.0001;" in text
    headings, trained, untrained = cells_of(text)[-3:]
    assert headings[4:6] == ["trainable", "% of base"]
    assert trained[4:6] == ["120", "12.00"]
    assert untrained[4:6] == ["0", "0.00"]


@pytest.mark.parametrize(
    ("width", "left_out"),
    [(30, ["EM", "best epoch", "weight_decay", "train time"]), (40, ["EM", "best epoch", "train time"]),
     (60, []), (80, []), (120, [])],
)  # fmt: skip
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int, left_out: list[str]) -> None:
    for number in range(3):
        folder = make_run(tmp_path / ("x" * 100) / f"run_{number}" / "qa", 50.0 + number, weight_decay=0.1 * number)
        update_run(folder, setup="Stack[language, Fuse[question_answering, named_entities]]")
    text, omitted = as_terminal(groups_in(tmp_path), width)
    assert max(map(len, text.splitlines())) <= width
    assert omitted == left_out


def test_long_texts_are_wrapped_at_the_ends_of_their_parts(tmp_path: Path) -> None:
    for name in "ab":
        folder = make_run(tmp_path / name / "a_long_name_of_a_folder" / "with_a_subfolder", weight_decay=ord(name))
        update_run(folder, setup="Stack[mlm, Fuse[qa, ner]], not trained")
    lines = as_terminal(groups_in(tmp_path), 62)[0].splitlines()
    assert [line[:16].rstrip() for line in lines[-3:]] == ["Stack[mlm,", "Fuse[qa, ner]],", "not trained"]
    assert [line[46:] for line in lines[-3:]] == ["b/a_long_name_", "of_a_folder/", "with_a_subfolder"]


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
    headings, rule, row = as_markdown(groups_in(tmp_path)).splitlines()[-3:]
    assert headings.count("|") == rule.count("|") == row.replace("\\|", "").count("|")
    assert row.endswith(f"| {tmp_path}/a\\|b |")


def test_control_characters_are_escaped(tmp_path: Path) -> None:
    update_run(make_run(tmp_path), setup="\x1b[31mred")
    groups = groups_in(tmp_path)
    assert "\x1b" not in as_terminal(groups, None)[0] + as_markdown(groups) + as_csv(groups) + as_json(groups)

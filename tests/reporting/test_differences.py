"""The comparison of rows with the best one, from the answers on the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.made_runs import WRONG_ANSWER, groups_in, make_answered_run, make_run, update_run, write_predictions
from support.questions import make_questions, write_squad

from adapter_qa.core.files import file_fingerprint
from adapter_qa.data.questions import Question
from adapter_qa.data.squad_metrics import squad_metrics
from adapter_qa.reporting.differences import compare_to_best
from adapter_qa.reporting.groups import Group
from adapter_qa.reporting.paired import pair_rows
from adapter_qa.reporting.tables import as_csv, as_json, as_markdown, as_terminal

QUESTIONS = make_questions(40)


def compared(folder: Path) -> list[Group]:
    return compare_to_best(groups_in(folder))[0]


def footnotes_of(groups: list[Group]) -> list[str]:
    """Return the lines under the only table."""
    lines = as_terminal(groups, None)[0].splitlines()
    return lines[3 + len(groups) :]


def answer_row(wrong: int) -> list[float]:
    return [0.0] * wrong + [100.0] * (len(QUESTIONS) - wrong)


def test_a_row_is_the_mean_over_its_seeds_of_each_question(tmp_path: Path) -> None:
    path = write_squad(tmp_path / "dev.json", QUESTIONS)
    make_answered_run(tmp_path / "best", path, QUESTIONS, wrong=4)
    for seed, wrong in ((1, 6), (2, 12)):
        make_answered_run(tmp_path / f"seed{seed}", path, QUESTIONS, wrong=wrong, seed=seed, weight_decay=0.1)
    rows = [answer_row(4), np.mean([answer_row(6), answer_row(12)], axis=0)]
    scores = np.stack([np.stack([row, row], axis=1) for row in rows], axis=1)
    groups, answers = compare_to_best(groups_in(tmp_path))
    assert [group.paired for group in groups] == pair_rows(scores, list(range(40)), has_best=True)
    assert [len(answers[group.number]) for group in groups] == [1, 2]
    best, other = json.loads(as_json(groups))
    assert (best["f1_to_best"], best["exact_to_best_low"], best["not_compared"]) == (0, 0, None)
    assert other["f1_to_best"] == pytest.approx(other["f1_mean"] - best["f1_mean"])
    assert other["f1_to_best_low"] < other["f1_to_best"] < other["f1_to_best_high"] < 0
    assert (other["compared_questions"], other["compared_contexts"]) == (40, 40)
    assert f",{other['exact_to_best_high']}," in as_csv(groups).splitlines()[2]


def test_rows_that_cannot_be_distinguished_are_marked(tmp_path: Path) -> None:
    path = write_squad(tmp_path / "dev.json", QUESTIONS)
    for name, wrong in (("a", 4), ("b", 5), ("c", 20)):
        make_answered_run(tmp_path / name, path, QUESTIONS, wrong=wrong, weight_decay=ord(name))
    update_run(make_run(tmp_path / "d", 10.0, status="failed", weight_decay=0.7),
               data=json.loads((tmp_path / "a" / "run.json").read_text(encoding="utf-8"))["data"])  # fmt: skip
    groups = compared(tmp_path)
    text, omitted = as_terminal(groups, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert omitted == ["EM to best", "best epoch", "train time"]
    rows = [line for line in text.splitlines() if line.startswith("Stack[qa]")]
    assert "  best  " in rows[0]
    assert "  ≈ −2.5 [−7.5, +0.0]  " in rows[1]
    assert "  −40.0 [−55.0, −25.0]  " in rows[2]
    assert "[" not in rows[3].removeprefix("Stack[qa]")
    assert footnotes_of(groups) == [
        "to best: difference to the best row [95 % interval: bootstrap over 40 contexts, each with its questions, "
        "40 in all]; ≈: includes 0, not distinguishable from the best row; with so few contexts "
        "the interval is too narrow"
    ]
    assert as_markdown(groups).splitlines()[-1] == footnotes_of(groups)[0]


def test_questions_are_read_where_a_run_finds_them_and_scored_as_the_run_was(tmp_path: Path) -> None:
    questions = [*QUESTIONS, *(Question(f"none{number}", "Onde?", f"Nada {number}.", (), ()) for number in range(10))]
    path = write_squad(tmp_path / "dev.json", questions)
    answers = {question.id: "".join(question.answer_texts) for question in questions}
    for name, file, changed in (("a", tmp_path / "gone.json", {}), ("b", path, {"none0": WRONG_ANSWER, "q3": ""})):
        scores = squad_metrics(answers | changed, questions, version_2=True)
        make_run(tmp_path / name, validation_file=str(file), version_2_with_negative=True, weight_decay=len(changed))
        update_run(tmp_path / name, data={"eval": file_fingerprint(path) | {"file": str(file), "questions": 50}},
                   metrics={"eval": {"eval_f1": scores["f1"], "eval_exact": scores["exact"]}})  # fmt: skip
        write_predictions(tmp_path / name, answers | changed)
    best, other = compared(tmp_path)
    assert best.paired is not None
    assert best.paired.f1 == (100, 100, 100)
    assert other.paired is not None
    assert other.paired.to_best is not None
    assert other.paired.to_best.exact.value == -4
    assert other.paired.contexts == 50


def test_rows_with_other_questions_or_without_answers_say_why(tmp_path: Path) -> None:
    path = write_squad(tmp_path / "dev.json", QUESTIONS)
    content: Any = json.loads(path.read_text(encoding="utf-8"))
    for record in content["data"]:
        record["other"] = {"text": [record["context"][:3]], "answer_start": [0]}
    path.write_text(json.dumps(content), encoding="utf-8")
    others = [
        Question(question.id, question.question, question.context, (question.context[:3],), (0,))
        for question in QUESTIONS
    ]
    make_answered_run(tmp_path / "a", path, QUESTIONS, wrong=1)
    make_answered_run(tmp_path / "b", path, others, wrong=2, answer_column="other")
    make_answered_run(tmp_path / "c", path, QUESTIONS, wrong=3, weight_decay=0.1)
    make_answered_run(tmp_path / "d", path, QUESTIONS, wrong=4, weight_decay=0.2)
    (tmp_path / "c" / "eval_predictions.json").unlink()
    groups = compared(tmp_path)
    cells = [line.split("  ") for line in as_terminal(groups, None)[0].splitlines()]
    assert [{"best", "(1)", "(2)"} & {cell.strip() for cell in row} for row in cells[3:7]] == [
        {"best"},
        {"(1)"},
        {"(2)"},
        set(),
    ]
    reasons = [
        f"{tmp_path}/b: was evaluated on other questions, contexts or gold answers",
        f"{tmp_path}/c/eval_predictions.json: cannot be read: No such file or directory",
    ]
    assert footnotes_of(groups)[1:] == [f"({number}) not compared: {text}" for number, text in enumerate(reasons, 1)]
    assert [row["not_compared"] for row in json.loads(as_json(groups))] == [None, *reasons, None]


def test_without_the_answers_of_the_best_row_there_are_no_differences(tmp_path: Path) -> None:
    path = write_squad(tmp_path / "dev.json", QUESTIONS)
    for name, wrong in (("a", 1), ("b", 2), ("c", 3)):
        make_answered_run(tmp_path / name, path, QUESTIONS, wrong=wrong, weight_decay=ord(name))
    write_predictions(tmp_path / "a", {})
    groups = compared(tmp_path)
    reason = f"{tmp_path}/a/eval_predictions.json: does not answer every question of its file"
    assert footnotes_of(groups) == [f"no differences to the best row: {reason}"]
    assert "to best" not in as_terminal(groups, None)[0].splitlines()[2]
    assert [group.paired is None for group in groups] == [True, False, False]
    assert {row["f1_to_best"] for row in json.loads(as_json(groups))} == {None}


@pytest.mark.parametrize("contexts", [9, 10])
def test_few_contexts_give_no_interval(tmp_path: Path, contexts: int) -> None:
    questions = [
        Question(f"q{number}", "Onde?", f"Recife {number % contexts}", ("Recife",), (0,)) for number in range(20)
    ]  # fmt: skip
    path = write_squad(tmp_path / "dev.json", questions)
    for name, wrong in (("a", 1), ("b", 2)):
        make_answered_run(tmp_path / name, path, questions, wrong=wrong, weight_decay=ord(name))
    groups, answers = compare_to_best(groups_in(tmp_path))
    reason = "the questions have fewer than 10 different contexts, too few for an interval"
    notes = [f"no differences to the best row: {reason}"]
    assert (footnotes_of(groups) == notes) == (contexts < 10)
    assert [group.paired is None for group in groups] == [contexts < 10] * 2
    assert len(answers) == 2


def test_one_row_and_other_tasks_are_not_compared(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    for name in "bc":
        update_run(make_run(tmp_path / name, weight_decay=ord(name)), script="run_ner_adapter.py",
                   data={"eval": {"file": "d.conll", "sentences": 9}})  # fmt: skip
    assert "best row" not in as_terminal(compared(tmp_path), None)[0]

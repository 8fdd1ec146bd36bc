"""Scores of --test_file in tables and reports: report_qa.py --split predict."""

from __future__ import annotations

import json
from pathlib import Path

from support.made_runs import OPTIONS, WRONG_ANSWER, make_run, update_run
from support.questions import make_questions, write_squad

from adapter_qa.core.files import file_fingerprint
from adapter_qa.reporting.error_analysis import evaluated_questions, read_answers
from adapter_qa.reporting.groups import group_runs
from adapter_qa.reporting.runs import find_runs, read_run
from adapter_qa.reporting.tables import make_tables


def test_scores_of_the_test_file(tmp_path: Path) -> None:
    """With --split predict the row has other scores, is ranked by them, and says what they are of."""
    questions = make_questions(4, seed=1)
    test = write_squad(tmp_path / "test.json", questions)
    for name, f1, wrong in (("a", 90.0, 3), ("b", 10.0, 1)):
        run = make_run(
            tmp_path / name, f1, validation_file="dev.json", test_file=str(test), learning_rate=len(name) + f1
        )
        answers = {q.id: WRONG_ANSWER if number < wrong else q.answer_texts[0] for number, q in enumerate(questions)}
        (run / "predict_predictions.json").write_text(json.dumps(answers))
        document = json.loads((run / "run.json").read_text())
        scores = {"predict_f1": 25.0 * (4 - wrong), "predict_exact": 25.0 * (4 - wrong), "predict_loss": 1.5}
        update_run(
            run,
            data=document["data"] | {"predict": file_fingerprint(test) | {"questions": 4}},
            metrics=document["metrics"] | {"predict": scores},
        )
    rows = {}
    for split in ("eval", "predict"):
        groups, _ = group_runs(find_runs([tmp_path], split)[0])
        rows[split] = [(group.name, group.mean_std("f1").mean, group.mean_std("best_epoch").mean) for group in groups]
    assert rows == {"eval": [("a", 90.0, 2.0), ("b", 10.0, 2.0)], "predict": [("b", 75.0, 2.0), ("a", 25.0, 2.0)]}
    assert groups[0].first.describe_evaluation() == "4 questions of test.json"
    read = [read_answers(group.first, evaluated_questions(group.first)).scores[:, 0].mean() for group in groups]
    assert read == [75.0, 25.0]


def test_columns_show_what_the_title_of_the_split_does_not_name(tmp_path: Path) -> None:
    """Rows with the same test questions differ in what chose the epoch, which their title does not say."""
    for name, choice in (("a", {"calibration_share": 0.3}), ("b", {"validation_file": "x/choose.json"}),
                         ("c", {"max_eval_samples": 9})):  # fmt: skip
        run = make_run(tmp_path / name, test_file=f"{name}/test.json", max_predict_samples=4, **choice)
        document = json.loads((run / "run.json").read_text())
        test = {"file": "test.json", "sha256": "c" * 64, "questions": 4}
        scores = {"predict_f1": 50.0, "predict_exact": 40.0}
        update_run(run, data=document["data"] | {"predict": test}, metrics={"predict": scores})
    (table,) = make_tables(group_runs(find_runs([tmp_path], "predict")[0])[0])
    assert table.title == "evaluated on 4 questions of test.json (--max_predict_samples 4)"
    names = (*OPTIONS, "calibration_share", "test_file", "max_predict_samples")
    assert {column.heading: column.cells for column in table.columns if column.heading in names} == {
        "calibration_share": ["0.3", "-", "-"],
        "validation_file": ["dev.json", "choose.json", "dev.json"],
        "max_eval_samples": ["-", "-", "9"],
    }


def test_a_run_without_a_scored_test_file_has_no_scores_of_it(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "a", 90.0), "predict")
    assert (run.evaluation().eval_f1, run.describe_evaluation()) == (None, "nothing that run.json names")

"""The error analysis: categories of questions, and the answers of a run scored by the official metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.made_runs import WRONG_ANSWER, make_answered_run, make_run, update_run, write_predictions
from support.problems import problems_of
from support.questions import make_questions, write_squad

from adapter_qa.core.files import file_fingerprint, files_fingerprint
from adapter_qa.data.questions import Question
from adapter_qa.reporting.error_analysis import (
    ANSWER_LENGTH_ORDER,
    QUESTION_WORD_ORDER,
    SEVERAL_WINDOWS,
    answer_length,
    break_down,
    count_interval,
    count_windows,
    evaluated_questions,
    length_categories,
    question_word,
    read_answers,
    sample_examples,
)
from adapter_qa.reporting.runs import read_run


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("Quem escreveu?", "quem / who"), ("A quem coube o prêmio?", "quem / who"), ("Whose idea?", "quem / who"),
        ("Quando nasceu?", "quando / when"), ("De onde veio, e quando?", "onde / where"),
        ("Aonde foi?", "onde / where"),
        ("Quantas ilhas há?", "quanto / how many"), ("How much is it?", "quanto / how many"),
        ("Por que caiu?", "por que / why"), ("Porquê?", "por que / why"), ("Why did what fall?", "por que / why"),
        ("Quais são?", "qual / which"), ("In which year?", "qual / which"), ("Qual é o rio que corre?", "qual / which"),
        ("Em que ano?", "que / what"), ("O quê?", "que / what"), ("WHAT is it?", "que / what"),
        ("Como se chama quem canta?", "como / how"), ("How old?", "como / how"), ("How many?", "quanto / how many"),
        ("Diga o nome da cidade.", "other"), ("Nome da queda?", "other"), ("", "other"),
    ],
)  # fmt: skip
def test_question_words(question: str, word: str) -> None:
    assert question_word(question) == word
    assert word in QUESTION_WORD_ORDER


@pytest.mark.parametrize(
    ("answers", "name"),
    [(("um",), "1 word"), (("um dois",), "2 words"), (("a b c",), "3 to 4 words"), (("a b c d e",), "5 to 8 words"),
     (("a b c d e f g h i",), "from 9 words"), ((), "no answer")],
)  # fmt: skip
def test_answer_lengths(answers: tuple[str, ...], name: str) -> None:
    assert answer_length(Question("1", "?", "c", answers, (0,) * len(answers))) == name
    assert name in ANSWER_LENGTH_ORDER


def test_context_lengths_are_divided_into_quarters() -> None:
    labels, names = length_categories([10, 20, 30, 40, 50, 60, 70, 80])
    assert names == ("10 to 20 words", "21 to 40 words", "41 to 60 words", "from 61 words")
    assert [labels.count(name) for name in names] == [2, 2, 2, 2]
    assert length_categories([5, 5, 5]) == (["from 5 words"] * 3, ("from 5 words",))
    assert length_categories([3]) == (["from 3 words"], ("from 3 words",))
    assert length_categories([1, 1, 1, 9])[0] == ["1 word"] * 3 + ["from 2 words"]
    assert length_categories([1, 2, 2, 2])[1] == ("1 word", "from 2 words")


def test_every_breakdown_has_every_question_once() -> None:
    questions = make_questions(30)
    breakdowns = break_down(questions, [1, 2, 1] * 10)
    assert list(breakdowns) == ["question word", "answer length", "context length", "windows"]
    expected = sorted(question.id for question in questions)
    for categories in breakdowns.values():
        assert sorted(question.id for members in categories.values() for question in members) == expected
    in_several = [question.id for question in breakdowns["windows"][SEVERAL_WINDOWS]]
    assert in_several == [f"q{number}" for number in range(1, 30, 3)]
    assert list(break_down(questions, None)) == ["question word", "answer length", "context length"]


def test_answers_are_read_scored_and_sampled(tmp_path: Path, data: tuple[Path, list[Question]]) -> None:
    run = make_answered_run(tmp_path / "run", *data, wrong=4)
    questions = evaluated_questions(run)
    answers = read_answers(run, questions)
    assert questions == data[1]
    assert answers.score(questions[:5])["f1"] == 20.0
    examples = sample_examples(answers, 3, 9)
    assert sample_examples(answers, 3, 9) == examples
    assert [example.answer for example in examples.wrong] == [WRONG_ANSWER] * 4
    assert len(examples.right) == 3
    assert all(example.f1 == 100 and example.answer in example.golds for example in examples.right)
    first = examples.right[0]
    (question,) = [question for question in questions if question.context == first.before + first.gold + first.after]
    assert (first.gold, len(first.before)) == (question.answer_texts[0], question.answer_starts[0])


def test_unanswerable_questions_are_a_category(tmp_path: Path) -> None:
    questions = [*make_questions(2), Question("none", "Onde?", "Nada.", (), ())]
    path = write_squad(tmp_path / "dev.json", questions)
    make_run(tmp_path / "run", 100 / 3, validation_file=str(path), version_2_with_negative=True)
    update_run(tmp_path / "run", data={"eval": file_fingerprint(path)})
    write_predictions(tmp_path / "run", {"q0": WRONG_ANSWER, "q1": "", "none": ""})
    run = read_run(tmp_path / "run")
    answers = read_answers(run, evaluated_questions(run))
    unanswerable = break_down(answers.questions, None)["answer length"]["no answer"]
    assert [question.id for question in unanswerable] == ["none"]
    assert answers.score(unanswerable)["f1"] == 100.0
    assert sample_examples(answers, 1, 0).right[0].golds == []


def test_max_eval_samples_limits_the_questions(tmp_path: Path, data: tuple[Path, list[Question]]) -> None:
    run = make_answered_run(tmp_path / "run", data[0], data[1][:4], wrong=1, max_eval_samples=4)
    assert len(read_answers(run, evaluated_questions(run)).questions) == 4


def test_missing_and_changed_data_is_refused(tmp_path: Path, data: tuple[Path, list[Question]]) -> None:
    run = make_answered_run(tmp_path / "run", *data, wrong=4)
    from_hub = read_run(update_run(make_run(tmp_path / "hub"), data={"eval": {"dataset": "squad"}}))
    assert problems_of(evaluated_questions, from_hub) == [f"{tmp_path}/hub: was not evaluated on a file of questions"]
    write_squad(data[0], data[1][1:])
    assert problems_of(evaluated_questions, run) == [f"{data[0]}: has changed since {tmp_path}/run was evaluated on it"]
    data[0].unlink()
    data[0].mkdir()
    assert problems_of(evaluated_questions, run) == [f"{data[0]}: cannot be read: Is a directory"]
    data[0].rmdir()
    assert problems_of(evaluated_questions, run) == [f"{data[0]}: no longer exists; {tmp_path}/run was evaluated on it"]


def test_questions_of_several_files_with_other_columns(tmp_path: Path, data: tuple[Path, list[Question]]) -> None:
    questions = data[1]
    paths = [tmp_path / "1.json", tmp_path / "2.json"]
    for path, part in zip(paths, (questions[:4], questions[4:]), strict=True):
        write_squad(path, part)
        path.write_text(path.read_text(encoding="utf-8").replace('"question"', '"query"'), encoding="utf-8")
    options: dict[str, Any] = {"validation_file": [str(tmp_path / "?.json")], "question_column": "query"}
    run = make_run(tmp_path / "run", **options)
    update_run(run, data={"eval": files_fingerprint(paths)})
    assert evaluated_questions(read_run(run)) == questions
    paths[1].write_text("[]")
    assert problems_of(evaluated_questions, read_run(run)) == [
        f"{paths[0]} {paths[1]}: has changed since {run} was evaluated on it"
    ]


def test_answers_of_another_run_are_refused(tmp_path: Path, data: tuple[Path, list[Question]]) -> None:
    run = make_answered_run(tmp_path / "run", *data, wrong=4)
    path = write_predictions(run.folder, {question.id: WRONG_ANSWER for question in data[1]})
    assert problems_of(read_answers, run, data[1]) == [
        f"{path}: its F1 is 0.00, but the run recorded 60.0; the answers or the questions are not those of the run"
    ]
    write_predictions(run.folder, {question.id: 5 for question in data[1]})
    assert problems_of(read_answers, run, data[1]) == [f"{path}: does not answer every question of its file"]


def test_windows_are_counted_with_the_options_of_the_run(
    tmp_path: Path, tiny_bert: Path, data: tuple[Path, list[Question]]
) -> None:
    options: dict[str, Any] = {"model_name_or_path": str(tiny_bert), "max_seq_length": 40, "doc_stride": 8}
    run = make_answered_run(tmp_path / "run", *data, wrong=0, **options)
    long = Question("long", "Onde?", data[1][0].context * 5, (), ())
    counts = count_windows(run, [*data[1], long, Question("short", "Onde?", "Ana.", (), ())])
    assert len(counts) == 12
    assert counts[-1] == 1
    assert counts[-2] > max(counts[:10]) >= 1


@pytest.mark.parametrize(
    ("f1", "questions", "low", "high"),
    [(50, 100, 40.38, 59.62), (0, 10, 0, 27.75), (100, 10, 72.25, 100), (80, 1000, 77.41, 82.36)],
)
def test_interval_from_the_number_of_questions(f1: float, questions: int, low: float, high: float) -> None:
    interval = count_interval(f1, questions)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.01)
    assert not interval.from_answers

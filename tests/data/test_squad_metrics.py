"""Exact match and F1 (adapter_qa/data/squad_metrics.py) against torchmetrics, transformers and hand counts."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text import squad as torchmetrics_squad
from transformers.data.metrics.squad_metrics import squad_evaluate

from adapter_qa.data.questions import Question
from adapter_qa.data.squad_metrics import (
    evaluation_metrics,
    exact_match,
    f1,
    normalize_answer,
    squad_metrics,
    top_k_metrics,
)

WORDS = ["a", "The", "an", "São", "são", "Paulo", "paulo,", "d'água", "2008", "–", "“a”", "É", "e\u0301", ".", "🎓"]

answers = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join) | st.text(max_size=6)
has_words = answers.filter(lambda text: bool(normalize_answer(text)))


def ask(golds: list[list[str]]) -> list[Question]:
    """Return questions with ids "0", "1", ... and these gold answers."""
    return [
        Question(str(number), "?", "contexto", tuple(texts), (0,) * len(texts)) for number, texts in enumerate(golds)
    ]


def predict(texts: list[str]) -> dict[str, str]:
    return {str(number): text for number, text in enumerate(texts)}


# --- one pair of texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("A Universidade", "universidade"),
        ("o Brasil, a\tArgentina.", "o brasil argentina"),
        ("Campo-Grande (MS)", "campogrande ms"),
        ("“aspas” – travessão", "“aspas” – travessão"),  # only ASCII punctuation is removed
        ("The. an! a?", ""),
        ("", ""),
        ("água à", "água à"),
        ("a\u0301 b", "\u0301 b"),  # a decomposed accent leaves a bare "a", an article
    ],
)
def test_normalize_answer(text: str, normalized: str) -> None:
    assert normalize_answer(text) == normalized


@pytest.mark.parametrize(
    ("prediction", "gold", "exact", "overlap"),
    [
        ("Campo Grande.", "a campo grande", 1.0, 1.0),
        ("em Campo Grande", "Campo Grande", 0.0, 4 / 5),
        ("sim sim", "sim sim sim não", 0.0, 2 / 3),  # two shared: precision 1, recall 1/2
        ("sim", "não", 0.0, 0.0),
        ("", "não", 0.0, 0.0),
        ("the", "", 1.0, 1.0),
    ],
)
def test_pair_of_texts(prediction: str, gold: str, exact: float, overlap: float) -> None:
    assert exact_match(prediction, gold) == exact
    assert f1(prediction, gold) == pytest.approx(overlap, abs=1e-12)


# --- SQuAD v1.1 ----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(answers, st.lists(has_words, min_size=1, max_size=3)), min_size=1, max_size=6))
def test_v1_agrees_with_torchmetrics(cases: list[tuple[str, list[str]]]) -> None:
    # No gold answers without words: there torchmetrics follows v2.0; see test_v1_gives_no_f1_without_a_shared_word.
    predictions = [{"prediction_text": text, "id": str(number)} for number, (text, _) in enumerate(cases)]
    targets: list[dict[str, Any]] = [
        {"answers": {"answer_start": [0] * len(golds), "text": golds}, "id": str(number)}
        for number, (_, golds) in enumerate(cases)
    ]
    expected = torchmetrics_squad(predictions, targets)
    metrics = squad_metrics(predict([text for text, _ in cases]), ask([golds for _, golds in cases]))
    assert metrics.keys() == {"exact", "f1", "total"}
    assert metrics["exact"] == pytest.approx(
        expected["exact_match"].item(), abs=1e-4
    )  # torchmetrics computes in float32
    assert metrics["f1"] == pytest.approx(expected["f1"].item(), abs=1e-4)
    assert metrics["total"] == len(cases)


def test_v1_by_hand() -> None:
    questions = ask([["Campo Grande", "em Campo Grande"], ["1908"], ["não"], ["dos anos 1870"]])
    predictions = predict(["Em campo grande", "1908.", "", "anos 1870"]) | {"unasked": "x"}
    metrics = squad_metrics(predictions, questions)
    assert metrics == pytest.approx({"exact": 50.0, "f1": 100 * (1 + 1 + 0 + 4 / 5) / 4, "total": 4})


def test_v1_gives_no_f1_without_a_shared_word() -> None:
    """In evaluate-v1.1.py two texts without words match exactly, but their F1 is 0."""
    questions = ask([["a"], ["the", "casa"]])
    assert squad_metrics(predict(["the", ""]), questions) == {"exact": 100.0, "f1": 0.0, "total": 2}


def test_v1_without_gold_answers() -> None:
    questions = ask([[], [], ["sim"], ["sim"]])
    assert squad_metrics(predict(["", "x", "sim", ""]), questions) == {"exact": 50.0, "f1": 50.0, "total": 4}


# --- SQuAD v2.0 ----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.data())
def test_v2_agrees_with_transformers(data: st.DataObject) -> None:
    golds = data.draw(st.lists(st.lists(answers, max_size=3), min_size=1, max_size=8), label="golds")
    texts = data.draw(st.lists(answers, min_size=len(golds), max_size=len(golds)), label="predictions")
    few = st.sampled_from([-3.5, -1.0, 0.0, 0.25, 2.0])  # few values, so that equal odds are frequent
    odds_of_each = data.draw(st.lists(few, min_size=len(golds), max_size=len(golds)), label="odds")
    order = data.draw(st.permutations(range(len(golds))), label="order")  # the order of equal odds matters
    odds = {str(number): odds_of_each[number] for number in order}

    examples = [
        SimpleNamespace(qas_id=str(number), answers=[{"text": text} for text in gold_texts])
        for number, gold_texts in enumerate(golds)
    ]
    expected = squad_evaluate(examples, predict(texts), dict(odds), no_answer_probability_threshold=math.inf)
    metrics = squad_metrics(predict(texts), ask(golds), version_2=True, null_odds=odds)
    assert metrics.keys() == expected.keys()
    assert metrics == pytest.approx(dict(expected), abs=1e-9)
    for name in ("best_exact_thresh", "best_f1_thresh"):
        assert metrics[name] == expected[name]


def test_v2_by_hand() -> None:
    # With gold answers: correct, partly correct, wrong; without: no answer, a wrong answer.
    questions = ask([["sim"], ["casa azul"], ["não"], [], []])
    predictions = predict(["Sim!", "casa", "talvez", "", "algo"])
    odds = {"0": -5.0, "1": -1.0, "2": 3.0, "3": 4.0, "4": 2.0}
    metrics = squad_metrics(predictions, questions, version_2=True, null_odds=odds)
    assert metrics == pytest.approx(
        {
            "exact": 40.0,
            "f1": 100 * (1 + 2 / 3 + 1) / 5,
            "total": 5,
            "HasAns_exact": 100 / 3,
            "HasAns_f1": 100 * (1 + 2 / 3) / 3,
            "HasAns_total": 3,
            "NoAns_exact": 50.0,
            "NoAns_f1": 50.0,
            "NoAns_total": 2,
            # Answering where the odds do not exceed -5 is right for "0", "3", "4"; -1 adds two thirds of "1".
            "best_exact": 60.0,
            "best_exact_thresh": -5.0,
            "best_f1": 100 * (1 + 2 / 3 + 2) / 5,
            "best_f1_thresh": -1.0,
        }
    )


@settings(deadline=None)
@given(st.data())
def test_best_thresholds_are_scores_by_applying_them(data: st.DataObject) -> None:
    """Brute force: apply every threshold and score again. Odds are distinct, as the search assumes."""
    golds = data.draw(st.lists(st.lists(has_words, max_size=2), min_size=1, max_size=6))
    texts = data.draw(st.lists(has_words, min_size=len(golds), max_size=len(golds)))
    values = data.draw(st.permutations([0.25 * step for step in range(1, len(golds) + 1)]))
    odds = {str(number): value for number, value in enumerate(values)}
    questions = ask(golds)
    metrics = squad_metrics(predict(texts), questions, version_2=True, null_odds=odds)
    for name in ("exact", "f1"):
        scores = {}
        for threshold in (0.0, *values):
            answered = {key: "" if odds[key] > threshold else text for key, text in predict(texts).items()}
            scores[threshold] = squad_metrics(answered, questions, version_2=True)[name]
        assert metrics[f"best_{name}"] == pytest.approx(max(scores.values()))
        assert scores[metrics[f"best_{name}_thresh"]] == pytest.approx(max(scores.values()))


def test_v2_reports_only_subsets_that_have_questions() -> None:
    assert squad_metrics(predict(["x"]), ask([["x"]]), version_2=True).keys() == {
        *("exact", "f1", "total"),
        *("HasAns_exact", "HasAns_f1", "HasAns_total"),
    }
    assert "HasAns_total" not in squad_metrics(predict(["x"]), ask([[]]), version_2=True)


def test_v2_gold_answers_without_words() -> None:
    """evaluate-v2.0.py ignores them beside others; alone they count as "", and the question still has an answer."""
    metrics = squad_metrics(predict(["", "the", "a casa"]), ask([["a", "casa"], ["a"], ["a", "casa"]]), version_2=True)
    assert metrics["exact"] == metrics["f1"] == pytest.approx(200 / 3)
    assert metrics["HasAns_total"] == 3


# --- the first k candidates ------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(st.tuples(st.lists(answers, min_size=1, max_size=25), st.lists(has_words, max_size=3)), min_size=1))
@pytest.mark.parametrize("version_2", [False, True])
def test_top_k_is_the_best_of_the_first_candidates(version_2: bool, lists: list[tuple[list[str], list[str]]]) -> None:
    lists = [(texts, golds if version_2 else golds or ["sim"]) for texts, golds in lists]
    questions = ask([golds for _, golds in lists])
    candidates = [texts for texts, _ in lists]
    expected: dict[str, float] = {}
    for k in (1, 3, 5, 20):
        for name in ("exact", "f1"):
            expected[f"top_{k}_{name}"] = sum(
                max(squad_metrics({question.id: text}, [question], version_2=version_2)[name] for text in texts[:k])
                for texts, question in zip(candidates, questions, strict=True)
            ) / len(questions)
    assert top_k_metrics(candidates, questions, kept=25, version_2=version_2) == pytest.approx(expected)
    if not version_2:
        best = squad_metrics(predict([texts[0] for texts in candidates]), questions)
        assert (expected["top_1_exact"], expected["top_1_f1"]) == pytest.approx((best["exact"], best["f1"]))


def test_top_k_of_more_candidates_than_are_kept_is_left_out() -> None:
    assert top_k_metrics([["x", "y"]], ask([["y"]]), kept=4) == {
        "top_1_exact": 0.0, "top_1_f1": 0.0, "top_3_exact": 100.0, "top_3_f1": 100.0,
    }  # fmt: skip


# --- all scores of an evaluation -------------------------------------------------------------------------------


def test_an_evaluation_scores_answers_with_their_threshold_and_best_spans_without_it() -> None:
    questions, predictions = ask([["sim"], [], ["não"]]), predict(["sim", "", ""])
    candidates, odds = [["sim", ""], ["", "talvez"], ["", "não"]], {"0": -3.0, "1": 2.0, "2": 1.0}
    metrics = evaluation_metrics(predictions, candidates, questions, kept=1, null_odds=odds)
    assert (metrics["exact"], metrics["top_1_exact"]) == pytest.approx((200 / 3, 200 / 3))
    assert (metrics["best_exact"], metrics["best_exact_thresh"]) == (100.0, 1.0)
    assert "top_3_exact" not in metrics
    in_v1 = evaluation_metrics(predictions, candidates[::2], questions[::2], kept=1, null_odds=None)
    assert in_v1 == squad_metrics(predictions, questions[::2]) | {"top_1_exact": 50.0, "top_1_f1": 50.0}


# --- errors --------------------------------------------------------------------------------------------------


def test_questions_without_prediction_or_odds_are_an_error() -> None:
    questions = ask([["sim"], ["não"]])
    with pytest.raises(ValueError, match="predictions lacks 1 of 2 questions, such as '1'"):
        squad_metrics({"0": "sim"}, questions)
    with pytest.raises(ValueError, match="null_odds lacks 2 of 2 questions, such as '0'"):
        squad_metrics(predict(["", ""]), questions, version_2=True, null_odds={})
    with pytest.raises(ValueError, match="no questions to score"):
        squad_metrics({}, [])

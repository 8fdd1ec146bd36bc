"""Spans and answers (utils_qa.py): against brute force over all pairs, and themselves."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.questions import make_questions, window_offsets
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from adapter_qa.data.window_dataset import WindowCollator
from adapter_qa.data.windows import Windows, make_windows
from utils_qa import NO_SPAN_ODDS, SpanCollector, WindowSpans, best_spans, choose_answers, window_spans

TEXT = st.text(st.sampled_from("aáàa\u0301 ç\u00a0bcd.,-\u200bé🙂א\tZ1"), min_size=1, max_size=120).filter(str.strip)
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=["bert", "roberta"])
def tokenizer(request: pytest.FixtureRequest, tiny_bert: Path, tiny_roberta: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(tiny_bert if request.param == "bert" else tiny_roberta)


# ---------------------------------------------------------------- spans


def brute_force(start: list[float], end: list[float], mask: list[bool], longest: int) -> list[tuple[float, int, int]]:
    """Every valid span, best first, equal ones by place: the plain double loop."""
    found = [
        (start[i] + end[j], i, j)
        for i, j in itertools.product(range(len(start)), repeat=2)
        if mask[i] and mask[j] and 0 <= j - i < longest
    ]
    return sorted(found, key=lambda span: (-span[0], span[1], span[2]))


@settings(max_examples=150, deadline=None)
@given(
    length=st.integers(1, 12),
    longest=st.integers(1, 15),
    n_best=st.integers(1, 20),
    data=st.data(),
)
def test_best_spans_against_brute_force(length: int, longest: int, n_best: int, data: st.DataObject) -> None:
    values = st.lists(st.integers(-4, 4).map(float), min_size=length, max_size=length)  # integers: many exact ties
    start, end = data.draw(values), data.draw(values)
    mask = data.draw(st.lists(st.booleans(), min_size=length, max_size=length))
    scores, first, last = best_spans(
        torch.tensor([start]), torch.tensor([end]), torch.tensor([mask]), n_best_size=n_best, max_answer_length=longest
    )
    assert scores.shape == first.shape == last.shape == (1, n_best)
    expected = brute_force(start, end, mask, longest)[:n_best]
    finite = torch.isfinite(scores[0])
    assert scores[0][finite].tolist() == [span[0] for span in expected]
    assert not finite[len(expected) :].any()
    # Equal scores come in order of place; which of those tied at the very end of the list are kept is open.
    found = list(zip(scores[0].tolist(), first[0].tolist(), last[0].tolist(), strict=True))[: len(expected)]
    assert found == sorted(found, key=lambda span: (-span[0], span[1], span[2]))
    if expected:
        floor = expected[-1][0]
        assert [one for one in found if one[0] > floor] == [one for one in expected if one[0] > floor]
        assert all(span in brute_force(start, end, mask, longest) for span in found)


def test_best_spans_in_bfloat16_add_in_float32() -> None:
    start = torch.tensor([[256.0, 0.0]], dtype=torch.bfloat16)
    end = torch.tensor([[1.0, 0.0]], dtype=torch.bfloat16)
    scores, _, _ = best_spans(start, end, torch.ones(1, 2, dtype=torch.bool), n_best_size=1, max_answer_length=2)
    assert scores.item() == 257.0  # 256 in bfloat16 arithmetic


@pytest.mark.parametrize("left", [False, True])
def test_window_spans_count_from_the_window_whatever_the_padding(tiny_bert: Path, left: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    windows = make_windows(make_questions(4), tokenizer, max_seq_length=100, doc_stride=20)
    batch = WindowCollator(tokenizer.pad_token_id, left, length=100)([windows[index] for index in range(4)])
    start = torch.zeros(4, 100)
    end = torch.zeros(4, 100)
    rows = torch.arange(4)
    start[rows, batch["start_positions"]] = 5.0
    end[rows, batch["end_positions"]] = 5.0
    start[rows, batch["cls_positions"]] = -1.0
    end[rows, batch["cls_positions"]] = -2.0
    _, first, last, logits, null_starts, null_ends = window_spans(batch, start, end, n_best_size=3, max_answer_length=9)
    assert first[:, 0].tolist() == windows.start.tolist()
    assert last[:, 0].tolist() == windows.end.tolist()
    assert logits[:, 0].tolist() == [5.0] * 4
    assert (null_starts.tolist(), null_ends.tolist()) == ([-1.0] * 4, [-2.0] * 4)


# ---------------------------------------------------------------- answers


def spans_of(windows: Windows, seed: int, n_best: int, longest: int) -> tuple[WindowSpans, np.ndarray, np.ndarray]:
    """Spans of random logits, and the logits, (windows, longest window)."""
    draw = np.random.default_rng(seed)
    length = int(windows.lengths().max())
    start, end = draw.normal(size=(2, len(windows), length)).astype(np.float32)
    batch = WindowCollator(0, False, length=length)([windows[index] for index in range(len(windows))])
    found = window_spans(
        batch, torch.from_numpy(start), torch.from_numpy(end), n_best_size=n_best, max_answer_length=longest
    )
    return WindowSpans(*[tensor.numpy() for tensor in found]), start, end


def brute_answers(
    question: int, windows: Windows, start: np.ndarray, end: np.ndarray, longest: int
) -> dict[tuple[int, int], float]:
    """Best score of every distinct span of a question over all its windows, by its characters."""
    best: dict[tuple[int, int], float] = {}
    for index in np.flatnonzero(windows.question == question):
        offsets = window_offsets(windows, index)
        mask = (offsets[:, 0] >= 0).tolist()
        size = len(offsets)
        for score, i, j in brute_force(start[index][:size].tolist(), end[index][:size].tolist(), mask, longest):
            place = (int(offsets[i, 0]), int(offsets[j, 1]))
            if place[1] > place[0]:
                best[place] = max(score, best.get(place, -np.inf))
    return best


@pytest.mark.parametrize("seed", range(5))
def test_answers_over_several_windows_against_brute_force(tiny_bert: Path, seed: int) -> None:
    questions = make_questions(6, seed, sentences=7)
    windows = make_windows(questions, AutoTokenizer.from_pretrained(tiny_bert), max_seq_length=40, doc_stride=14)
    assert len(windows) > 2 * len(questions)
    spans, start, end = spans_of(windows, seed, n_best=8, longest=6)
    answers = choose_answers(questions, windows, spans, n_best_size=8)
    for number, question in enumerate(questions):
        expected = sorted(brute_answers(number, windows, start, end, 6).items(), key=lambda item: -item[1])[:8]
        found = answers.n_best[question.id]
        assert [(one.start, one.end) for one in found] == [place for place, _ in expected]
        assert [one.start_logit + one.end_logit for one in found] == pytest.approx(
            [score for _, score in expected], abs=1e-5
        )
        assert all(one.text == question.context[one.start : one.end] for one in found)
        weights = np.exp(np.array([score for _, score in expected]))
        assert [one.probability for one in found] == pytest.approx(weights / weights.sum(), abs=1e-5)
        assert answers.chosen[question.id] == found[0]


def test_v2_no_answer_score_is_the_minimum_over_windows(tiny_bert: Path) -> None:
    question = make_questions(1, sentences=7)[0]
    windows = make_windows([question], AutoTokenizer.from_pretrained(tiny_bert), max_seq_length=40, doc_stride=14)
    spans, start, end = spans_of(windows, 0, n_best=4, longest=6)
    nulls = start[:, 0] + end[:, 0]
    assert len(set(nulls)) > 1
    answers = choose_answers([question], windows, spans, n_best_size=4, version_2=True)
    best = max(brute_answers(0, windows, start, end, 6).values())
    odds = answers.null_odds[question.id]
    assert odds == pytest.approx(float(nulls.min()) - best, abs=1e-5)
    empty = next(one for one in answers.n_best[question.id] if not one.text)
    assert empty.start_logit + empty.end_logit == pytest.approx(float(nulls.min()), abs=1e-6)
    assert sum(one.probability for one in answers.n_best[question.id]) == pytest.approx(1.0)
    for threshold, text in ((odds - 1e-3, ""), (odds + 1e-3, answers.span_texts()[question.id])):
        chosen = choose_answers(
            [question], windows, spans, n_best_size=4, version_2=True, null_score_diff_threshold=threshold
        ).chosen[question.id]
        assert chosen.text == text


def test_question_without_any_span(tiny_bert: Path) -> None:
    windows = make_windows(
        make_questions(1), AutoTokenizer.from_pretrained(tiny_bert), max_seq_length=100, doc_stride=20
    )
    nothing = np.full((1, 3), -np.inf, dtype=np.float32)
    zeros = np.zeros((1, 3), dtype=np.int64)
    null = np.array([0.5], dtype=np.float32)
    spans = WindowSpans(nothing, zeros, zeros, nothing, null, null)
    plain = choose_answers(make_questions(1), windows, spans, n_best_size=3)
    assert plain.texts() == {"q0": ""} and len(plain.n_best["q0"]) == 1
    v2 = choose_answers(make_questions(1), windows, spans, n_best_size=3, version_2=True)
    assert v2.texts() == {"q0": ""} and v2.null_odds == {"q0": NO_SPAN_ODDS}


def test_written_files_are_what_the_ecosystem_reads(tiny_bert: Path, tmp_path: Path) -> None:
    questions = make_questions(3)
    windows = make_windows(questions, AutoTokenizer.from_pretrained(tiny_bert), max_seq_length=100, doc_stride=20)
    spans, _, _ = spans_of(windows, 1, n_best=5, longest=6)
    answers = choose_answers(questions, windows, spans, n_best_size=5, version_2=True)
    answers.write(tmp_path, "eval")
    read = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert sorted(read) == ["eval_nbest_predictions.json", "eval_null_odds.json", "eval_predictions.json"]
    assert read["eval_predictions.json"] == answers.texts()
    assert set(read["eval_null_odds.json"]) == {"q0", "q1", "q2"}
    for best in read["eval_nbest_predictions.json"].values():
        assert {"text", "start_logit", "end_logit", "probability"} <= set(best[0])


def test_collected_spans_go_back_to_their_windows() -> None:
    order = np.array([1, 3, 0, 2])
    collected = SpanCollector(order, 2)
    for rows in (order[:3], order[3:]):
        numbers = torch.tensor(rows)
        wide = numbers[:, None] * 10 + torch.arange(2)
        collected.take((wide.float(), wide.short(), wide.short() + 1, wide.float(), numbers.float(), -numbers.float()))
    spans = collected.spans
    assert spans.scores.tolist() == spans.first.tolist() == [[0, 1], [10, 11], [20, 21], [30, 31]]
    assert spans.last.tolist() == (spans.first + 1).tolist() and spans.first.dtype == np.int16
    assert spans.null_starts.tolist() == [0, 1, 2, 3] and spans.null_ends.tolist() == [0, -1, -2, -3]

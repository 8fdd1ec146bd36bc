"""Answers from the spans of several windows, against brute force over all pairs of tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.span_search import all_spans, best_scores, probabilities, scores_of_windows
from support.questions import make_questions
from transformers import AutoTokenizer

import utils_qa
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.questions import Question
from adapter_qa.data.spans import (
    NULL_SCORE_DIFF_WITHOUT_SPAN,
    WindowSpans,
    choose_answers,
    log_totals,
    window_spans,
)
from adapter_qa.data.window_dataset import pair_tokenizer
from adapter_qa.data.windows import Windows, make_windows, pad_windows

LONGEST = 6  # tokens of an answer
OPTIONS = AnsweringOptions(40, 14, n_best_size=8, max_answer_length=LONGEST)


def windows_of(questions: list[Question], base: Path, max_seq_length: int = 40) -> Windows:
    tokenizer = pair_tokenizer(AutoTokenizer.from_pretrained(base))
    return make_windows(questions, tokenizer, max_seq_length=max_seq_length, doc_stride=14)


def random_spans(windows: Windows, seed: int, options: AnsweringOptions) -> tuple[WindowSpans, np.ndarray, np.ndarray]:
    """Return the spans of random logits, and the start and end logits, (windows, longest window) float32."""
    draw = np.random.default_rng(seed)
    batch = pad_windows([windows[index] for index in range(len(windows))], 0, pad_left=False)
    start, end = draw.normal(size=(2, *batch["input_ids"].shape)).astype(np.float32)
    spans = window_spans(batch, start, end, options)
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    logits = torch.from_numpy(start), torch.from_numpy(end)
    in_torch = utils_qa.window_spans(tensors, *logits, options)
    assert spans.log_totals == pytest.approx(in_torch[-1].numpy(), rel=1e-6)
    for ours, theirs in zip(spans[:6], in_torch[:6], strict=True):
        finite = np.isfinite(spans.scores) if ours.ndim == 2 else np.full(len(ours), True)
        assert np.array_equal(ours[finite], theirs.numpy()[finite])
    return spans, start, end


@pytest.mark.parametrize("seed", range(5))
def test_answers_over_several_windows_equal_brute_force(tiny_bert: Path, seed: int) -> None:
    questions = make_questions(6, seed, sentences=7)
    windows = windows_of(questions, tiny_bert)
    assert len(windows) > 2 * len(questions)
    spans, start, end = random_spans(windows, seed, OPTIONS)
    answers = choose_answers(questions, windows, spans, OPTIONS)
    for number, question in enumerate(questions):
        scores = best_scores(number, windows, start, end, LONGEST)
        expected = sorted(scores.items(), key=lambda item: -item[1])[:8]
        candidates = answers.n_best[question.id]
        assert [(candidate.start, candidate.end) for candidate in candidates] == [
            characters for characters, _ in expected
        ]
        assert [candidate.start_logit + candidate.end_logit for candidate in candidates] == pytest.approx(
            [score for _, score in expected], abs=1e-5
        )
        assert all(candidate.text == question.context[candidate.start : candidate.end] for candidate in candidates)
        shares = probabilities(scores_of_windows(number, windows, start, end, LONGEST), n_best=8)
        assert [candidate.probability for candidate in candidates] == pytest.approx(
            [shares[candidate.start, candidate.end] for candidate in candidates], abs=1e-6
        )
        assert answers.chosen[question.id] == candidates[0]
        assert answers.candidates(number) == candidates


TEXTS = [
    "Recife 🙂🙂 é … a  capital  de  Pernambuco desde 1827 🙂 no Brasil",
    "\u3000東京\u00a0 👩\u200d👩\u200d👧\n\n🙂",
    "🙂",
    "a",
    " \t ",
    "\u200b",
    "🙂" * 60 + " fim " * 40,
]


@pytest.mark.parametrize("longest", [1, LONGEST, 500])
@pytest.mark.parametrize("context", TEXTS)
@pytest.mark.parametrize("base", ["tiny_bert", "tiny_roberta"])
def test_n_best_has_as_many_spans_as_the_context(
    base: str, context: str, longest: int, request: pytest.FixtureRequest
) -> None:
    """Distinct, without white space at their ends, and the best ones, even if bytes of an emoji are several tokens."""
    questions = [Question("q0", "Onde?", context, (), ()), make_questions(1)[0]]
    windows = windows_of(questions, request.getfixturevalue(base))
    for n_best in (1, 7, 3000):
        options = replace(OPTIONS, n_best_size=n_best, max_answer_length=longest)
        spans, start, end = random_spans(windows, n_best, options)
        answers = choose_answers(questions, windows, spans, options)
        expected = best_scores(0, windows, start, end, longest)
        candidates = [candidate for candidate in answers.candidates(0) if candidate.end > 0]
        assert len(candidates) == min(n_best, len(expected))
        assert len({(candidate.start, candidate.end) for candidate in candidates}) == len(candidates)
        assert all(candidate.text == candidate.text.strip() != "" for candidate in candidates)
        scores = [candidate.start_logit + candidate.end_logit for candidate in candidates]
        assert scores == pytest.approx(sorted(expected.values(), reverse=True)[:n_best], abs=1e-5)
        assert scores == pytest.approx([expected[entry.start, entry.end] for entry in candidates], abs=1e-5)


def test_v2_no_answer_score_is_the_minimum_over_windows(tiny_bert: Path) -> None:
    question = make_questions(1, sentences=7)[0]
    windows = windows_of([question], tiny_bert)
    options = replace(OPTIONS, n_best_size=4, version_2=True)
    spans, start, end = random_spans(windows, 0, options)
    nulls = start[:, 0] + end[:, 0]
    assert len(set(nulls)) > 1
    answers = choose_answers([question], windows, spans, options)
    best = max(best_scores(0, windows, start, end, LONGEST).values())
    difference = answers.null_odds[question.id]
    assert difference == pytest.approx(float(nulls.min()) - best, abs=1e-5)
    candidates = answers.n_best[question.id]
    empty = next(candidate for candidate in candidates if not candidate.text)
    assert empty.start_logit == start[nulls.argmin(), 0]
    assert empty.start_logit + empty.end_logit == pytest.approx(float(nulls.min()), abs=1e-6)
    scores = scores_of_windows(0, windows, start, end, LONGEST)
    shares = probabilities([*scores, {(0, 0): float(nulls.min())}], n_best=4)  # no answer is one more event
    assert {(c.start, c.end): c.probability for c in candidates} == pytest.approx(
        {(c.start, c.end): shares[c.start, c.end] for c in candidates}, abs=1e-6
    )
    for threshold, text in ((difference - 1e-3, ""), (difference + 1e-3, answers.span_texts()[question.id])):
        chosen = choose_answers(
            [question], windows, spans, replace(options, null_score_diff_threshold=threshold)
        ).chosen[question.id]
        assert chosen.text == text


def test_a_span_with_the_score_of_no_answer_comes_first_and_is_the_answer(tiny_bert: Path) -> None:
    questions = make_questions(1)
    windows = windows_of(questions, tiny_bert, max_seq_length=100)
    context = np.flatnonzero(windows[0].context_mask)
    scores, first = np.array([[3.0, 1.0]], dtype=np.float32), context[None, :2]
    null = np.array([1.5], dtype=np.float32)
    spans = WindowSpans(scores, first, first, scores / 2, null, null, np.log(np.exp(scores).sum(1)))
    answers = choose_answers(questions, windows, spans, replace(OPTIONS, version_2=True))
    assert [bool(candidate.text) for candidate in answers.candidates(0)] == [True, False, True]
    assert answers.null_odds == {"q0": 0.0}
    assert answers.texts() == answers.span_texts() == {"q0": answers.candidates(0)[0].text}


@pytest.mark.parametrize("version_2", [True, False])
def test_the_number_of_questions_in_memory_changes_no_answer(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version_2: bool
) -> None:
    questions = make_questions(7, sentences=7)
    windows, options = windows_of(questions, tiny_bert), replace(OPTIONS, version_2=version_2)
    spans = random_spans(windows, 0, options)[0]
    answers = []
    for size in (1024, 3):
        monkeypatch.setattr("adapter_qa.data.spans.QUESTIONS_PER_BLOCK", size)
        monkeypatch.setattr(utils_qa, "QUESTIONS_PER_BLOCK", size)
        answers.append(choose_answers(questions, windows, spans, options))
        (tmp_path / str(size)).mkdir()
        utils_qa.write_answers(answers[-1], tmp_path / str(size), "eval")
    assert answers[0].n_best == answers[1].n_best
    assert (answers[0].chosen, answers[0].null_odds) == (answers[1].chosen, answers[1].null_odds)
    files = [{path.name: path.read_bytes() for path in (tmp_path / size).iterdir()} for size in ("1024", "3")]
    assert files[0] == files[1]


def test_question_without_any_span_has_an_empty_answer(tiny_bert: Path) -> None:
    questions = make_questions(1)
    windows = windows_of(questions, tiny_bert, max_seq_length=100)
    no_scores = np.full((1, 3), -np.inf, dtype=np.float32)
    tokens = np.zeros((1, 3), dtype=np.int64)
    null = np.array([0.5], dtype=np.float32)
    spans = WindowSpans(no_scores, tokens, tokens, no_scores, null, null, np.full(1, -np.inf, dtype=np.float32))
    v1 = choose_answers(questions, windows, spans, OPTIONS)
    assert v1.texts() == {"q0": ""}
    assert len(v1.n_best["q0"]) == 1
    assert v1.chosen["q0"].probability == 1
    assert v1.null_odds == {}
    v2 = choose_answers(questions, windows, spans, replace(OPTIONS, version_2=True))
    assert v2.texts() == {"q0": ""}
    assert v2.null_odds == {"q0": NULL_SCORE_DIFF_WITHOUT_SPAN}
    assert v2.chosen["q0"].probability == 1


@pytest.mark.parametrize("scale", [0.1, 3.0, 60.0])
@pytest.mark.parametrize("longest", [1, 2, 5, 30, 64])
def test_log_totals_equal_plain_sums(scale: float, longest: int) -> None:
    """Also where the best start and the best end form no span, with logits of any size."""
    draw = np.random.default_rng(longest)
    start, end = (scale * draw.normal(size=(2, 7, 50))).astype(np.float32)
    mask = draw.random((7, 50)) < 0.8
    mask[3], mask[:, 0] = False, False
    start[0, 40], end[0, 5] = 4 * scale, 5 * scale
    ours = log_totals(start, end, mask, longest)
    tensors = torch.from_numpy(start), torch.from_numpy(end), torch.from_numpy(mask)
    in_torch = utils_qa.log_totals(*tensors, longest)
    for row in range(7):
        scores = [
            score for score, _, _ in all_spans(start[row].astype(float), end[row].astype(float), mask[row], longest)
        ]
        expected = np.logaddexp.reduce(scores) if scores else -np.inf
        assert ours[row] == pytest.approx(expected, rel=1e-6)
        assert in_torch[row].item() == pytest.approx(expected, rel=1e-6)

"""Best spans with torch and numpy, against brute force over all pairs; collected spans; answer files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.span_search import all_spans
from support.questions import make_questions
from transformers import AutoTokenizer

from adapter_qa.data import spans as numpy_spans
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.spans import choose_answers
from adapter_qa.data.window_dataset import WindowCollator, pair_tokenizer
from adapter_qa.data.windows import make_windows
from utils_qa import SpanCollector, SpanTensors, best_spans, window_spans, write_answers


@settings(max_examples=150, deadline=None)
@given(length=st.integers(1, 12), longest=st.integers(1, 15), n_best=st.integers(1, 20), data=st.data())
def test_best_spans_equal_brute_force(length: int, longest: int, n_best: int, data: st.DataObject) -> None:
    values = st.lists(st.integers(-4, 4).map(float), min_size=length, max_size=length)  # integers: many exact ties
    start, end = data.draw(values), data.draw(values)
    mask = data.draw(st.lists(st.booleans(), min_size=length, max_size=length))
    sizes = {"n_best_size": n_best, "max_answer_length": longest}
    expected = all_spans(start, end, mask, longest)
    in_torch = best_spans(torch.tensor([start]), torch.tensor([end]), torch.tensor([mask]), **sizes)
    in_numpy = numpy_spans.best_spans(np.array([start]), np.array([end]), np.array([mask]), **sizes)
    for scores, first, last in (in_torch, in_numpy):
        assert scores.shape == first.shape == last.shape == (1, n_best)
        count = min(n_best, len(expected))
        assert scores[0][:count].tolist() == [span[0] for span in expected[:count]]
        assert (scores[0][count:] == -np.inf).all()
        spans = list(zip(scores[0].tolist(), first[0].tolist(), last[0].tolist(), strict=True))[:count]
        if scores is in_numpy[0]:
            assert spans == expected[:count]
        # torch.topk may return any of several spans with the lowest score, but in order of position.
        assert spans == sorted(spans, key=lambda span: (-span[0], span[1], span[2]))
        assert set(spans) <= set(expected)
        if count:
            lowest = expected[count - 1][0]
            assert [span for span in spans if span[0] > lowest] == [span for span in expected if span[0] > lowest]


@pytest.mark.parametrize("step", [None, 0.5, 8.0])
@pytest.mark.parametrize("n_best", [1, 20, 400])
def test_best_spans_in_torch_and_numpy_are_identical(step: float | None, n_best: int) -> None:
    """Bit for bit; with a step the logits are its multiples, so that many scores are equal."""
    draw = np.random.default_rng(n_best)
    logits = (draw.normal(size=(2, 40, 60)) * 5).astype(np.float32)
    if step is not None:
        logits = np.float32(step) * np.round(logits / np.float32(step)) + np.float32(0)  # without negative zeros
    mask = draw.random((40, 60)) < 0.8
    mask[0] = False
    sizes = {"n_best_size": n_best, "max_answer_length": 12}
    scores, first, last = numpy_spans.best_spans(logits[0], logits[1], mask, **sizes)
    tensors = best_spans(torch.tensor(logits[0]), torch.tensor(logits[1]), torch.tensor(mask), **sizes)
    assert scores.dtype == np.float32
    assert scores.tobytes() == tensors[0].numpy().tobytes()
    for row in range(len(scores)):
        # Which of several spans with the lowest returned score are returned is left to torch.topk.
        valid = np.isfinite(scores[row]) & ((scores[row] > scores[row, -1]) | (scores[row, -1] == -np.inf))
        assert first[row, valid].tolist() == tensors[1][row].numpy()[valid].tolist()
        assert last[row, valid].tolist() == tensors[2][row].numpy()[valid].tolist()


def test_best_spans_of_bfloat16_logits_are_added_in_float32() -> None:
    start = torch.tensor([[256.0, 0.0]], dtype=torch.bfloat16)
    end = torch.tensor([[1.0, 0.0]], dtype=torch.bfloat16)
    scores, _, _ = best_spans(start, end, torch.ones(1, 2, dtype=torch.bool), n_best_size=1, max_answer_length=2)
    assert scores.item() == 257.0  # 256 in bfloat16 arithmetic


@pytest.mark.parametrize("left", [False, True])
def test_window_spans_count_from_the_window_whatever_the_padding(tiny_bert: Path, left: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    windows = make_windows(make_questions(4), pair_tokenizer(tokenizer), max_seq_length=100, doc_stride=20)
    batch = WindowCollator(tokenizer.pad_token_id, left, length=100)([windows[index] for index in range(4)])
    start, end = torch.zeros(2, 4, 100)
    rows = torch.arange(4)
    start[rows, batch["start_positions"]] = 5.0
    end[rows, batch["end_positions"]] = 5.0
    start[rows, batch["cls_positions"]] = -1.0
    end[rows, batch["cls_positions"]] = -2.0
    options = AnsweringOptions(100, 20, n_best_size=3, max_answer_length=9)
    spans = window_spans(batch, start, end, options).arrays()
    assert spans.first[:, 0].tolist() == windows.start_position.tolist()
    assert spans.last[:, 0].tolist() == windows.end_position.tolist()
    assert spans.start_logits[:, 0].tolist() == [5.0] * 4
    assert (spans.null_starts.tolist(), spans.null_ends.tolist()) == ([-1.0] * 4, [-2.0] * 4)
    arrays = {name: tensor.numpy() for name, tensor in batch.items()}
    in_numpy = numpy_spans.window_spans(arrays, start.numpy(), end.numpy(), options)
    for ours, theirs in zip(in_numpy[:7], spans[:7], strict=True):  # without the temperature
        best = np.s_[:, 0] if ours.ndim == 2 else np.s_[:]  # the other spans have equal scores
        assert ours[best].tolist() == theirs[best].tolist()


def test_collected_spans_are_in_the_order_of_the_windows() -> None:
    order = np.array([1, 3, 0, 2])
    collector = SpanCollector(order, 2)
    for rows in (order[:3], order[3:]):
        numbers = torch.tensor(rows)
        wide = numbers[:, None] * 10 + torch.arange(2)
        batch = SpanTensors(
            wide.float(), wide.short(), wide.short() + 1, wide.float(), numbers.float(), -numbers.float(), numbers + 9
        )
        collector.add_batch(batch)
    with pytest.raises(ValueError, match="logits"):
        SpanCollector(order, 2, logit_length=5).add_batch(batch)
    spans = collector.spans
    assert spans.scores.tolist() == spans.first.tolist() == [[0, 1], [10, 11], [20, 21], [30, 31]]
    assert spans.last.tolist() == (spans.first + 1).tolist()
    assert spans.first.dtype == np.int16
    assert spans.null_starts.tolist() == [0, 1, 2, 3]
    assert spans.null_ends.tolist() == [0, -1, -2, -3]
    assert spans.log_totals.tolist() == [9, 10, 11, 12]


def test_answer_files_have_the_ecosystems_format(tiny_bert: Path, tmp_path: Path) -> None:
    questions = make_questions(3)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    windows = make_windows(questions, pair_tokenizer(tokenizer), max_seq_length=100, doc_stride=20)
    batch = WindowCollator(tokenizer.pad_token_id, False)([windows[index] for index in range(3)])
    torch.manual_seed(1)
    logits = torch.randn(2, *batch["input_ids"].shape)
    options = AnsweringOptions(100, 20, n_best_size=5, max_answer_length=6)
    spans = window_spans(batch, logits[0], logits[1], options).arrays()
    answers = choose_answers(questions, windows, spans, replace(options, version_2=True))
    write_answers(answers, tmp_path, "eval")
    texts = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    files = {name: json.loads(text) for name, text in texts.items()}
    assert sorted(files) == ["eval_nbest_predictions.json", "eval_null_odds.json", "eval_predictions.json"]
    assert files["eval_predictions.json"] == answers.texts()
    assert files["eval_null_odds.json"] == answers.null_odds
    for question in questions:
        assert files["eval_nbest_predictions.json"][question.id] == [
            vars(candidate) | {"end_logit": pytest.approx(candidate.end_logit, abs=1e-6)}
            for candidate in answers.n_best[question.id]
        ]
    for text in texts.values():  # a line for each question
        assert [line[:5] for line in text.splitlines()] == ["{", '"q0":', '"q1":', '"q2":', "}"]
    (tmp_path / "v1").mkdir()
    write_answers(choose_answers(questions, windows, spans, options), tmp_path / "v1", "test")
    assert {path.name for path in (tmp_path / "v1").iterdir()} == {
        "test_predictions.json", "test_nbest_predictions.json",
    }  # fmt: skip

"""Windows kept between runs (adapter_qa/window_cache.py): the same ones come back, and only for the same work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import made_questions
from transformers import AutoTokenizer

from adapter_qa import window_cache
from adapter_qa.squad import Question
from adapter_qa.window_cache import cache_folder, digest, kept_windows
from adapter_qa.windows import Windows

SIZES = {"max_seq_length": 40, "doc_stride": 10}


@pytest.fixture(params=["bert", "roberta"])
def tokenizer(request: pytest.FixtureRequest, tiny_bert: Path, tiny_roberta: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_bert if request.param == "bert" else tiny_roberta)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTER_QA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(window_cache, "WORTH_KEEPING", 1)


def same(one: Windows, other: Windows) -> None:
    assert len(one) == len(other) and one.cut_questions == other.cut_questions
    for index in range(len(one)):
        for name, value in one[index].items():
            assert np.array_equal(value, other[index][name]), name
    rows = np.arange(len(one))
    begins = one.context_begins()
    assert np.array_equal(one.characters(rows, begins), other.characters(rows, begins))


def test_the_same_windows_come_back_without_being_made(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = made_questions(12, sentences=6)
    questions.append(Question("long", "Onde " * 50, questions[0].context, (), ()))
    made = kept_windows(questions, tokenizer, **SIZES)
    assert made.cut_questions == 1 and len(list(cache_folder().iterdir())) == 1
    monkeypatch.setattr(window_cache, "make_windows", None)  # called, it would fail
    tokenizer("a call that leaves its settings behind", truncation=True, max_length=7, padding="max_length")
    same(kept_windows(questions, tokenizer, **SIZES), made)


def test_whatever_changes_windows_changes_the_name(tokenizer: Any, tiny_bert: Path) -> None:
    questions = made_questions(3)
    one = questions[0]
    others = [
        [replace(one, question=one.question + "?"), *questions[1:]],
        [replace(one, context=one.context + " "), *questions[1:]],
        [replace(one, answer_starts=(one.answer_starts[0] + 1,)), *questions[1:]],
        [replace(one, answer_texts=(), answer_starts=()), *questions[1:]],
        questions[1:],
        [questions[1], one, questions[2]],
    ]
    names = {digest(questions, tokenizer, SIZES), *(digest(other, tokenizer, SIZES) for other in others)}
    names.add(digest(questions, tokenizer, {**SIZES, "doc_stride": 11}))
    tokenizer.padding_side = "left"
    names.add(digest(questions, tokenizer, SIZES))
    tokenizer.padding_side = "right"
    lower = AutoTokenizer.from_pretrained(tiny_bert, do_lower_case=True)
    names.add(digest(questions, lower, SIZES))
    assert len(names) == 10
    assert digest([replace(one, id="other") for one in questions[:1]], tokenizer, SIZES) == digest(
        questions[:1], tokenizer, SIZES
    )


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", None])
def test_damaged_files_are_made_anew(tokenizer: Any, content: bytes | None, capsys: pytest.CaptureFixture[str]) -> None:
    questions = made_questions(5)
    made = kept_windows(questions, tokenizer, **SIZES)
    (path,) = cache_folder().iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-200] if content is None else content)
    same(kept_windows(questions, tokenizer, **SIZES), made)
    assert "the windows are made anew" in capsys.readouterr().err
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ADAPTER_QA_CACHE", str(tmp_path / "file"))
    assert len(kept_windows(made_questions(2), tokenizer, **SIZES)) >= 2
    assert "the windows are not kept" in capsys.readouterr().err


def test_few_are_not_kept_and_old_ones_go(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_cache, "KEPT_FILES", 2)
    for seed in range(4):
        kept_windows(made_questions(2, seed), tokenizer, **SIZES)
    assert len(list(cache_folder().iterdir())) == 2
    monkeypatch.setattr(window_cache, "WORTH_KEEPING", 3)
    kept_windows(made_questions(2, 9), tokenizer, **SIZES)
    assert len(list(cache_folder().iterdir())) == 2

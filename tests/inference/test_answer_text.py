"""The words of answers (adapter_qa/inference/answer_text.py), and what is printed where stdout is not UTF-8."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from adapter_qa.inference.answer_text import answer_line, candidate_lines, print_json, print_text

CONTEXT = "Ana é médica em Natal."
ANSWER = {"answer": "médica", "score": 0.7149, "start": 6, "end": 12}
NO_ANSWER = {"answer": "", "score": 0.254, "start": 0, "end": 0}


def test_the_characters_are_those_of_a_slice_of_the_context() -> None:
    line = answer_line(ANSWER)
    assert line == "médica   (probability 0.71, characters 6–12)"
    start, end = map(int, line.rpartition("characters ")[2].rstrip(")").split("–"))
    assert CONTEXT[start:end] == "médica"


def test_an_answer_stands_on_one_line() -> None:
    answer = {"answer": "Ana.\n\nDavi\x1b[2J", "score": 1.0, "start": 0, "end": 13}
    assert answer_line(answer) == "Ana. Davi\\u001b[2J   (probability 1.00, characters 0–13)"


def test_no_answer_has_no_place() -> None:
    assert answer_line(NO_ANSWER) == "(no answer)   (probability 0.25)"
    assert candidate_lines(ANSWER | {"n_best": [ANSWER, NO_ANSWER]}) == [
        "   1. médica   (probability 0.71, characters 6–12)",
        "   2. (no answer)   (probability 0.25)",
    ]
    assert candidate_lines(ANSWER) == []


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_stdout_will_do(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def printed(call: Any, value: Any) -> str:
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        call(value)
        sys.stdout.flush()
        return raw.getvalue().decode(encoding)

    assert (
        printed(print_text, answer_line(ANSWER))
        == {
            "ascii": "m\\xe9dica   (probability 0.71, characters 6-12)\n",
            "latin-1": "médica   (probability 0.71, characters 6-12)\n",
            "utf-8": "médica   (probability 0.71, characters 6–12)\n",
        }[encoding]
    )
    document = ANSWER | {"note": "\x7f\u2028東"}
    line = printed(print_json, document)
    assert json.loads(line) == document
    assert line.count("\n") == 1
    assert "\x7f" not in line
    assert ("東" in line) == (encoding == "utf-8")

"""The words in which answers are shown on a terminal and on the page. This module needs the standard library only."""

from __future__ import annotations

import json
import sys
from typing import Any

from adapter_qa.core.errors import escape_control_chars


def probability_text(probability: float) -> str:
    """Return the probability of an answer among all spans of all windows of its context: "probability 0.71"."""
    return f"probability {probability:.2f}"


def place_text(answer: dict[str, Any]) -> str:
    """Return where an answer or candidate is in its context, such as "67–73"; "" for no answer.

    Characters count from 0, and the second number is the first character after the answer: `context[67:73]`.
    """
    return f"{answer['start']}–{answer['end']}" if answer["end"] > 0 else ""


def numbers_text(answer: dict[str, Any]) -> str:
    """Return the numbers of an answer, such as "probability 0.71, characters 67–73"."""
    place = place_text(answer)
    return probability_text(answer["score"]) + (f", characters {place}" if place else "")


def answer_line(answer: dict[str, Any]) -> str:
    """Return the text of an answer and its numbers."""
    return f"{one_line(answer['answer']) or '(no answer)'}   ({numbers_text(answer)})"


def candidate_lines(answer: dict[str, Any]) -> list[str]:
    """Return a line for each candidate of an answer's "n_best": its rank, text and numbers."""
    candidates = answer.get("n_best", [])
    return [f"{rank:>4}. {answer_line(candidate)}" for rank, candidate in enumerate(candidates, start=1)]


def one_line(text: str) -> str:
    """Return a text without line breaks and without characters that control a terminal."""
    return escape_control_chars(" ".join(text.split()))


def print_text(text: str) -> None:
    """Print a text on stdout; what its encoding lacks is escaped, and the dash of a range becomes a hyphen."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("–", "-").encode(encoding, "backslashreplace").decode(encoding)
    print(text)


def print_json(document: dict[str, Any]) -> None:
    """Print a line of JSON on stdout; it is written in ASCII if the encoding of stdout lacks one of its characters."""
    line = escape_control_chars(json.dumps(document, ensure_ascii=False, allow_nan=False))
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        line = escape_control_chars(json.dumps(document))
    print(line)

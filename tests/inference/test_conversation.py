"""Questions that are typed on a terminal (adapter_qa/inference/conversation.py)."""

from __future__ import annotations

import builtins
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from support.saved_runs import SavedRuns
from support.scripts import ROOT
from support.terminal import run_in_terminal

from adapter_qa.core.errors import UserError
from adapter_qa.inference.conversation import HOW_TO_ASK, HOW_TO_GIVE_A_TEXT, converse


def typed(monkeypatch: pytest.MonkeyPatch, lines: Iterable[str | type[BaseException]]) -> None:
    """Let `input` return lines or raise exceptions, and EOFError at the end."""
    left = iter(lines)

    def read(prompt: str = "") -> str:
        line = next(left, EOFError)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr(builtins, "input", read)


def asked(
    monkeypatch: pytest.MonkeyPatch, context: str | None, *lines: str | type[BaseException]
) -> list[tuple[str, str]]:
    """Return the questions and contexts of a conversation."""
    pairs: list[tuple[str, str]] = []

    def ask(question: str, context: str) -> list[str]:
        pairs.append((question, context))
        if question == "bad":
            raise UserError("not a question")
        return [f"<{question}>"]

    typed(monkeypatch, lines)
    converse(ask, context)
    return pairs


def test_texts_and_questions_end_with_an_empty_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["", "Ana é médica.", "Davi não.", " ", "Quem?", "bad", "O\nque?", "", "a\n\nb", "", "c"]
    assert asked(monkeypatch, None, *lines) == [
        ("Quem?", "Ana é médica.\nDavi não."),
        ("bad", "Ana é médica.\nDavi não."),
        ("O que?", "Ana é médica.\nDavi não."),
        ("c", "a\n\nb"),
    ]
    printed = capsys.readouterr()
    expected = [HOW_TO_GIVE_A_TEXT, HOW_TO_ASK, "<Quem?>", "<O que?>", HOW_TO_GIVE_A_TEXT, HOW_TO_ASK, "<c>", ""]
    assert printed.out.splitlines() == expected
    assert printed.err == "error: not a question\n"


def test_a_given_context_is_the_first_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, "given", "q", "", "other", EOFError, "q") == [("q", "given"), ("q", "other")]
    assert asked(monkeypatch, None) == []


def test_ctrl_c_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        asked(monkeypatch, "given", KeyboardInterrupt)


def test_a_conversation_on_a_terminal_that_ctrl_c_ends(saved_runs: SavedRuns, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Ana nasceu em Natal.\n\nDavi nasceu em Belém.\n", encoding="utf-8")
    command = [
        sys.executable,
        str(ROOT / "ask_qa.py"),
        str(saved_runs.fusion),
        "--context_file",
        str(tmp_path / "text.txt"),
    ]

    sent: list[int] = []

    def interrupt(text: str, process: subprocess.Popen[bytes]) -> None:
        if text.count("(probability") == 2 and text.endswith("\nquestion:") and not sent:
            sent.append(signal.SIGINT)
            # A moment later: between the prompt and the first wait for a key, readline misses a signal.
            threading.Timer(0.5, process.send_signal, [signal.SIGINT]).start()

    screen = run_in_terminal(command, typed="Onde?\n\nAna.\n\nQuem?\n", on_screen=interrupt)
    assert (screen.exit_code, screen.lines[-1]) == (-signal.SIGINT, "stopped: interrupted")
    assert "Traceback" not in screen.text
    starts = (HOW_TO_ASK, HOW_TO_GIVE_A_TEXT, "question:", "text:")
    assert [line for line in screen.lines if line.startswith(starts)] == [
        *(HOW_TO_ASK, "question: Onde?", "question:"),
        *(HOW_TO_GIVE_A_TEXT, "text: Ana."),
        *(HOW_TO_ASK, "question: Quem?", "question:"),
    ]
    assert screen.lines[screen.lines.index("question: Quem?") + 1].startswith("Ana")

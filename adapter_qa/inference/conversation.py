"""Ask for a text and for questions on a terminal, until the user leaves."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Callable

from adapter_qa.core.errors import ReportedError
from adapter_qa.core.messages import print_error
from adapter_qa.inference.answer_text import print_text

Ask = Callable[[str, str], list[str]]  # question and context -> lines to print

HOW_TO_GIVE_A_TEXT = "Paste the text that holds the answers, then an empty line. Ctrl-D leaves."
HOW_TO_ASK = "Ask. An empty line asks for another text, Ctrl-D leaves."


def converse(ask: Ask, context: str | None) -> None:
    """Ask for a text, answer questions on it, and begin again after an empty line; return after Ctrl-D.

    Args:
        ask: Answers a question; a `ReportedError` is printed, and the user may ask again.
        context: The first text; None asks for it.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
    """
    _prepare_input()
    try:
        while True:
            text = context or _read_context()
            context = None
            print(HOW_TO_ASK)
            while question := " ".join(input("question: ").split()):
                try:
                    lines = ask(question, text)
                except ReportedError as error:
                    print_error(error)
                    continue
                for line in lines:
                    print_text(line)
    except EOFError:
        print()
    except KeyboardInterrupt:
        print()  # the cursor is behind the prompt
        raise


def _read_context() -> str:
    """Read lines up to an empty one, or to Ctrl-D behind at least one line.

    Raises:
        EOFError: Ctrl-D before the first line.
    """
    print(HOW_TO_GIVE_A_TEXT)
    lines: list[str] = []
    while True:
        try:
            line = input("text: " if not lines else "")  # all lines of a pasted text, if the terminal marks them
        except EOFError:
            if not lines:
                raise
            print()
            break
        if line.strip():
            lines.append(line)
        elif lines:
            break
    return "\n".join(lines)


def _prepare_input() -> None:
    """Let `input` edit lines and remember them, if this Python has readline, and read bytes that are not UTF-8."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # whoever checks the text reports them
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")

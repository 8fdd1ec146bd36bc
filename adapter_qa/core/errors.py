"""Errors for people, and the one place where a script turns them into an exit code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
LONGEST_PROBLEM = 2000  # characters; ids and names in messages come from files and may have any length
# Control characters, line separators, changes of direction, lone surrogates.
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_control_chars(text: object) -> str:
    """Text that a terminal shows and does not obey: what it would obey becomes \\uXXXX, as JSON writes it."""
    return OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text))


class ReportedError(Exception):
    """What a person is told in lines of their own, without a traceback: what happened, what is allowed, what to do.

    Args:
        problems: one line each. Several are reported together, so that all of them are mended at once.
    """

    exit_code = EXIT_FAILED

    def __init__(self, problems: str | list[str]):
        found = [problems] if isinstance(problems, str) else problems
        self.problems = [shortened(escape_control_chars(problem)) for problem in found]
        super().__init__("\n".join(self.problems))


def shortened(text: str) -> str:
    """Text of at most `LONGEST_PROBLEM` characters, its middle left out where it is longer."""
    half = LONGEST_PROBLEM // 2
    return text if len(text) <= LONGEST_PROBLEM else f"{text[:half]} ... {text[-half:]}"


class UserError(ReportedError):
    """Mistakes that the user can mend, found before work begins."""

    exit_code = EXIT_BAD_INPUT


class RunError(ReportedError):
    """What ends a run that was well begun: a full disk, a loss that is no number, memory that does not suffice."""


class Interrupted(ReportedError):
    """A run that was asked to stop, and has put its work away.

    Args:
        number: the signal; the exit code is 128 + it, as shells have it.
        problems: how to go on.
    """

    def __init__(self, number: int, problems: str | list[str]):
        super().__init__(problems)
        self.exit_code = 128 + number


def raise_if_any(problems: list[str]) -> None:
    """Nothing where there are no problems.

    Raises:
        UserError: there are.
    """
    if problems:
        raise UserError(problems)


def run_all(steps: Iterable[Callable[[], Any]]) -> list[Any]:
    """What each of some steps returns that do not build on one another.

    Raises:
        UserError: the problems of all of them together.
    """
    results: list[Any] = []
    failed: list[UserError] = []
    for step in steps:
        try:
            results.append(step())
        except UserError as error:
            failed.append(error)
    if failed:
        raise UserError([problem for error in failed for problem in error.problems]) from failed[0]
    return results

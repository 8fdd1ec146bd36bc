"""Errors that are reported in lines without a traceback, each with an exit code."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, overload

First = TypeVar("First")
Second = TypeVar("Second")
Third = TypeVar("Third")

EXIT_BAD_INPUT = 2
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
MAX_PROBLEMS = 10  # records of one file that an error names; further ones are only counted
MAX_PROBLEM_CHARS = 2000  # ids and names in messages come from files and may have any length
# Control characters, line separators, changes of direction, lone surrogates.
CONTROL_CHARS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_control_chars(text: object) -> str:
    r"""Return text in which characters that control a terminal are written as \uXXXX, as in JSON."""
    return CONTROL_CHARS.sub(lambda match: f"\\u{ord(match[0]):04x}", str(text))


class ReportedError(Exception):
    """An error that is reported without a traceback: what happened, what is allowed, what to do.

    Args:
        problems: one line each. Several are reported together, so that the user can fix them all at once.
    """

    exit_code = 1

    def __init__(self, problems: str | list[str]):
        lines = [problems] if isinstance(problems, str) else problems
        self.problems = [_shorten(escape_control_chars(line)) for line in lines]
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


def _shorten(text: str) -> str:
    half = MAX_PROBLEM_CHARS // 2
    return text if len(text) <= MAX_PROBLEM_CHARS else f"{text[:half]} ... {text[-half:]}"


class UserError(ReportedError):
    """Mistakes in the input, which the user can fix; found before work begins."""

    exit_code = EXIT_BAD_INPUT


class RunError(ReportedError):
    """The failure of a run with valid input: a full disk, a NaN loss, too little memory."""


class Interrupted(ReportedError):  # noqa: N818  (the run has not failed)
    """The end of a run after a signal; its work is saved.

    Args:
        signal_number: the exit code is 128 plus this number, as in shells.
        problems: how to resume.
    """

    def __init__(self, signal_number: int, problems: str | list[str]):
        super().__init__(problems)
        self.exit_code = 128 + signal_number
        self.args = (signal_number, self.problems)  # with which pickle makes it again, e.g. in a pool of processes


def error_line(error: BaseException, limit: int = MAX_PROBLEM_CHARS) -> str:
    """Return at most `limit` characters of the text of an error, on one line; without a text its type."""
    return (" ".join(str(error).split()) or type(error).__name__)[:limit]


def write_error(problem: str, error: OSError) -> ReportedError:
    """Return the error of a file that cannot be written: the run failed if the disk is full, else the input is bad."""
    return (RunError if error.errno in DISK_FULL else UserError)(problem)


def raise_if_any(problems: list[str]) -> None:
    """Raise `UserError` if `problems` is not empty."""
    if problems:
        raise UserError(problems)


def first_problems(problems: list[str], source: str = "") -> list[str]:
    """Return at most `MAX_PROBLEMS` problems, and a line that counts the others, which begins with `source`."""
    more = len(problems) - MAX_PROBLEMS
    return problems if more <= 0 else [*problems[:MAX_PROBLEMS], f"{source}and {more} more problems"]


def raise_first_problems(problems: list[str], source: object) -> None:
    """Raise `UserError` if there are problems of a source; at most `MAX_PROBLEMS` are listed."""
    raise_if_any(first_problems(problems, f"{source}: "))


def first_names(names: Iterable[object]) -> str:
    """Return at most `MAX_PROBLEMS` names with commas between them, and how many more there are."""
    shown = [str(name) for name in names]
    more = len(shown) - MAX_PROBLEMS
    return ", ".join(shown[:MAX_PROBLEMS]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def also_report(problems: list[str]) -> Iterator[None]:
    """Run a block although there are problems already, and report its problems after them.

    Raises:
        UserError: if `problems` is not empty, or the block raises `UserError`.
    """
    try:
        yield
    except UserError as error:
        raise UserError([*problems, *error.problems]) from error
    raise_if_any(problems)


@overload
def run_all(first: Callable[[], First], second: Callable[[], Second], /) -> tuple[First, Second]: ...


@overload
def run_all(
    first: Callable[[], First], second: Callable[[], Second], third: Callable[[], Third], /
) -> tuple[First, Second, Third]: ...


def run_all(*steps: Callable[[], Any]) -> tuple[Any, ...]:
    """Run two or three independent steps and return their results; errors as in `run_each`."""
    return tuple(run_each(steps))


def run_each(steps: Iterable[Callable[[], First]]) -> list[First]:
    """Run independent steps of one kind and return their results.

    Raises:
        UserError: if a step raises `UserError`; with the problems of all steps.
    """
    results: list[First] = []
    errors: list[UserError] = []
    for step in steps:
        try:
            results.append(step())
        except UserError as error:
            errors.append(error)
    if errors:
        raise UserError([problem for error in errors for problem in error.problems]) from errors[0]
    return results

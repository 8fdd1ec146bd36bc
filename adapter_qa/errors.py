"""Errors for people, and the one place where a script turns them into an exit code."""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
DEBUG = "--debug"
LIBRARY_DEBUG = ("underflow_overflow", "tpu_metrics_debug")  # values of the option of that name in TrainingArguments
LONGEST_PROBLEM = 2000  # characters; ids and names in messages come from files and may have any length
# Control characters, line separators, changes of direction, lone surrogates.
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def inert(text: object) -> str:
    """Text that a terminal shows and does not obey: what it would obey becomes \\uXXXX, as JSON writes it."""
    return OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text))


class ForPeople(Exception):
    """What a person is told in lines of their own, without a traceback: what happened, what is allowed, what to do.

    Args:
        problems: one line each. Several are reported together, so that all of them are mended at once.
    """

    exit_code = EXIT_FAILED

    def __init__(self, problems: str | list[str]):
        found = [problems] if isinstance(problems, str) else problems
        self.problems = [shortened(inert(problem)) for problem in found]
        super().__init__("\n".join(self.problems))


def shortened(text: str) -> str:
    """Text of at most `LONGEST_PROBLEM` characters, its middle left out where it is longer."""
    half = LONGEST_PROBLEM // 2
    return text if len(text) <= LONGEST_PROBLEM else f"{text[:half]} ... {text[-half:]}"


class UserError(ForPeople):
    """Mistakes that the user can mend, found before work begins."""

    exit_code = EXIT_BAD_INPUT


class RunFailure(ForPeople):
    """What ends a run that was well begun: a full disk, a loss that is no number, memory that does not suffice."""


class Interrupted(ForPeople):
    """A run that was asked to stop, and has put its work away.

    Args:
        number: the signal; the exit code is 128 + it, as shells have it.
        problems: how to go on.
    """

    def __init__(self, number: int, problems: str | list[str]):
        super().__init__(problems)
        self.exit_code = 128 + number


class LineParser(argparse.ArgumentParser):
    """`ArgumentParser` that says all values which cannot be, a line for each.

    Attributes:
        wrong: these lines, of the command line read last.
    """

    def __init__(self, *args: Any, **others: Any):
        super().__init__(*args, **others)
        self.wrong: list[str] = []

    def parse_args(self, *args: Any, **others: Any) -> Any:
        """The library's.

        Raises:
            UserError: unknown options or values that cannot be, or a required one is missing.
        """
        self.wrong = []
        return self._accepted(*self.parse_known_args(*args, **others))

    def parse_intermixed_args(self, *args: Any, **others: Any) -> Any:
        """The library's.

        Raises:
            UserError: as `parse_args`.
        """
        self.wrong = []
        return self._accepted(*self.parse_known_intermixed_args(*args, **others))

    def _accepted(self, options: argparse.Namespace, rest: list[str]) -> argparse.Namespace:
        unknown = [self._said(f"unrecognized arguments: {' '.join(rest)}")] if rest else []
        refuse(self.wrong + unknown)
        return options

    def error(self, message: str) -> NoReturn:
        """Lines and exit code 2 in place of a page of usage.

        Raises:
            UserError: always.
        """
        raise UserError([*self.wrong, self._said(message)])

    def _said(self, message: str) -> str:
        """What argparse has to say, without the second spelling, with dashes, of options that have one."""
        return re.sub(r"/--[\w-]+", "", f"{message}; see {self.prog} --help")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        try:
            return super()._get_values(action, arg_strings)
        except argparse.ArgumentError as error:
            self.wrong.append(self._said(str(error)))
            return action.default


def refuse(problems: list[str]) -> None:
    """Nothing where there are no problems.

    Raises:
        UserError: there are.
    """
    if problems:
        raise UserError(problems)


def gather(steps: Iterable[Callable[[], Any]]) -> list[Any]:
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


def speaks() -> bool:
    """Whether this process is the one of its machine that says what all of them would say."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def note(lines: Iterable[str]) -> None:
    """Says on stderr what a person should know and need not mend, a line each."""
    for line in lines if speaks() else ():
        print(f"note: {inert(line)}", file=sys.stderr, flush=True)


def run_door(main: Callable[[list[str]], int]) -> int:
    """Runs a script's `main` on the command line and returns its exit code.

    `--debug` without a value, anywhere on the line, shows the traceback of an error as well.

    Returns:
        What `main` returns; otherwise that of the error, whose problems go to stderr: 2 for bad input, 1 for a run that
        failed, 128 + signal for one that was stopped, SIGPIPE included.
    """
    argv, debug = take_debug(sys.argv[1:])
    try:
        code = call_main(main, argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads the output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python would complain at its end
        return 128 + signal.SIGPIPE
    except ForPeople as error:
        if debug:
            traceback.print_exc()
        tell(error)
        return error.exit_code
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        print("stopped: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def tell(error: ForPeople) -> None:
    """Says on stderr what happened, a line each. Bad input is the same for all processes of a run; a failure is not."""
    prefix = "stopped" if isinstance(error, Interrupted) else "error"
    where = "" if speaks() else f"[rank {os.environ['RANK']}] "
    for problem in error.problems if speaks() or isinstance(error, RunFailure) else ():
        print(f"{where}{prefix}: {problem}", file=sys.stderr)


def call_main(main: Callable[[list[str]], int], argv: list[str]) -> int:
    """Calls a script's `main`.

    Raises:
        UserError: a name on the command line or in a file is too long to be a path, wherever that was noticed.
    """
    try:
        return main(argv)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise UserError(f"{error.filename}: {error.strerror}; give a shorter path") from error


def take_debug(argv: list[str]) -> tuple[list[str], bool]:
    """The command line without `--debug`, and whether it was there. With a value of the library's it is an option."""
    ours = [
        index
        for index, word in enumerate(argv)
        if word == DEBUG and not (index + 1 < len(argv) and argv[index + 1] in LIBRARY_DEBUG)
    ]
    return [word for index, word in enumerate(argv) if index not in ours], bool(ours)

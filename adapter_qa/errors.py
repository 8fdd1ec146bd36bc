"""Errors for people, and the one place where a script turns them into an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what shells expect


class UserError(Exception):
    """Mistakes that the user can mend: what was given, what is allowed, what to do.

    Args:
        problems: one line each. Several are reported together, so that the user mends all of them at once.
    """

    def __init__(self, problems: str | list[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


def note(lines: Iterable[str]) -> None:
    """Says on stderr what a person should know and need not mend, a line each."""
    for line in lines:
        print(f"note: {line}", file=sys.stderr, flush=True)


def run_door(main: Callable[[list[str]], int]) -> int:
    """Runs a script's `main` on the command line and returns its exit code.

    Returns:
        What `main` returns; 2 after a `UserError`, whose problems go to stderr; 130 after Ctrl-C.
    """
    try:
        return main(sys.argv[1:])
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED

"""Command-line parsing and exit codes shared by every script."""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from adapter_qa.core.errors import ReportedError, UserError, raise_if_any
from adapter_qa.core.messages import print_error

DEBUG = "--debug"


LIBRARY_DEBUG = ("underflow_overflow", "tpu_metrics_debug")  # values of the option of that name in TrainingArguments


class CollectingArgumentParser(argparse.ArgumentParser):
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
        raise_if_any(self.wrong + unknown)
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


def run_cli(main: Callable[[list[str]], int]) -> int:
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
    except ReportedError as error:
        if debug:
            traceback.print_exc()
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        print("stopped: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


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

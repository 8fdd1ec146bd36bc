"""Command-line parsing and exit codes shared by all scripts."""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from adapter_qa import __version__
from adapter_qa.core.errors import (
    DISK_FULL,
    EXIT_BAD_INPUT,
    Interrupted,
    ReportedError,
    RunError,
    UserError,
    raise_if_any,
)
from adapter_qa.core.messages import print_error

# Words that an option takes by its argparse `nargs`, its name included. Others take all words up to the next option.
MAX_WORDS: dict[int | str | None, int] = {None: 2, "?": 2, 0: 1}
NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$|-inf$|-nan$", re.IGNORECASE)
TEXT_OPTIONS = ("question", "context")  # they may hold any text
LIBRARY_DEBUG_VALUES = ("underflow_overflow", "tpu_metrics_debug")  # of TrainingArguments' option `debug`


class HelpFormatter(argparse.HelpFormatter):
    """Formatter whose paragraphs fit the terminal; a paragraph with an indented line, such as examples, stays as it is.

    `X ...` stands for one or more X.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip("\n").split("\n\n")
        return "\n\n".join(
            part if re.search(r"^ ", part, re.MULTILINE) else "\n".join(self._split_lines(part, width))
            for part in paragraphs
        )

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.nargs == "+":
            return f"{self._metavar_formatter(action, default_metavar)(1)[0]} ..."
        return super()._format_args(action, default_metavar)


class CollectingArgumentParser(argparse.ArgumentParser):
    """An `ArgumentParser` with `--version` that reports all problems at once, one line each in `problems`."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"formatter_class": HelpFormatter, **kwargs})
        self._negative_number_matcher = NEGATIVE_NUMBER  # argparse's own takes -1e-4 for an option
        self.problems: list[str] = []
        self._met: set[argparse.Action] = set()  # on the command line
        self.add_argument(
            "--version", action="version", version=f"%(prog)s {__version__}", help="show the version and exit"
        )

    def parse_args(self, args: Sequence[str], *rest: Any) -> Any:  # type: ignore[override]  # sys.argv is no default
        """Parse a command line; UserError has all its problems."""
        self.problems = self.repeated(args)
        options = super().parse_args(args, *rest)
        raise_if_any(self.problems)
        return options

    def parse_intermixed_args(self, args: Sequence[str], *rest: Any) -> Any:  # type: ignore[override]
        """Parse a command line whose options and words are mixed; UserError has all its problems."""
        self.problems = self.repeated(args)
        options = super().parse_intermixed_args(args, *rest)
        raise_if_any(self.problems)
        return options

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse a command line as argparse does, but let missing options and words hide no other problem."""
        self._met = set()
        required = [action for action in self._actions if action.required]
        for action in required:
            action.required = False
        try:
            parsed = super().parse_known_args(*args, **kwargs)
        finally:
            for action in required:
                action.required = True
        missing = [action for action in required if action not in self._met]
        if missing:
            names = ", ".join(map(_name, missing))
            self.problems.append(self._problem(f"the following arguments are required: {names}"))
        return parsed

    def occurrences(self, words: Sequence[str]) -> list[tuple[argparse.Action, str]]:
        """Return every option of a command line in order, each with its own words; unknown options are left out."""
        found: list[tuple[argparse.Action, list[str]]] = []
        for word in words:
            action = self._option_string_actions.get(word.partition("=")[0])
            if action is not None:
                found.append((action, [word]))
            elif found and not word.startswith("--"):
                found[-1][1].append(word)
        return [(action, " ".join(own[: MAX_WORDS.get(action.nargs)])) for action, own in found]

    def repeated(self, words: Sequence[str]) -> list[str]:
        """Return a problem for each option that a command line has several times although it takes one value."""
        given: dict[str, list[str]] = {}
        for action, text in self.occurrences(words):
            if not isinstance(action, argparse._AppendAction):  # noqa: SLF001 - argparse has no other name for it
                given.setdefault(action.dest, []).append(text)
        return [
            f"--{name} is given {len(texts)} times ({'; '.join(texts)}); give it once"
            for name, texts in given.items()
            if len(texts) > 1
        ]

    def error(self, message: str) -> NoReturn:
        """Raise `UserError`, where argparse would print its usage and exit."""
        import difflib  # late: it is not needed otherwise

        unknown = re.findall(r"--[\w-]+", message) if message.startswith("unrecognized arguments") else []
        near = [name for word in unknown for name in difflib.get_close_matches(word, self._option_string_actions, 1)]
        hint = f"; did you mean {' '.join(near)}?" if near else ""
        raise UserError([*self.problems, self._problem(message + hint)])

    def _problem(self, message: str) -> str:
        """Add a pointer to --help; of options with two spellings, only the one with underscores is named."""
        text = message if message.endswith("?") else f"{message}; see {self.prog} --help"
        return re.sub(r"/--[\w-]+", "", text)

    def _match_argument(self, action: argparse.Action, pattern: str) -> int:
        try:
            return super()._match_argument(action, pattern)
        except argparse.ArgumentError as error:
            self.problems.append(self._problem(str(error)))
            return 0

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        self._met.add(action)
        if "" in arg_strings and action.dest not in TEXT_OPTIONS:  # "" as a path would be the current folder
            self.problems.append(f"{_name(action)} is empty; give a value, or leave it out")
            return action.default
        if action.nargs in (None, "+") and not arg_strings:  # `_match_argument` has reported it
            return action.default
        try:
            return super()._get_values(action, arg_strings)
        except argparse.ArgumentError as error:
            self.problems.append(self._problem(str(error)))
            return action.default


def _name(action: argparse.Action) -> str:
    """Return how an argument is called on the command line."""
    return str([*action.option_strings, action.metavar or action.dest][0])


def output_problems(option: str, path: Path, *, overwrite: bool) -> list[str]:
    """Return why a script cannot write the file that an option names, as far as this can be known in advance."""
    if path.is_dir():
        return [f"{option} {path}: is a folder; give a file"]
    if path.exists() and not path.is_file():  # a device or a pipe, which would be replaced
        return [f"{option} {path}: is no regular file; give a file"]
    if not path.parent.is_dir():
        return [f"{option} {path}: there is no folder {path.parent}; make it first"]
    if path.exists() and not overwrite:
        return [f"{option} {path}: exists; add --overwrite or give another file"]
    return []


def run_cli(main: Callable[[list[str]], int]) -> int:
    """Run a script's `main` with the arguments of the command line and return the exit code.

    `--debug` without a value, anywhere on the command line, also shows the traceback of an error.

    Returns:
        What `main` returns. After an error, whose problems are printed on stderr: 2 for bad input, 1 for a failed run,
        128 plus the signal for a stopped one, SIGPIPE included.

    Raises:
        KeyboardInterrupt: SIGINT stopped the script, which is printed. Uncaught, it ends the process by this signal. A
            shell needs that: its loops go on after any exit code, 130 included.
    """
    if sys.platform == "win32":
        print("error: Windows is not supported; use Linux, macOS or WSL", file=sys.stderr)
        return EXIT_BAD_INPUT
    argv, debug = _take_debug(sys.argv[1:])

    def report(error: ReportedError) -> int:
        if debug:
            traceback.print_exc()
        print_error(error)
        if error.exit_code == 128 + signal.SIGINT:
            sys.excepthook = _print_nothing
            raise KeyboardInterrupt
        return error.exit_code

    try:
        exit_code = main(argv)
        sys.stdout.flush()
        return exit_code
    except BrokenPipeError:  # the reader of the output closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it exits
        return 128 + signal.SIGPIPE
    except ReportedError as error:
        return report(error)
    except KeyboardInterrupt:
        return report(Interrupted(signal.SIGINT, "interrupted"))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return report(UserError(f"{error.filename}: {error.strerror}; give a shorter path"))
        if error.errno not in DISK_FULL:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # it may be what is full
        return report(RunError(f"{error.filename or 'standard output'}: {error.strerror}; make space there"))


def _print_nothing(*_: object) -> None:
    """Replace `sys.excepthook`: the error is printed already."""


def _take_debug(argv: list[str]) -> tuple[list[str], bool]:
    """Return the command line without `--debug`, and whether it was there.

    Followed by a value of `LIBRARY_DEBUG_VALUES`, `--debug` is an option of the library and stays.
    """
    pairs = zip(argv, [*argv[1:], ""], strict=False)  # an empty line has no pair
    kept = [word for word, value in pairs if word != "--debug" or value in LIBRARY_DEBUG_VALUES]
    return kept, len(kept) < len(argv)

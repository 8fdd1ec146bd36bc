"""The parser that the training doors share: an options file first, then the command line, problems in one line each.

A YAML or JSON file given as first argument sets options; what follows on the command line wins.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from adapter_qa.config.legacy_options import OLD_NAMES, translate_legacy_args
from adapter_qa.config.training_options import parser_module
from adapter_qa.core.cli import CollectingArgumentParser
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import is_text, kind, parse_json, read_text
from adapter_qa.core.messages import log_note

if TYPE_CHECKING:
    from transformers import HfArgumentParser
    from transformers.hf_argparser import string_to_bool
else:  # see `library_options`
    _parser = parser_module()
    HfArgumentParser, string_to_bool = _parser.HfArgumentParser, _parser.string_to_bool

NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$|-inf$|-nan$", re.IGNORECASE)
TRAIN_ADAPTER = re.compile(r"--train[_-]adapter(=|$)")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults are shown, except None, which every help text explains in words; examples keep their lines."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """One spelling, with underscores; the one with dashes works too."""
        if not action.option_strings:
            return super()._format_action_invocation(action)
        return f"{action.option_strings[0]} {self._format_args(action, 'VALUE')}".strip()


class ConfigParser(CollectingArgumentParser, HfArgumentParser):
    """`HfArgumentParser` that reads a file first, and refuses what it does not know."""

    def __init__(self, dataclass_types: Sequence[type], description: str, examples: str):
        super().__init__(
            list(dataclass_types),
            description=description,
            epilog="examples:\n" + examples,
            usage="%(prog)s [OPTIONS.yaml] --model_name_or_path MODEL [--option value ...]",
            formatter_class=_Help,
            allow_abbrev=False,
        )
        self._negative_number_matcher = NEGATIVE_NUMBER  # argparse's own takes -1e-4 for an option
        for action in self._actions:
            if action.option_strings[0].startswith("--no_"):  # the parser's own twins of options that are on by default
                action.help = argparse.SUPPRESS
            if action.type is string_to_bool:  # one whose default is None has no short form otherwise
                action.nargs, action.const = "?", True

    def known_names(self) -> list[str]:
        """Every option's name without dashes."""
        return [text[2:] for action in self._actions for text in action.option_strings if text.startswith("--")]

    def read(self, argv: list[str]) -> tuple[Any, ...]:
        """Parses a command line whose first word may be a YAML or JSON file of options.

        Returns:
            One instance for each dataclass, in order.

        Raises:
            UserError: unknown options with the nearest known name, or wrong types.
        """
        from_file: list[str] = []
        if argv and Path(argv[0]).suffix in (".yaml", ".yml", ".json"):
            from_file = self._file_to_argv(Path(argv[0]))
            argv = argv[1:]
        words, notes = translate_legacy_args(from_file + argv)
        if notes and "train_adapter" in self.known_names() and not any(map(TRAIN_ADAPTER.match, words)):
            notes.append("without --train_adapter an adapter is trained; in 2021 that meant full fine-tuning")
        log_note(notes)
        self.wrong = []
        *options, rest = self.parse_args_into_dataclasses(words, return_remaining_strings=True)
        unknown = [self._unknown(word, "command line") for word in rest if word.startswith("-")]
        if rest and not unknown:
            unknown = [f"stray words on the command line: {' '.join(rest)}; options look like --name value"]
        problems = self.wrong + unknown
        for group in options:
            problems += _value_problems(group)
        if problems:
            raise UserError(problems)
        return tuple(options)

    def _unknown(self, name: str, where: str) -> str:
        bare = name.lstrip("-").split("=")[0]
        near = difflib.get_close_matches(bare, self.known_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
        return f"{where}: unknown option {bare}; {hint}"

    def _file_to_argv(self, path: Path) -> list[str]:
        """An options file as command-line words, so that both go through the same type checks.

        Raises:
            UserError: the file is missing, is no mapping, or names options that do not exist.
        """
        text = read_text(path)
        try:
            values = parse_json(text) if path.suffix == ".json" else yaml.safe_load(text)
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            raise UserError(f"{path}: cannot be read as options: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path}: holds {kind(values)}; options are a mapping such as 'seed: 42'")
        return self.words_of(values, str(path))

    def words_of(self, values: dict[Any, Any], where: str) -> list[str]:
        """Options by name, as YAML has them, as command-line words.

        Args:
            values: a value, or a list of words, by option.
            where: what they stand in, for messages.

        Raises:
            UserError: options that do not exist, or values that cannot be meant.
        """
        known = {text[2:]: action for action in self._actions for text in action.option_strings}
        problems = [self._unknown(str(name), where) for name in values if str(name) not in {*known, *OLD_NAMES}]
        words: list[str] = []
        for name, value in values.items():
            action = known.get(str(name))
            problem = _file_problem(value, action) if action is not None else None
            if problem is not None:
                problems.append(f"{where}: {name} {problem}")
            elif isinstance(value, list):
                words += [f"--{name}", *map(str, value)]
            elif value is not None:
                words.append(f"--{name}={_as_word(value, action)}")
        if problems:
            raise UserError(problems)
        return words


def _file_problem(value: Any, action: argparse.Action) -> str | None:
    """Why a value in an options file cannot be meant for an option, if so."""
    if isinstance(value, list):
        if action.nargs not in ("+", "*"):
            return "is a list; the option takes one value"
        if not all(isinstance(one, (str, int, float)) and not str(one).startswith("--") for one in value):
            return "must be a list of words"
    if isinstance(value, bool) and action.type is str and not action.choices:
        return f"is {str(value).lower()} to YAML; put the word in quotes"
    return None


def _as_word(value: Any, action: argparse.Action | None) -> str:
    """A value of an options file as a word of the command line. YAML takes the word no for false."""
    if value is False and action is not None and action.choices and "no" in action.choices:
        return "no"
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _value_problems(options: Any) -> list[str]:
    """Values that no option can have, whatever it is for."""
    problems = []
    for name, value in vars(options).items():
        words = value if isinstance(value, list) else [value]
        if any(isinstance(one, float) and not math.isfinite(one) for one in words):
            problems.append(f"--{name} {value}: must be a finite number")
        if any(isinstance(one, str) and ("\0" in one or not is_text(one)) for one in words):
            problems.append(f"--{name} {value}: holds a NUL or is no UTF-8, which cannot be recorded")
    return problems

"""From a command line, with or without a file of options, to the frozen configuration of a run.

A YAML or JSON file given as first argument sets options; what follows on the command line overrides it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import Field, replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, get_args, get_type_hints

import yaml

from adapter_qa.config import option_help
from adapter_qa.config.legacy_options import LEGACY_NAMES, translate_legacy_args
from adapter_qa.config.misnamings import right_name
from adapter_qa.config.option_effects import REFUSED, unused_notes
from adapter_qa.config.option_fields import SHARE, SHARE_BELOW_ONE, Limits
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.config.training_options import LibraryTrainingOptions
from adapter_qa.config.validation import validate_config
from adapter_qa.config.yaml_keys import repeated_keys
from adapter_qa.core.cli import NEGATIVE_NUMBER, CollectingArgumentParser, HelpFormatter
from adapter_qa.core.errors import UserError, error_line, raise_if_any
from adapter_qa.core.files import kind, parse_json, read_text
from adapter_qa.core.messages import log_note

TRAIN_ADAPTER = re.compile(r"--train[_-]adapter(=|$)")
OPTION_NAME = re.compile(r"(?:--|did you mean )(\w+)")
# Not in --help_all either, unless this project gives them a meaning.
HIDDEN = {*REFUSED, *LEGACY_NAMES, "adafactor", "fsdp", "hub_strategy", "label_names"}
OPTION_FILE_SUFFIXES = (".yaml", ".yml", ".json")
DATA_FILES = ("train_file", "validation_file", "test_file")

Config = TypeVar("Config", QARunConfig, NERRunConfig, MLMRunConfig)


def load_hf_argparser() -> ModuleType | None:
    """Return transformers' `hf_argparser`, loaded alone; None if transformers is not installed.

    That file needs the standard library and PyYAML only. Importing transformers as a whole takes seconds, which --help
    and a mistyped option should not take.
    """
    package = importlib.util.find_spec("transformers")
    if package is None or package.origin is None:
        return None
    module = ModuleType("hf_argparser")
    SourceFileLoader(module.__name__, str(Path(package.origin).with_name("hf_argparser.py"))).exec_module(module)
    return module


if TYPE_CHECKING:
    from transformers import HfArgumentParser
    from transformers.hf_argparser import string_to_bool

    INSTALLED: bool
else:
    _library = load_hf_argparser()
    INSTALLED = _library is not None
    HfArgumentParser = _library.HfArgumentParser if INSTALLED else argparse.ArgumentParser
    string_to_bool = _library.string_to_bool if INSTALLED else None


class OptionsFormatter(HelpFormatter):
    """Formatter of help texts with defaults; those that are None or False go without saying."""

    def __init__(self, prog: str):
        width = shutil.get_terminal_size().columns - 2
        super().__init__(prog, max_help_position=min(38, width * 5 // 12), width=width)

    def _get_help_string(self, action: argparse.Action) -> str:
        default = action.default
        if default is None or default is False or default is argparse.SUPPRESS:
            return str(action.help)
        words = (
            " ".join(default)
            if isinstance(default, list)
            else f"{default:g}"
            if isinstance(default, float)
            else str(default)
        )
        return f"{action.help} (default: {words})"

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Return the spelling with underscores only; the one with dashes works too."""
        names = action.option_strings if action.dest == "help" else action.option_strings[:1]
        return f"{', '.join(names)} {self._format_args(action, 'TEXT')}".strip()


class _PrintAllOptions(argparse.Action):
    """Action of `--help_all`."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(cast("ConfigParser[Any]", parser).format_help(more=True), end="")
        parser.exit()


class ConfigParser(CollectingArgumentParser, HfArgumentParser, Generic[Config]):
    """`HfArgumentParser` that reads a file of options first, and reports all problems at once.

    Args:
        config_class: its fields are the groups of options.
        description: text above the options in --help.
        examples: command lines below them, indented by two spaces.

    Raises:
        UserError: if transformers is not installed.
    """

    config_class: type[Config]

    def __init__(self, config_class: type[Config], description: str = "", examples: str = ""):
        if not INSTALLED:
            raise UserError("transformers is not installed: pip install -r requirements.txt")
        super().__init__(
            [get_type_hints(config_class)[name] for name in config_class.group_names()],
            description=description,
            epilog="examples:\n" + examples,
            usage="%(prog)s [OPTIONS.yaml] --model_name_or_path MODEL [options]",
            formatter_class=OptionsFormatter,
            allow_abbrev=False,
        )
        self.config_class = config_class
        self.names = frozenset(action.dest for action in self._actions if action.dest not in ("help", "version"))
        for action in self._actions:
            if action.option_strings[0].startswith("--no_"):  # the library adds one for each option that is on
                action.help = argparse.SUPPRESS
            if action.type is string_to_bool:  # if the default is None, the library's parser requires a value
                action.nargs, action.const, action.metavar = "?", True, "BOOL"
        shown = sum(map(len, self.sections().values()))
        more = sum(map(len, self.sections(more=True).values())) - shown
        self.add_argument(
            "--help_all", nargs=0, action=_PrintAllOptions, default=argparse.SUPPRESS, help=f"show {more} more options"
        )

    @staticmethod
    def _parse_dataclass_field(parser: argparse.ArgumentParser, field: Field[Any]) -> None:
        """Add the option of a field. Of a library's option that --help shows the text is this project's."""
        metadata = dict(field.metadata)
        limits = metadata.pop("limits", None)
        metadata.pop("before", None)
        library = LibraryTrainingOptions.__dataclass_fields__.get(field.name)
        if library is not None and metadata["help"] == library.metadata["help"]:
            hidden = field.name in HIDDEN
            metadata["help"] = argparse.SUPPRESS if hidden else option_help.HELP.get(field.name, metadata["help"])
        if limits is not None and field.name not in option_help.SHOWN:
            metadata["help"] = f"{metadata['help'].rstrip('. ')}. Allowed: {limits}."
        if metadata["help"] is not argparse.SUPPRESS:
            metadata["help"] = metadata["help"].replace("%", "%%")  # argparse's format character
        if field.name in option_help.METAVARS:
            metadata["metavar"] = option_help.METAVARS[field.name]
        elif "choices" not in metadata and bool not in (field.type, *get_args(field.type)):
            metadata.setdefault("metavar", _metavar(field.type, limits))
        plain = copy(field)
        plain.metadata = metadata  # type: ignore[assignment]
        HfArgumentParser._parse_dataclass_field(parser, plain)  # noqa: SLF001 - of the base class

    def sections(self, *, more: bool = False) -> dict[str, list[argparse.Action]]:
        """Return the options that --help shows, by section in order; with `more` those of --help_all as well."""
        actions = {action.dest: action for action in reversed(self._actions) if action.help != argparse.SUPPRESS}
        sections = {
            title: [actions.pop(name) for name in names.split() if name in actions]
            for title, names in option_help.SECTIONS.items()
        }
        if more:
            sections[option_help.MORE] = [actions[name] for name in reversed(actions) if name in self.names]
        return {title: members for title, members in sections.items() if members}

    def format_help(self, *, more: bool = False) -> str:
        """Return the text of --help, or with `more` that of --help_all."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, [])
        formatter.add_text(self.description)
        formatter.add_text(option_help.INTRODUCTION)
        about = sorted((action for action in self._actions if action.dest not in self.names), key=lambda a: a.dest)
        for title, actions in {**self.sections(more=more), "help": about}.items():
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def known_names(self) -> list[str]:
        """Return every spelling of every option that a run may be given, without dashes."""
        found = self._option_string_actions.items()
        return [text[2:] for text, action in found if action.dest in self.names]

    def option_type(self, name: str) -> Any:
        """Return the type of an option's value, e.g. int; None if there is no option of this name."""
        action = self._option_string_actions.get(f"--{name}")
        return None if action is None else action.type

    def parse(self, argv: Sequence[str]) -> Config:
        """Return the resolved configuration of a command line; `validation.validate_config` has not checked it.

        Raises:
            UserError: if options are unknown, given twice or missing, or their values are of a wrong type.
        """
        config, problems = self.read(argv)
        raise_if_any(problems)
        return config

    def read(self, argv: Sequence[str]) -> tuple[Config, list[str]]:
        """Return the resolved configuration of a command line, where an option with a problem is unset, and problems.

        Raises:
            UserError: if there is a file of options that cannot be read.
        """
        from_file: list[str] = []
        self.problems = []
        if argv and not argv[0].startswith("-") and Path(argv[0]).suffix in OPTION_FILE_SUFFIXES:
            options_file, *argv = argv
            # A data set on the command line overrides the files that a recipe names.
            overridden = DATA_FILES if "dataset_name" in self._names_in(argv) else ()
            from_file, self.problems = self._file_to_argv(Path(options_file), overridden)
        parts = [translate_legacy_args(part) for part in (from_file, argv)]
        words = [word for part, _ in parts for word in part]
        notes = list(dict.fromkeys(note for _, lines in parts for note in lines))
        if notes and "train_adapter" in self.names and not any(map(TRAIN_ADAPTER.match, words)):
            notes.append(
                "without --train_adapter an adapter is trained; adapter-transformers 2.x fine-tuned all weights"
            )
        log_note(notes)
        # The command line may override the file, but neither may contradict itself.
        self.problems += [problem for part, _ in parts for problem in self.repeated(part)]
        groups: list[Any]
        *groups, rest = self.parse_args_into_dataclasses(words, return_remaining_strings=True)
        self.problems += self._left_over(rest)
        config: Config = self.config_class(*groups)
        return replace(config, given=self._names_in(words)).resolved(), self.problems

    def _names_in(self, words: Sequence[str]) -> frozenset[str]:
        """Return the names of the options in the words of a command line."""
        return frozenset(action.dest for action, _ in self.occurrences(words))

    def _left_over(self, words: list[str]) -> list[str]:
        """Return the problems of the words of a command line that belong to no option."""
        unknown: list[tuple[str, str | None]] = []
        for word in words:
            if word.startswith("-") and not NEGATIVE_NUMBER.match(word):
                name, equals, value = word.partition("=")
                unknown.append((name, value if equals else None))
            elif unknown and unknown[-1][1] is None:
                unknown[-1] = (unknown[-1][0], word)
        if words and not unknown:
            if Path(words[0]).exists():
                what = "folder" if Path(words[0]).is_dir() else "file"
                return [f"{words[0]}: is a {what}; the first word may be an options file (.yaml, .yml or .json)"]
            return [f"stray words on the command line: {' '.join(words)}; options look like --name value"]
        return [self._unknown(name, value, "command line", "--") for name, value in unknown]

    def _unknown(self, name: str, value: Any, where: str, dashes: str) -> str:
        """Return the problem of an option that there is not, with the name that it may have here.

        Names begin with `dashes` here: "--" on the command line, "" in a file or a dictionary.
        """
        bare = name.lstrip("-")
        if bare in self.known_names():
            return f"{where}: unknown option {name}; write it as {dashes}{bare}"
        shown = {action.dest for actions in self.sections(more=True).values() for action in actions}
        hint = right_name(bare.lower().replace("-", "_"), value, shown) or f"see {self.prog} --help_all"
        return f"{where}: unknown option {bare}; {hint}"

    def _file_to_argv(self, path: Path, overridden: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return an options file as command-line words, so that both get the same type checks, and its problems.

        The options that are `overridden` are left out, which is noted.
        """
        text = read_text(path)
        try:
            values = parse_json(text) if path.suffix == ".json" else yaml.safe_load(text)
            repeated = _repeated_keys(text, path.suffix)
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            raise UserError(f"{path}: cannot be read as options: {error_line(error)}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path}: holds {kind(values)}; options are a mapping such as 'seed: 42'")
        left_out = [name for name in values if str(name).replace("-", "_") in overridden]
        log_note([f"--dataset_name: {', '.join(left_out)} of {path} are not used"] if left_out else [])
        values = {name: value for name, value in values.items() if name not in left_out}
        words, problems = self._words_and_problems(values, str(path))
        twice = [f"{path}: {name} is given {count} times; give it once" for name, count in repeated.items()]
        return words, twice + problems

    def words_of(self, values: dict[Any, Any], where: str) -> list[str]:
        """Return options, as YAML holds them, as command-line words.

        Args:
            values: a value, or a list of words, for each option.
            where: where they stand, for messages.

        Raises:
            UserError: if options do not exist or their values are of a wrong kind.
        """
        words, problems = self._words_and_problems(values, where)
        raise_if_any(problems)
        return words

    def _words_and_problems(self, values: dict[Any, Any], where: str) -> tuple[list[str], list[str]]:
        """Return the words of `words_of` for the options that have no problem, and the problems of the others."""
        known = {*self.known_names(), *LEGACY_NAMES}
        problems = [
            self._unknown(str(name), value, where, "") for name, value in values.items() if str(name) not in known
        ]
        words: list[str] = []
        value: Any
        for name, value in values.items():
            if str(name) not in known:
                continue
            action = self._option_string_actions.get(f"--{name}")
            problem = _yaml_problem(value, action) if action is not None else None
            if problem is not None:
                problems.append(f"{where}: {name} {problem}")
            elif isinstance(value, list):
                words += [f"--{name}", *map(str, value)]
            elif value is not None:
                words.append(f"--{name}={_as_word(value, action)}")
        return words, problems


def parse_config(config_class: type[Config], argv: Sequence[str], *, description: str, examples: str) -> Config:
    """Parse and check a command line without the script's name; the texts are those of `ConfigParser`.

    Raises:
        UserError: with every problem that the options alone show.
    """
    config, problems = ConfigParser(config_class, description, examples).read(argv)
    named = set(OPTION_NAME.findall(" ".join(problems)))  # what else is wrong with these may follow from the problem
    problems += [problem for problem in validate_config(config) if not named & set(OPTION_NAME.findall(problem))]
    raise_if_any(problems)
    log_note(unused_notes(config))
    return config


def _metavar(annotation: Any, limits: Limits | None) -> str:
    """Return what stands for the value of an option of a type, which may be a union."""
    if limits in (SHARE, SHARE_BELOW_ONE, Limits(above=0, below=1)):
        return "0..1"
    types = {annotation, *get_args(annotation)}
    return "N" if int in types else "X" if float in types else "JSON" if dict[str, Any] in types else "TEXT"


def _repeated_keys(text: str, suffix: str) -> dict[str, int]:
    """Return how often a file of options has each option that it has several times; the readers keep the last one."""
    if suffix == ".json":
        pairs = json.loads(text, object_pairs_hook=lambda pairs: pairs)
        names = [pair[0] for pair in pairs if isinstance(pair, tuple)] if isinstance(pairs, list) else []
        return {name: count for name, count in Counter(map(str, names)).items() if count > 1}
    return repeated_keys(text)


def _yaml_problem(value: Any, action: argparse.Action) -> str | None:
    """Return why a value of an options file is of the wrong kind for its option; None if it is not."""
    if isinstance(value, list):
        if action.nargs not in ("+", "*"):
            return "is a list; the option takes one value"
        if not all(isinstance(word, (str, int, float)) and not str(word).startswith("--") for word in value):
            return "must be a list of words"
    if isinstance(value, bool) and action.type is str and not action.choices:
        return f"is {str(value).lower()} to YAML; put the word in quotes"
    return None


def _as_word(value: Any, action: argparse.Action | None) -> str:
    """Return a value of an options file as a word of the command line. YAML reads the word no as false."""
    if value is False and action is not None and action.choices and "no" in action.choices:
        return "no"
    return json.dumps(value) if isinstance(value, dict) else str(value)

"""From a command line, with or without a file of options, to the frozen configuration of a run.

A YAML or JSON file given as first argument sets options; what follows on the command line overrides it.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import Field, replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints

import yaml

from adapter_qa.config.legacy_options import LEGACY_NAMES, translate_legacy_args
from adapter_qa.config.option_effects import REFUSED, unused_notes
from adapter_qa.config.options import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.config.training_options import LibraryTrainingOptions
from adapter_qa.config.validation import field_problems, validate_config
from adapter_qa.core.cli import CollectingArgumentParser
from adapter_qa.core.errors import UserError, raise_if_any
from adapter_qa.core.files import kind, parse_json, read_text
from adapter_qa.core.messages import log_note

NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$|-inf$|-nan$", re.IGNORECASE)
TRAIN_ADAPTER = re.compile(r"--train[_-]adapter(=|$)")
HIDDEN = {*REFUSED, *LEGACY_NAMES, "fsdp", "label_names"}  # in --help, unless this project gives them a meaning
OPTION_FILE_SUFFIXES = (".yaml", ".yml", ".json")

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


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Formatter that shows defaults, except None, which the help texts explain in words. Examples keep their lines."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Return the spelling with underscores only; the one with dashes works too."""
        if not action.option_strings:
            return super()._format_action_invocation(action)
        return f"{action.option_strings[0]} {self._format_args(action, 'VALUE')}".strip()


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
            usage="%(prog)s [OPTIONS.yaml] --model_name_or_path MODEL [--option value ...]",
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        self.config_class = config_class
        self._negative_number_matcher = NEGATIVE_NUMBER  # argparse's own takes -1e-4 for an option
        for action in self._actions:
            if action.option_strings[0].startswith("--no_"):  # the library adds one for each option that is on
                action.help = argparse.SUPPRESS
            if action.type is string_to_bool:  # if the default is None, the library's parser requires a value
                action.nargs, action.const = "?", True

    @staticmethod
    def _parse_dataclass_field(parser: argparse.ArgumentParser, field: Field[Any]) -> None:
        """Add the option of a field, its unit and limits in the help text, where argparse wants each % doubled."""
        metadata = dict(field.metadata)
        unit, limits = metadata.pop("unit", None), metadata.pop("limits", None)
        metadata.pop("before", None)
        texts: list[Any] = [metadata["help"], unit and f"Unit: {unit}.", limits and f"Allowed: {limits}."]
        metadata["help"] = " ".join(filter(None, texts)).replace("%", "%%")
        library = LibraryTrainingOptions.__dataclass_fields__.get(field.name)
        if field.name in HIDDEN and library is not None and field.metadata["help"] == library.metadata["help"]:
            metadata["help"] = argparse.SUPPRESS
        plain = copy(field)
        plain.metadata = metadata  # type: ignore[assignment]
        HfArgumentParser._parse_dataclass_field(parser, plain)  # noqa: SLF001 - of the base class

    def known_names(self) -> list[str]:
        """Return the name of every option, without dashes."""
        return [text[2:] for text in self._option_string_actions if text.startswith("--")]

    def option_type(self, name: str) -> Any:
        """Return the type of an option's value, e.g. int; None if there is no option of this name."""
        action = self._option_string_actions.get(f"--{name}")
        return None if action is None else action.type

    def parse(self, argv: Sequence[str]) -> Config:
        """Return the resolved configuration of a command line; `validation.validate_config` has not checked it.

        Raises:
            UserError: if there are unknown options or values of a wrong type.
        """
        from_file: list[str] = []
        if argv and Path(argv[0]).suffix in OPTION_FILE_SUFFIXES:
            from_file = self._file_to_argv(Path(argv[0]))
            argv = argv[1:]
        parts = [translate_legacy_args(part) for part in (from_file, argv)]
        words = [word for part, _ in parts for word in part]
        notes = list(dict.fromkeys(note for _, lines in parts for note in lines))
        if notes and "train_adapter" in self.known_names() and not any(map(TRAIN_ADAPTER.match, words)):
            notes.append(
                "without --train_adapter an adapter is trained; adapter-transformers 2.x fine-tuned all weights"
            )
        log_note(notes)
        # The command line may override the file, but neither may contradict itself.
        self.problems = [problem for part, _ in parts for problem in self.repeated(part)]
        groups: list[Any]
        *groups, rest = self.parse_args_into_dataclasses(words, return_remaining_strings=True)
        unknown = [self._unknown(word, "command line") for word in rest if word.startswith("-")]
        if rest and not unknown:
            unknown = [f"stray words on the command line: {' '.join(rest)}; options look like --name value"]
        if self.problems or unknown:
            raise UserError(self.problems + unknown + field_problems(groups))
        config: Config = self.config_class(*groups)
        return replace(config, given=frozenset(action.dest for action, _ in self.occurrences(words))).resolved()

    def _unknown(self, name: str, where: str) -> str:
        bare = name.lstrip("-").split("=")[0]
        near = difflib.get_close_matches(bare, self.known_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
        return f"{where}: unknown option {bare}; {hint}"

    def _file_to_argv(self, path: Path) -> list[str]:
        """Return an options file as command-line words, so that both get the same type checks."""
        text = read_text(path)
        try:
            values = parse_json(text) if path.suffix == ".json" else yaml.safe_load(text)
            repeated = _repeated_keys(text, path.suffix)
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            raise UserError(f"{path}: cannot be read as options: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path}: holds {kind(values)}; options are a mapping such as 'seed: 42'")
        raise_if_any([f"{path}: {name} is given {count} times; give it once" for name, count in repeated.items()])
        return self.words_of(values, str(path))

    def words_of(self, values: dict[Any, Any], where: str) -> list[str]:
        """Return options, as YAML holds them, as command-line words.

        Args:
            values: a value, or a list of words, for each option.
            where: where they stand, for messages.

        Raises:
            UserError: if options do not exist or their values are of a wrong kind.
        """
        known = {*self.known_names(), *LEGACY_NAMES}
        problems = [self._unknown(str(name), where) for name in values if str(name) not in known]
        words: list[str] = []
        value: Any
        for name, value in values.items():
            action = self._option_string_actions.get(f"--{name}")
            problem = _yaml_problem(value, action) if action is not None else None
            if problem is not None:
                problems.append(f"{where}: {name} {problem}")
            elif isinstance(value, list):
                words += [f"--{name}", *map(str, value)]
            elif value is not None:
                words.append(f"--{name}={_as_word(value, action)}")
        raise_if_any(problems)
        return words


def parse_config(config_class: type[Config], argv: Sequence[str], *, description: str, examples: str) -> Config:
    """Parse and check a command line without the script's name; the texts are those of `ConfigParser`.

    Raises:
        UserError: with every problem that the options alone show.
    """
    config = ConfigParser(config_class, description, examples).parse(argv)
    raise_if_any(validate_config(config))
    log_note(unused_notes(config))
    return config


def _repeated_keys(text: str, suffix: str) -> dict[str, int]:
    """Return how often a file of options has each option that it has several times; the readers keep the last one."""
    if suffix == ".json":
        pairs = json.loads(text, object_pairs_hook=lambda pairs: pairs)
        names = [pair[0] for pair in pairs if isinstance(pair, tuple)] if isinstance(pairs, list) else []
    else:
        document = yaml.compose(text, yaml.SafeLoader)
        names = [key.value for key, _ in document.value] if isinstance(document, yaml.MappingNode) else []
    return {name: count for name, count in Counter(map(str, names)).items() if count > 1}


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

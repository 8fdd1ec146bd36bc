"""Read and check the YAML file of a sweep: which options of run_qa_adapter.py are searched, and how trials are drawn.

The whole file is checked before any slow import and before any trial: the trainer's own parser sees every choice and
both ends of every range.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import yaml
from msgspec import UNSET, Meta, Struct, UnsetType

from adapter_qa.config.options import QARunConfig
from adapter_qa.config.parser import ConfigParser
from adapter_qa.config.validation import validate_config
from adapter_qa.core.errors import UserError, raise_if_any, run_all
from adapter_qa.core.files import kind, read_text

TRAINER = "run_qa_adapter.py"
SET_BY_SWEEP = ("output_dir", "overwrite_output_dir", "dry_run")  # options that a sweep sets for each trial
MAX_COMBINATIONS = 100_000
MAX_NUMBER = 2**63

Scalar = str | int | float | bool | None
Natural = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Number = TypeVar("Number", int, float)
AnyStruct = TypeVar("AnyStruct", bound=Struct)


# ---------------------------------------------------------------- samplers and pruners


class Method(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """A sampler or pruner. A setting that the file does not give has optuna's default."""

    @property
    def kind(self) -> str:
        """The name in the file."""
        return str(self.__struct_config__.tag)

    def settings(self) -> dict[str, Any]:
        """Return the settings that the file gives."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not UNSET}


class TPE(Method, frozen=True, tag="tpe"):
    """Optuna's tree-structured Parzen estimator."""

    n_startup_trials: Natural | UnsetType = UNSET


class RandomSearch(Method, frozen=True, tag="random"):
    """Independent draws."""


class GridSearch(Method, frozen=True, tag="grid"):
    """Every combination once."""


class MedianPruning(Method, frozen=True, tag="median"):
    """Stop a trial whose metric is below the median of earlier trials."""

    n_startup_trials: Natural | UnsetType = UNSET
    n_warmup_steps: Natural | UnsetType = UNSET
    interval_steps: Count | UnsetType = UNSET
    n_min_trials: Count | UnsetType = UNSET


class Hyperband(Method, frozen=True, tag="hyperband"):
    """Optuna's Hyperband."""

    min_resource: Count | UnsetType = UNSET
    max_resource: Count | UnsetType = UNSET
    reduction_factor: Annotated[int, Meta(ge=2)] | UnsetType = UNSET


class NoPruning(Method, frozen=True, tag="none"):
    """Every trial trains to its end."""


Sampler = TPE | RandomSearch | GridSearch
Pruner = MedianPruning | Hyperband | NoPruning
SAMPLERS: dict[str, type[Method]] = {"tpe": TPE, "random": RandomSearch, "grid": GridSearch}
PRUNERS: dict[str, type[Method]] = {"median": MedianPruning, "hyperband": Hyperband, "none": NoPruning}


# ---------------------------------------------------------------- entries of the search


class Choices(Struct, frozen=True):
    """An option with a few values, or a choice between named sets of options.

    Attributes:
        choices: the option's values, or options by name of the set.
    """

    choices: tuple[Scalar, ...] | dict[str, dict[str, Any]]

    def options(self, name: str, value: Any) -> dict[str, Any]:
        """Return the trainer's options for one value of the entry called `name`."""
        return self.choices[value] if isinstance(self.choices, dict) else {name: value}

    def values_to_check(self) -> tuple[Any, ...]:
        """Return the values that the trainer's parser must accept."""
        return tuple(self.choices)

    def grid_values(self) -> Sequence[Any] | None:
        """Return all values; None if they cannot be counted."""
        return tuple(self.choices)

    def describe(self) -> str:
        """Return the values in words."""
        return ", ".join(map(str, self.choices))


class Range(Struct, Generic[Number], frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The numbers between two ends, both included. The methods are those of `Choices`.

    Attributes:
        low: the smallest value.
        high: the largest value.
        step: distance between two values; UNSET: every value in between.
        log: draw uniformly on a logarithmic scale.
    """

    low: Number
    high: Number
    step: Number | UnsetType = UNSET
    log: bool = False

    def __post_init__(self) -> None:
        """Check the numbers against each other.

        Raises:
            ValueError: if no value lies between the ends, or the settings exclude each other.
        """
        step = None if self.step is UNSET else self.step
        if not all(-MAX_NUMBER < number < MAX_NUMBER for number in (self.low, self.high, step or 0)):
            raise ValueError("low, high and step must be finite numbers below 2**63")
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if step is not None and not 0 < step <= self.high - self.low:
            raise ValueError(f"step {step:g} must be above 0 and at most high - low")
        if self.log and (step is not None or self.low <= 0):
            raise ValueError("log: true needs low above 0 and no step")

    def options(self, name: str, value: Any) -> dict[str, Any]:
        """Return the option with its value."""
        return {name: value}

    def values_to_check(self) -> tuple[Any, ...]:
        """Return both ends."""
        return (self.low, self.high)

    def grid_values(self) -> Sequence[Any] | None:
        """Return all values, at most one more than `MAX_COMBINATIONS`; None without a step."""
        if self.step is UNSET:
            return None
        low, high, step = (Decimal(str(number)) for number in (self.low, self.high, self.step))  # 3 x 0.1 exceeds 0.3
        count = min(int((high - low) / step) + 1, MAX_COMBINATIONS + 1)
        return [type(self.low)(low + number * step) for number in range(count)]

    def describe(self) -> str:
        """Return the range in words."""
        step = f", step {self.step:g}" if self.step is not UNSET else ""
        return f"{self.low:g} to {self.high:g}{step}{', log' if self.log else ''}"


SearchEntry = Choices | Range[int] | Range[float]


# ---------------------------------------------------------------- the sweep


class Sweep(Struct, frozen=True):
    """A sweep as its file describes it.

    Attributes:
        trials: number of trials.
        metric: f1, exact or loss of the evaluation after training.
        seed: seed of the sampler.
        sampler: how the parameters of a trial are drawn.
        pruner: which trials are stopped early.
        launcher: words in front of the trainer's script; empty: this Python.
        options: options that all trials share.
        search: what trials differ in, by option or by name of a choice between sets.
    """

    trials: int
    metric: str
    seed: int
    sampler: Sampler
    pruner: Pruner
    launcher: tuple[str, ...]
    options: dict[str, Any]
    search: dict[str, SearchEntry]

    @property
    def maximize(self) -> bool:
        """Whether a larger metric is better."""
        return self.metric != "loss"

    def trainer_args(self, params: Mapping[str, Any]) -> list[str]:
        """Return the trainer's command line for a trial with the given parameters."""
        options = dict(self.options)
        for name, value in params.items():
            options |= self.search[name].options(name, value)
        return trainer_parser().words_of(options, "sweep")

    def settings(self) -> dict[str, Any]:
        """Return, as JSON values, what all workers of a sweep must agree on: everything but the number of trials."""
        settings = msgspec.to_builtins(self)
        del settings["trials"]
        return dict(json.loads(json.dumps(settings, default=str)))  # YAML has dates, and keys that are not text

    def combinations(self) -> list[dict[str, Any]] | None:
        """Return all sets of parameters; None if they cannot be counted or are more than `MAX_COMBINATIONS`."""
        values = [entry.grid_values() for entry in self.search.values()]
        countable = [entry_values for entry_values in values if entry_values is not None]
        if len(countable) < len(values) or math.prod(map(len, countable)) > MAX_COMBINATIONS:
            return None
        return [dict(zip(self.search, combination, strict=True)) for combination in itertools.product(*countable)]


ENTRIES = Sweep.__struct_fields__


def read_sweep(path: Path) -> Sweep:
    """Read the YAML file of a sweep.

    Raises:
        UserError: if the file is not YAML, has unknown entries or options, or values that a sweep or the trainer's
            parser refuses. All problems are reported together.
    """
    text = read_text(path)
    try:
        document = yaml.safe_load(text)  # msgspec.yaml would use the C parser, which crashes on deep nesting
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as a sweep: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: holds {kind(document)}; a sweep is a mapping with the entries {', '.join(ENTRIES)}")
    trials, seed, metric, sampler, pruner, launcher, options, search, _ = run_all(
        [
            lambda: _read_trials(path, document),
            lambda: _convert(f"{path}: seed", document.get("seed", 42), Natural),
            lambda: _read_metric(path, document.get("metric", "f1")),
            lambda: _read_method(f"{path}: sampler", document.get("sampler", "tpe"), SAMPLERS),
            lambda: _read_method(f"{path}: pruner", document.get("pruner", "none"), PRUNERS),
            lambda: _read_launcher(path, document.get("launcher", "")),
            lambda: _read_options(path, document.get("options")),
            lambda: _read_search(path, document.get("search")),
            lambda: raise_if_any(_unknown_entries(str(path), document, ENTRIES)),
        ]
    )
    sweep = Sweep(trials or 0, metric, seed, sampler, pruner, launcher, options, search)
    _check_with_trainer(path, sweep)
    return _limit_trials(path, sweep)


# ---------------------------------------------------------------- reading


def _convert(where: str, value: Any, expected: Any) -> Any:
    """Return `value` as the type `expected`, or raise UserError."""
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        raise UserError(f"{where} {value}: {str(error).replace('`', '')}") from error


def _read_struct(where: str, given: dict[Any, Any], struct: type[AnyStruct]) -> AnyStruct:
    """Convert a mapping to a struct. msgspec stops at the first problem; here every field is reported."""
    fields = msgspec.structs.fields(struct)
    problems = _unknown_entries(where, given, [field.name for field in fields])
    problems += [f"{where}: {field.name} is missing" for field in fields if field.required and field.name not in given]
    checks = [
        partial(_convert, f"{where}: {field.name}", given[field.name], field.type)
        for field in fields
        if field.name in given
    ]
    run_all([lambda: raise_if_any(problems), *checks])
    try:
        return msgspec.convert(given, struct)
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: {error}") from error


def _unknown_entries(where: str, given: Mapping[Any, Any], known: Sequence[str]) -> list[str]:
    allowed = f"choose from {', '.join(known)}" if known else "there are no settings"
    return [f"{where}: unknown entry {name}; {allowed}" for name in given if name not in known]


def _read_trials(path: Path, document: dict[Any, Any]) -> int | None:
    """Return the number of trials; None for a grid that runs completely."""
    trials: int | None = _convert(f"{path}: trials", document.get("trials"), Count | None)
    if trials is None and _method_kind(document.get("sampler", "tpe")) != GridSearch().kind:
        raise UserError(f"{path}: trials is missing; give the number of trials")
    return trials


def _read_metric(path: Path, metric: Any) -> str:
    name = str(metric).removeprefix("eval_")
    if name not in QARunConfig.METRICS:
        raise UserError(f"{path}: metric {metric}: not computed; choose from {', '.join(QARunConfig.METRICS)}")
    return name


def _method_kind(entry: Any) -> str:
    name = entry.get("kind") if isinstance(entry, dict) else entry
    return "none" if name is None else str(name)


def _read_method(where: str, entry: Any, methods: Mapping[str, type[Method]]) -> Method:
    """Read a sampler or pruner: its name, or a mapping of `kind` and settings."""
    name = _method_kind(entry)
    if name not in methods:
        raise UserError(f"{where} {name}: choose from {', '.join(methods)}")
    settings = {key: value for key, value in entry.items() if key != "kind"} if isinstance(entry, dict) else {}
    return _read_struct(f"{where} {name}", settings, methods[name])


def _read_launcher(path: Path, launcher: Any) -> tuple[str, ...]:
    if not isinstance(launcher, str):
        raise UserError(f"{path}: launcher is {kind(launcher)}; write e.g. torchrun --nproc_per_node 4")
    try:
        return tuple(shlex.split(launcher))
    except ValueError as error:
        raise UserError(f"{path}: launcher {launcher}: {error}; write it as on a command line") from error


def _read_options(path: Path, options: Any) -> dict[str, Any]:
    """Read the options that all trials share."""
    if not isinstance(options, dict):
        raise UserError(f"{path}: options is {kind(options)}; give a mapping of the options that all trials share")
    _check_options(f"{path}: options", options)
    return _with_underscores(options)


def _with_underscores(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name).replace("-", "_"): value for name, value in mapping.items()}


def _check_options(where: str, options: dict[Any, Any]) -> None:
    """Check names and types of the trainer's options.

    Raises:
        UserError: if an option does not exist, has a value of the wrong type, or may not be given in a sweep.
    """
    set_by_sweep = [name for name in options if str(name).replace("-", "_") in SET_BY_SWEEP]
    secrets = [name for name in options if str(name).endswith("token")]  # sweep.json, logs and commands would show it
    problems = [f"{where}: {name} is set by the sweep for each trial; leave it out" for name in set_by_sweep]
    problems += [f"{where}: {name} would be recorded; give it in the environment (HF_TOKEN)" for name in secrets]
    allowed = {name: value for name, value in options.items() if name not in (*set_by_sweep, *secrets)}
    run_all([lambda: raise_if_any(problems), lambda: trainer_parser().words_of(allowed, where)])


def _read_search(path: Path, search: Any) -> dict[str, SearchEntry]:
    """Read what trials differ in."""
    if not isinstance(search, dict) or not search:
        content = "empty" if search == {} else kind(search)
        raise UserError(
            f"{path}: search is {content}; give a mapping such as 'learning_rate: {{low: 1e-5, high: 1e-3}}'"
        )
    entries = run_all([partial(_read_entry, path, str(name), entry) for name, entry in search.items()])
    return _with_underscores(dict(zip(search, entries, strict=True)))


def _read_entry(path: Path, name: str, entry: Any) -> SearchEntry:
    where = f"{path}: search: {name}"
    if isinstance(entry, list):
        entry = {"choices": entry}
    if not isinstance(entry, dict) or ("choices" in entry) == ("low" in entry or "high" in entry):
        raise UserError(f"{where}: give choices: [...], or low and high")
    if "choices" in entry and len(entry) > 1:
        raise UserError(f"{where}: choices cannot be combined with other entries; give choices alone")
    if isinstance(entry.get("choices"), dict):
        return _read_option_sets(where, name, entry["choices"])
    _check_options(f"{path}: search", {name: None})
    option_type = trainer_parser().option_type(name)
    if "choices" in entry:
        return _read_choices(where, entry["choices"], option_type)
    return _read_range(where, entry, option_type)


def _read_choices(where: str, choices: Any, option_type: Any) -> Choices:
    if not isinstance(choices, list) or not choices:
        raise UserError(f"{where}: choices must be a list of values")
    if not all(isinstance(value, Scalar) for value in choices):
        raise UserError(f"{where}: choices must be words, numbers, true, false or null; sets of options need names")
    values = tuple(_to_number(value, option_type) for value in choices)
    if len(set(map(str, values))) < len(values):
        raise UserError(f"{where}: a choice appears twice; give each once")
    return Choices(values)


def _read_option_sets(where: str, name: str, sets: dict[Any, Any]) -> Choices:
    if not sets:
        raise UserError(f"{where}: choices must be named sets of options")
    if name.replace("-", "_") in trainer_parser().known_names():
        raise UserError(f"{where}: is an option; a choice between sets of options needs another name")
    problems = [
        f"{where}: {label} is {kind(options)}; give a mapping of options"
        for label, options in sets.items()
        if not isinstance(options, dict)
    ]
    mappings = {str(label): options for label, options in sets.items() if isinstance(options, dict)}
    checks = [partial(_check_options, f"{where}: {label}", options) for label, options in mappings.items()]
    run_all([lambda: raise_if_any(problems), *checks])
    return Choices({label: _with_underscores(options) for label, options in mappings.items()})


def _read_range(where: str, entry: dict[Any, Any], option_type: Any) -> Range[int] | Range[float]:
    """Read a range; its numbers are whole numbers if the option's are."""
    if option_type not in (int, float):
        raise UserError(f"{where}: the option is not a number; give choices: [...]")
    numbers = {name: value if name == "log" else _to_number(value, option_type) for name, value in entry.items()}
    if option_type is float:
        return _read_struct(where, numbers, Range[float])
    if not entry.get("log"):
        numbers.setdefault("step", 1)
    return _read_struct(where, numbers, Range[int])


def _to_number(value: Any, option_type: Any) -> Any:
    """Return the number that `value` means for an option of type int or float, else `value` itself.

    YAML reads 1e-5 as text, and 1e-4 and 0.0001 are the same choice.
    """
    if option_type not in (int, float) or isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return value
    try:
        number = value if isinstance(value, int) else float(value)
    except ValueError:
        return value
    if not -MAX_NUMBER < number < MAX_NUMBER:
        return value
    return int(number) if option_type is int and number == int(number) else number


# ---------------------------------------------------------------- checks with the trainer's parser


@cache
def trainer_parser() -> ConfigParser[QARunConfig]:
    """Return the parser of run_qa_adapter.py."""
    parser = ConfigParser(QARunConfig)
    parser.prog = TRAINER
    return parser


def _check_with_trainer(path: Path, sweep: Sweep) -> None:
    """Check the shared options together with every choice and both ends of every range.

    Raises:
        UserError: if an option is given in two places, or the trainer would refuse a value.
    """
    places: dict[str, list[str]] = {name: ["options"] for name in sweep.options}
    for name, entry in sweep.search.items():
        for option in dict.fromkeys(
            option for value in entry.values_to_check() for option in entry.options(name, value)
        ):
            places.setdefault(option, []).append(f"search: {name}")
    raise_if_any(
        [
            f"{path}: {name} is given in {' and '.join(where)}; give it once"
            for name, where in places.items()
            if len(where) > 1
        ]
    )
    first = {name: entry.values_to_check()[0] for name, entry in sweep.search.items()}
    candidates = [first | {name: value} for name, entry in sweep.search.items() for value in entry.values_to_check()]
    problems = dict.fromkeys(problem for params in candidates for problem in _trainer_problems(sweep, params))
    raise_if_any([f"{path}: {problem}" for problem in problems])


def _trainer_problems(sweep: Sweep, params: dict[str, Any]) -> list[str]:
    """Return what the trainer would refuse as far as the options alone show it."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # every trial prints the notes itself
            config = trainer_parser().parse(sweep.trainer_args(params))
    except UserError as error:
        return error.problems
    problems = validate_config(config)
    if not config.training.do_eval:
        problems.append(f"options: do_eval is not true; trials are compared by the evaluation's {sweep.metric}")
    return problems


def _limit_trials(path: Path, sweep: Sweep) -> Sweep:
    """Return the sweep with at most one trial for each combination of a grid.

    Raises:
        UserError: if the combinations of a grid cannot be counted or are too many.
    """
    if not isinstance(sweep.sampler, GridSearch):
        return sweep
    combinations = sweep.combinations()
    if combinations is None:
        endless = [name for name, entry in sweep.search.items() if entry.grid_values() is None]
        reason = (
            f"{', '.join(endless)}: give choices or a step" if endless else f"more than {MAX_COMBINATIONS:,} trials"
        )
        raise UserError(f"{path}: sampler grid is not possible: {reason}")
    return msgspec.structs.replace(sweep, trials=min(sweep.trials or len(combinations), len(combinations)))

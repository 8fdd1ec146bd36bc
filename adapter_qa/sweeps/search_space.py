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
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta, Struct

from adapter_qa.config.checks.paths import path_problems
from adapter_qa.config.options import greatest_is_best
from adapter_qa.config.parser import ConfigParser
from adapter_qa.config.run_configs import QARunConfig
from adapter_qa.config.validation import validate_config
from adapter_qa.config.yaml_keys import repeated_keys
from adapter_qa.core.errors import UserError, also_report, error_line, raise_if_any, run_all, run_each
from adapter_qa.core.files import kind, read_text
from adapter_qa.core.messages import log_note

TRAINER = "run_qa_adapter.py"
SET_BY_SWEEP = ("output_dir", "overwrite_output_dir", "dry_run")  # options that a sweep sets for each trial
METRICS = ("f1", "exact", "loss")  # that every evaluation and every cross-validation has
MAX_COMBINATIONS = 100_000
MAX_NUMBER = 2**63

Scalar = str | int | float | bool | None
Natural = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Whole = Annotated[int, Meta(ge=1 - MAX_NUMBER, le=MAX_NUMBER - 1)]
Real = Annotated[float, Meta(gt=-MAX_NUMBER, lt=MAX_NUMBER)]

# Settings by the name of the sampler or pruner.
SAMPLERS: dict[str, dict[str, Any]] = {"tpe": {"n_startup_trials": Natural}, "random": {}, "grid": {}}
PRUNERS: dict[str, dict[str, Any]] = {
    "median": {
        "n_startup_trials": Natural,
        "n_warmup_steps": Natural,
        "interval_steps": Count,
        "n_min_trials": Count,
    },
    "hyperband": {"min_resource": Count, "max_resource": Count, "reduction_factor": Annotated[int, Meta(ge=2)]},
    "none": {},
}
RANGES: dict[Any, dict[str, Any]] = {
    option_type: {"low": number, "high": number, "step": number, "log": bool}
    for option_type, number in ((int, Whole), (float, Real))
}


class Method(Struct, frozen=True):
    """A sampler or pruner. Settings that the file omits have Optuna's defaults."""

    kind: str
    settings: dict[str, Any]


class Choices(Struct, frozen=True):
    """An option with a few values, or a choice between named sets of options.

    Attributes:
        choices: the option's values, or options by name of the set.
    """

    choices: tuple[Scalar, ...] | dict[str, dict[str, Any]]

    def options(self, name: str, value: Any) -> dict[str, Any]:
        """Return the trainer's options for one value of the entry called `name`."""
        return self.choices[value] if isinstance(self.choices, dict) else {name: value}

    def values_to_check(self) -> Sequence[Any]:
        """Return the values that the trainer's parser must accept."""
        return tuple(self.choices)

    grid_values = values_to_check

    def describe(self) -> str:
        """Return the values in words."""
        return ", ".join(map(str, self.choices))


def _decimals(*numbers: float) -> list[Decimal]:
    """Return numbers as they are written; as floats, 3 x 0.1 exceeds 0.3."""
    return [Decimal(str(number)) for number in numbers]


class Range(Struct, frozen=True, omit_defaults=True):
    """The numbers between two ends, both included if the steps reach the upper one.

    The methods are those of `Choices`.

    Attributes:
        low: the smallest value; the type of the numbers is the option's.
        high: the largest value.
        step: distance between two values; None: every value in between.
        log: draw uniformly on a logarithmic scale.
    """

    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False

    def options(self, name: str, value: Any) -> dict[str, Any]:
        """Return the option with its value."""
        return {name: value}

    def values_to_check(self) -> Sequence[Any]:
        """Return both ends."""
        return (self.low, self.high)

    @property
    def highest(self) -> int | float:
        """The largest value that the steps from the lower end reach."""
        if self.step is None:
            return self.high
        low, high, step = _decimals(self.low, self.high, self.step)
        return type(self.low)(high - (high - low) % step)

    def grid_values(self) -> Sequence[Any]:
        """Return all values, at most one more than `MAX_COMBINATIONS`; empty without a step."""
        if self.step is None:
            return ()
        low, high, step = _decimals(self.low, self.high, self.step)
        count = min(int((high - low) / step) + 1, MAX_COMBINATIONS + 1)
        return [type(self.low)(low + number * step) for number in range(count)]

    def describe(self) -> str:
        """Return the range in words."""
        step = f", step {self.step:g}" if self.step is not None else ""
        return f"{self.low:g} to {self.high:g}{step}{', log' if self.log else ''}"


SearchEntry = Choices | Range


class Sweep(Struct, frozen=True):
    """A sweep as its file describes it.

    Attributes:
        trials: number of trials.
        metric: f1, exact or loss of the evaluation after training.
        seed: seed of the sampler.
        sampler: how the parameters of a trial are drawn.
        pruner: which trials are stopped early.
        launcher: the command before the trainer's script; empty: this Python.
        options: options that all trials share.
        search: what trials differ in, by option or by name of a choice between sets.
    """

    trials: int
    metric: str
    seed: int
    sampler: Method
    pruner: Method
    launcher: tuple[str, ...]
    options: dict[str, Any]
    search: dict[str, SearchEntry]

    @property
    def maximize(self) -> bool:
        """Whether a larger metric is better."""
        return greatest_is_best(self.metric)

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
        for name, method in (("sampler", self.sampler), ("pruner", self.pruner)):
            settings[name] = {"kind": method.kind, **method.settings}
        return dict(json.loads(json.dumps(settings, default=str)))  # YAML has dates, and keys that are not text

    def in_order_of(self, search: Mapping[str, Any]) -> Sweep:
        """Return this sweep with its entries and named sets in the order of the `search` of equal `settings`."""
        ordered = {name: self.search[name] for name in search}
        for name, entry in ordered.items():
            if isinstance(entry, Choices) and isinstance(entry.choices, dict):
                ordered[name] = Choices({label: entry.choices[label] for label in search[name]["choices"]})
        return msgspec.structs.replace(self, search=ordered)

    def combinations(self) -> list[dict[str, Any]]:
        """Return all sets of parameters of a grid."""
        values = [entry.grid_values() for entry in self.search.values()]
        return [dict(zip(self.search, combination, strict=True)) for combination in itertools.product(*values)]


ENTRIES = Sweep.__struct_fields__


def read_sweep(path: Path, *, dry_run: bool = False) -> Sweep:
    """Read the YAML file of a sweep.

    Args:
        path: of the file.
        dry_run: whether problems with the paths of data, models and adapters, and a missing launcher, are only noted.

    Raises:
        UserError: if the file is not YAML, has unknown entries or options, or values that a sweep or the trainer's
            parser refuses. All problems are reported together.
    """
    text = read_text(path)
    try:
        document = yaml.safe_load(text)  # msgspec.yaml would use the C parser, which crashes on deep nesting
        repeated = repeated_keys(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as a sweep: {error_line(error)}") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: holds {kind(document)}; a sweep is a mapping with the entries {', '.join(ENTRIES)}")
    problems = _unknown_entries(str(path), document, ENTRIES)
    problems += [_given_often(f"{path}: {name}", count) for name, count in repeated.items()]
    (trials, metric, seed), (sampler, pruner, launcher), (options, search, _) = run_all(
        lambda: run_all(
            lambda: _convert(f"{path}: trials", document.get("trials"), Count | None) or 0,
            lambda: _read_metric(path, document.get("metric", "f1")),
            lambda: _convert(f"{path}: seed", document.get("seed", 42), Natural),
        ),
        lambda: run_all(
            lambda: _read_method(f"{path}: sampler", document.get("sampler", "tpe"), SAMPLERS),
            lambda: _read_method(f"{path}: pruner", document.get("pruner") or "none", PRUNERS),
            lambda: _read_launcher(path, document.get("launcher", "")),
        ),
        lambda: run_all(
            lambda: _read_options(f"{path}: options", document.get("options")),
            lambda: _read_search(path, document.get("search")),
            lambda: raise_if_any(problems),
        ),
    )
    sweep = Sweep(trials, metric, seed, sampler, pruner, launcher, options, search)
    _, trials = run_all(lambda: _check_with_trainer(path, sweep, dry_run=dry_run), lambda: _count_trials(path, sweep))
    return msgspec.structs.replace(sweep, trials=trials)


def _convert(where: str, value: Any, expected: Any) -> Any:
    """Return `value` as the type `expected`, or raise UserError."""
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        raise UserError(f"{where} {value}: {str(error).replace('`', '')}") from error


def _read_fields(where: str, entries: dict[Any, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the values of a mapping, or raise UserError with every unknown or wrong entry."""
    problems = _unknown_entries(where, entries, list(types))
    known = [name for name in types if name in entries]
    checks = [partial(_convert, f"{where}: {name}", entries[name], types[name]) for name in known]
    with also_report(problems):
        return dict(zip(known, run_each(checks), strict=True))


def _unknown_entries(where: str, entries: Mapping[Any, Any], known: Sequence[str]) -> list[str]:
    allowed = f"choose from {', '.join(known)}" if known else "there are no settings"
    return [f"{where}: unknown entry {name}; {allowed}" for name in entries if name not in known]


def _read_metric(path: Path, metric: Any) -> str:
    name = str(metric).removeprefix("eval_")
    if name not in METRICS:
        raise UserError(f"{path}: metric {metric}: trials are not compared by it; choose from {', '.join(METRICS)}")
    return name


def _read_method(where: str, entry: Any, methods: Mapping[str, Mapping[str, Any]]) -> Method:
    """Read a sampler or pruner: its name, or a mapping of `kind` and settings."""
    settings = dict(entry) if isinstance(entry, dict) else {"kind": entry}
    name = str(settings.pop("kind", None))
    if name not in methods:
        raise UserError(f"{where} {name}: choose from {', '.join(methods)}")
    return Method(name, _read_fields(f"{where} {name}", settings, methods[name]))


def _read_launcher(path: Path, launcher: Any) -> tuple[str, ...]:
    if not isinstance(launcher, str):
        raise UserError(f"{path}: launcher is {kind(launcher)}; write e.g. torchrun --nproc_per_node 4")
    try:
        return tuple(shlex.split(launcher))
    except ValueError as error:
        raise UserError(f"{path}: launcher {launcher}: {error}; write it as on a command line") from error


def _read_options(where: str, options: Any) -> dict[str, Any]:
    """Check names and types of the trainer's options and return them with underscores in their names."""
    if not isinstance(options, dict):
        raise UserError(f"{where} is {kind(options)}; give a mapping of options")
    set_by_sweep = [name for name in options if str(name).replace("-", "_") in SET_BY_SWEEP]
    secrets = [name for name in options if str(name).endswith("token")]  # sweep.json, logs and commands would show it
    problems = [f"{where}: {name} is set by the sweep for each trial; leave it out" for name in set_by_sweep]
    problems += [f"{where}: {name} would be recorded; give it in the environment (HF_TOKEN)" for name in secrets]
    allowed = {name: value for name, value in options.items() if name not in (*set_by_sweep, *secrets)}
    with also_report(problems):
        _, underscored = run_all(
            lambda: trainer_parser().words_of(allowed, where), lambda: _with_underscores(where, options)
        )
    return underscored


def _with_underscores(where: str, mapping: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a mapping with underscores in its names, or raise UserError if two names are one option."""
    names = [str(name).replace("-", "_") for name in mapping]
    counts = Counter(names)
    raise_if_any([_given_often(f"{where}: {name}", count) for name, count in counts.items() if count > 1])
    return dict(zip(names, mapping.values(), strict=True))


def _given_often(name: str, count: int) -> str:
    return f"{name} is given {count} times; give it once"


def _read_search(path: Path, search: Any) -> dict[str, SearchEntry]:
    if not isinstance(search, dict) or not search:
        content = "empty" if search == {} else kind(search)
        raise UserError(
            f"{path}: search is {content}; give a mapping such as 'learning_rate: {{low: 1e-5, high: 1e-3}}'"
        )
    entries = run_each(partial(_read_entry, f"{path}: search", str(name), entry) for name, entry in search.items())
    return _with_underscores(f"{path}: search", dict(zip(search, entries, strict=True)))


def _read_entry(section: str, name: str, entry: Any) -> SearchEntry:
    where = f"{section}: {name}"
    if isinstance(entry, list):
        entry = {"choices": entry}
    if not isinstance(entry, dict) or ("choices" in entry) == ("low" in entry or "high" in entry):
        raise UserError(f"{where}: give choices: [...], or low and high")
    if "choices" in entry and len(entry) > 1:
        raise UserError(f"{where}: choices cannot be combined with other entries; give choices alone")
    choices = entry.get("choices")
    if isinstance(choices, dict):
        return _read_option_sets(where, name, choices)
    _read_options(section, {name: None})
    option_type = trainer_parser().option_type(name)
    if "choices" not in entry:
        return _read_range(where, entry, option_type)
    values = _convert(f"{where}: choices", choices, Annotated[list[Scalar], Meta(min_length=1)])
    values = tuple(_to_number(value, option_type) for value in values)
    if len(set(map(str, values))) < len(values):
        raise UserError(f"{where}: a choice appears twice; give each once")
    return Choices(values)


def _read_option_sets(where: str, name: str, sets: dict[Any, Any]) -> Choices:
    if not sets:
        raise UserError(f"{where}: choices is empty; give named sets of options")
    if name.replace("-", "_") in trainer_parser().known_names():
        raise UserError(f"{where}: is an option; a choice between sets of options needs another name")
    options = run_each(partial(_read_options, f"{where}: {label}", options) for label, options in sets.items())
    return Choices(dict(zip(map(str, sets), options, strict=True)))


def _read_range(where: str, entry: dict[Any, Any], option_type: Any) -> Range:
    """Read a range; its numbers are whole numbers if the option's are."""
    if option_type not in RANGES:
        raise UserError(f"{where}: the option is not a number; give choices: [...]")
    missing = [f"{where}: {name} is missing" for name in ("low", "high") if name not in entry]
    numbers = {name: value if name == "log" else _to_number(value, option_type) for name, value in entry.items()}
    if option_type is int and not entry.get("log"):
        numbers.setdefault("step", 1)
    with also_report(missing):
        fields = _read_fields(where, numbers, RANGES[option_type])
    entry_range = Range(**fields)
    low, high, step = entry_range.low, entry_range.high, entry_range.step
    if not low < high:
        raise UserError(f"{where}: low {low:g} must be below high {high:g}")
    if step is not None and not 0 < step <= high - low:
        raise UserError(f"{where}: step {step:g} must be above 0 and at most high - low")
    if entry_range.log and (step is not None or low <= 0):
        raise UserError(f"{where}: log: true needs low above 0 and no step")
    if entry_range.highest != high:
        log_note(
            [f"{where}: steps of {step:g} from {low:g} end at {entry_range.highest:g}, so {high:g} is never tried"]
        )
    return entry_range


def _to_number(value: Any, option_type: Any) -> Any:
    """Convert a numeric value to a number if the option is int or float; return other values unchanged.

    YAML reads 1e-4 as text, but 1e-4 and 0.0001 must be the same choice.
    """
    if option_type not in RANGES or not isinstance(value, (float, str)):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    if not abs(number) < MAX_NUMBER:
        return value
    return int(number) if option_type is int and number.is_integer() else number


@cache
def trainer_parser() -> ConfigParser[QARunConfig]:
    """Return the parser of run_qa_adapter.py."""
    parser = ConfigParser(QARunConfig)
    parser.prog = TRAINER
    return parser


def _check_with_trainer(path: Path, sweep: Sweep, *, dry_run: bool) -> None:
    """Check the shared options together with every choice and both ends of every range.

    Raises:
        UserError: if an option is given in two places, or the trainer would refuse a value. In a dry run, problems with
            the paths of data, models and adapters, and a missing launcher, are notes.
    """
    candidates = {name: entry.values_to_check() for name, entry in sweep.search.items()}
    sources: dict[str, list[str]] = {option: ["options"] for option in sweep.options}
    for name, values in candidates.items():
        sets = [sweep.search[name].options(name, value) for value in values]
        for option in dict.fromkeys(itertools.chain.from_iterable(sets)):
            sources.setdefault(option, []).append(f"search: {name}")
    repeated = {option: names for option, names in sources.items() if len(names) > 1}
    raise_if_any(
        [f"{path}: {option} is given in {' and '.join(names)}; give it once" for option, names in repeated.items()]
    )
    first = {name: values[0] for name, values in candidates.items()}
    trials = [first | {name: value} for name, values in candidates.items() for value in values]
    of_files = dict.fromkeys(_launcher_problems(sweep.launcher))
    problems = dict(of_files)
    for params in trials:
        try:
            config = trial_config(sweep, params)
        except UserError as error:
            problems |= dict.fromkeys(error.problems)
            continue
        of_files |= dict.fromkeys(path_problems(config))
        problems |= dict.fromkeys(validate_config(config))
        if config.data.fold is not None:  # its run.json is not in the folder of the trial
            problems["fold: a trial is a whole cross-validation, not one of its folds; leave it out"] = None
        elif not config.training.do_eval and config.data.folds is None:
            problems[f"options: do_eval is not true; trials are compared by the evaluation's {sweep.metric}"] = None
    if dry_run:
        log_note(f"{path}: {problem}" for problem in of_files)
        problems = {problem: None for problem in problems if problem not in of_files}
    raise_if_any([f"{path}: {problem}" for problem in problems])


def _launcher_problems(launcher: Sequence[str]) -> list[str]:
    if launcher and shutil.which(launcher[0]) is None:
        return [f"launcher {launcher[0]}: no such program; give its name as in a shell, or its path"]
    return []


def trial_config(sweep: Sweep, params: dict[str, Any]) -> QARunConfig:
    """Return what the trainer reads from the options of a trial, or raise UserError with what it cannot parse."""
    with contextlib.redirect_stderr(io.StringIO()):  # every trial prints the notes itself
        return trainer_parser().parse(sweep.trainer_args(params))


def _count_trials(path: Path, sweep: Sweep) -> int:
    """Return the number of trials; a grid has at most one for each combination."""
    if sweep.sampler.kind != "grid":
        if not sweep.trials:
            raise UserError(f"{path}: trials is missing; give the number of trials")
        return sweep.trials
    counts = {name: len(entry.grid_values()) for name, entry in sweep.search.items()}
    endless = [name for name, count in counts.items() if count == 0]
    if endless:
        raise UserError(f"{path}: sampler grid needs choices or a step for {', '.join(endless)}")
    combinations = math.prod(counts.values())
    if combinations > MAX_COMBINATIONS:
        raise UserError(f"{path}: sampler grid: more than {MAX_COMBINATIONS:,} combinations; give fewer values")
    return min(sweep.trials or combinations, combinations)

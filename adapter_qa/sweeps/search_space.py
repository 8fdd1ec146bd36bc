"""The file of a sweep: what is searched, over which options of run_qa_adapter.py, how trials are drawn and pruned.

It is read and held against the trainer's own parser as a whole, every choice and both ends of every range, before
anything slow is imported and before any trial.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml

from adapter_qa.config.options import QA_METRICS, QA_OPTIONS
from adapter_qa.config.parser import ConfigParser
from adapter_qa.config.validation import check_files, check_run
from adapter_qa.core.errors import UserError, raise_if_any, run_all
from adapter_qa.core.files import kind, read_text

TRAINER = "run_qa_adapter.py"
ENTRIES = ("trials", "metric", "seed", "sampler", "pruner", "launcher", "options", "search")
# Settings of optuna's samplers and pruners that may be given, with the least value of each; `grid` is ours.
SAMPLERS: dict[str, dict[str, int]] = {"tpe": {"n_startup_trials": 0}, "random": {}, "grid": {}}
PRUNERS: dict[str, dict[str, int]] = {
    "median": {"n_startup_trials": 0, "n_warmup_steps": 0, "interval_steps": 1, "n_min_trials": 1},
    "hyperband": {"min_resource": 1, "max_resource": 1, "reduction_factor": 2},
    "none": {},
}
OF_THE_SWEEP = ("output_dir", "overwrite_output_dir", "dry_run")  # options that a sweep decides for its trials
MOST_COMBINATIONS = 100_000


@dataclass(frozen=True)
class Choices:
    """An option with a few values, or a choice between named sets of options.

    Attributes:
        values: the option's values, or the names of the sets.
        sets: options by name of the set; None where the values are an option's.
    """

    values: tuple[Any, ...]
    sets: dict[str, dict[str, Any]] | None = None

    def options(self, name: str, value: Any) -> dict[str, Any]:
        """The options that a choice stands for."""
        return {name: value} if self.sets is None else self.sets[value]

    def ends(self) -> tuple[Any, ...]:
        """Values that show all that can be wrong."""
        return self.values

    def points(self) -> tuple[Any, ...] | None:
        """All values."""
        return self.values

    def described(self) -> dict[str, Any]:
        """As the file has it."""
        return {"choices": list(self.values) if self.sets is None else self.sets}

    def in_words(self) -> str:
        """For people."""
        return ", ".join(map(str, self.values))


@dataclass(frozen=True)
class Range:
    """A number between two ends, both included.

    Attributes:
        low, high: the ends.
        whole: integers only.
        step: distance of two values; None: any value.
        log: drawn evenly on a logarithmic scale.
    """

    low: float
    high: float
    whole: bool
    step: float | None = None
    log: bool = False

    def options(self, name: str, value: Any) -> dict[str, Any]:
        """The option with its value."""
        return {name: value}

    def ends(self) -> tuple[Any, ...]:
        """The ends."""
        return (self.low, self.high)

    def points(self) -> tuple[Any, ...] | None:
        """All values; None where they cannot be counted."""
        if self.step is None:
            return None
        low, high, step = (Decimal(str(one)) for one in (self.low, self.high, self.step))  # 3 x 0.1 is above 0.3
        count = min(int((high - low) / step) + 1, MOST_COMBINATIONS + 1)
        return tuple((int if self.whole else float)(low + number * step) for number in range(count))

    def described(self) -> dict[str, Any]:
        """As the file has it."""
        steps = {"step": self.step} if self.step is not None else {}
        return {"low": self.low, "high": self.high, **steps, **({"log": True} if self.log else {})}

    def in_words(self) -> str:
        """For people."""
        steps = f", step {self.step:g}" if self.step is not None else ""
        return f"{self.low:g} to {self.high:g}{steps}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Sweep:
    """A sweep as its file asks for it.

    Attributes:
        trials: how many there are.
        metric: f1, exact or loss, of the evaluation after training.
        seed: of the sampler.
        sampler, pruner: kind and settings.
        launcher: words in front of the trainer's script; empty: this Python.
        options: what all trials share.
        search: what they differ in, by option or by name of a choice between sets.
    """

    trials: int
    metric: str
    seed: int
    sampler: dict[str, Any]
    pruner: dict[str, Any]
    launcher: tuple[str, ...]
    options: dict[str, Any]
    search: dict[str, Choices | Range]

    @property
    def maximize(self) -> bool:
        """Whether more is better."""
        return self.metric != "loss"

    def options_of(self, params: dict[str, Any]) -> dict[str, Any]:
        """All options of a trial with these parameters."""
        found = dict(self.options)
        for name, value in params.items():
            found |= self.search[name].options(name, value)
        return found

    def words(self, params: dict[str, Any]) -> list[str]:
        """They as words of the trainer's command line."""
        return trainer_parser().words_of(self.options_of(params), "sweep")

    def settings(self) -> dict[str, Any]:
        """What must be the same for all workers of a sweep, as JSON has it. More trials may be asked for later."""
        settings = {
            "metric": self.metric,
            "seed": self.seed,
            "sampler": self.sampler,
            "pruner": self.pruner,
            "launcher": list(self.launcher),
            "options": self.options,
            "search": {name: one.described() for name, one in self.search.items()},
        }
        return dict(json.loads(json.dumps(settings, default=str)))  # YAML has dates, and keys that are no text

    def combinations(self) -> list[dict[str, Any]] | None:
        """All sets of parameters; None where they cannot be counted, or are more than `MOST_COMBINATIONS`."""
        points = [one.points() for one in self.search.values()]
        if not all(points) or math.prod(len(one or ()) for one in points) > MOST_COMBINATIONS:
            return None
        return [dict(zip(self.search, values, strict=True)) for values in itertools.product(*map(tuple, points))]  # type: ignore[arg-type]


@cache
def trainer_parser() -> ConfigParser:
    """The parser of run_qa_adapter.py."""
    parser = ConfigParser(QA_OPTIONS, "", "")
    parser.prog = TRAINER
    return parser


def read_sweep(path: Path) -> Sweep:
    """The sweep that a YAML file describes.

    Raises:
        UserError: every problem in it: unknown entries and options, ranges that are none, values that the trainer
            refuses as far as options alone show it.
    """
    text = read_text(path)
    try:
        document = yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as a sweep: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: holds {kind(document)}; a sweep is a mapping with the entries {', '.join(ENTRIES)}")
    problems = [
        f"{path}: unknown entry {name}; a sweep has {', '.join(ENTRIES)}" for name in document if name not in ENTRIES
    ]
    steps: list[Callable[[], Any]] = [
        partial(raise_if_any, problems),
        partial(_read_head, path, document),
        partial(_read_options, path, document.get("options")),
        partial(_read_search, path, document.get("search")),
    ]
    _, head, options, search = run_all(steps)
    head = dict(head)
    trials = head.pop("trials")
    sweep = Sweep(trials=trials or 0, options=options, search=search, **head)
    _check_whole(path, sweep)
    return _count_trials(path, sweep)


def _read_head(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Everything but options and search.

    Raises:
        UserError: values that are not allowed.
    """
    trials, seed, metric = document.get("trials"), document.get("seed", 42), document.get("metric", "f1")
    launcher = document.get("launcher", "")
    problems: list[str] = []
    if not (trials is None or _is_whole(trials, 1)):
        problems.append(f"{path}: trials {trials}: must be a whole number of at least 1")
    if not _is_whole(seed, 0):
        problems.append(f"{path}: seed {seed}: must be a whole number of at least 0")
    if str(metric).removeprefix("eval_") not in QA_METRICS:
        problems.append(f"{path}: metric {metric}: not computed; choose from {', '.join(QA_METRICS)}")
    sampler = _read_kind(path, "sampler", document.get("sampler", "tpe"), SAMPLERS, problems)
    pruner = _read_kind(path, "pruner", document.get("pruner", "none"), PRUNERS, problems)
    words: list[str] = []
    try:
        words = shlex.split(launcher) if isinstance(launcher, str) else [str(launcher)]
    except ValueError as error:
        problems.append(f"{path}: launcher {launcher}: {error}; write it as on a command line")
    if not isinstance(launcher, str):
        problems.append(f"{path}: launcher is {kind(launcher)}; write e.g. torchrun --nproc_per_node 4")
    if trials is None and sampler.get("kind") != "grid":
        problems.append(f"{path}: trials is missing; give their number")
    raise_if_any(problems)
    metric = str(metric).removeprefix("eval_")
    return {
        "trials": trials, "seed": seed, "metric": metric, "sampler": sampler, "pruner": pruner,
        "launcher": tuple(words),
    }  # fmt: skip


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _read_kind(
    path: Path, entry: str, value: Any, kinds: dict[str, dict[str, int]], problems: list[str]
) -> dict[str, Any]:
    """A sampler or pruner: its name, or a mapping of `kind` and settings. Problems are added to the list."""
    found: dict[str, Any] = {"kind": value} if not isinstance(value, dict) else dict(value)
    name = "none" if found.get("kind") is None and "none" in kinds else str(found.get("kind"))
    if name not in kinds:
        problems.append(f"{path}: {entry} {name}: choose from {', '.join(kinds)}")
        return found
    for setting, number in found.items():
        allowed = kinds[name]
        if setting == "kind":
            continue
        if setting not in allowed:
            problems.append(f"{path}: {entry}: {name} has no {setting}; it has {', '.join(allowed) or 'no settings'}")
        elif not _is_whole(number, allowed[setting]):
            problems.append(
                f"{path}: {entry}: {setting} {number}: must be a whole number of at least {allowed[setting]}"
            )
    return {**found, "kind": name}


def _read_options(path: Path, options: Any) -> dict[str, Any]:
    """What all trials share.

    Raises:
        UserError: no mapping, unknown options, or one that the sweep decides.
    """
    if not isinstance(options, dict):
        raise UserError(f"{path}: options is {kind(options)}; give a mapping of what all trials share")
    _check_names(path, "options", options)
    return {str(name).replace("-", "_"): value for name, value in options.items()}


def _check_names(path: Path, where: str, options: dict[str, Any]) -> None:
    """Raises:
    UserError: an option does not exist, cannot have its value's kind, or is decided by the sweep.
    """
    of_sweep = [name for name in options if str(name).replace("-", "_") in OF_THE_SWEEP]
    problems = [f"{path}: {where}: {name} is decided by the sweep for each trial; leave it out" for name in of_sweep]
    secret = [name for name in options if str(name).endswith("token")]  # would stand in sweep.json, logs and commands
    problems += [f"{path}: {where}: {name} would be recorded; give it in the environment (HF_TOKEN)" for name in secret]
    trainer_options = {name: value for name, value in options.items() if name not in {*of_sweep, *secret}}
    run_all([partial(raise_if_any, problems), partial(trainer_parser().words_of, trainer_options, f"{path}: {where}")])


def _read_search(path: Path, search: Any) -> dict[str, Choices | Range]:
    """What trials differ in.

    Raises:
        UserError: no mapping, or anything wrong in one of its entries.
    """
    if not isinstance(search, dict) or not search:
        held = "empty" if search == {} else kind(search)
        raise UserError(f"{path}: search is {held}; give a mapping such as 'learning_rate: {{low: 1e-5, high: 1e-3}}'")
    found = run_all(partial(_read_entry, path, str(name), entry) for name, entry in search.items())
    return {str(name).replace("-", "_"): one for name, one in zip(search, found, strict=True)}


def _read_entry(path: Path, name: str, entry: Any) -> Choices | Range:
    """One entry of the search.

    Raises:
        UserError: what is wrong with it.
    """
    where = f"{path}: search: {name}"
    if isinstance(entry, list):
        entry = {"choices": entry}
    if not isinstance(entry, dict) or not ("choices" in entry) ^ ("low" in entry or "high" in entry):
        raise UserError(f"{where}: give choices: [...], or low and high")
    if isinstance(entry.get("choices"), dict):
        return _read_sets(path, name, entry)
    _check_names(path, "search", {name: None})
    types = {text[2:]: action.type for action in trainer_parser()._actions for text in action.option_strings}
    if "choices" not in entry:
        return _read_range(where, entry, types[name])
    values = entry["choices"]
    if not isinstance(values, list) or not values or len(entry) > 1:
        raise UserError(f"{where}: choices must be a list of values, and stand alone")
    plain = [one for one in values if one is None or isinstance(one, (str, int, float))]
    if len(plain) < len(values):
        raise UserError(f"{where}: choices must be words, numbers, true, false or null; sets of options need names")
    read = tuple(_as_option(one, types[name]) for one in values)
    if len(set(map(str, read))) < len(read):
        raise UserError(f"{where}: a choice is there twice; give each once")
    return Choices(read)


def _as_option(value: Any, option_type: Any) -> Any:
    """A choice as a number where the option's values are, so that 1e-4 and 0.0001 are the same one."""
    number = _number(value)
    if number is None or option_type not in (int, float):
        return value
    return int(number) if option_type is int and number == int(number) else number


def _read_sets(path: Path, name: str, entry: dict[str, Any]) -> Choices:
    """A choice between named sets of options.

    Raises:
        UserError: what is wrong with it.
    """
    where, sets = f"{path}: search: {name}", entry["choices"]
    if len(entry) > 1 or not sets:
        raise UserError(f"{where}: choices must be named sets of options, and stand alone")
    if name.replace("-", "_") in trainer_parser().known_names():
        raise UserError(f"{where}: is an option; a choice between sets of options needs another name")
    problems = [
        f"{where}: {label} is {kind(one)}; give a mapping of options" for label, one in sets.items()
        if not isinstance(one, dict)
    ]  # fmt: skip
    named = {str(label): one for label, one in sets.items() if isinstance(one, dict)}
    checks = [partial(_check_names, path, f"search: {name}: {label}", one) for label, one in named.items()]
    run_all([partial(raise_if_any, problems), *checks])
    return Choices(
        tuple(named), {label: {k.replace("-", "_"): v for k, v in one.items()} for label, one in named.items()}
    )


def _read_range(where: str, entry: dict[str, Any], option_type: Any) -> Range:
    """A range of numbers; whole ones where the option's are.

    Raises:
        UserError: what is wrong with it.
    """
    unknown = [str(one) for one in entry if one not in ("low", "high", "step", "log")]
    if unknown:
        raise UserError(f"{where}: unknown {', '.join(unknown)}; a range has low, high, step and log")
    if option_type not in (int, float):
        raise UserError(f"{where}: is no number; give choices: [...]")
    whole, log = option_type is int, entry.get("log", False)
    numbers = {one: _number(entry.get(one)) for one in ("low", "high", "step") if one in entry or one != "step"}
    wrong = [
        f"{where}: {one} {entry.get(one)}: must be a {'whole' if whole else 'finite'} number"
        for one, number in numbers.items()
        if number is None or (whole and number != int(number))
    ]
    if wrong or not isinstance(log, bool):
        raise UserError(wrong or f"{where}: log {log}: must be true or false")
    low, high, step = (numbers.get(one) for one in ("low", "high", "step"))
    assert low is not None and high is not None
    if not low < high:
        raise UserError(f"{where}: low {low:g} must be below high {high:g}")
    if step is not None and not 0 < step <= high - low:
        raise UserError(f"{where}: step {step:g}: must be above 0 and at most high - low")
    if log and (step is not None or low <= 0):
        raise UserError(f"{where}: log: true needs low above 0 and goes without step")
    if whole:
        return Range(int(low), int(high), True, None if log else int(step or 1), log)
    return Range(float(low), float(high), False, step, log)


def _number(value: Any) -> int | float | None:
    """A finite number; YAML takes 1e-5 for text. None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, int):
        return value
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _check_whole(path: Path, sweep: Sweep) -> None:
    """Holds the shared options with every choice and both ends of every range against the trainer's parser.

    Raises:
        UserError: an option stands in two places, or the trainer would refuse a value.
    """
    owners: dict[str, list[str]] = {name: ["options"] for name in sweep.options}
    for name, one in sweep.search.items():
        for option in dict.fromkeys(option for value in one.ends() for option in one.options(name, value)):
            owners.setdefault(option, []).append(f"search: {name}")
    raise_if_any(
        [f"{path}: {name} stands in {' and '.join(them)}; give it once" for name, them in owners.items() if them[1:]]
    )
    first = {name: one.ends()[0] for name, one in sweep.search.items()}
    tried = [first | {name: value} for name, one in sweep.search.items() for value in one.ends()]
    problems = dict.fromkeys(problem for params in tried for problem in _refused(sweep, params))
    raise_if_any([f"{path}: {problem}" for problem in problems])


def _refused(sweep: Sweep, params: dict[str, Any]) -> list[str]:
    """What the trainer's options, read alone, would be refused for."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its notes come with each trial
            _, squad, *_, run = trainer_parser().read(sweep.words(params))
    except UserError as error:
        return error.problems
    problems = check_run(run, QA_METRICS) + check_files(squad)
    if not run.do_eval:
        problems.append(f"options: do_eval is not true; trials are compared by the evaluation's {sweep.metric}")
    return problems


def _count_trials(path: Path, sweep: Sweep) -> Sweep:
    """The sweep with the number of its trials; a grid has at most one for each combination.

    Raises:
        UserError: a grid of what cannot be counted.
    """
    if sweep.sampler["kind"] != "grid":
        return sweep
    combinations = sweep.combinations()
    if combinations is None:
        endless = [name for name, one in sweep.search.items() if one.points() is None]
        why = f"{', '.join(endless)}: give choices or a step" if endless else f"more than {MOST_COMBINATIONS:,} trials"
        raise UserError(f"{path}: sampler grid cannot be made: {why}")
    return Sweep(**{**vars(sweep), "trials": min(sweep.trials or len(combinations), len(combinations))})

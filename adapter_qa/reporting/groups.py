"""Group runs that differ in their seeds only, and compare the settings of groups.

Two runs belong to one group if their options and data are the same except for the seeds and for options that do not
change the result. Single folds also have the same seed, since it decides which questions are in a fold. Adapters from
other runs count as the same adapters if those other runs belong to one group. A chain of runs that was repeated with
several seeds therefore makes one group per step.

Scores are compared only among groups that were evaluated on the same questions, sentences or text (`Evaluated`).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from adapter_qa.config import options as options_module
from adapter_qa.config.option_fields import values_before
from adapter_qa.core.errors import UserError
from adapter_qa.models.tasks import TASKS
from adapter_qa.reporting.paired import PairedRow
from adapter_qa.reporting.run_names import short_names
from adapter_qa.reporting.runs import SEED_MEASURES, Fold, Run, is_number, read_run
from adapter_qa.runs.layout import RUN_FILE
from adapter_qa.runs.run_record import NEUTRAL_OPTIONS

SEEDS = ("seed", "data_seed")
BASE, FUSED = "model_name_or_path", "fuse_adapters"
REFERENCES = (BASE, "load_lang_adapter", "load_adapter", FUSED)  # options whose paths may be runs
# Options that change only what a run prints or leaves on the disk.
UNCOMPARED = re.compile(
    r"keep_checkpoint|save_total_limit|log_level.*|log_on_each_node|logging_.*|dataloader_(num_workers|pin_memory"
    r"|persistent_workers|prefetch_factor)|use_cpu|no_cuda|per_device_eval_batch_size"
)
# The values by which versions without an option trained.
BEFORE = values_before(
    group for group in vars(options_module).values() if isinstance(group, type) and is_dataclass(group)
)
MAX_CHAIN = 5  # runs built on runs; a language adapter under a QA adapter under a fusion makes three

GroupKey = tuple[str, Fold | None] | Path


class MeanStd(NamedTuple):
    """Mean, None without values, and sample standard deviation (n - 1), None for fewer than two values."""

    mean: float | None
    deviation: float | None


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds only, or one run that did not finish; a row of the table.

    Attributes:
        number: Row in the table, from 1.
        runs: In the order of their seeds, at least one.
        seeds: A name of each run: its seed, and if several have the same one, the other seeds that differ, as in 42/1.
        settings: `comparable_settings` of the runs.
        name: Short name of the folder of the first run, different for each group; "+2" says that there are 2 more runs.
        paired: What its answers say; None if they are not read, or not with the questions of the others of its table.
        not_compared: Why not, for people; empty if its answers were read, or if it is never compared.
    """

    number: int
    runs: list[Run]
    seeds: list[str]
    settings: dict[str, Any]
    name: str
    paired: PairedRow | None = None
    not_compared: str = ""

    @property
    def is_compared(self) -> bool:
        """Whether its answers can be compared with those of the best row: finished question answering with an F1."""
        return self.first.task == "qa" and self.first.finished and self.mean_std("f1").mean is not None

    @property
    def first(self) -> Run:
        """A run from which to read what all of them share."""
        return self.runs[0]

    def mean_std(self, measure: str) -> MeanStd:
        """Return mean and standard deviation of one of `SEED_MEASURES`."""
        return mean_std([SEED_MEASURES[measure](run) for run in self.runs])

    def trainable_percent(self) -> float | None:
        """Return the trained parameters in percent of the base model with its head."""
        parameters, trainable = self.first.document.parameters, self.first.trainable()
        if parameters is None or trainable is None or not parameters.base:
            return None
        return 100 * trainable / parameters.base


def mean_std(values: Sequence[float | None]) -> MeanStd:
    """Return mean and standard deviation of the finite values."""
    finite = [value for value in values if is_number(value)]
    if not finite:
        return MeanStd(None, None)
    return MeanStd(statistics.fmean(finite), statistics.stdev(finite) if len(finite) > 1 else None)


def comparable_settings(run: Run, depth: int = 0) -> dict[str, Any]:
    """Return what determines a run's result apart from its seed: options, and fingerprints of the data.

    Args:
        run: The run.
        depth: Number of runs that are built on this one.
    """
    options = run.document.options
    settings = {
        name: value
        for name, value in (BEFORE | options).items()
        if value is not None
        and name not in SEEDS
        and not NEUTRAL_OPTIONS.fullmatch(name)
        and not UNCOMPARED.fullmatch(name)
    }
    for name in REFERENCES:
        value = options.get(name)
        if isinstance(value, list):
            settings[name] = [_resolve_reference(run, name, str(word), depth) for word in value]
        elif isinstance(value, str):
            settings[name] = _resolve_reference(run, name, value, depth)
    settings |= {f"{split}_data": source.sha256[:12] for split, source in run.document.data.items() if source.sha256}
    return settings


def _resolve_reference(run: Run, option: str, word: str, depth: int) -> str:
    """Replace the path in a value of an option by a digest of the settings of the run there, if there is a run."""
    referenced = _referenced_run(run, option, word, depth)
    if referenced is None:
        return word
    name = f"{word.partition('=')[0]}=" if option == FUSED else ""
    return f"{name}run {_digest(comparable_settings(referenced, depth + 1))}"


def _referenced_run(run: Run, option: str, word: str, depth: int) -> Run | None:
    """Return the run at the path in a value of an option; None if there is none that can be read.

    The path is that of the run or, but for a base model, of the saved adapters in it.
    """
    path = run.locate(word.partition("=")[2] if option == FUSED else word)
    if path is None or depth == MAX_CHAIN:
        return None
    for folder in (path,) if option == BASE else (path, path.parent):
        if (folder / RUN_FILE).is_file():
            try:
                return read_run(folder)
            except UserError:
                return None
    return None


def chain_seeds(run: Run, depth: int = 0) -> tuple[str, ...]:
    """Return the seed and the data seed of a run, followed by those of the runs on which it is built.

    Args:
        run: The run.
        depth: Number of runs that are built on this one.
    """
    options = run.document.options
    data_seed = options.get("data_seed")
    seeds: tuple[str, ...] = (str(run.seed), str(run.seed if data_seed is None else data_seed))
    for name in REFERENCES:
        value = options.get(name)
        for word in value if isinstance(value, list) else [value]:
            referenced = _referenced_run(run, name, word, depth) if isinstance(word, str) else None
            if referenced is not None:
                seeds += chain_seeds(referenced, depth + 1)
    return seeds


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def group_runs(runs: Sequence[Run]) -> tuple[list[Group], list[str]]:
    """Group finished runs over seeds; each unfinished run is a group of its own.

    Of several runs with the same settings and `chain_seeds`, all but the last in the sequence are left out.

    Returns:
        The groups and a note for each run that is left out. Question answering comes first, then named entities, then
        language adapters; within them groups with the same `Evaluated` are together, the most questions first; within
        those the finished ones come first, sorted by F1 or perplexity.
    """
    # The key of a group is a digest of the settings with the fold, or the folder of an unfinished run.
    settings: dict[GroupKey, dict[str, Any]] = {}
    repeats: dict[tuple[GroupKey, tuple[str, ...]], list[Run]] = {}  # by group and seeds
    for run in runs:
        run_settings = comparable_settings(run)
        key: GroupKey = (_digest(run_settings), run.fold) if run.finished else run.folder
        settings[key] = run_settings
        repeats.setdefault((key, chain_seeds(run)), []).append(run)
    notes = [
        f"{run.folder}: left out, because {repeated[-1].folder} has the same options and seed"
        for repeated in repeats.values()
        for run in repeated[:-1]
    ]
    members: dict[GroupKey, dict[tuple[str, ...], Run]] = {}
    for (key, seeds), repeated in repeats.items():
        members.setdefault(key, {})[seeds] = repeated[-1]
    groups = []
    for key, by_seeds in members.items():
        chains = sorted(by_seeds, key=_seed_order)
        groups.append(Group(0, [by_seeds[seeds] for seeds in chains], _seed_names(chains), settings[key], ""))
    groups.sort(key=_rank)
    names = short_names([group.first for group in groups])
    return [
        replace(group, number=number, name=name + (f" +{len(group.runs) - 1}" if len(group.runs) > 1 else ""))
        for number, (group, name) in enumerate(zip(groups, names, strict=True), 1)
    ], notes


def same_evaluation(groups: Sequence[Group]) -> list[list[Group]]:
    """Divide sorted groups into those whose scores can be compared."""
    return [list(members) for _, members in groupby(groups, key=lambda group: group.first.evaluated)]


def _seed_order(seeds: tuple[str, ...]) -> list[tuple[bool, int, str]]:
    return [(False, int(seed), "") if seed.isdecimal() else (True, 0, seed) for seed in seeds]


def _seed_names(chains: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the names of runs with these `chain_seeds`; see `Group`."""
    own, *others = zip(*chains, strict=True)
    if len(set(own)) == len(own):
        return list(own)
    differing = dict.fromkeys(seeds for seeds in others if len(set(seeds)) > 1)
    return ["/".join(seeds) for seeds in zip(own, *differing, strict=True)]


def _rank(group: Group) -> tuple[int, int, str, bool, float, float, str]:
    f1, perplexity, evaluated = group.mean_std("f1").mean, group.mean_std("perplexity").mean, group.first.evaluated
    return (
        list(TASKS).index(evaluated.task),
        -(evaluated.size or 0),
        repr(evaluated),
        not group.first.finished,
        -f1 if f1 is not None else math.inf,
        perplexity if perplexity is not None else math.inf,
        str(group.first.folder),
    )


# Settings that mean something only beside others. They are compared among groups whose context is the same.
_BY_SETUP = ("train_adapter", "load_lang_adapter", "fuse_adapters", "adapter_composition", "do_train", "language")
_OF_ADAPTERS = re.compile(r"adapter_(?!composition).*|madx2|fusion_.*")


def _context(name: str, group: Group) -> str:
    if name in _BY_SETUP:
        return group.first.setup
    if _OF_ADAPTERS.fullmatch(name):
        return f"{group.settings.get('train_adapter')} {'fuse_adapters' in group.settings}"
    return str(group.settings.get({"train_data": "train_file", "eval_data": "validation_file"}.get(name, "")))


def differing_settings(groups: Sequence[Group]) -> list[str]:
    """Return the names of the settings in which groups of one task differ, in the order of the options.

    Trained runs are not compared with runs that were only evaluated, for which training options mean nothing.
    """
    names = dict.fromkeys(name for group in groups for name in group.settings)
    return [name for name in names if _differs(name, groups)]


def _differs(name: str, groups: Sequence[Group]) -> bool:
    values: dict[tuple[str, bool, str], set[str]] = {}
    for group in groups:
        value = json.dumps(group.settings.get(name), sort_keys=True)
        values.setdefault((group.first.task, group.first.trained, _context(name, group)), set()).add(value)
    return any(len(distinct) > 1 for distinct in values.values())

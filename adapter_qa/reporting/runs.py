"""Runs as their run.json tells them: found under folders, read with distrust, brought together over seeds.

Runs belong together where all their options and data are the same but for the seed and what does not change a result.
Adapters that a run was given and that come from runs themselves count as the same where those runs belong together, so
that a chain of runs, each step with its seed, makes one group a step.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import msgspec
from tqdm.auto import tqdm

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json
from adapter_qa.runs.run_record import ONLY_RESULTS, RUN_FILE, is_locked

SWEEP_FILE = "sweep.json"
TASKS = {"run_qa_adapter.py": "qa", "run_ner_adapter.py": "ner", "run_mlm_adapter.py": "mlm"}
SEEDS = re.compile("seed|data_seed")
REFERENCES = ("load_lang_adapter", "load_adapter", "fuse_adapters")  # options whose paths may be runs
LONGEST_CHAIN = 5  # runs that stand on runs; a language adapter under a QA adapter under a fusion are three
LISTED_PROBLEMS = 5  # runs without a usable run.json that an error message names


class Evaluation(msgspec.Struct):
    """One evaluation: percentages, and when it was. The metrics of other tasks are among the unknown keys."""

    eval_f1: float | None = None
    eval_exact: float | None = None
    eval_loss: float | None = None
    eval_perplexity: float | None = None
    epoch: float | None = None
    step: int | None = None


class Loss(msgspec.Struct):
    """Mean training loss since the entry before."""

    loss: float
    epoch: float
    step: int


class Best(msgspec.Struct):
    """The step whose weights were kept."""

    step: int | None = None
    metric: float | None = None


class TrainMetrics(msgspec.Struct):
    """Seconds of training, of the last process where a run was continued."""

    train_runtime: float | None = None


class Metrics(msgspec.Struct):
    """Results by part of the run."""

    eval: Evaluation | None = None
    train: TrainMetrics | None = None


class Parameters(msgspec.Struct):
    """`composition.parameter_table`."""

    base: int
    added: int
    trainable: int
    parts: dict[str, int]


class DataFacts(msgspec.Struct):
    """Where the questions of one part came from."""

    file: str | None = None
    sha256: str | None = None
    questions: int | None = None


class RunDocument(msgspec.Struct):
    """What is read of run.json; other keys may be there."""

    status: str
    script: str
    options: dict[str, Any]
    setup: str | None = None
    parameters: Parameters | None = None
    history: list[Evaluation] = []
    losses: list[Loss] = []
    best: Best | None = None
    metrics: Metrics | None = None
    data: dict[str, DataFacts] = {}
    why: list[str] = []
    device: str | None = None
    commit: str | None = None


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        folder: as it was found.
        status: "finished", "failed", "interrupted", "running", "killed" (it says running, and no process is at work
            there) or "pruned" (by the sweep above it).
        document: its run.json.
    """

    folder: Path
    status: str
    document: RunDocument

    @property
    def task(self) -> str:
        """ "qa", "ner" or "mlm"."""
        return TASKS[self.document.script]

    @property
    def trained(self) -> bool:
        """Whether the run was to train, not only to evaluate what there was."""
        return self.document.options.get("do_train") is True

    @property
    def setup(self) -> str:
        """The composition in words."""
        name = self.document.setup or "unknown"
        return name if self.trained else f"{name}, not trained"

    @property
    def seed(self) -> Any:
        """The seed as it stands in the options."""
        return self.document.options.get("seed")

    @property
    def finished(self) -> bool:
        """Whether it ended as it was meant to."""
        return self.status == "finished"

    def evaluation(self) -> Evaluation:
        """The result; where there is none yet, the best evaluation so far by F1, else by loss; else nothing at all."""
        metrics = self.document.metrics
        if metrics is not None and metrics.eval is not None:
            return metrics.eval
        scored = [one for one in self.document.history if is_number(one.eval_f1)]
        if scored:
            return max(scored, key=lambda one: one.eval_f1 or 0.0)
        held = [one for one in self.document.history if is_number(one.eval_loss)]
        return min(held, key=lambda one: one.eval_loss or 0.0, default=Evaluation())

    def best_epoch(self) -> float | None:
        """The epoch whose weights were kept; None where nothing was trained or evaluated on the way."""
        best = self.document.best
        steps = {one.step: one.epoch for one in self.document.history}
        return steps.get(best.step) if best is not None and best.step is not None else None

    def train_seconds(self) -> float | None:
        """Seconds of training; of a continued run those of its last process."""
        metrics = self.document.metrics
        return metrics.train.train_runtime if metrics is not None and metrics.train is not None else None

    def trainable(self) -> int | None:
        """Parameters that were trained."""
        table = self.document.parameters
        return None if table is None else table.trainable if self.trained else 0

    def locate(self, path: str) -> Path | None:
        """A path of the run's command line, as it is found from here; None where nothing is there.

        A relative path is tried from the folder that the run's own --output_dir was relative to, then from this one.
        """
        output, here = PurePath(str(self.document.options.get("output_dir"))), self.folder.resolve()
        bases = [Path()]
        if not output.is_absolute() and here.parts[-len(output.parts) :] == output.parts:
            bases.insert(0, Path(*here.parts[: -len(output.parts)]))
        return next((base / path for base in bases if (base / path).exists()), None)


@dataclass(frozen=True)
class MeanStd:
    """Values over seeds.

    Attributes:
        mean: None where there are no values.
        deviation: the sample's standard deviation (n - 1); None for fewer than two values.
    """

    mean: float | None
    deviation: float | None


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only; or one run that did not finish.

    Attributes:
        runs: in order of their seeds, at least one.
        settings: `settings_of` the runs.
    """

    runs: list[Run]
    settings: dict[str, Any]

    @property
    def first(self) -> Run:
        """The run to take from what all share."""
        return self.runs[0]

    def f1(self) -> MeanStd:
        """F1 in percent."""
        return mean_std([run.evaluation().eval_f1 for run in self.runs])

    def exact(self) -> MeanStd:
        """Exact match in percent."""
        return mean_std([run.evaluation().eval_exact for run in self.runs])

    def perplexity(self) -> MeanStd:
        """Perplexity of masked words."""
        return mean_std([run.evaluation().eval_perplexity for run in self.runs])

    def best_epoch(self) -> MeanStd:
        """Epoch that was kept."""
        return mean_std([run.best_epoch() for run in self.runs])

    def train_seconds(self) -> MeanStd:
        """Seconds of training."""
        return mean_std([run.train_seconds() for run in self.runs])


def is_number(value: float | None) -> bool:
    """Whether there is a value, and a finite one."""
    return value is not None and math.isfinite(value)


def mean_std(values: Sequence[float | None]) -> MeanStd:
    """Mean and standard deviation of the finite values."""
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    if not known:
        return MeanStd(None, None)
    return MeanStd(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


def find_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """All runs in and under some folders.

    Args:
        folders: run folders, folders that hold some at any depth, or run.json files.

    Returns:
        The runs, each once, by folder; and a line for each run.json that is none.

    Raises:
        UserError: a folder that is not there or holds no run.
    """
    files = {given: list(_run_files(given)) for given in folders}
    problems = [
        f"{given}: {'holds no ' + RUN_FILE if given.exists() else 'no such folder'}; "
        "give a run's folder, or one that holds runs"
        for given, found in files.items()
        if not found
    ]
    if problems:
        raise UserError(problems)
    each = {file.resolve(): file for found in files.values() for file in found}
    runs, unread = [], []
    for file in tqdm(each.values(), desc="runs", unit="run", leave=False, disable=None):
        try:
            runs.append(read_run(file.parent))
        except UserError as error:
            unread += error.problems
    if not runs:
        raise UserError(unread[:LISTED_PROBLEMS])
    return runs, unread


def _run_files(given: Path) -> Iterator[Path]:
    """run.json files in and under a folder, in order of their names."""
    if given.name == RUN_FILE and given.is_file():
        yield given
        return
    for folder, inner, files in os.walk(given):
        inner.sort()
        if RUN_FILE in files:
            yield Path(folder) / RUN_FILE


def read_run(folder: Path) -> Run:
    """The run of a folder.

    Raises:
        UserError: its run.json cannot be read, or was not written by a training script.
    """
    path = folder / RUN_FILE
    try:
        document = msgspec.convert(read_json(path), RunDocument)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: not as the training scripts write it: {error}") from error
    if document.script not in TASKS:
        raise UserError(f"{path}: script is {document.script!r}; known are {', '.join(TASKS)}")
    return Run(folder, _status(folder, document.status), document)


def _status(folder: Path, said: str) -> str:
    if said == "running" and not is_locked(folder):
        said = "killed"
    if said != "finished" and any(_is_pruned(folder.resolve(), above) for above in folder.resolve().parents):
        return "pruned"
    return said


def _is_pruned(folder: Path, above: Path) -> bool:
    """Whether a sweep's folder above a run says that it was pruned."""
    inside = folder.relative_to(above).parts
    return any(PurePath(one).parts[-len(inside) :] == inside for one in _pruned_trials(above))


@cache
def _pruned_trials(above: Path) -> list[str]:
    """Folders of the pruned trials of the sweep in a folder, as its sweep.json has them; none where there is none."""
    if not (above / SWEEP_FILE).is_file():
        return []
    try:
        trials = read_json(above / SWEEP_FILE).get("trials")
    except UserError:
        return []  # of no use to anyone but the sweep, which will complain
    found = [one for one in trials if isinstance(one, dict)] if isinstance(trials, list) else []
    return [str(one.get("folder")) for one in found if str(one.get("state")).lower() == "pruned"]


def settings_of(run: Run, depth: int = 0) -> dict[str, Any]:
    """What decides a run's result beside its seed: options, and fingerprints of the data as `train_data`, `eval_data`.

    Args:
        depth: how many runs stand on this one.
    """
    options = run.document.options
    settings = {
        name: value for name, value in options.items() if not ONLY_RESULTS.fullmatch(name) and not SEEDS.fullmatch(name)
    }
    for name in REFERENCES:
        value = options.get(name)
        if isinstance(value, list):
            settings[name] = [_without_seed(run, str(word), depth) for word in value]
        elif isinstance(value, str):
            settings[name] = _without_seed(run, value, depth)
    settings |= {f"{part}_data": facts.sha256[:12] for part, facts in run.document.data.items() if facts.sha256}
    return settings


def _without_seed(run: Run, word: str, depth: int) -> str:
    """A path or NAME=PATH; where the path is a run's folder or in one, a digest of that run's settings in its place."""
    name, separator, path = word.rpartition("=")
    found = run.locate(path)
    if found is None or depth == LONGEST_CHAIN:
        return word
    for folder in (found, found.parent):
        if (folder / RUN_FILE).is_file():
            try:
                beneath = settings_of(read_run(folder), depth + 1)
            except UserError:
                return word
            return f"{name}{separator}run {digest(beneath)}"
    return word


def digest(settings: dict[str, Any]) -> str:
    """The first 12 hexadecimal digits of a sha256 over settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def group_runs(runs: Sequence[Run]) -> tuple[list[Group], list[str]]:
    """Finished runs brought together over seeds, sorted by F1; then those that did not finish, each by itself.

    Of two runs with the same settings and seed one counts, the one found last. Question answering comes first, then
    named entities, then language adapters, these by perplexity.

    Returns:
        The groups, and a line for each run that does not count.
    """
    together: dict[tuple[str, Any], list[Run]] = {}
    settings: dict[str, dict[str, Any]] = {}
    alone: list[Group] = []
    for run in runs:
        found = settings_of(run)
        key = digest(found)
        settings[key] = found
        if run.finished:
            together.setdefault((key, str(run.seed)), []).append(run)
        else:
            alone.append(Group([run], found))
    notes = [
        f"{twin.folder}: the same options and seed as {twins[-1].folder}, which counts"
        for twins in together.values()
        for twin in twins[:-1]
    ]
    members: dict[str, list[Run]] = {}
    for (key, _), twins in together.items():
        members.setdefault(key, []).append(twins[-1])
    groups = [Group(sorted(found, key=_by_seed), settings[key]) for key, found in members.items()]
    return sorted(groups, key=_rank) + sorted(alone, key=_rank), notes


def _by_seed(run: Run) -> tuple[bool, Any]:
    return (not isinstance(run.seed, int), run.seed if isinstance(run.seed, int) else str(run.seed))


def _rank(group: Group) -> tuple[int, float, float, str]:
    f1, perplexity = group.f1().mean, group.perplexity().mean
    return (
        list(TASKS.values()).index(group.first.task),
        -f1 if f1 is not None else math.inf,
        perplexity if perplexity is not None else math.inf,
        str(group.first.folder),
    )


SETUP = "setup"
# Settings that another column tells; they are compared only among runs that have the same there.
TOLD_BY = {
    **dict.fromkeys(("train_adapter", "load_lang_adapter", "fuse_adapters", "adapter_composition", "do_train"), SETUP),
    "train_data": "train_file",
    "eval_data": "validation_file",
}


def differing(groups: Sequence[Group]) -> list[str]:
    """Names of the settings that tell groups of one task apart, in the order of the options.

    What was trained is not compared with what was only evaluated, for which no option of training means anything.
    """
    names = list(dict.fromkeys(name for group in groups for name in group.settings))
    return [name for name in names if _differs(name, groups)]


def _differs(name: str, groups: Sequence[Group]) -> bool:
    values: dict[tuple[str, bool, str], set[str]] = {}
    told_by = TOLD_BY.get(name)
    for group in groups:
        run = group.first
        told = run.setup if told_by == SETUP else str(group.settings.get(told_by or ""))
        value = json.dumps(group.settings.get(name), sort_keys=True)
        values.setdefault((run.task, run.trained, told), set()).add(value)
    return any(len(found) > 1 for found in values.values())

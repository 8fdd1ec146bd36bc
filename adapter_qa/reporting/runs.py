"""Find runs, check their run.json, and group those that differ in their seed only.

Two runs belong to one group if their options and data are the same except for the seed and for options that do not
change the result. Adapters from other runs count as the same adapters if those other runs belong to one group. A chain
of runs that was repeated with several seeds therefore makes one group per step.

Scores are compared only among groups that were evaluated on the same questions, sentences or text (`Evaluated`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeGuard

import msgspec
from tqdm.auto import tqdm

from adapter_qa.config import options as options_module
from adapter_qa.config.options import SplitName
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json
from adapter_qa.data.partition import FoldScheme
from adapter_qa.reporting.paired import PairedRow
from adapter_qa.runs.layout import FOLD_NAME, RUN_FILE, SWEEP_FILE
from adapter_qa.runs.lock import is_locked
from adapter_qa.runs.run_record import NEUTRAL_OPTIONS

TASKS = {"run_qa_adapter.py": "qa", "run_ner_adapter.py": "ner", "run_mlm_adapter.py": "mlm"}
SEEDS = ("seed", "data_seed")
REFERENCES = ("load_lang_adapter", "load_adapter", "fuse_adapters")  # options whose paths may be runs
# Options that change only what a run prints or leaves on the disk.
UNCOMPARED = re.compile(
    r"keep_checkpoint|save_total_limit|log_level.*|log_on_each_node|logging_.*|dataloader_(num_workers|pin_memory"
    r"|persistent_workers|prefetch_factor)|use_cpu|no_cuda|per_device_eval_batch_size"
)
# What the versions before an option did without it.
BEFORE = {
    option.name: option.metadata["before"]
    for group in vars(options_module).values()
    if isinstance(group, type) and is_dataclass(group)
    for option in fields(group)
    if "before" in option.metadata
}
MAX_CHAIN = 5  # runs built on runs; a language adapter under a QA adapter under a fusion makes three
DERIVED_NAME = re.compile(r"lr[^_]+_bs\d")  # as runs.output_dir makes it
MAX_LISTED_PROBLEMS = 5  # runs without a usable run.json that an error message names


class Evaluation(msgspec.Struct):
    """Scores of one evaluation in percent, and its epoch and step. Other metrics in the file are ignored.

    Only the final evaluation of a calibrated run has the measures without calibration. A cross-validation has intervals
    of 95 %, and mean and standard deviation (n - 1) over its folds.
    """

    eval_f1: float | None = None
    eval_f1_low: float | None = None
    eval_f1_high: float | None = None
    eval_f1_fold_mean: float | None = None
    eval_f1_fold_deviation: float | None = None
    eval_exact: float | None = None
    eval_loss: float | None = None
    eval_perplexity: float | None = None
    eval_ece: float | None = None
    eval_brier: float | None = None
    eval_log_loss: float | None = None
    eval_f1_uncalibrated: float | None = None
    eval_exact_uncalibrated: float | None = None
    eval_ece_uncalibrated: float | None = None
    eval_brier_uncalibrated: float | None = None
    eval_log_loss_uncalibrated: float | None = None
    epoch: float | None = None
    step: int | None = None


class TrainingLoss(msgspec.Struct):
    """Mean training loss since the entry before."""

    loss: float
    step: int


class BestCheckpoint(msgspec.Struct):
    """The step whose weights are the result of the run."""

    step: int | None = None


class TrainMetrics(msgspec.Struct):
    """Training time in seconds; in a resumed run, also the time before the interruption."""

    train_runtime: float | None = None


class Metrics(msgspec.Struct):
    """Final results of the evaluation and of the training."""

    eval: Evaluation | None = None
    train: TrainMetrics | None = None


class Sizes(msgspec.Struct, frozen=True):
    """Bytes of what was trained on the disk, and most bytes of memory at a time; earlier versions lack some."""

    saved_bytes: int | None = None
    memory_bytes: int | None = None


class ParameterCounts(msgspec.Struct):
    """Numbers of parameters: of the base with its head, added to it, trained, and by adapter, fusion and head."""

    base: int
    added: int
    trainable: int
    parts: dict[str, int]


class DataFile(msgspec.Struct):
    """One of several data files."""

    file: str


class DataSource(msgspec.Struct):
    """Where one split came from: one file, several, a data set, or the end of the training text; and how much it is."""

    file: str | None = None
    files: list[DataFile] = []
    dataset: str | None = None
    config: str | None = None
    split: str | None = None
    held_out_of: str | None = None
    sha256: str | None = None
    questions: int | None = None
    sentences: int | None = None
    blocks: int | None = None

    @property
    def paths(self) -> list[str]:
        """Return the paths of all files."""
        return [self.file] if self.file is not None else [file.file for file in self.files]


class Evaluated(NamedTuple):
    """What a run was evaluated on. Scores can be compared only if all of this is equal.

    Attributes:
        task: "qa", "ner" or "mlm".
        source: Fingerprint of the files, or the names of files or data set; empty without an evaluation.
        size: Number of questions, sentences or blocks; None if it was not recorded.
        conditions: The other options that change what the score of an evaluation means.
    """

    task: str
    source: str
    size: int | None
    conditions: tuple[str, ...]


class Fold(NamedTuple):
    """A fold of a cross-validation, counted from 1, and the split whose scores are read."""

    number: int
    scheme: FoldScheme
    split: SplitName


class RunDocument(msgspec.Struct):
    """The part of run.json that a report needs. Other keys are ignored."""

    status: str
    script: str
    options: dict[str, Any]
    setup: str | None = None
    parameters: ParameterCounts | None = None
    history: list[Evaluation] = []
    losses: list[TrainingLoss] = []
    best: BestCheckpoint | None = None
    metrics: Metrics | None = None
    result: Sizes = Sizes()
    data: dict[str, DataSource] = {}
    why: list[str] = []


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        folder: Its path, built from a path of the command line.
        status: "finished", "failed", "interrupted", "running", "killed" (run.json says "running", but no process works
            in the folder) or "pruned" (stopped by the sweep that it belongs to).
        document: The content of its run.json. Its evaluation is that of `split`.
        split: "eval": the scores are those of the evaluation; "predict": those of the predictions for --test_file.
    """

    folder: Path
    status: str
    document: RunDocument
    split: SplitName = "eval"

    @property
    def task(self) -> str:
        """The task: "qa", "ner" or "mlm"."""
        return TASKS[self.document.script]

    @property
    def trained(self) -> bool:
        """Whether the run was asked to train, and not only to evaluate."""
        return self.document.options.get("do_train") is True

    @property
    def setup(self) -> str:
        """The adapter setup as text, such as "Stack[mlm, qa]"."""
        name = self.document.setup or "unknown"
        return name if self.trained else f"{name}, not trained"

    @property
    def seed(self) -> object:
        """The value of the option `seed`."""
        return self.document.options.get("seed")

    @property
    def folds(self) -> int | None:
        """The number of folds, if the run is a whole cross-validation."""
        folds = self.document.options.get("folds")
        return folds if isinstance(folds, int) and self.fold is None else None

    @property
    def fold(self) -> Fold | None:
        """The fold, if the run is that of a single one."""
        options = self.document.options
        fold = options.get("fold")
        if not isinstance(fold, int):
            return None
        share, seed = float(options["fold_choosing_share"]), int(options["seed"])
        return Fold(fold, FoldScheme(int(options["folds"]), options["fold_by"], share, seed), self.split)

    @property
    def version_2(self) -> bool:
        """Whether the run was evaluated as SQuAD v2.0."""
        return self.document.options.get("version_2_with_negative") is True

    @property
    def limited_split(self) -> str:
        """The split whose file is evaluated; a cross-validation divides that of the training."""
        return self.split if self.document.options.get("folds") is None else "train"

    @property
    def limit(self) -> int | None:
        """The number of examples to which the user limited the evaluated file; None: no limit."""
        limit = self.document.options.get(f"max_{self.limited_split}_samples")
        return limit if isinstance(limit, int) else None

    @property
    def set_aside(self) -> float | None:
        """The share of the evaluation file that the run calibrated on, and did not evaluate; None: no share."""
        share = self.document.options.get("calibration_share") if self.split == "eval" else None
        return share if isinstance(share, float) else None

    @property
    def finished(self) -> bool:
        """Whether the run reached its end."""
        return self.status == "finished"

    @property
    def evaluated(self) -> Evaluated:
        """What the run was evaluated on."""
        source = self.document.data.get("eval")
        if source is None:
            return Evaluated(self.task, "", None, ())
        options = self.document.options
        conditions = [str(self.version_2)] if self.task == "qa" else []
        if self.set_aside is not None:
            conditions.append(f"without {self.set_aside} to calibrate on")
        if self.fold is not None:
            conditions.append(str(self.fold))
        if self.task == "mlm":  # perplexity is by token, so by the vocabulary of the base
            conditions += [str(options.get(name)) for name in ("model_name_or_path", "block_size", "mlm_probability")]
        names = [*source.paths, source.dataset, source.config, source.split, source.held_out_of]
        count = source.questions or source.sentences or source.blocks
        return Evaluated(self.task, source.sha256 or " ".join(filter(None, names)), count, tuple(conditions))

    def describe_evaluation(self) -> str:
        """Return `evaluated` for people, such as "200 questions of dev.json (--max_eval_samples 200)"."""
        source, options = self.document.data.get("eval"), self.document.options
        if source is None:
            return "nothing that run.json names"
        what = {"qa": "questions", "ner": "sentences", "mlm": "blocks of text"}[self.task]
        count = self.evaluated.size
        names = [PurePath(path).name for path in source.paths] or [
            name for name in (source.dataset, source.config, source.split) if name
        ]
        text = f"{what if count is None else f'{count:,} {what}'} "
        text += f"held out of {PurePath(source.held_out_of).name}" if source.held_out_of else f"of {' '.join(names)}"
        if self.fold is not None:
            use = "that choose the epoch of" if self.split == "eval" else "of"
            text += f" {use} fold {self.fold.number} of {self.fold.scheme.folds}"
        if self.limit is not None:
            text += f" (--max_{self.limited_split}_samples {self.limit})"
        if self.set_aside is not None:
            text += f" (without --calibration_share {self.set_aside:g})"
        if self.task == "mlm":
            return f"{text}, tokens of {options.get('model_name_or_path')}"
        return f"{text}, scored as SQuAD v2.0" if self.version_2 else text

    def evaluation(self) -> Evaluation:
        """Return the final evaluation. Without it, return the best one by F1 or by loss, or an empty one.

        That of the predictions for --test_file is empty if not all of its questions have gold answers.
        """
        if self.document.metrics is not None and self.document.metrics.eval is not None:
            return self.document.metrics.eval
        if self.split != "eval":  # the history is of other questions
            return Evaluation()
        with_f1 = [entry for entry in self.document.history if is_number(entry.eval_f1)]
        if with_f1:
            return max(with_f1, key=lambda entry: entry.eval_f1 or 0.0)
        with_loss = [entry for entry in self.document.history if is_number(entry.eval_loss)]
        return min(with_loss, key=lambda entry: entry.eval_loss or 0.0, default=Evaluation())

    def best_epoch(self) -> float | None:
        """Return the epoch of the best checkpoint; None without training or without evaluations during it."""
        best = self.document.best
        epochs = {entry.step: entry.epoch for entry in self.document.history}
        return epochs.get(best.step) if best is not None and best.step is not None else None

    def train_seconds(self) -> float | None:
        """Return the training time as `TrainMetrics` defines it."""
        metrics = self.document.metrics
        return metrics.train.train_runtime if metrics is not None and metrics.train is not None else None

    def trainable(self) -> int | None:
        """Return the number of parameters that were trained."""
        if self.document.parameters is None:
            return None
        return self.document.parameters.trainable if self.trained else 0

    def locate(self, path: str) -> Path | None:
        """Return a path of the run's command line as seen from the current folder; None if nothing exists there.

        A relative path is tried from the folder in which the run was started, then from the current one.
        """
        output_dir, folder = PurePath(str(self.document.options.get("output_dir"))), self.folder.resolve()
        bases = [Path()]
        if not output_dir.is_absolute() and folder.parts[-len(output_dir.parts) :] == output_dir.parts:
            bases.insert(0, Path(*folder.parts[: -len(output_dir.parts)]))
        return next((base / path for base in bases if (base / path).exists()), None)


# Results of a run by their names in JSON; scores in percent.
MEASURES: dict[str, Callable[[Run], float | None]] = {
    "f1": lambda run: run.evaluation().eval_f1,
    "exact": lambda run: run.evaluation().eval_exact,
    "perplexity": lambda run: run.evaluation().eval_perplexity,
    "loss": lambda run: run.evaluation().eval_loss,
    "best_epoch": Run.best_epoch,
    "train_seconds": Run.train_seconds,
    "memory_bytes": lambda run: run.document.result.memory_bytes,
    "saved_bytes": lambda run: run.document.result.saved_bytes,
}


class MeanStd(NamedTuple):
    """Mean, None without values, and sample standard deviation (n - 1), None for fewer than two values."""

    mean: float | None
    deviation: float | None


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only, or one run that did not finish; a row of the table.

    Attributes:
        number: Row in the table, from 1.
        runs: In the order of their seeds, at least one.
        settings: `comparable_settings` of the runs.
        name: Short name of the folder of the first run, different for each group; "+2" says that there are 2 more runs.
        paired: What its answers say; None if they are not read, or not with the questions of the others of its table.
        not_compared: Why not, for people; empty if its answers were read, or if it is never compared.
    """

    number: int
    runs: list[Run]
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
        """Return mean and standard deviation of one of `MEASURES`."""
        return mean_std([MEASURES[measure](run) for run in self.runs])

    def trainable_percent(self) -> float | None:
        """Return the trained parameters in percent of the base model with its head."""
        parameters, trainable = self.first.document.parameters, self.first.trainable()
        if parameters is None or trainable is None or not parameters.base:
            return None
        return 100 * trainable / parameters.base


def is_number(value: float | None) -> TypeGuard[float]:
    """Return whether a value is there and finite."""
    return value is not None and math.isfinite(value)


def mean_std(values: Sequence[float | None]) -> MeanStd:
    """Return mean and standard deviation of the finite values."""
    finite = [value for value in values if is_number(value)]
    if not finite:
        return MeanStd(None, None)
    return MeanStd(statistics.fmean(finite), statistics.stdev(finite) if len(finite) > 1 else None)


def find_runs(paths: Sequence[Path], split: SplitName = "eval") -> tuple[list[Run], list[str]]:
    """Find all runs in and under some folders; a path may also be that of a run.json.

    Args:
        paths: Of the folders.
        split: Whose scores are read; see `Run`.

    Returns:
        The runs by folder, each once, and a problem for each run.json that cannot be used.

    Raises:
        UserError: if a folder does not exist or contains no run, or no run.json can be used.
    """
    files = {path: list(_run_files(path)) for path in paths}
    missing = [
        f"{path}: {'holds no ' + RUN_FILE if path.exists() else 'no such folder'}; "
        "give a run's folder, or one that holds runs"
        for path, run_files in files.items()
        if not run_files
    ]
    if missing:
        raise UserError(missing)
    unique = {file.resolve(): file for run_files in files.values() for file in run_files}
    runs, problems = [], []
    for file in tqdm(unique.values(), desc="runs", unit="run", leave=False, disable=None):
        try:
            runs.append(read_run(file.parent, split))
        except UserError as error:
            problems += error.problems
    if not runs:
        raise UserError(problems[:MAX_LISTED_PROBLEMS])
    return runs, problems


def _run_files(path: Path) -> Iterator[Path]:
    """Yield the run.json files in and under a folder, sorted by folder."""
    if path.name == RUN_FILE and path.is_file():
        yield path
        return
    for folder, subfolders, files in os.walk(path):
        subfolders.sort()
        if RUN_FILE in files:
            yield Path(folder) / RUN_FILE
            # The run is all of its folds.
            subfolders[:] = [name for name in subfolders if not FOLD_NAME.fullmatch(name)]


def read_run(folder: Path, split: SplitName = "eval") -> Run:
    """Read the run in a folder, with the scores of a split.

    Raises:
        UserError: if its run.json cannot be read, or does not come from a training script.
    """
    path = folder / RUN_FILE
    try:
        content = read_json(path)
        document = msgspec.convert(content if split == "eval" else _with_evaluation_of(split, content), RunDocument)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: does not come from a training script: {error}") from error
    if document.script not in TASKS:
        raise UserError(f"{path}: script is {document.script!r}; must be one of {', '.join(TASKS)}")
    return Run(folder, _status(folder, document.status), document, split)


def _with_evaluation_of(split: SplitName, content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a run.json with data and scores of a split in place of those of the evaluation."""
    data, metrics = ({**(content.get(name) or {})} for name in ("data", "metrics"))
    for section in (data, metrics):
        section.pop("eval", None)
    if split in data:
        data["eval"] = data.pop(split)
    if split in metrics:
        metrics["eval"] = {f"eval_{name.removeprefix(f'{split}_')}": value for name, value in metrics[split].items()}
    return content | {"data": data, "metrics": metrics}


def _status(folder: Path, recorded: str) -> str:
    """Return the status of a run, corrected by what its run.json cannot know."""
    status = "killed" if recorded == "running" and not is_locked(folder) else recorded
    resolved = folder.resolve()
    for parent in resolved.parents if status != "finished" else ():
        relative = resolved.relative_to(parent).parts
        if any(PurePath(trial).parts[-len(relative) :] == relative for trial in _pruned_trials(parent)):
            return "pruned"
    return status


@cache
def _pruned_trials(folder: Path) -> list[str]:
    """Return the folders of the pruned trials of the sweep in a folder."""
    try:
        trials = msgspec.convert(read_json(folder / SWEEP_FILE).get("trials"), list[dict[str, Any]])
    except (UserError, msgspec.ValidationError):
        return []  # no sweep.json, or a damaged one, which sweep_qa.py reports
    return [str(trial.get("folder")) for trial in trials if str(trial.get("state")).lower() == "pruned"]


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
            settings[name] = [_resolve_reference(run, str(word), depth) for word in value]
        elif isinstance(value, str):
            settings[name] = _resolve_reference(run, value, depth)
    settings |= {f"{split}_data": source.sha256[:12] for split, source in run.document.data.items() if source.sha256}
    return settings


def _resolve_reference(run: Run, word: str, depth: int) -> str:
    """Replace the path in PATH or NAME=PATH by a digest of the settings of the run there, if there is a run."""
    name, separator, path_text = word.rpartition("=")
    path = run.locate(path_text)
    if path is None or depth == MAX_CHAIN:
        return word
    for folder in (path, path.parent):
        if (folder / RUN_FILE).is_file():
            try:
                settings = comparable_settings(read_run(folder), depth + 1)
            except UserError:
                return word
            return f"{name}{separator}run {_digest(settings)}"
    return word


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def group_runs(runs: Sequence[Run]) -> tuple[list[Group], list[str]]:
    """Group finished runs over seeds; each unfinished run is a group of its own.

    Of several runs with the same settings and seed, all but the last in the sequence are left out.

    Returns:
        The groups and a note for each run that is left out. Question answering comes first, then named entities, then
        language adapters; within them groups with the same `Evaluated` are together, the most questions first; within
        those the finished ones come first, sorted by F1 or perplexity.
    """
    # The key of a group is a digest of the settings, or the folder of an unfinished run.
    settings: dict[str | Path, dict[str, Any]] = {}
    repeats: dict[tuple[str | Path, str], list[Run]] = {}  # by group and seed
    for run in runs:
        run_settings = comparable_settings(run)
        key = _digest(run_settings) if run.finished else run.folder
        settings[key] = run_settings
        repeats.setdefault((key, str(run.seed)), []).append(run)
    notes = [
        f"{run.folder}: left out, because {repeated[-1].folder} has the same options and seed"
        for repeated in repeats.values()
        for run in repeated[:-1]
    ]
    members: dict[str | Path, list[Run]] = {}
    for (key, _), repeated in repeats.items():
        members.setdefault(key, []).append(repeated[-1])
    groups = [Group(0, sorted(members[key], key=_seed_order), settings[key], "") for key in members]
    groups.sort(key=_rank)
    names = short_names([group.first for group in groups])
    return [
        Group(number, group.runs, group.settings, name + (f" +{len(group.runs) - 1}" if len(group.runs) > 1 else ""))
        for number, (group, name) in enumerate(zip(groups, names, strict=True), 1)
    ], notes


def same_evaluation(groups: Sequence[Group]) -> list[list[Group]]:
    """Divide sorted groups into those whose scores can be compared."""
    return [list(members) for _, members in groupby(groups, key=lambda group: group.first.evaluated)]


def short_names(runs: Sequence[Run]) -> list[str]:
    """Return the shortest ends of the runs' folders that differ, with derived names cut to the parts that differ."""
    ends = shortest_ends([str(run.folder) for run in runs])
    names = []
    for run, end in zip(runs, ends, strict=True):
        parent, _, name = end.rpartition("/")
        if DERIVED_NAME.match(name):
            siblings = [path.rpartition("/")[2] for path in ends if path != end and path.rpartition("/")[0] == parent]
            others = [_name_parts(run, sibling) for sibling in siblings if DERIVED_NAME.match(sibling)]
            name = _shorten_derived(_name_parts(run, name), others)
        names.append(f"{parent}/{name}" if parent else name)
    return names if len({*names}) == len({*ends}) else ends


def _shorten_derived(parts: list[str], siblings: list[list[str]]) -> str:
    """Return the first part of a name, the learning rate, and each further one that tells it from siblings."""

    def has(sibling: list[str], part: str) -> bool:
        return part in sibling or part.startswith(sibling[-2])  # a name that is too long was cut before its last part

    name, end = parts[0], 0
    siblings = [sibling for sibling in siblings if has(sibling, parts[0])]
    for index, part in enumerate(parts):
        if not all(has(sibling, part) for sibling in siblings):
            name += f"_{part}" if index == end + 1 else f"…{part}"
            end = index
            siblings = [sibling for sibling in siblings if has(sibling, part)]
    return name


def _name_parts(run: Run, name: str) -> list[str]:
    """Split a derived name into options with their values."""
    known = sorted((option for option in run.document.options if "_" in option), key=len, reverse=True)
    return re.findall(rf"(?:{'|'.join(map(re.escape, known))})[^_]*|[^_]+", name)


def shortest_ends(paths: Sequence[str]) -> list[str]:
    """Return for each path its last parts, as few as tell it from the other paths."""
    ends = []
    for path in paths:
        parts = PurePath(path).parts
        others = [PurePath(other).parts for other in set(paths) - {path}]
        count = next((n for n in range(1, len(parts)) if not any(o[-n:] == parts[-n:] for o in others)), len(parts))
        ends.append(str(PurePath(*parts[-count:])))
    return ends


def _seed_order(run: Run) -> tuple[bool, int, str]:
    return (False, run.seed, "") if isinstance(run.seed, int) else (True, 0, str(run.seed))


def _rank(group: Group) -> tuple[int, int, str, bool, float, float, str]:
    f1, perplexity, evaluated = group.mean_std("f1").mean, group.mean_std("perplexity").mean, group.first.evaluated
    return (
        list(TASKS.values()).index(evaluated.task),
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

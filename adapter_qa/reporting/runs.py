"""Find runs, and check and read their run.json."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeGuard

import msgspec
from tqdm.auto import tqdm

from adapter_qa.config.run_configs import SplitName
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json
from adapter_qa.data.partition import FoldScheme
from adapter_qa.models.tasks import TASK_OF_SCRIPT, TASKS, Task
from adapter_qa.runs.layout import FOLD_NAME, RUN_FILE, SWEEP_FILE
from adapter_qa.runs.lock import is_locked
from adapter_qa.runs.run_document import RunDocument

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


class TrainMetrics(msgspec.Struct):
    """Training time in seconds; in a resumed run, also the time before the interruption."""

    train_runtime: float | None = None


class Metrics(msgspec.Struct, frozen=True):
    """Final results of the evaluation and of the training."""

    eval: Evaluation | None = None
    train: TrainMetrics | None = None


class Scores(msgspec.Struct):
    """What a report needs of the metrics in a run.json, with those of `Run.split` as the final evaluation.

    Attributes:
        history: evaluations while training.
        losses: training losses.
        metrics: final results.
    """

    history: list[Evaluation] = []
    losses: list[TrainingLoss] = []
    metrics: Metrics = Metrics()


class Evaluated(NamedTuple):
    """What a run was evaluated on. Scores can be compared only if all of this is equal.

    Attributes:
        task: The task of its script.
        source: Fingerprint of the files, or the names of files or data set; empty without an evaluation.
        size: Number of questions, sentences or blocks; None if it was not recorded.
        conditions: The other options that change what the score of an evaluation means.
    """

    task: Task
    source: str
    size: int | None
    conditions: tuple[str, ...]


class Fold(NamedTuple):
    """A fold of a cross-validation, counted from 1, and the split whose scores are read."""

    number: int
    scheme: FoldScheme
    split: SplitName


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        folder: Its path, built from a path of the command line.
        status: "finished", "failed", "interrupted", "running", "killed" (run.json says "running", but no process works
            in the folder) or "pruned" (stopped by the sweep that it belongs to).
        document: The content of its run.json. Its evaluation is that of `split`.
        scores: The metrics in it.
        split: "eval": the scores are those of the evaluation; "predict": those of the predictions for --test_file.
    """

    folder: Path
    status: str
    document: RunDocument
    scores: Scores
    split: SplitName = "eval"

    @property
    def task(self) -> Task:
        """The task of its script."""
        return TASK_OF_SCRIPT[self.document.script]

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
    def history_is_of_evaluation(self) -> bool:
        """Whether the evaluations while training are of the same questions as the scores."""
        return self.split == "eval"

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
        names = [*source.paths, *source.dataset_words, source.held_out_of]
        count = source.questions or source.sentences or source.blocks
        return Evaluated(self.task, source.sha256 or " ".join(filter(None, names)), count, tuple(conditions))

    def describe_evaluation(self) -> str:
        """Return `evaluated` for people, such as "200 questions of dev.json (--max_eval_samples 200)"."""
        source, options = self.document.data.get("eval"), self.document.options
        if source is None:
            return "nothing that run.json names"
        what = TASKS[self.task].examples
        count = self.evaluated.size
        names = [PurePath(path).name for path in source.paths] or source.dataset_words
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
        if self.scores.metrics.eval is not None:
            return self.scores.metrics.eval
        if not self.history_is_of_evaluation:
            return Evaluation()
        with_f1 = [entry for entry in self.scores.history if is_number(entry.eval_f1)]
        if with_f1:
            return max(with_f1, key=lambda entry: entry.eval_f1 or 0.0)
        with_loss = [entry for entry in self.scores.history if is_number(entry.eval_loss)]
        return min(with_loss, key=lambda entry: entry.eval_loss or 0.0, default=Evaluation())

    def best_epoch(self) -> float | None:
        """Return the epoch of the best checkpoint; None without training or without evaluations during it."""
        best = self.document.best
        epochs = {entry.step: entry.epoch for entry in self.scores.history}
        return epochs.get(best.step) if best is not None and best.step is not None else None

    def train_seconds(self) -> float | None:
        """Return the training time as `TrainMetrics` defines it."""
        train = self.scores.metrics.train
        return train.train_runtime if train is not None else None

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


def is_number(value: float | None) -> TypeGuard[float]:
    """Return whether a value is there and finite."""
    return value is not None and math.isfinite(value)


# Results of a run by their names in JSON; scores in percent.
SEED_MEASURES: dict[str, Callable[[Run], float | None]] = {
    "f1": lambda run: run.evaluation().eval_f1,
    "exact": lambda run: run.evaluation().eval_exact,
    "perplexity": lambda run: run.evaluation().eval_perplexity,
    "loss": lambda run: run.evaluation().eval_loss,
    "best_epoch": Run.best_epoch,
    "train_seconds": Run.train_seconds,
    "memory_bytes": lambda run: run.document.result.memory_bytes,
    "saved_bytes": lambda run: run.document.result.saved_bytes,
}


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
    """Yield the run.json files in and under a folder, sorted by folder; those in linked folders come last."""
    if path.name == RUN_FILE and path.is_file():
        yield path
        return
    seen = set(path.resolve().parents)  # a link to one of these would leave the folder
    linked = [path]
    while linked:
        for folder, subfolders, files in os.walk(linked.pop(0)):
            resolved = Path(folder).resolve()
            if resolved in seen:
                subfolders.clear()
                continue
            seen.add(resolved)
            subfolders.sort()
            if RUN_FILE in files:
                yield Path(folder) / RUN_FILE
                # The run is all of its folds.
                subfolders[:] = [name for name in subfolders if not FOLD_NAME.fullmatch(name)]
            linked += [Path(folder) / name for name in subfolders if (Path(folder) / name).is_symlink()]


class _Splits(msgspec.Struct):
    """Data and scores in a run.json by split."""

    data: dict[str, Any] | None = None
    metrics: dict[str, dict[str, Any]] | None = None


def read_run(folder: Path, split: SplitName = "eval") -> Run:
    """Read the run in a folder, with the scores of a split.

    Raises:
        UserError: if its run.json cannot be read, or does not come from a training script.
    """
    path = folder / RUN_FILE
    try:
        content = read_json(path)
        if split != "eval":
            content = _with_evaluation_of(split, content, msgspec.convert(content, _Splits))
        document, scores = msgspec.convert(content, RunDocument), msgspec.convert(content, Scores)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise UserError(f"{path}: does not come from a training script: {error}") from error
    if document.script not in TASK_OF_SCRIPT:
        raise UserError(f"{path}: script is {document.script!r}; must be one of {', '.join(TASK_OF_SCRIPT)}")
    return Run(folder, _status(folder, document.status), document, scores, split)


def _with_evaluation_of(split: SplitName, content: dict[str, Any], splits: _Splits) -> dict[str, Any]:
    """Return the content of a run.json with data and scores of a split in place of those of the evaluation."""
    data, metrics = {**(splits.data or {})}, {**(splits.metrics or {})}
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

"""Cross-validation: a run for each fold, one after the other in this process, and the scores of all answers together.

A fold is a normal run in a folder of its own (`runs.layout.fold_folder`): it trains on its "train" questions, chooses
the epoch on its "eval" questions, and answers its "predict" questions, those of the fold, after that. The folder above
gets the answers of all folds as if one run had evaluated on all questions.
"""

from __future__ import annotations

import gc
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from adapter_qa.config.options import QADataOptions
from adapter_qa.config.run_configs import QARunConfig
from adapter_qa.core.errors import RunError, UserError, run_each
from adapter_qa.core.files import json_lines, read_bytes, write_chunks, write_json
from adapter_qa.core.messages import print_main
from adapter_qa.core.process_state import restored_process
from adapter_qa.core.readable import duration, metric_label, metrics_text, script_command
from adapter_qa.data.bootstrap import FEW_CONTEXTS, MIN_CONTEXTS, context_numbers, estimate, resampled_means
from adapter_qa.data.questions import Question
from adapter_qa.data.squad_metrics import Score, evaluation_metrics, question_scores
from adapter_qa.models.base_config import read_base_config
from adapter_qa.runs.layout import (
    ALL_RESULTS_FILE,
    RUN_FILE,
    fold_folder,
    nbest_file,
    null_odds_file,
    predictions_file,
    results_file,
)
from adapter_qa.runs.lock import is_locked, released_locks
from adapter_qa.runs.run_document import DataSource, RunDocument, read_run_document
from adapter_qa.training import workflow
from adapter_qa.training.folds import GROUP_COUNTS, Fold, load_all_questions, load_folds, make_folds
from adapter_qa.training.run_context import RunContext
from adapter_qa.training.run_start import decide_setup, start_run
from adapter_qa.training.run_summary import aligned

Content = TypeVar("Content")
PARTS = {"train": "trains on", "eval": "chooses on", "predict": "is scored on"}
FOLD_MEASURES = Score._fields
REMEDY = "remove that folder, and the same command runs the fold again"


class _Candidate(msgspec.Struct):
    text: str


@dataclass(frozen=True)
class _FoldResult:
    """What a finished fold has left.

    Attributes:
        answers: text by question id.
        candidates: by question id, as the n-best file has them.
        null_odds: by question id; empty for SQuAD v1.
    """

    fold: Fold
    record: RunDocument
    answers: dict[str, str]
    candidates: dict[str, msgspec.Raw]
    null_odds: dict[str, float]

    @property
    def best_epoch(self) -> float | None:
        """The epoch of the weights, if one was chosen."""
        return self.record.best.epoch if self.record.best is not None else None


@dataclass(frozen=True)
class _Pooled:
    """All questions, and their answers as `_FoldResult` has them."""

    questions: list[Question]
    answers: dict[str, str]
    candidates: dict[str, msgspec.Raw]
    null_odds: dict[str, float]


def run_folds(run: RunContext[QARunConfig], config: QARunConfig, run_fold: Callable[[QARunConfig], object]) -> None:
    """Run the folds that are not finished, and score all answers together.

    Args:
        run: the cross-validation, as it was begun.
        config: its options as they were given.
        run_fold: runs one fold; its options name the fold.

    Raises:
        UserError: a fold was begun with other options or questions than it has now; nothing is written then.
        ReportedError: a fold raised it. The same command continues with that fold.
    """
    folder = run.record.folder
    if workflow.is_finished(run) or folder is None:
        return
    questions, source = load_all_questions(config)
    folds = make_folds(config, questions, source)
    training = replace(config.training, output_dir=str(folder), overwrite_output_dir=False)  # the folder is new by then
    configs = [
        replace(config, data=replace(config.data, fold=fold.number), training=training, given=config.given | {"fold"})
        for fold in folds
    ]
    if not run.record.replaces:
        run_each(
            partial(_check_begun_fold, run.record.document, fold, fold_config, fold_folder(folder, fold.number))
            for fold, fold_config in zip(folds, configs, strict=True)
        )
    run.record.begin()
    with workflow.failure_recorded(run):
        workflow.write_options(run)
        document, source.questions = run.record.document, len(questions)
        document.setup, document.data = run.setup_name, {"train": source, "eval": source}
        run.record.write()
        print_main(f"{document.script}\n{plan_text(config, folds, folder)}")
        for fold, fold_config in zip(folds, configs, strict=True):
            print_main(f"\nfold {fold.number} of {len(folds)}")
            with released_locks(), restored_process(sys.argv[0]):
                run_fold(fold_config)
                gc.collect()  # trainer and model refer to each other, and the next fold may need their memory
        _pool(run, folds, questions, folder)


def _check_begun_fold(document: RunDocument, fold: Fold, config: QARunConfig, path: Path) -> None:
    """Compare a fold that was begun, if it was, with its present options and questions.

    If another process works there, it is compared when its turn comes; it may be finished by then.

    Args:
        document: of the cross-validation.
        fold: the questions.
        config: the options of the fold.
        path: the folder of the fold.

    Raises:
        UserError: options or questions differ.
        RunError: the run.json of the fold is damaged.
    """
    if not (path / RUN_FILE).is_file() or is_locked(path):
        return
    record = _read_record(path)
    if record.status == "finished" and not _has_scored(record, fold):
        raise UserError(
            f"{path}: was not finished on the present questions of fold {fold.number}; give the --train_file and "
            "the options of then, another --output_dir, or --overwrite_output_dir to start anew"
        )
    with released_locks(), restored_process(sys.argv[0]), redirect_stderr(StringIO()):  # the run prints its notes
        base_config = read_base_config(config.model)
        setup = decide_setup("qa", config, base_config)
        sources = {name: split.source for name, split in fold.splits.items()}
        start_run(document.script, document.command[1:], config, setup, base_config, sources)


def _has_scored(record: RunDocument, fold: Fold) -> bool:
    """Return whether a run was scored on the present questions of a fold."""
    answered, expected = record.data.get("predict", DataSource()), fold.splits["predict"].source
    return (answered.sha256, answered.groups_sha256) == (expected.sha256, expected.groups_sha256)


def print_folds(config: QARunConfig) -> list[dict[str, Any]]:
    """Print the folds, and return their counts of questions and groups by split."""
    folds = load_folds(config)
    print_main(plan_text(config, folds, None))
    return [{"fold": fold.number, **fold.counts()} for fold in folds]


def plan_text(config: QARunConfig, folds: Sequence[Fold], folder: Path | None) -> str:
    """Return the lines that say how the questions are divided."""
    by = folds[0].by
    unit, other = GROUP_COUNTS[by], "context" if by == "article" else "article"
    scored = [fold.counts()["predict"] for fold in folds]
    questions, groups = sum(counts["questions"] for counts in scored), sum(counts[unit] for counts in scored)
    decided = "" if config.data.fold_by is not None else f"; --fold_by {other} decides otherwise"
    rows = {
        "folds": f"{len(folds)} by {by}{decided}",
        "data": f"{questions:,} questions of {groups:,} {unit}; below, {unit} are in brackets",
    }
    for fold in folds:
        parts = [f"{PARTS[name]} {of['questions']:,} ({of[unit]:,})" for name, of in fold.counts().items()]
        rows[f"fold {fold.number}"] = ", ".join(parts)
    return aligned(rows if folder is None else rows | {"folder": str(folder)})


# ---------------------------------------------------------------- the answers of all folds


def _pool(run: RunContext[QARunConfig], folds: Sequence[Fold], questions: list[Question], folder: Path) -> None:
    """Write answers and scores of all questions, mark the run as finished, and print the result.

    Raises:
        RunError: the questions, or the folder of a fold, have changed.
    """
    version_2 = run.config.data.version_2_with_negative
    results = [_read_fold(fold, fold_folder(folder, fold.number), version_2) for fold in folds]
    pooled = _Pooled(
        questions,
        {key: text for result in results for key, text in result.answers.items()},
        {key: entries for result in results for key, entries in result.candidates.items()},
        {key: odds for result in results for key, odds in result.null_odds.items()},
    )
    _write_answers(pooled, folder)
    metrics = _scores(pooled, run.config.data) | _intervals(pooled, version_2) | _over_folds(results)
    metrics = {f"eval_{name}": value for name, value in metrics.items()} | {"eval_questions": len(questions)}
    train = {"train_runtime": sum(result.record.metrics["train"]["train_runtime"] for result in results)}
    for split, values in (("train", train), ("eval", metrics)):
        write_json(folder / results_file(split), values)
    write_json(folder / ALL_RESULTS_FILE, train | metrics)
    document, first = run.record.document, results[0].record
    document.parameters, document.trained_on = first.parameters, first.trained_on
    document.folds = [_fold_document(result) for result in results]
    document.metrics = {"train": train, "eval": metrics}
    run.record.finish()
    print_main(f"\n{document.script}: finished\n{_result_text(document, results, pooled, folder)}")


def _read_fold(fold: Fold, folder: Path, version_2: bool) -> _FoldResult:
    """Read what a finished fold has left.

    Raises:
        RunError: if the fold is not finished, or a file is damaged or of other questions.
    """
    record = _read_record(folder)
    if record.status != "finished" or not _has_scored(record, fold):
        raise RunError(
            f"{folder}: was not finished on the present questions of fold {fold.number}; --overwrite_output_dir "
            "starts anew"
        )
    answers = _read(folder / predictions_file("predict"), dict[str, str])
    candidates = _read(folder / nbest_file("predict"), dict[str, msgspec.Raw])
    null_odds = _read(folder / null_odds_file("predict"), dict[str, float]) if version_2 else {}
    ids = {question.id for question in fold.splits["predict"].questions}
    if answers.keys() != ids or candidates.keys() != ids or (version_2 and null_odds.keys() != ids):
        raise RunError(f"{folder}: does not answer the questions of fold {fold.number}; {REMEDY}")
    return _FoldResult(fold, record, answers, candidates, null_odds)


def _read_record(folder: Path) -> RunDocument:
    try:
        return read_run_document(folder)  # earlier versions wrote NaN, which `_read` refuses
    except UserError as error:
        raise RunError(f"{folder / RUN_FILE}: cannot be read ({error}); {REMEDY}") from error


def _read(path: Path, kind: type[Content]) -> Content:
    try:
        return msgspec.json.decode(read_bytes(path), type=kind)
    except (UserError, msgspec.DecodeError) as error:
        raise RunError(f"{path}: cannot be read ({error}); {REMEDY}") from error


def _write_answers(pooled: _Pooled, folder: Path) -> None:
    """Write the answers of all folds, in the order of the questions."""
    files: dict[str, Mapping[str, object]] = {
        predictions_file("eval"): pooled.answers,
        nbest_file("eval"): pooled.candidates,
    }
    if pooled.null_odds:
        files[null_odds_file("eval")] = pooled.null_odds
    for name, by_id in files.items():
        write_chunks(folder / name, json_lines((question.id, by_id[question.id]) for question in pooled.questions))


def _scores(pooled: _Pooled, options: QADataOptions) -> dict[str, float]:
    """Return the scores that an evaluation of all questions has, in percent."""
    decoder = msgspec.json.Decoder(list[_Candidate])
    texts = [[entry.text for entry in decoder.decode(pooled.candidates[question.id])] for question in pooled.questions]
    return evaluation_metrics(
        pooled.answers,
        texts,
        pooled.questions,
        kept=options.n_best_size,
        null_odds=pooled.null_odds if options.version_2_with_negative else None,
    )


def _intervals(pooled: _Pooled, version_2: bool) -> dict[str, float]:
    """Return the ends of the intervals of 95 % of the scores; empty if there are too few contexts."""
    contexts = context_numbers([question.context for question in pooled.questions])
    if max(contexts) + 1 < MIN_CONTEXTS:
        return {}
    scores = 100 * np.array(question_scores(pooled.answers, pooled.questions, version_2=version_2))
    means = resampled_means(scores, contexts)
    intervals = {name: estimate(0.0, means[:, column]) for column, name in enumerate(FOLD_MEASURES)}
    return {f"{name}_{end}": getattr(interval, end) for name, interval in intervals.items() for end in ("low", "high")}


def _over_folds(results: Sequence[_FoldResult]) -> dict[str, float]:
    """Return mean and standard deviation (n - 1) of the scores over folds, and the mean loss over their windows."""
    folds = [result.record.metrics["predict"] for result in results]
    values: dict[str, float] = {}
    for name in FOLD_MEASURES:
        scores = [fold[f"predict_{name}"] for fold in folds]
        values |= {f"{name}_fold_mean": statistics.fmean(scores), f"{name}_fold_deviation": statistics.stdev(scores)}
    losses = [(fold["predict_loss"], fold["predict_windows"]) for fold in folds if "predict_loss" in fold]
    if len(losses) == len(folds):
        values["loss"] = sum(loss * windows for loss, windows in losses) / sum(windows for _, windows in losses)
    return values


def _fold_document(result: _FoldResult) -> dict[str, Any]:
    """Return what run.json tells about a fold."""
    fold, scores = result.fold, result.record.metrics["predict"]
    parts = {
        split: counts | {"groups_sha256": fold.splits[split].source.groups_sha256}
        for split, counts in fold.counts().items()
    }
    return {"fold": fold.number, **parts, **{name: scores[f"predict_{name}"] for name in FOLD_MEASURES}} | {
        "best_epoch": result.best_epoch
    }


def _result_text(document: RunDocument, results: Sequence[_FoldResult], pooled: _Pooled, folder: Path) -> str:
    """Return the lines that are printed at the end."""
    metrics = document.metrics["eval"]
    contexts = len({question.context for question in pooled.questions})
    rows = {metric_label(name): _score_text(metrics, name) for name in reversed(FOLD_MEASURES)}
    if "eval_f1_low" in metrics:
        few = "; with so few contexts they are too narrow" if contexts < FEW_CONTEXTS else ""
        rows["intervals"] = f"95 %, bootstrap over {contexts:,} contexts with their questions{few}"
    for result in results:
        scores = {name: result.record.metrics["predict"][f"predict_{name}"] for name in FOLD_MEASURES}
        chosen = "" if result.best_epoch is None else f"  best epoch {result.best_epoch:g}"
        rows[f"fold {result.fold.number}"] = metrics_text(scores, "f1") + chosen
    seconds, train = document.times.seconds or 0.0, document.metrics["train"]["train_runtime"]
    rows["questions"] = (
        f"{len(pooled.questions):,}, each answered by a model that has not seen its {results[0].fold.by}"
    )
    rows["time"] = f"{duration(seconds)}; the trainings took {duration(train)}"
    rows["folder"] = str(folder)
    report = f"{script_command('report_qa', 'report')} {shlex.quote(str(folder))} --output_dir report"
    return f"{aligned(rows)}\nnext:\n  {report}"


def _score_text(metrics: Mapping[str, float], name: str) -> str:
    """Return a score with its interval, and mean and deviation over folds."""
    keys = ("", "_low", "_high", "_fold_mean", "_fold_deviation")
    values = {key: f"{metrics[f'eval_{name}{key}']:.1f}" for key in keys if f"eval_{name}{key}" in metrics}
    interval = f" [{values['_low']}, {values['_high']}]" if "_low" in values else ""
    return f"{values['']}{interval}; folds {values['_fold_mean']} ± {values['_fold_deviation']}"

"""Questions and windows of the splits of a question answering run.

torch and transformers are imported only when windows are made, so that errors in the files are reported at once.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
from msgspec.structs import replace

from adapter_qa.config.run_configs import QARunConfig, Split
from adapter_qa.core.errors import UserError, run_each
from adapter_qa.core.files import expand_paths, files_fingerprint
from adapter_qa.core.messages import log_note
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.questions import Question, is_aligned
from adapter_qa.data.readers.dataset_library import dataset_source
from adapter_qa.data.readers.squad import QuestionColumns, load_hub_squad, read_squad_files
from adapter_qa.runs.run_document import DataSource
from adapter_qa.training.shared_files import check_answers_unseen, find_seen_files, shared_file_notes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from transformers import PreTrainedTokenizerFast

    from adapter_qa.data.partition import FoldParts, GroupBy
    from adapter_qa.data.window_dataset import QuestionDataset
    from adapter_qa.runs.run_record import RunRecord


@dataclass(frozen=True)
class QuestionSplit:
    """The questions of one split.

    Attributes:
        questions: those that are used.
        source: where they come from and how many they are, for run.json.
    """

    questions: list[Question]
    source: DataSource


def load_questions(config: QARunConfig) -> dict[str, QuestionSplit]:
    """Load the questions of every split that is used, by split name.

    Raises:
        UserError: if a file cannot be read, no question can be used, questions without an answer are given without
            --version_2_with_negative, or with --folds the questions cannot be divided, or a saved model that the run
            builds on has trained on them.
    """
    if config.data.folds is not None:
        return _load_fold(config)
    splits = config.splits()
    loaded = run_each(partial(_load_split, split, config) for split in splits)
    by_name: dict[str, QuestionSplit] = {split.name: part for split, part in zip(splits, loaded, strict=True)}
    if config.data.is_calibrated and "eval" in by_name:
        by_name |= _calibration_splits(by_name, config.data.calibration_share)
    _check_best_metric(config.training.best_metric, by_name)
    log_note(shared_file_notes({name: part.source.fingerprints for name, part in by_name.items()}))
    return by_name


def _calibration_splits(splits: dict[str, QuestionSplit], share: float | None) -> dict[str, QuestionSplit]:
    """Return the splits to evaluate on and to calibrate on, which have no context in common.

    With a share, `splits` has no questions to calibrate on yet.

    Raises:
        UserError: if questions of both have the same context, or there are too few articles to take a share of.
    """
    evaluated = splits["eval"]
    if share is None:
        contexts = {question.context for question in evaluated.questions}
        shared = sum(question.context in contexts for question in splits["calibration"].questions)
        if shared:
            raise UserError(
                f"--calibration_file: the contexts of {shared} of its {len(splits['calibration'].questions)} questions "
                "are also evaluated on, and what is fitted to them looks better than it is; give other articles, or "
                "--calibration_share 0.1 in its place"
            )
        return {}
    from adapter_qa.data.partition import calibration_parts  # late: errors in options do not wait for numpy

    try:
        fitted_on, scored = calibration_parts(evaluated.questions, share)
    except ValueError as error:
        raise UserError(
            f"--calibration_share {share:g}: the evaluation questions are about one article; give --calibration_file"
        ) from error
    return {
        name: QuestionSplit(
            questions, replace(evaluated.source, unaligned=_unaligned(questions), questions=len(questions))
        )
        for name, questions in (("eval", scored), ("calibration", fitted_on))
    }


@dataclass(frozen=True)
class Fold:
    """One fold of a cross-validation.

    Attributes:
        number: from 1.
        by: what is in one part only, "article" or "context".
        splits: "train", "eval", on which the epoch is chosen, if there is a choice, and "predict", which is scored.
    """

    number: int
    by: GroupBy
    splits: dict[str, QuestionSplit]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the numbers of questions and of groups of each split."""
        names = ("questions", GROUP_COUNTS[self.by])
        return {split: {name: part.source.counts()[name] for name in names} for split, part in self.splits.items()}


def _load_fold(config: QARunConfig) -> dict[str, QuestionSplit]:
    """Return the splits of the fold that is run; a dry run of all folds builds the model of the first."""
    number = config.data.fold or 1
    splits = load_folds(config)[number - 1].splits
    source = splits["train"].source
    seen = find_seen_files(_saved_models(config), source.fingerprints)
    check_answers_unseen(seen)
    if config.is_cross_validation:
        log_note([f"{words}: has read the texts of {file}, whose questions --folds scores" for words, file, _ in seen])
    else:
        left_out = source.unaligned or 0
        _note_left_out(f"fold {number}", left_out, left_out + len(splits["train"].questions))
    return splits


GROUP_COUNTS: dict[GroupBy, str] = {"article": "articles", "context": "contexts"}  # names in run.json


def load_folds(config: QARunConfig) -> list[Fold]:
    """Load the questions of a cross-validation with `load_all_questions`, and divide them with `make_folds`."""
    return make_folds(config, *load_all_questions(config))


def make_folds(config: QARunConfig, questions: list[Question], source: DataSource) -> list[Fold]:
    """Divide the questions of a cross-validation.

    Raises:
        UserError: if there are too few articles or contexts, or no question of a part can be used.
    """
    from adapter_qa.data.partition import FoldScheme, divide, group_names  # late: it imports numpy

    data = config.data
    by = cast("GroupBy | None", data.fold_by)
    scheme = FoldScheme(int(data.folds or 0), by, data.fold_choosing_share, config.training.seed)
    untitled = sum(not question.title for question in questions)
    if by == "article" and untitled:
        raise UserError(
            f"--fold_by article: {untitled} of {len(questions)} questions have no title; give --title_column, or "
            "--fold_by context"
        )
    by = scheme.decided(questions)
    groups = group_names(questions, by)
    try:
        parts = divide(questions, scheme)
    except ValueError as error:
        count = len({*groups})
        advice = ["fewer folds"] + ["--fold_by context"] * (by == "article")
        advice += ["--fold_choosing_share 0"] * (count >= scheme.folds)
        raise UserError(
            f"--folds {scheme.folds}: {error}; the data have {count} {GROUP_COUNTS[by]}; give {' or '.join(advice)}"
        ) from error

    def part_of(mask: npt.NDArray[np.bool_], name: str) -> QuestionSplit:
        chosen = [question for question, is_in in zip(questions, mask.tolist(), strict=True) if is_in]
        names = sorted({group for group, is_in in zip(groups, mask.tolist(), strict=True) if is_in})
        unaligned = _unaligned(chosen)
        if name == "train":
            chosen = _trainable(chosen, config.origin(config.all_splits()[0]))
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        counts = {"unaligned": unaligned, "questions": len(chosen), GROUP_COUNTS[by]: len(names)}
        return QuestionSplit(chosen, replace(source, **counts, groups_sha256=digest))

    def fold_of(number: int, masks: FoldParts) -> Fold:
        named = zip(("train", "eval", "predict"), masks, strict=True)
        try:
            splits = {name: part_of(mask, name) for name, mask in named if mask.any()}
            _check_best_metric(config.training.best_metric, splits)
        except UserError as error:
            raise UserError([f"fold {number}: {problem}" for problem in error.problems]) from error
        return Fold(number, by, splits)

    return run_each(partial(fold_of, number, masks) for number, masks in enumerate(parts, 1))


def _saved_models(config: QARunConfig) -> dict[str, Path]:
    """Return the folders of what a run builds on, by the words that name them."""
    fused = [word.partition("=") for word in config.fusion.fuse_adapters or []]
    words = [
        ("--model_name_or_path", config.model.model_name_or_path),
        ("--load_adapter", config.adapter.load_adapter),
        ("--load_lang_adapter", config.language_adapter.load_lang_adapter),
        *((f"--fuse_adapters {name}", path) for name, _, path in fused),
    ]
    return {f"{option} {path}": Path(path) for option, path in words if path is not None}


def load_all_questions(config: QARunConfig) -> tuple[list[Question], DataSource]:
    """Load all questions of a cross-validation.

    Returns:
        The questions, and where they come from, for run.json.

    Raises:
        UserError: as `load_questions`.
    """
    return _read_split(config.all_splits()[0], config)


def _check_best_metric(metric: str, splits: dict[str, QuestionSplit]) -> None:
    """Raise UserError if the metric is that of questions with or without an answer, and none of "eval" is one."""
    questions = splits["eval"].questions if "eval" in splits else []
    for prefix, answered, meaning in (("HasAns_", True, "an answer"), ("NoAns_", False, "no answer")):
        if (
            questions
            and metric.startswith(prefix)
            and not any(bool(question.answer_texts) is answered for question in questions)
        ):
            raise UserError(f"--metric_for_best_model {metric}: not computed, no evaluation question has {meaning}")


def _load_split(split: Split, config: QARunConfig) -> QuestionSplit:
    questions, source = _read_split(split, config)
    if split.name == "train":
        name, count = config.origin(split), len(questions)
        questions = _trainable(questions, name)
        _note_left_out(name, count - len(questions), count)
    return QuestionSplit(questions, replace(source, questions=len(questions)))


def _read_split(split: Split, config: QARunConfig) -> tuple[list[Question], DataSource]:
    """Return the questions of a split, and where they come from, for run.json."""
    data, need_answers = config.data, split.name != "predict"
    columns = QuestionColumns.of_options(vars(data))
    if split.files:
        paths = expand_paths(split.files, split.option)
        questions = read_squad_files(paths, need_answers=need_answers, columns=columns)
        source = msgspec.convert(files_fingerprint(paths), DataSource)
    else:
        dataset = config.dataset(split)
        questions = load_hub_squad(*dataset, need_answers=need_answers, columns=columns)
        source = DataSource(**dataset_source(*dataset))
    questions = questions[: split.limit]
    source.unaligned = _unaligned(questions)
    if need_answers:
        unanswered = sum(not question.answer_texts for question in questions)
        if unanswered and not data.version_2_with_negative:
            raise UserError(
                f"{config.origin(split)}: {unanswered} questions have no answer; SQuAD v2 data needs "
                "--version_2_with_negative True"
            )
    return questions, source


def _unaligned(questions: list[Question]) -> int:
    return sum(bool(question.answer_texts) and not is_aligned(question) for question in questions)


def _trainable(questions: list[Question], name: str) -> list[Question]:
    """Return the questions whose first answer is at its answer_start, and those without an answer.

    Evaluation keeps all questions, as the official scorer does.
    """
    usable = [question for question in questions if not question.answer_texts or is_aligned(question)]
    if not usable:
        raise UserError(f"{name}: no answer is found at its answer_start; run prepare_squad_pt.py on the file first")
    return usable


def _note_left_out(name: str, left_out: int, count: int) -> None:
    if left_out:
        log_note(
            [
                f"{name}: {left_out} of {count} questions are left out of training, their answers are not at "
                "answer_start; prepare_squad_pt.py realigns most"
            ]
        )


def make_split_windows(
    splits: dict[str, QuestionSplit], tokenizer: PreTrainedTokenizerFast, config: QARunConfig, record: RunRecord
) -> dict[str, QuestionDataset]:
    """Make the windows of every split; record and log what a question or an answer loses.

    Raises:
        UserError: the tokenizer cannot be used, the stride leaves no space, or no window can be trained.
    """
    from adapter_qa.data.window_dataset import QuestionDataset, pair_tokenizer, progress_bar
    from adapter_qa.data.windows import make_windows

    started = time.perf_counter()
    pairs = pair_tokenizer(tokenizer)
    datasets: dict[str, QuestionDataset] = {}
    for name, split in splits.items():
        windows = make_windows(
            split.questions,
            pairs,
            max_seq_length=config.data.max_seq_length,
            doc_stride=config.data.doc_stride,
            on_progress=progress_bar(f"{name} windows"),
        )
        datasets[name] = QuestionDataset(split.questions, windows)
        source = record.document.data[name]
        source.windows = len(windows)
        source.cut_questions = windows.cut_questions
        source.answer_without_tokens = windows.answers_without_tokens
        source.answer_in_no_window = windows.answers_in_no_window
        source.answer_too_long = int((windows.answer_tokens > config.data.max_answer_length).sum())
        log_note(_notes(name, source, config.data.max_answer_length, int(windows.answer_tokens.max())))
        if name == "train" and (windows.start_position == IGNORE_INDEX).all():
            raise UserError(f"{name}: no window contains a whole answer; raise --max_seq_length or --doc_stride")
    record.document.times.windows = round(time.perf_counter() - started, 3)
    return datasets


def _notes(name: str, source: DataSource, max_answer_length: int, longest: int) -> list[str]:
    """Return a line for each loss that is counted; the answer that needs most tokens needs `longest`."""
    lost = "they do not train" if name == "train" else "it is not found"
    texts = {
        "cut_questions": "questions were too long for the window and lost their end",
        "answer_without_tokens": f"questions have an answer of which the tokenizer keeps no character; {lost}",
        "answer_in_no_window": f"questions have an answer that no window contains as a whole; {lost}; raise "
        "--max_seq_length or --doc_stride",
        "answer_too_long": f"questions have only answers of more than {max_answer_length} tokens, which are never "
        f"found; raise --max_answer_length (to {longest} for all)",
    }
    counts = source.counts()
    return [f"{name}: {counts[key]} {text}" for key, text in texts.items() if counts[key]]

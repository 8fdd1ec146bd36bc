"""Questions and windows of the splits of a question answering run.

torch and transformers are imported only when windows are made, so that errors in the files are reported at once.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from adapter_qa.config.run_configs import QARunConfig
from adapter_qa.core.errors import UserError, run_each
from adapter_qa.core.messages import log_note
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.runs.run_document import DataSource
from adapter_qa.training.folds import load_fold
from adapter_qa.training.question_splits import QuestionSplit, check_best_metric, count_unaligned, load_split
from adapter_qa.training.shared_files import shared_file_notes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from adapter_qa.data.window_dataset import QuestionDataset
    from adapter_qa.runs.run_record import RunRecord


def load_questions(config: QARunConfig) -> dict[str, QuestionSplit]:
    """Load the questions of every split that is used, by split name.

    Raises:
        UserError: if a file cannot be read, no question can be used, questions without an answer are given without
            --version_2_with_negative, or with --folds the questions cannot be divided, or a saved model that the run
            builds on has trained on them.
    """
    if config.data.folds is not None:
        return load_fold(config)
    splits = config.splits()
    loaded = run_each(partial(load_split, split, config) for split in splits)
    by_name: dict[str, QuestionSplit] = {split.name: part for split, part in zip(splits, loaded, strict=True)}
    if config.data.is_calibrated and "eval" in by_name:
        by_name |= _calibration_splits(by_name, config.data.calibration_share)
    check_best_metric(config.training.best_metric, by_name)
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
            questions, replace(evaluated.source, unaligned=count_unaligned(questions), questions=len(questions))
        )
        for name, questions in (("eval", scored), ("calibration", fitted_on))
    }


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

"""Questions and windows of the splits of a question answering run.

torch and transformers are imported only when windows are made, so that errors in the files are reported at once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from adapter_qa.config.options import QARunConfig, Split
from adapter_qa.core.errors import UserError, run_all
from adapter_qa.core.files import expand_paths, files_fingerprint
from adapter_qa.core.messages import log_note
from adapter_qa.data.labels import IGNORED
from adapter_qa.data.questions import Question, is_aligned
from adapter_qa.data.sources import dataset_source
from adapter_qa.data.squad import QuestionColumns, load_hub_squad, read_squad_files
from adapter_qa.training.shared_files import fingerprints, shared_file_notes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from adapter_qa.data.window_dataset import WindowDataset
    from adapter_qa.runs.run_record import RunRecord


@dataclass(frozen=True)
class QuestionSplit:
    """The questions of one split.

    Attributes:
        questions: those that are used.
        source: where they come from and how many they are, for run.json.
    """

    questions: list[Question]
    source: dict[str, Any]


def load_questions(config: QARunConfig) -> dict[str, QuestionSplit]:
    """Load the questions of every split that is used, by split name.

    Raises:
        UserError: if a file cannot be read, no question can be used, or questions without an answer are given without
            --version_2_with_negative.
    """
    splits = config.splits()
    loaded = run_all(partial(_load_split, split, config) for split in splits)
    by_name: dict[str, QuestionSplit] = {split.name: part for split, part in zip(splits, loaded, strict=True)}
    if config.data.is_calibrated and "eval" in by_name:
        by_name |= _calibration_splits(by_name, config.data.calibration_share)
    if "eval" in by_name:
        _check_best_metric(config.training.best_metric, by_name["eval"].questions)
    log_note(shared_file_notes({name: fingerprints(part.source) for name, part in by_name.items()}))
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
            questions, {**evaluated.source, "unaligned": _unaligned(questions), "questions": len(questions)}
        )
        for name, questions in (("eval", scored), ("calibration", fitted_on))
    }


def _check_best_metric(metric: str, questions: list[Question]) -> None:
    """Raise UserError if the metric is that of questions with or without an answer, and there are none."""
    for prefix, answered, meaning in (("HasAns_", True, "an answer"), ("NoAns_", False, "no answer")):
        if metric.startswith(prefix) and not any(bool(question.answer_texts) is answered for question in questions):
            raise UserError(f"--metric_for_best_model {metric}: not computed, no evaluation question has {meaning}")


def _load_split(split: Split, config: QARunConfig) -> QuestionSplit:
    data, need_answers = config.data, split.name != "predict"
    columns = QuestionColumns.of_options(vars(data))
    source: dict[str, Any]
    if split.files:
        paths = expand_paths(split.files, split.option)
        questions = read_squad_files(paths, need_answers=need_answers, columns=columns)
        source = files_fingerprint(paths)
    else:
        origin = str(data.dataset_name), data.dataset_config_name, split.dataset_split
        questions = load_hub_squad(*origin, need_answers=need_answers, columns=columns)
        source = dataset_source(*origin)
    questions = questions[: split.limit]
    source["unaligned"] = _unaligned(questions)
    if need_answers:
        name = " ".join(split.files) or str(data.dataset_name)
        unanswered = sum(not question.answer_texts for question in questions)
        if unanswered and not data.version_2_with_negative:
            raise UserError(
                f"{name}: {unanswered} questions have no answer; SQuAD v2 data needs --version_2_with_negative True"
            )
        if split.name == "train":
            questions = _trainable(questions, name)
    return QuestionSplit(questions, {**source, "questions": len(questions)})


def _unaligned(questions: list[Question]) -> int:
    return sum(bool(question.answer_texts) and not is_aligned(question) for question in questions)


def _trainable(questions: list[Question], name: str) -> list[Question]:
    """Return the questions whose first answer is at its answer_start, and those without an answer.

    Evaluation keeps all questions, as the official scorer does.
    """
    usable = [question for question in questions if not question.answer_texts or is_aligned(question)]
    if not usable:
        raise UserError(f"{name}: no answer is found at its answer_start; run prepare_squad_pt.py on the file first")
    if len(usable) < len(questions):
        log_note(
            [
                f"{name}: {len(questions) - len(usable)} of {len(questions)} questions are left out of training, their "
                "answers are not at answer_start; prepare_squad_pt.py realigns most"
            ]
        )
    return usable


def make_split_windows(
    splits: dict[str, QuestionSplit], tokenizer: PreTrainedTokenizerFast, config: QARunConfig, record: RunRecord
) -> dict[str, WindowDataset]:
    """Make the windows of every split; record and log what a question or an answer loses.

    Raises:
        UserError: the tokenizer cannot be used, the stride leaves no space, or no window can be trained.
    """
    from adapter_qa.data.window_dataset import WindowDataset, pair_tokenizer, progress_bar
    from adapter_qa.data.windows import make_windows

    started = time.perf_counter()
    pairs = pair_tokenizer(tokenizer)
    windows: dict[str, WindowDataset] = {}
    for name, split in splits.items():
        arrays = make_windows(
            split.questions,
            pairs,
            max_seq_length=config.data.max_seq_length,
            doc_stride=config.data.doc_stride,
            on_progress=progress_bar(f"{name} windows"),
        )
        windows[name] = WindowDataset(arrays)
        counts = {
            "cut_questions": arrays.cut_questions,
            "answer_without_tokens": arrays.answers_without_tokens,
            "answer_in_no_window": arrays.answers_in_no_window,
            "answer_too_long": int((arrays.answer_tokens > config.data.max_answer_length).sum()),
        }
        record.document["data"][name] |= {"windows": len(arrays), **counts}
        log_note(_notes(name, counts, config.data.max_answer_length, int(arrays.answer_tokens.max())))
        if name == "train" and (arrays.start_position == IGNORED).all():
            raise UserError(f"{name}: no window contains a whole answer; raise --max_seq_length or --doc_stride")
    record.document["times"]["windows"] = round(time.perf_counter() - started, 3)
    return windows


def _notes(name: str, counts: dict[str, int], max_answer_length: int, longest: int) -> list[str]:
    """Return a line for each count that is not 0; the answer that needs most tokens needs `longest`."""
    lost = "they do not train" if name == "train" else "it is not found"
    texts = {
        "cut_questions": "questions were too long for the window and lost their end",
        "answer_without_tokens": f"questions have an answer of which the tokenizer keeps no character; {lost}",
        "answer_in_no_window": f"questions have an answer that no window contains as a whole; {lost}; raise "
        "--max_seq_length or --doc_stride",
        "answer_too_long": f"questions have only answers of more than {max_answer_length} tokens, which are never "
        f"found; raise --max_answer_length (to {longest} for all)",
    }
    return [f"{name}: {counts[key]} {text}" for key, text in texts.items() if counts[key]]

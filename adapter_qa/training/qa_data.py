"""Questions and windows of the splits of a question answering run.

Nothing heavy is imported before windows are made, so that errors in the files are reported at once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapter_qa.config.options import QARunConfig, Split
from adapter_qa.core.errors import UserError, run_all
from adapter_qa.core.files import file_fingerprint
from adapter_qa.core.messages import log_note
from adapter_qa.data.squad import Question, is_aligned, load_hub_squad, read_squad

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
        UserError: if a file cannot be read, no question can be used, or questions without answer came without
            --version_2_with_negative.
    """

    def loader(split: Split) -> Any:
        return lambda: load_split(split, config)

    splits = config.splits()
    loaded = run_all([loader(split) for split in splits])
    return {split.name: questions for split, questions in zip(splits, loaded, strict=True)}


def load_split(split: Split, config: QARunConfig) -> QuestionSplit:
    """Load the questions of one split.

    Raises:
        UserError: as for `load_questions`.
    """
    data, need_answers = config.data, split.name != "predict"
    source: dict[str, Any]
    if split.file is not None:
        questions, source = read_squad(split.file, need_answers=need_answers), file_fingerprint(split.file)
    else:
        questions = load_hub_squad(
            str(data.dataset_name), data.dataset_config_name, split.dataset_split, need_answers=need_answers
        )
        source = {"dataset": data.dataset_name, "config": data.dataset_config_name, "split": split.dataset_split}
    questions = questions[: split.limit]
    source["unaligned"] = sum(bool(question.answer_texts) and not is_aligned(question) for question in questions)
    if need_answers:
        name = split.file or str(data.dataset_name)
        _check_unanswered(questions, name, version_2=data.version_2_with_negative)
        if split.name == "train":
            questions = _trainable(questions, name)
    return QuestionSplit(questions, {**source, "questions": len(questions)})


def _check_unanswered(questions: list[Question], name: str, *, version_2: bool) -> None:
    """Raise UserError if questions have no answer, and the run is not one of SQuAD v2."""
    unanswered = sum(not question.answer_texts for question in questions)
    if unanswered and not version_2:
        raise UserError(
            f"{name}: {unanswered} questions have no answer; SQuAD v2 data needs --version_2_with_negative True"
        )


def _trainable(questions: list[Question], name: str) -> list[Question]:
    """Return the questions whose first answer is found at its answer_start.

    Evaluation keeps all questions, as the official scorer does.

    Raises:
        UserError: if none is left.
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
    """Cut the questions of every split into windows; record counts, and note questions that were cut."""
    from adapter_qa.data.window_dataset import WindowDataset, pair_tokenizer, progress_bar
    from adapter_qa.data.windows import make_windows

    started = time.perf_counter()
    windows: dict[str, WindowDataset] = {}
    for name, split in splits.items():
        made = make_windows(
            split.questions,
            pair_tokenizer(tokenizer),
            max_seq_length=config.data.max_seq_length,
            doc_stride=config.data.doc_stride,
            on_progress=progress_bar(f"{name} windows"),
        )
        windows[name] = WindowDataset(made)
        record.document["data"][name] |= {"windows": len(made), "cut_questions": made.cut_questions}
        if made.cut_questions:
            log_note([f"{name}: {made.cut_questions} questions were too long for the window and lost their end"])
    record.document["times"]["windows"] = round(time.perf_counter() - started, 3)
    return windows


def count_inputs(splits: dict[str, QuestionSplit], windows: dict[str, WindowDataset]) -> dict[str, dict[str, int]]:
    """Return the numbers of questions and windows of training and evaluation, for a dry run."""
    return {
        name: {
            "questions": len(splits[name].questions) if name in splits else 0,
            "windows": len(windows[name]) if name in windows else 0,
        }
        for name in ("train", "eval")
    }

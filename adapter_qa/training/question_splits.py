"""The questions of one split: read from its files or data set, and checked."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from adapter_qa.config.run_configs import QARunConfig, Split
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import expand_paths, files_fingerprint
from adapter_qa.core.messages import log_note
from adapter_qa.data.questions import Question, is_aligned
from adapter_qa.data.readers.dataset_library import dataset_source
from adapter_qa.data.readers.squad import QuestionColumns, load_hub_squad, read_squad_files
from adapter_qa.runs.run_document import DataSource


@dataclass(frozen=True)
class QuestionSplit:
    """The questions of one split.

    Attributes:
        questions: those that are used.
        source: where they come from and how many they are, for run.json.
    """

    questions: list[Question]
    source: DataSource


def load_split(split: Split, config: QARunConfig) -> QuestionSplit:
    """Load the questions of a split; of those to train on, the ones that can be trained on.

    Raises:
        UserError: if a file cannot be read, questions without an answer are given without --version_2_with_negative,
            or none can be trained on.
    """
    questions, source = read_split(split, config)
    if split.name == "train":
        name, count = config.origin(split), len(questions)
        questions = trainable(questions, name)
        note_left_out(name, count - len(questions), count)
    return QuestionSplit(questions, replace(source, questions=len(questions)))


def read_split(split: Split, config: QARunConfig) -> tuple[list[Question], DataSource]:
    """Return the questions of a split, and where they come from, for run.json.

    Raises:
        UserError: if a file cannot be read, or questions without an answer are given without
            --version_2_with_negative.
    """
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
    source.unaligned = count_unaligned(questions)
    if need_answers:
        unanswered = sum(not question.answer_texts for question in questions)
        if unanswered and not data.version_2_with_negative:
            raise UserError(
                f"{config.origin(split)}: {unanswered} questions have no answer; SQuAD v2 data needs "
                "--version_2_with_negative True"
            )
    return questions, source


def count_unaligned(questions: list[Question]) -> int:
    """Return how many questions have answers, but not the first one at its answer_start."""
    return sum(bool(question.answer_texts) and not is_aligned(question) for question in questions)


def trainable(questions: list[Question], name: str) -> list[Question]:
    """Return the questions whose first answer is at its answer_start, and those without an answer.

    Evaluation keeps all questions, as the official scorer does.

    Raises:
        UserError: if there are none.
    """
    usable = [question for question in questions if not question.answer_texts or is_aligned(question)]
    if not usable:
        raise UserError(f"{name}: no answer is found at its answer_start; run prepare_squad_pt.py on the file first")
    return usable


def note_left_out(name: str, left_out: int, count: int) -> None:
    """Note that some of the questions are not trained on, if any."""
    if left_out:
        log_note(
            [
                f"{name}: {left_out} of {count} questions are left out of training, their answers are not at "
                "answer_start; prepare_squad_pt.py realigns most"
            ]
        )


def check_best_metric(metric: str, splits: dict[str, QuestionSplit]) -> None:
    """Raise UserError if the metric is that of questions with or without an answer, and none of "eval" is one."""
    questions = splits["eval"].questions if "eval" in splits else []
    for prefix, answered, meaning in (("HasAns_", True, "an answer"), ("NoAns_", False, "no answer")):
        if (
            questions
            and metric.startswith(prefix)
            and not any(bool(question.answer_texts) is answered for question in questions)
        ):
            raise UserError(f"--metric_for_best_model {metric}: not computed, no evaluation question has {meaning}")

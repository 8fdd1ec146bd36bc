"""The folds of a cross-validation: questions that are divided by article or by context."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from msgspec.structs import replace

from adapter_qa.config.checks.paths import adapter_names
from adapter_qa.config.run_configs import QARunConfig
from adapter_qa.core.errors import UserError, run_each
from adapter_qa.core.messages import log_note
from adapter_qa.data.questions import Question
from adapter_qa.runs.run_document import DataSource
from adapter_qa.training.question_splits import (
    QuestionSplit,
    check_best_metric,
    count_unaligned,
    note_left_out,
    read_split,
    trainable,
)
from adapter_qa.training.shared_files import check_answers_unseen, find_seen_files

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from adapter_qa.data.partition import FoldParts, GroupBy

GROUP_COUNTS: dict[GroupBy, str] = {"article": "articles", "context": "contexts"}  # names in run.json


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


def load_fold(config: QARunConfig) -> dict[str, QuestionSplit]:
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
        note_left_out(f"fold {number}", left_out, left_out + len(splits["train"].questions))
    return splits


def _saved_models(config: QARunConfig) -> dict[str, Path]:
    """Return the folders of what a run builds on, by the words that name them."""
    names = {"--model_name_or_path": config.model.model_name_or_path, **adapter_names(config)}
    return {f"{option} {name}": Path(name) for option, name in names.items()}


def load_folds(config: QARunConfig) -> list[Fold]:
    """Load the questions of a cross-validation with `load_all_questions`, and divide them with `make_folds`."""
    return make_folds(config, *load_all_questions(config))


def load_all_questions(config: QARunConfig) -> tuple[list[Question], DataSource]:
    """Load all questions of a cross-validation.

    Returns:
        The questions, and where they come from, for run.json.

    Raises:
        UserError: as `load_questions`.
    """
    return read_split(config.all_splits()[0], config)


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
        unaligned = count_unaligned(chosen)
        if name == "train":
            chosen = trainable(chosen, config.origin(config.all_splits()[0]))
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        counts = {"unaligned": unaligned, "questions": len(chosen), GROUP_COUNTS[by]: len(names)}
        return QuestionSplit(chosen, replace(source, **counts, groups_sha256=digest))

    def fold_of(number: int, masks: FoldParts) -> Fold:
        named = zip(("train", "eval", "predict"), masks, strict=True)
        try:
            splits = {name: part_of(mask, name) for name, mask in named if mask.any()}
            check_best_metric(config.training.best_metric, splits)
        except UserError as error:
            raise UserError([f"fold {number}: {problem}" for problem in error.problems]) from error
        return Fold(number, by, splits)

    return run_each(partial(fold_of, number, masks) for number, masks in enumerate(parts, 1))

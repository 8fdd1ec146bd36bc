"""Read the answers of all rows, and compare the rows of each table with the best one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from tqdm.auto import tqdm

from adapter_qa.core.errors import UserError
from adapter_qa.data.bootstrap import MIN_CONTEXTS, context_numbers
from adapter_qa.data.questions import Question
from adapter_qa.reporting.error_analysis import (
    QuestionSource,
    RunAnswers,
    evaluated_questions,
    question_source,
    read_answers,
)
from adapter_qa.reporting.groups import Group, same_evaluation
from adapter_qa.reporting.paired import pair_rows

AnswersByGroup = dict[int, list[RunAnswers]]  # of each run, by number of the group


def compare_to_best(groups: Sequence[Group]) -> tuple[list[Group], AnswersByGroup]:
    """Compare the finished question answering groups of each table with the best one, by their answers.

    Returns:
        The groups with `paired`, or with the reason as `not_compared`; and the answers that could be read. Those of
        one table have the same questions.
    """
    tables = [[group for group in members if group.is_compared] for members in same_evaluation(groups)]
    answers: AnswersByGroup = {}
    compared: dict[int, Group] = {}
    for members in tables:
        read, problems = _read_members(members)
        answers |= read
        compared |= {group.number: group for group in _compare_members(members, read, problems)}
    return [compared.get(group.number, group) for group in groups], answers


def _read_members(members: Sequence[Group]) -> tuple[AnswersByGroup, dict[int, str]]:
    """Return the answers of groups to the questions of the first that can be read, and why others have none."""
    sources = _read_questions(members)
    reference: list[Question] = []
    read: AnswersByGroup = {}
    problems: dict[int, str] = {}
    for group in tqdm(members, desc="answers", leave=False, disable=None):
        try:
            questions = sources[question_source(group.first)]
            if isinstance(questions, UserError):
                raise questions
            if reference and reference is not questions and _contents(questions) != _contents(reference):
                raise UserError(f"{group.first.folder}: was evaluated on other questions, contexts or gold answers")
            read[group.number] = [read_answers(run, reference or questions) for run in group.runs]
            reference = reference or questions
        except UserError as error:
            problems[group.number] = "; ".join(error.problems)
    return read, problems


def _read_questions(groups: Sequence[Group]) -> dict[QuestionSource, list[Question] | UserError]:
    """Read the questions of groups, each source once, from where the first of their runs finds it."""
    sources: dict[QuestionSource, list[Question] | UserError] = {}
    for run in (run for group in groups for run in group.runs):
        source = question_source(run)
        if not isinstance(sources.get(source), list):
            try:
                sources[source] = evaluated_questions(run)
            except UserError as error:
                sources.setdefault(source, error)
    return sources


def _contents(questions: Iterable[Question]) -> dict[str, tuple[str, str, frozenset[str]]]:
    """Return what makes questions the same, by id."""
    return {
        question.id: (question.question, question.context, frozenset(question.answer_texts)) for question in questions
    }


def _compare_members(members: Sequence[Group], read: AnswersByGroup, problems: dict[int, str]) -> list[Group]:
    """Return groups of one table, the best first, with the comparison or the reason why there is none."""
    if not read:
        return [replace(group, not_compared=problems[group.number]) for group in members]
    questions = next(iter(read.values()))[0].questions
    contexts = context_numbers([question.context for question in questions])
    if max(contexts) + 1 < MIN_CONTEXTS:
        few = f"the questions have fewer than {MIN_CONTEXTS} different contexts, too few for an interval"
        return [replace(group, not_compared=problems.get(group.number, few)) for group in members]
    scores = np.stack([np.mean([run.scores for run in runs], axis=0) for runs in read.values()], axis=1)
    best = members[0]
    paired = dict(zip(read, pair_rows(scores, contexts, has_best=best.number in read), strict=True))
    return [
        replace(group, paired=paired.get(group.number), not_compared=problems.get(group.number, ""))
        for group in members
    ]

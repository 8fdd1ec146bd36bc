"""Clean and align the questions of a SQuAD file, with counts and with the reason for every rejected question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from tqdm import tqdm

from adapter_qa.data.alignment import AlignmentContext, MatchType, align_question, clean
from adapter_qa.data.questions import NO_START, Question
from adapter_qa.data.readers.records import Record
from adapter_qa.data.readers.squad import STANDARD, QuestionColumns, RecordError, parse_question

REPEATED_ID = "repeated id"


class Preparation:
    """The prepared questions of a file, its rejects and their counts.

    Attributes:
        keep_unaligned: whether answers that the context does not contain are kept, with start `NO_START`.
        questions: cleaned and aligned questions, in the order of the file.
        rejects: JSON objects with `where`, `reason`, `detail`, `kept` (whether the question is kept without some of
            its answers) and the original `record`.
        entities: number of HTML entities that were replaced.
        rejected: number of dropped questions by reason, `REPEATED_ID` included.
        matches: number of answers by the way they were found.
        without_start: number of answers that had no start index.
        ambiguous: number of these that occur more than once in their context; the first occurrence is taken.
    """

    def __init__(self, keep_unaligned: bool):
        self.keep_unaligned = keep_unaligned
        self.questions: list[Question] = []
        self.rejects: list[dict[str, Any]] = []
        self.entities = self.without_start = self.ambiguous = 0
        self.rejected: Counter[str] = Counter()
        self.matches: Counter[MatchType] = Counter()
        self._contexts: dict[str, AlignmentContext] = {}  # by raw text: questions share contexts

    def add(self, record: Record, question: Question) -> bool:
        """Clean and align a question, then keep or reject it; return whether it is kept."""
        context = self._contexts.get(question.context)
        if context is None:
            context = self._contexts[question.context] = AlignmentContext(question.context)
            self.entities += context.cleaned.entities
        self.entities += sum(clean(text).entities for text in (question.question, *question.answer_texts))
        cleaned, answers = align_question(question, context, keep_unaligned=self.keep_unaligned)
        matches = [answer.match for answer in answers]
        self.matches.update(matches)
        self.without_start += question.answer_starts.count(NO_START)
        self.ambiguous += sum(answer.is_ambiguous for answer in answers)
        reason = _rejection_reason(cleaned, matches)
        kept = bool(cleaned.context and cleaned.question and (cleaned.answer_texts or not answers))
        if reason:
            unusable = [answer.text for answer in answers if answer.match in (MatchType.NOT_FOUND, MatchType.EMPTY)]
            self.reject(record, reason, "; ".join(map(repr, unusable)), kept=kept)
        if kept:
            self.questions.append(cleaned)
        return kept

    def reject(self, record: Record, reason: str, detail: str, *, kept: bool = False) -> None:
        """Add a record to the rejects and, unless its question is kept, count it under its reason."""
        self.rejects.append(
            {"where": record.where, "reason": reason, "detail": detail, "kept": kept, "record": record.fields}
        )
        if not kept:
            self.rejected[reason] += 1

    def counts(self) -> dict[str, Any]:
        """Return the counts; `read` is the sum of `kept`, `duplicates` and `rejected`."""
        searched = {"answers_without_start": self.without_start, "of_these_ambiguous": self.ambiguous}
        rejected = {reason: number for reason, number in sorted(self.rejected.items()) if reason != REPEATED_ID}
        return {
            "read": len(self.questions) + self.rejected.total(),
            "kept": len(self.questions),
            "kept_unanswerable": sum(not question.answer_texts for question in self.questions),
            "duplicates": self.rejected[REPEATED_ID],
            "rejected": rejected,
            "answers": {match.value: self.matches[match] for match in MatchType},
            **(searched if self.without_start else {}),
            "entities_unescaped": self.entities,
        }


def prepare_questions(
    records: Sequence[Record], *, keep_unaligned: bool, columns: QuestionColumns = STANDARD
) -> Preparation:
    """Clean and align all questions of a file, whose answers need no start index.

    If questions have the same id, the last one that can be used is kept.
    """
    preparation = Preparation(keep_unaligned)
    kept: dict[str, str] = {}  # id of each kept question, and where it stands
    # Backwards, because the last question of an id is kept. disable=None: no progress bar if there is no terminal.
    for record in tqdm(records[::-1], unit=" questions", leave=False, disable=None):
        try:
            question = parse_question(record, need_answers=True, columns=columns, need_starts=False)
        except RecordError as error:
            preparation.reject(record, "bad record", str(error))
            continue
        if question.id in kept:
            preparation.reject(record, REPEATED_ID, f"that of {kept[question.id]}, which is kept")
        elif preparation.add(record, question):
            kept[question.id] = record.where
    preparation.questions.reverse()
    preparation.rejects.reverse()
    return preparation


def flat_record(question: Question) -> dict[str, Any]:
    """Return a question as a flat SQuAD record, which the training scripts read."""
    return {
        "id": question.id,
        "title": question.title,
        "context": question.context,
        "question": question.question,
        "answers": {"answer_start": list(question.answer_starts), "text": list(question.answer_texts)},
    }


def _rejection_reason(cleaned: Question, matches: Collection[MatchType]) -> str:
    """Return the main defect of a question or of its answers; empty if there is none."""
    if not cleaned.context:
        return "empty context"
    if not cleaned.question:
        return "empty question"
    if MatchType.NOT_FOUND in matches:
        return "answer not in the context"
    return "empty answer" if MatchType.EMPTY in matches else ""

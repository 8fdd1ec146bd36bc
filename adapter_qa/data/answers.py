"""Answers to questions: in arrays for many questions, and one by one for people and JSON.

This module needs numpy only: `answer.py` in every exported folder is written from its source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from adapter_qa.data.questions import Question


@dataclass(frozen=True)
class Candidate:
    """A possible answer to a question.

    Attributes:
        text: the answer; "" for no answer.
        start: its first character in the context; 0 for no answer.
        end: its end in the context, exclusive; 0 for no answer.
        start_logit: logit of its first token.
        end_logit: logit of its last token; the sum of both logits is the score.
        probability: as in `PlainAnswer`.
    """

    text: str
    start: int
    end: int
    start_logit: float
    end_logit: float
    probability: float


# What `PlainAnswer.document` may have.
ANSWER_FIELDS = ("answer", "score", "start", "end", "no_answer_score", "null_odds", "n_best")


@dataclass(frozen=True)
class PlainAnswer:
    """The answer to one question.

    Attributes:
        text: the answer; "" for no answer.
        probability: softmax over all spans of all windows and, with SQuAD v2, no answer, of the scores divided by the
            temperature of a calibrated run; the threshold is taken off the score of no answer. The probability of a
            span in several windows is the sum over those that keep it.
        start: first character in the context; 0 for no answer.
        end: end in the context, exclusive; 0 for no answer.
        n_best: candidates with distinct positions, best first; with SQuAD v2 no answer is among them, in addition.
        no_answer: SQuAD v2: the probability of no answer.
        null_odds: SQuAD v2: score of no answer minus score of the best span.
    """

    text: str
    probability: float
    start: int
    end: int
    n_best: tuple[Candidate, ...]
    no_answer: float | None = None
    null_odds: float | None = None

    def document(self, n_best: int | None = None) -> dict[str, Any]:
        """Return the answer for JSON, with a list of its first `n_best` candidates if that is given."""
        document = _document(self)
        if self.no_answer is not None:
            document |= {"no_answer_score": self.no_answer, "null_odds": self.null_odds}
        if n_best is not None:
            document["n_best"] = [_document(candidate) for candidate in _first(self.n_best, n_best)]
        return document


def _document(span: PlainAnswer | Candidate) -> dict[str, Any]:
    return {"answer": span.text, "score": span.probability, "start": span.start, "end": span.end}


def _first(candidates: Sequence[Candidate], count: int) -> tuple[Candidate, ...]:
    """Return the first `count` candidates, and "no answer", which is not counted, at its rank among all of them."""
    ranks = accumulate(candidate.end > 0 for candidate in candidates)
    return tuple(
        candidate for candidate, rank in zip(candidates, ranks, strict=True) if candidate.end == 0 or rank <= count
    )


@dataclass(frozen=True)
class Answers:
    """Answers to questions and their n-best lists, in arrays over all candidates.

    The candidates of question i, best first, are `offsets[i]:offsets[i + 1]`; there is at least one.

    Attributes:
        questions: the questions.
        offsets: (questions + 1,) int64.
        start: (candidates,) int32, first character in the context; 0 for no answer.
        end: (candidates,) int32, end in the context, exclusive; 0 for no answer.
        scores: (candidates,) float32.
        start_logits: (candidates,) float32; the end logit is the score minus this.
        probabilities: (candidates,) float32.
        best: (questions,) int64, index of the candidate with the best span; no answer if there is no span.
        selected: (questions,) int64, index of the candidate that is the answer.
        null_score_diff: (questions,) float64, score of no answer minus score of the best span; a question has no answer
            if this is above the threshold. None for SQuAD v1.
    """

    questions: Sequence[Question]
    offsets: np.ndarray
    start: np.ndarray
    end: np.ndarray
    scores: np.ndarray
    start_logits: np.ndarray
    probabilities: np.ndarray
    best: np.ndarray
    selected: np.ndarray
    null_score_diff: np.ndarray | None = None

    @property
    def chosen(self) -> dict[str, Candidate]:
        """Return the answer to each question by id."""
        rows = self.selected.tolist()
        return {question.id: self._candidate(index, rows[index]) for index, question in enumerate(self.questions)}

    @property
    def n_best(self) -> dict[str, list[Candidate]]:
        """Return all candidates of each question by id, best first."""
        return {question.id: self.candidates(index) for index, question in enumerate(self.questions)}

    @property
    def null_odds(self) -> dict[str, float]:
        """Return `null_score_diff` by id; empty for SQuAD v1."""
        if self.null_score_diff is None:
            return {}
        ids = (question.id for question in self.questions)
        return dict(zip(ids, self.null_score_diff.tolist(), strict=True))

    def candidates(self, index: int) -> list[Candidate]:
        """Return the candidates of one question, best first."""
        return [self._candidate(index, row) for row in range(self.offsets[index], self.offsets[index + 1])]

    def plain(self, n_best: int | None = None) -> list[PlainAnswer]:
        """Return the answer to each question with its first `n_best` candidates; None: with all."""
        answers = []
        for index, chosen in enumerate(self.chosen.values()):
            candidates = self.candidates(index)
            no_answer = null_odds = None
            if self.null_score_diff is not None:
                no_answer = next(candidate.probability for candidate in candidates if candidate.end == 0)
                null_odds = float(self.null_score_diff[index])
            kept = _first(candidates, len(candidates) if n_best is None else n_best)
            span = (chosen.text, chosen.probability, chosen.start, chosen.end)
            answers.append(PlainAnswer(*span, kept, no_answer, null_odds))
        return answers

    def texts(self) -> dict[str, str]:
        """Return the texts of the answers by id."""
        return self._texts(self.selected)

    def span_texts(self) -> dict[str, str]:
        """Return the texts of the best spans by id, "" only if there is no span; v2 thresholds are tuned on these."""
        return self._texts(self.best)

    def candidate_texts(self, count: int) -> list[list[str]]:
        """Return the texts of the first `count` candidates of each question, best first."""
        starts, ends, offsets = self.start.tolist(), self.end.tolist(), self.offsets.tolist()
        return [
            [question.context[starts[row] : ends[row]] for row in range(first, min(first + count, last))]
            for question, first, last in zip(self.questions, offsets, offsets[1:], strict=False)
        ]

    def _texts(self, rows: np.ndarray) -> dict[str, str]:
        spans = zip(self.questions, self.start[rows].tolist(), self.end[rows].tolist(), strict=True)
        return {question.id: question.context[start:end] for question, start, end in spans}

    def _candidate(self, index: int, row: int) -> Candidate:
        start, end = int(self.start[row]), int(self.end[row])
        logit = float(self.start_logits[row])
        text = self.questions[index].context[start:end]
        return Candidate(text, start, end, logit, float(self.scores[row]) - logit, float(self.probabilities[row]))

"""How texts are cut into windows and how answers are chosen. This module needs the standard library only."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class AnsweringOptions:
    """The options for windows and answers that a run records, and with which its model is asked.

    Attributes:
        max_seq_length: tokens of a window.
        doc_stride: context tokens that neighbouring windows share.
        n_best_size: candidates of each question, not counting "no answer".
        max_answer_length: tokens of the longest answer.
        version_2: "no answer" is a candidate (SQuAD v2).
        null_score_diff_threshold: logits by which "no answer" must be better than the best span; not divided by the
            temperature. Probabilities take it off the score of "no answer", too.
        temperature: divides the scores before probabilities are computed.
    """

    max_seq_length: int
    doc_stride: int
    n_best_size: int
    max_answer_length: int
    version_2: bool = False
    null_score_diff_threshold: float = 0.0
    temperature: float = 1.0

    def document(self) -> dict[str, Any]:
        """Return the options as saved folders and exports have them.

        Only calibrated runs have a temperature: versions without calibration refuse folders with this key.
        """
        document = asdict(self)
        if self.temperature == AnsweringOptions.temperature:
            del document["temperature"]
        return document

    def spans_to_keep(self) -> int:
        """Return how many spans of each window are kept: `n_best_size`, but not more than a window has."""
        return min(self.n_best_size, self.max_seq_length * min(self.max_answer_length, self.max_seq_length))

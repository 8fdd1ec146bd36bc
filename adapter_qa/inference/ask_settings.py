"""What one call may choose about answering, and the check of its numbers. It needs the standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, NamedTuple

from adapter_qa.core.errors import raise_if_any

BATCH_SIZE = 16  # windows per forward pass, if none is given
LOWEST = {"doc_stride": 0}  # 1 for other numbers


def number_problems(numbers: Mapping[str, Any]) -> list[str]:
    """Return a problem for each value that is not a whole number of at least 1, of doc_stride at least 0."""
    problems = []
    for name, value in numbers.items():
        lowest = LOWEST.get(name, 1)
        if not isinstance(value, Integral) or isinstance(value, bool) or value < lowest:
            problems.append(f"{name} is {shown(value)}; it must be a whole number of at least {lowest}")
    return problems


def shown(value: object) -> str:
    """Return a value as a message shows it; of what may be long only the type."""
    return repr(value) if value is None or isinstance(value, (int, float, str)) else f"a {type(value).__name__}"


class AskSettings(NamedTuple):
    """How the questions of one call are answered.

    Attributes:
        max_seq_length: tokens of a window.
        doc_stride: context tokens that neighbouring windows share.
        n_best_size: candidates of each question, not counting "no answer".
        max_answer_length: tokens of the longest answer.
        version_2: "no answer" is a candidate.
        null_score_diff_threshold: logits by which "no answer" must be better than the best span.
        batch_size: windows per forward pass.
        temperature: divides the scores before probabilities are computed; only calibrated models record one.
    """

    max_seq_length: int
    doc_stride: int
    n_best_size: int
    max_answer_length: int
    version_2: bool
    null_score_diff_threshold: float
    batch_size: int
    temperature: float = 1.0

    @classmethod
    def of_model(cls, options: Mapping[str, Any], batch_size: int, n_best: int | None = None) -> AskSettings:
        """Return the settings of a model's `answering_options`, with at least `n_best` candidates.

        Raises:
            UserError: `n_best` is not a whole number of at least 1.
        """
        raise_if_any(number_problems({"n_best": n_best} if n_best is not None else {}))
        settings = cls(**options, batch_size=batch_size)
        return settings._replace(n_best_size=max(settings.n_best_size, n_best or 0))

"""Numbers that one call may choose about answering, and their checks. It needs the standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any

from adapter_qa.core.errors import raise_if_any
from adapter_qa.data.answering_options import AnsweringOptions

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


def with_n_best(options: AnsweringOptions, n_best: int | None) -> AnsweringOptions:
    """Return options with at least `n_best` candidates; None changes nothing.

    Raises:
        UserError: `n_best` is not a whole number of at least 1.
    """
    if n_best is None:
        return options
    raise_if_any(number_problems({"n_best": n_best}))
    return replace(options, n_best_size=max(options.n_best_size, n_best))

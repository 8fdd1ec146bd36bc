"""The problems that a call reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adapter_qa.core.errors import UserError


def problems_of(call: Callable[..., Any], *args: Any, **kwargs: Any) -> list[str]:
    """Return the problems of the `UserError` that a call raises, each of them in one line."""
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert not any("\n" in problem for problem in caught.value.problems)
    return caught.value.problems


def problem_of(call: Callable[..., Any], *args: Any) -> str:
    """Return the only problem of the `UserError` that a call raises."""
    (problem,) = problems_of(call, *args)
    return problem

"""The problems and notes that a call reports."""

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


def notes_of(capsys: pytest.CaptureFixture[str], call: Callable[..., Any], *args: Any) -> list[str]:
    """Return the notes that a call prints."""
    capsys.readouterr()
    call(*args)
    return [line.removeprefix("note: ") for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]

"""The problems that a call reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adapter_qa.core.errors import UserError


def problems_of(call: Callable[..., Any], *args: Any) -> list[str]:
    """Return the problems of the `UserError` that a call raises."""
    with pytest.raises(UserError) as caught:
        call(*args)
    return caught.value.problems

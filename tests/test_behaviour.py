"""Options, refusals, parameter counts and files of a run are those of version 0.1.0 (tests/fixtures/behaviour.json).

A change that is meant renews the file in a commit of its own, with the reason; see tests/support/behaviour.py.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from support.behaviour import FROZEN, measure


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with contextlib.chdir(tmp_path_factory.mktemp("behaviour")):
        return measure()


@pytest.mark.parametrize("part", ["options", "option names", "refusals", "parameters", "files"])
def test_behaviour_is_as_frozen(measured: dict[str, Any], part: str) -> None:
    frozen = json.loads(FROZEN.read_text(encoding="utf-8"))
    assert len(frozen[part]) >= 3
    assert measured[part] == frozen[part]

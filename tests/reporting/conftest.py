"""Questions for the tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.questions import make_questions, write_squad

from adapter_qa.data.questions import Question


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, list[Question]]:
    questions = make_questions(10)
    return write_squad(tmp_path / "dev.json", questions), questions

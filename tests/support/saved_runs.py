"""The folders of the fixture `saved_runs`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SavedRuns:
    """Saved runs with random weights.

    Attributes:
        qa: a run with one QA adapter.
        fusion: a run with a fusion of two adapters.
        full: a fully fine-tuned model.
    """

    qa: Path
    fusion: Path
    full: Path

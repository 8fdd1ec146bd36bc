"""How far the probabilities of runs can be trusted, with and without their calibration; for the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from adapter_qa.core.errors import UserError
from adapter_qa.models.metadata import read_document
from adapter_qa.reporting.groups import Group, mean_std
from adapter_qa.reporting.runs import Evaluation
from adapter_qa.runs.layout import curves_file

# Names of the measures in `Evaluation`, their headings and digits.
TRUST_MEASURES = {
    "ece": ("calibration error", 3),
    "brier": ("Brier score", 3),
    "log_loss": ("log loss", 3),
    "f1": ("F1", 1),
    "exact": ("EM", 1),
}


class Bin(msgspec.Struct):
    """A point of a reliability curve, see `data.calibration.ReliabilityBin`."""

    probability: float
    correct: float
    questions: int


class Answering(msgspec.Struct):
    """Precision and recall of answering, see `data.calibration.AnsweringCurve`."""

    precision: list[float]
    recall: list[float]


class Uncalibrated(msgspec.Struct):
    """Curves without the calibration."""

    reliability: list[Bin]


class Curves(msgspec.Struct):
    """Content of <split>_curves.json; `uncalibrated` of calibrated runs, precision and recall of SQuAD v2."""

    reliability: list[Bin]
    uncalibrated: Uncalibrated | None = None
    precision_recall_f1: Answering | None = None


class TrustRow(NamedTuple):
    """A row of the table: the group, and each of `TRUST_MEASURES` with and without calibration as text."""

    group: Group
    cells: list[str]


def read_curves(path: Path) -> Curves:
    """Read the curves of an evaluation.

    Raises:
        UserError: if the file cannot be read.
    """
    return read_document(path, Curves)


def curves_of(groups: Sequence[Group]) -> tuple[dict[int, Curves], list[str]]:
    """Return the curves of each group's first run by number of the group, and what could not be read.

    Runs of earlier versions have none.
    """
    curves: dict[int, Curves] = {}
    problems: list[str] = []
    for group in groups:
        path = group.first.folder / curves_file(group.first.split)
        if path.is_file():
            try:
                curves[group.number] = read_curves(path)
            except UserError as error:
                problems += error.problems
    return curves, problems


def trust_row(group: Group) -> TrustRow:
    """Return the measures of a group, means over seeds; two numbers are without and with calibration."""
    evaluations = [run.evaluation() for run in group.runs]
    return TrustRow(group, [_cell(evaluations, name, digits) for name, (_, digits) in TRUST_MEASURES.items()])


def _cell(evaluations: Sequence[Evaluation], name: str, digits: int) -> str:
    values = [
        mean_std([getattr(evaluation, f"eval_{name}{suffix}") for evaluation in evaluations]).mean
        for suffix in ("_uncalibrated", "")
    ]
    return " → ".join(f"{value:.{digits}f}" for value in values if value is not None)

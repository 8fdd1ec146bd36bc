"""How far the probabilities of runs can be trusted, with and without their calibration; for the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from adapter_qa.core.errors import UserError
from adapter_qa.data.calibration import CalibrationCurves
from adapter_qa.models.metadata import read_document
from adapter_qa.reporting.groups import Group, mean_std
from adapter_qa.reporting.runs import Evaluation
from adapter_qa.runs.layout import curves_file

# Names of the measures in `Evaluation`, their headings and digits.
CALIBRATION_MEASURES = {
    "ece": ("calibration error", 3),
    "brier": ("Brier score", 3),
    "log_loss": ("log loss", 3),
    "f1": ("F1", 1),
    "exact": ("EM", 1),
}


class CalibrationRow(NamedTuple):
    """A row of the table: the group, and each of `CALIBRATION_MEASURES` with and without calibration as text."""

    group: Group
    cells: list[str]


def curves_of(groups: Sequence[Group]) -> tuple[dict[int, CalibrationCurves], list[str]]:
    """Return the curves of each group's first run by number of the group, and what could not be read.

    Runs of earlier versions have none.
    """
    curves: dict[int, CalibrationCurves] = {}
    problems: list[str] = []
    for group in groups:
        path = group.first.folder / curves_file(group.first.split)
        if path.is_file():
            try:
                curves[group.number] = read_document(path, CalibrationCurves)
            except UserError as error:
                problems += error.problems
    return curves, problems


def calibration_row(group: Group) -> CalibrationRow:
    """Return the measures of a group, means over seeds; two numbers are without and with calibration."""
    evaluations = [run.evaluation() for run in group.runs]
    return CalibrationRow(
        group, [_cell(evaluations, name, digits) for name, (_, digits) in CALIBRATION_MEASURES.items()]
    )


def _cell(evaluations: Sequence[Evaluation], name: str, digits: int) -> str:
    values = [
        mean_std([getattr(evaluation, f"eval_{name}{suffix}") for evaluation in evaluations]).mean
        for suffix in ("_uncalibrated", "")
    ]
    return " → ".join(f"{value:.{digits}f}" for value in values if value is not None)

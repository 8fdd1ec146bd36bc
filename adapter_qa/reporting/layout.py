"""Names of the files in a report's folder, in a module that report_qa.py can import before anything slow."""

from __future__ import annotations

from pathlib import Path

PAGE = "report.html"
PICTURES = (
    "cost",
    "parameters",
    "overlay",
    "curves",
    "attention",
    "calibration",
    "errors",
)  # the files are cost_1.png, ...


def existing_files(folder: Path) -> list[Path]:
    """Return the files that an earlier report left in a folder."""
    patterns = (PAGE, *(f"{name}_[0-9]*.png" for name in PICTURES))
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]

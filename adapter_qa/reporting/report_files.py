"""The files of a report: what they are called, and how they are written."""

from __future__ import annotations

import os
from pathlib import Path

from adapter_qa.core.files import TEMPORARY_SUFFIX

PAGE = "report.html"
PICTURES = ("cost", "parameters", "curves", "attention", "errors")  # each followed by a number and .png


def existing_files(folder: Path) -> list[Path]:
    """What an earlier report left in a folder."""
    return [path for name in (PAGE, *(f"{name}_[0-9]*.png" for name in PICTURES)) for path in sorted(folder.glob(name))]


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file aside and renames it.

    Raises:
        OSError: it cannot be written.
    """
    aside = path.with_name(path.name + TEMPORARY_SUFFIX)
    aside.write_bytes(content)
    os.replace(aside, path)

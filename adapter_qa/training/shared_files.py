"""A note on files that a run trains on and evaluates or predicts as well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

OPTIONS = {"eval": "validation_file", "predict": "test_file", "calibration": "calibration_file"}


def fingerprints(source: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the fingerprints (`core.files`) of the files of a split, as run.json records it; of a data set none."""
    files: list[dict[str, Any]] = source.get("files", [source] if "sha256" in source else [])
    return files


def shared_file_notes(files: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[str]:
    """Return a line for each split that has content of the training files; `files` are fingerprints by split."""
    trained = {file["sha256"]: file["file"] for file in files.get("train", ())}
    notes = []
    for name, option in OPTIONS.items():
        shared = [file for file in files.get(name, ()) if file["sha256"] in trained]
        if shared:
            path, more = shared[0]["file"], len(shared) - 1
            others = f" and {more} more are" if more else " is"
            notes.append(
                f"--{option} {path}{others} also trained on (--train_file {trained[shared[0]['sha256']]}); the scores "
                "say nothing about new text"
            )
    return notes

"""Files that a run trains on and evaluates or predicts as well: a note, in a cross-validation a refusal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from adapter_qa.core.errors import raise_if_any
from adapter_qa.core.files import read_json
from adapter_qa.models.tasks import TASKS
from adapter_qa.runs.layout import RUN_FILE

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


class SeenFile(NamedTuple):
    """A file of a cross-validation that a saved model has been trained on; `words` name the model on the command line.

    A language adapter has read the texts, but has not seen the answers.
    """

    words: str
    file: str
    by_language_adapter: bool


def find_seen_files(models: Mapping[str, Path], files: Iterable[Mapping[str, Any]]) -> list[SeenFile]:
    """Return the first file that each saved model has been trained on, of those that a cross-validation scores.

    What trained elsewhere, or left no run.json, is unknown.

    Args:
        models: folders of runs, or in them, by the words of the command line that name them.
        files: fingerprints.
    """
    scored = {file["sha256"]: file["file"] for file in files}
    seen = []
    for words, path in models.items():
        record = (path.parent if path.name.startswith("adapters-") else path) / RUN_FILE
        run = read_json(record) if record.is_file() else {}
        data = run.get("data")
        trained = data.get("train") if isinstance(data, dict) else None
        digests = [file["sha256"] for file in fingerprints(trained)] if isinstance(trained, dict) else []
        names = [scored[digest] for digest in digests if digest in scored]
        if names:
            seen.append(SeenFile(words, names[0], run.get("script") == TASKS["mlm"].script))
    return seen


def check_answers_unseen(seen: Iterable[SeenFile]) -> None:
    """Raise UserError if a saved model has seen the answers that are to be scored."""
    raise_if_any(
        [
            f"{words}: was trained on {file}, whose questions --folds scores; give another model, or leave it out"
            for words, file, by_language_adapter in seen
            if not by_language_adapter
        ]
    )

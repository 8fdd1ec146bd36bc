"""Files that a run trains on and evaluates or predicts as well: a note, in a cross-validation a refusal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from adapter_qa.core.errors import raise_if_any
from adapter_qa.core.files import read_json
from adapter_qa.models.tasks import TASKS
from adapter_qa.runs.layout import RUN_FILE
from adapter_qa.runs.run_document import DataFile, DataSource, RunDocument

OPTIONS = {"eval": "validation_file", "predict": "test_file", "calibration": "calibration_file"}


def shared_file_notes(files: Mapping[str, Iterable[DataFile]]) -> list[str]:
    """Return a line for each split that has content of the training files; `files` are those of each split."""
    trained = {file.sha256: file.file for file in files.get("train", ())}
    notes = []
    for name, option in OPTIONS.items():
        shared = [file for file in files.get(name, ()) if file.sha256 in trained]
        if shared:
            path, more = shared[0].file, len(shared) - 1
            others = f" and {more} more are" if more else " is"
            notes.append(
                f"--{option} {path}{others} also trained on (--train_file {trained[shared[0].sha256]}); the scores "
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


def find_seen_files(models: Mapping[str, Path], files: Iterable[DataFile]) -> list[SeenFile]:
    """Return the first file that each saved model has been trained on, of those that a cross-validation scores.

    What trained elsewhere, or left no run.json, is unknown.

    Args:
        models: folders of runs, or in them, by the words of the command line that name them.
        files: those that it scores.
    """
    scored = {file.sha256: file.file for file in files}
    seen = []
    for words, path in models.items():
        record = (path.parent if path.name.startswith("adapters-") else path) / RUN_FILE
        if not record.is_file():
            continue
        content = read_json(record)
        try:
            run = msgspec.convert(content, RunDocument)
        except (msgspec.ValidationError, UnicodeEncodeError):
            continue  # a file of another program
        trained = run.data.get("train", DataSource()).fingerprints
        names = [scored[file.sha256] for file in trained if file.sha256 in scored]
        if names:
            seen.append(SeenFile(words, names[0], run.script == TASKS["mlm"].script))
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

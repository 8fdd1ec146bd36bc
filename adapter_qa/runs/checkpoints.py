"""Checkpoints on disk: written to a temporary folder and renamed, verified before a run resumes from them, rotated.

A checkpoint is a folder `checkpoint-<step>` in the folder of its run. Its manifest.json, written last, lists size and
SHA-256 of every file, and names the checkpoint with the best weights so far. The trainer writes the other files.
A killed run may leave `checkpoint.writing` and `checkpoint.removing`; they are never read.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import fsync_path, fsync_tree, remove_path, sha256
from adapter_qa.core.messages import log_note
from adapter_qa.runs.layout import (
    CHECKPOINT_NAME,
    MANIFEST_FILE,
    REMOVED_CHECKPOINT,
    TEMPORARY_CHECKPOINT,
    checkpoint_path,
)

NO_MANIFEST = f"has no {MANIFEST_FILE}"


@dataclass(frozen=True)
class FileEntry:
    """Size and digest of a file in a manifest."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of a checkpoint's manifest.json.

    Attributes:
        step: optimizer step.
        best: step of the checkpoint with the best weights so far; None if they are not loaded at the end.
        files: by path relative to the checkpoint.
    """

    step: int
    best: int | None
    files: dict[str, FileEntry]


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of all checkpoints in a folder, complete or not, in ascending order."""
    matches = [CHECKPOINT_NAME.fullmatch(path.name) for path in folder.glob("checkpoint-*") if path.is_dir()]
    return sorted(int(match[1]) for match in matches if match)


# ---------------------------------------------------------------- writing


def create_temporary(folder: Path) -> Path:
    """Create an empty temporary folder for the next checkpoint; leftovers of a killed run are removed."""
    temporary = folder / TEMPORARY_CHECKPOINT
    remove_leftovers(folder)
    temporary.mkdir(parents=True)
    return temporary


def remove_leftovers(folder: Path) -> None:
    """Remove what was being written or removed when a run was killed."""
    for name in (TEMPORARY_CHECKPOINT, REMOVED_CHECKPOINT):
        remove_path(folder / name)


def commit(temporary: Path, step: int, best: int | None) -> Path:
    """Turn a temporary folder into the checkpoint of a step: write the manifest, wait for the disk, rename.

    An existing checkpoint of this step is replaced. `best` is as in `Manifest`.

    Returns:
        The path of the checkpoint.
    """
    files = {path.relative_to(temporary).as_posix(): path for path in sorted(temporary.rglob("*")) if path.is_file()}
    entries = {name: FileEntry(path.stat().st_size, sha256(path)) for name, path in files.items()}
    text = json.dumps(asdict(Manifest(step, best, entries)), indent=2) + "\n"
    (temporary / MANIFEST_FILE).write_text(text, encoding="utf-8")
    fsync_tree(temporary)
    final = checkpoint_path(temporary.parent, step)
    discard(final)
    os.rename(temporary, final)
    fsync_path(temporary.parent)
    return final


def discard(path: Path) -> None:
    """Remove a checkpoint if it exists. It is renamed first, so that a partly removed one is never read."""
    if os.path.lexists(path):
        removed = path.with_name(REMOVED_CHECKPOINT)
        remove_path(removed)
        os.rename(path, removed)
        remove_path(removed)


def rotate(folder: Path, step: int, best: int | None, limit: int | None) -> None:
    """Remove old checkpoints beyond a limit.

    Args:
        folder: of the run.
        step: of the newest checkpoint, which stays. Damaged checkpoints of later steps also stay, until the run
            reaches their step again.
        best: step of the checkpoint that stays at any age, or None.
        limit: number of checkpoints to keep, newest first. It includes the best one, except that 1 keeps the newest and
            the best. None or 0 keeps all.
    """
    if not limit:
        return
    protected = {step} | ({best} if best is not None else set())
    candidates = [old for old in reversed(checkpoint_steps(folder)) if old <= step and old not in protected]
    for old in candidates[max(limit - len(protected), 0) :]:
        discard(checkpoint_path(folder, old))


# ---------------------------------------------------------------- reading


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the latest checkpoint that is complete and whose best checkpoint is complete; note damaged ones.

    Returns:
        None if there are no checkpoints, or only those of early versions, which have no manifest.

    Raises:
        UserError: there are checkpoints, but each is damaged, or its best checkpoint is.
    """
    errors: dict[Path, str] = {}
    for step in reversed(checkpoint_steps(folder)):
        path = checkpoint_path(folder, step)
        error = checkpoint_error(path) or _best_checkpoint_error(path)
        if error is None:
            log_note(f"{damaged}: {reason}; the run resumes from {path.name}" for damaged, reason in errors.items())
            return path
        errors[path] = error
    if any(error != NO_MANIFEST for error in errors.values()):
        remedy = "restore it, or start again with --overwrite_output_dir"
        raise UserError([f"{path}: {error}; {remedy}" for path, error in errors.items()])
    log_note(f"{path}: {error}, so it cannot be verified; the run starts again" for path, error in errors.items())
    return None


def _best_checkpoint_error(path: Path) -> str | None:
    manifest = _read_manifest(path)
    if manifest.best is None or manifest.best == manifest.step:
        return None
    error = checkpoint_error(checkpoint_path(path.parent, manifest.best))
    return None if error is None else f"the best weights so far are in checkpoint-{manifest.best}, which {error}"


def checkpoint_error(path: Path) -> str | None:
    """Return what is wrong with a checkpoint as the end of a sentence; None if it is complete and unchanged."""
    if not path.is_dir():
        return "is missing"
    if not (path / MANIFEST_FILE).is_file():
        return NO_MANIFEST
    try:
        manifest = _read_manifest(path)
    except (OSError, ValueError) as error:
        return f"has a {MANIFEST_FILE} that cannot be read ({error})"
    # Names in the manifest are looked up among the existing files and never opened as paths.
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    for name, entry in manifest.files.items():
        if name not in files:
            return f"lacks {name}"
        size = files[name].stat().st_size
        if size != entry.bytes:
            return f"has a {name} of {size} bytes, which was written with {entry.bytes}"
        if sha256(files[name]) != entry.sha256:
            return f"has a {name} that was changed since it was written"
    return None


def _read_manifest(path: Path) -> Manifest:
    try:
        return msgspec.json.decode((path / MANIFEST_FILE).read_bytes(), type=Manifest)
    except msgspec.ValidationError as error:
        raise ValueError("it is not a manifest of this trainer") from error

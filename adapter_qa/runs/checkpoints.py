"""Checkpoints on disk: written aside and renamed, verified before a run goes on from them, rotated.

A checkpoint is a folder `checkpoint-<step>` in the folder of its run. Its manifest.json, written last, has size and
sha256 of every file, and names the checkpoint that holds the best weights so far. What is in the other files is the
trainer's business. `checkpoint.writing` and `checkpoint.removing` are what a killed run may leave; they are never read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import fsync_path, fsync_tree, sha256
from adapter_qa.core.messages import log_note

MANIFEST = "manifest.json"
NAME = re.compile(r"checkpoint-(\d+)")
ASIDE, OUTGOING = "checkpoint.writing", "checkpoint.removing"
NO_MANIFEST = f"has no {MANIFEST}"


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of an optimizer step is, in the folder of its run."""
    return folder / f"checkpoint-{step}"


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of all checkpoints in a folder, whole or not, in order."""
    found = [NAME.fullmatch(path.name) for path in folder.glob("checkpoint-*") if path.is_dir()]
    return sorted(int(match.group(1)) for match in found if match)


# ---------------------------------------------------------------- writing


def empty_aside(folder: Path) -> Path:
    """A new folder in the same file system for what is not complete yet; what a killed run left there goes away."""
    aside = folder / ASIDE
    remove_leftovers(folder)
    aside.mkdir(parents=True)
    return aside


def remove_leftovers(folder: Path) -> None:
    """Removes what was being written or removed when a run was killed."""
    for name in (ASIDE, OUTGOING):
        if (folder / name).exists():
            shutil.rmtree(folder / name)


def commit(aside: Path, step: int, best: int | None) -> Path:
    """Makes a checkpoint of the files in a folder: manifest last, everything on the disk, then renamed.

    Args:
        aside: from `empty_aside`, with all files of the checkpoint.
        step: its optimizer step; a checkpoint of that step that exists is replaced.
        best: step of the checkpoint with the best weights so far; None if they are not to come back.

    Returns:
        Where it is now.

    Raises:
        OSError: the disk is full, or the like.
    """
    files = {path.relative_to(aside).as_posix(): path for path in sorted(aside.rglob("*")) if path.is_file()}
    listed = {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in files.items()}
    manifest = aside / MANIFEST
    manifest.write_text(json.dumps({"step": step, "best": best, "files": listed}, indent=2) + "\n", encoding="utf-8")
    fsync_tree(aside)
    final = checkpoint_path(aside.parent, step)
    discard(final)
    os.rename(aside, final)
    fsync_path(aside.parent)
    return final


def discard(path: Path) -> None:
    """Removes a checkpoint, if it is there: renamed first, so that half of it is never taken for one."""
    if path.exists():
        outgoing = path.with_name(OUTGOING)
        if outgoing.exists():
            shutil.rmtree(outgoing)
        os.rename(path, outgoing)
        shutil.rmtree(outgoing)


def rotate(folder: Path, step: int, best: int | None, limit: int | None) -> None:
    """Removes checkpoints up to a step that are no longer wanted.

    Args:
        folder: of the run.
        step: of the newest one, which stays. Later ones are another, damaged past; they stay until they are reached.
        best: step of the one that stays whatever its age; None: there is none.
        limit: checkpoints to keep, the newest first; the best one is among them, but with 1 comes on top. None or 0:
            all.
    """
    if not limit:
        return
    steps = [one for one in checkpoint_steps(folder) if one <= step]
    kept = {step} | ({best} if best is not None else set())
    others = [one for one in reversed(steps) if one not in kept]
    for one in others[max(limit - len(kept), 0) :]:
        discard(checkpoint_path(folder, one))


# ---------------------------------------------------------------- reading


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most steps that is whole, and whose best one is. Those passed over are said.

    Returns:
        None if there is none, or only ones from before there were manifests.

    Raises:
        UserError: there are checkpoints, but all of them are damaged, or their best ones are.
    """
    passed_over: dict[Path, str] = {}
    for step in reversed(checkpoint_steps(folder)):
        path = checkpoint_path(folder, step)
        fault = checkpoint_error(path) or _best_checkpoint_error(path)
        if fault is None:
            log_note(f"{name}: {reason}; the run goes on from {path.name}" for name, reason in passed_over.items())
            return path
        passed_over[path] = fault
    if any(fault != NO_MANIFEST for fault in passed_over.values()):
        raise UserError(
            [f"{path}: {fault}; put it back, or begin anew with --overwrite_output_dir"
             for path, fault in passed_over.items()]
        )  # fmt: skip
    log_note(
        f"{path}: {fault}, its completeness cannot be proven; the run begins anew"
        for path, fault in passed_over.items()
    )
    return None


def _best_checkpoint_error(path: Path) -> str | None:
    best = read_manifest(path)["best"]
    if best is None or best == read_manifest(path)["step"]:
        return None
    fault = checkpoint_error(checkpoint_path(path.parent, best))
    return None if fault is None else f"the best weights so far are in checkpoint-{best}, which {fault}"


def checkpoint_error(path: Path) -> str | None:
    """What is wrong with a checkpoint, as the end of a sentence; None if it is as it was written."""
    if not path.is_dir():
        return "is missing"
    if not (path / MANIFEST).is_file():
        return NO_MANIFEST
    try:
        listed = read_manifest(path)["files"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"has a {MANIFEST} that cannot be read ({error})"
    # Names in the manifest are looked up among those found, and never opened as paths.
    found = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    for name, expected in listed.items():
        if name not in found:
            return f"lacks {name}"
        size = found[name].stat().st_size
        if size != expected["bytes"]:
            return f"has a {name} of {size} bytes, which was written with {expected['bytes']}"
        if sha256(found[name]) != expected["sha256"]:
            return f"has a {name} that was changed since it was written"
    return None


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint: `step`, `best` and `files`, each file with `bytes` and `sha256`.

    Raises:
        OSError, ValueError, TypeError, KeyError, AttributeError: it is not what `commit` writes.
    """
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    files = {
        name: {"bytes": int(one["bytes"]), "sha256": str(one["sha256"])} for name, one in manifest["files"].items()
    }
    return {
        "step": int(manifest["step"]),
        "best": None if manifest["best"] is None else int(manifest["best"]),
        "files": files,
    }

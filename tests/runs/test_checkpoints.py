"""Checkpoints are written completely or not at all, and damage is recognised (adapter_qa/runs/checkpoints.py)."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from adapter_qa.core.errors import UserError
from adapter_qa.runs.checkpoints import (
    checkpoint_error,
    checkpoint_steps,
    commit,
    create_temporary,
    discard,
    newest_checkpoint,
    remove_leftovers,
    rotate,
)
from adapter_qa.runs.layout import MANIFEST_FILE


def save(folder: Path, step: int, best: int | None = None) -> Path:
    """Write a checkpoint of two files, one of them in a subfolder."""
    temporary = create_temporary(folder)
    (temporary / "weights").write_bytes(bytes([step]) * 100)
    (temporary / "shards").mkdir()
    (temporary / "shards" / "0").write_bytes(b"shard")
    return commit(temporary, step, best)


def test_commit_makes_a_complete_folder_with_a_manifest(tmp_path: Path) -> None:
    path = save(tmp_path, 7, best=3)
    assert path == tmp_path / "checkpoint-7"
    assert [child.name for child in tmp_path.iterdir()] == ["checkpoint-7"]
    manifest = json.loads((path / MANIFEST_FILE).read_text())
    assert (manifest["step"], manifest["best"]) == (7, 3)
    assert {name: entry["bytes"] for name, entry in manifest["files"].items()} == {"weights": 100, "shards/0": 5}
    assert manifest["files"]["shards/0"]["sha256"] == (
        "df3598cd66f1bb5bc4e2c17be89b7c7ecf0c81e53939f471a6b72db8d139edae"
    )
    assert checkpoint_error(path) is None


def test_everything_is_on_the_disk_before_the_folder_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations: list[str] = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(descriptor: int) -> None:
        operations.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path))
        fsync(descriptor)

    def record_rename(before: Path, after: Path) -> None:
        operations.append(f"{before.name} -> {after.name}")
        rename(before, after)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    save(tmp_path, 1)
    temporary = "checkpoint.writing"
    files = {f"{temporary}/{name}" for name in ("weights", "shards", "shards/0", MANIFEST_FILE)}
    assert set(operations[:4]) == files
    assert operations[4:] == [temporary, f"{temporary} -> checkpoint-1", "."]


def test_unsupported_fsync_is_accepted_and_a_full_disk_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.EINVAL, "Invalid")))
    save(tmp_path, 1)
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2)
    assert checkpoint_steps(tmp_path) == [1]


def test_commit_replaces_a_damaged_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "weights").unlink()
    save(tmp_path, 1)
    assert checkpoint_error(path) is None
    assert checkpoint_steps(tmp_path) == [1]


def truncate(path: Path) -> None:
    os.truncate(path / "weights", 99)


def change(path: Path) -> None:
    (path / "weights").write_bytes(b"x" * 100)


def cut_manifest(path: Path) -> None:
    os.truncate(path / MANIFEST_FILE, 30)


def write_another_manifest(path: Path) -> None:
    (path / MANIFEST_FILE).write_text('{"step": 1, "best": null, "files": ["weights"]}')


def list_a_file_outside(path: Path) -> None:
    listed = {"../outside": {"bytes": 1, "sha256": "0"}}
    (path / MANIFEST_FILE).write_text(json.dumps({"step": 1, "best": None, "files": listed}))


DAMAGE = [
    (truncate, "has a weights of 99 bytes, which was written with 100"),
    (change, "has a weights that was changed since it was written"),
    (lambda path: (path / "shards" / "0").unlink(), "lacks shards/0"),
    (lambda path: (path / MANIFEST_FILE).unlink(), "has no manifest.json"),
    (cut_manifest, "has a manifest.json that cannot be read ("),
    (write_another_manifest, "has a manifest.json that cannot be read ("),
    (list_a_file_outside, "lacks ../outside"),
    (shutil.rmtree, "is missing"),
]


@pytest.mark.parametrize(("damage", "error"), DAMAGE)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None], error: str) -> None:
    (tmp_path / "outside").write_text("x")
    path = save(tmp_path, 1)
    damage(path)
    assert str(checkpoint_error(path)).startswith(error)


@pytest.mark.parametrize(("damage", "error"), DAMAGE[:-1])
def test_run_resumes_from_an_older_complete_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], error: str
) -> None:
    save(tmp_path, 9)
    save(tmp_path, 10)
    damage(save(tmp_path, 100))
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {tmp_path}/checkpoint-100: {error}")
    assert line.endswith("; the run resumes from checkpoint-10")


@pytest.mark.parametrize(("damage", "error"), DAMAGE)
def test_checkpoint_without_its_best_weights_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], error: str
) -> None:
    save(tmp_path, 3, best=3)
    save(tmp_path, 6, best=6)
    save(tmp_path, 9, best=6)
    damage(tmp_path / "checkpoint-6")
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert f"checkpoint-9: the best weights so far are in checkpoint-6, which {error}" in capsys.readouterr().err


def test_damage_of_all_checkpoints_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, 6, best=6)
    save(tmp_path, 9, best=6)
    truncate(tmp_path / "checkpoint-6")
    with pytest.raises(UserError) as caught:
        newest_checkpoint(tmp_path)
    newer, older = caught.value.problems
    assert newer == (
        f"{tmp_path}/checkpoint-9: the best weights so far are in checkpoint-6, which has a weights of 99 bytes, which "
        "was written with 100; restore it, or start again with --overwrite_output_dir"
    )
    assert older.startswith(f"{tmp_path}/checkpoint-6: has a weights of 99 bytes")


def test_checkpoints_without_manifest_are_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "trainer_state.json").write_text("{}")
    assert newest_checkpoint(tmp_path) is None
    assert capsys.readouterr().err == (
        f"note: {tmp_path}/checkpoint-5: has no manifest.json, so it cannot be verified; the run starts again\n"
    )


def test_other_folders_and_files_are_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, 2)
    for name in ("checkpoint-last", "checkpoint-", "checkpoint-7.old", "checkpoint.writing", "checkpoint.removing"):
        shutil.copytree(tmp_path / "checkpoint-2", tmp_path / name)
    (tmp_path / "checkpoint-200").touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert capsys.readouterr().err == ""
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for name in ("checkpoint.writing", "checkpoint.removing"):
        (tmp_path / name / "deep").mkdir(parents=True)
    assert list(create_temporary(tmp_path).iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint.writing"]
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_discard_removes_the_checkpoint_and_leftovers(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.removing").mkdir()
    (tmp_path / "checkpoint.removing" / "half").touch()
    discard(save(tmp_path, 1))
    discard(tmp_path / "checkpoint-1")
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_that_is_a_link_is_replaced_and_discarded(tmp_path: Path) -> None:
    run, scratch = tmp_path / "run", tmp_path / "scratch"
    save(scratch, 1).rename(scratch / "moved")
    run.mkdir()
    for name, target in (("checkpoint-1", "moved"), ("checkpoint-2", "gone"), ("checkpoint.removing", "moved")):
        (run / name).symlink_to(scratch / target)
    for step in (1, 2):
        assert not save(run, step).is_symlink()
    (run / "checkpoint-3").symlink_to(scratch / "moved")
    discard(run / "checkpoint-3")
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint-1", "checkpoint-2"]
    assert checkpoint_error(scratch / "moved") is None


@pytest.mark.parametrize(
    ("step", "best", "limit", "expected"),
    [
        (50, None, 1, [50]),
        (50, 50, 1, [50]),
        (50, 20, 1, [20, 50]),
        (50, 20, 2, [20, 50]),
        (50, 20, 3, [20, 40, 50]),
        (50, None, 3, [30, 40, 50]),
        (50, 20, None, [10, 20, 30, 40, 50]),
        (50, 20, 0, [10, 20, 30, 40, 50]),
        (30, 20, 1, [20, 30, 40, 50]),
        (30, None, 9, [10, 20, 30, 40, 50]),
    ],
)
def test_rotation_keeps_the_newest_and_the_best(
    tmp_path: Path, step: int, best: int | None, limit: int | None, expected: list[int]
) -> None:
    for saved in (10, 20, 30, 40, 50):
        save(tmp_path, saved)
    rotate(tmp_path, step, best, limit)
    assert checkpoint_steps(tmp_path) == expected
    assert len(list(tmp_path.iterdir())) == len(expected)

"""Checkpoints on disk (adapter_qa/runs/checkpoints.py): taken into use whole, damage seen, the right one gone on from."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adapter_qa.core.errors import UserError
from adapter_qa.runs.checkpoints import (
    MANIFEST,
    checkpoint_error,
    checkpoint_steps,
    commit,
    discard,
    empty_aside,
    newest_checkpoint,
    remove_leftovers,
    rotate,
)


def save(folder: Path, step: int, best: int | None = None) -> Path:
    """A checkpoint of two files, one of them in a folder of its own."""
    aside = empty_aside(folder)
    (aside / "weights").write_bytes(bytes([step]) * 100)
    (aside / "shards").mkdir()
    (aside / "shards" / "0").write_bytes(b"shard")
    return commit(aside, step, best)


def test_a_commit_is_a_whole_folder_with_a_manifest(tmp_path: Path) -> None:
    path = save(tmp_path, 7, best=3)
    assert path == tmp_path / "checkpoint-7" and [one.name for one in tmp_path.iterdir()] == ["checkpoint-7"]
    manifest = json.loads((path / MANIFEST).read_text())
    assert (manifest["step"], manifest["best"]) == (7, 3)
    assert {name: one["bytes"] for name, one in manifest["files"].items()} == {"weights": 100, "shards/0": 5}
    assert manifest["files"]["shards/0"]["sha256"] == (
        "df3598cd66f1bb5bc4e2c17be89b7c7ecf0c81e53939f471a6b72db8d139edae"
    )
    assert checkpoint_error(path) is None


def test_everything_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        done.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path))
        sync(descriptor)

    def renamed(before: Path, after: Path) -> None:
        done.append(f"{before.name} -> {after.name}")
        rename(before, after)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    save(tmp_path, 1)
    aside = "checkpoint.writing"
    files = {f"{aside}/{name}" for name in ("weights", "shards", "shards/0", MANIFEST)}
    assert set(done[:4]) == files
    assert done[4:] == [aside, f"{aside} -> checkpoint-1", "."]


def test_folders_that_cannot_be_synced_are_no_error_and_full_disks_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.EINVAL, "Invalid")))
    save(tmp_path, 1)
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2)
    assert checkpoint_steps(tmp_path) == [1]


def test_a_commit_takes_the_place_of_a_damaged_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "weights").unlink()
    save(tmp_path, 1)
    assert checkpoint_error(path) is None and checkpoint_steps(tmp_path) == [1]


def truncate(path: Path) -> None:
    os.truncate(path / "weights", 99)


def change(path: Path) -> None:
    (path / "weights").write_bytes(b"x" * 100)


def cut_manifest(path: Path) -> None:
    os.truncate(path / MANIFEST, 30)


def manifest_of_another_kind(path: Path) -> None:
    (path / MANIFEST).write_text('{"step": 1, "best": null, "files": ["weights"]}')


def lead_outside(path: Path) -> None:
    listed = {"../outside": {"bytes": 1, "sha256": "0"}}
    (path / MANIFEST).write_text(json.dumps({"step": 1, "best": None, "files": listed}))


DAMAGE = [
    (truncate, "has a weights of 99 bytes, which was written with 100"),
    (change, "has a weights that was changed since it was written"),
    (lambda path: (path / "shards" / "0").unlink(), "lacks shards/0"),
    (lambda path: (path / MANIFEST).unlink(), "has no manifest.json"),
    (cut_manifest, "has a manifest.json that cannot be read ("),
    (manifest_of_another_kind, "has a manifest.json that cannot be read ("),
    (lead_outside, "lacks ../outside"),
    (shutil.rmtree, "is missing"),
]


@pytest.mark.parametrize(("damage", "fault"), DAMAGE)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None], fault: str) -> None:
    (tmp_path / "outside").write_text("x")
    path = save(tmp_path, 1)
    damage(path)
    assert str(checkpoint_error(path)).startswith(fault)


@pytest.mark.parametrize(("damage", "fault"), DAMAGE[:-1])
def test_an_older_whole_one_is_gone_on_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], fault: str
) -> None:
    save(tmp_path, 9)
    save(tmp_path, 10)
    damage(save(tmp_path, 100))
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {tmp_path}/checkpoint-100: {fault}")
    assert line.endswith("; the run goes on from checkpoint-10")


@pytest.mark.parametrize(("damage", "fault"), DAMAGE)
def test_none_is_gone_on_from_without_the_best_weights_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], fault: str
) -> None:
    save(tmp_path, 3, best=3)
    save(tmp_path, 6, best=6)
    save(tmp_path, 9, best=6)
    damage(tmp_path / "checkpoint-6")
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert f"checkpoint-9: the best weights so far are in checkpoint-6, which {fault}" in capsys.readouterr().err


def test_damage_without_a_whole_one_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, 6, best=6)
    save(tmp_path, 9, best=6)
    truncate(tmp_path / "checkpoint-6")
    with pytest.raises(UserError) as caught:
        newest_checkpoint(tmp_path)
    newer, older = caught.value.problems
    assert newer == (
        f"{tmp_path}/checkpoint-9: the best weights so far are in checkpoint-6, which has a weights of 99 bytes, which "
        "was written with 100; put it back, or begin anew with --overwrite_output_dir"
    )
    assert older.startswith(f"{tmp_path}/checkpoint-6: has a weights of 99 bytes")


def test_checkpoints_from_before_manifests_are_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "trainer_state.json").write_text("{}")
    assert newest_checkpoint(tmp_path) is None
    assert capsys.readouterr().err == (
        f"note: {tmp_path}/checkpoint-5: has no manifest.json, its completeness cannot be proven; the run begins anew\n"
    )


def test_what_is_no_checkpoint_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, 2)
    for name in ("checkpoint-last", "checkpoint-", "checkpoint-7.old", "checkpoint.writing", "checkpoint.removing"):
        shutil.copytree(tmp_path / "checkpoint-2", tmp_path / name)
    (tmp_path / "checkpoint-200").touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert capsys.readouterr().err == ""
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_leftovers_of_a_killed_run_go_away(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for name in ("checkpoint.writing", "checkpoint.removing"):
        (tmp_path / name / "deep").mkdir(parents=True)
    assert list(empty_aside(tmp_path).iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint.writing"]
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_discarding(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.removing").mkdir()
    (tmp_path / "checkpoint.removing" / "half").touch()
    discard(save(tmp_path, 1))
    discard(tmp_path / "checkpoint-1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("step", "best", "limit", "left"),
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
def test_rotation(tmp_path: Path, step: int, best: int | None, limit: int | None, left: list[int]) -> None:
    for one in (10, 20, 30, 40, 50):
        save(tmp_path, one)
    rotate(tmp_path, step, best, limit)
    assert checkpoint_steps(tmp_path) == left
    assert len(list(tmp_path.iterdir())) == len(left)

"""Saved folders (adapter_qa/models/saved_folders.py): how they are found."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapters import Fuse, Stack
from support.problems import problem_of
from support.saved_folders import write_adapter, write_setup

from adapter_qa.models.saved_folders import find_folder


def test_a_saved_folder_is_found_by_its_own_path(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "qa")
    setup = write_setup(tmp_path / "adapters-qa", Stack("qa"), None, ["qa"])
    assert find_folder("--load_adapter", str(adapter)) == adapter
    assert find_folder("--load_adapter", str(setup)) == setup


def test_a_saved_folder_is_found_by_the_folder_of_its_run(tmp_path: Path) -> None:
    setup = write_setup(tmp_path / "adapters-fusion", Fuse("qa", "ner"), None, ["qa", "ner"])
    for leftover in ("adapters-fusion.writing", "adapters-fusion.old.writing"):  # of a killed run
        write_setup(tmp_path / leftover, Stack("qa"), None, ["qa"])
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "adapters-incomplete").mkdir()
    (tmp_path / "run.json").touch()
    assert find_folder("--load_adapter", str(tmp_path)) == setup


def test_a_run_with_several_saved_folders_is_refused(tmp_path: Path) -> None:
    for task in ("qa", "ner"):
        write_setup(tmp_path / f"adapters-{task}", Stack(task), None, [task])
    assert problem_of(find_folder, "--load_adapter", str(tmp_path)) == (
        f"--load_adapter {tmp_path}: holds adapters-ner, adapters-qa; give one of them"
    )


def test_a_folder_without_adapters_is_refused(tmp_path: Path) -> None:
    assert problem_of(find_folder, "RUN", str(tmp_path)) == (
        f"RUN {tmp_path}: holds no adapter_setup.json or adapter_config.json; "
        "give the adapters-<task> folder of a finished run"
    )


@pytest.mark.parametrize("path", ["none", "a/b/c", "/no/such/folder", "./none"])
def test_a_missing_folder_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert problem_of(find_folder, "--load_lang_adapter", path) == (
        f"--load_lang_adapter {path}: no such folder; give an adapters-<task> folder or a hub id such as org/name"
    )


def test_a_hub_id_that_is_not_cached_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    problem = problem_of(find_folder, "--load_adapter", "no-org/no-adapter")
    assert problem.startswith("--load_adapter no-org/no-adapter: no such folder, and the hub does not provide it (")

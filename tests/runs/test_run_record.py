"""run.json (adapter_qa/runs/run_record.py): which folder a run may take, what an earlier one left, files always whole."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import transformers
from support.scripts import ROOT

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import file_fingerprint, write_json
from adapter_qa.runs import run_record
from adapter_qa.runs.checkpoints import commit, empty_aside
from adapter_qa.runs.run_record import (
    LOCK_FILE,
    MADE_BY_RUNS,
    PACKAGES,
    RUN_FILE,
    RunRecord,
    device_name,
    now,
    open_run,
    source_commit,
    versions,
)

OPTIONS = {"seed": 42, "learning_rate": 1e-4, "train_file": "a.json", "madx2": True, "output_dir": "x"}


def taken(folder: Path | None, changed: dict[str, Any] | None = None, *, overwrite: bool = False) -> RunRecord:
    options = {**OPTIONS, **(changed or {})}
    record = open_run(folder, ["--seed", "42"], "run_qa_adapter.py", options, overwrite=overwrite)
    if not record.finished:
        record.begin()
    return record


def refusal(folder: Path, changed: dict[str, Any] | None = None, *, overwrite: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        taken(folder, changed, overwrite=overwrite)
    (problem,) = caught.value.problems
    assert "\n" not in problem
    return problem


def on_disk(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))


# ---------------------------------------------------------------- taking a folder


@pytest.mark.parametrize("exists", [False, True])
def test_a_fresh_folder(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "outputs" / "model" / "run"
    if exists:
        folder.mkdir(parents=True)
    record = taken(folder)
    assert (record.resume_from, record.finished) == (None, False)
    document = on_disk(folder)
    assert document == record.document
    assert document["status"] == "running" and document["options"] == OPTIONS | {"processes": 1}
    assert document["command"] == ["run_qa_adapter.py", "--seed", "42"] and document["script"] == "run_qa_adapter.py"
    assert sorted(path.name for path in folder.iterdir()) == [RUN_FILE, LOCK_FILE]


def test_notes_are_written_at_once(tmp_path: Path) -> None:
    record = taken(tmp_path)
    record.update(metrics={"eval": {"f1": 84.43}}, place="São Luís")
    document = on_disk(tmp_path)
    assert (document["metrics"], document["place"]) == ({"eval": {"f1": 84.43}}, "São Luís")
    assert document["times"]["seconds"] >= 0 and document["status"] == "running"


def test_a_finished_run_is_found_and_left_alone(tmp_path: Path) -> None:
    taken(tmp_path).finish()
    before = (tmp_path / RUN_FILE).read_bytes()
    assert json.loads(before)["status"] == "finished" and "finished" in json.loads(before)["times"]
    assert taken(tmp_path).finished
    assert (tmp_path / RUN_FILE).read_bytes() == before


def test_an_unfinished_run_goes_on_from_its_newest_checkpoint(tmp_path: Path) -> None:
    taken(tmp_path)
    for step in (9, 30):
        commit(empty_aside(tmp_path), step, None)
    (tmp_path / "checkpoint-100").mkdir()
    record = taken(tmp_path)
    assert not record.finished
    assert record.resume_from == tmp_path / "checkpoint-30"
    assert on_disk(tmp_path)["status"] == "running"


def test_an_unfinished_run_without_checkpoint_begins_anew(tmp_path: Path) -> None:
    taken(tmp_path)
    record = taken(tmp_path)
    assert (record.resume_from, record.finished) == (None, False)


@pytest.mark.parametrize(
    "name",
    ["overwrite_output_dir", "dry_run", "output_dir", "run_name", "logging_dir", "report_to", "disable_tqdm"]
    + ["resume_from_checkpoint", "local_rank"],
)
def test_options_that_change_no_result_make_no_other_run(tmp_path: Path, name: str) -> None:
    taken(tmp_path, {name: "before"}).finish()
    assert taken(tmp_path, {name: "after"}).finished


@pytest.mark.parametrize("finished", [False, True])
def test_other_options_are_refused_by_name(tmp_path: Path, finished: bool) -> None:
    record = taken(tmp_path, {"load_adapter": "a"})
    if finished:
        record.finish()
    before = (tmp_path / RUN_FILE).read_bytes()
    assert refusal(tmp_path, {"seed": 1, "madx2": False, "new_option": 3}) == (
        f"--output_dir {tmp_path}: holds a run with other options (load_adapter was a, now None; "
        "madx2 was True, now False; new_option was None, now 3; seed was 42, now 1); "
        "give another folder, or --overwrite_output_dir to replace it"
    )
    assert (tmp_path / RUN_FILE).read_bytes() == before


def test_at_most_five_other_options_are_named(tmp_path: Path) -> None:
    taken(tmp_path)
    problem = refusal(tmp_path, {f"option_{number}": number for number in range(9)})
    assert re.findall(r"option_\d was", problem) == [f"option_{number} was" for number in range(5)]


def test_a_folder_with_foreign_files_is_refused_even_to_overwrite(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "config.json").write_text("mine")
    expected = f"--output_dir {tmp_path}: is not empty and holds no run; give another folder or empty it yourself"
    assert refusal(tmp_path) == refusal(tmp_path, overwrite=True) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "config.json"]


def test_overwriting_removes_only_what_runs_make(tmp_path: Path) -> None:
    taken(tmp_path).finish()
    for pattern in MADE_BY_RUNS:
        path = tmp_path / pattern.replace("*", "1")
        if pattern in ("checkpoint-*", "adapters-*", "base", "runs"):
            path.mkdir()
            (path / "file").touch()
        else:
            path.touch()
    (tmp_path / "plots").mkdir()
    for mine in ("notes.txt", "plots/loss.png", "data.json", "checkpoints.md"):
        (tmp_path / mine).write_text("mine")
    record = taken(tmp_path, {"seed": 5}, overwrite=True)
    assert (record.resume_from, record.finished) == (None, False)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["checkpoints.md", "data.json", "notes.txt", "plots/loss.png", RUN_FILE, LOCK_FILE]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["plots"]
    assert on_disk(tmp_path)["options"]["seed"] == 5


def test_looking_at_a_folder_writes_and_removes_nothing(tmp_path: Path) -> None:
    record = open_run(tmp_path / "new", [], "run_qa_adapter.py", OPTIONS, overwrite=False)
    record.update(data={"train": {}})
    assert not (tmp_path / "new").exists()
    taken(tmp_path / "old").finish()
    before = (tmp_path / "old" / RUN_FILE).read_bytes()
    replacing = open_run(tmp_path / "old", [], "run_qa_adapter.py", {**OPTIONS, "seed": 5}, overwrite=True)
    replacing.update(setup="Stack[qa]")
    assert (tmp_path / "old" / RUN_FILE).read_bytes() == before
    record.begin()
    assert on_disk(tmp_path / "new")["data"] == {"train": {}}


def test_overwriting_nothing(tmp_path: Path) -> None:
    assert on_disk(Path(str(taken(tmp_path / "new", overwrite=True).folder)))["status"] == "running"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_place_of_the_folder(tmp_path: Path, overwrite: bool) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    assert refusal(path, overwrite=overwrite) == f"--output_dir {path}: is a file; give a folder"
    assert refusal(path / "run") == f"--output_dir {path / 'run'}: {path} is a file; give another folder"
    assert path.read_text() == "mine"


@pytest.mark.parametrize("content", ['{"options": {', "[]", "{}", "", "\xff"])
def test_a_damaged_record_is_refused_and_can_be_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / RUN_FILE).write_bytes(content.encode("latin-1"))
    problem = refusal(tmp_path)
    assert problem.startswith(f"{tmp_path / RUN_FILE}: cannot be read (")
    assert problem.endswith("); give --overwrite_output_dir or another folder")
    assert on_disk(Path(str(taken(tmp_path, overwrite=True).folder)))["status"] == "running"


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = taken(None, overwrite=True)
    record.update(setup="Stack[qa]")
    record.finish()
    assert record.document["setup"] == "Stack[qa]" and list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- whole files


def test_json_as_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": "São Luís", "a": [1, 0.1]})
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n") and "São Luís" in text and list(json.loads(text)) == ["b", "a"]
    assert list(tmp_path.iterdir()) == [path]


def write_all(path: Path, documents: list[dict[str, Any]]) -> None:
    for document in documents:
        write_json(path, document)


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / RUN_FILE
    documents = [{"round": number, "history": [number] * (3000 if number % 2 else 1)} for number in range(150)]
    write_json(path, documents[0])
    thread = threading.Thread(target=write_all, args=(path, documents))
    thread.start()
    seen = []
    under_way = True
    while under_way:
        under_way = thread.is_alive()
        seen.append(json.loads(path.read_text(encoding="utf-8")))
    thread.join()
    assert all(document in documents for document in seen)
    assert json.loads(path.read_text(encoding="utf-8")) == documents[-1]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / RUN_FILE
    write_json(path, {"round": 1})
    whole = Path.write_text

    def broken(self: Path, text: str, **others: Any) -> int:
        whole(self, text[: len(text) // 2], **others)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", broken)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"round": 2})
    assert json.loads(path.read_text(encoding="utf-8")) == {"round": 1}


# ---------------------------------------------------------------- provenance


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_fingerprints_of_files(tmp_path: Path, size: int) -> None:
    path = tmp_path / "data.json"
    content = os.urandom(size)
    path.write_bytes(content)
    expected = {"file": str(path), "bytes": size, "sha256": hashlib.sha256(content).hexdigest()}
    assert file_fingerprint(path) == file_fingerprint(str(path)) == expected


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which this trainer seems to be installed, without a checkout around it."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    package = tmp_path / "adapter_qa"
    package.mkdir()
    monkeypatch.setattr(run_record, "__file__", str(package / "run_record.py"))
    return tmp_path


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=Ana", "-c", "user.email=ana@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_commit_of_a_checkout(elsewhere: Path) -> None:
    git(elsewhere, "init", "-q")
    (elsewhere / "file").write_text("1")
    git(elsewhere, "add", "file")
    git(elsewhere, "commit", "-q", "-m", "first")
    git(elsewhere, "tag", "-a", "v1.0", "-m", "a tag must not hide the commit")
    commit = git(elsewhere, "rev-parse", "HEAD")
    assert len(commit) == 40 and source_commit() == commit
    (elsewhere / "file").write_text("2")
    assert source_commit() == f"{commit}-dirty"


def test_no_commit_outside_a_checkout(elsewhere: Path) -> None:
    assert source_commit() is None


def test_no_commit_without_git(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(elsewhere, "init", "-q")
    git(elsewhere, "commit", "-q", "--allow-empty", "-m", "first")
    monkeypatch.setenv("PATH", str(elsewhere))
    assert source_commit() is None


def test_versions_are_those_imported() -> None:
    found = versions()
    assert set(found) == {"python", *PACKAGES}
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert (found["transformers"], found["numpy"]) == (transformers.__version__, numpy.__version__)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert re.fullmatch(r"CPU \w+, \d+ threads", device_name())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    assert device_name() == "2 x GPU 0"


def test_now_is_local_time_with_its_zone() -> None:
    moment = datetime.datetime.strptime(now(), "%Y-%m-%dT%H:%M:%S%z")
    assert abs((datetime.datetime.now(datetime.UTC) - moment).total_seconds()) < 5


def test_tokens_on_the_command_line_are_not_recorded() -> None:
    words = ["--seed", "1", "--hub_token", "hf_secret", "--push_to_hub_token=hf_other", "--label_all_tokens", "True"]
    assert run_record.without_secrets(words) == [
        "--seed", "1", "--hub_token", "<hidden>", "--push_to_hub_token=<hidden>", "--label_all_tokens", "True",
    ]  # fmt: skip


# ---------------------------------------------------------------- one process at a time

HOLDER = """
import sys, time
from pathlib import Path
from adapter_qa.runs.run_record import lock_run_dir
lock_run_dir(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds a folder."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_refused_while_its_process_lives(tmp_path: Path, overwrite: bool) -> None:
    begun = open_run(tmp_path / "run", [], "run_qa_adapter.py", OPTIONS, overwrite=overwrite)
    (tmp_path / "run").mkdir()
    other = holder(tmp_path / "run")
    expected = (
        f"--output_dir {tmp_path / 'run'}: another run is at work there "
        f"(process {other.pid} on {socket.gethostname()}); wait for it, or give another folder"
    )
    assert refusal(tmp_path / "run", overwrite=overwrite) == expected
    with pytest.raises(UserError) as caught:  # it was free when it was looked at
        begun.begin()
    assert caught.value.problems == [expected]
    other.kill()
    other.wait()
    record = taken(tmp_path / "run", overwrite=overwrite)
    assert (tmp_path / "run" / LOCK_FILE).read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
    assert record.document["status"] == "running"


def test_a_process_takes_its_own_folder_again(tmp_path: Path) -> None:
    taken(tmp_path)
    assert not taken(tmp_path).finished


def test_other_processes_of_a_run_neither_hold_nor_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    taken(tmp_path / "run").finish()
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- killed at the beginning


@pytest.mark.parametrize("left", [[LOCK_FILE], [LOCK_FILE, "run.json.writing"]])
def test_what_a_run_killed_at_its_beginning_left_is_no_strangers(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).touch()
    assert taken(tmp_path).document["status"] == "running"


def test_overwriting_that_is_killed_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken(tmp_path).finish()
    for name in ("checkpoint-1", "adapters-qa"):
        (tmp_path / name).mkdir()
    remove = shutil.rmtree

    def killed(path: Path, **others: Any) -> None:
        remove(path, **others)
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        taken(tmp_path, overwrite=True)
    monkeypatch.setattr(shutil, "rmtree", remove)
    record = taken(tmp_path, {"seed": 6}, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [RUN_FILE, LOCK_FILE]
    assert not record.finished

"""Locks of run folders (adapter_qa/runs/lock.py)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.scripts import ROOT

from adapter_qa.core.errors import UserError
from adapter_qa.runs.layout import LOCK_FILE
from adapter_qa.runs.lock import is_locked, lock_run_dir
from adapter_qa.runs.run_record import open_run

HOLDER = """
import sys, time
from pathlib import Path
from adapter_qa.runs.lock import lock_run_dir
lock_run_dir(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(600)
"""


def start_holder(folder: Path) -> subprocess.Popen[str]:
    """Start another process that locks a folder."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


@pytest.mark.parametrize("overwrite", [False, True])
def test_locked_folder_is_refused_until_its_process_ends(tmp_path: Path, overwrite: bool) -> None:
    folder = tmp_path / "run"
    opened = open_run(folder, [], "run_qa_adapter.py", {}, overwrite=overwrite)
    folder.mkdir()
    holder = start_holder(folder)
    expected = (
        f"--output_dir {folder}: another run is working there "
        f"(process {holder.pid} on {socket.gethostname()}); wait for it, or give another folder"
    )
    assert is_locked(folder)
    with pytest.raises(UserError) as caught:
        open_run(folder, [], "run_qa_adapter.py", {}, overwrite=overwrite)
    assert caught.value.problems == [expected]
    with pytest.raises(UserError) as caught:  # the folder was free when it was opened
        opened.begin()
    assert caught.value.problems == [expected]
    holder.kill()
    holder.wait()
    assert not is_locked(folder)
    lock_run_dir(folder)
    assert (folder / LOCK_FILE).read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_a_run_begins_while_another_process_only_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looking = start_holder(tmp_path)

    def stop_looking(_: float) -> None:
        looking.kill()
        looking.wait()

    monkeypatch.setattr("adapter_qa.runs.lock.time.sleep", stop_looking)
    lock_run_dir(tmp_path)
    assert (tmp_path / LOCK_FILE).read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_process_can_lock_its_folder_again_and_keeps_the_lock(tmp_path: Path) -> None:
    lock_run_dir(tmp_path)
    lock_run_dir(tmp_path)
    assert is_locked(tmp_path)
    command = [sys.executable, "-c", "import sys, pathlib; from adapter_qa.runs.lock import is_locked; "
             "print(is_locked(pathlib.Path(sys.argv[1])))", str(tmp_path)]  # fmt: skip
    assert subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout == "True\n"


def test_folder_without_lock_file_is_not_locked(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert not is_locked(tmp_path / "missing")

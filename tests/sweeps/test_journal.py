"""The journal of a sweep: what is left of it when a disk was full or a machine lost its power."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
from support.sweeps import WriteSweep, read_report, read_starts, run_worker

from adapter_qa.core.errors import UserError
from adapter_qa.sweeps.journal import JournalLock
from adapter_qa.sweeps.search_space import read_sweep
from adapter_qa.sweeps.study import TrialStore, open_storage


def test_half_a_record_is_removed_before_the_next_one(write_sweep: WriteSweep) -> None:
    file = write_sweep(trials=1)
    assert run_worker(file) == 0
    journal = file.parent / "sweep" / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":8,"worker_')
    for _ in range(2):  # the record of the first start must not join the half one
        assert run_worker(file) == 0
    content = journal.read_bytes()
    assert content.startswith(whole)
    assert b'"worker_{' not in content
    assert read_report(file)["best"] == 0
    assert read_starts(file) == {"0000 0": 1}


def test_trial_whose_end_was_cut_is_taken_over(write_sweep: WriteSweep) -> None:
    file = write_sweep(trials=1)
    assert run_worker(file) == 0
    journal = file.parent / "sweep" / "journal.log"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert run_worker(file, "--lease", "3") == 0
    assert [(trial["state"], trial["f1"]) for trial in read_report(file)["trials"]] == [("finished", 41.0)]
    assert read_starts(file) == {"0000 0": 1, "0000 4": 1}  # it was finished already


def test_workers_go_on_after_half_a_record_of_another(write_sweep: WriteSweep, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    sweep = read_sweep(write_sweep())
    first, second = (TrialStore(sweep, folder, open_storage(folder, None), "sweep", 60) for _ in range(2))
    with (folder / "journal.log").open("ab") as stream:
        stream.write(b'{"op_code":4,')
    claimed = [store.claim() for store in (first, second)]
    assert [trial.number for trial in claimed if trial is not None] == [0, 1]


def test_a_worker_whose_write_is_cut_can_go_on(write_sweep: WriteSweep, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    store = TrialStore(read_sweep(write_sweep()), folder, open_storage(folder, None), "sweep", 60)
    journal = folder / "journal.log"
    whole = journal.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, hard))  # as a disk with 10 bytes left
    try:
        with pytest.raises(OSError, match="File too large"):
            store.claim()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(journal.read_bytes()) == len(whole) + 10
    trial = store.claim()
    assert trial is not None
    assert trial.number == 0
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())


def test_lock_is_released_if_the_journal_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        JournalLock(tmp_path / "journal.log").acquire()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "why"),
    [(b"{}\n", "'op_code'"), (b"{\n", "Expecting property name enclosed in double quotes: line 2 column 1 (char 2)")],
)
def test_damage_in_the_middle_is_one_line(write_sweep: WriteSweep, line: bytes, why: str) -> None:
    file = write_sweep(trials=1)
    assert run_worker(file) == 0
    journal = file.parent / "sweep" / "journal.log"
    first, _, *others = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([first, line, *others]))
    with pytest.raises(UserError) as caught:
        run_worker(file)
    assert caught.value.problems == [f"{journal}: is damaged ({why}); give another --output_dir"]


def test_damage_while_a_worker_runs_is_one_line(write_sweep: WriteSweep, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    store = TrialStore(read_sweep(write_sweep()), folder, open_storage(folder, None), "sweep", 60)
    journal = folder / "journal.log"
    with journal.open("ab") as stream:
        stream.write(b"x\n{}\n")
    with pytest.raises(UserError) as caught:
        store.claim()
    why = "Expecting value: line 1 column 1 (char 0)"
    assert caught.value.problems == [f"{journal}: is damaged ({why}); give another --output_dir"]

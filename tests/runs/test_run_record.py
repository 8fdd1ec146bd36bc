"""run.json and the folders that a run may use (adapter_qa/runs/run_record.py)."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.problems import problem_of

from adapter_qa.runs.checkpoints import commit, create_temporary
from adapter_qa.runs.layout import LOCK_FILE, RUN_FILE
from adapter_qa.runs.run_document import DataSource
from adapter_qa.runs.run_record import RunRecord, open_run, removes

OPTIONS = {"seed": 42, "learning_rate": 1e-4, "train_file": "a.json", "madx2": True, "output_dir": "x"}


def begin_run(folder: Path | None, changed: dict[str, Any] | None = None, *, overwrite: bool = False) -> RunRecord:
    options = {**OPTIONS, **(changed or {})}
    record = open_run(folder, ["--seed", "42"], "run_qa_adapter.py", options, overwrite=overwrite)
    if not record.finished:
        record.begin()
    return record


def refusal(folder: Path, changed: dict[str, Any] | None = None, *, overwrite: bool = False) -> str:
    return problem_of(partial(begin_run, folder, changed, overwrite=overwrite))


def read_record(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    return record


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("exists", [False, True])
def test_free_folder_is_used(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "outputs" / "model" / "run"
    if exists:
        folder.mkdir(parents=True)
    record = begin_run(folder)
    assert (record.resume_from, record.finished) == (None, False)
    document = read_record(folder)
    assert document == record.content()
    assert document["status"] == "running"
    assert document["options"] == OPTIONS | {"processes": 1}
    assert document["command"] == ["run_qa_adapter.py", "--seed", "42"]
    assert document["script"] == "run_qa_adapter.py"
    assert sorted(path.name for path in folder.iterdir()) == [RUN_FILE, LOCK_FILE]


def test_a_run_that_began_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """Between the opening of the folder and the beginning of the run lie the windows and the model."""
    waiting = open_run(tmp_path, [], "run_qa_adapter.py", OPTIONS, overwrite=False)
    begin_run(tmp_path, {"seed": 1}).finish()
    before = (tmp_path / RUN_FILE).read_bytes()
    assert problem_of(waiting.begin) == (
        f"--output_dir {tmp_path}: another run has begun there since this one started; give the same command again, "
        "or another folder"
    )
    assert (tmp_path / RUN_FILE).read_bytes() == before


def test_updates_are_written_at_once(tmp_path: Path) -> None:
    record = begin_run(tmp_path)
    record.document.metrics, record.document.setup = {"eval": {"f1": 84.43}}, "São Luís"
    record.write()
    document = read_record(tmp_path)
    assert (document["metrics"], document["setup"]) == ({"eval": {"f1": 84.43}}, "São Luís")
    assert document["times"]["seconds"] >= 0
    assert document["status"] == "running"


def test_finished_run_is_recognised_and_unchanged(tmp_path: Path) -> None:
    begin_run(tmp_path).finish()
    before = (tmp_path / RUN_FILE).read_bytes()
    assert json.loads(before)["status"] == "finished"
    assert "finished" in json.loads(before)["times"]
    assert begin_run(tmp_path).finished
    assert (tmp_path / RUN_FILE).read_bytes() == before


def test_interrupted_run_resumes_from_its_newest_checkpoint(tmp_path: Path) -> None:
    begin_run(tmp_path)
    for step in (9, 30):
        commit(create_temporary(tmp_path), step, None)
    (tmp_path / "checkpoint-100").mkdir()
    record = begin_run(tmp_path)
    assert not record.finished
    assert record.resume_from == tmp_path / "checkpoint-30"
    assert read_record(tmp_path)["status"] == "running"


def test_interrupted_run_without_checkpoint_starts_again(tmp_path: Path) -> None:
    begin_run(tmp_path)
    record = begin_run(tmp_path)
    assert (record.resume_from, record.finished) == (None, False)


@pytest.mark.parametrize(
    "name",
    [
        "overwrite_output_dir",
        "dry_run",
        "output_dir",
        "run_name",
        "logging_dir",
        "report_to",
        "disable_tqdm",
        "resume_from_checkpoint",
        "local_rank",
        "use_cpu",
        "dataloader_pin_memory",
    ],
)
def test_neutral_options_may_differ(tmp_path: Path, name: str) -> None:
    begin_run(tmp_path, {name: "before"}).finish()
    assert begin_run(tmp_path, {name: "after"}).finished


@pytest.mark.parametrize("finished", [False, True])
def test_differing_options_are_refused_by_name(tmp_path: Path, finished: bool) -> None:
    record = begin_run(tmp_path, {"load_adapter": "a"})
    if finished:
        record.finish()
    before = (tmp_path / RUN_FILE).read_bytes()
    assert refusal(tmp_path, {"seed": 1, "madx2": False, "new_option": 3}) == (
        f"--output_dir {tmp_path}: holds {'a finished' if finished else 'an unfinished'} run with other options "
        "(load_adapter was a, now None; madx2 was True, now False; new_option was None, now 3; seed was 42, now 1); "
        + (
            "give another folder, or --overwrite_output_dir to replace it"
            if finished
            else "it resumes with its own options only: give those, another folder, or --overwrite_output_dir"
        )
    )
    assert (tmp_path / RUN_FILE).read_bytes() == before


@pytest.mark.parametrize("finished", [False, True])
def test_an_option_that_the_earlier_version_lacked_has_the_value_by_which_it_trained(
    tmp_path: Path, finished: bool
) -> None:
    record = begin_run(tmp_path)
    if finished:
        record.finish()
    changed = partial(open_run, tmp_path, [], "run_qa_adapter.py", earlier={"new_option": 2}, overwrite=False)
    assert changed(options={**OPTIONS, "new_option": 2}).finished is finished
    problem = problem_of(partial(changed, options={**OPTIONS, "new_option": 3}))
    assert "(new_option was 2, now 3)" in problem


@pytest.mark.parametrize(
    ("options", "changed", "loaded"),
    [
        ({}, {"num_train_epochs": 4.0}, "--load_adapter {}"),
        ({"max_steps": 5}, {"max_steps": 9}, "--load_adapter {}"),
        ({"train_adapter": False}, {"num_train_epochs": 2.5}, "--model_name_or_path {}"),
        (
            {"fuse_adapters": ["a=b", "c=d"], "load_lang_adapter": "mlm"},
            {"num_train_epochs": 3},
            "--load_adapter {} (without --load_lang_adapter, --fuse_adapters)",
        ),
        ({}, {"num_train_epochs": 1.0}, None),
        ({"max_steps": 5}, {"max_steps": -1}, None),
        ({"do_train": False}, {"num_train_epochs": 4.0}, None),
    ],
)
def test_more_epochs_for_a_finished_run_are_refused_with_the_way_to_train_it_further(
    tmp_path: Path, options: dict[str, Any], changed: dict[str, Any], loaded: str | None
) -> None:
    options = {"num_train_epochs": 2.0, "max_steps": -1, "do_train": True, "train_adapter": True, **options}
    begin_run(tmp_path, options).finish()
    problem = refusal(tmp_path, options | changed)
    further = f"to train it further give {loaded.format(tmp_path)} and another --output_dir; else " if loaded else ""
    assert problem.endswith(f"); {further}give another folder, or --overwrite_output_dir to replace it")


def test_an_unfinished_run_from_before_label_smoothing_does_not_resume_with_it(tmp_path: Path) -> None:
    """Versions without --do_lower_case accepted --label_smoothing_factor and did nothing."""
    options = {"label_smoothing_factor": 0.1}
    begin_run(tmp_path / "old", options)
    problem = refusal(tmp_path / "old", options)
    assert "an unfinished run of a version in which --label_smoothing_factor had no effect" in problem
    begin_run(tmp_path / "finished", options).finish()
    assert begin_run(tmp_path / "finished", options).finished
    equal_options: list[dict[str, Any]] = [{"label_smoothing_factor": 0.0}, {**options, "do_lower_case": None}]
    for number, same in enumerate(equal_options):
        begin_run(tmp_path / str(number), same)
        assert not begin_run(tmp_path / str(number), same).finished


def test_at_most_five_differing_options_are_named(tmp_path: Path) -> None:
    begin_run(tmp_path)
    problem = refusal(tmp_path, {f"option_{number}": number for number in range(9)})
    assert re.findall(r"option_\d was", problem) == [f"option_{number} was" for number in range(5)]


def test_folder_with_foreign_files_is_refused_even_to_overwrite(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "config.json").write_text("mine")
    expected = f"--output_dir {tmp_path}: is not empty and holds no run; give another folder or empty it yourself"
    assert refusal(tmp_path) == refusal(tmp_path, overwrite=True) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "config.json"]


def test_overwriting_removes_only_what_runs_make(tmp_path: Path) -> None:
    begin_run(tmp_path).finish()
    for name in (
        "checkpoint-12", "checkpoint.writing", "checkpoint.removing", "fold_1", "adapters-qa",
        "adapters-fusion.writing", "base", "runs",
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    for name in (
        "train_results.json", "all_results.json", "eval_predictions.json", "predict_nbest_predictions.json",
        "predict_predictions.conll", "eval_null_odds.json", "calibration_curves.json", "fusion_attention.json",
        "calibration.json", "options.yaml", "trainer_state.json", "frozen.safetensors", "full_setup.json",
        "config.json", "model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json",
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt",
        "README.md", "run.json.writing",
    ):  # fmt: skip
        (tmp_path / name).touch()
    mine = [
        "adapters-qa-backup.zip", "adapters-qa.keep/weights", "checkpoint-best/weights", "checkpoints.md", "data.json",
        "fold_assignments.csv", "human_predictions.json", "my_results.json", "notes.txt", "plots/loss.png", "vocab.md",
    ]  # fmt: skip
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    record = begin_run(tmp_path, {"seed": 5}, overwrite=True)
    assert (record.resume_from, record.finished) == (None, False)
    remaining = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert remaining == sorted([*mine, RUN_FILE, LOCK_FILE])
    assert all(any(path.iterdir()) for path in tmp_path.iterdir() if path.is_dir())
    assert read_record(tmp_path)["options"]["seed"] == 5


@pytest.mark.parametrize(
    ("path", "removed"),
    [
        ("run", True), ("run/.", True), ("run/adapters-qa", True), ("run/adapters-qa/mlm", True), ("run/base", True),
        ("run/mlm/adapters-mlm", False), ("run/../adapters-qa", False), ("run2", False), (".", False),
    ],
)  # fmt: skip
def test_what_replacing_a_run_removes(tmp_path: Path, path: str, removed: bool) -> None:
    (tmp_path / "run").mkdir()
    assert removes(tmp_path / "run", tmp_path / path) is removed


def test_opening_a_run_writes_and_removes_nothing(tmp_path: Path) -> None:
    record = open_run(tmp_path / "new", [], "run_qa_adapter.py", OPTIONS, overwrite=False)
    record.document.data = {"train": DataSource(questions=0)}
    record.write()
    assert not (tmp_path / "new").exists()
    begin_run(tmp_path / "old").finish()
    before = (tmp_path / "old" / RUN_FILE).read_bytes()
    replacing = open_run(tmp_path / "old", [], "run_qa_adapter.py", {**OPTIONS, "seed": 5}, overwrite=True)
    replacing.write()
    assert (tmp_path / "old" / RUN_FILE).read_bytes() == before
    record.begin()
    assert read_record(tmp_path / "new")["data"] == {"train": {"questions": 0}}


def test_overwriting_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    begin_run(tmp_path / "new", overwrite=True)
    assert read_record(tmp_path / "new")["status"] == "running"


@pytest.mark.parametrize("overwrite", [False, True])
def test_file_instead_of_a_folder_is_refused(tmp_path: Path, overwrite: bool) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    assert refusal(path, overwrite=overwrite) == f"--output_dir {path}: is a file; give a folder"
    assert refusal(path / "run") == f"--output_dir {path / 'run'}: {path} is a file; give another folder"
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"options": {', "not JSON at line 1, column 14: "),
        (b"[]", "holds a list where an object is expected; "),
        (b"{}", 'has no "options" where an object is expected; '),
        (b'{"options": [1]}', 'has a list as "options" where an object is expected; '),
        (b"", "the file is empty; "),
        (b"\xff", "not UTF-8 at byte 0: "),
    ],
)
def test_damaged_record_is_refused_and_can_be_overwritten(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / RUN_FILE).write_bytes(content)
    problem = refusal(tmp_path)
    assert problem.startswith(f"{tmp_path / RUN_FILE}: {reason}")
    assert problem.endswith("; give --overwrite_output_dir to replace the run, or another folder")
    begin_run(tmp_path, overwrite=True)
    assert read_record(tmp_path)["status"] == "running"


def test_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = begin_run(None, overwrite=True)
    record.write()
    record.finish()
    assert record.document.status == "finished"
    assert list(tmp_path.iterdir()) == []


def test_other_processes_of_a_run_neither_lock_nor_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    begin_run(tmp_path / "run").finish()
    assert not (tmp_path / "run").exists()


def test_a_finished_run_of_several_processes_is_finished_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    record = begin_run(tmp_path)
    monkeypatch.delenv("WORLD_SIZE")
    assert "processes was 2, now 1" in refusal(tmp_path)
    record.finish()
    assert begin_run(tmp_path).finished


# ---------------------------------------------------------------- killed at the beginning


@pytest.mark.parametrize("leftovers", [[LOCK_FILE], [LOCK_FILE, "run.json.writing"]])
def test_leftovers_of_a_run_killed_at_its_beginning_are_accepted(tmp_path: Path, leftovers: list[str]) -> None:
    for name in leftovers:
        (tmp_path / name).touch()
    assert begin_run(tmp_path).document.status == "running"


def test_killed_overwriting_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_run(tmp_path).finish()
    for name in ("checkpoint-1", "adapters-qa"):
        (tmp_path / name).mkdir()
    remove = shutil.rmtree

    def remove_and_stop(path: Path, **kwargs: Any) -> None:
        remove(path, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", remove_and_stop)
    with pytest.raises(KeyboardInterrupt):
        begin_run(tmp_path, overwrite=True)
    monkeypatch.setattr(shutil, "rmtree", remove)
    record = begin_run(tmp_path, {"seed": 6}, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [RUN_FILE, LOCK_FILE]
    assert not record.finished

"""Overwriting a run removes everything that it wrote (adapter_qa/runs/layout.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

import run_qa_adapter
from adapter_qa.runs.layout import LOCK_FILE, RUN_FILE
from adapter_qa.runs.run_record import open_run


@pytest.mark.parametrize(
    "more",
    [
        ["--random_init", "True", "--fuse_adapters", "a=new", "b=new"],
        ["--train_adapter", "False"],
    ],
    ids=["fusion on a random base", "full fine-tuning"],
)
def test_overwriting_removes_everything_that_a_run_wrote(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path, more: list[str]
) -> None:
    train, dev = map(str, squad_files)
    words = ["--model_name_or_path", str(tiny_bert), "--max_seq_length", "64", "--doc_stride", "16"]
    words += ["--do_train", "--do_eval", "--do_predict", "--version_2_with_negative", "True", "--max_steps", "2"]
    words += ["--train_file", train, "--validation_file", dev, "--test_file", dev, "--output_dir", str(tmp_path)]
    assert run_qa_adapter.main([*words, *more]) == 0
    assert {path.name for path in tmp_path.iterdir()} > {RUN_FILE, LOCK_FILE, "predict_null_odds.json"}
    open_run(tmp_path, [], "run_qa_adapter.py", {}, overwrite=True).begin()
    assert {path.name for path in tmp_path.iterdir()} == {RUN_FILE, LOCK_FILE}


def test_overwriting_removes_links_and_leaves_what_they_point_to(tmp_path: Path) -> None:
    run, scratch = tmp_path / "run", tmp_path / "scratch"
    names = ("runs", "checkpoint-5", "adapters-qa", "all_results.json")
    for name in names[:3]:
        (scratch / name).mkdir(parents=True)
        (scratch / name / "file").write_text("kept", encoding="utf-8")
    run.mkdir()
    for name in names:  # the last one points to nothing
        (run / name).symlink_to(scratch / name)
    (run / RUN_FILE).write_text("{}", encoding="utf-8")
    open_run(run, [], "run_qa_adapter.py", {}, overwrite=True).begin()
    assert {path.name for path in run.iterdir()} == {RUN_FILE, LOCK_FILE}
    assert [(scratch / name / "file").read_text(encoding="utf-8") for name in names[:3]] == ["kept"] * 3

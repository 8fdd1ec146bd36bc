"""The options that a run takes over from the run in its folder (adapter_qa/training/resumed_options.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.saved_runs import SavedRuns
from support.scripts import override, run_main

import run_qa_adapter


def test_a_run_records_where_its_fusion_head_starts_and_a_resumed_run_keeps_it(
    saved_runs: SavedRuns, tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    """Versions before --fusion_head began every fusion with a new head."""
    argv = [
        "--model_name_or_path", tiny_bert, "--do_train", "--train_file", squad_files[0], "--report_to", "none",
        "--max_steps", 1, "--max_seq_length", 64, "--doc_stride", 16, "--output_dir", tmp_path / "run",
    ]  # fmt: skip
    fused = ["--fuse_adapters", f"qa={saved_runs.qa}", f"ner={saved_runs.fusion / 'adapters-fusion' / 'ner'}"]
    folder = saved_runs.qa / "adapters-qa"
    done = run_main(run_qa_adapter.main, *argv, *fused)
    assert f"note: fusion: the head starts from that of qa, {folder}" in done.stderr.splitlines()
    file = tmp_path / "run" / "run.json"
    run = json.loads(file.read_text(encoding="utf-8"))
    assert (run["options"]["fusion_head"], run["head_from"]) == ("from_qa", str(folder))
    assert "| fusion_head | from_qa |" in (tmp_path / "run" / "adapters-fusion" / "README.md").read_text("utf-8")

    del run["options"]["fusion_head"]
    file.write_text(json.dumps(run), encoding="utf-8")
    done = run_main(run_qa_adapter.main, *argv, *fused)
    assert "this run is finished" in done.stdout
    assert done.stderr == f"note: --fusion_head new: as the run in {tmp_path / 'run'} began\n"
    done = run_main(run_qa_adapter.main, *argv, *fused, "--fusion_head", "from_qa")
    assert (done.returncode, "(fusion_head was new, now from_qa)" in done.stderr) == (2, True)
    done = run_main(run_qa_adapter.main, *argv, "--fusion_head", "from_qa")
    assert done.stderr == (
        "error: --fusion_head from_qa: no new fusion is trained; add --fuse_adapters and --do_train, or leave the "
        "option out\n"
    )
    done = run_main(run_qa_adapter.main, *argv, "--fusion_head", "new", "--dry_run")
    assert "note: --fusion_head is not used: it is for --fuse_adapters" in done.stderr.splitlines()


@pytest.mark.parametrize("folder", ["run", None])
def test_a_resumed_run_saves_as_it_began(
    folder: str | None, tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    """Versions before saved after each epoch, however the model was evaluated; so does this run, in its first part."""
    argv = [
        "--model_name_or_path", tiny_bert, "--do_train", "--train_file", squad_files[0], "--report_to", "none",
        "--do_eval", "--validation_file", squad_files[1], "--max_steps", 2, "--max_seq_length", 64, "--doc_stride", 16,
        "--eval_strategy", "steps", "--eval_steps", 1, *(["--output_dir", folder] if folder else []),
    ]  # fmt: skip
    done = run_main(run_qa_adapter.main, *argv, "--save_strategy", "epoch", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.rglob("run.json")
    assert folder is not None or "_bestFalse_" in file.parent.name
    recorded = json.loads(file.read_text(encoding="utf-8"))
    names = ("save_strategy", "save_steps", "load_best_model_at_end")
    assert [recorded["options"][name] for name in names] == ["epoch", 500, False]
    done = run_main(run_qa_adapter.main, *argv, cwd=tmp_path)
    assert (done.returncode, "this run is finished" in done.stdout) == (0, True), done.stderr

    file.write_text(json.dumps(recorded | {"status": "interrupted"}), encoding="utf-8")
    done = run_main(run_qa_adapter.main, *argv, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = json.loads(file.read_text(encoding="utf-8"))
    assert (again["status"], [again["options"][name] for name in names]) == ("finished", ["epoch", 500, False])
    assert [*tmp_path.rglob("run.json")] == [file]

    other = ["--output_dir", folder, "--overwrite_output_dir"] if folder else ["--seed", 5]
    done = run_main(run_qa_adapter.main, *override(argv, *other), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    newest = max(tmp_path.rglob("run.json"), key=lambda path: path.stat().st_mtime)
    new = json.loads(newest.read_text(encoding="utf-8"))
    assert [new["options"][name] for name in names] == ["steps", 1, True]

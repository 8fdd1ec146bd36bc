"""What is imported without garbage collection (adapter_qa/core/garbage_collection.py)."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.scripts import ROOT

from adapter_qa.core.garbage_collection import no_garbage_collection

PROGRAM = f"""\
import gc, importlib, sys
sys.path.insert(0, {str(ROOT)!r})
main = importlib.import_module(sys.argv[1]).main
assert main(sys.argv[2:]) == 0
import transformers
frozen = gc.get_freeze_count()
print(gc.isenabled(), frozen > 100_000, any(found is transformers.Trainer for found in gc.get_objects()))
"""


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("run_qa_adapter", ["--train_file", "train.jsonl", "--max_seq_length", "64", "--doc_stride", "16"]),
        ("run_mlm_adapter", ["--train_file", "train.txt"]),
    ],
)
def test_training_scripts_look_for_no_garbage_among_the_libraries(
    script: str, options: list[str], tiny_bert: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.txt").write_text("Ana nasceu em Natal.\n" * 1000, encoding="utf-8")
    question = {"id": "1", "question": "Onde?", "context": "Em Natal."}
    answers = {"text": ["Natal"], "answer_start": [3]}
    (tmp_path / "train.jsonl").write_text(json.dumps(question | {"answers": answers}), encoding="utf-8")
    words = ["--model_name_or_path", str(tiny_bert), "--do_train", "--dry_run", "True", "--output_dir", "run"]
    command = [sys.executable, "-c", PROGRAM, script, *words, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "True True False"


def test_nothing_happens_where_the_libraries_are_imported() -> None:
    before = gc.get_freeze_count()
    with no_garbage_collection():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_a_process_that_collects_no_garbage_keeps_doing_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "transformers")
    gc.disable()
    try:
        with no_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()

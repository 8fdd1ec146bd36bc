"""A run of two processes on the CPU (gloo): who writes, and that what it answers is what one process answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from conftest import ROOT

import run_qa_adapter


def test_two_processes_train_save_and_answer_as_one_does(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    train, dev = map(str, squad_files)
    shared = ["--validation_file", dev, "--do_eval", "--max_seq_length", "64", "--doc_stride", "16"]
    shared += [
        "--per_device_eval_batch_size",
        "3",
        "--report_to",
        "none",
        "--disable_tqdm",
        "True",
        "--use_cpu",
        "True",
    ]
    words = ["--model_name_or_path", str(tiny_bert), "--random_init", "True", "--fuse_adapters", "qa=new", "ner=new"]
    words += ["--train_file", train, "--do_train", "--num_train_epochs", "2", "--per_device_train_batch_size", "4"]
    words += ["--learning_rate", "1e-2", "--output_dir", str(tmp_path / "two"), *shared]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    # Without the variable accelerate calls the device cpu:0, which torch does not know.
    environment = {**os.environ, "ACCELERATE_TORCH_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, str(ROOT / "run_qa_adapter.py"), *words],
        capture_output=True, text=True, env=environment, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    run = json.loads((tmp_path / "two" / "run.json").read_text(encoding="utf-8"))
    assert run["status"] == "finished" and [entry["epoch"] for entry in run["history"]] == [1.0, 2.0]
    assert run["metrics"]["eval"]["eval_f1"] == run["best"]["metric"]

    again = ["--model_name_or_path", str(tmp_path / "two" / "base"), "--load_adapter", str(tmp_path / "two")]
    assert run_qa_adapter.main([*again, "--output_dir", str(tmp_path / "one"), *shared]) == 0
    predictions = [(tmp_path / name / "eval_predictions.json").read_bytes() for name in ("two", "one")]
    assert predictions[0] == predictions[1]
    # Windows that fill up the last batch of the two do not count.
    attention = [
        json.loads((tmp_path / name / "fusion_attention.json").read_text(encoding="utf-8")) for name in ("two", "one")
    ]
    assert attention[0]["windows"] == attention[1]["windows"] == run["data"]["eval"]["windows"]
    for part in ("question", "context", "all"):
        assert np.allclose(attention[0][part], attention[1][part], rtol=0, atol=1e-6)

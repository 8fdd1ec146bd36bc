"""Whole runs as processes, ours and the ecosystem's run_qa.py, on the same data, model, seed and steps."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

HERE = Path(__file__).resolve().parent
DOOR = HERE.parent / "run_qa_adapter.py"
# What both scripts are told: the recipe of a QA adapter, 384 tokens with a stride of 128.
SAME = [
    "--do_train", "--do_eval", "--learning_rate", "1e-4", "--seed", "42", "--max_seq_length", "384",
    "--doc_stride", "128", "--train_adapter", "True", "--adapter_config", "seq_bn",
    "--save_strategy", "no", "--eval_strategy", "no", "--report_to", "none", "--disable_tqdm", "True",
]  # fmt: skip


def measure_whole_runs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A QA adapter trained and evaluated by both scripts: training, windows, answers and --help."""
    folder = Path(tempfile.mkdtemp())
    model = options.model or random_model(folder / "model", options)
    files = ["--train_file", options.data, "--validation_file", options.data]
    size = ["--max_steps", options.steps, "--per_device_train_batch_size", options.batch_size]
    count = ["--max_train_samples", options.max_samples, "--max_eval_samples", options.max_samples]
    words = [str(word) for word in ["--model_name_or_path", model, *SAME, *files, *size, *count]]
    precision = ["--bf16", "True"] if options.dtype == "bfloat16" else []

    stop_watch = [sys.executable, str(HERE / "peer.py"), options.peer, str(folder / "peer.json")]
    started(stop_watch + words + precision + ["--output_dir", str(folder / "peer"), "--overwrite_cache"], folder)
    started(
        [sys.executable, str(DOOR), *words, *(precision or ["--bf16", "False"]), "--output_dir", str(folder / "ours")],
        folder,
    )
    peer, ours = json.loads((folder / "peer.json").read_text()), read_ours(folder / "ours")
    peer["training"] = json.loads((folder / "peer" / "train_results.json").read_text())["train_runtime"]
    peer["--help"], ours["--help"] = help_times([*stop_watch, "--help"], [sys.executable, str(DOOR), "--help"], options)
    work = {
        "training": (options.batch_size * options.steps, "windows/s"),
        "windows": (ours.pop("window_count"), "windows/s"),
        "answers": (ours.pop("eval_windows"), "windows/s"),
        "--help": (1, "a second"),
    }
    return [
        {
            "what": f"whole run, {part}: {name}",
            "figure": work[part][0] / seconds[part],
            "unit": work[part][1],
            "times": f"{peer[part] / seconds[part]:.2f} x",
        }
        for part in work
        for name, seconds in (("the peer's", peer), ("ours", ours))
    ]


def random_model(folder: Path, options: argparse.Namespace) -> str:
    """A BERT with random weights and the tokenizer of --tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=options.hidden_size, num_hidden_layers=options.layers,
        num_attention_heads=options.hidden_size // 64, intermediate_size=4 * options.hidden_size,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)
    return str(folder)


def read_ours(folder: Path) -> dict[str, Any]:
    """Seconds of our parts, from run.json."""
    run = json.loads((folder / "run.json").read_text())
    metrics = run["metrics"]
    return {
        "training": metrics["train"]["train_runtime"],
        "windows": run["times"]["windows"],
        "answers": metrics["eval"]["eval_answers_runtime"],
        "window_count": sum(run["data"][part]["windows"] for part in ("train", "eval")),
        "eval_windows": metrics["eval"]["eval_windows"],
    }


def help_times(theirs: list[str], ours: list[str], options: argparse.Namespace) -> tuple[float, float]:
    """Median seconds of --help of both, in turn."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(options.rounds):
        for command, taken in zip((theirs, ours), seconds, strict=True):
            began = time.perf_counter()
            started(command, Path.cwd())
            taken.append(time.perf_counter() - began)
    return sorted(seconds[0])[len(seconds[0]) // 2], sorted(seconds[1])[len(seconds[1]) // 2]


def started(command: list[str], cache: Path) -> None:
    """Runs a command to its end, quietly, without windows kept from earlier runs.

    Raises:
        SystemExit: it failed; with the end of what it said.
    """
    environment = {
        **os.environ,
        "ADAPTER_QA_CACHE": str(cache / "windows"),
        "HF_DATASETS_CACHE": str(cache / "datasets"),
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} failed:\n{done.stderr[-2000:]}")

"""Compare complete runs of our script and of the library's run_qa.py, with the same data, model, seed and steps."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

BENCHMARKS = Path(__file__).resolve().parent
SCRIPT = BENCHMARKS.parent / "run_qa_adapter.py"
# Options of both scripts: the recipe of a QA adapter.
COMMON_OPTIONS = [
    "--learning_rate", "1e-4", "--seed", "42", "--max_seq_length", "384", "--doc_stride", "128",
    "--adapter_config", "seq_bn", "--save_strategy", "no", "--eval_strategy", "no", "--report_to", "none",
    "--disable_tqdm", "True",
]  # fmt: skip


def measure_whole_runs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure training, windows, answers and --help of both scripts, with a QA adapter."""
    folder = Path(tempfile.mkdtemp())
    model = options.model or random_model(folder / "model", options)
    recipe = ["--model_name_or_path", model, "--do_train", "--do_eval", "--train_adapter", "True", *COMMON_OPTIONS]
    recipe += ["--train_file", options.data, "--max_train_samples", str(options.max_samples)]
    recipe += ["--validation_file", options.data, "--max_eval_samples", str(options.max_samples)]
    recipe += ["--max_steps", str(options.steps), "--per_device_train_batch_size", str(options.batch_size)]
    bf16 = options.dtype == "bfloat16"

    peer_script = [sys.executable, str(BENCHMARKS / "peer.py"), options.peer, str(folder / "peer.json")]
    our_script = [sys.executable, str(SCRIPT)]
    peer_options = ["--output_dir", str(folder / "peer"), "--overwrite_cache", *(["--bf16", "True"] if bf16 else [])]
    run_command([*peer_script, *recipe, *peer_options], folder)
    run_command([*our_script, *recipe, "--output_dir", str(folder / "ours"), "--bf16", str(bf16)], folder)

    record = json.loads((folder / "ours" / "run.json").read_text())
    ours = our_seconds(record)
    peer = json.loads((folder / "peer.json").read_text())
    peer["training"] = json.loads((folder / "peer" / "train_results.json").read_text())["train_runtime"]
    peer["--help"], ours["--help"] = help_seconds([peer_script, our_script], options.rounds)
    work = {
        "training": (options.batch_size * options.steps, "windows/s"),
        "windows": (sum(record["data"][split]["windows"] for split in ("train", "eval")), "windows/s"),
        "answers": (record["metrics"]["eval"]["eval_windows"], "windows/s"),
        "--help": (1, "a second"),
    }
    return [
        {
            "what": f"whole run, {part}: {name}",
            "figure": amount / seconds[part],
            "unit": unit,
            "times": f"{peer[part] / seconds[part]:.2f} x",
        }
        for part, (amount, unit) in work.items()
        for name, seconds in (("the peer's", peer), ("ours", ours))
    ]


def our_seconds(record: dict[str, Any]) -> dict[str, float]:
    """Return the seconds that the parts of our run took, from its run.json."""
    return {
        "training": record["metrics"]["train"]["train_runtime"],
        "windows": record["times"]["windows"],
        "answers": record["metrics"]["eval"]["eval_answers_runtime"],
    }


def random_model(folder: Path, options: argparse.Namespace) -> str:
    """Save a BERT with random weights and the tokenizer of --tokenizer; return the folder."""
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


def help_seconds(scripts: list[list[str]], rounds: int) -> list[float]:
    """Return the median seconds that --help of each script takes; the scripts take turns."""
    seconds: list[list[float]] = [[] for _ in scripts]
    for _ in range(rounds):
        for script, values in zip(scripts, seconds, strict=True):
            start = time.perf_counter()
            run_command([*script, "--help"], Path.cwd())
            values.append(time.perf_counter() - start)
    return [statistics.median(values) for values in seconds]


def run_command(command: list[str], cache: Path) -> None:
    """Run a command without output, and without data that earlier runs have cached.

    Raises:
        SystemExit: if the command failed; the message has the end of its stderr.
    """
    environment = {**os.environ, "HF_DATASETS_CACHE": str(cache / "datasets")}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(command[:3])} failed:\n{result.stderr[-2000:]}")

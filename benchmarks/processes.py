"""One process against two with half the threads each, plain and under DeepSpeed: speed, and memory of a process."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from whole_runs import DOOR, SAME, random_model

ROOT = DOOR.parent
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
MEGABYTE = 1 << 20


def measure_processes(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A QA adapter and a fully fine-tuned model, trained for some steps on the same batches in every way that is here.

    Figures are windows a second, and the most memory that one of the processes held, libraries included.
    """
    folder = Path(tempfile.mkdtemp())
    model = options.model or random_model(folder / "model", options)
    threads = max(torch.get_num_threads() // 2, 1)
    ways: dict[str, tuple[list[str], int, list[str]]] = {
        "one process": ([sys.executable], 1, []),
        "two processes, DDP": (TWO, 2, []),
    }
    if importlib.util.find_spec("deepspeed") is not None:
        ways |= {
            f"two processes, ZeRO-{stage}": (TWO, 2, ["--deepspeed", str(ROOT / f"ds_config_zero{stage}.json")])
            for stage in (2, 3)
        }
    rows = []
    for kind, setup in (("QA adapter", "True"), ("full fine-tuning", "False")):
        found = {}
        for name, (launcher, count, words) in ways.items():
            output = folder / f"{kind} {name}"
            size = ["--per_device_train_batch_size", options.batch_size // count, "--max_steps", options.steps]
            data = ["--train_file", options.data, "--max_train_samples", options.max_samples]
            same = [word for word in SAME if word not in ("--do_eval", "--train_adapter", "True")]
            same += ["--train_adapter", setup, "--model_name_or_path", model, "--output_dir", str(output)]
            command = [*launcher, DOOR, *same, *data, *size, *words]
            memory = peak_memory([str(word) for word in command], threads * (2 // count))
            seconds = json.loads((output / "train_results.json").read_text())["train_runtime"]
            found[name] = (options.batch_size * options.steps / seconds, memory)
        plain = found["one process"]
        for name, figures in found.items():
            for unit, figure, base in zip(("windows/s", "MiB"), figures, plain, strict=True):
                what = f"{kind}, {name}"
                rows.append({"what": what, "figure": figure, "unit": unit, "times": f"{figure / base:.2f} x"})
    return rows


def peak_memory(command: list[str], threads: int) -> float:
    """Runs a command to its end; the most memory that one process of it held, in MiB.

    Raises:
        SystemExit: it failed; with the end of what it said.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{errors.read()[-2000:].decode(errors='replace')}")
    return used.ru_maxrss * 1024 / MEGABYTE

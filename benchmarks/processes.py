"""Compare one training process with two that have half of the threads each: speed and memory of a process."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from whole_runs import COMMON_OPTIONS, SCRIPT, random_model

TWO_PROCESSES = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Launch:
    """A way to start a training.

    Attributes:
        launcher: the beginning of the command.
        processes: the number of processes.
        options: further options of the script.
    """

    launcher: list[str]
    processes: int
    options: list[str]


def measure_processes(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure a QA adapter and full fine-tuning, trained on the same batches with every kind of launch.

    The rows have windows per second, and the peak memory of the process that takes most, libraries included.
    """
    folder = Path(tempfile.mkdtemp())
    model = options.model or random_model(folder / "model", options)
    rows = []
    for title, train_adapter in (("QA adapter", True), ("full fine-tuning", False)):
        figures = {
            name: measure_launch(launch, model, folder / f"{title} {name}", options, train_adapter=train_adapter)
            for name, launch in launches().items()
        }
        baseline = figures["one process"]
        for name, values in figures.items():
            for unit, figure, reference in zip(("windows/s", "MiB"), values, baseline, strict=True):
                ratio = f"{figure / reference:.2f} x"
                rows.append({"what": f"{title}, {name}", "figure": figure, "unit": unit, "times": ratio})
    return rows


def launches() -> dict[str, Launch]:
    """Return the kinds of launch that are available: DeepSpeed's only if it is installed."""
    kinds = {
        "one process": Launch([sys.executable], 1, []),
        "two processes, DDP": Launch(TWO_PROCESSES, 2, []),
    }
    if importlib.util.find_spec("deepspeed") is not None:
        for stage in (2, 3):
            config = SCRIPT.parent / f"ds_config_zero{stage}.json"
            kinds[f"two processes, ZeRO-{stage}"] = Launch(TWO_PROCESSES, 2, ["--deepspeed", str(config)])
    return kinds


def measure_launch(
    launch: Launch, model: str, output: Path, options: argparse.Namespace, *, train_adapter: bool
) -> tuple[float, float]:
    """Train for some steps; return windows per second and peak memory in MiB."""
    command = [*launch.launcher, str(SCRIPT), "--do_train", *COMMON_OPTIONS, "--train_adapter", str(train_adapter)]
    command += ["--model_name_or_path", model, "--output_dir", str(output), "--max_steps", str(options.steps)]
    command += ["--train_file", options.data, "--max_train_samples", str(options.max_samples)]
    command += ["--per_device_train_batch_size", str(options.batch_size // launch.processes), *launch.options]
    threads = max(torch.get_num_threads() // 2, 1) * (2 // launch.processes)
    memory = peak_memory(command, threads)
    seconds = json.loads((output / "train_results.json").read_text())["train_runtime"]
    return options.batch_size * options.steps / seconds, memory


def peak_memory(command: list[str], threads: int) -> float:
    """Run a command; return the most memory that one of its processes held, in MiB.

    Raises:
        SystemExit: if the command failed; the message has the end of its stderr.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{errors.read()[-2000:].decode(errors='replace')}")
    return usage.ru_maxrss * 1024 / MEBIBYTE

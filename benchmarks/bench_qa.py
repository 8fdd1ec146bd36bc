#!/usr/bin/env python
"""Measures what this trainer does in its own way against the plain way, side by side in one run, and prints ratios.

    python benchmarks/bench_qa.py                                   # fusion training, memory of an evaluation
    python benchmarks/bench_qa.py --only train --layers 12 --profile benchmarks
    python benchmarks/bench_qa.py --only train --layers 24 --hidden_size 1024 --batch_size 16 --steps 30 \\
        --dtype bfloat16 --compile default reduce-overhead          # BERT-large on a GPU
    python benchmarks/bench_qa.py --data squad.json --tokenizer DIR # windows and answers as well
    python benchmarks/bench_qa.py --only peer --peer adapters/examples/pytorch/question-answering --data squad.json \\
        --tokenizer DIR --max_samples 2000
    python benchmarks/bench_qa.py --only export --layers 12         # or --run outputs/fusion
    python benchmarks/bench_qa.py --only processes --data squad.json --tokenizer DIR    # DDP, and ZeRO where installed

The plain way: windows padded to 384 (or to the batch's longest, grouped by length), the library's fusion layer, each
pair of question and context tokenized. With --peer, whole runs of the run_qa.py in that folder and of ours. Weights are
random unless --model is given, and so are token ids without --data; lengths are those of SQuAD-pt. Last line JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from data_path import measure_answers, measure_evaluation, measure_memory, measure_windows
from exported import measure_exported
from fusion_training import measure_training
from language_training import measure_language
from measuring import device_name
from processes import measure_processes
from whole_runs import measure_whole_runs

Measure = Callable[[argparse.Namespace], list[dict[str, Any]]]
MEASURES: dict[str, Measure] = {
    "train": measure_training,
    "language": measure_language,
    "windows": measure_windows,
    "answers": measure_answers,
    "evaluation": measure_evaluation,
    "memory": measure_memory,
    "peer": measure_whole_runs,
    "export": measure_exported,
    "processes": measure_processes,
}


def main(argv: list[str]) -> int:
    """Table of contents."""
    options = read_options(argv)
    rows = [row for name in options.only for row in MEASURES[name](options)]
    machine = {"device": device_name(options.device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}")
    for row in rows:
        share = f"{row['share_of_matrix_rate']:>8.1%} of the matrix rate" if "share_of_matrix_rate" in row else ""
        share += f", {row['operators_per_step']:,} operators a step" if "operators_per_step" in row else ""
        print(f"{row['what']:<72}{row['figure']:>12,.2f} {row['unit']:<10}{row.get('times', ''):>9}{share}")
    print(json.dumps({"machine": machine, "options": vars(options), "rows": rows}))
    return 0


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), help="which measures; without it all that can be")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="autocast, for training")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden_size", type=int, default=768)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="steps of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way, in turn; the median counts")
    parser.add_argument(
        "--compile", nargs="+", default=[], choices=["default", "reduce-overhead", "max-autotune"], metavar="MODE",
        help="measure our way through torch.compile, too; on a GPU the latter two make CUDA graphs",
    )  # fmt: skip
    parser.add_argument("--profile", help="folder for where the time of a training step and of answers goes, as text")
    parser.add_argument("--data", help="SQuAD file for windows, answers and whole runs")
    parser.add_argument("--tokenizer", help="folder of a tokenizer for --data")
    parser.add_argument("--model", help="folder of a model for whole runs, in place of random weights")
    parser.add_argument("--max_samples", type=int, default=10_000, help="first N questions of --data")
    parser.add_argument("--peer", help="folder with the ecosystem's run_qa.py, trainer_qa.py and utils_qa.py")
    parser.add_argument("--run", help="saved run to export, in place of random weights")
    parser.add_argument("--threads", type=int, help="threads to compute with on a CPU")
    options = parser.parse_args(argv)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    needs = dict.fromkeys(("windows", "answers", "evaluation", "processes"), options.data)
    needs["peer"] = options.data and options.peer
    needs["export"] = importlib.util.find_spec("onnxscript")
    if options.only is None:
        options.only = [name for name in MEASURES if needs.get(name, True)]
    missing = [name for name in options.only if not needs.get(name, True)]
    if missing:
        parser.error(
            f"{', '.join(missing)}: needs --data and --tokenizer, peer --peer as well, export requirements-export.txt"
        )
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

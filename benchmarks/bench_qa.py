#!/usr/bin/env python
r"""Measure this trainer against standard implementations, side by side in one run, and print the ratios.

    python benchmarks/bench_qa.py                                   # fusion training, memory of an evaluation
    python benchmarks/bench_qa.py --only train --layers 12 --profile benchmarks
    python benchmarks/bench_qa.py --only train --layers 24 --hidden_size 1024 --batch_size 16 --steps 30 \
        --dtype bfloat16 --compile default reduce-overhead          # BERT-large on a GPU
    python benchmarks/bench_qa.py --data squad.json --tokenizer DIR # windows and answers too
    python benchmarks/bench_qa.py --only runs --data squad.json --model DIR --before ../8eaee98 \
        --peer adapters/examples/pytorch/question-answering        # whole runs: an earlier checkout, ours, run_qa.py
    python benchmarks/bench_qa.py --only runs --setups fusion --data squad.json --tokenizer DIR --layers 12
    python benchmarks/bench_qa.py --only step --data squad.json --model DIR     # what takes the time of a step
    python benchmarks/bench_qa.py --only export --layers 12         # or --run outputs/fusion
    python benchmarks/bench_qa.py --only ask --run outputs/fusion   # the first answer and a warm one
    python benchmarks/bench_qa.py --only batches --data squad.json --tokenizer DIR --batch_size 16 --threads 1
                                                                    # many questions against the library's pipeline
    python benchmarks/bench_qa.py --only pipeline --data squad.json --run outputs/fusion --max_samples 100
                                                                    # the answers of both
    python benchmarks/bench_qa.py --only processes --data squad.json --tokenizer DIR    # DDP, and ZeRO where installed

The standard implementations: windows padded to 384 tokens, or to the longest of a batch of similar length; the
library's fusion layer; every pair of question and context tokenized. Whole runs compare every setup with an earlier
checkout of this project (--before) and the adapters library's run_qa.py (--peer). Weights are random without --model.
Token ids are random without --data; the lengths are distributed as in SQuAD-pt. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from asking import compare_with_pipeline, measure_asking, measure_batches
from data_path import measure_answers, measure_evaluation, measure_memory, measure_windows
from exported import measure_exported
from fusion_training import measure_training
from language_training import measure_language
from measuring import device_name
from processes import measure_processes
from whole_runs import TITLES, VARIANTS, measure_profiles, measure_whole_runs

Measurement = Callable[[argparse.Namespace], list[dict[str, Any]]]
MEASUREMENTS: dict[str, Measurement] = {
    "train": measure_training,
    "language": measure_language,
    "windows": measure_windows,
    "answers": measure_answers,
    "evaluation": measure_evaluation,
    "memory": measure_memory,
    "runs": measure_whole_runs,
    "step": measure_profiles,
    "export": measure_exported,
    "ask": measure_asking,
    "batches": measure_batches,
    "pipeline": compare_with_pipeline,
    "processes": measure_processes,
}

NEED_DATA = ("windows", "answers", "evaluation", "processes", "runs", "step", "batches")


def main(argv: list[str]) -> int:
    """Run the chosen measurements and print their figures."""
    options = read_options(argv)
    rows = [row for name in options.only for row in MEASUREMENTS[name](options)]
    machine = {"device": device_name(options.device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}")
    print_rows(rows)
    print(json.dumps({"machine": machine, "options": vars(options), "rows": rows}))
    return 0


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print figures below the title that they have in common."""
    last = None
    for row in rows:
        title, _, name = row["what"].rpartition(": ")
        if title != last:
            print(f"\n{title}" + (f": {row['work']}" if "work" in row else ""))
        last = title
        details = [f"{ratio:.2f} x {other}" for other, ratio in row.get("ratios", {}).items() if other != name]
        if "share_of_matrix_rate" in row:
            details.append(f"{row['share_of_matrix_rate']:.1%} of the matrix rate")
        if "operators_per_step" in row:
            details.append(f"{row['operators_per_step']:,} operators a step")
        if "warm_up_seconds" in row:
            details.append(f"warm-up {row['warm_up_seconds']:.1f} s")
        print(f"  {name:<50}{row['figure']:>10,.2f} {row['unit']:<9}{row.get('times', ''):>8}".rstrip())
        if details:
            print(textwrap.fill("; ".join(details), 80, initial_indent=" " * 6, subsequent_indent=" " * 6))


def read_options(argv: list[str]) -> argparse.Namespace:
    """Parse the command line.

    Raises:
        SystemExit: if an option is wrong, or a measurement lacks the data or package that it needs.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=list(MEASUREMENTS), help="measurements; default: all with the given options"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of autocast in training")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden_size", type=int, default=768)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="steps of one run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each variant, in turn; the median counts")
    parser.add_argument(
        "--compile", nargs="+", default=[], choices=["default", "reduce-overhead", "max-autotune"], metavar="MODE",
        help="also measure ours with torch.compile; on a GPU the last two modes make CUDA graphs",
    )  # fmt: skip
    parser.add_argument("--profile", help="folder for text files with profiles of a training step and of answers")
    parser.add_argument("--data", help="SQuAD file for windows, answers and whole runs")
    parser.add_argument("--tokenizer", help="folder of a tokenizer for --data")
    parser.add_argument("--model", help="folder of a model for whole runs; default: random weights")
    parser.add_argument("--max_samples", type=int, default=10_000, help="first N questions of --data")
    parser.add_argument("--eval_samples", type=int, default=100, help="questions of an evaluation in whole runs")
    parser.add_argument("--setups", nargs="+", choices=list(TITLES), default=["adapter"], help="of whole runs and step")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="of whole runs and step; default: all that can")
    parser.add_argument("--warm_up", type=int, default=2, help="first steps of a whole run, which do not count")
    parser.add_argument("--before", help="an earlier checkout of this project for whole runs")
    parser.add_argument("--launcher", default="", help="command before each whole run, e.g. 'taskset -c 0,1'")
    parser.add_argument("--peer", help="folder with the adapters library's run_qa.py, trainer_qa.py and utils_qa.py")
    parser.add_argument("--run", help="saved run to export (default: random weights) and to ask")
    parser.add_argument("--threads", type=int, help="number of CPU threads")
    options = parser.parse_args(argv)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    options.tokenizer = options.tokenizer or options.model
    has_data = options.data is not None and options.tokenizer is not None
    is_possible = dict.fromkeys(MEASUREMENTS, True) | dict.fromkeys(NEED_DATA, has_data)
    is_possible["ask"] = options.run is not None
    is_possible["pipeline"] = options.run is not None and options.data is not None
    is_possible["export"] = importlib.util.find_spec("onnxscript") is not None
    scripts = ((options.before, "run_qa_adapter.py"), (options.peer, "run_qa.py"))
    missing = [str(Path(folder, name)) for folder, name in scripts if folder and not Path(folder, name).is_file()]
    if missing:
        parser.error(f"{', '.join(missing)}: not found; --before and --peer take the folder of the script")
    if options.only is None:
        options.only = [name for name in MEASUREMENTS if is_possible[name]]
    impossible = [name for name in options.only if not is_possible[name]]
    if impossible:
        parser.error(
            f"{', '.join(impossible)}: needs --data and --tokenizer (or --model); ask needs --run; pipeline "
            "needs --run and --data; export needs the packages of the extra export"
        )
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

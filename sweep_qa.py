#!/usr/bin/env python
"""Searches hyperparameters of run_qa_adapter.py with Optuna: SWEEP.yaml says what is searched and over which options,
each trial is one process with a folder of its own. Every worker is started with the same command, on this machine or on
others; the same command again goes on with what was stopped or killed, and does nothing for a sweep that is done.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import shlex
import sys
from pathlib import Path

from adapter_qa.core.cli import CollectingArgumentParser, run_cli
from adapter_qa.core.errors import escape_control_chars, raise_if_any, run_all
from adapter_qa.core.resource_errors import report_resource_errors
from adapter_qa.core.signals import DeferredSignal, raise_on_signal
from adapter_qa.sweeps.search_space import TRAINER, Sweep, read_sweep

SCRIPT = Path(__file__).resolve().with_name(TRAINER)
SHOWN = 3  # trials of a dry run
EXAMPLES = """\
examples:
  sweep_qa.py sweeps/qa.yaml --dry_run
  CUDA_VISIBLE_DEVICES=0 sweep_qa.py sweeps/qa.yaml & CUDA_VISIBLE_DEVICES=1 sweep_qa.py sweeps/qa.yaml & wait
  sbatch --array=0-7 --gres=gpu:1 --signal=B:TERM@300 --wrap="exec python sweep_qa.py sweeps/qa.yaml"
"""


@raise_on_signal()
@report_resource_errors()
def main(argv: list[str]) -> int:
    """Table of contents; returns the exit code."""
    options, sweep = read_options(argv)
    folder = Path(options.output_dir or Path("outputs") / "sweeps" / Path(options.sweep).stem)
    for line in described(sweep, folder):
        print(escape_control_chars(line), flush=True)

    from adapter_qa.sweeps import study, worker

    if options.dry_run:
        for command in worker.first_commands(sweep, SCRIPT, folder, SHOWN):
            print(escape_control_chars(shlex.join(command)))
        return 0

    if not (folder / study.SWEEP_FILE).exists():
        worker.probe(sweep, SCRIPT)
    with study.storage_explained():
        storage = study.open_storage(folder, options.storage)
        book = study.TrialStore(sweep, folder, storage, folder.resolve().name, options.lease)
        with DeferredSignal() as interruption:
            worker.Worker(book, SCRIPT, interruption).work()
        worker.conclude(book, SCRIPT)
    return 0


def read_options(argv: list[str]) -> tuple[argparse.Namespace, Sweep]:
    """The command line, and the file that it names.

    Raises:
        UserError: every problem with either, or optuna is not installed.
    """
    parser = CollectingArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("sweep", metavar="SWEEP.yaml", help="what is searched; see sweeps/qa.yaml")
    parser.add_argument(
        "--output_dir",
        help="folder of the sweep; its last part is the name of the study (default: outputs/sweeps/<name of the file>)",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="a database that all workers reach, e.g. mysql+pymysql://USER@HOST/DB (default: a journal in the folder)",
    )
    parser.add_argument(
        "--lease",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="a trial whose worker gives no sign of life for so long is taken over; the same for all (default: 120)",
    )
    parser.add_argument("--dry_run", action="store_true", help=f"print the commands of {SHOWN} trials, run nothing")
    options = parser.parse_args(argv)
    problems = []
    if not (math.isfinite(options.lease) and options.lease > 0):
        problems.append(f"--lease {options.lease}: must be above 0 (seconds)")
    if importlib.util.find_spec("optuna") is None:
        problems.append("optuna is not installed; pip install -r requirements-sweep.txt")
    if options.output_dir is not None and Path(options.output_dir).is_file():
        problems.append(f"--output_dir {options.output_dir}: is a file; give a folder")
    _, sweep = run_all([lambda: raise_if_any(problems), lambda: read_sweep(Path(options.sweep))])
    return options, sweep


def described(sweep: Sweep, folder: Path) -> list[str]:
    """What is searched, a line for each entry."""
    entries = [f"  {name}: {one.in_words()}" for name, one in sweep.search.items()]
    kinds = f"sampler {sweep.sampler['kind']}, pruner {sweep.pruner['kind']}"
    return [f"{folder}: {sweep.trials} trials, {sweep.metric}, {kinds}", *entries]


if __name__ == "__main__":
    sys.exit(run_cli(main))

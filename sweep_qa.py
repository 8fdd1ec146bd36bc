#!/usr/bin/env python
"""Search hyperparameters of run_qa_adapter.py with Optuna.

SWEEP.yaml says which options are searched. Each trial is one process with its own folder. Start the same command once
for each GPU, on this machine or on others: every start is a worker. Run the same command again to resume trials that
were stopped or killed; it does nothing if the sweep is finished.
"""

from __future__ import annotations

import importlib.util
import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from adapter_qa.core.cli import CollectingArgumentParser, run_cli
from adapter_qa.core.errors import also_report, escape_control_chars
from adapter_qa.core.resource_errors import report_resource_errors
from adapter_qa.core.signals import DeferredSignal, raise_on_signal
from adapter_qa.runs.layout import SWEEP_FILE
from adapter_qa.sweeps.search_space import TRAINER, Sweep, read_sweep

SCRIPT = Path(__file__).resolve().with_name(TRAINER)
DRY_RUN_TRIALS = 3
MIN_LEASE = 3  # seconds; workers look at the storage every second
EXAMPLES = """\
examples:
  sweep_qa.py sweeps/qa.yaml --dry_run
  CUDA_VISIBLE_DEVICES=0 sweep_qa.py sweeps/qa.yaml & \\
      CUDA_VISIBLE_DEVICES=1 sweep_qa.py sweeps/qa.yaml & wait
  sbatch --array=0-7 --gres=gpu:1 --signal=B:TERM@300 \\
      --wrap="exec python sweep_qa.py sweeps/qa.yaml"
"""


@dataclass(frozen=True)
class SweepOptions:
    """The command line; without `storage`, a journal in the folder is used."""

    sweep: Sweep
    folder: Path
    storage: str | None
    lease: float
    dry_run: bool


@raise_on_signal()
@report_resource_errors()
def main(argv: list[str]) -> int:
    """Run a worker of a sweep and return the exit code."""
    options = read_options(argv)
    sweep, folder = options.sweep, options.folder
    for line in describe(sweep, folder):
        print(escape_control_chars(line), flush=True)

    from adapter_qa.sweeps import live_display, study, summary, worker

    if options.dry_run:
        for command in worker.first_commands(sweep, SCRIPT, folder, DRY_RUN_TRIALS):
            print(escape_control_chars(shlex.join(command)))
        return 0

    if not (folder / SWEEP_FILE).exists():
        worker.check_first_trial(sweep, SCRIPT)
    with study.report_storage_errors():
        storage = study.open_storage(folder, options.storage)
        store = study.TrialStore(sweep, folder, storage, study.study_name(storage, folder), options.lease)
        with DeferredSignal() as interruption, live_display.LiveDisplay(store) as display:
            worker.Worker(store, SCRIPT, interruption, display).work()
        summary.print_summary(store, SCRIPT)
    return 0


def read_options(argv: list[str]) -> SweepOptions:
    """Read the command line and the file of the sweep.

    Raises:
        UserError: if either has problems, or optuna is not installed.
    """
    parser = CollectingArgumentParser(description=__doc__, epilog=EXAMPLES, allow_abbrev=False)
    parser.add_argument("sweep", metavar="SWEEP.yaml", type=Path, help="what is searched; see sweeps/qa.yaml")
    parser.add_argument(
        "--output_dir",
        metavar="FOLDER",
        help="folder of the sweep; with --storage its last part names the study (default: outputs/sweeps/<name of the "
        "file>)",
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
        help="another worker resumes a trial whose worker does not respond for this time; give all workers the same "
        "value (default: 120)",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help=f"print the commands of {DRY_RUN_TRIALS} trials; missing files, folders and a missing launcher are noted",
    )
    args = parser.parse_args(argv)
    problems = []
    if not (math.isfinite(args.lease) and args.lease >= MIN_LEASE):
        problems.append(f"--lease {args.lease}: must be at least {MIN_LEASE} (seconds)")
    if importlib.util.find_spec("optuna") is None:
        problems.append('optuna is not installed; pip install "adapter-qa[sweep]"')
    if args.output_dir is not None and Path(args.output_dir).is_file():
        problems.append(f"--output_dir {args.output_dir}: is a file; give a folder")
    with also_report(problems):
        sweep = read_sweep(args.sweep, dry_run=args.dry_run)
    folder = Path(args.output_dir or Path("outputs") / "sweeps" / args.sweep.stem)
    return SweepOptions(sweep, folder, args.storage, args.lease, args.dry_run)


def describe(sweep: Sweep, folder: Path) -> list[str]:
    """Return lines that describe the sweep, one for each entry of the search."""
    entries = [f"  {name}: {entry.describe()}" for name, entry in sweep.search.items()]
    methods = f"sampler {sweep.sampler.kind}, pruner {sweep.pruner.kind}"
    return [f"{folder}: {sweep.trials} trials, {sweep.metric}, {methods}", *entries]


def command() -> int:
    """Run the script on the command line."""
    return run_cli(main)


if __name__ == "__main__":
    sys.exit(command())

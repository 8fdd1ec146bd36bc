"""Messages to the user on stdout and stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import TextIO

from adapter_qa.core.distributed import is_local_main, is_main_process
from adapter_qa.core.errors import Interrupted, ReportedError, RunError, UserError, escape_control_chars

SECONDS_TO_PRINT = 5.0  # for the main process: torchrun ends it as soon as another process ends


def print_main(text: str) -> None:
    """Print a text on stdout, in the main process only."""
    if is_main_process():
        _print_line(text, sys.stdout)


def log_note(lines: Iterable[str]) -> None:
    """Print notes on stderr, one line each: what the user should know but need not fix. Once per machine."""
    for line in lines if is_local_main() else ():
        _print_line(f"note: {escape_control_chars(line)}", sys.stderr)


def _print_line(text: str, stream: TextIO) -> None:
    """Print a text above the progress bar, if there is one."""
    from tqdm import tqdm  # late: what is printed without a bar, such as --help, does not need it

    tqdm.write(text, file=stream)
    stream.flush()


def print_error(error: ReportedError) -> None:
    """Print the problems of an error on stderr, one line each.

    All processes of a run find the same mistakes in the input, so these are printed once per machine. Failures differ
    between processes, so each process prints its own.
    """
    prefix = "stopped" if isinstance(error, Interrupted) else "error"
    rank = "" if is_local_main() else f"[rank {os.environ['RANK']}] "
    for problem in error.problems if is_local_main() or isinstance(error, RunError) else ():
        print(f"{rank}{prefix}: {problem}", file=sys.stderr)
    if not is_local_main() and isinstance(error, UserError):
        time.sleep(SECONDS_TO_PRINT)

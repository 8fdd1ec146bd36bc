"""Messages to people on stdout and stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from adapter_qa.core.distributed import is_local_main, is_main_process
from adapter_qa.core.errors import Interrupted, ReportedError, RunError, escape_control_chars


def print_main(text: str) -> None:
    """Prints a text on stdout, once a run."""
    if is_main_process():
        print(text, flush=True)


def log_note(lines: Iterable[str]) -> None:
    """Says on stderr what a person should know and need not mend, a line each."""
    for line in lines if is_local_main() else ():
        print(f"note: {escape_control_chars(line)}", file=sys.stderr, flush=True)


def print_error(error: ReportedError) -> None:
    """Says on stderr what happened, a line each. Bad input is the same for all processes of a run; a failure is not."""
    prefix = "stopped" if isinstance(error, Interrupted) else "error"
    where = "" if is_local_main() else f"[rank {os.environ['RANK']}] "
    for problem in error.problems if is_local_main() or isinstance(error, RunError) else ():
        print(f"{where}{prefix}: {problem}", file=sys.stderr)

"""What a worker prints: lines, and on a terminal the state of all trials below them."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterable
from datetime import datetime

from adapter_qa.core.errors import escape_control_chars
from adapter_qa.core.messages import log_note
from adapter_qa.sweeps.state_table import state_table, totals
from adapter_qa.sweeps.study import TrialStore

REFRESH = 1.0  # seconds between two readings of the storage
ERASE = "\x1b[J"  # from the cursor to the end of the screen
UP = "\x1b[{}A\r"
COLUMNS, LINES = 80, 24  # of a terminal that does not know its size


class LiveDisplay:
    """Prints lines, and redraws a table of all trials below them if stdout is a terminal; a context, which removes it.

    The cursor rests in the empty line above the table. So the table can be erased after the width of the terminal has
    changed, and what other processes print goes into a line of its own. Of several workers in one terminal only one
    draws the table.

    Args:
        store: the trials.
    """

    def __init__(self, store: TrialStore):
        self.store = store
        self._terminal = _open_terminal()
        self._next_refresh = 0.0

    def __enter__(self) -> LiveDisplay:
        """Return the display. Notes of the store are printed above the table."""
        self.store.note = self.note
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the table."""
        self.erase()
        self.store.note = log_note
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    @property
    def on_terminal(self) -> bool:
        """Whether this or another worker draws the table where this one prints; not in the background of a shell."""
        if self._terminal is None:
            return False
        try:
            return os.tcgetpgrp(self._terminal) == os.getpgrp()
        except OSError:  # not the terminal of this process's session, which has no background then
            return True

    def print_line(self, text: str) -> None:
        """Print a line at once, with control characters escaped."""
        self.erase()
        print(escape_control_chars(text), flush=True)
        self.refresh(now=True)

    def print_event(self, text: str) -> None:
        """Print a line if there is no table, which would show the same."""
        if self.on_terminal:
            self.refresh(now=True)
        else:
            self.print_line(text)

    def note(self, lines: Iterable[str]) -> None:
        """Print notes on stderr."""
        self.erase()
        log_note(lines)

    def erase(self) -> None:
        """Erase the table."""
        if self.on_terminal:
            print(ERASE, end="", flush=True)

    def refresh(self, *, now: bool = False) -> None:
        """Draw the table again if it is due and no other worker does; call it frequently."""
        if self._terminal is None or not (now or time.monotonic() >= self._next_refresh):
            return
        self._next_refresh = time.monotonic() + REFRESH
        if self.on_terminal and _lock(self._terminal):
            columns, rows = os.get_terminal_size(self._terminal)
            size = os.terminal_size((columns or COLUMNS, rows or LINES))
            lines = state_table(self.store.trials(), self.store.sweep, datetime.now(), size)
            print(ERASE + "".join(f"\n{line}" for line in lines) + UP.format(len(lines)), end="", flush=True)

    def totals(self) -> str:
        """Return how far the sweep is, in one line, when this worker is between two trials."""
        return totals(self.store.trials(), self.store.sweep, datetime.now(), idle=1)


def _open_terminal() -> int | None:
    """Return a descriptor of the terminal that stdout is; None if it is none, or one that cannot erase or be opened."""
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return None
    try:
        return os.open(os.ttyname(sys.stdout.fileno()), os.O_RDWR | os.O_NOCTTY)
    except OSError:  # it is another user's, as after su, or its device is not in this container
        return None


def _lock(terminal: int) -> bool:
    """Return whether this process alone may draw on a terminal; it may until it closes the descriptor."""
    try:
        fcntl.flock(terminal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

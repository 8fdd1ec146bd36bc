"""The table below a worker's lines, on a pseudo-terminal."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import pty
import select
import struct
import termios
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import Mock

import pyte
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from support.sweeps import WriteSweep

from adapter_qa.core.messages import log_note
from adapter_qa.sweeps.live_display import LiveDisplay
from adapter_qa.sweeps.search_space import read_sweep
from adapter_qa.sweeps.study import TrialStore


class Terminal:
    """A pseudo-terminal; as a context it is stdout and stderr of this process."""

    def __init__(self, columns: int, rows: int):
        self.screen = pyte.Screen(columns, rows)
        self.emulator = pyte.ByteStream(self.screen)
        self.master, self.slave = pty.openpty()
        self.stream = os.fdopen(self.slave, "w")
        self.resize(columns, rows)

    def __enter__(self) -> None:
        self.contexts = ExitStack()
        self.contexts.enter_context(redirect_stdout(self.stream))
        self.contexts.enter_context(redirect_stderr(self.stream))

    def __exit__(self, *error: object) -> None:
        self.contexts.close()

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def lines(self) -> list[str]:
        while select.select([self.master], [], [], 0.05)[0]:
            self.emulator.feed(os.read(self.master, 65536))
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip("\n").split("\n")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    device = Terminal(80, 24)
    monkeypatch.setenv("TERM", "xterm")
    yield device
    device.stream.close()
    os.close(device.master)


@pytest.fixture
def store(write_sweep: WriteSweep) -> TrialStore:
    return TrialStore(read_sweep(write_sweep()), Path("unused"), InMemoryStorage(), "sweep", 60)


HEAD = "trial  state    evals    F1   time  seed"


def test_table_stands_below_the_lines_and_disappears(store: TrialStore, terminal: Terminal) -> None:
    with terminal, LiveDisplay(store) as display:
        trial = store.claim()
        assert trial is not None
        trial.report(42.0, 0)
        display.print_event("is in the table")
        table = [HEAD, "    0  running      1  42.0  00:00     1", "0 of 3 done, 1 running"]
        assert terminal.lines() == ["", *table]
        display.print_line("a \x1b[31mline")
        assert terminal.lines() == ["a \\u001b[31mline", "", *table]
        store.note(["of the store " + "x" * 80])  # longer than a line of the screen
        display.refresh(now=True)
        assert terminal.lines() == ["a \\u001b[31mline", "note: of the store " + "x" * 61, "x" * 19, "", *table]
        print("of another process", flush=True)
        display.refresh(now=True)
        assert terminal.lines()[3:] == ["of another process", "", *table]
        assert store.record_outcome(0, TrialState.COMPLETE, 43.0)
        for columns in (30, 100):
            terminal.resize(columns, 24)
            display.refresh(now=True)
            assert terminal.lines()[4:] == [
                "",
                *(
                    line[: columns - 1].rstrip()
                    for line in (
                        "trial  state     evals    F1   time  seed",
                        "    0  finished      1  43.0  00:00     1",
                        "1 of 3 done; best F1 43.0 (trial 0); about 0 s left",
                    )
                ),
            ]
    assert terminal.lines()[3:] == ["of another process"]
    assert store.note is log_note


def test_table_is_read_again_after_a_while_only(
    store: TrialStore, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("adapter_qa.sweeps.live_display.time.monotonic", lambda: now[0])
    with terminal, LiveDisplay(store) as display:
        display.refresh()
        assert terminal.lines() == ["", "0 of 3 done"]
        assert store.claim() is not None
        display.refresh()
        assert terminal.lines() == ["", "0 of 3 done"]
        now[0] += 1
        display.refresh()
        assert terminal.lines()[1] == "trial  state    evals  F1   time  seed"


def test_one_of_two_workers_in_a_terminal_draws_the_table(store: TrialStore, terminal: Terminal) -> None:
    with terminal:
        other = LiveDisplay(store)
    with terminal, LiveDisplay(store) as display:
        display.refresh(now=True)
        other.print_event("is in the table")
        other.print_line("trial 1 ended")
        assert terminal.lines() == ["trial 1 ended"]
        display.refresh(now=True)
        assert terminal.lines() == ["trial 1 ended", "", "0 of 3 done"]
    with terminal, other:  # the first has ended
        other.refresh(now=True)
        assert terminal.lines() == ["trial 1 ended", "", "0 of 3 done"]


def test_screen_that_cannot_erase_shows_lines(
    store: TrialStore, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with terminal, LiveDisplay(store) as display:
        display.print_event("one")
        display.print_line("two")
        display.refresh(now=True)
    assert terminal.lines() == ["one", "two"]


@pytest.mark.parametrize("call", ["ttyname", "open"])
def test_terminal_that_cannot_be_opened_shows_lines(
    store: TrialStore, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(f"os.{call}", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
        with terminal:
            display = LiveDisplay(store)
    with terminal, display:
        display.print_event("one")
        display.print_line("two")
        display.refresh(now=True)
    assert terminal.lines() == ["one", "two"]


def test_terminal_of_unknown_size_has_24_lines_of_80(store: TrialStore, terminal: Terminal) -> None:
    fcntl.ioctl(terminal.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    with terminal, LiveDisplay(store) as display:
        assert store.claim() is not None
        display.refresh(now=True)
        head, row, totals = terminal.lines()[1:]
    assert head == "trial  state    evals  F1   time  seed"
    assert row.startswith("    0  running      0   -  00:0")
    assert totals == "0 of 3 done, 1 running"


def test_background_process_leaves_the_terminal_alone(
    store: TrialStore, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.tcgetpgrp", lambda descriptor: os.getpgrp() + 1)
    with terminal, LiveDisplay(store) as display:
        display.print_event("one")
        display.refresh(now=True)
    assert terminal.lines() == ["one"]


def test_pipe_gets_lines_only(store: TrialStore) -> None:
    output = io.StringIO()
    with redirect_stdout(output), LiveDisplay(store) as display:
        display.print_event("one")
        display.print_line("two")
        display.refresh(now=True)
        assert display.totals() == "0 of 3 done"
    assert output.getvalue() == "one\ntwo\n"

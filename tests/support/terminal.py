"""A command under a pseudo-terminal, and the screen that its user sees."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyte

END = "\x04"  # Ctrl-D


class Screen(NamedTuple):
    """What a terminal shows after a command.

    Attributes:
        text: all lines, those that have scrolled away included, without trailing spaces and empty lines at the end.
        exit_code: of the command; minus the signal if one killed it.
    """

    text: str
    exit_code: int

    @property
    def lines(self) -> list[str]:
        """The lines of the text."""
        return self.text.splitlines()


def run_in_terminal(
    command: Sequence[str],
    *,
    columns: int = 80,
    rows: int = 50,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    typed: str = "",
    on_screen: Callable[[str, subprocess.Popen[bytes]], None] | None = None,
    seconds: float = 120,
) -> Screen:
    """Run a command whose input and output are a terminal.

    Args:
        command: program and arguments.
        columns: width of the terminal.
        rows: height of the terminal.
        env: variables to add to the environment.
        cwd: working directory.
        typed: what the user types at the start.
        on_screen: is called with the screen and the process after every output, e.g. to send a signal.
        seconds: a limit, after which the command is killed and `TimeoutError` is raised.
    """
    screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=0.5)
    stream = pyte.ByteStream(screen)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    variables = {**os.environ, "TERM": "xterm", **(env or {})}
    for name in ("COLUMNS", "LINES", "CI"):
        variables.pop(name, None)
    with subprocess.Popen(
        list(command), stdin=slave, stdout=slave, stderr=slave, env=variables, cwd=cwd, start_new_session=True
    ) as process:
        os.close(slave)
        try:
            os.write(master, typed.encode())
            deadline = time.monotonic() + seconds
            while True:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{command}: still runs\n{_text(screen)}")
                if not select.select([master], [], [], 0.2)[0]:
                    if process.poll() is not None:
                        break
                    continue
                try:
                    output = os.read(master, 65536)
                except OSError:  # Linux reports the end of the terminal's other side so
                    break
                if not output:
                    break
                stream.feed(output)
                if on_screen is not None:
                    on_screen(_text(screen), process)
        except BaseException:
            process.kill()
            raise
        os.close(master)
        exit_code = process.wait()
    return Screen(_text(screen), exit_code)


def _text(screen: pyte.HistoryScreen) -> str:
    rows = [*screen.history.top, *(screen.buffer[row] for row in range(screen.lines))]
    lines = ["".join(row[column].data for column in range(screen.columns)).rstrip() for row in rows]
    return "\n".join(lines).rstrip("\n")

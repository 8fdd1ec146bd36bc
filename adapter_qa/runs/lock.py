"""The lock that keeps two processes from working in the same run's folder."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from adapter_qa.core.errors import UserError
from adapter_qa.core.messages import log_note
from adapter_qa.runs.layout import LOCK_FILE

# `is_locked` of another process holds a lock for some microseconds, so a run that finds one looks again.
PAUSES = (0.05, 0.05)  # seconds

# Open lock files by process and folder. A forked process does not inherit record locks, so the process is in the key.
# Closing any descriptor of a locked file releases the lock, so the files stay open.
_HELD: dict[tuple[int, Path], IO[str]] = {}


def lock_run_dir(folder: Path) -> None:
    """Lock a run's folder for the lifetime of this process, or to the end of `released_locks`.

    The lock is a record lock (`lockf`). A `flock` would be inherited by the workers of data loaders, which outlive a
    killed run by seconds. If the file system has no locks, this prints a note and the run continues.

    Raises:
        UserError: another process holds the lock.
        OSError: the lock file cannot be written.
    """
    key = (os.getpid(), folder.resolve())
    if key in _HELD:
        return
    stream = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    try:
        _lock(stream)
    except (BlockingIOError, PermissionError) as error:  # POSIX allows either
        stream.seek(0)
        holder = stream.read(200).strip()
        raise UserError(
            f"--output_dir {folder}: another run is working there ({holder}); wait for it, or give another folder"
        ) from error
    except OSError as error:
        log_note([f"{folder}: cannot be locked ({error.strerror}); start only one run at a time in this folder"])
        return
    stream.truncate(0)
    print(f"process {os.getpid()} on {socket.gethostname()}", file=stream, flush=True)
    _HELD[key] = stream


def _lock(stream: IO[str]) -> None:
    """Take the lock of an open file; raise BlockingIOError or PermissionError if another process keeps it."""
    import fcntl  # not available on Windows, where modules must still be importable

    for pause in PAUSES:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            time.sleep(pause)
        else:
            return
    fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def released_locks() -> Iterator[None]:
    """Release at the end the locks that were taken inside, in a process that lives on."""
    before = {*_HELD}
    try:
        yield
    finally:
        for key in {*_HELD} - before:
            _HELD.pop(key).close()


def is_locked(folder: Path) -> bool:
    """Return whether a process works in a run's folder. Read permission is enough."""
    import fcntl

    if (os.getpid(), folder.resolve()) in _HELD:
        return True  # closing the stream below would release the lock
    try:
        stream = (folder / LOCK_FILE).open(encoding="utf-8")
    except OSError:
        return False
    with stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:  # a file system without locks, which `lock_run_dir` reports
            return False
    return False

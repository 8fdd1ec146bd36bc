"""The journal of a sweep: Optuna's file with one record a line, which survives a full disk.

A disk that fills up or a machine that loses its power can leave half a record at the end of the file. Readers ignore
it, but Optuna would append the next record to it, and the line of both could not be read any more.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from adapter_qa.core.errors import UserError


class Journal(JournalFileBackend):
    """Optuna's journal, with `JournalLock`. Reading raises UserError if the file is damaged."""

    def __init__(self, path: Path):
        absolute = path.absolute()  # Optuna's lock is a symbolic link to the journal
        super().__init__(str(absolute), JournalLock(absolute))
        self.path = path

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the records from a number on."""
        try:
            yield from super().read_logs(log_number_from)
        except ValueError as error:
            raise damaged(self.path, error) from error


class JournalLock(JournalFileSymlinkLock):
    """Optuna's lock, under which records are appended. Taking it removes half a record from the end of the journal."""

    def __init__(self, journal: Path):
        super().__init__(str(journal))
        self.journal = journal

    def acquire(self) -> bool:
        """Wait for the lock and take it."""
        acquired = super().acquire()
        try:
            _remove_half_record(self.journal)
        except OSError:
            self.release()
            raise
        return acquired


def damaged(path: Path, error: Exception) -> UserError:
    """Return the error of a journal whose records cannot be read."""
    return UserError(f"{path}: is damaged ({error}); give another --output_dir")


def _remove_half_record(path: Path) -> None:
    """Remove the last line of a journal if it is no whole record: half a record was never stored."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:  # a new journal, which cannot be mapped
            return
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as content:
            start = content.rfind(b"\n", 0, size - 1) + 1
            line = content[start:]
        if not _is_record(line):
            file.truncate(start)


def _is_record(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False

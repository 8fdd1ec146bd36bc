"""Write answers to a file block by block, so that a killed run continues after the last complete answer.

The answers to FILE are collected as JSON lines in the folder FILE.partial, beside the settings that they depend on. At
the end they become FILE, so that FILE is always complete.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Never

from adapter_qa.core.cli import output_problems
from adapter_qa.core.errors import RunError, UserError, error_line
from adapter_qa.core.files import atomic_file, fsync_path, read_json, write_json
from adapter_qa.core.messages import log_note
from adapter_qa.core.readable import duration

if TYPE_CHECKING:
    import pyarrow as pa
    from tqdm import tqdm

PARQUET = ".parquet"
PARTIAL_SUFFIX = ".partial"
ANSWERS_NAME = "answers.jsonl"
SETTINGS_NAME = "settings.json"
INPUT_SETTING = "--input"  # None for standard input and for texts of the command line: such a run cannot be resumed
ROWS_PER_GROUP = 10_000  # of a Parquet file: in memory, and in one of its row groups
LONGEST_SHOWN = 40  # characters of a setting in a message; hashes are longer
SECONDS_BETWEEN_LINES = 60.0  # of progress, without a terminal

Document = dict[str, Any]  # a question with its answer
Settings = dict[str, Any]  # JSON values by the names that messages show


# ---------------------------------------------------------------- unfinished files


def partial_folder(output: Path) -> Path:
    """Return the folder that holds the answers as long as some are missing."""
    return output.with_name(output.name + PARTIAL_SUFFIX)


def check_settings(output: Path, settings: Settings) -> None:
    """Compare some or all settings with those of the answers that an earlier run left, if these can be resumed.

    Raises:
        UserError: they differ.
    """
    folder = partial_folder(output)
    if not (folder / SETTINGS_NAME).is_file():
        return
    earlier = read_json(folder / SETTINGS_NAME)
    if earlier.get(INPUT_SETTING) is None:
        return
    differing = [name for name, value in settings.items() if earlier.get(name) != value]
    if differing:
        shown = ", ".join(_difference(name, earlier.get(name), settings[name]) for name in differing)
        raise UserError(
            f"--output {output}: {folder} holds answers of an unfinished run with other settings: {shown}; give those "
            "of then, another file, or --overwrite"
        )


def _difference(name: str, earlier: Any, value: Any) -> str:
    if max(len(str(earlier)), len(str(value))) > LONGEST_SHOWN:
        return f"another {name}"
    then, now = ("not given" if one is None else one for one in (earlier, value))
    return f"{name} {then} then and {now} now"


@dataclass
class AnswerFile:
    """An open file of answers as JSON lines, in the order of the questions.

    Attributes:
        folder: its folder.
        stream: the file, open for appending.
        resumes: whether the same command continues after the last answer.
        done: number of answers in it.
        last_id: id of the last of them.
    """

    folder: Path
    stream: IO[bytes]
    resumes: bool = True
    done: int = 0
    last_id: Any = None

    def find_complete_lines(self) -> None:
        """Count the answers, and remove what is behind the last complete one: a killed process writes half a line."""
        self.stream.seek(0)
        end, last = 0, b""
        for line in self.stream:
            if not (line.startswith(b"{") and line.endswith(b"}\n")):
                break
            self.done += 1
            end, last = end + len(line), line
        self.last_id = json.loads(last)["id"] if last else None
        self.stream.truncate(end)

    def skip_done(self, requests: Iterator[dict[str, Any]]) -> None:
        """Take the requests whose answers are in the file.

        Raises:
            UserError: the last of them is not the one that was answered last.
        """
        last = None
        for last in islice(requests, self.done):  # noqa: B007  # the last one counts
            pass
        if last is not None and last["id"] != self.last_id:
            raise UserError(
                f"{self.folder}: answer {self.done:,} has the id {self.last_id!r}, question {self.done:,} the id "
                f"{last['id']!r}; remove the folder to begin anew"
            )

    def write(self, documents: Iterable[Document]) -> None:
        """Write answers, and wait until they are on the disk.

        Raises:
            RunError: the disk is full, for example.
        """
        lines = [json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n" for record in documents]
        try:
            self.stream.write(b"".join(lines))
            self.stream.flush()
            os.fsync(self.stream.fileno())
        except OSError as error:
            advice = "fix that and give the same command" + (", it resumes" if self.resumes else "")
            raise RunError(f"{self.folder}: {error.strerror}; {advice}") from error
        self.done += len(lines)


@contextmanager
def open_answers(
    output: Path, settings: Settings, *, resumes: bool, overwrite: bool = False, schema: pa.Schema | None = None
) -> Iterator[AnswerFile]:
    """Open the answers to `output`, which becomes a complete file if the block ends without an error.

    After an error answers stay beside it if they can be resumed, or if they are complete and only `output` failed.

    Args:
        output: Parquet if its name ends in .parquet, and JSON lines otherwise.
        settings: what the answers depend on.
        resumes: keep what a run with the same settings has answered; what else there is, is removed.
        overwrite: replace `output` if it exists.
        schema: of questions and answers, for Parquet; None if it is not known before the questions are read.

    Raises:
        UserError: the file cannot be written, another process writes it, or it exists and `overwrite` is not given.
    """
    folder = partial_folder(output)
    try:
        folder.mkdir(exist_ok=True)
        stream = (folder / ANSWERS_NAME).open("a+b")
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written ({error.strerror}); give another file") from error
    with stream:
        _lock(stream, output)
        problems = output_problems("--output", output, overwrite=overwrite)  # another process may have finished it
        if problems:
            if stream.tell() == 0:
                shutil.rmtree(folder)
            raise UserError(problems)
        answers = AnswerFile(folder, stream, resumes)
        path = folder / SETTINGS_NAME
        if resumes and path.is_file() and read_json(path) == settings:
            answers.find_complete_lines()
        else:
            stream.truncate(0)
            write_json(path, settings)  # before the first answer
        is_unfinished = True
        try:
            yield answers
            is_unfinished = False
        finally:
            if is_unfinished and not (resumes and answers.done):
                shutil.rmtree(folder)
        if output.suffix.lower() == PARQUET:
            write_parquet(folder / ANSWERS_NAME, output, schema)
        else:
            os.replace(folder / ANSWERS_NAME, output)
            fsync_path(output.parent)
        shutil.rmtree(folder)


def _lock(stream: IO[bytes], output: Path) -> None:
    """Lock a file to the end of the process; where the file system has no locks, a note says so."""
    import fcntl  # not available on Windows, where modules must still be importable

    try:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # POSIX allows either
        raise UserError(f"--output {output}: another process writes it; wait for it, or give another file") from error
    except OSError as error:
        log_note([f"{output}: cannot be locked ({error.strerror}); let only one process write it"])


# ---------------------------------------------------------------- Parquet


def schema_of(documents: Iterable[Document], source: object) -> pa.Schema:
    """Return the columns of documents and their types; a column of numbers with and without fractions has fractions.

    Raises:
        UserError: a column has values of types that Parquet cannot hold together.
    """
    import pyarrow as pa  # imported here because it is slow
    from pyarrow import parquet

    schema = pa.schema([])
    try:
        for rows in _groups(documents):
            struct = pa.array(rows).type
            names = dict.fromkeys(name for row in rows for name in row)  # pyarrow sorts them
            schema = join_schemas(schema, pa.schema([struct.field(name) for name in names]))
        parquet.ParquetWriter(pa.BufferOutputStream(), schema).close()  # refuses objects that are always empty
    except (pa.ArrowException, OverflowError) as error:
        reason = error_line(error)
        raise UserError(f"{source}: {reason}, which a Parquet file cannot hold; write JSON lines") from error
    return schema


def join_schemas(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    """Return the columns of both, each with a type for the values of both."""
    import pyarrow as pa

    return pa.unify_schemas([first, second], promote_options="permissive")


def answer_schema(*, version_2: bool, n_best: int | None) -> pa.Schema:
    """Return the columns that every answer has, so that a shard without questions has them, too."""
    from adapter_qa.data.answers import Candidate, PlainAnswer  # imports numpy

    no_answer = 0.0 if version_2 else None
    candidate = Candidate("a", 0, 1, 0.0, 0.0, 1.0)
    answer = PlainAnswer("a", 1.0, 0, 1, (candidate,), no_answer, no_answer)
    return schema_of([answer.document(n_best)], "an answer")


def write_parquet(path: Path, output: Path, schema: pa.Schema | None) -> None:
    """Write JSON lines as Parquet, with the columns of a schema and those that the lines have besides.

    Raises:
        RunError: a column has values of types that Parquet cannot hold together, or the disk is full, for example.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        found = schema_of(_documents(path), path)
        columns = found if schema is None else join_schemas(schema, found)
        with atomic_file(output) as temporary, parquet.ParquetWriter(temporary, columns) as writer:
            for rows in _groups(_documents(path)):
                writer.write_batch(pa.RecordBatch.from_struct_array(pa.array(rows, pa.struct(columns))))
    except (UserError, pa.ArrowException, OverflowError, OSError) as error:
        reason = error_line(error)
        raise RunError(f"{output}: cannot be written ({reason}); {path} has all answers as JSON lines") from error


def _documents(path: Path) -> Iterator[Document]:
    with path.open("rb") as stream:
        yield from map(json.loads, stream)


def _groups(documents: Iterable[Document]) -> Iterator[list[Document]]:
    iterator = iter(documents)
    while rows := [*islice(iterator, ROWS_PER_GROUP)]:
        yield rows


# ---------------------------------------------------------------- progress


class AnswerProgress:
    """Shows how many questions are answered, the rate and the time left: as a bar, or as a line every minute.

    Args:
        done: questions that were answered before.
        count: all questions; None if that is not known.
        has_bar: whether there is a bar; otherwise there are lines.
        clock: returns a time in seconds.
    """

    def __init__(self, done: int, count: int | None, *, has_bar: bool, clock: Callable[[], float] = time.monotonic):
        from tqdm import tqdm  # late: --help does not need it

        self.before, self.done, self.count, self.clock = done, done, count, clock
        self.started = self.shown = clock()
        self.bar: tqdm[Never] | None = None
        if has_bar:
            self.bar = tqdm(total=count, initial=done, unit=" questions", desc="answered", delay=1, leave=False)

    def __enter__(self) -> AnswerProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, number: int) -> None:
        """Add answered questions."""
        self.done += number
        now = self.clock()
        if self.bar is not None:
            self.bar.update(number)
        elif now - self.shown >= SECONDS_BETWEEN_LINES and self.done != self.count:
            self.shown = now
            rate = (self.done - self.before) / (now - self.started)
            facts = [f"{self.done:,}" + (f" of {self.count:,}" if self.count is not None else "") + " questions"]
            facts += [f"{rate:,.1f} a second"]
            facts += [f"{duration((self.count - self.done) / rate)} left"] if self.count is not None else []
            print("  ".join(facts), file=sys.stderr, flush=True)

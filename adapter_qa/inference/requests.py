"""Read questions from the command line, and as streams of any length from files and standard input."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from adapter_qa.core.errors import UserError, raise_first_problems, raise_if_any, run_all, run_each
from adapter_qa.core.files import decode, is_text, open_stdin, read_bytes, read_stdin
from adapter_qa.data.readers.records import Record
from adapter_qa.data.readers.squad import (
    STANDARD,
    QuestionColumns,
    RecordError,
    other_columns,
    parse_question,
    stream_question_file,
    stream_question_lines,
)

STDIN = "-"  # as the name of a file
STDIN_NAME = "standard input"
BLOCK_QUESTIONS = 1024  # read, answered and written together: enough to batch windows of similar length
BLOCK_CHARACTERS = 1_000_000  # the same for long contexts
MANY_PROBLEMS = 10_000  # after which no more records are checked

Request = dict[str, Any]  # a record with the keys id, question and context


@dataclass(frozen=True)
class Requests:
    """Questions with their contexts, each a record with `id`, `question`, `context` and perhaps more.

    Attributes:
        read: returns the records from the first one; they are read while they are taken.
        count: their number; None for standard input, which can be read once.
        file: the file that holds them, if there is one.
    """

    read: Callable[[], Iterator[Request]]
    count: int | None = None
    file: Path | None = None


class Shard(NamedTuple):
    """One of several parts of a file, which have the same size (but for one question) and follow one another.

    Attributes:
        number: from 1.
        total: number of parts.
    """

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Shard | None:
        """Read a shard such as "3/8"; None if the text is no such pair, or the number is out of range."""
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        shard = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        return shard if 1 <= shard.number <= shard.total else None

    def of(self, requests: Requests) -> Requests:
        """Return the requests in this part of a file."""
        count = requests.count or 0
        first, end = count * (self.number - 1) // self.total, count * self.number // self.total
        return replace(requests, read=lambda: islice(requests.read(), first, end), count=end - first)

    def path(self, output: Path) -> Path:
        """Return the file for the answers to this part: answers-3-of-8.jsonl; sorted names are in order."""
        number = str(self.number).zfill(len(str(self.total)))
        return output.with_name(f"{output.stem}-{number}-of-{self.total}{output.suffix}")


def blocks(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """Divide requests into blocks; nothing is read beyond the block that is returned."""
    block: list[Request] = []
    characters = 0
    for request in requests:
        block.append(request)
        characters += len(request["question"]) + len(request["context"])
        if len(block) >= BLOCK_QUESTIONS or characters >= BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def make_requests(
    questions: str | list[str], *, context: str | None = None, context_file: str | None = None
) -> Requests:
    """Return requests with the ids "1", "2", ... for questions on one context.

    Args:
        questions: The questions, or the name of a text file with one question per line.
        context: The context, or `STDIN`.
        context_file: Name of a text file with the context, if `context` is None.

    Raises:
        UserError: if a file cannot be read, or a text is empty or not valid.
    """
    texts, passage = run_all(lambda: _read_questions(questions), lambda: read_context(context, context_file))
    records = [{"id": str(number), "question": text, "context": passage} for number, text in enumerate(texts, start=1)]
    return Requests(records.__iter__, len(records))


def _read_questions(questions: str | list[str]) -> list[str]:
    if isinstance(questions, str):
        return [line.strip() for line in _read_text(questions).split("\n") if line.strip()]
    return run_each(partial(_check_text, "--question", question) for question in questions)


def read_context(context: str | None, context_file: str | None) -> str:
    """Return the context; the arguments are those of `make_requests`.

    Raises:
        UserError: if the file cannot be read, or the text is empty or not valid.
    """
    if context is None or context == STDIN:
        return _read_text(context_file or STDIN).removesuffix("\n")
    return _check_text("--context", context)


def _check_text(option: str, text: str) -> str:
    """Return a text of the command line; UserError if it is empty or not valid."""
    problems = [f"{option} is empty"] if not text.strip() else []
    problems += [f"{option} is not valid UTF-8"] if not is_text(text) else []
    raise_if_any(problems)
    return text


def _read_text(file: str) -> str:
    """Return the text of a file or of standard input."""
    return decode(STDIN_NAME, read_stdin()) if file == STDIN else decode(file, read_bytes(file))


def read_requests(file: str, columns: QuestionColumns = STANDARD, *, need_ids: bool = False) -> Requests:
    """Check all records of a question file, and return them with all their fields but answers, which are not checked.

    If no record has an id, the ids are the numbers of the records, from "1". Standard input is not checked here, but
    block by block while it is read; its ids are compared within a block.

    Args:
        file: A file that `stream_question_file` reads, or `STDIN` for JSON lines.
        columns: The keys of its records. In what is returned the keys are the standard ones, too.
        need_ids: Whether all records must have ids.

    Raises:
        UserError: if the file cannot be read twice, a record lacks a field that others have or has a value that JSON
            cannot represent, or ids repeat.
    """
    if file == STDIN:
        return Requests(lambda: _read_stdin(columns, need_ids=need_ids))
    path = Path(file)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"--input {file}: is no regular file; send its JSON lines to standard input, with --input -")
    checker = _Checker(file, columns, need_ids)
    checked = checker.check(lambda: stream_question_file(path, columns, need_ids=need_ids))

    def read() -> Iterator[Request]:
        records = stream_question_file(path, columns, need_ids=need_ids)
        return (
            checker.request(record, number if checked.are_numbered else None)
            for number, record in enumerate(records, start=1)
        )

    return Requests(read, checked.count, path)


def _read_stdin(columns: QuestionColumns, *, need_ids: bool) -> Iterator[Request]:
    checker = _Checker(STDIN_NAME, columns, need_ids)
    records = stream_question_lines(STDIN_NAME, open_stdin(), columns)
    number, are_numbered = 0, None
    try:
        while group := [*islice(records, BLOCK_QUESTIONS)]:
            checked = checker.check(group.__iter__)
            if are_numbered not in (None, checked.are_numbered):
                raise UserError(
                    f"{STDIN_NAME}: some records up to {group[-1].where} have {columns.id!r} and others do not; give "
                    "every record one, or none"
                )
            are_numbered = checked.are_numbered
            for number, record in enumerate(group, start=number + 1):  # noqa: B020  # the numbers go on
                yield checker.request(record, number if are_numbered else None)
    except UnicodeDecodeError as error:
        raise UserError(f"{STDIN_NAME}: not UTF-8 ({error.reason}); send UTF-8") from error


@dataclass(frozen=True)
class _Checked:
    """The number of records, and whether their numbers are their ids."""

    count: int
    are_numbered: bool


class _Checker(NamedTuple):
    """Checks and converts the records of a source; the arguments are those of `read_requests`."""

    name: str
    columns: QuestionColumns
    need_ids: bool

    def check(self, read: Callable[[], Iterator[Record]]) -> _Checked:
        """Check records, which may be read several times.

        Raises:
            UserError: as `read_requests`.
        """
        count = with_id = 0
        first = without_id = None
        problems: list[str] = []
        hashes = array("q")
        for record in read():
            count += 1
            first = first or record
            if _is_blank_id(record, self.columns.id):
                without_id = without_id or record
            elif isinstance(record.fields, dict) and not record.problem:
                with_id += 1
            problem = self._problem(record, count)
            if problem:
                problems.append(problem)
            elif without_id is None:
                hashes.append(hash(str(record.fields[self.columns.id])))
            if len(problems) == MANY_PROBLEMS:
                break
        if without_id is not None and with_id and not self.need_ids:
            missing = sum(_is_blank_id(record, self.columns.id) for record in read())
            raise UserError(
                f"{self.name}: {missing} of {count} records have no {self.columns.id!r}, such as {without_id.where}; "
                "give every record one, or none"
            )
        problems[:0] = self._repeated_ids(read, hashes)
        if first is None:
            problems = [f"{self.name}: holds no questions"]
        elif problems:
            shown = self._with_number(first, 1) if without_id is not None else first
            problems[:0] = other_columns(shown, self.name, self.columns, need_answers=False)
        raise_first_problems(problems, self.name)
        return _Checked(count, without_id is not None and not self.need_ids)

    def _problem(self, record: Record, number: int) -> str:
        """Return what is wrong with a record; "" for nothing."""
        if _is_blank_id(record, self.columns.id) and not self.need_ids:
            record = self._with_number(record, number)
        plain = _without_answers(record, self.columns)
        try:
            parse_question(plain, need_answers=False, columns=self.columns)
            json.dumps(plain.fields, ensure_ascii=False, allow_nan=False).encode("utf-8")
        except RecordError as error:
            return f"{self.name}: {error}"
        except (TypeError, ValueError, RecursionError) as error:
            return f"{self.name}: {record.where}: has a value that JSON cannot represent ({error})"
        return ""

    def _repeated_ids(self, read: Callable[[], Iterator[Record]], hashes: array[int]) -> list[str]:
        """Return a problem if ids repeat. Of 10 million ids two have equal hashes by chance in 3 of a million files."""
        import numpy as np  # imported here because it is slow

        values, counts = np.unique(np.asarray(hashes), return_counts=True)
        repeated = {*values[counts > 1].tolist()}
        if not repeated:
            return []
        ids = (str(record.fields[self.columns.id]) for record in read() if not self._problem(record, 1))
        example = next(identifier for identifier in ids if hash(identifier) in repeated)
        extra = len(hashes) - len(values)
        return [f"{self.name}: ids must be unique; {extra} records repeat an id, such as {example!r}"]

    def request(self, record: Record, number: int | None) -> Request:
        """Return a checked record as a request, with its number as its id if that is given."""
        from adapter_qa.data.answers import ANSWER_FIELDS  # imports numpy

        if number is not None:
            record = self._with_number(record, number)
        fields: dict[str, Any] = _without_answers(record, self.columns).fields
        keys = {"id": self.columns.id, "question": self.columns.question, "context": self.columns.context}
        named = fields | {name: fields[key] for name, key in keys.items()}
        return {name: value for name, value in named.items() if name not in ANSWER_FIELDS}

    def _with_number(self, record: Record, number: int) -> Record:
        """Return a record with its number as its id, which comes first."""
        if not isinstance(record.fields, dict):
            return record
        identifier = {self.columns.id: str(number)}
        return replace(record, fields=identifier | record.fields | identifier)


def _is_blank_id(record: Record, key: str) -> bool:
    """Return whether a record that can be read has no id."""
    if record.problem or not isinstance(record.fields, dict):
        return False
    identifier = record.fields.get(key)
    return identifier is None or (isinstance(identifier, str) and not identifier.strip())


def _without_answers(record: Record, columns: QuestionColumns) -> Record:
    """Return a record without what is not asked: answers and title."""
    if record.problem or not isinstance(record.fields, dict):
        return record
    unused = {*STANDARD, *columns, "answer_text", "is_impossible"} - {columns.id, columns.question, columns.context}
    return replace(record, fields={key: value for key, value in record.fields.items() if key not in unused})

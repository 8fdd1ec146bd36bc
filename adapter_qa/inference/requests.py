"""Read questions from the command line, files and standard input, and write their answers as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from adapter_qa.core.errors import UserError, raise_if_any, run_all
from adapter_qa.core.files import decode, is_text, read_bytes, read_stdin, write_chunks
from adapter_qa.data.sources import Record
from adapter_qa.data.squad import STANDARD, QuestionColumns, read_question_content, read_question_file, to_questions

STDIN = "-"  # as the name of a file
STDIN_NAME = "standard input"
MAX_PROBLEMS = 10  # records that an error message names


def make_requests(
    questions: str | list[str], *, context: str | None = None, context_file: str | None = None
) -> list[dict[str, Any]]:
    """Return records with `id` (from "1"), `question` and `context` for questions on one context.

    Args:
        questions: The questions, or the name of a text file with one question per line.
        context: The context, or `STDIN`.
        context_file: Name of a text file with the context, if `context` is None.

    Raises:
        UserError: if a file cannot be read, or a text is empty or not valid.
    """
    texts, passage = run_all([lambda: _read_questions(questions), lambda: read_context(context, context_file)])
    return [{"id": str(number), "question": text, "context": passage} for number, text in enumerate(texts, start=1)]


def _read_questions(questions: str | list[str]) -> list[str]:
    if isinstance(questions, str):
        return [line.strip() for line in _read_text(questions).split("\n") if line.strip()]
    return run_all(partial(_check_text, "--question", question) for question in questions)


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


def read_requests(file: str, columns: QuestionColumns = STANDARD, *, need_ids: bool = False) -> list[dict[str, Any]]:
    """Read the records of a question file with all their fields; answers in them are not checked.

    If no record has an id, the ids are the numbers of the records, from "1".

    Args:
        file: A file that `data.squad.read_question_file` reads, or `STDIN` for JSON lines.
        columns: The keys of its records. In what is returned the keys are the standard ones, too.
        need_ids: Whether all records must have ids.

    Raises:
        UserError: if the file cannot be read, a record lacks a field that others have or has a value that JSON cannot
            represent, or ids repeat.
    """
    if file == STDIN:
        name = STDIN_NAME
        records = read_question_content(name, read_stdin(), ".jsonl", columns, need_ids=need_ids)
    else:
        name, records = file, read_question_file(Path(file), columns, need_ids=need_ids)
    if not need_ids:
        records = _with_ids(records, columns.id, name)
    questions = [_without_answers(record, columns) for record in records]
    to_questions(questions, name, need_answers=False, columns=columns)
    problems = []
    for record in records:
        try:
            json.dumps(record.fields, ensure_ascii=False, allow_nan=False).encode("utf-8")
        except (ValueError, RecursionError) as error:
            problems.append(f"{name}: {record.where}: has a value that JSON cannot represent ({error})")
    raise_if_any(problems[:MAX_PROBLEMS])
    keys = {"id": columns.id, "question": columns.question, "context": columns.context}
    return [record.fields | {name: record.fields[key] for name, key in keys.items()} for record in records]


def _with_ids(records: list[Record], key: str, source: str) -> list[Record]:
    """Return records with their numbers, from "1", as ids, if none of them has an id.

    Raises:
        UserError: if some have an id and others do not.
    """
    objects = [record for record in records if isinstance(record.fields, dict) and not record.problem]
    missing = [record for record in objects if _is_blank(record.fields.get(key))]
    if not missing:
        return records
    if len(missing) < len(objects):
        raise UserError(
            f"{source}: {len(missing)} of {len(records)} records have no {key!r}, such as {missing[0].where}; give "
            "every record one, or none"
        )
    return [
        replace(record, fields={key: str(number)} | record.fields | {key: str(number)})  # the id comes first
        if isinstance(record.fields, dict)
        else record
        for number, record in enumerate(records, start=1)
    ]


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _without_answers(record: Record, columns: QuestionColumns) -> Record:
    """Return a record without what is not asked: answers and title."""
    if record.problem or not isinstance(record.fields, dict):
        return record
    unused = {*STANDARD, *columns, "answer_text", "is_impossible"} - {columns.id, columns.question, columns.context}
    return replace(record, fields={key: value for key, value in record.fields.items() if key not in unused})


def write_json_lines(records: Iterable[dict[str, Any]], path: Path) -> None:
    """Write one JSON object per line.

    Raises:
        UserError: if the file cannot be written.
    """
    try:
        write_chunks(path, (json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records))
    except OSError as error:
        raise UserError(f"--output {path}: cannot be written ({error.strerror}); give another file") from error

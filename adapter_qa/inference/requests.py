"""What is asked, from the command line, files and standard input, and its answers as JSON lines."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from adapter_qa.core.errors import UserError, run_all
from adapter_qa.core.files import decode, is_text, read_bytes, read_stdin
from adapter_qa.data.squad import Record, read_question_file, read_records, to_questions

STDIN = "-"  # in place of a file


def asked_records(
    questions: str | list[str], *, context: str | None = None, context_file: str | None = None
) -> list[dict[str, Any]]:
    """Questions on one context as records, with the numbers from 1 as ids.

    Args:
        questions: as --question, or the name of a text file with one a line.
        context: as --context.
        context_file: text file with it, in place of `context`.

    Raises:
        UserError: a file cannot be read, or a text is empty, or no text.
    """
    asked, told = run_all([partial(read_questions, questions), partial(read_context, context, context_file)])
    return [{"id": str(number), "question": one, "context": told} for number, one in enumerate(asked, start=1)]


def read_questions(given: str | list[str]) -> list[str]:
    """The questions, at least one; as `asked_records`."""
    if isinstance(given, str):
        return [line.strip() for line in read_text_file(given).split("\n") if line.strip()]
    return run_all(partial(checked_text, "--question", question) for question in given)


def read_context(text: str | None, file: str | None) -> str:
    """The context; as `asked_records`."""
    if text is None or text == STDIN:
        return read_text_file(file or STDIN).removesuffix("\n")
    return checked_text("--context", text)


def checked_text(option: str, text: str) -> str:
    """A text of the command line.

    Raises:
        UserError: it is empty, or no text.
    """
    problems = [f"{option} is empty"] if not text.strip() else []
    problems += [f"{option} is no UTF-8"] if not is_text(text) else []
    if problems:
        raise UserError(problems)
    return text


def read_text_file(file: str) -> str:
    """The text of a file or of standard input.

    Raises:
        UserError: it cannot be read, is empty or no UTF-8.
    """
    if file == STDIN:
        return decode("standard input", read_stdin())
    return decode(file, read_bytes(file))


def read_pairs(path: Path) -> list[dict[str, Any]]:
    """Records of a question file, with all that is in them; answers are not looked at.

    Raises:
        UserError: the file cannot be read, records lack what is needed, or what is in them cannot be written again.
    """
    name = "standard input" if str(path) == STDIN else str(path)
    records = read_records(name, read_stdin(), ".jsonl") if str(path) == STDIN else read_question_file(path)
    to_questions([only_asked(record) for record in records], name, need_answers=False)
    problems = []
    for record in records:
        try:
            json.dumps(record.fields, ensure_ascii=False, allow_nan=False).encode("utf-8")
        except (ValueError, RecursionError) as error:
            problems.append(f"{name}: {record.where}: cannot be written again as JSON ({error})")
    if problems:
        raise UserError(problems[:10])
    return [record.fields for record in records]


def only_asked(record: Record) -> Record:
    """A record with nothing in it but what is asked."""
    if record.problem or not isinstance(record.fields, dict):
        return record
    asked = {key: record.fields[key] for key in ("id", "question", "context") if key in record.fields}
    return replace(record, fields=asked)


def write_lines(records: list[dict[str, Any]], path: Path) -> None:
    """Writes JSON lines aside and renames them.

    Raises:
        UserError: the folder cannot be written.
    """
    aside = path.with_name(path.name + ".writing")
    try:
        with aside.open("w", encoding="utf-8") as stream:
            for record in records:
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
        os.replace(aside, path)
    except OSError as error:
        raise UserError(f"--output {path}: cannot be written ({error.strerror})") from error

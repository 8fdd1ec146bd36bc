"""Readers of SQuAD questions: files and Hugging Face datasets."""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from adapter_qa.core.errors import UserError, raise_if_any, run_all
from adapter_qa.core.files import decode, is_text, kind, parse_json, read_bytes
from adapter_qa.data.questions import Question
from adapter_qa.data.sources import Record, load_dataset

QUESTION_FILE_SUFFIXES = (".json", ".jsonl", ".csv")
MAX_PROBLEMS = 10  # lines of one error message; further problems are only counted

ANSWER_START_LIMIT = 2**31  # offsets are int32 in the windows


class RecordError(ValueError):
    """A record that is not a valid question. The message gives its position and all its defects."""


def read_squad(path: str | Path, *, need_answers: bool) -> list[Question]:
    """Read the questions of a .json, .jsonl or .csv file in the format of SQuAD v1.1 or v2.0.

    A .json file contains nested SQuAD, flat `{"data": [...]}` or a plain list. A .jsonl file contains one flat record
    per line. A .csv file has the columns id, question, context and either `answers` (JSON, or the Python literal that
    pandas and datasets write) or `answer_text` and `answer_start`. `is_impossible` discards the answers.

    Args:
        path: the file.
        need_answers: whether every record must have answers. An empty list of answers means unanswerable.

    Raises:
        UserError: the file cannot be read, or records are invalid. Answers that are not at their start index are valid
            here.
    """
    return to_questions(read_question_file(Path(path)), str(path), need_answers=need_answers)


def read_squad_files(paths: Sequence[Path], *, need_answers: bool) -> list[Question]:
    """Read the questions of several files with `read_squad`.

    Raises:
        UserError: as `read_squad`; or files have ids in common.
    """
    questions = run_all(partial(read_squad, path, need_answers=need_answers) for path in paths)
    files: dict[str, Path] = {}
    for path, of_file in zip(paths, questions, strict=True):
        for question in of_file:
            if files.setdefault(question.id, path) != path:
                raise UserError(f"{files[question.id]} and {path}: both have a question with id {question.id!r}")
    return [question for of_file in questions for question in of_file]


def load_hub_squad(name: str, config: str | None, split: str, *, need_answers: bool) -> list[Question]:
    """Load the questions of a dataset in SQuAD format with `datasets.load_dataset`. Code of the dataset never runs.

    Raises:
        UserError: the dataset cannot be loaded, or records are invalid.
    """
    rows = load_dataset(name, config, split)
    return to_questions(list(rows.records), f"{name} ({split})", need_answers=need_answers)


def read_question_file(path: Path) -> list[Record]:
    """Read the records of a question file without checking them.

    Raises:
        UserError: the extension is unknown, the file cannot be read, or its content does not fit the extension.
    """
    if path.suffix.lower() not in QUESTION_FILE_SUFFIXES:
        raise UserError(f"{path}: extension {path.suffix!r}; allowed: {', '.join(QUESTION_FILE_SUFFIXES)}")
    return read_records(str(path), read_bytes(path))


def read_records(name: str, content: bytes, suffix: str | None = None) -> list[Record]:
    """Split the content of a question file into flat records without checking them.

    Args:
        name: path or name of the file, for error messages.
        content: UTF-8 with or without a byte order mark.
        suffix: one of `QUESTION_FILE_SUFFIXES`, which selects the format; None: the suffix of `name`.

    Raises:
        UserError: the content does not have the format.
    """
    text = decode(name, content)
    suffix = suffix or Path(name).suffix.lower()
    if suffix == ".csv":
        return list(_csv_records(name, text))
    if suffix == ".jsonl":
        return list(_line_records(text))
    return list(_json_records(name, text))


def parse_question(record: Record, *, need_answers: bool) -> Question:
    """Convert a flat record to a question. An integer id becomes text.

    Raises:
        RecordError: keys are missing or have the wrong type.
    """
    if record.problem:
        raise RecordError(f"{record.where}: {record.problem}")
    fields = record.fields
    if not isinstance(fields, dict):
        raise RecordError(f"{record.where}: {kind(fields)} instead of an object")
    id_problem = _id_problem(fields.get("id"))
    problems = [id_problem, _text_problem(fields, "question"), _text_problem(fields, "context")]
    problems += [_title_problem(fields.get("title")), _answers_problem(fields, need_answers)]
    if any(problems):
        identifier = "" if id_problem else f" (id {fields['id']!r})"
        raise RecordError(f"{record.where}{identifier}: {'; '.join(filter(None, problems))}")
    texts, starts = _answer_lists(fields)
    return Question(
        id=str(fields["id"]),
        question=fields["question"],
        context=fields["context"],
        answer_texts=tuple(texts),
        answer_starts=tuple(starts),
        title=fields.get("title") or "",
    )


def to_questions(records: list[Record], source: str, *, need_answers: bool) -> list[Question]:
    """Check the records of a file called `source` and convert them to questions.

    Raises:
        UserError: there are no records, ids repeat, or records are invalid.
    """
    questions, problems = [], []
    for record in records:
        try:
            questions.append(parse_question(record, need_answers=need_answers))
        except RecordError as error:
            problems.append(f"{source}: {error}")
    counts = Counter(question.id for question in questions)
    repeated = [identifier for identifier, count in counts.items() if count > 1]
    if repeated:
        extra = len(questions) - len(counts)
        problems.insert(0, f"{source}: ids must be unique; {extra} records repeat an id, such as {repeated[0]!r}")
    if not records:
        problems = [f"{source}: holds no questions"]
    raise_first_problems(problems, source)
    return questions


def raise_first_problems(problems: list[str], source: object) -> None:
    """Raise UserError if there are problems; at most `MAX_PROBLEMS` are listed."""
    more = len(problems) - MAX_PROBLEMS
    raise_if_any([*problems[:MAX_PROBLEMS], *([f"{source}: and {more} more problems"] if more > 0 else [])])


def _json_records(name: str, text: str) -> Iterator[Record]:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    items = content.get("data") if isinstance(content, dict) else content
    if not isinstance(items, list):
        raise UserError(f"{name}: the top level must be a list or an object whose 'data' is a list")
    for index, item in enumerate(items):
        if isinstance(item, dict) and "paragraphs" in item:
            yield from _article_records(item, f"data[{index}]")
        else:
            yield Record(f"data[{index}]", item)


def _article_records(article: dict[str, Any], where: str) -> Iterator[Record]:
    """Flatten an article of nested SQuAD."""
    if not isinstance(article["paragraphs"], list):
        yield Record(where, article, "'paragraphs' is not a list")
        return
    for index, paragraph in enumerate(article["paragraphs"]):
        paragraph_where = f"{where}.paragraphs[{index}]"
        if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
            yield Record(paragraph_where, paragraph, "is not an object with a list 'qas'")
            continue
        shared = {"title": article.get("title")}
        if "context" in paragraph:
            shared["context"] = paragraph["context"]
        for number, fields in enumerate(paragraph["qas"]):
            flat = {**fields, **shared} if isinstance(fields, dict) else fields
            yield Record(f"{paragraph_where}.qas[{number}]", flat)


def _line_records(text: str) -> Iterator[Record]:
    # Not splitlines: a JSON string may contain U+2028 and other separators.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield Record(f"line {number}", parse_json(line, one_line=True))
        except ValueError as error:
            yield Record(f"line {number}", line, str(error))


def _csv_records(name: str, text: str) -> Iterator[Record]:
    csv.field_size_limit(2**31 - 1)  # the default limit is 128 KiB
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = rows.fieldnames or []
        repeated = [column for column, count in Counter(header).items() if count > 1]
        if repeated:
            raise UserError(f"{name}: more than one column {', '.join(repeated)}; each needs its own name")
        missing = [column for column in ("id", "question", "context") if column not in header]
        if missing:
            raise UserError(
                f"{name}: no column {', '.join(missing)}; needed, comma-separated: id, question, context; "
                f"found: {', '.join(header)}"
            )
        for row in rows:
            where = f"line {rows.line_num}"
            if None in row or None in row.values():
                yield Record(where, row, f"the number of values is not {len(header)}, the number of columns")
                continue
            try:
                yield Record(where, _csv_fields(row))
            except ValueError as error:
                yield Record(where, row, str(error))
    except csv.Error as error:
        raise UserError(f"{name}: not CSV after line {rows.line_num}: {error}") from error


def _csv_fields(row: dict[str, str]) -> dict[str, Any]:
    """Convert a row to a flat record, or raise ValueError if a cell has the wrong format."""
    fields: dict[str, Any] = {key: row[key] for key in ("id", "title", "question", "context") if key in row}
    impossible = row.get("is_impossible", "").strip().lower()
    if impossible not in ("", "true", "false"):
        raise ValueError(f"'is_impossible' is {row['is_impossible']!r}; allowed: true, false or empty")
    fields["is_impossible"] = impossible == "true"
    if row.get("answers"):
        fields["answers"] = _parse_literal(row["answers"])
    elif "answers" not in row and "answer_text" in row and "answer_start" in row:
        text, start = row["answer_text"], row["answer_start"].strip()
        number = re.fullmatch(r"(-?[0-9]+)(\.0)?", start)  # pandas writes 12.0 in columns with missing values
        if (text or start) and not number:
            raise ValueError(f"'answer_start' is {start!r}; it must be a whole number")
        fields["answers"] = {
            "text": [text] if number else [],
            "answer_start": [int(number[1])] if number else [],
        }
    return fields


class _ArraysToLists(ast.NodeTransformer):
    """Transformer that replaces numpy's `array([1, 2], dtype=int32)` and `np.int64(7)` by the first argument."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        return self.visit(node.args[0]) if node.args else node


def _parse_literal(cell: str) -> Any:
    """Parse a cell as JSON or else as a Python literal, or raise ValueError. Nothing is executed."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(cell)
    try:
        return ast.literal_eval(_ArraysToLists().visit(ast.parse(cell.strip(), mode="eval")))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:  # documented for literal_eval
        raise ValueError("'answers' is neither JSON nor a Python literal") from error


def _id_problem(identifier: object) -> str:
    if identifier is None or (isinstance(identifier, str) and not identifier.strip()):
        return "no 'id'"
    if type(identifier) is not int and not is_text(identifier):
        return f"'id' is {kind(identifier)}; it must be valid text or a whole number"
    return ""


def _title_problem(title: object) -> str:
    if title is not None and not is_text(title):
        return f"'title' is {kind(title)}; it must be valid text"
    return ""


def _text_problem(fields: dict[str, Any], key: str) -> str:
    if key not in fields:
        return f"no {key!r}"
    value = fields[key]
    if not isinstance(value, str):
        return f"{key!r} is {kind(value)}; it must be text"
    if not value.strip():
        return f"{key!r} is empty"
    return "" if is_text(value) else f"{key!r} has a lone surrogate, which is not valid text"


def _answers_problem(fields: dict[str, Any], need_answers: bool) -> str:
    impossible = fields.get("is_impossible")
    if impossible is not None and not isinstance(impossible, bool):
        return f"'is_impossible' is {kind(impossible)}; it must be true or false"
    if impossible:
        return ""
    answers = fields.get("answers")
    if answers is None:
        return "no 'answers'" if need_answers else ""
    if isinstance(answers, dict):
        well_formed = all(isinstance(answers.get(key), list) for key in ("text", "answer_start"))
    else:
        well_formed = isinstance(answers, list) and all(
            isinstance(answer, dict) and "text" in answer and "answer_start" in answer for answer in answers
        )
    if not well_formed:
        return "'answers' must be [{'text', 'answer_start'}, ...] or {'text': [...], 'answer_start': [...]}"
    texts, starts = _answer_lists(fields)
    if len(texts) != len(starts):
        return f"'answers' has {len(texts)} 'text' and {len(starts)} 'answer_start'; give one start per text"
    if not all(map(is_text, texts)):
        return "an answer's 'text' is not valid text"
    for start in starts:
        if type(start) is not int or abs(start) >= ANSWER_START_LIMIT:  # isinstance counts bool as int
            shown = kind(start) if type(start) is not int else "out of range"
            return f"an 'answer_start' is {shown}; it must be a whole number, the index of a character"
    return ""


def _answer_lists(fields: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return texts and starts of either form of `answers`; both are empty for an unanswerable question."""
    answers = fields.get("answers")
    if fields.get("is_impossible") or answers is None:
        return [], []
    if isinstance(answers, dict):
        return answers["text"], answers["answer_start"]
    return [answer["text"] for answer in answers], [answer["answer_start"] for answer in answers]

"""Readers of SQuAD questions: files and Hugging Face datasets."""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from adapter_qa.core.errors import UserError, raise_first_problems, run_each
from adapter_qa.core.files import is_text, kind
from adapter_qa.data.questions import NO_START, Question
from adapter_qa.data.readers.compression import format_of
from adapter_qa.data.readers.dataset_library import load_dataset
from adapter_qa.data.readers.json_csv import CSV_SUFFIXES, read_records, stream_records
from adapter_qa.data.readers.record_files import read_rows, stream_rows
from adapter_qa.data.readers.records import Record

ANSWER_START_LIMIT = 2**31  # offsets are int32 in the windows
# pandas writes 12.0 in columns with gaps, and some locales have a comma; but 1,000 is not 1.
WHOLE_NUMBER = re.compile(r"(-?[0-9]+)([.,]0{1,2})?")
SEARCH = "prepare_squad_pt.py finds the start of answers without one"


class QuestionColumns(NamedTuple):
    """The columns, or keys, of a flat record.

    Attributes:
        id: of the question.
        question: its text.
        context: the text that has the answer.
        answer: answers in one of SQuAD's forms, or the text of one answer or of several; without a column "answers"
            also "answer_text".
        answer_start: where `answer` is text, the index of the first character in the context.
        title: of the context.
    """

    id: str = "id"
    question: str = "question"
    context: str = "context"
    answer: str = "answers"
    answer_start: str = "answer_start"
    title: str = "title"

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> QuestionColumns:
        """Return the columns that the options `<field>_column` name; earlier versions recorded no such options."""
        return cls(**{name: options.get(f"{name}_column", default) for name, default in cls._field_defaults.items()})

    def needed(self, *, ids: bool = True) -> dict[str, str]:
        """Return, by option, the columns that every file must have; without `ids`, that of the id is not one."""
        texts = {"question_column": self.question, "context_column": self.context}
        return ({"id_column": self.id} if ids else {}) | texts

    def answer_in(self, fields: Mapping[str, Any]) -> str:
        """Return the column of a record's answers."""
        has_other = self.answer == "answers" and self.answer not in fields and "answer_text" in fields
        return "answer_text" if has_other else self.answer


STANDARD = QuestionColumns()


class RecordError(ValueError):
    """A record that is not a valid question. The message gives its position and all its defects."""


def read_squad(path: str | Path, *, need_answers: bool, columns: QuestionColumns = STANDARD) -> list[Question]:
    """Read the questions of a file in the format of SQuAD v1.1 or v2.0; see `read_question_file`.

    Args:
        path: the file.
        need_answers: whether every record must have answers. An empty list of answers means unanswerable.
        columns: the keys of its records.

    Raises:
        UserError: the file cannot be read, or records are invalid. Answers that are not at their start index are valid
            here.
    """
    records = read_question_file(Path(path), columns)
    return to_questions(records, str(path), need_answers=need_answers, columns=columns)


def read_squad_files(
    paths: Sequence[Path], *, need_answers: bool, columns: QuestionColumns = STANDARD
) -> list[Question]:
    """Read the questions of several files with `read_squad`.

    Raises:
        UserError: as `read_squad`; or files have ids in common.
    """
    questions = run_each(partial(read_squad, path, need_answers=need_answers, columns=columns) for path in paths)
    files: dict[str, Path] = {}
    for path, of_file in zip(paths, questions, strict=True):
        for question in of_file:
            if files.setdefault(question.id, path) != path:
                raise UserError(
                    f"{files[question.id]} and {path}: both have a question with id {question.id!r}; ids must be unique"
                )
    return [question for of_file in questions for question in of_file]


def load_hub_squad(
    name: str, config: str | None, split: str, *, need_answers: bool, columns: QuestionColumns = STANDARD
) -> list[Question]:
    """Load the questions of a data set in SQuAD format with `dataset_library.load_dataset`.

    Raises:
        UserError: the data set cannot be loaded, or records are invalid.
    """
    rows = load_dataset(name, config, split)
    records = list(_flatten(rows.records, columns))
    return to_questions(records, f"{name} ({split})", need_answers=need_answers, columns=columns)


def read_question_file(path: Path, columns: QuestionColumns = STANDARD) -> list[Record]:
    """Read the records of a question file without checking them.

    The file has one of `RECORD_SUFFIXES`. Records are flat, or nested as in SQuAD: articles with "paragraphs",
    or paragraphs with "qas". CSV holds answers as JSON, as the Python literal that pandas and datasets write, or as
    text beside their start index.

    Raises:
        UserError: the extension is unknown, the file cannot be read, or its content does not fit the extension.
    """
    rows = read_rows(path, columns.needed())
    return list(_flatten(rows.records, columns, cells=format_of(path) in CSV_SUFFIXES))


def stream_question_file(path: Path, columns: QuestionColumns = STANDARD, *, need_ids: bool = True) -> Iterator[Record]:
    """Yield the records of a question file of any size while it is read, for questions without answers.

    A row of CSV has all its cells, as text; without `need_ids`, CSV may lack the column of the id. See
    `record_files.stream_rows`.
    """
    rows = stream_rows(path, columns.needed(ids=need_ids))
    return rows if format_of(path) in CSV_SUFFIXES else _flatten(rows, columns)


def stream_question_lines(name: str, stream: IO[bytes], columns: QuestionColumns = STANDARD) -> Iterator[Record]:
    """Yield the records of JSON lines while they are read; see `json_csv.stream_records`."""
    return _flatten(stream_records(name, stream, ".jsonl"), columns)


def read_question_json(name: str, content: bytes, columns: QuestionColumns = STANDARD) -> list[Record]:
    """Read the records of JSON content that messages call `name`, without checking them."""
    return list(_flatten(read_records(name, content, ".json"), columns))


def parse_question(
    record: Record, *, need_answers: bool, columns: QuestionColumns = STANDARD, need_starts: bool = True
) -> Question:
    """Convert a flat record to a question. An integer id becomes text.

    Args:
        record: the record.
        need_answers: whether it must have answers.
        columns: its keys.
        need_starts: whether each answer must have its start index. Otherwise a missing or unusable one becomes
            `NO_START`, and an answer may be plain text.

    Raises:
        RecordError: keys are missing or have the wrong type.
    """
    if record.problem:
        raise RecordError(f"{record.where}: {record.problem}")
    fields = record.fields
    if not isinstance(fields, dict):
        raise RecordError(f"{record.where}: {kind(fields)} instead of an object")
    id_problem = _id_problem(fields, columns.id)
    answers = _read_answers(fields, columns, need_answers=need_answers, need_starts=need_starts)
    problems = [id_problem, _text_problem(fields, columns.question), _text_problem(fields, columns.context)]
    problems += [_title_problem(fields, columns.title), answers.problem]
    if any(problems):
        identifier = "" if id_problem else f" (id {fields[columns.id]!r})"
        raise RecordError(f"{record.where}{identifier}: {'; '.join(filter(None, problems))}")
    return Question(
        id=str(fields[columns.id]),
        question=fields[columns.question],
        context=fields[columns.context],
        answer_texts=tuple(answers.texts),
        answer_starts=tuple(answers.starts),
        title=fields.get(columns.title) or "",
        answers_known=answers.known,
    )


def to_questions(
    records: Sequence[Record], source: str, *, need_answers: bool, columns: QuestionColumns = STANDARD
) -> list[Question]:
    """Check the records of a file called `source` and convert them to questions.

    Raises:
        UserError: there are no records, ids repeat, or records are invalid.
    """
    questions, problems = [], []
    for record in records:
        try:
            questions.append(parse_question(record, need_answers=need_answers, columns=columns))
        except RecordError as error:
            problems.append(f"{source}: {error}")
    counts = Counter(question.id for question in questions)
    repeated = [identifier for identifier, count in counts.items() if count > 1]
    if repeated:
        extra = len(questions) - len(counts)
        problems.insert(0, f"{source}: ids must be unique; {extra} records repeat an id, such as {repeated[0]!r}")
    if not records:
        problems = [f"{source}: holds no questions"]
    elif problems:
        problems[:0] = other_columns(records[0], source, columns, need_answers)
    raise_first_problems(problems, source)
    return questions


def other_columns(record: Record, source: str, columns: QuestionColumns, need_answers: bool) -> list[str]:
    """Return a line on the keys that a record has in place of those that it lacks; none if there are none."""
    fields = record.fields if isinstance(record.fields, dict) else {}
    needed = columns.needed() | ({"answer_column": columns.answer_in(fields)} if need_answers else {})
    missing = {option: column for option, column in needed.items() if column not in fields}
    others = [str(key) for key in fields if key not in {*columns, "answer_text", "is_impossible"}]
    if not missing or not others:
        return []
    options = ", ".join(f"--{option}" for option in missing)
    keys = f"no {', '.join(missing.values())}, but {', '.join(others)}"
    return [f"{source}: {record.where} has {keys}; name the right ones with {options}"]


def _flatten(records: Iterable[Record], columns: QuestionColumns, *, cells: bool = False) -> Iterator[Record]:
    """Yield flat records: split articles and paragraphs, and convert the `cells` of CSV."""
    for record in records:
        fields = record.fields
        if record.problem or not isinstance(fields, dict):
            yield record
        elif cells:
            yield _typed_cells(record, columns)
        elif "paragraphs" in fields:
            yield from _article_records(fields, record.where, columns)
        elif "qas" in fields and columns.question not in fields:
            yield from _paragraph_records(fields, record.where, fields.get(columns.title), columns)
        else:
            yield record


def _article_records(article: dict[str, Any], where: str, columns: QuestionColumns) -> Iterator[Record]:
    if not isinstance(article["paragraphs"], list):
        yield Record(where, article, "'paragraphs' is not a list")
        return
    for index, paragraph in enumerate(article["paragraphs"]):
        yield from _paragraph_records(paragraph, f"{where}.paragraphs[{index}]", article.get(columns.title), columns)


def _paragraph_records(paragraph: Any, where: str, title: Any, columns: QuestionColumns) -> Iterator[Record]:
    if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
        yield Record(where, paragraph, "is not an object with a list 'qas'")
        return
    shared = {columns.title: title}
    if columns.context in paragraph:
        shared[columns.context] = paragraph[columns.context]
    for number, fields in enumerate(paragraph["qas"]):
        yield Record(f"{where}.qas[{number}]", {**fields, **shared} if isinstance(fields, dict) else fields)


def _typed_cells(record: Record, columns: QuestionColumns) -> Record:
    """Return a row of CSV with the values of its cells, or with its first problem."""
    row: dict[str, str] = record.fields
    key = columns.answer_in(row)
    typed = (key, columns.answer_start, "is_impossible")
    fields: dict[str, Any] = {name: cell for name, cell in row.items() if name not in typed}
    impossible = row.get("is_impossible", "").strip().lower()
    if impossible not in ("", "true", "false"):
        problem = f"'is_impossible' is {row['is_impossible']!r}; allowed: true, false or empty"
        return Record(record.where, row, problem)
    if impossible:
        fields["is_impossible"] = impossible == "true"
    has_start = columns.answer_start in row
    if has_start:
        number = WHOLE_NUMBER.fullmatch(row[columns.answer_start].strip())
        fields[columns.answer_start] = int(number[1]) if number else row[columns.answer_start]
    cell = row.get(key, "")
    if cell or has_start:
        fields[key] = cell
    if cell.lstrip().startswith(("[", "{")):
        try:
            literal = _parse_literal(cell)
        except ValueError:
            literal = None
        if not has_start and literal is None:
            return Record(record.where, row, f"{key!r} is neither JSON nor a Python literal")
        if not has_start or _are_answers(literal):  # beside a start, "[1]" is a text
            fields[key] = literal
    return Record(record.where, fields)


def _are_answers(literal: Any) -> bool:
    """Return whether the literal of a cell has the form of answers: an object, or a list of objects or texts."""
    return isinstance(literal, dict) or (
        isinstance(literal, list) and all(isinstance(answer, dict | str) for answer in literal)
    )


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
        raise ValueError("neither JSON nor a Python literal") from error


def _id_problem(fields: dict[str, Any], key: str) -> str:
    identifier = fields.get(key)
    if identifier is None or (isinstance(identifier, str) and not identifier.strip()):
        return f"no {key!r}"
    if type(identifier) is not int and not is_text(identifier):
        return f"{key!r} is {kind(identifier)}; it must be valid text or a whole number"
    return ""


def _title_problem(fields: dict[str, Any], key: str) -> str:
    title = fields.get(key)
    if title is not None and not is_text(title):
        return f"{key!r} is {kind(title)}; it must be valid text"
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


class _Answers(NamedTuple):
    """The answers of a record: texts, their start indices, why they are not valid, and whether the record has any."""

    texts: list[Any]
    starts: list[Any]
    problem: str = ""
    known: bool = True


def _read_answers(
    fields: dict[str, Any], columns: QuestionColumns, *, need_answers: bool, need_starts: bool
) -> _Answers:
    """Return the answers of a record in any of their forms; none for an unanswerable question."""
    impossible = fields.get("is_impossible")
    if impossible is not None and not isinstance(impossible, bool):
        return _Answers([], [], f"'is_impossible' is {kind(impossible)}; it must be true or false")
    key = columns.answer_in(fields)
    answers, start = fields.get(key), fields.get(columns.answer_start)
    has_start = columns.answer_start in fields
    if impossible or answers == [] or (has_start and _is_gap(answers) and _is_gap(start)):
        return _Answers([], [])
    if answers is None and has_start:
        return _Answers([], [], f"no {columns.answer!r} beside {columns.answer_start!r}")
    if answers is None:
        return _Answers([], [], f"no {columns.answer!r}" if need_answers else "", known=False)
    if key == "answer_text" and not has_start and need_starts:
        return _Answers([], [], f"no {columns.answer_start!r} beside {key!r}; {SEARCH}")
    if isinstance(answers, dict):
        texts, starts = answers.get("text"), answers.get("answer_start")
    elif isinstance(answers, list) and all(isinstance(answer, dict) and "text" in answer for answer in answers):
        texts, starts = _split_pairs(answers, need_starts=need_starts)
    elif has_start and not isinstance(answers, list):
        texts, starts = [answers], [start]
    else:
        texts, starts = answers, start
    read = _check_answers(key, texts, starts) if need_starts else _check_answers(key, *_lenient(texts, starts))
    is_blank = len(read.texts) > 0 and not any(map(str.strip, read.texts)) and {*read.starts} == {NO_START}
    # Some programs write a blank answer for an unanswerable question; others say `is_impossible`.
    return _Answers([], []) if impossible is None and is_blank else read


def _split_pairs(answers: list[dict[str, Any]], *, need_starts: bool) -> tuple[list[Any], list[Any] | None]:
    """Return the texts and the start indices of answers; no indices at all if one is missing that is needed."""
    is_complete = all("answer_start" in answer for answer in answers)
    starts = [answer.get("answer_start") for answer in answers] if is_complete or not need_starts else None
    return [answer["text"] for answer in answers], starts


def _lenient(texts: Any, starts: Any) -> tuple[list[Any], list[int]]:
    """Return the texts, also a single one, and their start indices, with `NO_START` for those that cannot be used."""
    texts = texts if isinstance(texts, list) else [texts]
    starts = starts if isinstance(starts, list) else [starts]
    return texts, list(map(_lenient_start, starts)) if len(starts) == len(texts) else [NO_START] * len(texts)


def _check_answers(key: str, texts: Any, starts: Any) -> _Answers:
    if not isinstance(texts, list) or not isinstance(starts, list):
        forms = "[{'text', 'answer_start'}, ...] or {'text': [...], 'answer_start': [...]}"
        return _Answers([], [], f"{key!r} must be {forms}; {SEARCH}")
    if len(texts) != len(starts):
        counts = f"{len(texts)} 'text' and {len(starts)} 'answer_start'"
        return _Answers([], [], f"{key!r} has {counts}; give one start per text; {SEARCH}")
    if not all(map(is_text, texts)):
        return _Answers([], [], "an answer's 'text' is not valid text")
    if any(isinstance(start, float) for start in starts):
        starts = [int(start) if isinstance(start, float) and start.is_integer() else start for start in starts]
    for start in starts:
        if type(start) is not int or abs(start) >= ANSWER_START_LIMIT:  # isinstance counts bool as int
            shown = "out of range" if type(start) is int else "empty" if start == "" else kind(start)
            whole = "it must be a whole number, the index of a character"
            return _Answers([], [], f"an 'answer_start' is {shown}; {whole}; {SEARCH}")
    return _Answers(texts, starts)


def _is_gap(value: Any) -> bool:
    """Return whether a cell is empty: null, no text, or the NaN of pandas."""
    return value is None or value == "" or value != value


def _lenient_start(value: Any) -> int:
    """Return a start index, also one that is written as text; `NO_START` if it is none."""
    number = WHOLE_NUMBER.fullmatch(str(value).strip())
    return int(number[1]) if number and abs(int(number[1])) < ANSWER_START_LIMIT else NO_START

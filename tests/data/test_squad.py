"""Reading questions (adapter_qa/data/readers/squad.py): all file formats, and a message for every defect of a file."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow
import pyarrow.parquet
import pytest

from adapter_qa.core.errors import MAX_PROBLEMS, UserError
from adapter_qa.data.questions import Question, is_aligned
from adapter_qa.data.readers.squad import (
    QuestionColumns,
    RecordError,
    load_hub_squad,
    parse_question,
    read_question_json,
    read_squad,
    read_squad_files,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

CONTEXT = 'A Universidade fica em "Campo Grande", no Mato Grosso do Sul.\nÉ federal, d\'água e 🎓.'
ANSWERED = Question("q1", "Onde fica?", CONTEXT, ("Campo Grande", "em"), (24, 20), "UFMS")
UNANSWERABLE = Question("2", "Quem a fundou?", CONTEXT, (), (), "UFMS")
BOTH = [ANSWERED, UNANSWERABLE]


def flat(question: Question) -> dict[str, Any]:
    return {
        "id": question.id,
        "title": question.title,
        "context": question.context,
        "question": question.question,
        "answers": {"text": list(question.answer_texts), "answer_start": list(question.answer_starts)},
    }


def pairs(question: Question) -> list[dict[str, Any]]:
    answers = zip(question.answer_texts, question.answer_starts, strict=True)
    return [{"text": text, "answer_start": start} for text, start in answers]


def nested(questions: list[Question]) -> dict[str, Any]:
    qas = [{"id": q.id, "question": q.question, "answers": pairs(q)} for q in questions]
    return {"version": "v1.1", "data": [{"title": "UFMS", "paragraphs": [{"context": CONTEXT, "qas": qas}]}]}


def write(path: Path, content: str | bytes | object) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        path.write_bytes(text.encode("utf-8"))
    return path


def problems(path: Path, *, need_answers: bool = True) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_squad(path, need_answers=need_answers)
    assert all(str(path) in problem and "\n" not in problem for problem in caught.value.problems)
    return [problem.removeprefix(f"{path}: ") for problem in caught.value.problems]


def problem_of(tmp_path: Path, **changes: Any) -> str:
    """Return the only problem of a flat record with changed keys; `...` removes a key."""
    record = {key: value for key, value in (flat(ANSWERED) | changes).items() if value is not ...}
    (problem,) = problems(write(tmp_path / "q.json", [record]))
    return problem


# --- formats -------------------------------------------------------------------------------------------------


JSON_FORMS: dict[str, Callable[[], object]] = {
    "nested": lambda: nested(BOTH),
    "flat": lambda: {"data": [flat(q) for q in BOTH]},
    "list": lambda: [flat(q) for q in BOTH],
    "list_of_pairs": lambda: [flat(q) | {"answers": pairs(q)} for q in BOTH],
    "number_as_id": lambda: [flat(ANSWERED), flat(UNANSWERABLE) | {"id": 2}],
    "articles_in_a_list": lambda: nested([ANSWERED])["data"] + nested([UNANSWERABLE])["data"],
}


@pytest.mark.parametrize("form", JSON_FORMS)
def test_json_forms(tmp_path: Path, form: str) -> None:
    assert read_squad(write(tmp_path / "q.json", JSON_FORMS[form]()), need_answers=True) == BOTH


def test_answers_of_an_impossible_question_are_dropped(tmp_path: Path) -> None:
    record = flat(UNANSWERABLE) | {"is_impossible": True, "plausible_answers": pairs(ANSWERED)}
    with_answers = record | {"answers": pairs(ANSWERED)}
    without_answers = {key: value for key, value in record.items() if key != "answers"} | {"id": "3"}
    questions = read_squad(write(tmp_path / "q.json", [with_answers, without_answers]), need_answers=True)
    assert [(q.id, q.answer_texts, q.answer_starts) for q in questions] == [("2", (), ()), ("3", (), ())]


def test_jsonl_splits_at_newlines_only(tmp_path: Path) -> None:
    separated = flat(UNANSWERABLE) | {"context": "linha\u2028separada\x85aqui"}
    lines = [json.dumps(record, ensure_ascii=False) for record in (flat(ANSWERED), separated)]
    first, second = read_squad(write(tmp_path / "q.jsonl", "\r\n\r\n".join(lines) + "\r\n"), need_answers=True)
    assert first == ANSWERED
    assert second.context == "linha\u2028separada\x85aqui"


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_byte_order_mark(tmp_path: Path, prefix: bytes, suffix: str) -> None:
    record = flat(ANSWERED) | {"answers": json.dumps(flat(ANSWERED)["answers"])} if suffix == ".csv" else flat(ANSWERED)
    path = tmp_path / f"q{suffix}"
    if suffix == ".csv":
        write_csv(path, [record])
        content = path.read_bytes()
    else:
        content = json.dumps([record] if suffix == ".json" else record).encode()
    assert read_squad(write(path, prefix + content), need_answers=True) == [ANSWERED]


def write_csv(path: Path, rows: list[dict[str, Any]], line_end: str = "\r\n") -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator=line_end)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
@pytest.mark.parametrize("notation", [json.dumps, repr], ids=["json", "python"])
def test_csv_with_answers(tmp_path: Path, notation: Callable[[object], str], line_end: str) -> None:
    for answers in (lambda q: flat(q)["answers"], pairs):
        rows = [flat(q) | {"answers": notation(answers(q))} for q in BOTH]
        assert read_squad(write_csv(tmp_path / "q.csv", rows, line_end), need_answers=True) == BOTH


def test_csv_written_by_pandas_and_datasets(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    datasets.Dataset.from_list([flat(q) for q in BOTH]).to_csv(path)
    assert "array(['Campo Grande', 'em'], dtype=object)" in path.read_text(encoding="utf-8")
    assert read_squad(path, need_answers=True) == BOTH
    for records in ([flat(q) for q in BOTH], [flat(q) | {"answers": pairs(q)} for q in BOTH]):
        pandas.DataFrame(records).to_csv(path)
        assert read_squad(path, need_answers=True) == BOTH


def test_csv_with_text_and_start(tmp_path: Path) -> None:
    keys = ("id", "question", "context")
    rows = [{key: flat(q)[key] for key in keys} for q in BOTH]
    rows[0] |= {"answer_text": "Campo Grande", "answer_start": "24.0"}  # what pandas makes of a column with gaps
    rows[1] |= {"answer_text": "", "answer_start": ""}
    first, second = read_squad(write_csv(tmp_path / "q.csv", rows), need_answers=True)
    assert (first.answer_texts, first.answer_starts, first.title) == (("Campo Grande",), (24,), "")
    assert (second.answer_texts, second.answer_starts) == ((), ())


def test_csv_is_impossible(tmp_path: Path) -> None:
    rows = [flat(ANSWERED) | {"id": str(n), "answers": str(pairs(ANSWERED))} for n in range(3)]
    for row, word in zip(rows, ("True", "false", ""), strict=True):
        row["is_impossible"] = word
    questions = read_squad(write_csv(tmp_path / "q.csv", rows), need_answers=True)
    assert [len(q.answer_texts) for q in questions] == [0, 2, 2]
    rows[0]["is_impossible"] = "talvez"
    assert problems(write_csv(tmp_path / "q.csv", rows)) == [
        "line 3: 'is_impossible' is 'talvez'; allowed: true, false or empty"  # the context spans two lines
    ]


def test_long_csv_field(tmp_path: Path) -> None:
    row = flat(ANSWERED) | {"context": "x" * 200_000, "answers": "[]"}  # over the csv module's own 131,072
    assert len(read_squad(write_csv(tmp_path / "q.csv", [row]), need_answers=True)[0].context) == 200_000


def test_answers_may_be_missing_when_not_needed(tmp_path: Path) -> None:
    record = {key: value for key, value in flat(ANSWERED).items() if key not in ("answers", "title")}
    expected = [Question("q1", "Onde fica?", CONTEXT, (), (), answers_known=False)]
    assert read_squad(write(tmp_path / "q.json", [record]), need_answers=False) == expected
    assert read_squad(write(tmp_path / "q.json", [record | {"answers": None}]), need_answers=False) == expected
    assert read_squad(write_csv(tmp_path / "q.csv", [record]), need_answers=False) == expected
    assert read_squad(write_csv(tmp_path / "q.csv", [record | {"answers": ""}]), need_answers=False) == expected
    empty: list[dict[str, Any]] = [
        {"answers": []},
        {"answers": {"text": [], "answer_start": []}},
        {"is_impossible": True},
    ]
    for none in empty:
        (question,) = read_squad(write(tmp_path / "q.json", [record | none]), need_answers=False)
        assert question == Question("q1", "Onde fica?", CONTEXT, (), ())


# --- other forms that people have ----------------------------------------------------------------------------


ROWS = [flat(q) for q in BOTH]
TEXT_ROWS = [flat(ANSWERED) | {"answers": json.dumps(pairs(ANSWERED))}, flat(UNANSWERABLE) | {"answers": "[]"}]


def table(separator: str, first_line: str = "", **quoting: Any) -> bytes:
    """Return the questions as CSV."""
    stream = io.StringIO(first_line)
    stream.seek(0, io.SEEK_END)
    writer = csv.DictWriter(stream, list(TEXT_ROWS[0]), delimiter=separator, **quoting)
    writer.writeheader()
    writer.writerows(TEXT_ROWS)
    return stream.getvalue().encode()


def lines(records: list[Any]) -> bytes:
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode()


def pandas_file(write_frame: str, **arguments: Any) -> bytes:
    stream = io.BytesIO()
    getattr(pandas.DataFrame(ROWS), write_frame)(stream, **arguments)
    return stream.getvalue()


def arrow(new: Callable[..., Any], compression: str | None = None) -> bytes:
    content, rows = io.BytesIO(), pyarrow.Table.from_pylist(ROWS)
    with new(content, rows.schema, options=pyarrow.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(rows)
    return content.getvalue()


def dataset_parquet() -> bytes:
    stream = io.BytesIO()
    datasets.Dataset.from_list(ROWS).to_parquet(stream)
    return stream.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pyarrow.compress(content, "zstd", asbytes=True))


PARAGRAPHS = [
    {key: paragraph[key] for key in ("context", "qas")} for paragraph in nested(BOTH)["data"][0]["paragraphs"]
]
FORMS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "semicolons": ("q.csv", lambda: table(";")),
    "semicolons and byte order mark": ("q.csv", lambda: b"\xef\xbb\xbf" + table(";")),
    "quoted header": ("q.csv", lambda: table(";", quoting=csv.QUOTE_ALL)),
    "Excel's line": ("q.csv", lambda: table(";", "sep=;\r\n")),
    "tabs": ("q.tsv", lambda: table("\t")),
    "tabs in .csv": ("q.csv", lambda: table("\t")),
    "commas in .tsv": ("Q.TSV", lambda: table(",")),
    "bars": ("q.csv", lambda: table("|")),
    "lines in .json": ("q.json", lambda: lines(ROWS)),
    "lines of paragraphs": ("q.jsonl", lambda: lines(PARAGRAPHS)),
    "ndjson": ("q.ndjson", lambda: lines(ROWS)),
    "paragraphs": ("q.json", lambda: json.dumps(PARAGRAPHS).encode()),
    "paragraphs in data": ("q.json", lambda: json.dumps({"version": "1", "data": PARAGRAPHS}).encode()),
    "columns": ("q.json", lambda: json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}).encode()),
    "columns in data": (
        "q.json",
        lambda: json.dumps({"data": {k: [row[k] for row in ROWS] for k in ROWS[0]}}).encode(),
    ),
    "pandas' columns": ("q.json", lambda: pandas_file("to_json")),
    "pandas' lines": ("q.json", lambda: pandas_file("to_json", orient="records", lines=True)),
    "pandas' Parquet": ("q.parquet", lambda: pandas_file("to_parquet")),
    "compressed columns": ("q.parquet", lambda: pandas_file("to_parquet", compression="zstd", index=False)),
    "Parquet of datasets": ("q.parquet", dataset_parquet),
    "Arrow stream": ("q.arrow", lambda: arrow(pyarrow.ipc.new_stream)),
    "Arrow file": ("q.arrow", lambda: arrow(pyarrow.ipc.new_file, "lz4")),
    "gzip": ("q.json.gz", lambda: gzip.compress(json.dumps(ROWS).encode())),
    "bzip2": ("q.jsonl.bz2", lambda: bz2.compress(lines(ROWS))),
    "xz": ("q.csv.xz", lambda: lzma.compress(table(";"))),
    "zstd": ("Q.JSON.ZST", lambda: zstd(json.dumps(ROWS).encode())),
    "Parquet in gzip": ("q.parquet.gz", lambda: gzip.compress(pandas_file("to_parquet"))),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(tmp_path: Path, form: str) -> None:
    name, content = FORMS[form]
    expected = BOTH
    if "paragraphs" in form:
        expected = [replace(question, title="") for question in BOTH]
    assert read_squad(write(tmp_path / name, content()), need_answers=True) == expected


def test_only_the_header_shows_the_delimiter(tmp_path: Path) -> None:
    content = b"id;question;context;answers\n1;a,b,c,d,e,f,g?;x\ty,z|w;[]\n"
    assert read_squad(write(tmp_path / "q.csv", content), need_answers=True)[0].question == "a,b,c,d,e,f,g?"
    content = b"id,question,context,answers;note\n1,?,a;b;c;d;e;f,[]\n"
    assert read_squad(write(tmp_path / "q.csv", content), need_answers=False)[0].context == "a;b;c;d;e;f"


def test_positions_in_other_forms(tmp_path: Path) -> None:
    broken = [flat(ANSWERED), flat(ANSWERED) | {"id": None}]
    assert problems(write(tmp_path / "q.json", lines(broken))) == ["line 2: no 'id'"]
    columns = {key: [row[key] for row in broken] for key in broken[0]}
    assert problems(write(tmp_path / "q.json", columns)) == ["row 1: no 'id'"]
    paragraph = {"context": "x", "qas": [{"id": "1", "question": "?", "answers": []}, {"id": "2", "answers": []}]}
    assert problems(write(tmp_path / "q.jsonl", lines([paragraph]))) == ["line 1.qas[1] (id '2'): no 'question'"]
    path = tmp_path / "q.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(broken), path)
    assert problems(path) == ["row 1: no 'id'"]
    content = 'sep=;\nid;question;context;answers\n1;?;"x\ny";[]\n2;?;;[]\n'
    assert problems(write(tmp_path / "q.csv", content)) == ["line 5 (id '2'): 'context' is empty"]


def test_text_and_start_in_columns_of_their_own(tmp_path: Path) -> None:
    answered = {"id": "1", "question": "?", "context": CONTEXT, "answer_text": "Campo Grande", "answer_start": 24.0}
    rows = [answered, answered | {"id": "2", "answer_text": None, "answer_start": float("nan")}]
    semicolons = tmp_path / "q.csv"
    pandas.DataFrame(rows).to_csv(semicolons, sep=";", decimal=",", index=False)
    assert "24,0" in semicolons.read_text(encoding="utf-8")
    parquet = tmp_path / "q.parquet"
    pandas.DataFrame(rows).to_parquet(parquet)
    for path in (semicolons, parquet, write(tmp_path / "q.json", rows)):
        first, second = read_squad(path, need_answers=True)
        assert (first.answer_texts, first.answer_starts) == (("Campo Grande",), (24,))
        assert (second.answer_texts, second.answer_starts) == ((), ())
    several = {"id": "1", "question": "?", "context": "a b", "texts": ["a", "b"], "starts": [0, 2.0]}
    columns = QuestionColumns(answer="texts", answer_start="starts")
    (question,) = read_squad(write(tmp_path / "q.json", [several]), need_answers=True, columns=columns)
    assert (question.answer_texts, question.answer_starts) == (("a", "b"), (0, 2))


NAMES = QuestionColumns(id="qid", question="pergunta", context="texto", answer="resposta", title="título")


def test_names_of_columns(tmp_path: Path) -> None:
    row = dict(zip(NAMES, (ANSWERED.id, ANSWERED.question, CONTEXT, pairs(ANSWERED), "", ANSWERED.title), strict=True))
    row |= {"question": "not this one"}
    asked = {key: row[key] for key in ("qid", "pergunta", "resposta")}
    article = {"título": "UFMS", "paragraphs": [{"texto": CONTEXT, "qas": [asked]}]}
    for path in (
        write(tmp_path / "q.json", [row]),
        write(tmp_path / "columns.json", {key: [value] for key, value in row.items()}),
        write(tmp_path / "nested.json", {"data": [article]}),
        write_csv(tmp_path / "q.csv", [{key: row[key] for key in NAMES} | {"resposta": json.dumps(row["resposta"])}]),
    ):
        assert read_squad(path, need_answers=True, columns=NAMES) == [ANSWERED]
    named = {"qid": "1", "pergunta": "?", "texto": CONTEXT, "resposta": "Campo Grande", "início": "24"}
    path = write_csv(tmp_path / "q.csv", [named])
    columns = NAMES._replace(answer_start="início")
    assert read_squad(path, need_answers=True, columns=columns)[0].answer_starts == (24,)
    assert problems(path) == [
        "no column id, question, context; found: qid, pergunta, texto, resposta, início; name others with --id_column, "
        "--question_column, --context_column"
    ]
    assert problems(write(tmp_path / "q.json", [named])) == [
        "data[0] has no id, question, context, answers, but qid, pergunta, texto, resposta, início; name the right "
        "ones with --id_column, --question_column, --context_column, --answer_column",
        "data[0]: no 'id'; no 'question'; no 'context'; no 'answers'",
    ]


def test_columns_of_options_that_an_earlier_version_recorded() -> None:
    assert QuestionColumns.of_options({"train_file": "a.json"}) == QuestionColumns()
    assert QuestionColumns.of_options({"question_column": "query"}) == QuestionColumns(question="query")


def test_several_files(tmp_path: Path) -> None:
    first = write(tmp_path / "1.json", [ROWS[0]])
    second = write(tmp_path / "2.jsonl.gz", gzip.compress(lines([ROWS[1]])))
    assert read_squad_files([second, first], need_answers=True) == [UNANSWERABLE, ANSWERED]
    write(second, gzip.compress(lines([ROWS[1] | {"id": "q1"}])))
    with pytest.raises(UserError, match=r"1.json and .*2.jsonl.gz: both have a question with id 'q1'"):
        read_squad_files([first, second], need_answers=True)
    write(first, "x")
    write(second, b"x")
    with pytest.raises(UserError) as caught:
        read_squad_files([first, second], need_answers=True)
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [str(first), str(second)]


# --- alignment of a question ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "start", "aligned"),
    [
        ("Campo Grande", 24, True),
        ("Campo Grande", 23, False),
        ("🎓.", len(CONTEXT) - 2, True),
        (".", -1, False),  # context[-1:] would match
        ("", 3, False),
        (" ", 1, False),
        ("Sul", 10_000, False),
    ],
)
def test_is_aligned(tmp_path: Path, text: str, start: int, aligned: bool) -> None:
    record = flat(ANSWERED) | {"answers": {"text": ["A", text], "answer_start": [0, start]}}
    (question,) = read_squad(write(tmp_path / "q.json", [record]), need_answers=True)  # misaligned is no error
    assert is_aligned(question)
    assert is_aligned(question, 1) is aligned


# --- defects of a file ---------------------------------------------------------------------------------------


def test_missing_file_and_unknown_extension(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.json") == ["cannot be read: No such file or directory"]
    (tmp_path / "folder.json").mkdir()
    assert problems(tmp_path / "folder.json") == ["cannot be read: Is a directory"]
    assert problems(tmp_path / "q.txt") == [
        "extension '.txt'; allowed: .json, .jsonl, .ndjson, .csv, .tsv, .parquet, .arrow, also compressed (.gz, .bz2, "
        ".xz, .zst)"
    ]
    assert problems(tmp_path / "q.json.zip") == ["is an archive; unpack it and give the file in it"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("q.json", b"", "the file is empty"),
        ("q.json", b"\xef\xbb\xbf", "the file is empty"),
        ("q.json", b"id: 1", "not JSON at line 1, column 1: Expecting value"),
        ("q.json", b"{'data': []}", "not JSON at line 1, column 2: Expecting property name"),
        ("q.json", b'[{"id": "q"},', "not JSON at line 1, column 14: Expecting value; the file seems to be cut off"),
        ("q.json", b'[{"id": %s}]' % (b"9" * 9000), "JSON that cannot be read: Exceeds the"),
        ("q.json", b"null", "the top level must be a list or an object whose 'data' is a list"),
        ("q.json", b'{"data": {"a": 1}}', "the top level must be a list or an object whose 'data' is a list"),
        ("q.json", b"[1]", "data[0]: a number instead of an object"),
        ("q.json", '[{"id": "q"}]'.encode("utf-16"), "not UTF-8 at byte 0: it seems to be UTF-16; save"),
        ("q.json", b"\x89PNG\r\n\x1a\n\0\0\0", "not UTF-8 at byte 0: it seems to be no text; save the file as UTF-8"),
        (
            "q.csv",
            b"1,2,3\n",
            "no column id, question, context; found: 1, 2, 3; name others with --id_column, --question_column, "
            "--context_column",
        ),
        ("q.csv", b"id,id,question,context\n1,2,?,x\n", "more than one column id; each needs its own name"),
        ("q.csv", b'id,question,context\n1,"?" x,y\n', "not CSV after line 1: "),
        ("q.jsonl", b"\xef\xbb\xbf \r\n", "the file is empty"),
        ("q.json", '{"data": "São"}'.encode("latin-1"), "not UTF-8 at byte 11: it seems to be Latin-1; save"),
        ("q.json", b'{"data": [\n{"id": "1', "not JSON at line 2, column 8: Unterminated string starting at"),
        ("q.json", b'{"data": [\n {},', "not JSON at line 2, column"),
        (
            "q.json",
            b'{"id": 1}\n\n{"id": 2',
            "not JSON at line 3, column 1: Extra data; read as one record on each line, line 3 is not JSON at column 9",
        ),
        ("q.json", b'{"data": []} x', "not JSON at line 1, column 14: Extra data"),
        ("q.json", b"[" * 100_000, "JSON that cannot be read: "),
        ("q.json", b'{"dados": []}', "the top level must be a list or an object whose 'data' is a list; found: dados"),
        ("q.json", b'{"train": [{"id": 1}]}', "the top level must be a list or an object whose 'data' is a list; fo"),
        ("q.json", b'{"id": [1, 2], "question": ["?"]}', "column 'question' has other rows than 'id'; all need the sa"),
        ("q.json", b'"data"', "the top level must be a list or an object whose 'data' is a list"),
        ("q.json", b"[]", "holds no questions"),
        ("q.json", b'{"data": [{"paragraphs": []}]}', "holds no questions"),
        ("q.csv", b"id,question,context\r\n", "holds no questions"),
        ("q.csv", b"id;question;text\r\n1;2;3", "no column context; found: id, question, text; name others with --con"),
        ("q.tsv", b"id\tq\tcontext\r\n1\t2\t3", "no column question; found: id, q, context; name others with --quest"),
        ("q.csv", b'id,question,context\r\n1,"2,3', "not CSV after line 1: "),
    ],
)
def test_defects_of_a_file(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (problem,) = problems(write(tmp_path / name, content))
    assert problem.startswith(expected)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    content = json.dumps(nested(BOTH), ensure_ascii=False).encode("utf-8")
    for size in range(len(content)):
        (problem,) = problems(write(tmp_path / "q.json", content[:size]))
        assert problem.startswith(("not JSON at line 1, column", "not UTF-8 at byte", "the file is empty"))


def test_repeated_ids(tmp_path: Path) -> None:
    records = [flat(ANSWERED), flat(UNANSWERABLE), flat(UNANSWERABLE) | {"id": 2}, flat(UNANSWERABLE)]
    path = write(tmp_path / "q.json", records)
    assert problems(path) == ["ids must be unique; 2 records repeat an id, such as '2'"]


def test_only_the_first_problems_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "q.json", [{}] * (MAX_PROBLEMS + 5))
    lines = problems(path)
    assert len(lines) == MAX_PROBLEMS + 1
    assert lines[0] == "data[0]: no 'id'; no 'question'; no 'context'; no 'answers'"
    assert lines[-1] == "and 5 more problems"
    assert len(problems(write(path, [{}] * MAX_PROBLEMS))) == MAX_PROBLEMS


ANSWER_FORMS = (
    "'answers' must be [{'text', 'answer_start'}, ...] or {'text': [...], 'answer_start': [...]}; prepare_squad_pt.py "
    "finds the start of answers without one"
)


# --- defects of a record -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("id", ..., "no 'id'"),
        ("id", "", "no 'id'"),
        ("id", None, "no 'id'"),
        ("id", " ", "no 'id'"),
        ("id", 1.5, "'id' is a number; it must be valid text or a whole number"),
        ("id", float("nan"), "'id' is NaN; it must be valid text or a whole number"),
        ("id", ["q"], "'id' is a list; it must be valid text or a whole number"),
        ("id", True, "'id' is true/false; it must be valid text or a whole number"),
        ("question", ..., "no 'question'"),
        ("question", ["?"], "'question' is a list; it must be text"),
        ("question", " \n", "'question' is empty"),
        ("question", None, "'question' is null; it must be text"),
        ("context", ..., "no 'context'"),
        ("context", None, "'context' is null; it must be text"),
        ("context", float("nan"), "'context' is NaN; it must be text"),
        ("context", "", "'context' is empty"),
        ("title", 7, "'title' is a number; it must be valid text"),
        ("answers", ..., "no 'answers'"),
        ("answers", None, "no 'answers'"),
        ("answers", "Campo Grande", "'answers' must be [{'text', 'answer_start'}, ...] or"),
        ("answers", {"text": "x", "answer_start": 1}, "'answers' must be [{'text', 'answer_start'}, ...] or"),
        ("answers", [{"text": "x"}], "'answers' must be [{'text', 'answer_start'}, ...] or"),
        ("answers", {"text": ["x"], "answer_start": []}, "'answers' has 1 'text' and 0 'answer_start'; give one"),
        ("answers", {"text": ["a", "b"], "answer_start": [0]}, "'answers' has 2 'text' and 1 'answer_start'; give one"),
        ("answers", {"text": [3], "answer_start": [3]}, "an answer's 'text' is not valid text"),
        ("answers", {"text": ["x"], "answer_start": ["3"]}, "an 'answer_start' is text; it must be a whole number"),
        ("answers", {"text": ["x"], "answer_start": [3.5]}, "an 'answer_start' is a number; it must be a whole number"),
        ("answers", {"text": ["x"], "answer_start": [None]}, "an 'answer_start' is null; it must be a whole number"),
        (
            "answers",
            {"text": ["x"], "answer_start": [True]},
            "an 'answer_start' is true/false; it must be a whole number",
        ),
        ("answers", {"text": ["x"], "answer_start": [float("nan")]}, "an 'answer_start' is NaN; it must be a whole"),
        ("answers", {"text": ["x"], "answer_start": [2**31]}, "an 'answer_start' is out of range; it must be a"),
        ("is_impossible", "no", "'is_impossible' is text; it must be true or false"),
    ],
)
def test_defects_of_a_record(tmp_path: Path, key: str, value: Any, expected: str) -> None:
    problem = problem_of(tmp_path, **{key: value})
    position = "data[0]: " if key == "id" else "data[0] (id 'q1'): "
    assert problem.startswith(position + expected)


@pytest.mark.parametrize("key", ["question", "context"])
def test_lone_surrogates_are_refused(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "q.json", json.dumps([flat(ANSWERED) | {key: "\ud83d"}]))
    assert problems(path) == [f"data[0] (id 'q1'): {key!r} has a lone surrogate, which is not valid text"]


def test_positions_of_defects(tmp_path: Path) -> None:
    articles = nested(BOTH)
    articles["data"][0]["paragraphs"][0]["qas"][1].pop("id")
    articles["data"].append({"paragraphs": {}})
    articles["data"].append({"paragraphs": [{"context": "x"}, {"qas": [{"id": 5, "question": "?", "answers": []}]}]})
    articles["data"] += [{"paragraphs": ["x", {"context": "x", "qas": ["?"]}]}, {"id": 6, "answers": []}]
    assert problems(write(tmp_path / "q.json", articles)) == [
        "data[0].paragraphs[0].qas[1]: no 'id'",
        "data[1]: 'paragraphs' is not a list",
        "data[2].paragraphs[0]: is not an object with a list 'qas'",
        "data[2].paragraphs[1].qas[0] (id 5): no 'context'",
        "data[3].paragraphs[0]: is not an object with a list 'qas'",
        "data[3].paragraphs[1].qas[0]: text instead of an object",
        "data[4] (id 6): no 'question'; no 'context'",
    ]
    lines = [json.dumps(flat(ANSWERED)), "[1]", '{"id":', ""]
    assert problems(write(tmp_path / "q.jsonl", "\n".join(lines))) == [
        "line 2: a list instead of an object",
        "line 3: not JSON at column 7: Expecting value",
    ]


def test_defects_of_csv_rows(tmp_path: Path) -> None:
    path = write(
        tmp_path / "q.csv",
        "id,question,context,answers\n1,Onde?,Lá,[]\n2,Onde?\n3,Onde?,Lá,[],x\n4,Onde?,Lá,[Lá\n5,Onde?,Lá,\n6,Onde?,Lá,Lá\n",
    )
    assert problems(path) == [
        "line 3: 2 values for 4 columns",
        "line 4: 5 values for 4 columns; quote values that contain ','",
        "line 5: 'answers' is neither JSON nor a Python literal",
        "line 6 (id '5'): no 'answers'",
        f"line 7 (id '6'): {ANSWER_FORMS}",
    ]
    path = write(tmp_path / "q.csv", "id,question,context,answer_text,answer_start\n1,Onde?,Lá,Lá,zero\n")
    assert problems(path) == [
        "line 2 (id '1'): an 'answer_start' is text; it must be a whole number, the index of a character; "
        "prepare_squad_pt.py finds the start of answers without one"
    ]


def test_quotation_marks_in_tables_with_tabs(tmp_path: Path) -> None:
    """Rows between a cell that begins with one and a cell that ends with one are not lost in silence."""
    header, quoted = "id\tquestion\tcontext\tanswers\n", '"a ""b""\n c"'
    path = write(tmp_path / "q.tsv", f'{header}1\t{quoted}\t"a\tb"\t[]\n')
    (question,) = read_squad(path, need_answers=True)
    assert (question.question, question.context) == ('a "b"\n c', "a\tb")
    advice = "quote cells that have quotation marks and double these, or save as JSON lines"
    path = write(tmp_path / "q.tsv", f'{header}1\t?\t"Sul\t[]\n2\t?\to\t[]\n3\t?\to Sul"\t[]\n4\t?\to\t[]\n')
    assert problems(path) == [f"line 4: a cell holds a tab and a line break; {advice}"]
    path = write(tmp_path / "q.tsv", f'{header}1\t?\to\t[]\n2\t?\t"Sul" e\t[]\n')
    assert problems(path) == [f"not CSV after line 2: '\\u0009' expected after '\"'; {advice}"]


def test_a_start_without_a_text(tmp_path: Path) -> None:
    record = {"id": "q1", "question": "Onde?", "context": "Fica no Recife", "answer": "Recife", "answer_start": 8}
    for need_answers in (True, False):
        path = write(tmp_path / "q.jsonl", json.dumps(record))
        assert problems(path, need_answers=need_answers)[-1] == "line 1 (id 'q1'): no 'answers' beside 'answer_start'"


def test_nothing_in_a_csv_cell_is_executed(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    cell = f"open({str(target)!r}, 'w')"
    path = write_csv(tmp_path / "q.csv", [{"id": 1, "question": "?", "context": "x", "answers": cell}])
    problems(path)
    assert not target.exists()


def test_a_record_is_parsed_alone() -> None:
    """The preparation script reads valid records although others are invalid."""
    records = read_question_json("q.json", json.dumps([flat(ANSWERED), {"id": "x"}]).encode())
    assert parse_question(records[0], need_answers=True) == ANSWERED
    with pytest.raises(RecordError, match=r"^data\[1\] \(id 'x'\): no 'question'; no 'context'; no 'answers'$"):
        parse_question(records[1], need_answers=True)


# --- the hub -------------------------------------------------------------------------------------------------


@pytest.fixture
def local_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of one JSON-lines file; `load_dataset` accepts its path instead of a name on the hub."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "dataset"
    folder.mkdir()
    write(folder / "validation.jsonl", "\n".join(json.dumps(flat(q)) for q in BOTH))
    return folder


def test_hub_dataset(local_dataset: Path) -> None:
    assert load_hub_squad(str(local_dataset), None, "validation", need_answers=True) == BOTH


@pytest.mark.parametrize(("config", "split"), [(None, "nowhere"), ("no_such_config", "validation")])
def test_hub_dataset_that_cannot_be_loaded(local_dataset: Path, config: str | None, split: str) -> None:
    with pytest.raises(UserError) as caught:
        load_hub_squad(str(local_dataset), config, split, need_answers=True)
    (problem,) = caught.value.problems
    assert problem.startswith(f"dataset {str(local_dataset)!r}, configuration {config!r}, split {split!r}: cannot be")
    assert "\n" not in problem


def test_hub_dataset_without_squad_records(local_dataset: Path) -> None:
    write(local_dataset / "validation.jsonl", '{"text": "x"}')
    with pytest.raises(UserError) as caught:
        load_hub_squad(str(local_dataset), None, "validation", need_answers=False)
    name = f"{local_dataset} (validation)"
    assert caught.value.problems == [
        f"{name}: row 0 has no id, question, context, but text; name the right ones with --id_column, "
        "--question_column, --context_column",
        f"{name}: row 0: no 'id'; no 'question'; no 'context'",
    ]


# --- published data ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "questions", "answers", "aligned"),
    [
        ("squad_v1_pt_sample.json", 2790, 2790, 1788),
        ("squad_v2_pt.json", 9578, 4886, 4658),
        ("faquad_train.json", 837, 2511, 2481),
        ("xquad_en.json", 1190, 1190, 1190),
    ],
)
def test_published_files(name: str, questions: int, answers: int, aligned: int) -> None:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    read = read_squad(path, need_answers=True)
    all_answers = [(question, index) for question in read for index in range(len(question.answer_texts))]
    assert (len(read), len(all_answers)) == (questions, answers)
    assert sum(is_aligned(question, index) for question, index in all_answers) == aligned


@pytest.mark.parametrize("name", ["q.json", "q.csv"])
def test_blank_answers_at_minus_one_are_unanswerable_unless_the_record_says_otherwise(
    name: str, tmp_path: Path
) -> None:
    """SQuAD-pt v2 has such answers of answerable questions, whose translation got lost; they stay answerable."""
    record = flat(ANSWERED) | {"answers": {"text": [""], "answer_start": [-1]}}
    record["answers"] = json.dumps(record["answers"]) if name == "q.csv" else record["answers"]

    def read(record: dict[str, Any]) -> Question:
        path = tmp_path / name
        content = write_csv(path, [record]) if name == "q.csv" else write(path, [record])
        return read_squad(content, need_answers=True)[0]

    assert read(record).answer_texts == ()
    assert read(record | {"is_impossible": "false" if name == "q.csv" else False}).answer_texts == ("",)


def test_blank_answer_beside_a_start_of_minus_one_is_unanswerable(tmp_path: Path) -> None:
    path = write(tmp_path / "q.csv", "id,question,context,answer_text,answer_start\n1,?,Em Recife.,,-1\n")
    assert read_squad(path, need_answers=True)[0].answer_texts == ()


def test_tables_of_spreadsheets_may_have_blank_rows_and_columns(tmp_path: Path) -> None:
    content = "id;question;context;answers;;\n1;?;Em Recife.;[];;\n;;;;;\n"
    (question,) = read_squad(write(tmp_path / "q.csv", content), need_answers=True)
    assert (question.id, question.answer_texts) == ("1", ())


def test_texts_that_look_like_lists_beside_a_start(tmp_path: Path) -> None:
    head = "id;question;context;answer_text;answer_start\n"
    (question,) = read_squad(write(tmp_path / "q.csv", head + "1;?;O intervalo é [0, 1] aqui.;[0, 1];14\n"),
                             need_answers=True)  # fmt: skip
    assert (question.answer_texts, question.answer_starts) == (("[0, 1]",), (14,))
    (problem,) = problems(write(tmp_path / "q.csv", head + "1;?;Em Recife.;Recife;1,000\n"))
    assert "an 'answer_start' is text; it must be a whole number" in problem


def test_other_names_of_answers_are_shown(tmp_path: Path) -> None:
    lines = problems(write(tmp_path / "q.csv", "id,question,context,answer\n1,?,Em Recife.,Recife\n"))
    assert lines[0] == "line 2 has no answers, but answer; name the right ones with --answer_column"
    lines = problems(write(tmp_path / "q.csv", "id,question,context,answer_text\n1,?,Em Recife.,Recife\n"))
    assert lines[0].startswith("line 2 (id '1'): no 'answer_start' beside 'answer_text'; prepare_squad_pt.py finds")
    head = "id,question,context,answer_text,answer_start\n"
    (line,) = problems(write(tmp_path / "q.csv", head + "1,?,Em Recife.,Recife,\n"))
    assert "an 'answer_start' is empty; it must be a whole number" in line


def test_only_the_first_names_are_shown(tmp_path: Path) -> None:
    (line,) = problems(write(tmp_path / "q.json", dict.fromkeys(map(str, range(30)), 1)))
    assert line.endswith("found: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 20 more")

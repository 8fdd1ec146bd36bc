"""Questions that are asked (adapter_qa/inference/requests.py): the files that hold them."""

from __future__ import annotations

import gzip
import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from support.problems import problems_of

import ask_qa
from adapter_qa.data.readers.squad import STANDARD, QuestionColumns
from adapter_qa.inference.requests import read_requests

RECORD = {"id": "1", "question": "Onde?", "context": "Em Recife.", "note": 5}
NO_ID = {"question": "Onde?", "context": "Em Recife."}
NAMED = {"qid": "1", "query": "Onde?", "passage": "Em Recife.", "note": 5}
COLUMNS = QuestionColumns(id="qid", question="query", context="passage")


def write(path: Path, record: dict[str, Any]) -> str:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), path)
    else:
        path.write_bytes(gzip.compress(json.dumps(record).encode()))
    return str(path)


def read(path: str, columns: QuestionColumns = STANDARD) -> list[dict[str, Any]]:
    return [*read_requests(path, columns).read()]


def test_requests_keep_all_fields(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.jsonl.gz"):
        assert read(write(tmp_path / name, RECORD)) == [RECORD]
        assert read(write(tmp_path / name, NAMED), COLUMNS) == [NAMED | RECORD]


def test_other_names_of_columns_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", NAMED)
    assert problems_of(read_requests, path) == [
        f"{path}: line 1 has no question, context, but qid, query, passage, note; name the right ones with "
        "--question_column, --context_column",
        f"{path}: line 1 (id '1'): no 'question'; no 'context'",
    ]
    words = ["run", "--question", "?", "--context", "x", "--id_column", "qid"]
    assert problems_of(ask_qa.read_options, words) == ["--id_column: names columns of --input, which is not given"]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_records_without_ids_are_numbered(tmp_path: Path, suffix: str) -> None:
    """By their position among the records, in every format; blank ids are none."""
    records: list[dict[str, Any]] = [{"question": name, "context": "Em Recife."} for name in ("Onde?", "Quem?", "?")]
    for blank in ({}, {"id": None if suffix != ".csv" else ""}):
        path = tmp_path / f"a{suffix}"
        rows = [record | blank for record in records]
        delimiter = "\t" if suffix == ".tsv" else ","
        lines = {
            ".jsonl": "\n\n".join(map(json.dumps, rows)),
            ".json": json.dumps(rows),
            ".csv": "\n".join(map(delimiter.join, [rows[0], *(map(str, row.values()) for row in rows)])),
            ".tsv": "\n".join(map(delimiter.join, [records[0], *(row.values() for row in records)])),
        }
        if suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        else:
            path.write_text(lines[suffix], encoding="utf-8")
        found = read(str(path))
        assert [(record["id"], record["question"]) for record in found] == [("1", "Onde?"), ("2", "Quem?"), ("3", "?")]
        assert next(iter(found[0])) == "id"


def test_some_records_without_ids_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in [RECORD, NO_ID, RECORD | {"id": " "}, RECORD | {"id": "2"}]))
    assert problems_of(read_requests, str(path)) == [
        f"{path}: 2 of 4 records have no 'id', such as line 2; give every record one, or none"
    ]
    path.write_text("\n".join(json.dumps(row) for row in [RECORD, RECORD]))
    assert problems_of(read_requests, str(path)) == [f"{path}: ids must be unique; 1 records repeat an id, such as '1'"]


def test_a_named_id_column_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,context\nOnde?,Recife\n", encoding="utf-8")
    options = ask_qa.read_options(["run", "--input", str(path), "--id_column", "qid"])
    assert problems_of(ask_qa.read_records, options) == [
        f"{path}: no column qid; found: question, context; name others with --id_column"
    ]


def test_rows_of_csv_keep_all_their_cells_and_answers_are_not_read(tmp_path: Path) -> None:
    """The cells of a row are those of the same record in JSON lines."""
    names = ["id", "question", "context", "source", "answers", "is_impossible"]
    cells = ["1", "Onde?", "Em Recife.", "7", "['abc' 'x']", "1"]
    path = tmp_path / "a.csv"
    path.write_text(f"{','.join(names)}\n{','.join(cells)}\n", encoding="utf-8")
    assert read(str(path)) == [{"id": "1", "question": "Onde?", "context": "Em Recife.", "source": "7"}]


def test_values_of_a_table_that_json_cannot_represent_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", RECORD | {"made": [date(2026, 11, 27)]})
    (problem,) = problems_of(read_requests, path)
    assert problem.startswith(f"{path}: row 0: has a value that JSON cannot represent (")


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """A file is read twice; a pipe would be waited for without end."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert problems_of(read, str(tmp_path / "pipe.jsonl")) == [
        f"--input {tmp_path}/pipe.jsonl: is no regular file; send its JSON lines to standard input, with --input -"
    ]

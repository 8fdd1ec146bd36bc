"""Questions that are asked (adapter_qa/inference/requests.py): the files that hold them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from support.problems import problems_of

import ask_qa
from adapter_qa.data.squad import QuestionColumns
from adapter_qa.inference.requests import read_requests

RECORD = {"id": "1", "question": "Onde?", "context": "Em Recife.", "note": 5}
NAMED = {"qid": "1", "query": "Onde?", "passage": "Em Recife.", "note": 5}
COLUMNS = QuestionColumns(id="qid", question="query", context="passage")


def write(path: Path, record: dict[str, Any]) -> str:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), path)
    else:
        path.write_bytes(gzip.compress(json.dumps(record).encode()))
    return str(path)


def test_requests_keep_all_fields(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.jsonl.gz"):
        assert read_requests(write(tmp_path / name, RECORD)) == [RECORD]
        assert read_requests(write(tmp_path / name, NAMED), COLUMNS) == [NAMED | RECORD]


def test_other_names_of_columns_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", NAMED)
    assert problems_of(read_requests, path) == [
        f"{path}: line 1 has no id, question, context, but qid, query, passage, note; name the right ones with "
        "--id_column, --question_column, --context_column",
        f"{path}: line 1: no 'id'; no 'question'; no 'context'",
    ]
    words = ["run", "--question", "?", "--context", "x", "--id_column", "qid"]
    assert problems_of(ask_qa.read_options, words) == ["--id_column: names columns of --input, which is not given"]

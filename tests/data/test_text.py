"""Reading plain text (adapter_qa/data/readers/text.py) from all kinds of files."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.problems import problem_of, problems_of

from adapter_qa.data.readers import text
from adapter_qa.data.readers.text import Texts, read_texts, text_files

TEXTS = ["Ana nasceu em Recife.", "Bruno é pintor.", "Carla nasceu em São Luís e é juíza."]


def flat(context: str, number: int, **answers: Any) -> dict[str, Any]:
    return {"id": str(number), "question": "Onde?", "context": context, **answers}


NESTED = {
    "data": [
        {"title": "t", "paragraphs": [{"context": text, "qas": [{"id": f"{text}{n}", "question": "?"} for n in "ab"]}]}
        for text in TEXTS
    ]
}
REPEATED = [flat(text, number) for number, text in enumerate([*TEXTS, TEXTS[1], TEXTS[0]])]
RECORDS = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
LINES = "\n".join(json.dumps(record) for record in RECORDS)
WITH_COMMA = ["Recife, no litoral.", "Ele disse: oi; e saiu."]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\n".join(TEXTS)),
        ("a.txt", "\ufeff\n\n " + " \r\n \r\n".join(TEXTS) + "\n"),
        ("a.json", json.dumps(NESTED, ensure_ascii=False)),
        ("a.json", json.dumps({"data": REPEATED})),
        ("a.jsonl", "\n".join(json.dumps(record) for record in REPEATED)),
        (
            "a.csv",
            "id,question,context\n" + "".join(f'{record["id"]},Onde?,"{record["context"]}"\n' for record in REPEATED),
        ),
        ("a.json", json.dumps({"data": [{"paragraphs": [{"context": text} for text in TEXTS]}]})),
        ("a.json", json.dumps([{"context": text, "qas": []} for text in TEXTS])),
        ("a.txt", "\r".join(TEXTS)),
        ("a.txt", f"{TEXTS[0]}\n\f{TEXTS[1]}\f{TEXTS[2]}"),
        ("a.jsonl", LINES),
        ("a.json", json.dumps({"text": TEXTS, "id": [1, 2, 3]})),
        ("a.json", json.dumps({"text": dict(enumerate(TEXTS))})),
        ("a.NDJSON", f"\n{LINES}\n\n"),
        ("a.json", LINES),
        ("a.jsonl", "\n".join(map(json.dumps, TEXTS))),
        ("a.json", json.dumps(TEXTS)),
        ("a.json", json.dumps(RECORDS, indent=1)),
        ("a.json", json.dumps({"version": 1, "data": RECORDS})),
        ("a.jsonl", "\n".join(json.dumps({"text": text, "context": "?"}) for text in TEXTS)),
        ("a.jsonl", "\n".join(json.dumps({"text": f"\n {text} "}) for text in TEXTS)),
        ("a.csv", "\ufefftext\r\n" + "\r\n".join(TEXTS) + "\r\n"),
        ("a.csv", "id;text\n" + "".join(f'{number};"{text}"\n' for number, text in enumerate(TEXTS))),
        ("a.csv", "text\tid\n" + "".join(f"{text}\t{number}\n" for number, text in enumerate(TEXTS))),
        ("a.tsv", "text\tid\n" + "".join(f"{text}\t{number}\n" for number, text in enumerate(TEXTS))),
        ("a.conll", "\n\n".join("\n".join(f"{word} O" for word in text.split()) for text in TEXTS)),
        ("a.conll", "\n\n".join("\n".join(text.split()) for text in TEXTS)),
        ("a.conll", "\n\n".join("\n".join(f"{word}\t_\tPER" for word in text.split()) for text in TEXTS)),
    ],
)
def test_all_kinds_of_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode("utf-8"))
    assert read_texts(tmp_path / name) == read_texts(str(tmp_path / name)) == Texts(TEXTS)


@pytest.mark.parametrize(("suffix", "module"), [(".gz", gzip), (".bz2", bz2), (".xz", lzma), (".zst", None)])
@pytest.mark.parametrize(("name", "content"), [("a.txt", "\n".join(TEXTS)), ("a.jsonl", LINES)])
def test_compressed_files(tmp_path: Path, suffix: str, module: Any, name: str, content: str) -> None:
    path = tmp_path / (name + suffix)
    if module is None:
        with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "zstd") as stream:
            stream.write(content.encode())
    else:
        path.write_bytes(module.compress(content.encode()))
    assert read_texts(path) == Texts(TEXTS)


def test_tables(tmp_path: Path) -> None:
    table = pa.table({"id": range(4), "text": [*TEXTS, None], "other": ["x"] * 4})
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as file:
        file.write_table(table)
    for name in ("a.parquet", "a.arrow"):
        assert read_texts(tmp_path / name) == Texts(TEXTS, empty=1)
        assert read_texts(tmp_path / name, "other") == Texts(["x"] * 4)


def test_texts_that_contain_separators_need_no_quotes_in_a_table_of_one_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n" + "\n".join(WITH_COMMA))
    assert read_texts(tmp_path / "a.csv") == Texts(WITH_COMMA)


def test_a_text_keeps_its_inner_lines_and_separators(tmp_path: Path) -> None:
    value = 'Um "dito".\n\nOutra\u2028linha\f.'
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": value}, ensure_ascii=False))
    quoted = value.replace('"', '""')
    (tmp_path / "a.csv").write_text(f'text,id\n"{quoted}",1\n')
    assert read_texts(tmp_path / "a.jsonl") == read_texts(tmp_path / "a.csv") == Texts([value])
    (tmp_path / "a.txt").write_text("Uma\u2028linha\u0085só\x00.")
    assert read_texts(tmp_path / "a.txt") == Texts(["Uma\u2028linha\u0085só\x00."])


def test_records_in_a_text_file_are_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.txt"
    for content, notes in ((LINES, 1), ("{Nota} 1", 0), ("[1]", 0), ('Ana\n{"text": "x"}', 0)):
        path.write_text(content)
        assert read_texts(path) == Texts(content.split("\n"))
        note = f"note: {path}: begins with a JSON object, which is read as text; .jsonl files are read as records\n"
        assert capfd.readouterr().err == note * notes


def test_the_column_can_be_chosen(tmp_path: Path) -> None:
    records = [{"text": "não", "corpo": text} for text in TEXTS]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert read_texts(tmp_path / "a.jsonl", "corpo") == Texts(TEXTS)
    (tmp_path / "a.csv").write_text("corpo,text\nsim,não\n")
    assert read_texts(tmp_path / "a.csv", "corpo") == Texts(["sim"])


@pytest.mark.parametrize("key", ["text", "context", "corpo"])
def test_a_json_file_may_be_a_single_record(tmp_path: Path, key: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"title": "t", key: TEXTS[0], "categories": ["a", "b"]}, indent=1))
    assert read_texts(tmp_path / "a.json", "corpo" if key == "corpo" else None) == Texts(TEXTS[:1])


def test_repeated_texts_are_kept_and_repeated_contexts_are_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Fim.\nAna.\nFim.\n")
    assert read_texts(tmp_path / "a.txt") == Texts(["Fim.", "Ana.", "Fim."])
    (tmp_path / "a.jsonl").write_text('{"text": "Fim."}\n{"text": "Fim."}\n{"context": "Fim."}\n{"context": "Fim."}')
    assert read_texts(tmp_path / "a.jsonl") == Texts(["Fim."] * 3)


def test_empty_texts_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n{"text": "Ana"}\n\n{"text": null}\n{"text": " \\n"}\n')
    assert read_texts(tmp_path / "a.jsonl") == Texts(["Ana"], empty=3)


def test_questions_are_no_matter_of_text(tmp_path: Path) -> None:
    """Ids that repeat, empty questions and wrong answers do not matter to a language adapter."""
    records = [{"id": "1", "question": "", "context": text, "answers": 3} for text in TEXTS]
    (tmp_path / "a.json").write_text(json.dumps({"data": records}))
    assert read_texts(tmp_path / "a.json") == Texts(TEXTS)


def test_a_folder_gives_its_files_sorted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = ["b.txt", "a/z.jsonl.gz", "a/10.txt", "a/2.txt"]
    for name in [*names, "README.md", ".hidden.txt", ".git/x.txt", "x.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    expected = [tmp_path / name for name in ("a/10.txt", "a/2.txt", "a/z.jsonl.gz", "b.txt")]
    assert text_files(tmp_path) == expected
    note = f"note: {tmp_path}: 2 files with other extensions are left out, such as {tmp_path / 'README.md'}\n"
    assert capfd.readouterr().err == note


def test_folders_without_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"x")
    assert problem_of(text_files, tmp_path).startswith(
        f"{tmp_path}: holds no file with one of the extensions .txt, .js"
    )
    (tmp_path / "dataset_dict.json").write_text("{}")
    assert problem_of(text_files, tmp_path) == f"{tmp_path}: holds a saved data set; give it as --dataset_name"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.pdf", b"x", "{}: extension '.pdf'; allowed: .txt, .json, .jsonl, .ndjson, .csv, .tsv, .parquet, .arrow"),
        ("text", b"x", "{}: extension ''; allowed: .txt, .json, .jsonl, .ndjson, .csv, .tsv, .parquet, .arrow"),
        (
            "dump.xml.bz2",
            b"x",
            "{}: XML, such as a dump of Wikipedia, is not read; take the text out of it, for example",
        ),
        ("a.tar.gz", b"x", "{}: an archive is not read; unpack it and give the files in it"),
        ("a.zip", b"x", "{}: an archive is not read; unpack it and give the files in it"),
        ("a.txt", b"\n \n", "{}: the file is empty"),
        ("a.txt", b"S\xe3o Lu\xeds", "{}: not UTF-8 at byte 1: it seems to be Latin-1; save the file as UTF-8"),
        ("a.txt", None, "{}: cannot be read: No such file or directory"),
        ("a.json", b"{", "{}: not JSON at line 1, column 2: Expecting property name"),
        (
            "a.json",
            b'[{"text": "Ana"},',
            "{}: not JSON at line 1, column 18: Expecting value; the file seems to be cut",
        ),
        ("a.json", b"[]", "{}: holds no text"),
        ("a.json", b'{"a": 1}', "{}: the top level must be a list or an object whose 'data' is a list; found: a"),
        ("a.json", b'{"text": [["a"]]}', "{}: row 0: 'text' is a list; it must be text"),
        ("a.json", b"[3]", "{}: data[0]: a number; it must be text, or an object with the text under 'text'"),
        ("a.json", b"3", "{}: the top level must be a list or an object whose 'data' is a list"),
        ("a.jsonl", b'{"text": "Ana"}\n{"text": 5}', "{}: line 2: 'text' is a number; it must be text"),
        ("a.jsonl", b'{"text": "Ana"}\n{"t": "x"}', "{}: line 2: no 'text' or 'context'; found: t; --text_column"),
        ("a.jsonl", b'{"text": "Ana"}\n{"text": "x', "{}: line 2: not JSON at column 10: Unterminated string"),
        ("a.jsonl", b'{"t": "x"}\n{"t": "x"}', "{}: line 1: no 'text' or 'context'; found: t; --text_column"),
        ("a.jsonl", b'{"text": null}\n{"text": ""}', "{}: holds no text"),
        ("a.jsonl", b'{"text": "a \\ud800 b"}', "{}: line 1: has a lone surrogate, which is not valid text"),
        ("a.csv", b"a,b\nx,y\n", "{}: line 2: no 'text' or 'context'; found: a, b; --text_column chooses another"),
        ("a.csv", b"id,text\n1,a,b\n", "{}: line 2: 3 values for 2 columns; quote values that contain ','"),
        ("a.csv", b"id,text\n1\n", "{}: line 2: 1 value for 2 columns"),
        ("a.csv", b'id,text\n1,"a', "{}: not CSV after line 1: unexpected end of data"),
        ("a.csv", b"text\n", "{}: holds no text"),
        ("a.txt.gz", b"Ana", "{}: cannot be unpacked as .gz: Not a gzipped file"),
        ("a.parquet", b"Ana", "{}: not a readable .parquet table: "),
        ("a.conll", b"-DOCSTART- O\n", "{}: holds no sentence"),
        ("a.conll", b"Ana O\nmora O\nem Recife O\n", "{}, line 3: 3 columns where most lines have 2: em | Recife | O"),
    ],
)
def test_unreadable_files_are_refused(tmp_path: Path, name: str, content: bytes | None, problem: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert problem_of(read_texts, path).startswith(problem.format(path))


def test_a_chosen_column_that_is_missing_names_those_found(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,título\n" + "x,y\n" * 20)
    expected = f"{path}: no column corpo; found: text, título; name others with --text_column"
    assert problems_of(read_texts, path, "corpo") == [expected]


def test_all_records_without_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "Ana"}\n{"t": 1}\n{"text": 1}\n' + '{"text": []}\n' * 9)
    problems = [problem.removeprefix(f"{path}: ") for problem in problems_of(read_texts, path)]
    assert [problem.split("; ")[0] for problem in problems[:3]] == [
        "line 2: no 'text' or 'context'", "line 3: 'text' is a number", "line 4: 'text' is a list",
    ]  # fmt: skip
    assert problems[10:] == ["and 1 more problems"]


def test_the_limit_counts_unpacked_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MAX_TEXT_BYTES", 1000)
    for name, content in (("a.txt", b"Ana\n"), ("a.jsonl", b'"Ana"\n')):
        path = tmp_path / f"{name}.gz"
        path.write_bytes(gzip.compress(content * (1000 // len(content))))
        assert set(read_texts(path).texts) == {"Ana"}
        path.write_bytes(gzip.compress(content * 1000))
        assert "unpacks to more than 1,000 bytes, the most that is read" in problem_of(read_texts, path)
    pq.write_table(pa.table({"text": ["Ana"] * 300}), tmp_path / "a.parquet")
    assert "unpacks to more than 1,000 bytes" in problem_of(read_texts, tmp_path / "a.parquet")


def test_contexts_of_faquad_are_unique(shared_data: Path) -> None:
    document = json.loads((shared_data / "faquad_train.json").read_text(encoding="utf-8"))
    contexts = {paragraph["context"] for article in document["data"] for paragraph in article["paragraphs"]}
    texts = read_texts(shared_data / "faquad_train.json").texts
    assert len(texts) == len(contexts) > 10
    assert set(texts) == contexts


def test_an_index_in_a_conll_file_is_refused_with_a_way_that_this_script_has(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("1\tAna\t_\tO\n2\tvai\t_\tO\n", encoding="utf-8")
    assert problem_of(read_texts, path) == (
        f"{path}: the first column is a running index, not words; give the words as .txt, a sentence on each line; "
        "line 1 has: 1 | Ana | _ | O"
    )

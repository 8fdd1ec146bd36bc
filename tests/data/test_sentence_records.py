"""Words and labels in records (adapter_qa/data/readers/sentence_records.py): keys, list cells, tables, data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapter_qa.core.errors import UserError
from adapter_qa.data.readers.sentence_records import SentenceColumns
from adapter_qa.data.readers.sentences import Sentence, SentenceSource, load_sentence_dataset, read_sentence_file

WORDS, LABELS = ["Ana", "d'Água", "10 000", "\u00a0"], ["B-PER", "I-PER", "O", "B-A/B"]
SENTENCE = Sentence(tuple(WORDS), tuple(LABELS))
NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def read(path: Path, content: str, columns: SentenceColumns = SentenceColumns()) -> SentenceSource:  # noqa: B008
    path.write_text(content, encoding="utf-8")
    return read_sentence_file(path, columns, need_labels=True)


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("words_key", "labels_key"),
    [("tokens", "ner_tags"), ("words", "ner_tags"), ("tokens", "tags"), ("tokens", "labels"), ("words", "ner")],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "lines.json"])
def test_usual_keys(tmp_path: Path, name: str, words_key: str, labels_key: str) -> None:
    records = [{"id": 0, words_key: WORDS, labels_key: LABELS, "pos_tags": [1, 2, 3, 4]}] * 2
    content = json.dumps({"data": records}) if name == "a.json" else "\n".join(map(json.dumps, records))
    assert read(tmp_path / name, content) == ([SENTENCE] * 2, "IOB2", False, [])


@pytest.mark.parametrize(
    ("fields", "columns"),
    [
        ({"tokens": WORDS, "ner_tags": LABELS, "words": ["x"], "labels": [1]}, SentenceColumns()),
        ({"tokens": WORDS, "ner_tags": LABELS, "tags": None}, SentenceColumns()),
        ({"tokens": WORDS, "ner_tags": None, "tags": LABELS}, SentenceColumns()),
        ({"text": WORDS, "bio": LABELS, "tokens": ["x"], "tags": ["O"]}, SentenceColumns("text", "bio")),
        ({"tokens": WORDS, "tags": ["NOUN"] * 4, "labels": LABELS}, SentenceColumns(labels="labels")),
    ],
)
def test_which_keys_are_read(tmp_path: Path, fields: dict[str, Any], columns: SentenceColumns) -> None:
    assert read(tmp_path / "a.jsonl", json.dumps(fields), columns).sentences == [SENTENCE]


@pytest.mark.parametrize(
    ("fields", "columns", "problem"),
    [
        ("Ana", None, 'text instead of an object {"tokens": [...], "ner_tags": [...]}'),
        ({"text": WORDS, "id": 1}, None, "no 'tokens' or 'words'; found: text, id; --word_column names another key"),
        ({"tokens": WORDS}, SentenceColumns("text"), "no 'text'; found: tokens; --word_column names another key"),
        ({"tokens": WORDS, "pos": LABELS}, None,
         "no labels under 'ner_tags' or 'tags' or 'labels' or 'ner'; --label_column names another key"),
        ({"tokens": WORDS, "tags": LABELS}, SentenceColumns(labels="bio"),
         "no labels under 'bio'; --label_column names another key"),
        ({"tokens": WORDS, "tags": LABELS, "labels": LABELS}, None,
         "labels may be 'tags' or 'labels'; choose with --label_column"),
        ({"tokens": "Ana", "ner_tags": LABELS}, None, "'tokens' must be a list of text, a word each"),
        ({"tokens": ["Ana", 3], "ner_tags": LABELS}, None, "'tokens' must be a list of text, a word each"),
        ({"tokens": ["\ud83d"], "ner_tags": ["O"]}, None, "'tokens' must be a list of text, a word each"),
        ({"tokens": WORDS, "ner_tags": "O"}, None,
         "'ner_tags' must be a list of labels such as B-LOC, or of whole numbers"),
        ({"tokens": WORDS, "labels": [True, 0, 0, 0]}, None,
         "'labels' must be a list of labels such as B-LOC, or of whole numbers"),
        ({"tokens": WORDS, "labels": [1.0, 0, 0, 0]}, None,
         "'labels' must be a list of labels such as B-LOC, or of whole numbers"),
    ],
)  # fmt: skip
def test_defects_of_records(tmp_path: Path, fields: Any, columns: SentenceColumns | None, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path / "a.jsonl", json.dumps(fields), columns or SentenceColumns())
    assert caught.value.problems == [f"{tmp_path / 'a.jsonl'}, line 1: {problem}"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '[{"tokens": [], "ner_tags": []}, {"tokens": ["Ana"], "ner_tags": ["B-PER"]}]'),
        ("a.jsonl", '{"tokens": []}\n{"tokens": ["Ana"], "ner_tags": ["B-PER"]}'),
        ("a.csv", "tokens;ner_tags\n[];[]\n['Ana'];['B-PER']"),
    ],
)
def test_sentences_without_words_are_left_out(tmp_path: Path, name: str, content: str) -> None:
    notes = [f"{tmp_path / name}: 1 sentence without words left out"]
    assert read(tmp_path / name, content) == ([Sentence(("Ana",), ("B-PER",))], "IOB2", False, notes)


def test_a_json_document_may_name_its_classes(tmp_path: Path) -> None:
    document = {"label_names": NAMES, "data": [{"tokens": ["Ana", "x"], "ner_tags": [1, 0]}]}
    assert read(tmp_path / "a.json", json.dumps(document)).sentences == [Sentence(("Ana", "x"), ("B-PER", "O"))]
    chosen = SentenceColumns(class_names=("B-X", "O"))
    assert read(tmp_path / "a.json", json.dumps(document), chosen).sentences == [Sentence(("Ana", "x"), ("O", "B-X"))]


# ---------------------------------------------------------------- CSV


@pytest.mark.parametrize(
    "lists",
    [
        (repr(WORDS), repr(LABELS)),
        (json.dumps(WORDS), json.dumps(LABELS)),
        (str(np.array(WORDS, dtype=object)), str(np.array(LABELS, dtype=object)).replace("' '", "'\n '")),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_has_lists_in_its_cells(tmp_path: Path, lists: tuple[str, str], delimiter: str) -> None:
    cells = ['"' + text.replace('"', '""') + '"' for text in lists]
    content = f"id{delimiter}tokens{delimiter}ner_tags\r\n0{delimiter}{delimiter.join(cells)}\r\n"
    assert read(tmp_path / "a.csv", content).sentences == [SENTENCE]
    assert read(tmp_path / "a.tsv", content).sentences == [SENTENCE]


@pytest.mark.parametrize(
    "cell", ["Ana x", "['a' ... 'b']", "[007]", "['\\N{zz}']", "['a', 'b'", "[" + "1" * 100_000 + "!"]
)
def test_other_cells_are_no_lists(tmp_path: Path, cell: str) -> None:
    with pytest.raises(UserError, match="line 2: 'tokens' must be a list of text"):
        read(tmp_path / "a.csv", f"tokens|ner_tags\n{cell}|[]\n".replace("|", "\t"))


def test_csv_with_a_word_on_each_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with pytest.raises(UserError) as caught:
        read(path, "Sentence #,Word,POS,Tag\nSentence: 1,Ana,NNP,B-per\n,mora,VB,O\n")
    assert str(caught.value) == (
        f"{path}: no column tokens or words with lists; a .csv file has a sentence on each row, or a word on each line "
        "with its label after a tab or blank"
    )


def test_csv_may_have_a_word_on_each_line(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", ", O\nAna B-X\n").sentences == [Sentence((",", "Ana"), ("O", "B-X"))]


# ---------------------------------------------------------------- tables and data sets

ROWS = {"tokens": [["Ana", "mora"], [], ["Luís"]], "ner_tags": [[1, 0], [], [3]]}
EXPECTED = [Sentence(("Ana", "mora"), ("B-PER", "O")), Sentence(("Luís",), ("B-LOC",))]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_tables_name_their_classes(tmp_path: Path, suffix: str) -> None:
    import datasets
    import pyarrow as pa

    path = tmp_path / f"a{suffix}"
    labels = datasets.List(datasets.ClassLabel(names=NAMES))
    features = datasets.Features(tokens=datasets.List(datasets.Value("string")), ner_tags=labels)
    table = datasets.Dataset.from_dict(ROWS, features=features)
    if suffix == ".parquet":
        table.to_parquet(path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.data.table.schema) as writer:
            writer.write_table(table.data.table)
    source = read_sentence_file(path, SentenceColumns(), need_labels=True)
    assert source == (EXPECTED, "IOB2", True, [f"{path}: 1 sentence without words left out"])


def test_a_table_without_names_needs_them(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(ROWS), path)
    with pytest.raises(UserError, match=r"a\.parquet: labels are numbers, 0 to 3; .*--label_names"):
        read_sentence_file(path, SentenceColumns(), need_labels=True)
    source = read_sentence_file(path, SentenceColumns(class_names=tuple(NAMES)), need_labels=True)
    assert source.sentences == EXPECTED
    with pytest.raises(UserError, match="row 0: no 'words'; found: tokens, ner_tags"):
        read_sentence_file(path, SentenceColumns(words="words"), need_labels=True)


def test_a_folder_that_datasets_has_saved(tmp_path: Path) -> None:
    import datasets

    labels = datasets.List(datasets.ClassLabel(names=NAMES))
    features = datasets.Features(tokens=datasets.List(datasets.Value("string")), ner_tags=labels)
    table = datasets.Dataset.from_dict(ROWS, features=features)
    datasets.DatasetDict(train=table, test=table).save_to_disk(tmp_path / "d")
    name, columns = str(tmp_path / "d"), SentenceColumns()
    assert load_sentence_dataset(name, None, "train", columns, need_labels=True).sentences == EXPECTED
    words = [Sentence(sentence.words, ()) for sentence in EXPECTED]
    assert load_sentence_dataset(name, None, "test", columns, need_labels=False).sentences == words
    with pytest.raises(UserError, match="splits are train, test"):
        load_sentence_dataset(name, None, "validation", columns, need_labels=True)

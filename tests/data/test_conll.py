"""Reading sentences (adapter_qa/data/conll.py): all file formats, all defects, label names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapter_qa.core.errors import UserError
from adapter_qa.data.conll import Sentence, label_names, read_sentences

NAMES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
ANA = Sentence(("Ana", "Lima", "nasceu", "em", "Recife"), ("B-PER", "I-PER", "O", "O", "B-LOC"))
DAVI = Sentence(("Davi", "é", "de", "São", "Luís", "."), ("B-PER", "O", "O", "B-LOC", "I-LOC", "O"))
BOTH = [ANA, DAVI]
CONLL = "Ana B-PER\nLima I-PER\nnasceu O\nem O\nRecife B-LOC\n\nDavi B-PER\né O\nde O\nSão B-LOC\nLuís I-LOC\n. O\n\n"


def record(sentence: Sentence) -> dict[str, Any]:
    return {"tokens": list(sentence.words), "ner_tags": list(sentence.labels)}


def problems_of(path: Path, content: str | bytes, *, need_labels: bool = True) -> list[str]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    with pytest.raises(UserError) as caught:
        read_sentences(path, need_labels=need_labels)
    assert not any("\n" in problem for problem in caught.value.problems)
    return caught.value.problems


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", CONLL),
        ("a.txt", CONLL.strip()),
        ("a.conll", "\ufeff\n\n" + CONLL.replace("\n", "\r\n").replace("\r\n\r\n", "\r\n \t \r\n\r\n")),
        ("a.conll", "-DOCSTART- -X- O\n" + CONLL.replace(" ", "\tNOUN _ ").replace("\n\n", "\n\n-DOCSTART- O\n\n")),
        ("a.json", json.dumps([record(sentence) for sentence in BOTH])),
        ("a.json", json.dumps({"data": [record(sentence) for sentence in BOTH]}, ensure_ascii=False)),
        ("a.jsonl", "\n\n".join(json.dumps(record(sentence), ensure_ascii=False) for sentence in BOTH)),
    ],
)
def test_all_formats_give_the_same_sentences(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode("utf-8"))
    assert read_sentences(tmp_path / name, need_labels=True) == BOTH
    assert read_sentences(str(tmp_path / name), need_labels=False) == BOTH


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", "\n".join(ANA.words) + "\n\n" + "\n".join(DAVI.words)),
        ("a.jsonl", "\n".join(json.dumps({"tokens": sentence.words}) for sentence in BOTH)),
    ],
)
def test_labels_may_be_missing_if_not_needed(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    unlabelled = [Sentence(sentence.words, ()) for sentence in BOTH]
    assert read_sentences(tmp_path / name, need_labels=False) == unlabelled
    lines = ["line 1", "line 7"] if name == "a.conll" else ["line 1", "line 2"]
    assert problems_of(tmp_path / name, content) == [f"{tmp_path / name}, {line}: no labels" for line in lines]


@pytest.mark.parametrize("separator", ["\u2028", "\x85"])
def test_only_newlines_separate_records(tmp_path: Path, separator: str) -> None:
    sentence = Sentence((f"a{separator}b", "c"), ("O", "O"))
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record(sentence), ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_sentences(path, need_labels=True) == [sentence]


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0c", "\x1c", "\u00a0"])
def test_only_spaces_tabs_and_newlines_separate_words(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "a.conll"
    path.write_text(f"a{separator}b O\nc B-X\n", encoding="utf-8")
    assert read_sentences(path, need_labels=True) == [Sentence((f"a{separator}b", "c"), ("O", "B-X"))]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("Ana B-PER\nLima\n", "line 2: Lima has no label"),
        ("\n\nAna\nLima O\n", "line 3: Ana has no label"),
        ("Ana B-<b>\n", "line 1: Ana has label B-<b>; allowed: O, B-TYPE, I-TYPE"),
        (f"Ana B-{'x' * 101}\n", f"line 1: Ana has label B-{'x' * 101}; allowed: O, B-TYPE, I-TYPE"),
        ("Ana PER\n", "line 1: Ana has label PER; allowed: O, B-TYPE, I-TYPE"),
        ("Ana B-\n", "line 1: Ana has label B-; allowed: O, B-TYPE, I-TYPE"),
        ("Ana S-PER\n", "line 1: Ana has label S-PER; allowed: O, B-TYPE, I-TYPE"),
        ("Ana O-PER\n", "line 1: Ana has label O-PER; allowed: O, B-TYPE, I-TYPE"),
        ("Ana I-PER\n", "line 1: Ana has label I-PER after O; in IOB2 an entity begins with B-PER"),
        (
            "Ana B-PER\nRecife I-LOC\n",
            "line 2: Recife has label I-LOC after B-PER; in IOB2 an entity begins with B-LOC",
        ),
        ("a B-A\nb I-A\nc O\nd I-A\n", "line 4: d has label I-A after O; in IOB2 an entity begins with B-A"),
        ("a B-A\n\nb I-A\n", "line 3: b has label I-A after O; in IOB2 an entity begins with B-A"),
    ],
)
def test_defects_of_conll_sentences(tmp_path: Path, lines: str, problem: str) -> None:
    path = tmp_path / "a.conll"
    assert problems_of(path, lines) == [f"{path}, {problem}"]


NOT_A_WORD = "is not a word; a word is not empty and has no spaces, tabs or line breaks"


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        ([{"tokens": [], "ner_tags": []}], "data[0]: a sentence without words"),
        ([record(ANA), {"tokens": ["a", "b"], "ner_tags": ["O"]}], "data[1]: b has no label"),
        ([{"tokens": ["a"], "ner_tags": ["O", "O"]}], "data[0]: 2 labels for 1 words"),
        ([{"tokens": ["a"], "ner_tags": ["X"]}], "data[0]: a has label X; allowed: O, B-TYPE, I-TYPE"),
        (
            [{"tokens": ["a b"], "ner_tags": ["O"]}],
            f"data[0]: 'a b' {NOT_A_WORD}",
        ),
        (
            [{"tokens": [""], "ner_tags": ["O"]}],
            f"data[0]: '' {NOT_A_WORD}",
        ),
        (
            [{"tokens": ["a\nb"], "ner_tags": ["O"]}],
            f"data[0]: 'a\\nb' {NOT_A_WORD}",
        ),
    ],
)
def test_defects_of_json_sentences(tmp_path: Path, records: list[dict[str, Any]], problem: str) -> None:
    path = tmp_path / "a.json"
    assert problems_of(path, json.dumps(records)) == [f"{path}, {problem}"]


FORM = 'a record is {"tokens": [...], "ner_tags": [...]}'
LISTS = f"'tokens' and 'ner_tags' must be lists of text, with labels such as B-LOC; {FORM}"
TOP = "the top level must be a list or an object whose 'data' is a list"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", "{", ": not JSON at line 1, column 2: Expecting property name enclosed in double quotes; the file "
         "seems to be cut off"),
        ("a.json", "3", f": {TOP}"),
        ("a.json", '{"sentences": []}', f": {TOP}"),
        ("a.json", '["Ana"]', f", data[0]: no 'tokens'; {FORM}"),
        ("a.json", '[{"words": ["Ana"]}]', f", data[0]: no 'tokens'; {FORM}"),
        ("a.json", '[{"tokens": ["Ana"], "ner_tags": [3]}]', f", data[0]: {LISTS}"),
        ("a.json", '[{"tokens": "Ana", "ner_tags": ["O", "O", "O"]}]', f", data[0]: {LISTS}"),
        ("a.json", '[{"tokens": ["Ana"], "ner_tags": "O"}]', f", data[0]: {LISTS}"),
        ("a.json", '[{"tokens": ["\\ud83d"]}]', f", data[0]: {LISTS}"),
        ("a.jsonl", '{"tokens": ["Ana"]}\n{"tokens": ["An', ", line 2: not JSON at column 13: Unterminated string "
         "starting at"),
        ("a.jsonl", "[" * 100_000, ", line 1: JSON that cannot be read: maximum recursion depth exceeded while "
         "decoding a JSON array from a unicode string"),
    ],
)  # fmt: skip
def test_defects_of_json_files(tmp_path: Path, name: str, content: str, problem: str) -> None:
    assert problems_of(tmp_path / name, content, need_labels=False) == [f"{tmp_path / name}{problem}"]


@pytest.mark.parametrize(("name", "content"), [("a.conll", "-DOCSTART-\n\n"), ("a.json", "[]")])
def test_a_file_without_sentences_is_refused(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    assert problems_of(path, content) == [
        f"{path}: holds no sentence; write a word and its label per line, blank lines between sentences"
    ]


@pytest.mark.parametrize("name", ["a.conll", "a.jsonl", "a.json"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    assert problems_of(tmp_path / name, "\n \n") == [f"{tmp_path / name}: the file is empty"]


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    assert problems_of(path, b"S\xe3o O\n") == [f"{path}: not UTF-8 at byte 1: save the file as UTF-8"]
    with pytest.raises(UserError, match=r"none\.conll: cannot be read: No such file or directory"):
        read_sentences(tmp_path / "none.conll", need_labels=False)


def test_only_ten_problems_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    expected = [f"{path}, line {line}: a has label X; allowed: O, B-TYPE, I-TYPE" for line in range(1, 21, 2)]
    assert problems_of(path, "a X\n\n" * 10) == expected
    assert problems_of(path, "a X\n\n" * 13) == [*expected, f"{path}: and 3 more problems"]


def test_label_names() -> None:
    assert label_names(BOTH) == NAMES
    assert label_names([DAVI, Sentence(("a",), ()), Sentence(("b",), ("B-A-B",))]) == [
        "O",
        "B-A-B",
        "I-A-B",
        *NAMES[1:],
    ]
    assert label_names([]) == ["O"]


@pytest.mark.parametrize("name", ["train.conll", "dev.conll"])
def test_lener_br(shared_data: Path, name: str) -> None:
    path = shared_data / "lener_br" / name
    sentences = read_sentences(path, need_labels=True)
    types = ["JURISPRUDENCIA", "LEGISLACAO", "LOCAL", "ORGANIZACAO", "PESSOA", "TEMPO"]
    blocks = path.read_text(encoding="utf-8").strip().split("\n\n")
    assert [len(sentence.words) for sentence in sentences] == [block.count("\n") + 1 for block in blocks]
    assert label_names(sentences) == ["O", *[f"{prefix}-{entity}" for entity in types for prefix in "BI"]]

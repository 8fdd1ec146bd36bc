"""Reading sentences (adapter_qa/data/readers/sentences.py): all file formats, all defects, label names."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.conll_files import read_sentences

from adapter_qa.core.errors import UserError
from adapter_qa.data.label_schemes import begin_entities
from adapter_qa.data.readers.sentence_records import SentenceColumns
from adapter_qa.data.readers.sentences import (
    Sentence,
    SentenceSource,
    format_sentences,
    label_names,
    read_sentence_file,
)

NAMES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
ANA = Sentence(("Ana", "Lima", "nasceu", "em", "Recife"), ("B-PER", "I-PER", "O", "O", "B-LOC"))
DAVI = Sentence(("Davi", "é", "de", "São", "Luís", "."), ("B-PER", "O", "O", "B-LOC", "I-LOC", "O"))
BOTH = [ANA, DAVI]
CONLL = "Ana B-PER\nLima I-PER\nnasceu O\nem O\nRecife B-LOC\n\nDavi B-PER\né O\nde O\nSão B-LOC\nLuís I-LOC\n. O\n\n"


def record(sentence: Sentence) -> dict[str, Any]:
    return {"tokens": list(sentence.words), "ner_tags": list(sentence.labels)}


def without_labels(sentences: list[Sentence]) -> list[Sentence]:
    return [Sentence(sentence.words, ()) for sentence in sentences]


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
        ("a.conll", "-DOCSTART- -X- O\n" + CONLL.replace(" ", "\tNOUN\t\t").replace("\n\n", "\n\n-DOCSTART- O\n\n")),
        ("a.json", json.dumps([record(sentence) for sentence in BOTH])),
        ("a.json", json.dumps({"data": [record(sentence) for sentence in BOTH]}, ensure_ascii=False)),
        ("a.jsonl", "\n\n".join(json.dumps(record(sentence), ensure_ascii=False) for sentence in BOTH)),
    ],
)
def test_all_formats_give_the_same_sentences(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode("utf-8"))
    assert read_sentences(tmp_path / name, need_labels=True) == BOTH
    assert read_sentences(str(tmp_path / name), need_labels=False) == without_labels(BOTH)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", "\n".join(ANA.words) + "\n\n" + "\n".join(DAVI.words)),
        ("a.jsonl", "\n".join(json.dumps({"tokens": sentence.words}) for sentence in BOTH)),
    ],
)
def test_labels_may_be_missing_if_not_needed(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_sentences(tmp_path / name, need_labels=False) == without_labels(BOTH)
    lines = ["line 1", "line 7"] if name == "a.conll" else ["line 1", "line 2"]
    keys = "" if name == "a.conll" else " under 'ner_tags' or 'tags' or 'labels' or 'ner'; --label_column names another"
    assert problems_of(tmp_path / name, content) == [
        f"{tmp_path / name}, {line}: no labels{keys and f'{keys} key'}" for line in lines
    ]


@pytest.mark.parametrize("separator", ["\u2028", "\x85"])
def test_only_newlines_separate_records(tmp_path: Path, separator: str) -> None:
    sentence = Sentence((f"a{separator}b", "c"), ("O", "O"))
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record(sentence), ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_sentences(path, need_labels=True) == [sentence]


def test_words_may_have_blanks_or_be_white_space(tmp_path: Path) -> None:
    sentence = Sentence(("10 000", "\u00a0", "\x85", "\u3000", "\x0c"), ("B-X", "I-X", "O", "O", "O"))
    (tmp_path / "a.json").write_text(json.dumps([record(sentence)]), encoding="utf-8")
    lines = [f"{word}\t{label}\n" for word, label in zip(sentence.words, sentence.labels, strict=True)]
    (tmp_path / "a.tsv").write_text("".join(lines), encoding="utf-8")
    assert read_sentences(tmp_path / "a.json", need_labels=True) == [sentence]
    assert read_sentences(tmp_path / "a.tsv", need_labels=True) == [sentence]


ALLOWED = "allowed: O, B-TYPE, I-TYPE, or those of IOB1, BIOES and BILOU"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("Ana B-PER\nLima\n", "line 2: Lima has no label"),
        ("\n\nAna\nLima O\n", "line 3: Ana has no label"),
        ("x O\nAna B-<b>\n", f"line 2: Ana has label B-<b>; {ALLOWED}"),
        (f"Ana B-{'x' * 101}\n", f"line 1: Ana has label B-{'x' * 101}; {ALLOWED}"),
        ("Ana PER\n", f"line 1: Ana has label PER; {ALLOWED}"),
        ("Ana b-PER\n", f"line 1: Ana has label b-PER; {ALLOWED}"),
        ("Ana B_PER\n", f"line 1: Ana has label B_PER; {ALLOWED}"),
        ("a B-A\nb I-A\nc O\nd I-A\n", "line 4: d has label I-A after O; in IOB2 an entity begins with B-A"),
        ("a B-A\n\n# id 1\nb I-A\n", "line 4: b has label I-A after O; in IOB2 an entity begins with B-A"),
        ("a S-A\n\nb E-A\n", "line 3: b has label E-A after O; in BIOES (as S-A) a longer entity begins with B-"),
        ("a O\nb O\nc d O\n", "line 3: 3 columns where most lines have 2: c | d | O; words with blanks need tabs "
         "between columns, or give --word_column and --label_column, counted from 1"),
        ("\tO\nb\tO\nc\tO\n", "line 1: '' is not a word; a word is not empty, has no blanks at its ends, and no tabs "
         "or line breaks"),
    ],
)  # fmt: skip
def test_defects_of_conll_sentences(tmp_path: Path, lines: str, problem: str) -> None:
    path = tmp_path / "a.conll"
    assert problems_of(path, lines) == [f"{path}, {problem}"]


NOT_A_WORD = "is not a word; a word is not empty, has no blanks at its ends, and no tabs or line breaks"


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        ([record(ANA), {"tokens": ["a", "b"], "ner_tags": ["O"]}], "data[1]: b has no label"),
        ([{"tokens": ["a"], "ner_tags": ["O", "O"]}], "data[0]: 2 labels for 1 words"),
        ([{"tokens": ["a"], "ner_tags": ["X"]}], f"data[0]: a has label X; {ALLOWED}"),
        ([{"tokens": [" a"], "ner_tags": ["O"]}], f"data[0]: ' a' {NOT_A_WORD}"),
        ([{"tokens": [""], "ner_tags": ["O"]}], f"data[0]: '' {NOT_A_WORD}"),
        ([{"tokens": ["a\nb"], "ner_tags": ["O"]}], f"data[0]: 'a\\nb' {NOT_A_WORD}"),
        ([{"tokens": ["a\tb"], "ner_tags": ["O"]}], f"data[0]: 'a\\tb' {NOT_A_WORD}"),
    ],
)
def test_defects_of_json_sentences(tmp_path: Path, records: list[dict[str, Any]], problem: str) -> None:
    path = tmp_path / "a.json"
    assert problems_of(path, json.dumps(records)) == [f"{path}, {problem}"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", "{", ": not JSON at line 1, column 2: Expecting property name enclosed in double quotes; the file "
         "seems to be cut off"),
        ("a.json", "3", ": the top level must be a list or an object whose 'data' is a list"),
        ("a.jsonl", '{"tokens": ["Ana"]}\n{"tokens": ["An', ", line 2: not JSON at column 13: Unterminated string "
         "starting at"),
        ("a.jsonl", "[" * 100_000, ", line 1: JSON that cannot be read: maximum recursion depth exceeded while "
         "decoding a JSON array from a unicode string"),
        ("a.parquet", "x", ": not a readable .parquet table: Parquet file size is 1 bytes, smaller than the minimum "
         "file footer (8 bytes)"),
        ("a.conll.gz", "x", ": cannot be unpacked as .gz: Not a gzipped file (b'x'); the file is damaged or misnamed"),
    ],
)  # fmt: skip
def test_defects_of_files(tmp_path: Path, name: str, content: str, problem: str) -> None:
    assert problems_of(tmp_path / name, content, need_labels=False) == [f"{tmp_path / name}{problem}"]


@pytest.mark.parametrize(
    ("name", "content"), [("a.conll", "-DOCSTART-\n\n"), ("a.json", "[]"), ("a.json", '[{"tokens": []}]')]
)
def test_a_file_without_sentences_is_refused(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    assert problems_of(path, content) == [
        f"{path}: holds no sentence; a sentence has words, and a label for each of them"
    ]


@pytest.mark.parametrize("name", ["a.conll", "a.jsonl", "a.json"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    assert problems_of(tmp_path / name, "\n \n") == [f"{tmp_path / name}: the file is empty"]


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    assert problems_of(path, b"S\xe3o O\n") == [
        f"{path}: not UTF-8 at byte 1: it seems to be Latin-1; save the file as UTF-8"
    ]
    with pytest.raises(UserError, match=r"none\.conll: cannot be read: No such file or directory"):
        read_sentences(tmp_path / "none.conll", need_labels=False)


def test_only_ten_problems_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    expected = [f"{path}, line {line}: a has label X; {ALLOWED}" for line in range(1, 21, 2)]
    assert problems_of(path, "a X\n\n" * 10) == expected
    assert problems_of(path, "a X\n\n" * 13) == [*expected, f"{path}: and 3 more problems"]


WORD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r:"), min_size=1, max_size=4).filter(
    lambda word: word == word.strip(" ") and word != "-DOCSTART-"
)


@st.composite
def labelled_sentence(draw: st.DrawFn) -> Sentence:
    words = draw(st.lists(WORD, min_size=1, max_size=4))
    labels = draw(st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y"]), min_size=len(words), max_size=len(words)))
    return Sentence(tuple(words), begin_entities(labels))


@given(st.lists(labelled_sentence(), min_size=1, max_size=3))
def test_written_sentences_are_read_back(tmp_path_factory: pytest.TempPathFactory, sentences: list[Sentence]) -> None:
    path = tmp_path_factory.getbasetemp() / "written.conll"
    path.write_text(format_sentences(sentences), encoding="utf-8", newline="")
    assume(not path.read_bytes().startswith(b"\xef\xbb\xbf") and not path.read_text(encoding="utf-8").isspace())
    assert read_sentences(path, need_labels=True) == sentences


def test_labels_are_separated_by_blanks_if_no_word_has_one() -> None:
    assert format_sentences(BOTH) == CONLL.removesuffix("\n")
    assert format_sentences([Sentence(("10 000", "x"), ("B-X", "O"))]) == "10 000\tB-X\nx\tO\n"


def test_label_names() -> None:
    assert label_names(BOTH) == NAMES
    assert label_names([DAVI, Sentence(("a",), ()), Sentence(("b",), ("B-A-B",))]) == [
        "O",
        "B-A-B",
        "I-A-B",
        *NAMES[1:],
    ]
    assert label_names([]) == ["O"]


# ---------------------------------------------------------------- schemes, integers, chosen columns

ENTITIES = ("B-PER", "I-PER", "O", "B-LOC")
SCHEMES = {
    "IOB2": ENTITIES,
    "IOB1": ("I-PER", "I-PER", "O", "I-LOC"),
    "BIOES": ("B-PER", "E-PER", "O", "S-LOC"),
    "BILOU": ("B-PER", "L-PER", "O", "U-LOC"),
}
CLASSES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
WORDS = ["Ana", "Lima", "em", "Recife"]


def read(
    path: Path, *, words: str | None = None, labels: str | None = None, names: tuple[str, ...] = ()
) -> SentenceSource:
    return read_sentence_file(path, SentenceColumns(words, labels, names), need_labels=True)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("suffix", [".conll", ".jsonl"])
def test_labels_become_iob2(tmp_path: Path, scheme: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    sentence = Sentence(tuple(WORDS), SCHEMES[scheme])
    lines = "".join(f"{word} {label}\n" for word, label in zip(WORDS, SCHEMES[scheme], strict=True))
    path.write_text(lines if suffix == ".conll" else json.dumps(record(sentence)), encoding="utf-8")
    assert read(path) == ([Sentence(tuple(WORDS), ENTITIES)], scheme, False, [])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", json.dumps({"tokens": WORDS, "ner_tags": [1, 2, 0, 3]})),
        ("a.json", json.dumps([{"words": WORDS, "tags": ["1", "2", "0", "3"]}])),
        ("a.conll", "Ana 1\nLima 2\nem 0\nRecife 3\n"),
        ("a.csv", "tokens;ner_tags\n['Ana' 'Lima' 'em' 'Recife'];[1 2 0 3]\n"),
    ],
)
def test_integers_have_names(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert read(path, names=CLASSES) == ([Sentence(tuple(WORDS), ENTITIES)], "IOB2", True, [])
    assert read_sentences(path, need_labels=False) == [Sentence(tuple(WORDS), ())]
    assert problems_of(path, content) == [
        f"{path}: labels are numbers, 0 to 3; give their names in this order: --label_names O B-PER I-PER ..."
    ]
    where = {"a.jsonl": "line 1", "a.json": "data[0]", "a.conll": "line 4", "a.csv": "line 2"}[name]
    with pytest.raises(UserError, match=re.escape(f"{where}: Recife has label 3; the names are for 0 to 2")):
        read(path, names=CLASSES[:3])


def test_names_of_integers_follow_a_scheme(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"tokens": WORDS, "ner_tags": [1, 2, 0, 3]}), encoding="utf-8")
    source = read(path, names=("O", "B-PER", "E-PER", "S-LOC"))
    assert (source.sentences[0].labels, source.scheme) == (ENTITIES, "BIOES")
    with pytest.raises(UserError, match="Ana has label PER; allowed: O, B-TYPE"):
        read(path, names=("O", "PER", "X", "Y"))


@pytest.mark.parametrize("value", ["tokens", "0", "-", "1.5", ""])
def test_columns_without_names_have_numbers(tmp_path: Path, value: str) -> None:
    path = tmp_path / "a.conll"
    path.write_text(CONLL, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read(path, words=value)
    assert str(caught.value) == (
        f"--word_column {value}: {path} has columns without names; give a number, 1 the first, -1 the last"
    )


def test_columns_are_chosen_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(gzip.compress(b"1\tAna\tB-PER\tX\n2\tLima\tI-PER\tX\n"))
    assert read(path, words="2", labels="-2").sentences == [Sentence(("Ana", "Lima"), ("B-PER", "I-PER"))]


def test_labels_that_are_not_needed_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"tokens": WORDS, "ner_tags": "none", "tags": 1}), encoding="utf-8")
    assert read_sentences(path, need_labels=False) == [Sentence(tuple(WORDS), ())]


@pytest.mark.parametrize("name", ["train.conll", "dev.conll"])
def test_lener_br(shared_data: Path, name: str) -> None:
    path = shared_data / "lener_br" / name
    sentences = read_sentences(path, need_labels=True)
    types = ["JURISPRUDENCIA", "LEGISLACAO", "LOCAL", "ORGANIZACAO", "PESSOA", "TEMPO"]
    blocks = path.read_text(encoding="utf-8").strip().split("\n\n")
    assert [len(sentence.words) for sentence in sentences] == [block.count("\n") + 1 for block in blocks]
    assert label_names(sentences) == ["O", *[f"{prefix}-{entity}" for entity in types for prefix in "BI"]]

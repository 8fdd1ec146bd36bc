"""Text files with a word on each line (adapter_qa/data/readers/conll.py). Oracle: the module `csv` for tabs."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter_qa.core.errors import UserError
from adapter_qa.data.readers.conll import read_columns

Sentences = list[list[tuple[str, str]]]  # the word and the label of each line


def read(text: str, word_column: int | None = None, label_column: int | None = None) -> Sentences:
    """Return the sentences of a text that is read without problems."""
    file = read_columns("f", text, word_column, label_column)
    assert not any(sentence.problems for sentence in file.sentences)
    return [list(zip(sentence.words, sentence.labels, strict=True)) for sentence in file.sentences]


def refusal(text: str, word_column: int | None = None, label_column: int | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read_columns("f", text, word_column, label_column)
    return str(caught.value)


# ---------------------------------------------------------------- columns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ana B-PER\nmora O\n", [("Ana", "B-PER"), ("mora", "O")]),
        ("Ana  _  B-PER \r\n mora _ O\t\r\n", [("Ana", "B-PER"), ("mora", "O")]),
        ("10 000\tB-X\nreais\tI-X\n", [("10 000", "B-X"), ("reais", "I-X")]),
        ("Ana\t\t\tB-PER\nmora\tV\t\tO\n", [("Ana", "B-PER"), ("mora", "O")]),  # empty columns
        ("Ana\tB-PER\t\nmora\tO\t\n", [("Ana", "B-PER"), ("mora", "O")]),  # a tab at the end of every line
        ("Ana\tB-PER\nmora\tO\t\t\n", [("Ana", "B-PER"), ("mora", "O")]),  # tabs at the end of one
        ("\tAna\tB-PER\n\tmora\tO\n", [("Ana", "B-PER"), ("mora", "O")]),
        (" Ana L. \t B-PER \n mora \t O \n", [("Ana L.", "B-PER"), ("mora", "O")]),
        ("Ana B-PER\nmora O\nem\tO\n", [("Ana", "B-PER"), ("mora", "O"), ("em", "O")]),  # one tab among blanks
        ("Ana\tN _ B-PER\nmora\tV _ O\n", [("Ana", "B-PER"), ("mora", "O")]),  # tabs and blanks on every line
        ("\u00a0\tO\n", [("\u00a0", "O")]),
        ("Ana\nmora\n", [("Ana", ""), ("mora", "")]),
        ("Ana\nmora O\nem O\n", [("Ana", ""), ("mora", "O"), ("em", "O")]),
        ("São Paulo\t\nx\tO\ny\tO\n", [("São Paulo", ""), ("x", "O"), ("y", "O")]),
        ("x\tN\tB-NP\tO\nAna\tN\tB-NP\t\ny\tN\tI-NP\tO\n", [("x", "O"), ("Ana", ""), ("y", "O")]),  # no label there
    ],
)
def test_words_and_labels(text: str, expected: list[tuple[str, str]]) -> None:
    assert read(text) == [expected]
    assert read("\n\n" + text + " \t\r\n\n") == [expected]


@pytest.mark.parametrize("white", ["\u00a0", "\x85", "\u3000", "\u2028", "\u2009", "\x0b", "\x0c", "\x1c"])
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_white_space_may_be_a_word(white: str, separator: str) -> None:
    text = "".join(f"{word}{separator}O\n" for word in ("Ana", white, f"1{white}000"))
    assert read(text) == [[("Ana", "O"), (white, "O"), (f"1{white}000", "O")]]


WORDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters='\t\n\r"#:'), min_size=1, max_size=5
).filter(lambda word: word == word.strip(" "))


@given(
    st.lists(st.lists(st.tuples(WORDS, st.sampled_from(["O", "B-X"])), min_size=1, max_size=4), min_size=1, max_size=3)
)
def test_tab_separated_files_are_read_as_csv_reads_them(sentences: Sentences) -> None:
    text = "\n\n".join("\n".join("\t".join(cells) for cells in sentence) for sentence in sentences)
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE))
    if any(len(row) not in (0, 2) for row in rows) or any(word == "-DOCSTART-" for row in rows for word in row):
        return  # csv ends a line at other characters too
    assert [cells for sentence in read(text) for cells in sentence] == [(row[0], row[1]) for row in rows if row]
    assert read(text) == sentences


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a O\nb O\nNova York B-LOC\n", 3, "3 columns where most lines have 2: Nova | York | B-LOC"),
        ("a _ _ O\nb _ _ O\nc _ O\n", 3, "3 columns where most lines have 4: c | _ | O"),
        ("a\tO\nb\tO\nc\td\tO\n", 3, "3 columns where most lines have 2: c | d | O"),
        ("a\nb\n10 000\n", 3, "2 columns where most lines have 1: 10 | 000"),
        ("a O\nb O\n\nc O\n# id 1\nd O\n", 5, "3 columns where most lines have 2: # | id | 1"),
    ],
)
def test_lines_with_other_columns(text: str, line: int, problem: str) -> None:
    problems = [problem for sentence in read_columns("f", text, None, None).sentences for problem in sentence.problems]
    assert problems == [
        f"line {line}: {problem}; words with blanks need tabs between columns, or give --word_column and "
        "--label_column, counted from 1"
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_lines_of_words_are_counted_over_blank_lines_and_comments(end: str) -> None:
    sentences = read_columns("f", "\n# id 1\na O\nb O\n\n\nc O\n".replace("\n", end), None, None).sentences
    assert [sentence.lines for sentence in sentences] == [[3, 4], [7]]
    assert [sentence.words for sentence in sentences] == [["a", "b"], ["c"]]


# ---------------------------------------------------------------- chosen columns

GERMEVAL = "1\tBerlin\tB-LOC\tB-ORG\n2\tist\tO\tO\n\n1\tgut\tO\tO\n"
CONLLU = (
    "# sent_id = 1\n# text = dos EUA\n1-2\tdos\t_\t_\n1\tde\tADP\tO\n2\tos\tDET\tO\n2.1\tx\t_\t_\n"
    "3\tEUA\tPROPN\tB-LOC\n\n# newdoc\n1\tSim\tINTJ\tO\n"
)


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        (GERMEVAL, (2, 3), [[("Berlin", "B-LOC"), ("ist", "O")], [("gut", "O")]]),
        (GERMEVAL, (2, -1), [[("Berlin", "B-ORG"), ("ist", "O")], [("gut", "O")]]),
        (GERMEVAL, (-3, -2), [[("Berlin", "B-LOC"), ("ist", "O")], [("gut", "O")]]),
        (GERMEVAL, (2, None), [[("Berlin", "B-ORG"), ("ist", "O")], [("gut", "O")]]),
        (CONLLU, (2, -1), [[("de", "O"), ("os", "O"), ("EUA", "B-LOC")], [("Sim", "O")]]),
        ("1-1\tAna\tB-PER\n1-2\tmora\tO\n", (2, 3), [[("Ana", "B-PER"), ("mora", "O")]]),  # WebAnno
        ("O\tAna\nB-X\tEUA\n", (2, 1), [[("Ana", "O"), ("EUA", "B-X")]]),
        ("a x O\nb O\n", (1, -1), [[("a", "O"), ("b", "O")]]),
        ("1\tAna\n2\tmora\n", (2, None), [[("Ana", ""), ("mora", "")]]),
    ],
)
def test_columns_are_counted_from_both_ends(
    text: str, columns: tuple[int | None, int | None], expected: Sentences
) -> None:
    assert read(text, *columns) == expected


INDEX = "f: the first column is a running index, not words; give --word_column and --label_column, counted from 1; "


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (GERMEVAL, "line 1 has: 1 | Berlin | B-LOC | B-ORG"),
        (CONLLU, "line 3 has: 1-2 | dos | _ | _"),
        ("0 Ana B-PER\n1 mora O\n", "line 1 has: 0 | Ana | B-PER"),
        ("1\tAna\n2\tmora\n", "line 1 has: 1 | Ana"),
        ("7 a O\n8 b O\n\n9 c O\n", "line 1 has: 7 | a | O"),
    ],
)
def test_a_running_index_is_refused(text: str, shown: str) -> None:
    assert refusal(text) == refusal(text, None, -1) == INDEX + shown


@pytest.mark.parametrize("text", ["1 O\n2 O\n3 B-X\n", "1 N O\nde P O\n", "1999 B-X\n"])
def test_numbers_may_be_words(text: str) -> None:
    assert [word for word, _ in read(text)[0]] == [line.split()[0] for line in text.splitlines()]


def test_labels_in_the_first_column_are_refused() -> None:
    assert refusal("O\tEMENTA\nB-ORG\tSTF\n") == (
        "f: the first column holds labels, not words; give --word_column and --label_column, counted from 1; "
        "line 1 has: O | EMENTA"
    )
    assert read("O O\nO O\n") == [[("O", "O"), ("O", "O")]]


@pytest.mark.parametrize(("columns", "number"), [((2, 2), 2), ((2, -1), 2), ((None, 1), 1)])
def test_words_and_labels_need_two_columns(columns: tuple[int | None, int | None], number: int) -> None:
    assert refusal("a O\n", *columns).startswith(f"f: words and labels are both in column {number}; give --word_column")


# ---------------------------------------------------------------- comments, documents, languages


@pytest.mark.parametrize(
    ("comment", "text"),
    [
        ("# id 0", "a O\nb O\n"),
        ("# id 0\tdomain=x", "a _ _ O\nb _ _ O\n"),  # MultiCoNER
        ("# id 0 domain=x", "a _ _ O\nb _ _ O\n"),
        ("# newdoc", "a O\nb O\n"),
        ("#", "a O\nb O\n"),
        ("# sent_id = 1\n# text = a b", "a\tO\nb\tO\n"),
        ("# O", "a N O\nb N O\n"),  # lacks a column
        ("# id 0", "a\nb\n"),
    ],
)
def test_comments_before_a_sentence(comment: str, text: str) -> None:
    file = read_columns("f", f"{comment}\n{text}\n{comment}\n{text}", None, None)
    expected = [line.split()[0] for line in text.splitlines()]
    assert [sentence.words for sentence in file.sentences] == [expected, expected]
    count, first = 2 * len(comment.splitlines()), comment.splitlines()[0].replace("\t", " ")
    assert file.notes == [f"f: {count} comments left out, the first in line 1: {first}"]


@pytest.mark.parametrize(
    "text",
    [
        "# O\na O\n",
        "#eleições B-X\na O\n",
        "# N O\na N O\n",
        "a O\n# O\n",
        "#\na\n",
        "# O\n# O\n",
        "# 3\na 0\nb 1\n",
        "#\tO\na\tO\n",
    ],
)
def test_a_number_sign_may_be_a_word(text: str) -> None:
    file = read_columns("f", text, None, None)
    assert [sentence.words for sentence in file.sentences] == [[line.split()[0] for line in text.splitlines()]]
    assert file.notes == []


def test_document_marks_end_sentences() -> None:
    text = "-DOCSTART- -X- -X- O\n\na N B-NP O\n-DOCSTART- -X- O O\nb N B-NP O\n-DOCSTART-\n"
    assert read(text) == [[("a", "O")], [("b", "O")]]
    assert read("-DOCSTART- -X- O\n\na b\tO\n\n-DOCSTART-\tO\nb\tO\n") == [[("a b", "O")], [("b", "O")]]
    assert read_columns("f", "-DOCSTART- O\n\n", None, None).sentences == []


def test_language_codes_of_wikiann_are_left_out() -> None:
    file = read_columns("f", "pt:Ana\tB-PER\npt::\tO\n\npt:pt:x\tO\n", None, None)
    assert [sentence.words for sentence in file.sentences] == [["Ana", ":"], ["pt:x"]]
    assert file.notes == ["f: every word begins with pt: as in WikiANN; the words are read without it"]


@pytest.mark.parametrize(
    "text", ["pt:Ana O\nx O\n", "pt:a O\npt: O\n", "pt:a O\nen:b O\n", "pt:a O\n", "A:a O\nA:b O\n"]
)
def test_other_words_keep_their_colons(text: str) -> None:
    assert [word for word, _ in read(text)[0]] == [line.split()[0] for line in text.splitlines()]

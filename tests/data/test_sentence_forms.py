"""Files of sentences in the forms that people have, each with what is read from it, or why it is refused."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapter_qa.core.errors import UserError
from adapter_qa.data.readers.sentence_records import SentenceColumns
from adapter_qa.data.readers.sentences import Sentence, read_sentence_file

WORDS = [["O", "Ministério", "Público", "decidiu", "."], ["Gilmar", "chegou", "\u00e0", "Bahia"]]
IOB2 = [["O", "B-ORG", "I-ORG", "O", "O"], ["B-PER", "O", "O", "B-LOC"]]
SENTENCES = [Sentence(tuple(words), tuple(labels)) for words, labels in zip(WORDS, IOB2, strict=True)]
NAMES = ["B-LOC", "B-ORG", "B-PER", "I-ORG", "O"]
INTEGERS = [[NAMES.index(label) for label in labels] for labels in IOB2]
PLAIN = SentenceColumns()


def lines(
    pattern: str = "{word} {label}", *, labels: list[list[str]] = IOB2, before: str = "", end: str = "\n"
) -> bytes:
    """Return a line for each word, a blank line after each sentence, and `before` in front of each."""
    blocks = []
    for words, of_words in zip(WORDS, labels, strict=True):
        rows = enumerate(zip(words, of_words, strict=True), 1)
        text = "".join(pattern.format(word=word, label=label, index=index) + end for index, (word, label) in rows)
        blocks.append(before + text + end)
    return "".join(blocks).encode()


def changed(change: Callable[[str], str]) -> list[list[str]]:
    return [[label if label == "O" else change(label) for label in labels] for labels in IOB2]


def records(words: str = "tokens", labels: str = "ner_tags", values: object = IOB2) -> list[dict[str, object]]:
    pairs = zip(WORDS, values, strict=True)  # type: ignore[call-overload]
    return [{"id": str(number), words: row, labels: of_row} for number, (row, of_row) in enumerate(pairs)]


def json_lines(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": ["0", "1"], "tokens": WORDS, "ner_tags": IOB2}), sink)
    return sink.getvalue()


def list_cells() -> bytes:
    stream = io.StringIO()
    csv.writer(stream).writerows([["tokens", "ner_tags"], *zip(map(str, WORDS), map(str, IOB2), strict=True)])
    return stream.getvalue().encode()


CLOSED = {"BIOES": ["S-PER", "E-ORG", "S-LOC"], "BILOU": ["U-PER", "L-ORG", "U-LOC"]}
SCHEMES = {
    name: [["O", "B-ORG", last, "O", "O"], [first, "O", "O", single]] for name, (first, last, single) in CLOSED.items()
}
IO = changed(lambda label: f"I{label[1:]}")
CONLLU_COLUMNS = "{index}\t{word}" + "\t_" * 7 + "\t{label}"

READ: dict[str, tuple[bytes, SentenceColumns]] = {
    "two_columns.conll": (lines(), PLAIN),
    "two_columns.bio": (lines(), PLAIN),
    "two_columns.txt": (lines().strip(), PLAIN),
    "two_columns.tsv": (lines("{word}\t{label}"), PLAIN),
    "no_suffix": (lines(), PLAIN),
    "windows.conll": (lines(end="\r\n"), PLAIN),
    "old_mac.conll": (lines(end="\r"), PLAIN),
    "byte_order_mark.conll": (b"\xef\xbb\xbf" + lines(), PLAIN),
    "blank_lines.conll": (b"\n \n" + lines(end="  \n").replace(b"  \n  \n", b"\n\t\n\n"), PLAIN),
    "conll2003.conll": (b"-DOCSTART- -X- -X- O\n\n" + lines("{word} NN B-NP {label}"), PLAIN),
    "empty_columns.tsv": (lines("{word}\t\t\t{label}\t"), PLAIN),
    "iob1.conll": (lines(labels=IO), PLAIN),
    "bioes.conll": (lines(labels=SCHEMES["BIOES"]), PLAIN),
    "bilou.conll": (lines(labels=SCHEMES["BILOU"]), PLAIN),
    "comments.conll": (lines(before="# sent_id = 1\n# text = x\n"), PLAIN),
    "comments_of_two_words.conll": (lines(before="# newdoc\n"), PLAIN),
    "multiconer.conll": (lines("{word} _ _ {label}", before="# id 0\tdomain=x\n"), PLAIN),
    "wikiann.conll": (lines("pt:{word}\t{label}"), PLAIN),
    "conllu.conllu": (lines(CONLLU_COLUMNS, before="# newpar\n"), SentenceColumns("2", "10")),
    "germeval.tsv": (lines("{index}\t{word}\t{label}\tO", before="#\thttp://x\t[2020]\n"), SentenceColumns("2", "3")),
    "label_first.tsv": (lines("{label}\t{word}"), SentenceColumns("2", "1")),
    "numbers.conll": (
        lines(labels=[[str(number) for number in row] for row in INTEGERS]),
        SentenceColumns(class_names=tuple(NAMES)),
    ),
    "gzip.conll.gz": (gzip.compress(lines()), PLAIN),
    "bzip2.conll.bz2": (bz2.compress(lines()), PLAIN),
    "xz.jsonl.xz": (lzma.compress(json_lines(records())), PLAIN),
    "zstandard.json.zst": (pa.compress(json.dumps(records()).encode(), "zstd", asbytes=True), PLAIN),
    "data.json": (json.dumps({"data": records()}).encode(), PLAIN),
    "list.json": (json.dumps(records()).encode(), PLAIN),
    "lines_in.json": (json_lines(records()), PLAIN),
    "columns.json": (json.dumps({"tokens": WORDS, "ner_tags": IOB2}).encode(), PLAIN),
    "text.jsonl": (json_lines(records()), PLAIN),
    "text.ndjson": (json_lines(records()), PLAIN),
    "tags.jsonl": (json_lines(records(labels="tags")), PLAIN),
    "words_labels.jsonl": (json_lines(records("words", "labels")), PLAIN),
    "ner.jsonl": (json_lines(records(labels="ner")), PLAIN),
    "own_keys.jsonl": (json_lines(records("form", "bio")), SentenceColumns("form", "bio")),
    "integers.jsonl": (json_lines(records(values=INTEGERS)), SentenceColumns(class_names=tuple(NAMES))),
    "integers.json": (json.dumps({"label_names": NAMES, "data": records(values=INTEGERS)}).encode(), PLAIN),
    "table.parquet": (table(), PLAIN),
    "lists.csv": (list_cells(), PLAIN),
    "lists_old_mac.csv": (list_cells().replace(b"\r\n", b"\r"), PLAIN),
}
TYPES = "allowed: O, B-TYPE, I-TYPE, or those of IOB1, BIOES and BILOU"
REFUSED = {
    "index.conllu": (lines(CONLLU_COLUMNS), ": the first column is a running index, not words; give --word_column"),
    "index.tsv": (lines("{index}\t{word}\t{label}\tO"), ": the first column is a running index, not words; give"),
    "label_first.tsv": (lines("{label}\t{word}"), ": the first column holds labels, not words; give --word_column"),
    "label_missing.conll": (b"foo\n" + lines(), ", line 1: foo has no label"),
    "label_with_blank.conll": (lines(labels=changed(lambda label: label.replace("PER", "PES SOA"))),
        ", line 7: 3 columns where most lines have 2: Gilmar | B-PES | SOA; words with blanks need tabs"),
    "lower_case.conll": (lines(labels=changed(str.lower)), f", line 2: Ministério has label b-org; {TYPES}"),
    "underscore.conll": (lines(labels=changed(lambda label: label.replace("-", "_"))),
        f", line 2: Ministério has label B_ORG; {TYPES}"),
    "no_prefix.conll": (lines(labels=changed(lambda label: label[2:])), f", line 2: Ministério has label ORG; {TYPES}"),
    "integers.jsonl": (json_lines(records(values=INTEGERS)), ": labels are numbers, 0 to 4; give their names"),
    "two_kinds.jsonl": (json_lines([row | {"tags": IOB2[0]} for row in records(labels="labels")]),
        ", line 1: labels may be 'tags' or 'labels'; choose with --label_column"),
    "words_on_rows.csv": (b"Sentence #,Word,POS,Tag\n1,Ana,NN,B-per\n", ": no column tokens or words with lists;"),
    "latin1.conll": (lines().decode().encode("latin-1"), ": not UTF-8 at byte 10: it seems to be Latin-1"),
    "broken.parquet": (table()[:-9], ": not a readable .parquet table"),
    "archive.conll.gz": (lines(), ": cannot be unpacked as .gz"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_forms_that_are_read(tmp_path: Path, name: str) -> None:
    content, columns = READ[name]
    (tmp_path / name).write_bytes(content)
    assert read_sentence_file(tmp_path / name, columns, need_labels=True).sentences == SENTENCES


@pytest.mark.parametrize("name", REFUSED)
def test_forms_that_are_refused(tmp_path: Path, name: str) -> None:
    content, problem = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_sentence_file(tmp_path / name, PLAIN, need_labels=True)
    assert caught.value.problems[0].startswith(f"{tmp_path / name}{problem}")

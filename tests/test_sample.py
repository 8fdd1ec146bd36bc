"""The committed sample: that it is what its script writes, and what its README promises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "examples" / "sample"
TYPES = {"ORGANIZACAO", "PESSOA", "TEMPO", "LOCAL", "LEGISLACAO", "JURISPRUDENCIA"}
TRAIN, DEV = "squad-train-v1.1.json", "squad-dev-v1.1.json"


def paragraphs(name: str) -> list[dict[str, Any]]:
    articles = json.loads((SAMPLE / name).read_text(encoding="utf-8"))["data"]
    return [paragraph for article in articles for paragraph in article["paragraphs"]]


def contexts(name: str) -> set[str]:
    return {paragraph["context"].strip() for paragraph in paragraphs(name)}


def sentences(name: str) -> list[list[tuple[str, str]]]:
    blocks = (SAMPLE / name).read_text(encoding="utf-8").removesuffix("\n\n").split("\n\n")
    pairs = [[line.split(" ") for line in block.split("\n")] for block in blocks]
    return [[(word, label) for word, label in block] for block in pairs]


def entities(name: str, wanted: str) -> set[str]:
    """Texts of all entities of one type."""
    found = []
    for sentence in sentences(name):
        for word, label in sentence:
            if label == f"B-{wanted}":
                found.append(word)
            elif label == f"I-{wanted}":
                found[-1] += f" {word}"
    return set(found)


def test_the_script_writes_the_committed_bytes(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, ROOT / "examples" / "make_sample.py", tmp_path], check=True, stdout=subprocess.DEVNULL
    )
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_bytes() for path in SAMPLE.iterdir() if path.name != "README.md"}
    assert written == committed
    assert sum(map(len, committed.values())) < 1_500_000


@pytest.mark.parametrize(
    ("name", "questions", "escaped", "padded", "shifted", "lost"), [(TRAIN, 2000, 8, 6, 8, 2), (DEV, 200, 2, 1, 2, 0)]
)
def test_defects_are_as_many_as_promised(
    name: str, questions: int, escaped: int, padded: int, shifted: int, lost: int
) -> None:
    raw = paragraphs(name)
    asked = [(paragraph["context"], qa) for paragraph in raw for qa in paragraph["qas"]]
    assert len({qa["id"] for _, qa in asked}) == questions
    assert len(asked) == questions + 1  # one is there twice
    assert sum("&quot;" in context or "&amp;" in context for context in (one["context"] for one in raw)) == escaped
    assert sum(one["context"] != one["context"].strip() for one in raw) == padded
    assert sum(qa["question"] != qa["question"].strip() for _, qa in asked) == padded

    answers = [(context, answer) for context, qa in asked for answer in qa["answers"]]
    assert len(answers) == len(asked)
    wrong = [(context, answer) for context, answer in answers if not aligned(context, answer)]
    assert sum(answer["text"] not in context for context, answer in wrong) == lost
    assert sum(answer["text"] in context for context, answer in wrong) == shifted


def aligned(context: str, answer: dict[str, Any]) -> bool:
    start, text = answer["answer_start"], answer["text"]
    return bool(text) and context[start : start + len(text)] == text


def test_train_and_dev_share_no_context_and_no_full_name() -> None:
    train, dev = contexts(TRAIN), contexts(DEV)
    demo = {
        json.loads(line)["context"] for line in (SAMPLE / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    }
    texts = (SAMPLE / "texts.txt").read_text(encoding="utf-8")
    assert not train & dev
    assert not demo & (train | dev)
    assert not (dev | demo) & set(texts.splitlines())

    people = entities("lener_dev.conll", "PESSOA")
    assert len(people) > 50
    assert not people & entities("lener_train.conll", "PESSOA")
    everything = texts + "\n".join(train)
    # "Raquel Antunes" may stand in "Raquel Antunes Lobo", who is somebody else.
    assert [name for name in people if re.search(rf"{name}(?! [A-Z])", everything)] == []


@pytest.mark.parametrize(("name", "size"), [("lener_train.conll", 800), ("lener_dev.conll", 100)])
def test_entity_files_are_iob2_with_six_types(name: str, size: int) -> None:
    found = set()
    for sentence in sentences(name):
        previous = "O"
        for word, label in sentence:
            assert word
            prefix, _, kind = label.partition("-")
            assert label == "O" or prefix in ("B", "I")
            if prefix == "I":
                assert previous in (f"B-{kind}", f"I-{kind}"), sentence
            if label != "O":
                found.add(kind)
            previous = label
    assert found == TYPES
    assert len(sentences(name)) == size


def test_plain_text_and_questions_are_complete() -> None:
    lines = (SAMPLE / "texts.txt").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(set(lines)) == 3000
    assert all(line == line.strip() != "" for line in lines)
    for name, size in (("questions.jsonl", 8), ("covid.jsonl", 9)):
        records = [json.loads(line) for line in (SAMPLE / name).read_text(encoding="utf-8").splitlines()]
        assert len({record["id"] for record in records}) == size
        assert all(set(record) == {"id", "question", "context"} for record in records)
    context, asked = (SAMPLE / f"covid_{name}.txt" for name in ("context", "questions"))
    assert {record["context"] for record in records} == {context.read_text(encoding="utf-8").removesuffix("\n")}
    assert [record["question"] for record in records] == asked.read_text(encoding="utf-8").splitlines()

"""The sample data: examples/sample contains what its README says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.conll_files import read_sentences

import prepare_squad_pt
from adapter_qa.data.questions import is_aligned
from adapter_qa.data.readers.squad import read_squad

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "examples" / "sample"
TYPES = {"ORGANIZACAO", "PESSOA", "TEMPO", "LOCAL", "LEGISLACAO", "JURISPRUDENCIA"}
TRAIN, DEV = "squad-train-v1.1.json", "squad-dev-v1.1.json"


def paragraphs(name: str) -> list[dict[str, Any]]:
    articles = json.loads((SAMPLE / name).read_text(encoding="utf-8"))["data"]
    return [paragraph for article in articles for paragraph in article["paragraphs"]]


def contexts(name: str) -> set[str]:
    return {paragraph["context"].strip() for paragraph in paragraphs(name)}


def entities(name: str, entity_type: str) -> set[str]:
    """Return the texts of all entities of one type."""
    texts = []
    for sentence in read_sentences(SAMPLE / name, need_labels=True):
        for word, label in zip(sentence.words, sentence.labels, strict=True):
            if label == f"B-{entity_type}":
                texts.append(word)
            elif label == f"I-{entity_type}":
                texts[-1] += f" {word}"
    return set(texts)


def test_the_readme_lists_all_files_and_their_size() -> None:
    readme = (SAMPLE / "README.md").read_text(encoding="utf-8")
    files = [path for path in SAMPLE.iterdir() if path.name != "README.md"]
    assert set(re.findall(r"`([\w.-]+\.(?:jsonl?|conll|txt))`", readme)) == {path.name for path in files}
    assert sum(path.stat().st_size for path in files) == pytest.approx(1.3e6, abs=5e4)


@pytest.mark.parametrize(
    ("name", "questions", "escaped", "padded", "shifted", "lost"), [(TRAIN, 2000, 8, 6, 8, 2), (DEV, 200, 2, 1, 2, 0)]
)
def test_defects_are_those_of_the_readme(
    name: str, questions: int, escaped: int, padded: int, shifted: int, lost: int
) -> None:
    raw = paragraphs(name)
    qas = [(paragraph["context"], qa) for paragraph in raw for qa in paragraph["qas"]]
    assert len({qa["id"] for _, qa in qas}) == questions
    assert len(qas) == questions + 1  # one question occurs twice
    assert sum("&quot;" in paragraph["context"] or "&amp;" in paragraph["context"] for paragraph in raw) == escaped
    assert sum(paragraph["context"] != paragraph["context"].strip() for paragraph in raw) == padded
    assert sum(qa["question"] != qa["question"].strip() for _, qa in qas) == padded

    answers = [(context, answer) for context, qa in qas for answer in qa["answers"]]
    assert len(answers) == len(qas)
    wrong = [(context, answer) for context, answer in answers if not aligned(context, answer)]
    assert sum(answer["text"] not in context for context, answer in wrong) == lost
    assert sum(answer["text"] in context for context, answer in wrong) == shifted


@pytest.mark.parametrize(("name", "questions", "shifted", "lost"), [(TRAIN, 2000, 8, 2), (DEV, 200, 2, 0)])
def test_preparation_removes_the_defects(tmp_path: Path, name: str, questions: int, shifted: int, lost: int) -> None:
    prepare_squad_pt.main([str(SAMPLE / name), "--output_dir", str(tmp_path)])
    stem = Path(name).stem
    counts = json.loads((tmp_path / f"pt_{stem}_counts.json").read_text(encoding="utf-8"))
    assert (counts["read"], counts["kept"], counts["duplicates"]) == (questions + 1, questions - lost, 1)
    assert (counts["answers"]["moved"], counts["answers"]["not found"]) == (shifted, lost)
    prepared = read_squad(tmp_path / f"pt_{stem}.json", need_answers=True)
    assert all(is_aligned(question) for question in prepared)
    assert not any("&quot;" in question.context or "&amp;" in question.context for question in prepared)


def aligned(context: str, answer: dict[str, Any]) -> bool:
    start, text = answer["answer_start"], answer["text"]
    return bool(text) and context[start : start + len(text)] == text


def test_evaluation_contexts_and_names_do_not_occur_in_training_data() -> None:
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
    training_text = texts + "\n".join(train)
    # "Raquel Antunes" may occur in "Raquel Antunes Lobo", another person.
    assert [name for name in people if re.search(rf"{name}(?! [A-Z])", training_text)] == []


@pytest.mark.parametrize(("name", "size"), [("lener_train.conll", 800), ("lener_dev.conll", 100)])
def test_entity_files_have_six_types(name: str, size: int) -> None:
    sentences = read_sentences(SAMPLE / name, need_labels=True)
    assert len(sentences) == size
    assert {label[2:] for sentence in sentences for label in sentence.labels} - {""} == TYPES


def test_plain_text_and_questions_are_complete() -> None:
    lines = (SAMPLE / "texts.txt").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(set(lines)) == 3000
    assert all(line == line.strip() != "" for line in lines)
    for name, size in (("questions.jsonl", 8), ("covid.jsonl", 9)):
        records = [json.loads(line) for line in (SAMPLE / name).read_text(encoding="utf-8").splitlines()]
        assert len({record["id"] for record in records}) == size
        assert all(set(record) == {"id", "question", "context"} for record in records)
    context, questions = (SAMPLE / f"covid_{name}.txt" for name in ("context", "questions"))
    assert {record["context"] for record in records} == {context.read_text(encoding="utf-8").removesuffix("\n")}
    assert [record["question"] for record in records] == questions.read_text(encoding="utf-8").splitlines()

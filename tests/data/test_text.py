"""Reading plain text (adapter_qa/data/text.py) from all kinds of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapter_qa.core.errors import UserError
from adapter_qa.data.text import read_texts

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
        ("a.conll", "\n\n".join("\n".join(f"{word} O" for word in text.split()) for text in TEXTS)),
        ("a.conll", "\n\n".join("\n".join(text.split()) for text in TEXTS)),
    ],
)
def test_all_kinds_of_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode("utf-8"))
    assert read_texts(tmp_path / name) == read_texts(str(tmp_path / name)) == TEXTS


def test_a_repeated_line_of_text_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Fim.\nAna.\nFim.\n")
    assert read_texts(tmp_path / "a.txt") == ["Fim.", "Ana.", "Fim."]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.pdf", b"x", "{}: extension '.pdf'; allowed: .txt, .json, .jsonl, .csv, .conll"),
        ("text", b"x", "{}: extension ''; allowed: .txt, .json, .jsonl, .csv, .conll"),
        ("a.txt", b"\n \n", "{}: the file is empty"),
        ("a.txt", b"S\xe3o Lu\xeds", "{}: not UTF-8 at byte 1: save the file as UTF-8"),
        ("a.txt", None, "{}: cannot be read: No such file or directory"),
        ("a.json", b"{", "{}"),
        ("a.conll", b"Ana PER\n", "{}, line 1: Ana has label PER; allowed: O, B-TYPE, I-TYPE"),
    ],
)
def test_unreadable_files_are_refused(tmp_path: Path, name: str, content: bytes | None, problem: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_texts(path)
    (message,) = caught.value.problems
    assert message.startswith(problem.format(path))
    assert "\n" not in message


def test_contexts_of_faquad_are_unique(shared_data: Path) -> None:
    document = json.loads((shared_data / "faquad_train.json").read_text(encoding="utf-8"))
    contexts = {paragraph["context"] for article in document["data"] for paragraph in article["paragraphs"]}
    texts = read_texts(shared_data / "faquad_train.json")
    assert len(texts) == len(contexts) > 10
    assert set(texts) == contexts

"""Made-up Portuguese questions, the SQuAD files that hold them, and the corpus that trains tokenizers for them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np

from adapter_qa.data.questions import Question
from adapter_qa.data.windows import Windows

PEOPLE = ["Ana", "Bruno", "Carla", "Davi", "Elisa", "Fábio", "Glória", "Heitor", "Inês", "João"]
PLACES = ["Recife", "Manaus", "Belém", "Natal", "Curitiba", "Goiânia", "Maceió", "Olinda", "São Luís", "Vitória"]
JOBS = ["médica", "pintor", "juíza", "músico", "atriz", "poeta", "química", "padeiro", "engenheira", "piloto"]


def make_questions(count: int, seed: int = 0, sentences: int = 3) -> list[Question]:
    """Return questions over made-up contexts of a few sentences; ids are q0, q1, ..."""
    draw = random.Random(seed)
    questions = []
    for number in range(count):
        people = draw.sample(PEOPLE, sentences)
        facts = [(person, draw.choice(PLACES), draw.choice(JOBS)) for person in people]
        context = " ".join(f"{person} nasceu em {place} e é {job}." for person, place, job in facts)
        person, place, _ = draw.choice(facts)
        start = context.index(f"{person} nasceu em {place}") + len(f"{person} nasceu em ")
        questions.append(Question(f"q{number}", f"Onde nasceu {person}?", context, (place,), (start,)))
    return questions


def corpus() -> list[str]:
    """Return contexts and questions that contain every word of `make_questions`."""
    return [text for question in make_questions(200, seed=99) for text in (question.context, question.question)]


def write_squad(path: Path, questions: list[Question]) -> Path:
    """Write a flat SQuAD file and return its path."""
    records = [
        {
            "id": question.id,
            "title": question.title,
            "context": question.context,
            "question": question.question,
            "answers": {"text": list(question.answer_texts), "answer_start": list(question.answer_starts)},
        }
        for question in questions
    ]
    path.write_text(json.dumps({"data": records}, ensure_ascii=False), encoding="utf-8")
    return path


def window_offsets(windows: Windows, index: int) -> np.ndarray:
    """Return (tokens, 2) int: each token's start and end character in the context, -1 outside it."""
    inside = windows[index].context_mask
    offsets = np.full((len(inside), 2), -1)
    tokens = np.flatnonzero(inside)
    offsets[tokens] = windows.char_spans(np.full(len(tokens), index), tokens)
    return offsets

"""Answers that cannot be trained or found as they are: what is ignored, counted, said and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.questions import write_squad
from support.scripts import run_main
from support.tokenizer_families import unchecked, word_level
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

import run_qa_adapter
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.questions import Question
from adapter_qa.data.windows import make_windows

WORDS = [f"a{number}" for number in range(60)]
CONTEXT = f"{' '.join(WORDS)} \u200b."
# A word is a token. A window has [CLS], the question's word, [SEP], 12 words of the context and [SEP]; windows begin at
# every eighth word.
WINDOW, STRIDE, STEP, FIRST = 16, 4, 8, 3
# First and last word of each answer, and the windows that contain it.
ANSWERS = {
    "in one window": (0, 1, [0]),
    "over the end of a window": (10, 12, [1]),
    "in two windows": (8, 11, [0, 1]),
    "of eight words": (20, 27, [2]),
    "in no window": (14, 25, []),
    "longer than a window": (0, 30, []),
}


def make_question(name: str, *texts: str) -> Question:
    return Question(name, "Onde", CONTEXT, texts, tuple(CONTEXT.index(text) for text in texts))


QUESTIONS = [
    *(make_question(name, " ".join(WORDS[first : last + 1])) for name, (first, last, _) in ANSWERS.items()),
    make_question("without tokens", "\u200b"),
    make_question("a second answer is short", " ".join(WORDS[40:48]), "a40"),
    make_question("unanswerable"),
]


def test_windows_without_their_answer_are_ignored_only_if_no_window_contains_it() -> None:
    tokenizer = unchecked(word_level(BertNormalizer(lowercase=False), Whitespace()))
    windows = make_windows(QUESTIONS, tokenizer, max_seq_length=WINDOW, doc_stride=STRIDE)
    labels: dict[str, list[tuple[int, int]]] = {question.id: [] for question in QUESTIONS}
    for index, start, end in zip(windows.question_index, windows.start_position, windows.end_position, strict=True):
        labels[QUESTIONS[index].id].append((int(start), int(end)))
    count = len(labels["unanswerable"])
    assert labels["unanswerable"] == [(0, 0)] * count
    assert labels["without tokens"] == [(IGNORE_INDEX, IGNORE_INDEX)] * count
    for name, (first, last, containing) in ANSWERS.items():
        expected = [(0, 0) if containing else (IGNORE_INDEX, IGNORE_INDEX)] * count
        for window in containing:
            expected[window] = (first - window * STEP + FIRST, last - window * STEP + FIRST)
        assert labels[name] == expected
    assert (windows.answers_without_tokens, windows.answers_in_no_window) == (1, 2)
    assert windows.answer_tokens.tolist() == [2, 3, 4, 8, 12, 31, 0, 1, 0]


@pytest.fixture(scope="module")
def base(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT with a tokenizer of words."""
    folder = tmp_path_factory.mktemp("words")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_bert / name, folder)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    backend = word_level(BertNormalizer(lowercase=False), Whitespace())
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    return folder


def test_lost_answers_are_counted_and_said(base: Path, tmp_path: Path) -> None:
    path = write_squad(tmp_path / "q.json", QUESTIONS)
    process = run_main(
        run_qa_adapter.main,
        *("--model_name_or_path", base, "--do_train", "--do_eval", "--train_file", path, "--validation_file", path),
        *("--max_seq_length", WINDOW, "--doc_stride", STRIDE, "--max_answer_length", 7, "--max_steps", 1),
        *("--version_2_with_negative", True, "--report_to", "none", "--output_dir", tmp_path / "run"),
    )
    assert process.returncode == 0, process.stderr[-2000:]
    data = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["data"]
    counts = {"cut_questions": 0, "answer_without_tokens": 1, "answer_in_no_window": 2, "answer_too_long": 3}
    for split, lost in (("train", "they do not train"), ("eval", "it is not found")):
        assert {key: data[split][key] for key in counts} == counts
        notes = [line for line in process.stderr.splitlines() if line.startswith(f"note: {split}: ")]
        assert notes == [
            f"note: {split}: 1 questions have an answer of which the tokenizer keeps no character; {lost}",
            f"note: {split}: 2 questions have an answer that no window contains as a whole; {lost}; raise "
            "--max_seq_length or --doc_stride",
            f"note: {split}: 3 questions have only answers of more than 7 tokens, which are never found; raise "
            "--max_answer_length (to 31 for all)",
        ]


def test_training_without_any_whole_answer_is_refused(base: Path, tmp_path: Path) -> None:
    path = write_squad(tmp_path / "q.json", [item for item in QUESTIONS if item.id == "in no window"])
    process = run_main(
        run_qa_adapter.main,
        *("--model_name_or_path", base, "--do_train", "--train_file", path, "--dry_run"),
        *("--max_seq_length", WINDOW, "--doc_stride", STRIDE, "--output_dir", tmp_path / "run"),
    )
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1] == (
        "error: train: no window contains a whole answer; raise --max_seq_length or --doc_stride"
    )

"""Answer a question with the files of an exported model.

This module needs numpy, onnxruntime and tokenizers only: it becomes the end of `answer.py` in every exported folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from adapter_qa.core.errors import UserError, raise_if_any
from adapter_qa.data.questions import Question
from adapter_qa.data.spans import WindowSpans, choose_answers, window_spans
from adapter_qa.data.windows import PairTokenizer, make_windows, pad_windows
from adapter_qa.inference.export_layout import EXPORT_FILE, GRAPH_FILE, TOKENIZER_FILE

OUTPUTS = ["start_logits", "end_logits"]
BATCH_SIZE = 16  # windows; the default of ask_qa.py


def answer_question(folder: Path, question: str, context: str) -> str:
    """Return the answer of the exported model in a folder, as `ask_qa.py` gives it; "" for no answer.

    Raises:
        UserError: question or context is empty or contains a lone surrogate.
    """
    check_texts(question, context)
    document = json.loads((folder / EXPORT_FILE).read_text(encoding="utf-8"))
    options, inputs = document["windows"], document["inputs"]
    tokenizer_file = str(folder / TOKENIZER_FILE)
    tokenizer = PairTokenizer(Tokenizer.from_file(tokenizer_file), tokenizer_file, **document["tokenizer"])
    questions = [Question("1", question, context, (), ())]
    windows = make_windows(
        questions, tokenizer, max_seq_length=options["max_seq_length"], doc_stride=options["doc_stride"]
    )
    session = onnxruntime.InferenceSession(folder / GRAPH_FILE, providers=["CPUExecutionProvider"])
    order = np.argsort(-windows.lengths(), kind="stable")  # the longest windows first: least padding
    batches = []
    for first in range(0, len(order), BATCH_SIZE):
        rows = [windows[index] for index in order[first : first + BATCH_SIZE]]
        batch = pad_windows(rows, tokenizer.pad_token_id, pad_left=tokenizer.pad_left)
        start_logits, end_logits = session.run(OUTPUTS, {name: batch[name] for name in inputs})
        batches.append(
            window_spans(
                batch,
                start_logits,
                end_logits,
                n_best_size=options["n_best_size"],
                max_answer_length=options["max_answer_length"],
            )
        )
    answers = choose_answers(
        questions,
        windows,
        WindowSpans(*(np.concatenate(field)[np.argsort(order)] for field in zip(*batches, strict=True))),
        n_best_size=options["n_best_size"],
        version_2=options["version_2"],
        null_score_diff_threshold=options["null_score_diff_threshold"],
    )
    return answers.texts()["1"]


def check_texts(question: str, context: str) -> None:
    """Raise UserError if question or context is empty or not valid text."""
    problems = []
    for name, text in (("QUESTION", question), ("CONTEXT", context)):
        if not text.strip():
            problems.append(f"{name} is empty")
        elif any("\ud800" <= character <= "\udfff" for character in text):
            problems.append(f"{name} has a lone surrogate, which is not valid text")
    raise_if_any(problems)


def main(argv: list[str]) -> int:
    """Print the answer of the model beside this file; return the exit code."""
    if len(argv) != 2:
        print("usage: python answer.py QUESTION CONTEXT", file=sys.stderr)
        return UserError.exit_code
    try:
        answer = answer_question(Path(__file__).resolve().parent, *argv)
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return error.exit_code
    print(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

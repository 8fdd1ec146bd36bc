"""Answer a question with the files of an exported model.

This module needs numpy, onnxruntime and tokenizers only: it becomes the end of `answer.py` in every exported folder.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from adapter_qa.core.errors import ReportedError, RunError, UserError, error_line, raise_if_any
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.answers import Answers, PlainAnswer
from adapter_qa.data.pair_tokenizer import PairTokenizer
from adapter_qa.data.questions import Question
from adapter_qa.data.spans import check_logits, choose_answers, join_spans, window_spans
from adapter_qa.data.windows import OnProgress, make_windows, pad_windows
from adapter_qa.inference.answer_text import candidate_lines, one_line, print_json, print_text
from adapter_qa.inference.ask_settings import BATCH_SIZE, with_n_best
from adapter_qa.inference.export_layout import EXPORT_FILE, GRAPH_FILE, TOKENIZER_FILE

OUTPUTS = ["start_logits", "end_logits"]


@dataclass(frozen=True)
class ExportedModel:
    """An exported model.

    Attributes:
        session: the graph.
        inputs: names of its inputs.
        tokenizer: with the options that it was exported with.
        options: those of the run.
    """

    session: onnxruntime.InferenceSession
    inputs: list[str]
    tokenizer: PairTokenizer
    options: AnsweringOptions

    @classmethod
    def load(cls, folder: str | Path) -> ExportedModel:
        """Load the model in a folder.

        Raises:
            UserError: a file is missing or damaged, or the tokenizer reports wrong characters.
        """
        folder = Path(folder)
        path = folder / EXPORT_FILE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            options, inputs = AnsweringOptions(**document["windows"]), list(document["inputs"])
            path = folder / TOKENIZER_FILE
            tokenizer = PairTokenizer(Tokenizer.from_file(str(path)), str(path), **document["tokenizer"])
            path = folder / GRAPH_FILE
            session = open_session(path)
        except Exception as error:  # tokenizers and onnxruntime raise that class itself
            raise UserError(f"{path}: cannot be read ({error_line(error)}); export the run again") from error
        return cls(session, inputs, tokenizer.checked(), options)

    def answer(self, question: str, context: str, n_best: int | None = None) -> PlainAnswer:
        """Answer a question as `ask_qa.py` does, with its `n_best` candidates; None: with as many as the run keeps.

        Raises:
            UserError: question or context is empty or contains a lone surrogate.
            RunError: the logits are NaN or infinite.
        """
        check_texts(question, context)
        return self.answer_all([Question("1", question, context, (), ())], n_best).plain(n_best)[0]

    def answer_all(
        self, questions: Sequence[Question], n_best: int | None = None, on_progress: OnProgress | None = None
    ) -> Answers:
        """Answer questions with distinct ids as `answer` does; `on_progress` gets the windows done, and all of them."""
        return self.answer_with(questions, with_n_best(self.options, n_best), BATCH_SIZE, on_progress)

    def answer_with(
        self,
        questions: Sequence[Question],
        options: AnsweringOptions,
        batch_size: int,
        on_progress: OnProgress | None = None,
    ) -> Answers:
        """Answer questions with distinct ids with options of their own; `batch_size` windows per forward pass."""
        windows = make_windows(
            questions, self.tokenizer, max_seq_length=options.max_seq_length, doc_stride=options.doc_stride
        )
        if windows.cut_questions:
            one = "the question was too long for the window and lost its end"
            several = f"{windows.cut_questions} questions were too long for the window and lost their end"
            print(f"note: {one if len(questions) == 1 else several}", file=sys.stderr)
        order = np.argsort(-windows.lengths(), kind="stable")  # the longest windows first: least padding
        batches = []
        for first in range(0, len(order), batch_size):
            rows = [windows[index] for index in order[first : first + batch_size]]
            batch = pad_windows(rows, self.tokenizer.pad_token_id, pad_left=self.tokenizer.pad_left)
            start_logits, end_logits = self.session.run(OUTPUTS, {name: batch[name] for name in self.inputs})
            batches.append(window_spans(batch, start_logits, end_logits, options))
            if on_progress is not None:
                on_progress(first + len(rows), len(order))
        spans = join_spans(batches, np.argsort(order))
        check_logits(spans)
        return choose_answers(questions, windows, spans, options)


def open_session(path: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU; None takes the library's default number of threads."""
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    # onnxruntime 1.32 joins a residual and its norm to one operator, which takes 14 ms for 6,144 tokens of width 384 on
    # one thread, where the two take 2.5 ms.
    return onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"], disabled_optimizers=["SkipLayerNormFusion"]
    )


def check_texts(question: str, context: str) -> None:
    """Raise UserError if question or context is empty or not valid text."""
    problems = []
    for name, text in (("QUESTION", question), ("CONTEXT", context)):
        if not text.strip():
            problems.append(f"{name} is empty")
        elif any("\ud800" <= character <= "\udfff" for character in text):
            problems.append(f"{name} has a lone surrogate, which is not valid text")
    raise_if_any(problems)


class AnswerParser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `UserError`, where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        """Raise the error."""
        raise UserError(f"{message}; see {self.prog} --help")


def print_answer(argv: list[str]) -> None:
    """Answer the question of a command line with the model beside this file.

    Raises:
        UserError: an option, a text or a file of the model is wrong.
    """
    parser = AnswerParser(
        prog="answer.py", description="Answer a question; an empty line means no answer.", allow_abbrev=False
    )
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument("context", metavar="CONTEXT")
    parser.add_argument("--n_best", metavar="N", type=int, help="candidates to list (default: the answer only)")
    parser.add_argument("--json", action="store_true", help="print a line of JSON with answer, score, start and end")
    options = parser.parse_args(argv)
    if options.n_best is not None and options.n_best < 1:
        raise UserError(f"--n_best {options.n_best}: must be at least 1")
    check_texts(options.question, options.context)
    model = ExportedModel.load(Path(__file__).resolve().parent)
    document = model.answer(options.question, options.context, options.n_best or 1).document(options.n_best)
    if options.json:
        print_json(document)
        return
    print_text(one_line(document["answer"]))
    for line in candidate_lines(document):
        print_text(line)


def main(argv: list[str]) -> int:
    """Answer a question; return the exit code: 2 for wrong input, as ask_qa.py does."""
    try:
        print_answer(argv)
        sys.stdout.flush()
        return 0
    except ReportedError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # of the output; `load` reports others
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it exits
        if isinstance(error, BrokenPipeError):  # its reader closed it
            return 128 + signal.SIGPIPE
        print(f"error: standard output: {error.strerror}; write it to another place", file=sys.stderr)
        return RunError.exit_code
    except KeyboardInterrupt:
        print("stopped: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

#!/usr/bin/env python
"""Asks questions of what run_qa_adapter.py trained, or of a whole model fine-tuned elsewhere.

RUN is the folder of a run, of adapters or of full fine-tuning, or its adapters-<task> folder. Contexts may have any
length. In place of a file, - stands for standard input. A GPU is used if there is one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapter_qa.core.cli import CollectingArgumentParser, run_cli
from adapter_qa.core.errors import RunError, UserError, escape_control_chars
from adapter_qa.inference.requests import STDIN, make_requests, read_requests, write_json_lines

if TYPE_CHECKING:
    from predictor_qa import QuestionAnswerer

PORT = 7860
SHOWN_ON_PAGE = 5  # candidates
DEVICE = re.compile(r"cpu|cuda(:[0-9]{1,3})?")
EXAMPLES = """\
examples:
  ask_qa.py outputs/fusion --question "Onde fica o Pantanal?" --context "O Pantanal fica no Centro-Oeste do Brasil."
  ask_qa.py outputs/fusion --question_file questions.txt --context_file text.txt --n_best 3
  ask_qa.py outputs/fusion --input pairs.jsonl --output answers.jsonl
  cat pairs.jsonl | ask_qa.py outputs/fusion --input - --json | jq .answer
  ask_qa.py --base pierreguillou/bert-base-cased-squad-v1.1-portuguese --input pairs.jsonl
  ask_qa.py outputs/fusion outputs/qa --serve
"""


def main(argv: list[str]) -> int:
    """Table of contents; returns the exit code."""
    options = read_options(argv)
    if options.serve:
        return serve(options)
    if options.input is not None:
        records = read_requests(options.input)
    else:
        questions = options.question_file or options.question
        records = make_requests(questions, context=options.context, context_file=options.context_file)
    answers = answer_records(records, options)
    if options.output is not None:
        write_json_lines(answers, Path(options.output))
    else:
        show(answers, as_json=options.json)
    return 0


# ---------------------------------------------------------------- options


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line.

    Raises:
        UserError: combinations that cannot be, all of them.
    """
    parser = CollectingArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_model_options(parser)
    add_question_options(parser)
    options = parser.parse_intermixed_args(argv)
    problems = model_problems(options) + (page_problems(options) if options.serve else question_problems(options))
    if problems:
        raise UserError(problems)
    return options


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """What answers, and how."""
    parser.add_argument("runs", metavar="RUN", nargs="*", help="run folder, its adapters-<task> folder, or one of 2021")
    group = parser.add_argument_group("what answers")
    group.add_argument(
        "--base", metavar="MODEL", help="in place of RUN: folder or hub id of a whole model fine-tuned on questions"
    )
    group.add_argument(
        "--model_name_or_path",
        metavar="MODEL",
        help="the run's base model, where it has moved since the run or is not recorded",
    )
    group.add_argument(
        "--load_lang_adapter", metavar="RUN", help="language adapter to put under the task; none leaves it out"
    )
    group.add_argument(
        "--version_2_with_negative",
        action="store_true",
        help="let it answer that there is no answer; a run trained on SQuAD v2 does so anyway",
    )
    group.add_argument(
        "--null_score_diff_threshold",
        metavar="X",
        type=float,
        help="logits that no answer must be ahead of the best span to be the answer (default: as the run was trained)",
    )
    group.add_argument("--device", metavar="NAME", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    group.add_argument("--batch_size", metavar="N", type=int, default=16, help="windows at once (default: 16)")
    page = parser.add_argument_group("a page to ask on")
    page.add_argument(
        "--serve",
        action="store_true",
        help="a page on this machine only, with highlighted answers and fusion attention; several RUNs side by side",
    )
    page.add_argument(
        "--port", metavar="N", type=int, help=f"of the page on 127.0.0.1; 0 takes a free one (default: {PORT})"
    )


def add_question_options(parser: argparse.ArgumentParser) -> None:
    """What is asked, and where the answers go."""
    group = parser.add_argument_group("questions")
    group.add_argument("--question", metavar="TEXT", action="append", help="a question; may be given several times")
    group.add_argument("--question_file", metavar="FILE", help="text file of questions, one a line")
    group.add_argument("--context", metavar="TEXT", help="the text that holds the answers")
    group.add_argument("--context_file", metavar="FILE", help="text file of it")
    group.add_argument(
        "--input",
        metavar="FILE",
        help='many: a .jsonl file of {"id", "question", "context"} a line (- reads such lines); or .json, .csv',
    )
    group = parser.add_argument_group("answers")
    group.add_argument(
        "--n_best",
        metavar="N",
        type=int,
        help="candidates to list, with their probabilities (default: 1, the answer alone)",
    )
    group.add_argument("--json", action="store_true", help="print JSON, one object an answer, instead of text")
    group.add_argument(
        "--output", metavar="FILE", help="file for the same lines with answer, score, start, end; without it stdout"
    )
    group.add_argument("--overwrite", action="store_true", help="replace an existing --output")


def model_problems(options: argparse.Namespace) -> list[str]:
    """What is wrong with the options that say what answers."""
    problems = []
    models = [*options.runs, *([options.base] if options.base is not None else [])]
    twice = sorted({name for name in models if models.count(name) > 1})
    if not models:
        problems.append("give RUN, the folder of a run, or --base with a whole model")
    elif len(models) > 1 and not options.serve:
        problems.append(f"one model answers here, given are {', '.join(models)}; several answer on the page of --serve")
    elif twice:
        problems.append(f"{', '.join(twice)}: given twice")
    for name in ("model_name_or_path", "load_lang_adapter"):
        if vars(options)[name] is not None and models and not options.runs:
            problems.append(f"--{name} goes with RUN; --base is a whole model")
    if options.batch_size < 1:
        problems.append(f"--batch_size {options.batch_size}: must be at least 1")
    if options.n_best is not None and options.n_best < 1:
        problems.append(f"--n_best {options.n_best}: must be at least 1")
    threshold = options.null_score_diff_threshold
    if threshold is not None and not math.isfinite(threshold):
        problems.append(f"--null_score_diff_threshold {threshold}: must be a finite number")
    if options.device is not None and not DEVICE.fullmatch(options.device):
        problems.append(f"--device {options.device}: give cpu, cuda or cuda:N")
    return problems


def page_problems(options: argparse.Namespace) -> list[str]:
    """What does not go with --serve, and what it lacks."""
    asked = ("question", "question_file", "context", "context_file", "input", "output", "json", "overwrite")
    given = [f"--{name}" for name in asked if vars(options)[name]]
    problems = [f"--serve asks on its page; leave out {', '.join(given)}"] if given else []
    if options.port is not None and not 0 <= options.port < 2**16:
        problems.append(f"--port {options.port}: must be from 0 to {2**16 - 1}")
    if importlib.util.find_spec("gradio") is None:
        problems.append("--serve needs gradio, which is not installed: pip install \"adapter-qa[serve]\"")
    return problems


def question_problems(options: argparse.Namespace) -> list[str]:
    """What is wrong with the options that say what is asked, and where the answers go."""
    problems = []
    asked = options.question is not None or options.question_file is not None
    told = options.context is not None or options.context_file is not None
    if (options.input is None) == (not asked):
        problems.append("give either --question with --context, or --input")
    if asked != told:
        problems.append("--question and --context go together")
    for name in ("question", "context"):
        if vars(options)[name] is not None and vars(options)[f"{name}_file"] is not None:
            problems.append(f"--{name} and --{name}_file exclude each other")
    readers = ("question_file", "context", "context_file", "input")
    reading = [f"--{name}" for name in readers if vars(options)[name] == STDIN]
    if len(reading) > 1:
        problems.append(f"{' and '.join(reading)}: only one of them can read standard input ({STDIN})")
    if options.port is not None:
        problems.append("--port goes with --serve")
    if options.output is not None:
        problems += output_problems(Path(options.output), options.overwrite)
    return problems


def output_problems(output: Path, overwrite: bool) -> list[str]:
    """Why a file cannot be written, as far as can be seen beforehand."""
    problems = []
    if output.exists() and not overwrite:
        problems.append(f"--output {output}: exists; add --overwrite or give another file")
    if not output.parent.is_dir():
        problems.append(f"--output {output}: there is no folder {output.parent}; make it first")
    if output.is_dir():
        problems.append(f"--output {output}: is a folder; give a file")
    return problems


# ---------------------------------------------------------------- answers


def load_answerer(options: argparse.Namespace, *, run: str | None = None, base: str | None = None) -> QuestionAnswerer:
    """The model that answers, a run or a whole one.

    Raises:
        UserError: it cannot be had.
    """
    from predictor_qa import QuestionAnswerer  # torch: only after the input has been checked

    return QuestionAnswerer(
        run,
        base=base,
        base_model=options.model_name_or_path if run is not None else None,
        language_adapter=options.load_lang_adapter if run is not None else None,
        no_answer=options.version_2_with_negative,
        null_score_diff_threshold=options.null_score_diff_threshold,
        batch_size=options.batch_size,
        device=options.device,
    )


def answer_records(records: list[dict[str, Any]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The records with `answer`, `score` (probability), `start` and `end` (characters of the context), and what else
    `predictor_qa.Answer.document` has.

    Raises:
        UserError: the model cannot be had.
        RunFailure: memory does not suffice.
    """
    answerer = load_answerer(options, run=options.runs[0] if options.runs else None, base=options.base)
    n_best = options.n_best or 1
    with fitting(options.batch_size):
        replies = answerer.ask_many([(record["question"], record["context"]) for record in records], n_best)
    return [record | reply.document(n_best) for record, reply in zip(records, replies, strict=True)]


@contextmanager
def fitting(batch_size: int) -> Iterator[None]:
    """Within it, memory that does not suffice is told in a line.

    Raises:
        RunFailure: it is so.
    """
    from adapter_qa.core.resource_errors import first_line, is_out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            f"out of memory ({first_line(error)}); lower --batch_size (now {batch_size}) or give --device cpu"
        ) from error


def show(answers: list[dict[str, Any]], *, as_json: bool) -> None:
    """Prints answers for people, or one JSON object a line."""
    for answer in answers:
        if as_json:
            print(
                escape_control_chars(json.dumps(answer, ensure_ascii=False))
            )  # in JSON, \uXXXX is the character itself
            continue
        if len(answers) > 1:
            print(escape_control_chars(answer["question"]))
        print(
            f"{escape_control_chars(answer['answer']) or '(no answer)'}   (score {answer['score']:.3f}, at {answer['start']})"
        )
        for rank, one in enumerate(answer.get("n_best", []), start=1):
            print(
                f"{rank:>4}. {one['score']:.3f}  {escape_control_chars(one['answer']) or '(no answer)'}   (at {one['start']})"
            )


# ---------------------------------------------------------------- the page


def serve(options: argparse.Namespace) -> int:
    """Serves the page until it is stopped; returns the exit code.

    Raises:
        UserError: the port is in use, or a model cannot be had.
    """
    from adapter_qa.inference.web_demo import listen, serve_page
    from adapter_qa.inference.web_demo_html import DemoAnswer

    listener = listen(PORT if options.port is None else options.port)
    answerers = {run: load_answerer(options, run=run) for run in options.runs}
    if options.base is not None:
        answerers[options.base] = load_answerer(options, base=options.base)
    n_best = options.n_best or SHOWN_ON_PAGE

    def answer_question(name: str, question: str, context: str) -> DemoAnswer:
        with fitting(options.batch_size):
            answer = answerers[name].ask(question, context)
        return DemoAnswer(answer.document(n_best), answer.attention)

    serve_page({name: partial(answer_question, name) for name in answerers}, listener)
    return 0


def command() -> int:
    """Run the script on the command line."""
    return run_cli(main)


if __name__ == "__main__":
    sys.exit(command())

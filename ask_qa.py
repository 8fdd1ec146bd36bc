#!/usr/bin/env python
"""Ask questions of a run of run_qa_adapter.py, or of any other fully fine-tuned model.

RUN is the folder of a run, of adapters or of full fine-tuning, or its adapters-<task> folder. Contexts may have any
length. In place of a file, - stands for standard input. A GPU is used if there is one. On a terminal and without a
question, the script asks for a text and for questions.

An answer is shown with its probability, a softmax over all spans of all windows of the context, and with its place in
the context: characters count from 0, and the second number is the first character after the answer (start and end of
JSON).
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from adapter_qa.core.cli import CollectingArgumentParser, output_problems, run_cli
from adapter_qa.core.errors import raise_if_any
from adapter_qa.core.files import sha256
from adapter_qa.core.garbage_collection import no_garbage_collection
from adapter_qa.core.signals import raise_on_signal
from adapter_qa.data.readers.squad import QuestionColumns
from adapter_qa.inference.answer_files import (
    INPUT_SETTING,
    PARQUET,
    Settings,
    answer_schema,
    check_settings,
    join_schemas,
    open_answers,
    schema_of,
)
from adapter_qa.inference.answer_text import answer_line, candidate_lines
from adapter_qa.inference.answering import print_all, report_out_of_memory, write_all
from adapter_qa.inference.ask_settings import BATCH_SIZE
from adapter_qa.inference.conversation import converse
from adapter_qa.inference.light_imports import light_imports
from adapter_qa.inference.requests import STDIN, Requests, Shard, make_requests, read_context, read_requests

if TYPE_CHECKING:  # imported in functions, so that --help and wrong options take no time
    from predictor_qa import QuestionAnswerer

PORT = 7860
CANDIDATES_ON_PAGE = 5
INPUT_COLUMNS = ("id_column", "question_column", "context_column")
DEVICE = re.compile(r"cpu|cuda(:[0-9]{1,3})?")
EXAMPLES = """\
examples:
  ask_qa.py outputs/fusion
  ask_qa.py outputs/fusion --context_file text.txt
  ask_qa.py outputs/fusion --question "Onde fica o Pantanal?" \\
      --context "O Pantanal fica no Centro-Oeste do Brasil."
  ask_qa.py outputs/fusion --question_file questions.txt \\
      --context_file text.txt --n_best 3
  ask_qa.py outputs/fusion --input pairs.jsonl --output answers.jsonl
  ask_qa.py outputs/fusion --input pairs.parquet --output answers.parquet \\
      --shard 3/8
  cat pairs.jsonl | ask_qa.py outputs/fusion --input - --json | jq .answer
  ask_qa.py --base pierreguillou/bert-base-cased-squad-v1.1-portuguese \\
      --input pairs.jsonl
  ask_qa.py outputs/fusion outputs/qa --serve
"""


@dataclass(frozen=True)
class AskOptions:
    """The command line; the fields are named as its options and words."""

    runs: list[str]
    base: str | None
    model_name_or_path: str | None
    load_lang_adapter: str | None
    version_2_with_negative: bool
    null_score_diff_threshold: float | None
    max_answer_length: int | None
    max_seq_length: int | None
    doc_stride: int | None
    device: str | None
    batch_size: int
    serve: bool
    port: int | None
    question: list[str] | None
    question_file: str | None
    context: str | None
    context_file: str | None
    input: str | None
    id_column: str | None
    question_column: str | None
    context_column: str | None
    shard: str | None
    n_best: int | None
    json: bool
    output: str | None
    overwrite: bool

    @property
    def models(self) -> list[str]:
        """All models, runs first."""
        return [*self.runs, *([self.base] if self.base is not None else [])]

    @property
    def part(self) -> Shard | None:
        """The part of --input that --shard names; None for all of it."""
        return Shard.parse(self.shard) if self.shard is not None else None

    def part_of(self, requests: Requests) -> Requests:
        """Return the requests that are answered."""
        return requests if self.part is None else self.part.of(requests)

    @property
    def output_file(self) -> Path | None:
        """The file that --output and --shard name."""
        path = Path(self.output) if self.output is not None else None
        return self.part.path(path) if path is not None and path.name and self.part is not None else path

    @property
    def answer_path(self) -> Path | None:
        """The file that is written: of a link the one behind it, so that the link stays."""
        path = self.output_file
        return path.resolve() if path is not None and path.is_symlink() else path


def main(argv: list[str]) -> int:
    """Run the script and return its exit code."""
    options = read_options(argv)
    if options.serve:
        serve(options)
    elif is_conversation(options):
        hold_conversation(options)
    else:
        answer_questions(options)
    return 0


# ---------------------------------------------------------------- options


def read_options(argv: list[str]) -> AskOptions:
    """Read the command line.

    Raises:
        UserError: if options are invalid or contradict each other.
    """
    parser = CollectingArgumentParser(description=__doc__, epilog=EXAMPLES, allow_abbrev=False)
    add_model_options(parser)
    add_question_options(parser)
    options = AskOptions(**vars(parser.parse_intermixed_args(argv)))
    problems = model_problems(options)
    if options.serve:
        problems += page_problems(options)
    else:
        problems += question_problems(options) + shard_problems(options) + answer_file_problems(options)
    raise_if_any(problems)
    return options


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the model and of the web page."""
    parser.add_argument("runs", metavar="RUN", nargs="*", help="folder of a run or of its adapters, also from 2021")
    group = parser.add_argument_group("what answers")
    group.add_argument(
        "--base", metavar="MODEL", help="in place of RUN: folder or hub id of a model fully fine-tuned on questions"
    )
    group.add_argument(
        "--model_name_or_path",
        metavar="MODEL",
        help="the run's base model, if it has moved since the run or is not recorded",
    )
    group.add_argument(
        "--load_lang_adapter",
        metavar="RUN",
        help="language adapter to put under the task, in place of the run's if it has one; none leaves that out",
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
        help="there is no answer if its score exceeds that of the best span by more (default: as the run was trained)",
    )
    group.add_argument(
        "--max_answer_length",
        metavar="N",
        type=int,
        help="tokens of the longest answer (this and the next two: default as the run was trained)",
    )
    group.add_argument("--max_seq_length", metavar="N", type=int, help="tokens of a window, question included")
    group.add_argument("--doc_stride", metavar="N", type=int, help="tokens that neighbouring windows share")
    group.add_argument("--device", metavar="NAME", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    group.add_argument(
        "--batch_size", metavar="N", type=int, default=BATCH_SIZE, help="windows at once (default: %(default)s)"
    )
    group = parser.add_argument_group("web page")
    group.add_argument(
        "--serve",
        action="store_true",
        help="a page on this machine only, with highlighted answers and fusion attention; several RUNs side by side",
    )
    group.add_argument(
        "--port", metavar="N", type=int, help=f"port of the page on 127.0.0.1; 0 takes a free one (default: {PORT})"
    )


def add_question_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of questions and answers."""
    group = parser.add_argument_group("questions")
    group.add_argument("--question", metavar="TEXT", action="append", help="a question; may be given several times")
    group.add_argument("--question_file", metavar="FILE", help="text file with one question per line")
    group.add_argument("--context", metavar="TEXT", help="the text that contains the answers")
    group.add_argument("--context_file", metavar="FILE", help="text file with the context")
    group.add_argument(
        "--input",
        metavar="FILE",
        help='many: a .jsonl file with {"question", "context"} and perhaps "id" per line (- reads such lines); or '
        ".json, .csv, .tsv, .parquet, .arrow, also compressed; records without ids are numbered from 1",
    )
    for name in INPUT_COLUMNS:
        group.add_argument(
            f"--{name}", metavar="NAME", help=f"column, or key, of --input (default: {name.removesuffix('_column')})"
        )
    group.add_argument(
        "--shard",
        metavar="I/N",
        help="answer the I-th of N parts of --input only; with --output answers.jsonl, part 3/8 is written to "
        "answers-3-of-8.jsonl",
    )
    group = parser.add_argument_group("answers")
    group.add_argument(
        "--n_best", metavar="N", type=int, help="candidates to list with their probabilities (default: the answer only)"
    )
    group.add_argument("--json", action="store_true", help="print JSON, one object per answer, instead of text")
    group.add_argument(
        "--output",
        metavar="FILE",
        help="file for the same lines with answer, score, start, end (default: stdout), or for a table if it ends in "
        ".parquet; a stopped run goes on where it was",
    )
    group.add_argument("--overwrite", action="store_true", help="replace an existing --output")


def model_problems(options: AskOptions) -> list[str]:
    """Return what is wrong with the options of the model."""
    problems = []
    models = options.models
    repeated = sorted({name for name in models if models.count(name) > 1})
    if not models:
        problems.append("give RUN, the folder of a run, or --base with a fully fine-tuned model")
    elif len(models) > 1 and not options.serve:
        problems.append(f"{', '.join(models)}: only one model can answer here; give one, or add --serve")
    elif repeated:
        problems.append(f"{', '.join(repeated)}: given several times; give each model once")
    if options.base is not None and not options.runs:
        for name in ("model_name_or_path", "load_lang_adapter"):
            if getattr(options, name) is not None:
                problems.append(f"--{name} goes with RUN, not with --base; leave it out")
    least = {"batch_size": 1, "n_best": 1, "max_answer_length": 1, "max_seq_length": 1, "doc_stride": 0}
    for name, minimum in least.items():
        value = getattr(options, name)
        if value is not None and value < minimum:
            problems.append(f"--{name} {value}: must be at least {minimum}")
    threshold = options.null_score_diff_threshold
    if threshold is not None and not math.isfinite(threshold):
        problems.append(f"--null_score_diff_threshold {threshold}: must be a finite number")
    if options.device is not None and not DEVICE.fullmatch(options.device):
        problems.append(f"--device {options.device}: give cpu, cuda or cuda:N")
    return problems


def page_problems(options: AskOptions) -> list[str]:
    """Return what is wrong with the options of the web page."""
    names = ("question", "question_file", "context", "context_file", "input", "output", "json", "overwrite", "shard")
    unused = [f"--{name}" for name in (*names, *INPUT_COLUMNS) if getattr(options, name)]
    problems = [f"--serve: the page asks for questions; leave out {', '.join(unused)}"] if unused else []
    if options.port is not None and not 0 <= options.port < 2**16:
        problems.append(f"--port {options.port}: must be from 0 to {2**16 - 1}")
    if importlib.util.find_spec("gradio") is None:
        problems.append('--serve needs gradio, which is not installed: pip install "adapter-qa[serve]"')
    return problems


def is_conversation(options: AskOptions) -> bool:
    """Return whether questions are typed: no option gives them, or asks for another output than this terminal."""
    others = ("question", "question_file", "input", "json", "output", "serve")
    return (
        not any(getattr(options, name) for name in others)
        and STDIN not in (options.context, options.context_file)
        and sys.stdin.isatty()
        and sys.stdout.isatty()
    )


def question_problems(options: AskOptions) -> list[str]:
    """Return what is wrong with the options of questions and answers."""
    problems = []
    is_typed = is_conversation(options)
    has_question = options.question is not None or options.question_file is not None
    has_context = options.context is not None or options.context_file is not None
    if (options.input is None) == (not has_question) and not is_typed:
        problems.append("give either --question with --context, or --input")
    if has_question != has_context and not is_typed:
        problems.append("--question and --context go together; give both")
    for name in ("question", "context"):
        if getattr(options, name) is not None and getattr(options, f"{name}_file") is not None:
            problems.append(f"--{name} and --{name}_file exclude each other; give one of them")
    names = ("question_file", "context", "context_file", "input")
    readers = [f"--{name}" for name in names if getattr(options, name) == STDIN]
    if len(readers) > 1:
        problems.append(f"{' and '.join(readers)}: only one of them can read standard input ({STDIN})")
    if options.input is None:
        columns = [f"--{name}" for name in INPUT_COLUMNS if getattr(options, name) is not None]
        problems += [f"{', '.join(columns)}: names columns of --input, which is not given"] if columns else []
    if options.port is not None:
        problems.append("--port goes with --serve; leave it out")
    return problems


def shard_problems(options: AskOptions) -> list[str]:
    """Return what is wrong with --shard."""
    if options.shard is None:
        return []
    problems = []
    if options.input in (None, STDIN):
        problems.append("--shard takes a part of --input, which must be a file; leave it out")
    if options.part is None:
        problems.append(
            f"--shard {options.shard}: give I/N with I from 1 to N, such as 3/8 for the third of eight parts"
        )
    return problems


def answer_file_problems(options: AskOptions) -> list[str]:
    """Return what is wrong with --output and --overwrite."""
    path = options.output_file
    if options.output == STDIN:
        return [f"--output {STDIN}: is no file; leave it out, answers go to stdout without it (--json for lines)"]
    if path is None:
        return ["--overwrite: replaces --output, which is not given; leave it out"] if options.overwrite else []
    sources = [
        f"--{name}"
        for name in ("question_file", "context_file", "input")
        if (source := getattr(options, name)) not in (None, STDIN)
        and os.path.exists(source)
        and os.path.exists(path)
        and os.path.samefile(source, path)
    ]
    if sources:
        return [f"--output {path}: is the file of {' and '.join(sources)}; give another file"]
    return output_problems("--output", path, overwrite=options.overwrite)


# ---------------------------------------------------------------- answers


def read_records(options: AskOptions) -> Requests:
    """Read the questions and contexts of the command line, of files or of standard input."""
    if options.input is not None:
        given = {name: getattr(options, name) for name in INPUT_COLUMNS if getattr(options, name) is not None}
        return read_requests(options.input, QuestionColumns.of_options(given), need_ids=options.id_column is not None)
    questions = options.question_file or options.question or []
    return make_requests(questions, context=options.context, context_file=options.context_file)


def load_answerer(options: AskOptions, model: str) -> QuestionAnswerer:
    """Load one of `options.models`."""
    is_run = model in options.runs
    with no_garbage_collection():
        from predictor_qa import Overrides, QuestionAnswerer, import_libraries

        with light_imports():
            import_libraries()
        return QuestionAnswerer(
            model if is_run else None,
            base=None if is_run else model,
            overrides=Overrides(
                base_model=options.model_name_or_path if is_run else None,
                language_adapter=options.load_lang_adapter if is_run else None,
                no_answer=options.version_2_with_negative,
                null_score_diff_threshold=options.null_score_diff_threshold,
                max_seq_length=options.max_seq_length,
                doc_stride=options.doc_stride,
                max_answer_length=options.max_answer_length,
            ),
            batch_size=options.batch_size,
            device=options.device,
        )


def answer_questions(options: AskOptions) -> None:
    """Answer all questions of the options, print the answers or write them to --output, and print a count of them."""
    requests = read_records(options)
    output = options.answer_path
    if output is not None:
        write_answers(options, requests, output)
        return
    answerer = load_answerer(options, options.models[0])
    ask = report_out_of_memory(options.batch_size)(answerer.ask_many)
    tally = print_all(ask, options.part_of(requests), options.n_best, as_json=options.json)
    print(tally.text(), file=sys.stderr)


def write_answers(options: AskOptions, requests: Requests, output: Path) -> None:
    """Answer all questions of the options into a file, after those that an interrupted run has answered.

    Only a file of questions can be read again, so no other run resumes.
    """
    resumes = requests.file is not None
    settings = input_settings(options, requests.file)
    if not options.overwrite:
        check_settings(output, settings)
    is_known = output.suffix.lower() == PARQUET and requests.count is not None
    schema = schema_of(requests.read(), options.input or "the questions") if is_known else None
    answerer = load_answerer(options, options.models[0])
    settings |= answerer.fingerprint()
    if not options.overwrite:
        check_settings(output, settings)
    if schema is not None:
        answer_columns = answer_schema(version_2=answerer.options.version_2, n_best=options.n_best)
        schema = join_schemas(schema, answer_columns)
    ask = report_out_of_memory(options.batch_size)(answerer.ask_many)
    opened = open_answers(output, settings, resumes=resumes, overwrite=options.overwrite, schema=schema)
    with raise_on_signal(resumes=resumes), opened as file:
        tally = write_all(ask, options.part_of(requests), options.n_best, file)
    print(f"{tally.text()}, written to {output}", file=sys.stderr)


def input_settings(options: AskOptions, file: Path | None) -> Settings:
    """Return what the answers depend on, as far as it is known before the model is loaded."""
    columns = {f"--{name}": getattr(options, name) for name in INPUT_COLUMNS}
    content = sha256(file) if file is not None else None
    return {INPUT_SETTING: content, **columns, "--n_best": options.n_best, "--shard": options.shard}


def hold_conversation(options: AskOptions) -> None:
    """Answer questions that are typed on the terminal."""
    context = None
    if options.context is not None or options.context_file is not None:
        context = read_context(options.context, options.context_file)
    print(f"loading {options.models[0]} ...", file=sys.stderr)
    answerer = load_answerer(options, options.models[0])

    @report_out_of_memory(options.batch_size)
    def ask(question: str, context: str) -> list[str]:
        document = answerer.ask(question, context, options.n_best or 1).document(options.n_best)
        return [answer_line(document), *candidate_lines(document)]

    converse(ask, context)


# ---------------------------------------------------------------- web page


def serve(options: AskOptions) -> None:
    """Serve the page until it is stopped.

    Raises:
        UserError: if the port is in use, or a model cannot be loaded.
    """
    from adapter_qa.inference.web_demo import listen, serve_page
    from adapter_qa.inference.web_demo_html import DemoAnswer

    n_best = options.n_best or CANDIDATES_ON_PAGE

    @report_out_of_memory(options.batch_size)
    def answer_question(answerer: QuestionAnswerer, question: str, context: str) -> DemoAnswer:
        answer = answerer.ask(question, context, n_best)
        return DemoAnswer(answer.document(n_best), answer.attention)

    listener = listen(PORT if options.port is None else options.port)
    serve_page({name: partial(answer_question, load_answerer(options, name)) for name in options.models}, listener)


def command() -> int:
    """Run the script on the command line."""
    return run_cli(main)


if __name__ == "__main__":
    sys.exit(command())

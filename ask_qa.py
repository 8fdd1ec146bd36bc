#!/usr/bin/env python
"""Asks questions of what run_qa_adapter.py trained.

RUN is the folder of a run, or its adapters-<task> folder. Contexts may have any length.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapter_qa.errors import LineParser, UserError, inert, run_door
from adapter_qa.squad import Question, Record, is_text, read_question_file, to_questions

EXAMPLES = """\
examples:
  ask_qa.py outputs/fusion --question "Onde fica o Pantanal?" --context "O Pantanal fica no Centro-Oeste do Brasil."
  ask_qa.py outputs/fusion --input pairs.jsonl --output answers.jsonl
"""


def main(argv: list[str]) -> int:
    """Table of contents; returns the exit code."""
    options = read_options(argv)
    records = [single_record(options)] if options.input is None else read_pairs(Path(options.input))
    answers = answer_records(records, options)
    if options.output is not None:
        write_lines(answers, Path(options.output))
    else:
        show(answers, as_json=options.json)
    return 0


def show(answers: list[dict[str, Any]], *, as_json: bool) -> None:
    """Prints answers for people, or one JSON object a line."""
    for answer in answers:
        if as_json:
            print(inert(json.dumps(answer, ensure_ascii=False)))  # in JSON, \uXXXX is the character itself
            continue
        if len(answers) > 1:
            print(inert(answer["question"]))
        print(f"{inert(answer['answer']) or '(no answer)'}   (score {answer['score']:.3f}, at {answer['start']})")


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line.

    Raises:
        UserError: a combination that cannot be.
    """
    parser = LineParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run", metavar="RUN", help="run folder, its adapters-<task> folder, or one of 2021")
    parser.add_argument("--question", help="one question")
    parser.add_argument("--context", help="the text that holds its answer")
    parser.add_argument("--json", action="store_true", help="print JSON, one object an answer, instead of text")
    parser.add_argument("--input", help='many: a .jsonl file of {"id", "question", "context"} a line; or .json, .csv')
    parser.add_argument("--output", help="file for the same lines with answer, score, start, end; without it stdout")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --output")
    parser.add_argument(
        "--model_name_or_path", help="the base model, where it has moved since the run or is not recorded"
    )
    parser.add_argument("--load_lang_adapter", help="language adapter to put under the task; none leaves it out")
    parser.add_argument("--batch_size", type=int, default=16, help="windows at once (default: 16)")
    options = parser.parse_args(argv)
    problems = []
    if (options.input is None) == (options.question is None):
        problems.append("give either --question with --context, or --input")
    if (options.question is None) != (options.context is None):
        problems.append("--question and --context go together")
    if options.output is not None and Path(options.output).exists() and not options.overwrite:
        problems.append(f"--output {options.output}: exists; add --overwrite or give another file")
    if options.output is not None and not Path(options.output).parent.is_dir():
        problems.append(f"--output {options.output}: there is no folder {Path(options.output).parent}; make it first")
    if options.output is not None and Path(options.output).is_dir():
        problems.append(f"--output {options.output}: is a folder; give a file")
    if options.batch_size < 1:
        problems.append(f"--batch_size {options.batch_size}: must be at least 1")
    if problems:
        raise UserError(problems)
    return options


def single_record(options: argparse.Namespace) -> dict[str, Any]:
    """The question of the command line as a record.

    Raises:
        UserError: question or context is empty, or no text.
    """
    record = {"id": "1", "question": options.question, "context": options.context}
    problems = [f"--{name} is empty" for name in ("question", "context") if not record[name].strip()]
    problems += [f"--{name} is no UTF-8" for name in ("question", "context") if not is_text(record[name])]
    if problems:
        raise UserError(problems)
    return record


def read_pairs(path: Path) -> list[dict[str, Any]]:
    """Records of a question file, with all that is in them; answers are not looked at.

    Raises:
        UserError: the file cannot be read, records lack what is needed, or what is in them cannot be written again.
    """
    records = read_question_file(path)
    to_questions([only_asked(record) for record in records], str(path), need_answers=False)
    problems = []
    for record in records:
        try:
            json.dumps(record.fields, ensure_ascii=False, allow_nan=False).encode("utf-8")
        except (ValueError, RecursionError) as error:
            problems.append(f"{path}: {record.where}: cannot be written again as JSON ({error})")
    if problems:
        raise UserError(problems[:10])
    return [record.fields for record in records]


def only_asked(record: Record) -> Record:
    """A record with nothing in it but what is asked."""
    if record.problem or not isinstance(record.fields, dict):
        return record
    asked = {key: record.fields[key] for key in ("id", "question", "context") if key in record.fields}
    return replace(record, fields=asked)


def answer_records(records: list[dict[str, Any]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The records with `answer`, `score` (probability), `start` and `end` (characters of the context)."""
    from answerer_qa import QuestionAnswerer  # torch: only after the input has been checked

    questions = [Question(str(record["id"]), record["question"], record["context"], (), ()) for record in records]
    answerer = QuestionAnswerer(
        options.run,
        base_model=options.model_name_or_path,
        language_adapter=options.load_lang_adapter,
        batch_size=options.batch_size,
    )
    answers = answerer.answer(questions)
    results = []
    for record in records:
        chosen = answers.chosen[str(record["id"])]
        found = {"answer": chosen.text, "score": chosen.probability, "start": chosen.start, "end": chosen.end}
        results.append(record | found)
    return results


def write_lines(records: list[dict[str, Any]], path: Path) -> None:
    """Writes JSON lines aside and renames them.

    Raises:
        UserError: the folder cannot be written.
    """
    aside = path.with_name(path.name + ".writing")
    try:
        with aside.open("w", encoding="utf-8") as stream:
            for record in records:
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
        os.replace(aside, path)
    except OSError as error:
        raise UserError(f"--output {path}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    sys.exit(run_door(main))

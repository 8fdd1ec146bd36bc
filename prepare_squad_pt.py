#!/usr/bin/env python
"""Turn a published SQuAD file, or the SQuAD-pt archive, into clean flat files for training and evaluation.

HTML entities are replaced, wrong start indices of answers are corrected, and answers without one are searched for.
Questions whose answers cannot be aligned are written to a separate file, with the reason.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from adapter_qa.core.cli import CollectingArgumentParser, run_cli
from adapter_qa.core.errors import UserError, escape_control_chars, write_error
from adapter_qa.core.files import write_all
from adapter_qa.data.alignment import normalize
from adapter_qa.data.readers.compression import unpacked_name
from adapter_qa.data.readers.record_files import RECORD_SUFFIXES
from adapter_qa.data.readers.records import Record
from adapter_qa.data.readers.squad import QuestionColumns, other_columns, read_question_file, read_question_json
from adapter_qa.data.readers.squad_archive import ARCHIVE_MEMBERS, ARCHIVE_SUFFIXES, read_archive
from adapter_qa.data.squad_preparation import flat_record, prepare_questions

USAGE = """\
files that are written for an input named squad-train.json:
  pt_squad-train.json          the questions, to train and evaluate with
  pt_squad-train_rejects.json  what could not be aligned, with the reason
  pt_squad-train_counts.json   the counts that are also printed

examples:
  prepare_squad_pt.py squad-pt.tar.gz --output_dir data
  prepare_squad_pt.py squad_v2_pt.json --split eval --overwrite
"""

COLUMNS = {
    "id": "ids",
    "question": "questions",
    "context": "contexts",
    "answer": "answers",
    "answer_start": "their starts in characters",
    "title": "titles",
}
EVAL_WORDS = (
    *("dev", "devel", "development", "val", "valid", "validation", "validacao", "eval", "evaluation", "avaliacao"),
    *("test", "teste"),
)
EVAL_NAME = re.compile(rf"(?<![a-z])({'|'.join(EVAL_WORDS)})(set|v)?(?![a-z])")  # also devset, testv2


def main(argv: list[str]) -> int:
    """Run the script and return its exit code."""
    args = parse_arguments(argv)
    columns = QuestionColumns.of_options(vars(args))
    files = read_input(args.input, columns)
    outputs = {name: output_paths(name, args.output_dir or Path()) for name in files}
    if not args.overwrite:
        existing = [str(path) for paths in outputs.values() for path in paths if path.exists()]
        if existing:
            raise UserError(f"{', '.join(existing)}: exists; add --overwrite or give another --output_dir")

    for name, records in files.items():
        split = args.split or split_from_name(name)
        preparation = prepare_questions(records, keep_unaligned=split == "eval", columns=columns)
        counts = {"input": name, "split": split, **preparation.counts()}
        data_path, rejects_path, counts_path = outputs[name]
        outputs_of_file = {rejects_path: as_json(preparation.rejects), counts_path: as_json(counts, indent=2)}
        if preparation.questions:
            outputs_of_file[data_path] = as_json(
                {"data": [flat_record(question) for question in preparation.questions]}
            )
        write_outputs(outputs_of_file)
        print_counts(counts)
        if not preparation.questions:
            problem = f"{name}: no question can be used; the reasons are in {rejects_path}"
            raise UserError([problem, *(other_columns(records[0], name, columns, True) if records else [])])
        written = data_path if args.output_dir else data_path.absolute()
        print(f"written: {escape_control_chars(written)}")
        if preparation.rejects:
            print(f"rejected: {escape_control_chars(written.with_name(rejects_path.name))} says why")
        print()
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = CollectingArgumentParser(
        description=__doc__, epilog=USAGE, usage="%(prog)s FILE [--output_dir PATH] [options]"
    )
    parser.add_argument(
        "input",
        metavar="FILE",
        type=Path,
        help=f"SQuAD v1.1 or v2.0 questions ({', '.join(RECORD_SUFFIXES)}, also compressed), or an archive "
        f"({', '.join(ARCHIVE_SUFFIXES)}) that contains {' and '.join(ARCHIVE_MEMBERS)}",
    )
    parser.add_argument(
        "--output_dir",
        metavar="PATH",
        type=Path,
        help="folder to write to; it is made if it is missing (default: the working directory)",
    )
    parser.add_argument(
        "--split",
        choices=("train", "eval"),
        help="train: drop answers that cannot be aligned. eval: keep them with answer_start -1, because predictions "
        "are compared with their text (default: eval if the file name contains one of "
        f"the words {', '.join(EVAL_WORDS)}, otherwise train)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist, which is refused otherwise")
    for name, default in QuestionColumns._field_defaults.items():
        parser.add_argument(
            f"--{name}_column",
            metavar="NAME",
            default=default,
            help=f"column or key of {COLUMNS[name]} (default: %(default)s)",
        )
    args: argparse.Namespace = parser.parse_args(argv)
    return args


def split_from_name(name: str) -> str:
    """Return "eval" if the name of a file contains one of `EVAL_WORDS` as a whole word, else "train"."""
    return "eval" if EVAL_NAME.search(normalize(name).text) else "train"


def output_paths(name: str, output_dir: Path) -> tuple[Path, Path, Path]:
    """Return the paths of data, rejects and counts; all are JSON files, whatever the format of the input."""
    stem = f"pt_{unpacked_name(Path(name)).stem}"
    return output_dir / f"{stem}.json", output_dir / f"{stem}_rejects.json", output_dir / f"{stem}_counts.json"


def read_input(path: Path, columns: QuestionColumns) -> dict[str, list[Record]]:
    """Read the records of a question file or of all files of an archive, by file name."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give one of its files")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return {name: read_question_json(name, content, columns) for name, content in read_archive(path).items()}
    return {path.name: read_question_file(path, columns)}


def as_json(document: object, indent: int | None = None) -> bytes:
    """Return the content of a JSON file."""
    # default=str: a rejected row of a table may hold dates.
    text = json.dumps(document, ensure_ascii=False, indent=indent, default=str) + "\n"
    # A rejected record may contain lone surrogates; "backslashreplace" writes them as JSON does.
    return text.encode("utf-8", "backslashreplace")


def write_outputs(contents: dict[Path, bytes]) -> None:
    """Create the folder and write all files of an input, or none.

    Raises:
        RunError: if the disk is full.
        UserError: if a file cannot be written for another reason.
    """
    folder = next(iter(contents)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_all(contents)
    except OSError as error:
        raise write_error(f"{folder}: cannot be written: {error.strerror}", error) from error


def print_counts(counts: dict[str, Any]) -> None:
    """Print the counts as a table of two columns, nested counts indented."""
    rows: list[tuple[str, object]] = []
    for name, value in counts.items():
        if isinstance(value, dict):
            rows += [(name, sum(value.values())), *((f"  {part}", number) for part, number in value.items())]
        else:
            rows.append((name, value))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        shown = f"{value:,}" if isinstance(value, int) else value
        print(f"{name.replace('_', ' '):<{width}}  {escape_control_chars(shown):>12}")


def command() -> int:
    """Run the script on the command line."""
    return run_cli(main)


if __name__ == "__main__":
    sys.exit(command())

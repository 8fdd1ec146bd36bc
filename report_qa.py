#!/usr/bin/env python
"""Compares runs by their run.json: a table, or a report with plots.

RUN is the folder of a run, or a folder that holds runs at any depth. Runs that differ in their seed only are one row,
with mean and standard deviation (n - 1). Runs that failed, were stopped, killed or pruned come last, each by itself.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from adapter_qa.errors import LineParser, UserError, note, run_door
from adapter_qa.results import Group, find_runs, group_runs
from adapter_qa.tables import as_csv, as_json, as_markdown, as_terminal

FORMATS = {"csv": as_csv, "markdown": as_markdown, "json": as_json}
STDOUT = "-"
EXAMPLES = """\
examples:
  report_qa.py --table outputs
  report_qa.py --table outputs/qa_* --csv table.csv --markdown table.md
  report_qa.py --table outputs --json - | jq '.[0].f1_mean'
"""


def main(argv: list[str]) -> int:
    """Table of contents; returns the exit code."""
    options = read_options(argv)
    runs, unread = find_runs([Path(one) for one in options.runs])
    groups, twins = group_runs(runs)
    note([*unread, *twins])
    write_tables(groups, options)
    return 0


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line.

    Raises:
        UserError: a combination that cannot be, or a file that cannot be written.
    """
    parser = LineParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a run, or one that holds runs")
    parser.add_argument("--table", action="store_true", help="print a table, as wide as the terminal")
    for name in FORMATS:
        parser.add_argument(
            f"--{name}", metavar="FILE", help=f"write the whole table as {name}; {STDOUT} prints it instead"
        )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    options = parser.parse_args(argv)
    problems = []
    files = {name: vars(options)[name] for name in FORMATS if vars(options)[name] is not None}
    if list(files.values()).count(STDOUT) > 1:
        problems.append(f"{STDOUT} (print) can be given to one of --{', --'.join(FORMATS)}")
    for name, file in files.items():
        if file != STDOUT:
            problems += file_problems(f"--{name}", Path(file), options.overwrite)
    if problems:
        raise UserError(problems)
    return options


def file_problems(name: str, path: Path, overwrite: bool) -> list[str]:
    """Why a file that an option names cannot be written, if so."""
    if path.is_dir():
        return [f"{name} {path}: is a folder; give a file"]
    if not path.parent.is_dir():
        return [f"{name} {path}: there is no folder {path.parent}; make it first"]
    if path.exists() and not overwrite:
        return [f"{name} {path}: exists; add --overwrite or give another file"]
    return []


def write_tables(groups: list[Group], options: argparse.Namespace) -> None:
    """Writes the files asked for; prints the one asked for, else the table for people.

    Raises:
        UserError: a file cannot be written.
    """
    wanted = {name: vars(options)[name] for name in FORMATS if vars(options)[name] is not None}
    for name, file in wanted.items():
        text = FORMATS[name](groups)
        if file == STDOUT:
            sys.stdout.write(text)
        else:
            write_text(f"--{name}", Path(file), text)
    if STDOUT not in wanted.values():
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        table, left_out = as_terminal(groups, width)
        sys.stdout.write(table)
        if left_out:
            note([f"no room for {', '.join(left_out)}; a wider terminal, --csv and --markdown have all columns"])


def write_text(name: str, path: Path, text: str) -> None:
    """Writes a file aside and renames it.

    Raises:
        UserError: it cannot be written.
    """
    aside = path.with_name(path.name + ".writing")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise UserError(f"{name} {path}: cannot be written ({error.strerror}); give another file") from error


if __name__ == "__main__":
    sys.exit(run_door(main))

#!/usr/bin/env python
"""Compares runs by their run.json: a table, and a report of one HTML page with its pictures as PNG files beside it.

RUN is the folder of a run, or a folder that holds runs at any depth. Runs that differ in their seed only are one row,
with mean and standard deviation (n - 1). Runs that failed, were stopped, killed or pruned come last, each by itself.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from adapter_qa.core.cli import CollectingArgumentParser, run_cli
from adapter_qa.core.errors import UserError, escape_control_chars
from adapter_qa.core.messages import log_note
from adapter_qa.reporting.report_files import existing_files, write_whole
from adapter_qa.reporting.runs import Group, find_runs, group_runs
from adapter_qa.reporting.tables import as_csv, as_json, as_markdown, as_terminal

FORMATS = {"csv": as_csv, "markdown": as_markdown, "json": as_json}
STDOUT = "-"
DEFAULT_FOLDER = "report"
EXAMPLES = """\
examples:
  report_qa.py outputs --output_dir report
  report_qa.py --table outputs
  report_qa.py --table outputs/qa_* --csv table.csv --markdown table.md
  report_qa.py --table outputs --json - | jq '.[0].f1_mean'
"""


def main(argv: list[str]) -> int:
    """Table of contents; returns the exit code."""
    options = read_options(argv)
    runs, unread = find_runs([Path(one) for one in options.runs])
    groups, twins = group_runs(runs)
    notes = [*unread, *twins]
    log_note(notes)
    write_tables(groups, options)
    if not options.table:
        from adapter_qa.reporting.html_report import write_report  # matplotlib: only after the runs were read

        page = write_report(groups, notes, Path(options.output_dir))
        print(f"report: {escape_control_chars(page)}", file=sys.stderr if prints_a_file(options) else sys.stdout)
    return 0


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line.

    Raises:
        UserError: a combination that cannot be, a file that cannot be written, or a package that is missing.
    """
    parser = CollectingArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a run, or one that holds runs")
    parser.add_argument("--table", action="store_true", help="the table only, no report")
    parser.add_argument("--output_dir", help=f"folder of the report (default: {DEFAULT_FOLDER})")
    for name in FORMATS:
        parser.add_argument(
            f"--{name}", metavar="FILE", help=f"write the whole table as {name}; {STDOUT} prints it instead"
        )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files, and an earlier report")
    options = parser.parse_args(argv)
    problems = table_problems(options)
    if options.table and options.output_dir is not None:
        problems.append("--output_dir is the report's folder, and --table writes no report; leave one of them out")
    options.output_dir = options.output_dir or DEFAULT_FOLDER
    if not options.table:
        problems += report_problems(Path(options.output_dir), options.overwrite)
    if problems:
        raise UserError(problems)
    return options


def prints_a_file(options: argparse.Namespace) -> bool:
    """Whether stdout belongs to a format that other programs read."""
    return STDOUT in (options.csv, options.markdown, options.json)


def table_problems(options: argparse.Namespace) -> list[str]:
    """Why the files of the table cannot be written, if so."""
    files = {name: vars(options)[name] for name in FORMATS if vars(options)[name] is not None}
    problems = []
    if list(files.values()).count(STDOUT) > 1:
        problems.append(f"{STDOUT} (print) can be given to one of --{', --'.join(FORMATS)}")
    for name, file in files.items():
        path = Path(file)
        if file == STDOUT:
            continue
        if path.is_dir():
            problems.append(f"--{name} {path}: is a folder; give a file")
        elif not path.parent.is_dir():
            problems.append(f"--{name} {path}: there is no folder {path.parent}; make it first")
        elif path.exists() and not options.overwrite:
            problems.append(f"--{name} {path}: exists; add --overwrite or give another file")
    return problems


def report_problems(folder: Path, overwrite: bool) -> list[str]:
    """Why the report cannot be written, if so."""
    missing = [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        return [f"{', '.join(missing)}: not installed; pip install -r requirements-report.txt, or add --table"]
    standing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not standing.is_dir():
        return [f"--output_dir {folder}: {standing} is a file; give another folder"]
    if not os.access(standing, os.W_OK | os.X_OK):
        return [f"--output_dir {folder}: {standing} may not be written to; give another folder"]
    earlier = existing_files(folder)
    if earlier and not overwrite:
        return [f"--output_dir {folder}: holds {earlier[0].name}; add --overwrite or give another folder"]
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
            continue
        try:
            write_whole(Path(file), text.encode("utf-8"))
        except OSError as error:
            raise UserError(f"--{name} {file}: cannot be written ({error.strerror}); give another file") from error
    if not prints_a_file(options):
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        table, left_out = as_terminal(groups, width)
        sys.stdout.write(table)
        if left_out:
            log_note([f"no room for {', '.join(left_out)}; a wider terminal, --csv and --markdown have all columns"])


if __name__ == "__main__":
    sys.exit(run_cli(main))

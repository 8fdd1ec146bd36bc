#!/usr/bin/env python
"""Compare runs by their run.json: a table, and a report of one HTML page with its pictures as PNG files beside it.

RUN is the folder of a run, or a folder that holds runs at any depth. Runs that differ in their seeds only are one row,
with mean and standard deviation (n - 1). Runs that failed, were stopped, killed or pruned come last, one row each.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from adapter_qa.core.cli import CollectingArgumentParser, output_problems, run_cli
from adapter_qa.core.errors import UserError, escape_control_chars, raise_if_any, write_error
from adapter_qa.core.files import find_obstacle, write_text
from adapter_qa.core.messages import log_note
from adapter_qa.reporting.layout import existing_files

if TYPE_CHECKING:
    from adapter_qa.config.run_configs import SplitName
    from adapter_qa.reporting.groups import Group

FORMATS = ("csv", "markdown", "json")
STDOUT = "-"
NAMED_COLUMNS = 4  # that a note names
DEFAULT_FOLDER = "report"
PACKAGES = ("matplotlib", "jinja2")  # of the report; the table needs neither
EXAMPLES = """\
examples:
  report_qa.py outputs --output_dir report
  report_qa.py --table outputs
  report_qa.py --table outputs/qa_* --csv table.csv --markdown table.md
  report_qa.py --split predict outputs      # by the scores on --test_file
  report_qa.py --table outputs --json - | jq '.[0].f1_mean'
"""


@dataclass(frozen=True)
class ReportOptions:
    """The command line.

    Attributes:
        runs: Where to look for runs.
        report_folder: Where to write the report; None with --table.
        files: File of each requested format of the table; `STDOUT` prints it.
        split: Whose scores are compared; see `reporting.runs.Run`.
    """

    runs: list[Path]
    report_folder: Path | None
    files: dict[str, str]
    split: SplitName


def main(argv: list[str]) -> int:
    """Run the script and return its exit code."""
    options = read_options(argv)
    from adapter_qa.reporting.differences import compare_to_best  # --help does not wait for it
    from adapter_qa.reporting.groups import group_runs
    from adapter_qa.reporting.runs import find_runs

    runs, unreadable = find_runs(options.runs, options.split)
    if options.split == "predict" and all("eval" not in run.document.data for run in runs):
        raise UserError("--split predict: no run has scores on --test_file; give runs with --do_predict and that file")
    groups, repeated = group_runs(runs)
    notes = [*unreadable, *repeated]
    log_note(notes)
    groups, answers = compare_to_best(groups)
    write_tables(groups, options.files)
    if options.report_folder is not None:
        from adapter_qa.reporting.html_report import write_report  # imports matplotlib

        page = write_report(groups, answers, notes, options.report_folder)
        print(
            f"report: {escape_control_chars(page)}", file=sys.stderr if STDOUT in options.files.values() else sys.stdout
        )
    return 0


def read_options(argv: list[str]) -> ReportOptions:
    """Read the command line.

    Raises:
        UserError: if options contradict each other, a file cannot be written, or a package is missing.
    """
    parser = CollectingArgumentParser(description=__doc__, epilog=EXAMPLES, allow_abbrev=False)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="folder of a run, or one that holds runs")
    parser.add_argument(
        "--split", choices=("eval", "predict"), default="eval",
        help="which scores: eval, of --validation_file; predict, of --test_file, with which nothing was chosen "
        "(default: eval)",
    )  # fmt: skip
    parser.add_argument("--table", action="store_true", help="the table only, without a report")
    parser.add_argument(
        "--output_dir", metavar="FOLDER", type=Path, help=f"folder of the report (default: {DEFAULT_FOLDER})"
    )
    for name in FORMATS:
        parser.add_argument(
            f"--{name}", metavar="FILE", help=f"write the whole table as {name}; {STDOUT} prints it instead"
        )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files, and an earlier report")
    args = parser.parse_args(argv)
    files = {name: file for name in FORMATS if (file := getattr(args, name)) is not None}
    folder = None if args.table else args.output_dir or Path(DEFAULT_FOLDER)
    problems = table_problems(files, args.overwrite)
    if folder is not None:
        problems += report_problems(folder, args.overwrite)
    elif args.output_dir is not None:
        problems.append("--table writes no report, so --output_dir would do nothing; leave one of them out")
    raise_if_any(problems)
    return ReportOptions(args.runs, folder, files, args.split)


def table_problems(files: dict[str, str], overwrite: bool) -> list[str]:
    """Return why the files of the table cannot be written."""
    problems = []
    if list(files.values()).count(STDOUT) > 1:
        problems.append(f"only one of --{', --'.join(FORMATS)} can be printed ({STDOUT}); give files for the others")
    option_of: dict[Path, str] = {}
    for name, file in files.items():
        if file == STDOUT:
            continue
        problems += output_problems(f"--{name}", Path(file), overwrite=overwrite)
        first = option_of.setdefault(Path(file).resolve(), name)
        if first != name:
            problems.append(f"--{name} {file}: is the file of --{first}; give another file")
    return problems


def report_problems(folder: Path, overwrite: bool) -> list[str]:
    """Return why the report cannot be written."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        return [f'{", ".join(missing)}: not installed; pip install "adapter-qa[report]", or add --table']
    obstacle = find_obstacle(folder)
    if obstacle is not None:
        return [f"--output_dir {folder}: {obstacle}; give another folder"]
    earlier = existing_files(folder)
    if earlier and not overwrite:
        return [f"--output_dir {folder}: holds {earlier[0].name}; add --overwrite or give another folder"]
    return []


def write_tables(groups: Sequence[Group], files: dict[str, str]) -> None:
    """Write the requested files of the table, and print it in the requested format or as aligned columns.

    Raises:
        RunError: if the disk is full.
        UserError: if a file cannot be written for another reason.
    """
    from adapter_qa.reporting.tables import as_csv, as_json, as_markdown, as_terminal

    writers = {"csv": as_csv, "markdown": as_markdown, "json": as_json}
    for name, file in files.items():
        text = writers[name](groups)
        if file == STDOUT:
            sys.stdout.write(text)
            continue
        try:
            write_text(Path(file).resolve(), text)  # a link stays; its file is replaced
        except OSError as error:
            problem = f"--{name} {file}: cannot be written ({error.strerror}); give another file"
            raise write_error(problem, error) from error
    if STDOUT not in files.values():
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        table, omitted = as_terminal(groups, width)
        sys.stdout.write(table)
        if omitted:
            names = omitted if len(omitted) <= NAMED_COLUMNS else [*omitted[:NAMED_COLUMNS], "others"]
            log_note([f"no space for {', '.join(names)}; --markdown - and wider terminals show all"])


def command() -> int:
    """Run the script on the command line."""
    return run_cli(main)


if __name__ == "__main__":
    sys.exit(command())

#!/usr/bin/env python
"""Compare runs by their run.json: a table, and a report of one HTML page with its pictures as PNG files beside it.

RUN is the folder of a run, or a folder that holds runs at any depth. Runs that differ in their seed only are one row,
with mean and standard deviation (n - 1). Runs that failed, were stopped, killed or pruned come last, each by itself.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from adapter_qa.core.cli import CollectingArgumentParser, run_cli
from adapter_qa.core.errors import UserError, escape_control_chars, raise_if_any
from adapter_qa.core.files import write_text
from adapter_qa.core.messages import log_note
from adapter_qa.reporting.layout import existing_files
from adapter_qa.reporting.runs import Group, find_runs, group_runs
from adapter_qa.reporting.tables import as_csv, as_json, as_markdown, as_terminal

FORMATS = {"csv": as_csv, "markdown": as_markdown, "json": as_json}
STDOUT = "-"
DEFAULT_FOLDER = "report"
PACKAGES = ("matplotlib", "jinja2")  # of the report; the table needs neither
EXAMPLES = """\
examples:
  report_qa.py outputs --output_dir report
  report_qa.py --table outputs
  report_qa.py --table outputs/qa_* --csv table.csv --markdown table.md
  report_qa.py --table outputs --json - | jq '.[0].f1_mean'
"""


@dataclass(frozen=True)
class ReportOptions:
    """The command line.

    Attributes:
        runs: Where to look for runs.
        table_only: Whether no report is written.
        output_dir: Folder of the report; None if it was not given.
        files: File of each requested format of the table; `STDOUT` prints it.
        overwrite: Whether existing files may be replaced.
    """

    runs: list[Path]
    table_only: bool
    output_dir: Path | None
    files: dict[str, str]
    overwrite: bool

    @property
    def report_folder(self) -> Path:
        """Folder of the report."""
        return self.output_dir or Path(DEFAULT_FOLDER)

    @property
    def prints_file(self) -> bool:
        """Whether stdout is a format that other programs read."""
        return STDOUT in self.files.values()


def main(argv: list[str]) -> int:
    """Run the script and return its exit code."""
    options = read_options(argv)
    runs, unreadable = find_runs(options.runs)
    groups, repeated = group_runs(runs)
    notes = [*unreadable, *repeated]
    log_note(notes)
    write_tables(groups, options)
    if not options.table_only:
        from adapter_qa.reporting.html_report import write_report  # imports matplotlib

        page = write_report(groups, notes, options.report_folder)
        print(f"report: {escape_control_chars(page)}", file=sys.stderr if options.prints_file else sys.stdout)
    return 0


def read_options(argv: list[str]) -> ReportOptions:
    """Read the command line.

    Raises:
        UserError: if options contradict each other, a file cannot be written, or a package is missing.
    """
    parser = CollectingArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="folder of a run, or one that holds runs")
    parser.add_argument("--table", action="store_true", help="the table only, no report")
    parser.add_argument("--output_dir", type=Path, help=f"folder of the report (default: {DEFAULT_FOLDER})")
    for name in FORMATS:
        parser.add_argument(
            f"--{name}", metavar="FILE", help=f"write the whole table as {name}; {STDOUT} prints it instead"
        )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files, and an earlier report")
    given = parser.parse_args(argv)
    files = {"csv": given.csv, "markdown": given.markdown, "json": given.json}
    options = ReportOptions(
        runs=given.runs,
        table_only=given.table,
        output_dir=given.output_dir,
        files={name: file for name, file in files.items() if file is not None},
        overwrite=given.overwrite,
    )
    problems = table_problems(options)
    if not options.table_only:
        problems += report_problems(options.report_folder, options.overwrite)
    elif options.output_dir is not None:
        problems.append("--output_dir is the report's folder, and --table writes no report; leave one of them out")
    raise_if_any(problems)
    return options


def table_problems(options: ReportOptions) -> list[str]:
    """Return why the files of the table cannot be written."""
    problems = []
    if list(options.files.values()).count(STDOUT) > 1:
        problems.append(f"{STDOUT} (print) can be given to one of --{', --'.join(FORMATS)}")
    for name, file in options.files.items():
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
    """Return why the report cannot be written."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        return [f'{", ".join(missing)}: not installed; pip install "adapter-qa[report]", or add --table']
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        return [f"--output_dir {folder}: {existing} is a file; give another folder"]
    if not os.access(existing, os.W_OK | os.X_OK):
        return [f"--output_dir {folder}: {existing} may not be written to; give another folder"]
    earlier = existing_files(folder)
    if earlier and not overwrite:
        return [f"--output_dir {folder}: holds {earlier[0].name}; add --overwrite or give another folder"]
    return []


def write_tables(groups: Sequence[Group], options: ReportOptions) -> None:
    """Write the requested files of the table. Print the requested format, else the table that people read.

    Raises:
        UserError: if a file cannot be written.
    """
    for name, file in options.files.items():
        text = FORMATS[name](groups)
        if file == STDOUT:
            sys.stdout.write(text)
            continue
        try:
            write_text(Path(file), text)
        except OSError as error:
            raise UserError(f"--{name} {file}: cannot be written ({error.strerror}); give another file") from error
    if not options.prints_file:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        table, omitted = as_terminal(groups, width)
        sys.stdout.write(table)
        if omitted:
            log_note([f"no room for {', '.join(omitted)}; a wider terminal, --csv and --markdown have all columns"])


if __name__ == "__main__":
    sys.exit(run_cli(main))

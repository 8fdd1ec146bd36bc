#!/usr/bin/env python
"""Convert adapters, fusions and heads of adapter-transformers 2.x to the current format.

The current format is safetensors, and one JSON file that describes the composition. Logits stay bit-identical. OLD is a
saved folder, or a folder that holds saved folders; nothing in it is changed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from adapter_qa.config.options import ModelOptions
from adapter_qa.core.cli import CollectingArgumentParser, run_cli
from adapter_qa.core.errors import escape_control_chars, raise_if_any, write_error
from adapter_qa.core.files import atomic_folder, resolved_name
from adapter_qa.core.messages import log_note
from adapter_qa.models.base_config import read_base_config

if TYPE_CHECKING:  # torch and transformers are imported where they are needed: --help and option errors are fast
    from adapter_qa.models.legacy_2021 import LegacySave
    from adapter_qa.models.metadata import BaseModelRecord

EXAMPLES = """\
examples:
  convert_2021_adapters.py outputs_2021 outputs --dry_run
  convert_2021_adapters.py \\
      outputs_2021/adapters-fusion outputs/adapters-fusion \\
      --model_name_or_path neuralmind/bert-large-portuguese-cased
"""


def main(argv: list[str]) -> int:
    """Convert the folders that the command line names; return the exit code."""
    options = read_options(argv)
    base = ModelOptions(options.model_name_or_path) if options.model_name_or_path else None
    base_config = read_base_config(base, can_be_random=False) if base else None

    from adapter_qa.models.legacy_2021 import find_legacy_saves
    from adapter_qa.models.setup_notes import setup_notes

    saves = find_legacy_saves(Path(options.old), base_config)
    for save in saves:
        for line in describe(save):
            print(escape_control_chars(line))
        log_note(setup_notes(save.setup))
    if not options.dry_run:
        convert_all(saves, Path(options.new), base_model_record(base) if base else None)
        print(escape_control_chars(f"written: {options.new}"))
    print(escape_control_chars(json.dumps([save.summary() for save in saves], ensure_ascii=False)))
    return 0


def read_options(argv: list[str]) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UserError: if OLD is not a folder, or NEW exists already.
    """
    parser = CollectingArgumentParser(description=__doc__, epilog=EXAMPLES, allow_abbrev=False)
    parser.add_argument("old", metavar="OLD", help="a folder of adapter-transformers 2.x, or a parent of such folders")
    parser.add_argument("new", metavar="NEW", help="the folder to create, with the same subfolders")
    parser.add_argument(
        "--model_name_or_path",
        metavar="MODEL",
        help="the base model, which the adapters must fit; recorded for ask_qa.py (default: the one that they name)",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="list the folders and write nothing; the last line is JSON"
    )
    options: argparse.Namespace = parser.parse_args(argv)
    problems = []
    if not Path(options.old).is_dir():
        problems.append(f"OLD {options.old}: no such folder")
    if Path(options.new).exists() and not options.dry_run:
        problems.append(f"NEW {options.new}: exists already; give the name of a new folder")
    raise_if_any(problems)
    return options


def describe(save: LegacySave) -> list[str]:
    """Return lines about a folder: its setup, then each adapter, then the head."""
    summary = save.summary()
    lines = [f"{summary['folder']}: {summary['setup']}"]
    for name, adapter in summary["adapters"].items():
        leave_out = f", without layers {adapter['leave_out']}" if adapter["leave_out"] else ""
        properties = f"{adapter['kind']}, {adapter['non_linearity']}, reduction {adapter['reduction_factor']}"
        lines.append(f"  {name}: {properties}{leave_out}")
    return [*lines, f"  head: {summary['head'] or 'none'}"]


def base_model_record(base: ModelOptions) -> BaseModelRecord:
    """Return the base model of the command line, as converted folders record it."""
    from adapter_qa.models.identity import base_files_fingerprint
    from adapter_qa.models.metadata import BaseModelRecord

    return BaseModelRecord(resolved_name(base.model_name_or_path), "main", *base_files_fingerprint(base))


def convert_all(saves: list[LegacySave], new: Path, base: BaseModelRecord | None) -> None:
    """Convert every folder. NEW is written completely or not at all. If `base` is None, each folder's own is recorded.

    Raises:
        RunError: if the disk is full.
        UserError: if NEW cannot be written for another reason.
    """
    from adapter_qa.models.legacy_2021 import convert
    from adapter_qa.models.metadata import BaseModelRecord
    from adapter_qa.models.tasks import TASKS
    from adapter_qa.runs.model_card import write_card
    from adapter_qa.runs.run_document import UNKNOWN_RUN

    try:
        with atomic_folder(new) as temporary:
            for save in saves:
                folder = temporary / save.path
                convert(save, folder, base or BaseModelRecord(save.base_model_name(), "main"))
                if save.setup.task in TASKS:
                    write_card(folder, UNKNOWN_RUN)
    except OSError as error:
        raise write_error(f"NEW {new}: cannot be written ({error.strerror or error})", error) from error


def command() -> int:
    """Run the script on the command line."""
    return run_cli(main)


if __name__ == "__main__":
    sys.exit(command())

#!/usr/bin/env python
"""Rewrites adapters, fusions and heads saved in 2021 (adapter-transformers 2.x) in the present format: safetensors, and
one JSON that puts a setup together. Logits stay the same, bit for bit. OLD is a saved folder, or a folder that holds
some; nothing in it is changed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapter_qa.config.options import ModelOptions
from adapter_qa.core.cli import CollectingArgumentParser, run_cli
from adapter_qa.core.errors import UserError, escape_control_chars
from adapter_qa.core.messages import log_note
from adapter_qa.models.base_config import read_base_config

if TYPE_CHECKING:  # torch and transformers wait inside the functions that need them: --help and mistakes take no time
    from adapter_qa.models.legacy_2021 import OldSave

EXAMPLES = """\
examples:
  convert_2021_adapters.py outputs_2021 outputs --dry_run
  convert_2021_adapters.py outputs_2021/adapters-fusion outputs/adapters-fusion \\
      --model_name_or_path neuralmind/bert-large-portuguese-cased
"""


def main(argv: list[str]) -> int:
    """Table of contents; returns the exit code."""
    options = read_options(argv)
    base = ModelOptions(options.model_name_or_path) if options.model_name_or_path else None
    base_config = read_base_config(base) if base else None

    from adapter_qa.models.base_model import silence_library_notices
    from adapter_qa.models.legacy_2021 import find_old_saves

    silence_library_notices()
    saves = find_old_saves(Path(options.old), base_config)
    show(saves)
    if not options.dry_run:
        write_all(saves, Path(options.new), base)
        print(escape_control_chars(f"written: {options.new}"))
    print(escape_control_chars(json.dumps([save.described() for save in saves], ensure_ascii=False)))
    return 0


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line.

    Raises:
        UserError: OLD is no folder, or NEW is there already.
    """
    parser = CollectingArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("old", metavar="OLD", help="a folder saved in 2021, or one that holds such folders")
    parser.add_argument("new", metavar="NEW", help="folder to make, with the same folders in it")
    parser.add_argument(
        "--model_name_or_path",
        help="the base model; recorded for ask_qa.py, and the adapters must fit it (default: the one they name)",
    )
    parser.add_argument("--dry_run", action="store_true", help="list what is found, write nothing; last line JSON")
    options = parser.parse_args(argv)
    problems = []
    if not Path(options.old).is_dir():
        problems.append(f"OLD {options.old}: no such folder")
    if Path(options.new).exists() and not options.dry_run:
        problems.append(f"NEW {options.new}: is there already; give a folder that is not")
    if problems:
        raise UserError(problems)
    return options


def show(saves: list[OldSave]) -> None:
    """A paragraph for each folder: its setup, then each adapter and the head."""
    for save in saves:
        found: dict[str, Any] = save.described()
        print(escape_control_chars(f"{found['folder']}: {found['setup']}"))
        for name, adapter in found["adapters"].items():
            left_out = f", without layers {adapter['leave_out']}" if adapter["leave_out"] else ""
            made_of = f"{adapter['kind']}, {adapter['non_linearity']}, reduction {adapter['reduction_factor']}"
            print(f"  {name}: {made_of}{left_out}")
        print(f"  head: {escape_control_chars(found['head'] or 'none')}")
        log_note(save.plan.notes)


def write_all(saves: list[OldSave], new: Path, base: ModelOptions | None) -> None:
    """Converts every folder, aside first, so that NEW is whole or not there.

    Raises:
        UserError: NEW cannot be written.
    """
    from adapter_qa.core.files import replace_folder
    from adapter_qa.models.base_model import load_model, weights_fingerprint
    from adapter_qa.models.legacy_2021 import convert, recorded_model_name

    recorded: dict[str, Any] = {"name_or_path": None, "revision": "main", "fingerprint": None}
    if base is not None:
        local = Path(base.model_name_or_path)
        recorded["name_or_path"] = str(local.resolve()) if local.is_dir() else base.model_name_or_path
        recorded["fingerprint"] = weights_fingerprint(load_model(base, "qa"))
    aside = new.with_name(new.name + ".writing")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        for save in saves:
            named = recorded if base is not None else recorded | {"name_or_path": recorded_model_name(save)}
            convert(save, aside / save.relative, named)
        replace_folder(aside, new)
    except OSError as error:
        raise UserError(f"NEW {new}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(run_cli(main))

#!/usr/bin/env python
"""Export a run of run_qa_adapter.py as one ONNX model, to serve it without torch, transformers and adapters.

OUT gets model.onnx, the tokenizer, config.json, export.json with the options for windows, and answer.py, which answers
a question with these files. OUT is written only if the exported model has the same logits as the run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import math
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapter_qa.core.cli import CollectingArgumentParser, run_cli
from adapter_qa.core.errors import RunError, escape_control_chars, raise_if_any
from adapter_qa.core.files import atomic_folder, write_json
from adapter_qa.inference.export_layout import ANSWER_FILE, EXPORT_FILE, GRAPH_FILE

if TYPE_CHECKING:  # imported in functions, so that --help and option errors take no time
    from predictor_qa import QuestionAnswerer

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# The newest operators that torch 2.13 writes and onnxruntime 1.32 reads, and the oldest that torch writes. GELU is one
# operator from 20 on, attention from 23 on.
OPSET, OLDEST_OPSET = 25, 18
TOLERANCE = 1e-4
EXAMPLES = """\
examples:
  export_qa.py outputs/fusion outputs/fusion_onnx
  python outputs/fusion_onnx/answer.py "Onde fica o Pantanal?" \\
      "O Pantanal fica no Centro-Oeste do Brasil."
"""


def main(argv: list[str]) -> int:
    """Export a run; return the exit code."""
    options = read_options(argv)
    out = Path(options.out)

    from adapter_qa.inference.onnx_export import write_export
    from adapter_qa.runs.provenance import now, versions
    from predictor_qa import Overrides, QuestionAnswerer

    overrides = Overrides(base_model=options.model_name_or_path, language_adapter=options.load_lang_adapter)
    answerer = QuestionAnswerer(options.run, overrides=overrides, device="cpu")
    source = describe_source(answerer, options.model_name_or_path)
    print("exporting ...", file=sys.stderr, flush=True)
    try:
        with atomic_folder(out) as folder:
            export = write_export(
                folder,
                answerer.model,
                answerer.tokenizer,
                answerer.options,
                opset=options.opset,
                tolerance=options.tolerance,
            )
            package_versions = versions() | {name: importlib.metadata.version(name) for name in PACKAGES}
            document = {"source": source, **export, "versions": package_versions, "written": now()}
            write_json(folder / EXPORT_FILE, document)
    except OSError as error:
        raise RunError(f"OUT {out}: cannot be written ({error.strerror or error}); give another folder") from error
    size, difference = export["bytes"][GRAPH_FILE], export["largest_difference"]
    print(escape_control_chars(f"{out / GRAPH_FILE}: {size / 1e6:.1f} MB, logits within {difference:.1e} of the run's"))
    print(escape_control_chars(f'try it: python {shlex.quote(str(out / ANSWER_FILE))} "QUESTION" "CONTEXT"'))
    return 0


def read_options(argv: list[str]) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UserError: an option is invalid, OUT cannot be used, or a package is not installed.
    """
    parser = CollectingArgumentParser(description=__doc__, epilog=EXAMPLES, allow_abbrev=False)
    parser.add_argument(
        "run", metavar="RUN", help="run folder, its adapters-<task> folder, or one of adapter-transformers 2.x"
    )
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it contains an earlier export")
    parser.add_argument(
        "--model_name_or_path",
        metavar="MODEL",
        help="the base model, if it has moved since the run or is not recorded there",
    )
    parser.add_argument(
        "--load_lang_adapter", metavar="RUN", help="language adapter to put under the task; none leaves it out"
    )
    parser.add_argument(
        "--opset",
        metavar="N",
        type=int,
        default=OPSET,
        help=f"version of ONNX's operators, {OLDEST_OPSET} to {OPSET}; lower for older runtimes (default: {OPSET})",
    )
    parser.add_argument(
        "--tolerance",
        metavar="X",
        type=float,
        default=TOLERANCE,
        help="largest difference between logits of the exported model and of the run (default: 1e-4)",
    )
    options: argparse.Namespace = parser.parse_args(argv)
    problems = check_output(Path(options.out), overwrite=options.overwrite)
    if not OLDEST_OPSET <= options.opset <= OPSET:
        problems.append(f"--opset {options.opset}: must be from {OLDEST_OPSET} to {OPSET}")
    if not 0 < options.tolerance < math.inf:
        problems.append(f"--tolerance {options.tolerance:g}: must be a number above 0, e.g. {TOLERANCE:g}")
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        problems.append(f'{", ".join(missing)}: not installed; pip install "adapter-qa[export]"')
    raise_if_any(problems)
    return options


def check_output(out: Path, *, overwrite: bool) -> list[str]:
    """Return why the output folder cannot be used; empty if it can."""
    if out.exists() and not out.is_dir():
        return [f"OUT {out}: is a file; give a folder"]
    if out.is_dir() and any(out.iterdir()):
        if not (out / EXPORT_FILE).is_file():
            return [f"OUT {out}: is not empty and contains no export; give another folder"]
        if not overwrite:
            return [f"OUT {out}: contains an export already; add --overwrite or give another folder"]
    parent = next(path for path in out.absolute().parents if path.exists())
    if not parent.is_dir():
        return [f"OUT {out}: {parent} is a file; give another folder"]
    if not os.access(parent, os.W_OK | os.X_OK):
        return [f"OUT {out}: no permission to write in {parent}; give another folder"]
    return []


def describe_source(answerer: QuestionAnswerer, base_model: str | None) -> dict[str, Any]:
    """Return what is exported, without paths of this machine; `base_model` replaces the recorded one."""
    from adapter_qa.runs.model_card import public_name

    folder, metadata = answerer.saved.folder, answerer.saved.metadata
    base = metadata.trained_from or metadata.base_model
    name = base_model or base.name_or_path
    return {
        "run": folder.resolve().parent.name if folder.name.startswith("adapters-") else folder.resolve().name,
        "setup": str(answerer.setup.block) if answerer.setup is not None else "full fine-tuning",
        "base_model": Path(name).name if name is not None and Path(name).is_dir() else public_name(name),
        "base_fingerprint": base.fingerprint,
        "trained_with": metadata.versions or None,
    }


def command() -> int:
    """Run the script on the command line."""
    return run_cli(main)


if __name__ == "__main__":
    sys.exit(command())

#!/usr/bin/env python
"""Exports what run_qa_adapter.py trained as one plain ONNX model, for serving without torch, transformers and adapters.
OUT gets model.onnx, the tokenizer, config.json, export.json with the window options, and answer.py, which answers a
question with them. Nothing is left there unless the logits are the run's.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import math
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapter_qa.core.cli import CollectingArgumentParser, run_cli
from adapter_qa.core.errors import RunError, UserError, escape_control_chars

if TYPE_CHECKING:  # torch and transformers wait inside the functions that need them: --help and mistakes take no time
    from predictor_qa import QuestionAnswerer

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
GRAPH, ABOUT = "model.onnx", "export.json"
ANSWER = Path(__file__).resolve().parent / "examples" / "answer.py"
# Attention and GELU are operators of their own from 23 and 20 on. The newest that torch 2.13 writes and onnxruntime
# 1.32 reads, and the oldest that the exporter writes.
OPSET, OLDEST = 25, 18
TOLERANCE = 1e-4
EXAMPLES = """\
examples:
  export_qa.py outputs/fusion outputs/fusion_onnx
  python outputs/fusion_onnx/answer.py "Onde fica o Pantanal?" "O Pantanal fica no Centro-Oeste do Brasil."
"""


def main(argv: list[str]) -> int:
    """Table of contents; returns the exit code."""
    options = read_options(argv)
    out = Path(options.out)
    aside = out.with_name(out.name + ".writing")

    from adapter_qa.core.files import replace_folder
    from predictor_qa import QuestionAnswerer

    answerer = QuestionAnswerer(
        options.run, base_model=options.model_name_or_path, language_adapter=options.load_lang_adapter, device="cpu"
    )
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        about = write_all(answerer, aside, options)
        replace_folder(aside, out)
    except OSError as error:
        raise RunError(f"OUT {out}: cannot be written ({error.strerror or error}); give another folder") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    size, difference = about["bytes"][GRAPH], about["largest_difference"]
    print(escape_control_chars(f"{out / GRAPH}: {size / 1e6:.1f} MB, logits within {difference:.1e} of the run's"))
    print(escape_control_chars(f'try it: python {shlex.quote(str(out / ANSWER.name))} "QUESTION" "CONTEXT"'))
    return 0


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line.

    Raises:
        UserError: OUT cannot be taken, or a package is not installed.
    """
    parser = CollectingArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run", metavar="RUN", help="run folder, its adapters-<task> folder, or one of 2021")
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT, where it holds an earlier export")
    parser.add_argument(
        "--model_name_or_path", help="the base model, where it has moved since the run or is not recorded"
    )
    parser.add_argument("--load_lang_adapter", help="language adapter to put under the task; none leaves it out")
    parser.add_argument(
        "--opset", type=int, default=OPSET, help=f"ONNX operators, {OLDEST} to {OPSET}: lower for older runtimes"
    )
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="how far logits may be from the run's (default: 1e-4)"
    )
    options = parser.parse_args(argv)
    problems = check_out(Path(options.out), overwrite=options.overwrite)
    if not OLDEST <= options.opset <= OPSET:
        problems.append(f"--opset {options.opset}: must lie between {OLDEST} and {OPSET}")
    if not 0 < options.tolerance < math.inf:
        problems.append(f"--tolerance {options.tolerance:g}: must be a number above 0, e.g. {TOLERANCE:g}")
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        problems.append(f"{', '.join(missing)}: not installed; pip install -r requirements-export.txt")
    if problems:
        raise UserError(problems)
    return options


def check_out(out: Path, *, overwrite: bool) -> list[str]:
    """What is wrong with the folder that is to be made: it holds something, or cannot be made."""
    if out.exists() and not out.is_dir():
        return [f"OUT {out}: is a file; give a folder"]
    if out.is_dir() and any(out.iterdir()):
        if not (out / ABOUT).is_file():
            return [f"OUT {out}: is not empty and holds no export; give another folder"]
        if not overwrite:
            return [f"OUT {out}: holds an export already; add --overwrite or give another folder"]
    standing = next(path for path in out.absolute().parents if path.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK | os.X_OK):
        reason = "is a file" if not standing.is_dir() else "may not be written to"
        return [f"OUT {out}: {standing} {reason}; give another folder"]
    return []


def write_all(answerer: QuestionAnswerer, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Writes everything into a folder, and holds the graph's logits against the model's.

    Returns:
        What export.json holds.

    Raises:
        UserError: the tokenizer pads on the left.
        RunFailure: the model cannot be exported, or its logits are others.
    """
    from adapter_qa.core.files import write_json
    from adapter_qa.inference.onnx_export import (
        example_inputs,
        export_graph,
        largest_difference,
        logits_of,
        plain_config,
    )
    from adapter_qa.runs.provenance import now, versions

    model, tokenizer = answerer.model, answerer.tokenizer
    if tokenizer.padding_side != "right":
        raise UserError(
            f"{options.run}: its tokenizer pads on the left, and the context comes first; not supported here"
        )
    names = tokenizer.model_input_names
    inputs = list(example_inputs(model, names, answerer.options["max_seq_length"]))
    wanted = [logits_of(model, batch) for batch in inputs]
    print("exporting ...", file=sys.stderr, flush=True)
    export_graph(model, names, folder / GRAPH, opset=options.opset)
    difference = largest_difference(folder / GRAPH, inputs, wanted)
    if not difference <= options.tolerance:
        raise RunError(
            f"OUT {options.out}: not written; the exported model's logits are up to {difference:.1e} from the run's, "
            f"allowed are {options.tolerance:.1e}; try another --opset, or allow more with --tolerance"
        )
    tokenizer.save_pretrained(folder)
    write_json(folder / "config.json", plain_config(model))
    shutil.copyfile(ANSWER, folder / ANSWER.name)
    about = {
        "source": described(options, answerer),
        "inputs": names,
        "windows": answerer.options,
        "opset": options.opset,
        "largest_difference": difference,
        "compared": [list(batch["input_ids"].shape) for batch in inputs],
        "bytes": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        "versions": versions() | {name: importlib.metadata.version(name) for name in PACKAGES},
        "written": now(),
    }
    write_json(folder / ABOUT, about)
    return about


def described(options: argparse.Namespace, answerer: QuestionAnswerer) -> dict[str, Any]:
    """What was exported, without the folders of the machine it lay on."""
    from adapter_qa.models.file_names import FULL_FILE
    from adapter_qa.models.metadata import read_metadata
    from adapter_qa.models.saved_adapters import find_folder, read_setup
    from adapter_qa.runs.model_card import public_name

    folder = Path(options.run)
    if (folder / FULL_FILE).is_file():
        metadata = read_metadata(folder / FULL_FILE)
    else:
        folder = find_folder("RUN", options.run)
        metadata = read_setup(folder).metadata
    base = metadata.trained_from or metadata.base_model
    name = options.model_name_or_path or base.name_or_path
    return {
        "run": folder.resolve().parent.name if folder.name.startswith("adapters-") else folder.resolve().name,
        "setup": str(answerer.setup.block) if answerer.setup is not None else "full fine-tuning",
        "base_model": Path(name).name if name is not None and Path(name).is_dir() else public_name(name),
        "base_fingerprint": base.fingerprint,
        "trained_with": metadata.versions or None,
    }


if __name__ == "__main__":
    sys.exit(run_cli(main))

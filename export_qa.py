#!/usr/bin/env python
"""Export a run of run_qa_adapter.py as one ONNX model, to serve it without torch, transformers and adapters.

OUT gets model.onnx, the tokenizer, config.json, export.json with the options for windows, and answer.py, which answers
a question with these files. OUT is written only if the exported model has the same logits as the run. With --int8
model.onnx is a smaller and faster approximation, written only if it answers the evaluation questions nearly as well.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adapter_qa.core.cli import CollectingArgumentParser, run_cli
from adapter_qa.core.errors import RunError, UserError, escape_control_chars, raise_if_any
from adapter_qa.core.files import atomic_folder, expand_paths, files_fingerprint, find_obstacle, write_json
from adapter_qa.core.garbage_collection import no_garbage_collection
from adapter_qa.inference.export_layout import ANSWER_FILE, EXPORT_FILE, GRAPH_FILE
from adapter_qa.runs.layout import RUN_FILE

if TYPE_CHECKING:  # imported in functions, so that --help and option errors take no time
    from adapter_qa.data.questions import Question
    from predictor_qa import QuestionAnswerer

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# torch 2.13 writes and onnxruntime 1.32 reads operators of these versions. GELU is one operator from 20 on, attention
# from 23 on. For the attention of 25 onnxruntime has no kernel: its many steps make 16 windows of 384 take 5.15 s, with
# that of 23 they take 4.15 s, in torch 4.28 s (12 layers of 384, one thread).
OLDEST_OPSET, NEWEST_OPSET, OPSET = 18, 25, 23
TOLERANCE = 1e-4
MAX_F1_LOSS = 1.0
EXAMPLES = """\
examples:
  export_qa.py outputs/fusion outputs/fusion_onnx
  export_qa.py outputs/fusion outputs/fusion_int8 --int8
  python outputs/fusion_onnx/answer.py "Onde fica o Pantanal?" \\
      "O Pantanal fica no Centro-Oeste do Brasil."
"""


@dataclass(frozen=True)
class ExportOptions:
    """The command line; the fields are named as its options and words."""

    run: str
    out: Path
    overwrite: bool
    model_name_or_path: str | None
    load_lang_adapter: str | None
    opset: int
    tolerance: float
    int8: bool
    validation_file: str | None
    max_eval_samples: int | None
    max_f1_loss: float | None


def main(argv: list[str]) -> int:
    """Export a run; return the exit code."""
    options = read_options(argv)
    evaluation = evaluation_questions(options) if options.int8 else None

    with no_garbage_collection():
        from predictor_qa import Overrides, QuestionAnswerer

    overrides = Overrides(base_model=options.model_name_or_path, language_adapter=options.load_lang_adapter)
    answerer = QuestionAnswerer(options.run, overrides=overrides, device="cpu")
    print("exporting ...", file=sys.stderr, flush=True)
    try:
        with atomic_folder(written_folder(options.out)) as folder:
            document = write_files(folder, answerer, options, evaluation)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"OUT {options.out}: cannot be written ({reason}); give another folder") from error
    print_result(options.out, document)
    return 0


def read_options(argv: list[str]) -> ExportOptions:
    """Read the command line.

    Raises:
        UserError: an option is invalid, OUT cannot be used, or a package is not installed.
    """
    parser = CollectingArgumentParser(description=__doc__, epilog=EXAMPLES, allow_abbrev=False)
    parser.add_argument(
        "run", metavar="RUN", help="run folder, its adapters-<task> folder, or one of adapter-transformers 2.x"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it contains an earlier export")
    parser.add_argument(
        "--model_name_or_path",
        metavar="MODEL",
        help="the base model, if it has moved since the run or is not recorded there",
    )
    parser.add_argument(
        "--load_lang_adapter",
        metavar="RUN",
        help="language adapter to put under the task, in place of the run's if it has one; none leaves that out",
    )
    parser.add_argument(
        "--opset",
        metavar="N",
        type=int,
        default=OPSET,
        help=f"version of ONNX's operators, {OLDEST_OPSET} to {NEWEST_OPSET}; lower for older runtimes (default: "
        f"{OPSET}, the fastest)",
    )
    parser.add_argument(
        "--tolerance",
        metavar="X",
        type=float,
        default=TOLERANCE,
        help="largest difference between logits of the exported model and of the run (default: 1e-4)",
    )
    int8 = parser.add_argument_group("int8")
    int8.add_argument(
        "--int8", action="store_true", help="write products in 8-bit integers, and their scores into export.json"
    )
    int8.add_argument(
        "--validation_file",
        metavar="FILE",
        help="questions to score both forms with, or a pattern of files (default: those that the run was evaluated on)",
    )
    int8.add_argument("--max_eval_samples", metavar="N", type=int, help="score with the first N questions only")
    int8.add_argument(
        "--max_f1_loss",
        metavar="X",
        type=float,
        help=f"largest loss of F1 that is accepted, in points (default: {MAX_F1_LOSS})",
    )
    options = ExportOptions(**vars(parser.parse_args(argv)))
    problems = check_output(options.out, overwrite=options.overwrite) + int8_problems(options)
    if not OLDEST_OPSET <= options.opset <= NEWEST_OPSET:
        problems.append(f"--opset {options.opset}: must be from {OLDEST_OPSET} to {NEWEST_OPSET}")
    if not 0 < options.tolerance < math.inf:
        problems.append(f"--tolerance {options.tolerance:g}: must be a number above 0, e.g. {TOLERANCE:g}")
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        problems.append(f'{", ".join(missing)}: not installed; pip install "adapter-qa[export]"')
    raise_if_any(problems)
    return options


def written_folder(out: Path) -> Path:
    """Return the folder to write: of a link the one behind it, so that the link stays."""
    return out.resolve() if out.is_symlink() else out


def check_output(out: Path, *, overwrite: bool) -> list[str]:
    """Return why the output folder cannot be used; empty if it can."""
    current = Path.cwd()
    if out.resolve() in (current, *current.parents):
        return [f"OUT {out}: is the current folder or holds it, and cannot be replaced; give another folder"]
    if out.exists() and not out.is_dir():
        return [f"OUT {out}: is a file; give a folder"]
    if out.is_dir() and any(out.iterdir()):
        if not (out / EXPORT_FILE).is_file():
            return [f"OUT {out}: is not empty and contains no export; give another folder"]
        if not overwrite:
            return [f"OUT {out}: contains an export already; add --overwrite or give another folder"]
    obstacle = find_obstacle(written_folder(out).absolute().parent)
    return [] if obstacle is None else [f"OUT {out}: {obstacle}; give another folder"]


def int8_problems(options: ExportOptions) -> list[str]:
    """Return what is wrong with the options about int8."""
    given = [name for name in ("validation_file", "max_eval_samples", "max_f1_loss") if vars(options)[name] is not None]
    problems = [f"--{name}: has no effect without --int8; add it" for name in given if not options.int8]
    if options.max_eval_samples is not None and options.max_eval_samples < 1:
        problems.append(f"--max_eval_samples {options.max_eval_samples}: must be at least 1")
    if options.max_f1_loss is not None and not 0 <= options.max_f1_loss <= 100:
        problems.append(f"--max_f1_loss {options.max_f1_loss:g}: must be from 0 to 100")
    return problems


class EvaluationQuestions(NamedTuple):
    """The questions that both forms of a model are scored with, and what export.json says about them."""

    questions: list[Question]
    source: dict[str, Any]


def evaluation_questions(options: ExportOptions) -> EvaluationQuestions:
    """Read the questions of --validation_file, or those that the run was evaluated on.

    Raises:
        UserError: there are none, or their file cannot be read or has changed.
    """
    from adapter_qa.data.readers.squad import QuestionColumns, read_squad_files
    from adapter_qa.reporting.error_analysis import evaluated_questions
    from adapter_qa.reporting.runs import read_run

    saved = Path(options.run)
    recorded = [folder for folder in (saved, saved.absolute().parent) if (folder / RUN_FILE).is_file()]
    run = read_run(recorded[0]) if recorded else None
    if options.validation_file is not None:
        paths = expand_paths([options.validation_file], "validation_file")
        columns = QuestionColumns.of_options(run.document.options if run is not None else {})
        questions = read_squad_files(paths, need_answers=True, columns=columns)
        names, sha256 = list(map(str, paths)), files_fingerprint(paths)["sha256"]
    elif run is None:
        raise UserError(
            f"--int8: {saved} has no {RUN_FILE} that names evaluation questions; give --validation_file FILE"
        )
    else:
        try:
            questions = evaluated_questions(run)
        except UserError as error:
            raise UserError([f"--int8: {text}; give --validation_file FILE" for text in error.problems]) from error
        names, sha256 = run.document.data["eval"].paths, run.document.data["eval"].sha256
    questions = questions[: options.max_eval_samples]
    files = [Path(name).name for name in names]
    return EvaluationQuestions(questions, {"files": files, "sha256": sha256, "questions": len(questions)})


def write_files(
    folder: Path, answerer: QuestionAnswerer, options: ExportOptions, evaluation: EvaluationQuestions | None
) -> dict[str, Any]:
    """Write all files of an export into an empty folder; return the content of `EXPORT_FILE`.

    Raises:
        RunError: the model cannot be exported, or is not accurate enough.
        OSError: a file cannot be written.
    """
    with no_garbage_collection():
        from adapter_qa.inference.onnx_export import file_sizes, write_export
        from adapter_qa.runs.provenance import now, versions

    document = {
        "source": describe_source(answerer, options.model_name_or_path),
        **write_export(
            folder,
            answerer.model,
            answerer.tokenizer,
            answerer.options,
            opset=options.opset,
            tolerance=options.tolerance,
        ),
        "versions": versions() | {name: importlib.metadata.version(name) for name in PACKAGES},
        "written": now(),
    }
    write_json(folder / EXPORT_FILE, document)
    if evaluation is not None:
        from adapter_qa.inference.quantization import PRECISION, quantize_export

        largest_loss = MAX_F1_LOSS if options.max_f1_loss is None else options.max_f1_loss
        scores = quantize_export(folder, evaluation.questions, largest_loss)
        document |= {"precision": PRECISION, "evaluation": evaluation.source | scores, "bytes": file_sizes(folder)}
        write_json(folder / EXPORT_FILE, document)
    return document


def print_result(out: Path, document: dict[str, Any]) -> None:
    """Print the size of the graph, its difference to the run, and in int8 its scores."""
    size = document["bytes"][GRAPH_FILE] / 1e6
    difference = f"logits within {document['largest_difference']:.1e} of the run's"
    if "evaluation" in document:
        print_scores(document["evaluation"])
        print(escape_control_chars(f"{out / GRAPH_FILE}: {size:.1f} MB in int8; in float32, {difference}"))
    else:
        print(escape_control_chars(f"{out / GRAPH_FILE}: {size:.1f} MB, {difference}"))
    print(escape_control_chars(f'try it: python {shlex.quote(str(out / ANSWER_FILE))} "QUESTION" "CONTEXT"'))


def print_scores(evaluation: dict[str, Any]) -> None:
    """Print F1 and exact match of both forms."""
    print(escape_control_chars(f"{evaluation['questions']:,} questions of {' '.join(evaluation['files'])}"))
    for name in ("float32", "int8"):
        scores = evaluation[name]
        print(f"  {name:<8} F1 {scores['f1']:5.1f}  exact {scores['exact']:5.1f}")
    print(f"  {'loss':<8} F1 {evaluation['f1_loss']:5.2f}")


def describe_source(answerer: QuestionAnswerer, base_model: str | None) -> dict[str, Any]:
    """Return what is exported, without paths of this machine; `base_model` replaces the recorded one."""
    import msgspec

    from adapter_qa.runs.model_card import public_name

    folder, metadata = answerer.saved.folder, answerer.saved.metadata
    base = metadata.trained_from or metadata.base_model
    name = base_model or base.name_or_path
    source: dict[str, Any] = {
        "run": folder.resolve().parent.name if folder.name.startswith("adapters-") else folder.resolve().name,
        "setup": str(answerer.setup.block) if answerer.setup is not None else "full fine-tuning",
        "base_model": Path(name).name if name is not None and Path(name).is_dir() else public_name(name),
        "base_fingerprint": base.fingerprint,
        "trained_with": metadata.versions or None,
    }
    if answerer.setup is not None and answerer.setup.language_swaps:
        swaps: list[dict[str, str | None]] = msgspec.to_builtins(answerer.setup.language_swaps)
        source["language_swaps"] = [{key: public_name(value) for key, value in swap.items()} for swap in swaps]
    return source


def command() -> int:
    """Run the script on the command line."""
    return run_cli(main)


if __name__ == "__main__":
    sys.exit(command())

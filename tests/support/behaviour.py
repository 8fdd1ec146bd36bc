"""Measure what users and their shell scripts rely on; tests/fixtures/behaviour.json has the expected values.

ONEDNN_MAX_CPU_ISA=AVX512_CORE PYTHONPATH=.:tests python -m support.behaviour     # write the file anew
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from support.scripts import ROOT, override

from adapter_qa.config.parser import ConfigParser
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.core.cli import run_cli

FROZEN = ROOT / "tests" / "fixtures" / "behaviour.json"
RUNS = ROOT / "tests" / "fixtures" / "runs_0.1.0"
CONFIGS = {"run_qa_adapter": QARunConfig, "run_ner_adapter": NERRunConfig, "run_mlm_adapter": MLMRunConfig}
SCRIPTS = [*CONFIGS, "prepare_squad_pt", "ask_qa", "export_qa", "report_qa", "sweep_qa", "convert_2021_adapters"]
ABOUT = ("help", "help_all", "version")  # options that print something and end the script
BASE = ["--model_name_or_path", str(RUNS / "base")]
SIZES = ["--max_seq_length", "64", "--doc_stride", "16"]
TRAIN = [*BASE, "--do_train", "--train_file", str(RUNS / "data" / "train.json"), *SIZES, "--output_dir", "out"]
REFUSALS: dict[str, list[str]] = {
    "no option": ["run_qa_adapter"],
    "unknown option": ["run_qa_adapter", *TRAIN, "--learnig_rate", "1"],
    "learning rate below 0": ["run_qa_adapter", *TRAIN, "--learning_rate", "-1"],
    "infinite learning rate": ["run_qa_adapter", *TRAIN, "--learning_rate", "inf"],
    "no such file": ["run_qa_adapter", *BASE, "--do_train", "--train_file", "nowhere.json"],
    "nothing to do": ["run_qa_adapter", *BASE],
    "no evaluation file": ["run_qa_adapter", *TRAIN, "--do_eval"],
    "stride as long as the window": ["run_qa_adapter", *override(TRAIN, "--doc_stride", "60")],
    "window longer than the base allows": ["run_qa_adapter", *override(TRAIN, "--max_seq_length", "500")],
    "unknown metric": ["run_qa_adapter", *TRAIN, "--metric_for_best_model", "rouge"],
    "patience without evaluation": ["run_qa_adapter", *TRAIN, "--early_stopping_patience", "2"],
    "two precisions": ["run_qa_adapter", *TRAIN, "--bf16", "True", "--fp16", "True"],
    "FSDP": ["run_qa_adapter", *TRAIN, "--fsdp", "full_shard"],
    "one adapter to fuse": ["run_qa_adapter", *TRAIN, "--fuse_adapters", "qa=x"],
    "adapter without a folder": ["run_qa_adapter", *TRAIN, "--load_lang_adapter", "nowhere"],
    "full fine-tuning with an adapter": ["run_qa_adapter", *TRAIN, "--train_adapter", "False", "--load_adapter", "x"],
    "unknown kind of adapter": ["run_qa_adapter", *TRAIN, "--adapter_config", "mam"],
    "unknown activation": ["run_qa_adapter", *TRAIN, "--adapter_non_linearity", "geluu"],
    "base without a folder": ["run_qa_adapter", "--model_name_or_path", "./nowhere", *TRAIN[2:]],
    "prediction by a language adapter": ["run_mlm_adapter", *BASE, "--do_predict"],
    "share of tokens above 1": ["run_mlm_adapter", *BASE, "--do_eval", "--mlm_probability", "2"],
    "NER without an adapter": ["run_ner_adapter", *BASE, "--do_eval", "--validation_file", str(RUNS / "README.md")],
    "no run to ask": ["ask_qa", "nowhere", "--question", "a", "--context", "b"],
    "no context": ["ask_qa", str(RUNS / "qa"), "--question", "a"],
    "no run to export": ["export_qa", "nowhere", "out"],
    "no runs to report": ["report_qa", "nowhere"],
    "no sweep file": ["sweep_qa", "nowhere.yaml"],
    "no file to prepare": ["prepare_squad_pt", "nowhere.json", "--output_dir", "out"],
    "no folder to convert": ["convert_2021_adapters", "nowhere", "out"],
}
SETUPS: dict[str, list[str]] = {
    "qa": [],
    "houlsby, last layer": ["--adapter_config", "houlsby", "--houlsby_MHA_lastlayer", "True"],
    "lang + qa, MAD-X 2.0": ["--load_lang_adapter", "new", "--madx2", "True"],
    "lang + fusion": ["--load_lang_adapter", "new", "--fuse_adapters", "qa=new", "ner=new"],
    "full": ["--train_adapter", "False"],
}


def call(script: str, argv: list[str]) -> tuple[int, str, str]:
    """Run a script's main in this process as the command line does; return exit code, stdout and stderr."""
    out, errors = io.StringIO(), io.StringIO()
    argv_before = sys.argv
    sys.argv = [f"{script}.py", *argv]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            try:
                code = run_cli(importlib.import_module(script).main)
            except SystemExit as stop:
                code = int(stop.code or 0)
    finally:
        sys.argv = argv_before
    return code, out.getvalue(), errors.getvalue()


def option_defaults(script: str) -> dict[str, str]:
    """Return every option of a training script with its default as text."""
    actions = ConfigParser(CONFIGS[script], "", "")._actions
    return {action.dest: str(action.default) for action in actions if action.dest not in ABOUT}


def option_names(script: str) -> list[str]:
    """Return every option that a script's --help shows."""
    return sorted(set(re.findall(r"--[a-z][\w-]*", call(script, ["--help"])[1])))


def refusal(argv: list[str]) -> dict[str, Any]:
    """Return the exit code of a refused command line, and the options that its messages name."""
    code, _, errors = call(argv[0], argv[1:])
    return {"exit code": code, "names": sorted(set(re.findall(r"--[a-z]\w*", errors)))}


def parameters(setup: list[str]) -> dict[str, Any]:
    """Return the parameter counts of a dry run on the tiny base model."""
    code, out, errors = call("run_qa_adapter", [*BASE, "--random_init", "True", "--dry_run", *SIZES, *setup])
    assert code == 0, errors
    table: dict[str, Any] = json.loads(out.splitlines()[-1])["parameters"]
    return table


def run_files() -> list[str]:
    """Return the files that a fusion run of one epoch writes."""
    fusion = ["--random_init", "True", "--fuse_adapters", "qa=new", "ner=new", "--num_train_epochs", "1"]
    dev = ["--do_eval", "--validation_file", str(RUNS / "data" / "dev.json"), "--report_to", "none"]
    code, _, errors = call("run_qa_adapter", [*TRAIN, *fusion, *dev, "--disable_tqdm", "True"])
    assert code == 0, errors
    return sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file())


def measure() -> dict[str, Any]:
    """Return the content of behaviour.json as it is now. The working folder must be empty."""
    return {
        "options": {script: option_defaults(script) for script in CONFIGS},
        "option names": {script: option_names(script) for script in SCRIPTS if script not in CONFIGS},
        "refusals": {name: refusal(argv) for name, argv in REFUSALS.items()},
        "parameters": {name: parameters(setup) for name, setup in SETUPS.items()},
        "files": run_files(),
    }


if __name__ == "__main__":
    with contextlib.chdir(tempfile.mkdtemp()):
        document = measure()
    FROZEN.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

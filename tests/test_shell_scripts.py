"""The shell scripts: --help, unknown arguments, shellcheck."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from subprocess import PIPE

import pytest
from support.scripts import ROOT

SCRIPTS = [path for path in sorted([*ROOT.glob("*.sh"), *ROOT.glob("sweeps/*.sh")]) if path.name != "environment.sh"]


def run_bash(script: Path, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", script, *args], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
@pytest.mark.parametrize("relative", [True, False])
def test_help_prints_the_header_and_the_settings(script: Path, relative: bool, tmp_path: Path) -> None:
    process = run_bash(script.relative_to(ROOT) if relative else script, "--help", cwd=ROOT if relative else tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    lines = script.read_text(encoding="utf-8").splitlines()
    header = [line for line in lines[1:] if not line.startswith("#SBATCH")]
    header = header[: next(number for number, line in enumerate(header) if not line.startswith("#"))]
    assert len(header) > 3
    settings = [line for line in lines if "=${" in line.split(" ")[0] and line[0].isupper()]
    expected = [line.removeprefix("#").removeprefix(" ") for line in header]
    expected += ["", *(f"  {line}" for line in settings)] if settings else []
    assert process.stdout.splitlines() == expected
    assert f"bash {script.relative_to(ROOT)}" in process.stdout


@pytest.mark.parametrize(
    "script", [path for path in SCRIPTS if path.name != "run_tests.sh"], ids=lambda path: path.name
)
def test_unknown_argument_is_rejected(script: Path, tmp_path: Path) -> None:
    process = run_bash(script, "--sedes", cwd=tmp_path)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == (
        f"error: --sedes: unknown argument; settings come from the environment, see bash {script} --help\n"
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_examples_give_every_setting_that_has_no_default(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    required = re.findall(r"^([A-Z_]+)=\$\{\1:\?", text, re.MULTILINE)
    examples = [line for line in text.replace("\\\n#", "").splitlines() if re.match(r"#  .*\bbash [a-z_/]+\.sh", line)]
    assert examples
    assert [f"{name}= in {line}" for line in examples for name in required if f" {name}=" not in line] == []


# Arrays that always have a value where they are expanded.
NEVER_EMPTY = {"words", "commands", "launcher"}


@pytest.mark.parametrize(
    "script", [*SCRIPTS, ROOT / "environment.sh", ROOT / "benchmarks/results_pt/measure.sh"], ids=lambda path: path.name
)
def test_scripts_run_in_bash_3(script: Path) -> None:
    """That is the bash of macOS. It calls an empty array unbound under `set -u`, and lacks what came with bash 4."""
    text = script.read_text(encoding="utf-8")
    arrays = {"extra", *re.findall(r"(\w+)=\(\)", text), *re.findall(r"read .*-a (\w+)", text)} - NEVER_EMPTY
    assert [name for name in re.findall(r'(?<!\+)"\$\{(\w+)\[@\]\}"', text) if name in arrays] == []
    newer = r"mapfile|readarray|realpath|(?:declare|local) -[An]|wait -n|\$\{\w+(?:,|\^|@)|\|&|&>>"
    assert re.findall(newer, text) == []


def test_path_of_python_may_have_a_space_and_a_launcher_has_several_words(tmp_path: Path) -> None:
    """A recorder stands in for Python and for the launcher."""
    recorder, log = tmp_path / "my env" / "python", tmp_path / "calls"
    recorder.parent.mkdir()
    recorder.write_text(f'#!/bin/sh\necho "$0 $1 $2 $3" >> {log}\n')
    recorder.chmod(0o700)
    (tmp_path / "torchrun").symlink_to(recorder)
    settings = {"SQUAD": "s", "NER_TRAIN": "t", "NER_DEV": "d", "OUT": str(tmp_path), "PYTHON": str(recorder)}
    launcher = f"{tmp_path}/torchrun --nproc_per_node 4"
    steps = ["run_mlm_adapter.py", "run_qa_adapter.py", "run_ner_adapter.py", "run_qa_adapter.py"]
    for given, expected in (
        ({}, [f"{recorder} {step} --model_name_or_path neuralmind/bert-large-portuguese-cased" for step in steps]),
        ({"LAUNCHER": launcher}, [f"{launcher} {step}" for step in steps]),
    ):
        environment = {**os.environ, **settings, **given}
        process = subprocess.run(
            ["bash", ROOT / "train_fusion_pt.sh"], env=environment, text=True, stderr=PIPE, check=False
        )
        assert (process.returncode, process.stderr) == (0, "")
        prepared, *trained = log.read_text().splitlines()
        assert prepared == f"{recorder} prepare_squad_pt.py s --output_dir"
        assert [line.removesuffix(" ") for line in trained] == expected
        log.unlink()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / "environment.sh"], ids=lambda path: path.name)
def test_shellcheck_reports_nothing(script: Path) -> None:
    process = subprocess.run(["shellcheck", "-x", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert process.stdout == ""

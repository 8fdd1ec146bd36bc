"""The shell scripts: --help, unknown arguments, shellcheck."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

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


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / "environment.sh"], ids=lambda path: path.name)
def test_shellcheck_reports_nothing(script: Path) -> None:
    process = subprocess.run(["shellcheck", "-x", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert process.stdout == ""

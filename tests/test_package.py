"""The installable package: its pins, and the wheel used from outside the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.questions import make_questions, write_squad
from support.scripts import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMMANDS = sorted(PROJECT["scripts"])


def test_dependencies_are_the_pins_of_requirements_txt() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert PROJECT["dependencies"] == [line for line in lines if line and not line.startswith("#")]


def test_every_dependency_is_pinned_exactly() -> None:
    extras = PROJECT["optional-dependencies"]
    packages = [*PROJECT["dependencies"], *(package for extra in extras.values() for package in extra)]
    assert [package for package in packages if "==" not in package and not package.startswith("adapter-qa[")] == []
    assert set(extras) == {"serve", "export", "sweep", "report", "trackio", "deepspeed", "dev", "all"}


def test_every_script_is_a_command() -> None:
    modules = {target.removesuffix(":command") for target in PROJECT["scripts"].values()}
    scripts = {path.stem for path in ROOT.glob("*.py")} - {"trainer_qa", "predictor_qa", "utils_qa"}
    assert modules == scripts
    assert all(name.startswith("adapter-qa-") for name in COMMANDS)


class Installation:
    """The wheel, installed into a new environment that also sees the packages of the current environment."""

    def __init__(self, folder: Path):
        self.folder = folder
        source, wheels, environment = folder / "source", folder / "wheels", folder / "environment"
        ignored = shutil.ignore_patterns(".*", "outputs", "demo_outputs", "build", "*.egg-info", "__pycache__", "tests")
        shutil.copytree(ROOT, source, ignore=ignored)
        build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
        subprocess.run([sys.executable, "-m", "pip", *build], check=True, capture_output=True, timeout=300)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=300)
        self.bin = environment / "bin"
        packages = next((environment / "lib").glob("python*")) / "site-packages"
        (packages / "tested_packages.pth").write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")
        install = ["--quiet", "--no-deps", "--no-index", *map(str, wheels.glob("*.whl"))]
        python = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install"]
        subprocess.run([*python, *install], check=True, capture_output=True, timeout=300)

    def run(self, command: str, *argv: object) -> str:
        """Run a command in the folder of the installation and return its output."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        process = subprocess.run(
            [str(self.bin / command), *map(str, argv)],
            cwd=self.folder, env={**environment, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, capture_output=True,
            text=True, check=False, timeout=600,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr[-3000:]
        return process.stdout


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("installed"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(installation: Installation, command: str) -> None:
    assert installation.run(command, "--help").startswith(f"usage: {command}")


def test_modules_come_from_the_wheel(installation: Installation) -> None:
    code = "import adapter_qa, run_qa_adapter, utils_qa; print(adapter_qa.__file__, adapter_qa.__version__)"
    path, version = installation.run("python", "-c", code).split()
    assert Path(path).is_relative_to(installation.folder / "environment")
    assert Path(path).with_name("py.typed").is_file()
    metadata = "import importlib.metadata as m; print(m.version('adapter-qa'))"
    assert installation.run("python", "-c", metadata).strip() == version


def test_predictor_is_imported_lazily(installation: Installation) -> None:
    code = (
        "import sys, adapter_qa; assert 'torch' not in sys.modules; "
        "from adapter_qa import Overrides, QuestionAnswerer; "
        "print(Overrides.__module__, QuestionAnswerer.__module__, 'torch' in sys.modules)"
    )
    assert installation.run("python", "-c", code).split() == ["predictor_qa", "predictor_qa", "False"]


def test_train_ask_report_and_export(installation: Installation, tiny_bert: Path) -> None:
    folder = installation.folder
    question = make_questions(1, 2)[0]
    train, dev = write_squad(folder / "train.json", make_questions(16, 1)), write_squad(folder / "dev.json", [question])
    installation.run(
        "adapter-qa-train", "--model_name_or_path", tiny_bert, "--do_train", "--do_eval", "--train_file", train,
        "--validation_file", dev, "--max_seq_length", 64, "--doc_stride", 16, "--num_train_epochs", 1, "--report_to",
        "none", "--output_dir", "run",
    )  # fmt: skip
    run = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
    assert run["status"] == "finished"
    assert run["commit"] is None
    version = installation.run("python", "-c", "import adapter_qa; print(adapter_qa.__version__)").strip()
    assert run["versions"]["adapter-qa"] == version

    argv = ("--question", question.question, "--context", question.context)
    answer = json.loads(installation.run("adapter-qa-ask", "run", *argv, "--json"))
    assert question.context[answer["start"] : answer["end"]] == answer["answer"]

    installation.run("adapter-qa-report", "run", "--output_dir", "report")
    assert (folder / "report" / "report.html").stat().st_size > 1000

    installation.run("adapter-qa-export", "run", "exported")
    printed = installation.run("python", "exported/answer.py", question.question, question.context)
    assert printed.strip() == answer["answer"]

"""sweeps/*.sh: the commands of a shell sweep, a process each, and what happens when trials fail or are stopped.

The scripts go to their project's folder, which here is a made-up one with links to the real files, so that nothing is
written to the tree.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.scripts import ROOT

SCRIPTS = sorted((ROOT / "sweeps").glob("*.sh"))
EVERY = (
    "python run_qa_adapter.py --model_name_or_path M --do_train --do_eval --train_file T --validation_file D "
    "--num_train_epochs 15 --early_stopping_patience 5"
)
Sweep = Callable[..., subprocess.CompletedProcess[str]]
# In place of python: says what it was started with and on which GPU, and does as its learning rate has it. Two trials
# that `meet` wait for each other, so that they must be under way at the same time.
FAKE_PYTHON = """\
#!/usr/bin/env bash
if [ "$1" = - ]; then exec {python} "$@"; fi
echo "${{CUDA_VISIBLE_DEVICES:--}} $*" >>started
case "$*" in
    *"--learning_rate fails"*) echo "error: it fails" >&2; exit 1 ;;
    *"--learning_rate meets"*) until [ "$(wc -l <started)" -ge 2 ]; do sleep 0.05; done ;;
    *"--learning_rate stops"*)
        trap 'echo TERM >>signals; stopping=1' TERM
        until [ -n "${{stopping:-}}" ]; do sleep 0.05; done
        exit 143 ;;
esac
echo fine
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the scripts and a python that trains nothing."""
    shutil.copytree(ROOT / "sweeps", tmp_path / "sweeps")
    fake = tmp_path / "fake python"
    fake.write_text(FAKE_PYTHON.format(python=sys.executable), encoding="utf-8")
    fake.chmod(0o755)
    return tmp_path


@pytest.fixture
def sweep(project: Path) -> Sweep:
    """Runs one of the scripts, settings from the environment."""

    def run(script: str, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(project / "sweeps" / script), *words]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment(**settings), cwd="/", timeout=600, check=False
        )

    return run


def environment(**settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("CUDA_VISIBLE_DEVICES", "GPUS")}
    return {**inherited, "MODEL": "M", "TRAIN": "T", "DEV": "D", **settings}


def started(project: Path) -> list[str]:
    return (project / "started").read_text(encoding="utf-8").splitlines()


def test_a_dry_run_prints_every_command_once(sweep: Sweep, project: Path) -> None:
    done = sweep(
        "sweep_qa.sh", "--dry_run", SETUPS="qa lang_fusion", LRS="1e-4 3e-4", SEEDS="1 2", REDUCTIONS="4 16",
        LANG_ADAPTER="my língua", EXTRA="--fp16 True",
    )  # fmt: skip
    fused = f"{EVERY} --fuse_adapters qa=outputs/qa ner=outputs/ner --load_lang_adapter $'my l\\303\\255ngua'"
    assert [line.replace("my\\ língua", "$'my l\\303\\255ngua'") for line in done.stdout.splitlines()] == [
        *(
            f"{EVERY} --learning_rate {lr} --seed {seed} --adapter_reduction_factor {reduction} --fp16 True"
            for lr in ("1e-4", "3e-4")
            for reduction in (4, 16)
            for seed in (1, 2)
        ),
        *(f"{fused} --learning_rate {lr} --seed {seed} --fp16 True" for lr in ("1e-4", "3e-4") for seed in (1, 2)),
    ]
    assert done.returncode == 0 and done.stderr == ""
    assert not (project / "outputs").exists()


@pytest.mark.parametrize(
    ("setup", "options"),
    [
        ("full", "--train_adapter False --learning_rate 1e-4 --seed 1"),
        ("qa", "--learning_rate 1e-4 --seed 1 --adapter_reduction_factor 16"),
        ("lang", "--load_lang_adapter outputs/mlm --learning_rate 1e-4 --seed 1 --adapter_reduction_factor 16"),
        ("fusion", "--fuse_adapters qa=outputs/qa ner=outputs/ner --learning_rate 1e-4 --seed 1"),
    ],
)
def test_setups(sweep: Sweep, setup: str, options: str) -> None:
    done = sweep("sweep_qa.sh", "--dry_run", SETUPS=setup, LRS="1e-4", SEEDS="1")
    assert done.stdout == f"{EVERY} {options}\n"


@pytest.mark.parametrize(
    ("words", "settings", "error"),
    [
        ([], {"SETUPS": "qa all"}, "error: SETUPS all: choose from full, qa, lang, fusion, lang_fusion\n"),
        ([], {"SEEDS": " "}, "error: no trials: SETUPS, LRS, SEEDS and REDUCTIONS need a value each\n"),
        (
            ["--help"],
            {},
            "error: --help: the only option is --dry_run; settings come from the environment, see sweeps/trials.sh\n",
        ),
    ],
)
def test_bad_input(sweep: Sweep, project: Path, words: list[str], settings: dict[str, str], error: str) -> None:
    done = sweep("sweep_qa.sh", *words, **settings)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", error)
    assert not (project / "outputs").exists()


def test_each_trial_is_one_process_and_failures_are_recorded(sweep: Sweep, project: Path) -> None:
    settings = {"PYTHON": str(project / "fake python"), "SETUPS": "qa", "LRS": "1 fails 3", "SEEDS": "7"}
    done = sweep("sweep_qa.sh", LOGS="logs é", **settings)
    assert done.returncode == 1
    assert started(project) == [
        f"- {EVERY.removeprefix('python ')} --learning_rate {lr} --seed 7 --adapter_reduction_factor 16"
        for lr in ("1", "fails", "3")
    ]
    assert done.stdout.splitlines()[-1] == "3 trials: 2 done, 1 failed"
    assert done.stderr.splitlines() == [
        "trial 1: failed with exit code 1: error: it fails",
        "why: logs é/*.failed.json",
    ]
    (failed,) = (project / "logs é").glob("*.failed.json")
    facts = json.loads(failed.read_text(encoding="utf-8"))
    assert failed.name == "qa_fails_16_7.failed.json" and facts.pop("time")
    assert facts == {
        "trial": 1,
        "exit_code": 1,
        "why": ["it fails"],
        "log": "logs é/qa_fails_16_7.log",
        "command": [settings["PYTHON"], *started(project)[1].split()[1:]],
    }
    # Tried again and mended: no failure any more; what the first attempt said is not taken for the second's.
    fake = Path(settings["PYTHON"])
    fake.write_text(fake.read_text(encoding="utf-8").replace("error: it fails", "other"), encoding="utf-8")
    assert sweep("sweep_qa.sh", LOGS="logs é", **settings).returncode == 1
    assert json.loads(failed.read_text(encoding="utf-8"))["why"] == ["other"]
    fake.write_text(fake.read_text(encoding="utf-8").replace("exit 1", "exit 0"), encoding="utf-8")
    assert sweep("sweep_qa.sh", LOGS="logs é", **settings).returncode == 0
    assert not failed.exists()


def test_trials_are_spread_over_gpus(sweep: Sweep, project: Path) -> None:
    fake = str(project / "fake python")
    done = sweep("sweep_qa.sh", PYTHON=fake, SETUPS="qa", LRS="meets", SEEDS="1 2 3 4 5 6", GPUS="0 3")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in started(project)]
    assert sorted(line[line.index("--seed") + 1] for line in lines) == ["1", "2", "3", "4", "5", "6"]
    assert {line[0] for line in lines} == {"0", "3"} and {lines[0][0], lines[1][0]} == {"0", "3"}
    assert done.stdout.splitlines()[-1] == "6 trials: 6 done, 0 failed"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_all_and_each_trial_once(project: Path, number: int, code: int) -> None:
    settings = {"PYTHON": str(project / "fake python"), "SETUPS": "qa", "LRS": "stops", "SEEDS": "1 2 3", "GPUS": "0 1"}
    command = ["bash", str(project / "sweeps" / "sweep_qa.sh")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment(**settings)) as running:
        while not (project / "started").exists() or len(started(project)) < 2:
            time.sleep(0.05)
        time.sleep(0.2)  # until both have set their traps
        running.send_signal(number)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == code
    assert errors == "stopped; the same command goes on\n"
    assert (project / "signals").read_text(encoding="utf-8") == "TERM\nTERM\n"
    assert len(started(project)) == 2
    assert list((project / "outputs" / "sweep_logs").glob("*.failed.json")) == []


def test_a_slurm_task_runs_the_trial_of_its_number(sweep: Sweep, project: Path) -> None:
    settings = {"PYTHON": str(project / "fake python"), "SETUPS": "qa full", "LRS": "1 fails", "SEEDS": "1"}
    copied = project / "spool" / "slurm_script"
    copied.parent.mkdir()
    shutil.copy(project / "sweeps" / "slurm_qa.sh", copied)  # as SLURM does
    codes = {}
    for task in range(5):
        slurm = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_SUBMIT_DIR": str(project)}
        done = subprocess.run(
            ["bash", str(copied)], env=environment(**settings, **slurm), capture_output=True, text=True, check=False
        )
        codes[task] = done.returncode
    assert codes == {0: 0, 1: 1, 2: 0, 3: 1, 4: 2}
    assert done.stderr == "error: task 4: there are 4 trials; --array=0-3\n"
    assert [line.split("--learning_rate ")[1].split()[0] for line in started(project)] == ["1", "fails", "1", "fails"]
    assert sweep("slurm_qa.sh", **settings).stdout == "4 trials: sbatch --array=0-3 sweeps/slurm_qa.sh\n"


def test_the_trainer_is_swept_and_skips_what_is_finished(
    sweep: Sweep, project: Path, tiny_bert: Path, squad_files: tuple[Path, Path]
) -> None:
    (project / "run_qa_adapter.py").symlink_to(ROOT / "run_qa_adapter.py")
    settings = {
        "PYTHON": sys.executable, "MODEL": str(tiny_bert), "TRAIN": str(squad_files[0]), "DEV": str(squad_files[1]),
        "SETUPS": "qa", "LRS": "1e-2 nan", "SEEDS": "1", "EPOCHS": "1", "OMP_NUM_THREADS": "1",
        "EXTRA": "--max_seq_length 64 --doc_stride 16 --report_to none --use_cpu True",
    }  # fmt: skip
    done = sweep("sweep_qa.sh", **settings)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == (
        "trial 1: failed with exit code 2: error: --learning_rate nan: must be a finite number"
    )
    logs = project / "outputs" / "sweep_logs"
    assert sorted(path.name for path in logs.iterdir()) == [
        "qa_1e-2_16_1.log", "qa_nan_16_1.failed.json", "qa_nan_16_1.log",
    ]  # fmt: skip
    (run,) = (project / "outputs").glob("*/*/*/run.json")
    before = run.read_bytes()
    assert json.loads(before)["status"] == "finished" and "_seed1_" in run.parent.name
    assert sweep("sweep_qa.sh", **settings).stdout.splitlines()[-1] == "2 trials: 1 done, 1 failed"
    assert run.read_bytes() == before
    assert f"{run.parent.relative_to(project)}: this run is finished" in (logs / "qa_1e-2_16_1.log").read_text()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    done = subprocess.run(["shellcheck", "-x", str(script)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == ""

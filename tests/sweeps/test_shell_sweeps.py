"""sweeps/*.sh: the commands of the trials, failures, signals and SLURM tasks.

The scripts change to their project's folder. Here that is a temporary folder with copies, so the tree stays clean.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.scripts import ROOT

COMMAND = (
    "run_qa_adapter.py --model_name_or_path M --do_train --do_eval --train_file T --validation_file D "
    "--num_train_epochs 15 --early_stopping_patience 5"
)
RunSweep = Callable[..., subprocess.CompletedProcess[str]]
# Runs in place of Python. It records its arguments; the learning rate decides what it does.
FAKE_PYTHON = """\
#!/usr/bin/env bash
echo "$*" >>started
case "$*" in
    *"--learning_rate fails"*) echo "error: it fails" >&2; exit 1 ;;
    *"--learning_rate stops"*)
        trap 'exit 130' INT
        trap 'exit 143' TERM
        while true; do sleep 0.05; done ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with the scripts and a fake Python."""
    shutil.copytree(ROOT / "sweeps", tmp_path / "sweeps")
    shutil.copy(ROOT / "environment.sh", tmp_path)
    fake = tmp_path / "fake python"
    fake.write_text(FAKE_PYTHON, encoding="utf-8")
    fake.chmod(0o755)
    return tmp_path


@pytest.fixture
def run_sweep(project: Path) -> RunSweep:
    """Return a function that runs a script with settings from the environment."""

    def run(script: str, *args: str, **settings: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(project / "sweeps" / script), *args]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment(**settings), cwd="/", timeout=600, check=False
        )

    return run


def environment(**settings: str) -> dict[str, str]:
    return {**os.environ, "MODEL": "M", "TRAIN": "T", "DEV": "D", **settings}


def started(project: Path) -> list[str]:
    return (project / "started").read_text(encoding="utf-8").splitlines()


def test_extra_options_override_the_settings(run_sweep: RunSweep) -> None:
    extra = "--train_file=x.json --seed 7 --no-fusion_regularization --do-eval False --fuse-adapters a=b c=d"
    result = run_sweep("sweep_qa.sh", "--dry_run", SETUPS="fusion", LRS="1", SEEDS="1", PATIENCE="2", EXTRA=extra)
    kept = ("--model_name_or_path M --do_train --validation_file D --num_train_epochs 15 --early_stopping_patience 2 "
            "--learning_rate 1")  # fmt: skip
    assert result.stdout.split() == ["python", "run_qa_adapter.py", *kept.split(), *extra.split()]


def test_dry_run_prints_every_command_once(run_sweep: RunSweep, project: Path) -> None:
    result = run_sweep(
        "sweep_qa.sh", "--dry_run", SETUPS="qa lang_fusion", LRS="1e-4 3e-4", SEEDS="1 2", REDUCTIONS="4 16",
        LANG_ADAPTER="my adapter", EXTRA="--fp16 True",
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    fusion = ["--fuse_adapters", "qa=outputs/qa", "ner=outputs/ner", "--load_lang_adapter", "my adapter"]
    shared = ["python", *COMMAND.split()]
    assert [shlex.split(line) for line in result.stdout.splitlines()] == [
        *(
            [*shared, "--learning_rate", lr, "--seed", seed, "--adapter_reduction_factor", reduction, "--fp16", "True"]
            for lr in ("1e-4", "3e-4")
            for reduction in ("4", "16")
            for seed in ("1", "2")
        ),
        *(
            [*shared, *fusion, "--learning_rate", lr, "--seed", seed, "--fp16", "True"]
            for lr in ("1e-4", "3e-4")
            for seed in ("1", "2")
        ),
    ]
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
def test_options_of_a_setup(run_sweep: RunSweep, setup: str, options: str) -> None:
    result = run_sweep("sweep_qa.sh", "--dry_run", SETUPS=setup, LRS="1e-4", SEEDS="1")
    assert result.stdout.split() == ["python", *COMMAND.split(), *options.split()]


@pytest.mark.parametrize("script", ["sweep_qa.sh", "slurm_qa.sh"])
@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"SETUPS": "qa all"}, "error: SETUPS: all is unknown; choose from full, qa, lang, fusion, lang_fusion\n"),
        ({"SEEDS": " "}, "error: no trials: SETUPS, LRS, SEEDS and REDUCTIONS need a value each\n"),
    ],
)
def test_bad_settings_are_refused_before_any_trial(
    run_sweep: RunSweep, project: Path, script: str, settings: dict[str, str], error: str
) -> None:
    result = run_sweep(script, PYTHON=str(project / "fake python"), **settings)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", error)
    assert not (project / "started").exists()


def test_failed_trial_does_not_stop_the_others(run_sweep: RunSweep, project: Path) -> None:
    result = run_sweep(
        "sweep_qa.sh", PYTHON=str(project / "fake python"), SETUPS="qa", LRS="1 fails 3", SEEDS="7", REDUCTIONS="8"
    )
    commands = [f"{COMMAND} --learning_rate {lr} --seed 7 --adapter_reduction_factor 8" for lr in ("1", "fails", "3")]
    assert started(project) == commands
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1] == "3 trials, 1 failed"
    error, summary = result.stderr.splitlines()
    assert error == "error: it fails"
    assert summary.startswith("failed with exit code 1: ")
    assert commands[1] in summary


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_trial_stops_the_sweep(project: Path, number: int, code: int) -> None:
    settings = {"PYTHON": str(project / "fake python"), "SETUPS": "qa", "LRS": "stops", "SEEDS": "1 2 3"}
    command = ["bash", str(project / "sweeps" / "sweep_qa.sh")]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env=environment(**settings), start_new_session=True
    ) as sweep:
        while not (project / "started").exists():
            time.sleep(0.05)
        time.sleep(0.2)  # until the trial has set its traps
        if number == signal.SIGINT:
            os.killpg(sweep.pid, number)  # as a terminal does: all processes of the group
        else:
            trial = subprocess.run(["pgrep", "-P", str(sweep.pid)], capture_output=True, text=True, check=True)
            os.kill(int(trial.stdout), number)
        assert sweep.wait(timeout=60) == code
    assert len(started(project)) == 1


def test_slurm_task_runs_the_trial_with_its_number(run_sweep: RunSweep, project: Path) -> None:
    settings = {"PYTHON": str(project / "fake python"), "SETUPS": "qa full", "LRS": "1 fails", "SEEDS": "1"}
    copied = project / "spool" / "slurm_script"
    copied.parent.mkdir()
    shutil.copy(project / "sweeps" / "slurm_qa.sh", copied)  # as SLURM does
    codes = {}
    for task in range(5):
        slurm = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_SUBMIT_DIR": str(project)}
        result = subprocess.run(
            ["bash", str(copied)], env=environment(**settings, **slurm), capture_output=True, text=True, check=False
        )
        codes[task] = result.returncode
    assert codes == {0: 0, 1: 1, 2: 0, 3: 1, 4: 2}
    assert result.stderr == "error: task 4: there are 4 trials; give --array=0-3\n"
    assert [line.split("--learning_rate ")[1].split()[0] for line in started(project)] == ["1", "fails", "1", "fails"]
    assert run_sweep("slurm_qa.sh", **settings).stdout == "4 trials: sbatch --array=0-3 sweeps/slurm_qa.sh\n"


def test_signal_to_a_slurm_job_reaches_the_trial(project: Path) -> None:
    settings = {"PYTHON": str(project / "fake python"), "SETUPS": "qa", "LRS": "stops", "SEEDS": "1"}
    slurm = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_SUBMIT_DIR": str(project)}
    with subprocess.Popen(["bash", project / "sweeps" / "slurm_qa.sh"], env=environment(**settings, **slurm)) as job:
        while not (project / "started").exists():
            time.sleep(0.05)
        time.sleep(0.2)  # until the trial has set its traps
        job.terminate()  # as --signal=B:TERM does: the job's process alone
        assert job.wait(timeout=60) == 143


def test_trainer_runs_in_a_sweep_and_skips_finished_trials(
    run_sweep: RunSweep, project: Path, tiny_bert: Path, squad_files: tuple[Path, Path]
) -> None:
    (project / "run_qa_adapter.py").symlink_to(ROOT / "run_qa_adapter.py")
    settings = {
        "PYTHON": sys.executable, "MODEL": str(tiny_bert), "TRAIN": str(squad_files[0]), "DEV": str(squad_files[1]),
        "SETUPS": "qa", "LRS": "1e-2 nan", "SEEDS": "1", "EPOCHS": "1", "OMP_NUM_THREADS": "1",
        "EXTRA": "--max_seq_length 64 --doc_stride 16 --report_to none --use_cpu True",
    }  # fmt: skip
    result = run_sweep("sweep_qa.sh", **settings)
    assert result.returncode == 1
    assert "error: --learning_rate nan: must be a finite number" in result.stderr.splitlines()
    (run,) = (project / "outputs").glob("*/*/*/run.json")
    before = run.read_bytes()
    assert json.loads(before)["status"] == "finished"
    assert "_seed1_" in run.parent.name
    again = run_sweep("sweep_qa.sh", **settings)
    assert again.stdout.splitlines()[-1] == "2 trials, 1 failed"
    assert f"{run.parent.relative_to(project)}: this run is finished" in again.stdout + again.stderr
    assert run.read_bytes() == before

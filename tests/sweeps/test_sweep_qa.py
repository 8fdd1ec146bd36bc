"""sweep_qa.py: its command line, and sweeps of the real trainer."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.scripts import ROOT, run_script
from support.sweeps import FAKE, WriteSweep, read_lines_until, read_report, run_worker, start_worker, worker_command
from support.terminal import run_in_terminal

import sweep_qa
from adapter_qa.core.errors import UserError


def test_problems_of_command_line_and_file_are_reported_together(
    write_sweep: WriteSweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "optuna" else pytest.fail(name))
    file = write_sweep(trials=-1)
    with pytest.raises(UserError) as caught:
        sweep_qa.main([str(file), "--lease", "0", "--output_dir", str(file)])
    assert caught.value.problems == [
        "--lease 0.0: must be at least 3 (seconds)",
        'optuna is not installed; pip install "adapter-qa[sweep]"',
        f"--output_dir {file}: is a file; give a folder",
        f"{file}: trials -1: Expected int >= 1",
    ]


def test_dry_run_prints_commands_and_writes_nothing(
    write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    search = {
        "learning_rate": [1e-4, "3e-4"],
        "setup": {"choices": {"a b": {"fuse_adapters": ["x=1", "y=2"]}, "c": {}}},
    }
    file = write_sweep(trials=..., search=search, launcher="torchrun --nproc_per_node 2", options={"language": "pt br"})
    assert run_worker(file, "--dry_run") == 0
    data, folder = tmp_path / "data.json", tmp_path / "sweep"
    shared = (
        f"torchrun --nproc_per_node 2 {FAKE} --model_name_or_path=base --do_train=True --do_eval=True "
        f"--train_file={data} --validation_file={data} '--language=pt br'"
    )
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}: 4 trials, f1, sampler grid, pruner none",
        "  learning_rate: 0.0001, 0.0003",
        "  setup: a b, c",
        f"{shared} --learning_rate=0.0001 --fuse_adapters x=1 y=2 --output_dir {folder}/trials/0000",
        f"{shared} --learning_rate=0.0001 --output_dir {folder}/trials/0001",
        f"{shared} --learning_rate=0.0003 --fuse_adapters x=1 y=2 --output_dir {folder}/trials/0002",
    ]
    assert not folder.exists()


def test_dry_run_notes_missing_data_and_a_start_refuses_it(
    write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"train_file": "none.json", "validation_file": "no/dev_*.json"}
    file = write_sweep(options=options, launcher="no-such-torchrun")
    problems = [
        f"{file}: launcher no-such-torchrun: no such program; give its name as in a shell, or its path",
        f"{file}: --train_file none.json: no such file; give the path of a file",
        f"{file}: --validation_file no/dev_*.json: no file matches; give a path, or a pattern that matches",
    ]
    assert run_worker(file, "--dry_run") == 0
    output = capsys.readouterr()
    assert output.err.splitlines() == [f"note: {problem}" for problem in problems]
    assert output.out.count(" --train_file=none.json ") == 3
    with pytest.raises(UserError) as caught:
        run_worker(file)
    assert caught.value.problems == problems
    wrong = write_sweep(options={"train_file": "none.json", "warmup_ratio": 7})
    with pytest.raises(UserError) as caught:
        run_worker(wrong, "--dry_run")
    assert caught.value.problems == [f"{file}: --warmup_ratio 7: must be between 0 and 1"]


def test_dry_run_of_the_example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # without data, as a fresh clone is
    assert sweep_qa.main([str(ROOT / "sweeps" / "qa.yaml"), "--dry_run"]) == 0


def test_reader_that_closes_the_pipe(write_sweep: WriteSweep) -> None:
    """As in `sweep_qa.py ... --dry_run | head -1`."""
    command = [sys.executable, str(ROOT / "sweep_qa.py"), str(write_sweep()), "--dry_run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, stderr = process.communicate()
    assert (process.returncode, stderr) == (128 + signal.SIGPIPE, b"")


def test_screen_of_a_sweep(write_sweep: WriteSweep) -> None:
    file = write_sweep(trials=2, search={"seed": [1, 2]})
    screens: list[str] = []
    environment = {"FAKE_SECONDS": "0.3", "NO_COLOR": "1"}
    screen = run_in_terminal(
        worker_command(file), columns=80, rows=24, env=environment, on_screen=lambda text, _: screens.append(text)
    )
    assert screen.exit_code == 0
    tables = [text[text.index("\ntrial  state") + 1 :].splitlines() for text in screens if "trial  state" in text]
    assert any(
        len(table) == 4
        and re.fullmatch(r"    0  finished      4  41\.0  00:0\d     1", table[1])
        and re.fullmatch(r"    1  running       [1-4]  [1-4]2\.0  00:0\d     2", table[2])
        and re.fullmatch(r"1 of 2 done, 1 running; best F1 41\.0 \(trial 0\); about \d s left", table[3])
        for table in tables
    )
    shown = [re.sub(r"\d s\b", "N s", line) for line in screen.lines if re.match(r"(\d )?trials?:? ", line)]
    assert shown == [
        "trial 0: seed=1: F1 41.0, 4 evaluations, N s",
        "trial 1: seed=2: F1 42.0, 4 evaluations, N s",
        "2 trials: 2 finished; N s of training",
    ]


def real_sweep(
    write_sweep: WriteSweep, base: Path, files: tuple[Path, Path], more: dict[str, Any] | None = None, **entries: Any
) -> Path:
    """Write a sweep of the real trainer over small questions; `more` has further options."""
    options = {
        "model_name_or_path": str(base), "train_file": str(files[0]), "validation_file": str(files[1]),
        "max_seq_length": 64, "doc_stride": 16, "num_train_epochs": 2, "report_to": "none", "use_cpu": True,
    }  # fmt: skip
    return write_sweep(options=options | (more or {}), **entries)


def test_sweep_of_the_trainer(write_sweep: WriteSweep, tiny_bert: Path, squad_files: tuple[Path, Path]) -> None:
    file = real_sweep(write_sweep, tiny_bert, squad_files, trials=..., search={"learning_rate": [1e-2, "2e-2"]})
    folder = file.parent / "sweep é"
    done = run_script("sweep_qa.py", file, "--output_dir", folder)
    assert done.returncode == 0, done.stderr
    trials = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["trials"]
    assert [(trial["state"], trial["params"]) for trial in trials] == [
        ("finished", {"learning_rate": 0.01}),
        ("finished", {"learning_rate": 0.02}),
    ]
    for trial in trials:
        run = json.loads((Path(trial["folder"]) / "run.json").read_text(encoding="utf-8"))
        assert run["options"]["learning_rate"] == trial["params"]["learning_rate"]
        assert trial["f1"] == run["metrics"]["eval"]["eval_f1"] == max(trial["evaluations"])
        assert trial["evaluations"] == [entry["eval_f1"] for entry in run["history"]]
        assert len(run["history"]) == 2


def test_trainer_refuses_before_anything_is_written(
    write_sweep: WriteSweep, tmp_path: Path, squad_files: tuple[Path, Path]
) -> None:
    base = tmp_path / "empty"
    base.mkdir()
    file = real_sweep(write_sweep, base, squad_files)
    done = run_script("sweep_qa.py", file, "--output_dir", file.parent / "sweep")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: --model_name_or_path {base}: no config.json of a model can be read there")
    assert not (file.parent / "sweep").exists()


@pytest.mark.slow
def test_twelve_trainings_with_three_workers_one_of_them_killed(
    write_sweep: WriteSweep, tiny_bert: Path, squad_files: tuple[Path, Path]
) -> None:
    search = {"learning_rate": {"low": 1e-3, "high": 3e-2, "log": True}}
    long = {"num_train_epochs": 20}  # long enough to be killed midway
    file = real_sweep(write_sweep, tiny_bert, squad_files, more=long, trials=12, sampler="tpe", search=search)
    workers = [start_worker(file, "--lease", "20", script=ROOT / "run_qa_adapter.py") for _ in range(3)]
    victim = workers[1]
    lines = read_lines_until(victim, " of 12: ", " of 12: ", "evaluation 1, ")
    victim.send_signal(signal.SIGKILL)
    killed = int(lines[-1].split(":")[0].removeprefix("trial "))
    for worker in (workers[0], workers[2]):
        output, _ = worker.communicate(timeout=1200)
        assert worker.returncode == 0, output
    victim.communicate()
    trials = read_report(file)["trials"]
    assert [(trial["number"], trial["state"]) for trial in trials] == [(number, "finished") for number in range(12)]
    assert len({trial["params"]["learning_rate"] for trial in trials}) == 12
    for trial in trials:
        folder = Path(trial["folder"])
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        assert run["status"] == "finished"
        assert trial["f1"] == run["metrics"]["eval"]["eval_f1"]
        assert run["options"]["learning_rate"] == trial["params"]["learning_rate"]
        log = folder.with_suffix(".log").read_text(encoding="utf-8")
        started, resumed = log.count("  setup       Stack[qa]"), log.count("  resumes     from checkpoint-")
        assert (started, resumed) == ((2, 1) if trial["number"] == killed else (1, 0))
        assert len(run["history"]) == len(trial["evaluations"]) == 20


def test_help_needs_no_optuna(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SystemExit) as stopped:
        sweep_qa.main(["--help"])
    assert stopped.value.code == 0
    assert "pip install" not in capsys.readouterr().out

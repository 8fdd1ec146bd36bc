"""--report_to trackio: what a run logs into trackio's local database."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.scripts import run_main
from transformers import TrainerCallback

import run_qa_adapter
from adapter_qa.config.checks.trackio_logging import TRACKIO_VERSION, trackio_problems
from adapter_qa.config.options import TrainingOptions
from adapter_qa.training import callbacks

pytest.importorskip("trackio", reason="trackio is not installed")
Rows = list[tuple[str, dict[str, float]]]


class InterruptAtStep(TrainerCallback):
    """Sends SIGTERM to this process after the fourth step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def read_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Rows]:
    """Let trackio log into a folder of the test, and return a function that reads names of runs and their metrics."""
    import trackio

    folder = tmp_path / "trackio"
    monkeypatch.setenv("TRACKIO_DIR", str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        if hasattr(sys.modules[name], "TRACKIO_DIR"):
            monkeypatch.setattr(sys.modules[name], "TRACKIO_DIR", folder)

    def read() -> Rows:
        trackio.finish()  # what the process would do at its end
        (database,) = folder.glob("*.db")
        assert database.name == "p.db"
        with sqlite3.connect(database) as connection:
            rows = connection.execute("select run_name, metrics from metrics order by id").fetchall()
        return [(name, json.loads(metrics)) for name, metrics in rows]

    return read


def read_run(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))


def test_losses_and_evaluations_of_an_interrupted_and_resumed_run(
    tiny_bert: Path, squad_files: tuple[Path, Path], read_logs: Callable[[], Rows], tmp_path: Path
) -> None:
    folder, evaluated = tmp_path / "run", tmp_path / "evaluated"
    shared = ["--model_name_or_path", tiny_bert, "--validation_file", squad_files[1], "--do_eval", "--use_cpu"]
    shared += ["--max_seq_length", 64, "--doc_stride", 16, "--report_to", "trackio", "--project", "p"]
    training = [*shared, "--do_train", "--train_file", squad_files[0], "--num_train_epochs", 2, "--output_dir", folder]
    training += ["--logging_steps", 1]
    original = callbacks.make_callbacks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "make_callbacks", lambda *args: [*original(*args), InterruptAtStep()])
        stopped = run_main(run_qa_adapter.main, *training)
    assert (stopped.returncode, read_run(folder)["status"]) == (143, "interrupted"), stopped.stderr
    logged = read_logs()
    assert [row["train/global_step"] for _, row in logged if "train/loss" in row] == [1, 2, 3, 4]
    resumed = run_main(run_qa_adapter.main, *training)
    assert resumed.returncode == 0, resumed.stderr

    logged = read_logs()
    assert {name for name, _ in logged} == {str(folder)}
    run = read_run(folder)
    losses = {row["train/global_step"]: row["train/loss"] for _, row in logged if "train/loss" in row}
    assert len([row for _, row in logged if "train/loss" in row]) == len(losses) == 6
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    assert losses == {entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry}
    evaluations = [row for _, row in logged if "eval/f1" in row]
    assert [(row["eval/f1"], row["eval/loss"], row["train/epoch"]) for row in evaluations] == [
        (entry["eval_f1"], entry["eval_loss"], entry["epoch"]) for entry in run["history"]
    ]

    done = run_main(run_qa_adapter.main, *shared, "--load_adapter", folder, "--output_dir", evaluated)
    assert done.returncode == 0, done.stderr
    name, row = read_logs()[-1]
    assert (name, row["eval/f1"]) == (str(evaluated), read_run(evaluated)["metrics"]["eval"]["eval_f1"])


def problems(**values: Any) -> list[str]:
    return trackio_problems(TrainingOptions(do_train=True, **values))


def test_installation_that_cannot_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.2.2")
    assert problems(report_to=["trackio"]) == problems(report_to=["all"]) == [
        "--report_to trackio: version 0.2.2 is installed, which lacks what transformers calls; pip install "
        f'"trackio=={TRACKIO_VERSION}"'
    ]  # fmt: skip
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert problems(report_to=["trackio"]) == [
        f'--report_to trackio: is not installed; pip install "trackio=={TRACKIO_VERSION}"'
    ]
    assert problems(report_to=["all"]) == []


def test_database_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "new"))
    assert problems(report_to=["trackio"]) == []
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "file" / "new"))
    assert problems(report_to=["trackio"]) == [
        f"--report_to trackio: {tmp_path / 'file' / 'new'} cannot be written; name another folder in TRACKIO_DIR"
    ]
    assert problems(report_to=["tensorboard"]) == []


def test_space_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert problems(report_to=["trackio"], trackio_space_id="me/space") == [
        "--trackio_space_id me/space: cannot be reached, HF_HUB_OFFLINE is set; leave out one of the two"
    ]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/other")
    assert problems(report_to=["trackio"]) == [
        "--trackio_space_id me/other: needs a login; run hf auth login or set HF_TOKEN"
    ]
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    assert problems(report_to=["trackio"]) == []

"""The note on files that are trained on and evaluated as well (adapter_qa/training/shared_files.py)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.scripts import ROOT

from adapter_qa.config.parser import parse_config
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.training.mlm_data import load_texts
from adapter_qa.training.ner_data import load_sentences
from adapter_qa.training.qa_data import load_questions

SAMPLE = ROOT / "examples" / "sample"
SQUAD = ROOT / "tests" / "fixtures" / "runs_0.1.0" / "data"
TASKS: dict[str, tuple[Any, Any, Path, Path]] = {  # configuration, reader, two files of different content
    "qa": (QARunConfig, load_questions, SQUAD / "train.json", SQUAD / "dev.json"),
    "ner": (NERRunConfig, load_sentences, SAMPLE / "lener_dev.conll", SAMPLE / "lener_train.conll"),
    "mlm": (MLMRunConfig, load_texts, SAMPLE / "texts.txt", SAMPLE / "lener_dev.conll"),
}
END = "; the scores say nothing about new text"


def notes_of(task: str, *words: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the notes on shared files that loading the data of a run draws."""
    config_class, load, *_ = TASKS[task]
    load(parse_config(config_class, ["--model_name_or_path", "x", *words], description="", examples=""))
    return [line for line in capsys.readouterr().err.splitlines() if line.endswith(END)]


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A task whose files lie in the working directory: `train`, the same as `link` and `copy`, and `other`."""
    name: str = request.param
    monkeypatch.chdir(tmp_path)
    *_, first, second = TASKS[name]
    suffix = first.suffix
    shutil.copy(first, f"train{suffix}")
    shutil.copy(first, f"copy{suffix}")
    os.symlink(f"train{suffix}", f"link{suffix}")
    shutil.copy(second, f"other{second.suffix}")
    return name


def test_the_same_file_draws_one_line(task: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    suffix, other = (path.suffix for path in TASKS[task][2:])
    train, limit = f"train{suffix}", ("--max_train_samples", "3", "--max_eval_samples", "2")
    both = ("--do_train", "--do_eval", "--train_file", train, "--validation_file")
    for same, shown in (
        (train, train),
        (f"link{suffix}", f"link{suffix}"),
        (f"copy{suffix}", f"copy{suffix}"),
        (str(tmp_path / train), str(tmp_path / train)),
        (f"[t]rain{suffix}", train),
    ):
        note = f"note: --validation_file {shown} is also trained on (--train_file {train}){END}"
        assert notes_of(task, *both, same, capsys=capsys) == [note]
        assert notes_of(task, *both, same, *limit, capsys=capsys) == [note]
    assert notes_of(task, *both, f"other{other}", capsys=capsys) == []
    assert notes_of(task, "--do_train", "--train_file", train, capsys=capsys) == []
    no_training = ("--do_eval", "--train_file", train, "--validation_file", train, "--load_adapter", "org/run")
    assert notes_of(task, *no_training, capsys=capsys) == []


def test_one_of_several_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("Ana B-PER\n\n")
    (tmp_path / "b.conll").write_text("Bia B-PER\n\n")
    (tmp_path / "c.conll").write_text("Cid B-PER\n\n")
    a, b, c = (str(tmp_path / f"{name}.conll") for name in "abc")
    words = ("--do_train", "--do_eval", "--do_predict", "--train_file", a, b, "--test_file", b)
    on_b = f"note: --test_file {b} is also trained on (--train_file {b}){END}"
    assert notes_of("ner", *words, "--validation_file", c, b, capsys=capsys) == [
        on_b.replace("--test_file", "--validation_file"),
        on_b,
    ]
    (both, _) = notes_of("ner", *words, "--validation_file", b, a, capsys=capsys)
    assert both == f"note: --validation_file {b} and 1 more are also trained on (--train_file {b}){END}"


def test_a_file_of_a_folder_of_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("Um texto.\n")
    (folder / "b.txt").write_text("Outro texto.\n")
    words = ("--do_train", "--do_eval", "--train_file", str(folder), "--validation_file")
    b = str(folder / "b.txt")
    assert notes_of("mlm", *words, b, capsys=capsys) == [
        f"note: --validation_file {b} is also trained on (--train_file {b}){END}"
    ]

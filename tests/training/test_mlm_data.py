"""The texts of a language adapter's run (adapter_qa/training/mlm_data.py): files, folders and data sets."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import msgspec
import pytest
from support.problems import problem_of, problems_of

from adapter_qa.config.parser import parse_config
from adapter_qa.config.run_configs import MLMRunConfig
from adapter_qa.core.files import file_fingerprint, joint_sha256
from adapter_qa.training.mlm_data import TextSplit, load_texts

TEXTS = [f"Texto {number}." for number in range(6)]


def config(*argv: object) -> MLMRunConfig:
    words = ["--model_name_or_path", "base", *map(str, argv)]
    return parse_config(MLMRunConfig, words, description="", examples="")


def load(*argv: object) -> dict[str, TextSplit]:
    return load_texts(config(*argv))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, which is the working directory, with texts in files of three kinds."""
    monkeypatch.chdir(tmp_path)
    Path("parts/more").mkdir(parents=True)
    Path("parts/1.txt").write_text("\n".join(TEXTS[:2]))
    Path("parts/more/2.txt").write_text(TEXTS[2])
    Path("3.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in (TEXTS[3], "", TEXTS[4])))
    Path("4.csv").write_text(f"text\n{TEXTS[5]}\n")
    return tmp_path


def test_files_patterns_and_folders_are_read_in_order(files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    split = load("--do_train", "--train_file", "4.csv", "parts", "[3].jsonl")["train"]
    assert split.texts == [TEXTS[5], *TEXTS[:5]]
    assert (split.source.texts, split.source.empty_texts) == (6, 1)
    of_folder = [file_fingerprint("parts/1.txt"), file_fingerprint("parts/more/2.txt")]
    folder = {"file": "parts", "bytes": 25, "sha256": joint_sha256(of_folder), "files_read": 2}
    assert msgspec.to_builtins(split.source.files) == [file_fingerprint("4.csv"), folder, file_fingerprint("3.jsonl")]
    assert capfd.readouterr().err == "note: 4.csv parts [3].jsonl: 1 records without text are left out\n"


def test_one_file_is_recorded_as_before(files: Path) -> None:
    splits = load("--do_eval", "--train_file", "parts/1.txt", "--validation_file", "4.csv")
    assert msgspec.to_builtins(splits["train"].source) == {**file_fingerprint("parts/1.txt"), "texts": 2}
    assert splits["eval"].texts == [TEXTS[5]]


def test_problems_of_all_files_are_reported_at_once(files: Path) -> None:
    Path("bad.jsonl").write_text('{"corpo": "x"}')
    Path("bad.txt").write_bytes(b"\xff")
    problems = problems_of(load, "--do_train", "--train_file", "bad.jsonl", "bad.txt", "--validation_file", "bad.jsonl")
    first = "bad.jsonl: line 1: no 'text' or 'context'; found: corpo; --text_column chooses another"
    assert problems == [first, "bad.txt: not UTF-8 at byte 0: it seems to be Latin-1; save the file as UTF-8", first]


def test_a_text_column_is_of_use_or_refused(files: Path) -> None:
    Path("5.jsonl").write_text('{"corpo": "x"}')
    column = ("--text_column", "corpo")
    splits = load("--do_train", "--train_file", "parts/1.txt", "--validation_file", "5.jsonl", *column)
    assert (splits["train"].texts, splits["eval"].texts) == (TEXTS[:2], ["x"])
    assert problem_of(load, "--do_train", "--train_file", "parts", *column) == (
        "--text_column corpo: .txt files have no columns; leave the option out"
    )


# ---------------------------------------------------------------- data sets


@pytest.fixture
def data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a data set with the splits train and validation, as the library saves it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    splits = {"train": TEXTS[:4], "validation": TEXTS[4:]}
    data = {
        name: datasets.Dataset.from_dict({"text": texts, "id": range(len(texts))}) for name, texts in splits.items()
    }
    datasets.DatasetDict(data).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_data_set_brings_both_splits(data_set: Path) -> None:
    splits = load("--do_train", "--do_eval", "--dataset_name", data_set)
    assert {name: split.texts for name, split in splits.items()} == {"train": TEXTS[:4], "eval": TEXTS[4:]}
    source = {"dataset": str(data_set), "config": None, "split": "validation", "texts": 2}
    assert msgspec.to_builtins(splits["eval"].source) == source
    assert list(load("--do_train", "--dataset_name", data_set)) == ["train", "eval"]  # trains on the same text
    assert list(load("--do_eval", "--dataset_name", data_set)) == ["eval"]


def test_files_go_before_the_splits_of_a_data_set(data_set: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Ana.")
    splits = load("--do_train", "--dataset_name", data_set, "--validation_file", tmp_path / "a.txt")
    assert (splits["train"].texts, splits["eval"].texts) == (TEXTS[:4], ["Ana."])


def test_a_folder_of_files_is_a_data_set_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(json.dumps({"corpo": text}) for text in TEXTS))
    splits = load("--do_train", "--do_eval", "--dataset_name", folder, "--text_column", "corpo")
    assert {name: split.texts for name, split in splits.items()} == {"train": TEXTS}
    problem = problem_of(load, "--do_train", "--dataset_name", folder)
    assert problem == f"{folder} (train): row 0: no 'text' or 'context'; found: corpo; --text_column chooses another"


def test_a_missing_data_set_is_reported(tmp_path: Path) -> None:
    problem = problem_of(load, "--do_train", "--dataset_name", "nobody/nothing")
    assert problem.startswith("dataset 'nobody/nothing', configuration None: cannot be loaded: ConnectionError: ")


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--do_train"], "--do_train needs --train_file or --dataset_name"),
        (["--do_eval"], "--do_eval needs --validation_file, or --train_file or --dataset_name to take a share of"),
        (
            ["--do_train", "--train_file", "4.csv", "--dataset_config_name", "pt"],
            "--dataset_config_name: names a configuration of --dataset_name, which is not given",
        ),
        (
            ["--do_train", "--train_file", "4.csv", "--validation_file", "3.jsonl", "--dataset_name", "x"],
            "--dataset_name: is not read beside --train_file and --validation_file; leave it out",
        ),
        (
            ["--do_train", "--train_file", "none*"],
            "--train_file none*: no file matches; give a path, or a pattern that ",
        ),
    ],
)
def test_options_that_do_not_fit(files: Path, argv: list[str], problem: str) -> None:
    assert problem_of(config, *argv).startswith(problem)

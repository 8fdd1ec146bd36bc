"""The sentences of a NER run (adapter_qa/training/ner_data.py), and runs on files of many forms.

Oracle of the scores: the span counter of `reference.entity_spans`.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import msgspec
import pytest
from reference.entity_spans import counted_scores
from support.conll_files import read_sentences
from support.problems import problem_of, problems_of
from support.scripts import run_main

import run_ner_adapter
from adapter_qa.config.parser import parse_config
from adapter_qa.config.run_configs import NERRunConfig
from adapter_qa.core.files import file_fingerprint
from adapter_qa.data.readers.sentences import Sentence
from adapter_qa.runs.run_document import DataSource
from adapter_qa.training.ner_data import KnownLabels, SentenceSplit, known_labels, load_sentences

IOB2 = "Ana B-PER\nLima I-PER\nmora O\n\nem O\nRecife B-LOC\n"
BIOES = "Ana B-PER\nLima E-PER\nmora O\n\nem O\nRecife S-LOC\n"
SENTENCES = [Sentence(("Ana", "Lima", "mora"), ("B-PER", "I-PER", "O")), Sentence(("em", "Recife"), ("O", "B-LOC"))]
NAMES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def load(*argv: object) -> dict[str, SentenceSplit]:
    words = ["--model_name_or_path", "base", *map(str, argv)]
    config: NERRunConfig = parse_config(NERRunConfig, words, description="", examples="")
    return load_sentences(config)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a file of each scheme."""
    monkeypatch.chdir(tmp_path)
    Path("iob2.conll").write_text(IOB2)
    Path("bioes.conll").write_text(BIOES)
    return tmp_path


# ---------------------------------------------------------------- sentences


def test_files_and_patterns_are_read_in_order(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("c.jsonl").write_text(json.dumps({"tokens": ["x"], "tags": ["S-X"]}))
    splits = load("--do_train", "--train_file", "c.jsonl", "*.conll", "--do_eval", "--validation_file", "iob2.conll")
    assert splits["train"].sentences == [Sentence(("x",), ("B-X",)), *SENTENCES, *SENTENCES]
    source = splits["train"].source
    assert source.paths == ["c.jsonl", "bioes.conll", "iob2.conll"]
    assert (source.sentences, source.label_schemes) == (5, ["BIOES"])
    assert msgspec.to_builtins(splits["eval"].source) == {**file_fingerprint("iob2.conll"), "sentences": 2}
    scheme, same = capfd.readouterr().err.splitlines()
    assert scheme == "note: c.jsonl and 1 more: labels in BIOES became IOB2"
    assert same.startswith("note: --validation_file iob2.conll is also trained on")


def test_only_the_first_sentences_are_used(folder: Path) -> None:
    splits = load("--do_train", "--train_file", "iob2.conll", "bioes.conll", "--max_train_samples", "3")
    assert splits["train"].sentences == [*SENTENCES, SENTENCES[0]]
    assert splits["train"].source.sentences == 3


def test_test_files_need_no_labels(folder: Path) -> None:
    Path("words.conll").write_text("# id 1\nAna\nLima\nmora\n\nem\nRecife\n")
    expected = [Sentence(sentence.words, ()) for sentence in SENTENCES]
    for name in ("words.conll", "iob2.conll", "bioes.conll"):
        splits = load("--do_predict", "--load_adapter", "org/x", "--test_file", name, "--label_names", "O", "B-X")
        assert splits["predict"].sentences == expected


def test_data_sets_have_splits(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    labels = datasets.List(datasets.ClassLabel(names=["O", "B-PER", "E-PER", "S-LOC"]))
    features = datasets.Features(tokens=datasets.List(datasets.Value("string")), ner_tags=labels)
    rows = {"tokens": [["Ana", "Lima", "mora"], ["em", "Recife"]], "ner_tags": [[1, 2, 0], [0, 3]]}
    table = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(train=table, validation=table, test=table).save_to_disk("d")
    capfd.readouterr()
    splits = load("--do_train", "--do_predict", "--dataset_name", "d", "--do_eval", "--validation_file", "iob2.conll")
    assert splits["train"].sentences == splits["eval"].sentences == SENTENCES
    assert splits["predict"].sentences == [Sentence(sentence.words, ()) for sentence in SENTENCES]
    name = str(folder / "d")
    source = {"dataset": name, "config": None, "split": "train", "sentences": 2, "label_schemes": ["BIOES"]}
    assert msgspec.to_builtins(splits["train"].source) == source
    assert capfd.readouterr().err == "note: d (train): labels in BIOES became IOB2\n"


def test_chosen_columns_and_names(folder: Path) -> None:
    Path("a.tsv").write_text("1\tAna\t1\tX\n2\tmora\t0\tX\n")
    options = ["--word_column", "2", "--label_column=-2", "--label_names", "O", "B-PER"]
    splits = load("--do_train", "--train_file", "a.tsv", *options)
    assert splits["train"].sentences == [Sentence(("Ana", "mora"), ("B-PER", "O"))]


def test_problems_of_all_files_are_reported_at_once(folder: Path) -> None:
    Path("a.conll").write_text("Ana PER\n")
    Path("b.jsonl").write_text('{"text": "Ana"}')
    problems = problems_of(load, "--do_train", "--do_eval", "--train_file", "a.conll", "--validation_file", "b.jsonl")
    assert [problem.split(":")[0] for problem in problems] == ["a.conll, line 1", "b.jsonl, line 1"]


def test_data_from_which_nothing_is_learned(folder: Path) -> None:
    Path("a.conll").write_text(f"Ana O\n\n{IOB2}")
    nothing = "all labels are O; there is nothing to learn"
    assert problem_of(load, "--do_train", "--train_file", "a.conll", "--max_train_samples", "1") == (
        f"a.conll: the first 1 sentences name no entity, {nothing}"
    )
    Path("a.conll").write_text("Ana O\n")
    assert problem_of(load, "--do_train", "--train_file", "a.conll") == f"a.conll: names no entity, {nothing}"
    assert problem_of(load, "--do_train", "--train_file", "iob2.conll", "--label_names", "O", "B-X") == (
        "--label_names: is for labels that are numbers; those of the data are text; leave it out"
    )


def test_the_best_metric_needs_entities_in_the_evaluation(folder: Path) -> None:
    Path("dev.conll").write_text("Ana O\n")
    options = "--do_train --do_eval --train_file bioes.conll --validation_file dev.conll --metric_for_best_model PER_f1"
    assert problem_of(load, *options.split()) == (
        "--metric_for_best_model PER_f1: not computed, no entity of the evaluation sentences is a PER; they name none, "
        "all labels are O"
    )


# ---------------------------------------------------------------- labels


def as_split(*labels: str) -> SentenceSplit:
    return SentenceSplit("f", [Sentence(tuple("w" * len(labels)), labels)], DataSource(), has_integers=False)


def test_labels_of_evaluation_that_training_lacks(capfd: pytest.CaptureFixture[str]) -> None:
    splits = {"train": as_split("B-PER", "B-LOC"), "eval": as_split("B-X", "I-X", "B-PER", "B-X", "B-A", "O")}
    assert known_labels(None, splits) == KnownLabels(NAMES, ["B-A", "I-A", "B-X", "I-X"])
    assert splits["eval"].source == DataSource(unseen_entities={"X": 2, "A": 1})
    assert capfd.readouterr().err == (
        "note: f: entities of types that the training sentences do not have count as missed: X (2), A (1)\n"
    )


def test_labels_of_training_that_evaluation_lacks(capfd: pytest.CaptureFixture[str]) -> None:
    assert known_labels(None, {"train": as_split("B-PER", "B-LOC"), "eval": as_split("I-PER")}) == (NAMES, [])
    assert known_labels(None, {}) == (["O"], [])
    assert capfd.readouterr().err == ""


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A folder with files, and in `ner` a run on them."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "iob2.conll").write_text(f"{IOB2}\n" * 4)
    (folder / "bioes.conll").write_text(f"{BIOES}\n" * 4)
    (folder / "dev.conll").write_text("Ana B-PER\nviu O\nRio B-ART\nVerde I-ART\n\nRecife B-LOC\nB B-ART\n")
    (folder / "words.tsv").write_text("Ana Lima\t\nmora\tO\n\u00a0\tO\n\nem\tO\n10 000\tO\n")
    run(folder, tiny_bert, "--do_train", "--do_eval", "--train_file", "iob2.conll", "--validation_file", "dev.conll",
        "--output_dir", "ner")  # fmt: skip
    return folder


def run(folder: Path, base: Path, *argv: object) -> str:
    """Run the script, require success and return its notes."""
    options = ["--max_seq_length", "32", "--num_train_epochs", "1", "--learning_rate", "1e-2", "--report_to", "none"]
    process = run_main(run_ner_adapter.main, "--model_name_or_path", base, *options, *argv, cwd=folder)
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stderr


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_unseen_entities_are_missed(runs: Path, tiny_bert: Path) -> None:
    record = read(runs / "ner" / "run.json")
    assert record["data"]["eval"]["unseen_entities"] == {"ART": 2}
    assert read(runs / "ner" / "adapters-ner" / "adapter_setup.json")["trainer"]["labels"] == NAMES
    notes = run(runs, tiny_bert, "--do_eval", "--do_predict", "--load_adapter", "ner/adapters-ner", "--validation_file",
                "dev.conll", "--test_file", "dev.conll", "--output_dir", "eval")  # fmt: skip
    assert "dev.conll: entities of types that the loaded head does not know count as missed: ART (2)" in notes
    predicted = read_sentences(runs / "eval" / "predict_predictions.conll", need_labels=True)
    gold = read_sentences(runs / "dev.conll", need_labels=True)
    assert [sentence.words for sentence in predicted] == [sentence.words for sentence in gold]
    expected = counted_scores(*([list(sentence.labels) for sentence in sentences] for sentences in (gold, predicted)))
    metrics = read(runs / "eval" / "eval_results.json")
    assert {name: metrics[f"eval_{name}"] for name in expected} == pytest.approx(expected)
    assert (metrics["eval_ART_entities"], metrics["eval_ART_recall"], metrics["eval_entities"]) == (2, 0, 4)


def test_sentences_that_leave_types_out_are_evaluated(runs: Path, tiny_bert: Path) -> None:
    notes = run(runs, tiny_bert, "--do_train", "--do_eval", "--train_file", "iob2.conll", "--max_train_samples", "1",
                "--validation_file", "iob2.conll", "--output_dir", "few")  # fmt: skip
    assert "iob2.conll: entities of types that the training sentences do not have count as missed: LOC (4)" in notes
    assert read(runs / "few" / "eval_results.json")["eval_LOC_entities"] == 4


def test_another_scheme_trains_the_same_weights(runs: Path, tiny_bert: Path) -> None:
    run(runs, tiny_bert, "--do_train", "--do_eval", "--train_file", "bioes.conll", "--validation_file", "dev.conll",
        "--output_dir", "bioes")  # fmt: skip
    first, second = (read(runs / name / "run.json") for name in ("ner", "bioes"))
    assert second["data"]["train"]["label_schemes"] == ["BIOES"]
    assert [loss["loss"] for loss in first["losses"]] == [loss["loss"] for loss in second["losses"]]
    first_files, second_files = (sorted((runs / name).glob("adapters-*/**/*.safetensors")) for name in ("ner", "bioes"))
    assert [path.name for path in first_files] == [path.name for path in second_files] != []
    assert [path.read_bytes() for path in first_files] == [path.read_bytes() for path in second_files]


def test_training_on_other_labels_than_the_loaded_head_is_refused(runs: Path, tiny_bert: Path) -> None:
    process = run_main(
        run_ner_adapter.main, "--model_name_or_path", tiny_bert, "--do_train", "--train_file", "dev.conll",
        "--load_adapter", "ner/adapters-ner", "--max_seq_length", "32", "--output_dir", "more", cwd=runs,
    )  # fmt: skip
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1] == (
        "error: dev.conll: labels B-ART, I-ART are not among those of the loaded head: O, B-LOC, I-LOC, B-PER, I-PER; "
        "a run without --load_adapter learns them"
    )


def test_predictions_can_be_read_back(runs: Path, tiny_bert: Path) -> None:
    run(runs, tiny_bert, "--do_predict", "--load_adapter", "ner/adapters-ner", "--test_file", "words.tsv",
        "--output_dir", "predict")  # fmt: skip
    path = runs / "predict" / "predict_predictions.conll"
    words = [("Ana Lima", "mora", "\u00a0"), ("em", "10 000")]
    predicted = read_sentences(path, need_labels=True)
    assert [sentence.words for sentence in predicted] == words
    assert {label for sentence in predicted for label in sentence.labels} <= {*NAMES}
    notes = run(runs, tiny_bert, "--do_train", "--train_file", "iob2.conll", path, "--output_dir", "again")
    assert "labels in" not in notes
    assert read(runs / "again" / "run.json")["data"]["train"]["sentences"] == 10


def test_predictions_are_written_by_the_main_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer: Any = SimpleNamespace(folder=tmp_path, predict_labels=lambda _: [list(SENTENCES[1].labels)])
    inputs: Any = None
    monkeypatch.setattr(run_ner_adapter, "on_main_process", lambda _: None)  # as in the other processes
    run_ner_adapter.write_predictions(trainer, [SENTENCES[1]], inputs)
    assert not [*tmp_path.iterdir()]
    monkeypatch.undo()
    run_ner_adapter.write_predictions(trainer, [SENTENCES[1]], inputs)
    assert (tmp_path / "predict_predictions.conll").read_text() == "em O\nRecife B-LOC\n"

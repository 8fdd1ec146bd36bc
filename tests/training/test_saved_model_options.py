"""The options for windows and answers that evaluating or training a saved run takes over from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.questions import make_questions, write_squad
from support.saved_runs import SavedRuns
from support.scripts import ROOT, override, run_main

import run_mlm_adapter
import run_ner_adapter
import run_qa_adapter
from adapter_qa.config.options import QADataOptions
from adapter_qa.config.parser import parse_config
from adapter_qa.config.run_configs import QARunConfig
from adapter_qa.training.saved_model_options import with_saved_model_options, without_saved_model_options

RECORDED = {
    "max_seq_length": 64, "doc_stride": 16, "n_best_size": 7, "max_answer_length": 5, "version_2": True,
    "null_score_diff_threshold": -1.5,
}  # fmt: skip
TAKEN = {**{name: value for name, value in RECORDED.items() if name != "version_2"}, "version_2_with_negative": True}


def parse(base: Path, dev: Path, *argv: object) -> QARunConfig:
    words = ["--model_name_or_path", base, "--do_eval", "--validation_file", dev, *argv]
    return parse_config(QARunConfig, [*map(str, words)], description="", examples="")


def write_metadata(folder: Path, name: str = "adapter_setup.json", windows: dict[str, Any] | None = RECORDED) -> Path:
    """Write what a saved folder records, and nothing else; return the folder."""
    folder.mkdir(parents=True)
    document = {"trainer": {} if windows is None else {"windows": windows}}
    (folder / name).write_text(json.dumps(document), encoding="utf-8")
    return folder


def values(config: QARunConfig) -> dict[str, Any]:
    return {name: getattr(config.data, name) for name in TAKEN}


def test_options_that_are_not_given_are_those_of_the_saved_run(
    tmp_path: Path, squad_files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    dev = squad_files[1]
    run = tmp_path / "run"
    folder = write_metadata(run / "adapters-qa")
    write_metadata(run / "adapters-qa.writing", windows=None)  # of a killed run
    for path in (run, folder):
        assert values(with_saved_model_options(parse(tmp_path, dev, "--load_adapter", path))) == TAKEN
        assert capsys.readouterr().err == (
            "note: --max_seq_length 64 --doc_stride 16 --n_best_size 7 --max_answer_length 5 --version_2_with_negative "
            f"True --null_score_diff_threshold -1.5: as {folder} was trained; other values can be given\n"
        )
    full = write_metadata(tmp_path / "full", "full_setup.json")
    assert values(with_saved_model_options(parse(full, dev, "--train_adapter", "False"))) == TAKEN
    capsys.readouterr()

    given = ["--max_seq_length", "384", "--version_2_with_negative", "False", "--doc_stride=16"]
    config = with_saved_model_options(parse(tmp_path, dev, "--load_adapter", run, *given))
    assert values(config) == TAKEN | {"max_seq_length": 384, "version_2_with_negative": False}
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"note: --max_seq_length 384: in place of 64, with which {folder} was trained",
        f"note: --version_2_with_negative False: in place of True, with which {folder} was trained",
    ]
    assert values(without_saved_model_options(config)) == {name: getattr(QADataOptions, name) for name in TAKEN} | {
        "max_seq_length": 384, "doc_stride": 16,
    }  # fmt: skip


def test_nothing_is_taken_from_other_models(
    tmp_path: Path, squad_files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A base model for new adapters, adapters of another task, of an earlier library, and several in one folder."""
    dev, defaults = squad_files[1], {name: getattr(QADataOptions, name) for name in TAKEN}
    full = write_metadata(tmp_path / "full", "full_setup.json")
    ner = write_metadata(tmp_path / "ner" / "adapters-ner", windows=None)
    write_metadata(tmp_path / "both" / "adapters-qa")
    write_metadata(tmp_path / "both" / "adapters-ner", windows=None)
    (tmp_path / "old").mkdir()
    for base, argv in (
        (full, []),
        (tmp_path, ["--load_adapter", ner]),
        (tmp_path, ["--load_adapter", tmp_path / "both"]),
        (tmp_path, ["--load_adapter", tmp_path / "old"]),
        (tmp_path, ["--train_adapter", "False"]),
    ):
        assert values(with_saved_model_options(parse(base, dev, *argv))) == defaults
    assert capsys.readouterr().err == ""


def test_saved_options_are_read_without_torch(tmp_path: Path, squad_files: tuple[Path, Path]) -> None:
    folder = write_metadata(tmp_path / "qa")
    argv = [
        "--model_name_or_path",
        folder,
        "--do_eval",
        "--validation_file",
        squad_files[1],
        "--load_adapter",
        folder,
    ]
    code = (
        "import sys, run_qa_adapter\nfrom adapter_qa.core.errors import UserError\n"
        "try:\n    run_qa_adapter.main(sys.argv[1:])\nexcept UserError as error:\n    print(error)\n"
        "print({'torch', 'transformers', 'adapters', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, argv)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"--model_name_or_path {folder}: no config.json of a model can be read there" in done.stdout
    assert done.stdout.endswith("set()\n")
    assert "--max_seq_length 64" in done.stderr


def test_evaluating_a_saved_run_uses_its_windows_and_a_resumed_run_keeps_its_own(
    saved_runs: SavedRuns, tiny_bert: Path, tmp_path: Path
) -> None:
    """Versions before these options were taken over began such runs with the defaults of the time."""
    dev = write_squad(tmp_path / "dev.json", make_questions(6, 2, sentences=7))  # several windows of 64 tokens each
    evaluation = [
        "--model_name_or_path", tiny_bert, "--do_eval", "--validation_file", dev, "--report_to", "none",
        "--load_adapter", saved_runs.qa,
    ]  # fmt: skip

    def evaluate(name: str, *changes: object) -> tuple[dict[str, Any], list[str]]:
        argv = override(evaluation, *changes, "--output_dir", tmp_path / name)
        done = run_main(run_qa_adapter.main, *argv)
        assert done.returncode == 0, done.stderr
        notes = [line for line in done.stderr.splitlines() if line.startswith("note: --")]
        if "this run is finished" in done.stdout:
            notes.append("finished")
        return json.loads((tmp_path / name / "run.json").read_text(encoding="utf-8")), notes

    folder = saved_runs.qa / "adapters-qa"
    note = f"note: --max_seq_length 64 --doc_stride 16: as {folder} was trained; other values can be given"
    run, notes = evaluate("saved")
    assert (run["options"]["max_seq_length"], run["options"]["doc_stride"]) == (64, 16)
    assert run["options"]["fusion_head"] == "new"  # nothing is fused; as in a run.json without this option
    assert notes == [note]
    assert evaluate("saved")[1] == [note, "finished"]
    as_given, _ = evaluate("given", "--max_seq_length", "64", "--doc_stride", "16", "--n_best_size", "50")
    n_best = json.loads((tmp_path / "given" / "eval_nbest_predictions.json").read_text(encoding="utf-8"))
    assert {len({(entry["start"], entry["end"]) for entry in entries}) for entries in n_best.values()} == {50}
    scores = ("eval_f1", "eval_exact", "eval_loss", "eval_windows")
    assert [run["metrics"]["eval"][name] for name in scores] == [as_given["metrics"]["eval"][name] for name in scores]

    begun, _ = evaluate("begun", "--max_seq_length", "100", "--doc_stride", "20")
    assert begun["metrics"]["eval"]["eval_windows"] < run["metrics"]["eval"]["eval_windows"]
    again, notes = evaluate("begun")
    assert again == begun
    assert notes[1:] == [
        f"note: --max_seq_length 100 --doc_stride 20: as the run in {tmp_path / 'begun'} began",
        "finished",
    ]
    replaced, _ = evaluate("begun", "--overwrite_output_dir", "True")
    assert replaced["options"]["max_seq_length"] == 64


@pytest.mark.parametrize(
    ("script", "option", "unit", "suffix"),
    [(run_ner_adapter, "max_seq_length", "inputs", "conll"), (run_mlm_adapter, "block_size", "blocks", "txt")],
)
def test_ner_and_mlm_runs_on_a_saved_adapter_use_its_length(
    script: ModuleType, option: str, unit: str, suffix: str, tiny_bert: Path, tmp_path: Path
) -> None:
    """An evaluation with the recorded length has as many inputs as the training run's own, with the default fewer."""
    data = tmp_path / f"dev.{suffix}"
    words = ["Ana\tB-PER", *["mora\tO"] * 60] if suffix == "conll" else ["Ana mora em Recife."] * 60
    data.write_text("\n".join(words) + "\n", encoding="utf-8")
    base = ["--model_name_or_path", str(tiny_bert), "--do_eval", "--validation_file", str(data), "--report_to", "none"]
    trained = ["--do_train", "--train_file", data, "--max_steps", 1, f"--{option}", 32, "--output_dir", tmp_path / "a"]
    assert run_main(script.main, *base, *trained).returncode == 0
    [folder] = (tmp_path / "a").glob("adapters-*")

    def evaluate(name: str, *words: object) -> tuple[dict[str, Any], list[str]]:
        done = run_main(script.main, *base, "--load_adapter", tmp_path / "a", *words, "--output_dir", tmp_path / name)
        assert done.returncode == 0, done.stderr
        document = json.loads((tmp_path / name / "run.json").read_text(encoding="utf-8"))
        return document, [line for line in done.stderr.splitlines() if line.startswith("note: --")]

    taken, notes = evaluate("b")
    assert taken["options"][option] == 32
    assert notes == [f"note: --{option} 32: as {folder} was trained; other values can be given"]
    given, notes = evaluate("c", f"--{option}", 64)
    assert given["options"][option] == 64
    assert notes == [f"note: --{option} 64: in place of 32, with which {folder} was trained"]
    assert taken["data"]["eval"][unit] > given["data"]["eval"][unit] > 0

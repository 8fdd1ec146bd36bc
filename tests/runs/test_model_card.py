"""Model cards: code, metadata for the hub, no names of local folders (adapter_qa/runs/model_card.py)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import save_file
from support.scripts import override
from support.setups import SETUPS, Maker, save_adapters

import run_qa_adapter
from adapter_qa.runs.model_card import public_name, write_card
from adapter_qa.runs.run_document import UNKNOWN_RUN, RunDocument
from predictor_qa import QuestionAnswerer

IDS = torch.tensor([[5, 17, 23, 9, 41, 30, 12, 8], [6, 7, 8, 9, 10, 11, 12, 13]])
# Runs the code of each card and prints the largest difference of its model's outputs from the saved ones.
RUN_CODE = """
import json, re, sys
from pathlib import Path
import torch
from safetensors.torch import load_file
differences = {}
for file in sorted(Path().glob("*.expected")):
    folder = file.with_suffix("")
    code = re.search("```python\\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    names = {}
    exec(code, names)
    expected = load_file(file)
    with torch.no_grad():
        outputs = names["model"](expected.pop("ids"))
    differences[folder.name] = max(
        (outputs[name] - output).abs().max().item() for name, output in expected.items()
    )
print(json.dumps(differences))
"""


def save_outputs(model: Any, folder: Path) -> None:
    """Save a model's outputs beside its folder."""
    with torch.no_grad():
        outputs = {name: output.contiguous() for name, output in model(IDS).items() if "logits" in name}
    save_file({"ids": IDS, **outputs}, folder.with_name(f"{folder.name}.expected"))


def run_code(folder: Path) -> dict[str, float]:
    """Run the code of all cards in a folder, in a process that cannot import this trainer."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN_CODE], cwd=folder, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return printed


@pytest.mark.parametrize("base", ["bert", pytest.param("roberta", marks=pytest.mark.slow)])
def test_code_of_every_card_loads_the_saved_folder(base: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    tiny: Path = request.getfixturevalue(f"tiny_{base}")
    (tmp_path / tiny.name).symlink_to(tiny)
    maker = Maker(tiny, tmp_path, std=0.1)
    saved = save_adapters(maker)
    for name, (_, options) in SETUPS.items():
        model, _, folder = maker.make(f"a {name}", *options(saved))
        save_outputs(model, folder)
        write_card(folder, UNKNOWN_RUN)
    differences = run_code(tmp_path)
    assert set(differences) == {f"a {name}" for name in SETUPS}
    for name, difference in differences.items():
        # The library multiplies a fusion's matrices in another order than `models.fusion`.
        assert difference <= (2e-6 if "Fuse" in SETUPS[name.removeprefix("a ")][0] else 0), name


def train(base: Path, files: tuple[Path, Path], folder: Path, *more: str) -> dict[str, Any]:
    """Train one epoch and return run.json."""
    words = ["--model_name_or_path", str(base), "--do_train", "--do_eval", "--num_train_epochs", "1", "--report_to"]
    words += ["none", "--max_seq_length", "64", "--doc_stride", "16", "--learning_rate", "1e-2", "--language", "pt"]
    words += ["--train_file", str(files[0]), "--validation_file", str(files[1]), "--output_dir", str(folder)]
    assert run_qa_adapter.main(override(words, *more)) == 0
    record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return record


def metadata(folder: Path) -> Any:
    return ModelCard.load(folder / "README.md").data


@pytest.mark.parametrize("full", [False, True])
def test_card_of_a_run(tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path, full: bool) -> None:
    """Scores, counts and hashes are those of run.json; the code loads the model; no folder is named."""
    more = ["--train_adapter", "False", "--learning_rate", "1e-3"] if full else []
    run = train(tiny_bert, squad_files, tmp_path / "run", "--license", "cc-by-4.0", "--seed", "0", *more)
    saved = tmp_path / "run" if full else tmp_path / "run" / "adapters-qa"
    text = (saved / "README.md").read_text(encoding="utf-8")
    assert not re.search(rf"{re.escape(str(tmp_path))}|{re.escape(str(tiny_bert.parent))}|/tmp", text)
    data = metadata(saved)
    assert (data.language, data.license, data.pipeline_tag) == ("pt", "cc-by-4.0", "question-answering")
    assert data.library_name == ("transformers" if full else "adapters")
    assert data.base_model is None
    scores = {result.metric_type: result.metric_value for result in data.eval_results}
    evaluated = run["metrics"]["eval"]
    assert scores == {"f1": round(evaluated["eval_f1"], 4), "exact_match": round(evaluated["eval_exact"], 4)}
    assert {result.dataset_name for result in data.eval_results} == {"dev.json"}
    for part in ("train", "eval"):
        assert run["data"][part]["sha256"] in text
    assert f"| trained | {run['parameters']['trainable']:,} |" in text
    assert f"| learning_rate | {0.001 if full else 0.01} |" in text
    assert "| seed | 0 |" in text
    records = ["*_predictions.json", "*_results.json", "*_curves.json", "run.*", "options.yaml", "trainer_state.json"]
    others = [*records, "README.md"] if full else []  # beside a full model
    listed = {path for path in saved.rglob("*") if path.is_file()} - {
        path for name in others for path in saved.glob(name)
    }
    assert run["result"]["saved_bytes"] == sum(path.stat().st_size for path in listed)
    assert f"Base model: `{tiny_bert.name}`" in text
    answerer = QuestionAnswerer(tmp_path / "run", device="cpu")
    save_outputs(answerer.model, saved)
    (saved.parent / tiny_bert.name).symlink_to(tiny_bert)
    assert run_code(saved.parent) == {saved.name: 0}


def test_base_model_and_data_from_the_hub(tiny_bert: Path, tmp_path: Path) -> None:
    maker = Maker(tiny_bert, tmp_path)
    maker.metadata |= {"base_model": {"name_or_path": "org/bert", "revision": "v2"}, "tokenizer": "org/other"}
    folder = maker.make("adapters-ner", "ner")[2]
    run = {
        "status": "finished",
        "script": "run_ner_adapter.py",
        "options": {"hub_model_id": "ana/ner-pt", "load_best_model_at_end": True},
        "data": {"eval": {"dataset": "org/data", "config": "v1", "split": "validation", "sentences": 3}},
        "metrics": {"eval": {"eval_f1": 50.123456, "eval_precision": 40.0, "eval_PESSOA_f1": 1.0}},
    }
    write_card(folder, msgspec.convert(run, RunDocument))
    data, text = metadata(folder), (folder / "README.md").read_text(encoding="utf-8")
    assert (data.base_model, data.datasets, data.metrics) == ("org/bert", ["org/data"], ["f1", "precision"])
    assert [(result.metric_type, result.metric_value, result.dataset_split) for result in data.eval_results] == [
        ("f1", 50.1235, "validation"),
        ("precision", 40.0, "validation"),
    ]
    assert "base, folder = 'org/bert', snapshot_download('ana/ner-pt')\n" in text
    assert "from_pretrained(base, revision='v2', label2id={'O': 0, 'B-X': 1, 'I-X': 2}, id2label=" in text
    assert "AutoTokenizer.from_pretrained('org/other')" in text
    assert "- eval: `org/data v1 validation`; 3 sentences" in text
    assert "license" not in data.to_dict()
    assert "Not stated. Fill in `license`" in text


def test_data_in_folders_and_in_several_files(tiny_bert: Path, tmp_path: Path) -> None:
    folder = Maker(tiny_bert, tmp_path).make("adapters-ner", "ner")[2]
    files = [{"file": f"/home/ana/{name}.json", "bytes": 1, "sha256": name * 64} for name in "ab"]
    run = {
        "status": "finished",
        "script": "run_ner_adapter.py",
        "options": {},
        "data": {
            "train": {"dataset": "/home/ana/squad", "config": None, "split": "train"},
            "eval": {"files": files, "sha256": "c" * 64, "questions": 2},
        },
        "metrics": {"eval": {"eval_f1": 50.0}},
    }
    write_card(folder, msgspec.convert(run, RunDocument))
    data, text = metadata(folder), (folder / "README.md").read_text(encoding="utf-8")
    assert data.datasets is None
    assert {result.dataset_name for result in data.eval_results} == {"a.json"}
    assert "- train: `squad train`; " in text
    assert f"- eval: `a.json b.json, sha256 {'c' * 64}`; 2 questions" in text
    assert "/home/ana" not in text


@pytest.mark.parametrize(
    ("name", "public"),
    [("/home/ana/models/bert", "bert"), ("../base", "base"), ("org/bert", "org/bert"), ("bert", "bert"), (None, None)],
)
def test_public_names(name: str | None, public: str | None) -> None:
    assert public_name(name) == public

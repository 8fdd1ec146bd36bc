"""Test the scripts around the measurement on Portuguese questions; measure.sh itself is too long for a test."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks" / "results_pt"))
parts: Any = importlib.import_module("parts")
settings: Any = importlib.import_module("settings")
collect: Any = importlib.import_module("collect")
compare: Any = importlib.import_module("compare")
curve: Any = importlib.import_module("curve")


def record(title: str, context: str, answer: str | None, start: int = 0) -> dict[str, Any]:
    answers = {"text": [answer], "answer_start": [start]} if answer else {"text": [], "answer_start": []}
    return {
        "id": f"{title} {context} {answer}",
        "title": title,
        "context": context,
        "question": "?",
        "answers": answers,
    }


def titles(file: Path) -> list[str]:
    return [question["title"] for question in json.loads(file.read_text(encoding="utf-8"))["data"]]


def test_parts_share_no_article_and_no_context(tmp_path: Path) -> None:
    records = [record(f"artigo {number // 4}", f"texto {number}", "texto") for number in range(80)]
    records += [record("Rhine", "o Reno", "Reno", 2), record("outro", "o Reno", "Reno", 2)]  # one context, two articles
    records += [record("Rhine", "o Reno", None), record("artigo 3", "texto 12", None)]
    records += [record("artigo 4", "texto 16", "texto", 1)]  # the answer does not stand at its offset
    file = tmp_path / "prepared.json"
    file.write_text(json.dumps({"data": records}), encoding="utf-8")
    source = tmp_path / "source.json"
    articles = ["Rhine", *(f"artigo {number}" for number in range(20)), "new"]
    source.write_text(json.dumps({"data": [record(title, "text", "text") for title in articles]}), encoding="utf-8")
    parts.main([str(file)], tmp_path / "parts", str(source))
    train, choose, test = (titles(tmp_path / "parts" / f"{name}.json") for name in ("train", "choose", "test"))
    assert test == ["Rhine"]
    assert titles(tmp_path / "parts" / "next.json") == []
    assert len(choose) == 8  # two articles of four questions are nearest to 12 % of 80
    assert len(train) == 72
    assert not set(train) & set(choose)
    assert set(train) | set(choose) == {f"artigo {number}" for number in range(20)}
    defects = json.loads((tmp_path / "parts" / "defects.json").read_text(encoding="utf-8"))
    assert defects["test"] == {"answers": 1, "begin_inside_a_word": 0, "punctuation_only": 0}
    more = [titles(tmp_path / "parts" / "v2" / f"{name}.json") for name in ("train", "choose", "test")]
    assert sorted(more[0] + more[1]) == sorted([*train, *choose, "artigo 3"])
    assert more[2] == ["Rhine", "Rhine"]
    assert set(titles(tmp_path / "parts" / "source.json")) == {*train, "new"}
    train_ids, source_ids, joint_ids = (
        [question["id"] for question in parts.read(str(tmp_path / "parts" / f"{name}.json"))]
        for name in ("train", "source", "joint")
    )
    assert joint_ids == [f"source-{name}" for name in source_ids] + train_ids


def test_defects_of_answers() -> None:
    records = [
        record("a", "o rio Reno.", "rio", 2),
        record("a", "o rio Reno.", "io", 3),  # begins inside a word
        record("a", "o rio Reno.", ".", 10),
        record("a", "o rio Reno.", "o", 0),
        record("a", "o rio Reno.", None),
    ]
    assert parts.defects(records) == {"answers": 4, "begin_inside_a_word": 1, "punctuation_only": 1}


def test_given_settings_and_a_search_exclude_each_other(tmp_path: Path) -> None:
    given = {"BASE": "b", "DATA": "d", "NER_TRAIN": "t", "NER_DEV": "d", "SETTINGS": "s", "OUT": str(tmp_path / "out")}
    script = Path(parts.__file__).with_name("measure.sh")
    result = subprocess.run(["bash", script], check=False, env={**os.environ, **given}, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "SETTINGS" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_began_with_another_encoder_is_refused(tmp_path: Path) -> None:
    files = {name: tmp_path / name.lower() for name in ("BASE", "DATA", "NER_TRAIN", "NER_DEV")}
    for file in (*files.values(), tmp_path / "other"):
        file.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / "base").symlink_to(tmp_path / "other")
    script = Path(parts.__file__).with_name("measure.sh")
    given = {name: str(file) for name, file in files.items()}
    result = subprocess.run(
        ["bash", script], check=False, env={**os.environ, **given, "OUT": str(out)}, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {files['BASE']}: {out} began with another base, {tmp_path / 'other'}; ")


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    given = {"BASE": "encoder", "DATA": str(tmp_path / "parts"), "NER_TRAIN": "t", "NER_DEV": "d"}
    script = Path(parts.__file__).with_name("measure.sh")
    environment = {**os.environ, **given, "OUT": str(tmp_path / "out")}
    result = subprocess.run(["bash", script], check=False, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == f"error: {tmp_path / 'parts'}: no such file or folder; give one that exists\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_settings_are_those_of_the_best_trial(tmp_path: Path) -> None:
    sweep = {
        "best": 1,
        "settings": {
            "options": {"adapter_non_linearity": "gelu", "seed": 1},
            "search": {"kind": {"choices": {"a": {}, "b": {"adapter_config": "houlsby", "learning_rate": 0.001}}}},
        },
        "trials": [
            {"number": 0, "f1": 10.0, "params": {"kind": "a"}},
            {"number": 1, "f1": 12.0, "params": {"kind": "b"}},
        ],
    }
    (tmp_path / "trials" / "0001").mkdir(parents=True)
    (tmp_path / "sweep.json").write_text(json.dumps(sweep), encoding="utf-8")
    for _ in range(2):
        settings.main(str(tmp_path), str(tmp_path / "settings" / "qa.yaml"))
        written = yaml.safe_load((tmp_path / "settings" / "qa.yaml").read_text(encoding="utf-8"))
        assert written == {"adapter_non_linearity": "gelu", "adapter_config": "houlsby", "learning_rate": 0.001}
        assert (tmp_path / "best").resolve() == (tmp_path / "trials" / "0001").resolve()


def test_the_copy_has_float16_weights_and_no_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured, encoder = tmp_path / "measured", tmp_path / "somewhere" / "encoder"
    saved = measured / "runs" / "qa_1" / "adapters-qa"
    saved.mkdir(parents=True)
    encoder.mkdir(parents=True)
    (measured / "base").symlink_to(encoder)
    (measured / "runs" / "qa_1" / "run.json").write_text(json.dumps({"base": str(encoder)}), encoding="utf-8")
    (measured / "runs" / "qa_1" / "eval_nbest_predictions.json").write_text("{}", encoding="utf-8")
    (saved / "adapter_setup.json").write_text(json.dumps({"trained_on": str(encoder)}), encoding="utf-8")
    tensors = {"weight": torch.tensor([0.1, 2.0]), "ids": torch.tensor([3])}
    save_file(tensors, saved / "head.safetensors")
    for kept in ((), ("runs/qa_1",)):
        collect.main(str(measured), str(tmp_path / "copy"), *kept)
        copied = {str(file.relative_to(tmp_path / "copy")) for file in (tmp_path / "copy").rglob("*") if file.is_file()}
        weights = {f"runs/qa_1/adapters-qa/{name}" for name in ("adapter_setup.json", "head.safetensors")}
        assert copied == {"runs/qa_1/run.json"} | (weights if kept else set())
    assert json.loads((tmp_path / "copy/runs/qa_1/run.json").read_text(encoding="utf-8")) == {"base": "base"}
    converted = load_file(tmp_path / "copy/runs/qa_1/adapters-qa/head.safetensors")
    assert converted["weight"].dtype == torch.float16
    assert torch.equal(converted["weight"], tensors["weight"].half())
    assert torch.equal(converted["ids"], tensors["ids"])
    assert "1 records, weights of 1 runs" in capsys.readouterr().out


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no records of runs"):
        collect.main(str(tmp_path), str(tmp_path / "copy"))
    (tmp_path / "runs" / "qa_1").mkdir(parents=True)
    (tmp_path / "runs" / "qa_1" / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit, match="runs/qa_1, runs/qa1: no saved adapters in"):
        collect.main(str(tmp_path), str(tmp_path / "copy"), "runs/qa_1", "runs/qa1")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"STEPS": "search tabel"}, "error: STEPS: tabel is unknown; choose from search adapters"),
        ({"SETUPS": "full qaa"}, "error: SETUPS: qaa is unknown; choose from untrained head full"),
        ({"PYTHON": "./none"}, "error: PYTHON: ./none is no program"),
        ({"PAIRS": "qa:full:lora"}, "error: PAIRS: qa:full:lora: give two setups as SETUP:SETUP"),
        ({"PAIRS": "qa:full qa:lora"}, "error: PAIRS: qa:lora: lora has no finished runs in "),
        ({"PAIRS": "qa:full", "STEPS": "table", "SETUPS": "qa full"}, "error: PAIRS: qa:full: qa has no finished runs"),
    ],
)
def test_unknown_words_are_refused_before_anything_runs(given: dict[str, str], message: str, tmp_path: Path) -> None:
    folders = {"BASE": "b", "DATA": "d", "NER_TRAIN": "t", "NER_DEV": "d", "OUT": str(tmp_path / "out")}
    script = Path(parts.__file__).with_name("measure.sh")
    environment = {**os.environ, **folders, **given}
    result = subprocess.run(["bash", script], check=False, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def compared_pairs(folder: Path, **given: str) -> list[str]:
    """Run measure.sh with a program that does nothing in place of python; return the pairs that its table compares."""
    (folder / "data").mkdir(exist_ok=True)
    calls, python = folder / "calls", folder / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >>{calls}\n', encoding="utf-8")
    python.chmod(0o755)
    data = str(folder / "data")
    folders = {"BASE": "b", "DATA": data, "NER_TRAIN": data, "NER_DEV": data, "OUT": str(folder / "out")}
    environment = {**os.environ, **folders, "PYTHON": str(python), **given}
    script = Path(parts.__file__).with_name("measure.sh")
    result = subprocess.run(["bash", script], check=False, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    *_, call = calls.read_text(encoding="utf-8").splitlines()
    words = call.split()
    assert words[0].endswith("/compare.py")
    return words[3 : words.index("--json")]


def test_the_table_compares_the_pairs_whose_setups_are_there(tmp_path: Path) -> None:
    train = {"STEPS": "train table", "SEEDS": "1 2"}
    default = ["qa:full", "lang_qa:qa", "fusion:lang_qa", "fusion:control"]
    assert compared_pairs(tmp_path, **train) == default
    assert compared_pairs(tmp_path, **train, SETUPS="full qa") == ["qa:full"]
    assert compared_pairs(tmp_path, **train, SETUPS="qa lang_qa fusion") == ["lang_qa:qa", "fusion:lang_qa"]
    for run in ("full_2", "fusion_ner_lang_1", "control_3"):  # control has no seed of the others
        (tmp_path / "out" / "runs" / run).mkdir(parents=True)
        (tmp_path / "out" / "runs" / run / "predict_predictions.json").touch()
    assert compared_pairs(tmp_path, **train, SETUPS="qa") == ["qa:full"]
    assert compared_pairs(tmp_path, **train, SETUPS="fusion") == []
    assert compared_pairs(tmp_path, STEPS="table") == []
    assert compared_pairs(tmp_path, **train, SETUPS="qa", PAIRS="full:qa") == ["full:qa"]


def test_pairs_without_a_common_seed_are_refused_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "runs" / "control_3").mkdir(parents=True)
    (tmp_path / "runs" / "control_3" / "predict_predictions.json").touch()
    given = {"BASE": "b", "DATA": "d", "NER_TRAIN": "t", "NER_DEV": "d", "OUT": str(tmp_path), "SEEDS": "1 2"}
    given |= {"SETUPS": "qa fusion", "PAIRS": "fusion:control fusion:qa lora:qa"}
    script = Path(parts.__file__).with_name("measure.sh")
    result = subprocess.run(["bash", script], check=False, env={**os.environ, **given}, capture_output=True, text=True)
    assert (result.returncode, result.stderr.splitlines()) == (
        2,
        [
            "error: PAIRS: fusion:control: fusion and control have no seed in common; give SEEDS that both have, or "
            "leave out the pair",
            f"error: PAIRS: lora:qa: lora has no finished runs in {tmp_path}/runs and is not trained; add it to "
            "SETUPS, or leave out the pair",
        ],
    )


def test_pairs_are_compared_on_translated_and_native_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [record(title, f"texto {number}", "texto") for title in ("Rhine", "MEC") for number in range(2)]
    file = tmp_path / "test.json"
    for number, question in enumerate(records):
        question["context"] += f" de {question['title']}"
        question["id"] = str(number)
    file.write_text(json.dumps({"data": records}), encoding="utf-8")
    answers = {
        "full_1": "right right right wrong",
        "qa_1": "right wrong wrong wrong",
        "qa_2": "right right wrong wrong",
        "fusion_2": "right right right wrong",
    }
    for run, words in answers.items():
        folder = tmp_path / "runs" / run
        folder.mkdir(parents=True)
        texts = ["texto" if word == "right" else "nada" for word in words.split()]
        (folder / "predict_predictions.json").write_text(json.dumps(dict(zip("0123", texts, strict=True))))
    written = tmp_path / "compared.json"
    compare.main([str(tmp_path / "runs"), str(file), "qa:full", "fusion:qa", "--json", str(written)])
    values = {(row["setups"], row["source"]): row["f1"][0] for row in json.loads(written.read_text())}
    assert values == {
        ("full", "all"): 75.0, ("full", "SQuAD-pt"): 100.0, ("full", "FaQuAD"): 50.0,
        ("qa", "all"): 37.5, ("qa", "SQuAD-pt"): 75.0, ("qa", "FaQuAD"): 0.0,
        ("fusion", "all"): 75.0, ("fusion", "SQuAD-pt"): 100.0, ("fusion", "FaQuAD"): 50.0,
        ("qa:full", "all"): -50.0, ("qa:full", "SQuAD-pt"): -50.0, ("qa:full", "FaQuAD"): -50.0,  # of seed 1
        ("fusion:qa", "all"): 25.0, ("fusion:qa", "SQuAD-pt"): 0.0, ("fusion:qa", "FaQuAD"): 50.0,  # of seed 2
    }  # fmt: skip
    table = capsys.readouterr().out
    assert "| qa:full | FaQuAD | 2 | 1 | -50.0 [-100.0, +0.0] |  | -50.0 [-100.0, +0.0] |  |" in table
    # 25 * sqrt(2) is the deviation of 50 and 100
    assert (
        "| qa | SQuAD-pt | 2 | 1 2 | 75.0 [50.0, 100.0] | 35.4 | 75.0 [50.0, 100.0] | 35.4 |" in table
    )  # 25 * sqrt(2)
    file.write_text(json.dumps({"data": records[:2]}), encoding="utf-8")  # only translated ones
    compare.main([str(tmp_path / "runs"), str(file)])
    assert "FaQuAD" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        compare.main([str(tmp_path / "runs"), str(file), "qa:head"])
    assert "head: no finished runs" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compare.main([str(tmp_path / "runs"), str(file), "fusion:full"])
    assert "fusion:full: no seed of which both have finished runs" in capsys.readouterr().err


def test_questions_without_an_answer_are_scored_as_in_squad_v2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golds = ["texto", "texto", ".", None]  # "." has no word: no answer is right, too
    records = [record("Rhine", f"texto . {number}", gold or "texto") for number, gold in enumerate(golds)]
    for number, question in enumerate(records):
        question["id"] = str(number)
    records[3] |= {"answers": {"text": [], "answer_start": []}, "is_impossible": True}
    file = tmp_path / "test.json"
    file.write_text(json.dumps({"data": records}), encoding="utf-8")
    folder = tmp_path / "runs" / "qa_1"
    folder.mkdir(parents=True)
    answers = dict(zip("0123", ["texto", "nada", "nada", "nada"], strict=True))
    (folder / "predict_predictions.json").write_text(json.dumps(answers))
    written = tmp_path / "compared.json"
    compare.main([str(tmp_path / "runs"), str(file), "qa:no_answer", "--json", str(written)])
    values = {(row["setups"], row["source"]): row["f1"][0] for row in json.loads(written.read_text())}
    sources = ("all", "answerable", "unanswerable")
    assert [values["qa", source] for source in sources] == pytest.approx([25, 100 / 3, 0])
    assert [values["no_answer", source] for source in sources] == pytest.approx([50, 100 / 3, 100])
    assert [values["qa:no_answer", source] for source in sources] == pytest.approx([-25, 0, -100])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["a:b:c"], "a:b:c: give two setups as SETUP:SETUP"),
        ([], "no folder SETUP_SEED with predict_predictions.json; give the folder of the runs"),
    ],
)
def test_a_comparison_without_setups_is_refused(
    pairs: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "test.json"
    file.write_text(json.dumps({"data": [record("Rhine", "texto", "texto")]}), encoding="utf-8")
    with pytest.raises(SystemExit):
        compare.main([str(tmp_path), str(file), *pairs])
    assert message in capsys.readouterr().err


def test_curve_has_the_f1_of_the_setups_that_all_files_have(tmp_path: Path) -> None:
    def row(setups: str, source: str, f1: float) -> dict[str, Any]:
        scores = {"f1": [f1, f1 - 1, f1 + 1], "f1_deviation": None, "exact": [0, 0, 0], "exact_deviation": None}
        return {"setups": setups, "source": source, "questions": 1, "contexts": 1, "seeds": [1], **scores}

    rows = {
        "250": [row("qa", "all", 30), row("qa", "FaQuAD", 50), row("full", "all", 20), row("qa:full", "all", 10)],
        "1000": [row("full", "all", 40), row("qa", "all", 45), row("lora", "all", 35)],
    }
    files = {int(number): tmp_path / f"{number}.json" for number in rows}
    for number, file in files.items():
        file.write_text(json.dumps(rows[str(number)]), encoding="utf-8")
    curves = curve.read_curves(files)
    assert curves == {"qa": {250: (30, 29, 31), 1000: (45, 44, 46)}, "full": {250: (20, 19, 21), 1000: (40, 39, 41)}}
    (axes,) = curve.curve_figure(curves).axes
    lines = {container.get_label(): container.lines[0].get_ydata().tolist() for container in axes.containers}
    assert lines == {"qa": [30, 45], "full": [20, 40]}
    curve.main([f"{number}={file}" for number, file in files.items()] + [str(tmp_path / "curve.png")])
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "other.json").write_text(json.dumps([row("lora", "all", 35)]), encoding="utf-8")
    first, other = f"250={files[250]}", f"1000={tmp_path}/other.json"
    for words in (["250=none.json"], [first, first], [f"0={files[250]}"], [first, other]):
        with pytest.raises(SystemExit):
            curve.main([*words, str(tmp_path / "none.png")])
    assert not (tmp_path / "none.png").exists()

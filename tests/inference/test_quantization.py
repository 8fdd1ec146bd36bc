"""Int8 export: its scores are those of the answers that both forms give, a loss above the bound is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.questions import make_questions, write_squad
from support.setups import Maker

pytest.importorskip("onnxscript", reason='needs pip install "adapter-qa[export]"')

import export_qa
import predictor_qa
from adapter_qa.config.options import AdapterOptions
from adapter_qa.core.errors import RunError, UserError
from adapter_qa.core.files import sha256
from adapter_qa.data.questions import Question
from adapter_qa.data.squad_metrics import squad_metrics
from adapter_qa.inference import onnx_export, quantization
from adapter_qa.inference.exported_model import ExportedModel
from predictor_qa import QuestionAnswerer

QUESTIONS = [*make_questions(8, 5), Question("none", "Onde nasceu Zeca?", make_questions(1, 6)[0].context, (), ())]


@pytest.fixture(scope="module")
def run(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a saved QA adapter that may give no answer; above it the run.json, evaluated on `QUESTIONS`."""
    maker = Maker(tiny_bert, tmp_path_factory.mktemp("int8"))
    maker.metadata["windows"] |= {"version_2": True, "null_score_diff_threshold": 0.0}
    folder = maker.make("adapters-qa", "qa", AdapterOptions(adapter_config="houlsby"))[2]
    file = write_squad(maker.folder / "dev.json", QUESTIONS)
    document = {
        "status": "finished",
        "script": "run_qa_adapter.py",
        "options": {"validation_file": [str(file)], "max_eval_samples": None},
        "data": {"eval": {"file": str(file), "sha256": sha256(file)}},
    }
    (maker.folder / "run.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of the float32 export and of the int8 export of the run, the graph of which is written once."""
    out = tmp_path_factory.mktemp("exported")
    assert export_qa.main([str(run), str(out / "float32")]) == 0
    with pytest.MonkeyPatch.context() as patch:
        use_graph(patch, out / "float32")
        assert export_qa.main([str(run.parent), str(out / "int8"), "--int8", "--max_f1_loss", "100"]) == 0
    return out / "float32", out / "int8"


def use_graph(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let exports take the graph of an export of the same run, which saves seconds."""

    def copy(model: object, names: object, path: Path, *, opset: int) -> None:
        shutil.copy(folder / "model.onnx", path)

    monkeypatch.setattr(onnx_export, "export_graph", copy)


def read_export(folder: Path) -> dict[str, Any]:
    """Return the content of export.json."""
    document: dict[str, Any] = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    return document


def score_answers(texts: list[str]) -> dict[str, float]:
    """Return the scores of answers to `QUESTIONS`."""
    ids = [question.id for question in QUESTIONS]
    return squad_metrics(dict(zip(ids, texts, strict=True)), QUESTIONS, version_2=True)


def test_scores_are_those_of_the_run_and_of_the_written_model(run: Path, exported: tuple[Path, Path]) -> None:
    """The float32 scores against torch, the int8 scores against the answers of the folder as a user loads it."""
    pairs = [(question.question, question.context) for question in QUESTIONS]
    export = read_export(exported[1])
    evaluation = export["evaluation"]
    answerer = QuestionAnswerer(run, device="cpu")
    expected = score_answers([answer.text for answer in answerer.ask_many(pairs)])
    texts = list(ExportedModel.load(exported[1]).answer_all(QUESTIONS).texts().values())
    assert len(set(texts)) > 2
    assert evaluation == {
        "files": ["dev.json"],
        "sha256": sha256(run.parent / "dev.json"),
        "questions": 9,
        "float32": expected,
        "int8": score_answers(texts),
        "f1_loss": expected["f1"] - evaluation["int8"]["f1"],
    }
    assert evaluation["int8"]["NoAns_total"] == 1
    assert export["precision"].startswith("int8 products: weights per channel, activations dynamic")


def test_int8_folder_has_the_files_of_the_float32_folder(exported: tuple[Path, Path]) -> None:
    float32, int8 = exported
    assert {path.name for path in int8.iterdir()} == {path.name for path in float32.iterdir()}
    sizes = {path.name: path.stat().st_size for path in int8.iterdir() if path.name != "export.json"}
    export = read_export(int8)
    assert export["bytes"] == sizes
    assert set(export) - set(read_export(float32)) == {"precision", "float32_products", "evaluation"}
    assert (int8 / "answer.py").read_bytes() == (float32 / "answer.py").read_bytes()


def test_weights_are_rounded_per_channel_except_those_that_stay_float32(exported: tuple[Path, Path]) -> None:
    """Every column of a weight has its own scale, and is no farther than half of it from the float32 weight."""
    before, after = (onnx.load(folder / "model.onnx").graph for folder in exported)
    kept = read_export(exported[1])["float32_products"]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in before.initializer}
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.initializer}
    products = {
        node.name: node.input[1] for node in before.node if node.op_type == "MatMul" and node.input[1] in weights
    }
    assert list(products)[-1] == kept[-1]
    assert weights[products[kept[-1]]].shape == (32, 2)
    quantized = [node.input[1].removesuffix("_quantized") for node in after.node if node.op_type == "MatMulInteger"]
    assert quantized == [weight for name, weight in products.items() if name not in kept]
    assert len(quantized) > 10
    for name in kept:
        assert np.array_equal(stored[products[name]], weights[products[name]])
    for name in quantized:
        whole, scale = stored[f"{name}_quantized"], stored[f"{name}_scale"]
        assert whole.dtype == np.int8
        assert scale.shape == weights[name].shape[1:]
        assert (abs(whole * scale - weights[name]) <= 0.501 * scale).all()


@pytest.mark.parametrize(("largest", "kept"), [(60.0, []), (70.0, ["second"])])
def test_product_of_activations_with_outliers_stays_float32(tmp_path: Path, largest: float, kept: list[str]) -> None:
    """All values are 1 but one: a step is (largest - 0) / 255, and a quarter of a median token is 0.25."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["y"], name="first"),
        helper.make_node("Mul", ["x", "factor"], ["z"]),
        helper.make_node("MatMul", ["z", "a"], ["w"], name="second"),
    ]
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 2]) for name in ("x", "factor")]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("y", "w")]
    graph = helper.make_graph(
        nodes, "graph", inputs, outputs, [numpy_helper.from_array(np.eye(2, dtype=np.float32), "a")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    ones = np.ones((1, 3, 2), np.float32)
    factor = ones.copy()
    factor[0, 0, 0] = largest
    assert quantization.products_with_outliers(tmp_path / "model.onnx", [{"x": ones, "factor": factor}]) == kept
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(("allowed", "is_refused"), [(1.0, True), (1.49, True), (1.5, False)])
def test_loss_of_f1_above_the_bound_is_refused(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: float, is_refused: bool
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(exported[0], folder)
    scores = {"float32": {"f1": 50.0, "exact": 40.0}, "int8": {"f1": 48.5, "exact": 40.0}}
    monkeypatch.setattr(quantization, "score", lambda model, questions, name: scores[name])
    if not is_refused:
        assert quantization.quantize_export(folder, QUESTIONS, allowed)["evaluation"] == {**scores, "f1_loss": 1.5}
        return
    with pytest.raises(RunError) as caught:
        quantization.quantize_export(folder, QUESTIONS, allowed)
    assert caught.value.problems == [
        "int8 loses 1.50 points of F1 on 9 questions (float32 50.00, int8 48.50), allowed are "
        f"{allowed:g}; nothing was written; leave out --int8, or allow more with --max_f1_loss"
    ]


def test_nothing_is_written_if_int8_is_refused(
    run: Path, exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_graph(monkeypatch, exported[0])
    monkeypatch.setattr(quantization, "score", lambda model, questions, name: {"f1": 1.01 * (name == "float32")})
    with pytest.raises(RunError, match=r"^int8 loses 1\.01 points"):
        export_qa.main([str(run), str(tmp_path / "out"), "--int8"])
    assert list(tmp_path.iterdir()) == []


def refusal(monkeypatch: pytest.MonkeyPatch, *words: object) -> list[str]:
    """Return the problems that export_qa.py reports before it loads the model."""
    monkeypatch.setattr(predictor_qa, "QuestionAnswerer", None)
    with pytest.raises(UserError) as caught:
        export_qa.main([str(word) for word in words])
    return caught.value.problems


def test_wrong_options_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", tmp_path / "out", "--validation_file", "dev.json", "--max_eval_samples", "0", "--max_f1_loss", "-1"]
    wrong = ["--max_eval_samples 0: must be at least 1", "--max_f1_loss -1: must be from 0 to 100"]
    assert refusal(monkeypatch, *words, "--int8") == wrong
    names = ("validation_file", "max_eval_samples", "max_f1_loss")
    assert refusal(monkeypatch, *words) == [f"--{name}: has no effect without --int8; add it" for name in names] + wrong
    assert refusal(monkeypatch, "run", tmp_path / "out", "--int8", "--max_f1_loss", "nan") == [
        "--max_f1_loss nan: must be from 0 to 100"
    ]


def test_int8_without_evaluation_questions_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run" / "adapters-qa"
    shutil.copytree(run, folder)
    words = [folder, tmp_path / "out", "--int8"]
    advice = "give --validation_file FILE"
    assert refusal(monkeypatch, *words) == [
        f"--int8: {folder} has no run.json that names evaluation questions; {advice}"
    ]
    document = json.loads((run.parent / "run.json").read_text(encoding="utf-8"))
    file = shutil.copy(run.parent / "dev.json", tmp_path / "dev.json")
    document["data"]["eval"]["file"] = str(file)
    (folder.parent / "run.json").write_text(json.dumps(document), encoding="utf-8")
    Path(file).write_text("[]", encoding="utf-8")
    changed = f"--int8: {file}: has changed since {folder.parent} was evaluated on it; {advice}"
    assert refusal(monkeypatch, *words) == refusal(monkeypatch, folder.parent, *words[1:]) == [changed]
    Path(file).unlink()
    assert refusal(monkeypatch, *words) == [
        f"--int8: {file}: no longer exists; {folder.parent} was evaluated on it; {advice}"
    ]
    document["data"] = {}
    (folder.parent / "run.json").write_text(json.dumps(document), encoding="utf-8")
    unevaluated = f"--int8: {folder.parent}: was not evaluated on a file of questions; {advice}"
    assert refusal(monkeypatch, *words) == [unevaluated]
    missing = tmp_path / "missing.json"
    assert refusal(monkeypatch, *words, "--validation_file", missing)[0].startswith(f"--validation_file {missing}: ")


def test_questions_of_another_file_and_a_limit(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_squad(tmp_path / "other.json", make_questions(5, 7))
    options = export_qa.read_options(
        [str(run), str(tmp_path / "out"), "--int8", "--validation_file", str(file), "--max_eval_samples", "3"]
    )
    evaluation = export_qa.evaluation_questions(options)
    assert [question.id for question in evaluation.questions] == ["q0", "q1", "q2"]
    assert evaluation.source == {"files": ["other.json"], "sha256": sha256(file), "questions": 3}
    scores = {"f1": 43.75, "exact": 30.0}
    export_qa.print_scores({**evaluation.source, "float32": scores, "int8": scores | {"f1": 43.5}, "f1_loss": 0.25})
    assert capsys.readouterr().out.splitlines() == [
        "3 questions of other.json",
        "  float32  F1  43.8  exact  30.0",
        "  int8     F1  43.5  exact  30.0",
        "  loss     F1  0.25",
    ]

"""Int8 export: its scores are those of the answers that both forms give, a loss above the bound is refused."""

from __future__ import annotations

import dataclasses
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
from adapter_qa.inference.exported_model import OUTPUTS, ExportedModel, open_session
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
    assert set(export) - set(read_export(float32)) == {"precision", "evaluation"}
    assert (int8 / "answer.py").read_bytes() == (float32 / "answer.py").read_bytes()


def test_weights_are_rounded_per_channel_except_those_of_the_head(exported: tuple[Path, Path]) -> None:
    """Every column of a scaled weight has its own scale, and is no farther than half of it from the exact weight."""
    before, after = (onnx.load(folder / "model.onnx").graph for folder in exported)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in before.initializer}
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.initializer}
    *products, head = (node for node in before.node if node.op_type == "MatMul" and node.input[1] in weights)
    assert weights[head.input[1]].shape == (32, 2)
    assert [node.input[1] for node in after.node if node.op_type == "MatMul" and node.input[1] in stored] == [
        head.input[1]
    ]
    quantized = [node.input[1] for node in after.node if node.op_type == "MatMulInteger"]
    assert len(quantized) == len(products) > 10
    for node, name in zip(products, quantized, strict=True):
        whole, scale = stored[name], stored[name.removesuffix("quantized") + "scale"]
        weight = weights[node.input[1]] / stored.get(f"{node.input[0]}_factors", np.ones(1))[:, None]
        assert whole.dtype == np.int8
        assert scale.shape == weight.shape[1:]
        assert (abs(whole * scale - weight) <= 0.501 * scale).all()


def product_graph(largest: float) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Return a graph with x @ a, x @ b and a head (x @ a) @ a, and x, channel 1 of which is `largest` at one token."""
    draw = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["y"], name="first"),
        helper.make_node("MatMul", ["x", "b"], ["z"], name="second"),
        helper.make_node("MatMul", ["y", "a"], ["w"], name="third"),
    ]
    array = draw.uniform(-1, 1, (1, 5, 16)).astype(np.float32)
    array[0, 0, 1] = largest
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, array.shape)]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("y", "z", "w")]
    weights = [
        numpy_helper.from_array(draw.normal(size=(16, 16)).astype(np.float32) * size, name)
        for name, size in (("a", 1), ("b", 2))
    ]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), {"x": array}


def test_scaled_graph_has_the_same_products(tmp_path: Path) -> None:
    """One node divides the input of both products; the head, which has the weight of the first, stays as it is."""
    model, sample = product_graph(100.0)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    expected = open_session(path).run(None, sample)
    largest = quantization.largest_activations(path, [{"x": sample["x"] / 2}, sample, {"x": -sample["x"]}])
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert np.array_equal(largest["x"], abs(sample["x"]).max((0, 1)))
    assert list(largest) == ["x"]
    quantization.scale_channels(model.graph, largest)
    assert [(node.op_type, node.input[0]) for node in model.graph.node] == [
        ("Mul", "x"),
        ("MatMul", "x_scaled"),
        ("MatMul", "x_scaled"),
        ("MatMul", "y"),
    ]
    onnx.save(model, path)
    for ours, theirs in zip(open_session(path).run(None, sample), expected, strict=True):
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-5 * abs(theirs).max())
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    rows = np.maximum(abs(arrays["a"]).max(1), abs(arrays["b"]).max(1))
    exponent = quantization.EXPONENT
    factors = [max(x, y) for x, y in zip(largest["x"], [largest["x"].mean()] * 16, strict=True)]
    factors = np.array(factors) ** exponent / np.maximum(rows, rows.mean()) ** (1 - exponent)
    assert np.allclose(arrays["x_factors"] * factors, 1, rtol=1e-5)


@pytest.mark.parametrize(("largest", "weight"), [(100.0, 0.0), (0.0, 1.0)])
def test_inputs_and_weights_of_zero_are_left_alone(largest: float, weight: float) -> None:
    model, _ = product_graph(100.0)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(np.full((16, 16), weight, np.float32), tensor.name))
    before = model.SerializeToString(deterministic=True)
    quantization.scale_channels(model.graph, {"x": np.full(16, largest, np.float32)})
    assert model.SerializeToString(deterministic=True) == before


def plant_outlier(source: Path, target: Path, size: float) -> None:
    """Multiply a channel of the attention's values in the first layer, and divide the row that reads it."""
    model = onnx.load(source)
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    value, output = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in tensors][2:4]
    bias = next(node for node in graph.node if value.output[0] in node.input)
    names = (value.input[1], next(name for name in bias.input if name in tensors), output.input[1])
    weights = [numpy_helper.to_array(tensors[name]).copy() for name in names]
    weights[0][:, 5] *= size
    weights[1][5] *= size
    weights[2][5] /= size
    for name, weight in zip(names, weights, strict=True):
        tensors[name].CopyFrom(numpy_helper.from_array(weight, name))
    onnx.save(model, target)


def test_model_with_an_outlier_channel_keeps_its_answers(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel is 1000 times as large as before, which changes nothing in float32."""
    model = ExportedModel.load(exported[0])
    source, target = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    plant_outlier(exported[0] / "model.onnx", source, 1000.0)
    samples = list(quantization.sample_windows(model, QUESTIONS))

    def logits(path: Path) -> np.ndarray:
        session = open_session(path)
        return np.concatenate([np.stack(session.run(OUTPUTS, sample)).ravel() for sample in samples])

    def answers(path: Path) -> dict[str, str]:
        return dataclasses.replace(model, session=open_session(path)).answer_all(QUESTIONS).texts()

    expected = logits(exported[0] / "model.onnx")
    assert np.abs(logits(source) - expected).max() < 1e-4
    quantization.write_int8_graph(source, target, samples)
    error = np.abs(logits(target) - expected).mean()
    assert answers(target) == answers(source)
    monkeypatch.setattr(quantization, "scale_channels", lambda graph, largest: None)
    quantization.write_int8_graph(source, target, samples)
    assert np.abs(logits(target) - expected).mean() > 2 * error


@pytest.mark.parametrize(("allowed", "is_refused"), [(1.0, True), (1.49, True), (1.5, False)])
def test_loss_of_f1_above_the_bound_is_refused(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: float, is_refused: bool
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(exported[0], folder)
    scores = {"float32": {"f1": 50.0, "exact": 40.0}, "int8": {"f1": 48.5, "exact": 40.0}}
    monkeypatch.setattr(quantization, "score", lambda model, questions, name: scores[name])
    if not is_refused:
        assert quantization.quantize_export(folder, QUESTIONS, allowed) == {**scores, "f1_loss": 1.5}
        return
    with pytest.raises(RunError) as caught:
        quantization.quantize_export(folder, QUESTIONS, allowed)
    assert caught.value.problems == [
        "int8 loses 1.50 points of F1 on 9 questions (float32 50.00, int8 48.50), allowed are "
        f"{allowed:g}; nothing was written; leave out --int8, or allow more with --max_f1_loss"
    ]


@pytest.mark.parametrize("is_larger", [True, False])
def test_an_int8_graph_that_is_larger_is_noted_before_questions_are_answered(
    exported: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_larger: bool,
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(exported[0], folder)
    float32, size = (folder / "model.onnx").stat().st_size, 0

    def write(source: Path, target: Path, samples: object) -> None:
        nonlocal size
        model = onnx.load(exported[1] / "model.onnx")
        helper.set_model_props(model, {"padding": "x" * (float32 if is_larger else 0)})
        onnx.save(model, target)
        size = target.stat().st_size

    def score(*of: object) -> dict[str, float]:
        scored.append(capsys.readouterr().err)
        return {"f1": 50.0}

    scored: list[str] = []
    monkeypatch.setattr(quantization, "write_int8_graph", write)
    monkeypatch.setattr(quantization, "score", score)
    quantization.quantize_export(folder, QUESTIONS, 1.0)
    assert (size > float32) == is_larger
    note = f"note: --int8: model.onnx has {size / 1e6:.2f} MB, in float32 {float32 / 1e6:.2f} MB; large weights "
    assert scored == [f"{note}that layers share are not rounded\n" if is_larger else "", ""]


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

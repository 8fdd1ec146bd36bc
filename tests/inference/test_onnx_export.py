"""Export: the graph's logits are the model's, what is written answers without torch, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from support.questions import make_questions
from support.setups import SETUPS, Maker, saves_of
from transformers import BertForQuestionAnswering, BertTokenizerFast

pytest.importorskip("onnxscript", reason="needs requirements-export.txt")

import export_qa
from adapter_qa.config.options import QADataOptions, answering_options
from adapter_qa.core.errors import RunError, UserError
from adapter_qa.inference import onnx_export as export
from predictor_qa import QuestionAnswerer

QUICK = [("bert", "houlsby"), ("bert", "lang+fusion"), ("roberta", "lang in fusion")]
KINDS = [
    pytest.param(base, name, marks=[] if (base, name) in QUICK else pytest.mark.slow)
    for base in ("bert", "roberta")
    for name in SETUPS
    if name not in ("ner", "lang+ner", "mlm")
]
FILES = {
    "model.onnx", "export.json", "config.json", "answer.py", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "vocab.txt",
}  # fmt: skip
# What serving must not need.
WITHOUT_TORCH = """\
import runpy, sys
for name in ("torch", "transformers", "adapters", "adapter_qa"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def exported(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a saved fusion, and what it was exported to."""
    made = Maker(tiny_bert, tmp_path_factory.mktemp("exported"))
    run = made.make("run", *SETUPS["lang+fusion"][1](saves_of(made)))[2]
    out = made.folder / "an export"
    assert export_qa.main([str(run), str(out)]) == 0
    return run, out


def answer(out: Path, question: str, context: str) -> str:
    """What answer.py prints, in a process where torch cannot be imported."""
    command = [sys.executable, "-c", WITHOUT_TORCH, str(out / "answer.py"), question, context]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=out.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.removesuffix("\n")


@pytest.mark.parametrize(("base", "kind"), KINDS)
def test_logits_are_those_of_the_model(base: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """For every setup, in sizes that the exporter did not see: a batch without padding and single tokens among them."""
    maker = Maker(request.getfixturevalue(f"tiny_{base}"), tmp_path, std=0.1)  # wilder ones blow rounding up to 1e-4
    model, _, folder = maker.make("exported", *SETUPS[kind][1](saves_of(maker)))
    answerer = QuestionAnswerer(folder, device="cpu")
    names = answerer.tokenizer.model_input_names
    assert ("token_type_ids" in names) == (base == "bert")
    inputs = list(export.example_inputs(answerer.model, names, 128))
    inputs.append({name: torch.full((5, 1), 7 if name == "input_ids" else 1) for name in names})
    wanted = [export.logits_of(model, one) for one in inputs]
    export.export_graph(answerer.model, names, tmp_path / "m.onnx", opset=export_qa.OPSET)
    assert export.largest_difference(tmp_path / "m.onnx", inputs, wanted) <= 2e-5
    shifted = [(start + 1, end) for start, end in wanted]
    assert export.largest_difference(tmp_path / "m.onnx", inputs, shifted) == pytest.approx(1, abs=1e-4)
    rows = export.ask_graph(export.open_graph(tmp_path / "m.onnx"), inputs[-1])
    assert [row.shape for row in rows] == [(5, 1)] * 2


def test_what_is_written(exported: tuple[Path, Path], tiny_bert: Path) -> None:
    run, out = exported
    assert {path.name for path in out.iterdir()} == FILES and not out.with_name("an export.writing").exists()
    about = json.loads((out / "export.json").read_text(encoding="utf-8"))
    assert about["source"]["setup"] == "Stack[mlm, Fuse[qa, ner]]" and about["source"]["base_model"] == tiny_bert.name
    assert about["opset"] == 25 and 0 < about["largest_difference"] <= 1e-4
    assert about["bytes"]["model.onnx"] == (out / "model.onnx").stat().st_size
    assert {"torch", "onnx", "onnxscript", "onnxruntime"} <= set(about["versions"])
    assert str(run.parent) not in (out / "export.json").read_text(encoding="utf-8")
    graph = onnx.load(out / "model.onnx")
    assert [(one.domain, one.version) for one in graph.opset_import] == [("", 25)]
    assert [[side.dim_param for side in one.type.tensor_type.shape.dim] for one in graph.graph.input] == [
        ["batch", "tokens"]
    ] * 3
    assert [one.name for one in graph.graph.output] == ["start_logits", "end_logits"]
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForQuestionAnswering"] and config["hidden_size"] == 32
    assert not {"adapters", "_name_or_path"} & set(config)


def test_it_answers_as_the_run_does_without_torch(exported: tuple[Path, Path]) -> None:
    run, out = exported
    long = [replace(one, id=f"long {one.id}") for one in make_questions(2, 6, sentences=10)]
    asked = [*make_questions(3, 5), *long]
    answerer = QuestionAnswerer(run, device="cpu")
    answers = answerer.answer(asked).texts()
    assert (
        len(answerer.tokenizer(asked[-1].context, verbose=False)["input_ids"]) > 2 * answerer.options["max_seq_length"]
    )
    assert [answer(out, one.question, one.context) for one in asked] == [answers[one.id] for one in asked]
    assert len(set(answers.values())) == len(asked)


def test_the_example_says_how_to_call_it(exported: tuple[Path, Path]) -> None:
    done = subprocess.run([sys.executable, exported[1] / "answer.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "python answer.py QUESTION CONTEXT" in done.stderr and "Error" not in done.stderr


@pytest.mark.parametrize("away", [-1e-3, 1e-3])
def test_no_answer(exported: tuple[Path, Path], tmp_path: Path, away: float) -> None:
    """SQuAD v2: no answer where its score exceeds the best span's by more than the threshold."""
    run, _ = exported
    copied, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(run, copied)
    question = make_questions(1, 5)[0]
    setup = json.loads((copied / "adapter_setup.json").read_text(encoding="utf-8"))
    setup["trainer"]["windows"]["version_2"] = True
    (copied / "adapter_setup.json").write_text(json.dumps(setup), encoding="utf-8")
    odds = QuestionAnswerer(copied, device="cpu").answer([question]).null_odds[question.id]
    setup["trainer"]["windows"]["null_score_diff_threshold"] = odds + away
    (copied / "adapter_setup.json").write_text(json.dumps(setup), encoding="utf-8")
    assert export_qa.main([str(copied), str(out)]) == 0
    wanted = QuestionAnswerer(copied, device="cpu").answer([question]).texts()[question.id]
    assert answer(out, question.question, question.context) == wanted and (wanted == "") == (away < 0)


def test_a_fully_fine_tuned_model(tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", tmp_path / "new" / "out"
    torch.manual_seed(3)
    model = BertForQuestionAnswering.from_pretrained(tiny_bert)
    torch.nn.init.normal_(model.qa_outputs.weight)
    model.save_pretrained(run)
    BertTokenizerFast.from_pretrained(tiny_bert).save_pretrained(run)
    windows = answering_options(QADataOptions(max_seq_length=64, doc_stride=16))
    facts = {"base_model": {"name_or_path": ".", "revision": "main"}, "windows": windows}
    (run / "full_setup.json").write_text(json.dumps({"trainer": facts}), encoding="utf-8")
    assert export_qa.main([str(run), str(out), "--opset", "18"]) == 0
    assert f"python {out}/answer.py" in capsys.readouterr().out
    question = make_questions(1, 5)[0]
    wanted = QuestionAnswerer(run, device="cpu").answer([question]).texts()[question.id]
    assert wanted and answer(out, question.question, question.context) == wanted


@pytest.mark.parametrize("difference", [1.1e-4, float("nan")])
def test_other_logits_leave_nothing(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: float
) -> None:
    monkeypatch.setattr(export, "largest_difference", lambda *args: difference)
    with pytest.raises(RunError) as caught:
        export_qa.main([str(exported[0]), str(tmp_path / "out")])
    assert caught.value.problems == [
        f"OUT {tmp_path / 'out'}: not written; the exported model's logits are up to {difference:.1e} from the run's, "
        "allowed are 1.0e-04; try another --opset, or allow more with --tolerance"
    ]
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_fails_in_a_line(tiny_bert: Path, tmp_path: Path) -> None:
    model = BertForQuestionAnswering.from_pretrained(tiny_bert)
    with pytest.raises(RunError, match="^the model cannot be exported: .*"):
        export.export_graph(model, ["no_such_input"], tmp_path / "m.onnx", opset=25)


def refused(*words: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        export_qa.main([str(word) for word in words])
    return caught.value.problems


def test_an_earlier_export_is_replaced_only_when_asked(exported: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(exported[1], out)
    (out / "model.onnx").write_bytes(b"old")
    assert refused(exported[0], out) == [f"OUT {out}: holds an export already; add --overwrite or give another folder"]
    assert export_qa.main([str(exported[0]), str(out), "--overwrite"]) == 0
    assert {path.name for path in out.iterdir()} == FILES and (out / "model.onnx").stat().st_size > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_out_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    (tmp_path / "file").touch()
    wanted = f"OUT {tmp_path / 'mine'}: is not empty and holds no export; give another folder"
    assert refused("run", tmp_path / "mine") == refused("run", tmp_path / "mine", "--overwrite") == [wanted]
    assert refused("run", tmp_path / "file") == [f"OUT {tmp_path / 'file'}: is a file; give a folder"]
    below = tmp_path / "file" / "out"
    assert refused("run", below) == [f"OUT {below}: {tmp_path / 'file'} is a file; give another folder"]


def test_all_that_is_wrong_comes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_qa, "PACKAGES", ("onnx", "no_such_package"))
    (tmp_path / "file").touch()
    assert refused("run", tmp_path / "file", "--opset", "26", "--tolerance", "0") == [
        f"OUT {tmp_path / 'file'}: is a file; give a folder",
        "--opset 26: must lie between 18 and 25",
        "--tolerance 0: must be a number above 0, e.g. 0.0001",
        "no_such_package: not installed; pip install -r requirements-export.txt",
    ]


def test_a_tokenizer_that_pads_on_the_left(tiny_bert: Path, exported: tuple[Path, Path], tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_bert, base)
    BertTokenizerFast.from_pretrained(base, padding_side="left").save_pretrained(base)
    assert refused(exported[0], tmp_path / "out", "--model_name_or_path", base) == [
        f"{exported[0]}: its tokenizer pads on the left, and the context comes first; not supported here"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["base"]

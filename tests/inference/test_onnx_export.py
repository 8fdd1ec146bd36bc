"""Export: the graph's logits are the model's, answer.py answers as ask_qa.py does, and what is refused."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from support.problems import problems_of
from support.questions import make_questions
from support.scripts import ROOT
from support.setups import SETUPS, A, L, Maker, save_adapters
from transformers import AutoTokenizer, BertForQuestionAnswering, BertTokenizerFast, PreTrainedModel

pytest.importorskip("onnxscript", reason='needs pip install "adapter-qa[export]"')

import ask_qa
import export_qa
from adapter_qa.config.options import QADataOptions
from adapter_qa.core.errors import RunError, UserError
from adapter_qa.data.spans import WindowSpans
from adapter_qa.inference import exported_model, onnx_export
from adapter_qa.inference.answer_script import answer_script
from adapter_qa.inference.export_layout import GRAPH_FILE
from adapter_qa.inference.exported_model import ExportedModel, open_session
from adapter_qa.models.metadata import answering_options
from predictor_qa import Overrides, QuestionAnswerer

QUICK = [("bert", "lang+fusion"), ("roberta", "lang in fusion")]
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
BLOCK = """\
import sys
blocked = ("torch", "transformers", "adapters", "datasets", "adapter_qa", "utils_qa", "msgspec", "orjson", "tqdm")
sys.modules.update(dict.fromkeys(blocked))
"""
RUN_SCRIPT = BLOCK + 'import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")'
N_BEST = 40  # more than the 20 of --n_best_size
ANSWER_PAIRS = (
    f"{BLOCK}N_BEST = {N_BEST}\n"
    """\
import json, pathlib, runpy
script = pathlib.Path(sys.argv[1])
model = runpy.run_path(script)["ExportedModel"].load(script.parent)
print(json.dumps([model.answer(*pair, n_best=N_BEST).document(N_BEST) for pair in json.load(sys.stdin)]))
"""
)

CALL = """\
import sys
sys.modules.update(dict.fromkeys(("torch", "transformers", "adapters", "datasets", "pandas")))
import json
from adapter_qa import QuestionAnswerer
answerer = QuestionAnswerer.from_onnx(sys.argv[1], batch_size=3)
print(json.dumps([answerer(**call) for call in json.load(sys.stdin)]))
"""


def export_made_run(maker: Maker, setup: str) -> tuple[Path, Path]:
    """Save a setup with random weights and export it; return both folders."""
    run = maker.make("run", *SETUPS[setup][1](save_adapters(maker)))[2]
    out = maker.folder / "an export"
    assert export_qa.main([str(run), str(out)]) == 0
    return run, out


@pytest.fixture(scope="module")
def exported(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a saved fusion, and the folder that it was exported to."""
    return export_made_run(Maker(tiny_bert, tmp_path_factory.mktemp("exported")), "lang+fusion")


@pytest.fixture
def known_graph(exported: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an export of the weights of `exported` take its graph, which takes no seconds to write."""

    def copy_graph(_model: PreTrainedModel, _names: Sequence[str], path: Path, *, opset: int) -> None:
        assert opset == export_qa.OPSET
        shutil.copyfile(exported[1] / GRAPH_FILE, path)

    monkeypatch.setattr(onnx_export, "export_graph", copy_graph)


def run_answer_script(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run answer.py in a process that cannot import torch."""
    command = [sys.executable, "-c", RUN_SCRIPT, str(out / "answer.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=out.parent)


def script_answers(out: Path, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return the answers of answer.py to pairs of question and context, from such a process."""
    command = [sys.executable, "-c", ANSWER_PAIRS, str(out / "answer.py")]
    process = subprocess.run(
        command, input=json.dumps(pairs), capture_output=True, text=True, check=False, timeout=300, cwd=out.parent
    )
    assert process.returncode == 0, process.stderr[-2000:]
    answers: list[dict[str, Any]] = json.loads(process.stdout)
    return answers


def all_kinds_of_pairs() -> list[tuple[str, str]]:
    """Return questions and contexts that are short, too long for a window, without tokens, and with special tokens."""
    short = [(question.question, question.context) for question in make_questions(3, 5)]
    long = " ".join(question.context for question in make_questions(8, 6, sentences=8))
    words = " ".join(["Onde nasceu Ana"] * 100)
    return [
        *short,
        (short[0][0], long),
        (words, long),
        (words, short[0][1]),
        (words, "Ana."),
        ("\u200b", short[0][1]),
        (short[0][0], "\u200b"),
        ("\u200b", "\u200b"),
        (f"  \t{short[1][0]}\n", f"\n {long} 👩\u200d👩\u200d👧 \u200b"),
        ("[SEP] </s> 🙂?", f"[CLS] <s> {short[2][1]} [SEP]🙂"),
        ("a", "a"),
        ("Quem\x00\x1b[31m?\x85", "\x00Ana\x1b[0m\x07\u2028 é \u202e médica\x85"),
        (short[0][0], "🙂🙂 👩🏽 \u3000東京\u00a0\u00a0🙂"),
        ("🙂" * 300, "🙂" * 200),
        (f"{'x' * 3000}?", f"{'y' * 3000}. Ana."),
    ]


def approximate(document: dict[str, Any]) -> dict[str, Any]:
    """Return an answer whose probabilities may differ as logits of graph and model do."""
    numbers = ("score", "no_answer_score", "null_odds")
    inexact = {name: pytest.approx(document[name], abs=1e-4) for name in numbers if name in document}
    listed = {"n_best": [approximate(entry) for entry in document["n_best"]]} if "n_best" in document else {}
    return document | inexact | listed


@pytest.mark.parametrize(("base", "kind"), KINDS)
def test_logits_of_graph_and_model_are_equal(
    base: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """In sizes that the exporter did not see: among them a batch without padding, and windows of a single token."""
    maker = Maker(request.getfixturevalue(f"tiny_{base}"), tmp_path, std=0.1)  # larger weights: rounding errors of 1e-4
    model, _, folder = maker.make("exported", *SETUPS[kind][1](save_adapters(maker)))
    answerer = QuestionAnswerer(folder, device="cpu")
    names = answerer.tokenizer.model_input_names
    assert ("token_type_ids" in names) == (base == "bert")
    batches = list(onnx_export.example_inputs(answerer.model, names, 128))
    batches.append({name: torch.full((5, 1), 7 if name == "input_ids" else 1) for name in names})
    expected = [onnx_export.model_logits(model, batch) for batch in batches]
    graph = tmp_path / "m.onnx"
    onnx_export.export_graph(answerer.model, names, graph, opset=export_qa.OPSET)
    assert onnx_export.largest_difference(graph, batches, expected) <= 2e-5
    shifted = [(start + 1, end) for start, end in expected]
    assert onnx_export.largest_difference(graph, batches, shifted) == pytest.approx(1, abs=1e-4)
    no_number = [(start, end + float("nan")) for start, end in expected]
    assert not onnx_export.largest_difference(graph, batches, no_number) <= 1
    logits = onnx_export.graph_logits(open_session(graph), batches[-1])
    assert [array.shape for array in logits] == [(5, 1)] * 2


def test_exported_files(exported: tuple[Path, Path], tiny_bert: Path) -> None:
    run, out = exported
    assert {path.name for path in out.iterdir()} == FILES
    assert not out.with_name("an export.writing").exists()
    export = json.loads((out / "export.json").read_text(encoding="utf-8"))
    assert export["source"]["setup"] == "Stack[mlm, Fuse[qa, ner]]"
    assert export["source"]["base_model"] == tiny_bert.name
    assert export["opset"] == 23
    assert 0 < export["largest_difference"] <= 1e-4
    assert export["bytes"]["model.onnx"] == (out / "model.onnx").stat().st_size
    assert {"torch", "onnx", "onnxscript", "onnxruntime"} <= set(export["versions"])
    assert export["tokenizer"] == {
        "cls_token_id": 2, "pad_token_id": 0, "pad_left": False, "has_token_types": True, "split_special_tokens": False,
    }  # fmt: skip
    assert str(run.parent) not in (out / "export.json").read_text(encoding="utf-8")
    graph = onnx.load(out / "model.onnx")
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 23)]
    sizes = [[size.dim_param for size in node.type.tensor_type.shape.dim] for node in graph.graph.input]
    assert sizes == [["batch", "tokens"]] * 3
    assert [node.name for node in graph.graph.output] == ["start_logits", "end_logits"]
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForQuestionAnswering"]
    assert config["hidden_size"] == 32
    assert not {"adapters", "_name_or_path"} & set(config)


def test_answer_script_defines_every_name_once_and_imports_nothing_of_the_project() -> None:
    tree = ast.parse(answer_script())
    defined = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    names = [node.name for node in defined if "overload" not in map(ast.unparse, node.decorator_list)]
    for node in tree.body:
        if isinstance(node, ast.Assign):
            names += [ast.unparse(target) for target in node.targets]
        elif isinstance(node, ast.AnnAssign):
            names.append(ast.unparse(node.target))
    assert len(set(names)) == len(names)
    assert {"Question", "is_aligned", "make_windows", "choose_answers", "IGNORE_INDEX", "UserError"} <= set(names)
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    third_party = {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert third_party == {"numpy", "onnxruntime", "tokenizers"}


def check_answers_of_script(run: Path, out: Path, side: str) -> None:
    answerer = QuestionAnswerer(run, device="cpu")
    assert answerer.tokenizer.padding_side == side
    pairs = all_kinds_of_pairs()
    expected = [answerer.ask(*pair, N_BEST).document(N_BEST) for pair in pairs]
    assert len(answerer.tokenizer(pairs[3][1], verbose=False)["input_ids"]) > 2 * answerer.options.max_seq_length
    assert len(pairs[4][0].split()) == 300
    assert len({answer["answer"] for answer in expected}) > 5
    assert {len(answer["n_best"]) for answer in expected} > {1, N_BEST}
    for pair, answer, theirs in zip(pairs, expected, script_answers(out, pairs), strict=True):
        assert theirs == approximate(answer), pair


def test_answer_script_answers_as_the_run_does(exported: tuple[Path, Path]) -> None:
    check_answers_of_script(*exported, "right")


@pytest.mark.parametrize(("base", "side"), [("bert", "left"), ("roberta", "right")])
def test_answer_script_answers_as_the_run_does_with_other_tokenizers(
    base: str, side: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(request.getfixturevalue(f"tiny_{base}"), folder)
    AutoTokenizer.from_pretrained(folder, padding_side=side).save_pretrained(folder)
    check_answers_of_script(*export_made_run(Maker(folder, tmp_path), "houlsby"), side)


@pytest.mark.usefixtures("known_graph")
@pytest.mark.parametrize("offset", [-1e-3, 1e-3])
def test_export_has_threshold_and_temperature_of_a_calibrated_run(
    exported: tuple[Path, Path], tmp_path: Path, offset: float
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(exported[0], run)
    question = make_questions(1, 5)[0]
    setup = json.loads((run / "adapter_setup.json").read_text(encoding="utf-8"))
    setup["trainer"]["windows"]["version_2"] = True
    (run / "adapter_setup.json").write_text(json.dumps(setup), encoding="utf-8")
    plain = QuestionAnswerer(run, device="cpu").ask(question.question, question.context)
    assert plain.null_odds is not None
    setup["trainer"]["windows"]["null_score_diff_threshold"] = plain.null_odds + offset
    setup["trainer"]["windows"]["temperature"] = 4.0
    (run / "adapter_setup.json").write_text(json.dumps(setup), encoding="utf-8")
    assert export_qa.main([str(run), str(out)]) == 0
    expected = QuestionAnswerer(run, device="cpu").ask(question.question, question.context)
    assert (expected.text == "") == (offset < 0)
    assert expected.no_answer != pytest.approx(plain.no_answer, rel=0.5)
    process = run_answer_script(out, question.question, question.context, "--json")
    answer = json.loads(process.stdout)
    assert answer["answer"] == expected.text
    assert answer["score"] == pytest.approx(expected.probability, abs=1e-5)
    assert answer["no_answer_score"] == pytest.approx(expected.no_answer, rel=1e-3)


def test_fully_fine_tuned_model(tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", tmp_path / "new" / "out"
    torch.manual_seed(3)
    model = BertForQuestionAnswering.from_pretrained(tiny_bert)
    torch.nn.init.normal_(model.qa_outputs.weight)
    model.save_pretrained(run)
    BertTokenizerFast.from_pretrained(tiny_bert).save_pretrained(run)
    windows = answering_options(QADataOptions(max_seq_length=64, doc_stride=16)).document()
    metadata = {"base_model": {"name_or_path": ".", "revision": "main"}, "windows": windows}
    (run / "full_setup.json").write_text(json.dumps({"trainer": metadata}), encoding="utf-8")
    assert export_qa.main([str(run), str(out), "--opset", "18"]) == 0
    assert f"python {out}/answer.py" in capsys.readouterr().out
    question = make_questions(1, 5)[0]
    expected = QuestionAnswerer(run, device="cpu").ask(question.question, question.context).text
    assert expected
    assert run_answer_script(out, question.question, question.context).stdout == f"{expected}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "error: the following arguments are required: QUESTION, CONTEXT; see answer.py --help\n"),
        (["Onde?", "Ana.", "Bruno."], "error: unrecognized arguments: Bruno.; see answer.py --help\n"),
        (["Onde?", "Ana.", "--n_best", "0"], "error: --n_best 0: must be at least 1\n"),
        (["", " \n"], "error: QUESTION is empty\nerror: CONTEXT is empty\n"),
        (["Onde?", "Ana \udcff."], "error: CONTEXT has a lone surrogate, which is not valid text\n"),
    ],
)
def test_answer_script_refuses_missing_and_empty_texts(
    exported: tuple[Path, Path], words: list[str], message: str
) -> None:
    process = run_answer_script(exported[1], *words)
    assert (process.returncode, process.stdout, process.stderr) == (2, "", message)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_answer_script_reports_an_output_that_cannot_be_written(exported: tuple[Path, Path]) -> None:
    command = [sys.executable, str(exported[1] / "answer.py"), "Onde?", "Ana nasceu em Belém."]
    with open("/dev/full", "w", encoding="utf-8") as full:
        process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=300)
    error = "error: standard output: No space left on device; write it to another place\n"
    assert (process.returncode, process.stderr) == (1, error)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        process = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False, timeout=300)
    assert (process.returncode, process.stderr) == (128 + signal.SIGPIPE, "")


def test_answer_script_prints_candidates_as_ask_qa_does(
    exported: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """As text and as JSON; characters that control a terminal are escaped in both."""
    run, out = exported
    question, context = "Onde nasceu Ana?", "Ana\x1b[31m nasceu em\nBelém 🙂"
    words = ["--n_best", "4", "--max_answer_length", "30"]
    assert ask_qa.main([str(run), "--question", question, "--context", context, *words, "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    process = run_answer_script(out, question, context, "--n_best", "4", "--json")
    assert (process.returncode, process.stderr) == (0, "")
    assert {"question": question, "context": context, "id": "1", **json.loads(process.stdout)} == approximate(expected)
    assert ask_qa.main([str(run), "--question", question, "--context", context, *words]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    lines = run_answer_script(out, question, context, "--n_best", "4").stdout.splitlines()
    assert lines[0] == first.partition("   (probability")[0]
    assert len(others) == 4
    for line, theirs in zip(others, lines[1:], strict=True):  # the graph's logits are not those of the model
        assert re.split(r"probability [\d.]+", theirs) == re.split(r"probability [\d.]+", line)
    assert run_answer_script(out, question, context).stdout.splitlines() == lines[:1]


def test_damaged_export_is_refused_with_the_name_of_the_file(exported: tuple[Path, Path], tmp_path: Path) -> None:
    for name, content in (
        ("export.json", None),
        ("export.json", b"{}"),
        ("tokenizer.json", b"{"),
        ("model.onnx", b"no graph"),
        ("model.onnx", None),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(exported[1], folder)
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises(UserError) as caught:
            ExportedModel.load(folder)
        assert len(caught.value.problems) == 1
        assert caught.value.problems[0].startswith(f"{folder / name}: cannot be read (")
        assert caught.value.problems[0].endswith("); export the run again")


@pytest.mark.usefixtures("known_graph")
@pytest.mark.parametrize("difference", [1.1e-4, float("nan")])
def test_nothing_is_written_if_logits_differ(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: float
) -> None:
    monkeypatch.setattr(onnx_export, "largest_difference", lambda *args: difference)
    with pytest.raises(RunError) as caught:
        export_qa.main([str(exported[0]), str(tmp_path / "out")])
    assert caught.value.problems == [
        f"the exported model's logits differ from the run's by up to {difference:.1e}, allowed are 1.0e-04; nothing "
        "was written; try another --opset, or allow more with --tolerance"
    ]
    assert list(tmp_path.iterdir()) == []


def test_model_that_cannot_be_exported_is_reported_in_one_line(tiny_bert: Path, tmp_path: Path) -> None:
    model = BertForQuestionAnswering.from_pretrained(tiny_bert)
    with pytest.raises(RunError, match=r"^the model cannot be exported: .*"):
        onnx_export.export_graph(model, ["no_such_input"], tmp_path / "m.onnx", opset=25)


def refusal(*words: object) -> list[str]:
    """Return the problems that export_qa.py reports."""
    with pytest.raises(UserError) as caught:
        export_qa.main([str(word) for word in words])
    return caught.value.problems


@pytest.fixture(scope="module")
def swapped(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a QA adapter on a language adapter, and that of another language adapter."""
    maker = Maker(tiny_bert, tmp_path_factory.mktemp("swapped"))
    language = L(load_lang_adapter=str(maker.make("mlm", "mlm", A(language="pt"))[2]))
    run = maker.make("qa", "qa", A(), language)[2]
    return run, maker.make("mlm_es", "mlm", A(language="es"))[2]


def test_export_json_tells_a_language_swap(swapped: tuple[Path, Path]) -> None:
    run, other = swapped
    answerer = QuestionAnswerer(run, overrides=Overrides(language_adapter=str(other)), device="cpu")
    swap = {"adapter": "mlm_es", "replaced": "qa", "language": "es", "replaced_language": "pt"}
    assert export_qa.describe_source(answerer, None)["language_swaps"] == [swap]
    assert "language_swaps" not in export_qa.describe_source(QuestionAnswerer(run, device="cpu"), None)


def test_the_call_of_the_pipeline_gives_the_same_without_torch(exported: tuple[Path, Path]) -> None:
    run, out = exported
    pairs = [(question.question, question.context) for question in make_questions(6, 21, sentences=9)]
    calls: list[dict[str, Any]] = [
        {"question": [pair[0] for pair in pairs], "context": [pair[1] for pair in pairs]},
        {"question": pairs[0][0], "context": pairs[0][1], "top_k": 7, "max_seq_len": 40, "max_question_len": 2},
        {"question": pairs[1][0], "context": pairs[1][1], "top_k": 4, "align_to_words": False, "max_answer_len": 3},
        {"question": pairs[2][0], "context": pairs[2][1], "top_k": 3, "handle_impossible_answer": True},
    ]
    process = subprocess.run(
        [sys.executable, "-c", CALL, str(out)],
        input=json.dumps(calls), capture_output=True, text=True, check=False, timeout=300, cwd=ROOT,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-2000:]
    answerer = QuestionAnswerer(run, device="cpu")
    for call, answers in zip(calls, json.loads(process.stdout), strict=True):
        assert answers == [approximate(answer) for answer in answerer(**call)]
    problem = "max_seq_len 129: the model reads at most 128 tokens"
    assert problems_of(QuestionAnswerer.from_onnx(out), *pairs[0], max_seq_len=129) == [problem]


@pytest.mark.slow
def test_an_exported_language_swap_answers_as_it_is_asked(
    swapped: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = swapped
    out = tmp_path / "out"
    assert export_qa.main([str(run), str(out), "--load_lang_adapter", str(other)]) == 0
    assert f"note: language swap: {other / 'mlm'} (es) replaces" in capsys.readouterr().err
    question = make_questions(1, 5)[0]
    asked, kept = (
        QuestionAnswerer(run, overrides=Overrides(language_adapter=name)).ask(question.question, question.context)
        for name in (str(other), None)
    )
    answer = ExportedModel.load(out).answer(question.question, question.context)
    assert (answer.start, answer.end) == (asked.start, asked.end)
    assert answer.probability == pytest.approx(asked.probability, abs=1e-4)
    assert answer.probability != pytest.approx(kept.probability, abs=1e-3)


def test_arguments_of_an_export_are_checked_as_those_of_a_run(exported: tuple[Path, Path]) -> None:
    out = exported[1]
    problem = "batch_size is 0; it must be a whole number of at least 1"
    assert problems_of(QuestionAnswerer.from_onnx, out, batch_size=0) == [problem]
    model = ExportedModel.load(str(out))
    problem = "n_best is 0; it must be a whole number of at least 1"
    assert problems_of(model.answer, "Onde?", "Ana nasceu em Belém.", n_best=0) == [problem]
    assert problems_of(QuestionAnswerer, out) == [
        f"RUN {out}: is an ONNX export; use its answer.py or QuestionAnswerer.from_onnx"
    ]


def test_logits_of_an_export_that_are_nan_are_an_error(
    exported: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported_model, "window_spans", lambda *args, **kwargs: nan_spans())
    with pytest.raises(
        RunError, match=r"^the model's logits are NaN or infinite, so it has no answers; train it again"
    ):
        ExportedModel.load(exported[1]).answer("Onde?", "Ana nasceu em Belém.")


def nan_spans() -> WindowSpans:
    """Return a span of one window whose logits are NaN."""
    pair, one = np.full((1, 1), np.nan, np.float32), np.full(1, np.nan, np.float32)
    tokens = np.zeros((1, 1), np.int64)
    return WindowSpans(pair, tokens, tokens, pair, one, one, one)


@pytest.mark.usefixtures("known_graph")
def test_earlier_export_is_replaced_with_overwrite_only(exported: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(exported[1], out)
    (out / "model.onnx").write_bytes(b"old")
    message = f"OUT {out}: contains an export already; add --overwrite or give another folder"
    assert refusal(exported[0], out) == [message]
    assert export_qa.main([str(exported[0]), str(out), "--overwrite"]) == 0
    assert {path.name for path in out.iterdir()} == FILES
    assert (out / "model.onnx").stat().st_size > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.usefixtures("known_graph")
def test_a_link_stays_and_its_folder_is_written(exported: tuple[Path, Path], tmp_path: Path) -> None:
    """Also a link to a folder that is not there yet."""
    folder, link = tmp_path / "folder", tmp_path / "links" / "link"
    link.parent.mkdir()
    link.symlink_to(folder)
    for words in ([], ["--overwrite"]):
        assert export_qa.main([str(exported[0]), str(link), *words]) == 0
        assert {path.name for path in folder.iterdir()} == FILES
        assert [path.is_symlink() for path in link.parent.iterdir()] == [True]
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "export.json").write_text("{}", encoding="utf-8")  # of an earlier export


def test_output_that_is_no_export_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    (tmp_path / "file").touch()
    message = f"OUT {tmp_path / 'mine'}: is not empty and contains no export; give another folder"
    assert refusal("run", tmp_path / "mine") == refusal("run", tmp_path / "mine", "--overwrite") == [message]
    assert refusal("run", tmp_path / "file") == [f"OUT {tmp_path / 'file'}: is a file; give a folder"]
    below = tmp_path / "file" / "out"
    assert refusal("run", below) == [f"OUT {below}: {tmp_path / 'file'} is a file; give another folder"]


def test_current_folder_and_those_around_it_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for out in (".", "..", "../empty", str(tmp_path / "empty")):
        message = f"OUT {out}: is the current folder or holds it, and cannot be replaced; give another folder"
        assert refusal("run", out) == [message]


def test_all_problems_are_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_qa, "PACKAGES", ("onnx", "no_such_package"))
    (tmp_path / "file").touch()
    assert refusal("run", tmp_path / "file", "--opset", "26", "--tolerance", "0") == [
        f"OUT {tmp_path / 'file'}: is a file; give a folder",
        "--opset 26: must be from 18 to 25",
        "--tolerance 0: must be a number above 0, e.g. 0.0001",
        'no_such_package: not installed; pip install "adapter-qa[export]"',
    ]

"""Answers from the command line, files and Python; no answer; fully fine-tuned models; errors of ask_qa.py."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from support.problems import problems_of
from support.questions import make_questions
from support.saved_runs import SavedRuns
from support.scripts import ROOT, run_main
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

import ask_qa
import predictor_qa
from adapter_qa.core.errors import RunError, UserError
from adapter_qa.inference import web_demo
from adapter_qa.models import base_model
from adapter_qa.models.file_names import FULL_FILE
from predictor_qa import Overrides, QuestionAnswerer, read_pairs

SAMPLE = ROOT / "examples" / "sample"
COVID = [json.loads(line) for line in (SAMPLE / "covid.jsonl").read_text(encoding="utf-8").splitlines()]
ANSWER_KEYS = ("answer", "score", "start", "end")


def ask(argv: list[Any], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return what `ask_qa.py ... --json` prints; it must succeed."""
    assert ask_qa.main([*map(str, argv), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def without_ids(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return answers without their ids, which depend on the source."""
    return [{key: answer[key] for key in ("question", "context", *ANSWER_KEYS)} for answer in answers]


def test_answers_from_all_sources_are_equal(
    saved_runs: SavedRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, questions, pairs = SAMPLE / "covid_context.txt", SAMPLE / "covid_questions.txt", SAMPLE / "covid.jsonl"
    answers = ask([saved_runs.fusion, "--input", pairs], capsys)
    assert [answer["id"] for answer in answers] == [record["id"] for record in COVID]
    assert len(answers) == 9
    assert all(answer["context"][answer["start"] : answer["end"]] == answer["answer"] != "" for answer in answers)
    assert len({(answer["start"], answer["end"]) for answer in answers}) > 1
    expected = [  # scores vary with the batch size
        answer | {"score": pytest.approx(answer["score"], abs=1e-5)} for answer in without_ids(answers)
    ]

    texts = [argument for record in COVID for argument in ("--question", record["question"])]
    for argv in (
        [*texts, "--context", COVID[0]["context"]],
        ["--question_file", questions, "--context_file", context],
    ):
        numbered = ask([saved_runs.fusion, *argv], capsys)
        assert without_ids(numbered) == expected
        assert [answer["id"] for answer in numbered] == [str(number) for number in range(1, 10)]
    for argv, stdin in (
        (["--question_file", questions, "--context", "-"], context),
        (["--question_file", questions, "--context_file", "-"], context),
        (["--question_file", "-", "--context_file", context], questions),
        (["--input", "-"], pairs),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.read_bytes())))
        assert without_ids(ask([saved_runs.fusion, *argv], capsys)) == expected

    output = tmp_path / "out ç.jsonl"
    assert ask_qa.main([str(saved_runs.fusion), "--input", str(pairs), "--output", str(output)]) == 0
    assert [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()] == answers

    answerer = QuestionAnswerer(saved_runs.fusion, batch_size=3)
    together = answerer.ask_many((record["question"], record["context"]) for record in COVID)
    one_by_one = [answerer.ask(record["question"], record["context"]) for record in COVID]
    for results in (together, one_by_one):
        documents = [record | result.document() for record, result in zip(COVID, results, strict=True)]
        assert without_ids(documents) == expected


def test_probabilities_are_over_all_spans_however_many_are_listed(
    saved_runs: SavedRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    question = make_questions(1, 3)[0]
    argv = [saved_runs.qa, "--question", question.question, "--context", question.context]
    few, kept, every = (ask([*argv, "--n_best", n], capsys)[0] for n in (3, 20, 5000))
    assert [len(answer["n_best"]) for answer in (few, kept)] == [3, 20]
    assert few["n_best"] == kept["n_best"][:3] == every["n_best"][:3]  # 20 is --n_best_size of the run
    scores = [candidate["score"] for candidate in every["n_best"]]
    assert 20 < len(scores) < 5000
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert {key: few[key] for key in ANSWER_KEYS} == few["n_best"][0]
    assert ask_qa.main([*map(str, argv), "--n_best", "2"]) == 0
    first, second = few["n_best"][:2]
    shown = [
        f"{answer['answer']}   (probability {answer['score']:.2f}, characters {answer['start']}–{answer['end']})"
        for answer in (first, second)
    ]
    assert capsys.readouterr().out.splitlines() == [shown[0], f"   1. {shown[0]}", f"   2. {shown[1]}"]


def test_the_count_comes_last_and_on_stderr(
    saved_runs: SavedRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of the contexts is longer than a window, and two questions are about it; the zero-width one has no answer."""
    short, long = "Ana nasceu em Belém.", "Ana nasceu em Belém. " * 30
    pairs = [("Onde?", short), ("Onde?", long), ("Quem?", long), ("Onde?", "\u200b")]
    records = [{"question": question, "context": context} for question, context in pairs]
    path, output = tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    counts = r"4 questions answered in [0-9.]+ s, 1 without an answer, 1 context longer than a window"
    argv = [str(saved_runs.qa), "--input", str(path)]
    for more, printed, end in (
        ([], 8, ""),
        (["--json"], 4, ""),
        (["--output", str(output)], 0, f", written to {output}"),
    ):
        assert ask_qa.main([*argv, *more]) == 0
        streams = capsys.readouterr()
        assert re.fullmatch(counts + re.escape(end) + "\n", streams.err)
        assert streams.out.count("\n") == printed
    assert [json.loads(line)["id"] for line in output.read_text(encoding="utf-8").splitlines()] == list("1234")
    assert [answer.windows > 1 for answer in QuestionAnswerer(saved_runs.qa).ask_many(pairs)] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("words", "is_typed"),
    [
        ([], True),
        (["--context", "x"], True),
        (["--context_file", "x.txt", "--n_best", "2"], True),
        (["--context_file", "-"], False),
        (["--json"], False),
        (["--output", "x"], False),
        (["--question", "x"], False),
        (["--question_file", "x"], False),
    ],
)
def test_questions_are_typed_on_a_terminal_only(
    words: list[str], is_typed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everywhere else what is missing is named as before."""
    for stdin, stdout in ((True, True), (True, False), (False, True)):
        monkeypatch.setattr(sys.stdin, "isatty", lambda stdin=stdin: stdin)
        monkeypatch.setattr(sys.stdout, "isatty", lambda stdout=stdout: stdout)
        if is_typed and stdin and stdout:
            assert ask_qa.is_conversation(ask_qa.read_options(["run", *words]))
        else:
            assert problems_of(ask_qa.read_options, ["run", *words])


def test_page_lists_as_many_candidates_as_asked_for(saved_runs: SavedRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[Mapping[str, web_demo.AnswerQuestion]] = []

    def serve_page(answerers: Mapping[str, web_demo.AnswerQuestion], listener: socket.socket) -> None:
        listener.close()
        pages.append(answerers)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # gradio
    monkeypatch.setattr(web_demo, "serve_page", serve_page)
    question = make_questions(1, 3)[0]
    for words in (["--n_best", "30", "--max_answer_length", "2"], []):
        assert ask_qa.main([str(saved_runs.qa), "--serve", "--port", "0", *words]) == 0
    many, few = (page[str(saved_runs.qa)](question.question, question.context).document for page in pages)
    assert [len(document["n_best"]) for document in (many, few)] == [30, ask_qa.CANDIDATES_ON_PAGE]
    assert max(len(candidate["answer"].split()) for candidate in many["n_best"]) <= 2


def test_lengths_of_windows_and_answers_can_be_given(saved_runs: SavedRuns, capsys: pytest.CaptureFixture[str]) -> None:
    question, context = COVID[0]["question"], COVID[0]["context"]
    argv = [saved_runs.fusion, "--question", question, "--context", context]
    tokenizer = AutoTokenizer.from_pretrained(saved_runs.full)

    def lengths(answer: dict[str, Any]) -> list[int]:
        spans = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [sum(entry["start"] <= start < entry["end"] for start, _ in spans) for entry in answer["n_best"]]

    as_trained = ask([*argv, "--n_best", 10], capsys)[0]
    assert max(lengths(as_trained)) > 2
    short = ask([*argv, "--n_best", 10, "--max_answer_length", 2], capsys)[0]
    assert max(lengths(short)) == 2
    assert len(short["n_best"]) == 10

    overrides = Overrides(max_seq_length=48, doc_stride=4, max_answer_length=2)
    answer = QuestionAnswerer(saved_runs.fusion, overrides=overrides).ask(question, context)
    windows = tokenizer(
        question, context, max_length=48, stride=4, truncation="only_second", return_overflowing_tokens=True
    )["input_ids"]
    assert answer.attention is not None
    assert answer.attention["windows"] == len(windows)
    words = ["--max_seq_length", 48, "--doc_stride", 4, "--max_answer_length", 2]
    assert ask([*argv, *words], capsys)[0]["start"] == answer.start


def test_lengths_that_cannot_be_used_are_refused(saved_runs: SavedRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ones depend on base model and tokenizer, and are refused before the model is loaded."""
    argv = [saved_runs.qa, "--question", "Onde?", "--context", "Ana."]
    words = ["--max_answer_length", 0, "--max_seq_length", -3, "--doc_stride", -1, "--n_best", 0]
    assert run_main(ask_qa.main, *argv, *words).stderr.splitlines() == [
        "error: --n_best 0: must be at least 1",
        "error: --max_answer_length 0: must be at least 1",
        "error: --max_seq_length -3: must be at least 1",
        "error: --doc_stride -1: must be at least 0",
    ]
    monkeypatch.setattr(base_model, "load_model", lambda *args, **kwargs: pytest.fail("the model is loaded"))
    for words, problem in (
        (["--max_seq_length", 129], "--max_seq_length 129: the base model reads at most 128 tokens"),
        (["--doc_stride", 60], "--doc_stride 60 leaves no space in --max_seq_length 64; give a stride of at most 59"),
        (["--max_seq_length", 9], "--doc_stride 16 leaves no space in --max_seq_length 9; give a stride of at most 4"),
        (["--max_answer_length", 2**20], "--max_answer_length 1048576: must be between 1 and 1048575"),
    ):
        done = run_main(ask_qa.main, *argv, *words)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"error: {problem}")


def test_there_is_no_answer_if_null_odds_exceed_the_threshold(
    saved_runs: SavedRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    """The null odds are computed from the model's logits of the first token and of the best span."""
    question = make_questions(1, 3)[0]
    argv = [saved_runs.qa, "--question", question.question, "--context", question.context, "--version_2_with_negative"]
    answer = ask(argv, capsys)[0]
    answerer = QuestionAnswerer(saved_runs.qa)
    batch = AutoTokenizer.from_pretrained(saved_runs.full)(question.question, question.context, return_tensors="pt")
    with torch.no_grad():
        output = answerer.model(**batch)
    null_score = float(output.start_logits[0, 0] + output.end_logits[0, 0])
    best = answerer.answer([question]).n_best[question.id][0]
    assert answer["null_odds"] == pytest.approx(null_score - best.start_logit - best.end_logit, abs=1e-4)
    assert (answer["answer"] == "") == (answer["null_odds"] > 0)

    above, below = (
        ask([*argv, "--null_score_diff_threshold", answer["null_odds"] + shift, "--n_best", 5], capsys)[0]
        for shift in (1e-3, -1e-3)
    )
    assert (above["answer"], above["start"], above["end"]) == (best.text, best.start, best.end)
    assert (below["answer"], below["start"], below["end"]) == ("", 0, 0)
    assert below["score"] == below["no_answer_score"]

    def probability(threshold: float) -> float:
        """Return that of no answer if the threshold is taken off its score."""
        odds = answer["no_answer_score"] / (1 - answer["no_answer_score"]) * math.exp(-threshold)
        return float(odds / (1 + odds))

    for asked, shift in ((above, 1e-3), (below, -1e-3)):
        assert asked["no_answer_score"] == pytest.approx(probability(answer["null_odds"] + shift), abs=1e-5)
    empty = [candidate["score"] for candidate in above["n_best"] if candidate["end"] == 0]
    assert empty == [above["no_answer_score"]]
    assert len(above["n_best"]) == 6  # no answer is not counted
    assert ask_qa.main([*map(str, argv), "--null_score_diff_threshold", str(answer["null_odds"] - 1)]) == 0
    assert capsys.readouterr().out == f"(no answer)   (probability {probability(answer['null_odds'] - 1):.2f})\n"


def test_fully_fine_tuned_model_of_another_program(saved_runs: SavedRuns, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer is the best span of the logits of transformers' own model."""
    question = make_questions(1, 4)[0]
    argv = ["--base", saved_runs.full, "--question", question.question, "--context", question.context]
    answer = ask(argv, capsys)[0]
    model = AutoModelForQuestionAnswering.from_pretrained(saved_runs.full).eval()
    tokenizer = AutoTokenizer.from_pretrained(saved_runs.full)
    batch = tokenizer(question.question, question.context, return_tensors="pt", return_offsets_mapping=True)
    offsets = batch.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        output = model(**batch)
    context_tokens = [index for index, sequence in enumerate(batch.sequence_ids(0)) if sequence == 1]
    spans = [(first, last) for first in context_tokens for last in context_tokens if first <= last < first + 30]
    first, last = max(spans, key=lambda span: float(output.start_logits[0, span[0]] + output.end_logits[0, span[1]]))
    assert (answer["start"], answer["end"]) == (offsets[first][0], offsets[last][1])
    result = QuestionAnswerer(base=str(saved_runs.full)).ask(question.question, question.context)
    assert (result.start, result.end) == (answer["start"], answer["end"])
    assert (result.attention, result.no_answer) == (None, None)


def test_no_other_model_answers_in_the_name_of_a_fully_fine_tuned_run(saved_runs: SavedRuns, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved_runs.full, run)
    (run / FULL_FILE).write_text(json.dumps({"trainer": {"base_model": {"name_or_path": "."}}}), encoding="utf-8")
    assert QuestionAnswerer(run).ask("Onde?", "Ana nasceu em Belém.").text
    other = str(saved_runs.full)
    assert problems_of(QuestionAnswerer, run, overrides=Overrides(base_model=other)) == [
        f"--model_name_or_path {other}: {run} is fully fine-tuned and has its own weights; leave it out"
    ]


def test_invalid_arguments_are_refused(saved_runs: SavedRuns) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "run is None and base is None; give exactly one of them"),
        ({"run": saved_runs.qa, "base": "x"}, "and base is 'x'; give exactly one of them"),
        ({"run": saved_runs.qa, "device": "gpu"}, "--device gpu: no such device here; give cpu"),
        ({"run": saved_runs.qa, "device": torch.device("mps")}, "--device mps: no such device here; give cpu"),
        (
            {"base": str(saved_runs.full), "overrides": Overrides(language_adapter="none")},
            f"--load_lang_adapter none: {saved_runs.full} is fully fine-tuned and takes no adapters",
        ),
    ]
    for kwargs, message in cases:
        with pytest.raises(UserError) as refused:
            QuestionAnswerer(**kwargs)
        assert message in str(refused.value)
    with pytest.raises(UserError) as refused:
        read_pairs([("Onde?", "Ana."), (" ", "\ud83d")])
    assert refused.value.problems == [
        "ask: pair 2 (id '2'): 'question' is empty; 'context' has a lone surrogate, which is not valid text"
    ]
    assert problems_of(read_pairs, []) == ["ask: holds no questions"]


def test_models_that_a_run_or_a_base_cannot_be(saved_runs: SavedRuns, tmp_path: Path) -> None:
    """The advice names what exists: no --base for a script that has none, and no --random_init."""
    full, export, empty = (tmp_path / name for name in ("full", "export", "empty"))
    for folder in (full, export, empty):
        folder.mkdir()
        shutil.copy(saved_runs.full / "config.json", folder)
    (export / "export.json").write_text("{}", encoding="utf-8")
    advice = "is an ONNX export; use its answer.py or QuestionAnswerer.from_onnx"
    assert problems_of(QuestionAnswerer, export) == [f"RUN {export}: {advice}"]
    assert problems_of(QuestionAnswerer, base=str(export)) == [f"--base {export}: {advice}"]
    assert problems_of(QuestionAnswerer, full) == [
        f"RUN {full}: is a fully fine-tuned model but not from a run; only ask_qa.py takes it, as --base {full}"
    ]
    lost = "holds no weights (model.safetensors); give a trained model"
    assert problems_of(QuestionAnswerer, base=str(empty)) == [f"{empty}: {lost}"]
    overrides = Overrides(base_model=str(empty))
    assert problems_of(QuestionAnswerer, saved_runs.qa, overrides=overrides) == [f"{empty}: {lost}"]


def test_numbers_that_cannot_be_used_are_refused(saved_runs: SavedRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line refuses them before; here all of a call come together, and before a model is loaded."""
    overrides: list[tuple[dict[str, Any], str]] = [
        ({"max_seq_length": "64"}, "max_seq_length is '64'; it must be a whole number of at least 1"),
        ({"max_seq_length": 64.5}, "max_seq_length is 64.5; it must be a whole number of at least 1"),
        ({"doc_stride": -1}, "doc_stride is -1; it must be a whole number of at least 0"),
        ({"max_answer_length": True}, "max_answer_length is True; it must be a whole number of at least 1"),
        ({"null_score_diff_threshold": math.nan}, "null_score_diff_threshold is nan; it must be a finite number"),
        ({"null_score_diff_threshold": "1"}, "null_score_diff_threshold is '1'; it must be a finite number"),
    ]
    answerer = QuestionAnswerer(saved_runs.qa, device=torch.device("cpu"))
    monkeypatch.setattr(base_model, "load_model", lambda *args, **kwargs: pytest.fail("the model is loaded"))
    for fields, problem in overrides:
        assert problems_of(QuestionAnswerer, saved_runs.qa, overrides=Overrides(**fields), batch_size=0) == [
            problem,
            "batch_size is 0; it must be a whole number of at least 1",
        ]
    pair = ("Onde?", "Ana.")
    for n_best, problem in (
        (0, "n_best is 0; it must be a whole number of at least 1"),
        ("3", "n_best is '3'; it must be a whole number of at least 1"),
        ([3], "n_best is a list; it must be a whole number of at least 1"),
    ):
        assert problems_of(answerer.ask, *pair, n_best=n_best) == [problem]
        assert problems_of(answerer.ask_many, [pair], n_best=n_best) == [problem]
        assert problems_of(answerer.answer, make_questions(1, 3), n_best=n_best) == [problem]
    assert problems_of(answerer.answer, []) == ["there are no questions; give at least one"]


def test_pairs_are_tuples_or_dictionaries_with_both_texts() -> None:
    """A dictionary is not unpacked to its keys, and a text of two characters not to these."""
    pair = {"question": "Onde?", "context": "Ana nasceu em Belém."}
    pairs: list[Any] = [pair | {"id": "7"}, (*pair.values(),), [*pair.values()]]
    questions = read_pairs(pairs)
    assert [(question.id, question.question, question.context) for question in questions] == [
        (number, *pair.values()) for number in ("1", "2", "3")
    ]
    for other in ("ab", ("a",), ("a", "b", "c"), {"question": "a"}, {"a", "b"}, 3, None):
        assert problems_of(read_pairs, [pair, other]) == [
            f"ask: pair 2 ({type(other).__name__}) is not a question and its context; give a tuple of these two, or a "
            "dictionary with both"
        ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_nan_or_infinite_are_an_error_and_no_missing_answer(
    saved_runs: SavedRuns, value: float
) -> None:
    answerer = QuestionAnswerer(saved_runs.qa)
    answerer.model.get_parameter("qa_outputs.bias").data.fill_(value)
    with pytest.raises(RunError) as failed:
        answerer.ask("Onde?", "Ana nasceu em Belém.")
    assert failed.value.problems == [
        "the model's logits are NaN or infinite, so it has no answers; train it again, with a lower --learning_rate"
    ]


def test_an_answerer_leaves_no_filter_in_the_libraries(saved_runs: SavedRuns) -> None:
    """A head with random values is still told where somebody else loads one."""
    loggers = [logging.getLogger(name) for name in ("transformers.modeling_utils", "adapters.model_mixin")]
    before = [[*logger.filters] for logger in loggers], [*warnings.filters]
    QuestionAnswerer(saved_runs.qa)
    assert ([logger.filters for logger in loggers], warnings.filters) == before


def test_attention_is_computed_without_cudnn_only_while_questions_are_answered(saved_runs: SavedRuns) -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    answerer = QuestionAnswerer(saved_runs.qa)
    states: list[bool] = []
    answerer.model.register_forward_pre_hook(lambda *_: states.append(torch.backends.cuda.cudnn_sdp_enabled()))
    answerer.ask("Onde?", "Ana nasceu em Belém.")
    assert (states, torch.backends.cuda.cudnn_sdp_enabled()) == ([False], True)


def test_single_question_has_its_fusion_attention(saved_runs: SavedRuns) -> None:
    question, context = COVID[0]["question"], COVID[0]["context"]
    answerer = QuestionAnswerer(saved_runs.fusion)
    attention = answerer.ask(question, context).attention
    assert attention is not None
    assert (attention["adapters"], attention["places"]) == (["qa", "ner"], ["0", "1", "2", "3"])
    windows = AutoTokenizer.from_pretrained(saved_runs.full)(
        question, context, max_length=64, stride=16, truncation="only_second", return_overflowing_tokens=True
    )["input_ids"]
    assert attention["windows"] == len(windows) > 1
    assert all(sum(row) == pytest.approx(1, abs=1e-6) for row in attention["question"] + attention["all"])
    assert answerer.ask_many([(question, context)])[0].attention is None
    assert QuestionAnswerer(saved_runs.qa).ask("Onde?", "Ana nasceu em Belém.").attention is None


def test_threads_get_the_answers_of_their_own_questions(saved_runs: SavedRuns) -> None:
    """Two questions are asked at once, as two requests of the page do; each pass leaves the other thread time."""
    answerer = QuestionAnswerer(saved_runs.fusion, batch_size=1)
    pairs = [(record["question"], record["context"]) for record in (COVID[0], COVID[-1])]
    expected = [answerer.ask(*pair) for pair in pairs]
    assert expected[0] != expected[1]
    answerer.model.get_submodule("bert.encoder").register_forward_pre_hook(lambda *_: time.sleep(0.02))
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda pair: answerer.ask(*pair), pairs)) == expected


@pytest.mark.parametrize(
    ("status", "advice"),
    [("interrupted", "its command again finishes it"), ("finished", "ask the run that it evaluated")],
)
def test_a_run_that_has_saved_nothing(status: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"status": status}), encoding="utf-8")
    (tmp_path / "adapters-qa.writing").mkdir()
    (tmp_path / "adapters-qa.writing" / "adapter_setup.json").touch()  # of a killed run
    with pytest.raises(UserError) as caught:
        QuestionAnswerer(tmp_path)
    assert caught.value.problems == [f"RUN {tmp_path}: this run is {status} and has saved nothing; {advice}"]


def test_base_model_given_by_option(saved_runs: SavedRuns, tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [saved_runs.qa, "--question", "Onde?", "--context", "Ana nasceu em Belém."]
    assert ask([*argv, "--model_name_or_path", tiny_bert], capsys) == ask(argv, capsys)


def test_folders_may_be_paths(saved_runs: SavedRuns, tiny_bert: Path) -> None:
    pair = ("Onde?", "Ana nasceu em Belém.")
    moved = QuestionAnswerer(saved_runs.qa, overrides=Overrides(base_model=tiny_bert))
    assert moved.ask(*pair) == QuestionAnswerer(saved_runs.qa).ask(*pair)
    assert QuestionAnswerer(base=saved_runs.full).ask(*pair) == QuestionAnswerer(base=str(saved_runs.full)).ask(*pair)
    missing = saved_runs.qa / "missing"
    assert problems_of(QuestionAnswerer, saved_runs.qa, overrides=Overrides(language_adapter=missing)) == [
        f"--load_lang_adapter {missing}: no such folder; give an adapters-<task> folder or a hub id such as org/name"
    ]


def test_out_of_memory_is_reported_with_advice(saved_runs: SavedRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out_of_memory(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(predictor_qa, "make_windows", run_out_of_memory)
    process = run_main(ask_qa.main, saved_runs.qa, "--question", "Onde?", "--context", "Ana.", "--batch_size", "512")
    assert process.returncode == 1
    assert process.stderr == (
        "error: out of memory (CUDA out of memory. Tried to allocate 2 GiB.); lower --batch_size (now 512) or give "
        "--device cpu\n"
    )


def test_reader_that_closes_the_pipe(saved_runs: SavedRuns, tmp_path: Path) -> None:
    """As in `ask_qa.py ... --json | head -1`: no traceback, and the exit code of SIGPIPE."""
    lines = [json.dumps(COVID[0] | {"id": number}) for number in range(400)]  # more than a pipe holds
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, str(ROOT / "ask_qa.py"), str(saved_runs.qa), "--input", "in.jsonl", "--json"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["id"] == 0
        process.stdout.close()
        stderr = process.stderr.read().decode()
        assert process.wait(60) == 128 + signal.SIGPIPE
    assert "Error" not in stderr
    assert "Traceback" not in stderr


def test_problems_of_standard_input_are_reported_by_line(
    saved_runs: SavedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"id": 1}\n{')))
    process = run_main(ask_qa.main, "--input", "-", saved_runs.qa)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.splitlines() == [
        "error: standard input: line 1 (id 1): no 'question'; no 'context'",
        "error: standard input: line 2: not JSON at column 2: Expecting property name enclosed in double quotes",
    ]


def test_missing_gradio_is_named_only_with_serve(saved_runs: SavedRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    process = run_main(ask_qa.main, saved_runs.qa, "--serve")
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == ('error: --serve needs gradio, which is not installed: pip install "adapter-qa[serve]"\n')
    help_text = run_main(ask_qa.main, "--help").stdout
    assert "--serve" in help_text
    assert "gradio" not in help_text


@pytest.mark.parametrize("options", [["--overwrite"], []])
def test_output_never_replaces_the_file_with_the_questions(options: list[str], tmp_path: Path) -> None:
    """The same file under another name; reported with the other problems, and without advice to overwrite it."""
    questions = tmp_path / "pairs.jsonl"
    questions.write_bytes((SAMPLE / "covid.jsonl").read_bytes())
    link = tmp_path / "link.jsonl"
    link.symlink_to(questions)
    for given in (["--input", questions], ["--question_file", questions, "--context", "Ana."]):
        done = run_main(ask_qa.main, "run", *given, "--output", link, "--batch_size", "0", *options)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines() == [
            "error: --batch_size 0: must be at least 1",
            f"error: --output {link}: is the file of {given[0]}; give another file",
        ]
    assert questions.read_bytes() == (SAMPLE / "covid.jsonl").read_bytes()


def test_invalid_options_are_refused_before_heavy_imports() -> None:
    code = (
        "import sys\nimport ask_qa\nfrom adapter_qa.core.errors import UserError\n"
        "try:\n    ask_qa.main(['run', '--question', 'a'])\nexcept UserError:\n    pass\n"
        "heavy = {'torch', 'transformers', 'adapters', 'gradio', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""Asking: the same answers whichever way questions come and whoever is asked; no answer; whole models."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.questions import make_questions
from support.saved_runs import SavedRuns
from support.scripts import ROOT
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

import ask_qa
import predictor_qa
from adapter_qa.core.cli import run_cli
from adapter_qa.core.errors import UserError
from predictor_qa import QuestionAnswerer, read_pairs

SAMPLE = ROOT / "examples" / "sample"
COVID = [json.loads(line) for line in (SAMPLE / "covid.jsonl").read_text(encoding="utf-8").splitlines()]
FOUND = ("question", "context", "answer", "score", "start", "end")


def typed(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts bytes on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


def asked(words: list[Any], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What `ask_qa.py ... --json` prints; it must succeed."""
    assert ask_qa.main([*map(str, words), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def found(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without ids, which the command line has none of, and with scores as exact as batches of other sizes are."""
    return [{key: one[key] for key in FOUND} | {"score": pytest.approx(one["score"], abs=1e-5)} for one in answers]


def test_nine_questions_have_the_same_answers_all_ways(
    saved_runs: SavedRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, questions = SAMPLE / "covid_context.txt", SAMPLE / "covid_questions.txt"
    answers = asked([saved_runs.fusion, "--input", SAMPLE / "covid.jsonl"], capsys)
    assert [one["id"] for one in answers] == [one["id"] for one in COVID] and len(answers) == 9
    assert all(one["context"][one["start"] : one["end"]] == one["answer"] != "" for one in answers)
    assert len({(one["start"], one["end"]) for one in answers}) > 1

    arguments = [word for one in COVID for word in ("--question", one["question"])]
    assert asked([saved_runs.fusion, *arguments, "--context", COVID[0]["context"]], capsys) == found_with_numbers(
        answers
    )
    files = ["--question_file", questions, "--context_file", context]
    assert asked([saved_runs.fusion, *files], capsys) == found_with_numbers(answers)
    for words, text in (
        (["--question_file", questions, "--context", "-"], context),
        (["--question_file", questions, "--context_file", "-"], context),
        (["--question_file", "-", "--context_file", context], questions),
        (["--input", "-"], SAMPLE / "covid.jsonl"),
    ):
        typed(text.read_bytes(), monkeypatch)
        assert found(asked([saved_runs.fusion, *words], capsys)) == [
            {key: one[key] for key in FOUND} for one in answers
        ]
    assert ask_qa.main([str(saved_runs.fusion), "--input", str(SAMPLE / "covid.jsonl"), "--output",
                        str(tmp_path / "out ç.jsonl")]) == 0  # fmt: skip
    written = (tmp_path / "out ç.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in written] == answers

    answerer = QuestionAnswerer(saved_runs.fusion, batch_size=3)
    many = answerer.ask_many((one["question"], one["context"]) for one in COVID)
    one_by_one = [answerer.ask(one["question"], one["context"]) for one in COVID]
    for replies in (many, one_by_one):
        assert found([one | reply.document() for one, reply in zip(COVID, replies, strict=True)]) == [
            {key: one[key] for key in FOUND} for one in answers
        ]


def found_with_numbers(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same answers as the command line gives them, whose ids count from 1."""
    return [{"id": str(number), **one} for number, one in enumerate(found(answers), start=1)]


def test_candidates_and_their_probabilities(saved_runs: SavedRuns, capsys: pytest.CaptureFixture[str]) -> None:
    """Listing fewer of them changes none: the probabilities are over all that the run keeps."""
    one = make_questions(1, 3)[0]
    words = [saved_runs.qa, "--question", one.question, "--context", one.context]
    few, all_of_them = (asked([*words, "--n_best", n], capsys)[0] for n in (3, 1000))
    assert len(few["n_best"]) == 3 and few["n_best"] == all_of_them["n_best"][:3]
    assert len(all_of_them["n_best"]) == 20  # --n_best_size of the run
    scores = [candidate["score"] for candidate in all_of_them["n_best"]]
    assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1, abs=1e-6)
    assert {key: few[key] for key in ("answer", "score", "start", "end")} == few["n_best"][0]
    assert ask_qa.main([*map(str, words), "--n_best", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first, second = few["n_best"][:2]
    assert lines == [
        f"{first['answer']}   (score {first['score']:.3f}, at {first['start']})",
        f"   1. {first['score']:.3f}  {first['answer']}   (at {first['start']})",
        f"   2. {second['score']:.3f}  {second['answer']}   (at {second['start']})",
    ]


def test_no_answer(saved_runs: SavedRuns, capsys: pytest.CaptureFixture[str]) -> None:
    """Its odds are null start and end logit less the best span's; above the threshold it is the answer."""
    one = make_questions(1, 3)[0]
    words = [saved_runs.qa, "--question", one.question, "--context", one.context, "--version_2_with_negative"]
    plain = asked(words, capsys)[0]
    answerer = QuestionAnswerer(saved_runs.qa)
    batch = AutoTokenizer.from_pretrained(saved_runs.full)(one.question, one.context, return_tensors="pt")
    with torch.no_grad():
        output = answerer.model(**batch)
    null = float(output.start_logits[0, 0] + output.end_logits[0, 0])
    best = answerer.answer([one]).n_best[one.id][0]
    odds = null - best.start_logit - best.end_logit
    assert plain["null_odds"] == pytest.approx(odds, abs=1e-4)
    assert (plain["answer"] == "") == (plain["null_odds"] > 0)

    above, below = (
        asked([*words, "--null_score_diff_threshold", plain["null_odds"] + shift, "--n_best", 50], capsys)[0]
        for shift in (1e-3, -1e-3)
    )
    assert (above["answer"], above["start"], above["end"]) == (best.text, best.start, best.end)
    assert (below["answer"], below["start"], below["end"]) == ("", 0, 0)
    assert below["score"] == below["no_answer_score"] == above["no_answer_score"] == plain["no_answer_score"]
    assert [two["score"] for two in above["n_best"] if two["end"] == 0] == [above["no_answer_score"]]
    assert len(above["n_best"]) == 21
    low = ["--null_score_diff_threshold", str(plain["null_odds"] - 1)]
    assert ask_qa.main([*map(str, words), *low]) == 0
    assert capsys.readouterr().out == f"(no answer)   (score {plain['no_answer_score']:.3f}, at 0)\n"


def test_a_whole_model_that_no_run_made(saved_runs: SavedRuns, capsys: pytest.CaptureFixture[str]) -> None:
    """`--base` asks it with the usual windows; the best span is that of its own logits."""
    one = make_questions(1, 4)[0]
    answer = asked(["--base", saved_runs.full, "--question", one.question, "--context", one.context], capsys)[0]
    model = AutoModelForQuestionAnswering.from_pretrained(saved_runs.full).eval()
    tokenizer = AutoTokenizer.from_pretrained(saved_runs.full)
    batch = tokenizer(one.question, one.context, return_tensors="pt", return_offsets_mapping=True)
    offsets = batch.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        output = model(**batch)
    inside = [index for index, owner in enumerate(batch.sequence_ids(0)) if owner == 1]
    pairs = [(first, last) for first in inside for last in inside if first <= last < first + 30]
    first, last = max(pairs, key=lambda pair: float(output.start_logits[0, pair[0]] + output.end_logits[0, pair[1]]))
    assert (answer["start"], answer["end"]) == (offsets[first][0], offsets[last][1])
    reply = QuestionAnswerer(base=str(saved_runs.full)).ask(one.question, one.context)
    assert (reply.start, reply.end, reply.attention, reply.no_answer) == (answer["start"], answer["end"], None, None)


def test_the_class_says_what_is_wrong(saved_runs: SavedRuns) -> None:
    for words, said in (
        ({}, "give a run or a base, one of the two"),
        ({"run": saved_runs.qa, "base": "x"}, "give a run or a base, one of the two"),
        ({"run": saved_runs.qa, "device": "gpu"}, "--device gpu: no such device here; give cpu"),
        ({"base": str(saved_runs.full), "language_adapter": "none"}, "is a whole model and takes no adapters"),
    ):
        with pytest.raises(UserError) as refused:
            QuestionAnswerer(**words)
        assert said in str(refused.value)
    with pytest.raises(UserError) as refused:
        read_pairs([("Onde?", "Ana."), (" ", "\ud83d")])
    assert refused.value.problems == ["ask: pair 2 (id '2'): 'question' is empty; 'context' has a lone surrogate, "
                                      "which is not valid text"]  # fmt: skip
    with pytest.raises(UserError) as refused:
        read_pairs([])
    assert refused.value.problems == ["ask: holds no questions"]


def test_the_fusion_attention_of_a_question(saved_runs: SavedRuns) -> None:
    answerer = QuestionAnswerer(saved_runs.fusion)
    attention = answerer.ask(COVID[0]["question"], COVID[0]["context"]).attention
    assert attention is not None
    assert (attention["adapters"], attention["places"]) == (["qa", "ner"], ["0", "1", "2", "3"])
    assert attention["windows"] == len(windows_of_the_tokenizer(saved_runs, COVID[0])) > 1
    assert all(sum(row) == pytest.approx(1, abs=1e-6) for part in ("question", "all") for row in attention[part])
    assert answerer.ask_many([(COVID[0]["question"], COVID[0]["context"])])[0].attention is None
    assert QuestionAnswerer(saved_runs.qa).ask("Onde?", "Ana nasceu em Belém.").attention is None


def windows_of_the_tokenizer(saved_runs: SavedRuns, record: dict[str, str]) -> list[Any]:
    tokenizer = AutoTokenizer.from_pretrained(saved_runs.full)
    return tokenizer(record["question"], record["context"], max_length=64, stride=16, truncation="only_second",
                     return_overflowing_tokens=True)["input_ids"]  # fmt: skip


def test_a_base_model_that_has_moved(
    saved_runs: SavedRuns, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [saved_runs.qa, "--question", "Onde?", "--context", "Ana nasceu em Belém."]
    assert asked([*words, "--model_name_or_path", tiny_bert], capsys) == asked(words, capsys)


def test_memory_that_does_not_suffice_is_told(
    saved_runs: SavedRuns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(predictor_qa, "make_windows", full)
    words = ["ask_qa.py", str(saved_runs.qa), "--question", "Onde?", "--context", "Ana.", "--batch_size", "512"]
    monkeypatch.setattr(sys, "argv", words)
    assert run_cli(ask_qa.main) == 1
    assert capsys.readouterr().err == (
        "error: out of memory (CUDA out of memory. Tried to allocate 2 GiB.); lower --batch_size (now 512) or give "
        "--device cpu\n"
    )


def test_a_reader_who_has_enough(saved_runs: SavedRuns, tmp_path: Path) -> None:
    """`ask_qa.py ... --json | head -1`: no traceback, and the exit code that shells know."""
    lines = [json.dumps(COVID[0] | {"id": number}) for number in range(400)]  # more than a pipe holds
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, str(ROOT / "ask_qa.py"), str(saved_runs.qa), "--input", "in.jsonl", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["id"] == 0
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(60) == 128 + signal.SIGPIPE
    assert "Error" not in said and "Traceback" not in said


def test_standard_input_of_a_process(saved_runs: SavedRuns) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "ask_qa.py"), "--input", "-", str(saved_runs.qa)]
    done = subprocess.run(command, input=b'{"id": 1}\n{', capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines() == [
        "error: standard input: line 1 (id 1): no 'question'; no 'context'",
        "error: standard input: line 2: not JSON at column 2: Expecting property name enclosed in double quotes",
    ]


def test_without_gradio_the_page_says_what_to_install(saved_runs: SavedRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask_qa.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as refused:
        ask_qa.main([str(saved_runs.qa), "--serve"])
    assert refused.value.problems == [
        "--serve needs gradio, which is not installed: pip install \"adapter-qa[serve]\""
    ]


def test_mistakes_do_not_wait_for_heavy_imports() -> None:
    code = (
        "import sys\nimport ask_qa\nfrom adapter_qa.core.errors import UserError\n"
        "try:\n    ask_qa.main(['run', '--question', 'a'])\nexcept UserError:\n    pass\n"
        "heavy = {'torch', 'transformers', 'adapters', 'gradio', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

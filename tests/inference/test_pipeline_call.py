"""`QuestionAnswerer(...)(question, context)` against the pipeline of transformers 4 that it replaces."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from support.problems import problems_of
from support.questions import make_questions
from support.saved_runs import SavedRuns
from support.tokenizer_families import FAMILIES, unchecked
from transformers import AutoTokenizer, BertForQuestionAnswering
from transformers.pipelines import question_answering
from transformers.pipelines.question_answering import QuestionAnsweringPipeline

from adapter_qa import QuestionAnswerer
from adapter_qa.inference.pipeline_call import find_words
from predictor_qa import Overrides

LIMITS = {"max_seq_len": 64, "doc_stride": 16, "max_answer_len": 5}
SHORT = [(question.question, question.context) for question in make_questions(6, 21, sentences=2)]
LONG = [(question.question, question.context) for question in make_questions(4, 22, sentences=9)]
REPEATED = ("Onde nasceu Ana?", "Ana nasceu em Belém. ana É médica em São Luís, “Belém”; Goiânia-Belém. ANA")
KEYS = ("start", "end", "answer")
NOTHING = {"start": 0, "end": 0, "answer": ""}


@pytest.fixture(scope="module")
def pipeline(saved_runs: SavedRuns) -> QuestionAnsweringPipeline:
    model = BertForQuestionAnswering.from_pretrained(saved_runs.full).eval()
    return QuestionAnsweringPipeline(model, AutoTokenizer.from_pretrained(saved_runs.full), device="cpu")


@pytest.fixture
def answerer(saved_runs: SavedRuns) -> QuestionAnswerer:
    overrides = Overrides(max_seq_length=64, doc_stride=16, max_answer_length=5)
    return QuestionAnswerer(base=str(saved_runs.full), overrides=overrides, device="cpu")


def listed(result: Any) -> list[dict[str, Any]]:
    return result if isinstance(result, list) else [result]


def spans(result: Any) -> list[dict[str, Any]]:
    """Return answers without their scores."""
    return [{key: answer[key] for key in KEYS} for answer in listed(result)]


@pytest.mark.parametrize("handle_impossible_answer", [False, True])
@pytest.mark.parametrize("align_to_words", [False, True])
@pytest.mark.parametrize("top_k", [1, 3, 8])
def test_in_one_window_answers_are_the_pipelines_and_scores_its_shares(
    pipeline: QuestionAnsweringPipeline,
    answerer: QuestionAnswerer,
    top_k: int,
    align_to_words: bool,
    handle_impossible_answer: bool,
) -> None:
    """In one window both scores are exp(start + end) over a constant, so all ratios are equal."""
    switches = {"align_to_words": align_to_words, "handle_impossible_answer": handle_impossible_answer}
    for question, context in [*SHORT, REPEATED]:
        theirs = pipeline(question=question, context=context, top_k=top_k, **LIMITS, **switches)
        ours = answerer(question=question, context=context, top_k=top_k, **switches)
        assert spans(ours) == spans(theirs)
        assert type(ours) is type(theirs)
        ratios = [a["score"] / b["score"] for a, b in zip(listed(ours), listed(theirs), strict=True)]
        assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-4)


@pytest.mark.parametrize("align_to_words", [False, True])
def test_in_several_windows_answers_are_the_pipelines_without_its_normalisation(
    pipeline: QuestionAnsweringPipeline,
    answerer: QuestionAnswerer,
    monkeypatch: pytest.MonkeyPatch,
    align_to_words: bool,
) -> None:
    """With exp(start + end) in place of a softmax in each window, all its scores are probabilities times a constant."""
    select = question_answering.select_starts_ends

    def select_with_plain_scores(start: Any, end: Any, p_mask: Any, attention_mask: Any, *rest: Any) -> Any:
        starts, ends, scores, _ = select(start, end, p_mask, attention_mask, 1e6, *rest[1:])
        kept = np.array(p_mask)[0] == 0
        total = np.exp(np.array(start)[0, kept]).sum() * np.exp(np.array(end)[0, kept]).sum()
        null = float(np.exp(np.array(start)[0, 0] + np.array(end)[0, 0]))
        return starts, ends, scores * total, min(rest[0], null)

    monkeypatch.setattr(question_answering, "select_starts_ends", select_with_plain_scores)
    limits: dict[str, Any] = {**LIMITS, "max_answer_len": 2, "top_k": 400, "align_to_words": align_to_words}
    for question, context in [*LONG[:2], (REPEATED[0], f"{REPEATED[1]} " * 3)]:
        answers = pipeline(question=question, context=context, handle_impossible_answer=True, **limits)
        theirs = {answer["answer"].lower(): answer for answer in answers if answer["score"] > 0}
        total = sum(answer["score"] for answer in theirs.values())
        results = answerer(question, context, handle_impossible_answer=True, **limits)
        ours = {answer["answer"].lower(): answer["score"] for answer in results}
        assert sum(ours.values()) == pytest.approx(1, abs=1e-5)
        cut = [theirs[text] for text in theirs if text not in ours]
        assert align_to_words or not cut
        for answer in cut:  # the pipeline's words end where a window ends
            assert re.search(r"\w\w", context[answer["start"] - 1 : answer["start"] + 1]) or re.search(
                r"\w\w", context[answer["end"] - 1 : answer["end"] + 1]
            )
        for text, score in ours.items():
            if not any(answer["answer"].lower() in text for answer in cut):
                assert score == pytest.approx(theirs[text]["score"] / total, abs=2e-6)
        if not cut:
            first, best = (next(answer for answer in found if answer["answer"]) for found in (results, answers))
            assert first["answer"].lower() == best["answer"].lower()


@pytest.mark.parametrize("family", list(FAMILIES))
def test_words_are_those_of_the_pipeline(family: str) -> None:
    """Of every token; but a word with white space in it, also a whole sentence, is none."""
    text = "São Luís, (Belém) é\u00a0a  capital; 1827. D'Ávila... não!"
    tokenizer = unchecked(FAMILIES[family]()).checked()
    words = find_words([text], tokenizer)[text]
    encoding = tokenizer.encode([text])[0]
    chars = tokenizer.char_spans([text], [encoding], np.array(encoding.ids))
    for token, (start, end) in enumerate(chars.tolist()):
        if end > start:
            first, last = QuestionAnsweringPipeline.get_indices(cast(Any, None), encoding, token, token, 0, True)
            word = text[first:last]
            begin = first + len(word) - len(word.lstrip())
            theirs = (begin, begin + len(word.strip()))
            assert words.around(start, end) == ((start, end) if len(word.split()) > 1 else theirs)


def forms() -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Yield positional and keyword arguments in all forms of the pipeline."""
    (question, context), (other, another) = SHORT[:2]
    both = [{"question": question, "context": context}, {"question": other, "context": another}]
    yield (), {"question": question, "context": context}
    yield (), {"question": [question], "context": context}
    yield (), {"question": [question], "context": [context]}
    yield (), {"question": [question, other], "context": context}
    yield (), {"question": [question, other], "context": [context, another]}
    yield (), {"question": [], "context": []}
    yield (question, context), {}
    yield (both[0],), {}
    yield (both[:1],), {}
    yield (both,), {}
    yield (tuple(both),), {}
    yield (iter(both),), {}
    yield (*both,), {}
    yield ([],), {}
    yield ({"question": [question, other], "context": [context, another]},), {}
    yield ({"question": [question], "context": [context]},), {}
    yield ({"question": [], "context": []},), {}
    yield (), {"data": both}
    yield (), {"X": both[0]}
    yield ((entry for entry in both),), {}
    yield (DictionaryData(both),), {}


class DictionaryData(torch.utils.data.Dataset[dict[str, str]]):
    """A data set of torch."""

    def __init__(self, entries: list[dict[str, str]]):
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> dict[str, str]:
        return self.entries[index]


@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("number", range(len(list(forms()))))
def test_all_forms_are_nested_as_in_the_pipeline(
    pipeline: QuestionAnsweringPipeline, answerer: QuestionAnswerer, number: int, top_k: int
) -> None:
    def called(model: Any) -> Any:
        arguments, keywords = list(forms())[number]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            result = model(*arguments, **keywords, top_k=top_k, **LIMITS)
        return ["streamed", *result] if not isinstance(result, list | dict) else result

    def without_scores(result: Any) -> Any:
        if isinstance(result, dict):
            assert list(result) == ["score", "start", "end", "answer"]
            return {key: result[key] for key in KEYS}
        return [without_scores(element) for element in result] if isinstance(result, list) else result

    assert without_scores(called(answerer)) == without_scores(called(pipeline))


def test_deprecated_and_absent_values(pipeline: QuestionAnsweringPipeline, answerer: QuestionAnswerer) -> None:
    question, context = SHORT[0]
    for model in (pipeline, answerer):
        with pytest.warns(UserWarning, match="topk parameter is deprecated, use top_k instead"):
            assert len(model(question=question, context=context, topk=3)) == 3
        with pytest.warns(FutureWarning, match="deprecated"):
            assert model(data={"question": question, "context": context})["answer"]
        assert len(model(question=question, context=context, top_k=2, topk=3)) == 2
    names = ("top_k", "doc_stride", "max_seq_len", "max_answer_len", "max_question_len", "batch_size")
    switches = ("handle_impossible_answer", "align_to_words")
    plain = answerer(question, context)
    assert answerer(question, context, **dict.fromkeys((*names, *switches)), padding=True, num_workers=0) == plain


def test_every_argument_has_its_effect(answerer: QuestionAnswerer, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the number of windows, on lengths, on the question that is read, on batches."""
    shapes: list[tuple[int, ...]] = []
    inputs: list[list[int]] = []
    forward = answerer.model.forward

    def recording(**batch: torch.Tensor) -> Any:
        shapes.append(tuple(batch["input_ids"].shape))
        inputs.extend(batch["input_ids"].tolist())
        return forward(**batch)

    monkeypatch.setattr(answerer.model, "forward", recording)

    def windows(**arguments: Any) -> list[tuple[int, ...]]:
        shapes.clear()
        inputs.clear()
        answerer(question, context, **arguments)
        return list(shapes)

    question, context = LONG[0]
    tokens = len(answerer.tokenizer(context, add_special_tokens=False)["input_ids"])
    asked = answerer.tokenizer(question, add_special_tokens=False)["input_ids"]

    def expected(length: int, stride: int, taken: int) -> int:
        return 1 + -(-(tokens - (length - taken)) // (length - taken - stride))

    taken = len(asked) + 3
    assert windows() == [(expected(64, 16, taken), 64)]
    assert windows(max_seq_len=40) == [(expected(40, 16, taken), 40)]
    assert windows(max_seq_len=30) == [(expected(30, 15, taken), 30)]  # the run's stride is more than half of it
    assert windows(doc_stride=40) == [(expected(64, 40, taken), 64)]
    assert windows(max_question_len=2) == [(expected(64, 16, 5), 64)]
    assert all(window[1:4] == [*asked[:2], answerer.tokenizer.sep_token_id] for window in inputs)
    assert windows(max_question_len=len(asked)) == windows()
    assert windows(batch_size=2)[0] == (2, 64)
    assert len(windows(batch_size=1)) == expected(64, 16, taken)
    assert answerer(question, context, batch_size=1)["score"] == pytest.approx(
        answerer(question, context)["score"], abs=1e-5
    )
    encoding = answerer.tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)
    answers = answerer(question, context, 20, max_answer_len=1, align_to_words=False)
    assert len(answers) > 1
    assert {(answer["start"], answer["end"]) for answer in answers} <= {*encoding["offset_mapping"]}
    assert len(answerer(question, context, 20, max_answer_len=9)) == 20


def test_no_answer_comes_first_where_asking_chooses_it(answerer: QuestionAnswerer) -> None:
    """And else below the best span. Its probability is that of `ask`, over which the other scores are, too."""
    question, context = SHORT[0]
    odds = answerer.answer_with(
        [make_questions(6, 21, sentences=2)[0]], replace(answerer.options, version_2=True), answerer.batch_size
    ).null_odds["q0"]
    for threshold, position in ((odds - 1e-3, 0), (odds + 1e-3, 1)):
        answerer.options = replace(answerer.options, null_score_diff_threshold=threshold)
        answers = answerer(question, context, top_k=400, handle_impossible_answer=True)
        assert spans(answers)[position:][0] == NOTHING or position == 1
        assert (spans(answers)[0] == NOTHING) == (position == 0)
        assert sum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-5)
        first = answerer(question, context, handle_impossible_answer=True)
        assert (first["answer"] == "") == (position == 0)
        rest = [answer["score"] for answer in answers if answer["answer"]]
        assert rest == sorted(rest, reverse=True)
    without = answerer(question, context, top_k=400)
    assert sum(answer["score"] for answer in without) == pytest.approx(1, abs=1e-5)
    answerer.options = replace(answerer.options, version_2=True)  # a run that was trained on v2
    honest = answerer(question, context, top_k=400)
    null = next(answer["score"] for answer in answers if answer["answer"] == "")
    assert sum(answer["score"] for answer in honest) == pytest.approx(1 - null, abs=1e-5)
    assert spans(honest) == spans(without)


def test_a_context_without_words_has_an_empty_answer(
    pipeline: QuestionAnsweringPipeline, answerer: QuestionAnswerer
) -> None:
    for context in (" ", "\u200b"):
        empty = answerer("Onde?", context)
        assert empty == {"score": 0.0, **NOTHING}
        assert spans(pipeline(question="Onde?", context=context)) == [NOTHING]
        assert spans(answerer("Onde?", context, handle_impossible_answer=True, top_k=3)) == [NOTHING]


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ({"top_k": 0}, ["top_k is 0; it must be a whole number of at least 1"]),
        ({"topk": -1}, ["top_k is -1; it must be a whole number of at least 1"]),
        (
            {"max_answer_len": 0, "doc_stride": -1, "batch_size": True, "max_question_len": 1.5, "align_to_words": ""},
            [
                "doc_stride is -1; it must be a whole number of at least 0",
                "max_answer_len is 0; it must be a whole number of at least 1",
                "max_question_len is 1.5; it must be a whole number of at least 1",
                "batch_size is True; it must be a whole number of at least 1",
                "align_to_words is ''; it must be True or False",
            ],
        ),
        ({"max_seq_len": 129}, ["max_seq_len 129: the model reads at most 128 tokens"]),
        (
            {"max_seq_len": 32, "doc_stride": 30},
            ["doc_stride 30 leaves no space in max_seq_len 32; give a stride of at most 27"],
        ),
        ({"max_seq_len": 3}, ["doc_stride 1 leaves no space in max_seq_len 3; give a length of at least 5"]),
        ({"top_n": 3}, ["top_n: no such argument"]),
        ({"question": ""}, ["question is empty"]),
        ({"context": None}, ["question is text and context is not given; give question and context, a dictionary of"
                             " both, or a list of such dictionaries"]),
        ({"question": 3, "context": None}, ["question is a number and context is not given; give question and context,"
                                            " a dictionary of both, or a list of such dictionaries"]),
        ({"question": ["a", None], "context": ["\ud800", ""]}, [
            "question 1 of 2: context has a lone surrogate, which is not valid text",
            "question 2 of 2: question is null; it must be text",
            "question 2 of 2: context is empty",
        ]),
        ({"question": ["a", "b"], "context": ["c"]}, ["2 questions and 1 contexts; give as many, or one context"]),
        ({"question": "a", "context": ["c"]}, ["context is a list and question is text; give a list of questions too"]),
        ({"question": [{"question": "a"}], "context": None}, [
            "item 1: no 'context'; give question and context, a dictionary of both, or a list of such dictionaries"
        ]),
        ({"question": ["a"], "context": None}, [
            "item 1 is text; give question and context, a dictionary of both, or a list of such dictionaries"
        ]),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:topk")
def test_wrong_arguments_are_refused(
    answerer: QuestionAnswerer, arguments: dict[str, Any], problems: list[str]
) -> None:
    """Before the model is asked, all at once, and as a ValueError, as in the pipeline."""
    call = {"question": "Onde?", "context": "Ana."} | arguments
    assert problems_of(answerer, **call) == problems
    with pytest.raises(ValueError, match=re.escape(problems[0])):
        answerer(**call)


def test_stream_reads_no_further_than_its_block(answerer: QuestionAnswerer) -> None:
    read: list[int] = []

    def entries() -> Iterator[dict[str, str]]:
        for number, (question, context) in enumerate(SHORT):
            read.append(number)
            yield {"question": question, "context": context}
        yield {"question": "", "context": "x"}

    results = answerer(entries(), batch_size=2)
    assert read == []
    next(results)
    assert read == [0, 1]
    assert problems_of(list, results) == ["question is empty"]
    one_by_one = answerer(entries())
    next(one_by_one)
    assert read[-1] == 0


def test_draws_of_questions_and_arguments(pipeline: QuestionAnsweringPipeline, answerer: QuestionAnswerer) -> None:
    """Random words and marks; lists in one call give what single calls give."""
    draw = random.Random(5)
    words = " ".join(context for _, context in SHORT).split()
    marks = ["", "", ".", ",", " -", "?!", " (São", "”"]
    pairs = [
        (draw.choice(SHORT)[0], " ".join(draw.choice(words) + draw.choice(marks) for _ in range(draw.randrange(1, 12))))
        for _ in range(25)
    ]
    together = answerer(question=[pair[0] for pair in pairs], context=[pair[1] for pair in pairs])
    for (question, context), ours in zip(pairs, together, strict=True):
        theirs = pipeline(question=question, context=context, **LIMITS)
        assert spans(ours) == spans(theirs)

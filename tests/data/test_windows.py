"""Windows (adapter_qa/data/windows.py): against the tokenizer's own output, and the labels against the text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.questions import make_questions, window_offsets
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from adapter_qa.core.errors import UserError
from adapter_qa.data.labels import IGNORED
from adapter_qa.data.squad import Question, read_squad
from adapter_qa.data.window_dataset import WindowCollator
from adapter_qa.data.windows import Windows, make_windows

TEXT = st.text(st.sampled_from("aáàa\u0301 ç\u00a0bcd.,-\u200bé🙂א\tZ1"), min_size=1, max_size=120).filter(str.strip)
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=["bert", "roberta"])
def tokenizer(request: pytest.FixtureRequest, tiny_bert: Path, tiny_roberta: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(tiny_bert if request.param == "bert" else tiny_roberta)


def decoded(windows: Windows, index: int, question: Question) -> str:
    """Text of the labelled span of a window."""
    offsets = window_offsets(windows, index)
    return question.context[offsets[windows.start[index], 0] : offsets[windows.end[index], 1]]


# ---------------------------------------------------------------- windows


def test_every_labelled_window_decodes_to_its_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    questions = make_questions(40, sentences=6)
    windows = make_windows(questions, tokenizer, max_seq_length=48, doc_stride=12)
    assert len(windows) > len(questions)
    labelled = np.flatnonzero(windows.start != windows.cls)
    assert set(windows.question[labelled]) == set(range(len(questions)))
    for index in labelled:
        question = questions[windows.question[index]]
        assert decoded(windows, index, question).strip() == question.answer_texts[0]


def test_real_text_every_labelled_window_holds_its_answer(shared_data: Path, tiny_bert: Path) -> None:
    questions = [one for one in read_squad(shared_data / "faquad_train.json", need_answers=True) if one.answer_texts][
        :150
    ]
    windows = make_windows(questions, AutoTokenizer.from_pretrained(tiny_bert), max_seq_length=384, doc_stride=128)
    labelled = np.flatnonzero((windows.start != windows.cls) & (windows.start != IGNORED))
    assert len(labelled) >= len(questions) * 0.9
    for index in labelled:
        question = questions[windows.question[index]]
        assert question.answer_texts[0].strip() in decoded(windows, index, question)


def assert_as_the_tokenizer_has_it(
    questions: list[Question], tokenizer: PreTrainedTokenizerFast, max_seq_length: int, doc_stride: int
) -> int:
    """Compares every window with the tokenizer's own overflow, and its labels with a plain scan; returns how many."""
    windows = make_windows(questions, tokenizer, max_seq_length=max_seq_length, doc_stride=doc_stride)
    right = tokenizer.padding_side == "right"
    pairs = [[one.question.lstrip() for one in questions], [one.context for one in questions]]
    expected = tokenizer(
        *(pairs if right else reversed(pairs)),
        truncation="only_second" if right else "only_first",
        max_length=max_seq_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    assert len(windows) == len(expected["input_ids"])
    assert windows.question.tolist() == expected["overflow_to_sample_mapping"]
    assert windows.lengths().tolist() == [len(ids) for ids in expected["input_ids"]]
    for index in range(len(windows)):
        window = windows[index]
        assert window["input_ids"].tolist() == expected["input_ids"][index]
        assert not windows.has_types or window["type_ids"].tolist() == expected["token_type_ids"][index]
        inside = np.array([part == (1 if right else 0) for part in expected.sequence_ids(index)])
        assert window["in_context"].tolist() == inside.tolist()
        offsets = np.array(expected["offset_mapping"][index])
        assert window_offsets(windows, index)[inside].tolist() == offsets[inside].tolist()
        assert (window["start"], window["end"]) == scanned(questions[windows.question[index]], offsets, inside)
    return len(windows)


def scanned(question: Question, offsets: np.ndarray, inside: np.ndarray) -> tuple[int, int]:
    """Labels of a window by looking at every token."""
    if not question.answer_texts:
        return 0, 0
    first = question.answer_starts[0]
    past = first + len(question.answer_texts[0])
    if first < 0 or not question.answer_texts[0].strip() or question.context[first:past] != question.answer_texts[0]:
        return IGNORED, IGNORED
    places = np.flatnonzero(inside)
    if not len(places) or offsets[places[0]][0] > first or offsets[places[-1]][1] < past:
        return 0, 0
    start = max(place for place in places if offsets[place][0] <= first)
    return int(start), int(min(place for place in places if offsets[place][1] >= past))


@pytest.mark.parametrize("side", ["right", "left"])
def test_windows_are_the_tokenizers_own_overflow(tokenizer: PreTrainedTokenizerFast, side: str) -> None:
    tokenizer.padding_side = side
    try:
        questions = make_questions(15, sentences=7)
        assert assert_as_the_tokenizer_has_it(questions * 2, tokenizer, 40, 10) > 30
    finally:
        tokenizer.padding_side = "right"


@pytest.mark.parametrize(("length", "stride"), [(384, 128), (128, 32)])
def test_windows_of_real_text(shared_data: Path, tokenizer: PreTrainedTokenizerFast, length: int, stride: int) -> None:
    for name in ("squad_v2_pt.json", "faquad_train.json", "xquad_en.json"):
        questions = read_squad(shared_data / name, need_answers=True)[::7]
        questions = [one for one in questions if len(tokenizer(one.question)["input_ids"]) < length - stride - 8]
        assert assert_as_the_tokenizer_has_it(questions, tokenizer, length, stride) >= len(questions)


@FEW
@given(
    texts=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4),
    repeated=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    sizes=st.sampled_from([(40, 0), (40, 7), (64, 30)]),
)
def test_windows_of_any_text_with_contexts_that_repeat(
    tokenizer: PreTrainedTokenizerFast, texts: list[tuple[str, str]], repeated: list[int], sizes: tuple[int, int]
) -> None:
    questions = []
    for number, index in enumerate(repeated):
        context, question = texts[index % len(texts)]
        questions.append(Question(str(number), question[:8], context, (context[1:4],), (1,)))
    room = sizes[0] - sizes[1] - 8
    questions = [one for one in questions if len(tokenizer(one.question)["input_ids"]) < room and one.answer_texts[0]]
    if questions:
        assert_as_the_tokenizer_has_it(questions, tokenizer, *sizes)


@FEW
@given(context=TEXT, question=TEXT, data=st.data())
def test_any_text_makes_windows_whose_labels_hold_the_answer(
    tokenizer: PreTrainedTokenizerFast, context: str, question: str, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(context) - 1))
    last = data.draw(st.integers(first + 1, len(context)))
    asked = Question("x", question, context, (context[first:last],), (first,))
    windows = make_windows([asked], tokenizer, max_seq_length=24, doc_stride=6)
    assert windows.lengths().max() <= 24
    in_context = windows.contexts.offsets
    assert (in_context[:, 0] <= in_context[:, 1]).all() and (in_context[:, 1] <= len(context)).all()
    for index in range(len(windows)):
        if windows.start[index] in (windows.cls, IGNORED):
            continue
        offsets = window_offsets(windows, index)
        assert offsets[windows.start[index], 0] <= first
        assert offsets[windows.end[index], 1] >= last


def test_too_long_question_is_cut_and_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    short, long = make_questions(2, sentences=6)
    long = Question(long.id, "Onde nasceu " * 40 + "?", long.context, long.answer_texts, long.answer_starts)
    windows = make_windows([short, long], tokenizer, max_seq_length=48, doc_stride=12)
    assert windows.cut_questions == 1
    assert windows.lengths().max() <= 48
    assert set(windows.question) == {0, 1}
    mine = windows.question == 1
    covered = {
        char
        for index in np.flatnonzero(mine)
        for low, high in window_offsets(windows, index)
        for char in range(max(low, 0), high)
    }
    assert all(char in covered for char, letter in enumerate(long.context) if letter.strip())


def test_long_question_that_fits_with_its_context_stays_whole(tiny_bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    asked = Question("x", "Ana " * 60, "Ana nasceu.", (), ())
    windows = make_windows([asked], tokenizer, max_seq_length=100, doc_stride=60)
    assert windows.cut_questions == 0
    assert windows[0]["input_ids"].tolist() == tokenizer("Ana " * 60, "Ana nasceu.")["input_ids"]


def test_stride_without_room_is_refused(tiny_bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    with pytest.raises(UserError, match="--doc_stride 44 leaves no room in --max_seq_length 48.*at most 43"):
        make_windows(make_questions(1), tokenizer, max_seq_length=48, doc_stride=44)


def test_labels_without_an_answer_and_with_a_wrong_offset(tiny_bert: Path) -> None:
    one = make_questions(1)[0]
    none = Question("none", one.question, one.context, (), ())
    wrong = Question("wrong", one.question, one.context, ("Recife",), (0,))
    windows = make_windows([none, wrong], AutoTokenizer.from_pretrained(tiny_bert), max_seq_length=100, doc_stride=20)
    assert (windows.start[0], windows.end[0]) == (windows.cls, windows.cls) == (0, 0)
    assert (windows.start[1], windows.end[1]) == (IGNORED, IGNORED)


@pytest.mark.parametrize("left", [False, True])
def test_collator_pads_and_shifts_labels(tiny_bert: Path, left: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    windows = make_windows(make_questions(5), tokenizer, max_seq_length=100, doc_stride=20)
    batch = WindowCollator(tokenizer.pad_token_id, left, multiple=8)([windows[index] for index in range(5)])
    length = batch["input_ids"].shape[1]
    assert length % 8 == 0 and 0 <= length - windows.lengths().max() < 8
    for row in range(5):
        size = int(windows.lengths()[row])
        begin = length - size if left else 0
        tokens = windows[row]["input_ids"]
        assert batch["input_ids"][row, begin : begin + size].tolist() == tokens.tolist()
        assert batch["attention_mask"][row].sum() == size
        start, end = int(batch["start_positions"][row]), int(batch["end_positions"][row])
        assert (
            batch["input_ids"][row, start : end + 1].tolist()
            == tokens[windows.start[row] : windows.end[row] + 1].tolist()
        )
        assert batch["context_mask"][row, start : end + 1].all()
        assert batch["input_ids"][row, batch["cls_positions"][row]] == tokenizer.cls_token_id

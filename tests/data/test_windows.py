"""Windows, against the tokenizer's own overflow, and their labels, against the text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference.tokenizer_overflow import assert_windows_equal_overflow
from support.questions import make_questions, window_offsets
from support.scripts import ROOT
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from adapter_qa.core.errors import UserError
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.questions import Question
from adapter_qa.data.readers.squad import read_squad
from adapter_qa.data.window_dataset import (
    MIN_TEXTS_FOR_BAR,
    WindowCollator,
    WindowDataset,
    pair_tokenizer,
    progress_bar,
    question_mask,
)
from adapter_qa.data.windows import Windows, make_windows

TEXT = st.text(st.sampled_from("aáàa\u0301 ç\u00a0bcd.,-\u200bé🙂א\tZ1"), min_size=1, max_size=120).filter(str.strip)
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WITHOUT_TORCH = """\
import sys
for name in ("torch", "transformers", "adapters", "datasets", "tqdm", "msgspec", "orjson"):
    sys.modules[name] = None
import numpy as np
from tokenizers import Tokenizer
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.spans import choose_answers, window_spans
from adapter_qa.data.questions import Question
from adapter_qa.data.pair_tokenizer import PairTokenizer
from adapter_qa.data.windows import make_windows, pad_windows
tokenizer = PairTokenizer(Tokenizer.from_file(sys.argv[1]), "bert", 2, 0, pad_left=False, has_token_types=True)
questions = [Question("1", "Onde nasceu Ana?", "Ana nasceu em Recife. " * 20, ("Recife",), (14,))]
windows = make_windows(questions, tokenizer, max_seq_length=32, doc_stride=8)
batch = pad_windows([windows[index] for index in range(len(windows))], 0, pad_left=False)
logits = np.random.default_rng(0).normal(size=(2, *batch["input_ids"].shape)).astype(np.float32)
options = AnsweringOptions(32, 8, n_best_size=3, max_answer_length=5)
spans = window_spans(batch, *logits, options)
assert choose_answers(questions, windows, spans, options).texts()["1"] in questions[0].context
"""


@pytest.fixture(scope="module", params=["bert", "roberta"])
def tokenizer(request: pytest.FixtureRequest, tiny_bert: Path, tiny_roberta: Path) -> PreTrainedTokenizerFast:
    base = tiny_bert if request.param == "bert" else tiny_roberta
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(base)
    return tokenizer


def labelled_text(windows: Windows, index: int, question: Question) -> str:
    """Return the text of the labelled span of a window."""
    offsets = window_offsets(windows, index)
    return question.context[offsets[windows.start_position[index], 0] : offsets[windows.end_position[index], 1]]


def labelled_rows(windows: Windows) -> np.ndarray:
    """Return the indices of the windows that contain their answer."""
    starts = windows.start_position
    return np.flatnonzero((starts != windows.layout.cls_position) & (starts != IGNORE_INDEX))


def test_windows_and_spans_need_numpy_and_tokenizers_only(tiny_bert: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tiny_bert / "tokenizer.json")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=100)


def test_labelled_windows_decode_to_their_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    questions = make_questions(40, sentences=6)
    windows = make_windows(questions, pair_tokenizer(tokenizer), max_seq_length=48, doc_stride=12)
    assert len(windows) > len(questions)
    labelled = labelled_rows(windows)
    assert set(windows.question_index[labelled]) == set(range(len(questions)))
    for index in labelled:
        question = questions[windows.question_index[index]]
        assert labelled_text(windows, index, question).strip() == question.answer_texts[0]


def test_labelled_windows_of_real_text_contain_their_answer(shared_data: Path, tiny_bert: Path) -> None:
    questions = read_squad(shared_data / "faquad_train.json", need_answers=True)
    questions = [question for question in questions if question.answer_texts][:150]
    tokenizer = pair_tokenizer(AutoTokenizer.from_pretrained(tiny_bert))
    windows = make_windows(questions, tokenizer, max_seq_length=384, doc_stride=128)
    labelled = labelled_rows(windows)
    assert len(labelled) >= len(questions) * 0.9
    for index in labelled:
        question = questions[windows.question_index[index]]
        assert question.answer_texts[0].strip() in labelled_text(windows, index, question)


@pytest.mark.parametrize("side", ["right", "left"])
def test_windows_equal_the_tokenizers_own_overflow(tokenizer: PreTrainedTokenizerFast, side: str) -> None:
    tokenizer.padding_side = side
    try:
        assert assert_windows_equal_overflow(make_questions(15, sentences=7) * 2, tokenizer, 40, 10) > 30
    finally:
        tokenizer.padding_side = "right"


@pytest.mark.parametrize(("length", "stride"), [(384, 128), (128, 32)])
def test_windows_of_real_text_equal_the_tokenizers_own_overflow(
    shared_data: Path, tokenizer: PreTrainedTokenizerFast, length: int, stride: int
) -> None:
    for name in ("squad_v2_pt.json", "faquad_train.json", "xquad_en.json"):
        questions = read_squad(shared_data / name, need_answers=True)[::29]
        capacity = length - stride - 8
        questions = [question for question in questions if len(tokenizer(question.question)["input_ids"]) < capacity]
        assert assert_windows_equal_overflow(questions, tokenizer, length, stride) >= len(questions)


@FEW
@given(
    texts=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4),
    repeated=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    sizes=st.sampled_from([(40, 0), (40, 7), (64, 30)]),
)
def test_windows_of_any_text_with_repeated_contexts_equal_the_tokenizers_own_overflow(
    tokenizer: PreTrainedTokenizerFast, texts: list[tuple[str, str]], repeated: list[int], sizes: tuple[int, int]
) -> None:
    questions = []
    for number, index in enumerate(repeated):
        context, question = texts[index % len(texts)]
        questions.append(Question(str(number), question[:8], context, (context[1:4],), (1,)))
    capacity = sizes[0] - sizes[1] - 8
    questions = [
        question
        for question in questions
        if len(tokenizer(question.question)["input_ids"]) < capacity and question.answer_texts[0]
    ]
    if questions:
        assert_windows_equal_overflow(questions, tokenizer, *sizes)


@FEW
@given(context=TEXT, question=TEXT, data=st.data())
def test_labels_of_any_text_contain_the_answer(
    tokenizer: PreTrainedTokenizerFast, context: str, question: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start + 1, len(context)))
    questions = [Question("x", question, context, (context[start:end],), (start,))]
    windows = make_windows(questions, pair_tokenizer(tokenizer), max_seq_length=24, doc_stride=6)
    assert windows.lengths().max() <= 24
    char_spans = windows.texts.char_spans[: windows.texts.text_offsets[1]]  # of the context, the first text
    assert (char_spans[:, 0] <= char_spans[:, 1]).all()
    assert (char_spans[:, 1] <= len(context)).all()
    covered = {character for first, last in char_spans.tolist() for character in range(first, last)}
    for index in labelled_rows(windows):
        offsets = window_offsets(windows, index)
        labelled = range(offsets[windows.start_position[index], 0], offsets[windows.end_position[index], 1])
        assert covered & set(range(start, end)) <= set(labelled)


def test_question_that_is_too_long_is_cut_and_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    short, long = make_questions(2, sentences=6)
    long = Question(long.id, "Onde nasceu " * 40 + "?", long.context, long.answer_texts, long.answer_starts)
    windows = make_windows([short, long], pair_tokenizer(tokenizer), max_seq_length=48, doc_stride=12)
    assert windows.cut_questions == 1
    assert windows.lengths().max() <= 48
    assert set(windows.question_index) == {0, 1}
    covered = {
        character
        for index in np.flatnonzero(windows.question_index == 1)
        for start, end in window_offsets(windows, int(index))
        for character in range(max(start, 0), end)
    }
    assert all(character in covered for character, letter in enumerate(long.context) if letter.strip())


@pytest.mark.parametrize(("doc_stride", "kept"), [(12, 20), (22, 11), (30, 7), (43, 1)])
def test_a_cut_question_keeps_half_of_what_a_large_stride_leaves(tiny_bert: Path, doc_stride: int, kept: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    question = Question("x", "?" * 50, "Ana nasceu em Recife. " * 40, (), ())
    windows = make_windows([question], pair_tokenizer(tokenizer), max_seq_length=48, doc_stride=doc_stride)
    assert windows.cut_questions == 1
    assert windows[0].input_ids.tolist().count(tokenizer.convert_tokens_to_ids("?")) == kept


def test_long_question_that_fits_with_its_context_is_not_cut(tiny_bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    questions = [Question("x", "Ana " * 60, "Ana nasceu.", (), ())]
    windows = make_windows(questions, pair_tokenizer(tokenizer), max_seq_length=100, doc_stride=60)
    assert windows.cut_questions == 0
    assert windows[0].input_ids.tolist() == tokenizer("Ana " * 60, "Ana nasceu.")["input_ids"]


def test_texts_without_tokens_make_windows(tiny_bert: Path) -> None:
    tokenizer = pair_tokenizer(AutoTokenizer.from_pretrained(tiny_bert))
    empty = Question("x", "\u200b", "\u200b", ("\u200b",), (0,))
    windows = make_windows([empty], tokenizer, max_seq_length=24, doc_stride=6)
    assert windows.lengths().tolist() == [3]
    assert (windows.start_position[0], windows.end_position[0]) == (IGNORE_INDEX, IGNORE_INDEX)
    assert (windows.answers_without_tokens, windows.answers_in_no_window, windows.answer_tokens[0]) == (1, 0, 0)


def test_stride_without_room_is_refused(tiny_bert: Path) -> None:
    tokenizer = pair_tokenizer(AutoTokenizer.from_pretrained(tiny_bert))
    with pytest.raises(UserError, match=r"--doc_stride 44 leaves no space in --max_seq_length 48.*at most 43"):
        make_windows(make_questions(1), tokenizer, max_seq_length=48, doc_stride=44)


def test_the_number_of_answers_in_memory_changes_no_label(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = pair_tokenizer(AutoTokenizer.from_pretrained(tiny_bert))
    questions = make_questions(10, sentences=6)
    found = []
    for size in (8192, 3):
        monkeypatch.setattr("adapter_qa.data.windows.ANSWERS_PER_SEARCH", size)
        found.append(make_windows(questions, tokenizer, max_seq_length=48, doc_stride=12))
    assert len(labelled_rows(found[0])) >= 10
    for name in ("start_position", "end_position", "answer_tokens"):
        assert getattr(found[0], name).tolist() == getattr(found[1], name).tolist()


@pytest.mark.parametrize("pair", ["$A [SEP] $B [SEP] [CLS]", "[CLS] $B [SEP] $A [SEP]"])
def test_texts_that_are_joined_in_another_way_are_refused(tiny_bert: Path, pair: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    special = [("[CLS]", tokenizer.cls_token_id), ("[SEP]", tokenizer.sep_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=special
    )
    with pytest.raises(UserError, match="joins two texts in a way that is not supported"):
        make_windows(make_questions(1), pair_tokenizer(tokenizer), max_seq_length=48, doc_stride=12)


def test_labels_without_an_answer_and_with_a_wrong_start_index(tiny_bert: Path) -> None:
    question = make_questions(1)[0]
    unanswerable = Question("none", question.question, question.context, (), ())
    misplaced = Question("wrong", question.question, question.context, ("Recife",), (0,))
    tokenizer = pair_tokenizer(AutoTokenizer.from_pretrained(tiny_bert))
    windows = make_windows([unanswerable, misplaced], tokenizer, max_seq_length=100, doc_stride=20)
    assert windows.layout.cls_position == 0
    assert windows.start_position.tolist() == windows.end_position.tolist() == [0, IGNORE_INDEX]


def test_settings_left_in_a_shared_tokenizer_change_nothing(tiny_bert: Path) -> None:
    questions, shared = make_questions(5, sentences=6), AutoTokenizer.from_pretrained(tiny_bert)
    expected = make_windows(questions, pair_tokenizer(shared), max_seq_length=48, doc_stride=12)
    shared(["a"], ["b"], truncation=True, max_length=4, padding="max_length", split_special_tokens=True)
    windows = make_windows(questions, pair_tokenizer(shared), max_seq_length=48, doc_stride=12)
    assert windows.texts.ids.tolist() == expected.texts.ids.tolist()
    assert windows.lengths().tolist() == expected.lengths().tolist()


@pytest.mark.parametrize("split", [False, True])
def test_special_tokens_within_a_text_follow_the_tokenizers_setting(tiny_bert: Path, split: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert, split_special_tokens=split)
    questions = [Question("x", "Onde nasceu [SEP]?", "Ana [MASK] em Recife.", (), ())]
    windows = make_windows(questions, pair_tokenizer(tokenizer), max_seq_length=100, doc_stride=20)
    assert windows[0].input_ids.tolist() == tokenizer(questions[0].question, questions[0].context)["input_ids"]
    assert (tokenizer.mask_token_id in windows[0].input_ids) == (not split)


def test_progress_counts_all_texts(
    tiny_bert: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = pair_tokenizer(AutoTokenizer.from_pretrained(tiny_bert))
    questions = [Question(str(number), "Onde?", f"Ana {number}", (), ()) for number in range(MIN_TEXTS_FOR_BAR)]
    calls: list[tuple[int, int]] = []
    make_windows(
        questions,
        tokenizer,
        max_seq_length=48,
        doc_stride=12,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(250, 1001), (500, 1001), (750, 1001), (1000, 1001), (1001, 1001)]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    update = progress_bar("train windows")
    for done, total in calls:
        update(done, total)
    assert "train windows:   0%" in capsys.readouterr().err
    progress_bar("few texts")(MIN_TEXTS_FOR_BAR, MIN_TEXTS_FOR_BAR)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    for done, total in calls:
        progress_bar("no terminal")(done, total)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("left", [False, True])
def test_collator_pads_and_shifts_labels(tiny_bert: Path, left: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert, padding_side="left" if left else "right")
    questions = make_questions(5)
    windows = make_windows(questions, pair_tokenizer(tokenizer), max_seq_length=100, doc_stride=20)
    dataset = WindowDataset(windows)
    assert dataset.lengths().tolist() == windows.lengths().tolist()
    batch = WindowCollator(tokenizer.pad_token_id, left, multiple=8)([dataset[index] for index in range(len(dataset))])
    length = batch["input_ids"].shape[1]
    assert length % 8 == 0
    assert 0 <= length - windows.lengths().max() < 8
    question_tokens = question_mask(batch, windows.layout)
    for row in range(5):
        size = int(windows.lengths()[row])
        begin = length - size if left else 0
        tokens = windows[row].input_ids
        assert batch["input_ids"][row, begin : begin + size].tolist() == tokens.tolist()
        assert batch["attention_mask"][row].sum() == size
        start, end = int(batch["start_positions"][row]), int(batch["end_positions"][row])
        labelled = tokens[windows.start_position[row] : windows.end_position[row] + 1]
        assert batch["input_ids"][row, start : end + 1].tolist() == labelled.tolist()
        assert batch["context_mask"][row, start : end + 1].all()
        assert batch["input_ids"][row, batch["cls_positions"][row]] == tokenizer.cls_token_id
        question_ids = tokenizer(questions[row].question, add_special_tokens=False)["input_ids"]
        assert batch["input_ids"][row, question_tokens[row]].tolist() == question_ids

"""Named entities (adapter_qa/training/ner.py): reading, word labels to token labels and back, class weights, scores, loss.

Oracles: the tokenizer's own `word_ids`, formulas written out, and a span counter that walks over labels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.device_reads import DeviceReadCounter
from transformers import EvalPrediction, PreTrainedTokenizerFast

from adapter_qa.config.options import AdapterOptions, ModelOptions, TrainingOptions
from adapter_qa.core.errors import UserError
from adapter_qa.data.conll import Sentence, label_names, read_sentences
from adapter_qa.data.labels import IGNORED
from adapter_qa.data.token_classification import (
    TokenClassificationCollator,
    TokenClassificationDataset,
    class_weights,
    sentence_labels,
    tokenize_and_align_labels,
)
from adapter_qa.models.adapter_setup import resolve_setup
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model, load_tokenizer
from adapter_qa.models.build import build_setup
from adapter_qa.training.ner import NERTrainer, entity_scores
from adapter_qa.training.training_args import resolve_training_args

NAMES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
ANA = Sentence(("Ana", "Lima", "nasceu", "em", "Recife"), ("B-PER", "I-PER", "O", "O", "B-LOC"))
DAVI = Sentence(("Davi", "é", "de", "São", "Luís", "."), ("B-PER", "O", "O", "B-LOC", "I-LOC", "O"))
BOTH = [ANA, DAVI]
CONLL = "".join("".join(f"{w} {t}\n" for w, t in zip(one.words, one.labels, strict=True)) + "\n" for one in BOTH)


@pytest.fixture(scope="module")
def bert(tiny_bert: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(ModelOptions(str(tiny_bert)), split_words=True)


@pytest.fixture(scope="module")
def roberta(tiny_roberta: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(ModelOptions(str(tiny_roberta)), split_words=True)


@pytest.fixture(params=["bert", "roberta"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return request.getfixturevalue(request.param)


def record(sentence: Sentence) -> dict[str, Any]:
    return {"tokens": list(sentence.words), "ner_tags": list(sentence.labels)}


def refusal(path: Path, content: str | bytes, *, need_labels: bool = True) -> list[str]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    with pytest.raises(UserError) as caught:
        read_sentences(path, need_labels=need_labels)
    assert not any("\n" in problem for problem in caught.value.problems)
    return caught.value.problems


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", CONLL),
        ("a.txt", CONLL.strip()),
        ("a.conll", "\ufeff\n\n" + CONLL.replace("\n", "\r\n").replace("\r\n\r\n", "\r\n \t \r\n\r\n")),
        ("a.conll", "-DOCSTART- -X- O\n" + CONLL.replace(" ", "\tNOUN _ ").replace("\n\n", "\n\n-DOCSTART- O\n\n")),
        ("a.json", json.dumps([record(one) for one in BOTH])),
        ("a.json", json.dumps({"data": [record(one) for one in BOTH]}, ensure_ascii=False)),
        ("a.jsonl", "\n\n".join(json.dumps(record(one), ensure_ascii=False) for one in BOTH)),
    ],
)
def test_every_form_gives_the_same_sentences(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode("utf-8"))
    assert read_sentences(tmp_path / name, need_labels=True) == BOTH
    assert read_sentences(str(tmp_path / name), need_labels=False) == BOTH


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", "\n".join(ANA.words) + "\n\n" + "\n".join(DAVI.words)),
        ("a.jsonl", "\n".join(json.dumps({"tokens": one.words}) for one in BOTH)),
    ],
)
def test_labels_may_be_missing_where_they_are_not_needed(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    bare = [Sentence(one.words, ()) for one in BOTH]
    assert read_sentences(tmp_path / name, need_labels=False) == bare
    places = ["line 1", "line 7"] if name == "a.conll" else ["line 1", "line 2"]
    assert refusal(tmp_path / name, content) == [f"{tmp_path / name}, {place}: has no labels" for place in places]


@pytest.mark.parametrize("strange", ["\u2028", "\x85"])
def test_only_line_ends_end_records(tmp_path: Path, strange: str) -> None:
    sentence = Sentence((f"a{strange}b", "c"), ("O", "O"))
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record(sentence), ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_sentences(path, need_labels=True) == [sentence]


@pytest.mark.parametrize("strange", ["\u2028", "\x85", "\x0c", "\x1c", "\u00a0"])
def test_only_blanks_and_line_ends_end_words(tmp_path: Path, strange: str) -> None:
    path = tmp_path / "a.conll"
    path.write_text(f"a{strange}b O\nc B-X\n", encoding="utf-8")
    assert read_sentences(path, need_labels=True) == [Sentence((f"a{strange}b", "c"), ("O", "B-X"))]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("Ana B-PER\nLima\n", "line 2: a word without a label: Lima"),
        ("\n\nAna\nLima O\n", "line 3: a word without a label: Ana"),
        ("Ana B-<b>\n", "line 1: Ana has label B-<b>; labels are O, B-TYPE or I-TYPE"),
        (f"Ana B-{'x' * 101}\n", f"line 1: Ana has label B-{'x' * 101}; labels are O, B-TYPE or I-TYPE"),
        ("Ana PER\n", "line 1: Ana has label PER; labels are O, B-TYPE or I-TYPE"),
        ("Ana B-\n", "line 1: Ana has label B-; labels are O, B-TYPE or I-TYPE"),
        ("Ana S-PER\n", "line 1: Ana has label S-PER; labels are O, B-TYPE or I-TYPE"),
        ("Ana O-PER\n", "line 1: Ana has label O-PER; labels are O, B-TYPE or I-TYPE"),
        ("Ana I-PER\n", "line 1: Ana has I-PER after O; in IOB2 an entity begins with B-PER"),
        ("Ana B-PER\nRecife I-LOC\n", "line 2: Recife has I-LOC after B-PER; in IOB2 an entity begins with B-LOC"),
        ("a B-A\nb I-A\nc O\nd I-A\n", "line 4: d has I-A after O; in IOB2 an entity begins with B-A"),
        ("a B-A\n\nb I-A\n", "line 3: b has I-A after O; in IOB2 an entity begins with B-A"),
    ],
)
def test_refused_conll(tmp_path: Path, lines: str, problem: str) -> None:
    path = tmp_path / "a.conll"
    assert refusal(path, lines) == [f"{path}, {problem}"]


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        ([{"tokens": [], "ner_tags": []}], "data[0]: a sentence without words"),
        ([record(ANA), {"tokens": ["a", "b"], "ner_tags": ["O"]}], "data[1]: a word without a label: b"),
        ([{"tokens": ["a"], "ner_tags": ["O", "O"]}], "data[0]: more labels than words"),
        ([{"tokens": ["a"], "ner_tags": ["X"]}], "data[0]: a has label X; labels are O, B-TYPE or I-TYPE"),
        ([{"tokens": ["a b"], "ner_tags": ["O"]}], "data[0]: 'a b' is no word; words have no blanks in them"),
        ([{"tokens": [""], "ner_tags": ["O"]}], "data[0]: '' is no word; words have no blanks in them"),
        ([{"tokens": ["a\nb"], "ner_tags": ["O"]}], "data[0]: 'a\\nb' is no word; words have no blanks in them"),
    ],
)
def test_refused_records(tmp_path: Path, records: list[dict[str, Any]], problem: str) -> None:
    path = tmp_path / "a.json"
    assert refusal(path, json.dumps(records)) == [f"{path}, {problem}"]


FORM = 'a record is {"tokens": [...], "ner_tags": [...]}'
LISTS = f"tokens and ner_tags must be lists of text, labels such as B-LOC, no numbers; {FORM}"
TOP = "the top level must be a list or an object whose 'data' is a list"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", "{", ": not JSON at line 1, column 2: Expecting property name enclosed in double quotes; the file "
         "seems to be cut off"),
        ("a.json", "3", f": {TOP}"),
        ("a.json", '{"sentences": []}', f": {TOP}"),
        ("a.json", '["Ana"]', f", data[0]: no 'tokens'; {FORM}"),
        ("a.json", '[{"words": ["Ana"]}]', f", data[0]: no 'tokens'; {FORM}"),
        ("a.json", '[{"tokens": ["Ana"], "ner_tags": [3]}]', f", data[0]: {LISTS}"),
        ("a.json", '[{"tokens": "Ana", "ner_tags": ["O", "O", "O"]}]', f", data[0]: {LISTS}"),
        ("a.json", '[{"tokens": ["Ana"], "ner_tags": "O"}]', f", data[0]: {LISTS}"),
        ("a.json", '[{"tokens": ["\\ud83d"]}]', f", data[0]: {LISTS}"),
        ("a.jsonl", '{"tokens": ["Ana"]}\n{"tokens": ["An', ", line 2: not JSON at column 13: Unterminated string "
         "starting at"),
        ("a.jsonl", "[" * 100_000, ", line 1: JSON that cannot be read: maximum recursion depth exceeded while "
         "decoding a JSON array from a unicode string"),
    ],
)  # fmt: skip
def test_refused_json(tmp_path: Path, name: str, content: str, problem: str) -> None:
    assert refusal(tmp_path / name, content, need_labels=False) == [f"{tmp_path / name}{problem}"]


@pytest.mark.parametrize(("name", "content"), [("a.conll", "-DOCSTART-\n\n"), ("a.json", "[]")])
def test_files_without_a_sentence(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    assert refusal(path, content) == [
        f"{path}: holds no sentence; write a word and its label a line, blank lines between sentences"
    ]


@pytest.mark.parametrize("name", ["a.conll", "a.jsonl", "a.json"])
def test_empty_files(tmp_path: Path, name: str) -> None:
    assert refusal(tmp_path / name, "\n \n") == [f"{tmp_path / name}: the file is empty"]


def test_unreadable_files(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    assert refusal(path, b"S\xe3o O\n") == [f"{path}: not UTF-8 at byte 1: save the file as UTF-8"]
    with pytest.raises(UserError, match="none.conll: cannot be read: No such file or directory"):
        read_sentences(tmp_path / "none.conll", need_labels=False)


def test_ten_problems_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    expected = [f"{path}, line {line}: a has label X; labels are O, B-TYPE or I-TYPE" for line in range(1, 21, 2)]
    assert refusal(path, "a X\n\n" * 10) == expected
    assert refusal(path, "a X\n\n" * 13) == [*expected, f"{path}: and 3 more"]


def test_label_names() -> None:
    assert label_names(BOTH) == NAMES
    assert label_names([DAVI, Sentence(("a",), ()), Sentence(("b",), ("B-A-B",))]) == [
        "O",
        "B-A-B",
        "I-A-B",
        *NAMES[1:],
    ]
    assert label_names([]) == ["O"]


# ---------------------------------------------------------------- words to tokens


def aligned(sentence: Sentence, tokenizer: PreTrainedTokenizerFast, label_all: bool) -> list[int]:
    """Token labels by the tokenizer's own word numbers."""
    words = tokenizer(list(sentence.words), is_split_into_words=True).word_ids()
    labels = []
    for place, word in enumerate(words):
        if word is None:
            labels.append(IGNORED)
        elif place == 0 or words[place - 1] != word:
            labels.append(NAMES.index(sentence.labels[word]))
        else:
            going_on = sentence.labels[word].replace("B-", "I-")
            labels.append(NAMES.index(going_on) if label_all else IGNORED)
    return labels


@pytest.mark.parametrize("label_all", [False, True])
def test_labels_sit_where_words_begin(tokenizer: PreTrainedTokenizerFast, label_all: bool) -> None:
    pieces = tokenize_and_align_labels(BOTH, tokenizer, NAMES, max_seq_length=64, label_all_tokens=label_all)
    assert (pieces.sentence, pieces.cut_sentences, len(pieces)) == ([0, 1], 0, 2)
    for sentence, item in zip(BOTH, [pieces[0], pieces[1]], strict=True):
        whole = tokenizer(list(sentence.words), is_split_into_words=True, return_token_type_ids=True)
        assert item["input_ids"].tolist() == whole["input_ids"]
        assert item["token_type_ids"].tolist() == whole["token_type_ids"]
        assert item["labels"].tolist() == aligned(sentence, tokenizer, label_all)
        assert {array.dtype for array in item.values()} == {np.dtype(np.int64)}
    assert any(
        len(ids) > len(one.words) + 2 for one, ids in zip(BOTH, pieces.token_ids, strict=True)
    )  # pieces of words


def test_pieces_of_an_entity_go_on_inside_it(bert: PreTrainedTokenizerFast) -> None:
    pieces = tokenize_and_align_labels(
        [Sentence(("Recifense",), ("B-LOC",))], bert, NAMES, max_seq_length=64, label_all_tokens=True
    )
    count = len(bert.tokenize("Recifense"))
    assert count > 1
    assert pieces.labels[0].tolist() == [IGNORED, 1, *[2] * (count - 1), IGNORED]


def test_words_that_the_vocabulary_lacks_are_labelled(bert: PreTrainedTokenizerFast) -> None:
    pieces = tokenize_and_align_labels(
        [Sentence(("Ana", "日本", "[MASK]"), ("O", "B-LOC", "B-PER"))], bert, NAMES, max_seq_length=64
    )
    unknown = pieces.token_ids[0] == bert.unk_token_id
    assert unknown.any() and set(pieces.labels[0][unknown].tolist()) <= {1, IGNORED}
    assert sentence_labels(np.stack(pieces.labels), pieces, NAMES) == [["O", "B-LOC", "B-PER"]]


def test_words_that_the_tokenizer_drops_keep_their_place(bert: PreTrainedTokenizerFast) -> None:
    assert bert.tokenize("\u200b") == []
    sentence = Sentence(("\u200b", "Ana", "\u200b", "\u200b", "Recife"), ("O", "B-PER", "I-PER", "O", "B-LOC"))
    pieces = tokenize_and_align_labels([sentence], bert, NAMES, max_seq_length=64)
    assert sentence_labels(np.stack(pieces.labels), pieces, NAMES) == [list(sentence.labels)]
    assert (pieces.token_ids[0] == bert.unk_token_id).sum() == 3


def test_sentences_without_labels_get_placeholders(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = tokenize_and_align_labels([Sentence(ANA.words, ())], tokenizer, NAMES, max_seq_length=64)
    assert sentence_labels(np.stack(pieces.labels), pieces, NAMES) == [["O"] * len(ANA.words)]


WORDS = st.text(alphabet="aeéãRcifLms日\u200b\u00ad-.,1", min_size=1, max_size=12)
PIECE = st.sampled_from(NAMES)
SENTENCES = st.lists(
    st.lists(st.tuples(WORDS, PIECE), min_size=1, max_size=14).map(
        lambda pairs: Sentence(tuple(word for word, _ in pairs), tuple(label for _, label in pairs))
    ),
    min_size=1,
    max_size=4,
)


def word_tokens(word: str, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Tokens of a word alone."""
    return tokenizer(word, add_special_tokens=False)["input_ids"] or [tokenizer.unk_token_id]


@settings(max_examples=60, deadline=None)
@given(
    sentences=SENTENCES,
    size=st.integers(8, 14),
    label_all=st.booleans(),
    next_sentence=st.booleans(),
    kind=st.sampled_from(["bert", "roberta"]),
)
def test_no_word_is_lost(
    bert: PreTrainedTokenizerFast,
    roberta: PreTrainedTokenizerFast,
    sentences: list[Sentence],
    size: int,
    label_all: bool,
    next_sentence: bool,
    kind: str,
) -> None:
    tokenizer = bert if kind == "bert" else roberta
    pieces = tokenize_and_align_labels(
        sentences, tokenizer, NAMES, max_seq_length=size, label_all_tokens=label_all, next_sentence=next_sentence
    )
    inputs_of = [[at for at, number in enumerate(pieces.sentence) if number == one] for one in range(len(sentences))]
    assert sum(inputs_of, []) == list(range(len(pieces)))
    assert pieces.cut_sentences == sum(len(inputs) > 1 for inputs in inputs_of)
    for sentence, inputs in zip(sentences, inputs_of, strict=True):
        words = [word_tokens(word, tokenizer)[: size - 2] for word in sentence.words]
        tokens: list[int] = []
        for at in inputs:
            ids = pieces.token_ids[at].tolist()
            assert len(ids) == len(pieces.type_ids[at]) == len(pieces.labels[at]) <= size
            assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
            tokens += ids[1 : ids.index(tokenizer.sep_token_id)]  # a follower stands behind the separator
            assert pieces.labels[at][0] == pieces.labels[at][-1] == IGNORED
        assert tokens == [token for word in words for token in word]
    if not next_sentence and not label_all:
        rows = np.full((len(pieces), size), IGNORED)
        for row, labels in zip(rows, pieces.labels, strict=True):
            row[: len(labels)] = labels
        assert sentence_labels(rows, pieces, NAMES) == [list(one.labels) for one in sentences]


def test_long_sentences_are_cut_as_late_as_possible(bert: PreTrainedTokenizerFast) -> None:
    sentence = Sentence(("Ana", "Bruno", "Recife", "Manaus", "pintor") * 4, ("O",) * 20)
    lengths = [len(word_tokens(word, bert)) for word in sentence.words]
    pieces = tokenize_and_align_labels([sentence], bert, NAMES, max_seq_length=12)
    sizes, room = [0], 10
    for length in lengths:
        if sizes[-1] + length > room:
            sizes.append(0)
        sizes[-1] += length
    assert [len(ids) - 2 for ids in pieces.token_ids] == sizes and pieces.cut_sentences == 1


def test_a_word_longer_than_the_input_keeps_its_beginning(bert: PreTrainedTokenizerFast) -> None:
    word = "nasceu" * 7
    pieces = tokenize_and_align_labels(
        [Sentence(("em", word, "Recife"), ("O", "B-PER", "B-LOC"))], bert, NAMES, max_seq_length=8
    )
    longest = word_tokens(word, bert)
    assert len(longest) > 6
    assert [longest[:6] in (ids[1:-1].tolist(),) for ids in pieces.token_ids].count(True) == 1
    rows = [np.pad(labels, (0, 8 - len(labels)), constant_values=IGNORED) for labels in pieces.labels]
    assert sentence_labels(np.stack(rows), pieces, NAMES) == [["O", "B-PER", "B-LOC"]]


def test_the_next_sentence_is_the_second_segment(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = tokenize_and_align_labels(BOTH, tokenizer, NAMES, max_seq_length=128, next_sentence=True)
    pair = tokenizer(list(ANA.words), list(DAVI.words), is_split_into_words=True, return_token_type_ids=True)
    alone = tokenizer(list(DAVI.words), is_split_into_words=True)
    assert [ids.tolist() for ids in pieces.token_ids] == [pair["input_ids"], alone["input_ids"]]
    assert pieces.type_ids[0].tolist() == pair["token_type_ids"] and not pieces.type_ids[1].any()
    labelled = pieces.labels[0][pieces.labels[0] != IGNORED]
    assert [NAMES[label] for label in labelled] == [*ANA.labels, *DAVI.labels]
    first, second = aligned(ANA, tokenizer, False), aligned(DAVI, tokenizer, False)
    specials = tokenizer.num_special_tokens_to_add(pair=True) - 3  # RoBERTa puts two separators between
    assert pieces.labels[0].tolist() == first + [IGNORED] * specials + second[1:]


def test_the_next_sentence_gets_the_room_that_is_left(tokenizer: PreTrainedTokenizerFast) -> None:
    own = sum(len(word_tokens(word, tokenizer)) for word in ANA.words)
    lengths = np.cumsum([len(word_tokens(word, tokenizer)) for word in DAVI.words])
    specials = tokenizer.num_special_tokens_to_add(pair=True)
    for room in range(int(lengths[-1]) + 2):
        pieces = tokenize_and_align_labels(
            BOTH, tokenizer, NAMES, max_seq_length=own + specials + room, next_sentence=True
        )
        fitting = int((lengths <= room).sum())
        labels = [NAMES[label] for label in pieces.labels[0][pieces.labels[0] != IGNORED]]
        assert labels == [*ANA.labels, *DAVI.labels[:fitting]]
        assert len(pieces.token_ids[0]) == own + (specials + lengths[fitting - 1] if fitting else 2)
    tight = tokenize_and_align_labels(BOTH, tokenizer, NAMES, max_seq_length=own + 2, next_sentence=True)
    assert len(tight.token_ids[0]) == own + 2 and tight.sentence[0:2] == [0, 1]


def test_only_the_last_part_of_a_cut_sentence_has_a_follower(bert: PreTrainedTokenizerFast) -> None:
    long = "nasceu" * 4
    short, room = (len(word_tokens(word, bert)) for word in ("Ana", long))
    assert room > 2 * short
    # The first part has room for "Ana", with which the next sentence begins, but not for the long word.
    sentences = [Sentence(("Ana", long, "Ana"), ("O",) * 3), ANA]
    pieces = tokenize_and_align_labels(sentences, bert, NAMES, max_seq_length=2 + room, next_sentence=True)
    assert pieces.sentence[:3] == [0, 0, 0]
    assert [len(ids) - 2 for ids in pieces.token_ids[:2]] == [short, room]
    assert [bool(types.any()) for types in pieces.type_ids[:3]] == [False, False, True]


@pytest.mark.parametrize("has_types", [True, False])
@pytest.mark.parametrize(("multiple", "length"), [(1, 5), (8, 8)])
def test_batches_are_padded_on_the_right(has_types: bool, multiple: int, length: int) -> None:
    items = [
        {
            name: np.arange(1, size + 1) + shift
            for name, shift in {"input_ids": 10, "token_type_ids": 0, "labels": 2}.items()
        }
        for size in (3, 5)
    ]
    batch = TokenClassificationCollator(pad_id=9, has_types=has_types, multiple=multiple)(items)
    names = {"input_ids": 9, "attention_mask": 0, "labels": IGNORED} | ({"token_type_ids": 0} if has_types else {})
    assert batch.keys() == names.keys()
    for name, fill in names.items():
        assert batch[name].dtype == torch.int64 and batch[name].shape == (2, length)
        for row, item in zip(batch[name].tolist(), items, strict=True):
            size = len(item["input_ids"])
            expected = [1] * size if name == "attention_mask" else item[name].tolist()
            assert row == expected + [fill] * (length - size)


# ---------------------------------------------------------------- learning and scoring


def labelled(*labels: list[int]) -> TokenClassificationDataset:
    arrays = [np.array(one) for one in labels]
    return TokenClassificationDataset(arrays, arrays, arrays, list(range(len(arrays))), 0)


@pytest.mark.parametrize("constant", [0.0, 0.5, 3.0])
def test_class_weights(constant: float) -> None:
    pieces = labelled([IGNORED, 0, 0, 0, 1, IGNORED], [IGNORED, 0, 2, 2, IGNORED])
    weights = class_weights(pieces, 4, constant)
    counts = [4, 1, 2, 1]  # the last class never occurs and counts as once
    total = sum(1 / count for count in counts)
    raw = [constant + 1 / count / total for count in counts]
    assert weights.dtype == np.float32 and weights.shape == (4,)
    np.testing.assert_allclose(weights, [4 * one / sum(raw) for one in raw], rtol=1e-6)


def test_a_large_constant_makes_weights_alike() -> None:
    pieces = labelled([0] * 1000 + [1])
    assert np.ptp(class_weights(pieces, 2, 0.0)) > 1.9
    np.testing.assert_allclose(class_weights(pieces, 2, 1e4), [1, 1], atol=1e-3)


def spans(labels: list[str]) -> set[tuple[int, int, str]]:
    """First and past-last word and type of each entity. I- without its B- begins one, as conlleval has it."""
    found = set()
    start, current = None, ""
    for place, label in enumerate([*labels, "O"]):
        prefix, _, entity = label.partition("-")
        if start is not None and (prefix != "I" or entity != current):
            found.add((start, place, current))
            start = None
        if start is None and prefix != "O":
            start, current = place, entity
    return found


def counted_scores(gold: list[list[str]], predicted: list[list[str]]) -> dict[str, float]:
    """Precision, recall and F1 in percent from sets of spans."""
    right = {(number, *span) for number, one in enumerate(gold) for span in spans(one)}
    given_spans = {(number, *span) for number, one in enumerate(predicted) for span in spans(one)}
    scores: dict[str, float] = {}
    for entity in ["", *sorted({span[3] for span in right | given_spans})]:
        wanted = {span for span in right if entity in ("", span[3])}
        made = {span for span in given_spans if entity in ("", span[3])}
        hits = len(wanted & made)
        precision = hits / len(made) if made else 0.0
        recall = hits / len(wanted) if wanted else 0.0
        prefix = f"{entity}_" if entity else ""
        scores[f"{prefix}precision"] = 100 * precision
        scores[f"{prefix}recall"] = 100 * recall
        scores[f"{prefix}f1"] = 100 * 2 * precision * recall / (precision + recall) if hits else 0.0
        scores[f"{prefix}entities"] = len(wanted)
    return scores


def as_iob2(types: list[str], breaks: list[bool]) -> list[str]:
    """Labels from a type for each word ("" for none) and whether a new entity begins there."""
    labels: list[str] = []
    for place, (entity, begins) in enumerate(zip(types, breaks, strict=True)):
        goes_on = place > 0 and types[place - 1] == entity and not begins
        labels.append(("I-" if goes_on else "B-") + entity if entity else "O")
    return labels


@st.composite
def scored_sentences(draw: st.DrawFn) -> tuple[list[list[str]], list[list[str]]]:
    """Gold sequences in IOB2, predictions of any labels, often near the gold ones."""
    gold, predicted = [], []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, 9))
        types = draw(st.lists(st.sampled_from(["", "", "PER", "LOC", "ORG"]), min_size=size, max_size=size))
        gold.append(as_iob2(types, draw(st.lists(st.booleans(), min_size=size, max_size=size))))
        noise = st.one_of(st.none(), st.none(), st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]))
        wrong = draw(st.lists(noise, min_size=size, max_size=size))
        predicted.append([one or label for one, label in zip(wrong, gold[-1], strict=True)])
    return gold, predicted


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # seqeval's macro average where there is no entity at all
@settings(max_examples=100, deadline=None)
@given(scored_sentences())
def test_entity_scores_equal_counted_spans(case: tuple[list[list[str]], list[list[str]]]) -> None:
    gold, predicted = case
    scores = entity_scores(gold, predicted)
    assert scores == pytest.approx(counted_scores(gold, predicted))
    assert all(isinstance(value, (int, float)) for value in scores.values()) and json.dumps(scores)


def test_entity_scores_by_hand() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "B-LOC"]]
    predicted = [["B-PER", "I-PER", "O", "B-PER"], ["B-LOC", "I-LOC"]]  # one right of three, of four there are
    assert entity_scores(gold, predicted) == pytest.approx(
        {
            "precision": 100 / 3,
            "recall": 25.0,
            "f1": 200 / 7,
            "entities": 4,
            "PER_precision": 50.0,
            "PER_recall": 100.0,
            "PER_f1": 200 / 3,
            "PER_entities": 1,
            "LOC_precision": 0.0,
            "LOC_recall": 0.0,
            "LOC_f1": 0.0,
            "LOC_entities": 3,
        }
    )


def test_cut_sentences_are_joined() -> None:
    labels = [[IGNORED, 1, IGNORED, 2], [IGNORED, 0, IGNORED], [3, IGNORED], [4, IGNORED]]
    arrays = [np.array(one) for one in labels]
    pieces = TokenClassificationDataset(arrays, arrays, arrays, [0, 0, 1, 0], 1)
    rows = np.full((4, 6), 4)
    rows[0, [1, 3]], rows[1, 1], rows[2, 0], rows[3, 0] = [3, 4], 0, 1, 2
    assert sentence_labels(rows, pieces, NAMES) == [["B-PER", "I-PER", "O", "I-LOC"], ["B-LOC"]]


def make_trainer(
    folder: Path, base: Path, weights: np.ndarray | None, pieces: TokenClassificationDataset
) -> NERTrainer:
    options = ModelOptions(str(base))
    model = load_model(options, "ner", NAMES)
    setup = resolve_setup("ner", read_base_config(options), AdapterOptions())
    assert setup is not None
    build_setup(model, setup)
    run = resolve_training_args(
        TrainingOptions(output_dir=str(folder), report_to=[], do_eval=True, use_cpu=True, disable_tqdm=True)
    )
    run.label_names = ["labels"]
    collator = TokenClassificationCollator(pad_id=0, has_types=True)
    return NERTrainer(
        model=model, setup=setup, names=NAMES, weights=weights, args=run, data_collator=collator, eval_dataset=pieces
    )


@pytest.mark.parametrize("weights", [None, np.array([0.2, 1.5, 0.8, 2.0, 0.5], dtype=np.float32)])
def test_loss_is_the_weighted_mean_over_labelled_tokens(
    tmp_path: Path, tiny_bert: Path, bert: PreTrainedTokenizerFast, weights: np.ndarray | None
) -> None:
    pieces = tokenize_and_align_labels(BOTH, bert, NAMES, max_seq_length=64)
    trainer = make_trainer(tmp_path, tiny_bert, weights, pieces)
    trainer.model.eval()
    batch = trainer.data_collator([pieces[0], pieces[1]])
    with torch.no_grad():
        found, weights_added, outputs = trainer.task_loss(trainer.model, batch)
    total = norm = 0.0
    for row, labels in zip(outputs.logits.double().numpy(), batch["labels"].numpy(), strict=True):
        for logits, label in zip(row, labels, strict=True):
            if label != IGNORED:
                weight = 1.0 if weights is None else float(weights[label])
                total += weight * (np.log(np.exp(logits).sum()) - logits[label])
                norm += weight
    assert [float(found), float(weights_added)] == pytest.approx([total, norm], rel=1e-5)


@pytest.mark.parametrize("weights", [None, np.ones(5, dtype=np.float32)])
def test_loss_and_gradients_do_not_wait_for_the_device(
    tmp_path: Path, tiny_bert: Path, bert: PreTrainedTokenizerFast, weights: np.ndarray | None
) -> None:
    pieces = tokenize_and_align_labels(BOTH, bert, NAMES, max_seq_length=64)
    trainer = make_trainer(tmp_path, tiny_bert, weights, pieces)
    batch = trainer.data_collator([pieces[0], pieces[1]])
    with DeviceReadCounter() as readings:
        trainer.task_loss(trainer.model, batch)[0].backward()
    assert readings.count == 0


def test_evaluation_scores_whole_sentences(tmp_path: Path, tiny_bert: Path, bert: PreTrainedTokenizerFast) -> None:
    pieces = tokenize_and_align_labels(BOTH, bert, NAMES, max_seq_length=9)
    assert pieces.cut_sentences == 2
    trainer = make_trainer(tmp_path, tiny_bert, None, pieces)
    metrics = trainer.evaluate()
    rows = np.asarray(trainer.predict(pieces, metric_key_prefix="again").predictions)
    predicted = sentence_labels(rows, pieces, NAMES)
    expected = counted_scores([list(one.labels) for one in BOTH], predicted)
    assert {name: metrics[f"eval_{name}"] for name in expected} == pytest.approx(expected)
    assert metrics["eval_entities"] == 4
    trainer.scored = None
    assert trainer.score(EvalPrediction(predictions=rows, label_ids=rows)) == {}


# ---------------------------------------------------------------- real data


@pytest.mark.parametrize("name", ["train.conll", "dev.conll"])
def test_lener_br(shared_data: Path, bert: PreTrainedTokenizerFast, name: str) -> None:
    path = shared_data / "lener_br" / name
    sentences = read_sentences(path, need_labels=True)
    names = label_names(sentences)
    types = ["JURISPRUDENCIA", "LEGISLACAO", "LOCAL", "ORGANIZACAO", "PESSOA", "TEMPO"]
    blocks = path.read_text(encoding="utf-8").strip().split("\n\n")
    assert [len(one.words) for one in sentences] == [block.count("\n") + 1 for block in blocks]
    assert names == ["O", *[f"{prefix}-{entity}" for entity in types for prefix in "BI"]]
    some = sentences[:300]
    pieces = tokenize_and_align_labels(some, bert, names, max_seq_length=32)
    rows = np.full((len(pieces), 32), IGNORED)
    for row, labels in zip(rows, pieces.labels, strict=True):
        row[: len(labels)] = labels
    assert pieces.cut_sentences > 0
    assert sentence_labels(rows, pieces, names) == [list(one.labels) for one in some]

"""Token classification data (adapter_qa/data/token_classification.py): token labels, batches, class weights.

Oracles: the tokenizer's own `word_ids`, and formulas written out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.conll_files import read_sentences
from support.sentences import ANA, BOTH, DAVI, NAMES
from transformers import PreTrainedTokenizerFast

from adapter_qa.config.options import ModelOptions
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.readers.sentences import Sentence, label_names
from adapter_qa.data.token_classification import (
    EncodedInput,
    TokenClassificationCollator,
    TokenClassificationDataset,
    class_weights,
    sentence_labels,
    tokenize_and_align_labels,
)
from adapter_qa.models.base_model import load_tokenizer


@pytest.fixture(scope="module")
def bert(tiny_bert: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(ModelOptions(str(tiny_bert)), split_words=True)


@pytest.fixture(scope="module")
def roberta(tiny_roberta: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(ModelOptions(str(tiny_roberta)), split_words=True)


@pytest.fixture(params=["bert", "roberta"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    tokenizer: PreTrainedTokenizerFast = request.getfixturevalue(request.param)
    return tokenizer


# ---------------------------------------------------------------- words to tokens


def expected_labels(sentence: Sentence, tokenizer: PreTrainedTokenizerFast, label_all: bool) -> list[int]:
    """Return token labels, computed from the tokenizer's `word_ids`."""
    words = tokenizer(list(sentence.words), is_split_into_words=True).word_ids()
    labels = []
    for index, word in enumerate(words):
        if word is None:
            labels.append(IGNORE_INDEX)
        elif index == 0 or words[index - 1] != word:
            labels.append(NAMES.index(sentence.labels[word]))
        else:
            inside_label = sentence.labels[word].replace("B-", "I-")
            labels.append(NAMES.index(inside_label) if label_all else IGNORE_INDEX)
    return labels


def word_labels(dataset: TokenClassificationDataset, names: Sequence[str] = NAMES) -> list[list[str]]:
    """Return the labels of the words from the token labels in the dataset itself."""
    size = int(dataset.lengths().max())
    rows = [np.pad(item.labels, (0, size - len(item.labels)), constant_values=IGNORE_INDEX) for item in dataset.inputs]
    return sentence_labels(np.stack(rows), dataset, names)


@pytest.mark.parametrize("label_all", [False, True])
def test_the_first_piece_of_a_word_is_labelled(tokenizer: PreTrainedTokenizerFast, label_all: bool) -> None:
    dataset = tokenize_and_align_labels(BOTH, tokenizer, NAMES, max_seq_length=64, label_all_tokens=label_all)
    assert (dataset.sentence_indices, dataset.cut_sentences, len(dataset)) == ([0, 1], 0, 2)
    for sentence, item in zip(BOTH, [dataset[0], dataset[1]], strict=True):
        expected = tokenizer(list(sentence.words), is_split_into_words=True, return_token_type_ids=True)
        assert item["input_ids"].tolist() == expected["input_ids"]
        assert item["token_type_ids"].tolist() == expected["token_type_ids"]
        assert item["labels"].tolist() == expected_labels(sentence, tokenizer, label_all)
        assert {array.dtype for array in item.values()} == {np.dtype(np.int64)}
    assert dataset.lengths().sum() > sum(len(sentence.words) + 2 for sentence in BOTH)  # some words have several pieces


def test_further_pieces_of_a_b_label_are_inside(bert: PreTrainedTokenizerFast) -> None:
    dataset = tokenize_and_align_labels(
        [Sentence(("Recifense",), ("B-LOC",))], bert, NAMES, max_seq_length=64, label_all_tokens=True
    )
    count = len(bert.tokenize("Recifense"))
    assert count > 1
    assert dataset.inputs[0].labels.tolist() == [IGNORE_INDEX, 1, *[2] * (count - 1), IGNORE_INDEX]


def test_unknown_words_are_labelled(bert: PreTrainedTokenizerFast) -> None:
    dataset = tokenize_and_align_labels(
        [Sentence(("Ana", "日本", "[MASK]"), ("O", "B-LOC", "B-PER"))], bert, NAMES, max_seq_length=64
    )
    unknown = dataset.inputs[0].token_ids == bert.unk_token_id
    assert unknown.any()
    assert set(dataset.inputs[0].labels[unknown].tolist()) <= {1, IGNORE_INDEX}
    assert word_labels(dataset) == [["O", "B-LOC", "B-PER"]]


def test_words_that_the_tokenizer_drops_are_unknown_tokens(bert: PreTrainedTokenizerFast) -> None:
    assert bert.tokenize("\u200b") == []
    sentence = Sentence(("\u200b", "Ana", "\u200b", "\u200b", "Recife"), ("O", "B-PER", "I-PER", "O", "B-LOC"))
    dataset = tokenize_and_align_labels([sentence], bert, NAMES, max_seq_length=64)
    assert word_labels(dataset) == [list(sentence.labels)]
    assert (dataset.inputs[0].token_ids == bert.unk_token_id).sum() == 3


def test_words_without_labels_are_labelled_o(tokenizer: PreTrainedTokenizerFast) -> None:
    dataset = tokenize_and_align_labels([Sentence(ANA.words, ())], tokenizer, NAMES, max_seq_length=64)
    assert word_labels(dataset) == [["O"] * len(ANA.words)]


WORDS = st.text(alphabet="aeéãRcifLms日\u200b\u00ad-.,1", min_size=1, max_size=12)
LABELS = st.sampled_from(NAMES)
SENTENCES = st.lists(
    st.lists(st.tuples(WORDS, LABELS), min_size=1, max_size=14).map(
        lambda pairs: Sentence(tuple(word for word, _ in pairs), tuple(label for _, label in pairs))
    ),
    min_size=1,
    max_size=4,
)


def word_tokens(word: str, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the tokens of a single word."""
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
    dataset = tokenize_and_align_labels(
        sentences, tokenizer, NAMES, max_seq_length=size, label_all_tokens=label_all, next_sentence=next_sentence
    )
    inputs_of = [
        [at for at, number in enumerate(dataset.sentence_indices) if number == index] for index in range(len(sentences))
    ]
    assert [at for inputs in inputs_of for at in inputs] == list(range(len(dataset)))
    assert dataset.cut_sentences == sum(len(inputs) > 1 for inputs in inputs_of)
    for sentence, inputs in zip(sentences, inputs_of, strict=True):
        words = [word_tokens(word, tokenizer)[: size - 2] for word in sentence.words]
        tokens: list[int] = []
        for at in inputs:
            ids = dataset.inputs[at].token_ids.tolist()
            assert len(ids) == len(dataset.inputs[at].type_ids) == len(dataset.inputs[at].labels) <= size
            assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
            tokens += ids[1 : ids.index(tokenizer.sep_token_id)]  # the next sentence follows the separator
            assert dataset.inputs[at].labels[0] == dataset.inputs[at].labels[-1] == IGNORE_INDEX
        assert tokens == [token for word in words for token in word]
    if not next_sentence and not label_all:
        assert word_labels(dataset) == [list(sentence.labels) for sentence in sentences]


def test_each_part_of_a_long_sentence_is_as_long_as_possible(bert: PreTrainedTokenizerFast) -> None:
    sentence = Sentence(("Ana", "Bruno", "Recife", "Manaus", "pintor") * 4, ("O",) * 20)
    lengths = [len(word_tokens(word, bert)) for word in sentence.words]
    dataset = tokenize_and_align_labels([sentence], bert, NAMES, max_seq_length=12)
    sizes, limit = [0], 10
    for length in lengths:
        if sizes[-1] + length > limit:
            sizes.append(0)
        sizes[-1] += length
    assert [len(ids) - 2 for ids, _, _ in dataset.inputs] == sizes
    assert dataset.cut_sentences == 1


def test_a_sentence_longer_than_the_encoder_is_cut_without_a_warning(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The library warns of indexing errors in the model, but no input of the model is as long."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    count = tokenizer.model_max_length + 1
    sentence = Sentence(("Ana",) * count, ("O",) * count)
    dataset = tokenize_and_align_labels([sentence], tokenizer, NAMES, max_seq_length=tokenizer.model_max_length)
    assert dataset.cut_sentences == 1
    assert word_labels(dataset) == [list(sentence.labels)]
    assert caplog.messages == []


def test_a_word_longer_than_the_input_is_truncated(bert: PreTrainedTokenizerFast) -> None:
    word = "nasceu" * 7
    dataset = tokenize_and_align_labels(
        [Sentence(("em", word, "Recife"), ("O", "B-PER", "B-LOC"))], bert, NAMES, max_seq_length=8
    )
    longest = word_tokens(word, bert)
    assert len(longest) > 6
    assert [longest[:6] in (ids[1:-1].tolist(),) for ids, _, _ in dataset.inputs].count(True) == 1
    assert word_labels(dataset) == [["O", "B-PER", "B-LOC"]]


def test_the_next_sentence_is_the_second_segment(tokenizer: PreTrainedTokenizerFast) -> None:
    dataset = tokenize_and_align_labels(BOTH, tokenizer, NAMES, max_seq_length=128, next_sentence=True)
    pair = tokenizer(list(ANA.words), list(DAVI.words), is_split_into_words=True, return_token_type_ids=True)
    alone = tokenizer(list(DAVI.words), is_split_into_words=True)
    assert [ids.tolist() for ids, _, _ in dataset.inputs] == [pair["input_ids"], alone["input_ids"]]
    assert dataset.inputs[0].type_ids.tolist() == pair["token_type_ids"]
    assert not dataset.inputs[1].type_ids.any()
    labelled = dataset.inputs[0].labels[dataset.inputs[0].labels != IGNORE_INDEX]
    assert [NAMES[label] for label in labelled] == [*ANA.labels, *DAVI.labels]
    first, second = expected_labels(ANA, tokenizer, False), expected_labels(DAVI, tokenizer, False)
    specials = tokenizer.num_special_tokens_to_add(pair=True) - 3  # RoBERTa puts two separators between
    assert dataset.inputs[0].labels.tolist() == first + [IGNORE_INDEX] * specials + second[1:]


def test_the_next_sentence_fills_the_remaining_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    own = sum(len(word_tokens(word, tokenizer)) for word in ANA.words)
    lengths = np.cumsum([len(word_tokens(word, tokenizer)) for word in DAVI.words])
    specials = tokenizer.num_special_tokens_to_add(pair=True)
    for limit in range(int(lengths[-1]) + 2):
        dataset = tokenize_and_align_labels(
            BOTH, tokenizer, NAMES, max_seq_length=own + specials + limit, next_sentence=True
        )
        fitting = int((lengths <= limit).sum())
        labels = [NAMES[label] for label in dataset.inputs[0].labels[dataset.inputs[0].labels != IGNORE_INDEX]]
        assert labels == [*ANA.labels, *DAVI.labels[:fitting]]
        assert len(dataset.inputs[0].token_ids) == own + (specials + lengths[fitting - 1] if fitting else 2)
    tight = tokenize_and_align_labels(BOTH, tokenizer, NAMES, max_seq_length=own + 2, next_sentence=True)
    assert len(tight.inputs[0].token_ids) == own + 2
    assert tight.sentence_indices[0:2] == [0, 1]


def test_only_the_last_part_of_a_cut_sentence_is_followed_by_the_next_sentence(bert: PreTrainedTokenizerFast) -> None:
    long = "nasceu" * 4
    short, limit = (len(word_tokens(word, bert)) for word in ("Ana", long))
    assert limit > 2 * short
    # The first part has tokens left for "Ana", with which the next sentence begins, but not for the long word.
    sentences = [Sentence(("Ana", long, "Ana"), ("O",) * 3), ANA]
    dataset = tokenize_and_align_labels(sentences, bert, NAMES, max_seq_length=2 + limit, next_sentence=True)
    assert dataset.sentence_indices[:3] == [0, 0, 0]
    assert [len(ids) - 2 for ids, _, _ in dataset.inputs[:2]] == [short, limit]
    assert [bool(types.any()) for _, types, _ in dataset.inputs[:3]] == [False, False, True]


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
    names = {"input_ids": 9, "attention_mask": 0, "labels": IGNORE_INDEX} | ({"token_type_ids": 0} if has_types else {})
    assert batch.keys() == names.keys()
    for name, fill in names.items():
        assert batch[name].dtype == torch.int64
        assert batch[name].shape == (2, length)
        for row, item in zip(batch[name].tolist(), items, strict=True):
            size = len(item["input_ids"])
            expected = [1] * size if name == "attention_mask" else item[name].tolist()
            assert row == expected + [fill] * (length - size)


# ---------------------------------------------------------------- labels of words, class weights


def test_parts_of_cut_sentences_are_joined() -> None:
    labels = [[IGNORE_INDEX, 1, IGNORE_INDEX, 2], [IGNORE_INDEX, 0, IGNORE_INDEX], [3, IGNORE_INDEX], [4, IGNORE_INDEX]]
    inputs = [EncodedInput(np.array(row), np.array(row), np.array(row)) for row in labels]
    dataset = TokenClassificationDataset(inputs, [0, 0, 1, 0], 1)
    rows = np.full((4, 6), 4)
    rows[0, [1, 3]], rows[1, 1], rows[2, 0], rows[3, 0] = [3, 4], 0, 1, 2
    assert sentence_labels(rows, dataset, NAMES) == [["B-PER", "I-PER", "O", "I-LOC"], ["B-LOC"]]


def labelled(*labels: list[int]) -> TokenClassificationDataset:
    inputs = [EncodedInput(np.array(row), np.array(row), np.array(row)) for row in labels]
    return TokenClassificationDataset(inputs, list(range(len(inputs))), 0)


@pytest.mark.parametrize("constant", [0.0, 0.5, 3.0])
def test_class_weights(constant: float) -> None:
    dataset = labelled([IGNORE_INDEX, 0, 0, 0, 1, IGNORE_INDEX], [IGNORE_INDEX, 0, 2, 2, IGNORE_INDEX])
    weights = class_weights(dataset, 4, constant)
    counts = [4, 1, 2, 1]  # the last class never occurs and counts as once
    total = sum(1 / count for count in counts)
    raw = [constant + 1 / count / total for count in counts]
    assert weights.dtype == np.float32
    assert weights.shape == (4,)
    np.testing.assert_allclose(weights, [4 * weight / sum(raw) for weight in raw], rtol=1e-6)


def test_a_large_constant_makes_weights_equal() -> None:
    dataset = labelled([0] * 1000 + [1])
    assert np.ptp(class_weights(dataset, 2, 0.0)) > 1.9
    np.testing.assert_allclose(class_weights(dataset, 2, 1e4), [1, 1], atol=1e-3)


def test_lener_br_labels_come_back_from_token_labels(shared_data: Path, bert: PreTrainedTokenizerFast) -> None:
    sentences = read_sentences(shared_data / "lener_br" / "dev.conll", need_labels=True)[:300]
    names = label_names(sentences)
    dataset = tokenize_and_align_labels(sentences, bert, names, max_seq_length=32)
    assert dataset.cut_sentences > 0
    assert word_labels(dataset, names) == [list(sentence.labels) for sentence in sentences]

"""Masked language modelling data (adapter_qa/data/masked_lm.py): blocks, and the shares of BERT's masking."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.problems import problem_of
from transformers import BatchEncoding, PreTrainedTokenizerFast

from adapter_qa.config.options import ModelOptions
from adapter_qa.core.errors import UserError
from adapter_qa.data import masked_lm
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.masked_lm import MaskedLMDataset, make_fixed_mask_dataset, mask_tokens, split_into_blocks
from adapter_qa.models.base_model import load_tokenizer


@pytest.fixture(scope="module")
def bert(tiny_bert: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(ModelOptions(str(tiny_bert)))


@pytest.fixture(scope="module")
def roberta(tiny_roberta: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(ModelOptions(str(tiny_roberta)))


@pytest.fixture(params=["bert", "roberta"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    tokenizer: PreTrainedTokenizerFast = request.getfixturevalue(request.param)
    return tokenizer


# ---------------------------------------------------------------- blocks


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text(alphabet="Anaçéx 日.", min_size=1, max_size=30), min_size=1, max_size=12),
    size=st.integers(4, 12),
    kind=st.sampled_from(["bert", "roberta"]),
)
def test_blocks_contain_all_tokens_except_the_last_few(
    bert: PreTrainedTokenizerFast, roberta: PreTrainedTokenizerFast, texts: list[str], size: int, kind: str
) -> None:
    tokenizer = bert if kind == "bert" else roberta
    tokens: list[int] = []
    for text in texts:
        tokens += [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.sep_token_id]
    text_size = size - 2
    if len(tokens) < text_size:
        with pytest.raises(UserError, match=rf"the text has {len(tokens)} tokens, not enough .* --block_size {size};"):
            split_into_blocks(texts, tokenizer, size)
        return
    blocks = split_into_blocks(texts, tokenizer, size)
    assert blocks.dtype == np.int64
    assert blocks.shape == (len(tokens) // text_size, size)
    assert (blocks[:, 0] == tokenizer.cls_token_id).all()
    assert (blocks[:, -1] == tokenizer.sep_token_id).all()
    assert blocks[:, 1:-1].flatten().tolist() == tokens[: len(tokens) // text_size * text_size]


def test_blocks_continue_across_tokenizer_calls(bert: PreTrainedTokenizerFast) -> None:
    texts = [f"Ana nasceu em Recife {number}." for number in range(1001)]  # one more than a call tokenizes
    tokens = [token for text in texts for token in bert(text)["input_ids"][1:]]
    blocks = split_into_blocks(texts, bert, 10)
    assert blocks[:, 1:-1].flatten().tolist() == tokens[: len(tokens) // 8 * 8]


def test_long_texts_are_tokenized_a_few_at_a_time(
    bert: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["Ana", "a" * 30, "Bruno é pintor.", "", "Ana", "x" * 25, "Ana"]
    expected = split_into_blocks(texts, bert, 10)
    calls: list[list[str]] = []

    def counting(batch: list[str], **options: bool) -> BatchEncoding:
        calls.append(batch)
        encoded: BatchEncoding = tokenize(batch, **options)
        return encoded

    tokenize = bert.__class__.__call__.__get__(bert)
    monkeypatch.setattr(masked_lm, "CHARACTERS_PER_CALL", 20)
    monkeypatch.setattr(masked_lm, "TEXTS_PER_CALL", 2)
    monkeypatch.setattr(bert.__class__, "__call__", staticmethod(counting))
    assert np.array_equal(split_into_blocks(texts, bert, 10), expected)
    assert calls == [["Ana"], ["a" * 30], ["Bruno é pintor.", ""], ["Ana"], ["x" * 25], ["Ana"]]


# ---------------------------------------------------------------- masking


def many_tokens(tokenizer: PreTrainedTokenizerFast, rows: int = 4000) -> torch.Tensor:
    """Return (rows, 128) ids: special tokens at both ends, one unknown word, padding in every other row, words."""
    ids = torch.randint(0, len(tokenizer), (rows, 128), generator=torch.Generator().manual_seed(1))
    ids[torch.isin(ids, torch.tensor(tokenizer.all_special_ids))] = len(tokenizer) - 1
    ids[:, 0], ids[:, -1], ids[:, 64] = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id
    ids[::2, 100:] = tokenizer.pad_token_id
    return ids


def near(count: int, total: int, share: float) -> bool:
    """Return whether a binomial count is within five standard deviations of its mean."""
    return abs(count - total * share) < 5 * math.sqrt(total * share * (1 - share))


@pytest.mark.parametrize("probability", [0.15, 0.4])
def test_shares_of_masking(tokenizer: PreTrainedTokenizerFast, probability: float) -> None:
    ids = many_tokens(tokenizer)
    before = ids.clone()
    masked, labels = mask_tokens(ids, tokenizer, probability, torch.Generator().manual_seed(3))
    assert torch.equal(ids, before)
    assert masked.dtype == labels.dtype == torch.int64
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen = labels != IGNORE_INDEX
    assert not (chosen & special).any()
    assert torch.equal(masked[~chosen], ids[~chosen])
    assert torch.equal(labels[chosen], ids[chosen])

    tokens, size = int(chosen.sum()), len(tokenizer)
    assert near(tokens, int((~special).sum()), probability)
    hidden = int((masked[chosen] == tokenizer.mask_token_id).sum())
    kept = int((masked[chosen] == ids[chosen]).sum())
    assert near(hidden, tokens, 0.8 + 0.1 / size)  # a random word may be the mask, or the word itself
    assert near(kept, tokens, 0.1 + 0.1 / size)
    replaced = masked[chosen & (masked != tokenizer.mask_token_id) & (masked != ids)]
    assert near(len(replaced), tokens, 0.1 - 0.2 / size)
    assert near(int((replaced < size // 2).sum()), len(replaced), 0.5)
    assert int(replaced.min()) < 8
    assert size - 8 <= int(replaced.max()) < size


def test_all_positions_are_equally_likely(bert: PreTrainedTokenizerFast) -> None:
    ids = torch.full((300, 128), 100)
    masked, labels = mask_tokens(ids, bert, 0.5, torch.Generator().manual_seed(5))
    columns = (labels != IGNORE_INDEX).sum(0)
    assert all(near(int(count), 300, 0.5) for count in columns)
    assert near(int((masked == bert.mask_token_id).sum()), int(columns.sum()), 0.8 + 0.1 / len(bert))


def test_masks_differ_between_calls_and_depend_on_the_seed(bert: PreTrainedTokenizerFast) -> None:
    ids = many_tokens(bert, 8)
    torch.manual_seed(0)
    first, second = mask_tokens(ids, bert, 0.15), mask_tokens(ids, bert, 0.15)
    torch.manual_seed(0)
    again = mask_tokens(ids, bert, 0.15)
    assert not torch.equal(first[1], second[1])
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_an_evaluation_needs_a_masked_token(bert: PreTrainedTokenizerFast) -> None:
    ids = many_tokens(bert, 8).numpy()
    assert problem_of(make_fixed_mask_dataset, ids, bert, 1e-9, 1) == (
        "--mlm_probability 1e-09: masks none of the 1024 tokens of the evaluation text, so nothing can be scored; give "
        "more text"
    )


def test_fixed_masks_depend_on_the_seed_alone(bert: PreTrainedTokenizerFast) -> None:
    ids = many_tokens(bert, 8).numpy()
    state = torch.get_rng_state()
    first, same, other = (make_fixed_mask_dataset(ids, bert, 0.15, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is not used
    assert first.labels is not None
    assert same.labels is not None
    assert other.labels is not None
    assert np.array_equal(first.ids, same.ids)
    assert np.array_equal(first.labels, same.labels)
    assert not np.array_equal(first.labels, other.labels)
    assert len(first) == 8
    assert {name: array.shape for name, array in first[3].items()} == {
        "input_ids": (128,),
        "labels": (128,),
    }
    assert np.array_equal(first[3]["labels"], first.labels[3])
    assert list(MaskedLMDataset(ids)[3]) == ["input_ids"]

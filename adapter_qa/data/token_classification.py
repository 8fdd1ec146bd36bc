"""Token classification data: word labels to token labels and back, batches, class weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from adapter_qa.data.label_schemes import OUTSIDE
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.readers.sentences import Sentence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MIN_SENTENCES_FOR_PROGRESS = 1000  # fewer sentences are tokenized at once


class Word(NamedTuple):
    """The tokens of a word, and a label index for each token."""

    token_ids: list[int]
    labels: list[int]


class EncodedInput(NamedTuple):
    """An input of the encoder without padding.

    Attributes:
        token_ids: (tokens,) int64.
        type_ids: (tokens,) int64, token types.
        labels: (tokens,) int64, `IGNORE_INDEX` for special tokens and for word pieces without label.
    """

    token_ids: np.ndarray
    type_ids: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class TokenClassificationDataset(Dataset[dict[str, np.ndarray]]):
    """Encoder inputs made from sentences. A sentence that is too long for one input has several.

    Attributes:
        inputs: the inputs in the order of the sentences.
        sentence_indices: for each input, the index of its (first) sentence.
        cut_sentences: number of sentences that have several inputs.
    """

    inputs: list[EncodedInput]
    sentence_indices: list[int]
    cut_sentences: int

    def __len__(self) -> int:
        return len(self.inputs)

    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each input, (inputs,) int64."""
        return np.array([len(item.token_ids) for item in self.inputs])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        item = self.inputs[index]
        return {"input_ids": item.token_ids, "token_type_ids": item.type_ids, "labels": item.labels}


def tokenize_and_align_labels(
    sentences: Sequence[Sentence],
    tokenizer: PreTrainedTokenizerFast,
    names: Sequence[str],
    *,
    max_seq_length: int,
    label_all_tokens: bool = False,
    next_sentence: bool = False,
) -> TokenClassificationDataset:
    """Tokenize sentences and label their tokens. Long sentences are cut between words, so that no word is lost.

    Args:
        sentences: the sentences; in a sentence without labels every word has the label "O".
        tokenizer: a fast tokenizer.
        names: all label names; a token's label is an index into them.
        max_seq_length: tokens of an input, special tokens included.
        label_all_tokens: label every piece of a word, not only the first; the pieces after a B- piece are I-.
        next_sentence: append the beginning of the next sentence, with labels, as second segment to each sentence.
    """
    label_indices = {name: index for index, name in enumerate(names)}
    tokenized = [
        _tokenize_words(sentence, tokenizer, label_indices, label_all_tokens)
        for sentence in tqdm(
            sentences, desc="sentences", disable=len(sentences) < MIN_SENTENCES_FOR_PROGRESS or None, leave=False
        )
    ]
    single_limit = max_seq_length - tokenizer.num_special_tokens_to_add(pair=False)
    pair_limit = max_seq_length - tokenizer.num_special_tokens_to_add(pair=True)
    inputs: list[EncodedInput] = []
    sentence_indices: list[int] = []
    cut_sentences = 0
    for index, words in enumerate(tokenized):
        parts = _split(words, single_limit)
        cut_sentences += len(parts) > 1
        for part in parts:
            following: list[Word] = []
            if next_sentence and part is parts[-1] and index + 1 < len(tokenized):
                used = sum(len(word.token_ids) for word in part)
                following = _words_that_fit(tokenized[index + 1], pair_limit - used)
            inputs.append(_encode(tokenizer, part, following))
            sentence_indices.append(index)
    return TokenClassificationDataset(inputs, sentence_indices, cut_sentences)


def _tokenize_words(
    sentence: Sentence, tokenizer: PreTrainedTokenizerFast, label_indices: dict[str, int], label_all_tokens: bool
) -> list[Word]:
    """Tokenize a sentence. A word that the tokenizer drops (control characters) becomes an unknown token."""
    encoded = tokenizer(list(sentence.words), is_split_into_words=True, add_special_tokens=False, verbose=False)
    token_ids: list[list[int]] = [[] for _ in sentence.words]
    for token, word_index in zip(encoded["input_ids"], encoded.word_ids(), strict=True):
        token_ids[word_index].append(token)
    words = []
    for index, ids in enumerate(token_ids):
        label = sentence.labels[index] if sentence.labels else OUTSIDE
        inside_label = f"I-{label[2:]}" if label.startswith("B-") else label
        later_label = label_indices[inside_label] if label_all_tokens else IGNORE_INDEX
        pieces = ids or [int(tokenizer.unk_token_id)]
        words.append(Word(pieces, [label_indices[label], *[later_label] * (len(pieces) - 1)]))
    return words


def _words_that_fit(words: list[Word], limit: int) -> list[Word]:
    """Return as many words from the beginning as fit into `limit` tokens; possibly none."""
    lengths = np.cumsum([len(word.token_ids) for word in words])
    return words[: int(np.searchsorted(lengths, limit, side="right"))]


def _split(words: list[Word], limit: int) -> list[list[Word]]:
    """Split words into parts of at most `limit` tokens. A word of more tokens keeps its first `limit`."""
    remaining = [Word(word.token_ids[:limit], word.labels[:limit]) for word in words]
    parts = []
    while remaining:
        parts.append(_words_that_fit(remaining, limit))
        remaining = remaining[len(parts[-1]) :]
    return parts


def _encode(tokenizer: PreTrainedTokenizerFast, first: list[Word], second: list[Word]) -> EncodedInput:
    """Join one or two segments with the tokenizer's special tokens."""
    ids = np.array([token for word in first + second for token in word.token_ids], dtype=np.int64)
    labels = np.array([label for word in first + second for label in word.labels], dtype=np.int64)
    first_size = sum(len(word.token_ids) for word in first)
    # Negative placeholders, not token ids: an unknown word has the id of a special token, but it has a label.
    placeholders = [-number for number in range(1, len(ids) + 1)]
    segments = (placeholders[:first_size], placeholders[first_size:] if second else None)
    token_ids = np.array(tokenizer.build_inputs_with_special_tokens(*segments), dtype=np.int64)
    type_ids = np.array(tokenizer.create_token_type_ids_from_sequences(*segments), dtype=np.int64)
    is_word = token_ids < 0
    all_labels = np.full(len(token_ids), IGNORE_INDEX, dtype=np.int64)
    all_labels[is_word] = labels
    token_ids[is_word] = ids
    return EncodedInput(token_ids, type_ids, all_labels)


@dataclass(frozen=True)
class TokenClassificationCollator:
    """Collator that pads inputs on the right to the longest input of the batch.

    Attributes:
        pad_id: token id of padding.
        has_types: whether the encoder takes token types.
        multiple: the padded length is rounded up to a multiple of this, for tensor cores.
    """

    pad_id: int
    has_types: bool
    multiple: int = 1

    def __call__(self, items: Sequence[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        """Return `input_ids`, `attention_mask`, `labels` and, with `has_types`, `token_type_ids`.

        All are (batch, length) int64.
        """
        longest = max(len(item["input_ids"]) for item in items)
        shape = (len(items), -(-longest // self.multiple) * self.multiple)
        padding = {"input_ids": self.pad_id, "labels": IGNORE_INDEX} | ({"token_type_ids": 0} if self.has_types else {})
        batch = {name: np.full(shape, value, dtype=np.int64) for name, value in padding.items()}
        batch["attention_mask"] = np.zeros(shape, dtype=np.int64)
        for row, item in enumerate(items):
            size = len(item["input_ids"])
            batch["attention_mask"][row, :size] = 1
            for name in padding:
                batch[name][row, :size] = item[name]
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def class_weights(dataset: TokenClassificationDataset, class_count: int, constant: float) -> np.ndarray:
    """Return weights proportional to `constant` + normalized inverse class frequency, with a mean of 1.

    The inverse frequencies 1/n_k are scaled to a sum of 1 over the classes; n_k is 1 for a class that never occurs.
    The larger `constant` is, the more similar the weights are.

    Returns:
        (class_count,) float32.
    """
    labels = np.concatenate([item.labels for item in dataset.inputs])
    counts = np.bincount(labels[labels != IGNORE_INDEX], minlength=class_count)
    inverse = 1 / np.maximum(counts, 1)
    weights = constant + inverse / inverse.sum()
    return np.asarray(weights / weights.mean(), dtype=np.float32)


def sentence_labels(
    token_labels: np.ndarray, dataset: TokenClassificationDataset, names: Sequence[str]
) -> list[list[str]]:
    """Return the labels of every word of every sentence.

    Args:
        token_labels: (inputs, length) int64, label of each token; only tokens that `dataset` labels are used.
        dataset: inputs in which the first piece of each word is labelled.
        names: all label names.
    """
    sentences: list[list[str]] = [[] for _ in range(max(dataset.sentence_indices) + 1)]
    for row, item, index in zip(token_labels, dataset.inputs, dataset.sentence_indices, strict=True):
        sentences[index] += [names[label] for label in row[np.flatnonzero(item.labels != IGNORE_INDEX)]]
    return sentences

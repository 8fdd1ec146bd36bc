"""Named entities: word labels to token labels and back, class weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

from adapter_qa.data.conll import OUTSIDE, Sentence
from adapter_qa.data.labels import IGNORED

FEW_SENTENCES = 1000  # below, tokenizing is over before a progress bar could be read


Word = tuple[list[int], list[int]]  # token ids of a word, and their labels


@dataclass(frozen=True)
class TokenClassificationDataset(Dataset):
    """Encoder inputs made from sentences; a sentence too long for one input makes several.

    Attributes:
        token_ids, type_ids, labels: one int64 array (tokens,) an input; labels are `IGNORED` on special tokens and on
            word pieces that are not labelled.
        sentence: index of each input's (first) sentence.
        cut_sentences: how many sentences made several inputs.
    """

    token_ids: list[np.ndarray]
    type_ids: list[np.ndarray]
    labels: list[np.ndarray]
    sentence: list[int]
    cut_sentences: int

    def __len__(self) -> int:
        return len(self.token_ids)

    def lengths(self) -> np.ndarray:
        """(inputs,) int64, tokens of each."""
        return np.array([len(ids) for ids in self.token_ids])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {
            "input_ids": self.token_ids[index],
            "token_type_ids": self.type_ids[index],
            "labels": self.labels[index],
        }


def tokenize_and_align_labels(
    sentences: Sequence[Sentence],
    tokenizer: PreTrainedTokenizerFast,
    names: Sequence[str],
    *,
    max_seq_length: int,
    label_all_tokens: bool = False,
    next_sentence: bool = False,
) -> TokenClassificationDataset:
    """Tokenizes sentences and gives their tokens labels. Long sentences are cut between words; no word is lost.

    Args:
        sentences: with labels, or without: then the first piece of each word has the label "O".
        tokenizer: a fast one.
        names: all labels; a token's label is an index into them.
        max_seq_length: tokens of an input, special tokens included.
        label_all_tokens: label every piece of a word (B- goes on as I-), not only the first.
        next_sentence: append the beginning of the next sentence, labelled too, as second segment to each sentence.
    """
    index_of = {name: index for index, name in enumerate(names)}
    words_of = [
        _words_of(sentence, tokenizer, index_of, label_all_tokens)
        for sentence in tqdm(sentences, desc="sentences", disable=len(sentences) < FEW_SENTENCES)
    ]
    single = max_seq_length - tokenizer.num_special_tokens_to_add(pair=False)
    pair = max_seq_length - tokenizer.num_special_tokens_to_add(pair=True)
    inputs, numbers, cut = [], [], 0
    for number, words in enumerate(words_of):
        stretches = _split(words, single)
        cut += len(stretches) > 1
        for stretch in stretches:
            follower: list[Word] = []
            if next_sentence and stretch is stretches[-1] and number + 1 < len(words_of):
                used = sum(len(ids) for ids, _ in stretch)
                follower = _beginning(words_of[number + 1], pair - used)
            inputs.append(_assemble(tokenizer, stretch, follower))
            numbers.append(number)
    return TokenClassificationDataset(
        [one[0] for one in inputs], [one[1] for one in inputs], [one[2] for one in inputs], numbers, cut
    )


def _words_of(
    sentence: Sentence, tokenizer: PreTrainedTokenizerFast, index_of: dict[str, int], label_all_tokens: bool
) -> list[Word]:
    """Tokens and labels of each word. A word that the tokenizer drops (control characters) becomes an unknown token."""
    encoded = tokenizer(list(sentence.words), is_split_into_words=True, add_special_tokens=False)
    ids_of: list[list[int]] = [[] for _ in sentence.words]
    for token, word in zip(encoded["input_ids"], encoded.word_ids(), strict=True):
        ids_of[word].append(token)
    words = []
    for number, ids in enumerate(ids_of):
        label = sentence.labels[number] if sentence.labels else OUTSIDE
        going_on = f"I-{label[2:]}" if label.startswith("B-") else label
        rest = index_of[going_on] if label_all_tokens else IGNORED
        tokens = ids or [int(tokenizer.unk_token_id)]
        words.append((tokens, [index_of[label], *[rest] * (len(tokens) - 1)]))
    return words


def _beginning(words: list[Word], room: int) -> list[Word]:
    """The first words that fit together into `room` tokens; maybe none."""
    lengths = np.cumsum([len(ids) for ids, _ in words])
    return words[: int(np.searchsorted(lengths, room, side="right"))]


def _split(words: list[Word], room: int) -> list[list[Word]]:
    """Stretches of words of at most `room` tokens each. A single longer word keeps its first `room` tokens."""
    left = [(ids[:room], labels[:room]) for ids, labels in words]
    stretches = []
    while left:
        stretches.append(_beginning(left, room))
        left = left[len(stretches[-1]) :]
    return stretches


def _assemble(
    tokenizer: PreTrainedTokenizerFast, first: list[Word], second: list[Word]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids, token types and labels of one input, (tokens,) int64 each; special tokens are labelled `IGNORED`."""
    ids = np.array([token for word, _ in first + second for token in word], dtype=np.int64)
    labels = np.array([label for _, word in first + second for label in word], dtype=np.int64)
    size = sum(len(word) for word, _ in first)
    # Places instead of ids: an unknown word has a special token's id, but is none.
    places = [-place for place in range(1, len(ids) + 1)]
    segments = (places[:size], places[size:] if second else None)
    built = np.array(tokenizer.build_inputs_with_special_tokens(*segments), dtype=np.int64)
    ours = built < 0
    types = np.array(tokenizer.create_token_type_ids_from_sequences(*segments), dtype=np.int64)
    all_labels = np.full(len(built), IGNORED, dtype=np.int64)
    all_labels[ours] = labels
    built[ours] = ids
    return built, types, all_labels


@dataclass(frozen=True)
class TokenClassificationCollator:
    """Pads inputs on the right to the longest of a batch.

    Attributes:
        pad_id: token id of padding.
        has_types: whether the encoder takes token types.
        multiple: rounds the length up, for tensor cores.
    """

    pad_id: int
    has_types: bool
    multiple: int = 1

    def __call__(self, inputs: Sequence[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask`, `labels` and, where it has types, `token_type_ids`: (batch, length) int64."""
        longest = max(len(one["input_ids"]) for one in inputs)
        shape = (len(inputs), -(-longest // self.multiple) * self.multiple)
        fill = {"input_ids": self.pad_id, "labels": IGNORED} | ({"token_type_ids": 0} if self.has_types else {})
        batch = {name: np.full(shape, value, dtype=np.int64) for name, value in fill.items()}
        batch["attention_mask"] = np.zeros(shape, dtype=np.int64)
        for row, one in enumerate(inputs):
            size = len(one["input_ids"])
            batch["attention_mask"][row, :size] = 1
            for name in fill:
                batch[name][row, :size] = one[name]
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def class_weights(pieces: TokenClassificationDataset, classes: int, constant: float) -> np.ndarray:
    """Weights proportional to `constant` + normalised inverse class frequency, scaled to a mean of 1.

    The inverse frequencies 1/n_k sum to 1 over the classes; a class that never occurs counts as n_k = 1.

    Args:
        pieces: training inputs.
        classes: number of labels.
        constant: c; the larger it is, the more alike the weights are.

    Returns:
        (classes,) float32.
    """
    labels = np.concatenate(pieces.labels)
    counts = np.bincount(labels[labels != IGNORED], minlength=classes)
    inverse = 1 / np.maximum(counts, 1)
    weights = constant + inverse / inverse.sum()
    return (weights / weights.mean()).astype(np.float32)


def sentence_labels(rows: np.ndarray, pieces: TokenClassificationDataset, names: Sequence[str]) -> list[list[str]]:
    """Labels of every word of every sentence, from labels of inputs.

    Args:
        rows: (inputs, length) int64, a label for each token; only those that `pieces` labels are looked at.
        pieces: evaluation inputs, of which the first piece of each word is labelled.
        names: all labels.
    """
    sentences: list[list[str]] = [[] for _ in range(max(pieces.sentence) + 1)]
    for row, labels, number in zip(rows, pieces.labels, pieces.sentence, strict=True):
        words = np.flatnonzero(labels != IGNORED)
        sentences[number] += [names[label] for label in row[words]]
    return sentences

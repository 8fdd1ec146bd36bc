"""Named entities: word labels to token labels, class weights, entity scores, and the trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from seqeval.metrics import classification_report
from torch.nn import functional
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import EvalPrediction, PreTrainedTokenizerFast

from adapter_qa.batching import IGNORED, encoder_inputs
from adapter_qa.sentences import OUTSIDE, Sentence
from adapter_qa.setup_trainer import SetupTrainer

FEW_SENTENCES = 1000  # below, tokenizing is over before a progress bar could be read

Word = tuple[list[int], list[int]]  # token ids of a word, and their labels


# ---------------------------------------------------------------- words to tokens


@dataclass(frozen=True)
class Pieces(Dataset):
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


def make_pieces(
    sentences: Sequence[Sentence],
    tokenizer: PreTrainedTokenizerFast,
    names: Sequence[str],
    *,
    max_seq_length: int,
    label_all_tokens: bool = False,
    next_sentence: bool = False,
) -> Pieces:
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
    return Pieces([one[0] for one in inputs], [one[1] for one in inputs], [one[2] for one in inputs], numbers, cut)


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
class PieceCollator:
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


# ---------------------------------------------------------------- learning and scoring


def class_weights(pieces: Pieces, classes: int, constant: float) -> np.ndarray:
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


def sentence_labels(rows: np.ndarray, pieces: Pieces, names: Sequence[str]) -> list[list[str]]:
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


def entity_scores(gold: list[list[str]], predicted: list[list[str]]) -> dict[str, float]:
    """Entity-level precision, recall and F1 in percent by seqeval, over all entities (micro) and for each type: an
    entity counts if its type and both its ends are right.

    Returns:
        `precision`, `recall`, `f1`, `entities`, and the first three again as `<TYPE>_precision` and so on.
    """
    report = classification_report(gold, predicted, output_dict=True, zero_division=0)
    scores: dict[str, float] = {}
    for name, row in report.items():
        if name in ("macro avg", "weighted avg"):
            continue
        prefix = "" if name == "micro avg" else f"{name}_"
        scores |= {
            f"{prefix}precision": 100 * float(row["precision"]),
            f"{prefix}recall": 100 * float(row["recall"]),
            f"{prefix}f1": 100 * float(row["f1-score"]),
        }
        scores[f"{prefix}entities"] = int(row["support"])
    return scores


class EntityTrainer(SetupTrainer):
    """`SetupTrainer` for entity labels.

    Args:
        names: all labels.
        weights: (classes,) float32, of the classes in the loss; None weighs them alike.
        eval_dataset: what is evaluated on; its labels are on the first piece of each word.
        others: as for `SetupTrainer`.
    """

    def __init__(self, *, names: Sequence[str], weights: np.ndarray | None, eval_dataset: Pieces | None, **others: Any):
        super().__init__(
            eval_dataset=eval_dataset,
            compute_metrics=self.score,
            preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
            **others,
        )
        self.names = names
        self.weights = None if weights is None else torch.from_numpy(weights)
        self.scored = eval_dataset

    def task_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Weighted cross entropy of the labelled tokens of a batch, in float32, and the sum of their weights."""
        labels = inputs["labels"].flatten()
        outputs = model(**encoder_inputs(inputs, [name for name in inputs if name != "labels"]))
        logits = outputs.logits.float().flatten(0, 1)
        weights = None if self.weights is None else self.weights.to(logits)
        total = functional.cross_entropy(logits, labels, weights, ignore_index=IGNORED, reduction="sum")
        counted = (labels != IGNORED).to(logits)
        if weights is not None:
            counted = counted * weights[labels.clamp(min=0)]
        return total, counted.sum(), outputs

    def score(self, prediction: EvalPrediction) -> dict[str, float]:
        """Entity scores of `self.scored`, whose predictions these are; none where labels are not known."""
        if self.scored is None:
            return {}
        predicted = sentence_labels(np.asarray(prediction.predictions), self.scored, self.names)
        gold = sentence_labels(np.asarray(prediction.label_ids), self.scored, self.names)
        return entity_scores(gold, predicted)

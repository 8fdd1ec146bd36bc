#!/usr/bin/env python
"""Train a tiny cased BERT for the demo, with vocabulary and weights from examples/sample alone.

    python examples/make_tiny_bert.py OUTPUT_DIR PREPARED_QUESTIONS

A real base model learns from billions of words to relate a question to its context. This model trains for seconds.
Therefore its initial weights already let equal words attend to each other and give similar words similar vectors (see
`initialize_weights`). All weights are then trained on two losses: masked words in the sentences of the text, and
answers of the training questions. The QA head is discarded; the saved model is an ordinary `BertForMaskedLM`.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch.nn import functional
from tqdm import tqdm
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertTokenizerFast,
    get_linear_schedule_with_warmup,
    set_seed,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, from anywhere

from adapter_qa.core.cli import run_cli
from adapter_qa.core.errors import raise_if_any
from adapter_qa.data.masked_lm import mask_tokens
from adapter_qa.data.readers.squad import read_squad
from adapter_qa.data.window_dataset import WindowCollator, pair_tokenizer
from adapter_qa.data.windows import Windows, make_windows
from trainer_qa import span_loss

SAMPLE = Path(__file__).resolve().parent / "sample"
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY_SIZE = 2000
LAYERS = 3
HEADS = 4
MAX_LENGTH = 256  # tokens
BATCH_SIZE = 32  # windows per step, and as many sentences
LEARNING_RATE = 2e-3
MASKED_SHARE = 0.25  # share of a sentence's tokens to predict; BERT uses 0.15, short sentences allow more
HIDDEN_SHARE = 0.2  # share of context tokens that are masked in QA, so that contexts are not memorized
EMBEDDING_STD = 0.03  # standard deviation of word, position and type embeddings, per dimension
SIMILARITY_SHARE = 0.93  # share of a word vector that encodes similarity to other words; the rest is random


def main(argv: list[str]) -> int:
    """Run the script and return its exit code."""
    options = read_options(argv)
    set_seed(options.seed)
    texts = options.texts.read_text(encoding="utf-8").splitlines()
    questions = read_squad(options.questions, need_answers=True)
    tokenizer = make_tokenizer(texts + [question.question for question in questions], options.output_dir)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden_size,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=2 * options.hidden_size,
        max_position_embeddings=MAX_LENGTH,
        hidden_dropout_prob=0.0,  # dropout only slows down so short a training
        attention_probs_dropout_prob=0.0,
    )
    model = BertForMaskedLM(config)
    split_texts = [sentence for text in texts for sentence in re.split(r'(?<=[.!?"]) (?=[^\W\d_])', text)]
    sentences = tokenizer(split_texts)["input_ids"]
    initialize_weights(model, sentences)
    windows = make_windows(questions, pair_tokenizer(tokenizer), max_seq_length=MAX_LENGTH, doc_stride=MAX_LENGTH // 2)
    word_loss, answer_loss = pretrain(model, tokenizer, sentences, windows, options.steps, options.seed)
    model.save_pretrained(options.output_dir)
    print(f"{options.output_dir}: {model.num_parameters():,} parameters")
    print(f"mean loss of the last steps: masked words {word_loss:.2f}, answers {answer_loss:.2f}")
    return 0


def read_options(argv: list[str]) -> argparse.Namespace:
    """Parse the command line.

    Raises:
        UserError: if a file is missing, the output folder is not empty, or a number is not allowed.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path, help="folder of the model, which is created")
    parser.add_argument("questions", type=Path, help="the sample's training questions, prepared by prepare_squad_pt.py")
    parser.add_argument("--texts", type=Path, default=SAMPLE / "texts.txt", help="plain text, a paragraph per line")
    parser.add_argument("--hidden_size", type=int, default=128, help=f"width, a multiple of {2 * HEADS} (default: 128)")
    parser.add_argument("--steps", type=int, default=300, help=f"steps of {BATCH_SIZE} windows each (default: 300)")
    parser.add_argument("--seed", type=int, default=42, help="the same seed gives the same model (default: 42)")
    options = parser.parse_args(argv)
    problems = [f"{path}: no such file" for path in (options.texts, options.questions) if not path.is_file()]
    if options.output_dir.exists() and (not options.output_dir.is_dir() or any(options.output_dir.iterdir())):
        problems.append(f"{options.output_dir}: exists and is not an empty folder; give another folder")
    if options.hidden_size < 2 * HEADS or options.hidden_size % (2 * HEADS):
        problems.append(f"--hidden_size {options.hidden_size}: must be a positive multiple of {2 * HEADS}")
    if options.steps < 1:
        problems.append(f"--steps {options.steps}: must be at least 1")
    raise_if_any(problems)
    return options


def make_tokenizer(corpus: list[str], folder: Path) -> BertTokenizerFast:
    """Create a cased WordPiece tokenizer and save it to the model's folder.

    Its vocabulary contains every character of the corpus, as the start of a word and inside, and the most frequent
    words. The trainer of `tokenizers` is not used, because it orders equally frequent pieces differently in every
    process.
    """
    splitter = BertPreTokenizer()
    words = Counter(word for text in corpus for word, _ in splitter.pre_tokenize_str(text))
    characters = sorted({character for word in words for character in word})
    frequent = sorted(words, key=lambda word: (-words[word], word))
    pieces = dict.fromkeys([*SPECIAL_TOKENS, *characters, *(f"##{character}" for character in characters), *frequent])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text(
        "".join(f"{piece}\n" for piece in list(pieces)[:VOCABULARY_SIZE]), encoding="utf-8"
    )
    tokenizer = BertTokenizerFast(
        vocab_file=str(folder / "vocab.txt"), do_lower_case=False, strip_accents=False, model_max_length=MAX_LENGTH
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def cooccurrence_vectors(sentences: Sequence[list[int]], vocabulary: int, width: int) -> torch.Tensor:
    """Return unit vectors that are close for word pieces with similar neighbours.

    They are a truncated singular value decomposition of the positive pointwise mutual information of pieces with the
    two pieces before and the two after them (Levy and Goldberg 2014, "Neural Word Embedding as Implicit Matrix
    Factorization").

    Args:
        sentences: token ids.
        vocabulary: number of word pieces.
        width: dimensions.

    Returns:
        (vocabulary, width) float32; zero for pieces that do not occur.
    """
    counts = torch.zeros(vocabulary, 4 * vocabulary)
    for block, distance in enumerate((-2, -1, 1, 2)):
        pairs = [
            (sentence[i], block * vocabulary + sentence[i + distance])
            for sentence in sentences
            for i in range(max(0, -distance), len(sentence) - max(0, distance))
        ]
        rows, columns = torch.tensor(pairs).T
        counts.index_put_((rows, columns), torch.ones(len(pairs)), accumulate=True)
    expected = counts.sum(1, keepdim=True) * counts.sum(0) / counts.sum()
    information = torch.log(counts / expected).nan_to_num(0.0).clamp(min=0)  # log(0 / 0) for absent pieces
    left, values, _ = torch.svd_lowrank(information, q=width + 16, niter=4)
    return functional.normalize(left[:, :width] * values[:width].sqrt(), dim=1)


@torch.no_grad()
def initialize_weights(model: BertForMaskedLM, sentences: Sequence[list[int]]) -> None:
    """Set initial weights with which a few hundred steps are enough to learn to match question and context.

    - Word embeddings: half of the dimensions are `cooccurrence_vectors`, half are random, so that the model recognizes
      a name as a name and still distinguishes names. Position embeddings: the sinusoids of Vaswani et al. 2017.
    - Attention: query and key weights are equal, and output weights invert value weights, so that every token attends
      to equal tokens and copies them (after Trockman and Kolter 2023, "Mimetic Initialization of Self-Attention
      Layers"; the scales 7 and 0.6 were found by trial).
    - Head: its bias is the log frequency of each word piece.

    Args:
        model: changed in place.
        sentences: token ids of the training text.
    """
    vocabulary, width = model.config.vocab_size, model.config.hidden_size
    embeddings, head = model.bert.embeddings, model.cls.predictions
    similar = cooccurrence_vectors(sentences, vocabulary, width // 2)
    distinct = functional.normalize(torch.randn(vocabulary, width // 2), dim=1)
    vectors = torch.cat([similar * SIMILARITY_SHARE, distinct * math.sqrt(1 - SIMILARITY_SHARE**2)], dim=1)
    embeddings.word_embeddings.weight.copy_(vectors * EMBEDDING_STD * math.sqrt(width))
    embeddings.token_type_embeddings.weight.normal_(std=EMBEDDING_STD)
    angles = torch.arange(MAX_LENGTH)[:, None] * 1000 ** (-torch.arange(0, width, 2) / width)
    embeddings.position_embeddings.weight.copy_(torch.cat([angles.sin(), angles.cos()], dim=1) * EMBEDDING_STD)
    # Layer norm gives an input the squared norm `width`; with this deviation equal tokens score about 7.
    deviation = math.sqrt(7 / (width * math.sqrt(width / HEADS)))
    layers: Any = model.bert.encoder.layer
    for layer in layers:
        attention = layer.attention.self
        attention.query.weight.normal_(std=deviation)
        attention.key.weight.copy_(attention.query.weight)
        torch.nn.init.orthogonal_(attention.value.weight, gain=0.6)
        layer.attention.output.dense.weight.copy_(attention.value.weight.T)
    frequency = torch.bincount(
        torch.tensor([piece for sentence in sentences for piece in sentence]), minlength=vocabulary
    )
    head.bias.copy_(torch.log((frequency + 1) / (frequency + 1).sum()))
    head.transform.dense.weight.copy_(torch.eye(width))


def draw_batches(lengths: Sequence[int], rng: random.Random) -> Iterator[list[int]]:
    """Yield endless batches of indices, each of items of similar length, so that there is little padding."""
    while True:
        chosen = sorted(rng.sample(range(len(lengths)), 8 * BATCH_SIZE), key=lengths.__getitem__)
        batches = [chosen[first : first + BATCH_SIZE] for first in range(0, len(chosen), BATCH_SIZE)]
        rng.shuffle(batches)
        yield from batches


def words_loss(model: BertForMaskedLM, tokenizer: BertTokenizerFast, sentences: Sequence[list[int]]) -> torch.Tensor:
    """Return the mean cross entropy of the masked words of a batch of sentences, a scalar.

    The head is applied to the masked tokens only: for all tokens it would cost more than a layer.
    """
    batch = tokenizer.pad({"input_ids": list(sentences)}, return_tensors="pt")
    masked, labels = mask_tokens(batch["input_ids"], tokenizer, MASKED_SHARE)
    states = model.bert(masked, attention_mask=batch["attention_mask"]).last_hidden_state
    chosen = labels >= 0
    return functional.cross_entropy(model.cls(states[chosen]), labels[chosen])


def answers_loss(reader: BertForQuestionAnswering, batch: dict[str, torch.Tensor], mask_id: int) -> torch.Tensor:
    """Return `span_loss` of a batch of windows after masking some context tokens outside the answer, a scalar."""
    positions = torch.arange(batch["input_ids"].shape[1])
    answer = (batch["start_positions"][:, None] <= positions) & (positions <= batch["end_positions"][:, None])
    hidden = (torch.rand(answer.shape) < HIDDEN_SHARE) & batch["context_mask"] & ~answer
    output = reader(
        batch["input_ids"].masked_fill(hidden, mask_id),
        attention_mask=batch["attention_mask"],
        token_type_ids=batch["token_type_ids"],
    )
    return span_loss(output.start_logits, output.end_logits, batch, None)


def pretrain(
    model: BertForMaskedLM,
    tokenizer: BertTokenizerFast,
    sentences: Sequence[list[int]],
    windows: Windows,
    steps: int,
    seed: int,
) -> tuple[float, float]:
    """Train all weights of the model.

    Args:
        model: trained in place.
        tokenizer: tokenizer of the sentences and windows.
        sentences: token ids, for the loss of masked words.
        windows: labelled windows of the training questions, for the loss of answers.
        steps: optimizer steps; each has a batch of sentences and a batch of windows.
        seed: seed of the order of the batches.

    Returns:
        Loss of masked words and loss of answers, means over the last tenth of the steps.
    """
    reader = BertForQuestionAnswering(model.config)
    reader.bert = model.bert
    weights = [*model.parameters(), *reader.qa_outputs.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=(0.9, 0.98))
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    collate = WindowCollator(int(tokenizer.pad_token_id), left=False)
    rng = random.Random(seed)
    sentence_batches = draw_batches([len(sentence) for sentence in sentences], rng)
    window_batches = draw_batches(windows.lengths().tolist(), rng)
    losses = []
    for _ in tqdm(range(steps), desc="pre-training", mininterval=2):
        words = words_loss(model, tokenizer, [sentences[index] for index in next(sentence_batches)])
        batch = collate([windows[index] for index in next(window_batches)])
        answers = answers_loss(reader, batch, int(tokenizer.mask_token_id))
        optimizer.zero_grad()
        (words + answers).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        losses.append((words.item(), answers.item()))
    last = torch.tensor(losses[-max(1, steps // 10) :]).mean(dim=0)
    return float(last[0]), float(last[1])


if __name__ == "__main__":
    sys.exit(run_cli(main))

#!/usr/bin/env python
"""Makes a tiny cased BERT for the demo: its vocabulary and all its weights come from examples/sample alone.

It is pre-trained on two things at once, for as many steps as --steps says: masked words of the sample's text, and the
answer spans of the sample's training questions. The second is what makes a model this small pay attention from a
question to its context; a real base model learns that from billions of words. The span head is thrown away.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers.implementations import BertWordPieceTokenizer
from torch.nn import functional
from tqdm import tqdm
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizerFast,
    get_linear_schedule_with_warmup,
    set_seed,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, from anywhere

from adapter_qa.errors import UserError, run_door
from adapter_qa.language import IGNORED, mask_tokens
from adapter_qa.squad import Question, read_squad
from trainer_qa import span_loss
from utils_qa import WindowCollator, Windows, make_windows

SAMPLE = Path(__file__).resolve().parent / "sample"
VOCABULARY = 3000
BATCH = 32
PEAK_LEARNING_RATE = 2e-3
MASKED = 0.1  # of the tokens; the spans are found in the masked text, so that one pass serves both


def main(argv: list[str]) -> int:
    """Table of contents; returns the exit code."""
    options = read_options(argv)
    set_seed(options.seed)
    texts = (SAMPLE / "texts.txt").read_text(encoding="utf-8").splitlines()
    questions = read_squad(options.questions, need_answers=True)
    tokenizer = make_tokenizer(texts, questions, options.output_dir)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * options.hidden_size,
        max_position_embeddings=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForMaskedLM(config)
    windows = make_windows(questions, tokenizer, max_seq_length=128, doc_stride=32)
    loss = pretrain(model, windows, tokenizer, options.steps, options.seed)
    model.save_pretrained(options.output_dir)
    print(f"{options.output_dir}: {model.num_parameters():,} parameters, last span loss {loss:.2f}")
    return 0


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line.

    Raises:
        UserError: the output folder is not empty.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path, help="folder to make")
    parser.add_argument("questions", type=Path, help="the sample's training questions, prepared by prepare_squad_pt.py")
    parser.add_argument("--hidden_size", type=int, default=128, help="width (default: 128)")
    parser.add_argument("--steps", type=int, default=900, help=f"steps of {BATCH} windows each (default: 900)")
    parser.add_argument("--seed", type=int, default=42, help="same seed, same model (default: 42)")
    options = parser.parse_args(argv)
    if options.output_dir.is_dir() and any(options.output_dir.iterdir()):
        raise UserError(f"{options.output_dir}: is not empty; give another folder")
    return options


def make_tokenizer(texts: list[str], questions: list[Question], folder: Path) -> BertTokenizerFast:
    """A cased WordPiece tokenizer, saved into the model's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    wordpiece = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    corpus = texts + [question.question for question in questions]
    wordpiece.train_from_iterator(corpus, vocab_size=VOCABULARY, show_progress=False)
    wordpiece.save_model(str(folder))
    tokenizer = BertTokenizerFast(
        vocab_file=str(folder / "vocab.txt"), do_lower_case=False, strip_accents=False, model_max_length=256
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def pretrain(model: BertForMaskedLM, windows: Windows, tokenizer: BertTokenizerFast, steps: int, seed: int) -> float:
    """Trains all weights on masked words and answer spans of the windows; returns the mean of the last span losses.

    Args:
        model: trained in place.
        windows: of the training questions, with labels.
        tokenizer: theirs.
        steps: number of batches, drawn from windows of like length.
        seed: of the order of the batches.
    """
    span_head = torch.nn.Linear(model.config.hidden_size, 2)
    weights = [*model.parameters(), *span_head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=PEAK_LEARNING_RATE)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    collate = WindowCollator(int(tokenizer.pad_token_id), left=False)
    by_length = np.argsort(windows.lengths(), kind="stable")
    draw = random.Random(seed)
    losses = []
    for _ in tqdm(range(steps), desc="pre-training", mininterval=2):
        first = draw.randrange(len(windows) - BATCH + 1)
        batch = collate([windows[int(index)] for index in by_length[first : first + BATCH]])
        inputs = {"attention_mask": batch["attention_mask"], "token_type_ids": batch["token_type_ids"]}
        masked, labels = mask_tokens(batch["input_ids"], tokenizer, MASKED)
        hidden = model.bert(masked, **inputs).last_hidden_state
        start_logits, end_logits = span_head(hidden).unbind(-1)
        spans = span_loss(start_logits, end_logits, batch)
        chosen = labels != IGNORED
        words = functional.cross_entropy(model.cls(hidden[chosen]), labels[chosen])
        optimizer.zero_grad()
        (spans + words).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(spans.item())
    return float(np.mean(losses[-20:]))


if __name__ == "__main__":
    sys.exit(run_door(main))

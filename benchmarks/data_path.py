"""Measure windows, answers and the memory of an evaluation: everything around the model."""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import median_seconds, speed_rows
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

from adapter_qa.core.files import write_json
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.questions import Question
from adapter_qa.data.readers.squad import read_squad
from adapter_qa.data.samplers import LongestFirst
from adapter_qa.data.spans import WindowSpans, choose_answers
from adapter_qa.data.squad_metrics import squad_metrics
from adapter_qa.data.window_dataset import WindowCollator, pair_tokenizer
from adapter_qa.data.windows import Windows, make_windows
from utils_qa import SpanCollector, window_spans, write_answers

LENGTH, STRIDE = 384, 128  # of windows, in tokens
N_BEST, LONGEST_ANSWER = 20, 30
ANSWERING = AnsweringOptions(LENGTH, STRIDE, N_BEST, LONGEST_ANSWER)
EVALUATED = 10_570  # questions of SQuAD v1.1's development set
BATCH_SIZE = 64
Batch = tuple[dict[str, torch.Tensor], torch.Tensor]


def load_questions(options: argparse.Namespace) -> tuple[list[Question], PreTrainedTokenizerFast]:
    """Return the questions of --data and the tokenizer."""
    questions = read_squad(options.data, need_answers=True)[: options.max_samples]
    return questions, AutoTokenizer.from_pretrained(options.tokenizer)


def make_standard_windows(questions: list[Question], tokenizer: PreTrainedTokenizerFast) -> Windows:
    """Return windows of `LENGTH` tokens."""
    return make_windows(questions, pair_tokenizer(tokenizer), max_seq_length=LENGTH, doc_stride=STRIDE)


def measure_windows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the labelled windows per second."""
    questions, tokenizer = load_questions(options)
    variants: dict[str, Callable[[], object]] = {
        "every pair tokenized and padded, labelled in a loop": lambda: loop_windows(questions, tokenizer),
        "ours": lambda: make_standard_windows(questions, tokenizer),
    }
    count = len(make_standard_windows(questions, tokenizer))
    return speed_rows("windows", count, "windows/s", median_seconds(variants, options.rounds))


def loop_windows(questions: list[Question], tokenizer: PreTrainedTokenizerFast) -> list[Any]:
    """Make windows as the standard recipe does: a thousand pairs at a time, one label search for each window."""
    windows: list[Any] = []
    for begin in range(0, len(questions), 1000):
        chunk = questions[begin : begin + 1000]
        pairs = tokenizer(
            [question.question.lstrip() for question in chunk],
            [question.context for question in chunk],
            truncation="only_second",
            max_length=LENGTH,
            stride=STRIDE,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding="max_length",
        )
        for index, offsets in enumerate(pairs["offset_mapping"]):
            question = chunk[pairs["overflow_to_sample_mapping"][index]]
            tokens = [token for token, sequence in enumerate(pairs.sequence_ids(index)) if sequence == 1]
            first = last = 0
            if question.answer_texts and tokens:
                start, end = question.answer_starts[0], question.answer_starts[0] + len(question.answer_texts[0])
                if offsets[tokens[0]][0] <= start and offsets[tokens[-1]][1] >= end:
                    first = max(token for token in tokens if offsets[token][0] <= start)
                    last = min(token for token in tokens if offsets[token][1] >= end)
            windows.append((pairs["input_ids"][index], pairs["attention_mask"][index], first, last))
    return windows


def measure_answers(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the windows per second from spans to answer files; `whole_runs` measures those of the library."""
    questions, tokenizer = load_questions(options)
    windows = make_standard_windows(questions, tokenizer)
    spans = collect_spans(windows, random_batches(windows, tokenizer, "cpu"), "cpu")
    folder = Path(tempfile.mkdtemp())

    def answer() -> None:
        write_answers(choose_answers(questions, windows, spans, ANSWERING), folder, "eval")

    if options.profile is not None:
        title = f"answers of {len(questions):,} questions, {len(windows):,} windows"
        write_profile(title, answer, Path(options.profile) / "profile_answers.txt")
    seconds = median_seconds({"ours": answer}, options.rounds)
    return speed_rows("answers, n-best files included", len(windows), "windows/s", seconds)


def write_profile(title: str, run: Callable[[], object], path: Path) -> None:
    """Write the times of Python functions as text under a title, without the folders that they are in."""
    profile, text = cProfile.Profile(), io.StringIO()
    profile.runcall(run)
    pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(15)
    lines = [title, "", *(line.rstrip() for line in text.getvalue().strip().splitlines())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def random_batches(windows: Windows, tokenizer: PreTrainedTokenizerFast, device: str) -> list[Batch]:
    """Return batches on a device, the longest windows first, with random logits, (2, windows, length)."""
    collator = WindowCollator(int(tokenizer.pad_token_id), tokenizer.padding_side == "left")
    order = LongestFirst(windows.lengths()).order
    draw, batches = torch.Generator().manual_seed(0), []
    for begin in range(0, len(order), BATCH_SIZE):
        batch = collator([windows[index] for index in order[begin : begin + BATCH_SIZE]])
        logits = torch.randn(2, *batch["input_ids"].shape, generator=draw) * 3
        batches.append(({name: tensor.to(device) for name, tensor in batch.items()}, logits.to(device)))
    return batches


def collect_spans(windows: Windows, batches: list[Batch], device: str) -> WindowSpans:
    """Return the best spans in the logits of batches."""
    collector = SpanCollector(LongestFirst(windows.lengths()).order, N_BEST, device)
    for batch, logits in batches:
        collector.add_batch(window_spans(batch, logits[0], logits[1], ANSWERING))
    return collector.spans


def measure_evaluation(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the seconds from logits on the device to metrics, for as many questions as SQuAD v1.1 evaluates on."""
    sample, tokenizer = load_questions(options)
    questions = [replace(sample[number % len(sample)], id=str(number)) for number in range(EVALUATED)]
    windows, folder = make_standard_windows(questions, tokenizer), Path(tempfile.mkdtemp())
    batches = random_batches(windows, tokenizer, options.device)
    times = [time.perf_counter()]
    spans = collect_spans(windows, batches, options.device)
    times.append(time.perf_counter())
    answers = choose_answers(questions, windows, spans, ANSWERING)
    write_answers(answers, folder, "eval")
    times.append(time.perf_counter())
    write_json(folder / "eval_results.json", squad_metrics(answers.texts(), questions, version_2=False))
    times.append(time.perf_counter())
    parts = dict(zip(("spans", "answers and files", "scores"), np.diff(times).tolist(), strict=True))
    parts["total"] = times[-1] - times[0]
    title = f"from logits to metrics, {len(questions):,} questions, {len(windows):,} windows"
    return [{"what": f"{title}: {name}", "figure": seconds, "unit": "s"} for name, seconds in parts.items()]


def measure_memory(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the peak memory of an evaluation of 100,000 windows with its answer files, without a model."""
    words = ["aldeia", "rio", "casa", "monte", "ponte", "mar", "campo", "vila", "barco", "luz"]
    draw = np.random.default_rng(0)
    contexts = [" ".join(draw.choice(words, 150).tolist()) + f" {number}" for number in range(20_000)]
    questions = [Question(str(index), "Onde fica?", contexts[index // 5], ("rio",), (-1,)) for index in range(100_000)]
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer) if options.tokenizer else tiny_tokenizer(words)
    answer_randomly(questions[:500], tokenizer)  # the libraries allocate memory at their first use
    before = peak_megabytes()
    windows = answer_randomly(questions, tokenizer)
    added = peak_megabytes() - before
    return [{"what": f"evaluating {windows:,} windows, without questions and model", "figure": added, "unit": "MB"}]


def answer_randomly(questions: list[Question], tokenizer: PreTrainedTokenizerFast) -> int:
    """Evaluate random logits, from windows to answer files, one batch at a time; return the number of windows."""
    windows = make_standard_windows(questions, tokenizer)
    collator = WindowCollator(int(tokenizer.pad_token_id), False)
    draw = torch.Generator().manual_seed(0)
    order = LongestFirst(windows.lengths()).order
    collector = SpanCollector(order, N_BEST)
    for begin in range(0, len(windows), BATCH_SIZE):
        batch = collator([windows[index] for index in order[begin : begin + BATCH_SIZE]])
        start, end = torch.randn(2, *batch["input_ids"].shape, generator=draw)
        collector.add_batch(window_spans(batch, start, end, ANSWERING))
    answers = choose_answers(questions, windows, collector.spans, ANSWERING)
    write_answers(answers, Path(tempfile.mkdtemp()), "eval")
    return len(windows)


def tiny_tokenizer(words: list[str]) -> BertTokenizerFast:
    """Return a WordPiece tokenizer of a few words."""
    path = Path(tempfile.mkdtemp()) / "vocab.txt"
    digits = [str(digit) for digit in range(10)] + [f"##{digit}" for digit in range(10)]
    special_tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    path.write_text("\n".join([*special_tokens, *words, *digits, "onde", "fica", "?"]), encoding="utf-8")
    return BertTokenizerFast(vocab_file=str(path))


def peak_megabytes() -> float:
    """Return the peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

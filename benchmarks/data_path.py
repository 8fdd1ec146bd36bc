"""Windows, answers and the memory of an evaluation: what surrounds the model."""

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
from transformers import AutoTokenizer, BertTokenizerFast

from adapter_qa.core.files import write_json
from adapter_qa.data.samplers import LongestFirst
from adapter_qa.data.squad import Question, read_squad
from adapter_qa.data.squad_metrics import squad_metrics
from adapter_qa.data.window_dataset import WindowCollator
from adapter_qa.data.windows import Windows, make_windows
from utils_qa import SpanCollector, WindowSpans, choose_answers, window_spans

PADDED = 384
N_BEST, LONGEST_ANSWER = 20, 30
EVALUATED = 10_570  # questions of SQuAD v1.1's development set


def load_questions(options: argparse.Namespace) -> tuple[list[Question], Any]:
    """The questions of --data and their tokenizer."""
    return read_squad(options.data, need_answers=True)[: options.max_samples], AutoTokenizer.from_pretrained(
        options.tokenizer
    )


def measure_windows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Windows with labels, at 384 tokens with a stride of 128."""
    questions, tokenizer = load_questions(options)
    made = make_windows(questions, tokenizer, max_seq_length=PADDED, doc_stride=128)
    ways = {
        "every pair tokenized and padded, labelled in a loop": lambda: plain_windows(questions, tokenizer),
        "ours": lambda: make_windows(questions, tokenizer, max_seq_length=PADDED, doc_stride=128),
    }
    return speed_rows("windows", len(made), "windows/s", median_seconds(ways, options.rounds))


def plain_windows(questions: list[Question], tokenizer: Any) -> list[Any]:
    """Windows as the standard recipe makes them: a thousand pairs at a time, one label search a window."""
    made: list[Any] = []
    for first in range(0, len(questions), 1000):
        chunk = questions[first : first + 1000]
        pairs = tokenizer(
            [one.question.lstrip() for one in chunk], [one.context for one in chunk], truncation="only_second",
            max_length=PADDED, stride=128, return_overflowing_tokens=True, return_offsets_mapping=True,
            padding="max_length",
        )  # fmt: skip
        for index, offsets in enumerate(pairs["offset_mapping"]):
            gold = chunk[pairs["overflow_to_sample_mapping"][index]]
            inside = [place for place, part in enumerate(pairs.sequence_ids(index)) if part == 1]
            start = end = 0
            if gold.answer_texts and inside:
                low, high = gold.answer_starts[0], gold.answer_starts[0] + len(gold.answer_texts[0])
                if offsets[inside[0]][0] <= low and offsets[inside[-1]][1] >= high:
                    start = max(place for place in inside if offsets[place][0] <= low)
                    end = min(place for place in inside if offsets[place][1] >= high)
            made.append((pairs["input_ids"][index], pairs["attention_mask"][index], start, end))
    return made


def measure_answers(options: argparse.Namespace) -> list[dict[str, Any]]:
    """From the spans of windows to the answer files; the peer's way is measured in whole runs."""
    questions, tokenizer = load_questions(options)
    windows = make_windows(questions, tokenizer, max_seq_length=PADDED, doc_stride=128)
    spans, folder = random_spans(windows, tokenizer), Path(tempfile.mkdtemp())
    ways = {"ours": lambda: choose_answers(questions, windows, spans, n_best_size=N_BEST).write(folder, "eval")}
    if options.profile is not None:
        write_profile(ways["ours"], Path(options.profile) / "profile_answers.txt")
    return speed_rows("answers, n-best files included", len(windows), "windows/s", median_seconds(ways, options.rounds))


def write_profile(way: Callable[[], Any], path: Path) -> None:
    """Where the time of Python functions goes, as text, without the folders they are in."""
    watched, text = cProfile.Profile(), io.StringIO()
    watched.runcall(way)
    pstats.Stats(watched, stream=text).strip_dirs().sort_stats("tottime").print_stats(15)
    lines = [line.rstrip() for line in text.getvalue().strip().splitlines()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def random_spans(windows: Windows, tokenizer: Any) -> WindowSpans:
    """The spans that are found in random logits where these are computed."""
    order = np.arange(len(windows))
    collected = SpanCollector(order, N_BEST)
    for batch, logits in random_logits(windows, order, tokenizer, "cpu"):
        collected.take(window_spans(batch, *logits, n_best_size=N_BEST, max_answer_length=LONGEST_ANSWER))
    return collected.spans


def measure_evaluation(options: argparse.Namespace) -> list[dict[str, Any]]:
    """From logits, on the device, to metrics written, for as many questions as SQuAD v1.1 has to evaluate on."""
    given, tokenizer = load_questions(options)
    questions = [replace(given[number % len(given)], id=str(number)) for number in range(EVALUATED)]
    windows = make_windows(questions, tokenizer, max_seq_length=PADDED, doc_stride=128)
    order, folder = LongestFirst(windows.lengths()).order, Path(tempfile.mkdtemp())
    batches = random_logits(windows, order, tokenizer, options.device)
    moments = [time.perf_counter()]
    collected = SpanCollector(order, N_BEST, options.device)
    for batch, logits in batches:
        collected.take(window_spans(batch, *logits, n_best_size=N_BEST, max_answer_length=LONGEST_ANSWER))
    spans = collected.spans
    moments.append(time.perf_counter())
    answers = choose_answers(questions, windows, spans, n_best_size=N_BEST)
    answers.write(folder, "eval")
    moments.append(time.perf_counter())
    write_json(folder / "eval_results.json", squad_metrics(answers.texts(), questions, version_2=False))
    moments.append(time.perf_counter())
    parts = dict(zip(("spans", "answers and files", "scores"), np.diff(moments).tolist(), strict=True))
    parts["all of it"] = moments[-1] - moments[0]
    what = f"from logits to metrics, {len(questions):,} questions, {len(windows):,} windows"
    return [{"what": f"{what}: {name}", "figure": seconds, "unit": "s"} for name, seconds in parts.items()]


def random_logits(
    windows: Windows, order: np.ndarray, tokenizer: Any, device: str
) -> list[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """Batches in the order given, on a device, with logits, (2, batch, length)."""
    collator = WindowCollator(int(tokenizer.pad_token_id), tokenizer.padding_side == "left")
    draw, batches = torch.Generator().manual_seed(0), []
    for first in range(0, len(order), 64):
        batch = collator([windows[index] for index in order[first : first + 64]])
        logits = torch.randn(2, *batch["input_ids"].shape, generator=draw) * 3
        batches.append(({name: tensor.to(device) for name, tensor in batch.items()}, logits.to(device)))
    return batches


def measure_memory(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak memory of an evaluation of 100,000 windows, answer files included, without a model."""
    words = ["aldeia", "rio", "casa", "monte", "ponte", "mar", "campo", "vila", "barco", "luz"]
    draw = np.random.default_rng(0)
    contexts = [" ".join(draw.choice(words, 150).tolist()) + f" {number}" for number in range(20_000)]
    questions = [Question(str(index), "Onde fica?", contexts[index // 5], ("rio",), (-1,)) for index in range(100_000)]
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer) if options.tokenizer else tiny_tokenizer(words)
    answer_at_random(questions[:500], tokenizer)  # what the libraries take once
    before = peak_megabytes()
    windows = answer_at_random(questions, tokenizer)
    more = peak_megabytes() - before
    return [{"what": f"evaluating {windows:,} windows, beyond questions and model", "figure": more, "unit": "MB"}]


def answer_at_random(questions: list[Question], tokenizer: Any) -> int:
    """Windows, batches, spans of random logits, answers and their files, as in an evaluation; returns the windows."""
    windows = make_windows(questions, tokenizer, max_seq_length=PADDED, doc_stride=128)
    collator = WindowCollator(int(tokenizer.pad_token_id), False)
    generator = torch.Generator().manual_seed(0)
    order = LongestFirst(windows.lengths()).order
    collected = SpanCollector(order, N_BEST)
    for first in range(0, len(windows), 64):
        batch = collator([windows[index] for index in order[first : first + 64]])
        both = torch.randn(2, *batch["input_ids"].shape, generator=generator)
        collected.take(window_spans(batch, both[0], both[1], n_best_size=N_BEST, max_answer_length=LONGEST_ANSWER))
    answers = choose_answers(questions, windows, collected.spans, n_best_size=N_BEST)
    answers.write(Path(tempfile.mkdtemp()), "eval")
    return len(windows)


def tiny_tokenizer(words: list[str]) -> Any:
    """A WordPiece tokenizer of a few words."""
    path = Path(tempfile.mkdtemp()) / "vocab.txt"
    digits = [str(one) for one in range(10)] + [f"##{one}" for one in range(10)]
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    path.write_text("\n".join([*specials, *words, *digits, "onde", "fica", "?"]))
    return BertTokenizerFast(vocab_file=str(path))


def peak_megabytes() -> float:
    """The process's peak resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

#!/usr/bin/env python
"""Measures what this trainer does in its own way against the plain way, side by side in one process, and prints ratios.

    python benchmarks/bench_qa.py                                   # training, windows, answers, memory
    python benchmarks/bench_qa.py --only train --layers 12 --hidden_size 1024 --batch_size 16 --steps 30
    python benchmarks/bench_qa.py --peer adapters/examples/pytorch/question-answering --data squad.json --tokenizer DIR

The plain way: windows padded to 384 (or to the batch's longest, grouped by length), the library's fusion layer, each
pair of question and context tokenized, answers post-processed question by question. With --peer, the utils_qa.py of
that checkout post-processes. Weights are random, and so are token ids without --data; lengths are those of SQuAD-pt.
Last line JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from adapters import AdapterFusionConfig
from adapters.methods.bottleneck import BottleneckLayer
from adapters.methods.modeling import BertFusion
from datasets import Dataset
from transformers import AutoTokenizer, BertConfig, BertForQuestionAnswering
from transformers.trainer_pt_utils import LengthGroupedSampler

from adapter_qa.arguments import AdapterOptions, FusionOptions, LangAdapterOptions
from adapter_qa.batching import BucketSampler, LongestFirst
from adapter_qa.composition import build_setup, fusion_values
from adapter_qa.fusion import REGULARIZATION, FusionLayer, fusion_regularization
from adapter_qa.planning import plan_setup
from adapter_qa.squad import Question, read_squad
from adapter_qa.windows import WindowCollator, Windows, make_windows
from trainer_qa import span_loss
from utils_qa import SpanCollector, WindowSpans, choose_answers, window_spans

PADDED = 384
# SQuAD-pt with a cased Portuguese vocabulary, question and context at most 384 tokens: mean 181, 5 % below 101, median
# 167, 5 % above 321. A gamma distribution of this shape, cut at both ends, has mean 182, 5th 100, 50th 173, 95th 290.
SHAPE, SCALE, SHORTEST = 9.0, 20.0, 40
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TARGET_POINTS = {"best": 20, "longest": 30}


def main(argv: list[str]) -> int:
    """Table of contents."""
    options = read_options(argv)
    measures: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
        "train": measure_training,
        "windows": measure_windows,
        "answers": measure_answers,
        "memory": measure_memory,
    }
    rows = [row for name in options.only for row in measures[name](options)]
    machine = {"device": device_name(options.device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}")
    for row in rows:
        print(f"{row['what']:<64}{row['figure']:>14,.1f} {row['unit']:<22}{row.get('times', ''):>8}")
    print(json.dumps({"machine": machine, "options": vars(options), "rows": rows}))
    return 0


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["train", "windows", "answers", "memory"]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="which measures")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="autocast, for training")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden_size", type=int, default=768)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="steps of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way, in turn; the median counts")
    parser.add_argument("--data", help="SQuAD file for windows and answers")
    parser.add_argument("--tokenizer", help="folder of a tokenizer for --data")
    parser.add_argument("--model", help="folder of a fine-tuned model for --data, whose logits answers are made of")
    parser.add_argument("--max_samples", type=int, help="first N questions of --data")
    parser.add_argument("--peer", help="folder with the ecosystem's utils_qa.py")
    options = parser.parse_args(argv)
    if options.data is None:
        options.only = [name for name in options.only if name not in ("windows", "answers")]
    return options


def device_name(device: str) -> str:
    """The accelerator, or the processor."""
    return torch.cuda.get_device_name(0) if device.startswith("cuda") else f"CPU {platform.machine()}"


def timed(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each way; they take turns, so that a busy machine is busy for all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def as_rows(what: str, work: float, unit: str, seconds: dict[str, float]) -> list[dict[str, Any]]:
    """A row for each way: work a second, and how many times the first, plain way."""
    plain = next(iter(seconds.values()))
    return [
        {"what": f"{what}: {name}", "figure": work / value, "unit": unit, "times": f"{plain / value:.2f} x"}
        for name, value in seconds.items()
    ]


# ---------------------------------------------------------------- training


def measure_training(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Fusion training, Stack(mlm, Fuse(qa, ner)) with MAD-X 2.0, the base frozen: windows a second."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.gamma(SHAPE, SCALE, 50 * options.batch_size), SHORTEST, PADDED).astype(int)
    plain, ours = fusion_model(options, exact=False), fusion_model(options, exact=True)
    grouped = list(LengthGroupedSampler(options.batch_size, lengths=lengths.tolist()))
    shuffled = draw.permutation(len(lengths)).tolist()
    orders = {
        "padded to 384": (plain, shuffled, PADDED),
        "grouped by length, library's fusion": (plain, grouped, None),
        "ours": (ours, list(BucketSampler(lengths, options.batch_size, 0)), None),
    }
    ways: dict[str, Callable[[], Any]] = {}
    useful = {}
    for name, (trainer, order, fixed) in orders.items():
        chosen = typical(order, lengths, options)
        batches = list(random_batches(chosen, lengths, options, fixed))
        useful[name] = int(lengths[chosen].sum())
        ways[name] = partial(train_on, trainer, batches, options)
    for way in ways.values():
        way()  # warm-up
    seconds = timed(ways, options.rounds)
    questions = options.batch_size * options.steps
    what = f"fusion training, {options.layers} layers of {options.hidden_size}, batch {options.batch_size}"
    rows = as_rows(what, questions, "windows/s", seconds)
    for row, (name, value) in zip(rows, seconds.items(), strict=True):
        row["useful_tokens_per_second"] = useful[name] / value
    return rows


def typical(order: list[int], lengths: np.ndarray, options: argparse.Namespace) -> list[int]:
    """As many batches as are measured, spread over an epoch's lengths: neither the short nor the long ones alone."""
    full = len(order) // options.batch_size * options.batch_size
    batches = np.array(order[:full]).reshape(-1, options.batch_size)
    by_length = batches[np.argsort(lengths[batches].mean(axis=1))]
    places = ((np.arange(options.steps) + 0.5) * len(by_length) / options.steps).astype(int)
    return by_length[places].ravel().tolist()


def fusion_model(options: argparse.Namespace, *, exact: bool) -> dict[str, Any]:
    """A model with random weights in fusion training, its optimizer, and its regulariser."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=29_794, hidden_size=options.hidden_size, num_hidden_layers=options.layers,
        num_attention_heads=options.hidden_size // 64, intermediate_size=4 * options.hidden_size,
    )  # fmt: skip
    model: Any = BertForQuestionAnswering(config)
    plan = plan_setup(
        "qa",
        config.to_dict(),
        AdapterOptions(madx2=True, adapter_non_linearity="gelu"),
        LangAdapterOptions(load_lang_adapter="new", lang_adapter_non_linearity="gelu"),
        FusionOptions(fuse_adapters=["qa=new", "ner=new"]),
        random_init=True,
    )
    assert plan is not None
    build_setup(model, plan)
    if not exact:
        put_library_fusion_back(model)
    model.to(options.device).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5, fused=exact)
    return {"model": model, "optimizer": optimizer, "pull": fusion_regularization if exact else plain_pull}


def put_library_fusion_back(model: torch.nn.Module) -> None:
    """The library's layer with the same parameters in place of ours."""
    config = AdapterFusionConfig.load("dynamic")
    for place in (module for module in model.modules() if isinstance(module, BottleneckLayer)):
        for name, layer in place.adapter_fusion_layer.items():
            assert isinstance(layer, FusionLayer)
            plain = BertFusion(config, layer.query.in_features, layer.dropout.p)
            plain.query, plain.key, plain.value = layer.query, layer.key, layer.value
            place.adapter_fusion_layer[name] = plain


def plain_pull(values: list[torch.nn.Parameter]) -> torch.Tensor:
    """The regulariser as the library computes it."""
    total = torch.zeros((), device=values[0].device)
    for weight in values:
        total = total + (weight - torch.eye(len(weight), device=weight.device)).pow(2).sum()
    return REGULARIZATION * total


def random_batches(
    order: Sequence[int], lengths: np.ndarray, options: argparse.Namespace, fixed: int | None
) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of random tokens in the order given."""
    draw = np.random.default_rng(1)
    collator = WindowCollator(0, False, length=fixed, multiple=8 if options.dtype == "bfloat16" else 1)
    for first in range(0, len(order), options.batch_size):
        rows = []
        for index in order[first : first + options.batch_size]:
            size = int(lengths[index])
            ids = draw.integers(1000, 29_000, size)
            types = np.arange(size) > 15
            rows.append({"input_ids": ids, "type_ids": types, "in_context": types, "start": 20, "end": 22, "cls": 0})
        yield {name: tensor.to(options.device) for name, tensor in collator(rows).items()}


def train_on(trainer: dict[str, Any], batches: list[dict[str, torch.Tensor]], options: argparse.Namespace) -> None:
    """Optimizer steps as the trainer does them."""
    model, optimizer = trainer["model"], trainer["optimizer"]
    values = [weight for _, weight in fusion_values(model)]
    kind = options.device.split(":")[0]
    for batch in batches:
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=options.dtype == "bfloat16"):
            output = model(**{name: batch[name] for name in INPUTS})
        loss = span_loss(output.start_logits, output.end_logits, batch) + trainer["pull"](values)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([one for one in model.parameters() if one.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
    if kind == "cuda":
        torch.cuda.synchronize()


# ---------------------------------------------------------------- windows, answers, memory


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
    return as_rows("windows", len(made), "windows/s", timed(ways, options.rounds))


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
    """From logits that are on the CPU to the three answer files."""
    questions, tokenizer = load_questions(options)
    windows = make_windows(questions, tokenizer, max_seq_length=PADDED, doc_stride=128)
    starts, ends, spans = logits_and_spans(windows, tokenizer, options)
    folder = Path(tempfile.mkdtemp())
    ways: dict[str, Callable[[], Any]] = {}
    if options.peer is not None:
        ways["the peer's"] = peer_answers(options.peer, questions, windows, (starts, ends), folder)
    ways["ours"] = lambda: choose_answers(questions, windows, spans, n_best_size=TARGET_POINTS["best"]).write(
        folder, "eval"
    )
    return as_rows("answers, n-best files included", len(windows), "windows/s", timed(ways, options.rounds))


def logits_and_spans(
    windows: Windows, tokenizer: Any, options: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray, WindowSpans]:
    """Logits, (windows, 384) each, of --model or random ones, and the spans that are found where they are computed."""
    collator = WindowCollator(int(tokenizer.pad_token_id), tokenizer.padding_side == "left", length=PADDED)
    model = None
    if options.model is not None:
        model = BertForQuestionAnswering.from_pretrained(options.model).to(options.device).eval()
    draw = torch.Generator().manual_seed(0)
    logits, parts = [], []
    for first in range(0, len(windows), 32):
        batch = collator([windows[index] for index in range(first, min(first + 32, len(windows)))])
        both = torch.randn(2, len(batch["input_ids"]), PADDED, generator=draw) * 3
        if model is not None:
            with torch.inference_mode():
                output = model(**{name: batch[name].to(options.device) for name in INPUTS})
            both = torch.stack([output.start_logits, output.end_logits]).float().cpu()
        found = window_spans(
            batch, both[0], both[1],
            n_best_size=TARGET_POINTS["best"], max_answer_length=TARGET_POINTS["longest"],
        )  # fmt: skip
        logits.append(both.numpy())
        parts.append([tensor.numpy() for tensor in found])
    starts, ends = np.concatenate(logits, axis=1)
    return starts, ends, WindowSpans(*[np.concatenate(pieces) for pieces in zip(*parts, strict=True)])


def peer_answers(
    folder: str, questions: list[Question], windows: Windows, logits: tuple[np.ndarray, np.ndarray], out: Path
) -> Callable[[], Any]:
    """`postprocess_qa_predictions` of the peer's utils_qa.py on the same logits, with the data sets it is used with."""
    spec = importlib.util.spec_from_file_location("peer_utils_qa", Path(folder) / "utils_qa.py")
    assert spec is not None and spec.loader is not None
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    features = []
    for index in range(len(windows)):
        places = np.flatnonzero(windows[index]["in_context"])
        offsets: list[Any] = [None] * PADDED
        for place, characters in zip(places, windows.characters(np.full(len(places), index), places), strict=True):
            offsets[place] = characters.tolist()
        features.append({"example_id": questions[windows.question[index]].id, "offset_mapping": offsets})
    examples = Dataset.from_list([{"id": one.id, "context": one.context} for one in questions])
    data = Dataset.from_list(features)
    return lambda: peer.postprocess_qa_predictions(
        examples, data, logits, n_best_size=TARGET_POINTS["best"], max_answer_length=TARGET_POINTS["longest"],
        output_dir=str(out), log_level=logging.ERROR,
    )  # fmt: skip


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
    collected = SpanCollector(order, TARGET_POINTS["best"])
    for first in range(0, len(windows), 64):
        batch = collator([windows[index] for index in order[first : first + 64]])
        both = torch.randn(2, *batch["input_ids"].shape, generator=generator)
        collected.take(
            window_spans(
                batch, both[0], both[1],
                n_best_size=TARGET_POINTS["best"], max_answer_length=TARGET_POINTS["longest"],
            )
        )  # fmt: skip
    answers = choose_answers(questions, windows, collected.spans, n_best_size=TARGET_POINTS["best"])
    answers.write(Path(tempfile.mkdtemp()), "eval")
    return len(windows)


def tiny_tokenizer(words: list[str]) -> Any:
    """A WordPiece tokenizer of a few words."""
    from transformers import BertTokenizerFast

    path = Path(tempfile.mkdtemp()) / "vocab.txt"
    digits = [str(one) for one in range(10)] + [f"##{one}" for one in range(10)]
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    path.write_text("\n".join([*specials, *words, *digits, "onde", "fica", "?"]))
    return BertTokenizerFast(vocab_file=str(path))


def peak_megabytes() -> float:
    """The process's peak resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

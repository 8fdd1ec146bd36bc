"""Measure asking a saved run: the first answer, from the start of the process to its end, a warm one, and many."""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
import transformers
from data_path import LENGTH, LONGEST_ANSWER, STRIDE, load_questions, make_standard_windows
from measuring import bert_config, median_seconds, speed_rows
from transformers.pipelines import question_answering

ROOT = Path(__file__).resolve().parent.parent
QUESTION, CONTEXT = "Onde fica o Pantanal?", "O Pantanal fica no Centro-Oeste do Brasil."


def measure_asking(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the seconds of the script and of a warm answer for --run on the CPU; of the script also its CPU time."""
    from predictor_qa import QuestionAnswerer

    command = [sys.executable, str(ROOT / "ask_qa.py"), options.run, "--question", QUESTION, "--context", CONTEXT]
    command += ["--device", "cpu"]
    answerer = QuestionAnswerer(options.run, device="cpu")
    answerer.ask(QUESTION, CONTEXT)
    seconds = median_seconds(
        {
            "first answer, whole process": lambda: subprocess.run(command, check=True, capture_output=True),
            "warm answer": lambda: answerer.ask(QUESTION, CONTEXT),
        },
        options.rounds,
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds["first answer, CPU seconds"] = (used.ru_utime + used.ru_stime) / options.rounds
    return [
        {"what": f"{Path(options.run).name}: {name}", "figure": value, "unit": "s"} for name, value in seconds.items()
    ]


def measure_batches(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the questions per second of `ask_qa.py --input` and of the library's pipeline, on the same model.

    The pipeline exists in transformers 4 only. Both get the same questions, lengths and batch size. The model is that
    of --model, or a BERT with random weights and --layers and --hidden_size.
    """
    from adapter_qa.inference.requests import Request, blocks
    from predictor_qa import Overrides, QuestionAnswerer

    questions, tokenizer = load_questions(options)
    records: list[Request] = [{"question": one.question, "context": one.context} for one in questions]
    with tempfile.TemporaryDirectory() as folder:
        if options.model is None:
            torch.manual_seed(0)
            config = bert_config(len(tokenizer), options.hidden_size, options.layers)
            transformers.BertForQuestionAnswering(config).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        lengths = Overrides(max_seq_length=LENGTH, doc_stride=STRIDE, max_answer_length=LONGEST_ANSWER)
        answerer = QuestionAnswerer(
            base=options.model or folder, overrides=lengths, batch_size=options.batch_size, device=options.device
        )
    model = answerer.model
    pipeline = transformers.pipeline("question-answering", model=model, tokenizer=tokenizer, device=options.device)

    def ask_pipeline() -> None:
        pipeline(
            question=[record["question"] for record in records],
            context=[record["context"] for record in records],
            batch_size=options.batch_size,
            max_seq_len=LENGTH,
            doc_stride=STRIDE,
            max_answer_len=LONGEST_ANSWER,
        )

    def ask_blocks() -> None:
        for block in blocks(records):
            answerer.ask_many([(record["question"], record["context"]) for record in block], 1)

    variants = {f"pipeline of transformers {transformers.__version__}": ask_pipeline, "ask_qa.py": ask_blocks}
    pipeline(question=QUESTION, context=CONTEXT)  # warm-up
    answerer.ask(QUESTION, CONTEXT)
    windows = make_standard_windows(questions, tokenizer)
    size = f"{model.config.num_hidden_layers} layers of {model.config.hidden_size}, batch {options.batch_size}"
    work = f"{len(questions):,} questions, {len(windows):,} windows of {windows.lengths().mean():.0f} tokens"
    rows = speed_rows(f"asking many, {size}", len(questions), "q/s", median_seconds(variants, options.rounds))
    return [row | {"work": work} for row in rows]


def compare_with_pipeline(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return how many answers to --max_samples questions of --data, drawn at random, are those of the pipeline.

    Both ask --run with its own limits. An answer differs by normalisation if the pipeline gives it with
    exp(start + end) in place of a softmax in each window.
    """
    from adapter_qa.data.readers.squad import read_squad_files
    from predictor_qa import QuestionAnswerer

    select = question_answering.select_starts_ends

    def select_without_softmax(start: Any, end: Any, p_mask: Any, *rest: Any) -> Any:
        starts, ends, scores, null_score = select(start, end, p_mask, *rest)
        kept = np.asarray(p_mask) == 0
        return (
            starts,
            ends,
            scores * np.prod([np.exp(np.asarray(x, float)[kept]).sum() for x in (start, end)]),
            null_score,
        )

    answerer = QuestionAnswerer(options.run, device="cpu")
    own = answerer.options
    limits = {"max_seq_len": own.max_seq_length, "doc_stride": own.doc_stride}
    limits["max_answer_len"] = own.max_answer_length
    pipeline = question_answering.QuestionAnsweringPipeline(answerer.model, cast(Any, answerer.tokenizer), device="cpu")
    questions = read_squad_files([Path(options.data)], need_answers=False)
    counts: Counter[str] = Counter()
    for one in random.Random(0).sample(questions, min(options.max_samples, len(questions))):
        ours = answerer(one.question, one.context)
        texts = {"question": one.question, "context": one.context}
        pair = (pipeline(**texts, **limits), ours)
        tokens = len(answerer.tokenizer(one.question, one.context)["input_ids"])
        windows = "one window" if tokens <= own.max_seq_length else "several windows"
        kind = "equal"
        if len({(answer["start"], answer["end"]) for answer in pair}) > 1:
            print(f"{one.question}\n  pipeline: {pair[0]}\n  here: {pair[1]}")
            with patch.object(question_answering, "select_starts_ends", select_without_softmax):
                plain = pipeline(**texts, **limits)
            kind = "by normalisation" if (plain["start"], plain["end"]) == (ours["start"], ours["end"]) else "otherwise"
        counts[f"{windows}, {kind}"] += 1
    return [
        {"what": f"answers of pipeline and run: {name}", "figure": count, "unit": "questions"}
        for name, count in sorted(counts.items())
    ]

#!/usr/bin/env python
"""Compare setups on translated and on native questions, and pairs of setups, with intervals of 95 %.

    python benchmarks/results_pt/compare.py outputs/results_pt/runs TEST.json fusion:control qa:full --json FILE

A setup is all runs SETUP_SEED in the folder of runs; its scores are means over seeds. The intervals resample contexts,
for both setups of a pair the same ones.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from parts import FAQUAD_ARTICLES

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from adapter_qa.data.bootstrap import Estimate, context_numbers, estimate, resampled_means
from adapter_qa.data.questions import Question
from adapter_qa.data.squad import read_squad
from adapter_qa.data.squad_metrics import question_scores

RUN_NAME = re.compile(r"(.+)_(\d+)")


class Scores(msgspec.Struct):
    """Scores of a setup, or differences of a pair, on the questions of one source."""

    setups: str
    source: str
    questions: int
    contexts: int
    seeds: int
    f1: Estimate
    exact: Estimate

    def row(self) -> str:
        """Return the scores as a row of a Markdown table."""
        sign = "+" if ":" in self.setups else ""
        cells = [f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]" for value, low, high in (self.f1, self.exact)]
        return f"| {self.setups} | {self.source} | {self.questions} | {self.seeds} | {' | '.join(cells)} |"


def main(argv: Sequence[str]) -> None:
    """Print a row for each setup and pair and each source, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("test_file", type=Path)
    parser.add_argument("pairs", nargs="*", metavar="SETUP:SETUP")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    questions = read_squad(options.test_file, need_answers=True)
    setups = read_setups(options.runs, questions)
    unknown = {setup for pair in options.pairs for setup in pair.split(":")} - {*setups}
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: no finished runs in {options.runs}; found: {', '.join(setups)}")
    scores = [row for name in (*setups, *options.pairs) for row in by_source(name, setups, questions)]
    print("| setup | questions of | number | seeds | F1 | EM |\n|---|---|---|---|---|---|")
    print(*[row.row() for row in scores], sep="\n")
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(scores)))


def read_setups(runs: Path, questions: list[Question]) -> dict[str, NDArray[np.float64]]:
    """Return EM and F1 in percent of each setup, by seed and question: (seeds, questions, 2)."""
    setups: dict[str, list[NDArray[np.float64]]] = {}
    for file in sorted(runs.glob("*/predict_predictions.json")):
        if name := RUN_NAME.fullmatch(file.parent.name):
            answers = json.loads(file.read_text(encoding="utf-8"))
            setups.setdefault(name[1], []).append(100.0 * np.array(question_scores(answers, questions)))
    return {name: np.stack(scores) for name, scores in setups.items()}


def by_source(name: str, setups: dict[str, NDArray[np.float64]], questions: list[Question]) -> list[Scores]:
    """Return scores of a setup, or differences of a pair FIRST:SECOND, on all, translated and native questions.

    A source without questions is left out.
    """
    first, _, second = name.partition(":")
    means = setups[first].mean(axis=0) - (setups[second].mean(axis=0) if second else 0.0)
    seeds = min(len(setups[setup]) for setup in (first, second) if setup)
    is_native = np.array([question.title in FAQUAD_ARTICLES for question in questions])
    rows = []
    sources = {"all": is_native | True, "SQuAD-pt": ~is_native, "FaQuAD": is_native}
    for source, mask in sources.items():
        if not mask.any():
            continue
        contexts = context_numbers([question.context for question, taken in zip(questions, mask, strict=True) if taken])
        resampled = resampled_means(means[mask], contexts)
        exact, f1 = (estimate(means[mask, score].mean(), resampled[:, score]) for score in (0, 1))
        rows.append(Scores(name, source, int(mask.sum()), max(contexts) + 1, seeds, f1, exact))
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])

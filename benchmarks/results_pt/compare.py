#!/usr/bin/env python
"""Compare setups on translated and on native questions, and pairs of setups, with intervals of 95 %.

    python benchmarks/results_pt/compare.py outputs/results_pt/runs TEST.json fusion:control qa:full --json FILE

A setup is all runs SETUP_SEED in the folder of runs; its scores are means over seeds. A pair is compared on the seeds
that both have. The intervals resample contexts, for both setups of a pair the same ones. They do not include the
variation between seeds, which the standard deviation shows.

Questions without an answer are scored as in SQuAD v2. Then the setup `no_answer` answers none of the questions.
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

from adapter_qa.core.errors import UserError
from adapter_qa.data.bootstrap import Estimate, context_numbers, estimate, resampled_means
from adapter_qa.data.questions import Question
from adapter_qa.data.readers.squad import read_squad
from adapter_qa.data.squad_metrics import question_scores

RUN_NAME = re.compile(r"(.+)_(\d+)")


Setups = dict[str, dict[int, NDArray[np.float64]]]


class Scores(msgspec.Struct):
    """Scores of a setup, or differences of a pair, on the questions of one source.

    Attributes:
        f1_deviation: sample standard deviation of F1, or of its difference, over seeds; None for one seed.
        exact_deviation: that of EM.
    """

    setups: str
    source: str
    questions: int
    contexts: int
    seeds: list[int]
    f1: Estimate
    f1_deviation: float | None
    exact: Estimate
    exact_deviation: float | None

    def row(self) -> str:
        """Return the scores as a row of a Markdown table."""
        sign = "+" if ":" in self.setups else ""
        cells = [self.setups, self.source, str(self.questions), " ".join(map(str, self.seeds))]
        for (value, low, high), deviation in ((self.f1, self.f1_deviation), (self.exact, self.exact_deviation)):
            cells += [f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"]
            cells += ["" if deviation is None else f"{deviation:.1f}"]
        return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str]) -> None:
    """Print a row for each setup and pair and each source, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("test_file", type=Path)
    parser.add_argument("pairs", nargs="*", metavar="SETUP:SETUP")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    malformed = [pair for pair in options.pairs if pair.count(":") != 1]
    if malformed:
        parser.error(f"{', '.join(malformed)}: give two setups as SETUP:SETUP")
    try:
        questions = read_squad(options.test_file, need_answers=True)
    except UserError as error:
        parser.error(str(error))
    setups = read_setups(options.runs, questions)
    if not setups:
        parser.error(f"{options.runs}: no folder SETUP_SEED with predict_predictions.json; give the folder of the runs")
    unknown = {setup for pair in options.pairs for setup in pair.split(":")} - {*setups}
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: no finished runs in {options.runs}; found: {', '.join(setups)}")
    apart = [pair for pair in options.pairs if not seeds_of(pair, setups)]
    if apart:
        parser.error(f"{', '.join(apart)}: no seed of which both have finished runs in {options.runs}")
    scores = [row for name in (*setups, *options.pairs) for row in by_source(name, setups, questions)]
    print("| setup | questions of | number | seeds | F1 | deviation | EM | deviation |")
    print("|---|---|---|---|---|---|---|---|")
    print(*[row.row() for row in scores], sep="\n")
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(scores)))


def read_setups(runs: Path, questions: list[Question]) -> Setups:
    """Return EM and F1 in percent of each setup, by seed: (questions, 2)."""
    setups: Setups = {}
    for file in sorted(runs.glob("*/predict_predictions.json")):
        if name := RUN_NAME.fullmatch(file.parent.name):
            answers = json.loads(file.read_text(encoding="utf-8"))
            scores = question_scores(answers, questions, version_2=has_unanswerable(questions))
            setups.setdefault(name[1], {})[int(name[2])] = 100.0 * np.array(scores)
    if setups and has_unanswerable(questions):
        no_answers = {question.id: "" for question in questions}
        scores = question_scores(no_answers, questions, version_2=True)
        seeds = {seed for of_setup in setups.values() for seed in of_setup}
        setups["no_answer"] = {seed: 100.0 * np.array(scores) for seed in seeds}
    return setups


def has_unanswerable(questions: list[Question]) -> bool:
    """Return whether the questions are those of SQuAD v2."""
    return any(not question.answer_texts for question in questions)


def seeds_of(name: str, setups: Setups) -> list[int]:
    """Return the seeds of a setup, or those that both setups of a pair FIRST:SECOND have."""
    return sorted(set.intersection(*({*setups[setup]} for setup in name.split(":"))))


def by_source(name: str, setups: Setups, questions: list[Question]) -> list[Scores]:
    """Return scores of a setup, or differences of a pair FIRST:SECOND, on all, translated and native questions.

    With SQuAD v2 also on answerable and unanswerable ones. A source without questions is left out.
    """
    first, _, second = name.partition(":")
    seeds = seeds_of(name, setups)
    scores = np.stack([setups[first][seed] - (setups[second][seed] if second else 0.0) for seed in seeds])
    means = scores.mean(axis=0)
    is_native = np.array([question.title in FAQUAD_ARTICLES for question in questions])
    rows = []
    sources = {"all": is_native | True, "SQuAD-pt": ~is_native, "FaQuAD": is_native}
    if has_unanswerable(questions):
        is_answerable = np.array([bool(question.answer_texts) for question in questions])
        sources |= {"answerable": is_answerable, "unanswerable": ~is_answerable}
    for source, mask in sources.items():
        if not mask.any():
            continue
        contexts = context_numbers([question.context for question, taken in zip(questions, mask, strict=True) if taken])
        resampled = resampled_means(means[mask], contexts)
        exact, f1 = (estimate(means[mask, score].mean(), resampled[:, score]) for score in (0, 1))
        by_seed = scores[:, mask].mean(axis=1)
        deviations = by_seed.std(axis=0, ddof=1).tolist() if len(seeds) > 1 else [None, None]
        contexts_taken = max(contexts) + 1
        rows.append(
            Scores(name, source, int(mask.sum()), contexts_taken, seeds, f1, deviations[1], exact, deviations[0])
        )
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])

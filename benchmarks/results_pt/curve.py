#!/usr/bin/env python
"""Draw F1 by the number of training questions, a line for each setup, from the files that compare.py --json writes.

    python benchmarks/results_pt/curve.py 250=COMPARED.json 1000=COMPARED.json 5114=COMPARED.json PICTURE.png

Bars are 95 % intervals over contexts. A setup that one of the files lacks is left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import msgspec
from compare import Scores
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from adapter_qa.data.bootstrap import Estimate
from adapter_qa.reporting.figures import COLOURS, DASHES, MARKERS, STYLE, WIDTH, as_png

DODGE = 1.04  # factor between the points of two setups

Curves = dict[str, dict[int, Estimate]]  # F1 by setup and number of training questions


def main(argv: Sequence[str]) -> None:
    """Read the files and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="QUESTIONS=FILE", help="number of questions, and their comparison")
    parser.add_argument("picture", type=Path, metavar="PICTURE")
    options = parser.parse_args(argv)
    files: dict[int, Path] = {}
    for word in options.files:
        questions, _, file = word.partition("=")
        if not questions.isdecimal() or int(questions) in (0, *files) or not Path(file).is_file():
            parser.error(f"{word}: give a number of questions, each once, =, and a file that compare.py --json wrote")
        files[int(questions)] = Path(file)
    curves = read_curves(files)
    if not 0 < len(curves) <= len(COLOURS):
        parser.error(
            f"the files have {len(curves)} setups in common; at least 1 and at most {len(COLOURS)} can be drawn"
        )
    options.picture.write_bytes(as_png(curve_figure(curves)))


def read_curves(files: dict[int, Path]) -> Curves:
    """Return F1 on all test questions of the setups that all files have."""
    curves: Curves = {}
    for questions, file in sorted(files.items()):
        for row in msgspec.json.decode(file.read_bytes(), type=list[Scores]):
            if row.source == "all" and ":" not in row.setups:
                curves.setdefault(row.setups, {})[questions] = row.f1
    return {setup: curve for setup, curve in curves.items() if len(curve) == len(files)}


@matplotlib.rc_context(STYLE)
def curve_figure(curves: Curves) -> Figure:
    """Draw a line for each setup; points of one number of questions stand side by side."""
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    numbers = sorted({number for curve in curves.values() for number in curve})
    for index, (setup, curve) in enumerate(curves.items()):
        shift = DODGE ** (index - (len(curves) - 1) / 2)
        estimates = [curve[number] for number in numbers]
        scores = [score for score, _, _ in estimates]
        bars = [[score - low for score, low, _ in estimates], [high - score for score, _, high in estimates]]
        style: dict[str, Any] = {"color": COLOURS[index], "marker": MARKERS[index], "linestyle": DASHES[index]}
        axes.errorbar([number * shift for number in numbers], scores, yerr=bars, capsize=2, label=setup, **style)
    axes.set(xscale="log", xlabel="training questions", ylabel="F1 (%)", xticks=numbers)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    main(sys.argv[1:])

#!/usr/bin/env python
"""Prints a table of question answering runs from their run.json: demo_table.py RUN [RUN ...]"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(folders: list[str]) -> int:
    """One line a run."""
    head = f"{'run':<12}{'setup':<28}{'EM':>7}{'F1':>8}{'added':>12}{'trainable':>12}{'seconds':>9}"
    print(head)
    for folder in folders:
        run = json.loads((Path(folder) / "run.json").read_text(encoding="utf-8"))
        scores, table = run["metrics"]["eval"], run["parameters"]
        trained = table["trainable"] if "train" in run["metrics"] else 0
        print(
            f"{Path(folder).name:<12}{run['setup']:<28}{scores['eval_exact']:>7.2f}{scores['eval_f1']:>8.2f}"
            f"{table['added']:>12,}{trained:>12,}{run['times']['seconds']:>9.0f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

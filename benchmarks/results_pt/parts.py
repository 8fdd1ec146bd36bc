#!/usr/bin/env python
"""Divide a prepared training file into a part to train on and a part to choose with; no article is in both.

`python benchmarks/results_pt/parts.py train_pt.json PARTS` writes PARTS/train.json and PARTS/choose.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from adapter_qa.data.partition import group_names, set_aside
from adapter_qa.data.squad import read_squad

CHOOSING_SHARE = 0.12
SEED = 4


def main(file: str, out: str) -> None:
    """Write the two parts; their records are those of the file."""
    questions = read_squad(file, need_answers=True)
    chosen = set_aside(group_names(questions, "article"), CHOOSING_SHARE, SEED)
    contexts = {question.context for question, is_chosen in zip(questions, chosen, strict=True) if is_chosen}
    records = json.loads(Path(file).read_text(encoding="utf-8"))["data"]
    parts = {
        "train": [record for record in records if record["context"] not in contexts],
        "choose": [record for record, is_chosen in zip(records, chosen, strict=True) if is_chosen],
    }
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        text = json.dumps({"data": part}, ensure_ascii=False)
        (Path(out) / f"{name}.json").write_text(text, encoding="utf-8")
        print(f"{name}: {len(part):,} questions, {len({record['title'] for record in part})} articles")


if __name__ == "__main__":
    main(*sys.argv[1:])

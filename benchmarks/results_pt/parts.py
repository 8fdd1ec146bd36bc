#!/usr/bin/env python
"""Divide prepared files into parts to train on, to choose with and to test on; no article is in two of them.

    python prepare_squad_pt.py FILE --output_dir PREPARED     # for each file
    python benchmarks/results_pt/parts.py PREPARED/pt_squad_v1_pt_sample.json PREPARED/pt_squad_v2_pt.json \
        PREPARED/pt_faquad_train.json PARTS --source PREPARED/xquad_en.json

writes PARTS/{train,choose,test}.json, whose questions all have an answer, and the same in PARTS/v2 with the
unanswerable questions of the same articles. PARTS/next.json has the training questions 251 to 500, PARTS/source.json
the questions of --source, in English for example, without those of the articles to choose with and to test on, and
PARTS/joint.json these and the training questions 1 to 500.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from adapter_qa.data.partition import set_aside

FAQUAD_ARTICLES = frozenset({"UFMS", "MEC", "PESQUISA", "TCC"})
TEST_ARTICLES = FAQUAD_ARTICLES | {
    *("Montana", "Spectre_(2015_film)"),  # SQuAD v1.1
    *("Normans", "Oxygen", "Rhine", "Warsaw", "Pharmacy", "Imperialism", "Huguenot"),  # SQuAD v2.0
}
CHOOSING_SHARE = 0.12  # of the questions that are not in the test part
CHOOSING_SEED = 4
FEW = 250  # the shortest training of the measurement
ORDER_SEED = 0  # of the training questions; a run on fewer of them takes the first

Record = dict[str, Any]


def main(files: list[str], out: Path, source: str | None = None) -> None:
    """Read the files, divide their articles and write both sets of parts, and the questions of the source."""
    records = [record for file in files for record in read(file)]
    answerable = divide([record for record in records if begins_at_its_offset(record)])
    write(answerable, out)
    write_part(answerable["train"][FEW : 2 * FEW], out / "next.json")
    unanswerable = [record for record in records if not record["answers"]["text"]]
    write(with_unanswerable(answerable, unanswerable), out / "v2")
    if source is not None:
        held_out = {record["title"] for name in ("choose", "test") for record in answerable[name]}
        others = [record for record in read(source) if record["title"] not in held_out]
        write_part(others, out / "source.json")
        renamed = [{**record, "id": f"source-{record['id']}"} for record in others]  # a translation keeps its id
        write_part(renamed + answerable["train"][: 2 * FEW], out / "joint.json")


def read(file: str) -> list[Record]:
    """Return the questions of a prepared file."""
    records: list[Record] = json.loads(Path(file).read_text(encoding="utf-8"))["data"]
    return records


def begins_at_its_offset(record: Record) -> bool:
    """Return whether a question has an answer whose first character stands at its offset."""
    answers = record["answers"]
    return bool(answers["text"]) and record["context"].startswith(answers["text"][0][0], answers["answer_start"][0])


def divide(records: list[Record]) -> dict[str, list[Record]]:
    """Divide questions by their article; a context that is in the test part is in no other part."""
    test = [record for record in records if record["title"] in TEST_ARTICLES]
    tested = {record["context"] for record in test}
    others = [record for record in records if record["title"] not in TEST_ARTICLES and record["context"] not in tested]
    random.Random(ORDER_SEED).shuffle(others)
    is_chosen = set_aside([record["title"] for record in others], CHOOSING_SHARE, CHOOSING_SEED)
    return {
        "train": [record for record, chosen in zip(others, is_chosen, strict=True) if not chosen],
        "choose": [record for record, chosen in zip(others, is_chosen, strict=True) if chosen],
        "test": test,
    }


def with_unanswerable(parts: dict[str, list[Record]], records: list[Record]) -> dict[str, list[Record]]:
    """Add unanswerable questions to the parts that have their articles."""
    extended = {}
    for name, part in parts.items():
        titles = {record["title"] for record in part}
        extended[name] = part + [record for record in records if record["title"] in titles]
        if name == "train":
            random.Random(ORDER_SEED).shuffle(extended[name])
    return extended


def defects(records: list[Record]) -> dict[str, int]:
    """Count the answers that no reader would give: they begin inside a word, or have no letter and no digit."""
    answered = [record for record in records if record["answers"]["text"]]
    golds = [(record, record["answers"]["text"][0], record["answers"]["answer_start"][0]) for record in answered]
    inside = [text for record, text, start in golds if start and (record["context"][start - 1] + text[0]).isalnum()]
    return {
        "answers": len(golds),
        "begin_inside_a_word": len(inside),
        "punctuation_only": sum(not any(char.isalnum() for char in text) for _, text, _ in golds),
    }


def write(parts: dict[str, list[Record]], folder: Path) -> None:
    """Write each part as a file and print how large it is; count the defects of the answers in defects.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        write_part(part, folder / f"{name}.json")
    counted = {name: defects(part) for name, part in parts.items()}
    (folder / "defects.json").write_text(json.dumps(counted, indent=2) + "\n", encoding="utf-8")


def write_part(part: list[Record], path: Path) -> None:
    """Write questions to a file and print how many they are."""
    path.write_text(json.dumps({"data": part}, ensure_ascii=False), encoding="utf-8")
    print(f"{path}: {len(part):,} questions, {len({record['title'] for record in part})} articles")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE", help="prepared SQuAD files")
    parser.add_argument("folder", type=Path, help="of the parts")
    parser.add_argument("--source", metavar="FILE", help="prepared SQuAD file to train a further adapter on")
    given = parser.parse_args()
    main(given.files, given.folder, given.source)

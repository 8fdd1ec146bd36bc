"""Short names of runs for tables, made from the ends of their folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from adapter_qa.reporting.runs import Run

DERIVED_NAME = re.compile(r"lr[^_]+_bs\d")  # as runs.output_dir makes it


def short_names(runs: Sequence[Run]) -> list[str]:
    """Return the shortest ends of the runs' folders that differ, with derived names cut to the parts that differ."""
    ends = shortest_ends([str(run.folder) for run in runs])
    names = []
    for run, end in zip(runs, ends, strict=True):
        parent, _, name = end.rpartition("/")
        if DERIVED_NAME.match(name):
            siblings = [path.rpartition("/")[2] for path in ends if path != end and path.rpartition("/")[0] == parent]
            others = [_name_parts(run, sibling) for sibling in siblings if DERIVED_NAME.match(sibling)]
            name = _shorten_derived(_name_parts(run, name), others)
        names.append(f"{parent}/{name}" if parent else name)
    return names if len({*names}) == len({*ends}) else ends


def _shorten_derived(parts: list[str], siblings: list[list[str]]) -> str:
    """Return the first part of a name, the learning rate, and each further one that tells it from siblings."""

    def has(sibling: list[str], part: str) -> bool:
        return part in sibling or part.startswith(sibling[-2])  # a name that is too long was cut before its last part

    name, end = parts[0], 0
    siblings = [sibling for sibling in siblings if has(sibling, parts[0])]
    for index, part in enumerate(parts):
        if not all(has(sibling, part) for sibling in siblings):
            name += f"_{part}" if index == end + 1 else f"…{part}"
            end = index
            siblings = [sibling for sibling in siblings if has(sibling, part)]
    return name


def _name_parts(run: Run, name: str) -> list[str]:
    """Split a derived name into options with their values."""
    known = sorted((option for option in run.document.options if "_" in option), key=len, reverse=True)
    return re.findall(rf"(?:{'|'.join(map(re.escape, known))})[^_]*|[^_]+", name)


def shortest_ends(paths: Sequence[str]) -> list[str]:
    """Return for each path its last parts, as few as tell it from the other paths."""
    ends = []
    for path in paths:
        parts = PurePath(path).parts
        others = [PurePath(other).parts for other in set(paths) - {path}]
        count = next((n for n in range(1, len(parts)) if not any(o[-n:] == parts[-n:] for o in others)), len(parts))
        ends.append(str(PurePath(*parts[-count:])))
    return ends

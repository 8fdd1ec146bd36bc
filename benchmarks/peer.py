#!/usr/bin/env python
"""Runs the ecosystem's run_qa.py as it comes and writes how long its parts took, for `bench_qa.py --peer`.

    python benchmarks/peer.py FOLDER SECONDS.json --model_name_or_path MODEL --do_eval ...

FOLDER holds run_qa.py, trainer_qa.py and utils_qa.py of a checkout (examples/pytorch/question-answering). Two things
stand between the script and itself: a stop watch around what is measured, and, since the metric is a download, a
stand-in for it that scores nothing. A process of its own, because that folder has modules of the same names as ours.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

SECONDS: defaultdict[str, float] = defaultdict(float)


def main(argv: list[str]) -> None:
    """Table of contents."""
    folder, target = Path(argv[0]), Path(argv[1])
    sys.path[0] = str(folder)
    sys.modules["evaluate"] = metric_module()
    import datasets

    theirs: Any = importlib.import_module("utils_qa")
    datasets.Dataset.map = watched("windows", datasets.Dataset.map)
    theirs.postprocess_qa_predictions = watched("answers", theirs.postprocess_qa_predictions)
    sys.argv = [str(folder / "run_qa.py"), *argv[2:]]
    runpy.run_path(str(folder / "run_qa.py"), run_name="__main__")
    target.write_text(json.dumps(SECONDS))


def metric_module() -> ModuleType:
    """A module named evaluate whose metrics are empty."""
    module = ModuleType("evaluate")
    module.load = lambda *names, **others: SimpleNamespace(compute=lambda **given: {})  # type: ignore[attr-defined]
    return module


def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that adds its time to `SECONDS`."""
    return lambda *args, **others: timed(name, partial(function, *args, **others))


def timed(name: str, work: Callable[[], Any]) -> Any:
    """Does the work and adds its time to `SECONDS`."""
    began = time.perf_counter()
    try:
        return work()
    finally:
        SECONDS[name] += time.perf_counter() - began


if __name__ == "__main__":
    main(sys.argv[1:])

#!/usr/bin/env python
"""Run the adapters library's example run_qa.py and write how long its parts take, for `bench_qa.py --peer`.

    python benchmarks/peer.py FOLDER SECONDS.json --model_name_or_path MODEL --do_eval ...

FOLDER is examples/pytorch/question-answering of a checkout, with run_qa.py, trainer_qa.py and utils_qa.py. The script
is changed in two ways: the measured functions are timed, and its metric, which it would download, is replaced by an
empty one. It runs in a separate process because its modules have the same names as ours.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

SECONDS: defaultdict[str, float] = defaultdict(float)  # by part


def main(argv: list[str]) -> None:
    """Run run_qa.py with timers in it."""
    folder, target = Path(argv[0]), Path(argv[1])
    sys.path[0] = str(folder)
    metrics: Any = ModuleType("evaluate")
    metrics.load = lambda *args, **kwargs: SimpleNamespace(compute=lambda **inputs: {})  # computes nothing
    sys.modules["evaluate"] = metrics
    import datasets

    peer_utils: Any = importlib.import_module("utils_qa")
    datasets.Dataset.map = with_timer("windows", datasets.Dataset.map)
    peer_utils.postprocess_qa_predictions = with_timer("answers", peer_utils.postprocess_qa_predictions)
    sys.argv = [str(folder / "run_qa.py"), *argv[2:]]
    runpy.run_path(str(folder / "run_qa.py"), run_name="__main__")
    target.write_text(json.dumps(SECONDS))


def with_timer(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that adds the time of each call to `SECONDS`."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            SECONDS[part] += time.perf_counter() - start

    return timed


if __name__ == "__main__":
    main(sys.argv[1:])

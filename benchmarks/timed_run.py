#!/usr/bin/env python
"""Run a training script and write when its steps ended, for `whole_runs.py`.

    python benchmarks/timed_run.py '{"target": "times.json"}' SCRIPT --model_name_or_path MODEL --do_train ...

SCRIPT is the `run_qa_adapter.py` of any version of this project, or the adapters library's example `run_qa.py`. All of
them train with `transformers.Trainer`, so the same timers in that class measure them alike. `run_qa.py` is changed in
three ways: two of its functions are timed; its metric, which it would download, is replaced by an empty one; with
"fusion" it trains the library's fusion. Each run is a process because modules of the scripts have the same names.
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

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import Trainer, TrainerCallback


class Timer(TrainerCallback):
    """Measures a run.

    Args:
        profile_after: number of steps after which the profile of the remaining ones begins; None: no profile.

    Attributes:
        step_ends: seconds since the start of the training at which each optimizer step ended.
        step_lengths: for each step the tokens of its windows, without padding.
        evaluations: of each: its seconds, and the lengths of its windows.
        seconds: by part: windows and answers, of run_qa.py only.
        operators: microseconds by operator.
    """

    def __init__(self, profile_after: int | None) -> None:
        self.profile_after = profile_after
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self.profiler = profile(activities=activities)
        self.start = 0.0
        self.lengths: list[int] = []  # of windows since the last step or evaluation
        self.step_ends: list[float] = []
        self.step_lengths: list[list[int]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.operators: dict[str, float] = {}

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Record the end of a step and its windows."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.step_ends.append(time.perf_counter() - self.start)
        self.step_lengths.append(self.take_lengths())
        if len(self.step_ends) == self.profile_after:
            self.profiler.start()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Read the profile."""
        if self.profile_after is not None:
            self.profiler.stop()
            for event in self.profiler.key_averages():
                is_gpu = torch.cuda.is_available()
                self.operators[event.key] = event.self_device_time_total if is_gpu else event.self_cpu_time_total

    def take_lengths(self) -> list[int]:
        """Return the lengths of the windows since the last call."""
        lengths, self.lengths = self.lengths, []
        return lengths

    def attach(self) -> None:
        """Measure every trainer of this process."""
        make, prepare, evaluate = Trainer.__init__, Trainer._prepare_inputs, Trainer.evaluation_loop

        def make_timed(trainer: Any, *args: Any, **kwargs: Any) -> None:
            make(trainer, *args, **kwargs)
            trainer.add_callback(self)

        def prepare_counted(trainer: Any, inputs: dict[str, Any]) -> Any:
            self.lengths += inputs["attention_mask"].sum(1).tolist()
            return prepare(trainer, inputs)

        def evaluate_timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            output = evaluate(*args, **kwargs)
            self.evaluations.append({"seconds": time.perf_counter() - start, "lengths": self.take_lengths()})
            return output

        Trainer.__init__, Trainer._prepare_inputs, Trainer.evaluation_loop = make_timed, prepare_counted, evaluate_timed

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that adds the time of each call to `seconds`."""

        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += time.perf_counter() - start

        return run

    def write(self, path: Path) -> None:
        """Write what was measured, as JSON."""
        names = ("step_ends", "step_lengths", "evaluations", "seconds", "operators")
        path.write_text(json.dumps({name: getattr(self, name) for name in names}))


def main(argv: list[str]) -> None:
    """Run a script with timers in it.

    Args:
        argv: a JSON object, the script, and the script's options. The object has "target", the file to write, and may
            have "profile_after" (see `Timer`) and "fusion": true.
    """
    settings, script = json.loads(argv[0]), Path(argv[1])
    sys.path[0] = str(script.parent)  # in place of this folder
    timer = Timer(settings.get("profile_after"))
    timer.attach()
    if script.name == "run_qa.py":
        prepare_peer(timer, fusion=settings.get("fusion", False))
    sys.argv = [str(script), *argv[2:]]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as ending:
        if ending.code:
            raise
    timer.write(Path(settings["target"]))


def prepare_peer(timer: Timer, *, fusion: bool) -> None:
    """Time parts of run_qa.py, give it an empty metric, and with `fusion` adapters of the library's fusion."""
    import adapters
    import datasets

    metrics: Any = ModuleType("evaluate")
    metrics.load = lambda *args, **kwargs: SimpleNamespace(compute=lambda **inputs: {})  # computes nothing
    sys.modules["evaluate"] = metrics
    peer_utils: Any = importlib.import_module("utils_qa")
    datasets.Dataset.map = timer.timed("windows", datasets.Dataset.map)
    peer_utils.postprocess_qa_predictions = timer.timed("answers", peer_utils.postprocess_qa_predictions)
    if fusion:
        adapters.setup_adapter_training = set_up_fusion


def set_up_fusion(model: Any, *args: Any, **kwargs: Any) -> None:
    """Add Stack(mlm, Fuse(qa, ner)) of new adapters as `FUSION_OPTIONS` of `whole_runs.py` do, by the library alone."""
    from adapters import AdapterConfig
    from adapters.composition import Fuse, Stack

    common = {"non_linearity": "gelu", "leave_out": [model.config.num_hidden_layers - 1]}
    model.add_adapter("mlm", AdapterConfig.load("pfeiffer+inv", reduction_factor=2, **common))
    for name in ("qa", "ner"):
        model.add_adapter(name, AdapterConfig.load("pfeiffer", reduction_factor=16, **common))
    fused = Fuse("qa", "ner")
    model.add_adapter_fusion(fused, "dynamic")
    model.train_adapter_fusion(Stack("mlm", fused))


if __name__ == "__main__":
    main(sys.argv[1:])

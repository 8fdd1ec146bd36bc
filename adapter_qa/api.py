"""Training from Python: the options of a script in a dictionary, its results in an object, its errors as exceptions.

Example:
    from adapter_qa import QuestionAnswerer, train_qa

    result = train_qa({"model_name_or_path": "base", "do_train": True, "train_file": "train.json", "output_dir": "out"})
    print(result.metrics["train"]["train_loss"])
    answer = QuestionAnswerer(result.folder).ask("Onde fica o Pantanal?", "O Pantanal fica no Centro-Oeste.")
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import run_mlm_adapter
import run_ner_adapter
import run_qa_adapter
from adapter_qa.config.parser import ConfigParser
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.core.distributed import process_count
from adapter_qa.core.errors import UserError, raise_if_any
from adapter_qa.core.files import read_json
from adapter_qa.core.process_state import restored_process
from adapter_qa.runs.layout import RUN_FILE, saved_folder
from adapter_qa.runs.lock import released_locks

_RUNNING = threading.Lock()


@dataclass(frozen=True)
class TrainingResult:
    """What a run leaves.

    Attributes:
        folder: the folder of the run; None of a dry run.
        saved: the folder of what was trained; None if nothing was.
        metrics: the metrics by part, "train", "eval" and "predict", as in run.json, e.g. `metrics["eval"]["eval_f1"]`.
        best: the best evaluation, as in run.json; None without evaluations while training.
        was_finished: whether the folder held this run, finished, so that nothing was done.
        resumed_from: the checkpoint from which an interrupted run was resumed.
        record: the content of run.json.
    """

    folder: Path | None
    saved: Path | None
    metrics: Mapping[str, Mapping[str, float]]
    best: Mapping[str, Any] | None
    was_finished: bool
    resumed_from: Path | None
    record: Mapping[str, Any] = field(repr=False)


def train_qa(options: Mapping[str, object]) -> TrainingResult:
    """Run `run_qa_adapter.py` in this process: train, evaluate or predict, with the same results in the same folder.

    A KeyboardInterrupt while a model trains, such as the stop button of a notebook, saves a checkpoint; the same call
    resumes from it. Outside the main thread Python cannot wait for signals.

    Args:
        options: values by name of the option, without dashes: text, numbers, True and False, paths, lists, and
            dictionaries for options that take JSON, with numbers of NumPy and enumerations of the libraries among them.
            None leaves an option out.

    Raises:
        UserError: if there are mistakes in the options or in the data; `problems` has one line for each.
        RunError: if the run fails.
        Interrupted: if a signal came.
    """
    return _train("train_qa", run_qa_adapter, QARunConfig, options)


def train_ner(options: Mapping[str, object]) -> TrainingResult:
    """Run `run_ner_adapter.py` in this process; arguments, result and errors are those of `train_qa`."""
    return _train("train_ner", run_ner_adapter, NERRunConfig, options)


def train_mlm(options: Mapping[str, object]) -> TrainingResult:
    """Run `run_mlm_adapter.py` in this process; arguments, result and errors are those of `train_qa`."""
    return _train("train_mlm", run_mlm_adapter, MLMRunConfig, options)


def _train(function: str, script: ModuleType, config_class: type[Any], options: Mapping[str, object]) -> TrainingResult:
    _check_process(function, options)
    if not _RUNNING.acquire(blocking=False):
        raise UserError(f"{function}: another run is at work in this process; wait for it, or start another process")
    try:
        with released_locks(), restored_process(f"{script.__name__}.py"):
            words = ConfigParser(config_class).words_of(_plain_values(function, options), function)
            record = script.execute(words).record
            gc.collect()  # trainer and model refer to each other, and the next run may need their memory
            document = record.content() if record.folder is None else read_json(record.folder / RUN_FILE)
    finally:
        _RUNNING.release()
    return TrainingResult(
        folder=record.folder,
        saved=saved_folder(record.folder, document["saved"]) if record.folder and "saved" in document else None,
        metrics=document.get("metrics", {}),
        best=document.get("best"),
        was_finished=record.finished,
        resumed_from=record.resume_from,
        record=document,
    )


def _check_process(function: str, options: Mapping[str, object]) -> None:
    """Raise UserError for what needs processes of its own, or another operating system."""
    problems = []
    if sys.platform == "win32":
        problems.append("Windows is not supported; use Linux, macOS or WSL")
    script = f"run_{function.removeprefix('train_')}_adapter.py"
    if process_count() > 1:
        problems.append(f"{function}: is for one process; several start {script} with torchrun")
    if options.get("deepspeed") is not None:
        problems.append(f"{function}: deepspeed needs processes of its own; start {script}")
    raise_if_any(problems)


def _plain_values(function: str, options: Mapping[str, object]) -> dict[str, object]:
    """Return options with the values that YAML and JSON know."""

    def plain(value: object) -> object:
        if isinstance(value, Enum):
            return plain(value.value)
        if value is None or isinstance(value, (str, int, float)):
            return value
        if isinstance(value, (np.bool_, np.integer)):
            return value.item()
        if isinstance(value, np.floating):
            return float(str(value))  # the number that was written, and not that of float32 in all digits
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, Mapping):
            return {plain_key(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        raise TypeError(f"a value of type {type(value).__name__}")

    def plain_key(key: object) -> str:
        if not isinstance(key, str):
            raise TypeError(f"a key of type {type(key).__name__}")
        return key

    plain_values: dict[str, object] = {}
    problems = []
    for name, value in options.items():
        try:
            plain_values[str(name)] = plain(value)
        except TypeError as error:
            allowed = "give text, a number, True, False, a path, a list of them, or a dictionary with keys of text"
            problems.append(f"{function}: {name} has {error}; {allowed}")
    raise_if_any(problems)
    return plain_values

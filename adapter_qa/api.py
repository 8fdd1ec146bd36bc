"""Training from Python: the options of a script in a dictionary, its results in an object, its errors as exceptions.

Example:
    from adapter_qa import QuestionAnswerer, train_qa

    result = train_qa({"model_name_or_path": "base", "do_train": True, "train_file": "train.json", "output_dir": "out"})
    print(result.metrics["train"]["train_loss"])
    answer = QuestionAnswerer(result.folder).ask("Onde fica o Pantanal?", "O Pantanal fica no Centro-Oeste.")
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import run_mlm_adapter
import run_ner_adapter
import run_qa_adapter
from adapter_qa.config.options import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.config.parser import ConfigParser
from adapter_qa.core.distributed import process_count
from adapter_qa.core.errors import UserError, raise_if_any
from adapter_qa.core.files import read_json
from adapter_qa.runs.layout import RUN_FILE
from adapter_qa.runs.lock import released_locks

MIXED_PRECISION = "ACCELERATE_MIXED_PRECISION"  # transformers sets it for a run, and reads it in the next one
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
            dictionaries for options that take JSON. None leaves an option out.

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
        with released_locks(), _restored_process(f"{script.__name__}.py"):
            words = ConfigParser(config_class).words_of(_plain_values(function, options), function)
            record = script.execute(words).record
            gc.collect()  # trainer and model refer to each other, and the next run may need their memory
            document = record.document if record.folder is None else read_json(record.folder / RUN_FILE)
    finally:
        _RUNNING.release()
    return TrainingResult(
        folder=record.folder,
        saved=Path(document["saved"]) if "saved" in document else None,
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
    """Return options with the values that YAML knows."""

    def plain(value: object) -> object:
        if value is None or isinstance(value, (str, Real)):
            return value
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        raise TypeError(type(value).__name__)

    plain_values: dict[str, object] = {}
    problems = []
    for name, value in options.items():
        try:
            plain_values[str(name)] = plain(value)
        except TypeError as error:
            allowed = "give text, a number, True, False, a path, a list, or a dictionary for JSON"
            problems.append(f"{function}: {name} is of type {error}; {allowed}")
    raise_if_any(problems)
    return plain_values


class _Settings(NamedTuple):
    """Settings of torch and transformers that runs change for their process; the defaults are those of a new one."""

    deterministic: bool = False
    cudnn_deterministic: bool = False
    cudnn_benchmark: bool = False
    matmul_precision: str = "none"
    cpu_matmul_precision: str = "none"
    verbosity: int = logging.WARNING

    @classmethod
    def read(cls) -> _Settings:
        """Return the present settings. Import nothing: what is not imported has its defaults."""
        if "transformers" not in sys.modules or "torch" not in sys.modules:
            return cls()
        import torch
        from transformers.utils.logging import get_verbosity

        return cls(
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
            torch.backends.cuda.matmul.fp32_precision,
            torch.backends.mkldnn.matmul.fp32_precision,  # type: ignore[attr-defined]  # the stubs lack it
            get_verbosity(),
        )

    def restore(self) -> None:
        """Set what differs now."""
        now = self.read()
        if now == self:
            return
        import torch
        from transformers.utils.logging import set_verbosity

        torch.use_deterministic_algorithms(self.deterministic)
        torch.backends.cudnn.deterministic = self.cudnn_deterministic
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        if now.matmul_precision != self.matmul_precision:  # transformers has set it, by this attribute
            torch.backends.cuda.matmul.allow_tf32 = self.matmul_precision == "tf32"
        torch.backends.mkldnn.matmul.fp32_precision = self.cpu_matmul_precision  # type: ignore[attr-defined]
        set_verbosity(self.verbosity)


@contextmanager
def _restored_process(script: str) -> Iterator[None]:
    """Undo at the end what a run of a script leaves in its process and would change the next one.

    That is the environment, settings of the libraries, and the state that accelerate shares among its objects.
    """
    environment, argv, settings = dict(os.environ), sys.argv, _Settings.read()
    os.environ.pop(MIXED_PRECISION, None)
    sys.argv = [script]  # errors name the script
    try:
        yield
    finally:
        sys.argv = argv
        for name in {*os.environ} - {*environment}:
            del os.environ[name]
        os.environ.update(environment)
        settings.restore()
        if "accelerate" in sys.modules:
            from accelerate.state import AcceleratorState, GradientState

            AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - there is no public method
            GradientState._reset_state()  # noqa: SLF001

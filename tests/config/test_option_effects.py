"""Every option of the library has the effect that tests/config/option_effects.py names, on each of the three trainers.

The scripts build their data, model and trainer once; a row then gets a trainer of its own, with a copy of the model.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from config.option_effects import DIFFERENT, EFFECTS, Effect, Nothing, Refused, Row, Rows, Unused
from support.questions import make_questions, write_squad
from support.scripts import ROOT, override
from support.trainers import copy_without_dropout
from transformers import ProgressCallback, Trainer, TrainerCallback, training_args
from transformers.trainer_utils import TrainOutput
from transformers.training_args import ParallelMode
from transformers.utils import logging as library_logging

import run_mlm_adapter
import run_ner_adapter
import run_qa_adapter
from adapter_qa.config import parser
from adapter_qa.config.option_effects import REFUSED
from adapter_qa.config.parser import ConfigParser, parse_config
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.config.training_options import LibraryTrainingOptions
from adapter_qa.core.errors import UserError
from adapter_qa.runs.run_document import RunDocument
from adapter_qa.runs.run_record import NEUTRAL_OPTIONS, RunRecord, open_run
from adapter_qa.training import training_args as own_training_args
from adapter_qa.training import workflow
from adapter_qa.training.adapter_trainer import AdapterTrainer
from adapter_qa.training.precision import choose_precision
from adapter_qa.training.training_args import resolve_training_args

SCRIPTS: dict[str, tuple[ModuleType, type[Any]]] = {
    "qa": (run_qa_adapter, QARunConfig),
    "ner": (run_ner_adapter, NERRunConfig),
    "mlm": (run_mlm_adapter, MLMRunConfig),
}
PARSERS: dict[type[Any], ConfigParser[Any]] = {}
SEEN: dict[tuple[str, ...], Any] = {}  # observations of runs without an option, which rows share
NAMES = [option.name for option in fields(LibraryTrainingOptions)]


class StopError(Exception):
    """Ends a script where it would make its trainer."""


@dataclass(frozen=True)
class Bench:
    """A script's data and model.

    Attributes:
        argv: the command line without options under test.
        run: the run as the script began it.
        parts: what the script's `make_trainer` gets after the run.
    """

    script: str
    argv: list[str]
    run: Any
    parts: tuple[Any, ...]

    def parse(self, words: list[str]) -> Any:
        """Return the configuration of a command line."""
        return parse_config(SCRIPTS[self.script][1], words, description="", examples="")


class Case:
    """A run of a bench with other options; its trainer is made when an observation needs it."""

    def __init__(self, bench: Bench, words: list[str]):
        self.bench = bench
        self.config = bench.parse(words)
        self.patch = pytest.MonkeyPatch()

    @cached_property
    def trainer(self) -> AdapterTrainer:
        args = resolve_training_args(self.config.training)
        record = RunRecord(None, RunDocument(status="planned", script=self.bench.script, options={}))
        self.run = replace(self.bench.run, config=self.config, args=args, record=record)
        bundle, *rest = self.bench.parts
        copied = replace(bundle, model=deepcopy(bundle.model))
        trainer: AdapterTrainer = SCRIPTS[self.bench.script][0].make_trainer(self.run, copied, *rest)
        return trainer

    @cached_property
    def trained(self) -> TrainOutput:
        output: TrainOutput = self.trainer.train()
        return output

    @property
    def log(self) -> list[dict[str, Any]]:
        assert self.trained
        return self.trainer.state.log_history

    def layer(self) -> torch.nn.Module:
        """Return the first layer of the encoder."""
        model: Any = self.trainer.model
        layer: torch.nn.Module = model.base_model.encoder.layer[0]
        return layer


# ---------------------------------------------------------------- observations


def batch_sizes(loader: Any) -> list[int]:
    return [len(batch["input_ids"]) for batch in loader]


def first_batches(case: Case) -> list[Any]:
    return [batch["input_ids"].tolist() for batch in case.trainer.get_train_dataloader()]


def count_calls(case: Case, owner: Any, name: str) -> list[Any]:
    """Let a function be counted; return the list that its calls are added to."""
    calls: list[Any] = []
    original = getattr(owner, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return original(*args, **kwargs)

    case.patch.setattr(owner, name, counted)
    return calls


def emptied_caches(case: Case) -> int:
    steps: list[int] = []
    case.patch.setattr(torch.cuda, "empty_cache", lambda: steps.append(case.trainer.state.global_step))
    inside = case.trainer.training_step
    count = 0

    def step(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal count
        before = len(steps)
        loss = inside(*args, **kwargs)
        count += len(steps) - before
        return loss

    case.patch.setattr(case.trainer, "training_step", step)
    assert case.trained
    return count


def schedule(case: Case) -> list[float]:
    """Return the learning rates of four steps as shares of --learning_rate."""
    optimizer = case.trainer.create_optimizer()
    scheduler = case.trainer.create_scheduler(4, optimizer)
    rates = []
    for _ in range(4):
        rates.append(round(scheduler.get_last_lr()[0] / case.trainer.args.learning_rate, 6))
        optimizer.step()
        scheduler.step()
    return rates


def trained_weights(case: Case) -> str:
    assert case.trained
    digest = hashlib.sha256()
    for weight in case.trainer.trained_weights().values():
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()


def evaluations(case: Case) -> list[int]:
    return [entry["step"] for entry in case.log if any(name.startswith("eval_") for name in entry)]


def checkpoints(case: Case) -> list[str]:
    assert case.trained
    return sorted(path.name.removeprefix("checkpoint-") for path in case.trainer.folder.glob("checkpoint-*"))


def curves(case: Case) -> list[str]:
    assert case.trained
    return sorted({path.relative_to(Path.cwd()).parts[0] for path in Path.cwd().rglob("events.*")})


def precision_on_a_gpu(case: Case) -> str:
    case.patch.setattr(torch.accelerator, "is_available", lambda: True)
    case.patch.setattr(torch.cuda, "is_available", lambda: True)
    case.patch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    case.patch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    autocast = choose_precision(case.config.training, None).autocast
    return {"bf16": "bfloat16", "fp16": "float16", "no": "float32"}[autocast]


def tf32_on_a_gpu(case: Case) -> bool:
    case.patch.setattr(training_args, "is_torch_tf32_available", lambda: True)
    assert case.trainer
    return bool(torch.backends.cuda.matmul.allow_tf32)


def process_group(case: Case) -> dict[str, Any]:
    """Return what one of two processes is told before it connects to the other."""
    options: dict[str, Any] = {}

    def connect(**given: Any) -> None:
        options.update(given)
        raise RuntimeError("there is no other process")

    case.patch.setattr(own_training_args, "process_count", lambda: 2)
    case.patch.setattr(training_args, "PartialState", connect)
    case.patch.setattr(torch.accelerator, "is_available", lambda: True)
    with pytest.raises(UserError):
        assert case.trainer
    return options | ({"timeout": options["timeout"].total_seconds()} if "timeout" in options else {})


def verbosity_of_other_processes(case: Case) -> int:
    args = case.trainer.args
    case.patch.setattr(type(args), "should_log", False)
    return int(args.get_process_log_level())


def logs_on_a_second_machine(case: Case) -> bool:
    args = case.trainer.args
    case.patch.setattr(type(args), "local_process_index", 0)
    case.patch.setattr(type(args), "process_index", 1)
    return bool(args.should_log)


def watched_for_overflows(case: Case) -> bool:
    calls = count_calls(case, sys.modules[Trainer.__module__], "DebugUnderflowOverflow")
    assert case.trained
    return bool(calls)


def loads_the_best_weights(case: Case) -> bool:
    calls = count_calls(case, case.trainer, "_load_best_model")
    assert case.trained
    return bool(calls)


def metric_of_the_best_epoch(case: Case) -> str:
    names = ["f1", "exact", "loss", "perplexity", "LOC_recall"]
    case.trainer._determine_best_metric({f"eval_{name}": number for number, name in enumerate(names)}, None)
    return names[int(case.trainer.state.best_metric or 0)]


def first_batch_after_step_1(case: Case) -> int:
    """Return which batch of the epoch a run gets first that resumes from its checkpoint after step 1."""
    case.config = replace(
        case.config,
        training=replace(case.config.training, save_strategy="steps", save_steps=1, save_total_limit=9, max_steps=2),
    )
    order = first_batches(case)
    assert case.trained
    checkpoint = case.trainer.folder / "checkpoint-1"
    del case.trainer
    calls = count_calls(case, case.trainer, "training_step")
    case.trainer.train(resume_from_checkpoint=str(checkpoint))
    return order.index(calls[0][0][1]["input_ids"].tolist())


def stage_of_zero(case: Case) -> int | None:
    if case.config.training.deepspeed is None:
        return None
    config: Any = own_training_args._deepspeed_config(case.config.training)
    stage: int = config["zero_optimization"]["stage"]
    return stage


def ddp(case: Case) -> dict[str, Any]:
    case.patch.setattr(type(case.trainer.args), "parallel_mode", ParallelMode.DISTRIBUTED)
    case.trainer._wrap_model(case.trainer.model)
    return dict(vars(case.trainer.accelerator.ddp_handler))


def pushed(case: Case) -> tuple[Any, ...] | None:
    targets: list[Any] = []
    case.patch.setattr(workflow, "push_finished", lambda record, target: targets.append(target))
    assert case.trainer
    workflow._push_if_asked(case.run)
    return None if not targets else tuple(vars(targets[0]).values())


def forward_passes_of_a_layer(case: Case) -> float:
    count = 0

    def counting(module: torch.nn.Module, *_: object) -> None:
        nonlocal count
        count += module.training

    model: Any = case.layer()
    model.intermediate.register_forward_hook(counting)
    assert case.trained
    return count / case.trainer.state.global_step


def settings_of_checkpointing(case: Case) -> dict[str, Any]:
    assert case.trained
    layer: Any = case.layer()
    settings: dict[str, Any] = layer._gradient_checkpointing_func.keywords
    return settings


def compiler(case: Case) -> tuple[str, str]:
    plugin = case.trainer.accelerator.state.dynamo_plugin
    return plugin.backend.name, plugin.mode


def replaces_a_run(case: Case) -> bool:
    folder = Path.cwd() / "old"
    if not folder.exists():
        open_run(folder, [], "x.py", {"seed": 1}, overwrite=False).begin()
    overwrite = bool(case.config.training.overwrite_output_dir)
    return open_run(folder, [], "x.py", {"seed": 1}, overwrite=overwrite).replaces


def uses(case: Case, name: str) -> bool:
    return any(split.name == name and split.enabled for split in case.config.splits())


OBSERVATIONS: dict[str, Callable[[Case], Any]] = {
    "folder": lambda case: case.trainer.folder.name,
    "replaces a run": replaces_a_run,
    "trains": lambda case: uses(case, "train"),
    "evaluates": lambda case: uses(case, "eval"),
    "predicts": lambda case: uses(case, "predict"),
    "evaluations": evaluations,
    "training batches": lambda case: batch_sizes(case.trainer.get_train_dataloader()),
    "evaluation batches": lambda case: batch_sizes(case.trainer.get_eval_dataloader()),
    "training and evaluation batches": lambda case: (
        batch_sizes(case.trainer.get_train_dataloader()), batch_sizes(case.trainer.get_eval_dataloader())
    ),
    "steps": lambda case: case.trained.global_step,
    "emptied caches": emptied_caches,
    "optimizer": lambda case: type(case.trainer.create_optimizer()).__name__,
    "learning rate": lambda case: case.trainer.create_optimizer().param_groups[0]["lr"],
    "weight decays": lambda case: sorted(
        {group["weight_decay"] for group in case.trainer.create_optimizer().param_groups}
    ),
    "betas": lambda case: case.trainer.create_optimizer().param_groups[0]["betas"],
    "epsilon": lambda case: case.trainer.create_optimizer().param_groups[0]["eps"],
    "trained weights": trained_weights,
    "schedule": schedule,
    "verbosity": lambda case: case.trainer and library_logging.get_verbosity(),
    "verbosity of other processes": verbosity_of_other_processes,
    "logs on a second machine": logs_on_a_second_machine,
    "curves": curves,
    "logged steps": lambda case: [entry["step"] for entry in case.log if "loss" in entry],
    "training loss": lambda case: [entry["loss"] for entry in case.log if "loss" in entry],
    "checkpoints": checkpoints,
    "precision": lambda case: case.trainer.accelerator.mixed_precision,
    "precision on a GPU": precision_on_a_gpu,
    "TF32 on a GPU": tf32_on_a_gpu,
    "dtype of an evaluation": lambda case: (
        case.trainer.evaluate() and str(next(case.trainer.model.parameters()).dtype).removeprefix("torch.")
    ),
    "first batches": first_batches,
    "first batch after step 1": first_batch_after_step_1,
    "process group": process_group,
    "watched for overflows": watched_for_overflows,
    "workers": lambda case: case.trainer.get_train_dataloader().num_workers,
    "prefetched batches": lambda case: case.trainer.get_train_dataloader().prefetch_factor,
    "workers persist": lambda case: case.trainer.get_train_dataloader().persistent_workers,
    "shows progress": lambda case: any(
        isinstance(callback, ProgressCallback) for callback in case.trainer.callback_handler.callbacks
    ),
    "reporters": lambda case: [
        type(callback).__name__
        for callback in case.trainer.callback_handler.callbacks
        if isinstance(callback, TrainerCallback) and "integrations" in type(callback).__module__
    ],
    "names of numbered labels": lambda case: case.config.class_names(),
    "loads the best weights": loads_the_best_weights,
    "metric of the best epoch": metric_of_the_best_epoch,
    "stage of ZeRO": stage_of_zero,
    "grouped by length": lambda case: type(case.trainer._get_train_sampler()).__name__ == "BucketSampler",
    "DDP": ddp,
    "memory is measured": lambda case: any("_mem_" in name for name in case.trained.metrics),
    "pushed": pushed,
    "forward passes of a layer": forward_passes_of_a_layer,
    "settings of checkpointing": settings_of_checkpointing,
    "deterministic algorithms": lambda case: case.trainer and torch.are_deterministic_algorithms_enabled(),
    "compiler": compiler,
    "tokens per second are measured": lambda case: "train_tokens_per_second" in case.trained.metrics,
    "tokens are counted": lambda case: any("num_input_tokens_seen" in entry for entry in case.log),
}  # fmt: skip


# ---------------------------------------------------------------- the bench


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bench]:
    folder = tmp_path_factory.mktemp("bench")
    base = copy_without_dropout(ROOT / "tests" / "fixtures" / "runs_0.1.0" / "base", folder / "base")
    questions = {name: str(write_squad(folder / f"{name}.json", make_questions(8, seed, seed)))
                 for name, seed in (("train", 3), ("dev", 2))}  # fmt: skip
    sentences = folder / "sentences.conll"
    lines = ["Ana B-PER\nnasceu O\nem O\nRecife B-LOC\n" + "e O\n" * number for number in range(8)]
    sentences.write_text("\n".join(lines), encoding="utf-8")
    data = {
        "qa": [*files(questions["train"], questions["dev"]), "--max_seq_length", "64", "--doc_stride", "8"],
        "ner": [*files(str(sentences), str(sentences)), "--max_seq_length", "64"],
        "mlm": [*files(questions["train"], questions["dev"]), "--block_size", "16"],
    }
    made = {}
    for script, words in data.items():
        argv = ["--model_name_or_path", str(base), "--do_train", "--do_eval", *words, "--max_train_samples", "8"]
        argv += ["--max_eval_samples", "4", "--per_device_train_batch_size", "2", "--num_train_epochs", "1"]
        argv += ["--learning_rate", "1e-2", "--use_cpu", "--report_to", "none", "--disable_tqdm", "True"]
        argv += ["--eval_strategy", "no", "--save_strategy", "no"]
        caught: list[Any] = []

        def make_trainer(*parts: Any, caught: list[Any] = caught) -> None:
            caught.extend(parts)
            raise StopError

        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(StopError):
            patch.setattr(SCRIPTS[script][0], "make_trainer", make_trainer)
            SCRIPTS[script][0].main([*argv, "--output_dir", str(folder / script)])
        made[script] = Bench(script, argv, caught[0], tuple(caught[1:]))
    return made


def files(train: str, dev: str) -> list[str]:
    return ["--train_file", train, "--validation_file", dev]


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Work in a folder of its own, and restore what the library sets for a whole process."""
    monkeypatch.chdir(tmp_path)
    verbosity, environment = library_logging.get_verbosity(), dict(os.environ)
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    PARSERS.update({config: ConfigParser(config) for _, config in SCRIPTS.values() if config not in PARSERS})
    monkeypatch.setattr(parser, "ConfigParser", lambda config, *texts: PARSERS[config])  # it takes long to make one
    monkeypatch.setattr(gc, "collect", lambda: 0)  # the library calls it before every training, with much in memory
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "deepspeed" or find_spec(name))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    library_logging.set_verbosity(verbosity)
    os.environ.clear()
    os.environ.update(environment)


def row_of(name: str, script: str) -> Row:
    rows = EFFECTS[name]
    return {"qa": rows.qa, "ner": rows.ner, "mlm": rows.mlm}[script] if isinstance(rows, Rows) else rows


def command_lines(bench: Bench, words: str) -> tuple[list[str], list[str]]:
    """Return the command line without and with an option; ~OPTION leaves out one of the bench's."""
    tested, _, context = words.partition("|")
    dev = bench.argv[bench.argv.index("--validation_file") + 1]
    shared = context.replace("DEV", dev).replace("ds_config", f"{ROOT}/ds_config").split()
    removed = [word[1:] for word in shared if word.startswith("~")]
    argv = override(bench.argv, *removed)
    argv = [*argv[: len(argv) - len(removed)]] if removed else argv
    plain = override([*argv, "--output_dir", "run"], *[word for word in shared if not word.startswith("~")])
    return plain, override(plain, *tested.replace("ds_config", f"{ROOT}/ds_config").split())


def observed(bench: Bench, words: list[str], shows: str) -> Any:
    """Return what is observed of a run with a command line; it gets an empty working folder."""
    environment = dict(os.environ)
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    case = Case(bench, words)
    try:
        with contextlib.chdir(folder):
            return OBSERVATIONS[shows](case)
    finally:
        case.patch.undo()
        os.environ.clear()
        os.environ.update(environment)


# ---------------------------------------------------------------- tests


def test_every_option_has_a_row() -> None:
    assert sorted(EFFECTS) == sorted(NAMES)
    rows = [row_of(name, script) for name in EFFECTS for script in SCRIPTS]
    assert {row.shows for row in rows if isinstance(row, Effect)} == {*OBSERVATIONS}
    assert all(row.reason for row in rows if isinstance(row, Nothing))


def test_earlier_runs_may_have_refused_options() -> None:
    """They had no effect, so the run goes on when they are left out."""
    assert [name for name in REFUSED if not NEUTRAL_OPTIONS.fullmatch(name)] == []


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("name", NAMES)
def test_the_option_has_its_effect(
    name: str, script: str, benches: dict[str, Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    bench, row = benches[script], row_of(name, script)
    match row:
        case Effect():
            plain, changed = command_lines(bench, row.words)
            key = (script, row.shows, *plain)
            if key not in SEEN:
                SEEN[key] = observed(bench, plain, row.shows)
            before, after = SEEN[key], observed(bench, changed, row.shows)
            if isinstance(row.value, dict):
                before, after = ({key: got.get(key) for key in row.value} for got in (before, after))
            assert after != before
            assert row.value is DIFFERENT or after == row.value
        case Refused():
            with pytest.raises(UserError) as caught:
                bench.parse(override([*bench.argv, "--output_dir", "run"], *row.words.split()))
            assert [problem for problem in caught.value.problems if problem.startswith(row.message)]
        case Unused():
            config = bench.parse(override([*bench.argv, "--output_dir", "run"], *row.words.split()))
            resolve_training_args(config.training)
            notes = capsys.readouterr().err.splitlines()
            assert [note for note in notes if note.startswith(f"note: {row.note}")]
        case Nothing():
            assert row.reason

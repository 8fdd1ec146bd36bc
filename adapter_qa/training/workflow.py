"""A training as the doors order it: callbacks, the frozen adapters kept, resuming, the record of what came of it."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import EarlyStoppingCallback, PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback, set_seed

from adapter_qa.config.options import ModelOptions, TrainingOptions
from adapter_qa.core.distributed import on_main_process
from adapter_qa.core.errors import Interrupted, ReportedError, UserError
from adapter_qa.core.files import fsync_path, write_json
from adapter_qa.core.messages import log_note, print_main
from adapter_qa.core.resource_errors import report_resource_errors
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.base_model import load_model, quiet_libraries, weights_fingerprint
from adapter_qa.models.build import build_setup, check_setup, format_table, frozen_adapters, parameter_table, save_setup
from adapter_qa.models.saved_adapters import FULL_FILE
from adapter_qa.models.weights import check_states
from adapter_qa.runs.checkpoints import checkpoint_path, discard, empty_aside, remove_leftovers, rotate
from adapter_qa.runs.hub import push_finished
from adapter_qa.runs.model_card import write_card
from adapter_qa.runs.output_dir import derived_output_dir
from adapter_qa.runs.run_record import RunRecord, open_run, versions
from adapter_qa.training.adapter_trainer import AdapterTrainer
from adapter_qa.training.training_args import TrainerArguments, as_record, resolve_training_args

FROZEN_FILE = "frozen.safetensors"


class HistoryToRecord(TrainerCallback):
    """Keeps run.json up to date with the metrics of every evaluation while a run is under way."""

    def __init__(self, record: RunRecord):
        self.record = record
        self.under_way = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """From here on evaluations belong to the training's history."""
        self.under_way = True

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The evaluation after training is a result, not history."""
        self.under_way = False

    def on_evaluate(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Writes the evaluations so far, best one named."""
        if self.under_way and state.is_world_process_zero:
            self.record.update(**training_history(state))


def training_history(state: Any) -> dict[str, Any]:
    """Evaluations and training losses of a `TrainerState`, and which step was best."""
    evaluations = [entry for entry in state.log_history if any(key.startswith("eval_") for key in entry)]
    losses = [entry for entry in state.log_history if "loss" in entry]
    return {
        "history": evaluations,
        "losses": losses,
        "best": {"step": state.best_global_step, "metric": state.best_metric},
        "steps": state.global_step,
        "epochs": state.epoch,
    }


def run_callbacks(run: TrainerArguments, record: RunRecord) -> list[TrainerCallback]:
    """Early stopping where it is asked for, and the record."""
    callbacks: list[TrainerCallback] = [HistoryToRecord(record)]
    if run.early_stopping_patience is not None and run.do_train:
        callbacks.append(EarlyStoppingCallback(run.early_stopping_patience))
    return callbacks


def save_frozen_adapters(model: PreTrainedModel, folder: Path) -> None:
    """One copy of the frozen adapters beside the checkpoints, which hold only what trains.

    Raises:
        UserError: the run is being resumed and its frozen adapters are not what they were when it began.
    """
    state = frozen_adapters(model)
    path = folder / FROZEN_FILE
    if not state:
        return
    if not path.is_file():
        aside = empty_aside(folder)
        save_file(state, aside / FROZEN_FILE, metadata={"format": "pt"})
        fsync_path(aside / FROZEN_FILE)
        os.replace(aside / FROZEN_FILE, path)
        remove_leftovers(folder)
        return
    try:
        kept = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}); start anew in another --output_dir") from error
    if kept.keys() != state.keys() or not all(torch.equal(kept[name], state[name]) for name in state):
        raise UserError(
            f"{path}: the frozen adapters have changed since this run began; start anew in another --output_dir"
        )


def train(trainer: AdapterTrainer, record: RunRecord) -> None:
    """Trains, resuming where the record says so; the best epoch is in the model afterwards.

    Raises:
        UserError: what a resumed run stands on has changed.
        RunFailure: memory, disk or numbers gave way. run.json says so.
        Interrupted: a signal came, and a checkpoint is saved. run.json says so.
    """
    check_setup(trainer.model, trainer.setup)
    try:
        with report_resource_errors(), trainer.interruption:
            _train(trainer, record)
    except ReportedError as error:
        if trainer.is_world_process_zero():
            with contextlib.suppress(OSError):  # of a full disk, which is being told already
                record.update(status="interrupted" if isinstance(error, Interrupted) else "failed", why=error.problems)
        raise
    check_setup(trainer.model, trainer.setup)


def _train(trainer: AdapterTrainer, record: RunRecord) -> None:
    on_main_process(partial(save_frozen_adapters, trainer.model, trainer.folder))
    resume = str(record.resume_from) if record.resume_from is not None else None
    if record.resume_from is not None:
        on_main_process(partial(check_states, record.resume_from))
        print_main(f"{record.resume_from}: the run goes on from here")
    result = trainer.train(resume_from_checkpoint=resume)
    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    if trainer.is_world_process_zero():
        record.document.setdefault("metrics", {})["train"] = result.metrics
        record.update(**training_history(trainer.state))


def finish(trainer: AdapterTrainer, record: RunRecord) -> None:
    """Marks the run as finished, and completes its card. With --save_total_limit 1 the best checkpoint is the only one
    from then on. Last, what was saved is pushed to the hub, where that is asked for.

    Raises:
        RunFailure: it cannot be pushed; the run is finished all the same.
    """
    record.finish()
    if record.begun and "saved" in record.document:
        write_card(Path(record.document["saved"]), record.document)
    _keep_the_best_alone(trainer)
    assert isinstance(trainer.args, TrainerArguments)
    push_finished(record, trainer.args)


def _keep_the_best_alone(trainer: AdapterTrainer) -> None:
    step, best, limit = trainer.state.global_step, trainer.state.best_global_step, trainer.args.save_total_limit
    if not trainer.args.should_save or trainer.state.best_model_checkpoint is None:
        return
    rotate(trainer.folder, step, best, limit)
    if limit == 1 and best != step:
        discard(checkpoint_path(trainer.folder, step))


BASE_FOLDER = "base"  # in the run's folder: the drawn weights of a --random_init base


@dataclass(frozen=True)
class ModelBundle:
    """A model with its setup, ready to train or to answer.

    Attributes:
        model: with its head, adapters and fusion, frozen as planned.
        table: `composition.parameter_table`.
        facts: what a saved folder needs beside the weights.
    """

    model: PreTrainedModel
    table: dict[str, Any]
    facts: dict[str, Any]


def start_run(
    script: str,
    argv: Sequence[str],
    data: str,
    setup: AdapterSetup | None,
    model: ModelOptions,
    run: TrainingOptions,
    *options: Any,
) -> tuple[TrainerArguments, RunRecord]:
    """Settles the training options, decides the folder, and seeds everything. Nothing is written yet.

    Args:
        script, argv: the command line.
        data: data set name or data file, for the folder's name.
        setup: the setup; None for full fine-tuning.
        model, run: options.
        options: the other option groups, for the record.

    Raises:
        UserError: the folder holds something else, or the library refuses the options.
    """
    quiet_libraries()
    log_note(setup.notes if setup is not None else [])
    settled = resolve_training_args(run)
    if settled.output_dir_is_derived:
        settled.output_dir = str(derived_output_dir(model.model_name_or_path, data, setup, settled, *options))
        settled.logging_dir = str(Path(settled.output_dir) / "runs")
    folder = None if settled.dry_run else Path(str(settled.output_dir))
    asked = as_record(model, *options, settled)
    record = on_main_process(partial(open_run, folder, argv, script, asked, overwrite=settled.overwrite_output_dir))
    set_seed(settled.seed)
    return settled, record


def build(
    record: RunRecord,
    model_options: ModelOptions,
    setup: AdapterSetup | None,
    task: str,
    run: TrainerArguments,
    tokenizer: PreTrainedTokenizerFast | None,
    facts: dict[str, Any],
    labels: list[str] | None = None,
) -> ModelBundle:
    """Loads the base, builds the setup, begins the run, keeps a drawn base, prints and records the table of parameters.

    Args:
        record: the run's record.
        model_options: the base model.
        setup: the setup; None for full fine-tuning.
        task: "qa", "mlm" or "ner".
        run: the training options; a dry run builds shapes only.
        tokenizer: saved beside a drawn base.
        facts: what the door adds to the saved folder's JSON.
        labels: class names, for "ner".
    """
    model = load_model(model_options, task, labels, as_plan=run.dry_run)
    base: dict[str, Any] = {"revision": model_options.model_revision}
    if model_options.random_init:
        base["name_or_path"] = f"../{BASE_FOLDER}"  # relative to the saved folder
    else:
        local = Path(model_options.model_name_or_path)
        base["name_or_path"] = str(local.resolve()) if local.is_dir() else model_options.model_name_or_path
    if record.folder is not None:
        base["fingerprint"] = weights_fingerprint(model)
    if model_options.random_init:
        _save_random_base(record, model, tokenizer)
    if setup is not None:
        build_setup(model, setup)
    on_main_process(record.begin)
    table = parameter_table(model, setup)
    setup_name = str(setup.block) if setup is not None else "full fine-tuning"
    print_main(f"setup: {setup_name}\n{format_table(table)}")
    record.update(setup=setup_name, parameters=table)
    tokenizer_name = model_options.tokenizer_name
    everything = {"base_model": base, "tokenizer": tokenizer_name, "versions": versions(), **facts}
    return ModelBundle(model, table, everything)


def _save_random_base(record: RunRecord, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None) -> None:
    """A drawn base is nowhere else; it is saved before adapters stand in it."""
    on_main_process(record.begin)
    if record.folder is None or not record.begun:
        return
    model.save_pretrained(record.folder / BASE_FOLDER)
    if tokenizer is not None:
        tokenizer.save_pretrained(record.folder / BASE_FOLDER)


def save_results(
    trainer: AdapterTrainer,
    bundle: ModelBundle,
    setup: AdapterSetup | None,
    record: RunRecord,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Saves what was trained: an `adapters-<task>` folder, or for full fine-tuning the whole model in the run's folder.

    All processes call; the one whose folder it is writes.
    """
    with trainer.full_model() as model:
        if record.folder is None or not record.begun:
            return
        if setup is not None:
            target = record.folder / setup.folder_name
            save_setup(model, setup, target, bundle.facts)
        else:
            target = record.folder
            model.save_pretrained(target)
            tokenizer.save_pretrained(target)
            base = {"name_or_path": ".", "revision": "main"}
            facts = {**bundle.facts, "task": "qa", "base_model": base, "tokenizer": None}
            write_json(target / FULL_FILE, {"trainer": facts | {"trained_from": bundle.facts["base_model"]}})
    record.update(saved=str(target))
    write_card(target, record.document)


def record_metrics(trainer: AdapterTrainer, record: RunRecord, split: str, metrics: dict[str, float]) -> None:
    """Prints the metrics of a part of the run and writes them to `<split>_results.json` and run.json."""
    trainer.log_metrics(split, metrics)
    trainer.save_metrics(split, metrics)
    if trainer.is_world_process_zero():
        record.document.setdefault("metrics", {})[split] = metrics
        record.update()


def print_dry_run(bundle: ModelBundle, setup: AdapterSetup | None, counts: dict[str, dict[str, int]]) -> None:
    """The last line of a dry run: one JSON document on stdout."""
    document = {
        "parameters": bundle.table,
        "active_setup": str(bundle.model.active_adapters) if setup is not None else "full fine-tuning",
        **counts,
    }
    print_main(json.dumps(document))


def train_steps(examples: int, run: TrainerArguments) -> int:
    """Optimizer steps of a whole training, as `Trainer` counts them."""
    if run.max_steps > 0 or examples == 0:
        return max(run.max_steps, 0)
    per_batch = run.train_batch_size * run.world_size
    batches = examples // per_batch if run.dataloader_drop_last else math.ceil(examples / per_batch)
    return math.ceil(run.num_train_epochs * max(math.ceil(batches / run.gradient_accumulation_steps), 1))


def eval_steps(examples: int, run: TrainerArguments) -> int:
    """Batches of one evaluation."""
    return math.ceil(examples / (run.eval_batch_size * run.world_size))


def already_finished(record: RunRecord, run: TrainerArguments) -> bool:
    """Whether there is nothing left to train; says so, and pushes what is there where that is asked for.

    Raises:
        RunFailure: it cannot be pushed.
    """
    if record.finished:
        print_main(f"{record.folder}: this run is finished; --overwrite_output_dir does it again")
        push_finished(record, run)
    return record.finished

"""A training as the doors order it: callbacks, the frozen adapters kept, resuming, the record of what came of it."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import EarlyStoppingCallback, PreTrainedModel, TrainerCallback

from adapter_qa.card import write_card
from adapter_qa.checkpoints import (
    checkpoint_path,
    discard,
    empty_aside,
    remove_leftovers,
    rotate,
    to_disk,
)
from adapter_qa.composition import (
    check_setup,
    frozen_adapters,
)
from adapter_qa.errors import ForPeople, Interrupted, UserError
from adapter_qa.failures import explained
from adapter_qa.processes import first_decides, say
from adapter_qa.records import RunRecord
from adapter_qa.setup_trainer import SetupTrainer
from adapter_qa.sharing import push_finished
from adapter_qa.training_arguments import TrainingRun
from adapter_qa.weights import check_states

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
            self.record.note(**training_history(state))


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


def run_callbacks(run: TrainingRun, record: RunRecord) -> list[TrainerCallback]:
    """Early stopping where it is asked for, and the record."""
    callbacks: list[TrainerCallback] = [HistoryToRecord(record)]
    if run.early_stopping_patience is not None and run.do_train:
        callbacks.append(EarlyStoppingCallback(run.early_stopping_patience))
    return callbacks


def keep_frozen(model: PreTrainedModel, folder: Path) -> None:
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
        to_disk(aside / FROZEN_FILE)
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


def train(trainer: SetupTrainer, record: RunRecord) -> None:
    """Trains, resuming where the record says so; the best epoch is in the model afterwards.

    Raises:
        UserError: what a resumed run stands on has changed.
        RunFailure: memory, disk or numbers gave way. run.json says so.
        Interrupted: a signal came, and a checkpoint is saved. run.json says so.
    """
    check_setup(trainer.model, trainer.plan)
    try:
        with explained(), trainer.interruption:
            _train(trainer, record)
    except ForPeople as error:
        if trainer.is_world_process_zero():
            with contextlib.suppress(OSError):  # of a full disk, which is being told already
                record.note(status="interrupted" if isinstance(error, Interrupted) else "failed", why=error.problems)
        raise
    check_setup(trainer.model, trainer.plan)


def _train(trainer: SetupTrainer, record: RunRecord) -> None:
    first_decides(partial(keep_frozen, trainer.model, trainer.folder))
    resume = str(record.resume_from) if record.resume_from is not None else None
    if record.resume_from is not None:
        first_decides(partial(check_states, record.resume_from))
        say(f"{record.resume_from}: the run goes on from here")
    result = trainer.train(resume_from_checkpoint=resume)
    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    if trainer.is_world_process_zero():
        record.document.setdefault("metrics", {})["train"] = result.metrics
        record.note(**training_history(trainer.state))


def finish(trainer: SetupTrainer, record: RunRecord) -> None:
    """Marks the run as finished, and completes its card. With --save_total_limit 1 the best checkpoint is the only one
    from then on. Last, what was saved is pushed to the hub, where that is asked for.

    Raises:
        RunFailure: it cannot be pushed; the run is finished all the same.
    """
    record.finish()
    if record.begun and "saved" in record.document:
        write_card(Path(record.document["saved"]), record.document)
    _keep_the_best_alone(trainer)
    assert isinstance(trainer.args, TrainingRun)
    push_finished(record, trainer.args)


def _keep_the_best_alone(trainer: SetupTrainer) -> None:
    step, best, limit = trainer.state.global_step, trainer.state.best_global_step, trainer.args.save_total_limit
    if not trainer.args.should_save or trainer.state.best_model_checkpoint is None:
        return
    rotate(trainer.folder, step, best, limit)
    if limit == 1 and best != step:
        discard(checkpoint_path(trainer.folder, step))

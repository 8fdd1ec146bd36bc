"""Trainer callbacks that keep run.json up to date."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback

from adapter_qa.core.messages import log_note
from adapter_qa.core.readable import count, metric_label
from adapter_qa.runs.run_document import BestCheckpoint, RunDocument
from adapter_qa.runs.run_record import RunRecord
from adapter_qa.training.training_args import TrainerArguments

# Share of the entropy of the labels. The mean of a tenth of the losses is off by some percent, and little is learned
# above it: a NER adapter with an F1 of 0 stood at 0.87 to 0.96.
LEARNED_LITTLE = 0.85
MIN_STEPS = 100  # no note earlier: a training that has just begun has not learned yet


class RunHistoryCallback(TrainerCallback):
    """Writes the metrics of every evaluation during training to run.json."""

    def __init__(self, record: RunRecord):
        self.record = record
        self.is_training = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to count evaluations as part of the training's history."""
        self.is_training = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop counting, since the evaluation after training is a result and no part of the history."""
        self.is_training = False

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the training's history so far."""
        if self.is_training and state.is_world_process_zero:
            record_history(self.record.document, state)
            self.record.write()


class LabelEntropyCallback(TrainerCallback):
    """Tells once if the training loss stays at the entropy of the labels, which a model reaches without its input.

    It looks at the end of each epoch, and at the losses that were logged in the last tenth of the training.

    Args:
        label_entropy: in nats; see `data.label_entropy`.
        advice: what to try; see `head_rate.advice_on_loss`.
    """

    def __init__(self, label_entropy: float, advice: str):
        self.label_entropy = label_entropy
        self.advice = advice
        self.has_noted = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Print the note if it is due."""
        first = state.global_step - max(state.max_steps // 10, 1)
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry and entry["step"] > first]
        if self.has_noted or state.global_step < MIN_STEPS or not losses or args.label_smoothing_factor:
            return
        loss = sum(losses) / len(losses)
        if loss >= LEARNED_LITTLE * self.label_entropy:
            self.has_noted = True
            log_note(
                [
                    f"the loss is {loss:.2f}, and a model that ignores its input reaches {self.label_entropy:.2f} (the "
                    f"entropy of the labels): {self.advice}"
                ]
            )


def record_history(document: RunDocument, state: TrainerState) -> None:
    """Record evaluations, training losses, the best step, and the steps and epochs so far."""
    best = best_evaluation(state)
    document.history = _evaluations(state)
    document.losses = [_finite(entry) for entry in state.log_history if "loss" in entry]
    document.best = BestCheckpoint(state.best_global_step, None if best is None else best["epoch"], state.best_metric)
    document.steps, document.epochs = state.global_step, state.epoch


def _finite(entry: dict[str, float]) -> dict[str, float | None]:
    """Return a logged step as JSON can hold it: the norm of gradients that overflowed is None."""
    return {name: value if math.isfinite(value) else None for name, value in entry.items()}


def best_evaluation(state: TrainerState) -> dict[str, Any] | None:
    """Return the metrics of the best step, with `epoch` and `step`; None before the first evaluation."""
    return next((entry for entry in _evaluations(state) if entry["step"] == state.best_global_step), None)


def end_of_training(trainer: Trainer) -> str:
    """Return why a training ended, in words."""
    state, args = trainer.state, trainer.args
    stopping = early_stopping(trainer)
    if stopping is not None and state.global_step < state.max_steps:
        metric = metric_label(str(args.metric_for_best_model).removeprefix("eval_"))
        return f"stopped early: no better {metric} for {count(stopping.early_stopping_patience, 'evaluation')}"
    if args.max_steps > 0:
        return f"after --max_steps {args.max_steps}"
    return f"after {count(args.num_train_epochs, 'epoch')}"


def early_stopping(trainer: Trainer) -> EarlyStoppingCallback | None:
    """Return the callback that stops a training early, if there is one."""
    callbacks = trainer.callback_handler.callbacks
    return next((callback for callback in callbacks if isinstance(callback, EarlyStoppingCallback)), None)


def open_tensorboards(trainer: Trainer) -> list[TensorBoardCallback]:
    """Return the callbacks of TensorBoard that have a file open in this process: at most one."""
    callbacks = trainer.callback_handler.callbacks
    found = [callback for callback in callbacks if isinstance(callback, TensorBoardCallback)]
    return [callback for callback in found if callback.tb_writer is not None]


@contextmanager
def closed_tensorboard(trainer: Trainer) -> Iterator[None]:
    """Close the file of TensorBoard at the end.

    The library closes it after a training. A later evaluation opens another one, and an error leaves it open: its
    thread would live as long as the process, with what is not yet written.
    """
    try:
        yield
    finally:
        for callback in open_tensorboards(trainer):
            callback.tb_writer.close()
            callback.tb_writer = None


def _evaluations(state: TrainerState) -> list[dict[str, Any]]:
    return [entry for entry in state.log_history if any(key.startswith("eval_") for key in entry)]


def make_callbacks(args: TrainerArguments, record: RunRecord) -> list[TrainerCallback]:
    """Return the callbacks of a run: its history, and early stopping if a patience is given."""
    callbacks: list[TrainerCallback] = [RunHistoryCallback(record)]
    if args.early_stopping_patience is not None and args.do_train:
        callbacks.append(EarlyStoppingCallback(args.early_stopping_patience))
    return callbacks

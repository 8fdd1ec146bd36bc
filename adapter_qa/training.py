"""The trainer under all three doors: `transformers.Trainer` that knows what of the model trains.

It is not the library's `AdapterTrainer`: that one adds the gradient of the fusion regulariser after the optimizer's
step, where resuming, gradient scaling and ZeRO go wrong, and its exemption of value matrices from decay never matches.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import EarlyStoppingCallback, PreTrainedModel, Trainer, TrainerCallback

from adapter_qa.batching import BucketSampler
from adapter_qa.composition import (
    check_setup,
    frozen_adapters,
    fusion_values,
    hold_frozen,
    load_trainable,
    trainable_state,
)
from adapter_qa.errors import UserError
from adapter_qa.fusion import fusion_regularization
from adapter_qa.planning import Plan
from adapter_qa.records import RunRecord
from adapter_qa.training_arguments import TrainingRun
from adapter_qa.weights import check_states

TRAINED_FILE = "trained.safetensors"
FROZEN_FILE = "frozen.safetensors"


class SetupTrainer(Trainer):
    """`Trainer` for a model with a `Plan`.

    Beyond `Trainer`: the fusion regulariser is part of the training loss; value matrices are exempt from weight decay;
    checkpoints hold the weights that train, and the best epoch's come back whole.

    Args:
        plan: the setup; None for full fine-tuning.
        regularize_fusion: add `fusion.fusion_regularization` to the training loss.
        decay_fusion_values: let weight decay act on the value matrices too. It pulls them to zero, the regulariser
            to the identity.
        bucketed: train on batches of similar length (`BucketSampler`); datasets tell with `lengths()`.
        others: as for `Trainer`.
    """

    model: PreTrainedModel

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        plan: Plan | None,
        regularize_fusion: bool = True,
        decay_fusion_values: bool = False,
        bucketed: bool = True,
        **others: Any,
    ):
        super().__init__(model=model, **others)
        self.bucketed = bucketed
        self.plan = plan
        self.decay_fusion_values = decay_fusion_values
        if plan is not None and self.args.deepspeed is None and (self.args.bf16 or self.args.fp16):
            hold_frozen(model, torch.bfloat16 if self.args.bf16 else torch.float16)
        self.regularized = [weight for _, weight in fusion_values(model)] if regularize_fusion else []
        # The loss is a mean over the batch and is divided by the accumulation steps, whatever the model's signature.
        self.model_accepts_loss_kwargs = False

    def task_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        """Loss of a batch, a scalar, and the model's output."""
        outputs = model(**inputs)
        return outputs.loss, outputs

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """The task's loss; while training, with the fusion regulariser."""
        loss, outputs = self.task_loss(model, inputs)
        if model.training and self.regularized:
            loss = loss + fusion_regularization(self.regularized).to(loss)
        return (loss, outputs) if return_outputs else loss

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Names that weight decay acts on."""
        names = super().get_decay_parameter_names(model)
        if self.decay_fusion_values:
            return names
        values = {name for name, _ in fusion_values(model)}
        return [name for name in names if name not in values]

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if not self.bucketed or self.args.group_by_length:
            return super()._get_train_sampler(train_dataset)
        dataset: Any = self.train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return BucketSampler(dataset.lengths(), self.args.train_batch_size * self.args.world_size, seed)

    def _get_eval_sampler(self, eval_dataset: Dataset[Any]) -> Sampler[int] | None:
        """Evaluation in the order of the data, which predictions are matched with; `Trainer` itself would let
        --group_by_length shuffle it. Several processes share it out in order.
        """
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None  # type: ignore[arg-type]

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        os.makedirs(folder, exist_ok=True)
        save_file(trainable_state(self.model), folder / TRAINED_FILE, metadata={"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        load_trainable(self.model, Path(resume_from_checkpoint) / TRAINED_FILE)

    def _load_best_model(self) -> None:
        load_trainable(self.model, Path(str(self.state.best_model_checkpoint)) / TRAINED_FILE)


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
        save_file(state, path, metadata={"format": "pt"})
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
    """
    check_setup(trainer.model, trainer.plan)
    if trainer.is_world_process_zero():
        keep_frozen(trainer.model, Path(str(trainer.args.output_dir)))
    resume = str(record.resume_from) if record.resume_from is not None else None
    if record.resume_from is not None:
        check_states(record.resume_from)
    result = trainer.train(resume_from_checkpoint=resume)
    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    check_setup(trainer.model, trainer.plan)
    if trainer.is_world_process_zero():
        record.document.setdefault("metrics", {})["train"] = result.metrics
        record.note(**training_history(trainer.state))

"""The trainer that goes on: `transformers.Trainer` whose runs may be killed, stopped or broken off at any moment.

They continue from their last checkpoint as if nothing had been. How checkpoints lie on the disk is `checkpoints`'
subject, and what signals do is `interruption`'s.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PreTrainedModel, Trainer, TrainerCallback
from transformers.integrations.deepspeed import deepspeed_load_checkpoint
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState

from adapter_qa.core.errors import Interrupted, RunError
from adapter_qa.core.files import write_json
from adapter_qa.core.resource_errors import is_out_of_memory, nan_loss_error, write_error_reason
from adapter_qa.core.signals import DeferredSignal, WorkerInit
from adapter_qa.models.build import load_trainable, trainable_state
from adapter_qa.runs.checkpoints import (
    ASIDE,
    checkpoint_error,
    checkpoint_path,
    checkpoint_steps,
    commit,
    empty_aside,
    remove_leftovers,
    rotate,
)
from adapter_qa.training.deepspeed_weights import gather_trained_weights

TRAINED_FILE = "trained.safetensors"
PROGRESS_FILE = "progress.json"
STEPS_BETWEEN_QUESTIONS = 10  # several processes ask each other only so often whether one of them was told to stop


@dataclass(frozen=True)
class Progress:
    """What a checkpoint holds of the training loop beyond `TrainerState`.

    Attributes:
        loss_since_log: sum of the losses of the steps since the last log.
        loss_before: sum of those before.
        logged_step: step of the last log.
        epochs: epochs of the whole training.
        over: no step is to come, by early stopping too.
        seconds: that the training took so far.
    """

    loss_since_log: float
    loss_before: float
    logged_step: int
    epochs: int
    over: bool
    seconds: float = 0.0  # checkpoints of before it was kept have none


class ResumableTrainer(Trainer):
    """`Trainer` whose runs can be broken off.

    Beyond `Trainer`: checkpoints hold the weights that train, and the best epoch's come back whole; a resumed run
    equals an uninterrupted one, its time the time of both; a signal leads to a checkpoint; a loss that is no number
    ends the run, and no checkpoint is written after it.

    Args:
        arguments: as for `Trainer`.
    """

    model: PreTrainedModel

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        # It would hide losses that are no number, and wait for the GPU at every batch.
        self.args.logging_nan_inf_filter = False
        self.interruption = DeferredSignal()
        self.add_callback(LossesTakenUp(self))
        self._start_loop(None)

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(str(self.args.output_dir))

    def _get_dataloader(self, *args: Any, **others: Any) -> DataLoader[Any]:
        prepared: Any = super()._get_dataloader(*args, **others)
        loader = prepared.base_dataloader  # which accelerate has wrapped
        if not isinstance(loader.worker_init_fn, WorkerInit):
            loader.worker_init_fn = WorkerInit(loader.worker_init_fn)
        if self.args.dataloader_persistent_workers:
            # The seed that workers start with is drawn once a process then, which a resumed run would do once more.
            loader.generator = torch.Generator()
        return prepared

    # ---------------------------------------------------------------- the loop

    def _inner_training_loop(
        self,
        batch_size: int | None = None,
        args: Any = None,
        resume_from_checkpoint: str | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        self._start_loop(resume_from_checkpoint)
        return super()._inner_training_loop(batch_size, args, resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _start_loop(self, checkpoint: str | None) -> None:
        self.resumed = read_progress(Path(checkpoint)) if checkpoint is not None else None
        self.seconds_before = self.resumed.seconds if self.resumed is not None else 0.0
        self.began = time.time()
        self.carried_loss = 0.0
        self.bad_step = torch.zeros((), dtype=torch.int64, device=self.args.device)  # 0: none
        self.closed_step = 0
        self.save_is_due = False

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The library's; the time of a resumed training is that of the steps before, too."""
        if "train_runtime" in logs:
            seconds = logs["train_runtime"] + self.seconds_before
            for rate in ("train_samples_per_second", "train_steps_per_second"):
                logs[rate] = round(logs[rate] * logs["train_runtime"] / seconds, 3)
            logs["train_runtime"] = round(seconds, 4)
        super().log(logs, start_time)

    def set_initial_training_values(self, args: Any, dataloader: DataLoader[Any], total_train_batch_size: int) -> Any:
        """The library's, without epochs where the run goes on from a checkpoint of a training that was over."""
        epochs, *others = super().set_initial_training_values(args, dataloader, total_train_batch_size)
        return (0 if self.resumed is not None and self.resumed.over else epochs, *others)

    def take_up_losses(self) -> None:
        """Goes on with the sums of losses that the checkpoint had; `Trainer` has just set them to 0."""
        if self.resumed is None:
            return
        self._total_loss_scalar = self.resumed.loss_before
        self._globalstep_last_logged = self.resumed.logged_step
        self.state.num_train_epochs = self.resumed.epochs
        if self.resumed.over:
            self._total_loss_scalar += self.resumed.loss_since_log
        else:
            self.carried_loss = self.resumed.loss_since_log

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The library's. The first step with a loss that is no number is kept on the device, without waiting for it."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        step = self.state.global_step + 1
        self.bad_step = torch.where((self.bad_step == 0) & ~torch.isfinite(loss), step, self.bad_step)
        if self.carried_loss:
            loss = loss + self.carried_loss  # first of the sum, as it was without the interruption
            self.carried_loss = 0.0
        return loss

    def stop_if_not_a_number(self) -> None:
        """Looks at the losses since the training began.

        Raises:
            RunFailure: one of them was infinite or no number.
        """
        step = int(self.bad_step)
        if step:
            raise self._failure_at(step)

    def _failure_at(self, step: int) -> RunError:
        args = self.args
        return nan_loss_error(
            step, learning_rate=args.learning_rate, max_grad_norm=args.max_grad_norm, fp16=bool(args.fp16)
        )

    def _maybe_log_save_evaluate(
        self, tr_loss: torch.Tensor, grad_norm: Any, model: Any, trial: Any, epoch: int, *others: Any, **named: Any
    ) -> None:
        """The library's, called after every step and again at the end of an epoch, with another rule for saving.

        A checkpoint at the last step of an epoch is written at the epoch's end, so that the evaluation and the log that
        come then are in it; a run that went on from it would do without them. A new best is saved whenever it is found.
        """
        step = self.state.global_step
        at_epoch_end = step == self.closed_step
        self.closed_step = step
        if self.control.should_log or self.control.should_evaluate or self.control.should_save:
            self.stop_if_not_a_number()
        self.save_is_due = self.save_is_due or self.control.should_save
        self.control.should_save = False
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, epoch, *others, **named)
        signal = self._signal(at_epoch_end)
        new_best = self.args.load_best_model_at_end and self.state.best_global_step == step
        last_of_epoch = not at_epoch_end and (self.state.epoch == epoch + 1 or self.control.should_training_stop)
        if last_of_epoch or not (self.save_is_due or new_best or signal):
            return
        self.save_is_due = False
        self.loss_since_log = float(self._nested_gather(tr_loss).mean())
        self._save_checkpoint(model, trial)
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        if signal:
            place = checkpoint_path(self.folder, step)
            raise Interrupted(
                signal, f"{place} is saved; the same command goes on from step {step} of {self.state.max_steps}"
            )

    def _signal(self, at_epoch_end: bool) -> int:
        """The signal that asks for a stop, the same in all processes; 0: none."""
        mine = self.interruption.number or 0
        if self.args.world_size <= 1:
            return mine
        if not at_epoch_end and self.state.global_step % STEPS_BETWEEN_QUESTIONS:
            return 0
        return int(self.accelerator.gather(torch.tensor([mine], device=self.args.device)).max())

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> dict[str, float]:
        """The library's, but a resumed run has been through --eval_on_start, the one that skips the scheduler."""
        if skip_scheduler and self.resumed is not None:
            return {}
        return super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)

    # ---------------------------------------------------------------- checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Writes a checkpoint aside, takes it into use, and removes those that are no longer wanted.

        Raises:
            RunFailure: it cannot be written, or the training has gone wrong; the last checkpoint stays as it is.
        """
        self.stop_if_not_a_number()
        self.store_flos()
        step, best = self.state.global_step, self.state.best_global_step
        if best is not None and best != step and not checkpoint_path(self.folder, best).is_dir():
            best = best if self.args.load_best_model_at_end else None
        self.state.best_model_checkpoint = str(checkpoint_path(self.folder, best)) if best is not None else None
        try:
            self._write_checkpoint(step, best)
        except (OSError, SafetensorError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            reason = write_error_reason(error, self.folder / ASIDE)
            steps = checkpoint_steps(self.folder)
            raise RunError(
                f"{checkpoint_path(self.folder, step)}: cannot be written ({reason}); mend that and give the same "
                f"command, it {f'goes on from checkpoint-{steps[-1]}' if steps else 'begins anew'}"
            ) from error
        finally:
            if self.args.should_save:
                remove_leftovers(self.folder)

    def _write_checkpoint(self, step: int, best: int | None) -> None:
        """All processes write their share; the first one takes the whole into use."""
        if self.args.should_save:
            empty_aside(self.folder)
        self.accelerator.wait_for_everyone()
        aside = self.folder / ASIDE
        state = self.trained_weights()
        if self.args.should_save:
            self._save(str(aside), state)
        self._save_optimizer_and_scheduler(str(aside))
        self._save_scaler(str(aside))
        self._save_rng_state(str(aside))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            states: Any = self.state.stateful_callbacks
            for one in (*self.callback_handler.callbacks, self.control):
                if isinstance(one, ExportableState):
                    states[type(one).__name__] = one.state()
            self.state.save_to_json(str(aside / TRAINER_STATE_NAME))
            (aside / PROGRESS_FILE).write_text(json.dumps(asdict(self.progress())), encoding="utf-8")
            commit(aside, step, best if self.args.load_best_model_at_end else None)
            rotate(self.folder, step, best, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()  # at the end all processes look for the best one

    def progress(self) -> Progress:
        """Where the loop is."""
        return Progress(
            loss_since_log=self.loss_since_log,
            loss_before=self._total_loss_scalar,
            logged_step=self._globalstep_last_logged,
            epochs=self.state.num_train_epochs,
            over=self.control.should_training_stop,
            seconds=self.seconds_before + time.time() - self.began,
        )

    def trained_weights(self) -> dict[str, torch.Tensor]:
        """Every weight that trains by name, whole, on the CPU; all processes must call."""
        return trainable_state(self.model) if self.deepspeed is None else gather_trained_weights(self.model)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Writes the weights that train."""
        assert output_dir is not None and state_dict is not None
        os.makedirs(output_dir, exist_ok=True)
        if not all(bool(weight.isfinite().all()) for weight in state_dict.values()):
            raise self._failure_at(self.state.global_step)
        save_file(state_dict, Path(output_dir) / TRAINED_FILE, metadata={"format": "pt"})

    def _sorted_checkpoints(self, *args: Any, **others: Any) -> list[str]:
        """None for the library to remove: at the end it would remove the one that a run killed later goes on from."""
        return []

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        load_trainable(self.model, Path(resume_from_checkpoint) / TRAINED_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The library's. DeepSpeed has put an optimizer of its own in place of the one that the schedule was made for;
        they share their settings until a checkpoint is loaded, and then the learning rate would stand still.
        """
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.deepspeed is not None and isinstance(self.lr_scheduler, LRScheduler):
            self.lr_scheduler.optimizer = self.deepspeed.optimizer.optimizer

    def compare_trainer_and_checkpoint_args(self, training_args: Any, trainer_state: Any) -> None:
        """Nothing: run.json has all options compared, and the library takes a share of steps for another number."""

    def _load_callback_state(self) -> None:
        """Early stopping counts on; the best checkpoint is beside this one, wherever the folder of the run is now."""
        states: Any = self.state.stateful_callbacks
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback):
                saved = states[type(callback).__name__]["attributes"]
                callback.early_stopping_patience_counter = saved["early_stopping_patience_counter"]
        if self.state.best_model_checkpoint is not None:
            name = Path(self.state.best_model_checkpoint).name
            self.state.best_model_checkpoint = str(self.folder / name)

    def _load_best_model(self) -> None:
        """The best weights, or none.

        Raises:
            RunFailure: their checkpoint is not what was written.
        """
        best = Path(str(self.state.best_model_checkpoint))
        fault = checkpoint_error(best)
        if fault is not None:
            raise RunError(
                f"{best}: {fault}, so that the best weights cannot come back; put it back and give the same command, "
                "or begin anew with --overwrite_output_dir"
            )
        if self.is_deepspeed_enabled:
            deepspeed_load_checkpoint(self.model_wrapped, str(best))
        else:
            load_trainable(self.model, best / TRAINED_FILE)

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        """The library's, each file whole or as it was before: `<split>_results.json`, and all splits' in one."""
        if not self.is_world_process_zero():
            return
        write_json(self.folder / f"{split}_results.json", metrics)
        if combined:
            path = self.folder / "all_results.json"
            before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            write_json(path, before | metrics)


class LossesTakenUp(TrainerCallback):
    """Lets a trainer take up the losses of the run that it goes on with, once the library has set them to 0."""

    def __init__(self, trainer: ResumableTrainer):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The last thing before the first step."""
        self.trainer.take_up_losses()


def read_progress(checkpoint: Path) -> Progress:
    """What `PROGRESS_FILE` of a checkpoint holds."""
    return Progress(**json.loads((checkpoint / PROGRESS_FILE).read_text(encoding="utf-8")))

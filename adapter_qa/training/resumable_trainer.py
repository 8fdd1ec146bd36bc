"""`transformers.Trainer` whose runs may be killed or stopped at any moment and resume bit-identically.

A resumed run equals an uninterrupted one in every weight, log entry and metric. `runs.checkpoints` handles the files
of checkpoints, `core.signals` the signals.

| override | what it changes in `transformers.Trainer` | guarded by (tests/training/test_resuming.py) |
| --- | --- | --- |
| `_get_dataloader` | signals in workers; seed of persistent workers; all rows evaluated | persistent workers resume |
| `_inner_training_loop` | reads the state of the loop from the checkpoint first | every resume test |
| `log` | the training time includes the time before an interruption | time of a resumed run |
| `set_initial_training_values` | no epochs after a training that was over | resume after the last step |
| `training_step` | the first NaN loss is kept on the device | NaN losses |
| `_maybe_log_save_evaluate` | when a checkpoint is saved; stop at a signal | signals; kills (tests/faults) |
| `_evaluate` | no second --eval_on_start | resume with --eval_on_start |
| `_determine_best_metric` | a missing metric is a `RunError` | test_trainer.py |
| `_save_checkpoint` | atomic checkpoints of the weights that train | kills (tests/faults), full disk |
| `_sorted_checkpoints` | the library removes no checkpoint | number of checkpoints |
| `_load_from_checkpoint` | loads the weights that train | every resume test |
| `_load_optimizer_and_scheduler` | learning rate under DeepSpeed | test_processes.py |
| `compare_trainer_and_checkpoint_args` | does nothing: `open_run` compares all options | steps given as shares |
| `_load_callback_state` | patience used so far; a moved folder | early stopping resumes; moved folder |
| `_load_best_model` | verified best weights, head included | best epoch; damaged best checkpoint |
| `save_metrics` | atomic result files | whole runs |

`tests/test_transformers_contract.py` pins the private signatures that these overrides rely on.
"""

from __future__ import annotations

import json
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
from adapter_qa.models.save import load_trainable, trainable_state
from adapter_qa.runs.checkpoints import (
    checkpoint_error,
    checkpoint_steps,
    commit,
    create_temporary,
    remove_leftovers,
    rotate,
)
from adapter_qa.runs.layout import (
    ALL_RESULTS_FILE,
    PROGRESS_FILE,
    TEMPORARY_CHECKPOINT,
    TRAINED_FILE,
    checkpoint_path,
    results_file,
)
from adapter_qa.training.deepspeed_weights import gather_trained_weights

# How often several processes ask each other whether one received a signal. torchrun kills them 30 s after a SIGTERM.
MAX_STEPS_BETWEEN_SIGNAL_CHECKS = 10
SECONDS_BETWEEN_SIGNAL_CHECKS = 5.0


@dataclass(frozen=True)
class Progress:
    """State of the training loop in a checkpoint that `TrainerState` lacks.

    Attributes:
        loss_since_log: sum of the losses of the steps since the last log.
        loss_before: sum of the losses before that log.
        logged_step: step of the last log.
        epochs: epochs of a complete training.
        over: whether the training is over, possibly by early stopping.
        seconds: training time so far.
    """

    loss_since_log: float
    loss_before: float
    logged_step: int
    epochs: int
    over: bool
    seconds: float = 0.0  # missing in checkpoints of version 0.1


class ResumableTrainer(Trainer):
    """`Trainer` whose runs can be interrupted at any moment and resumed.

    Checkpoints hold the weights that train, head included. A signal leads to a checkpoint. A NaN or infinite loss ends
    the run, and no checkpoint is written after it.

    Args:
        kwargs: as for `Trainer`.
    """

    model: PreTrainedModel

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.args.logging_nan_inf_filter = False  # it would hide NaN losses, and wait for the GPU in every step
        self.deferred_signal = DeferredSignal()
        self.add_callback(RestoreLossesCallback(self))
        self._start_loop(None)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return Path(str(self.args.output_dir))

    def _get_dataloader(self, **options: Any) -> Any:  # type: ignore[override]  # the library gives names to all
        drop_last = self.args.dataloader_drop_last
        if not options.get("is_training"):  # the library would drop rows of an evaluation, too
            self.args.dataloader_drop_last = False
        try:
            prepared: Any = super()._get_dataloader(**options)
        finally:
            self.args.dataloader_drop_last = drop_last
        loader = prepared.base_dataloader  # inside accelerate's wrapper
        if not isinstance(loader.worker_init_fn, WorkerInit):
            loader.worker_init_fn = WorkerInit(loader.worker_init_fn)
        if self.args.dataloader_persistent_workers:
            # Persistent workers draw their seed once per process. A resumed run would draw it once more.
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
        self.started_at = time.time()
        self.carried_loss = 0.0
        self.nan_step = torch.zeros((), dtype=torch.int64, device=self.args.device)  # 0: none
        self.last_checked_step = 0
        self.save_is_due = False
        self.steps_done = 0  # by this process, with the evaluations and checkpoints between them
        self.next_signal_check = 0  # compared with `steps_done`

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; the time of a resumed training includes the time before it was interrupted.

        With `start_time` the library adds the time since then and the speed.
        """
        if "train_runtime" in logs:
            seconds = logs["train_runtime"] + self.seconds_before
            rates = ("train_samples_per_second", "train_steps_per_second", "train_tokens_per_second")
            for rate in logs.keys() & rates:
                logs[rate] = round(logs[rate] * logs["train_runtime"] / seconds, 3)
            logs["train_runtime"] = round(seconds, 4)
        super().log(logs, None if start_time is None else start_time - self.seconds_before)

    def set_initial_training_values(self, args: Any, dataloader: DataLoader[Any], total_train_batch_size: int) -> Any:
        """Compute the sizes of the loop; no epochs if the training was over at the checkpoint."""
        epochs, *sizes = super().set_initial_training_values(args, dataloader, total_train_batch_size)
        return (0 if self.resumed is not None and self.resumed.over else epochs, *sizes)

    def restore_losses(self) -> None:
        """Restore the sums of losses from the checkpoint; `Trainer` has just set them to 0."""
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
        """Train on a batch. The first step with a NaN or infinite loss is stored on the device, without waiting."""
        loss = self.forward_and_backward(model, inputs, num_items_in_batch)
        step = self.state.global_step + 1
        self.nan_step = torch.where((self.nan_step == 0) & ~torch.isfinite(loss), step, self.nan_step)
        if self.carried_loss:
            loss = loss + self.carried_loss  # first term of the sum, as in an uninterrupted run
            self.carried_loss = 0.0
        return loss

    def forward_and_backward(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | None
    ) -> torch.Tensor:
        """Add the gradient of a batch's loss to the gradients, and return the loss, detached."""
        return super().training_step(model, inputs, num_items_in_batch)

    def raise_if_nan(self) -> None:
        """Raise RunError if a loss since the training began was NaN or infinite; all processes must call it."""
        step = int(self.accelerator.gather(self.nan_step[None]).max())
        if step:
            raise self._nan_error(step)

    def raise_if_not_finite(self, weights: dict[str, torch.Tensor]) -> None:
        """Raise RunError if a weight that trains is NaN or infinite, which a finite loss may lead to."""
        if not all(bool(weight.isfinite().all()) for weight in weights.values()):
            raise self._nan_error(self.state.global_step)

    def _nan_error(self, step: int) -> RunError:
        args = self.args
        return nan_loss_error(
            step, learning_rate=args.learning_rate, max_grad_norm=args.max_grad_norm, fp16=bool(args.fp16)
        )

    def _maybe_log_save_evaluate(
        self, tr_loss: torch.Tensor, grad_norm: Any, model: Any, trial: Any, epoch: int, *args: Any, **kwargs: Any
    ) -> None:
        """Log, evaluate and save if it is time to. Called after every step and again at the end of an epoch.

        A checkpoint due at the last step of an epoch is written at the epoch's end, so that it includes the evaluation
        and the log of the epoch. A new best model is always saved.
        """
        step = self.state.global_step
        at_epoch_end = step == self.last_checked_step
        self.last_checked_step = step
        if self.control.should_log or self.control.should_evaluate or self.control.should_save:
            self.raise_if_nan()
        self.save_is_due = self.save_is_due or self.control.should_save
        self.control.should_save = False
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, epoch, *args, **kwargs)
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
            path = checkpoint_path(self.folder, step)
            raise Interrupted(
                signal, f"{path} is saved; the same command resumes from step {step} of {self.state.max_steps}"
            )

    def _signal(self, at_epoch_end: bool) -> int:
        """Return the number of a signal that was received, the same in all processes; 0: none."""
        own = self.deferred_signal.number or 0
        if self.args.world_size <= 1:
            return own
        if not at_epoch_end:
            self.steps_done += 1
            if self.steps_done < self.next_signal_check:
                return 0
        step_seconds = (time.time() - self.started_at) / max(self.steps_done, 1)
        values = self.accelerator.gather(torch.tensor([[own, step_seconds]], device=self.args.device))
        signal, slowest = values.max(dim=0).values.tolist()
        self.next_signal_check = self.steps_done + steps_between_signal_checks(slowest)
        return int(signal)

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> dict[str, float]:
        """Evaluate. A resumed run skips --eval_on_start (the call with `skip_scheduler`), which was done before."""
        if skip_scheduler and self.resumed is not None:
            return {}
        metrics: dict[str, float] = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Return whether a model is the best so far.

        Raises:
            RunError: if the evaluation has not computed the metric that decides.
        """
        metric = self.args.metric_for_best_model
        if metric is not None and f"eval_{metric.removeprefix('eval_')}" not in metrics:
            names = ", ".join(sorted(name.removeprefix("eval_") for name in metrics if name.startswith("eval_")))
            raise RunError(f"--metric_for_best_model {metric}: was not computed; choose from {names}")
        is_best: bool = super()._determine_best_metric(metrics, trial)
        if is_best:  # the library sets the step only if checkpoints are saved
            self.state.best_global_step = self.state.global_step
        return is_best

    # ---------------------------------------------------------------- checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint atomically, and remove checkpoints beyond --save_total_limit.

        Raises:
            RunError: if it cannot be written, or a loss was NaN. Earlier checkpoints stay.
        """
        self.raise_if_nan()
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
            reason = write_error_reason(error, self.folder / TEMPORARY_CHECKPOINT)
            steps = checkpoint_steps(self.folder)
            raise RunError(
                f"{checkpoint_path(self.folder, step)}: cannot be written ({reason}); solve that and give the same "
                f"command, it {f'resumes from checkpoint-{steps[-1]}' if steps else 'starts anew'}"
            ) from error
        finally:
            if self.args.should_save:
                remove_leftovers(self.folder)

    def _write_checkpoint(self, step: int, best: int | None) -> None:
        """Write the checkpoint into a temporary folder, each process its part; the main process commits it."""
        if self.args.should_save:
            create_temporary(self.folder)
        self.accelerator.wait_for_everyone()
        temporary = self.folder / TEMPORARY_CHECKPOINT
        state = self.trained_weights()
        self.raise_if_not_finite(state)  # in all processes: they have the same weights
        if self.args.should_save:
            save_file(state, temporary / TRAINED_FILE, metadata={"format": "pt"})
        self._save_optimizer_and_scheduler(str(temporary))
        self._save_scaler(str(temporary))
        self._save_rng_state(str(temporary))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            states: Any = self.state.stateful_callbacks
            for exporter in (*self.callback_handler.callbacks, self.control):
                if isinstance(exporter, ExportableState):
                    states[type(exporter).__name__] = exporter.state()
            self.state.save_to_json(str(temporary / TRAINER_STATE_NAME))
            progress = Progress(
                loss_since_log=self.loss_since_log,
                loss_before=self._total_loss_scalar,
                logged_step=self._globalstep_last_logged,
                epochs=self.state.num_train_epochs,
                over=self.control.should_training_stop,
                seconds=self.seconds_before + time.time() - self.started_at,
            )
            (temporary / PROGRESS_FILE).write_text(json.dumps(asdict(progress)), encoding="utf-8")
            commit(temporary, step, best if self.args.load_best_model_at_end else None)
            rotate(self.folder, step, best, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()  # at the end of the training all processes load the best checkpoint

    def trained_weights(self) -> dict[str, torch.Tensor]:
        """Return every weight that trains by name, unpartitioned, on the CPU. All processes must call."""
        return trainable_state(self.model) if self.deepspeed is None else gather_trained_weights(self.model)

    def _sorted_checkpoints(self, *args: Any, **kwargs: Any) -> list[str]:
        """Return no checkpoints, so that the library does not remove the one that a killed run resumes from."""
        return []

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        load_trainable(self.model, Path(resume_from_checkpoint) / TRAINED_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load both. Under DeepSpeed, connect the schedule to DeepSpeed's own optimizer.

        Loading separates the settings of the two optimizers. Without the connection the learning rate would stay
        constant after it.
        """
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.deepspeed is not None and isinstance(self.lr_scheduler, LRScheduler):
            self.lr_scheduler.optimizer = self.deepspeed.optimizer.optimizer

    def compare_trainer_and_checkpoint_args(self, training_args: Any, trainer_state: Any) -> None:
        """Do nothing: `open_run` compares all options, and the library misreads steps given as shares."""

    def _load_callback_state(self) -> None:
        """Restore the patience counter, and set the path of the best checkpoint, since the folder may have moved."""
        states: Any = self.state.stateful_callbacks
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback):
                saved = states[type(callback).__name__]["attributes"]
                callback.early_stopping_patience_counter = saved["early_stopping_patience_counter"]
        if self.state.best_model_checkpoint is not None:
            self.state.best_model_checkpoint = str(self.folder / Path(self.state.best_model_checkpoint).name)

    def _load_best_model(self) -> None:
        """Load the best weights, or raise RunError if their checkpoint is damaged."""
        best = Path(str(self.state.best_model_checkpoint))
        problem = checkpoint_error(best)
        if problem is not None:
            raise RunError(
                f"{best}: {problem}, so the best weights cannot be loaded; restore it and give the same command, "
                "or start anew with --overwrite_output_dir"
            )
        if self.is_deepspeed_enabled:
            deepspeed_load_checkpoint(self.model_wrapped, str(best))
        else:
            load_trainable(self.model, best / TRAINED_FILE)

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        """Write `<split>_results.json` and all_results.json atomically.

        The latter has the metrics of all splits, so epoch and step are there once more with the split's name.
        """
        if not self.is_world_process_zero():
            return
        write_json(self.folder / results_file(split), metrics)
        if combined:
            path = self.folder / ALL_RESULTS_FILE
            earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            dates = {f"{split}_{name}": metrics[name] for name in ("epoch", "step") if name in metrics}
            write_json(path, earlier | metrics | dates)


class RestoreLossesCallback(TrainerCallback):
    """Restores the losses of a resumed run after the library has set them to 0."""

    def __init__(self, trainer: ResumableTrainer):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore the losses; this event is the last one before the first step."""
        self.trainer.restore_losses()


def steps_between_signal_checks(step_seconds: float) -> int:
    """Return how many steps several processes do before they ask each other for signals again.

    Args:
        step_seconds: mean time of a step in the slowest process.
    """
    shortest = SECONDS_BETWEEN_SIGNAL_CHECKS / MAX_STEPS_BETWEEN_SIGNAL_CHECKS
    return int(max(SECONDS_BETWEEN_SIGNAL_CHECKS / max(step_seconds, shortest), 1))


def read_progress(checkpoint: Path) -> Progress:
    """Read the progress file of a checkpoint."""
    return Progress(**json.loads((checkpoint / PROGRESS_FILE).read_text(encoding="utf-8")))

"""What a run tells while it works: one progress bar, and one line for each evaluation.

Without a terminal a line every minute takes the place of the bar. Lines go to stdout, the bar to stderr.
"""

from __future__ import annotations

import logging
import math
import shutil
import sys
import time
from collections.abc import Callable, Sized
from typing import Any, Never

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from adapter_qa.config.options import greatest_is_best
from adapter_qa.core.messages import print_main
from adapter_qa.core.readable import duration, metric_label, metric_value, metrics_text
from adapter_qa.training.callbacks import early_stopping
from adapter_qa.training.resumable_trainer import ResumableTrainer

SECONDS_BETWEEN_LINES = 60.0  # without a terminal
SECONDS_BETWEEN_UPDATES = 0.2  # of what the bar says of an evaluation
NARROW_COLUMNS = 100  # of a terminal; below it the bar leaves out words
BAR_FORMAT = "{desc} |{bar}| {percentage:.0f}%, {remaining} left{postfix}"


class ProgressLines(TrainerCallback):
    """Prints the bar or its substitute, and a line for each evaluation.

    Args:
        trainer: whose progress is shown.
        items_per_step: examples of the data, such as questions, in one optimizer step.
        unit: their name in the plural.
        clock: returns a time in seconds.
    """

    def __init__(
        self,
        trainer: ResumableTrainer,
        items_per_step: float,
        unit: str,
        clock: Callable[[], float] = time.monotonic,
    ):
        args = trainer.args
        self.early_stopping = early_stopping(trainer)
        self.items_per_step, self.unit, self.clock = items_per_step, unit, clock
        self.keeps_best = bool(args.load_best_model_at_end)
        self.metric = str(args.metric_for_best_model).removeprefix("eval_")
        self.has_bar = args.process_index == 0 and not args.disable_tqdm and sys.stderr.isatty()
        self.logs_steps = args.get_process_log_level() <= logging.INFO
        self.bar: tqdm[Never] | None = None
        self.is_training = False
        self.best: float | None = None
        self.logged: dict[str, float] = {}
        self.first_step = self.evaluated_batches = 0
        self.evaluation_seconds = 0.0
        self.started_at = self.evaluating_since = self.shown_at = clock()

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    # ---------------------------------------------------------------- training

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar, at the step from which a resumed training continues."""
        self.is_training, self.best = True, state.best_metric
        self.first_step, self.started_at, self.evaluation_seconds = state.global_step, self.clock(), 0.0
        self.shown_at = self.started_at
        self._open_bar(state.max_steps, state.global_step)
        self._show_training(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar, or print the line that takes its place."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)
        elif self.clock() - self.shown_at >= SECONDS_BETWEEN_LINES:
            self.shown_at = self.clock()
            left = (self.shown_at - self.started_at) / (state.global_step - self.first_step)
            facts = [
                epoch_text(state.epoch, state.num_train_epochs),
                f"step {state.global_step:,} of {state.max_steps:,}",
                *self._training_facts(state),
                f"{duration(left * (state.max_steps - state.global_step))} left",
            ]
            print_main("  ".join(facts))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the newest training loss; at --log_level info print it as well."""
        if not self.is_training or logs is None or "loss" not in logs:
            return
        self.logged = logs
        self._show_training(state)
        if self.logs_steps:
            norm = f"  gradient norm {logs['grad_norm']:.3g}" if "grad_norm" in logs else ""
            step = f"{epoch_text(state.epoch, state.num_train_epochs)}  step {state.global_step:,}"
            print_main(f"{step}  loss {logs['loss']:.4g}  learning rate {logs['learning_rate']:.3g}{norm}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove the bar."""
        self.is_training = False
        self.close()

    # ---------------------------------------------------------------- evaluation

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Sized | None = None,
        **kwargs: Any,
    ) -> None:
        """Show how much of the evaluation is done."""
        now = self.clock()
        if self.evaluated_batches == 0:
            self.evaluating_since = now
        self.evaluated_batches += 1
        total = len(eval_dataloader) if eval_dataloader is not None else 0
        if not self.is_training:
            if self.bar is None:
                self._open_bar(total, 0)
            if self.bar is not None:
                self.bar.set_description_str("evaluating", refresh=False)
                self.bar.update()
            if self.evaluated_batches == total:
                self.evaluated_batches = 0
                self.close()
        elif self.bar is not None and now - self.shown_at >= SECONDS_BETWEEN_UPDATES:
            self.shown_at = now
            self.bar.set_postfix_str(f"evaluating {self.evaluated_batches}/{total}")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print the line of an evaluation while training; the one after it is a result, which the script prints."""
        if not self.is_training or metrics is None:
            return
        self.evaluated_batches = 0
        self.evaluation_seconds += self.clock() - self.evaluating_since
        where = epoch_text(state.epoch, state.num_train_epochs)
        if not float(state.epoch or 0).is_integer():
            where += f"  step {state.global_step:,}"
        print_main(f"{where}  {metrics_text(metrics, self.metric)}{self._verdict(metrics, state.global_step)}")
        self._show_training(state)

    def _verdict(self, metrics: dict[str, float], step: int) -> str:
        """Return whether an evaluation is the best so far, by the rule of `Trainer`, or how much patience is used."""
        value = metrics.get(f"eval_{self.metric}")
        if value is None or step == 0:  # `Trainer` does not count the evaluation of --eval_on_start
            return ""
        if self.best is None or (value > self.best if greatest_is_best(self.metric) else value < self.best):
            self.best = value
            return "  best" if self.keeps_best else "  best so far, not kept"
        if self.early_stopping is None:
            return ""
        counter = self.early_stopping.early_stopping_patience_counter
        return f"  not better ({counter} of {self.early_stopping.early_stopping_patience})"

    # ---------------------------------------------------------------- the bar

    def _open_bar(self, total: int, done: int) -> None:
        if self.has_bar:
            # Without smoothing the time left includes a share of evaluations.
            self.bar = tqdm(
                total=total, initial=done, bar_format=BAR_FORMAT, smoothing=0, dynamic_ncols=True, leave=False
            )

    def _show_training(self, state: TrainerState) -> None:
        if self.bar is not None:
            self.bar.set_description_str(epoch_text(state.epoch, state.num_train_epochs), refresh=False)
            narrow = shutil.get_terminal_size().columns < NARROW_COLUMNS
            self.bar.set_postfix_str(", ".join(self._training_facts(state, narrow=narrow)))

    def _training_facts(self, state: TrainerState, *, narrow: bool = False) -> list[str]:
        """Return loss, learning rate, speed without evaluations, and the best metric so far."""
        facts = []
        if self.logged:
            facts += [f"loss {metric_value('loss', self.logged['loss'])}", f"lr {self.logged['learning_rate']:.2g}"]
        steps = state.global_step - self.first_step
        seconds = self.clock() - self.started_at - self.evaluation_seconds
        if steps and seconds:
            rate = steps * self.items_per_step / seconds
            facts.append(f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}")
            facts[-1] += "/s" if narrow else f" {self.unit}/s"
        if self.best is not None:
            label = "" if narrow else f"{metric_label(self.metric)} "
            facts.append(f"best {label}{metric_value(self.metric, self.best)}")
        return facts


def epoch_text(done: float | None, epochs: int) -> str:
    """Return the epoch to which a moment belongs, e.g. `epoch 2/5`; the end of an epoch belongs to it.

    `done` are the epochs so far, with fractions; None stands for 0.
    """
    return f"epoch {min(max(math.ceil(done or 0.0), 1), epochs)}/{epochs}"

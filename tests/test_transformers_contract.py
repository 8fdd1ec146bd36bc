"""What the trainers rely on inside `transformers.Trainer`. A change in a new version of the library fails here first.

If a test fails: read how the method changed, adapt the override in the module that the message names, run
tests/training and tests/faults, and update the line here.
"""

from __future__ import annotations

import inspect
import re

import pytest
from transformers import Trainer

import trainer_qa
from adapter_qa.training import adapter_trainer, mlm, ner, resumable_trainer
from adapter_qa.training.adapter_trainer import AdapterTrainer
from adapter_qa.training.mlm import MLMTrainer
from adapter_qa.training.ner import NERTrainer
from adapter_qa.training.resumable_trainer import ResumableTrainer
from trainer_qa import QuestionAnsweringTrainer

# Names of the parameters, * before keyword-only ones; `self` left out.
OVERRIDDEN = {
    "_determine_best_metric": "metrics, trial",
    "_evaluate": "trial, ignore_keys_for_eval, skip_scheduler",
    "_get_dataloader": "dataset, description, batch_size, sampler_fn, is_training, dataloader_key",
    "_get_eval_sampler": "eval_dataset",
    "_get_learning_rate": "",
    "_get_train_sampler": "train_dataset",
    "_inner_training_loop": "batch_size, args, resume_from_checkpoint, trial, ignore_keys_for_eval",
    "_load_best_model": "",
    "_load_callback_state": "",
    "_load_from_checkpoint": "resume_from_checkpoint, model",
    "_load_optimizer_and_scheduler": "checkpoint",
    "_maybe_log_save_evaluate": (
        "tr_loss, grad_norm, model, trial, epoch, ignore_keys_for_eval, start_time, learning_rate"
    ),
    "_save_checkpoint": "model, trial",
    "_sorted_checkpoints": "output_dir, checkpoint_prefix, use_mtime",
    "compare_trainer_and_checkpoint_args": "training_args, trainer_state",
    "compute_loss": "model, inputs, return_outputs, num_items_in_batch",
    "create_optimizer": "",
    "evaluate": "eval_dataset, ignore_keys, metric_key_prefix",
    "evaluation_loop": "dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix",
    "get_batch_samples": "epoch_iterator, num_batches, device",
    "get_decay_parameter_names": "model",
    "log": "logs, start_time",
    "prediction_step": "model, inputs, prediction_loss_only, ignore_keys",
    "save_metrics": "split, metrics, combined",
    "set_initial_training_values": "args, dataloader, total_train_batch_size",
    "training_step": "model, inputs, num_items_in_batch",
}
CALLED = {
    "_nested_gather": "tensors, name",
    "_prepare_inputs": "inputs",
    "_save_optimizer_and_scheduler": "output_dir",
    "_save_rng_state": "output_dir",
    "_save_scaler": "output_dir",
    "compute_loss_context_manager": "",
    "get_optimizer_cls_and_kwargs": "args, model",
    "store_flos": "",
}
TRAINERS = {
    ResumableTrainer: resumable_trainer,
    AdapterTrainer: adapter_trainer,
    QuestionAnsweringTrainer: trainer_qa,
    MLMTrainer: mlm,
    NERTrainer: ner,
}
# Statements of the training loop that the overrides rely on, in the order of the source.
LOOP = (
    "self.compare_trainer_and_checkpoint_args(",
    "self._load_callback_state()",
    "self._total_loss_scalar = 0.0",
    "self._globalstep_last_logged = self.state.global_step",
    "self.callback_handler.on_train_begin(",
    "self._evaluate(trial, ignore_keys_for_eval, skip_scheduler=True)",
    "self.get_batch_samples(",
    "self.training_step(",
    "self.callback_handler.on_step_end(",
    "self._maybe_log_save_evaluate(",
    "self.callback_handler.on_epoch_end(",
    "self._maybe_log_save_evaluate(",
    "self._load_best_model()",
    "self._sorted_checkpoints(",
)


@pytest.mark.parametrize("name", sorted(OVERRIDDEN | CALLED))
def test_signatures_of_private_methods(name: str) -> None:
    parameters = [
        parameter for parameter in inspect.signature(getattr(Trainer, name)).parameters if parameter != "self"
    ]
    users = [module.__name__ for trainer, module in TRAINERS.items() if name in vars(trainer)]
    where = " and ".join(users) or "adapter_qa/training, trainer_qa.py"
    assert ", ".join(parameters) == (OVERRIDDEN | CALLED)[name], (
        f"transformers.Trainer.{name} has other parameters; adapt {where}"
    )


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: trainer.__name__)
def test_every_override_is_pinned_and_documented(trainer: type[Trainer]) -> None:
    overrides = {name for name in vars(trainer) if name in dir(Trainer) and callable(vars(trainer)[name])}
    overrides -= set(dir(object)) | {"__init__"}
    assert overrides <= set(OVERRIDDEN), "pin the signature of the method in OVERRIDDEN"
    documented = set(
        re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.*?) \|", str(TRAINERS[trainer].__doc__), re.M)))
    )
    if trainer in (ResumableTrainer, AdapterTrainer, QuestionAnsweringTrainer):
        assert documented == overrides, "the table in the module's docstring lists the overrides"


def test_the_training_loop_calls_the_overrides_in_the_known_order() -> None:
    source = inspect.getsource(Trainer._inner_training_loop)
    position = 0
    for call in LOOP:
        following = source.find(call, position)
        assert following >= 0, f"transformers.Trainer: the training loop has no {call} after the one before it"
        position = following + 1

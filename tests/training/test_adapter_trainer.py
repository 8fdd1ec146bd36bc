"""Batches in parts (--tokens_per_batch) give the loss and the gradients of whole batches (adapter_trainer.py).

The tests of the other two tasks are in test_ner.py and test_mlm.py, that of two processes is in test_processes.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.split_batches import assert_same_step, train_on
from support.trainers import copy_without_dropout, make_trainer
from torch.utils.data import DataLoader

from adapter_qa.core.errors import RunError
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.window_dataset import WindowDataset
from adapter_qa.models.fusion import fusion_regularization
from adapter_qa.models.parameters import fusion_values
from adapter_qa.models.save import trainable_state
from adapter_qa.training.resumable_trainer import steps_between_signal_checks
from trainer_qa import QuestionAnsweringTrainer

TOKENS = 110  # two or three windows of the tests' data


@pytest.fixture(scope="module")
def base(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model without dropout, which would draw other random numbers for parts of a batch."""
    return copy_without_dropout(tiny_bert, tmp_path_factory.mktemp("base"))


def make_batch(trainer: QuestionAnsweringTrainer, rows: int = 8) -> dict[str, torch.Tensor]:
    """Return a batch of windows of different lengths; two gold spans are unknown, so parts have different weights."""
    assert isinstance(trainer.train_dataset, WindowDataset)
    loader = DataLoader(trainer.train_dataset, rows, collate_fn=trainer.data_collator)
    batch: dict[str, torch.Tensor] = next(iter(loader))
    for name in trainer.label_names:
        batch[name][1:3] = IGNORE_INDEX
    assert len(batch["attention_mask"].sum(1).unique()) > 2
    return batch


@pytest.mark.parametrize(
    ("options", "relative"),
    [
        ({}, 1e-5),
        ({"label_smoothing_factor": 0.3}, 1e-5),
        ({"gradient_checkpointing": True}, 1e-5),
        ({"bf16": True}, 0.01),
    ],
    ids=str,
)
def test_loss_and_gradients_are_those_of_the_whole_batch(
    base: Path, tmp_path: Path, options: dict[str, Any], relative: float
) -> None:
    trainer = make_trainer(base, tmp_path, [], **options)
    for _, weight in fusion_values(trainer.model):
        torch.nn.init.normal_(weight, std=0.3)
    batch = make_batch(trainer)
    whole, parts = train_on(trainer, batch, None), train_on(trainer, batch, TOKENS)
    assert whole.shapes == [tuple(batch["input_ids"].shape)]
    assert len(parts.shapes) > 2
    assert sum(rows for rows, _ in parts.shapes) == len(batch["input_ids"])
    assert all(rows == 1 or rows * length <= TOKENS for rows, length in parts.shapes)
    assert_same_step(parts, whole, relative=relative)
    regularizer = fusion_regularization(trainer.regularized).item() / 2  # two batches are accumulated
    assert regularizer > 0.1 * whole.loss  # so it would be seen if it counted in each part


def test_padding_in_the_loss_stays(base: Path, tmp_path: Path) -> None:
    trainer = make_trainer(base, tmp_path, [])
    trainer.pad_to_max_length = True
    batch = make_batch(trainer)
    length = batch["input_ids"].shape[1]
    parts = train_on(trainer, batch, 3 * length)
    assert parts.shapes == [(3, length), (3, length), (2, length)]
    assert_same_step(parts, train_on(trainer, batch, None))


def test_a_batch_within_the_budget_is_trained_on_as_it_is(tiny_bert: Path, tmp_path: Path) -> None:
    """With dropout, to the last bit."""
    trainer = make_trainer(tiny_bert, tmp_path, [])
    batch = make_batch(trainer)
    whole, parts = train_on(trainer, batch, None), train_on(trainer, batch, batch["input_ids"].numel())
    assert parts.shapes == whole.shapes
    assert parts.loss == whole.loss
    assert all(gradient.equal(whole.gradients[name]) for name, gradient in parts.gradients.items())


def test_a_batch_without_known_spans_has_zero_loss(base: Path, tmp_path: Path) -> None:
    trainer = make_trainer(base, tmp_path, [])
    trainer.regularized = []
    batch = make_batch(trainer)
    for name in trainer.label_names:
        batch[name][:] = IGNORE_INDEX
    step = train_on(trainer, batch, TOKENS)
    assert step.loss == 0
    assert not any(gradient.any() for gradient in step.gradients.values())


def test_trainings_have_the_same_losses(base: Path, tmp_path: Path) -> None:
    """Two batches are accumulated in a step, and one in the last step of an epoch; evaluations stay as they are."""
    losses, weights = {}, {}
    for name, tokens in (("whole", None), ("parts", TOKENS)):
        trainer = make_trainer(
            base, tmp_path / name, [1.0, 2.0], tokens_per_batch=tokens, gradient_accumulation_steps=2, optim="sgd",
            num_train_epochs=2, logging_steps=1, eval_strategy="epoch",
        )  # fmt: skip
        trainer.train()
        log = trainer.state.log_history
        losses[name] = [entry[key] for entry in log for key in ("loss", "eval_loss") if key in entry]
        weights[name] = trainable_state(trainer.model)
    assert len(losses["whole"]) == 6
    assert losses["parts"] == pytest.approx(losses["whole"], abs=1.01e-4)  # logged with four digits
    assert losses["whole"][0] - losses["whole"][-2] > 1e-3
    for name, weight in weights["whole"].items():
        torch.testing.assert_close(weights["parts"][name], weight, rtol=1e-5, atol=1e-6)


def test_a_resumed_training_is_the_same_to_the_last_bit(tiny_bert: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "tokens_per_batch": TOKENS, "eval_strategy": "no", "save_strategy": "steps", "save_steps": 2,
        "save_total_limit": 9, "logging_steps": 4, "num_train_epochs": 2,
    }  # fmt: skip
    results = []
    for checkpoint in (None, str(tmp_path / "checkpoint-2")):
        trainer = make_trainer(tiny_bert, tmp_path, [], **options)
        trainer.train(resume_from_checkpoint=checkpoint)
        results.append(([entry.get("loss") for entry in trainer.state.log_history], trainable_state(trainer.model)))
    assert results[0][0] == results[1][0]
    assert len(results[0][0]) == 2
    assert all(weight.equal(results[1][1][name]) for name, weight in results[0][1].items())


def test_a_nan_in_one_part_ends_the_run(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(base, tmp_path, [], tokens_per_batch=TOKENS, max_steps=1)
    calls = 0

    def task_loss(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> Any:
        nonlocal calls
        calls += 1
        loss = original(model, inputs)
        return loss._replace(total=loss.total * float("nan")) if calls == 1 else loss

    original = trainer.task_loss
    monkeypatch.setattr(trainer, "task_loss", task_loss)
    with pytest.raises(RunError, match=r"^step 1: the loss is infinite or NaN"):
        trainer.train()
    assert calls > 1


@pytest.mark.parametrize(("data_seed", "seed"), [(None, 42), (7, 7)])
def test_all_processes_draw_the_same_order_without_buckets(
    tiny_bert: Path, tmp_path: Path, data_seed: int | None, seed: int
) -> None:
    """Each process has a random generator with a seed of its own, for dropout."""
    trainer: Any = make_trainer(tiny_bert, tmp_path, [], data_seed=data_seed)
    trainer.bucketed = False
    orders = []
    for process in range(2):
        torch.manual_seed(1000 + process)
        orders.append(list(trainer.get_train_dataloader().batch_sampler.sampler))
    size = len(trainer.train_dataset)
    assert orders == [torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()] * 2


def test_a_nan_in_another_process_ends_this_one_with_its_step(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [])
    trainer.raise_if_nan()
    monkeypatch.setattr(trainer.accelerator, "gather", lambda own: torch.cat([own, torch.tensor([3])]))
    with pytest.raises(RunError, match=r"^step 3: the loss is infinite or NaN"):
        trainer.raise_if_nan()


@pytest.mark.parametrize(("seconds", "steps"), [(0.0, 10), (0.5, 10), (0.6, 8), (2.5, 2), (4.0, 1), (60.0, 1)])
def test_processes_ask_each_other_for_signals_every_five_seconds(seconds: float, steps: int) -> None:
    assert steps_between_signal_checks(seconds) == steps


def test_speeds_of_a_resumed_training_count_the_time_before(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [], include_num_input_tokens_seen="all")
    trainer.state.epoch, trainer.state.num_input_tokens_seen, trainer.seconds_before = 1.0, 600, 50.0
    monkeypatch.setattr("transformers.trainer_utils.time.time", lambda: 1010.0)
    logs = {"loss": 1.0}
    trainer.log(logs, start_time=1000.0)
    assert logs["train_tokens_per_second"] == 10  # 600 in 60 seconds

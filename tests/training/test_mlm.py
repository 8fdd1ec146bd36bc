"""The trainer for masked language modelling (adapter_qa/training/mlm.py)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.encoder_configs import config_with_dropout
from support.split_batches import assert_same_step, train_on
from support.trainers import copy_without_dropout
from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast

import run_mlm_adapter
from adapter_qa.config.options import AdapterOptions, MLMTrainingOptions, ModelOptions
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.masked_lm import MaskedLMDataset, make_fixed_mask_dataset, split_into_blocks
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model, load_tokenizer
from adapter_qa.models.build import build_setup
from adapter_qa.models.encoders import ENCODERS
from adapter_qa.models.setup_decisions import resolve_setup
from adapter_qa.training.mlm import MLMTrainer
from adapter_qa.training.training_args import resolve_training_args

TEXTS = ["Ana nasceu em Recife.", "Bruno é pintor.", "Carla nasceu em São Luís e é juíza."]


@pytest.fixture(scope="module")
def tokenizer(tiny_bert: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(ModelOptions(str(tiny_bert)))


@pytest.fixture
def trainer(tmp_path: Path, tiny_bert: Path, tokenizer: PreTrainedTokenizerFast) -> MLMTrainer:
    return make_trainer(tmp_path, tiny_bert, tokenizer)


def make_trainer(folder: Path, base: Path, tokenizer: PreTrainedTokenizerFast) -> MLMTrainer:
    options = ModelOptions(str(base))
    model = load_model(options, "mlm")
    setup = resolve_setup("mlm", read_base_config(options), AdapterOptions(madx2=True))
    assert setup is not None
    build_setup(model, setup)
    training = MLMTrainingOptions(
        output_dir=str(folder), report_to=[], do_train=True, do_eval=True, max_steps=1, eval_strategy="no",
        save_strategy="no", per_device_train_batch_size=4, learning_rate=0.01, use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    args = resolve_training_args(training)
    args.prediction_loss_only = True
    args.label_names = ["labels"]
    blocks = split_into_blocks(TEXTS * 12, tokenizer, 32)
    return MLMTrainer(
        model=model,
        setup=setup,
        tokenizer=tokenizer,
        mlm_probability=0.3,
        args=args,
        train_dataset=MaskedLMDataset(blocks[:-4]),
        eval_dataset=make_fixed_mask_dataset(blocks[-4:], tokenizer, 0.3, 1),
    )


def test_training_step_changes_only_trainable_weights(trainer: MLMTrainer) -> None:
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, before[name])}
    trainable = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert trainer.state.global_step == 1
    assert changed <= trainable
    adapter = {name for name in trainable if "adapters.mlm." in name}
    assert {name for name in adapter if name.endswith("adapter_up.weight")} <= changed
    assert any("invertible_adapters.mlm." in name for name in changed)
    assert not any(name.startswith("bert.embeddings.") and "adapter" not in name for name in trainable)


def test_training_batches_get_a_new_mask_each_time(trainer: MLMTrainer) -> None:
    trainer.model.eval()
    assert isinstance(trainer.train_dataset, MaskedLMDataset)
    batch = {"input_ids": torch.from_numpy(trainer.train_dataset.ids[:4])}
    before = batch["input_ids"].clone()
    with torch.no_grad():
        losses = [float(trainer.task_loss(trainer.model, batch)[0]) for _ in range(3)]
    assert torch.equal(batch["input_ids"], before)
    assert list(batch) == ["input_ids"]
    assert len(set(losses)) == 3


@pytest.mark.parametrize(("process", "own"), [(0, 4), (1, 1), (2, 0)])
def test_rows_that_processes_repeat_in_the_last_batch_are_not_predicted(
    process: int, own: int, trainer: MLMTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 5 blocks in batches of 4, the second process has one of its own."""
    monkeypatch.setattr(type(trainer.args), "world_size", 3)
    monkeypatch.setattr(type(trainer.args), "process_index", process)
    state = SimpleNamespace(end_of_dataloader=True, remainder=5)
    monkeypatch.setattr(trainer.accelerator, "gradient_state", state)
    trainer.mlm_probability = 0.9
    assert isinstance(trainer.train_dataset, MaskedLMDataset)
    batch = {"input_ids": torch.from_numpy(trainer.train_dataset.ids[:4])}
    trainer._mask_duplicate_rows(batch, 4)
    labels = trainer.with_labels(batch)["labels"]
    assert ((labels != IGNORE_INDEX).sum(1) > 0).tolist() == [True] * own + [False] * (4 - own)


@pytest.mark.parametrize("trains", [True, False])
def test_label_smoothing_is_a_share_of_the_mean_over_the_vocabulary_in_training(
    trainer: MLMTrainer, trains: bool
) -> None:
    trainer.args.label_smoothing_factor = 0.2
    dataset = trainer.eval_dataset
    assert isinstance(dataset, MaskedLMDataset)
    assert dataset.labels is not None
    batch = {"input_ids": torch.from_numpy(dataset.ids), "labels": torch.from_numpy(dataset.labels)}
    with torch.no_grad():
        total, weight, outputs = trainer.task_loss(trainer.model.train(trains), batch)
    gold = dataset.labels[dataset.labels != IGNORE_INDEX]
    expected = 0.0
    for logits, label in zip(outputs.logits.double().numpy(), gold, strict=True):
        losses = np.log(np.exp(logits).sum()) - logits  # of every word of the vocabulary
        expected += 0.8 * losses[label] + 0.2 * losses.mean() if trains else losses[label]
    assert float(weight) == len(gold) > 10
    assert float(total) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("inference", [False, True])
def test_loss_and_gradients_equal_those_of_logits_for_all_tokens(trainer: MLMTrainer, inference: bool) -> None:
    model, dataset = trainer.model.double().eval(), trainer.eval_dataset
    assert isinstance(dataset, MaskedLMDataset)
    assert dataset.labels is not None
    ids, labels = torch.from_numpy(dataset.ids), torch.from_numpy(dataset.labels)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    logits = model(input_ids=ids).logits
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")
    with torch.inference_mode(inference):
        total, weight, outputs = trainer.task_loss(model, {"input_ids": ids, "labels": labels})
    masked = labels != IGNORE_INDEX
    assert outputs.logits.shape == (masked.sum(), logits.shape[-1])
    assert float(weight) == masked.sum()
    torch.testing.assert_close(outputs.logits, logits[masked], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(total, plain, rtol=1e-6, atol=1e-6)
    if not inference:
        gradients, expected = (torch.autograd.grad(loss, weights) for loss in (total, plain))
        torch.testing.assert_close(gradients, expected, rtol=1e-5, atol=1e-6)
    assert model(input_ids=ids).logits.shape == logits.shape  # after the loss the model returns all logits again


@pytest.mark.parametrize("name", [name for name, encoder in ENCODERS.items() if encoder.loaded_as is None])
def test_loss_and_gradients_of_every_encoder_equal_those_of_logits_for_all_tokens(
    name: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """In training, of all weights."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForMaskedLM.from_config(config_with_dropout(name, 0.0)).double()
    args = resolve_training_args(MLMTrainingOptions(output_dir=str(tmp_path), report_to=[], use_cpu=True))
    trainer = MLMTrainer(model=model, setup=None, tokenizer=tokenizer, mlm_probability=0.3, args=args)
    ids = torch.randint(5, model.config.vocab_size, (3, 20))
    labels = ids.where(torch.rand(3, 20) < 0.3, IGNORE_INDEX)
    logits = model.train()(input_ids=ids).logits
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")
    total, weight, outputs = trainer.task_loss(model, {"input_ids": ids, "labels": labels})
    assert outputs.logits.shape == (int(weight), model.config.vocab_size)
    torch.testing.assert_close(total, plain, rtol=1e-6, atol=1e-6)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    gradients, expected = (torch.autograd.grad(loss, weights, allow_unused=True) for loss in (total, plain))
    assert sum(gradient is not None for gradient in expected) > len(weights) / 2
    for ours, theirs in zip(gradients, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.2])
def test_parts_of_a_batch_have_its_masks_loss_and_gradients(
    tmp_path: Path, tiny_bert: Path, tokenizer: PreTrainedTokenizerFast, factor: float
) -> None:
    """The masks are drawn for the whole batch, with the same random numbers."""
    torch.manual_seed(2)
    trainer = make_trainer(tmp_path, copy_without_dropout(tiny_bert, tmp_path / "base"), tokenizer)
    trainer.args.label_smoothing_factor = factor
    assert isinstance(trainer.train_dataset, MaskedLMDataset)
    batch = {"input_ids": torch.from_numpy(trainer.train_dataset.ids[:5])}
    whole, parts = train_on(trainer, batch, None), train_on(trainer, batch, 2 * 32)
    assert parts.shapes == [(2, 32), (2, 32), (1, 32)]
    assert_same_step(parts, whole)
    assert train_on(trainer, batch, 2 * 32, seed=6).loss != pytest.approx(whole.loss, rel=1e-4)


def test_evaluation_is_reproducible_and_reports_perplexity(trainer: MLMTrainer) -> None:
    first, second = trainer.evaluate(), trainer.evaluate()
    assert first["eval_loss"] == second["eval_loss"]
    assert first["eval_perplexity"] == math.exp(first["eval_loss"])
    dataset = trainer.eval_dataset
    assert isinstance(dataset, MaskedLMDataset)
    assert dataset.labels is not None
    with torch.no_grad():
        logits = trainer.model(input_ids=torch.from_numpy(dataset.ids)).logits.double().numpy()
    masked = dataset.labels != IGNORE_INDEX
    true_logits = np.take_along_axis(logits[masked], dataset.labels[masked][:, None], axis=1)[:, 0]
    expected = np.mean(np.log(np.exp(logits[masked]).sum(-1)) - true_logits)
    assert first["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_perplexity_of_a_very_large_loss_is_finite(trainer: MLMTrainer) -> None:
    with torch.no_grad():
        for weight in trainer.model.get_output_embeddings().parameters():
            weight.mul_(1e6)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] > 1000
    assert 1e308 < metrics["eval_perplexity"] < math.inf


def test_evaluation_without_masked_tokens_has_zero_loss(trainer: MLMTrainer) -> None:
    dataset = trainer.eval_dataset
    assert isinstance(dataset, MaskedLMDataset)
    assert dataset.labels is not None
    trainer.eval_dataset = MaskedLMDataset(dataset.ids, np.full_like(dataset.labels, IGNORE_INDEX))
    metrics = trainer.evaluate()
    assert (metrics["eval_loss"], metrics["eval_perplexity"]) == (0.0, 1.0)


@pytest.mark.slow
def test_compiled_training_has_the_same_losses_and_no_breaks(tiny_bert: Path, tmp_path: Path) -> None:
    base = copy_without_dropout(tiny_bert, tmp_path / "base")  # compiled dropout draws other random numbers
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"Ana nasceu em Recife e é médica número {number}." for number in range(200)))
    losses = {}
    for name in ("plain", "compiled"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        argv = [
            "--model_name_or_path", str(base), "--train_file", str(text), "--do_train", "--do_eval",
            "--block_size", "32", "--num_train_epochs", "2", "--logging_steps", "5", "--report_to", "none",
            "--disable_tqdm", "True",
            "--torch_compile", str(name == "compiled"), "--output_dir", str(tmp_path / name),
        ]  # fmt: skip
        assert run_mlm_adapter.main(argv) == 0
        run = json.loads((tmp_path / name / "run.json").read_text())
        losses[name] = [entry["loss"] for entry in run["losses"]] + [entry["eval_loss"] for entry in run["history"]]
    assert losses["compiled"] == pytest.approx(losses["plain"], abs=2e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert not torch._dynamo.utils.counters["graph_break"]

"""The QA trainer: its loss, weight decay, checkpoints and best epoch; reproducible runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.device_reads import DeviceReadCounter
from support.trainers import copy_without_dropout, fusion_command, make_fused_model, make_trainer
from transformers import EarlyStoppingCallback, TrainerCallback

import run_qa_adapter
from adapter_qa.config.options import FusionOptions, ModelOptions
from adapter_qa.core.errors import RunError, UserError
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import cast_frozen_weights
from adapter_qa.models.parameters import fusion_values
from adapter_qa.models.save import trainable_state
from adapter_qa.training import adapter_trainer
from adapter_qa.training.resumable_trainer import read_progress
from adapter_qa.training.workflow import save_frozen_adapters
from trainer_qa import span_loss, span_losses


class Snapshots(TrainerCallback):
    """A callback that copies the trainable weights at the end of every epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.states.append({name: weight.clone() for name, weight in trainable_state(model).items()})


def test_a_metric_that_was_not_computed_ends_the_run_in_a_line(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [1.0, 2.0], num_train_epochs=1)
    trainer.args.metric_for_best_model = "rouge"
    with pytest.raises(RunError, match=r"^--metric_for_best_model rouge: was not computed; .* f1, log_loss, loss,"):
        trainer.train()


def test_training_stops_early_and_restores_all_weights_of_the_best_epoch(tiny_bert: Path, tmp_path: Path) -> None:
    snapshots = Snapshots()
    trainer = make_trainer(
        tiny_bert, tmp_path, [10, 50, 40, 30, 20, 10, 5], num_train_epochs=7,
        callbacks=[snapshots, EarlyStoppingCallback(2)],
    )  # fmt: skip
    trainer.train()
    assert trainer.state.epoch == 4  # the second is the best; two worse epochs follow
    assert trainer.state.best_metric == 50
    now = trainable_state(trainer.model)
    best, last = snapshots.states[1], snapshots.states[3]
    for part in ("qa_outputs.weight", ".query.weight", ".key.weight", ".value.weight"):
        names = [name for name in now if name.endswith(part)]
        assert names
        assert all(torch.equal(now[name], best[name]) for name in names)
        assert any(not torch.equal(now[name], last[name]) for name in names)
    assert all(torch.equal(now[name], best[name]) for name in now)


def test_checkpoint_has_the_trainable_weights_and_no_pickled_options(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [1.0, 2.0], num_train_epochs=1)
    trainer.train()
    folder = next(tmp_path.glob("checkpoint-*"))
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "manifest.json", "optimizer.pt", "progress.json", "rng_state.pth", "scheduler.pt", "trained.safetensors",
        "trainer_state.json",
    ]  # fmt: skip
    assert set(load_file(folder / "trained.safetensors")) == set(trainable_state(trainer.model))


def test_fusion_value_matrices_decay_only_on_request(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [], weight_decay=0.1)
    values = {id(weight) for _, weight in fusion_values(trainer.model)}
    for decays in (False, True):
        trainer.decay_fusion_values, trainer.optimizer = decays, None
        groups = trainer.create_optimizer().param_groups
        decayed = {id(weight) for group in groups if group["weight_decay"] == 0.1 for weight in group["params"]}
        assert values & decayed == (values if decays else set())
        assert decayed - values
        everything = [id(weight) for group in groups for weight in group["params"]]
        assert sorted(everything) == sorted(id(weight) for weight in trainer.model.parameters() if weight.requires_grad)


@pytest.mark.parametrize("regularize", [True, False])
def test_regularizer_is_only_in_the_training_loss(tiny_bert: Path, tmp_path: Path, regularize: bool) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [], fusion=FusionOptions(fusion_regularization=regularize))
    for _, weight in fusion_values(trainer.model):
        torch.nn.init.normal_(weight)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    plain, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
    assert plain.item() == pytest.approx(
        span_loss(outputs.start_logits, outputs.end_logits, batch, batch["attention_mask"]).item()
    )
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    trainer.model.config._attn_implementation = "eager"
    trainer.model.train()
    trained = trainer.compute_loss(trainer.model, dict(batch))
    base_model: Any = trainer.model.base_model
    extra = base_model.get_fusion_regularization_loss().item() if regularize else 0.0
    assert trained.item() == pytest.approx(plain.item() + extra, rel=1e-4)


def test_span_loss_equals_the_library_loss_and_ignores_unknown_spans(tiny_bert: Path) -> None:
    model = load_model(ModelOptions(str(tiny_bert)), "qa").eval()
    ids = torch.randint(5, 100, (4, 12))
    starts, ends = torch.tensor([1, 0, 5, 7]), torch.tensor([3, 0, 5, 11])
    output = model(ids, start_positions=starts, end_positions=ends)
    labels = {"start_positions": starts, "end_positions": ends}
    assert span_loss(output.start_logits, output.end_logits, labels, None).item() == pytest.approx(
        output.loss.item(), rel=1e-6
    )
    three = model(ids[:3], start_positions=starts[:3], end_positions=ends[:3])
    unknown = {name: torch.where(torch.arange(4) == 3, IGNORE_INDEX, values) for name, values in labels.items()}
    assert span_loss(output.start_logits, output.end_logits, unknown, None).item() == pytest.approx(
        three.loss.item(), rel=1e-6
    )
    nothing = {name: torch.full((4,), IGNORE_INDEX) for name in labels}
    assert span_loss(output.start_logits, output.end_logits, nothing, None).item() == 0.0


@pytest.mark.parametrize("masked", [True, False])
def test_label_smoothing_spreads_its_share_over_the_tokens_of_the_softmax(masked: bool) -> None:
    logits = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(1)) * 3
    lengths = [7, 4, 5, 3] if masked else [7, 7, 7, 7]
    mask = torch.tensor([[1] * length + [0] * (7 - length) for length in lengths])
    golds = [[2, 0, IGNORE_INDEX, 1], [3, 3, IGNORE_INDEX, 2]]
    labels = {
        name: torch.tensor(values) for name, values in zip(("start_positions", "end_positions"), golds, strict=True)
    }
    logits.requires_grad_()
    losses = span_losses(logits[0], logits[1], labels, mask if masked else None, 0.25)
    for window, length in enumerate(lengths):
        expected = 0.0
        for side in (0, 1) if window != 2 else ():  # the gold span of window 2 is unknown
            row = logits[side, window, :length].detach().double().numpy()
            logs = row - np.log(np.exp(row).sum())
            expected -= (0.75 * logs[golds[side][window]] + 0.25 * logs.sum() / length) / 2
        assert losses[window].item() == pytest.approx(expected, rel=1e-5), window
    losses.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[:, 2].any()
    assert not (logits.grad * (1 - mask)).any()
    plain = span_losses(logits[0], logits[1], labels, mask if masked else None)
    assert torch.equal(span_losses(logits[0], logits[1], labels, mask if masked else None, 0.0), plain)


def test_label_smoothing_acts_in_training_only(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [], fusion=FusionOptions(fusion_regularization=False))
    trainer.args.label_smoothing_factor = 0.4
    batch = next(iter(trainer.get_train_dataloader()))
    for trains, smoothing in ((True, 0.4), (False, 0.0)):
        loss, outputs = trainer.compute_loss(trainer.model.train(trains), dict(batch), return_outputs=True)
        losses = span_losses(outputs.start_logits, outputs.end_logits, batch, batch["attention_mask"], smoothing)
        assert loss.item() == pytest.approx(losses.mean().item(), rel=1e-6)


def test_padding_counts_in_the_loss_only_without_an_attention_mask(tiny_bert: Path) -> None:
    model = load_model(ModelOptions(str(tiny_bert)), "qa").eval()
    ids, mask = torch.randint(5, 100, (2, 12)), torch.ones(2, 12, dtype=torch.int64)
    padded, padded_mask = torch.nn.functional.pad(ids, (0, 5)), torch.nn.functional.pad(mask, (0, 5))
    labels = {"start_positions": torch.tensor([1, 4]), "end_positions": torch.tensor([3, 11])}
    short, long = model(ids, attention_mask=mask), model(padded, attention_mask=padded_mask)
    losses = [
        span_loss(output.start_logits, output.end_logits, labels, attention_mask).item()
        for output, attention_mask in ((short, mask), (long, padded_mask), (long, None))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    # The library's own loss counts the padding of the longer batch.
    reference = model(padded, attention_mask=padded_mask, **labels).loss.item()
    assert losses[2] == pytest.approx(reference, rel=1e-6)
    assert losses[2] > losses[1] + 0.01


def test_train_runtime_of_a_resumed_run_includes_the_steps_before(tiny_bert: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"eval_strategy": "epoch", "save_strategy": "epoch", "save_total_limit": 3}
    options["include_tokens_per_second"] = True
    whole = make_trainer(tiny_bert, tmp_path, [1.0, 2.0, 3.0], **options).train().metrics
    before = read_progress(tmp_path / "checkpoint-6").seconds
    assert 0 < read_progress(tmp_path / "checkpoint-3").seconds < before
    trainer = make_trainer(tiny_bert, tmp_path, [3.0], **options)
    metrics = trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6")).metrics
    assert before < metrics["train_runtime"] < before + time.time() - trainer.started_at
    assert metrics["train_samples_per_second"] == pytest.approx(36 / metrics["train_runtime"], rel=0.02)
    assert metrics["train_steps_per_second"] == pytest.approx(9 / metrics["train_runtime"], rel=0.02)
    tokens = whole["train_tokens_per_second"] * whole["train_runtime"]
    assert metrics["train_tokens_per_second"] == pytest.approx(tokens / metrics["train_runtime"], rel=0.02)
    assert trainer.state.log_history[-1]["train_runtime"] == metrics["train_runtime"]


def test_device_reads_do_not_grow_with_steps_or_evaluated_batches(tiny_bert: Path, tmp_path: Path) -> None:
    training_reads, evaluation_reads = set(), set()
    for steps in (4, 12):
        trainer = make_trainer(
            tiny_bert, tmp_path / str(steps), [1.0], max_steps=steps, save_strategy="no", eval_strategy="no",
            logging_strategy="no", per_device_train_batch_size=1,
        )  # fmt: skip
        with DeviceReadCounter() as reads:
            trainer.train()
        training_reads.add(reads.count)
    for size in (1, 4):
        trainer = make_trainer(tiny_bert, tmp_path / f"eval{size}", [1.0], per_device_eval_batch_size=size)
        with DeviceReadCounter() as reads:
            trainer.evaluate()
        evaluation_reads.add(reads.count)
    assert len(training_reads) == 1
    assert len(evaluation_reads) == 1


def test_changed_frozen_adapters_stop_a_resumed_run(tiny_bert: Path, tmp_path: Path) -> None:
    model, _ = make_fused_model(tiny_bert)
    save_frozen_adapters(model, tmp_path)
    save_frozen_adapters(model, tmp_path)
    saved = load_file(tmp_path / "frozen.safetensors")
    assert saved
    assert all(".adapters." in name for name in saved)
    with torch.no_grad():
        next(weight for name, weight in model.named_parameters() if ".adapters.ner." in name).add_(1)
    with pytest.raises(UserError, match="frozen adapters have changed"):
        save_frozen_adapters(model, tmp_path)


def test_frozen_weights_in_the_compute_dtype_give_identical_results(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {}
    for name in ("bfloat16", "float32"):
        if name == "float32":
            monkeypatch.setattr(adapter_trainer, "cast_frozen_weights", lambda model, dtype: None)
        argv = fusion_command(tiny_bert, squad_files, tmp_path / name, "--num_train_epochs", "2", "--bf16", "True")
        assert run_qa_adapter.main([*argv, "--load_lang_adapter", "new", "--logging_steps", "1"]) == 0
        weights = sorted((tmp_path / name / "adapters-fusion").rglob("*.safetensors"))
        assert {tensor.dtype for path in weights for tensor in load_file(path).values()} == {torch.float32}
        results[name] = (logged_losses(tmp_path / name), [path.read_bytes() for path in weights])
    assert results["bfloat16"] == results["float32"]


def test_only_frozen_matrices_of_the_base_model_are_cast(tiny_bert: Path) -> None:
    model, _ = make_fused_model(tiny_bert)
    cast_frozen_weights(model, torch.bfloat16)
    cast = {name for name, weight in model.named_parameters() if weight.dtype == torch.bfloat16}
    matrices = ("self.query", "self.key", "self.value", "attention.output.dense", "intermediate.dense", "output.dense")
    assert cast == {
        f"bert.encoder.layer.{layer}.{'attention.' if matrix.startswith('self') else ''}{matrix}.{part}"
        for layer in range(4)
        for matrix in matrices
        for part in ("weight", "bias")
    }


# ---------------------------------------------------------------- complete runs


def logged_losses(folder: Path) -> list[float]:
    """Return the training losses and the evaluation losses of a run."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return [entry["loss"] for entry in run["losses"]] + [entry["eval_loss"] for entry in run["history"]]


def test_weights_depend_on_the_seed_and_not_on_the_workers(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    states = []
    for name, seed, workers in (("a", "1", "0"), ("b", "1", "2"), ("c", "2", "0")):
        folder = tmp_path / name
        options = ("--seed", seed, "--num_train_epochs", "1", "--dataloader_num_workers", workers)
        assert run_qa_adapter.main(fusion_command(tiny_bert, squad_files, folder, *options)) == 0
        states.append((folder / "adapters-fusion" / "qa,ner" / "model_adapter_fusion.safetensors").read_bytes())
    assert states[0] == states[1] != states[2]


def test_finished_run_is_not_repeated_and_needs_overwrite_for_other_options(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = fusion_command(tiny_bert, squad_files, tmp_path / "run", "--num_train_epochs", "1")
    assert run_qa_adapter.main(argv) == 0
    written_at = (tmp_path / "run" / "run.json").stat().st_mtime_ns
    assert run_qa_adapter.main(argv) == 0
    assert "this run is finished" in capsys.readouterr().out
    assert (tmp_path / "run" / "run.json").stat().st_mtime_ns == written_at
    with pytest.raises(UserError, match=r"other options .seed was 42, now 43.*--overwrite_output_dir"):
        run_qa_adapter.main([*argv, "--seed", "43"])
    assert run_qa_adapter.main([*argv, "--seed", "43", "--overwrite_output_dir"]) == 0


def test_group_by_length_does_not_change_the_order_of_the_predictions(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    files = []
    for name, grouped in (("plain", "False"), ("grouped", "True")):
        argv = ["--model_name_or_path", tiny_bert, "--validation_file", squad_files[0], "--do_eval", "--train_adapter",
                "False", "--max_seq_length", "32", "--doc_stride", "8", "--group_by_length", grouped, "--output_dir",
                tmp_path / name, "--report_to", "none"]  # fmt: skip
        assert run_qa_adapter.main([str(argument) for argument in argv]) == 0
        files.append((tmp_path / name / "eval_predictions.json").read_text())
    assert files[0] == files[1]


@pytest.mark.slow
def test_compiled_training_has_the_same_losses_and_few_graphs(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    base = copy_without_dropout(tiny_bert, tmp_path / "base")  # compiled dropout draws other random numbers
    losses = {}
    for name in ("plain", "compiled"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        options = ("--num_train_epochs", "2", "--logging_steps", "1", "--torch_compile", str(name == "compiled"))
        argv = fusion_command(
            base, squad_files, tmp_path / name, *options, "--load_lang_adapter", "new", "--madx2", "True"
        )
        assert run_qa_adapter.main(argv) == 0
        losses[name] = logged_losses(tmp_path / name)
    assert losses["compiled"] == pytest.approx(losses["plain"], abs=2e-4)
    # In training and in evaluation: a graph for the first length and a graph for all other lengths.
    assert 0 < torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4
    assert not torch._dynamo.utils.counters["graph_break"]

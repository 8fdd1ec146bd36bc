"""The trainer: the loss it minimises, what decays, the best epoch back whole, early stopping, resuming to the bit."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.device_reads import DeviceReadCounter
from support.trainers import fusion_command, make_fused_model, make_trainer
from transformers import EarlyStoppingCallback, TrainerCallback

import run_qa_adapter
from adapter_qa.config.options import FusionOptions, ModelOptions
from adapter_qa.core.errors import UserError
from adapter_qa.data.labels import IGNORED
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import cast_frozen_weights
from adapter_qa.models.parameters import fusion_values
from adapter_qa.models.save import trainable_state
from adapter_qa.training import adapter_trainer
from adapter_qa.training.resumable_trainer import read_progress
from adapter_qa.training.workflow import save_frozen_adapters
from trainer_qa import span_loss


class Snapshots(TrainerCallback):
    """The trainable weights at the end of every epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        self.states.append({name: weight.clone() for name, weight in trainable_state(model).items()})


def test_best_epoch_comes_back_whole_and_training_stops_early(tiny_bert: Path, tmp_path: Path) -> None:
    snapshots = Snapshots()
    trainer = make_trainer(
        tiny_bert, tmp_path, [10, 50, 40, 30, 20, 10, 5], num_train_epochs=7,
        callbacks=[snapshots, EarlyStoppingCallback(2)],
    )  # fmt: skip
    trainer.train()
    assert trainer.state.epoch == 4  # best in the second, two worse ones, stop
    assert trainer.state.best_metric == 50
    now = trainable_state(trainer.model)
    best, last = snapshots.states[1], snapshots.states[3]
    for part in ("qa_outputs.weight", ".query.weight", ".key.weight", ".value.weight"):
        names = [name for name in now if name.endswith(part)]
        assert names
        assert all(torch.equal(now[name], best[name]) for name in names)
        assert any(not torch.equal(now[name], last[name]) for name in names)
    assert all(torch.equal(now[name], best[name]) for name in now)


def test_checkpoint_holds_what_trains_and_no_pickled_options(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [1.0, 2.0], num_train_epochs=1)
    trainer.train()
    folder = next(tmp_path.glob("checkpoint-*"))
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "manifest.json", "optimizer.pt", "progress.json", "rng_state.pth", "scheduler.pt", "trained.safetensors",
        "trainer_state.json",
    ]  # fmt: skip
    assert set(load_file(folder / "trained.safetensors")) == set(trainable_state(trainer.model))


def test_value_matrices_do_not_decay_unless_asked(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [], weight_decay=0.1)
    values = {id(weight) for _, weight in fusion_values(trainer.model)}
    for decays in (False, True):
        trainer.decay_fusion_values, trainer.optimizer = decays, None
        groups = trainer.create_optimizer().param_groups
        decayed = {id(weight) for group in groups if group["weight_decay"] == 0.1 for weight in group["params"]}
        assert values <= decayed if decays else not values & decayed
        assert decayed - values
        everything = [id(weight) for group in groups for weight in group["params"]]
        assert sorted(everything) == sorted(id(weight) for weight in trainer.model.parameters() if weight.requires_grad)


@pytest.mark.parametrize("regularize", [True, False])
def test_regulariser_is_in_the_training_loss_only(tiny_bert: Path, tmp_path: Path, regularize: bool) -> None:
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
    extra = trainer.model.base_model.get_fusion_regularization_loss().item() if regularize else 0.0
    assert trained.item() == pytest.approx(plain.item() + extra, rel=1e-4)


def test_span_loss_is_the_librarys_and_leaves_unknown_spans_out(tiny_bert: Path) -> None:
    model = load_model(ModelOptions(str(tiny_bert)), "qa").eval()
    ids = torch.randint(5, 100, (4, 12))
    starts, ends = torch.tensor([1, 0, 5, 7]), torch.tensor([3, 0, 5, 11])
    output = model(ids, start_positions=starts, end_positions=ends)
    labels = {"start_positions": starts, "end_positions": ends}
    assert span_loss(output.start_logits, output.end_logits, labels, None).item() == pytest.approx(
        output.loss.item(), rel=1e-6
    )
    three = model(ids[:3], start_positions=starts[:3], end_positions=ends[:3])
    unknown = {name: torch.where(torch.arange(4) == 3, IGNORED, values) for name, values in labels.items()}
    assert span_loss(output.start_logits, output.end_logits, unknown, None).item() == pytest.approx(
        three.loss.item(), rel=1e-6
    )
    nothing = {name: torch.full((4,), IGNORED) for name in labels}
    assert span_loss(output.start_logits, output.end_logits, nothing, None).item() == 0.0


def test_padding_is_no_answer_unless_it_is_to_compete(tiny_bert: Path) -> None:
    model = load_model(ModelOptions(str(tiny_bert)), "qa").eval()
    ids, mask = torch.randint(5, 100, (2, 12)), torch.ones(2, 12, dtype=torch.int64)
    padded, far = torch.nn.functional.pad(ids, (0, 5)), torch.nn.functional.pad(mask, (0, 5))
    labels = {"start_positions": torch.tensor([1, 4]), "end_positions": torch.tensor([3, 11])}
    short, long = model(ids, attention_mask=mask), model(padded, attention_mask=far)
    losses = [span_loss(one.start_logits, one.end_logits, labels, where).item() for one, where in
              ((short, mask), (long, far), (long, None))]  # fmt: skip
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    # The library's own loss counts the padding of the longer batch.
    reference = model(padded, attention_mask=far, **labels).loss.item()
    assert losses[2] == pytest.approx(reference, rel=1e-6) and losses[2] > losses[1] + 0.01


def test_time_of_a_resumed_training_is_that_of_all_its_steps(tiny_bert: Path, tmp_path: Path) -> None:
    kept: dict[str, Any] = {"eval_strategy": "epoch", "save_strategy": "epoch", "save_total_limit": 3}
    make_trainer(tiny_bert, tmp_path, [1.0, 2.0, 3.0], **kept).train()
    before = read_progress(tmp_path / "checkpoint-6").seconds
    assert 0 < read_progress(tmp_path / "checkpoint-3").seconds < before
    trainer = make_trainer(tiny_bert, tmp_path, [3.0], **kept)
    metrics = trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6")).metrics
    assert before < metrics["train_runtime"] < before + time.time() - trainer.started_at
    assert metrics["train_samples_per_second"] == pytest.approx(36 / metrics["train_runtime"], rel=0.02)
    assert metrics["train_steps_per_second"] == pytest.approx(9 / metrics["train_runtime"], rel=0.02)
    assert trainer.state.log_history[-1]["train_runtime"] == metrics["train_runtime"]


def test_neither_steps_nor_evaluated_batches_wait_for_the_device(tiny_bert: Path, tmp_path: Path) -> None:
    counts = {}
    for steps in (4, 12):
        trainer = make_trainer(
            tiny_bert, tmp_path / str(steps), [1.0], max_steps=steps, save_strategy="no", eval_strategy="no",
            logging_strategy="no", per_device_train_batch_size=1,
        )  # fmt: skip
        with DeviceReadCounter() as readings:
            trainer.train()
        counts["training", steps] = readings.count
    for size in (1, 4):
        trainer = make_trainer(tiny_bert, tmp_path / f"eval{size}", [1.0], per_device_eval_batch_size=size)
        with DeviceReadCounter() as readings:
            trainer.evaluate()
        counts["evaluating", size] = readings.count
    assert counts["training", 4] == counts["training", 12] and counts["evaluating", 1] == counts["evaluating", 4], (
        counts
    )


def test_frozen_adapters_that_changed_stop_a_resumed_run(tiny_bert: Path, tmp_path: Path) -> None:
    model, _ = make_fused_model(tiny_bert)
    save_frozen_adapters(model, tmp_path)
    save_frozen_adapters(model, tmp_path)
    kept = load_file(tmp_path / "frozen.safetensors")
    assert kept and all(".adapters." in name for name in kept)
    with torch.no_grad():
        next(weight for name, weight in model.named_parameters() if ".adapters.ner." in name).add_(1)
    with pytest.raises(UserError, match="frozen adapters have changed"):
        save_frozen_adapters(model, tmp_path)


def test_frozen_matrices_in_the_compute_dtype_change_no_bit(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = {}
    for name in ("held", "cast"):
        if name == "cast":
            monkeypatch.setattr(adapter_trainer, "cast_frozen_weights", lambda model, dtype: None)
        words = fusion_command(tiny_bert, squad_files, tmp_path / name, "--num_train_epochs", "2", "--bf16", "True")
        assert run_qa_adapter.main([*words, "--load_lang_adapter", "new", "--logging_steps", "1"]) == 0
        run = json.loads((tmp_path / name / "run.json").read_text())
        lines[name] = [entry["loss"] for entry in run["losses"]] + [entry["eval_loss"] for entry in run["history"]]
        weights = sorted((tmp_path / name / "adapters-fusion").rglob("*.safetensors"))
        assert {tensor.dtype for path in weights for tensor in load_file(path).values()} == {torch.float32}
        lines[name].append([path.read_bytes() for path in weights])
    assert lines["held"] == lines["cast"]


def test_only_frozen_matrices_of_the_base_are_held(tiny_bert: Path) -> None:
    model, _ = make_fused_model(tiny_bert)
    cast_frozen_weights(model, torch.bfloat16)
    held = {name for name, weight in model.named_parameters() if weight.dtype == torch.bfloat16}
    matrices = ("self.query", "self.key", "self.value", "attention.output.dense", "intermediate.dense", "output.dense")
    assert held == {
        f"bert.encoder.layer.{layer}.{'attention.' if matrix.startswith('self') else ''}{matrix}.{part}"
        for layer in range(4)
        for matrix in matrices
        for part in ("weight", "bias")
    }


# ---------------------------------------------------------------- whole runs


def test_same_seed_same_weights_whatever_the_workers_other_seed_other_weights(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    states = []
    for name, seed, workers in (("a", "1", "0"), ("b", "1", "2"), ("c", "2", "0")):
        folder = tmp_path / name
        more = ("--seed", seed, "--num_train_epochs", "2", "--dataloader_num_workers", workers)
        assert run_qa_adapter.main(fusion_command(tiny_bert, squad_files, folder, *more)) == 0
        states.append((folder / "adapters-fusion" / "qa,ner" / "model_adapter_fusion.safetensors").read_bytes())
    assert states[0] == states[1] != states[2]


def test_finished_run_does_nothing_and_other_options_are_refused(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = fusion_command(tiny_bert, squad_files, tmp_path / "run", "--num_train_epochs", "1")
    assert run_qa_adapter.main(words) == 0
    stamp = (tmp_path / "run" / "run.json").stat().st_mtime_ns
    assert run_qa_adapter.main(words) == 0
    assert "this run is finished" in capsys.readouterr().out
    assert (tmp_path / "run" / "run.json").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="other options .seed was 42, now 43.*--overwrite_output_dir"):
        run_qa_adapter.main([*words, "--seed", "43"])
    assert run_qa_adapter.main([*words, "--seed", "43", "--overwrite_output_dir"]) == 0


def test_grouping_by_length_leaves_the_order_of_evaluation_alone(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    files = []
    for name, grouped in (("plain", "False"), ("grouped", "True")):
        words = ["--model_name_or_path", tiny_bert, "--validation_file", squad_files[0], "--do_eval", "--train_adapter",
                 "False", "--max_seq_length", "32", "--doc_stride", "8", "--group_by_length", grouped, "--output_dir",
                 tmp_path / name, "--report_to", "none"]  # fmt: skip
        assert run_qa_adapter.main([str(word) for word in words]) == 0
        files.append((tmp_path / name / "eval_predictions.json").read_text())
    assert files[0] == files[1]


@pytest.mark.slow
def test_compiled_training_has_the_same_losses_and_few_graphs(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_bert, base)
    config = json.loads((base / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # a compiled dropout draws others
    (base / "config.json").write_text(json.dumps(config))
    losses = {}
    for name in ("plain", "compiled"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        more = ("--num_train_epochs", "2", "--logging_steps", "1", "--torch_compile", str(name == "compiled"))
        words = fusion_command(
            base, squad_files, tmp_path / name, *more, "--load_lang_adapter", "new", "--madx2", "True"
        )
        assert run_qa_adapter.main(words) == 0
        run = json.loads((tmp_path / name / "run.json").read_text())
        losses[name] = [entry["loss"] for entry in run["losses"]] + [entry["eval_loss"] for entry in run["history"]]
    assert losses["compiled"] == pytest.approx(losses["plain"], abs=2e-4)
    # One for the first length, one for every other, the same again for evaluation; more would be one a length.
    assert 0 < torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4
    assert not torch._dynamo.utils.counters["graph_break"]

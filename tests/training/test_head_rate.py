"""--head_learning_rate, and the note that a loss stays at the entropy of the labels."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.questions import make_questions
from support.trainers import fusion_command, make_trainer
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, TrainerControl, TrainerState

import run_qa_adapter
from adapter_qa.config.options import (
    AdapterOptions,
    FusionOptions,
    LanguageAdapterOptions,
    MLMAdapterOptions,
    MLMDataOptions,
    MLMTrainingOptions,
    ModelOptions,
    NERDataOptions,
    NERTrainingOptions,
    QADataOptions,
    TrainingOptions,
)
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.data.label_entropy import class_entropy, entropy, span_entropy
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.window_dataset import pair_tokenizer
from adapter_qa.data.windows import make_windows
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model, load_tokenizer
from adapter_qa.models.build import build_setup
from adapter_qa.models.parameters import head_names
from adapter_qa.models.save import trainable_state
from adapter_qa.models.setup_decisions import resolve_setup
from adapter_qa.runs.run_document import RunDocument
from adapter_qa.training.callbacks import LabelEntropyCallback, record_history
from adapter_qa.training.head_rate import advice_on_loss, decided_head_rate
from adapter_qa.training.resumed_options import ResumedRun, resumed_run


def test_groups_have_their_rates_and_every_weight_once(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_bert, tmp_path, [], weight_decay=0.1, head_learning_rate=0.2)
    groups = trainer.create_optimizer().param_groups
    names = {id(weight): name for name, weight in trainer.model.named_parameters()}
    rates = {names[id(weight)]: group["lr"] for group in groups for weight in group["params"]}
    decays = {names[id(weight)]: group["weight_decay"] for group in groups for weight in group["params"]}
    head = head_names(trainer.model)
    assert head == {"qa_outputs.weight", "qa_outputs.bias"}
    assert rates == {name: 0.2 if name in head else 1e-2 for name in trainable_state(trainer.model)}
    assert sum(len(group["params"]) for group in groups) == len(rates)
    assert (decays["qa_outputs.weight"], decays["qa_outputs.bias"]) == (0.1, 0.0)
    assert len(trainer.create_optimizer().param_groups) == len(groups) == 4  # as under DeepSpeed, which calls it twice


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_no_group_is_empty_under_deepspeed(
    kind: str, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeepSpeed removes empty groups, whose rates the schedule would have. All weights of LoRA decay."""
    monkeypatch.setattr("support.trainers.make_fused_model", lambda base: make_single_model(base, kind))
    trainer = make_trainer(tiny_bert, tmp_path, [], head_learning_rate=0.2)
    monkeypatch.setattr(trainer, "is_deepspeed_enabled", True)
    groups = trainer.create_optimizer().param_groups
    assert [bool(group["params"]) for group in groups] == [True] * 3
    assert sum(len(group["params"]) for group in groups) == len(trainable_state(trainer.model))
    assert {group["lr"] for group in groups[1:]} == {0.2}


def make_single_model(base: Path, kind: str) -> tuple[PreTrainedModel, AdapterSetup]:
    options = ModelOptions(str(base), random_init=True)
    setup = resolve_setup("qa", read_base_config(options), AdapterOptions(adapter_config=kind), random_init=True)
    assert setup is not None
    model = load_model(options, "qa")
    build_setup(model, setup)
    return model, setup


def train(tiny_bert: Path, folder: Path, head_rate: float | None) -> dict[str, torch.Tensor]:
    """Train one step at 0.01 by plain gradient descent without clipping; return how far each weight moved."""
    torch.manual_seed(3)
    trainer = make_trainer(
        tiny_bert, folder, [1.0], num_train_epochs=1, optim="sgd", lr_scheduler_type="constant",
        max_grad_norm=0.0, max_steps=1, head_learning_rate=head_rate,
    )  # fmt: skip
    before = {name: weight.clone() for name, weight in trainable_state(trainer.model).items()}
    trainer.train()
    return {name: weight - before[name] for name, weight in trainable_state(trainer.model).items()}


def test_a_step_of_the_head_is_as_many_times_larger(tiny_bert: Path, tmp_path: Path) -> None:
    plain = train(tiny_bert, tmp_path / "plain", None)
    both = train(tiny_bert, tmp_path / "both", 0.08)
    for name, moved in both.items():
        factor = 8.0 if name.startswith("qa_outputs") else 1.0
        assert torch.allclose(moved, factor * plain[name], rtol=1e-3, atol=1e-6), name
    assert both["qa_outputs.weight"].abs().max() > 1e-4


def test_it_is_recorded_logged_and_in_the_derived_name(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--num_train_epochs", "1", "--learning_rate", "1e-3", "--head_learning_rate", "1e-2"]
    argv = fusion_command(tiny_bert, squad_files, Path("out"), *options)
    argv = argv[: argv.index("--output_dir")] + argv[argv.index("--output_dir") + 2 :]
    folder = run_qa_adapter.execute(argv).record.folder
    assert folder is not None
    assert "head_learning_rate0.01" in folder.name
    document = json.loads((folder / "run.json").read_text())
    assert document["options"]["head_learning_rate"] == 0.01
    assert document["label_entropy"] > 0
    logged = [(entry["learning_rate"], entry["head_learning_rate"]) for entry in document["losses"]]
    assert logged
    assert all(head == pytest.approx(10 * rate) for rate, head in logged)


def test_norms_of_gradients_that_overflow_are_no_numbers_in_json() -> None:
    steps = [{"loss": 1.5, "grad_norm": norm, "step": 1} for norm in (0.5, math.inf, math.nan)]
    document = RunDocument(status="running", script="run_qa_adapter.py", options={})
    record_history(document, TrainerState(log_history=steps))
    losses = document.losses or []
    assert [entry["grad_norm"] for entry in losses] == [0.5, None, None]
    json.dumps(losses, allow_nan=False)


def test_entropy_is_the_least_loss_of_one_distribution() -> None:
    assert entropy(np.array([2, 2, 0])) == pytest.approx(math.log(2))
    inputs = [np.array([0, 0, 0, IGNORE_INDEX]), np.array([1, 2, 2, 0, 0]), np.array([IGNORE_INDEX])]
    weights = np.array([0.2, 1.0, 1.5])
    logits = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100)

    def loss() -> torch.Tensor:
        """Return the mean over inputs of their weighted losses; the last input has no label."""
        optimizer.zero_grad()
        value = torch.zeros(())
        for labels in map(torch.from_numpy, inputs[:2]):
            batch = logits.expand(len(labels), 3)
            value = value + cross_entropy(batch, labels, torch.tensor(weights).float(), ignore_index=IGNORE_INDEX) / 2
        value.backward()
        return value

    optimizer.step(loss)
    assert class_entropy(inputs, weights) == pytest.approx(loss().item(), abs=1e-5)


def test_span_entropy_by_a_loop(tiny_bert: Path) -> None:
    tokenizer = pair_tokenizer(load_tokenizer(ModelOptions(str(tiny_bert))))
    questions = make_questions(20, 1, sentences=6)
    windows = make_windows(questions, tokenizer, max_seq_length=40, doc_stride=10)
    counts = Counter(
        "unknown" if start == IGNORE_INDEX else "none" if start == windows.layout.cls_position else "answered"
        for start in windows.start_position
    )
    assert counts["none"] > 5
    assert counts["answered"] > 5
    known, total = counts["none"] + counts["answered"], 0.0
    for index, start in enumerate(windows.start_position):
        if start == windows.layout.cls_position:
            total -= math.log(counts["none"] / known)
        elif start != IGNORE_INDEX:
            tokens = windows[index].context_mask.sum()
            total -= math.log(counts["answered"] / known / tokens)
    assert span_entropy(windows) == pytest.approx(total / known)


@pytest.mark.parametrize(
    ("losses", "noted"),
    [([2.0], False), ([2.0, 0.7], False), ([0.7, 2.0], True), ([2.0, 2.0, 2.0], True), ([0.7, 1.6], False)],
)
def test_note_on_a_loss_that_stays(losses: list[float], noted: bool, capsys: pytest.CaptureFixture[str]) -> None:
    callback = LabelEntropyCallback(2.0, "train longer")
    args: Any = SimpleNamespace(label_smoothing_factor=0.0)
    for end in range(1, len(losses) + 1):
        history = [{"loss": loss, "step": 50 * number} for number, loss in enumerate(losses[:end], 1)]
        state: Any = SimpleNamespace(global_step=50 * end, max_steps=500, log_history=history)
        if end == len(losses) or losses[0] == losses[-1]:
            callback.on_epoch_end(args, state, TrainerControl())
    notes = capsys.readouterr().err
    assert notes == (
        "note: the loss is 2.00, and a model that ignores its input reaches 2.00 (the entropy of the labels): train "
        "longer\n"
        if noted
        else ""
    )


@pytest.mark.parametrize(
    ("options", "can_rise"),
    [
        ({"learning_rate": 1e-4}, True),
        ({"learning_rate": 1e-4, "head_learning_rate": 9e-3}, True),
        ({"learning_rate": 1e-4, "head_learning_rate": 1e-2}, False),
        ({"learning_rate": 2e-2}, False),
        ({"learning_rate": 1e-4, "optim": "lomo"}, False),  # one rate for all weights
    ],
)
def test_advice_on_a_loss_that_stays(options: dict[str, Any], can_rise: bool) -> None:
    rate = "raise --head_learning_rate, e.g. to 0.01" if can_rise else "try another --learning_rate"
    assert advice_on_loss(TrainingOptions(**options)) == f"train longer, or {rate}"


def ner_config(**training: Any) -> NERRunConfig:
    options = NERTrainingOptions(**{"do_train": True, "learning_rate": 1e-3, **training})
    config = NERRunConfig(ModelOptions("m"), NERDataOptions(), AdapterOptions(), LanguageAdapterOptions(), options)
    return config.resolved()


def qa_config(**training: Any) -> QARunConfig:
    options = TrainingOptions(**{"do_train": True, "learning_rate": 2e-4, **training})
    config = QARunConfig(
        ModelOptions("m"), QADataOptions(), AdapterOptions(), LanguageAdapterOptions(), FusionOptions(), options
    )
    return config.resolved()


def mlm_config() -> MLMRunConfig:
    options = MLMTrainingOptions(do_train=True)
    return MLMRunConfig(ModelOptions("m"), MLMDataOptions(), MLMAdapterOptions(), options).resolved()


ENCODER = {"architectures": ["BertModel"]}
NEW_HEAD: Any = SimpleNamespace(loads_saved_head=False, starting_head=None)
SAVED_HEAD: Any = SimpleNamespace(loads_saved_head=True, starting_head=None)
STARTING_HEAD: Any = SimpleNamespace(loads_saved_head=False, starting_head="of the fused QA adapter")


def test_rate_of_a_new_ner_head() -> None:
    assert decided_head_rate(ner_config(), NEW_HEAD, ENCODER, None) == 1e-2
    assert decided_head_rate(ner_config(head_learning_rate=1e-4), NEW_HEAD, ENCODER, None) == 1e-4
    assert decided_head_rate(ner_config(learning_rate=0.02), NEW_HEAD, ENCODER, None) is None
    assert decided_head_rate(ner_config(do_train=False, do_eval=True), NEW_HEAD, ENCODER, None) is None
    assert decided_head_rate(ner_config(optim="lomo"), NEW_HEAD, ENCODER, None) is None
    assert decided_head_rate(ner_config(), SAVED_HEAD, ENCODER, None) is None
    assert decided_head_rate(mlm_config(), NEW_HEAD, ENCODER, None) is None


def test_rate_of_a_new_qa_head() -> None:
    for setup in (NEW_HEAD, None):  # None: full fine-tuning
        assert decided_head_rate(qa_config(), setup, ENCODER, None) == pytest.approx(2e-3)
        assert decided_head_rate(qa_config(), setup, {}, None) == pytest.approx(2e-3)
        assert decided_head_rate(qa_config(head_learning_rate=2e-4), setup, ENCODER, None) == 2e-4
        assert decided_head_rate(qa_config(do_train=False, do_eval=True), setup, ENCODER, None) is None
        assert decided_head_rate(qa_config(learning_rate=0.0), setup, ENCODER, None) is None
        assert decided_head_rate(qa_config(optim="adalomo"), setup, ENCODER, None) is None
        trained = {"architectures": ["RobertaForQuestionAnswering"]}
        assert decided_head_rate(qa_config(), setup, trained, None) is None
        random_base = replace(qa_config(), model=ModelOptions("m", random_init=True))
        assert decided_head_rate(random_base, setup, trained, None) == pytest.approx(2e-3)
    for setup in (SAVED_HEAD, STARTING_HEAD):
        assert decided_head_rate(qa_config(), setup, ENCODER, None) is None


@pytest.mark.parametrize(("config", "of_new"), [(ner_config, 1e-2), (qa_config, 2e-3)])
def test_a_resumed_run_keeps_its_rate(config: Callable[..., QARunConfig], of_new: float, tmp_path: Path) -> None:
    older = ResumedRun(tmp_path, {"learning_rate": 1e-3})  # of a version without the option
    assert decided_head_rate(config(), NEW_HEAD, ENCODER, older) is None
    equal = config(learning_rate=1e-3, head_learning_rate=1e-3)
    assert decided_head_rate(equal, NEW_HEAD, ENCODER, older) is None  # what the run does, in other words
    other = config(learning_rate=1e-3, head_learning_rate=1e-2)
    assert decided_head_rate(other, NEW_HEAD, ENCODER, older) == 1e-2  # refused later
    options = {"learning_rate": 1e-3, "head_learning_rate": 0.03}
    assert decided_head_rate(config(), NEW_HEAD, ENCODER, ResumedRun(tmp_path, options)) == 0.03
    (tmp_path / "run.json").write_text(json.dumps({"status": "interrupted", "options": options}))
    again = config(overwrite_output_dir=True)
    replaced = resumed_run(again.training, tmp_path)
    assert decided_head_rate(again, NEW_HEAD, ENCODER, replaced) == pytest.approx(of_new)

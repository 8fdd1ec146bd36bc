"""Every encoder through the scripts: trained, saved, asked and exported.

In a normal run each encoder trains one fusion on a language adapter, answers with it and is exported; --slow runs every
kind of training with every encoder, and resumes it. A new encoder is a row of `TINY` in support/tiny_encoders.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import load_file
from support.questions import make_questions, write_squad
from support.scripts import run_main
from support.setups import A, L, Maker
from support.tiny_encoders import TINY, save_tiny
from transformers import PreTrainedModel

import ask_qa
import export_qa
import run_mlm_adapter
import run_ner_adapter
import run_qa_adapter
from adapter_qa.inference.export_layout import GRAPH_FILE
from adapter_qa.inference.exported_model import ExportedModel
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import build_setup
from adapter_qa.models.encoders import encoder_of
from adapter_qa.models.setup_decisions import setup_from_saved
from adapter_qa.models.tasks import TASKS, Task
from adapter_qa.training.adapter_trainer import AdapterTrainer

LONG = "modernbert, 8192 tokens"
CONLL = "Ana B-PESSOA\nnasceu O\nem O\nRecife B-LOCAL\n. O\n\nO O\nTribunal B-ORGANIZACAO\nde I-ORGANIZACAO\n\n"
QUESTIONS = make_questions(8, 2)  # of the evaluation file
# The bias of the keys has no gradient: the softmax of the scores does not depend on it.
NO_GRADIENT = ("key.bias", "key_proj.bias", "k_lin.bias")
ADDED = re.compile(r"adapter|\.loras\.")  # in the names of weights that the base does not have
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Bench:
    """A tiny encoder with saved adapters, and the files to train on.

    Attributes:
        maker: makes setups on the encoder.
        adapters: folders of the language adapter, and of a QA and a NER adapter trained on it.
        folder: of the files train.json, dev.json and ner.conll, and of the runs.
    """

    maker: Maker
    adapters: dict[str, Path]
    folder: Path

    @property
    def base(self) -> Path:
        """The folder of the encoder."""
        return Path(self.maker.options.model_name_or_path)


@dataclass(frozen=True)
class Training:
    """A kind of training.

    Attributes:
        main: of the script.
        options: beside base model and files, given the folders of the saved adapters.
        trains: whether a weight of the encoder, by its name, is trained; the head is trained as well.
        answers: whether it can be asked and exported.
    """

    main: Callable[[list[str]], int]
    options: Callable[[dict[str, Path]], list[object]]
    trains: Callable[[str], bool]
    answers: bool = True


TRAININGS = {
    "full": Training(run_qa_adapter.main, lambda _: ["--train_adapter", "False"], lambda _: True),
    "mlm": Training(run_mlm_adapter.main, lambda _: [], lambda name: "adapters.mlm." in name, answers=False),
    "qa": Training(
        run_qa_adapter.main, lambda s: ["--load_lang_adapter", s["mlm"]], lambda name: "adapters.qa." in name
    ),
    "lora": Training(
        run_qa_adapter.main,
        lambda s: ["--load_lang_adapter", s["mlm"], "--adapter_config", "lora"],
        lambda name: "loras.qa." in name,
    ),
    "ner": Training(
        run_ner_adapter.main,
        lambda s: ["--load_lang_adapter", s["mlm"]],
        lambda name: "adapters.ner." in name,
        answers=False,
    ),
    "fusion": Training(
        run_qa_adapter.main,
        lambda s: ["--load_lang_adapter", s["mlm"], "--fuse_adapters", f"qa={s['qa']}", f"ner={s['ner']}"],
        lambda name: "adapter_fusion_layer." in name,
    ),
}
EXPORTED_ELSEWHERE = ("bert", "roberta")  # in a normal run: tests/inference/test_onnx_export.py
WITH_TOKEN_TYPES = ("bert", "electra", "electra generator", "albert")
VARIANTS = ("electra generator", "deberta-v2, convolution")  # of encoders that have a row of their own
CASES = [
    pytest.param(encoder, kind, marks=[] if kind == "fusion" and encoder not in VARIANTS else pytest.mark.slow)
    for encoder in TINY
    for kind in TRAININGS
    if encoder != LONG
]


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    """Return the bench of an encoder, which is made when it is first used."""
    made: dict[str, Bench] = {}

    def bench(encoder: str) -> Bench:
        if encoder not in made:
            folder = tmp_path_factory.mktemp("encoder")
            write_squad(folder / "train.json", make_questions(8, 1))
            write_squad(folder / "dev.json", QUESTIONS)
            (folder / "ner.conll").write_text(CONLL * 4, encoding="utf-8")
            maker = Maker(save_tiny(encoder, folder / "base"), folder / "made")
            leaves_out = not encoder_of(maker.config).shares_layers  # MAD-X 2.0
            mlm = maker.make("mlm", "mlm", A(madx2=leaves_out))[2]
            qa = maker.make("qa", "qa", A(madx2=leaves_out), L(load_lang_adapter=str(mlm)))[2]
            ner = maker.make("ner", "ner", A(madx2=leaves_out), L(load_lang_adapter=str(mlm)))[2]
            made[encoder] = Bench(maker, {"mlm": mlm, "qa": qa, "ner": ner}, folder)
        return made[encoder]

    return bench


def command(bench: Bench, kind: str, folder: Path) -> list[object]:
    """Return the command line of a training of two epochs with two steps each."""
    training = TRAININGS[kind]
    files = {"mlm": ("train.json", None), "ner": ("ner.conll", "ner.conll")}.get(kind, ("train.json", "dev.json"))
    sizes = ["--block_size", "32"] if kind == "mlm" else ["--max_seq_length", "64"]
    return [
        "--model_name_or_path", bench.base, "--train_file", bench.folder / files[0],
        *(["--validation_file", bench.folder / files[1]] if files[1] else []), *sizes,
        *(["--doc_stride", "16"] if training.answers else []), "--do_train", "--do_eval", "--num_train_epochs", "2",
        "--per_device_train_batch_size", "4", "--learning_rate", "1e-2", "--report_to", "none",
        "--output_dir", folder, *training.options(bench.adapters),
    ]  # fmt: skip


def require_success(main: Callable[[list[str]], int], *argv: object) -> str:
    process = run_main(main, *argv)
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout


@dataclass(frozen=True)
class Trained:
    """What a training did.

    Attributes:
        model: after the training.
        before: its weights before it.
    """

    model: PreTrainedModel
    before: Weights


def train(bench: Bench, kind: str, folder: Path) -> Trained:
    """Run the script in this process and return its model."""
    trained: list[Trained] = []
    make_trainer = AdapterTrainer.__init__

    def record(trainer: AdapterTrainer, *, model: PreTrainedModel, **arguments: Any) -> None:
        make_trainer(trainer, model=model, **arguments)
        trained.append(Trained(model, {name: weight.detach().clone() for name, weight in model.named_parameters()}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdapterTrainer, "__init__", record)
        require_success(TRAININGS[kind].main, *command(bench, kind, folder))
    (one,) = trained
    return one


def check_resumed_weights(bench: Bench, kind: str, folder: Path, model: PreTrainedModel) -> None:
    """Check that a run that lost its power in the second epoch and was started again has the same bits."""
    steps = 0
    training_step = AdapterTrainer.training_step

    def stop_at_the_last_step(trainer: AdapterTrainer, *arguments: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        return training_step(trainer, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdapterTrainer, "training_step", stop_at_the_last_step)
        assert run_main(TRAININGS[kind].main, *command(bench, kind, folder)).returncode == 130
    resumed = dict(train(bench, kind, folder).model.named_parameters())
    assert {name for name, weight in model.named_parameters() if not torch.equal(weight, resumed[name])} == set()


def check_moved_weights(bench: Bench, kind: str, trained: Trained) -> None:
    """Check that the base came from its file, and that the weights of the training moved, and no others."""
    prefix = trained.model.base_model_prefix + "."
    file = load_file(bench.base / "model.safetensors")
    file = {name if name.startswith(prefix) else prefix + name: weight for name, weight in file.items()}
    base = {name for name in trained.before if name.startswith(prefix) and not ADDED.search(name)}
    for name in base:
        assert torch.equal(trained.before[name], file[name]), name
    after = dict(trained.model.named_parameters())
    moved = {name for name, weight in after.items() if not torch.equal(weight, trained.before[name])}
    output = trained.model.get_output_embeddings()  # of a masked-LM head; it is a part of the base model
    frozen = {id(weight) for weight in output.parameters()} if output is not None else set()
    head = {name for name, weight in after.items() if not name.startswith(prefix) and id(weight) not in frozen}
    expected = head | {name for name in after if name.startswith(prefix) and TRAININGS[kind].trains(name)}
    assert expected - head, "nothing beside the head is trained"
    assert moved <= expected
    assert {name for name in expected - moved if not name.endswith(NO_GRADIENT)} == set()


def check_saved_weights(bench: Bench, kind: str, folder: Path, model: PreTrainedModel) -> None:
    """Check that the saved folder gives a model with the same bits."""
    if kind == "full":
        weights = load_file(folder / "model.safetensors")
        saved = {name: weights[name] for name, _ in model.named_parameters()}
    else:
        task: Task = next((task for task in TASKS if task == kind), "qa")
        setup = setup_from_saved("--load_adapter", str(folder), task, bench.maker.config)
        labels = list((model.config.id2label or {}).values()) if task == "ner" else None
        again = load_model(bench.maker.options, task, labels)
        build_setup(again, setup)
        saved = dict(again.named_parameters())
    assert {name for name, weight in model.named_parameters() if not torch.equal(weight, saved[name])} == set()


def ask(bench: Bench, run: Path) -> list[dict[str, Any]]:
    """Return what ask_qa.py answers to the evaluation questions."""
    source, target = bench.folder / "in.jsonl", bench.folder / "out.jsonl"
    pairs = [{"id": question.id, "question": question.question, "context": question.context} for question in QUESTIONS]
    source.write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    require_success(ask_qa.main, run, "--input", source, "--output", target, "--overwrite")
    return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("encoder", "kind"), CASES)
def test_encoder(
    encoder: str, kind: str, benches: Callable[[str], Bench], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    slow = request.config.getoption("--slow")
    bench = benches(encoder)
    run = tmp_path / "run"
    trained = train(bench, kind, run)
    check_moved_weights(bench, kind, trained)
    check_saved_weights(bench, kind, run, trained.model)
    if slow:
        check_resumed_weights(bench, kind, tmp_path / "resumed", trained.model)
    if not TRAININGS[kind].answers:
        return
    asked = ask(bench, run)
    evaluated = json.loads((run / "eval_nbest_predictions.json").read_text(encoding="utf-8"))
    for answer in asked:
        best = evaluated[answer["id"]][0]
        assert (answer["answer"], answer["start"], answer["end"]) == (best["text"], best["start"], best["end"])
        assert answer["score"] == pytest.approx(best["probability"], abs=1e-5)
    if encoder in EXPORTED_ELSEWHERE and not slow:
        return
    require_success(export_qa.main, run, tmp_path / "onnx")
    graph = onnx.load(tmp_path / "onnx" / GRAPH_FILE).graph
    weights = [tensor.raw_data for tensor in graph.initializer if len(tensor.raw_data) > 1024]
    assert len(weights) == len(set(weights)) > 5  # also where layers share them
    exported = ExportedModel.load(tmp_path / "onnx")
    assert ("token_type_ids" in exported.inputs) == (encoder in WITH_TOKEN_TYPES)
    for answer, plain in zip(asked, exported.answer_all(QUESTIONS).plain(), strict=True):
        assert (plain.text, plain.start, plain.end) == (answer["answer"], answer["start"], answer["end"])
        assert plain.probability == pytest.approx(answer["score"], abs=1e-4)


def test_windows_of_8192_tokens(tmp_path: Path) -> None:
    """A context of two windows is evaluated, and answered in the same way."""
    base = save_tiny(LONG, tmp_path / "base")
    context = " ".join(question.context for question in make_questions(130, 3, sentences=8))
    question = replace(make_questions(1, 3, sentences=8)[0], context=context)
    write_squad(tmp_path / "dev.json", [question])
    setup = Maker(base, tmp_path / "made").make("qa", "qa", A(madx2=True))[2]
    run = tmp_path / "run"
    require_success(
        run_qa_adapter.main, "--model_name_or_path", base, "--validation_file", tmp_path / "dev.json", "--do_eval",
        "--max_seq_length", "8192", "--doc_stride", "512", "--per_device_eval_batch_size", "1",
        "--load_adapter", setup, "--report_to", "none", "--output_dir", run,
    )  # fmt: skip
    assert json.loads((run / "eval_results.json").read_text(encoding="utf-8"))["eval_windows"] == 2

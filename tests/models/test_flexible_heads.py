"""Adapters of AdapterHub with named heads (adapter_qa/models/flexible_heads.py), against the library's own models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
from support.encoder_configs import tiny_config
from support.problems import problem_of
from support.scripts import run_main
from transformers import AutoModel

import convert_2021_adapters
import run_ner_adapter
from adapter_qa.config.options import (
    AdapterOptions,
    FusionOptions,
    LanguageAdapterOptions,
    ModelOptions,
    TrainingOptions,
)
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.adapter_source import check_language_adapter
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import build_setup
from adapter_qa.models.file_names import ADAPTER_CONFIG, HEAD_CONFIG
from adapter_qa.models.saved_adapters import read_head
from adapter_qa.models.setup_decisions import check_head, resolve_setup, setup_from_saved
from adapter_qa.models.setup_notes import head_note, setup_notes
from adapter_qa.models.tasks import Task

IDS = torch.tensor([[5, 17, 23, 9, 41, 30, 12, 8], [6, 7, 8, 9, 10, 11, 12, 13]])
LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}
# ModernBERT has no such class in the library.
MODELS = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "deberta-v2": "DebertaV2",
          "electra": "Electra", "distilbert": "DistilBert", "albert": "Albert"}  # fmt: skip


@dataclass(frozen=True)
class Hub:
    """A plain base model, and the library's model of it with adapters and named heads."""

    base: Path
    model: Any
    folder: Path

    @property
    def config(self) -> dict[str, Any]:
        return read_base_config(ModelOptions(str(self.base)))

    def save(self, name: str) -> Path:
        """Save the adapter and the head of a name, as `push_adapter_to_hub` does; return the folder."""
        folder = self.folder / name.replace("/", "_")
        if not folder.is_dir():
            self.model.save_adapter(str(folder), name, with_head=True)
        return folder

    def logits(self, name: str) -> torch.Tensor:
        """Return what the library computes with the adapter and the head of a name."""
        self.model.set_active_adapters(name)
        with torch.no_grad():
            output = self.model(IDS, head=name)
        return output.logits if "logits" in output else torch.stack([output.start_logits, output.end_logits], -1)


def make_hub(model_type: str, folder: Path) -> Hub:
    torch.manual_seed(3)
    config = tiny_config(model_type)
    AutoModel.from_config(config).save_pretrained(folder / "base")
    model = getattr(adapters, f"{MODELS[model_type]}AdapterModel").from_pretrained(folder / "base")
    for name in ("squad", "ner/conll@ukp", "mnli", "deep"):
        model.add_adapter(name, config="seq_bn")
    model.add_qa_head("squad")
    model.add_tagging_head("ner/conll@ukp", num_labels=4, id2label=LABELS)
    model.add_classification_head("mnli", num_labels=3)
    model.add_qa_head("deep", layers=2)
    for name, weight in model.named_parameters():
        if "adapters." in name or "heads." in name:
            torch.nn.init.normal_(weight, std=0.3)
    return Hub(folder / "base", model.eval(), folder)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    return make_hub("bert", tmp_path_factory.mktemp("hub"))


def logits_of(hub: Hub, setup: AdapterSetup) -> torch.Tensor:
    labels = list(setup.saved.head.labels) if setup.saved is not None and setup.saved.head is not None else None
    model: Any = load_model(ModelOptions(str(hub.base)), setup.task, labels)
    build_setup(model, setup)
    with torch.no_grad():
        output = model.eval()(IDS)
    return output.logits if setup.task == "ner" else torch.stack([output.start_logits, output.end_logits], -1)


# ---------------------------------------------------------------- heads that are taken over


@pytest.mark.parametrize("model_type", MODELS)
def test_question_answering_and_tagging_heads_compute_the_same(model_type: str, tmp_path: Path) -> None:
    made = make_hub(model_type, tmp_path)
    heads: dict[str, Task] = {"squad": "qa", "ner/conll@ukp": "ner"}
    for name, task in heads.items():
        setup = setup_from_saved("--load_adapter", str(made.save(name)), task, made.config)
        assert setup.loads_saved_head
        torch.testing.assert_close(logits_of(made, setup), made.logits(name), rtol=0, atol=1e-6)
    assert setup.saved is not None
    assert setup.saved.head is not None
    assert setup.saved.head.labels == ("O", "B-PER", "I-PER", "B-LOC")
    assert setup_notes(setup) == [
        f"{made.save('ner/conll@ukp')}: its head ner/conll@ukp of a {MODELS[model_type]}AdapterModel has one layer, "
        "which is used as the head for named entity recognition"
    ]


def as_written_by(version: int, source: Path, folder: Path) -> Path:
    """Copy a saved adapter with its head to the form of adapter-transformers 1, 2 or 3."""
    shutil.copytree(source, folder)
    for file, weights in ((ADAPTER_CONFIG, "pytorch_adapter.bin"), (HEAD_CONFIG, "pytorch_model_head.bin")):
        path = folder / file
        document = json.loads(path.read_text())
        del document["version"]
        if version == 3:
            document["version"] = "3.2.1"
        document["model_class"] = "BertAdapterModel" if version == 3 else "BertModelWithHeads"
        state = torch.load(folder / weights, weights_only=True)
        if version == 1 and file == ADAPTER_CONFIG:
            document["type"] = "text_task"
            document["config"] = {
                "adapter_residual_before_ln": False, "attention_type": "sent-lvl-dynamic",
                "invertible_adapter": {"block_type": "nice", "non_linearity": "relu", "reduction_factor": 2},
                "ln_after": False, "ln_before": False, "mh_adapter": False, "new_attention_norm": False,
                "non_linearity": "relu", "original_ln_after": True, "original_ln_before": True,
                "output_adapter": True, "reduction_factor": 16, "residual_before_ln": True,
            }  # fmt: skip
            state = {name.replace(".adapters.", ".layer_text_task_adapters."): w for name, w in state.items()}
        if version == 1 and file == HEAD_CONFIG:
            del document["config"]["label2id"], document["config"]["dropout_prob"]
        torch.save(state, folder / weights, _use_new_zipfile_serialization=version > 1)
        path.write_text(json.dumps(document), encoding="utf-8")
    return folder


@pytest.mark.parametrize("version", [1, 2, 3])
def test_heads_of_earlier_libraries_compute_the_same(version: int, hub: Hub, tmp_path: Path) -> None:
    folder = as_written_by(version, hub.save("squad"), tmp_path / "old")
    setup = setup_from_saved("--load_adapter", str(folder), "qa", hub.config)
    torch.testing.assert_close(logits_of(hub, setup), hub.logits("squad"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["pfeiffer", "seq_bn"])
def test_a_configuration_can_be_the_name_of_a_kind(kind: str, hub: Hub, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(hub.save("squad"), tmp_path / "named"))
    change(folder / ADAPTER_CONFIG, config=kind)
    setup = setup_from_saved("--load_adapter", str(folder), "qa", hub.config)
    torch.testing.assert_close(logits_of(hub, setup), hub.logits("squad"), rtol=0, atol=1e-6)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values), encoding="utf-8")


def test_a_new_fusion_starts_from_the_head_of_its_question_answering_adapter(hub: Hub) -> None:
    folders = {"qa": hub.save("squad"), "ner": hub.save("ner/conll@ukp"), "deep": hub.save("deep")}
    fusion = FusionOptions(fuse_adapters=[f"{name}={folder}" for name, folder in folders.items()])
    setup = resolve_setup("qa", hub.config, AdapterOptions(), None, fusion)
    assert setup is not None
    assert setup.starting_head is not None
    model: Any = load_model(ModelOptions(str(hub.base)), "qa")
    build_setup(model, setup)
    assert torch.equal(model.qa_outputs.weight, hub.model.heads["squad"][1].weight)
    assert setup_notes(setup) == [
        f"{folders['qa']}: its head squad of a BertAdapterModel has one layer, which is used as the head for question "
        "answering",
        f"{folders['deep']}: its head deep has 2 layers, and only one can be taken over; it is left out",
    ]
    assert head_note(setup) == f"fusion: the head starts from that of qa, {folders['qa']}"


def test_a_file_with_several_heads_gives_the_named_one(hub: Hub, tmp_path: Path) -> None:
    """The library selects weights by a part of their name, so that the head "ner" is saved with the head "ner_2"."""
    folder = Path(shutil.copytree(hub.save("squad"), tmp_path / "several"))
    path = folder / "pytorch_model_head.bin"
    state = torch.load(path, weights_only=True)
    torch.save({f"heads.squad_2.1.{end}": torch.ones(2) for end in ("weight", "bias")} | state, path)
    setup = setup_from_saved("--load_adapter", str(folder), "qa", hub.config)
    torch.testing.assert_close(logits_of(hub, setup), hub.logits("squad"), rtol=0, atol=1e-6)


# ---------------------------------------------------------------- heads that are left out

LEFT_OUT: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "of another type": ("mnli", dict, "its head mnli is of the type classification"),
    "of two layers": ("deep", dict, "its head deep has 2 layers, and only one can be taken over"),
    "for another task": ("ner/conll@ukp", dict, "its head ner/conll@ukp is for named entity recognition"),
    "with a score": (
        "squad",
        lambda config: {**config, "num_labels": 3},
        "its head squad has 3 outputs instead of two, for start and end",
    ),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_other_heads_are_left_out_and_a_new_one_is_trained(name: str, hub: Hub, tmp_path: Path) -> None:
    saved, changed, reason = LEFT_OUT[name]
    folder = Path(shutil.copytree(hub.save(saved), tmp_path / "left_out"))
    change(folder / HEAD_CONFIG, config=changed(json.loads((folder / HEAD_CONFIG).read_text())["config"]))
    setup = resolve_setup("qa", hub.config, AdapterOptions(load_adapter=str(folder)))
    assert setup is not None
    assert not setup.loads_saved_head
    assert setup_notes(setup) == [f"{folder}: {reason}; it is left out, and a new one starts from random values"]
    model: Any = load_model(ModelOptions(str(hub.base)), "qa")
    build_setup(model, setup)
    site = "bert.encoder.layer.1.output.adapters.{}.adapter_up.weight"
    loaded = model.get_parameter(site.format(setup.tasks[0].name))
    assert torch.equal(loaded, hub.model.get_parameter(site.format(saved)))
    check_head(setup, TrainingOptions(do_train=True))
    assert problem_of(check_head, setup, TrainingOptions(do_eval=True)) == (
        f"{folder}: comes without a question answering head ({reason}); add --do_train to train one"
    )


@pytest.mark.parametrize(
    ("label2id", "reason"),
    [
        (None, "has no names for its classes (label2id)"),
        ({"O": 0, "B-PER": 2}, "has no names for its classes (label2id)"),
        ({"O": "0", "B-PER": "1"}, "has no names for its classes (label2id)"),
        ({"NOUN": 1, "VERB": 0}, "has the class VERB, which is none of O, B-TYPE and I-TYPE"),
        ({"O": 0, "S-PER": 1}, "has the class S-PER, which is none of O, B-TYPE and I-TYPE"),
    ],
)
def test_the_classes_of_a_tagging_head_must_be_those_of_entities(
    label2id: Any, reason: str, hub: Hub, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(hub.save("ner/conll@ukp"), tmp_path / "tagging"))
    config = json.loads((folder / HEAD_CONFIG).read_text())["config"]
    change(folder / HEAD_CONFIG, config={**config, "label2id": label2id})
    setup = setup_from_saved("--load_adapter", str(folder), "ner", hub.config)
    assert problem_of(check_head, setup, TrainingOptions(do_predict=True)) == (
        f"{folder}: comes without a named entity recognition head (its head ner/conll@ukp {reason}); add --do_train to "
        "train one"
    )


def test_a_run_for_a_language_adapter_uses_the_head_of_the_base_model(hub: Hub) -> None:
    head = read_head(hub.save("mnli"))
    assert head is not None
    assert str(head.note("mlm")).endswith("; it is left out, and that of the base model is used")


def test_damaged_weights_of_a_named_head_are_refused(hub: Hub, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(hub.save("squad"), tmp_path / "damaged"))
    path = folder / "pytorch_model_head.bin"
    torch.save({"heads.squad.1.weight": torch.zeros(2, 16), "heads.other.1.bias": torch.zeros(2)}, path)
    setup = setup_from_saved("--load_adapter", str(folder), "qa", hub.config)
    assert problem_of(build_setup, load_model(ModelOptions(str(hub.base)), "qa"), setup) == (
        f"{path}: 1 of 2 weights are missing or of another shape, e.g. qa_outputs.bias; the file is damaged or belongs "
        "to another model"
    )


def test_entities_are_not_scored_with_a_random_head(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "dev.conll").write_text("Ana B-PER\nnasceu O\n", encoding="utf-8")
    options = ["--model_name_or_path", hub.base, "--validation_file", tmp_path / "dev.conll", "--max_seq_length", 32]
    folder = hub.save("squad")
    result = run_main(run_ner_adapter.main, *options, "--do_eval", "--load_adapter", folder)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        f"error: {folder}: comes without a named entity recognition head (its head squad is for question answering); "
        "add --do_train to train one"
    )


# ---------------------------------------------------------------- adapters without their head


@pytest.mark.parametrize("name", ["squad", "mnli"])
def test_an_adapter_with_a_head_for_a_task_is_no_language_adapter(name: str, hub: Hub) -> None:
    folder = hub.save(name)
    assert problem_of(check_language_adapter, "--load_lang_adapter", str(folder)) == (
        f"--load_lang_adapter {folder}: holds {name}, the adapter of a BertAdapterModel, not a language adapter; give "
        "the folder of a run of run_mlm_adapter.py"
    )


def test_an_invertible_adapter_of_the_first_version_is_loaded(hub: Hub, tmp_path: Path) -> None:
    """As a language adapter: with an inverse under its old name, and without a head."""
    model: Any = adapters.BertAdapterModel.from_pretrained(hub.base)
    model.add_adapter("pt", config="seq_bn_inv")
    for name, weight in model.named_parameters():
        if "adapters." in name:
            torch.nn.init.normal_(weight, std=0.3)
    folder = tmp_path / "pt"
    model.save_adapter(str(folder), "pt", with_head=False)
    path = folder / "pytorch_adapter.bin"
    state = torch.load(path, weights_only=True)
    renamed = {
        name.replace(".invertible_adapters.", ".invertible_lang_adapters.").replace(
            ".output.adapters.", ".output.layer_text_lang_adapters."
        ): weight
        for name, weight in state.items()
    }
    torch.save(renamed, path)
    document = json.loads((folder / ADAPTER_CONFIG).read_text())
    del document["version"], document["config"]["inv_adapter"], document["config"]["inv_adapter_reduction_factor"]
    document["config"]["invertible_adapter"] = {"block_type": "nice", "non_linearity": "relu", "reduction_factor": 2}
    (folder / ADAPTER_CONFIG).write_text(json.dumps({**document, "type": "text_lang"}), encoding="utf-8")
    check_language_adapter("--load_lang_adapter", str(folder))
    lang = LanguageAdapterOptions(load_lang_adapter=str(folder))
    setup = resolve_setup("qa", hub.config, AdapterOptions(), lang)
    assert setup is not None
    built: Any = load_model(ModelOptions(str(hub.base)), "qa")
    build_setup(built, setup)
    loaded = {name: weight for name, weight in built.named_parameters() if "adapters.mlm." in name}
    assert {name.replace("adapters.mlm.", "adapters.pt."): weight.tolist() for name, weight in loaded.items()} == {
        name: weight.tolist() for name, weight in state.items()
    }


def test_an_adapter_of_a_model_without_heads_is_loaded(hub: Hub, tmp_path: Path) -> None:
    """Its weights have no prefix, and its document names no class with a head."""
    plain: Any = AutoModel.from_pretrained(hub.base)
    adapters.init(plain)
    plain.add_adapter("squad", config="seq_bn")
    weights = {name.removeprefix("bert."): weight for name, weight in hub.model.state_dict().items()}
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    plain.save_adapter(str(tmp_path / "plain"), "squad")
    setup = setup_from_saved("--load_adapter", str(tmp_path / "plain"), "qa", hub.config)
    built: Any = load_model(ModelOptions(str(hub.base)), "qa")
    build_setup(built, setup)
    plain.set_active_adapters("squad")
    with torch.no_grad():
        expected = plain.eval()(IDS).last_hidden_state
        torch.testing.assert_close(built.eval().bert(IDS).last_hidden_state, expected, rtol=0, atol=1e-6)


def test_an_adapter_without_a_name_is_refused(hub: Hub, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(hub.save("squad"), tmp_path / "nameless"))
    change(folder / ADAPTER_CONFIG, name=None)
    assert problem_of(setup_from_saved, "--load_adapter", str(folder), "qa", hub.config) == (
        f"{folder / ADAPTER_CONFIG}: does not name the adapter; give its name in the weights as 'name'"
    )


def test_what_is_converted_answers_as_before(hub: Hub, tmp_path: Path) -> None:
    """`convert_2021_adapters.py` takes folders with named heads as well."""
    as_written_by(2, hub.save("squad"), tmp_path / "old")
    assert convert_2021_adapters.main([str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    setup = setup_from_saved("--load_adapter", str(tmp_path / "new"), "qa", hub.config)
    torch.testing.assert_close(logits_of(hub, setup), hub.logits("squad"), rtol=0, atol=1e-6)

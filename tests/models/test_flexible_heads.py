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
from support.problems import problem_of
from support.tiny_encoders import tiny_config
from transformers import AutoModel

import run_qa_adapter
from adapter_qa.config.options import AdapterOptions, FusionOptions, ModelOptions, TrainingOptions
from adapter_qa.models.adapter_setup import AdapterSetup, resolve_setup, setup_from_saved
from adapter_qa.models.base_config import ENCODERS, read_base_config
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import build_setup
from adapter_qa.models.file_names import ADAPTER_CONFIG, HEAD_CONFIG
from adapter_qa.models.saved_adapters import read_head

IDS = torch.tensor([[5, 17, 23, 9, 41, 30, 12, 8], [6, 7, 8, 9, 10, 11, 12, 13]])
LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}
OLD_CLASSES = {"bert": "BertModelWithHeads", "roberta": "RobertaModelWithHeads"}
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


@pytest.mark.parametrize("model_type", [name for name in MODELS if name in ENCODERS])
def test_question_answering_and_tagging_heads_compute_the_same(model_type: str, tmp_path: Path) -> None:
    made = make_hub(model_type, tmp_path)
    for name, task in (("squad", "qa"), ("ner/conll@ukp", "ner")):
        setup = setup_from_saved("--load_adapter", str(made.save(name)), task, made.config)
        assert setup.loads_saved_head
        torch.testing.assert_close(logits_of(made, setup), made.logits(name), rtol=0, atol=1e-6)
    assert setup.saved is not None
    assert setup.saved.head is not None
    assert setup.saved.head.labels == ("O", "B-PER", "I-PER", "B-LOC")
    assert setup.notes == [
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

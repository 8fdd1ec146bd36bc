"""Folders in the format of adapter-transformers 2.1.1, written from a model of the installed library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import adapters
import torch
from adapters import AdapterConfig, Fuse, Stack

from adapter_qa.config.options import ModelOptions
from adapter_qa.models.base_model import load_model

# The keys of adapter_config.json in 2.1.1, and the content of adapter_fusion_config.json.
ADAPTER_KEYS = (
    "adapter_residual_before_ln", "cross_adapter", "inv_adapter", "inv_adapter_reduction_factor", "leave_out",
    "ln_after", "ln_before", "mh_adapter", "non_linearity", "original_ln_after", "original_ln_before",
    "output_adapter", "reduction_factor", "residual_before_ln",
)  # fmt: skip
FUSION_CONFIG = {
    "key": True, "query": True, "query_before_ln": False, "regularization": True, "residual_before": False,
    "temperature": False, "value": True, "value_before_softmax": True, "value_initialized": True,
}  # fmt: skip
REDUCTIONS = {"mlm": 2, "qa_squad": 16, "ner_lener": 8}  # of each adapter


class LegacyModel:
    """A model with a language, a QA and a NER adapter and their fusion with random weights, saved in the old format.

    Args:
        base: folder of the base model.
        kind: "seq_bn" or "double_seq_bn", which the old library called pfeiffer and houlsby.
        activation: its name in the old library.
        leave_out: layers without adapters.
        attention_only_last_layer: no adapter after the last feed-forward block; no file records it.

    Attributes:
        model: the model.
        fusion: the fusion block.
        activation: as given.
    """

    def __init__(
        self,
        base: Path,
        *,
        kind: str = "seq_bn",
        activation: str = "gelu",
        leave_out: tuple[int, ...] = (3,),
        attention_only_last_layer: bool = False,
    ):
        self.activation = activation
        torch.manual_seed(3)
        self.model: Any = load_model(ModelOptions(str(base)), "qa")
        adapters.init(self.model)
        new_name = {"gelu": "gelu_new"}.get(activation, activation)
        for name, reduction in REDUCTIONS.items():
            config = AdapterConfig.load(
                f"{kind}_inv" if name == "mlm" else kind,
                reduction_factor=reduction, non_linearity=new_name, leave_out=list(leave_out),
            )  # fmt: skip
            self.model.add_adapter(name, config=config)
            if attention_only_last_layer:
                [layer for _, layer in self.model.iter_layers()][-1].output.delete_adapter(name)
        self.fusion = Fuse("qa_squad", "ner_lener")
        self.model.add_adapter_fusion(self.fusion)
        for name, weight in self.model.named_parameters():
            if "adapter" in name or name.startswith("qa_outputs"):
                torch.nn.init.normal_(weight, std=0.3)
        self.model.eval()

    def logits(self, block: Stack | Fuse, ids: torch.Tensor) -> torch.Tensor:
        """Return the start and end logits of a setup, (2, windows, tokens)."""
        self.model.set_active_adapters(block)
        with torch.no_grad():
            output = self.model(ids)
        return torch.stack([output.start_logits, output.end_logits])

    def document(self, name: str | None, config: Any, model_class: str = "BertForQuestionAnswering") -> dict[str, Any]:
        """Return the content of a configuration file."""
        base = self.model.config
        return {
            "config": config, "hidden_size": base.hidden_size, "model_type": base.model_type,
            "model_class": model_class, "model_name": None, "name": name,
        }  # fmt: skip

    def weights(self, mark: str) -> dict[str, torch.Tensor]:
        """Return the weights with `mark` in their names."""
        return {name: weight.detach().clone() for name, weight in self.model.named_parameters() if mark in name}

    def save_adapter(self, folder: Path, name: str, *, with_head: bool = True) -> Path:
        """Write what `save_adapter` of the old library wrote."""
        config = {key: vars(self.model.adapters_config.get(name)).get(key) for key in ADAPTER_KEYS}
        config |= {"non_linearity": self.activation, "cross_adapter": False}
        self.write(folder, "adapter_config.json", self.document(name, config))
        torch.save(self.weights(f"adapters.{name}."), folder / "pytorch_adapter.bin")
        if with_head:
            self.save_head(folder)
        return folder

    def save_fusion(self, folder: Path) -> Path:
        """Write what `save_adapter_fusion` of the old library wrote."""
        self.write(folder, "adapter_fusion_config.json", self.document(self.fusion.name, FUSION_CONFIG))
        torch.save(self.weights("adapter_fusion_layer."), folder / "pytorch_model_adapter_fusion.bin")
        return folder

    def save_head(self, folder: Path, model_class: str = "BertForQuestionAnswering") -> Path:
        """Write what `save_head` of the old library wrote."""
        document = self.document(None, None, model_class)
        labels = {"LABEL_0": 0, "LABEL_1": 1}
        self.write(folder, "head_config.json", {**document, "label2id": labels, "num_labels": 2})
        torch.save(self.weights("qa_outputs"), folder / "pytorch_model_head.bin")
        return folder

    def save_all(self, folder: Path, names: tuple[str, ...] = tuple(REDUCTIONS)) -> Path:
        """Write what `save_all_adapters` of the old library wrote."""
        for name in names:
            self.save_adapter(folder / name, name)
        return folder

    def save_notebook_run(self, folder: Path) -> Path:
        """Write the folder of a run of the fusion notebook for adapter-transformers 2.x."""
        target = folder / "adapters-qa"
        self.save_fusion(target)
        self.save_all(target)
        self.save_head(target)
        (folder / "output_dir" / "checkpoint-8").mkdir(parents=True)
        return folder

    @staticmethod
    def write(folder: Path, name: str, document: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(document, indent=2, sort_keys=True), encoding="utf-8")

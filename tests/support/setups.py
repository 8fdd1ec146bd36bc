"""Setups of every kind with random weights, built and saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from adapter_qa.config.options import AdapterOptions, FusionOptions, LanguageAdapterOptions, ModelOptions, QADataOptions
from adapter_qa.models.adapter_config import new_config
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import build_setup
from adapter_qa.models.encoders import encoder_of
from adapter_qa.models.metadata import answering_options
from adapter_qa.models.save import save_setup
from adapter_qa.models.setup_decisions import resolve_setup
from adapter_qa.models.tasks import Task

# Short names for the table of setups.
A = AdapterOptions
L = LanguageAdapterOptions
F = FusionOptions


class Maker:
    """Makes setups with random weights on a base model.

    Args:
        base: folder of the base model.
        folder: folder for saved setups.
        std: standard deviation of the random weights.

    Attributes:
        options: the base model.
        config: config.json of the base model.
        metadata: metadata that is saved with every setup.
    """

    def __init__(self, base: Path, folder: Path, std: float = 0.3):
        self.options = ModelOptions(str(base))
        self.config = read_base_config(self.options)
        self.folder, self.std = folder, std
        self.metadata: dict[str, Any] = {
            "base_model": {"name_or_path": str(base), "revision": "main"},
            "windows": answering_options(QADataOptions(max_seq_length=64, doc_stride=16)).document(),
        }

    def setup(
        self, task: Task, adapter: A | None = None, lang: L | None = None, fusion: F | None = None
    ) -> AdapterSetup:
        """Resolve the setup of a task; None for default options."""
        setup = resolve_setup(task, self.config, adapter or A(), lang, fusion)
        assert setup is not None
        return setup

    def model(self, setup: AdapterSetup) -> PreTrainedModel:
        """Build a setup in a new model."""
        model = load_model(self.options, setup.task, ["O", "B-X", "I-X"] if setup.task == "ner" else None)
        build_setup(model, setup)
        model.eval()
        return model

    def make(self, name: str, task: Task, *options: Any) -> tuple[PreTrainedModel, AdapterSetup, Path]:
        """Build a setup with random trainable weights and save it under `name`; return model, setup and folder."""
        setup = self.setup(task, *options)
        model = self.model(setup)
        torch.manual_seed(len(name))
        for weight in model.parameters():
            if weight.requires_grad:
                torch.nn.init.normal_(weight, std=self.std)
        folder = self.folder / name
        save_setup(model, setup, folder, self.metadata)
        return model, setup, folder


def save_adapters(maker: Maker) -> dict[str, Path]:
    """Save adapters of every kind and return their folders, by name.

    Those that leave out a part of the last layer have it where all layers share one adapter.
    """
    leaves_out = not encoder_of(maker.config).shares_layers
    houlsby = A(adapter_config="houlsby", houlsby_MHA_lastlayer=leaves_out)
    mlm = maker.make("mlm", "mlm", A(madx2=leaves_out, language="pt"))[2]
    return {
        "mlm": mlm,
        "qa": maker.make("qa", "qa", A(madx2=leaves_out), L(load_lang_adapter=str(mlm)))[2],
        "ner": maker.make("ner", "ner", A(madx2=leaves_out, adapter_reduction_factor=4))[2],
        "qa_all": maker.make("qa_all", "qa", A())[2],
        "ner_all": maker.make("ner_all", "ner", A())[2],
        "hqa": maker.make("hqa", "qa", houlsby)[2],
        "hner": maker.make("hner", "ner", houlsby)[2],
    }


# Configurations that people have, as differences from that of pfeiffer.
PARALLEL: dict[str, Any] = {"is_parallel": True, "original_ln_before": False, "scaling": 4.0}
INVERTIBLE: dict[str, Any] = {"inv_adapter": "nice", "inv_adapter_reduction_factor": 2}
COMPACTER: dict[str, Any] = {"phm_layer": True, "reduction_factor": 4}
WORKING_CONFIGS: dict[str, dict[str, Any]] = {
    "seq_bn": {},
    "attention only": {"mh_adapter": True, "output_adapter": False},
    "both, swish, invertible": {
        **INVERTIBLE,
        "mh_adapter": True,
        "original_ln_before": False,
        "non_linearity": "swish",
    },
    "cross": {"cross_adapter": True},
    "dropout": {"dropout": 0.1},
    "gating": {"use_gating": True},
    "seed of its own": {"init_weights_seed": 42},
    "identity at first": {"init_weights": "mam_adapter"},
    "init as houlsby": {"init_weights": "houlsby"},
    "left out of a layer": {"leave_out": [0]},
    "norms before and after": {"ln_before": True, "ln_after": True},
    "norm before": {"ln_before": True},
    "residual after the norm": {"residual_before_ln": False},
    "residual after the sum": {"residual_before_ln": "post_add"},
    "parallel": {**PARALLEL, "init_weights": "mam_adapter", "reduction_factor": 2},
    "parallel, scaling learned": {**PARALLEL, "scaling": "learned"},
    "reduction by layer": {"reduction_factor": {"0": 4, "default": 16}},
    "scaling learned": {"scaling": "learned"},
    "scaling by channel": {"scaling": "channel"},
    "scaling is an integer": {"scaling": 2},
    "prelu": {"non_linearity": "prelu"},
    "prelu, invertible": {**INVERTIBLE, "non_linearity": "prelu"},
    "compacter without shared weights": {**COMPACTER, "shared_phm_rule": False},
}


def write_config(path: Path, **changes: Any) -> str:
    """Write an adapter_config.json like that of a pfeiffer adapter, with changes; return its path."""
    path.write_text(json.dumps({"config": {**new_config("pfeiffer"), **changes}, "version": "adapters.1.3.0"}))
    return str(path)


# Makes the arguments of `Maker.setup` from the folders of `save_adapters`.
Options = Callable[[dict[str, Path]], tuple[Task, A, L | None, F | None]]
SETUPS: dict[str, tuple[str, Options]] = {  # name: the composition as text, the options
    "qa": ("Stack[qa]", lambda s: ("qa", A(), None, None)),
    "lang+qa": ("Stack[mlm, qa]", lambda s: ("qa", A(madx2=True), L(load_lang_adapter=str(s["mlm"])), None)),
    "ner": ("Stack[ner]", lambda s: ("ner", A(), None, None)),
    "lang+ner": ("Stack[mlm, ner]", lambda s: ("ner", A(madx2=True), L(load_lang_adapter=str(s["mlm"])), None)),
    "mlm": ("Stack[mlm]", lambda s: ("mlm", A(), None, None)),
    "fusion": ("Fuse[qa, ner]", lambda s: ("qa", A(), None, F(fuse_adapters=[f"qa={s['qa']}", f"ner={s['ner']}"]))),
    "lang+fusion": (
        "Stack[mlm, Fuse[qa, ner]]",
        lambda s: (
            "qa",
            A(),
            L(load_lang_adapter=str(s["mlm"])),
            F(fuse_adapters=[f"qa={s['qa']}", f"ner={s['ner']}"]),
        ),
    ),
    "lang in fusion": (
        "Fuse[mlm, qa, ner]",
        lambda s: (
            "qa",
            A(),
            L(load_lang_adapter=str(s["mlm"])),
            F(fuse_adapters=[f"qa={s['qa']}", f"ner={s['ner']}"], adapter_composition="fuse"),
        ),
    ),
    "houlsby": ("Stack[qa]", lambda s: ("qa", A(adapter_config="houlsby+inv", houlsby_MHA_lastlayer=True), None, None)),
    "houlsby fusion": (
        "Stack[mlm, Fuse[a, b]]",
        lambda s: ("qa", A(), L(load_lang_adapter=str(s["mlm"])), F(fuse_adapters=[f"a={s['hqa']}", f"b={s['hner']}"])),
    ),
    "madx2 fusion": (
        "Fuse[qa, ner]",
        lambda s: ("qa", A(madx2=True), None, F(fuse_adapters=[f"qa={s['qa_all']}", f"ner={s['ner_all']}"])),
    ),
}

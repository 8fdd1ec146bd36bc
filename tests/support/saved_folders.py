"""Write saved folders that have names of weights, but no real weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from adapters.composition import AdapterCompositionBlock
from safetensors.torch import save_file

from adapter_qa.models.adapter_config import new_config
from adapter_qa.models.file_names import ADAPTER_CONFIG, SETUP_FILE

BASE_CONFIG = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 4}  # the encoder that the adapters fit


def write_adapter(folder: Path, name: str = "qa", sites: list[str] | None = None, **changes: Any) -> Path:
    """Write adapter_config.json in the library's form, and a weight for each site.

    Args:
        folder: the folder to write.
        name: of the adapter.
        sites: e.g. "0.output" or "0.attention.output"; None for those of a pfeiffer adapter.
        changes: keys of adapter_config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = new_config("pfeiffer")
    document = {"name": name, "model_type": "bert", "hidden_size": 32, "config": config, "version": "adapters.1.3.0"}
    (folder / ADAPTER_CONFIG).write_text(json.dumps({**document, **changes}), encoding="utf-8")
    sites = [f"{layer}.output" for layer in range(4)] if sites is None else sites
    weights = [f"bert.encoder.layer.{site}.adapters.{name}.adapter_up.weight" for site in sites]
    save_file({weight: torch.zeros(1) for weight in weights}, folder / "adapter.safetensors")
    return folder


def write_setup(
    folder: Path, block: AdapterCompositionBlock, language: str | None, tasks: list[str], **changes: Any
) -> Path:
    """Write the JSON of an `adapters-<task>` folder, and its adapters.

    Args:
        folder: the folder to write.
        block: the composition.
        language: name of the language adapter.
        tasks: names of the task adapters.
        changes: keys of "trainer".
    """
    folder.mkdir(parents=True, exist_ok=True)
    trainer = {
        "language_adapter": language, "tasks": tasks, "fused": len(tasks) > 1, "composition": "stack", "task": "qa",
    }  # fmt: skip
    document = {"adapter_setup": block.to_dict(), "trainer": {**trainer, **changes}}
    (folder / SETUP_FILE).write_text(json.dumps(document), encoding="utf-8")
    for name in [*([language] if language else []), *tasks]:
        write_adapter(folder / name, name)
    return folder

"""Convert folders of adapter-transformers 2.x to the current format; the weights stay bit-identical."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import adapters
import msgspec
from safetensors.torch import save_file

from adapter_qa.core.errors import UserError, raise_if_any
from adapter_qa.core.files import read_json, write_json
from adapter_qa.models.adapter_config import current_config, kind_of
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.adapter_source import sites_in_weights
from adapter_qa.models.file_names import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    FUSION_CONFIG,
    FUSION_WEIGHTS,
    HEAD_CONFIG,
    HEAD_WEIGHTS,
    SETUP_FILE,
)
from adapter_qa.models.metadata import BaseModelRecord
from adapter_qa.models.save import setup_document
from adapter_qa.models.saved_adapters import (
    ATTENTION_ONLY_LAST_LAYER,
    SavedAdapterSetup,
    is_legacy,
    read_setup,
)
from adapter_qa.models.saved_folders import is_adapter_dir
from adapter_qa.models.setup_decisions import setup_of_folder
from adapter_qa.models.tasks import Task
from adapter_qa.models.weights import find_weights, read_weights

VERSION = {"version": f"adapters.{adapters.__version__}"}  # tells the library that activations have their new names
NO_TASK = cast(Task, "none")  # recorded in a converted folder whose head has none of our tasks
TIED = re.compile(r"\.decoder\.(weight|bias)$")  # in an MLM head; they are the embeddings of the base model


@dataclass(frozen=True)
class LegacySave:
    """A saved folder of adapter-transformers 2.x; its path is relative to the folder that was searched."""

    path: Path
    saved: SavedAdapterSetup
    setup: AdapterSetup

    def summary(self) -> dict[str, Any]:
        """Describe the folder as JSON data."""
        return {
            "folder": str(self.path),
            "setup": str(self.setup.block),
            "adapters": {
                source.name: {key: source.config[key] for key in ("non_linearity", "reduction_factor", "leave_out")}
                | {"kind": kind_of(source.config), ATTENTION_ONLY_LAST_LAYER: source.attention_only_last_layer}
                for source in self.setup.adapters
            },
            "head": self.saved.head.model_class if self.saved.head is not None else None,
        }

    def base_model_name(self) -> str | None:
        """Return the hub id of the base model that the adapters recorded, if they agree on one."""
        names = {read_json(path / ADAPTER_CONFIG).get("model_name") for path in self.saved.adapters.values()} - {None}
        return str(names.pop()) if len(names) == 1 else None


# ---------------------------------------------------------------- search


def find_legacy_saves(top: Path, base_config: dict[str, Any] | None) -> list[LegacySave]:
    """Find every folder of adapter-transformers 2.x in a folder, or this folder itself.

    The adapters inside a fusion's folder are a part of it. Links to folders are not followed. The adapters must fit the
    base model of `base_config`; None for the encoder that they recorded.

    Raises:
        UserError: if no such folder is found, or one of them cannot be read.
    """
    saves, problems = [], []
    for name, folders, _ in os.walk(top):
        folder = Path(name)
        folders.sort()
        if not (is_adapter_dir(folder) or _holds_parts_of_a_setup(folder)):
            continue
        folders.clear()
        if (folder / SETUP_FILE).is_file():
            continue
        try:
            saved = read_setup(folder)
            if any(is_legacy(read_json(path / ADAPTER_CONFIG)) for path in saved.adapters.values()):
                task = saved.head.task if saved.head is not None else None
                setup = setup_of_folder(saved, task or NO_TASK, base_config or _recorded_encoder(saved))
                saves.append(LegacySave(folder.relative_to(top), saved, setup))
        except UserError as error:
            problems += error.problems
    raise_if_any(problems)
    if not saves:
        raise UserError(f"{top}: holds no adapters of adapter-transformers 2.x (an {ADAPTER_CONFIG} without a version)")
    return saves


def _holds_parts_of_a_setup(folder: Path) -> bool:
    """Return whether adapters in the folder belong together; those in `adapters-*` folders are separate setups."""
    return any(not path.parent.name.startswith("adapters-") for path in folder.glob(f"*/{ADAPTER_CONFIG}"))


def _recorded_encoder(saved: SavedAdapterSetup) -> dict[str, Any]:
    """Return kind and size of the encoder as the adapters show them, with the keys of config.json."""
    documents = {path: read_json(path / ADAPTER_CONFIG) for path in saved.adapters.values()}
    layers = {site.layer for path in documents for site in sites_in_weights(path)}
    for path, document in documents.items():
        layers |= set(current_config(document, path)["leave_out"])
    first = next(iter(documents.values()))
    return {key: first.get(key) for key in ("model_type", "hidden_size")} | {
        "num_hidden_layers": 1 + max(layers, default=-1)
    }


# ---------------------------------------------------------------- conversion


def convert(save: LegacySave, target: Path, base_model: BaseModelRecord) -> None:
    """Write a folder in the current format, which records `base_model`.

    Raises:
        UserError: if weights are damaged.
        OSError: if the folder cannot be written.
    """
    setup, saved = save.setup, save.saved
    target.mkdir(parents=True, exist_ok=True)
    for source in setup.adapters:
        folder = saved.adapters[source.name]
        document = read_json(folder / ADAPTER_CONFIG)
        document |= {"config": current_config(document, folder), **VERSION}
        if source.attention_only_last_layer:
            document[ATTENTION_ONLY_LAST_LAYER] = True
        (target / source.name).mkdir()
        write_json(target / source.name / ADAPTER_CONFIG, document)
        _convert_weights(folder, target / source.name, ADAPTER_WEIGHTS)
    if setup.fusion is not None and saved.fusion is not None:
        _convert_fusion(saved.fusion, target / setup.fusion.name)
    if saved.head is not None:
        write_json(target / HEAD_CONFIG, read_json(saved.head.folder / HEAD_CONFIG) | VERSION)
        _convert_weights(saved.head.folder, target, HEAD_WEIGHTS)
    metadata = {
        "base_model": msgspec.structs.asdict(base_model),
        "tokenizer": None,
        "language": None,
        "converted_from": str(save.path),
    }
    write_json(target / SETUP_FILE, setup_document(setup, metadata))


def _convert_fusion(folder: Path, target: Path) -> None:
    document = read_json(folder / FUSION_CONFIG)
    document |= {"config": {"dropout_prob": None, **(document.get("config") or {})}, **VERSION}
    target.mkdir()
    write_json(target / FUSION_CONFIG, document)
    _convert_weights(folder, target, FUSION_WEIGHTS)


def _convert_weights(folder: Path, target: Path, names: tuple[str, str]) -> None:
    """Write weights as safetensors, without tied ones; as copies that share no memory, which safetensors requires."""
    weights = read_weights(find_weights(folder, *names))
    state = {name: weight.contiguous().clone() for name, weight in weights.items() if not TIED.search(name)}
    save_file(state, target / names[0], metadata={"format": "pt"})

"""Convert folders of adapter-transformers 2.x to the current format; the weights stay bit-identical."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adapters
import msgspec
from adapters.utils import (
    ADAPTERFUSION_WEIGHTS_NAME,
    HEAD_WEIGHTS_NAME,
    SAFE_ADAPTERFUSION_WEIGHTS_NAME,
    SAFE_HEAD_WEIGHTS_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_NAME,
)
from safetensors.torch import save_file
from torch import Tensor

from adapter_qa.core.errors import UserError, raise_if_any
from adapter_qa.core.files import read_json, write_json
from adapter_qa.models.adapter_setup import AdapterSetup, setup_of_folder
from adapter_qa.models.adapter_source import current_config, is_legacy, sites_in_weights
from adapter_qa.models.file_names import ADAPTER_CONFIG, FUSION_CONFIG, HEAD_CONFIG, SETUP_FILE
from adapter_qa.models.metadata import BaseModelRecord
from adapter_qa.models.save import setup_document
from adapter_qa.models.saved_adapters import (
    ATTENTION_ONLY_LAST_LAYER,
    SavedAdapterSetup,
    is_adapter_dir,
    read_setup,
)
from adapter_qa.models.weights import read_weights, weights_file

VERSION = {"version": f"adapters.{adapters.__version__}"}  # tells the library that activations have their new names
TIED = re.compile(r"\.decoder\.(weight|bias)$")  # in a head for masked tokens: the embeddings of the base model


@dataclass(frozen=True)
class LegacySave:
    """A saved folder of adapter-transformers 2.x.

    Attributes:
        path: where it is, relative to the folder that was searched.
        saved: the files in it.
        setup: the setup that they make.
    """

    path: Path
    saved: SavedAdapterSetup
    setup: AdapterSetup

    def summary(self) -> dict[str, Any]:
        """Return what it holds, as JSON data."""
        return {
            "folder": str(self.path),
            "setup": str(self.setup.block),
            "adapters": {
                source.name: {key: source.config[key] for key in ("non_linearity", "reduction_factor", "leave_out")}
                | {"kind": _kind(source.config), ATTENTION_ONLY_LAST_LAYER: source.attention_only_last_layer}
                for source in self.setup.adapters
            },
            "head": self.saved.head.model_class if self.saved.head is not None else None,
        }

    def base_model_name(self) -> str | None:
        """Return the hub id of the base model that the adapters recorded, if they agree on one."""
        names = {read_json(path / ADAPTER_CONFIG).get("model_name") for path in self.saved.adapters.values()} - {None}
        return str(names.pop()) if len(names) == 1 else None


def _kind(config: dict[str, Any]) -> str:
    return ("houlsby" if config["mh_adapter"] else "pfeiffer") + ("+inv" if config["inv_adapter"] else "")


# ---------------------------------------------------------------- finding


def find_legacy_saves(top: Path, base_config: dict[str, Any] | None) -> list[LegacySave]:
    """Find every folder of adapter-transformers 2.x in a folder, which may be one itself.

    The adapters inside a fusion's folder are a part of it. Links to folders are not followed.

    Args:
        top: where to search.
        base_config: config.json of the base model that adapters must fit; None for the encoder that they recorded.

    Raises:
        UserError: if there is no such folder, or some cannot be read.
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
                task = saved.head.task if saved.head is not None and saved.head.task is not None else "none"
                setup = setup_of_folder(saved, task, base_config or _recorded_encoder(saved))
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
    """Write a folder in the current format.

    Args:
        save: what to convert.
        target: the folder to write to.
        base_model: the base model, to record it.

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
        _write_weights(target / source.name / SAFE_WEIGHTS_NAME, _read_weights(folder, SAFE_WEIGHTS_NAME, WEIGHTS_NAME))
    if setup.fusion is not None and saved.fusion is not None:
        _convert_fusion(saved.fusion, target / setup.fusion.name)
    if saved.head is not None:
        _convert_head(saved.head.folder, target)
    metadata = {
        "base_model": msgspec.structs.asdict(base_model),
        "tokenizer": None,
        "language": None,
        "converted_from": str(save.path),
    }
    write_json(target / SETUP_FILE, setup_document(setup, metadata, with_head=setup.task in ("qa", "ner")))


def _convert_fusion(folder: Path, target: Path) -> None:
    document = read_json(folder / FUSION_CONFIG)
    document |= {"config": {"dropout_prob": None, **(document.get("config") or {})}, **VERSION}
    target.mkdir()
    write_json(target / FUSION_CONFIG, document)
    state = _read_weights(folder, SAFE_ADAPTERFUSION_WEIGHTS_NAME, ADAPTERFUSION_WEIGHTS_NAME)
    _write_weights(target / SAFE_ADAPTERFUSION_WEIGHTS_NAME, state)


def _convert_head(folder: Path, target: Path) -> None:
    write_json(target / HEAD_CONFIG, read_json(folder / HEAD_CONFIG) | VERSION)
    state = _read_weights(folder, SAFE_HEAD_WEIGHTS_NAME, HEAD_WEIGHTS_NAME)
    own = {name: weight for name, weight in state.items() if not TIED.search(name)}
    _write_weights(target / SAFE_HEAD_WEIGHTS_NAME, own)


def _read_weights(folder: Path, *names: str) -> dict[str, Tensor]:
    """Read weights as copies that share no memory, which safetensors requires."""
    return {name: weight.contiguous().clone() for name, weight in read_weights(weights_file(folder, *names)).items()}


def _write_weights(path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, path, metadata={"format": "pt"})

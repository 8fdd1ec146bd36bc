"""Folders saved in 2021, rewritten in the present format; the same weights, bit for bit."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adapters
from adapters.utils import (
    ADAPTERFUSION_WEIGHTS_NAME,
    HEAD_WEIGHTS_NAME,
    SAFE_ADAPTERFUSION_WEIGHTS_NAME,
    SAFE_HEAD_WEIGHTS_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_NAME,
)
from safetensors.torch import save_file

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json
from adapter_qa.models.adapter_setup import AdapterSetup, setup_from_saved
from adapter_qa.models.build import setup_document
from adapter_qa.models.saved_adapters import (
    ADAPTER_CONFIG,
    ATTENTION_ONLY_LAST_LAYER,
    FUSION_CONFIG,
    HEAD_CONFIG,
    PLACE,
    SETUP_FILE,
    SavedAdapterSetup,
    config_of,
    is_adapter_dir,
    is_old,
    read_setup,
)
from adapter_qa.models.weights import read_weights, weight_names, weights_file
from adapter_qa.runs.model_card import TASKS, write_card

VERSION = {"version": f"adapters.{adapters.__version__}"}  # tells the library that activations have today's names
TIED = re.compile(r"\.decoder\.(weight|bias)$")  # of a masked-LM head: the base's embeddings


@dataclass(frozen=True)
class OldSave:
    """One saved folder of 2021.

    Attributes:
        relative: where it is under the folder that was searched.
        plan: its setup.
    """

    relative: Path
    plan: AdapterSetup

    @property
    def setup(self) -> SavedAdapterSetup:
        assert self.plan.saved is not None
        return self.plan.saved

    def described(self) -> dict[str, Any]:
        """What it holds, as plain data."""
        head = self.setup.head
        return {
            "folder": str(self.relative),
            "setup": str(self.plan.block),
            "adapters": {
                source.name: {key: source.config[key] for key in ("non_linearity", "reduction_factor", "leave_out")}
                | {"kind": kind_of(source.config), ATTENTION_ONLY_LAST_LAYER: source.attention_only_last_layer}
                for source in self.plan.adapters
            },
            "head": head.model_class if head is not None else None,
        }


def kind_of(config: dict[str, Any]) -> str:
    """The 2021 name of an adapter's kind."""
    return ("houlsby" if config["mh_adapter"] else "pfeiffer") + ("+inv" if config["inv_adapter"] else "")


def find_old_saves(top: Path, base_config: dict[str, Any] | None) -> list[OldSave]:
    """Every folder of 2021 in a folder, itself included; what is inside a fusion's folder belongs to it.

    Args:
        top: where to look; links to folders are not followed.
        base_config: config.json of the base model to compare with; None takes the encoder from the adapters.

    Raises:
        UserError: there is none, or some of them cannot be read.
    """
    found, problems = [], []
    for name, inside, _ in os.walk(top):
        folder = Path(name)
        inside.sort()
        together = any(not path.parent.name.startswith("adapters-") for path in folder.glob(f"*/{ADAPTER_CONFIG}"))
        if not (is_adapter_dir(folder) or together):
            continue
        inside.clear()
        if (folder / SETUP_FILE).is_file():
            continue
        try:
            setup = read_setup(folder)
            if any(is_old(read_json(path / ADAPTER_CONFIG)) for path in setup.adapters.values()):
                task = setup.head.task if setup.head is not None and setup.head.task is not None else "none"
                plan = setup_from_saved("OLD", str(folder), task, base_config or _encoder_of(setup))
                found.append(OldSave(folder.relative_to(top), plan))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    if not found:
        raise UserError(f"{top}: holds no adapters saved in 2021 (an {ADAPTER_CONFIG} without a version)")
    return found


def _encoder_of(setup: SavedAdapterSetup) -> dict[str, Any]:
    """Kind and size of the encoder that adapters were saved from, as far as they tell."""
    layers = 0
    documents = [read_json(path / ADAPTER_CONFIG) for path in setup.adapters.values()]
    for document, path in zip(documents, setup.adapters.values(), strict=True):
        places = map(PLACE.search, weight_names(weights_file(path, SAFE_WEIGHTS_NAME, WEIGHTS_NAME)))
        left_out = config_of(document, path)["leave_out"]
        layers = max([layers, *(1 + int(place[1]) for place in places if place), *(1 + one for one in left_out)])
    return {key: documents[0].get(key) for key in ("model_type", "hidden_size")} | {"num_hidden_layers": layers}


def convert(old: OldSave, target: Path, base_model: dict[str, Any]) -> None:
    """Writes the present form of a folder of 2021.

    Args:
        old: what to convert.
        target: a folder to make.
        base_model: `name_or_path`, `revision` and `fingerprint` of the base; each may be None.
    """
    plan, setup = old.plan, old.setup
    target.mkdir(parents=True)
    for source in plan.adapters:
        folder = setup.adapters[source.name]
        document = read_json(folder / ADAPTER_CONFIG)
        document |= {
            "config": config_of(document, folder),
            **VERSION,
            **({ATTENTION_ONLY_LAST_LAYER: True} if source.attention_only_last_layer else {}),
        }
        _write(
            target / source.name,
            ADAPTER_CONFIG,
            document,
            SAFE_WEIGHTS_NAME,
            _weights(folder, SAFE_WEIGHTS_NAME, WEIGHTS_NAME),
        )
    if plan.fusion is not None and setup.fusion is not None:
        document = read_json(setup.fusion / FUSION_CONFIG)
        document |= {"config": {"dropout_prob": None, **document["config"]}, **VERSION}
        state = _weights(setup.fusion, SAFE_ADAPTERFUSION_WEIGHTS_NAME, ADAPTERFUSION_WEIGHTS_NAME)
        _write(target / plan.fusion.name, FUSION_CONFIG, document, SAFE_ADAPTERFUSION_WEIGHTS_NAME, state)
    if setup.head is not None:
        document = read_json(setup.head.folder / HEAD_CONFIG) | VERSION
        state = _weights(setup.head.folder, SAFE_HEAD_WEIGHTS_NAME, HEAD_WEIGHTS_NAME)
        state = {name: weight for name, weight in state.items() if not TIED.search(name)}
        _write(target, HEAD_CONFIG, document, SAFE_HEAD_WEIGHTS_NAME, state)
    facts = {"base_model": base_model, "tokenizer": None, "language": None, "converted_from": str(old.relative)}
    _write_json(target / SETUP_FILE, setup_document(plan, facts, with_head=plan.task in ("qa", "ner")))
    if plan.task in TASKS:
        write_card(target, {})


def recorded_model_name(old: OldSave) -> str | None:
    """The hub id of the base model that the adapters name, if they do."""
    names = {read_json(path / ADAPTER_CONFIG).get("model_name") for path in old.setup.adapters.values()} - {None}
    return str(names.pop()) if len(names) == 1 else None


def _weights(folder: Path, *names: str) -> dict[str, Any]:
    """Weights that share no memory, as safetensors wants them."""
    return {name: weight.contiguous().clone() for name, weight in read_weights(weights_file(folder, *names)).items()}


def _write(folder: Path, config_name: str, config: dict[str, Any], weights_name: str, state: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / config_name, config)
    save_file(state, folder / weights_name, metadata={"format": "pt"})


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")

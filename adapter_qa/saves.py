"""What a saved folder holds, read as plain data: adapters, fusion, head, and the JSON that puts them together.

A folder `adapters-<task>/` is the library's own layout (`save_adapter_setup`), so that plain `adapters` code loads it:

    adapter_setup.json          the composition, and beside it what we add: task, base model, windows, versions
    <name>/                     one folder an adapter: adapter_config.json, adapter.safetensors
    <name>,<name>/              the fusion: adapter_fusion_config.json, model_adapter_fusion.safetensors
    head_config.json, model_head.safetensors
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.utils import CONFIG_NAME as ADAPTER_CONFIG
from adapters.utils import SETUP_CONFIG_NAME as SETUP_FILE
from huggingface_hub import snapshot_download

from adapter_qa.arguments import ADAPTER_NAME
from adapter_qa.basemodel import HUB_ID
from adapter_qa.errors import UserError

FULL_FILE = "full_setup.json"  # beside a fully fine-tuned model, in place of adapter_setup.json
TRICK = "houlsby_MHA_lastlayer"  # key in adapter_config.json: no adapter after the last feed-forward block


@dataclass(frozen=True)
class AdapterSource:
    """One adapter of a setup: where it comes from and what it is.

    Attributes:
        name: its name within the model.
        config: its full configuration, as in adapter_config.json under "config".
        folder: where its weights are; None for a fresh one.
        trick: it stands after the attention block only in the last layer (see `TRICK`).
        language: language code recorded with it, if any.
    """

    name: str
    config: dict[str, Any]
    folder: Path | None = None
    trick: bool = False
    language: str | None = None

    def stands_at(self, layer: int, location: str, layers: int) -> bool:
        """Whether it has a module in `layer` (from 0) at `location` ("mh_adapter" or "output_adapter")."""
        if layer in self.config["leave_out"] or not self.config[location]:
            return False
        return not (self.trick and layer == layers - 1 and location == "output_adapter")


@dataclass(frozen=True)
class SavedSetup:
    """A whole `adapters-<task>` folder.

    Attributes:
        folder: where it is.
        document: its adapter_setup.json.
        language: name of the language adapter under the task, if there is one.
        tasks: names of the task adapters, in fusion order where they are fused.
        fused: whether a fusion layer joins them.
        composition: "stack" or "fuse", how the language adapter joins the fusion.
    """

    folder: Path
    document: dict[str, Any]
    language: str | None
    tasks: tuple[str, ...]
    fused: bool
    composition: str


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a saved folder.

    Raises:
        UserError: it cannot be read, or is no object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); the folder is damaged or incomplete") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: holds a {type(document).__name__} where an object is expected")
    return document


def find_folder(option: str, given: str) -> Path:
    """The folder that an option means: a local one, the only adapters-* of a run folder, or a hub id's download.

    Raises:
        UserError: there is no such folder, or it holds no or several saved adapters.
    """
    folder = Path(given)
    if not folder.is_dir():
        if not HUB_ID.fullmatch(given) or "/" not in given:
            raise UserError(
                f"{option} {given}: no such folder; give an adapters-<task> folder or a hub id such as org/name"
            )
        try:
            folder = Path(snapshot_download(given))
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{option} {given}: no such folder, and the hub has it neither ({reason})") from error
    if (folder / SETUP_FILE).is_file() or (folder / ADAPTER_CONFIG).is_file():
        return folder
    inside = sorted(path.parent for path in folder.glob(f"adapters-*/{SETUP_FILE}"))
    if len(inside) == 1:
        return inside[0]
    held = (
        f"holds {', '.join(path.name for path in inside)}" if inside else f"holds no {SETUP_FILE} or {ADAPTER_CONFIG}"
    )
    raise UserError(f"{option} {given}: {held}; give the adapters-<task> folder of a finished run")


def read_setup(folder: Path) -> SavedSetup:
    """Reads adapter_setup.json.

    Raises:
        UserError: the file is damaged, or holds a composition that this trainer does not make.
    """
    document = read_json(folder / SETUP_FILE)
    try:
        names = _flatten(document["adapter_setup"])
        ours = document["trainer"]
        setup = SavedSetup(
            folder, document, ours["language_adapter"], tuple(ours["tasks"]), ours["fused"], ours["composition"]
        )
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{folder / SETUP_FILE}: not written by this trainer, or damaged ({error!r})") from error
    members = ([setup.language] if setup.language else []) + list(setup.tasks)
    if members != names or not all(ADAPTER_NAME.fullmatch(name) for name in names):
        raise UserError(f"{folder / SETUP_FILE}: its composition {names} and its members {members} disagree")
    return setup


def _flatten(block: dict[str, Any]) -> list[str]:
    """Adapter names of a composition in the library's JSON form, in order."""
    if block["type"] == "single":
        return [str(block["children"][0])]
    return [name for child in block["children"] for name in _flatten(child)]


def read_adapter(folder: Path, name: str, base_config: dict[str, Any]) -> AdapterSource:
    """One saved adapter, under the name it is to have in the model.

    Raises:
        UserError: the folder is damaged, the adapter is for another encoder, or it is no bottleneck adapter.
    """
    document = read_json(folder / ADAPTER_CONFIG)
    config = document.get("config")
    problems = []
    for key in ("model_type", "hidden_size"):
        if document.get(key) != base_config.get(key):
            problems.append(
                f"{folder}: its {key} is {document.get(key)}, the base model's {base_config.get(key)}; "
                "an adapter fits only the kind and size of encoder it was trained on"
            )
    if not isinstance(config, dict) or not {"mh_adapter", "output_adapter", "reduction_factor"} <= set(config):
        problems.append(
            f"{folder}: no bottleneck adapter; only pfeiffer and houlsby kinds can be stacked and fused here"
        )
    if problems or not isinstance(config, dict):
        raise UserError(problems)
    config = {**config, "leave_out": list(config.get("leave_out") or [])}
    return AdapterSource(name, config, folder, bool(document.get(TRICK)), document.get("language"))


def read_any_adapter(option: str, given: str, name: str | None, base_config: dict[str, Any]) -> AdapterSource:
    """The one adapter that a path means: itself, or the task adapter of a saved setup.

    Args:
        option: the option's name, for messages.
        given: path or hub id.
        name: its name in the model; None keeps the saved one.
        base_config: config.json of the base model.

    Raises:
        UserError: not found, damaged, not fitting, or a fusion where one adapter is wanted.
    """
    folder = find_folder(option, given)
    if not (folder / SETUP_FILE).is_file():
        saved_name = str(read_json(folder / ADAPTER_CONFIG).get("name"))
        return read_adapter(folder, name or saved_name, base_config)
    setup = read_setup(folder)
    if len(setup.tasks) > 1:
        members = ", ".join(str(folder / task) for task in setup.tasks)
        raise UserError(f"{option} {given}: holds a fusion; give one of its adapters: {members}")
    return read_adapter(folder / setup.tasks[0], name or setup.tasks[0], base_config)

"""One adapter of a setup: its configuration, and the saved folder that its weights come from."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from adapters import AdapterConfig, BnConfig
from adapters.utils import ACTIVATION_RENAME
from transformers.activations import ACT2FN

from adapter_qa.config.options import ADAPTER_CONFIGS
from adapter_qa.core.errors import UserError, raise_if_any
from adapter_qa.core.files import read_json
from adapter_qa.models.file_names import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from adapter_qa.models.saved_adapters import (
    ATTENTION_ONLY_LAST_LAYER,
    find_folder,
    is_for_language,
    read_setup,
    task_of_class,
)
from adapter_qa.models.weights import weight_names, weights_file

LOCATIONS = ("mh_adapter", "output_adapter")  # after the attention block, after the feed-forward block
KIND_KEYS = (*LOCATIONS, "inv_adapter")  # what distinguishes pfeiffer, houlsby and the kinds with +inv
ACTIVATIONS = {*ACT2FN, "leakyrelu"}
TASK_REDUCTION = 16  # Pfeiffer et al. (2021), section 3; also the library's default
LANGUAGE_REDUCTION = 2  # MAD-X (Pfeiffer et al., 2020), section 4.2: language adapters of half the hidden size
SMALLEST_REDUCTION = 1 / 16  # a smaller one makes a bottleneck that fills the memory
# The name of an adapter's weight; groups: layer, "attention." or nothing, name of the adapter.
MODULE = re.compile(r"layer\.(\d+)\.(attention\.)?output\.adapters\.([^.]+)\.")


class AdapterSite(NamedTuple):
    """A position in the encoder where an adapter can have a module: a layer, from 0, and one of `LOCATIONS`."""

    layer: int
    location: str

    def __str__(self) -> str:
        return f"layer {self.layer} ({self.location})"


@dataclass(frozen=True)
class AdapterSource:
    """One adapter of a setup.

    Attributes:
        config: its full configuration, in the terms of the installed library.
        folder: where its weights are; None for a new adapter.
        attention_only_last_layer: whether its module after the last feed-forward block is left out.
        language: language code recorded with it, if any.
        is_legacy: whether adapter-transformers 2.x saved it.
        note: for the user: an assumption that was made to read the folder.
    """

    name: str
    config: dict[str, Any]
    folder: Path | None = None
    attention_only_last_layer: bool = False
    language: str | None = None
    is_legacy: bool = False
    note: str | None = None

    def sites(self, layers: int) -> set[AdapterSite]:
        """Return the sites where it has modules in an encoder with this number of layers."""
        sites = {
            AdapterSite(layer, location)
            for layer in range(layers)
            for location in LOCATIONS
            if self.config[location] and layer not in self.config["leave_out"]
        }
        return sites - {AdapterSite(layers - 1, "output_adapter")} if self.attention_only_last_layer else sites


# ---------------------------------------------------------------- configurations


def new_config(
    kind: str,
    reduction_factor: float | None = None,
    non_linearity: str | None = None,
    default_reduction: int = TASK_REDUCTION,
) -> dict[str, Any]:
    """Return the full configuration of a new adapter.

    `kind` is a key of `ADAPTER_CONFIGS`, for which there is a default reduction factor, or the path of an
    adapter_config.json. None leaves a value to the kind.

    Raises:
        UserError: if the file holds no configuration of a bottleneck adapter.
    """
    if kind in ADAPTER_CONFIGS:
        config = AdapterConfig.load(ADAPTER_CONFIGS[kind], reduction_factor=default_reduction, leave_out=[]).to_dict()
    else:
        document = read_json(kind)  # the configuration is under "config", or is the document itself
        config = current_config(document if "config" in document else {"config": document, "version": None}, kind)
        if not {*KIND_KEYS, "non_linearity"} <= set(config):
            raise UserError(f"{kind}: holds no configuration of a pfeiffer or houlsby adapter")
    changes = {"reduction_factor": reduction_factor, "non_linearity": non_linearity}
    return {**config, **{key: value for key, value in changes.items() if value is not None}}


def current_config(document: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Check the configuration in an adapter_config.json and return it in the terms of the installed library.

    Before version 3 of the library, "gelu" was the tanh approximation that is now "gelu_new" (`ACTIVATION_RENAME`).

    Raises:
        UserError: if this is not the configuration of a bottleneck adapter, or a value in it is invalid.
    """
    config = document.get("config")
    if not isinstance(config, dict) or not {*LOCATIONS, "reduction_factor"} <= set(config):
        raise UserError(
            f"{path}: not a bottleneck adapter; only pfeiffer and houlsby kinds can be stacked and fused here"
        )
    config = {**config, "leave_out": config.get("leave_out") or []}
    invalid = [f"{key} {value!r}" for key, value in config.items() if not _is_valid(key, value)]
    if config.get("inv_adapter") and config.get("inv_adapter_reduction_factor") is None:
        invalid.append("inv_adapter without inv_adapter_reduction_factor")
    if invalid:
        raise UserError(f"{path}: invalid configuration of a bottleneck adapter: {', '.join(invalid)}")
    if is_legacy(document) and "non_linearity" in config:
        config["non_linearity"] = ACTIVATION_RENAME.get(config["non_linearity"], config["non_linearity"])
    return config


def _is_valid(key: str, value: Any) -> bool:
    """Return whether the library can build an adapter with this value in its configuration."""
    if key not in BnConfig.__dataclass_fields__:
        return key == "architecture" and value is None
    if key in ("reduction_factor", "inv_adapter_reduction_factor"):
        factors = value.values() if isinstance(value, dict) else [value]
        return all(map(is_valid_reduction, factors)) or (key != "reduction_factor" and value is None)
    if key == "leave_out":
        return isinstance(value, list) and all(type(layer) is int for layer in value)
    if key == "non_linearity":
        return isinstance(value, str) and value.lower() in ACTIVATIONS
    if key == "inv_adapter":
        return value in (None, "nice", "glow")
    if isinstance(value, str) and value in ("learned", "post_add"):
        return (key, value) in (("scaling", "learned"), ("residual_before_ln", "post_add"))
    default = BnConfig.__dataclass_fields__[key].default
    types = {bool: (bool,), float: (int, float), int: (int,), str: (str,)}.get(type(default), (bool, type(None)))
    return type(value) in types or (key, value) == ("init_weights_seed", None)


def is_valid_reduction(factor: Any) -> bool:
    """Return whether a value is a reduction factor; a bottleneck has at most 16 times the hidden size."""
    return type(factor) in (int, float) and SMALLEST_REDUCTION <= factor < math.inf


def kind_of(config: dict[str, Any]) -> str:
    """Return the short name of a configuration's kind, e.g. `pfeiffer+inv`."""
    return ("houlsby" if config["mh_adapter"] else "pfeiffer") + ("+inv" if config["inv_adapter"] else "")


def is_legacy(document: dict[str, Any]) -> bool:
    """Return whether adapter-transformers 2.x, which recorded no version, wrote an adapter_config.json."""
    return "version" not in document


# ---------------------------------------------------------------- saved adapters


def read_adapter(folder: Path, name: str, base_config: dict[str, Any]) -> AdapterSource:
    """Read a saved adapter that gets `name` in the model: its configuration, and the names of its weights.

    Raises:
        UserError: if the folder is damaged, or the adapter is not a bottleneck adapter for this encoder.
    """
    document = read_json(folder / ADAPTER_CONFIG)
    problems = [
        f"{folder}: its {key} is {document.get(key)}, the base model's {base_config.get(key)}; "
        "an adapter fits only the kind and size of encoder it was trained on"
        for key in ("model_type", "hidden_size")
        if document.get(key) != base_config.get(key)
    ]
    try:
        config = current_config(document, folder)
    except UserError as error:
        raise UserError(problems + error.problems) from error
    raise_if_any(problems)
    source = AdapterSource(
        name,
        config,
        folder,
        attention_only_last_layer=bool(document.get(ATTENTION_ONLY_LAST_LAYER)),
        language=document.get("language"),
        is_legacy=is_legacy(document),
    )
    sites = sites_in_weights(folder, str(document.get("name")))
    return _compare_with_weights(source, sites, int(base_config["num_hidden_layers"]))


def sites_in_weights(folder: Path, name: str | None = None) -> set[AdapterSite]:
    """Return the sites for which a saved adapter's file has weights; `name` is the saved one, None for any."""
    matches = map(MODULE.search, weight_names(weights_file(folder, *ADAPTER_WEIGHTS)))
    return {
        AdapterSite(int(match[1]), "mh_adapter" if match[2] else "output_adapter")
        for match in matches
        if match is not None and name in (None, match[3])
    }


def _compare_with_weights(source: AdapterSource, sites: set[AdapterSite], layers: int) -> AdapterSource:
    """Check that an adapter has weights for all its sites; return it with `attention_only_last_layer` as they show it.

    adapter-transformers 2.x did not record whether an adapter has no module after the last feed-forward block.
    """
    saved_layers = 1 + max((site.layer for site in sites), default=-1)
    if saved_layers > layers:
        raise UserError(f"{source.folder}: has weights for {saved_layers} layers, the base model has {layers}")
    missing = sorted(source.sites(layers) - sites)
    if missing == [AdapterSite(layers - 1, "output_adapter")] and source.config["mh_adapter"]:
        note = (
            f"{source.folder}: has no weights after the last feed-forward block; it was trained with "
            "--houlsby_MHA_lastlayer True and is used in the same way"
        )
        return replace(source, attention_only_last_layer=True, note=note)
    if missing:
        listed = ", ".join(map(str, missing[:3])) + (" ..." if len(missing) > 3 else "")
        raise UserError(
            f"{source.folder}: weights are missing for {listed}; the file is damaged, or was saved from an encoder "
            f"with fewer layers than the {layers} of the base model"
        )
    return source


def find_adapter(option: str, path: str, name: str, base_config: dict[str, Any]) -> AdapterSource:
    """Find and read the adapter that an option's folder or hub id names: a single one, or the task adapter of a setup.

    Raises:
        UserError: if there is no such folder, the adapter does not fit, or the setup is a fusion.
    """
    saved = read_setup(find_folder(option, path))
    if len(saved.tasks) > 1:
        adapters = ", ".join(str(saved.adapters[task]) for task in saved.tasks)
        raise UserError(f"{option} {path}: holds a fusion; give one of its adapters: {adapters}")
    return read_adapter(saved.adapters[saved.tasks[0]], name, base_config)


def check_language_adapter(option: str, path: str) -> None:
    """Reject a task adapter where a language adapter is expected; stacking it would only harm the results.

    A task adapter is recognized by the model class that it was saved from. But runs save the language adapter from the
    same model as the task adapter, so an adapter with the name or invertible part of a language adapter is accepted.

    Raises:
        UserError: if it is a task adapter, or there is no such folder.
    """
    saved = read_setup(find_folder(option, path))
    document = read_json(saved.adapters[saved.tasks[0]] / ADAPTER_CONFIG)
    model_class = str(document.get("model_class"))
    if is_for_language(document) or task_of_class(model_class) not in ("qa", "ner"):
        return
    suggestion = saved.adapters[saved.language] if saved.language else "the folder of a run of run_mlm_adapter.py"
    raise UserError(
        f"{option} {path}: holds {document.get('name')}, the adapter of a {model_class}, not a language adapter; "
        f"give {suggestion}"
    )

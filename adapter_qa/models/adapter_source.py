"""One adapter of a setup: its configuration, and the saved folder that its weights come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from adapters.loading import AdapterLoader

from adapter_qa.core.errors import UserError, also_report, first_names
from adapter_qa.core.files import read_json
from adapter_qa.models.adapter_config import LOCATIONS, NO_INVERSE, current_config
from adapter_qa.models.encoders import ADAPTER_SITE, adapter_layers, encoder_of, library_model_type
from adapter_qa.models.file_names import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from adapter_qa.models.low_rank import is_low_rank_config, layers_of_names, low_rank_size_problems
from adapter_qa.models.metadata import Origin
from adapter_qa.models.saved_adapters import (
    ATTENTION_ONLY_LAST_LAYER,
    SavedHead,
    is_for_language,
    is_legacy,
    read_origin,
    read_setup,
)
from adapter_qa.models.saved_folders import find_folder
from adapter_qa.models.tasks import task_of_class
from adapter_qa.models.weights import find_weights, read_weights, weight_names


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
        origin: the base model that it was trained on, if that is recorded.
        head: the head that was saved with it, if any.
    """

    name: str
    config: dict[str, Any]
    folder: Path | None = None
    attention_only_last_layer: bool = False
    language: str | None = None
    is_legacy: bool = False
    note: str | None = None
    origin: Origin | None = None
    head: SavedHead | None = None

    @property
    def is_low_rank(self) -> bool:
        """Whether it is LoRA or (IA)3, which change weights, and not a bottleneck adapter."""
        return is_low_rank_config(self.config)

    @property
    def is_parallel(self) -> bool:
        """Whether its modules take the input of a block in place of its output."""
        return bool(self.config.get("is_parallel"))

    @property
    def is_invertible(self) -> bool:
        """Whether it has an invertible adapter, at the embeddings."""
        return bool(self.config.get("inv_adapter"))

    def has_modules(self, layers: int) -> bool:
        """Return whether it has modules in the layers of an encoder with this number of them."""
        return bool(set(range(layers)) - set(self.config["leave_out"]) if self.is_low_rank else self.sites(layers))

    def sites(self, layers: int) -> set[AdapterSite]:
        """Return the sites of its bottlenecks, of which LoRA has none, in an encoder with this number of layers."""
        if self.is_low_rank:
            return set()
        sites = {
            AdapterSite(layer, location)
            for layer in range(layers)
            for location in LOCATIONS
            if self.config[location] and layer not in self.config["leave_out"]
        }
        return sites - {AdapterSite(layers - 1, "output_adapter")} if self.attention_only_last_layer else sites

    def without_inverse(self, reason: str) -> AdapterSource:
        """Return the adapter without its invertible adapter, which the setup does not use for a reason."""
        if not self.is_invertible:
            return self
        without = replace(self, config={**self.config, **NO_INVERSE})
        return without.with_note(f"{self.folder}: its invertible adapter is left out; {reason}")

    def with_note(self, note: str) -> AdapterSource:
        """Return the adapter with one more thing to tell the user."""
        return replace(self, note=f"{self.note}; {note}" if self.note else note)


def size_problems(source: AdapterSource, base_config: dict[str, Any]) -> list[str]:
    """Return what in the configuration of a new adapter does not fit the layers or the hidden size of the encoder."""
    config = source.config
    layers, hidden_size = adapter_layers(base_config), int(base_config["hidden_size"])
    if source.is_low_rank:
        return low_rank_size_problems(source.name, config, layers, hidden_size)
    factors = config["reduction_factor"] if isinstance(config["reduction_factor"], dict) else {}
    problems = [
        f"{source.name}: {key} names layer {layer}; the base model has layers 0 to {layers - 1}"
        for key, names in (("leave_out", config["leave_out"]), ("reduction_factor", factors.keys() - {"default"}))
        for layer in names
        if str(layer) not in map(str, range(layers))
    ]
    factors_of_sites = {
        factors.get(str(site.layer), factors.get("default")) if factors else config["reduction_factor"]
        for site in source.sites(layers)
    }
    if None in factors_of_sites:
        problems.append(f"{source.name}: reduction_factor lacks a layer; give it, or a default")
    if config["phm_layer"]:
        sizes = {hidden_size, *(max(1, int(hidden_size // factor)) for factor in factors_of_sites if factor)}
        problems += [
            f"{source.name}: phm_dim {config['phm_dim']} must divide hidden size and bottleneck size, but does not "
            f"divide {size}; give another reduction_factor or phm_dim"
            for size in sorted(sizes)
            if size % config["phm_dim"]
        ]
    adds_after_sum = config["residual_before_ln"] == "post_add" and not source.is_parallel
    if adds_after_sum and config["output_adapter"] and not encoder_of(base_config).norm_after_output:
        problems.append(
            f"{source.name}: residual_before_ln post_add needs a layer norm after the feed-forward block, which "
            f"{base_config['model_type']} has not; give true or false"
        )
    smallest = int(base_config.get("embedding_size") or hidden_size) // 2
    if config["inv_adapter"] and config["inv_adapter_reduction_factor"] > smallest:
        problems.append(
            f"{source.name}: inv_adapter_reduction_factor {config['inv_adapter_reduction_factor']:g} leaves the "
            f"invertible adapter without units; give at most {smallest}"
        )
    return problems


# ---------------------------------------------------------------- saved adapters


def read_adapter(folder: Path, name: str, base_config: dict[str, Any]) -> AdapterSource:
    """Read a saved adapter that gets `name` in the model: its configuration, and the names of its weights.

    Raises:
        UserError: if the folder is damaged, or the adapter is not a bottleneck adapter for this encoder.
    """
    document = read_json(folder / ADAPTER_CONFIG)
    expected = {
        "model_type": library_model_type(str(base_config.get("model_type"))),
        "hidden_size": base_config.get("hidden_size"),
    }
    problems = [
        f"{folder}: its {key} is {document.get(key)}, the base model's {value}; "
        "an adapter fits only the kind and size of encoder it was trained on"
        for key, value in expected.items()
        if key in document and document[key] != value
    ]
    if not isinstance(document.get("name"), str):
        problems.append(f"{folder / ADAPTER_CONFIG}: does not name the adapter; give its name in the weights as 'name'")
    with also_report(problems):
        config = current_config(document, folder)
    # The library's first version recorded an invertible adapter with task adapters that have none.
    if document.get("type") == "text_task" and config.get("inv_adapter") and not _has_inverse(folder):
        config |= NO_INVERSE
    source = AdapterSource(
        name,
        config,
        folder,
        attention_only_last_layer=bool(document.get(ATTENTION_ONLY_LAST_LAYER)),
        language=document.get("language"),
        is_legacy=is_legacy(document),
        origin=read_origin(folder, document),
    )
    layers = adapter_layers(base_config)
    if source.is_low_rank:
        return _compare_low_rank(source, document, layers)
    return _compare_with_weights(source, folder, sites_in_weights(folder, str(document.get("name"))), layers)


def sites_in_weights(folder: Path, name: str | None = None) -> set[AdapterSite]:
    """Return the sites for which a saved adapter's file has weights; `name` is the saved one, None for any."""
    matches = map(
        ADAPTER_SITE.search, map(current_adapter_weight, weight_names(find_weights(folder, *ADAPTER_WEIGHTS)))
    )
    return {
        AdapterSite(int(match["layer"]), "mh_adapter" if match["block"].startswith("attention") else "output_adapter")
        for match in matches
        if match is not None and name in (None, match["name"])
    }


def current_adapter_weight(name: str) -> str:
    """Return the present name of a weight of adapter-transformers 1, which had task and language adapters apart."""
    for old, new in AdapterLoader.legacy_weights_mapping.items():
        name = name.replace(old, new)
    return name


def _has_inverse(folder: Path) -> bool:
    return any("invertible" in name for name in weight_names(find_weights(folder, *ADAPTER_WEIGHTS)))


def _compare_with_weights(source: AdapterSource, folder: Path, sites: set[AdapterSite], layers: int) -> AdapterSource:
    """Check that an adapter has weights for all its sites; return it with `attention_only_last_layer` as they show it.

    adapter-transformers 2.x did not record whether an adapter has no module after the last feed-forward block. A note
    names weights that are not used.
    """
    saved_layers = 1 + max((site.layer for site in sites), default=-1)
    if saved_layers > layers:
        raise UserError(f"{folder}: has weights for {saved_layers} layers, the base model has {layers}")
    missing = sorted(source.sites(layers) - sites)
    if missing == [AdapterSite(layers - 1, "output_adapter")] and source.config["mh_adapter"]:
        source = replace(source, attention_only_last_layer=True).with_note(
            f"{folder}: has no weights after the last feed-forward block; it was trained with "
            "--houlsby_MHA_lastlayer True and is used in the same way"
        )
    elif missing:
        listed = ", ".join(map(str, missing[:3])) + (" ..." if len(missing) > 3 else "")
        raise UserError(
            f"{folder}: weights are missing for {listed}; the file is damaged, or was saved from an encoder "
            f"with fewer layers than the {layers} of the base model"
        )
    unused = list(map(str, sorted(sites - source.sites(layers))))
    if not source.is_invertible and _has_inverse(folder):
        unused.append("an invertible adapter")
    return _with_unused(source, unused)


def _with_unused(source: AdapterSource, unused: Sequence[str]) -> AdapterSource:
    """Return the adapter with a note on the weights of its file for which its configuration has no module."""
    if not unused:
        return source
    return source.with_note(
        f"{source.folder}: its weights for {first_names(unused)} are left out; its {ADAPTER_CONFIG} has no module there"
    )


def _compare_low_rank(source: AdapterSource, document: dict[str, Any], layers: int) -> AdapterSource:
    """Check that LoRA or (IA)3 has weights for all its layers, and return it.

    A note says if its alpha was corrected, or if weights are not used.
    `build_setup` finds out whether all weights of a layer are there.
    """
    folder = source.folder or Path()
    saved = layers_of_names(weight_names(find_weights(folder, *ADAPTER_WEIGHTS)), str(document.get("name")))
    if max(saved, default=0) >= layers:
        raise UserError(f"{folder}: has weights for {max(saved) + 1} layers, the base model has {layers}")
    used = set(range(layers)) - set(source.config["leave_out"])
    source = _with_unused(source, [f"layer {layer}" for layer in sorted(saved - used)])
    missing = sorted(used - saved)
    if missing:
        listed = ", ".join(map(str, missing[:3])) + (" ..." if len(missing) > 3 else "")
        raise UserError(
            f"{folder}: weights are missing for layer {listed}; the file is damaged, or was saved from an encoder with "
            f"fewer layers than the {layers} of the base model"
        )
    alpha = source.config["alpha"]
    if document["config"].get("alpha", alpha) == alpha:
        return source
    return source.with_note(f"{folder}: {document['version']} left out the factor alpha / r; alpha is taken as {alpha}")


def is_same_adapter(first: AdapterSource, second: AdapterSource) -> bool:
    """Return whether two saved adapters have the same configuration and weights, whatever their folders and names.

    Raises:
        UserError: if a file of weights is damaged.
    """

    def parts(source: AdapterSource) -> tuple[object, ...]:
        return source.config, source.attention_only_last_layer

    if parts(first) != parts(second) or first.folder is None or second.folder is None:
        return False
    one, other = _anonymous_weights(first.folder), _anonymous_weights(second.folder)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _anonymous_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a saved adapter by their names without that of the adapter."""
    name = str(read_json(folder / ADAPTER_CONFIG).get("name"))
    weights = read_weights(find_weights(folder, *ADAPTER_WEIGHTS))
    return {key.replace(f".{name}.", ".", 1): weight for key, weight in weights.items()}


def find_adapter(option: str, path: str, name: str, base_config: dict[str, Any]) -> AdapterSource:
    """Find and read the adapter that an option's folder or hub id names: a single one, or the task adapter of a setup.

    Raises:
        UserError: if there is no such folder, the adapter does not fit, or the setup is a fusion.
    """
    saved = read_setup(find_folder(option, path))
    if len(saved.tasks) > 1:
        adapters = ", ".join(str(saved.adapters[task]) for task in saved.tasks)
        raise UserError(f"{option} {path}: holds a fusion; give one of its adapters: {adapters}")
    source = replace(read_adapter(saved.adapters[saved.tasks[0]], name, base_config), head=saved.head)
    return source.without_inverse(f"{saved.folder} did not use it") if saved.language else source


def check_language_adapter(option: str, path: str) -> None:
    """Reject a task adapter where a language adapter is expected; stacking it would only harm the results.

    A task adapter is recognized by the model class that it was saved from, its type in adapter-transformers 1, or a
    named head beside it. But runs save the language adapter from the same model as the task adapter, so an adapter with
    the name or invertible part of a language adapter is accepted.

    Raises:
        UserError: if it is a task adapter, or there is no such folder.
    """
    saved = read_setup(find_folder(option, path))
    document = read_json(saved.adapters[saved.tasks[0]] / ADAPTER_CONFIG)
    model_class, head = str(document.get("model_class")), saved.head
    is_of_task = task_of_class(model_class) in ("qa", "ner") or document.get("type") == "text_task"
    if head is not None and head.flexible is not None:
        is_of_task |= not head.flexible.head_type.endswith("_lm")
    if is_for_language(document) or not is_of_task:
        return
    suggestion = saved.adapters[saved.language] if saved.language else "the folder of a run of run_mlm_adapter.py"
    raise UserError(
        f"{option} {path}: holds {document.get('name')}, the adapter of a {model_class}, not a language adapter; "
        f"give {suggestion}"
    )

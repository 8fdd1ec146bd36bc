"""Configurations of adapters: of a new one, and of a saved one in the terms of the installed library."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from adapters import ADAPTER_CONFIG_MAP, AdapterConfig, BnConfig
from adapters.utils import ACTIVATION_RENAME
from transformers.activations import ACT2FN

from adapter_qa.config.low_rank import is_low_rank
from adapter_qa.config.options import ADAPTER_CONFIGS, SMALLEST_REDUCTION
from adapter_qa.core.errors import UserError, raise_if_any
from adapter_qa.core.files import read_json
from adapter_qa.models.low_rank import (
    current_low_rank_config,
    is_low_rank_config,
    low_rank_name,
    new_low_rank_config,
)
from adapter_qa.models.saved_adapters import is_legacy

LOCATIONS = ("mh_adapter", "output_adapter")  # after the attention block, after the feed-forward block
KIND_KEYS = (*LOCATIONS, "inv_adapter")  # what distinguishes pfeiffer, houlsby and the kinds with +inv
ACTIVATIONS = {*ACT2FN, "leakyrelu"}
TASK_REDUCTION = 16  # Pfeiffer et al. (2021), section 3; also the library's default
LANGUAGE_REDUCTION = 2  # MAD-X (Pfeiffer et al., 2020), section 4.2: language adapters of half the hidden size
REQUIRED_KEYS = {*LOCATIONS, "reduction_factor", "non_linearity"}
CHOICES: dict[str, tuple[Any, ...]] = {  # of keys with text; the library fails with any other
    "inv_adapter": (None, "nice", "glow"),
    "init_weights": ("bert", "mam_adapter", "houlsby"),
    "phm_c_init": ("normal", "uniform"),
    "hypercomplex_nonlinearity": ("phm", "glorot-normal", "glorot-uniform", "normal"),
}
NO_INVERSE = {"inv_adapter": None, "inv_adapter_reduction_factor": None}
LEARNED = {"scaling": ("learned", "channel"), "residual_before_ln": ("post_add",)}  # text in place of a number or bool


def new_config(
    kind: str,
    reduction_factor: float | None = None,
    non_linearity: str | None = None,
    default_reduction: int = TASK_REDUCTION,
) -> dict[str, Any]:
    """Return the full configuration of a new adapter.

    `kind` is a key of `ADAPTER_CONFIGS`, for which there is a default reduction factor, one that `is_low_rank` accepts,
    or the path of an adapter_config.json. None leaves a value to the kind.

    Raises:
        UserError: if the kind has an invalid setting, the file holds no configuration of an adapter, or a value is
            given that LoRA and (IA)3 do not have.
    """
    if is_low_rank(kind):
        config = new_low_rank_config(kind)
    elif kind in ADAPTER_CONFIGS:
        config = AdapterConfig.load(ADAPTER_CONFIGS[kind], reduction_factor=default_reduction, leave_out=[]).to_dict()
    else:
        document = read_json(kind)  # the configuration is under "config", or is the document itself
        config = current_config(document if "config" in document else {"config": document, "version": None}, kind)
    values = {"reduction_factor": reduction_factor, "non_linearity": non_linearity}
    changes = {key: value for key, value in values.items() if value is not None}
    if changes and is_low_rank_config(config):
        raise UserError(f"{kind}: {low_rank_name(config)} has no {' and no '.join(changes)}; leave the option out")
    return {**config, **changes}


def current_config(document: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Check the configuration in an adapter_config.json and return all of it in the terms of the installed library.

    Before version 3 of the library, "gelu" was the tanh approximation that is now "gelu_new" (`ACTIVATION_RENAME`). It
    wrote keys that the library no longer knows, and ignores. The name of a kind stands for its configuration.

    Raises:
        UserError: if this is not the configuration of a bottleneck adapter, LoRA or (IA)3, or the library cannot
            train with a value in it.
    """
    config = document.get("config")
    if isinstance(config, str) and config in ADAPTER_CONFIG_MAP:
        config = ADAPTER_CONFIG_MAP[config].to_dict()
    if isinstance(config, dict) and is_low_rank_config(config) and not is_legacy(document):
        return current_low_rank_config({**document, "config": config}, path)
    if isinstance(config, dict) and is_legacy(document):
        config = _without_old_keys(config)
    if not isinstance(config, dict) or not set(config) >= REQUIRED_KEYS:
        raise UserError(
            f"{path}: not a bottleneck adapter (pfeiffer, houlsby), LoRA or (IA)3; no other kind can be used here"
        )
    config = {**config, "leave_out": config.get("leave_out") or []}
    invalid = [f"{key} {value!r}" for key, value in config.items() if not _is_valid(key, value)]
    if config.get("inv_adapter") and config.get("inv_adapter_reduction_factor") is None:
        invalid.append("inv_adapter without inv_adapter_reduction_factor")
    if invalid:
        raise UserError(f"{path}: invalid configuration of a bottleneck adapter: {', '.join(invalid)}")
    config = dict(BnConfig.from_dict(config).to_dict())
    if isinstance(config["scaling"], int):  # which the library refuses
        config["scaling"] = float(config["scaling"])
    raise_if_any([f"{path}: {problem}" for problem in _unsupported(config)])
    if is_legacy(document):
        config["non_linearity"] = ACTIVATION_RENAME.get(config["non_linearity"], config["non_linearity"])
    return config


def _without_old_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration of adapter-transformers 1 or 2 with the keys of today.

    Version 1 described the invertible adapter in "invertible_adapter".
    """
    known = {key: value for key, value in config.items() if key in BnConfig.__dataclass_fields__}
    inverse = config.get("invertible_adapter")
    if isinstance(inverse, dict) and "inv_adapter" not in config:
        known |= {
            "inv_adapter": inverse.get("block_type"),
            "inv_adapter_reduction_factor": inverse.get("reduction_factor"),
        }
    return known


def _unsupported(config: dict[str, Any]) -> list[str]:
    """Return what the library cannot train with, or trains without any effect, in a configuration of valid values."""
    problems = []
    if config["inv_adapter"] == "glow":
        problems.append("inv_adapter glow fails on sequences of tokens; give nice")
    if config["stochastic_depth"]:
        problems.append("stochastic_depth is for images and needs torchvision; give 0.0")
    if config["residual_before_ln"] == "post_add" and not config["original_ln_before"] and not config["is_parallel"]:
        problems.append("residual_before_ln post_add needs original_ln_before true")
    if not config["scaling"]:
        problems.append("scaling 0 leaves the adapter without any effect; give another number, or learned")
    if config["phm_layer"]:
        if config["shared_phm_rule"] or config["shared_W_phm"]:
            problems.append(
                "phm_layer (compacter) with weights that all layers share is not supported; set shared_phm_rule and "
                "shared_W_phm to false"
            )
        if config["init_weights"] != "bert":
            problems.append(f"init_weights {config['init_weights']} cannot be used with phm_layer; give bert")
    return problems


def _is_valid(key: str, value: Any) -> bool:
    """Return whether the library can build an adapter with this value in its configuration."""
    if key not in BnConfig.__dataclass_fields__:
        return key == "architecture" and value is None
    if key == "reduction_factor":
        return all(map(is_valid_reduction, value.values() if isinstance(value, dict) else [value]))
    if key == "inv_adapter_reduction_factor":
        return value is None or is_valid_reduction(value)
    if key == "leave_out":
        return isinstance(value, list) and all(type(layer) is int for layer in value)
    if key == "non_linearity":
        return isinstance(value, str) and value.lower() in ACTIVATIONS
    if key in CHOICES:
        return value in CHOICES[key]
    if isinstance(value, str):
        return value in LEARNED.get(key, ())
    if key in ("phm_dim", "phm_rank"):
        return type(value) is int and value > 0
    if key == "init_weights_seed":
        return value is None or (type(value) is int and 0 <= value < 2**64)
    if type(value) in (int, float) and not (0 <= value < 1 if key == "dropout" else math.isfinite(value)):
        return False
    default = BnConfig.__dataclass_fields__[key].default
    types = {bool: (bool,), float: (int, float), int: (int,), str: (str,)}.get(type(default), (bool, type(None)))
    return type(value) in types


def is_valid_reduction(factor: Any) -> bool:
    """Return whether a value is a reduction factor; a bottleneck has at most 16 times the hidden size."""
    return type(factor) in (int, float) and SMALLEST_REDUCTION <= factor < math.inf


def family_of(config: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return what two configurations have in common if they have the same settings: bottleneck, LoRA or (IA)3."""
    return config.get("architecture"), config.get("composition_mode")


def kind_of(config: dict[str, Any]) -> str:
    """Return the short name of a configuration's kind, e.g. `pfeiffer+inv` or `lora[r=8,alpha=16]`."""
    if is_low_rank_config(config):
        return low_rank_name(config)
    return ("houlsby" if config["mh_adapter"] else "pfeiffer") + ("+inv" if config["inv_adapter"] else "")

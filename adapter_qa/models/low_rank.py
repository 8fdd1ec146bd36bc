"""LoRA and (IA)3: their configurations, the names of their weights, and merging into the weights that they change.

LoRA (Hu et al., 2021, arXiv 2106.09685) adds BA·alpha/r to a weight matrix; (IA)3 (Liu et al., 2022, arXiv 2205.05638)
multiplies the outputs of a layer, its bias included, by a vector. The library has one configuration for both.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from adapters import IA3Config, LoRAConfig
from adapters.methods.lora import LoRALayer
from packaging.version import Version
from torch import nn

from adapter_qa.config.low_rank import MATRICES, SETTINGS, block_problems, read_low_rank
from adapter_qa.core.errors import UserError
from adapter_qa.models.encoders import LAYER

ARCHITECTURE = "lora"  # in the configurations of both
ADD, SCALE = "add", "scale"  # the key composition_mode: LoRA, (IA)3
# Other values would need code or tests of their own: gates and DoRA in merging, VeRA's shared weights, half precision.
ALLOWED: dict[str, tuple[Any, ...]] = {
    "composition_mode": (ADD, SCALE),
    "use_gating": (False,),
    "use_dora": (False,),
    "vera_d": (None,),
    "vera_b": (None,),
    "dtype": (None, "float32"),
}
INIT_WEIGHTS = {ADD: ("lora", "bert"), SCALE: ("ia3",)}
OF_VECTORS = {"r": 1, "dropout": 0}  # what the library needs for (IA)3
SHOWN = 5  # invalid values in an error
PREFIX, SCALED_SINCE = "adapters.", Version("1.1.0")  # versions 1.0 left out the factor alpha / r
LOW_RANK_SITE = re.compile(LAYER + r".*\.loras\.(?P<name>[^.]+)\.")  # in the name of a weight


def is_low_rank_config(config: dict[str, Any]) -> bool:
    """Return whether a configuration is that of LoRA or (IA)3."""
    return config.get("architecture") == ARCHITECTURE


def new_low_rank_config(kind: str) -> dict[str, Any]:
    """Return the full configuration of a kind such as `lora[r=8,alpha=16]`.

    Raises:
        UserError: if a setting does not exist, or has a value that is not allowed.
    """
    settings, problems = read_low_rank(kind)
    if problems:
        raise UserError([f"{kind}: {problem}" for problem in problems])
    config = IA3Config if kind.startswith("ia3") else LoRAConfig
    return _in_order(dict(config(**settings).to_dict()))


def current_low_rank_config(document: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Check the configuration in an adapter_config.json and return all of it in the terms of the installed library.

    Raises:
        UserError: if a key is unknown or has a value that is not allowed.
    """
    given: dict[str, Any] = document["config"]
    config = dict(LoRAConfig().to_dict()) | given | {"leave_out": given.get("leave_out") or []}
    problems = [f"{key} {value!r}" for key, value in config.items() if not _is_valid(key, value, config)]
    if not problems:
        problems = block_problems(config)
    if problems:
        listed = ", ".join(problems[:SHOWN]) + (" ..." if len(problems) > SHOWN else "")
        raise UserError(f"{path}: invalid configuration of LoRA or (IA)3: {listed}")
    version = str(document.get("version"))
    if version.startswith(PREFIX) and Version(version.removeprefix(PREFIX)) < SCALED_SINCE and _adds(config):
        config["alpha"] = config["r"]
    return _in_order(config | {"dtype": None})


def _is_valid(key: str, value: Any, config: dict[str, Any]) -> bool:
    if config["composition_mode"] == SCALE and key in OF_VECTORS:
        return bool(value == OF_VECTORS[key])
    if key in SETTINGS:
        return SETTINGS[key].is_valid(value)
    if key in ALLOWED:
        return value in ALLOWED[key]
    if key == "init_weights":
        return value in INIT_WEIGHTS.get(config["composition_mode"], ())
    if key == "leave_out":
        return isinstance(value, list) and all(type(layer) is int for layer in value)
    return key == "architecture" or (key == "init_weights_seed" and (value is None or type(value) is int))


def _in_order(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with its matrices in one order, so that equal ones compare as equal."""
    return config | {"attn_matrices": [name for name in MATRICES if name in config["attn_matrices"]]}


def _adds(config: dict[str, Any]) -> bool:
    return bool(config["composition_mode"] == ADD)


def low_rank_name(config: dict[str, Any]) -> str:
    """Return the kind of a configuration with the settings that are not the library's, e.g. `lora[r=8,alpha=16]`."""
    name, defaults = ("lora", LoRAConfig()) if _adds(config) else ("ia3", IA3Config())
    always = ["r", "alpha"] if _adds(config) else []
    others = [key for key in (*SETTINGS, "init_weights", "init_weights_seed") if key not in always]
    shown = [*always, *[key for key in others if config[key] != getattr(defaults, key)]]
    values = {key: "-".join(config[key]) if isinstance(config[key], list) else config[key] for key in shown}
    settings = ",".join(f"{key}={value}" for key, value in values.items())
    return f"{name}[{settings}]" if shown else name


def low_rank_size_problems(name: str, config: dict[str, Any], layers: int, hidden_size: int) -> list[str]:
    """Return what in the configuration of a new adapter does not fit the layers or the hidden size of the encoder."""
    problems = [
        f"{name}: leave_out names layer {layer}; the base model has layers 0 to {layers - 1}"
        for layer in config["leave_out"]
        if layer not in range(layers)
    ]
    if config["r"] > hidden_size:
        problems.append(f"{name}: r {config['r']} is more than the hidden size; give at most {hidden_size}")
    return problems


def layers_of_names(names: list[str], adapter: str) -> set[int]:
    """Return the layers for which the names of saved weights have some of an adapter."""
    matches = map(LOW_RANK_SITE.search, names)
    return {int(match["layer"]) for match in matches if match is not None and match["name"] == adapter}


def has_low_rank(module: nn.Module) -> bool:
    """Return whether a linear layer has LoRA or (IA)3, which its forward pass applies."""
    return isinstance(module, LoRALayer) and len(module.loras) > 0


def keep_autocast_dtype(model: nn.Module, name: str) -> None:
    """Let the layers that an (IA)3 scales return the dtype of autocast: its float32 vector makes them float32.

    DeBERTa-v2 fails where query and scores differ in dtype.
    """

    def cast(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        device = output.device.type
        return output.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else output

    for module in model.modules():
        if isinstance(module, LoRALayer) and name in module.loras:
            module.register_forward_hook(cast)


@torch.no_grad()
def merge_low_rank(model: nn.Module) -> None:
    """Replace the weights of every layer that has LoRA or (IA)3 by those with which it computes the same alone.

    The model is in evaluation mode, its active setup has all of them. The library's `merge_adapter` forgets that (IA)3
    scales the bias. Here weight and bias are read off the layer's outputs for unit vectors and for zero, in float64.
    """
    for module in model.modules():
        if not isinstance(module, LoRALayer) or not module.loras:
            continue
        dtype = module.weight.dtype
        module.double()
        units = torch.eye(module.in_features, dtype=module.weight.dtype, device=module.weight.device)[None]
        bias = module.forward(torch.zeros_like(units[:, :1]))[0, 0]  # without hooks, which apply bottlenecks
        weight = (module.forward(units)[0] - bias).T.contiguous()
        module.loras.clear()
        module.weight.data = weight
        if module.bias is not None:
            module.bias.data = bias
        module.to(dtype)

"""config.json of the base model, read as data before any library acts on it, and what follows from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from adapter_qa.config.options import ModelOptions
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json

ENCODERS = ("bert", "roberta", "xlm-roberta")  # those whose setups are tested here
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
SIZES = {  # what the library takes where config.json is silent
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "max_position_embeddings": 512,
}  # fmt: skip
LARGEST_SIZE = 2**24  # beyond that, a mistake or a trap
HARMLESS_ATTENTION = (None, "eager", "sdpa")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def read_base_config(options: ModelOptions, option: str = "--model_name_or_path") -> dict[str, Any]:
    """config.json of the base model, as plain data with all its `SIZES`, checked before any library acts on it.

    A crafted `_attn_implementation_internal`, or `_attn_implementation`, makes transformers 4.57 run code from the hub
    (CVE-2026-4372); whatever has such a name is refused here.

    Args:
        options: where it is.
        option: what names the model, for messages.

    Raises:
        UserError: no such folder or hub id, no weights, an encoder that is not supported, sizes that cannot be, a
            dangerous key.
    """
    name = options.model_name_or_path
    if options.config_name is not None:
        option, name = "--config_name", options.config_name
    folder = Path(name)
    if not folder.is_dir() and not HUB_ID.fullmatch(name):
        raise UserError(f"{option} {name}: no such folder; give a model folder or a hub id such as org/name")
    try:
        path = folder / "config.json" if folder.is_dir() else _from_hub(name, options)
        config = {**SIZES, **read_json(path)}
    except (OSError, ValueError, UserError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{option} {name}: no config.json of a model can be read there ({reason})") from error
    problems = [f"{path}: {problem}" for problem in _config_problems(config)]
    model = Path(options.model_name_or_path)
    if model.is_dir() and not options.random_init and not any((model / file).is_file() for file in WEIGHT_FILES):
        problems.append(f"{model}: holds no weights ({WEIGHT_FILES[0]}); give a trained model or --random_init True")
    if problems:
        raise UserError(problems)
    return config


def _config_problems(config: dict[str, Any]) -> list[str]:
    """What is wrong with a config.json."""
    problems = [
        f"sets {key}, which can run code; remove it if you trust the rest"
        for key, value in config.items()
        if key.endswith("attn_implementation") or key == "_attn_implementation_internal"
        if value not in HARMLESS_ATTENTION
    ]
    if config.get("quantization_config") is not None:
        problems.append("is of a quantized model (quantization_config); give the model in full precision")
    if config.get("model_type") not in ENCODERS:
        problems.append(f"model_type {config.get('model_type')}; supported are {', '.join(ENCODERS)}")
    if holds_adapters(config):
        problems.append(
            "a whole model saved with adapters inside, which would come back random; give the plain base, and "
            "the adapters by the folder that save_adapter or save_adapter_fusion wrote"
        )
    wrong = [key for key in SIZES if type(config[key]) is not int or not 0 < config[key] <= LARGEST_SIZE]
    problems += [f"{key} {config[key]!r}; it must be a whole number above 0" for key in wrong]
    if not wrong and config["hidden_size"] % config["num_attention_heads"]:
        problems.append(
            f"hidden_size {config['hidden_size']} cannot be shared by num_attention_heads "
            f"{config['num_attention_heads']}"
        )
    return problems


def _from_hub(name: str, options: ModelOptions) -> Path:
    """The downloaded config.json of a hub id."""
    from transformers.utils import cached_file  # loads torch, which those who name a folder need not wait for yet

    where = {"revision": options.model_revision, "cache_dir": options.cache_dir}
    return Path(str(cached_file(name, "config.json", **where)))


def holds_adapters(config: dict[str, Any]) -> bool:
    """Whether a config.json is that of a whole model saved with adapters inside; in 2021 every one had the key."""
    adapters = config.get("adapters")
    return bool(isinstance(adapters, dict) and adapters.get("adapters")) or bool(config.get("adapter_fusion_models"))


def window_limit(config: dict[str, Any]) -> int:
    """Longest input in tokens. RoBERTa-type encoders number positions from padding_idx + 1, which costs two."""
    limit = int(config["max_position_embeddings"])
    return limit if config["model_type"] == "bert" else limit - 2


def check_window(max_length: int, option: str, base_config: dict[str, Any]) -> None:
    """Refuses windows that the encoder has no positions for.

    Raises:
        UserError: it is so.
    """
    limit = window_limit(base_config)
    if max_length > limit:
        raise UserError(f"{option} {max_length}: the base model reads at most {limit} tokens")

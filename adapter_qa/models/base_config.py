"""config.json of the base model, read as data before any library uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapter_qa.config.folder_names import model_problem
from adapter_qa.config.options import ModelOptions
from adapter_qa.core.errors import UserError, raise_if_any
from adapter_qa.core.files import read_json
from adapter_qa.models.encoders import ENCODERS, SIZES, window_limit, with_sizes
from adapter_qa.models.file_names import BASE_WEIGHTS
from adapter_qa.models.refused_encoders import refusal

LARGEST_SIZE = 2**24  # a larger one is a mistake or an attack


def read_base_config(
    options: ModelOptions, option: str = "--model_name_or_path", *, can_be_random: bool = True
) -> dict[str, Any]:
    """Read and check config.json of the base model. Scripts with the option --random_init pass `can_be_random`.

    A crafted `_attn_implementation_internal` or `_attn_implementation` makes transformers 4.57 run code from the hub
    (CVE-2026-4372), so keys with such a name are rejected.

    Returns:
        The content of the file, with defaults for missing `SIZES`.

    Raises:
        UserError: if there is no such model, or it has no weights, or config.json has an unsupported encoder, an
            invalid size or a dangerous key.
    """
    name = options.model_name_or_path
    if options.config_name is not None:
        option, name = "--config_name", options.config_name
    problem = model_problem(option, name)
    if problem is not None:
        raise UserError(problem)
    folder = Path(name)
    try:
        path = folder / "config.json" if folder.is_dir() else _download(name, options)
        config = with_sizes(read_json(path))
    except (OSError, ValueError, UserError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{option} {name}: no config.json of a model can be read there ({reason})") from error
    problems = [f"{path}: {problem}" for problem in _config_problems(config)]
    problems += _attention_problems(options.attn_implementation, config)
    model = Path(options.model_name_or_path)
    if model.is_dir() and not options.random_init and not any((model / file).is_file() for file in BASE_WEIGHTS):
        random = " or --random_init True" if can_be_random else ""
        problems.append(f"{model}: holds no weights ({BASE_WEIGHTS[0]}); give a trained model{random}")
    raise_if_any(problems)
    return config


def _download(name: str, options: ModelOptions) -> Path:
    from transformers.utils.hub import cached_file  # imports torch, which a local folder does not need yet

    return Path(str(cached_file(name, "config.json", revision=options.model_revision, cache_dir=options.cache_dir)))


def _config_problems(config: dict[str, Any]) -> list[str]:
    problems = [
        f"sets {key}, which can run code; remove the key if you trust the model"
        for key, value in config.items()
        if key.endswith("attn_implementation") or key == "_attn_implementation_internal"
        if value not in (None, "eager", "sdpa")
    ]
    if config.get("quantization_config") is not None:
        problems.append("is of a quantized model (quantization_config); give the model in full precision")
    model_type = config.get("model_type")
    is_supported = isinstance(model_type, str) and model_type in ENCODERS
    if model_type is None:
        kinds = ", ".join(ENCODERS)
        problems.append(f'names no model_type; add it if it is one of these, e.g. "model_type": "bert": {kinds}')
    elif not is_supported:
        problems.append(refusal(str(model_type)))
    if config.get("is_decoder"):
        problems.append("is_decoder is true, so that no token sees the next ones; give an encoder, or set it to false")
    if holds_adapters(config):
        problems.append(
            "is of a model saved together with its adapters, which would get random values; give the plain base model, "
            "and the adapters as a folder of save_adapter or save_adapter_fusion"
        )
    if not is_supported:
        return problems  # its sizes may have other names
    invalid = [key for key in SIZES if type(config[key]) is not int or not 0 < config[key] <= LARGEST_SIZE]
    problems += [f"{key} {config[key]!r}; must be a whole number from 1 to {LARGEST_SIZE}" for key in invalid]
    if invalid:
        return problems
    problems += _shared_layer_problems(config)
    if config["hidden_size"] % config["num_attention_heads"]:
        problems.append(
            f"hidden_size {config['hidden_size']} is not divisible by num_attention_heads "
            f"{config['num_attention_heads']}"
        )
    return problems


def _attention_problems(implementation: str | None, config: dict[str, Any]) -> list[str]:
    encoder = ENCODERS.get(str(config.get("model_type")))
    if implementation is None or encoder is None or implementation in encoder.attentions:
        return []
    allowed = " or ".join(encoder.attentions)
    return [f"--attn_implementation {implementation}: {config['model_type']} has only {allowed}; leave the option out"]


def _shared_layer_problems(config: dict[str, Any]) -> list[str]:
    """Return what prevents adapters in an encoder whose layers share their weights in groups (ALBERT)."""
    if not ENCODERS[config["model_type"]].shares_layers:
        return []
    groups, layers = config.get("num_hidden_groups", 1), config.get("inner_group_num", 1)
    problems = [] if layers == 1 else [f"inner_group_num {layers!r}; only 1 is supported"]
    if type(groups) is not int or not 0 < groups <= config["num_hidden_layers"]:
        problems.append(f"num_hidden_groups {groups!r}; must be a whole number from 1 to num_hidden_layers")
    return problems


def holds_adapters(config: dict[str, Any]) -> bool:
    """Return whether a config.json is that of a model saved together with its adapters.

    adapter-transformers 2.x wrote the key "adapters" for every model, with an empty list for one without adapters.
    """
    adapters = config.get("adapters")
    return bool(isinstance(adapters, dict) and adapters.get("adapters")) or bool(config.get("adapter_fusion_models"))


def has_qa_head(config: dict[str, Any]) -> bool:
    """Return whether a config.json is that of a model with a head for extractive question answering."""
    architectures = config.get("architectures")
    return isinstance(architectures, list) and any(str(name).endswith("ForQuestionAnswering") for name in architectures)


def check_window(max_length: int, option: str, base_config: dict[str, Any]) -> None:
    """Check that the encoder has enough positions for a window of `max_length` tokens.

    Raises:
        UserError: if the window is too long.
    """
    limit = window_limit(base_config)
    if max_length > limit:
        raise UserError(f"{option} {max_length}: the base model reads at most {limit} tokens")

"""The base model: its configuration read as data first, its tokenizer, its weights or random ones."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import cached_file

from adapter_qa.arguments import ModelOptions
from adapter_qa.errors import UserError

HEADS = {"qa": AutoModelForQuestionAnswering, "mlm": AutoModelForMaskedLM, "ner": AutoModelForTokenClassification}
ENCODERS = ("bert", "roberta", "xlm-roberta")  # those whose setups are tested here
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
SAMPLED_VALUES = 1024  # of each tensor in a fingerprint: tells models apart, costs milliseconds


def read_base_config(options: ModelOptions) -> dict[str, Any]:
    """config.json of the base model, as plain data, checked before any library acts on it.

    A crafted `_attn_implementation_internal` makes transformers 4.57 run code (CVE-2026-4372); it is refused here.

    Raises:
        UserError: no such folder or hub id, no weights, an encoder that is not supported, a dangerous key.
    """
    option, name = "--model_name_or_path", options.model_name_or_path
    if options.config_name is not None:
        option, name = "--config_name", options.config_name
    folder = Path(name)
    if not folder.is_dir() and not HUB_ID.fullmatch(name):
        raise UserError(f"{option} {name}: no such folder; give a model folder or a hub id such as org/name")
    try:
        path = folder / "config.json"
        if not folder.is_dir():
            where = {"revision": options.model_revision, "cache_dir": options.cache_dir}
            path = Path(str(cached_file(name, "config.json", **where)))
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{option} {name}: no config.json of a model can be read there ({reason})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: holds a {type(config).__name__} where an object is expected")
    problems = []
    if config.get("_attn_implementation_internal") not in (None, "eager", "sdpa"):
        problems.append(
            f"{path}: sets _attn_implementation_internal, which can run code; remove it if you trust the rest"
        )
    if config.get("model_type") not in ENCODERS:
        problems.append(f"{path}: model_type {config.get('model_type')}; supported are {', '.join(ENCODERS)}")
    if holds_adapters(config):
        problems.append(
            f"{path}: a whole model saved with adapters inside, which would come back random; give the plain base, and "
            "the adapters by the folder that save_adapter or save_adapter_fusion wrote"
        )
    model = Path(options.model_name_or_path)
    if model.is_dir() and not options.random_init and not any((model / file).is_file() for file in WEIGHT_FILES):
        problems.append(f"{model}: holds no weights ({WEIGHT_FILES[0]}); give a trained model or --random_init True")
    if problems:
        raise UserError(problems)
    return config


def holds_adapters(config: dict[str, Any]) -> bool:
    """Whether a config.json is that of a whole model saved with adapters inside; in 2021 every one had the key."""
    adapters = config.get("adapters")
    return bool(isinstance(adapters, dict) and adapters.get("adapters")) or bool(config.get("adapter_fusion_models"))


def load_tokenizer(options: ModelOptions, *, split_words: bool = False) -> PreTrainedTokenizerFast:
    """The model's fast tokenizer.

    Args:
        options: where it is.
        split_words: it will be given lists of words; byte-level tokenizers then need a space before each.

    Raises:
        UserError: there is none, or only a slow one.
    """
    name = options.tokenizer_name or options.model_name_or_path
    words = {"add_prefix_space": True} if split_words else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=options.model_revision, cache_dir=options.cache_dir, use_fast=True, **words
        )
    except (OSError, ValueError, KeyError, TypeError) as error:  # TypeError: the library, of a missing vocabulary
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{name}: no tokenizer can be loaded ({reason}); give --tokenizer_name") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"{name}: the tokenizer has no fast version, which windows need for character offsets")
    return tokenizer


def load_model(
    options: ModelOptions, task: str, labels: list[str] | None = None, *, as_plan: bool = False
) -> PreTrainedModel:
    """The base model with the head of a task, in float32.

    Args:
        options: where it is; `random_init` draws the weights instead of reading them.
        task: "qa", "mlm" or "ner".
        labels: names of the classes, for "ner".
        as_plan: shapes only (meta device): enough to count and to check, in no time and no memory.

    Raises:
        UserError: the weights cannot be read.
    """
    where = {"revision": options.model_revision, "cache_dir": options.cache_dir}
    config = AutoConfig.from_pretrained(options.config_name or options.model_name_or_path, **where)
    vars(config).pop("adapters", None)  # 2021's empty note of adapters, which the library of today would write into
    attention = {"attn_implementation": options.attn_implementation} if options.attn_implementation else {}
    if labels is not None:
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
    if as_plan:
        with torch.device("meta"):
            return HEADS[task].from_config(config, **attention)
    if options.random_init:
        return HEADS[task].from_config(config, **attention)
    try:
        return HEADS[task].from_pretrained(
            options.model_name_or_path,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            **where,
            **attention,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{options.model_name_or_path}: the weights cannot be loaded ({reason})") from error


def window_limit(config: dict[str, Any]) -> int:
    """Longest input in tokens. RoBERTa-type encoders number positions from padding_idx + 1, which costs two."""
    limit = int(config.get("max_position_embeddings", 512))
    return limit if config["model_type"] == "bert" else limit - 2


def weights_fingerprint(model: PreTrainedModel) -> str:
    """sha256 over names, shapes and evenly spaced values of the base model's own weights, heads and adapters left out.

    Tells whether adapters are put on the base they were trained on, whatever file format that base came in.
    """
    digest = hashlib.sha256()
    prefix = model.base_model_prefix + "."
    for name, weight in sorted(model.named_parameters()):
        if not name.startswith(prefix) or "adapter" in name:
            continue
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // SAMPLED_VALUES)].float().cpu().contiguous()
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()

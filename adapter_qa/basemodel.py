"""The base model: its tokenizer, its weights or random ones. `baseconfig` has looked at its configuration before."""

from __future__ import annotations

import hashlib

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

from adapter_qa.arguments import ModelOptions
from adapter_qa.errors import UserError

HEADS = {"qa": AutoModelForQuestionAnswering, "mlm": AutoModelForMaskedLM, "ner": AutoModelForTokenClassification}
SAMPLED_VALUES = 1024  # of each tensor in a fingerprint: tells models apart, costs milliseconds


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

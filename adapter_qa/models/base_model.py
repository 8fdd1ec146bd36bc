"""Load the base model: its tokenizer, and its weights or random ones. `base_config` has checked its config.json."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from adapter_qa.config.options import ModelOptions
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json
from adapter_qa.models.base_config import WEIGHT_FILES, read_base_config
from adapter_qa.models.weights import weight_names, weights_file

MODEL_CLASSES = {
    "qa": AutoModelForQuestionAnswering,
    "mlm": AutoModelForMaskedLM,
    "ner": AutoModelForTokenClassification,
}
SPECIAL_TOKENS = ("cls_token", "sep_token", "pad_token", "unk_token", "mask_token")
SAMPLED_VALUES = 1024  # of each tensor in a fingerprint: enough to distinguish models, and takes milliseconds


def load_tokenizer(options: ModelOptions, *, split_words: bool = False) -> PreTrainedTokenizerFast:
    """Load the model's fast tokenizer.

    With `split_words`, the input will be lists of words; byte-level tokenizers then need a space before each word.

    Raises:
        UserError: if there is no tokenizer, it has no fast version, or it belongs to another model.
    """
    name = options.tokenizer_name or options.model_name_or_path
    word_options = {"add_prefix_space": True} if split_words else {}
    with _library_errors(f"{name}: no tokenizer can be loaded", "; give --tokenizer_name"):
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True, **_source_options(options), **word_options)
        tokenizer(["a"], ["b"])  # some defects in its files appear only in use
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"{name}: the tokenizer has no fast version, which windows need for character offsets")
    missing = [token for token in SPECIAL_TOKENS if token not in tokenizer.special_tokens_map]
    if missing:
        raise UserError(f"{name}: the tokenizer has no {', '.join(missing)}; it belongs to another kind of model")
    vocab_size = read_base_config(options).get("vocab_size")
    largest_id = max(tokenizer.get_vocab().values())
    if isinstance(vocab_size, int) and largest_id >= vocab_size:
        raise UserError(
            f"{name}: the tokenizer has {largest_id + 1} tokens, the base model {vocab_size}; give the model's own "
            "tokenizer"
        )
    return tokenizer


def load_model(
    options: ModelOptions,
    task: str,
    labels: list[str] | None = None,
    *,
    shapes_only: bool = False,
    require_head: bool = False,
) -> PreTrainedModel:
    """Load the base model with the head of a task, in float32.

    Args:
        options: the base model; with `random_init`, random weights are drawn.
        task: "qa", "mlm" or "ner".
        labels: names of the classes, for "ner".
        shapes_only: put the model on the meta device, without values. This is enough to count and check parameters.
        require_head: the saved weights must include the head; otherwise a head that they lack is random.

    Raises:
        UserError: if no model can be made from the configuration, or the weights are damaged or of another model.
    """
    # cuDNN plans attention anew for every length of a batch. On an H200 that took 160 ms of a step of 29 ms.
    torch.backends.cuda.enable_cudnn_sdp(False)
    name, model_class = options.model_name_or_path, MODEL_CLASSES[task]
    attention = {"attn_implementation": options.attn_implementation} if options.attn_implementation else {}
    model: PreTrainedModel
    with _library_errors(f"{options.config_name or name}: no model can be made from its config.json"):
        config = _library_config(options, labels)
        if shapes_only or options.random_init:
            with torch.device("meta") if shapes_only else nullcontext():
                model = model_class.from_config(config, **attention)
            return model
    if Path(name).is_dir():
        _check_weight_files(Path(name))
    with _library_errors(f"{name}: the weights cannot be loaded"):
        model, loading_info = model_class.from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **_source_options(options),
            **attention,
        )
    prefix = "" if require_head else f"{model.base_model_prefix}."
    missing = sorted({*loading_info["missing_keys"], *loading_info["mismatched_keys"]})
    missing = [key for key in missing if key.startswith(prefix) and ".pooler." not in key]
    if missing:  # the library has filled them with random values
        raise UserError(
            f"{name}: {len(missing)} weights are missing or of another shape, e.g. {missing[0]}; its weights and its "
            "config.json do not belong together"
        )
    return model


@contextmanager
def _library_errors(problem: str, advice: str = "") -> Iterator[None]:
    """Raise UserError with `problem`, the library's message in one line, and `advice`, for any exception in the block.

    Values in config.json and damaged files make the library raise exceptions of any type.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{problem} ({type(error).__name__}: {reason}){advice}") from error


def _source_options(options: ModelOptions) -> dict[str, Any]:
    """Return where the library loads from; without `trust_remote_code`, it would ask on the terminal."""
    return {"revision": options.model_revision, "cache_dir": options.cache_dir, "trust_remote_code": False}


def _library_config(options: ModelOptions, labels: list[str] | None) -> PretrainedConfig:
    name = options.config_name or options.model_name_or_path
    config: PretrainedConfig = AutoConfig.from_pretrained(name, **_source_options(options))
    # adapter-transformers 2.x wrote an empty "adapters" here, which the current library would write into.
    vars(config).pop("adapters", None)
    if labels is not None:
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
    return config


def _check_weight_files(folder: Path) -> None:
    """Check names and headers of the weight files in a model's folder, without reading the weights."""
    first = weights_file(folder, *WEIGHT_FILES)
    files = [first]
    if first.suffix == ".json":
        weight_map = read_json(first).get("weight_map")
        if not isinstance(weight_map, dict) or not all(
            isinstance(name, str) and Path(name).name == name for name in weight_map.values()
        ):
            raise UserError(f"{first}: 'weight_map' must be an object of weights with the names of files beside it")
        files = [folder / name for name in sorted(set(weight_map.values()))]
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: is missing, but the folder's index names it; the model is incomplete")
        if path.suffix == ".safetensors":
            weight_names(path)


def weights_fingerprint(model: PreTrainedModel) -> str:
    """Return a SHA-256 over names, shapes and evenly spaced values of the base model's weights.

    Heads and adapters are left out. The fingerprint shows whether adapters are used with the base that they were
    trained on; it does not depend on the file format of the base.
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


def silence_library_notices() -> None:
    """Silence notices of the libraries that are misleading here.

    - PyTorch under DeepSpeed: a scheduler that seems to step before the optimizer; deprecated names, in every step.
    - adapters: no adapter is activated, while a setup is being built.
    - transformers: weights of a head are newly initialized, as intended.
    """
    warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)` before `optimizer.step\(\)`")
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    logging.getLogger("adapters.model_mixin").addFilter(lambda record: "none are activated" not in record.getMessage())
    # A filter, because at level ERROR transformers 4.57 writes a report on tensor parallelism instead.
    logging.getLogger("transformers.modeling_utils").addFilter(
        lambda record: "newly initialized" not in record.getMessage()
    )

"""The base model: its tokenizer, its weights or random ones. `baseconfig` has looked at its configuration before."""

from __future__ import annotations

import hashlib
import logging
import warnings
from pathlib import Path

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
from adapter_qa.models.weights import weight_names

HEADS = {"qa": AutoModelForQuestionAnswering, "mlm": AutoModelForMaskedLM, "ner": AutoModelForTokenClassification}
SPECIAL_TOKENS = ("cls_token", "sep_token", "pad_token", "unk_token", "mask_token")
SAMPLED_VALUES = 1024  # of each tensor in a fingerprint: tells models apart, costs milliseconds


def load_tokenizer(options: ModelOptions, *, split_words: bool = False) -> PreTrainedTokenizerFast:
    """The model's fast tokenizer.

    Args:
        options: where it is.
        split_words: it will be given lists of words; byte-level tokenizers then need a space before each.

    Raises:
        UserError: there is none, or only a slow one, or it is of another kind of model.
    """
    name = options.tokenizer_name or options.model_name_or_path
    words = {"add_prefix_space": True} if split_words else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name,
            revision=options.model_revision,
            cache_dir=options.cache_dir,
            use_fast=True,
            trust_remote_code=False,  # left out, the library would ask whoever sits at the terminal
            **words,
        )
        tokenizer(["a"], ["b"])  # some settings in its files show only when it is used
    except Exception as error:  # of a damaged tokenizer.json the library raises Exception itself
        raise UserError(f"{name}: no tokenizer can be loaded ({_reason(error)}); give --tokenizer_name") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"{name}: the tokenizer has no fast version, which windows need for character offsets")
    lacking = [token for token in SPECIAL_TOKENS if token not in tokenizer.special_tokens_map]
    if lacking:
        raise UserError(f"{name}: the tokenizer has no {', '.join(lacking)}; it belongs to another kind of model")
    size = read_base_config(options).get("vocab_size")
    largest = max(tokenizer.get_vocab().values())
    if isinstance(size, int) and largest >= size:
        raise UserError(
            f"{name}: the tokenizer has {largest + 1} tokens, the base model {size}; give the model's own tokenizer"
        )
    return tokenizer


def load_model(
    options: ModelOptions,
    task: str,
    labels: list[str] | None = None,
    *,
    as_plan: bool = False,
    with_head: bool = False,
) -> PreTrainedModel:
    """The base model with the head of a task, in float32.

    Args:
        options: where it is; `random_init` draws the weights instead of reading them.
        task: "qa", "mlm" or "ner".
        labels: names of the classes, for "ner".
        as_plan: shapes only (meta device): enough to count and to check, in no time and no memory.
        with_head: the weights of the head are to be there, too; else they are drawn.

    Raises:
        UserError: no model can be made of the configuration, or the weights cannot be read or are of another one.
    """
    name = options.model_name_or_path
    attention = {"attn_implementation": options.attn_implementation} if options.attn_implementation else {}
    try:
        config = _library_config(options, labels)
        if as_plan:
            with torch.device("meta"):
                return HEADS[task].from_config(config, **attention)
        if options.random_init:
            return HEADS[task].from_config(config, **attention)
    except Exception as error:  # values that config.json can hold make the library raise nearly everything
        raise UserError(
            f"{options.config_name or name}: no model can be made of its config.json ({_reason(error)})"
        ) from error
    if Path(name).is_dir():
        _check_weight_files(Path(name))
    try:
        model, found = HEADS[task].from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
            revision=options.model_revision,
            cache_dir=options.cache_dir,
            **attention,
        )
    except Exception as error:  # as above, and all that a damaged .bin brings
        raise UserError(f"{name}: the weights cannot be loaded ({_reason(error)})") from error
    lacking = sorted({*found["missing_keys"], *found["mismatched_keys"]})
    lacking = [key for key in lacking if with_head or key.startswith(f"{model.base_model_prefix}.")]
    lacking = [key for key in lacking if ".pooler." not in key]
    if lacking:  # the library would draw them at random
        raise UserError(
            f"{name}: {len(lacking)} weights are missing or of another shape, e.g. {lacking[0]}; its weights and its "
            "config.json do not belong together"
        )
    return model


def _library_config(options: ModelOptions, labels: list[str] | None) -> PretrainedConfig:
    """The model's configuration as the library has it, with the names of the classes."""
    name = options.config_name or options.model_name_or_path
    where = {"revision": options.model_revision, "cache_dir": options.cache_dir}
    config = AutoConfig.from_pretrained(name, trust_remote_code=False, **where)
    vars(config).pop("adapters", None)  # 2021's empty note of adapters, which the library of today would write into
    if labels is not None:
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
    return config


def _check_weight_files(folder: Path) -> None:
    """Looks at names and headers of a model folder's weight files, which takes no time.

    Raises:
        UserError: a file is damaged, one of several is missing, or an index leads out of the folder.
    """
    files = [path for path in (folder / name for name in WEIGHT_FILES) if path.is_file()][:1]
    if files[0].suffix == ".json":
        names = read_json(files[0]).get("weight_map")
        plain = isinstance(names, dict) and all(
            isinstance(one, str) and Path(one).name == one for one in names.values()
        )
        if not isinstance(names, dict) or not plain:
            raise UserError(f"{files[0]}: 'weight_map' must be an object of weights with the names of files beside it")
        files = [folder / name for name in sorted(set(names.values()))]
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: is missing, but the folder's index names it; the model is incomplete")
        if path.suffix == ".safetensors":
            weight_names(path)


def _reason(error: Exception) -> str:
    """What the library says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


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


def quiet_libraries() -> None:
    """Silences what misleads here: notices on setups being switched and on heads that start fresh on purpose, and
    under DeepSpeed PyTorch's word on calls that have another name now, in every step, and on a schedule that it takes
    to be ahead of the optimizer.
    """
    warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)` before `optimizer.step\(\)`")
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    logging.getLogger("adapters.model_mixin").addFilter(lambda record: "none are activated" not in record.getMessage())
    # A filter and not a level: at level ERROR transformers 4.57 reports on tensor parallelism instead.
    logging.getLogger("transformers.modeling_utils").addFilter(
        lambda record: "newly initialized" not in record.getMessage()
    )

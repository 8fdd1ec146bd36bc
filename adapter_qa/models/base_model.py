"""Load the base model: its tokenizer, and its weights or random ones. `base_config` has checked its config.json."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from transformers import (
    CONFIG_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils.hub import cached_file

from adapter_qa.config.options import ModelOptions
from adapter_qa.core.errors import UserError, error_line
from adapter_qa.core.files import read_json
from adapter_qa.core.messages import log_note
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_tokenizer import (
    CASING_OPTIONS,
    apply_casing,
    casing_note,
    sentencepiece_options,
    tokenizer_fingerprint,
)
from adapter_qa.models.encoders import (
    ENCODERS,
    LAYER,
    WORD_EMBEDDINGS,
    Encoder,
    adapter_layers,
    encoder_of,
    takes_token_types,
    with_sizes,
)
from adapter_qa.models.file_names import BASE_WEIGHTS
from adapter_qa.models.parameters import head_names
from adapter_qa.models.tasks import TASKS, Task
from adapter_qa.models.weights import check_finite, check_precision, find_weights, read_weights, weight_names

DEFAULT_LABELS = ("LABEL_0", "LABEL_1")  # the library's
CHECKED_TOKENS = 4  # of the input on which a new model is checked
SPECIAL_TOKENS = ("cls_token", "sep_token", "pad_token", "unk_token", "mask_token")
OLD_NAMES = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))  # of TensorFlow

_CUDNN_LOCK = threading.Lock()
_CUDNN_BEFORE: list[bool] = []  # the setting at the beginning of each open block of `without_cudnn_attention`


def load_tokenizer(options: ModelOptions, *, split_words: bool = False) -> PreTrainedTokenizerFast:
    """Load the model's fast tokenizer.

    With `split_words`, the input will be lists of words; byte-level tokenizers then need a space before each word.
    A note says if its files and its vocabulary disagree about capitals or accents, unless options decide.

    Raises:
        UserError: if there is no tokenizer, it has no fast version, it belongs to another model, or it has no settings
            for capitals and accents that options change.
    """
    name = options.tokenizer_name or options.model_name_or_path
    base_config = read_base_config(options)
    casing = {key: value for key in CASING_OPTIONS if (value := vars(options)[key]) is not None}
    load_options: dict[str, Any] = {**_source_options(options), **casing}
    if split_words:
        load_options["add_prefix_space"] = True
    with _library_errors(f"{name}: no tokenizer can be loaded", "; give --tokenizer_name"):
        load_options |= sentencepiece_options(Path(name), base_config["model_type"])
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True, **load_options)
        tokenizer(["a"], ["b"])  # some defects in its files appear only in use
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"{name}: the tokenizer has no fast version, which windows need for character offsets")
    missing = [token for token in SPECIAL_TOKENS if token not in tokenizer.special_tokens_map]
    if missing:
        raise UserError(f"{name}: the tokenizer has no {', '.join(missing)}; it belongs to another kind of model")
    vocab_size = base_config.get("vocab_size")
    largest_id = max(tokenizer.get_vocab().values())
    if isinstance(vocab_size, int) and largest_id >= vocab_size:
        raise UserError(
            f"{name}: the tokenizer has {largest_id + 1} tokens, the base model {vocab_size}; give the model's own "
            "tokenizer"
        )
    if not takes_token_types(base_config):  # a BERT's tokenizer numbers the second text as type 1
        inputs = [key for key in tokenizer.model_input_names if key != "token_type_ids"]
        tokenizer.model_input_names = inputs
    apply_casing(name, tokenizer, casing)
    notes = [
        None if casing else casing_note(name, tokenizer),
        None if options.tokenizer_name is None else _vocabulary_note(options, tokenizer),
    ]
    log_note(filter(None, notes))
    return tokenizer


def _vocabulary_note(options: ModelOptions, tokenizer: PreTrainedTokenizerFast) -> str | None:
    """Return a line for the user if --tokenizer_name gives another vocabulary than the base model's own tokenizer.

    It may be given because the model has no tokenizer, or one that cannot be loaded.
    """
    name = options.model_name_or_path
    try:
        with _library_errors(name):
            own = AutoTokenizer.from_pretrained(name, **_source_options(options))
            differs = tokenizer_fingerprint(own).vocabulary != tokenizer_fingerprint(tokenizer).vocabulary
    except UserError:
        return None
    return (
        f"--tokenizer_name {options.tokenizer_name}: has another vocabulary than the tokenizer of {name}, so that the "
        "model sees other words than it was trained on; leave the option out, unless the model's own tokenizer is wrong"
        if differs
        else None
    )


@contextmanager
def without_cudnn_attention() -> Iterator[None]:
    """Let no attention be computed by cuDNN in the block.

    cuDNN plans attention anew for every length of a batch. On an H200 that took 160 ms of a step of 29 ms. The setting
    is that of the process, so the last of several threads to leave its block restores it.
    """
    with _CUDNN_LOCK:
        _CUDNN_BEFORE.append(torch.backends.cuda.cudnn_sdp_enabled())
        torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        with _CUDNN_LOCK:
            before = _CUDNN_BEFORE.pop()
            if not _CUDNN_BEFORE:
                torch.backends.cuda.enable_cudnn_sdp(before)


def load_model(
    options: ModelOptions,
    task: Task,
    labels: list[str] | None = None,
    *,
    shapes_only: bool = False,
    require_head: bool = False,
) -> PreTrainedModel:
    """Load the base model with the head of a task, in float32.

    Args:
        options: the base model; with `random_init`, random weights are drawn.
        task: decides the head.
        labels: names of the classes, for "ner".
        shapes_only: put the model on the meta device, without values. This is enough to count and check parameters.
        require_head: the saved weights must include the head; otherwise a head that they lack is random.

    Raises:
        UserError: if no model can be made from the configuration, or the weights are damaged or of another model.
    """
    name, model_class = options.model_name_or_path, getattr(transformers, TASKS[task].auto_class)
    with _library_errors(f"{options.config_name or name}: no model can be made from its config.json"):
        config = _library_config(options, labels or DEFAULT_LABELS)
        implementation = options.attn_implementation or encoder_of({"model_type": config.model_type}).default_attention
        attention = {"attn_implementation": implementation} if implementation else {}
        if shapes_only or options.random_init:
            with torch.device("meta") if shapes_only else nullcontext():
                empty: PreTrainedModel = model_class.from_config(config, dtype=torch.float32, **attention)
            _check_forward(empty, f"{options.config_name or name}")
            return empty
    if Path(name).is_dir():
        find_base_weights(options)
    arguments = {"config": config, **attention}
    needed = "" if require_head else base_prefix(config)
    loaded = _from_pretrained(name, model_class, name, needed, **_source_options(options), **arguments)
    has_old_names = task == "mlm" and bool(ENCODERS[config.model_type].old_head)
    renamed = _with_usual_names(options, config) if loaded.missing or has_old_names else None
    if renamed is not None:
        loaded = _from_pretrained(name, type(loaded.model), None, needed, state_dict=renamed, **arguments)
        loaded.model.name_or_path = config.name_or_path = name
    model, missing, unexpected = loaded
    if missing:
        raise UserError(
            f"{name}: {len(missing)} weights are missing or of another shape, e.g. {missing[0]}; its weights and its "
            "config.json do not belong together"
        )
    log_note(_notes_on_layers(name, model, unexpected))
    weights = dict(model.named_parameters())
    check_precision(name, weights)  # the library leaves some, such as float8, as they are stored
    check_finite(name, weights)
    _check_forward(model, name)
    return model


class _Loaded(NamedTuple):
    """A model, the needed weights that its files lack, so that the library made them up, and those that it left out."""

    model: PreTrainedModel
    missing: list[str]
    unexpected: list[str]


def _from_pretrained(name: str, loader: Any, source: str | None, needed: str, **arguments: Any) -> _Loaded:
    """Load the base model `name` with a class of the library; `source` is None if its weights are given.

    `needed` is what the names of the weights begin with that must not be missing.
    """
    with _library_errors(f"{name}: the weights cannot be loaded"):
        model, loading_info = loader.from_pretrained(
            source, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True, **arguments
        )
    made_up = sorted({*loading_info["missing_keys"], *loading_info["mismatched_keys"]})
    missing = [key for key in made_up if key.startswith(needed) and ".pooler." not in key]
    return _Loaded(model, missing, loading_info["unexpected_keys"])


def _notes_on_layers(name: str, model: PreTrainedModel, unexpected: Iterable[str]) -> list[str]:
    """Return a note if layers of the base model's files are left out, because config.json says that it has fewer."""
    prefix = base_prefix(model.config)
    known = {weight.removeprefix(prefix) for weight, _ in model.named_parameters()}
    saved = [
        int(match["layer"])
        for match in map(re.compile(LAYER).search, unexpected)
        if match is not None
        and (match.string[: match.start("layer")] + "0" + match.string[match.end("layer") :]).removeprefix(prefix)
        in known
    ]
    layers = adapter_layers(with_sizes(model.config.to_dict()))
    if max(saved, default=0) < layers:
        return []
    return [
        f"{name}: its weights have {1 + max(saved)} layers, its config.json {layers}; the other "
        f"{1 + max(saved) - layers} are left out"
    ]


@torch.no_grad()
def _check_forward(model: PreTrainedModel, name: str) -> None:
    """Check that the encoder of a new model can compute: some values in config.json are first used there.

    Modes and random states stay as they are. A model of shapes only is not checked.

    Raises:
        UserError: if the encoder fails on a short input.
    """
    if model.device.type == "meta":
        return
    training = model.training
    tokens = torch.arange(CHECKED_TOKENS)[None] % model.config.vocab_size
    with _library_errors(f"{name}: the model cannot compute with the values in its config.json"):
        model.eval().base_model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    model.train(training)


def read_base_weights(options: ModelOptions) -> dict[str, torch.Tensor]:
    """Return all weights in the files of the base model by name; their values are read where they are used.

    Raises:
        UserError: if a file is missing or damaged.
    """
    return {
        name: weight
        for path in find_base_weights(options)
        for name, weight in read_weights(path, only_weights=False).items()
    }


def check_masked_lm_head(options: ModelOptions, model: PreTrainedModel) -> None:
    """Check that the output layer for masked language modelling is not random; a note says if the rest of the head is.

    Args:
        options: the base model.
        model: with such a head; its weights may be missing.

    Raises:
        UserError: if the base has no weights for the output layer and does not use those of the embeddings either.
    """
    head, name, encoder = head_names(model), options.model_name_or_path, ENCODERS[model.config.model_type]
    saved = [current_name(name) for path in find_base_weights(options) for name in weight_names(path)]
    files = list(_present_head_names(saved, encoder).values())

    def missing(names: Iterable[str]) -> list[str]:
        return sorted(name for name in names if not any(file.endswith(name) for file in files))

    output_layer = model.get_output_embeddings().weight
    output = [key for key, weight in model.named_parameters() if weight is output_layer]
    if output_layer is not model.get_input_embeddings().weight and (output := missing(output)):
        raise UserError(
            f"{name}: tie_word_embeddings is false in its config.json, but {output[0]} is missing, so that the output "
            "layer would be random; set tie_word_embeddings to true, or give a base model with all weights"
        )
    absent = missing(head)
    if not absent:
        return
    is_discriminator = _is_discriminator(saved, encoder)
    what = "is a discriminator, which was not trained to predict tokens, and " if is_discriminator else ""
    advice = "" if is_discriminator else "; if there is a checkpoint of this base model with its head, give that"
    log_note(
        [
            f"{name}: {what}has no head for masked language modelling ({len(absent)} weights are missing, e.g. "
            f"{absent[0]}); a random one is trained together with the adapter, which learns to fit it, and losses are "
            f"not comparable with those of other base models{advice}"
        ]
    )


def _is_discriminator(names: Iterable[str], encoder: Encoder) -> bool:
    """Return whether weights are those of a model that was trained to find replaced tokens (ELECTRA, DeBERTa-v3)."""
    mark = encoder.discriminator_head
    return mark is not None and any(mark in name for name in names)


def _present_head_names(names: Iterable[str], encoder: Encoder) -> dict[str, str]:
    """Return each name of a weight with the present one, which differs for a masked-LM head with released names.

    That of a discriminator was not trained with the rest of the file, and is left alone.
    """
    present = {name: name for name in names}
    if _is_discriminator(present, encoder):
        return present
    for old, new in encoder.old_head.items():
        present = {name: now.replace(old, new) for name, now in present.items()}
    return present


def current_name(name: str) -> str:
    """Return the present name of a weight from TensorFlow."""
    for old, new in OLD_NAMES:
        name = name.replace(old, new)
    return name


def _with_usual_names(options: ModelOptions, config: PretrainedConfig) -> Mapping[str, torch.Tensor] | None:
    """Return the weights of a whole program's file with the names of the library; None if they have these already.

    The library ignores names such as `module.bert.encoder...` (of a parallel training) and `model.encoder...`.
    """
    weights = read_base_weights(options)
    own, stem = base_prefix(config), base_stem(weights, config)
    present = _present_head_names(weights, ENCODERS[config.model_type])
    if stem in (own, ""):
        return (
            None
            if all(old == new for old, new in present.items())
            else {present[name]: weight for name, weight in weights.items()}
        )
    outer = stem.removesuffix(own)
    old, new = (outer, "") if outer != stem else (stem, own)
    return {new + present[name].removeprefix(old): weight for name, weight in weights.items() if name.startswith(old)}


@contextmanager
def _library_errors(problem: str, advice: str = "") -> Iterator[None]:
    """Raise UserError with `problem`, the library's message in one line, and `advice`, for any exception in the block.

    A UserError stays as it is. Values in config.json and damaged files make the library raise exceptions of any type.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = error_line(error, 300)
        raise UserError(f"{problem} ({type(error).__name__}: {reason}){advice}") from error


def _source_options(options: ModelOptions) -> dict[str, Any]:
    """Return where the library loads from; without `trust_remote_code`, it would ask on the terminal."""
    return {"revision": options.model_revision, "cache_dir": options.cache_dir, "trust_remote_code": False}


def _library_config(options: ModelOptions, labels: Sequence[str]) -> PretrainedConfig:
    name = options.config_name or options.model_name_or_path
    config: PretrainedConfig = AutoConfig.from_pretrained(name, **_source_options(options))
    encoder = encoder_of({"model_type": config.model_type})
    if encoder.loaded_as is not None:
        values = {key: value for key, value in config.to_dict().items() if key != "model_type"}
        config = CONFIG_MAPPING[encoder.loaded_as](**values, name_or_path=name)
    for key, value in encoder.settings.items():
        setattr(config, key, value)
    # adapter-transformers 2.x wrote an empty "adapters" here, which the current library would write into.
    vars(config).pop("adapters", None)
    # The base may be a classifier with any labels. For questions they are the start and the end of an answer.
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = None
    if config.pad_token_id is None:  # RoBERTa numbers positions from it
        config.pad_token_id = type(config)().pad_token_id
    config.return_dict, config.torchscript = True, False
    config.output_hidden_states = config.output_attentions = False
    config.chunk_size_feed_forward = 0  # with the same results, fails on lengths that it does not divide
    return config


def find_base_weights(options: ModelOptions) -> list[Path]:
    """Return the files of the base model's weights, in the format that the library prefers.

    Their headers are checked; the weights are not read. What a hub id names is downloaded.

    Raises:
        UserError: if a file is missing or damaged.
    """
    folder = Path(options.model_name_or_path)
    first = find_weights(folder, *BASE_WEIGHTS) if folder.is_dir() else _downloaded(options, *BASE_WEIGHTS)
    files = [first]
    if first.suffix == ".json":
        weight_map = read_json(first).get("weight_map")
        if not isinstance(weight_map, dict) or not all(
            isinstance(name, str) and Path(name).name == name for name in weight_map.values()
        ):
            raise UserError(f"{first}: 'weight_map' must be an object of weights with the names of files beside it")
        names = sorted(set(weight_map.values()))
        files = [folder / name if folder.is_dir() else _downloaded(options, name) for name in names]
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: is missing, but the folder's index names it; the model is incomplete")
        if path.suffix == ".safetensors":
            weight_names(path)
    return files


def has_local_weights(options: ModelOptions) -> bool:
    """Return whether the weights of the base model are on this machine; a dry run downloads none."""
    name, revision, cache = options.model_name_or_path, options.model_revision, options.cache_dir
    return Path(name).is_dir() or any(
        isinstance(try_to_load_from_cache(name, file, cache_dir=cache, revision=revision), str) for file in BASE_WEIGHTS
    )


def _downloaded(options: ModelOptions, *names: str) -> Path:
    """Return the first of the named files that a hub id has, from the cache or the hub."""
    model = options.model_name_or_path
    with _library_errors(f"{model}: the weights cannot be loaded"):
        for name in names:
            path = cached_file(
                model,
                name,
                revision=options.model_revision,
                cache_dir=options.cache_dir,
                _raise_exceptions_for_missing_entries=False,
            )
            if path is not None:
                return Path(path)
    raise UserError(f"{model}: has no {' or '.join(names)} on the hub; give another base model")


def base_stem(names: Iterable[str], config: PretrainedConfig) -> str:
    """Return what the names of the base model's weights begin with in a file: usually "bert." or nothing.

    A file of a whole program may have more, such as "module.bert." or "model.encoder.".

    Raises:
        UserError: if the names are those of another encoder, or of several encoders.
    """
    own = base_prefix(config)
    stems = {match[1] for name in names if (match := WORD_EMBEDDINGS.fullmatch(name)) is not None}
    if own in stems or "" in stems:
        return own if own in stems else ""
    if len(stems) == 1:
        (stem,) = stems
        kind = stem.split(".")[-2].replace("_", "-")
        if kind in (own[:-1], config.model_type) or kind not in CONFIG_MAPPING.keys():  # noqa: SIM118 - it is lazy
            return stem
    found = " and ".join(f"{stem}embeddings" for stem in sorted(stems)) or "other names"
    raise UserError(
        f"{config.name_or_path}: its weights have {found} where {own}embeddings is expected; give a single "
        f"{config.model_type}, whose config.json and weights belong together"
    )


def base_prefix(config: PretrainedConfig) -> str:
    """Return what the names of the base's weights begin with in every model with a head, e.g. "bert."."""
    model_class: Any = MODEL_MAPPING[type(config)]
    return f"{model_class.base_model_prefix}."

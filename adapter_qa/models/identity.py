"""Compare the base model and the tokenizer with those that saved adapters, fusions and heads were trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from transformers import PreTrainedModel

from adapter_qa.config.options import ModelOptions
from adapter_qa.core.errors import raise_if_any
from adapter_qa.core.messages import log_note
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.base_model import base_prefix, base_stem, current_name, load_model, read_base_weights
from adapter_qa.models.metadata import BaseModelRecord, Origin, TokenizerFingerprint

SAMPLED_VALUES = 1024  # of each tensor: enough to distinguish models, and takes milliseconds


# ---------------------------------------------------------------- fingerprints of weights


class WeightsFingerprint(NamedTuple):
    """SHA-256 over names, shapes and evenly spaced values of a base model's weights, in three precisions.

    Heads, poolers and adapters are left out, and the format of the files has no influence. A copy in half precision has
    for float32 what the original has for that precision.
    """

    float32: str
    float16: str
    bfloat16: str


def weights_fingerprint(model: PreTrainedModel) -> WeightsFingerprint:
    """Return the fingerprint of a model's base."""
    prefix = model.base_model_prefix + "."
    weights = {name: weight for name, weight in model.named_parameters() if name.startswith(prefix)}
    return _fingerprint({name: weight for name, weight in weights.items() if "adapter" not in name})


def model_fingerprint(model: PreTrainedModel) -> str:
    """Return the fingerprint, in float32, of all weights of a model: base, adapters and head."""
    return _fingerprint(dict(model.named_parameters())).float32


def base_files_fingerprint(options: ModelOptions) -> WeightsFingerprint:
    """Return the fingerprint that the base model will have, from its files, before it is built.

    Raises:
        UserError: if a file is missing or damaged, or the weights are those of another encoder.
    """
    shapes = load_model(options, "qa", shapes_only=True)
    weights = read_base_weights(options)
    prefix, stem = base_prefix(shapes.config), base_stem(weights, shapes.config)
    renamed = {
        prefix + current_name(name.removeprefix(stem)): weight
        for name, weight in weights.items()
        if name.startswith(stem)
    }
    of_base = {name for name, _ in shapes.named_parameters() if name.startswith(prefix)}
    return _fingerprint({name: weight for name, weight in renamed.items() if name in of_base})


def _fingerprint(weights: Mapping[str, torch.Tensor]) -> WeightsFingerprint:
    digests = [hashlib.sha256() for _ in WeightsFingerprint._fields]
    for name, weight in sorted(weights.items()):
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // SAMPLED_VALUES)].float().cpu().contiguous()
        rounded = (sample, sample.half().float(), sample.bfloat16().float())
        for digest, values in zip(digests, rounded, strict=True):
            digest.update(f"{name}{tuple(weight.shape)}".encode())
            digest.update(values.numpy().tobytes())
    return WeightsFingerprint(*[digest.hexdigest() for digest in digests])


# ---------------------------------------------------------------- comparison


@dataclass(frozen=True)
class Base:
    """The base model and the tokenizer of a run.

    Attributes:
        options: the options that name them.
        weights: None if they are random, or not compared yet.
        tokenizer: None if it is not loaded.
    """

    options: ModelOptions
    weights: WeightsFingerprint | None
    tokenizer: TokenizerFingerprint | None


def origins_of(setup: AdapterSetup | None) -> dict[Origin, str]:
    """Return where the saved adapters of a setup come from, each origin with their names in words."""
    names: dict[Origin, list[str]] = {}
    for source in setup.adapters if setup is not None else ():
        if source.origin is not None:
            names.setdefault(source.origin, []).append(source.name)
    return {origin: f"adapter{'s' if len(found) > 1 else ''} {' and '.join(found)}" for origin, found in names.items()}


def swapped_origin(setup: AdapterSetup | None) -> Origin | None:
    """Return where the language adapter of a language swap comes from; None without one, or if it is not recorded."""
    if setup is None or setup.swapped_out is None or setup.language is None:
        return None
    return setup.language.origin


def check_origins(origins: Mapping[Origin, str], base: Base, *, trains: bool, swapped: Origin | None = None) -> None:
    """Compare the base model and the tokenizer of a run with those that saved weights were trained on.

    What was not recorded is not compared. A note says where they differ, or that only the precision differs.

    Args:
        origins: of the saved weights, with what they are in words.
        base: of the run.
        trains: whether the run trains on the saved weights.
        swapped: the origin of a language adapter that takes the place of another one.

    Raises:
        UserError: if they differ, and the run trains; or if the swapped adapter was trained on other weights.
    """
    problems: list[str] = []
    notes: list[str] = []
    name = base.options.model_name_or_path
    for origin, content in origins.items():
        difference = _difference(origin, base)
        if difference is not None:
            trained = origin.base_name or "another base model"
            line = f"{origin.folder} ({content}) was trained on {trained}; {difference}"
            is_foreign = origin == swapped and _compare_weights(origin.trained_on.base_model, base.weights) == "other"
            if trains or is_foreign:
                problems.append(f"{line}, or train it anew on {name}")
            else:
                notes.append(f"{line}; otherwise the results are not those of its run")
        elif _compare_weights(origin.trained_on.base_model, base.weights) == "copy":
            notes.append(
                f"{origin.folder} ({content}) was trained on the same weights as those of {name}, in another "
                "precision; the results can differ slightly"
            )
    log_note(notes)
    raise_if_any(problems)


def _compare_weights(
    trained: BaseModelRecord, weights: WeightsFingerprint | None
) -> Literal["same", "copy", "other", "unknown"]:
    """Return whether weights are the recorded ones, or one of the two is a copy of the other in half precision."""
    if trained.fingerprint is None or weights is None:
        return "unknown"
    if trained.fingerprint == weights.float32:
        return "same"
    is_copy = weights.float32 in (trained.fingerprint_float16, trained.fingerprint_bfloat16)
    return "copy" if is_copy or trained.fingerprint in weights else "other"


def _difference(origin: Origin, base: Base) -> str | None:
    """Return what a base has other than what was recorded, and what to do; None if they agree as far as is known."""
    name, trained = base.options.model_name_or_path, origin.trained_on.base_model
    differences, advice = [], []
    if _compare_weights(trained, base.weights) == "other":
        is_old = trained.fingerprint_float16 is None  # such a record cannot tell a copy in half precision
        differences.append("other weights" + (", or the same in another precision" if is_old else ""))
        is_same_name = origin.base_name in (None, name, str(Path(name).resolve()))
        if base.options.random_init:
            advice.append("leave out --random_init, which makes them random")
        else:
            advice.append("give it as it was then" if is_same_name else f"give --model_name_or_path {origin.base_name}")
    tokenizer = origin.trained_on.tokenizer_fingerprint
    if tokenizer is not None and base.tokenizer is not None and tokenizer != base.tokenizer:
        is_other = tokenizer.vocabulary != base.tokenizer.vocabulary
        differences.append("another vocabulary" if is_other else "another treatment of capitals, accents or blanks")
        advice.append(_tokenizer_advice(origin, base.options))
    if not differences:
        return None
    tokenizer_name = base.options.tokenizer_name
    with_tokenizer = f" with the tokenizer of {tokenizer_name}" if tokenizer_name is not None else ""
    return f"{name}{with_tokenizer} has {' and '.join(differences)}; {advice[0]}"


def _tokenizer_advice(origin: Origin, options: ModelOptions) -> str:
    """Return which options give the tokenizer that was recorded."""
    recorded = {"tokenizer_name": origin.trained_on.tokenizer, **origin.trained_on.casing()}
    words = [
        f"leave --{key} out" if value is None else f"give --{key} {value}"
        for key, value in recorded.items()
        if value != vars(options)[key]
    ]
    return " and ".join(words) or f"give --tokenizer_name {origin.base_name}"

"""What cannot work in a setup: options, saved adapters and compositions that contradict each other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adapters import Fuse
from adapters.utils import ACTIVATION_RENAME

from adapter_qa.config.low_rank import NOT_FOR_LANGUAGE, NOT_FUSED, SETTINGS, is_low_rank, read_low_rank
from adapter_qa.config.options import ADAPTER_CONFIGS, SMALLEST_REDUCTION, AdapterOptions, LanguageAdapterOptions
from adapter_qa.models.adapter_config import (
    ACTIVATIONS,
    KIND_KEYS,
    LOCATIONS,
    TASK_REDUCTION,
    family_of,
    is_valid_reduction,
    kind_of,
)
from adapter_qa.models.adapter_setup import AdapterSetup, ConfigOptions
from adapter_qa.models.adapter_source import AdapterSource
from adapter_qa.models.encoders import encoder_of
from adapter_qa.models.saved_adapters import LANGUAGE_ADAPTER

LONGEST_FUSION_NAME = 250  # it becomes the name of a folder, which file systems limit to 255 bytes

# ---------------------------------------------------------------- problems with options


def option_problems(options: ConfigOptions) -> list[str]:
    """Return the values that no adapter can have."""
    problems = []
    prefix, _, reduction_factor, non_linearity = options
    if non_linearity is not None and non_linearity.lower() not in ACTIVATIONS:
        problems.append(
            f"{prefix}_non_linearity {non_linearity}: no such activation; "
            "common ones are gelu, gelu_new, relu, swish, tanh"
        )
    if reduction_factor is not None and not is_valid_reduction(reduction_factor):
        problems.append(
            f"{prefix}_reduction_factor {reduction_factor:g}: must be a number of at least {SMALLEST_REDUCTION:g}"
        )
    return problems


def shared_layer_problems(options: AdapterOptions, base_config: dict[str, Any]) -> list[str]:
    """Return the options that leave out an adapter of the last layer, if all layers have the same one."""
    given = {"--madx2": options.madx2, "--houlsby_MHA_lastlayer": options.houlsby_MHA_lastlayer}
    return [
        f"{option}: all layers of {base_config['model_type']} share their weights and their adapter, so that the last "
        "one cannot go without it; leave the option out"
        for option, value in given.items()
        if value and encoder_of(base_config).shares_layers
    ]


# ---------------------------------------------------------------- problems with saved adapters


def adapter_problems(setup: AdapterSetup, adapter: AdapterOptions, lang: LanguageAdapterOptions) -> list[str]:
    """Return conflicts between options and saved adapters, and among the adapters."""
    problems = _composition_problems(setup)
    for source in setup.tasks:
        problems += _contradictions(ConfigOptions.of(adapter), source)
    if setup.language:
        problems += _contradictions(ConfigOptions.of(lang), setup.language)
        if adapter.language and setup.language.language and adapter.language != setup.language.language:
            problems.append(
                f"--language {adapter.language}: the language adapter was trained for {setup.language.language}"
            )
    else:
        prefix, *values = ConfigOptions.of(lang)
        problems += [
            f"{prefix}_{name} {value}: there is no language adapter; add --load_lang_adapter, or leave the option out"
            for name, value in zip(("config", "reduction_factor", "non_linearity"), values, strict=True)
            if value is not None
        ]
    if adapter.houlsby_MHA_lastlayer:
        problems += _last_layer_problems(setup, adapter)
    fusion = setup.fusion
    return problems + (_fusion_problems(setup, fusion) if fusion is not None else [])


def _composition_problems(setup: AdapterSetup) -> list[str]:
    """Return adapters, or parts of them, that would have no effect in the setup."""
    problems = []
    names = [source.name for source in setup.adapters]
    if len(set(names)) < len(names):
        problems.append(
            f"adapters need different names, given are {', '.join(names)}; {LANGUAGE_ADAPTER} is the language adapter"
        )
    by_folder: dict[Path, str] = {}
    for source in setup.adapters:
        if source.folder is not None:
            other = by_folder.setdefault(source.folder.resolve(), source.name)
            if other != source.name:
                problems.append(f"{other} and {source.name} are the same adapter, {source.folder}; give another one")
    problems += [
        f"{source.name}: {kind_of(source.config)}: {NOT_FOR_LANGUAGE}"
        for source in setup.adapters
        if source.is_low_rank and (source is setup.language or setup.task == "mlm")
    ]
    first, *others = setup.adapters
    for source in others:
        if source.is_invertible:
            problems.append(
                f"{source.name}: its invertible adapter would have no effect, because only that of the first adapter, "
                f"{first.name}, is used; give --adapter_config without +inv, such as pfeiffer or houlsby"
            )
    for source in setup.adapters:
        if not source.has_modules(setup.layers) and (setup.fused or source is not first or not source.is_invertible):
            problems.append(
                f"{source.name}: has no module in any of the {setup.layers} layers of the base model; leave out fewer "
                "layers (leave_out, --madx2)"
            )
    language = setup.language
    if language is not None and setup.overridden_sites and not setup.is_saved_composition:
        parallel, replaced = (
            (language.name, "the block itself")
            if language.is_parallel
            else (", ".join(source.name for source in setup.tasks if source.is_parallel), language.name)
        )
        problems.append(
            f"{setup.block}: {parallel} is parallel, and would leave {replaced} without effect at "
            f"{min(setup.overridden_sites)}; give an adapter that is not parallel, such as pfeiffer or houlsby, or no "
            "language adapter"
        )
    return problems


def _contradictions(options: ConfigOptions, source: AdapterSource) -> list[str]:
    """Return the options that contradict the configuration of a saved adapter; a new adapter contradicts none."""
    if source.folder is None:
        return []
    values = {"reduction_factor": options.reduction_factor, "non_linearity": options.non_linearity}
    expected: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    trained = kind_of(source.config)
    if expected and source.is_low_rank:
        return [
            f"{options.prefix}_{key} {value}: {source.folder} was trained with {trained}, which has none; leave the "
            "option out"
            for key, value in expected.items()
        ]
    if options.kind is not None:
        config = options.new_config(options.kind, TASK_REDUCTION)
        if family_of(config) != family_of(source.config):
            return [
                f"{options.prefix}_config {options.kind}: {source.folder} was trained with {trained}; leave the option "
                "out"
            ]
        # A kind's name leaves reduction and activation open, a file does not.
        keys: Iterable[str] = KIND_KEYS if options.kind in ADAPTER_CONFIGS else (*KIND_KEYS, *values)
        if source.is_low_rank:
            keys = read_low_rank(options.kind)[0] if is_low_rank(options.kind) else SETTINGS
        expected |= {key: config[key] for key in keys}

    def is_legacy_name(key: str, value: object) -> bool:
        return source.is_legacy and key == "non_linearity" and ACTIVATION_RENAME.get(value) == source.config[key]

    return [
        f"{options.prefix}_* options ask for {key} {value}, but {source.folder} was trained with {source.config[key]}; "
        "leave the option out"
        for key, value in expected.items()
        if value != source.config[key] and not is_legacy_name(key, value)
    ]


def _last_layer_problems(setup: AdapterSetup, adapter: AdapterOptions) -> list[str]:
    """Return what prevents --houlsby_MHA_lastlayer."""
    problems = []
    for source in setup.tasks:
        if not all(source.config.get(location) for location in LOCATIONS):
            problems.append(
                f"--houlsby_MHA_lastlayer: {source.name} is not a houlsby adapter; give --adapter_config houlsby"
            )
        elif not source.attention_only_last_layer:
            problems.append(
                f"--houlsby_MHA_lastlayer: {source.folder} was trained with an adapter after the last feed-forward "
                "block; leave the option out"
            )
    if adapter.madx2:
        problems.append(
            "--houlsby_MHA_lastlayer and --madx2 exclude each other: in the last layer, the first removes one of two "
            "modules, the second removes both"
        )
    return problems


def _fusion_problems(setup: AdapterSetup, fusion: Fuse) -> list[str]:
    """Return what prevents the library from running a fusion.

    Fused adapters must be of the same kind. The library takes residual and query of the fusion from the last fused
    adapter, which therefore needs a module at every site where any adapter of the setup has one.
    """
    low_rank = [f"{source.name} is {kind_of(source.config)}" for source in setup.adapters if source.is_low_rank]
    if low_rank:
        return [f"{setup.block}: {', '.join(low_rank)}; {NOT_FUSED}"]
    if len(fusion.name) > LONGEST_FUSION_NAME:
        return [f"the fused adapters' names have {len(fusion.name)} letters; give at most {LONGEST_FUSION_NAME} in all"]
    fused = [source for source in setup.adapters if source.name in fusion.children]
    # A fusion that was saved by an earlier version was trained with the inputs that its adapters get in it.
    kinds = {source.name: _kind_name(source, with_input=setup.saved is None) for source in fused}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        return [f"adapters of different kinds cannot be fused: {listed}; train them with one --adapter_config"]
    sites = {source.name: source.sites(setup.layers) for source in setup.adapters}
    last = fused[-1].name
    missing = sorted(set().union(*sites.values()) - sites[last])
    if missing:
        names = [name for name in sites if missing[0] in sites[name]]
        advice = "add --madx2 True, or fuse adapters with the same layers"
        if setup.saved is not None:  # a script that asks has no --madx2
            advice = "give a language adapter without one, as --madx2 True trains it"
        return [
            f"{missing[0]}: {', '.join(names)} {'has' if len(names) == 1 else 'have'} a module there, but {last}, the "
            f"last adapter in the fusion, has none; {advice}"
        ]
    return []


def _kind_name(source: AdapterSource, *, with_input: bool) -> str:
    """Return in words what fused adapters must have in common: the locations, and what the modules take as input."""
    config = source.config
    names = {(True, True): "houlsby", (False, True): "pfeiffer", (True, False): "attention only"}
    name = names.get((bool(config["mh_adapter"]), bool(config["output_adapter"])), "none")
    if not with_input:
        return name
    if source.is_parallel:
        return f"{name} parallel"
    takes_norm = bool(config["original_ln_before"])
    return name if takes_norm == (name != "houlsby") else f"{name} with original_ln_before {str(takes_norm).lower()}"

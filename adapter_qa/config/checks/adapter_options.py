"""The problems of options for adapters and fusion; `models.setup_problems` has those that need the saved folders."""

from __future__ import annotations

import os
from collections.abc import Sequence

from adapter_qa.config.low_rank import FORMS, NOT_FOR_LANGUAGE, NOT_FUSED, is_low_rank, read_low_rank
from adapter_qa.config.options import (
    ADAPTER_CONFIGS,
    ADAPTER_NAME,
    HEAD_FROM_QA,
    NO_LANGUAGE_ADAPTER,
    AdapterOptions,
    FusionOptions,
    LanguageAdapterOptions,
)
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig, RunConfig


def adapter_option_problems(config: RunConfig) -> list[str]:
    """Return the problems of the options for adapters and fusion of a script."""
    match config:
        case QARunConfig():
            problems = setup_problems(config.adapter, config.language_adapter, config.fusion)
            return problems + _new_fusion_problems(config)
        case NERRunConfig():
            return setup_problems(config.adapter, config.language_adapter, FusionOptions())
        case MLMRunConfig():
            problems = setup_problems(config.adapter, LanguageAdapterOptions(), FusionOptions())
            return problems + _language_kind_problems("adapter_config", config.adapter.adapter_config)


def setup_problems(adapter: AdapterOptions, lang: LanguageAdapterOptions, fusion: FusionOptions) -> list[str]:
    """Return the conflicts between the options of a setup, and kinds of adapters that do not exist."""
    problems = []
    if not fusion.train_adapter:
        values = {
            "--load_adapter": adapter.load_adapter,
            "--load_lang_adapter": lang.load_lang_adapter,
            "--fuse_adapters": fusion.fuse_adapters,
        }
        problems += [
            f"{name} requires --train_adapter True; full fine-tuning has no adapters"
            for name, value in values.items()
            if value is not None
        ]
    if fusion.fuse_adapters is not None:
        problems += parse_fuse_adapters(fusion.fuse_adapters)[1]
        if adapter.load_adapter is not None:
            problems.append(
                "--load_adapter and --fuse_adapters exclude each other; a saved fusion is loaded with --load_adapter"
            )
    has_language_adapter = lang.load_lang_adapter not in (None, NO_LANGUAGE_ADAPTER)
    if fusion.adapter_composition == "fuse" and (fusion.fuse_adapters is None or not has_language_adapter):
        problems.append("--adapter_composition fuse needs --fuse_adapters and --load_lang_adapter")
    for option, kind in {"adapter": adapter.adapter_config, "lang_adapter": lang.lang_adapter_config}.items():
        if kind is not None and kind not in ADAPTER_CONFIGS and not os.path.isfile(kind) and not is_low_rank(kind):
            kinds = ", ".join([*ADAPTER_CONFIGS, *([FORMS] if option == "adapter" else [])])
            problems.append(f"--{option}_config {kind}: give {kinds}, or the path of an adapter_config.json")
    return problems + _low_rank_problems(adapter, lang, fusion)


def _low_rank_problems(adapter: AdapterOptions, lang: LanguageAdapterOptions, fusion: FusionOptions) -> list[str]:
    """Return the problems with the kinds `lora` and `ia3`, and the options that they cannot be combined with."""
    problems = _language_kind_problems("lang_adapter_config", lang.lang_adapter_config)
    kind = adapter.adapter_config
    if kind is None or not is_low_rank(kind):
        return problems
    problems += [f"--adapter_config {kind}: {problem}" for problem in read_low_rank(kind)[1]]
    if fusion.fuse_adapters is not None:
        problems.append(f"--adapter_config {kind}: {NOT_FUSED}")
    reduction = adapter.adapter_reduction_factor
    of_bottlenecks = {
        "adapter_reduction_factor": None if reduction is None else f"{reduction:g}",
        "adapter_non_linearity": adapter.adapter_non_linearity,
        "houlsby_MHA_lastlayer": adapter.houlsby_MHA_lastlayer or None,
    }
    return problems + [
        f"--{name} {value}: is for bottleneck adapters, --adapter_config {kind} has none; leave out one of the two"
        for name, value in of_bottlenecks.items()
        if value is not None
    ]


def _language_kind_problems(option: str, kind: str | None) -> list[str]:
    """Return why a kind of adapter, which an option gives, cannot be that of a language adapter."""
    return [f"--{option} {kind}: {NOT_FOR_LANGUAGE}"] if is_low_rank(kind) else []


def parse_fuse_adapters(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the paths by name that --fuse_adapters gives as `NAME=PATH`, in the order given, and the problems."""
    paths: dict[str, str] = {}
    problems = []
    for word in words:
        name, separator, path = word.partition("=")
        if not separator or not path or not ADAPTER_NAME.fullmatch(name):
            problems.append(f"--fuse_adapters {word}: write NAME=PATH, the name of letters, digits, - and _")
        elif name in paths:
            problems.append(f"--fuse_adapters {word}: the name {name} is used twice; each adapter needs its own")
        else:
            paths[name] = path
    if not problems and len(paths) < 2:
        problems.append(f"--fuse_adapters: {len(paths)} adapter given; a fusion needs two or more NAME=PATH")
    return paths, problems


def _new_fusion_problems(config: QARunConfig) -> list[str]:
    fusion, training = config.fusion, config.training
    trains_fusion = fusion.fuse_adapters is not None and (training.do_train or training.dry_run)
    if fusion.fusion_head != HEAD_FROM_QA or trains_fusion:
        return []
    remedy = "add --fuse_adapters and --do_train, or leave the option out"
    return [f"--fusion_head {HEAD_FROM_QA}: no new fusion is trained; {remedy}"]

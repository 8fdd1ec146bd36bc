"""The kinds `lora` and `ia3` of --adapter_config, with settings in brackets such as `lora[r=8,alpha=16]`.

The settings have the names and meanings of the library's `LoRAConfig`. Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

MATRICES = ("q", "k", "v")  # query, key and value of the self-attention
BLOCKS = ("selfattn_lora", "intermediate_lora", "output_lora")  # whether attention or feed-forward block is adapted
SMALLEST_ALPHA, LARGEST_ALPHA, LARGEST_DROPOUT = 1e-6, 1e6, 0.99


class Setting(NamedTuple):
    """What a setting may be.

    Attributes:
        read: makes the value from text; raises ValueError.
        is_valid: whether a value is allowed.
        allowed: the same in words.
    """

    read: Callable[[str], Any]
    is_valid: Callable[[Any], bool]
    allowed: str


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _is_number(value: Any, smallest: float, largest: float) -> bool:
    return type(value) in (int, float) and smallest <= value <= largest


def _are_matrices(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(name in MATRICES and value.count(name) == 1 for name in value)
    )


_SWITCH = Setting(_truth, lambda value: type(value) is bool, "True or False")
SETTINGS = {
    "r": Setting(int, lambda value: type(value) is int and value >= 1, "a whole number of at least 1"),
    "alpha": Setting(
        _number,
        lambda value: _is_number(value, SMALLEST_ALPHA, LARGEST_ALPHA),
        f"a number from {SMALLEST_ALPHA:g} to {LARGEST_ALPHA:g}",
    ),
    "dropout": Setting(
        _number, lambda value: _is_number(value, 0, LARGEST_DROPOUT), f"a number from 0 to {LARGEST_DROPOUT:g}"
    ),
    "attn_matrices": Setting(lambda text: text.split("-"), _are_matrices, "q, k or v, or several of them as in q-k-v"),
    **dict.fromkeys(BLOCKS, _SWITCH),
}
# The settings of each kind. Those that are missing have one value only: (IA)3 has vectors, which begin as 1.
KINDS: dict[str, tuple[str, ...]] = {"lora": tuple(SETTINGS), "ia3": ("attn_matrices", *BLOCKS)}
ADAPTED = {"lora": BLOCKS[:1], "ia3": BLOCKS[:2]}  # the blocks that are True without a setting
# For messages.
FORMS = "lora[r=8,alpha=16], ia3"
NOT_FOR_LANGUAGE = "a language adapter is a bottleneck adapter here, with an invertible one; give pfeiffer+inv"
NOT_FUSED = (
    "LoRA and (IA)3 change weights inside a layer, a fusion mixes the outputs of bottleneck adapters; fuse adapters of "
    "one kind such as pfeiffer"
)


def is_low_rank(kind: str | None) -> bool:
    """Return whether a value of --adapter_config is `lora` or `ia3`, with or without brackets."""
    return kind is not None and kind.partition("[")[0] in KINDS


def read_low_rank(kind: str) -> tuple[dict[str, Any], list[str]]:
    """Return the settings in the brackets of a kind that `is_low_rank` accepts, and what is wrong with them."""
    name, bracket, rest = kind.partition("[")
    if not bracket:
        return {}, []
    if not rest.endswith("]") or rest == "]":
        return {}, [f"write {name}, or {name}[NAME=VALUE,NAME=VALUE], with the settings {', '.join(KINDS[name])}"]
    settings: dict[str, Any] = {}
    problems = []
    for word in rest[:-1].split(","):
        key, _, text = (part.strip() for part in word.partition("="))
        if key not in KINDS[name]:
            problems.append(f"{name} has no setting {key or word!r}; choose from {', '.join(KINDS[name])}")
            continue
        if key in settings:
            problems.append(f"{key} is given twice; give it once")
        try:
            settings[key] = SETTINGS[key].read(text)
        except ValueError:
            settings[key] = text
        if not SETTINGS[key].is_valid(settings[key]):
            problems.append(f"{key} is {text or 'empty'}; give {SETTINGS[key].allowed}")
    if not problems and "attn_matrices" in settings and settings.get("selfattn_lora") is False:
        problems.append("attn_matrices has no effect with selfattn_lora=False; leave out one of the two")
    return settings, problems or block_problems({block: block in ADAPTED[name] for block in BLOCKS} | settings)


def block_problems(config: dict[str, Any]) -> list[str]:
    """Return a problem if a configuration, or the settings of one, changes nothing."""
    if any(config[block] for block in BLOCKS):
        return []
    return [f"{', '.join(BLOCKS)} are all False, which changes nothing; set one to True"]

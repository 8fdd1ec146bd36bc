"""The supported encoders: what the trainer must know of each kind beyond its config.json.

`encoder_adapters` has what needs PyTorch: how the adapters library is brought into a model of each kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Sizes in config.json, with the names of most encoders.
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
# A layer in the name of a weight; ALBERT's layers are numbered in groups.
LAYER = r"(?:layers?|albert_layer_groups)\.(?P<layer>\d+)\."
# Where an adapter has a module, in the name of its weight: after the attention block or the feed-forward block.
# `adapters` has it inside the block's output layer (BERT) or beside it.
ADAPTER_SITE = re.compile(
    LAYER + r"(?:albert_layers\.0\.)?"
    r"(?P<block>(?:attention\.)?output|(?:attention\.)?attention_adapters|output_adapters)\.adapters\.(?P<name>[^.]+)\."
)
WORD_EMBEDDINGS = re.compile(r"((?:.+\.)?)embeddings\.(?:word|tok)_embeddings\.weight")  # group: what is before


@dataclass(frozen=True)
class Encoder:
    """A kind of encoder.

    Attributes:
        sizes: transformers' default of each of `SIZES`, for a config.json that omits it.
        size_keys: names of sizes in config.json, where they differ from `SIZES`.
        loaded_as: the `model_type` whose classes load it, if its own are not known to `adapters`.
        unused_positions: position embeddings that no token uses: RoBERTa numbers positions from pad_token_id + 1.
        takes_token_types: whether it has an input for token types; `type_vocab_size` can still be 0 or 1.
        token_types: their number if config.json does not say it.
        mask_dimensions: of the attention mask that it takes: 3, (batch, 1, tokens), if possible, otherwise 2. For two
            dimensions transformers checks whether it contains padding, and that check waits for the GPU in every step.
        rotates_positions: whether queries and keys are rotated by their positions, in place of position embeddings.
        norm_after_output: whether a layer norm follows the feed-forward block.
        shares_layers: whether all layers have the same weights, and so the same adapter.
        old_head: names of a masked-LM head in released files that its class does not know, each with the present one;
            parts of names, tried in this order.
        discriminator_head: what the names of a head begin with that only a discriminator has.
        attentions: values of --attn_implementation that its classes know.
        default_attention: the value without the option; None leaves it to the library.
        settings: values of the configuration that override config.json.
    """

    sizes: tuple[int, int, int, int, int] = (768, 12, 12, 3072, 512)
    size_keys: Mapping[str, str] = field(default_factory=dict)
    loaded_as: str | None = None
    unused_positions: int = 0
    takes_token_types: bool = True
    token_types: int = 2
    mask_dimensions: int = 3
    rotates_positions: bool = False
    norm_after_output: bool = True
    shares_layers: bool = False
    old_head: Mapping[str, str] = field(default_factory=dict)
    discriminator_head: str | None = None
    attentions: tuple[str, ...] = ("sdpa", "eager")
    default_attention: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)


# By "model_type" in config.json. CONTRIBUTING.md says how to add one.
ENCODERS = {
    "bert": Encoder(),
    "roberta": Encoder(unused_positions=2),
    "xlm-roberta": Encoder(unused_positions=2),
    "camembert": Encoder(unused_positions=2, loaded_as="xlm-roberta"),
    "deberta-v2": Encoder(
        (1536, 24, 24, 6144, 512),
        token_types=0,
        mask_dimensions=2,
        attentions=("eager",),
        old_head={
            "lm_predictions.lm_head.bias": "cls.predictions.bias",
            "lm_predictions.lm_head.": "cls.predictions.transform.",
        },
        discriminator_head="mask_predictions.",
        settings={"legacy": True},  # its class has two heads that compute the same; this one has the usual structure
    ),
    "electra": Encoder((256, 12, 4, 1024, 512), discriminator_head="discriminator_predictions."),
    "distilbert": Encoder(
        (768, 6, 12, 3072, 512),
        size_keys={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
        },
        takes_token_types=False,
        mask_dimensions=2,
    ),
    "albert": Encoder((4096, 12, 64, 16384, 512), mask_dimensions=2, shares_layers=True),
    "modernbert": Encoder(
        (768, 22, 12, 1152, 8192),
        takes_token_types=False,
        mask_dimensions=2,
        rotates_positions=True,
        norm_after_output=False,
        default_attention="sdpa",  # the library's is flash attention, whose batches have a form that adapters lack
        settings={"reference_compile": False},  # on a GPU it would compile parts of the model that adapters change
    ),
}  # fmt: skip


def encoder_of(config: Mapping[str, Any]) -> Encoder:
    """Return the kind of encoder of a config.json that has been checked."""
    return ENCODERS[config["model_type"]]


def with_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json with all of `SIZES`; one of an unsupported encoder is not changed."""
    encoder = ENCODERS.get(str(config.get("model_type")))
    if encoder is None:
        return dict(config)
    defaults = dict(zip(SIZES, encoder.sizes, strict=True))
    named = {size: config[key] for size, key in encoder.size_keys.items() if key in config}
    return {**defaults, **config, **named}


def library_model_type(model_type: str) -> str:
    """Return the `model_type` of the classes that load an encoder; adapters are saved with it."""
    encoder = ENCODERS.get(model_type)
    return model_type if encoder is None or encoder.loaded_as is None else encoder.loaded_as


def takes_token_types(config: Mapping[str, Any]) -> bool:
    """Return whether an encoder distinguishes the tokens of two texts by their type."""
    encoder, types = encoder_of(config), config.get("type_vocab_size")
    return encoder.takes_token_types and (types if isinstance(types, int) else encoder.token_types) > 1


def adapter_layers(config: Mapping[str, Any]) -> int:
    """Return the number of layers that can have adapters of their own, for a config.json with all of `SIZES`."""
    encoder = ENCODERS.get(config["model_type"])
    is_shared = encoder is not None and encoder.shares_layers
    return int(config.get("num_hidden_groups", 1) if is_shared else config["num_hidden_layers"])


def window_limit(config: Mapping[str, Any]) -> int:
    """Return the length of the longest input, in tokens."""
    unused, pad_token_id = encoder_of(config).unused_positions, config.get("pad_token_id")
    if unused and isinstance(pad_token_id, int):
        unused = pad_token_id + 1
    return int(config["max_position_embeddings"]) - unused

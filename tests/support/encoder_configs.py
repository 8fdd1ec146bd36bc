"""Configurations of tiny encoders of every kind. To add an encoder, add its values here."""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

from adapter_qa.models.encoders import ENCODERS

SIZES = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
VOCABULARY, POSITIONS = 50, 40
_USUAL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip
_ROBERTA = {**_USUAL, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1}
_VALUES: dict[str, dict[str, Any]] = {
    "bert": _USUAL,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "deberta-v2": {
        **_USUAL, "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm",
        "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0,
    },
    "electra": {**_USUAL, "embedding_size": 8},
    "distilbert": {
        "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "dim": 16, "n_layers": 2, "n_heads": 2,
        "hidden_dim": 32,
    },
    "albert": {**_USUAL, "embedding_size": 8, "num_hidden_groups": 1, "inner_group_num": 1},
    "modernbert": {
        **_USUAL, "pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2,
        "global_attn_every_n_layers": 2, "local_attention": 8,
    },
}  # fmt: skip

_DROPOUTS = {  # the names of their probabilities
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "albert": ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"),
    "distilbert": ("dropout", "attention_dropout", "qa_dropout"),
    "modernbert": ("attention_dropout", "mlp_dropout", "embedding_dropout", "classifier_dropout"),
}


def tiny_config(model_type: str, **changes: Any) -> PretrainedConfig:
    """Return the configuration of a tiny encoder, with changed values."""
    config: PretrainedConfig = CONFIG_MAPPING[model_type](**{**_VALUES[model_type], **changes})
    return config


def config_with_dropout(name: str, dropout: float) -> PretrainedConfig:
    """Return an encoder of the sizes `SIZES` with one probability for every dropout that it has.

    Of ModernBERT's five layers, three see 4 tokens to each side, and 8 in "modernbert, wide".
    """
    kind = name.partition(",")[0]
    changes: dict[str, Any] = {ENCODERS[kind].size_keys.get(size, size): value for size, value in SIZES.items()}
    changes |= dict.fromkeys(_DROPOUTS.get(kind, _DROPOUTS["bert"]), dropout)
    changes |= {"vocab_size": 200, "pad_token_id": 0, "max_position_embeddings": 512}
    if kind == "modernbert":
        changes |= {"num_hidden_layers": 5, "local_attention": 16 if name == "modernbert, wide" else 8}
        changes |= {"global_attn_every_n_layers": 3, "attention_bias": True, "reference_compile": False}
    return tiny_config(kind, **changes)

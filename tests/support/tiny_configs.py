"""A tiny configuration of every supported encoder, without a tokenizer and without weights."""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

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
        "pooler_hidden_size": 16,
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


def tiny_config(model_type: str, **changes: Any) -> PretrainedConfig:
    """Return the configuration of a tiny encoder, with changed values."""
    config: PretrainedConfig = CONFIG_MAPPING[model_type](**{**_VALUES[model_type], **changes})
    return config

"""Configurations of small encoders of every kind, for models with random weights."""

from __future__ import annotations

from typing import Any

from transformers import (
    AlbertConfig,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

SIZES = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}


def configuration(name: str, dropout: float) -> PretrainedConfig:
    """Return a small encoder of a kind, with every dropout that it has."""
    sizes: dict[str, Any] = {"vocab_size": 200, "pad_token_id": 0, **SIZES}
    if name == "distilbert":
        return DistilBertConfig(
            vocab_size=200, dim=64, n_layers=4, n_heads=4, hidden_dim=128, dropout=dropout, attention_dropout=dropout,
            qa_dropout=dropout,
        )  # fmt: skip
    if name.startswith("modernbert"):  # layers 1, 2 and 4 see 4 tokens to each side; in the wide one 8
        return ModernBertConfig(
            **sizes | {"num_hidden_layers": 5}, local_attention=16 if name == "modernbert, wide" else 8,
            attention_dropout=dropout, mlp_dropout=dropout, embedding_dropout=dropout, classifier_dropout=dropout,
            attention_bias=True, reference_compile=False,
        )  # fmt: skip
    sizes |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    if name == "albert":
        return AlbertConfig(**sizes, embedding_size=16, classifier_dropout_prob=dropout)
    if name == "electra":
        return ElectraConfig(**sizes, embedding_size=16)
    if name == "deberta-v2":
        return DebertaV2Config(**sizes, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8)
    kinds = {
        "bert": BertConfig,
        "roberta": RobertaConfig,
        "xlm-roberta": XLMRobertaConfig,
    }
    return kinds[name](**sizes)

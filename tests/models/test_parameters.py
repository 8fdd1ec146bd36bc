"""Numbers of parameters, against counts published for BERT-large."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from support.setups import SETUPS, A, F, L, Maker
from transformers import BertConfig

from adapter_qa.config.options import ModelOptions
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import build_setup
from adapter_qa.models.parameters import format_table, fusion_values, parameter_table
from adapter_qa.models.setup_decisions import resolve_setup


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> ModelOptions:
    """The configuration of BERT-large, with the vocabulary size of BERTimbau."""
    folder = tmp_path_factory.mktemp("large")
    BertConfig(
        vocab_size=29_794, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    ).save_pretrained(folder)
    return ModelOptions(str(folder), random_init=True)


@pytest.mark.parametrize(
    ("lang", "added", "percent", "composition"),
    [
        (None, 78_478_208, 23.54, "Fuse[qa, ner]"),
        ("new", 103_156_608, 30.95, "Stack[mlm, Fuse[qa, ner]]"),
    ],
)
def test_counts_for_bert_large(
    large: ModelOptions, lang: str | None, added: int, percent: float, composition: str
) -> None:
    """The expected counts were measured with adapter-transformers 2.1.1."""
    setup = resolve_setup(
        "qa",
        read_base_config(large),
        A(madx2=True),
        L(load_lang_adapter=lang),
        F(fuse_adapters=["qa=new", "ner=new"]),
        random_init=True,
    )
    assert setup is not None
    model = load_model(large, "qa", shapes_only=True)
    build_setup(model, setup)
    table = parameter_table(model, setup)
    assert table.base == 333_348_866
    assert table.added == added
    assert table.percent_added == percent
    assert table.trainable == 72_400_898
    assert table.parts["qa"] + table.parts["ner"] == 6_079_360
    assert table.parts.get("mlm", 24_678_400) == 24_678_400
    assert str(model.active_adapters) == composition
    assert "333,348,866" in format_table(table)
    evaluated = parameter_table(model, setup, trains=False)
    assert evaluated == msgspec.structs.replace(table, trainable=0)
    assert format_table(evaluated).splitlines()[-1].split() == ["trainable", "0", "0.00", "%"]


def test_every_fusion_layer_has_one_value_matrix(maker: Maker, saved: dict[str, Path]) -> None:
    model = maker.model(maker.setup(*SETUPS["fusion"][1](saved)))
    assert len(fusion_values(model)) == 3  # the adapters leave out the last of four layers
    assert {tuple(weight.shape) for _, weight in fusion_values(model)} == {(maker.config["hidden_size"],) * 2}

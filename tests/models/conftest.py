"""Setups of every kind on a tiny BERT and a tiny RoBERTa."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.setups import Maker, save_adapters


@pytest.fixture(scope="module", params=["bert", "roberta"])
def maker(
    request: pytest.FixtureRequest, tiny_bert: Path, tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory
) -> Maker:
    base = tiny_bert if request.param == "bert" else tiny_roberta
    return Maker(base, tmp_path_factory.mktemp(f"setups_{request.param}"))


@pytest.fixture(scope="module")
def saved(maker: Maker) -> dict[str, Path]:
    """The folders of saved adapters of every kind, by name."""
    return save_adapters(maker)

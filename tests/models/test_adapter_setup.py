"""Setups decided from options and saved folders (adapter_qa/models/adapter_setup.py), and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.problems import problems_of
from support.setups import SETUPS, A, F, L, Maker

from adapter_qa.core.errors import UserError
from adapter_qa.models.adapter_setup import resolve_setup, setup_for_inference, setup_from_saved


def option_problems(maker: Maker, *options: Any) -> list[str]:
    return problems_of(resolve_setup, "qa", maker.config, *options)


@pytest.mark.parametrize("name", SETUPS)
def test_setups_have_their_composition(maker: Maker, saved: dict[str, Path], name: str) -> None:
    composition, options = SETUPS[name]
    setup = maker.setup(*options(saved))
    assert str(setup.block) == composition
    assert {source.name for source in setup.adapters} == setup.block.flatten()
    assert setup.folder_name == ("adapters-fusion" if "Fuse" in composition else f"adapters-{setup.task}")
    assert not setup.notes


def test_full_fine_tuning_has_no_setup(maker: Maker) -> None:
    assert resolve_setup("qa", maker.config, A(), None, F(train_adapter=False)) is None


def test_a_saved_setup_is_the_setup_that_was_saved(maker: Maker, saved: dict[str, Path]) -> None:
    _, setup, folder = maker.make("saved", *SETUPS["lang+fusion"][1](saved))
    again = setup_from_saved("--load_adapter", str(folder), "qa", maker.config)
    assert str(again.block) == str(setup.block)
    assert again.loads_saved_head
    assert [source.folder for source in again.adapters] == [folder / name for name in ("mlm", "qa", "ner")]
    assert [source.sites(again.layers) for source in again.adapters] == [
        source.sites(setup.layers) for source in setup.adapters
    ]


def test_a_head_of_another_task_is_not_loaded(maker: Maker, saved: dict[str, Path]) -> None:
    assert not setup_from_saved("--load_adapter", str(saved["ner"]), "qa", maker.config).loads_saved_head


def test_the_word_none_leaves_out_the_language_adapter(maker: Maker, saved: dict[str, Path]) -> None:
    setup = setup_for_inference("RUN", str(saved["qa"]), maker.config, "none")
    assert str(setup.block) == "Stack[qa]"
    folder = maker.make("mlm in fusion", *SETUPS["lang in fusion"][1](saved))[2]
    with pytest.raises(UserError, match="--load_lang_adapter none: mlm is part of the fusion; leave the option out"):
        setup_for_inference("RUN", str(folder), maker.config, "none")


def test_option_conflicts_are_reported_together(maker: Maker) -> None:
    problems = option_problems(
        maker,
        A(load_adapter="x", adapter_non_linearity="gellu", adapter_reduction_factor=-1),
        L(load_lang_adapter="y"),
        F(train_adapter=False, fuse_adapters=["qa=a"]),
    )
    assert problems == [
        "--load_adapter requires --train_adapter True; full fine-tuning has no adapters",
        "--load_lang_adapter requires --train_adapter True; full fine-tuning has no adapters",
        "--fuse_adapters requires --train_adapter True; full fine-tuning has no adapters",
        "--fuse_adapters: 1 adapter given; a fusion needs two or more NAME=PATH",
        "--load_adapter and --fuse_adapters exclude each other; a saved fusion is loaded with --load_adapter",
        "--adapter_non_linearity gellu: no such activation; common ones are gelu, gelu_new, relu, swish, tanh",
        "--adapter_reduction_factor -1: must be a number of at least 0.0625",
    ]


def test_contradictions_of_a_loaded_adapter_name_both_values(maker: Maker, saved: dict[str, Path]) -> None:
    problems = option_problems(
        maker,
        A(load_adapter=str(saved["qa_all"]), adapter_reduction_factor=4, adapter_non_linearity="gelu"),
        L(load_lang_adapter=str(saved["mlm"]), lang_adapter_reduction_factor=8),
    )
    assert [problem.split(";")[0] for problem in problems] == [
        f"--adapter_* options ask for reduction_factor 4, but {saved['qa_all'] / 'qa'} was trained with 16",
        f"--adapter_* options ask for non_linearity gelu, but {saved['qa_all'] / 'qa'} was trained with relu",
        f"--lang_adapter_* options ask for reduction_factor 8, but {saved['mlm'] / 'mlm'} was trained with 2",
    ]


def test_a_language_adapter_for_another_language_is_refused(maker: Maker, saved: dict[str, Path]) -> None:
    assert option_problems(maker, A(language="en"), L(load_lang_adapter=str(saved["mlm"]))) == [
        "--language en: the language adapter was trained for pt"
    ]


def test_a_second_language_adapter_is_refused(maker: Maker, saved: dict[str, Path]) -> None:
    mlm, qa = str(saved["mlm"]), str(saved["qa"])
    assert option_problems(maker, A(load_adapter=qa), L(load_lang_adapter=mlm)) == [
        f"--load_lang_adapter {mlm}: {qa} already holds the language adapter mlm; leave the option out, or give none "
        "to use the task adapter without it"
    ]


def test_a_fusion_cannot_be_fused(maker: Maker, saved: dict[str, Path]) -> None:
    fusion = maker.make("nested", *SETUPS["fusion"][1](saved))[2]
    (problem,) = option_problems(maker, A(), None, F(fuse_adapters=[f"a={fusion}", f"b={saved['ner']}"]))
    assert "holds a fusion; give one of its adapters" in problem


def test_new_adapters_in_a_fusion_need_random_init(maker: Maker) -> None:
    assert option_problems(maker, A(), None, F(fuse_adapters=["qa=new", "ner=new"])) == [
        f"--fuse_adapters {name} new: a new adapter can replace a saved one only with --random_init True"
        for name in ("qa", "ner")
    ]


def test_adapters_of_different_kinds_cannot_be_fused(maker: Maker, saved: dict[str, Path]) -> None:
    assert option_problems(maker, A(), None, F(fuse_adapters=[f"a={saved['hqa']}", f"b={saved['ner']}"])) == [
        "adapters of different kinds cannot be fused: a houlsby, b pfeiffer; train them with one --adapter_config"
    ]


def test_the_last_adapter_of_a_fusion_needs_every_site(maker: Maker, saved: dict[str, Path]) -> None:
    assert option_problems(maker, A(), None, F(fuse_adapters=[f"a={saved['qa_all']}", f"b={saved['ner']}"])) == [
        "layer 3 (output_adapter): a has a module there, but b, the last adapter in the fusion, has none; "
        "add --madx2 True, or fuse adapters with the same layers"
    ]


def test_the_last_layer_option_needs_houlsby_adapters(maker: Maker) -> None:
    assert option_problems(maker, A(houlsby_MHA_lastlayer=True, madx2=True)) == [
        "--houlsby_MHA_lastlayer: qa is not a houlsby adapter; give --adapter_config houlsby",
        "--houlsby_MHA_lastlayer and --madx2 exclude each other: in the last layer, the first removes one of two "
        "modules, the second removes both",
    ]

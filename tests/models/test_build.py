"""Setups: published parameter counts, what trains and what rests, what is saved and comes back, what is refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
from adapters import Fuse, Stack
from safetensors.torch import load_file, save_file
from support.setups import SETUPS, A, F, L, Maker, saves_of
from transformers import AutoModelForQuestionAnswering, BertConfig, PreTrainedModel

from adapter_qa.config.options import ModelOptions
from adapter_qa.core.errors import UserError
from adapter_qa.models.adapter_setup import resolve_setup, setup_from_saved
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import (
    build_setup,
    check_setup,
    format_table,
    fusion_values,
    parameter_table,
    trainable_state,
    trained_names,
)
from adapter_qa.models.fusion import fusion_regularization
from adapter_qa.models.saved_adapters import ATTENTION_ONLY_LAST_LAYER

IDS = torch.tensor([[5, 17, 23, 9, 41, 30, 12, 8], [6, 7, 8, 9, 10, 11, 12, 13]])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> ModelOptions:
    """BERT-large as a configuration only, with BERTimbau's vocabulary size."""
    folder = tmp_path_factory.mktemp("large")
    BertConfig(
        vocab_size=29_794, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    ).save_pretrained(folder)
    return ModelOptions(str(folder), random_init=True)


@pytest.mark.parametrize(
    ("lang", "added", "percent", "setup_name"),
    [
        (None, 78_478_208, 23.54, "Fuse[qa, ner]"),
        ("new", 103_156_608, 30.95, "Stack[mlm, Fuse[qa, ner]]"),
    ],
)
def test_parameters_of_bert_large(
    large: ModelOptions, lang: str | None, added: int, percent: float, setup_name: str
) -> None:
    """The counts measured in 2021 with adapter-transformers 2.1.1."""
    setup = resolve_setup(
        "qa",
        read_base_config(large),
        A(madx2=True),
        L(load_lang_adapter=lang),
        F(fuse_adapters=["qa=new", "ner=new"]),
        random_init=True,
    )
    assert setup is not None
    model = load_model(large, "qa", as_plan=True)
    build_setup(model, setup)
    table = parameter_table(model, setup)
    assert table["base"] == 333_348_866
    assert table["added"] == added
    assert table["percent_added"] == percent
    assert table["trainable"] == 72_400_898
    assert table["parts"]["qa"] + table["parts"]["ner"] == 6_079_360
    assert table["parts"].get("mlm", 24_678_400) == 24_678_400
    assert str(model.active_adapters) == setup_name
    assert "333,348,866" in format_table(table)


@pytest.fixture(scope="module", params=["bert", "roberta"])
def maker(request: pytest.FixtureRequest, tiny_bert: Path, tiny_roberta: Path, tmp_path_factory: Any) -> Maker:
    base = tiny_bert if request.param == "bert" else tiny_roberta
    return Maker(base, tmp_path_factory.mktemp(f"setups_{request.param}"))


@pytest.fixture(scope="module")
def saves(maker: Maker) -> dict[str, Path]:
    return saves_of(maker)


def one_step(model: PreTrainedModel) -> None:
    """One SGD step on a loss that every output takes part in."""
    model.train()
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.5)
    torch.manual_seed(0)
    sum(output.float().pow(2).mean() for output in model(input_ids=IDS).to_tuple()).backward()
    optimizer.step()
    model.eval()


@pytest.mark.parametrize("name", SETUPS)
def test_what_trains_moves_and_the_rest_does_not(maker: Maker, saves: dict[str, Path], name: str) -> None:
    text, options = SETUPS[name]
    setup = maker.setup(*options(saves))
    model = maker.model(setup)
    assert str(model.active_adapters) == str(setup.block) == text
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    one_step(model)
    moved = {key for key, weight in model.named_parameters() if not torch.equal(weight, before[key])}
    frozen = set(before) - set(trained_names(model, setup))
    assert not moved & frozen
    # Softmax over scores does not feel the key bias, nor a fusion of vectors that are all alike: no gradient, no move.
    still = {key for key in set(trained_names(model, setup)) - moved if not key.endswith("key.bias")}
    assert not still


@pytest.mark.parametrize("name", SETUPS)
def test_saved_setup_answers_as_the_one_in_memory(maker: Maker, saves: dict[str, Path], name: str) -> None:
    text, options = SETUPS[name]
    model, setup, folder = maker.make(f"again {name}", *options(saves))
    loaded_plan = setup_from_saved("--load_adapter", str(folder), setup.task, maker.config)
    assert str(loaded_plan.block) == text
    again = maker.model(loaded_plan)
    with torch.no_grad():
        for mine, theirs in zip(model(IDS).to_tuple(), again(IDS).to_tuple(), strict=True):
            assert torch.equal(mine, theirs)
    kept = trainable_state(model)
    assert all(torch.equal(weight, kept[key]) for key, weight in trainable_state(again).items())


def test_files_of_a_saved_fusion(maker: Maker, saves: dict[str, Path]) -> None:
    _, _, folder = maker.make("files", *SETUPS["lang+fusion"][1](saves))
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    weights = ["adapter_config.json", "adapter.safetensors"]
    expected = [f"{name}/{file}" for name in ("mlm", "qa", "ner") for file in weights]
    expected += ["qa,ner/adapter_fusion_config.json", "qa,ner/model_adapter_fusion.safetensors"]
    expected += ["adapter_setup.json", "head_config.json", "model_head.safetensors"]
    assert found == sorted(expected)
    assert all(weight.numel() for path in folder.rglob("*.safetensors") for weight in load_file(path).values())


def test_plain_adapters_code_loads_a_saved_fusion(maker: Maker, saves: dict[str, Path]) -> None:
    model, _, folder = maker.make("plain", *SETUPS["lang+fusion"][1](saves))
    plain = AutoModelForQuestionAnswering.from_pretrained(maker.options.model_name_or_path)
    adapters.init(plain)
    plain.load_adapter_setup(str(folder), set_active=True, use_safetensors=True)
    plain.eval()
    with torch.no_grad():
        # The library multiplies by key and value in another order than `fusion.FusionLayer`.
        torch.testing.assert_close(plain(IDS).start_logits, model(IDS).start_logits, rtol=1e-5, atol=1e-5)


def test_last_layer_trick_is_recorded_and_leaves_the_attention_block(maker: Maker, saves: dict[str, Path]) -> None:
    weights = load_file(saves["hqa"] / "qa" / "adapter.safetensors")
    last = [name for name in weights if ".layer.3." in name]
    assert last and all(".attention.output." in name for name in last)
    assert any(".layer.2.output." in name for name in weights)
    assert json.loads((saves["hqa"] / "qa" / "adapter_config.json").read_text())[ATTENTION_ONLY_LAST_LAYER] is True


def test_madx2_has_nothing_in_the_last_layer(maker: Maker, saves: dict[str, Path]) -> None:
    model = maker.model(maker.setup(*SETUPS["madx2 over whole adapters"][1](saves)))
    names = [name for name, _ in model.named_parameters() if "adapter" in name]
    assert any(".layer.2." in name for name in names) and not any(".layer.3." in name for name in names)


def test_setup_that_is_switched_behind_the_trainers_back_is_noticed(maker: Maker, saves: dict[str, Path]) -> None:
    setup = maker.setup(*SETUPS["lang+fusion"][1](saves))
    model = maker.model(setup)
    model.train_adapter_fusion(Fuse("qa", "ner"))  # as the 2021 notebook did: the language adapter is gone
    with pytest.raises(RuntimeError, match=r"active setup is Fuse\[qa, ner\], the plan says Stack\[mlm, Fuse"):
        check_setup(model, setup)
    build = maker.model(setup)
    build.get_input_embeddings().weight.requires_grad = True
    with pytest.raises(RuntimeError, match="train or rest against the plan.*word_embeddings"):
        check_setup(build, setup)


def test_language_adapter_takes_part(maker: Maker, saves: dict[str, Path]) -> None:
    model = maker.model(maker.setup(*SETUPS["lang+qa"][1](saves)))
    with torch.no_grad():
        torch.nn.init.normal_(model.qa_outputs.weight)
        stacked = model(IDS).start_logits
        model.set_active_adapters(Stack("qa"))
        assert not torch.allclose(stacked, model(IDS).start_logits)


def test_regulariser_is_the_librarys(maker: Maker, saves: dict[str, Path]) -> None:
    model, _, _ = maker.make("regularised", *SETUPS["fusion"][1](saves))
    values = [weight for _, weight in fusion_values(model)]
    assert len(values) == 3
    assert fusion_regularization(values).item() == pytest.approx(
        model.base_model.get_fusion_regularization_loss().item(), rel=1e-6
    )


# ---------------------------------------------------------------- refusals


def refused(maker: Maker, *options: Any, task: str = "qa") -> list[str]:
    with pytest.raises(UserError) as caught:
        resolve_setup(task, maker.config, *options)
    return caught.value.problems


def test_option_clashes_are_reported_together(maker: Maker) -> None:
    problems = refused(
        maker,
        A(load_adapter="x", adapter_non_linearity="gellu", adapter_reduction_factor=-1),
        L(load_lang_adapter="y"),
        F(train_adapter=False, fuse_adapters=["qa=a"]),
    )
    assert problems == [
        "--load_adapter goes with --train_adapter True; full fine-tuning has no adapters",
        "--load_lang_adapter goes with --train_adapter True; full fine-tuning has no adapters",
        "--fuse_adapters goes with --train_adapter True; full fine-tuning has no adapters",
        "--fuse_adapters: 1 adapter given; a fusion needs two or more NAME=PATH",
        "--load_adapter and --fuse_adapters exclude each other; a saved fusion is taken up by the first",
        "--adapter_non_linearity gellu: no such activation; common ones are gelu, gelu_new, relu, swish, tanh",
        "--adapter_reduction_factor -1: must be a number of at least 0.0625",
    ]


def test_options_that_contradict_a_loaded_adapter_name_both_values(maker: Maker, saves: dict[str, Path]) -> None:
    problems = refused(
        maker,
        A(load_adapter=str(saves["qa_all"]), adapter_reduction_factor=4, adapter_non_linearity="gelu"),
        L(load_lang_adapter=str(saves["mlm"]), lang_adapter_reduction_factor=8),
        None,
    )
    assert [problem.split(";")[0] for problem in problems] == [
        f"--adapter_* options ask for reduction_factor 4, but {saves['qa_all'] / 'qa'} was trained with 16",
        f"--adapter_* options ask for non_linearity gelu, but {saves['qa_all'] / 'qa'} was trained with relu",
        f"--lang_adapter_* options ask for reduction_factor 8, but {saves['mlm'] / 'mlm'} was trained with 2",
    ]


def test_other_language_second_language_adapter_and_fusion_in_a_fusion(maker: Maker, saves: dict[str, Path]) -> None:
    mlm = L(load_lang_adapter=str(saves["mlm"]))
    assert "was trained for pt" in refused(maker, A(language="en"), mlm)[0]
    assert "already holds the language adapter mlm" in refused(maker, A(load_adapter=str(saves["qa"])), mlm)[0]
    fusion = maker.make("whole", *SETUPS["fusion"][1](saves))[2]
    found = refused(maker, A(), None, F(fuse_adapters=[f"a={fusion}", f"b={saves['ner']}"]))
    assert "holds a fusion; give one of its adapters" in found[0]


def test_new_adapters_need_random_init(maker: Maker) -> None:
    found = refused(maker, A(), None, F(fuse_adapters=["qa=new", "ner=new"]))
    assert len(found) == 2 and all("only with --random_init True" in problem for problem in found)


def test_kinds_and_missing_last_layers_cannot_be_fused(maker: Maker, saves: dict[str, Path]) -> None:
    found = refused(maker, A(), None, F(fuse_adapters=[f"a={saves['hqa']}", f"b={saves['ner']}"]))
    assert found == [
        "adapters of different kinds cannot be fused: a houlsby, b pfeiffer; train them with one --adapter_config"
    ]
    found = refused(maker, A(), None, F(fuse_adapters=[f"a={saves['qa_all']}", f"b={saves['ner']}"]))
    assert found[0].startswith(
        "layer 3 (output_adapter): a stand there but b, last in the fusion, does not; add --madx2"
    )


def test_every_mix_of_last_layers_runs_or_is_refused(maker: Maker, saves: dict[str, Path]) -> None:
    """What the plan lets through, the library can run; it fails with a KeyError on the rest."""
    ran = 0
    for first, last in itertools.product(("qa", "qa_all"), ("ner", "ner_all")):
        for lang in (None, L(load_lang_adapter=str(saves["mlm"]))):
            fusion = F(fuse_adapters=[f"a={saves[first]}", f"b={saves[last]}"])
            if (first, last) == ("qa_all", "ner"):
                refused(maker, A(), lang, fusion)
                continue
            maker.model(maker.setup("qa", A(), lang, fusion))(IDS)
            ran += 1
    assert ran == 6


@pytest.mark.parametrize("damage", ["truncated", "key missing", "other shape"])
def test_damaged_weights_are_refused(maker: Maker, saves: dict[str, Path], tmp_path: Path, damage: str) -> None:
    import shutil

    folder = tmp_path / "adapters-qa"
    shutil.copytree(saves["qa_all"], folder)
    path = folder / "qa" / "adapter.safetensors"
    state = load_file(path)
    name = sorted(state)[0]
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "key missing":
        del state[name]
        save_file(state, path)
    else:
        state[name] = torch.zeros(3)
        save_file(state, path)
    expected = {
        "truncated": "weights cannot be read",
        "key missing": "1 weights are missing",
        "other shape": "weights cannot be loaded",
    }[damage]
    with pytest.raises(UserError, match=expected):
        maker.model(setup_from_saved("--load_adapter", str(folder), "qa", maker.config))

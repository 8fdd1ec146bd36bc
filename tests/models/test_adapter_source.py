"""Single adapters (adapter_qa/models/adapter_source.py): configurations, saved adapters, and which are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
from adapters import Fuse, Stack
from safetensors.torch import load_file, save_file
from support.problems import problems_of
from support.saved_folders import BASE_CONFIG, write_adapter, write_setup
from support.setups import write_config

from adapter_qa.config.options import ModelOptions
from adapter_qa.models.adapter_config import new_config
from adapter_qa.models.adapter_source import AdapterSource, check_language_adapter, find_adapter, read_adapter
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model
from adapter_qa.models.file_names import ADAPTER_CONFIG
from adapter_qa.models.saved_adapters import ATTENTION_ONLY_LAST_LAYER

# ---------------------------------------------------------------- reading


def test_an_adapter_saved_by_the_library_is_read(tmp_path: Path, tiny_bert: Path) -> None:
    options = ModelOptions(str(tiny_bert))
    model: Any = load_model(options, "qa")
    adapters.init(model)
    model.add_adapter("qa", config=adapters.AdapterConfig.load("double_seq_bn", reduction_factor=8, leave_out=[3]))
    model.save_adapter(str(tmp_path), "qa", meta_dict={ATTENTION_ONLY_LAST_LAYER: True, "language": "pt"})
    source = read_adapter(tmp_path, "other", read_base_config(options))
    assert source == AdapterSource("other", source.config, tmp_path, attention_only_last_layer=True, language="pt")
    assert source.config["leave_out"] == [3]
    assert source.config["reduction_factor"] == 8
    assert source.config["mh_adapter"]
    assert source.config["output_adapter"]


def test_what_an_adapter_does_not_record_has_defaults(tmp_path: Path) -> None:
    source = read_adapter(write_adapter(tmp_path), "qa", BASE_CONFIG)
    assert (source.attention_only_last_layer, source.language, source.config["leave_out"]) == (False, None, [])


@pytest.mark.parametrize(("key", "value"), [("hidden_size", 64), ("model_type", "roberta"), ("hidden_size", None)])
def test_an_adapter_for_another_encoder_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    folder = write_adapter(tmp_path, **{key: value})
    assert problems_of(read_adapter, folder, "qa", BASE_CONFIG) == [
        f"{folder}: its {key} is {value}, the base model's {BASE_CONFIG[key]}; "
        "an adapter fits only the kind and size of encoder it was trained on"
    ]


@pytest.mark.parametrize("config", [None, "prefix_tuning", "unknown", {}, adapters.PrefixTuningConfig().to_dict()])
def test_other_adapters_than_bottlenecks_are_refused(tmp_path: Path, config: Any) -> None:
    folder = write_adapter(tmp_path, config=config)
    assert problems_of(read_adapter, folder, "qa", BASE_CONFIG) == [
        f"{folder}: not a bottleneck adapter (pfeiffer, houlsby), LoRA or (IA)3; no other kind can be used here"
    ]


def test_all_problems_of_an_adapter_are_reported_together(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path, model_type="roberta", hidden_size=768, config={})
    problems = problems_of(read_adapter, folder, "qa", BASE_CONFIG)
    assert [problem.split(" is ")[0] for problem in problems[:2]] == [
        f"{folder}: its model_type",
        f"{folder}: its hidden_size",
    ]
    assert "not a bottleneck adapter" in problems[2]
    assert len(problems) == 3


@pytest.mark.parametrize("content", [None, b"", b'{"config": {', b'{"a": "\xff"}'])
def test_damaged_json_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / ADAPTER_CONFIG
    if content is not None:
        path.write_bytes(content)
    (problem,) = problems_of(read_adapter, tmp_path, "qa", BASE_CONFIG)
    assert problem.startswith(
        (f"{path}: cannot be read: ", f"{path}: not JSON", f"{path}: not UTF-8", f"{path}: the file is empty")
    )


@pytest.mark.parametrize(
    ("kind", "leave_out", "attention_only_last_layer", "sites"),
    [
        ("pfeiffer", [], False, {(0, "output_adapter"), (1, "output_adapter"), (2, "output_adapter")}),
        ("pfeiffer", [2], False, {(0, "output_adapter"), (1, "output_adapter")}),
        ("houlsby", [0, 1], False, {(2, "mh_adapter"), (2, "output_adapter")}),
        ("houlsby", [0], True, {(1, "mh_adapter"), (1, "output_adapter"), (2, "mh_adapter")}),
    ],
)
def test_sites_follow_from_the_configuration(
    kind: str, leave_out: list[int], attention_only_last_layer: bool, sites: set[tuple[int, str]]
) -> None:
    source = AdapterSource("qa", {**new_config(kind), "leave_out": leave_out})
    assert replace(source, attention_only_last_layer=attention_only_last_layer).sites(3) == sites


@pytest.mark.parametrize(
    ("changes", "sites", "unused"),
    [
        ({}, [], None),
        ({"leave_out": [3]}, [], "layer 3 (output_adapter)"),
        ({}, ["0.attention.output", "2.attention.output"], "layer 0 (mh_adapter), layer 2 (mh_adapter)"),
    ],
)
def test_weights_that_the_configuration_does_not_use_are_noted(
    tmp_path: Path, changes: dict[str, Any], sites: list[str], unused: str | None
) -> None:
    sites = [*[f"{layer}.output" for layer in range(4)], *sites]
    folder = write_adapter(tmp_path, sites=sites, config={**new_config("pfeiffer"), **changes})
    assert read_adapter(folder, "qa", BASE_CONFIG).note == (
        unused and f"{folder}: its weights for {unused} are left out; its adapter_config.json has no module there"
    )


def test_an_inverse_that_the_configuration_does_not_have_is_noted(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path)
    path = folder / "adapter.safetensors"
    save_file(load_file(path) | {"bert.invertible_adapters.qa.F.0.weight": torch.ones(8, 16)}, path)
    assert read_adapter(folder, "qa", BASE_CONFIG).note == (
        f"{folder}: its weights for an invertible adapter are left out; its adapter_config.json has no module there"
    )


@pytest.mark.parametrize(("kind", "inverse"), [("text_task", None), ("text_lang", "nice"), (None, "nice")])
def test_the_first_versions_of_the_library_recorded_an_inverse_that_task_adapters_lack(
    tmp_path: Path, kind: str | None, inverse: str | None
) -> None:
    folder = write_adapter(tmp_path, config=new_config("pfeiffer+inv"), type=kind)
    assert read_adapter(folder, "qa", BASE_CONFIG).config["inv_adapter"] == inverse


# ---------------------------------------------------------------- configurations in files


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"inv_adapter": "glow", "inv_adapter_reduction_factor": 2}, "inv_adapter glow fails on sequences of tokens"),
        ({"stochastic_depth": 0.3}, "stochastic_depth is for images and needs torchvision; give 0.0"),
        ({"phm_layer": True}, "phm_layer (compacter) with weights that all layers share is not supported"),
        ({"phm_layer": True, "shared_phm_rule": False, "shared_W_phm": True}, "set shared_phm_rule and shared_W_phm"),
        (
            {"phm_layer": True, "shared_phm_rule": False, "init_weights": "mam_adapter"},
            "init_weights mam_adapter cannot be used with phm_layer; give bert",
        ),
        (
            {"residual_before_ln": "post_add", "original_ln_before": False},
            "residual_before_ln post_add needs original_ln_before true",
        ),
        ({"scaling": 0.0}, "scaling 0 leaves the adapter without any effect"),
        ({"scaling": 0}, "scaling 0 leaves the adapter without any effect"),
        ({"scaling": "constant"}, "invalid configuration of a bottleneck adapter: scaling 'constant'"),
        ({"drop_path": 0.1, "scaling": "channel"}, "invalid configuration of a bottleneck adapter: drop_path 0.1"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"dropout": 1}, "dropout 1"),
        ({"dropout": -0.1}, "dropout -0.1"),
        ({"init_weights": "xavier"}, "init_weights 'xavier'"),
        ({"inv_adapter": "nice"}, "inv_adapter without inv_adapter_reduction_factor"),
        ({"inv_adapter": "nice", "inv_adapter_reduction_factor": {"0": 2}}, "inv_adapter_reduction_factor {'0': 2}"),
        ({"phm_dim": 0, "phm_rank": 1.5}, "phm_dim 0, phm_rank 1.5"),
        ({"phm_c_init": "zeros"}, "phm_c_init 'zeros'"),
        ({"init_weights_seed": True}, "init_weights_seed True"),
        ({"init_weights_seed": 2**64}, f"init_weights_seed {2**64}"),
    ],
)
def test_what_the_library_cannot_train_is_refused(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    """In the configuration of a new adapter, and in that of a saved one."""
    path = write_config(tmp_path / "adapter_config.json", **changes)
    (of_new,) = problems_of(new_config, path)
    assert of_new.startswith(f"{path}: ")
    assert problem in of_new
    folder = write_adapter(tmp_path / "saved", config={**new_config("pfeiffer"), **changes})
    (of_saved,) = problems_of(read_adapter, folder, "qa", BASE_CONFIG)
    assert of_saved == of_new.replace(path, str(folder))


@pytest.mark.parametrize(
    "config", [adapters.DoRAConfig(), adapters.VeraConfig(), adapters.PrefixTuningConfig(), adapters.LoReftConfig(),
               adapters.MAMConfig(), adapters.UniPELTConfig(), adapters.CompacterConfig(),
               adapters.CompacterPlusPlusConfig(), adapters.AdapterPlusConfig()],
    ids=lambda config: type(config).__name__,
)  # fmt: skip
def test_kinds_that_cannot_be_trained_here_are_refused(tmp_path: Path, config: adapters.AdapterConfig) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({"config": config.to_dict(), "version": "adapters.1.3.0"}), encoding="utf-8")
    assert problems_of(new_config, str(path))[0].startswith(
        (
            f"{path}: not a bottleneck adapter (pfeiffer, houlsby), LoRA or (IA)3; no other kind can be used here",
            f"{path}: invalid configuration of LoRA or (IA)3: ",
            f"{path}: phm_layer (compacter)",
            f"{path}: stochastic_depth",
        )
    )


def test_a_configuration_without_optional_values_gets_the_librarys(tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    values = {"mh_adapter": False, "output_adapter": True, "reduction_factor": 8, "non_linearity": "relu"}
    path.write_text(json.dumps(values), encoding="utf-8")
    assert new_config(str(path)) == adapters.BnConfig(**values).to_dict()
    path.write_text(json.dumps({**values, "scaling": 3}), encoding="utf-8")
    assert (scaling := new_config(str(path))["scaling"]) == 3.0
    assert type(scaling) is float  # the library refuses an integer


# ---------------------------------------------------------------- paths of adapters


def test_an_adapter_is_read_by_its_path_or_that_of_its_setup_or_run(tmp_path: Path) -> None:
    plain = write_adapter(tmp_path / "plain", "squad")
    single = write_setup(tmp_path / "run" / "adapters-qa", Stack("mlm", "qa"), "mlm", ["qa"])
    for path, name, expected in [
        (plain, "other", ("other", plain)),
        (single, "qa", ("qa", single / "qa")),
        (single.parent, "qa_1", ("qa_1", single / "qa")),
    ]:
        source = find_adapter("--load_adapter", str(path), name, BASE_CONFIG)
        assert (source.name, source.folder) == expected


def test_a_fusion_is_not_a_single_adapter(tmp_path: Path) -> None:
    folder = write_setup(tmp_path / "adapters-fusion", Stack("mlm", Fuse("qa", "ner")), "mlm", ["qa", "ner"])
    assert problems_of(find_adapter, "--fuse_adapters a", str(folder), "a", BASE_CONFIG) == [
        f"--fuse_adapters a {folder}: holds a fusion; give one of its adapters: {folder / 'qa'}, {folder / 'ner'}"
    ]


QA_CLASS: dict[str, Any] = {"model_class": "BertForQuestionAnswering"}


def test_language_adapters_are_recognized(tmp_path: Path) -> None:
    invertible = {**new_config("pfeiffer+inv", 2), "leave_out": []}
    for folder in (
        write_adapter(tmp_path / "mlm", "mlm", **QA_CLASS),  # as a QA run saves its language adapter
        write_adapter(tmp_path / "pt", "pt", config=invertible, **QA_CLASS),
        write_adapter(tmp_path / "hub", "pt", model_class="BertModelWithHeads"),
        write_adapter(tmp_path / "unknown", "pt"),
    ):
        check_language_adapter("--load_lang_adapter", str(folder))


def test_a_task_adapter_is_refused_as_language_adapter(tmp_path: Path) -> None:
    option = "--load_lang_adapter"
    alone = write_adapter(tmp_path / "alone", "squad", **QA_CLASS)
    assert problems_of(check_language_adapter, option, str(alone)) == [
        f"{option} {alone}: holds squad, the adapter of a BertForQuestionAnswering, not a language adapter; "
        "give the folder of a run of run_mlm_adapter.py"
    ]
    stacked = write_setup(tmp_path / "run" / "adapters-ner", Stack("mlm", "ner"), "mlm", ["ner"])
    write_adapter(stacked / "ner", "ner", model_class="RobertaForTokenClassification")
    assert problems_of(check_language_adapter, option, str(stacked)) == [
        f"{option} {stacked}: holds ner, the adapter of a RobertaForTokenClassification, not a language adapter; "
        f"give {stacked / 'mlm'}"
    ]

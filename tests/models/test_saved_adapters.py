"""Saved folders (adapter_qa/models/saved_adapters.py): finding them, reading their JSON, and every way in which they do not fit."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
from adapters import Fuse, Stack
from adapters.composition import AdapterCompositionBlock
from safetensors.torch import save_file

from adapter_qa.config.options import ModelOptions
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json
from adapter_qa.models.adapter_setup import fresh_config
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model
from adapter_qa.models.saved_adapters import (
    ADAPTER_CONFIG,
    ATTENTION_ONLY_LAST_LAYER,
    SETUP_FILE,
    AdapterSource,
    check_language_adapter,
    find_folder,
    read_adapter,
    read_any_adapter,
    read_setup,
)

BASE = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 4}


def save_adapter(folder: Path, name: str = "qa", places: list[str] | None = None, **changed: Any) -> Path:
    """A folder with an adapter_config.json as the library writes it, and weights of the right names."""
    folder.mkdir(parents=True, exist_ok=True)
    config = fresh_config("pfeiffer", 16, None)
    document = {"name": name, "model_type": "bert", "hidden_size": 32, "config": config, "version": "adapters.1.3.0"}
    (folder / ADAPTER_CONFIG).write_text(json.dumps({**document, **changed}), encoding="utf-8")
    places = [f"{layer}.output" for layer in range(4)] if places is None else places
    names = [f"bert.encoder.layer.{place}.adapters.{name}.adapter_up.weight" for place in places]
    save_file({one: torch.zeros(1) for one in names}, folder / "adapter.safetensors")
    return folder


def save_setup(
    folder: Path, block: AdapterCompositionBlock, language: str | None, tasks: list[str], **changed: Any
) -> Path:
    """An adapters-<task> folder's JSON, with its adapters' folders."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = {"language_adapter": language, "tasks": tasks, "fused": len(tasks) > 1, "composition": "stack", "task": "qa"}
    document = {"adapter_setup": block.to_dict(), "trainer": {**ours, **changed}}
    (folder / SETUP_FILE).write_text(json.dumps(document), encoding="utf-8")
    for name in [*([language] if language else []), *tasks]:
        save_adapter(folder / name, name)
    return folder


def problems_of(call: Any, *args: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        call(*args)
    assert not any("\n" in problem for problem in caught.value.problems)
    return caught.value.problems


# ---------------------------------------------------------------- finding


def test_a_folder_that_is_meant_itself(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "qa")
    setup = save_setup(tmp_path / "adapters-qa", Stack("qa"), None, ["qa"])
    assert find_folder("--load_adapter", str(adapter)) == adapter
    assert find_folder("--load_adapter", str(setup)) == setup


def test_the_folder_of_a_run(tmp_path: Path) -> None:
    setup = save_setup(tmp_path / "adapters-fusion", Fuse("qa", "ner"), None, ["qa", "ner"])
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "adapters-half").mkdir()  # without the file that makes it one
    (tmp_path / "run.json").touch()
    assert find_folder("--load_adapter", str(tmp_path)) == setup


def test_a_run_with_several_saved_folders(tmp_path: Path) -> None:
    for task in ("qa", "ner"):
        save_setup(tmp_path / f"adapters-{task}", Stack(task), None, [task])
    assert problems_of(find_folder, "--load_adapter", str(tmp_path)) == [
        f"--load_adapter {tmp_path}: holds adapters-ner, adapters-qa; give one of them"
    ]


def test_a_folder_that_holds_none(tmp_path: Path) -> None:
    assert problems_of(find_folder, "RUN", str(tmp_path)) == [
        f"RUN {tmp_path}: holds no adapter_setup.json or adapter_config.json; "
        "give the adapters-<task> folder of a finished run"
    ]


@pytest.mark.parametrize("given", ["none", "a/b/c", "/no/such/folder", "./none"])
def test_no_such_folder(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems_of(find_folder, "--load_lang_adapter", given) == [
        f"--load_lang_adapter {given}: no such folder; give an adapters-<task> folder or a hub id such as org/name"
    ]


def test_a_hub_id_that_is_not_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (problem,) = problems_of(find_folder, "--load_adapter", "no-org/no-adapter")
    assert problem.startswith("--load_adapter no-org/no-adapter: no such folder, and the hub has it neither (")


# ---------------------------------------------------------------- setups


@pytest.mark.parametrize(
    ("block", "language", "tasks", "composition"),
    [
        (Stack("qa"), None, ["qa"], "stack"),
        (Stack("mlm", "ner"), "mlm", ["ner"], "stack"),
        (Fuse("qa", "ner"), None, ["qa", "ner"], "stack"),
        (Stack("mlm", Fuse("qa", "ner", "x_1")), "mlm", ["qa", "ner", "x_1"], "stack"),
        (Fuse("mlm", "qa", "ner"), "mlm", ["qa", "ner"], "fuse"),
    ],
)
def test_setups_come_back(
    tmp_path: Path, block: AdapterCompositionBlock, language: str | None, tasks: list[str], composition: str
) -> None:
    folder = save_setup(tmp_path, block, language, tasks, composition=composition)
    setup = read_setup(folder)
    assert (setup.folder, setup.language, setup.tasks) == (folder, language, tuple(tasks))
    fused = ["mlm", *tasks] if composition == "fuse" else tasks
    fusion = folder / ",".join(fused) if len(tasks) > 1 else None
    assert (setup.fusion, setup.composition) == (fusion, composition)
    assert setup.facts["task"] == "qa"
    assert setup.adapters == {name: folder / name for name in block.flatten()}


@pytest.mark.parametrize(
    ("block", "language", "tasks", "composed", "members"),
    [
        (Stack("qa"), None, ["ner"], ["qa"], ["ner"]),
        (Stack("mlm", "qa"), None, ["qa"], ["mlm", "qa"], ["qa"]),
        (Fuse("qa", "ner"), None, ["ner", "qa"], ["qa", "ner"], ["ner", "qa"]),  # order decides about the fusion
        (Fuse("qa", "ner"), "mlm", ["qa", "ner"], ["qa", "ner"], ["mlm", "qa", "ner"]),
        (Stack("../qa"), None, ["../qa"], ["../qa"], ["../qa"]),  # a name must not lead out of the folder
    ],
)
def test_a_composition_and_members_that_disagree(
    tmp_path: Path,
    block: AdapterCompositionBlock,
    language: str | None,
    tasks: list[str],
    composed: list[str],
    members: list[str],
) -> None:
    folder = save_setup(tmp_path / "adapters-qa", block, language, tasks)
    assert problems_of(read_setup, folder) == [
        f"{folder / SETUP_FILE}: its composition {composed} and its members {members} disagree"
    ]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"adapter_setup": None, "trainer": {}},
        {"adapter_setup": {"type": "single", "children": []}, "trainer": {}},
        {"adapter_setup": {"type": "Stack"}, "trainer": {}},
        {"adapter_setup": Stack("qa").to_dict()},  # by the library alone
        {"adapter_setup": Stack("qa").to_dict(), "trainer": {"language_adapter": None, "tasks": None}},
        {"adapter_setup": Stack("qa").to_dict(), "trainer": []},
    ],
)
def test_setups_that_this_trainer_did_not_write(tmp_path: Path, document: dict[str, Any]) -> None:
    (tmp_path / SETUP_FILE).write_text(json.dumps(document), encoding="utf-8")
    (problem,) = problems_of(read_setup, tmp_path)
    assert problem.startswith(f"{tmp_path / SETUP_FILE}: not written by this trainer, or damaged (")


@pytest.mark.parametrize(
    ("content", "read"),
    [
        *itertools.product([b"", b'{"adapter_setup": {', b'{"a": "\xff"}'], [read_json, read_setup, read_adapter]),
        (None, read_json),
        (None, read_adapter),
    ],
)
def test_damaged_json(tmp_path: Path, content: bytes | None, read: Any) -> None:
    path = tmp_path / (ADAPTER_CONFIG if read is read_adapter else SETUP_FILE)
    if content is not None:
        path.write_bytes(content)
    arguments = {read_json: (path,), read_setup: (tmp_path,), read_adapter: (tmp_path, "qa", BASE)}[read]
    (problem,) = problems_of(read, *arguments)
    assert problem.startswith(
        (f"{path}: cannot be read: ", f"{path}: not JSON", f"{path}: not UTF-8", f"{path}: the file")
    )


@pytest.mark.parametrize(("content", "kind"), [("[]", "a list"), ("null", "null"), ("3", "a number")])
def test_json_that_is_no_object(tmp_path: Path, content: str, kind: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    assert problems_of(read_json, path) == [f"{path}: holds {kind} where an object is expected"]


# ---------------------------------------------------------------- adapters


def test_an_adapter_that_the_library_saved(tmp_path: Path, tiny_bert: Path) -> None:
    options = ModelOptions(str(tiny_bert))
    model: Any = load_model(options, "qa")
    adapters.init(model)
    model.add_adapter("qa", config=adapters.AdapterConfig.load("double_seq_bn", reduction_factor=8, leave_out=[3]))
    model.save_adapter(str(tmp_path), "qa", meta_dict={ATTENTION_ONLY_LAST_LAYER: True, "language": "pt"})
    source = read_adapter(tmp_path, "other", read_base_config(options))
    assert (source.name, source.folder, source.attention_only_last_layer, source.language) == (
        "other",
        tmp_path,
        True,
        "pt",
    )
    assert source.config["leave_out"] == [3] and source.config["reduction_factor"] == 8
    assert source.config["mh_adapter"] and source.config["output_adapter"]


def test_an_adapter_of_before_has_no_trick_and_no_language(tmp_path: Path) -> None:
    source = read_adapter(save_adapter(tmp_path), "qa", BASE)
    assert (source.attention_only_last_layer, source.language, source.config["leave_out"]) == (False, None, [])


@pytest.mark.parametrize(("key", "value"), [("hidden_size", 64), ("model_type", "roberta"), ("hidden_size", None)])
def test_an_adapter_for_another_encoder(tmp_path: Path, key: str, value: Any) -> None:
    folder = save_adapter(tmp_path, **{key: value})
    assert problems_of(read_adapter, folder, "qa", BASE) == [
        f"{folder}: its {key} is {value}, the base model's {BASE[key]}; "
        "an adapter fits only the kind and size of encoder it was trained on"
    ]


@pytest.mark.parametrize("config", [None, "pfeiffer", {}, adapters.LoRAConfig().to_dict()])
def test_no_bottleneck_adapter(tmp_path: Path, config: Any) -> None:
    folder = save_adapter(tmp_path, config=config)
    assert problems_of(read_adapter, folder, "qa", BASE) == [
        f"{folder}: no bottleneck adapter; only pfeiffer and houlsby kinds can be stacked and fused here"
    ]


def test_all_that_does_not_fit_comes_at_once(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path, model_type="roberta", hidden_size=768, config={})
    found = problems_of(read_adapter, folder, "qa", BASE)
    assert [problem.split(" is ")[0] for problem in found[:2]] == [
        f"{folder}: its model_type",
        f"{folder}: its hidden_size",
    ]
    assert len(found) == 3 and "no bottleneck adapter" in found[2]


def test_one_adapter_by_any_path(tmp_path: Path) -> None:
    plain = save_adapter(tmp_path / "plain", "squad")
    single = save_setup(tmp_path / "run" / "adapters-qa", Stack("mlm", "qa"), "mlm", ["qa"])
    for given, name, expected in [
        (plain, None, ("squad", plain)),
        (plain, "other", ("other", plain)),
        (single, None, ("qa", single / "qa")),
        (single.parent, "qa_1", ("qa_1", single / "qa")),
    ]:
        source = read_any_adapter("--load_adapter", str(given), name, BASE)
        assert (source.name, source.folder) == expected


def test_a_task_adapter_is_no_language_adapter(tmp_path: Path) -> None:
    option, qa = "--load_lang_adapter", {"model_class": "BertForQuestionAnswering"}
    invertible = {**fresh_config("pfeiffer+inv", 2, None), "leave_out": []}
    for folder in (
        save_adapter(tmp_path / "mlm", "mlm", **qa),  # as a QA run saves the language adapter under its task
        save_adapter(tmp_path / "pt", "pt", config=invertible, **qa),
        save_adapter(tmp_path / "hub", "pt", model_class="BertModelWithHeads"),
        save_adapter(tmp_path / "unknown", "pt"),
    ):
        check_language_adapter(option, str(folder))
    alone = save_adapter(tmp_path / "alone", "squad", **qa)
    said = "holds squad, the adapter of a BertForQuestionAnswering and no language adapter; give"
    assert problems_of(check_language_adapter, option, str(alone)) == [
        f"{option} {alone}: {said} the folder of a run of run_mlm_adapter.py"
    ]
    stacked = save_setup(tmp_path / "run" / "adapters-ner", Stack("mlm", "ner"), "mlm", ["ner"])
    save_adapter(stacked / "ner", "ner", model_class="RobertaForTokenClassification")
    said = "holds ner, the adapter of a RobertaForTokenClassification and no language adapter; give"
    assert problems_of(check_language_adapter, option, str(stacked)) == [
        f"{option} {stacked}: {said} {stacked / 'mlm'}"
    ]


def test_a_fusion_is_not_one_adapter(tmp_path: Path) -> None:
    folder = save_setup(tmp_path / "adapters-fusion", Stack("mlm", Fuse("qa", "ner")), "mlm", ["qa", "ner"])
    assert problems_of(read_any_adapter, "--fuse_adapters a", str(folder), "a", BASE) == [
        f"--fuse_adapters a {folder}: holds a fusion; give one of its adapters: {folder / 'qa'}, {folder / 'ner'}"
    ]


@pytest.mark.parametrize(
    ("kind", "leave_out", "attention_only_last_layer", "places"),
    [
        ("pfeiffer", [], False, {(0, "output_adapter"), (1, "output_adapter"), (2, "output_adapter")}),
        ("pfeiffer", [2], False, {(0, "output_adapter"), (1, "output_adapter")}),
        ("houlsby", [0, 1], False, {(2, "mh_adapter"), (2, "output_adapter")}),
        ("houlsby", [0], True, {(1, "mh_adapter"), (1, "output_adapter"), (2, "mh_adapter")}),
    ],
)
def test_places_of_an_adapter(
    kind: str, leave_out: list[int], attention_only_last_layer: bool, places: set[tuple[int, str]]
) -> None:
    source = AdapterSource(
        "qa",
        {**fresh_config(kind, 16, None), "leave_out": leave_out},
        attention_only_last_layer=attention_only_last_layer,
    )
    found = {
        (layer, location)
        for layer in range(3)
        for location in ("mh_adapter", "output_adapter")
        if source.stands_at(layer, location, 3)
    }
    assert found == places

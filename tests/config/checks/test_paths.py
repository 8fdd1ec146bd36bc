"""Paths and names that cannot be read (adapter_qa/config/checks/paths.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from support.configs import mlm_config, qa_config

from adapter_qa.config.options import (
    AdapterOptions,
    FusionOptions,
    LanguageAdapterOptions,
    MLMAdapterOptions,
    MLMDataOptions,
    ModelOptions,
    QADataOptions,
)
from adapter_qa.config.validation import validate_config


def test_files_must_exist(tmp_path: Path) -> None:
    existing, missing = tmp_path / "existing.json", tmp_path / "missing.json"
    existing.touch()
    data = QADataOptions(train_file=[str(existing)], validation_file=[str(missing)], test_file=[str(tmp_path)])
    assert validate_config(qa_config(data, dry_run=True)) == [
        f"--validation_file {missing}: no such file; give the path of a file",
        f"--test_file {tmp_path}: is a folder; give the files in it, such as '{tmp_path}/*', or a data set with "
        "--dataset_name",
    ]
    assert validate_config(mlm_config(MLMDataOptions(train_file=[str(missing)]), dry_run=True)) == [
        f"--train_file {missing}: no such file; give the path of a file"
    ]


def test_a_name_that_is_too_long_for_a_file_is_refused() -> None:
    name = "x" * 300
    assert validate_config(qa_config(QADataOptions(validation_file=[name]), dry_run=True)) == [
        f"--validation_file {name}: no such file; give the path of a file"
    ]
    config = replace(qa_config(dry_run=True), adapter=AdapterOptions(adapter_config=name))
    (problem,) = validate_config(config)
    assert problem.startswith(f"--adapter_config {name}: give ")
    config = replace(
        qa_config(dry_run=True), model=ModelOptions(f"./{name}"), adapter=AdapterOptions(load_adapter=name)
    )
    assert [problem.partition(": ")[2] for problem in validate_config(config)] == [
        "no such folder; give a model folder or a hub id such as org/name",
        "no such folder; give an adapters-<task> folder or a hub id such as org/name",
    ]


def test_models_and_adapters_that_are_neither_folders_nor_hub_ids_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    adapters = replace(
        qa_config(dry_run=True),
        model=ModelOptions(str(tmp_path / "file"), config_name="./config"),
        language_adapter=LanguageAdapterOptions(load_lang_adapter=str(tmp_path / "lang")),
        fusion=FusionOptions(fuse_adapters=[f"qa={tmp_path}/file", f"ner={tmp_path}", "a=org/ner", "b=new", "c=name"]),
    )
    hint = "no such folder; give an adapters-<task> folder or a hub id such as org/name"
    assert validate_config(adapters) == [
        f"--model_name_or_path {tmp_path}/file: is a file; give the folder of a model",
        "--config_name ./config: no such folder; give a model folder or a hub id such as org/name",
        f"--load_lang_adapter {tmp_path}/lang: {hint}",
        f"--fuse_adapters qa {tmp_path}/file: is a file; give its folder",
        f"--fuse_adapters c name: {hint}",
    ]
    assert validate_config(replace(mlm_config(dry_run=True), adapter=MLMAdapterOptions(load_adapter="x"))) == [
        f"--load_adapter x: {hint}"
    ]

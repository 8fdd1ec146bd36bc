"""Saved folders (adapter_qa/models/saved_adapters.py): how they are read, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import adapters.utils
import pytest
from adapters import Fuse, Stack
from adapters.composition import AdapterCompositionBlock, parse_composition
from support.problems import problem_of
from support.saved_folders import write_adapter, write_setup

from adapter_qa.models import file_names
from adapter_qa.models.file_names import ADAPTER_CONFIG, HEAD_CONFIG, SETUP_FILE
from adapter_qa.models.saved_adapters import read_head, read_setup


def test_file_names_are_those_of_the_library() -> None:
    library = adapters.utils
    assert file_names.SETUP_FILE == library.SETUP_CONFIG_NAME
    assert file_names.ADAPTER_CONFIG == library.CONFIG_NAME
    assert file_names.FUSION_CONFIG == library.ADAPTERFUSION_CONFIG_NAME
    assert file_names.HEAD_CONFIG == library.HEAD_CONFIG_NAME
    assert file_names.ADAPTER_WEIGHTS == (library.SAFE_WEIGHTS_NAME, library.WEIGHTS_NAME)
    assert file_names.FUSION_WEIGHTS == (library.SAFE_ADAPTERFUSION_WEIGHTS_NAME, library.ADAPTERFUSION_WEIGHTS_NAME)
    assert file_names.HEAD_WEIGHTS == (library.SAFE_HEAD_WEIGHTS_NAME, library.HEAD_WEIGHTS_NAME)


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
def test_a_saved_setup_is_read(
    tmp_path: Path, block: AdapterCompositionBlock, language: str | None, tasks: list[str], composition: str
) -> None:
    folder = write_setup(tmp_path, block, language, tasks, composition=composition)
    setup = read_setup(folder)
    assert (setup.folder, setup.language, setup.tasks) == (folder, language, tuple(tasks))
    fused = ["mlm", *tasks] if composition == "fuse" else tasks
    fusion = folder / ",".join(fused) if len(tasks) > 1 else None
    assert (setup.fusion, setup.composition) == (fusion, composition)
    assert setup.metadata.task == "qa"
    assert setup.adapters == {name: folder / name for name in block.flatten()}


@pytest.mark.parametrize(
    ("block", "names", "language", "tasks"),
    [
        (Stack("qa"), ["qa"], None, ["ner"]),
        (Stack("mlm", "qa"), ["mlm", "qa"], None, ["qa"]),
        (Fuse("qa", "ner"), ["qa", "ner"], None, ["ner", "qa"]),  # the order changes the result of a fusion
        (Fuse("qa", "ner"), ["qa", "ner"], "mlm", ["qa", "ner"]),
        (Stack("../qa"), ["../qa"], None, ["../qa"]),  # a name must not be a path
    ],
)
def test_a_composition_that_contradicts_the_adapters_is_refused(
    tmp_path: Path, block: AdapterCompositionBlock, names: list[str], language: str | None, tasks: list[str]
) -> None:
    folder = write_setup(tmp_path / "adapters-qa", block, language, tasks)
    listed = [*([language] if language else []), *tasks]
    assert problem_of(read_setup, folder) == (
        f"{folder / SETUP_FILE}: is damaged: its composition {names} and its adapters {listed} disagree"
    )


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"adapter_setup": None, "trainer": {}},
        {"adapter_setup": {"type": "single", "children": []}, "trainer": {}},
        {"adapter_setup": {"type": "Stack"}, "trainer": {}},
        {"adapter_setup": Stack("qa").to_dict(), "trainer": {"language_adapter": None, "tasks": None}},
        {"adapter_setup": Stack("qa").to_dict(), "trainer": []},
    ],
)
def test_a_damaged_setup_is_refused(tmp_path: Path, document: dict[str, Any]) -> None:
    (tmp_path / SETUP_FILE).write_text(json.dumps(document), encoding="utf-8")
    problem = problem_of(read_setup, tmp_path)
    assert problem.startswith(f"{tmp_path / SETUP_FILE}: not written by this trainer, or damaged (")


def write_composition(folder: Path, block: AdapterCompositionBlock) -> Path:
    """Write an adapter_setup.json as the library does, without metadata; return its path."""
    path = folder / SETUP_FILE
    path.write_text(json.dumps({"adapter_setup": block.to_dict(), "version": "adapters.1.3.0"}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("block", "language", "tasks"),
    [
        (parse_composition("qa"), None, ("qa",)),
        (Stack("pt", "qa"), "pt", ("qa",)),
        (Fuse("qa", "ner"), None, ("qa", "ner")),
        (Stack(Fuse("qa", "ner")), None, ("qa", "ner")),
        (Stack("pt", Fuse("qa", "ner")), "pt", ("qa", "ner")),
    ],
)
def test_a_setup_of_the_library_is_read(
    tmp_path: Path, block: AdapterCompositionBlock, language: str | None, tasks: tuple[str, ...]
) -> None:
    write_composition(tmp_path, block)
    setup = read_setup(tmp_path)
    assert (setup.language, setup.tasks, setup.composition) == (language, tasks, "stack")
    assert setup.fusion == (tmp_path / "qa,ner" if len(tasks) == 2 else None)
    assert setup.metadata.base_model.name_or_path is None


@pytest.mark.parametrize(
    ("block", "names"),
    [
        (Stack("a", "b", "c"), [["a"], ["b"], ["c"]]),
        (Stack(Fuse("a", "b"), "c"), [["a", "b"], ["c"]]),
    ],
)
def test_other_setups_of_the_library_are_refused(
    tmp_path: Path, block: AdapterCompositionBlock, names: list[list[str]]
) -> None:
    path = write_composition(tmp_path, block)
    assert problem_of(read_setup, tmp_path) == (
        f"{path}: its composition {names} cannot be used; only a task adapter or a fusion can, alone or on one "
        "language adapter"
    )


@pytest.mark.parametrize("depth", [10, 400, 100_000])
def test_a_deeply_nested_composition_is_refused(tmp_path: Path, depth: int) -> None:
    nested = '{"type": "Stack", "children": [' * depth + '"qa"' + "]}" * depth
    (tmp_path / SETUP_FILE).write_text(f'{{"adapter_setup": {nested}, "trainer": {{}}}}', encoding="utf-8")
    assert problem_of(read_setup, tmp_path).startswith(f"{tmp_path / SETUP_FILE}: ")


@pytest.mark.parametrize("content", [b"", b'{"adapter_setup": {', b'{"a": "\xff"}'])
def test_damaged_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / SETUP_FILE
    path.write_bytes(content)
    assert problem_of(read_setup, tmp_path).startswith(
        (f"{path}: not JSON", f"{path}: not UTF-8", f"{path}: the file is empty")
    )


# ---------------------------------------------------------------- heads


@pytest.mark.parametrize(
    ("model_class", "task"),
    [
        ("BertForQuestionAnswering", "qa"),
        ("RobertaForTokenClassification", "ner"),
        ("BertForMaskedLM", "mlm"),
        ("BertModelWithHeads", None),
    ],
)
def test_the_model_class_of_a_head_decides_its_task(tmp_path: Path, model_class: str, task: str | None) -> None:
    document = {"model_class": model_class, "label2id": {"B-X": 1, "O": 0}}
    (tmp_path / HEAD_CONFIG).write_text(json.dumps(document), encoding="utf-8")
    head = read_head(tmp_path)
    assert head is not None
    assert (head.task, head.labels) == (task, ("O", "B-X"))


def test_a_folder_may_have_no_head(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    assert (tmp_path / ADAPTER_CONFIG).is_file()
    assert read_head(tmp_path) is None


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ({"O": 0, "B-X": 2}, "the numbers in 'label2id' must be 0 to 1, each once"),
        ({"O": 0, "B-X": 0}, "the numbers in 'label2id' must be 0 to 1, each once"),
        ({"O": "0"}, "not written by this trainer, or damaged (Expected `int`, got `str` - at `$.label2id[...]`)"),
        (["O"], "not written by this trainer, or damaged (Expected `object | null`, got `array` - at `$.label2id`)"),
    ],
)
def test_invalid_labels_are_refused(tmp_path: Path, labels: Any, problem: str) -> None:
    path = tmp_path / HEAD_CONFIG
    path.write_text(json.dumps({"model_class": "BertForTokenClassification", "label2id": labels}), encoding="utf-8")
    assert problem_of(read_head, tmp_path) == f"{path}: {problem}"

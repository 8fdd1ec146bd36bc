"""The metadata in saved folders (adapter_qa/models/metadata.py): what is read, and which values are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.problems import problem_of

from adapter_qa.config.options import QADataOptions
from adapter_qa.core.errors import UserError
from adapter_qa.models.metadata import BaseModelRecord, RunMetadata, answering_options, read_metadata

WINDOWS = answering_options(QADataOptions(max_seq_length=64, doc_stride=16)).document()


def write(folder: Path, trainer: Any) -> Path:
    path = folder / "full_setup.json"
    path.write_text(json.dumps({"trainer": trainer}), encoding="utf-8")
    return path


def test_recorded_values_are_read(tmp_path: Path) -> None:
    base = {"name_or_path": "org/bert", "revision": "v2", "fingerprint": "abc"}
    document = {"base_model": base, "tokenizer": None, "language": "pt", "versions": {"torch": "2"}, "windows": WINDOWS}
    metadata = read_metadata(write(tmp_path, document))
    assert metadata.base_model == BaseModelRecord("org/bert", "v2", "abc")
    assert metadata.windows is not None
    assert metadata.windows.as_options().document() == WINDOWS
    assert (metadata.tokenizer, metadata.language, metadata.versions) == (None, "pt", {"torch": "2"})


def test_answering_options_are_those_of_the_data() -> None:
    data = QADataOptions(max_seq_length=64, doc_stride=16, version_2_with_negative=True, null_score_diff_threshold=1.5)
    assert answering_options(data).document() == {
        "max_seq_length": 64,
        "doc_stride": 16,
        "n_best_size": 20,
        "max_answer_length": 30,
        "version_2": True,
        "null_score_diff_threshold": 1.5,
    }
    assert answering_options(replace(data, temperature=2.0)).document()["temperature"] == 2


def test_missing_values_have_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, {"a key of a later version": 3})
    assert read_metadata(path) == RunMetadata()
    path.write_text("{}", encoding="utf-8")
    assert problem_of(read_metadata, path).startswith(f"{path}: not written by this trainer, or damaged (")
    of_library = tmp_path / "adapter_setup.json"
    for content in ('{"version": "adapters.1.3.0"}', '{"trainer": null}'):
        of_library.write_text(content, encoding="utf-8")
        assert read_metadata(of_library) == RunMetadata()


def test_the_language_adapter_comes_first() -> None:
    assert RunMetadata(language_adapter="mlm", tasks=("qa", "ner")).adapters == ("mlm", "qa", "ner")
    assert RunMetadata(tasks=("qa",)).adapters == ("qa",)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([], "$.trainer"),
        ({"base_model": {"name_or_path": 3}}, "$.trainer.base_model.name_or_path"),
        ({"base_model": None}, "$.trainer.base_model"),
        ({"tokenizer": 1}, "$.trainer.tokenizer"),
        ({"language_swaps": [{"adapter": "a"}]}, "$.trainer.language_swaps[0]"),
        ({"language_swaps": [{"adapter": "a", "replaced": 1}]}, "$.trainer.language_swaps[0].replaced"),
        ({"windows": []}, "$.trainer.windows"),
        ({"windows": {**WINDOWS, "doc_stride": "16"}}, "$.trainer.windows.doc_stride"),
        ({"windows": {**WINDOWS, "doc_stride": -1}}, "$.trainer.windows.doc_stride"),
        ({"windows": {**WINDOWS, "n_best_size": 0}}, "$.trainer.windows.n_best_size"),
        ({"windows": {**WINDOWS, "max_seq_length": 2**20}}, "$.trainer.windows.max_seq_length"),
        ({"windows": {**WINDOWS, "version_2": 1}}, "$.trainer.windows.version_2"),
        ({"windows": {**WINDOWS, "other": 1}}, "$.trainer.windows"),
        ({"windows": {"max_seq_length": 64}}, "$.trainer.windows"),
    ],
)
def test_invalid_values_are_refused_with_file_and_field(tmp_path: Path, document: Any, field: str) -> None:
    path = write(tmp_path, document)
    with pytest.raises(UserError) as caught:
        read_metadata(path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: not written by this trainer, or damaged (")
    assert problem.endswith(f" - at `{field}`)")
    assert "\n" not in problem

"""Short names of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapter_qa.reporting.run_names import short_names
from adapter_qa.reporting.runs import Run, Scores
from adapter_qa.runs.run_document import RunDocument

DERIVED = "outputs/b_t/qa/lr{}_bs8_GAS2_fp16True_metricf1{}"


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["outputs/qa_1", "outputs/qa_2"], ["qa_1", "qa_2"]),
        (["a/qa", "b/qa", "b/x/qa"], ["a/qa", "b/qa", "x/qa"]),
        (["a", "b/a"], ["a", "b/a"]),
        ([DERIVED.format("0.1", ""), "outputs/ner"], ["lr0.1", "ner"]),
        ([DERIVED.format("0.1", ""), DERIVED.format("0.2", "")], ["lr0.1", "lr0.2"]),
        ([DERIVED.format("0.1", "_warmup_ratio0.1"), DERIVED.format("0.1", "_warmup_ratio0.2_seed3")],
         ["lr0.1…warmup_ratio0.1", "lr0.1…warmup_ratio0.2"]),
        ([DERIVED.format("0.1", ""), DERIVED.format("0.1", "_seed3")], ["lr0.1", "lr0.1…seed3"]),
        ([DERIVED.format("0.1", "_warmup_ratio0.1_adapt_1bf477c6"), DERIVED.format("0.1", "_adapter_config0")],
         ["lr0.1…warmup_ratio0.1", "lr0.1"]),
        ([DERIVED.format("0.1", ""), DERIVED.format("0.1", "").replace("/qa/", "/full/")],
         ["qa/lr0.1", "full/lr0.1"]),
    ],
)  # fmt: skip
def test_names_of_folders_are_as_short_as_they_can_be(folders: list[str], names: list[str]) -> None:
    options = dict.fromkeys(["warmup_ratio", "adapter_config"])
    document = RunDocument(status="finished", script="run_qa_adapter.py", options=options)
    assert short_names([Run(Path(folder), "finished", document, Scores()) for folder in folders]) == names

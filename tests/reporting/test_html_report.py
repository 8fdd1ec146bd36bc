"""The report's page and the files beside it."""

from __future__ import annotations

import base64
import errno
import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.made_runs import ATTENTION, WRONG_ANSWER, groups_in, make_answered_run, make_run, update_run
from support.problems import problems_of
from support.questions import write_squad

from adapter_qa.core import files
from adapter_qa.core.errors import RunError
from adapter_qa.data.questions import Question
from adapter_qa.reporting import figures
from adapter_qa.reporting.differences import compare_to_best
from adapter_qa.reporting.groups import group_runs
from adapter_qa.reporting.html_report import read_attention, write_report
from adapter_qa.reporting.runs import find_runs
from adapter_qa.reporting.tables import format_difference

MEASURED = Path(__file__).parents[2] / "benchmarks" / "results_pt" / "measured" / "runs"


class Page(HTMLParser):
    """Tags and texts of a page. Parsing fails if a tag is not closed in order.

    Attributes:
        tags: Name and attributes of each tag.
        texts: Texts without surrounding whitespace.
    """

    VOID = frozenset({"meta", "img", "br", "wbr"})

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            self.texts.append(data.strip())

    def count(self, tag: str) -> int:
        return [name for name, _ in self.tags].count(tag)


def make_page(folder: Path, runs: Path) -> Page:
    return Page(write_report(*compare_to_best(groups_in(runs)), [], folder).read_text(encoding="utf-8"))


def write_attention(folder: Path, document: Mapping[str, Any]) -> Path:
    path = folder / "fusion_attention.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_runs_that_trained_nothing_have_no_costs(
    tmp_path: Path, tiny_bert: Path, data: tuple[Path, list[Question]]
) -> None:
    options: dict[str, Any] = {"model_name_or_path": str(tiny_bert), "max_seq_length": 64, "doc_stride": 16}
    for name, wrong in (("a", 4), ("b", 6)):
        make_answered_run(tmp_path / "runs" / name, *data, wrong=wrong, do_train=False, load_adapter=name, **options)
    page = make_page(tmp_path / "report", tmp_path / "runs")
    assert "F1 and what it costs" not in page.texts
    assert not [*(tmp_path / "report").glob("cost_*")]
    make_answered_run(tmp_path / "runs" / "c", *data, wrong=5, **options)
    assert "F1 and what it costs" in make_page(tmp_path / "report_2", tmp_path / "runs").texts


def test_the_page_is_self_contained(tmp_path: Path, tiny_bert: Path, data: tuple[Path, list[Question]]) -> None:
    options: dict[str, Any] = {"model_name_or_path": str(tiny_bert), "max_seq_length": 64, "doc_stride": 16}
    for seed, wrong in ((1, 4), (2, 6)):
        make_answered_run(tmp_path / "runs" / f"a{seed}", *data, wrong=wrong, seed=seed, **options)
    make_answered_run(tmp_path / "runs" / "b", *data, wrong=9, learning_rate=0.5, **options)
    update_run(make_run(tmp_path / "runs" / "c", 70.0, status="failed"), why=["no space left"])
    write_attention(tmp_path / "runs" / "a1", ATTENTION)
    page = make_page(tmp_path / "report", tmp_path / "runs")
    names = ["attention_1.png", "cost_1.png", "curves_1.png", "curves_2.png", "curves_3.png", "errors_1.png"]
    names += ["overlay_1.png", "parameters_1.png", "report.html"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == names
    pictures = set()
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe")
        assert not {"href", "onclick", "onload"} & set(attributes)
        if tag == "img":
            kind, content = str(attributes["src"]).split(",")
            assert kind == "data:image/png;base64"
            assert attributes["alt"]
            pictures.add(base64.b64decode(content))
    assert {path.read_bytes() for path in (tmp_path / "report").glob("*.png")} == pictures
    assert "50.0 ± 14.1" in page.texts
    first, second = (group.paired for group in compare_to_best(groups_in(tmp_path / "runs"))[0][:2])
    assert first is not None
    assert second is not None
    assert second.to_best is not None
    assert f"{first.f1.low:.1f} to {first.f1.high:.1f}" in page.texts
    assert page.texts.count("best") == 2
    assert format_difference(second.to_best.f1) in page.texts
    (footnote,) = [text for text in page.texts if text.startswith("to best: ")]
    assert "bootstrap over 10 contexts, each with its questions, 10 in all" in footnote
    (caption,) = {text for text in page.texts if text.startswith("Intervals of 95 %")}
    assert "bootstrap over contexts with their questions, 10,000 samples" in caption
    assert "Wilson" not in caption
    (cost,) = [str(attributes["alt"]) for _, attributes in page.tags if "side by side" in str(attributes.get("alt"))]
    assert caption in cost
    assert f"{tmp_path}/runs/c: failed: no space left" in page.texts
    headings = [text for text in page.texts if text in ("question word", "answer length", "context length", "windows")]
    assert len(headings) == 4
    assert page.texts.count(WRONG_ANSWER) == 4 + 8
    assert page.texts[page.texts.index("onde / where") + 1 :][:3] == ["10", "50.0", "10.0"]


def test_curves_of_a_validation_file_are_not_mixed_with_scores_of_a_test_file(tmp_path: Path) -> None:
    groups, _ = group_runs(find_runs([MEASURED / "qa_1", MEASURED / "full_1"], "predict")[0])
    page = Page(write_report(*compare_to_best(groups), [], tmp_path).read_text(encoding="utf-8"))
    captions = [str(attributes["alt"]) for tag, attributes in page.tags if tag == "img"]
    (overlay,) = [caption for caption in captions if "means over seeds" in caption]
    data = "Evaluated while training, not on the questions of the table"
    assert overlay == f"{data}: scores and losses by epoch, means over seeds."
    assert not [caption for caption in captions if "Bars at the right" in caption]


def test_text_from_files_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e\"'"
    question = Question("1", evil, f"{evil} fim", (evil,), (0,))
    path = write_squad(tmp_path / "dev.json", [question])
    make_answered_run(tmp_path / "a", path, [question], wrong=0)
    update_run(tmp_path / "a", setup=evil)
    update_run(make_run(tmp_path / "b", status="failed", weight_decay=1.0), why=[evil], setup="\ud800")
    page = make_page(tmp_path / "report", tmp_path)
    assert page.count("script") == 0
    assert all("onerror" not in attributes for tag, attributes in page.tags if tag == "img")
    assert page.texts.count(evil.replace("\u202e", "\\u202e")) >= 3
    assert any("number of windows is left out" in text for text in page.texts)


def test_control_characters_of_questions_are_escaped(tmp_path: Path) -> None:
    answer = "a\x00\x1b[31m"
    question = Question("1", "O quê\x07\u202e?", f"linha\n\tuma\x85 {answer}", (answer,), (12,))
    path = write_squad(tmp_path / "dev.json", [question])
    make_answered_run(tmp_path / "a", path, [question], wrong=0)
    texts = make_page(tmp_path / "report", tmp_path).texts
    first = texts.index(r"O quê\u0007\u202e?")
    gold = r"a\u0000\u001b[31m"
    assert texts[first + 1 : first + 6] == [gold, gold, "100", r"linha  uma\u0085", gold]


def test_what_cannot_be_shown_is_noted(tmp_path: Path, data: tuple[Path, list[Question]]) -> None:
    make_answered_run(tmp_path / "a", *data, wrong=5)
    data[0].unlink()
    write_attention(tmp_path / "a", {})
    page = make_page(tmp_path / "report", tmp_path / "a")
    assert f"{data[0]}: no longer exists; {tmp_path}/a was evaluated on it; no error analysis" in page.texts
    assert any(text.startswith(f"{tmp_path}/a/fusion_attention.json: not written by") for text in page.texts)
    assert "Learning curves" in page.texts
    assert not {"Errors", "Fusion attention"} & set(page.texts)
    assert "23.7 to 76.3" in page.texts  # Wilson's interval of 5 of 10
    assert any("for 1 from the number of questions alone, as for a share (Wilson 1927)" in text for text in page.texts)


def test_runs_without_results_make_a_page(tmp_path: Path) -> None:
    update_run(make_run(tmp_path / "a", None, status="failed"), parameters=None, losses=[])
    page = make_page(tmp_path / "report", tmp_path / "a")
    assert page.count("img") == 0
    assert f"{tmp_path}/a: failed" in page.texts


def test_an_earlier_report_stays_until_the_new_one_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "a")
    page = write_report(groups_in(tmp_path / "a"), {}, [], tmp_path / "report")
    before = {path.name: path.read_bytes() for path in page.parent.iterdir()}
    monkeypatch.setattr(figures, "curves_figure", lambda group, interval: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(groups_in(tmp_path / "a"), {}, [], tmp_path / "report")
    assert {path.name: path.read_bytes() for path in page.parent.iterdir()} == before


def test_a_full_disk_leaves_no_part_of_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "qa", 50.0)
    groups = groups_in(tmp_path)
    target = tmp_path / "report"

    def run_out_of_space(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "fsync_path", run_out_of_space)
    with pytest.raises(RunError) as caught:
        write_report(groups, {}, [], target)
    assert caught.value.problems == [
        f"--output_dir {target}: cannot be written (No space left on device); give another folder"
    ]
    assert list(target.iterdir()) == []


def test_attention_without_question_tokens_is_read(tmp_path: Path) -> None:
    assert read_attention(write_attention(tmp_path, ATTENTION | {"question": []}))["question"] == []


@pytest.mark.parametrize("changed", [{"places": ["0"]}, {"adapters": ["qa"]}, {"all": [[0.5], [0.5], [0.5]]}])
def test_attention_of_another_shape_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    (problem,) = problems_of(read_attention, write_attention(tmp_path, ATTENTION | changed))
    assert "needs a weight for each of its" in problem

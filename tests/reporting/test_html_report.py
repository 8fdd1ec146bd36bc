"""The report: error analysis by the official scorer, pictures, the page, and the comparison of setups by a script."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.made_runs import change_run, made_run
from support.questions import make_questions, write_squad
from support.scripts import ROOT, run_script

import report_qa
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import file_fingerprint
from adapter_qa.data.squad import Question
from adapter_qa.data.squad_metrics import squad_metrics
from adapter_qa.reporting import figures
from adapter_qa.reporting.error_analysis import (
    LENGTH_ORDER,
    SEVERAL,
    WORD_ORDER,
    answer_length,
    count_windows,
    divisions,
    evaluated_questions,
    quarters,
    question_word,
    read_answers,
    sample,
)
from adapter_qa.reporting.html_report import read_attention, write_report
from adapter_qa.reporting.report_files import existing_files
from adapter_qa.reporting.runs import Group, Run, find_runs, group_runs, read_run

ATTENTION = {
    "adapters": ["qa", "ner"],
    "windows": 7,
    "places": ["0", "1", "2"],
    "question": [[0.7, 0.3], [0.5, 0.5], [0.1, 0.9]],
    "context": [[0.6, 0.4], [0.5, 0.5], [0.2, 0.8]],
    "all": [[0.65, 0.35], [0.5, 0.5], [0.15, 0.85]],
}


def answered_run(folder: Path, data: Path, questions: list[Question], wrong: int, **options: Any) -> Run:
    """A run whose first `wrong` answers are "errado", the others right, with the F1 that this gives."""
    answers = {one.id: "errado" if index < wrong else one.answer_texts[0] for index, one in enumerate(questions)}
    scores = squad_metrics(answers, questions)
    made_run(folder, scores["f1"], validation_file=str(data), **options)
    change_run(
        folder,
        data={"eval": file_fingerprint(data) | {"questions": len(questions)}},
        metrics={"eval": {"eval_f1": scores["f1"], "eval_exact": scores["exact"]}, "train": {"train_runtime": 60.0}},
    )
    (folder / "eval_predictions.json").write_text(json.dumps(answers), encoding="utf-8")
    return read_run(folder)


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, list[Question]]:
    questions = make_questions(10)
    return write_squad(tmp_path / "dev.json", questions), questions


def groups_of(*folders: Path) -> list[Group]:
    return group_runs(find_runs(folders)[0])[0]


def problem(call: Any, *args: Any) -> str:
    with pytest.raises(UserError) as caught:
        call(*args)
    (line,) = caught.value.problems
    return line


# ---------------------------------------------------------------- error analysis


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("Quem escreveu?", "quem / who"), ("A quem coube o prêmio?", "quem / who"), ("Whose idea?", "quem / who"),
        ("Quando nasceu?", "quando / when"), ("De onde veio, e quando?", "onde / where"),
        ("Aonde foi?", "onde / where"),
        ("Quantas ilhas há?", "quanto / how many"), ("How much is it?", "quanto / how many"),
        ("Por que caiu?", "por que / why"), ("Porquê?", "por que / why"), ("Why did what fall?", "por que / why"),
        ("Quais são?", "qual / which"), ("In which year?", "qual / which"), ("Qual é o rio que corre?", "qual / which"),
        ("Em que ano?", "que / what"), ("O quê?", "que / what"), ("WHAT is it?", "que / what"),
        ("Como se chama quem canta?", "como / how"), ("How old?", "como / how"), ("How many?", "quanto / how many"),
        ("Diga o nome da cidade.", "other"), ("Nome da queda?", "other"), ("", "other"),
    ],
)  # fmt: skip
def test_question_words(question: str, word: str) -> None:
    assert question_word(question) == word and word in WORD_ORDER


@pytest.mark.parametrize(
    ("answer", "name"),
    [("um", "1 word"), ("um dois", "2 words"), ("a b c", "3 to 4 words"), ("a b c d e", "5 to 8 words"),
     ("a b c d e f g h i", "from 9 words"), (None, "no answer")],
)  # fmt: skip
def test_answer_lengths(answer: str | None, name: str) -> None:
    given = ((answer,), (0,)) if answer is not None else ((), ())
    assert answer_length(Question("1", "?", "c", *given)) == name and name in LENGTH_ORDER


def test_context_lengths_are_quarters() -> None:
    labels, names = quarters([10, 20, 30, 40, 50, 60, 70, 80])
    assert names == ["10 to 20 words", "21 to 40 words", "41 to 60 words", "from 61 words"]
    assert [labels.count(name) for name in names] == [2, 2, 2, 2]
    assert quarters([5, 5, 5]) == (["from 5 words"] * 3, ["from 5 words"])
    assert quarters([3]) == (["from 3 words"], ["from 3 words"])
    assert quarters([1, 1, 1, 9])[0] == ["1 word"] * 3 + ["from 2 words"]
    assert quarters([1, 2, 2, 2])[1] == ["1 word", "from 2 words"]


def test_every_division_holds_every_question_once() -> None:
    questions = make_questions(30)
    found = divisions(questions, [1, 2, 1] * 10)
    assert [one.name for one in found] == ["question word", "answer length", "context length", "windows"]
    for division in found:
        assert sorted(one.id for part in division.parts.values() for one in part) == sorted(q.id for q in questions)
    assert [one.id for one in found[-1].parts[SEVERAL]] == [f"q{number}" for number in range(1, 30, 3)]
    assert [one.name for one in divisions(questions, None)][-1] == "context length"


def test_answers_are_read_and_scored(tmp_path: Path, data: tuple[Path, list[Question]]) -> None:
    run = answered_run(tmp_path / "run", *data, wrong=4)
    questions = evaluated_questions(run)
    answered = read_answers(run, questions)
    assert questions == data[1] and answered.score(questions[:5])["f1"] == 20.0
    right, wrong = sample(answered, 3, 9)
    assert len(right) == 3 and len(wrong) == 4 and {one.answer for one in wrong} == {"errado"}
    assert all(one.f1 == 100 and one.answer in one.golds for one in right) and sample(answered, 3, 9) == (right, wrong)
    (first,) = [one for one in data[1] if one.context == right[0].before + right[0].gold + right[0].after]
    assert (right[0].gold, len(right[0].before)) == (first.answer_texts[0], first.answer_starts[0])


def test_unanswerable_questions_are_a_category_of_their_own(tmp_path: Path) -> None:
    questions = [*make_questions(2), Question("none", "Onde?", "Nada.", (), ())]
    path = write_squad(tmp_path / "dev.json", questions)
    made_run(tmp_path / "run", 100 / 3, validation_file=str(path), version_2_with_negative=True)
    change_run(tmp_path / "run", data={"eval": file_fingerprint(path)})
    answers = {"q0": "errado", "q1": "", "none": ""}
    (tmp_path / "run" / "eval_predictions.json").write_text(json.dumps(answers), encoding="utf-8")
    run = read_run(tmp_path / "run")
    answered = read_answers(run, evaluated_questions(run))
    lengths = divisions(answered.questions, None)[1].parts
    assert answered.score(lengths["no answer"])["f1"] == 100.0 and [one.id for one in lengths["no answer"]] == ["none"]
    assert sample(answered, 1, 0)[0][0].golds == []


def test_only_the_questions_that_were_evaluated(tmp_path: Path, data: tuple[Path, list[Question]]) -> None:
    run = answered_run(tmp_path / "run", data[0], data[1][:4], wrong=1, max_eval_samples=4)
    assert len(read_answers(run, evaluated_questions(run)).questions) == 4


def test_data_that_has_gone_or_changed(tmp_path: Path, data: tuple[Path, list[Question]]) -> None:
    run, hub = (
        answered_run(tmp_path / "run", *data, wrong=4),
        read_run(made_run(tmp_path / "hub", validation_file=None)),
    )
    assert problem(evaluated_questions, hub) == f"{tmp_path}/hub: its evaluation questions came from no file"
    write_squad(data[0], data[1][1:])
    assert problem(evaluated_questions, run) == f"{data[0]}: has changed since {tmp_path}/run was evaluated on it"
    data[0].unlink()
    data[0].mkdir()
    assert problem(evaluated_questions, run) == f"{data[0]}: cannot be read: Is a directory"
    data[0].rmdir()
    assert problem(evaluated_questions, run) == f"{data[0]}: has gone since {tmp_path}/run was evaluated on it"


def test_answers_that_are_not_the_runs(tmp_path: Path, data: tuple[Path, list[Question]]) -> None:
    run = answered_run(tmp_path / "run", *data, wrong=4)
    path = tmp_path / "run" / "eval_predictions.json"
    path.write_text(json.dumps({one.id: "errado" for one in data[1]}), encoding="utf-8")
    assert problem(read_answers, run, data[1]) == (
        f"{path}: scores F1 0.00, the run recorded 60.0; not its answers, or not its questions"
    )
    path.write_text(json.dumps({one.id: 5 for one in data[1]}), encoding="utf-8")
    assert problem(read_answers, run, data[1]) == f"{path}: does not answer every question of the validation file"


def test_windows_are_those_of_the_run(tmp_path: Path, tiny_bert: Path, data: tuple[Path, list[Question]]) -> None:
    options = {"model_name_or_path": str(tiny_bert), "max_seq_length": 40, "doc_stride": 8}
    run = answered_run(tmp_path / "run", *data, wrong=0, **options)
    long = Question("long", "Onde?", data[1][0].context * 5, (), ())
    counts = count_windows(run, [*data[1], long, Question("short", "Onde?", "Ana.", (), ())])
    assert len(counts) == 12 and counts[-1] == 1 and counts[-2] > max(counts[:10]) >= 1


# ---------------------------------------------------------------- pictures


def three_groups(folder: Path) -> list[tuple[int, Group]]:
    for seed, f1 in ((1, 50.0), (2, 54.0)):
        made_run(folder / f"a{seed}", f1, seed=seed)
    full = {"base": 1000, "added": 0, "trainable": 1000, "parts": {"head": 10}}
    change_run(made_run(folder / "full", 48.0, train_adapter=False), parameters=full, setup="full fine-tuning")
    change_run(made_run(folder / "none", 5.0, do_train=False, weight_decay=1.0), setup="full $_{fine}$-tuning")
    return list(enumerate(groups_of(folder), 1))


def legend(owner: Any) -> list[str]:
    return [text.get_text() for text in owner.get_texts()]


def test_curves_hold_every_seed_by_step_and_epoch(tmp_path: Path) -> None:
    ((_, group), *_) = three_groups(tmp_path)
    figure = figures.curves_figure(1, group)
    scores, losses = figure.axes
    assert [axes.get_ylabel() for axes in (scores, losses)] == ["F1 (%)", "loss"]
    assert {axes.get_xlabel() for axes in (scores, losses)} == {"step"}
    drawn = [(line.get_label(), line.get_xydata().tolist()) for line in scores.lines]
    assert drawn == [
        ("seed 1", [[5, 25], [10, 50]]), ("seed 2", [[5, 27], [10, 54]]), ("kept", [[10, 50]]), ("kept", [[10, 54]])
    ]  # fmt: skip
    assert [line.get_xydata().tolist()[-1] for line in losses.lines] == [[10, 2.5], [10, 2.0]] * 2
    assert [line.get_marker() for line in losses.lines] == ["None", "o", "None", "s"]
    assert legend(figure.legends[0]) == ["seed 1", "seed 2", "kept", "training loss", "evaluation loss"]
    (above,) = losses.child_axes
    figure.draw_without_rendering()
    assert above.get_xlabel() == "epoch" and above.get_xlim()[1] == pytest.approx(losses.get_xlim()[1] / 5)
    assert figure.get_suptitle() == "1  Stack[qa]"
    for look in ("get_color", "get_marker", "get_linestyle"):
        assert len({str(getattr(line, look)()) for line in scores.lines[:2]}) == 2


def test_small_changes_look_small(tmp_path: Path) -> None:
    made_run(tmp_path, 50.0)
    change_run(tmp_path, history=[{"eval_f1": 80 + step / 100, "step": step, "epoch": 1.0} for step in (5, 10)])
    bottom, top = figures.curves_figure(1, groups_of(tmp_path)[0]).axes[0].get_ylim()
    assert (top - bottom, (top + bottom) / 2) == (pytest.approx(5), pytest.approx(80.075))


def test_a_language_adapter_has_a_perplexity(tmp_path: Path) -> None:
    change_run(
        made_run(tmp_path), script="run_mlm_adapter.py", history=[{"eval_perplexity": 9.5, "step": 5, "epoch": 1}]
    )
    axes = figures.curves_figure(1, groups_of(tmp_path)[0]).axes[0]
    assert axes.get_ylabel() == "perplexity" and axes.lines[0].get_xydata().tolist() == [[5, 9.5]]


def test_costs(tmp_path: Path) -> None:
    figure = figures.cost_figure(three_groups(tmp_path))
    by_size, by_time = figure.axes
    assert (by_size.get_xlabel(), by_size.get_ylabel(), by_size.get_xscale()) == ("trained parameters", "F1 (%)", "log")
    points = [
        [line.get_xydata().tolist()[0] for line in axes.lines if line.get_marker() in "os"] for axes in figure.axes
    ]
    assert points == [[[120, 52], [1000, 48]], [[112, 52], [108, 48]]]
    (bar,) = by_size.containers[0].lines[2]
    assert bar.get_segments()[0][:, 1].tolist() == pytest.approx([52 - 8**0.5, 52 + 8**0.5])
    assert [text.get_text() for text in by_size.texts] == ["1", "2"]
    untrained = "3  full $_{fine}$-tuning, not trained (5.00)"
    assert legend(figure.legends[0]) == ["1  Stack[qa]", "2  full fine-tuning", untrained]
    assert by_time.get_xlabel() == "training time (s)" and by_time.lines[-1].get_ydata()[0] == 5.0
    assert all(axes.get_ylim()[0] > 40 for axes in figure.axes)
    assert figures.as_png(figure).startswith(b"\x89PNG")  # what stands between dollars is no mathematics


def test_costs_of_a_sweep(tmp_path: Path) -> None:
    for number in range(12):
        folder = made_run(tmp_path / f"{number:02d}", 80.0 - number, learning_rate=0.1 * number)
        change_run(folder, setup="Stack[qa]" if number % 2 else "Fuse[qa, ner]")
    figure = figures.cost_figure(list(enumerate(groups_of(tmp_path), 1)))
    assert legend(figure.legends[0]) == ["Fuse[qa, ner]", "Stack[qa]"]
    assert [text.get_text() for text in figure.axes[0].texts if text.get_text()] == ["1", "2", "3"]
    assert len(figure.axes[0].containers) == 12


def test_parameters_in_percent_of_the_base(tmp_path: Path) -> None:
    figure = figures.parameters_figure(three_groups(tmp_path))
    added, trained = figure.axes
    assert [bar.get_width() for bar in added.patches] == [11, 0, 11]
    assert [bar.get_width() for bar in trained.patches] == [12, 100, 0]
    assert [text.get_text() for text in trained.texts] == ["12.00", "100.00", "0.00"]
    assert (added.get_xlabel(), trained.get_xlabel()) == ("added, % of the base", "trained, % of the base")
    assert legend(figure.legends[0]) == ["qa"]


def test_attention_heat_map() -> None:
    figure = figures.attention_figure(ATTENTION)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["question tokens", "context tokens", "all tokens"]
    for axes, part in zip(figure.axes, ("question", "context", "all"), strict=False):
        assert np.asarray(axes.images[0].get_array()).tolist() == ATTENTION[part]
        assert axes.images[0].get_clim() == (0, 1)
        assert [text.get_text() for text in axes.texts] == [f"{w:.2f}" for row in ATTENTION[part] for w in row]
        assert [text.get_text() for text in axes.get_xticklabels()] == ["qa", "ner"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["0", "1", "2"]


def test_attention_of_many_layers_has_no_numbers(tmp_path: Path) -> None:
    many = {"adapters": list("abcdefgh"), "places": [str(place) for place in range(24)]}
    many |= {part: [[0.125] * 8] * 24 for part in ("question", "context", "all")}
    assert not figures.attention_figure(many).axes[0].texts
    figures.draw_attention(many, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_attention_without_question_tokens(tmp_path: Path) -> None:
    path = tmp_path / "fusion_attention.json"
    path.write_text(json.dumps(ATTENTION | {"question": []}), encoding="utf-8")
    assert read_attention(path).question == []
    titles = [axes.get_title() for axes in figures.attention_figure(ATTENTION | {"question": []}).axes]
    assert titles[:2] == ["context tokens", "all tokens"]


def test_colours_are_told_apart_in_grey_by_their_markers() -> None:
    assert (
        len(set(figures.MARKERS))
        == len(set(figures.COLOURS))
        == len(set(figures.HATCHES))
        == figures.MOST_COMPARED
        == 7
    )


# ---------------------------------------------------------------- the page


class Page(HTMLParser):
    """Tags with their attributes, texts, and whether every tag is closed in order."""

    VOID = {"meta", "img", "br"}

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


def page_of(folder: Path, *runs: Path) -> Page:
    groups, notes = group_runs(find_runs(runs)[0])
    return Page(write_report(groups, notes, folder).read_text(encoding="utf-8"))


def test_the_page_holds_all_it_shows(tmp_path: Path, tiny_bert: Path, data: tuple[Path, list[Question]]) -> None:
    same = {"model_name_or_path": str(tiny_bert), "max_seq_length": 64, "doc_stride": 16}
    for seed, wrong in ((1, 4), (2, 6)):
        answered_run(tmp_path / "runs" / f"a{seed}", *data, wrong=wrong, seed=seed, **same)
    answered_run(tmp_path / "runs" / "b", *data, wrong=9, learning_rate=0.5, **same)
    made_run(tmp_path / "runs" / "c", 70.0, status="failed")
    change_run(tmp_path / "runs" / "c", why=["no space left"])
    (tmp_path / "runs" / "a1" / "fusion_attention.json").write_text(json.dumps(ATTENTION), encoding="utf-8")
    page = page_of(tmp_path / "report", tmp_path / "runs")
    names = ["attention_1.png", "cost_1.png", "curves_1.png", "curves_2.png", "curves_3.png", "errors_1.png"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [*names, "parameters_1.png", "report.html"]
    inlined = {}
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe") and not {"href", "onclick", "onload"} & set(attributes)
        if tag == "img":
            kind, content = str(attributes["src"]).split(",")
            assert kind == "data:image/png;base64" and attributes["alt"]
            inlined[base64.b64decode(content)] = True
    assert {path.read_bytes() for path in (tmp_path / "report").glob("*.png")} == set(inlined)
    assert "50.00 ± 14.14" in page.texts and f"{tmp_path}/runs/c: failed: no space left" in page.texts
    headings = [text for text in page.texts if text in ("question word", "answer length", "context length", "windows")]
    assert len(headings) == 4 and "onde / where" in page.texts and page.texts.count("errado") == 4 + 8
    assert page.texts[page.texts.index("onde / where") + 1 :][:3] == ["10", "50.00", "10.00"]


def test_text_of_strangers_is_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e\"'"
    question = Question("1", evil, f"{evil} fim", (evil,), (0,))
    path = write_squad(tmp_path / "dev.json", [question])
    answered_run(tmp_path / "a", path, [question], wrong=0)
    change_run(tmp_path / "a", setup=evil)
    change_run(made_run(tmp_path / "b", status="failed", weight_decay=1.0), why=[evil], setup="\ud800")
    page = page_of(tmp_path / "report", tmp_path)
    assert page.count("script") == 0 and all(tag != "img" or "onerror" not in found for tag, found in page.tags)
    assert page.texts.count(evil) >= 3 and any("windows is left out" in text for text in page.texts)


def test_what_is_missing_is_said_and_left_out(tmp_path: Path, data: tuple[Path, list[Question]]) -> None:
    answered_run(tmp_path / "a", *data, wrong=5)
    data[0].unlink()
    (tmp_path / "a" / "fusion_attention.json").write_text("{}", encoding="utf-8")
    page = page_of(tmp_path / "report", tmp_path / "a")
    assert f"{data[0]}: has gone since {tmp_path}/a was evaluated on it; no error analysis" in page.texts
    assert any(text.startswith(f"{tmp_path}/a/fusion_attention.json: not as the trainer") for text in page.texts)
    assert "Errors" not in page.texts and "Fusion attention" not in page.texts and "Learning curves" in page.texts


def test_runs_without_any_result_make_a_page(tmp_path: Path) -> None:
    change_run(made_run(tmp_path / "a", None, status="failed"), parameters=None, losses=[])
    page = page_of(tmp_path / "report", tmp_path / "a")
    assert page.count("img") == 0 and f"{tmp_path}/a: failed" in page.texts


@pytest.mark.parametrize("changed", [{"places": ["0"]}, {"adapters": ["qa"]}, {"all": [[0.5], [0.5], [0.5]]}])
def test_attention_of_another_shape_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "fusion_attention.json"
    path.write_text(json.dumps(ATTENTION | changed), encoding="utf-8")
    assert "needs a weight for each of its" in problem(read_attention, path)


def test_pictures_are_legible_in_grey(tmp_path: Path) -> None:
    for _, group in three_groups(tmp_path):
        grey = np.asarray(Image.open(io.BytesIO(figures.as_png(figures.curves_figure(1, group)))).convert("L"))
        assert grey.shape[1] == 990 and (grey < 100).mean() > 0.005  # dark ink on white


# ---------------------------------------------------------------- the door


def test_the_door_writes_a_report(tmp_path: Path) -> None:
    made_run(tmp_path / "runs" / "a b")
    given = ("report_qa.py", tmp_path / "runs", "--output_dir", tmp_path / "um relatório")
    done = run_script(*given)
    page = tmp_path / "um relatório" / "report.html"
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == f"report: {page}"
    (tmp_path / "um relatório" / "curves_9.png").write_bytes(b"old")
    (tmp_path / "um relatório" / "curves_mine.png").write_bytes(b"mine")
    again = run_script(*given)
    assert again.returncode == 2 and again.stderr == (
        f"error: --output_dir {page.parent}: holds report.html; add --overwrite or give another folder\n"
    )
    printed = run_script(*given, "--overwrite", "--json", "-")
    assert json.loads(printed.stdout)[0]["n"] == 1 and f"report: {page}" in printed.stderr
    left = {path.name for path in page.parent.iterdir()} - {path.name for path in existing_files(page.parent)}
    assert left == {"curves_mine.png"} and not (page.parent / "curves_9.png").exists()


def test_options_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_run(tmp_path / "a")
    assert problem(report_qa.main, ["--table", str(tmp_path), "--output_dir", "x"]) == (
        "--output_dir is the report's folder, and --table writes no report; leave one of them out"
    )
    (tmp_path / "file").touch()
    assert problem(report_qa.main, [str(tmp_path), "--output_dir", str(tmp_path / "file")]) == (
        f"--output_dir {tmp_path}/file: {tmp_path}/file is a file; give another folder"
    )
    monkeypatch.setattr(report_qa, "find_spec", lambda name: None if name == "matplotlib" else name)
    assert problem(report_qa.main, [str(tmp_path), "--output_dir", str(tmp_path / "r")]) == (
        "matplotlib: not installed; pip install -r requirements-report.txt, or add --table"
    )
    assert report_qa.main(["--table", str(tmp_path)]) == 0


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    made_run(tmp_path / "a")
    (tmp_path / "file").touch()
    assert problem(report_qa.main, [str(tmp_path / "a"), "--output_dir", str(tmp_path / "file" / "r")]) == (
        f"--output_dir {tmp_path}/file/r: {tmp_path}/file is a file; give another folder"
    )


def test_an_earlier_report_stays_until_the_new_one_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_run(tmp_path / "a")
    page = write_report(groups_of(tmp_path / "a"), [], tmp_path / "report")
    before = {path.name: path.read_bytes() for path in page.parent.iterdir()}
    monkeypatch.setattr(figures, "curves_figure", lambda number, group: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(groups_of(tmp_path / "a"), [], tmp_path / "report")
    assert {path.name: path.read_bytes() for path in page.parent.iterdir()} == before


# ---------------------------------------------------------------- compare_setups.sh


STUB = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$CALLS"
case "$*" in *"$FAILS"*) exit 1 ;; esac
"""


def compared(folder: Path, fails: str, **settings: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """compare_setups.sh with a stand-in for Python, and what that was called with."""
    stub = folder / "stub"
    stub.write_text(STUB, encoding="utf-8")
    stub.chmod(0o755)
    needed = {"TRAIN": "t.json", "DEV": "d.json", "LANG_ADAPTER": "L", "NER_ADAPTER": "N", "OUT": str(folder / "out")}
    calls = folder / "calls"
    given = {**os.environ, **needed, "PYTHON": str(stub), "CALLS": str(calls), "FAILS": fails, **settings}
    done = subprocess.run(
        ["bash", ROOT / "compare_setups.sh"], env=given, capture_output=True, text=True, check=False, cwd=folder
    )
    return done, calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []


def test_all_setups_over_all_seeds_and_one_failure_stops_nothing(tmp_path: Path) -> None:
    done, calls = compared(tmp_path, "out/qa_1", SEEDS="1 2", FULL_LR="9e-5", EXTRA="--max_train_samples 7")
    out = tmp_path / "out"
    names = [re.search(r"--output_dir (\S+)", call)[1] for call in calls]  # type: ignore[index]
    order = [f"{out}/{setup}_{seed}" for seed in (1, 2) for setup in ("full", "qa", "lang_qa", "fusion")]
    assert names == [*order, f"{out}/report"]
    assert (done.returncode, done.stderr) == (1, "failed: qa_1 (exit code 1)\n")
    assert calls[-1] == f"report_qa.py {out} --output_dir {out}/report --overwrite"
    assert "--train_adapter False --learning_rate 9e-5" in calls[0] and "--load_lang_adapter" not in calls[1]
    assert "--load_lang_adapter L" in calls[2] and f"--fuse_adapters qa={out}/lang_qa_2 ner=N" in calls[7]
    assert all("--max_train_samples 7" in call for call in calls[:-1])
    assert [re.search(r"--seed (\d)", call)[1] for call in calls[:-1]] == ["1"] * 4 + ["2"] * 4  # type: ignore[index]


def test_all_well(tmp_path: Path) -> None:
    done, calls = compared(tmp_path, "nothing", SEEDS="3", SETUPS="qa full")
    assert (done.returncode, done.stderr, len(calls)) == (0, "", 3)


def test_an_unknown_setup_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done, calls = compared(tmp_path, "nothing", SETUPS="full adapters")
    assert (done.returncode, calls) == (2, [])
    assert done.stderr == "error: SETUPS: adapters is unknown; choose from full, qa, lang_qa, fusion\n"

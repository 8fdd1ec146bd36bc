"""The report: one HTML page that holds all it shows, and the same pictures as PNG files beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json
from adapter_qa.reporting import figures
from adapter_qa.reporting.error_analysis import (
    Answered,
    Shown,
    count_windows,
    divisions,
    evaluated_questions,
    mean_f1,
    read_answers,
    sample,
)
from adapter_qa.reporting.report_files import PAGE, existing_files, write_whole
from adapter_qa.reporting.runs import Group
from adapter_qa.reporting.tables import cells, columns_for
from adapter_qa.runs.run_record import now

ATTENTION_FILE = "fusion_attention.json"
TEMPLATE = "report.html.jinja"
RIGHT_SHOWN, WRONG_SHOWN = 4, 8  # sampled answers of a group


class Attention(msgspec.Struct):
    """fusion_attention.json: `figures.attention_figure` tells what is in it."""

    adapters: list[str]
    places: list[str]
    question: list[list[float]]
    context: list[list[float]]
    all: list[list[float]]
    windows: int


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        file: its PNG file's name.
        about: what it shows, for those who cannot see it, too.
        data: the PNG in base64.
    """

    file: str
    about: str
    data: str


@dataclass
class Comparison:
    """Groups that were evaluated on the same questions.

    Attributes:
        data: what the questions are.
        numbered: the groups, with their numbers in the table.
        cost, errors: pictures, where there is something to show.
        tables: of the errors: name, headings and rows of each property.
        samples: label of each group, folder of the run, right and wrong answers.
    """

    data: str
    numbered: list[tuple[int, Group]]
    cost: Picture | None = None
    errors: Picture | None = None
    tables: list[tuple[str, list[str], list[list[str]]]] = field(default_factory=list)
    samples: list[tuple[str, str, list[Shown], list[Shown]]] = field(default_factory=list)


@dataclass
class Report:
    """The page in the making.

    Attributes:
        notes: what a reader should know, above all what was left out and why.
        files: PNG files by name, which are written when all is done.
    """

    notes: list[str]
    files: dict[str, bytes] = field(default_factory=dict)

    def picture(self, name: str, figure: Figure, about: str) -> Picture:
        """Draws a figure."""
        file, content = f"{name}.png", figures.as_png(figure)
        self.files[file] = content
        return Picture(file, about, base64.b64encode(content).decode())


def write_report(groups: Sequence[Group], notes: Sequence[str], folder: Path) -> Path:
    """Writes the page and its pictures in the place of an earlier report's, which stays until all is drawn.

    Args:
        groups: as `results.group_runs` sorts them.
        notes: what the reading of the runs had to say.
        folder: is made where there is none.

    Returns:
        The page's path.

    Raises:
        UserError: the folder cannot be written to.
    """
    report = Report(list(notes))
    page = render(report, list(enumerate(groups, 1)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in existing_files(folder):
            old.unlink()
        for name, content in report.files.items():
            write_whole(folder / name, content)
        write_whole(folder / PAGE, page.encode("utf-8", "backslashreplace"))  # lone surrogates, which JSON can spell
    except OSError as error:
        raise UserError(f"--output_dir {folder}: cannot be written ({error.strerror}); give another folder") from error
    return folder / PAGE


def render(report: Report, numbered: list[tuple[int, Group]]) -> str:
    """The page's HTML; whatever came from files is escaped."""
    groups = [group for _, group in numbered]
    compared = comparisons(numbered)
    for place, one in enumerate(compared, 1):
        compare(report, one, place)
    columns = columns_for(groups)
    head, *rows = cells(groups, columns)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(TEMPLATE).render(
        made=now(),
        runs=sum(len(group.runs) for group in groups),
        head=head,
        right=[one.number for one in columns],
        rows=[(number, group.first.finished, row) for (number, group), row in zip(numbered, rows, strict=True)],
        comparisons=compared,
        parameters=parameters(report, numbered),
        curves=curves(report, numbered),
        attentions=attentions(report, numbered),
        failures=[(run, "; ".join(run.document.why)) for one in groups for run in one.runs if not run.finished],
        notes=report.notes,
    )


def comparisons(numbered: Sequence[tuple[int, Group]]) -> list[Comparison]:
    """Finished question answering groups by the questions they were evaluated on."""
    found: dict[tuple[Any, ...], Comparison] = {}
    for number, group in numbered:
        facts, options = group.first.document.data.get("eval"), group.first.document.options
        if group.first.task != "qa" or not group.first.finished or group.f1().mean is None or facts is None:
            continue
        name = str(facts.file or options.get("dataset_name"))
        count = f"{facts.questions:,} questions of " if facts.questions is not None else ""
        key = (facts.sha256 or name, facts.questions, options.get("version_2_with_negative"))
        found.setdefault(key, Comparison(f"{count}{name}", [])).numbered.append((number, group))
    return list(found.values())


def compare(report: Report, one: Comparison, place: int) -> None:
    """Pictures, tables and samples of groups on the same questions; what cannot be had is noted."""
    one.cost = report.picture(
        f"cost_{place}",
        figures.cost_figure(one.numbered),
        "F1 against the number of trained parameters and against training time; the numbers are those of the table, "
        "bars are standard deviations over seeds",
    )
    try:
        questions = evaluated_questions(one.numbered[0][1].first)
    except UserError as error:
        report.notes += [f"{problem}; no error analysis" for problem in error.problems]
        return
    answered: list[tuple[str, Group, list[Answered]]] = []
    for number, group in tqdm(one.numbered[: figures.MOST_COMPARED], desc="answers", leave=False, disable=None):
        try:
            found = [read_answers(run, questions) for run in group.runs]
        except UserError as error:
            report.notes += [f"{problem}; left out of the error analysis" for problem in error.problems]
            continue
        answered.append((figures.group_label(number, group), group, found))
    if len(one.numbered) > figures.MOST_COMPARED:
        report.notes.append(f"error analysis of the first {figures.MOST_COMPARED} of {len(one.numbered)} groups only")
    if answered:
        analyse(report, one, place, questions, answered)


def analyse(
    report: Report, one: Comparison, place: int, questions: list[Any], answered: list[tuple[str, Group, list[Answered]]]
) -> None:
    """Errors by property, and samples."""
    run = answered[0][1].first
    windows = None
    try:
        windows = count_windows(run, questions)
    except UserError as error:
        report.notes += [f"{problem}; F1 by windows is left out" for problem in error.problems]
    labels = [label for label, _, _ in answered]
    panels: dict[str, dict[str, tuple[int, list[float]]]] = {}
    for division in divisions(questions, windows):
        panels[division.name] = {
            label: (len(part), [mean_f1(found, part) for _, _, found in answered])
            for label, part in division.parts.items()
        }
        rows = [
            [part, f"{count:,}", *(f"{f1:.2f}" for f1 in f1s)] for part, (count, f1s) in panels[division.name].items()
        ]
        one.tables.append((division.name, ["", "questions", *labels], rows))
    one.errors = report.picture(
        f"errors_{place}",
        figures.errors_figure(labels, panels),
        "F1 by question word, answer length, context length and number of windows; means over seeds",
    )
    one.samples = [
        (label, str(group.first.folder), *sample(found[0], RIGHT_SHOWN, WRONG_SHOWN))
        for label, group, found in answered
    ]


def parameters(report: Report, numbered: Sequence[tuple[int, Group]]) -> Picture | None:
    """Bars for each different table of parameters."""
    distinct: dict[Any, tuple[int, Group]] = {}
    for number, group in numbered:
        table = group.first.document.parameters
        if table is not None and table.base > 0:
            key = (group.first.setup, msgspec.json.encode(table), group.first.trainable())
            distinct.setdefault(key, (number, group))
    if not distinct:
        return None
    about = "Parameters added to the base, by part, and parameters trained, both in percent of the base with its head"
    return report.picture("parameters_1", figures.parameters_figure(list(distinct.values())), about)


def curves(report: Report, numbered: Sequence[tuple[int, Group]]) -> list[Picture]:
    """Learning curves of every group that has some."""
    found = []
    for number, group in tqdm(numbered, desc="curves", leave=False, disable=None):
        if any(run.document.history or run.document.losses for run in group.runs):
            about = f"{figures.group_label(number, group)}: scores and losses by step and epoch, a line for each seed"
            found.append(report.picture(f"curves_{number}", figures.curves_figure(number, group), about))
    return found


def attentions(report: Report, numbered: Sequence[tuple[int, Group]]) -> list[Picture]:
    """Heat maps of the first run of each group that recorded its fusion's attention."""
    found = []
    for number, group in numbered:
        path = group.first.folder / ATTENTION_FILE
        if not path.is_file():
            continue
        try:
            document = read_attention(path)
        except UserError as error:
            report.notes += error.problems
            continue
        label = figures.group_label(number, group)
        about = f"{label}, {group.first.folder}: mean fusion weights over {document.windows:,} windows"
        figure = figures.attention_figure(msgspec.to_builtins(document))
        found.append(report.picture(f"attention_{number}", figure, about))
    return found


def read_attention(path: Path) -> Attention:
    """A recorded fusion attention.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    try:
        found = msgspec.convert(read_json(path), Attention)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: not as the trainer writes it: {error}") from error
    shape = [len(found.adapters)] * len(found.places)
    parts = [part for part in (found.question, found.context) if part] + [found.all]
    if not shape or not all([len(row) for row in part] == shape for part in parts):
        raise UserError(f"{path}: needs a weight for each of its {len(found.places)} places and adapters")
    return found

"""Write the report: one self-contained HTML page, and its pictures as PNG files beside it."""

from __future__ import annotations

import base64
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import jinja2
import msgspec
from markupsafe import Markup
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from adapter_qa.core.errors import UserError, escape_control_chars, write_error
from adapter_qa.core.files import write_all
from adapter_qa.data.bootstrap import RESAMPLES
from adapter_qa.data.calibration import BINS
from adapter_qa.data.questions import Question
from adapter_qa.models.metadata import FusionAttentionDocument, read_document
from adapter_qa.reporting import figures
from adapter_qa.reporting.calibration_quality import CALIBRATION_MEASURES, CalibrationRow, calibration_row, curves_of
from adapter_qa.reporting.differences import AnswersByGroup
from adapter_qa.reporting.error_analysis import (
    CategoryScores,
    Examples,
    Interval,
    RunAnswers,
    break_down,
    count_interval,
    count_windows,
    sample_examples,
)
from adapter_qa.reporting.groups import Group, same_evaluation
from adapter_qa.reporting.layout import PAGE, existing_files
from adapter_qa.reporting.tables import NOT_COMPARABLE, Column, Table, make_tables
from adapter_qa.runs.layout import ATTENTION_FILE
from adapter_qa.runs.provenance import now

TEMPLATE = "report.html.jinja"
WHITE_SPACE = re.compile(r"[\t\n\r]")  # the control characters of usual text, which a browser shows as spaces
RELIABILITY = (
    f"Probability of the answers and share that is right (exact match), in {BINS} bins with equally many questions; on "
    "the diagonal a probability means what it says. Lines with open markers are without calibration"
)
PRECISION_RECALL = (
    ". Below, F1 of the answers and share of the answerable questions that they find, if only those with the lowest "
    "odds of no answer are answered"
)
INTERVAL_BARS = "Bars at the right are final results with their intervals of 95 %"
RIGHT_EXAMPLES, WRONG_EXAMPLES = 4, 8  # of a group


@dataclass(frozen=True)
class Picture:
    """A figure of the page: its PNG file, a caption, which is the alternative text too, and the PNG in base64."""

    file: str
    caption: str
    data: str


@dataclass(frozen=True)
class AnsweredGroup:
    """A group with the answers of each run, and examples of those of its first run."""

    label: str
    group: Group
    answers: list[RunAnswers]
    examples: Examples


@dataclass(frozen=True)
class ErrorAnalysis:
    """F1 of groups by category of the questions, as a picture and as numbers by property."""

    picture: Picture
    properties: dict[str, list[CategoryScores]]
    groups: list[AnsweredGroup]


@dataclass(frozen=True)
class CalibrationSection:
    """Reliability and, for SQuAD v2, precision and recall of answering, as a picture, and a row for each group."""

    picture: Picture
    headings: list[str]
    rows: list[CalibrationRow]


@dataclass(frozen=True)
class Comparison:
    """Groups that were evaluated on the same questions.

    Attributes:
        data: The questions.
        intervals: Interval of F1 by number of the group, of those whose number of questions is known.
        interval_caption: What the intervals are.
        cost: None if no run was trained.
        calibration: None if no run recorded its curves; earlier versions did not.
        errors: None if no answers could be read.
    """

    data: str
    intervals: dict[int, Interval]
    interval_caption: str
    cost: Picture | None
    calibration: CalibrationSection | None
    errors: ErrorAnalysis | None


@dataclass
class Report:
    """Notes on what was left out, and PNG files by name, which are written once everything is drawn."""

    notes: list[str]
    files: dict[str, bytes] = field(default_factory=dict)

    def add_picture(self, name: str, figure: Figure, caption: str) -> Picture:
        """Draw a figure and add it to the files of the report."""
        file, content = f"{name}.png", figures.as_png(figure)
        self.files[file] = content
        return Picture(file, caption, base64.b64encode(content).decode())


def write_report(groups: Sequence[Group], answers: AnswersByGroup, notes: Sequence[str], folder: Path) -> Path:
    """Write the page, which shows the notes, and its pictures. Return the page's path.

    An earlier report in the folder is replaced once everything is written. Groups and answers are those of
    `compare_to_best`.

    Raises:
        RunError: if the disk is full.
        UserError: if the folder cannot be written to for another reason.
    """
    report = Report(list(notes))
    page = _render_page(report, groups, answers)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = existing_files(folder)
        contents = {folder / name: content for name, content in report.files.items()}
        # JSON can spell lone surrogates, which UTF-8 cannot encode.
        contents[folder / PAGE] = page.encode("utf-8", "backslashreplace")
        write_all(contents)
        for path in earlier:
            if path not in contents:
                path.unlink()
    except OSError as error:
        problem = f"--output_dir {folder}: cannot be written ({error.strerror}); give another folder"
        raise write_error(problem, error) from error
    return folder / PAGE


def _render_page(report: Report, groups: Sequence[Group], answers: AnswersByGroup) -> str:
    """Return the page's HTML, in which all text that comes from files is escaped."""
    comparisons = _compare_groups(report, groups, answers)
    intervals = {number: interval for comparison in comparisons for number, interval in comparison.intervals.items()}
    beside_history = _beside_history(groups, intervals)
    tables = [_with_intervals(table, intervals) for table in make_tables(groups)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )
    return environment.get_template(TEMPLATE).render(
        created=now(),
        run_count=sum(len(group.runs) for group in groups),
        group_count=len(groups),
        tables=tables,
        not_comparable=NOT_COMPARABLE,
        groups=groups,
        unfinished=[run for group in groups for run in group.runs if not run.finished],
        comparisons=comparisons,
        parameters=_draw_parameters(report, groups),
        overlays=_draw_overlays(report, groups, beside_history),
        curves=_draw_curves(report, groups, beside_history),
        attentions=_draw_attentions(report, groups),
        notes=report.notes,
    )


def _shown(value: object) -> object:
    """Return what the template writes in place of a value: markup unchanged, other text without control characters."""
    if isinstance(value, Markup):
        return value
    return escape_control_chars(WHITE_SPACE.sub(" ", str(value)))


def _with_intervals(table: Table, intervals: dict[int, Interval]) -> Table:
    """Return a table with a column of intervals after F1, if there are any."""
    cells = [intervals.get(group.number) for group in table.groups]
    texts = [f"{interval.low:.1f} to {interval.high:.1f}" if interval else "" for interval in cells]
    if not any(texts):
        return table
    place = [column.heading for column in table.columns].index("F1") + 1
    columns = [*table.columns[:place], Column("95 % interval", texts), *table.columns[place:]]
    return replace(table, columns=columns)


def _compare_groups(report: Report, groups: Sequence[Group], answers: AnswersByGroup) -> list[Comparison]:
    comparisons: list[Comparison] = []
    for evaluated in same_evaluation(groups):
        first = evaluated[0].first
        members = [group for group in evaluated if group.is_compared]
        if not first.evaluated.source or not members:
            continue
        number, data = len(comparisons) + 1, first.describe_evaluation()
        answered = _answered_groups(report, members, answers)
        intervals, caption = _make_intervals(members)
        cost = None
        if any(group.first.trainable() for group in members):
            cost = report.add_picture(
                f"cost_{number}",
                figures.cost_figure(members, intervals),
                "F1 against the number of trained parameters and against training time; the numbers are those of the "
                "table, small dots are single seeds, points with the same number of parameters are side by side. "
                + caption,
            )
        calibration = _draw_calibration(report, members, number)
        errors = _analyse_errors(report, answered, number)
        comparisons.append(Comparison(data, intervals, caption, cost, calibration, errors))
    return comparisons


def _draw_calibration(report: Report, groups: Sequence[Group], number: int) -> CalibrationSection | None:
    curves, problems = curves_of(groups[: figures.MAX_COMPARED])
    report.notes += problems
    shown = [group for group in groups if group.number in curves]
    if not shown:
        return None
    has_unanswerable = any(entry.precision_recall_f1 is not None for entry in curves.values())
    caption = RELIABILITY + (PRECISION_RECALL if has_unanswerable else "") + "; of the first seed"
    picture = report.add_picture(f"calibration_{number}", figures.calibration_figure(shown, curves), caption)
    return CalibrationSection(
        picture, [heading for heading, _ in CALIBRATION_MEASURES.values()], [calibration_row(group) for group in shown]
    )


def _answered_groups(report: Report, groups: Sequence[Group], answers: AnswersByGroup) -> list[AnsweredGroup]:
    """Return the groups whose answers could be read; note why the others have none."""
    has_answers = any(group.number in answers for group in groups)
    consequence = "left out of the error analysis" if has_answers else "no error analysis"
    problems = dict.fromkeys(group.not_compared for group in groups if group.number not in answers)
    report.notes += [f"{problem}; {consequence}" for problem in problems]
    return [
        AnsweredGroup(
            figures.group_label(group),
            group,
            answers[group.number],
            sample_examples(answers[group.number][0], RIGHT_EXAMPLES, WRONG_EXAMPLES),
        )
        for group in groups
        if group.number in answers
    ]


def _make_intervals(groups: Sequence[Group]) -> tuple[dict[int, Interval], str]:
    """Return an interval of F1 for each group whose number of questions is known, and what they are."""
    intervals: dict[int, Interval] = {}
    for group in groups:
        f1, questions = group.mean_std("f1").mean, group.first.evaluated.size
        if group.paired is not None:
            intervals[group.number] = Interval(group.paired.f1.low, group.paired.f1.high, from_answers=True)
        elif f1 is not None and questions:
            intervals[group.number] = count_interval(f1, questions)
    if not intervals:
        return {}, ""
    caption = "Intervals of 95 % of F1 say how far it would vary with other questions"
    counted = [str(number) for number, interval in intervals.items() if not interval.from_answers]
    if len(counted) < len(intervals):
        caption += f": percentiles of a bootstrap over contexts with their questions, {RESAMPLES:,} samples"
    if counted:
        caption += f"; for {', '.join(counted)} from the number of questions alone, as for a share (Wilson 1927)"
    return intervals, f"{caption}. They do not show the variation over seeds"


def _analyse_errors(report: Report, answered: list[AnsweredGroup], number: int) -> ErrorAnalysis | None:
    """Analyse the errors of groups with the same questions."""
    if len(answered) > figures.MAX_COMPARED:
        report.notes.append(f"error analysis of the first {figures.MAX_COMPARED} of {len(answered)} groups only")
        answered = answered[: figures.MAX_COMPARED]
    if not answered:
        return None
    properties = _score_properties(report, answered, answered[0].answers[0].questions)
    picture = report.add_picture(
        f"errors_{number}",
        figures.errors_figure([member.group for member in answered], properties),
        "F1 by question word, answer length, context length and number of windows; means over seeds",
    )
    return ErrorAnalysis(picture, properties, answered)


def _score_properties(
    report: Report, answered: Sequence[AnsweredGroup], questions: list[Question]
) -> dict[str, list[CategoryScores]]:
    windows = None
    try:
        windows = count_windows(answered[0].group.first, questions)
    except UserError as error:
        report.notes += [f"{problem}; F1 by number of windows is left out" for problem in error.problems]
    properties: dict[str, list[CategoryScores]] = {}
    for property_name, categories in break_down(questions, windows).items():
        properties[property_name] = []
        for name, members in categories.items():
            f1 = [statistics.fmean(run.score(members)["f1"] for run in group.answers) for group in answered]
            properties[property_name].append(CategoryScores(name, len(members), f1))
    return properties


def _draw_parameters(report: Report, groups: Sequence[Group]) -> Picture | None:
    distinct: dict[tuple[str, bytes, int | None], Group] = {}
    for group in groups:
        parameters = group.first.document.parameters
        if parameters is not None and parameters.base > 0:
            key = (group.first.setup, msgspec.json.encode(parameters), group.first.trainable())
            distinct.setdefault(key, group)
    if not distinct:
        return None
    caption = (
        "Parameters added to the base, by part, and parameters trained, both in percent of the base with its head. "
        "Rows with the same parameters have one bar, at the number of the first"
    )
    return report.add_picture("parameters_1", figures.parameters_figure(list(distinct.values())), caption)


def _draw_overlays(report: Report, groups: Sequence[Group], intervals: dict[int, Interval]) -> list[Picture]:
    pictures: list[Picture] = []
    for evaluated in same_evaluation(groups):
        members = [group for group in evaluated if any(run.scores.history for run in group.runs)]
        if len(members) > 1:
            shown = members[: figures.MAX_COMPARED]
            data = f"Evaluated on {members[0].first.describe_evaluation()}"
            if not members[0].first.history_is_of_evaluation:
                data = "Evaluated while training, not on the questions of the table"
            caption = f"{data}: scores and losses by epoch, means over seeds"
            if len(shown) < len(members):
                caption += f"; the first {len(shown)} of {len(members)} rows"
            if any(group.number in intervals for group in shown):
                caption += f". {INTERVAL_BARS}"
            figure = figures.overlay_figure(shown, intervals)
            pictures.append(report.add_picture(f"overlay_{len(pictures) + 1}", figure, caption))
    return pictures


def _beside_history(groups: Sequence[Group], intervals: dict[int, Interval]) -> dict[int, Interval]:
    """Return the intervals of groups whose evaluations while training are of the same questions."""
    shown = {group.number for group in groups if group.first.history_is_of_evaluation}
    return {number: interval for number, interval in intervals.items() if number in shown}


def _draw_curves(report: Report, groups: Sequence[Group], intervals: dict[int, Interval]) -> list[Picture]:
    pictures = []
    for group in tqdm(groups, desc="curves", leave=False, disable=None):
        if any(run.scores.history or run.scores.losses for run in group.runs):
            caption = f"{figures.group_label(group)}: scores and losses by step and epoch, a line for each seed"
            caption += f". {INTERVAL_BARS}" if group.number in intervals else ""
            pictures.append(
                report.add_picture(
                    f"curves_{group.number}", figures.curves_figure(group, intervals.get(group.number)), caption
                )
            )
    return pictures


def _draw_attentions(report: Report, groups: Sequence[Group]) -> list[Picture]:
    pictures = []
    for group in groups:
        path = group.first.folder / ATTENTION_FILE
        if not path.is_file():
            continue
        try:
            attention = read_attention(path)
        except UserError as error:
            report.notes += error.problems
            continue
        label = figures.group_label(group)
        caption = f"{label}, {group.first.folder}: mean fusion weights over {attention['windows']:,} windows"
        figure = figures.attention_figure(attention)
        pictures.append(report.add_picture(f"attention_{group.number}", figure, caption))
    return pictures


def read_attention(path: Path) -> FusionAttentionDocument:
    """Read recorded fusion attention.

    Raises:
        UserError: if the file cannot be read, or its weights do not have the shape (places, adapters).
    """
    attention = read_document(path, FusionAttentionDocument)
    row_lengths = [len(attention["adapters"])] * len(attention["places"])
    parts = [part for part in (attention["question"], attention["context"]) if part] + [attention["all"]]
    if not row_lengths or not all([len(row) for row in part] == row_lengths for part in parts):
        raise UserError(f"{path}: needs a weight for each of its {len(row_lengths)} places and each adapter")
    return attention

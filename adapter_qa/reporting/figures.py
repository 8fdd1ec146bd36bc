"""Draw the pictures of the report. Each function returns a matplotlib `Figure`; none changes the state of pyplot.

The colours are those of Okabe and Ito (Color Universal Design, 2008), which colour-blind people can distinguish.
Markers, dashes and hatches carry the same information, so that the pictures can be read in grey. Text between dollar
signs is not interpreted as mathematics, because names come from files.

A group has the same colour, marker and dashes in every picture. Panels are below each other, so that a phone shows a
picture without reducing its text.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from adapter_qa.core.errors import escape_control_chars
from adapter_qa.reporting.error_analysis import CategoryScores, Interval
from adapter_qa.reporting.groups import Group, mean_std
from adapter_qa.reporting.runs import Evaluation, Run, is_number

if TYPE_CHECKING:
    from matplotlib.typing import LineStyleType, RcKeyType

    from adapter_qa.data.calibration import CalibrationCurves
    from adapter_qa.models.metadata import FusionAttentionDocument

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[LineStyleType, ...] = (
    "-", (0, (6, 2)), (0, (2, 2)), (0, (8, 2, 2, 2)), (0, (1, 1)), (0, (4, 1)), (0, (9, 3))
)  # fmt: skip
HATCHES = ("", "////", "....", "xxx", "\\\\\\\\", "++", "oo")
MAX_COMPARED = len(COLOURS)  # groups that can be distinguished in one panel of lines
MAX_NUMBERED = 14  # points of a panel that show their number, and entries of its legend
MAX_CELL_TEXTS = 240  # cells of a heat map that leave space for their value
MIN_F1_SPAN = 5  # percent; the F1 axis spans at least this much, so that small changes look small
LOG_MARGIN = 2.2  # factor beyond the points of a logarithmic axis: any such range has two of 1, 2, 5, 10, ...
DODGE = 1.08  # factor between points with the same place on a logarithmic axis; less between many
WIDTH = 4.9  # inches
DPI = 144
STYLE: dict[RcKeyType, Any] = {
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "figure.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.7,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def label_text(text: object, max_length: int = 60) -> str:
    """Return text for a label: without control characters, and not too long."""
    escaped = escape_control_chars(text)
    return escaped if len(escaped) <= max_length else escaped[: max_length - 1] + "…"


def group_label(group: Group, max_length: int = 60) -> str:
    """Return a group's number in the table, the name of its folder and its setup."""
    return label_text(f"{group.number}  {group.name}: {group.first.setup}", max_length)


def group_style(group: Group) -> dict[str, Any]:
    """Return colour, marker and dashes of a group, which no other of the first 49 has."""
    repeat, colour = divmod(group.number - 1, len(COLOURS))
    shape = (colour + repeat) % len(MARKERS)
    return {"color": COLOURS[colour], "marker": MARKERS[shape], "linestyle": DASHES[shape]}


@matplotlib.rc_context(STYLE)  # matplotlib makes the ticks while it draws
def as_png(figure: Figure) -> bytes:
    """Return a figure as PNG; the same figure gives the same bytes."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # names come from files, and the font may lack their characters
        figure.savefig(stream, dpi=DPI, format="png", metadata={"Software": None})
    return stream.getvalue()


@matplotlib.rc_context(STYLE)
def curves_figure(group: Group, interval: Interval | None = None) -> Figure:
    """Draw F1 (perplexity for a language adapter) and losses by step, with epochs above; a line for each seed.

    Args:
        group: Its runs.
        interval: Interval of the final F1, a bar at the right.
    """
    figure = Figure(figsize=(WIDTH, 6.4))
    scores, losses = figure.subplots(2, 1)
    style = group_style(group)
    ends: list[tuple[float, str]] = []  # score and name of each seed
    for run, seed in zip(group.runs, group.seeds, strict=True):
        points = _points(run, _score_of(group))
        _draw_line(scores, points, **style)
        training = [(entry.step, entry.loss) for entry in run.scores.losses]
        _draw_line(losses, training, **style | {"marker": None, "linewidth": 0.8, "alpha": 0.7})
        _draw_line(losses, _points(run, lambda evaluation: evaluation.eval_loss), **style)
        finite = [point for point in points if is_number(point[1])]
        ends += [(finite[-1][1], label_text(f"seed {seed}"))] if finite and len(group.runs) > 1 else []
        best = [point for point in finite if run.document.best and point[0] == run.document.best.step]
        _draw_line(scores, best, linestyle="none", marker="o", markersize=12, mfc="none", mec="#000000", label="best")
    last = max((point for axes in (scores, losses) for line in axes.lines for point in line.get_xdata()), default=1)
    if interval is not None:
        _draw_result(scores, last * 1.06, group, interval, markersize=4)
    for axes, label in ((scores, _score_name(group)), (losses, "loss")):
        axes.set(xlabel="step", ylabel=label, xlim=(0, last * (1.25 if ends else 1.1)))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _add_epoch_axis(axes, group.runs)
    if group.first.task != "mlm":
        _widen_f1_axis(scores)
    y, gap = -np.inf, 0.05 * np.ptp(scores.get_ylim())
    for end, text in sorted(ends):
        y = max(end, y + gap)
        scores.annotate(text, (last * 1.09, y), va="center", fontsize=8)
    handles = {line.get_label(): line for line in scores.lines if line.get_label() == "best"}
    handles["training loss"] = Line2D([], [], color=style["color"], linewidth=0.8)
    handles["evaluation"] = Line2D([], [], **style)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3)
    status = "" if group.first.finished else f" ({label_text(group.first.status)})"
    figure.suptitle(group_label(group) + status)
    return figure


@matplotlib.rc_context(STYLE)
def overlay_figure(groups: Sequence[Group], intervals: Mapping[int, Interval]) -> Figure:
    """Draw the scores and evaluation losses of groups by epoch, means over seeds.

    Args:
        groups: Groups with the same evaluation questions, at most `MAX_COMPARED`.
        intervals: Intervals of F1 by number of the group; a bar at the last point of the line.
    """
    figure = Figure(figsize=(WIDTH, 5.8 + 0.2 * len(groups)))
    scores, losses = figure.subplots(2, 1, sharex=True)
    histories = [run.scores.history for group in groups for run in group.runs]
    last = max((entry.epoch or 0 for history in histories for entry in history), default=1)
    for index, group in enumerate(groups):
        style = group_style(group)
        _draw_line(scores, _mean_curve(group, _score_of(group)), **style, label=group_label(group))
        _draw_line(losses, _mean_curve(group, lambda evaluation: evaluation.eval_loss), **style)
        if group.number in intervals:
            _draw_result(scores, last * (1.06 + 0.03 * index), group, intervals[group.number], markersize=4)
    scores.set(ylabel=_score_name(groups[0]), xlim=(0, last * (1.08 + 0.03 * len(groups))))
    losses.set(ylabel="evaluation loss", xlabel="epoch")
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(0, last)
    losses.set_xticks([tick for tick in ticks if 0 <= tick <= last])
    scores.tick_params(labelbottom=True)
    if groups[0].first.task != "mlm":
        _widen_f1_axis(scores)
    figure.legend(*scores.get_legend_handles_labels(), loc="outside lower center", ncols=1)
    return figure


def _draw_result(axes: Axes, x: float, group: Group, interval: Interval | None, **style: Any) -> None:
    """Draw the F1 of a group with its interval."""
    f1 = group.mean_std("f1").mean
    if f1 is not None:
        errors = None if interval is None else [[max(0, f1 - interval.low)], [max(0, interval.high - f1)]]
        axes.errorbar(x, f1, yerr=errors, capsize=3, **group_style(group) | {"linestyle": "none"} | style)


def _score_name(group: Group) -> str:
    return "perplexity" if group.first.task == "mlm" else "F1 (%)"


def _score_of(group: Group) -> Callable[[Evaluation], float | None]:
    return lambda entry: entry.eval_perplexity if group.first.task == "mlm" else entry.eval_f1


def _mean_curve(group: Group, measure: Callable[[Evaluation], float | None]) -> list[tuple[float, float]]:
    """Return the means over seeds, at the epochs that all of them have."""
    values: dict[float, list[float]] = {}
    for run in group.runs:
        for entry in run.scores.history:
            value = measure(entry)
            if entry.epoch is not None and is_number(value):
                values.setdefault(round(entry.epoch, 3), []).append(value)
    return [(epoch, sum(found) / len(found)) for epoch, found in values.items() if len(found) == len(group.runs)]


def _widen_f1_axis(axes: Axes) -> None:
    bottom, top = axes.get_ylim()
    if top - bottom < MIN_F1_SPAN:
        axes.set_ylim((bottom + top - MIN_F1_SPAN) / 2, (bottom + top + MIN_F1_SPAN) / 2)


def _points(run: Run, measure: Callable[[Evaluation], float | None]) -> list[tuple[int, float]]:
    points = [(evaluation.step, measure(evaluation)) for evaluation in run.scores.history]
    return [(step, value) for step, value in points if step is not None and value is not None]


def _draw_line(axes: Axes, points: Sequence[tuple[float, float]], **style: Any) -> None:
    finite = [point for point in points if is_number(point[1])]
    if finite:
        axes.plot([step for step, _ in finite], [value for _, value in finite], **style)


def _add_epoch_axis(axes: Axes, runs: Sequence[Run]) -> None:
    steps_per_epoch = [
        entry.step / entry.epoch for run in runs for entry in run.scores.history if entry.step and entry.epoch
    ]
    if not steps_per_epoch:
        return
    steps = steps_per_epoch[-1]
    functions = (lambda step: np.multiply(step, 1 / steps), lambda epoch: np.multiply(epoch, steps))
    epoch_axis = axes.secondary_xaxis("top", functions=functions)
    epoch_axis.set_xlabel("epoch")
    epoch_axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


@matplotlib.rc_context(STYLE)
def cost_figure(groups: Sequence[Group], intervals: Mapping[int, Interval]) -> Figure:
    """Draw F1 over trained parameters and over training time; bars are intervals, small dots single seeds.

    A group that trained nothing has neither. It is a horizontal line, if its F1 is within the range of the axis, and an
    entry of the legend with its F1.

    Args:
        groups: Groups with the same evaluation questions, the best first. If there are more than `MAX_NUMBERED`, only
            the first show their numbers and have an entry in the legend.
        intervals: Intervals of F1 by number of the group.
    """
    trained = [group for group in groups if group.first.trainable()]
    figure = Figure(figsize=(WIDTH, 5.6 + 0.2 * min(len(groups), MAX_NUMBERED)))
    by_size, by_time = figure.subplots(2, 1, sharey=True)
    counts = [group.first.trainable() or 0 for group in trained]
    for index, (group, count) in enumerate(zip(trained, counts, strict=True)):
        label = group_label(group) if index < MAX_NUMBERED else None
        # Groups with the same number of parameters stand side by side, and closer if there are many.
        same = counts.count(count)
        offset = counts[:index].count(count) - (same - 1) / 2
        x = count * DODGE ** (offset * min(1, MAX_COMPARED / same))
        _draw_group(by_size, group, [x] * len(group.runs), intervals, label)
        _draw_group(by_time, group, [run.train_seconds() for run in group.runs], intervals, label)
    by_size.set(xscale="log", xlabel="trained parameters", ylabel="F1 (%)")
    if counts:
        by_size.set_xlim(min(counts) / LOG_MARGIN, max(counts) * LOG_MARGIN)
    by_size.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=12))
    by_size.xaxis.set_minor_locator(NullLocator())
    by_size.xaxis.set_major_formatter(EngFormatter(sep=""))
    by_time.set(xlabel="training time (s)", ylabel="F1 (%)")
    by_time.update_datalim([(0, 0)], updatey=False)  # the margin is a share of the range from zero
    by_time.margins(0.12)
    by_size.margins(y=0.12)
    by_time.set_xlim(left=0)
    _widen_f1_axis(by_size)
    for group in groups:
        if not group.first.trained:
            _draw_baseline(figure.axes, group)
    handles, labels = by_size.get_legend_handles_labels()
    pairs = zip(labels, handles, strict=True)
    legend = dict(sorted(pairs, key=lambda pair: isinstance(pair[1], Line2D)))  # horizontal lines last
    if legend:
        figure.legend(list(legend.values()), list(legend), loc="outside lower center", ncols=1)
    return figure


def _draw_group(
    axes: Axes, group: Group, xs: Sequence[float | None], intervals: Mapping[int, Interval], label: str | None
) -> None:
    x, f1 = mean_std(xs).mean, group.mean_std("f1").mean
    if x is None or f1 is None:
        return
    style = group_style(group) | {"linestyle": "none"}
    _draw_result(axes, x, group, intervals.get(group.number), markersize=7, label=label)
    if len(group.runs) > 1:
        scores = [run.evaluation().eval_f1 for run in group.runs]
        points = [(x, f1) for x, f1 in zip(xs, scores, strict=True) if is_number(x) and is_number(f1)]
        _draw_line(axes, points, **style | {"marker": ".", "markersize": 4})
    if label is not None:  # above the bar, where the numbers of points side by side do not touch
        top = intervals[group.number].high if group.number in intervals else f1
        axes.annotate(str(group.number), (x, top), (0, 4), textcoords="offset points", ha="center", fontsize=8)


def _draw_baseline(panels: Sequence[Axes], group: Group) -> None:
    """Draw a horizontal line at a group's F1. It does not change the range of an axis that has points."""
    f1 = group.mean_std("f1").mean
    if f1 is None:
        return
    for axes in panels:
        limits = axes.get_ylim() if axes.containers else None
        axes.axhline(f1, color="#555555", linestyle=":", label=f"{group_label(group)} ({f1:.1f})")
        if limits is not None:
            axes.set_ylim(limits)


@matplotlib.rc_context(STYLE)
def parameters_figure(groups: Sequence[Group]) -> Figure:
    """Draw the parameters of groups that have counts, in percent of the base: added, by part, and trained."""
    figure = Figure(figsize=(WIDTH, 1.8 + 0.9 * len(groups)))
    added, trained = figure.subplots(2, 1)
    counts = [group.first.document.parameters for group in groups]
    names = [name for count in counts if count for name in count.parts if name != "head"]
    lefts = [0.0] * len(groups)
    rows = range(len(groups))
    for index, name in enumerate(dict.fromkeys(names)):
        sizes = [100 * count.parts.get(name, 0) / count.base if count else 0.0 for count in counts]
        style = {"color": COLOURS[index % len(COLOURS)], "hatch": HATCHES[index % len(HATCHES)], "edgecolor": "white"}
        added.barh(rows, sizes, left=lefts, height=0.4, label=label_text(name), **style)
        lefts = [left + size for left, size in zip(lefts, sizes, strict=True)]
    percents = [group.trainable_percent() or 0.0 for group in groups]
    trained.barh(rows, percents, height=0.4, color="#777777")
    for axes, sizes in ((added, lefts), (trained, percents)):
        for row, (group, size) in enumerate(zip(groups, sizes, strict=True)):
            axes.annotate(f"{size:.2f}", (size, row), (4, 0), textcoords="offset points", va="center")
            axes.annotate(group_label(group), (0, row), (2, 9), textcoords="offset points", fontsize=8)
        axes.set(xlim=(0, max(*sizes, 0.01) * 1.18), ylim=(len(groups) - 0.5, -0.9), yticks=[])
        axes.grid(visible=False, axis="y")
    added.set_xlabel("added, % of the base")
    trained.set_xlabel("trained, % of the base")
    if names:
        figure.legend(*added.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@matplotlib.rc_context(STYLE | {"axes.grid": False})
def attention_figure(document: FusionAttentionDocument) -> Figure:
    """Draw heat maps of fusion attention: the mean weight of each adapter at each adapter site.

    There is a panel for question tokens, for context tokens and for all tokens, if the document has weights for them.
    """
    adapters, sites = document["adapters"], document["places"]
    weights = {"question": document["question"], "context": document["context"], "all": document["all"]}
    parts = [part for part in weights if weights[part]]
    figure = Figure(figsize=(max(WIDTH, 1.2 + 0.5 * len(parts) * len(adapters)), 1.5 + 0.3 * len(sites)))
    panels = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    has_texts = len(parts) * len(adapters) * len(sites) <= MAX_CELL_TEXTS
    for axes, part in zip(panels, parts, strict=True):
        # The lightness of cividis grows with the weight, for grey prints and for colour-blind people.
        image = axes.imshow(weights[part], cmap="cividis", vmin=0, vmax=1, aspect="auto")
        axes.set(title=f"{part}\ntokens", xlabel="adapter", xticks=range(len(adapters)), yticks=range(len(sites)))
        axes.set_xticklabels([label_text(name, 16) for name in adapters], rotation=0 if len(adapters) < 4 else 30)
        axes.set_yticklabels([label_text(site, 16) for site in sites])
        for row, site_weights in enumerate(weights[part] if has_texts else []):
            for column, weight in enumerate(site_weights):
                colour = "black" if weight > 0.5 else "white"
                axes.text(column, row, f"{weight:.2f}", ha="center", va="center", color=colour, fontsize=8)
    panels[0].set_ylabel("layer")
    figure.colorbar(image, ax=panels.tolist(), label="mean weight")
    return figure


@matplotlib.rc_context(STYLE)
def calibration_figure(groups: Sequence[Group], curves: Mapping[int, CalibrationCurves]) -> Figure:
    """Draw reliability and, below, precision and recall of answering; `curves` are those of the groups, by number."""
    answering = [group for group in groups if curves[group.number].precision_recall_f1 is not None]
    figure = Figure(figsize=(WIDTH, (7.8 if answering else 4.4) + 0.2 * len(groups)))
    panels = figure.subplots(2 if answering else 1, 1, squeeze=False)[:, 0]
    panels[0].plot([0, 1], [0, 1], color="#555555", linestyle=":", linewidth=1)
    for group in groups:
        style, entry = group_style(group), curves[group.number]
        points = [(part.probability, part.correct) for part in entry.reliability]
        _draw_line(panels[0], points, **style, markersize=5, label=group_label(group))
        if entry.uncalibrated is not None:
            points = [(part.probability, part.correct) for part in entry.uncalibrated.reliability]
            plain = style | {"linestyle": "--", "linewidth": 0.8, "mfc": "none", "markersize": 5}
            _draw_line(panels[0], points, **plain, label=f"{group_label(group, 40)}, without calibration")
    panels[0].set(xlabel="probability of the answer", ylabel="share of exact matches", xlim=(0, 1), ylim=(0, 1))
    for group in answering:
        line = curves[group.number].precision_recall_f1
        if line is not None:
            panels[1].step(
                line.recall, line.precision, where="post", **group_style(group) | {"marker": None}, linewidth=1.2
            )
            panels[1].set(xlabel="recall", ylabel="precision (F1)", xlim=(0, 1), ylim=(0, 1))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=1)
    return figure


@matplotlib.rc_context(STYLE)
def errors_figure(groups: Sequence[Group], properties: Mapping[str, Sequence[CategoryScores]]) -> Figure:
    """Draw F1 by category: a panel for each property of the questions, a marker for each group."""
    heights = [max(len(categories), 2) for categories in properties.values()]
    figure = Figure(figsize=(WIDTH, 0.6 + sum(0.8 + (0.14 + 0.09 * len(groups)) * height for height in heights)))
    grid = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (name, categories) in zip(grid.flat, properties.items(), strict=True):
        for index, group in enumerate(groups):
            shift = 0.7 / len(groups) * (index - (len(groups) - 1) / 2)
            f1 = [category.f1[index] for category in categories]
            rows = [row + shift for row in range(len(categories))]
            style = group_style(group) | {"linestyle": "none", "markersize": 6}
            axes.plot(f1, rows, label=group_label(group), **style)
        ticks = [f"{label_text(category.name)} (n={category.questions})" for category in categories]
        axes.set(title=name, xlim=(-3, 103), yticks=range(len(ticks)), yticklabels=ticks)
        axes.set_ylim(len(categories) - 0.5, -0.5)
    grid.flat[-1].set_xlabel("F1 (%)")
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=1)
    return figure

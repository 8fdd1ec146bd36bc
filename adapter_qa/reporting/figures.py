"""Draw the pictures of the report. Each function returns a matplotlib `Figure`; none changes the state of pyplot.

The colours are those of Okabe and Ito (Color Universal Design, 2008), which colour-blind people can distinguish.
Markers, dashes and hatches carry the same information, so that the pictures can be read in grey. Text between dollar
signs is not interpreted as mathematics, because names come from files.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from adapter_qa.core.errors import escape_control_chars
from adapter_qa.reporting.error_analysis import CategoryScores
from adapter_qa.reporting.runs import Evaluation, Group, MeanStd, Run, is_number

if TYPE_CHECKING:
    from matplotlib.typing import LineStyleType, RcKeyType

    from adapter_qa.models.fusion_attention import FusionAttentionDocument

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[LineStyleType, ...] = (
    "-", (0, (6, 2)), (0, (2, 2)), (0, (8, 2, 2, 2)), (0, (1, 1)), (0, (4, 1)), (0, (9, 3))
)  # fmt: skip
HATCHES = ("", "////", "....", "xxx", "\\\\\\\\", "++", "oo")
MAX_COMPARED = len(COLOURS)  # groups that can be distinguished in one panel
MAX_NUMBERED = 3  # points that show their number if there are more than `MAX_COMPARED` groups
MAX_CELL_TEXTS = 240  # cells of a heat map that leave space for their value
MIN_F1_SPAN = 5  # percent; the F1 axis spans at least this much, so that small changes look small
DPI = 110
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


def label_text(text: object, max_length: int = 44) -> str:
    """Return text for a label: without control characters, and not too long."""
    escaped = escape_control_chars(text)
    return escaped if len(escaped) <= max_length else escaped[: max_length - 1] + "…"


def group_label(group: Group) -> str:
    """Return a group's number in the table and its setup."""
    return label_text(f"{group.number}  {group.first.setup}")


def _series_style(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


@matplotlib.rc_context(STYLE)  # matplotlib makes the ticks while it draws
def as_png(figure: Figure) -> bytes:
    """Return a figure as PNG; the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, dpi=DPI, format="png", metadata={"Software": None})
    return stream.getvalue()


@matplotlib.rc_context(STYLE)
def curves_figure(group: Group) -> Figure:
    """Draw F1 (perplexity for a language adapter) and losses by step, with epochs above; a line for each seed."""
    figure = Figure(figsize=(9, 3.8))
    scores, losses = figure.subplots(1, 2, sharex=True)
    shows_f1 = group.first.task != "mlm"

    def score_points(run: Run) -> list[tuple[int, float]]:
        return _points(run, lambda entry: entry.eval_f1 if shows_f1 else entry.eval_perplexity)

    for index, run in enumerate(group.runs):
        style = _series_style(index) | {
            "linestyle": DASHES[index % len(DASHES)],
            "label": label_text(f"seed {run.seed}"),
        }
        _draw_line(scores, score_points(run), **style)
        training = [(entry.step, entry.loss) for entry in run.document.losses]
        _draw_line(losses, training, **style | {"marker": None, "linewidth": 1})
        _draw_line(losses, _points(run, lambda evaluation: evaluation.eval_loss), **style)
    for run in group.runs:
        best = run.document.best
        points = [point for point in score_points(run) if best and point[0] == best.step]
        _draw_line(scores, points, linestyle="none", marker="o", markersize=13, mfc="none", mec="#000000", label="best")
    for axes, label in ((scores, "F1 (%)" if shows_f1 else "perplexity"), (losses, "loss")):
        axes.set(xlabel="step", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _add_epoch_axis(axes, group.runs)
    losses.set_xlim(left=0)
    if shows_f1:
        _widen_f1_axis(scores)
    handles = {line.get_label(): line for axes in (losses, scores) for line in axes.lines}
    if losses.lines:
        handles["training loss"] = Line2D([], [], color="#000000", linewidth=1)
        handles["evaluation loss"] = Line2D([], [], color="#000000", marker=".")
    if handles:
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=8)
    status = "" if group.first.finished else f" ({label_text(group.first.status)})"
    figure.suptitle(group_label(group) + status)
    return figure


def _widen_f1_axis(axes: Axes) -> None:
    bottom, top = axes.get_ylim()
    if top - bottom < MIN_F1_SPAN:
        axes.set_ylim((bottom + top - MIN_F1_SPAN) / 2, (bottom + top + MIN_F1_SPAN) / 2)


def _points(run: Run, measure: Callable[[Evaluation], float | None]) -> list[tuple[int, float]]:
    points = [(evaluation.step, measure(evaluation)) for evaluation in run.document.history]
    return [(step, value) for step, value in points if step is not None and value is not None]


def _draw_line(axes: Axes, points: Sequence[tuple[int, float]], **style: Any) -> None:
    finite = [point for point in points if is_number(point[1])]
    if finite:
        axes.plot([step for step, _ in finite], [value for _, value in finite], **style)


def _add_epoch_axis(axes: Axes, runs: Sequence[Run]) -> None:
    steps_per_epoch = [
        entry.step / entry.epoch for run in runs for entry in run.document.history if entry.step and entry.epoch
    ]
    if not steps_per_epoch:
        return
    steps = steps_per_epoch[-1]
    functions = (lambda step: np.multiply(step, 1 / steps), lambda epoch: np.multiply(epoch, steps))
    epoch_axis = axes.secondary_xaxis("top", functions=functions)
    epoch_axis.set_xlabel("epoch")
    epoch_axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


@matplotlib.rc_context(STYLE)
def cost_figure(groups: Sequence[Group]) -> Figure:
    """Draw F1 over trained parameters and over training time; bars are standard deviations over seeds.

    A group that trained nothing has neither. It is a horizontal line, if its F1 is within the range of the axis, and an
    entry of the legend with its F1.

    Args:
        groups: Groups with the same evaluation questions, the best first. If there are more than `MAX_COMPARED`,
            groups with the same setup look alike, and only the first few show their numbers.
    """
    setups = list(dict.fromkeys(group.first.setup for group in groups))
    many = len(groups) > MAX_COMPARED
    legend_rows = -(-min(len(setups if many else groups), MAX_COMPARED) // 2)
    figure = Figure(figsize=(9, 3.6 + 0.2 * legend_rows))
    by_size, by_time = figure.subplots(1, 2, sharey=True)
    for index, group in enumerate(groups):
        style = _series_style(setups.index(group.first.setup) if many else index)
        style |= {"label": label_text(group.first.setup) if many else group_label(group)}
        text = str(group.number) if not many or index < MAX_NUMBERED else ""
        if trainable := group.first.trainable():
            _draw_group(by_size, group, MeanStd(float(trainable), None), text, style)
            _draw_group(by_time, group, group.mean_std("train_seconds"), text, style)
    by_size.set(xscale="log", xlabel="trained parameters", ylabel="F1 (%)")
    by_size.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=12))
    by_size.xaxis.set_minor_locator(NullLocator())
    by_size.xaxis.set_major_formatter(EngFormatter(sep=""))
    by_time.set(xlabel="training time (s)")
    by_time.update_datalim([(0, 0)], updatey=False)  # the margin is a share of the range from zero
    for axes in (by_size, by_time):
        axes.margins(0.12)
    by_time.set_xlim(left=0)
    _widen_f1_axis(by_size)
    for group in groups:
        if not group.first.trained:
            _draw_baseline(figure.axes, group)
    handles, labels = by_size.get_legend_handles_labels()
    pairs = zip(labels, handles, strict=True)
    legend = dict(sorted(pairs, key=lambda pair: isinstance(pair[1], Line2D)))  # horizontal lines last
    if legend:
        figure.legend(list(legend.values()), list(legend), loc="outside lower center", ncols=2)
    return figure


def _draw_group(axes: Axes, group: Group, x: MeanStd, text: str, style: dict[str, Any]) -> None:
    f1 = group.mean_std("f1")
    if x.mean is None or f1.mean is None:
        return
    style = {"linestyle": "none", "capsize": 3, "markersize": 7, **style}
    axes.errorbar(x.mean, f1.mean, xerr=x.deviation, yerr=f1.deviation, **style)
    axes.annotate(text, (x.mean, f1.mean), (7, 3), textcoords="offset points")


def _draw_baseline(panels: Sequence[Axes], group: Group) -> None:
    """Draw a horizontal line at a group's F1. It does not change the range of an axis that has points."""
    f1 = group.mean_std("f1").mean
    if f1 is None:
        return
    for axes in panels:
        limits = axes.get_ylim() if axes.containers else None
        axes.axhline(f1, color="#555555", linestyle=":", label=f"{group_label(group)} ({f1:.2f})")
        if limits is not None:
            axes.set_ylim(limits)


@matplotlib.rc_context(STYLE)
def parameters_figure(groups: Sequence[Group]) -> Figure:
    """Draw the parameters of groups that have counts, in percent of the base: added, by part, and trained."""
    figure = Figure(figsize=(9, 1.6 + 0.42 * len(groups)))
    added, trained = figure.subplots(1, 2, sharey=True)
    counts = [group.first.document.parameters for group in groups]
    names = [name for count in counts if count for name in count.parts if name != "head"]
    lefts = [0.0] * len(groups)
    rows = range(len(groups))
    for index, name in enumerate(dict.fromkeys(names)):
        sizes = [100 * count.parts.get(name, 0) / count.base if count else 0.0 for count in counts]
        style = {"color": COLOURS[index % len(COLOURS)], "hatch": HATCHES[index % len(HATCHES)], "edgecolor": "white"}
        added.barh(rows, sizes, left=lefts, height=0.6, label=label_text(name), **style)
        lefts = [left + size for left, size in zip(lefts, sizes, strict=True)]
    percents = [group.trainable_percent() or 0.0 for group in groups]
    trained.barh(rows, percents, height=0.6, color="#777777")
    for axes, sizes in ((added, lefts), (trained, percents)):
        for row, size in zip(rows, sizes, strict=True):
            axes.annotate(f"{size:.2f}", (size, row), (4, 0), textcoords="offset points", va="center")
        axes.margins(x=0.18)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
    added.set(xlabel="added, % of the base", yticks=rows, yticklabels=[group_label(group) for group in groups])
    added.invert_yaxis()
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
    figure = Figure(figsize=(1 + len(parts) * max(2.0, 0.9 + 0.7 * len(adapters)), 1.5 + 0.3 * len(sites)))
    panels = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    has_texts = len(parts) * len(adapters) * len(sites) <= MAX_CELL_TEXTS
    for axes, part in zip(panels, parts, strict=True):
        # The lightness of cividis grows with the weight, for grey prints and for colour-blind people.
        image = axes.imshow(weights[part], cmap="cividis", vmin=0, vmax=1, aspect="auto")
        axes.set(title=f"{part} tokens", xlabel="adapter", xticks=range(len(adapters)), yticks=range(len(sites)))
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
def errors_figure(labels: Sequence[str], properties: Mapping[str, Sequence[CategoryScores]]) -> Figure:
    """Draw F1 by category: a panel for each property of the questions, a marker for each of the labelled groups."""
    sizes = [max(len(categories), 2) for categories in properties.values()]
    heights = [max(sizes[index : index + 2]) for index in range(0, len(sizes), 2)]
    figure = Figure(figsize=(9, 1.2 + sum(0.9 + (0.18 + 0.09 * len(labels)) * height for height in heights)))
    grid = figure.subplots(len(heights), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (name, categories) in zip(grid.flat, properties.items(), strict=False):
        for index, label in enumerate(labels):
            shift = 0.7 / len(labels) * (index - (len(labels) - 1) / 2)
            f1 = [category.f1[index] for category in categories]
            rows = [row + shift for row in range(len(categories))]
            axes.plot(f1, rows, linestyle="none", markersize=6, **_series_style(index), label=label)
        ticks = [f"{label_text(category.name)} (n={category.questions})" for category in categories]
        axes.set(title=name, xlabel="F1 (%)", xlim=(-3, 103), yticks=range(len(ticks)), yticklabels=ticks)
        axes.set_ylim(len(categories) - 0.5, -0.5)
    for axes in list(grid.flat)[len(properties) :]:
        axes.set_axis_off()
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure

"""The pictures of the report. Each function returns a matplotlib `Figure`; none touches the state of pyplot.

Colours are those of Okabe and Ito (Color Universal Design, 2008), which colour-blind people tell apart, too; markers,
dashes and hatches say the same, so that the pictures can be read in grey. Others' text is not read as mathematics.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from operator import mul
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from adapter_qa.core.errors import escape_control_chars
from adapter_qa.reporting.runs import Evaluation, Group, MeanStd, Run, is_number
from adapter_qa.reporting.tables import trainable_percent

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 2)), (0, (8, 2, 2, 2)), (0, (1, 1)), (0, (4, 1)), (0, (9, 3)))
HATCHES = ("", "////", "....", "xxx", "\\\\\\\\", "++", "oo")
MOST_COMPARED = len(COLOURS)  # groups that can be told apart in one panel
FIRST_NUMBERED = 3  # of many groups
MOST_NUMBERS = 240  # cells of a heat map that have room for their number
LONGEST_LABEL = 44  # characters
LEAST_SPAN = 5  # percent of F1 that a scale shows at least, so that small changes look small
DPI = 110
STYLE: dict[Any, Any] = {
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
Numbered = Sequence[tuple[int, Group]]  # groups with their numbers in the table


def literal(text: object, longest: int = LONGEST_LABEL) -> str:
    """Text as it is drawn: no control characters, not too long."""
    shown = escape_control_chars(text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def look(index: int) -> dict[str, Any]:
    """Colour and marker of the n-th of some things."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


@matplotlib.rc_context(STYLE)  # ticks are made when they are drawn
def as_png(figure: Figure) -> bytes:
    """A figure as PNG, the same bytes every time."""
    stream = io.BytesIO()
    figure.savefig(stream, dpi=DPI, format="png", metadata={"Software": None})
    return stream.getvalue()


def group_label(number: int, group: Group) -> str:
    """A group's number in the table, and its setup."""
    return literal(f"{number}  {group.first.setup}")


# ---------------------------------------------------------------- learning curves


@matplotlib.rc_context(STYLE)
def curves_figure(number: int, group: Group) -> Figure:
    """F1 (perplexity of a language adapter) and losses by step, epochs above; a line for each seed.

    Args:
        number: of the group, in the table.
        group: its runs.
    """
    figure = Figure(figsize=(9, 3.8))
    scores, losses = figure.subplots(1, 2, sharex=True)
    score, name = (_perplexity, "perplexity") if group.first.task == "mlm" else (_f1, "F1 (%)")
    for index, run in enumerate(group.runs):
        line = {**look(index), "linestyle": DASHES[index % len(DASHES)], "label": literal(f"seed {run.seed}")}
        _draw(scores, _points(run, score), **line)
        _draw(losses, [(one.step, one.loss) for one in run.document.losses], **line | {"marker": None, "linewidth": 1})
        _draw(losses, _points(run, _loss), **line)
    for run in group.runs:
        kept = [point for point in _points(run, score) if run.document.best and point[0] == run.document.best.step]
        _draw(scores, kept, linestyle="none", marker="o", markersize=13, mfc="none", mec="#000000", label="kept")
    for axes, label in ((scores, name), (losses, "loss")):
        axes.set(xlabel="step", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _epochs_above(axes, group.runs)
    losses.set_xlim(left=0)
    if score is _f1:
        _stretch(scores)
    handles = {line.get_label(): line for axes in (losses, scores) for line in axes.lines}
    if losses.lines:
        handles["training loss"] = Line2D([], [], color="#000000", linewidth=1)
        handles["evaluation loss"] = Line2D([], [], color="#000000", marker=".")
    if handles:
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=8)
    figure.suptitle(group_label(number, group) + ("" if group.first.finished else f" ({literal(group.first.status)})"))
    return figure


def _stretch(axes: Axes) -> None:
    """Makes a scale of F1 span `LEAST_SPAN` at least."""
    bottom, top = axes.get_ylim()
    if top - bottom < LEAST_SPAN:
        axes.set_ylim((bottom + top - LEAST_SPAN) / 2, (bottom + top + LEAST_SPAN) / 2)


def _f1(one: Evaluation) -> float | None:
    return one.eval_f1


def _perplexity(one: Evaluation) -> float | None:
    return one.eval_perplexity


def _loss(one: Evaluation) -> float | None:
    return one.eval_loss


def _points(run: Run, measure: Callable[[Evaluation], float | None]) -> list[tuple[int, float]]:
    """Step and value of each evaluation that has both."""
    found = [(one.step, measure(one)) for one in run.document.history]
    return [(step, value) for step, value in found if step is not None and value is not None]


def _draw(axes: Axes, points: Sequence[tuple[int, float]], **line: Any) -> None:
    """A line through what is finite."""
    points = [point for point in points if is_number(point[1])]
    if points:
        axes.plot([step for step, _ in points], [value for _, value in points], **line)


def _epochs_above(axes: Axes, runs: Sequence[Run]) -> None:
    """A second scale in epochs, where the runs tell how many steps an epoch has."""
    sizes = [one.step / one.epoch for run in runs for one in run.document.history if one.step and one.epoch]
    if sizes:
        above = axes.secondary_xaxis("top", functions=(partial(mul, 1 / sizes[-1]), partial(mul, sizes[-1])))
        above.set_xlabel("epoch")
        above.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


# ---------------------------------------------------------------- what it costs


@matplotlib.rc_context(STYLE)
def cost_figure(numbered: Numbered) -> Figure:
    """F1 against trained parameters and against training time; bars are standard deviations over seeds.

    What was not trained has neither; it is a line across where there is room for it, and has its F1 in the legend.

    Args:
        numbered: groups of one set of evaluation questions, the best first. Of more than `MOST_COMPARED` those of a
            setup look alike, and the first few have their numbers.
    """
    setups = list(dict.fromkeys(group.first.setup for _, group in numbered))
    many = len(numbered) > MOST_COMPARED
    figure = Figure(figsize=(9, 3.6 + 0.2 * -(-min(len(setups if many else numbered), MOST_COMPARED) // 2)))
    by_size, by_time = figure.subplots(1, 2, sharey=True)
    for index, (number, group) in enumerate(numbered):
        style = look(setups.index(group.first.setup) if many else index)
        style |= {"label": literal(group.first.setup) if many else group_label(number, group)}
        text = str(number) if not many or index < FIRST_NUMBERED else ""
        if trained := group.first.trainable():
            _point(by_size, text, MeanStd(float(trained), None), group, style)
            _point(by_time, text, group.train_seconds(), group, style)
    by_size.set(xscale="log", xlabel="trained parameters", ylabel="F1 (%)")
    by_size.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=12))
    by_size.xaxis.set_minor_locator(NullLocator())
    by_size.xaxis.set_major_formatter(EngFormatter(sep=""))
    by_time.set(xlabel="training time (s)")
    for axes in (by_size, by_time):
        axes.margins(0.12)
    by_time.set_xlim(left=0)
    _stretch(by_size)
    for number, group in numbered:
        if not group.first.trained:
            _level(figure.axes, number, group)
    handles, labels = by_size.get_legend_handles_labels()
    pairs = zip(labels, handles, strict=True)
    legend = dict(sorted(pairs, key=lambda pair: isinstance(pair[1], Line2D)))  # the lines across last
    if legend:
        figure.legend(list(legend.values()), list(legend), loc="outside lower center", ncols=2)
    return figure


def _point(axes: Axes, text: str, x: MeanStd, group: Group, style: dict[str, Any]) -> None:
    """A group's F1 at some value; nothing where one of them is not known."""
    f1 = group.f1()
    if x.mean is None or f1.mean is None:
        return
    style = {"linestyle": "none", "capsize": 3, "markersize": 7, **style}
    axes.errorbar(x.mean, f1.mean, xerr=x.deviation, yerr=f1.deviation, **style)
    axes.annotate(text, (x.mean, f1.mean), (7, 3), textcoords="offset points")


def _level(panels: Sequence[Axes], number: int, group: Group) -> None:
    """A line across at a group's F1, for which the scale is not stretched."""
    f1 = group.f1().mean
    if f1 is None:
        return
    for axes in panels:
        limits = axes.get_ylim() if axes.containers else None
        axes.axhline(f1, color="#555555", linestyle=":", label=f"{group_label(number, group)} ({f1:.2f})")
        if limits is not None:
            axes.set_ylim(limits)


@matplotlib.rc_context(STYLE)
def parameters_figure(numbered: Numbered) -> Figure:
    """Parameters of each setup in percent of the base with its head: what is added, by part, and what is trained.

    Args:
        numbered: groups that have a table of parameters, no two with the same one.
    """
    figure = Figure(figsize=(9, 1.6 + 0.42 * len(numbered)))
    added, trained = figure.subplots(1, 2, sharey=True)
    tables = [group.first.document.parameters for _, group in numbered]
    names = [name for table in tables if table for name in table.parts if name != "head"]
    lefts = [0.0] * len(numbered)
    rows = range(len(numbered))
    for index, name in enumerate(dict.fromkeys(names)):
        sizes = [100 * table.parts.get(name, 0) / table.base if table else 0.0 for table in tables]
        style = {"color": COLOURS[index % len(COLOURS)], "hatch": HATCHES[index % len(HATCHES)], "edgecolor": "white"}
        added.barh(rows, sizes, left=lefts, height=0.6, label=literal(name), **style)
        lefts = [left + size for left, size in zip(lefts, sizes, strict=True)]
    shares = [trainable_percent(group) or 0.0 for _, group in numbered]
    trained.barh(rows, shares, height=0.6, color="#777777")
    for axes, sizes in ((added, lefts), (trained, shares)):
        for row, size in zip(rows, sizes, strict=True):
            axes.annotate(f"{size:.2f}", (size, row), (4, 0), textcoords="offset points", va="center")
        axes.margins(x=0.18)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
    added.set(xlabel="added, % of the base", yticks=rows, yticklabels=[group_label(*one) for one in numbered])
    added.invert_yaxis()
    trained.set_xlabel("trained, % of the base")
    if names:
        figure.legend(*added.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


# ---------------------------------------------------------------- fusion attention


@matplotlib.rc_context(STYLE | {"axes.grid": False})
def attention_figure(document: dict[str, Any]) -> Figure:
    """Heat map of fusion attention: mean weight of each adapter at each place, for question, context and all tokens.

    There is no panel for what has no rows.

    Args:
        document: as in fusion_attention.json: `adapters` (names), `places` (labels), and `question`, `context`, `all`,
            each (places, adapters) weights from 0 to 1.
    """
    adapters, places = document["adapters"], document["places"]
    parts = [part for part in ("question", "context", "all") if document[part]]
    figure = Figure(figsize=(1 + len(parts) * max(2.0, 0.9 + 0.7 * len(adapters)), 1.5 + 0.3 * len(places)))
    panels = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    numbers = len(parts) * len(adapters) * len(places) <= MOST_NUMBERS
    for axes, part in zip(panels, parts, strict=True):
        # cividis grows lighter steadily, so that it is read alike in grey and by colour-blind people.
        image = axes.imshow(document[part], cmap="cividis", vmin=0, vmax=1, aspect="auto")
        axes.set(title=f"{part} tokens", xlabel="adapter", xticks=range(len(adapters)), yticks=range(len(places)))
        axes.set_xticklabels([literal(name, 16) for name in adapters], rotation=0 if len(adapters) < 4 else 30)
        axes.set_yticklabels([literal(place, 16) for place in places])
        for row, weights in enumerate(document[part] if numbers else []):
            for column, weight in enumerate(weights):
                colour = "black" if weight > 0.5 else "white"
                axes.text(column, row, f"{weight:.2f}", ha="center", va="center", color=colour, fontsize=8)
    panels[0].set_ylabel("layer")
    figure.colorbar(image, ax=panels.tolist(), label="mean weight")
    return figure


def draw_attention(document: dict[str, Any], path: Path) -> None:
    """Writes `attention_figure` as PNG.

    Raises:
        OSError: it cannot be written.
    """
    path.write_bytes(as_png(attention_figure(document)))


# ---------------------------------------------------------------- errors


@matplotlib.rc_context(STYLE)
def errors_figure(names: Sequence[str], panels: dict[str, dict[str, tuple[int, list[float]]]]) -> Figure:
    """F1 by category, a panel for each property of the questions, a marker for each group.

    Args:
        names: labels of the groups, at most `MOST_COMPARED`.
        panels: by property and category, how many questions there are, and the F1 of each group in percent.
    """
    sizes = [max(len(parts), 2) for parts in panels.values()]
    rows = [max(sizes[index : index + 2]) for index in range(0, len(sizes), 2)]
    figure = Figure(figsize=(9, 1.2 + sum(0.9 + (0.18 + 0.09 * len(names)) * row for row in rows)))
    grid = figure.subplots(len(rows), 2, squeeze=False, gridspec_kw={"height_ratios": rows})
    for axes, (name, parts) in zip(grid.flat, panels.items(), strict=False):
        for index in range(len(names)):
            shift = 0.7 / len(names) * (index - (len(names) - 1) / 2)
            values = [f1[index] for _, f1 in parts.values()]
            places = [row + shift for row in range(len(parts))]
            axes.plot(values, places, linestyle="none", markersize=6, **look(index), label=names[index])
        labels = [f"{literal(part)} (n={count})" for part, (count, _) in parts.items()]
        axes.set(title=name, xlabel="F1 (%)", xlim=(-3, 103), yticks=range(len(parts)), yticklabels=labels)
        axes.set_ylim(len(parts) - 0.5, -0.5)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure

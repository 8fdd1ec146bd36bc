"""The table of runs: one row a group of seeds, for a terminal, as CSV, Markdown or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from adapter_qa.core.errors import escape_control_chars
from adapter_qa.reporting.runs import REFERENCES, Group, MeanStd, differing

ELLIPSIS = "…"
GAP = "  "  # between the columns of a terminal
LEAST, LEAST_SETUP = 14, 30  # characters; Stack[mlm, Fuse[qa, ner]] has 25


@dataclass(frozen=True)
class Column:
    """One column of the table for people.

    Attributes:
        head: its heading.
        cell: the text of a group's cell.
        number: aligned to the right.
        worth: which columns a narrow terminal keeps; the least is left out first.
        least: characters that long texts keep where a terminal is narrow; 0 where they are never shortened.
    """

    head: str
    cell: Callable[[Group], str]
    number: bool = True
    worth: int = 0
    least: int = 0


def columns_for(groups: Sequence[Group]) -> list[Column]:
    """The columns that say something about these groups, in order."""
    several_tasks = len({group.first.task for group in groups}) > 1
    columns = [
        *([Column("task", lambda group: group.first.task, False, 95)] if several_tasks else []),
        Column("setup", lambda group: group.first.setup, False, 100, LEAST_SETUP),
        Column("F1", lambda group: score(group.f1()), True, 99),
        Column("EM", lambda group: score(group.exact()), True, 70),
        Column("perplexity", lambda group: score(group.perplexity()), True, 60),
        Column("n", lambda group: str(len(group.runs)), True, 90),
        Column("best epoch", lambda group: plain(group.best_epoch().mean, 2), True, 40),
        Column("trainable", lambda group: count(group.first.trainable()), True, 45),
        Column("% of base", share, True, 20),
        *[
            Column(name, partial(option, name=name), False, 80 if name == "learning_rate" else 50, LEAST)
            for name in shown_options(groups)
        ],
        Column("train time", lambda group: duration(group.train_seconds()), True, 30),
        Column("status", lambda group: group.first.status, False, 98),
        Column("folder", folder, False, 85, LEAST),
    ]
    return [one for one in columns if any(one.cell(group) for group in groups)]


def shown_options(groups: Sequence[Group]) -> list[str]:
    """The learning rate, and whatever else tells the groups apart."""
    return ["learning_rate", *(name for name in differing(groups) if name != "learning_rate")]


def score(found: MeanStd) -> str:
    """A mean with two decimals, and its standard deviation where there is one."""
    if found.mean is None:
        return ""
    return f"{found.mean:.2f}" + (f" ± {found.deviation:.2f}" if found.deviation is not None else "")


def plain(value: float | None, decimals: int) -> str:
    """A number without needless zeros."""
    return "" if value is None else f"{value:.{decimals}f}".rstrip("0").rstrip(".")


def count(value: int | None) -> str:
    """A whole number with its thousands parted."""
    return "" if value is None else f"{value:,}"


def trainable_percent(group: Group) -> float | None:
    """Trained parameters in percent of the base with its head."""
    table, trained = group.first.document.parameters, group.first.trainable()
    return 100 * trained / table.base if table is not None and trained is not None and table.base else None


def share(group: Group) -> str:
    """`trainable_percent` as text."""
    percent = trainable_percent(group)
    return "" if percent is None else f"{percent:.2f}"


def option(group: Group, name: str) -> str:
    """An option's value; paths as they were given. Options of training are empty where nothing was trained."""
    if name == "learning_rate" and not group.first.trained:
        return ""
    return as_text(option_value(group, name))


def option_value(group: Group, name: str) -> Any:
    """An option's value as it was given, of the first run."""
    return group.first.document.options.get(name) if name in REFERENCES else group.settings.get(name)


def as_text(value: Any) -> str:
    """A JSON value for people."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return " ".join(map(as_text, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def duration(found: MeanStd) -> str:
    """Seconds as 12 s, 3:05 or 2:03:05 (hours first)."""
    if found.mean is None:
        return ""
    seconds = round(found.mean)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def folder(group: Group) -> str:
    """The first run's folder, and how many more there are."""
    more = f" +{len(group.runs) - 1}" if len(group.runs) > 1 else ""
    return f"{group.first.folder}{more}"


def cells(groups: Sequence[Group], columns: Sequence[Column]) -> list[list[str]]:
    """The table's texts, heading first; nothing in them is obeyed by a terminal."""
    return [
        [one.head for one in columns],
        *([escape_control_chars(one.cell(group)) for one in columns] for group in groups),
    ]


def as_terminal(groups: Sequence[Group], width: int | None) -> tuple[str, list[str]]:
    """The table in aligned columns.

    Args:
        groups: as sorted.
        width: of the terminal, in characters; None for a pipe or file, where nothing is shortened.

    Returns:
        The table, and the headings of the columns that were left out for want of room.
    """
    columns = columns_for(groups)
    rows = cells(groups, columns)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    kept = list(range(len(columns))) if width is None else fit(columns, widths, width)
    lines = [
        GAP.join(aligned(row[index], widths[index], columns[index].number) for index in kept).rstrip() for row in rows
    ]
    return "\n".join(lines) + "\n", [one.head for index, one in enumerate(columns) if index not in kept]


def fit(columns: Sequence[Column], widths: list[int], room: int) -> list[int]:
    """Leaves out the columns worth least until the others fit, wide ones shortened; these then take what room is left.

    Args:
        columns: the columns.
        widths: characters of each; changed to what they have in the end.
        room: characters of a line.

    Returns:
        Which columns are kept; at least one.
    """
    kept = list(range(len(columns)))
    least = [
        min(width, max(one.least, len(one.head))) if one.least else width
        for one, width in zip(columns, widths, strict=True)
    ]
    while len(kept) > 1 and sum(least[index] + len(GAP) for index in kept) - len(GAP) > room:
        kept.remove(min(kept, key=lambda index: columns[index].worth))
    while (over := sum(widths[index] + len(GAP) for index in kept) - len(GAP) - room) > 0:
        longest = max(kept, key=lambda index: widths[index] - least[index])
        if widths[longest] == least[longest]:
            break  # one column, wider than the terminal
        widths[longest] = max(least[longest], widths[longest] - over)
    return kept


def aligned(text: str, size: int, number: bool) -> str:
    """A cell of the terminal's table."""
    text = shorten(text, size)
    return text.rjust(size) if number else text.ljust(size)


def shorten(text: str, size: int) -> str:
    """Text of at most `size` characters; of a longer one its beginning and its end."""
    if len(text) <= size:
        return text
    end = (size - 1) * 2 // 3  # the ends of paths tell more
    return text[: size - 1 - end] + ELLIPSIS + text[len(text) - end :]


def as_markdown(groups: Sequence[Group]) -> str:
    """The table as Markdown of the GitHub kind."""
    columns = columns_for(groups)
    head, *rows = [[cell.replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in cells(groups, columns)]
    rule = ["---:" if one.number else "---" for one in columns]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))


def as_csv(groups: Sequence[Group]) -> str:
    """The table as CSV with raw numbers; always the same columns, then the options that differ."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    options = shown_options(groups)
    for number, group in enumerate(groups):
        row = {**flat_row(group), **{name: option_value(group, name) for name in options}}
        if number == 0:
            writer.writerow(row)
        writer.writerow(map(csv_value, row.values()))
    return stream.getvalue()


def csv_value(value: Any) -> Any:
    """Lists as words, numbers as they are; None is an empty cell."""
    return escape_control_chars(as_text(value)) if isinstance(value, (list, dict, bool, str)) else value


def flat_row(group: Group) -> dict[str, Any]:
    """The fixed columns of CSV."""
    measures = {"f1": group.f1(), "exact": group.exact(), "perplexity": group.perplexity()}
    measures |= {"best_epoch": group.best_epoch(), "train_seconds": group.train_seconds()}
    return {
        "task": group.first.task,
        "setup": group.first.setup,
        "status": group.first.status,
        "n": len(group.runs),
        **{f"{name}_{part}": vars(found)[part] for name, found in measures.items() for part in ("mean", "deviation")},
        "trainable": group.first.trainable(),
        "trainable_percent": trainable_percent(group),
        "seeds": " ".join(str(run.seed) for run in group.runs),
        "folders": " ".join(str(run.folder) for run in group.runs),
    }


def as_json(groups: Sequence[Group]) -> str:
    """A list of groups with raw numbers and every run's own; what is no number is null."""
    options = shown_options(groups)
    document = []
    for group in groups:
        flat = flat_row(group)
        flat |= {"options": {name: option_value(group, name) for name in options}}
        del flat["seeds"], flat["folders"]
        flat["runs"] = [
            {
                "folder": str(run.folder),
                "seed": run.seed,
                "status": run.status,
                "why": run.document.why,
                "f1": run.evaluation().eval_f1,
                "exact": run.evaluation().eval_exact,
                "perplexity": run.evaluation().eval_perplexity,
                "loss": run.evaluation().eval_loss,
                "best_epoch": run.best_epoch(),
                "train_seconds": run.train_seconds(),
            }
            for run in group.runs
        ]
        document.append(flat)
    text = json.dumps(finite(document), indent=2, ensure_ascii=False, allow_nan=False)
    return "".join(
        f"{escape_control_chars(line)}\n" for line in text.split("\n")
    )  # in JSON, \\uXXXX is the character itself


def finite(value: Any) -> Any:
    """A JSON value with null for NaN and infinities, which strict readers refuse."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

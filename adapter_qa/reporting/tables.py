"""The table of runs, one row per group, for a terminal and as CSV, Markdown or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from adapter_qa.core.errors import escape_control_chars
from adapter_qa.reporting.runs import MEASURES, REFERENCES, Group, MeanStd, differing_settings

GAP = "  "  # between the columns in a terminal
MIN_WIDTH, MIN_SETUP_WIDTH = 14, 30  # characters; Stack[mlm, Fuse[qa, ner]] has 25
LEARNING_RATE = "learning_rate"


@dataclass(frozen=True)
class Column:
    """A column of the table that people read.

    Attributes:
        text: Function that returns the text of a group's cell.
        is_number: Whether it is aligned to the right.
        priority: A narrow terminal omits the columns of the lowest priority first.
        min_width: Characters to which a narrow terminal may shorten long texts; 0 if they are never shortened.
    """

    heading: str
    text: Callable[[Group], str]
    is_number: bool = True
    priority: int = 0
    min_width: int = 0


def columns_for(groups: Sequence[Group]) -> list[Column]:
    """Return the columns that are not empty for these groups."""
    several_tasks = len({group.first.task for group in groups}) > 1
    columns = [
        *([Column("task", lambda group: group.first.task, False, 95)] if several_tasks else []),
        Column("setup", lambda group: group.first.setup, False, 100, MIN_SETUP_WIDTH),
        Column("F1", lambda group: _format_score(group.mean_std("f1")), True, 99),
        Column("EM", lambda group: _format_score(group.mean_std("exact")), True, 70),
        Column("perplexity", lambda group: _format_score(group.mean_std("perplexity")), True, 60),
        Column("n", lambda group: str(len(group.runs)), True, 90),
        Column("best epoch", _format_best_epoch, True, 40),
        Column("trainable", lambda group: _format(group.first.trainable(), ","), True, 45),
        Column("% of base", lambda group: _format(group.trainable_percent(), ".2f"), True, 20),
        *map(_option_column, _option_names(groups)),
        Column("train time", lambda group: format_duration(group.mean_std("train_seconds").mean), True, 30),
        Column("status", lambda group: group.first.status, False, 98),
        Column("folder", _format_folder, False, 85, MIN_WIDTH),
    ]
    return [column for column in columns if any(column.text(group) for group in groups)]


def _option_names(groups: Sequence[Group]) -> list[str]:
    return [LEARNING_RATE, *(name for name in differing_settings(groups) if name != LEARNING_RATE)]


def _option_column(name: str) -> Column:
    """Return the column of an option. A learning rate is empty where nothing was trained."""

    def text(group: Group) -> str:
        if name == LEARNING_RATE and not group.first.trained:
            return ""
        return _format_value(_option_value(group, name))

    return Column(name, text, False, 80 if name == LEARNING_RATE else 50, MIN_WIDTH)


def _option_value(group: Group, name: str) -> Any:
    """Return the value of an option of the first run; paths are those of its command line."""
    return group.first.document.options.get(name) if name in REFERENCES else group.settings.get(name)


def _format(number: float | None, spec: str) -> str:
    return "" if number is None else format(number, spec)


def _format_score(score: MeanStd) -> str:
    return _format(score.mean, ".2f") + ("" if score.deviation is None else f" ± {score.deviation:.2f}")


def _format_best_epoch(group: Group) -> str:
    return _format(group.mean_std("best_epoch").mean, ".2f").rstrip("0").rstrip(".")


def _format_value(value: Any) -> str:
    """Return a JSON value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return " ".join(map(_format_value, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def format_duration(duration: float | None) -> str:
    """Return seconds as 12 s, 3:05 or 2:03:05 (hours first)."""
    if duration is None:
        return ""
    minutes, seconds = divmod(round(duration), 60)
    if not minutes:
        return f"{seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _format_folder(group: Group) -> str:
    return str(group.first.folder) + (f" +{len(group.runs) - 1}" if len(group.runs) > 1 else "")


def table_rows(groups: Sequence[Group], columns: Sequence[Column]) -> list[list[str]]:
    """Return the cells of the table, headings first, with control characters escaped."""
    return [
        [column.heading for column in columns],
        *([escape_control_chars(column.text(group)) for column in columns] for group in groups),
    ]


def as_terminal(groups: Sequence[Group], width: int | None) -> tuple[str, list[str]]:
    """Return the table in aligned columns.

    Args:
        groups: The rows.
        width: Characters of a line; None for a pipe or a file, where nothing is shortened.

    Returns:
        The table, and the headings of the columns that were omitted because they did not fit.
    """
    columns = columns_for(groups)
    rows = table_rows(groups, columns)
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    shown = dict(enumerate(widths)) if width is None else _fit_columns(columns, widths, width)
    lines = []
    for row in rows:
        cells = [
            f"{shorten(row[index], size):{'>' if columns[index].is_number else '<'}{size}}"
            for index, size in shown.items()
        ]
        lines.append(GAP.join(cells).rstrip() + "\n")
    return "".join(lines), [column.heading for index, column in enumerate(columns) if index not in shown]


def _fit_columns(columns: Sequence[Column], widths: Sequence[int], line_width: int) -> dict[int, int]:
    """Omit columns of low priority, then shorten wide ones, until the table fits into a line.

    Returns:
        Characters of each column that is shown, by its index; at least one column.
    """
    shortest = [
        min(width, max(column.min_width, len(column.heading))) if column.min_width else width
        for column, width in zip(columns, widths, strict=True)
    ]
    shown = dict(enumerate(widths))
    while len(shown) > 1 and sum(shortest[index] + len(GAP) for index in shown) - len(GAP) > line_width:
        del shown[min(shown, key=lambda index: columns[index].priority)]
    while (excess := sum(width + len(GAP) for width in shown.values()) - len(GAP) - line_width) > 0:
        widest = max(shown, key=lambda index: shown[index] - shortest[index])
        if shown[widest] == shortest[widest]:
            break  # a single column, wider than the line
        shown[widest] = max(shortest[widest], shown[widest] - excess)
    return shown


def shorten(text: str, width: int) -> str:
    """Return a text of at most `width` characters; … replaces the middle of a longer one."""
    if len(text) <= width:
        return text
    end = (width - 1) * 2 // 3  # the end of a path says more than its beginning
    return text[: width - 1 - end] + "…" + text[len(text) - end :]


def as_markdown(groups: Sequence[Group]) -> str:
    """Return the table as GitHub Markdown."""
    columns = columns_for(groups)
    rows = [[cell.replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in table_rows(groups, columns)]
    rule = ["---:" if column.is_number else "---" for column in columns]
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], rule, *rows[1:]))


def as_csv(groups: Sequence[Group]) -> str:
    """Return the table as CSV with unrounded numbers: fixed columns, then the options that differ."""
    names = _option_names(groups)
    rows = [
        {
            **_raw_values(group),
            "seeds": " ".join(str(run.seed) for run in group.runs),
            "folders": " ".join(str(run.folder) for run in group.runs),
            **{name: _option_value(group, name) for name in names},
        }
        for group in groups
    ]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows(map(_csv_value, row.values()) for row in rows)
    return stream.getvalue()


def _csv_value(value: Any) -> Any:
    """Return numbers unchanged and other values as text; None makes an empty cell."""
    return escape_control_chars(_format_value(value)) if isinstance(value, (list, dict, bool, str)) else value


def _raw_values(group: Group) -> dict[str, Any]:
    """Return the values of a group that CSV and JSON share."""
    first = group.first
    values = {"task": first.task, "setup": first.setup, "status": first.status, "n": len(group.runs)}
    for name in ("f1", "exact", "perplexity", "best_epoch", "train_seconds"):
        values[f"{name}_mean"], values[f"{name}_deviation"] = group.mean_std(name)
    return values | {"trainable": first.trainable(), "trainable_percent": group.trainable_percent()}


def as_json(groups: Sequence[Group]) -> str:
    """Return a JSON list of groups with unrounded numbers and the values of every run; NaN and infinity are null."""
    names = _option_names(groups)
    document = []
    for group in groups:
        runs = [
            {"folder": str(run.folder), "seed": run.seed, "status": run.status, "why": run.document.why}
            | {name: measure(run) for name, measure in MEASURES.items()}
            for run in group.runs
        ]
        options = {name: _option_value(group, name) for name in names}
        document.append({**_raw_values(group), "options": options, "runs": runs})
    finite = json.loads(json.dumps(document), parse_constant=lambda constant: None)
    # Inside a JSON string, \uXXXX stands for the character, so that escaping changes no value.
    lines = json.dumps(finite, indent=2, ensure_ascii=False).split("\n")
    return "".join(f"{escape_control_chars(line)}\n" for line in lines)

"""The table of runs, one row per group of seeds, for a terminal and as CSV, Markdown or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from adapter_qa.core.errors import escape_control_chars
from adapter_qa.reporting.runs import REFERENCES, Group, MeanStd, differing_settings

ELLIPSIS = "…"
GAP = "  "  # between the columns in a terminal
MIN_WIDTH, MIN_SETUP_WIDTH = 14, 30  # characters; Stack[mlm, Fuse[qa, ner]] has 25
LEARNING_RATE = "learning_rate"


@dataclass(frozen=True)
class Column:
    """A column of the table that people read.

    Attributes:
        heading: Its heading.
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
        Column("F1", lambda group: format_score(group.f1()), True, 99),
        Column("EM", lambda group: format_score(group.exact()), True, 70),
        Column("perplexity", lambda group: format_score(group.perplexity()), True, 60),
        Column("n", lambda group: str(len(group.runs)), True, 90),
        Column("best epoch", lambda group: format_epoch(group.best_epoch()), True, 40),
        Column("trainable", lambda group: format_count(group.first.trainable()), True, 45),
        Column("% of base", format_trainable_percent, True, 20),
        *[option_column(name) for name in option_names(groups)],
        Column("train time", lambda group: format_duration(group.train_seconds()), True, 30),
        Column("status", lambda group: group.first.status, False, 98),
        Column("folder", format_folder, False, 85, MIN_WIDTH),
    ]
    return [column for column in columns if any(column.text(group) for group in groups)]


def option_names(groups: Sequence[Group]) -> list[str]:
    """Return the learning rate and the options in which the groups differ."""
    return [LEARNING_RATE, *(name for name in differing_settings(groups) if name != LEARNING_RATE)]


def option_column(name: str) -> Column:
    """Return the column of an option. A learning rate is empty where nothing was trained."""

    def text(group: Group) -> str:
        if name == LEARNING_RATE and not group.first.trained:
            return ""
        return format_value(option_value(group, name))

    return Column(name, text, False, 80 if name == LEARNING_RATE else 50, MIN_WIDTH)


def option_value(group: Group, name: str) -> Any:
    """Return the value of an option of the first run, paths as they were given."""
    return group.first.document.options.get(name) if name in REFERENCES else group.settings.get(name)


def format_score(score: MeanStd) -> str:
    """Return a mean with two decimals, and its standard deviation if there is one."""
    if score.mean is None:
        return ""
    return f"{score.mean:.2f}" + (f" ± {score.deviation:.2f}" if score.deviation is not None else "")


def format_epoch(epoch: MeanStd) -> str:
    """Return a mean epoch with up to two decimals."""
    return "" if epoch.mean is None else f"{epoch.mean:.2f}".rstrip("0").rstrip(".")


def format_count(count: int | None) -> str:
    """Return a whole number with separated thousands."""
    return "" if count is None else f"{count:,}"


def format_trainable_percent(group: Group) -> str:
    """Return the share of trained parameters with two decimals."""
    percent = group.trainable_percent()
    return "" if percent is None else f"{percent:.2f}"


def format_value(value: Any) -> str:
    """Return a JSON value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return " ".join(map(format_value, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def format_duration(duration: MeanStd) -> str:
    """Return seconds as 12 s, 3:05 or 2:03:05 (hours first)."""
    if duration.mean is None:
        return ""
    seconds = round(duration.mean)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def format_folder(group: Group) -> str:
    """Return the first run's folder and the number of further runs."""
    more = f" +{len(group.runs) - 1}" if len(group.runs) > 1 else ""
    return f"{group.first.folder}{more}"


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
    kept = dict(enumerate(widths)) if width is None else fit_columns(columns, widths, width)
    lines = [
        GAP.join(align(row[index], size, columns[index].is_number) for index, size in kept.items()).rstrip()
        for row in rows
    ]
    return "\n".join(lines) + "\n", [column.heading for index, column in enumerate(columns) if index not in kept]


def fit_columns(columns: Sequence[Column], widths: Sequence[int], line_width: int) -> dict[int, int]:
    """Omit columns of low priority and shorten wide ones until the rest fits into a line.

    Args:
        columns: All columns.
        widths: Characters that each column needs.
        line_width: Characters of a line.

    Returns:
        Characters of each column that is kept, by its index; at least one.
    """
    shortest = [
        min(width, max(column.min_width, len(column.heading))) if column.min_width else width
        for column, width in zip(columns, widths, strict=True)
    ]
    kept = dict(enumerate(widths))
    while len(kept) > 1 and sum(shortest[index] + len(GAP) for index in kept) - len(GAP) > line_width:
        del kept[min(kept, key=lambda index: columns[index].priority)]
    while (excess := sum(width + len(GAP) for width in kept.values()) - len(GAP) - line_width) > 0:
        widest = max(kept, key=lambda index: kept[index] - shortest[index])
        if kept[widest] == shortest[widest]:
            break  # a single column, wider than the line
        kept[widest] = max(shortest[widest], kept[widest] - excess)
    return kept


def align(text: str, width: int, is_number: bool) -> str:
    """Return a cell of the terminal's table."""
    text = shorten(text, width)
    return text.rjust(width) if is_number else text.ljust(width)


def shorten(text: str, width: int) -> str:
    """Return a text of at most `width` characters. A longer one loses its middle."""
    if len(text) <= width:
        return text
    end = (width - 1) * 2 // 3  # the end of a path says more than its beginning
    return text[: width - 1 - end] + ELLIPSIS + text[len(text) - end :]


def as_markdown(groups: Sequence[Group]) -> str:
    """Return the table as GitHub Markdown."""
    columns = columns_for(groups)
    rows = [[cell.replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in table_rows(groups, columns)]
    rule = ["---:" if column.is_number else "---" for column in columns]
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], rule, *rows[1:]))


def as_csv(groups: Sequence[Group]) -> str:
    """Return the table as CSV with unrounded numbers: fixed columns, then the options that differ."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = option_names(groups)
    for index, group in enumerate(groups):
        row = {
            **raw_values(group),
            "seeds": " ".join(str(run.seed) for run in group.runs),
            "folders": " ".join(str(run.folder) for run in group.runs),
            **{name: option_value(group, name) for name in names},
        }
        if index == 0:
            writer.writerow(row)
        writer.writerow(map(csv_value, row.values()))
    return stream.getvalue()


def csv_value(value: Any) -> Any:
    """Return numbers unchanged and other values as text; None makes an empty cell."""
    return escape_control_chars(format_value(value)) if isinstance(value, (list, dict, bool, str)) else value


def raw_values(group: Group) -> dict[str, Any]:
    """Return the values of a group that CSV and JSON share."""
    values: dict[str, Any] = {
        "task": group.first.task,
        "setup": group.first.setup,
        "status": group.first.status,
        "n": len(group.runs),
    }
    for name, measure in (
        ("f1", group.f1()),
        ("exact", group.exact()),
        ("perplexity", group.perplexity()),
        ("best_epoch", group.best_epoch()),
        ("train_seconds", group.train_seconds()),
    ):
        values |= {f"{name}_mean": measure.mean, f"{name}_deviation": measure.deviation}
    return values | {"trainable": group.first.trainable(), "trainable_percent": group.trainable_percent()}


def as_json(groups: Sequence[Group]) -> str:
    """Return a JSON list of groups with unrounded numbers and the values of every run; NaN and infinity are null."""
    names = option_names(groups)
    document = []
    for group in groups:
        runs = []
        for run in group.runs:
            evaluation = run.evaluation()
            runs.append(
                {
                    "folder": str(run.folder),
                    "seed": run.seed,
                    "status": run.status,
                    "why": run.document.why,
                    "f1": evaluation.eval_f1,
                    "exact": evaluation.eval_exact,
                    "perplexity": evaluation.eval_perplexity,
                    "loss": evaluation.eval_loss,
                    "best_epoch": run.best_epoch(),
                    "train_seconds": run.train_seconds(),
                }
            )
        options = {name: option_value(group, name) for name in names}
        document.append({**raw_values(group), "options": options, "runs": runs})
    text = json.dumps(replace_nonfinite(document), indent=2, ensure_ascii=False, allow_nan=False)
    # Inside a JSON string, \uXXXX means the character itself.
    return "".join(f"{escape_control_chars(line)}\n" for line in text.split("\n"))


def replace_nonfinite(value: Any) -> Any:
    """Return a JSON value with null for NaN and infinity, which strict readers refuse."""
    if isinstance(value, dict):
        return {key: replace_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [replace_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

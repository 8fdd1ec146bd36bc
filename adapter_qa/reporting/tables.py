"""The tables of runs, one row per group, for a terminal and as CSV, Markdown or JSON.

People read one table for each set of questions that groups were evaluated on. Its columns are the scores and what
differs between its rows; a line above it says what all rows share.
"""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from adapter_qa.core.errors import escape_control_chars
from adapter_qa.core.readable import file_size
from adapter_qa.data.bootstrap import FEW_CONTEXTS, Estimate
from adapter_qa.reporting.groups import BASE, REFERENCES, Group, MeanStd, differing_settings, same_evaluation
from adapter_qa.reporting.paired import PairedRow, ToBest
from adapter_qa.reporting.run_names import shortest_ends
from adapter_qa.reporting.runs import SEED_MEASURES

GAP = "  "  # between the columns in a terminal
TEXT_WIDTH = 14  # characters to which a column of texts may shrink in a narrow terminal
LEARNING_RATE = "learning_rate"
PATHS = ("train_file", "validation_file", "test_file")
LIMITS = ("max_train_samples", "max_steps")
NAMED_BY_TITLE = {  # by the split whose scores are compared; its data are always the "eval_data"
    "eval": ("validation_file", "eval_data", "max_eval_samples", "version_2_with_negative", "calibration_share"),
    "predict": ("test_file", "eval_data", "max_predict_samples", "version_2_with_negative"),
}
MAX_SEEDS = 5  # that a cell lists
NOT_DISTINGUISHABLE = "≈"
NOT_COMPARABLE = "Scores of different tables cannot be compared: the runs were evaluated on different data."


@dataclass(frozen=True)
class Column:
    """A column of a table that people read.

    Attributes:
        heading: A terminal breaks it at underscores and spaces.
        cells: Text of each row.
        priority: A narrow terminal omits the columns of the lowest priority first.
        is_number: Whether it is aligned to the right.
        min_width: Characters into which a narrow terminal may wrap the texts; 0 if they are never wrapped.
        is_result: Whether it is shown even if all rows have the same text.
    """

    heading: str
    cells: list[str]
    _: KW_ONLY
    priority: int = 0
    is_number: bool = True
    min_width: int = 0
    is_result: bool = False

    @property
    def shared(self) -> str | None:
        """The text of all rows that have one; None if there are several."""
        distinct = {cell for cell in self.cells if cell}
        return distinct.pop() if len(distinct) == 1 else None


@dataclass(frozen=True)
class Table:
    """Groups whose scores can be compared.

    Attributes:
        title: What they were evaluated on.
        shared: What all of them have in common, such as "seed 42; status failed".
        groups: The rows.
        columns: Those that are not empty and, except for results, not the same in all rows.
        footnotes: What the differences to the best row are, and why some rows have none.
    """

    title: str
    shared: str
    groups: list[Group]
    columns: list[Column]
    footnotes: list[str]

    @property
    def rows(self) -> list[list[str]]:
        """The texts of the rows."""
        return [list(cells) for cells in zip(*(column.cells for column in self.columns), strict=True)]


def make_tables(groups: Sequence[Group], *, short: bool = True) -> list[Table]:
    """Make a table of all groups that were evaluated on the same questions. Control characters are escaped.

    Args:
        groups: In their order.
        short: Whether folders and files are shown by the part that differs, and not as paths.
    """
    options = list(dict.fromkeys([*_option_names(groups), BASE, PATHS[0]]))
    named = {name for group in groups for name in NAMED_BY_TITLE[group.first.split]}
    options = [name for name in options if name not in named]
    tables = []
    for members in same_evaluation(groups):
        columns = _result_columns(members, short)
        place = [column.heading for column in columns].index("trainable")
        columns[place:place] = [_option_column(name, members, groups, short) for name in options]
        differences, footnotes = _difference_columns(members)
        divided = [group for group in members if group.first.folds is not None and group.first.finished]
        footnotes += [escape_control_chars(_explain_folds(group)) for group in divided]
        for after, column in differences.items():
            columns.insert([column.heading for column in columns].index(after) + 1, column)
        columns = [column for column in columns if any(column.cells)]
        shown = [column for column in columns if column.is_result or column.shared is None]
        shared = [f"{column.heading} {column.shared}" for column in columns if column not in shown]
        prefix = "all rows: " if len(members) > 1 and shared else ""
        title = escape_control_chars(f"evaluated on {members[0].first.describe_evaluation()}")
        tables.append(Table(title, prefix + "; ".join(shared), members, shown, footnotes))
    return tables


def _difference_columns(groups: Sequence[Group]) -> tuple[dict[str, Column], list[str]]:
    """Return columns of the differences to the best row by the heading they follow, and footnotes to them."""
    finished = [group for group in groups if group.is_compared]
    if len(finished) < 2:
        return {}, []
    best, *others = finished
    if best.not_compared:
        return {}, [escape_control_chars(f"no differences to the best row: {best.not_compared}")]
    if best.paired is None:
        return {}, []
    reasons = list(dict.fromkeys(group.not_compared for group in others if group.not_compared))

    def cells(measure: Callable[[ToBest], Estimate]) -> list[str]:
        texts = {best.number: "best"}
        for group in others:
            if group.paired is not None and group.paired.to_best is not None:
                texts[group.number] = format_difference(measure(group.paired.to_best))
            else:
                texts[group.number] = f"({1 + reasons.index(group.not_compared)})"
        return [texts.get(group.number, "") for group in groups]

    footnotes = [f"({number}) not compared: {reason}" for number, reason in enumerate(reasons, 1)]
    if any(group.paired for group in others):
        footnotes.insert(0, _explain_differences(best.paired))
    return {
        "F1": Column("F1 to best", cells(lambda to_best: to_best.f1), priority=91, is_result=True),
        "EM": Column("EM to best", cells(lambda to_best: to_best.exact), priority=60, is_result=True),
    }, [escape_control_chars(footnote) for footnote in footnotes]


def _explain_differences(paired: PairedRow) -> str:
    text = (
        f"to best: difference to the best row [95 % interval: bootstrap over {paired.contexts:,} contexts, each with "
        f"its questions, {paired.questions:,} in all]; {NOT_DISTINGUISHABLE}: includes 0, not distinguishable from the "
        "best row"
    )
    return f"{text}; with so few contexts the interval is too narrow" if paired.contexts < FEW_CONTEXTS else text


def _explain_folds(group: Group) -> str:
    """Say what a row that is a cross-validation has as its scores; intervals are those of its first seed."""
    first, scores = group.first, group.first.evaluation()
    text = f"{group.name}: {first.folds} folds, all answers together"
    if scores.eval_f1 is None or scores.eval_f1_fold_mean is None or scores.eval_f1_fold_deviation is None:
        return text
    of_seed = f" of seed {group.seeds[0]}" if len(group.runs) > 1 else ""
    text += f"; F1{of_seed} {scores.eval_f1:.1f}"
    if scores.eval_f1_low is not None and scores.eval_f1_high is not None:
        text += f" [{scores.eval_f1_low:.1f}, {scores.eval_f1_high:.1f}]"
    return f"{text}, over folds {scores.eval_f1_fold_mean:.1f} ± {scores.eval_f1_fold_deviation:.1f}"


def _result_columns(groups: Sequence[Group], short: bool) -> list[Column]:
    def cells(text: Callable[[Group], str]) -> list[str]:
        return [escape_control_chars(text(group)) for group in groups]

    statuses = cells(lambda group: group.first.status)
    return [
        Column(
            "setup",
            cells(lambda group: group.first.setup),
            priority=100,
            is_number=False,
            min_width=TEXT_WIDTH,
            is_result=True,
        ),
        Column("F1", cells(lambda group: format_score(group.mean_std("f1"))), priority=99, is_result=True),
        Column("EM", cells(lambda group: format_score(group.mean_std("exact"))), priority=70, is_result=True),
        Column(
            "perplexity", cells(lambda group: format_score(group.mean_std("perplexity"))), priority=99, is_result=True
        ),
        Column("seed", cells(_format_seeds), priority=82),
        Column("best epoch", cells(_format_best_epoch), priority=40, is_result=True),
        Column("trainable", cells(lambda group: _format(group.first.trainable(), ",")), priority=45),
        Column("% of base", cells(lambda group: _format(group.trainable_percent(), ".2f")), priority=20),
        Column(
            "train time",
            cells(lambda group: format_duration(group.mean_std("train_seconds").mean)),
            priority=30,
            is_result=True,
        ),
        Column("memory", cells(lambda group: _format_bytes(group.mean_std("memory_bytes").mean)), priority=15),
        Column("saved", cells(lambda group: _format_bytes(group.mean_std("saved_bytes").mean)), priority=16),
        Column("status", statuses if {*statuses} != {"finished"} else [], priority=98, is_number=False),
        Column(
            "folder",
            cells(lambda group: group.name if short else _format_folder(group)),
            priority=90,
            is_number=False,
            min_width=TEXT_WIDTH,
            is_result=True,
        ),
    ]


def _option_column(name: str, members: Sequence[Group], groups: Sequence[Group], short: bool) -> Column:
    """Return the column of an option. The options of a training are empty where nothing was trained."""
    short_paths = {}
    if short and name in PATHS:
        paths = sorted({str(group.settings[name]) for group in groups if name in group.settings})
        short_paths = dict(zip(paths, shortest_ends(paths), strict=True))
    cells = []
    for group in members:
        value = _option_value(group, name)
        empty = value is None or (name in (LEARNING_RATE, *PATHS) and not group.first.trained)
        text = "" if empty else _format_value(value)
        cells.append(escape_control_chars(short_paths.get(text, text)))
    if len({*cells}) > 1 and name not in (LEARNING_RATE, *PATHS):
        cells = [cell or "-" for cell in cells]
    # Adapters are named by the setup too; an option with many values says more than one with two.
    priority = 92 if name in (LEARNING_RATE, *LIMITS) else 50 if name in REFERENCES else 80 + min(len({*cells}), 9)
    return Column("base" if name == BASE else name, cells, priority=priority, is_number=False, min_width=TEXT_WIDTH)


def _option_value(group: Group, name: str) -> Any:
    """Return the value of an option of the first run; paths are those of its command line."""
    return group.first.document.options.get(name) if name in REFERENCES else group.settings.get(name)


def _option_names(groups: Sequence[Group]) -> list[str]:
    return [LEARNING_RATE, *(name for name in differing_settings(groups) if name != LEARNING_RATE)]


def _format(number: float | None, spec: str) -> str:
    return "" if number is None else format(number, spec)


def format_score(score: MeanStd) -> str:
    """Return a score as people read it, such as 43.8 ± 0.5."""
    return _format(score.mean, ".1f") + ("" if score.deviation is None else f" ± {score.deviation:.1f}")


def format_difference(difference: Estimate) -> str:
    """Return a difference with its interval as people read it, such as −1.8 [−3.1, −0.4]."""
    value, low, high = (f"{number:+.1f}".replace("-", "−") for number in difference)
    return f"{NOT_DISTINGUISHABLE} " * difference.includes_zero + f"{value} [{low}, {high}]"


def _format_seeds(group: Group) -> str:
    return " ".join(group.seeds) if len(group.seeds) <= MAX_SEEDS else f"{len(group.seeds)} seeds"


def _format_best_epoch(group: Group) -> str:
    return _format(group.mean_std("best_epoch").mean, ".1f").removesuffix(".0")


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


def _format_bytes(size: float | None) -> str:
    """Return a size in words; empty if it is not known, or if nothing was saved."""
    return file_size(round(size)) if size else ""


def _format_folder(group: Group) -> str:
    return str(group.first.folder) + (f" +{len(group.runs) - 1}" if len(group.runs) > 1 else "")


def as_terminal(groups: Sequence[Group], width: int | None) -> tuple[str, list[str]]:
    """Return the tables in aligned columns.

    Args:
        groups: The rows.
        width: Characters of a line; None for a pipe or a file, where nothing is shortened or wrapped.

    Returns:
        The tables, and the headings of the columns that were omitted because they did not fit.
    """
    tables = make_tables(groups, short=width is not None)
    lines = _wrap(NOT_COMPARABLE, width) if len(tables) > 1 else []
    omitted: dict[str, None] = {}
    for table in tables:
        lines += [""] if lines else []
        for text in (table.title, table.shared):
            lines += [text] if width is None and text else textwrap.wrap(text, width or 1, break_on_hyphens=False)
        widths = _fit_columns(table.columns, width)
        omitted |= dict.fromkeys(column.heading for column in table.columns if column.heading not in widths)
        shown = [column for column in table.columns if column.heading in widths]
        for cells in zip(*([column.heading, *column.cells] for column in shown), strict=True):
            wrapped = [_wrap(cell, widths[column.heading]) for cell, column in zip(cells, shown, strict=True)]
            lines += _aligned(wrapped, shown, widths)
        for text in table.footnotes:
            lines += [text] if width is None else textwrap.wrap(text, width, break_on_hyphens=False)
    return "".join(line + "\n" for line in lines), list(omitted)


def _aligned(cells: list[list[str]], columns: Sequence[Column], widths: dict[str, int]) -> list[str]:
    """Return the lines of one row of wrapped cells."""
    return [
        GAP.join(
            f"{cell[line] if line < len(cell) else '':{'>' if column.is_number else '<'}{widths[column.heading]}}"
            for cell, column in zip(cells, columns, strict=True)
        ).rstrip()
        for line in range(max(map(len, cells)))
    ]


def _fit_columns(columns: Sequence[Column], line_width: int | None) -> dict[str, int]:
    """Omit columns of low priority, then narrow wide ones, until the table fits into a line.

    Returns:
        Characters of each column that is shown, by its heading; at least one column.
    """
    if line_width is None:
        return {column.heading: max(map(len, (column.heading, *column.cells))) for column in columns}
    shown, shortest = {}, {}
    for column in columns:
        # A heading wraps where that makes the column narrower.
        parts = max(map(len, _pieces(column.heading)))
        shown[column.heading] = max(parts, *map(len, column.cells))
        shortest[column.heading] = max(parts, min(shown[column.heading], column.min_width or line_width))
    priorities = {column.heading: column.priority for column in columns}
    while len(shown) > 1 and sum(shortest[name] + len(GAP) for name in shown) - len(GAP) > line_width:
        del shown[min(shown, key=lambda name: priorities[name])]
    while (excess := sum(width + len(GAP) for width in shown.values()) - len(GAP) - line_width) > 0:
        widest = max(shown, key=lambda name: shown[name] - shortest[name])
        if shown[widest] == shortest[widest]:
            break  # a single column, wider than the line
        shown[widest] = max(shortest[widest], shown[widest] - max(1, excess // 2))
    return shown


def _pieces(text: str) -> list[str]:
    """Split a text after spaces, underscores and slashes."""
    return re.findall(r"[^ _/]*[ _/]|[^ _/]+", text)


def _wrap(text: str, width: int | None) -> list[str]:
    """Return the lines of a text of at most `width` characters; paths break at slashes and underscores."""
    if width is None or len(text) <= width:
        return [text] if text else []
    lines = [""]
    for piece in _pieces(text):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]


def as_markdown(groups: Sequence[Group]) -> str:
    """Return the tables as GitHub Markdown."""
    tables = make_tables(groups, short=False)
    paragraphs = [NOT_COMPARABLE] if len(tables) > 1 else []
    for table in tables:
        rows = [[column.heading for column in table.columns]]
        rows += [["---:" if column.is_number else "---" for column in table.columns]]
        rows += [[cell.replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in table.rows]
        paragraphs += [table.title, table.shared, "\n".join(f"| {' | '.join(row)} |" for row in rows)]
        paragraphs += table.footnotes
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def as_csv(groups: Sequence[Group]) -> str:
    """Return the table as CSV with unrounded numbers: fixed columns, then the options that differ."""
    names = _option_names(groups)
    rows = [
        {
            **_raw_values(group),
            "seeds": " ".join(group.seeds),
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
    for name in ("f1", "exact", "perplexity", "best_epoch", "train_seconds", "memory_bytes", "saved_bytes"):
        values[f"{name}_mean"], values[f"{name}_deviation"] = group.mean_std(name)
    values |= _raw_differences(group) | {"trainable": first.trainable(), "trainable_percent": group.trainable_percent()}
    return values | {"evaluated_on": first.describe_evaluation()}


def _raw_differences(group: Group) -> dict[str, Any]:
    """Return the differences to the best row, which are None without one, and the reason."""
    paired = group.paired
    to_best = None if paired is None else paired.to_best
    values: dict[str, Any] = {}
    for name, estimate in (("f1", to_best and to_best.f1), ("exact", to_best and to_best.exact)):
        parts = (f"{name}_to_best", f"{name}_to_best_low", f"{name}_to_best_high")
        values |= dict(zip(parts, estimate or (None, None, None), strict=True))
    values |= {"compared_questions": paired and paired.questions, "compared_contexts": paired and paired.contexts}
    return values | {"not_compared": group.not_compared or None}


def as_json(groups: Sequence[Group]) -> str:
    """Return a JSON list of groups with unrounded numbers and the values of every run; NaN and infinity are null."""
    names = _option_names(groups)
    document = []
    for group in groups:
        runs = [
            {"folder": str(run.folder), "seed": run.seed, "status": run.status, "why": run.document.why}
            | {name: measure(run) for name, measure in SEED_MEASURES.items()}
            for run in group.runs
        ]
        options = {name: _option_value(group, name) for name in names}
        document.append({**_raw_values(group), "options": options, "runs": runs})
    finite = json.loads(json.dumps(document), parse_constant=lambda constant: None)
    # Inside a JSON string, \uXXXX stands for the character, so that escaping changes no value.
    lines = json.dumps(finite, indent=2, ensure_ascii=False).split("\n")
    return "".join(f"{escape_control_chars(line)}\n" for line in lines)

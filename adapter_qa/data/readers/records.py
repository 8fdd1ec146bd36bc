"""A record of any source, before it is checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Record:
    """An unchecked record of a file or data set.

    Attributes:
        where: position in the source, such as `data[3].paragraphs[0].qas[2]`, `line 7` or `row 12`.
        fields: a flat object by column or key; any JSON value if the source is malformed here.
        problem: why the record cannot be read; empty if it can.
    """

    where: str
    fields: Any
    problem: str = ""


class TableRows(NamedTuple):
    """The rows of a table or data set.

    Attributes:
        records: one for each row, read while they are taken.
        class_names: the names of integer classes, by the column whose values (or lists of values) are such integers.
    """

    records: Iterable[Record]
    class_names: dict[str, tuple[str, ...]]


def class_names(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the names of classes by column, from features as `datasets` writes them."""
    names = {}
    for column, feature in features.items():
        inner = feature
        while isinstance(inner, list) or (isinstance(inner, dict) and isinstance(inner.get("feature"), (list, dict))):
            inner = (inner or [None])[0] if isinstance(inner, list) else inner["feature"]
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and isinstance(inner.get("names"), list):
            names[column] = tuple(map(str, inner["names"]))
    return names

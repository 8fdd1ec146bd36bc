"""Fields of dataclasses that are command-line options: help text, kind and limits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from adapter_qa.config.training_options import LibraryTrainingOptions
from adapter_qa.core.files import is_text

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """The values that a numeric option may have. None leaves a side open; `above` and `below` are excluded."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None

    def allow(self, value: float) -> bool:
        """Return whether a value lies within the limits."""
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Return the limits in words, e.g. "above 0 and at most 1"."""
        if self.minimum is not None and self.maximum is not None:
            return f"between {self.minimum:.10g} and {self.maximum:.10g}"
        words = {"at least": self.minimum, "above": self.above, "at most": self.maximum, "below": self.below}
        return " and ".join(f"{word} {limit:.10g}" for word, limit in words.items() if limit is not None)


NOT_NEGATIVE = Limits(minimum=0)
AT_LEAST_ONE = Limits(minimum=1)
COUNT = Limits(minimum=1, maximum=2**20 - 1)  # what a saved folder records, `models.metadata.Count`
SHARE = Limits(minimum=0, maximum=1)
SHARE_BELOW_ONE = Limits(minimum=0, below=1)
SEED = Limits(minimum=0, maximum=2**32 - 1)  # what numpy accepts


def option(
    default: T,
    help_text: str,
    *,
    kind: str | None = None,
    limits: Limits | None = None,
    choices: tuple[str, ...] | None = None,
    before: Any = MISSING,
) -> T:
    """Return a dataclass field that is a command-line option; --help adds its kind, default and limits to the text.

    Args:
        default: the value if the option is not given.
        help_text: what the option does.
        kind: what stands for the value in --help, such as its unit: TOKENS, PATH. Without it the type's.
        limits: of a number.
        choices: the words that it takes.
        before: the value, as in run.json, that versions without this option used. Every option that version 0.2.0
            lacks needs one.
    """
    entries = {"help": help_text, "metavar": kind, "limits": limits, "choices": choices}
    metadata = {key: entry for key, entry in entries.items() if entry is not None}
    return field(default=default, metadata=metadata if before is MISSING else {**metadata, "before": before})


def values_before(groups: Iterable[Any]) -> dict[str, Any]:
    """Return the values `before` of some dataclasses, by the name of the option."""
    options = [option for group in groups for option in fields(group)]
    return {option.name: option.metadata["before"] for option in options if "before" in option.metadata}


def field_problems(groups: Iterable[Any]) -> list[str]:
    """Return the problems of single values in option dataclasses: not allowed, not finite, or not to be recorded."""
    problems = []
    for group in groups:
        for option in fields(group):
            value = getattr(group, option.name)
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, float) and not math.isfinite(item):
                    problems.append(f"--{option.name} {item}: must be a finite number")
                if isinstance(item, str) and ("\0" in item or not is_text(item)):
                    problems.append(
                        f"--{option.name} {item}: has a NUL character or is not UTF-8, and cannot be recorded"
                    )
            limits = option.metadata.get("limits")
            if limits is not None and value is not None and math.isfinite(value) and not limits.allow(value):
                problems.append(f"--{option.name} {value:.10g}: must be {limits}")
    return problems


def library_option(name: str, *, kind: str | None = None, limits: Limits) -> Any:
    """Return a field of `LibraryTrainingOptions` with limits added."""
    original = LibraryTrainingOptions.__dataclass_fields__[name]
    return option(original.default, original.metadata["help"], kind=kind, limits=limits)


def file_option(help_text: str) -> list[str] | None:
    """Return an option that names data files. run.json records a single one as plain text, as earlier versions did."""
    return option(None, help_text, kind="FILE")


def limit_option(verb: str, unit: str) -> int | None:
    """Return an option that limits how many examples of a file are used."""
    return option(None, f"{verb} the first N {unit} only.", limits=AT_LEAST_ONE)

"""Print adapter_qa/config/training_options.py, made from the installed `transformers.TrainingArguments`.

python tests/support/generate_training_options.py > adapter_qa/config/training_options.py
"""

from __future__ import annotations

import json
import re
import typing
from dataclasses import MISSING, Field, fields
from enum import Enum
from types import NoneType
from typing import Any

from transformers import TrainingArguments

LEFT_OUT = ("_n_gpu", "parallelism_config")  # set by the class itself; an object that no command line can name
LINE_LENGTH = 120
HEADER = '''\
"""The options of `transformers.TrainingArguments`, without the seconds that importing the library takes.

Generated: python tests/support/generate_training_options.py > adapter_qa/config/training_options.py
"""

# ruff: noqa: D101, RUF009, RUF036 - enumerations of the library, whose parser looks at the order of a union

from dataclasses import MISSING, dataclass, field
from enum import StrEnum
from typing import Any


def _option(default: Any, help_text: str, *, default_factory: Any = MISSING, **metadata: Any) -> Any:
    return field(default=default, default_factory=default_factory, metadata={"help": help_text, **metadata})
'''
CLASS = '''

@dataclass(frozen=True)
class LibraryTrainingOptions:
    """The fields of `transformers.TrainingArguments`: names, types, defaults and help texts are the library's."""

'''


def generate() -> str:
    """Return the text of the module, formatted as `ruff format` leaves it."""
    hints = typing.get_type_hints(TrainingArguments)
    options = [option for option in fields(TrainingArguments) if option.name not in LEFT_OUT]
    enumerations: dict[str, type[Enum]] = {}
    for option in options:
        collect_enumerations(hints[option.name], enumerations)
    classes = "".join(enumeration_text(enumerations[name]) for name in sorted(enumerations))
    return HEADER + classes + CLASS + "".join(field_text(option, hints[option.name]) for option in options)


def collect_enumerations(annotation: Any, enumerations: dict[str, type[Enum]]) -> None:
    """Add the enumerations that a type is made of to `enumerations`, by name."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        enumerations[annotation.__name__] = annotation
    for part in typing.get_args(annotation):
        collect_enumerations(part, enumerations)


def enumeration_text(enumeration: type[Enum]) -> str:
    """Return the definition of an enumeration with the same members."""
    members = "".join(f"    {member.name} = {literal(member.value)}\n" for member in enumeration)
    return f"\n\nclass {enumeration.__name__}(StrEnum):\n{members}"


def annotation_text(annotation: Any) -> str:
    """Return a type as source text; the parts of a union keep their order, which the library's parser looks at."""
    if annotation is NoneType:
        return "None"
    if annotation is dict:
        return "dict[str, Any]"
    if annotation is Any:
        return "Any"
    parts = [annotation_text(part) for part in typing.get_args(annotation)]
    origin = typing.get_origin(annotation)
    if origin is None:
        return str(annotation.__name__)
    if origin is typing.Union:
        return " | ".join(parts)
    return f"{origin.__name__}[{', '.join(parts)}]"


def field_text(option: Field[Any], annotation: Any) -> str:
    """Return the definition of one field, on one line if it fits."""
    declaration = f"    {option.name}: {annotation_text(annotation)} = _option("
    default = "MISSING" if option.default is MISSING else literal(option.default)
    arguments = [default, literal(option.metadata["help"])]
    if option.default_factory is not MISSING:
        arguments.append(f"default_factory={type(option.default_factory()).__name__}")
    if "choices" in option.metadata:
        arguments.append(f"choices=({', '.join(map(literal, option.metadata['choices']))})")
    joined = ", ".join(arguments)
    if len(f"{declaration}{joined})") <= LINE_LENGTH:
        return f"{declaration}{joined})\n"
    if len(f"        {joined}") <= LINE_LENGTH:
        return f"{declaration}\n        {joined}\n    )\n"
    arguments[1] = wrapped(option.metadata["help"])
    lines = "".join(f"        {argument},\n" for argument in arguments)
    return f"{declaration}\n{lines}    )\n"


def wrapped(text: str) -> str:
    """Return a help text as source text, in several parts if it is too long for a line."""
    if len(f"        {literal(text)},") <= LINE_LENGTH:
        return literal(text)
    parts = [""]
    for piece in re.findall(r"\S+|\s+", text):
        if len(" " * 8 + literal(parts[-1] + piece)) > LINE_LENGTH:
            parts.append("")
        parts[-1] += piece
    return "\n        ".join(map(literal, parts))


def literal(value: Any) -> str:
    """Return a value as source text, strings in double quotes unless that takes more escapes."""
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, str):
        return repr(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if '"' not in value or "'" in value else repr(value)


if __name__ == "__main__":
    print(generate(), end="")

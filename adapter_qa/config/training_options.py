"""The options of `transformers.TrainingArguments`, and the parser made for them, without what importing them costs.

`import transformers` loads torch, 2 to 3 seconds that --help and a mistyped option should not take. So the parser's
file is loaded by itself (it needs the standard library and yaml alone), and the options are read from the library's
source, where names, types, defaults and help are literals. `tests/test_arguments.py` holds them against the class.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import field, make_dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Union

from adapter_qa.core.errors import UserError

PACKAGE = "transformers"
CLASS = "TrainingArguments"
# Where the class stands, and the files of the enumerations that its options are of.
SOURCE = "training_args.py"
ENUMERATIONS = (SOURCE, "trainer_utils.py", "debug_utils.py")
NOT_ON_A_COMMAND_LINE = ("_n_gpu", "parallelism_config")  # set by the class itself; an object
PLAIN_TYPES: dict[str, Any] = {one.__name__: one for one in (bool, int, float, str, list, dict)} | {"None": None}


def package_folder() -> Path:
    """Where transformers is installed; nothing of it is run.

    Raises:
        UserError: it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{PACKAGE} is not installed; pip install -r requirements.txt")
    return Path(spec.submodule_search_locations[0])


def parser_module() -> ModuleType:
    """transformers' `hf_argparser`, loaded as a module of its own."""
    spec = importlib.util.spec_from_file_location("hf_argparser", package_folder() / "hf_argparser.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def training_options() -> type:
    """A dataclass with the fields of `TrainingArguments`, without its methods.

    A default that is computed when the library is imported is None here, which stands for "the library's own".
    """
    folder = package_folder()
    trees = {name: ast.parse((folder / name).read_text(encoding="utf-8")) for name in ENUMERATIONS}
    known: dict[str, Any] = {"Optional": Optional, "Union": Union, "Any": Any}
    for tree in trees.values():
        known |= _enumerations(tree)
    body = next(node for node in trees[SOURCE].body if isinstance(node, ast.ClassDef) and node.name == CLASS).body
    fields = [
        _field(node, known)
        for node in body
        if isinstance(node, ast.AnnAssign) and _name(node) not in NOT_ON_A_COMMAND_LINE
    ]
    return make_dataclass("LibraryOptions", fields)


def _enumerations(tree: ast.Module) -> dict[str, type[Enum]]:
    """The enumerations of text that a file defines, by name."""
    found: dict[str, type[Enum]] = {}
    for node in tree.body:
        if not (isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "ExplicitEnum" for base in node.bases)):
            continue
        members = {
            ast.unparse(one.targets[0]): ast.literal_eval(one.value) for one in node.body if isinstance(one, ast.Assign)
        }
        found[node.name] = Enum(node.name, members, type=str)  # type: ignore[assignment]
    return found


def _name(node: ast.AnnAssign) -> str:
    return ast.unparse(node.target)


def _field(node: ast.AnnAssign, known: dict[str, Any]) -> tuple[str, Any, Any]:
    """Name, type and `dataclasses.field` of one option; its annotation is made of names that are known alone."""
    annotation = eval(ast.unparse(node.annotation), {"__builtins__": {}}, {**PLAIN_TYPES, **known})
    assert isinstance(node.value, ast.Call)
    words = {str(one.arg): one.value for one in node.value.keywords}
    about = words["metadata"]
    assert isinstance(about, ast.Dict)
    metadata = {
        ast.literal_eval(key): ast.literal_eval(value)
        for key, value in zip(about.keys, about.values, strict=True)
        if key is not None and _is_literal(value)
    }
    metadata.setdefault("help", "")
    if "default_factory" in words:
        factory = PLAIN_TYPES[ast.unparse(words["default_factory"])]
        return _name(node), annotation, field(default_factory=factory, metadata=metadata)
    default = ast.literal_eval(words["default"]) if _is_literal(words["default"]) else None
    return _name(node), annotation, field(default=default, metadata=metadata)


def _is_literal(node: ast.expr) -> bool:
    """Whether nothing has to be run to know its value."""
    return not any(isinstance(one, (ast.Name, ast.Call, ast.Attribute, ast.JoinedStr)) for one in ast.walk(node))

"""Write `answer.py` of an exported model: one file made of the modules that find the answers everywhere else."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Collection
from importlib.resources import files

PACKAGE = "adapter_qa"
# Each module stands before those that import it. Of squad.py only two definitions are needed.
MODULES: dict[str, Collection[str] | None] = {
    "core/errors.py": None,
    "data/labels.py": None,
    "data/squad.py": {"Question", "is_aligned"},
    "data/windows.py": None,
    "data/spans.py": None,
    "inference/export_layout.py": None,
    "inference/exported_model.py": None,
}
HEAD = f'''\
"""Answer a question with the model in this folder: python answer.py QUESTION CONTEXT

Prints the answer, or an empty line if the context contains none. Needs numpy, onnxruntime and tokenizers.
Written by export_qa.py from modules of {PACKAGE}.
"""

from __future__ import annotations
'''


def answer_script() -> str:
    """Return the source of `answer.py`: the modules one after the other, with their external imports at the top."""
    imports: list[ast.stmt] = []
    parts = []
    for module, names in MODULES.items():
        source = files(PACKAGE).joinpath(module).read_text(encoding="utf-8")
        tree = ast.parse(source)
        summary = (ast.get_docstring(tree) or "").split("\n")[0]
        if names is None:
            imports += [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
            code = _without_imports(source, tree)
        else:
            code = "\n\n\n".join(_definition(source, node) for node in tree.body if _name(node) in names)
        parts.append(f"# {module}: {summary}\n\n{code}")
    return "\n\n\n".join([f"{HEAD}\n{_external(imports)}", *parts]) + "\n"


def _external(imports: list[ast.stmt]) -> str:
    """Return the source of the imports from other packages, one for each of their modules."""
    plain: set[str] = set()
    names: defaultdict[str, set[str]] = defaultdict(set)
    for node in imports:
        if isinstance(node, ast.Import):
            plain.add(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] not in (PACKAGE, "__future__"):
            names[str(node.module)] |= {ast.unparse(alias) for alias in node.names}
    return "\n".join(
        [*sorted(plain), *(f"from {name} import {', '.join(sorted(names[name]))}" for name in sorted(names))]
    )


def _without_imports(source: str, tree: ast.Module) -> str:
    """Return the source of a module without its docstring and its imports."""
    removed = {
        number
        for node in tree.body
        if node is tree.body[0] or isinstance(node, ast.Import | ast.ImportFrom)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate(source.splitlines(), start=1)
    return "\n".join(line for number, line in lines if number not in removed).strip()


def _name(node: ast.stmt) -> str | None:
    """Return the name of a class or function that a statement defines."""
    return node.name if isinstance(node, ast.ClassDef | ast.FunctionDef) else None


def _definition(source: str, node: ast.stmt) -> str:
    """Return the source of a class or function with its decorators."""
    decorators = node.decorator_list if isinstance(node, ast.ClassDef | ast.FunctionDef) else []
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])

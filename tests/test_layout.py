"""The shape of the project, read from its source: which file may import which, and what no file may contain.

Doors are the scripts at the top level; between them and the rooms (modules of adapter_qa) stand trainer_qa.py and
predictor_qa.py over utils_qa.py. Imports point one way only.
"""

from __future__ import annotations

import ast
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "adapter_qa"
BETWEEN = ("trainer_qa", "predictor_qa", "utils_qa")
SHADOWING = {"adapters", "datasets", "evaluate", "tokenizers", "types"}  # the top level is on the path
LONGEST_FUNCTION = 60
# Around libraries without a closed set of errors.
EVERYTHING_CAUGHT = [
    *["adapter_qa/models/base_model.py"] * 3,
    *["adapter_qa/models/build.py"] * 2,
    "adapter_qa/data/squad.py",
    "adapter_qa/models/weights.py",
]

TOP = sorted(ROOT.glob("*.py"))
ROOMS = sorted((ROOT / PACKAGE).rglob("*.py"))
FILES = TOP + ROOMS
DOORS = {path.stem for path in TOP} - set(BETWEEN)
TREES = {path: ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in FILES}
FUNCTIONS = [
    (path, node)
    for path, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    """`trainer_qa`, `adapter_qa.squad`, ..."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST) -> set[str]:
    """Every module imported anywhere in a file, inside functions too; `from a import b` counts as a and as a.b."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


OURS = {module(path) for path in FILES}
IMPORTS = {module(path): imports(tree) & OURS for path, tree in TREES.items()}


def test_the_files_looked_at_are_all_there_are() -> None:
    assert {"run_qa_adapter", "run_mlm_adapter", "run_ner_adapter", "prepare_squad_pt", "ask_qa"} <= DOORS
    assert set(BETWEEN) <= OURS and len(ROOMS) >= 15 and len(FUNCTIONS) > 200
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    tracked = {line for line in listed.stdout.splitlines() if (ROOT / line).is_file()}  # none outside a checkout
    assert {line for line in tracked if "/" not in line or line.startswith(f"{PACKAGE}/")} <= {name(p) for p in FILES}


def test_the_reader_of_imports_sees_all_kinds() -> None:
    source = "import a.b as c\nfrom d import e, f\ndef g():\n    if 1:\n        from h.i import j\n        import k, l"
    assert imports(ast.parse(source)) == {"a.b", "d", "d.e", "d.f", "h.i", "h.i.j", "k", "l"}


@pytest.mark.parametrize("path", TOP, ids=name)
def test_imports_of_the_top_level_point_down(path: Path) -> None:
    allowed = {"trainer_qa": {"utils_qa"}, "predictor_qa": {"utils_qa"}, "utils_qa": set()}.get(path.stem, set(BETWEEN))
    strange = {one for one in IMPORTS[path.stem] if one not in allowed and one.split(".")[0] != PACKAGE}
    assert strange == set()


@pytest.mark.parametrize("path", ROOMS, ids=name)
def test_rooms_import_rooms_only(path: Path) -> None:
    assert {one for one in IMPORTS[module(path)] if one.split(".")[0] != PACKAGE} == set()


def test_there_are_no_circles() -> None:
    order = list(TopologicalSorter(IMPORTS).static_order())  # raises CycleError
    assert set(order) == OURS and order.index("adapter_qa.errors") < order.index("run_qa_adapter")


def test_doors_are_imported_by_tests_only() -> None:
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "." and path.name != "tests"]
    others = [*TOP, *(path for folder in folders for path in folder.rglob("*.py"))]
    assert set(FILES) <= set(others)
    importing = {name(path): imports(ast.parse(path.read_text(encoding="utf-8"))) & DOORS for path in others}
    assert {path: doors for path, doors in importing.items() if doors} == {}


def test_no_name_shadows_a_library() -> None:
    names = {path.stem for path in FILES} | {path.name for path in ROOT.iterdir() if path.is_dir()}
    names |= {path.stem for path in (ROOT / "tests").glob("*.py")}
    assert PACKAGE in names and names & SHADOWING == set()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(TREES[path])


def test_functions_are_short() -> None:
    sizes = [(name(path), node.name, (node.end_lineno or 0) - node.lineno + 1) for path, node in FUNCTIONS]
    assert [one for one in sizes if not 0 < one[2] <= LONGEST_FUNCTION] == []


def test_no_function_stands_inside_another() -> None:
    nested = [
        f"{name(path)}: {inner.name} in {outer.name}"
        for path, outer in FUNCTIONS
        for inner in ast.walk(outer)
        if inner is not outer and isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    ]
    assert nested == []


def caught(handler: ast.ExceptHandler) -> set[str]:
    """Names of the exceptions that a handler catches; "" for all."""
    if handler.type is None:
        return {""}
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {ast.unparse(one).split(".")[-1] for one in types}


def test_no_exception_is_swallowed() -> None:
    handlers = [
        (name(path), node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
    ]
    wide = [(path, node) for path, node in handlers if caught(node) & {"", "Exception", "BaseException"}]
    assert [path for path, _ in wide] == EVERYTHING_CAUGHT
    assert all(isinstance(node.body[-1], ast.Raise) for _, node in wide)
    assert [(path, node.lineno) for path, node in handlers if isinstance(node.body[0], ast.Pass)] == []


@pytest.mark.parametrize("path", [path for path in TOP if path.stem in DOORS], ids=name)
def test_doors_have_a_main_and_run_nothing_on_import(path: Path) -> None:
    body = TREES[path].body
    assert [node.name for node in body if isinstance(node, ast.FunctionDef)][0] == "main"
    last = body[-1]
    assert isinstance(last, ast.If) and ast.unparse(last) == (
        "if __name__ == '__main__':\n    sys.exit(run_door(main))"
    )
    quiet = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    for_types = [node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    assert all(isinstance(one, ast.ImportFrom | ast.Import) for node in for_types for one in node.body)
    loud = [node.lineno for node in body[1:-1] if not isinstance(node, quiet) and node not in for_types]
    assert loud == []

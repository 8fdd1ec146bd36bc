"""Structure of the project, read from its source: which package may import which."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from support.scripts import ROOT

PACKAGE = "adapter_qa"
# The other packages that each package may import; docs/architecture.md has a diagram.
ALLOWED = {
    "core": set[str](),
    "config": {"core"},
    "data": {"core"},
    "models": {"core", "config", "data"},
    "runs": {"core", "models"},
    "training": {"core", "config", "data", "models", "runs"},
    "inference": {"core", "data", "models"},
    "sweeps": {"core", "config", "runs"},
    "reporting": {"core", "config", "data", "models", "runs"},
}
# Modules at the top level that other modules may import, and what they import; all other modules are scripts.
LIBRARY_MODULES = {"trainer_qa": {"utils_qa"}, "predictor_qa": {"utils_qa"}, "utils_qa": set[str]()}
LIBRARY_NAMES = {"adapters", "datasets", "evaluate", "tokenizers", "types"}  # a module at the top level would hide them
# Modules that catch every exception, because a library's function may raise any.
BROAD_HANDLERS = [
    "adapter_qa/core/files.py",
    "adapter_qa/data/readers/dataset_library.py",
    "adapter_qa/inference/exported_model.py",
    "adapter_qa/models/base_model.py",
    "adapter_qa/models/build.py",
    "adapter_qa/models/saved_fusion.py",
    "adapter_qa/models/weights.py",
    "adapter_qa/training/workflow.py",
]

MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))
TOP_LEVEL = sorted(ROOT.glob("*.py"))
SCRIPTS = [path for path in TOP_LEVEL if path.stem not in LIBRARY_MODULES]
TREES = {path: ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in MODULES + TOP_LEVEL}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(tree: ast.AST) -> set[str]:
    """Every module imported anywhere in a file, inside functions too; `from a import b` counts as a and a.b."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


OWN = {module_name(path) for path in TREES}
IMPORTS = {module_name(path): imported(tree) & OWN for path, tree in TREES.items()}


def test_all_packages_and_tracked_files_are_covered() -> None:
    packages = {path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py")}
    assert packages == set(ALLOWED)
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    tracked = {line for line in listed.stdout.splitlines() if (ROOT / line).is_file()}  # empty outside a checkout
    program = {line for line in tracked if "/" not in line or line.startswith(f"{PACKAGE}/")}
    assert program <= {relative(path) for path in TREES}


def test_imported_finds_every_form_of_import() -> None:
    source = "import a.b as c\nfrom d import e, f\ndef g():\n    if 1:\n        from h.i import j\n        import k, l"
    assert imported(ast.parse(source)) == {"a.b", "d", "d.e", "d.f", "h.i", "h.i.j", "k", "l"}


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent.name in ALLOWED], ids=relative)
def test_packages_import_only_what_they_may(path: Path) -> None:
    package = path.parent.name
    targets = {name for name in IMPORTS[module_name(path)] - {PACKAGE} if name.count(".") != 1}
    allowed = {package, *ALLOWED[package]}
    assert {name for name in targets if "." not in name or name.split(".")[1] not in allowed} == set()


@pytest.mark.parametrize("path", TOP_LEVEL, ids=relative)
def test_top_level_modules_import_no_script(path: Path) -> None:
    allowed = LIBRARY_MODULES.get(path.stem, set(LIBRARY_MODULES))
    outside = {name for name in IMPORTS[path.stem] if name.split(".")[0] != PACKAGE}
    assert outside <= allowed


def test_imports_have_no_cycle() -> None:
    graph = {name: targets - {name, PACKAGE} for name, targets in IMPORTS.items() if name != PACKAGE}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index(f"{PACKAGE}.core.errors") < order.index("run_qa_adapter")


def test_only_tests_import_scripts() -> None:
    scripts = {path.stem for path in SCRIPTS}
    assert {"run_qa_adapter", "run_mlm_adapter", "run_ner_adapter", "prepare_squad_pt", "ask_qa"} <= scripts
    paths = [path for folder in ("benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")]
    importing = {relative(path): imported(ast.parse(path.read_text(encoding="utf-8"))) & scripts for path in paths}
    assert {path: names for path, names in importing.items() if names} == {}


def test_no_module_shadows_a_library() -> None:
    names = {path.stem for path in TREES} | {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert PACKAGE in names
    assert not names & LIBRARY_NAMES


def handlers() -> Iterator[tuple[str, ast.ExceptHandler]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                yield relative(path), node


def caught_names(handler: ast.ExceptHandler) -> set[str]:
    """Names of the exceptions that a handler catches; "" for all."""
    if handler.type is None:
        return {""}
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {ast.unparse(caught).split(".")[-1] for caught in types}


def test_no_exception_is_swallowed() -> None:
    broad = [(path, node) for path, node in handlers() if caught_names(node) & {"", "Exception", "BaseException"}]
    assert sorted(path for path, _ in broad) == BROAD_HANDLERS
    assert all(isinstance(node.body[-1], ast.Raise) for _, node in broad)
    assert [(path, node.lineno) for path, node in handlers() if isinstance(node.body[0], ast.Pass)] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=relative)
def test_scripts_begin_with_main_and_run_nothing_on_import(path: Path) -> None:
    body = TREES[path].body
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    assert (functions[0].name, functions[-1].name) == ("main", "command")
    assert (functions[0].end_lineno or 0) - functions[0].lineno < 60
    assert ast.unparse(body[-1]) == "if __name__ == '__main__':\n    sys.exit(command())"
    quiet = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    statements = [node for node in body[1:-1] if not isinstance(node, quiet)]
    assert all(isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" for node in statements)


def test_no_function_takes_more_than_six_parameters() -> None:
    """But the call that has the arguments of the pipeline which it replaces."""
    counts = {
        f"{relative(path)}:{node.lineno} {node.name}": len(
            [arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs) if arg.arg != "self"]
        )
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    many = {name.partition(":")[0]: count for name, count in counts.items() if count > 6}
    assert many == {"adapter_qa/inference/pipeline_call.py": 10}

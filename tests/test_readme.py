"""The documents: files, options and links that they name exist, and the README stays short."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.scripts import ROOT, run_main

import ask_qa
import convert_2021_adapters
import export_qa
import prepare_squad_pt
import report_qa
import sweep_qa
from adapter_qa.api import TrainingResult
from adapter_qa.config.parser import ConfigParser
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.data.answers import Candidate
from predictor_qa import Answer, QuestionAnswerer

MAX_README_LINES = 130
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "LOG.md", ROOT / "examples/sample"]
DOCUMENTS = [path / "README.md" if path.is_dir() else path for path in PAGES] + sorted((ROOT / "docs").glob("*.md"))
# First part of paths in commands that the reader has or that the command makes.
PLACEHOLDERS = {
    "outputs", "outputs_2021", "/shared", "data", "report", "squad-pt.tar.gz", "squad_v2_pt.json", "train.conll",
    "dev.conll", "train.json", "dev.json", "other.json", "table.csv", "table.md", "table.json", "answers.jsonl",
}  # fmt: skip
TRAINERS: dict[str, ConfigParser[Any]] = {
    "run_qa_adapter.py": ConfigParser(QARunConfig),
    "run_ner_adapter.py": ConfigParser(NERRunConfig),
    "run_mlm_adapter.py": ConfigParser(MLMRunConfig),
}
MAINS: dict[str, Callable[[list[str]], int]] = {
    "ask_qa.py": ask_qa.main,
    "convert_2021_adapters.py": convert_2021_adapters.main,
    "export_qa.py": export_qa.main,
    "prepare_squad_pt.py": prepare_squad_pt.main,
    "report_qa.py": report_qa.main,
    "sweep_qa.py": sweep_qa.main,
}
OTHER_PROGRAMS = {
    *("--slow", "--cpu", "--num_processes", "--multi_gpu", "--node_rank", "--nproc_per_node", "--debug"),
    *("--lr", "--batch_size", "--gpu"),
}
OPERATORS = {"|", "&", "&&", ";", "||"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"[\w./-]+/[\w./-]+|[\w-]+\.(py|sh|json|jsonl|yaml|md|txt|conll|csv|gz)")
SCRIPT = re.compile(r"(?:\./)?((?:[\w-]+/)*[\w-]+\.(?:py|sh))")
# Words that this project once used for its structure.
PRIVATE_WORDS = "doors?|rooms?|house"


@cache
def document(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def shell_commands(text: str) -> list[list[str]]:
    """Return the commands of the shell blocks of a document and of its inline code, as words."""
    lines = [
        line
        for language, block in FENCE.findall(text)
        if language == "bash"
        for line in block.replace("\\\n", " ").splitlines()
    ]
    lines += [code for code in INLINE.findall(FENCE.sub("", text)) if re.match(r"(python|bash|pip) ", code)]
    commands = []
    for line in lines:
        words = split_words(line)
        while words:
            end = next((index for index, word in enumerate(words) if word in OPERATORS), len(words))
            commands += [words[:end]] if end else []
            words = words[end + 1 :]
    return commands


def split_words(line: str) -> list[str]:
    """Split a line as the shell does. Quoted commands, as after --wrap= and bash -c, are split once more."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    return [
        part
        for word in lexer
        for part in (word.removeprefix("--wrap=").split() if SCRIPT.search(word) and " " in word else [word])
    ]


def script_and_options(command: list[str]) -> tuple[str, list[str]] | None:
    """Return the first script of this project in a command, and the options after it; None if there is none."""
    for index, word in enumerate(command):
        match = SCRIPT.fullmatch(word)
        if match is not None and (ROOT / match[1]).is_file():
            return match[1], [word.partition("=")[0] for word in command[index + 1 :] if word.startswith("--")]
    return None


@cache
def known_options(script: str) -> frozenset[str] | None:
    """Return the options of a script; None for a shell script that passes them on."""
    if script in TRAINERS:
        return frozenset(f"--{name}" for name in TRAINERS[script].known_names()) | {"--debug", "--help_all"}
    if script in MAINS:
        return frozenset(re.findall(r"--\w+", run_main(MAINS[script], "--help").stdout))
    text = (ROOT / script).read_text(encoding="utf-8")
    if script == "run_tests.sh":
        return frozenset(re.findall(r"--\w+", text + document(ROOT / "tests" / "conftest.py")))
    return frozenset(re.findall(r"--\w+", text)) | {"--help"}


def documents_with(pattern: str) -> list[Path]:
    return [path for path in DOCUMENTS if re.search(pattern, document(path), re.MULTILINE)]


def test_readme_is_short() -> None:
    assert len(document(ROOT / "README.md").splitlines()) <= MAX_README_LINES


def test_every_script_is_in_a_command() -> None:
    named = {found[0] for path in DOCUMENTS for c in shell_commands(document(path)) if (found := script_and_options(c))}
    scripts = {path.name for path in ROOT.glob("*.py")} - {"trainer_qa.py", "utils_qa.py", "predictor_qa.py"}
    assert scripts - named == set()


@pytest.mark.parametrize("path", documents_with("^```bash"), ids=lambda path: path.name)
def test_files_in_commands_exist(path: Path) -> None:
    missing = []
    for command in shell_commands(document(path)):
        for word in command:
            for name in (part for part in re.split(r"[=,\s]", word) if PATH.fullmatch(part)):
                first = "/shared" if name.startswith("/shared") else name.split("/")[0]
                if first not in PLACEHOLDERS and not (ROOT / name).exists() and not is_hub_id(word, command):
                    missing.append(name)
    assert missing == []


def is_hub_id(word: str, command: list[str]) -> bool:
    """Return whether a word is the value of an option that takes a hub id."""
    before = command[max(command.index(word) - 1, 0)]
    return before in ("--model_name_or_path", "--base", "--hub_model_id")


@pytest.mark.parametrize("path", documents_with(r"\w\.(py|sh)"), ids=lambda path: path.name)
def test_scripts_have_the_options_in_commands(path: Path) -> None:
    unknown = []
    for command in shell_commands(document(path)):
        found = script_and_options(command)
        known = known_options(found[0]) if found else None
        if found and known is not None:
            unknown += [f"{found[0]} {option}" for option in found[1] if option not in known]
    assert unknown == []


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name != "LOG.md"], ids=lambda path: path.name)
def test_options_in_the_text_exist(path: Path) -> None:
    known = {option for script in (*TRAINERS, *MAINS) for option in known_options(script) or ()}
    known |= OTHER_PROGRAMS
    text = FENCE.sub("", document(path))
    words = {word for code in INLINE.findall(text) for word in re.findall(r"--[a-zA-Z]\w*", code)}
    assert words - known == set()


@pytest.mark.parametrize("path", documents_with(r"\]\((?!https?:)"), ids=lambda path: path.name)
def test_relative_links_resolve(path: Path) -> None:
    targets = [link for link in LINK.findall(FENCE.sub("", document(path))) if not link.startswith(("http:", "https:"))]
    assert [link for link in targets if not (path.parent / link.partition("#")[0]).exists()] == []


@pytest.mark.parametrize("path", documents_with(r"\]\([^)]*#"), ids=lambda path: path.name)
def test_anchors_resolve(path: Path) -> None:
    for link in LINK.findall(document(path)):
        name, _, anchor = link.partition("#")
        if anchor and not link.startswith("http"):
            headings = re.findall(r"^#+ (.*)$", document(path.parent / name if name else path), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=lambda path: path.name
)
def test_paths_of_the_project_in_the_text_exist(path: Path) -> None:
    folders = "adapter_qa|tests|docs|recipes|sweeps|benchmarks|examples"
    names = [code for code in INLINE.findall(document(path)) if re.fullmatch(rf"({folders})/[\w./]+", code)]
    names = [name for name in names if not name.startswith("examples/make_sample")]  # LOG.md tells of its removal
    assert [name for name in names if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", documents_with("^```python"), ids=lambda path: path.name)
def test_python_in_documents_uses_names_that_exist(path: Path) -> None:
    types = {
        "QuestionAnswerer": QuestionAnswerer,
        "answerer": QuestionAnswerer,
        "answer": Answer,
        "candidate": Candidate,
        "result": TrainingResult,
    }
    for block in (block for language, block in FENCE.findall(document(path)) if language == "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                assert all(hasattr(importlib.import_module(str(node.module)), alias.name) for alias in node.names)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = types[node.value.id]
                assert hasattr(owner, node.attr) or node.attr in getattr(owner, "__dataclass_fields__", ())


@pytest.mark.parametrize("path", documents_with(r"`\w+` (in|\()"), ids=lambda path: path.name)
def test_names_stand_in_the_files_that_documents_name(path: Path) -> None:
    missing = []
    for name, file in re.findall(r"`(\w+)`\s+(?:in |\()`([\w/]+\.py)`", document(path)):
        module = next((folder / file for folder in (ROOT, ROOT / "adapter_qa") if (folder / file).is_file()), None)
        defined = rf"^\s*(def |class )?{name}\b"
        if module is None or not re.search(defined, module.read_text(encoding="utf-8"), re.MULTILINE):
            missing.append(f"{name} in {file}")
    assert missing == []


def test_map_of_the_readme_names_existing_files() -> None:
    (tree,) = [block for language, block in FENCE.findall(document(ROOT / "README.md")) if not language]
    names = re.findall(r"[\w/]+\.(?:py|sh|md)\b|\b\w+/(?=[ ,]|\w)[\w/]*", tree)
    generated = {"answer.py"}
    assert names
    assert [name for name in names if name not in generated and not (ROOT / name).exists()] == []


def test_words_once_used_for_the_structure_are_gone() -> None:
    command = ["git", "grep", "-inwE", PRIVATE_WORDS, "--", "*.py", "*.sh", "*.md", "*.yaml", "*.toml", "*.txt"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in found.stdout.splitlines() if not line.startswith("tests/test_readme.py:")]
    assert lines == []

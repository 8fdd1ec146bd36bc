"""The notebook examples/train_and_ask.ipynb: it runs as it is, and its outputs are what its text says."""

from __future__ import annotations

import ast
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from support.scripts import ROOT

NOTEBOOK = ROOT / "examples" / "train_and_ask.ipynb"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The cells of the notebook after it was executed, with temporary files in a folder of the test."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": NOTEBOOK.parent}}).execute()
    return list(notebook.cells)


def value_of(cells: list[Any], code: str) -> Any:
    """Return the value of the only cell whose code has the given text."""
    (cell,) = [cell for cell in cells if cell.cell_type == "code" and code in cell.source]
    (text,) = [output.data["text/plain"] for output in cell.outputs if output.output_type == "execute_result"]
    return ast.literal_eval(text)


def printed_by(cells: list[Any], code: str) -> str:
    """Return what the only cell whose code has the given text prints on stdout."""
    (cell,) = [cell for cell in cells if cell.cell_type == "code" and code in cell.source]
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


def test_the_file_has_no_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in code] == [([], None)] * len(code)


def test_it_trains_and_asks(cells: list[Any]) -> None:
    metrics = value_of(cells, '"exact match"')
    # A bottleneck of 64 / 4 in each of 3 layers, down and up with biases, and the head.
    expected = 3 * (64 * 16 + 16 + 16 * 64 + 64) + 2 * 64 + 2
    assert metrics["trained parameters"] == expected
    assert 10 < metrics["F1"] < 60  # 1 to 6 without training
    assert metrics["best epoch"] in (1.0, 2.0)
    assert f"F1 {metrics['F1']}" in printed_by(cells, "result = train_qa(")
    assert value_of(cells, "was_finished") is True

    text, probability, (start, end) = value_of(cells, ".ask(")
    (source,) = [cell.source for cell in cells if ".ask(" in cell.source]
    context = ast.literal_eval(source.partition("context = ")[2].splitlines()[0])
    assert context[start:end] == text
    assert 0 < probability <= 1


def test_it_shows_mistakes(cells: list[Any]) -> None:
    assert printed_by(cells, "except UserError").splitlines() == [
        "argument --num_train_epochs: invalid float value: 'two'; see run_qa_adapter.py --help",
        "--learning_rate -1: must be at least 0",
    ]

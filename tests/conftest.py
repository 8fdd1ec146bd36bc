"""Fixtures that all tests share: tiny models, question files and saved runs. Nothing is downloaded."""

from __future__ import annotations

# ruff: noqa: E402
import gc

gc.disable()  # until all is imported, see `pytest_collection_finish`

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Trainings are float32 by default on every CPU: without it, bfloat16 where there are units for it.
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"

import torch
from hypothesis import settings
from support.questions import make_questions, write_squad
from support.saved_runs import SavedRuns
from support.scripts import SHARED
from support.tiny_encoders import save_tiny
from transformers import AutoTokenizer

from adapter_qa.config.options import AdapterOptions, FusionOptions, ModelOptions, QADataOptions
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import build_setup
from adapter_qa.models.metadata import answering_options
from adapter_qa.models.save import save_setup
from adapter_qa.models.setup_decisions import resolve_setup


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes, too")


def pytest_configure(config: pytest.Config) -> None:
    # The same examples in every run, so that a change that broke nothing does not fail; --slow draws new ones.
    settings.register_profile("tests", derandomize=not config.getoption("--slow"), database=None)
    settings.load_profile("tests")
    # A process that a shell starts in the background ignores SIGINT, and so do the processes that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes minutes; run with --slow"))


def pytest_collection_finish() -> None:
    """Look for no garbage among what is imported. Each look there takes half a second, and each training takes some."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _environment_of_one_run() -> Iterator[None]:
    """Undo what runs leave in the environment: transformers sets variables there that the next run obeys.

    With --bf16 and --torch_compile, later runs in this process and its children would be in bfloat16 and compiled.
    Variables of a module's fixture, which ran before this one, are removed as well.
    """
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]
    environment = dict(os.environ)
    yield
    for name in {*os.environ} - {*environment}:
        del os.environ[name]
    os.environ.update(environment)


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    torch.set_num_threads(1)
    logging.getLogger("adapters.model_mixin").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random BertForMaskedLM and a cased WordPiece tokenizer."""
    return save_tiny("bert", tmp_path_factory.mktemp("tiny_bert"))


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random RobertaForMaskedLM and a byte-level BPE tokenizer."""
    return save_tiny("roberta", tmp_path_factory.mktemp("tiny_roberta"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data. Tests that need it are skipped where it is missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no ../shared/data: real data is not part of the project")
    return SHARED / "data"


@pytest.fixture(scope="session")
def squad_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A training file and an evaluation file of made-up questions."""
    folder = tmp_path_factory.mktemp("squad")
    train = write_squad(folder / "train.json", make_questions(24, 1))
    return train, write_squad(folder / "dev.json", make_questions(8, 2))


@pytest.fixture(scope="session")
def saved_runs(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> SavedRuns:
    """A QA adapter, a fusion and a fully fine-tuned model; their random weights are large enough to give answers."""
    folder = tmp_path_factory.mktemp("saved runs, é")
    options = ModelOptions(str(tiny_bert))
    metadata: dict[str, object] = {
        "base_model": {"name_or_path": str(tiny_bert), "revision": "main"},
        "tokenizer": None,
        "windows": answering_options(QADataOptions(max_seq_length=64, doc_stride=16)).document(),
    }
    for name, fused in (("qa", None), ("fusion", ["qa=new", "ner=new"])):
        torch.manual_seed(len(name))
        fusion = FusionOptions(fuse_adapters=fused)
        setup = resolve_setup("qa", read_base_config(options), AdapterOptions(), None, fusion, random_init=True)
        assert setup is not None
        model = load_model(options, "qa")
        build_setup(model, setup)
        for weight_name, weight in model.named_parameters():
            if "adapter" in weight_name or "qa_outputs" in weight_name:
                torch.nn.init.normal_(weight, std=0.3)
        save_setup(model, setup, folder / name / setup.folder_name, metadata)
    torch.manual_seed(1)
    full = load_model(options, "qa")
    torch.nn.init.normal_(full.get_submodule("qa_outputs").get_parameter("weight"), std=0.3)
    full.save_pretrained(folder / "full")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder / "full")
    return SavedRuns(folder / "qa", folder / "fusion", folder / "full")

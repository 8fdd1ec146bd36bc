"""Tiny models, tokenizers and questions that the tests share; nothing is downloaded, nothing is written to the tree."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from tokenizers.implementations import BertWordPieceTokenizer
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizerFast,
)

from adapter_qa.config.options import AdapterOptions, FusionOptions, ModelOptions, QADataOptions, answering_options
from adapter_qa.data.squad import Question
from adapter_qa.data.windows import Windows
from adapter_qa.models.adapter_setup import resolve_setup
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import build_setup, save_setup

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
PEOPLE = ["Ana", "Bruno", "Carla", "Davi", "Elisa", "Fábio", "Glória", "Heitor", "Inês", "João"]
PLACES = ["Recife", "Manaus", "Belém", "Natal", "Curitiba", "Goiânia", "Maceió", "Olinda", "São Luís", "Vitória"]
JOBS = ["médica", "pintor", "juíza", "músico", "atriz", "poeta", "química", "padeiro", "engenheira", "piloto"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes, too")


def pytest_configure() -> None:
    # Started in the background, a shell's children ignore SIGINT, and so would all that the tests start and stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes minutes; run with --slow"))


class DeviceReadCounter(TorchDispatchMode):
    """Counts the numbers that the computation asks the device for: on a GPU each waits for all that was before."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


def made_questions(count: int, seed: int = 0, sentences: int = 3) -> list[Question]:
    """Questions over made-up contexts of a few sentences; ids are q0, q1, ..."""
    draw = random.Random(seed)
    questions = []
    for number in range(count):
        people = draw.sample(PEOPLE, sentences)
        facts = [(one, draw.choice(PLACES), draw.choice(JOBS)) for one in people]
        context = " ".join(f"{one} nasceu em {place} e é {job}." for one, place, job in facts)
        one, place, _ = draw.choice(facts)
        start = context.index(f"{one} nasceu em {place}") + len(f"{one} nasceu em ")
        questions.append(Question(f"q{number}", f"Onde nasceu {one}?", context, (place,), (start,)))
    return questions


def write_squad(path: Path, questions: list[Question]) -> Path:
    """A flat SQuAD file."""
    records = [
        {
            "id": one.id,
            "title": one.title,
            "context": one.context,
            "question": one.question,
            "answers": {"text": list(one.answer_texts), "answer_start": list(one.answer_starts)},
        }
        for one in questions
    ]
    path.write_text(json.dumps({"data": records}, ensure_ascii=False), encoding="utf-8")
    return path


def corpus() -> list[str]:
    return [text for one in made_questions(200, seed=99) for text in (one.context, one.question)]


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    torch.set_num_threads(1)
    logging.getLogger("adapters.model_mixin").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random BertForMaskedLM and a cased WordPiece tokenizer."""
    folder = tmp_path_factory.mktemp("tiny_bert")
    wordpiece = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    wordpiece.train_from_iterator(corpus(), vocab_size=150, min_frequency=1, show_progress=False)
    wordpiece.save_model(str(folder))
    tokenizer = BertTokenizerFast(
        vocab_file=str(folder / "vocab.txt"), do_lower_case=False, strip_accents=False, model_max_length=128
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **SMALL)
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random RobertaForMaskedLM and a byte-level BPE tokenizer."""
    folder = tmp_path_factory.mktemp("tiny_roberta")
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(corpus(), vocab_size=350, min_frequency=1, special_tokens=specials, show_progress=False)
    bpe.save_model(str(folder))
    tokenizer = RobertaTokenizerFast(
        vocab_file=str(folder / "vocab.json"), merges_file=str(folder / "merges.txt"), model_max_length=128
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    config = RobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=130, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        type_vocab_size=1, **SMALL,
    )  # fmt: skip
    RobertaForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data, which only some machines have."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no ../shared/data here: real data is not part of the project")
    return SHARED / "data"


@pytest.fixture(scope="session")
def squad_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A training and an evaluation file of made-up questions."""
    folder = tmp_path_factory.mktemp("squad")
    return write_squad(folder / "train.json", made_questions(24, 1)), write_squad(
        folder / "dev.json", made_questions(8, 2)
    )


@dataclass(frozen=True)
class SavedRuns:
    """Saved runs with random weights, which answer something: a QA adapter, a fusion of two, and a whole model."""

    qa: Path
    fusion: Path
    whole: Path


@pytest.fixture(scope="session")
def saved_runs(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> SavedRuns:
    folder = tmp_path_factory.mktemp("saved runs, é")
    options = ModelOptions(str(tiny_bert))
    windows = answering_options(QADataOptions(max_seq_length=64, doc_stride=16))
    facts = {"base_model": {"name_or_path": str(tiny_bert), "revision": "main"}, "tokenizer": None, "windows": windows}
    for name, fused in (("qa", None), ("fusion", ["qa=new", "ner=new"])):
        torch.manual_seed(len(name))
        setup = resolve_setup("qa", read_base_config(options), AdapterOptions(), None, FusionOptions(fuse_adapters=fused),
                          random_init=True)  # fmt: skip
        assert setup is not None
        model = load_model(options, "qa")
        build_setup(model, setup)
        for weight_name, weight in model.named_parameters():
            if "adapter" in weight_name or "qa_outputs" in weight_name:
                torch.nn.init.normal_(weight, std=0.3)
        save_setup(model, setup, folder / name / setup.folder_name, facts)
    torch.manual_seed(1)
    whole = load_model(options, "qa")
    torch.nn.init.normal_(whole.qa_outputs.weight, std=0.3)
    whole.save_pretrained(folder / "whole")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder / "whole")
    return SavedRuns(folder / "qa", folder / "fusion", folder / "whole")


def window_offsets(windows: Windows, index: int) -> np.ndarray:
    """(tokens, 2), characters of each token of a window in the context, -1 outside it."""
    inside = windows[index]["in_context"]
    offsets = np.full((len(inside), 2), -1)
    places = np.flatnonzero(inside)
    offsets[places] = windows.characters(np.full(len(places), index), places)
    return offsets


def run_script(name: str, *words: Any, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A door as its user starts it."""
    command = [sys.executable, str(ROOT / name), *map(str, words)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=600, check=False)

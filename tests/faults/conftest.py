"""The server that lives are forked from, and the runs they belong to."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CONLL = (
    "O O\nTribunal B-ORGANIZACAO\nde I-ORGANIZACAO\nBelém I-ORGANIZACAO\ndecidiu O\n. O\n\n"
    "Ana B-PESSOA\nnasceu O\nem O\nRecife B-LOCAL\n. O\n\n"
)


@pytest.fixture(scope="session", autouse=True)
def _server() -> None:
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    multiprocessing.get_context("forkserver").set_forkserver_preload(["lives"])


@pytest.fixture(scope="session")
def commands(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[str]]:
    """A small run of each door, without its folder."""
    conll = tmp_path_factory.mktemp("conll") / "ner.conll"
    conll.write_text(CONLL * 10, encoding="utf-8")
    common = [
        "--model_name_or_path", str(tiny_bert), "--do_train", "--do_eval", "--num_train_epochs", "6",
        "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2", "--learning_rate", "1e-2",
        "--logging_steps", "2", "--disable_tqdm", "True", "--report_to", "none",
    ]  # fmt: skip
    train, dev = map(str, squad_files)
    return {
        "qa": [
            *common, "--random_init", "True", "--fuse_adapters", "qa=new", "ner=new", "--train_file", train,
            "--validation_file", dev, "--max_seq_length", "64", "--doc_stride", "16", "--early_stopping_patience", "2",
        ],
        "mlm": [*common, "--train_file", train, "--block_size", "32"],
        "ner": [
            *common, "--train_file", str(conll), "--validation_file", str(conll), "--max_seq_length", "32",
            "--weighted_loss", "--next_sentence",
        ],
    }  # fmt: skip

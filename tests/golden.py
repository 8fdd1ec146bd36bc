"""Compare two checkouts bit by bit: the same runs on the same machine, seed 42, one thread, float32.

    python tests/golden.py OLD NEW [--work FOLDER]

Both checkouts run all tasks on the same tiny BERT and the sample of NEW. Weights, metrics, predictions, answers and
the files of every run must be equal. Times, versions and paths are not compared. The exit code is 1 if anything
differs.

pytest does not run this: bits differ between machines, and a person decides whether a printed difference is intended.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers.implementations import BertWordPieceTokenizer
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

# Ends of the keys whose values depend on the time or the machine.
VOLATILE = re.compile(
    r"(_runtime|_per_second|seconds|seconds_mean|times|commit|versions|device|command|sha256|total_flos|_dir)$"
)
VOLATILE_CARD = re.compile(r"second|version|commit|minutes|\bs\b")
NOT_COMPARED = ("run.lock", "manifest.json", "events.out.", "optimizer.pt", "scheduler.pt", "rng_state.pth")

COMMON = shlex.split("--model_name_or_path base --seed 42 --report_to none --disable_tqdm True --use_cpu True")
QUESTIONS = shlex.split(
    "--train_file data/pt_squad-train-v1.1.json --validation_file data/pt_squad-dev-v1.1.json --max_seq_length 96 "
    "--doc_stride 24 --max_train_samples 48 --max_eval_samples 24 --per_device_train_batch_size 8 "
    "--num_train_epochs 2 --learning_rate 1e-3 --do_train --do_eval"
)
NER = shlex.split(
    "--train_file sample/lener_train.conll --validation_file sample/lener_dev.conll --max_seq_length 96 "
    "--max_train_samples 48 --max_eval_samples 24 --num_train_epochs 2 --learning_rate 1e-3 --do_train --do_eval"
)
MLM = shlex.split(
    "--train_file sample/texts.txt --block_size 64 --max_train_samples 48 --max_eval_samples 16 "
    "--num_train_epochs 2 --learning_rate 1e-3 --do_train --do_eval"
)
FUSION = shlex.split("--load_lang_adapter mlm --fuse_adapters qa=lang_qa ner=ner")
RUNS: list[list[str]] = [
    ["prepare_squad_pt.py", "sample/squad-train-v1.1.json", "--output_dir", "data"],
    ["prepare_squad_pt.py", "sample/squad-dev-v1.1.json", "--output_dir", "data"],
    ["run_mlm_adapter.py", *COMMON, *MLM, "--output_dir", "mlm"],
    ["run_ner_adapter.py", *COMMON, *NER, "--weighted_loss", "True", "--next_sentence", "True", "--output_dir", "ner"],
    ["run_qa_adapter.py", *COMMON, *QUESTIONS, "--output_dir", "qa"],
    ["run_qa_adapter.py", *COMMON, *QUESTIONS, "--adapter_config", "houlsby", "--houlsby_MHA_lastlayer", "True",
     "--version_2_with_negative", "True", "--output_dir", "houlsby"],
    ["run_qa_adapter.py", *COMMON, *QUESTIONS, "--load_lang_adapter", "mlm", "--output_dir", "lang_qa"],
    ["run_qa_adapter.py", *COMMON, *QUESTIONS, *FUSION, "--madx2", "True", "--output_dir", "fusion"],
    ["run_qa_adapter.py", *COMMON, *QUESTIONS, "--train_adapter", "False", "--output_dir", "full"],
    ["ask_qa.py", "fusion", "--input", "sample/questions.jsonl", "--output", "answers.jsonl", "--n_best", "3"],
    ["report_qa.py", "--table", ".", "--json", "table.json"],
]  # fmt: skip


def main() -> int:
    """Run both checkouts and print the differences."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--work", type=Path, help="folder for the runs; without it a temporary one")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp())
    checkouts = {"old": options.old.resolve(), "new": options.new.resolve()}
    base, sample = make_base(work / "base", checkouts["new"]), checkouts["new"] / "examples" / "sample"
    folders = {name: prepare_folder(work / name, base, sample) for name in checkouts}
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(run_all, checkouts[name], folders[name]) for name in checkouts]
        failures = [line for job in jobs for line in job.result()]
    differences = failures + compare_folders(folders["old"], folders["new"])
    print("\n".join(differences) or f"{len(RUNS)} runs are equal")
    return bool(differences)


def make_base(base: Path, checkout: Path) -> Path:
    """Save the tiny BERT. Both checkouts use it: two vocabularies trained on the same text may differ."""
    base.mkdir(parents=True)
    text = (checkout / "examples" / "sample" / "texts.txt").read_text(encoding="utf-8").splitlines()
    wordpiece = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    wordpiece.train_from_iterator(text, vocab_size=400, show_progress=False)
    wordpiece.save_model(str(base))
    tokenizer = BertTokenizerFast(vocab_file=str(base / "vocab.txt"), do_lower_case=False, strip_accents=False)
    tokenizer.save_pretrained(base)
    torch.manual_seed(42)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=128,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(base)
    return base


def prepare_folder(folder: Path, base: Path, sample: Path) -> Path:
    """Make a working folder with the sample and the base model."""
    folder.mkdir()
    shutil.copytree(sample, folder / "sample")
    shutil.copytree(base, folder / "base")
    (folder / "data").mkdir()
    return folder


def run_all(checkout: Path, folder: Path) -> list[str]:
    """Run every script of a checkout in a folder; return a line for each that failed."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    environment["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"  # float32 by default on every CPU
    environment["ADAPTER_QA_CACHE"] = str(folder / "cache")
    failures = []
    for script, *argv in RUNS:
        command = [sys.executable, str(checkout / script), *argv]
        process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        print(f"{folder.name}: {script} {argv[-1]}: exit code {process.returncode}", flush=True)
        if process.returncode:
            failures.append(f"{folder.name}: {script} {' '.join(argv)}: {process.stderr[-500:]}")
    return failures


def compare_folders(old: Path, new: Path) -> list[str]:
    """Return a line for each file that only one folder has, or that differs."""
    names = {folder: files_in(folder) for folder in (old, new)}
    lines = [f"only in old: {name}" for name in sorted(names[old] - names[new])]
    lines += [f"only in new: {name}" for name in sorted(names[new] - names[old])]
    for name in sorted(names[old] & names[new]):
        lines += compare_files(old, new, name)
    return lines


def files_in(folder: Path) -> set[str]:
    """Return the paths of the compared files in a folder, relative to it."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {str(path) for path in paths if path.parts[0] != "cache" and not path.name.startswith(NOT_COMPARED)}


def compare_files(old_folder: Path, new_folder: Path, name: str) -> list[str]:
    """Return a line for each difference between two files."""
    old, new = old_folder / name, new_folder / name
    if old.read_bytes() == new.read_bytes():
        return []
    if old.suffix == ".safetensors":
        states = load_file(old), load_file(new)
        if states[0].keys() != states[1].keys():
            return [f"{name}: the weights have other names"]
        return [f"{name}: {key} differs" for key in states[0] if not torch.equal(states[0][key], states[1][key])]
    texts = [
        path.read_text(encoding="utf-8").replace(str(folder.resolve()), "WORK")
        for path, folder in ((old, old_folder), (new, new_folder))
    ]
    if old.suffix == ".json":
        documents = [without_volatile(json.loads(text)) for text in texts]
        return compare_json(documents[0], documents[1], name)
    if old.name == "README.md":
        cards = [[line for line in text.splitlines() if not VOLATILE_CARD.search(line)] for text in texts]
        pairs = zip(*cards, strict=False)
        return [f"{name}: {before!r} became {after!r}" for before, after in pairs if before != after][:5]
    return [f"{name}: differs"]


def without_volatile(value: Any) -> Any:
    """Return a JSON value without the keys that `VOLATILE` matches."""
    if isinstance(value, dict):
        return {key: without_volatile(item) for key, item in value.items() if not VOLATILE.search(key)}
    return [without_volatile(item) for item in value] if isinstance(value, list) else value


def compare_json(old: Any, new: Any, path: str) -> list[str]:
    """Return a line for each difference between two JSON values; `path` leads to them."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = [f"{path}: {key} only in old" for key in old.keys() - new.keys()]
        lines += [f"{path}: {key} only in new" for key in new.keys() - old.keys()]
        return lines + [
            line for key in old.keys() & new.keys() for line in compare_json(old[key], new[key], f"{path}.{key}")
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line
            for index, pair in enumerate(zip(old, new, strict=True))
            for line in compare_json(*pair, f"{path}[{index}]")
        ]
    return [] if old == new else [f"{path}: {old!r} became {new!r}"]


if __name__ == "__main__":
    sys.exit(main())

"""Bad input at every door: exit code 2, a line for each problem that names the culprit, before any model is built, and
nothing written. One table; a row is what is put into an empty folder, the words of the command line, and what is said.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.legacy_saves import LegacyModel
from safetensors.torch import load_file, save_file
from support.questions import make_questions, write_squad
from support.scripts import run_script
from transformers import PreTrainedModel

import ask_qa
import convert_2021_adapters
import prepare_squad_pt
import run_mlm_adapter
import run_ner_adapter
import run_qa_adapter
from adapter_qa.config.options import AdapterOptions, FusionOptions, LanguageAdapterOptions, ModelOptions
from adapter_qa.core.cli import run_cli
from adapter_qa.models.adapter_setup import resolve_setup
from adapter_qa.models.base_model import load_model, read_base_config
from adapter_qa.models.build import build_setup
from adapter_qa.models.save import save_setup

DOORS: dict[str, Callable[[list[str]], int]] = {
    "qa": run_qa_adapter.main, "mlm": run_mlm_adapter.main, "ner": run_ner_adapter.main,
    "prepare": prepare_squad_pt.main, "ask": ask_qa.main, "convert": convert_2021_adapters.main,
}  # fmt: skip
CONLL = "Tribunal B-ORG\nde I-ORG\nBelém I-ORG\ndecidiu O\n. O\n\nAna B-PER\nnasceu O\n. O\n\n"
WINDOWS = {
    "max_seq_length": 64, "doc_stride": 16, "n_best_size": 20, "max_answer_length": 30, "version_2": False,
    "null_score_diff_threshold": 0.0,
}  # fmt: skip
# What each door accepts; a row goes on from there, and the last word for an option wins.
GOOD = {
    "qa": "--model_name_or_path {base} --do_train --train_file {stock}/train.json --max_seq_length 64 --doc_stride 16 "
    "--output_dir out",
    "mlm": "--model_name_or_path {base} --do_train --train_file {stock}/text.txt --block_size 32 --output_dir out",
    "ner": "--model_name_or_path {base} --do_train --train_file {stock}/train.conll --max_seq_length 64 "
    "--output_dir out",
    "prepare": "--output_dir out",
    "ask": "",
    "convert": "",
}


@dataclass(frozen=True)
class Bad:
    """A row.

    Attributes:
        name: what is wrong.
        door: whose input it is.
        words: what follows the good words of that door, as typed; {stock} and the like are paths.
        said: each is found in a line of its own.
        files: names and contents of files in the working folder; no bytes and no text means JSON.
        make: makes files that take more, given the stock and the working folder.
        late: it shows only when the model is there.
    """

    name: str
    door: str
    words: str
    said: tuple[str, ...]
    files: dict[str, Any] = field(default_factory=dict)
    make: Callable[[Path, Path], None] | None = None
    late: bool = False


def record(**changes: Any) -> dict[str, Any]:
    """A good flat record with some keys changed, or dropped where the change is `...`."""
    good = {
        "id": "q1", "question": "Onde nasceu Ana?", "context": "Ana nasceu em Belém.",
        "answers": {"text": ["Belém"], "answer_start": [14]},
    }  # fmt: skip
    return {key: value for key, value in {**good, **changes}.items() if value is not ...}


def nested(*paragraphs: Any) -> dict[str, Any]:
    return {"data": [{"title": "", "paragraphs": list(paragraphs)}]}


# Name, file name, content, message. tests/data/test_squad.py has all defects of question files; these are examples.
QUESTIONS: list[tuple[str, str, Any, str]] = [
    ("empty file", "q.json", b"", "q.json: the file is empty"),
    ("a truncated file", "q.json", '[{"id": "q"},', "Expecting value; the file seems to be cut off"),
    ("a broken line", "q.jsonl", json.dumps(record()) + '\n{"id":\n', "q.jsonl: line 2: not JSON at column 7"),
    ("no paragraphs", "q.json", nested(), "q.json: holds no questions"),
    ("question null", "q.json", [record(question=None)], "(id 'q1'): 'question' is null; it must be text"),
    ("semicolons", "q.csv", "id;question;context\n1;?;x\n", "q.csv: no column id, question, context; needed, comma"),
]
ANSWERS: list[tuple[str, str, Any, str]] = [
    ("no answers", "q.json", [record(answers=...)], "(id 'q1'): no 'answers'"),
    *(
        (
            f"start {what}",
            "q.json",
            [record(answers={"text": ["Belém"], "answer_start": [start]})],
            "q.json: no answer is found at its answer_start; run prepare_squad_pt.py",
        )
        for what, start in [("out of the context", 400), ("negative", -6), ("off by one", 13)]
    ),
    (
        "no answer in v1",
        "q.json",
        [record(answers={"text": [], "answer_start": []})],
        "q.json: 1 questions have no answer; SQuAD v2 data needs --version_2_with_negative True",
    ),
]


def question_rows() -> list[Bad]:
    """Return bad question files for every script that reads questions."""
    rows = []
    for what, name, content, said in QUESTIONS + ANSWERS:
        rows.append(Bad(f"qa, {what}", "qa", f"--train_file {name}", (said,), {name: content}))
    for what, name, content, said in QUESTIONS:
        rows.append(Bad(f"ask, {what}", "ask", f"{{qa}} --input {name}", (said,), {name: content}))
        rows.append(Bad(f"mlm, {what}", "mlm", f"--train_file {name}", (said,), {name: content}))
    for what, name, content, said in QUESTIONS[:2]:
        rows.append(Bad(f"prepare, {what}", "prepare", name, (said,), {name: content}))
    return rows


Damage = Callable[[Path], Any]  # of a folder


def change_json(path: Path, /, **values: Any) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({key: one for key, one in {**document, **values}.items() if one is not ...}))


def copied(source: str, *damage: Damage) -> Callable[[Path, Path], None]:
    """Copies a folder of the stock to ./copy and damages it."""

    def make(stock: Path, here: Path) -> None:
        shutil.copytree(stock / source, here / "copy")
        for one in damage:
            one(here / "copy")

    return make


def with_json(name: str, /, **values: Any) -> Damage:
    return lambda folder: change_json(folder / name, **values)


def with_config(name: str, /, **values: Any) -> Damage:
    """Changes the adapter configuration inside an adapter_config.json."""

    def damage(folder: Path) -> None:
        inside = json.loads((folder / name).read_text(encoding="utf-8"))["config"]
        change_json(folder / name, config={key: one for key, one in {**inside, **values}.items() if one is not ...})

    return damage


def with_bytes(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def with_index(file: str) -> Damage:
    """The list of a model's weight files, that tells of one."""
    return with_bytes("model.safetensors.index.json", json.dumps({"weight_map": {"a": file}}).encode())


def cut(name: str, size: int) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def without(*names: str) -> Damage:
    return lambda folder: [(folder / name).unlink() for name in names]


def with_weights(name: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Damage:
    return lambda folder: save_file(change(load_file(folder / name)), folder / name)


def renamed(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda state: {key.replace(old, new): weight for key, weight in state.items()}


def as_bin(name: str, binary: str, content: bytes) -> Damage:
    """Puts a .bin in place of a safetensors file."""

    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / binary).write_bytes(content)

    return damage


def slow_tokenizer(folder: Path) -> None:
    """A kind of tokenizer that has no fast version."""
    for name in ("tokenizer.json", "special_tokens_map.json"):
        (folder / name).unlink()
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": '
        '"basic", "subword_tokenizer_type": "wordpiece"}'
    )


ADAPTER, CONFIG = "qa/adapter.safetensors", "qa/adapter_config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
MODEL = "--model_name_or_path copy"
FILES = [
    Bad("missing file", "qa", "--train_file none.json", ("--train_file none.json: no such file",)),
    Bad("a folder for a file", "qa", "--train_file {stock}", ("no such file; give the path of a file",)),
    Bad("missing files, both", "qa", "--do_eval --train_file a.json --validation_file b.json",
        ("--train_file a.json: no such file", "--validation_file b.json: no such file")),
    Bad("bad files, both", "qa", "--do_eval --train_file a.json --validation_file b.json",
        ("a.json: the file is empty", "b.json: not JSON"), {"a.json": b"", "b.json": b"{"}),
    Bad("bad evaluation file", "qa", "--do_eval --validation_file b.json", ("b.json: holds no questions",),
        {"b.json": []}),
    Bad("bad test file", "qa", "--do_predict --test_file t.json", ("t.json: data[0]: no 'id'",),
        {"t.json": [record(id=...)]}),
    Bad("another kind of file", "qa", "--train_file q.parquet",
        ("q.parquet: extension '.parquet'; allowed: .json, .jso",), {"q.parquet": b"PAR1"}),
    Bad("ten of many problems", "qa", "--train_file q.json",
        tuple(f"q.json: data[{number}]: no 'id'" for number in range(10)) + ("q.json: and 3 more problems",),
        {"q.json": [{}] * 13}),
    Bad("a name too long for a path", "qa", f"--train_file {'x' * 300}.json",
        (f"{'x' * 300}.json: File name too long",)),
    Bad("text of another kind", "mlm", "--train_file t.pdf", ("t.pdf: extension '.pdf'; allowed: .txt",),
        {"t.pdf": b"x"}),
    Bad("empty text", "mlm", "--train_file t.txt", ("t.txt: the file is empty",), {"t.txt": b"\n \n"}),
    Bad("text in latin-1", "mlm", "--train_file t.txt", ("t.txt: not UTF-8 at byte 1",), {"t.txt": b"S\xe3o"}),
    Bad("too little text", "mlm", "--train_file t.txt", ("not enough for one block of --block_size 32",),
        {"t.txt": "Ana"}),
    Bad("text for one block only", "mlm", "--do_eval --train_file t.txt",
        ("t.txt: 1 blocks cannot be split; give --validation_file",), {"t.txt": "Ana nasceu. " * 10}),
    Bad("empty sentences", "ner", "--train_file n.conll", ("n.conll: the file is empty",), {"n.conll": b"\n\n"}),
    Bad("only document marks", "ner", "--train_file n.conll", ("n.conll: holds no sentence",),
        {"n.conll": "-DOCSTART- O\n"}),
    Bad("two sentences with bad labels", "ner", "--train_file n.conll",
        ("n.conll, line 1: a has label X", "n.conll, line 3: b has l"), {"n.conll": "a X\n\nb Y\n"}),
    Bad("sentences without labels", "ner", "--train_file n.json", ("n.json, data[0]: no labels",),
        {"n.json": [{"tokens": ["a"]}]}),
    Bad("no entity at all", "ner", "--train_file n.conll", ("n.conll: names no entity, all its labels are O",),
        {"n.conll": "a O\nb O\n"}),
    Bad("labels that training has not", "ner", "--do_eval --validation_file n.conll",
        ("labels B-ART, I-ART are not among",), {"n.conll": "a B-ART\n"}),
    Bad("prepare, missing file", "prepare", "none.json", ("none.json: no such file",)),
    Bad("prepare, a folder", "prepare", "{stock}", ("stock: no such file",)),
    Bad("prepare, another kind", "prepare", "q.xml", ("q.xml: extension '.xml'; allowed: .json, .jsonl, .csv",),
        {"q.xml": b"<"}),
    Bad("prepare, no archive", "prepare", "q.tar.gz", ("q.tar.gz: not a readable archive: Not a gzipped file",),
        {"q.tar.gz": b"no archive"}),
    Bad("prepare, no zip", "prepare", "q.zip", ("q.zip: not a readable archive: File is not a zip file",),
        {"q.zip": b"PK"}),
    Bad("prepare, split", "prepare", "q.json --split dev",
        ("argument --split: invalid choice: 'dev' (choose from 'train',",), {"q.json": [record()]}),
    Bad("prepare, nothing", "prepare", "", ("the following arguments are required: input",)),
    Bad("prepare, an option it has not", "prepare", "q.json --stride 3", ("unrecognized arguments: --stride 3",)),
    Bad("ask, nothing", "ask", "", ("give RUN, the folder of a run, or --base", "give either --question with")),
    Bad("ask, no question", "ask", "{qa}", ("give either --question with --context, or --input",)),
    Bad("ask, a question alone", "ask", "{qa} --question Onde?", ("--question and --context go together",)),
    Bad("ask, blank question", "ask", "{qa} --question ' ' --context ''",
        ("--question is empty", "--context is empty")),
    Bad("ask, both ways", "ask", "{qa} --question a --context b --input q.jsonl",
        ("give either --question with --context",)),
    Bad("ask, batches of none", "ask", "{qa} --question a --context b --batch_size 0",
        ("--batch_size 0: must be at least 1",)),
    Bad("ask, batches in words", "ask", "{qa} --question a --context b --batch_size x",
        ("--batch_size: invalid int value",)),
    Bad("ask, output is there", "ask", "{qa} --question a --context b --output o",
        ("--output o: exists; add --overwrite",), {"o": b""}),
    Bad("ask, output nowhere", "ask", "{qa} --question a --context b --output no/o",
        ("--output no/o: there is no folder no",)),
    Bad("ask, missing file", "ask", "{qa} --input none.jsonl",
        ("none.jsonl: cannot be read: No such file or directory",)),
    Bad("ask, NaN that is kept", "ask", "{qa} --input q.jsonl", ("q.jsonl: line 1: cannot be written again as JSON",),
        {"q.jsonl": json.dumps(record(weight=float("nan")))}),
    Bad("ask, an empty file of questions, no context", "ask", "{qa} --question_file q.txt --context_file none.txt",
        ("q.txt: the file is empty", "none.txt: cannot be read: No such file or directory"), {"q.txt": b" \n"}),
    Bad("ask, text that is no UTF-8", "ask", "{qa} --question Onde? --context_file t.txt", ("t.txt: not UTF-8",),
        {"t.txt": b"Bel\xe9m"}),
    Bad("ask, two ways to one text", "ask", "{qa} --question a --context b --context_file t.txt --question_file q.txt",
        ("--question and --question_file exclude each other", "--context and --context_file exclude each other")),
    Bad("ask, standard input twice", "ask", "{qa} --question_file - --context -",
        ("--question_file and --context: only one of them can read standard input (-)",)),
    Bad("ask, numbers that cannot be", "ask",
        "{qa} --question a --context b --n_best 0 --null_score_diff_threshold nan --device gpu --port 80",
        ("--n_best 0: must be at least 1", "--null_score_diff_threshold nan: must be a finite number",
         "--device gpu: give cpu, cuda or cuda:N", "--port goes with --serve")),
    Bad("ask, a device that is not there", "ask", "{qa} --question a --context b --device cuda:99",
        ("--device cuda:99: no such device here; give cpu",)),
    Bad("ask, two runs", "ask", "{qa} {fusion} --question a --context b", ("one model answers here, given are",)),
    Bad("ask, a run and a base", "ask", "{qa} --base {base} --question a --context b",
        ("one model answers here, given are",)),
    Bad("ask, a base without a head", "ask", "--base {base} --question a --context b",
        ("was not trained to answer questions (architectures in its config.json: ['BertForMaskedLM'])",)),
    Bad("ask, a base that is a run", "ask", "--base {qa} --question a --context b",
        ("holds adapters; ask it as RUN, without --base",)),
    Bad("ask, a base that is nowhere", "ask", "--base ./none --question a --context b",
        ("--base ./none: no such folder; give a model folder or a hub id",)),
    Bad("ask, options of a run for a base", "ask",
        "--base {base} --model_name_or_path x --load_lang_adapter y --question a --context b",
        ("--model_name_or_path goes with RUN; --base is a whole model", "--load_lang_adapter goes with RUN")),
    Bad("ask, a whole model as a run", "ask", "copy --question a --context b",
        ("copy: is a whole model that no run here has made; ask it with --base copy",),
        make=copied("base", with_json("config.json", architectures=["BertForQuestionAnswering"]))),
    Bad("ask, a base whose head is missing", "ask", "--base copy --question a --context b",
        ("2 weights are missing or of another shape, e.g. qa_outputs.bias",), late=True,
        make=copied("base", with_json("config.json", architectures=["BertForQuestionAnswering"]))),
    Bad("ask, a threshold without v2", "ask", "{qa} --question a --context b --null_score_diff_threshold 1",
        ("qa was not trained on questions without an answer (SQuAD v2); --version_2_with_negative lets it",)),
    Bad("ask, a page and a question", "ask", "{qa} {qa} --serve --question a --context b --port 99999",
        ("qa: given twice", "--serve asks on its page; leave out --question, --context", "--port 99999: must be from")),
    Bad("ask, no run", "ask", "nowhere --question a --context b", ("RUN nowhere: no such folder",)),
    Bad("ask, a run without a save", "ask", "{stock} --question a --context b",
        ("stock: holds no adapter_setup.json",)),
    Bad("ask, a language adapter", "ask", "{mlm} --question a --context b",
        ("was not trained to answer questions; it holds",)),
    Bad("convert, nothing", "convert", "", ("the following arguments are required: OLD, NEW",)),
    Bad("convert, no folder", "convert", "nowhere new", ("OLD nowhere: no such folder",)),
    Bad("convert, new is there", "convert", "{old} here", ("NEW here: exists already",), {"here": b""}),
    Bad("convert, nothing old", "convert", "{qa} new", ("holds no adapters of adapter-transformers 2.x",)),
]  # fmt: skip
MODELS = [
    Bad("no such model", "qa", "--model_name_or_path ./none", ("--model_name_or_path ./none: no such folder",)),
    Bad("a model not at hand", "qa", "--model_name_or_path no/model",
        ("--model_name_or_path no/model: no config.json of",)),
    Bad("no config.json", "ner", MODEL, ("config.json: cannot be read: No such file",),
        make=copied("base", without("config.json"))),
    Bad("config.json cut off", "qa", MODEL, ("config.json: not JSON at line",),
        make=copied("base", cut("config.json", 40))),
    Bad("config.json a list", "qa", MODEL, ("config.json: holds a list where an object",),
        make=copied("base", with_bytes("config.json", b"[]"))),
    Bad("config.json nested too deep", "qa", MODEL, ("config.json: JSON that cannot be read: maximum recursion",),
        make=copied("base", with_bytes("config.json", b"[" * 99999))),
    Bad("no weights", "mlm", MODEL, ("copy: holds no weights (model.safetensors)",),
        make=copied("base", without("model.safetensors"))),
    Bad("another architecture", "qa", MODEL, ("config.json: model_type gpt2; supported: bert, roberta",),
        make=copied("base", with_json("config.json", model_type="gpt2"))),
    Bad("no architecture", "qa", MODEL, ("config.json: model_type None; supported: bert",),
        make=copied("base", with_json("config.json", model_type=...))),
    Bad("no layers", "qa", MODEL, ("config.json: num_hidden_layers 0; it must be a whole number",),
        make=copied("base", with_json("config.json", num_hidden_layers=0))),
    Bad("size in words", "qa", MODEL, ("config.json: hidden_size 'big'; it must be a whole number",),
        make=copied("base", with_json("config.json", hidden_size="big"))),
    Bad("heads that do not share", "qa", MODEL,
        ("config.json: hidden_size 32 is not divisible by num_attention_heads 3",),
        make=copied("base", with_json("config.json", num_attention_heads=3))),
    Bad("size beyond memory", "qa", MODEL + " --random_init True",
        ("config.json: intermediate_size 1000000000000; it must",),
        make=copied("base", with_json("config.json", intermediate_size=10**12))),
    Bad("a key that runs code", "qa", MODEL, ("config.json: sets _attn_implementation_internal, which can run code",),
        make=copied("base", with_json("config.json", _attn_implementation_internal="org/evil"))),
    Bad("its twin", "qa", MODEL, ("config.json: sets _attn_implementation, which can run code",),
        make=copied("base", with_json("config.json", _attn_implementation={"": "org/evil"}))),
    Bad("the same in --config_name", "mlm", "--config_name copy",
        ("config.json: sets _attn_implementation_internal, which",),
        make=copied("base", with_json("config.json", _attn_implementation_internal="org/evil"))),
    Bad("a quantized model", "qa", MODEL, ("config.json: is of a quantized model",),
        make=copied("base", with_json("config.json", quantization_config={"quant_method": "bitsandbytes"}))),
    Bad("an activation that is none", "qa", MODEL, ("copy: the weights cannot be loaded (KeyError: 'gellu')",),
        make=copied("base", with_json("config.json", hidden_act="gellu")), late=True),
    Bad("a type that is none", "qa", MODEL, ("copy: no model can be made of its config.json",),
        make=copied("base", with_json("config.json", dtype="float12"))),
    Bad("two problems of a model", "ner", MODEL, ("model_type t5; supported", "copy: holds no weights"),
        make=copied("base", with_json("config.json", model_type="t5"), without("model.safetensors"))),
    Bad("a model with adapters inside", "qa", MODEL, ("a whole model saved with adapters inside",),
        make=copied("base", with_json("config.json", adapters={"adapters": {"qa": "pfeiffer"}}))),
    Bad("model weights cut off", "qa", MODEL, ("model.safetensors: the weights cannot be read",),
        make=copied("base", cut("model.safetensors", 5000))),
    Bad("model weights empty", "qa", MODEL, ("model.safetensors: the weights cannot be read",),
        make=copied("base", with_bytes("model.safetensors", b""))),
    Bad("a .bin that is none", "qa", MODEL, ("copy: the weights cannot be loaded",),
        make=copied("base", as_bin("model.safetensors", "pytorch_model.bin", b"no weights")), late=True),
    Bad("weights of another size", "qa", MODEL,
        ("12 weights are missing or of another shape, e.g. bert.encoder.layer.0.intermediate.dense.bias",),
        make=copied("base", with_json("config.json", intermediate_size=128)), late=True),
    Bad("weights of another model", "qa", MODEL, ("weights are missing or of another shape",),
        make=copied("base", with_weights("model.safetensors", renamed("bert.", "x.bert."))), late=True),
    Bad("a part of the weights is missing", "qa", MODEL,
        ("model-2.safetensors: is missing, but the folder's index names it",),
        make=copied("base", without("model.safetensors"), with_index("model-2.safetensors"))),
    Bad("an index that leads elsewhere", "qa", MODEL,
        ("'weight_map' must be an object of weights with the names of files",),
        make=copied("base", without("model.safetensors"), with_index("../stolen.safetensors"))),
    Bad("tokenizer without fast version", "qa", "--tokenizer_name copy",
        ("copy: the tokenizer has no fast version, which windows need",), make=copied("base", slow_tokenizer)),
    Bad("no tokenizer", "qa", "--tokenizer_name copy", ("copy: no tokenizer can be loaded",),
        make=copied("base", without(*TOKENIZER_FILES))),
    Bad("tokenizer.json cut off", "qa", "--tokenizer_name copy", ("copy: no tokenizer can be loaded",),
        make=copied("base", cut("tokenizer.json", 300))),
    Bad("tokenizer.json of another form", "mlm", "--tokenizer_name copy", ("copy: no tokenizer can be loaded",),
        make=copied("base", with_bytes("tokenizer.json", b'{"model": {"type": "Magic"}}'))),
    Bad("tokenizer of another model", "qa", "--tokenizer_name {roberta}",
        ("tokens, the base model 150; give the model's own",)),
    Bad("tokenizer without a mask", "ner", "--tokenizer_name copy",
        ("copy: the tokenizer has no mask_token; it belongs to",),
        make=copied("base", with_json("tokenizer_config.json", mask_token=None), without("special_tokens_map.json"))),
    Bad("window above the maximum", "qa", "--max_seq_length 129",
        ("--max_seq_length 129: the base model reads at most 128",)),
    Bad("block above the maximum", "mlm", "--block_size 512",
        ("--block_size 512: the base model reads at most 128 tokens",)),
    Bad("stride too large", "qa", "--doc_stride 61",
        ("--doc_stride 61 leaves no room in --max_seq_length 64; give a stride",)),
    Bad("stride negative", "qa", "--doc_stride -1", ("--doc_stride -1: must be at least 0",)),
    Bad("window of nothing", "qa", "--max_seq_length 2 --doc_stride 0", ("leaves no room in --max_seq_length 2",)),
]  # fmt: skip

NO_DEEPSPEED = ("the package is not installed",) if importlib.util.find_spec("deepspeed") is None else ()
COPY = "--do_eval --validation_file {stock}/dev.json --do_train False --load_adapter copy"
ADAPTERS = [
    Bad("no such adapter", "qa", "--load_adapter ./none",
        ("--load_adapter ./none: no such folder; give an adapters-<task>",)),
    Bad("an adapter of another size", "qa", "--load_adapter {qa}/qa --model_name_or_path copy",
        ("its hidden_size is 32, the",), make=copied("base", with_json("config.json", hidden_size=64))),
    Bad("an adapter of another encoder", "qa", "--load_lang_adapter {mlm} --model_name_or_path {roberta}",
        ("its model_type is bert, the base model's roberta",)),
    Bad("a task adapter as language adapter", "qa", "--load_lang_adapter {qa}",
        (": holds qa, the adapter of a BertForQuestionAnswering, not a language adapter; give the folder of a",)),
    Bad("an adapter of more layers", "qa", "--load_adapter {qa}/qa --model_name_or_path copy",
        ("has weights for 4 layers, the",), make=copied("base", with_json("config.json", num_hidden_layers=3))),
    Bad("an adapter of fewer layers", "qa", "--load_adapter {qa}/qa --model_name_or_path copy",
        ("weights are missing for layer 4",), make=copied("base", with_json("config.json", num_hidden_layers=5))),
    Bad("adapter configuration missing", "qa", COPY, ("adapter_config.json: cannot be read: No such file",),
        make=copied("qa", without(CONFIG))),
    Bad("adapter configuration cut off", "qa", COPY, ("adapter_config.json: not JSON",),
        make=copied("qa", cut(CONFIG, 50))),
    Bad("no bottleneck", "qa", COPY, ("copy/qa: not a bottleneck adapter; only pfeiffer and houlsby",),
        make=copied("qa", with_json(CONFIG, config={"architecture": "lora", "r": 8}))),
    Bad("another architecture inside", "qa", COPY,
        ("invalid configuration of a bottleneck adapter: architecture 'lora'",),
        make=copied("qa", with_config(CONFIG, architecture="lora"))),
    Bad("an unknown key inside", "qa", COPY, ("invalid configuration of a bottleneck adapter: to_dict 1",),
        make=copied("qa", with_config(CONFIG, to_dict=1))),
    Bad("reduction by zero", "qa", COPY, ("invalid configuration of a bottleneck adapter: reduction_factor 0",),
        make=copied("qa", with_config(CONFIG, reduction_factor=0))),
    Bad("reduction that fills the memory", "qa", COPY,
        ("invalid configuration of a bottleneck adapter: reduction_factor 1e-09",),
        make=copied("qa", with_config(CONFIG, reduction_factor=1e-9))),
    Bad("layers in words", "qa", COPY, ("invalid configuration of a bottleneck adapter: leave_out 'last'",),
        make=copied("qa", with_config(CONFIG, leave_out="last"))),
    Bad("an unknown activation inside", "qa", COPY,
        ("invalid configuration of a bottleneck adapter: non_linearity 'gellu'",),
        make=copied("qa", with_config(CONFIG, non_linearity="gellu"))),
    Bad("head weights cut off", "qa", COPY, ("model_head.safetensors: the weights cannot be read",),
        make=copied("qa", cut("model_head.safetensors", 90))),
    Bad("no head weights", "qa", COPY, ("copy: holds no model_head.safetensors or pytorch_model_head.bin",),
        make=copied("qa", without("model_head.safetensors"))),
    Bad("fusion weights cut off", "qa", COPY, ("model_adapter_fusion.safetensors: the weights cannot be read",),
        make=copied("fusion", cut("a,b/model_adapter_fusion.safetensors", 90))),
    Bad("fusion configuration missing", "qa", COPY, ("adapter_fusion_config.json: cannot be read: No such file",),
        make=copied("fusion", without("a,b/adapter_fusion_config.json"))),
    Bad("no adapter weights", "qa", COPY, ("copy/qa: holds no adapter.safetensors or pytorch_adapter.bin",),
        make=copied("qa", without(ADAPTER))),
    Bad("adapter weights empty", "qa", COPY, ("adapter.safetensors: the weights cannot be read",),
        make=copied("qa", with_bytes(ADAPTER, b""))),
    Bad("adapter weights cut off", "qa", COPY, ("adapter.safetensors: the weights cannot be read",),
        make=copied("qa", cut(ADAPTER, 2000))),
    Bad("adapter .bin of text", "qa", COPY, ("pytorch_adapter.bin: cannot be read",),
        make=copied("qa", as_bin(ADAPTER, "qa/pytorch_adapter.bin", b"hello"))),
    Bad("adapter .bin empty", "qa", COPY, ("pytorch_adapter.bin: cannot be read",),
        make=copied("qa", as_bin(ADAPTER, "qa/pytorch_adapter.bin", b""))),
    Bad("weights of another name", "qa", COPY, ("copy/qa: weights are missing for layer 0 (output_adapter)",),
        make=copied("qa", with_weights(ADAPTER, renamed(".qa.", ".x.")))),
    Bad("half of the weights", "qa", COPY, ("copy/qa: weights are missing for layer",),
        make=copied("qa", with_weights(ADAPTER, lambda state: dict(sorted(state.items())[:6])))),
    Bad("setup cut off", "qa", COPY, ("adapter_setup.json: not JSON",),
        make=copied("qa", cut("adapter_setup.json", 90))),
    Bad("setup of another program", "qa", COPY, ("adapter_setup.json: not written by this trainer, or damaged",),
        make=copied("qa", with_json("adapter_setup.json", trainer=...))),
    Bad("a name that leads out", "qa", COPY,
        ("adapter_setup.json: its composition ['../qa'] and its adapters ['qa'] disagree",),
        make=copied("qa", with_json("adapter_setup.json", adapter_setup={"type": "single", "children": ["../qa"]}))),
    Bad("labels of a head in words", "qa", COPY, ("head_config.json: not written by this trainer, or damaged",),
        make=copied("qa", with_json("head_config.json", label2id={"A": "one"}))),
    Bad("a language adapter to evaluate", "qa",
        "--do_eval --validation_file {stock}/dev.json --do_train False --load_adapter {mlm}",
        ("comes without a question answering head",)),
    Bad("a fusion where one is wanted", "qa", "--fuse_adapters a={fusion} b={qa}",
        ("holds a fusion; give one of its adapters",)),
    Bad("adapters of different kinds", "qa", "--fuse_adapters a={qa} b={houlsby}",
        ("adapters of different kinds cannot be fused",)),
    Bad("mixed layers", "qa", "--fuse_adapters a={qa} b={madx2}",
        ("layer 3 (output_adapter): a has a module there, but b, the last",)),
    Bad("the language adapter's name", "qa", "--load_lang_adapter {mlm} --fuse_adapters mlm={qa} b={qa}",
        ("adapters need different names, given are mlm, mlm, b",)),
    Bad("a fusion of one", "qa", "--fuse_adapters a={qa}",
        ("--fuse_adapters: 1 adapter given; a fusion needs two or more",)),
    Bad("a fusion with a name twice", "qa", "--fuse_adapters a={qa} a={qa}",
        ("the name a is used twice; each adapter needs its",)),
    Bad("a fusion without names", "qa", "--fuse_adapters {qa} {qa}",
        ("write NAME=PATH, the name of letters, digits", "write NAME")),
    Bad("a name that is a path", "qa", "--fuse_adapters ../a={qa} b={qa}", ("--fuse_adapters ../a=",)),
    Bad("a name without end", "qa", f"--fuse_adapters {'a' * 121}={{qa}} b={{qa}}",
        ("write NAME=PATH, the name of letters",)),
    Bad("two missing adapters", "qa", "--fuse_adapters a=./x b=./y",
        ("--fuse_adapters a ./x: no such folder", "--fuse_adapters b ./y")),
    Bad("new without random_init", "qa", "--fuse_adapters a=new b=new",
        ("a new adapter can replace a saved one only with",) * 2),
    Bad("fusing and loading", "qa", "--fuse_adapters a={qa} b={qa} --load_adapter {qa}",
        ("exclude each other; a saved fusion",)),
    Bad("loading without adapters", "qa", "--train_adapter False --load_adapter {qa}",
        ("--load_adapter requires --train_adapter",)),
    Bad("fuse without a language adapter", "qa", "--adapter_composition fuse",
        ("--adapter_composition fuse needs --fuse_adapters",)),
    Bad("an activation that does not exist", "ner", "--adapter_non_linearity gellu",
        ("--adapter_non_linearity gellu: no such",)),
    Bad("a kind that does not exist", "ner", "--adapter_config pfeifer",
        ("--adapter_config pfeifer: give pfeiffer, pfeiffer+inv, houlsby",)),
    Bad("a kind's file that is none", "ner", "--adapter_config c.json", ("c.json: not JSON",), {"c.json": b"{"}),
    Bad("a reduction that is none", "mlm", "--adapter_reduction_factor 0",
        ("--adapter_reduction_factor 0: must be a number of",)),
    Bad("a saved adapter of another reduction", "qa", "--load_adapter {qa} --adapter_reduction_factor 2",
        ("--adapter_* options ask for reduction_factor 2.0, but",)),
    Bad("half a layer of pfeiffer", "qa", "--houlsby_MHA_lastlayer True",
        ("--houlsby_MHA_lastlayer: qa is not a houlsby adapter",)),
    Bad("ask, windows of text", "ask", "copy --question a --context b",
        ("Expected `int`, got `str` - at `$.trainer.windows.doc_stride`",),
        make=copied("qa", lambda folder: change_facts(folder, windows={**WINDOWS, "doc_stride": "16"}))),
    Bad("ask, windows too long", "ask", "copy --question a --context b",
        ("its windows have 512 tokens, the base model reads 128",),
        make=copied("qa", lambda folder: change_facts(folder, windows={**WINDOWS, "max_seq_length": 512}))),
    Bad("ask, no base model", "ask", "copy --question a --context b",
        ("does not say which base model its adapters stand on",),
        make=copied("qa", lambda folder: change_facts(folder, base_model={}))),
    Bad("ask, a base model of numbers", "ask", "copy --question a --context b",
        ("at `$.trainer.base_model.name_or_path`",),
        make=copied("qa", lambda folder: change_facts(folder, base_model={"name_or_path": 3}))),
    Bad("ask, a base model that is gone", "ask", "copy --question a --context b",
        ("--model_name_or_path /no/base: no such folder",),
        make=copied("qa", lambda folder: change_facts(folder, base_model={"name_or_path": "/no/base"}))),
    Bad("ask, a tokenizer that is gone", "ask", "copy --question a --context b",
        ("no-such-tokenizer: no tokenizer can be loaded",),
        make=copied("qa", lambda folder: change_facts(folder, tokenizer="no-such-tokenizer"))),
    Bad("ask, a full model without facts", "ask", "copy --question a --context b",
        ("full_setup.json: not written by this trainer",), make=copied("base", with_bytes("full_setup.json", b"{}"))),
    Bad("convert, weights cut off", "convert", "copy new", ("pytorch_adapter.bin: cannot be read",),
        make=copied("old", cut("qa_squad/pytorch_adapter.bin", 900))),
    Bad("convert, fusion weights cut off", "convert", "copy new",
        ("pytorch_model_adapter_fusion.bin: cannot be read",),
        make=copied("old", cut("qa_squad,ner_lener/pytorch_model_adapter_fusion.bin", 900))),
    Bad("convert, configuration of text", "convert", "copy new",
        ("not a bottleneck adapter; only pfeiffer and houlsby",),
        make=copied("old", with_json("qa_squad/adapter_config.json", config="pfeiffer"))),
    Bad("convert, two of one name", "convert", "copy new", ("two of its adapters have the same name",),
        make=copied("old", with_json("qa_squad/adapter_config.json", name="ner_lener"))),
    Bad("convert, a name that leads out", "convert", "copy new",
        ("adapter names consist of letters, digits, - and _, which is not true of ../x",),
        make=copied("old", with_json("qa_squad/adapter_config.json", name="../x"))),
]  # fmt: skip

OPTIONS = [
    Bad("no model named", "qa", "NOTHING --do_train",
        ("the following arguments are required: --model_name_or_path",)),
    Bad("an unknown option", "qa", "--learnin_rate 3", ("unknown option learnin_rate; did you mean learning_rate?",)),
    Bad("two unknown options", "ner", "--doc_stride 3 --qqq", ("unknown option doc_stride", "unknown option qqq")),
    Bad("stray words", "mlm", "two words",
        ("stray words on the command line: two words; options look like --name value",)),
    Bad("a value missing", "qa", "--learning_rate", ("argument --learning_rate: expected one argument",)),
    Bad("a number in words", "qa", "--learning_rate fast",
        ("argument --learning_rate: invalid float value: 'fast'",)),
    Bad("a fraction for a count", "mlm", "--block_size 32.5", ("argument --block_size: invalid int value: '32.5'",)),
    Bad("a truth that is none", "ner", "--madx2 maybe", ("argument --madx2: ",)),
    Bad("a strategy that is none", "qa", "--eval_strategy daily",
        ("argument --eval_strategy: invalid choice: 'daily'",)),
    Bad("saving the best only", "qa", "--save_strategy best", ("argument --save_strategy: invalid choice: 'best'",)),
    Bad("a schedule that is none", "qa", "--lr_scheduler_type linea",
        ("argument --lr_scheduler_type: invalid choice: 'linea'",)),
    Bad("an optimizer that is none", "qa", "--optim adamww", ("argument --optim: invalid choice: 'adamww'",)),
    Bad("a composition that is none", "qa", "--adapter_composition sum",
        ("argument --adapter_composition: invalid choice: 'sum'",)),
    Bad("attention that is none", "qa", "--attn_implementation org/evil",
        ("argument --attn_implementation: invalid choice",)),
    Bad("curves to nowhere", "qa", "--report_to nowhere", ("--report_to nowhere: ",)),
    Bad("curves to what is not here", "qa", "--report_to wandb", ("--report_to wandb: ",)),
    Bad("an optimizer that is not here", "qa", "--optim adamw_apex_fused", ("apex",)),
    Bad("a schedule without its settings", "qa", "--lr_scheduler_type cosine_with_min_lr",
        ("--lr_scheduler_type cosine_with_min_lr with",)),
    Bad("a schedule with other settings", "qa", """--lr_scheduler_type cosine --lr_scheduler_kwargs '{{"x": 1}}'""",
        ("unexpected keyword argument 'x'",)),
    Bad("settings that are no JSON", "qa", "--lr_scheduler_kwargs x",
        ("--lr_scheduler_kwargs x: must be a JSON object",)),
    Bad("a checkpoint named", "qa", "--resume_from_checkpoint x",
        ("the same command with the same --output_dir resumes",)),
    Bad("a folder that is no UTF-8", "qa", "--output_dir a\udcff",
        ("--output_dir a\\udcff: has a NUL character or is not UTF-8",)),
    Bad("nothing to do", "qa", "--do_train False",
        ("nothing to do: give --do_train, --do_eval, --do_predict or --dry_run",)),
    Bad("training on nothing", "qa", "NOTHING --model_name_or_path {base} --do_train",
        ("--do_train needs --train_file or",)),
    Bad("evaluating on nothing", "ner", "--do_eval", ("--do_eval needs --validation_file",)),
    Bad("predicting nothing", "qa", "--do_predict", ("--do_predict needs --test_file or --dataset_name",)),
    Bad("a language adapter that predicts", "mlm", "--do_predict",
        ("--do_predict: a language adapter predicts nothing",)),
    Bad("a metric that is not computed", "qa", "--metric_for_best_model bleu",
        ("bleu: not computed here; choose from f1, exact",)),
    Bad("greater loss is better", "mlm", "--greater_is_better True",
        ("--greater_is_better True: must be False for loss",)),
    Bad("best without evaluation", "qa", "--load_best_model_at_end True",
        ("--load_best_model_at_end: evaluation (no) and checkp",)),
    Bad("best of other steps", "qa",
        "--do_eval --validation_file {stock}/dev.json --load_best_model_at_end --eval_strategy steps --eval_steps 2",
        ("--load_best_model_at_end: evaluation (steps) and checkpoints (epoch) must come together",)),
    Bad("patience without evaluation", "qa", "--early_stopping_patience 2",
        ("--early_stopping_patience needs evaluation while",)),
    Bad("patience of none", "qa", "--do_eval --validation_file {stock}/dev.json --early_stopping_patience 0",
        ("--early_stopping_patience 0: must be at least 1",)),
    Bad("half and half", "qa", "--fp16 --bf16", ("--bf16 and --fp16 exclude each other; give one",)),
    *(
        Bad(f"{name} {value}", "qa", f"--{name} {value}", (f"--{name} {said}",))
        for name, value, said in [
            ("learning_rate", "-1e-4", "-0.0001: must be at least 0"),
            ("learning_rate", "nan", "nan: must be a finite number"),
            ("learning_rate", "inf", "inf: must be a finite number"),
            ("weight_decay", "-1", "-1: must be at least 0"),
            ("weight_decay", "nan", "nan: must be a finite number"),
            ("num_train_epochs", "0", "0: must be above 0"),
            ("num_train_epochs", "-3", "-3: must be at least 0"),
            ("num_train_epochs", "nan", "nan: must be a finite number"),
            ("warmup_ratio", "1.5", "1.5: must be between 0 and 1"),
            ("warmup_steps", "-1", "-1: must be at least 0"),
            ("max_grad_norm", "-1", "-1: must be at least 0"),
            ("adam_beta1", "1.5", "1.5: must be between 0 and 1"),
            ("adam_epsilon", "-1e-8", "-1e-08: must be at least 0"),
            ("label_smoothing_factor", "2", "2: must be between 0"),
            ("seed", "-1", "-1: must be between 0 and 4294967295"),
            ("max_steps", "-7", "-7: must be at least -1"),
            ("logging_steps", "0", "0: must be above 0"),
            ("save_steps", "-1", "-1: must be above 0"),
            ("save_total_limit", "0", "0: must be at least 1"),
            ("per_device_train_batch_size", "0", "0: must be at least 1"),
            ("gradient_accumulation_steps", "-2", "-2: must be at least 1"),
            ("dataloader_num_workers", "-1", "-1: must be at"),
            ("max_train_samples", "0", "0: must be at least 1"),
            ("n_best_size", "0", "0: must be at least 1"),
            ("max_answer_length", "-1", "-1: must be at least 1"),
            ("null_score_diff_threshold", "nan", "nan: must be a finite"),
            ("adapter_reduction_factor", "inf", "inf: must be a finite number"),
        ]
    ),
    *(
        Bad(f"mlm, {name} {value}", "mlm", f"--{name} {value}", (f"--{name} {said}",))
        for name, value, said in [
            ("mlm_probability", "0", "0: must be above 0 and below 1"),
            ("mlm_probability", "1.5", "1.5: must be above 0 and below 1"),
            ("mlm_probability", "nan", "nan: must be a finite number"),
            ("block_size", "2", "2: must be at least 8"),
            ("validation_split_percentage", "100", "100: must be above 0 and below 100"),
            ("max_train_samples", "-1", "-1: must"),
        ]
    ),
    Bad("weights of classes negative", "ner", "--weighted_loss_constant -1",
        ("--weighted_loss_constant -1: must be at least 0",)),
    Bad("weights of classes NaN", "ner", "--weighted_loss_constant nan",
        ("--weighted_loss_constant nan: must be a finite",)),
    Bad("pieces of nothing", "ner", "--max_seq_length 4", ("--max_seq_length 4: must be at least 8",)),
    Bad("several at once", "qa",
        "--learning_rate -1 --max_answer_length 0 --train_file none.json --metric_for_best_model x",
        ("--learning_rate -1: must", "--max_answer_length 0: must", "none.json: no such file", "x: not computed here")),
    Bad("a folder that is a file", "qa", "--output_dir o", ("--output_dir o: is a file; give a folder",), {"o": b""}),
    Bad("a folder under a file", "qa", "--output_dir o/run", ("/o is a file; give another folder",), {"o": b""}),
    Bad("a folder of somebody else", "qa", "--output_dir .", ("is not empty and holds no run; give another folder",),
        {"o": b""}),
    Bad("a deepspeed file missing", "qa", "--deepspeed none.json",
        ("--deepspeed none.json: cannot be read", *NO_DEEPSPEED)),
    Bad("a deepspeed file that is none", "qa", "--deepspeed d.json",
        ("--deepspeed d.json: is not a DeepSpeed configuration", *NO_DEEPSPEED), {"d.json": [1]}),
    *(
        Bad(
            f"options file, {what}",
            "qa",
            f"NOTHING {name}",
            (f"{name}: {said}",),
            {} if content is None else {name: content},
        )
        for what, name, content, said in [
            ("missing", "o.yaml", None, "cannot be read: No such file"),
            ("empty", "o.yaml", b"", "the file is empty"),
            ("not YAML", "o.yaml", "seed: [", "cannot be read as options: while parsing"),
            ("not JSON", "o.json", "{seed: 1}", "cannot be read as options: not JSON at line 1, column 2"),
            ("a tag that runs code", "o.yaml", "seed: !!python/object/apply:os.mkdir [made]",
             "cannot be read as options: could not determine a constructor"),
        ("latin-1", "o.yaml", b"run: \xff", "not UTF-8 at byte 5"),
            ("a list", "o.yaml", "- seed", "holds a list; options are"),
            ("nested too deep", "o.json", "[" * 99999, "cannot be read as options: JSON that cannot be read"),
            ("text", "o.json", '"seed"', "holds text; options are a mapping"),
            ("an unknown key", "o.yaml", "learnin_rate: 1", "unknown option learnin_rate; did you mean learning_rate?"),
            ("a key that is a number", "o.yaml", "3: 1", "unknown option 3"),
            ("a list for one value", "o.yaml", "seed: [1, 2]", "seed is a list; the option takes one value"),
            ("a list of lists", "o.yaml", "fuse_adapters: [[a]]", "fuse_adapters must be a list of words"),
            (
                "a word that YAML takes for false",
                "o.yaml",
                "language: no",
                "language is false to YAML; put the word in quotes",
            ),
        ]
    ),
    Bad("options file, a wrong type", "qa", "NOTHING o.yaml", ("argument --seed: invalid int value: 'many'",),
        {"o.yaml": "seed: many\nmodel_name_or_path: m\n"}),
    Bad("options file, an object for a number", "qa", "NOTHING o.json --model_name_or_path m",
        ("argument --seed: invalid int value",),
        {"o.json": {"seed": {}}}),
    Bad("options file, two unknown keys", "qa", "NOTHING o.yaml",
        ("o.yaml: unknown option maddx2", "o.yaml: unknown option qqqqqq"), {"o.yaml": "maddx2: 1\nqqqqqq: 2"}),
    Bad("options file, a NUL", "qa", "NOTHING o.yaml --do_train --train_file {stock}/train.json",
        ("--output_dir a\\u0000b: has a NUL character or is not UTF-8",),
        {"o.yaml": 'model_name_or_path: m\noutput_dir: "a\\0b"\n'}),
]  # fmt: skip
ROWS = [*question_rows(), *FILES, *MODELS, *ADAPTERS, *OPTIONS]


def change_facts(folder: Path, /, **values: Any) -> None:
    path = folder / "adapter_setup.json"
    change_json(path, trainer={**json.loads(path.read_text(encoding="utf-8"))["trainer"], **values})


# ---------------------------------------------------------------- the stock that rows start from


def save(base: Path, folder: Path, task: str, *options: Any, random_init: bool = False) -> None:
    """A saved setup as a run leaves it, with random weights."""
    model_options = ModelOptions(str(base), random_init=random_init)
    model = load_model(model_options, task)
    setup = resolve_setup(task, read_base_config(model_options), *options, random_init=random_init)
    assert setup is not None
    build_setup(model, setup)
    facts = {"base_model": {"name_or_path": str(base), "revision": "main"}, "tokenizer": None, "language": None}
    save_setup(model, setup, folder, facts | ({"windows": WINDOWS} if task == "qa" else {}))


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, tiny_roberta: Path) -> Path:
    """Good data, a base model and saved adapters of every kind."""
    folder = tmp_path_factory.mktemp("corpus") / "stock"
    shutil.copytree(tiny_bert, folder / "base")
    base = folder / "base"
    write_squad(folder / "train.json", make_questions(12, 1))
    write_squad(folder / "dev.json", make_questions(4, 2))
    (folder / "text.txt").write_text("\n".join(one.context for one in make_questions(20, 3)), encoding="utf-8")
    (folder / "train.conll").write_text(CONLL * 4, encoding="utf-8")
    save(base, folder / "qa", "qa", AdapterOptions())
    save(base, folder / "madx2", "qa", AdapterOptions(madx2=True))
    save(base, folder / "houlsby", "qa", AdapterOptions(adapter_config="houlsby"))
    save(base, folder / "mlm", "mlm", AdapterOptions())
    fused = FusionOptions(fuse_adapters=["a=new", "b=new"])
    save(base, folder / "fusion", "qa", AdapterOptions(), LanguageAdapterOptions(), fused, random_init=True)
    old = LegacyModel(base)
    old.save_all(folder / "old", ("qa_squad", "ner_lener"))
    old.save_fusion(folder / "old" / old.fusion.name)
    return folder


@dataclass
class Place:
    """A working folder, and what a door does there."""

    stock: Path
    roberta: Path
    here: Path
    monkeypatch: pytest.MonkeyPatch

    def words(self, row: Bad) -> list[str]:
        paths = {name: self.stock / name for name in ("base", "qa", "mlm", "fusion", "houlsby", "madx2", "old")}
        good = "" if "NOTHING" in row.words else GOOD[row.door]
        line = f"{good} {row.words.replace('NOTHING', '')}".format(stock=self.stock, roberta=self.roberta, **paths)
        return shlex.split(line)

    def prepare(self, row: Bad) -> dict[str, bytes]:
        """Makes the row's files; returns all that is in the folder."""
        for name, content in row.files.items():
            text = content if isinstance(content, (str, bytes)) else json.dumps(content)
            (self.here / name).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        if row.make is not None:
            row.make(self.stock, self.here)
        return self.everything()

    def everything(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in self.here.rglob("*")}

    def run(self, row: Bad, *more: str) -> int:
        self.monkeypatch.setattr(sys, "argv", ["door.py", *self.words(row), *more])
        return run_cli(DOORS[row.door])


@pytest.fixture
def place(stock: Path, tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield Place(stock, tiny_roberta, tmp_path, monkeypatch)
    os.environ.clear()  # the library leaves its precision there, for whatever this process starts
    os.environ.update(before)


class ModelWasBuilt(BaseException):
    """Raised in place of building a model; nothing catches it."""


def no_model(*args: Any, **others: Any) -> None:
    raise ModelWasBuilt


# ---------------------------------------------------------------- the tests


def test_rows_have_distinct_names_and_cover_every_script() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert {row.door for row in ROWS} == set(DOORS)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_bad_input_is_said_in_lines_and_leaves_nothing(
    row: Bad, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    before = place.prepare(row)
    if not row.late:
        place.monkeypatch.setattr(PreTrainedModel, "__init__", no_model)
    assert place.run(row) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert lines and all(line.startswith("error: ") for line in lines), lines
    left = list(lines)
    for said in row.said:
        found = next((line for line in left if said in line), None)
        assert found is not None, (said, lines)
        left.remove(found)
    assert not left
    assert place.everything() == before


@pytest.mark.parametrize("door", ["qa", "mlm", "ner", "ask"])
def test_what_rows_start_from_is_good(door: str, place: Place) -> None:
    """Nothing but the row's own defect stands between the good words and the model."""
    words = "{qa} --question Onde? --context Ana." if door == "ask" else ""
    place.monkeypatch.setattr(PreTrainedModel, "__init__", no_model)
    with pytest.raises(ModelWasBuilt):
        place.run(Bad("good", door, words, ()))


@pytest.mark.parametrize("name", ["missing files, both", "convert, nothing", "ask, blank question", "several at once"])
def test_a_process_says_the_same(name: str, place: Place) -> None:
    row = next(row for row in ROWS if row.name == name)
    before = place.prepare(row)
    script = {"ask": "ask_qa", "convert": "convert_2021_adapters"}.get(row.door, f"run_{row.door}_adapter")
    done = run_script(f"{script}.py", *place.words(row), cwd=place.here)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (2, "", len(row.said))
    assert all(line.startswith("error: ") for line in lines)
    assert place.everything() == before


def test_debug_shows_the_traceback(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    row = Bad("", "qa", "--train_file q.json", (), {"q.json": b"{"})
    place.prepare(row)
    assert place.run(row) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert place.run(row, "--debug") == 2
    said = capsys.readouterr().err
    assert "Traceback (most recent call last):" in said and "json.decoder.JSONDecodeError: " in said
    assert said.splitlines()[-1].startswith("error: q.json: not JSON at line 1")


UNUSUAL: list[tuple[str, str, str, Any]] = [
    ("byte order mark", "qa", "q.json", b"\xef\xbb\xbf" + json.dumps([record()]).encode()),
    ("Windows line ends", "qa", "q.jsonl", json.dumps(record()) + "\r\n\r\n" + json.dumps(record(id="q2")) + "\r\n"),
    ("line separators in strings", "qa", "q.jsonl", json.dumps(record(context="Ana nasceu em Belém.\u2028\x85Fim."),
     ensure_ascii=False)),
    ("ids that are numbers", "qa", "q.json", [record(id=1), record(id=-2), record(id=10**30)]),
    ("no line end at the end", "qa", "q.jsonl", json.dumps(record())),
    ("a huge line", "qa", "q.jsonl", json.dumps(record(context="Ana nasceu em Belém. " * 20_000))),
    ("nested and flat mixed", "qa", "q.json",
     {"data": [*nested({"context": "Ana nasceu em Belém.", "qas": [record(id="n", context=...)]})["data"], record()]}),
    ("keys that nobody knows", "qa", "q.json", [record(year=2021, tags=[None], title=None)]),
    ("a paragraph without questions", "qa", "q.json",
     nested({"context": "x", "qas": []}, {"context": "Ana nasceu em Belém.", "qas": [record(context=...)]})),
    ("emoji and marks", "qa", "q.json", [record(context="Ana nasceu em Belém 👩‍👩‍👧 e\u0301 \u202ea\u202c \x00.")]),
    ("questions without a visible sign", "qa", "q.json", [record(question="\u200b\x00"), record(id="q2")]),
    ("an upper-case ending", "qa", "Q.JSON", [record()]),
    ("csv with a byte order mark and Windows line ends", "qa", "q.csv",
     b"\xef\xbb\xbfid,question,context,answer_text,answer_start\r\n1,?,Ana em Bel\xc3\xa9m.,Ana,0\r\n"),
    ("csv with line ends in a cell", "qa", "q.csv",
     'id,question,context,answer_text,answer_start\n1,?,"Ana, em\n""Belém"".",Ana,0\n'),
    ("most answers stand where they say", "qa", "q.json",
     [record(), record(id="q2", answers={"text": ["Recife"], "answer_start": [3]})]),
    ("byte order mark before text", "mlm", "t.txt", "\ufeff" + "Ana nasceu em Belém. " * 40),
    ("text with Windows line ends", "mlm", "t.txt", "Ana nasceu em Belém.\r\n\r\n" * 40),
    ("sentences with Windows line ends", "ner", "n.conll", CONLL.replace("\n", "\r\n")),
    ("sentences with a byte order mark", "ner", "n.conll", "\ufeff" + CONLL),
    ("columns by tabs", "ner", "n.conll", CONLL.replace(" ", "\tX\t")),
    ("words of odd blanks", "ner", "n.conll", "a\u2028b B-X\n1\u00a0000 O\n\x07 O\n"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "door", "name", "content"), UNUSUAL, ids=[row[0] for row in UNUSUAL])
def test_what_is_merely_unusual_works(what: str, door: str, name: str, content: Any, place: Place) -> None:
    """Such files get as far as the model."""
    row = Bad(what, door, f"--train_file {name}", (), {name: content})
    place.prepare(row)
    place.monkeypatch.setattr(PreTrainedModel, "__init__", no_model)
    with pytest.raises(ModelWasBuilt):
        place.run(row)


def test_answers_that_do_not_align_are_counted_and_left_out(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    lost = record(id="q2", answers={"text": ["Recife"], "answer_start": [3]})
    row = Bad("", "qa", "--train_file q.json --dry_run", (), {"q.json": [record(), lost, record(id="q3")]})
    place.prepare(row)
    assert place.run(row) == 0
    printed = capsys.readouterr()
    assert "note: q.json: 1 of 3 questions are left out of training, their answers are not at" in printed.err
    assert json.loads(printed.out.splitlines()[-1])["train"]["questions"] == 2


@pytest.mark.parametrize(
    "words", ["--fp16", "--use_cpu --bf16", "--load_best_model_at_end --do_eval --validation_file d.json"]
)
def test_switches_need_no_value(words: str, place: Place) -> None:
    row = Bad("", "qa", f"{words} --dry_run", (), {"d.json": [record()]})
    place.prepare(row)
    assert place.run(row) == 0


def test_yaml_takes_no_for_false_and_means_no(place: Place) -> None:
    text = f"model_name_or_path: {place.stock}/base\neval_strategy: no\nmax_seq_length: 64\noutput_dir: -x\n"
    row = Bad("", "qa", "NOTHING o.yaml --doc_stride 16 --dry_run", (), {"o.yaml": text})
    place.prepare(row)
    assert place.run(row) == 0

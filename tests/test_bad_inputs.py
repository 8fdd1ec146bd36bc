"""Bad input to every script: exit code 2, one line for each problem, no model is built and nothing is written.

The cases are a table. A row has the files in the working folder, the command line and the expected messages.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
from reference.legacy_saves import LegacyModel
from safetensors.torch import load_file, save_file
from support.questions import make_questions, write_squad
from support.scripts import override, run_main, run_script
from transformers import PreTrainedModel

import ask_qa
import convert_2021_adapters
import prepare_squad_pt
import run_mlm_adapter
import run_ner_adapter
import run_qa_adapter
from adapter_qa.config.options import AdapterOptions, FusionOptions, LanguageAdapterOptions, ModelOptions
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import build_setup
from adapter_qa.models.save import save_setup
from adapter_qa.models.setup_decisions import resolve_setup
from adapter_qa.models.tasks import Task

SCRIPTS: dict[str, Callable[[list[str]], int]] = {
    "qa": run_qa_adapter.main, "mlm": run_mlm_adapter.main, "ner": run_ner_adapter.main,
    "prepare": prepare_squad_pt.main, "ask": ask_qa.main, "convert": convert_2021_adapters.main,
}  # fmt: skip
CONLL = "Tribunal B-ORG\nde I-ORG\nBelém I-ORG\ndecidiu O\n. O\n\nAna B-PER\nnasceu O\n. O\n\n"
WINDOWS = {
    "max_seq_length": 64, "doc_stride": 16, "n_best_size": 20, "max_answer_length": 30, "version_2": False,
    "null_score_diff_threshold": 0.0,
}  # fmt: skip
# Valid command lines. A row adds to them or changes them.
VALID = {
    "qa": "--model_name_or_path {base} --do_train --train_file {fixtures}/train.json --max_seq_length 64 "
    "--doc_stride 16 --output_dir out",
    "mlm": "--model_name_or_path {base} --do_train --train_file {fixtures}/text.txt --block_size 32 --output_dir out",
    "ner": "--model_name_or_path {base} --do_train --train_file {fixtures}/train.conll --max_seq_length 64 "
    "--output_dir out",
    "prepare": "--output_dir out",
    "ask": "",
    "convert": "",
}


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        name: what is wrong.
        script: a key of `SCRIPTS`.
        argv: what is added to the script's valid command line; {fixtures} and other names in braces become paths.
        messages: parts of the expected lines, one for each line.
        files: names and contents of files in the working folder; contents that are neither bytes nor text become JSON.
        make: makes more files; its arguments are the folder of fixtures and the working folder.
        late: whether the problem can only be found after the model was built.
    """

    name: str
    script: str
    argv: str
    messages: tuple[str, ...]
    files: dict[str, Any] = field(default_factory=dict)
    make: Callable[[Path, Path], None] | None = None
    late: bool = False


def record(**changes: Any) -> dict[str, Any]:
    """Return a valid flat record with some keys changed; the value `...` removes a key."""
    valid = {
        "id": "q1", "question": "Onde nasceu Ana?", "context": "Ana nasceu em Belém.",
        "answers": {"text": ["Belém"], "answer_start": [14]},
    }  # fmt: skip
    return {key: value for key, value in {**valid, **changes}.items() if value is not ...}


def nested(*paragraphs: Any) -> dict[str, Any]:
    return {"data": [{"title": "", "paragraphs": list(paragraphs)}]}


# Name, file name, content, message. tests/data/test_squad.py has all defects of question files; these are examples.
QUESTIONS: list[tuple[str, str, Any, str]] = [
    ("empty file", "q.json", b"", "q.json: the file is empty"),
    ("a truncated file", "q.json", '[{"id": "q"},', "Expecting value; the file seems to be cut off"),
    ("a broken line", "q.jsonl", json.dumps(record()) + '\n{"id":\n', "q.jsonl: line 2: not JSON at column 7"),
    ("no paragraphs", "q.json", nested(), "q.json: holds no questions"),
    ("question null", "q.json", [record(question=None)], "(id 'q1'): 'question' is null; it must be text"),
    ("semicolons", "q.csv", "id;question;texto\n1;?;x\n", "q.csv: no column context; found: id, question, texto; "),
]
ANSWERS: list[tuple[str, str, Any, str]] = [
    ("no answers", "q.json", [record(answers=...)], "(id 'q1'): no 'answers'"),
    *(
        (
            f"answer_start {defect}",
            "q.json",
            [record(answers={"text": ["Belém"], "answer_start": [start]})],
            "q.json: no answer is found at its answer_start; run prepare_squad_pt.py",
        )
        for defect, start in [("out of the context", 400), ("negative", -6), ("off by one", 13)]
    ),
    (
        "no answer in v1",
        "q.json",
        [record(answers={"text": [], "answer_start": []})],
        "q.json: 1 questions have no answer; SQuAD v2 data needs --version_2_with_negative True",
    ),
]


def question_cases() -> list[Case]:
    """Return invalid question files for every script that reads questions."""
    cases = []
    for defect, name, content, message in QUESTIONS + ANSWERS:
        cases.append(Case(f"qa, {defect}", "qa", f"--train_file {name}", (message,), {name: content}))
    for defect, name, content, message in QUESTIONS:
        cases.append(Case(f"ask, {defect}", "ask", f"{{qa}} --input {name}", (message,), {name: content}))
    for defect, name, content, message in QUESTIONS[:3]:
        cases.append(Case(f"mlm, {defect}", "mlm", f"--train_file {name}", (message,), {name: content}))
    for defect, name, content, message in QUESTIONS[:2]:
        cases.append(Case(f"prepare, {defect}", "prepare", name, (message,), {name: content}))
    return cases


Damage = Callable[[Path], Any]  # changes a folder


def update(document: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return a document with some keys changed; the value `...` removes a key."""
    return {key: value for key, value in {**document, **values}.items() if value is not ...}


def change_json(path: Path, /, **values: Any) -> None:
    path.write_text(json.dumps(update(json.loads(path.read_text(encoding="utf-8")), values)))


def change_metadata(folder: Path, /, **values: Any) -> None:
    """Change what the trainer has written into a folder's adapter_setup.json."""
    path = folder / "adapter_setup.json"
    change_json(path, trainer={**json.loads(path.read_text(encoding="utf-8"))["trainer"], **values})


def copied(source: str, *damages: Damage) -> Callable[[Path, Path], None]:
    """Copy a folder of the fixtures to ./copy and damage the copy."""

    def make(fixtures: Path, folder: Path) -> None:
        shutil.copytree(fixtures / source, folder / "copy")
        for damage in damages:
            damage(folder / "copy")

    return make


def with_json(name: str, /, **values: Any) -> Damage:
    return lambda folder: change_json(folder / name, **values)


def with_metadata(**values: Any) -> Damage:
    return lambda folder: change_metadata(folder, **values)


def with_config(name: str, /, **values: Any) -> Damage:
    """Change the adapter configuration in an adapter_config.json."""

    def damage(folder: Path) -> None:
        config = json.loads((folder / name).read_text(encoding="utf-8"))["config"]
        change_json(folder / name, config=update(config, values))

    return damage


def with_bytes(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def with_index(file: str) -> Damage:
    """Write an index of the model's weight files that names a single file."""
    return with_bytes("model.safetensors.index.json", json.dumps({"weight_map": {"a": file}}).encode())


def cut(name: str, size: int) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def without(*names: str) -> Damage:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


def with_weights(name: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Damage:
    return lambda folder: save_file(change(load_file(folder / name)), folder / name)


def renamed(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda state: {key.replace(old, new): weight for key, weight in state.items()}


def as_bin(name: str, binary: str, content: bytes) -> Damage:
    """Replace a safetensors file by a .bin file."""

    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / binary).write_bytes(content)

    return damage


def slow_tokenizer(folder: Path) -> None:
    """Replace a tokenizer by a class that has no fast version."""
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
    Case("missing file", "qa", "--train_file none.json", ("--train_file none.json: no such file",)),
    Case("a folder in place of a file", "qa", "--train_file {fixtures}", ("fixtures: is a folder; give the files in",)),
    Case("missing files, both", "qa", "--do_eval --train_file a.json --validation_file b.json",
        ("--train_file a.json: no such file", "--validation_file b.json: no such file")),
    Case("bad files, both", "qa", "--do_eval --train_file a.json --validation_file b.json",
        ("a.json: the file is empty", "b.json: not JSON"), {"a.json": b"", "b.json": b"{"}),
    Case("bad evaluation file", "qa", "--do_eval --validation_file b.json", ("b.json: holds no questions",),
        {"b.json": []}),
    Case("bad test file", "qa", "--do_predict --test_file t.json", ("t.json: data[0]: no 'id'",),
        {"t.json": [record(id=...)]}),
    Case("unsupported file extension", "qa", "--train_file q.xml",
        ("q.xml: extension '.xml'; allowed: .json, .jso",), {"q.xml": b"<"}),
    Case("no table", "qa", "--train_file q.parquet", ("q.parquet: not a readable .parquet table: ",),
        {"q.parquet": b"PAR1"}),
    Case("a file twice", "qa", "--train_file {fixtures}/train.json {fixtures}/*.json",
        ("train.json: is given 2 times",)),
    Case("data set that is no folder", "qa", "--do_eval --dataset_name ./none",
        ("--dataset_name ./none: no such folder",)),
    Case("more than ten problems", "qa", "--train_file q.json",
        (*(f"q.json: data[{number}]: no 'id'" for number in range(10)), "q.json: and 3 more problems"),
        {"q.json": [{}] * 13}),
    Case("path that is too long", "qa", f"--train_file {'x' * 300}.json",
        (f"{'x' * 300}.json: no such file; give the path of a file",)),
    Case("unsupported extension of a text file", "mlm", "--train_file t.pdf",
        ("t.pdf: extension '.pdf'; allowed: .txt",),
        {"t.pdf": b"x"}),
    Case("JSON without text", "mlm", "--train_file t.jsonl", ("t.jsonl: line 1: no 'text' or 'context'; found: corpo",),
        {"t.jsonl": '{"corpo": "x"}'}),
    Case("empty text file", "mlm", "--train_file t.txt", ("t.txt: the file is empty",), {"t.txt": b"\n \n"}),
    Case("text in latin-1", "mlm", "--train_file t.txt", ("t.txt: not UTF-8 at byte 1",), {"t.txt": b"S\xe3o"}),
    Case("too little text", "mlm", "--train_file t.txt", ("not enough for one block of --block_size 32",),
        {"t.txt": "Ana"}),
    Case("text for one block only", "mlm", "--do_eval --train_file t.txt",
        ("t.txt: 1 blocks cannot be split; give --validation_file",), {"t.txt": "Ana nasceu. " * 10}),
    Case("empty sentences file", "ner", "--train_file n.conll", ("n.conll: the file is empty",), {"n.conll": b"\n\n"}),
    Case("sentences file with document marks only", "ner", "--train_file n.conll", ("n.conll: holds no sentence",),
        {"n.conll": "-DOCSTART- O\n"}),
    Case("two sentences with bad labels", "ner", "--train_file n.conll",
        ("n.conll, line 1: a has label X", "n.conll, line 3: b has l"), {"n.conll": "a X\n\nb Y\n"}),
    Case("sentences without labels", "ner", "--train_file n.json", ("n.json, data[0]: no labels",),
        {"n.json": [{"tokens": ["a"]}]}),
    Case("no entities", "ner", "--train_file n.conll", ("n.conll: names no entity, all labels are O",),
        {"n.conll": "a O\nb O\n"}),
    Case("names for labels that are text", "ner", "--label_names O B-X",
        ("--label_names: is for labels that are numbers; those of the data are text; leave it out",)),
    Case("labels that are numbers", "ner", "--train_file n.jsonl",
        ("n.jsonl: labels are numbers, 0 to 3; give their names in this order: --label_names",),
        {"n.jsonl": b'{"tokens": ["a", "b"], "ner_tags": [0, 3]}'}),
    Case("a running index before the words", "ner", "--train_file n.tsv",
        ("n.tsv: the first column is a running index, not words; give --word_column and --label_column",),
        {"n.tsv": "1\ta\tB-X\n2\tb\tO\n"}),
    Case("the key of a column without a name", "ner", "--word_column tokens",
        ("--word_column tokens: ",)),
    Case("prepare, missing file", "prepare", "none.json", ("none.json: no such file",)),
    Case("prepare, a folder", "prepare", "{fixtures}", ("fixtures: is a folder; give one of its files",)),
    Case("prepare, unsupported extension", "prepare", "q.xml",
        ("q.xml: extension '.xml'; allowed: .json, .jsonl, .nd",),
        {"q.xml": b"<"}),
    Case("prepare, invalid tar.gz", "prepare", "q.tar.gz", ("q.tar.gz: not a readable archive: Not a gzipped file",),
        {"q.tar.gz": b"no archive"}),
    Case("prepare, invalid zip", "prepare", "q.zip", ("q.zip: not a readable archive: File is not a zip file",),
        {"q.zip": b"PK"}),
    Case("prepare, unknown split", "prepare", "q.json --split dev",
        ("argument --split: invalid choice: 'dev' (choose from 'train',",), {"q.json": [record()]}),
    Case("prepare, no arguments", "prepare", "", ("the following arguments are required: FILE",)),
    Case("prepare, unknown option", "prepare", "q.json --stride 3", ("unrecognized arguments: --stride 3",)),
    Case("ask, no arguments", "ask", "", ("give RUN, the folder of a run, or --base", "give either --question with")),
    Case("ask, no question", "ask", "{qa}", ("give either --question with --context, or --input",)),
    Case("ask, question without context", "ask", "{qa} --question Onde?", ("--question and --context go together",)),
    Case("ask, blank question", "ask", "{qa} --question ' ' --context ''",
        ("--question is empty", "--context is empty")),
    Case("ask, question and input file", "ask", "{qa} --question a --context b --input q.jsonl",
        ("give either --question with --context",)),
    Case("ask, batch size 0", "ask", "{qa} --question a --context b --batch_size 0",
        ("--batch_size 0: must be at least 1",)),
    Case("ask, batch size that is not a number", "ask", "{qa} --question a --context b --batch_size x",
        ("--batch_size: invalid int value",)),
    Case("ask, output exists", "ask", "{qa} --question a --context b --output o",
        ("--output o: exists; add --overwrite",), {"o": b""}),
    Case("ask, output in a missing folder", "ask", "{qa} --question a --context b --output no/o",
        ("--output no/o: there is no folder no",)),
    Case("ask, missing file", "ask", "{qa} --input none.jsonl",
        ("none.jsonl: cannot be read: No such file or directory",)),
    Case("ask, NaN in a record", "ask", "{qa} --input q.jsonl",
        ("q.jsonl: line 1: has a value that JSON cannot represent",),
        {"q.jsonl": json.dumps(record(weight=float("nan")))}),
    Case("ask, empty question file and missing context file", "ask",
        "{qa} --question_file q.txt --context_file none.txt",
        ("q.txt: the file is empty", "none.txt: cannot be read: No such file or directory"), {"q.txt": b" \n"}),
    Case("ask, context file not in UTF-8", "ask", "{qa} --question Onde? --context_file t.txt", ("t.txt: not UTF-8",),
        {"t.txt": b"Bel\xe9m"}),
    Case("ask, texts given twice", "ask", "{qa} --question a --context b --context_file t.txt --question_file q.txt",
        ("--question and --question_file exclude each other", "--context and --context_file exclude each other")),
    Case("ask, standard input twice", "ask", "{qa} --question_file - --context -",
        ("--question_file and --context: only one of them can read standard input (-)",)),
    Case("ask, invalid numbers", "ask",
        "{qa} --question a --context b --n_best 0 --null_score_diff_threshold nan --device gpu --port 80",
        ("--n_best 0: must be at least 1", "--null_score_diff_threshold nan: must be a finite number",
         "--device gpu: give cpu, cuda or cuda:N", "--port goes with --serve")),
    Case("ask, missing device", "ask", "{qa} --question a --context b --device cuda:99",
        ("--device cuda:99: no such device here; give cpu",)),
    Case("ask, two runs", "ask", "{qa} {fusion} --question a --context b", ("only one model can answer here",)),
    Case("ask, a run and a base", "ask", "{qa} --base {base} --question a --context b",
        ("only one model can answer here",)),
    Case("ask, base without a head", "ask", "--base {base} --question a --context b",
        ("was not trained to answer questions (architectures in its config.json: ['BertForMaskedLM'])",)),
    Case("ask, run given as base", "ask", "--base {qa} --question a --context b",
        ("holds adapters; give it as RUN, without --base",)),
    Case("ask, missing base", "ask", "--base ./none --question a --context b",
        ("--base ./none: no such folder; give a model folder or a hub id",)),
    Case("ask, options of a run for a base", "ask",
        "--base {base} --model_name_or_path x --load_lang_adapter y --question a --context b",
        ("--model_name_or_path goes with RUN, not with --base; leave it out", "--load_lang_adapter goes with RUN")),
    Case("ask, fine-tuned model given as run", "ask", "copy --question a --context b",
        ("copy: is a fully fine-tuned model but not from a run; only ask_qa.py takes it, as --base copy",),
        make=copied("base", with_json("config.json", architectures=["BertForQuestionAnswering"]))),
    Case("ask, base whose head weights are missing", "ask", "--base copy --question a --context b",
        ("2 weights are missing or of another shape, e.g. qa_outputs.bias",), late=True,
        make=copied("base", with_json("config.json", architectures=["BertForQuestionAnswering"]))),
    Case("ask, a threshold without v2", "ask", "{qa} --question a --context b --null_score_diff_threshold 1",
        ("qa was not trained on questions without an answer (SQuAD v2); add --version_2_with_negative",)),
    Case("ask, web page and question", "ask", "{qa} {qa} --serve --question a --context b --port 99999",
        ("qa: given several times", "--serve: the page asks for questions; leave out --question, --context",
         "--port 99999: must be from")),
    Case("ask, missing run", "ask", "nowhere --question a --context b", ("RUN nowhere: no such folder",)),
    Case("ask, folder without saved adapters", "ask", "{fixtures} --question a --context b",
        ("fixtures: holds no adapter_setup.json",)),
    Case("ask, a language adapter", "ask", "{mlm} --question a --context b",
        ("was not trained to answer questions; it holds",)),
    Case("convert, no arguments", "convert", "", ("the following arguments are required: OLD, NEW",)),
    Case("convert, missing folder", "convert", "nowhere new", ("OLD nowhere: no such folder",)),
    Case("convert, new folder exists", "convert", "{old} here", ("NEW here: exists already",), {"here": b""}),
    Case("convert, no adapters of the old format", "convert", "{qa} new",
        ("holds no adapters of adapter-transformers 2.x",)),
]  # fmt: skip
MODELS = [
    Case("missing model folder", "qa", "--model_name_or_path ./none", ("--model_name_or_path ./none: no such folder",)),
    Case("model that is not in the cache", "qa", "--model_name_or_path no/model",
        ("--model_name_or_path no/model: no config.json of",)),
    Case("no config.json", "ner", MODEL, ("config.json: cannot be read: No such file",),
        make=copied("base", without("config.json"))),
    Case("config.json cut off", "qa", MODEL, ("config.json: not JSON at line",),
        make=copied("base", cut("config.json", 40))),
    Case("config.json with a list", "qa", MODEL, ("config.json: holds a list where an object",),
        make=copied("base", with_bytes("config.json", b"[]"))),
    Case("config.json nested too deep", "qa", MODEL, ("config.json: JSON that cannot be read: maximum recursion",),
        make=copied("base", with_bytes("config.json", b"[" * 99999))),
    Case("no weights", "mlm", MODEL, ("copy: holds no weights (model.safetensors)",),
        make=copied("base", without("model.safetensors"))),
    Case("unsupported architecture", "qa", MODEL, ("config.json: model_type gpt2: it is a language model",),
        make=copied("base", with_json("config.json", model_type="gpt2"))),
    Case("no architecture", "qa", MODEL, ("config.json: names no model_type; add it if it is one of these",),
        make=copied("base", with_json("config.json", model_type=...))),
    Case("no layers", "qa", MODEL, ("config.json: num_hidden_layers 0; must be a whole number",),
        make=copied("base", with_json("config.json", num_hidden_layers=0))),
    Case("hidden_size that is not a number", "qa", MODEL,
        ("config.json: hidden_size 'big'; must be a whole number",),
        make=copied("base", with_json("config.json", hidden_size="big"))),
    Case("hidden_size not divisible by the heads", "qa", MODEL,
        ("config.json: hidden_size 32 is not divisible by num_attention_heads 3",),
        make=copied("base", with_json("config.json", num_attention_heads=3))),
    Case("size that does not fit into memory", "qa", MODEL + " --random_init True",
        ("config.json: intermediate_size 1000000000000; must be",),
        make=copied("base", with_json("config.json", intermediate_size=10**12))),
    Case("config.json key that can run code", "qa", MODEL,
        ("config.json: sets _attn_implementation_internal, which can run code",),
        make=copied("base", with_json("config.json", _attn_implementation_internal="org/evil"))),
    Case("second config.json key that can run code", "qa", MODEL,
        ("config.json: sets _attn_implementation, which can run code",),
        make=copied("base", with_json("config.json", _attn_implementation={"": "org/evil"}))),
    Case("key that can run code in --config_name", "mlm", "--config_name copy",
        ("config.json: sets _attn_implementation_internal, which",),
        make=copied("base", with_json("config.json", _attn_implementation_internal="org/evil"))),
    Case("a quantized model", "qa", MODEL, ("config.json: is of a quantized model",),
        make=copied("base", with_json("config.json", quantization_config={"quant_method": "bitsandbytes"}))),
    Case("unknown activation in config.json", "qa", MODEL, ("copy: the weights cannot be loaded (KeyError: 'gellu')",),
        make=copied("base", with_json("config.json", hidden_act="gellu")), late=True),
    Case("unknown dtype in config.json", "qa", MODEL, ("copy: no model can be made from its config.json",),
        make=copied("base", with_json("config.json", dtype="float12"))),
    Case("two problems of a model folder", "ner", MODEL, ("model_type t5: it writes answers", "copy: holds no weights"),
        make=copied("base", with_json("config.json", model_type="t5"), without("model.safetensors"))),
    Case("model saved together with adapters", "qa", MODEL, ("a model saved together with its adapters",),
        make=copied("base", with_json("config.json", adapters={"adapters": {"qa": "pfeiffer"}}))),
    Case("model weights cut off", "qa", MODEL, ("model.safetensors: the weights cannot be read",),
        make=copied("base", cut("model.safetensors", 5000))),
    Case("model weights empty", "qa", MODEL, ("model.safetensors: the weights cannot be read",),
        make=copied("base", with_bytes("model.safetensors", b""))),
    Case("model .bin file that is not a pickle", "qa", MODEL, ("copy: the weights cannot be loaded",),
        make=copied("base", as_bin("model.safetensors", "pytorch_model.bin", b"no weights")), late=True),
    Case("weights of another size", "qa", MODEL,
        ("12 weights are missing or of another shape, e.g. bert.encoder.layer.0.intermediate.dense.bias",),
        make=copied("base", with_json("config.json", intermediate_size=128)), late=True),
    Case("weights of another model", "qa", MODEL,
        ("its weights have roberta.embeddings where bert.embeddings is expected",),
        make=copied("base", with_weights("model.safetensors", renamed("bert.", "roberta."))), late=True),
    Case("missing file of sharded weights", "qa", MODEL,
        ("model-2.safetensors: is missing, but the folder's index names it",),
        make=copied("base", without("model.safetensors"), with_index("model-2.safetensors"))),
    Case("weights index with a path outside the folder", "qa", MODEL,
        ("'weight_map' must be an object of weights with the names of files",),
        make=copied("base", without("model.safetensors"), with_index("../stolen.safetensors"))),
    Case("tokenizer without fast version", "qa", "--tokenizer_name copy",
        ("copy: the tokenizer has no fast version, which windows need",), make=copied("base", slow_tokenizer)),
    Case("no tokenizer", "qa", "--tokenizer_name copy", ("copy: no tokenizer can be loaded",),
        make=copied("base", without(*TOKENIZER_FILES))),
    Case("tokenizer.json cut off", "qa", "--tokenizer_name copy", ("copy: no tokenizer can be loaded",),
        make=copied("base", cut("tokenizer.json", 300))),
    Case("tokenizer.json of an unknown type", "mlm", "--tokenizer_name copy", ("copy: no tokenizer can be loaded",),
        make=copied("base", with_bytes("tokenizer.json", b'{"model": {"type": "Magic"}}'))),
    Case("tokenizer of another model", "qa", "--tokenizer_name {roberta}",
        ("tokens, the base model 150; give the model's own",)),
    Case("tokenizer without a mask", "ner", "--tokenizer_name copy",
        ("copy: the tokenizer has no mask_token; it belongs to",),
        make=copied("base", with_json("tokenizer_config.json", mask_token=None), without("special_tokens_map.json"))),
    Case("window above the maximum", "qa", "--max_seq_length 129",
        ("--max_seq_length 129: the base model reads at most 128",)),
    Case("block above the maximum", "mlm", "--block_size 512",
        ("--block_size 512: the base model reads at most 128 tokens",)),
    Case("stride too large", "qa", "--doc_stride 61",
        ("--doc_stride 61 leaves no space in --max_seq_length 64; give a stride",)),
    Case("stride negative", "qa", "--doc_stride -1", ("--doc_stride -1: must be at least 0",)),
    Case("max_seq_length without space for a context", "qa", "--max_seq_length 2 --doc_stride 0",
        ("leaves no space in --max_seq_length 2; give a length of at least 5",)),
]  # fmt: skip

NO_DEEPSPEED = ("the package is not installed",) if importlib.util.find_spec("deepspeed") is None else ()
COPY = "--do_eval --validation_file {fixtures}/dev.json --do_train False --load_adapter copy"
ADAPTERS = [
    Case("no such adapter", "qa", "--load_adapter ./none",
        ("--load_adapter ./none: no such folder; give an adapters-<task>",)),
    Case("an adapter of another size", "qa", "--load_adapter {qa}/qa --model_name_or_path copy",
        ("its hidden_size is 32, the",), make=copied("base", with_json("config.json", hidden_size=64))),
    Case("an adapter of another encoder", "qa", "--load_lang_adapter {mlm} --model_name_or_path {roberta}",
        ("its model_type is bert, the base model's roberta",)),
    Case("a task adapter as language adapter", "qa", "--load_lang_adapter {qa}",
        (": holds qa, the adapter of a BertForQuestionAnswering, not a language adapter; give the folder of a",)),
    Case("an adapter of more layers", "qa", "--load_adapter {qa}/qa --model_name_or_path copy",
        ("has weights for 4 layers, the",), make=copied("base", with_json("config.json", num_hidden_layers=3))),
    Case("an adapter of fewer layers", "qa", "--load_adapter {qa}/qa --model_name_or_path copy",
        ("weights are missing for layer 4",), make=copied("base", with_json("config.json", num_hidden_layers=5))),
    Case("adapter configuration missing", "qa", COPY, ("adapter_config.json: cannot be read: No such file",),
        make=copied("qa", without(CONFIG))),
    Case("adapter configuration cut off", "qa", COPY, ("adapter_config.json: not JSON",),
        make=copied("qa", cut(CONFIG, 50))),
    Case("adapter that is not a bottleneck adapter", "qa", COPY,
        ("copy/qa: not a bottleneck adapter (pfeiffer, houlsby), LoRA or (IA)3",),
        make=copied("qa", with_json(CONFIG, config={"architecture": "prefix_tuning", "bottleneck_size": 8}))),
    Case("adapter configuration, architecture", "qa", COPY,
        ("invalid configuration of a bottleneck adapter: architecture 'reft'",),
        make=copied("qa", with_config(CONFIG, architecture="reft"))),
    Case("adapter configuration, lora with the keys of a bottleneck", "qa", COPY,
        ("copy/qa: invalid configuration of LoRA or (IA)3: ",),
        make=copied("qa", with_config(CONFIG, architecture="lora"))),
    Case("adapter configuration of LoRA without its weights", "qa", COPY,
        ("weights are missing for layer 0, 1, 2 ...",),
        make=copied("qa", with_json(CONFIG, config={"architecture": "lora", "r": 8}))),
    Case("adapter configuration, unknown key", "qa", COPY,
        ("invalid configuration of a bottleneck adapter: to_dict 1",),
        make=copied("qa", with_config(CONFIG, to_dict=1))),
    Case("adapter configuration, reduction factor 0", "qa", COPY,
        ("invalid configuration of a bottleneck adapter: reduction_factor 0",),
        make=copied("qa", with_config(CONFIG, reduction_factor=0))),
    Case("adapter configuration, tiny reduction factor", "qa", COPY,
        ("invalid configuration of a bottleneck adapter: reduction_factor 1e-09",),
        make=copied("qa", with_config(CONFIG, reduction_factor=1e-9))),
    Case("adapter configuration, leave_out is text", "qa", COPY,
        ("invalid configuration of a bottleneck adapter: leave_out 'last'",),
        make=copied("qa", with_config(CONFIG, leave_out="last"))),
    Case("adapter configuration, unknown activation", "qa", COPY,
        ("invalid configuration of a bottleneck adapter: non_linearity 'gellu'",),
        make=copied("qa", with_config(CONFIG, non_linearity="gellu"))),
    Case("head weights cut off", "qa", COPY, ("model_head.safetensors: the weights cannot be read",),
        make=copied("qa", cut("model_head.safetensors", 90))),
    Case("no head weights", "qa", COPY, ("copy: holds no model_head.safetensors or pytorch_model_head.bin",),
        make=copied("qa", without("model_head.safetensors"))),
    Case("fusion weights cut off", "qa", COPY, ("model_adapter_fusion.safetensors: the weights cannot be read",),
        make=copied("fusion", cut("a,b/model_adapter_fusion.safetensors", 90))),
    Case("fusion configuration missing", "qa", COPY, ("adapter_fusion_config.json: cannot be read: No such file",),
        make=copied("fusion", without("a,b/adapter_fusion_config.json"))),
    Case("no adapter weights", "qa", COPY, ("copy/qa: holds no adapter.safetensors or pytorch_adapter.bin",),
        make=copied("qa", without(ADAPTER))),
    Case("adapter weights empty", "qa", COPY, ("adapter.safetensors: the weights cannot be read",),
        make=copied("qa", with_bytes(ADAPTER, b""))),
    Case("adapter weights cut off", "qa", COPY, ("adapter.safetensors: the weights cannot be read",),
        make=copied("qa", cut(ADAPTER, 2000))),
    Case("adapter .bin of text", "qa", COPY, ("pytorch_adapter.bin: cannot be read",),
        make=copied("qa", as_bin(ADAPTER, "qa/pytorch_adapter.bin", b"hello"))),
    Case("adapter .bin empty", "qa", COPY, ("pytorch_adapter.bin: cannot be read",),
        make=copied("qa", as_bin(ADAPTER, "qa/pytorch_adapter.bin", b""))),
    Case("adapter weights of another name", "qa", COPY, ("copy/qa: weights are missing for layer 0 (output_adapter)",),
        make=copied("qa", with_weights(ADAPTER, renamed(".qa.", ".x.")))),
    Case("half of the adapter weights", "qa", COPY, ("copy/qa: weights are missing for layer",),
        make=copied("qa", with_weights(ADAPTER, lambda state: dict(sorted(state.items())[:6])))),
    Case("setup cut off", "qa", COPY, ("adapter_setup.json: not JSON",),
        make=copied("qa", cut("adapter_setup.json", 90))),
    Case("setup with other metadata", "qa", COPY, ("adapter_setup.json: not written by this trainer, or damaged",),
        make=copied("qa", with_json("adapter_setup.json", trainer=[]))),
    Case("adapter name that is a path", "qa", COPY,
        ("adapter_setup.json: is damaged: its composition ['../qa'] and its adapters ['qa'] disagree",),
        make=copied("qa", with_json("adapter_setup.json", adapter_setup={"type": "single", "children": ["../qa"]}))),
    Case("head_config.json with label ids that are text", "qa", COPY,
        ("head_config.json: not written by this trainer, or damaged",),
        make=copied("qa", with_json("head_config.json", label2id={"A": "one"}))),
    Case("a language adapter to evaluate", "qa",
        "--do_eval --validation_file {fixtures}/dev.json --do_train False --load_adapter {mlm}",
        ("is a language adapter; give it as --load_lang_adapter, which puts an adapter for question answering on it",)),
    Case("fusion in place of an adapter", "qa", "--fuse_adapters a={fusion} b={qa}",
        ("holds a fusion; give one of its adapters",)),
    Case("adapters of different kinds", "qa", "--fuse_adapters a={qa} b={houlsby}",
        ("adapters of different kinds cannot be fused",)),
    Case("adapters in different layers", "qa", "--fuse_adapters a={qa} b={madx2}",
        ("layer 3 (output_adapter): a has a module there, but b, the last",)),
    Case("fused adapter with the language adapter's name", "qa",
        "--load_lang_adapter {mlm} --fuse_adapters mlm={madx2} b={qa}",
        ("adapters need different names, given are mlm, mlm, b",)),
    Case("fusion of a single adapter", "qa", "--fuse_adapters a={qa}",
        ("--fuse_adapters: 1 adapter given; a fusion needs two or more",)),
    Case("--fuse_adapters with a name twice", "qa", "--fuse_adapters a={qa} a={qa}",
        ("the name a is used twice; each adapter needs its",)),
    Case("--fuse_adapters without names", "qa", "--fuse_adapters {qa} {qa}",
        ("write NAME=PATH, the name of letters, digits", "write NAME")),
    Case("--fuse_adapters name that is a path", "qa", "--fuse_adapters ../a={qa} b={qa}", ("--fuse_adapters ../a=",)),
    Case("--fuse_adapters name that is too long", "qa", f"--fuse_adapters {'a' * 121}={{qa}} b={{qa}}",
        ("write NAME=PATH, the name of letters",)),
    Case("two missing adapters", "qa", "--fuse_adapters a=./x b=./y",
        ("--fuse_adapters a ./x: no such folder", "--fuse_adapters b ./y")),
    Case("new without random_init", "qa", "--fuse_adapters a=new b=new",
        ("a new adapter can replace a saved one only with",) * 2),
    Case("fusing and loading", "qa", "--fuse_adapters a={qa} b={qa} --load_adapter {qa}",
        ("exclude each other; a saved fusion",)),
    Case("loading without adapters", "qa", "--train_adapter False --load_adapter {qa}",
        ("--load_adapter requires --train_adapter",)),
    Case("adapter_composition fuse without fuse_adapters", "qa", "--adapter_composition fuse",
        ("--adapter_composition fuse needs --fuse_adapters",)),
    Case("a parallel adapter on a language adapter", "ner", "--load_lang_adapter {mlm} --adapter_config c.json",
        ("Stack[mlm, ner]: ner is parallel, and would leave mlm without effect at layer 0 (output_adapter)",),
        {"c.json": adapters.ParBnConfig().to_dict()}),
    Case("an inverse on a language adapter", "qa", "--load_lang_adapter {mlm} --adapter_config houlsby+inv",
        ("qa: its invertible adapter would have no effect, because only that of the first adapter, mlm, is used",)),
    Case("an adapter in no layer", "mlm", "--adapter_config c.json",
        ("mlm: has no module in any of the 4 layers of the base model",),
        {"c.json": adapters.SeqBnConfig(leave_out=[0, 1, 2, 3]).to_dict()}),
    Case("an invertible adapter of the kind glow", "mlm", "--adapter_config c.json",
        ("c.json: inv_adapter glow fails on sequences of tokens; give nice",),
        {"c.json": adapters.SeqBnInvConfig(inv_adapter="glow").to_dict()}),
    Case("an adapter twice", "qa", "--fuse_adapters a={qa} b={qa}", ("a and b are the same adapter",)),
    Case("unknown adapter activation", "ner", "--adapter_non_linearity gellu",
        ("--adapter_non_linearity gellu: no such",)),
    Case("unknown adapter configuration", "ner", "--adapter_config pfeifer",
        ("--adapter_config pfeifer: give pfeiffer, pfeiffer+inv, houlsby",)),
    Case("adapter configuration file that is not JSON", "ner", "--adapter_config c.json",
        ("c.json: not JSON",), {"c.json": b"{"}),
    Case("reduction factor 0", "mlm", "--adapter_reduction_factor 0",
        ("--adapter_reduction_factor 0: must be at least 0.0625",)),
    Case("a saved adapter of another reduction", "qa", "--load_adapter {qa} --adapter_reduction_factor 2",
        ("--adapter_* options ask for reduction_factor 2.0, but",)),
    Case("houlsby_MHA_lastlayer with a pfeiffer adapter", "qa", "--houlsby_MHA_lastlayer True",
        ("--houlsby_MHA_lastlayer: qa is not a houlsby adapter",)),
    Case("ask, window options that are text", "ask", "copy --question a --context b",
        ("Expected `int`, got `str` - at `$.trainer.windows.doc_stride`",),
        make=copied("qa", with_metadata(windows={**WINDOWS, "doc_stride": "16"}))),
    Case("ask, windows longer than the base model allows", "ask", "copy --question a --context b",
        ("its windows have 512 tokens, the base model reads 128",),
        make=copied("qa", with_metadata(windows={**WINDOWS, "max_seq_length": 512}))),
    Case("ask, saved adapters without a base model", "ask", "copy --question a --context b",
        ("does not name the base model of its adapters",),
        make=copied("qa", with_metadata(base_model={}))),
    Case("ask, base model that is a number", "ask", "copy --question a --context b",
        ("at `$.trainer.base_model.name_or_path`",),
        make=copied("qa", with_metadata(base_model={"name_or_path": 3}))),
    Case("ask, missing base model", "ask", "copy --question a --context b",
        ("its base model is no longer in /no/base; give --model_name_or_path",),
        make=copied("qa", with_metadata(base_model={"name_or_path": "/no/base"}))),
    Case("ask, missing tokenizer", "ask", "copy --question a --context b",
        ("no-such-tokenizer: no tokenizer can be loaded",),
        make=copied("qa", with_metadata(tokenizer="no-such-tokenizer"))),
    Case("ask, empty full_setup.json", "ask", "copy --question a --context b",
        ("full_setup.json: not written by this trainer",), make=copied("base", with_bytes("full_setup.json", b"{}"))),
    Case("convert, weights cut off", "convert", "copy new", ("pytorch_adapter.bin: cannot be read",),
        make=copied("old", cut("qa_squad/pytorch_adapter.bin", 900))),
    Case("convert, fusion weights cut off", "convert", "copy new",
        ("pytorch_model_adapter_fusion.bin: cannot be read",),
        make=copied("old", cut("qa_squad,ner_lener/pytorch_model_adapter_fusion.bin", 900))),
    Case("convert, configuration that is text", "convert", "copy new",
        ("not a bottleneck adapter (pfeiffer, houlsby), LoRA or (IA)3",),
        make=copied("old", with_json("qa_squad/adapter_config.json", config="adapter"))),
    Case("convert, two adapters of the same name", "convert", "copy new", ("two of its adapters have the same name",),
        make=copied("old", with_json("qa_squad/adapter_config.json", name="ner_lener"))),
    Case("convert, adapter name that is a path", "convert", "copy new",
        ("has adapters with the names ../x; only letters, digits, - and _ are allowed",),
        make=copied("old", with_json("qa_squad/adapter_config.json", name="../x"))),
]  # fmt: skip

OPTIONS = [
    Case("no model given", "qa", "NOTHING --do_train",
        ("the following arguments are required: --model_name_or_path", "--do_train needs --train_file")),
    Case("an unknown option", "qa", "--learnin_rate 3", ("unknown option learnin_rate; did you mean learning_rate?",)),
    Case("two unknown options", "ner", "--doc_stride 3 --qqq", ("unknown option doc_stride", "unknown option qqq")),
    Case("a folder as options file", "mlm", ".", (".: is a folder; the first word may be an options file",)),
    Case("empty values of paths", "qa", "--output_dir '' --load_lang_adapter ''",
        ("--output_dir is empty; give a value, or leave it out", "--load_lang_adapter is empty")),
    Case("ask, an empty run", "ask", "'' --question a --context b", ("RUN is empty; give a value",)),
    Case("a file in place of a model", "qa", "--model_name_or_path a.json",
        ("--model_name_or_path a.json: is a file; give the folder of a model",), {"a.json": "{}"}),
    Case("ask, a file in place of a run", "ask", "a.json --question a --context b",
        ("RUN a.json: is a file; give its folder",), {"a.json": "{}"}),
    Case("ask, overwrite without output", "ask", "{qa} --question a --context b --overwrite",
        ("--overwrite: replaces --output, which is not given; leave it out",)),
    Case("length and adapter", "qa", "--max_seq_length 5000 --doc_stride 10 --load_lang_adapter no/hub",
        ("--max_seq_length 5000: the base model reads at most", "--load_lang_adapter no/hub: no such folder, and")),
    Case("data, model and adapters", "qa",
        "--model_name_or_path ./base --train_file ./no.json --load_lang_adapter ./lang --fuse_adapters a=./x b={qa}",
        ("--train_file ./no.json: no such file", "--model_name_or_path ./base: no such folder",
         "--load_lang_adapter ./lang: no such folder", "--fuse_adapters a ./x: no such folder")),
    Case("stray words", "mlm", "two words",
        ("stray words on the command line: two words; options look like --name value",)),
    Case("missing value", "qa", "--learning_rate", ("argument --learning_rate: expected one argument",)),
    Case("learning_rate that is not a number", "qa", "--learning_rate fast",
        ("argument --learning_rate: invalid float value: 'fast'",)),
    Case("fraction for an integer option", "mlm", "--block_size 32.5",
        ("argument --block_size: invalid int value: '32.5'",)),
    Case("invalid truth value", "ner", "--madx2 maybe", ("argument --madx2: ",)),
    Case("unknown eval_strategy", "qa", "--eval_strategy daily",
        ("argument --eval_strategy: invalid choice: 'daily'",)),
    Case("save_strategy best", "qa", "--save_strategy best", ("argument --save_strategy: invalid choice: 'best'",)),
    Case("unknown lr_scheduler_type", "qa", "--lr_scheduler_type linea",
        ("argument --lr_scheduler_type: invalid choice: 'linea'",)),
    Case("unknown optimizer", "qa", "--optim adamww", ("argument --optim: invalid choice: 'adamww'",)),
    Case("unknown adapter_composition", "qa", "--adapter_composition sum",
        ("argument --adapter_composition: invalid choice: 'sum'",)),
    Case("unknown attn_implementation", "qa", "--attn_implementation org/evil",
        ("argument --attn_implementation: invalid choice",)),
    Case("unknown report_to", "qa", "--report_to nowhere", ("--report_to nowhere: ",)),
    Case("report_to a package that is not installed", "qa", "--report_to wandb", ("--report_to wandb: ",)),
    Case("optimizer of a package that is not installed", "qa", "--optim adamw_apex_fused", ("apex",)),
    Case("schedule without its settings", "qa", "--lr_scheduler_type cosine_with_min_lr",
        ("--lr_scheduler_type cosine_with_min_lr with",)),
    Case("schedule with unknown settings", "qa", """--lr_scheduler_type cosine --lr_scheduler_kwargs '{{"x": 1}}'""",
        ("unexpected keyword argument 'x'",)),
    Case("schedule settings that are not JSON", "qa", "--lr_scheduler_kwargs x",
        ("--lr_scheduler_kwargs x: must be a JSON object",)),
    Case("checkpoint given", "qa", "--resume_from_checkpoint x",
        ("the same command with the same --output_dir resumes",)),
    Case("output folder not in UTF-8", "qa", "--output_dir a\udcff",
        ("--output_dir a\\udcff: has a NUL character or is not UTF-8",)),
    Case("nothing to do", "qa", "--do_train False",
        ("nothing to do: give --do_train, --do_eval, --do_predict or --dry_run",)),
    Case("training without data", "qa", "NOTHING --model_name_or_path {base} --do_train",
        ("--do_train needs --train_file or",)),
    Case("evaluation without data", "ner", "--do_eval", ("--do_eval needs --validation_file",)),
    Case("prediction without data", "qa", "--do_predict", ("--do_predict needs --test_file or --dataset_name",)),
    Case("prediction with a language adapter", "mlm", "--do_predict",
        ("--do_predict: a language adapter predicts nothing",)),
    Case("unknown metric", "qa", "--metric_for_best_model bleu",
        ("bleu: not computed here; choose from f1, exact",)),
    Case("greater loss is better", "mlm", "--greater_is_better True",
        ("--greater_is_better True: must be False for loss",)),
    Case("best model without evaluation", "qa", "--load_best_model_at_end True",
        ("--load_best_model_at_end: evaluation (no) and checkp",)),
    Case("best model with different evaluation and save steps", "qa",
        "--do_eval --validation_file {fixtures}/dev.json --load_best_model_at_end --eval_strategy steps --eval_steps 2 "
        "--save_strategy epoch",
        ("--load_best_model_at_end: evaluation (steps) and checkpoints (epoch) must come together",)),
    Case("patience without evaluation", "qa", "--early_stopping_patience 2",
        ("--early_stopping_patience needs evaluation while",)),
    Case("patience 0", "qa", "--do_eval --validation_file {fixtures}/dev.json --early_stopping_patience 0",
        ("--early_stopping_patience 0: must be at least 1",)),
    Case("fp16 and bf16", "qa", "--fp16 --bf16", ("--bf16 and --fp16 exclude each other; give one",)),
    *(
        Case(f"{name} {value}", "qa", f"--{name} {value}", (f"--{name} {message}",))
        for name, value, message in [
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
            ("n_best_size", "0", "0: must be between 1 and 1048575"),
            ("max_answer_length", "-1", "-1: must be between 1 and 1048575"),
            ("null_score_diff_threshold", "nan", "nan: must be a finite"),
            ("adapter_reduction_factor", "inf", "inf: must be a finite number"),
        ]
    ),
    *(
        Case(f"mlm, {name} {value}", "mlm", f"--{name} {value}", (f"--{name} {message}",))
        for name, value, message in [
            ("mlm_probability", "0", "0: must be above 0 and below 1"),
            ("mlm_probability", "1.5", "1.5: must be above 0 and below 1"),
            ("mlm_probability", "nan", "nan: must be a finite number"),
            ("block_size", "2", "2: must be at least 8"),
            ("validation_split_percentage", "100", "100: must be above 0 and below 100"),
            ("max_train_samples", "-1", "-1: must"),
        ]
    ),
    Case("negative class weights", "ner", "--weighted_loss_constant -1",
        ("--weighted_loss_constant -1: must be at least 0",)),
    Case("class weights NaN", "ner", "--weighted_loss_constant nan",
        ("--weighted_loss_constant nan: must be a finite",)),
    Case("max_seq_length below the minimum", "ner", "--max_seq_length 4", ("--max_seq_length 4: must be at least 8",)),
    Case("several option problems", "qa",
        "--learning_rate -1 --max_answer_length 0 --train_file none.json --metric_for_best_model x",
        ("--learning_rate -1: must", "--max_answer_length 0: must", "none.json: no such file", "x: not computed here")),
    Case("output folder that is a file", "qa", "--output_dir o",
        ("--output_dir o: is a file; give a folder",), {"o": b""}),
    Case("output folder below a file", "qa", "--output_dir o/run", ("/o is a file; give another folder",), {"o": b""}),
    Case("output folder with other files", "qa", "--output_dir .",
        ("is not empty and holds no run; give another folder",),
        {"o": b""}),
    Case("missing deepspeed file", "qa", "--deepspeed none.json",
        ("--deepspeed none.json: cannot be read", *NO_DEEPSPEED)),
    Case("invalid deepspeed file", "qa", "--deepspeed d.json",
        ("--deepspeed d.json: is not a DeepSpeed configuration", *NO_DEEPSPEED), {"d.json": [1]}),
    *(
        Case(
            f"options file, {defect}",
            "qa",
            f"NOTHING {name} --model_name_or_path m --dry_run",
            (f"{name}: {message}",),
            {} if content is None else {name: content},
        )
        for defect, name, content, message in [
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
    Case("options file, a wrong type", "qa", "NOTHING o.yaml --dry_run",
        ("argument --seed: invalid int value: 'many'",),
        {"o.yaml": "seed: many\nmodel_name_or_path: m\n"}),
    Case("options file, an object for a number", "qa", "NOTHING o.json --model_name_or_path m --dry_run",
        ("argument --seed: invalid int value",),
        {"o.json": {"seed": {}}}),
    Case("options file, two unknown keys", "qa", "NOTHING o.yaml --model_name_or_path m --dry_run",
        ("o.yaml: unknown option maddx2", "o.yaml: unknown option qqqqqq"), {"o.yaml": "maddx2: 1\nqqqqqq: 2"}),
    Case("options file, NUL character", "qa", "NOTHING o.yaml --do_train --train_file {fixtures}/train.json",
        ("--output_dir a\\u0000b: has a NUL character or is not UTF-8",),
        {"o.yaml": 'model_name_or_path: m\noutput_dir: "a\\0b"\n'}),
]  # fmt: skip
CASES = [*question_cases(), *FILES, *MODELS, *ADAPTERS, *OPTIONS]


# ---------------------------------------------------------------- valid files, from which the cases start


def save(base: Path, folder: Path, task: Task, *options: Any, random_init: bool = False) -> None:
    """Save a setup with random weights, as a run does."""
    model_options = ModelOptions(str(base), random_init=random_init)
    model = load_model(model_options, task)
    setup = resolve_setup(task, read_base_config(model_options), *options, random_init=random_init)
    assert setup is not None
    build_setup(model, setup)
    metadata = {"base_model": {"name_or_path": str(base), "revision": "main"}, "tokenizer": None, "language": None}
    save_setup(model, setup, folder, metadata | ({"windows": WINDOWS} if task == "qa" else {}))


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A folder with valid data, a base model and saved adapters of every kind."""
    folder = tmp_path_factory.mktemp("bad_inputs") / "fixtures"
    shutil.copytree(tiny_bert, folder / "base")
    base = folder / "base"
    write_squad(folder / "train.json", make_questions(12, 1))
    write_squad(folder / "dev.json", make_questions(4, 2))
    contexts = [question.context for question in make_questions(20, 3)]
    (folder / "text.txt").write_text("\n".join(contexts), encoding="utf-8")
    (folder / "train.conll").write_text(CONLL * 4, encoding="utf-8")
    save(base, folder / "qa", "qa", AdapterOptions())
    save(base, folder / "madx2", "qa", AdapterOptions(madx2=True))
    save(base, folder / "houlsby", "qa", AdapterOptions(adapter_config="houlsby"))
    save(base, folder / "mlm", "mlm", AdapterOptions())
    fused = FusionOptions(fuse_adapters=["a=new", "b=new"])
    save(base, folder / "fusion", "qa", AdapterOptions(), LanguageAdapterOptions(), fused, random_init=True)
    legacy = LegacyModel(base)
    legacy.save_all(folder / "old", ("qa_squad", "ner_lener"))
    legacy.save_fusion(folder / "old" / legacy.fusion.name)
    return folder


@dataclass(frozen=True)
class Workspace:
    """A working folder in which scripts run.

    Attributes:
        fixtures: the folder of valid files.
        roberta: a base model of another architecture.
        folder: the working folder.
    """

    fixtures: Path
    roberta: Path
    folder: Path

    def argv(self, case: Case) -> list[str]:
        """Return a case's command line."""
        paths = {name: self.fixtures / name for name in ("base", "qa", "mlm", "fusion", "houlsby", "madx2", "old")}
        lines = ("", case.argv.replace("NOTHING", "")) if "NOTHING" in case.argv else (VALID[case.script], case.argv)
        valid, changes = (
            shlex.split(line.format(fixtures=self.fixtures, roberta=self.roberta, **paths)) for line in lines
        )
        return override(valid, *changes)

    def write_files(self, case: Case) -> dict[str, bytes]:
        """Make a case's files and return the folder's content."""
        for name, content in case.files.items():
            text = content if isinstance(content, (str, bytes)) else json.dumps(content)
            (self.folder / name).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        if case.make is not None:
            case.make(self.fixtures, self.folder)
        return self.content()

    def content(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in self.folder.rglob("*")}

    def run(self, case: Case, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a case's script in this process; `argv` is added to the case's command line."""
        return run_main(SCRIPTS[case.script], *override(self.argv(case), *argv), cwd=self.folder)


@pytest.fixture
def workspace(fixtures: Path, tiny_roberta: Path, tmp_path: Path) -> Workspace:
    return Workspace(fixtures, tiny_roberta, tmp_path)


class ModelWasBuiltError(BaseException):
    """Raised in place of building a model; no program code catches it."""


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every attempt to build a model raise ModelWasBuiltError."""
    forbid_models(monkeypatch)


def forbid_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(self: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        raise ModelWasBuiltError

    monkeypatch.setattr(PreTrainedModel, "__init__", init)


# ---------------------------------------------------------------- tests


def test_cases_have_distinct_names_and_cover_every_script() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert {case.script for case in CASES} == set(SCRIPTS)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_problem_is_reported_in_a_line_and_nothing_is_written(
    case: Case, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = workspace.write_files(case)
    if not case.late:
        forbid_models(monkeypatch)
    process = workspace.run(case)
    assert (process.returncode, process.stdout) == (2, "")
    lines = [line for line in process.stderr.splitlines() if not line.startswith("note: ")]
    assert all(line.startswith("error: ") for line in lines), lines
    remaining = list(lines)
    for message in case.messages:
        line = next((line for line in remaining if message in line), None)
        assert line is not None, (message, lines)
        remaining.remove(line)
    assert not remaining
    assert workspace.content() == before


@pytest.mark.parametrize("script", ["qa", "mlm", "ner", "ask"])
@pytest.mark.usefixtures("no_models")
def test_valid_command_lines_get_as_far_as_the_model(script: str, workspace: Workspace) -> None:
    argv = "{qa} --question Onde? --context Ana." if script == "ask" else ""
    with pytest.raises(ModelWasBuiltError):
        workspace.run(Case("valid", script, argv, ()))


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("run_qa_adapter.py", "missing files, both"),
        ("run_mlm_adapter.py", "too little text"),
        ("run_ner_adapter.py", "empty sentences file"),
        ("prepare_squad_pt.py", "prepare, no arguments"),
        ("ask_qa.py", "ask, blank question"),
        ("convert_2021_adapters.py", "convert, no arguments"),
    ],
)
def test_script_in_a_process_reports_the_same(script: str, name: str, workspace: Workspace) -> None:
    case = next(case for case in CASES if case.name == name)
    before = workspace.write_files(case)
    process = run_script(script, *workspace.argv(case), cwd=workspace.folder)
    lines = process.stderr.splitlines()
    assert (process.returncode, process.stdout, len(lines)) == (2, "", len(case.messages))
    assert all(line.startswith("error: ") for line in lines)
    assert workspace.content() == before


def test_debug_shows_the_traceback(workspace: Workspace) -> None:
    case = Case("", "qa", "--train_file q.json", (), {"q.json": b"{"})
    workspace.write_files(case)
    process = workspace.run(case)
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    process = workspace.run(case, "--debug")
    assert process.returncode == 2
    assert "Traceback (most recent call last):" in process.stderr
    assert "json.decoder.JSONDecodeError: " in process.stderr
    assert process.stderr.splitlines()[-1].startswith("error: q.json: not JSON at line 1")


UNUSUAL_FILES: list[tuple[str, str, str, Any]] = [  # name, script, file name, content
    ("byte order mark", "qa", "q.json", b"\xef\xbb\xbf" + json.dumps([record()]).encode()),
    ("Windows line ends", "qa", "q.jsonl", json.dumps(record()) + "\r\n\r\n" + json.dumps(record(id="q2")) + "\r\n"),
    ("line separators in strings", "qa", "q.jsonl", json.dumps(record(context="Ana nasceu em Belém.\u2028\x85Fim."),
     ensure_ascii=False)),
    ("ids that are numbers", "qa", "q.json", [record(id=1), record(id=-2), record(id=10**30)]),
    ("no line end at the end", "qa", "q.jsonl", json.dumps(record())),
    ("a huge line", "qa", "q.jsonl", json.dumps(record(context="Ana nasceu em Belém. " * 20_000))),
    ("nested and flat mixed", "qa", "q.json",
     {"data": [*nested({"context": "Ana nasceu em Belém.", "qas": [record(id="n", context=...)]})["data"], record()]}),
    ("unknown keys", "qa", "q.json", [record(year=2021, tags=[None], title=None)]),
    ("a paragraph without questions", "qa", "q.json",
     nested({"context": "x", "qas": []}, {"context": "Ana nasceu em Belém.", "qas": [record(context=...)]})),
    ("emoji and control characters", "qa", "q.json",
     [record(context="Ana nasceu em Belém 👩‍👩‍👧 e\u0301 \u202ea\u202c \x00.")]),
    ("questions of invisible characters", "qa", "q.json", [record(question="\u200b\x00"), record(id="q2")]),
    ("upper-case extension", "qa", "Q.JSON", [record()]),
    ("csv with a byte order mark and Windows line ends", "qa", "q.csv",
     b"\xef\xbb\xbfid,question,context,answer_text,answer_start\r\n1,?,Ana em Bel\xc3\xa9m.,Ana,0\r\n"),
    ("csv with line ends in a cell", "qa", "q.csv",
     'id,question,context,answer_text,answer_start\n1,?,"Ana, em\n""Belém"".",Ana,0\n'),
    ("an answer that is not at its answer_start", "qa", "q.json",
     [record(), record(id="q2", answers={"text": ["Recife"], "answer_start": [3]})]),
    ("byte order mark before text", "mlm", "t.txt", "\ufeff" + "Ana nasceu em Belém. " * 40),
    ("text with Windows line ends", "mlm", "t.txt", "Ana nasceu em Belém.\r\n\r\n" * 40),
    ("sentences with Windows line ends", "ner", "n.conll", CONLL.replace("\n", "\r\n")),
    ("sentences with a byte order mark", "ner", "n.conll", "\ufeff" + CONLL),
    ("columns separated by tabs", "ner", "n.conll", CONLL.replace(" ", "\tX\t")),
    ("unusual blanks inside words", "ner", "n.conll", "a\u2028b B-X\n1\u00a0000 O\n\x07 O\n"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "name", "content"), [row[1:] for row in UNUSUAL_FILES], ids=[row[0] for row in UNUSUAL_FILES]
)
@pytest.mark.usefixtures("no_models")
def test_unusual_but_valid_file_gets_as_far_as_the_model(
    script: str, name: str, content: Any, workspace: Workspace
) -> None:
    case = Case("", script, f"--train_file {name}", (), {name: content})
    workspace.write_files(case)
    with pytest.raises(ModelWasBuiltError):
        workspace.run(case)


def test_questions_whose_answers_are_not_at_answer_start_are_left_out(workspace: Workspace) -> None:
    misplaced = record(id="q2", answers={"text": ["Recife"], "answer_start": [3]})
    case = Case("", "qa", "--train_file q.json --dry_run", (), {"q.json": [record(), misplaced, record(id="q3")]})
    workspace.write_files(case)
    process = workspace.run(case)
    assert process.returncode == 0
    assert "note: q.json: 1 of 3 questions are left out of training, their answers are not at" in process.stderr
    assert json.loads(process.stdout.splitlines()[-1])["train"]["questions"] == 2


@pytest.mark.parametrize(
    "argv", ["--fp16", "--use_cpu --bf16", "--load_best_model_at_end --do_eval --validation_file d.json"]
)
def test_switches_need_no_value(argv: str, workspace: Workspace) -> None:
    case = Case("", "qa", f"{argv} --dry_run", (), {"d.json": [record()]})
    workspace.write_files(case)
    assert workspace.run(case).returncode == 0


def test_no_in_an_options_file_is_the_strategy_no(workspace: Workspace) -> None:
    """YAML reads the word no as false."""
    text = f"model_name_or_path: {workspace.fixtures}/base\neval_strategy: no\nmax_seq_length: 64\noutput_dir: -x\n"
    case = Case("", "qa", "NOTHING o.yaml --doc_stride 16 --dry_run", (), {"o.yaml": text})
    workspace.write_files(case)
    assert workspace.run(case).returncode == 0

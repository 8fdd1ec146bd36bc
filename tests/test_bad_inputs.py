"""Bad input at every door: exit code 2, a line for each problem that names the culprit, before any model is built, and
nothing written. One table; a row is what is put into an empty folder, the words of the command line, and what is said.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import made_questions, run_script, write_squad
from old_saves import OldWorld
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

import ask_qa
import convert_2021_adapters
import prepare_squad_pt
import run_mlm_adapter
import run_ner_adapter
import run_qa_adapter
from adapter_qa.arguments import AdapterOptions, FusionOptions, LangAdapterOptions, ModelOptions
from adapter_qa.basemodel import load_model, read_base_config
from adapter_qa.composition import build_setup, save_setup
from adapter_qa.errors import run_door
from adapter_qa.planning import plan_setup

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


class ModelWasBuilt(Exception):
    """Raised in place of building a model."""


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


QA = record(context=...)
# Name, file name, content, what is said. Wrong for whoever reads questions with their answers.
QUESTIONS: list[tuple[str, str, Any, str]] = [
    ("empty file", "q.json", b"", "q.json: the file is empty"),
    ("only blanks", "q.jsonl", b" \r\n\t\n", "q.jsonl: the file is empty"),
    ("only a byte order mark", "q.json", b"\xef\xbb\xbf", "q.json: the file is empty"),
    ("not JSON", "q.json", "id: 1", "q.json: not JSON at line 1, column 1: Expecting value"),
    ("single quotes", "q.json", "{'data': []}", "q.json: not JSON at line 1, column 2: Expecting property name"),
    ("cut in a string", "q.json", '{"data": [{"id": "q', "column 18: Unterminated string starting at; the file seems"),
    ("cut after a comma", "q.json", '[{"id": "q"},', "Expecting value; the file seems to be cut off"),
    ("lines in .json", "q.json", '{"id": 1}\n{"id": 2}', "Extra data; one record a line is read from .jsonl files"),
    ("a broken line", "q.jsonl", json.dumps(record()) + '\n{"id":\n', "q.jsonl: line 2: not JSON at column 7"),
    ("a line that is no object", "q.jsonl", "[1]", "q.jsonl: line 1: a list instead of an object"),
    ("nested too deep", "q.json", "[" * 200_000, "q.json: JSON that cannot be read: maximum recursion depth"),
    ("a number without end", "q.json", f'[{{"id": {"9" * 9000}}}]', "q.json: JSON that cannot be read: Exceeds the"),
    ("top level text", "q.json", '"data"', "the top level must be a list or an object whose 'data' is a list"),
    ("top level null", "q.json", "null", "the top level must be a list or an object whose 'data' is a list"),
    ("data under another key", "q.json", {"dados": []}, "the top level must be a list or an object whose 'data'"),
    ("data is an object", "q.json", {"data": {"a": 1}}, "the top level must be a list or an object whose 'data'"),
    ("no records", "q.json", {"data": []}, "q.json: holds no questions"),
    ("no paragraphs", "q.json", nested(), "q.json: holds no questions"),
    ("paragraphs no list", "q.json", {"data": [{"paragraphs": 3}]}, "data[0]: 'paragraphs' is not a list"),
    ("no questions in a paragraph", "q.json", nested({"context": "x"}), "data[0].paragraphs[0]: is not an object with"),
    ("a paragraph without context", "q.json", nested({"qas": [QA]}), "paragraphs[0].qas[0] (id 'q1'): no 'context'"),
    ("a paragraph that is text", "q.json", nested("x"), "data[0].paragraphs[0]: is not an object with a list 'qas'"),
    ("a question that is text", "q.json", nested({"context": "x", "qas": ["?"]}), "qas[0]: text instead of an object"),
    ("nested and flat, flat one bad", "q.json", {"data": [*nested({"context": "x", "qas": []})["data"], {"id": 1}]},
     "data[1] (id 1): no 'question'; no 'context'"),
    ("records that are numbers", "q.json", [1, 2], "data[0]: a number instead of an object"),
    ("no id", "q.json", [record(id=...)], "data[0]: no 'id'"),
    ("empty id", "q.json", [record(id=" ")], "data[0]: no 'id'"),
    ("id null", "q.json", [record(id=None)], "data[0]: no 'id'"),
    ("id a fraction", "q.json", [record(id=1.5)], "data[0]: 'id' is a number; it must be valid text or a whole number"),
    ("id NaN", "q.json", [record(id=float("nan"))], "data[0]: 'id' is NaN; it must be valid text or a whole number"),
    ("id a list", "q.json", [record(id=["q"])], "data[0]: 'id' is a list; it must be valid text or a whole number"),
    ("ids used twice", "q.json", [record(), record()], "ids must differ; 1 records repeat one, such as 'q1'"),
    ("ids used twice, as number and text", "q.json", [record(id=1), record(id="1")], "ids must differ; 1 records"),
    ("no question", "q.json", [record(question=...)], "data[0] (id 'q1'): no 'question'"),
    ("question null", "q.json", [record(question=None)], "(id 'q1'): 'question' is null; it must be text"),
    ("question empty", "q.json", [record(question=" \n")], "(id 'q1'): 'question' is empty"),
    ("question a list", "q.json", [record(question=["?"])], "(id 'q1'): 'question' is a list; it must be text"),
    ("no context", "q.json", [record(context=...)], "(id 'q1'): no 'context'"),
    ("context empty", "q.json", [record(context="")], "(id 'q1'): 'context' is empty"),
    ("context NaN", "q.json", [record(context=float("nan"))], "(id 'q1'): 'context' is NaN; it must be text"),
    ("half a character", "q.json", json.dumps([record(context="\ud83d")]), "'context' has a lone surrogate"),
    ("latin-1", "q.json", '[{"id": "São"}]'.encode("latin-1"), "q.json: not UTF-8 at byte 10: save the file as UTF-8"),
    ("utf-16", "q.json", '[{"id": "q"}]'.encode("utf-16"), "q.json: not UTF-8 at byte 0: save the file as UTF-8"),
    ("a picture", "q.json", b"\x89PNG\r\n\x1a\n\0\0\0", "q.json: not UTF-8 at byte 0: save the file as UTF-8"),
    ("no columns", "q.csv", "1,2,3\n", "q.csv: no column id, question, context; needed, comma-separated"),
    ("semicolons", "q.csv", "id;question;context\n1;?;x\n", "q.csv: no column id, question, context; needed, comma"),
    ("a column twice", "q.csv", "id,id,question,context\n1,2,?,x\n", "q.csv: more than one column id; each needs its"),
    ("only a header", "q.csv", "id,question,context,answers\n", "q.csv: holds no questions"),
    ("a quote that never ends", "q.csv", 'id,question,context\n1,"?,x\n', "q.csv: not CSV after line 1"),
    ("text after a quote", "q.csv", 'id,question,context\n1,"?" x,y\n', "q.csv: not CSV after line 1"),
    ("a row too short", "q.csv", "id,question,context\n1,?\n", "line 2: not as many values as the 3 columns"),
    ("a row too long", "q.csv", "id,question,context\n1,?,x,y\n", "line 2: not as many values as the 3 columns"),
]  # fmt: skip
ANSWERS: list[tuple[str, str, Any, str]] = [
    ("no answers", "q.json", [record(answers=...)], "(id 'q1'): no 'answers'"),
    ("answers text", "q.json", [record(answers="Belém")], "(id 'q1'): 'answers' must be [{'text', 'answer_start'}"),
    ("an answer without start", "q.json", [record(answers=[{"text": "x"}])], "'answers' must be [{'text', 'answer_st"),
    ("more texts than starts", "q.json", [record(answers={"text": ["a", "b"], "answer_start": [0]})],
     "(id 'q1'): 'answers' has 2 of 'text' but 1 of 'answer_start'"),
    ("answer text a number", "q.json", [record(answers={"text": [1876], "answer_start": [0]})],
     "(id 'q1'): an answer's 'text' is not valid text"),
    ("start text", "q.json", [record(answers={"text": ["x"], "answer_start": ["0"]})],
     "(id 'q1'): an 'answer_start' is text; it must be a whole number"),
    ("start NaN", "q.json", [record(answers={"text": ["x"], "answer_start": [float("nan")]})],
     "(id 'q1'): an 'answer_start' is NaN; it must be a whole number"),
    ("start a fraction", "q.json", [record(answers={"text": ["x"], "answer_start": [0.5]})],
     "(id 'q1'): an 'answer_start' is a number; it must be a whole number"),
    ("start true", "q.json", [record(answers={"text": ["x"], "answer_start": [True]})],
     "(id 'q1'): an 'answer_start' is true/false; it must be a whole number"),
    ("start beyond all texts", "q.json", [record(answers={"text": ["x"], "answer_start": [10**30]})],
     "(id 'q1'): an 'answer_start' is beyond any text; it must be a whole number"),
    ("impossible, in words", "q.json", [record(is_impossible="no")], "'is_impossible' is text; it must be true or"),
    ("answers no literal", "q.csv", "id,question,context,answers\n1,?,x,x [0]\n", "line 2: 'answers' is neither JSON"),
    ("answers that call", "q.csv", "id,question,context,answers\n1,?,x,\"open('executed', 'w')\"\n", "'answers' must be"),
    ("start in words", "q.csv", "id,question,context,answer_text,answer_start\n1,?,x,x,two\n",
     "line 2: 'answer_start' is 'two'; it must be a whole number"),
    ("start out of the context", "q.json", [record(answers={"text": ["Belém"], "answer_start": [400]})],
     "q.json: no answer stands at its answer_start; run prepare_squad_pt.py"),
    ("start negative", "q.json", [record(answers={"text": ["Belém"], "answer_start": [-6]})],
     "q.json: no answer stands at its answer_start; run prepare_squad_pt.py"),
    ("start off by one", "q.json", [record(answers={"text": ["Belém"], "answer_start": [13]})],
     "q.json: no answer stands at its answer_start; run prepare_squad_pt.py"),
    ("no answer in v1", "q.json", [record(answers={"text": [], "answer_start": []})],
     "q.json: 1 questions have no answer; SQuAD v2 data needs --version_2_with_negative True"),
]  # fmt: skip

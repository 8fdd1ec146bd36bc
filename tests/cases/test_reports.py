"""Situations that people reported in public, one test each: what the scripts print, write and refuse.

Each is rebuilt with inputs of its own. The threads are named above the tests.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from support.questions import corpus
from support.scripts import run_main
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertForMaskedLM, PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForMaskedLM

import ask_qa
import prepare_squad_pt
import run_mlm_adapter
import run_ner_adapter
import run_qa_adapter
from adapter_qa.config.options import ModelOptions
from adapter_qa.config.parser import parse_config
from adapter_qa.config.run_configs import QARunConfig
from adapter_qa.data.window_dataset import pair_tokenizer
from adapter_qa.data.windows import make_windows
from adapter_qa.models.base_model import load_tokenizer
from adapter_qa.training.qa_data import load_questions

CONTEXT = "Ana nasceu em São Luís e é juíza, Bruno nasceu em Recife e é pintor."
TRAIN = ["--do_train", "--num_train_epochs", "1", "--report_to", "none", "--disable_tqdm", "True"]
SHORT = ["--max_seq_length", "64", "--doc_stride", "16"]


def run(main: Callable[[list[str]], int], *argv: object) -> subprocess.CompletedProcess[str]:
    """Run a script and require success."""
    process = run_main(main, *argv)
    assert process.returncode == 0, process.stderr[-3000:]
    return process


def notes(process: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in process.stderr.splitlines() if line.startswith(("note: ", "warning: "))]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return path


def ask(folder: Path, question: str, context: str, *options: object) -> dict[str, Any]:
    """Return the JSON document of an answer."""
    argv = [folder, "--question", question, "--context", context, "--json", *options]
    return json.loads(run(ask_qa.main, *argv).stdout)  # type: ignore[no-any-return]


def check_candidates(candidates: list[dict[str, Any]], context: str) -> None:
    """Check that candidates are distinct and stand where their start says, without white space at their borders."""
    for candidate in candidates:
        text = candidate["answer"]
        assert text == text.strip() != ""
        assert context.startswith(text, candidate["start"])
    places = [(candidate["answer"], candidate["start"]) for candidate in candidates]
    assert len(set(places)) == len(places)


# ---------------------------------------------------------------- tokens that begin with a space


@pytest.fixture(scope="module")
def xlmr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny XLM-R whose tokenizer is a plain Metaspace: the offsets of a word's first token include the space."""
    folder = tmp_path_factory.mktemp("xlmr")
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=specials, unk_token="<unk>")
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", mask_token="<mask>", model_max_length=128,
    )  # fmt: skip
    assert wrapped("Ana nasceu", return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"][-1][0] >= 3
    wrapped.save_pretrained(folder)
    torch.manual_seed(7)
    config = XLMRobertaConfig(
        vocab_size=len(wrapped), max_position_embeddings=130, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=64, type_vocab_size=1, bos_token_id=0, pad_token_id=1, eos_token_id=2,
    )  # fmt: skip
    XLMRobertaForMaskedLM(config).save_pretrained(folder)
    return folder


# deepset-ai/haystack#1299, huggingface/transformers#11095
def test_answers_of_a_metaspace_tokenizer_begin_with_a_letter(
    xlmr: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    train, dev = squad_files
    folder = tmp_path / "qa"
    base = ["--model_name_or_path", xlmr, "--train_file", train, "--validation_file", dev, *SHORT]
    run(run_qa_adapter.main, *base, *TRAIN, "--do_eval", "--output_dir", folder)
    contexts = {record["id"]: record["context"] for record in read(dev)["data"]}
    predictions = read(folder / "eval_predictions.json")
    assert predictions.keys() == contexts.keys()
    candidates = [
        (key, entry["text"]) for key, of in read(folder / "eval_nbest_predictions.json").items() for entry in of
    ]
    assert len(candidates) == 20 * len(contexts)
    for key, text in [*predictions.items(), *candidates]:
        assert text == text.strip() != ""
        assert text in contexts[key]
    check_candidates(ask(folder, "Onde nasceu Ana?", CONTEXT, "--n_best", 20)["n_best"], CONTEXT)


# ---------------------------------------------------------------- white space around a gold answer

BORDERS = [  # id, context, answer with its white space, its start, the answer
    ("plain", "Recife é a capital de Pernambuco desde 1827. ", "Pernambuco", 22, "Pernambuco"),
    ("trailing", "Recife é a capital de Pernambuco desde 1827. ", "Pernambuco ", 22, "Pernambuco"),
    ("leading", "Recife é a capital de Pernambuco desde 1827. ", " Pernambuco", 21, "Pernambuco"),
    ("at the end", "Recife é a capital de Pernambuco desde 1827. ", "1827. ", 39, "1827."),
    ("at the start", " Recife é a capital de Pernambuco.", " Recife", 0, "Recife"),
    ("line break", "Desde 1827.\nFim.", "1827.\n", 6, "1827."),
    ("wide", "Em  Recife\u00a0 .", "  Recife\u00a0 ", 2, "Recife"),
]


# inception-project/inception#5829, huggingface/datasets#2585
@pytest.mark.parametrize("base", ["tiny_bert", "tiny_roberta", "xlmr"])
def test_the_label_of_an_answer_has_no_white_space_at_its_borders(
    base: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(base)
    records = [
        {"id": name, "question": "Qual?", "context": context, "answers": {"text": [text], "answer_start": [start]}}
        for name, context, text, start, _ in BORDERS
    ]
    train = write(tmp_path / "train.json", records)
    argv = ["--model_name_or_path", str(folder), "--train_file", str(train), *SHORT]
    planned = run(run_qa_adapter.main, *argv, "--dry_run")
    assert json.loads(planned.stdout.splitlines()[-1])["train"]["windows"] == len(BORDERS)
    assert notes(planned) == []

    questions = load_questions(parse_config(QARunConfig, [*argv, "--do_train"], description="", examples=""))["train"]
    tokenizer = load_tokenizer(ModelOptions(str(folder)))
    windows = make_windows(questions.questions, pair_tokenizer(tokenizer), max_seq_length=64, doc_stride=16)
    labels = {}
    for index, question in enumerate(questions.questions):
        tokens = np.array([windows[index].start_position, windows[index].end_position])
        (start, _), (_, end) = windows.char_spans(np.array([index, index]), tokens)
        labels[question.id] = question.context[start:end]
    assert labels == {name: answer for name, *_, answer in BORDERS}


# ---------------------------------------------------------------- adapters of another base


class Runs(NamedTuple):
    """Folders of finished runs, and the base models: the one they were trained on, and one with other weights."""

    base: Path
    other: Path
    mlm: Path
    qa: Path
    ner: Path
    conll: Path


@pytest.fixture(scope="module")
def runs(tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    other = folder / "other"
    shutil.copytree(tiny_bert, other)
    model = BertForMaskedLM.from_pretrained(tiny_bert)
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    model.save_pretrained(other)
    conll = folder / "ner.conll"
    conll.write_text("Ana B-PESSOA\nnasceu O\nem O\nRecife B-LOCAL\n. O\n\n" * 8, encoding="utf-8")
    base = ["--model_name_or_path", tiny_bert, *TRAIN]
    texts = ["--train_file", squad_files[0], "--block_size", "32", "--output_dir", folder / "mlm"]
    run(run_mlm_adapter.main, *base, *texts)
    run(run_qa_adapter.main, *base, "--train_file", squad_files[0], *SHORT, "--output_dir", folder / "qa")
    run(run_ner_adapter.main, *base, "--train_file", conll, *SHORT[:2], "--output_dir", folder / "ner")
    return Runs(tiny_bert, other, folder / "mlm", folder / "qa", folder / "ner", conll)


# adapter-hub/adapters#201
def test_an_adapter_of_another_base_is_said_when_it_is_evaluated(
    runs: Runs, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    evaluations: list[tuple[Any, str, list[Any]]] = [
        (run_qa_adapter.main, "qa", ["--validation_file", squad_files[1], *SHORT]),
        (run_ner_adapter.main, "ner", ["--validation_file", runs.conll, *SHORT[:2]]),
        (run_mlm_adapter.main, "mlm", ["--validation_file", squad_files[0], "--block_size", "32"]),
    ]
    for main, task, data in evaluations:
        for base, lines in ((runs.base, 0), (runs.other, 1)):
            argv = ["--model_name_or_path", base, "--do_eval", *data, "--load_adapter", getattr(runs, task)]
            output = ["--report_to", "none", "--output_dir", tmp_path / f"{task}_{base.name}"]
            process = run(main, *argv, *output)
            said = [line for line in notes(process) if "other weights" in line]
            assert len(said) == lines
            assert all(f"adapter {task}" in line and str(runs.base) in line for line in said)
    question = ["--question", "Onde nasceu Ana?", "--context", CONTEXT]
    for base, lines in ((runs.base, 0), (runs.other, 1)):
        process = run(ask_qa.main, runs.qa, "--model_name_or_path", base, *question)
        assert sum("weights" in line for line in notes(process)) == lines


def test_an_adapter_of_another_base_is_refused_when_something_is_trained_on_it(
    runs: Runs, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    train = ["--train_file", squad_files[0], *SHORT, *TRAIN, "--output_dir", tmp_path / "out"]
    attempts: list[list[Any]] = [
        ["--load_adapter", runs.qa],
        ["--load_lang_adapter", runs.mlm],
        ["--fuse_adapters", f"qa={runs.qa}", f"ner={runs.ner}"],
    ]
    for options in attempts:
        process = run_main(run_qa_adapter.main, "--model_name_or_path", runs.other, *train, *options)
        assert process.returncode == 2
        assert "other weights" in process.stderr
        assert str(runs.base) in process.stderr
        assert not (tmp_path / "out").exists()
        process = run_main(run_qa_adapter.main, "--model_name_or_path", runs.base, *train, *options, "--dry_run")
        assert process.returncode == 0


# ---------------------------------------------------------------- a question longer than the window


# huggingface/transformers#23654; tests/inference/test_onnx_export.py asks more such questions of another export
@pytest.mark.slow
def test_an_exported_model_answers_a_long_question_as_ask_qa_does(runs: Runs, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason='needs pip install "adapter-qa[export]"')
    import export_qa

    run(export_qa.main, runs.qa, tmp_path / "onnx")
    question = "Onde nasceu Ana e " * 80
    expected = ask(runs.qa, question, CONTEXT)["answer"]
    script = [sys.executable, str(tmp_path / "onnx" / "answer.py"), question, CONTEXT]
    process = subprocess.run(script, capture_output=True, text=True, check=False, timeout=100)
    assert (process.returncode, process.stdout.strip()) == (0, expected)
    assert expected in CONTEXT
    assert expected


# ---------------------------------------------------------------- fewer candidates than asked for


# deepset-ai/haystack#4776, huggingface/transformers#38984
def test_as_many_candidates_as_were_asked_for(
    runs: Runs, tiny_roberta: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    candidates = ask(runs.qa, "Onde nasceu Ana?", CONTEXT, "--n_best", 50)["n_best"]
    assert len(candidates) == 50
    check_candidates(candidates, CONTEXT)

    argv = ["--model_name_or_path", tiny_roberta, "--train_file", squad_files[0], *SHORT, *TRAIN]
    run(run_qa_adapter.main, *argv, "--output_dir", tmp_path / "roberta")
    context = "Ana 🙂🙂 é … de  São  Luís  desde 1827 🙂 no Brasil"  # emoji are several tokens of the same characters
    candidates = ask(tmp_path / "roberta", "Onde nasceu Ana?", context, "--n_best", 20)["n_best"]
    assert len(candidates) == 20
    check_candidates(candidates, context)


# ---------------------------------------------------------------- a label that training has not seen


# huggingface/transformers#9660, glample/tagger#52
def test_an_entity_type_that_training_has_not_seen_counts_as_missed(runs: Runs, tmp_path: Path) -> None:
    dev = tmp_path / "dev.conll"
    dev.write_text("O O\nSTF B-ORG\nnasceu O\n\nAna B-PESSOA\nnasceu O\n", encoding="utf-8")
    argv = ["--model_name_or_path", runs.base, "--train_file", runs.conll, "--validation_file", dev, *SHORT[:2]]
    process = run(run_ner_adapter.main, *argv, *TRAIN, "--do_eval", "--output_dir", tmp_path / "ner")
    (note,) = [line for line in notes(process) if "ORG" in line]
    assert "not" in note
    metrics = read(tmp_path / "ner" / "eval_results.json")
    assert metrics["eval_ORG_recall"] == 0
    assert metrics["eval_ORG_entities"] == 1
    assert metrics["eval_entities"] == 2


# ---------------------------------------------------------------- text in records


# huggingface/transformers#12805, huggingface/transformers#15582, Beomi/easy-lm-trainer#2
def test_a_language_adapter_reads_texts_in_any_form(tiny_bert: Path, tmp_path: Path) -> None:
    """The same texts give the same blocks, whatever file they stand in."""
    texts = corpus()[:40]
    quoted = [text.replace('"', '""') for text in texts]
    forms = {
        "text.txt": "\n".join(texts),
        "text.jsonl": "\n".join(json.dumps({"text": text}) for text in texts),
        "text.csv": "text\n" + "".join(f'"{text}"\n' for text in quoted),
        "excel.csv": "\ufeffid;text\r\n" + "".join(f'{number};"{text}"\r\n' for number, text in enumerate(quoted)),
        "text.json": json.dumps(texts),
    }
    for name, content in forms.items():
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:02}.txt").write_text(text, encoding="utf-8")
    counts = {}
    for name in [*forms, "folder"]:
        argv = ["--model_name_or_path", tiny_bert, "--do_train", "--do_eval", "--block_size", "32"]
        process = run(run_mlm_adapter.main, *argv, "--train_file", tmp_path / name, "--dry_run")
        document = json.loads(process.stdout.splitlines()[-1])
        counts[name] = (document["train"]["blocks"], document["eval"]["blocks"])
    assert len(set(counts.values())) == 1
    assert min(counts["text.txt"]) > 0
    process = run_main(run_mlm_adapter.main, *argv, "--train_file", tmp_path / "text.csv", "--text_column", "corpo")
    assert process.returncode == 2
    assert "no column corpo; found: text" in process.stderr


# ---------------------------------------------------------------- answers without a start


# huggingface/transformers#8372
def test_answers_without_a_start_are_searched_for(tmp_path: Path) -> None:
    answers: list[Any] = [
        [{"text": "Recife"}],
        {"text": ["Recife"]},
        ["Recife"],
        [{"text": "Recife", "answer_start": None}],
    ]
    qas = [{"id": str(number), "question": "Onde?", "answers": form} for number, form in enumerate(answers)]
    document = {"data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": qas}]}]}
    source = write(tmp_path / "in.json", document)
    run(prepare_squad_pt.main, source, "--output_dir", tmp_path)
    prepared = read(tmp_path / "pt_in.json")["data"]
    start = CONTEXT.index("Recife")
    assert [record["answers"] for record in prepared] == [{"text": ["Recife"], "answer_start": [start]}] * 4
    refused = run_main(run_qa_adapter.main, "--model_name_or_path", tmp_path, "--train_file", source, "--do_train")
    assert refused.returncode == 2
    assert "prepare_squad_pt.py" in refused.stderr

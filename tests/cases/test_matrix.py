"""Files, encoders and adapter configurations in the many forms that people have: what is read, or why it is refused.

They lie in ../shared/cases/matrix. Without that folder, which is not part of the project, these tests are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pytest
from support.problems import problems_of
from support.scripts import SHARED, run_main

import prepare_squad_pt
import run_mlm_adapter
import run_qa_adapter
from adapter_qa.config.parser import parse_config
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.core.errors import UserError
from adapter_qa.data.questions import Question
from adapter_qa.data.readers.sentences import Sentence, label_names
from adapter_qa.training.mlm_data import load_texts
from adapter_qa.training.ner_data import load_sentences
from adapter_qa.training.qa_data import load_questions
from adapter_qa.training.question_splits import QuestionSplit

MATRIX = SHARED / "cases" / "matrix"
pytestmark = pytest.mark.skipif(not MATRIX.is_dir(), reason="no ../shared/cases: it is not part of the project")


class Refused(NamedTuple):
    """Words of the problems that are reported, at least one problem with all of them."""

    words: tuple[str, ...]


class Row(NamedTuple):
    """A file, the options it is read with, and what is right."""

    name: str
    options: tuple[str, ...]
    expected: Any


def row(name: str, expected: Any, options: str = "") -> Row:
    return Row(name, tuple(options.split()), expected)


def refused(name: str, *words: str, options: str = "") -> Row:
    return row(name, Refused(words), options)


def ids(rows: Sequence[Row]) -> list[str]:
    return [" ".join([item.name, *item.options]) for item in rows]


def check(found: Callable[[], Any], expected: Any) -> None:
    """Compare what a call returns, or the problems that it reports, with what is right."""
    if isinstance(expected, Refused):
        problems = problems_of(found)
        assert any(all(word in problem for word in expected.words) for problem in problems), problems
    else:
        assert found() == expected


def paths(kind: str, name: str) -> list[str]:
    """Return the paths and patterns that a row's name holds; a name may hold several."""
    return [str(MATRIX / kind / part) for part in name.split("+")]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


# ---------------------------------------------------------------- questions


class Read(NamedTuple):
    """What is read of a file of questions.

    Attributes:
        questions: their number; evaluation keeps all.
        answers: number of gold answers.
        trained: number of questions that training keeps.
        unanswerable: number of questions without an answer.
        first: text and start of the first gold answer.
    """

    questions: int
    answers: int
    trained: int
    unanswerable: int
    first: tuple[str, int]


COLEGIADO = ("Colegiado de Curso", 524)
SAME = "the questions of flat_data.json"
FIRST_ANSWERS = Read(12, 12, 12, 0, COLEGIADO)
PREPARE = "prepare_squad_pt.py"
ANSWERS_FORM = "'answers' must be [{'text', 'answer_start'}, ...] or {'text': [...], 'answer_start': [...]}"
TOP_LEVEL = "the top level must be a list or an object whose 'data' is a list"
COLUMNS = "--id_column qid --question_column query --context_column passage"

QUESTION_ROWS = [
    *(
        row(name, SAME)
        for name in (
            "flat_data.json", "flat_list.json", "flat_version_data.json", "flat.json.bz2", "flat.json.gz",
            "flat.json.xz", "extra_fields.json", "nested_v1.json", "nested_extra.json", "mlqa_like.json",
            "utf8_bom.json", "lines.jsonl", "lines.ndjson", "lines_in.json", "pandas_lines.jsonl",
            "pandas_records.json", "pandas_default.json", "columnar.json", "ds_to_json.json", "ds_to_json.jsonl",
            "data.parquet", "ds.parquet", "ds_to_csv.csv", "excel_bom.csv", "excel_bom_semicolon.csv",
            "json_answers.csv", "pandas.csv", "pandas_index.csv", "py_literal.csv", "semicolon.csv", "tabs.tsv",
            "tabs_named.csv", "part1.json+part2.json", "part?.json",
        )
    ),
    row("arrow_dsdict", SAME, "--dataset_name"),
    row("ds_folder_json", SAME, "--dataset_name"),
    row("ds_folder_parquet", SAME, "--dataset_name"),
    refused("arrow_ds", "split 'validation'", "its splits are train", options="--dataset_name"),
    refused("arrow_ds", "is a folder", "--dataset_name"),
    row("field_names.json", SAME, COLUMNS),
    refused("field_names.json", "no id, question, context, but qid, query, passage", *COLUMNS.split()[::2]),
    row("float_start.json", FIRST_ANSWERS),
    row("text_start_columns.csv", FIRST_ANSWERS),
    row("int_ids.json", Read(12, 36, 12, 0, COLEGIADO)),
    row("multi_answer.json", Read(12, 108, 12, 0, COLEGIADO)),
    row("dups.json", Read(6, 18, 6, 0, COLEGIADO)),
    row("part1.json", Read(6, 18, 6, 0, COLEGIADO)),
    row("part2.json", Read(6, 18, 6, 0, ("Brahmagupta", 36))),
    row("some_minus1.json", Read(12, 12, 6, 0, COLEGIADO)),
    row("empty_answer.json", Read(3, 7, 2, 0, ("", 0))),
    row("long.json", Read(4, 10, 4, 0, ("o Pantanal é aqui", 400000))),
    row("longq.json", Read(4, 10, 4, 0, ("Centro-Oeste", 19))),
    row("odd.json", Read(21, 21, 21, 0, ("o Pantanal", 35))),
    row("nested_v2.json", Read(48, 22, 48, 26, ("França.", 155)), "--version_2_with_negative True"),
    row("v2_flat_empty.jsonl", Read(12, 24, 12, 4, ("1998", 106)), "--version_2_with_negative True"),
    row("v2_mixed_nested_flat.json", Read(2, 3, 2, 1, COLEGIADO), "--version_2_with_negative True"),
    refused("nested_v2.json", "26 questions have no answer", "--version_2_with_negative True"),
    refused("answers_text_only.json", ANSWERS_FORM, PREPARE),
    refused("answers_list_of_str.json", ANSWERS_FORM, PREPARE),
    refused("answers_flat_scalar.json", ANSWERS_FORM),
    refused("answers_null_start.json", "3 'text' and 1 'answer_start'", PREPARE),
    refused("null_start_one.json", "an 'answer_start' is null", PREPARE),
    refused("str_start.json", "an 'answer_start' is text; it must be a whole number"),
    refused("answer_string.json", "no answers, but answer", "--answer_column"),
    refused("minus1.json", "no answer is found at its answer_start", PREPARE),
    refused("byte_offsets.json", "no answer is found at its answer_start", PREPARE),
    refused("no_id.json", "data[0]: no 'id'"),
    refused("no_id.csv", "no column id", "found: question, context, answers", "--id_column"),
    refused("noid.jsonl", "line 1: no 'id'"),
    refused("query.jsonl", "no question", "but query", "--question_column"),
    refused("ids_float.json", "'id' is a number"),
    refused("dup_ids.json", "ids must be unique", "11 records", "'x'"),
    refused("is_impossible_int.json", "'is_impossible' is a number; it must be true or false"),
    refused("title_int.json", "'title' is a number"),
    refused("empty.json", "the file is empty"),
    refused("empty_data.json", "holds no questions"),
    refused("empty_context.json", "'context' is empty"),
    refused("empty_question.json", "'question' is empty"),
    refused("lone_surrogate.json", "lone surrogate"),
    refused("chatterbox_haystack.json", TOP_LEVEL, "documents"),
    refused("split_keys.json", TOP_LEVEL, "train, validation"),
    refused("utf16.json", "not UTF-8 at byte 0", "UTF-16"),
    refused("latin1.csv", "not UTF-8 at byte 122", "save the file as UTF-8"),
    refused("cp1252.csv", "not UTF-8 at byte 122", "save the file as UTF-8"),
    refused("flat.json.zip", "archive", "unpack it"),
    refused("flat.zip", "archive", "unpack it"),
    refused("flat.json.zst", "cannot be unpacked as .zst"),  # JSON behind the first four bytes of such a file
]  # fmt: skip


def read_questions(item: Row) -> dict[str, QuestionSplit]:
    source = paths("qa", item.name)
    if "--dataset_name" in item.options:
        where = ["--dataset_name", *source]
    else:
        where = ["--train_file", *source, "--validation_file", *source, *item.options]
    argv = ["--model_name_or_path", "base", "--do_train", "--do_eval", *where]
    return load_questions(parse_config(QARunConfig, argv, description="", examples=""))


def content(question: Question) -> tuple[Any, ...]:
    """Return a question without its title, which many forms lack."""
    return question.id, question.question, question.context, question.answer_texts, question.answer_starts


def truth() -> list[tuple[Any, ...]]:
    """Return the content of the questions of flat_data.json."""
    records = json.loads((MATRIX / "qa" / "flat_data.json").read_text(encoding="utf-8"))["data"]
    answers = [(tuple(record["answers"]["text"]), tuple(record["answers"]["answer_start"])) for record in records]
    return [(record["id"], record["question"], record["context"], *answers[n]) for n, record in enumerate(records)]


def questions_as_expected(item: Row) -> Any:
    """Return what the reader finds, in the form of what is expected."""
    splits = read_questions(item)
    train, dev = splits["train"].questions, splits["eval"].questions
    if item.expected == SAME:
        assert train == dev
        return SAME if [content(question) for question in dev] == truth() else [content(question) for question in dev]
    first = next(question for question in dev if question.answer_texts)
    return Read(
        len(dev),
        sum(len(question.answer_texts) for question in dev),
        len(train),
        sum(not question.answer_texts for question in dev),
        (first.answer_texts[0], first.answer_starts[0]),
    )


@pytest.mark.parametrize("item", QUESTION_ROWS, ids=ids(QUESTION_ROWS))
def test_questions(item: Row) -> None:
    check(lambda: questions_as_expected(item), item.expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("answers_text_only", []),
        ("answers_list_of_str", []),
        ("answers_null_start", []),
        ("null_start_one", []),
        ("answer_string", ["--answer_column", "answer"]),
        ("byte_offsets", []),
        ("minus1", []),
        ("some_minus1", []),
    ],
)
def test_preparation_finds_answers_without_a_start_or_with_a_wrong_one(
    tmp_path: Path, name: str, options: list[str]
) -> None:
    path = MATRIX / "qa" / f"{name}.json"
    run = run_main(prepare_squad_pt.main, path, "--output_dir", tmp_path, *options)
    assert run.returncode == 0, run.stderr
    prepared = json.loads((tmp_path / f"pt_{name}.json").read_text(encoding="utf-8"))["data"]
    found = {record["id"]: record["answers"]["answer_start"][0] for record in prepared}
    assert found == {identifier: starts[0] for identifier, *_, starts in truth()}


# ---------------------------------------------------------------- sentences


class Counts(NamedTuple):
    """What is read of a file of sentences; `types` are those of the entities."""

    sentences: int
    words: int
    entities: int
    types: tuple[str, ...]


SAME_SENTENCES = "the sentences of two_col.conll"
LENER = ("JURISPRUDENCIA", "LEGISLACAO", "LOCAL", "ORGANIZACAO", "PESSOA", "TEMPO")
LENER_NUMBERS = [*(f"B-{entity}" for entity in LENER), *(f"I-{entity}" for entity in LENER[:-1]), "O"]
WAY_OUT = ("--word_column", "--label_column")
SENTENCE_ROWS = [
    *(
        row(name, SAME_SENTENCES)
        for name in (
            "two_col.conll", "two_col.txt", "two_col.tsv", "two_col.bio", "two_col.conll.gz", "noext", "bom.conll",
            "crlf.conll", "conll2003.conll", "conll2003.txt", "multiconer.conll", "comments.conll",
            "comments_hash_only.conll", "iob1.conll", "bioes.conll", "bilou.conll", "io.conll", "wikiann.conll",
            "data.json", "list.json", "lines_in.json", "strings.jsonl", "tags_key.jsonl", "tags_labels.jsonl",
            "ner_key.jsonl", "ints_labelsfield.json", "ner.parquet", "ner.csv",
        )
    ),
    row("conllu.conllu", SAME_SENTENCES, "--word_column 2"),
    row("harem_first_label.conll", SAME_SENTENCES, "--word_column 2 --label_column 1"),
    row("ints.jsonl", SAME_SENTENCES, f"--label_names {' '.join(LENER_NUMBERS)}"),
    row("whole_doc.conll", Counts(1, 938, 44, LENER)),
    row("emoji.conll", Counts(25, 942, 45, LENER)),
    row("long_word.conll", Counts(24, 939, 45, LENER)),
    row("quote_tok.conll", Counts(24, 939, 44, LENER)),
    row("accent_label.conll", Counts(24, 938, 44, (*LENER[:4], "PESSOA-FÍSICA", "TEMPO"))),
    row("tsv_space_in_token.tsv", Counts(2, 7, 2, ("LOC", "VALOR"))),
    row("confidence.conll", Counts(2, 3, 1, ("PER",))),
    row("germeval_like.tsv", Counts(2, 5, 2, ("LOC", "PER")), "--word_column 2 --label_column 3"),
    refused("germeval_like.tsv", "running index", *WAY_OUT),
    refused("conllu.conllu", "running index", *WAY_OUT),
    refused("harem_first_label.conll", "first column holds labels", *WAY_OUT),
    refused("ints.jsonl", "labels are numbers", "--label_names"),
    refused("label_missing_line.conll", "line 1: foo has no label"),
    refused("label_space.conll", "line 299", "LUIS"),
    refused("lower_case_label.conll", "line 17", "b-organizacao"),
    refused("underscore.conll", "line 17", "B_ORGANIZACAO"),
    refused("plain.conll", "line 17", "ORGANIZACAO; allowed"),
]  # fmt: skip


def read_sentences(item: Row) -> list[Sentence]:
    argv = ["--model_name_or_path", "base", "--do_train", "--train_file", *paths("ner", item.name), *item.options]
    return load_sentences(parse_config(NERRunConfig, argv, description="", examples=""))["train"].sentences


def true_sentences() -> list[Sentence]:
    blocks = (MATRIX / "ner" / "two_col.conll").read_text(encoding="utf-8").strip().split("\n\n")
    pairs = [[line.split(" ") for line in block.split("\n")] for block in blocks]
    return [Sentence(tuple(word for word, _ in block), tuple(label for _, label in block)) for block in pairs]


def sentences_as_expected(item: Row) -> Any:
    """Return what the reader finds, in the form of what is expected."""
    sentences = read_sentences(item)
    if item.expected == SAME_SENTENCES:
        return SAME_SENTENCES if sentences == true_sentences() else sentences
    labels = [label for sentence in sentences for label in sentence.labels]
    types = tuple(name[2:] for name in label_names(sentences) if name.startswith("B-"))
    return Counts(len(sentences), len(labels), sum(label.startswith("B-") for label in labels), types)


@pytest.mark.parametrize("item", SENTENCE_ROWS, ids=ids(SENTENCE_ROWS))
def test_sentences(item: Row) -> None:
    check(lambda: sentences_as_expected(item), item.expected)


def test_blanks_between_tabs_belong_to_the_word() -> None:
    sentences = read_sentences(row("tsv_space_in_token.tsv", None))
    assert [word for sentence in sentences for word in sentence.words if " " in word] == ["10 000", "Nova York"]


# ---------------------------------------------------------------- text


class Text(NamedTuple):
    """What is read of text: the number of texts and characters, and the beginning of the first and end of the last."""

    texts: int
    characters: int
    begins: str
    ends: str


SAME_TEXTS = "the lines of plain.txt"
BEGIN, END = "As notas e as", "no laboratório e no campo."
FAMILY = "👩\u200d👩\u200d👧\u200d👦"
ALLOWED = "allowed: .txt, .json, .jsonl, .ndjson, .csv, .tsv, .parquet, .arrow, .conll"
TEXT_ROWS = [
    *(
        row(name, SAME_TEXTS)
        for name in (
            "plain.txt", "plain.txt.gz", "bom.txt", "crlf.txt", "cr_only.txt", "blank_lines.txt", "formfeed.txt",
            "text.jsonl", "context_only.jsonl", "text_list.json", "text_data.json", "strings.json", "text.csv",
            "text.parquet", "part1.txt+part2.txt", "part*.txt",
        )
    ),
    row("many", Text(60, 37588, "As notas e as", "o funcionamento do sistema.")),
    row("short.txt", Text(1, 12, "uma linha só", "uma linha só")),
    row("one_huge_line.txt", Text(1, 1129500, BEGIN, END)),
    row("one_word_lines.txt", Text(3000, 16912, "As", "impossibilidade")),
    row("u2028.txt", Text(1, 37650, BEGIN, END)),
    row("nul.txt", Text(1, 37650, BEGIN, END)),
    row("emoji.txt", Text(1, 17999, f"😀{FAMILY} 😀", f"😀{FAMILY}")),
    row("part1.txt", Text(30, 19935, BEGIN, "pelo coordenador do curso.")),
    row("part2.txt", Text(30, 17653, "O curso de graduação", END)),
    row("sents.conll", Text(64, 11914, "EMENTA : APELAÇÃO CÍVEL", "o ( a ) Relator ( a ) .")),
    row("squad_flat.json", Text(41, 27054, BEGIN, "renovação da matrícula.")),
    row("squad_lines.jsonl", Text(24, 14075, "Os Planos de Ensino", "período do afastamento.")),
    row("squad_nested.json", Text(211, 164452, "Universidade Federal", "pelo Colegiado de Curso.")),
    row("squad_v2.json", Text(1001, 843212, "Os normandos (", "que é equivalente a 1000 lbf.")),
    refused("latin1.txt", "not UTF-8 at byte 19", "Latin-1", "save the file as UTF-8"),
    refused("doc.md", "extension '.md'", ALLOWED),
    refused("noext", "extension ''", ALLOWED),
    refused("wiki.xml", "XML", "WikiExtractor", "--dataset_name wikimedia/wikipedia"),
    refused("text.csv", "no column corpo", "found: text", "--text_column", options="--text_column corpo"),
    refused("text.parquet", "no 'corpo'", "found: text", "--text_column", options="--text_column corpo"),
]  # fmt: skip


def texts_as_expected(item: Row) -> Any:
    """Return what the reader finds, in the form of what is expected."""
    argv = ["--model_name_or_path", "base", "--do_train", "--train_file", *paths("mlm", item.name), *item.options]
    split = load_texts(parse_config(MLMRunConfig, argv, description="", examples=""))["train"]
    texts = split.texts
    assert split.source.texts == len(texts)
    if item.expected == SAME_TEXTS:
        lines = (MATRIX / "mlm" / "plain.txt").read_text(encoding="utf-8").split("\n")
        return SAME_TEXTS if [text.strip() for text in texts] == [line.strip() for line in lines] else texts
    if isinstance(item.expected, Refused):
        return texts
    begins, ends = texts[0][: len(item.expected.begins)], texts[-1][-len(item.expected.ends) :]
    return Text(len(texts), sum(map(len, texts)), begins, ends)


@pytest.mark.parametrize("item", TEXT_ROWS, ids=ids(TEXT_ROWS))
def test_texts(item: Row) -> None:
    check(lambda: texts_as_expected(item), item.expected)


# ---------------------------------------------------------------- adapter configurations and encoders


OTHER_METHOD = "not a bottleneck adapter (pfeiffer, houlsby), LoRA or (IA)3"
SHARED_WEIGHTS = "with weights that all layers share"
HIDDEN, INTERMEDIATE, LAYERS = 64, 128, 2  # of all encoders


def bottleneck(reduction: int) -> int:
    """Return the number of weights of one bottleneck: two matrices and their biases."""
    size = HIDDEN // reduction
    return 2 * HIDDEN * size + size + HIDDEN


PFEIFFER = LAYERS * bottleneck(16)
NORM = 2 * HIDDEN
INVERSE = 4 * (HIDDEN // 2) * (HIDDEN // 4) + 2 * (HIDDEN // 4) + 2 * (HIDDEN // 2)  # two nets of two matrices, halved
CONFIG_ROWS = [
    *(
        row(f"{name}.json", PFEIFFER)
        for name in ("seq_bn", "attn_only", "cross", "dropout", "init_mam", "no_residual_ln", "parallel_bn")
    ),
    row("double_seq_bn_inv.json", 2 * PFEIFFER + INVERSE),
    row("gating.json", PFEIFFER + LAYERS * (HIDDEN + 1)),
    row("leave_out.json", bottleneck(16)),
    row("ln_before_after.json", PFEIFFER + LAYERS * 2 * NORM),
    row("par_bn.json", LAYERS * bottleneck(2)),
    row("scaled_par_bn.json", LAYERS * (bottleneck(2) + 1)),
    row("scaling_learned.json", PFEIFFER + LAYERS),
    row("rf_map.json", bottleneck(4) + bottleneck(16)),
    refused("leave_out_all.json", "no module in any of the 2 layers", "leave_out"),
    refused("par_bn.json", "parallel", "language adapter", options="--load_lang_adapter new"),
    refused("parallel_bn.json", "parallel", "language adapter", options="--load_lang_adapter new"),
    refused("double_seq_bn_inv.json", "invertible adapter would have no effect", options="--load_lang_adapter new"),
    *(refused(f"{name}.json", SHARED_WEIGHTS) for name in ("compacter", "compacterPP", "compacter_rf4", "phm")),
    refused("glow.json", "glow", "nice"),
    refused("stoch.json", "stochastic_depth", "torchvision"),
    refused("drop_path.json", "drop_path 0.5"),
    refused("adapterplus.json", "drop_path 0.1"),
    row("lora.json", LAYERS * 2 * 8 * (HIDDEN + HIDDEN)),  # two matrices of rank 8
    row("ia3.json", LAYERS * (2 * HIDDEN + INTERMEDIATE)),  # vectors of keys, values and the feed-forward block
    *(refused(f"{name}.json", OTHER_METHOD) for name in ("loreft", "mam", "prefix_tuning", "unipelt")),
]


def plan(base: str, *options: str, main: Callable[[list[str]], int] = run_qa_adapter.main) -> Any:
    """Return the document that a dry run prints as its last line.

    Raises:
        UserError: the run is refused.
    """
    data = MATRIX / "qa" / "part1.json"
    run = run_main(main, "--model_name_or_path", MATRIX / base, "--train_file", data, "--dry_run", *options)
    if run.returncode == 2:
        raise UserError([line.removeprefix("error: ") for line in run.stderr.splitlines() if "error: " in line])
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1]) | {"stderr": run.stderr}


@pytest.mark.parametrize("item", CONFIG_ROWS, ids=ids(CONFIG_ROWS))
def test_adapter_configurations(item: Row) -> None:
    """On a BERT that was fine-tuned with five labels: the head for answers is its own."""
    config = str(MATRIX / "configs" / item.name)
    options = [*item.options, *(["--random_init", "True"] if item.options else [])]

    def parts() -> dict[str, int]:
        counts: dict[str, int] = plan("base_with_5_labels", "--adapter_config", config, *options)["parameters"]["parts"]
        return counts

    expected = item.expected
    check(parts, expected if isinstance(expected, Refused) else {"qa": expected, "head": 2 * HIDDEN + 2})


ENCODER_ROWS = [
    row("bert_noprefix", PFEIFFER),
    row("xlmr_metaspace", PFEIFFER),
    row("deberta_v2", PFEIFFER),
    row("distilbert", PFEIFFER),
    row("electra", PFEIFFER),
]


@pytest.mark.parametrize("item", ENCODER_ROWS, ids=ids(ENCODER_ROWS))
def test_encoders(item: Row) -> None:
    def added() -> int:
        document = plan(f"encoders/{item.name}")
        assert document["train"]["questions"] == 6
        assert "note: " not in document["stderr"]  # no answer is lost
        return int(document["parameters"]["parts"]["qa"])

    check(added, item.expected)


@pytest.mark.parametrize(("name", "lacks_head"), [("bert_noprefix", True), ("xlmr_metaspace", False)])
def test_a_base_without_a_masked_lm_head_is_said(name: str, lacks_head: bool) -> None:
    document = plan(f"encoders/{name}", "--block_size", "32", main=run_mlm_adapter.main)
    assert document["parameters"]["parts"]["mlm"] == LAYERS * bottleneck(2) + INVERSE
    notes = [line for line in document["stderr"].splitlines() if line.startswith("note: ") and "masked" in line]
    assert len(notes) == lacks_head


# ---------------------------------------------------------------- completeness


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("qa", [item.name for item in QUESTION_ROWS]),
        ("ner", [item.name for item in SENTENCE_ROWS]),
        ("mlm", [item.name for item in TEXT_ROWS]),
        ("configs", [item.name for item in CONFIG_ROWS]),
        ("encoders", [item.name for item in ENCODER_ROWS]),
    ],
)
def test_every_file_has_a_row(kind: str, names: list[str]) -> None:
    missing = {path.name for path in (MATRIX / kind).iterdir()} - {*names}
    assert missing == set()
    assert {path.name for path in MATRIX.iterdir()} == {
        "qa", "ner", "mlm", "configs", "encoders", "base_with_5_labels", "par_bn_on_lang.py",
    }  # fmt: skip

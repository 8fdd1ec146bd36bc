"""Arbitrary input: readers return valid objects or raise UserError, and answers have the text of their offsets.

Properties of a single module are in its own test file: alignment, best spans, windows, metrics.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from support.conll_files import read_sentences
from support.questions import make_questions
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from adapter_qa.config.options import AdapterOptions, ModelOptions
from adapter_qa.config.parser import ConfigParser, parse_config
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.core.errors import CONTROL_CHARS, UserError
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.label_schemes import OUTSIDE
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.questions import Question, is_aligned
from adapter_qa.data.readers.sentences import label_names
from adapter_qa.data.readers.squad import read_question_json, read_squad
from adapter_qa.data.readers.text import read_texts
from adapter_qa.data.spans import choose_answers
from adapter_qa.data.squad_preparation import prepare_questions
from adapter_qa.data.token_classification import tokenize_and_align_labels
from adapter_qa.data.window_dataset import WindowCollator, pair_tokenizer
from adapter_qa.data.windows import make_windows
from adapter_qa.inference.requests import read_requests
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model, load_tokenizer
from adapter_qa.models.build import build_setup
from adapter_qa.models.save import save_setup
from adapter_qa.models.setup_decisions import resolve_setup, setup_for_inference
from adapter_qa.models.weights import read_weights, weight_names
from utils_qa import window_spans

# Composed and decomposed accents, emoji with joiners and skin tones, flags, zero-width and right-to-left characters,
# single combining marks, control characters, characters beyond 16 bits, line separators, delimiters of JSON and CSV.
PIECES = [
    *("a", "Ana", "São", "Sa\u0303o", "é", "e\u0301", "\u0301", "\u0327", "ß", "İ", "ﬁ", "각", "日本", "𝔸", "𐍈", "ก็"),
    *("👩\u200d👩\u200d👧", "👍🏽", "🇧🇷", "❤\ufe0f", "\u200b", "\u200d", "\ufeff", "\u2060", "\u00ad"),
    *("שָׁלוֹם", "سَلام", "\u202e", "\u202c", "\u200f", "\x00", "\x07", "\x1b[2J", "\x7f", "\x85", "\u2028", "\u2029"),
    *(" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", '"', "'", ",", ";", "\\", "{", "}", "["),
    *("&amp;", "##", "[SEP]"),
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.characters(exclude_categories=["Cs"]), max_size=25).map("".join)
visible = texts.filter(str.strip)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**30, -(2**31), "\ud83d", "../x"])
    | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts | st.sampled_from(["id", "data", "qas"]), inner, max_size=3)
    ),
    max_leaves=6,
)
SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def questions_of(draw: st.DrawFn) -> list[Question]:
    """Draw questions about one to three contexts, with spans of them as answers."""
    contexts = draw(st.lists(visible, min_size=1, max_size=3))
    questions = []
    for number in range(draw(st.integers(1, 4))):
        context = draw(st.sampled_from(contexts))
        first = draw(st.integers(0, len(context) - 1))
        answer = context[first : draw(st.integers(first + 1, len(context)))]
        questions.append(Question(f"q{number}", draw(visible), context, (answer,), (first,)))
    return questions


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """Draw a JSON document with one to three values, at any depth, replaced or removed."""
    result = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        parent: Any = result
        while isinstance(parent, (dict, list)) and parent:
            key = draw(st.sampled_from(sorted(parent) if isinstance(parent, dict) else range(len(parent))))
            if not isinstance(parent[key], (dict, list)) or not parent[key] or draw(st.integers(0, 2)) == 0:
                if draw(st.booleans()):
                    del parent[key]
                else:
                    parent[key] = draw(values)
                break
            parent = parent[key]
    return result


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw bytes with some replaced, inserted, removed or cut off."""
    result = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(result)))
        result[start : start + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(result[: draw(st.integers(0, len(result)))]) if draw(st.booleans()) else bytes(result)


@pytest.fixture(scope="module", params=["bert", "roberta"])
def tokenizer(request: pytest.FixtureRequest, tiny_bert: Path, tiny_roberta: Path) -> PreTrainedTokenizerFast:
    base = tiny_bert if request.param == "bert" else tiny_roberta
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(base, add_prefix_space=True)
    return tokenizer


def attempt(call: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the result of a call, or None if it raises a UserError with readable problems."""
    try:
        return call(*args, **kwargs)
    except UserError as error:
        problems = error.problems
    assert problems
    assert all(problem.strip() and not CONTROL_CHARS.search(problem) for problem in problems)
    return None


def write_file(content: bytes | str, name: str) -> Path:
    """Write a file in `FOLDER` and return its path. The next example overwrites it."""
    path = FOLDER / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


TEMPORARY_FOLDER = tempfile.TemporaryDirectory()  # removed when the process ends
FOLDER = Path(TEMPORARY_FOLDER.name)

# ---------------------------------------------------------------- readers


def flat(question: Question) -> dict[str, Any]:
    answers = {"text": list(question.answer_texts), "answer_start": list(question.answer_starts)}
    return {"id": question.id, "question": question.question, "context": question.context, "answers": answers}


def as_nested(questions: list[Question]) -> dict[str, Any]:
    paragraphs = [{"context": question.context, "qas": [{**flat(question), "context": 0}]} for question in questions]
    return {"data": [{"title": "t", "paragraphs": paragraphs}]}


def as_csv(questions: list[Question]) -> str:
    stream = io.StringIO(newline="")
    rows = csv.DictWriter(stream, ["id", "question", "context", "answers"])
    rows.writeheader()
    rows.writerows({**flat(question), "answers": json.dumps(flat(question)["answers"])} for question in questions)
    return stream.getvalue()


@SLOW
@given(questions_of(), st.booleans())
def test_all_file_formats_give_the_same_questions(questions: list[Question], ascii_only: bool) -> None:
    lines = "\r\n".join(json.dumps(flat(question), ensure_ascii=ascii_only) for question in questions)
    for name, content in [
        ("a.json", json.dumps([flat(question) for question in questions], ensure_ascii=ascii_only)),
        ("a.jsonl", "\ufeff" + lines),
        ("a.csv", as_csv(questions)),
    ]:
        assert read_squad(write_file(content, name), need_answers=True) == questions
    nested = read_squad(write_file(json.dumps(as_nested(questions)), "n.json"), need_answers=True)
    assert [(question.id, question.context, question.answer_texts) for question in nested] == [
        (question.id, question.context, question.answer_texts) for question in questions
    ]
    assert all(is_aligned(question) == bool(question.answer_texts[0].strip()) for question in nested)


def assert_valid(questions: list[Question]) -> None:
    assert questions
    assert len({question.id for question in questions}) == len(questions)
    for question in questions:
        assert all((question.question.strip(), question.context.strip(), question.id.strip()))
        assert len(question.answer_texts) == len(question.answer_starts)
        for text in (question.id, question.question, question.context, question.title, *question.answer_texts):
            text.encode("utf-8")
        assert all(type(start) is int and abs(start) < 2**31 for start in question.answer_starts)


GOOD = make_questions(2, 1)
DOCUMENTS = [as_nested(GOOD), {"data": [flat(question) for question in GOOD]}, [flat(question) for question in GOOD]]


@SLOW
@given(st.data(), st.booleans(), st.sampled_from(["a.json", "a.jsonl"]))
def test_any_json_gives_valid_questions_or_is_refused(data: st.DataObject, need_answers: bool, name: str) -> None:
    document = data.draw(changed(data.draw(st.sampled_from(DOCUMENTS))) | values)
    lines = document if name == "a.jsonl" and isinstance(document, list) else [document]
    path = write_file("\n".join(map(json.dumps, lines)), name)
    questions = attempt(read_squad, path, need_answers=need_answers)
    if questions is not None:
        assert_valid(questions)
    requests = attempt(read_requests, str(path))
    assert requests is None or len(json.loads(json.dumps([*requests.read()], allow_nan=False))) == requests.count
    attempt(read_texts, path)
    attempt(read_sentences, path, need_labels=need_answers)


CONLL = "Ana B-PER\nLima I-PER\nnasceu O\n\nBelém B-LOC\n. O\n"
FILES = {
    "a.json": json.dumps(DOCUMENTS[0]), "a.jsonl": "\n".join(map(json.dumps, DOCUMENTS[2])), "a.csv": as_csv(GOOD),
    "a.conll": CONLL, "a.txt": CONLL, "s.json": json.dumps([{"tokens": ["Ana", "x"], "ner_tags": ["B-PER", "O"]}]),
}  # fmt: skip


@SLOW
@given(st.sampled_from(sorted(FILES)), st.data())
def test_any_bytes_give_valid_objects_or_are_refused(name: str, data: st.DataObject) -> None:
    path = write_file(data.draw(damaged(FILES[name].encode("utf-8")) | st.binary(max_size=200)), name)
    questions = attempt(read_squad, path, need_answers=True)
    if questions is not None:
        assert_valid(questions)
    sentences = attempt(read_sentences, path, need_labels=True)
    for sentence in sentences or []:
        assert len(sentence.words) == len(sentence.labels) > 0
        assert all(word and word == word.strip(" \t\n\r") for word in sentence.words)
    assert sentences is None or label_names(sentences)[0] == OUTSIDE
    read = attempt(read_texts, path)
    assert read is None or (read.texts and all(text.strip() for text in read.texts))


@SLOW
@given(st.data(), st.booleans())
def test_prepared_questions_are_counted_and_aligned(data: st.DataObject, keep_unaligned: bool) -> None:
    document = data.draw(changed(data.draw(st.sampled_from(DOCUMENTS))))
    records = attempt(read_question_json, "a.json", json.dumps(document).encode())
    if records is None:
        return
    prepared = prepare_questions(records, keep_unaligned=keep_unaligned)
    counts = prepared.counts()
    assert len(records) == counts["read"] == counts["kept"] + counts["duplicates"] + sum(counts["rejected"].values())
    for question in prepared.questions:
        for k, start in enumerate(question.answer_starts):
            assert is_aligned(question, k) or (keep_unaligned and start == -1)


# ---------------------------------------------------------------- windows and answers


@settings(SLOW, max_examples=60)
@given(questions_of(), st.sampled_from([(20, 0), (24, 6), (64, 16)]), st.data())
def test_answers_have_the_text_of_their_offsets(
    tokenizer: PreTrainedTokenizerFast, questions: list[Question], sizes: tuple[int, int], data: st.DataObject
) -> None:
    """For any scores and any text, an answer is the context between its offsets."""
    windows = make_windows(questions, pair_tokenizer(tokenizer), max_seq_length=sizes[0], doc_stride=sizes[1])
    assert windows.lengths().max() <= sizes[0]
    assert set(windows.question_index) == set(range(len(questions)))
    batch = WindowCollator(int(tokenizer.pad_token_id), left=False)([windows[index] for index in range(len(windows))])
    torch.manual_seed(data.draw(st.integers(0, 99)))
    logits = torch.randn(2, *batch["input_ids"].shape).round()
    options = AnsweringOptions(*sizes, n_best_size=5, max_answer_length=8, version_2=data.draw(st.booleans()))
    spans = window_spans(batch, logits[0], logits[1], options).arrays()
    answers = choose_answers(questions, windows, spans, options)
    assert set(answers.chosen) == {question.id for question in questions}
    for question in questions:
        chosen = answers.chosen[question.id]
        assert 0 <= chosen.start <= chosen.end <= len(question.context) or not chosen.text
        if chosen.text:
            assert chosen.text == question.context[chosen.start : chosen.end]
            assert len(chosen.text.encode("utf-8")) > 0


@settings(SLOW, max_examples=60)
@given(
    st.lists(
        st.lists(visible.map(lambda text: "".join(text.split()) or "x"), min_size=1, max_size=8), min_size=1, max_size=3
    ),
    st.booleans(),
    st.booleans(),
)
def test_every_word_is_labelled_in_the_encoder_inputs(
    tokenizer: PreTrainedTokenizerFast, words: list[list[str]], all_tokens: bool, pairs: bool
) -> None:
    content = "\n\n".join(
        "\n".join(f"{word} {'B-X' if number % 2 else 'O'}" for number, word in enumerate(sentence))
        for sentence in words
    )
    sentences = attempt(read_sentences, write_file(content, "w.conll"), need_labels=True)
    if sentences is None:  # the only word is -DOCSTART-, or a word is white space
        return
    dataset = tokenize_and_align_labels(
        sentences,
        tokenizer,
        label_names(sentences),
        max_seq_length=16,
        label_all_tokens=all_tokens,
        next_sentence=pairs,
    )
    assert max(dataset.lengths()) <= 16
    assert set(dataset.sentence_indices) == set(range(len(sentences)))
    if not all_tokens and not pairs:
        assert sum((item.labels != IGNORE_INDEX).sum() for item in dataset.inputs) == sum(
            len(sentence.words) for sentence in sentences
        )


# ---------------------------------------------------------------- options


OPTION_NAMES = [name for name in ConfigParser(QARunConfig).known_names() if name not in ("help", "deepspeed")]
words = st.sampled_from(
    ["0", "-1", "1e-4", "-1e-4", "nan", "inf", "True", "no", "x", "", "1.5", "9" * 20, "{}", "[1]", "epoch"]
)


@settings(SLOW, max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(OPTION_NAMES), st.lists(words | texts, max_size=2)), max_size=4))
def test_any_options_are_accepted_or_refused(tiny_bert: Path, options: list[tuple[str, list[str]]]) -> None:
    line = [word for name, arguments in options for word in (f"--{name}", *arguments) if "\x00" not in word]
    for config_class in (QARunConfig, MLMRunConfig, NERRunConfig):
        argv = ["--model_name_or_path", str(tiny_bert), *line]
        attempt(parse_config, config_class, argv, description="", examples="")


@settings(SLOW, max_examples=100)
@given(st.dictionaries(st.sampled_from(OPTION_NAMES) | texts, values | words, max_size=4), st.booleans())
def test_any_options_file_is_accepted_or_refused(tiny_bert: Path, options: dict[str, Any], as_yaml: bool) -> None:
    path = write_file(json.dumps(options), "o.yaml" if as_yaml else "o.json")
    argv = [str(path), "--model_name_or_path", str(tiny_bert)]
    attempt(parse_config, QARunConfig, argv, description="", examples="")


# ---------------------------------------------------------------- models and saves


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """Return a QA adapter as a run saves it."""
    folder = tmp_path_factory.mktemp("saved") / "adapters-qa"
    options = ModelOptions(str(tiny_bert))
    model = load_model(options, "qa")
    setup = resolve_setup("qa", read_base_config(options), AdapterOptions(adapter_config="pfeiffer+inv"))
    assert setup is not None
    build_setup(model, setup)
    save_setup(model, setup, folder, {"base_model": {"name_or_path": str(tiny_bert)}, "tokenizer": None})
    return folder


@settings(SLOW, max_examples=60)
@given(st.sampled_from(["adapter_setup.json", "head_config.json", "qa/adapter_config.json"]), st.data())
def test_any_saved_folder_is_loaded_or_refused(saved: Path, tiny_bert: Path, name: str, data: st.DataObject) -> None:
    good = (saved / name).read_text(encoding="utf-8")
    try:
        (saved / name).write_text(json.dumps(data.draw(changed(json.loads(good)))), encoding="utf-8")
        base = read_base_config(ModelOptions(str(tiny_bert)))
        setup = attempt(setup_for_inference, "RUN", str(saved), base, None)
        if setup is not None:
            model = load_model(ModelOptions(str(tiny_bert)), "qa")
            attempt(build_setup, model, setup)
    finally:
        (saved / name).write_text(good, encoding="utf-8")


@settings(SLOW, max_examples=60)
@given(st.data())
def test_any_config_json_gives_a_model_or_is_refused(tiny_bert: Path, data: st.DataObject) -> None:
    config = json.loads((tiny_bert / "config.json").read_text(encoding="utf-8"))
    folder = FOLDER / "model"
    shutil.copytree(tiny_bert, folder, dirs_exist_ok=True)
    (folder / "config.json").write_text(json.dumps(data.draw(changed(config))), encoding="utf-8")
    options = ModelOptions(str(folder))
    if attempt(read_base_config, options) is not None:
        attempt(load_model, options, "qa", shapes_only=True)
        attempt(load_model, options, "qa")
        attempt(load_tokenizer, options)


@settings(SLOW, max_examples=60)
@given(st.sampled_from(["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]), st.data())
def test_any_tokenizer_is_loaded_or_refused(tiny_bert: Path, name: str, data: st.DataObject) -> None:
    folder = FOLDER / "tokenizer"
    shutil.copytree(tiny_bert, folder, dirs_exist_ok=True)
    document = json.loads((tiny_bert / name).read_text(encoding="utf-8"))
    (folder / name).write_text(json.dumps(data.draw(changed(document))), encoding="utf-8")
    tokenizer = attempt(load_tokenizer, ModelOptions(str(tiny_bert), tokenizer_name=str(folder)))
    if tokenizer is not None:
        attempt(make_windows, make_questions(1), pair_tokenizer(tokenizer), max_seq_length=48, doc_stride=8)


WEIGHTS = {f"bert.encoder.layer.{layer}.output.adapters.qa.up.weight": torch.ones(3, 2) for layer in range(3)}


def saved_weights(name: str) -> bytes:
    path = FOLDER / name
    if name.endswith(".safetensors"):
        save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=name.startswith("zip"))
    return path.read_bytes()


CONTENTS = {name: saved_weights(name) for name in ("a.safetensors", "zip.bin", "legacy.bin")}


@SLOW
@given(st.sampled_from(sorted(CONTENTS)), st.data())
def test_any_weight_file_gives_tensors_or_is_refused(name: str, data: st.DataObject) -> None:
    path = write_file(data.draw(damaged(CONTENTS[name])), name)
    state = attempt(read_weights, path)
    assert state is None or all(isinstance(weight, torch.Tensor) for weight in state.values())
    attempt(weight_names, path)

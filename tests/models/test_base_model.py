"""The base model: its tokenizer, its weights and their fingerprint, without a network."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForTokenClassification,
    BertTokenizer,
    PreTrainedModel,
)

from adapter_qa.config.options import AdapterOptions, ModelOptions
from adapter_qa.core.errors import UserError
from adapter_qa.models.adapter_setup import resolve_setup
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model, load_tokenizer, silence_library_notices
from adapter_qa.models.build import build_setup
from adapter_qa.models.identity import weights_fingerprint


@pytest.fixture(autouse=True)
def _offline() -> None:
    assert huggingface_hub.constants.HF_HUB_OFFLINE, "conftest.py sets HF_HUB_OFFLINE before anything is imported"


@pytest.fixture
def copied(tmp_path: Path, tiny_bert: Path) -> Path:
    """A copy of the tiny BERT, which a test may damage."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "copied"))


def change(folder: Path, **values: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}), encoding="utf-8")
    return path


# ---------------------------------------------------------------- tokenizer


def test_a_tokenizer_for_lists_of_words(tiny_bert: Path, tiny_roberta: Path) -> None:
    words = ["Ana", "nasceu"]
    for base in (tiny_bert, tiny_roberta):
        by_words = load_tokenizer(ModelOptions(str(base)), split_words=True)
        assert by_words.is_fast
        assert by_words(words, is_split_into_words=True).word_ids()[1] == 0
    with pytest.raises(AssertionError, match="add_prefix_space"):
        load_tokenizer(ModelOptions(str(tiny_roberta)))(words, is_split_into_words=True)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(copied: Path, tiny_roberta: Path) -> None:
    change(copied, vocab_size=350)
    options = ModelOptions(str(copied), tokenizer_name=str(tiny_roberta))
    assert load_tokenizer(options).sep_token == "</s>"
    change(copied, vocab_size=349)
    with pytest.raises(UserError, match="the tokenizer has 350 tokens, the base model 349; give the model's own"):
        load_tokenizer(options)


def test_a_model_without_a_tokenizer_is_refused(copied: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        (copied / name).unlink()
    with pytest.raises(UserError) as caught:
        load_tokenizer(ModelOptions(str(copied)))
    (problem,) = caught.value.problems
    assert problem.startswith(f"{copied}: no tokenizer can be loaded (")
    assert "\n" not in problem
    assert problem.endswith("); give --tokenizer_name")


def test_a_tokenizer_without_a_fast_version_is_refused(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = BertTokenizer(str(tiny_bert / "vocab.txt"))
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *args, **kwargs: slow)
    with pytest.raises(UserError) as caught:
        load_tokenizer(ModelOptions(str(tiny_bert)))
    assert caught.value.problems == [
        f"{tiny_bert}: the tokenizer has no fast version, which windows need for character offsets"
    ]


# ---------------------------------------------------------------- weights


def random_model(seed: int) -> Any:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForMaskedLM(BertConfig(vocab_size=300, max_position_embeddings=64, **sizes))


@pytest.mark.parametrize(
    ("task", "model_class"),
    [("qa", BertForQuestionAnswering), ("mlm", BertForMaskedLM), ("ner", BertForTokenClassification)],
)
def test_a_model_has_the_head_of_its_task_and_the_saved_weights(
    tiny_bert: Path, task: str, model_class: type[PreTrainedModel]
) -> None:
    labels = ["O", "B-PER", "I-PER"] if task == "ner" else None
    model = load_model(ModelOptions(str(tiny_bert)), task, labels)
    assert type(model) is model_class
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    stored = BertForMaskedLM.from_pretrained(tiny_bert).bert.state_dict()
    loaded = {name.removeprefix("bert."): weight for name, weight in model.state_dict().items()}
    assert all(torch.equal(loaded[name], weight) for name, weight in stored.items() if name in loaded)
    if labels is not None:
        assert (model.config.id2label, model.config.num_labels) == (dict(enumerate(labels)), 3)
        assert model.config.label2id == {"O": 0, "B-PER": 1, "I-PER": 2}


def test_weights_in_half_precision_are_loaded_as_float32(tmp_path: Path) -> None:
    model = random_model(1).half()
    model.save_pretrained(tmp_path)
    loaded: Any = load_model(ModelOptions(str(tmp_path)), "mlm")
    assert loaded.bert.pooler is None
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    assert torch.equal(
        loaded.bert.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight.float()
    )


def test_random_weights_depend_on_the_seed_only(tiny_bert: Path) -> None:
    options = ModelOptions(str(tiny_bert), random_init=True)
    fingerprints = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        fingerprints.append(weights_fingerprint(load_model(options, "qa")))
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert fingerprints[0] != weights_fingerprint(load_model(ModelOptions(str(tiny_bert)), "qa"))


def test_shapes_only_puts_the_model_on_the_meta_device(tiny_bert: Path) -> None:
    loaded = load_model(ModelOptions(str(tiny_bert)), "qa")
    empty = load_model(ModelOptions(str(tiny_bert)), "qa", shapes_only=True)
    assert {weight.device.type for weight in empty.parameters()} == {"meta"}
    shapes = [{name: weight.shape for name, weight in model.named_parameters()} for model in (loaded, empty)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_truncated_weights_are_refused(copied: Path, size: int) -> None:
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError) as caught:
        load_model(ModelOptions(str(copied)), "qa")
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: the weights cannot be read (")
    assert "\n" not in problem


def test_the_fingerprint_depends_on_the_weights() -> None:
    fingerprint = weights_fingerprint(random_model(1))
    assert fingerprint == weights_fingerprint(random_model(1)) != weights_fingerprint(random_model(2))
    model = random_model(1)
    with torch.no_grad():
        model.bert.encoder.layer[1].output.LayerNorm.bias[3] += 1e-3
    assert weights_fingerprint(model) != fingerprint


def test_the_fingerprint_does_not_depend_on_file_format_and_head(tmp_path: Path) -> None:
    model = random_model(1)
    model.save_pretrained(tmp_path / "safe")
    model.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    assert (tmp_path / "pickled" / "pytorch_model.bin").is_file()
    for name in ("safe", "pickled"):
        for task, labels in (("mlm", None), ("qa", None), ("ner", ["O", "B-X", "I-X"])):
            loaded = load_model(ModelOptions(str(tmp_path / name)), task, labels)
            assert weights_fingerprint(loaded) == weights_fingerprint(model)


def test_the_fingerprint_does_not_depend_on_adapters(tiny_bert: Path) -> None:
    options = ModelOptions(str(tiny_bert))
    model = load_model(options, "mlm")
    before = weights_fingerprint(model)
    setup = resolve_setup("mlm", read_base_config(options), AdapterOptions())
    assert setup is not None
    build_setup(model, setup)
    assert any("invertible" in name for name, _ in model.named_parameters())
    assert weights_fingerprint(model) == before


@pytest.fixture
def library_loggers() -> Iterator[list[logging.Logger]]:
    """The two loggers that `silence_library_notices` filters; afterwards they have their own filters again."""
    loggers = [logging.getLogger(name) for name in ("adapters.model_mixin", "transformers.modeling_utils")]
    before = [list(logger.filters) for logger in loggers]
    yield loggers
    for logger, filters in zip(loggers, before, strict=True):
        logger.filters[:] = filters


def test_only_two_library_notices_are_silenced(library_loggers: list[logging.Logger]) -> None:
    silence_library_notices()
    adapters_logger, transformers_logger = library_loggers
    shown = [
        bool(logger.filter(logger.makeRecord(logger.name, logging.WARNING, "", 0, message, (), None)))
        for logger, message in [
            (adapters_logger, "There are adapters available but none are activated for the forward pass."),
            (adapters_logger, "something else"),
            (transformers_logger, "Some weights of X were not initialized and are newly initialized: ['qa']"),
            (transformers_logger, "something else"),
        ]
    ]
    assert shown == [False, True, False, True]

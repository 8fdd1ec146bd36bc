"""The base model (adapter_qa/models/base_model.py): what its configuration is refused for, its tokenizer, its weights and their
fingerprint. Never on the network.
"""

from __future__ import annotations

import json
import shutil
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
from adapter_qa.models.base_model import load_model, load_tokenizer, weights_fingerprint
from adapter_qa.models.build import build_setup


@pytest.fixture(autouse=True)
def _offline() -> None:
    assert huggingface_hub.constants.HF_HUB_OFFLINE, "conftest.py sets HF_HUB_OFFLINE before anything is imported"


@pytest.fixture
def copied(tmp_path: Path, tiny_bert: Path) -> Path:
    """A tiny BERT that may be damaged."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "copied"))


def change(folder: Path, **values: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}), encoding="utf-8")
    return path


# ---------------------------------------------------------------- tokenizer


def test_tokenizers_for_text_and_for_words(tiny_bert: Path, tiny_roberta: Path) -> None:
    words = ["Ana", "nasceu"]
    for base in (tiny_bert, tiny_roberta):
        by_words = load_tokenizer(ModelOptions(str(base)), split_words=True)
        assert by_words.is_fast and by_words(words, is_split_into_words=True).word_ids()[1] == 0
    with pytest.raises(AssertionError, match="add_prefix_space"):
        load_tokenizer(ModelOptions(str(tiny_roberta)))(words, is_split_into_words=True)


def test_another_tokenizer_than_the_models(copied: Path, tiny_roberta: Path) -> None:
    change(copied, vocab_size=350)
    options = ModelOptions(str(copied), tokenizer_name=str(tiny_roberta))
    assert load_tokenizer(options).sep_token == "</s>"
    change(copied, vocab_size=349)
    with pytest.raises(UserError, match="the tokenizer has 350 tokens, the base model 349; give the model's own"):
        load_tokenizer(options)


def test_no_tokenizer(copied: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        (copied / name).unlink()
    with pytest.raises(UserError) as caught:
        load_tokenizer(ModelOptions(str(copied)))
    (problem,) = caught.value.problems
    assert problem.startswith(f"{copied}: no tokenizer can be loaded (") and "\n" not in problem
    assert problem.endswith("); give --tokenizer_name")


def test_only_a_slow_tokenizer(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = BertTokenizer(str(tiny_bert / "vocab.txt"))
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *args, **others: slow)
    with pytest.raises(UserError) as caught:
        load_tokenizer(ModelOptions(str(tiny_bert)))
    assert caught.value.problems == [
        f"{tiny_bert}: the tokenizer has no fast version, which windows need for character offsets"
    ]


# ---------------------------------------------------------------- weights


def drawn(seed: int) -> Any:  # the library's types do not know its own modules
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForMaskedLM(BertConfig(vocab_size=300, max_position_embeddings=64, **sizes))


@pytest.mark.parametrize(
    ("task", "model_class"),
    [("qa", BertForQuestionAnswering), ("mlm", BertForMaskedLM), ("ner", BertForTokenClassification)],
)
def test_models_have_the_head_of_their_task(tiny_bert: Path, task: str, model_class: type[PreTrainedModel]) -> None:
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


def test_weights_in_half_precision_are_read_in_full(tmp_path: Path) -> None:
    model = drawn(1).half()
    model.save_pretrained(tmp_path)
    loaded: Any = load_model(ModelOptions(str(tmp_path)), "mlm")
    assert loaded.bert.pooler is None and {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    assert torch.equal(
        loaded.bert.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight.float()
    )


def test_random_weights_follow_the_seed(tiny_bert: Path) -> None:
    options = ModelOptions(str(tiny_bert), random_init=True)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(weights_fingerprint(load_model(options, "qa")))
    assert found[0] == found[1] != found[2]
    assert found[0] != weights_fingerprint(load_model(ModelOptions(str(tiny_bert)), "qa"))


def test_a_plan_has_shapes_and_no_values(tiny_bert: Path) -> None:
    real, setup = (load_model(ModelOptions(str(tiny_bert)), "qa", shapes_only=one) for one in (False, True))
    assert {weight.device.type for weight in setup.parameters()} == {"meta"}
    shapes = [{name: weight.shape for name, weight in model.named_parameters()} for model in (real, setup)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_damaged_weights(copied: Path, keep: int) -> None:
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError) as caught:
        load_model(ModelOptions(str(copied)), "qa")
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: the weights cannot be read (") and "\n" not in problem


def test_fingerprints_tell_models_apart() -> None:
    assert weights_fingerprint(drawn(1)) == weights_fingerprint(drawn(1)) != weights_fingerprint(drawn(2))
    model = drawn(1)
    with torch.no_grad():
        model.bert.encoder.layer[1].output.LayerNorm.bias[3] += 1e-3
    assert weights_fingerprint(model) != weights_fingerprint(drawn(1))


def test_fingerprints_survive_saving(tmp_path: Path) -> None:
    model = drawn(1)
    model.save_pretrained(tmp_path / "safe")
    model.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    assert (tmp_path / "pickled" / "pytorch_model.bin").is_file()
    for name in ("safe", "pickled"):
        for task, labels in (("mlm", None), ("qa", None), ("ner", ["O", "B-X", "I-X"])):
            loaded = load_model(ModelOptions(str(tmp_path / name)), task, labels)
            assert weights_fingerprint(loaded) == weights_fingerprint(model)


def test_fingerprints_leave_adapters_out(tiny_bert: Path) -> None:
    options = ModelOptions(str(tiny_bert))
    model = load_model(options, "mlm")
    before = weights_fingerprint(model)
    setup = resolve_setup("mlm", read_base_config(options), AdapterOptions())
    assert setup is not None
    build_setup(model, setup)
    assert any("invertible" in name for name, _ in model.named_parameters())
    assert weights_fingerprint(model) == before

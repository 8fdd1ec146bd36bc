"""Base models in the forms in which people release and keep them, for every encoder.

Each form is made from one tiny model with random weights. It must give the logits of the library's model, and its files
the fingerprint of the model, or be refused in one line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.encoder_configs import tiny_config
from support.problems import notes_of, problem_of
from transformers import AutoModelForMaskedLM, PretrainedConfig

from adapter_qa.config.options import ModelOptions
from adapter_qa.models.base_model import check_masked_lm_head, load_model
from adapter_qa.models.encoders import ENCODERS
from adapter_qa.models.identity import WeightsFingerprint, base_files_fingerprint, weights_fingerprint
from adapter_qa.models.tasks import Task

IDS = torch.tensor([[5, 17, 23, 9, 41, 30, 12, 8], [6, 7, 8, 9, 10, 11, 12, 13]])
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Released:
    """A model as the library has it.

    Attributes:
        config: its configuration.
        prefix: what the names of the weights of its base begin with.
        weights: all of them; those that are tied are there under both names.
        tied: names of the second copies.
        hidden: last hidden states for `IDS`.
        logits: of the masked-LM head for `IDS`.
        fingerprint: of its base.
    """

    config: PretrainedConfig
    prefix: str
    weights: State
    tied: frozenset[str]
    hidden: torch.Tensor
    logits: torch.Tensor
    fingerprint: WeightsFingerprint

    @property
    def base(self) -> State:
        """The weights of the base under the names that a model without a head has."""
        return {
            name.removeprefix(self.prefix): weight
            for name, weight in self.weights.items()
            if name.startswith(self.prefix)
        }


@cache
def released(model_type: str) -> Released:
    torch.manual_seed(1)
    model: Any = AutoModelForMaskedLM.from_config(tiny_config(model_type)).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    tied = frozenset(weights) - {name for name, _ in model.named_parameters()}
    with torch.no_grad():
        hidden, logits = model.base_model(IDS).last_hidden_state, model(IDS).logits
    prefix = f"{model.base_model_prefix}."
    return Released(model.config, prefix, weights, tied, hidden, logits, weights_fingerprint(model))


# ---------------------------------------------------------------- files


def in_one_file(folder: Path, state: State) -> None:
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def in_a_pickle(folder: Path, state: State) -> None:
    torch.save(state, folder / "pytorch_model.bin")


def in_an_old_pickle(folder: Path, state: State) -> None:
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def in_shards(folder: Path, state: State) -> None:
    _write_shards(folder, state, "model", ".safetensors", save_file)


def in_pickled_shards(folder: Path, state: State) -> None:
    _write_shards(folder, state, "pytorch_model", ".bin", torch.save)


def in_two_formats(folder: Path, state: State) -> None:
    """Safetensors are read; the older file beside them has other weights."""
    in_one_file(folder, state)
    in_a_pickle(folder, {name: torch.zeros_like(weight) for name, weight in state.items()})


def _write_shards(folder: Path, state: State, stem: str, ending: str, write: Callable[[State, Path], Any]) -> None:
    files = {name: f"{stem}-0000{1 + index % 2}-of-00002{ending}" for index, name in enumerate(state)}
    for file in set(files.values()):
        write({name: weight for name, weight in state.items() if files[name] == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": files}
    (folder / f"{stem}{ending}.index.json").write_text(json.dumps(index), encoding="utf-8")


def write(folder: Path, config: PretrainedConfig, state: State, form: Callable[[Path, State], None]) -> ModelOptions:
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    form(folder, {name: weight.clone().contiguous() for name, weight in state.items()})
    return ModelOptions(str(folder))


def change_config(options: ModelOptions, **values: Any) -> None:
    path = Path(options.model_name_or_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values), encoding="utf-8")


# ---------------------------------------------------------------- names


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: weight for name, weight in state.items()}


def with_names_of_tensorflow(state: State) -> State:
    for new, old in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
        state = {name.replace(new, old): weight for name, weight in state.items()}
    return state


def with_other_heads(model: Released) -> State:
    """With a pooler, and heads of other tasks and other numbers of classes."""
    shapes = {
        "pooler.dense.weight": (16, 16), "cls.seq_relationship.weight": (2, 16), "sop_classifier.classifier.bias": (2,),
        "classifier.weight": (7, 16), "classifier.bias": (7,), "classifier.dense.weight": (16, 16),
        "qa_outputs.weight": (5, 16), "qa_outputs.bias": (5,), "score.weight": (3, 16),
    }  # fmt: skip
    names = {name: model.prefix + name if name.startswith("pooler") else name for name in shapes}
    return model.weights | {names[name]: torch.ones(shape) for name, shape in shapes.items()}


def with_buffers(model: Released, prefix: str) -> State:
    return {
        f"{prefix}embeddings.position_ids": torch.arange(40)[None],
        f"{prefix}embeddings.token_type_ids": torch.zeros(1, 40, dtype=torch.long),
        f"{prefix}embeddings.an_older_embedding.weight": torch.ones(40, 16),
        f"{prefix}layers.0.attn.rotary_emb.inv_freq": torch.ones(4),
    }


# Name: the weights, the files, whether they have the masked-LM head.
FORMS: dict[str, tuple[Callable[[Released], State], Callable[[Path, State], None], bool]] = {
    "safetensors, tied weights twice": (lambda m: m.weights, in_one_file, True),
    "without the second copy": (
        lambda m: {name: weight for name, weight in m.weights.items() if name not in m.tied},
        in_one_file,
        True,
    ),
    "a .bin file": (lambda m: m.weights, in_a_pickle, True),
    "a .bin file of before torch 1.6": (lambda m: m.weights, in_an_old_pickle, True),
    "shards": (lambda m: m.weights, in_shards, True),
    "shards of .bin": (lambda m: m.weights, in_pickled_shards, True),
    "two formats": (lambda m: m.weights, in_two_formats, True),
    "a base without a prefix": (lambda m: m.base, in_one_file, False),
    "a base with its prefix": (lambda m: prefixed(m.prefix, m.base), in_a_pickle, False),
    "of a parallel training": (lambda m: prefixed("module.", m.weights), in_a_pickle, True),
    "a base of a parallel training": (lambda m: prefixed("module.", m.base), in_a_pickle, False),
    "of a compiled model": (lambda m: prefixed("_orig_mod.", m.weights), in_one_file, True),
    "of another class": (lambda m: prefixed("model.", m.weights), in_one_file, True),
    "a base of another class": (lambda m: prefixed("encoder.", m.base), in_one_file, False),
    "names of TensorFlow": (lambda m: with_names_of_tensorflow(m.weights), in_a_pickle, True),
    "a base with names of TensorFlow": (lambda m: with_names_of_tensorflow(m.base), in_a_pickle, False),
    "heads of other tasks": (with_other_heads, in_one_file, True),
    "what an encoder does not have": (lambda m: m.weights | with_buffers(m, m.prefix), in_one_file, True),
    "a base with what it does not have": (lambda m: m.base | with_buffers(m, ""), in_a_pickle, False),
}


# What does not depend on the encoder is tried with two of them, whose names of weights differ most.
OF_EVERY_ENCODER = (
    "without the second copy", "a base without a prefix", "of a parallel training", "of another class",
    "names of TensorFlow", "heads of other tasks", "what an encoder does not have",
)  # fmt: skip
TRIED = [(kind, form) for kind in ENCODERS for form in FORMS if form in OF_EVERY_ENCODER] + [
    (kind, form) for kind in ("bert", "modernbert") for form in FORMS if form not in OF_EVERY_ENCODER
]


@pytest.mark.parametrize(("model_type", "form"), TRIED)
def test_every_form_gives_the_same_model(
    model_type: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = released(model_type)
    weights, files, has_head = FORMS[form]
    options = write(tmp_path, model.config, weights(model), files)
    loaded: Any = load_model(options, "mlm").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded.base_model(IDS).last_hidden_state, model.hidden, rtol=0, atol=1e-6)
        if has_head:
            torch.testing.assert_close(loaded(IDS).logits, model.logits, rtol=0, atol=1e-6)
    assert weights_fingerprint(loaded) == base_files_fingerprint(options) == model.fingerprint
    notes = notes_of(capsys, check_masked_lm_head, options, loaded)
    assert notes == [] if has_head else "; if there is a checkpoint of this base" in notes[0]


@pytest.mark.parametrize("model_type", ENCODERS)
def test_a_head_for_questions_takes_nothing_from_other_heads(model_type: str, tmp_path: Path) -> None:
    model = released(model_type)
    options = write(tmp_path, model.config, with_other_heads(model), in_one_file)
    labels: dict[Task, list[str] | None] = {"qa": None, "ner": ["O", "B-X", "I-X"]}
    for task in labels:
        loaded: Any = load_model(options, task, labels[task]).eval()
        with torch.no_grad():
            torch.testing.assert_close(loaded.base_model(IDS).last_hidden_state, model.hidden, rtol=0, atol=1e-6)
        assert weights_fingerprint(loaded) == model.fingerprint
        assert loaded.config.num_labels == (2 if task == "qa" else 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("model_type", ENCODERS)
def test_a_base_in_half_precision_is_trained_in_float32(model_type: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = released(model_type)
    options = write(tmp_path, model.config, {name: w.to(dtype) for name, w in model.weights.items()}, in_one_file)
    name = str(dtype).removeprefix("torch.")
    change_config(options, torch_dtype=name, dtype=name)
    loaded = load_model(options, "mlm")
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    assert weights_fingerprint(loaded).float32 == base_files_fingerprint(options).float32
    assert base_files_fingerprint(options).float32 == model.fingerprint._asdict()[name]


# ---------------------------------------------------------------- heads of releases


def as_microsoft_releases_it(model: Released) -> State:
    return {
        name.replace("cls.predictions.bias", "lm_predictions.lm_head.bias").replace(
            "cls.predictions.transform.", "lm_predictions.lm_head."
        ): weight
        for name, weight in model.weights.items()
        if name not in model.tied
    }


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("legacy", [None, False])
def test_the_head_of_a_released_deberta_is_used(
    prefix: str, legacy: bool | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = released("deberta-v2")
    options = write(tmp_path, model.config, prefixed(prefix, as_microsoft_releases_it(model)), in_a_pickle)
    change_config(options, **({} if legacy is None else {"legacy": legacy}))
    loaded: Any = load_model(options, "mlm").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, model.logits, rtol=0, atol=1e-6)
    assert notes_of(capsys, check_masked_lm_head, options, loaded) == []
    assert base_files_fingerprint(options) == weights_fingerprint(loaded) == model.fingerprint


DISCRIMINATORS: dict[str, Callable[[Released], State]] = {
    "deberta-v2": lambda m: (
        as_microsoft_releases_it(m)
        | {"mask_predictions.dense.weight": torch.ones(16, 16), "mask_predictions.classifier.weight": torch.ones(1, 16)}
    ),
    "electra": lambda m: (
        prefixed(m.prefix, m.base)
        | {
            "discriminator_predictions.dense.weight": torch.ones(16, 16),
            "discriminator_predictions.dense_prediction.weight": torch.ones(1, 16),
        }
    ),
}


@pytest.mark.parametrize("model_type", DISCRIMINATORS)
def test_a_discriminator_has_no_head_that_predicts_tokens(
    model_type: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = released(model_type)
    options = write(tmp_path, model.config, DISCRIMINATORS[model_type](model), in_a_pickle)
    loaded: Any = load_model(options, "mlm").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded.base_model(IDS).last_hidden_state, model.hidden, rtol=0, atol=1e-6)
    assert base_files_fingerprint(options) == weights_fingerprint(loaded) == model.fingerprint
    first = {
        "deberta-v2": "cls.predictions.transform.LayerNorm.bias",
        "electra": "generator_predictions.LayerNorm.bias",
    }
    assert notes_of(capsys, check_masked_lm_head, options, loaded) == [
        f"{tmp_path}: is a discriminator, which was not trained to predict tokens, and has no head for masked language "
        f"modelling (4 weights are missing, e.g. {first[model_type]}); a random one is trained together with the "
        "adapter, which learns to fit it, and losses are not comparable with those of other base models"
    ]


# ---------------------------------------------------------------- refused

# Encoders with the same names of weights.
SAME_NAMES = ({"roberta", "xlm-roberta", "camembert"},)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_weights_of_another_encoder_are_refused(model_type: str, tmp_path: Path) -> None:
    kinds = list(ENCODERS)
    position = kinds.index(model_type)
    for other in (kinds[position - 1], kinds[position - 4], kinds[position - 6]):
        if any({model_type, other} <= names for names in SAME_NAMES):
            continue
        model = released(other)
        options = write(tmp_path / other, tiny_config(model_type), prefixed(model.prefix, model.base), in_one_file)
        problem = problem_of(load_model, options, "qa")
        assert problem.startswith(f"{tmp_path / other}: ")
        assert "whose config.json and weights belong together" in problem or problem.endswith(
            "its weights and its config.json do not belong together"
        )


@pytest.mark.parametrize("form", ["a layer is missing", "another size", "cut off", "a shard is missing"])
@pytest.mark.parametrize("model_type", ENCODERS)
def test_damaged_weights_are_refused_in_one_line(model_type: str, form: str, tmp_path: Path) -> None:
    model = released(model_type)
    weights, config = model.weights, model.config
    if form == "a layer is missing":
        last = max(name for name in weights if name.startswith(model.prefix) and "ayer" in name)
        options = write(tmp_path, config, {name: w for name, w in weights.items() if name != last}, in_one_file)
        expected = f"{tmp_path}: 1 weights are missing or of another shape, e.g. {last}; "
    elif form == "another size":
        options = write(tmp_path, tiny_config(model_type, vocab_size=60), weights, in_one_file)
        expected = f"{tmp_path}: 1 weights are missing or of another shape, e.g. {model.prefix}embeddings."
    elif form == "cut off":
        options = write(tmp_path, config, weights, in_one_file)
        path = tmp_path / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        expected = f"{path}: the weights cannot be read"
    else:
        options = write(tmp_path, config, weights, in_shards)
        path = tmp_path / "model-00002-of-00002.safetensors"
        path.unlink()
        expected = f"{path}: is missing, but the folder's index names it"
    assert problem_of(load_model, options, "qa").startswith(expected)

"""config.json of the base model (adapter_qa/models/base_config.py): its content, refusals, the longest window."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.problems import problems_of
from transformers import CONFIG_MAPPING, BertForQuestionAnswering, RobertaForQuestionAnswering

from adapter_qa.config.options import ModelOptions
from adapter_qa.core.errors import UserError
from adapter_qa.models.base_config import check_window, read_base_config
from adapter_qa.models.encoders import ENCODERS, SIZES, window_limit
from adapter_qa.models.file_names import BASE_WEIGHTS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of a model, as far as config.json is concerned."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 96}), encoding="utf-8")
    (tmp_path / "model.safetensors").touch()
    return tmp_path


def change(folder: Path, **values: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}), encoding="utf-8")
    return path


@pytest.mark.parametrize("random_init", [False, True])
def test_the_content_is_returned_as_data(tiny_bert: Path, tiny_roberta: Path, random_init: bool) -> None:
    for base in (tiny_bert, tiny_roberta):
        config = read_base_config(ModelOptions(str(base), random_init=random_init))
        assert config == json.loads((base / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["no/such/folder", "/no/such", "./none", "não existe"])
def test_a_missing_folder_is_refused(name: str) -> None:
    assert problems_of(read_base_config, ModelOptions(name)) == [
        f"--model_name_or_path {name}: no such folder; give a model folder or a hub id such as org/name"
    ]


@pytest.mark.parametrize("name", ["no-org/no-model", "no-model"])
def test_a_hub_id_that_is_not_cached_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (problem,) = problems_of(read_base_config, ModelOptions(name, cache_dir=str(tmp_path)))
    assert problem.startswith(f"--model_name_or_path {name}: no config.json of a model can be read there (")


def test_a_folder_without_config_json_is_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(read_base_config, ModelOptions(str(tmp_path)))
    assert problem == (
        f"--model_name_or_path {tmp_path}: no config.json of a model can be read there "
        f"({tmp_path / 'config.json'}: cannot be read: No such file or directory)"
    )


@pytest.mark.parametrize("content", [b"{", b"", b'{"model_type": "b\xff"}'])
def test_damaged_json_is_refused(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    (problem,) = problems_of(read_base_config, ModelOptions(str(folder)))
    assert problem.startswith(f"--model_name_or_path {folder}: no config.json of a model can be read there (")


@pytest.mark.parametrize(("content", "kind"), [("[]", "a list"), ("null", "null"), ('"bert"', "text")])
def test_json_without_an_object_is_refused(folder: Path, content: str, kind: str) -> None:
    (folder / "config.json").write_text(content)
    assert problems_of(read_base_config, ModelOptions(str(folder))) == [
        f"--model_name_or_path {folder}: no config.json of a model can be read there "
        f"({folder / 'config.json'}: holds {kind} where an object is expected)"
    ]


@pytest.mark.parametrize("key", ["_attn_implementation_internal", "_attn_implementation", "attn_implementation"])
@pytest.mark.parametrize("value", ["kernels-community/evil", "flash_attention_2", "", 1, {"": "x/y"}, ["eager"], False])
def test_keys_that_can_run_code_are_refused(folder: Path, key: str, value: Any) -> None:
    path = change(folder, **{key: value})
    assert problems_of(read_base_config, ModelOptions(str(folder))) == [
        f"{path}: sets {key}, which can run code; remove the key if you trust the model"
    ]


@pytest.mark.parametrize("value", [None, "eager", "sdpa"])
def test_safe_values_of_these_keys_are_allowed(folder: Path, value: str | None) -> None:
    change(folder, _attn_implementation_internal=value)
    assert read_base_config(ModelOptions(str(folder)))["hidden_size"] == 96


@pytest.mark.parametrize("kind", ["unknown", ["bert"]])
def test_other_encoders_are_refused(folder: Path, kind: Any) -> None:
    path = change(folder, model_type=kind)
    assert problems_of(read_base_config, ModelOptions(str(folder))) == [
        f"{path}: model_type {kind}; supported: {', '.join(ENCODERS)}"
    ]


def test_a_config_without_a_kind_of_encoder_is_refused(folder: Path) -> None:
    path = change(folder, model_type=None)
    assert problems_of(read_base_config, ModelOptions(str(folder))) == [
        f'{path}: names no model_type; add it if it is one of these, e.g. "model_type": "bert": {", ".join(ENCODERS)}'
    ]


def test_a_decoder_is_refused(folder: Path) -> None:
    path = change(folder, is_decoder=True)
    assert problems_of(read_base_config, ModelOptions(str(folder))) == [
        f"{path}: is_decoder is true, so that no token sees the next ones; give an encoder, or set it to false"
    ]


@pytest.mark.parametrize("kind", ENCODERS)
def test_sizes_that_config_json_omits_are_those_of_the_library(kind: str, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    config, library = read_base_config(ModelOptions(str(folder))), CONFIG_MAPPING[kind]()
    assert config["model_type"] == kind
    names = ENCODERS[kind].size_keys
    assert {size: config[size] for size in SIZES} == {size: getattr(library, names.get(size, size)) for size in SIZES}


def test_sizes_of_an_encoder_that_names_them_otherwise(folder: Path) -> None:
    path = change(folder, model_type="distilbert", dim=90, n_heads=7)
    (problem,) = problems_of(read_base_config, ModelOptions(str(folder)))
    assert problem == f"{path}: hidden_size 90 is not divisible by num_attention_heads 7"


def test_attention_that_the_encoder_lacks(folder: Path) -> None:
    change(folder, model_type="deberta-v2", num_attention_heads=2)
    assert problems_of(read_base_config, ModelOptions(str(folder), attn_implementation="sdpa")) == [
        "--attn_implementation sdpa: deberta-v2 has only eager; leave the option out"
    ]
    assert read_base_config(ModelOptions(str(folder), attn_implementation="eager"))["model_type"] == "deberta-v2"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"inner_group_num": 2}, "inner_group_num 2; only 1 is supported"),
        ({"num_hidden_groups": 13}, "num_hidden_groups 13; must be a whole number from 1 to num_hidden_layers"),
        ({"num_hidden_groups": "1"}, "num_hidden_groups '1'; must be a whole number from 1 to num_hidden_layers"),
    ],
)
def test_groups_of_layers_that_share_weights(folder: Path, values: dict[str, Any], problem: str) -> None:
    path = change(folder, model_type="albert", num_attention_heads=2, **values)
    assert problems_of(read_base_config, ModelOptions(str(folder))) == [f"{path}: {problem}"]


def test_a_model_saved_together_with_its_adapters_is_refused(folder: Path) -> None:
    path = change(folder, adapters={"adapters": {"qa": "pfeiffer"}})
    assert problems_of(read_base_config, ModelOptions(str(folder))) == [
        f"{path}: is of a model saved together with its adapters, which would get random values; give the plain base "
        "model, and the adapters as a folder of save_adapter or save_adapter_fusion"
    ]
    change(folder, adapters={})
    assert read_base_config(ModelOptions(str(folder)))["adapters"] == {}


def test_missing_weights_are_refused_unless_they_are_random(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert problems_of(read_base_config, ModelOptions(str(folder))) == [
        f"{folder}: holds no weights (model.safetensors); give a trained model or --random_init True"
    ]
    assert problems_of(read_base_config, ModelOptions(str(folder)), can_be_random=False) == [
        f"{folder}: holds no weights (model.safetensors); give a trained model"
    ]
    assert read_base_config(ModelOptions(str(folder), random_init=True))["model_type"] == "bert"


@pytest.mark.parametrize("name", BASE_WEIGHTS)
def test_every_format_of_weights_is_found(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    assert read_base_config(ModelOptions(str(folder)))["model_type"] == "bert"


def test_all_problems_are_reported_together(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    change(folder, model_type="t5", adapters={"adapters": {"a": "pfeiffer"}}, _attn_implementation_internal="x/y")
    assert len(problems_of(read_base_config, ModelOptions(str(folder)))) == 4


def test_the_window_limit_is_the_longest_input_of_the_model(tiny_bert: Path, tiny_roberta: Path) -> None:
    for base, model_class in ((tiny_bert, BertForQuestionAnswering), (tiny_roberta, RobertaForQuestionAnswering)):
        limit = window_limit(read_base_config(ModelOptions(str(base))))
        assert limit == 128
        model = model_class.from_pretrained(base).eval()
        with torch.no_grad():
            model(input_ids=torch.full((1, limit), 9))
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=torch.full((1, limit + 1), 9))
    assert window_limit({"model_type": "xlm-roberta", "max_position_embeddings": 514}) == 512


@pytest.mark.parametrize("pad_token_id", [0, 3])
def test_roberta_numbers_positions_from_its_number_for_padding(
    pad_token_id: int, tiny_roberta: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_roberta, tmp_path / "base"))
    change(folder, pad_token_id=pad_token_id)
    limit = window_limit(read_base_config(ModelOptions(str(folder))))
    model = RobertaForQuestionAnswering.from_pretrained(folder).eval()
    model(input_ids=torch.full((1, limit), 9))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, limit + 1), 9))


def test_a_window_beyond_the_limit_is_refused(tiny_bert: Path) -> None:
    config = read_base_config(ModelOptions(str(tiny_bert)))
    check_window(128, "--max_seq_length", config)
    with pytest.raises(UserError, match="--max_seq_length 129: the base model reads at most 128 tokens"):
        check_window(129, "--max_seq_length", config)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hidden_size": 0}, "hidden_size 0; must be a whole number from 1 to 16777216"),
        ({"num_hidden_layers": True}, "num_hidden_layers True; must be a whole number from 1 to 16777216"),
        ({"intermediate_size": 2**25}, "intermediate_size 33554432; must be a whole number from 1 to 16777216"),
        ({"num_attention_heads": 7}, "hidden_size 96 is not divisible by num_attention_heads 7"),
    ],
)
def test_invalid_sizes_are_refused(folder: Path, changes: dict[str, Any], problem: str) -> None:
    path = change(folder, **changes)
    assert problems_of(read_base_config, ModelOptions(str(folder))) == [f"{path}: {problem}"]

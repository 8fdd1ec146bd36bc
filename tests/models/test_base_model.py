"""The base model: its tokenizer, its weights and their fingerprint, without a network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.problems import notes_of, problem_of
from support.scripts import run_main
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForTokenClassification,
    BertTokenizer,
    PreTrainedModel,
)

import run_mlm_adapter
from adapter_qa.config.options import AdapterOptions, ModelOptions
from adapter_qa.core.errors import UserError
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import (
    check_masked_lm_head,
    load_model,
    load_tokenizer,
    without_cudnn_attention,
)
from adapter_qa.models.build import build_setup
from adapter_qa.models.encoders import window_limit
from adapter_qa.models.identity import weights_fingerprint
from adapter_qa.models.save import save_setup
from adapter_qa.models.saved_adapters import read_setup
from adapter_qa.models.setup_decisions import resolve_setup
from adapter_qa.models.tasks import TASKS, Task


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
    tiny_bert: Path, task: Task, model_class: type[PreTrainedModel]
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


def test_weights_that_cannot_be_used_are_refused(copied: Path) -> None:
    name = "bert.encoder.layer.1.output.dense.weight"
    change_weights(copied, lambda state: state | {name: state[name] / 0})
    options = ModelOptions(str(copied))
    assert problem_of(load_model, options, "qa") == (
        f"{copied}: 1 of 71 weights are NaN or infinite ({name}); the training that saved them failed, or the file is "
        "damaged"
    )
    load_model(options, "qa", shapes_only=True)
    change_weights(copied, lambda state: {key: torch.ones_like(w).to(torch.float8_e4m3fn) for key, w in state.items()})
    assert problem_of(load_model, options, "qa") == (
        f"{copied}: stores weights as float8_e4m3fn; give them as float32, float16, bfloat16 or float64"
    )


def test_layers_that_the_configuration_leaves_out_are_noted(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def notes() -> list[str]:
        load_model(ModelOptions(str(copied)), "qa")
        return [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]

    assert notes() == []
    change_weights(copied, lambda state: state | {"bert.decoder.layer.9.output.dense.weight": torch.ones(32, 64)})
    assert notes() == []
    change(copied, num_hidden_layers=1)
    expected = [f"note: {copied}: its weights have 4 layers, its config.json 1; the other 3 are left out"]
    assert notes() == expected
    change_weights(copied, lambda state: {name.removeprefix("bert."): weight for name, weight in state.items()})
    assert notes() == expected


@pytest.mark.parametrize("random_init", [False, True])
def test_a_value_that_the_first_computation_rejects_is_refused(copied: Path, random_init: bool) -> None:
    options = ModelOptions(str(copied), random_init=random_init)
    state = torch.get_rng_state()
    assert load_model(options, "mlm").training is random_init  # as without this check
    assert torch.equal(torch.get_rng_state(), state) is not random_init
    change(copied, layer_norm_eps="x")
    problem = problem_of(load_model, options, "qa")
    assert problem.startswith(f"{copied}: the model cannot compute with the values in its config.json (TypeError: ")


# ---------------------------------------------------------------- bases as people have them


State = dict[str, torch.Tensor]


def change_weights(folder: Path, change: Callable[[State], State]) -> Path:
    """Change the weights of a base model; return its folder."""
    state = change(load_file(folder / "model.safetensors"))
    save_file({name: weight.clone().contiguous() for name, weight in state.items()}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    "labels", [["1 star", "2 stars", "3 stars", "4 stars", "5 stars"], ["very bad!", "very good!"]]
)
def test_labels_of_another_task_are_forgotten(copied: Path, labels: list[str], tmp_path: Path) -> None:
    ids = {label: index for index, label in enumerate(labels)}
    names = {str(index): label for label, index in ids.items()}
    change(copied, id2label=names, label2id=ids, problem_type="multi_label_classification")
    change_weights(copied, lambda state: state | {"classifier.weight": torch.ones(len(labels), 32)})
    options = ModelOptions(str(copied))
    for task in ("qa", "mlm"):
        setup = resolve_setup(task, read_base_config(options), AdapterOptions())
        assert setup is not None
        model: Any = load_model(options, task)
        assert (model.config.num_labels, model.config.problem_type) == (2, None)
        build_setup(model, setup)
        if task == "qa":
            assert model(torch.tensor([[2, 5, 6, 3]])).start_logits.shape == (1, 4)
        save_setup(model, setup, tmp_path / task, {})
        head = read_setup(tmp_path / task).head  # labels with blanks cannot be read
        assert head is not None
        assert head.labels == ("LABEL_0", "LABEL_1")
    ner: Any = load_model(options, "ner", ["O", "B-X", "I-X"])
    assert ner(torch.tensor([[2, 5, 6, 3]])).logits.shape == (1, 4, 3)


@pytest.mark.parametrize(
    "leftover",
    [
        {"return_dict": False}, {"torchscript": True}, {"output_hidden_states": True}, {"output_attentions": True},
        {"chunk_size_feed_forward": 3}, {"gradient_checkpointing": True}, {"torch_dtype": "float16"},
        {"pad_token_id": None}, {"architectures": ["BertForSequenceClassification"], "finetuning_task": "sst2"},
    ],
)  # fmt: skip
def test_leftovers_in_the_configuration_do_not_change_the_logits(copied: Path, leftover: dict[str, Any]) -> None:
    inputs = torch.tensor([[2, 5, 6, 7, 3]])
    options = ModelOptions(str(copied))

    def output() -> Any:
        torch.manual_seed(1)
        return load_model(options, "qa").eval()(inputs)

    expected = output()
    change(copied, **leftover)
    assert torch.equal(output().start_logits, expected.start_logits)
    assert output().keys() == expected.keys()
    assert {weight.dtype for weight in load_model(options, "qa", shapes_only=True).parameters()} == {torch.float32}


def test_roberta_without_a_number_for_padding_has_the_usual_one(tiny_roberta: Path, tmp_path: Path) -> None:
    inputs = torch.tensor([[0, 5, 6, 7, 2]])
    folder = Path(shutil.copytree(tiny_roberta, tmp_path / "base"))
    options = ModelOptions(str(folder))
    expected = load_model(options, "mlm").eval()(inputs).logits
    change(folder, pad_token_id=None)
    assert torch.equal(load_model(options, "mlm").eval()(inputs).logits, expected)
    assert window_limit(read_base_config(options)) == 128


def test_an_embedding_with_more_rows_than_tokens_is_allowed(copied: Path) -> None:
    def larger(state: State) -> State:
        rows, bias = state["bert.embeddings.word_embeddings.weight"], state["cls.predictions.bias"]
        return state | {
            "bert.embeddings.word_embeddings.weight": torch.cat([rows, torch.zeros(10, 32)]),
            "cls.predictions.bias": torch.cat([bias, torch.zeros(10)]),
        }

    options = ModelOptions(str(change_weights(copied, larger)))
    size = read_base_config(options)["vocab_size"]
    change(copied, vocab_size=size + 10)
    assert len(load_tokenizer(options)) == size
    assert load_model(options, "mlm").get_input_embeddings().weight.shape == (size + 10, 32)


@pytest.mark.parametrize("prefix", ["module.", "model.", "net.transformer."])
def test_weights_under_the_name_of_a_program_are_loaded_with_their_head(
    copied: Path, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = load_model(ModelOptions(str(copied)), "mlm").state_dict()
    change_weights(copied, lambda state: {prefix + name: weight for name, weight in state.items()})
    model = load_model(ModelOptions(str(copied)), "mlm")
    assert all(torch.equal(weight, expected[name]) for name, weight in model.state_dict().items())
    assert model.name_or_path == str(copied)
    assert notes_of(capsys, check_masked_lm_head, ModelOptions(str(copied)), model) == []


@pytest.mark.parametrize(
    ("prefixes", "found"),
    [
        (["roberta."], "roberta.embeddings"),
        (["model.electra."], "model.electra.embeddings"),
        (["query.", "passage."], "passage.embeddings and query.embeddings"),
    ],
)
def test_weights_of_another_encoder_or_of_two_are_refused(copied: Path, prefixes: list[str], found: str) -> None:
    def several(state: State) -> State:
        base = {name.removeprefix("bert."): weight for name, weight in state.items() if name.startswith("bert.")}
        return {prefix + name: weight for prefix in prefixes for name, weight in base.items()}

    change_weights(copied, several)
    assert problem_of(load_model, ModelOptions(str(copied)), "qa") == (
        f"{copied}: its weights have {found} where bert.embeddings is expected; give a single bert, whose config.json "
        "and weights belong together"
    )


# ---------------------------------------------------------------- bases without a masked-LM head


def without_head(state: State) -> State:
    return {name: weight for name, weight in state.items() if name.startswith("bert.")}


def test_a_language_adapter_on_a_base_without_its_head_is_trained_after_a_note(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("Ana nasceu em Recife e é médica.\n" * 40, encoding="utf-8")

    def notes(*argv: object) -> list[str]:
        options = ["--model_name_or_path", copied, "--train_file", tmp_path / "texts.txt", "--block_size", 32]
        result = run_main(run_mlm_adapter.main, *options, "--max_steps", 1, "--report_to", "none", *argv)
        assert result.returncode == 0, result.stderr
        return [line for line in result.stderr.splitlines() if "masked language modelling" in line]

    assert notes("--do_train", "--dry_run") == []
    change_weights(copied, without_head)
    expected = [
        f"note: {copied}: has no head for masked language modelling (4 weights are missing, e.g. "
        "cls.predictions.transform.LayerNorm.bias); a random one is trained together with the adapter, which learns to "
        "fit it, and losses are not comparable with those of other base models; if there is a checkpoint of this base "
        "model with its head, give that"
    ]
    assert notes("--do_train", "--dry_run") == expected
    assert notes("--do_train", "--output_dir", tmp_path / "mlm") == expected
    # The trained head is saved with the adapter.
    assert notes("--do_eval", "--load_adapter", tmp_path / "mlm", "--output_dir", tmp_path / "eval") == []


def test_roberta_without_its_head_is_recognised(
    tiny_roberta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(tiny_roberta, tmp_path / "base"))
    options = ModelOptions(str(folder))
    assert notes_of(capsys, check_masked_lm_head, options, load_model(options, "mlm")) == []
    change_weights(folder, lambda state: {name: w for name, w in state.items() if name.startswith("roberta.")})
    (note,) = notes_of(capsys, check_masked_lm_head, options, load_model(options, "mlm", shapes_only=True))
    assert "(4 weights are missing, e.g. lm_head.dense.bias)" in note


def test_an_output_layer_of_its_own_is_used_or_missing(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(copied, tie_word_embeddings=False)
    options = ModelOptions(str(copied))
    assert problem_of(check_masked_lm_head, options, load_model(options, "mlm")) == (
        f"{copied}: tie_word_embeddings is false in its config.json, but cls.predictions.decoder.weight is missing, so "
        "that the output layer would be random; set tie_word_embeddings to true, or give a base model with all weights"
    )
    assert load_model(options, "qa") is not None  # which has no such layer
    output = torch.randn(read_base_config(options)["vocab_size"], 32)
    change_weights(copied, lambda state: state | {"cls.predictions.decoder.weight": output})
    model = load_model(options, "mlm")
    assert notes_of(capsys, check_masked_lm_head, options, model) == []
    assert torch.equal(model.get_parameter("cls.predictions.decoder.weight"), output)


# ---------------------------------------------------------------- fingerprints of models


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
        for task in TASKS:
            loaded = load_model(
                ModelOptions(str(tmp_path / name)), task, ["O", "B-X", "I-X"] if task == "ner" else None
            )
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


def test_random_weights_are_float32_whatever_the_configuration_says(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(tiny_bert, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float16"}), encoding="utf-8")
    model = load_model(ModelOptions(str(folder), random_init=True), "qa")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("before", [True, False])
def test_the_last_of_several_threads_restores_the_attention_of_cudnn(before: bool) -> None:
    torch.backends.cuda.enable_cudnn_sdp(before)
    try:
        first, second = without_cudnn_attention(), without_cudnn_attention()
        states = []
        for step in (first.__enter__, second.__enter__, lambda: first.__exit__(None, None, None)):
            step()
            states.append(torch.backends.cuda.cudnn_sdp_enabled())
        second.__exit__(None, None, None)
        assert (states, torch.backends.cuda.cudnn_sdp_enabled()) == ([False, False, False], before)
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)

"""LoRA and (IA)3 against plain `adapters` code: logits, training steps, saved folders, merging, and what is refused."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
from adapters import IA3Config, LoRAConfig, Stack
from adapters.methods.lora import LoRALayer
from safetensors.torch import load_file, save_file
from support.problems import problem_of, problems_of
from support.questions import make_questions
from support.scripts import ROOT, override
from support.setups import A, F, L, Maker
from support.trainers import copy_without_dropout
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    BertForMaskedLM,
    PreTrainedModel,
    TrainerCallback,
)

import export_qa
import run_ner_adapter
import run_qa_adapter
from adapter_qa.config.low_rank import read_low_rank
from adapter_qa.core.errors import UserError
from adapter_qa.data.readers.squad import read_squad
from adapter_qa.inference.exported_model import ExportedModel
from adapter_qa.models.adapter_config import kind_of, new_config
from adapter_qa.models.build import build_setup, cast_frozen_weights, trained_names
from adapter_qa.models.encoders import with_sizes
from adapter_qa.models.fast_step import use_fast_step
from adapter_qa.models.low_rank import merge_low_rank
from adapter_qa.models.parameters import parameter_table
from adapter_qa.models.setup_decisions import resolve_setup, setup_for_inference, setup_from_saved
from adapter_qa.models.setup_notes import setup_notes
from adapter_qa.training import callbacks
from predictor_qa import QuestionAnswerer

IDS = torch.tensor([[5, 17, 23, 9, 41, 30, 12, 8], [6, 7, 8, 9, 10, 11, 12, 13]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0, 0]])
HIDDEN, INTERMEDIATE, LAYERS = 32, 64, 4
# Kinds with the library's own configuration, and the number of weights of one layer.
WIDE = "lora[r=2,alpha=16,attn_matrices=q-k-v,intermediate_lora=True,output_lora=True]"
KINDS: dict[str, tuple[LoRAConfig, int]] = {
    "lora": (LoRAConfig(), 2 * 8 * 2 * HIDDEN),
    WIDE: (
        LoRAConfig(r=2, alpha=16, attn_matrices=["q", "k", "v"], intermediate_lora=True, output_lora=True),
        3 * 2 * 2 * HIDDEN + 2 * 2 * (HIDDEN + INTERMEDIATE),
    ),
    "ia3": (IA3Config(), 2 * HIDDEN + INTERMEDIATE),
    "ia3[attn_matrices=q-v,intermediate_lora=False,output_lora=True]": (
        IA3Config(attn_matrices=["q", "v"], intermediate_lora=False, output_lora=True),
        3 * HIDDEN,
    ),
}


CASES = list(zip(KINDS, (True, False, True, False), strict=True))  # kinds, and whether on a language adapter


@pytest.fixture(scope="module")
def maker(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Makes setups on the tiny BERT, whose linear layers get biases; they are 0 in a new model."""
    base = tmp_path_factory.mktemp("low_rank") / "base"
    shutil.copytree(tiny_bert, base)
    model = BertForMaskedLM.from_pretrained(base)
    torch.manual_seed(3)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(base)
    return Maker(base, base.parent)


def logits(model: PreTrainedModel) -> torch.Tensor:
    """Return start and end logits, or those of the labels, of two windows."""
    with torch.no_grad():
        output = model(input_ids=IDS, attention_mask=MASK)
    return torch.stack([output.start_logits, output.end_logits]) if "start_logits" in output else output.logits


# ---------------------------------------------------------------- against plain adapters code


@pytest.mark.parametrize(("kind", "on_language"), CASES)
def test_a_saved_folder_gives_the_same_logits_in_plain_adapters_code(
    maker: Maker, saved: dict[str, Path], kind: str, on_language: bool
) -> None:
    lang = L(load_lang_adapter=str(saved["mlm"])) if on_language else None
    model, setup, folder = maker.make("low_rank", "qa", A(adapter_config=kind), lang)
    expected, per_layer = KINDS[kind]
    document = json.loads((folder / "qa" / "adapter_config.json").read_text(encoding="utf-8"))
    assert document["config"] == expected.to_dict()
    assert parameter_table(model, setup).parts["qa"] == LAYERS * per_layer
    assert kind_of(setup.tasks[0].config) == {"lora": "lora[r=8,alpha=8]"}.get(kind, kind)
    plain = AutoModelForQuestionAnswering.from_pretrained(maker.options.model_name_or_path)
    adapters.init(plain)
    plain.load_adapter_setup(str(folder), set_active=True, use_safetensors=True)
    assert str(plain.active_adapters) == ("Stack[mlm, qa]" if on_language else "Stack[qa]")
    torch.testing.assert_close(logits(model), logits(plain.eval()), rtol=0, atol=1e-5)
    again = maker.model(setup_from_saved("--load_adapter", str(folder), "qa", maker.config))
    assert torch.equal(logits(again), logits(model))
    plain.set_active_adapters(Stack("mlm") if on_language else None)
    assert not torch.allclose(logits(plain), logits(model), atol=1e-2)


def test_an_entity_adapter_gives_the_same_logits_in_plain_adapters_code(maker: Maker, saved: dict[str, Path]) -> None:
    lang = L(load_lang_adapter=str(saved["mlm"]))
    model, _, folder = maker.make("low_rank_ner", "ner", A(adapter_config="lora[r=4,alpha=8]"), lang)
    plain = AutoModelForTokenClassification.from_pretrained(maker.options.model_name_or_path, num_labels=3)
    adapters.init(plain)
    plain.load_adapter_setup(str(folder), set_active=True, use_safetensors=True)
    torch.testing.assert_close(logits(model), logits(plain.eval()), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "on_language"), CASES)
def test_training_steps_are_those_of_plain_adapters_code(
    maker: Maker, saved: dict[str, Path], tmp_path: Path, kind: str, on_language: bool
) -> None:
    base = copy_without_dropout(Path(maker.options.model_name_or_path), tmp_path / "base")
    ours_of = Maker(base, tmp_path)
    setup = ours_of.setup("qa", A(adapter_config=kind), L(load_lang_adapter=str(saved["mlm"])) if on_language else None)
    model = ours_of.model(setup)
    plain = AutoModelForQuestionAnswering.from_pretrained(base)
    adapters.init(plain)
    if on_language:
        plain.load_adapter(str(saved["mlm"] / "mlm"), use_safetensors=True)
    plain.add_adapter("qa", config=KINDS[kind][0])
    plain.train_adapter("qa")
    plain.set_active_adapters(Stack("mlm", "qa") if on_language else Stack("qa"))
    start = dict(model.named_parameters())
    for name, weight in plain.named_parameters():
        weight.data = start[name].data.clone()
    assert {name for name, weight in plain.named_parameters() if weight.requires_grad} == trained_names(model, setup)
    use_fast_step(model)
    for trained in (model, plain):
        optimizer = torch.optim.SGD([weight for weight in trained.parameters() if weight.requires_grad], lr=0.5)
        trained.train()
        for _ in range(3):
            optimizer.zero_grad()
            trained(IDS, MASK, start_positions=torch.tensor([1, 2]), end_positions=torch.tensor([3, 2])).loss.backward()
            optimizer.step()
        trained.eval()
    expected = dict(plain.named_parameters())
    fresh = dict(ours_of.model(setup).named_parameters())
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-5)
        if not weight.requires_grad:
            assert torch.equal(weight, fresh[name])
    torch.testing.assert_close(logits(model), logits(plain), rtol=0, atol=1e-5)
    moved = {name for name in trained_names(model, setup) if not torch.equal(expected[name], fresh[name])}
    assert any(".loras.qa.lora_B" in name for name in moved)


def test_the_untouched_base_computes_the_same(maker: Maker) -> None:
    plain = AutoModelForQuestionAnswering.from_pretrained(maker.options.model_name_or_path).eval()
    before = logits(plain)
    adapters.init(plain)
    assert torch.equal(logits(plain), before)


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_training_in_bfloat16_has_the_gradients_of_float32(maker: Maker, tmp_path: Path, kind: str) -> None:
    base = copy_without_dropout(Path(maker.options.model_name_or_path), tmp_path / "base")
    model, _, _ = Maker(base, tmp_path, std=0.1).make("bfloat16", "qa", A(adapter_config=kind))
    use_fast_step(model.train())

    def gradients() -> torch.Tensor:
        model.zero_grad()
        model(IDS, MASK, start_positions=torch.tensor([1, 2]), end_positions=torch.tensor([3, 2])).loss.backward()
        weights = [weight for name, weight in model.named_parameters() if ".loras." in name]
        assert {weight.dtype for weight in weights} == {torch.float32}
        return torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])

    expected = gradients()
    cast_frozen_weights(model, torch.bfloat16)
    assert {module.weight.dtype for module in model.modules() if isinstance(module, LoRALayer)} == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.cosine_similarity(gradients(), expected, dim=0) > 0.995


# ---------------------------------------------------------------- other encoders

SMALL = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 100,
    "max_position_embeddings": 64, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2,
}  # fmt: skip
ENCODERS: dict[str, dict[str, Any]] = {
    "roberta": SMALL,
    "deberta-v2": SMALL | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "electra": SMALL | {"embedding_size": 16},
    "distilbert": SMALL | {"dim": 32, "n_layers": 4, "n_heads": 2, "hidden_dim": 64},
    "albert": SMALL | {"embedding_size": 16},
    "modernbert": SMALL,
}


def random_model(model_type: str) -> Any:
    """Return a tiny model of an encoder with biases that are not 0, in evaluation mode."""
    torch.manual_seed(0)
    model = AutoModelForQuestionAnswering.from_config(AutoConfig.for_model(model_type, **ENCODERS[model_type]))
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


def with_adapter(model: Any, kind: str, language: str | None = None) -> Any:
    """Return a model with a new task adapter of a kind whose LoRA or (IA)3 is random, in evaluation mode."""
    config = with_sizes(model.config.to_dict())
    options = A(adapter_config=kind), L(load_lang_adapter=language)
    setup = resolve_setup("qa", config, *options, random_init=True)
    assert setup is not None
    build_setup(model, setup)
    randomize(model)
    return model.eval()


def randomize(model: Any) -> None:
    draw = torch.Generator().manual_seed(1)
    for name, weight in sorted(model.named_parameters()):
        if ".loras." in name:
            weight.data = torch.randn(weight.shape, generator=draw) * 0.3 + (1 if weight.shape[-1] == 1 else 0)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_every_encoder_has_the_logits_of_plain_adapters_code(model_type: str) -> None:
    for kind in (WIDE, "ia3"):
        model = with_adapter(random_model(model_type), kind)
        plain = random_model(model_type)
        before = logits(plain)
        adapters.init(plain)
        if model_type == "modernbert":
            remove_invented_biases(plain)
        torch.testing.assert_close(logits(plain), before, rtol=0, atol=1e-6)
        plain.add_adapter("qa", config=KINDS[kind][0])
        plain.set_active_adapters("qa")
        randomize(plain)
        found = logits(model)
        torch.testing.assert_close(found, logits(plain.eval()), rtol=0, atol=1e-5)
        assert (found - before).abs().max() > 2e-4
        merge_low_rank(model)
        torch.testing.assert_close(logits(model), found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", ["deberta-v2", "modernbert"])
def test_vectors_of_queries_train_in_bfloat16(model_type: str) -> None:
    """Without `keep_autocast_dtype`, DeBERTa-v2 fails: its queries are in float32, the scores in bfloat16."""
    model = with_adapter(random_model(model_type), "ia3[attn_matrices=q-k-v]")
    expected = logits(model)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(logits(model).float(), expected, rtol=0.05, atol=0.05)


def remove_invented_biases(model: Any) -> None:
    """Undo what the library's interface does to ModernBERT."""
    invented = [layer.attn.Wqkv for layer in model.model.layers if layer.attn.Wqkv.bias is not None]
    assert len(invented) == LAYERS, "mended in the library: `_mend_joined_projection` need not remove a bias"
    for projection in invented:
        projection.bias = None


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_modernbert_stacks_on_a_language_adapter(kind: str) -> None:
    """The library's layer fails on a stack. Without effect of the language adapter, the stack is the adapter alone."""
    alone = with_adapter(random_model("modernbert"), kind)
    stacked = with_adapter(random_model("modernbert"), kind, "new")
    assert str(stacked.active_adapters) == "Stack[mlm, qa]"
    assert not torch.allclose(logits(stacked), logits(alone), atol=1e-4)
    stacked.set_active_adapters(Stack("mlm"))
    without = logits(stacked)
    stacked.set_active_adapters(Stack("mlm", "qa"))
    found = logits(stacked)
    assert not torch.allclose(found, without, atol=1e-4)
    merged = copy.deepcopy(stacked)
    merge_low_rank(merged)
    torch.testing.assert_close(logits(merged), found, rtol=1e-5, atol=1e-5)
    for name, weight in stacked.named_parameters():
        if ".adapters.mlm." in name and "invertible" not in name and ".adapter_up." in name:
            weight.data.zero_()
        if "invertible_adapters" in name:
            weight.data.zero_()
    torch.testing.assert_close(logits(stacked), logits(alone), rtol=0, atol=1e-5)
    plain = random_model("modernbert")
    adapters.init(plain)
    plain.add_adapter("mlm", config="seq_bn")
    plain.add_adapter("qa", config=KINDS[kind][0])
    plain.set_active_adapters(Stack("mlm", "qa"))
    with pytest.raises(ValueError, match="Invalid adapter setup"):  # else `_JoinedProjection` can go
        logits(plain)


# ---------------------------------------------------------------- merging


@pytest.mark.parametrize("kind", KINDS)
def test_merged_weights_compute_the_same(maker: Maker, saved: dict[str, Path], kind: str) -> None:
    model = maker.make("merged", "qa", A(adapter_config=kind), L(load_lang_adapter=str(saved["mlm"])))[0]
    expected = logits(model)
    merge_low_rank(model)
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    assert not any(".loras." in name for name, _ in model.named_parameters())
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_the_library_merges_ia3_without_its_bias(maker: Maker) -> None:
    """If this fails, the library may have mended `merge_adapter`, and `merge_low_rank` can be it."""
    model: Any = maker.make("library", "qa", A(adapter_config="ia3"))[0]
    ours, expected = copy.deepcopy(model), logits(model)
    model.merge_adapter("qa")
    assert (logits(model) - expected).abs().max() > 1e-2
    merge_low_rank(ours)
    torch.testing.assert_close(logits(ours), expected, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- kinds and settings


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("lora[]", "write lora, or lora[NAME=VALUE,NAME=VALUE], with the settings r, alpha, dropout, attn_matrices, "
                   "selfattn_lora, intermediate_lora, output_lora"),
        ("lora[r=8", "write lora, or lora[NAME=VALUE,NAME=VALUE], with the settings r, alpha"),
        ("lora[rank=8]", "lora has no setting 'rank'; choose from r, alpha, dropout, attn_matrices"),
        ("lora[r=8,]", "lora has no setting ''; choose from r, alpha"),
        ("lora[r]", "r is empty; give a whole number of at least 1"),
        ("lora[r=0]", "r is 0; give a whole number of at least 1"),
        ("lora[r=2.5]", "r is 2.5; give a whole number of at least 1"),
        ("lora[r=2,r=4]", "r is given twice; give it once"),
        ("lora[alpha=nan]", "alpha is nan; give a number from 1e-06 to 1e+06"),
        ("lora[alpha=0]", "alpha is 0; give a number from 1e-06 to 1e+06"),
        ("lora[dropout=1]", "dropout is 1; give a number from 0 to 0.99"),
        ("lora[attn_matrices=q-x]", "attn_matrices is q-x; give q, k or v, or several of them as in q-k-v"),
        ("lora[attn_matrices=q-q]", "attn_matrices is q-q; give q, k or v"),
        ("lora[output_lora=1]", "output_lora is 1; give True or False"),
        ("lora[selfattn_lora=False]", "selfattn_lora, intermediate_lora, output_lora are all False, which changes "
                                      "nothing; set one to True"),
        ("lora[selfattn_lora=False,output_lora=True,attn_matrices=q]", "attn_matrices has no effect with "
                                                                       "selfattn_lora=False; leave out one of the two"),
        ("ia3[r=2]", "ia3 has no setting 'r'; choose from attn_matrices, selfattn_lora"),
        ("ia3[selfattn_lora=False,intermediate_lora=False]", "selfattn_lora, intermediate_lora, output_lora are all "),
    ],
)  # fmt: skip
def test_invalid_settings_are_refused(kind: str, problem: str) -> None:
    (found,) = read_low_rank(kind)[1]
    assert found.startswith(problem)
    assert problem_of(new_config, kind).startswith(f"{kind}: {problem}")


def test_the_order_of_settings_and_matrices_does_not_matter() -> None:
    kinds = ("lora[r=4,alpha=2,attn_matrices=k-q]", "lora[attn_matrices = q-k, alpha=2, r=4]")
    assert new_config(kinds[0]) == new_config(kinds[1])
    assert kind_of(new_config(kinds[0])) == "lora[r=4,alpha=2,attn_matrices=q-k]"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"use_dora": True}, "use_dora True"),
        ({"use_gating": True}, "use_gating True"),
        ({"vera_d": 0.1}, "vera_d 0.1"),
        ({"dtype": "bfloat16"}, "dtype 'bfloat16'"),
        ({"r": "8"}, "r '8'"),
        ({"r": True}, "r True"),
        ({"composition_mode": "scale"}, "r 8, init_weights 'lora'"),
        ({"composition_mode": "times"}, "composition_mode 'times', init_weights 'lora'"),
        ({"leave_out": ["a"]}, "leave_out ['a']"),
        ({"selfattn_lora": False}, "selfattn_lora, intermediate_lora, output_lora are all False, which changes "
                                   "nothing; set one to True"),
        ({"no_such": 1}, "no_such 1"),
    ],
)  # fmt: skip
def test_invalid_values_in_a_file_are_refused(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(LoRAConfig().to_dict() | changes), encoding="utf-8")
    assert problems_of(new_config, str(path)) == [f"{path}: invalid configuration of LoRA or (IA)3: {problem}"]


def test_a_file_gives_its_configuration(maker: Maker, tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    config = LoRAConfig(r=4, alpha=32, init_weights="bert", leave_out=[0])
    path.write_text(json.dumps({"config": config.to_dict(), "version": "adapters.1.3.0"}), encoding="utf-8")
    setup = maker.setup("qa", A(adapter_config=str(path)))
    assert setup.tasks[0].config == config.to_dict()
    assert kind_of(setup.tasks[0].config) == "lora[r=4,alpha=32,init_weights=bert]"
    layers = {name.split(".layer.")[1][0] for name in trained_names(maker.model(setup), setup) if ".loras." in name}
    assert layers == {"1", "2", "3"}


# ---------------------------------------------------------------- other options


def test_madx2_leaves_out_the_last_layer_of_new_and_saved_adapters(maker: Maker) -> None:
    folder = maker.make("for madx2", "qa", A(adapter_config="lora"))[2]
    for options in (A(adapter_config="lora", madx2=True), A(load_adapter=str(folder), madx2=True)):
        setup = maker.setup("qa", options)
        names = [name for name, _ in maker.model(setup).named_parameters() if ".loras." in name]
        assert {name.split(".layer.")[1][0] for name in names} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"adapter_reduction_factor": 8}, "--adapter_reduction_factor 8: is for bottleneck adapters, --adapter_config "
                                          "lora has none; leave out one of the two"),
        ({"adapter_non_linearity": "gelu"}, "--adapter_non_linearity gelu: is for bottleneck adapters"),
        ({"houlsby_MHA_lastlayer": True}, "--houlsby_MHA_lastlayer True: is for bottleneck adapters"),
    ],
)  # fmt: skip
def test_options_of_bottlenecks_are_refused(maker: Maker, options: dict[str, Any], problem: str) -> None:
    assert problem_of(maker.setup, "qa", A(adapter_config="lora", **options)).startswith(problem)


def test_options_of_bottlenecks_are_refused_with_saved_adapters(maker: Maker, tmp_path: Path) -> None:
    folder = maker.make("contradicted", "qa", A(adapter_config="lora[r=4,alpha=8]"))[2]
    trained = f"{folder / 'qa'} was trained with"

    def problem(**options: Any) -> str:
        return problem_of(maker.setup, "qa", A(load_adapter=str(folder), **options))

    assert problem(adapter_reduction_factor=8) == (
        f"--adapter_reduction_factor 8: {trained} lora[r=4,alpha=8], which has none; leave the option out"
    )
    for kind in ("pfeiffer", "ia3"):
        assert problem(adapter_config=kind) == (
            f"--adapter_config {kind}: {trained} lora[r=4,alpha=8]; leave the option out"
        )
    assert problem(adapter_config="lora[r=8]") == (
        f"--adapter_* options ask for r 8, but {trained} 4; leave the option out"
    )
    assert "--houlsby_MHA_lastlayer: qa is not a houlsby adapter" in problem(houlsby_MHA_lastlayer=True)
    for kind in ("lora", "lora[r=4]", "lora[alpha=8,r=4]"):
        assert maker.setup("qa", A(load_adapter=str(folder), adapter_config=kind)).tasks[0].config["r"] == 4
    bottleneck = maker.make("bottleneck", "qa", A())[2]
    assert problem_of(maker.setup, "qa", A(load_adapter=str(bottleneck), adapter_config="lora")) == (
        f"--adapter_config lora: {bottleneck / 'qa'} was trained with pfeiffer; leave the option out"
    )
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(LoRAConfig().to_dict()), encoding="utf-8")
    assert problem_of(maker.setup, "qa", A(adapter_config=str(file), adapter_reduction_factor=8)) == (
        f"{file}: lora[r=8,alpha=8] has no reduction_factor; leave the option out"
    )


def test_a_rank_beyond_the_hidden_size_is_refused(maker: Maker) -> None:
    assert problem_of(maker.setup, "qa", A(adapter_config="lora[r=33]")) == (
        "qa: r 33 is more than the hidden size; give at most 32"
    )


def test_a_fusion_is_refused(maker: Maker, saved: dict[str, Path], tmp_path: Path) -> None:
    folder = maker.make("fused", "qa", A(adapter_config="lora"))[2]
    fusion = F(fuse_adapters=[f"a={folder}", f"b={saved['ner_all']}"])
    reason = "LoRA and (IA)3 change weights inside a layer, a fusion mixes the outputs of bottleneck adapters"
    assert problem_of(maker.setup, "qa", A(), None, fusion).startswith(f"Fuse[a, b]: a is lora[r=8,alpha=8]; {reason}")
    assert problem_of(maker.setup, "qa", A(adapter_config="ia3"), None, fusion).startswith(
        f"--adapter_config ia3: {reason}"
    )
    fused = maker.make(
        "of bottlenecks", "qa", A(), None, F(fuse_adapters=[f"a={saved['qa_all']}", f"b={saved['ner_all']}"])
    )
    shutil.copytree(fused[2], tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "a")
    shutil.copytree(folder / "qa", tmp_path / "copy" / "a")
    assert problem_of(setup_for_inference, "RUN", str(tmp_path / "copy"), maker.config, None).startswith(
        f"Fuse[a, b]: a is lora[r=8,alpha=8]; {reason}"
    )


def test_a_language_adapter_is_refused(maker: Maker) -> None:
    reason = "a language adapter is a bottleneck adapter here, with an invertible one; give pfeiffer+inv"
    assert problem_of(maker.setup, "mlm", A(adapter_config="lora")) == f"mlm: lora[r=8,alpha=8]: {reason}"
    assert problem_of(maker.setup, "qa", A(), L(load_lang_adapter="new", lang_adapter_config="ia3")) == (
        f"--lang_adapter_config ia3: {reason}"
    )


# ---------------------------------------------------------------- damaged and foreign folders


def change_weights(folder: Path, change: Any) -> None:
    """Change the weights of a saved adapter by a function of its state."""
    path = folder / "adapter.safetensors"
    save_file(change(load_file(path)), path)


def test_weights_of_a_layer_that_is_left_out_are_noted(maker: Maker, tmp_path: Path) -> None:
    folder = shutil.copytree(maker.make("all layers", "qa", A(adapter_config="lora"))[2], tmp_path / "qa") / "qa"
    path = folder / "adapter_config.json"
    document = json.loads(path.read_text())
    document["config"]["leave_out"] = [1]
    path.write_text(json.dumps(document))
    assert setup_notes(setup_from_saved("--load_adapter", str(folder.parent), "qa", maker.config)) == [
        f"{folder}: its weights for layer 1 are left out; its adapter_config.json has no module there"
    ]


def test_damaged_weights_are_refused(maker: Maker, tmp_path: Path) -> None:
    folder = maker.make("damaged", "qa", A(adapter_config="lora"))[2]

    def problem(number: int, change: Any) -> str:
        damaged = shutil.copytree(folder, tmp_path / str(number))
        change_weights(damaged / "qa", change)
        with pytest.raises(UserError) as caught:
            maker.model(setup_from_saved("--load_adapter", str(damaged), "qa", maker.config))
        return str(caught.value)

    assert "weights are missing for layer 1; the file is damaged, or" in problem(
        0, lambda state: {name: weight for name, weight in state.items() if ".layer.1." not in name}
    )
    assert "1 weights are missing, e.g. " in problem(
        1,
        lambda state: {
            name: weight
            for name, weight in state.items()
            if ".layer.1.attention.self.query.loras.qa.lora_A" not in name
        },
    )
    assert "weights cannot be loaded" in problem(
        2,
        lambda state: {
            name: weight[:, :1].contiguous() if "lora_A" in name else weight for name, weight in state.items()
        },
    )
    assert "has weights for 6 layers, the base model has 4" in problem(
        3,
        lambda state: (
            state | {name.replace(".layer.1.", ".layer.5."): weight.clone() for name, weight in state.items()}
        ),
    )


@pytest.mark.parametrize(("version", "is_faulty"), [("1.0.1", True), ("1.1.0", False)])
def test_the_scaling_of_the_first_versions_of_the_library_is_kept(maker: Maker, version: str, is_faulty: bool) -> None:
    """They multiplied by 1 in place of alpha / r; the library corrects the configuration when it loads one."""
    model, _, folder = maker.make(f"scaling of {version}", "qa", A(adapter_config="lora[r=4,alpha=16]"))
    path = folder / "qa" / "adapter_config.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | {"version": f"adapters.{version}"}), encoding="utf-8")
    setup = setup_from_saved("--load_adapter", str(folder), "qa", maker.config)
    note = f"{folder / 'qa'}: adapters.{version} left out the factor alpha / r; alpha is taken as 4"
    assert setup_notes(setup) == ([note] if is_faulty else [])
    plain = AutoModelForQuestionAnswering.from_pretrained(maker.options.model_name_or_path)
    adapters.init(plain)
    plain.load_adapter_setup(str(folder), set_active=True, use_safetensors=True)
    found = logits(maker.model(setup))
    torch.testing.assert_close(found, logits(plain.eval()), rtol=0, atol=1e-5)
    assert torch.allclose(found, logits(model), atol=1e-2) != is_faulty


# ---------------------------------------------------------------- runs


class PowerCut(TrainerCallback):
    """Ends the process, as far as a run can tell, at the end of the fifth optimizer step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 5:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def command(maker: Maker, saved: dict[str, Path], squad_files: tuple[Path, Path]) -> list[str]:
    """The command of a run of 2 epochs of 3 steps, without a folder."""
    return [
        "--model_name_or_path", maker.options.model_name_or_path, "--load_lang_adapter", str(saved["mlm"]),
        "--train_file", str(squad_files[0]), "--validation_file", str(squad_files[1]), "--do_train", "--do_eval",
        "--num_train_epochs", "2", "--per_device_train_batch_size", "8", "--learning_rate", "1e-2",
        "--max_seq_length", "64", "--doc_stride", "16", "--disable_tqdm", "True", "--report_to", "none",
    ]  # fmt: skip


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapters-qa" / "qa" / "adapter.safetensors")


def test_a_run_resumes_is_evaluated_asked_and_trained_further(command: list[str], tmp_path: Path) -> None:
    train = [*command, "--adapter_config", "lora[r=4,alpha=8,dropout=0.1,attn_matrices=q-k-v]"]
    whole, resumed, further = (tmp_path / name for name in ("whole", "resumed", "further"))
    assert run_qa_adapter.main([*train, "--output_dir", str(whole)]) == 0
    original = callbacks.make_callbacks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "make_callbacks", lambda *args: [*original(*args), PowerCut()])
        with pytest.raises(KeyboardInterrupt):
            run_qa_adapter.main([*train, "--output_dir", str(resumed)])
    assert run_qa_adapter.main([*train, "--output_dir", str(resumed)]) == 0
    expected, weights = adapter_of(whole), adapter_of(resumed)
    assert list(weights) == list(expected)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert any(weights[name].abs().max() > 0 for name in weights if name.endswith("lora_B"))
    record = json.loads((whole / "run.json").read_text(encoding="utf-8"))
    assert record["setup"] == "Stack[mlm, qa]"
    assert record["parameters"]["parts"]["qa"] == LAYERS * 3 * 4 * 2 * HIDDEN
    card = (whole / "adapters-qa" / "README.md").read_text(encoding="utf-8")
    assert "qa: lora[r=4,alpha=8,dropout=0.1,attn_matrices=q-k-v]\n" in card
    answers = json.loads((whole / "eval_predictions.json").read_text(encoding="utf-8"))
    questions = read_squad(Path(command[command.index("--validation_file") + 1]), need_answers=True)
    assert QuestionAnswerer(whole).answer(questions).texts() == answers

    loaded = [word for word in command[:2] + command[4:] if word != "--do_train"]
    loaded = override(loaded, "--load_adapter", whole, "--output_dir", tmp_path / "evaluated")
    assert run_qa_adapter.main(loaded) == 0
    found = json.loads((tmp_path / "evaluated" / "eval_predictions.json").read_text(encoding="utf-8"))
    assert found == answers
    assert run_qa_adapter.main([*override(loaded, "--output_dir", further), "--do_train"]) == 0
    assert not torch.equal(*(next(iter(adapter_of(folder).values())) for folder in (whole, further)))


def test_an_entity_run_is_trained_and_evaluated(command: list[str], tmp_path: Path) -> None:
    file = tmp_path / "train.conll"
    file.write_text("Ana B-PER\nLima I-PER\nmora O\nem O\nRecife B-LOC\n. O\n\n" * 8, encoding="utf-8")
    base, language = command[:2], command[2:4]
    argv = [*base, *language, "--train_file", str(file), "--validation_file", str(file), "--report_to", "none"]
    argv += ["--adapter_config", "ia3", "--max_seq_length", "32", "--learning_rate", "1e-2", "--disable_tqdm", "True"]
    folder = tmp_path / "ner"
    assert run_ner_adapter.main([*argv, "--do_train", "--do_eval", "--output_dir", str(folder)]) == 0
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["parameters"]["parts"]["ner"] == LAYERS * (2 * HIDDEN + INTERMEDIATE)
    again = [*base, "--load_adapter", folder, "--validation_file", file, "--do_eval", "--max_seq_length", "32"]
    again += ["--report_to", "none", "--output_dir", tmp_path / "again"]
    assert run_ner_adapter.main(list(map(str, again))) == 0
    results = [json.loads((path / "eval_results.json").read_text()) for path in (folder, tmp_path / "again")]
    assert results[0]["eval_loss"] == pytest.approx(results[1]["eval_loss"], abs=1e-6)


def test_an_export_has_the_operators_of_the_base_alone(maker: Maker, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason='needs pip install "adapter-qa[export]"')
    import onnx

    folder = maker.make("exported", "qa", A(adapter_config=WIDE))[2]
    out = tmp_path / "out"
    assert export_qa.main([str(folder), str(out)]) == 0
    operators = Counter(node.op_type for node in onnx.load(out / "model.onnx").graph.node)
    # Of each layer: query, key, value, output of attention, two of the feed-forward block; and the head.
    assert operators["MatMul"] + operators["Gemm"] == LAYERS * 6 + 1
    pairs = [(question.question, question.context) for question in make_questions(4, 5)]
    exported, answerer = ExportedModel.load(out), QuestionAnswerer(folder)
    for pair in pairs:
        assert exported.answer(*pair).text == answerer.ask(*pair).text


def test_an_option_error_comes_before_torch_is_imported() -> None:
    code = (
        "import sys, run_qa_adapter\n"
        "from adapter_qa.core.errors import UserError\n"
        "try:\n    run_qa_adapter.main(sys.argv[1:])\n"
        "except UserError as error:\n    print(error)\n"
        "print('torch' in sys.modules)"
    )
    argv = [
        "--model_name_or_path",
        "x",
        "--adapter_config",
        "lora[r=0]",
        "--dry_run",
        "--adapter_reduction_factor",
        "2",
    ]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "--adapter_config lora[r=0]: r is 0; give a whole number of at least 1" in done.stdout
    assert "--adapter_reduction_factor 2" in done.stdout
    assert done.stdout.endswith("\nFalse\n")

"""Built setups: which weights are trained, whether every adapter has an effect, which damage is refused."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import adapters
import numpy as np
import pytest
import torch
from adapters import Fuse, Stack
from adapters.methods.bottleneck import BottleneckLayer
from adapters.methods.modeling import Adapter
from safetensors.torch import load_file, save_file
from support.problems import problem_of, problems_of
from support.setups import INVERTIBLE, PARALLEL, SETUPS, WORKING_CONFIGS, A, F, L, Maker, write_config
from transformers import PreTrainedModel

from adapter_qa.core.errors import UserError
from adapter_qa.models import build
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import build_setup, check_effect, check_setup, trained_names
from adapter_qa.models.fusion import fusion_regularization
from adapter_qa.models.parameters import fusion_values, parameter_table
from adapter_qa.models.save import save_setup
from adapter_qa.models.setup_decisions import setup_for_inference, setup_from_saved
from adapter_qa.models.setup_notes import setup_notes

HEADS = (None, "new")  # of a fusion
IDS = torch.tensor([[5, 17, 23, 9, 41, 30, 12, 8], [6, 7, 8, 9, 10, 11, 12, 13]])


def one_step(model: PreTrainedModel) -> None:
    """Take one SGD step on a loss that depends on every output."""
    model.train()
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.5)
    torch.manual_seed(0)
    sum(output.float().pow(2).mean() for output in model(input_ids=IDS).to_tuple()).backward()
    optimizer.step()
    model.eval()


@pytest.mark.parametrize("name", SETUPS)
def test_a_step_changes_the_trained_weights_only(maker: Maker, saved: dict[str, Path], name: str) -> None:
    composition, options = SETUPS[name]
    setup = maker.setup(*options(saved))
    model = maker.model(setup)
    assert str(model.active_adapters) == str(setup.block) == composition
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    one_step(model)
    changed = {key for key, weight in model.named_parameters() if not torch.equal(weight, before[key])}
    trained = trained_names(model, setup)
    assert changed <= trained
    # The bias of the keys has no gradient: the softmax of the scores does not depend on it.
    assert {key for key in trained - changed if not key.endswith("key.bias")} == set()


def test_madx2_leaves_out_the_last_layer(maker: Maker, saved: dict[str, Path]) -> None:
    model = maker.model(maker.setup(*SETUPS["madx2 fusion"][1](saved)))
    names = [name for name, _ in model.named_parameters() if "adapter" in name]
    assert any(".layer.2." in name for name in names)
    assert not any(".layer.3." in name for name in names)


def test_a_model_that_does_not_match_its_setup_is_refused(maker: Maker, saved: dict[str, Path]) -> None:
    setup = maker.setup(*SETUPS["lang+fusion"][1](saved))
    model = maker.model(setup)
    model.train_adapter_fusion(Fuse("qa", "ner"))  # deactivates the language adapter
    with pytest.raises(RuntimeError, match=r"active setup is Fuse\[qa, ner\], the chosen setup is Stack\[mlm, Fuse"):
        check_setup(model, setup)
    model = maker.model(setup)
    model.get_input_embeddings().weight.requires_grad = True
    with pytest.raises(RuntimeError, match=r"trainable or frozen contrary to the setup.*word_embeddings"):
        check_setup(model, setup)


def test_the_language_adapter_changes_the_outputs(maker: Maker, saved: dict[str, Path]) -> None:
    model = maker.model(maker.setup(*SETUPS["lang+qa"][1](saved)))
    with torch.no_grad():
        torch.nn.init.normal_(model.qa_outputs.weight)
        stacked = model(IDS).start_logits
        model.set_active_adapters(Stack("qa"))
        assert not torch.allclose(stacked, model(IDS).start_logits)


@pytest.mark.parametrize("kind", ["lang+qa", "lang+ner", "lang+fusion"])
def test_a_language_swap_equals_the_librarys_own_composition(maker: Maker, saved: dict[str, Path], kind: str) -> None:
    task, *options = SETUPS[kind][1](saved)
    trained, setup, folder = maker.make(f"swap {kind}", task, *options)
    other = maker.make(f"other mlm {kind}", "mlm", A(madx2=True))[2]
    swapped = maker.model(maker.setup(task, A(load_adapter=str(folder)), L(load_lang_adapter=str(other))))

    library = load_model(maker.options, task, ["O", "B-X", "I-X"] if task == "ner" else None)
    adapters.init(library)
    library.load_adapter(str(other / "mlm"), load_as="other", use_safetensors=True)
    for source in setup.tasks:
        library.load_adapter(str(folder / source.name), use_safetensors=True)
    if setup.fusion is not None:
        library.load_adapter_fusion(str(folder / setup.fusion.name), use_safetensors=True)
    library.load_state_dict(load_file(folder / "model_head.safetensors"), strict=False)
    library.set_active_adapters(Stack("other", setup.fusion or setup.tasks[0].name))
    with torch.no_grad():
        expected, actual, before = (model.eval()(IDS)[0] for model in (library, swapped, trained))
    # The library multiplies a fusion's matrices in another order than `models.fusion`.
    assert (actual - expected).abs().max() <= (2e-6 if setup.fused else 0)
    assert (actual - before).abs().max() > 1e-3


def test_fusion_regularization_equals_the_librarys(maker: Maker, saved: dict[str, Path]) -> None:
    model, _, _ = maker.make("regularised", *SETUPS["fusion"][1](saved))
    values = [weight for _, weight in fusion_values(model)]
    assert fusion_regularization(values).item() == pytest.approx(
        model.base_model.get_fusion_regularization_loss().item(), rel=1e-6
    )


# ---------------------------------------------------------------- configurations


@pytest.fixture(scope="module")
def bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tiny_bert, tmp_path_factory.mktemp("configurations"))


@pytest.fixture(scope="module")
def mlm(bert: Maker) -> str:
    """The folder of a language adapter with an invertible adapter."""
    return str(bert.make("mlm", "mlm", A())[2])


def largest_change(model: PreTrainedModel, mark: str) -> float:
    """Return how much the logits change if the weights with a mark in their names are replaced by noise."""
    with torch.no_grad():
        before = model(IDS).to_tuple()
        for name, weight in model.named_parameters():
            if mark in name:
                weight.normal_()
        return max(float((new - old).abs().max()) for new, old in zip(model(IDS).to_tuple(), before, strict=True))


@pytest.mark.parametrize("name", WORKING_CONFIGS)
def test_a_configuration_trains_and_comes_back_bit_equal(bert: Maker, mlm: str, tmp_path: Path, name: str) -> None:
    """As QA adapter alone, on a language adapter if it can be, and in a fusion with a copy of itself."""
    changes = WORKING_CONFIGS[name]
    config = write_config(tmp_path / "adapter_config.json", **changes)
    setup = bert.setup("qa", A(adapter_config=config))
    model = bert.model(setup)
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    one_step(model)
    changed = {key for key, weight in model.named_parameters() if not torch.equal(weight, before[key])}
    assert changed <= trained_names(model, setup)
    # A first step moves only the up-projections of adapters that begin as the identity.
    assert {key for key in changed if "adapters.qa." in key}
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.normal_(std=0.3)
    save_setup(model, setup, tmp_path / "qa", bert.metadata)
    again = bert.model(setup_from_saved("--load_adapter", str(tmp_path / "qa"), "qa", bert.config))
    for new, old in zip(again(IDS).to_tuple(), model(IDS).to_tuple(), strict=True):
        assert torch.equal(new, old)

    shutil.copytree(tmp_path / "qa", tmp_path / "copy")
    fused = bert.setup("qa", A(), None, F(fuse_adapters=[f"qa={tmp_path / 'qa'}", f"copy={tmp_path / 'copy'}"]))
    assert len(setup_notes(fused)) == 2 * bool(changes.keys() & {"use_gating", "ln_after"}) + bool(
        changes.get("inv_adapter")
    )
    fusion = bert.model(fused)
    torch.nn.init.normal_(fusion.get_submodule("qa_outputs").get_parameter("weight"))
    assert largest_change(fusion, ".adapters.copy.") > 1e-3

    if changes.keys().isdisjoint({"is_parallel", "inv_adapter"}):
        stacked = bert.model(bert.setup("qa", A(adapter_config=config), L(load_lang_adapter=mlm)))
        torch.nn.init.normal_(stacked.get_submodule("qa_outputs").get_parameter("weight"))
        assert largest_change(stacked, ".adapters.mlm.") > 1e-3
        assert largest_change(stacked, "invertible_adapters.mlm.") > 1e-3


@pytest.mark.parametrize("task", ["ner", "mlm"])
def test_an_invertible_adapter_acts_in_every_task(bert: Maker, tmp_path: Path, task: str) -> None:
    config = write_config(tmp_path / "adapter_config.json", **INVERTIBLE)
    model = bert.model(bert.setup(task, A(adapter_config=config)))
    assert largest_change(model, f"invertible_adapters.{task}.") > 1e-3


# ---------------------------------------------------------------- the effect of every part


def with_parallel_adapter(bert: Maker, mlm: str, tmp_path: Path) -> AdapterSetup:
    """Return a setup that the planning refuses: in it the modules of the language adapter have no effect."""
    setup = bert.setup("qa", A(), L(load_lang_adapter=mlm))
    return replace(setup, tasks=(replace(setup.tasks[0], config={**setup.tasks[0].config, **PARALLEL}),))


def with_second_inverse(bert: Maker, mlm: str, tmp_path: Path) -> AdapterSetup:
    setup = bert.setup("qa", A(), L(load_lang_adapter=mlm))
    return replace(setup, tasks=(replace(setup.tasks[0], config={**setup.tasks[0].config, **INVERTIBLE}),))


def with_scaling_0(bert: Maker, mlm: str, tmp_path: Path) -> AdapterSetup:
    setup = bert.setup("qa", A(), L(load_lang_adapter=mlm))
    return replace(setup, tasks=(replace(setup.tasks[0], config={**setup.tasks[0].config, "scaling": 0.0}),))


@pytest.mark.parametrize(
    ("broken", "part"),
    [
        (with_parallel_adapter, "mlm"),
        (with_second_inverse, "the invertible adapter of qa"),
        (with_scaling_0, "qa"),
    ],
)
def test_a_part_without_effect_is_refused(bert: Maker, mlm: str, tmp_path: Path, broken: Any, part: str) -> None:
    assert problem_of(bert.model, broken(bert, mlm, tmp_path)) == (
        f"Stack[mlm, qa]: without any effect on the output: {part}; leave it out, or give another kind"
    )


def test_adapters_that_do_nothing_are_refused_by_name(
    bert: Maker, mlm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def forward(adapter: Adapter, x: torch.Tensor, residual_input: torch.Tensor, **_: Any) -> tuple[torch.Tensor, ...]:
        return x, x, x

    monkeypatch.setattr(Adapter, "forward", forward)
    setup = bert.setup("qa", A(), L(load_lang_adapter=mlm))
    assert problem_of(bert.model, setup).startswith("Stack[mlm, qa]: without any effect on the output: mlm, qa;")


def test_fusion_layers_outside_the_forward_pass_are_refused(
    bert: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folders = [bert.make(name, name, A(madx2=True))[2] for name in ("qa", "ner")]
    setup = bert.setup("qa", A(), None, F(fuse_adapters=[f"{folder.name}={folder}" for folder in folders]))
    bert.model(setup)
    monkeypatch.setattr(BottleneckLayer, "delete_fusion_layer", lambda *_: None)
    assert "without any effect on the output: 1 fusion layers;" in problem_of(bert.model, setup)


def test_the_check_leaves_everything_as_it_was(bert: Maker, mlm: str) -> None:
    setup = bert.setup("qa", A(), L(load_lang_adapter=mlm))
    model = bert.model(setup).train()
    model.get_submodule("bert.encoder.layer.1").eval()
    weights = {name: (weight.data_ptr(), weight.detach().clone()) for name, weight in model.named_parameters()}
    trainable = {name for name, weight in model.named_parameters() if weight.requires_grad}
    modes = [module.training for module in model.modules()]
    assert True in modes
    assert False in modes
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    check_effect(model, setup)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())  # type: ignore[index]
    for name, weight in model.named_parameters():
        assert weight.data_ptr() == weights[name][0]
        assert torch.equal(weight, weights[name][1])
        assert weight.grad is None
    assert trainable == {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert modes == [module.training for module in model.modules()]


def test_weights_are_put_back_if_the_model_fails(bert: Maker, mlm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = bert.setup("qa", A(), L(load_lang_adapter=mlm))
    model = bert.model(setup).train()
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    forward, calls = model.base_model.forward, itertools.count()

    def fail_at_third(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 2:
            raise RuntimeError("no memory")
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.base_model, "forward", fail_at_third)
    with pytest.raises(RuntimeError, match="no memory"):
        check_effect(model, setup)
    assert model.training
    assert all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())


# ---------------------------------------------------------------- setups that earlier versions accepted


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build setups as earlier versions did, until the test calls `monkeypatch.undo()`."""
    monkeypatch.setattr(build, "check_effect", lambda *_: None)


@pytest.mark.usefixtures("unchecked")
def test_a_saved_parallel_adapter_on_a_language_adapter_still_answers(
    bert: Maker, mlm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = with_parallel_adapter(bert, mlm, tmp_path)
    model = bert.model(setup)
    save_setup(model, setup, tmp_path / "adapters-qa", bert.metadata)
    monkeypatch.undo()
    for again in (
        setup_for_inference("RUN", str(tmp_path / "adapters-qa"), bert.config, None),
        bert.setup("qa", A(load_adapter=str(tmp_path / "adapters-qa"))),
    ):
        assert setup_notes(again) == [
            "Stack[mlm, qa]: one of the adapters is parallel, and the other has no effect where it stands"
        ]
        assert torch.equal(bert.model(again)(IDS).start_logits, model(IDS).start_logits)


@pytest.mark.usefixtures("unchecked")
def test_a_saved_inverse_without_effect_is_left_out(
    bert: Maker, mlm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, folder = with_second_inverse(bert, mlm, tmp_path), tmp_path / "adapters-qa"
    model = bert.model(setup)
    save_setup(model, setup, folder, bert.metadata)
    monkeypatch.undo()
    plain = parameter_table(bert.model(bert.setup("qa", A(), L(load_lang_adapter=mlm))), setup).parts["qa"]
    again = bert.setup("qa", A(load_adapter=str(folder)))
    assert setup_notes(again) == [
        f"{folder / 'qa'}: its invertible adapter is left out; only that of the first adapter, mlm, is used"
    ]
    loaded = bert.model(again)
    assert torch.equal(loaded(IDS).start_logits, model(IDS).start_logits)
    assert parameter_table(loaded, again).parts["qa"] == plain < parameter_table(model, setup).parts["qa"]
    # Saved again, it has neither the weights nor the configuration of one.
    save_setup(loaded, again, tmp_path / "adapters-again", bert.metadata)
    third = setup_from_saved("--load_adapter", str(tmp_path / "adapters-again"), "qa", bert.config)
    assert not setup_notes(third)
    assert torch.equal(bert.model(third)(IDS).start_logits, model(IDS).start_logits)
    # As the first adapter of a fusion, it would begin to act, with weights that were never trained.
    other = bert.make("other", "ner", A())[2]
    fusion = bert.setup("qa", A(), None, F(fuse_adapters=[f"qa={folder}", f"ner={other}"]))
    assert setup_notes(fusion) == [
        f"{folder / 'qa'}: its invertible adapter is left out; {folder} did not use it; qa: was trained on the "
        f"language adapter {folder / 'mlm'}; here none is under it"
    ]
    assert not any("invertible" in name for name, _ in bert.model(fusion).named_parameters())


# ---------------------------------------------------------------- folders of the library


@pytest.mark.parametrize("block", ["mlm", Stack("mlm", "qa"), Stack("mlm", Fuse("qa", "ner"))], ids=str)
def test_a_setup_that_the_library_saved_gives_its_logits(bert: Maker, tmp_path: Path, block: Any) -> None:
    library = load_model(bert.options, "qa").eval()
    adapters.init(library)
    for name in ("mlm", "qa", "ner"):
        library.add_adapter(name, "seq_bn_inv" if name == "mlm" else "seq_bn")
    library.add_adapter_fusion(Fuse("qa", "ner"))
    for name, weight in library.named_parameters():
        if "adapter" in name:
            torch.nn.init.normal_(weight, std=0.3)
    library.set_active_adapters(block)
    library.save_adapter_setup(str(tmp_path), block, head_setup=True, use_safetensors=True)
    setup = setup_for_inference("RUN", str(tmp_path), bert.config, None)
    assert setup_notes(setup) == []
    with torch.no_grad():
        torch.testing.assert_close(bert.model(setup)(IDS).start_logits, library(IDS).start_logits)


# ---------------------------------------------------------------- refusals


def test_every_mix_of_last_layers_runs_or_is_refused(maker: Maker, saved: dict[str, Path]) -> None:
    """The library can run every setup that is accepted; with the others it fails with a KeyError."""
    ran = 0
    for first, last in itertools.product(("qa", "qa_all"), ("ner", "ner_all")):
        for lang in (None, L(load_lang_adapter=str(saved["mlm"]))):
            fusion = F(fuse_adapters=[f"a={saved[first]}", f"b={saved[last]}"])
            if (first, last) == ("qa_all", "ner"):
                with pytest.raises(UserError, match="last adapter in the fusion"):
                    maker.setup("qa", A(), lang, fusion)
                continue
            maker.model(maker.setup("qa", A(), lang, fusion))(IDS)
            ran += 1
    assert ran == 6


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncated", "weights cannot be read"),
        ("missing weight", "1 weights are missing"),
        ("other shape", "weights cannot be loaded"),
    ],
)
def test_damaged_weights_are_refused(
    maker: Maker, saved: dict[str, Path], tmp_path: Path, damage: str, message: str
) -> None:
    folder = tmp_path / "adapters-qa"
    shutil.copytree(saved["qa_all"], folder)
    path = folder / "qa" / "adapter.safetensors"
    state = load_file(path)
    name = sorted(state)[0]
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "missing weight":
        del state[name]
        save_file(state, path)
    else:
        state[name] = torch.zeros(3)
        save_file(state, path)
    with pytest.raises(UserError, match=message):
        maker.model(setup_from_saved("--load_adapter", str(folder), "qa", maker.config))


def test_a_head_of_another_class_is_refused(maker: Maker, saved: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved["qa_all"], tmp_path / "adapters-qa"))
    path = folder / "head_config.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | {"model_class": "OtherForQuestionAnswering"}), encoding="utf-8")
    setup = setup_from_saved("--load_adapter", str(folder), "qa", maker.config)
    assert problem_of(maker.model, setup) == (
        f"{folder}: its head belongs to OtherForQuestionAnswering, the model is a {document['model_class']}"
    )


@pytest.mark.parametrize("file", ["qa/adapter", "qa,ner/model_adapter_fusion", "model_head"])
def test_saved_weights_that_are_nan_are_refused(
    maker: Maker, saved: dict[str, Path], tmp_path: Path, file: str
) -> None:
    folder = Path(shutil.copytree(maker.make("nan", *SETUPS["fusion"][1](saved))[2], tmp_path / "fusion"))
    path = folder / f"{file}.safetensors"
    state = load_file(path)
    name = sorted(state)[0]
    save_file(state | {name: state[name] * torch.nan}, path)
    setup = setup_from_saved("--load_adapter", str(folder), "qa", maker.config)
    source = path.parent if file == "qa/adapter" else path
    assert problem_of(maker.model, setup) == (
        f"{source}: 1 of {len(state)} weights are NaN or infinite ({name}); the training that saved them failed, or "
        "the file is damaged"
    )
    if source != path.parent:  # a dry run loads adapters only
        build_setup(load_model(maker.options, "qa", shapes_only=True), setup)


def test_the_head_of_a_fusion_has_the_weights_of_the_saved_one(
    maker: Maker, saved: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "qa"
    shutil.copytree(saved["qa_all"], folder)
    words = [f"qa={folder}", f"ner={saved['ner_all']}"]
    expected = load_file(folder / "model_head.safetensors")
    models = {
        head: maker.model(maker.setup("qa", A(), None, F(fuse_adapters=words, fusion_head=head))) for head in HEADS
    }
    for head, model in models.items():
        weights = {name: model.get_parameter(name) for name in expected}
        equal = [torch.equal(weight, expected[name]) for name, weight in weights.items()]
        assert equal == [head is None] * 2
        assert all(weight.requires_grad for weight in weights.values())

    save_file({name: weight[:1].clone() for name, weight in expected.items()}, folder / "model_head.safetensors")
    setup = maker.setup("qa", A(), None, F(fuse_adapters=words))
    assert problem_of(maker.model, setup) == (
        f"{folder / 'model_head.safetensors'}: 2 of 2 weights are missing or of another shape, e.g. qa_outputs.bias; "
        "the file is damaged or belongs to another model; --fusion_head new starts from random values"
    )
    (folder / "model_head.safetensors").unlink()
    (problem,) = problems_of(maker.setup, "qa", A(), None, F(fuse_adapters=words))
    assert problem.startswith(str(folder))

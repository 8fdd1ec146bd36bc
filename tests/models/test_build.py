"""Built setups: which weights are trained, whether every adapter has an effect, which damage is refused."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
import torch
from adapters import Fuse, Stack
from safetensors.torch import load_file, save_file
from support.setups import SETUPS, A, F, L, Maker
from transformers import PreTrainedModel

from adapter_qa.core.errors import UserError
from adapter_qa.models.adapter_setup import setup_from_saved
from adapter_qa.models.build import check_setup, trained_names
from adapter_qa.models.fusion import fusion_regularization
from adapter_qa.models.parameters import fusion_values

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


def test_fusion_regularization_equals_the_librarys(maker: Maker, saved: dict[str, Path]) -> None:
    model, _, _ = maker.make("regularised", *SETUPS["fusion"][1](saved))
    values = [weight for _, weight in fusion_values(model)]
    assert fusion_regularization(values).item() == pytest.approx(
        model.base_model.get_fusion_regularization_loss().item(), rel=1e-6
    )


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

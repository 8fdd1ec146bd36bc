"""Logits of setups on every encoder against plain code of the adapters library with the same weights.

For ModernBERT plain code has a fault (tests/test_adapters_faults.py). Here its hooks are mended in another way than by
`init_adapters`; and a BERT that gets its adapters by hooks, as ModernBERT does, is compared with the library's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

import adapters
import pytest
import torch
from adapters import AdapterConfig, AdapterModelInterface
from adapters.methods.bottleneck import BottleneckLayer, hook_fn
from adapters.wrappers.interfaces import CUSTOM_INTERFACES
from support.setups import A, F, L, Maker, save_adapters, write_config
from support.tiny_encoders import TINY, save_tiny
from transformers import (
    AutoModelForQuestionAnswering,
    CamembertForQuestionAnswering,
    PreTrainedModel,
    XLMRobertaForQuestionAnswering,
)

from adapter_qa.data.batches import encoder_inputs
from adapter_qa.models import encoder_adapters
from adapter_qa.models.adapter_model import as_adapter_model
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.base_model import load_model
from adapter_qa.models.encoders import encoder_of, takes_token_types
from adapter_qa.models.fusion import FusionLayer
from adapter_qa.models.setup_decisions import setup_from_saved
from adapter_qa.models.tasks import Task

NAMES = [name for name in TINY if name != "modernbert, 8192 tokens"]
TOLERANCE = 1e-5
ATTENTION = {"mh_adapter": True, "output_adapter": False}  # with the norm of the layer, as pfeiffer has it
# Makes the arguments of `Maker.setup` from the folders of `save_adapters`, and one of a file with `ATTENTION`.
Options = Callable[[dict[str, Path], str], tuple[Task, A, L | None, F | None]]
COMPOSITIONS: dict[str, Options] = {
    "single": lambda s, _: ("qa", A(), None, None),
    "lang+qa": lambda s, _: ("qa", A(), L(load_lang_adapter=str(s["mlm"])), None),
    "lang+fusion": lambda s, _: (
        "qa", A(), L(load_lang_adapter=str(s["mlm"])), F(fuse_adapters=[f"qa={s['qa_all']}", f"ner={s['ner_all']}"])
    ),
    "houlsby": lambda s, _: ("qa", A(adapter_config="houlsby+inv"), None, None),
    "after attention": lambda s, config: ("qa", A(adapter_config=config), None, None),
    "houlsby, last": lambda s, _: ("qa", A(adapter_config="houlsby", houlsby_MHA_lastlayer=True), None, None),
    "madx2": lambda s, _: ("qa", A(madx2=True), L(load_lang_adapter=str(s["mlm"])), None),
    "madx2 fusion": lambda s, _: (
        "qa", A(), L(load_lang_adapter=str(s["mlm"])), F(fuse_adapters=[f"qa={s['qa']}", f"ner={s['ner']}"])
    ),
}  # fmt: skip
QUICK = ("lang+fusion", "after attention")
OF_LAST_LAYER = ("houlsby, last", "madx2", "madx2 fusion")


@pytest.fixture(scope="module", params=NAMES)
def maker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    base = save_tiny(request.param, tmp_path_factory.mktemp("base"))
    return Maker(base, tmp_path_factory.mktemp("setups"), std=0.2)


@pytest.fixture(scope="module")
def saved(maker: Maker) -> dict[str, Path]:
    return save_adapters(maker)


def example_batch(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return tokens of three windows, the last two with padding, longer than ModernBERT's local attention."""
    draw = torch.Generator().manual_seed(2)
    ids = torch.randint(5, config["vocab_size"], (3, 40), generator=draw)
    mask = (torch.arange(40) < torch.tensor([40, 25, 7])[:, None]).long()
    batch = {"input_ids": ids.where(mask == 1, config["pad_token_id"]), "attention_mask": mask}
    if takes_token_types(config):
        batch["token_type_ids"] = (torch.arange(40) > 5).long().expand(3, 40) * mask
    return batch


def logits_of(model: PreTrainedModel, batch: dict[str, torch.Tensor], mask_dimensions: int = 2) -> torch.Tensor:
    """Return start and end logits where there is no padding, (tokens, 2)."""
    model.eval()
    with torch.no_grad():
        output = model(**encoder_inputs(batch, batch, mask_dimensions))
    return torch.stack([output.start_logits, output.end_logits], -1)[batch["attention_mask"] == 1]


def our_logits(maker: Maker, model: PreTrainedModel) -> torch.Tensor:
    """Return the logits of `example_batch` with the mask that the trainer gives the encoder."""
    return logits_of(model, example_batch(maker.config), encoder_of(maker.config).mask_dimensions)


def mend_hooks(model: PreTrainedModel) -> None:
    """Give every hook of the library the norm of its own layer: the layer is a free variable of a function."""
    for _, layer in as_adapter_model(model).iter_layers():
        for module in layer.modules():
            for number, hook in module._forward_hooks.items():
                if isinstance(hook, partial) and hook.func is hook_fn:
                    site, norm = hook.args
                    cells = zip(norm.__code__.co_freevars, norm.__closure__, strict=True)
                    closure = tuple(CellType(layer) if name == "layer" else cell for name, cell in cells)
                    own = FunctionType(norm.__code__, norm.__globals__, closure=closure)
                    module._forward_hooks[number] = partial(hook_fn, site, own)


def library_model(maker: Maker, setup: AdapterSetup, weights: dict[str, torch.Tensor]) -> PreTrainedModel:
    """Build a setup with plain library code and give it the weights of ours."""
    is_camembert = maker.config["model_type"] == "camembert"
    loader: Any = XLMRobertaForQuestionAnswering if is_camembert else AutoModelForQuestionAnswering
    model: Any = loader.from_pretrained(maker.options.model_name_or_path)
    if is_camembert:  # which `adapters` does not know, and which is an XLM-R
        model.config.model_type = "xlm-roberta"
    if model.config.model_type == "modernbert":
        interface = CUSTOM_INTERFACES["modernbert"]
        adapters.init(model, interface=replace(interface, adapter_methods=["bottleneck", "invertible"]))
        mend_hooks(model)
    else:
        adapters.init(model)
    for source in setup.adapters:
        model.add_adapter(source.name, AdapterConfig.load(source.config))
        if source.attention_only_last_layer:
            *_, (_, last) = model.iter_layers()
            for site in last.modules():
                if isinstance(site, BottleneckLayer) and site.location_key == "output_adapter":
                    site.delete_adapter(source.name)
    if setup.fusion is not None:
        model.add_adapter_fusion([*setup.fusion.children])
    model.set_active_adapters(setup.block)
    # Beside the names of ours, the library registers parts of an adapter twice, and fusions where they have no effect.
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    with_adapters = {name.partition(".adapters.")[0] for name in weights if ".adapters." in name}
    for name in missing:
        place, _, rest = name.partition(".adapter_fusion_layer.")
        assert rest, name
        assert place not in with_adapters
    library: PreTrainedModel = model.eval()
    return library


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in COMPOSITIONS]
)
def test_logits_equal_those_of_the_library(maker: Maker, saved: dict[str, Path], tmp_path: Path, name: str) -> None:
    if encoder_of(maker.config).shares_layers and name in OF_LAST_LAYER:
        pytest.skip("all layers share their weights and their adapter")
    config = write_config(tmp_path / "adapter_config.json", **ATTENTION)
    model, setup, folder = maker.make(name, *COMPOSITIONS[name](saved, config))
    fused = [module for module in model.modules() if isinstance(module, FusionLayer)]
    assert bool(fused) == ("fusion" in name)
    for norm in model.modules():  # in a new model they all have the same weights
        if isinstance(norm, torch.nn.LayerNorm):
            torch.nn.init.normal_(norm.weight)
    ours = our_logits(maker, model)
    theirs = logits_of(library_model(maker, setup, model.state_dict()), example_batch(maker.config))
    assert float(ours.abs().max()) > 0.01
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)

    again = maker.model(setup_from_saved("--load_adapter", str(folder), "qa", maker.config))
    state, restored = saved_state(model), saved_state(again)
    assert state.keys() == restored.keys()
    assert all(torch.equal(weight, restored[key]) for key, weight in state.items())


def saved_state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the weights that a saved setup has: those of adapters, fusion and head."""
    return {key: weight for key, weight in model.state_dict().items() if "adapter" in key or "qa_outputs" in key}


def test_adapters_change_no_logits_of_the_base_before_they_are_added(maker: Maker) -> None:
    torch.manual_seed(3)
    model = load_model(maker.options, "qa")
    batch = example_batch(maker.config)
    before = logits_of(model, batch)
    encoder_adapters.init_adapters(model)
    assert torch.equal(logits_of(model, batch), before)


def test_a_full_model_equals_the_library(maker: Maker, tmp_path: Path) -> None:
    torch.manual_seed(4)
    model = load_model(maker.options, "qa")
    model.save_pretrained(tmp_path)
    is_camembert = maker.config["model_type"] == "camembert"
    loader: Any = CamembertForQuestionAnswering if is_camembert else AutoModelForQuestionAnswering
    plain = loader.from_pretrained(tmp_path)
    theirs = logits_of(plain, example_batch(maker.config))
    torch.testing.assert_close(our_logits(maker, model), theirs, rtol=0, atol=TOLERANCE)


# ---------------------------------------------------------------- adapters by hooks

BERT_INTERFACE = AdapterModelInterface(
    adapter_methods=["bottleneck", "invertible"],
    model_embeddings="embeddings",
    model_layers="encoder.layer",
    layer_self_attn="attention",
    layer_cross_attn=None,
    attn_k_proj="self.key",
    attn_q_proj="self.query",
    attn_v_proj="self.value",
    attn_o_proj="output.dense",
    layer_intermediate_proj="intermediate.dense",
    layer_output_proj="output.dense",
    layer_pre_self_attn="attention",
    layer_pre_ffn="intermediate",
    layer_ln_1="attention.output.LayerNorm",
    layer_ln_2="output.LayerNorm",
)


@pytest.mark.parametrize("name", ["lang+fusion", "after attention"])
def test_adapters_by_hooks_equal_the_librarys_own_in_a_bert(
    name: str, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The native BERT has adapters inside the output layers of its blocks; by hooks they stand beside them."""
    maker = Maker(tiny_bert, tmp_path, std=0.2)
    config = write_config(tmp_path / "adapter_config.json", **ATTENTION)
    native, setup, _ = maker.make(name, *COMPOSITIONS[name](save_adapters(maker), config))
    for norm in native.modules():
        if isinstance(norm, torch.nn.LayerNorm):
            torch.nn.init.normal_(norm.weight)
    monkeypatch.setitem(CUSTOM_INTERFACES, "bert", BERT_INTERFACE)
    hooked = load_model(maker.options, "qa")
    encoder_adapters.init_adapters(hooked)
    for source in setup.adapters:
        as_adapter_model(hooked).add_adapter(source.name, AdapterConfig.load(source.config))
    if setup.fusion is not None:
        as_adapter_model(hooked).add_adapter_fusion([*setup.fusion.children])
    as_adapter_model(hooked).set_active_adapters(setup.block)
    names = {".attention.output.adapter": ".attention_adapters.adapter", ".output.adapter": ".output_adapters.adapter"}
    weights = {key: weight for key, weight in native.state_dict().items() if ".prompt_tuning." not in key}
    for old, new in names.items():
        weights = {key.replace(old, new): weight for key, weight in weights.items()}
    _, unexpected = hooked.load_state_dict(weights, strict=False)
    assert not unexpected
    batch = example_batch(maker.config)
    torch.testing.assert_close(logits_of(hooked, batch), logits_of(native, batch), rtol=0, atol=TOLERANCE)

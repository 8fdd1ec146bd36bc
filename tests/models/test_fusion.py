"""The cheaper fusion arithmetic (adapter_qa/models/fusion.py) against the library's own, in whole encoders."""

from __future__ import annotations

from typing import Any

import adapters
import pytest
import torch
from adapters import AdapterConfig, AdapterFusionConfig, Fuse, Stack
from adapters.methods.bottleneck import BottleneckLayer
from adapters.methods.modeling import BertFusion
from torch import nn
from transformers import BertConfig, BertModel

from adapter_qa.models.fusion import (
    FusionLayer,
    InferenceFusion,
    fusion_regularization,
    use_fast_fusion,
    use_inference_fusion,
)

WIDTH = 24
CONFIG = {
    "vocab_size": 30, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
IDS = torch.randint(0, 30, (2, 9), generator=torch.Generator().manual_seed(2))
PFEIFFER, HOULSBY, PARALLEL = "seq_bn", "double_seq_bn", "par_bn"
UNUSUAL = {"ln_before": True, "ln_after": True, "use_gating": True, "scaling": 0.5, "dropout": 0.0}


def encoder(members: list[AdapterConfig], fusion: AdapterFusionConfig, dtype: torch.dtype = torch.float64) -> Any:
    """An encoder with `Stack(language, Fuse(a0, a1, ...))`, random weights, everything trainable."""
    torch.manual_seed(1)
    model: Any = BertModel(BertConfig(**CONFIG), add_pooling_layer=False)
    adapters.init(model)
    names = [f"a{index}" for index in range(len(members))]
    model.add_adapter("language", AdapterConfig.load(PFEIFFER, reduction_factor=2))
    for name, config in zip(names, members, strict=True):
        model.add_adapter(name, config)
    fuse = Fuse(*names)
    model.add_adapter_fusion(fuse, fusion)
    model.set_active_adapters(Stack("language", fuse))
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.2)
        weight.requires_grad_()
    return model.to(dtype).train()


def places(model: nn.Module) -> list[tuple[BottleneckLayer, str]]:
    return [
        (place, name)
        for place in model.modules()
        if isinstance(place, BottleneckLayer)
        for name in place.adapter_fusion_layer
    ]


def cheaper(model: Any) -> Any:
    for place, name in places(model):
        use_fast_fusion(place, name)
    return model


def run(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Output, and every gradient of a loss that feels all of it."""
    torch.manual_seed(3)
    output = model(input_ids=IDS).last_hidden_state
    (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum().backward()
    return output, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def fusion_weights(model: Any) -> list[torch.Tensor]:
    """Of every place, (batch, tokens, adapters), as the library hands them out."""
    torch.manual_seed(3)
    (by_layer,) = model(input_ids=IDS, output_adapter_fusion_attentions=True).adapter_fusion_attentions.values()
    return [torch.as_tensor(one) for layer in by_layer.values() for one in layer.values()]


def of(kind: str, **others: Any) -> AdapterConfig:
    return AdapterConfig.load(kind, **{"reduction_factor": 6, **others})


MEMBERS = {
    "one": [of(PFEIFFER)],
    "two": [of(PFEIFFER), of(PFEIFFER)],
    "five of unequal size and activation": [
        of(PFEIFFER, reduction_factor=factor, non_linearity=activation)
        for factor, activation in ((2, "relu"), (3, "gelu"), (4, "tanh"), (24, "swish"), (1, "gelu_new"))
    ],
    "after attention, too": [of(HOULSBY), of(HOULSBY, reduction_factor=4)],
    "of other kinds": [of(PARALLEL), of(PFEIFFER, **UNUSUAL), of(PARALLEL, scaling="learned")],
    "one absent above": [of(PFEIFFER, leave_out=[1]), of(PFEIFFER)],
    "other residuals": [of(PFEIFFER, residual_before_ln=False), of(PFEIFFER, original_ln_before=False)],
}


@pytest.mark.parametrize("members", MEMBERS.values(), ids=MEMBERS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_outputs_weights_and_gradients_are_the_librarys(members: list[AdapterConfig], dropout: float) -> None:
    fusion = AdapterFusionConfig.load("dynamic", dropout_prob=dropout)
    plain, ours = encoder(members, fusion), cheaper(encoder(members, fusion))
    assert {type(place.adapter_fusion_layer[name]) for place, name in places(ours)} == {FusionLayer}
    theirs, their_gradients = run(plain)
    found, gradients = run(ours)
    torch.testing.assert_close(found, theirs, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(fusion_weights(ours), fusion_weights(plain), rtol=1e-11, atol=1e-11)
    assert gradients.keys() == their_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("members", MEMBERS.values(), ids=MEMBERS)
def test_folded_fusion_is_the_librarys(members: list[AdapterConfig]) -> None:
    fusion = AdapterFusionConfig.load("dynamic")
    plain, ours = encoder(members, fusion).eval(), cheaper(encoder(members, fusion)).eval()
    use_inference_fusion(ours)
    assert {type(place.adapter_fusion_layer[name]) for place, name in places(ours)} == {InferenceFusion}
    assert not any("adapter_fusion_layer." in name for name, _ in ours.named_parameters())
    torch.testing.assert_close(run(ours)[0], run(plain)[0], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(fusion_weights(ours), fusion_weights(plain), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.1)])
def test_lower_precision_is_as_close_as_the_librarys(dtype: torch.dtype, tolerance: float) -> None:
    """Against the library in float64; for bfloat16 under autocast, with float32 weights, as it is trained."""
    members, fusion = MEMBERS["two"], AdapterFusionConfig.load("dynamic")
    exact, _ = run(encoder(members, fusion))
    distances = {}
    for name, model in (
        ("theirs", encoder(members, fusion, torch.float32)),
        ("ours", cheaper(encoder(members, fusion, torch.float32))),
    ):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
            found, gradients = run(model)
        assert all(gradient.dtype == torch.float32 for gradient in gradients.values())
        distances[name] = (found.double() - exact).abs().max().item()
    assert distances["ours"] < tolerance and distances["ours"] < 2 * distances["theirs"], distances


def test_parameters_keep_their_names() -> None:
    members, fusion = MEMBERS["two"], AdapterFusionConfig.load("dynamic")
    plain, ours = encoder(members, fusion).state_dict(), cheaper(encoder(members, fusion)).state_dict()
    assert ours.keys() == plain.keys()
    assert all(torch.equal(weight, plain[name]) for name, weight in ours.items())


@pytest.mark.parametrize(
    "changed", [{"temperature": True}, {"residual_before": True}, {"value": False}, {"query": False}, {"key": False}]
)
def test_other_kinds_of_fusion_stay_the_librarys(changed: dict[str, bool]) -> None:
    changed_fusion = AdapterFusionConfig.load("dynamic").replace(**changed)
    model = cheaper(encoder(MEMBERS["two"], changed_fusion))
    assert {type(place.adapter_fusion_layer[name]) for place, name in places(model)} == {BertFusion}
    assert not any("compose_fuse" in vars(place) for place, _ in places(model))


def test_adapters_that_are_not_linear_from_their_bottleneck_keep_the_librarys_fusion() -> None:
    fusion = AdapterFusionConfig.load("dynamic")
    hypercomplex = encoder([of(PFEIFFER, phm_layer=True, phm_dim=2), of(PFEIFFER)], fusion)
    at_random = encoder(MEMBERS["two"], fusion)
    for place, _ in places(at_random):
        place.adapters["a0"].DropPath = nn.Identity()  # the library's own wants torchvision
    for model in (hypercomplex, at_random):
        assert {type(place.adapter_fusion_layer[name]) for place, name in places(cheaper(model))} == {BertFusion}


def test_regulariser_and_its_gradient() -> None:
    torch.manual_seed(0)
    values = [nn.Parameter(torch.eye(6, dtype=torch.float64) + torch.randn(6, 6, dtype=torch.float64)) for _ in "ab"]
    plain = [nn.Parameter(value.detach().clone()) for value in values]
    loss = fusion_regularization(values) * 3
    expected = 0.01 * sum(((value - torch.eye(6, dtype=torch.float64)) ** 2).sum() for value in plain) * 3
    torch.testing.assert_close(loss, torch.as_tensor(expected), rtol=1e-13, atol=1e-13)
    loss.backward()
    torch.as_tensor(expected).backward()
    for one, other in zip(values, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-13, atol=1e-13)
    assert torch.autograd.gradcheck(lambda weight: fusion_regularization([weight]), values[0])


def test_regulariser_near_the_identity_in_float32() -> None:
    """Where training begins: the sum must not drown in the rounding of Σ V²."""
    value = nn.Parameter(torch.eye(512) + 1e-4 * torch.randn(512, 512, generator=torch.Generator().manual_seed(0)))
    expected = 0.01 * (value.detach().double() - torch.eye(512, dtype=torch.float64)).square().sum()
    assert fusion_regularization([value]).item() == pytest.approx(expected.item(), rel=1e-4)

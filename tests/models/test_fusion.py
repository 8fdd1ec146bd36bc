"""Outputs, weights and gradients of our fusion layers in whole encoders, against those of the library's layers."""

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


def make_encoder(configs: list[AdapterConfig], fusion: AdapterFusionConfig, dtype: torch.dtype = torch.float64) -> Any:
    """Make an encoder with `Stack(language, Fuse(a0, a1, ...))` and random weights, all trainable."""
    torch.manual_seed(1)
    model: Any = BertModel(BertConfig(**CONFIG), add_pooling_layer=False)
    adapters.init(model)
    names = [f"a{index}" for index in range(len(configs))]
    model.add_adapter("language", AdapterConfig.load(PFEIFFER, reduction_factor=2))
    for name, config in zip(names, configs, strict=True):
        model.add_adapter(name, config)
    fuse = Fuse(*names)
    model.add_adapter_fusion(fuse, fusion)
    model.set_active_adapters(Stack("language", fuse))
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.2)
        weight.requires_grad_()
    return model.to(dtype).train()


def fusion_sites(model: nn.Module) -> list[tuple[BottleneckLayer, str]]:
    return [
        (site, name)
        for site in model.modules()
        if isinstance(site, BottleneckLayer)
        for name in site.adapter_fusion_layer
    ]


def layer_types(model: nn.Module) -> set[type]:
    return {type(site.adapter_fusion_layer[name]) for site, name in fusion_sites(model)}


def with_fast_fusion(model: Any) -> Any:
    for site, name in fusion_sites(model):
        use_fast_fusion(site, name)
    return model


def output_and_gradients(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the output, and every gradient of a loss that depends on all of it."""
    torch.manual_seed(3)
    output = model(input_ids=IDS).last_hidden_state
    (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum().backward()
    return output, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def fusion_weights(model: Any) -> list[torch.Tensor]:
    """Return the weights at every site, (batch, tokens, adapters), from the library's output."""
    torch.manual_seed(3)
    (by_layer,) = model(input_ids=IDS, output_adapter_fusion_attentions=True).adapter_fusion_attentions.values()
    return [torch.as_tensor(weights) for by_location in by_layer.values() for weights in by_location.values()]


def adapter(kind: str, **options: Any) -> AdapterConfig:
    return AdapterConfig.load(kind, **{"reduction_factor": 6, **options})


ADAPTERS = {
    "one": [adapter(PFEIFFER)],
    "two": [adapter(PFEIFFER), adapter(PFEIFFER)],
    "five of different sizes and activations": [
        adapter(PFEIFFER, reduction_factor=factor, non_linearity=activation)
        for factor, activation in ((2, "relu"), (3, "gelu"), (4, "tanh"), (24, "swish"), (1, "gelu_new"))
    ],
    "after attention too": [adapter(HOULSBY), adapter(HOULSBY, reduction_factor=4)],
    "parallel and unusual": [adapter(PARALLEL), adapter(PFEIFFER, **UNUSUAL), adapter(PARALLEL, scaling="learned")],
    "one left out of a layer": [adapter(PFEIFFER, leave_out=[1]), adapter(PFEIFFER)],
    "other residuals": [adapter(PFEIFFER, residual_before_ln=False), adapter(PFEIFFER, original_ln_before=False)],
}


@pytest.mark.parametrize("configs", ADAPTERS.values(), ids=ADAPTERS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_fast_fusion_has_the_librarys_outputs_weights_and_gradients(
    configs: list[AdapterConfig], dropout: float
) -> None:
    fusion = AdapterFusionConfig.load("dynamic", dropout_prob=dropout)
    library, fast = make_encoder(configs, fusion), with_fast_fusion(make_encoder(configs, fusion))
    assert layer_types(fast) == {FusionLayer}
    expected_output, expected_gradients = output_and_gradients(library)
    output, gradients = output_and_gradients(fast)
    torch.testing.assert_close(output, expected_output, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(fusion_weights(fast), fusion_weights(library), rtol=1e-11, atol=1e-11)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("configs", ADAPTERS.values(), ids=ADAPTERS)
def test_inference_fusion_has_the_librarys_outputs_and_weights(configs: list[AdapterConfig]) -> None:
    fusion = AdapterFusionConfig.load("dynamic")
    library = make_encoder(configs, fusion).eval()
    inference = with_fast_fusion(make_encoder(configs, fusion)).eval()
    use_inference_fusion(inference)
    assert layer_types(inference) == {InferenceFusion}
    assert not any("adapter_fusion_layer." in name for name, _ in inference.named_parameters())
    output, expected_output = output_and_gradients(inference)[0], output_and_gradients(library)[0]
    torch.testing.assert_close(output, expected_output, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(fusion_weights(inference), fusion_weights(library), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.1)])
def test_lower_precision_is_as_close_to_float64_as_the_librarys(dtype: torch.dtype, tolerance: float) -> None:
    """With bfloat16 the weights are float32 and autocast is on, as in training."""
    configs, fusion = ADAPTERS["two"], AdapterFusionConfig.load("dynamic")
    exact, _ = output_and_gradients(make_encoder(configs, fusion))
    distances = {}
    for name, model in (
        ("library", make_encoder(configs, fusion, torch.float32)),
        ("fast", with_fast_fusion(make_encoder(configs, fusion, torch.float32))),
    ):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
            output, gradients = output_and_gradients(model)
        assert all(gradient.dtype == torch.float32 for gradient in gradients.values())
        distances[name] = (output.double() - exact).abs().max().item()
    assert distances["fast"] < min(tolerance, 2 * distances["library"]), distances


def test_parameters_keep_names_and_values() -> None:
    configs, fusion = ADAPTERS["two"], AdapterFusionConfig.load("dynamic")
    expected = make_encoder(configs, fusion).state_dict()
    state = with_fast_fusion(make_encoder(configs, fusion)).state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in state.items())


@pytest.mark.parametrize(
    "changes", [{"temperature": True}, {"residual_before": True}, {"value": False}, {"query": False}, {"key": False}]
)
def test_other_kinds_of_fusion_keep_the_librarys_layer(changes: dict[str, bool]) -> None:
    fusion = AdapterFusionConfig.load("dynamic").replace(**changes)
    model = with_fast_fusion(make_encoder(ADAPTERS["two"], fusion))
    assert layer_types(model) == {BertFusion}
    assert not any("compose_fuse" in vars(site) for site, _ in fusion_sites(model))


def test_adapters_that_are_not_linear_after_the_bottleneck_keep_the_librarys_layer() -> None:
    fusion = AdapterFusionConfig.load("dynamic")
    hypercomplex = make_encoder([adapter(PFEIFFER, phm_layer=True, phm_dim=2), adapter(PFEIFFER)], fusion)
    stochastic_depth = make_encoder(ADAPTERS["two"], fusion)
    for site, _ in fusion_sites(stochastic_depth):
        site.adapters["a0"].DropPath = nn.Identity()  # the library's own needs torchvision
    for model in (hypercomplex, stochastic_depth):
        assert layer_types(with_fast_fusion(model)) == {BertFusion}


def test_regularization_and_its_gradient() -> None:
    torch.manual_seed(0)
    values = [nn.Parameter(torch.eye(6, dtype=torch.float64) + torch.randn(6, 6, dtype=torch.float64)) for _ in "ab"]
    copies = [nn.Parameter(value.detach().clone()) for value in values]
    loss = fusion_regularization(values) * 3
    expected = 0.01 * sum(((value - torch.eye(6, dtype=torch.float64)) ** 2).sum() for value in copies) * 3
    torch.testing.assert_close(loss, torch.as_tensor(expected), rtol=1e-13, atol=1e-13)
    loss.backward()
    torch.as_tensor(expected).backward()
    for value, expected_value in zip(values, copies, strict=True):
        torch.testing.assert_close(value.grad, expected_value.grad, rtol=1e-13, atol=1e-13)
    assert torch.autograd.gradcheck(lambda weight: fusion_regularization([weight]), values[0])


def test_regularization_is_precise_near_the_identity_in_float32() -> None:
    """Training begins there; the result must be larger than the rounding errors of ΣV²."""
    value = nn.Parameter(torch.eye(512) + 1e-4 * torch.randn(512, 512, generator=torch.Generator().manual_seed(0)))
    expected = 0.01 * (value.detach().double() - torch.eye(512, dtype=torch.float64)).square().sum()
    assert fusion_regularization([value]).item() == pytest.approx(expected.item(), rel=1e-4)

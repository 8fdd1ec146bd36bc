"""The cheaper fusion arithmetic (adapter_qa/fusion.py) against the library's own layer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from adapters import AdapterFusionConfig
from adapters.methods.modeling import BertFusion
from torch import nn

from adapter_qa.fusion import FoldedFusion, FusionLayer, fusion_regularization

WIDTH = 24
DYNAMIC = AdapterFusionConfig.load("dynamic")


def layers(dropout: float = 0.0, dtype: torch.dtype = torch.float64) -> tuple[BertFusion, FusionLayer]:
    torch.manual_seed(1)
    plain = BertFusion(DYNAMIC, WIDTH, dropout).double()
    for weight in plain.parameters():
        nn.init.normal_(weight, std=0.2)
    plain.to(dtype)
    return plain, FusionLayer(copy.deepcopy(plain))


def inputs(adapters: int, tokens: int) -> list[torch.Tensor]:
    """Query, the adapters' outputs as the library stacks them, residual."""
    torch.manual_seed(2)
    stacked = torch.randn(adapters, 2, tokens, WIDTH, dtype=torch.float64, requires_grad=True)
    query, residual = (torch.randn(2, tokens, WIDTH, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return [query, stacked, residual]


def run(layer: nn.Module, given: list[torch.Tensor], **others: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Output, and every gradient of a loss that feels all of it."""
    query, stacked, residual = (one.detach().clone().requires_grad_() for one in given)
    outputs = stacked.permute(1, 2, 0, 3)
    torch.manual_seed(3)
    found = layer(query, outputs, outputs, residual.clone(), **others)
    result = found[0] if isinstance(found, tuple) else found
    (result * torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view_as(result)).sum().backward()
    gradients = {name: weight.grad for name, weight in layer.named_parameters()}
    return found, gradients | {"query": query.grad, "outputs": stacked.grad, "residual": residual.grad}


@pytest.mark.parametrize("tokens", [5, 40])  # fewer and more tokens than the width: both orders of multiplication
@pytest.mark.parametrize("adapters", [1, 2, 3, 5])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_outputs_weights_and_gradients_are_the_librarys(adapters: int, tokens: int, dropout: float) -> None:
    plain, ours = layers(dropout)
    given = inputs(adapters, tokens)
    (theirs, their_weights), their_gradients = run(plain, given, output_attentions=True)
    (found, weights), gradients = run(ours, given, output_attentions=True)
    torch.testing.assert_close(found, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.tensor(weights), torch.tensor(their_weights), rtol=1e-12, atol=1e-12)
    assert gradients.keys() == their_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-10, atol=1e-11, msg=name)


@pytest.mark.parametrize("tokens", [5, 40])
def test_folded_fusion_is_the_librarys(tokens: int) -> None:
    plain, ours = layers()
    given = inputs(3, tokens)
    (theirs, their_weights), _ = run(plain, given, output_attentions=True)
    folded = FoldedFusion(ours)
    assert {name for name, _ in folded.named_parameters() if name.startswith(("query", "key"))} == set()
    (found, weights), _ = run(folded, given, output_attentions=True)
    torch.testing.assert_close(found, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.tensor(weights), torch.tensor(their_weights), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tokens", [5, 40])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_lower_precision_stays_close(dtype: torch.dtype, tolerance: float, tokens: int) -> None:
    """Against the library's layer in float64; for bfloat16 under autocast, with float32 weights, as it is trained."""
    plain, _ = layers()
    _, ours = layers(dtype=torch.float32)
    theirs, _ = run(plain, inputs(2, tokens))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
        found, gradients = run(ours, [one.float() for one in inputs(2, tokens)])
    torch.testing.assert_close(found.double(), theirs, rtol=tolerance, atol=tolerance)
    assert all(gradient.dtype == torch.float32 for gradient in gradients.values())


def test_parameters_keep_their_names() -> None:
    plain, ours = layers()
    assert ours.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(one, plain.state_dict()[name]) for name, one in ours.state_dict().items())


@pytest.mark.parametrize(
    "changed", [{"temperature": True}, {"residual_before": True}, {"value": False}, {"query": False}, {"key": False}]
)
def test_other_kinds_of_fusion_stay_the_librarys(changed: dict[str, bool]) -> None:
    assert FusionLayer.can_replace(BertFusion(DYNAMIC, WIDTH, 0.0))
    assert FusionLayer.can_replace(BertFusion(DYNAMIC.replace(value_before_softmax=False), WIDTH, 0.0))
    assert not FusionLayer.can_replace(BertFusion(DYNAMIC.replace(**changed), WIDTH, 0.0))


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

"""AdapterFusion (Pfeiffer et al., 2021, arXiv 2005.00247, section 3.2), exact and with a fraction of the arithmetic.

The library multiplies every adapter's output u by the key and the value matrix: (1 + 2N)h² multiply-adds a token and
layer for N adapters of width h. But u = U z + b, with z of few dimensions, and scores and mixture are linear in it, so
that the matrices can be multiplied by U and b, once a step, in place of every token:

    (Q x + a) · (K u + c) = z · (KU)ᵀ(Q x + a) + (K b + c) · (Q x + a)          Σ p V u = Σ p (VU z + V b)

With R the dimensions of all z together and one more for each adapter, that is 2Rh a token, a quarter of h² for two
adapters of reduction 16, and 3Rh² a step. The library's up-projections, Rh a token, are not needed either.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from types import MethodType
from typing import Any

import torch
from adapters import Fuse
from adapters.context import ForwardContext
from adapters.methods.bottleneck import BottleneckLayer, BottleneckState
from adapters.methods.modeling import Adapter, BertFusion
from torch import nn

REGULARIZATION = 0.01  # of value matrices towards the identity; the reference implementation's constant


def use_fast_fusion(place: BottleneckLayer, name: str) -> None:
    """Puts `FusionLayer` in place of the library's layer, where it computes the same.

    Args:
        place: has the fusion and its adapters.
        name: of the fusion.
    """
    layer = place.adapter_fusion_layer[name]
    if FusionLayer.can_replace(layer, _fused(place, name.split(","))):
        place.adapter_fusion_layer[name] = FusionLayer(layer)
        place.compose_fuse = MethodType(compose_fuse, place)


def use_inference_fusion(model: nn.Module) -> None:
    """Puts `InferenceFusion` in place of every `FusionLayer`; the model can no longer train."""
    for place in model.modules():
        if isinstance(place, BottleneckLayer):
            for name, layer in place.adapter_fusion_layer.items():
                if type(layer) is FusionLayer:
                    place.adapter_fusion_layer[name] = InferenceFusion(layer, _fused(place, name.split(",")))


def _fused(place: BottleneckLayer, names: Iterable[str]) -> list[Adapter]:
    """Those of the named adapters that stand at a place."""
    return [place.adapters[name] for name in names if name in place.adapters]


def compose_fuse(place: BottleneckLayer, setup: Fuse, state: BottleneckState, lvl: int = 0) -> BottleneckState:
    """What the library calls at a place with a fusion; in place of its own method, which wants the adapters' outputs.

    As there, the last adapter's configuration says what query and residual are.
    """
    config, _ = place.adapters_config.get_fusion(setup.name)
    hidden, query, residual = place.adapters[setup.last()].pre_forward(
        state.hidden_states, state.input_tensor, state.layer_norm, fusion_config=config
    )
    fusion = place.adapter_fusion_layer[setup.name]
    mixed, weights = fusion(query, hidden, _fused(place, setup), residual)
    if ForwardContext.get_context().output_adapter_fusion_attentions:
        place._store_fusion_attentions(setup.name, weights.detach().cpu().numpy())
    return state._replace(hidden_states=mixed, adapter_residual=residual, last=setup.last())


class FusionLayer(nn.Module):
    """The library's fusion layer with the same parameters under the same names, in cheaper arithmetic.

    Args:
        layer: the library's layer, whose parameters are taken over; `can_replace` must hold.
    """

    def __init__(self, layer: BertFusion):
        super().__init__()
        self.query, self.key, self.value, self.dropout = layer.query, layer.key, layer.value, layer.dropout

    @staticmethod
    def can_replace(layer: BertFusion, fused: Sequence[Adapter]) -> bool:
        """Whether a layer is the dynamic fusion of the paper, without temperature and with the residual added last, and
        its adapters are linear from their bottleneck on: neither hypercomplex products nor layers left out at random.
        """
        config = layer.config
        whole = config["query"] and config["key"] and config["value"]
        plain = not config["temperature"] and not config["residual_before"]
        linear = all(isinstance(one.adapter_up, nn.Linear) and "DropPath" not in one._modules for one in fused)
        return bool(whole and plain and linear)

    def forward(
        self, query: torch.Tensor, hidden: torch.Tensor, fused: Sequence[Adapter], residual: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixes what adapters make of a layer's output.

        Args:
            query: (batch, tokens, h), what the adapters are chosen by.
            hidden: (batch, tokens, h), what goes into them.
            fused: the N adapters.
            residual: (batch, tokens, h), added to the mixture.

        Returns:
            (batch, tokens, h), and the weights of the adapters, (batch, tokens, N).
        """
        inner = [one.adapter_down(hidden) for one in fused]
        ranks = [one.shape[-1] for one in inner]
        projection, constant, directions = self._products(fused)
        asked = nn.functional.linear(query, projection, constant)
        parts = asked.split([*ranks, len(fused)], -1)
        scores = torch.stack([(one * part).sum(-1) for one, part in zip(inner, parts, strict=False)], -1) + parts[-1]
        weights = torch.softmax(self.dropout(scores), -1)
        weighed = [one * weights[..., index : index + 1] for index, one in enumerate(inner)]
        return torch.cat([*weighed, weights], -1) @ directions + residual, weights

    def _products(self, fused: Sequence[Adapter]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of query and key with the up-projections and their biases, (R, h) and (R,); of value with them, (R, h)."""
        ups = torch.cat([one.adapter_up.weight.t() * one.scaling for one in fused])
        biases = torch.stack([one.adapter_up.bias * one.scaling for one in fused])
        keys = torch.cat([nn.functional.linear(ups, self.key.weight), self.key(biases)])
        return keys @ self.query.weight, keys @ self.query.bias, self.value(torch.cat([ups, biases]))


class InferenceFusion(FusionLayer):
    """`FusionLayer` in a model that trains no more, nor do its adapters: all matrices are multiplied out once.

    Args:
        layer: the layer.
        fused: the adapters it will be called with.
    """

    projection: torch.Tensor
    constant: torch.Tensor
    directions: torch.Tensor

    def __init__(self, layer: FusionLayer, fused: Sequence[Adapter]):
        nn.Module.__init__(self)
        self.dropout = layer.dropout
        with torch.no_grad():
            products = copy.deepcopy(layer).double()._products([copy.deepcopy(one).double() for one in fused])
        for name, product in zip(("projection", "constant", "directions"), products, strict=True):
            self.register_buffer(name, product.to(layer.value.weight))

    def _products(self, fused: Sequence[Adapter]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.projection, self.constant, self.directions


class IdentityRegularizer(torch.autograd.Function):
    """Σ (V − I)² = Σ V² − 2 tr V + h, summed in float64, and its gradient 2(V − I); no other h×h tensor is made."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
        """The sum, a scalar of the dtype of the weight."""
        ctx.save_for_backward(weight)
        squares = torch.linalg.vector_norm(weight, dtype=torch.float64).square()
        return (squares - 2 * weight.diagonal().double().sum() + weight.shape[0]).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> torch.Tensor:
        """2(V − I), scaled."""
        (weight,) = ctx.saved_tensors
        scale = 2 * outer[0]
        gradient = weight * scale
        gradient.diagonal().sub_(scale)
        return gradient


def fusion_regularization(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """0.01 · Σ ‖V − I‖² over value matrices, (h, h) each: a scalar (AdapterFusion's reference implementation)."""
    pulls = [IdentityRegularizer.apply(weight) for weight in values]
    return REGULARIZATION * torch.stack(pulls).sum()

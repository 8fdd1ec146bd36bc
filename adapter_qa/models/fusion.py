"""AdapterFusion (Pfeiffer et al., 2021, arXiv 2005.00247, section 3.2): the same function with less arithmetic.

The library multiplies the output u of every adapter by the key and value matrices: (1 + 2N)h² multiply-adds for each
token and layer, for N adapters and width h. But u = U z + b is linear in the bottleneck z, and scores and mixture are
linear in u. So the matrices are multiplied by U and b once per step, and not by every token:

    scores   (Q x + a) · (K u + c) = z · (K U)ᵀ(Q x + a) + (K b + c) · (Q x + a)
    mixture  Σ p V u = Σ p (V U z + V b)

With R, the sum of all bottleneck sizes plus one for each adapter, this takes 2Rh multiply-adds for each token and 3Rh²
for each step. For two adapters of reduction 16, 2Rh is a quarter of h². The up-projections, Rh for each token, are
saved as well.
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

REGULARIZATION = 0.01  # weight of `fusion_regularization`; from AdapterFusion's reference implementation


def use_fast_fusion(site: BottleneckLayer, fusion_name: str) -> None:
    """Replace the library's fusion layer at an adapter site by a `FusionLayer`, if it computes the same function."""
    layer = site.adapter_fusion_layer[fusion_name]
    if FusionLayer.can_replace(layer, _fused_adapters(site, fusion_name.split(","))):
        site.adapter_fusion_layer[fusion_name] = FusionLayer(layer)
        site.compose_fuse = MethodType(compose_fuse, site)


def use_inference_fusion(model: nn.Module) -> None:
    """Replace every `FusionLayer` of a model by an `InferenceFusion`. The model can no longer be trained."""
    for site in model.modules():
        if isinstance(site, BottleneckLayer):
            for name, layer in site.adapter_fusion_layer.items():
                if type(layer) is FusionLayer:
                    site.adapter_fusion_layer[name] = InferenceFusion(layer, _fused_adapters(site, name.split(",")))


def _fused_adapters(site: BottleneckLayer, names: Iterable[str]) -> list[Adapter]:
    return [site.adapters[name] for name in names if name in site.adapters]


def compose_fuse(site: BottleneckLayer, setup: Fuse, state: BottleneckState, lvl: int = 0) -> BottleneckState:
    """Apply a fusion at an adapter site.

    It replaces the library's method of this name, which needs the outputs of all adapters. Like the library's, it
    takes query and residual as the configuration of the last adapter says.
    """
    config, _ = site.adapters_config.get_fusion(setup.name)
    hidden, query, residual = site.adapters[setup.last()].pre_forward(
        state.hidden_states, state.input_tensor, state.layer_norm, fusion_config=config
    )
    fusion = site.adapter_fusion_layer[setup.name]
    mixed, weights = fusion(query, hidden, _fused_adapters(site, setup), residual)
    if ForwardContext.get_context().output_adapter_fusion_attentions:
        site._store_fusion_attentions(setup.name, weights.detach().cpu().numpy())  # noqa: SLF001, as the library does
    return state._replace(hidden_states=mixed, adapter_residual=residual, last=setup.last())


class FusionLayer(nn.Module):
    """A fusion layer with the parameters of the library's layer, under the same names, and less arithmetic."""

    def __init__(self, layer: BertFusion):
        super().__init__()
        self.query, self.key, self.value, self.dropout = layer.query, layer.key, layer.value, layer.dropout

    @staticmethod
    def can_replace(layer: BertFusion, adapters: Sequence[Adapter]) -> bool:
        """Return whether a `FusionLayer` computes the same function as a layer of the library.

        The layer must be the paper's dynamic fusion, without temperature, with the residual added to the mixture. Its
        adapters must be linear from the bottleneck on: without hypercomplex products and stochastic depth.
        """
        config = layer.config
        has_all_matrices = config["query"] and config["key"] and config["value"]
        is_plain = not config["temperature"] and not config["residual_before"]
        is_linear = all(
            isinstance(adapter.adapter_up, nn.Linear) and not hasattr(adapter, "DropPath") for adapter in adapters
        )
        return bool(has_all_matrices and is_plain and is_linear)

    def forward(
        self, query: torch.Tensor, hidden: torch.Tensor, adapters: Sequence[Adapter], residual: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix the outputs of the adapters.

        Args:
            query: (batch, tokens, h), by which the adapters are weighted.
            hidden: (batch, tokens, h), the adapters' input.
            adapters: the N adapters.
            residual: (batch, tokens, h), added to the mixture.

        Returns:
            The mixture, (batch, tokens, h), and the weights of the adapters, (batch, tokens, N).
        """
        bottlenecks = [adapter.adapter_down(hidden) for adapter in adapters]
        sizes = [bottleneck.shape[-1] for bottleneck in bottlenecks]
        projection, constant, directions = self._products(adapters)
        projected = nn.functional.linear(query, projection, constant)
        *queries, bias_scores = torch.split(projected, [*sizes, len(adapters)], -1)
        products = [(bottleneck * part).sum(-1) for bottleneck, part in zip(bottlenecks, queries, strict=True)]
        scores = torch.stack(products, -1) + bias_scores
        weights = torch.softmax(self.dropout(scores), -1)
        weighted = [bottleneck * weights[..., index : index + 1] for index, bottleneck in enumerate(bottlenecks)]
        return torch.cat([*weighted, weights], -1) @ directions + residual, weights

    def _products(self, adapters: Sequence[Adapter]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Multiply the matrices by the adapters' up-projections and biases.

        Returns:
            [KU, Kb + c]ᵀQ, (R, h); [KU, Kb + c]ᵀa, (R,); and [VU, Vb]ᵀ, (R, h).
        """
        ups = torch.cat([adapter.adapter_up.weight.t() * adapter.scaling for adapter in adapters])
        biases = torch.stack([adapter.adapter_up.bias * adapter.scaling for adapter in adapters])
        keys = torch.cat([nn.functional.linear(ups, self.key.weight), self.key(biases)])
        return keys @ self.query.weight, keys @ self.query.bias, self.value(torch.cat([ups, biases]))


class InferenceFusion(FusionLayer):
    """A `FusionLayer` whose matrix products are computed once, for a model that is no longer trained."""

    projection: torch.Tensor
    constant: torch.Tensor
    directions: torch.Tensor

    def __init__(self, layer: FusionLayer, adapters: Sequence[Adapter]):
        nn.Module.__init__(self)  # FusionLayer.__init__ would register the matrices, which are not needed
        self.dropout = layer.dropout
        double_adapters = [copy.deepcopy(adapter).double() for adapter in adapters]
        with torch.no_grad():
            products = copy.deepcopy(layer).double()._products(double_adapters)  # noqa: SLF001, a method of the base class
        for name, product in zip(("projection", "constant", "directions"), products, strict=True):
            self.register_buffer(name, product.to(layer.value.weight))

    def _products(self, adapters: Sequence[Adapter]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.projection, self.constant, self.directions


class IdentityRegularizer(torch.autograd.Function):
    """‖V - I‖² of a matrix V, with its own gradient, which needs no other (h, h) tensor.

    ‖V - I‖² = ΣV² - 2 tr V + h, summed in float64; its gradient is 2(V - I).
    """

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
        """Return the value for a weight of shape (h, h): a scalar of the same dtype."""
        ctx.save_for_backward(weight)
        squares = torch.linalg.vector_norm(weight, dtype=torch.float64).square()
        value: torch.Tensor = squares - 2 * weight.diagonal().double().sum() + weight.shape[0]
        return value.to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the weight, (h, h)."""
        (weight,) = ctx.saved_tensors
        scale = 2 * grad_outputs[0]
        gradient: torch.Tensor = weight * scale
        gradient.diagonal().sub_(scale)
        return gradient


def fusion_regularization(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return 0.01 · Σ ‖V - I‖², a scalar, over value matrices of shape (h, h).

    It keeps the mixture close to the adapters' outputs (AdapterFusion's reference implementation).
    """
    distances = [IdentityRegularizer.apply(weight) for weight in values]
    return REGULARIZATION * torch.stack(distances).sum()

"""The arithmetic of AdapterFusion (Pfeiffer et al., 2021, arXiv 2005.00247, section 3.2), exact and with less of it.

The library multiplies every adapter's output by the key and the value matrix: (1 + 2N)h² multiply-adds a token and
layer for N adapters of width h. Scores and mixture are linear in those outputs, so the matrices can change sides:

    (Q x + a) · (K u + b) = (Kᵀ(Q x + a)) · u + (Q x + a) · b          Σ p (V u) = V (Σ p u)

which is 3h² for any N. With more tokens than h, KᵀQ is multiplied out first: 2h² a token, and h³ once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from adapters.methods.modeling import BertFusion
from torch import nn

REGULARIZATION = 0.01  # of value matrices towards the identity; the reference implementation's constant


class FusionLayer(nn.Module):
    """The library's fusion layer with the same parameters under the same names, in cheaper arithmetic.

    Args:
        layer: the library's layer, whose parameters are taken over; `can_replace` must hold.
    """

    def __init__(self, layer: BertFusion):
        super().__init__()
        self.query, self.key, self.value, self.dropout = layer.query, layer.key, layer.value, layer.dropout

    @staticmethod
    def can_replace(layer: nn.Module) -> bool:
        """Whether a layer is the dynamic fusion of the paper, without temperature and with the residual added last."""
        if not isinstance(layer, BertFusion):
            return False
        config = layer.config
        whole = config["query"] and config["key"] and config["value"]
        return bool(whole and not config["temperature"] and not config["residual_before"])

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        residual: torch.Tensor,
        output_attentions: bool = False,
    ) -> Any:
        """As the library calls it.

        Args:
            query: (batch, tokens, h), the layer's output before the adapters.
            key, value: (batch, tokens, N, h), the same tensor twice: what the N adapters put out.
            residual: (batch, tokens, h).
            output_attentions: also return the weights, a numpy array (batch, tokens, N).

        Returns:
            (batch, tokens, h), of the residual's dtype; with the weights as second element where they are asked for.
        """
        outputs = key.unbind(2)
        projected, constant = self._projected(query)
        scores = torch.stack([(one * projected).sum(-1) for one in outputs], -1) + constant.unsqueeze(-1)
        weights = torch.softmax(self.dropout(scores), -1)
        mixture = outputs[0] * weights[..., 0:1]
        for index, one in enumerate(outputs[1:], 1):
            mixture = torch.addcmul(mixture, one, weights[..., index : index + 1].to(one))
        context = self.value(mixture) + residual
        return (context, weights.detach().cpu().numpy()) if output_attentions else context

    def _projected(self, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Kᵀ(Q x + a), (batch, tokens, h), and (Q x + a) · b, (batch, tokens)."""
        width = query.shape[-1]
        if query.shape[0] * query.shape[1] <= width:
            asked = self.query(query)
            return asked @ self.key.weight.to(asked), asked @ self.key.bias.to(asked)
        joined = self.key.weight.t() @ self.query.weight
        projected = nn.functional.linear(query, joined, self.key.weight.t() @ self.query.bias)
        constant = query @ (self.query.weight.t() @ self.key.bias).to(query) + self.query.bias @ self.key.bias
        return projected, constant


class FoldedFusion(FusionLayer):
    """`FusionLayer` in a model that trains no more: KᵀQ is multiplied out once, which leaves 2h² a token.

    Args:
        layer: the layer; its value matrix is shared.
    """

    def __init__(self, layer: FusionLayer):
        nn.Module.__init__(self)
        self.value, self.dropout = layer.value, layer.dropout
        width = layer.query.in_features
        self.joined = nn.Linear(width, width).to(layer.value.weight)
        self.constant = nn.Linear(width, 1).to(layer.value.weight)
        query, asked, key, held = (
            weight.detach().double()
            for weight in (layer.query.weight, layer.query.bias, layer.key.weight, layer.key.bias)
        )
        with torch.no_grad():
            self.joined.weight.copy_(key.t() @ query)
            self.joined.bias.copy_(key.t() @ asked)
            self.constant.weight.copy_(held @ query)
            self.constant.bias.copy_(held @ asked)

    def _projected(self, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.joined(query), self.constant(query).squeeze(-1)


class _PullToIdentity(torch.autograd.Function):
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
    pulls = [_PullToIdentity.apply(weight) for weight in values]
    return REGULARIZATION * torch.stack(pulls).sum()

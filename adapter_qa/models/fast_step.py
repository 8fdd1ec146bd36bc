"""A training step of an encoder with less work on a CPU.

Beside the matrix products of its linear layers, PyTorch's step on a CPU spends most of its time on dropout masks and on
attention. Here

- a dropout mask comes from random bytes, eight from one 64-bit number, so the probability p is rounded to n/256;
- attention has its own forward and backward pass: with dropout, the general kernel falls back to a slow one;
- query, key and value of a layer are one matrix product.

In evaluation mode the encoder computes as without it, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.bert.modeling_bert import BertSelfAttention
from transformers.models.roberta.modeling_roberta import RobertaSelfAttention
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaSelfAttention

from adapter_qa.models.low_rank import has_low_rank

BYTE_VALUES = 256
# Encoders whose self-attention is softmax(QKᵀ/√d + mask)V with dropout on the softmax, and the module that computes it.
SELF_ATTENTION: dict[str, type[nn.Module]] = {
    "bert": BertSelfAttention,
    "roberta": RobertaSelfAttention,
    "xlm-roberta": XLMRobertaSelfAttention,
}


def has_fast_step(config: Any) -> bool:
    """Return whether the encoder of a configuration has a fast step."""
    return config.model_type in SELF_ATTENTION and config.position_embedding_type == "absolute"


def use_fast_step(model: PreTrainedModel) -> None:
    """Give a model on the CPU the fast step of its encoder, after its adapters are added and its weights are frozen.

    Raises:
        ValueError: the encoder has none (`has_fast_step`).
    """
    if not has_fast_step(model.config):
        raise ValueError(f"{model.config.model_type}: has no fast step")
    _replace_dropout(model)
    for module in model.modules():
        if isinstance(module, SELF_ATTENTION[model.config.model_type]):
            _replace_attention(module)


def dropout_probabilities(model: nn.Module) -> list[float]:
    """Return the distinct dropout probabilities of a model above 0, in order."""
    return sorted({module.p for module in model.modules() if isinstance(module, nn.Dropout)} - {0.0})


# ---------------------------------------------------------------- dropout


class Dropout(NamedTuple):
    """A dropout probability of n/256.

    Attributes:
        threshold: n; a random byte below it drops an element.
    """

    threshold: int

    @classmethod
    def nearest(cls, probability: float) -> Dropout:
        """Return the probability next to a given one, 0 to 1; the largest is 255/256."""
        return cls(min(round(probability * BYTE_VALUES), BYTE_VALUES - 1))

    @property
    def probability(self) -> float:
        """The probability of 0."""
        return self.threshold / BYTE_VALUES

    @property
    def scale(self) -> float:
        """The factor of the elements that stay."""
        return BYTE_VALUES / (BYTE_VALUES - self.threshold)

    def draw_mask(self, shape: torch.Size) -> torch.Tensor:
        """Return a uint8 tensor of 0 and 1, from PyTorch's random generator."""
        size = math.prod(shape)
        numbers = torch.empty(-(-size // 8), dtype=torch.int64).random_(-(2**63), None)
        return numbers.view(torch.uint8)[:size].ge(self.threshold).view(torch.uint8).view(shape)


class _DropoutFunction(torch.autograd.Function):
    """x · mask · scale. The mask of one byte an element is all that is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, dropout: Dropout) -> torch.Tensor:
        """Return the tensor with dropped elements, in its dtype."""
        mask = dropout.draw_mask(hidden.shape)
        ctx.save_for_backward(mask)
        ctx.scale = dropout.scale
        return mask.to(hidden.dtype).mul_(dropout.scale).mul_(hidden)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient of the input."""
        (mask,) = ctx.saved_tensors
        return mask.to(grad_outputs[0].dtype).mul_(ctx.scale).mul_(grad_outputs[0]), None


class ByteDropout(nn.Dropout):
    """Dropout with a probability of n/256 and cheap masks."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the input in evaluation mode or with p = 0, else the input with dropped elements."""
        dropout = Dropout.nearest(self.p)
        if not self.training or not dropout.threshold:
            return input
        dropped: torch.Tensor = _DropoutFunction.apply(input, dropout)
        return dropped


def _replace_dropout(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout:
                setattr(parent, name, ByteDropout(Dropout.nearest(child.p).probability))


# ---------------------------------------------------------------- attention


class _AttentionFunction(torch.autograd.Function):
    """dropout(softmax(QKᵀ/√d + mask)) V for all heads, with a backward pass from the softmax and the dropout mask.

    With P the softmax, M the dropout mask, s its scale and O = s (P∘M) V, the gradients are
    dV = s (P∘M)ᵀ dO, dP = s (dO Vᵀ)∘M, dS = P∘(dP - Σ dP∘P), dQ = dS K/√d and dK = dSᵀ Q/√d.
    """

    @staticmethod
    def forward(
        ctx: Any, projected: torch.Tensor, mask: torch.Tensor | None, heads: int, dropout: Dropout
    ) -> torch.Tensor:
        """Return the output of the heads, side by side.

        Args:
            ctx: keeps tensors for the backward pass.
            projected: (batch, tokens, 3h), queries, keys and values.
            mask: (batch, 1, 1, tokens), added to the scores; None if no token is masked.
            heads: number of heads.
            dropout: on the softmax.

        Returns:
            (batch, tokens, h).
        """
        batch, tokens, width = projected.shape
        size = width // 3 // heads
        by_head = projected.view(batch, tokens, 3, heads, size).permute(2, 0, 3, 1, 4)
        query, key, value = by_head.reshape(3, batch * heads, tokens, size)
        if mask is None:
            scores = _scaled_product(query, key.transpose(1, 2), size**-0.5)
        else:
            by_row = mask.to(query.dtype).expand(batch, heads, tokens, tokens).contiguous()
            scores = by_row.view(-1, tokens, tokens)
            scores.baddbmm_(query, key.transpose(1, 2), alpha=size**-0.5)
        weights = torch.softmax(scores, -1)
        kept = dropout.draw_mask(weights.shape) if dropout.threshold else None
        dropped = weights if kept is None else torch.mul(kept.to(weights.dtype), weights, out=scores)
        ctx.save_for_backward(query, key, value, weights, kept)
        ctx.heads, ctx.scale = heads, dropout.scale
        output = _scaled_product(dropped, value, dropout.scale)
        return output.view(batch, heads, tokens, size).transpose(1, 2).reshape(batch, tokens, -1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """Return the gradient of `projected`, (batch, tokens, 3h)."""
        query, key, value, weights, kept = ctx.saved_tensors
        batch, tokens, width = grad_outputs[0].shape
        size = width // ctx.heads
        by_head = grad_outputs[0].reshape(batch, tokens, ctx.heads, size).transpose(1, 2)
        grad = by_head.reshape(batch * ctx.heads, tokens, size)
        gradients = grad.new_empty(3, *query.shape)
        dropped, grad_weights = weights, _scaled_product(grad, value.transpose(1, 2), ctx.scale)
        if kept is not None:
            mask = kept.to(weights.dtype)
            grad_weights.mul_(mask)
            dropped = mask.mul_(weights)
        _scaled_product(dropped.transpose(1, 2), grad, ctx.scale, out=gradients[2])
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)  # noqa: SLF001, no public one
        _scaled_product(grad_scores, key, size**-0.5, out=gradients[0])
        _scaled_product(grad_scores.transpose(1, 2), query, size**-0.5, out=gradients[1])
        by_token = gradients.view(3, batch, ctx.heads, tokens, size).permute(1, 3, 0, 2, 4)
        return by_token.reshape(batch, tokens, 3 * width), None, None, None


def _scaled_product(
    left: torch.Tensor, right: torch.Tensor, scale: float, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the batch of matrix products times a number, which costs no pass of its own."""
    ignored = left.new_empty(())
    return torch.baddbmm(ignored, left, right, beta=0, alpha=scale, out=out)


def _replace_attention(module: Any) -> None:
    """Give a self-attention module of `SELF_ATTENTION` the fast forward pass for training mode."""
    plain = module.forward
    projections = (module.query, module.key, module.value)
    frozen = _joined_in_place(projections) if not module.query.weight.requires_grad else None

    def forward(
        hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **arguments: Any
    ) -> tuple[torch.Tensor, None]:
        if not module.training:
            result: tuple[torch.Tensor, None] = plain(hidden_states, attention_mask, **arguments)
            return result
        if any(map(has_low_rank, projections)):
            projected = torch.cat([projection(hidden_states) for projection in projections], -1)
            if torch.is_autocast_enabled("cpu"):  # (IA)3 leaves its products in float32
                projected = projected.to(torch.get_autocast_dtype("cpu"))
        else:
            projected = nn.functional.linear(hidden_states, *(frozen or _joined(projections)))
        mask = None if attention_mask is None else attention_mask[:, :, :1]  # all rows are the same
        dropout = Dropout.nearest(module.dropout.p)
        return _AttentionFunction.apply(projected, mask, module.num_attention_heads, dropout), None

    module.forward = forward


def _joined(projections: Sequence[nn.Linear]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights and the biases of query, key and value as one weight, (3h, h), and one bias, (3h,)."""
    return (
        torch.cat([projection.weight for projection in projections]),
        torch.cat([projection.bias for projection in projections]),
    )


def _joined_in_place(projections: Sequence[nn.Linear]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `_joined` returns for frozen weights, which become parts of the same memory."""
    weight, bias = (tensor.detach() for tensor in _joined(projections))
    for number, projection in enumerate(projections):
        rows = slice(number * projection.out_features, (number + 1) * projection.out_features)
        projection.weight.data, projection.bias.data = weight[rows], bias[rows]
    return weight, bias

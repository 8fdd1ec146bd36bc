"""A training step of an encoder with less work on a CPU.

Beside the matrix products of its linear layers, PyTorch's step on a CPU spends most of its time on dropout masks and on
attention. Here

- a dropout mask comes from random bytes, eight from one 64-bit number, so the probability p is rounded to n/256;
- attention has its own forward and backward pass: with dropout, the general kernel falls back to a slow one;
- query, key and value of a layer are one matrix product;
- a layer whose tokens attend to near tokens only computes no scores of distant ones.

In evaluation mode the encoder computes as without it, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from adapters.models.albert.mixin_albert import AlbertAttentionAdaptersMixin
from torch import nn
from transformers import PreTrainedModel

from adapter_qa.models.low_rank import has_low_rank

BYTE_VALUES = 256
LONGEST = 512  # tokens; without dropout, PyTorch's kernel is faster and takes less memory from about here on


def has_fast_step(config: Any) -> bool:
    """Return whether the encoder of a configuration has a fast step."""
    if config.model_type in DROPOUT_ONLY:
        return True
    attention = SELF_ATTENTION.get(config.model_type)
    return attention is not None and (not attention.has_relative_kinds or config.position_embedding_type == "absolute")


def use_fast_step(model: PreTrainedModel) -> None:
    """Give a model on the CPU the fast step of its encoder, after its adapters are added and its weights are frozen.

    Raises:
        ValueError: the encoder has none (`has_fast_step`).
    """
    if not has_fast_step(model.config):
        raise ValueError(f"{model.config.model_type}: has no fast step")
    _replace_dropout(model)
    if model.config.model_type in DROPOUT_ONLY:
        return
    attention = SELF_ATTENTION[model.config.model_type]
    for module in model.modules():
        if attention.module in (kind.__name__ for kind in type(module).__mro__):
            _replace_attention(module, attention)


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


class Attention(NamedTuple):
    """What attention computes, beside its tensors.

    Attributes:
        heads: number of heads.
        dropout: on the softmax.
        window: tokens on each side that a token attends to; None: all tokens.
    """

    heads: int
    dropout: Dropout
    window: int | None = None


class _AttentionFunction(torch.autograd.Function):
    """dropout(softmax(QKᵀ/√d + mask)) V for all heads, with a backward pass from the softmax and the dropout mask.

    With P the softmax, M the dropout mask, s its scale and O = s (P∘M) V, the gradients are
    dV = s (P∘M)ᵀ dO, dP = s (dO Vᵀ)∘M, dS = P∘(dP - Σ dP∘P), dQ = dS K/√d and dK = dSᵀ Q/√d.

    With a window of w, queries are in blocks of w tokens. A block needs the keys of three blocks: its own and its two
    neighbours. The blocks of all heads lie one after the other, so these keys are a view. Next to the first and the
    last block of a head lies another head, which the mask leaves out.
    """

    @staticmethod
    def forward(
        ctx: Any, projected: torch.Tensor, mask: torch.Tensor | None, rotary: torch.Tensor | None, attention: Attention
    ) -> torch.Tensor:
        """Return the output of the heads, side by side.

        Args:
            ctx: keeps tensors for the backward pass.
            projected: (batch, tokens, 3h), queries, keys and values.
            mask: (batch, 1, 1 or tokens, tokens), added to the scores; (batch, 1, 1, tokens) with a window; None if no
                token is masked.
            rotary: (2, batch or 1, 1, tokens, d), cosine and sine of rotary embeddings; None if there are none.
            attention: heads, dropout and window.

        Returns:
            (batch, tokens, h).
        """
        batch, tokens, width = projected.shape
        heads, dropout, window = attention
        size = width // 3 // heads
        by_head = projected.view(batch, tokens, 3, heads, size).permute(2, 0, 3, 1, 4)
        if rotary is not None:
            by_head = torch.cat([_rotated(by_head[:2], *rotary), by_head[2:]])
        blocks = _blocks(by_head, window)
        query, key, value = blocks[0], _around(blocks[1], window), _around(blocks[2], window)
        scores = query.new_empty(len(query), query.shape[1], key.shape[1])
        if mask is None:
            _scaled_product(query, key.transpose(1, 2), size**-0.5, out=scores)
        else:
            by_block = _block_mask(mask, window, torch.finfo(query.dtype).min)
            scores.view(batch, heads, -1, *scores.shape[1:]).copy_(by_block)
            scores.baddbmm_(query, key.transpose(1, 2), alpha=size**-0.5)
        weights = torch.softmax(scores, -1)
        kept = dropout.draw_mask(weights.shape) if dropout.threshold else None
        dropped = weights if kept is None else torch.mul(kept.to(weights.dtype), weights, out=scores)
        ctx.save_for_backward(blocks, weights, kept, rotary)
        ctx.attention = attention
        output = _scaled_product(dropped, value, dropout.scale)
        by_token = output.view(batch, heads, -1, size)[:, :, :tokens].transpose(1, 2)
        return by_token.reshape(batch, tokens, -1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """Return the gradient of `projected`, (batch, tokens, 3h)."""
        blocks, weights, kept, rotary = ctx.saved_tensors
        heads, dropout, window = ctx.attention
        batch, tokens, width = grad_outputs[0].shape
        size = width // heads
        query, key, value = blocks[0], _around(blocks[1], window), _around(blocks[2], window)
        (grad,) = _blocks(grad_outputs[0].view(batch, tokens, 1, heads, size).permute(2, 0, 3, 1, 4), window)
        gradients = torch.empty_like(blocks)
        dropped, grad_weights = weights, _scaled_product(grad, value.transpose(1, 2), dropout.scale)
        if kept is not None:
            mask = kept.to(weights.dtype)
            grad_weights.mul_(mask)
            dropped = mask.mul_(weights)
        _sum_around(dropped.transpose(1, 2), grad, dropout.scale, out=gradients[2])
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)  # noqa: SLF001, no public one
        _scaled_product(grad_scores, key, size**-0.5, out=gradients[0])
        _sum_around(grad_scores.transpose(1, 2), query, size**-0.5, out=gradients[1])
        by_head = gradients.view(3, batch, heads, -1, size)[..., :tokens, :]
        if rotary is not None:
            by_head = torch.cat([_rotated(by_head[:2], rotary[0], -rotary[1]), by_head[2:]])
        return by_head.permute(1, 3, 0, 2, 4).reshape(batch, tokens, 3 * width), None, None, None


def _scaled_product(
    left: torch.Tensor, right: torch.Tensor, scale: float, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the batch of matrix products times a number, which costs no pass of its own."""
    ignored = left.new_empty(())
    return torch.baddbmm(ignored, left, right, beta=0, alpha=scale, out=out)


def _rotated(by_head: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Return rotary embeddings applied to queries and keys, (2, batch, heads, tokens, d).

    `cosine` and `sine` are (batch or 1, 1, tokens, d). With -sine, this is the backward pass.
    """
    half = by_head.shape[-1] // 2
    rotated = by_head * cosine
    rotated[..., :half].addcmul_(by_head[..., half:], sine[..., :half], value=-1)
    rotated[..., half:].addcmul_(by_head[..., :half], sine[..., half:])
    return rotated


def _blocks(by_head: torch.Tensor, window: int | None) -> torch.Tensor:
    """Return (n, blocks, tokens of a block, d) of (n, batch, heads, tokens, d), filled up with 0.

    A block is all tokens of a head, or with a window as many as are in the window.
    """
    tokens, size = by_head.shape[-2:]
    if window is None:
        return by_head.reshape(len(by_head), -1, tokens, size)
    count = -(-tokens // window)
    filled = by_head.new_zeros(*by_head.shape[:3], count * window, size)
    filled[..., :tokens, :] = by_head
    return filled.view(len(by_head), -1, window, size)


def _around(blocks: torch.Tensor, window: int | None) -> torch.Tensor:
    """Return each of (blocks, w, d) between its neighbours, (blocks, 3w, d), with a window of w; else the blocks."""
    if window is None:
        return blocks
    padded = nn.functional.pad(blocks.flatten(0, 1), (0, 0, window, window))
    return padded.unfold(0, 3 * window, window).transpose(1, 2)


def _sum_around(left: torch.Tensor, right: torch.Tensor, scale: float, out: torch.Tensor) -> None:
    """Write the scaled product of a block's keys, (blocks, w, d), as the sum over the blocks that have them."""
    if left.shape[1] == out.shape[1]:
        _scaled_product(left, right, scale, out=out)
        return
    before, own, after = _scaled_product(left, right, scale).chunk(3, 1)
    out.copy_(own)
    out[:-1] += before[1:]
    out[1:] += after[:-1]


def _block_mask(mask: torch.Tensor, window: int | None, smallest: float) -> torch.Tensor:
    """Return (batch, 1, blocks, queries of a block, keys of a block) of the mask of `_AttentionFunction`.

    Padding has the smallest number: a softmax of -inf only is no number. Tokens outside of the window are -inf, so they
    weigh 0 even if the rest of the window is padding. The output of such a query, which is padding itself, has no
    meaning; the library's is another.
    """
    mask = mask.clamp(min=smallest)
    if window is None:
        return mask[:, :, None]
    tokens = mask.shape[-1]
    count = -(-tokens // window)
    keys = nn.functional.pad(mask[:, :, 0], (0, count * window - tokens), value=smallest)
    keys = nn.functional.pad(keys, (window, window), value=-math.inf).unfold(-1, 3 * window, window)
    distance = torch.arange(-window, 2 * window) - torch.arange(window)[:, None]
    return keys[..., None, :].masked_fill(distance.abs() > window, -math.inf)


# ---------------------------------------------------------------- encoders


@dataclass(frozen=True)
class FastAttention:
    """A self-attention module with the fast forward pass.

    Attributes:
        module: the module of the encoder.
        plain: its own forward pass.
        projections: its linear layers, one for query, key and value each, or one for all of them.
        joined: weight and bias of the projections together, if they are frozen.
    """

    module: Any
    plain: Callable[..., Any]
    projections: Sequence[nn.Linear]
    joined: tuple[torch.Tensor, torch.Tensor] | None

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return queries, keys and values of hidden states, (batch, tokens, 3h) of (batch, tokens, h)."""
        if len(self.projections) == 1 or any(map(has_low_rank, self.projections)):
            projected = torch.cat([projection(hidden) for projection in self.projections], -1)
            # (IA)3 leaves its products in float32.
            return projected.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else projected
        return nn.functional.linear(hidden, *(self.joined or _joined(self.projections)))

    def __call__(self, hidden: torch.Tensor, mask: torch.Tensor | None, heads: int, dropout: float) -> torch.Tensor:
        """Return attention between all tokens, before the output projection, (batch, tokens, h).

        Args:
            hidden: (batch, tokens, h).
            mask: (batch, 1, 1 or tokens, tokens), added to the scores, all rows the same; None if no token is masked.
            heads: number of heads.
            dropout: probability of dropout on the softmax.
        """
        keys = None if mask is None else mask[:, :, :1]
        return _attention(self.project(hidden), keys, None, Attention(heads, Dropout.nearest(dropout)))


def _attention(
    projected: torch.Tensor, mask: torch.Tensor | None, rotary: torch.Tensor | None, attention: Attention
) -> torch.Tensor:
    output: torch.Tensor = _AttentionFunction.apply(projected, mask, rotary, attention)
    return output


def _bert(fast: FastAttention, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, **_: Any) -> Any:
    return fast(hidden_states, attention_mask, fast.module.num_attention_heads, fast.module.dropout.p), None


def _albert(fast: FastAttention, hidden: torch.Tensor, mask: torch.Tensor | None = None, *_: Any) -> Any:
    module = fast.module
    heads = fast(hidden, mask, module.num_attention_heads, module.attention_dropout.p)
    output = module.output_dropout(module.dense(heads))
    if isinstance(module, AlbertAttentionAdaptersMixin):
        return (module.attention_adapters(hidden, output, module.LayerNorm),)
    return (module.LayerNorm(hidden + output),)


def _distilbert(fast: FastAttention, *, query: torch.Tensor, mask: torch.Tensor | None, **_: Any) -> Any:
    if mask is not None and mask.dim() == 2:  # 1 at tokens, as the module without a kernel takes it
        mask = torch.zeros_like(query[:, :, 0]).masked_fill(mask == 0, torch.finfo(query.dtype).min)[:, None, None]
    return (fast.module.out_lin(fast(query, mask, fast.module.n_heads, fast.module.dropout.p)),)


def _modernbert(fast: FastAttention, hidden_states: torch.Tensor, **arguments: Any) -> Any:
    module, tokens, dropout = fast.module, hidden_states.shape[1], Dropout.nearest(fast.module.attention_dropout)
    mask, window, reach = arguments["attention_mask"][:, :, :1], None, module.local_attention[0]  # -1: all tokens
    if reach < 0 and tokens > LONGEST and not dropout.threshold:
        return fast.plain(hidden_states, **arguments)
    if reach > 0 and tokens > 4 * reach:
        window = reach
    elif reach >= 0:
        mask = arguments["sliding_window_mask"]
    projected = fast.project(hidden_states)
    rotary = torch.stack(module.rotary_emb(projected, position_ids=arguments["position_ids"]))[:, :, None]
    output = _attention(projected, mask, rotary, Attention(module.num_heads, dropout, window))
    return (module.out_drop(module.Wo(output)),)


class SelfAttention(NamedTuple):
    """The self-attention of an encoder: softmax(QKᵀ/√d + mask)V with dropout on the softmax.

    Attributes:
        module: name of the class of the modules that compute it, or of their base class. The classes are not imported
            here: to import ModernBERT's takes 0.7 s.
        forward: the forward pass of a module in training, of the arguments that its layer gives it.
        projections: names of its linear layers for query, key and value.
        has_relative_kinds: whether the encoder's configuration can ask for relative positions, which are not here.
    """

    module: str
    forward: Callable[..., Any]
    projections: tuple[str, ...] = ("query", "key", "value")
    has_relative_kinds: bool = True


SELF_ATTENTION = {
    "bert": SelfAttention("BertSelfAttention", _bert),
    "roberta": SelfAttention("RobertaSelfAttention", _bert),
    "xlm-roberta": SelfAttention("XLMRobertaSelfAttention", _bert),
    "electra": SelfAttention("ElectraSelfAttention", _bert),
    "albert": SelfAttention("AlbertAttention", _albert),
    "distilbert": SelfAttention("MultiHeadSelfAttention", _distilbert, ("q_lin", "k_lin", "v_lin"), False),
    "modernbert": SelfAttention("ModernBertAttention", _modernbert, ("Wqkv",), False),
}
DROPOUT_ONLY = ("deberta-v2",)  # encoders whose attention is another


def _replace_attention(module: Any, attention: SelfAttention) -> None:
    """Give a self-attention module the fast forward pass for training mode."""
    projections = [module.get_submodule(name) for name in attention.projections]
    is_frozen = len(projections) > 1 and not projections[0].weight.requires_grad
    fast = FastAttention(module, module.forward, projections, _joined_in_place(projections) if is_frozen else None)

    def forward(*inputs: Any, **arguments: Any) -> Any:
        if not module.training:
            return fast.plain(*inputs, **arguments)
        return attention.forward(fast, *inputs, **arguments)

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

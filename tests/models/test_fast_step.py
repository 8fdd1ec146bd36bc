"""The fast step of an encoder (fast_step.py) against the encoder's own, and against formulas in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapters import AdapterConfig
from support.encoder_configs import SIZES, config_with_dropout
from torch import nn
from transformers import (
    AutoModelForQuestionAnswering,
    BertConfig,
    BertForQuestionAnswering,
    PretrainedConfig,
    PreTrainedModel,
)

from adapter_qa.config.options import AdapterOptions, LanguageAdapterOptions
from adapter_qa.models import fast_step
from adapter_qa.models.adapter_model import as_adapter_model
from adapter_qa.models.build import build_setup, cast_frozen_weights
from adapter_qa.models.encoder_adapters import init_adapters
from adapter_qa.models.fast_step import (
    DROPOUT_ONLY,
    SELF_ATTENTION,
    Attention,
    ByteDropout,
    Dropout,
    _AttentionFunction,
    dropout_probabilities,
    has_fast_step,
    use_fast_step,
)
from adapter_qa.models.setup_decisions import resolve_setup

HEADS, TOKENS, WIDTH = 2, 7, 8
ENCODERS = [*SELF_ATTENTION, *DROPOUT_ONLY]


def bert(*, adapters: bool = True, dropout: float = 0.1) -> PreTrainedModel:
    """Return a model for questions with random weights, in training mode."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=200, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **SIZES)
    model: PreTrainedModel = BertForQuestionAnswering(config)
    if adapters:
        setup = resolve_setup(
            "qa",
            config.to_dict(),
            AdapterOptions(adapter_config="houlsby", adapter_reduction_factor=4),
            LanguageAdapterOptions(load_lang_adapter="new"),
            random_init=True,
        )
        assert setup is not None
        build_setup(model, setup)
    model.train()
    return model


def encoder(name: str, *, adapters: bool = True, dropout: float = 0.1, attention: str = "sdpa") -> PreTrainedModel:
    """Return a model for questions of a kind of encoder with random weights, in training mode."""
    torch.manual_seed(0)
    implementation = {} if name in ("electra", "deberta-v2") else {"attn_implementation": attention}  # these have one
    config = config_with_dropout(name, dropout)
    model: PreTrainedModel = AutoModelForQuestionAnswering.from_config(config, **implementation)
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.data.normal_(std=0.1)  # scores of attention that differ
    if adapters:
        init_adapters(model)
        as_adapter_model(model).add_adapter("qa", AdapterConfig.load("double_seq_bn", reduction_factor=4))
        as_adapter_model(model).train_adapter("qa")
    model.train()
    return model


def batch() -> dict[str, torch.Tensor]:
    """Return four windows, three of which have padding."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(200, (4, 24), generator=draw)
    mask = (torch.arange(24) < torch.tensor([24, 20, 11, 6])[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask}


def outputs(model: PreTrainedModel, *, bf16: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits at real tokens and the gradients of the trained weights, float64, one after the other."""
    inputs = batch()
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = model(**inputs)
    logits = torch.stack([output.start_logits, output.end_logits], -1).double()[inputs["attention_mask"] == 1]
    logits.tanh().sum().backward()
    gradients = [weight.grad.double().flatten() for weight in model.parameters() if weight.grad is not None]
    return logits.detach(), torch.cat(gradients)


def distance(values: torch.Tensor, exact: torch.Tensor) -> float:
    return float((values - exact).norm() / exact.norm())


@pytest.mark.parametrize("adapters", [True, False])
@pytest.mark.parametrize(("bf16", "factor"), [(False, 1.5), (True, 2.0)])
def test_step_without_dropout_is_as_exact_as_the_plain_one(adapters: bool, bf16: bool, factor: float) -> None:
    exact = outputs(bert(adapters=adapters, dropout=0.0).double())
    plain, fast = bert(adapters=adapters, dropout=0.0), bert(adapters=adapters, dropout=0.0)
    for model in (plain, fast):
        if bf16 and adapters:
            cast_frozen_weights(model, torch.bfloat16)
    use_fast_step(fast)
    plain_outputs, fast_outputs = outputs(plain, bf16=bf16), outputs(fast, bf16=bf16)
    assert not torch.equal(plain_outputs[1], fast_outputs[1])  # it is another arithmetic
    for ours, theirs, oracle in zip(fast_outputs, plain_outputs, exact, strict=True):
        assert distance(ours, oracle) <= factor * distance(theirs, oracle)


def test_same_seed_gives_the_same_step_and_weights_stay() -> None:
    model = bert()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    use_fast_step(model)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    steps = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        steps.append(outputs(model))
    assert all(torch.equal(ours, again) for ours, again in zip(steps[0], steps[1], strict=True))
    assert not torch.equal(steps[0][0], steps[2][0])


def test_every_dropout_is_rounded_to_a_multiple_of_1_256() -> None:
    model = bert()
    assert dropout_probabilities(model) == [0.1]
    use_fast_step(model)
    assert dropout_probabilities(model) == [26 / 256]
    assert all(type(module) is ByteDropout for module in model.modules() if isinstance(module, nn.Dropout))


@pytest.mark.parametrize(
    ("probability", "threshold"), [(0.0, 0), (0.001, 0), (0.1, 26), (0.5, 128), (0.999, 255), (1.0, 255)]
)
def test_nearest_probability(probability: float, threshold: int) -> None:
    assert Dropout.nearest(probability) == (threshold,)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    dropout = Dropout(64)
    torch.manual_seed(0)
    mask = dropout.draw_mask(torch.Size([1001, 1003]))
    assert mask.dtype == torch.uint8
    assert set(mask.unique().tolist()) == {0, 1}
    size = 1001 * 1003
    assert abs(mask.double().mean() - 0.75) < 5 * (0.25 * 0.75 / size) ** 0.5  # five standard errors
    # Each of the eight bytes of a number is as random as the others.
    by_byte = mask.flatten()[: size // 8 * 8].view(-1, 8).double().mean(0)
    assert (by_byte - 0.75).abs().max() < 5 * (0.25 * 0.75 / (size // 8)) ** 0.5
    assert dropout.scale * (1 - dropout.probability) == 1


def test_dropout_applies_one_mask_both_ways() -> None:
    layer = ByteDropout(0.25)
    hidden = torch.randn(5, 6, requires_grad=True)
    torch.manual_seed(7)
    result = layer(hidden)
    torch.manual_seed(7)
    mask = Dropout(64).draw_mask(hidden.shape) / 0.75
    assert torch.equal(result, hidden * mask)
    result.backward(torch.full_like(result, 2.0))
    assert hidden.grad is not None
    assert torch.equal(hidden.grad, 2 * mask)
    assert layer.eval()(hidden) is hidden
    assert ByteDropout(0.0)(hidden) is hidden


def reference_attention(
    projected: torch.Tensor, mask: torch.Tensor | None, kept: torch.Tensor, dropout: Dropout
) -> torch.Tensor:
    """Return attention with a given dropout mask, head by head."""
    heads = []
    for number in range(HEADS):
        size = WIDTH // HEADS
        query, key, value = (
            projected[..., start + number * size : start + (number + 1) * size] for start in range(0, 3 * WIDTH, WIDTH)
        )
        scores = query @ key.transpose(1, 2) / size**0.5
        if mask is not None:
            scores = scores + mask[:, 0]
        weights = torch.softmax(scores, -1) * kept[:, number] * dropout.scale
        heads.append(weights @ value)
    return torch.cat(heads, -1)


@pytest.mark.parametrize("threshold", [0, 64])
@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_is_the_formula_and_has_its_gradient(threshold: int, windows: int, masked: bool) -> None:
    dropout = Dropout(threshold)
    draw = torch.Generator().manual_seed(2)
    projected = torch.randn(windows, TOKENS, 3 * WIDTH, dtype=torch.float64, generator=draw, requires_grad=True)
    mask = None
    if masked:
        mask = torch.zeros(windows, 1, 1, TOKENS, dtype=torch.float64)
        mask[0, ..., -3:] = torch.finfo(torch.float32).min
    gradient = torch.randn(windows, TOKENS, WIDTH, dtype=torch.float64, generator=draw)
    shape = torch.Size([windows * HEADS, TOKENS, TOKENS])
    torch.manual_seed(5)
    kept = dropout.draw_mask(shape).view(windows, HEADS, TOKENS, TOKENS) if threshold else torch.ones(1, HEADS, 1, 1)
    expected = reference_attention(projected, mask, kept, dropout)
    (expected_gradient,) = torch.autograd.grad(expected, projected, gradient)
    torch.manual_seed(5)
    result: Any = _AttentionFunction.apply(projected, mask, None, Attention(HEADS, dropout))
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(result, projected, gradient)[0], expected_gradient, rtol=1e-11, atol=1e-12
    )


@pytest.mark.parametrize("name", [*ENCODERS, "modernbert, wide"])
@pytest.mark.parametrize("adapters", [True, False])
@pytest.mark.parametrize(("bf16", "factor"), [(False, 1.5), (True, 2.0)])
def test_step_of_every_encoder_is_as_exact_as_the_plain_one(
    name: str, adapters: bool, bf16: bool, factor: float
) -> None:
    exact = outputs(encoder(name, adapters=adapters, dropout=0.0).double())
    plain, fast = (encoder(name, adapters=adapters, dropout=0.0) for _ in range(2))
    for model in (plain, fast):
        if bf16 and adapters:
            cast_frozen_weights(model, torch.bfloat16)
    use_fast_step(fast)
    plain_outputs, fast_outputs = outputs(plain, bf16=bf16), outputs(fast, bf16=bf16)
    assert torch.equal(plain_outputs[1], fast_outputs[1]) == (name == "deberta-v2")  # the others are another arithmetic
    for ours, theirs, oracle in zip(fast_outputs, plain_outputs, exact, strict=True):
        assert distance(ours, oracle) <= factor * distance(theirs, oracle)


@pytest.mark.parametrize("name", ENCODERS)
def test_evaluation_of_every_encoder_is_unchanged_to_the_bit(name: str) -> None:
    plain, fast = encoder(name), encoder(name)
    use_fast_step(fast)
    for ours, theirs in zip(outputs(fast.eval()), outputs(plain.eval()), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_dropout_of_an_encoder_is_applied_and_rounded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = encoder(name), encoder(name)
    use_fast_step(fast)
    applied: list[float] = []
    library_dropout: Any = nn.functional.dropout
    library_attention: Any = nn.functional.scaled_dot_product_attention

    def dropout(hidden: torch.Tensor, p: float, training: bool = True, inplace: bool = False) -> torch.Tensor:
        applied.extend([p] if training and p else [])
        result: torch.Tensor = library_dropout(hidden, p, training, inplace)
        return result

    def attention(*tensors: torch.Tensor, dropout_p: float = 0.0, **arguments: Any) -> torch.Tensor:
        applied.extend([dropout_p] if dropout_p else [])
        result: torch.Tensor = library_attention(*tensors, dropout_p=dropout_p, **arguments)
        return result

    def draw_mask(self: Dropout, shape: torch.Size) -> torch.Tensor:
        applied.append(self.probability)
        return torch.ones(shape, dtype=torch.uint8)

    monkeypatch.setattr(nn.functional, "dropout", dropout)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(Dropout, "draw_mask", draw_mask)
    plain(**batch())
    library_dropouts, applied = applied, []
    fast(**batch())
    assert set(library_dropouts) == {0.1}
    assert applied == [26 / 256] * len(library_dropouts)
    assert dropout_probabilities(fast) == [26 / 256]


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "albert"])  # the library has none for it
def test_gradient_checkpointing_repeats_the_same_dropouts(name: str) -> None:
    steps = []
    for is_checkpointed in (False, True):
        model = encoder(name)
        use_fast_step(model)
        if is_checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(3)
        steps.append(outputs(model))
    assert model.is_gradient_checkpointing
    assert all(torch.equal(ours, again) for ours, again in zip(*steps, strict=True))


@pytest.mark.parametrize(("dropout", "longest", "expected"), [(0.0, 24, 0), (0.0, 23, 2), (0.1, 23, 0)])
def test_long_windows_without_dropout_have_the_library_attention_between_all_tokens(
    dropout: float, longest: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = encoder("modernbert", dropout=dropout)
    exact = outputs(model)
    use_fast_step(model)
    monkeypatch.setattr(fast_step, "LONGEST", longest)
    library_attention: Any = nn.functional.scaled_dot_product_attention
    calls = 0

    def attention(*tensors: torch.Tensor, **arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        result: torch.Tensor = library_attention(*tensors, **arguments)
        return result

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", attention)
    values = outputs(model)
    assert calls == expected  # in layers 0 and 3; the others see a window
    if not dropout:
        assert all(distance(ours, theirs) < 1e-5 for ours, theirs in zip(values, exact, strict=True))


@pytest.mark.parametrize("name", ["bert", "albert", "distilbert", "modernbert"])
def test_attention_without_a_kernel_of_pytorch_has_the_same_outputs(name: str) -> None:
    plain, fast = (encoder(name, dropout=0.0, attention="eager") for _ in range(2))
    use_fast_step(fast)
    for ours, theirs in zip(outputs(fast), outputs(plain), strict=True):
        assert distance(ours, theirs) < 1e-5


def test_relative_positions_and_other_encoders_have_none() -> None:
    for other in (BertConfig(position_embedding_type="relative_key"), PretrainedConfig()):
        assert not has_fast_step(other)
    config = BertConfig(vocab_size=9, position_embedding_type="relative_key", **SIZES)
    with pytest.raises(ValueError, match="has no fast step"):
        use_fast_step(BertForQuestionAnswering(config))


@pytest.mark.parametrize("threshold", [0, 64])
@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("window", [2, 3, None])
def test_attention_in_a_window_with_rotary_embeddings(window: int | None, padding: int, threshold: int) -> None:
    """Against the formula for all tokens, where a token sees a token; an output without any has no meaning."""
    windows, size, dropout = 2, WIDTH // HEADS, Dropout(threshold)
    draw = torch.Generator().manual_seed(2)
    projected = torch.randn(windows, TOKENS, 3 * WIDTH, dtype=torch.float64, generator=draw, requires_grad=True)
    angles = torch.rand(windows, TOKENS, size // 2, dtype=torch.float64, generator=draw).repeat(1, 1, 2)
    mask = torch.zeros(windows, 1, 1, TOKENS, dtype=torch.float64)
    mask[0, ..., TOKENS - padding :] = torch.finfo(torch.float32).min
    places = torch.arange(TOKENS)
    near = (places[:, None] - places).abs() <= (TOKENS if window is None else window)

    turned = projected.view(windows, TOKENS, 3, HEADS, size).clone()
    pairs = torch.view_as_complex(torch.stack([turned[..., : size // 2], turned[..., size // 2 :]], -1).contiguous())
    pairs[:, :, :2] = pairs[:, :, :2] * torch.polar(torch.ones(()).double(), angles[..., : size // 2])[:, :, None, None]
    turned = torch.view_as_real(pairs).transpose(-1, -2).reshape(windows, TOKENS, 3 * WIDTH)

    rows = TOKENS if window is None else window
    blocks, keys = -(-TOKENS // rows), TOKENS if window is None else 3 * window
    torch.manual_seed(5)
    drawn = dropout.draw_mask(torch.Size([windows * HEADS * blocks, rows, keys]))
    drawn = drawn.view(windows, HEADS, blocks, rows, keys)
    kept = torch.ones(windows, HEADS, TOKENS, TOKENS)
    for query in range(TOKENS if threshold else 0):
        for key in places[near[query]].tolist():
            first = 0 if window is None else (query // rows - 1) * rows  # key of the block's first column
            kept[:, :, query, key] = drawn[:, :, query // rows, query % rows, key - first]
    expected = reference_attention(turned, mask.masked_fill(~near, -torch.inf), kept, dropout)
    sees = (near & (mask[:, 0] == 0)).any(-1)[..., None]
    assert sees.all() == (window is None or not padding)
    gradient = torch.randn(expected.shape, dtype=torch.float64, generator=draw) * sees
    (expected_gradient,) = torch.autograd.grad(expected, projected, gradient)

    rotary = torch.stack([angles.cos(), angles.sin()])[:, :, None]
    torch.manual_seed(5)
    result: Any = _AttentionFunction.apply(projected, mask, rotary, Attention(HEADS, dropout, window))
    assert result.isfinite().all()
    torch.testing.assert_close(result * sees, expected * sees, rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad(result, projected, gradient)[0]
    torch.testing.assert_close(ours, expected_gradient, rtol=1e-11, atol=1e-12)

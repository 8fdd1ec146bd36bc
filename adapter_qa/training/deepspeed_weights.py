"""Whole weights of a model that DeepSpeed has divided among processes, and rounded to the precision it computes in.

ZeRO-2 rounds every weight of the model, ZeRO-3 leaves empty ones besides: a file written of either as it is would hold
rounded weights, or none, without a word from anybody. So what trains is gathered from the optimizer's float32 copies,
and the frozen adapters are taken aside before DeepSpeed has the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import TrainingArguments
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config


def disable_zero3_init() -> None:
    """From here on the library builds models as if there were no DeepSpeed. ZeRO-3 would divide them while they are
    built, where adapters cannot be put into them any more (head sizes and dtypes do not fit).
    """
    unset_hf_deepspeed_config()


def enable_deepspeed(args: TrainingArguments) -> None:
    """The end of `disable_zero3_init`: the model is built, and DeepSpeed may have it."""
    set_hf_deepspeed_config(args.hf_deepspeed_config)


def gather_trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every weight that trains by name, float32, whole, on the CPU. All processes must call.

    Raises:
        RuntimeError: DeepSpeed keeps no float32 copy of one of them, or one came back empty.
    """
    from deepspeed.utils import safe_get_full_fp32_param  # optional, and seconds to import

    state = {}
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        whole = safe_get_full_fp32_param(weight)
        if whole is None or whole.numel() == 0:
            raise RuntimeError(f"{name}: DeepSpeed gave back no whole weight")
        state[name] = whole.detach().float().cpu().contiguous()
    return state


def gather_params(weights: list[nn.Parameter]) -> list[torch.Tensor]:
    """Copies of weights that ZeRO-3 divides, outside a layer's forward pass, which alone brings them together.

    Gradients pass through, though the weights themselves are let go of again. All processes must call.
    """
    import deepspeed  # optional, and seconds to import

    with deepspeed.zero.GatheredParameters(weights):
        return [weight.clone() for weight in weights]


@contextmanager
def swap_weights(model: nn.Module, state: dict[str, torch.Tensor]) -> Iterator[None]:
    """Within it the named weights of a model are those of a state; afterwards what they were. To be saved, not run."""
    replaced = {}
    try:
        for name, weight in model.named_parameters():
            if name in state:
                replaced[name] = weight.data
                weight.data = state[name]
        yield
    finally:
        for name, weight in model.named_parameters():
            if name in replaced:
                weight.data = replaced[name]

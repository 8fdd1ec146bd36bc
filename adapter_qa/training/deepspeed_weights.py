"""Full float32 weights of a model that DeepSpeed has partitioned or rounded.

ZeRO-2 rounds every weight to the training precision; ZeRO-3 also leaves empty weights in each process. A file saved
from the model would silently hold rounded or empty weights. So the weights that train are gathered from the optimizer's
float32 copies, and the frozen adapters are copied before DeepSpeed gets the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import TrainingArguments
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config


def disable_zero3_init() -> None:
    """Let the library build models as without DeepSpeed until `enable_deepspeed`.

    ZeRO-3 would partition a model while it is built. Adapters and the head cannot be added to such a model, since the
    sizes and dtypes of their weights do not match.
    """
    unset_hf_deepspeed_config()


def enable_deepspeed(args: TrainingArguments) -> None:
    """Undo `disable_zero3_init` when the model is built."""
    set_hf_deepspeed_config(args.hf_deepspeed_config)


def gather_trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return every weight that trains by name, unpartitioned, float32, on the CPU. All processes must call.

    Raises:
        RuntimeError: if DeepSpeed keeps no float32 copy of a weight, or returns an empty one.
    """
    from deepspeed.utils import safe_get_full_fp32_param  # optional, and takes seconds to import

    state = {}
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        full = safe_get_full_fp32_param(weight)
        if full is None or full.numel() == 0:
            raise RuntimeError(f"{name}: DeepSpeed returned no full weight")
        state[name] = full.detach().float().cpu().contiguous()
    return state


def gather_params(weights: list[nn.Parameter]) -> list[torch.Tensor]:
    """Return full copies of weights that ZeRO-3 partitions, for use outside a layer's forward pass.

    Gradients flow through the copies to the partitioned weights. All processes must call.
    """
    import deepspeed  # optional, and takes seconds to import

    with deepspeed.zero.GatheredParameters(weights):
        return [weight.clone() for weight in weights]


@contextmanager
def swap_weights(model: nn.Module, state: dict[str, torch.Tensor]) -> Iterator[None]:
    """Replace weights of a model by those of a state inside the context, in which it can be saved but not run."""
    swapped = {name: weight for name, weight in model.named_parameters() if name in state}
    originals = {name: weight.data for name, weight in swapped.items()}
    try:
        for name, weight in swapped.items():
            weight.data = state[name]
        yield
    finally:
        for name, weight in swapped.items():
            weight.data = originals[name]

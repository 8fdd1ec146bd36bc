"""Bring the adapters library into a model, with work-arounds for its faults.

Most encoders have an implementation of their own in `adapters`. ModernBERT has an interface: names of its parts, where
hooks on the output layers of its blocks apply the adapters. tests/test_adapters_faults.py fails when a fault is mended,
so that its work-around can go.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import adapters
from adapters.composition import Stack
from adapters.methods.bottleneck import BottleneckLayer, hook_fn
from adapters.methods.lora import LoRAMergedLinear
from adapters.wrappers.interfaces import CUSTOM_INTERFACES
from torch import nn
from transformers import PreTrainedModel

from adapter_qa.models.adapter_model import as_adapter_model

METHODS = ["bottleneck", "invertible"]


def init_adapters(model: PreTrainedModel, *, low_rank: bool = False) -> None:
    """Make it possible to add adapters to a model; `low_rank`: also LoRA and (IA)3. Its outputs stay the same."""
    interface = CUSTOM_INTERFACES.get(model.config.model_type)
    if interface is None:
        adapters.init(model)
        return
    adapters.init(model, interface=replace(interface, adapter_methods=[*METHODS, *(["lora"] if low_rank else [])]))
    for projection in model.modules():
        if isinstance(projection, LoRAMergedLinear):
            _mend_joined_projection(projection, has_bias=model.config.attention_bias)
    for _, layer in as_adapter_model(model).iter_layers():
        attention = layer.get_submodule(interface.layer_self_attn).get_submodule(interface.attn_o_proj)
        _hook_with_norm(attention, layer.attention_adapters, _submodule(layer, interface.layer_ln_1))
        output = layer.get_submodule(interface.layer_output_proj)
        _hook_with_norm(output, layer.output_adapters, _submodule(layer, interface.layer_ln_2))


def _submodule(layer: nn.Module, name: str | None) -> nn.Module | None:
    return None if name is None else layer.get_submodule(name)


def _hook_with_norm(block: nn.Module, site: BottleneckLayer, norm: nn.Module | None) -> None:
    """Replace the hook that applies the adapters of a site by one that has the norm of the site's own layer.

    In adapters 1.3.0 the hook of every layer gets the norm of the last layer.
    """

    def apply_adapters(module: nn.Module, inputs: Any, output: Any) -> Any:
        return hook_fn(site, lambda: norm, module, inputs, output)

    hooks = block._forward_hooks  # noqa: SLF001, there is no public list of hooks
    (number,) = [number for number, hook in hooks.items() if isinstance(hook, partial) and hook.func is hook_fn]
    hooks[number] = apply_adapters


class _JoinedProjection(LoRAMergedLinear):  # type: ignore[misc]  # the library has no types
    """Query, key and value in one linear layer, with the LoRA or (IA)3 of one adapter of a stack."""

    def get_active_setup(self) -> Stack | None:
        """Return the active adapter that has weights here: the library fails on the others of a stack."""
        setup = super().get_active_setup()
        return None if setup is None else Stack(*[name for name in setup.flatten() if name in self.loras])


def _mend_joined_projection(projection: LoRAMergedLinear, *, has_bias: bool) -> None:
    """Let a projection take part in a stack, and remove the bias that adapters 1.3.0 invents where there is none."""
    projection.__class__ = _JoinedProjection
    if not has_bias:
        projection.bias = None

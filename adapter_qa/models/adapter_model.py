"""The library's methods of a model with adapters, which `adapters.init` adds to the model's class at run time."""

from __future__ import annotations

from typing import cast

from adapters import ModelWithHeadsAdaptersMixin
from transformers import PreTrainedModel


def as_adapter_model(model: PreTrainedModel) -> ModelWithHeadsAdaptersMixin:
    """Return `model`, which `adapters.init` has prepared, with the type of its adapter methods."""
    return cast(ModelWithHeadsAdaptersMixin, model)

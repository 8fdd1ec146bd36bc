"""The type of a model with adapters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

from adapters import AdapterConfig, AdapterFusionConfig, Fuse, Stack
from torch import nn
from transformers import PreTrainedModel


class AdapterModel(Protocol):
    """The part that we use of the interface which `adapters.init` adds to a model.

    The library adds it at run time by changing the model's class, so no class of the library declares it.

    Attributes:
        model_name: name or path that the weights were loaded from; None for random weights.
    """

    model_name: str | None

    @property
    def active_adapters(self) -> Stack | Fuse | None:
        """The composition that the forward pass uses."""

    def set_active_adapters(self, adapter_setup: Stack | Fuse) -> None:
        """Use a composition in the forward pass."""

    def iter_layers(self) -> Iterable[tuple[int, nn.Module]]:
        """Iterate over the layers of the encoder and their numbers."""

    def add_adapter(self, adapter_name: str, config: AdapterConfig) -> None:
        """Add an adapter with random weights."""

    def add_adapter_fusion(self, adapter_names: Fuse, config: AdapterFusionConfig | None = None) -> None:
        """Add a fusion layer at every adapter site."""

    def train_adapter(self, adapter_setup: str) -> None:
        """Freeze everything except an adapter and the head, and activate the adapter."""

    def train_adapter_fusion(self, adapter_setup: Stack | Fuse) -> None:
        """Freeze everything except a fusion and the head, and activate the composition."""

    def load_adapter(
        self,
        adapter_name_or_path: str,
        *,
        load_as: str,
        leave_out: list[int],
        with_head: bool,
        use_safetensors: bool,
        loading_info: dict[str, Any],
    ) -> str:
        """Load an adapter from a folder; return its name."""

    def save_adapter(
        self,
        save_directory: str,
        adapter_name: str,
        *,
        with_head: bool,
        use_safetensors: bool,
        meta_dict: Mapping[str, Any],
    ) -> None:
        """Save an adapter to a folder."""

    def save_adapter_fusion(self, save_directory: str, adapter_names: Fuse, *, use_safetensors: bool) -> None:
        """Save a fusion to a folder."""


def as_adapter_model(model: PreTrainedModel) -> AdapterModel:
    """Return `model`, which `adapters.init` has prepared, with the type of its adapter methods."""
    return cast(AdapterModel, model)

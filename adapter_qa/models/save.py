"""Save a model's adapters, as a folder for `setup_decisions.setup_from_saved` or as the state of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import adapters
import msgspec
import torch
from adapters.configuration import build_full_config
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import atomic_folder, write_json, write_text
from adapter_qa.models.adapter_model import as_adapter_model
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.build import check_setup
from adapter_qa.models.file_names import HEAD_CONFIG, HEAD_WEIGHTS, SETUP_FILE
from adapter_qa.models.metadata import TrainedOn
from adapter_qa.models.parameters import head_names
from adapter_qa.models.saved_adapters import ATTENTION_ONLY_LAST_LAYER, TRAINED_ON


def save_setup(model: PreTrainedModel, setup: AdapterSetup, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write an `adapters-<task>` folder completely or not at all; it replaces an older one.

    `metadata` is what the JSON holds besides the composition: base model, windows, language, versions.

    Raises:
        RuntimeError: if the model does not match the setup.
        OSError: if the folder cannot be written.
    """
    check_setup(model, setup)
    adapter_model = as_adapter_model(model)
    trained_on = {key: metadata[key] for key in TrainedOn.__struct_fields__ if key in metadata}
    with atomic_folder(folder) as temporary:
        for source in setup.adapters:
            extra_keys: dict[str, Any] = {TRAINED_ON: trained_on}
            if source.attention_only_last_layer:
                extra_keys[ATTENTION_ONLY_LAST_LAYER] = True
            if source.language:
                extra_keys["language"] = source.language
            adapter_model.save_adapter(
                str(temporary / source.name), source.name, with_head=False, use_safetensors=True, meta_dict=extra_keys
            )
        if setup.fusion is not None:
            target = str(temporary / setup.fusion.name)
            adapter_model.save_adapter_fusion(target, setup.fusion, use_safetensors=True)
        _save_head(model, temporary)
        write_json(temporary / SETUP_FILE, setup_document(setup, metadata))


def setup_document(setup: AdapterSetup, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of adapter_setup.json: the library's keys, and ours under "trainer"."""
    return {
        "adapter_setup": setup.block.to_dict(),
        # Whether `load_adapter_setup` loads the head. It cannot load one that is tied to the embeddings, as for "mlm".
        "head_setup": setup.task in ("qa", "ner"),
        "version": f"adapters.{adapters.__version__}",
        "trainer": {
            "task": setup.task,
            "setup": str(setup.block),
            "language_adapter": setup.language.name if setup.language else None,
            "tasks": [source.name for source in setup.tasks],
            "fused": setup.fused,
            "composition": setup.composition,
            **({"language_swaps": msgspec.to_builtins(setup.language_swaps)} if setup.language_swaps else {}),
            **metadata,
        },
    }


def _save_head(model: PreTrainedModel, folder: Path) -> None:
    """Save the head in the library's format, without weights that are tied to the embeddings."""
    head = head_names(model)
    state = {name: _for_file(weight) for name, weight in model.named_parameters() if name in head}
    save_file(state, folder / HEAD_WEIGHTS[0])
    config = build_full_config(
        None,
        model.config,
        name=None,
        model_name=as_adapter_model(model).model_name,
        model_class=type(model).__name__,
        save_id2label=True,
    )
    config["num_labels"] = model.config.num_labels
    write_text(folder / HEAD_CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")


def trainable_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return every trainable weight by name, on the CPU, ready for safetensors."""
    return {name: _for_file(weight) for name, weight in model.named_parameters() if weight.requires_grad}


def frozen_adapters(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return every frozen weight of an adapter by name, on the CPU, ready for safetensors."""
    return {
        name: _for_file(weight)
        for name, weight in model.named_parameters()
        if "adapters." in name and not weight.requires_grad
    }


def _for_file(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().cpu().contiguous()


def load_trainable(model: nn.Module, path: Path) -> None:
    """Load the weights that `trainable_state` returned, from a safetensors file.

    Raises:
        UserError: if the file is damaged, or holds other weights than those that are trainable now.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); remove this checkpoint to resume from an older one"
        ) from error
    shapes = {name: weight.shape for name, weight in model.named_parameters() if weight.requires_grad}
    if {name: weight.shape for name, weight in state.items()} != shapes:
        raise UserError(
            f"{path}: holds other weights than those that train now; give the setup that the run was started with"
        )
    model.load_state_dict(state, strict=False)

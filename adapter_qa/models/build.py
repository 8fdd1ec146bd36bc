"""Adapters in a model: add or load them, decide what trains, and check that the model matches its setup."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch
from adapters import AdapterConfig, Fuse
from adapters.loading import AdapterLoader
from adapters.methods.bottleneck import BottleneckLayer
from torch import nn
from transformers import PreTrainedModel

from adapter_qa.config.options import NEW
from adapter_qa.core.errors import UserError, error_line
from adapter_qa.core.files import read_json
from adapter_qa.models.adapter_model import as_adapter_model
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.adapter_source import AdapterSource
from adapter_qa.models.base_model import CHECKED_TOKENS
from adapter_qa.models.encoder_adapters import init_adapters
from adapter_qa.models.file_names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, FUSION_WEIGHTS, HEAD_WEIGHTS
from adapter_qa.models.fusion import use_fast_fusion
from adapter_qa.models.low_rank import keep_autocast_dtype
from adapter_qa.models.parameters import FUSION_MARK, adapter_mark, head_names
from adapter_qa.models.saved_adapters import SavedHead
from adapter_qa.models.saved_fusion import read_fusion_config
from adapter_qa.models.weights import check_finite, find_weights, read_weights


def build_setup(model: PreTrainedModel, setup: AdapterSetup) -> None:
    """Add or load the adapters, the fusion and the head of `setup`, freeze the other weights, activate the setup.

    Raises:
        UserError: if saved weights are damaged or do not fit the model.
    """
    init_adapters(model, low_rank=any(source.is_low_rank for source in setup.adapters))
    for source in setup.adapters:
        _add_adapter(model, source)
        if source.folder is not None:
            _load_adapter(model, source, source.folder)
    if setup.fusion is not None:
        _add_fusion(model, setup.fusion, setup.saved.fusion if setup.saved is not None else None)
    if setup.starting_head is not None:
        try:
            _load_head(model, setup.starting_head)
        except UserError as error:
            raise UserError(
                [f"{line}; --fusion_head {NEW} starts from random values" for line in error.problems]
            ) from error
    elif setup.saved is not None and setup.saved.head is not None and setup.loads_saved_head:
        _load_head(model, setup.saved.head)
    # `train_adapter` and `train_adapter_fusion` also activate what they train. Without `set_active_adapters`, the
    # language adapter would silently drop out of the forward pass.
    if setup.fused:
        as_adapter_model(model).train_adapter_fusion(setup.block)
    else:
        as_adapter_model(model).train_adapter(setup.tasks[0].name)
    as_adapter_model(model).set_active_adapters(setup.block)
    check_setup(model, setup)
    check_effect(model, setup)


def _encoder_layers(model: PreTrainedModel) -> list[Any]:
    return [layer for _, layer in as_adapter_model(model).iter_layers()]


def _sites_of(layer: nn.Module) -> list[BottleneckLayer]:
    return [site for site in layer.modules() if isinstance(site, BottleneckLayer)]


def _adapter_sites(model: PreTrainedModel) -> list[BottleneckLayer]:
    return [site for layer in _encoder_layers(model) for site in _sites_of(layer)]


def _add_adapter(model: PreTrainedModel, source: AdapterSource) -> None:
    """Add an adapter with random weights."""
    as_adapter_model(model).add_adapter(source.name, AdapterConfig.load(source.config))
    if source.is_low_rank:
        keep_autocast_dtype(model, source.name)
    if source.attention_only_last_layer:
        for site in _sites_of(_encoder_layers(model)[-1]):
            if site.location_key == "output_adapter":
                site.delete_adapter(source.name)
    for site in _adapter_sites(model):
        if source.name in site.adapters:
            # The library registers these parts a second time, inside `adapter_down`. Files of safetensors cannot hold
            # a weight under two names.
            for part in ("adapter_norm_before", "non_linearity"):
                site.adapters[source.name]._modules.pop(part, None)  # noqa: SLF001, there is no public method


def _load_adapter(model: PreTrainedModel, source: AdapterSource, folder: Path) -> None:
    """Load the weights of an adapter. Its file must have all of them."""
    loader = AdapterLoader(model)
    rename = loader.rename_func(str(read_json(folder / ADAPTER_CONFIG)["name"]), source.name)
    state = {rename(name): weight for name, weight in read_weights(find_weights(folder, *ADAPTER_WEIGHTS)).items()}
    loading_info: dict[str, Any] = {}
    try:
        loader.load_from_state_dict(state, source.name, loading_info=loading_info)
    except Exception as error:  # names and shapes in the file can cause any exception
        reason = error_line(error, 200)
        raise UserError(f"{folder}: the adapter's weights cannot be loaded ({reason})") from error
    missing: list[str] = loading_info["missing_keys"]
    if missing:
        raise UserError(f"{folder}: {len(missing)} weights are missing, e.g. {missing[0]}; the file is damaged")
    mark = adapter_mark(source)
    check_finite(str(folder), {name: weight for name, weight in model.named_parameters() if mark in name})


def _add_fusion(model: PreTrainedModel, fusion: Fuse, saved: Path | None) -> None:
    """Add a fusion, or load it from its folder, at the sites that have a fused adapter.

    The library adds it at every site of every layer. At a site without a fused adapter, its 3h² + 2h parameters never
    get a gradient, and DistributedDataParallel stops with an error.
    """
    as_adapter_model(model).add_adapter_fusion(fusion, None if saved is None else read_fusion_config(saved))
    for site in _adapter_sites(model):
        if any(name in site.adapters for name in fusion.children):
            use_fast_fusion(site, fusion.name)
        else:
            site.delete_fusion_layer(fusion.name)
    if saved is not None:
        names = {name for name, _ in model.named_parameters() if FUSION_MARK in name}
        path = find_weights(saved, *FUSION_WEIGHTS)
        _load_weights(model, path, read_weights(path), names)


def _load_head(model: PreTrainedModel, head: SavedHead) -> None:
    path = find_weights(head.folder, *HEAD_WEIGHTS)
    state, names = read_weights(path), head_names(model)
    if head.flexible is not None:
        state = head.flexible.usual_weights(state, names)
    elif head.model_class != type(model).__name__:
        raise UserError(f"{head.folder}: its head belongs to {head.model_class}, the model is a {type(model).__name__}")
    _load_weights(model, path, state, names)


def _load_weights(model: PreTrainedModel, path: Path, state: Mapping[str, torch.Tensor], names: Set[str]) -> None:
    """Load the named weights, and no others, from the content of a file."""
    weights = {name: weight for name, weight in model.named_parameters() if name in names}
    mismatched = sorted(
        name for name, weight in weights.items() if name not in state or state[name].shape != weight.shape
    )
    if mismatched:
        raise UserError(
            f"{path}: {len(mismatched)} of {len(weights)} weights are missing or of another shape, e.g. "
            f"{mismatched[0]}; the file is damaged or belongs to another model"
        )
    if model.device.type != "meta":  # in a dry run, which only checks them
        model.load_state_dict({name: state[name] for name in weights}, strict=False)
    check_finite(str(path), weights)


def check_setup(model: PreTrainedModel, setup: AdapterSetup | None) -> None:
    """Check that the active adapters and the trainable weights are those of the setup; None for full fine-tuning.

    Called before training, evaluating, saving and answering.

    Raises:
        RuntimeError: if the model does not match the setup; its results would not be those that the user asked for.
    """
    if setup is None:
        return
    active = str(as_adapter_model(model).active_adapters)
    if active != str(setup.block):
        raise RuntimeError(f"the active setup is {active}, the chosen setup is {setup.block}")
    trainable = {name for name, weight in model.named_parameters() if weight.requires_grad}
    wrong = sorted(trainable ^ trained_names(model, setup))
    if wrong:
        raise RuntimeError(f"{len(wrong)} weights are trainable or frozen contrary to the setup, e.g. {wrong[0]}")


def check_effect(model: PreTrainedModel, setup: AdapterSetup) -> None:
    """Check that every adapter, invertible adapter and fusion layer of a new model acts on the encoder's output.

    The weights of one part at a time are replaced by noise, and the output for a few tokens must change. So adapters
    that begin as the identity pass as well. Weights, modes and random states stay as they are. A model of shapes only,
    as in a dry run, has no output.

    Raises:
        UserError: if a part has no effect; it would be counted, saved and perhaps trained for nothing.
    """
    if next(model.parameters()).is_meta:
        return
    unused = {layer for site in _adapter_sites(model) for layer in site.adapter_fusion_layer.values()}
    hooks = [layer.register_forward_hook(lambda layer, *_: unused.discard(layer)) for layer in unused]
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        outputs = _layer_outputs(model)
        idle = [part for part, mark in _marks_of_parts(setup).items() if not _acts(model, mark, outputs)]
    finally:
        for module in training:
            module.training = True
        for hook in hooks:
            hook.remove()
    if idle or unused:
        parts = ", ".join([*idle, *([f"{len(unused)} fusion layers"] if unused else [])])
        raise UserError(f"{setup.block}: without any effect on the output: {parts}; leave it out, or give another kind")


def _marks_of_parts(setup: AdapterSetup) -> dict[str, str]:
    """Return the parts of a setup that must have an effect, with what the names of their weights have in common."""
    marks = {"fusion": FUSION_MARK} if setup.fused else {}
    for source in setup.adapters:
        # Earlier versions accepted a parallel adapter on a language adapter; their runs can still be used.
        is_replaced = source is setup.language and setup.is_saved_composition and bool(setup.overridden_sites)
        if source.has_modules(setup.layers) and not is_replaced:
            marks[source.name] = "." + adapter_mark(source)
        if source.is_invertible:
            marks[f"the invertible adapter of {source.name}"] = "invertible_" + adapter_mark(source)
    return marks


@torch.no_grad()
def _layer_outputs(model: PreTrainedModel) -> list[torch.Tensor]:
    """Return the outputs of the encoder's layers for a few tokens, in the order in which they run."""
    outputs: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _, inputs, output: outputs.append(output[0]))
        for layer in _encoder_layers(model)
    ]
    tokens = torch.arange(CHECKED_TOKENS, device=model.device)[None] % model.config.vocab_size
    try:
        model.base_model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def _acts(model: PreTrainedModel, mark: str, outputs: list[torch.Tensor]) -> bool:
    """Return whether noise in place of the weights with a mark changes the outputs; then the weights are as before."""
    weights = [weight for name, weight in model.named_parameters() if mark in name]
    saved = [weight.data for weight in weights]
    size = max((weight.numel() for weight in weights), default=0)
    noise = torch.empty(size).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    try:
        for weight in weights:  # all of them get the same numbers, which takes hardly any memory
            weight.data = noise[: weight.numel()].view(weight.shape).to(weight)
        return not all(map(torch.equal, outputs, _layer_outputs(model)))
    finally:
        for weight, data in zip(weights, saved, strict=True):
            weight.data = data


def trained_names(model: PreTrainedModel, setup: AdapterSetup) -> set[str]:
    """Return the names of the weights that `setup` trains: fusion or task adapter, and head."""
    mark = FUSION_MARK if setup.fused else adapter_mark(setup.tasks[0])
    return head_names(model) | {name for name, _ in model.named_parameters() if mark in name}


def cast_frozen_weights(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Store the frozen matrices of the base model in the dtype of autocast, which would cast them in every step.

    The results are bit-identical. Weights that autocast leaves in float32 stay in float32: embeddings and layer norms.
    So do frozen adapters, because they are saved again.
    """
    for name, module in model.base_model.named_modules():
        if isinstance(module, nn.Linear) and "adapter" not in name:
            for weight in module.parameters(recurse=False):
                if not weight.requires_grad:
                    weight.data = weight.data.to(dtype)

"""Adapters in a model: how a plan is built, proven, counted, saved and restored.

`build_setup` carries a plan out on a model. `check_setup` proves that the model is what the plan says; it is called
before training, evaluating, saving and answering. `save_setup` writes the folder that `planning.setup_from_saved` reads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adapters
import torch
from adapters import AdapterConfig, AdapterFusionConfig
from adapters.configuration import build_full_config
from adapters.methods.bottleneck import BottleneckLayer
from adapters.utils import (
    ADAPTERFUSION_WEIGHTS_NAME,
    HEAD_CONFIG_NAME,
    HEAD_WEIGHTS_NAME,
    SAFE_ADAPTERFUSION_WEIGHTS_NAME,
    SAFE_HEAD_WEIGHTS_NAME,
)
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json, replace_folder
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.fusion import use_fast_fusion
from adapter_qa.models.saved_adapters import (
    ATTENTION_ONLY_LAST_LAYER,
    FUSION_CONFIG,
    SETUP_FILE,
    AdapterSource,
    SavedHead,
)
from adapter_qa.models.weights import read_weights, weights_file

AdapterModel = Any  # a PreTrainedModel with the methods that adapters.init gives it, which no type expresses


def build_setup(model: AdapterModel, setup: AdapterSetup) -> None:
    """Adds or loads every adapter of the plan, fuses, freezes all that does not train, and activates the setup.

    Raises:
        UserError: saved weights are damaged or do not fit.
    """
    adapters.init(model)
    for source in setup.adapters:
        if source.folder is None:
            model.add_adapter(source.name, config=AdapterConfig.load(source.config))
        else:
            _load_adapter(model, source)
        if source.attention_only_last_layer:
            _layers(model)[-1].output.delete_adapter(source.name)
    if setup.fusion is not None:
        _add_fusion(model, setup)
    if setup.saved is not None and setup.saved.head is not None and setup.loads_saved_head:
        _load_head(model, setup.saved.head)
    _freeze_and_activate(model, setup)
    check_setup(model, setup)


def _layers(model: AdapterModel) -> list[Any]:
    return [layer for _, layer in model.iter_layers()]


def _bottlenecks(model: AdapterModel) -> Iterator[BottleneckLayer]:
    """All places of an encoder where adapters can stand."""
    for layer in _layers(model):
        yield from (module for module in layer.modules() if isinstance(module, BottleneckLayer))


def _load_adapter(model: AdapterModel, source: AdapterSource) -> None:
    """Loads one adapter; all its weights must be found, those of the last-layer trick excepted."""
    info: dict[str, Any] = {}
    last = len(_layers(model)) - 1
    try:
        model.load_adapter(
            str(source.folder),
            load_as=source.name,
            leave_out=source.config["leave_out"],
            with_head=False,
            use_safetensors=True,
            loading_info=info,
        )
    except Exception as error:  # the library reads adapter_config.json once more; values in it make it raise anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{source.folder}: the adapter's weights cannot be loaded ({reason})") from error
    by_trick = f".layer.{last}.output.adapters.{source.name}." if source.attention_only_last_layer else None
    missing = [key for key in info["missing_keys"] if by_trick is None or by_trick not in key]
    if missing:
        raise UserError(f"{source.folder}: {len(missing)} weights are missing, e.g. {missing[0]}; the file is damaged")


def _add_fusion(model: AdapterModel, setup: AdapterSetup) -> None:
    """Adds the fusion, or loads it, in cheaper arithmetic (`fusion`), and only where a fused adapter stands.

    The library creates it everywhere: 3h²+2h parameters a layer that never train and stop DDP.
    """
    fusion = setup.fusion
    assert fusion is not None
    saved = setup.saved.fusion if setup.saved is not None else None
    if saved is None:
        model.add_adapter_fusion(fusion)
    else:
        config = dict(read_json(saved / FUSION_CONFIG).get("config") or {})
        try:  # dropout came after 2021; without it the library takes the encoder's, as it did then
            model.add_adapter_fusion(fusion, AdapterFusionConfig.load({"dropout_prob": None, **config}))
        except Exception as error:  # as above
            raise UserError(f"{saved / FUSION_CONFIG}: holds no configuration of a fusion ({error})") from error
    for place in _bottlenecks(model):
        if not any(name in place.adapters for name in fusion.children):
            place.delete_fusion_layer(fusion.name)
        else:
            use_fast_fusion(place, fusion.name)
    if saved is not None:
        path = weights_file(saved, SAFE_ADAPTERFUSION_WEIGHTS_NAME, ADAPTERFUSION_WEIGHTS_NAME)
        _load_named(model, path, {name for name, _ in model.named_parameters() if "adapter_fusion_layer." in name})


def _load_named(model: AdapterModel, path: Path, wanted: set[str]) -> None:
    """Loads just the wanted weights of a file, every one of them.

    Raises:
        UserError: the file is damaged, or lacks some of them, or has them in other shapes.
    """
    state = read_weights(path)
    shapes = {name: weight.shape for name, weight in model.named_parameters() if name in wanted}
    missing = sorted(name for name, shape in shapes.items() if name not in state or state[name].shape != shape)
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of {len(shapes)} weights are missing or of another shape, e.g. {missing[0]}; "
            "the file is damaged or belongs to another model"
        )
    model.load_state_dict({name: state[name] for name in shapes}, strict=False)


def _freeze_and_activate(model: AdapterModel, setup: AdapterSetup) -> None:
    """Only the fusion, or the task adapter, and the head stay trainable; the whole setup is active.

    `train_adapter` and `train_adapter_fusion` activate what they are given: given the last part alone, the language
    adapter would silently leave the forward pass.
    """
    if setup.fusion is not None:
        model.train_adapter_fusion(setup.block)
    else:
        model.train_adapter(setup.tasks[0].name)
    model.set_active_adapters(setup.block)


def check_setup(model: AdapterModel, setup: AdapterSetup | None) -> None:
    """Proves that what is active and what trains is what the plan says.

    Raises:
        RuntimeError: it is not; nothing computed with the model would be what the user asked for.
    """
    if setup is None:
        return
    active = str(model.active_adapters)
    if active != str(setup.block):
        raise RuntimeError(f"the active setup is {active}, the plan says {setup.block}")
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    wanted = set(trained_names(model, setup))
    if trained != wanted:
        wrong = sorted(trained ^ wanted)
        raise RuntimeError(f"{len(wrong)} weights train or rest against the plan, e.g. {wrong[0]}")


def trained_names(model: AdapterModel, setup: AdapterSetup) -> list[str]:
    """Names of the weights that the plan trains: fusion or task adapter, and the head without tied embeddings."""
    mark = "adapter_fusion_layer." if setup.fused else f"adapters.{setup.tasks[0].name}."
    head = _head_weights(model)
    return [name for name, _ in model.named_parameters() if mark in name or name in head]


def _head_weights(model: AdapterModel) -> set[str]:
    """Names of the head's own weights. What is tied to the embeddings belongs to the base and stays frozen."""
    output = model.get_output_embeddings()
    tied = {id(weight) for weight in output.parameters()} if output is not None else set()
    prefix = model.base_model_prefix + "."
    return {name for name, weight in model.named_parameters() if not name.startswith(prefix) and id(weight) not in tied}


# ---------------------------------------------------------------- counting


def parameter_table(model: AdapterModel, setup: AdapterSetup | None) -> dict[str, Any]:
    """Counts of parameters.

    Returns:
        `base` (with its head), `added`, `trainable`, `percent_added` (of the base, two decimals) and `parts`: each
        adapter, `fusion`, and `head`, which is counted in the base.
    """
    marks = {f"adapters.{source.name}.": source.name for source in setup.adapters} if setup else {}
    parts = dict.fromkeys([*marks.values(), *(["fusion"] if setup and setup.fused else []), "head"], 0)
    head = _head_weights(model)
    base = 0
    for name, weight in model.named_parameters():
        part = next((part for mark, part in marks.items() if mark in name), None)
        if "adapter_fusion_layer." in name:
            part = "fusion"
        if part is not None:
            parts[part] += weight.numel()
            continue
        base += weight.numel()
        if name in head:
            parts["head"] += weight.numel()
    added = sum(count for part, count in parts.items() if part != "head")
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return {
        "base": base,
        "added": added,
        "trainable": trainable,
        "percent_added": round(100 * added / base, 2),
        "parts": parts,
    }


def format_table(table: dict[str, Any]) -> str:
    """The counts as lines for people."""
    rows = [("base with head", table["base"])]
    rows += [(f"  {part}" if part == "head" else part, count) for part, count in table["parts"].items()]
    rows += [("added", table["added"]), ("trainable", table["trainable"])]
    return "\n".join(f"{label:<16}{count:>16,} {100 * count / table['base']:>8.2f} %" for label, count in rows)


def fusion_values(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """Name and weight, (hidden, hidden), of every fusion value matrix."""
    return [
        (name, weight)
        for name, weight in model.named_parameters()
        if "adapter_fusion_layer." in name and name.endswith(".value.weight")
    ]


def cast_frozen_weights(model: AdapterModel, dtype: torch.dtype) -> None:
    """Turns the base's frozen matrices into the dtype that autocast computes with, which else casts them in every step.

    The results are the same to the bit. What autocast leaves in float32 stays so: embeddings and layer norms; and so do
    the frozen adapters, which are saved again.
    """
    for name, module in model.base_model.named_modules():
        if isinstance(module, nn.Linear) and "adapter" not in name:
            for weight in module.parameters(recurse=False):
                if not weight.requires_grad:
                    weight.data = weight.data.to(dtype)


# ---------------------------------------------------------------- keeping


def save_setup(model: AdapterModel, setup: AdapterSetup, folder: Path, facts: dict[str, Any]) -> None:
    """Writes an `adapters-<task>` folder: aside first, then renamed, so that it is whole or not there.

    Args:
        model: the trained model.
        setup: its setup.
        folder: where to; an older one is replaced.
        facts: what goes beside the composition into the JSON (base model, windows, language, versions).
    """
    check_setup(model, setup)
    aside = folder.with_name(folder.name + ".writing")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for source in setup.adapters:
        meta: dict[str, Any] = {ATTENTION_ONLY_LAST_LAYER: True} if source.attention_only_last_layer else {}
        if source.language:
            meta["language"] = source.language
        model.save_adapter(str(aside / source.name), source.name, with_head=False, use_safetensors=True, meta_dict=meta)
    if setup.fusion is not None:
        model.save_adapter_fusion(str(aside / setup.fusion.name), setup.fusion, use_safetensors=True)
    _save_head(model, aside)
    # The library cannot load a head that is tied to the embeddings.
    document = setup_document(setup, facts, with_head=setup.task != "mlm")
    (aside / SETUP_FILE).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    replace_folder(aside, folder)


def setup_document(setup: AdapterSetup, facts: dict[str, Any], *, with_head: bool) -> dict[str, Any]:
    """What adapter_setup.json holds: the library's part, and under "trainer" ours.

    Args:
        setup: the setup.
        facts: what goes beside the composition.
        with_head: plain `adapters` code is to load the head, too.
    """
    return {
        "adapter_setup": setup.block.to_dict(),
        "head_setup": with_head,
        "version": f"adapters.{adapters.__version__}",
        "trainer": {
            "task": setup.task,
            "setup": str(setup.block),
            "language_adapter": setup.language.name if setup.language else None,
            "tasks": [source.name for source in setup.tasks],
            "fused": setup.fused,
            "composition": setup.composition,
            **facts,
        },
    }


def _save_head(model: AdapterModel, folder: Path) -> None:
    """The head in the library's form. Weights tied to the embeddings belong to the base and are not saved."""
    head = _head_weights(model)
    state = {name: weight.detach().cpu().contiguous() for name, weight in model.named_parameters() if name in head}
    save_file(state, folder / SAFE_HEAD_WEIGHTS_NAME)
    config = build_full_config(
        None, model.config, name=None, model_name=model.model_name, model_class=type(model).__name__, save_id2label=True
    )
    config["num_labels"] = model.config.num_labels
    (folder / HEAD_CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _load_head(model: AdapterModel, head: SavedHead) -> None:
    """Loads a saved head. Weights that are tied to the embeddings stay the base's.

    Raises:
        UserError: it is damaged, or of another model class.
    """
    if head.model_class != type(model).__name__:
        raise UserError(f"{head.folder}: its head belongs to {head.model_class}, the model is a {type(model).__name__}")
    _load_named(model, weights_file(head.folder, SAFE_HEAD_WEIGHTS_NAME, HEAD_WEIGHTS_NAME), _head_weights(model))


def trainable_state(model: AdapterModel) -> dict[str, torch.Tensor]:
    """Every trainable weight by name, on the CPU, ready for safetensors."""
    return {
        name: weight.detach().cpu().contiguous() for name, weight in model.named_parameters() if weight.requires_grad
    }


def frozen_adapters(model: AdapterModel) -> dict[str, torch.Tensor]:
    """Every adapter weight that does not train, by name, on the CPU."""
    return {
        name: weight.detach().cpu().contiguous()
        for name, weight in model.named_parameters()
        if "adapters." in name and not weight.requires_grad
    }


def load_trainable(model: AdapterModel, path: Path) -> None:
    """Brings back what `trainable_state` held.

    Raises:
        UserError: the file is damaged, or holds other weights than those that train.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); remove this checkpoint to go on from an older one"
        ) from error
    shapes = {name: weight.shape for name, weight in model.named_parameters() if weight.requires_grad}
    if {name: weight.shape for name, weight in state.items()} != shapes:
        raise UserError(
            f"{path}: holds other weights than those that train now; the run was started with another setup"
        )
    model.load_state_dict(state, strict=False)

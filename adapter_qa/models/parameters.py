"""The weights of a model by name: which part of the setup each belongs to, and how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:  # run.json is read before torch is imported
    from torch import nn
    from transformers import PreTrainedModel

    from adapter_qa.models.adapter_setup import AdapterSetup
    from adapter_qa.models.adapter_source import AdapterSource

FUSION_MARK = "adapter_fusion_layer."  # in the names of a fusion's weights


def adapter_mark(source: AdapterSource) -> str:
    """Return what the names of all weights of an adapter have in common."""
    return f"{'loras' if source.is_low_rank else 'adapters'}.{source.name}."


def head_names(model: PreTrainedModel) -> set[str]:
    """Return the names of the head's weights.

    Weights that are tied to the embeddings are left out: they belong to the base model and stay frozen.
    """
    output: nn.Module | None = model.get_output_embeddings()
    tied = {id(weight) for weight in output.parameters()} if output is not None else set()
    prefix = model.base_model_prefix + "."
    return {name for name, weight in model.named_parameters() if not name.startswith(prefix) and id(weight) not in tied}


def fusion_values(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return name and weight, (h, h), of every value matrix of a fusion."""
    return [
        (name, weight)
        for name, weight in model.named_parameters()
        if FUSION_MARK in name and name.endswith(".value.weight")
    ]


class ParameterCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of parameters, as in run.json.

    Attributes:
        base: the base model with its head.
        added: adapters and fusion.
        trainable: those that the run trains; 0 if it only evaluates. Runs of versions up to 0.2.0 count what could
            train then, too.
        parts: each adapter by its name, `fusion` if there is one, and `head`, which is part of `base`.
    """

    base: int
    added: int
    trainable: int
    percent_added: float | None = None  # no report needs it
    parts: dict[str, int]


def parameter_table(model: PreTrainedModel, setup: AdapterSetup | None, *, trains: bool = True) -> ParameterCounts:
    """Count the parameters of a model by part.

    Args:
        model: with its adapters.
        setup: None for full fine-tuning.
        trains: whether anything is trained.
    """
    parts_of_marks = {adapter_mark(source): source.name for source in setup.adapters} if setup is not None else {}
    if setup is not None and setup.fused:
        parts_of_marks[FUSION_MARK] = "fusion"
    parts = dict.fromkeys([*parts_of_marks.values(), "head"], 0)
    head = head_names(model)
    base = 0
    for name, weight in model.named_parameters():
        part = next((part for mark, part in parts_of_marks.items() if mark in name), None)
        if part is not None:
            parts[part] += weight.numel()
            continue
        base += weight.numel()
        if name in head:
            parts["head"] += weight.numel()
    added = sum(count for part, count in parts.items() if part != "head")
    return ParameterCounts(
        base=base,
        added=added,
        trainable=sum(weight.numel() for weight in model.parameters() if trains and weight.requires_grad),
        percent_added=round(100 * added / base, 2),
        parts=parts,
    )


def format_table(counts: ParameterCounts) -> str:
    """Return the counts as text, a line for each."""
    rows = [("base with head", counts.base)]
    rows += [(f"  {part}" if part == "head" else part, count) for part, count in counts.parts.items()]
    rows += [("added", counts.added), ("trainable", counts.trainable)]
    return "\n".join(f"{label:<16}{count:>16,} {100 * count / counts.base:>8.2f} %" for label, count in rows)

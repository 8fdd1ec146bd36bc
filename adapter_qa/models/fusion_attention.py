"""Fusion attention: how much weight a fusion gives to each of its adapters, by adapter site.

A fusion layer mixes its adapters' outputs token by token with softmax weights (Pfeiffer et al., 2021, arXiv 2005.00247,
section 3.2). Their means over the tokens of many windows, separately for questions and contexts, show which adapter is
used where. The scores are read from the input of the softmax, which the library's layer and `fusion.FusionLayer` both
pass through a dropout module. So no score is computed twice, and nothing more is computed without a recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from adapters import Fuse
from adapters.methods.bottleneck import BottleneckLayer
from adapters.methods.modeling import BertFusion
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from adapter_qa.data.window_dataset import question_mask
from adapter_qa.data.windows import PairLayout
from adapter_qa.models.adapter_model import as_adapter_model
from adapter_qa.models.fusion import FusionLayer
from adapter_qa.models.metadata import FusionAttentionDocument

BLOCKS = {"mh_adapter": "attention", "output_adapter": "output"}  # the block that an adapter follows, by its location


class FusionAttention:
    """Sums of fusion weights over tokens. They are on the model's device, so that no batch waits for a transfer.

    Args:
        model: a model with adapters.
        fusion: the model's active fusion; None if it has none, and the record stays empty.
        layout: how the windows join question and context.

    Attributes:
        sites: labels of the adapter sites with the fusion, from the lowest up: the number of the encoder layer, from 0,
            and if a layer has two sites, the block that each follows, e.g. "0 attention".
        sums: (sites, 2, adapters) float64, weights summed over question tokens and over context tokens.
        counts: (3,) float64, numbers of question tokens, context tokens and windows.
    """

    def __init__(self, model: PreTrainedModel, fusion: Fuse | None, layout: PairLayout):
        numbered_sites = fusion_sites(model, fusion.name) if fusion is not None else []
        two_per_layer = len({number for number, _ in numbered_sites}) < len(numbered_sites)
        self.adapters: list[str] = list(fusion.children) if fusion is not None else []
        self.layout = layout
        self.sites: list[str] = []
        self._layers: list[FusionLayer | BertFusion] = []
        self._columns: list[list[int]] = []  # by site: indices of the adapters with a module there
        for number, site in numbered_sites:
            self.sites.append(f"{number} {BLOCKS[site.location_key]}" if two_per_layer else str(number))
            self._layers.append(site.adapter_fusion_layer[",".join(self.adapters)])
            self._columns.append([index for index, name in enumerate(self.adapters) if name in site.adapters])
        self._scores: list[list[torch.Tensor]] = [[] for _ in self.sites]
        self._encoder = model.base_model
        device = next(model.parameters()).device
        self.sums = torch.zeros(len(self.sites), 2, len(self.adapters), dtype=torch.float64, device=device)
        self.counts = torch.zeros(3, dtype=torch.float64, device=device)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Store the scores of each forward pass in the block, for `add`; the next pass overwrites them.

        Where layers share their weights (ALBERT), a site has scores of every layer that runs with them.
        """

        def add_hook(index: int, layer: FusionLayer | BertFusion) -> RemovableHandle:
            def store_scores(module: nn.Module, inputs: Any, scores: torch.Tensor) -> None:
                self._scores[index].append(self._scores_of_all_adapters(index, scores))

            dropout: nn.Module = layer.dropout
            return dropout.register_forward_hook(store_scores)

        def forget_scores(*_: object) -> None:
            self._scores = [[] for _ in self.sites]

        hooks = [add_hook(index, layer) for index, layer in enumerate(self._layers)]
        if hooks:
            hooks.append(self._encoder.register_forward_pre_hook(forget_scores))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _scores_of_all_adapters(self, index: int, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores at a site, (batch, tokens, adapters); -inf for adapters without a module there."""
        layer, columns = self._layers[index], self._columns[index]
        if isinstance(layer, BertFusion):
            scores = scores / layer.T  # the temperature, usually 1
        if len(columns) == len(self.adapters):
            return scores
        all_scores = scores.new_full((*scores.shape[:2], len(self.adapters)), -torch.inf)
        all_scores[..., columns] = scores
        return all_scores

    def add(self, batch: dict[str, torch.Tensor], windows: int) -> None:
        """Add the weights of the last forward pass, of the first `windows` in the batch; later ones are repetitions.

        Those of a site that several layers share are averaged over the layers.
        """
        if not self.sites:
            return
        tokens = torch.stack([question_mask(batch, self.layout), batch["context_mask"]], 1)[:windows].double()
        scores = torch.stack([score for of_site in self._scores for score in of_site])
        weights = torch.softmax(scores.float(), -1)[:, :windows].double()
        sums = torch.einsum("bkt,pbtn->pkn", tokens, weights).split([len(of_site) for of_site in self._scores])
        self.sums += torch.stack([of_layers.mean(0) for of_layers in sums])
        self.counts[:2] += tokens.sum((0, 2))
        self.counts[2] += windows

    def document(self) -> FusionAttentionDocument:
        """Return the mean weights, as fusion_attention.json holds them."""
        sums, counts = self.sums.cpu(), self.counts.cpu()
        return {
            "adapters": self.adapters,
            "windows": int(counts[2]),
            "places": self.sites,
            "question": _means(sums[:, 0], counts[0]),
            "context": _means(sums[:, 1], counts[1]),
            "all": _means(sums.sum(1), counts[:2].sum()),
        }


def _means(sums: torch.Tensor, tokens: torch.Tensor) -> list[list[float]]:
    """Return (sites, adapters) means, or no rows if there are no tokens."""
    return (sums / tokens).tolist() if tokens else []


def fusion_sites(model: PreTrainedModel, fusion_name: str) -> list[tuple[int, BottleneckLayer]]:
    """Return the adapter sites that have a fusion, from the lowest up, with the numbers of their encoder layers."""
    return [
        (number, module)
        for number, layer in as_adapter_model(model).iter_layers()
        for module in layer.modules()
        if isinstance(module, BottleneckLayer) and fusion_name in module.adapter_fusion_layer
    ]

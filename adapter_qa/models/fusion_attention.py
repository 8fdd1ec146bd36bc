"""Fusion attention: how much weight a fusion gives to each of its adapters, by place in the encoder.

A fusion layer mixes its adapters' outputs token by token with softmax weights (Pfeiffer et al., 2021, arXiv 2005.00247,
section 3.2). Their means over the tokens of many windows, those of questions and of contexts apart, tell which adapter
is listened to where. The scores are taken from the fusion layer's dropout, which both the library's layer and ours
pass them through: nothing is computed twice, and without a recording nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from adapters import Fuse
from adapters.methods.bottleneck import BottleneckLayer
from adapters.methods.modeling import BertFusion

from adapter_qa.data.windows import PairLayout

ATTENTION_FILE = "fusion_attention.json"
PARTS = ("question", "context")
LOCATIONS = {"mh_adapter": "attention", "output_adapter": "output"}  # of a place within its layer


class FusionAttention:
    """Sums of fusion weights over tokens; on the model's device, so that no batch waits for it.

    Args:
        model: with its setup.
        fusion: the fusion that is active in it; None makes a record that stays empty.
        layout: how the windows join question and context.

    Attributes:
        adapters: names of the fused adapters.
        places: labels of the fusion layers from below: the encoder's layer, from 0, and where some layer has two of
            them, the block they follow.
        sums: (places, 2, adapters) float64: weights, summed over question and over context tokens.
        counts: (3,) float64: question tokens, context tokens, windows.
    """

    def __init__(self, model: Any, fusion: Fuse | None, layout: PairLayout):
        found = fusion_places(model, fusion.name) if fusion is not None else []
        names = list(fusion.children) if fusion is not None else []
        two = len({number for number, _ in found}) < len(found)
        self.adapters: list[str] = names
        self.places = [f"{number} {LOCATIONS[place.location_key]}" if two else str(number) for number, place in found]
        self.layout = layout
        # A layer weighs only those of the adapters that stand there.
        self._columns = [[index for index, name in enumerate(names) if name in place.adapters] for _, place in found]
        self._layers = [place.adapter_fusion_layer[fusion.name] for _, place in found] if fusion is not None else []
        self._scores: list[torch.Tensor] = [torch.empty(0)] * len(found)
        device = next(model.parameters()).device
        self.sums = torch.zeros(len(found), len(PARTS), len(names), dtype=torch.float64, device=device)
        self.counts = torch.zeros(3, dtype=torch.float64, device=device)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """The scores of every forward pass in it are kept until the next one, for `add`."""
        hooks = [
            layer.dropout.register_forward_hook(partial(self._keep, index)) for index, layer in enumerate(self._layers)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _keep(self, index: int, dropout: torch.nn.Module, args: Any, scores: torch.Tensor) -> None:
        """Keeps the scores of a place, (batch, tokens, adapters); an adapter that does not stand there has -inf."""
        layer, columns = self._layers[index], self._columns[index]
        if isinstance(layer, BertFusion):
            scores = scores / layer.T  # the temperature, 1 for most
        if len(columns) < len(self.adapters):
            whole = scores.new_full((*scores.shape[:2], len(self.adapters)), -torch.inf)
            whole[..., columns] = scores
            scores = whole
        self._scores[index] = scores

    def add(self, batch: dict[str, torch.Tensor], windows: int) -> None:
        """Adds the weights of the last forward pass.

        Args:
            batch: of `WindowCollator`, as the model was given it.
            windows: how many of its windows count, from the first; the rest repeats other ones.
        """
        if not self.places:
            return
        tokens = torch.stack([self.layout.question_mask(batch), batch["context_mask"]], 1)[:windows].double()
        weights = torch.softmax(torch.stack(self._scores).float(), -1)[:, :windows].double()
        self.sums += torch.einsum("bkt,pbtn->pkn", tokens, weights)
        self.counts[:2] += tokens.sum((0, 2))
        self.counts[2] += windows

    def document(self) -> dict[str, Any]:
        """Mean weights, as `ATTENTION_FILE` has them.

        Returns:
            `adapters`, `places`, `windows` (how many), and for the tokens of `question`, `context` and `all` of both a
            row a place, with a number an adapter; a row adds up to 1. No rows where there were no tokens.
        """
        sums, counts = self.sums.cpu(), self.counts.cpu()
        totals = {"question": sums[:, 0], "context": sums[:, 1], "all": sums.sum(1)}
        tokens = {"question": counts[0], "context": counts[1], "all": counts[:2].sum()}
        means = {part: (total / tokens[part]).tolist() if tokens[part] else [] for part, total in totals.items()}
        return {"adapters": self.adapters, "windows": int(counts[2]), "places": self.places, **means}


def fusion_places(model: Any, name: str) -> list[tuple[int, BottleneckLayer]]:
    """The places of an encoder where a fusion stands, and the number of their layer, from below."""
    return [
        (number, module)
        for number, layer in model.iter_layers()
        for module in layer.modules()
        if isinstance(module, BottleneckLayer) and name in module.adapter_fusion_layer
    ]


def show_attention(writer: Any, document: dict[str, Any], step: int, *, drawn: bool) -> None:
    """Mean weights of every place and adapter in TensorBoard.

    Args:
        writer: a `SummaryWriter`.
        document: what `FusionAttention.document` returns.
        step: of the training.
        drawn: a heat map as well, where matplotlib is installed; it takes a second.
    """
    for place, row in zip(document["places"], document["all"], strict=False):
        for name, weight in zip(document["adapters"], row, strict=True):
            writer.add_scalar(f"fusion_attention/{place}/{name}", weight, step)
    if drawn and find_spec("matplotlib") is not None:
        from adapter_qa.reporting.figures import attention_figure

        writer.add_figure("fusion_attention", attention_figure(document), step)
    writer.flush()

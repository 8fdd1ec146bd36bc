"""Pictures of what runs left, drawn with matplotlib."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure


def attention_figure(document: dict[str, Any]) -> Figure:
    """A heat map of `fusion_attention.json`: for question and context a row a place, a column an adapter."""
    parts = [part for part in ("question", "context") if document[part]]
    places, names = document["places"], document["adapters"]
    figure = Figure(figsize=(2 + len(parts) * (1 + len(names)), 1.2 + 0.3 * len(places)), layout="constrained")
    for axes, part in zip(figure.subplots(1, max(len(parts), 1), squeeze=False)[0], parts, strict=False):
        image = axes.imshow(document[part], vmin=0, vmax=1, cmap="viridis", aspect="auto")
        axes.set_title(f"{part} tokens")
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(places)), places)
        axes.set_ylabel("layer")
        figure.colorbar(image, ax=axes, label="mean weight")
    return figure

"""An independent entity scorer that collects spans label by label and counts them."""

from __future__ import annotations


def spans(labels: list[str]) -> set[tuple[int, int, str]]:
    """Return (start, end, type) of every entity. An I- label without a B- label starts an entity, as in conlleval."""
    entities = set()
    start, current = None, ""
    for index, label in enumerate([*labels, "O"]):
        prefix, _, entity = label.partition("-")
        if start is not None and (prefix != "I" or entity != current):
            entities.add((start, index, current))
            start = None
        if start is None and prefix != "O":
            start, current = index, entity
    return entities


def counted_scores(gold: list[list[str]], predicted: list[list[str]]) -> dict[str, float]:
    """Return precision, recall and F1 in percent, and the number of gold entities, in total and per type."""
    gold_spans = {(number, *span) for number, labels in enumerate(gold) for span in spans(labels)}
    predicted_spans = {(number, *span) for number, labels in enumerate(predicted) for span in spans(labels)}
    scores: dict[str, float] = {}
    for entity in ["", *sorted({span[3] for span in gold_spans | predicted_spans})]:
        expected = {span for span in gold_spans if entity in ("", span[3])}
        proposed = {span for span in predicted_spans if entity in ("", span[3])}
        hits = len(expected & proposed)
        precision = hits / len(proposed) if proposed else 0.0
        recall = hits / len(expected) if expected else 0.0
        prefix = f"{entity}_" if entity else ""
        scores[f"{prefix}precision"] = 100 * precision
        scores[f"{prefix}recall"] = 100 * recall
        scores[f"{prefix}f1"] = 100 * 2 * precision * recall / (precision + recall) if hits else 0.0
        scores[f"{prefix}entities"] = len(expected)
    return scores

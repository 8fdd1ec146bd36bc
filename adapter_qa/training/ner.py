"""Named entities: word labels to token labels, class weights, entity scores, and the trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from seqeval.metrics import classification_report
from torch.nn import functional
from transformers import EvalPrediction

from adapter_qa.data.batches import encoder_inputs
from adapter_qa.data.labels import IGNORED
from adapter_qa.data.token_classification import TokenClassificationDataset, sentence_labels
from adapter_qa.training.adapter_trainer import AdapterTrainer

# ---------------------------------------------------------------- words to tokens


# ---------------------------------------------------------------- learning and scoring


def entity_scores(gold: list[list[str]], predicted: list[list[str]]) -> dict[str, float]:
    """Entity-level precision, recall and F1 in percent by seqeval, over all entities (micro) and for each type: an
    entity counts if its type and both its ends are right.

    Returns:
        `precision`, `recall`, `f1`, `entities`, and the first three again as `<TYPE>_precision` and so on.
    """
    report = classification_report(gold, predicted, output_dict=True, zero_division=0)
    scores: dict[str, float] = {}
    for name, row in report.items():
        if name in ("macro avg", "weighted avg"):
            continue
        prefix = "" if name == "micro avg" else f"{name}_"
        scores |= {
            f"{prefix}precision": 100 * float(row["precision"]),
            f"{prefix}recall": 100 * float(row["recall"]),
            f"{prefix}f1": 100 * float(row["f1-score"]),
        }
        scores[f"{prefix}entities"] = int(row["support"])
    return scores


class NERTrainer(AdapterTrainer):
    """`AdapterTrainer` for entity labels.

    Args:
        names: all labels.
        weights: (classes,) float32, of the classes in the loss; None weighs them alike.
        eval_dataset: what is evaluated on; its labels are on the first piece of each word.
        others: as for `AdapterTrainer`.
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        weights: np.ndarray | None,
        eval_dataset: TokenClassificationDataset | None,
        **others: Any,
    ):
        super().__init__(
            eval_dataset=eval_dataset,
            compute_metrics=self.score,
            preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
            **others,
        )
        self.names = names
        self.weights = None if weights is None else torch.from_numpy(weights)
        self.scored = eval_dataset

    def task_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Weighted cross entropy of the labelled tokens of a batch, in float32, and the sum of their weights."""
        labels = inputs["labels"].flatten()
        outputs = model(**encoder_inputs(inputs, [name for name in inputs if name != "labels"]))
        logits = outputs.logits.float().flatten(0, 1)
        weights = None if self.weights is None else self.weights.to(logits)
        total = functional.cross_entropy(logits, labels, weights, ignore_index=IGNORED, reduction="sum")
        counted = (labels != IGNORED).to(logits)
        if weights is not None:
            counted = counted * weights[labels.clamp(min=0)]
        return total, counted.sum(), outputs

    def score(self, prediction: EvalPrediction) -> dict[str, float]:
        """Entity scores of `self.scored`, whose predictions these are; none where labels are not known."""
        if self.scored is None:
            return {}
        predicted = sentence_labels(np.asarray(prediction.predictions), self.scored, self.names)
        gold = sentence_labels(np.asarray(prediction.label_ids), self.scored, self.names)
        return entity_scores(gold, predicted)

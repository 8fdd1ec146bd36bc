"""The trainer of a NER adapter, and the scores of entities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from seqeval.metrics import classification_report
from torch.nn import functional
from transformers import EvalPrediction

from adapter_qa.config.run_configs import LABELS_KEY
from adapter_qa.data.batches import encoder_inputs
from adapter_qa.data.label_entropy import class_entropy
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.token_classification import TokenClassificationDataset, sentence_labels
from adapter_qa.training.adapter_trainer import AdapterTrainer, TaskLoss


def entity_scores(gold: list[list[str]], predicted: list[list[str]]) -> dict[str, float]:
    """Return entity-level precision, recall and F1 in percent by seqeval, over all entities (micro) and by type.

    An entity counts as right if its type, its first and its last word are right.

    Returns:
        `precision`, `recall`, `f1` and `entities` (their number), and for each type `<TYPE>_precision` and so on.
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
            f"{prefix}entities": int(row["support"]),
        }
    return scores


class NERTrainer(AdapterTrainer):
    """`AdapterTrainer` for named entity recognition.

    Args:
        names: of the labels, which are the classes of the head.
        unseen: further labels of the evaluation inputs, with the indices after those of `names`. Tokens that have them
            count in the scores and not in the loss.
        weights: (classes,) float32, weights of the classes in the loss; None: all 1.
        eval_dataset: evaluation inputs, labelled on the first token of each word; None without evaluation.
        kwargs: as for `AdapterTrainer`.
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        unseen: Sequence[str] = (),
        weights: np.ndarray | None,
        eval_dataset: TokenClassificationDataset | None,
        **kwargs: Any,
    ):
        kwargs["args"].label_names = [LABELS_KEY]  # the option of this name has class names
        super().__init__(
            eval_dataset=eval_dataset,
            compute_metrics=self.score,
            preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
            **kwargs,
        )
        self.names = [*names, *unseen]
        self.class_count = len(names)
        self.weights = None if weights is None else torch.from_numpy(weights).to(self.args.device)
        self.scored_dataset = eval_dataset

    def task_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> TaskLoss:
        """Return the sum of the cross entropies of the labelled tokens, and the sum of their weights.

        Evaluations have no weights, so that their losses stay comparable.
        """
        labels = self._classes(inputs)
        weights = self.weights if model.training else None
        names = [name for name in inputs if name != "labels"]
        outputs = model(**encoder_inputs(inputs, names, self.mask_dimensions))
        logits = outputs.logits.float().flatten(0, 1)
        smoothing = self.smoothing(model)
        total = functional.cross_entropy(
            logits, labels, weights, ignore_index=IGNORE_INDEX, reduction="sum", label_smoothing=smoothing
        )
        return TaskLoss(total, _sum_of_weights(labels, weights), outputs)

    def _classes(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return (batch * length,) int64: the class of each token; `IGNORE_INDEX` where it has none or is unseen."""
        labels = inputs["labels"].flatten()
        if len(self.names) > self.class_count:
            labels = labels.masked_fill(labels >= self.class_count, IGNORE_INDEX)
        return labels

    def loss_weight(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the sum of the weights of the labelled tokens in training."""
        return _sum_of_weights(self._classes(inputs), self.weights)

    def label_entropy(self) -> float:
        """Return the entropy of the labels of the training inputs, weighted as in the loss."""
        dataset: Any = self.train_dataset
        weights = np.ones(self.class_count) if self.weights is None else self.weights.cpu().numpy()
        return class_entropy([item.labels for item in dataset.inputs], weights)

    def score(self, prediction: EvalPrediction) -> dict[str, float]:
        """Return the entity scores of predictions for `scored_dataset`; no scores if that is None."""
        if self.scored_dataset is None:
            return {}
        predicted = sentence_labels(np.asarray(prediction.predictions), self.scored_dataset, self.names)
        gold = sentence_labels(np.asarray(prediction.label_ids), self.scored_dataset, self.names)
        return entity_scores(gold, predicted)

    def predict_labels(self, dataset: TokenClassificationDataset) -> list[list[str]]:
        """Return the predicted label of every word of every sentence, without scores."""
        self.scored_dataset = None
        rows = self.predict(dataset, metric_key_prefix="predict").predictions
        return sentence_labels(np.asarray(rows), dataset, self.names)


def _sum_of_weights(labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Return the sum of the class weights of labels, (tokens,) int64; their number without weights."""
    counts = (labels != IGNORE_INDEX).float()
    if weights is not None:
        counts = counts * weights[labels.clamp(min=0)]
    return counts.sum()

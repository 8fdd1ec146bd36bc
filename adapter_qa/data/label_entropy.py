"""The loss of a model that ignores its input, and only knows how often each label occurs.

It is the entropy of the labels (Cover and Thomas, Elements of Information Theory, theorem 5.4.3), in nats. A training
whose loss stays there has learned nothing about its input.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.windows import Windows

EPS = 1e-12  # below the weight of any label


def entropy(weights: npt.NDArray[np.floating] | npt.NDArray[np.integer]) -> float:
    """Return the entropy in nats of labels that occur with these weights, (labels,), which need not sum to 1."""
    shares = weights[weights > 0] / weights.sum()
    return float(-(shares * np.log(shares)).sum())


def class_entropy(inputs: Iterable[npt.NDArray[np.integer]], class_weights: npt.NDArray[np.floating]) -> float:
    """Return the entropy of the labels of tokens, where every input counts the same, as in batches of similar length.

    Args:
        inputs: (tokens,) integers of each input; `IGNORE_INDEX` ones are left out.
        class_weights: (classes,), in the loss.
    """
    total = np.zeros(len(class_weights))
    for labels in inputs:
        weights = np.bincount(labels[labels != IGNORE_INDEX], minlength=len(class_weights)) * class_weights
        total += weights / max(weights.sum(), EPS)
    return entropy(total)


def span_entropy(windows: Windows) -> float:
    """Return the mean over windows of the start's and the end's loss, for a model that knows two things only.

    It knows the share of windows without an answer, and takes all tokens of the context for equally likely otherwise.
    Windows with an unknown answer are left out.
    """
    known = windows.start_position != IGNORE_INDEX
    has_answer = known & (windows.start_position != windows.layout.cls_position)
    tokens = (windows.context_end - windows.context_start)[has_answer]
    answered = has_answer.sum()
    mixture = entropy(np.array([answered, known.sum() - answered]))
    return float(mixture + np.log(tokens).sum() / known.sum())

"""Named heads of the library's AdapterModel classes, as AdapterHub has them, read as heads of the usual classes.

`BertAdapterModel`, called `BertModelWithHeads` by adapter-transformers 1 and 2, keeps any number of heads by name.
`save_head` describes one under "config" in head_config.json, where a usual head has null:

    {"name": "squad", "model_class": "BertAdapterModel", "model_type": "bert", "hidden_size": 768,
     "config": {"head_type": "question_answering", "num_labels": 2, "layers": 1, "activation_function": "tanh",
                "label2id": null}}

Each layer of a head is a dropout and a linear layer, and there is an activation between two. So the only linear layer
of a head of one layer is `heads.<name>.1`, and computes what `qa_outputs` or `classifier` computes of the same encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, NamedTuple

import torch

from adapter_qa.data.label_schemes import IOB_LABEL
from adapter_qa.models.tasks import TASKS, Task, task_of_flexible_head


class FlexibleHead(NamedTuple):
    """A named head, as head_config.json describes it.

    Attributes:
        name: its name.
        head_type: as recorded, e.g. "question_answering".
        purpose: the task that its type belongs to, "qa" or "ner"; None for other types.
        labels: of "ner", the names of the classes in order.
        problem: why it cannot be used, to follow "its head"; None if it can.
    """

    name: str
    head_type: str
    purpose: Task | None
    labels: tuple[str, ...]
    problem: str | None

    @property
    def task(self) -> Task | None:
        """The task that the head can be used for."""
        return self.purpose if self.problem is None else None

    def usual_weights(self, state: Mapping[str, torch.Tensor], names: Set[str]) -> dict[str, torch.Tensor]:
        """Return the weights of the head in a file under the names of a model's own head, as far as they are there.

        Args:
            state: the file's weights; it can hold other heads, too.
            names: of the weights of the model's head.
        """
        layer = TASKS[self.purpose].layer if self.purpose is not None else ""
        found = {name: f"heads.{self.name}.1{name.removeprefix(layer)}" for name in names}
        return {name: state[saved] for name, saved in found.items() if saved in state}


def read_flexible_head(document: Mapping[str, Any]) -> FlexibleHead | None:
    """Read the named head in a head_config.json; None if it describes a usual head."""
    config, name = document.get("config"), str(document.get("name"))
    if not isinstance(config, dict):
        return None
    head_type, layers = str(config.get("head_type")), config.get("layers")
    purpose = task_of_flexible_head(head_type)
    labels = _labels(config.get("label2id"))
    problem = None
    if purpose is None:
        problem = f"is of the type {head_type}"
    elif layers != 1:
        problem = f"has {layers} layers, and only one can be taken over"
    elif purpose == "qa" and config.get("num_labels") != 2:
        problem = f"has {config.get('num_labels')} outputs instead of two, for start and end"
    elif purpose == "ner" and not labels:
        problem = "has no names for its classes (label2id)"
    elif purpose == "ner" and (others := [label for label in labels if not IOB_LABEL.fullmatch(label)]):
        problem = f"has the class {others[0]}, which is none of O, B-TYPE and I-TYPE"
    return FlexibleHead(name, head_type, purpose, labels if purpose == "ner" else (), problem)


def _labels(numbers: Any) -> tuple[str, ...]:
    """Return the names in a "label2id" in the order of their numbers; none if these are not 0, 1 and so on."""
    if not isinstance(numbers, dict) or not all(type(number) is int for number in numbers.values()):
        return ()
    ordered = sorted(numbers, key=numbers.__getitem__)
    return tuple(ordered) if [numbers[label] for label in ordered] == list(range(len(ordered))) else ()

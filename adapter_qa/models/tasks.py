"""The tasks that models are trained for, and what belongs to each: words, script, head, names on the hub."""

from __future__ import annotations

from typing import Literal, NamedTuple

Task = Literal["qa", "ner", "mlm"]


class TaskInfo(NamedTuple):
    """What belongs to a task.

    Attributes:
        name: the task in words.
        script: the training script.
        examples: what its data consists of.
        head: how the names of model classes with its head end in transformers.
        hub_name: the task's name on the hub.
        hub_metrics: the hub's names of metrics by their names in run.json, there after "eval_".
        flexible_head: type of its head in AdapterModel classes, if such a head can be used; see `flexible_heads`.
        layer: the only layer of the head that takes its place.
    """

    name: str
    script: str
    examples: str
    head: str
    hub_name: str
    hub_metrics: dict[str, str]
    flexible_head: str | None = None
    layer: str = ""

    @property
    def auto_class(self) -> str:
        """The class of transformers that loads a model with the head."""
        return f"AutoModel{self.head}"


TASKS: dict[Task, TaskInfo] = {
    "qa": TaskInfo(
        name="question answering",
        script="run_qa_adapter.py",
        examples="questions",
        head="ForQuestionAnswering",
        hub_name="question-answering",
        hub_metrics={"f1": "f1", "exact": "exact_match"},
        flexible_head="question_answering",
        layer="qa_outputs",
    ),
    "ner": TaskInfo(
        name="named entity recognition",
        script="run_ner_adapter.py",
        examples="sentences",
        head="ForTokenClassification",
        hub_name="token-classification",
        hub_metrics={"f1": "f1", "precision": "precision", "recall": "recall"},
        flexible_head="tagging",
        layer="classifier",
    ),
    "mlm": TaskInfo(
        name="masked language modelling",
        script="run_mlm_adapter.py",
        examples="blocks of text",
        head="ForMaskedLM",
        hub_name="fill-mask",
        hub_metrics={"perplexity": "perplexity", "loss": "loss"},
    ),
}
TASK_OF_SCRIPT: dict[str, Task] = {info.script: task for task, info in TASKS.items()}


def task_of_class(model_class: str) -> Task | None:
    """Return the task of a model class of transformers, None for classes without one of our heads."""
    return next((task for task, info in TASKS.items() if model_class.endswith(info.head)), None)


def task_of_flexible_head(head_type: str) -> Task | None:
    """Return the task of a type of head of AdapterModel classes, None for types that cannot be used."""
    return next((task for task, info in TASKS.items() if info.flexible_head == head_type), None)

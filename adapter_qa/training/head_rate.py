"""The default of --head_learning_rate: a head with random values learns faster than the adapters below it."""

from __future__ import annotations

from typing import Any

from adapter_qa.config.checks.optimizer import one_rate_reason
from adapter_qa.config.deepspeed import read_deepspeed
from adapter_qa.config.options import TrainingOptions
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, RunConfig
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.base_config import has_qa_head
from adapter_qa.training.resumed_options import ResumedRun

# At the rate of its adapter, 1e-3, a new NER head learned nothing in 215 steps on one of two encoders. A new QA head
# gained F1 on both, with adapters and without; docs/measurements.md, "The learning rate of a new head".
NEW_NER_HEAD_RATE = 1e-2
NEW_QA_HEAD_FACTOR = 10  # times --learning_rate


def decided_head_rate(
    config: RunConfig, setup: AdapterSetup | None, base_config: dict[str, Any], resumed: ResumedRun | None
) -> float | None:
    """Return --head_learning_rate: as given, or as the resumed run has it, or the default of a head with random values.

    None stands for --learning_rate. Optimizers with one rate for all weights have no other default.
    """
    training = config.training
    given = training.head_learning_rate
    if resumed is not None:
        recorded: float | None = resumed.options.get("head_learning_rate")
        # A resumed run with one rate for all weights may be told so: its optimizer has no group for the head.
        if given is None or (recorded is None and given == training.learning_rate):
            return recorded
    if given is not None:
        return given
    rate = _rate_of_new_head(config, setup, base_config)
    if rate is None or not training.do_train or rate <= training.learning_rate:
        return None
    return None if _has_one_rate(training) else rate


def _rate_of_new_head(config: RunConfig, setup: AdapterSetup | None, base_config: dict[str, Any]) -> float | None:
    """Return the rate of a head that starts from random values; None for one that is trained already, and for MLM."""
    if setup is not None and (setup.loads_saved_head or setup.starting_head is not None):
        return None
    if isinstance(config, NERRunConfig):
        return NEW_NER_HEAD_RATE
    if isinstance(config, MLMRunConfig) or (has_qa_head(base_config) and not config.model.random_init):
        return None
    return NEW_QA_HEAD_FACTOR * config.training.learning_rate


def _has_one_rate(training: TrainingOptions) -> bool:
    """Return whether the optimizer has one learning rate for all weights."""
    deepspeed: dict[str, Any] = {}
    if training.deepspeed is not None:
        deepspeed, _ = read_deepspeed(str(training.deepspeed), warmup=training.warms_up)
    return one_rate_reason(training, deepspeed) is not None


def advice_on_loss(training: TrainingOptions) -> str:
    """Return what to try if a loss stays at the entropy of the labels, with the head's rate that was decided."""
    rate = training.learning_rate if training.head_learning_rate is None else training.head_learning_rate
    if rate < NEW_NER_HEAD_RATE and not _has_one_rate(training):
        return f"train longer, or raise --head_learning_rate, e.g. to {NEW_NER_HEAD_RATE:g}"
    return "train longer, or try another --learning_rate"

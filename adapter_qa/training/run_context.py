"""The objects that the steps of a run hand on; `training.workflow` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.identity import Base
from adapter_qa.models.parameters import ParameterCounts
from adapter_qa.runs.run_record import RunRecord
from adapter_qa.training.training_args import TrainerArguments

FULL_FINE_TUNING = "full fine-tuning"  # the "setup" of such a run in run.json

Config = TypeVar("Config", QARunConfig, NERRunConfig, MLMRunConfig)


@dataclass(frozen=True)
class RunContext(Generic[Config]):
    """What all steps of one run share.

    Attributes:
        config: the options as the user gave them.
        setup: None for full fine-tuning.
        args: the training arguments; what the options leave open is decided.
        precision_reason: why the precision is as it is.
        record: run.json, and the folder of the run.
    """

    config: Config
    setup: AdapterSetup | None
    args: TrainerArguments
    precision_reason: str
    record: RunRecord

    @property
    def setup_name(self) -> str:
        """The composition as text, e.g. `Stack[mlm, qa]`."""
        return FULL_FINE_TUNING if self.setup is None else str(self.setup.block)


@dataclass(frozen=True)
class LoadedBase:
    """The base model of a run before it is built.

    Attributes:
        identity: its options and fingerprints.
        tokenizer: None in a dry run without data.
    """

    identity: Base
    tokenizer: PreTrainedTokenizerFast | None


@dataclass(frozen=True)
class ModelBundle:
    """A model with its head, adapters and fusion, and what is saved beside its weights.

    Attributes:
        loaded_tokenizer: None in a dry run without data.
        metadata: what adapter_setup.json or full_setup.json holds under "trainer".
    """

    model: PreTrainedModel
    loaded_tokenizer: PreTrainedTokenizerFast | None
    parameters: ParameterCounts
    metadata: dict[str, Any]

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the base model."""
        if self.loaded_tokenizer is None:
            raise ValueError("no tokenizer was loaded, because the run has no data")
        return self.loaded_tokenizer

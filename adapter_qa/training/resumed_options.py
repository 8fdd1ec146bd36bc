"""The options that a run takes over from the resumed run: the one that its folder holds, interrupted or finished.

These are options that other options, the device or a saved model decide if they are not given. The run then goes on as
it began, also where a later version or another device would decide otherwise.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from adapter_qa.config.options import HEAD_FROM_QA, IEEE, NEW, TrainingOptions
from adapter_qa.config.run_configs import QARunConfig
from adapter_qa.core.messages import log_note
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.runs.layout import RUN_FILE
from adapter_qa.runs.run_record import recorded_options
from adapter_qa.training.precision import is_accelerated
from adapter_qa.training.run_context import Config
from adapter_qa.training.saved_model_options import as_words

# Options that the device decides if they are not given, and how versions without them computed.
ARITHMETIC = {"bf16": False, "fp16": False, "fp32_products": IEEE, "fast_step": False}
# Options that follow the evaluation if they are not given. They did not in version 0.2.0, which used these defaults.
SAVING_OF_0_2_0: dict[str, Any] = {
    "save_strategy": TrainingOptions.save_strategy,
    "save_steps": TrainingOptions.save_steps,
}


class ResumedRun(NamedTuple):
    """A run that was begun before.

    Attributes:
        folder: its folder.
        options: the values of its options, as run.json has them; options that are newer than the run are missing.
    """

    folder: Path
    options: dict[str, Any]


def resumed_run(training: TrainingOptions, folder: Path | None) -> ResumedRun | None:
    """Return the run in a folder; None if there is none, or if it is to be replaced.

    Raises:
        UserError: if the folder's run.json is damaged.
    """
    if folder is None or training.overwrite_output_dir or not (folder / RUN_FILE).is_file():
        return None
    return ResumedRun(folder, recorded_options(folder))


def resumed_arithmetic(given: TrainingOptions, resumed: ResumedRun) -> dict[str, Any]:
    """Return those options of `ARITHMETIC` that are not given, as the resumed run has them.

    A run from a CPU goes on with a GPU's own step.
    """
    names = {name for name in ARITHMETIC if vars(given)[name] is None}
    if not {"bf16", "fp16"} <= names:  # one of them decides about both
        names -= {"bf16", "fp16"}
    if is_accelerated(given):
        names -= {"fast_step"}
    return {name: resumed.options.get(name, ARITHMETIC[name]) for name in names}


def with_saving_of_0_2_0(training: TrainingOptions, given: Set[str]) -> TrainingOptions:
    """Return the training options; those of `SAVING_OF_0_2_0` that are not `given` have their defaults of 0.2.0."""
    return replace(training, **{name: value for name, value in SAVING_OF_0_2_0.items() if name not in given})


def with_resumed_saving(training: TrainingOptions, given: Set[str], resumed: ResumedRun) -> TrainingOptions:
    """Return the training options. If the resumed run has the defaults of 0.2.0 for saving, they have them, too."""
    of_0_2_0 = with_saving_of_0_2_0(training, given)
    is_same = all(resumed.options.get(name) == vars(of_0_2_0)[name] for name in SAVING_OF_0_2_0)
    return of_0_2_0 if is_same else training


def with_resumed_checkpoints(training: TrainingOptions, resumed: ResumedRun) -> TrainingOptions:
    """Return the training options with --keep_checkpoint: given, or as the resumed run has it.

    A run of a version without the option keeps its checkpoints.
    """
    if training.keep_checkpoint is not None:
        return training
    return replace(training, keep_checkpoint=bool(resumed.options.get("keep_checkpoint", True)))


def with_resumed_windows(config: Config, resumed: ResumedRun) -> Config:
    """Return the options of a run; those from a saved model are as the resumed run has them.

    Version 0.2.0 took nothing over from saved models.
    """
    taken = config.taken_from_saved()
    differing = {name: resumed.options[name] for name in taken if resumed.options.get(name, taken[name]) != taken[name]}
    if differing:
        log_note([f"{as_words(differing)}: as the run in {resumed.folder} began"])
    return replace(config, data=replace(config.data, **differing))


def with_fusion_head(
    config: Config, setup: AdapterSetup | None, resumed: ResumedRun | None
) -> tuple[Config, AdapterSetup | None]:
    """Return options and setup with --fusion_head decided: given, or as the resumed run has it, or as the setup allows.

    Version 0.2.0 began every fusion with a new head.
    """
    if not isinstance(config, QARunConfig):
        return config, setup
    is_open = setup is not None and setup.starting_head is not None and config.fusion.fusion_head is None
    if setup is not None and is_open and resumed is not None and resumed.options.get("fusion_head", NEW) == NEW:
        log_note([f"--fusion_head {NEW}: as the run in {resumed.folder} began"])
        setup = replace(setup, starting_head=None)
    head = NEW if setup is None or setup.starting_head is None else HEAD_FROM_QA
    return replace(config, fusion=replace(config.fusion, fusion_head=head)), setup

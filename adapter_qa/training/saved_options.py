"""The options for windows and answers that a run takes over from the saved model that it evaluates or trains further.

An option that the user gives counts most, then what the begun run in the run's folder recorded, then what the saved
model was trained with, then the default. What is slow to import is imported where it is used, torch for hub ids only.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from adapter_qa.config.options import HEAD_FROM_QA, IEEE, NEW, TrainingOptions
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.config.validation import head_rate_problems
from adapter_qa.core.messages import log_note
from adapter_qa.models.base_config import has_qa_head
from adapter_qa.models.file_names import FULL_FILE, SETUP_FILE
from adapter_qa.runs.layout import RUN_FILE

if TYPE_CHECKING:
    from adapter_qa.models.adapter_setup import AdapterSetup

# Options that the device decides if they are not given, and how versions without them computed.
ARITHMETIC = {"bf16": False, "fp16": False, "fp32_products": IEEE, "fast_step": False}
# Options that follow the evaluation if they are not given. Earlier versions used these values instead.
SAVING: dict[str, Any] = {"save_strategy": TrainingOptions.save_strategy, "save_steps": TrainingOptions.save_steps}
FITTED = ("temperature", "null_score_diff_threshold")  # by a calibration
# At the rate of its adapter, 1e-3, a new NER head learned nothing in 215 steps on one of two encoders. A new QA head
# gained F1 on both, with adapters and without; docs/measurements.md, "The learning rate of a new head".
NEW_NER_HEAD_RATE = 1e-2
NEW_QA_HEAD_FACTOR = 10  # times --learning_rate
Config = TypeVar("Config", QARunConfig, NERRunConfig, MLMRunConfig)


def with_saved_options(config: QARunConfig) -> QARunConfig:
    """Return the options of a run, with those of the saved model that were not given; log what comes from where.

    Raises:
        UserError: if the saved folder is damaged, or not on the hub.
    """
    path = _metadata_file(config)
    if path is None:
        return config
    from adapter_qa.models.metadata import read_metadata

    windows = read_metadata(path).windows
    if windows is None:
        return config
    document = windows.as_options().document()
    saved = {"version_2_with_negative" if name == "version_2" else name: value for name, value in document.items()}
    if config.data.is_calibrated:  # the run fits them itself
        saved = {name: value for name, value in saved.items() if name not in FITTED}
    differing = {name: value for name, value in saved.items() if value != getattr(config.data, name)}
    taken = {name: value for name, value in differing.items() if name not in config.given}
    if taken:
        log_note([f"{_as_words(taken)}: as {path.parent} was trained; other values can be given"])
    log_note(
        f"--{name} {getattr(config.data, name)}: in place of {value}, with which {path.parent} was trained"
        for name, value in differing.items()
        if name not in taken
    )
    return replace(config, data=replace(config.data, **taken))


def _metadata_file(config: QARunConfig) -> Path | None:
    """Return the file in which the saved model of a run recorded its options; None if there is none."""
    if not config.fusion.train_adapter:
        path = Path(config.model.model_name_or_path) / FULL_FILE
        return path if path.is_file() else None
    if config.adapter.load_adapter is None:
        return None
    folder = Path(config.adapter.load_adapter)
    if not folder.is_dir():
        from adapter_qa.models.saved_adapters import find_folder

        folder = find_folder("--load_adapter", config.adapter.load_adapter)
    # `resolve_setup` reports folders without or with several of them.
    paths = [path for path in (folder / SETUP_FILE, *folder.glob(f"adapters-*/{SETUP_FILE}")) if path.is_file()]
    return paths[0] if len(paths) == 1 else None


def with_begun_options(config: Config, folder: Path | None) -> Config:
    """Return the options of a run, with those that the begun run in its folder has in place of a saved model's.

    Earlier versions took nothing over from saved models.

    Raises:
        UserError: if the folder's run.json is damaged.
    """
    taken = config.taken_from_saved()
    recorded = _begun_options(config, folder) if taken else None
    if recorded is None:
        return config
    begun = {name: recorded[name] for name in taken if recorded.get(name, taken[name]) != taken[name]}
    if begun:
        log_note([f"{_as_words(begun)}: as the run in {folder} began"])
    return replace(config, data=replace(config.data, **begun))


def _begun_options(config: Config, folder: Path | None) -> dict[str, Any] | None:
    """Return the options of the run in a folder that this one resumes or finds finished; None if there is none."""
    if folder is None or not (folder / RUN_FILE).is_file() or config.training.overwrite_output_dir:
        return None
    from adapter_qa.runs.run_record import recorded_options

    return recorded_options(folder)


def with_begun_arithmetic(config: Config, folder: Path | None) -> Config:
    """Return the options of a run, with those of `ARITHMETIC` that were not given as the begun run has them.

    Raises:
        UserError: if the folder's run.json is damaged.
    """
    recorded = _begun_options(config, folder)
    if recorded is None:
        return config
    given = {name for name in ARITHMETIC if vars(config.training)[name] is not None}
    if given & {"bf16", "fp16"}:  # one of them decides about both
        given |= {"bf16", "fp16"}
    begun = {name: recorded.get(name, value) for name, value in ARITHMETIC.items() if name not in given}
    return replace(config, training=replace(config.training, **begun))


def with_earlier_saving(config: Config) -> Config:
    """Return the options of a run; those of `SAVING` that were not given have the values of earlier versions."""
    values = {name: value for name, value in SAVING.items() if name not in config.given}
    return replace(config, training=replace(config.training, **values))


def with_begun_saving(config: Config, folder: Path | None) -> Config:
    """Return the options of a run. If an earlier version began it in the folder, it saves as that version did.

    Raises:
        UserError: if the folder's run.json is damaged.
    """
    recorded, earlier = _begun_options(config, folder), with_earlier_saving(config)
    is_earlier = recorded is not None and all(recorded.get(name) == vars(earlier.training)[name] for name in SAVING)
    return earlier if is_earlier else config


def with_begun_head(
    config: Config, setup: AdapterSetup | None, folder: Path | None
) -> tuple[Config, AdapterSetup | None]:
    """Return options and setup with --fusion_head decided: given, or as the begun run has it, or as the setup allows.

    Raises:
        UserError: if the folder's run.json is damaged.
    """
    if not isinstance(config, QARunConfig):
        return config, setup
    if setup is not None and setup.starting_head is not None and config.fusion.fusion_head is None:
        recorded = _begun_options(config, folder)
        if recorded is not None and recorded.get("fusion_head", NEW) == NEW:
            log_note([f"--fusion_head {NEW}: as the run in {folder} began"])
            setup = replace(setup, starting_head=None)
    head = NEW if setup is None or setup.starting_head is None else HEAD_FROM_QA
    return replace(config, fusion=replace(config.fusion, fusion_head=head)), setup


def decided_head_rate(
    config: Config, setup: AdapterSetup | None, base_config: dict[str, Any], folder: Path | None
) -> float | None:
    """Return --head_learning_rate: as given, as the begun run has it, or for a head with random values its default.

    None stands for --learning_rate. Optimizers with one rate for all weights have no other default.

    Raises:
        UserError: if the folder's run.json is damaged.
    """
    training = config.training
    given = training.head_learning_rate
    recorded = _begun_options(config, folder)
    if recorded is not None:
        begun: float | None = recorded.get("head_learning_rate")
        # A begun run with one rate for all weights may be told so: its optimizer has no group for the head.
        if given is None or (begun is None and given == training.learning_rate):
            return begun
    if given is not None:
        return given
    rate = _rate_of_new_head(config, setup, base_config)
    if rate is None or not training.do_train or rate <= training.learning_rate:
        return None
    return None if head_rate_problems(replace(training, head_learning_rate=rate)) else rate


def _rate_of_new_head(config: Config, setup: AdapterSetup | None, base_config: dict[str, Any]) -> float | None:
    """Return the rate of a head that starts from random values; None for one that is trained already, and for MLM."""
    if setup is not None and (setup.loads_saved_head or setup.starting_head is not None):
        return None
    if isinstance(config, NERRunConfig):
        return NEW_NER_HEAD_RATE
    if isinstance(config, MLMRunConfig) or (has_qa_head(base_config) and not config.model.random_init):
        return None
    return NEW_QA_HEAD_FACTOR * config.training.learning_rate


def without_saved_options(config: Config) -> Config:
    """Return the options of a run without those of a saved model, which are no part of a derived folder's name."""
    defaults = {name: getattr(type(config.data), name) for name in config.taken_from_saved()}
    return replace(config, data=replace(config.data, **defaults))


def _as_words(values: dict[str, object]) -> str:
    return " ".join(f"--{name} {value}" for name, value in values.items())

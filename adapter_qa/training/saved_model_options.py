"""The options for inputs and answers that a run takes over from the saved model that it evaluates or trains further.

An option that the user gives counts most, then what the resumed run recorded (`resumed_options`), then what the saved
model was trained with, then the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapter_qa.config.run_configs import QARunConfig, RunConfig
from adapter_qa.core.messages import log_note
from adapter_qa.models.file_names import FULL_FILE, SETUP_FILE
from adapter_qa.models.metadata import RunMetadata, read_metadata
from adapter_qa.models.saved_folders import adapter_dirs, find_folder

if TYPE_CHECKING:
    from adapter_qa.training.run_context import Config

FITTED = ("temperature", "null_score_diff_threshold")  # by a calibration


def with_saved_model_options(config: Config) -> Config:
    """Return the options of a run, with those of the saved model that were not given; log what comes from where.

    Raises:
        UserError: if the saved folder is damaged, or not on the hub.
    """
    path = _metadata_file(config)
    if path is None:
        return config
    saved = _recorded_options(read_metadata(path), config)
    differing = {name: value for name, value in saved.items() if value != vars(config.data)[name]}
    taken = {name: value for name, value in differing.items() if name not in config.given}
    if taken:
        log_note([f"{as_words(taken)}: as {path.parent} was trained; other values can be given"])
    log_note(
        f"--{name} {vars(config.data)[name]}: in place of {value}, with which {path.parent} was trained"
        for name, value in differing.items()
        if name not in taken
    )
    return replace(config, data=replace(config.data, **taken))


def _recorded_options(metadata: RunMetadata, config: RunConfig) -> dict[str, Any]:
    """Return the values of `config.SAVED_OPTIONS` that a saved model recorded, without those that the run fits itself.

    A model of another task has recorded none of them.
    """
    if not isinstance(config, QARunConfig):
        lengths = {"max_seq_length": metadata.max_seq_length, "block_size": metadata.block_size}
        return {name: lengths[name] for name in config.SAVED_OPTIONS if lengths[name] is not None}
    if metadata.windows is None:
        return {}
    document = metadata.windows.as_options().document()
    saved = {"version_2_with_negative" if name == "version_2" else name: value for name, value in document.items()}
    return {name: value for name, value in saved.items() if not (config.data.is_calibrated and name in FITTED)}


def _metadata_file(config: RunConfig) -> Path | None:
    """Return the file in which the saved model of a run recorded its options; None if there is none."""
    if isinstance(config, QARunConfig) and not config.fusion.train_adapter:
        path = Path(config.model.model_name_or_path) / FULL_FILE
        return path if path.is_file() else None
    name = config.adapter.load_adapter
    if name is None:
        return None
    # `resolve_setup` reports folders without or with several of them.
    folders = adapter_dirs(Path(name)) if Path(name).is_dir() else [find_folder("--load_adapter", name)]
    paths = [folder / SETUP_FILE for folder in folders if (folder / SETUP_FILE).is_file()]
    return paths[0] if len(paths) == 1 else None


def without_saved_model_options(config: Config) -> Config:
    """Return the options of a run without those of a saved model, which are no part of a derived folder's name."""
    defaults = {name: getattr(type(config.data), name) for name in config.taken_from_saved()}
    return replace(config, data=replace(config.data, **defaults))


def as_words(values: Mapping[str, object]) -> str:
    """Return options as words of a command line."""
    return " ".join(f"--{name} {value}" for name, value in values.items())

"""The start of a run: its training arguments, its folder, what a begun run in that folder decides, and the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from transformers import set_seed
from transformers.trainer_utils import SaveStrategy

from adapter_qa.config.option_fields import values_before
from adapter_qa.config.options import ModelOptions
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.core.distributed import on_main_process
from adapter_qa.core.errors import UserError
from adapter_qa.core.messages import log_note
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.metadata import read_document
from adapter_qa.models.setup_notes import head_note, setup_notes
from adapter_qa.runs.layout import LOGS_FOLDER, RUN_FILE, fold_folder
from adapter_qa.runs.output_dir import derived_output_dir
from adapter_qa.runs.run_record import RunRecord, open_run, removes
from adapter_qa.training.run_context import Config, RunContext
from adapter_qa.training.saved_options import (
    ARITHMETIC,
    decided_head_rate,
    with_begun_arithmetic,
    with_begun_head,
    with_begun_options,
    with_begun_saving,
    with_earlier_saving,
    without_saved_options,
)
from adapter_qa.training.shared_files import fingerprints
from adapter_qa.training.training_args import (
    TrainerArguments,
    data_and_adapter_options,
    options_record,
    resolve_training_args,
)


class _BegunRun(msgspec.Struct):
    """The data in the run.json of a begun run."""

    data: dict[str, dict[str, Any]] = {}


def start_run(
    script: str, argv: Sequence[str], config: Config, setup: AdapterSetup | None, base_config: dict[str, Any]
) -> RunContext[Config]:
    """Resolve the training arguments, choose the folder of the run, and seed all random generators.

    Nothing is written yet. `script` is its file name, `argv` the command line after it, `base_config` the config.json
    of the base model.

    Raises:
        UserError: if the folder cannot be used, or the library refuses the options.
    """
    log_note(setup_notes(setup) if setup is not None else [])
    args = resolve_training_args(config.training)
    _choose_folder(args, config, setup)
    folder = None if args.dry_run else Path(str(args.output_dir))
    config, setup, args = _as_begun(config, setup, args, folder)
    args.head_learning_rate = decided_head_rate(config, setup, base_config, _begun_folder(config, folder))
    if folder is not None and config.training.overwrite_output_dir and (folder / RUN_FILE).is_file():
        _check_sources_remain(folder, config.model, setup)

    def open_folder() -> RunRecord:
        overwrite = bool(config.training.overwrite_output_dir)
        earlier = values_before(config.groups())
        return open_run(folder, argv, script, options_record(config, args), earlier=earlier, overwrite=overwrite)

    record = on_main_process(open_folder)
    if setup is not None:
        _record_setup(record, setup)
    if config.training.keep_checkpoint is None and record.keeps_checkpoints is not None:
        args.keep_checkpoint = record.keeps_checkpoints  # as the run in the folder began
    args.run_name = args.run_name or args.output_dir  # otherwise trackio would choose a new name when the run resumes
    set_seed(args.seed)
    return RunContext(config, setup, args, record)


def _choose_folder(args: TrainerArguments, config: Config, setup: AdapterSetup | None) -> None:
    """Set the folder of a run, if none is given, and that of a fold; logs are in the folder, if none is given."""
    if args.output_dir_is_derived:
        args.output_dir = _derived_folder(args, config, setup)
    fold = config.data.fold if isinstance(config, QARunConfig) else None
    if fold is not None:
        args.output_dir = str(fold_folder(Path(str(args.output_dir)), fold))
        if args.run_name is not None:
            args.run_name = str(fold_folder(Path(args.run_name), fold))
    if config.training.logging_dir is None and (args.output_dir_is_derived or fold is not None):
        args.logging_dir = str(Path(str(args.output_dir)) / LOGS_FOLDER)


def _record_setup(record: RunRecord, setup: AdapterSetup) -> None:
    """Record where the head comes from and which language adapter was swapped; in a new run, note the head."""
    if setup.starting_head is not None:
        record.document["head_from"] = str(setup.starting_head.folder)
    if setup.language_swap is not None:
        record.document["language_swap"] = msgspec.to_builtins(setup.language_swap)
    note = head_note(setup)
    if note is not None and record.resume_from is None and not record.finished:
        log_note([note])


def _check_sources_remain(folder: Path, options: ModelOptions, setup: AdapterSetup | None) -> None:
    """Check that replacing the run in a folder removes nothing that the new run loads.

    Raises:
        UserError: if it would.
    """
    loaded = [Path(name) for name in (options.model_name_or_path, options.tokenizer_name) if name]
    if setup is not None:
        saved = (*setup.adapters, setup.saved, setup.starting_head)
        loaded += [source.folder for source in saved if source is not None and source.folder is not None]
    for path in loaded:
        if path.exists() and removes(folder, path):
            raise UserError(
                f"--output_dir {folder}: --overwrite_output_dir would remove {path}, which this run loads; give "
                "another folder"
            )


def _derived_folder(args: TrainerArguments, config: Config, setup: AdapterSetup | None) -> str:
    """Return a folder that is named after the options; on a CPU a precision that was not given is no part of it."""
    named = copy(args)
    if args.device.type == "cpu":
        named.bf16 = bool(config.training.bf16)
    groups: list[Any] = [named, config.model, *data_and_adapter_options(without_saved_options(config))]

    def folder() -> Path:
        return derived_output_dir(config.model.model_name_or_path, _data_name(config), setup, groups)

    new = folder()
    named.load_best_model_at_end = with_earlier_saving(config).training.keeps_best
    earlier = folder()
    return str(earlier if (earlier / RUN_FILE).is_file() else new)


def _begun_folder(config: Config, folder: Path | None) -> Path | None:
    """Return the folder whose run decides arithmetic and rates; of a fold that has not begun its cross-validation's."""
    is_new = folder is not None and not (folder / RUN_FILE).is_file()
    is_fold = isinstance(config, QARunConfig) and config.data.fold is not None
    return folder.parent if folder is not None and is_new and is_fold else folder


def _as_begun(
    config: Config, setup: AdapterSetup | None, args: TrainerArguments, folder: Path | None
) -> tuple[Config, AdapterSetup | None, TrainerArguments]:
    """Return what decides a run, with arithmetic, saving, windows and head of the begun run in the folder.

    Options that were given stay.
    """
    begun_folder = _begun_folder(config, folder)
    args = _with_begun_arithmetic(args, config, begun_folder)
    saving = with_begun_saving(config, begun_folder)
    if saving is not config:
        args.save_strategy, args.save_steps = SaveStrategy(saving.training.save_strategy), saving.training.save_steps
        args.load_best_model_at_end = saving.training.keeps_best
    config, setup = with_begun_head(with_begun_options(config, folder), setup, folder)
    return config, setup, args


def _with_begun_arithmetic(args: TrainerArguments, config: Config, folder: Path | None) -> TrainerArguments:
    """Return the training arguments with the arithmetic of the begun run in the folder, where none was given."""
    begun = with_begun_arithmetic(config, folder).training
    if args.device.type != "cpu":  # a run from a CPU goes on with a GPU's own step
        begun = replace(begun, fast_step=config.training.fast_step)
    changed = [name for name in ARITHMETIC if vars(begun)[name] not in (None, vars(args)[name])]
    if not changed:
        return args
    as_begun = resolve_training_args(begun)
    as_begun.output_dir, as_begun.logging_dir = args.output_dir, args.logging_dir
    as_begun.output_dir_is_derived, as_begun.run_name = args.output_dir_is_derived, args.run_name
    as_begun.precision_reason = f"as the run in {folder} began"
    return as_begun


def _data_name(config: QARunConfig | NERRunConfig | MLMRunConfig) -> str:
    """Return the data set, or else the first data file and how many more its split has; for a derived folder's name."""
    if config.data.dataset_name is not None:
        return config.data.dataset_name
    splits = [split for split in config.all_splits() if split.files]
    if not splits:
        return "none"
    first, *others = splits[0].paths()
    return str(first.with_stem(f"{first.stem}_and_{len(others)}_more") if others else first)


def check_data_unchanged(run: RunContext[Config], sources: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare the files of a run with those that it began with; a finished one gets a note.

    Args:
        run: the run.
        sources: where each split comes from, as run.json records it.

    Raises:
        UserError: the run was interrupted, and files to train on or to choose the epoch with have changed.
    """
    record = run.record
    if record.folder is None or not (record.finished or record.resume_from is not None):
        return
    begun = read_document(record.folder / RUN_FILE, _BegunRun).data
    changed = []
    for name, option in (("train", "train_file"), ("eval", "validation_file")):
        before = [file["sha256"] for file in fingerprints(begun.get(name, {}))]
        now_read = fingerprints(sources.get(name, {}))
        if before and before != [file["sha256"] for file in now_read]:
            changed.append(f"--{option} {', '.join(file['file'] for file in now_read)}")
    if not changed:
        return
    problem = f"{record.folder}: {' and '.join(changed)} changed since this run began"
    if not record.finished:
        raise UserError(f"{problem}; give the content of then, another folder, or --overwrite_output_dir to start anew")
    log_note([f"{problem}; --overwrite_output_dir does it again"])

"""The start of a run: its setup, options and folder, what the resumed run in that folder decides, and the seeds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import set_seed

from adapter_qa.config.option_fields import values_before
from adapter_qa.config.options import IEEE, ModelOptions, TrainingOptions
from adapter_qa.config.run_configs import MLMRunConfig, QARunConfig, RunConfig
from adapter_qa.core.distributed import on_main_process
from adapter_qa.core.errors import UserError, run_all
from adapter_qa.core.messages import log_note
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.base_config import check_window
from adapter_qa.models.setup_decisions import check_head, resolve_setup
from adapter_qa.models.setup_notes import head_note, setup_notes
from adapter_qa.models.tasks import Task
from adapter_qa.runs.layout import LOGS_FOLDER, RUN_FILE, fold_folder
from adapter_qa.runs.output_dir import derived_output_dir
from adapter_qa.runs.run_document import DataSource, read_run_document
from adapter_qa.runs.run_record import RunRecord, open_run, removes
from adapter_qa.training.head_rate import decided_head_rate
from adapter_qa.training.precision import is_accelerated
from adapter_qa.training.resumed_options import (
    resumed_arithmetic,
    resumed_run,
    with_fusion_head,
    with_resumed_checkpoints,
    with_resumed_saving,
    with_resumed_windows,
    with_saving_of_0_2_0,
)
from adapter_qa.training.run_context import Config, RunContext
from adapter_qa.training.saved_model_options import without_saved_model_options
from adapter_qa.training.training_args import (
    data_and_adapter_options,
    decide_arithmetic,
    options_record,
    resolve_training_args,
)


def decide_setup(task: Task, config: RunConfig, base_config: dict[str, Any]) -> AdapterSetup | None:
    """Decide the setup of a run, and check that it can read windows and has the head it needs.

    Returns:
        The setup; None for full fine-tuning.

    Raises:
        UserError: if options conflict with each other, with the base model or with saved folders.
    """
    language = None if isinstance(config, MLMRunConfig) else config.language_adapter
    fusion = config.fusion if isinstance(config, QARunConfig) else None
    if isinstance(config, MLMRunConfig):
        option, length = "--block_size", config.data.block_size
    else:
        option, length = "--max_seq_length", config.data.max_seq_length
    random_init = config.model.random_init
    setup, _ = run_all(
        lambda: resolve_setup(task, base_config, config.adapter, language, fusion, random_init=random_init),
        lambda: check_window(length, option, base_config),
    )
    if task != "mlm":  # the base model has the head of MLM
        check_head(setup, config.training)
    return setup


def start_run(
    script: str,
    argv: Sequence[str],
    config: Config,
    setup: AdapterSetup | None,
    base_config: dict[str, Any],
    sources: dict[str, DataSource],
) -> RunContext[Config]:
    """Decide all options, choose the folder of the run, check and record its data, and seed all random generators.

    Nothing is written yet.

    Args:
        script: its file name.
        argv: the command line after it.
        config: the options.
        setup: of the adapters; None for full fine-tuning.
        base_config: config.json of the base model.
        sources: where the data come from, by split name.

    Raises:
        UserError: if the folder cannot be used, the library refuses the options, or a resumed run trained on other
            data.
    """
    log_note(setup_notes(setup) if setup is not None else [])
    config, setup, training, precision_reason = _decide_options(config, setup, base_config)
    folder = _folder(training)
    overwrite = bool(training.overwrite_output_dir)
    args = resolve_training_args(training)
    options, earlier = options_record(config, args), values_before(config.groups())
    record = on_main_process(lambda: open_run(folder, argv, script, options, earlier=earlier, overwrite=overwrite))
    if record.folder is not None and record.replaces:
        _check_sources_remain(record.folder, config.model, setup)
    if setup is not None:
        _record_setup(record, setup)
    # Otherwise trackio would choose a new name when the run resumes. In run.json the option stays as it was given.
    args.run_name = args.run_name or args.output_dir
    set_seed(args.seed)
    if record.folder is not None and (record.finished or record.resume_from is not None):
        _check_data_unchanged(record.folder, config, sources, finished=record.finished)
    record.document.data = sources
    return RunContext(config, setup, args, precision_reason, record)


def _decide_options(
    config: Config, setup: AdapterSetup | None, base_config: dict[str, Any]
) -> tuple[Config, AdapterSetup | None, TrainingOptions, str]:
    """Decide what options leave open, as the resumed run did if there is one.

    Returns:
        The options of the run, its setup, the training options, and why the precision is as it is. The training options
        within the first are those that were given.
    """
    training, precision_reason = decide_arithmetic(config.training)
    training = _with_folders(training, config, setup)
    folder = _folder(training)
    resumed = origin = resumed_run(training, folder)
    if origin is None and folder is not None and _fold(config) is not None:
        origin = resumed_run(training, folder.parent)  # a new fold computes as its cross-validation does
    if origin is not None:
        arithmetic = resumed_arithmetic(config.training, origin)
        if any(vars(training)[name] != value for name, value in arithmetic.items()):
            training, precision_reason = replace(training, **arithmetic), f"as the run in {origin.folder} began"
        training = with_resumed_saving(training, config.given, origin)
    if resumed is not None:
        training = with_resumed_checkpoints(training, resumed)
        config = with_resumed_windows(config, resumed)
    config, setup = with_fusion_head(config, setup, resumed)
    training = replace(training, head_learning_rate=decided_head_rate(config, setup, base_config, origin))
    return config, setup, training, precision_reason


def _folder(training: TrainingOptions) -> Path | None:
    """Return the folder of a run; None for a dry run."""
    return None if training.dry_run else Path(str(training.output_dir))


def _fold(config: RunConfig) -> int | None:
    """Return the number of the fold that is run; None if the run is no fold."""
    return config.data.fold if isinstance(config, QARunConfig) else None


def _with_folders(training: TrainingOptions, config: Config, setup: AdapterSetup | None) -> TrainingOptions:
    """Return the training options with the folder of the run, that of a fold, and, unless it is given, that of logs.

    The library decides about the logs of a run in a folder that is given.
    """
    fold, run_name, logging_dir = _fold(config), training.run_name, training.logging_dir
    if training.output_dir is None:
        folder = str(_derived_folder(training, config, setup))
    else:
        folder = os.path.expanduser(training.output_dir)
    if fold is not None:
        folder = str(fold_folder(Path(folder), fold))
        run_name = None if run_name is None else str(fold_folder(Path(run_name), fold))
    if logging_dir is None and (training.output_dir is None or fold is not None):
        logging_dir = str(Path(folder) / LOGS_FOLDER)
    return replace(training, output_dir=folder, run_name=run_name, logging_dir=logging_dir)


def _derived_folder(training: TrainingOptions, config: Config, setup: AdapterSetup | None) -> Path:
    """Return a folder that is named after the options, or the one that version 0.2.0 named if it holds a run.

    On a CPU a precision that was not given is no part of the name.
    """
    bf16 = training.bf16 if is_accelerated(training) else config.training.bf16
    named = replace(
        training,
        bf16=bf16 or None,
        fp32_products=None if training.fp32_products == IEEE else training.fp32_products,
        deepspeed=training.deepspeed if training.do_train else None,
    )
    groups: list[Any] = [config.model, *data_and_adapter_options(without_saved_model_options(config))]
    new, of_0_2_0 = (
        derived_output_dir(
            config.model.model_name_or_path,
            _data_name(config),
            setup,
            [replace(named, load_best_model_at_end=saving.keeps_best), *groups],
        )
        for saving in (training, with_saving_of_0_2_0(training, config.given))
    )
    return of_0_2_0 if (of_0_2_0 / RUN_FILE).is_file() else new


def _data_name(config: RunConfig) -> str:
    """Return the data set, or else the first data file and how many more its split has; for a derived folder's name."""
    if config.data.dataset_name is not None:
        return config.data.dataset_name
    splits = [split for split in config.all_splits() if split.files]
    if not splits:
        return "none"
    first, *others = splits[0].paths()
    return str(first.with_stem(f"{first.stem}_and_{len(others)}_more") if others else first)


def _record_setup(record: RunRecord, setup: AdapterSetup) -> None:
    """Record where the head comes from and which language adapter was swapped; in a new run, note the head."""
    if setup.starting_head is not None:
        record.document.head_from = str(setup.starting_head.folder)
    record.document.language_swap = setup.language_swap
    note = head_note(setup)
    if note is not None and record.resume_from is None and not record.finished:
        log_note([note])


def _check_sources_remain(folder: Path, options: ModelOptions, setup: AdapterSetup | None) -> None:
    """Check that replacing the run in a folder removes nothing that the new run loads.

    Raises:
        UserError: if the new run loads a file or folder that would be removed.
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


def _check_data_unchanged(
    folder: Path, config: RunConfig, sources: Mapping[str, DataSource], *, finished: bool
) -> None:
    """Compare the files of a run with those that the run in its folder began with; a finished one gets a note.

    Raises:
        UserError: the run was interrupted, and files to train on or to choose the epoch with have changed.
    """
    recorded = read_run_document(folder).data
    changed = []
    for split in config.all_splits():
        if not finished and split.name not in ("train", "eval"):
            continue  # read after the training
        before = [file.sha256 for file in recorded.get(split.name, DataSource()).fingerprints]
        now_read = sources.get(split.name, DataSource()).fingerprints
        if before and before != [file.sha256 for file in now_read]:
            changed.append(f"--{split.option} {', '.join(file.file for file in now_read)}")
    if not changed:
        return
    problem = f"{folder}: {' and '.join(changed)} changed since this run began"
    if not finished:
        raise UserError(f"{problem}; give the content of then, another folder, or --overwrite_output_dir to start anew")
    log_note([f"{problem}; --overwrite_output_dir does it again"])

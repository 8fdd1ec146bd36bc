"""run.json, the record of a run: command, options, environment and results; and whether a run may use a folder.

The file is replaced as a whole at every stage, so readers never see half of it. Nothing is written before
`RunRecord.begin`, which is called after all input has been checked.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from adapter_qa.core.distributed import is_main_process, process_count
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import find_obstacle, kind, read_json, remove_path, temporary_path, write_json
from adapter_qa.models.file_names import FULL_FILE
from adapter_qa.runs.checkpoints import newest_checkpoint
from adapter_qa.runs.layout import CARD_FILE, FOLD_NAME, LOCK_FILE, REMOVABLE, RUN_FILE
from adapter_qa.runs.lock import lock_run_dir
from adapter_qa.runs.provenance import device_name, hide_secrets, now, source_commit, versions
from adapter_qa.runs.run_document import RunDocument, Times

NEUTRAL_OPTIONS = re.compile(
    r"overwrite_output_dir|dry_run|output_dir|run_name|logging_dir|report_to|disable_tqdm|resume_from_checkpoint"
    r"|local_rank|push_to_hub.*|push_at_end|hub_.*|license|project|trackio_space_id|keep_checkpoint|fast_step"
    r"|use_cpu|dataloader_pin_memory"  # the device decides about them
    # Earlier versions accepted these, without effect.
    r"|accelerator_config|auto_find_batch_size|average_tokens_across_devices|batch_eval_metrics|eval_do_concat_batches"
    r"|eval_use_gather_object|fsdp_.*|half_precision_backend|include_for_metrics|include_inputs_for_metrics"
    r"|jit_mode_eval|length_column_name|liger_kernel_config|logging_nan_inf_filter|mp_parameters|past_index"
    r"|prediction_loss_only|ray_scope|remove_unused_columns"
    r"|restore_callback_states_from_checkpoint|save_on_each_node|save_only_model|save_safetensors|tpu_.*"
    r"|use_legacy_prediction_loop|use_liger_kernel|use_mps_device|torchdynamo"
)  # options that do not change what is trained
NAMED_DIFFERENCES = 5  # differing options that an error message names


@dataclass
class RunRecord:
    """The record of one run, before and after it is written to run.json.

    Attributes:
        folder: None in a dry run, which writes nothing.
        document: the content of the file.
        resume_from: newest complete checkpoint of an interrupted run with the same options, if any.
        finished: whether the folder holds a finished run with the same options.
        replaces: whether files of an earlier run, or of folds that ran alone, are removed when this run begins.
        begun: whether this process uses the folder and writes the file; of several processes only one does.
        started: time of `time.perf_counter` in seconds.
        previous: content of the run.json that was in the folder when it was opened; None if there was none.
    """

    folder: Path | None
    document: RunDocument
    resume_from: Path | None = None
    finished: bool = False
    replaces: bool = False
    begun: bool = False
    started: float = field(default_factory=time.perf_counter)
    previous: bytes | None = None

    def begin(self) -> None:
        """Lock the folder and write run.json. Do nothing in a dry run and in processes other than the main one.

        Raises:
            UserError: the folder cannot be written to, another process works there, or another run has begun there
                since the folder was opened.
        """
        if self.folder is None or self.begun or not is_main_process():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock_run_dir(self.folder)
            if _content(self.folder / RUN_FILE) != self.previous:
                raise UserError(
                    f"--output_dir {self.folder}: another run has begun there since this one started; give the same "
                    "command again, or another folder"
                )
            if self.replaces:
                _remove_old_run(self.folder)
            self.begun = True
            self.document.status = "running"
            self.write()
        except OSError as error:
            problem = f"cannot be written ({error.strerror}); give another folder"
            raise UserError(f"--output_dir {self.folder}: {problem}") from error

    def content(self) -> dict[str, Any]:
        """Return the document as JSON has it."""
        content: dict[str, Any] = msgspec.to_builtins(self.document, enc_hook=float)  # of NumPy's numbers
        return content

    def write(self) -> None:
        """Count the seconds so far and, after `begin`, write the file."""
        self.document.times.seconds = round(time.perf_counter() - self.started, 2)
        if self.folder is not None and self.begun:
            write_json(self.folder / RUN_FILE, self.content())

    def finish(self) -> None:
        """Mark the run as finished; the same command then finds nothing to do."""
        self.document.times.finished = now()
        self.document.status = "finished"
        self.write()


def open_run(
    folder: Path | None,
    argv: Sequence[str],
    script: str,
    options: dict[str, Any],
    *,
    earlier: Mapping[str, Any] | None = None,
    overwrite: bool,
) -> RunRecord:
    """Check whether a run may use a folder: a free one, or that of the same run, interrupted or finished.

    Nothing is written. The folder is locked if an earlier run left a lock file. If a run has several processes, only
    the main one calls this (`core.distributed.on_main_process`).

    Args:
        folder: None for a dry run.
        argv: the command line.
        script: file name of the script.
        options: the value of every option.
        earlier: the values of options that the run.json of an earlier version lacks.
        overwrite: whether files of an earlier run, if there is one, are to be removed when this run begins.

    Raises:
        UserError: the folder is not writable, holds another run or other files, or another process works there.
    """
    document = RunDocument(
        status="planned",
        script=script,
        command=[script, *hide_secrets(argv)],
        options=options | {"processes": process_count()},
        versions=versions(),
        commit=source_commit(),
        device=device_name(),
        times=Times(started=now()),
    )
    record = RunRecord(folder, document)
    if folder is None:
        return record
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output_dir {folder}: is a file; give a folder")
    obstacle = find_obstacle(folder)
    if obstacle is not None:
        reason = "is a file" if obstacle.is_file else "is not writable"
        raise UserError(f"--output_dir {folder}: {obstacle.path} {reason}; give another folder")
    if os.access(folder / LOCK_FILE, os.W_OK):
        lock_run_dir(folder)
    record.previous = _content(folder / RUN_FILE)
    record.replaces = overwrite
    if record.previous is not None:
        if not overwrite:
            _resume_or_reject(record, folder, earlier or {})
    elif folder.is_dir() and any(not _is_of_a_run(path) for path in folder.iterdir()):
        problem = "is not empty and holds no run; give another folder or empty it yourself"
        raise UserError(f"--output_dir {folder}: {problem}")
    return record


def _content(path: Path) -> bytes | None:
    """Return the content of a file; None if there is none."""
    return path.read_bytes() if path.is_file() else None


def _is_of_a_run(path: Path) -> bool:
    """Return whether a path in a folder without run.json is of a run that began there, or of a fold that ran alone."""
    if path.name in (LOCK_FILE, temporary_path(path.with_name(RUN_FILE)).name):
        return True
    return FOLD_NAME.fullmatch(path.name) is not None and (path / RUN_FILE).is_file()


def recorded_options(folder: Path) -> dict[str, Any]:
    """Return the options of the run in a folder that has a run.json.

    Raises:
        UserError: the file is damaged.
    """
    options: dict[str, Any] = _read_previous(folder / RUN_FILE)["options"]
    return options


def _resume_or_reject(record: RunRecord, folder: Path, earlier: Mapping[str, Any]) -> None:
    """Set `resume_from` or `finished` of a record if the run in its folder has the same options."""
    previous = _read_previous(folder / RUN_FILE)
    options = record.document.options
    old_options = {**earlier, **previous["options"]}
    record.finished = previous.get("status") == "finished"
    differing = [
        name
        for name in sorted({*old_options, *options})
        if not NEUTRAL_OPTIONS.fullmatch(name) and old_options.get(name) != options.get(name)
        if not (record.finished and name == "processes")  # nothing is computed again
    ]
    if differing:
        changes = [f"{name} was {old_options.get(name)}, now {options.get(name)}" for name in differing]
        if record.finished:
            kind, remedy = "a finished", "give another folder, or --overwrite_output_dir to replace it"
            if _trains_longer(old_options, options):
                remedy = (
                    f"to train it further give {_to_load(folder, old_options)} and another --output_dir; else {remedy}"
                )
        else:
            kind = "an unfinished"
            remedy = "it resumes with its own options only: give those, another folder, or --overwrite_output_dir"
        raise UserError(
            f"--output_dir {folder}: holds {kind} run with other options ({'; '.join(changes[:NAMED_DIFFERENCES])}); "
            f"{remedy}"
        )
    if not record.finished:
        if options.get("label_smoothing_factor") and "do_lower_case" not in previous["options"]:
            raise UserError(
                f"--output_dir {folder}: holds an unfinished run of a version in which --label_smoothing_factor had no "
                "effect; give another folder, or --overwrite_output_dir to start anew"
            )
        record.resume_from = newest_checkpoint(folder)


def _to_load(folder: Path, options: Mapping[str, Any]) -> str:
    """Return the option that loads what a run with these options has trained, and those that it replaces."""
    if options.get("train_adapter") is False:
        return f"--model_name_or_path {folder}"
    replaced = [f"--{name}" for name in ("load_lang_adapter", "fuse_adapters") if options.get(name)]
    return f"--load_adapter {folder}" + (f" (without {', '.join(replaced)})" if replaced else "")


def _trains_longer(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether the new options ask for more training than a run with the old ones has done."""
    pairs = [(old.get(name), new.get(name)) for name in ("num_train_epochs", "max_steps")]
    numbers = (int, float)
    return old.get("do_train") is new.get("do_train") is True and any(
        isinstance(before, numbers) and isinstance(now, numbers) and now > before for before, now in pairs
    )


def _read_previous(path: Path) -> dict[str, Any]:
    """Return the run.json of an earlier run; records of early versions get `processes`, which they lack."""
    remedy = "give --overwrite_output_dir to replace the run, or another folder"
    try:
        document = read_json(path)
    except UserError as error:
        raise UserError(f"{error}; {remedy}") from error
    options = document.get("options")
    if not isinstance(options, dict):
        actual = f"{kind(options)} as" if "options" in document else "no"
        raise UserError(f'{path}: has {actual} "options" where an object is expected; {remedy}')
    return document | {"options": {"processes": 1} | options}


def removes(folder: Path, path: Path) -> bool:
    """Return whether a run that replaces the one in `folder` removes a file or folder, or what is in it."""
    folder, path = folder.resolve(), path.resolve()
    return path == folder or (folder in path.parents and _is_removed(path.relative_to(folder).parts[0]))


def _is_removed(name: str) -> bool:
    return REMOVABLE.fullmatch(name) is not None


def _remove_old_run(folder: Path) -> None:
    """Remove what runs write, and nothing else.

    run.json is removed last, if there is one: without it, the remaining files would be treated as the user's.
    """
    removed = [path for path in folder.iterdir() if _is_removed(path.name)]
    if (folder / FULL_FILE).is_file():
        removed += folder.glob(CARD_FILE)
    for path in (*removed, folder / RUN_FILE):
        remove_path(path)

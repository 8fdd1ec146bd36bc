"""The steps that the three training scripts share after `run_start.start_run`, in the order of the calls.

run_unless_finished(load_base -> build_model -> train -> save_model -> record_metrics -> finish_run)

Between `build_model` and `train` a script calls `print_plan` or, in a dry run, `print_dry_run` of `run_messages`. The
block from `train` to the last `record_metrics` is `running`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from adapter_qa.config.options import ModelOptions
from adapter_qa.config.run_configs import QARunConfig
from adapter_qa.core.distributed import on_main_process
from adapter_qa.core.errors import Interrupted, ReportedError, UserError, run_all
from adapter_qa.core.files import atomic_file, resolved_name, write_json, write_text
from adapter_qa.core.messages import log_note, print_main
from adapter_qa.core.resource_errors import first_line, report_resource_errors
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.base_model import (
    check_masked_lm_head,
    has_local_weights,
    load_model,
    load_tokenizer,
    without_cudnn_attention,
)
from adapter_qa.models.base_tokenizer import tokenizer_fingerprint
from adapter_qa.models.build import build_setup, check_setup
from adapter_qa.models.fast_step import has_fast_step
from adapter_qa.models.file_names import FULL_FILE
from adapter_qa.models.identity import (
    Base,
    WeightsFingerprint,
    base_files_fingerprint,
    check_origins,
    origins_of,
    swapped_origin,
    weights_fingerprint,
)
from adapter_qa.models.metadata import BaseModelRecord, Origin, TokenizerFingerprint, TrainedOn
from adapter_qa.models.parameters import parameter_table
from adapter_qa.models.save import frozen_adapters, save_setup
from adapter_qa.models.tasks import Task
from adapter_qa.models.weights import check_states
from adapter_qa.runs.checkpoints import checkpoint_steps, discard, remove_leftovers, rotate
from adapter_qa.runs.hub import HubTarget, push_finished
from adapter_qa.runs.layout import (
    BASE_FOLDER,
    FROZEN_FILE,
    OPTIONS_FILE,
    checkpoint_path,
)
from adapter_qa.runs.model_card import write_card
from adapter_qa.runs.provenance import versions
from adapter_qa.runs.run_document import read_run_document
from adapter_qa.runs.run_record import RunRecord
from adapter_qa.training.adapter_trainer import AdapterTrainer
from adapter_qa.training.callbacks import (
    LabelEntropyCallback,
    best_evaluation,
    closed_tensorboard,
    end_of_training,
    record_history,
)
from adapter_qa.training.head_rate import advice_on_loss
from adapter_qa.training.run_context import Config, LoadedBase, ModelBundle, RunContext
from adapter_qa.training.run_messages import print_result, print_scores, shown_progress
from adapter_qa.training.run_summary import units


def run_unless_finished(run: RunContext[Config], steps: Callable[[], None]) -> None:
    """Take the steps of a run, with `failure_recorded`, unless it `is_finished`."""
    if not is_finished(run):
        with failure_recorded(run):
            steps()


def is_finished(run: RunContext[Config]) -> bool:
    """Return whether the folder holds this run, finished. If so, print that, and push the result if asked to.

    A run that was killed right after it was finished may have left checkpoints, which are removed.

    Raises:
        RunError: if the push fails.
    """
    if run.record.finished:
        is_fold = isinstance(run.config, QARunConfig) and run.config.data.fold is not None
        again = "this fold is finished" if is_fold else "this run is finished; --overwrite_output_dir does it again"
        print_main(f"{run.record.folder}: {again}")
        if run.record.folder is not None and not run.args.keep_checkpoint:
            folder = run.record.folder
            on_main_process(lambda: _remove_training_state(folder))
        _push_if_asked(run)
    return run.record.finished


def load_base(run: RunContext[Config], *, has_data: bool, split_words: bool = False) -> LoadedBase:
    """Load the tokenizer, and compare base model and tokenizer with those that saved adapters were trained on.

    A saved setup that is evaluated or trained further brings its tokenizer's options, unless others are given. Without
    data there is no tokenizer in the result.

    Raises:
        UserError: if the tokenizer cannot be used, or the run trains on what was trained on another base.
    """
    options = _with_saved_tokenizer(run.config.model, run.setup)
    origins = origins_of(run.setup)
    if run.record.resume_from is not None and run.record.folder is not None:
        trained_on = read_run_document(run.record.folder).trained_on
        origins[Origin(run.record.folder, trained_on)] = "the interrupted run"
    recorded = [origin.trained_on for origin in origins]
    needs_tokenizer = has_data or any(record.tokenizer_fingerprint is not None for record in recorded)
    needs_weights = _can_read_weights(run) and any(record.base_model.fingerprint is not None for record in recorded)
    tokenizer, weights = run_all(
        lambda: load_tokenizer(options, split_words=split_words) if needs_tokenizer else None,
        lambda: base_files_fingerprint(options) if needs_weights else None,
    )
    identity = Base(options, weights, None if tokenizer is None else tokenizer_fingerprint(tokenizer))
    check_origins(origins, identity, trains=bool(run.args.do_train), swapped=swapped_origin(run.setup))
    return LoadedBase(identity, tokenizer if has_data else None)


def _can_read_weights(run: RunContext[Config]) -> bool:
    """Return whether the base model has weights in files that are here, or that the run may download."""
    options = run.config.model
    return not options.random_init and (not run.args.dry_run or has_local_weights(options))


def _with_saved_tokenizer(options: ModelOptions, setup: AdapterSetup | None) -> ModelOptions:
    """Return the options with those of a saved setup's tokenizer where they are not given."""
    if setup is None or setup.saved is None:
        return options
    saved = setup.saved.metadata
    recorded = {"tokenizer_name": saved.tokenizer, **saved.casing()}
    taken: dict[str, Any] = {
        key: value for key, value in recorded.items() if value is not None and vars(options)[key] is None
    }
    log_note([f"{setup.saved.folder}: --{key} {value}, as it was trained" for key, value in taken.items()])
    return replace(options, **taken)


@contextmanager
def failure_recorded(run: RunContext[Config]) -> Iterator[None]:
    """Write to run.json why a run ends if it ends by an exception: "interrupted" after a signal, else "failed".

    Raises:
        RunError: memory or a file operation failed.
    """
    record = run.record
    try:
        with report_resource_errors(record.folder):
            yield
    except BaseException as error:
        if record.begun and record.document.status != "finished":
            is_stopped = isinstance(error, (Interrupted, KeyboardInterrupt))
            record.document.status = "interrupted" if is_stopped else "failed"
            reason = f"{type(error).__name__}: {first_line(error)}"
            record.document.why = error.problems if isinstance(error, ReportedError) else [reason]
            with suppress(OSError):  # on a full disk; `error` reports that
                record.write()
        raise


def build_model(
    run: RunContext[Config],
    task: Task,
    base: LoadedBase,
    task_metadata: dict[str, Any],
    labels: list[str] | None = None,
) -> ModelBundle:
    """Load the base model, add the adapters, take the folder of the run, and record the parameter counts.

    A dry run builds shapes without weights. `task_metadata` is what the task adds to `ModelBundle.metadata`; `labels`
    are the class names of NER.

    Raises:
        UserError: if the base model cannot be loaded, or lacks a fast step or checkpointing that is asked for; or
            --dataloader_drop_last leaves no batch.
    """
    _check_drop_last(run)
    options, weights = base.identity.options, base.identity.weights
    model = load_model(options, task, labels, shapes_only=run.args.dry_run)
    if run.config.training.fast_step and not has_fast_step(model.config):
        raise UserError(f"--fast_step True: {options.model_name_or_path} has no fast step; leave it out")
    if run.config.training.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(
            f"--gradient_checkpointing True: the library has none for {model.config.model_type}; leave it out, and for "
            "less memory give --tokens_per_batch"
        )
    if run.record.folder is not None and weights is None:
        weights = weights_fingerprint(model)
    if options.random_init:
        check_origins(
            origins_of(run.setup),
            Base(options, weights, None),
            trains=bool(run.args.do_train),
            swapped=swapped_origin(run.setup),
        )
        _save_random_base(run.record, model, base.tokenizer)
    elif task == "mlm" and _can_read_weights(run) and not (run.setup is not None and run.setup.loads_saved_head):
        check_masked_lm_head(options, model)
    if run.setup is not None:
        build_setup(model, run.setup)
    on_main_process(run.record.begin)
    write_options(run)
    document = run.record.document
    parameters = parameter_table(model, run.setup, trains=bool(run.args.do_train or run.args.dry_run))
    document.setup, document.parameters = run.setup_name, parameters
    document.trained_on = _trained_on(options, weights, base.identity.tokenizer)
    run.record.write()
    metadata = {**msgspec.to_builtins(document.trained_on), "versions": versions(), **task_metadata}
    return ModelBundle(model, base.tokenizer, parameters, metadata)


def _check_drop_last(run: RunContext[Config]) -> None:
    """Raise UserError if --dataloader_drop_last would drop the only batch."""
    args, source = run.args, run.record.document.data.get("train")
    if source is None or not args.dataloader_drop_last:
        return
    counts = source.counts()
    unit, _ = units(counts)
    batch = args.train_batch_size * args.world_size
    if counts[unit] < batch:
        raise UserError(
            f"--dataloader_drop_last True: {counts[unit]} {unit} are fewer than one batch of {batch}, so all would be "
            "dropped; leave it out or lower --per_device_train_batch_size"
        )


def write_options(run: RunContext[Config]) -> None:
    """Write the options that are not defaults to options.yaml, which a script accepts as first argument."""
    record = run.record
    if record.folder is None or not record.begun:
        return
    head = f"# Repeats the run: {record.document.script} {OPTIONS_FILE} --output_dir FOLDER\n"
    text = yaml.safe_dump(run.config.non_defaults(), allow_unicode=True, sort_keys=False)
    write_text(record.folder / OPTIONS_FILE, head + text)


def _trained_on(
    options: ModelOptions, weights: WeightsFingerprint | None, tokenizer: TokenizerFingerprint | None
) -> TrainedOn:
    """Return what a run records of its base model and tokenizer."""
    base = BaseModelRecord(_base_name(options), options.model_revision, *(weights or ()))
    name = options.tokenizer_name and resolved_name(options.tokenizer_name)
    return TrainedOn(base, name, tokenizer, options.do_lower_case, options.strip_accents)


def _base_name(options: ModelOptions) -> str:
    """Return a hub id, an absolute path, or a path relative to the saved folder."""
    if options.random_init:
        return f"../{BASE_FOLDER}"
    return resolved_name(options.model_name_or_path)


def _save_random_base(record: RunRecord, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None) -> None:
    """Save a base model with random weights, which exists nowhere else, before adapters are added."""
    on_main_process(record.begin)
    if record.folder is None or not record.begun:
        return
    model.save_pretrained(record.folder / BASE_FOLDER)
    if tokenizer is not None:
        tokenizer.save_pretrained(record.folder / BASE_FOLDER)


@contextmanager
def running(run: RunContext[Config], trainer: AdapterTrainer) -> Iterator[None]:
    """Train and evaluate in the block. Its progress is shown, and it leaves no setting and no thread to the process."""
    with without_cudnn_attention(), closed_tensorboard(trainer), shown_progress(run, trainer):
        yield


def train(run: RunContext[Config], trainer: AdapterTrainer) -> None:
    """Train, resuming from the newest checkpoint if there is one. At the end the model has the best epoch's weights.

    Raises:
        UserError: if the frozen adapters of a resumed run have changed.
        RunError: if the disk is full, or a loss or a weight is NaN.
        Interrupted: if a signal came; a checkpoint is saved.
    """
    check_setup(trainer.model, run.setup)
    with trainer.deferred_signal:
        _train(run, trainer)
    check_setup(trainer.model, run.setup)


def _train(run: RunContext[Config], trainer: AdapterTrainer) -> None:
    record = run.record
    on_main_process(lambda: save_frozen_adapters(trainer.model, trainer.folder))
    label_entropy = trainer.label_entropy()
    record.document.label_entropy = label_entropy
    record.write()
    options = replace(run.config.training, head_learning_rate=trainer.args.head_learning_rate)
    trainer.add_callback(LabelEntropyCallback(label_entropy, advice_on_loss(options)))
    checkpoint = record.resume_from
    if checkpoint is not None:
        on_main_process(lambda: check_states(checkpoint))
    if trainer.args.world_size > 1:  # else every process would draw the same dropout and the same masks
        torch.manual_seed(trainer.args.seed + trainer.args.process_index)
    result = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.raise_if_nan()  # without evaluations, logs and checkpoints nothing has looked
    trainer.raise_if_not_finite(trainer.trained_weights())
    trainer.save_state()
    if trainer.is_world_process_zero():
        record_history(record.document, trainer.state)
        record.document.ended = end_of_training(trainer)
        record.write()
    record_metrics(run, trainer, "train", result.metrics)
    best = best_evaluation(trainer.state)
    if trainer.args.load_best_model_at_end and best is not None:  # what is logged from now on belongs to these weights
        trainer.state.global_step, trainer.state.epoch = best["step"], best["epoch"]


def save_frozen_adapters(model: PreTrainedModel, folder: Path) -> None:
    """Save one copy of the frozen adapters in the folder of the run. Checkpoints hold only what trains.

    Raises:
        UserError: if the run is resumed, and its frozen adapters are not those that it began with.
    """
    state = frozen_adapters(model)
    path = folder / FROZEN_FILE
    if not state:
        return
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            save_file(state, temporary, metadata={"format": "pt"})
        return
    try:
        saved = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}); start anew in another --output_dir") from error
    if saved.keys() != state.keys() or not all(torch.equal(saved[name], state[name]) for name in state):
        raise UserError(
            f"{path}: the frozen adapters have changed since this run began; start anew in another --output_dir"
        )


def save_model(run: RunContext[Config], bundle: ModelBundle, trainer: AdapterTrainer) -> None:
    """Save what was trained, with its card: an `adapters-<task>` folder, or the full model in the folder of the run.

    All processes must call; the main process writes.
    """
    record = run.record
    with trainer.full_model() as model:
        if record.folder is None or not record.begun:
            return
        if run.setup is not None:
            target = record.folder / run.setup.folder_name
            save_setup(model, run.setup, target, bundle.metadata)
        else:
            target = record.folder
            _save_full_model(model, bundle, target)
    record.document.saved = str(target)
    record.write()
    write_card(target, record.document)


def _save_full_model(model: PreTrainedModel, bundle: ModelBundle, folder: Path) -> None:
    model.save_pretrained(folder)
    bundle.tokenizer.save_pretrained(folder)
    metadata = {
        **bundle.metadata,
        "task": "qa",
        "base_model": {"name_or_path": ".", "revision": "main"},
        "tokenizer": None,
        "do_lower_case": None,  # the saved tokenizer has these settings itself
        "strip_accents": None,
        "trained_from": bundle.metadata["base_model"],
    }
    write_json(folder / FULL_FILE, {"trainer": metadata})


def record_metrics(run: RunContext[Config], trainer: AdapterTrainer, split: str, metrics: dict[str, float]) -> None:
    """Write the metrics of a split to `<split>_results.json`, all_results.json and run.json; print its scores.

    After a training they get the epoch and the optimizer step of the weights.
    """
    if trainer.state.epoch is not None:
        metrics = {**metrics, "epoch": trainer.state.epoch, "step": trainer.state.global_step}
    trainer.save_metrics(split, metrics)
    if split != "train":
        print_scores(run, trainer.folder, split, metrics)
    if trainer.is_world_process_zero():
        run.record.document.metrics[split] = metrics
        run.record.write()


def finish_run(run: RunContext[Config], trainer: AdapterTrainer) -> None:
    """Mark the run as finished, complete its card, remove checkpoints, print the result, and push it if asked to.

    Raises:
        RunError: if the push fails. The run is finished nevertheless.
    """
    run.record.finish()
    document = run.record.document
    if run.record.begun and document.saved is not None:
        write_card(Path(document.saved), document)
    _remove_checkpoints(run, trainer)
    print_result(run, trainer.state)
    _push_if_asked(run)


def _push_if_asked(run: RunContext[Config]) -> None:
    args = run.args
    if args.push_at_end:
        target = HubTarget(str(args.hub_model_id), args.hub_token, args.hub_private_repo, args.hub_revision)
        push_finished(run.record, target)


def _remove_checkpoints(run: RunContext[Config], trainer: AdapterTrainer) -> None:
    """Remove what only an interrupted run needs. With --keep_checkpoint keep those of --save_total_limit.

    With a limit of 1 that is the best one.
    """
    state, args = trainer.state, trainer.args
    if not args.should_save or not args.do_train:
        return
    if not args.keep_checkpoint:
        _remove_training_state(trainer.folder)
    elif state.best_model_checkpoint is not None:
        last = int(run.record.document.steps or 0)
        rotate(trainer.folder, last, state.best_global_step, args.save_total_limit)
        if args.save_total_limit == 1 and state.best_global_step != last:
            discard(checkpoint_path(trainer.folder, last))


def _remove_training_state(folder: Path) -> None:
    """Remove checkpoints and the copy of the frozen adapters, which only an interrupted run needs."""
    for step in checkpoint_steps(folder):
        discard(checkpoint_path(folder, step))
    remove_leftovers(folder)
    (folder / FROZEN_FILE).unlink(missing_ok=True)

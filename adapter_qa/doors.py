"""What the three training doors share: taking a folder, building the model, keeping and recording what came out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast, set_seed

from adapter_qa.arguments import ModelOptions, RunOptions
from adapter_qa.basemodel import load_model, quiet_libraries, weights_fingerprint
from adapter_qa.card import write_card
from adapter_qa.composition import build_setup, format_table, parameter_table, save_setup
from adapter_qa.errors import note
from adapter_qa.naming import derived_output_dir
from adapter_qa.planning import Plan
from adapter_qa.processes import first_decides, say
from adapter_qa.records import RunRecord, open_run, versions, write_json
from adapter_qa.saves import FULL_FILE
from adapter_qa.setup_trainer import SetupTrainer
from adapter_qa.sharing import push_finished
from adapter_qa.training_arguments import TrainingRun, as_record, settle

BASE_FOLDER = "base"  # in the run's folder: the drawn weights of a --random_init base


@dataclass(frozen=True)
class Built:
    """A model with its setup, ready to train or to answer.

    Attributes:
        model: with its head, adapters and fusion, frozen as planned.
        table: `composition.parameter_table`.
        facts: what a saved folder needs beside the weights.
    """

    model: PreTrainedModel
    table: dict[str, Any]
    facts: dict[str, Any]


def start_run(
    script: str, argv: Sequence[str], data: str, plan: Plan | None, model: ModelOptions, run: RunOptions, *options: Any
) -> tuple[TrainingRun, RunRecord]:
    """Settles the training options, decides the folder, and seeds everything. Nothing is written yet.

    Args:
        script, argv: the command line.
        data: data set name or data file, for the folder's name.
        plan: the setup; None for full fine-tuning.
        model, run: options.
        options: the other option groups, for the record.

    Raises:
        UserError: the folder holds something else, or the library refuses the options.
    """
    quiet_libraries()
    note(plan.notes if plan is not None else [])
    settled = settle(run)
    if settled.output_dir_is_derived:
        settled.output_dir = str(derived_output_dir(model.model_name_or_path, data, plan, settled, *options))
        settled.logging_dir = str(Path(settled.output_dir) / "runs")
    folder = None if settled.dry_run else Path(str(settled.output_dir))
    asked = as_record(model, *options, settled)
    record = first_decides(partial(open_run, folder, argv, script, asked, overwrite=settled.overwrite_output_dir))
    set_seed(settled.seed)
    return settled, record


def build(
    record: RunRecord,
    model_options: ModelOptions,
    plan: Plan | None,
    task: str,
    run: TrainingRun,
    tokenizer: PreTrainedTokenizerFast | None,
    facts: dict[str, Any],
    labels: list[str] | None = None,
) -> Built:
    """Loads the base, builds the setup, begins the run, keeps a drawn base, prints and records the table of parameters.

    Args:
        record: the run's record.
        model_options: the base model.
        plan: the setup; None for full fine-tuning.
        task: "qa", "mlm" or "ner".
        run: the training options; a dry run builds shapes only.
        tokenizer: saved beside a drawn base.
        facts: what the door adds to the saved folder's JSON.
        labels: class names, for "ner".
    """
    model = load_model(model_options, task, labels, as_plan=run.dry_run)
    base: dict[str, Any] = {"revision": model_options.model_revision}
    if model_options.random_init:
        base["name_or_path"] = f"../{BASE_FOLDER}"  # relative to the saved folder
    else:
        local = Path(model_options.model_name_or_path)
        base["name_or_path"] = str(local.resolve()) if local.is_dir() else model_options.model_name_or_path
    if record.folder is not None:
        base["fingerprint"] = weights_fingerprint(model)
    if model_options.random_init:
        _keep_drawn_base(record, model, tokenizer)
    if plan is not None:
        build_setup(model, plan)
    first_decides(record.begin)
    table = parameter_table(model, plan)
    setup = str(plan.block) if plan is not None else "full fine-tuning"
    say(f"setup: {setup}\n{format_table(table)}")
    record.note(setup=setup, parameters=table)
    tokenizer_name = model_options.tokenizer_name
    everything = {"base_model": base, "tokenizer": tokenizer_name, "versions": versions(), **facts}
    return Built(model, table, everything)


def _keep_drawn_base(record: RunRecord, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None) -> None:
    """A drawn base is nowhere else; it is saved before adapters stand in it."""
    first_decides(record.begin)
    if record.folder is None or not record.begun:
        return
    model.save_pretrained(record.folder / BASE_FOLDER)
    if tokenizer is not None:
        tokenizer.save_pretrained(record.folder / BASE_FOLDER)


def keep(
    trainer: SetupTrainer, built: Built, plan: Plan | None, record: RunRecord, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Saves what was trained: an `adapters-<task>` folder, or for full fine-tuning the whole model in the run's folder.

    All processes call; the one whose folder it is writes.
    """
    with trainer.whole_model() as model:
        if record.folder is None or not record.begun:
            return
        if plan is not None:
            target = record.folder / plan.folder_name
            save_setup(model, plan, target, built.facts)
        else:
            target = record.folder
            model.save_pretrained(target)
            tokenizer.save_pretrained(target)
            base = {"name_or_path": ".", "revision": "main"}
            facts = {**built.facts, "task": "qa", "base_model": base, "tokenizer": None}
            write_json(target / FULL_FILE, {"trainer": facts | {"trained_from": built.facts["base_model"]}})
    record.note(saved=str(target))
    write_card(target, record.document)


def keep_metrics(trainer: SetupTrainer, record: RunRecord, split: str, metrics: dict[str, float]) -> None:
    """Prints the metrics of a part of the run and writes them to `<split>_results.json` and run.json."""
    trainer.log_metrics(split, metrics)
    trainer.save_metrics(split, metrics)
    if trainer.is_world_process_zero():
        record.document.setdefault("metrics", {})[split] = metrics
        record.note()


def print_plan(built: Built, plan: Plan | None, counts: dict[str, dict[str, int]]) -> None:
    """The last line of a dry run: one JSON document on stdout."""
    document = {
        "parameters": built.table,
        "active_setup": str(built.model.active_adapters) if plan is not None else "full fine-tuning",
        **counts,
    }
    say(json.dumps(document))


def train_steps(examples: int, run: TrainingRun) -> int:
    """Optimizer steps of a whole training, as `Trainer` counts them."""
    if run.max_steps > 0 or examples == 0:
        return max(run.max_steps, 0)
    per_batch = run.train_batch_size * run.world_size
    batches = examples // per_batch if run.dataloader_drop_last else math.ceil(examples / per_batch)
    return math.ceil(run.num_train_epochs * max(math.ceil(batches / run.gradient_accumulation_steps), 1))


def eval_steps(examples: int, run: TrainingRun) -> int:
    """Batches of one evaluation."""
    return math.ceil(examples / (run.eval_batch_size * run.world_size))


def already_finished(record: RunRecord, run: TrainingRun) -> bool:
    """Whether there is nothing left to train; says so, and pushes what is there where that is asked for.

    Raises:
        RunFailure: it cannot be pushed.
    """
    if record.finished:
        say(f"{record.folder}: this run is finished; --overwrite_output_dir does it again")
        push_finished(record, run)
    return record.finished

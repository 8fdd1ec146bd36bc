"""What a run prints: its plan, its progress, scores and the result, or what a dry run has found.

The plan and the result are also recorded in run.json.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import PreTrainedModel, TrainerState
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import PrinterCallback

from adapter_qa.core.messages import log_note, print_main
from adapter_qa.core.readable import metrics_text
from adapter_qa.models.fast_step import dropout_probabilities, has_fast_step
from adapter_qa.models.parameters import format_table
from adapter_qa.runs.layout import predictions_file
from adapter_qa.runs.provenance import cpu_name
from adapter_qa.training.adapter_trainer import AdapterTrainer
from adapter_qa.training.callbacks import best_evaluation
from adapter_qa.training.progress import ProgressLines, epoch_text
from adapter_qa.training.run_context import FULL_FINE_TUNING, Config, ModelBundle, RunContext
from adapter_qa.training.run_summary import (
    RunPlan,
    disk_and_memory,
    eval_steps,
    result_text,
    score_hints,
    train_steps,
    training_plan,
    units,
)

SPLIT_WORDS = {"eval": "evaluation", "predict": "prediction", "calibration": "calibration questions"}


def print_dry_run(
    run: RunContext[Config],
    bundle: ModelBundle,
    data: Mapping[str, Mapping[str, Sized]],
    folds: list[dict[str, Any]] | None = None,
) -> None:
    """Print the last line of a dry run: one JSON document with parameters, setup, and counts by split.

    `data` has the splits by unit, e.g. "questions" and "windows"; the last unit is that of the model's inputs. `folds`
    are those of a cross-validation.
    """
    print_main(f"setup: {run.setup_name}\n{format_table(bundle.parameters)}")
    active = FULL_FINE_TUNING if run.setup is None else str(bundle.model.active_adapters)
    document: dict[str, Any] = {"parameters": msgspec.to_builtins(bundle.parameters), "active_setup": active}
    for split, count_steps in (("train", train_steps), ("eval", eval_steps)):
        counts = {unit: len(splits.get(split, ())) for unit, splits in data.items()}
        document[split] = counts | {"steps": count_steps(list(counts.values())[-1], run.args)}
    if folds is not None:
        document["folds"] = folds
    print_main(json.dumps(document))


def print_plan(run: RunContext[Config], bundle: ModelBundle) -> None:
    """Print what the run is about to do, and record it in run.json under "plan"."""
    args, document = run.args, run.record.document
    data = {name: source.counts() for name, source in document.data.items()}
    training = None
    if args.do_train:
        checkpoint = run.record.resume_from
        unit, _ = units(data["train"])
        training = training_plan(args, data["train"][unit], checkpoint.name if checkpoint is not None else None)
    name, parameters, plugin = run.config.model.model_name_or_path, bundle.parameters, args.deepspeed_plugin
    plan = RunPlan(
        device=torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else cpu_name(),
        precision="bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        precision_reason=run.precision_reason,
        fp32_products=args.fp32_products,
        step=_step_text(run, bundle.model) if args.do_train else None,
        dropout=dropout_probabilities(bundle.model) if args.do_train else [],
        processes=args.world_size,
        sharding=f"DeepSpeed ZeRO-{plugin.zero_stage}" if plugin is not None else None,
        base=f"{name} with random weights" if run.config.model.random_init else name,
        setup=run.setup_name,
        parameters=parameters.base + parameters.added,
        trainable=parameters.trainable if args.do_train else 0,
        training=training,
        folder=str(run.record.folder),
    )
    print_main(f"{document.script}\n{plan.text(data)}")
    if args.get_process_log_level() <= logging.INFO:
        print_main(format_table(parameters))
    if training is not None and training.metric is None and args.eval_strategy != "no":
        log_note(
            [
                "the last weights are kept, not those of the best evaluation; a new run without "
                "--load_best_model_at_end and --save_strategy keeps the best"
            ]
        )
    document.plan = asdict(plan)
    run.record.write()


def _step_text(run: RunContext[Config], model: PreTrainedModel) -> str:
    """Return which training step the encoder has, and why."""
    if not run.args.fast_step:
        return "plain" if run.args.device.type == "cpu" else "plain, for a GPU"
    if not has_fast_step(model.config):
        return f"plain, there is no fast one for {model.config.model_type}"
    shown = ", ".join(f"{probability:.4f}" for probability in dropout_probabilities(model))
    return f"fast, with dropout {shown}" if shown else "fast"


@contextmanager
def shown_progress(run: RunContext[Config], trainer: AdapterTrainer) -> Iterator[None]:
    """Show the progress of trainings and evaluations in the block, in place of the library's own callbacks for it."""
    args, data = run.args, run.record.document.data
    inputs = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    example, ratio = "", 0.0
    if args.do_train:
        counts = data["train"].counts()
        unit, example = units(counts)
        ratio = counts[example] / counts[unit]
    trainer.remove_callback(DEFAULT_PROGRESS_CALLBACK)
    trainer.remove_callback(PrinterCallback)
    progress = ProgressLines(trainer, inputs * ratio, example)
    trainer.add_callback(progress)
    try:
        yield
    finally:
        progress.close()


def print_scores(run: RunContext[Config], folder: Path, split: str, metrics: Mapping[str, float]) -> None:
    """Print the scores of an evaluation or a prediction, and the file of predictions."""
    facts = [metrics_text(metrics, run.config.training.best_metric, split)]
    facts += [str(folder / predictions_file(split))] if split == "predict" else []
    print_main(f"{SPLIT_WORDS[split]}: {'  '.join(fact for fact in facts if fact)}")


def print_result(run: RunContext[Config], state: TrainerState) -> None:
    """Print what came of the run, and record it in run.json under "result"."""
    record, document = run.record, run.record.document
    if record.folder is None or not record.begun:
        return
    metric = run.config.training.best_metric
    evaluation = best_evaluation(state) if run.args.load_best_model_at_end else None
    best = None
    if evaluation is not None:
        best = f"{epoch_text(evaluation['epoch'], state.num_train_epochs)}  {metrics_text(evaluation, metric)}"
    document.result = disk_and_memory(document.saved, record.folder, run.args.device)
    record.write()
    print_main(f"{document.script}: finished\n{result_text(document, record.folder, best)}")
    log_note(score_hints(document.metrics.get("eval", {})))

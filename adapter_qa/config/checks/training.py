"""The problems of training options that contradict each other, and of the metric that chooses the best epoch."""

from __future__ import annotations

import os
import re

from adapter_qa.config.options import TrainingOptions
from adapter_qa.config.run_configs import NERRunConfig, QARunConfig, RunConfig

TOP_K_METRIC = re.compile(r"top_(\d+)_(?:exact|f1)")  # group: number of candidates


def training_problems(training: TrainingOptions) -> list[str]:
    """Return the contradictions among resolved training options, apart from metric and optimizer."""
    problems = []
    if not (training.do_train or training.do_eval or training.do_predict or training.dry_run):
        problems.append("nothing to do: give --do_train, --do_eval, --do_predict or --dry_run")
    evaluation = training.effective_eval_strategy
    if training.early_stopping_patience is not None and training.do_train and evaluation == "no":
        problems.append("--early_stopping_patience needs evaluation while training; add --do_eval")
    if training.load_best_model_at_end and training.do_train and evaluation != training.save_strategy:
        problems.append(
            f"--load_best_model_at_end: evaluation ({evaluation}) and checkpoints ({training.save_strategy}) must come "
            "together; add --do_eval, or give --eval_strategy and --save_strategy the same value"
        )
    if training.bf16 and training.fp16:
        problems.append("--bf16 and --fp16 exclude each other; give one")
    of_accelerate = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()  # the run would silently obey it
    if of_accelerate != "no" and not {"bf16": training.bf16, "fp16": training.fp16}.get(of_accelerate):
        problems.append(
            f"accelerate's mixed precision ({of_accelerate}): give --bf16 True or --fp16 True instead, so that the run "
            "records it"
        )
    if training.fast_step and (training.deepspeed is not None or training.compiles):
        other = "--deepspeed" if training.deepspeed is not None else "--torch_compile"
        problems.append(f"--fast_step True: cannot be combined with {other}; leave out one of the two")
    workers = {
        "dataloader_persistent_workers": training.dataloader_persistent_workers,
        "dataloader_prefetch_factor": training.dataloader_prefetch_factor is not None,
    }
    if not training.dataloader_num_workers:
        problems += [f"--{name}: needs --dataloader_num_workers above 0" for name, given in workers.items() if given]
    if training.num_train_epochs == 0 and training.max_steps <= 0:
        problems.append("--num_train_epochs 0: must be above 0; training needs epochs or --max_steps")
    return problems


def metric_problems(config: RunConfig) -> list[str]:
    """Return the problems with the metric that decides which epoch is best."""
    training, names = config.training, config.METRICS
    metric, more = training.best_metric, ""
    if isinstance(config, QARunConfig):
        if config.data.version_2_with_negative:
            names += config.METRICS_V2
        elif metric in config.METRICS_V2:
            return [f"--metric_for_best_model {metric}: needs --version_2_with_negative True"]
        if (match := TOP_K_METRIC.fullmatch(metric)) is not None and int(match[1]) > config.data.n_best_size:
            return [f"--metric_for_best_model {metric}: needs --n_best_size {match[1]} or more"]
    if isinstance(config, NERRunConfig):  # the types of the entities are known when the data is read
        more = f", or one of the first {len(config.SCORES)} of a type, e.g. PER_f1"
        entity, _, score = metric.rpartition("_")
        names += (metric,) if entity and score in config.SCORES else ()
    if metric not in names:
        return [f"--metric_for_best_model {metric}: not computed here; choose from {', '.join(names)}{more}"]
    given, expected = training.greater_is_better, training.best_is_greatest
    if given not in (None, expected):
        return [f"--greater_is_better {given}: must be {expected} for {metric}; leave the option out"]
    return []

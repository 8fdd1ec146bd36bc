"""The problems of the options for a cross-validation."""

from __future__ import annotations

from adapter_qa.config.options import TrainingOptions
from adapter_qa.config.run_configs import QARunConfig
from adapter_qa.core.distributed import process_count

_ALL_QUESTIONS = "which divides --train_file into all parts"
NOT_WITH_FOLDS = {
    "validation_file": _ALL_QUESTIONS,
    "test_file": _ALL_QUESTIONS,
    "max_eval_samples": _ALL_QUESTIONS,
    "max_predict_samples": _ALL_QUESTIONS,
    "calibration_file": _ALL_QUESTIONS,
    "calibration_share": _ALL_QUESTIONS,
    "do_predict": "which answers every question of --train_file",
    "push_to_hub": "which trains a model for each fold",
}
LOGGED_BY_FOLD = ("none", "tensorboard", "trackio")  # the others know one run of a process


def fold_problems(config: QARunConfig) -> list[str]:
    """Return the problems of a cross-validation."""
    data, training = config.data, config.training
    if data.folds is None:
        return [] if data.fold is None else [f"--fold {data.fold}: is one of --folds N; give N"]
    values: dict[str, object] = {**vars(data), **vars(training)}
    problems = [
        f"--{name}: cannot be combined with --folds, {reason}; leave out one of the two"
        for name, reason in NOT_WITH_FOLDS.items()
        if name in config.given and values[name] not in (None, False)
    ]
    if not training.do_train:
        problems.append("--folds: every fold trains a model; add --do_train")
    if data.fold is not None and data.fold > data.folds:
        problems.append(f"--fold {data.fold}: must be at most --folds {data.folds}")
    evaluates, share = training.effective_eval_strategy != "no", data.fold_choosing_share
    if evaluates and not share:
        problems.append(
            "--fold_choosing_share 0: leaves no questions to evaluate on while training; give a share, or leave out "
            "--eval_strategy"
        )
    if training.do_train and share and not evaluates:
        problems.append("--eval_strategy no: no epoch is chosen, so --fold_choosing_share must be 0")
    return problems + (_problems_of_one_process(training) if data.fold is None else [])


def _problems_of_one_process(training: TrainingOptions) -> list[str]:
    """Return what several runs in one process cannot do."""
    problems = []
    if process_count() > 1:
        problems.append(
            f"--folds: {process_count()} processes were started, one runs all folds; start it without torchrun"
        )
    if training.deepspeed is not None:
        problems.append("--folds: DeepSpeed needs a process for each run; leave out --deepspeed")
    others = [name for name in training.report_to or [] if name not in LOGGED_BY_FOLD]
    if others:
        problems.append(
            f"--report_to {' '.join(others)}: would log all folds as one run; with --folds give "
            f"{', '.join(LOGGED_BY_FOLD)}"
        )
    return problems

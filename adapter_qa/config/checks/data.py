"""The problems of the options for data: missing files, data sets that are not read, calibration."""

from __future__ import annotations

from collections import Counter

from adapter_qa.config.checks.folds import fold_problems
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig, RunConfig


def data_problems(config: RunConfig) -> list[str]:
    """Return the problems of the options for the data of a script."""
    match config:
        case QARunConfig():
            problems = _missing_files(config) + _dataset_problems(config)
            return problems + _calibration_problems(config) + fold_problems(config)
        case NERRunConfig():
            return _missing_files(config) + _dataset_problems(config) + _ner_problems(config)
        case MLMRunConfig():
            return _mlm_problems(config)


def _missing_files(config: QARunConfig | NERRunConfig) -> list[str]:
    return [
        f"--do_{split.name} needs --{split.option} or --dataset_name"
        for split in config.all_splits()
        if split.enabled and not split.files and config.data.dataset_name is None
    ]


def _dataset_problems(config: QARunConfig | NERRunConfig) -> list[str]:
    data = config.data
    if data.dataset_name is None and data.dataset_config_name is not None:
        return ["--dataset_config_name: names a configuration of --dataset_name, which is not given"]
    if data.dataset_name is not None and config.splits() and all(split.files for split in config.splits()):
        return ["--dataset_name: nothing is read from it, every part that is used has a file; leave it out"]
    return []


def _calibration_problems(config: QARunConfig) -> list[str]:
    data, training = config.data, config.training
    options = {"calibration_file": data.calibration_file, "calibration_share": data.calibration_share}
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if not given:
        return []
    problems = []
    if len(given) > 1:
        problems.append(f"{' and '.join(given)} exclude each other; give one")
    if not (training.do_eval or training.dry_run):
        problems.append(f"{given[0]}: needs --do_eval, which says how well the calibration does")
    problems += [  # `evaluation_loop` casts the model itself, and the calibration comes before it is saved
        f"--{name}: with {given[0]} the weights would be rounded before they are saved; leave out the option, and give "
        "--bf16 True to compute in bfloat16"
        for name in ("bf16_full_eval", "fp16_full_eval")
        if getattr(training, name)
    ]
    fitted = {"temperature": True, "null_score_diff_threshold": data.version_2_with_negative}
    return problems + [
        f"--{name} {vars(data)[name]:g}: {given[0]} fits it; leave out one of the two"
        for name, is_fitted in fitted.items()
        if is_fitted and name in config.given
    ]


def _ner_problems(config: NERRunConfig) -> list[str]:
    data, names = config.data, config.class_names()
    problems = []
    if not (config.training.do_train or config.training.dry_run or config.adapter.load_adapter is not None):
        problems.append("without --do_train there is nothing to evaluate; give --load_adapter")
    if data.word_column is not None and data.word_column == data.label_column:
        problems.append(f"--word_column and --label_column are both {data.word_column}; give two columns")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        problems.append(f"--label_names: {', '.join(repeated)} given twice; every number needs its own name")
    return problems


def _mlm_problems(config: MLMRunConfig) -> list[str]:
    data, training = config.data, config.training
    problems = []
    if data.dataset_name is None:
        if training.do_train and data.train_file is None:
            problems.append("--do_train needs --train_file or --dataset_name")
        if training.do_eval and data.validation_file is None and data.train_file is None:
            problems.append("--do_eval needs --validation_file, or --train_file or --dataset_name to take a share of")
        if data.dataset_config_name is not None:
            problems.append("--dataset_config_name: names a configuration of --dataset_name, which is not given")
    elif data.train_file is not None and data.validation_file is not None:
        problems.append("--dataset_name: is not read beside --train_file and --validation_file; leave it out")
    if training.do_predict:
        problems.append("--do_predict: a language adapter predicts nothing; leave it out")
    return problems

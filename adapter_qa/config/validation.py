"""Every problem that the options alone show, found before anything slow is imported, and all at once."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from adapter_qa.config.deepspeed import OFFLOADED_OPTIMIZERS, offloads_optimizer, read_deepspeed
from adapter_qa.config.folder_names import adapter_problem, model_problem
from adapter_qa.config.low_rank import FORMS, NOT_FOR_LANGUAGE, NOT_FUSED, is_low_rank, read_low_rank
from adapter_qa.config.option_effects import refused_problems
from adapter_qa.config.options import (
    ADAPTER_CONFIGS,
    ADAPTER_NAME,
    HEAD_FROM_QA,
    NEW,
    NO_LANGUAGE_ADAPTER,
    AdapterOptions,
    FusionOptions,
    LanguageAdapterOptions,
    TrainingOptions,
)
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig, RunConfig
from adapter_qa.core.distributed import process_count
from adapter_qa.core.errors import UserError, run_each
from adapter_qa.core.files import find_obstacle, is_text

TOP_K_METRIC = re.compile(r"top_(\d+)_(?:exact|f1)")  # group: number of candidates
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
TRACKIO_VERSION = "0.20.2"  # the newest one beside the pinned huggingface-hub


def validate_config(config: RunConfig) -> list[str]:
    """Return the problems of a script's options, resolved as `ConfigParser.parse` returns them."""
    problems = field_problems(config.groups())
    problems += training_problems(config.training) + _metric_problems(config) + refused_problems(config)
    problems += _optimizer_problems(config)
    problems += problems_of_files(config)
    match config:
        case QARunConfig():
            problems += setup_problems(config.adapter, config.language_adapter, config.fusion)
            problems += _missing_files(config) + _dataset_problems(config) + _new_fusion_problems(config)
            return problems + _calibration_problems(config) + _fold_problems(config)
        case NERRunConfig():
            problems += setup_problems(config.adapter, config.language_adapter, FusionOptions())
            return problems + _missing_files(config) + _dataset_problems(config) + _ner_problems(config)
        case MLMRunConfig():
            problems += setup_problems(config.adapter, LanguageAdapterOptions(), FusionOptions())
            if is_low_rank(config.adapter.adapter_config):
                problems.append(f"--adapter_config {config.adapter.adapter_config}: {NOT_FOR_LANGUAGE}")
            return problems + _mlm_problems(config)


def problems_of_files(config: RunConfig) -> list[str]:
    """Return the problems with the paths of data, base model and saved adapters, such as files that do not exist."""
    problems = []
    try:
        run_each(split.paths for split in config.all_splits())
    except UserError as error:
        problems += error.problems
    models = {"--model_name_or_path": config.model.model_name_or_path, "--config_name": config.model.config_name}
    found = [model_problem(option, name) for option, name in models.items() if name is not None]
    found += [adapter_problem(option, name) for option, name in _adapter_names(config).items()]
    return problems + [problem for problem in found if problem is not None]


def _adapter_names(config: RunConfig) -> dict[str, str]:
    """Return the folders or hub ids of saved adapters by the option that names them."""
    names = {"--load_adapter": config.adapter.load_adapter}
    if not isinstance(config, MLMRunConfig):
        names["--load_lang_adapter"] = config.language_adapter.load_lang_adapter
    if isinstance(config, QARunConfig) and config.fusion.fuse_adapters is not None:
        fused, _ = parse_fuse_adapters(config.fusion.fuse_adapters)
        names |= {f"--fuse_adapters {name}": path for name, path in fused.items()}
    return {option: name for option, name in names.items() if name not in (None, NO_LANGUAGE_ADAPTER, NEW)}


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


def _fold_problems(config: QARunConfig) -> list[str]:
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


def _new_fusion_problems(config: QARunConfig) -> list[str]:
    fusion, training = config.fusion, config.training
    trains_fusion = fusion.fuse_adapters is not None and (training.do_train or training.dry_run)
    if fusion.fusion_head != HEAD_FROM_QA or trains_fusion:
        return []
    remedy = "add --fuse_adapters and --do_train, or leave the option out"
    return [f"--fusion_head {HEAD_FROM_QA}: no new fusion is trained; {remedy}"]


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


def field_problems(groups: Iterable[Any]) -> list[str]:
    """Return the problems of single values in option dataclasses: not allowed, not finite, or not to be recorded."""
    problems = []
    for group in groups:
        for field in fields(group):
            value = getattr(group, field.name)
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, float) and not math.isfinite(item):
                    problems.append(f"--{field.name} {item}: must be a finite number")
                if isinstance(item, str) and ("\0" in item or not is_text(item)):
                    problems.append(
                        f"--{field.name} {item}: has a NUL character or is not UTF-8, and cannot be recorded"
                    )
            limits = field.metadata.get("limits")
            if limits is not None and value is not None and math.isfinite(value) and not limits.allow(value):
                problems.append(f"--{field.name} {value:.10g}: must be {limits}")
    return problems


def setup_problems(adapter: AdapterOptions, lang: LanguageAdapterOptions, fusion: FusionOptions) -> list[str]:
    """Return the conflicts between the options of a setup, and kinds of adapters that do not exist."""
    problems = []
    if not fusion.train_adapter:
        values = {
            "--load_adapter": adapter.load_adapter,
            "--load_lang_adapter": lang.load_lang_adapter,
            "--fuse_adapters": fusion.fuse_adapters,
        }
        problems += [
            f"{name} requires --train_adapter True; full fine-tuning has no adapters"
            for name, value in values.items()
            if value is not None
        ]
    if fusion.fuse_adapters is not None:
        problems += parse_fuse_adapters(fusion.fuse_adapters)[1]
        if adapter.load_adapter is not None:
            problems.append(
                "--load_adapter and --fuse_adapters exclude each other; a saved fusion is loaded with --load_adapter"
            )
    has_language_adapter = lang.load_lang_adapter not in (None, NO_LANGUAGE_ADAPTER)
    if fusion.adapter_composition == "fuse" and (fusion.fuse_adapters is None or not has_language_adapter):
        problems.append("--adapter_composition fuse needs --fuse_adapters and --load_lang_adapter")
    for option, kind in {"adapter": adapter.adapter_config, "lang_adapter": lang.lang_adapter_config}.items():
        if kind is not None and kind not in ADAPTER_CONFIGS and not os.path.isfile(kind) and not is_low_rank(kind):
            kinds = ", ".join([*ADAPTER_CONFIGS, *([FORMS] if option == "adapter" else [])])
            problems.append(f"--{option}_config {kind}: give {kinds}, or the path of an adapter_config.json")
    return problems + _low_rank_problems(adapter, lang, fusion)


def _low_rank_problems(adapter: AdapterOptions, lang: LanguageAdapterOptions, fusion: FusionOptions) -> list[str]:
    """Return the problems with the kinds `lora` and `ia3`, and the options that they cannot be combined with."""
    problems = []
    if lang.lang_adapter_config is not None and is_low_rank(lang.lang_adapter_config):
        problems.append(f"--lang_adapter_config {lang.lang_adapter_config}: {NOT_FOR_LANGUAGE}")
    kind = adapter.adapter_config
    if kind is None or not is_low_rank(kind):
        return problems
    problems += [f"--adapter_config {kind}: {problem}" for problem in read_low_rank(kind)[1]]
    if fusion.fuse_adapters is not None:
        problems.append(f"--adapter_config {kind}: {NOT_FUSED}")
    reduction = adapter.adapter_reduction_factor
    of_bottlenecks = {
        "adapter_reduction_factor": None if reduction is None else f"{reduction:g}",
        "adapter_non_linearity": adapter.adapter_non_linearity,
        "houlsby_MHA_lastlayer": adapter.houlsby_MHA_lastlayer or None,
    }
    return problems + [
        f"--{name} {value}: is for bottleneck adapters, --adapter_config {kind} has none; leave out one of the two"
        for name, value in of_bottlenecks.items()
        if value is not None
    ]


def parse_fuse_adapters(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the paths by name that --fuse_adapters gives as `NAME=PATH`, in the order given, and the problems."""
    paths: dict[str, str] = {}
    problems = []
    for word in words:
        name, separator, path = word.partition("=")
        if not separator or not path or not ADAPTER_NAME.fullmatch(name):
            problems.append(f"--fuse_adapters {word}: write NAME=PATH, the name of letters, digits, - and _")
        elif name in paths:
            problems.append(f"--fuse_adapters {word}: the name {name} is used twice; each adapter needs its own")
        else:
            paths[name] = path
    if not problems and len(paths) < 2:
        problems.append(f"--fuse_adapters: {len(paths)} adapter given; a fusion needs two or more NAME=PATH")
    return paths, problems


def _metric_problems(config: RunConfig) -> list[str]:
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


def training_problems(training: TrainingOptions) -> list[str]:
    """Return the problems among resolved training options, apart from the metric."""
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
    problems += (
        _split_problems(training)
        + head_rate_problems(training)
        + _sharding_problems(training)
        + _trackio_problems(training)
    )
    if training.push_to_hub:
        problems += _hub_problems(training)
    workers = {
        "dataloader_persistent_workers": training.dataloader_persistent_workers,
        "dataloader_prefetch_factor": training.dataloader_prefetch_factor is not None,
    }
    if not training.dataloader_num_workers:
        problems += [f"--{name}: needs --dataloader_num_workers above 0" for name, given in workers.items() if given]
    if training.num_train_epochs == 0 and training.max_steps <= 0:
        problems.append("--num_train_epochs 0: must be above 0; training needs epochs or --max_steps")
    return problems


def _split_problems(training: TrainingOptions) -> list[str]:
    """Return what --tokens_per_batch cannot be combined with: anything that counts on one backward pass for a batch."""
    if training.tokens_per_batch is None:
        return []
    problems = []
    if training.deepspeed is not None:
        problems.append(
            "--tokens_per_batch: DeepSpeed takes every part for a batch of its own; leave out --tokens_per_batch or "
            "--deepspeed"
        )
    if training.optim in ("lomo", "adalomo") or training.optim.endswith("layerwise"):
        problems.append(
            f"--tokens_per_batch: --optim {training.optim} would update the weights after every part of a batch; "
            "choose another optimizer, or leave out --tokens_per_batch"
        )
    return problems


def head_rate_problems(training: TrainingOptions) -> list[str]:
    """Return why --head_learning_rate, if it is given, cannot differ from the rate of the other weights."""
    if training.head_learning_rate is None:
        return []
    if training.optim.startswith(("lomo", "adalomo", "galore", "apollo")):
        return [
            f"--head_learning_rate: --optim {training.optim} has one learning rate for all weights; leave out one of "
            "the two"
        ]
    if training.deepspeed is None:
        return []
    warmup = training.warmup_steps > 0 or training.warmup_ratio > 0
    try:
        config, _ = read_deepspeed(str(training.deepspeed), warmup=warmup)
    except UserError:
        return []  # `_sharding_problems` reports it
    own = [name for name in ("optimizer", "scheduler") if name in config]
    if not own:
        return []
    return [
        f"--head_learning_rate: --deepspeed {training.deepspeed} has an {own[0]} of its own, with one learning rate "
        f"for all weights; remove {' and '.join(own)} from the file, or leave out the option"
    ]


def _optimizer_problems(config: RunConfig) -> list[str]:
    """Return why --optim would not be the optimizer of a run with --deepspeed."""
    training = config.training
    if training.deepspeed is None:
        return []
    try:
        deepspeed, _ = read_deepspeed(str(training.deepspeed), warmup=False)
    except UserError:
        return []  # `_sharding_problems` reports it
    if "optimizer" in deepspeed:
        if "optim" not in config.given:
            return []
        other = "has an optimizer of its own; leave out --optim, or remove optimizer from the file"
    elif offloads_optimizer(deepspeed) and training.optim not in OFFLOADED_OPTIMIZERS:
        other = (
            "keeps the optimizer in CPU memory, which is for AdamW only; leave out --optim, or remove offload_optimizer"
        )
    else:
        return []
    return [f"--optim {training.optim}: --deepspeed {training.deepspeed} {other}"]


def _trackio_problems(training: TrainingOptions) -> list[str]:
    """Return why --report_to trackio cannot log: the library would fail when the training begins."""
    installed = importlib.util.find_spec("trackio") is not None
    names = training.report_to or []
    if "trackio" not in names and not (installed and "all" in names):
        return []
    remedy = f'pip install "trackio=={TRACKIO_VERSION}"'
    if not installed:
        return [f"--report_to trackio: is not installed; {remedy}"]
    from importlib.metadata import version as installed_version  # late: slow

    version = installed_version("trackio")
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < tuple(map(int, TRACKIO_VERSION.split("."))):
        return [f"--report_to trackio: version {version} is installed, which lacks what transformers calls; {remedy}"]
    from huggingface_hub import constants, get_token  # late: slow

    space = training.trackio_space_id or os.environ.get("TRACKIO_SPACE_ID")
    if space is None:
        folder = Path(os.environ.get("TRACKIO_DIR") or Path(constants.HF_HOME) / "trackio").absolute()
        if find_obstacle(folder) is None:
            return []
        return [f"--report_to trackio: {folder} cannot be written; name another folder in TRACKIO_DIR"]
    if constants.HF_HUB_OFFLINE:
        return [f"--trackio_space_id {space}: cannot be reached, HF_HUB_OFFLINE is set; leave out one of the two"]
    if get_token() is None:
        return [f"--trackio_space_id {space}: needs a login; run hf auth login or set HF_TOKEN"]
    return []


def _sharding_problems(training: TrainingOptions) -> list[str]:
    """Return the problems with how weights and optimizer are divided among processes."""
    problems = []
    if training.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true"):
        problems.append(
            "--fsdp (or accelerate's FSDP setting): is not supported, since no test shows that adapters train and "
            "are saved completely under it; give --deepspeed ds_config_zero3.json, which divides the weights as well"
        )
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() in ("1", "true"):
        problems.append(
            "accelerate's DeepSpeed setting: give --deepspeed ds_config_zero2.json or ds_config_zero3.json instead, "
            "so that the run records it"
        )
    if training.deepspeed is None:
        return problems
    try:
        read_deepspeed(str(training.deepspeed), warmup=False)
    except UserError as error:
        problems += error.problems
    if importlib.util.find_spec("deepspeed") is None:
        problems.append('--deepspeed: the package is not installed; pip install "adapter-qa[deepspeed]"')
    return problems


def _hub_problems(training: TrainingOptions) -> list[str]:
    """Return what would make --push_to_hub fail at the end of the run."""
    from huggingface_hub import constants, get_token  # imported here because it is slow
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    problems = []
    if not training.do_train:
        problems.append("--push_to_hub: only what a run trains is saved and pushed; add --do_train")
    if training.hub_model_id is None:
        problems.append("--push_to_hub needs --hub_model_id, the repository to push to, e.g. name/qa-pt")
    elif "/" not in training.hub_model_id:
        problems.append(f"--hub_model_id {training.hub_model_id}: write OWNER/NAME; the model card loads it by this id")
    else:
        try:
            validate_repo_id(training.hub_model_id)
        except HFValidationError as error:
            problems.append(f"--hub_model_id {training.hub_model_id}: {error}")
    if not (training.hub_token or get_token()):
        problems.append("--push_to_hub needs a token: run hf auth login, or set HF_TOKEN, or give --hub_token")
    if constants.HF_HUB_OFFLINE:
        problems.append("--push_to_hub: HF_HUB_OFFLINE is set; unset it, or push when the run is finished")
    return problems

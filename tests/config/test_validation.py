"""What the options alone show to be wrong (adapter_qa/config/validation.py)."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.scripts import ROOT

from adapter_qa.config.option_effects import unused_notes
from adapter_qa.config.options import (
    AdapterOptions,
    FusionOptions,
    LanguageAdapterOptions,
    MLMAdapterOptions,
    MLMDataOptions,
    MLMTrainingOptions,
    ModelOptions,
    NERDataOptions,
    NERTrainingOptions,
    QADataOptions,
    TrainingOptions,
    resolve_training_options,
)
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig, RunConfig
from adapter_qa.config.validation import (
    field_problems,
    parse_fuse_adapters,
    training_problems,
    validate_config,
)
from adapter_qa.data.squad_metrics import TOP_K

MODEL, ADAPTER, LANGUAGE, FUSION = ModelOptions("bert"), AdapterOptions(), LanguageAdapterOptions(), FusionOptions()
QA_METRICS = (
    "f1, exact, loss, total, questions, windows, runtime, answers_runtime, scores_runtime, samples_per_second, "
    + ", ".join(f"top_{k}_{name}" for k in TOP_K for name in ("exact", "f1"))
    + ", ece, brier, log_loss"
)
NOTHING_TO_DO = "nothing to do: give --do_train, --do_eval, --do_predict or --dry_run"


def qa_config(data: QADataOptions | None = None, **training: Any) -> QARunConfig:
    options = TrainingOptions(**training)
    return QARunConfig(MODEL, data or QADataOptions(), ADAPTER, LANGUAGE, FUSION, options).resolved()


def ner_config(data: NERDataOptions | None = None, **training: Any) -> NERRunConfig:
    return NERRunConfig(MODEL, data or NERDataOptions(), ADAPTER, LANGUAGE, NERTrainingOptions(**training)).resolved()


def mlm_config(data: MLMDataOptions | None = None, **training: Any) -> MLMRunConfig:
    return MLMRunConfig(MODEL, data or MLMDataOptions(), MLMAdapterOptions(), MLMTrainingOptions(**training)).resolved()


# ---------------------------------------------------------------- single values

# The limits that options had before they stood in the fields: name, smallest and largest value (None: no limit).
LIMITS: dict[Any, list[tuple[str, float | None, float | None]]] = {
    TrainingOptions: [
        *(
            (name, 0, None)
            for name in ("learning_rate", "head_learning_rate", "weight_decay", "max_grad_norm", "adam_epsilon")
        ),
        *((name, 0, None) for name in ("num_train_epochs", "warmup_steps", "dataloader_num_workers", "eval_delay")),
        *((name, 0, 1) for name in ("adam_beta1", "adam_beta2", "warmup_ratio", "label_smoothing_factor")),
        *((name, 0, 2**32 - 1) for name in ("seed", "data_seed")),
        ("neftune_noise_alpha", 0, None),
        ("max_steps", -1, None),
        *((name, 1, None) for name in ("early_stopping_patience", "save_total_limit", "eval_accumulation_steps")),
        ("tokens_per_batch", 1, None),
        *((name, 1, None) for name in ("per_device_train_batch_size", "per_device_eval_batch_size")),
        *((name, 1, None) for name in ("gradient_accumulation_steps", "dataloader_prefetch_factor")),
    ],
    QADataOptions: [
        *((name, 1, None) for name in ("max_train_samples", "max_eval_samples", "max_predict_samples")),
        *((name, 1, None) for name in ("n_best_size", "max_answer_length")),
        ("doc_stride", 0, None),
        ("temperature", 0.05, 20),
        ("folds", 2, None),
        ("fold", 1, None),
        ("fold_choosing_share", 0, None),  # and below 1
    ],
    NERDataOptions: [
        *((name, 1, None) for name in ("max_train_samples", "max_eval_samples", "max_predict_samples")),
        ("max_seq_length", 8, None),
        ("weighted_loss_constant", 0, None),
    ],
    MLMDataOptions: [*((name, 1, None) for name in ("max_train_samples", "max_eval_samples")), ("block_size", 8, None)],
}
# Options whose limits are not allowed values themselves.
OPEN_LIMITS: dict[Any, list[tuple[str, float, float | None]]] = {
    TrainingOptions: [(name, 0, None) for name in ("logging_steps", "eval_steps", "save_steps")],
    QADataOptions: [("calibration_share", 0, 1)],
    MLMDataOptions: [("mlm_probability", 0, 1), ("validation_split_percentage", 0, 100)],
}


@pytest.mark.parametrize(
    ("group", "name", "smallest", "largest"),
    [(group, *limits) for group, entries in LIMITS.items() for limits in entries],
)
def test_values_beyond_closed_limits_are_refused(
    group: Any, name: str, smallest: float | None, largest: float | None
) -> None:
    for limit, beyond in ((smallest, -1), (largest, 1)):
        if limit is None:
            continue
        assert field_problems([group(**{name: limit})]) == []
        (problem,) = field_problems([group(**{name: limit + beyond})])
        assert problem.startswith(f"--{name} {limit + beyond}: must be ")
        assert f"{limit}" in problem.split("must be")[1]


@pytest.mark.parametrize(
    ("group", "name", "above", "below"),
    [(group, *limits) for group, entries in OPEN_LIMITS.items() for limits in entries],
)
def test_values_at_open_limits_are_refused(group: Any, name: str, above: float, below: float | None) -> None:
    assert field_problems([group(**{name: above + 1e-6})]) == []
    (problem,) = field_problems([group(**{name: above})])
    assert problem.startswith(f"--{name} {above}: must be above {above}")
    if below is not None:
        assert field_problems([group(**{name: below - 1e-6})]) == []
        (problem,) = field_problems([group(**{name: below})])
        assert problem == f"--{name} {below}: must be above {above} and below {below}"


def test_only_the_listed_options_have_limits() -> None:
    for group in {*LIMITS, *OPEN_LIMITS}:
        listed = {name for name, *_ in [*LIMITS.get(group, []), *OPEN_LIMITS.get(group, [])]}
        limited = {name for name, field in group.__dataclass_fields__.items() if "limits" in field.metadata}
        assert limited == listed


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_once(value: float) -> None:
    problem = f"--learning_rate {value}: must be a finite number"
    assert field_problems([TrainingOptions(learning_rate=value)]) == [problem]


def test_text_that_cannot_be_recorded_is_refused() -> None:
    reason = "has a NUL character or is not UTF-8, and cannot be recorded"
    groups = [ModelOptions("a\0b"), FusionOptions(fuse_adapters=["a=b", "c=\udcff"]), AdapterOptions(language="ção")]
    assert field_problems(groups) == [f"--model_name_or_path a\0b: {reason}", f"--fuse_adapters c=\udcff: {reason}"]


# ---------------------------------------------------------------- fused adapters


def test_fused_adapters_keep_their_order() -> None:
    paths, problems = parse_fuse_adapters(["qa=b/c", "ner-2=a=b", "x_1=org/name"])
    assert (list(paths.items()), problems) == ([("qa", "b/c"), ("ner-2", "a=b"), ("x_1", "org/name")], [])


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        (["qa"], ["--fuse_adapters qa: write NAME=PATH, the name of letters, digits, - and _"]),
        (
            ["=path", "qa=", "a.b=c", "ção=d"],
            [
                f"--fuse_adapters {word}: write NAME=PATH, the name of letters, digits, - and _"
                for word in ("=path", "qa=", "a.b=c", "ção=d")
            ],
        ),
        (["qa=a", "qa=b"], ["--fuse_adapters qa=b: the name qa is used twice; each adapter needs its own"]),
        (["qa=a"], ["--fuse_adapters: 1 adapter given; a fusion needs two or more NAME=PATH"]),
        ([], ["--fuse_adapters: 0 adapter given; a fusion needs two or more NAME=PATH"]),
    ],
)
def test_wrong_fused_adapters_are_refused(words: list[str], problems: list[str]) -> None:
    assert parse_fuse_adapters(words)[1] == problems


# ---------------------------------------------------------------- training options


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        ({"do_train": True, "do_eval": True, "early_stopping_patience": 3}, []),
        ({"dry_run": True}, []),
        ({"do_predict": True, "early_stopping_patience": 3}, []),
        ({"do_train": True, "max_steps": 5, "num_train_epochs": 0}, []),
        ({}, [NOTHING_TO_DO]),
        (
            {"do_train": True, "metric_for_best_model": "eval_accuracy"},
            [f"--metric_for_best_model accuracy: not computed here; choose from {QA_METRICS}"],
        ),
        (
            {"do_train": True, "greater_is_better": False},
            ["--greater_is_better False: must be True for f1; leave the option out"],
        ),
        (
            {"do_train": True, "metric_for_best_model": "loss", "greater_is_better": True},
            ["--greater_is_better True: must be False for loss; leave the option out"],
        ),
        (
            {"do_train": True, "early_stopping_patience": 3},
            ["--early_stopping_patience needs evaluation while training; add --do_eval"],
        ),
        (
            {"do_train": True, "num_train_epochs": 0},
            ["--num_train_epochs 0: must be above 0; training needs epochs or --max_steps"],
        ),
        (
            {"do_train": True, "load_best_model_at_end": True},
            [
                "--load_best_model_at_end: evaluation (no) and checkpoints (epoch) must come together; add --do_eval, "
                "or give --eval_strategy and --save_strategy the same value"
            ],
        ),
        (
            {"do_train": True, "save_only_model": True},
            ["--save_only_model True: an interrupted run could not resume from its checkpoints; leave it out"],
        ),
        *(
            (
                {"do_train": True, "tokens_per_batch": 4096, "optim": optim},
                [
                    f"--tokens_per_batch: --optim {optim} would update the weights after every part of a batch; choose "
                    "another optimizer, or leave out --tokens_per_batch"
                ],
            )
            for optim in ("lomo", "adalomo", "apollo_adamw_layerwise")
        ),
        ({"do_train": True, "bf16": True, "fp16": True}, ["--bf16 and --fp16 exclude each other; give one"]),
        (
            {"do_train": True, "resume_from_checkpoint": "x"},
            ["--resume_from_checkpoint x: the same command with the same --output_dir resumes; leave it out"],
        ),
    ],
)
def test_contradicting_training_options_are_refused(values: dict[str, Any], problems: list[str]) -> None:
    data = QADataOptions(train_file=[__file__], validation_file=[__file__], test_file=[__file__])
    assert validate_config(qa_config(data, **values)) == problems


def test_all_problems_are_reported_at_once() -> None:
    config = qa_config(
        QADataOptions(max_answer_length=0),
        per_device_train_batch_size=0,
        per_device_eval_batch_size=-1,
        gradient_accumulation_steps=0,
        learning_rate=-1e-4,
        metric_for_best_model="x",
    )
    assert validate_config(config) == [
        "--max_answer_length 0: must be between 1 and 1048575",
        "--per_device_train_batch_size 0: must be at least 1",
        "--per_device_eval_batch_size -1: must be at least 1",
        "--gradient_accumulation_steps 0: must be at least 1",
        "--learning_rate -0.0001: must be at least 0",
        NOTHING_TO_DO,
        f"--metric_for_best_model x: not computed here; choose from {QA_METRICS}",
    ]


# ---------------------------------------------------------------- files and tasks


def test_files_must_exist(tmp_path: Path) -> None:
    existing, missing = tmp_path / "existing.json", tmp_path / "missing.json"
    existing.touch()
    data = QADataOptions(train_file=[str(existing)], validation_file=[str(missing)], test_file=[str(tmp_path)])
    assert validate_config(qa_config(data, dry_run=True)) == [
        f"--validation_file {missing}: no such file; give the path of a file",
        f"--test_file {tmp_path}: is a folder; give the files in it, such as '{tmp_path}/*', or a data set with "
        "--dataset_name",
    ]
    assert validate_config(mlm_config(MLMDataOptions(train_file=[str(missing)]), dry_run=True)) == [
        f"--train_file {missing}: no such file; give the path of a file"
    ]


def test_a_name_that_is_too_long_for_a_file_is_refused() -> None:
    name = "x" * 300
    assert validate_config(qa_config(QADataOptions(validation_file=[name]), dry_run=True)) == [
        f"--validation_file {name}: no such file; give the path of a file"
    ]
    config = replace(qa_config(dry_run=True), adapter=AdapterOptions(adapter_config=name))
    (problem,) = validate_config(config)
    assert problem.startswith(f"--adapter_config {name}: give ")
    config = replace(
        qa_config(dry_run=True), model=ModelOptions(f"./{name}"), adapter=AdapterOptions(load_adapter=name)
    )
    assert [problem.partition(": ")[2] for problem in validate_config(config)] == [
        "no such folder; give a model folder or a hub id such as org/name",
        "no such folder; give an adapters-<task> folder or a hub id such as org/name",
    ]


def test_models_and_adapters_that_are_neither_folders_nor_hub_ids_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    adapters = replace(
        qa_config(dry_run=True),
        model=ModelOptions(str(tmp_path / "file"), config_name="./config"),
        language_adapter=LanguageAdapterOptions(load_lang_adapter=str(tmp_path / "lang")),
        fusion=FusionOptions(fuse_adapters=[f"qa={tmp_path}/file", f"ner={tmp_path}", "a=org/ner", "b=new", "c=name"]),
    )
    hint = "no such folder; give an adapters-<task> folder or a hub id such as org/name"
    assert validate_config(adapters) == [
        f"--model_name_or_path {tmp_path}/file: is a file; give the folder of a model",
        "--config_name ./config: no such folder; give a model folder or a hub id such as org/name",
        f"--load_lang_adapter {tmp_path}/lang: {hint}",
        f"--fuse_adapters qa {tmp_path}/file: is a file; give its folder",
        f"--fuse_adapters c name: {hint}",
    ]
    assert validate_config(replace(mlm_config(dry_run=True), adapter=MLMAdapterOptions(load_adapter="x"))) == [
        f"--load_adapter x: {hint}"
    ]


def test_every_part_of_a_question_answering_run_needs_data() -> None:
    config = qa_config(do_train=True, do_predict=True, eval_strategy="epoch")
    assert validate_config(config) == [
        "--do_train needs --train_file or --dataset_name",
        "--do_eval needs --validation_file or --dataset_name",
        "--do_predict needs --test_file or --dataset_name",
    ]
    assert validate_config(replace(config, data=QADataOptions(dataset_name="squad"))) == []
    assert validate_config(qa_config(dry_run=True)) == []


def test_every_part_of_a_ner_run_needs_a_file() -> None:
    assert validate_config(ner_config(do_train=True, do_eval=True, do_predict=True)) == [
        "--do_train needs --train_file or --dataset_name",
        "--do_eval needs --validation_file or --dataset_name",
        "--do_predict needs --test_file or --dataset_name",
    ]
    assert validate_config(ner_config(NERDataOptions(dataset_name="lener_br"), do_train=True, do_eval=True)) == []


def test_ner_data_that_is_not_read_or_contradicts_itself() -> None:
    data = NERDataOptions(train_file=[__file__], dataset_name="x", word_column="2", label_column="2")
    config = ner_config(data, do_train=True, label_names=["O", "B-X", "I-X", "B-X"])
    assert validate_config(config) == [
        "--dataset_name: nothing is read from it, every part that is used has a file; leave it out",
        "--word_column and --label_column are both 2; give two columns",
        "--label_names: B-X given twice; every number needs its own name",
    ]
    assert validate_config(
        ner_config(NERDataOptions(train_file=[__file__], dataset_config_name="pt"), do_train=True)
    ) == ["--dataset_config_name: names a configuration of --dataset_name, which is not given"]


def test_a_ner_run_without_training_needs_an_adapter() -> None:
    config = ner_config(NERDataOptions(validation_file=[__file__]), do_eval=True)
    assert validate_config(config) == ["without --do_train there is nothing to evaluate; give --load_adapter"]
    assert validate_config(replace(config, adapter=AdapterOptions(load_adapter="org/x"))) == []


def test_a_language_adapter_trains_and_evaluates_only() -> None:
    assert validate_config(mlm_config(do_train=True, do_eval=True, do_predict=True)) == [
        "--do_train needs --train_file or --dataset_name",
        "--do_eval needs --validation_file, or --train_file or --dataset_name to take a share of",
        "--do_predict: a language adapter predicts nothing; leave it out",
    ]
    assert validate_config(mlm_config(MLMDataOptions(train_file=[__file__]), do_eval=True)) == []
    assert validate_config(mlm_config(MLMDataOptions(validation_file=[__file__]), do_eval=True)) == []


@pytest.mark.parametrize(
    ("config", "metrics"),
    [
        (qa_config(), QA_METRICS),
        (qa_config(QADataOptions(version_2_with_negative=True)), f"{QA_METRICS}, HasAns_f1, HasAns_exact, HasA"),
        (ner_config(), "f1, precision, recall, entities, loss, runtime, samples_per_second, steps_per_second, or "),
        (mlm_config(), "loss, perplexity, runtime, samples_per_second, steps_per_second"),
    ],
)
def test_each_script_names_its_metrics(config: QARunConfig | NERRunConfig | MLMRunConfig, metrics: str) -> None:
    training = replace(config.training, metric_for_best_model="bleu", greater_is_better=None)
    problems = validate_config(replace(config, training=training))  # type: ignore[arg-type]
    start = f"--metric_for_best_model bleu: not computed here; choose from {metrics}"
    assert [problem for problem in problems if problem.startswith(start)]


@pytest.mark.parametrize(
    ("config", "metric", "greatest"),
    [
        (qa_config(QADataOptions(version_2_with_negative=True)), "HasAns_f1", True),
        (qa_config(QADataOptions(version_2_with_negative=True)), "eval_best_exact", True),
        (qa_config(), "total", True),
        (qa_config(), "scores_runtime", False),
        (ner_config(), "PER_f1", True),
        (ner_config(), "first_name_entities", True),
        (mlm_config(), "perplexity", False),
    ],
)
def test_every_printed_metric_decides_which_epoch_is_best(config: RunConfig, metric: str, greatest: bool) -> None:
    training = replace(config.training, metric_for_best_model=metric, greater_is_better=None, dry_run=True)
    resolved = replace(config, training=training).resolved()  # type: ignore[arg-type]
    assert validate_config(resolved) == []
    assert resolved.training.greater_is_better is greatest


def test_a_calibration_needs_an_evaluation_and_fits_what_is_not_given() -> None:
    both = QADataOptions(
        calibration_file=["a.json"], calibration_share=0.1, version_2_with_negative=True, temperature=1.5,
        null_score_diff_threshold=-2.0, validation_file=["b.json"],
    )  # fmt: skip
    config = replace(qa_config(both, do_predict=True), given=frozenset({"temperature", "null_score_diff_threshold"}))
    problems = [
        problem for problem in validate_config(config) if "calibration" in problem and ": no such" not in problem
    ]
    assert problems == [
        "--calibration_file and --calibration_share exclude each other; give one",
        "--calibration_file: needs --do_eval, which says how well the calibration does",
        "--temperature 1.5: --calibration_file fits it; leave out one of the two",
        "--null_score_diff_threshold -2: --calibration_file fits it; leave out one of the two",
    ]
    assert "--calibration_file a.json: no such file; give the path of a file" in validate_config(config)
    share = replace(both, calibration_file=None, version_2_with_negative=False)
    config = replace(config, data=share, training=qa_config(do_eval=True).training)
    assert [problem for problem in validate_config(config) if "calibration" in problem] == [
        "--temperature 1.5: --calibration_share fits it; leave out one of the two"  # SQuAD v1 has no threshold
    ]
    fitted = qa_config(replace(share, version_2_with_negative=True), do_eval=True)
    assert not [problem for problem in validate_config(fitted) if "calibration" in problem]


@pytest.mark.parametrize("name", ["bf16_full_eval", "fp16_full_eval"])
def test_a_calibration_must_not_round_the_weights_before_they_are_saved(name: str) -> None:
    training: dict[str, Any] = {"do_eval": True, name: True}
    config = qa_config(QADataOptions(calibration_share=0.1), **training)
    assert [problem for problem in validate_config(config) if name in problem] == [
        f"--{name}: with --calibration_share the weights would be rounded before they are saved; leave out the option, "
        "and give --bf16 True to compute in bfloat16"
    ]
    assert not [problem for problem in validate_config(replace(config, data=QADataOptions())) if name in problem]


def test_top_k_needs_as_many_candidates() -> None:
    config = qa_config(QADataOptions(n_best_size=4), metric_for_best_model="top_5_f1")
    assert "--metric_for_best_model top_5_f1: needs --n_best_size 5 or more" in validate_config(config)
    config = qa_config(QADataOptions(n_best_size=5), metric_for_best_model="top_5_f1")
    assert not [problem for problem in validate_config(config) if "top_5" in problem]


@pytest.mark.parametrize("metric", ["HasAns_f1", "NoAns_total", "best_f1_thresh"])
def test_metrics_of_squad_v2_need_its_option(metric: str) -> None:
    (problem,) = validate_config(qa_config(dry_run=True, metric_for_best_model=metric))
    assert problem == f"--metric_for_best_model {metric}: needs --version_2_with_negative True"


# ---------------------------------------------------------------- options that other options leave without use


@pytest.mark.parametrize(
    ("config", "given", "names"),
    [
        (
            qa_config(),
            {"save_steps", "logging_steps", "eval_steps", "eval_delay"},
            ["save_steps", "eval_steps", "eval_delay"],
        ),
        (qa_config(save_strategy="steps", eval_strategy="steps"), {"save_steps", "eval_steps", "eval_delay"}, []),
        (qa_config(logging_strategy="epoch"), {"logging_steps", "seed"}, ["logging_steps"]),
        (qa_config(max_steps=5), {"num_train_epochs", "max_steps"}, ["num_train_epochs"]),
        (qa_config(warmup_steps=5), {"warmup_ratio", "warmup_steps"}, ["warmup_ratio"]),
        (qa_config(lr_scheduler_type="constant"), {"warmup_ratio", "warmup_steps"}, ["warmup_ratio", "warmup_steps"]),
        (qa_config(), {"hub_model_id", "hub_revision", "gradient_checkpointing_kwargs"}, None),
        (
            qa_config(push_to_hub=True, gradient_checkpointing=True),
            {"hub_model_id", "gradient_checkpointing_kwargs"},
            [],
        ),
        (qa_config(), {"null_score_diff_threshold"}, ["null_score_diff_threshold"]),
        (qa_config(QADataOptions(version_2_with_negative=True)), {"null_score_diff_threshold"}, []),
        (qa_config(), {"fusion_head", "fusion_regularization", "fusion_decay_values"}, None),
        (replace(qa_config(), adapter=AdapterOptions(load_adapter="a")), {"fusion_regularization"}, []),
        (qa_config(), {"adapter_config", "madx2"}, []),
        (replace(qa_config(), fusion=FusionOptions(train_adapter=False)), {"adapter_config", "madx2"}, None),
        (qa_config(do_eval=False), {"validation_file", "max_eval_samples", "test_file", "max_predict_samples"}, None),
        (qa_config(do_eval=True, do_predict=True), {"validation_file", "test_file", "max_predict_samples"}, []),
        (ner_config(), {"weighted_loss_constant"}, ["weighted_loss_constant"]),
        (ner_config(NERDataOptions(weighted_loss=True)), {"weighted_loss_constant"}, []),
        (mlm_config(MLMDataOptions(validation_file=["a"])), {"validation_split_percentage"}, None),
        (mlm_config(), {"validation_split_percentage"}, []),
        (qa_config(), {"eval_accumulation_steps"}, None),
        (mlm_config(), {"eval_accumulation_steps"}, None),
        (ner_config(), {"eval_accumulation_steps"}, []),
        (qa_config(), set(), []),
    ],
)
def test_given_options_that_are_not_used_are_named(config: RunConfig, given: set[str], names: list[str] | None) -> None:
    notes = unused_notes(replace(config, given=frozenset(given)))
    found = [note.removeprefix("--").partition(" is not used: ")[0] for note in notes]
    assert sorted(found) == sorted(given if names is None else names)


# ---------------------------------------------------------------- sharding


def test_deepspeed_and_batches_in_parts_exclude_each_other() -> None:
    options = TrainingOptions(dry_run=True, deepspeed="ds_config_zero2.json", tokens_per_batch=4096)
    problem = "--tokens_per_batch: DeepSpeed takes every part for a batch of its own; leave out --tokens_per_batch or "
    assert f"{problem}--deepspeed" in training_problems(resolve_training_options(options))
    assert problem not in str(training_problems(replace(options, tokens_per_batch=None)))


@pytest.mark.parametrize("own", [["optimizer"], ["scheduler"], ["optimizer", "scheduler"], []])
def test_deepspeed_optimizer_has_one_learning_rate(own: list[str], tmp_path: Path) -> None:
    config: dict[str, Any] = {"zero_optimization": {"stage": 2}}
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(config | {name: {"type": "Other", "params": {}} for name in own}))
    options = resolve_training_options(TrainingOptions(dry_run=True, deepspeed=str(path), head_learning_rate=0.01))
    problems = [problem for problem in training_problems(options) if problem.startswith("--head_learning_rate")]
    assert len(problems) == bool(own)
    assert f"remove {' and '.join(own)} from the file" in str(problems) or not own


@pytest.mark.parametrize(
    ("file", "optim", "end"),
    [
        ("ds_config_zero2.json", "adafactor", "keeps the optimizer in CPU memory, which is for AdamW only"),
        ("ds_config_zero3.json", "adagrad", "keeps the optimizer in CPU memory, which is for AdamW only"),
        ("ds_config_zero3.json", "adamw_torch", None),
        ("ds_config_zero3.json", "adamw_torch_fused", None),
        ("own.json", "adamw_torch", "has an optimizer of its own"),
        ("own.json", None, None),
        ("on_gpu.json", "adafactor", None),
        ("unreplaced.json", "adafactor", None),
    ],
)
def test_deepspeed_files_may_not_replace_the_optimizer(
    file: str, optim: str | None, end: str | None, tmp_path: Path
) -> None:
    offload = {"device": "cpu"}
    files: dict[str, dict[str, Any]] = {
        "own.json": {"zero_optimization": {"stage": 2, "offload_optimizer": offload}, "optimizer": {"type": "AdamW"}},
        "on_gpu.json": {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "none"}}},
        "unreplaced.json": {
            "zero_optimization": {"stage": 2, "offload_optimizer": offload},
            "zero_force_ds_cpu_optimizer": False,
        },
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    path = tmp_path / file if file in files else ROOT / file
    given: dict[str, Any] = {"deepspeed": str(path)} | ({} if optim is None else {"optim": optim})
    config = replace(qa_config(dry_run=True, **given), given=frozenset(given))
    problems = [problem for problem in validate_config(config) if problem.startswith("--optim ")]
    assert len(problems) == (end is not None)
    assert end is None or problems[0].startswith(f"--optim {optim}: --deepspeed {path} {end}; leave out --optim")


@pytest.mark.parametrize("optim", ["lomo", "galore_adamw", "apollo_adamw_layerwise"])
def test_optimizers_with_one_learning_rate(optim: str) -> None:
    options = resolve_training_options(TrainingOptions(dry_run=True, optim=optim, head_learning_rate=0.01))
    (problem,) = training_problems(options)
    assert problem.startswith(f"--head_learning_rate: --optim {optim} has one learning rate for all weights")


@pytest.mark.parametrize(
    ("variable", "start"),
    [
        ("ACCELERATE_USE_FSDP", "--fsdp (or accelerate's FSDP setting): is not supported"),
        ("ACCELERATE_USE_DEEPSPEED", "accelerate's DeepSpeed setting: give --deepspeed"),
    ],
)
def test_settings_of_accelerate_are_refused(variable: str, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = resolve_training_options(TrainingOptions(dry_run=True))
    monkeypatch.setenv(variable, "true")
    (problem,) = training_problems(options)
    assert problem.startswith(start)
    monkeypatch.setenv(variable, "false")
    assert training_problems(options) == []


def test_mixed_precision_of_accelerate_is_refused_unless_it_is_that_of_the_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    for options in (TrainingOptions(dry_run=True), TrainingOptions(dry_run=True, fp16=True)):
        (problem,) = training_problems(resolve_training_options(options))
        assert problem.startswith("accelerate's mixed precision (bf16): give --bf16 True")
    assert training_problems(resolve_training_options(TrainingOptions(dry_run=True, bf16=True))) == []
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert training_problems(resolve_training_options(TrainingOptions(dry_run=True))) == []


def test_fsdp_is_refused() -> None:
    (problem,) = training_problems(resolve_training_options(TrainingOptions(dry_run=True, fsdp="full_shard")))
    assert problem.startswith("--fsdp (or accelerate's FSDP setting): is not supported")

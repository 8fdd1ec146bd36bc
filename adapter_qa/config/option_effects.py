"""Options without effect: those that no run accepts, and those that a run does not use because of its other options.

`tests/config/option_effects.py` lists every option of `transformers.TrainingArguments` with its effect.
"""

from __future__ import annotations

from dataclasses import MISSING, fields

from adapter_qa.config.options import TrainingOptions
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig, RunConfig
from adapter_qa.config.training_options import LibraryTrainingOptions

_NOT_FSDP = "is for --fsdp, which is not supported; --deepspeed ds_config_zero3.json divides the weights as well"
_ALL_AT_ONCE = "scores are computed from the predictions of all batches together"
_NO_MORE_INPUT = "the scores need labels and predictions only"
_NO_TPU = "TPUs are not supported"
_HUB_ID = "give --hub_model_id OWNER/NAME instead"
# Options of the library that would do nothing here or do harm, and why. They may only have the library's default value;
# --help does not show them.
REFUSED = {
    "accelerator_config": "how data is divided among processes is fixed here",
    "auto_find_batch_size": "the run would begin again with the weights of the failed attempt; "
    "--tokens_per_batch 4096 splits a batch that is too large",
    "average_tokens_across_devices": "a loss is always the mean over the labels of all processes",
    "batch_eval_metrics": _ALL_AT_ONCE,
    "eval_do_concat_batches": _ALL_AT_ONCE,
    "eval_use_gather_object": "processes exchange tensors only",
    "fsdp_config": _NOT_FSDP,
    "fsdp_min_num_params": _NOT_FSDP,
    "fsdp_transformer_layer_cls_to_wrap": _NOT_FSDP,
    "half_precision_backend": "PyTorch's own mixed precision is used",
    "hub_always_push": "a run is pushed once, at its end",
    "include_for_metrics": _NO_MORE_INPUT,
    "include_inputs_for_metrics": _NO_MORE_INPUT,
    "jit_mode_eval": "models with adapters are not traced for an evaluation",
    "length_column_name": "lengths are counted, not read from a column",
    "liger_kernel_config": "Liger has no kernels for these encoders",
    "logging_nan_inf_filter": "a NaN loss ends the run, so there is nothing to filter",
    "mp_parameters": "SageMaker's model parallelism is not supported",
    "past_index": "encoders have no past states",
    "prediction_loss_only": "scores need predictions; --metric_for_best_model loss chooses by the loss",
    "push_to_hub_model_id": _HUB_ID,
    "push_to_hub_organization": _HUB_ID,
    "ray_scope": "is for the library's search with Ray; sweep_qa.py searches hyperparameters",
    "remove_unused_columns": "inputs are arrays made by this project and have no further columns",
    "restore_callback_states_from_checkpoint": "a resumed run always continues to count its patience",
    "resume_from_checkpoint": "the same command with the same --output_dir resumes",
    "save_on_each_node": "the main process writes, into a folder that all machines share",
    "save_only_model": "an interrupted run could not resume from its checkpoints",
    "save_safetensors": "weights are always written as safetensors",
    "tpu_metrics_debug": _NO_TPU,
    "tpu_num_cores": _NO_TPU,
    "use_legacy_prediction_loop": "its losses are not the mean over all labels",
    "use_liger_kernel": "Liger has no kernels for these encoders",
    "use_mps_device": "Apple's MPS lacks float64, which fusion needs",
}


FUSION_OPTIONS = ("fusion_regularization", "fusion_decay_values")
ADAPTER_OPTIONS = (
    *("adapter_config", "adapter_non_linearity", "adapter_reduction_factor", "madx2", "houlsby_MHA_lastlayer"),
    *("lang_adapter_config", "lang_adapter_non_linearity", "lang_adapter_reduction_factor"),
)
LABEL_INPUTS = {QARunConfig: ["start_positions", "end_positions"], MLMRunConfig: ["labels"]}  # of the models


def refused_problems(config: RunConfig) -> list[str]:
    """Return a problem for each option that no run accepts with the value that it has."""
    options = config.training
    problems = []
    for field in fields(LibraryTrainingOptions):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        value = getattr(options, field.name)
        if field.name == "prediction_loss_only" and isinstance(config, MLMRunConfig):
            continue  # always, since the evaluation of a language adapter has no other result
        if field.name in REFUSED and value != default:
            words = " ".join(map(str, value)) if isinstance(value, list) else value
            problems.append(f"--{field.name} {words}: {REFUSED[field.name]}; leave it out")
    inputs = LABEL_INPUTS.get(type(config))
    if inputs is not None and options.label_names not in (None, inputs):
        problems.append(f"--label_names {' '.join(options.label_names)}: is {' '.join(inputs)} here; leave it out")
    if options.hub_strategy not in ("every_save", "end", None):  # the library's default, and what this project does
        problems.append(f"--hub_strategy {options.hub_strategy}: a run is pushed once, at its end; leave it out")
    if "tpu_metrics_debug" in (options.debug or []):
        problems.append(f"--debug tpu_metrics_debug: {_NO_TPU}; leave it out")
    return problems


def unused_notes(config: RunConfig) -> list[str]:
    """Return a note on each given option that the run does not use because of its other options."""
    notes = {name: reason for name, unused, reason in _conditions(config.training) if unused}
    match config:
        case QARunConfig():
            notes["eval_accumulation_steps"] = "of the predictions only the best spans are kept"
            if not config.data.version_2_with_negative:
                notes["null_score_diff_threshold"] = "it is for --version_2_with_negative"
            if config.data.folds is None:
                notes |= dict.fromkeys(("fold_by", "fold_choosing_share"), "it is for --folds")
            if config.fusion.fuse_adapters is None:
                notes["fusion_head"] = "it is for --fuse_adapters"
            if config.fusion.fuse_adapters is None and config.adapter.load_adapter is None:
                notes |= dict.fromkeys(FUSION_OPTIONS, "it is for a fusion")
            if not config.fusion.train_adapter:
                notes |= dict.fromkeys(ADAPTER_OPTIONS, "full fine-tuning has no adapter")
        case NERRunConfig():
            if not config.data.weighted_loss:
                notes["weighted_loss_constant"] = "it is for --weighted_loss"
        case MLMRunConfig():
            notes["eval_accumulation_steps"] = "of the predictions only the loss is kept"
            if config.data.validation_file:
                notes["validation_split_percentage"] = "--validation_file is evaluated on"
    return [f"--{name} is not used: {reason}" for name, reason in notes.items() if name in config.given]


def _conditions(options: TrainingOptions) -> list[tuple[str, bool, str]]:
    """Return options, whether they are not used, and why."""
    evaluation, schedule = options.effective_eval_strategy, options.lr_scheduler_type
    saved, logged = options.save_strategy, options.logging_strategy
    constant = schedule in ("constant", "reduce_lr_on_plateau")
    no_warmup = f"--lr_scheduler_type {schedule} has no warm-up"
    no_evaluation = not options.do_eval and evaluation == "no"
    no_push, no_trackio = "it is for --push_to_hub", "it is for --report_to trackio"
    return [
        ("save_steps", saved != "steps", f"--save_strategy is {saved}"),
        ("eval_steps", evaluation != "steps", f"--eval_strategy is {evaluation}"),
        ("eval_delay", evaluation == "no", "there is no evaluation while training"),
        ("logging_steps", logged != "steps", f"--logging_strategy is {logged}"),
        *((name, no_evaluation, "--do_eval is not given") for name in ("validation_file", "max_eval_samples")),
        *((name, not options.do_predict, "--do_predict is not given") for name in ("test_file", "max_predict_samples")),
        ("num_train_epochs", options.max_steps > 0, "--max_steps ends the training"),
        ("warmup_ratio", options.warmup_steps > 0, "--warmup_steps takes its place"),
        ("warmup_ratio", constant, no_warmup),
        ("warmup_steps", constant, no_warmup),
        ("optim_target_modules", not options.optim.startswith(("galore", "apollo")), "it is for GaLore and APOLLO"),
        ("gradient_checkpointing_kwargs", not options.gradient_checkpointing, "it is for --gradient_checkpointing"),
        *((name, not options.push_to_hub, no_push) for name in ("hub_model_id", "hub_token")),
        *((name, not options.push_to_hub, no_push) for name in ("hub_private_repo", "hub_revision")),
        *((name, "trackio" not in (options.report_to or []), no_trackio) for name in ("project", "trackio_space_id")),
    ]

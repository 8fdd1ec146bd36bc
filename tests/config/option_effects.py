"""The effect of every option of `transformers.TrainingArguments` on each trainer: one row for each option.

`Effect`: the option changes something that can be observed; `shows` names the observation (`OBSERVATIONS` of
test_option_effects.py). `Refused`: the run ends with this message before a model is loaded. `Unused`: the run says that
the option is not used, and why. `Nothing`: the option has no influence by its nature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapter_qa.config.option_effects import REFUSED

DIFFERENT = object()  # the observation is another one than without the option


@dataclass(frozen=True)
class Effect:
    """An option whose effect is observed.

    Attributes:
        words: on the command line; more options may stand after "|", which both runs have.
        shows: name of the observation.
        value: what is observed with the option.
    """

    words: str
    shows: str
    value: Any = DIFFERENT


@dataclass(frozen=True)
class Refused:
    """An option that is refused; `message` is the beginning of the line."""

    words: str
    message: str


@dataclass(frozen=True)
class Unused:
    """An option that does nothing together with these others; `note` is the beginning of the line."""

    words: str
    note: str


@dataclass(frozen=True)
class Nothing:
    """An option without influence, because of its nature."""

    reason: str


Row = Effect | Refused | Unused | Nothing


@dataclass(frozen=True)
class Rows:
    """The rows of an option that differs between trainers."""

    qa: Row
    ner: Row
    mlm: Row


def refused(name: str, value: str) -> Refused:
    """Return the row of an option of `REFUSED`."""
    return Refused(f"--{name} {value}", f"--{name} {value}: {REFUSED[name]}; leave it out")


def unused(name: str, value: str, reason: str) -> Unused:
    """Return the row of an option that other options leave without effect."""
    return Unused(f"--{name} {value}", f"--{name} is not used: {reason}")


TWO_EPOCHS = "| --eval_strategy epoch --num_train_epochs 2"
BEST = "| --eval_strategy epoch --save_strategy epoch"
PUSH = "| --push_to_hub --hub_model_id a/b --hub_token t"
CPU_ONLY_COPY = Nothing("when predictions move to the CPU does not change them")

# Unless a row says otherwise: 8 inputs in batches of 2, one epoch, no evaluation while training, no checkpoints.
EFFECTS: dict[str, Row | Rows] = {
    "output_dir": Effect("--output_dir elsewhere", "folder", "elsewhere"),
    "overwrite_output_dir": Effect("--overwrite_output_dir", "replaces a run", True),
    "do_train": Rows(
        qa=Effect("--do_train False", "trains", False),
        ner=Effect("--do_train False | --load_adapter org/saved", "trains", False),
        mlm=Effect("--do_train False", "trains", False),
    ),
    "do_eval": Effect("--do_eval False --eval_strategy no", "evaluates", False),
    "do_predict": Rows(
        qa=Effect("--do_predict | --test_file DEV", "predicts", True),
        ner=Effect("--do_predict | --test_file DEV", "predicts", True),
        mlm=Refused("--do_predict", "--do_predict: a language adapter predicts nothing; leave it out"),
    ),
    "eval_strategy": Effect("--eval_strategy steps | --eval_steps 2", "evaluations", [2, 4]),
    "prediction_loss_only": Rows(
        qa=refused("prediction_loss_only", "True"),
        ner=refused("prediction_loss_only", "True"),
        mlm=Nothing("the evaluation of a language adapter has no other result than its loss"),
    ),
    "per_device_train_batch_size": Effect("--per_device_train_batch_size 3", "training batches", [3, 3, 2]),
    "per_device_eval_batch_size": Effect("--per_device_eval_batch_size 3", "evaluation batches", [3, 1]),
    "per_gpu_train_batch_size": Effect(
        "--per_gpu_train_batch_size 3 | ~--per_device_train_batch_size", "training batches", [3, 3, 2]
    ),
    "per_gpu_eval_batch_size": Effect(
        "--per_gpu_eval_batch_size 3", "evaluation batches", [3, 1]
    ),
    "gradient_accumulation_steps": Effect("--gradient_accumulation_steps 2", "steps", 2),
    "eval_accumulation_steps": CPU_ONLY_COPY,
    "eval_delay": Effect(f"--eval_delay 2 {TWO_EPOCHS}", "evaluations", [8]),
    "torch_empty_cache_steps": Effect("--torch_empty_cache_steps 2", "emptied caches", 2),
    "learning_rate": Effect("--learning_rate 0.5", "learning rate", 0.5),
    "weight_decay": Effect("--weight_decay 0.25", "weight decays", [0.0, 0.25]),
    "adam_beta1": Effect("--adam_beta1 0.5", "betas", (0.5, 0.999)),
    "adam_beta2": Effect("--adam_beta2 0.5", "betas", (0.9, 0.5)),
    "adam_epsilon": Effect("--adam_epsilon 0.5", "epsilon", 0.5),
    "max_grad_norm": Effect("--max_grad_norm 1e-9 | --optim sgd", "trained weights"),
    "num_train_epochs": Effect("--num_train_epochs 2", "steps", 8),
    "max_steps": Effect("--max_steps 3", "steps", 3),
    "lr_scheduler_type": Effect("--lr_scheduler_type constant", "schedule", [1.0, 1.0, 1.0, 1.0]),
    "lr_scheduler_kwargs": Effect(
        '--lr_scheduler_kwargs {"num_cycles":2} | --lr_scheduler_type cosine_with_restarts', "schedule"
    ),
    "warmup_ratio": Effect("--warmup_ratio 0.5", "schedule", [0.0, 0.5, 1.0, 0.5]),
    "warmup_steps": Effect("--warmup_steps 2", "schedule", [0.0, 0.5, 1.0, 0.5]),
    "log_level": Effect("--log_level debug", "verbosity", 10),
    "log_level_replica": Effect("--log_level_replica error", "verbosity of other processes", 40),
    "log_on_each_node": Effect("--log_on_each_node False", "logs on a second machine", False),
    "logging_dir": Effect("--logging_dir curves | --report_to tensorboard", "curves", ["curves"]),
    "logging_strategy": Effect("--logging_strategy no", "logged steps", []),
    "logging_first_step": Effect("--logging_first_step | --logging_steps 3", "logged steps", [1, 3]),
    "logging_steps": Effect("--logging_steps 2", "logged steps", [2, 4]),
    "logging_nan_inf_filter": refused("logging_nan_inf_filter", "False"),
    "save_strategy": Effect("--save_strategy epoch", "checkpoints", ["4"]),
    "save_steps": Effect("--save_steps 2 | --save_strategy steps --save_total_limit 9",
                         "checkpoints", ["2", "4"]),
    "save_total_limit": Effect("--save_total_limit 2 | --save_strategy steps --save_steps 1",
                               "checkpoints", ["3", "4"]),
    "save_safetensors": refused("save_safetensors", "False"),
    "save_on_each_node": refused("save_on_each_node", "True"),
    "save_only_model": refused("save_only_model", "True"),
    "restore_callback_states_from_checkpoint": refused("restore_callback_states_from_checkpoint", "True"),
    "no_cuda": Effect("--no_cuda | ~--use_cpu", "precision on a GPU", "float32"),
    "use_cpu": Effect("--use_cpu | ~--use_cpu", "precision on a GPU", "float32"),
    "use_mps_device": refused("use_mps_device", "True"),
    "seed": Effect("--seed 7", "first batches"),
    "data_seed": Effect("--data_seed 7", "first batches"),
    "jit_mode_eval": refused("jit_mode_eval", "True"),
    "bf16": Effect("--bf16", "precision", "bf16"),
    "fp16": Effect("--fp16 | ~--use_cpu", "precision on a GPU", "float16"),
    "fp16_opt_level": Unused("--fp16_opt_level O2", "--fp16_opt_level is not needed any more: it was for apex"),
    "half_precision_backend": refused("half_precision_backend", "apex"),
    "bf16_full_eval": Effect("--bf16_full_eval", "dtype of an evaluation", "bfloat16"),
    "fp16_full_eval": Effect("--fp16_full_eval", "dtype of an evaluation", "float16"),
    "tf32": Effect("--tf32 True", "TF32 on a GPU", True),
    "local_rank": Unused("--local_rank 0", "--local_rank is not needed any more: it is read from the environment"),
    "ddp_backend": Effect("--ddp_backend gloo", "process group", {"backend": "gloo"}),
    "tpu_num_cores": refused("tpu_num_cores", "8"),
    "tpu_metrics_debug": refused("tpu_metrics_debug", "True"),
    "debug": Effect("--debug underflow_overflow", "watched for overflows", True),
    "dataloader_drop_last": Effect(
        "--dataloader_drop_last | --per_device_train_batch_size 3 --per_device_eval_batch_size 3",
        "training and evaluation batches", ([3, 3], [3, 1]),
    ),
    "eval_steps": Effect("--eval_steps 3 | --eval_strategy steps", "evaluations", [3]),
    "dataloader_num_workers": Effect("--dataloader_num_workers 2", "workers", 2),
    "dataloader_prefetch_factor": Effect(
        "--dataloader_prefetch_factor 5 | --dataloader_num_workers 1", "prefetched batches", 5
    ),
    "past_index": refused("past_index", "1"),
    "run_name": Nothing("a label that wandb and other reporters show; TensorBoard and the run's files have none"),
    "disable_tqdm": Effect("--disable_tqdm False", "shows progress", True),
    "remove_unused_columns": refused("remove_unused_columns", "False"),
    "label_names": Rows(
        qa=Refused("--label_names a b", "--label_names a b: is start_positions end_positions here; leave it out"),
        ner=Effect("--label_names O B-X", "names of numbered labels", ("O", "B-X")),
        mlm=Refused("--label_names a", "--label_names a: is labels here; leave it out"),
    ),
    "load_best_model_at_end": Effect(f"--load_best_model_at_end False {BEST}", "loads the best weights", False),
    "metric_for_best_model": Rows(
        qa=Effect("--metric_for_best_model exact", "metric of the best epoch", "exact"),
        ner=Effect("--metric_for_best_model LOC_recall", "metric of the best epoch", "LOC_recall"),
        mlm=Effect("--metric_for_best_model perplexity", "metric of the best epoch", "perplexity"),
    ),
    "greater_is_better": Rows(
        qa=Refused("--greater_is_better False", "--greater_is_better False: must be True for f1"),
        ner=Refused("--greater_is_better False", "--greater_is_better False: must be True for f1"),
        mlm=Refused("--greater_is_better True", "--greater_is_better True: must be False for loss"),
    ),
    "ignore_data_skip": Effect("--ignore_data_skip", "first batch after step 1", 0),
    "fsdp": Refused("--fsdp full_shard", "--fsdp (or accelerate's FSDP setting): is not supported"),
    "fsdp_min_num_params": refused("fsdp_min_num_params", "10"),
    "fsdp_config": refused("fsdp_config", "x.json"),
    "fsdp_transformer_layer_cls_to_wrap": refused("fsdp_transformer_layer_cls_to_wrap", "BertLayer"),
    "accelerator_config": refused("accelerator_config", '{"split_batches":true}'),
    "deepspeed": Effect("--deepspeed ds_config_zero2.json", "stage of ZeRO", 2),
    "label_smoothing_factor": Effect("--label_smoothing_factor 0.5", "training loss"),
    "optim": Effect("--optim sgd", "optimizer", "SGD"),
    "optim_args": Unused("--optim_args rank=2", "--optim_args is not used: --optim adamw_torch_fused has no further"),
    "adafactor": Effect("--adafactor", "optimizer", "Adafactor"),
    "group_by_length": Rows(
        qa=Effect("--group_by_length | --bucket_by_length False", "grouped by length", True),
        ner=Effect("--group_by_length | --bucket_by_length False", "grouped by length", True),
        mlm=Nothing("all blocks of text have the same length"),
    ),
    "length_column_name": refused("length_column_name", "len"),
    "report_to": Effect("--report_to tensorboard", "reporters", ["TensorBoardCallback"]),
    "project": unused("project", "x", "it is for --report_to trackio"),
    "trackio_space_id": unused("trackio_space_id", "x", "it is for --report_to trackio"),
    "ddp_find_unused_parameters": Effect(
        "--ddp_find_unused_parameters True", "DDP", {"find_unused_parameters": True}
    ),
    "ddp_bucket_cap_mb": Effect("--ddp_bucket_cap_mb 7", "DDP", {"bucket_cap_mb": 7}),
    "ddp_broadcast_buffers": Effect("--ddp_broadcast_buffers False", "DDP", {"broadcast_buffers": False}),
    "dataloader_pin_memory": Nothing("pinned memory speeds up copies to a GPU; on a CPU there are none"),
    "dataloader_persistent_workers": Effect(
        "--dataloader_persistent_workers | --dataloader_num_workers 1", "workers persist", True
    ),
    "skip_memory_metrics": Effect("--skip_memory_metrics False", "memory is measured", True),
    "use_legacy_prediction_loop": refused("use_legacy_prediction_loop", "True"),
    "push_to_hub": Effect("--push_to_hub | --hub_model_id a/b --hub_token t", "pushed", ("a/b", "t", None, None)),
    "resume_from_checkpoint": refused("resume_from_checkpoint", "x"),
    "hub_model_id": Effect("--hub_model_id c/d | --push_to_hub --hub_model_id a/b --hub_token t", "pushed",
                           ("c/d", "t", None, None)),
    "hub_strategy": Refused("--hub_strategy checkpoint", "--hub_strategy checkpoint: a run is pushed once, at its end"),
    "hub_token": Effect(f"--hub_token u {PUSH}", "pushed", ("a/b", "u", None, None)),
    "hub_private_repo": Effect(f"--hub_private_repo True {PUSH}", "pushed", ("a/b", "t", True, None)),
    "hub_always_push": refused("hub_always_push", "True"),
    "hub_revision": Effect(f"--hub_revision r {PUSH}", "pushed", ("a/b", "t", None, "r")),
    "gradient_checkpointing": Effect("--gradient_checkpointing", "forward passes of a layer", 2),
    "gradient_checkpointing_kwargs": Effect(
        '--gradient_checkpointing_kwargs {"preserve_rng_state":false} | --gradient_checkpointing',
        "settings of checkpointing", {"preserve_rng_state": False},
    ),
    "include_inputs_for_metrics": refused("include_inputs_for_metrics", "True"),
    "include_for_metrics": refused("include_for_metrics", "inputs"),
    "eval_do_concat_batches": refused("eval_do_concat_batches", "False"),
    "fp16_backend": Unused("--fp16_backend apex", "--fp16_backend is not needed any more: PyTorch's own mixed"),
    "push_to_hub_model_id": refused("push_to_hub_model_id", "x"),
    "push_to_hub_organization": refused("push_to_hub_organization", "x"),
    "push_to_hub_token": Effect(f"--push_to_hub_token u {PUSH.replace('--hub_token', '--push_to_hub_token')}",
                                "pushed", ("a/b", "u", None, None)),
    "mp_parameters": refused("mp_parameters", "x"),
    "auto_find_batch_size": refused("auto_find_batch_size", "True"),
    "full_determinism": Effect("--full_determinism", "deterministic algorithms", True),
    "torchdynamo": Effect("--torchdynamo eager", "compiler", ("EAGER", "default")),
    "ray_scope": refused("ray_scope", "all"),
    "ddp_timeout": Effect("--ddp_timeout 60 | ~--use_cpu", "process group", {"timeout": 60}),
    "torch_compile": Effect("--torch_compile True", "compiler", ("INDUCTOR", "default")),
    "torch_compile_backend": Effect("--torch_compile_backend aot_eager", "compiler", ("AOT_EAGER", "default")),
    "torch_compile_mode": Effect("--torch_compile_mode max-autotune", "compiler", ("INDUCTOR", "max-autotune")),
    "include_tokens_per_second": Effect("--include_tokens_per_second", "tokens per second are measured", True),
    "include_num_input_tokens_seen": Effect("--include_num_input_tokens_seen", "tokens are counted", True),
    "neftune_noise_alpha": Effect("--neftune_noise_alpha 50", "training loss"),
    "optim_target_modules": unused("optim_target_modules", "all-linear", "it is for GaLore and APOLLO"),
    "batch_eval_metrics": refused("batch_eval_metrics", "True"),
    "eval_on_start": Effect("--eval_on_start", "evaluations", [0]),
    "use_liger_kernel": refused("use_liger_kernel", "True"),
    "liger_kernel_config": Refused("--liger_kernel_config x", "argument --liger_kernel_config: invalid dict value"),
    "eval_use_gather_object": refused("eval_use_gather_object", "True"),
    "average_tokens_across_devices": refused("average_tokens_across_devices", "False"),
}  # fmt: skip

"""The options of `transformers.TrainingArguments`, without the seconds that importing the library takes.

Generated: python tests/support/generate_training_options.py > adapter_qa/config/training_options.py
"""

# ruff: noqa: D101, RUF009, RUF036 - enumerations of the library, whose parser looks at the order of a union

from dataclasses import MISSING, dataclass, field
from enum import StrEnum
from typing import Any


def _option(default: Any, help_text: str, *, default_factory: Any = MISSING, **metadata: Any) -> Any:
    return field(default=default, default_factory=default_factory, metadata={"help": help_text, **metadata})


class DebugOption(StrEnum):
    UNDERFLOW_OVERFLOW = "underflow_overflow"
    TPU_METRICS_DEBUG = "tpu_metrics_debug"


class FSDPOption(StrEnum):
    FULL_SHARD = "full_shard"
    SHARD_GRAD_OP = "shard_grad_op"
    NO_SHARD = "no_shard"
    HYBRID_SHARD = "hybrid_shard"
    HYBRID_SHARD_ZERO2 = "hybrid_shard_zero2"
    OFFLOAD = "offload"
    AUTO_WRAP = "auto_wrap"


class HubStrategy(StrEnum):
    END = "end"
    EVERY_SAVE = "every_save"
    CHECKPOINT = "checkpoint"
    ALL_CHECKPOINTS = "all_checkpoints"


class IntervalStrategy(StrEnum):
    NO = "no"
    STEPS = "steps"
    EPOCH = "epoch"


class OptimizerNames(StrEnum):
    ADAMW_TORCH = "adamw_torch"
    ADAMW_TORCH_FUSED = "adamw_torch_fused"
    ADAMW_TORCH_XLA = "adamw_torch_xla"
    ADAMW_TORCH_NPU_FUSED = "adamw_torch_npu_fused"
    ADAMW_APEX_FUSED = "adamw_apex_fused"
    ADAFACTOR = "adafactor"
    ADAMW_ANYPRECISION = "adamw_anyprecision"
    ADAMW_TORCH_4BIT = "adamw_torch_4bit"
    ADAMW_TORCH_8BIT = "adamw_torch_8bit"
    ADEMAMIX = "ademamix"
    SGD = "sgd"
    ADAGRAD = "adagrad"
    ADAMW_BNB = "adamw_bnb_8bit"
    ADAMW_8BIT = "adamw_8bit"
    ADEMAMIX_8BIT = "ademamix_8bit"
    LION_8BIT = "lion_8bit"
    LION = "lion_32bit"
    PAGED_ADAMW = "paged_adamw_32bit"
    PAGED_ADAMW_8BIT = "paged_adamw_8bit"
    PAGED_ADEMAMIX = "paged_ademamix_32bit"
    PAGED_ADEMAMIX_8BIT = "paged_ademamix_8bit"
    PAGED_LION = "paged_lion_32bit"
    PAGED_LION_8BIT = "paged_lion_8bit"
    RMSPROP = "rmsprop"
    RMSPROP_BNB = "rmsprop_bnb"
    RMSPROP_8BIT = "rmsprop_bnb_8bit"
    RMSPROP_32BIT = "rmsprop_bnb_32bit"
    GALORE_ADAMW = "galore_adamw"
    GALORE_ADAMW_8BIT = "galore_adamw_8bit"
    GALORE_ADAFACTOR = "galore_adafactor"
    GALORE_ADAMW_LAYERWISE = "galore_adamw_layerwise"
    GALORE_ADAMW_8BIT_LAYERWISE = "galore_adamw_8bit_layerwise"
    GALORE_ADAFACTOR_LAYERWISE = "galore_adafactor_layerwise"
    LOMO = "lomo"
    ADALOMO = "adalomo"
    GROKADAMW = "grokadamw"
    SCHEDULE_FREE_RADAM = "schedule_free_radam"
    SCHEDULE_FREE_ADAMW = "schedule_free_adamw"
    SCHEDULE_FREE_SGD = "schedule_free_sgd"
    APOLLO_ADAMW = "apollo_adamw"
    APOLLO_ADAMW_LAYERWISE = "apollo_adamw_layerwise"
    STABLE_ADAMW = "stable_adamw"


class SaveStrategy(StrEnum):
    NO = "no"
    STEPS = "steps"
    EPOCH = "epoch"
    BEST = "best"


class SchedulerType(StrEnum):
    LINEAR = "linear"
    COSINE = "cosine"
    COSINE_WITH_RESTARTS = "cosine_with_restarts"
    POLYNOMIAL = "polynomial"
    CONSTANT = "constant"
    CONSTANT_WITH_WARMUP = "constant_with_warmup"
    INVERSE_SQRT = "inverse_sqrt"
    REDUCE_ON_PLATEAU = "reduce_lr_on_plateau"
    COSINE_WITH_MIN_LR = "cosine_with_min_lr"
    COSINE_WARMUP_WITH_MIN_LR = "cosine_warmup_with_min_lr"
    WARMUP_STABLE_DECAY = "warmup_stable_decay"


@dataclass(frozen=True)
class LibraryTrainingOptions:
    """The fields of `transformers.TrainingArguments`: names, types, defaults and help texts are the library's."""

    output_dir: str | None = _option(
        None,
        "The output directory where the model predictions and checkpoints will be written. Defaults to 'trainer_output'"
        " if not provided.",
    )
    overwrite_output_dir: bool = _option(
        False,
        "Overwrite the content of the output directory. Use this to continue training if output_dir points to a "
        "checkpoint directory.",
    )
    do_train: bool = _option(False, "Whether to run training.")
    do_eval: bool = _option(False, "Whether to run eval on the dev set.")
    do_predict: bool = _option(False, "Whether to run predictions on the test set.")
    eval_strategy: IntervalStrategy | str = _option("no", "The evaluation strategy to use.")
    prediction_loss_only: bool = _option(False, "When performing evaluation and predictions, only returns the loss.")
    per_device_train_batch_size: int = _option(8, "Batch size per device accelerator core/CPU for training.")
    per_device_eval_batch_size: int = _option(8, "Batch size per device accelerator core/CPU for evaluation.")
    per_gpu_train_batch_size: int | None = _option(
        None,
        "Deprecated, the use of `--per_device_train_batch_size` is preferred. Batch size per GPU/TPU core/CPU for "
        "training.",
    )
    per_gpu_eval_batch_size: int | None = _option(
        None,
        "Deprecated, the use of `--per_device_eval_batch_size` is preferred. Batch size per GPU/TPU core/CPU for "
        "evaluation.",
    )
    gradient_accumulation_steps: int = _option(
        1, "Number of updates steps to accumulate before performing a backward/update pass."
    )
    eval_accumulation_steps: int | None = _option(
        None, "Number of predictions steps to accumulate before moving the tensors to the CPU."
    )
    eval_delay: float = _option(
        0,
        "Number of epochs or steps to wait for before the first evaluation can be performed, depending on the "
        "eval_strategy.",
    )
    torch_empty_cache_steps: int | None = _option(
        None,
        "Number of steps to wait before calling `torch.<device>.empty_cache()`.This can help avoid CUDA out-of-memory "
        "errors by lowering peak VRAM usage at a cost of about [10% slower "
        "performance](https://github.com/huggingface/transformers/issues/31372).If left unset or set to None, cache "
        "will not be emptied.",
    )
    learning_rate: float = _option(5e-05, "The initial learning rate for AdamW.")
    weight_decay: float = _option(0.0, "Weight decay for AdamW if we apply some.")
    adam_beta1: float = _option(0.9, "Beta1 for AdamW optimizer")
    adam_beta2: float = _option(0.999, "Beta2 for AdamW optimizer")
    adam_epsilon: float = _option(1e-08, "Epsilon for AdamW optimizer.")
    max_grad_norm: float = _option(1.0, "Max gradient norm.")
    num_train_epochs: float = _option(3.0, "Total number of training epochs to perform.")
    max_steps: int = _option(-1, "If > 0: set total number of training steps to perform. Override num_train_epochs.")
    lr_scheduler_type: SchedulerType | str = _option("linear", "The scheduler type to use.")
    lr_scheduler_kwargs: dict[str, Any] | str | None = _option(
        None, "Extra parameters for the lr_scheduler such as {'num_cycles': 1} for the cosine with hard restarts."
    )
    warmup_ratio: float = _option(0.0, "Linear warmup over warmup_ratio fraction of total steps.")
    warmup_steps: int = _option(0, "Linear warmup over warmup_steps.")
    log_level: str = _option(
        "passive",
        "Logger log level to use on the main node. Possible choices are the log levels as strings: 'debug', 'info', "
        "'warning', 'error' and 'critical', plus a 'passive' level which doesn't set anything and lets the application "
        "set the level. Defaults to 'passive'.",
        choices=("detail", "debug", "info", "warning", "error", "critical", "passive"),
    )
    log_level_replica: str = _option(
        "warning",
        "Logger log level to use on replica nodes. Same choices and defaults as ``log_level``",
        choices=("detail", "debug", "info", "warning", "error", "critical", "passive"),
    )
    log_on_each_node: bool = _option(
        True, "When doing a multinode distributed training, whether to log once per node or just once on the main node."
    )
    logging_dir: str | None = _option(None, "Tensorboard log dir.")
    logging_strategy: IntervalStrategy | str = _option("steps", "The logging strategy to use.")
    logging_first_step: bool = _option(False, "Log the first global_step")
    logging_steps: float = _option(
        500,
        "Log every X updates steps. Should be an integer or a float in range `[0,1)`. If smaller than 1, will be "
        "interpreted as ratio of total training steps.",
    )
    logging_nan_inf_filter: bool = _option(True, "Filter nan and inf losses for logging.")
    save_strategy: SaveStrategy | str = _option("steps", "The checkpoint save strategy to use.")
    save_steps: float = _option(
        500,
        "Save checkpoint every X updates steps. Should be an integer or a float in range `[0,1)`. If smaller than 1, "
        "will be interpreted as ratio of total training steps.",
    )
    save_total_limit: int | None = _option(
        None,
        "If a value is passed, will limit the total amount of checkpoints. Deletes the older checkpoints in "
        "`output_dir`. When `load_best_model_at_end` is enabled, the 'best' checkpoint according to "
        "`metric_for_best_model` will always be retained in addition to the most recent ones. For example, for "
        "`save_total_limit=5` and `load_best_model_at_end=True`, the four last checkpoints will always be retained "
        "alongside the best model. When `save_total_limit=1` and `load_best_model_at_end=True`, it is possible that two"
        " checkpoints are saved: the last one and the best one (if they are different). Default is unlimited "
        "checkpoints",
    )
    save_safetensors: bool = _option(
        True, "Use safetensors saving and loading for state dicts instead of default torch.load and torch.save."
    )
    save_on_each_node: bool = _option(
        False,
        "When doing multi-node distributed training, whether to save models and checkpoints on each node, or only on "
        "the main one",
    )
    save_only_model: bool = _option(
        False,
        "When checkpointing, whether to only save the model, or also the optimizer, scheduler & rng state.Note that "
        "when this is true, you won't be able to resume training from checkpoint.This enables you to save storage by "
        "not storing the optimizer, scheduler & rng state.You can only load the model using from_pretrained with this "
        "option set to True.",
    )
    restore_callback_states_from_checkpoint: bool = _option(
        False,
        "Whether to restore the callback states from the checkpoint. If `True`, will override callbacks passed to the "
        "`Trainer` if they exist in the checkpoint.",
    )
    no_cuda: bool = _option(False, "This argument is deprecated. It will be removed in version 5.0 of 🤗 Transformers.")
    use_cpu: bool = _option(
        False,
        "Whether or not to use cpu. If left to False, we will use the available torch device/backend (cuda/mps/xpu/hpu "
        "etc.)",
    )
    use_mps_device: bool = _option(
        False,
        "This argument is deprecated. `mps` device will be used if available similar to `cuda` device. It will be "
        "removed in version 5.0 of 🤗 Transformers",
    )
    seed: int = _option(42, "Random seed that will be set at the beginning of training.")
    data_seed: int | None = _option(None, "Random seed to be used with data samplers.")
    jit_mode_eval: bool = _option(False, "Whether or not to use PyTorch jit trace for inference")
    bf16: bool = _option(
        False,
        "Whether to use bf16 (mixed) precision instead of 32-bit. Requires Ampere or higher NVIDIA architecture or "
        "using CPU (use_cpu) or Ascend NPU. This is an experimental API and it may change.",
    )
    fp16: bool = _option(False, "Whether to use fp16 (mixed) precision instead of 32-bit")
    fp16_opt_level: str = _option(
        "O1",
        "For fp16: Apex AMP optimization level selected in ['O0', 'O1', 'O2', and 'O3']. See details at "
        "https://nvidia.github.io/apex/amp.html",
    )
    half_precision_backend: str = _option(
        "auto", "The backend to be used for half precision.", choices=("auto", "apex", "cpu_amp")
    )
    bf16_full_eval: bool = _option(
        False,
        "Whether to use full bfloat16 evaluation instead of 32-bit. This is an experimental API and it may change.",
    )
    fp16_full_eval: bool = _option(False, "Whether to use full float16 evaluation instead of 32-bit")
    tf32: bool | None = _option(
        None,
        "Whether to enable tf32 mode, available in Ampere and newer GPU architectures. This is an experimental API and "
        "it may change.",
    )
    local_rank: int = _option(-1, "For distributed training: local_rank")
    ddp_backend: str | None = _option(
        None,
        "The backend to be used for distributed training",
        choices=("nccl", "gloo", "mpi", "ccl", "hccl", "cncl", "mccl"),
    )
    tpu_num_cores: int | None = _option(None, "TPU: Number of TPU cores (automatically passed by launcher script)")
    tpu_metrics_debug: bool = _option(
        False, "Deprecated, the use of `--debug tpu_metrics_debug` is preferred. TPU: Whether to print debug metrics"
    )
    debug: str | list[DebugOption] = _option(
        "",
        "Whether or not to enable debug mode. Current options: `underflow_overflow` (Detect underflow and overflow in "
        "activations and weights), `tpu_metrics_debug` (print debug metrics on TPU).",
    )
    dataloader_drop_last: bool = _option(
        False, "Drop the last incomplete batch if it is not divisible by the batch size."
    )
    eval_steps: float | None = _option(
        None,
        "Run an evaluation every X steps. Should be an integer or a float in range `[0,1)`. If smaller than 1, will be "
        "interpreted as ratio of total training steps.",
    )
    dataloader_num_workers: int = _option(
        0,
        "Number of subprocesses to use for data loading (PyTorch only). 0 means that the data will be loaded in the "
        "main process.",
    )
    dataloader_prefetch_factor: int | None = _option(
        None,
        "Number of batches loaded in advance by each worker. 2 means there will be a total of 2 * num_workers batches "
        "prefetched across all workers. ",
    )
    past_index: int = _option(-1, "If >=0, uses the corresponding part of the output as the past state for next step.")
    run_name: str | None = _option(
        None, "An optional descriptor for the run. Notably used for trackio, wandb, mlflow comet and swanlab logging."
    )
    disable_tqdm: bool | None = _option(None, "Whether or not to disable the tqdm progress bars.")
    remove_unused_columns: bool = _option(True, "Remove columns not required by the model when using an nlp.Dataset.")
    label_names: list[str] | None = _option(
        None, "The list of keys in your dictionary of inputs that correspond to the labels."
    )
    load_best_model_at_end: bool = _option(
        False,
        "Whether or not to load the best model found during training at the end of training. When this option is "
        "enabled, the best checkpoint will always be saved. See `save_total_limit` for more.",
    )
    metric_for_best_model: str | None = _option(None, "The metric to use to compare two different models.")
    greater_is_better: bool | None = _option(None, "Whether the `metric_for_best_model` should be maximized or not.")
    ignore_data_skip: bool = _option(
        False,
        "When resuming training, whether or not to skip the first epochs and batches to get to the same training data.",
    )
    fsdp: list[FSDPOption] | str | None = _option(
        None,
        "Whether or not to use PyTorch Fully Sharded Data Parallel (FSDP) training (in distributed training only). The "
        "base option should be `full_shard`, `shard_grad_op` or `no_shard` and you can add CPU-offload to `full_shard` "
        "or `shard_grad_op` like this: full_shard offload` or `shard_grad_op offload`. You can add auto-wrap to "
        "`full_shard` or `shard_grad_op` with the same syntax: full_shard auto_wrap` or `shard_grad_op auto_wrap`.",
    )
    fsdp_min_num_params: int = _option(
        0,
        "This parameter is deprecated. FSDP's minimum number of parameters for Default Auto Wrapping. (useful only when"
        " `fsdp` field is passed).",
    )
    fsdp_config: dict[str, Any] | str | None = _option(
        None,
        "Config to be used with FSDP (Pytorch Fully Sharded Data Parallel). The value is either a fsdp json config file"
        " (e.g., `fsdp_config.json`) or an already loaded json file as `dict`.",
    )
    fsdp_transformer_layer_cls_to_wrap: str | None = _option(
        None,
        "This parameter is deprecated. Transformer layer class name (case-sensitive) to wrap, e.g, `BertLayer`, "
        "`GPTJBlock`, `T5Block` .... (useful only when `fsdp` flag is passed).",
    )
    accelerator_config: dict[str, Any] | str | None = _option(
        None,
        "Config to be used with the internal Accelerator object initialization. The value is either a accelerator json "
        "config file (e.g., `accelerator_config.json`) or an already loaded json file as `dict`.",
    )
    deepspeed: dict[str, Any] | str | None = _option(
        None,
        "Enable deepspeed and pass the path to deepspeed json config file (e.g. `ds_config.json`) or an already loaded "
        "json file as a dict",
    )
    label_smoothing_factor: float = _option(
        0.0, "The label smoothing epsilon to apply (zero means no label smoothing)."
    )
    optim: OptimizerNames | str = _option("adamw_torch_fused", "The optimizer to use.")
    optim_args: str | None = _option(None, "Optional arguments to supply to optimizer.")
    adafactor: bool = _option(False, "Whether or not to replace AdamW by Adafactor.")
    group_by_length: bool = _option(
        False, "Whether or not to group samples of roughly the same length together when batching."
    )
    length_column_name: str = _option("length", "Column name with precomputed lengths to use when grouping by length.")
    report_to: None | str | list[str] = _option(None, "The list of integrations to report the results and logs to.")
    project: str = _option("huggingface", "The name of the project to use for logging. Currenly, only used by Trackio.")
    trackio_space_id: str | None = _option(
        "trackio",
        "The Hugging Face Space ID to deploy to when using Trackio. Should be a complete Space name like "
        "'username/reponame' or 'orgname/reponame', or just 'reponame' in which case the Space will be created in the "
        "currently-logged-in Hugging Face user's namespace. If `None`, will log to a local directory. Note that this "
        "Space will be public unless you set `hub_private_repo=True` or your organization's default is to create "
        "private Spaces.",
    )
    ddp_find_unused_parameters: bool | None = _option(
        None,
        "When using distributed training, the value of the flag `find_unused_parameters` passed to "
        "`DistributedDataParallel`.",
    )
    ddp_bucket_cap_mb: int | None = _option(
        None,
        "When using distributed training, the value of the flag `bucket_cap_mb` passed to `DistributedDataParallel`.",
    )
    ddp_broadcast_buffers: bool | None = _option(
        None,
        "When using distributed training, the value of the flag `broadcast_buffers` passed to "
        "`DistributedDataParallel`.",
    )
    dataloader_pin_memory: bool = _option(True, "Whether or not to pin memory for DataLoader.")
    dataloader_persistent_workers: bool = _option(
        False,
        "If True, the data loader will not shut down the worker processes after a dataset has been consumed once. This "
        "allows to maintain the workers Dataset instances alive. Can potentially speed up training, but will increase "
        "RAM usage.",
    )
    skip_memory_metrics: bool = _option(True, "Whether or not to skip adding of memory profiler reports to metrics.")
    use_legacy_prediction_loop: bool = _option(
        False, "Whether or not to use the legacy prediction_loop in the Trainer."
    )
    push_to_hub: bool = _option(False, "Whether or not to upload the trained model to the model hub after training.")
    resume_from_checkpoint: str | None = _option(None, "The path to a folder with a valid checkpoint for your model.")
    hub_model_id: str | None = _option(None, "The name of the repository to keep in sync with the local `output_dir`.")
    hub_strategy: HubStrategy | str = _option(
        "every_save", "The hub strategy to use when `--push_to_hub` is activated."
    )
    hub_token: str | None = _option(None, "The token to use to push to the Model Hub.")
    hub_private_repo: bool | None = _option(
        None,
        "Whether to make the repo private. If `None` (default), the repo will be public unless the organization's "
        "default is private. This value is ignored if the repo already exists. If reporting to Trackio with deployment "
        "to Hugging Face Spaces enabled, the same logic determines whether the Space is private.",
    )
    hub_always_push: bool = _option(
        False, "Unless `True`, the Trainer will skip pushes if the previous one wasn't finished yet."
    )
    hub_revision: str | None = _option(
        None, "The revision to use when pushing to the Hub. Can be a branch name, a tag, or a commit hash."
    )
    gradient_checkpointing: bool = _option(
        False, "If True, use gradient checkpointing to save memory at the expense of slower backward pass."
    )
    gradient_checkpointing_kwargs: dict[str, Any] | str | None = _option(
        None,
        "Gradient checkpointing key word arguments such as `use_reentrant`. Will be passed to "
        "`torch.utils.checkpoint.checkpoint` through `model.gradient_checkpointing_enable`.",
    )
    include_inputs_for_metrics: bool = _option(
        False,
        "This argument is deprecated and will be removed in version 5 of 🤗 Transformers. Use `include_for_metrics` "
        "instead.",
    )
    include_for_metrics: list[str] = _option(
        MISSING,
        "List of strings to specify additional data to include in the `compute_metrics` function.Options: 'inputs', "
        "'loss'.",
        default_factory=list,
    )
    eval_do_concat_batches: bool = _option(
        True,
        "Whether to recursively concat inputs/losses/labels/predictions across batches. If `False`, will instead store "
        "them as lists, with each batch kept separate.",
    )
    fp16_backend: str = _option(
        "auto", "Deprecated. Use half_precision_backend instead", choices=("auto", "apex", "cpu_amp")
    )
    push_to_hub_model_id: str | None = _option(None, "The name of the repository to which push the `Trainer`.")
    push_to_hub_organization: str | None = _option(
        None, "The name of the organization in with to which push the `Trainer`."
    )
    push_to_hub_token: str | None = _option(None, "The token to use to push to the Model Hub.")
    mp_parameters: str = _option("", "Used by the SageMaker launcher to send mp-specific args. Ignored in Trainer")
    auto_find_batch_size: bool = _option(
        False,
        "Whether to automatically decrease the batch size in half and rerun the training loop again each time a CUDA "
        "Out-of-Memory was reached",
    )
    full_determinism: bool = _option(
        False,
        "Whether to call enable_full_determinism instead of set_seed for reproducibility in distributed training. "
        "Important: this will negatively impact the performance, so only use it for debugging.",
    )
    torchdynamo: str | None = _option(None, "This argument is deprecated, use `--torch_compile_backend` instead.")
    ray_scope: str | None = _option(
        "last",
        'The scope to use when doing hyperparameter search with Ray. By default, `"last"` will be used. Ray will then '
        "use the last checkpoint of all trials, compare those, and select the best one. However, other options are also"
        " available. See the Ray documentation "
        "(https://docs.ray.io/en/latest/tune/api_docs/analysis.html#ray.tune.ExperimentAnalysis.get_best_trial) for "
        "more options.",
    )
    ddp_timeout: int = _option(
        1800, "Overrides the default timeout for distributed training (value should be given in seconds)."
    )
    torch_compile: bool = _option(False, "If set to `True`, the model will be wrapped in `torch.compile`.")
    torch_compile_backend: str | None = _option(
        None, "Which backend to use with `torch.compile`, passing one will trigger a model compilation."
    )
    torch_compile_mode: str | None = _option(
        None, "Which mode to use with `torch.compile`, passing one will trigger a model compilation."
    )
    include_tokens_per_second: bool = _option(
        False, "If set to `True`, the speed metrics will include `tgs` (tokens per second per device)."
    )
    include_num_input_tokens_seen: str | bool = _option(
        False,
        "Whether to track the number of input tokens seen. Can be `'all'` to count all tokens, `'non_padding'` to count"
        " only non-padding tokens, or a boolean (`True` maps to `'all'`, `False` to `'no'`).",
    )
    neftune_noise_alpha: float | None = _option(
        None,
        "Activates neftune noise embeddings into the model. NEFTune has been proven to drastically improve model "
        "performances for instruction fine-tuning. Check out the original paper here: "
        "https://huggingface.co/papers/2310.05914 and the original code here: https://github.com/neelsjain/NEFTune. "
        "Only supported for `PreTrainedModel` and `PeftModel` classes.",
    )
    optim_target_modules: None | str | list[str] = _option(
        None,
        "Target modules for the optimizer defined in the `optim` argument. Only used for the GaLore optimizer at the "
        "moment.",
    )
    batch_eval_metrics: bool = _option(False, "Break eval metrics calculation into batches to save memory.")
    eval_on_start: bool = _option(
        False,
        "Whether to run through the entire `evaluation` step at the very beginning of training as a sanity check.",
    )
    use_liger_kernel: bool = _option(False, "Whether or not to enable the Liger Kernel for model training.")
    liger_kernel_config: dict[str, bool] | None = _option(
        None,
        "Configuration to be used for Liger Kernel. When use_liger_kernel=True, this dict is passed as keyword "
        "arguments to the `_apply_liger_kernel_to_instance` function, which specifies which kernels to apply. Available"
        " options vary by model but typically include: 'rope', 'swiglu', 'cross_entropy', 'fused_linear_cross_entropy',"
        " 'rms_norm', etc. If None, use the default kernel configurations.",
    )
    eval_use_gather_object: bool = _option(
        False, "Whether to run recursively gather object in a nested list/tuple/dictionary of objects from all devices."
    )
    average_tokens_across_devices: bool = _option(
        True,
        "Whether or not to average tokens across devices. If enabled, will use all_reduce to synchronize "
        "num_tokens_in_batch for precise loss calculation. Reference: "
        "https://github.com/huggingface/transformers/issues/34242",
    )

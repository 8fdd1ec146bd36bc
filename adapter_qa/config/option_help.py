"""What `--help` of the training scripts shows: its sections in order, and plain texts for options of the library.

`--help_all` shows the same sections and, after them, every other option that is accepted, with the library's text.
"""

from __future__ import annotations

REQUIRED = "required"
# Names by section; a script shows those that it has. Options that are in none are in --help_all.
SECTIONS = {
    REQUIRED: "model_name_or_path",
    "what to do": "do_train do_eval do_predict dry_run output_dir overwrite_output_dir",
    "data": "train_file validation_file test_file dataset_name dataset_config_name max_train_samples max_eval_samples "
    "max_predict_samples validation_split_percentage label_names id_column question_column context_column "
    "answer_column answer_start_column title_column text_column word_column label_column "
    "calibration_file calibration_share",
    "input and output of the model": "max_seq_length doc_stride max_answer_length n_best_size version_2_with_negative "
    "null_score_diff_threshold temperature pad_to_max_length block_size mlm_probability next_sentence label_all_tokens "
    "weighted_loss weighted_loss_constant",
    "adapter": "train_adapter adapter_config adapter_reduction_factor adapter_non_linearity madx2 "
    "houlsby_MHA_lastlayer language load_adapter",
    "language adapter": "load_lang_adapter",
    "fusion": "fuse_adapters adapter_composition fusion_head fusion_regularization fusion_decay_values",
    "training": "learning_rate head_learning_rate num_train_epochs max_steps per_device_train_batch_size "
    "gradient_accumulation_steps warmup_ratio warmup_steps weight_decay max_grad_norm label_smoothing_factor "
    "lr_scheduler_type optim seed bucket_by_length",
    "evaluation and checkpoints": "eval_strategy eval_steps per_device_eval_batch_size metric_for_best_model "
    "load_best_model_at_end early_stopping_patience save_strategy save_steps save_total_limit keep_checkpoint "
    "folds fold_by fold_choosing_share fold",
    "device, precision and memory": "use_cpu bf16 fp16 fp32_products fast_step tokens_per_batch "
    "gradient_checkpointing torch_compile deepspeed dataloader_num_workers",
    "logging and hub": "logging_strategy logging_steps logging_dir report_to run_name log_level disable_tqdm debug "
    "push_to_hub hub_model_id hub_token license",
    "base model": "config_name tokenizer_name do_lower_case strip_accents model_revision cache_dir attn_implementation "
    "random_init",
}
MORE = "more options, most of them of transformers.TrainingArguments"
HELP = {
    "do_train": "Train on --train_file.",
    "do_eval": "Evaluate on --validation_file.",
    "do_predict": "Write predictions for --test_file.",
    "overwrite_output_dir": "Replace the run in the folder instead of resuming it.",
    "per_device_train_batch_size": "Batch size on each device.",
    "per_device_eval_batch_size": "Batch size on each device.",
    "gradient_accumulation_steps": "Batches for each step.",
    "weight_decay": "Weight decay.",
    "max_grad_norm": "Limit of the gradients' norm.",
    "num_train_epochs": "Passes over the data.",
    "max_steps": "Steps in place of epochs.",
    "lr_scheduler_type": "linear, cosine, constant ...",
    "warmup_ratio": "Warm-up as a share of the steps.",
    "warmup_steps": "The same in steps.",
    "label_smoothing_factor": "Label smoothing.",
    "optim": "Optimizer.",
    "seed": "Seed of all random numbers.",
    "eval_steps": "Steps between evaluations, for --eval_strategy steps; below 1 a share.",
    "save_steps": "Steps between checkpoints, for --save_strategy steps; below 1 a share.",
    "use_cpu": "Use the CPU although there is a GPU.",
    "gradient_checkpointing": "Less memory, more time.",
    "torch_compile": "Compile the model.",
    "deepspeed": "Configuration, e.g. ds_config_zero2.json.",
    "dataloader_num_workers": "Processes that prepare batches.",
    "logging_dir": "TensorBoard's files. Without it in the run.",
    "run_name": "Name of the run in wandb, trackio and mlflow.",
    "log_level": "What is printed: debug, info, warning, error.",
    "disable_tqdm": "No progress bars.",
    "debug": "Alone: show the traceback of an error. underflow_overflow: find NaN in the model.",
    "hub_token": "Without it that of hf auth login.",
}
# What stands for the value, where type, unit and limits of an option do not say it.
METAVARS = {
    "adam_epsilon": "X",
    "data_seed": "N",
    "ddp_timeout": "SECONDS",
    "ddp_bucket_cap_mb": "MB",
    "debug": "NAME",
    "deepspeed": "FILE",
    "eval_delay": "X",
    "gradient_checkpointing_kwargs": "JSON",
    "hub_model_id": "OWNER/NAME",
    "hub_token": "TOKEN",
    "learning_rate": "RATE",
    "log_level": "LEVEL",
    "log_level_replica": "LEVEL",
    "logging_dir": "PATH",
    "lr_scheduler_kwargs": "JSON",
    "lr_scheduler_type": "NAME",
    "max_grad_norm": "X",
    "optim": "NAME",
    "torch_empty_cache_steps": "STEPS",
    "weight_decay": "X",
}
SHOWN = frozenset(name for names in SECTIONS.values() for name in names.split())  # by --help
INTRODUCTION = (
    "[BOOL] is True or False; the name alone means True. Without it the option is off, unless a default is shown. RUN "
    "is the folder of a run. OPTIONS.yaml sets options; those on the command line override it. --help_all shows more "
    "options."
)

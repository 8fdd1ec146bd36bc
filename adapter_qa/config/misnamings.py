"""Names that other programs give to options of this project, and the answer to each: the name here, or what to do.

They come from run_qa.py and run_squad.py of transformers, simpletransformers, Lightning, and from habit.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from functools import cache
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What to do in place of giving an option of another program.

    Attributes:
        text: {} stands for the value that is given, {name} for the logger that the option's name means.
        option: the option of this project that it names first; None for advice, which holds for every script.
        default: stands for a value that is not given.
        takes_number: whether `default` also stands for a value that is no number.
    """

    text: str
    option: str | None = None
    default: str = "NAME"
    takes_number: bool = False

    def with_value(self, name: str, value: Any) -> str:
        """Return the text for a name and its value: for `--gpu cuda:1` with the 1, for `--n_gpu` with the default."""
        if self is _GPU and str(value).lower() == "cpu":
            return "it is called --use_cpu"
        given = str(value).removeprefix("cuda:")
        if value is None or (self.takes_number and not given.replace(",", "").isdecimal()):
            given = self.default
        logger = {"tb": "tensorboard", "comet": "comet_ml"}.get(name, name.removeprefix("use_"))
        return self.text.replace("{name}", logger).replace("{}", given)


# Our option: its names in other programs. Of several entries with one name, the first that the script has counts.
CALLED = {
    "--learning_rate": "lr initial_lr base_lr max_lr peak_lr",
    "--head_learning_rate": "head_lr lr_head classifier_learning_rate classifier_lr",
    "--num_train_epochs": "epochs epoch num_epochs n_epochs max_epochs train_epochs nb_epochs",
    "--max_steps": "steps num_steps train_steps max_train_steps num_train_steps num_training_steps total_steps",
    "--per_device_train_batch_size for training, --per_device_eval_batch_size for evaluation": "batch_size batchsize "
    "batch bs per_device_batch_size per_gpu_batch_size",
    "--per_device_train_batch_size": "train_batch_size training_batch_size train_bs",
    "--per_device_eval_batch_size": "eval_batch_size val_batch_size dev_batch_size test_batch_size predict_batch_size "
    "eval_bs",
    "--gradient_accumulation_steps": "accumulation_steps grad_accum grad_accum_steps grad_acc grad_acc_steps "
    "gradient_accumulation accumulate_grad_batches gas",
    "--warmup_ratio as a share of the steps, --warmup_steps as a number": "warmup",
    "--warmup_ratio": "warmup_proportion warmup_percent warmup_fraction",
    "--warmup_steps": "num_warmup_steps",
    "--weight_decay": "wd decay l2",
    "--max_grad_norm": "clip grad_clip clip_grad clip_grad_norm gradient_clip gradient_clip_val grad_norm",
    "--optim": "optimizer optimiser",
    "--lr_scheduler_type": "scheduler lr_scheduler lr_schedule schedule scheduler_type",
    "--adam_epsilon": "eps epsilon adam_eps",
    "--adam_beta1 and --adam_beta2": "betas adam_betas beta1 beta2",
    "--label_smoothing_factor": "label_smoothing smoothing",
    "--seed": "random_seed manual_seed random_state seed_everything",
    "--model_name_or_path": "model base_model model_name model_path base bert encoder pretrained_model "
    "pretrained_model_name_or_path",
    "--tokenizer_name": "tokenizer tokenizer_path",
    "--model_revision": "revision",
    "--do_lower_case": "lower_case lowercase do_lowercase uncased",
    "--do_train to train, --train_file for its data": "train",
    "--do_eval to evaluate, --validation_file for its data": "eval evaluate validate validation val dev",
    "--do_predict to predict, --test_file for its data": "predict test",
    "--dataset_name for a data set, --train_file and --validation_file for files": "dataset data dataset_path "
    "data_path data_dir data_folder data_file",
    "--dataset_config_name": "dataset_config subset",
    "--train_file": "train_data train_path train_dataset train_filename train_data_file training_file training_data "
    "trainset text_file",
    "--validation_file": "dev_file val_file valid_file eval_file dev_data val_data eval_data validation_data "
    "eval_data_file dev_path val_path eval_path dev_set",
    "--validation_file to evaluate, --test_file for predictions": "predict_file",
    "--test_file": "test_data test_path test_set prediction_file",
    "--validation_split_percentage": "validation_split val_split dev_split validation_ratio",
    "--output_dir": "output out out_dir outdir output_path output_folder output_directory save_dir save_path save_to "
    "run_dir result_dir results_dir model_dir default_root_dir",
    "--overwrite_output_dir": "overwrite overwrite_output force",
    "--max_seq_length": "max_length max_len maxlen max_seq_len seq_len seq_length sequence_length model_max_length",
    "--block_size": "max_length max_len maxlen max_seq_len max_seq_length seq_len seq_length sequence_length "
    "model_max_length",
    "--doc_stride": "stride overlap window_stride window_overlap",
    "--max_answer_length": "max_ans_length max_answer_len answer_length",
    "--n_best_size": "n_best nbest num_best top_k topk",
    "--version_2_with_negative": "version_2 version2 v2 squad_v2 squad2 with_negative",
    "--null_score_diff_threshold": "null_threshold null_score_threshold no_answer_threshold",
    "--mlm_probability": "mlm_prob mask_prob masking mask_probability",
    "--weighted_loss": "class_weights weighted_classes loss_weights",
    "--label_names": "labels labels_list label_list classes",
    "--early_stopping_patience": "patience early_stopping early_stop use_early_stopping",
    "--metric_for_best_model": "metric best_metric monitor early_stopping_metric eval_metric",
    "--eval_strategy and --eval_steps": "eval_every eval_interval evaluate_every val_check_interval "
    "evaluate_during_training evaluate_during_training_steps",
    "--save_strategy and --save_steps": "save_every save_interval checkpoint_every save_model_every_epoch",
    "--logging_steps": "log_every log_steps log_interval log_every_n_steps",
    "--logging_dir": "log_dir tensorboard_dir tb_dir",
    "--save_total_limit": "save_top_k max_checkpoints",
    "--max_train_samples for training, --max_eval_samples for evaluation": "limit max_samples num_samples n_samples "
    "max_examples",
    "--max_train_samples": "max_train_examples num_train_samples train_size limit_train_batches",
    "--max_eval_samples": "max_eval_examples num_eval_samples limit_val_batches",
    "--adapter_config for the kind of a new one, --load_adapter for a saved one": "adapter adapter_type adapter_name",
    "--load_adapter": "adapter_path adapter_dir load_task_adapter saved_adapter",
    "--adapter_reduction_factor": "reduction_factor reduction",
    "--adapter_non_linearity": "non_linearity activation nonlinearity",
    "--load_lang_adapter": "lang_adapter language_adapter load_language_adapter mlm_adapter lang_adapter_path",
    "--fuse_adapters": "fusion fuse adapter_fusion fuse_adapter adapters load_adapters train_adapter_fusion",
    "--adapter_composition": "composition",
    "--language": "lang",
    "--tokens_per_batch": "max_tokens max_tokens_per_batch max_batch_tokens batch_tokens tokens_per_micro_batch "
    "token_budget",
    "--gradient_checkpointing": "grad_checkpoint grad_checkpointing checkpointing gradient_checkpoint",
    "--torch_compile": "compile",
    "--deepspeed": "deepspeed_config ds_config zero",
    "--dataloader_num_workers": "workers num_workers n_workers dataloader_workers",
    "--dataloader_pin_memory": "pin_memory",
    "--report_to": "logger loggers log_to",
    "--run_name": "name exp_name experiment experiment_name run_id",
    "--log_level": "verbose verbosity verbose_logging loglevel",
    "--disable_tqdm": "no_progress no_progress_bar no_tqdm progress_bar silent quiet",
    "--use_cpu": "cpu cpu_only no_gpu",
    "--license": "licence",
    "--dry_run": "dry dryrun check",
    "--hub_model_id": "hub_id repo_id hub_repo",
}
_GPU = Answer(
    "choose GPUs with CUDA_VISIBLE_DEVICES={} in front of the command; --use_cpu True uses none",
    default="0",
    takes_number=True,
)
_PROCESSES = Answer(
    "start the script with torchrun --nproc_per_node {} in front of its name; see docs/distributed.md",
    default="2",
    takes_number=True,
)
_HALF = Answer("give --bf16 True or --fp16 True, or --bf16 False for float32; without them the device decides")
_FROZEN = Answer("leave it out; the base model is frozen unless --train_adapter False is given")
_QUESTION = Answer("leave it out; a question is cut only if --max_seq_length leaves it no space")
ADVICE = {  # for other names
    _GPU: "gpu gpus gpu_id gpu_ids cuda cuda_device use_cuda use_gpu device devices accelerator visible_devices",
    _PROCESSES: "n_gpu num_gpus n_gpus num_processes nproc nproc_per_node world_size ddp distributed multi_gpu",
    Answer("give --bf16 False for float32"): "fp32 float32 full_precision no_fp16 no_amp",
    _HALF: "amp half mixed_precision precision dtype torch_dtype autocast use_fp16 use_bf16 float16 bfloat16",
    Answer("leave it out; the same command with the same --output_dir resumes"): "resume resume_from "
    "resume_from_ckpt resume_training continue continue_training ckpt_path restart",
    Answer("give --train_adapter False, which trains all weights"): "full full_finetuning full_fine_tuning "
    "full_finetune finetune fine_tune no_adapter unfreeze",
    Answer("give --report_to {name}"): "wandb tensorboard trackio mlflow comet comet_ml clearml neptune swanlab "
    "use_wandb use_tensorboard tb",
    Answer("give --report_to wandb and set WANDB_PROJECT={} in front of the command"): "wandb_project",
    Answer("set OMP_NUM_THREADS={} in front of the command", default="N"): "threads num_threads n_threads cores "
    "num_cores n_jobs",
    Answer("give the file as first word of the command, without an option"): "config config_file options "
    "options_file yaml args_file",
    Answer("leave it out; the model's config.json says it"): "model_type model_class architecture",
    Answer("leave it out; fast tokenizers are always used"): "use_fast use_fast_tokenizer fast_tokenizer",
    Answer("leave it out; code in a model's folder is never run"): "trust_remote_code",
    _FROZEN: "freeze freeze_base freeze_model freeze_encoder",
    _QUESTION: "max_query_length max_question_length",
    Answer("leave it out; every better value counts"): "early_stopping_threshold early_stopping_delta min_delta",
}
MIN_SIMILAR = 5  # characters of a name in these tables that a mistyped name may resemble


@cache
def _answers() -> dict[str, list[Answer]]:
    """Return the answers to each name, in the order of the tables."""
    entries = [(Answer(f"it is called {text}", text.split()[0].removeprefix("--")), CALLED[text]) for text in CALLED]
    answers: dict[str, list[Answer]] = {}
    for answer, names in [*entries, *ADVICE.items()]:
        for name in names.split():
            answers.setdefault(name, []).append(answer)
    return answers


def right_name(name: str, value: Any, known: Collection[str]) -> str | None:
    """Return what to do in place of giving an option that there is not; None if nothing resembles its name.

    Args:
        name: lower case, with underscores.
        value: as it was given, for advice that repeats it; None without one.
        known: the options of the script.
    """
    answers = {
        misnaming: possible[0]
        for misnaming, of_name in _answers().items()
        if (possible := [answer for answer in of_name if answer.option is None or answer.option in known])
    }
    if name in answers:
        return answers[name].with_value(name, value)
    similar = [misnaming for misnaming in answers if len(misnaming) >= MIN_SIMILAR]
    near = difflib.get_close_matches(name, [*known, *similar], n=1)
    if not near:
        return None
    return f"did you mean {near[0]}?" if near[0] in known else answers[near[0]].with_value(near[0], value)

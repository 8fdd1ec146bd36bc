"""From the training options as asked for to `transformers.TrainingArguments`: what they leave open is decided."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from typing import Any

import torch
from transformers import SchedulerType, Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations

from adapter_qa.config.deepspeed import read_deepspeed
from adapter_qa.config.options import TrainingOptions
from adapter_qa.core.distributed import process_count
from adapter_qa.core.errors import UserError
from adapter_qa.core.messages import log_note
from adapter_qa.training.deepspeed_weights import disable_zero3_init

# Compute capability from which NVIDIA GPUs have matrix units for the type: Ampere, Volta (CUDA C++ Programming Guide).
NEED_THE_MODEL = ("galore", "apollo", "lomo", "adalomo")  # optimizers made for its layers
BF16_SINCE, FP16_SINCE = (8, 0), (7, 0)


@dataclass
class TrainerArguments(TrainingArguments):
    """`transformers.TrainingArguments` and what this trainer has beside them; `resolve_training_args` makes it.

    `push_at_end` stands for the library's `push_to_hub`, which would push checkpoints and the run's whole folder.
    """

    bucket_by_length: bool = True
    early_stopping_patience: int | None = None
    dry_run: bool = False
    license: str | None = None
    push_at_end: bool = False

    def __post_init__(self) -> None:
        self.output_dir_is_derived = self.output_dir is None
        self.idle_gpus = 0
        super().__post_init__()
        if self.ddp_find_unused_parameters is None:  # all that trains is used in every step; looking for it costs time
            self.ddp_find_unused_parameters = False
        self.remove_unused_columns = False  # windows carry what evaluation needs beside the model's inputs
        self.dataloader_pin_memory = self.dataloader_pin_memory and self.device.type == "cuda"
        if self.n_gpu > 1:  # the library would put a copy of the model on each and multiply the batch
            self.idle_gpus, self._n_gpu = self.n_gpu - 1, 1


def resolve_training_args(options: TrainingOptions) -> TrainerArguments:
    """Decides precision, evaluation and best epoch where the options leave them open, and reads the DeepSpeed file.

    Several processes of one run find each other here.

    Raises:
        UserError: the library refuses the options.
    """
    values = dict(vars(options))
    values["eval_strategy"] = options.evaluates()
    if options.load_best_model_at_end is None:
        values["load_best_model_at_end"] = values["eval_strategy"] != "no" and (
            options.save_strategy == values["eval_strategy"]
        )
    values["push_at_end"], values["push_to_hub"] = bool(options.push_to_hub), False
    values["bf16"], values["fp16"], said = choose_precision(options)
    if not torch.accelerator.is_available() and (values["bf16"] or process_count() > 1):
        # The library takes bfloat16 on the CPU only where it is told to use it, and several processes on it without
        # that for as many runs of one.
        values["use_cpu"] = True
    if options.deepspeed is not None:
        warmup = options.warmup_steps > 0 or options.warmup_ratio > 0
        values["deepspeed"], notes = read_deepspeed(str(options.deepspeed), warmup=warmup)
        if not options.do_train:
            values["deepspeed"], notes = None, ["--deepspeed is for training; this run evaluates without it"]
        log_note(notes)
    log_note(said)
    _prepare_launch(deepspeed=values["deepspeed"] is not None, use_cpu=bool(options.use_cpu))
    here = ["none", "all", *get_available_reporting_integrations()]
    strange = [name for name in options.report_to or [] if name not in here]
    if strange:
        raise UserError(f"--report_to {' '.join(strange)}: unknown or not installed; here there are {', '.join(here)}")
    try:  # None stands for the library's own default
        run = TrainerArguments(**{name: value for name, value in values.items() if value is not None})
        check_learning(run)
        if run.deepspeed is not None:
            disable_zero3_init()
            _check_agreement(run)
        if run.world_size != process_count():
            raise RuntimeError(f"{process_count()} processes were started, but the library knows {run.world_size}")
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise UserError(" ".join(str(error).split())) from error
    if run.idle_gpus:
        log_note(
            [f"{run.idle_gpus + 1} GPUs are here and this run takes one; torchrun --nproc_per_node {run.idle_gpus + 1} "
             "in place of python takes all, CUDA_VISIBLE_DEVICES chooses"]
        )  # fmt: skip
    return run


def _prepare_launch(*, deepspeed: bool, use_cpu: bool) -> None:
    """Environment variables that the libraries look for and a launcher leaves unset."""
    if use_cpu or not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        if process_count() > 1:  # accelerate would call the device cpu:0, which torch does not know
            os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
    if deepspeed and "RANK" not in os.environ:  # a single process without a launcher, for which DeepSpeed asks MPI
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        alone = {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        os.environ.update(alone)


def _check_agreement(run: TrainerArguments) -> None:
    """Holds what the DeepSpeed file says against the options; the library would do so once the model is loaded.

    Raises:
        ValueError: they differ.
    """
    differing = run.hf_deepspeed_config.mismatches
    if differing:
        raise ValueError(f"--deepspeed: the file contradicts the options ({'; '.join(differing)}); write auto there")


def check_learning(run: TrainerArguments) -> None:
    """Tries the schedule, and whether the optimizer is installed, which the library looks at when training begins.

    Raises:
        ValueError, TypeError, ImportError, RuntimeError: it cannot be.
    """
    if not str(run.optim).startswith(NEED_THE_MODEL):
        Trainer.get_optimizer_cls_and_kwargs(run)
    settings = run.lr_scheduler_kwargs or {}
    if not isinstance(settings, dict):
        raise ValueError(f"--lr_scheduler_kwargs {settings}: must be a JSON object")
    try:
        get_scheduler(
            run.lr_scheduler_type,
            torch.optim.SGD([torch.zeros(1, requires_grad=True)]),
            num_warmup_steps=1,
            num_training_steps=2,
            scheduler_specific_kwargs=dict(settings),
        )
    except (ValueError, TypeError) as error:
        kind = SchedulerType(run.lr_scheduler_type).value
        raise ValueError(f"--lr_scheduler_type {kind} with --lr_scheduler_kwargs {settings}: {error}") from error


def choose_precision(options: TrainingOptions) -> tuple[bool, bool, list[str]]:
    """Whether to compute in bfloat16, whether in float16, and a line that says what was chosen for the user."""
    accelerated = torch.accelerator.is_available() and not options.use_cpu
    if options.bf16 is not None or options.fp16 is not None:
        if options.fp16 and not accelerated:
            return bool(options.bf16), False, ["--fp16 needs an accelerator; on the CPU the run is in float32"]
        return bool(options.bf16), bool(options.fp16), []
    if not accelerated or not torch.cuda.is_available():
        return False, False, []
    capability, name = torch.cuda.get_device_capability(), torch.cuda.get_device_name()
    bf16 = capability >= BF16_SINCE
    fp16 = not bf16 and capability >= FP16_SINCE
    chosen = "bfloat16" if bf16 else "float16" if fp16 else "float32"
    return bf16, fp16, [f"precision: {chosen}, which {name} does well; --bf16 or --fp16 decides otherwise"]


def as_record(*options: Any) -> dict[str, Any]:
    """Options as plain values for run.json: every field of our dataclasses, TrainingArguments by its own `to_dict`."""
    record: dict[str, Any] = {}
    for group in options:
        record.update(group.to_dict() if isinstance(group, TrainingArguments) else vars(group))
    return json.loads(json.dumps(record, default=str))

"""Training arguments for `Trainer` from the options of the user; what the options leave open is decided here."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from copy import copy
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from typing import Any

import torch
from accelerate.utils import DynamoBackend
from transformers import SchedulerType, Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations
from transformers.training_args import OptimizerNames

from adapter_qa.config.deepspeed import read_deepspeed
from adapter_qa.config.options import IEEE, TrainingOptions
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.core.distributed import process_count
from adapter_qa.core.errors import UserError, error_line
from adapter_qa.core.messages import log_note
from adapter_qa.training.deepspeed_weights import disable_zero3_init
from adapter_qa.training.precision import choose_fast_step, choose_precision, cpu_bf16_units, use_fp32_products

# Optimizers that cannot be built without the model, by the beginning of their names, and the packages that they need.
OPTIMIZERS_WITH_MODEL = {
    "galore": "galore_torch",
    "apollo": "apollo_torch",
    "lomo": "lomo_optim",
    "adalomo": "lomo_optim",
}
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")  # of torch.compile
CHECKPOINTING_SETTINGS = {"use_reentrant", "preserve_rng_state", "determinism_check", "debug"}  # of PyTorch


@dataclass
class TrainerArguments(TrainingArguments):
    """`transformers.TrainingArguments` with the options that only this trainer has; see `resolve_training_args`.

    `push_at_end` replaces the library's `push_to_hub`, which would push checkpoints and the whole folder of the run.
    """

    fp32_products: str = IEEE
    fast_step: bool = False
    head_learning_rate: float | None = None
    bucket_by_length: bool = True
    tokens_per_batch: int | None = None
    early_stopping_patience: int | None = None
    dry_run: bool = False
    license: str | None = None
    push_at_end: bool = False
    keep_checkpoint: bool = False
    trackio_space_id: str | None = None  # the library's default would send every log to a Space on the hub

    def __post_init__(self) -> None:
        self.idle_gpus = 0
        super().__post_init__()
        if self.ddp_find_unused_parameters is None:  # every step uses all trainable weights; a search takes time
            self.ddp_find_unused_parameters = False
        self.remove_unused_columns = False  # evaluation needs more of a window than the model's inputs
        self.dataloader_pin_memory = self.dataloader_pin_memory and self.device.type == "cuda"
        if self.n_gpu > 1:  # the library would copy the model to each GPU and multiply the batch size
            self.idle_gpus, self._n_gpu = self.n_gpu - 1, 1

    @property
    def padding_multiple(self) -> int:
        """A multiple that the lengths of batches are padded to: 8 in half precision, for the GPU's matrix units."""
        return 8 if self.fp16 or self.bf16 else 1


def decide_arithmetic(options: TrainingOptions) -> tuple[TrainingOptions, str]:
    """Return the options with device, precision and training step decided, and why the precision is as it is.

    Raises:
        UserError: if the device cannot compute what they ask for.
    """
    if torch.backends.mps.is_available() and not options.use_cpu:
        options = replace(options, use_cpu=True)
        log_note(["Apple's MPS lacks float64, which fusion needs; the run is on the CPU"])
    precision = choose_precision(options, cpu_bf16_units())
    for name, other in (("fp16_full_eval", "bf16"), ("bf16_full_eval", "fp16")):
        if vars(options)[name] and precision.autocast == other:
            raise UserError(
                f"--{name} True: the run computes in {other} ({precision.reason}); leave it out, or give --{other} "
                "False"
            )
    decided = replace(
        options,
        bf16=precision.autocast == "bf16",
        fp16=precision.autocast == "fp16",
        fp32_products=precision.fp32_products,
        fast_step=choose_fast_step(options),
    )
    return decided, precision.reason


def resolve_training_args(options: TrainingOptions) -> TrainerArguments:
    """Return the training arguments: what the options leave open is decided, the DeepSpeed file is read.

    The processes of a run with several of them connect here.

    Raises:
        UserError: if the library refuses the options.
    """
    options, _ = decide_arithmetic(options)
    values = _decided_values(options)
    _note_unused_options(options, on_cpu=bool(values["use_cpu"]))
    _check_report_to(options.report_to or [])
    use_fp32_products(str(options.fp32_products))
    # transformers obeys this variable, which an earlier run of this process may have set.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if options.bf16 else "fp16" if options.fp16 else "no"
    _prepare_environment(deepspeed=values["deepspeed"] is not None, use_cpu=bool(options.use_cpu))
    args = _library_args(values)
    if args.idle_gpus:
        gpus = args.idle_gpus + 1
        log_note(
            [
                f"{gpus} GPUs are available and this run uses one; torchrun --nproc_per_node {gpus} in place of python "
                "uses all, CUDA_VISIBLE_DEVICES chooses"
            ]
        )
    return args


def _decided_values(options: TrainingOptions) -> dict[str, Any]:
    """Return the values of `TrainerArguments` by name; None stands for the library's own default."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    values["eval_strategy"] = options.effective_eval_strategy
    values["load_best_model_at_end"] = options.keeps_best
    values["push_at_end"], values["push_to_hub"] = bool(options.push_to_hub), False
    if options.keep_checkpoint is None:
        values["keep_checkpoint"] = options.save_total_limit is None or options.save_total_limit > 1
    if not torch.accelerator.is_available() and (options.bf16 or options.bf16_full_eval or process_count() > 1):
        # Without use_cpu the library refuses bfloat16 on the CPU, and takes several processes for separate runs.
        values["use_cpu"] = True
    if process_count() == 1:
        values["ddp_backend"] = None
    if options.deepspeed is not None:
        values["deepspeed"] = _deepspeed_config(options)
    return values


def _note_unused_options(options: TrainingOptions, *, on_cpu: bool) -> None:
    """Note given options of several processes that have no effect."""
    if options.ddp_backend is not None and process_count() == 1:
        log_note(["--ddp_backend is not used: it is for several processes"])
    if options.ddp_timeout != TrainingOptions.ddp_timeout and on_cpu and process_count() > 1:
        log_note(["--ddp_timeout is not used: the library sets it for GPUs only"])


def _library_args(values: dict[str, Any]) -> TrainerArguments:
    """Return the training arguments with values that are not None, checked by what they stand for in the libraries.

    Raises:
        UserError: if one of the libraries refuses them.
    """
    try:
        args = TrainerArguments(**{name: value for name, value in values.items() if value is not None})
        _check_optimizer_and_schedule(args)
        _check_compilation_and_checkpointing(args)
        if args.deepspeed is not None:
            disable_zero3_init()
            mismatches = args.hf_deepspeed_config.mismatches  # the library looks at them after the model is loaded
            if mismatches:
                problem = f"the file contradicts the options ({'; '.join(mismatches)}); write auto there"
                raise ValueError(f"--deepspeed: {problem}")
        if args.world_size != process_count():
            raise RuntimeError(f"{process_count()} processes were started, but the library sees {args.world_size}")
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise UserError(error_line(error)) from error
    return args


def _deepspeed_config(options: TrainingOptions) -> dict[str, Any] | None:
    """Return the DeepSpeed configuration in current terms; None for a run that does not train."""
    config, notes = read_deepspeed(str(options.deepspeed), warmup=options.warms_up)
    if not options.do_train:
        log_note(["--deepspeed is for training; this run evaluates without it"])
        return None
    log_note(notes)
    return config


def _check_report_to(names: list[str]) -> None:
    available = ["none", "all", *get_available_reporting_integrations()]
    unknown = [name for name in names if name not in available]
    if unknown:
        raise UserError(
            f"--report_to {' '.join(unknown)}: unknown or not installed; available are {', '.join(available)}"
        )


def _prepare_environment(*, deepspeed: bool, use_cpu: bool) -> None:
    """Set environment variables that the libraries read and a launcher may leave unset."""
    if use_cpu or not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        if process_count() > 1:  # accelerate would call the device cpu:0, which torch does not know
            os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
    if deepspeed and "RANK" not in os.environ:  # one process without a launcher: DeepSpeed would ask MPI for its peers
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        os.environ |= {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }


def _check_compilation_and_checkpointing(args: TrainerArguments) -> None:
    """Raise ValueError for settings that PyTorch or accelerate would refuse when the model is built."""
    backend, mode = args.torch_compile_backend, args.torch_compile_mode
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")  # as PyTorch's inductor chooses
    needs_compiler = args.torch_compile and backend == "inductor" and args.device.type == "cpu"
    if needs_compiler and shutil.which(compiler) is None:
        raise ValueError(
            f"--torch_compile True: needs a C++ compiler on a CPU, and {compiler} is not found; install one, name it "
            "in CXX, or leave the option out"
        )
    if backend is not None and backend.upper() not in DynamoBackend.list():
        allowed = ", ".join(sorted(name.lower() for name in DynamoBackend.list()))
        raise ValueError(f"--torch_compile_backend {backend}: choose from {allowed}")
    if mode is not None and mode not in COMPILE_MODES:
        raise ValueError(f"--torch_compile_mode {mode}: choose from {', '.join(COMPILE_MODES)}")
    settings = {} if args.gradient_checkpointing_kwargs is None else args.gradient_checkpointing_kwargs
    if not isinstance(settings, dict) or settings.keys() - CHECKPOINTING_SETTINGS or settings.get("use_reentrant"):
        allowed = ", ".join(sorted(CHECKPOINTING_SETTINGS))
        raise ValueError(
            f"--gradient_checkpointing_kwargs {settings}: must be a JSON object with keys among {allowed}; adapters "
            "need use_reentrant false"
        )


def _check_optimizer_and_schedule(args: TrainerArguments) -> None:
    """Look up the optimizer and build the schedule. The library does so only when training begins.

    Notes name settings that do nothing, or not what is probably meant.

    Raises:
        ValueError, TypeError, ImportError, RuntimeError: if the library refuses one of them.
    """
    notes = []
    name = OptimizerNames(args.optim).value
    package = next((package for start, package in OPTIMIZERS_WITH_MODEL.items() if name.startswith(start)), None)
    if package is None:
        optimizer = Trainer.get_optimizer_cls_and_kwargs(args)
        plain = copy(args)
        plain.optim_args = None
        if args.optim_args and Trainer.get_optimizer_cls_and_kwargs(plain) == optimizer:
            notes.append(f"--optim_args is not used: --optim {name} has no further settings")
    elif find_spec(package) is None:
        raise ImportError(f"--optim {name}: needs the package {package}; install it or choose another")
    elif package != "lomo_optim" and not args.optim_target_modules:
        raise ValueError(f"--optim {name}: needs --optim_target_modules, e.g. all-linear")
    settings = args.lr_scheduler_kwargs or {}
    if not isinstance(settings, dict):
        raise ValueError(f"--lr_scheduler_kwargs {settings}: must be a JSON object")
    try:
        get_scheduler(
            args.lr_scheduler_type,
            torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=args.learning_rate),
            num_warmup_steps=1,
            num_training_steps=2,
            scheduler_specific_kwargs=dict(settings),
        )
    except (ValueError, TypeError, ZeroDivisionError) as error:
        kind = SchedulerType(args.lr_scheduler_type).value
        raise ValueError(f"--lr_scheduler_type {kind} with --lr_scheduler_kwargs {settings}: {error}") from error
    if args.lr_scheduler_type == SchedulerType.REDUCE_ON_PLATEAU and args.greater_is_better and "mode" not in settings:
        notes.append(
            f"--lr_scheduler_type reduce_lr_on_plateau waits for {args.metric_for_best_model} to fall; "
            """--lr_scheduler_kwargs '{"mode": "max"}' lets it wait for a rise"""
        )
    log_note(notes)


def data_and_adapter_options(config: QARunConfig | NERRunConfig | MLMRunConfig) -> list[Any]:
    """Return the option groups of a run other than the base model and the training arguments, in order."""
    return [getattr(config, name) for name in config.group_names() if name not in ("model", "training")]


def options_record(config: QARunConfig | NERRunConfig | MLMRunConfig, args: TrainerArguments) -> dict[str, Any]:
    """Return the value of every option as plain JSON, for run.json; training arguments as they were resolved."""
    record: dict[str, Any] = {}
    for group in (config.model, *data_and_adapter_options(config)):
        record |= asdict(group)
    for split in config.all_splits():
        if len(split.files) == 1:
            record[split.option] = split.files[0]
    plain: dict[str, Any] = json.loads(json.dumps(record | args.to_dict(), default=str))
    return plain

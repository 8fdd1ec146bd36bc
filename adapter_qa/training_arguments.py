"""From the training options as asked for to `transformers.TrainingArguments`: what they leave open is decided."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainingArguments

from adapter_qa.arguments import RunOptions
from adapter_qa.errors import UserError, note
from adapter_qa.zero import read_deepspeed

# Compute capability from which NVIDIA GPUs have matrix units for the type: Ampere, Volta (CUDA C++ Programming Guide).
BF16_SINCE, FP16_SINCE = (8, 0), (7, 0)


@dataclass
class TrainingRun(TrainingArguments):
    """`transformers.TrainingArguments` and what this trainer has beside them; `settle` makes it."""

    bucket_by_length: bool = True
    early_stopping_patience: int | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        self.output_dir_is_derived = self.output_dir is None
        super().__post_init__()
        self.remove_unused_columns = False  # windows carry what evaluation needs beside the model's inputs
        self.dataloader_pin_memory = self.dataloader_pin_memory and self.device.type == "cuda"


def settle(options: RunOptions) -> TrainingRun:
    """Decides precision, evaluation and best epoch where the options leave them open, and reads the DeepSpeed file.

    Raises:
        UserError: the library refuses the options.
    """
    values = dict(vars(options))
    values["eval_strategy"] = options.evaluates()
    if options.load_best_model_at_end is None:
        values["load_best_model_at_end"] = values["eval_strategy"] != "no" and (
            options.save_strategy == values["eval_strategy"]
        )
    values["bf16"], values["fp16"], said = choose_precision(options)
    if values["bf16"] and not torch.accelerator.is_available():
        values["use_cpu"] = True  # the library takes bfloat16 on the CPU only where it is told to use it
    if options.deepspeed is not None:
        warmup = options.warmup_steps > 0 or options.warmup_ratio > 0
        values["deepspeed"], notes = read_deepspeed(str(options.deepspeed), warmup=warmup)
        note(notes)
    note(said)
    try:  # None stands for the library's own default
        return TrainingRun(**{name: value for name, value in values.items() if value is not None})
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(" ".join(str(error).split())) from error


def choose_precision(options: RunOptions) -> tuple[bool, bool, list[str]]:
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

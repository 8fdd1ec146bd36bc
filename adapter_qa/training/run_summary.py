"""What a run is about to do, and what came of it: lines for people, and the same as JSON for run.json.

The plan is printed before the first step, the result at the end.
"""

from __future__ import annotations

import math
import resource
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from adapter_qa.config.options import BF16_PRODUCTS
from adapter_qa.core.readable import count, duration, file_size, metric_label, script_command
from adapter_qa.runs.layout import FULL_MODEL_FILES
from adapter_qa.runs.run_document import RunDocument, Sizes
from adapter_qa.training.training_args import TrainerArguments

MAX_COLUMNS = 100  # of a line
LABEL_COLUMNS = 12  # of the words at the beginning of a line, with the indentation
# What run.json counts in a split: the examples of the data and the inputs made of them.
UNITS = {"questions": "windows", "sentences": "inputs", "texts": "blocks"}
# Its counts of what is lost, by name, and the words for them.
LOSSES = {
    "unaligned": "without their answer in the context",
    "empty_texts": "empty ones left out",
    "cut_questions": "questions cut",
    "cut_sentences": "sentences cut",
    "answer_without_tokens": "answers without tokens",
    "answer_in_no_window": "answers in no window",
    "answer_too_long": "answers too long",
}
SPLIT_LABELS = {"train": "train on", "eval": "evaluate on", "predict": "predict", "calibration": "fit on"}


@dataclass(frozen=True)
class TrainingPlan:
    """The sizes of a training.

    Attributes:
        batch_size: inputs of one device in one batch.
        tokens_per_batch: tokens of one forward pass, if batches are split; None: they are not.
        accumulation: batches of one optimizer step.
        effective_batch_size: inputs of one optimizer step, of all processes.
        steps: optimizer steps of the whole training.
        epochs: epochs of the whole training.
        evaluation: when the model is evaluated during training; and that this decides nothing, if so.
        metric: decides which evaluation's weights are kept; None if those of the last step are.
        patience: evaluations without a better metric after which the training stops; None: it does not.
        resumed_from: name of the checkpoint; None for a new training.
        learning_rate: of the weights that have none of their own.
        head_learning_rate: of the head; None: the same.
    """

    batch_size: int
    tokens_per_batch: int | None
    accumulation: int
    effective_batch_size: int
    steps: int
    epochs: float
    evaluation: str
    metric: str | None
    patience: int | None
    resumed_from: str | None
    learning_rate: float
    head_learning_rate: float | None


def training_plan(args: TrainerArguments, inputs: int, resumed_from: str | None) -> TrainingPlan:
    """Return the sizes of a training with a number of inputs."""
    steps = train_steps(inputs, args)
    patience = args.early_stopping_patience
    return TrainingPlan(
        batch_size=args.train_batch_size,
        tokens_per_batch=args.tokens_per_batch,
        accumulation=args.gradient_accumulation_steps,
        effective_batch_size=int(args.train_batch_size * args.gradient_accumulation_steps * args.world_size),
        steps=steps,
        epochs=round(steps / _steps_of_epoch(inputs, args), 2) if args.max_steps > 0 else args.num_train_epochs,
        evaluation=_evaluation_text(args, steps),
        metric=str(args.metric_for_best_model).removeprefix("eval_") if args.load_best_model_at_end else None,
        patience=patience,
        resumed_from=resumed_from,
        learning_rate=args.learning_rate,
        head_learning_rate=args.head_learning_rate,
    )


def _evaluation_text(args: TrainerArguments, steps: int) -> str:
    if args.eval_strategy == "steps" and args.eval_steps is not None:
        interval = args.eval_steps if args.eval_steps >= 1 else math.ceil(steps * args.eval_steps)
        text = f"every {count(interval, 'step')}"
    else:
        text = "every epoch" if args.eval_strategy == "epoch" else "none while training"
    return text + ("" if args.load_best_model_at_end or args.eval_strategy == "no" else "; the last weights are kept")


def train_steps(inputs: int, args: TrainerArguments) -> int:
    """Return the optimizer steps of a training, as `Trainer` counts them."""
    if args.max_steps > 0 or inputs == 0:
        return max(int(args.max_steps), 0)
    return math.ceil(args.num_train_epochs * _steps_of_epoch(inputs, args))


def _steps_of_epoch(inputs: int, args: TrainerArguments) -> int:
    batches = inputs / int(args.train_batch_size * args.world_size)
    batch_count = math.floor(batches) if args.dataloader_drop_last else math.ceil(batches)
    return max(math.ceil(batch_count / args.gradient_accumulation_steps), 1)


def eval_steps(inputs: int, args: TrainerArguments) -> int:
    """Return the batches of an evaluation."""
    return math.ceil(inputs / int(args.eval_batch_size * args.world_size))


@dataclass(frozen=True)
class RunPlan:
    """What a run is about to do.

    Attributes:
        device: number and name of GPUs, or processor and threads.
        precision: "float32", "bfloat16" or "float16".
        precision_reason: why this precision.
        fp32_products: how a CPU multiplies float32 matrices, "ieee" or "bf16".
        step: which training step the encoder has, and why; None for a run that does not train.
        dropout: probabilities above 0 in training; the fast step rounds them to n/256.
        processes: number of processes.
        sharding: "DeepSpeed ZeRO-2" or -3; None without it.
        base: the base model.
        setup: composition of the adapters, or "full fine-tuning".
        parameters: of the whole model.
        trainable: parameters that train.
        training: None for a run that does not train.
        folder: of the run.
    """

    device: str
    precision: str
    precision_reason: str
    fp32_products: str
    step: str | None
    dropout: list[float]
    processes: int
    sharding: str | None
    base: str
    setup: str
    parameters: int
    trainable: int
    training: TrainingPlan | None
    folder: str

    def text(self, data: Mapping[str, Mapping[str, int]]) -> str:
        """Return the lines that are printed before the first step; `data` are the `DataSource.counts` by split."""
        processes = f"{self.processes} processes" if self.processes > 1 else ""
        products = ", products in bfloat16" if self.fp32_products == BF16_PRODUCTS else ""
        step = {} if self.step is None else {"step": self.step}
        rows = {
            "device": ", ".join(filter(None, (self.device, processes, self.sharding))),
            "precision": f"{self.precision}{products}: {self.precision_reason}",
            **step,
            "base": self.base,
            "setup": self.setup,
            "parameters": f"{self.parameters:,}, of which {self._trainable_text()}",
        }
        rows |= {SPLIT_LABELS[name]: split_text(name, counts) for name, counts in data.items()}
        if self.training is not None:
            rows |= self._training_rows(self.training, units(data["train"])[0])
        return aligned(rows | {"folder": self.folder})

    def _trainable_text(self) -> str:
        if not self.trainable:
            return "none trains"
        return f"{self.trainable:,} train ({100 * self.trainable / self.parameters:.2f} %)"

    def _training_rows(self, training: TrainingPlan, unit: str) -> dict[str, str]:
        factors = f"{training.batch_size} {unit}"
        factors += f" x {training.accumulation} accumulated" if training.accumulation > 1 else ""
        factors += f" x {self.processes} processes" if self.processes > 1 else ""
        if training.effective_batch_size != training.batch_size:
            factors += f" = {training.effective_batch_size}"
        if training.tokens_per_batch is not None:
            factors += f", in parts of at most {training.tokens_per_batch:,} tokens"
        rows = {"batch": factors, "steps": f"{training.steps:,} in {count(training.epochs, 'epoch')}"}
        if training.head_learning_rate is not None:
            rows["rates"] = f"{training.learning_rate:g}, of the head {training.head_learning_rate:g}"
        evaluation = training.evaluation
        if training.metric is not None:
            evaluation += f"; the best {metric_label(training.metric)} decides"
        if training.patience is not None:
            evaluation += f"; stops after {count(training.patience, 'evaluation')} without a better one"
        rows["evaluation"] = evaluation
        if training.resumed_from is not None:
            rows["resumes"] = f"from {training.resumed_from}"
        return rows


def units(counts: Mapping[str, int]) -> tuple[str, str]:
    """Return the names of a split's inputs and of its examples, e.g. "windows" and "questions".

    Blocks of text have no examples of their own: a text may have many blocks, and a block many texts.
    """
    example, unit = next(pair for pair in UNITS.items() if pair[1] in counts)
    return unit, unit if example == "texts" else example


def split_text(name: str, counts: Mapping[str, int]) -> str:
    """Return the counts of a split in words, e.g. `1,000 questions in 1,203 windows (12 questions cut)`."""
    parts = [f"{counts[unit]:,} {unit}" for pair in UNITS.items() for unit in pair if unit in counts]
    losses = dict(LOSSES)
    if name == "train":
        losses["unaligned"] = "left out"
    lost = [f"{counts[key]:,} {text}" for key, text in losses.items() if counts.get(key)]
    return " in ".join(parts) + (f" ({', '.join(lost)})" if lost else "")


def result_text(document: RunDocument, folder: Path, best: str | None) -> str:
    """Return the lines that are printed at the end of a finished run, with commands for what it has trained.

    `best` are the epoch of the weights and its metrics in words; None if these are the last weights.
    """
    sizes, train, saved = document.result, document.metrics.get("train"), document.saved
    rows = {"ended": document.ended, "best": best}
    # A resumed run may have trained for longer than this process has worked.
    training = f"; training {duration(train['train_runtime'])} in all" if train is not None else ""
    rows["time"] = duration(document.times.seconds or 0.0) + training
    rows["memory"] = f"at most {file_size(sizes.memory_bytes or 0)}"
    if saved is not None and saved != str(folder):
        rows["saved"] = f"{saved} ({file_size(sizes.saved_bytes or 0)})"
    rows["folder"] = f"{folder} ({file_size(sizes.folder_bytes or 0)})"
    lines = [aligned({label: row for label, row in rows.items() if row is not None})]
    if saved is not None and document.options.get("fold") is None:
        lines += ["next:", *(f"  {command}" for command in _next_commands(document.script, shlex.quote(str(folder))))]
    return "\n".join(lines)


def disk_and_memory(saved: str | None, folder: Path, device: torch.device) -> Sizes:
    """Return the sizes of what was trained and of the folder of the run, and the most memory that it took."""
    return Sizes(0 if saved is None else _saved_size(Path(saved), folder), _folder_size(folder), _peak_memory(device))


def _peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process has held at a time: on its GPU, or else in the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size  # macOS counts bytes, Linux kibibytes


def _folder_size(folder: Path) -> int:
    """Return the number of bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _saved_size(saved: Path, run_folder: Path) -> int:
    """Return the number of bytes of what was trained; a full model is saved among the other files of its run."""
    if saved != run_folder:
        return _folder_size(saved)
    return sum(path.stat().st_size for path in {path for name in FULL_MODEL_FILES for path in saved.glob(name)})


def _next_commands(script: str, folder: str) -> list[str]:
    """Return command lines for what people do with a finished run that has trained something."""
    if script == "run_mlm_adapter.py":
        return [f"{script_command('run_qa_adapter', 'train')} --load_lang_adapter {folder} ..."]
    if script == "run_ner_adapter.py":
        return [f"{script_command('run_qa_adapter', 'train')} --fuse_adapters qa=RUN ner={folder} ..."]
    return [
        f'{script_command("ask_qa", "ask")} {folder} --question "..." --context "..."',
        f"{script_command('report_qa', 'report')} {folder} --output_dir report",
        f"{script_command('export_qa', 'export')} {folder} exported",
    ]


def aligned(rows: Mapping[str, str]) -> str:
    """Return rows as text: labels in a column, long rows wrapped to the width of the terminal."""
    width = min(shutil.get_terminal_size().columns, MAX_COLUMNS) - 1
    return "\n".join(
        textwrap.fill(
            row,
            width,
            initial_indent=f"  {label}".ljust(LABEL_COLUMNS) + "  ",
            subsequent_indent=" " * (LABEL_COLUMNS + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for label, row in rows.items()
    )


def score_hints(metrics: Mapping[str, float]) -> list[str]:
    """Return what to try if an evaluation has an F1 of 0."""
    if metrics.get("eval_f1") != 0:
        return []
    return ["F1 is 0.0: nothing was learned; train longer or raise --learning_rate"]

"""Options: one dataclass a subject. `parsing` reads them, `checks` refuses what no run may ask for, and of `TrainingOptions`
`training_arguments.resolve_training_args` makes what the trainer takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adapter_qa.config.training_options import training_options

if TYPE_CHECKING:
    from transformers import TrainingArguments as LibraryOptions
else:  # torch and transformers are not imported here: --help and mistakes are answered at once
    LibraryOptions = training_options()

# The 2021 names and the library's present ones (adapters 1.x documentation, "Configuration strings").
ADAPTER_CONFIGS = {
    "pfeiffer": "seq_bn",
    "pfeiffer+inv": "seq_bn_inv",
    "houlsby": "double_seq_bn",
    "houlsby+inv": "double_seq_bn_inv",
    "seq_bn": "seq_bn",
    "seq_bn_inv": "seq_bn_inv",
    "double_seq_bn": "double_seq_bn",
    "double_seq_bn_inv": "double_seq_bn_inv",
}
STRATEGIES = ["no", "steps", "epoch"]
NEW = "new"  # stands for a fresh adapter where a path is expected, with --random_init True
# Names become module names and folder names, two of them in a fusion's.
ADAPTER_NAME = re.compile(r"[A-Za-z0-9_\-]{1,120}")


def option(default: Any, text: str) -> Any:
    """A dataclass field with its default and its help text; mutable defaults are not needed by any option."""
    return field(default=default, metadata={"help": text})


@dataclass
class ModelOptions:
    """The base model and its tokenizer."""

    _argument_group_name = "base model"
    model_name_or_path: str = field(
        metadata={"help": "Folder or hub id of the base model, e.g. neuralmind/bert-base-portuguese-cased."}
    )
    config_name: str | None = option(
        None, "Folder or hub id of the model's configuration, if it is not the model's own."
    )
    tokenizer_name: str | None = option(None, "Folder or hub id of the tokenizer, if it is not the model's own.")
    model_revision: str = option("main", "Branch, tag or commit of a hub id.")
    cache_dir: str | None = option(None, "Where hub downloads are kept; without it the hub's own cache.")
    attn_implementation: str | None = field(
        default=None,
        metadata={"help": "How attention is computed. Without it sdpa.", "choices": ["sdpa", "eager"]},
    )
    random_init: bool = option(
        False,
        "Start from a configuration without weights. Here the word 'new' in place of an adapter's path makes a fresh "
        "one. For dry runs, tests and benchmarks.",
    )


@dataclass
class AdapterOptions:
    """The adapter that is trained."""

    _argument_group_name = "adapter"
    adapter_config: str | None = option(
        None,
        "Kind of a fresh adapter: pfeiffer, houlsby, pfeiffer+inv, houlsby+inv (today's seq_bn, double_seq_bn, "
        "..._inv), or an adapter_config.json. Without it pfeiffer, for a language adapter pfeiffer+inv.",
    )
    adapter_non_linearity: str | None = option(
        None,
        "Activation of a fresh adapter, e.g. gelu, relu, swish. Without it the kind's own (pfeiffer: relu). What was "
        "gelu in 2021 is gelu_new.",
    )
    adapter_reduction_factor: float | None = option(
        None,
        "Hidden size divided by bottleneck size of a fresh adapter; without it 16, for a language adapter 2.",
    )
    load_adapter: str | None = option(
        None,
        "A saved adapters-<task> folder, a fusion included, to evaluate, to predict with or to train further.",
    )
    language: str | None = option(
        None, "Language code of the data, e.g. pt. Recorded; a language adapter of another one is refused."
    )
    madx2: bool = option(
        False, "MAD-X 2.0: no adapter and no fusion layer in the last layer, loaded adapters included."
    )
    houlsby_MHA_lastlayer: bool = option(
        False, "In the last layer, the trained houlsby adapter stands after the attention block only."
    )


@dataclass
class LanguageAdapterOptions:
    """The frozen language adapter under the task adapter."""

    _argument_group_name = "language adapter"
    load_lang_adapter: str | None = option(
        None,
        "Saved language adapter; it is stacked under the task and frozen. The word 'none' leaves out the one that "
        "--load_adapter brings.",
    )
    lang_adapter_config: str | None = option(None, "Its kind, or its adapter_config.json; a loaded one must be of it.")
    lang_adapter_non_linearity: str | None = option(None, "Its activation; a loaded one must have it.")
    lang_adapter_reduction_factor: float | None = option(None, "Its reduction factor; a loaded one must have it.")


@dataclass
class FusionOptions:
    """AdapterFusion (Pfeiffer et al., 2021, arXiv 2005.00247)."""

    _argument_group_name = "fusion"
    train_adapter: bool = option(True, "Train an adapter or a fusion, the base frozen. False: full fine-tuning.")
    fuse_adapters: list[str] | None = option(
        None, "NAME=PATH NAME=PATH [...]: two or more saved adapters; a fusion layer over them is trained."
    )
    adapter_composition: str = field(
        default="stack",
        metadata={
            "help": "How the language adapter joins the fused ones: stack puts it under the fusion, fuse makes it one "
            "more member of the fusion.",
            "choices": ["stack", "fuse"],
        },
    )
    fusion_regularization: bool = option(
        True,
        "Add 0.01 times the squared distance of every fusion value matrix from the identity to the loss.",
    )
    fusion_decay_values: bool = option(
        False, "Apply --weight_decay to the fusion's value matrices too, as the library does unawares."
    )


@dataclass
class QADataOptions:
    """Questions: where they come from, how they are windowed, how spans are chosen."""

    _argument_group_name = "questions and windows"
    train_file: str | None = option(None, "SQuAD to train on: .json (nested or flat), .jsonl or .csv.")
    validation_file: str | None = option(None, "SQuAD to evaluate on.")
    test_file: str | None = option(None, "Questions to predict answers for.")
    dataset_name: str | None = option(None, "Hub id of a data set with splits train, validation, test, instead.")
    dataset_config_name: str | None = option(None, "Configuration of that data set.")
    max_train_samples: int | None = option(None, "Train on the first N questions; more than there are means all.")
    max_eval_samples: int | None = option(None, "Evaluate on the first N questions; more than there are means all.")
    max_predict_samples: int | None = option(None, "Predict the first N questions; more than there are means all.")
    max_seq_length: int = option(384, "Length of a window in tokens, question and special tokens included.")
    doc_stride: int = option(128, "Tokens that neighbouring windows of a long context share.")
    pad_to_max_length: bool = option(
        False,
        "Pad every window to --max_seq_length instead of the batch's longest, and count padding among wrong answers "
        "in the loss, as the reference scripts do.",
    )
    version_2_with_negative: bool = option(False, "SQuAD v2: some questions have no answer.")
    null_score_diff_threshold: float = option(
        0.0, "v2: answer nothing if the no-answer score exceeds the best span's by more than this (logits)."
    )
    n_best_size: int = option(20, "Spans kept for each question in eval_nbest_predictions.json.")
    max_answer_length: int = option(30, "Longest answer, in tokens.")


@dataclass
class MLMDataOptions:
    """Text of a language adapter."""

    _argument_group_name = "text"
    train_file: str | None = option(None, "Text to train on: .txt (a paragraph a line), SQuAD .json or .conll.")
    validation_file: str | None = option(None, "Text to evaluate on; without it a share of the training blocks.")
    validation_split_percentage: float = option(5.0, "That share, in percent of the blocks.")
    block_size: int = option(128, "Length of a block in tokens, special tokens included.")
    mlm_probability: float = option(0.15, "Share of tokens that are masked, drawn anew in each epoch.")
    max_train_samples: int | None = option(None, "Train on the first N blocks; more than there are means all.")
    max_eval_samples: int | None = option(None, "Evaluate on the first N blocks; more than there are means all.")


@dataclass
class NERDataOptions:
    """Sentences with entity labels."""

    _argument_group_name = "sentences and labels"
    train_file: str | None = option(None, "Sentences to train on: CoNLL (token label a line) or JSON lines.")
    validation_file: str | None = option(None, "Sentences to evaluate on.")
    test_file: str | None = option(None, "Sentences to predict the labels of.")
    max_train_samples: int | None = option(None, "Train on the first N sentences; more than there are means all.")
    max_eval_samples: int | None = option(None, "Evaluate on the first N sentences; more means all.")
    max_predict_samples: int | None = option(None, "Predict the first N sentences; more means all.")
    max_seq_length: int = option(384, "Longest piece in tokens; longer sentences are cut at words, none is lost.")
    label_all_tokens: bool = option(False, "Label every word piece of a word, not only the first.")
    next_sentence: bool = option(False, "Pair each training sentence with the next one as its right context.")
    weighted_loss: bool = option(False, "Weight the classes by inverse frequency in the loss.")
    weighted_loss_constant: float = option(
        0.5, "c in: weight of a class = c + its inverse frequency, normalised to sum to 1 over the classes."
    )


@dataclass
class TrainingOptions(LibraryOptions):
    """Options of `transformers.TrainingArguments` with the defaults of this trainer, as they were asked for.

    Where evaluation is asked for beside training, both are done each epoch and the best epoch comes back at the end.
    """

    _argument_group_name = "training (transformers.TrainingArguments)"
    learning_rate: float = option(1e-4, "Initial learning rate of AdamW.")
    # The library's types know no "decide from the rest".
    eval_strategy: str | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "When to evaluate. Without it: epoch, if --do_train and --do_eval.", "choices": STRATEGIES},
    )
    save_strategy: str = field(default="epoch", metadata={"help": "When a checkpoint is saved.", "choices": STRATEGIES})
    logging_strategy: str = field(
        default="steps", metadata={"help": "When loss and learning rate are logged.", "choices": STRATEGIES}
    )
    logging_steps: float = option(0.01, "Steps between two logs; below 1 a share of all steps.")
    load_best_model_at_end: bool | None = option(  # type: ignore[assignment]
        None, "Bring the best epoch back at the end. Without it: if there is evaluation while training."
    )
    output_dir: str | None = option(
        None, "Folder of the run. Without it the folder is derived from model, data, setup and hyperparameters."
    )
    metric_for_best_model: str | None = option("f1", "What is best: f1, exact or loss; for text: loss.")
    save_total_limit: int | None = option(1, "Checkpoints kept beside the best one.")
    report_to: list[str] | None = field(
        default_factory=lambda: ["tensorboard"], metadata={"help": "Where curves go: tensorboard, none, ..."}
    )
    bf16: bool | None = option(  # type: ignore[assignment]
        None,
        "Compute in bfloat16. Without --bf16 and --fp16 the device decides: bfloat16 or float16 where a GPU has it in "
        "hardware, else float32; --bf16 False keeps float32.",
    )
    fp16: bool | None = option(None, "Compute in float16 with loss scaling; see --bf16.")  # type: ignore[assignment]
    bucket_by_length: bool = option(
        True, "Train on batches of similar length; they are drawn anew each epoch. Not where all are padded alike."
    )
    early_stopping_patience: int | None = option(
        None, "Stop after this many evaluations without a better one. Without it: never."
    )
    push_to_hub: bool = option(
        False,
        "When the run is finished, push what was saved, with its card, to --hub_model_id. The same command for a "
        "finished run pushes it, too.",
    )
    hub_model_id: str | None = option(None, "Repository on the hub, e.g. name/qa-pt; it is made where there is none.")
    license: str | None = option(None, "Licence of what is trained, for its card, e.g. apache-2.0.")
    dry_run: bool = option(False, "Check everything, print the plan, last line one JSON document, and stop.")

    def evaluates(self) -> str:
        """When there is evaluation while training: no, steps or epoch."""
        return str(self.eval_strategy or ("epoch" if self.do_train and self.do_eval else "no"))


@dataclass
class MLMTrainingOptions(TrainingOptions):
    """The same for masked language modelling, where the evaluation loss decides."""

    _argument_group_name = TrainingOptions._argument_group_name
    metric_for_best_model: str | None = option("loss", "What is best: loss.")


# What run_qa_adapter.py takes, in the order of its parser; and what its evaluation computes.
QA_OPTIONS = (ModelOptions, QADataOptions, AdapterOptions, LanguageAdapterOptions, FusionOptions, TrainingOptions)
QA_METRICS = ("f1", "exact", "loss")


def answering_options(squad: QADataOptions) -> dict[str, Any]:
    """What asking needs to know of windows and spans, for the saved folder."""
    names = ("max_seq_length", "doc_stride", "n_best_size", "max_answer_length")
    v2 = {"version_2": squad.version_2_with_negative, "null_score_diff_threshold": squad.null_score_diff_threshold}
    return {name: vars(squad)[name] for name in names} | v2

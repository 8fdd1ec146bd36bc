"""All options of the training scripts: one frozen dataclass for each subject.

Units and limits stand in the fields. `config.run_configs` groups them by script, `config.parser` reads the options,
`config.validation` checks them.
"""

# ruff: noqa: RUF009 - the functions called in defaults return fields
from __future__ import annotations

import re
from argparse import SUPPRESS
from dataclasses import dataclass, field, replace
from typing import TypeVar

from adapter_qa.config.option_fields import (
    AT_LEAST_ONE,
    COUNT,
    NOT_NEGATIVE,
    SEED,
    SHARE,
    SHARE_BELOW_ONE,
    Limits,
    file_option,
    library_option,
    limit_option,
    option,
)
from adapter_qa.config.training_options import LibraryTrainingOptions

# The names of adapter-transformers 2.x and the present ones (adapters 1.x documentation, "Configuration strings").
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
STRATEGIES = ("no", "steps", "epoch")
SMALLEST_REDUCTION = 1 / 16  # a smaller one makes a bottleneck that fills the memory
NO_LANGUAGE_ADAPTER = "none"  # value of --load_lang_adapter
NEW = "new"  # stands for a fresh adapter where a path is expected, with --random_init True
HEAD_FROM_QA = "from_qa"
IEEE, BF16_PRODUCTS = "ieee", "bf16"  # how a CPU multiplies float32 matrices
FUSION_HEADS = (HEAD_FROM_QA, NEW)
# Names become module names and folder names, two of them in a fusion's.
ADAPTER_NAME = re.compile(r"[A-Za-z0-9_\-]{1,120}")
MIN_INPUT_LENGTH = 8  # tokens
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


def greatest_is_best(metric: str) -> bool:
    """Return whether a greater value of a metric is better."""
    return not metric.endswith(("loss", "perplexity", "runtime", "ece", "brier"))


@dataclass(frozen=True)
class ModelOptions:
    """The base model and its tokenizer."""

    _argument_group_name = "base model"
    model_name_or_path: str = field(
        metadata={
            "help": "Folder or hub id of the base model, e.g. neuralmind/bert-base-portuguese-cased.",
            "metavar": "MODEL",
        }
    )
    config_name: str | None = option(None, "The model's configuration, if not its own.", kind="MODEL")
    tokenizer_name: str | None = option(None, "The tokenizer, if not the model's own.", kind="MODEL")
    do_lower_case: bool | None = option(
        None, "Whether a BERT tokenizer puts text into lower case. Without it as its files say.", before=None
    )
    strip_accents: bool | None = option(
        None, "Whether a BERT tokenizer removes accents. Without it as its files say.", before=None
    )
    model_revision: str = option("main", "Branch, tag or commit.", kind="NAME")
    cache_dir: str | None = option(None, "Folder for downloads from the hub.", kind="PATH")
    attn_implementation: str | None = option(None, "Attention. Without it sdpa.", choices=("sdpa", "eager"))
    random_init: bool = option(
        False, "Random weights, for tests; the word new then stands for a new adapter in place of RUN."
    )


@dataclass(frozen=True)
class AdapterOptions:
    """The adapter that is trained."""

    _argument_group_name = "adapter"
    adapter_config: str | None = option(
        None,
        "Kind of a new adapter: pfeiffer, houlsby, the same with +inv, lora, ia3, lora[r=8,alpha=16], or an "
        "adapter_config.json. Without it pfeiffer.",
        kind="KIND",
    )
    adapter_non_linearity: str | None = option(
        None,
        "Activation of a new adapter, e.g. gelu. Without it the kind's own (pfeiffer: relu).",
        kind="NAME",
    )
    adapter_reduction_factor: float | None = option(
        None,
        "Hidden size divided by bottleneck size. Without it 16.",
        limits=Limits(minimum=SMALLEST_REDUCTION),
    )
    load_adapter: str | None = option(
        None,
        "Saved adapter, with its fusion if it has one, to evaluate, predict with or train further.",
        kind="RUN",
    )
    language: str | None = option(
        None, "Language of the data, e.g. pt; a language adapter of another one is refused.", kind="CODE"
    )
    madx2: bool = option(False, "MAD-X 2.0: no adapter and no fusion in the last layer, also if adapters are loaded.")
    houlsby_MHA_lastlayer: bool = option(  # noqa: N815 - the name of adapter-transformers 2.x
        False, "In the last layer, the houlsby adapter after the attention block only."
    )


@dataclass(frozen=True)
class MLMAdapterOptions(AdapterOptions):
    """The language adapter that is trained."""

    adapter_config: str | None = option(
        None,
        "Kind of a new adapter: pfeiffer, houlsby, the same with +inv, or an adapter_config.json. Without it "
        "pfeiffer+inv.",
        kind="KIND",
    )
    adapter_reduction_factor: float | None = option(
        None,
        "Hidden size divided by bottleneck size. Without it 2.",
        limits=Limits(minimum=SMALLEST_REDUCTION),
    )
    load_adapter: str | None = option(None, "Saved language adapter to evaluate or train further.", kind="RUN")


@dataclass(frozen=True)
class LanguageAdapterOptions:
    """The frozen language adapter under the task adapter."""

    _argument_group_name = "language adapter"
    load_lang_adapter: str | None = option(
        None,
        "Saved language adapter, frozen under the task adapter. It replaces that of --load_adapter; none removes that.",
        kind="RUN",
    )
    lang_adapter_config: str | None = option(None, "Its kind; a loaded one must match.", kind="KIND")
    lang_adapter_non_linearity: str | None = option(None, "Its activation; a loaded one must match.", kind="NAME")
    lang_adapter_reduction_factor: float | None = option(
        None, "Its reduction factor; a loaded one must match.", limits=Limits(minimum=SMALLEST_REDUCTION)
    )


@dataclass(frozen=True)
class FusionOptions:
    """AdapterFusion (Pfeiffer et al., 2021, arXiv 2005.00247)."""

    _argument_group_name = "fusion"
    train_adapter: bool = option(True, "Train adapters and fusion only; False: all weights.")
    fuse_adapters: list[str] | None = option(
        None, "Two or more saved adapters; a fusion layer over them is trained.", kind="NAME=RUN"
    )
    fusion_head: str | None = option(
        None,
        "Head of a new fusion: from_qa, that of the first fused adapter with one; new, random. Without it from_qa if "
        "there is one.",
        choices=FUSION_HEADS,
        before=NEW,
    )
    adapter_composition: str = option(
        "stack",
        "stack: the language adapter stands under the fusion; fuse: it is one more member of it.",
        choices=("stack", "fuse"),
    )
    fusion_regularization: bool = option(True, "Keep value matrices near the identity.")
    fusion_decay_values: bool = option(False, "Apply --weight_decay to the value matrices too.")


@dataclass(frozen=True)
class QADataOptions:
    """Questions: where they come from, how they are windowed, how spans are chosen."""

    _argument_group_name = "questions and windows"
    train_file: list[str] | None = file_option(
        "SQuAD to train on: .json, .jsonl, .csv, .tsv, .parquet, .arrow, also compressed; several, or patterns like "
        "'parts/*'."
    )
    validation_file: list[str] | None = file_option("SQuAD to evaluate on.")
    test_file: list[str] | None = file_option("Questions to predict answers for.")
    dataset_name: str | None = option(
        None, "Data set (folder or hub id) with splits train, validation and test, instead of files.", kind="NAME"
    )
    dataset_config_name: str | None = option(None, "Configuration of that data set.", kind="NAME")
    id_column: str = option("id", "Column or key of the ids.", kind="NAME", before="id")
    question_column: str = option("question", "The same, of questions.", kind="NAME", before="question")
    context_column: str = option("context", "The same, of contexts.", kind="NAME", before="context")
    answer_column: str = option("answers", "The same, of answers.", kind="NAME", before="answers")
    answer_start_column: str = option(
        "answer_start", "The same, of their starts in characters.", kind="NAME", before="answer_start"
    )
    title_column: str = option("title", "The same, of titles.", kind="NAME", before="title")
    max_train_samples: int | None = limit_option("Train on", "questions")
    max_eval_samples: int | None = limit_option("Evaluate on", "questions")
    max_predict_samples: int | None = limit_option("Predict", "questions")
    folds: int | None = option(
        None,
        "Cross-validation: answer each of N folds of --train_file after training on the others.",
        kind="N",
        limits=Limits(minimum=2),
        before=None,
    )
    fold_by: str | None = option(
        None,
        "Whose questions stay together: articles, or contexts if those are few.",
        choices=("article", "context"),
        before=None,
    )
    fold_choosing_share: float = option(
        0.1,
        "Share that chooses the epoch.",
        limits=SHARE_BELOW_ONE,
        before=0.1,
    )
    fold: int | None = option(None, "This fold only.", kind="N", limits=AT_LEAST_ONE, before=None)
    max_seq_length: int = option(384, "Longest window, with question.", kind="TOKENS")
    doc_stride: int = option(128, "Overlap of windows.", kind="TOKENS", limits=NOT_NEGATIVE)
    pad_to_max_length: bool = option(
        False,
        "Pad all windows to --max_seq_length, and count padding in the loss as run_qa.py does.",
    )
    version_2_with_negative: bool = option(False, "SQuAD v2: some questions have no answer.")
    null_score_diff_threshold: float = option(
        0.0, "SQuAD v2: no answer if its score exceeds the best span's by more.", kind="LOGITS"
    )
    temperature: float = option(
        1.0,
        "Divides the scores before the softmax of probabilities; --calibration_file fits it.",
        limits=Limits(minimum=MIN_TEMPERATURE, maximum=MAX_TEMPERATURE),
        before=1.0,
    )
    calibration_file: list[str] | None = option(
        None,
        "SQuAD to fit temperature and threshold on; not evaluated on.",
        kind="FILE",
        before=None,
    )
    calibration_share: float | None = option(
        None,
        "Fit both on this share of the articles; not scored.",
        limits=Limits(above=0, below=1),
        before=None,
    )
    n_best_size: int = option(20, "Answers of a question in eval_nbest_predictions.json.", kind="N", limits=COUNT)
    max_answer_length: int = option(30, "Length of the longest answer.", kind="TOKENS", limits=COUNT)

    @property
    def is_calibrated(self) -> bool:
        """Whether the run fits temperature and threshold itself."""
        return self.calibration_file is not None or self.calibration_share is not None


@dataclass(frozen=True)
class MLMDataOptions:
    """Text for a language adapter."""

    _argument_group_name = "text"
    train_file: list[str] | None = file_option(
        "Text to train on: .txt, or .jsonl, .json, .csv, .tsv, .parquet, .arrow, .conll, also compressed; several, "
        "patterns like 'parts/*', or a folder."
    )
    validation_file: list[str] | None = file_option("Text to evaluate on. Without it a share of the blocks.")
    dataset_name: str | None = option(
        None,
        "Data set (folder or hub id), instead of files: its splits train and, if there is one, validation.",
        kind="NAME",
        before=None,
    )
    dataset_config_name: str | None = option(None, "Configuration of that data set.", kind="NAME", before=None)
    text_column: str | None = option(
        None, "Column or key of the texts. Without it text, or else context.", kind="NAME", before=None
    )
    validation_split_percentage: float = option(5.0, "That share.", kind="PERCENT", limits=Limits(above=0, below=100))
    block_size: int = option(
        128, "Length of a block, with special tokens.", kind="TOKENS", limits=Limits(minimum=MIN_INPUT_LENGTH)
    )
    mlm_probability: float = option(
        0.15, "Share of tokens that are masked, drawn anew in each epoch.", limits=Limits(above=0, below=1)
    )
    max_train_samples: int | None = limit_option("Train on", "blocks")
    max_eval_samples: int | None = limit_option("Evaluate on", "blocks")


@dataclass(frozen=True)
class NERDataOptions:
    """Sentences with entity labels."""

    _argument_group_name = "sentences and labels"
    train_file: list[str] | None = file_option(
        "Sentences to train on: .conll, .tsv (a word and its label on each line), .json, .jsonl, .csv, .parquet, "
        ".arrow, also compressed; several, or patterns like 'parts/*'."
    )
    validation_file: list[str] | None = file_option("Sentences to evaluate on.")
    test_file: list[str] | None = file_option("Sentences to predict the labels of.")
    dataset_name: str | None = option(
        None,
        "Data set (folder or hub id) with splits train, validation and test, for the parts without a file.",
        kind="NAME",
        before=None,
    )
    dataset_config_name: str | None = option(None, "Configuration of that data set.", kind="NAME", before=None)
    word_column: str | None = option(
        None,
        "Column of the words: name or number, backwards from -1. Without it the first, or tokens or words.",
        kind="COLUMN",
        before=None,
    )
    label_column: str | None = option(
        None,
        "The same, of the labels. Without it the last, or ner_tags, tags, labels or ner.",
        kind="COLUMN",
        before=None,
    )
    max_train_samples: int | None = limit_option("Train on", "sentences")
    max_eval_samples: int | None = limit_option("Evaluate on", "sentences")
    max_predict_samples: int | None = limit_option("Predict", "sentences")
    max_seq_length: int = option(
        384,
        "Length of the longest input; longer sentences are divided between words.",
        kind="TOKENS",
        limits=Limits(minimum=MIN_INPUT_LENGTH),
    )
    label_all_tokens: bool = option(False, "Label every token of a word, not only its first.")
    next_sentence: bool = option(False, "Give training sentences the next one as right context.")
    weighted_loss: bool = option(False, "Weight the classes by inverse frequency in the loss.")
    weighted_loss_constant: float = option(
        0.5,
        "c in: weight of a class = c + inverse frequency, normalised.",
        limits=NOT_NEGATIVE,
    )


@dataclass(frozen=True)
class TrainingOptions(LibraryTrainingOptions):
    """Options of `transformers.TrainingArguments` with the defaults of this project, and a few more.

    With --do_train and --do_eval, the model is evaluated and saved after each epoch, and the best epoch is kept.
    """

    _argument_group_name = "training (transformers.TrainingArguments)"
    learning_rate: float = option(1e-4, "Initial learning rate.", limits=NOT_NEGATIVE)
    head_learning_rate: float | None = option(
        None,
        "That of the head. Without it the same, for a new head ten times as much.",
        kind="RATE",
        limits=NOT_NEGATIVE,
        before=None,
    )
    # The library's types don't allow None, which here means "decided by the other options".
    eval_strategy: str | None = option(  # type: ignore[assignment]
        None, "When to evaluate while training. Without it epoch, if --do_eval.", choices=STRATEGIES
    )
    save_strategy: str = option("epoch", "When a checkpoint is saved; if not given, as evaluated.", choices=STRATEGIES)
    logging_strategy: str = option("steps", "When loss is logged.", choices=STRATEGIES)
    logging_steps: float = option(0.01, "Steps, or a share of all.", kind="STEPS", limits=Limits(above=0))
    load_best_model_at_end: bool | None = option(  # type: ignore[assignment]
        None, "Keep the weights of the best evaluation. Without it True, if there is one in training."
    )
    output_dir: str | None = option(
        None, "Folder of the run. Without it its name is made of model, data, setup and hyperparameters.", kind="PATH"
    )
    metric_for_best_model: str | None = option(
        "f1", "Metric that decides which evaluation is best: any that is printed.", kind="NAME"
    )
    save_total_limit: int | None = option(
        1, "Checkpoints kept beside the best one while the run trains.", limits=AT_LEAST_ONE
    )
    keep_checkpoint: bool | None = option(
        None,
        "Keep checkpoints at the end. Without it only if --save_total_limit is above 1.",
        before=True,
    )
    report_to: list[str] | None = field(
        default_factory=lambda: ["tensorboard"],
        metadata={"help": "Where curves go: tensorboard, wandb, trackio, mlflow, none.", "metavar": "NAME"},
    )
    trackio_space_id: str | None = option(
        None, "Hugging Face Space that --report_to trackio sends to. Without it a local database.", kind="NAME"
    )
    bf16: bool | None = option(  # type: ignore[assignment]
        None,
        "Compute in bfloat16. Without --bf16 and --fp16 the device decides in training; --bf16 False: float32.",
    )
    fp16: bool | None = option(None, "Compute in float16 with loss scaling.")  # type: ignore[assignment]
    fp32_products: str | None = option(
        None,
        "How a CPU multiplies float32 matrices: exactly, or rounded to bfloat16 and faster. Without it ieee.",
        choices=(IEEE, BF16_PRODUCTS),
        before=IEEE,
    )
    fast_step: bool | None = option(
        None,
        "Cheaper dropout and attention on a CPU. Without it where the encoder has them.",
        before=False,
    )
    bucket_by_length: bool = option(True, "Train on batches of similar length, drawn anew in each epoch.")
    tokens_per_batch: int | None = option(
        None,
        "Compute the batch of a device in parts of at most so many tokens: the same training in less memory.",
        kind="TOKENS",
        limits=AT_LEAST_ONE,
        before=None,
    )
    early_stopping_patience: int | None = option(
        None,
        "Stop after N evaluations without a better one.",
        kind="N",
        limits=AT_LEAST_ONE,
    )
    push_to_hub: bool = option(
        False,
        "Push what was saved to --hub_model_id at the end; also if the run is finished already.",
    )
    hub_model_id: str | None = option(None, "Repository on the hub; made if it is missing.")
    license: str | None = option(None, "Licence of the weights, e.g. apache-2.0.", kind="NAME")
    dry_run: bool = option(False, "Check everything, print the setup and a line of JSON, write nothing.")

    include_num_input_tokens_seen: bool = option(False, "Log the number of input tokens so far, padding included.")

    # Options of the library whose values the library does not check.
    weight_decay: float = library_option("weight_decay", limits=NOT_NEGATIVE)
    max_grad_norm: float = library_option("max_grad_norm", limits=NOT_NEGATIVE)
    adam_beta1: float = library_option("adam_beta1", limits=SHARE)
    adam_beta2: float = library_option("adam_beta2", limits=SHARE)
    adam_epsilon: float = library_option("adam_epsilon", limits=NOT_NEGATIVE)
    num_train_epochs: float = library_option("num_train_epochs", kind="EPOCHS", limits=NOT_NEGATIVE)
    max_steps: int = library_option("max_steps", kind="STEPS", limits=Limits(minimum=-1))
    warmup_ratio: float = library_option("warmup_ratio", limits=SHARE)
    warmup_steps: int = library_option("warmup_steps", kind="STEPS", limits=NOT_NEGATIVE)
    label_smoothing_factor: float = library_option("label_smoothing_factor", limits=SHARE)
    seed: int = library_option("seed", limits=SEED)
    data_seed: int | None = library_option("data_seed", limits=SEED)
    dataloader_num_workers: int = library_option("dataloader_num_workers", limits=NOT_NEGATIVE)
    dataloader_prefetch_factor: int | None = library_option(
        "dataloader_prefetch_factor", kind="BATCHES", limits=AT_LEAST_ONE
    )
    eval_delay: float = library_option("eval_delay", limits=NOT_NEGATIVE)
    eval_steps: float | None = library_option("eval_steps", kind="STEPS", limits=Limits(above=0))
    save_steps: float = library_option("save_steps", kind="STEPS", limits=Limits(above=0))
    neftune_noise_alpha: float | None = library_option("neftune_noise_alpha", limits=NOT_NEGATIVE)
    per_device_train_batch_size: int = library_option("per_device_train_batch_size", limits=AT_LEAST_ONE)
    per_device_eval_batch_size: int = library_option("per_device_eval_batch_size", limits=AT_LEAST_ONE)
    gradient_accumulation_steps: int = library_option("gradient_accumulation_steps", limits=AT_LEAST_ONE)
    eval_accumulation_steps: int | None = library_option("eval_accumulation_steps", kind="BATCHES", limits=AT_LEAST_ONE)

    @property
    def effective_eval_strategy(self) -> str:
        """When the model is evaluated during training: "no", "steps" or "epoch"."""
        return self.eval_strategy or ("epoch" if self.do_train and self.do_eval else "no")

    @property
    def warms_up(self) -> bool:
        """Whether the learning rate rises at first."""
        return self.warmup_steps > 0 or self.warmup_ratio > 0

    @property
    def compiles(self) -> bool:
        """Whether the model is compiled: backend and mode ask for it, too."""
        return self.torch_compile or self.torch_compile_backend is not None or self.torch_compile_mode is not None

    @property
    def keeps_best(self) -> bool:
        """Whether the weights of the best evaluation are kept; otherwise those of the last step are."""
        if self.load_best_model_at_end is not None:
            return self.load_best_model_at_end
        return self.effective_eval_strategy == self.save_strategy != "no"

    @property
    def best_metric(self) -> str:
        """The metric that decides which epoch is best, without the library's prefix."""
        return str(self.metric_for_best_model).removeprefix("eval_")

    @property
    def best_is_greatest(self) -> bool:
        """Whether a greater value of `best_metric` is better."""
        return greatest_is_best(self.best_metric)


@dataclass(frozen=True)
class NERTrainingOptions(TrainingOptions):
    """The same for named entity recognition, where the library's label_names has the meaning that users give it."""

    head_learning_rate: float | None = option(
        None,
        "The same of the head. Without it at least 1e-2 for a new head, else --learning_rate.",
        kind="RATE",
        limits=NOT_NEGATIVE,
        before=None,
    )
    label_names: list[str] | None = option(
        None, "Names of labels that are numbers in the data, in their order, e.g. O B-PER I-PER.", kind="NAME"
    )


@dataclass(frozen=True)
class MLMTrainingOptions(TrainingOptions):
    """The same for masked language modelling, where the evaluation loss decides which epoch is best."""

    do_predict: bool = option(False, SUPPRESS)  # refused: a language adapter predicts nothing
    head_learning_rate: float | None = option(
        None, "The same of the head. Without it --learning_rate.", kind="RATE", limits=NOT_NEGATIVE, before=None
    )
    metric_for_best_model: str | None = option(
        "loss", "Metric that decides which evaluation is best: any that is printed.", kind="NAME"
    )


Training = TypeVar("Training", bound=TrainingOptions)


def resolve_training_options(
    options: Training, given: frozenset[str] = frozenset(), *, labels_key: str | None = None
) -> Training:
    """Return the options with those decided that follow from others.

    Args:
        options: as they were given.
        given: names of those that were.
        labels_key: the model's input that holds the labels; None leaves it to the library.
    """
    greater, evaluation = options.greater_is_better, options.effective_eval_strategy
    if evaluation != "no" and "save_strategy" not in given:  # the best weights can be kept only if both come together
        options = replace(options, save_strategy=evaluation)
    if evaluation == options.save_strategy == "steps" and "save_steps" not in given:
        options = replace(options, save_steps=options.eval_steps or options.logging_steps)
    return replace(
        options,
        do_eval=options.do_eval or evaluation != "no",
        greater_is_better=options.best_is_greatest if greater is None else greater,
        label_names=options.label_names if labels_key is None else [labels_key],
    )

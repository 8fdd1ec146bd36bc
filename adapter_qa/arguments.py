"""Options: one dataclass a subject, the parser that all doors share, and what no run may ask for.

A YAML or JSON file given as first argument sets options; what follows on the command line wins. Every problem that
can be known from the options alone is found here, before anything slow is imported, and all of them are reported at
once. `training_arguments.settle` makes of `RunOptions` what the trainer takes.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from adapter_qa.errors import UserError, note
from adapter_qa.files import kind, parse_json, read_text
from adapter_qa.library_options import parser_module, training_options
from adapter_qa.spellings import OLD_NAMES, modernise
from adapter_qa.squad import is_text
from adapter_qa.zero import read_deepspeed

if TYPE_CHECKING:
    from transformers import HfArgumentParser
    from transformers import TrainingArguments as LibraryOptions
    from transformers.hf_argparser import string_to_bool
else:  # torch and transformers are not imported here: --help and mistakes are answered at once
    _parser = parser_module()
    HfArgumentParser, string_to_bool = _parser.HfArgumentParser, _parser.string_to_bool
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
ADAPTER_NAME = re.compile(
    r"[A-Za-z0-9_\-]{1,120}"
)  # names become module names and folder names, two of them in a fusion's
NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$|-inf$|-nan$", re.IGNORECASE)
TRAIN_ADAPTER = re.compile(r"--train[_-]adapter(=|$)")
ONLY_RESULTS = re.compile(
    r"overwrite_output_dir|dry_run|output_dir|run_name|logging_dir|report_to|disable_tqdm|resume_from_checkpoint"
    r"|local_rank"
)  # options that do not change what is trained
# Options that the library takes at any value, with the least and the largest that can be meant.
RANGES: dict[str, tuple[float, float]] = {
    "learning_rate": (0, math.inf), "weight_decay": (0, math.inf), "max_grad_norm": (0, math.inf),
    "adam_beta1": (0, 1), "adam_beta2": (0, 1), "adam_epsilon": (0, math.inf), "num_train_epochs": (0, math.inf),
    "warmup_ratio": (0, 1), "warmup_steps": (0, math.inf), "label_smoothing_factor": (0, 1),
    "max_steps": (-1, math.inf),
    "seed": (0, 2**32 - 1), "data_seed": (0, 2**32 - 1), "dataloader_num_workers": (0, math.inf),
    "eval_delay": (0, math.inf), "neftune_noise_alpha": (0, math.inf),
}  # fmt: skip
COUNTS = (  # those that are at least 1 where they are given
    "early_stopping_patience", "per_device_train_batch_size", "per_device_eval_batch_size",
    "gradient_accumulation_steps", "save_total_limit", "eval_accumulation_steps", "dataloader_prefetch_factor",
)  # fmt: skip
ABOVE_ZERO = ("logging_steps", "eval_steps", "save_steps")  # in steps, or a share of all of them


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
class LangAdapterOptions:
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
class SquadOptions:
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
    pad_to_max_length: bool = option(False, "Pad every window to --max_seq_length instead of the batch's longest.")
    version_2_with_negative: bool = option(False, "SQuAD v2: some questions have no answer.")
    null_score_diff_threshold: float = option(
        0.0, "v2: answer nothing if the no-answer score exceeds the best span's by more than this (logits)."
    )
    n_best_size: int = option(20, "Spans kept for each question in eval_nbest_predictions.json.")
    max_answer_length: int = option(30, "Longest answer, in tokens.")


@dataclass
class TextOptions:
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
class EntityOptions:
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
class RunOptions(LibraryOptions):
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
    dry_run: bool = option(False, "Check everything, print the plan, last line one JSON document, and stop.")

    def evaluates(self) -> str:
        """When there is evaluation while training: no, steps or epoch."""
        return str(self.eval_strategy or ("epoch" if self.do_train and self.do_eval else "no"))


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults are shown, except None, which every help text explains in words; examples keep their lines."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """One spelling, with underscores; the one with dashes works too."""
        if not action.option_strings:
            return super()._format_action_invocation(action)
        return f"{action.option_strings[0]} {self._format_args(action, 'VALUE')}".strip()


class DoorParser(HfArgumentParser):
    """`HfArgumentParser` that reads a file first, refuses what it does not know, and speaks in one line."""

    def __init__(self, dataclass_types: Sequence[type], description: str, examples: str):
        super().__init__(
            list(dataclass_types),  # type: ignore[arg-type]  # dataclasses, which its type cannot name
            description=description,
            epilog="examples:\n" + examples,
            usage="%(prog)s [OPTIONS.yaml] --model_name_or_path MODEL [--option value ...]",
            formatter_class=_Help,
            allow_abbrev=False,
        )
        self._negative_number_matcher = NEGATIVE_NUMBER  # argparse's own takes -1e-4 for an option
        for action in self._actions:
            if action.option_strings[0].startswith("--no_"):  # the parser's own twins of options that are on by default
                action.help = argparse.SUPPRESS
            if action.type is string_to_bool:  # one whose default is None has no short form otherwise
                action.nargs, action.const = "?", True

    def error(self, message: str) -> NoReturn:
        """One line and exit code 2 in place of argparse's pages of usage.

        Raises:
            UserError: always.
        """
        message = re.sub(r"/--[\w-]+", "", message)  # each option's second spelling, with dashes
        raise UserError(f"{message}; see {self.prog} --help")

    def known_names(self) -> list[str]:
        """Every option's name without dashes."""
        return [text[2:] for action in self._actions for text in action.option_strings if text.startswith("--")]

    def read(self, argv: list[str]) -> tuple[Any, ...]:
        """Parses a command line whose first word may be a YAML or JSON file of options.

        Returns:
            One instance for each dataclass, in order.

        Raises:
            UserError: unknown options with the nearest known name, or wrong types.
        """
        from_file: list[str] = []
        if argv and Path(argv[0]).suffix in (".yaml", ".yml", ".json"):
            from_file = self._file_to_argv(Path(argv[0]))
            argv = argv[1:]
        words, notes = modernise(from_file + argv)
        if notes and "train_adapter" in self.known_names() and not any(map(TRAIN_ADAPTER.match, words)):
            notes.append("without --train_adapter an adapter is trained; in 2021 that meant full fine-tuning")
        note(notes)
        *options, rest = self.parse_args_into_dataclasses(words, return_remaining_strings=True)
        problems = [self._unknown(word, "command line") for word in rest if word.startswith("-")]
        if rest and not problems:
            problems = [f"stray words on the command line: {' '.join(rest)}; options look like --name value"]
        for group in options:
            problems += _value_problems(group)
        if problems:
            raise UserError(problems)
        return tuple(options)

    def _unknown(self, name: str, where: str) -> str:
        bare = name.lstrip("-").split("=")[0]
        near = difflib.get_close_matches(bare, self.known_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
        return f"{where}: unknown option {bare}; {hint}"

    def _file_to_argv(self, path: Path) -> list[str]:
        """An options file as command-line words, so that both go through the same type checks.

        Raises:
            UserError: the file is missing, is no mapping, or names options that do not exist.
        """
        text = read_text(path)
        try:
            values = parse_json(text) if path.suffix == ".json" else yaml.safe_load(text)
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            raise UserError(f"{path}: cannot be read as options: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path}: holds {kind(values)}; options are a mapping such as 'seed: 42'")
        known = {text[2:]: action for action in self._actions for text in action.option_strings}
        problems = [self._unknown(str(name), str(path)) for name in values if str(name) not in {*known, *OLD_NAMES}]
        words: list[str] = []
        for name, value in values.items():
            action = known.get(str(name))
            problem = _file_problem(value, action) if action is not None else None
            if problem is not None:
                problems.append(f"{path}: {name} {problem}")
            elif isinstance(value, list):
                words += [f"--{name}", *map(str, value)]
            elif value is not None:
                words.append(f"--{name}={_as_word(value, action)}")
        if problems:
            raise UserError(problems)
        return words


def _file_problem(value: Any, action: argparse.Action) -> str | None:
    """Why a value in an options file cannot be meant for an option, if so."""
    if isinstance(value, list):
        if action.nargs not in ("+", "*"):
            return "is a list; the option takes one value"
        if not all(isinstance(one, (str, int, float)) and not str(one).startswith("--") for one in value):
            return "must be a list of words"
    if isinstance(value, bool) and action.type is str and not action.choices:
        return f"is {str(value).lower()} to YAML; put the word in quotes"
    return None


def _as_word(value: Any, action: argparse.Action | None) -> str:
    """A value of an options file as a word of the command line. YAML takes the word no for false."""
    if value is False and action is not None and action.choices and "no" in action.choices:
        return "no"
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _value_problems(options: Any) -> list[str]:
    """Values that no option can have, whatever it is for."""
    problems = []
    for name, value in vars(options).items():
        words = value if isinstance(value, list) else [value]
        if any(isinstance(one, float) and not math.isfinite(one) for one in words):
            problems.append(f"--{name} {value}: must be a finite number")
        if any(isinstance(one, str) and ("\0" in one or not is_text(one)) for one in words):
            problems.append(f"--{name} {value}: holds a NUL or is no UTF-8, which cannot be recorded")
    return problems


def parse_fuse_adapters(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """`NAME=PATH` words of --fuse_adapters.

    Returns:
        The paths by name in the order given, and the problems found (wrong form, name used twice, fewer than two).
    """
    paths: dict[str, str] = {}
    problems = []
    for word in words:
        name, separator, path = word.partition("=")
        if not separator or not path or not ADAPTER_NAME.fullmatch(name):
            problems.append(f"--fuse_adapters {word}: write NAME=PATH, the name of letters, digits, - and _")
        elif name in paths:
            problems.append(f"--fuse_adapters {word}: the name {name} is used twice; each adapter needs its own")
        else:
            paths[name] = path
    if not problems and len(paths) < 2:
        problems.append(f"--fuse_adapters: {len(paths)} adapter given; a fusion needs two or more NAME=PATH")
    return paths, problems


def check_files(options: Any) -> list[str]:
    """Problems with the data files of any door: each part of a run needs its file, and files must exist."""
    named = [("train_file", "do_train"), ("validation_file", "do_eval"), ("test_file", "do_predict")]
    return [
        f"--{name} {path}: no such file; give the path of a file"
        for name, _ in named
        if name in {f.name for f in fields(options)}
        and (path := vars(options)[name]) is not None
        and not Path(path).is_file()
    ]


def check_counts(options: Any, names: Sequence[str]) -> list[str]:
    """Problems with options that must be at least 1 where they are given."""
    values = vars(options)
    return [
        f"--{name} {values[name]}: must be at least 1"
        for name in names
        if values[name] is not None and values[name] < 1
    ]


def check_ranges(options: Any, ranges: dict[str, tuple[float, float]]) -> list[str]:
    """Problems with options below the least or above the largest value that they can have."""
    values = vars(options)
    return [
        f"--{name} {values[name]:g}: "
        + (f"must be at least {least:g}" if largest == math.inf else f"must lie between {least:g} and {largest:.10g}")
        for name, (least, largest) in ranges.items()
        if values[name] is not None and not least <= values[name] <= largest
    ]


def check_run(run: RunOptions, metrics: Sequence[str]) -> list[str]:
    """Problems within the training options that every door has.

    Args:
        run: the options; `greater_is_better` is set to what the chosen metric wants, `do_eval` where --eval_strategy
            asks for it.
        metrics: names that the door's evaluation computes.
    """
    run.do_eval = run.do_eval or run.evaluates() != "no"
    problems = check_counts(run, COUNTS) + check_ranges(run, RANGES)
    steps = {name: vars(run)[name] for name in ABOVE_ZERO if vars(run)[name] is not None}
    problems += [f"--{name} {count:g}: must be above 0" for name, count in steps.items() if count <= 0]
    if not (run.do_train or run.do_eval or run.do_predict or run.dry_run):
        problems.append("nothing to do: give --do_train, --do_eval, --do_predict or --dry_run")
    bare = str(run.metric_for_best_model).removeprefix("eval_")
    if bare not in metrics:
        problems.append(f"--metric_for_best_model {bare}: not computed here; choose from {', '.join(metrics)}")
    greater = not bare.endswith("loss")
    if run.greater_is_better not in (None, greater):
        problems.append(f"--greater_is_better {run.greater_is_better}: cannot be for {bare}; leave the option out")
    run.greater_is_better = greater
    if run.early_stopping_patience is not None and run.do_train and run.evaluates() == "no":
        problems.append("--early_stopping_patience needs evaluation while training; add --do_eval")
    if run.load_best_model_at_end and run.do_train and run.evaluates() != run.save_strategy:
        problems.append(
            f"--load_best_model_at_end: evaluation ({run.evaluates()}) and checkpoints ({run.save_strategy}) must come "
            "together; add --do_eval, or give --eval_strategy and --save_strategy the same value"
        )
    if run.save_only_model:
        problems.append("--save_only_model: a run that was stopped could not go on from its checkpoints; leave it out")
    if run.bf16 and run.fp16:
        problems.append("--bf16 and --fp16 exclude each other; give one")
    if run.deepspeed is not None:
        problems += _deepspeed_problems(str(run.deepspeed))
    if run.resume_from_checkpoint is not None:
        problems.append("--resume_from_checkpoint: the same command with the same --output_dir goes on by itself")
    if run.num_train_epochs == 0 and run.max_steps <= 0:
        problems.append("--num_train_epochs 0: must be above 0; training needs epochs or --max_steps")
    return problems


def _deepspeed_problems(path: str) -> list[str]:
    """What is wrong with --deepspeed: its file, or that the package is not there."""
    problems = []
    try:
        read_deepspeed(path, warmup=False)
    except UserError as error:
        problems += error.problems
    if importlib.util.find_spec("deepspeed") is None:
        problems.append("--deepspeed: the package is not installed; pip install deepspeed")
    return problems


def answering_options(squad: SquadOptions) -> dict[str, Any]:
    """What asking needs to know of windows and spans, for the saved folder."""
    names = ("max_seq_length", "doc_stride", "n_best_size", "max_answer_length")
    v2 = {"version_2": squad.version_2_with_negative, "null_score_diff_threshold": squad.null_score_diff_threshold}
    return {name: vars(squad)[name] for name in names} | v2


def quiet_libraries() -> None:
    """Silences two notices that mislead here: on setups being switched, and on heads that start fresh on purpose."""
    logging.getLogger("adapters.model_mixin").addFilter(lambda record: "none are activated" not in record.getMessage())
    # A filter and not a level: at level ERROR transformers 4.57 reports on tensor parallelism instead.
    logging.getLogger("transformers.modeling_utils").addFilter(
        lambda record: "newly initialized" not in record.getMessage()
    )


@dataclass
class LanguageRunOptions(RunOptions):
    """The same for masked language modelling, where the evaluation loss decides."""

    _argument_group_name = RunOptions._argument_group_name
    metric_for_best_model: str | None = option("loss", "What is best: loss.")

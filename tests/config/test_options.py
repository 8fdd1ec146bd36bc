"""Options (adapter_qa/config/options.py and what stands around it): file and command line, refusals of one line each,
defaults that follow, help, and what the trainer is given.

Oracle of the library's options: `transformers.TrainingArguments` itself.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from adapters import AdapterConfig
from transformers import HfArgumentParser, TrainingArguments

from adapter_qa.config.options import (
    ADAPTER_CONFIGS,
    AdapterOptions,
    FusionOptions,
    LanguageAdapterOptions,
    MLMDataOptions,
    MLMTrainingOptions,
    ModelOptions,
    NERDataOptions,
    QADataOptions,
    TrainingOptions,
)
from adapter_qa.config.parser import ConfigParser
from adapter_qa.config.training_options import NOT_ON_A_COMMAND_LINE, training_options
from adapter_qa.config.validation import check_counts, check_files, check_run, parse_fuse_adapters
from adapter_qa.core.cli import CollectingArgumentParser
from adapter_qa.core.errors import UserError
from adapter_qa.models.base_model import silence_library_notices
from adapter_qa.training.training_args import TrainerArguments, as_record, choose_precision, resolve_training_args

DOORS: dict[str, tuple[Any, ...]] = {
    "qa": (ModelOptions, QADataOptions, AdapterOptions, LanguageAdapterOptions, FusionOptions, TrainingOptions),
    "mlm": (ModelOptions, MLMDataOptions, AdapterOptions, MLMTrainingOptions),
    "ner": (ModelOptions, NERDataOptions, AdapterOptions, LanguageAdapterOptions, TrainingOptions),
}
NEEDED = ("--model_name_or_path", "bert", "--output_dir", "out")


def parser(door: str = "qa") -> ConfigParser:
    made = ConfigParser(DOORS[door], "Trains.", "  door.py --one\n  door.py --two\n")
    made.prog = "door.py"
    return made


def read(*words: str) -> dict[str, Any]:
    """All options of the question answering door by name."""
    everything: dict[str, Any] = {}
    for group in parser().read([*words]):
        everything.update(vars(resolve_training_args(group) if isinstance(group, TrainingOptions) else group))
    return everything


def refusal(*words: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        parser().read([*words])
    return caught.value.problems


def run_options(**values: Any) -> TrainingOptions:
    return TrainingOptions(output_dir="out", report_to=[], **values)


# ---------------------------------------------------------------- file and command line


@pytest.mark.parametrize("ending", ["yaml", "yml", "json"])
def test_file_sets_and_command_line_wins(tmp_path: Path, ending: str) -> None:
    asked = {
        "model_name_or_path": "bert",
        "output_dir": "out",
        "learning_rate": 3e-5,
        "doc_stride": 64,
        "madx2": True,
        "train_adapter": False,
        "adapter_config": "houlsby",
        "tokenizer_name": None,
        "fuse_adapters": ["qa=a", "ner=b"],
        "lr_scheduler_type": "cosine_with_restarts",
        "lr_scheduler_kwargs": {"num_cycles": 2},
    }
    path = tmp_path / f"options.{ending}"
    path.write_text(json.dumps(asked) if ending == "json" else yaml.safe_dump(asked), encoding="utf-8")

    alone = read(str(path))
    assert {name: alone[name] for name in asked} == asked

    line = ["--madx2", "False", "--doc_stride", "32", "--fuse_adapters", "x=1", "y=2", "z=3", "--seed", "7"]
    both = read(str(path), *line)
    won = {"madx2": False, "doc_stride": 32, "fuse_adapters": ["x=1", "y=2", "z=3"], "seed": 7}
    assert {name: both[name] for name in asked} | {"seed": both["seed"]} == asked | won


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("model_name_or_path: bert\noutput_dir: out\nlearning_rate: 1e-5\n", encoding="utf-8")
    assert yaml.safe_load(path.read_text())["learning_rate"] == "1e-5"  # YAML 1.1 wants a dot
    assert read(str(path))["learning_rate"] == 1e-5


@pytest.mark.parametrize("word", ["--learning_rate=0.5", "--learning-rate=0.5"])
def test_other_spellings_of_an_option(word: str) -> None:
    assert read(*NEEDED, word)["learning_rate"] == 0.5


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (("--do_train", "True"), "do_train", True),
        (("--do_train",), "do_train", True),
        (("--do_train", "0"), "do_train", False),
        ((), "do_train", False),
        (("--madx2", "False"), "madx2", False),
        (("--madx2", "yes"), "madx2", True),
        ((), "train_adapter", True),
        (("--train_adapter", "False"), "train_adapter", False),
        (("--fusion_regularization", "false"), "fusion_regularization", False),
        (("--do_train", "--do_eval"), "do_eval", True),
        (("--do_eval", "--load_best_model_at_end", "False"), "load_best_model_at_end", False),
    ],
)
def test_booleans_take_values(words: tuple[str, ...], name: str, value: bool) -> None:
    assert read(*NEEDED, *words)[name] is value


# ---------------------------------------------------------------- refusals


def test_all_values_that_cannot_be_are_said_at_once() -> None:
    words = (
        "--seed",
        "x",
        "--learning_rate=fast",
        "--fuse_adapters",
        "a=b",
        "--doc_strid",
        "3",
        "--adapter_composition",
        "sum",
    )
    wrong = [
        "argument --seed: invalid int value: 'x'; see door.py --help",
        "argument --learning_rate: invalid float value: 'fast'; see door.py --help",
        "argument --adapter_composition: invalid choice: 'sum' (choose from 'stack', 'fuse'); see door.py --help",
    ]
    unknown = "command line: unknown option doc_strid; did you mean doc_stride?"
    assert refusal(*NEEDED, *words) == [*wrong, unknown]
    missing = "the following arguments are required: --model_name_or_path; see door.py --help"
    assert refusal(*words) == [*wrong, missing]
    assert refusal(*NEEDED, "--seed", "1", "--doc_strid", "3") == [unknown], "an earlier line is not said again"
    plain = CollectingArgumentParser(prog="door.py")
    plain.add_argument("--count", type=int)
    plain.add_argument("--size", type=float)
    with pytest.raises(UserError) as caught:
        plain.parse_args(["--count", "x", "--size", "big", "more"])
    assert caught.value.problems == [
        "argument --count: invalid int value: 'x'; see door.py --help",
        "argument --size: invalid float value: 'big'; see door.py --help",
        "unrecognized arguments: more; see door.py --help",
    ]
    assert vars(plain.parse_args(["--count", "3"])) == {"count": 3, "size": None}


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        (("--learnin_rate", "3"), ["command line: unknown option learnin_rate; did you mean learning_rate?"]),
        (("--madx3=True",), ["command line: unknown option madx3; did you mean madx2?"]),
        (("--qqqqqq",), ["command line: unknown option qqqqqq; see door.py --help"]),
        (
            ("--doc_strid", "9", "--seed", "1", "--load_adaptr", "a"),
            [
                "command line: unknown option doc_strid; did you mean doc_stride?",
                "command line: unknown option load_adaptr; did you mean load_adapter?",
            ],
        ),
        (("--learning", "1"), ["command line: unknown option learning; did you mean learning_rate?"]),
        (("two", "words"), ["stray words on the command line: two words; options look like --name value"]),
        (("--doc_stride", "abc"), ["argument --doc_stride: invalid int value: 'abc'; see door.py --help"]),
        (("--seed", "1.5"), ["argument --seed: invalid int value: '1.5'; see door.py --help"]),
        (("--learning_rate",), ["argument --learning_rate: expected one argument; see door.py --help"]),
        (
            ("--adapter_composition", "sum"),
            ["argument --adapter_composition: invalid choice: 'sum' (choose from 'stack', 'fuse'); see door.py --help"],
        ),
    ],
)
def test_refused_on_the_command_line(words: tuple[str, ...], problems: list[str]) -> None:
    assert refusal(*NEEDED, *words) == problems


def test_a_truth_that_is_none_names_the_option() -> None:
    (problem,) = refusal(*NEEDED, "--do_train", "perhaps")
    assert problem.startswith("argument --do_train: ") and "got perhaps" in problem and "\n" not in problem


def test_what_the_library_refuses_is_one_line() -> None:
    with pytest.raises(UserError) as caught:
        resolve_training_args(run_options(max_steps=2, save_strategy="steps", save_steps=7.5))
    (problem,) = caught.value.problems
    assert problem.startswith("--save_steps must be an integer if bigger than 1") and "\n" not in problem


@pytest.mark.parametrize("name", ["eval_strategy", "save_strategy", "lr_scheduler_type", "optim"])
def test_a_word_that_is_no_choice_is_refused_with_the_choices(name: str) -> None:
    (problem,) = refusal(*NEEDED, f"--{name}", "sometimes")
    assert problem.startswith(f"argument --{name}: invalid choice: 'sometimes' (choose from ")


def test_a_missing_model_is_refused() -> None:
    assert refusal() == ["the following arguments are required: --model_name_or_path; see door.py --help"]


def test_every_unknown_key_of_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("model_name_or_path: bert\nlearnin_rate: 1\nmaddx2: true\nqqqqqq: 1\n", encoding="utf-8")
    assert refusal(str(path)) == [
        f"{path}: unknown option learnin_rate; did you mean learning_rate?",
        f"{path}: unknown option maddx2; did you mean madx2?",
        f"{path}: unknown option qqqqqq; see door.py --help",
    ]


def test_an_option_of_another_door_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("model_name_or_path: bert\nmlm_probability: 0.2\n", encoding="utf-8")
    (problem,) = refusal(str(path))
    assert problem.startswith(f"{path}: unknown option mlm_probability; ")


def test_a_wrong_type_in_a_file_is_refused_like_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("model_name_or_path: bert\noutput_dir: out\ndoc_stride: many\n", encoding="utf-8")
    assert refusal(str(path)) == ["argument --doc_stride: invalid int value: 'many'; see door.py --help"]


@pytest.mark.parametrize(
    ("name", "content", "start"),
    [
        ("a.yaml", b"- seed\n", "holds a list; options are a mapping such as 'seed: 42'"),
        ("a.yaml", b"", "the file is empty"),
        ("a.json", b"[1]", "holds a list; options are a mapping such as 'seed: 42'"),
        ("a.yaml", b"seed: [\n", "cannot be read as options: "),
        ("a.json", b"{seed: 1}", "cannot be read as options: not JSON at line 1, column 2: Expecting property name"),
        ("a.yaml", b"run: \xff\n", "not UTF-8 at byte 5: save the file as UTF-8"),
        ("a.yaml", None, "cannot be read: No such file or directory"),
    ],
)
def test_unreadable_option_files(tmp_path: Path, name: str, content: bytes | None, start: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    (problem,) = refusal(str(path))
    assert problem.startswith(f"{path}: {start}") and "\n" not in problem


# ---------------------------------------------------------------- defaults


@pytest.mark.parametrize(
    ("words", "evaluates", "best"),
    [
        ((), "no", False),
        (("--do_train",), "no", False),
        (("--do_eval",), "no", False),
        (("--do_train", "--do_eval"), "epoch", True),
        (("--do_train", "True", "--do_eval", "False"), "no", False),
        (("--do_train", "--do_eval", "--load_best_model_at_end", "False"), "epoch", False),
        (("--do_train", "--do_eval", "--eval_strategy", "no"), "no", False),
        (("--do_train", "--eval_strategy", "epoch"), "epoch", True),
        (("--do_train", "--do_eval", "--eval_strategy=steps", "--eval_steps=10"), "steps", False),
        (
            ("--do_train", "--do_eval", "--eval_strategy=steps", "--eval_steps=5")
            + ("--save_strategy=steps", "--save_steps=10"),
            "steps",
            True,
        ),
        (("--do_train", "--do_eval", "--save_strategy", "no"), "epoch", False),
    ],
)
def test_evaluation_and_best_epoch_follow_what_is_done(words: tuple[str, ...], evaluates: str, best: bool) -> None:
    asked = parser().read([*NEEDED, *words])[-1]
    run = resolve_training_args(asked)
    assert run.eval_strategy.value == asked.evaluates() == evaluates
    assert run.load_best_model_at_end is best
    check_run(asked, ("f1",))
    assert run.do_eval is asked.do_eval
    assert run.do_eval or evaluates == "no"


def test_a_folder_that_was_left_out_is_derived() -> None:
    assert resolve_training_args(parser().read(["--model_name_or_path", "bert"])[-1]).output_dir_is_derived is True
    assert resolve_training_args(parser().read([*NEEDED])[-1]).output_dir_is_derived is False


def test_the_library_options_read_from_its_source_are_those_of_its_class() -> None:
    live = {one.name: one for one in fields(TrainingArguments)}
    read_off = {one.name: one for one in fields(training_options())}
    assert list(read_off) == [name for name in live if name not in NOT_ON_A_COMMAND_LINE]
    computed = [name for name, one in read_off.items() if one.default is None and live[name].default is not None]
    assert [name for name in computed if live[name].default is not MISSING] == ["optim"]
    for name, one in read_off.items():
        assert one.default == live[name].default or name in computed, name
        assert one.metadata.get("choices", ()) in ((), live[name].metadata.get("choices")), name
        assert one.metadata["help"] in ("", live[name].metadata["help"]), name
    assert sum(not one.metadata["help"] for one in read_off.values()) < 10


def test_the_library_options_are_parsed_as_its_own_parser_does() -> None:
    ours, theirs = HfArgumentParser(training_options()), HfArgumentParser(TrainingArguments)  # type: ignore[arg-type]
    shapes = [
        {
            action.dest: (action.option_strings, action.nargs, sorted(action.choices or ()), action.const)
            for action in one._actions
            if action.dest not in ("log_level", "log_level_replica", *NOT_ON_A_COMMAND_LINE)
        }
        for one in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]


def test_settled_options_are_those_of_the_library_where_nothing_is_said() -> None:
    run, plain = resolve_training_args(run_options()), TrainingArguments(output_dir="out", report_to=[])
    ours = {"eval_strategy", "save_strategy", "logging_strategy", "logging_steps", "save_total_limit", "learning_rate"}
    ours |= {"metric_for_best_model", "greater_is_better", "load_best_model_at_end", "remove_unused_columns"}
    ours |= {"dataloader_pin_memory", "ddp_find_unused_parameters", "logging_dir"}
    different = {one.name for one in fields(plain) if one.init and vars(run)[one.name] != vars(plain)[one.name]}
    assert different <= ours


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize(
    ("capability", "bf16", "fp16", "word"),
    [((9, 0), True, False, "bfloat16"), ((8, 0), True, False, "bfloat16"), ((7, 5), False, True, "float16")]
    + [((7, 0), False, True, "float16"), ((6, 1), False, False, "float32")],
)
def test_the_device_decides_the_precision(
    capability: tuple[int, int], bf16: bool, fp16: bool, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    said = [f"precision: {word}, which A GPU does well; --bf16 or --fp16 decides otherwise"]
    assert choose_precision(run_options()) == (bf16, fp16, said)
    for asked in ({"bf16": False}, {"fp16": True}, {"bf16": True}, {"fp16": False}):
        decided = (asked.get("bf16", False), asked.get("fp16", False), [])
        assert choose_precision(run_options(**asked)) == decided
    assert choose_precision(run_options(use_cpu=True)) == (False, False, [])


def test_what_is_best_by_default() -> None:
    assert run_options().metric_for_best_model == "f1"
    assert MLMTrainingOptions(output_dir="out", report_to=[]).metric_for_best_model == "loss"


@pytest.mark.parametrize(("old", "new"), [(old, new) for old, new in ADAPTER_CONFIGS.items() if old != new])
def test_names_of_2021_mean_what_the_library_says(old: str, new: str) -> None:
    assert AdapterConfig.load(old).to_dict() == AdapterConfig.load(new).to_dict()


# ---------------------------------------------------------------- checks


def test_fused_adapters_keep_their_order() -> None:
    paths, problems = parse_fuse_adapters(["qa=b/c", "ner-2=a=b", "x_1=org/name"])
    assert (list(paths.items()), problems) == ([("qa", "b/c"), ("ner-2", "a=b"), ("x_1", "org/name")], [])


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        (["qa"], ["--fuse_adapters qa: write NAME=PATH, the name of letters, digits, - and _"]),
        (
            ["=path", "qa=", "a.b=c", "ção=d"],
            [
                f"--fuse_adapters {word}: write NAME=PATH, the name of letters, digits, - and _"
                for word in ("=path", "qa=", "a.b=c", "ção=d")
            ],
        ),
        (
            ["qa=a", "qa=b"],
            ["--fuse_adapters qa=b: the name qa is used twice; each adapter needs its own"],
        ),
        (["qa=a"], ["--fuse_adapters: 1 adapter given; a fusion needs two or more NAME=PATH"]),
        ([], ["--fuse_adapters: 0 adapter given; a fusion needs two or more NAME=PATH"]),
    ],
)
def test_fused_adapters_that_cannot_be(words: list[str], problems: list[str]) -> None:
    assert parse_fuse_adapters(words)[1] == problems


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        ({"do_train": True, "do_eval": True, "early_stopping_patience": 3}, []),
        ({"dry_run": True}, []),
        ({"do_predict": True, "early_stopping_patience": 3}, []),
        ({"do_train": True, "max_steps": 5, "num_train_epochs": 0}, []),
        ({}, ["nothing to do: give --do_train, --do_eval, --do_predict or --dry_run"]),
        (
            {"do_train": True, "metric_for_best_model": "eval_accuracy"},
            ["--metric_for_best_model accuracy: not computed here; choose from f1, exact, loss"],
        ),
        (
            {"do_train": True, "early_stopping_patience": 3},
            ["--early_stopping_patience needs evaluation while training; add --do_eval"],
        ),
        (
            {"do_train": True, "learning_rate": -1e-4},
            ["--learning_rate -0.0001: must be at least 0"],
        ),
        (
            {"do_train": True, "num_train_epochs": 0},
            ["--num_train_epochs 0: must be above 0; training needs epochs or --max_steps"],
        ),
        (
            {
                "per_device_train_batch_size": 0,
                "per_device_eval_batch_size": -1,
                "gradient_accumulation_steps": 0,
                "metric_for_best_model": "x",
            },
            [
                "--per_device_train_batch_size 0: must be at least 1",
                "--per_device_eval_batch_size -1: must be at least 1",
                "--gradient_accumulation_steps 0: must be at least 1",
                "nothing to do: give --do_train, --do_eval, --do_predict or --dry_run",
                "--metric_for_best_model x: not computed here; choose from f1, exact, loss",
            ],
        ),
        (
            {"do_train": True, "load_best_model_at_end": True},
            [
                "--load_best_model_at_end: evaluation (no) and checkpoints (epoch) must come together; add --do_eval, "
                "or give --eval_strategy and --save_strategy the same value"
            ],
        ),
        (
            {"do_train": True, "save_only_model": True},
            ["--save_only_model: a run that was stopped could not go on from its checkpoints; leave it out"],
        ),
        ({"do_train": True, "bf16": True, "fp16": True}, ["--bf16 and --fp16 exclude each other; give one"]),
        (
            {"do_train": True, "do_eval": True, "early_stopping_patience": 0},
            ["--early_stopping_patience 0: must be at least 1"],
        ),
    ],
)
def test_training_options_that_cannot_be(values: dict[str, Any], problems: list[str]) -> None:
    assert check_run(run_options(**values), ("f1", "exact", "loss")) == problems


@pytest.mark.parametrize(
    ("metric", "greater"), [("f1", True), ("eval_f1", True), ("exact", True), ("loss", False), ("eval_loss", False)]
)
def test_less_loss_is_better(metric: str, greater: bool) -> None:
    run = run_options(do_eval=True, metric_for_best_model=metric)
    assert check_run(run, ("f1", "exact", "loss")) == []
    assert run.greater_is_better is greater


def test_files_must_be_there(tmp_path: Path) -> None:
    there = tmp_path / "there.json"
    there.touch()
    missing = tmp_path / "missing.json"
    squad = QADataOptions(train_file=str(there), validation_file=str(missing), test_file=str(tmp_path))
    assert check_files(squad) == [
        f"--validation_file {missing}: no such file; give the path of a file",
        f"--test_file {tmp_path}: no such file; give the path of a file",
    ]
    assert check_files(QADataOptions()) == []
    assert check_files(MLMDataOptions(train_file=str(missing))) == [
        f"--train_file {missing}: no such file; give the path of a file"
    ]


def test_counts_start_at_one() -> None:
    names = ["max_train_samples", "max_eval_samples", "n_best_size", "max_answer_length"]
    squad = QADataOptions(max_train_samples=0, max_answer_length=-3, n_best_size=1)
    assert check_counts(squad, names) == [
        "--max_train_samples 0: must be at least 1",
        "--max_answer_length -3: must be at least 1",
    ]


# ---------------------------------------------------------------- record, help, silence


def test_the_record_holds_every_option_as_plain_values() -> None:
    groups = (ModelOptions("bert"), QADataOptions(), AdapterOptions(), FusionOptions(fuse_adapters=["a=b", "c=d"]))
    record = as_record(*groups, resolve_training_args(run_options(do_train=True, hub_token="hf_secret")))
    assert json.loads(json.dumps(record)) == record
    for group in groups:
        assert {name: record[name] for name in vars(group)} == vars(group)
    assert {one.name for one in fields(TrainerArguments) if one.init} <= set(record)
    assert (record["do_train"], record["eval_strategy"], record["learning_rate"]) == (True, "no", 1e-4)
    assert "hf_secret" not in json.dumps(record)


@pytest.mark.parametrize("door", DOORS)
def test_help(door: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser(door).read(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: door.py [OPTIONS.yaml] --model_name_or_path MODEL [--option value ...]\n\nTrains.")
    assert text.endswith("examples:\n  door.py --one\n  door.py --two\n")
    assert "--no_" not in text and "(default: None)" not in text
    for group in DOORS[door]:
        assert f"\n{group._argument_group_name}:\n" in text
        for one in fields(group):
            times = one.init and one.name != "no_cuda"  # deprecated by the library, hidden like the twins
            assert len(re.findall(rf"^  --{one.name}\b", text, flags=re.MULTILINE)) == times, one.name
    assert re.search(r"--learning_rate VALUE\s+Initial learning rate of AdamW\. \(default:\s+0\.0001\)", text)


@pytest.mark.parametrize(
    "group",
    [
        ModelOptions,
        AdapterOptions,
        LanguageAdapterOptions,
        FusionOptions,
        QADataOptions,
        MLMDataOptions,
        NERDataOptions,
    ],
)
def test_every_option_has_its_help(group: Any) -> None:
    assert [one.name for one in fields(group) if not one.metadata.get("help", "").endswith(".")] == []


@pytest.fixture
def loggers() -> Iterator[list[logging.Logger]]:
    """The two loggers that are quieted; their filters are put back."""
    found = [logging.getLogger(name) for name in ("adapters.model_mixin", "transformers.modeling_utils")]
    before = [list(one.filters) for one in found]
    yield found
    for one, filters in zip(found, before, strict=True):
        one.filters[:] = filters


def test_only_two_notices_are_silenced(loggers: list[logging.Logger]) -> None:
    silence_library_notices()
    adapters_logger, transformers_logger = loggers
    heard = [
        bool(logger.filter(logger.makeRecord(logger.name, logging.WARNING, "", 0, message, (), None)))
        for logger, message in [
            (adapters_logger, "There are adapters available but none are activated for the forward pass."),
            (adapters_logger, "something else"),
            (transformers_logger, "Some weights of X were not initialized and are newly initialized: ['qa']"),
            (transformers_logger, "something else"),
        ]
    ]
    assert heard == [False, True, False, True]

"""Options files and command lines (adapter_qa/config/parser.py): values, defaults, refusals and help."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import Field, FrozenInstanceError, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from support.scripts import ROOT

from adapter_qa.config import option_help
from adapter_qa.config.parser import HIDDEN, ConfigParser, parse_config
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.config.training_options import LibraryTrainingOptions
from adapter_qa.config.validation import validate_config
from adapter_qa.core.errors import UserError

CONFIGS: Mapping[str, Any] = {
    "run_qa_adapter.py": QARunConfig,
    "run_mlm_adapter.py": MLMRunConfig,
    "run_ner_adapter.py": NERRunConfig,
}
ABOUT = ("help", "help_all", "version")
NEEDED = ("--model_name_or_path", "bert", "--output_dir", "out")


def make_parser(script: str = "run_qa_adapter.py") -> ConfigParser[Any]:
    parser: ConfigParser[Any] = ConfigParser(CONFIGS[script], "Trains.", "  script.py --a\n  script.py --b\n")
    parser.prog = "script.py"
    return parser


def parse(*words: str) -> dict[str, Any]:
    """Return all options of run_qa_adapter.py by name."""
    config = make_parser().parse(words)
    values: dict[str, Any] = {}
    for group in config.groups():
        values |= vars(group)
    return values


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)


def problems_of(*words: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        make_parser().parse(words)
    return caught.value.problems


def all_problems(*words: str) -> list[str]:
    """Return every problem that the options alone show."""
    with pytest.raises(UserError) as caught:
        parse_config(QARunConfig, words, description="", examples="")
    return caught.value.problems


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("suffix", ["yaml", "yml", "json"])
def test_file_sets_options_and_command_line_overrides_them(tmp_path: Path, suffix: str) -> None:
    in_file = {
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
    }
    path = tmp_path / f"options.{suffix}"
    scheduler = {"lr_scheduler_kwargs": {"num_cycles": 2}}
    written = in_file | scheduler
    path.write_text(json.dumps(written) if suffix == "json" else yaml.safe_dump(written), encoding="utf-8")

    alone = parse(str(path))
    assert {name: alone[name] for name in in_file} == in_file
    assert json.loads(alone["lr_scheduler_kwargs"]) == scheduler["lr_scheduler_kwargs"]

    words = ["--madx2", "False", "--doc_stride", "32", "--fuse_adapters", "x=1", "y=2", "z=3", "--seed", "7"]
    both = parse(str(path), *words)
    overridden = {"madx2": False, "doc_stride": 32, "fuse_adapters": ["x=1", "y=2", "z=3"], "seed": 7}
    assert {name: both[name] for name in [*in_file, "seed"]} == in_file | overridden


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("model_name_or_path: bert\noutput_dir: out\nlearning_rate: 1e-5\n", encoding="utf-8")
    assert yaml.safe_load(path.read_text())["learning_rate"] == "1e-5"  # YAML 1.1 wants a dot
    assert parse(str(path))["learning_rate"] == 1e-5


@pytest.mark.parametrize("word", ["--learning_rate=0.5", "--learning-rate=0.5"])
def test_options_may_be_spelled_with_dashes(word: str) -> None:
    assert parse(*NEEDED, word)["learning_rate"] == 0.5


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
        (("--bf16",), "bf16", True),
        ((), "bf16", None),
        (("--do_eval", "--load_best_model_at_end", "False"), "load_best_model_at_end", False),
    ],
)
def test_booleans_take_values(words: tuple[str, ...], name: str, value: bool | None) -> None:
    assert parse(*NEEDED, *words)[name] is value


@pytest.mark.parametrize("script", CONFIGS)
def test_configurations_are_frozen(script: str) -> None:
    config = make_parser(script).parse(NEEDED)
    for name in config.group_names():
        options = getattr(config, name)
        with pytest.raises(FrozenInstanceError):
            setattr(config, name, options)
        with pytest.raises(FrozenInstanceError):
            setattr(options, fields(options)[0].name, None)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), set()),
        (("--seed", "1", "--learning-rate=2"), {"seed", "learning_rate"}),
        (("--no_fusion_regularization", "--no-train-adapter"), {"fusion_regularization", "train_adapter"}),
        (
            ("--evaluation_strategy", "no", "--per_gpu_train_batch_size=2"),
            {"eval_strategy", "per_device_train_batch_size"},
        ),
        (("--overwrite_cache", "--fuse_adapters", "seed=a", "doc_stride=b"), {"fuse_adapters"}),
        (("--seed", "42"), {"seed"}),
    ],
)
def test_the_given_options_are_known(words: tuple[str, ...], names: set[str]) -> None:
    assert make_parser().parse([*NEEDED, *words]).given == {"model_name_or_path", "output_dir"} | names


def test_options_of_a_file_are_given(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("model_name_or_path: b\nseed: null\nno_cuda: true\nmax_val_samples: 3\nmadx2: false\n", "utf-8")
    names = {"model_name_or_path", "use_cpu", "max_eval_samples", "madx2", "doc_stride"}
    assert make_parser().parse([str(path), "--doc_stride", "8"]).given == names


# ---------------------------------------------------------------- refusals


def test_all_wrong_values_are_reported_at_once() -> None:
    words = (
        *("--seed", "x", "--learning_rate=fast", "--fuse_adapters", "a=b", "--doc_strid", "3"),
        *("--adapter_composition", "sum"),
    )
    wrong = [
        "argument --seed: invalid int value: 'x'; see script.py --help",
        "argument --learning_rate: invalid float value: 'fast'; see script.py --help",
        "argument --adapter_composition: invalid choice: 'sum' (choose from 'stack', 'fuse'); see script.py --help",
    ]
    unknown = "command line: unknown option doc_strid; did you mean doc_stride?"
    assert problems_of(*NEEDED, *words) == [*wrong, unknown]
    missing = "the following arguments are required: --model_name_or_path; see script.py --help"
    assert problems_of(*words) == [*wrong, missing, unknown]


def test_values_beyond_their_limits_are_reported_with_unknown_options() -> None:
    words = ("--doc_strid", "3", "--learning_rate", "nan", "--adam_beta1", "2", "--cache_dir", "\0", "--dry_run")
    assert all_problems(*NEEDED, *words) == [
        "command line: unknown option doc_strid; did you mean doc_stride?",
        "--cache_dir \\u0000: has a NUL character or is not UTF-8, and cannot be recorded",
        "--learning_rate nan: must be a finite number",
        "--adam_beta1 2: must be between 0 and 1",
    ]


def test_no_option_problem_hides_another(tmp_path: Path) -> None:
    """Options of a file, missing values, a missing option, unknown ones, limits, and combinations."""
    path = tmp_path / "options.yaml"
    path.write_text("lr: 1\nseed: 1\nseed: 2\ndo_train: true\nfp16: [x]\n", encoding="utf-8")
    words = ("--doc_stride", "--n_best_size", "--warmup_ratio", "2", "--quux", "--early_stopping_patience", "3")
    found = [re.sub(r"; see \S+ --help", "", problem) for problem in all_problems(str(path), *words)]
    assert found == [
        f"{path}: seed is given 2 times; give it once",
        f"{path}: unknown option lr; it is called --learning_rate",
        f"{path}: fp16 is a list; the option takes one value",
        "argument --doc_stride: expected one argument",
        "argument --n_best_size: expected one argument",
        "the following arguments are required: --model_name_or_path",
        "command line: unknown option quux_all",
        "--warmup_ratio 2: must be between 0 and 1",
        "--early_stopping_patience needs evaluation while training; add --do_eval",
        "--do_train needs --train_file or --dataset_name",
    ]


def test_what_follows_from_a_problem_is_not_reported() -> None:
    """Nothing is done, and training has no file, only because of the names that are wrong."""
    assert all_problems(*NEEDED, "--do_trian") == ["command line: unknown option do_trian; did you mean do_train?"]
    words = ("--do_train", "--train_data", "a.json")
    assert all_problems(*NEEDED, *words) == ["command line: unknown option train_data; it is called --train_file"]


def test_problems_of_an_earlier_command_line_are_not_repeated() -> None:
    parser = make_parser()
    for words in (["--seed", "x"], ["--doc_strid", "3"]):
        with pytest.raises(UserError) as caught:
            parser.parse([*NEEDED, *words])
        assert len(caught.value.problems) == 1
    parser.parse(NEEDED)


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        (("--learnin_rate", "3"), ["command line: unknown option learnin_rate; did you mean learning_rate?"]),
        (("--madx3=True",), ["command line: unknown option madx3; did you mean madx2?"]),
        (("--qqqqqq",), ["command line: unknown option qqqqqq; see script.py --help_all"]),
        (("--qqqqqq", "-1"), ["command line: unknown option qqqqqq; see script.py --help_all"]),
        (
            ("--doc_strid", "9", "--seed", "1", "--load_adaptr", "a"),
            [
                "command line: unknown option doc_strid; did you mean doc_stride?",
                "command line: unknown option load_adaptr; did you mean load_adapter?",
            ],
        ),
        (("--learning", "1"), ["command line: unknown option learning; did you mean learning_rate?"]),
        (("-seed", "3"), ["command line: unknown option -seed; write it as --seed"]),
        (("---seed=3",), ["command line: unknown option ---seed; write it as --seed"]),
        (("two", "words"), ["stray words on the command line: two words; options look like --name value"]),
        (("--doc_stride", "abc"), ["argument --doc_stride: invalid int value: 'abc'; see script.py --help"]),
        (("--seed", "1.5"), ["argument --seed: invalid int value: '1.5'; see script.py --help"]),
        (("--learning_rate",), ["argument --learning_rate: expected one argument; see script.py --help"]),
        (
            ("--adapter_composition", "sum"),
            [
                "argument --adapter_composition: invalid choice: 'sum' (choose from 'stack', 'fuse'); see script.py "
                "--help"
            ],
        ),
    ],
)
def test_wrong_command_lines_are_refused(words: tuple[str, ...], problems: list[str]) -> None:
    assert problems_of(*NEEDED, *words) == problems


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--seed 1 --seed=2", "--seed is given 2 times (--seed 1; --seed=2)"),
        (
            "--learning-rate 1 --learning_rate 1",
            "--learning_rate is given 2 times (--learning-rate 1; --learning_rate 1)",
        ),
        (
            "--train_adapter --no_train_adapter",
            "--train_adapter is given 2 times (--train_adapter; --no_train_adapter)",
        ),
        (
            "--fuse_adapters a=b c=d --fuse_adapters e=f",
            "--fuse_adapters is given 2 times (--fuse_adapters a=b c=d; --",
        ),
        ("--evaluation_strategy no --eval_strategy no", "--eval_strategy is given 2 times (--eval_strategy no; --"),
        ("--bf16 --bf16 False --bf16", "--bf16 is given 3 times (--bf16; --bf16 False; --bf16)"),
    ],
)
def test_an_option_that_is_given_twice_is_refused(words: str, problem: str, tmp_path: Path) -> None:
    (found,) = problems_of(*NEEDED, *words.split())
    assert found.startswith(problem)
    path = tmp_path / "options.yaml"
    path.write_text("seed: 1\nfuse_adapters: [a=b, c=d]\nbf16: true\n", encoding="utf-8")
    assert problems_of(str(path), *NEEDED, *words.split()) == [found]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("o.yaml", "seed: 1\nbf16: true\nseed: 1\n", "o.yaml: seed is given 2 times; give it once"),
        ("o.json", '{"seed": 1, "bf16": true, "seed": 2}', "o.json: seed is given 2 times; give it once"),
        (
            "o.yaml",
            "lr_scheduler_kwargs: {min_lr: 1, min_lr: 2}\n",
            "o.yaml: lr_scheduler_kwargs: min_lr is given 2 times; give it once",
        ),
        (
            "o.yaml",
            "eval_steps: 1\neval-steps: 2\n",
            "--eval_steps is given 2 times (--eval_steps=1; --eval-steps=2); g",
        ),
    ],
)
def test_an_option_that_a_file_has_twice_is_refused(
    name: str, text: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(text, encoding="utf-8")
    (found,) = problems_of(name, *NEEDED)
    assert found.startswith(problem)


def test_the_command_line_overrides_every_option_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("seed: 1\nfuse_adapters: [a=b, c=d]\ntrain_adapter: true\n", encoding="utf-8")
    options = parse(str(path), *NEEDED, "--no_train_adapter", "--seed=2", "--fuse_adapters", "e=f", "g=h")
    assert (options["train_adapter"], options["seed"], options["fuse_adapters"]) == (False, 2, ["e=f", "g=h"])


def test_a_data_set_on_the_command_line_overrides_the_files_of_an_options_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ner.yaml"
    path.write_text("model_name_or_path: m\ntrain-file: a.conll\nvalidation_file: [b.conll]\nseed: 7\n")
    ner = make_parser("run_ner_adapter.py")
    config = ner.parse([str(path), "--dataset_name", "org/data", "--do_train"])
    assert (config.data.train_file, config.data.validation_file, config.training.seed) == (None, None, 7)
    assert config.given == {"model_name_or_path", "dataset_name", "seed", "do_train"}
    assert capsys.readouterr().err == f"note: --dataset_name: train-file, validation_file of {path} are not used\n"
    both = ner.parse([str(path), "--dataset_name", "org/data", "--train_file", "c.conll"])
    assert (both.data.train_file, both.data.validation_file) == (["c.conll"], None)
    path.write_text("model_name_or_path: m\ndataset_name: org/data\ntrain_file: a.conll\n")
    assert ner.parse([str(path)]).data.train_file == ["a.conll"]


def test_a_wrong_boolean_names_the_option() -> None:
    (problem,) = problems_of(*NEEDED, "--do_train", "perhaps")
    assert problem.startswith("argument --do_train: ")
    assert "got perhaps" in problem
    assert "\n" not in problem


@pytest.mark.parametrize("name", ["eval_strategy", "save_strategy", "lr_scheduler_type", "optim", "log_level"])
def test_a_wrong_choice_is_refused_with_the_choices(name: str) -> None:
    (problem,) = problems_of(*NEEDED, f"--{name}", "sometimes")
    assert problem.startswith(f"argument --{name}: invalid choice: 'sometimes' (choose from ")


def test_a_missing_model_is_refused() -> None:
    assert problems_of() == ["the following arguments are required: --model_name_or_path; see script.py --help"]


def test_every_unknown_key_of_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("model_name_or_path: bert\nlearnin_rate: 1\nmaddx2: true\nqqqqqq: 1\n", encoding="utf-8")
    assert problems_of(str(path)) == [
        f"{path}: unknown option learnin_rate; did you mean learning_rate?",
        f"{path}: unknown option maddx2; did you mean madx2?",
        f"{path}: unknown option qqqqqq; see script.py --help_all",
    ]


def test_an_option_of_another_script_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("model_name_or_path: bert\nmlm_probability: 0.2\n", encoding="utf-8")
    (problem,) = problems_of(str(path))
    assert problem.startswith(f"{path}: unknown option mlm_probability; ")


def test_a_wrong_type_in_a_file_is_refused_as_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("model_name_or_path: bert\noutput_dir: out\ndoc_stride: many\n", encoding="utf-8")
    assert problems_of(str(path)) == ["argument --doc_stride: invalid int value: 'many'; see script.py --help"]


@pytest.mark.parametrize(
    ("name", "content", "start"),
    [
        ("a.yaml", b"- seed\n", "holds a list; options are a mapping such as 'seed: 42'"),
        ("a.yaml", b"", "the file is empty"),
        ("a.json", b"[1]", "holds a list; options are a mapping such as 'seed: 42'"),
        ("a.yaml", b"seed: [\n", "cannot be read as options: "),
        ("a.json", b"{seed: 1}", "cannot be read as options: not JSON at line 1, column 2: Expecting property name"),
        ("a.yaml", b"run: \xff\n", "not UTF-8 at byte 5: it seems to be Latin-1; save the file as UTF-8"),
        ("a.yaml", None, "cannot be read: No such file or directory"),
    ],
)
def test_unreadable_option_files_are_refused(tmp_path: Path, name: str, content: bytes | None, start: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    (problem,) = problems_of(str(path))
    assert problem.startswith(f"{path}: {start}")
    assert "\n" not in problem


def test_parse_config_reports_the_problems_of_validation() -> None:
    argv = ["--model_name_or_path", "x", "--do_train", "--seed", "-1"]
    with pytest.raises(UserError) as caught:
        parse_config(QARunConfig, argv, description="", examples="")
    assert caught.value.problems == validate_config(make_parser().parse(argv))
    assert len(caught.value.problems) == 2


# ---------------------------------------------------------------- help


def help_text(script: str, option: str, capsys: pytest.CaptureFixture[str], columns: int = 80) -> str:
    parser = make_parser(script)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as stopped:
            parser.parse([option])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def options_of(script: str) -> dict[str, Field[Any]]:
    groups = [group for group in get_type_hints(CONFIGS[script]).values() if hasattr(group, "_argument_group_name")]
    return {field.name: field for group in groups for field in fields(group)}


def named_in(text: str) -> list[str]:
    return [name for name in re.findall(r"^  --(\w+)\b", text, flags=re.MULTILINE) if name not in ABOUT]


@pytest.mark.parametrize("script", CONFIGS)
def test_help_shows_the_options_of_this_project_and_the_most_used_of_the_library(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_text(script, "--help", capsys)
    shown, options = named_in(text), options_of(script)
    assert shown[0] == "model_name_or_path"
    assert len(shown) == len(set(shown))
    library = {field.name for field in fields(LibraryTrainingOptions)}
    rare = {"lang_adapter_config", "lang_adapter_non_linearity", "lang_adapter_reduction_factor"}
    assert set(options) - library - rare <= set(shown)
    used = {
        "learning_rate",
        "num_train_epochs",
        "per_device_train_batch_size",
        "seed",
        "bf16",
        "output_dir",
        "deepspeed",
    }
    assert used <= set(shown)
    texts = [" ".join(line.split()) for line in text.splitlines()]
    assert "--max_steps STEPS Steps in place of epochs. (default: -1)" in texts
    assert "--save_total_limit N Checkpoints kept beside the best one while the" in texts
    assert "--do_train [BOOL] Train on --train_file." in texts  # off by default, which goes without saying
    assert "VALUE" not in text


def test_help_of_a_language_adapter_offers_nothing_that_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(help_text("run_mlm_adapter.py", "--help_all", capsys, columns=200).split())
    assert not re.search("do_predict|test_file|lora|fusion if", text)


@pytest.mark.parametrize("script", CONFIGS)
def test_help_all_shows_every_option_that_is_accepted(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, everything = (help_text(script, option, capsys) for option in ("--help", "--help_all"))
    own = {"label_names"} if script == "run_ner_adapter.py" else set()
    refused_here = {"do_predict"} if script == "run_mlm_adapter.py" else set()
    assert set(named_in(everything)) == set(options_of(script)) - (HIDDEN - own) - refused_here
    (count,) = re.findall(r"--help_all +show (\d+) more options", first)
    assert int(count) == len(named_in(everything)) - len(named_in(first))
    assert named_in(everything)[: len(named_in(first))] == named_in(first)
    deprecated, refused = {"no_cuda", "adafactor", "fp16_backend"}, {"fsdp", "hub_strategy", "use_liger_kernel"}
    assert (deprecated | refused) & set(named_in(everything)) == set()


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("script", CONFIGS)
def test_help_fits_the_terminal(script: str, columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--help", "--help_all"):
        text = help_text(script, option, capsys, columns)
        assert text.startswith("usage: script.py [OPTIONS.yaml] --model_name_or_path MODEL [options]\n\nTrains.")
        assert text.endswith("examples:\n  script.py --a\n  script.py --b\n")
        assert "--no_" not in text
        assert "(default: None)" not in text
        assert max(map(len, text.splitlines())) <= columns
    assert len(help_text(script, "--help", capsys).splitlines()) <= 220


def test_sections_and_texts_of_help_name_existing_options() -> None:
    existing = set().union(*map(options_of, CONFIGS))
    names = [name for names in option_help.SECTIONS.values() for name in names.split()]
    assert sorted(names) == sorted(set(names))
    assert set(names) | set(option_help.METAVARS) <= existing
    library = {field.name: field.metadata["help"] for field in fields(LibraryTrainingOptions)}
    qa = options_of("run_qa_adapter.py")
    for name in option_help.HELP:  # a text that the option has already would not be used
        assert qa[name].metadata["help"] == library[name], name


@pytest.mark.parametrize("script", CONFIGS)
def test_help_of_every_option_is_formatted(script: str) -> None:
    """A percent sign in a help text is argparse's format character, unless it is doubled."""
    parser = make_parser(script)
    formatter = parser._get_formatter()
    percent = []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        text = formatter._expand_help(action)
        assert "option_strings" not in text, action.dest
        assert "%%" not in text, action.dest
        if "%" in text:
            percent.append(action.dest)
    assert percent == ["torch_empty_cache_steps"]


def test_values_are_named_by_their_kind() -> None:
    actions = {action.dest: action for action in make_parser("run_mlm_adapter.py")._actions}
    kinds = {
        "block_size": "TOKENS", "validation_split_percentage": "PERCENT", "mlm_probability": "0..1", "seed": "N",
        "warmup_ratio": "0..1", "weight_decay": "X", "train_file": "FILE", "do_eval": "BOOL", "output_dir": "PATH",
        "lr_scheduler_kwargs": "JSON", "optim_args": "TEXT", "ddp_timeout": "SECONDS",
    }  # fmt: skip
    assert {name: actions[name].metavar for name in kinds} == kinds
    assert str(actions["data_seed"].help).endswith(". Allowed: between 0 and 4294967295.")


@pytest.mark.parametrize("script", CONFIGS)
def test_help_and_refusals_import_neither_torch_nor_transformers(script: str) -> None:
    """In a process of its own, since the tests import both."""
    for words, code in ((["--help_all"], 0), (["--seed", "x", "--lr", "3", "--zzz", "--push_to_hub", "--do_train"], 2)):
        program = (
            f"import runpy, sys; sys.argv = {[script, *words]!r}\n"
            "try:\n"
            f"    runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
            "except SystemExit as stopped:\n"
            "    heavy = [name for name in ('torch', 'transformers', 'adapters', 'datasets') if name in sys.modules]\n"
            "    assert not heavy, heavy\n"
            "    sys.exit(stopped.code)\n"
        )
        done = run_python(program)
        assert done.returncode == code, done.stderr


@pytest.mark.parametrize("script", CONFIGS)
def test_a_missing_package_is_one_line(script: str) -> None:
    program = (
        "import importlib.util, runpy, sys\n"
        "find_spec = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'transformers' else find_spec(name, *more)\n"
        f"sys.argv = ['{script}', '--help']\n"
        f"runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
    )
    done = run_python(program)
    assert done.returncode == 2
    assert done.stderr == "error: transformers is not installed: pip install -r requirements.txt\n"

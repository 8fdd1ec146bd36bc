"""The file of a sweep: what it means, and every problem in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.scripts import ROOT
from support.sweeps import WriteSweep, run_worker

from adapter_qa.core.errors import UserError
from adapter_qa.sweeps.search_space import Method, read_sweep
from adapter_qa.sweeps.study import first_trials


def test_example_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for part in ("train", "dev"):
        (tmp_path / "data" / f"pt_squad-{part}-v1.1.json").write_text("{}", encoding="utf-8")
    sweep = read_sweep(ROOT / "sweeps" / "qa.yaml")
    assert (sweep.trials, sweep.metric, sweep.seed, sweep.sampler) == (40, "f1", 42, Method("tpe", {}))
    assert sweep.pruner == Method("median", {"n_startup_trials": 5, "n_warmup_steps": 2})
    assert {name: entry.describe() for name, entry in sweep.search.items()} == {
        "learning_rate": "1e-05 to 0.001, log",
        "adapter_reduction_factor": "2, 4, 16",
        "weight_decay": "0 to 0.1, step 0.02",
        "warmup_steps": "0 to 1000, step 100",
        "setup": "plain, on_language_adapter, houlsby",
    }
    for params in first_trials(sweep, 20):
        assert 1e-5 <= params["learning_rate"] <= 1e-3
        assert params["adapter_reduction_factor"] in (2, 4, 16)
        assert params["warmup_steps"] in range(0, 1001, 100)
        assert isinstance(params["warmup_steps"], int)
        assert min(abs(params["weight_decay"] - step * 0.02) for step in range(6)) < 1e-12
    words = sweep.trainer_args({"learning_rate": 3e-4, "setup": "houlsby"})
    assert words[-2:] == ["--learning_rate=0.0003", "--adapter_config=houlsby"]


def test_grid_has_each_combination_once(write_sweep: WriteSweep) -> None:
    search = {
        "seed": {"low": 1, "high": 3},
        "weight_decay": {"low": 0.0, "high": 0.3, "step": 0.1},
        "kind": {"choices": {"small": {"adapter_reduction_factor": 32}, "large": {"adapter_reduction_factor": 2}}},
    }
    sweep = read_sweep(write_sweep(trials=..., search=search))
    assert sweep.trials == 24
    combinations = [
        (trial["seed"], round(trial["weight_decay"], 6), trial["kind"]) for trial in first_trials(sweep, 100)
    ]
    assert combinations == [(s, w, k) for s in (1, 2, 3) for w in (0, 0.1, 0.2, 0.3) for k in ("small", "large")]
    assert [read_sweep(write_sweep(trials=trials, search=search)).trials for trials in (5, 100)] == [5, 24]
    most = {"seed": {"low": 1, "high": 1000}, "warmup_steps": {"low": 1, "high": 100}}
    assert read_sweep(write_sweep(trials=..., search=most)).trials == 100_000


def test_steps_that_miss_the_upper_end(
    write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    search = {
        "adapter_reduction_factor": {"low": 2, "high": 16, "step": 4},
        "weight_decay": {"low": 0.1, "high": 0.35, "step": 0.1},
    }
    sweep = read_sweep(write_sweep(trials=..., search=search))
    combinations = {(t["adapter_reduction_factor"], round(t["weight_decay"], 6)) for t in first_trials(sweep, 100)}
    assert combinations == {(factor, decay) for factor in (2, 6, 10, 14) for decay in (0.1, 0.2, 0.3)}
    printed = capsys.readouterr()
    assert "adapter_reduction_factor: steps of 4 from 2 end at 14, so 16 is never tried" in printed.out + printed.err
    assert "weight_decay: steps of 0.1 from 0.1 end at 0.3, so 0.35 is never tried" in printed.out + printed.err
    assert not [warning for warning in recwarn if "distribution" in str(warning.message)]


def test_kinds_with_brackets_and_commas_are_choices(write_sweep: WriteSweep) -> None:
    kinds = ["pfeiffer", "ia3", "lora[r=8,alpha=16]", "lora[r=4,alpha=8,attn_matrices=q-k-v]"]
    file = write_sweep(trials=..., search={"adapter_config": kinds})
    text = file.read_text(encoding="utf-8")
    assert "- lora[r=8,alpha=16]\n" in text  # without quotation marks
    sweep = read_sweep(file)
    trials = [sweep.trainer_args(params)[-1] for params in first_trials(sweep, 10)]
    assert sorted(trials) == sorted(f"--adapter_config={kind}" for kind in kinds)
    with pytest.raises(UserError, match=r"--adapter_config lora\[r=0\]: r is 0; give a whole number of at least 1"):
        read_sweep(write_sweep(trials=..., search={"adapter_config": ["lora[r=0]", "ia3"]}))


# Options of a cross-validation, which takes neither of the two that `write_sweep` gives to every sweep.
FOLDS = {"folds": 3, "validation_file": None, "do_eval": None}
WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"trials": 0}, ["trials 0: Expected int >= 1"]),
    ({"trials": ..., "sampler": "tpe"}, ["trials is missing; give the number of trials"]),
    (
        {"trails": 3},
        ["unknown entry trails; choose from trials, metric, seed, sampler, pruner, launcher, options, search"],
    ),
    (
        {"seed": -1, "metric": "bleu", "sampler": "gp", "pruner": "sha", "launcher": ["torchrun"]},
        [
            "metric bleu: trials are not compared by it; choose from f1, exact, loss",
            "seed -1: Expected int >= 0",
            "sampler gp: choose from tpe, random, grid",
            "pruner sha: choose from median, hyperband, none",
            "launcher is a list; write e.g. torchrun --nproc_per_node 4",
        ],
    ),
    (
        {"pruner": {"kind": "median", "n_min_trials": 0, "patience": 2}, "sampler": {"kind": "grid", "x": 1}},
        [
            "sampler grid: unknown entry x; there are no settings",
            "pruner median: unknown entry patience; choose from n_startup_trials, n_warmup_steps, interval_steps, "
            "n_min_trials",
            "pruner median: n_min_trials 0: Expected int >= 1",
        ],
    ),
    ({"launcher": "a 'b"}, ["launcher a 'b: No closing quotation; write it as on a command line"]),
    (
        {"options": {"learning_rat": 1, "output-dir": "x", "hub_token": "y"}},
        [
            "options: output-dir is set by the sweep for each trial; leave it out",
            "options: hub_token would be recorded; give it in the environment (HF_TOKEN)",
            "options: unknown option learning_rat; did you mean learning_rate?",
        ],
    ),
    ({"options": {"do_eval": False}}, ["options: do_eval is not true; trials are compared by the evaluation's f1"]),
    (
        {"options": FOLDS | {"fold": 1, "fold_choosing_share": 0}},
        ["fold: a trial is a whole cross-validation, not one of its folds; leave it out"],
    ),
    (
        {"options": FOLDS, "search": {"fold": [1, 2]}},
        ["fold: a trial is a whole cross-validation, not one of its folds; leave it out"],
    ),
    (
        {"launcher": "no-such-torchrun --nproc_per_node 2", "options": {"warmup_ratio": 7}},
        [
            "launcher no-such-torchrun: no such program; give its name as in a shell, or its path",
            "--warmup_ratio 7: must be between 0 and 1",
        ],
    ),
    ({"options": {"warmup_ratio": 7}}, ["--warmup_ratio 7: must be between 0 and 1"]),
    ({"options": {"seed": 7}}, ["seed is given in options and search: seed; give it once"]),
    ({"search": {}}, ["search is empty; give a mapping such as 'learning_rate: {low: 1e-5, high: 1e-3}'"]),
    (
        {
            "search": {
                "learning_rat": {"low": 1, "high": 2},
                "seed": {"low": 1.5, "high": 2},
                "learning_rate": {"low": "1e-3", "high": "1e-5"},
                "weight_decay": {"low": 0, "high": 1, "log": True},
                "adam_beta1": {"low": 0.5, "high": 0.9, "steps": 0.1},
                "adam_beta2": {"low": 0.5, "high": 0.9, "step": 1},
                "bf16": {"low": 0, "high": 1},
                "warmup_steps": {"low": 0, "choices": [1]},
                "lr_scheduler_type": {"choices": []},
                "doc_stride": {"choices": [8, "8"]},
                "max_seq_length": {"choices": [[1]]},
                "language": 5,
                "max_steps": {"low": 1},
                "adam_epsilon": {"low": ".nan", "high": "inf"},
                "logging_steps": {"low": 0, "high": 1, "step": None, "log": 1},
            }
        },
        [
            "search: unknown option learning_rat; did you mean learning_rate?",
            "search: seed: low 1.5: Expected int, got float",
            "search: learning_rate: low 0.001 must be below high 1e-05",
            "search: weight_decay: log: true needs low above 0 and no step",
            "search: adam_beta1: unknown entry steps; choose from low, high, step, log",
            "search: adam_beta2: step 1 must be above 0 and at most high - low",
            "search: bf16: the option is not a number; give choices: [...]",
            "search: warmup_steps: give choices: [...], or low and high",
            "search: lr_scheduler_type: choices []: Expected array of length >= 1",
            "search: doc_stride: a choice appears twice; give each once",
            "search: max_seq_length: choices [[1]]: Expected bool | int | float | str | null, got array - at $[0]",
            "search: language: give choices: [...], or low and high",
            "search: max_steps: high is missing",
            "search: adam_epsilon: low .nan: Expected float, got str",
            "search: adam_epsilon: high inf: Expected float, got str",
            "search: logging_steps: step None: Expected float, got null",
            "search: logging_steps: log 1: Expected bool, got int",
        ],
    ),
    (
        {"search": {"learning_rate": [0.1, -1], "num_train_epochs": {"low": 0, "high": 3, "step": 1}}},
        [
            "--num_train_epochs 0: must be above 0; training needs epochs or --max_steps",
            "--learning_rate -1: must be at least 0",
        ],
    ),
    (
        {"search": {"seed": {"choices": {"a": {}}}, "setup": {"choices": {"b": 1, "c": {"sed": 1, "dry_run": True}}}}},
        [
            "search: seed: is an option; a choice between sets of options needs another name",
            "search: setup: b is a number; give a mapping of options",
            "search: setup: c: dry_run is set by the sweep for each trial; leave it out",
            "search: setup: c: unknown option sed; did you mean seed?",
        ],
    ),
    (
        {"search": {"setup": {"choices": {"b": {"seed": 1}}}, "seed": [2]}},
        ["seed is given in search: setup and search: seed; give it once"],
    ),
    (
        {"search": {"learning_rate": {"low": 0.1, "high": 1}}},
        ["sampler grid needs choices or a step for learning_rate"],
    ),
    (
        {"search": {"seed": {"low": 1, "high": 1000}, "warmup_steps": {"low": 1, "high": 101}}},
        ["sampler grid: more than 100,000 combinations; give fewer values"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("entries", "problems"), WRONG)
def test_all_problems_are_reported_before_any_trial(
    write_sweep: WriteSweep, entries: dict[str, Any], problems: list[str]
) -> None:
    file = write_sweep(**entries)
    with pytest.raises(UserError) as caught:
        run_worker(file)
    assert caught.value.problems == [f"{file}: {problem}" for problem in problems]
    assert not (file.parent / "sweep").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- a", "holds a list; a sweep is a mapping with the entries trials, metric, seed, sampler, pruner, launcher, "
        "options, search"),
        ("a: [", "cannot be read as a sweep: while parsing a flow node expected the node content, but found "
        "'<stream end>' in \"<unicode string>\", line 1, column 5: a: [ ^"),
        ("", "the file is empty"),
    ],
)  # fmt: skip
def test_file_that_is_not_a_sweep(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        run_worker(file)
    assert caught.value.problems == [f"{file}: {problem}"]


def test_what_is_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "trials: 3\ntrials: 5\n"
        "options: {seed: 1, seed: 2, num-train-epochs: 1, num_train_epochs: 2}\n"
        "search:\n  learning-rate: [1e-4]\n  learning_rate: [1e-3]\n  weight_decay: {low: 0, high: 1, high: 2}\n"
        "  setup: {choices: {a: {}, a: {language: pt}}}\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError) as caught:
        read_sweep(file)
    assert caught.value.problems == [
        f"{file}: {name} is given 2 times; give it once"
        for name in (
            "options: num_train_epochs",
            "search: learning_rate",
            "trials",
            "options: seed",
            "search: weight_decay: high",
            "search: setup: choices: a",
        )
    ]


def test_aliases_give_nothing_twice(write_sweep: WriteSweep) -> None:
    file = write_sweep()
    text = file.read_text(encoding="utf-8")
    file.write_text(
        text + "  weight_decay: &ends {low: 0, high: 1, step: 1}\n  warmup_ratio: *ends\n", encoding="utf-8"
    )
    assert list(read_sweep(file).search) == ["seed", "weight_decay", "warmup_ratio"]
    file.write_text(text + "metric: &own [*own]\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_sweep(file)
    assert caught.value.problems[0].startswith(f"{file}: metric [[...]]: trials are not compared by it")


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read as a sweep: maximum recursion depth exceeded"):
        read_sweep(file)

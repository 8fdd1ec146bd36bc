"""Command lines of 2021 (adapter_qa/config/legacy_options.py) and DeepSpeed files of 2021 (adapter_qa/config/deepspeed.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reference.legacy_saves import LegacyModel
from support.scripts import run_script

import run_qa_adapter
from adapter_qa.config.deepspeed import read_deepspeed
from adapter_qa.config.legacy_options import RENAMED, UNUSED, translate_legacy_args
from adapter_qa.config.options import QADataOptions, TrainingOptions
from adapter_qa.config.parser import ConfigParser
from adapter_qa.core.errors import UserError
from adapter_qa.training.training_args import resolve_training_args


@pytest.mark.parametrize(
    ("words", "today", "notes"),
    [
        (["--evaluation_strategy", "epoch"], ["--eval_strategy", "epoch"], 1),
        (["--evaluation-strategy=epoch"], ["--eval_strategy=epoch"], 1),
        (["--no_cuda"], ["--use_cpu"], 1),
        (["--no_cuda", "False", "--seed", "1"], ["--use_cpu", "False", "--seed", "1"], 1),
        (["--local_rank", "-1", "--do_train"], ["--do_train"], 1),
        (["--local-rank=0", "--do_train", "True"], ["--do_train", "True"], 1),
        (["--fp16_backend", "amp", "--fp16_opt_level", "O1"], [], 2),
        (
            ["--max_val_samples", "5", "--max_val_samples", "6"],
            ["--max_eval_samples", "5", "--max_eval_samples", "6"],
            1,
        ),
        (["--learning_rate", "1e-4", "--fuse_adapters", "a=b", "c=d"], None, 0),
    ],
)
def test_old_words_and_todays(words: list[str], today: list[str] | None, notes: int) -> None:
    found, said = translate_legacy_args(words)
    assert found == (words if today is None else today)
    assert len(said) == notes and all("\n" not in line for line in said)


@pytest.mark.parametrize("name", [*RENAMED, *UNUSED])
def test_every_old_spelling_is_said_and_accepted(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line and in an options file."""
    value = {"evaluation_strategy": "epoch", "no_cuda": "True", "sharded_ddp": "simple"}.get(name, "3")
    file = tmp_path / "options.json"
    file.write_text(json.dumps({name: value}))
    parser = ConfigParser((QADataOptions, TrainingOptions), "", "")
    for words in ([f"--{name}", value], [str(file)]):
        squad, run = parser.read([*words, "--do_eval", "--output_dir", str(tmp_path)])
        said = capsys.readouterr().err
        assert said.startswith(f"note: --{name} is ") and said.count("\n") == 1
        if name in RENAMED:
            new = RENAMED[name][0]
            found = vars(run).get(new, vars(squad).get(new))
            assert str(getattr(found, "value", found)) == value


def test_without_train_adapter_the_change_of_default_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["--model_name_or_path", "x", "--do_predict", "--test_file", __file__, "--output_dir", str(tmp_path)]
    for more, lines in ([], 0), (["--max_test_samples", "3"], 2), (["--max_test_samples", "3", "--train_adapter"], 1):
        run_qa_adapter.read_options([*line, *more])
        said = capsys.readouterr().err.splitlines()
        assert len(said) == lines
        assert ("note: without --train_adapter an adapter is trained; in 2021 that meant full fine-tuning" in said) == (
            lines == 2
        )


def test_half_precision_without_an_accelerator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = resolve_training_args(TrainingOptions(output_dir=str(tmp_path), fp16=True, use_cpu=True))
    assert not run.fp16
    assert capsys.readouterr().err == "note: --fp16 needs an accelerator; on the CPU the run is in float32\n"


@pytest.mark.parametrize(("metric", "greater"), [("f1", False), ("loss", True)])
def test_a_metric_that_is_better_the_other_way_round(metric: str, greater: bool, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run_qa_adapter.read_options(
            [
                "--model_name_or_path", "x", "--do_predict", "--test_file", __file__, "--output_dir", str(tmp_path),
                "--metric_for_best_model", metric, "--greater_is_better", str(greater),
            ]
        )  # fmt: skip
    assert caught.value.problems == [f"--greater_is_better {greater}: cannot be for {metric}; leave the option out"]


def test_the_command_line_of_the_2021_notebook(tiny_bert: Path, tmp_path: Path, squad_files: tuple[Path, Path]) -> None:
    """As the notebook had it, with its values; only paths, sizes and the number of epochs are those of a test."""
    language = LegacyModel(tiny_bert).save_adapter(tmp_path / "adapters-mlm", "mlm")
    options: dict[str, Any] = {
        "model_name_or_path": tiny_bert, "train_file": squad_files[0], "validation_file": squad_files[1],
        "do_train": True, "do_eval": True, "output_dir": "run/output_dir", "overwrite_output_dir": True,
        "max_seq_length": 64, "pad_to_max_length": True, "null_score_diff_threshold": 0.0, "doc_stride": 16,
        "n_best_size": 20, "max_answer_length": 30, "evaluation_strategy": "epoch",
        "per_device_train_batch_size": 16, "per_device_eval_batch_size": 16, "gradient_accumulation_steps": 1,
        "learning_rate": 0.0001, "weight_decay": 0.01, "adam_beta1": 0.9, "adam_beta2": 0.999,
        "adam_epsilon": 1e-08, "num_train_epochs": 2.0, "warmup_ratio": 0.0, "warmup_steps": 0,
        "logging_dir": "run/logging_dir", "logging_strategy": "steps", "logging_first_step": True,
        "logging_steps": 500, "eval_steps": 500, "save_strategy": "epoch", "save_steps": 500, "save_total_limit": 1,
        "no_cuda": False, "seed": 42, "fp16": True, "fp16_opt_level": "O1", "fp16_backend": "auto",
        "fp16_full_eval": False, "disable_tqdm": False, "remove_unused_columns": True,
        "load_best_model_at_end": True, "metric_for_best_model": "f1", "greater_is_better": True,
        "early_stopping_patience": 5, "madx2": True, "houlsby_MHA_lastlayer": False, "train_adapter": True,
        "adapter_config": "pfeiffer", "adapter_non_linearity": "gelu", "adapter_reduction_factor": 16,
        "language": "pt", "adapter_composition": "stack", "load_lang_adapter": f"{language}/",
        "lang_adapter_config": f"{language}/adapter_config.json", "lang_adapter_non_linearity": "gelu",
        "lang_adapter_reduction_factor": 2, "max_train_samples": 200, "max_val_samples": 50, "local_rank": 0,
    }  # fmt: skip
    assert len(options) >= 48
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    done = run_script("run_qa_adapter.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "run" / "output_dir" / "run.json").read_text())
    assert record["status"] == "finished" and record["setup"] == "Stack[mlm, qa]"
    assert record["data"]["eval"]["questions"] == 8 and len(record["history"]) == 2
    assert (tmp_path / "run" / "output_dir" / "adapters-qa" / "adapter_setup.json").is_file()
    assert list((tmp_path / "run" / "logging_dir").glob("events.*"))
    named = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("note: --")]
    old = ["evaluation_strategy", "no_cuda", "fp16_opt_level", "fp16_backend", "max_val_samples", "local_rank"]
    assert set(named) >= {f"--{name}" for name in old}


# ---------------------------------------------------------------- DeepSpeed

ZERO_3 = {  # keys as in the ZeRO files that transformers 4.8 documented
    "fp16": {"enabled": "auto", "loss_scale": 0},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto"}},
    "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_num_steps": "auto", "total_num_steps": "auto"}},
    "zero_optimization": {"stage": 3, "stage3_gather_fp16_weights_on_model_save": True, "overlap_comm": True},
    "train_batch_size": "auto",
}


# What a file need not say, and DeepSpeed or the library would take otherwise.
ADDED = dict.fromkeys(
    ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"), "auto"
) | {"fp16": {"enabled": "auto"}, "bf16": {"enabled": "auto"}}


TWO = {"zero_optimization": {"stage": 2}}


def write(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document))
    return str(path)


def test_a_file_of_2021_in_todays_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "ds.json", ZERO_3)
    config, notes = read_deepspeed(path, warmup=False)
    assert config == ADDED | {
        **{key: ZERO_3[key] for key in ("fp16", "optimizer", "train_batch_size")},
        "zero_optimization": {
            "stage": 3, "stage3_gather_16bit_weights_on_model_save": True, "overlap_comm": True,
        },
    }  # fmt: skip
    assert notes == [
        f"--deepspeed {path}: stage3_gather_fp16_weights_on_model_save is stage3_gather_16bit_weights_on_model_save "
        "now",
        f"--deepspeed {path}: its WarmupDecayLR schedule is left out, since DeepSpeed refuses it without warm-up "
        "steps; --lr_scheduler_type decides, linear by default, from the first step on",
    ]


@pytest.mark.parametrize(
    ("kind", "steps", "warmup", "kept"),
    [
        ("WarmupDecayLR", "auto", True, True),
        ("WarmupDecayLR", 100, False, True),
        ("WarmupDecayLR", 0, True, False),
        ("WarmupLR", "auto", False, False),
        ("OneCycle", "auto", False, True),
    ],
)
def test_only_a_schedule_that_cannot_run_is_left_out(
    tmp_path: Path, kind: str, steps: Any, warmup: bool, kept: bool
) -> None:
    path = write(tmp_path / "ds.json", {"scheduler": {"type": kind, "params": {"warmup_num_steps": steps}}, **TWO})
    config, notes = read_deepspeed(path, warmup=warmup)
    assert ("scheduler" in config) == kept and len(notes) == (not kept)


def test_switches_became_blocks(tmp_path: Path) -> None:
    zero = {"stage": 2, "cpu_offload": True, "cpu_offload_params": False, "cpu_offload_use_pin_memory": True}
    config, notes = read_deepspeed(write(tmp_path / "a.json", {"zero_optimization": zero, "amp": {}}), warmup=False)
    assert config == ADDED | {
        "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu", "pin_memory": True}}
    }
    assert len(notes) == 3


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"zero_optimization": 2}', "{}", '{"zero_optimization": {"stage": 0}}', None]
)
def test_files_that_are_none(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ds.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as caught:
        read_deepspeed(str(path), warmup=False)
    (problem,) = caught.value.problems
    assert problem.startswith(f"--deepspeed {path}: ") and "\n" not in problem

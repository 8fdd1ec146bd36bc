"""Command lines for adapter-transformers 2.x (adapter_qa/config/legacy_options.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reference.legacy_saves import LegacyModel
from support.scripts import run_script

from adapter_qa.config.legacy_options import RENAMED, UNUSED, translate_legacy_args
from adapter_qa.config.parser import ConfigParser, parse_config
from adapter_qa.config.run_configs import QARunConfig


@pytest.mark.parametrize(
    ("words", "expected", "note_count"),
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
def test_old_names_are_replaced(words: list[str], expected: list[str] | None, note_count: int) -> None:
    translated, notes = translate_legacy_args(words)
    assert translated == (words if expected is None else expected)
    assert len(notes) == note_count
    assert all("\n" not in note for note in notes)


@pytest.mark.parametrize("name", [*RENAMED, *UNUSED])
def test_every_old_name_is_accepted_with_a_note(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line and in an options file."""
    value = {"evaluation_strategy": "epoch", "no_cuda": "True", "sharded_ddp": "simple"}.get(name, "3")
    file = tmp_path / "options.json"
    file.write_text(json.dumps({name: value}))
    common = ["--model_name_or_path", "x", "--do_eval", "--output_dir", str(tmp_path), "--train_adapter"]
    for words in ([f"--{name}", value], [str(file)]):
        config = ConfigParser(QARunConfig).parse([*words, *common])
        note = capsys.readouterr().err
        assert note.startswith(f"note: --{name} is ")
        assert note.count("\n") == 1
        if name in RENAMED:
            values = vars(config.training) | vars(config.data)
            assert str(values[RENAMED[name][0]]) == value


@pytest.mark.parametrize(
    ("more", "note_count"),
    [([], 0), (["--max_test_samples", "3"], 2), (["--max_test_samples", "3", "--train_adapter"], 1)],
)
def test_an_old_command_line_without_train_adapter_gets_a_note(
    more: list[str], note_count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--model_name_or_path", "x", "--do_predict", "--test_file", __file__, *more]
    parse_config(QARunConfig, argv, description="", examples="")
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == note_count
    default = "note: without --train_adapter an adapter is trained; adapter-transformers 2.x fine-tuned all weights"
    assert (default in notes) == (note_count == 2)


def test_the_command_line_of_an_adapter_transformers_2_notebook(
    tiny_bert: Path, tmp_path: Path, squad_files: tuple[Path, Path]
) -> None:
    """Only paths, sizes and the number of epochs are those of a test; all other options have the notebook's values."""
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
    assert record["status"] == "finished"
    assert record["setup"] == "Stack[mlm, qa]"
    assert record["data"]["eval"]["questions"] == 8
    assert len(record["history"]) == 2
    assert (tmp_path / "run" / "output_dir" / "adapters-qa" / "adapter_setup.json").is_file()
    assert list((tmp_path / "run" / "logging_dir").glob("events.*"))
    named = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("note: --")]
    old = ["evaluation_strategy", "no_cuda", "fp16_opt_level", "fp16_backend", "max_val_samples", "local_rank"]
    assert set(named) >= {f"--{name}" for name in old}

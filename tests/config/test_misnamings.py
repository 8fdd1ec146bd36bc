"""Names that other programs give to options (adapter_qa/config/misnamings.py), and mistyped ones."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from adapter_qa.config.legacy_options import LEGACY_NAMES
from adapter_qa.config.misnamings import ADVICE, CALLED, right_name
from adapter_qa.config.parser import parse_config
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.core.errors import UserError

CONFIGS: tuple[Any, ...] = (QARunConfig, NERRunConfig, MLMRunConfig)


def names_of(config: Any) -> set[str]:
    types = get_type_hints(config)
    return {field.name for group in config.group_names() for field in fields(types[group])}


QA, NER, MLM = map(names_of, CONFIGS)


def problems(config: Any, *words: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse_config(config, ["--model_name_or_path", "x", "--dry_run", *words], description="", examples="")
    return caught.value.problems


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("--lr 3e-5", "lr; it is called --learning_rate"),
        ("--LR=3e-5", "LR; it is called --learning_rate"),
        ("--epochs 3", "epochs; it is called --num_train_epochs"),
        ("--train-batch-size 3", "train-batch-size; it is called --per_device_train_batch_size"),
        ("--train_data a.json b.json", "train_data; it is called --train_file"),
        ("--out x", "out; it is called --output_dir"),
        ("--stride 3", "stride; it is called --doc_stride"),
        ("--max_tokens 4096", "max_tokens; it is called --tokens_per_batch"),
        ("--patience 3", "patience; it is called --early_stopping_patience"),
        ("--wandb", "wandb; give --report_to wandb"),
        ("--use_wandb True", "use_wandb; give --report_to wandb"),
        ("--device cpu", "device; it is called --use_cpu"),
        ("--fp32", "fp32; give --bf16 False for float32"),
        ("--threads 4", "threads; set OMP_NUM_THREADS=4 in front of the command"),
        ("--resume outputs/qa", "resume; leave it out; the same command with the same --output_dir resumes"),
        (
            "--batch_size 8",
            "batch_size; it is called --per_device_train_batch_size for training, --per_device_eval_batch_size for "
            "evaluation",
        ),
        (
            "--num_gpus 4",
            "num_gpus; start the script with torchrun --nproc_per_node 4 in front of its name; see docs/distributed.md",
        ),
    ],
)
def test_a_name_of_other_programs_is_answered_with_the_right_one(words: str, answer: str, tmp_path: Path) -> None:
    """On the command line and in a file of options."""
    assert problems(QARunConfig, *words.split()) == [f"command line: unknown option {answer}"]
    name, *values = words[2:].replace("=", " ").split()
    path = tmp_path / "options.yaml"
    path.write_text(f"{name}: {values[0] if values else 'true'}\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        parse_config(QARunConfig, [str(path), "--model_name_or_path", "x", "--dry_run"], description="", examples="")
    assert caught.value.problems == [f"{path}: unknown option {answer}"]


@pytest.mark.parametrize(
    ("words", "gpus"),
    [("--gpu 1", "1"), ("--gpus 0,2", "0,2"), ("--device cuda:3", "3"), ("--cuda", "0"), ("--device cuda", "0")],
)
def test_gpus_are_chosen_in_front_of_the_command(words: str, gpus: str) -> None:
    (problem,) = problems(QARunConfig, *words.split())
    assert f"; choose GPUs with CUDA_VISIBLE_DEVICES={gpus} in front of the command; " in problem


def test_the_answer_is_an_option_of_the_script() -> None:
    assert problems(MLMRunConfig, "--max_length", "3")[0].endswith("; it is called --block_size")
    assert problems(NERRunConfig, "--max_length", "3")[0].endswith("; it is called --max_seq_length")
    assert problems(MLMRunConfig, "--max_seq_length", "3")[0].endswith("; it is called --block_size")
    assert problems(NERRunConfig, "--labels", "O")[0].endswith("; it is called --label_names")
    assert "label_names" not in problems(QARunConfig, "--labels", "O")[0]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("learing_rate", "learning_rate"),
        ("lerning_rate", "learning_rate"),
        ("num_train_epoch", "num_train_epochs"),
        ("validaton_file", "validation_file"),
        ("outptu_dir", "output_dir"),
        ("warmup_step", "warmup_steps"),
        ("fuse_adpaters", "fuse_adapters"),
        ("load_lang_adaptor", "load_lang_adapter"),
        ("wieght_decay", "weight_decay"),
        ("model_name_or_pth", "model_name_or_path"),
        ("max_seq_lenght", "max_seq_length"),
        ("gradient_accumulation_step", "gradient_accumulation_steps"),
        ("per_device_train_batchsize", "per_device_train_batch_size"),
        ("madx_2", "madx2"),
    ],
)
def test_a_mistyped_option_is_recognised(typed: str, meant: str) -> None:
    assert right_name(typed, None, QA) == f"did you mean {meant}?"


def test_a_mistyped_name_of_other_programs_is_recognised() -> None:
    assert str(right_name("bach_size", "3", QA)).startswith("it is called --per_device_train_batch_size for training")
    assert right_name("optimiser_", None, QA) == "it is called --optim"
    assert right_name("qqqqqq", None, QA) is None


def test_answers_name_options_and_no_option_is_a_misnaming() -> None:
    options = QA | NER | MLM
    for answer in [*CALLED, *(advice.text for advice in ADVICE)]:
        assert set(re.findall(r"--(\w+)", answer)) - {"nproc_per_node"} <= options, answer
    for names in [*CALLED.values(), *ADVICE.values()]:
        assert [
            name for name in names.split() if name in LEGACY_NAMES or all(name in known for known in (QA, NER, MLM))
        ] == []
    for name in {name for names in [*CALLED.values(), *ADVICE.values()] for name in names.split()}:
        assert any(right_name(name, None, known) for known in (QA, NER, MLM) if name not in known), name

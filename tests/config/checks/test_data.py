"""Options for data that are wrong (adapter_qa/config/checks/data.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.configs import mlm_config, ner_config, qa_config

from adapter_qa.config.options import (
    AdapterOptions,
    MLMDataOptions,
    NERDataOptions,
    QADataOptions,
)
from adapter_qa.config.validation import validate_config


def test_every_part_of_a_question_answering_run_needs_data() -> None:
    config = qa_config(do_train=True, do_predict=True, eval_strategy="epoch")
    assert validate_config(config) == [
        "--do_train needs --train_file or --dataset_name",
        "--do_eval needs --validation_file or --dataset_name",
        "--do_predict needs --test_file or --dataset_name",
    ]
    assert validate_config(replace(config, data=QADataOptions(dataset_name="squad"))) == []
    assert validate_config(qa_config(dry_run=True)) == []


def test_every_part_of_a_ner_run_needs_a_file() -> None:
    assert validate_config(ner_config(do_train=True, do_eval=True, do_predict=True)) == [
        "--do_train needs --train_file or --dataset_name",
        "--do_eval needs --validation_file or --dataset_name",
        "--do_predict needs --test_file or --dataset_name",
    ]
    assert validate_config(ner_config(NERDataOptions(dataset_name="lener_br"), do_train=True, do_eval=True)) == []


def test_ner_data_that_is_not_read_or_contradicts_itself() -> None:
    data = NERDataOptions(train_file=[__file__], dataset_name="x", word_column="2", label_column="2")
    config = ner_config(data, do_train=True, label_names=["O", "B-X", "I-X", "B-X"])
    assert validate_config(config) == [
        "--dataset_name: nothing is read from it, every part that is used has a file; leave it out",
        "--word_column and --label_column are both 2; give two columns",
        "--label_names: B-X given twice; every number needs its own name",
    ]
    assert validate_config(
        ner_config(NERDataOptions(train_file=[__file__], dataset_config_name="pt"), do_train=True)
    ) == ["--dataset_config_name: names a configuration of --dataset_name, which is not given"]


def test_a_ner_run_without_training_needs_an_adapter() -> None:
    config = ner_config(NERDataOptions(validation_file=[__file__]), do_eval=True)
    assert validate_config(config) == ["without --do_train there is nothing to evaluate; give --load_adapter"]
    assert validate_config(replace(config, adapter=AdapterOptions(load_adapter="org/x"))) == []


def test_a_language_adapter_trains_and_evaluates_only() -> None:
    assert validate_config(mlm_config(do_train=True, do_eval=True, do_predict=True)) == [
        "--do_train needs --train_file or --dataset_name",
        "--do_eval needs --validation_file, or --train_file or --dataset_name to take a share of",
        "--do_predict: a language adapter predicts nothing; leave it out",
    ]
    assert validate_config(mlm_config(MLMDataOptions(train_file=[__file__]), do_eval=True)) == []
    assert validate_config(mlm_config(MLMDataOptions(validation_file=[__file__]), do_eval=True)) == []


def test_a_calibration_needs_an_evaluation_and_fits_what_is_not_given() -> None:
    both = QADataOptions(
        calibration_file=["a.json"], calibration_share=0.1, version_2_with_negative=True, temperature=1.5,
        null_score_diff_threshold=-2.0, validation_file=["b.json"],
    )  # fmt: skip
    config = replace(qa_config(both, do_predict=True), given=frozenset({"temperature", "null_score_diff_threshold"}))
    problems = [
        problem for problem in validate_config(config) if "calibration" in problem and ": no such" not in problem
    ]
    assert problems == [
        "--calibration_file and --calibration_share exclude each other; give one",
        "--calibration_file: needs --do_eval, which says how well the calibration does",
        "--temperature 1.5: --calibration_file fits it; leave out one of the two",
        "--null_score_diff_threshold -2: --calibration_file fits it; leave out one of the two",
    ]
    assert "--calibration_file a.json: no such file; give the path of a file" in validate_config(config)
    share = replace(both, calibration_file=None, version_2_with_negative=False)
    config = replace(config, data=share, training=qa_config(do_eval=True).training)
    assert [problem for problem in validate_config(config) if "calibration" in problem] == [
        "--temperature 1.5: --calibration_share fits it; leave out one of the two"  # SQuAD v1 has no threshold
    ]
    fitted = qa_config(replace(share, version_2_with_negative=True), do_eval=True)
    assert not [problem for problem in validate_config(fitted) if "calibration" in problem]


@pytest.mark.parametrize("name", ["bf16_full_eval", "fp16_full_eval"])
def test_a_calibration_must_not_round_the_weights_before_they_are_saved(name: str) -> None:
    training: dict[str, Any] = {"do_eval": True, name: True}
    config = qa_config(QADataOptions(calibration_share=0.1), **training)
    assert [problem for problem in validate_config(config) if name in problem] == [
        f"--{name}: with --calibration_share the weights would be rounded before they are saved; leave out the option, "
        "and give --bf16 True to compute in bfloat16"
    ]
    assert not [problem for problem in validate_config(replace(config, data=QADataOptions())) if name in problem]

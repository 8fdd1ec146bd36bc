"""Names of the folders of runs without --output_dir (adapter_qa/runs/output_dir.py)."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter_qa.config.options import (
    AdapterOptions,
    FusionOptions,
    LanguageAdapterOptions,
    MLMDataOptions,
    ModelOptions,
    NERDataOptions,
    QADataOptions,
    TrainingOptions,
)
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.setup_decisions import resolve_setup
from adapter_qa.models.tasks import Task
from adapter_qa.runs.output_dir import APPENDED, DIGEST, MAX_NAME, derived_output_dir

LARGE = {"num_hidden_layers": 24, "hidden_size": 1024, "model_type": "bert"}
GROUPS = (TrainingOptions, AdapterOptions, QADataOptions, MLMDataOptions, NERDataOptions, FusionOptions, ModelOptions)
REFERENCE = (
    "outputs/neuralmind-bert-large-portuguese-cased_pt_squad-train-v1.1/mlm_qa_fusion_AdCompostack/"
    "lr3e-05_bs16_GAS2_eps1e-06_epochs5.0_patience3_wamlmTrue_madx2True_houlsby_MHA_lastlayerFalse_dsFalse_fp16True"
    "_bestTrue_metricf1_adapterconfigpfeiffer_ad1qasquad11pt_ad2nerlenerbr"
)
OTHER_VALUES: dict[str, Any] = {
    "seed": 7,
    "calibration_share": 0.1,
    "label_smoothing_factor": 0.1,
    "adapter_reduction_factor": 8.0,
    "adapter_non_linearity": "gelu",
    "weight_decay": 0.01,
    "warmup_ratio": 0.1,
    "warmup_steps": 50,
    "lr_scheduler_type": "cosine",
    "max_steps": 100,
    "bf16": True,
    "max_seq_length": 512,
    "doc_stride": 64,
    "block_size": 64,
    "version_2_with_negative": True,
    "max_train_samples": 1000,
    "fusion_regularization": False,
    "fusion_decay_values": True,
    "fusion_head": "new",
    "head_learning_rate": 0.01,
    "fp32_products": "bf16",
    "weighted_loss": True,
    "weighted_loss_constant": 1.0,
    "next_sentence": True,
    "label_all_tokens": True,
    "bucket_by_length": False,
    "do_lower_case": False,
    "strip_accents": False,
    "text_column": "body",
    "word_column": "2",
    "label_column": "-1",
    "question_column": "pergunta",
    "context_column": "texto",
    "answer_column": "resposta",
    "answer_start_column": "início",
    "folds": 5,
    "fold_by": "context",
    "fold_choosing_share": 0.2,
}


def make_setup(
    task: Task = "qa",
    fuse: list[str] | None = None,
    language: str | None = None,
    composition: str = "stack",
    **adapter: Any,
) -> AdapterSetup | None:
    """Resolve a setup of new adapters."""
    return resolve_setup(
        task,
        LARGE,
        AdapterOptions(**adapter),
        LanguageAdapterOptions(load_lang_adapter=language),
        FusionOptions(fuse_adapters=fuse, adapter_composition=composition),
        random_init=True,
    )


def run_options(**values: Any) -> TrainingOptions:
    return TrainingOptions(report_to=[], **values)


def reference_dir(**more: Any) -> Path:
    """Return the folder of the reference example with more options."""
    training = run_options(
        learning_rate=3e-5,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=2,
        adam_epsilon=1e-6,
        num_train_epochs=5,
        early_stopping_patience=3,
        load_best_model_at_end=True,
        fp16=True,
        **more,
    )
    setup = make_setup(fuse=["qa_squad11pt=new", "ner_lenerbr=new"], language="new", madx2=True)
    data = "data/pt_squad-train-v1.1.json"
    groups: list[Any] = [training, AdapterOptions(madx2=True)]
    return derived_output_dir("neuralmind/bert-large-portuguese-cased", data, setup, groups)


def test_reference_example_of_the_old_trainer() -> None:
    assert str(reference_dir()) == REFERENCE


def test_options_missing_in_old_names_are_appended() -> None:
    assert str(reference_dir(weight_decay=0.01)) == REFERENCE + "_weight_decay0.01"
    assert str(reference_dir(weight_decay=0.01, seed=1)) == REFERENCE + "_weight_decay0.01_seed1"


@pytest.mark.parametrize(
    ("setup", "setup_name", "parts"),
    [
        (None, "qa_full", ["wamlmFalse", "madx2False", "adapterconfignone"]),
        (make_setup(), "qa_AdCompostack", ["wamlmFalse", "adapterconfigpfeiffer"]),
        (make_setup(language="new"), "mlm_qa_AdCompostack", ["wamlmTrue"]),
        (make_setup(fuse=["a=new", "b=new"]), "qa_fusion_AdCompostack", ["wamlmFalse", "ad1a", "ad2b"]),
        (
            make_setup(fuse=["a_1=new", "b-2=new", "c=new"], language="new", composition="fuse"),
            "mlm_qa_fusion_AdCompofuse",
            ["ad1a1", "ad2b-2", "ad3c"],
        ),
        (make_setup("ner", adapter_config="houlsby"), "ner_AdCompostack", ["adapterconfighoulsby"]),
        (make_setup("ner", adapter_config="double_seq_bn", language="new"), "mlm_ner_AdCompostack", ["wamlmTrue"]),
        (make_setup(adapter_config="ia3"), "qa_AdCompostack", ["adapterconfigia3"]),
        (
            make_setup(adapter_config="lora", madx2=True),
            "qa_AdCompostack",
            ["adapterconfiglora-r8-alpha8", "madx2True"],
        ),
        (
            make_setup(adapter_config="lora[alpha=16,dropout=0.1,r=4,attn_matrices=q-k]", language="new"),
            "mlm_qa_AdCompostack",
            ["adapterconfiglora-r4-alpha16-dropout0.1-attn", "matricesq-k"],
        ),
        (make_setup("mlm"), "mlm_AdCompostack", ["wamlmFalse", "adapterconfigpfeiffer+inv"]),
        (make_setup(madx2=True), "qa_AdCompostack", ["madx2True", "lastlayerFalse"]),
        (
            make_setup(adapter_config="houlsby", houlsby_MHA_lastlayer=True),
            "qa_AdCompostack",
            ["lastlayerTrue", "madx2False"],
        ),
    ],
)
def test_names_of_setups(setup: AdapterSetup | None, setup_name: str, parts: list[str]) -> None:
    folder = derived_output_dir("/models/tiny/", "train.json", setup, [run_options()])
    assert folder.parts[:-1] == ("outputs", "models-tiny_train", setup_name)
    assert set(parts) <= set(folder.name.split("_"))


def test_a_language_swap_names_the_adapter() -> None:
    setup = make_setup(language="new")
    assert setup is not None
    assert setup.language is not None
    kept = derived_output_dir("m", "d", setup, [run_options()])
    new = replace(setup.language, folder=Path("outputs/mlm_pt/adapters-mlm/mlm"))
    swapped = derived_output_dir("m", "d", replace(setup, language=new, swapped_out=setup.language), [run_options()])
    assert swapped == kept.with_name(f"{kept.name}_swapoutputs-mlm_pt-adapters-mlm-mlm")


def test_madx2_is_true_only_if_all_adapters_leave_out_the_last_layer() -> None:
    setup = make_setup(madx2=True, language="new")
    assert setup is not None
    assert setup.language is not None
    in_all_layers = replace(setup.language, config={**setup.language.config, "leave_out": []})
    for language, expected in ((setup.language, "madx2True"), (in_all_layers, "madx2False")):
        folder = derived_output_dir("m", "d", replace(setup, language=language), [run_options()])
        assert expected in folder.name.split("_")


def test_without_patience_and_evaluation() -> None:
    name = derived_output_dir("m", "d", make_setup(), [run_options(num_train_epochs=0.5)]).name
    assert name == (
        "lr0.0001_bs8_GAS1_eps1e-08_epochs0.5_patience0_wamlmFalse_madx2False_houlsby_MHA_lastlayerFalse_dsFalse"
        "_fp16False_bestFalse_metricf1_adapterconfigpfeiffer"
    )


def test_every_appended_option_exists_and_is_tested() -> None:
    assert set(APPENDED) == set(OTHER_VALUES)
    assert set(APPENDED) <= {field.name for group in GROUPS for field in fields(group)}


@pytest.mark.parametrize("name", APPENDED)
def test_another_value_gives_another_folder(name: str) -> None:
    value = OTHER_VALUES[name]
    needed: dict[type[Any], dict[str, Any]] = {ModelOptions: {"model_name_or_path": "m"}}
    defaults = [options(**needed.get(options, {})) for options in GROUPS]
    plain = derived_output_dir("m", "d", make_setup(), defaults)
    changed = [replace(options, **{name: value}) if name in vars(options) else options for options in defaults]
    assert str(derived_output_dir("m", "d", make_setup(), changed)) == f"{plain}_{name}{value}"


@settings(max_examples=30)
@given(st.lists(st.from_regex(r"[a-z]{60,80}", fullmatch=True), min_size=2, max_size=3, unique=True))
def test_long_names_are_cut_and_stay_distinct(names: list[str]) -> None:
    training = run_options(seed=1)
    first, second = (
        derived_output_dir("m", "d", make_setup(fuse=[f"{name}=new" for name in order]), [training])
        for order in (names, [*names[:-1], names[-1] + "x"])
    )
    assert first.parent == second.parent
    assert first.name != second.name
    for folder in (first, second):
        assert len(folder.name.encode()) <= MAX_NAME == 240


def test_names_are_cut_only_beyond_the_limit() -> None:
    other_length = len(derived_output_dir("m", "d", make_setup(fuse=["a=new", "b=new"]), [run_options()]).name) - 1
    fitting, longer = "a" * (MAX_NAME - other_length), "a" * (MAX_NAME - other_length + 1)
    complete, cut = (
        derived_output_dir("m", "d", make_setup(fuse=[f"{name}=new", "b=new"]), [run_options()]).name
        for name in (fitting, longer)
    )
    assert len(complete) == MAX_NAME
    assert complete.endswith(f"_ad1{fitting}_ad2b")
    uncut = complete.replace(fitting, longer)
    assert cut == uncut[: MAX_NAME - DIGEST - 1] + "_" + hashlib.sha256(uncut.encode()).hexdigest()[:DIGEST]

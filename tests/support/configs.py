"""Run configurations that differ from the defaults in a few options, and texts of their problems."""

from __future__ import annotations

from typing import Any

from adapter_qa.config.options import (
    AdapterOptions,
    FusionOptions,
    LanguageAdapterOptions,
    MLMAdapterOptions,
    MLMDataOptions,
    MLMTrainingOptions,
    ModelOptions,
    NERDataOptions,
    NERTrainingOptions,
    QADataOptions,
    TrainingOptions,
)
from adapter_qa.config.run_configs import MLMRunConfig, NERRunConfig, QARunConfig
from adapter_qa.data.squad_metrics import TOP_K

MODEL, ADAPTER, LANGUAGE, FUSION = ModelOptions("bert"), AdapterOptions(), LanguageAdapterOptions(), FusionOptions()
QA_METRICS = (
    "f1, exact, loss, total, questions, windows, runtime, answers_runtime, scores_runtime, samples_per_second, "
    + ", ".join(f"top_{k}_{name}" for k in TOP_K for name in ("exact", "f1"))
    + ", ece, brier, log_loss"
)
NOTHING_TO_DO = "nothing to do: give --do_train, --do_eval, --do_predict or --dry_run"


def qa_config(data: QADataOptions | None = None, **training: Any) -> QARunConfig:
    options = TrainingOptions(**training)
    return QARunConfig(MODEL, data or QADataOptions(), ADAPTER, LANGUAGE, FUSION, options).resolved()


def ner_config(data: NERDataOptions | None = None, **training: Any) -> NERRunConfig:
    return NERRunConfig(MODEL, data or NERDataOptions(), ADAPTER, LANGUAGE, NERTrainingOptions(**training)).resolved()


def mlm_config(data: MLMDataOptions | None = None, **training: Any) -> MLMRunConfig:
    return MLMRunConfig(MODEL, data or MLMDataOptions(), MLMAdapterOptions(), MLMTrainingOptions(**training)).resolved()

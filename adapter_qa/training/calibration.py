"""What a run writes and prints of the calibration that its trainer has made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from adapter_qa.config.run_configs import QARunConfig
from adapter_qa.core.files import write_json
from adapter_qa.core.messages import print_main
from adapter_qa.data.calibration import Calibration
from adapter_qa.runs.layout import CALIBRATION_FILE
from adapter_qa.runs.run_document import DataSource
from adapter_qa.training import workflow
from adapter_qa.training.adapter_trainer import AdapterTrainer
from adapter_qa.training.run_context import RunContext


def record_calibration(
    run: RunContext[QARunConfig], trainer: AdapterTrainer, calibration: Calibration, metrics: dict[str, float]
) -> None:
    """Write calibration.json, and the same into run.json under "calibration"; print it.

    `metrics` are those of the questions before, with the prefix `calibration`.
    """
    workflow.record_metrics(run, trainer, "calibration", metrics)
    document = calibration_document(calibration, run.record.document.data["calibration"], metrics)
    if trainer.is_world_process_zero():
        write_json(trainer.folder / CALIBRATION_FILE, document)
        run.record.document.calibration = document
        run.record.write()
    print_main(calibration_text(document))


def calibration_document(calibration: Calibration, source: DataSource, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Return the content of calibration.json.

    Args:
        calibration: what was fitted.
        source: of the questions, as run.json has it under "data".
        metrics: of the questions before, with the prefix `calibration`.
    """
    fitted = calibration.temperature
    document: dict[str, Any] = {
        "temperature": fitted.value,
        "log_loss": {"before": fitted.loss_before, "after": fitted.loss},
    }
    if calibration.threshold is not None:
        document |= {
            "null_score_diff_threshold": calibration.threshold.value,
            "f1": {"before": metrics["calibration_f1"], "after": calibration.threshold.f1},
        }
    return document | {"questions": source.questions, "source": msgspec.to_builtins(source)}


def calibration_text(document: Mapping[str, Any]) -> str:
    """Return the content of calibration.json for people, a line for each fit."""
    lines = [f"temperature {document['temperature']:.2f}, {_change('log loss', document['log_loss'], 3)}"]
    if "f1" in document:
        lines.append(f"threshold {document['null_score_diff_threshold']:.2f}, {_change('F1', document['f1'], 1)}")
    return "calibration: " + "\n             ".join(lines)


def gain_text(metrics: Mapping[str, float]) -> str:
    """Return what the calibration changes in the evaluation, for people."""
    lines = [
        {"f1": ("F1", 1), "exact": ("EM", 1)},
        {"ece": ("calibration error", 3), "brier": ("Brier score", 3), "log_loss": ("log loss", 3)},
    ]
    texts = []
    for names in lines:
        changes = [
            _change(label, {"before": metrics[f"eval_{name}_uncalibrated"], "after": metrics[f"eval_{name}"]}, digits)
            for name, (label, digits) in names.items()
            if f"eval_{name}_uncalibrated" in metrics
        ]
        texts.append(f"  {', '.join(changes)}")
    return "\n".join(["evaluation without -> with calibration:", *texts])


def _change(label: str, values: Mapping[str, float], digits: int) -> str:
    return f"{label} {values['before']:.{digits}f} -> {values['after']:.{digits}f}"

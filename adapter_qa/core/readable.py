"""Metrics, times and sizes as people read them: short and rounded. Files keep the full names and numbers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

# The order in which an evaluation shows its metrics. Those that it has not computed are left out.
SHOWN = ("f1", "exact", "HasAns_f1", "NoAns_f1", "precision", "recall", "perplexity", "loss")
LABELS = {"f1": "F1", "exact": "EM", "HasAns_f1": "HasAns F1", "NoAns_f1": "NoAns F1"}


def metric_label(name: str) -> str:
    """Return the short name of a metric, which is given without the library's prefix."""
    return LABELS.get(name, name.replace("_", " "))


def metric_value(name: str, value: float) -> str:
    """Return a metric rounded: scores in percent to one digit, losses to two digits, or more if they are small.

    The expected calibration error and the Brier score, 0 to 1, have three digits.
    """
    if name in ("ece", "brier"):
        return f"{value:.3f}"
    if name.endswith("loss"):
        return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"
    return f"{value:,.1f}"


def metrics_text(metrics: Mapping[str, float], best_metric: str, prefix: str = "eval") -> str:
    """Return the metrics of an evaluation in one line, e.g. `F1 43.8  EM 24.0  loss 2.31`.

    Args:
        metrics: by name with the prefix.
        best_metric: the metric that decides which epoch is best, without the prefix; it is shown first.
        prefix: the split's name.
    """
    by_name = {name.removeprefix(f"{prefix}_"): value for name, value in metrics.items()}
    first = () if best_metric in SHOWN else (best_metric,)
    shown = [name for name in (*first, *SHOWN) if name in by_name]
    return "  ".join(f"{metric_label(name)} {metric_value(name, by_name[name])}" for name in shown)


def count(number: float, noun: str, form: str = "g") -> str:
    """Return a number and a noun, e.g. `2 epochs`; with the form ",", `2,000 questions`."""
    return f"{number:{form}} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time in words, e.g. `1 h 5 min` or `13 s`."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def file_size(size: int) -> str:
    """Return a number of bytes in words, e.g. `12.3 MB`; units are powers of 1000."""
    if size < 1000:
        return f"{size} bytes"
    number, units = float(size), ("kB", "MB", "GB", "TB")
    for unit in units:
        number /= 1000
        if number < 999.95 or unit == units[-1]:
            break
    return f"{number:.1f} {unit}"


def script_command(script: str, installed: str) -> str:
    """Return how to call another script, in the way in which this one was called."""
    if Path(sys.argv[0]).name.startswith("adapter-qa"):
        return f"adapter-qa-{installed}"
    return f"python {script}.py"

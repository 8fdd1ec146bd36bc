"""The importance of the parameters of a sweep, and a picture of its trials."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from adapter_qa.core.files import atomic_file
from adapter_qa.core.readable import metric_label
from adapter_qa.sweeps.search_space import Sweep

EVALUATOR = "PED-ANOVA"  # of Optuna's evaluators the one that needs no other package
BEST_SHARE = 0.1  # of the trials, whose parameters it compares with those of all
MIN_TRIALS = 5  # finished ones; with fewer the importance says nothing
INCHES_PER_AXIS, INCHES_HIGH, DPI = 2.2, 5.0, 110


def importance(trials: Sequence[FrozenTrial], sweep: Sweep) -> dict[str, Any] | None:
    """Return the importance of each parameter for the metric, largest first, as sweep.json has it.

    Only parameters that differ between trials count.

    Returns:
        None if fewer than `MIN_TRIALS` trials finished, fewer than two parameters differ, or the worst trial is as good
        as one of the best `BEST_SHARE`, so that these are all trials.
    """
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    varying = [name for name in sweep.search if len({str(trial.params[name]) for trial in finished}) > 1]
    if len(finished) < MIN_TRIALS or len(varying) < 2:
        return None
    values = sorted((trial.value or 0.0 for trial in finished), reverse=sweep.maximize)
    if values[math.ceil(BEST_SHARE * len(values)) - 1] == values[-1]:
        return None
    evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    weights = get_param_importances(_study(finished, sweep), evaluator=evaluator, params=varying)
    return {"evaluator": EVALUATOR, "trials": len(finished), "parameters": weights}


def _study(finished: Sequence[FrozenTrial], sweep: Sweep) -> optuna.Study:
    """Return a study of these trials in memory."""
    study = optuna.create_study(direction="maximize" if sweep.maximize else "minimize")
    study.add_trials(finished)
    return study


def draw_trials(trials: Sequence[FrozenTrial], sweep: Sweep, path: Path, writer: str) -> str | None:
    """Draw the finished trials in parallel coordinates, one line a trial, as a PNG file.

    Args:
        trials: of the sweep.
        sweep: the sweep.
        path: of the file.
        writer: name of this process, as several may draw at the same time.

    Returns:
        Why nothing was drawn; None if it was.
    """
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(finished) < 2:
        return "no picture of the trials: it needs two that finished"
    if importlib.util.find_spec("matplotlib") is None:
        return 'no picture of the trials: matplotlib is not installed; pip install "adapter-qa[report]"'
    import matplotlib as mpl
    from matplotlib import pyplot
    from matplotlib.collections import LineCollection
    from matplotlib.ticker import LogFormatter
    from optuna.visualization.matplotlib import plot_parallel_coordinate

    label = metric_label(sweep.metric)
    # Names come from a file: dollar signs in them are no mathematics, and the font may lack their characters.
    with mpl.rc_context({"backend": "agg", "text.parse_math": False}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = plot_parallel_coordinate(_study(finished, sweep), target_name=label)
        figure = pyplot.gcf()  # which the plot has made
        (lines,) = (collection for collection in first.collections if isinstance(collection, LineCollection))
        lines.set_cmap("viridis_r" if sweep.maximize else "viridis")  # Optuna's colours begin with white
        lines.set_clip_on(False)
        if lines.colorbar is not None:  # the names of the last axis would cross it, and the first axis says the same
            lines.colorbar.remove()
        _, *others = figure.axes
        first.set_title(f"{len(finished)} finished trials")
        first.set_xticklabels(first.get_xticklabels(), rotation=20, ha="right")
        for axis in (axes.yaxis for axes in others if axes.get_yscale() == "log"):
            axis.set_major_formatter(LogFormatter())
            axis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
        figure.set_size_inches(INCHES_PER_AXIS * (len(sweep.search) + 2), INCHES_HIGH)
        with atomic_file(path, writer) as temporary:
            figure.savefig(temporary, dpi=DPI, bbox_inches="tight", format="png")
        pyplot.close(figure)
    return None

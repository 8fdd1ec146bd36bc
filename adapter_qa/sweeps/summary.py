"""The end of a sweep: what a worker prints when all trials are done."""

from __future__ import annotations

import importlib.util
import shlex
from collections import Counter
from pathlib import Path

from adapter_qa.core.errors import RunError, escape_control_chars
from adapter_qa.core.messages import log_note
from adapter_qa.core.readable import duration, metric_label, metric_value, script_command
from adapter_qa.runs.layout import JOURNAL_FILE, PARALLEL_FILE, SWEEP_FILE, TRIALS_FOLDER, trial_folder
from adapter_qa.sweeps.analysis import draw_trials, importance
from adapter_qa.sweeps.search_space import trial_config
from adapter_qa.sweeps.study import STATES, TrialStore
from adapter_qa.sweeps.worker import describe_params, trial_command


def print_summary(store: TrialStore, script: Path) -> None:
    """Print the importance of the parameters, the best trial and the next commands, and draw the trials.

    Raises:
        RunError: if no trial finished.
    """
    sweep, trials, best = store.sweep, store.trials(), store.best()
    report = store.folder / SWEEP_FILE
    counts = Counter(STATES[trial.state] for trial in trials)
    if counts["failed"]:
        log_note([f"{counts['failed']} of {sweep.trials} trials failed; {report} has the reasons"])
    if best is None:
        raise RunError(f"no trial finished; {report} has the reasons")
    picture = store.folder / PARALLEL_FILE
    not_drawn = draw_trials(trials, sweep, picture, store.worker)
    log_note([not_drawn] if not_drawn is not None else [])
    metric = metric_label(sweep.metric)
    seconds = sum(trial.user_attrs.get("seconds") or 0.0 for trial in trials)
    states = ", ".join(f"{number} {state}" for state, number in counts.items())
    lines = [f"{sweep.trials} trials: {states}; {duration(seconds)} of training"]
    weights = importance(trials, sweep)
    if weights is not None:
        lines.append(f"importance for {metric} ({weights['evaluator']}, {weights['trials']} finished trials):")
        width = max(map(len, weights["parameters"]))
        lines += [f"  {name:{width}}  {weight:4.0%}" for name, weight in weights["parameters"].items()]
    folder = trial_folder(store.folder, best.number)
    is_cross_validation = trial_config(sweep, best.params).is_cross_validation
    lines += [
        f"report: {report}",
        *([f"picture: {picture}"] if not_drawn is None else []),
        f"best: trial {best.number}, {describe_params(best.params)}, "
        f"{metric} {metric_value(sweep.metric, best.value or 0.0)}",
        f"folder: {folder}",
        f"again: {shlex.join(trial_command(sweep, script, None, best.params))}",
        "next:",
        *(f"  {command}" for command in next_commands(store, None if is_cross_validation else folder)),
    ]
    print("\n".join(map(escape_control_chars, lines)), flush=True)


def next_commands(store: TrialStore, model: Path | None) -> list[str]:
    """Return command lines for what people do with a finished sweep.

    Args:
        store: the trials.
        model: folder of the best trial; None if it is a cross-validation, which saves no model of its own.
    """
    ask, report = script_command("ask_qa", "ask"), script_command("report_qa", "report")
    commands = [] if model is None else [f'{ask} {shlex.quote(str(model))} --question "..." --context "..."']
    commands.append(f"{report} {shlex.quote(str(store.folder / TRIALS_FOLDER))} --output_dir report")
    journal = store.folder / JOURNAL_FILE
    if journal.exists() and importlib.util.find_spec("optuna_dashboard") is not None:
        commands.append(shlex.join(["optuna-dashboard", str(journal)]))
    return commands

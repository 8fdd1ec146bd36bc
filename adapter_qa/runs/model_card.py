"""The model card of a saved folder: README.md, whose first lines are metadata for the hub.

It is made from the saved folder and run.json, with the template `model_card.md.jinja`. It shows no paths of this
machine: local base models and data files appear by name, and data files also by hash.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, cast

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from adapter_qa.core.errors import escape_control_chars
from adapter_qa.core.files import read_json, write_text
from adapter_qa.models.file_names import ADAPTER_CONFIG, FULL_FILE, HEAD_CONFIG, SETUP_FILE
from adapter_qa.models.low_rank import is_low_rank_config, low_rank_name
from adapter_qa.models.metadata import LanguageSwap, RunMetadata, read_metadata
from adapter_qa.models.saved_adapters import ATTENTION_ONLY_LAST_LAYER
from adapter_qa.models.tasks import TASKS, Task, TaskInfo
from adapter_qa.runs.layout import CARD_FILE
from adapter_qa.runs.run_document import DataSource, RunDocument

SETTINGS = (  # options that affect the result; those without a value are left out
    "learning_rate", "head_learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size",
    "gradient_accumulation_steps", "processes", "seed", "weight_decay", "warmup_ratio", "warmup_steps",
    "lr_scheduler_type", "early_stopping_patience", "bf16", "fp16", "max_seq_length", "doc_stride", "block_size",
    "version_2_with_negative", "fusion_regularization", "fusion_head",
)  # fmt: skip
EXAMPLE_KINDS = ("questions", "windows", "sentences", "inputs", "blocks")


def is_local(name: str | None) -> bool:
    """Return whether a recorded base model or data set is a folder, absolute or relative to the saved folder."""
    return name is not None and name.startswith(("/", "."))


def public_name(name: str | None) -> str | None:
    """Return a hub id unchanged, and only the name of a local folder, because anybody may read a card."""
    return Path(name).name if name is not None and is_local(name) else name


def write_card(folder: Path, run: RunDocument) -> None:
    """Write the card of a saved folder."""
    environment = Environment(  # not HTML: nothing to escape but control characters
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"escape_controls": escape_control_chars, "repr": repr, "quote": shlex.quote}
    full = (folder / FULL_FILE).is_file()
    metadata = read_metadata(folder / (FULL_FILE if full else SETUP_FILE))
    task = TASKS[cast(Task, metadata.task)]  # every folder that gets a card was saved for one of them
    title = run.options.get("hub_model_id") or folder.resolve().name
    text = environment.get_template("model_card.md.jinja").render(
        metadata=_hub_metadata(task, metadata, run, full=full, title=title),
        title=title,
        full=full,
        task=metadata.task,
        task_info=task,
        setup=metadata.setup,
        trained_from=public_name(_trained_from(metadata)),
        **_usage_values(folder, metadata, title, full=full),
        **_run_values(task, metadata, run),
    )
    write_text(folder / CARD_FILE, text)


def _usage_values(folder: Path, metadata: RunMetadata, title: str, *, full: bool) -> dict[str, object]:
    """Return the template's values for the code that loads the folder, and the description of its adapters."""
    base, revision, versions = metadata.base_model.name_or_path, metadata.base_model.revision, metadata.versions
    base_is_local = base is None or is_local(base)
    adapters = {name: read_json(folder / name / ADAPTER_CONFIG) for name in metadata.adapters}
    label2id = read_json(folder / HEAD_CONFIG)["label2id"] if metadata.task == "ner" and not full else {}
    label2id = dict(sorted(label2id.items(), key=lambda item: int(item[1])))
    packages = [name for name in ("adapters", "transformers", "torch") if name in versions]
    return {
        "base": public_name(base) or "BASE_MODEL",
        "base_is_local": base_is_local,
        "revision": None if base_is_local or revision == "main" else revision,
        "on_hub": "/" in title,
        "folder_name": folder.resolve().name,
        "tested_with": ", ".join(f"{name} {versions[name]}" for name in packages),
        "label2id": label2id,
        "id2label": {index: label for label, index in label2id.items()},
        "attention_only": [name for name, config in adapters.items() if config.get(ATTENTION_ONLY_LAST_LAYER)],
        "tokenizer": public_name(metadata.tokenizer),
        "adapters": [_describe_adapter(name, config) for name, config in adapters.items()],
        "language_swaps": list(map(_describe_swap, metadata.language_swaps)),
    }


def _run_values(task: TaskInfo, metadata: RunMetadata, run: RunDocument) -> dict[str, object]:
    options, counts = run.options, run.parameters
    parameters = {}
    if counts is not None:
        parameters = {"base with head": counts.base, **counts.parts, "added": counts.added, "trained": counts.trainable}
    values = {name: options.get(name) for name in SETTINGS}
    settings = {name: value for name, value in values.items() if value not in (None, -1) and value is not False}
    for name, applies in (("fusion_head", options.get("fuse_adapters")), ("fusion_regularization", metadata.fused)):
        if not applies:
            settings.pop(name, None)
    return {
        "scores": _scores(task, run),
        "score_notes": _score_notes(run),
        "parameters": parameters,
        "settings": settings if options else None,
        "provenance": _provenance(metadata, run),
        "data": [_describe_split(split, source) for split, source in run.data.items()],
        "license": options.get("license"),
    }


def _trained_from(metadata: RunMetadata) -> str | None:
    return (metadata.trained_from or metadata.base_model).name_or_path


def _hub_metadata(task: TaskInfo, metadata: RunMetadata, run: RunDocument, *, full: bool, title: str) -> str:
    """Return the YAML that the hub reads."""
    evaluated = run.data.get("eval", DataSource())
    file, *_ = *evaluated.paths, evaluated.held_out_of or "unknown"
    source = public_name(evaluated.dataset) or Path(file).name
    scores = _scores(task, run)
    results = [
        EvalResult(task.hub_name, source, source, metric, round(value, 4), dataset_split=evaluated.split)
        for metric, value in scores.items()
    ]
    base = _trained_from(metadata)
    names = [source.dataset for source in run.data.values()]
    card_data = ModelCardData(
        language=metadata.language,
        license=run.options.get("license"),
        library_name="transformers" if full else "adapters",
        pipeline_tag=task.hub_name,
        tags=[task.hub_name] if full else [task.hub_name, "adapter-transformers"],
        base_model=None if is_local(base) else base,
        datasets=sorted({name for name in names if name is not None and not is_local(name)}) or None,
        metrics=list(scores) or None,
        model_name=title if results else None,
        eval_results=results or None,
    )
    return card_data.to_yaml()


def _scores(task: TaskInfo, run: RunDocument) -> dict[str, float]:
    metrics = run.metrics.get("eval", {})
    return {name: metrics[f"eval_{key}"] for key, name in task.hub_metrics.items() if f"eval_{key}" in metrics}


def _score_notes(run: RunDocument) -> str:
    """Return a sentence on the evaluation: how many examples, and what was chosen on the same data."""
    evaluated = run.data.get("eval", DataSource()).counts()
    counts = [f"{evaluated[kind]:,} {kind}" for kind in EXAMPLE_KINDS if kind in evaluated]
    notes = ["on " + ", ".join(counts)] if counts else []
    if run.best is not None and run.best.step is not None and run.options["load_best_model_at_end"]:
        notes.append(f"the best epoch (step {run.best.step} of {run.steps}) was chosen on the same data")
    if run.calibration is not None:
        fitted = "temperature and threshold were" if "f1" in run.calibration else "the temperature was"
        notes.append(f"{fitted} fitted on {run.calibration['questions']:,} other questions")
    if run.best_thresholds is not None:
        notes.append(f"`best_f1`, `best_exact` in run.json: {run.best_thresholds}")
    sentence = "; ".join(notes)
    return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""


def _describe_adapter(name: str, document: dict[str, Any]) -> str:
    """Describe an adapter in one line from its adapter_config.json."""
    config = document["config"]
    if is_low_rank_config(config):
        return f"{name}: {', '.join([low_rank_name(config), *_left_out(config)])}"
    blocks = {"mh_adapter": "attention", "output_adapter": "feed-forward"}
    properties = [
        "after " + " and ".join(block for key, block in blocks.items() if config[key]),
        f"reduction {config['reduction_factor']}",
        str(config["non_linearity"]),
    ]
    if config.get("inv_adapter"):
        properties.append(f"invertible ({config['inv_adapter']})")
    properties += _left_out(config)
    if document.get(ATTENTION_ONLY_LAST_LAYER):
        properties.append("in the last layer after attention only")
    return f"{name}: {', '.join(properties)}"


def _left_out(config: dict[str, Any]) -> list[str]:
    return [f"not in layers {config['leave_out']}, counted from 0"] if config.get("leave_out") else []


def _describe_swap(swap: LanguageSwap) -> str:
    """Describe a language swap in one line, with names in place of local folders."""
    new, old = (
        f"{public_name(folder)}{f' ({language})' if language else ''}"
        for folder, language in ((swap.adapter, swap.language), (swap.replaced, swap.replaced_language))
    )
    return f"language swap: the language adapter of {new} replaced that of {old}, on which the task was trained"


def _provenance(metadata: RunMetadata, run: RunDocument) -> str:
    """Return a line with the device, start, duration and versions of the run."""
    versions = ", ".join(f"{name} {version}" for name, version in metadata.versions.items())
    commit = f" Trainer at commit {run.commit}." if run.commit else ""
    duration = f"{run.times.started}, {run.times.seconds or 0:,.0f} s"
    return f"{run.device}, {duration}. Versions: {versions}.{commit}"


def _describe_split(split: str, source: DataSource) -> str:
    """Describe in one line where a split came from: data sets by hub id, files by name and hash."""
    if source.dataset is not None:
        name, *others = source.dataset_words
        origin = " ".join([str(public_name(name)), *others])
    elif source.held_out_of is not None:
        origin = f"held out of {Path(source.held_out_of).name}"
    else:
        origin = f"{' '.join(Path(path).name for path in source.paths)}, sha256 {source.sha256}"
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in source.counts().items() if value)
    return f"{split}: `{origin}`; {counts}"

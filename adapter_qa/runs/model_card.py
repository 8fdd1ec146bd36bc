"""The model card of a saved folder: README.md, for people and, in its first lines, for the hub.

It is made of what the saved folder and the run's run.json say. It names no folder of the machine it was made on: of
local base models and data files it has the names, and of the files their hashes.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from string import Template
from typing import Any

from adapters.utils import CONFIG_NAME as ADAPTER_CONFIG
from adapters.utils import HEAD_CONFIG_NAME as HEAD_CONFIG
from adapters.utils import SETUP_CONFIG_NAME as SETUP_FILE
from huggingface_hub import EvalResult, ModelCardData

from adapter_qa.core.errors import escape_control_chars
from adapter_qa.core.files import read_json, write_text
from adapter_qa.models.file_names import FULL_FILE
from adapter_qa.models.saved_adapters import ATTENTION_ONLY_LAST_LAYER

CARD_FILE = "README.md"
# Task of a saved folder: class of its model in transformers, task name on the hub, metrics and their hub names.
TASKS: dict[str, tuple[str, str, dict[str, str]]] = {
    "qa": ("AutoModelForQuestionAnswering", "question-answering", {"f1": "f1", "exact": "exact_match"}),
    "ner": (
        "AutoModelForTokenClassification",
        "token-classification",
        {"f1": "f1", "precision": "precision", "recall": "recall"},
    ),
    "mlm": ("AutoModelForMaskedLM", "fill-mask", {"perplexity": "perplexity", "loss": "loss"}),
}
SETTINGS = (  # options that decide what comes out; those without a value are left out
    "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
    "processes", "seed", "weight_decay", "warmup_ratio", "warmup_steps", "lr_scheduler_type",
    "early_stopping_patience", "bf16", "fp16", "max_seq_length", "doc_stride", "block_size", "version_2_with_negative",
    "fusion_regularization",
)  # fmt: skip
SETTING_OFF = (None, False, -1)
LICENCE_MISSING = (
    "Not stated. Fill in `license` above and this section: the base model's and the data's licences bind, too."
)

TEXT = Template("""\
---
$metadata
---

# $title

$summary

## Results

$results

## How to use

$usage

## Parameters

$parameters

## Training

$training

## Data

$data

## Licence

$licence
""")
LOAD_ADAPTERS = Template("""\
import adapters
import torch
$imports
base, folder = $base, $folder
model = $model_class.from_pretrained(base$more)
adapters.init(model)
model.load_adapter_setup(folder, set_active=True, use_safetensors=True)
$extra""")
LOAD_WHOLE = Template("""\
import torch
$imports
base = $folder
model = $model_class.from_pretrained(base)
""")
ASK = {
    "qa": """\
question, context = "Onde fica o Pantanal?", "O Pantanal fica no Centro-Oeste do Brasil."
inputs = tokenizer(question, context, return_tensors="pt")
with torch.no_grad():
    output = model(**inputs)
first, last = output.start_logits.argmax(), output.end_logits.argmax()
print(tokenizer.decode(inputs["input_ids"][0, first : last + 1]))
""",
    "ner": """\
inputs = tokenizer("Ana nasceu em Recife.", return_tensors="pt")
with torch.no_grad():
    output = model(**inputs)
tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
print([(token, model.config.id2label[int(label)]) for token, label in zip(tokens, output.logits[0].argmax(-1))])
""",
    "mlm": """\
inputs = tokenizer(f"Ana nasceu em {tokenizer.mask_token}.", return_tensors="pt")
with torch.no_grad():
    output = model(**inputs)
masked = inputs["input_ids"][0] == tokenizer.mask_token_id
print(tokenizer.convert_ids_to_tokens(output.logits[0, masked].argmax(-1)))
""",
}


def public_name(name: str | None) -> str | None:
    """A hub id, or of a local folder its name alone: a card may be read by anybody."""
    return Path(name).name if is_local(name) and name is not None else name


def is_local(name: str | None) -> bool:
    """Whether a recorded base model is a folder: absolute, or relative to the saved one."""
    return name is not None and name.startswith(("/", "."))


def _base(facts: dict[str, Any]) -> str | None:
    """The base model that the training began with, as it was recorded."""
    return facts.get("trained_from", facts["base_model"])["name_or_path"]


def write_card(folder: Path, run: dict[str, Any]) -> None:
    """Writes the card of a saved folder, whole, in place of an older one.

    Args:
        folder: an `adapters-<task>` folder, or a fully fine-tuned model's.
        run: what run.json holds so far; empty for a folder whose run is not known.
    """
    write_text(folder / CARD_FILE, card_text(folder, run))


def card_text(folder: Path, run: dict[str, Any]) -> str:
    """The card of a saved folder; arguments as `write_card`."""
    whole = (folder / FULL_FILE).is_file()
    facts = read_json(folder / (FULL_FILE if whole else SETUP_FILE))["trainer"]
    options = run.get("options", {})
    setup = facts.get("setup", "full fine-tuning")
    name = options.get("hub_model_id") or folder.resolve().name
    licence = options.get("license")
    base = public_name(_base(facts))
    kind = "A fully fine-tuned model" if whole else f"`{setup}`, adapters on a frozen base model"
    task = TASKS[facts["task"]][1]
    return TEXT.substitute(
        metadata=_metadata(facts, run, whole=whole, name=name),
        title=escape_control_chars(name),
        summary=f"{kind}, for {task.replace('-', ' ')}. Base model: `{escape_control_chars(base or 'not recorded')}`.",
        results=_results(facts["task"], run),
        usage=_usage(folder, facts, name, whole=whole),
        parameters=_parameters(folder, facts, run),
        training=_training(facts, run),
        data=_data(run),
        licence=f"`{escape_control_chars(licence)}`" if licence else LICENCE_MISSING,
    )


def scores(task: str, run: dict[str, Any]) -> dict[str, float]:
    """The evaluation's scores by their names on the hub."""
    found = run.get("metrics", {}).get("eval", {})
    return {public: found[f"eval_{ours}"] for ours, public in TASKS[task][2].items() if f"eval_{ours}" in found}


def _metadata(facts: dict[str, Any], run: dict[str, Any], *, whole: bool, name: str) -> str:
    """The YAML that the hub reads."""
    task, options, data = facts["task"], run.get("options", {}), run.get("data", {})
    base = _base(facts)
    found, evaluated = scores(task, run), data.get("eval", {})
    source = evaluated.get("dataset") or Path(evaluated.get("file") or evaluated.get("held_out_of") or "unknown").name
    results = [
        EvalResult(TASKS[task][1], source, source, metric, round(value, 4), dataset_split=evaluated.get("split"))
        for metric, value in found.items()
    ]
    card = ModelCardData(
        language=facts.get("language"),
        license=options.get("license"),
        library_name="transformers" if whole else "adapters",
        pipeline_tag=TASKS[task][1],
        tags=[TASKS[task][1], *([] if whole else ["adapter-transformers"])],
        base_model=None if is_local(base) else base,
        datasets=sorted({str(part["dataset"]) for part in data.values() if "dataset" in part}) or None,
        metrics=list(found) or None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return card.to_yaml()


def _results(task: str, run: dict[str, Any]) -> str:
    """The evaluation's scores as a table."""
    found = scores(task, run)
    if not found:
        return "Not evaluated."
    evaluated = run.get("data", {}).get("eval", {})
    counted = {
        kind: evaluated[kind] for kind in ("questions", "windows", "sentences", "inputs", "blocks") if kind in evaluated
    }
    best = run.get("best") or {}
    lines = ["| metric | value |", "|---|---|", *(f"| {name} | {value:.2f} |" for name, value in found.items())]
    notes = ["on " + ", ".join(f"{count:,} {kind}" for kind, count in counted.items())] if counted else []
    if best.get("step") is not None and run["options"]["load_best_model_at_end"]:
        notes.append(f"the best epoch (step {best['step']} of {run['steps']}) was chosen on the same data")
    if "best_thresholds" in run:
        notes.append(f"`best_f1`, `best_exact` in run.json: {run['best_thresholds']}")
    said = "; ".join(notes)
    return "\n".join(lines) + (f"\n\n{said[0].upper()}{said[1:]}." if said else "")


def _usage(folder: Path, facts: dict[str, Any], name: str, *, whole: bool) -> str:
    """Code that loads the folder without this trainer, and the trainer's own command."""
    task, shared = facts["task"], "/" in name
    place = f"snapshot_download({name!r})" if shared else repr(name)
    imports = ["from huggingface_hub import snapshot_download"] if shared else []
    model_class = TASKS[task][0]
    if task == "mlm":
        imports.append("from safetensors.torch import load_file")
    imports.append(f"from transformers import {model_class}, AutoTokenizer\n")
    words = {"imports": "\n".join(imports), "folder": place, "model_class": model_class}
    if whole:
        code, tokenizer, said = LOAD_WHOLE.substitute(words), "base", ""
    else:
        base, revision = facts["base_model"]["name_or_path"], facts["base_model"].get("revision") or "main"
        local = base is None or is_local(base)
        more = "" if local or revision == "main" else f", revision={revision!r}"
        words |= {"base": repr(public_name(base) or "BASE_MODEL"), "more": more + _labels(folder, task)}
        code = LOAD_ADAPTERS.substitute(words, extra=_after_loading(folder, facts))
        other = public_name(facts.get("tokenizer"))
        tokenizer = repr(other) if other else "base"
        said = "`base` is the folder of the base model. " if local else ""
    code += f"model.eval()\ntokenizer = AutoTokenizer.from_pretrained({tokenizer})\n\n{ASK[task]}"
    needs = "`transformers`" if whole else "`adapters` and `transformers`"
    versions = facts.get("versions", {})
    tested = ", ".join(f"{one} {versions[one]}" for one in ("adapters", "transformers", "torch") if one in versions)
    lines = [f"{said}Plain {needs} load it{f' (saved with {tested})' if tested else ''}:", f"```python\n{code}```"]
    if task == "qa":
        lines.append(
            "It reads as much context as the base model does at once. The trainer that made it cuts longer ones into "
            "windows:\n\n```bash\n"
            f"python ask_qa.py {shlex.quote(folder.resolve().name)} --question QUESTION --context CONTEXT\n```"
        )
    return "\n\n".join(lines)


def _labels(folder: Path, task: str) -> str:
    """For a token classifier, its labels as arguments of `from_pretrained`."""
    if task != "ner":
        return ""
    ids = read_json(folder / HEAD_CONFIG)["label2id"]
    labels = {label: ids[label] for label in sorted(ids, key=ids.__getitem__)}
    names = {index: label for label, index in labels.items()}
    return f", label2id={labels!r}, id2label={names!r}"


def _after_loading(folder: Path, facts: dict[str, Any]) -> str:
    """What `load_adapter_setup` does not do by itself: the last-layer trick, and a head tied to the embeddings."""
    tricked = [
        name for name in _members(facts) if read_json(folder / name / ADAPTER_CONFIG).get(ATTENTION_ONLY_LAST_LAYER)
    ]
    lines = []
    if tricked:
        lines += [
            "# In the last layer these adapters stand after the attention block only.",
            "last_layer = [layer for _, layer in model.iter_layers()][-1]",
            f"for name in {tricked!r}:",
            "    last_layer.output.delete_adapter(name)",
        ]
    if facts["task"] == "mlm":
        lines += [
            "# The head was trained along, as far as it is not the embeddings.",
            'model.load_state_dict(load_file(f"{folder}/model_head.safetensors"), strict=False)',
        ]
    return "".join(f"{line}\n" for line in lines)


def _parameters(folder: Path, facts: dict[str, Any], run: dict[str, Any]) -> str:
    """What each adapter is, and the counts as a table."""
    lines = [_described(name, read_json(folder / name / ADAPTER_CONFIG)) for name in _members(facts)]
    table = run.get("parameters")
    if table is None:
        return "\n".join([*lines, "", "Not counted."]).strip()
    rows = {"base with head": table["base"], **table["parts"], "added": table["added"], "trained": table["trainable"]}
    lines += ["", "| part | parameters | of the base |", "|---|---|---|"]
    lines += [
        f"| {escape_control_chars(name)} | {count:,} | {100 * count / table['base']:.2f} % |"
        for name, count in rows.items()
    ]
    return "\n".join(lines).strip()


def _members(facts: dict[str, Any]) -> list[str]:
    """Names of the adapters, the language adapter first; none of a fully fine-tuned model."""
    language = facts.get("language_adapter")
    return [*([language] if language else []), *facts.get("tasks", [])]


def _described(name: str, document: dict[str, Any]) -> str:
    """An adapter in a line of a list."""
    config = document["config"]
    places = {"mh_adapter": "attention", "output_adapter": "feed-forward"}
    after = " and ".join(place for key, place in places.items() if config[key])
    parts = [f"after {after}", f"reduction {config['reduction_factor']}", str(config["non_linearity"])]
    parts += [f"invertible ({config['inv_adapter']})"] if config.get("inv_adapter") else []
    parts += [f"not in layers {config['leave_out']}, counted from 0"] if config.get("leave_out") else []
    parts += ["in the last layer after attention only"] if document.get(ATTENTION_ONLY_LAST_LAYER) else []
    return escape_control_chars(f"- {name}: {', '.join(parts)}")


def _training(facts: dict[str, Any], run: dict[str, Any]) -> str:
    """The options that decide what comes out, what it ran on, and how long."""
    options = run.get("options")
    if options is None:
        return "Not recorded."
    settings = {name: options[name] for name in SETTINGS if options.get(name) not in SETTING_OFF}
    lines = [f"| {name} | {escape_control_chars(value)} |" for name, value in settings.items()]
    versions = ", ".join(f"{name} {version}" for name, version in (facts.get("versions") or {}).items())
    times = run.get("times", {})
    where = f"{run.get('device')}, {times.get('started')}, {times.get('seconds', 0):,.0f} s. Versions: {versions}."
    commit = f" Trainer at commit {run['commit']}." if run.get("commit") else ""
    return "\n".join(["| option | value |", "|---|---|", *lines, "", escape_control_chars(where + commit)])


def _data(run: dict[str, Any]) -> str:
    """Where each part came from: data sets by their hub id, files by name and hash."""
    parts = run.get("data")
    if not parts:
        return "Not recorded."
    lines = []
    for part, facts in parts.items():
        if "dataset" in facts:
            source = " ".join(str(facts[key]) for key in ("dataset", "config", "split") if facts.get(key))
        elif "file" in facts:
            source = f"{Path(facts['file']).name}, sha256 {facts['sha256']}"
        else:
            source = f"held out of {Path(facts['held_out_of']).name}"
        counts = ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in facts.items() if type(value) is int)
        lines.append(f"- {part}: `{escape_control_chars(source)}`; {counts}")
    return "\n".join(lines)

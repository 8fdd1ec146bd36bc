"""What a saved folder holds, read as plain data: adapters, fusion, head, and how they stand together.

Present folders, `adapters-<task>/`, are the library's own layout (`save_adapter_setup`), so that plain `adapters` code
loads them:

    adapter_setup.json          the composition, and beside it what we add: task, base model, windows, versions
    <name>/                     one folder an adapter: adapter_config.json, adapter.safetensors
    <name>,<name>/              the fusion: adapter_fusion_config.json, model_adapter_fusion.safetensors
    head_config.json, model_head.safetensors

Folders of 2021 (adapter-transformers 2.x) have no JSON that puts them together, and weights in `.bin` files:

    adapter_config.json, pytorch_adapter.bin                                    one adapter, or in a folder each:
    <name>/                                                                     what `save_all_adapters` left
    adapter_fusion_config.json, pytorch_model_adapter_fusion.bin                the fusion, or it in <name>,<name>/
    head_config.json, pytorch_model_head.bin                                    beside any of them
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adapters import BnConfig
from adapters.utils import (
    ACTIVATION_RENAME,
    ADAPTERFUSION_WEIGHTS_NAME,
    HEAD_WEIGHTS_NAME,
    SAFE_ADAPTERFUSION_WEIGHTS_NAME,
    SAFE_HEAD_WEIGHTS_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_NAME,
)
from adapters.utils import ADAPTERFUSION_CONFIG_NAME as FUSION_CONFIG
from adapters.utils import CONFIG_NAME as ADAPTER_CONFIG
from adapters.utils import HEAD_CONFIG_NAME as HEAD_CONFIG
from adapters.utils import SETUP_CONFIG_NAME as SETUP_FILE
from huggingface_hub import snapshot_download
from transformers.activations import ACT2FN

from adapter_qa.config.options import ADAPTER_NAME
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json
from adapter_qa.models.base_config import HUB_ID, holds_adapters
from adapter_qa.models.weights import weight_names, weights_file

FULL_FILE = "full_setup.json"  # beside a fully fine-tuned model, in place of adapter_setup.json
ATTENTION_ONLY_LAST_LAYER = (
    "houlsby_MHA_lastlayer"  # key in adapter_config.json: no adapter after the last feed-forward block
)
LANGUAGE = "mlm"  # name of a language adapter, in 2021 too
TASK_CLASSES = ("ForQuestionAnswering", "ForTokenClassification")
HEAD_TASKS = {"ForQuestionAnswering": "qa", "ForTokenClassification": "ner", "ForMaskedLM": "mlm"}
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-]")  # hub adapters have names such as sts/sts-b@ukp
SMALLEST_REDUCTION = 1 / 16  # smaller ones make bottlenecks that fill the memory
ACTIVATIONS = {*ACT2FN, "leakyrelu"}
WINDOWS: dict[str, type] = {  # what a run records of its windows and spans
    "max_seq_length": int, "doc_stride": int, "n_best_size": int, "max_answer_length": int, "version_2": bool,
    "null_score_diff_threshold": float,
}  # fmt: skip
LABEL = re.compile(r"[\w.:/&+-]{1,102}")
PLACE = re.compile(r"layer\.(\d+)\.(attention\.)?output\.adapters\.([^.]+)\.")  # of an adapter in a weight's name


@dataclass(frozen=True)
class AdapterSource:
    """One adapter of a setup: where it comes from and what it is.

    Attributes:
        name: its name within the model.
        config: its full configuration in the library's present terms.
        folder: where its weights are; None for a fresh one.
        trick: it stands after the attention block only in the last layer (see `ATTENTION_ONLY_LAST_LAYER`).
        language: language code recorded with it, if any.
        old: it was saved in 2021; its activations have other names there (see `config_of`).
        note: what a person should know of how it was read.
    """

    name: str
    config: dict[str, Any]
    folder: Path | None = None
    attention_only_last_layer: bool = False
    language: str | None = None
    old: bool = False
    note: str | None = None

    def stands_at(self, layer: int, location: str, layers: int) -> bool:
        """Whether it has a module in `layer` (from 0) at `location` ("mh_adapter" or "output_adapter")."""
        if layer in self.config["leave_out"] or not self.config[location]:
            return False
        return not (self.attention_only_last_layer and layer == layers - 1 and location == "output_adapter")


@dataclass(frozen=True)
class SavedHead:
    """The head in a saved folder.

    Attributes:
        folder: where its files are.
        model_class: the model class it was saved from, e.g. BertForQuestionAnswering.
        labels: class names in order; without meaning for "qa" and "mlm".
    """

    folder: Path
    model_class: str
    labels: tuple[str, ...]

    @property
    def task(self) -> str | None:
        """ "qa", "ner" or "mlm"; None for a head of another kind, such as the library's flexible ones."""
        return next((task for ending, task in HEAD_TASKS.items() if self.model_class.endswith(ending)), None)


@dataclass(frozen=True)
class SavedAdapterSetup:
    """A whole saved folder.

    Attributes:
        folder: where it is.
        adapters: folder of each adapter by its name.
        language: name of the language adapter under the task, if there is one.
        tasks: names of the task adapters, in fusion order where they are fused.
        composition: "stack" or "fuse", how the language adapter joins the fusion.
        fusion: folder of the fusion's files, if there is one.
        head: the head, if there is one.
        facts: what this trainer wrote beside the composition; empty for folders that others wrote.
        note: what a person should know of how it was read.
    """

    folder: Path
    adapters: dict[str, Path]
    language: str | None
    tasks: tuple[str, ...]
    composition: str = "stack"
    fusion: Path | None = None
    head: SavedHead | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    note: str | None = None


# ---------------------------------------------------------------- finding


def is_adapter_dir(folder: Path) -> bool:
    """Whether a folder is a saved adapter, fusion or setup itself."""
    return any((folder / name).is_file() for name in (SETUP_FILE, ADAPTER_CONFIG, FUSION_CONFIG))


def find_folder(option: str, given: str) -> Path:
    """The folder that an option means: a local one, the only adapters-* of a run folder, or a hub id's download.

    Raises:
        UserError: there is no such folder, or it holds no or several saved adapters.
    """
    folder = Path(given)
    if not folder.is_dir():
        folder = _from_hub(option, given)
    if is_adapter_dir(folder):
        return folder
    inside = sorted(path for path in folder.glob("adapters-*") if is_adapter_dir(path))
    if len(inside) == 1:
        return inside[0]
    if inside:
        names = ", ".join(path.name for path in inside)
        raise UserError(f"{option} {given}: holds {names}; give one of them")
    if any(folder.glob(f"*/{ADAPTER_CONFIG}")):  # the run folder of the 2021 script
        return folder
    if (folder / "config.json").is_file() and holds_adapters(read_json(folder / "config.json")):
        raise UserError(
            f"{option} {given}: is a whole model saved with adapters inside, whose adapters do not load; save them "
            "with save_adapter, save_adapter_fusion and save_head where the model was trained, and give that folder"
        )
    raise UserError(
        f"{option} {given}: holds no {SETUP_FILE} or {ADAPTER_CONFIG}; "
        "give the adapters-<task> folder of a finished run"
    )


def _from_hub(option: str, given: str) -> Path:
    if not HUB_ID.fullmatch(given) or "/" not in given:
        raise UserError(
            f"{option} {given}: no such folder; give an adapters-<task> folder or a hub id such as org/name"
        )
    try:
        return Path(snapshot_download(given, allow_patterns=["*.json", "*.safetensors", "*.bin"]))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{option} {given}: no such folder, and the hub has it neither ({reason})") from error


# ---------------------------------------------------------------- setups


def read_setup(folder: Path) -> SavedAdapterSetup:
    """What a folder that `find_folder` found holds, of whatever year.

    Raises:
        UserError: it is damaged, or holds a composition that this trainer does not make.
    """
    if (folder / SETUP_FILE).is_file():
        return _read_present(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        name = NOT_IN_NAMES.sub("_", str(read_json(folder / ADAPTER_CONFIG).get("name")))
        return SavedAdapterSetup(folder, {name: folder}, None, (name,), head=read_head(folder))
    return _read_2021(folder)


def _read_present(folder: Path) -> SavedAdapterSetup:
    document = read_json(folder / SETUP_FILE)
    facts = read_facts(folder / SETUP_FILE, document)
    try:
        names = _flatten(document["adapter_setup"])
        language, tasks = facts["language_adapter"], tuple(facts["tasks"])
        composition, fused = facts["composition"], bool(facts["fused"])
    except (KeyError, TypeError, IndexError, RecursionError) as error:
        raise UserError(f"{folder / SETUP_FILE}: not written by this trainer, or damaged ({error!r})") from error
    members = ([language] if language else []) + list(tasks)
    known = composition in ("stack", "fuse") and fused == (len(tasks) > 1) and len(tasks) > 0
    if members != names or not known or not all(ADAPTER_NAME.fullmatch(name) for name in names):
        raise UserError(f"{folder / SETUP_FILE}: its composition {names} and its members {members} disagree")
    fusion = folder / ",".join(members if composition == "fuse" else tasks) if fused else None
    adapters = {name: folder / name for name in names}
    return SavedAdapterSetup(folder, adapters, language, tasks, composition, fusion, read_head(folder), facts)


def read_facts(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    """What this trainer wrote of a run, under "trainer"; later code can rely on its types.

    Args:
        path: of the JSON file, for messages.
        document: what is in it.

    Raises:
        UserError: it is missing, or a value is not of the type that is written.
    """
    facts = document.get("trainer")
    if not isinstance(facts, dict):
        raise UserError(f"{path}: not written by this trainer, or damaged (no object 'trainer')")
    base = facts.get("base_model", {})
    problems = []
    if not isinstance(base, dict) or not all(
        isinstance(base.get(key), (str, type(None))) for key in ("name_or_path", "revision", "fingerprint")
    ):
        problems.append(f"{path}: 'base_model' must be an object of name_or_path, revision and fingerprint, all text")
    if not isinstance(facts.get("tokenizer"), (str, type(None))):
        problems.append(f"{path}: 'tokenizer' must be text or null")
    windows = facts.get("windows")
    if windows is not None and not _are_windows(windows):
        problems.append(f"{path}: 'windows' must be an object of {', '.join(WINDOWS)}, whole numbers above 0")
    if problems:
        raise UserError(problems)
    return facts


def _are_windows(windows: Any) -> bool:
    """Whether an object says how windows and spans are made, with values that can be."""
    if not isinstance(windows, dict) or set(windows) != set(WINDOWS):
        return False
    typed = all(
        type(value) is WINDOWS[key] or (type(value), WINDOWS[key]) == (int, float) for key, value in windows.items()
    )
    counts = ("max_seq_length", "n_best_size", "max_answer_length")
    return typed and windows["doc_stride"] >= 0 and all(1 <= windows[key] < 2**20 for key in counts)


def _flatten(block: dict[str, Any]) -> list[str]:
    """Adapter names of a composition in the library's JSON form, in order."""
    if block["type"] == "single":
        return [str(block["children"][0])]
    return [name for child in block["children"] for name in _flatten(child)]


def _read_2021(folder: Path) -> SavedAdapterSetup:
    """Several adapters of 2021 in one folder: the members of a fusion, or a QA adapter with its language adapter.

    Raises:
        UserError: what they are together cannot be told.
    """
    documents = {path.parent: read_json(path) for path in sorted(folder.glob(f"*/{ADAPTER_CONFIG}"))}
    adapters = {str(document.get("name")): path for path, document in documents.items()}
    if len(adapters) < len(documents):
        listed = ", ".join(f"{document.get('name')} in {path.name}" for path, document in documents.items())
        raise UserError(f"{folder}: two of its adapters have one name ({listed}); give the folder of one of them")
    odd = [name for name in adapters if not ADAPTER_NAME.fullmatch(name)]
    if odd:
        raise UserError(f"{folder}: adapter names are made of letters, digits, - and _; here is {', '.join(odd)}")
    inverted = [str(one.get("name")) for path, one in documents.items() if config_of(one, path)["inv_adapter"]]
    fusion = next(
        (path.parent for path in [folder / FUSION_CONFIG, *folder.glob(f"*/{FUSION_CONFIG}")] if path.is_file()), None
    )
    if fusion is not None:
        tasks = tuple(str(read_json(fusion / FUSION_CONFIG).get("name")).split(","))
        absent = [name for name in tasks if name not in adapters]
        if absent:
            raise UserError(
                f"{folder}: its fusion joins {', '.join(tasks)}, but no folder in it holds {', '.join(absent)}"
            )
        languages = [name for name in adapters if name not in tasks]
    else:
        languages = [name for name in adapters if name == LANGUAGE or name in inverted]
        tasks = tuple(name for name in adapters if name not in languages) or tuple(languages)
        languages = [name for name in languages if name not in tasks]
    if len(languages) > 1 or (len(tasks) > 1 and fusion is None):
        listed = ", ".join(str(path) for path in adapters.values())
        raise UserError(f"{folder}: which of its adapters belong together cannot be told; give one of {listed}")
    language = languages[0] if languages else None
    note = None
    if language is not None:
        note = (
            f"{folder}: {language} is put under {' and '.join(tasks)}; the scripts of 2021 trained without it, "
            "unawares, and asked with it; --load_lang_adapter none leaves it out"
        )
    head = read_head(folder) or read_head(adapters[tasks[0]])
    return SavedAdapterSetup(folder, adapters, language, tasks, fusion=fusion, head=head, note=note)


def check_saved_files(saved: SavedAdapterSetup) -> None:
    """Looks at the files of a setup's fusion and head, before a model is there to load them into.

    Raises:
        UserError: one is missing or damaged.
    """
    if saved.fusion is not None:
        read_json(saved.fusion / FUSION_CONFIG)
        weight_names(weights_file(saved.fusion, SAFE_ADAPTERFUSION_WEIGHTS_NAME, ADAPTERFUSION_WEIGHTS_NAME))
    if saved.head is not None:
        weight_names(weights_file(saved.head.folder, SAFE_HEAD_WEIGHTS_NAME, HEAD_WEIGHTS_NAME))


def read_head(folder: Path) -> SavedHead | None:
    """The head in a folder, None where there is none.

    Raises:
        UserError: its JSON is damaged.
    """
    if not (folder / HEAD_CONFIG).is_file():
        return None
    document = read_json(folder / HEAD_CONFIG)
    ids = document.get("label2id") or {}
    numbers: list[Any] = list(ids.values()) if isinstance(ids, dict) else [None]
    if not all(type(number) is int for number in numbers) or not all(map(LABEL.fullmatch, ids)):
        raise UserError(f"{folder / HEAD_CONFIG}: 'label2id' must be an object of labels with their numbers")
    if sorted(numbers) != list(range(len(numbers))):
        raise UserError(f"{folder / HEAD_CONFIG}: the numbers in 'label2id' must be 0 to {len(numbers) - 1}, each once")
    return SavedHead(folder, str(document.get("model_class")), tuple(sorted(ids, key=ids.__getitem__)))


# ---------------------------------------------------------------- adapters


def config_of(document: dict[str, Any], where: Path) -> dict[str, Any]:
    """A bottleneck adapter's configuration in present terms, from its adapter_config.json; its values are checked.

    Until version 3 "gelu" was the tanh approximation, today's "gelu_new" (adapters, `ACTIVATION_RENAME`).

    Args:
        document: the file's content.
        where: the file or its folder, for messages.

    Raises:
        UserError: it is no configuration of a bottleneck adapter, or a value in it cannot be.
    """
    given = document.get("config")
    if not isinstance(given, dict) or not {"mh_adapter", "output_adapter", "reduction_factor"} <= set(given):
        raise UserError(
            f"{where}: no bottleneck adapter; only pfeiffer and houlsby kinds can be stacked and fused here"
        )
    config = {**given, "leave_out": given.get("leave_out") or []}
    wrong = [f"{key} {value!r}" for key, value in config.items() if not _can_be(key, value)]
    if config.get("inv_adapter") and config.get("inv_adapter_reduction_factor") is None:
        wrong.append("inv_adapter without inv_adapter_reduction_factor")
    if wrong:
        raise UserError(f"{where}: no configuration of a bottleneck adapter: {', '.join(wrong)}")
    if is_old(document) and "non_linearity" in config:
        config["non_linearity"] = ACTIVATION_RENAME.get(config["non_linearity"], config["non_linearity"])
    return config


def _can_be(key: str, value: Any) -> bool:
    """Whether the library builds an adapter with this value in its configuration."""
    if key not in BnConfig.__dataclass_fields__:
        return key == "architecture" and value is None
    if key in ("reduction_factor", "inv_adapter_reduction_factor"):
        factors = value.values() if isinstance(value, dict) else [value]
        return all(map(is_reduction, factors)) or (key != "reduction_factor" and value is None)
    if key == "leave_out":
        return isinstance(value, list) and all(type(layer) is int for layer in value)
    if key == "non_linearity":
        return isinstance(value, str) and value.lower() in ACTIVATIONS
    if key == "inv_adapter":
        return value in (None, "nice", "glow")
    if isinstance(value, str) and value in ("learned", "post_add"):
        return (key, value) in (("scaling", "learned"), ("residual_before_ln", "post_add"))
    default = BnConfig.__dataclass_fields__[key].default
    kinds = {bool: (bool,), float: (int, float), int: (int,), str: (str,)}.get(type(default), (bool, type(None)))
    return type(value) in kinds or (key, value) == ("init_weights_seed", None)


def is_reduction(factor: Any) -> bool:
    """Whether it is a number that a hidden size can be divided by, to something of at most 16 times its size."""
    return type(factor) in (int, float) and SMALLEST_REDUCTION <= factor < math.inf


def is_old(document: dict[str, Any]) -> bool:
    """Whether an adapter_config.json was written before the library recorded its version."""
    return "version" not in document


def read_adapter(folder: Path, name: str, base_config: dict[str, Any]) -> AdapterSource:
    """One saved adapter, under the name it is to have in the model. Its weights are looked at by name.

    Raises:
        UserError: the folder is damaged, the adapter is for another encoder, or it is no bottleneck adapter.
    """
    document = read_json(folder / ADAPTER_CONFIG)
    problems = []
    for key in ("model_type", "hidden_size"):
        if document.get(key) != base_config.get(key):
            problems.append(
                f"{folder}: its {key} is {document.get(key)}, the base model's {base_config.get(key)}; "
                "an adapter fits only the kind and size of encoder it was trained on"
            )
    try:
        config = config_of(document, folder)
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    attention_only_last_layer, language = bool(document.get(ATTENTION_ONLY_LAST_LAYER)), document.get("language")
    source = AdapterSource(name, config, folder, attention_only_last_layer, language, is_old(document))
    return _compare_with_weights(source, str(document.get("name")), int(base_config["num_hidden_layers"]))


def _compare_with_weights(source: AdapterSource, saved_as: str, layers: int) -> AdapterSource:
    """The last-layer trick of 2021 is recorded nowhere: only the weights lack the block.

    Raises:
        UserError: other weights than those are missing, or the encoder has fewer layers.
    """
    assert source.folder is not None
    names = weight_names(weights_file(source.folder, SAFE_WEIGHTS_NAME, WEIGHTS_NAME))
    found = {
        (int(place[1]), "mh_adapter" if place[2] else "output_adapter")
        for place in map(PLACE.search, names)
        if place is not None and place[3] == saved_as
    }
    wanted = {
        (layer, location)
        for layer in range(layers)
        for location in ("mh_adapter", "output_adapter")
        if source.stands_at(layer, location, layers)
    }
    has = 1 + max((layer for layer, _ in found), default=-1)
    if has > layers:
        raise UserError(f"{source.folder}: has weights for {has} layers, the base model has {layers}")
    missing = sorted(wanted - found)
    if missing == [(layers - 1, "output_adapter")] and source.config["mh_adapter"]:
        note = (
            f"{source.folder}: has no weights after the last feed-forward block; it was trained with "
            "--houlsby_MHA_lastlayer True and is used so"
        )
        return replace(source, attention_only_last_layer=True, note=note)
    if missing:
        places = ", ".join(f"layer {layer} ({location})" for layer, location in missing[:3])
        raise UserError(
            f"{source.folder}: weights are missing for {places}{' ...' if len(missing) > 3 else ''}; the file is "
            f"damaged, or was saved from an encoder with fewer layers than the {layers} of the base model"
        )
    return source


def read_any_adapter(option: str, given: str, name: str | None, base_config: dict[str, Any]) -> AdapterSource:
    """The one adapter that a path means: itself, or the task adapter of a saved setup.

    Args:
        option: the option's name, for messages.
        given: path or hub id.
        name: its name in the model; None keeps the saved one.
        base_config: config.json of the base model.

    Raises:
        UserError: not found, damaged, not fitting, or a fusion where one adapter is wanted.
    """
    setup = read_setup(find_folder(option, given))
    if len(setup.tasks) > 1:
        members = ", ".join(str(setup.adapters[task]) for task in setup.tasks)
        raise UserError(f"{option} {given}: holds a fusion; give one of its adapters: {members}")
    return read_adapter(setup.adapters[setup.tasks[0]], name or setup.tasks[0], base_config)


def check_language_adapter(option: str, given: str) -> None:
    """Refuses the adapter of a task where a language adapter is wanted; stacked, it would do harm without a word.

    A task adapter is known by the model class it was saved from, unless its name or its invertible part say otherwise:
    runs save the language adapter under their task from the same model.

    Raises:
        UserError: it is one, or cannot be found.
    """
    setup = read_setup(find_folder(option, given))
    document = read_json(setup.adapters[setup.tasks[0]] / ADAPTER_CONFIG)
    config = document.get("config")
    invertible = isinstance(config, dict) and config.get("inv_adapter")
    model_class = str(document.get("model_class"))
    if document.get("name") == LANGUAGE or invertible or not model_class.endswith(TASK_CLASSES):
        return
    instead = setup.adapters[setup.language] if setup.language else "the folder of a run of run_mlm_adapter.py"
    raise UserError(
        f"{option} {given}: holds {document.get('name')}, the adapter of a {model_class} and no language adapter; "
        f"give {instead}"
    )

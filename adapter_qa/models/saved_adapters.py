"""What a saved folder holds, read as plain data: adapters, fusion, head, and how they are composed.

This trainer writes `adapters-<task>/` in the library's own layout (`save_adapter_setup`), so that plain `adapters` code
can load it:

    adapter_setup.json          the composition, and under "trainer" the metadata of the run (`metadata.RunMetadata`)
    <name>/                     a folder for each adapter: adapter_config.json, adapter.safetensors
    <name>,<name>/              the fusion: adapter_fusion_config.json, model_adapter_fusion.safetensors
    head_config.json, model_head.safetensors

Folders of adapter-transformers 2.x have no file that describes the composition, and their weights are `.bin` files:

    adapter_config.json, pytorch_adapter.bin                        a single adapter
    <name>/                                                         or a folder for each adapter (`save_all_adapters`)
    adapter_fusion_config.json, pytorch_model_adapter_fusion.bin    the fusion, here or in <name>,<name>/
    head_config.json, pytorch_model_head.bin                        beside any of them
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from adapter_qa.config.options import ADAPTER_NAME
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json
from adapter_qa.data.label_schemes import LABEL_CHARACTER
from adapter_qa.models.file_names import (
    ADAPTER_CONFIG,
    FUSION_CONFIG,
    FUSION_WEIGHTS,
    HEAD_CONFIG,
    HEAD_WEIGHTS,
    SETUP_FILE,
)
from adapter_qa.models.flexible_heads import FlexibleHead, read_flexible_head
from adapter_qa.models.metadata import Origin, RunMetadata, SetupDocument, TrainedOn, read_document, read_metadata
from adapter_qa.models.saved_fusion import read_fusion_config
from adapter_qa.models.tasks import TASKS, Task, task_of_class
from adapter_qa.models.weights import find_weights, weight_names

# Key in adapter_config.json: in the last layer the adapter has no module after the feed-forward block.
ATTENTION_ONLY_LAST_LAYER = "houlsby_MHA_lastlayer"
TRAINED_ON = "trained_on"  # key in adapter_config.json: the base model, for an adapter without its setup

LANGUAGE_ADAPTER = "mlm"  # the name of a language adapter in every setup
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-]")  # adapters on the hub have names such as sts/sts-b@ukp
ClassName = Annotated[str, msgspec.Meta(pattern=rf"\A{LABEL_CHARACTER}{{1,102}}\Z")]


@dataclass(frozen=True)
class SavedHead:
    """The head in a saved folder.

    Attributes:
        model_class: the class of the model that it was saved from, e.g. BertForQuestionAnswering.
        labels: class names in order; without meaning for "qa" and "mlm".
        flexible: what is recorded of a named head of an AdapterModel class; None for a usual head.
    """

    folder: Path
    model_class: str
    labels: tuple[str, ...]
    flexible: FlexibleHead | None = None

    @property
    def task(self) -> Task | None:
        """The task that it can be used for; None for other heads."""
        return self.flexible.task if self.flexible is not None else task_of_class(self.model_class)

    @property
    def why_not_used(self) -> str:
        """Why a run for another task cannot use it, in words that follow the folder."""
        if self.flexible is None:
            return f"its head belongs to {self.model_class}"
        task = self.flexible.task
        what = self.flexible.problem if task is None else f"is for {TASKS[task].name}"
        return f"its head {self.flexible.name} {what}"

    def note(self, task: Task) -> str | None:
        """Return a line for the user about what becomes of the head in a run for a task; None if nothing is special."""
        if self.task != task:
            instead = "that of the base model is used" if task == "mlm" else "a new one starts from random values"
            return f"{self.folder}: {self.why_not_used}; it is left out, and {instead}"
        if self.flexible is None:
            return None
        return (
            f"{self.folder}: its head {self.flexible.name} of a {self.model_class} has one layer, which is used as the "
            f"head for {TASKS[task].name}"
        )


@dataclass(frozen=True)
class SavedAdapterSetup:
    """What a saved folder holds.

    Attributes:
        adapters: folder of each adapter by its name.
        language: name of the language adapter.
        tasks: names of the task adapters, in the order of the fusion if they are fused.
        composition: "stack" or "fuse", how the language adapter joins the fusion.
        fusion: folder of the fusion's files.
        metadata: what this trainer recorded; of folders of other programs at most the composition.
        note: for the user: an assumption that was made to read the folder.
    """

    folder: Path
    adapters: dict[str, Path]
    language: str | None
    tasks: tuple[str, ...]
    composition: str = "stack"
    fusion: Path | None = None
    head: SavedHead | None = None
    metadata: RunMetadata = field(default_factory=RunMetadata)
    note: str | None = None


# Compositions in the library's JSON form, as far as this trainer can use them.
class _Single(msgspec.Struct, tag_field="type", tag="single"):
    children: tuple[str]


class _Fuse(msgspec.Struct, tag_field="type", tag="Fuse"):
    children: tuple[_Single, ...]


class _Stack(msgspec.Struct, tag_field="type", tag="Stack"):
    children: tuple[_Single | _Fuse, ...]


class _ComposedDocument(SetupDocument, kw_only=True):
    adapter_setup: _Single | _Fuse | _Stack


class _AdapterDocument(msgspec.Struct):
    trained_on: TrainedOn


class _HeadDocument(msgspec.Struct):
    model_class: str | None = None
    label2id: dict[ClassName, int] | None = None


# ---------------------------------------------------------------- reading


def read_setup(folder: Path) -> SavedAdapterSetup:
    """Read what a folder that `saved_folders.find_folder` returned holds.

    Raises:
        UserError: if the folder is damaged, or its composition is one that this trainer does not support.
    """
    if (folder / SETUP_FILE).is_file():
        return _read_setup_file(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        name = NOT_IN_NAMES.sub("_", str(read_json(folder / ADAPTER_CONFIG).get("name")))
        return SavedAdapterSetup(folder, {name: folder}, None, (name,), head=read_head(folder))
    return _read_legacy_setup(folder)


def _read_setup_file(folder: Path) -> SavedAdapterSetup:
    path = folder / SETUP_FILE
    document = read_document(path, _ComposedDocument)
    names = _adapter_names(document.adapter_setup)
    metadata = document.trainer or _composed(path, document.adapter_setup)
    composition, tasks, adapters = metadata.composition, metadata.tasks, list(metadata.adapters)
    is_consistent = composition in ("stack", "fuse") and metadata.fused == (len(tasks) > 1) and len(tasks) > 0
    if adapters != names or not is_consistent or not all(map(ADAPTER_NAME.fullmatch, names)):
        raise UserError(f"{path}: is damaged: its composition {names} and its adapters {adapters} disagree")
    fusion = folder / ",".join(names if composition == "fuse" else tasks) if metadata.fused else None
    paths = {name: folder / name for name in names}
    language, head = metadata.language_adapter, read_head(folder)
    return SavedAdapterSetup(folder, paths, language, tasks, composition, fusion, head, metadata)


def _composed(path: Path, block: _Single | _Fuse | _Stack) -> RunMetadata:
    """Return which adapters of a composition are for language and task, where only the composition is recorded."""
    blocks = block.children if isinstance(block, _Stack) else (block,)
    names = [_adapter_names(part) for part in blocks]
    if not 1 <= len(blocks) <= 2 or any(isinstance(part, _Fuse) for part in blocks[:-1]):
        raise UserError(
            f"{path}: its composition {names} cannot be used; only a task adapter or a fusion can, alone or on one "
            "language adapter"
        )
    language = names[0][0] if len(blocks) == 2 else None
    return RunMetadata(language_adapter=language, tasks=tuple(names[-1]), fused=isinstance(blocks[-1], _Fuse))


def _adapter_names(block: _Single | _Fuse | _Stack) -> list[str]:
    if isinstance(block, _Single):
        return [*block.children]
    return [name for child in block.children for name in _adapter_names(child)]


def read_origin(folder: Path, document: dict[str, Any]) -> Origin | None:
    """Return on what the adapter in a folder was trained; None if it was not recorded.

    Args:
        folder: the adapter's own, inside that of its setup or alone.
        document: its adapter_config.json.

    Raises:
        UserError: if a record is damaged.
    """
    setup_file = folder.parent / SETUP_FILE
    if setup_file.is_file() and folder.name in (metadata := read_metadata(setup_file)).adapters:
        return Origin(folder.parent, metadata)
    if TRAINED_ON not in document:
        return None
    return Origin(folder, read_document(folder / ADAPTER_CONFIG, _AdapterDocument).trained_on)


def read_head(folder: Path) -> SavedHead | None:
    """Read the head in a folder; None if there is none. Raise UserError if its JSON is damaged."""
    path = folder / HEAD_CONFIG
    if not path.is_file():
        return None
    content = read_json(path)
    flexible = read_flexible_head(content)
    if flexible is not None:
        return SavedHead(folder, str(content.get("model_class")), flexible.labels, flexible)
    document = read_document(path, _HeadDocument)
    ids = document.label2id or {}
    if sorted(ids.values()) != list(range(len(ids))):
        raise UserError(f"{path}: the numbers in 'label2id' must be 0 to {len(ids) - 1}, each once")
    return SavedHead(folder, str(document.model_class), tuple(sorted(ids, key=ids.__getitem__)))


def check_saved_files(saved: SavedAdapterSetup) -> None:
    """Check the files of a setup's fusion and head before a model is loaded.

    Raises:
        UserError: if a file is missing or damaged.
    """
    if saved.fusion is not None:
        read_fusion_config(saved.fusion)
        weight_names(find_weights(saved.fusion, *FUSION_WEIGHTS))
    if saved.head is not None:
        weight_names(find_weights(saved.head.folder, *HEAD_WEIGHTS))


# ---------------------------------------------------------------- adapter-transformers 2.x


def _read_legacy_setup(folder: Path) -> SavedAdapterSetup:
    """Read several adapters of adapter-transformers 2.x: those of a fusion, or a task and its language adapter."""
    documents = {path.parent: read_json(path) for path in sorted(folder.glob(f"*/{ADAPTER_CONFIG}"))}
    adapters = _legacy_adapters(folder, documents)
    fusion_configs = [folder / FUSION_CONFIG, *folder.glob(f"*/{FUSION_CONFIG}")]
    fusion = next((path.parent for path in fusion_configs if path.is_file()), None)
    if fusion is not None:
        tasks = tuple(str(read_json(fusion / FUSION_CONFIG).get("name")).split(","))
        missing = ", ".join(name for name in tasks if name not in adapters)
        if missing:
            raise UserError(f"{folder}: is incomplete: its fusion joins {', '.join(tasks)}, but {missing} is missing")
    else:
        tasks = tuple(name for name, path in adapters.items() if not is_for_language(documents[path]))
        tasks = tasks or tuple(adapters)  # if all are language adapters, they are the task adapters
    languages = [name for name in adapters if name not in tasks]
    if len(languages) > 1 or (len(tasks) > 1 and fusion is None):
        paths = ", ".join(map(str, adapters.values()))
        raise UserError(f"{folder}: it is unclear which of its adapters belong together; give one of {paths}")
    language = languages[0] if languages else None
    note = None
    if language is not None:
        trained_without = (
            "the scripts for adapter-transformers 2.x unintentionally trained without it, but answered with it; "
            if is_legacy(documents[adapters[language]])
            else ""
        )
        note = (
            f"{folder}: the language adapter {language} is stacked under {' and '.join(tasks)}; {trained_without}"
            "--load_lang_adapter none leaves it out"
        )
    head = read_head(folder) or read_head(adapters[tasks[0]])
    return SavedAdapterSetup(folder, adapters, language, tasks, fusion=fusion, head=head, note=note)


def _legacy_adapters(folder: Path, documents: dict[Path, dict[str, Any]]) -> dict[str, Path]:
    """Return the folder of each adapter by its name; `documents` are their adapter_config.json by folder."""
    adapters = {str(document.get("name")): path for path, document in documents.items()}
    if len(adapters) < len(documents):
        names = ", ".join(f"{document.get('name')} in {path.name}" for path, document in documents.items())
        raise UserError(f"{folder}: two of its adapters have the same name ({names}); give the folder of one of them")
    invalid = [name for name in adapters if not ADAPTER_NAME.fullmatch(name)]
    if invalid:
        raise UserError(
            f"{folder}: has adapters with the names {', '.join(invalid)}; only letters, digits, - and _ are allowed"
        )
    return adapters


def is_legacy(document: dict[str, Any]) -> bool:
    """Return whether adapter-transformers 2.x, which recorded no version, wrote an adapter_config.json."""
    return "version" not in document


def is_for_language(document: dict[str, Any]) -> bool:
    """Return whether an adapter_config.json has the name or the invertible part (MAD-X) of a language adapter."""
    config = document.get("config")
    is_invertible = isinstance(config, dict) and bool(config.get("inv_adapter"))
    return is_invertible or document.get("name") == LANGUAGE_ADAPTER

"""What the trainer records beside saved weights, under "trainer" in adapter_setup.json or full_setup.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar, cast

import msgspec

from adapter_qa.config.options import AnsweringOptions
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json

Count = Annotated[int, msgspec.Meta(ge=1, lt=2**20)]
Document = TypeVar("Document")


class BaseModelRecord(msgspec.Struct, frozen=True):
    """The base model that a run used; a path that begins with a dot is relative to the saved folder."""

    name_or_path: str | None = None
    revision: str | None = None
    fingerprint: str | None = None  # see `base_model.weights_fingerprint`


class WindowOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How contexts are cut into windows and how answers are chosen."""

    max_seq_length: Count
    doc_stride: Annotated[int, msgspec.Meta(ge=0)]
    n_best_size: Count
    max_answer_length: Count
    version_2: bool
    null_score_diff_threshold: float

    def as_options(self) -> AnsweringOptions:
        """Return the options in the form that `answering_options` returns."""
        return cast(AnsweringOptions, msgspec.structs.asdict(self))


class RunMetadata(msgspec.Struct, frozen=True):
    """What a run records in the folder that it saves; all defaults for folders from other programs.

    Attributes:
        setup: the composition as text, e.g. `Stack[mlm, qa]`; None after full fine-tuning.
        composition: "stack" or "fuse", how the language adapter joins the fusion.
        base_model: the base model, needed to load the folder.
        trained_from: after full fine-tuning, the base model that the training started from.
        tokenizer: hub id or folder of the tokenizer if it is not that of the base model.
        language: language code of the data.
        windows: of a QA run only.
    """

    task: str | None = None
    setup: str | None = None
    language_adapter: str | None = None
    tasks: tuple[str, ...] = ()
    fused: bool = False
    composition: str = "stack"
    base_model: BaseModelRecord = BaseModelRecord()
    trained_from: BaseModelRecord | None = None
    tokenizer: str | None = None
    language: str | None = None
    versions: dict[str, str] = {}
    windows: WindowOptions | None = None

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of all adapters, the language adapter first."""
        return ((self.language_adapter,) if self.language_adapter else ()) + self.tasks


class _MetadataDocument(msgspec.Struct):
    trainer: RunMetadata


def read_document(path: Path, kind: type[Document]) -> Document:
    """Read a JSON file of this trainer as a value of the given type.

    Raises:
        UserError: if the file cannot be read, or a field is missing or has a value of another type.
    """
    try:
        return msgspec.convert(read_json(path), kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: not written by this trainer, or damaged ({error})") from error


def read_metadata(path: Path) -> RunMetadata:
    """Read the metadata in an adapter_setup.json or full_setup.json; errors as in `read_document`."""
    return read_document(path, _MetadataDocument).trainer

"""What the trainer records beside saved weights, under "trainer" in adapter_setup.json or full_setup.json.

Also the content of fusion_attention.json, which is read without torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypedDict, TypeVar

import msgspec

from adapter_qa.config.options import MAX_TEMPERATURE, MIN_TEMPERATURE, QADataOptions
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_json
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.models.file_names import SETUP_FILE

Count = Annotated[int, msgspec.Meta(ge=1, lt=2**20)]
Document = TypeVar("Document")


class BaseModelRecord(msgspec.Struct, frozen=True):
    """The base model that a run used; a path that begins with a dot is relative to the saved folder."""

    name_or_path: str | None = None
    revision: str | None = None
    fingerprint: str | None = None  # see `identity.WeightsFingerprint`, as the next two
    fingerprint_float16: str | None = None
    fingerprint_bfloat16: str | None = None


class TokenizerFingerprint(msgspec.Struct, frozen=True):
    """What identifies a tokenizer, see `base_tokenizer.tokenizer_fingerprint`.

    Attributes:
        vocabulary: SHA-256 over tokens and their numbers.
        text: SHA-256 over what becomes of a text.
    """

    vocabulary: str
    text: str


class TrainedOn(msgspec.Struct, frozen=True):
    """The base model and the tokenizer that saved weights were trained with, as far as they were recorded.

    Attributes:
        base_model: the base model, needed to load the folder.
        tokenizer: hub id or folder of the tokenizer if it is not that of the base model.
        do_lower_case: the option of this name; None for what the tokenizer's files say.
        strip_accents: the option of this name; None likewise.
    """

    base_model: BaseModelRecord = BaseModelRecord()
    tokenizer: str | None = None
    tokenizer_fingerprint: TokenizerFingerprint | None = None
    do_lower_case: bool | None = None
    strip_accents: bool | None = None

    def casing(self) -> dict[str, bool | None]:
        """Return the options about capitals and accents by name."""
        return {"do_lower_case": self.do_lower_case, "strip_accents": self.strip_accents}


@dataclass(frozen=True)
class Origin:
    """The saved folder that weights come from, and what they were trained on. One folder is one origin."""

    folder: Path
    trained_on: TrainedOn = field(compare=False)

    @property
    def base_name(self) -> str | None:
        """Hub id or folder of the base model; a recorded path that begins with a dot starts at the saved folder."""
        name = self.trained_on.base_model.name_or_path
        return str((self.folder / name).resolve()) if name is not None and name.startswith(".") else name


class WindowOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of `AnsweringOptions`, with the limits of what a saved folder may hold."""

    max_seq_length: Count
    doc_stride: Annotated[int, msgspec.Meta(ge=0)]
    n_best_size: Count
    max_answer_length: Count
    version_2: bool
    null_score_diff_threshold: float
    temperature: Annotated[float, msgspec.Meta(ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE)] = AnsweringOptions.temperature

    def as_options(self) -> AnsweringOptions:
        """Return the options as they are used."""
        return AnsweringOptions(**msgspec.structs.asdict(self))


class LanguageSwap(msgspec.Struct, frozen=True):
    """A language adapter that took the place of another one under task adapters (MAD-X, arXiv 2005.00052).

    Attributes:
        adapter: folder of the run that it comes from, or of the adapter itself.
        replaced: folder of the run whose language adapter it replaced.
        language: its language code, if that is recorded.
        replaced_language: that of the other one.
    """

    adapter: str
    replaced: str
    language: str | None = None
    replaced_language: str | None = None


class RunMetadata(TrainedOn, frozen=True):
    """What a run records in the folder that it saves; all defaults for folders from other programs.

    Attributes:
        setup: the composition as text, e.g. `Stack[mlm, qa]`; None after full fine-tuning.
        composition: "stack" or "fuse", how the language adapter joins the fusion.
        trained_from: after full fine-tuning, the base model that the training started from.
        language: language code of the data.
        windows: of a QA run only.
        max_seq_length: of a NER run only.
        block_size: of an MLM run only.
        language_swaps: in the order in which they were made, over all runs that trained the task adapters.
    """

    task: str | None = None
    setup: str | None = None
    language_adapter: str | None = None
    tasks: tuple[str, ...] = ()
    fused: bool = False
    composition: str = "stack"
    trained_from: BaseModelRecord | None = None
    language: str | None = None
    versions: dict[str, str] = {}
    windows: WindowOptions | None = None
    max_seq_length: Count | None = None
    block_size: Count | None = None
    language_swaps: tuple[LanguageSwap, ...] = ()

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of all adapters, the language adapter first."""
        return ((self.language_adapter,) if self.language_adapter else ()) + self.tasks


class FusionAttentionDocument(TypedDict):
    """Mean fusion weights, as in fusion_attention.json.

    Attributes:
        windows: number of windows.
        places: labels of the adapter sites, as `FusionAttention.sites`.
        question, context, all: means over the tokens of the questions, of the contexts, and of both; one row for each
            site with one number for each adapter, which add up to 1. No rows if there were no tokens.
    """

    adapters: list[str]
    windows: int
    places: list[str]
    question: list[list[float]]
    context: list[list[float]]
    all: list[list[float]]


class _FullDocument(msgspec.Struct):
    trainer: RunMetadata


class SetupDocument(msgspec.Struct):
    """What adapter_setup.json records beside the composition; the library's own `save_adapter_setup` nothing."""

    trainer: RunMetadata | None = None


def answering_options(data: QADataOptions) -> AnsweringOptions:
    """Return the options of a run that its saved folder keeps for answering questions."""
    return AnsweringOptions(
        max_seq_length=data.max_seq_length,
        doc_stride=data.doc_stride,
        n_best_size=data.n_best_size,
        max_answer_length=data.max_answer_length,
        version_2=data.version_2_with_negative,
        null_score_diff_threshold=data.null_score_diff_threshold,
        temperature=data.temperature,
    )


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
    """Read the metadata in an adapter_setup.json or full_setup.json; errors as in `read_document`.

    An adapter_setup.json that the library wrote has none.
    """
    if path.name == SETUP_FILE:
        return read_document(path, SetupDocument).trainer or RunMetadata()
    return read_document(path, _FullDocument).trainer

"""The content of run.json: the training scripts fill it, all others read it.

A key that does not apply to a run is absent, and so are those that the run's version did not have; the fields then have
their defaults. Keys that this version does not have are ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from adapter_qa.models.metadata import LanguageSwap, TrainedOn, read_document
from adapter_qa.models.parameters import ParameterCounts
from adapter_qa.runs.layout import RUN_FILE


class DataFile(msgspec.Struct, omit_defaults=True):
    """A data file; or a folder of text as a whole, with the number of its files."""

    file: str
    bytes: int | None = None
    sha256: str | None = None
    files_read: int | None = None


class DataSource(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Where one split comes from, and how much it is.

    It is one file, several files, with `sha256` over their digests, a data set, or the end of the training text. The
    counts after that are those of questions, of sentences or of text.

    Attributes:
        config: configuration of a data set; None for the only one.
        unaligned: questions whose answer is not at its place in the context.
        articles: of the questions of a fold, if articles were divided; else `contexts`.
        groups_sha256: over the names of these articles or contexts.
    """

    file: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    files_read: int | None = None
    files: list[DataFile] = []
    dataset: str | None = None
    config: str | UnsetType | None = UNSET
    split: str | None = None
    held_out_of: str | None = None
    unaligned: int | None = None
    questions: int | None = None
    articles: int | None = None
    contexts: int | None = None
    groups_sha256: str | None = None
    windows: int | None = None
    cut_questions: int | None = None
    answer_without_tokens: int | None = None
    answer_in_no_window: int | None = None
    answer_too_long: int | None = None
    sentences: int | None = None
    label_schemes: list[str] = []
    unseen_entities: dict[str, int] = {}
    inputs: int | None = None
    cut_sentences: int | None = None
    texts: int | None = None
    empty_texts: int | None = None
    blocks: int | None = None

    @property
    def paths(self) -> list[str]:
        """The paths of all files."""
        return [self.file] if self.file is not None else [file.file for file in self.files]

    @property
    def dataset_words(self) -> list[str]:
        """Name, configuration and split of the data set."""
        return [word for word in (self.dataset, self.config, self.split) if isinstance(word, str)]

    @property
    def fingerprints(self) -> list[DataFile]:
        """The files with their SHA-256; none of a data set."""
        if self.file is None or self.sha256 is None:
            return self.files
        return [DataFile(self.file, self.bytes, self.sha256)]

    def counts(self) -> dict[str, int]:
        """Return all numbers by their names."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if isinstance(value, int)}


class Times(msgspec.Struct, omit_defaults=True):
    """When a run started and finished, in ISO 8601, and seconds: of all of it, and of making the windows."""

    started: str | None = None
    seconds: float | None = None
    windows: float | None = None
    finished: str | None = None


class BestCheckpoint(msgspec.Struct):
    """The step whose weights are the result of a training, with the metric that decided; None without evaluations."""

    step: int | None = None
    epoch: float | None = None
    metric: float | None = None


class Sizes(msgspec.Struct, frozen=True):
    """Bytes on the disk of what was trained and of the run's folder, and most bytes of memory at a time."""

    saved_bytes: int | None = None
    folder_bytes: int | None = None
    memory_bytes: int | None = None


class RunDocument(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The content of run.json.

    Attributes:
        status: "running", "interrupted", "failed" or "finished"; "planned" before the file is written.
        options: the value of every option.
        commit: of the program's checkout; None outside one.
        head_from: folder whose head the training starts from.
        setup: composition of the adapters as text, or "full fine-tuning".
        padding: share of padding by split.
        label_entropy: in nats.
        history: the metrics of every evaluation while training.
        losses: the entries of the training log.
        steps: optimizer steps so far; `epochs` likewise.
        ended: why the training ended, in words.
        folds: of a cross-validation.
        metrics: the results by split.
        calibration: the content of calibration.json.
        saved: folder of what was trained.
        why: the reasons why the run failed or was interrupted.
        pushed: repository and commit on the hub.
    """

    status: str
    script: str
    command: list[str] = []
    options: dict[str, Any]
    versions: dict[str, str] = {}
    commit: str | UnsetType | None = UNSET
    device: str | None = None
    times: Times = msgspec.field(default_factory=Times)
    head_from: str | None = None
    language_swap: LanguageSwap | None = None
    data: dict[str, DataSource] = {}
    setup: str | None = None
    parameters: ParameterCounts | None = None
    trained_on: TrainedOn = TrainedOn()
    class_weights: dict[str, float] | None = None
    padding: dict[str, float] | None = None
    plan: dict[str, Any] | None = None
    label_entropy: float | None = None
    history: list[dict[str, Any]] | None = None
    losses: list[dict[str, Any]] | None = None
    best: BestCheckpoint | None = None
    steps: int | None = None
    epochs: float | None = None
    ended: str | None = None
    folds: list[dict[str, Any]] | None = None
    metrics: dict[str, dict[str, Any]] = {}
    calibration: dict[str, Any] | None = None
    saved: str | None = None
    best_thresholds: str | None = None
    result: Sizes = Sizes()
    why: list[str] = []
    pushed: dict[str, str] | None = None


UNKNOWN_RUN = RunDocument(status="unknown", script="unknown", options={})  # where there is no run.json


def read_run_document(folder: Path) -> RunDocument:
    """Read the run.json in a folder; errors as in `read_document`."""
    return read_document(folder / RUN_FILE, RunDocument)

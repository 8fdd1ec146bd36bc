"""The configuration of each training script, made of groups of options, and the parts of its data."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal

from adapter_qa.config.options import (
    AdapterOptions,
    FusionOptions,
    LanguageAdapterOptions,
    MLMAdapterOptions,
    MLMDataOptions,
    MLMTrainingOptions,
    ModelOptions,
    NERDataOptions,
    NERTrainingOptions,
    QADataOptions,
    TrainingOptions,
    resolve_training_options,
)
from adapter_qa.core.files import expand_paths

LABELS_KEY = "labels"  # of a token classifier's inputs
NOT_REPEATED = ("overwrite_output_dir", "dry_run")  # options that an options file of a run does not have
SplitName = Literal["train", "eval", "predict", "calibration"]


@dataclass(frozen=True)
class Split:
    """One part of a run's data.

    Attributes:
        name: of the part in files and metrics.
        option: the option that names `files`.
        files: paths and patterns as they were given; `core.files.expand_paths` finds the files. Empty if none.
        dataset_split: its name in a data set of the hub.
        limit: the number of examples to use; None means all.
        enabled: whether the run trains on it, evaluates on it or predicts it.
        folders: whether `files` may name folders.
    """

    name: SplitName
    option: str
    files: tuple[str, ...]
    dataset_split: str
    limit: int | None
    enabled: bool
    folders: bool = False

    def paths(self) -> tuple[Path, ...]:
        """Return the files, and folders if they are allowed; see `core.files.expand_paths`."""
        return expand_paths(self.files, self.option, folders=self.folders)


class _ConfigBase:
    """What the configurations of the three scripts share.

    Attributes:
        SAVED_OPTIONS: options of `data` that a saved model records.
        given: names of the options on the command line or in the options file, old spellings translated.
    """

    SAVED_OPTIONS: ClassVar[tuple[str, ...]]
    data: QADataOptions | MLMDataOptions | NERDataOptions
    training: TrainingOptions
    given: frozenset[str]

    @classmethod
    def group_names(cls) -> tuple[str, ...]:
        """Return the fields that are groups of options, in the order of --help."""
        options = fields(cls)  # type: ignore[arg-type]  # its subclasses are dataclasses
        return tuple(option.name for option in options if option.name != "given")

    def groups(self) -> list[Any]:
        """Return the groups of options, one dataclass each, in the order of --help."""
        return [getattr(self, name) for name in self.group_names()]

    def taken_from_saved(self) -> dict[str, Any]:
        """Return those of `SAVED_OPTIONS` that are neither given nor at their default, by name.

        `training.saved_model_options` takes them from a saved model.
        """
        return {
            name: value
            for name in self.SAVED_OPTIONS
            if name not in self.given and (value := vars(self.data)[name]) != getattr(type(self.data), name)
        }

    def non_defaults(self) -> dict[str, Any]:
        """Return the given options whose value is not the default, by name, for an options file that repeats the run.

        Secrets are left out, and what must not be repeated: to replace the folder.
        """
        return {
            option.name: _plain(value)
            for group in self.groups()
            for option in fields(group)
            if option.name in self.given and option.name not in NOT_REPEATED and not option.name.endswith("token")
            if (value := vars(group)[option.name]) != option.default
        }

    def all_splits(self) -> tuple[Split, ...]:
        """Return every part that the data may have."""
        data, run = self.data, self.training
        splits = [
            Split("train", "train_file", tuple(data.train_file or ()), "train", data.max_train_samples, run.do_train),
            Split(
                "eval",
                "validation_file",
                tuple(data.validation_file or ()),
                "validation",
                data.max_eval_samples,
                run.do_eval,
            ),
        ]
        if not isinstance(data, MLMDataOptions):
            limit = data.max_predict_samples
            splits.append(Split("predict", "test_file", tuple(data.test_file or ()), "test", limit, run.do_predict))
        if isinstance(data, QADataOptions) and data.calibration_file is not None:
            splits.append(Split("calibration", "calibration_file", tuple(data.calibration_file), "", None, run.do_eval))
        return tuple(splits)

    def origin(self, split: Split) -> str:
        """Return the files of a part, or the data set, in the words of the command line."""
        return " ".join(split.files) or str(self.data.dataset_name)

    def dataset(self, split: Split) -> tuple[str, str | None, str]:
        """Return name, configuration and split of a part in the data set, which is given."""
        return str(self.data.dataset_name), self.data.dataset_config_name, split.dataset_split

    def splits(self) -> tuple[Split, ...]:
        """Return the parts that the run reads: the enabled ones; in a dry run also every part with a file."""
        dry_run = self.training.dry_run
        return tuple(split for split in self.all_splits() if split.enabled or (dry_run and split.files))


@dataclass(frozen=True)
class QARunConfig(_ConfigBase):
    """All options of run_qa_adapter.py, in the order of its --help."""

    SAVED_OPTIONS: ClassVar[tuple[str, ...]] = (  # `data.answering_options` has them, too
        "max_seq_length", "doc_stride", "n_best_size", "max_answer_length", "version_2_with_negative",
        "null_score_diff_threshold", "temperature",
    )  # fmt: skip
    METRICS: ClassVar[tuple[str, ...]] = (  # that its evaluation computes
        "f1", "exact", "loss", "total", "questions", "windows", "runtime", "answers_runtime", "scores_runtime",
        "samples_per_second", "top_1_exact", "top_1_f1", "top_3_exact", "top_3_f1", "top_5_exact", "top_5_f1",
        "top_20_exact", "top_20_f1", "ece", "brier", "log_loss",
    )  # fmt: skip
    METRICS_V2: ClassVar[tuple[str, ...]] = (  # with --version_2_with_negative as well
        "HasAns_f1", "HasAns_exact", "HasAns_total", "NoAns_f1", "NoAns_exact", "NoAns_total",
        "best_f1", "best_f1_thresh", "best_exact", "best_exact_thresh", "pr_exact_ap", "pr_f1_ap",
    )  # fmt: skip
    model: ModelOptions
    data: QADataOptions
    adapter: AdapterOptions
    language_adapter: LanguageAdapterOptions
    fusion: FusionOptions
    training: TrainingOptions
    given: frozenset[str] = frozenset()

    def resolved(self) -> QARunConfig:
        """Return the configuration with those options decided that follow from others."""
        training = self.training
        if self.data.folds is not None:
            training = replace(training, do_eval=self.data.fold_choosing_share > 0, do_predict=True)
        return replace(self, training=resolve_training_options(training, self.given))

    def all_splits(self) -> tuple[Split, ...]:
        """Return every part that the data may have; of a cross-validation the one that is divided."""
        splits = super().all_splits()
        return splits if self.data.folds is None else splits[:1]

    @property
    def is_cross_validation(self) -> bool:
        """Whether the run consists of the runs of all folds."""
        return self.data.folds is not None and self.data.fold is None


@dataclass(frozen=True)
class NERRunConfig(_ConfigBase):
    """All options of run_ner_adapter.py, in the order of its --help."""

    SAVED_OPTIONS: ClassVar[tuple[str, ...]] = ("max_seq_length",)
    SCORES: ClassVar[tuple[str, ...]] = ("f1", "precision", "recall", "entities")  # also of a type, e.g. PER_f1
    METRICS: ClassVar[tuple[str, ...]] = (*SCORES, "loss", "runtime", "samples_per_second", "steps_per_second")
    model: ModelOptions
    data: NERDataOptions
    adapter: AdapterOptions
    language_adapter: LanguageAdapterOptions
    training: NERTrainingOptions
    given: frozenset[str] = frozenset()

    def resolved(self) -> NERRunConfig:
        """Return the configuration with those options decided that follow from others."""
        labels_key = None if self.training.label_names else LABELS_KEY
        return replace(self, training=resolve_training_options(self.training, self.given, labels_key=labels_key))

    def class_names(self) -> tuple[str, ...]:
        """Return the names of labels that are numbers; empty if the user gives none."""
        names = self.training.label_names or []
        return () if names == [LABELS_KEY] else tuple(names)


@dataclass(frozen=True)
class MLMRunConfig(_ConfigBase):
    """All options of run_mlm_adapter.py, in the order of its --help."""

    SAVED_OPTIONS: ClassVar[tuple[str, ...]] = ("block_size",)
    METRICS: ClassVar[tuple[str, ...]] = (
        "loss", "perplexity", "runtime", "samples_per_second", "steps_per_second",
    )  # fmt: skip
    model: ModelOptions
    data: MLMDataOptions
    adapter: MLMAdapterOptions
    training: MLMTrainingOptions
    given: frozenset[str] = frozenset()

    def resolved(self) -> MLMRunConfig:
        """Return the configuration with those options decided that follow from others."""
        labels_key = None if self.training.label_names else LABELS_KEY
        training = resolve_training_options(self.training, self.given, labels_key=labels_key)
        # Logits over the vocabulary would fill the memory, and no metric needs them.
        return replace(self, training=replace(training, prediction_loss_only=True))

    def all_splits(self) -> tuple[Split, ...]:
        """Return every part that the data may have."""
        return tuple(replace(split, folders=True) for split in super().all_splits())

    def splits(self) -> tuple[Split, ...]:
        """Return the parts that the run reads: all with a file, as evaluation may take a share of the training file.

        With a data set these are both parts, though it may lack one.
        """
        return tuple(split for split in self.all_splits() if split.files or self.data.dataset_name is not None)


def _plain(value: Any) -> Any:
    """Return a value of the library's enums as text, also in a list; others as they are."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


RunConfig = QARunConfig | NERRunConfig | MLMRunConfig

"""Sentences and encoder inputs of the splits of a NER run.

torch and transformers are imported only when inputs are made, so that errors in the files are reported at once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from adapter_qa.config.run_configs import NERRunConfig, Split
from adapter_qa.core.errors import UserError, run_each
from adapter_qa.core.files import files_fingerprint
from adapter_qa.core.messages import log_note
from adapter_qa.data.label_schemes import IOB2, OUTSIDE
from adapter_qa.data.readers.dataset_library import dataset_source
from adapter_qa.data.readers.sentence_records import SentenceColumns
from adapter_qa.data.readers.sentences import (
    Sentence,
    SentenceSource,
    label_names,
    load_sentence_dataset,
    read_sentence_file,
)
from adapter_qa.runs.run_document import DataSource
from adapter_qa.training.shared_files import shared_file_notes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from adapter_qa.data.token_classification import TokenClassificationDataset
    from adapter_qa.models.adapter_setup import AdapterSetup
    from adapter_qa.runs.run_record import RunRecord


@dataclass(frozen=True)
class SentenceSplit:
    """The sentences of one split.

    Attributes:
        name: its files or its data set, for messages.
        sentences: those that are used.
        source: where they come from and how many they are, for run.json.
        has_integers: whether its labels were integers.
    """

    name: str
    sentences: list[Sentence]
    source: DataSource
    has_integers: bool


class KnownLabels(NamedTuple):
    """The labels of a run.

    Attributes:
        names: the classes of the head.
        unseen: labels of evaluation sentences that are no classes; their entities count as missed.
    """

    names: list[str]
    unseen: list[str]


def load_sentences(config: NERRunConfig) -> dict[str, SentenceSplit]:
    """Load the sentences of every split that is used, by split name.

    Raises:
        UserError: if a file or data set cannot be read, the training sentences name no entity, or --label_names has no
            effect.
    """
    loaded = run_each(partial(_load_split, split, config) for split in config.splits())
    splits: dict[str, SentenceSplit] = {split.name: part for split, part in zip(config.splits(), loaded, strict=True)}
    if "eval" in splits:
        _check_best_metric(config.training.best_metric, splits["eval"].sentences)
    labelled = [part for name, part in splits.items() if name != "predict"]
    if config.class_names() and labelled and not any(part.has_integers for part in labelled):
        raise UserError("--label_names: is for labels that are numbers; those of the data are text; leave it out")
    if "train" in splits and label_names(splits["train"].sentences) == [OUTSIDE]:
        limit = config.data.max_train_samples
        where = f"the first {limit} sentences name" if limit is not None else "names"
        raise UserError(
            f"{splits['train'].name}: {where} no entity, all labels are {OUTSIDE}; there is nothing to learn"
        )
    log_note(shared_file_notes({name: part.source.fingerprints for name, part in splits.items()}))
    return splits


def _check_best_metric(metric: str, sentences: list[Sentence]) -> None:
    """Raise UserError if the metric is that of a type of entities that the evaluation sentences do not have."""
    entity, _, score = metric.rpartition("_")
    types = {label[2:] for label in label_names(sentences)} - {""}
    if score in NERRunConfig.SCORES and entity and entity not in types:
        found = f"their types are {', '.join(sorted(types))}" if types else f"they name none, all labels are {OUTSIDE}"
        raise UserError(
            f"--metric_for_best_model {metric}: not computed, no entity of the evaluation sentences is a {entity}; "
            f"{found}"
        )


def _load_split(split: Split, config: NERRunConfig) -> SentenceSplit:
    """Read the sentences of a split; log what was decided while they were read."""
    data, need_labels = config.data, split.name != "predict"
    columns = SentenceColumns(data.word_column, data.label_column, config.class_names())
    parts: list[SentenceSource]
    if split.files:
        paths = split.paths()
        parts = run_each(partial(read_sentence_file, path, columns, need_labels=need_labels) for path in paths)
        names = [str(path) for path in paths]
        source = msgspec.convert(files_fingerprint(paths), DataSource)
    else:
        dataset = config.dataset(split)
        parts = [load_sentence_dataset(*dataset, columns, need_labels=need_labels)]
        names = [f"{data.dataset_name} ({split.dataset_split})"]
        source = DataSource(**dataset_source(*dataset))
    log_note(note for part in parts for note in part.notes)
    schemes: dict[str, list[str]] = {}
    for name, part in zip(names, parts, strict=True):
        schemes.setdefault(part.scheme, []).append(name)
    schemes.pop(IOB2, None)
    log_note(f"{_shortened(of_scheme)}: labels in {scheme} became {IOB2}" for scheme, of_scheme in schemes.items())
    sentences = [sentence for part in parts for sentence in part.sentences][: split.limit]
    source.sentences, source.label_schemes = len(sentences), list(schemes)
    return SentenceSplit(_shortened(names), sentences, source, any(part.has_integers for part in parts))


def _shortened(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def known_labels(setup: AdapterSetup | None, splits: dict[str, SentenceSplit]) -> KnownLabels:
    """Return the labels of the saved head if one is loaded, otherwise those of the training sentences.

    Labels that only evaluation sentences have are logged, and counted in the split's source.

    Raises:
        UserError: if training sentences have other labels than the loaded head.
    """
    head = setup.saved.head if setup is not None and setup.saved is not None and setup.loads_saved_head else None
    in_training, in_evaluation = (
        label_names(splits[name].sentences if name in splits else []) for name in ("train", "eval")
    )
    names = list(head.labels) if head is not None else in_training
    new = [label for label in in_training if label not in names]
    if new:
        raise UserError(
            f"{splits['train'].name}: labels {', '.join(new)} are not among those of the loaded head: "
            f"{', '.join(names)}; a run without --load_adapter learns them"
        )
    unseen = [label for label in in_evaluation if label not in names]
    if unseen:
        types = {label[2:] for label in unseen}
        starts = [label for item in splits["eval"].sentences for label in item.labels if label[0] == "B"]
        entities = Counter(label[2:] for label in starts if label[2:] in types)
        counts = ", ".join(f"{entity} ({count})" for entity, count in entities.items())
        trained = "the training sentences do not have" if head is None else "the loaded head does not know"
        log_note([f"{splits['eval'].name}: entities of types that {trained} count as missed: {counts}"])
        splits["eval"].source.unseen_entities = dict(entities)
    return KnownLabels(names, unseen)


def make_split_inputs(
    splits: dict[str, SentenceSplit],
    tokenizer: PreTrainedTokenizerFast,
    labels: KnownLabels,
    config: NERRunConfig,
    record: RunRecord,
) -> dict[str, TokenClassificationDataset]:
    """Tokenize the sentences of every split, align labels to tokens, and record counts.

    --label_all_tokens and --next_sentence act on training only. In evaluation an input is one sentence, and only the
    first token of each word has a label.
    """
    from adapter_qa.data.token_classification import tokenize_and_align_labels

    inputs: dict[str, TokenClassificationDataset] = {}
    for name, split in splits.items():
        is_training = name == "train"
        inputs[name] = tokenize_and_align_labels(
            split.sentences,
            tokenizer,
            labels.names if is_training else [*labels.names, *labels.unseen],
            max_seq_length=config.data.max_seq_length,
            label_all_tokens=is_training and config.data.label_all_tokens,
            next_sentence=is_training and config.data.next_sentence,
        )
        source = record.document.data[name]
        source.inputs, source.cut_sentences = len(inputs[name]), inputs[name].cut_sentences
    return inputs

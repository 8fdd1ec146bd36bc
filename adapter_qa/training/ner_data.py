"""Sentences and encoder inputs of the splits of a NER run.

torch and transformers are imported only when inputs are made, so that errors in the files are reported at once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from adapter_qa.config.options import NERRunConfig, Split
from adapter_qa.core.errors import UserError, run_all
from adapter_qa.core.files import expand_paths, files_fingerprint
from adapter_qa.data.conll import Sentence, label_names, read_sentences
from adapter_qa.data.label_schemes import OUTSIDE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from adapter_qa.data.token_classification import TokenClassificationDataset
    from adapter_qa.models.adapter_setup import AdapterSetup
    from adapter_qa.runs.run_record import RunRecord


def load_sentences(config: NERRunConfig) -> dict[str, list[Sentence]]:
    """Load the sentences of every split that is used, by split name.

    Raises:
        UserError: if a file cannot be read, or the training file names no entity.
    """
    splits = config.splits()
    loaded = run_all(partial(_read_split, split) for split in splits)
    sentences: dict[str, list[Sentence]] = {
        split.name: parsed[: split.limit] for split, parsed in zip(splits, loaded, strict=True)
    }
    if "train" in sentences and label_names(sentences["train"]) == [OUTSIDE]:
        name = " ".join(config.data.train_file or [])
        raise UserError(f"{name}: names no entity, all its labels are {OUTSIDE}; there is nothing to learn")
    return sentences


def _read_split(split: Split) -> list[Sentence]:
    """Read the sentences of all files of a split."""
    paths = expand_paths(split.files, split.option)
    read = run_all(partial(read_sentences, path, need_labels=split.name != "predict") for path in paths)
    return [sentence for sentences in read for sentence in sentences]


def sentence_sources(config: NERRunConfig, sentences: dict[str, list[Sentence]]) -> dict[str, dict[str, Any]]:
    """Return path and hash of each split's file and the number of its sentences, for run.json."""
    return {
        split.name: files_fingerprint(expand_paths(split.files, split.option))
        | {"sentences": len(sentences[split.name])}
        for split in config.splits()
    }


def known_labels(setup: AdapterSetup | None, sentences: dict[str, list[Sentence]]) -> list[str]:
    """Return the labels of the saved head if one is loaded, otherwise those of the training sentences.

    Raises:
        UserError: if training or evaluation sentences have other labels.
    """
    head = setup.saved.head if setup is not None and setup.saved is not None and setup.loads_saved_head else None
    names = list(head.labels) if head is not None else label_names(sentences.get("train", []))
    labelled = [sentence for split in ("train", "eval") for sentence in sentences.get(split, [])]
    unknown = set(label_names(labelled)) - set(names)
    if unknown:
        raise UserError(f"labels {', '.join(sorted(unknown))} are not among those trained: {', '.join(names)}")
    return names


def make_split_inputs(
    sentences: dict[str, list[Sentence]],
    tokenizer: PreTrainedTokenizerFast,
    labels: list[str],
    config: NERRunConfig,
    record: RunRecord,
) -> dict[str, TokenClassificationDataset]:
    """Tokenize the sentences of every split, align labels to tokens, and record counts.

    --label_all_tokens and --next_sentence act on training only. In evaluation an input is one sentence, and only the
    first token of each word has a label.
    """
    from adapter_qa.data.token_classification import tokenize_and_align_labels

    inputs: dict[str, TokenClassificationDataset] = {}
    for name, split in sentences.items():
        is_training = name == "train"
        inputs[name] = tokenize_and_align_labels(
            [Sentence(sentence.words, ()) for sentence in split] if name == "predict" else split,
            tokenizer,
            labels,
            max_seq_length=config.data.max_seq_length,
            label_all_tokens=is_training and config.data.label_all_tokens,
            next_sentence=is_training and config.data.next_sentence,
        )
        counts = {"inputs": len(inputs[name]), "cut_sentences": inputs[name].cut_sentences}
        record.document["data"][name] |= counts
    record.update()
    return inputs

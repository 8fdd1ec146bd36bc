"""Texts and blocks of the splits of a masked language modelling run.

torch and transformers are imported only when blocks are made, so that errors in the files are reported at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from adapter_qa.config.run_configs import MLMRunConfig, Split
from adapter_qa.core.errors import UserError, run_each
from adapter_qa.core.files import file_fingerprint, join_fingerprints, joint_sha256
from adapter_qa.core.messages import log_note
from adapter_qa.data.readers.compression import format_of
from adapter_qa.data.readers.dataset_library import dataset_source, load_dataset, split_names
from adapter_qa.data.readers.text import WITHOUT_COLUMNS, read_texts, text_files, texts_of_records
from adapter_qa.runs.layout import RUN_FILE
from adapter_qa.runs.run_document import DataFile, DataSource, read_run_document
from adapter_qa.training.shared_files import shared_file_notes

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerFast

    from adapter_qa.runs.run_record import RunRecord


@dataclass(frozen=True)
class TextSplit:
    """The texts of one split.

    Attributes:
        texts: all of them, in the order of their files.
        source: where they come from and how many they are, for run.json.
        files: all files, also those in a folder.
    """

    texts: list[str]
    source: DataSource
    files: list[DataFile]


def load_texts(config: MLMRunConfig) -> dict[str, TextSplit]:
    """Load the texts of every split that is used, by split name.

    Raises:
        UserError: if a file or data set cannot be read or has no text.
    """
    data = config.data
    splits = _available_splits(config)
    files = [_files(split) for split in splits]
    formats = {format_of(path) for given in files for paths in given.values() for path in paths}
    if data.text_column is not None and data.dataset_name is None and formats <= {*WITHOUT_COLUMNS}:
        shown = " and ".join(sorted(formats))
        raise UserError(f"--text_column {data.text_column}: {shown} files have no columns; leave the option out")
    loaded = run_each(partial(_load_split, *pair, config) for pair in zip(splits, files, strict=True))
    by_name: dict[str, TextSplit] = {split.name: texts for split, texts in zip(splits, loaded, strict=True)}
    if config.training.do_train or config.training.dry_run:
        log_note(shared_file_notes({name: part.files for name, part in by_name.items()}))
    return by_name


def _available_splits(config: MLMRunConfig) -> list[Split]:
    """Return the splits of a run without those that its data set lacks, or that nothing needs."""
    splits, data = config.splits(), config.data
    if data.dataset_name is None:
        return [*splits]
    names = split_names(data.dataset_name, data.dataset_config_name)
    evaluation = [split for split in splits if split.name == "eval" and (split.files or split.dataset_split in names)]
    needs_train = config.training.do_train or not evaluation
    return [split for split in splits if split in evaluation or (split.name == "train" and needs_train)]


def _files(split: Split) -> dict[Path, list[Path]]:
    """Return the files of a split by the paths that are given: the file itself, or the files in the folder."""
    return {given: text_files(given) if given.is_dir() else [given] for given in split.paths()}


def _fingerprint(given: Path, fingerprints: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what run.json records of a file, or of a folder as a whole, which may have thousands of files."""
    if not given.is_dir():
        return fingerprints[0]
    size = sum(file["bytes"] for file in fingerprints)
    return {"file": str(given), "bytes": size, "sha256": joint_sha256(fingerprints), "files_read": len(fingerprints)}


def _load_split(split: Split, files: dict[Path, list[Path]], config: MLMRunConfig) -> TextSplit:
    column = config.data.text_column
    fingerprints: dict[Path, list[dict[str, Any]]] = {}
    if files:
        parts = run_each(partial(read_texts, path, column) for paths in files.values() for path in paths)
        fingerprints = {given: [file_fingerprint(path) for path in paths] for given, paths in files.items()}
        joined = join_fingerprints([_fingerprint(*pair) for pair in fingerprints.items()])
        source = msgspec.convert(joined, DataSource)
    else:
        dataset = config.dataset(split)
        name = f"{config.data.dataset_name} ({split.dataset_split})"
        parts = [texts_of_records(load_dataset(*dataset).records, name, column)]
        source = DataSource(**dataset_source(*dataset))
    texts = [text for part in parts for text in part.texts]
    source.texts = len(texts)
    empty = sum(part.empty for part in parts)
    if empty:
        log_note([f"{config.origin(split)}: {empty} records without text are left out"])
        source.empty_texts = empty
    return TextSplit(texts, source, msgspec.convert([*chain(*fingerprints.values())], list[DataFile]))


def make_split_blocks(
    splits: dict[str, TextSplit], tokenizer: PreTrainedTokenizerFast, config: MLMRunConfig, record: RunRecord
) -> dict[str, np.ndarray]:
    """Cut the texts of every split into blocks and record counts.

    With --do_eval and no evaluation text, the last blocks of the training text become the evaluation blocks.

    Returns:
        (blocks, block_size) int64 token ids by split.

    Raises:
        UserError: if there is too little text.
    """
    from adapter_qa.data.masked_lm import split_into_blocks

    data, sources = config.data, record.document.data
    evaluates, dry_run = config.training.do_eval, config.training.dry_run
    if not (evaluates or dry_run):
        splits = {name: split for name, split in splits.items() if name != "eval"}
        sources.pop("eval", None)
    blocks = {name: split_into_blocks(split.texts, tokenizer, data.block_size) for name, split in splits.items()}
    if "eval" not in blocks and (evaluates or _held_out_before(record)):
        origin = config.origin(config.all_splits()[0])
        held_out = max(1, round(len(blocks["train"]) * data.validation_split_percentage / 100))
        if held_out >= len(blocks["train"]):
            raise UserError(f"{origin}: {len(blocks['train'])} blocks cannot be split; give --validation_file")
        blocks["train"], blocks["eval"] = blocks["train"][:-held_out], blocks["train"][-held_out:]
        sources["eval"] = DataSource(held_out_of=origin)
    limits = {"train": data.max_train_samples, "eval": data.max_eval_samples}
    for name in blocks:
        blocks[name] = blocks[name][: limits[name]]
        sources[name].blocks = len(blocks[name])
    return blocks


def _held_out_before(record: RunRecord) -> bool:
    """Return whether the begun run in the folder held blocks out; earlier versions did so without --do_eval, too."""
    if record.folder is None or record.replaces or not (record.folder / RUN_FILE).is_file():
        return False
    return read_run_document(record.folder).data.get("eval", DataSource()).held_out_of is not None

"""Texts and blocks of the splits of a masked language modelling run.

torch and transformers are imported only when blocks are made, so that errors in the files are reported at once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from adapter_qa.config.options import MLMRunConfig, Split
from adapter_qa.core.errors import UserError, run_all
from adapter_qa.core.files import expand_paths, files_fingerprint
from adapter_qa.data.text import read_texts

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerFast

    from adapter_qa.runs.run_record import RunRecord


def load_texts(config: MLMRunConfig) -> dict[str, list[str]]:
    """Load the texts of every split that is used, by split name.

    Raises:
        UserError: if a file cannot be read.
    """
    splits = config.splits()
    loaded = run_all(partial(_read_split, split) for split in splits)
    return {split.name: texts for split, texts in zip(splits, loaded, strict=True)}


def _read_split(split: Split) -> list[str]:
    """Read the texts of all files of a split."""
    read = run_all(partial(read_texts, path) for path in expand_paths(split.files, split.option))
    return [text for texts in read for text in texts]


def text_sources(config: MLMRunConfig) -> dict[str, dict[str, Any]]:
    """Return path and hash of each split's file, for run.json."""
    return {split.name: files_fingerprint(expand_paths(split.files, split.option)) for split in config.splits()}


def make_split_blocks(
    texts: dict[str, list[str]], tokenizer: PreTrainedTokenizerFast, config: MLMRunConfig, record: RunRecord
) -> dict[str, np.ndarray]:
    """Cut the texts of every split into blocks and record counts.

    Without an evaluation file, the last blocks of the training text become the evaluation blocks.

    Returns:
        (blocks, block_size) int64 token ids by split.

    Raises:
        UserError: if there is too little text.
    """
    from adapter_qa.data.masked_lm import split_into_blocks

    data = config.data
    blocks = {name: split_into_blocks(split, tokenizer, data.block_size) for name, split in texts.items()}
    sources = record.document["data"]
    if "eval" not in blocks:
        held_out = max(1, round(len(blocks["train"]) * data.validation_split_percentage / 100))
        if held_out >= len(blocks["train"]):
            name = " ".join(data.train_file or [])
            raise UserError(f"{name}: {len(blocks['train'])} blocks cannot be split; give --validation_file")
        blocks["train"], blocks["eval"] = blocks["train"][:-held_out], blocks["train"][-held_out:]
        sources["eval"] = {"held_out_of": " ".join(data.train_file or [])}
    limits = {"train": data.max_train_samples, "eval": data.max_eval_samples}
    for name in blocks:
        blocks[name] = blocks[name][: limits[name]]
        sources[name]["blocks"] = len(blocks[name])
    return blocks

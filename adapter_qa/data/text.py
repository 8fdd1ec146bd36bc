"""Plain text for masked language modelling, from text files, SQuAD contexts or CoNLL sentences."""

from __future__ import annotations

import os
from pathlib import Path

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import decode
from adapter_qa.data.conll import read_sentences
from adapter_qa.data.squad import read_squad

MAX_TEXT_BYTES = 16 * 1024**3  # several times the size of the Portuguese Wikipedia
TEXT_SUFFIXES = (".txt", ".json", ".jsonl", ".csv", ".conll")


def read_texts(path: str | Path) -> list[str]:
    """Read the lines of a text file, the distinct contexts of a SQuAD file, or the sentences of a CoNLL file.

    Raises:
        UserError: the extension is unknown, or the file cannot be read or contains no text.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in TEXT_SUFFIXES:
        raise UserError(f"{path}: extension {suffix!r}; allowed: {', '.join(TEXT_SUFFIXES)}")
    if suffix == ".conll":
        return [" ".join(sentence.words) for sentence in read_sentences(path, need_labels=False)]
    if suffix == ".txt":
        return [line.strip() for line in decode(path, _read_long_file(path)).split("\n") if line.strip()]
    return list(dict.fromkeys(question.context for question in read_squad(path, need_answers=False)))


def _read_long_file(path: str | Path) -> bytes:
    """Return the content of a file of at most `MAX_TEXT_BYTES`; `core.files.read_bytes` allows less."""
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size  # 0 for a device, which may never end
            content = stream.read(min(size or MAX_TEXT_BYTES, MAX_TEXT_BYTES) + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: cannot be read: {reason}") from error
    if len(content) > MAX_TEXT_BYTES:
        raise UserError(f"{path}: is larger than {MAX_TEXT_BYTES:,} bytes, the most that is read; give a part of it")
    return content

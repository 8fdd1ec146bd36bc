"""Plain text for masked language modelling, from text files, SQuAD contexts or CoNLL sentences."""

from __future__ import annotations

from pathlib import Path

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_text
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
        return [line.strip() for line in read_text(path, MAX_TEXT_BYTES).split("\n") if line.strip()]
    return list(dict.fromkeys(question.context for question in read_squad(path, need_answers=False)))

"""Text for a language adapter, from text files, SQuAD contexts or CoNLL sentences."""

from __future__ import annotations

from pathlib import Path

from adapter_qa.core.errors import UserError
from adapter_qa.core.files import read_text
from adapter_qa.data.conll import read_sentences
from adapter_qa.data.squad import read_squad

MAX_TEXT_BYTES = 16 * 1024**3  # several times all of the Portuguese Wikipedia
TEXT_SUFFIXES = (".txt", ".json", ".jsonl", ".csv", ".conll")


def read_texts(path: str | Path) -> list[str]:
    """Paragraphs of a text file (a paragraph a line), contexts of a SQuAD file, or sentences of a CoNLL file.

    Raises:
        UserError: the file cannot be read, is of no such kind, or holds no text.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in TEXT_SUFFIXES:
        raise UserError(f"{path}: {suffix or 'no'} ending; text comes as {', '.join(TEXT_SUFFIXES)}")
    if suffix == ".conll":
        texts = [" ".join(sentence.words) for sentence in read_sentences(path, need_labels=False)]
    elif suffix == ".txt":
        texts = [line.strip() for line in read_text(path, MAX_TEXT_BYTES).split("\n") if line.strip()]
    else:
        texts = list(dict.fromkeys(question.context for question in read_squad(path, need_answers=False)))
    return texts

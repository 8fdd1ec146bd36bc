"""Reading files of sentences in tests."""

from __future__ import annotations

from pathlib import Path

from adapter_qa.data.readers.sentence_records import SentenceColumns
from adapter_qa.data.readers.sentences import Sentence, read_sentence_file


def read_sentences(path: str | Path, *, need_labels: bool) -> list[Sentence]:
    """Return the sentences of a file, as they are read without options."""
    return read_sentence_file(Path(path), SentenceColumns(), need_labels=need_labels).sentences

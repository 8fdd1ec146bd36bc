"""Texts for masked language modelling: lines of a file, a column of a table or of JSON records, sentences of CoNLL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from adapter_qa.core.errors import UserError, first_names, raise_first_problems
from adapter_qa.core.files import decode, is_text, kind, parse_json
from adapter_qa.core.messages import log_note
from adapter_qa.data.readers.compression import COMPRESSION_SUFFIXES, format_of, read_content
from adapter_qa.data.readers.conll import read_columns
from adapter_qa.data.readers.dataset_library import SAVED_MARKS
from adapter_qa.data.readers.record_files import RECORD_SUFFIXES, UNREAD_ARCHIVES, read_rows
from adapter_qa.data.readers.records import Record

MAX_TEXT_BYTES = 16 * 1024**3  # several times the size of the Portuguese Wikipedia
TEXT_SUFFIXES = (".txt", *RECORD_SUFFIXES, ".conll")
WITHOUT_COLUMNS = (".txt", ".conll")
LINE_ENDS = ("\r", "\f")  # besides "\n": line ends of old files, page breaks of texts that were taken out of PDF
WIKIPEDIA = (
    "XML, such as a dump of Wikipedia, is not read; take the text out of it, for example with WikiExtractor --json, "
    "whose files need the ending .jsonl, or give --dataset_name wikimedia/wikipedia --dataset_config_name 20231101.pt"
)
ARCHIVE = "an archive is not read; unpack it and give the files in it, or the folder"
REMEDIES = {".xml": WIKIPEDIA, **dict.fromkeys(UNREAD_ARCHIVES, ARCHIVE)}
TEXT, CONTEXT = "text", "context"


class Texts(NamedTuple):
    """The texts of a file or data set.

    Attributes:
        texts: none is empty.
        empty: number of records whose text is empty or null, which are left out. Blank lines do not count.
    """

    texts: list[str]
    empty: int = 0


class _TextError(ValueError):
    """A record that has no text. The message says why."""


class _NoKeyError(_TextError):
    """A record without the key of the text."""


def read_texts(path: str | Path, column: str | None = None) -> Texts:
    """Read the texts of a file, compressed or not.

    Args:
        path: a text file, with a text on each line; a CoNLL file, whose sentences are the texts; or a file of records.
        column: the key of the text in a record; see `texts_of_records`.

    Raises:
        UserError: the extension is unknown, or the file cannot be read or holds no text.
    """
    path = Path(path)
    suffix = format_of(path)
    if suffix not in TEXT_SUFFIXES:
        allowed = f"allowed: {', '.join(TEXT_SUFFIXES)}, also compressed ({', '.join(COMPRESSION_SUFFIXES)})"
        raise UserError(f"{path}: {REMEDIES.get(suffix, f'extension {suffix!r}; {allowed}')}")
    if suffix == ".txt":
        lines = _lines(decode(path, read_content(path, MAX_TEXT_BYTES)))
        if _is_json_object(lines[0]):
            log_note([f"{path}: begins with a JSON object, which is read as text; .jsonl files are read as records"])
        return Texts(lines)
    if suffix == ".conll":
        return Texts(_sentences(str(path), decode(path, read_content(path))))
    either_key = {"text": TEXT, "context": CONTEXT} if suffix == ".json" else {}
    needed = {"text_column": column} if column else either_key
    limit = None if suffix == ".json" else MAX_TEXT_BYTES  # JSON is parsed as a whole, which takes ten times its size
    return texts_of_records(read_rows(path, needed, limit).records, str(path), column)


def _lines(text: str) -> list[str]:
    for line_end in LINE_ENDS:
        text = text.replace(line_end, "\n")
    return [line.strip() for line in text.split("\n") if line.strip()]


def _is_json_object(line: str) -> bool:
    try:
        return line.startswith("{") and isinstance(parse_json(line), dict)
    except ValueError:
        return False


def _sentences(name: str, text: str) -> list[str]:
    """Return the sentences of a CoNLL file with the words in its first column, whatever labels it has.

    Raises:
        UserError: the first column holds something else, or lines have different columns.
    """
    file = read_columns(name, text, remedy="give the words as .txt, a sentence on each line")
    log_note(file.notes)
    problems = [f"{name}, {problem}" for sentence in file.sentences for problem in sentence.problems]
    raise_first_problems(problems if file.sentences else [f"{name}: holds no sentence"], name)
    return [" ".join(sentence.words) for sentence in file.sentences]


def _without_articles(records: Iterable[Record]) -> Iterator[Record]:
    """Yield the paragraphs of nested SQuAD in place of its articles, and other records as they are."""
    for record in records:
        paragraphs = record.fields.get("paragraphs") if isinstance(record.fields, dict) else None
        if isinstance(paragraphs, list):
            yield from (Record(f"{record.where}.paragraphs[{index}]", item) for index, item in enumerate(paragraphs))
        else:
            yield record


def texts_of_records(records: Iterable[Record], name: str, column: str | None = None) -> Texts:
    """Return the texts of the records of a file or data set called `name`.

    Args:
        records: each is a text, or an object with a text.
        name: for messages.
        column: the key of the text in an object; None: "text", or else "context". A context counts once, however many
            questions are asked about it.

    Raises:
        UserError: a record has another value than text, or no such key; or no record has a text.
    """
    texts: list[str] = []
    contexts: set[str] = set()
    problems: list[str] = []
    empty = 0
    for number, record in enumerate(_without_articles(records)):
        try:
            key, text = _text_of(record, column)
        except _TextError as error:
            problems.append(f"{name}: {record.where}: {error}")
            if number == 0 and isinstance(error, _NoKeyError):  # the others lack it, too
                break
            continue
        if not text.strip():
            empty += 1
        elif key != CONTEXT:
            texts.append(text.strip())
        elif text not in contexts:
            texts.append(text)
            contexts.add(text)
    if not texts and not problems:
        problems = [f"{name}: holds no text"]
    raise_first_problems(problems, name)
    return Texts(texts, empty)


def _text_of(record: Record, column: str | None) -> tuple[str | None, str]:
    """Return the key and the text of a record; None is the key of a record that is text itself."""
    if record.problem:
        raise _TextError(record.problem)
    key, value = None, record.fields
    if isinstance(value, dict):
        key = column or (TEXT if TEXT in value else CONTEXT)
        if key not in value:
            wanted = repr(column) if column else f"{TEXT!r} or {CONTEXT!r}"
            raise _NoKeyError(f"no {wanted}; found: {first_names(value)}; --text_column chooses another")
        value = value[key]
    if value is None:
        return key, ""
    if not isinstance(value, str):
        shown = kind(value) if key is None else f"{key!r} is {kind(value)}"
        raise _TextError(f"{shown}; it must be text, or an object with the text under {TEXT!r}")
    if not is_text(value):
        raise _TextError("has a lone surrogate, which is not valid text")
    return key, value


def text_files(folder: Path) -> list[Path]:
    """Return the files in a folder and its subfolders that `read_texts` reads, sorted by path.

    Hidden files are left out. A note says how many others are.

    Raises:
        UserError: there is none, or the folder is a data set that the `datasets` library saved.
    """
    if any((folder / mark).is_file() for mark in SAVED_MARKS):
        raise UserError(f"{folder}: holds a saved data set; give it as --dataset_name")
    visible = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    files = [path for path in visible if format_of(path) in TEXT_SUFFIXES]
    if not files:
        raise UserError(f"{folder}: holds no file with one of the extensions {', '.join(TEXT_SUFFIXES)}")
    others = [path for path in visible if format_of(path) not in TEXT_SUFFIXES]
    if others:
        log_note([f"{folder}: {len(others)} files with other extensions are left out, such as {others[0]}"])
    return files

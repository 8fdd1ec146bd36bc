"""Turns a SQuAD file as published, or the SQuAD-pt archive, into clean flat files for training and evaluation."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, get_args

from tqdm import tqdm

from adapter_qa.core.cli import CollectingArgumentParser, run_cli
from adapter_qa.core.errors import UserError, escape_control_chars
from adapter_qa.core.files import MAX_BYTES
from adapter_qa.data.alignment import Alignment, Outcome, Passage, clean, realign
from adapter_qa.data.squad import Question, Record, RecordError, parse_question, read_question_file, read_records

USAGE = """\
What is written, for an input named squad-train.json:
  pt_squad-train.json          {"data": [{id, title, context, question, answers: {answer_start, text}}]}
  pt_squad-train_rejects.json  what was left out or could not be aligned: the record and the reason
  pt_squad-train_counts.json   the counts that are also printed

examples:
  python prepare_squad_pt.py squad-pt.tar.gz --output_dir data
  python prepare_squad_pt.py squad_v2_pt.json --split eval --overwrite
"""

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".zip")
ARCHIVE_MEMBERS = ("squad-train-v1.1.json", "squad-dev-v1.1.json")
MAX_ARCHIVE_BYTES = 2 * MAX_BYTES  # unpacked, whatever else is in it
EVAL_WORDS = ("dev", "val", "test")


def main(argv: list[str]) -> int:
    """Table of contents; returns the exit code."""
    args = parse_arguments(argv)
    output_dir = args.output_dir or args.input.parent
    files = read_input(args.input)
    outputs = {name: output_paths(name, output_dir) for name in files}
    if not args.overwrite:
        refuse_existing([path for paths in outputs.values() for path in paths])

    for name, records in files.items():
        split = args.split or split_from_name(name)
        preparation = prepare(records, keep_unaligned=split == "eval")
        counts = {"input": name, "split": split, **preparation.summary()}
        data_path, rejects_path, counts_path = outputs[name]
        write_json(rejects_path, preparation.rejects)
        write_json(counts_path, counts, indent=2)
        print_counts(counts)
        if not preparation.questions:
            raise UserError(f"{name}: no question is left; the reasons are in {rejects_path}")
        write_json(data_path, {"data": [flat_record(question) for question in preparation.questions]})
        print(escape_control_chars(data_path) + "\n")
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = CollectingArgumentParser(
        prog="prepare_squad_pt.py",
        description="Cleans SQuAD files: HTML entities resolved, answers put back where they stand in their "
        "context, what cannot be aligned set aside with its reason.",
        epilog=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "input",
        type=Path,
        help="SQuAD v1.1 or v2.0 questions (.json, .jsonl, .csv), or an archive "
        f"({', '.join(ARCHIVE_SUFFIXES)}) that holds {' and '.join(ARCHIVE_MEMBERS)}",
    )
    parser.add_argument("--output_dir", type=Path, help="folder to write to (default: that of the input)")
    parser.add_argument(
        "--split",
        choices=("train", "eval"),
        help="train: answers that cannot be aligned are left out. eval: they stay, with answer_start -1, because "
        "predictions are still compared with their text (default: eval for file names that contain "
        f"{', '.join(EVAL_WORDS)}, otherwise train)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist (default: refuse)")
    return parser.parse_args(argv)


def split_from_name(name: str) -> str:
    return "eval" if any(word in name.lower() for word in EVAL_WORDS) else "train"


def output_paths(name: str, output_dir: Path) -> tuple[Path, Path, Path]:
    """Where data, rejects and counts go; always JSON, whatever was read."""
    stem = f"pt_{Path(name).stem}"
    return output_dir / f"{stem}.json", output_dir / f"{stem}_rejects.json", output_dir / f"{stem}_counts.json"


def refuse_existing(paths: list[Path]) -> None:
    existing = [str(path) for path in paths if path.exists()]
    if existing:
        raise UserError(f"already there: {', '.join(existing)}; give --overwrite or another --output_dir")


def read_input(path: Path) -> dict[str, list[Record]]:
    """The records of the files to prepare, by the file's name.

    Raises:
        UserError: no such file, or one that cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return {name: read_records(name, content) for name, content in read_archive(path).items()}
    return {path.name: read_question_file(path)}


def read_archive(path: Path) -> dict[str, bytes]:
    """Reads `ARCHIVE_MEMBERS`, in whatever folder they lie, into memory; nothing is extracted to a path.

    Raises:
        UserError: unreadable archive; a member that is missing, there twice, a link or too large.
    """
    members = _zip_members(path) if path.suffix.lower() == ".zip" else _tar_members(path)
    found: dict[str, bytes] = {}
    try:
        for name, size, stream in members:
            if name in found:
                raise UserError(f"{path}: holds {name} more than once")
            if stream is None:
                raise UserError(f"{path}: {name} is a link or device, not a file")
            if size > MAX_BYTES:
                raise UserError(f"{path}: {name} has {size:,} bytes; allowed: {MAX_BYTES:,}")
            found[name] = stream.read(size)
    except (OSError, EOFError, ValueError, zlib.error, struct.error, tarfile.TarError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable archive: {error}") from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile: encrypted, unknown compression
        raise UserError(f"{path}: cannot be unpacked: {error}") from error
    missing = [name for name in ARCHIVE_MEMBERS if name not in found]
    if missing:
        raise UserError(f"{path}: holds no {' and no '.join(missing)}")
    return {name: found[name] for name in ARCHIVE_MEMBERS}


class BoundedGzip(gzip.GzipFile):
    """A gzip file that ends in an error once it has given too much: headers alone can fill the memory."""

    given = 0

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes.

        Raises:
            UserError: there were more than `MAX_ARCHIVE_BYTES`.
        """
        content = super().read(size)
        self.given += len(content)
        if self.given > MAX_ARCHIVE_BYTES:
            raise UserError(f"{self.name}: unpacks to more than {MAX_ARCHIVE_BYTES:,} bytes, the most that is read")
        return content


def _tar_members(path: Path) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    """Yields name, size and content of the members in question; no content for what is no regular file."""
    # The pipe: a stream is read in order and once, so that the bound holds.
    with BoundedGzip(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if name in ARCHIVE_MEMBERS and not member.isdir():
                yield name, member.size, archive.extractfile(member) if member.isreg() else None


def _zip_members(path: Path) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    """Yields name, size and content of the members in question; no content for links."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.rpartition("/")[2]
            if name in ARCHIVE_MEMBERS:
                # Unix archivers keep the file mode in the upper half.
                is_link = stat.S_ISLNK(member.external_attr >> 16)
                yield name, member.file_size, None if is_link else archive.open(member)


class Preparation:
    """Sorts the questions of one file into those that stay and those that go, and counts.

    Attributes:
        questions: cleaned and aligned, in the order of the file.
        rejects: JSON-ready: `where`, `reason`, `detail`, `kept` (whether the question stays all the same) and the
            `record` as it was found.
    """

    def __init__(self, keep_unaligned: bool):
        self.keep_unaligned = keep_unaligned
        self.questions: list[Question] = []
        self.rejects: list[dict[str, Any]] = []
        self.read = self.duplicates = self.entities = 0
        self.rejected: Counter[str] = Counter()  # by reason
        self.outcomes: Counter[str] = Counter()  # of answers
        self.passages: dict[str, Passage] = {}  # by raw context: each is cleaned and folded once

    def add(self, record: Record, question: Question) -> None:
        """Cleans and aligns one question; keeps it, or sets it aside with the reason."""
        passage = self.passages.get(question.context)
        if passage is None:
            passage = self.passages[question.context] = Passage(question.context)
            self.entities += passage.cleaned.entities
        texts = (question.question, *question.answer_texts)
        self.entities += sum(clean(text).entities for text in texts)
        cleaned, alignments = realign(question, passage, keep_unaligned=self.keep_unaligned)
        self.outcomes.update(alignment.outcome for alignment in alignments)
        reason = reason_to_reject(cleaned, alignments)
        answered = cleaned.answer_texts or not alignments
        kept = bool(cleaned.context and cleaned.question and answered)
        if reason:
            lost = [a.text for a in alignments if a.outcome in ("not found", "empty")]
            self.reject(record, reason, "; ".join(map(repr, lost)), kept=kept)
        if kept:
            self.questions.append(cleaned)

    def reject(self, record: Record, reason: str, detail: str, *, kept: bool = False) -> None:
        """Notes a record with its reason; `kept` where it stays although some of its answers could not be placed."""
        self.rejects.append(
            {"where": record.where, "reason": reason, "detail": detail, "kept": kept, "record": record.fields}
        )
        if not kept:
            self.rejected[reason] += 1

    def summary(self) -> dict[str, Any]:
        """The counts: `read` is the sum of `kept`, `duplicates` and `rejected`."""
        unanswerable = sum(not question.answer_texts for question in self.questions)
        return {
            "read": self.read,
            "kept": len(self.questions),
            "kept_unanswerable": unanswerable,
            "duplicates": self.duplicates,
            "rejected": dict(sorted(self.rejected.items())),
            "answers": {outcome: self.outcomes[outcome] for outcome in get_args(Outcome)},
            "entities_unescaped": self.entities,
        }


def reason_to_reject(cleaned: Question, alignments: list[Alignment]) -> str:
    """What is wrong with a question or some of its answers; empty if nothing is."""
    outcomes = {alignment.outcome for alignment in alignments}
    if not cleaned.context:
        return "empty context"
    if not cleaned.question:
        return "empty question"
    if "not found" in outcomes:
        return "answer not in the context"
    return "empty answer" if "empty" in outcomes else ""


def prepare(records: list[Record], *, keep_unaligned: bool) -> Preparation:
    """Cleans and aligns all questions. Of those that share an id the last one stays, in its own place."""
    preparation = Preparation(keep_unaligned)
    preparation.read = len(records)
    parsed = []
    for record in records:
        try:
            parsed.append((record, parse_question(record, need_answers=True)))
        except RecordError as error:
            preparation.reject(record, "bad record", str(error))
    last = {question.id: position for position, (_, question) in enumerate(parsed)}
    # disable=None: no bar where the output is not a terminal.
    for position, (record, question) in enumerate(tqdm(parsed, unit=" questions", leave=False, disable=None)):
        if last[question.id] == position:
            preparation.add(record, question)
        else:
            preparation.duplicates += 1
    return preparation


def flat_record(question: Question) -> dict[str, Any]:
    """A question in the flat form that the training scripts read."""
    return {
        "id": question.id,
        "title": question.title,
        "context": question.context,
        "question": question.question,
        "answers": {"answer_start": list(question.answer_starts), "text": list(question.answer_texts)},
    }


def write_json(path: Path, content: object, indent: int | None = None) -> None:
    """Writes aside and moves into place, so that no half-written file is ever found under `path`."""
    # Rejected records may hold lone surrogates; "backslashreplace" spells them as JSON does.
    text = json.dumps(content, ensure_ascii=False, indent=indent) + "\n"
    aside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(text.encode("utf-8", "backslashreplace"))
        os.replace(aside, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def print_counts(counts: dict[str, Any]) -> None:
    """Prints the counts, nested ones indented, as a table of two columns."""
    rows: list[tuple[str, object]] = []
    for name, value in counts.items():
        if isinstance(value, dict):
            rows += [(name, sum(value.values())), *((f"  {part}", number) for part, number in value.items())]
        else:
            rows.append((name, value))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        shown = f"{value:,}" if isinstance(value, int) else value
        print(f"{name.replace('_', ' '):<{width}}  {escape_control_chars(shown):>12}")


if __name__ == "__main__":
    sys.exit(run_cli(main))

"""Answer many questions block by block; print the answers, or write them to a file that a later run resumes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from adapter_qa.core.errors import RunError
from adapter_qa.core.readable import count
from adapter_qa.core.resource_errors import first_line, is_out_of_memory
from adapter_qa.inference.answer_files import AnswerFile, AnswerProgress, Document
from adapter_qa.inference.answer_text import answer_line, candidate_lines, one_line, print_json, print_text
from adapter_qa.inference.requests import Request, Requests, blocks


class _Answer(Protocol):
    """What is needed of `predictor_qa.Answer`."""

    @property
    def text(self) -> str: ...
    @property
    def windows(self) -> int: ...
    def document(self, n_best: int | None) -> Document: ...


AskMany = Callable[[list[tuple[str, str]], int], Sequence[_Answer]]  # pairs of question and context, and candidates


@dataclass
class Tally:
    """Counts of answered questions.

    Attributes:
        count: all of them.
        without: those without an answer.
        long: contexts longer than a window; one that is in two blocks which do not follow each other counts twice.
        last_long: those of the last block.
        started: time of the first question, in seconds.
    """

    count: int = 0
    without: int = 0
    long: int = 0
    last_long: set[str] = field(default_factory=set)
    started: float = field(default_factory=time.monotonic)

    def add(self, block: Sequence[Request], answers: Sequence[_Answer]) -> None:
        """Count the answers of a block."""
        self.count += len(answers)
        self.without += sum(not answer.text for answer in answers)
        long = {request["context"] for request, answer in zip(block, answers, strict=True) if answer.windows > 1}
        self.long += len(long - self.last_long)
        self.last_long = long

    def text(self) -> str:
        """Return how many questions were answered, in which time, and which of them differ from the others."""
        seconds = time.monotonic() - self.started
        parts = [f"{count(self.count, 'question', ',')} answered in {seconds:.{1 if seconds >= 1 else 2}f} s"]
        parts += [f"{self.without:,} without an answer"] if self.without else []
        parts += [f"{count(self.long, 'context', ',')} longer than a window"] if self.long else []
        return ", ".join(parts)


def print_all(ask: AskMany, requests: Requests, n_best: int | None, *, as_json: bool) -> Tally:
    """Print the answers to all requests, with `n_best` candidates; None: the answer only."""
    tally = Tally()
    has_bar = sys.stderr.isatty() and not sys.stdout.isatty()  # on one terminal the bar and the answers would mix
    with AnswerProgress(0, requests.count, has_bar=has_bar) as progress:
        for documents in _answer_blocks(ask, requests.read(), n_best, tally):
            print_answers(documents, as_json=as_json, are_several=(requests.count or tally.count) > 1)
            progress.update(len(documents))
    sys.stdout.flush()  # what follows on stderr comes last
    return tally


def write_all(ask: AskMany, requests: Requests, n_best: int | None, file: AnswerFile) -> Tally:
    """Write the answers to all requests that a file does not have yet; `n_best` as for `print_all`."""
    tally = Tally()
    before = file.done
    if before:
        print(f"{count(before, 'question', ',')} answered before, in {file.folder}", file=sys.stderr)
    remaining = requests.read()
    file.skip_done(remaining)
    with AnswerProgress(before, requests.count, has_bar=sys.stderr.isatty()) as progress:
        for documents in _answer_blocks(ask, remaining, n_best, tally):
            file.write(documents)
            progress.update(len(documents))
    return tally


def _answer_blocks(
    ask: AskMany, requests: Iterable[Request], n_best: int | None, tally: Tally
) -> Iterator[list[Document]]:
    """Yield requests with their answers, block by block, and count them."""
    for block in blocks(requests):
        answers = ask([(request["question"], request["context"]) for request in block], n_best or 1)
        tally.add(block, answers)
        yield [request | answer.document(n_best) for request, answer in zip(block, answers, strict=True)]


def print_answers(answers: Iterable[Document], *, as_json: bool, are_several: bool) -> None:
    """Print answers as text or as JSON lines; of several as text, each comes after its question."""
    for answer in answers:
        if as_json:
            print_json(answer)
            continue
        if are_several:
            print_text(one_line(answer["question"]))
        print_text(("  " if are_several else "") + answer_line(answer))
        for line in candidate_lines(answer):
            print_text(line)


@contextmanager
def report_out_of_memory(batch_size: int) -> Iterator[None]:
    """Raise `RunError` with advice if memory does not suffice in the block; also a decorator."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            f"out of memory ({first_line(error)}); lower --batch_size (now {batch_size}) or give --device cpu"
        ) from error

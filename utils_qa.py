"""The best spans on the model's device, and the answer files; `adapter_qa.data.spans` turns spans into answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch.nn import functional

from adapter_qa.core.files import json_lines, write_chunks
from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.answers import Answers
from adapter_qa.data.spans import QUESTIONS_PER_BLOCK, WindowSpans
from adapter_qa.runs.layout import nbest_file, null_odds_file, predictions_file


def best_spans(
    start_logits: torch.Tensor,
    end_logits: torch.Tensor,
    context_mask: torch.Tensor,
    *,
    n_best_size: int,
    max_answer_length: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find the best spans of each window as `adapter_qa.data.spans.best_spans` does, on the device of the logits.

    Which of several spans with the lowest returned score are returned is left to `torch.topk`.
    """
    windows, length = start_logits.shape
    width = min(max_answer_length, length)
    start = start_logits.float().masked_fill(~context_mask, -torch.inf)
    end = end_logits.float().masked_fill(~context_mask, -torch.inf)
    # ends[w, i, k] is the end logit k tokens after i, a view of the padded logits.
    ends = functional.pad(end, (0, width - 1), value=-torch.inf).unfold(1, width, 1)
    scores = (start[:, :, None] + ends).reshape(windows, -1)
    kept = min(n_best_size, scores.shape[1])
    top, pairs = scores.topk(kept, dim=1)
    pairs, order = pairs.sort(dim=1)  # topk returns equal scores in any order
    top, order = top.gather(1, order).sort(dim=1, descending=True, stable=True)
    pairs = pairs.gather(1, order)
    top = functional.pad(top, (0, n_best_size - kept), value=-torch.inf)
    pairs = functional.pad(pairs, (0, n_best_size - kept))
    first = pairs // width
    return top, first, first + pairs % width


def log_totals(
    start_logits: torch.Tensor, end_logits: torch.Tensor, context_mask: torch.Tensor, max_answer_length: int
) -> torch.Tensor:
    """Return log Σ exp(score) over all spans of each window, as `adapter_qa.data.spans.log_totals` does."""
    start = start_logits.double().masked_fill(~context_mask, -torch.inf)
    end = end_logits.double().masked_fill(~context_mask, -torch.inf)
    largest = [logits.amax(1, keepdim=True).nan_to_num(neginf=0.0) for logits in (start, end)]
    starts, ends = (start - largest[0]).exp(), (end - largest[1]).exp()
    length, size, done = ends.shape[1], 1, 0
    sums = torch.zeros_like(ends)
    remaining = min(max_answer_length, length)
    while remaining:
        if remaining & 1:
            sums[:, : length - done] += ends[:, done:]
            done += size
        ends[:, : length - size] += ends[:, size:].clone()
        size, remaining = 2 * size, remaining // 2
    return ((starts * sums).sum(1, keepdim=True).log() + largest[0] + largest[1]).squeeze(1).float()


def span_logits(
    batch: dict[str, torch.Tensor], start_logits: torch.Tensor, end_logits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the float32 logits of tokens as the begin and the end of a span.

    Of several tokens with the same characters, one has the highest of their logits, the others have -inf.
    """
    starts, ends = start_logits.float(), end_logits.float()
    if "span_starts" in batch:
        none = torch.full_like(starts, -torch.inf)
        starts = none.scatter_reduce(1, batch["span_starts"], starts, "amax")
        ends = none.scatter_reduce(1, batch["span_ends"], ends, "amax")
    return starts, ends


def kept_logits(
    batch: dict[str, torch.Tensor], start_logits: torch.Tensor, end_logits: torch.Tensor, length: int
) -> torch.Tensor:
    """Return the `span_logits` of a batch without padding before the windows, for `adapter_qa.data.calibration`.

    Returns:
        (windows, 2, length) float32, of starts and ends, from the first token of each window on; -inf outside of the
        context.
    """
    logits = torch.stack(span_logits(batch, start_logits, end_logits), 1)
    logits = logits.masked_fill(~batch["context_mask"][:, None], -torch.inf)
    positions = batch["first_token"][:, None] + torch.arange(length, device=logits.device)
    padded = functional.pad(logits, (0, length), value=-torch.inf)
    return padded.gather(2, positions[:, None].expand(-1, 2, -1))


class SpanTensors(NamedTuple):
    """The arrays of `adapter_qa.data.spans.WindowSpans` as tensors, all on one device."""

    scores: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor
    start_logits: torch.Tensor
    null_starts: torch.Tensor
    null_ends: torch.Tensor
    log_totals: torch.Tensor

    def arrays(self, temperature: float = 1.0) -> WindowSpans:
        """Return the spans as arrays; `temperature` is that of `log_totals`."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in self._asdict().items()}
        return WindowSpans(**arrays, temperature=temperature)


def window_spans(
    batch: dict[str, torch.Tensor], start_logits: torch.Tensor, end_logits: torch.Tensor, options: AnsweringOptions
) -> SpanTensors:
    """Find the best spans of a batch as `adapter_qa.data.spans.window_spans` does, on the device of the logits.

    `batch` is one of `WindowCollator`; the logits are (windows, length).
    """
    longest, temperature = options.max_answer_length, options.temperature
    starts, ends = span_logits(batch, start_logits, end_logits)
    scores, first, last = best_spans(
        starts, ends, batch["context_mask"], n_best_size=options.spans_to_keep(), max_answer_length=longest
    )
    cls = batch["cls_positions"][:, None]
    window_start = batch["first_token"][:, None]
    return SpanTensors(
        scores,
        first=(first - window_start).int(),  # the smallest type that can be gathered from other processes
        last=(last - window_start).int(),
        start_logits=starts.gather(1, first),
        null_starts=start_logits.float().gather(1, cls).squeeze(1),
        null_ends=end_logits.float().gather(1, cls).squeeze(1),
        log_totals=log_totals(starts / temperature, ends / temperature, batch["context_mask"], longest),
    )


class SpanCollector:
    """Collects the spans of one batch after the other, and puts them into the order of the windows.

    The spans stay on the device until all of them are read, so that no batch waits for a transfer.

    Args:
        order: (windows,) int, indices of the windows in the order in which they come.
        n_best_size: spans of each window.
        device: the device that the spans are on.
        logit_length: tokens of the longest window if `kept_logits` are collected too.
        temperature: of the spans.
    """

    def __init__(
        self,
        order: np.ndarray,
        n_best_size: int,
        device: torch.device | str = "cpu",
        logit_length: int | None = None,
        temperature: float = 1.0,
    ):
        count, shape = len(order), (len(order), n_best_size)
        self.tensors = SpanTensors(
            scores=torch.empty(shape, dtype=torch.float32, device=device),
            first=torch.empty(shape, dtype=torch.int16, device=device),
            last=torch.empty(shape, dtype=torch.int16, device=device),
            start_logits=torch.empty(shape, dtype=torch.float32, device=device),
            null_starts=torch.empty(count, dtype=torch.float32, device=device),
            null_ends=torch.empty(count, dtype=torch.float32, device=device),
            log_totals=torch.empty(count, dtype=torch.float32, device=device),
        )
        self.logits = None if logit_length is None else torch.empty((count, 2, logit_length), device=device)
        self.order = torch.from_numpy(order).to(device)
        self.count = 0
        self.temperature = temperature

    @property
    def spans(self) -> WindowSpans:
        """Return the spans; complete after as many windows as `order` has."""
        return self.tensors.arrays(self.temperature)

    def add_batch(self, spans: SpanTensors, logits: torch.Tensor | None = None) -> None:
        """Add the spans of the next windows, and their `kept_logits` if those are collected.

        Raises:
            ValueError: the logits are collected, but not given.
        """
        rows = self.order[self.count : self.count + len(spans.scores)]
        for collected, tensor in zip(self.tensors, spans, strict=True):
            collected[rows] = tensor.to(collected.dtype)
        if self.logits is not None:
            if logits is None:
                raise ValueError("the logits of the batch are needed, too")
            self.logits[rows] = logits
        self.count += len(rows)


class NBestEntry(msgspec.Struct, gc=False):
    """A candidate in the n-best file: the keys of `run_qa.py`, and the candidate's characters in the context."""

    text: str
    start: int
    end: int
    start_logit: float
    end_logit: float
    probability: float


def write_answers(answers: Answers, folder: Path, prefix: str) -> None:
    """Write `<prefix>_predictions.json`, `<prefix>_nbest_predictions.json` and, for v2, `<prefix>_null_odds.json`.

    Raises:
        OSError: a file cannot be written.
    """
    write_chunks(folder / predictions_file(prefix), json_lines(answers.texts().items()))
    write_chunks(folder / nbest_file(prefix), json_lines(_n_best_entries(answers)))
    if answers.null_score_diff is not None:
        write_chunks(folder / null_odds_file(prefix), json_lines(answers.null_odds.items()))


def _n_best_entries(answers: Answers) -> Iterator[tuple[str, list[NBestEntry]]]:
    """Yield the id and the n-best list of each question; built column by column, since there are so many values."""
    for first in range(0, len(answers.questions), QUESTIONS_PER_BLOCK):
        questions = answers.questions[first : first + QUESTIONS_PER_BLOCK]
        offsets = answers.offsets[first : first + len(questions) + 1]
        rows = slice(offsets[0], offsets[-1])
        contexts = [question.context for question in questions]
        owners = np.repeat(np.arange(len(questions)), np.diff(offsets)).tolist()
        starts, ends = answers.start[rows].tolist(), answers.end[rows].tolist()
        texts = [contexts[owner][start:end] for owner, start, end in zip(owners, starts, ends, strict=True)]
        start_logits = answers.start_logits[rows].tolist()
        end_logits = (answers.scores[rows] - answers.start_logits[rows]).tolist()
        probabilities = answers.probabilities[rows].tolist()
        entries = list(map(NBestEntry, texts, starts, ends, start_logits, end_logits, probabilities))
        bounds = (offsets - offsets[0]).tolist()
        for index, question in enumerate(questions):
            yield question.id, entries[bounds[index] : bounds[index + 1]]

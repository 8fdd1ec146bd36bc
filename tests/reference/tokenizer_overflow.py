"""Windows from the tokenizer's own overflow, and labels from a scan of every token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from support.questions import window_offsets
from transformers import PreTrainedTokenizerFast

from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.questions import Question
from adapter_qa.data.window_dataset import pair_tokenizer
from adapter_qa.data.windows import make_windows


def assert_windows_equal_overflow(
    questions: Sequence[Question], tokenizer: PreTrainedTokenizerFast, max_seq_length: int, doc_stride: int
) -> int:
    """Compare every window with the tokenizer's overflow, and its labels with `scan_labels`; return their number."""
    windows = make_windows(questions, pair_tokenizer(tokenizer), max_seq_length=max_seq_length, doc_stride=doc_stride)
    right = tokenizer.padding_side == "right"
    pairs = [[question.question.lstrip() for question in questions], [question.context for question in questions]]
    expected = tokenizer(
        *(pairs if right else reversed(pairs)),
        truncation="only_second" if right else "only_first",
        max_length=max_seq_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    assert len(windows) == len(expected["input_ids"])
    assert windows.question_index.tolist() == expected["overflow_to_sample_mapping"]
    assert windows.lengths().tolist() == [len(ids) for ids in expected["input_ids"]]
    spans = {context: context_spans(context, tokenizer) for context in {question.context for question in questions}}
    labels = [scan_labels(question, spans[question.context]) for question in questions]
    ranges: list[tuple[int, int, int]] = []
    for index in range(len(windows)):
        window = windows[index]
        assert window.input_ids.tolist() == expected["input_ids"][index]
        if window.token_type_ids is not None:
            assert window.token_type_ids.tolist() == expected["token_type_ids"][index]
        assert (window.token_type_ids is not None) == ("token_type_ids" in tokenizer.model_input_names)
        in_context = np.array([sequence == (1 if right else 0) for sequence in expected.sequence_ids(index)])
        assert window.context_mask.tolist() == in_context.tolist()
        is_first = index == 0 or windows.question_index[index] != windows.question_index[index - 1]
        start = 0 if is_first else ranges[-1][1] - doc_stride
        end = start + int(in_context.sum())
        context = questions[windows.question_index[index]].context
        assert window_offsets(windows, index)[in_context].tolist() == spans[context][start:end]
        ranges.append((start, end, int(in_context.argmax()) - start))
    for index, (start, end, shift) in enumerate(ranges):
        question = windows.question_index[index]
        first, last = labels[question]
        siblings = [ranges[other] for other in np.flatnonzero(windows.question_index == question)]
        if start <= first <= last < end:
            label = (first + shift, last + shift)
        elif not questions[question].answer_texts or any(a <= first <= last < b for a, b, _ in siblings):
            label = (0, 0)
        else:
            label = (IGNORE_INDEX, IGNORE_INDEX)
        assert (windows.start_position[index], windows.end_position[index]) == label
    return len(windows)


def context_spans(context: str, tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """Return start and end character of every token, without white space at both ends.

    A span of white space only is empty, at its end.
    """
    encoded = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)
    spans = []
    for start, end in encoded["offset_mapping"]:
        first, last = start, end
        while first < end and context[first].isspace():
            first += 1
        while first < last and context[last - 1].isspace():
            last -= 1
        spans.append([first, last])
    return spans


def scan_labels(question: Question, spans: list[list[int]]) -> tuple[int, int]:
    """Return the first and the last token of the first gold answer in its context by looking at every character.

    Of the tokens with the answer's first character that any token has, the last one counts; of those with its last
    one, the first. (-1, -1) if there is none, or the answer is not at its start index.
    """
    if not question.answer_texts:
        return -1, -1
    start, text = question.answer_starts[0], question.answer_texts[0]
    if start < 0 or not text.strip() or question.context[start : start + len(text)] != text:
        return -1, -1
    found = []
    for character in range(start, start + len(text)):
        found.append([token for token, (first, last) in enumerate(spans) if first <= character < last])
    found = [tokens for tokens in found if tokens]
    if not found:
        return -1, -1
    first, last = found[0][-1], found[-1][0]
    return (first, last) if first <= last else (found[0][0], found[-1][-1])

"""Windows from the tokenizer's own overflow, and labels from a scan of every token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from support.questions import window_offsets
from transformers import PreTrainedTokenizerFast

from adapter_qa.data.labels import IGNORED
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
    for index in range(len(windows)):
        window = windows[index]
        assert window.input_ids.tolist() == expected["input_ids"][index]
        if window.token_type_ids is not None:
            assert window.token_type_ids.tolist() == expected["token_type_ids"][index]
        assert (window.token_type_ids is not None) == ("token_type_ids" in tokenizer.model_input_names)
        in_context = np.array([sequence == (1 if right else 0) for sequence in expected.sequence_ids(index)])
        assert window.context_mask.tolist() == in_context.tolist()
        offsets = np.array(expected["offset_mapping"][index])
        assert window_offsets(windows, index)[in_context].tolist() == offsets[in_context].tolist()
        labels = scan_labels(questions[windows.question_index[index]], offsets, in_context)
        assert (window.start_position, window.end_position) == labels
    return len(windows)


def scan_labels(question: Question, offsets: np.ndarray, in_context: np.ndarray) -> tuple[int, int]:
    """Return the labels of a window by looking at every token.

    Args:
        question: the question.
        offsets: (tokens, 2) int, characters of each token.
        in_context: (tokens,) bool.
    """
    if not question.answer_texts:
        return 0, 0
    start, text = question.answer_starts[0], question.answer_texts[0]
    end = start + len(text)
    if start < 0 or not text.strip() or question.context[start:end] != text:
        return IGNORED, IGNORED
    tokens = np.flatnonzero(in_context)
    if not len(tokens) or offsets[tokens[0]][0] > start or offsets[tokens[-1]][1] < end:
        return 0, 0
    first = max(token for token in tokens if offsets[token][0] <= start)
    return int(first), int(min(token for token in tokens if offsets[token][1] >= end))

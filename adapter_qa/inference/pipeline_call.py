"""The call of the question-answering pipeline that transformers 5 removed, for models of this project.

`docs/asking.md` lists what differs from it. No torch is needed here, so that exported models have the same call.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any, NamedTuple, TypedDict

import numpy as np

from adapter_qa.data.answering_options import AnsweringOptions
from adapter_qa.data.answers import Answers
from adapter_qa.data.pair_tokenizer import PairTokenizer
from adapter_qa.data.questions import Question
from adapter_qa.data.windows import TEXTS_PER_CALL, cut_text, pair_layout, stride_remedy
from adapter_qa.inference.ask_settings import number_problems, shown
from adapter_qa.inference.call_inputs import CallError, Item, flat, is_stream, read_items, read_stream

DEPRECATED_INPUTS = ("X", "data")  # other names of the first argument
WITHOUT_EFFECT = ("padding", "num_workers")  # on answers; the pipeline took them


class CallAnswer(TypedDict):
    """An answer as the pipeline returned it: probability, characters in the context, end exclusive, and text."""

    score: float
    start: int
    end: int
    answer: str


NO_ANSWER = CallAnswer(score=0.0, start=0, end=0, answer="")


class CallOptions(NamedTuple):
    """The options of one call, checked.

    Attributes:
        answering: how questions are answered.
        batch_size: windows per forward pass.
        top_k: answers to return.
        candidates: best spans of a question that the answers are made of.
        max_question_len: tokens of the longest question; None for no limit but the window.
        allow_no_answer: "no answer" is returned as an answer.
        align: answers are extended to whole words.
    """

    answering: AnsweringOptions
    batch_size: int
    top_k: int
    candidates: int
    max_question_len: int | None
    allow_no_answer: bool
    align: bool


class PipelineCall(ABC):
    """A model that is called as the question-answering pipeline of transformers 4 was.

    Attributes:
        pair_tokenizer: its tokenizer.
        options: its options for windows and answers.
        batch_size: windows per forward pass.
    """

    pair_tokenizer: PairTokenizer
    options: AnsweringOptions
    batch_size: int

    @abstractmethod
    def answer_with(self, questions: Sequence[Question], options: AnsweringOptions, batch_size: int) -> Answers:
        """Answer questions with distinct ids with options of their own."""

    @abstractmethod
    def _longest_window(self) -> int:
        """Return the most tokens that the model reads."""

    def __call__(
        self,
        question: Any = None,
        context: Any = None,
        top_k: int | None = 1,
        doc_stride: int | None = None,
        max_seq_len: int | None = None,
        max_answer_len: int | None = None,
        max_question_len: int | None = None,
        handle_impossible_answer: bool | None = False,
        align_to_words: bool | None = True,
        batch_size: int | None = None,
        **deprecated: Any,
    ) -> Any:
        """Answer questions as `pipeline("question-answering")` of transformers 4 did; None stands for the default.

        Args:
            question: a question or a list of them; or a dictionary with "question" and "context", a list of such
                dictionaries, or a generator or data set of them.
            context: the context of the question, one of all questions, or a list of contexts.
            top_k: answers to return.
            doc_stride: context tokens that neighbouring windows share; by default the run's, and at most half of
                `max_seq_len` if that is given.
            max_seq_len: tokens of a window; by default the run's.
            max_answer_len: tokens of the longest answer; by default the run's.
            max_question_len: tokens after which a question is cut; by default it is cut if it fills the window.
            handle_impossible_answer: "no answer" may be an answer; it has the text "" and characters 0 to 0. It comes
                first if its score is above that of the best span by the run's threshold.
            align_to_words: answers are extended to whole words, as the tokenizer splits words.
            batch_size: windows per forward pass.
            deprecated: what else the pipeline took: `topk`, `X`, `data`; `padding` and `num_workers` have no effect.

        Returns:
            A dictionary with "score", "start", "end" and "answer" for each question; a list of them if `top_k` is above
            1 and there are several. A list with an element for each question if there are several questions. A
            generator of them for a generator or data set.

        Raises:
            CallError: an argument has a wrong form or value.
        """
        renamed = _read_deprecated(deprecated)
        numbers = {
            "top_k": renamed.get("topk", top_k) if top_k in (None, 1) else top_k,
            "doc_stride": doc_stride,
            "max_seq_len": max_seq_len,
            "max_answer_len": max_answer_len,
            "max_question_len": max_question_len,
            "batch_size": batch_size,
        }
        switches = {"handle_impossible_answer": handle_impossible_answer, "align_to_words": align_to_words}
        options = self._call_options(numbers, switches)
        inputs = next((renamed[name] for name in DEPRECATED_INPUTS if name in renamed), question)
        if context is None and inputs is not None and is_stream(inputs):
            return self._stream(read_stream(inputs), options, batch_size or 1)
        items = read_items(inputs, context)
        results = self._results(items, options)
        return results[0] if len(results) == 1 else results

    def _call_options(self, numbers: Mapping[str, Any], switches: Mapping[str, Any]) -> CallOptions:
        """Check the options of a call and fill in the model's own.

        Raises:
            CallError: a value cannot be used.
        """
        given = {name: value for name, value in numbers.items() if value is not None}
        problems = number_problems(given)
        for name, value in switches.items():
            if value not in (None, False, True):
                problems.append(f"{name} is {shown(value)}; it must be True or False")
        if problems:
            raise CallError(problems)
        own = self.options
        given = {name: int(value) for name, value in given.items()}
        length = given.get("max_seq_len", own.max_seq_length)
        default_stride = min(own.doc_stride, length // 2) if "max_seq_len" in given else own.doc_stride
        stride = given.get("doc_stride", default_stride)
        self._check_window(length, stride)
        top_k = given.get("top_k", 1)
        align = switches["align_to_words"] in (None, True)
        # As many as the pipeline took: several spans can become one answer when they are extended to words.
        candidates = 2 * top_k + 10 if align else top_k
        allow_no_answer = bool(switches["handle_impossible_answer"])
        answering = replace(
            own,
            max_seq_length=length,
            doc_stride=stride,
            n_best_size=max(own.n_best_size, candidates),
            max_answer_length=given.get("max_answer_len", own.max_answer_length),
            version_2=own.version_2 or allow_no_answer,
        )
        batch_size, longest = given.get("batch_size", self.batch_size), given.get("max_question_len")
        return CallOptions(answering, batch_size, top_k, candidates, longest, allow_no_answer, align)

    def _check_window(self, length: int, stride: int) -> None:
        """Raise CallError if the model reads no windows of that length, or the stride leaves no space in them."""
        limit = self._longest_window()
        if length > limit:
            raise CallError(f"max_seq_len {length}: the model reads at most {limit} tokens")
        remedy = stride_remedy(pair_layout(self.pair_tokenizer), length, stride)
        if remedy is not None:
            raise CallError(f"doc_stride {stride} leaves no space in max_seq_len {length}; give {remedy}")

    def _stream(self, items: Iterator[Item], options: CallOptions, block_size: int) -> Iterator[Any]:
        """Yield the results of items, which are read in blocks of `block_size`."""
        while block := list(islice(items, block_size)):
            yield from self._results(block, options)

    def _results(self, items: Sequence[Item], options: CallOptions) -> list[Any]:
        """Return the result of each item."""
        questions = [Question(str(number), *pair, (), ()) for number, pair in enumerate(flat(items))]
        if not questions:
            return [[] for _ in items]
        if options.max_question_len is not None:
            questions = shorten_questions(questions, self.pair_tokenizer, options.max_question_len)
        answers = self.answer_with(questions, options.answering, options.batch_size)
        words = find_words({question.context for question in questions}, self.pair_tokenizer) if options.align else {}
        results = (
            _result(answers, index, words.get(question.context), options) for index, question in enumerate(questions)
        )
        return [list(islice(results, len(item))) if isinstance(item, list) else next(results) for item in items]


# ---------------------------------------------------------------- arguments


def _read_deprecated(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of names that the pipeline still took, with its warnings.

    Raises:
        CallError: it took no such name.
    """
    known = ("topk", *DEPRECATED_INPUTS, *WITHOUT_EFFECT)
    unknown = [f"{name}: no such argument" for name in names if name not in known]
    if unknown:
        raise CallError(unknown)
    for name in DEPRECATED_INPUTS:
        if name in names:
            warnings.warn(f"{name} is deprecated, use question and context instead", FutureWarning, stacklevel=3)
    given = {name: value for name, value in names.items() if value is not None}
    if "topk" in given:
        warnings.warn("topk parameter is deprecated, use top_k instead", UserWarning, stacklevel=3)
    return given


def shorten_questions(questions: Sequence[Question], tokenizer: PairTokenizer, most: int) -> list[Question]:
    """Return questions that are cut after `most` tokens."""
    encodings = tokenizer.encode([question.question.lstrip() for question in questions])
    return [
        question
        if len(encoding) <= most
        else replace(question, question=cut_text(question.question.lstrip(), tokenizer, most))
        for question, encoding in zip(questions, encodings, strict=True)
    ]


# ---------------------------------------------------------------- words


class Words(NamedTuple):
    """The words of a text, in order: start and end characters, (words,) int each."""

    starts: np.ndarray
    ends: np.ndarray

    def around(self, start: int, end: int) -> tuple[int, int]:
        """Return start and end of the words that a span of tokens begins and ends in."""
        first = np.searchsorted(self.starts, start, side="right") - 1
        last = np.searchsorted(self.ends, end, side="left")
        return int(self.starts[first]), int(self.ends[last])


def find_words(texts: Collection[str], tokenizer: PairTokenizer) -> dict[str, Words]:
    """Return the words of distinct texts, as the tokenizer splits them.

    A word with white space in it is none, since some tokenizers do not split sentences; its tokens are words then.
    """
    found = {}
    remaining = iter(texts)
    while block := list(islice(remaining, TEXTS_PER_CALL)):
        encodings = tokenizer.encode(block)
        ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64)
        spans = tokenizer.char_spans(block, encodings, ids)
        ends = np.cumsum([len(encoding) for encoding in encodings])
        for text, encoding, chars in zip(block, encodings, np.split(spans, ends[:-1]), strict=True):
            has_chars = chars[:, 1] > chars[:, 0]
            tokens, word_ids = chars[has_chars], np.array(encoding.word_ids, np.int64)[has_chars]
            is_first = np.diff(word_ids, prepend=-1) != 0
            words = zip(tokens[is_first, 0], tokens[np.roll(is_first, -1), 1], strict=True)
            has_space = np.array([len(text[start:end].split()) > 1 for start, end in words], bool)
            is_first |= has_space[np.cumsum(is_first) - 1]
            found[text] = Words(tokens[is_first, 0], tokens[np.roll(is_first, -1), 1])
    return found


# ---------------------------------------------------------------- results


def _result(answers: Answers, index: int, words: Words | None, options: CallOptions) -> CallAnswer | list[CallAnswer]:
    """Return the answers to one question: one as itself, several in a list, best first.

    Spans with the same text, without regard to case, are one answer, where the best of them is. Its score is the sum of
    theirs.
    """
    context = answers.questions[index].context
    candidates = answers.candidates(index)
    found: dict[str, CallAnswer] = {}
    for candidate in [candidate for candidate in candidates if candidate.end > 0][: options.candidates]:
        span = candidate.start, candidate.end
        start, end = span if words is None else words.around(*span)
        text = context[start:end]
        answer = found.setdefault(text.lower(), CallAnswer(score=0.0, start=start, end=end, answer=text))
        answer["score"] = min(1.0, answer["score"] + candidate.probability)
    ranked = sorted(found.values(), key=_score, reverse=True)
    if options.allow_no_answer:
        probability = next(candidate.probability for candidate in candidates if candidate.end == 0)
        no_answer = CallAnswer(score=probability, start=0, end=0, answer="")
        rank = sum(_score(answer) >= no_answer["score"] for answer in ranked)
        is_chosen = answers.end[answers.selected[index]] == 0
        ranked.insert(0 if is_chosen else max(1, rank), no_answer)
    elif not ranked:
        ranked = [NO_ANSWER.copy()]
    best = ranked[: options.top_k]
    return best[0] if len(best) == 1 else best


def _score(answer: CallAnswer) -> float:
    return answer["score"]

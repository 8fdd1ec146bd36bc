"""Break down a run's F1 by question word, length of the answer and the context, and number of windows.

Every F1 is the official score over the questions of one category.
"""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from adapter_qa.config.options import ModelOptions
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import files_fingerprint, read_json
from adapter_qa.data.partition import calibration_parts, divide
from adapter_qa.data.questions import Question, is_aligned
from adapter_qa.data.readers.squad import QuestionColumns, read_squad_files
from adapter_qa.data.squad_metrics import question_scores, squad_metrics
from adapter_qa.reporting.runs import Fold, Run
from adapter_qa.runs.layout import BASE_FOLDER, predictions_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Portuguese interrogatives as Cunha and Cintra list them (Nova Gramática do Português Contemporâneo: the pronouns que,
# quem, qual, quanto; the adverbs por que, onde, como, quando), and English words of the same meaning. The first in a
# question counts ("Em que ano" is "que"). If two match at the same character, the first in this list counts.
QUESTION_WORDS = {
    name: re.compile(rf"\b(?:{words})\b", re.IGNORECASE)
    for name, words in (
        ("quem / who", r"quem|who|whom|whose"),
        ("quando / when", r"quando|when"),
        ("onde / where", r"onde|aonde|where"),
        ("quanto / how many", r"quant[oa]s?|how\s+(?:many|much)"),
        ("por que / why", r"por\s?qu[eê]|why"),
        ("qual / which", r"qual|quais|which"),
        ("que / what", r"qu[eê]|what"),
        ("como / how", r"como|how"),
    )
}
OTHER_WORD = "other"
MAX_ANSWER_WORDS = (1, 2, 4, 8)  # upper limits of the categories of answer length; the last category has no limit
NO_ANSWER = "no answer"
CONTEXT_CATEGORIES = 4  # with about equally many questions
CONTEXT_CHARS = 90  # that an example shows on each side of the gold answer
SCORE_TOLERANCE = 1e-6  # percent; a recomputed score differs from the recorded one by rounding only
NORMAL_QUANTILE = 1.959964  # of a two-sided interval of 95 %
ONE_WINDOW, SEVERAL_WINDOWS = "one window", "several windows"


@dataclass(frozen=True)
class RunAnswers:
    """The answers of a run.

    Attributes:
        answers: Text by question id.
        version_2: Whether they are scored as SQuAD v2.0.
    """

    questions: list[Question]
    answers: dict[str, str]
    version_2: bool

    def score(self, questions: Sequence[Question]) -> dict[str, float]:
        """Return the official scores over some of the questions."""
        return squad_metrics(self.answers, questions, version_2=self.version_2)

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """(questions, 2): exact match and F1 of each question in percent."""
        import numpy as np

        return 100 * np.array(question_scores(self.answers, self.questions, version_2=self.version_2))


class Interval(NamedTuple):
    """An interval of 95 % of F1 in percent, and whether it comes from the answers or from their number alone."""

    low: float
    high: float
    from_answers: bool


def count_interval(f1: float, questions: int) -> Interval:
    """Return Wilson's interval (1927) of a share of the questions.

    F1 of a question lies between 0 and 1, so that it varies at most as much as a share with the same mean.
    """
    share, squared = f1 / 100, NORMAL_QUANTILE**2
    centre = share + squared / (2 * questions)
    half = NORMAL_QUANTILE * math.sqrt(share * (1 - share) / questions + squared / (4 * questions**2))
    scale = 100 / (1 + squared / questions)
    return Interval(max(0.0, scale * (centre - half)), min(100.0, scale * (centre + half)), from_answers=False)


class CategoryScores(NamedTuple):
    """Number of questions in one category, and the F1 of each compared group in percent, averaged over seeds."""

    name: str
    questions: int
    f1: list[float]


@dataclass(frozen=True)
class AnswerExample:
    """An answer beside the gold answers.

    Attributes:
        before: Context before the first gold answer; empty if the answer is not at its index in the context.
        gold: The first gold answer as the context spells it; empty if `before` is.
        after: Context after the first gold answer; the beginning of the context if `gold` is empty.
        golds: All distinct gold answers.
        f1: In percent.
    """

    question: str
    before: str
    gold: str
    after: str
    golds: list[str]
    answer: str
    f1: float


class Examples(NamedTuple):
    """Examples of right (exact match) and wrong answers of a run."""

    right: list[AnswerExample]
    wrong: list[AnswerExample]


class QuestionSource(NamedTuple):
    """What decides the questions that `evaluated_questions` reads.

    Attributes:
        sha256: of their files.
        columns: of the files.
        limit: the first so many questions only; None: all.
        set_aside: share of them that the run calibrated on, and did not evaluate.
    """

    sha256: str | None
    columns: QuestionColumns
    limit: int | None
    set_aside: float | None = None
    fold: Fold | None = None


def question_source(run: Run) -> QuestionSource:
    """Return the source of the questions that a run was evaluated on."""
    source = run.document.data.get("eval")
    columns = QuestionColumns.of_options(run.document.options)
    sha256 = None if source is None else source.sha256
    return QuestionSource(sha256, columns, run.limit, run.set_aside, run.fold)


def evaluated_questions(run: Run) -> list[Question]:
    """Read the questions that a run was evaluated on: all of a cross-validation, of one fold a part.

    Raises:
        UserError: if they did not come from a file, or the file is missing or has changed.
    """
    source = run.document.data.get("eval")
    if source is None or not source.paths:
        raise UserError(f"{run.folder}: was not evaluated on a file of questions")
    paths = []
    for file in source.paths:
        path = run.locate(file)
        if path is None:
            raise UserError(f"{file}: no longer exists; {run.folder} was evaluated on it")
        paths.append(path)
    names = " ".join(map(str, paths))
    try:
        sha256 = files_fingerprint(paths)["sha256"]
    except OSError as error:
        raise UserError(f"{names}: cannot be read: {error.strerror}") from error
    if sha256 != source.sha256:
        raise UserError(f"{names}: has changed since {run.folder} was evaluated on it")
    _, columns, limit, share, fold = question_source(run)
    questions = read_squad_files(paths, need_answers=True, columns=columns)[:limit]
    if fold is None:
        return questions if share is None else calibration_parts(questions, share)[1]
    parts = divide(questions, fold.scheme)[fold.number - 1]
    evaluated = parts.scored if fold.split == "predict" else parts.choosing
    return [question for question, is_in in zip(questions, evaluated.tolist(), strict=True) if is_in]


def read_answers(run: Run, questions: list[Question]) -> RunAnswers:
    """Read the answers of a finished run to its `evaluated_questions`.

    Raises:
        UserError: if answers are missing, or their F1 differs from the recorded F1.
    """
    path = run.folder / predictions_file(run.split)
    answers = read_json(path)
    if not all(isinstance(answers.get(question.id), str) for question in questions):
        raise UserError(f"{path}: does not answer every question of its file")
    run_answers = RunAnswers(questions, answers, run.version_2)
    recorded, recomputed = run.evaluation().eval_f1, float(run_answers.scores[:, 1].mean())
    if recorded is None or not math.isclose(recorded, recomputed, abs_tol=SCORE_TOLERANCE):
        raise UserError(
            f"{path}: its F1 is {recomputed:.2f}, but the run recorded {recorded}; "
            "the answers or the questions are not those of the run"
        )
    return run_answers


def break_down(questions: Sequence[Question], windows: Sequence[int] | None) -> dict[str, dict[str, list[Question]]]:
    """Break questions down by every property of the report.

    Args:
        questions: At least one.
        windows: Number of windows of each question; None if unknown, which omits this property.

    Returns:
        For each property the questions of each category that is not empty, in order.
    """
    context_labels, context_order = length_categories([len(question.context.split()) for question in questions])
    properties = [
        ("question word", [question_word(question.question) for question in questions], QUESTION_WORD_ORDER),
        ("answer length", [answer_length(question) for question in questions], ANSWER_LENGTH_ORDER),
        ("context length", context_labels, context_order),
    ]
    if windows is not None:
        window_labels = [ONE_WINDOW if count == 1 else SEVERAL_WINDOWS for count in windows]
        properties.append(("windows", window_labels, (ONE_WINDOW, SEVERAL_WINDOWS)))
    breakdowns = {}
    for name, labels, order in properties:
        categories: dict[str, list[Question]] = {label: [] for label in order}
        for question, label in zip(questions, labels, strict=True):
            categories[label].append(question)
        breakdowns[name] = {label: members for label, members in categories.items() if members}
    return breakdowns


def question_word(question: str) -> str:
    """Return the category of the first question word; `OTHER_WORD` without one."""
    starts = {name: match.start() for name, word in QUESTION_WORDS.items() if (match := word.search(question))}
    return min(starts, key=lambda name: starts[name], default=OTHER_WORD)


def answer_length(question: Question) -> str:
    """Return the category of the first gold answer's length in words."""
    if not question.answer_texts:
        return NO_ANSWER
    count = len(question.answer_texts[0].split())
    return ANSWER_LENGTH_ORDER[sum(count > limit for limit in MAX_ANSWER_WORDS)]


def _range_names(limits: Sequence[int], first: int) -> list[str]:
    """Return the names of the ranges of word counts that end at the limits, and of the range above them."""
    begins = [first, *(limit + 1 for limit in limits)]
    names = [f"{begin}" if begin == end else f"{begin} to {end}" for begin, end in zip(begins, limits, strict=False)]
    return [f"{name} words" if name != "1" else "1 word" for name in names] + [f"from {begins[-1]} words"]


QUESTION_WORD_ORDER = (*QUESTION_WORDS, OTHER_WORD)
ANSWER_LENGTH_ORDER = (*_range_names(MAX_ANSWER_WORDS, 1), NO_ANSWER)


def length_categories(lengths: Sequence[int]) -> tuple[list[str], tuple[str, ...]]:
    """Divide lengths into `CONTEXT_CATEGORIES` ranges with about equally many lengths.

    Returns:
        The category of each length, and all categories in order.
    """
    ordered = sorted(lengths)
    last = [ordered[max(0, len(ordered) * number // CONTEXT_CATEGORIES - 1)] for number in range(1, CONTEXT_CATEGORIES)]
    limits = sorted({length for length in last if length < ordered[-1]})
    names = _range_names(limits, ordered[0])
    return [names[sum(length > limit for limit in limits)] for length in lengths], tuple(names)


def count_windows(run: Run, questions: list[Question]) -> list[int]:
    """Return the number of windows that the run made of each question.

    Raises:
        UserError: if the tokenizer cannot be found on this machine; nothing is downloaded.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # the libraries read it when they are imported
    import numpy as np

    from adapter_qa.data.window_dataset import pair_tokenizer
    from adapter_qa.data.windows import make_windows
    from adapter_qa.models.base_model import load_tokenizer

    tokenizer = pair_tokenizer(load_tokenizer(_base_model_options(run)))
    length, stride = int(run.document.options["max_seq_length"]), int(run.document.options["doc_stride"])
    windows = make_windows(questions, tokenizer, max_seq_length=length, doc_stride=stride)
    counts: list[int] = np.bincount(windows.question_index, minlength=len(questions)).tolist()
    return counts


def _base_model_options(run: Run) -> ModelOptions:
    """Return the options of the run's base model, with paths as seen from the current folder."""
    options = run.document.options
    names = {name: options.get(name) for name in ("model_name_or_path", "config_name", "tokenizer_name", "cache_dir")}
    if options.get("random_init") is True:
        names |= {"model_name_or_path": str(run.folder / BASE_FOLDER), "config_name": None}
    paths = {name: None if path is None else str(run.locate(str(path)) or path) for name, path in names.items()}
    return ModelOptions(
        str(paths["model_name_or_path"]),
        config_name=paths["config_name"],
        tokenizer_name=paths["tokenizer_name"],
        model_revision=str(options.get("model_revision") or "main"),
        cache_dir=paths["cache_dir"],
        do_lower_case=options.get("do_lower_case"),
        strip_accents=options.get("strip_accents"),
    )


def sample_examples(answers: RunAnswers, right: int, wrong: int) -> Examples:
    """Draw at most `right` right and `wrong` wrong answers; the same answers give the same examples."""
    scores = dict(zip((question.id for question in answers.questions), answers.scores.tolist(), strict=True))

    def draw(count: int, is_right: bool) -> list[AnswerExample]:
        candidates = [question for question in answers.questions if (scores[question.id][0] == 100) is is_right]
        indices = sorted(random.Random(count).sample(range(len(candidates)), min(count, len(candidates))))
        drawn = [candidates[index] for index in indices]
        return [_make_example(question, answers.answers[question.id], scores[question.id][1]) for question in drawn]

    return Examples(draw(right, True), draw(wrong, False))


def _make_example(question: Question, answer: str, f1: float) -> AnswerExample:
    context, start, end = question.context, 0, 0
    if question.answer_texts and is_aligned(question):
        start, end = question.answer_starts[0], question.answer_starts[0] + len(question.answer_texts[0])
    first, last = max(0, start - CONTEXT_CHARS), min(len(context), end + CONTEXT_CHARS)
    return AnswerExample(
        question.question,
        before=("…" if first else "") + context[first:start],
        gold=context[start:end],
        after=context[end:last] + ("…" if last < len(context) else ""),
        golds=list(dict.fromkeys(question.answer_texts)),
        answer=answer,
        f1=f1,
    )

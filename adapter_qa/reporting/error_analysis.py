"""Where a run's answers are right and wrong: F1 by question word, length of the answer and the context, and windows.

Every figure is the official scorer's over the questions of one category.
"""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from adapter_qa.config.options import ModelOptions
from adapter_qa.core.errors import UserError
from adapter_qa.core.files import file_fingerprint, read_json
from adapter_qa.data.squad import Question, is_aligned, read_squad
from adapter_qa.data.squad_metrics import squad_metrics
from adapter_qa.reporting.runs import Run, mean_std

PREDICTIONS = "eval_predictions.json"
# Portuguese interrogatives as Cunha and Cintra list them (Nova Gramática do Português Contemporâneo: the pronouns que,
# quem, qual, quanto; the adverbs por que, onde, como, quando), and the English words of the same meaning. The one that
# stands first in a question counts ("Em que ano" is "que"), of those that begin together the one listed first.
QUESTION_WORDS = (
    ("quem / who", r"quem|who|whom|whose"),
    ("quando / when", r"quando|when"),
    ("onde / where", r"onde|aonde|where"),
    ("quanto / how many", r"quant[oa]s?|how\s+(?:many|much)"),
    ("por que / why", r"por\s?qu[eê]|why"),
    ("qual / which", r"qual|quais|which"),
    ("que / what", r"qu[eê]|what"),
    ("como / how", r"como|how"),
)
OTHER_WORD = "other"
ANSWER_WORDS = (1, 2, 4, 8)  # upper ends of the classes of answer lengths, in words; longer ones are a class, too
NO_ANSWER = "no answer"
QUARTERS = 4  # classes of context lengths, each with about as many questions
CONTEXT_SHOWN = 90  # characters on either side of the gold answer
SAME_SCORE = 1e-6  # percent; the official scores are sums of the same figures
ONE, SEVERAL = "one window", "several windows"

_WORDS = [(name, re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)) for name, pattern in QUESTION_WORDS]


@dataclass(frozen=True)
class Answered:
    """What a run answered.

    Attributes:
        questions: those it was evaluated on.
        answers: text by question id.
        version_2: scored as SQuAD v2.0.
    """

    questions: list[Question]
    answers: dict[str, str]
    version_2: bool

    def score(self, questions: Sequence[Question]) -> dict[str, float]:
        """Official scores over some of the questions."""
        return squad_metrics(self.answers, questions, version_2=self.version_2)


@dataclass(frozen=True)
class Division:
    """Questions divided by one property.

    Attributes:
        name: the property.
        parts: questions of each category that has some, in order.
    """

    name: str
    parts: dict[str, list[Question]]


@dataclass(frozen=True)
class Shown:
    """An answer beside the gold.

    Attributes:
        question: as asked.
        before, gold, after: the context around the first gold answer, where that stands at its index; else only
            `after`, the context's beginning.
        golds: all different gold answers.
        answer: what the run said.
        f1: in percent.
    """

    question: str
    before: str
    gold: str
    after: str
    golds: list[str]
    answer: str
    f1: float


def read_answers(run: Run, questions: list[Question]) -> Answered:
    """The answers beside a run's record.

    Args:
        run: a finished one.
        questions: `evaluated_questions` of the run.

    Raises:
        UserError: there are none, or they are not those that the record scores.
    """
    path = run.folder / PREDICTIONS
    answers = read_json(path)
    if not all(isinstance(answers.get(one.id), str) for one in questions):
        raise UserError(f"{path}: does not answer every question of the validation file")
    answered = Answered(questions, answers, run.document.options.get("version_2_with_negative") is True)
    recorded, found = run.evaluation().eval_f1, answered.score(questions)["f1"]
    if recorded is None or not math.isclose(recorded, found, abs_tol=SAME_SCORE):
        raise UserError(
            f"{path}: scores F1 {found:.2f}, the run recorded {recorded}; not its answers, or not its questions"
        )
    return answered


def evaluated_questions(run: Run) -> list[Question]:
    """The questions that a run was evaluated on.

    Raises:
        UserError: they did not come from a file, or the file has gone or changed since.
    """
    given, facts = run.document.options.get("validation_file"), run.document.data.get("eval")
    if not isinstance(given, str) or facts is None:
        raise UserError(f"{run.folder}: its evaluation questions came from no file")
    path = run.locate(given)
    if path is None:
        raise UserError(f"{given}: has gone since {run.folder} was evaluated on it")
    try:
        found = file_fingerprint(path)["sha256"]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if found != facts.sha256:
        raise UserError(f"{path}: has changed since {run.folder} was evaluated on it")
    most = run.document.options.get("max_eval_samples")
    return read_squad(path, need_answers=True)[: most if isinstance(most, int) else None]


def divisions(questions: Sequence[Question], windows: Sequence[int] | None) -> list[Division]:
    """The questions divided in each of the ways of the report.

    Args:
        questions: at least one.
        windows: how many windows each has; None where that is not known, and then there is no such division.
    """
    lengths = quarters([words(one.context) for one in questions])
    found = [
        divide("question word", questions, [question_word(one.question) for one in questions], WORD_ORDER),
        divide("answer length", questions, [answer_length(one) for one in questions], LENGTH_ORDER),
        divide("context length", questions, *lengths),
    ]
    if windows is not None:
        found.append(
            divide("windows", questions, [ONE if count == 1 else SEVERAL for count in windows], (ONE, SEVERAL))
        )
    return found


def divide(name: str, questions: Sequence[Question], labels: Sequence[str], order: Sequence[str]) -> Division:
    """Questions by label, labels in order, empty ones left out."""
    parts: dict[str, list[Question]] = {label: [] for label in order}
    for question, label in zip(questions, labels, strict=True):
        parts[label].append(question)
    return Division(name, {label: found for label, found in parts.items() if found})


def words(text: str) -> int:
    """Words, parted by whitespace."""
    return len(text.split())


def question_word(question: str) -> str:
    """The category of the first question word; `OTHER_WORD` where there is none."""
    found = [(match.start(), rank) for rank, (_, word) in enumerate(_WORDS) if (match := word.search(question))]
    return _WORDS[min(found)[1]][0] if found else OTHER_WORD


def answer_length(question: Question) -> str:
    """The class of the first gold answer's length in words."""
    if not question.answer_texts:
        return NO_ANSWER
    count = words(question.answer_texts[0])
    return LENGTH_ORDER[next((index for index, end in enumerate(ANSWER_WORDS) if count <= end), len(ANSWER_WORDS))]


def range_names(ends: Sequence[int], first: int) -> list[str]:
    """Names of the ranges of whole numbers that end at some of them, and of what lies above."""
    begins = [first, *(end + 1 for end in ends)]
    names = [f"{begin}" if begin == end else f"{begin} to {end}" for begin, end in zip(begins, ends, strict=False)]
    return [f"{name} words" if name != "1" else "1 word" for name in names] + [f"from {begins[-1]} words"]


WORD_ORDER = (*(name for name, _ in QUESTION_WORDS), OTHER_WORD)
LENGTH_ORDER = (*range_names(ANSWER_WORDS, 1), NO_ANSWER)


def quarters(lengths: Sequence[int]) -> tuple[list[str], list[str]]:
    """The class of each length among `QUARTERS` that hold about as many, and the classes in order."""
    ordered = sorted(lengths)
    last = [ordered[max(0, len(ordered) * quarter // QUARTERS - 1)] for quarter in range(1, QUARTERS)]
    ends = sorted({end for end in last if end < ordered[-1]})
    names = range_names(ends, ordered[0])
    return [names[sum(length > end for end in ends)] for length in lengths], names


def mean_f1(answered: Sequence[Answered], questions: Sequence[Question]) -> float:
    """F1 over some questions, in percent, mean of several runs."""
    mean = mean_std([one.score(questions)["f1"] for one in answered]).mean
    assert mean is not None
    return mean


def count_windows(run: Run, questions: Sequence[Question]) -> list[int]:
    """How many windows each question had in a run; the run's tokenizer is asked, and no hub.

    Raises:
        UserError: the tokenizer is not on this machine.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the libraries are imported, which look at it then
    import numpy as np

    from adapter_qa.data.windows import make_windows
    from adapter_qa.models.base_model import load_tokenizer, quiet_libraries

    quiet_libraries()
    options = run.document.options
    tokenizer = load_tokenizer(base_of(run))
    length, stride = int(options["max_seq_length"]), int(options["doc_stride"])
    windows = make_windows(questions, tokenizer, max_seq_length=length, doc_stride=stride)
    return np.bincount(windows.question, minlength=len(questions)).tolist()


def base_of(run: Run) -> ModelOptions:
    """The base model's options, paths as they are found from here."""
    options = run.document.options
    given = {name: options.get(name) for name in ("model_name_or_path", "config_name", "tokenizer_name", "cache_dir")}
    if options.get("random_init") is True:
        given |= {"model_name_or_path": str(run.folder / "base"), "config_name": None}
    found = {name: None if path is None else str(run.locate(str(path)) or path) for name, path in given.items()}
    return ModelOptions(
        str(found["model_name_or_path"]),
        config_name=found["config_name"],
        tokenizer_name=found["tokenizer_name"],
        model_revision=str(options.get("model_revision") or "main"),
        cache_dir=found["cache_dir"],
    )


def sample(answered: Answered, right: int, wrong: int) -> tuple[list[Shown], list[Shown]]:
    """Some right (exact match) and some wrong answers, always the same of the same questions."""
    scores = {one.id: answered.score([one]) for one in answered.questions}
    drawn = []
    for count, wanted in ((right, True), (wrong, False)):
        found = [one for one in answered.questions if (scores[one.id]["exact"] == 100) is wanted]
        chosen = sorted(random.Random(count).sample(range(len(found)), min(count, len(found))))
        drawn.append([shown(found[index], answered, scores[found[index].id]["f1"]) for index in chosen])
    return drawn[0], drawn[1]


def shown(question: Question, answered: Answered, f1: float) -> Shown:
    """One answer beside the gold and its surroundings."""
    golds = list(dict.fromkeys(question.answer_texts))
    context, begin, end = question.context, 0, 0
    if question.answer_texts and is_aligned(question):
        begin, end = question.answer_starts[0], question.answer_starts[0] + len(question.answer_texts[0])
    first, past = max(0, begin - CONTEXT_SHOWN), min(len(context), end + CONTEXT_SHOWN)
    before = ("…" if first else "") + context[first:begin]
    after = context[end:past] + ("…" if past < len(context) else "")
    return Shown(question.question, before, context[begin:end], after, golds, answered.answers[question.id], f1)

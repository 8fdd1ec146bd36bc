"""Exact match and F1 as the official SQuAD v1.1 and v2.0 evaluation scripts define them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from adapter_qa.data.questions import Question

TOP_K = (1, 3, 5, 20)  # numbers of candidates that `top_k_metrics` looks at
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


class Score(NamedTuple):
    """Exact match and F1, 0 to 1."""

    exact: float
    f1: float


@lru_cache(maxsize=1024)  # a gold answer is compared with many candidates
def normalize_answer(text: str) -> str:
    """Convert to lower case and remove ASCII punctuation, English articles and extra white space.

    The articles are English for data in any language, as in all published SQuAD-pt results.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, gold: str) -> float:
    """Return 1.0 if both texts are equal after normalization, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(gold))


def f1(prediction: str, gold: str) -> float:
    """Return the harmonic mean of word precision and recall, 0 to 1; two texts without words score 1 (SQuAD v2.0)."""
    predicted_words, gold_words = normalize_answer(prediction).split(), normalize_answer(gold).split()
    if not predicted_words or not gold_words:
        return float(predicted_words == gold_words)
    shared = (Counter(predicted_words) & Counter(gold_words)).total()
    if not shared:
        return 0.0
    # Not 2 * shared / (number of all words): it rounds differently, which can change the chosen threshold.
    precision, recall = shared / len(predicted_words), shared / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def squad_metrics(
    predictions: Mapping[str, str],
    questions: Sequence[Question],
    *,
    version_2: bool = False,
    null_odds: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Score one answer text per question against the best of its gold answers.

    Args:
        predictions: answer text by question id; "" means unanswerable. No threshold is applied to them.
        questions: the questions with their gold answers.
        version_2: score as SQuAD v2.0 does. SQuAD v1.1 has no questions without gold answers; here such a question
            is correct if its prediction is empty.
        null_odds: score by question id, higher if the question is more likely unanswerable; used with `version_2`
            only. The thresholds are meaningful only if `predictions` contains the best non-empty answers.

    Returns:
        Percentages `exact` and `f1`, and the number of questions `total`. `version_2` adds the same three for the
        questions with (`HasAns_`) and without (`NoAns_`) gold answers, if there are any. `null_odds` adds
        `best_exact` and `best_f1`, which result from answering "" where the odds exceed `best_exact_thresh` and
        `best_f1_thresh`.

    Raises:
        ValueError: there are no questions, or `predictions` or `null_odds` lacks some.
    """
    if not questions:
        raise ValueError("no questions to score")
    scores = question_scores(predictions, questions, version_2=version_2)
    metrics = _averages(scores)
    if not version_2:
        return metrics
    has_answer = {question.id: bool(question.answer_texts) for question in questions}
    for prefix, with_answer in (("HasAns", True), ("NoAns", False)):
        subset = [score for score, answered in zip(scores, has_answer.values(), strict=True) if answered is with_answer]
        if subset:
            metrics |= {f"{prefix}_{name}": value for name, value in _averages(subset).items()}
    if null_odds is not None:
        _require_all("null_odds", null_odds, questions)
        for name, values in by_measure(scores).items():
            by_id = {question.id: value for question, value in zip(questions, values, strict=True)}
            best, threshold = _best_threshold(predictions, by_id, null_odds, has_answer)
            metrics |= {f"best_{name}": best, f"best_{name}_thresh": threshold}
    return metrics


def top_k_metrics(
    candidates: Sequence[Sequence[str]], questions: Sequence[Question], *, kept: int, version_2: bool = False
) -> dict[str, float]:
    """Score the best of the first k candidates of each question, for each k of `TOP_K`.

    Args:
        candidates: texts of each question's candidates, best first; "" means unanswerable.
        questions: the questions with their gold answers, at least one.
        kept: candidates of a question that were kept; a larger k is left out.
        version_2: as for `squad_metrics`. No threshold is applied.

    Returns:
        Percentages `top_<k>_exact` and `top_<k>_f1`.
    """
    cuts = [k for k in TOP_K if k <= kept]
    sums = dict.fromkeys(cuts, Score(0.0, 0.0))
    for texts, question in zip(candidates, questions, strict=True):
        best, first = Score(0.0, 0.0), 0
        for k in cuts:
            for text in texts[first:k]:
                if best == (1.0, 1.0):
                    break
                score = _score(text, question, version_2)
                best = Score(max(best.exact, score.exact), max(best.f1, score.f1))
            first = k
            sums[k] = Score(sums[k].exact + best.exact, sums[k].f1 + best.f1)
    return {
        f"top_{k}_{name}": 100.0 * total / len(questions) for k in cuts for name, total in sums[k]._asdict().items()
    }


def evaluation_metrics(
    predictions: Mapping[str, str],
    candidates: Sequence[Sequence[str]],
    questions: Sequence[Question],
    *,
    kept: int,
    null_odds: Mapping[str, float] | None,
) -> dict[str, float]:
    """Return all scores of an evaluation in percent: `squad_metrics` and `top_k_metrics`.

    Args:
        predictions: as for `squad_metrics`. For SQuAD v2 a threshold is applied to them already; `best_exact` and
            `best_f1` use the thresholds that are best for these questions.
        candidates: as for `top_k_metrics`; those after the largest k of `TOP_K` are not needed. For SQuAD v2 the first
            that is not empty is the best span.
        questions: as for both.
        kept: as for `top_k_metrics`.
        null_odds: as for `squad_metrics`; None for SQuAD v1.
    """
    version_2 = null_odds is not None
    metrics = squad_metrics(predictions, questions, version_2=version_2)
    if version_2:
        spans = {
            question.id: next(filter(None, texts), "") for question, texts in zip(questions, candidates, strict=True)
        }
        tuned = squad_metrics(spans, questions, version_2=True, null_odds=null_odds)
        metrics |= {name: value for name, value in tuned.items() if name.startswith("best_")}
    return metrics | top_k_metrics(candidates, questions, kept=kept, version_2=version_2)


def question_scores(
    predictions: Mapping[str, str], questions: Sequence[Question], *, version_2: bool = False
) -> list[Score]:
    """Return the score of each question; the arguments are those of `squad_metrics`.

    Raises:
        ValueError: `predictions` lacks some questions.
    """
    _require_all("predictions", predictions, questions)
    return [_score(predictions[question.id], question, version_2) for question in questions]


def by_measure(scores: Sequence[Score]) -> dict[str, list[float]]:
    """Return the scores of all questions by the name of the measure, `exact` and `f1`."""
    return {"exact": [score.exact for score in scores], "f1": [score.f1 for score in scores]}


def _require_all(name: str, mapping: Mapping[str, object], questions: Sequence[Question]) -> None:
    missing = [question.id for question in questions if question.id not in mapping]
    if missing:
        raise ValueError(f"{name} lacks {len(missing)} of {len(questions)} questions, such as {missing[0]!r}")


def _score(prediction: str, question: Question, version_2: bool) -> Score:
    # v2.0 ignores gold answers without words; if no other remains, only "" is correct.
    golds = [gold for gold in question.answer_texts if normalize_answer(gold)]
    if version_2 or not question.answer_texts:
        golds = golds or [""]
        return Score(max(exact_match(prediction, gold) for gold in golds), max(f1(prediction, gold) for gold in golds))
    # In v1.1 F1 is 0 if no word is shared, even if neither text has a word.
    return Score(
        max(exact_match(prediction, gold) for gold in question.answer_texts),
        max((f1(prediction, gold) for gold in golds), default=0.0),
    )


def _averages(scores: Sequence[Score]) -> dict[str, float]:
    averages = {name: 100.0 * sum(values) / len(scores) for name, values in by_measure(scores).items()}
    return averages | {"total": len(scores)}


def _best_threshold(
    predictions: Mapping[str, str],
    scores: Mapping[str, float],
    null_odds: Mapping[str, float],
    has_answer: Mapping[str, bool],
) -> tuple[float, float]:
    """Return the best average (percent) and its threshold, as `find_best_thresh` of evaluate-v2.0.py does.

    The search starts with no answers at all, threshold 0.0, and adds the answers one by one in order of the odds. Two
    consequences are kept so that results are comparable: 0.0 also stands for "answer nothing" although odds may be
    below 0, and questions with equal odds are added one by one although no threshold separates them.
    """
    score = best = float(sum(not answerable for answerable in has_answer.values()))
    threshold = 0.0
    for identifier in sorted((key for key in null_odds if key in scores), key=lambda key: null_odds[key]):
        if has_answer[identifier]:
            score += scores[identifier]
        elif predictions[identifier]:
            score -= 1.0
        if score > best:
            best, threshold = score, null_odds[identifier]
    return 100.0 * best / len(scores), threshold

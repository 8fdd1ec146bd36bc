"""Exact match and F1 as the official SQuAD v1.1 and v2.0 evaluation scripts define them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

from adapter_qa.data.squad import Question

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and superfluous whitespace.

    The articles stay English whatever the language of the data, as in all published SQuAD-pt figures.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, gold: str) -> float:
    """1.0 when both texts are the same once normalised, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(gold))


def f1(prediction: str, gold: str) -> float:
    """Harmonic mean of word precision and recall, 0 to 1; two texts without words agree (SQuAD v2.0)."""
    predicted, wanted = normalize_answer(prediction).split(), normalize_answer(gold).split()
    if not predicted or not wanted:
        return float(predicted == wanted)
    shared = (Counter(predicted) & Counter(wanted)).total()
    if not shared:
        return 0.0
    # 2 * shared / (len(predicted) + len(wanted)) rounds differently, which can tip the choice of a threshold.
    precision, recall = shared / len(predicted), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def squad_metrics(
    predictions: Mapping[str, str],
    questions: Sequence[Question],
    *,
    version_2: bool = False,
    null_odds: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Scores one answer text per question against the best of its gold answers.

    Args:
        predictions: answer text by question id; "" says unanswerable. Taken as they are: no threshold is applied.
        version_2: score as SQuAD v2.0 does. In v1.1 a question without gold answers, which that version does
            not have, is right when nothing is predicted.
        null_odds: by question id, the higher the likelier to be unanswerable; looked at with `version_2` only.
            For the thresholds to mean something, `predictions` must hold the best non-empty answers.

    Returns:
        Percentages `exact` and `f1`, and the number of questions `total`. `version_2` adds the same three for
        the questions with (`HasAns_`) and without (`NoAns_`) gold answers, where there are any. `null_odds` adds
        `best_exact` and `best_f1`, reached by answering "" where the odds exceed `best_exact_thresh` and
        `best_f1_thresh`.

    Raises:
        ValueError: no questions, or some that `predictions` or `null_odds` lacks.
    """
    if not questions:
        raise ValueError("no questions to score")
    _require_all("predictions", predictions, questions)
    pairs = [_score(predictions[question.id], question, version_2) for question in questions]
    metrics = _averages(pairs)
    if not version_2:
        return metrics
    has_answer = {question.id: bool(question.answer_texts) for question in questions}
    for prefix, wanted in (("HasAns", True), ("NoAns", False)):
        part = [pair for pair, answerable in zip(pairs, has_answer.values(), strict=True) if answerable is wanted]
        if part:
            metrics |= {f"{prefix}_{name}": value for name, value in _averages(part).items()}
    if null_odds is not None:
        _require_all("null_odds", null_odds, questions)
        for position, name in enumerate(("exact", "f1")):
            scores = {question.id: pair[position] for question, pair in zip(questions, pairs, strict=True)}
            best, threshold = _best_threshold(predictions, scores, null_odds, has_answer)
            metrics |= {f"best_{name}": best, f"best_{name}_thresh": threshold}
    return metrics


def _require_all(what: str, given: Mapping[str, object], questions: Sequence[Question]) -> None:
    missing = [question.id for question in questions if question.id not in given]
    if missing:
        raise ValueError(f"{what} lacks {len(missing)} of {len(questions)} questions, such as {missing[0]!r}")


def _score(prediction: str, question: Question, version_2: bool) -> tuple[float, float]:
    """Exact match and F1 of one question, 0 to 1."""
    # v2.0 ignores gold answers without words, unless there is no other; then only "" is right.
    golds = [gold for gold in question.answer_texts if normalize_answer(gold)]
    if version_2 or not question.answer_texts:
        golds = golds or [""]
        return max(exact_match(prediction, gold) for gold in golds), max(f1(prediction, gold) for gold in golds)
    # v1.1 gives no F1 where no word is shared, not even when neither text has a word.
    return (
        max(exact_match(prediction, gold) for gold in question.answer_texts),
        max((f1(prediction, gold) for gold in golds), default=0.0),
    )


def _averages(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    return {
        "exact": 100.0 * sum(exact for exact, _ in pairs) / len(pairs),
        "f1": 100.0 * sum(overlap for _, overlap in pairs) / len(pairs),
        "total": len(pairs),
    }


def _best_threshold(
    predictions: Mapping[str, str],
    scores: Mapping[str, float],
    null_odds: Mapping[str, float],
    has_answer: Mapping[str, bool],
) -> tuple[float, float]:
    """The best average (percent) and its threshold, searched as `find_best_thresh` of evaluate-v2.0.py does.

    It starts from answering nothing at all, threshold 0.0, and answers question after question in order of the
    odds. Two things follow, kept for comparable figures: 0.0 is also what "answer nothing" reports, although odds
    may lie below it, and questions with equal odds count one by one although no threshold parts them.
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

"""The scores of SQuAD's official evaluation.

Exact match and F1 are those of the evaluation scripts of v1.1 and v2.0 (arXiv:1606.05250,
arXiv:1806.03822), which agree where every question has an answer: texts are compared in small
letters, without punctuation, articles and needless space; F1 is over words; of several true answers
the best counts; and no answer is right where none is true. Here they are fractions, not percents.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class BestAnswer:
    """The best answer to a question, and how far the score of no answer lies above its score."""

    text: str
    no_answer: float = float("-inf")


def scores(
    predictions: Sequence[BestAnswer], truth: Sequence[Sequence[str]], threshold: float = 0.0
) -> dict[str, float]:
    """Exact match and F1 over all questions.

    Args:
        predictions: One a question.
        truth: The texts of its true answers; none, if there is no answer.
        threshold: Where some question has no answer, none is given to those whose ``no_answer``
            lies above it; ``best_f1`` and ``best_exact_match`` are what the best threshold for
            these very questions would have given.
    """
    count = len(truth)
    if not all(truth):  # v2.0 passes over true answers that are nothing but articles
        truth = [[text for text in texts if normalise(text)] or texts for texts in truth]
    raw = [(f1(p.text, texts), exact(p.text, texts)) for p, texts in _pairs(predictions, truth)]
    if all(truth):
        return {
            "f1": sum(score for score, _ in raw) / count,
            "exact_match": sum(score for _, score in raw) / count,
        }
    pairs = [
        (float(not texts), float(not texts)) if p.no_answer > threshold else score
        for (p, texts), score in zip(_pairs(predictions, truth), raw, strict=True)
    ]
    return {
        "f1": sum(score for score, _ in pairs) / count,
        "exact_match": sum(score for _, score in pairs) / count,
        "best_f1": _best(predictions, truth, [score for score, _ in raw]),
        "best_exact_match": _best(predictions, truth, [score for _, score in raw]),
    }


def _pairs(
    predictions: Sequence[BestAnswer], truth: Sequence[Sequence[str]]
) -> Iterator[tuple[BestAnswer, Sequence[str]]]:
    return zip(predictions, truth, strict=True)


def _best(
    predictions: Sequence[BestAnswer], truth: Sequence[Sequence[str]], raw: Sequence[float]
) -> float:
    """The best mean score that a threshold on ``no_answer`` gives, as v2.0's script finds it."""
    total = best = float(sum(not texts for texts in truth))  # no answer to any question
    for i in sorted(range(len(truth)), key=lambda i: predictions[i].no_answer):
        total += raw[i] if truth[i] else -float(bool(predictions[i].text))
        best = max(best, total)
    return best / len(truth)


def exact(prediction: str, truth: Sequence[str]) -> float:
    """1 if the prediction is a true answer, else 0."""
    return max(float(normalise(prediction) == normalise(text)) for text in truth or ("",))


def f1(prediction: str, truth: Sequence[str]) -> float:
    """Overlap of the words of the prediction and of the true answer that it is nearest to."""
    return max(_overlap(normalise(prediction), normalise(text)) for text in truth or ("",))


def _overlap(prediction: str, text: str) -> float:
    ours, theirs = prediction.split(), text.split()
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))


def normalise(text: str) -> str:
    """Small letters, no punctuation, no articles, single spaces."""
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())

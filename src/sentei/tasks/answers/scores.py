"""SQuAD: its files, and the scores of its official evaluation.

Exact match and F1 are those of the evaluation scripts of v1.1 and v2.0 (arXiv:1606.05250,
arXiv:1806.03822), which agree where every question has an answer: texts are compared in small
letters, without punctuation, articles and needless space; F1 is over words; of several true answers
the best counts; and no answer is right where none is true. Here they are fractions, not percents.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from sentei.messages import short

_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Answer:
    """A text, and where in its context it starts."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question on a context; without answers, if the context does not answer it."""

    question: str
    context: str
    answers: tuple[Answer, ...]


# ------------------------------------------------------------------------------------ files


def read(path: Path, text: str) -> list[Question]:
    """The questions of a file in SQuAD's own format.

    Args:
        path: For errors.
        text: What it holds.

    Raises:
        ValueError: It is not in this format, or an answer is not in its context.
    """
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg} at column {error.colno}); "
            f"correct it."
        ) from None
    try:
        found = list(_questions(path, whole["data"]))
    except (KeyError, TypeError) as error:
        missing = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{path}: not in SQuAD's format ({missing}): data, in it paragraphs, in them a context "
            f"and qas, in them id, question and answers with text and answer_start."
        ) from None
    if not found:
        raise ValueError(f"{path} holds no question.")
    return found


def _questions(path: Path, articles: Any) -> Iterator[Question]:
    for article in articles:
        for paragraph in article["paragraphs"]:
            context = paragraph["context"]
            for asked in paragraph["qas"]:
                given = [] if asked.get("is_impossible") else asked["answers"]
                answers = tuple(Answer(one["text"], one["answer_start"]) for one in given)
                question = Question(asked["question"], context, answers)
                if reason := wrong(question):
                    raise ValueError(f"{path}, question {asked['id']}: {reason}")
                yield question


def wrong(asked: Question) -> str:
    """What is wrong with a question; empty where nothing is."""
    for what, text in (("question", asked.question), ("context", asked.context)):
        if not isinstance(text, str) or not text.strip():
            return f"the {what} is {short(text)}, not a text; take it out."
    for answer in asked.answers:
        start, text = answer.start, answer.text
        if not isinstance(text, str) or not text.strip() or not isinstance(start, int):
            return f"the answer {short(text)} at {short(start)} is not a text and its place."
        found = asked.context[start : start + len(text)] if start >= 0 else ""
        if found != text:
            at = asked.context.find(text)
            fix = f"it begins at {at}" if at >= 0 else "it is not in the context at all"
            return (
                f"the answer {short(text)} is not in its context at {start}, where there is "
                f"{short(found)}: {fix}."
            )
    return ""


def from_cells(cell: object, fail: Callable[[str], NoReturn]) -> tuple[Answer, ...]:
    """The answers in a cell of a table: the hub's two lists, SQuAD's list of objects, or as JSON.

    Args:
        cell: What the table holds.
        fail: Raises with the place of the row.
    """
    if isinstance(cell, str):
        try:
            cell = json.loads(cell) if cell.strip() else []
        except json.JSONDecodeError:
            fail(f"the answers are {short(cell)}, which is not JSON.")
    if isinstance(cell, Mapping):
        texts, starts = cell.get("text"), cell.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            fail(f"the answers are {short(cell)}: text and answer_start must be lists alike.")
        return tuple(Answer(text, start) for text, start in zip(texts, starts, strict=True))
    if isinstance(cell, list) and all(isinstance(one, Mapping) for one in cell):
        return tuple(Answer(one.get("text"), one.get("answer_start")) for one in cell)
    fail(
        f'the answers are {short(cell)}; write {{"text": ["..."], "answer_start": [0]}}, with '
        f"empty lists where there is none."
    )


# ----------------------------------------------------------------------------------- scores


@dataclass(frozen=True)
class Prediction:
    """The best answer to a question, and how far the score of no answer lies above its score."""

    text: str
    no_answer: float = float("-inf")


def scores(
    predictions: Sequence[Prediction], truth: Sequence[Sequence[str]], threshold: float = 0.0
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
    given = [
        (float(not texts), float(not texts)) if p.no_answer > threshold else score
        for (p, texts), score in zip(_pairs(predictions, truth), raw, strict=True)
    ]
    return {
        "f1": sum(score for score, _ in given) / count,
        "exact_match": sum(score for _, score in given) / count,
        "best_f1": _best(predictions, truth, [score for score, _ in raw]),
        "best_exact_match": _best(predictions, truth, [score for _, score in raw]),
    }


def _pairs(
    predictions: Sequence[Prediction], truth: Sequence[Sequence[str]]
) -> Iterator[tuple[Prediction, Sequence[str]]]:
    return zip(predictions, truth, strict=True)


def _best(
    predictions: Sequence[Prediction], truth: Sequence[Sequence[str]], raw: Sequence[float]
) -> float:
    """The best mean score that a threshold on ``no_answer`` gives, as v2.0's script finds it."""
    found = best = float(sum(not texts for texts in truth))  # no answer to any question
    for i in sorted(range(len(truth)), key=lambda i: predictions[i].no_answer):
        found += raw[i] if truth[i] else -float(bool(predictions[i].text))
        best = max(best, found)
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

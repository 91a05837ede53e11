"""How good vectors are: by scores of pairs, by what queries find, or beside another model's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentei.tasks.embeddings.features import Vectors
from sentei.tasks.embeddings.rows import BY_ANSWERS, BY_SCORES, BY_TWO_SCORES
from sentei.tasks.metrics import compute

CUT: Final = 10
"""Passages, or neighbors, that are looked at."""

_CHUNK: Final = 512


def unit(vectors: Vectors) -> Vectors:
    """Vectors of length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = vectors / np.maximum(lengths, 1e-12)
    return scaled


def pair_scores(
    vectors: Vectors, rows: NDArray[np.int64], scores: Sequence[float], *, binary: bool
) -> dict[str, float]:
    """Correlations of cosines with scores; where these say yes or no average precision too.

    Args:
        vectors: (texts, width).
        rows: (pairs, 2), numbers of texts.
        scores: Of each pair.
        binary: Whether they are of two values.
    """
    ours = unit(vectors)
    cosines = (ours[rows[:, 0]] * ours[rows[:, 1]]).sum(1)
    metrics = compute(BY_SCORES, cosines, scores)
    if binary:
        from sklearn.metrics import average_precision_score

        truth = np.asarray(scores) == max(scores)
        metrics[BY_TWO_SCORES] = float(average_precision_score(truth, cosines))
    return metrics


def answer_scores(vectors: Vectors, rows: NDArray[np.int64]) -> dict[str, float]:
    """What queries find among all passages, by cosine; means over queries.

    Recall is the part of a query's passages that is among the first k; nDCG has gains of 0 and 1;
    MRR is of the first passage that answers, 0 where none is among the first ten. A query that is a
    passage too does not find itself.

    Args:
        vectors: (texts, width).
        rows: (rows, 2 or 3), numbers of texts: a query, a passage that answers it, another.
    """
    ours = unit(vectors)
    passages = np.unique(rows[:, 1:])
    answers: dict[int, set[int]] = {}
    for query, passage in rows[:, :2]:
        answers.setdefault(int(query), set()).add(int(passage))
    queries = np.array([*answers])
    discount = 1 / np.log2(np.arange(CUT) + 2)
    sums = dict.fromkeys(BY_ANSWERS, 0.0)
    for start in range(0, len(queries), _CHUNK):
        some = queries[start : start + _CHUNK]
        cosines = ours[some] @ ours[passages].T
        cosines[some[:, None] == passages[None, :]] = -np.inf
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :CUT]
        for query, first in zip(some, passages[order], strict=True):
            wanted = answers[int(query)]
            hits = np.array([int(one) in wanted for one in first])
            most = len(wanted)
            gain, best = hits @ discount[: len(hits)], discount[: min(most, CUT)].sum()
            sums["ndcg@10"] += float(gain / best)
            for k in (1, 5, 10):
                sums[f"recall@{k}"] += float(hits[:k].sum() / most)
            sums["mrr@10"] += float(1 / (hits.argmax() + 1)) if hits.any() else 0.0
    return {name: value / len(queries) for name, value in sums.items()}


def agreement(vectors: Vectors, others: Vectors) -> dict[str, float]:
    """How alike the vectors of two models are, of the same texts.

    Args:
        vectors: (texts, width).
        others: Those of the other model; where their width is another, only neighbors are compared.
    """
    ours, theirs = unit(vectors), unit(others)
    metrics = {}
    if ours.shape == theirs.shape:
        metrics["cosine"] = float((ours * theirs).sum(1).mean())
    k = min(CUT, len(ours) - 1)
    shared = 0
    for start in range(0, len(ours), _CHUNK):
        near = (_nearest(one, start, k) for one in (ours, theirs))
        shared += sum(len({*a} & {*b}) for a, b in zip(*near, strict=True))
    metrics["neighbors@10"] = shared / (k * len(ours)) if k else 1.0
    return metrics


def _nearest(unit_vectors: Vectors, start: int, k: int) -> list[list[int]]:
    """Of some texts, the numbers of the k nearest others."""
    some = unit_vectors[start : start + _CHUNK]
    cosines = some @ unit_vectors.T
    cosines[np.arange(len(some)), np.arange(start, start + len(some))] = -np.inf
    nearest: list[list[int]] = np.argsort(-cosines, axis=1, kind="stable")[:, :k].tolist()
    return nearest

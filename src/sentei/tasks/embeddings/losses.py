"""What vectors are taught by: another model's, scores of pairs, passages that answer queries.

With s and t the vectors of the same texts by the student and by its teacher, each of the first
three is a share of what there is to explain, so that their weights compare for every model:

    cosine      mean over texts of 1 - cos(s, t)
    mse         sum of |s - t|^2 / sum of |t|^2
    similarity  sum over pairs i != j of (cos(s_i, s_j) - cos(t_i, t_j))^2
                / sum of (cos(t_i, t_j) - their mean)^2

    scores      log(1 + sum of exp(20 (cos_b - cos_a))) over pairs a, b of which a has the higher
                score: their order, whatever their scale
    answers     cross-entropy of each query's passage among all passages of the batch, by 20 cos
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

SCALE: Final = 20.0
"""Of cosines before an exponential: a temperature of 0.05."""

_TINY: Final = 1e-6


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine of the two vectors of a text, (texts, width), a mean over texts."""
    return (1 - F.cosine_similarity(student, teacher)).mean()


def squared_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of vectors, (texts, width), by the teacher's squares."""
    return (student - teacher).square().sum() / teacher.square().sum().clamp(min=_TINY)


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of the cosines inside a batch, by their spread; 0 for fewer than three texts.

    Args:
        student: Vectors, (texts, width).
        teacher: Vectors of any other width.
    """
    if len(student) < 3:
        return student.new_zeros(())
    ours, theirs = _among(student), _among(teacher)
    spread = (theirs - theirs.mean()).square().sum()
    return (ours - theirs).square().sum() / spread.clamp(min=_TINY)


def _among(vectors: Tensor) -> Tensor:
    """Cosines between different texts, flat."""
    unit = F.normalize(vectors)
    others = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return (unit @ unit.T)[others]


def score_loss(first: Tensor, second: Tensor, scores: Tensor) -> Tensor:
    """How far the cosines of pairs are from the order of their scores.

    Args:
        first: Vectors, (pairs, width).
        second: The same of the second texts.
        scores: (pairs,).
    """
    cosines = SCALE * F.cosine_similarity(first, second)
    wrong = cosines[None, :] - cosines[:, None]  # of b over a
    higher = scores[:, None] > scores[None, :]
    terms = wrong.masked_fill(~higher, -torch.inf).flatten()
    return torch.logsumexp(torch.cat([terms.new_zeros(1), terms]), 0)


def answer_loss(queries: Tensor, passages: Tensor, numbers: Tensor) -> Tensor:
    """How far queries are from telling their own passage from all others of the batch.

    Args:
        queries: Vectors, (rows, width).
        passages: Those of the passages that answer, then of others, (texts, width).
        numbers: Of the passages, (texts,): the same passage twice is no wrong answer.
    """
    rows = len(queries)
    scores = SCALE * F.normalize(queries) @ F.normalize(passages).T
    own = torch.arange(rows, device=scores.device)
    same = numbers[:rows, None] == numbers[None, :]
    same[own, own] = False
    return F.cross_entropy(scores.masked_fill(same, -torch.inf), own)

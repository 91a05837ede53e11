"""What a student's output is worth beside its teacher's: plain functions of tensors.

Everything is computed in float32 at least, whatever the models computed in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MASKED = -100.0
"""Attention scores at or below this were masked out; both models' are set to 0 (SparseBERT)."""


def logits_loss(student: Tensor, teacher: Tensor, kind: str, temperature: float) -> Tensor:
    """The loss between logits [examples, classes].

    kl:             T^2 * sum_c p_c (log p_c - log q_c), a mean over the examples
    cross_entropy:  - p_c log q_c, a mean over examples and classes
    mse:            (z_S - z_T)^2, a mean over examples and classes

    with p = softmax(z_T / T) of the teacher and q = softmax(z_S / T) of the student.
    """
    student, teacher = _wide(student), _wide(teacher)
    if kind == "mse":
        return F.mse_loss(student, teacher)
    ours = F.log_softmax(student / temperature, dim=-1)
    theirs = F.log_softmax(teacher / temperature, dim=-1)
    if kind == "cross_entropy":
        return -(theirs.exp() * ours).mean()
    divergence = F.kl_div(ours, theirs, log_target=True, reduction="batchmean")
    return temperature**2 * divergence


def hidden_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], real: Tensor | None
) -> Tensor:
    """Sum over layers of the mean squared error of hidden states [batch, tokens, width].

    Args:
        student: One a layer.
        teacher: As many.
        real: [batch, tokens], 1 for tokens that count; None counts all.
    """
    return _sum_of_means(student, teacher, None if real is None else real[:, :, None])


def attention_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], real: Tensor | None
) -> Tensor:
    """Sum over layers of the mean squared error of attention scores [batch, heads, query, key].

    Args:
        student: One a layer.
        teacher: As many.
        real: [batch, tokens], 1 for tokens that count, as query and as key; None counts all.
    """
    student, teacher = [unmasked(s) for s in student], [unmasked(t) for t in teacher]
    pairs = None if real is None else real[:, None, :, None] * real[:, None, None, :]
    return _sum_of_means(student, teacher, pairs)


def unmasked(scores: Tensor) -> Tensor:
    """Attention scores with 0 where the mask had put a very negative number."""
    return torch.where(scores <= MASKED, torch.zeros_like(scores), scores)


def _sum_of_means(
    student: Sequence[Tensor], teacher: Sequence[Tensor], weight: Tensor | None
) -> Tensor:
    total = _wide(student[0]).new_zeros(())
    for ours, theirs in zip(student, teacher, strict=True):
        ours, theirs = _wide(ours), _wide(theirs)
        if weight is None:
            total = total + F.mse_loss(ours, theirs)
            continue
        weight = weight.to(ours.dtype)
        repeated = ours.numel() // weight.numel()  # width, or heads
        squares = (ours - theirs).square() * weight
        total = total + squares.sum() / (weight.sum() * repeated).clamp(min=1)
    return total


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor

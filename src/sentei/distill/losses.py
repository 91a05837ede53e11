"""What a student's outputs are worth beside its teacher's: plain functions of tensors.

Everything is computed in float32 at least, whatever the models computed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sentei.distill.outputs import Outputs
from sentei.parts.distillation import Distillation

MASKED = -100.0
"""Attention scores at or below this were masked out; both models' are set to 0 (SparseBERT)."""

_TINY = 1e-12
"""Least mean square that a relative error is divided by."""

_PADDING_LOGIT = -1e4
"""Where a softmax goes over the tokens."""


def loss_terms(
    distillation: Distillation,
    student: Outputs,
    teacher: Outputs,
    batch: Mapping[str, Any],
    own: Tensor | None,
    problem: str | None,
) -> dict[str, Tensor]:
    """The terms of the loss, those of a weight above 0: labels, logits, hidden, attention.

    Args:
        distillation: Which terms.
        student: What it returned.
        teacher: What it returned to the same batch; of the same shapes.
        batch: With the ``labels`` and the ``attention_mask``, if there are any.
        own: The student's own loss on the labels.
        problem: Its config's ``problem_type``.

    Raises:
        ValueError: The two cannot be compared so, or there are no labels where these are needed.
    """
    real = None if distillation.padding else _real_tokens(batch, student)
    relative = distillation.relative
    terms = {}
    if distillation.labels:
        terms["labels"] = labels_term(own)
    if distillation.logits:
        _check_shapes([student.logits], [teacher.logits], "logits")
        terms["logits"] = _logits_term(distillation, student, teacher, batch, problem)
    if distillation.hidden:
        _check_shapes(student.hidden, teacher.hidden, "hidden states")
        terms["hidden"] = hidden_loss(student.hidden, teacher.hidden, real, relative)
    if distillation.attention:
        _check_shapes(student.attention, teacher.attention, "attention scores")
        terms["attention"] = attention_loss(student.attention, teacher.attention, real, relative)
    return terms


def labels_term(own: Tensor | None) -> Tensor:
    """The student's own loss on the labels.

    Raises:
        ValueError: It has none.
    """
    if own is None:
        raise ValueError(
            "the batch has no labels and so the student has no loss of its own: give labels, or "
            "leave them out with labels=0. A Trainer with label_smoothing_factor or "
            "compute_loss_func takes the labels out and makes its own loss, in which no teacher "
            "has a part: use neither"
        )
    return own


def weighted_sum(terms: Mapping[str, Tensor], distillation: Distillation) -> Tensor:
    """The whole loss, in the precision of its last term."""
    weights = [getattr(distillation, name) for name in terms]
    weighted = [
        term if weight == 1 else weight * term
        for weight, term in zip(weights, terms.values(), strict=True)
    ]
    return torch.stack([term.to(weighted[-1].dtype) for term in weighted]).sum()


def share(labels: Any, items: Any, loss_type: str | None) -> Tensor | float:
    """This batch's share of an optimizer step's examples.

    A Trainer that accumulates hands its model ``num_items_in_batch``, the labels of all batches of
    the step, and adds up what comes back.

    Args:
        labels: Of this batch; -100 does not count.
        items: The Trainer's number, or None.
        loss_type: A transformers model's name for its own loss: one shifts its labels.
    """
    if items is None or not isinstance(labels, Tensor):
        return 1.0
    counted = labels[..., 1:] if loss_type == "ForCausalLM" else labels
    part: Tensor = counted.ne(-100).sum() / items
    return part


def _logits_term(
    distillation: Distillation,
    student: Outputs,
    teacher: Outputs,
    batch: Mapping[str, Any],
    problem: str | None,
) -> Tensor:
    kind = distillation.logits_loss
    z_s, z_t = student.logits, teacher.logits
    scale: Tensor | float = 1.0
    if problem == "regression" or z_s.shape[-1] == 1:
        if distillation.regression == "labels":
            labels: Tensor | None = batch.get("labels")
            if labels is None:
                raise ValueError("distill.regression=labels: the batch has no labels")
            z_t = labels.to(z_s.dtype).view_as(z_s)
        return logits_loss(z_s, z_t, "mse", 1.0)
    if problem == "multi_label_classification" and kind != "mse":
        raise ValueError(
            f"distill.logits_loss={kind} takes one class an example, and this model was made for "
            "several: use logits_loss=mse"
        )
    mask: Tensor | None = batch.get("attention_mask")
    if student.spans:  # a choice among the tokens, padding not being one of them
        if mask is not None:
            padding = ~mask.bool()[..., None]
            blank = 0.0 if kind == "mse" else _PADDING_LOGIT
            z_s, z_t = z_s.masked_fill(padding, blank), z_t.masked_fill(padding, blank)
            if kind != "kl":  # a mean over tokens, where kl is a sum
                scale = mask.numel() / mask.sum()
        z_s, z_t = z_s.mT.flatten(0, 1), z_t.mT.flatten(0, 1)
    elif z_s.ndim > 2:  # a class for each token: padding says nothing
        if mask is not None and mask.shape == z_s.shape[:2]:
            z_s, z_t = z_s[mask.bool()], z_t[mask.bool()]
        z_s, z_t = z_s.flatten(0, -2), z_t.flatten(0, -2)
    return scale * logits_loss(z_s, z_t, kind, distillation.temperature)


def _real_tokens(batch: Mapping[str, Any], student: Outputs) -> Tensor | None:
    """[batch, tokens], 1 for real tokens; None where all are."""
    mask: Tensor | None = batch.get("attention_mask")
    layers = student.hidden or student.attention
    if mask is None or not layers:
        return None
    expected = (layers[0].shape[0], layers[0].shape[-2])
    if tuple(mask.shape) != expected:
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)}, not {expected}, so the padding is not "
            "known: count it too with padding=True"
        )
    return mask.to(layers[0].device)


def _check_shapes(student: Sequence[Tensor], teacher: Sequence[Tensor], what: str) -> None:
    for ours, theirs in zip(student, teacher, strict=True):
        if ours.shape != theirs.shape:
            raise ValueError(
                f"the student's {what} have shape {tuple(ours.shape)} and the teacher's "
                f"{tuple(theirs.shape)}: they cannot be compared"
            )


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
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    real: Tensor | None,
    relative: bool = False,
) -> Tensor:
    """Sum over layers of the mean squared error of hidden states [batch, tokens, width].

    Args:
        student: One a layer.
        teacher: As many.
        real: [batch, tokens], 1 for tokens that count; None counts all.
        relative: Divide each layer's by the teacher's mean square there.
    """
    return _sum_of_means(student, teacher, None if real is None else real[:, :, None], relative)


def attention_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    real: Tensor | None,
    relative: bool = False,
) -> Tensor:
    """Sum over layers of the mean squared error of attention scores [batch, heads, query, key].

    Args:
        student: One a layer.
        teacher: As many.
        real: [batch, tokens], 1 for tokens that count, as query and as key; None counts all.
        relative: Divide each layer's by the teacher's mean square there.
    """
    student, teacher = [unmasked(s) for s in student], [unmasked(t) for t in teacher]
    pairs = None if real is None else real[:, None, :, None] * real[:, None, None, :]
    return _sum_of_means(student, teacher, pairs, relative)


def unmasked(scores: Tensor) -> Tensor:
    """Attention scores with 0 where the mask had put a very negative number."""
    return torch.where(scores <= MASKED, torch.zeros_like(scores), scores)


def _sum_of_means(
    student: Sequence[Tensor], teacher: Sequence[Tensor], weight: Tensor | None, relative: bool
) -> Tensor:
    total = _wide(student[0]).new_zeros(())
    for ours, theirs in zip(student, teacher, strict=True):
        ours, theirs = _wide(ours), _wide(theirs)
        error = _mean((ours - theirs).square(), weight)
        total = total + (
            error / _mean(theirs.square(), weight).clamp(min=_TINY) if relative else error
        )
    return total


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """The mean of what counts; ``weight`` is 1 there, and broadcasts over width or heads."""
    if weight is None:
        return values.mean()
    weight = weight.to(values.dtype)
    repeated = values.numel() // weight.numel()
    return (values * weight).sum() / (weight.sum() * repeated).clamp(min=1)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor

"""Adapters of ``peft`` trained on a sparse model, merged into it under its mask."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sentei.modules import plain_name
from sentei.records import Record
from sentei.tensors import count_zeros

_WRAPPERS = frozenset({"base_layer", "original_module"})
"""Under which names peft's own layers hold the weights that they wrap."""


class MergedRecord(Record):
    """One weight: its zeros before and after, and the adapter's change to it.

    ``kept`` is the norm of what the adapter changed where the weight was not zero, ``masked`` that
    of what the mask took away: the adapter's change where it was.
    """

    name: str
    weights: int
    zeros_before: int
    zeros_after: int
    kept: float
    masked: float

    @property
    def share(self) -> float:
        """Fraction of the squared change that the mask took away."""
        total = self.kept**2 + self.masked**2
        return self.masked**2 / total if total else 0.0


class MergeReport(Record):
    """What :func:`merge_adapter` did, weight by weight."""

    weights: tuple[MergedRecord, ...]

    @property
    def zeros(self) -> int:
        """Zeros in all these weights, after."""
        return sum(record.zeros_after for record in self.weights)

    @property
    def sparsity(self) -> float:
        """Fraction of all these weights that is zero, after."""
        return self.zeros / sum(record.weights for record in self.weights)

    @property
    def share(self) -> float:
        """Fraction of the squared change of all weights that the mask took away."""
        masked = sum(record.masked**2 for record in self.weights)
        total = masked + sum(record.kept**2 for record in self.weights)
        return masked / total if total else 0.0


@torch.no_grad()
def merge_adapter(model: nn.Module) -> tuple[PreTrainedModel, MergeReport]:
    """Merge the active adapter into a sparse model: (W + B A) x mask, so that no zero is lost.

    The mask is what is not zero in W. Whatever peft can merge is merged by peft (LoRA, DoRA, ...,
    modules that are trained whole), in place; then the mask is applied to every matrix that had
    zeros.

    Args:
        model: A ``peft.PeftModel`` whose base is sparse.

    Returns:
        The plain model, and what was done.

    Raises:
        ValueError: It is no such model, no weight under an adapter has a zero, or adapters were
            merged before, which filled the zeros.
    """
    if not type(model).__module__.startswith("peft.") or not hasattr(model, "merge_and_unload"):
        raise ValueError(
            f"merge_adapter takes a peft.PeftModel with an adapter that can be merged, not "
            f"{type(model).__name__}: make one with peft.get_peft_model or "
            "peft.PeftModel.from_pretrained"
        )
    tuner: Any = model
    base: nn.Module = tuner.get_base_model()
    for name, module in base.named_modules():
        if getattr(module, "merged_adapters", None):
            raise ValueError(
                f"{name}: its adapter {module.merged_adapters[0]} is merged already, which filled "
                "the zeros, and unmerging does not bring them back exactly: load the sparse model "
                "and the adapter again"
            )
    before = {
        plain_name(name, _WRAPPERS): weight.detach().clone()
        for name, weight in base.named_parameters()
        if _WRAPPERS & set(name.split(".")) and weight.ndim > 1 and count_zeros(weight)
    }
    if not before:
        raise ValueError(
            "merge_adapter: no weight under an adapter has a zero, so there is no mask to merge "
            "under: use the model's own merge_and_unload(), or give the sparse model to peft"
        )
    merged: PreTrainedModel = tuner.merge_and_unload(safe_merge=True)
    records = (_mask_(name, merged.get_parameter(name), old) for name, old in before.items())
    return merged, MergeReport(weights=tuple(records))


def _mask_(name: str, weight: Tensor, before: Tensor) -> MergedRecord:
    """Zero ``weight`` where ``before``, of the same shape, is zero."""
    zero = before == 0
    masked = _norm(weight[zero])
    weight.masked_fill_(zero, 0)
    return MergedRecord(
        name=name,
        weights=weight.numel(),
        zeros_before=int(zero.sum()),
        zeros_after=count_zeros(weight),
        kept=_norm(weight - before),
        masked=masked,
    )


def _norm(values: Tensor) -> float:
    return math.sqrt(float(values.double().square().sum()))

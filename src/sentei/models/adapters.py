"""Adapters of ``peft`` trained on a sparse model, merged into it under its mask."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sentei.records import Record
from sentei.tensors import count_zeros

_WRAPPERS = frozenset({"base_layer", "original_module"})
"""What peft puts into the names of the weights that it wraps."""


class MergedRecord(Record):
    """One weight: its zeros before and after, and the adapter's change to it.

    ``kept`` is the norm of what the adapter changed where the weight was not zero, ``taken`` that
    of what the mask took away: the adapter's change where it was.
    """

    name: str
    weights: int
    zeros_before: int
    zeros_after: int
    kept: float
    taken: float

    @property
    def share(self) -> float:
        """Fraction of the squared change that the mask took away."""
        total = self.kept**2 + self.taken**2
        return self.taken**2 / total if total else 0.0


class MergeReport(Record):
    """What :func:`merge_adapter` did, weight by weight."""

    weights: tuple[MergedRecord, ...]

    @property
    def zeros(self) -> int:
        """Zeros in all these weights, after."""
        return sum(one.zeros_after for one in self.weights)

    @property
    def sparsity(self) -> float:
        """Fraction of all these weights that is zero, after."""
        return self.zeros / sum(one.weights for one in self.weights)

    @property
    def share(self) -> float:
        """Fraction of the squared change of all weights that the mask took away."""
        taken = sum(one.taken**2 for one in self.weights)
        total = taken + sum(one.kept**2 for one in self.weights)
        return taken / total if total else 0.0


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
    inside: nn.Module = tuner.get_base_model()
    for name, module in inside.named_modules():
        if getattr(module, "merged_adapters", None):
            raise ValueError(
                f"{name}: its adapter {module.merged_adapters[0]} is merged already, which filled "
                "the zeros, and unmerging does not bring them back exactly: load the sparse model "
                "and the adapter again"
            )
    before = {
        _plain(name): weight.detach().clone()
        for name, weight in inside.named_parameters()
        if _WRAPPERS & set(name.split(".")) and weight.ndim > 1 and count_zeros(weight)
    }
    if not before:
        raise ValueError(
            "merge_adapter: no weight under an adapter has a zero, so there is no mask to merge "
            "under: use the model's own merge_and_unload(), or give the sparse model to peft"
        )
    merged: PreTrainedModel = tuner.merge_and_unload(safe_merge=True)
    found = tuple(_mask_(name, merged.get_parameter(name), was) for name, was in before.items())
    return merged, MergeReport(weights=found)


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _mask_(name: str, weight: Tensor, was: Tensor) -> MergedRecord:
    """Zero ``weight`` where ``was``, of the same shape, is zero."""
    zero = was == 0
    taken = _norm(weight[zero])
    weight.masked_fill_(zero, 0)
    return MergedRecord(
        name=name,
        weights=weight.numel(),
        zeros_before=int(zero.sum()),
        zeros_after=count_zeros(weight),
        kept=_norm(weight - was),
        taken=taken,
    )


def _norm(values: Tensor) -> float:
    return math.sqrt(float(values.double().square().sum()))

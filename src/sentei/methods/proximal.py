r"""Reweighted proximal pruning (RPP): shrink every weight, the small ones most, and cut by size.

Guo et al. 2019, arXiv 1909.12486.

After every step of the optimizer, the proximal operator of a reweighted l1 norm:

    w <- sign(w) max(0, |w| - lr coefficient / (|w| + epsilon))

Small weights fall to zero on their own, large ones hardly move, and the optimizer's gradient never
mixes with the penalty's. What the operator leaves is cut by magnitude, on the cubic schedule of
magnitude pruning; the paper prunes what has come to zero, with no schedule.

Cost: 1 byte a weight (the mask); one pass over the weights a step.

The paper's text could not be read in full when this was written: the operator's form is from its
published description, coefficient and epsilon are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from sentei.methods.method import Method
from sentei.parts import (
    Cubic,
    Global,
    Magnitude,
    Pattern,
    Progress,
    Project,
    ProximalPenalty,
    Scope,
)
from sentei.recipe import Recipe


class ReweightedL1(ProximalPenalty):
    """Soft-thresholding, with a threshold that falls with the weight's size.

    Reweighted at every step.
    """

    kind: Literal["reweighted_l1"] = "reweighted_l1"

    coefficient: float = Field(1e-3, ge=0)
    """Weight of the term."""

    epsilon: float = Field(1e-2, gt=0)
    """Keeps the threshold of the smallest weights finite."""

    def shrink_(self, weight: Tensor, lr: float, progress: Progress, scratch: Tensor) -> None:
        """Shrink towards zero."""
        torch.abs(scratch.copy_(weight), out=scratch)
        size = scratch.clone()
        scratch.add_(self.epsilon).reciprocal_().mul_(-lr * self.coefficient).add_(size)
        weight.copy_(scratch.clamp_(min=0).copysign_(weight))


def proximal(
    sparsity: float = 0.8,
    *,
    coefficient: float = 1e-3,
    epsilon: float = 1e-2,
    warmup: float = 0.1,
    cooldown: float = 0.4,
    every: int = 10,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """Reweighted proximal pruning's recipe.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        coefficient: Weight of the reweighted l1 norm.
        epsilon: Keeps the shrinkage of the smallest weights finite.
        warmup: Fraction of training before the first pruning.
        cooldown: Fraction of training at the final sparsity.
        every: Optimizer steps between decisions on the ramp.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    return Recipe(
        method="proximal",
        scope=Scope.model_validate(scope or {}),
        pattern=Pattern.model_validate(pattern),
        score=Magnitude(),
        schedule=Cubic(
            sparsity=sparsity, warmup=warmup, cooldown=cooldown, every=every, cooldown_every=0
        ),
        budget=Global(),
        mask=Project(hold=True),
        penalties=(ReweightedL1(coefficient=coefficient, epsilon=epsilon),),
    )


METHOD = Method(
    name="proximal",
    build=proximal,
    summary="shrinks every weight after each step, the small ones most, and cuts by magnitude",
    paper="Guo et al., Reweighted proximal pruning, 2019, arXiv 1909.12486",
)

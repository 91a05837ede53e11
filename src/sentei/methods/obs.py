r"""Optimal brain surgeon on a layer's inputs: what the layer's outputs lose with a weight at best.

Hassibi and Stork 1993, with the layer's squared output error as the objective, whose Hessian is one
matrix for all rows, G = mean of x x^T (Frantar and Alistarh 2023, SparseGPT, arXiv 2301.00774). If
weight w_j is removed and the other weights of its row make up for it as well as they can, the
squared error of the output grows by

    S_j = w_j^2 / [G^-1]_jj        with G + d I in place of G, d = damping * mean of G's diagonal

which is never more than w_j^2 G_jj, what it grows by if nothing makes up for it: inputs that others
can stand in for are worth less. So it belongs with ``reconstruction="least_squares"``, which makes
the others do so; alone it ranks by what will not happen.

Cost: 1 byte a weight (the mask), no gradient read; 4 bytes for each product of two inputs, of at
most 1,536 together, and the inverse of that matrix before a decision.

SparseGPT removes weights column by column and solves for those to the right after each; its score
is this one among the columns that are left. Here all are scored at once, before any is removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sentei.methods.method import Method
from sentei.parts import (
    Cubic,
    Global,
    InputScore,
    Memory,
    Pattern,
    Project,
    Reconstruction,
    Scope,
    Uniform,
)
from sentei.parts.inputs import Statistic
from sentei.recipe import Recipe


class BrainSurgeon(InputScore):
    """w^2 over the inputs' inverse Gram matrix at its input: the loss that others cannot mend."""

    kind: Literal["obs"] = "obs"
    statistic: ClassVar[Statistic] = "products"

    damping: float = Field(0.01, gt=0)
    """Added to the Gram matrix's diagonal, in units of its mean, before it is inverted."""

    def worth(self, statistic: Tensor) -> Tensor:
        """1 / [(G + d I)^-1]_jj."""
        diagonal = statistic.diagonal()
        damping = (self.damping * diagonal.mean()).clamp_min(torch.finfo(statistic.dtype).tiny)
        damped = statistic + torch.diag_embed(damping.expand_as(diagonal))
        factor, failed = torch.linalg.cholesky_ex(damped)
        if bool(failed) and bool(damped.isfinite().all()):
            raise ValueError(
                f"score.damping={self.damping:g}: the products of a layer's inputs cannot be "
                "inverted with so little on their diagonal; raise it, 0.01 is usual"
            )
        return 1 / torch.cholesky_inverse(factor).diagonal()

    def value(self, memory: Memory, weight: Tensor, out: Tensor) -> Tensor:
        """w^2 / [G^-1]_jj."""
        return out.copy_(weight).square_().mul_(memory["worth"])


def obs(
    sparsity: float = 0.5,
    *,
    reconstruction: Reconstruction | Mapping[str, object] | str | None = "least_squares",
    budget: Literal["global", "uniform"] = "global",
    hold: bool = True,
    warmup: float = 0.1,
    cooldown: float = 0.4,
    every: int = 10,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """Optimal brain surgeon's recipe, on the inputs of layers.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        reconstruction: How kept weights take over what pruned ones did, as the score supposes.
        budget: Rank all sites together, or each alone.
        hold: Keep pruned weights at zero. False lets them regrow between decisions, and then every
            step of the cool-down decides, by the inputs seen last on the ramp.
        warmup: Fraction of training before the first pruning.
        cooldown: Fraction of training at the final sparsity.
        every: Optimizer steps between decisions on the ramp.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    return Recipe(
        method="obs",
        scope=Scope.model_validate(scope or {}),
        pattern=Pattern.model_validate(pattern),
        score=BrainSurgeon(),
        schedule=Cubic(
            sparsity=sparsity,
            warmup=warmup,
            cooldown=cooldown,
            every=every,
            cooldown_every=0 if hold else 1,
        ),
        budget=Uniform() if budget == "uniform" else Global(),
        mask=Project(hold=hold),
        reconstruction=reconstruction,
    )


METHOD = Method(
    name="obs",
    build=obs,
    summary="removes the weights that others can best stand in for; works without training",
    paper="Hassibi and Stork 1993; Frantar and Alistarh, SparseGPT, 2023, arXiv 2301.00774",
)

"""Gradual magnitude pruning (GMP): remove the smallest weights, a little more at a time.

Zhu and Gupta 2017, arXiv 1710.01878. The score is |w|; the schedule cubic. A pruned weight is held
at zero, so masks are nested and the cool-down fine-tunes what is left.

Cost: 1 byte a weight (the mask), no gradient read; one pass over the weights at a decision.

``budget="global"`` ranks all sites together, as PLATON's and MGPP's baselines do;
``budget="uniform"`` gives every site the same sparsity, as Zhu and Gupta and SparseBERT do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sentei.methods.method import Method
from sentei.parts import Cubic, Global, Magnitude, Pattern, Project, Scope, Uniform
from sentei.recipe import Recipe


def magnitude(
    sparsity: float = 0.8,
    *,
    budget: Literal["global", "uniform"] = "global",
    hold: bool = True,
    warmup: float = 0.1,
    cooldown: float = 0.4,
    every: int = 10,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """Gradual magnitude pruning's recipe.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        budget: Rank all sites together, or each alone.
        hold: Keep pruned weights at zero. False lets them regrow between decisions, and then every
            step of the cool-down decides, as in PLATON's magnitude baseline.
        warmup: Fraction of training before the first pruning.
        cooldown: Fraction of training at the final sparsity.
        every: Optimizer steps between decisions on the ramp.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    return Recipe(
        method="magnitude",
        scope=Scope.model_validate(scope or {}),
        pattern=Pattern.model_validate(pattern),
        score=Magnitude(),
        schedule=Cubic(
            sparsity=sparsity,
            warmup=warmup,
            cooldown=cooldown,
            every=every,
            cooldown_every=0 if hold else 1,
        ),
        budget=Uniform() if budget == "uniform" else Global(),
        mask=Project(hold=hold),
    )


METHOD = Method(
    name="magnitude",
    build=magnitude,
    summary="removes the smallest weights on a cubic schedule: the baseline, and the cheapest",
    paper="Zhu and Gupta, To prune, or not to prune, 2017, arXiv 1710.01878",
)

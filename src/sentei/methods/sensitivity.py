r"""First-order sensitivity: remove the weights whose removal changes the loss least.

Molchanov et al. 2019, arXiv 1906.10771. The score is the first-order loss change |w g| if the
weight were zero, averaged over a window of steps and, with ``beta``, exponentially over windows:

    Ibar <- beta Ibar + (1 - beta) mean over the window of |w g|

It is PLATON without the uncertainty, and its strongest ablation.

Cost: 9 bytes a weight (window mean and Ibar in float32; mask), one pass over them a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sentei.methods.method import Method
from sentei.parts import Cubic, Global, Pattern, Project, Scope, Smoothed
from sentei.recipe import Recipe


def sensitivity(
    sparsity: float = 0.8,
    *,
    beta: float = 0.85,
    window: int = 10,
    iterate: Literal["new", "old"] = "new",
    warmup: float = 0.1,
    cooldown: float = 0.4,
    every: int = 10,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """First-order sensitivity's recipe.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        beta: Weight of the past in the average over windows; 0 is the mean of the last window.
        window: Optimizer steps averaged before they are folded in.
        iterate: The weight that meets the gradient, see
            :class:`~sentei.parts.scores.Windowed`.
        warmup: Fraction of training before the first pruning.
        cooldown: Fraction of training at the final sparsity, deciding at every step.
        every: Optimizer steps between decisions on the ramp.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    return Recipe(
        method="sensitivity",
        scope=Scope.model_validate(scope or {}),
        pattern=Pattern.model_validate(pattern),
        score=Smoothed(beta=beta, window=window, iterate=iterate),
        schedule=Cubic(sparsity=sparsity, warmup=warmup, cooldown=cooldown, every=every),
        budget=Global(),
        mask=Project(hold=False),
    )


METHOD = Method(
    name="sensitivity",
    build=sensitivity,
    summary="removes the weights whose removal changes the loss least, to first order",
    paper="Molchanov et al., Importance estimation for pruning, CVPR 2019, arXiv 1906.10771",
)

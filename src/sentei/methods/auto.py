r"""auto: Sentei's own recipe, PLATON's score on weights that are kept aside, without dropout.

Made of parts that have been published, chosen by measuring (docs/methods/auto.md):

    S                                     PLATON's score (Zhang et al., ICML 2022), of w and g below
    w_used = w x mask,  g_w = g x mask    the mask is latent: a pruned weight keeps its value, is
                                          scored with it, and comes back with it
                                          (after Guo et al. 2016, arXiv 1608.04493)
    dropout 0                             a sparse model has less to spare
                                          (after Han et al. 2015, arXiv 1506.02626)

g is the gradient at the masked weight, so that the score of a pruned weight, |w g|, is what the
loss would feel if it came back. PLATON itself zeroes a pruned weight and lets it grow again from
nothing.

Cost: 17 bytes a weight (window mean, Ibar, Ubar and the latent weight in float32; mask), one pass
over them a step. The module's weights are sparse after every step, so every checkpoint is.
"""

from __future__ import annotations

from collections.abc import Mapping

from sentei.methods.method import Method
from sentei.parts.budget import Global
from sentei.parts.masks import Latent
from sentei.parts.patterns import Pattern
from sentei.parts.schedule import Cubic
from sentei.parts.scope import Scope
from sentei.parts.scores import Uncertainty
from sentei.recipe import Recipe


def auto(
    sparsity: float = 0.8,
    *,
    beta1: float = 0.85,
    beta2: float = 0.95,
    window: int = 10,
    warmup: float = 0.1,
    cooldown: float = 0.4,
    every: int = 10,
    dropout: float = 0.0,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """Sentei's own recipe.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        beta1: Weight of the past in smoothed importance.
        beta2: Weight of the past in smoothed uncertainty.
        window: Optimizer steps over which sensitivity is averaged before it is folded in.
        warmup: Fraction of training before the first pruning.
        cooldown: Fraction of training at the final sparsity, deciding at every step.
        every: Optimizer steps between decisions on the ramp.
        dropout: Factor on the model's dropout.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    return Recipe(
        method="auto",
        scope=Scope.model_validate(scope or {}),
        pattern=Pattern.model_validate(pattern),
        score=Uncertainty(beta1=beta1, beta2=beta2, window=window, iterate="old"),
        schedule=Cubic(sparsity=sparsity, warmup=warmup, cooldown=cooldown, every=every),
        budget=Global(),
        mask=Latent(),
        dropout=dropout,
    )


METHOD = Method(
    name="auto",
    build=auto,
    summary="Sentei's own: PLATON's score on latent weights, without dropout; the default",
    paper="after Zhang et al. 2022, arXiv 2206.12562, and Guo et al. 2016, arXiv 1608.04493",
)

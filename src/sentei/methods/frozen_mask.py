"""Frozen mask: a model that is sparse already is fine-tuned and stays exactly as sparse.

Pruning upstream, on the pretraining task, then transfer: what was pruned once serves many tasks.
Zafrir et al. 2021, arXiv 2111.05754 (its "pattern lock"); oBERT, arXiv 2203.07259, and MGPP, arXiv
2411.00969, transfer so.

    S = 1 where w was not zero at the start, else 0      the lowest are as many as there were zeros

What is zero in the scope at the start is set to zero after every optimizer step; nothing else is
pruned. A dense model is refused. With ``sparsity``, so is one less sparse than that.

Cost: 5 bytes a weight (what was there, the mask), no gradient read; one pass over the weights a
step.

Against the authors' code, which zeroes gradients too: gradients stay dense, and the gradient's norm
for clipping counts those of pruned weights.
"""

from __future__ import annotations

from collections.abc import Mapping

from sentei.methods.method import Method
from sentei.parts.budget import Global
from sentei.parts.masks import Project
from sentei.parts.schedule import Found
from sentei.parts.scope import Scope
from sentei.parts.scores import Present
from sentei.recipe import Recipe


def frozen_mask(
    sparsity: float | None = None, *, scope: Scope | Mapping[str, object] | None = None
) -> Recipe:
    """The recipe that keeps a model's zeros.

    Args:
        sparsity: The least fraction of the prunable weights that must be zero, in [0, 1); None
            takes any model with a zero.
        scope: Where zeros are kept; by default the model family's attention and FFN matrices.
    """
    return Recipe(
        method="frozen_mask",
        scope=Scope.model_validate(scope or {}),
        score=Present(),
        schedule=Found(sparsity=sparsity),
        budget=Global(),
        mask=Project(hold=True),
    )


METHOD = Method(
    name="frozen_mask",
    build=frozen_mask,
    summary="fine-tunes a sparse model and keeps its zeros; prunes nothing more",
    paper="Zafrir et al., Prune once for all, 2021, arXiv 2111.05754",
)

r"""Movement pruning: remove the weights that fine-tuning moves towards zero.

Sanh, Wolf and Rush 2020, arXiv 2005.07683; authors' code in huggingface/transformers,
examples/research_projects/movement-pruning.

Every weight W has a learned score S, 0 at the start. With M = 1 where S is among the best of its
matrix, the module holds W M, and with g the gradient there:

    dL/dS = g W        straight-through, for pruned weights too
    dL/dW = g M        a pruned weight keeps its value

so that S becomes the sum of -lr g W: high where a weight moves away from zero. Scores are trained
by Adam with a learning rate of their own (``score_lr``), the ratio kept falls on a cubic schedule,
and the masks follow the scores at every step.

Adam divides every score's gradient by its own size, so that in a short run a score is little more
than a count of signs, and important and idle weights drift alike. ``push``, which is not the
paper's, draws all scores of a matrix down by 3 times its mean |g W|: beside it the size of g W
counts again. It fades with the length of training. Without it, and with the first cut after a tenth
of training, it is the paper's (``PUBLISHED``).

Cost: 17 bytes a weight (latent weight, score and Adam's two averages in float32; mask), two passes
a step and a cut.

Against the authors' code: it clips the gradients of scores together with the others', here scores
are not clipped (the loop's clipping sees the gradient at W M, before it is masked); it freezes the
embeddings, here that is the loop's affair. Ties and counts are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sentei.methods.method import Method
from sentei.parts import (
    Adam,
    Cubic,
    Global,
    Learned,
    Pattern,
    Scope,
    ScorePush,
    StraightThrough,
    Uniform,
)
from sentei.recipe import Recipe


def movement(
    sparsity: float = 0.8,
    *,
    score_lr: float = 1e-2,
    push: float = 3.0,
    budget: Literal["global", "uniform"] = "uniform",
    warmup: float = 0.25,
    cooldown: float = 0.2,
    every: int = 1,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """Movement pruning's recipe.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        score_lr: Peak learning rate of the scores.
        push: Of all scores down, in mean gradients of their matrix; the paper has none.
        budget: Rank each matrix alone, as the authors do, or all together.
        warmup: Fraction of training before the first pruning.
        cooldown: Fraction of training at the final sparsity.
        every: Optimizer steps between decisions.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    return Recipe(
        method="movement",
        scope=Scope.model_validate(scope or {}),
        pattern=Pattern.model_validate(pattern),
        score=Learned(optimizer=Adam(lr=score_lr)),
        schedule=Cubic(
            sparsity=sparsity, warmup=warmup, cooldown=cooldown, every=every, cooldown_every=every
        ),
        budget=Uniform() if budget == "uniform" else Global(),
        mask=StraightThrough(),
        penalties=(ScorePush(coefficient=push),) if push else (),
    )


PUBLISHED = {"push": 0.0, "warmup": 0.1}
"""The paper's, for trainings of tens of thousands of steps."""

METHOD = Method(
    name="movement",
    build=movement,
    summary="learns a score for every weight: removes those that fine-tuning moves to zero",
    paper="Sanh et al., Movement pruning, NeurIPS 2020, arXiv 2005.07683",
    published=PUBLISHED,
)

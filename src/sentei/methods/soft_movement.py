r"""Soft movement pruning: learned scores against one rising threshold, under an L1 penalty.

Sanh, Wolf and Rush 2020, arXiv 2005.07683, section 4.1; authors' code in huggingface/transformers,
examples/research_projects/movement-pruning ("sigmoied_threshold").

As movement pruning, but M = 1 where sigmoid(S) > tau, with one tau for all matrices, so that each
finds its own sparsity. tau rises from 0 to ``threshold`` on the cubic schedule, and a penalty draws
the scores down. The paper's has a weight that rises with tau:

    coefficient (tau / threshold) mean over matrices of mean sigmoid(S)

What sparsity that gives, and whether it trains at all, depends on the task, the model and the
length of training. The default needs no coefficient: a push down in mean gradients of each matrix,
as strong as the pruned fraction is behind the schedule (:class:`~sentei.parts.ScorePush`), scores
fast enough to come as far as the threshold in any training, and in the last tenth exactly the count
asked for. A ``coefficient`` puts the paper's penalty in place of the push; ``PUBLISHED`` is the
paper's whole.

Cost: 17 bytes a weight (latent weight, score and Adam's two averages in float32; mask).

Against the authors' code: as movement pruning. A matrix keeps at least 0.5 % and one weight, as
there.
"""

from __future__ import annotations

from collections.abc import Mapping

from sentei.methods.method import Method
from sentei.parts import (
    Adam,
    Cubic,
    Learned,
    Pattern,
    Scope,
    ScoreL1,
    ScorePenalty,
    ScorePush,
    StraightThrough,
    Threshold,
)
from sentei.recipe import Recipe


def soft_movement(
    sparsity: float = 0.8,
    *,
    score_lr: float = 1e-2,
    distance: float | None = 20.0,
    threshold: float = 0.1,
    push: float = 3.0,
    coefficient: float | None = None,
    follow: bool = True,
    settle: float | None = 0.1,
    warmup: float = 0.1,
    cooldown: float = 0.2,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """Soft movement pruning's recipe.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        score_lr: Peak learning rate of the scores.
        distance: Least score_lr x steps: in short trainings the rate is higher; None leaves it.
        threshold: Final threshold on sigmoid(score).
        push: Of the scores down, in mean gradients of their matrix.
        coefficient: Weight of the paper's penalty on the scores, in place of the push.
        follow: Let the penalty follow the schedule, see
            :class:`~sentei.parts.penalties.ScorePenalty`.
        settle: Fraction of training at its end with the exact count; None for what comes out.
        warmup: Fraction of training before the first pruning.
        cooldown: Fraction of training at the final threshold.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    penalty: ScorePenalty = ScorePush(coefficient=push, follow=follow, fades=None)
    if coefficient is not None:
        penalty = ScoreL1(coefficient=coefficient, follow=follow)
    return Recipe(
        method="soft_movement",
        scope=Scope.model_validate(scope or {}),
        pattern=Pattern.model_validate(pattern),
        score=Learned(optimizer=Adam(lr=score_lr, distance=distance)),
        schedule=Cubic(sparsity=sparsity, warmup=warmup, cooldown=cooldown, every=1),
        budget=Threshold(final=threshold, settle=settle),
        mask=StraightThrough(),
        penalties=(penalty,),
    )


PUBLISHED = {"distance": None, "coefficient": 400.0, "follow": False, "settle": None}
"""The paper's; the coefficient is its README's, on SQuAD."""

METHOD = Method(
    name="soft_movement",
    build=soft_movement,
    summary="movement pruning with one threshold for all matrices and a penalty on the scores",
    paper="Sanh et al., Movement pruning, NeurIPS 2020, arXiv 2005.07683",
    published=PUBLISHED,
)

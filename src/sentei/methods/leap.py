r"""LEAP: learn how much of every matrix to keep, under one penalty tied to the target.

Yao et al. 2021, arXiv 2105.14636; code of its first version ("MLPruning"), yaozhewei/MLPruning at
5483912.

Every matrix m has a learned sigma and keeps its ceil(k n) best weights, k = sigmoid(sigma / T).
Scores are learned as in movement pruning, or magnitudes (``score="magnitude"``). With g the
gradient of what the module holds, W the weights and M the mask:

    d sigma = sum g W M + d(lambda L_reg)/d sigma       straight-through; the penalty through k
    L_reg   = (R - k*)^2 while R > k*, else 0           R: fraction of all weights kept; k* target
    lambda  = max(lambda_max L_reg / (1 - k*)^2, lambda_min)                          (the paper)
    lambda  = the same, and 10 once L_reg < 3e-4                    (``form="code"``: MLPruning)

There is no schedule: the ratios find their way to the target, each its own. R is counted from the
model, whatever its shapes.

Cost: 17 bytes a weight with learned scores, 5 with magnitudes, and three numbers a matrix.

Against the code: it has no temperature (``temperature=1, initial=10``), which leaves sigma a
gradient of 5e-5 at the start; the paper's T suits its 220 000 steps. Here ``temperature=None``
chooses the T with which the ratios can reach the target in the first half of training. The
penalty's gradient falls with the cube of the excess, and an Adam that remembers the first ones
(``ratio_beta2=0.999``, the authors') stalls in a short run: at 0.76 of 0.9 after 1000 steps of a
small network, where 0.9 comes to 0.896. Thresholds and scores are not clipped. In the last
tenth of training the count is exact, in the proportions
learned; ``settle=None`` leaves it as it comes, a little above the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sentei.methods.method import Method
from sentei.parts.budget import LearnedRatio
from sentei.parts.learning import Adam
from sentei.parts.masks import Latent
from sentei.parts.patterns import Pattern
from sentei.parts.penalties import ExcessRatio, ScoreL1
from sentei.parts.schedule import Constant
from sentei.parts.scope import Scope
from sentei.parts.scores import Learned, Magnitude
from sentei.recipe import Recipe


def leap(
    sparsity: float = 0.8,
    *,
    score: Literal["learned", "magnitude"] = "learned",
    score_lr: float = 1e-2,
    penalty: float = 0.0,
    ratio_lr: float = 1e-2,
    ratio_beta2: float = 0.9,
    temperature: float | None = None,
    initial: float = 5.0,
    form: Literal["paper", "code"] = "paper",
    lambda_max: float = 160.0,
    lambda_min: float = 10.0,
    settle: float | None = 0.1,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """LEAP's recipe.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        score: What ranks the weights of a matrix.
        score_lr: Peak learning rate of learned scores.
        penalty: Coefficient of an L1 penalty on them, see :mod:`sentei.methods.movement`; the
            paper has none.
        ratio_lr: Peak learning rate of sigma.
        ratio_beta2: Memory of Adam for sigma's squared gradients.
        temperature: T; None chooses it from the length of training.
        initial: sigma / T at the start.
        form: Which of the two published coefficients.
        lambda_max: Coefficient at R = 1; the code's is 20 000.
        lambda_min: Least coefficient; the code's is 50.
        settle: Fraction of training at its end with the exact count; None for what comes out.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    if penalty and score != "learned":
        raise ValueError(f"penalty={penalty:g} is on learned scores, and score is {score!r}")
    learned = Learned(optimizer=Adam(lr=score_lr))
    excess = ExcessRatio(form=form, maximum=lambda_max, minimum=lambda_min)
    return Recipe(
        method="leap",
        scope=Scope.model_validate(scope or {}),
        pattern=Pattern.model_validate(pattern),
        score=learned if score == "learned" else Magnitude(),
        schedule=Constant(sparsity=sparsity),
        budget=LearnedRatio(
            temperature=temperature,
            initial=initial,
            optimizer=Adam(lr=ratio_lr, beta2=ratio_beta2),
            settle=settle,
        ),
        mask=Latent(),
        penalties=(excess, ScoreL1(coefficient=penalty, follow=False)) if penalty else (excess,),
    )


METHOD = Method(
    name="leap",
    build=leap,
    summary="learns how much of every matrix to keep, under one penalty tied to the target",
    paper="Yao et al., LEAP: Learnable pruning for transformers, 2021, arXiv 2105.14636",
)

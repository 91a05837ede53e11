r"""PLATON: keep weights whose importance is high or uncertain.

Zhang et al., ICML 2022, arXiv 2206.12562; authors' code QingruZhang/PLATON at c1776cf.

At step t, with weight w and gradient g of one scalar weight:

    I     = |w g|                                 sensitivity, averaged over ``window`` steps
    Ibar <- beta1 Ibar + (1 - beta1) I            smoothed importance
    U     = |I - Ibar|                            local uncertainty, Ibar just updated
    Ubar <- beta2 Ubar + (1 - beta2) U            smoothed uncertainty
    S     = Ibar Ubar                             score

The lowest S over all sites together are zeroed on a cubic schedule, at every ``every`` steps and at
every step of the cool-down. Zeros are not held: gradient and momentum regrow pruned weights between
decisions, and what regrows is scored again.

Cost: 13 bytes a weight (window mean, Ibar, Ubar in float32; mask), one pass over them a step.

Against the authors' code: it counts k - 1 and loses ties (``compat=True`` counts so), prunes biases
with the weights (``biases=True``), and sets warm-up and cool-down in steps, task by task; here they
are fractions of training, by default near their GLUE scripts'. The paper scores the weight at which
the gradient was taken (``iterate="old"``), the code the weight one step later (the default).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sentei.methods.method import Method
from sentei.parts import Cubic, Global, Memory, Pattern, Project, Scope, Windowed
from sentei.recipe import Recipe


class Uncertainty(Windowed):
    """Smoothed importance times smoothed uncertainty: PLATON's upper confidence bound S.

    arXiv 2206.12562, eq. 4 to 7; windows as in the authors' code. Averages start at 0, without bias
    correction.
    """

    kind: Literal["uncertainty"] = "uncertainty"
    memory: ClassVar[tuple[str, ...]] = ("window", "importance", "uncertainty")
    means: ClassVar[tuple[str, ...]] = memory

    beta1: float = Field(0.85, ge=0, lt=1)
    """Weight of the past in the average of importance."""

    beta2: float = Field(0.95, ge=0, lt=1)
    """Weight of the past in the average of uncertainty."""

    @property
    def share(self) -> float:
        """That of the window or of an average."""
        return min(super().share, 1 - self.beta1, 1 - self.beta2)

    def fold_(self, memory: Memory, mean: Tensor) -> None:
        """Average importance, then the deviation from that average."""
        memory["importance"].lerp_(mean, 1 - self.beta1)
        deviation = mean.sub_(memory["importance"]).abs_()
        memory["uncertainty"].lerp_(deviation, 1 - self.beta2)

    def value(self, memory: Memory, weight: Tensor, out: Tensor) -> Tensor:
        """Ibar * Ubar."""
        return torch.mul(memory["importance"], memory["uncertainty"], out=out)


def platon(
    sparsity: float = 0.8,
    *,
    beta1: float = 0.85,
    beta2: float = 0.95,
    window: int = 10,
    iterate: Literal["new", "old"] = "new",
    warmup: float = 0.1,
    cooldown: float = 0.4,
    every: int = 10,
    biases: bool = False,
    compat: bool = False,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """PLATON's recipe.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        beta1: Weight of the past in smoothed importance.
        beta2: Weight of the past in smoothed uncertainty.
        window: Optimizer steps over which sensitivity is averaged before it is folded in.
        iterate: The weight that meets the gradient, see
            :class:`~sentei.parts.Windowed`.
        warmup: Fraction of training before the first pruning.
        cooldown: Fraction of training at the final sparsity, deciding at every step.
        every: Optimizer steps between decisions on the ramp.
        biases: Also prune the biases of the prunable weights, as the authors' code does.
        compat: Count as the authors' code does.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    chosen = Scope.model_validate(scope or {})
    return Recipe(
        method="platon",
        scope=chosen.model_copy(update={"biases": True}) if biases else chosen,
        pattern=Pattern.model_validate(pattern),
        score=Uncertainty(beta1=beta1, beta2=beta2, window=window, iterate=iterate),
        schedule=Cubic(sparsity=sparsity, warmup=warmup, cooldown=cooldown, every=every),
        budget=Global(compat=compat),
        mask=Project(hold=False),
    )


METHOD = Method(
    name="platon",
    build=platon,
    summary="keeps weights whose importance is high or uncertain; lets pruned weights regrow",
    paper="Zhang et al., PLATON, ICML 2022, arXiv 2206.12562",
)

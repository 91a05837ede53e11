r"""MGPP: magnitude pruning under a mixture-Gaussian prior.

Zhang et al. 2024, arXiv 2411.00969; authors' code MingxuanZhangPurdue/PTMGP at b3700cc (its class
``MWA``) and MingxuanZhangPurdue/BayesianPruner.

Every prunable weight w has the prior lambda N(0, slab) + (1 - lambda) N(0, spike), spike << slab
(variances). Its gradient, once an optimizer step and divided by the number N of training examples,
joins the loss's:

    c1 = ln(lambda / (1 - lambda)) + ln(spike / slab) / 2,   c2 = (1 / spike - 1 / slab) / 2
    w0 = sigmoid(-(c1 + c2 w^2))                             probability of the spike
    g <- g + (w / N) (1 / slab + w0 (1 / spike - 1 / slab))

It draws small weights to zero and leaves large ones, and makes what magnitude ranks: the smallest
|w| over all sites are zeroed, after a first jump, on a cubic schedule. lambda falls to ``anneal``
of itself over the ramp. Zeros may regrow until the ramp ends; then the mask is held and the prior
is off.

Ours: kept weights take over what pruned ones did, at decisions (decision 24), because the prior
alone needs a long training to make magnitudes; ``PUBLISHED`` leaves it out.

Cost: 1 byte a weight (the mask), and the products of layers' inputs for what is ours; one pass over
weights and gradients a step.

Against the authors' code: the prior joins after clipping (their scripts do not clip), and is exact
under accumulation; as a sigmoid in float32, where theirs overflows. Two codings: PTMGP, the
default, anneals lambda; BayesianPruner keeps it (``slab_probability=1e-3, anneal=1``), with a
ramp from 10 % to 90 % of training, cubic or in equal steps (:class:`EqualSteps`). PTMGP's scripts
leave no cool-down and decide every 100 steps of far longer runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Self

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
    Reconstruction,
    Schedule,
    Scope,
    WeightPenalty,
)
from sentei.parts.reconstruction import ALL_ITERATIONS
from sentei.recipe import Recipe


class MixtureGaussian(WeightPenalty):
    """The negative log of a mixture-Gaussian prior on every weight, divided by N: MGPP.

    lambda falls on a line over the schedule's ramp, and the prior ends with it.
    """

    kind: Literal["mixture_gaussian"] = "mixture_gaussian"

    slab_probability: float = Field(0.1, gt=0, lt=1)
    """lambda: prior probability of the slab, until the ramp."""

    spike: float = Field(1e-10, gt=0)
    """Variance of the spike."""

    slab: float = Field(0.05, gt=0)
    """Variance of the slab."""

    anneal: float = Field(0.001, ge=1e-12, le=1)
    """What lambda is multiplied by at the ramp's end; 1 leaves it constant."""

    until: Literal["ramp", "end"] = "ramp"
    """When the prior ends: with the ramp, or never."""

    examples: int | None = Field(None, ge=1)
    """N: number of training examples. None takes it from the training data."""

    def with_examples(self, examples: int) -> Self:
        """With N from the data, unless it is set."""
        return self if self.examples else self.model_copy(update={"examples": examples})

    def check(self) -> None:
        """N must be known, and the spike narrower than the slab."""
        if self.spike >= self.slab:
            raise ValueError(
                f"penalties: mixture_gaussian.spike={self.spike:g} must be below "
                f"slab={self.slab:g}: both are variances"
            )
        if self.examples is None:
            raise ValueError(
                "penalties: mixture_gaussian needs the number of training examples: pass "
                "Pruner(..., examples=len(dataset)), or set its examples"
            )

    def boundary(self, progress: Progress | None = None) -> float:
        """The |w| at which spike and slab are equally probable."""
        c1, c2 = self._constants(self._probability(progress) if progress else self.slab_probability)
        return math.sqrt(-c1 / c2)

    def add_(self, gradient: Tensor, weight: Tensor, progress: Progress, scratch: Tensor) -> None:
        """Add the prior's pull."""
        if self.until == "ramp" and progress.ramp > 1:
            return
        assert self.examples is not None
        c1, c2 = self._constants(self._probability(progress))
        # As a sigmoid: the exponential of c2 w^2 overflows for |w| > 1.3e-4.
        scratch.copy_(weight).square_().mul_(-c2).sub_(c1).sigmoid_()
        scratch.mul_(1 / self.spike - 1 / self.slab).add_(1 / self.slab).mul_(weight)
        gradient.add_(scratch, alpha=1 / self.examples)

    def _probability(self, progress: Progress) -> float:
        passed = min(max(progress.ramp, 0.0), 1.0)
        return self.slab_probability * (1 + (self.anneal - 1) * passed)

    def _constants(self, probability: float) -> tuple[float, float]:
        odds = math.log(probability / (1 - probability))
        return (
            odds + 0.5 * math.log(self.spike / self.slab),
            0.5 / self.spike - 0.5 / self.slab,
        )


class EqualSteps(Schedule):
    """Sparsity rises by as much each time, at equal intervals between warm-up and cool-down.

    With warm-up t_i and cool-down t_f in steps of T, and n rises: s = k s_T / n after rise k. The
    first is made at t_i, or at step 1 without a warm-up, the others every
    floor((T - t_i - t_f) / (n - 1)) steps, and s_T is cut once more where the ramp ends. The last
    step of training always decides. (BayesianPruner's code, which is told the height of a rise,
    s_T / n.)
    """

    kind: Literal["equal_steps"] = "equal_steps"

    rises: int = Field(16, ge=1)
    """n: how often sparsity rises. The authors' rises of 0.05 to a sparsity of 0.8 are 16."""

    warmup: float = Field(0.1, ge=0, lt=1)
    """Fraction of training before the first rise."""

    cooldown: float = Field(0.1, ge=0, lt=1)
    """Fraction of training after the ramp, spent at the final sparsity."""

    def at(self, step: int, total: int) -> float:
        """Sparsity after the rises made by ``step``."""
        start, end = self._ends(total)
        if step < start:
            return 0.0
        made = (step - start) // self._interval(total) + 1
        return self.sparsity if step >= end else self.sparsity * min(made / self.rises, 1.0)

    def ramp(self, step: int, total: int) -> float:
        """Place of ``step`` between the first rise and the end of the ramp."""
        start, end = self._ends(total)
        return (step - start) / (end - start)

    def is_update(self, step: int, total: int) -> bool:
        """At every rise, where the ramp ends, and last."""
        start, end = self._ends(total)
        passed, interval = step - start, self._interval(total)
        rises = step < end and passed % interval == 0 and 0 <= passed // interval < self.rises
        return rises or step in (end, total)

    def check(self, total: int) -> None:
        """Refuse a ramp with fewer steps than rises."""
        start, end = self._ends(total)
        if end - start < max(self.rises - 1, 1):
            raise ValueError(
                f"schedule.rises={self.rises}: a warm-up of {self.warmup:g} and a cool-down of "
                f"{self.cooldown:g} leave {max(end - start + 1, 0)} of {total} training steps to "
                "rise in; train longer, or set fewer rises or shorter ends"
            )

    def _interval(self, total: int) -> int:
        start, end = self._ends(total)
        return max((end - start) // max(self.rises - 1, 1), 1)

    def _ends(self, total: int) -> tuple[int, int]:
        """The step of the first rise and the last step of the ramp."""
        return max(round(self.warmup * total), 1), total - round(self.cooldown * total)


def mgpp(
    sparsity: float = 0.8,
    *,
    slab_probability: float = 0.1,
    spike: float = 1e-10,
    slab: float = 0.05,
    anneal: float = 0.001,
    until: Literal["ramp", "end"] = "ramp",
    examples: int | None = None,
    initial: float = 0.3,
    warmup: float = 0.1,
    cooldown: float = 0.1,
    every: int = 10,
    reconstruction: Reconstruction | Mapping[str, object] | str | None = ALL_ITERATIONS,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """MGPP's recipe.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        slab_probability: lambda, the prior probability of the slab.
        spike: Variance of the spike.
        slab: Variance of the slab.
        anneal: What lambda is multiplied by at the ramp's end; 1 keeps it.
        until: When the prior ends: with the ramp, or never.
        examples: N; None takes it from the training data.
        initial: Sparsity of the first jump.
        warmup: Fraction of training before the first pruning.
        cooldown: Fraction of training at the final sparsity, with the mask held.
        every: Optimizer steps between decisions on the ramp.
        reconstruction: How kept weights take over what pruned ones did; None leaves it to training.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    prior = {"slab_probability": slab_probability, "spike": spike, "slab": slab, "anneal": anneal}
    return Recipe(
        method="mgpp",
        scope=Scope.model_validate(scope or {}),
        pattern=Pattern.model_validate(pattern),
        score=Magnitude(),
        schedule=Cubic(
            sparsity=sparsity,
            warmup=warmup,
            cooldown=cooldown,
            every=every,
            offset=1,
            cooldown_every=0,
            initial=initial,
        ),
        budget=Global(),
        mask=Project(hold="cooldown"),
        reconstruction=reconstruction,
        penalties=(MixtureGaussian(until=until, examples=examples, **prior),),
    )


PUBLISHED = {"reconstruction": None}
"""The authors'."""

METHOD = Method(
    name="mgpp",
    build=mgpp,
    summary="magnitude pruning under a prior that draws small weights to zero",
    paper="Zhang et al., Magnitude pruning with a mixture Gaussian prior, 2024, arXiv 2411.00969",
    published=PUBLISHED,
)

"""Terms of the objective on weights, scores and thresholds, given by their gradients.

They are functions of the pruner's own tensors, so they need no place in the training loop's loss:
their gradients join the loss's at the optimizer's step, once a step, after clipping.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from sentei.parts.part import Moment, Part


class Penalty(Part):
    """A term of the objective; its subclasses say on what."""

    axis: ClassVar[str] = "penalty"

    def with_examples(self, examples: int) -> Self:
        """The penalty, told the number of training examples where it needs and lacks it."""
        return self

    def check(self) -> None:
        """Raise ValueError when the penalty lacks something."""
        return None


class WeightPenalty(Penalty):
    """A differentiable term on the prunable weights."""

    @abstractmethod
    def add_(self, gradient: Tensor, weight: Tensor, moment: Moment, scratch: Tensor) -> None:
        """Add the term's gradient at ``weight`` to ``gradient``; flat pieces of one size.

        ``scratch`` is a free float32 (float64) tensor of that size.
        """


class ProximalPenalty(Penalty):
    """A term on the prunable weights that acts by its proximal operator, after the step."""

    @abstractmethod
    def shrink_(self, weight: Tensor, lr: float, moment: Moment, scratch: Tensor) -> None:
        """Apply the operator to ``weight``, a flat piece; ``lr`` is the optimizer's now."""


class ScorePenalty(Penalty):
    """A term on learned scores: ``coefficient`` x the mean over sites of a mean over scores.

    Where units are heads or neurons, a site here is what holds them.
    """

    coefficient: float = Field(ge=0)
    """Weight of the term."""

    follow: bool = True
    """Follow the schedule: the coefficient counts in full where 5 points of sparsity are missing,
    in proportion where it is less, and pushes the other way beyond what is asked for. False pushes
    on in full, and the sparsity is what comes of it (the papers)."""

    units: tuple[str, ...] = ()
    """Kinds of units that it is for, such as 32x32 and neuron, so that each can have a term of its
    own; empty takes all."""

    def covers(self, kind: str) -> bool:
        """Whether it is for units of a kind."""
        return not self.units or kind in self.units

    def strength(self, moment: Moment) -> float:
        """The coefficient in force."""
        if not self.follow:
            return self.coefficient
        missing = (moment.sparsity - moment.reached) / 0.05
        return self.coefficient * min(max(missing, -1.0), 1.0)

    @abstractmethod
    def add_(self, gradient: Tensor, score: Tensor, share: float, moment: Moment) -> None:
        """Add the term's gradient at ``score`` to ``gradient``; flat pieces of one size.

        ``share`` is 1 / (sites that it is for x scores in the site).
        """


class RatioPenalty(Penalty):
    """A term on the kept ratios of a budget that learns them."""

    @abstractmethod
    def gradient(self, ratios: Tensor, sizes: Tensor, moment: Moment) -> Tensor:
        """The term's gradient at ``ratios``, (sites,) like ``sizes``, in float64."""


class MixtureGaussian(WeightPenalty):
    """The negative log of a mixture-Gaussian prior on every weight, divided by N: MGPP.

    Prior lambda N(0, slab) + (1 - lambda) N(0, spike), with *variances* spike << slab. With c1 =
    ln(lambda / (1 - lambda)) + ln(spike / slab) / 2, c2 = (1 / spike - 1 / slab) / 2 and w0 =
    sigmoid(-(c1 + c2 w^2)), the probability of the spike, the gradient is w / N (1 / slab + w0 (1 /
    spike - 1 / slab)). lambda falls on a line over the schedule's ramp, and the prior ends with it.
    (arXiv 2411.00969; authors' code MingxuanZhangPurdue/PTMGP at b3700cc.)
    """

    kind: Literal["mixture_gaussian"] = "mixture_gaussian"

    slab_probability: float = Field(0.1, gt=0, lt=1)
    """lambda: prior probability of the slab, until the ramp."""

    spike: float = Field(1e-10, gt=0)
    """Variance of the spike."""

    slab: float = Field(0.05, gt=0)
    """Variance of the slab."""

    anneal: float = Field(0.001, gt=0, le=1)
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

    def boundary(self, moment: Moment | None = None) -> float:
        """The |w| at which spike and slab are equally probable."""
        c1, c2 = self._constants(self._probability(moment) if moment else self.slab_probability)
        return math.sqrt(-c1 / c2)

    def add_(self, gradient: Tensor, weight: Tensor, moment: Moment, scratch: Tensor) -> None:
        """Add the prior's pull."""
        if self.until == "ramp" and moment.ramp > 1:
            return
        assert self.examples is not None
        c1, c2 = self._constants(self._probability(moment))
        # As a sigmoid: the exponential of c2 w^2 overflows for |w| > 1.3e-4.
        scratch.copy_(weight).square_().mul_(-c2).sub_(c1).sigmoid_()
        scratch.mul_(1 / self.spike - 1 / self.slab).add_(1 / self.slab).mul_(weight)
        gradient.add_(scratch, alpha=1 / self.examples)

    def _probability(self, moment: Moment) -> float:
        passed = min(max(moment.ramp, 0.0), 1.0)
        return self.slab_probability * (1 + (self.anneal - 1) * passed)

    def _constants(self, probability: float) -> tuple[float, float]:
        odds = math.log(probability / (1 - probability))
        return (
            odds + 0.5 * math.log(self.spike / self.slab),
            0.5 / self.spike - 0.5 / self.slab,
        )


class ReweightedL1(ProximalPenalty):
    """Soft-thresholding, with a threshold that falls with the weight's size.

    After the optimizer's step, w <- sign(w) max(0, |w| - lr coefficient / (|w| + epsilon)).
    (Reweighted proximal pruning, Guo et al. 2019, arXiv 1909.12486; reweighting at every step.)
    """

    kind: Literal["reweighted_l1"] = "reweighted_l1"

    coefficient: float = Field(1e-3, ge=0)
    """Weight of the term."""

    epsilon: float = Field(1e-2, gt=0)
    """Keeps the threshold of the smallest weights finite."""

    def shrink_(self, weight: Tensor, lr: float, moment: Moment, scratch: Tensor) -> None:
        """Shrink towards zero."""
        torch.abs(scratch.copy_(weight), out=scratch)
        size = scratch.clone()
        scratch.add_(self.epsilon).reciprocal_().mul_(-lr * self.coefficient).add_(size)
        weight.copy_(scratch.clamp_(min=0).copysign_(weight))


class ScoreL1(ScorePenalty):
    """The mean of sigmoid(S), in step with the schedule: soft movement pruning.

    The coefficient grows as the sparsity asked for does, from 0. (Sanh et al. 2020, arXiv
    2005.07683, section 4.1, and the authors' code.)
    """

    kind: Literal["score_l1"] = "score_l1"

    def strength(self, moment: Moment) -> float:
        """The coefficient in force."""
        return super().strength(moment) * moment.sparsity / moment.final

    def add_(self, gradient: Tensor, score: Tensor, share: float, moment: Moment) -> None:
        """Push every score down, most at sigmoid(S) = 1/2."""
        _push_down_(gradient, score, 0.0, self.strength(moment) * share)


class ExpectedL0(ScorePenalty):
    """The expected fraction of open gates: sigmoid(S - temperature ln(-low / high)).

    (Louizos et al. 2018, arXiv 1712.01312, eq. 12.)
    """

    kind: Literal["expected_l0"] = "expected_l0"

    low: float = Field(-0.1, lt=0)
    """Lower end of the stretched gate, as the mask's."""

    high: float = Field(1.1, gt=1)
    """Upper end of the stretched gate, as the mask's."""

    temperature: float = Field(2 / 3, gt=0)
    """Of the stochastic gate, as the mask's."""

    def add_(self, gradient: Tensor, score: Tensor, share: float, moment: Moment) -> None:
        """Push every log-odds down."""
        shift = self.temperature * math.log(-self.low / self.high)
        _push_down_(gradient, score, shift, self.strength(moment) * share)


class ExcessRatio(RatioPenalty):
    """coefficient (R - k)^2 while the remaining ratio R is above its target k: LEAP.

    R is the kept fraction of all prunable weights, from the learned ratio of each site, and the
    coefficient adapts to L = (R - k)^2, which counts as a constant in it: max(maximum L / (1 -
    k)^2, minimum). (arXiv 2105.14636; ``form="code"`` is MLPruning's code, which falls to
    ``near_minimum`` once L < ``near``.)
    """

    kind: Literal["excess_ratio"] = "excess_ratio"

    form: Literal["paper", "code"] = "paper"
    """Which of the two published coefficients."""

    maximum: float = Field(160.0, gt=0)
    """Coefficient at R = 1 (code: 20 000)."""

    minimum: float = Field(10.0, gt=0)
    """Least coefficient (code: 50)."""

    near: float = Field(3e-4, ge=0)
    """Code only: L below which the coefficient is ``near_minimum``."""

    near_minimum: float = Field(10.0, gt=0)
    """Code only: the coefficient there."""

    def gradient(self, ratios: Tensor, sizes: Tensor, moment: Moment) -> Tensor:
        """Of the term at the ratios; zero once the target is reached."""
        share, target = sizes / sizes.sum(), 1 - moment.sparsity
        excess = float((ratios * share).sum()) - target
        if excess <= 0:
            return torch.zeros_like(ratios)
        return share * (2 * excess * self.coefficient(excess**2, target))

    def coefficient(self, loss: float, target: float) -> float:
        """The adaptive coefficient at L = ``loss``, for the target ratio ``target``."""
        if self.form == "code" and loss < self.near:
            return self.near_minimum
        return max(self.maximum * loss / (1 - target) ** 2, self.minimum)


def _push_down_(gradient: Tensor, score: Tensor, shift: float, strength: float) -> None:
    """Add ``strength`` x the derivative of sigmoid(score - shift)."""
    if strength:
        gate = torch.sigmoid(score - shift)
        gradient.addcmul_(gate, 1 - gate, value=strength)

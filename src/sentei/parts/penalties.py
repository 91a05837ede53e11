"""Terms of the objective on weights, scores and thresholds, given by their gradients.

They are functions of the pruner's own tensors, so they need no place in the training loop's loss:
their gradients join the loss's at the optimizer's step, once a step, after clipping.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from sentei.parts.part import Part
from sentei.parts.progress import Progress


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
    def add_(self, gradient: Tensor, weight: Tensor, progress: Progress, scratch: Tensor) -> None:
        """Add the term's gradient at ``weight`` to ``gradient``; flat pieces of one size.

        ``scratch`` is a free float32 (float64) tensor of that size.
        """


class ProximalPenalty(Penalty):
    """A term on the prunable weights that acts by its proximal operator, after the step."""

    @abstractmethod
    def shrink_(self, weight: Tensor, lr: float, progress: Progress, scratch: Tensor) -> None:
        """Apply the operator to ``weight``, a flat piece; ``lr`` is the optimizer's now."""


class ScorePenalty(Penalty):
    """A term on learned scores: ``coefficient`` x the mean over places of a mean over scores.

    A place is a site, or what holds heads or neurons.
    """

    relative: ClassVar[bool] = False
    """Whether the term is measured by the scores' own gradient, place by place, and not in units of
    the loss."""

    coefficient: float = Field(ge=0)
    """Weight of the term."""

    follow: bool = True
    """Follow the schedule: the coefficient counts in full where 5 points of sparsity are missing,
    in proportion where it is less, and pushes the other way beyond what is asked for. False pushes
    on in full, and the sparsity is what comes of it (the papers)."""

    units: tuple[str, ...] = ()
    """Patterns whose units it is for, such as 32x32 and neuron, so that each can have a term of its
    own; empty takes all."""

    def fits(self, recipe: Any) -> None:
        """Beside learned scores."""
        if not recipe.score.learned:
            raise ValueError(f"penalty {self.label} is on learned scores: use score: learned")

    def covers(self, pattern: str) -> bool:
        """Whether it is for units of a pattern."""
        return not self.units or pattern in self.units

    def strength(self, progress: Progress) -> float:
        """The coefficient in force."""
        if not self.follow:
            return self.coefficient
        missing = (progress.sparsity - progress.reached) / 0.05
        return self.coefficient * min(max(missing, -1.0), 1.0)

    @abstractmethod
    def add_(
        self, gradient: Tensor, score: Tensor, share: float | Tensor, progress: Progress
    ) -> None:
        """Add the term's gradient at ``score`` to ``gradient``; flat pieces of one size.

        ``share`` is 1 / (places that it is for x scores in the place); of a relative term the mean
        of |gradient| over the place's scores, before penalties.
        """


class RatioPenalty(Penalty):
    """A term on the kept ratios of a budget that learns them."""

    def fits(self, recipe: Any) -> None:
        """Beside learned ratios."""
        if not recipe.budget.learned:
            raise ValueError(
                f"penalty {self.label} is on learned ratios: use budget: learned_ratio"
            )

    @abstractmethod
    def gradient(self, ratios: Tensor, sizes: Tensor, progress: Progress) -> Tensor:
        """The term's gradient at ``ratios``, (places,) like ``sizes``, in float64."""


class ScoreL1(ScorePenalty):
    """The mean of sigmoid(S), in step with the schedule: soft movement pruning.

    The coefficient grows as the sparsity asked for does, from 0. (Sanh et al. 2020, arXiv
    2005.07683, section 4.1, and the authors' code.)
    """

    kind: Literal["score_l1"] = "score_l1"

    def strength(self, progress: Progress) -> float:
        """The coefficient in force."""
        return super().strength(progress) * progress.sparsity / progress.final

    def add_(
        self, gradient: Tensor, score: Tensor, share: float | Tensor, progress: Progress
    ) -> None:
        """Push every score down, most at sigmoid(S) = 1/2."""
        push_down_(gradient, score, 0.0, self.strength(progress) * share)


class ScorePush(ScorePenalty):
    """A constant push down on all scores, ``coefficient`` x the mean |dL/dS| of their place. Ours.

    A learned score is trained by an Adam that divides its gradient by its own size, so that without
    a push it is little more than a count of signs: important and idle weights drift alike. Beside a
    push p the speed is p / sqrt(v + p^2): where |g w| is far above p a score hardly falls, and size
    counts again. Measured by the gradient, it is the same for every loss, model and precision.
    """

    kind: Literal["score_push"] = "score_push"
    relative: ClassVar[bool] = True

    coefficient: float = Field(3.0, ge=0)
    """The push, in mean gradients of the place."""

    follow: bool = False
    """As any penalty's on scores; by default it pushes on in full, from the first step."""

    fades: float | None = Field(2000.0, gt=0)
    """Steps of training over which it is divided by 2, over twice as many by 3: in long trainings
    signs add up to movement, and what is left is the paper's method. None never fades."""

    def strength(self, progress: Progress) -> float:
        """The coefficient in force: coefficient / (1 + T / fades)."""
        return super().strength(progress) / (1 + progress.total / (self.fades or math.inf))

    def add_(
        self, gradient: Tensor, score: Tensor, share: float | Tensor, progress: Progress
    ) -> None:
        """Push every score down alike."""
        if strength := self.strength(progress):
            gradient.add_(strength * share)


def push_down_(gradient: Tensor, score: Tensor, shift: float, strength: float | Tensor) -> None:
    """Add ``strength`` x the derivative of sigmoid(score - shift)."""
    if strength := float(strength):
        gate = torch.sigmoid(score - shift)
        gradient.addcmul_(gate, 1 - gate, value=strength)

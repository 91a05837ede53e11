"""Terms of the objective on weights, scores and thresholds, given by their gradients.

They are functions of the pruner's own tensors, so they need no place in the training loop's loss:
their gradients join the loss's at the optimizer's step, once a step, after clipping.
"""

from __future__ import annotations

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
    def add_(self, gradient: Tensor, score: Tensor, share: float, progress: Progress) -> None:
        """Add the term's gradient at ``score`` to ``gradient``; flat pieces of one size.

        ``share`` is 1 / (places that it is for x scores in the place).
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

    def add_(self, gradient: Tensor, score: Tensor, share: float, progress: Progress) -> None:
        """Push every score down, most at sigmoid(S) = 1/2."""
        push_down_(gradient, score, 0.0, self.strength(progress) * share)


def push_down_(gradient: Tensor, score: Tensor, shift: float, strength: float) -> None:
    """Add ``strength`` x the derivative of sigmoid(score - shift)."""
    if strength:
        gate = torch.sigmoid(score - shift)
        gradient.addcmul_(gate, 1 - gate, value=strength)

"""How a decision reaches the weights. Whatever the form, ``module.weight`` is plain and sparse."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sentei.parts.part import Part
from sentei.parts.progress import Progress
from sentei.tensors import copy_kept_, product_, zero_pruned_

Memory = Mapping[str, Tensor]


class Mask(Part):
    """The form of *apply*. Its methods work on flat pieces of a site, all of one size."""

    axis: ClassVar[str] = "mask"

    memory: ClassVar[tuple[str, ...]] = ()
    """Names of the tensors it keeps, each of the weight's shape, zero at the start."""

    per_unit: ClassVar[tuple[str, ...]] = ()
    """Those of them with one entry a unit instead, where a pattern prunes units of many weights."""

    latent: ClassVar[bool] = False
    """Whether the dense weights are kept aside: then it is a :class:`Latent`."""

    stochastic: ClassVar[bool] = False
    """Whether forward passes in training see a random sample of the weights: then it has
    :meth:`draw_` and :meth:`sample_`."""

    exact: ClassVar[bool] = True
    """Whether kept weights are written as they are, and not scaled."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the memory, the score's or its own, that it looks at, weight by weight."""
        return ()

    def fits(self, recipe: Any) -> None:
        """A sample would overwrite the weights, if they were not kept aside."""
        if self.stochastic and not self.latent:
            raise ValueError(
                f"mask {self.label} draws samples of weights that it does not keep aside: make "
                "it a Latent mask"
            )
        for name in self.reads:
            if name not in (*self.memory, *recipe.score.memory):
                raise ValueError(
                    f"mask {self.label} reads {name!r}, which score {recipe.score.label} does not "
                    "remember: use score: learned, or another mask"
                )

    def start_(self, memory: Memory, number: int) -> None:
        """Give the memory of site or unit group ``number`` its first values; it holds zeros."""
        return None

    @abstractmethod
    def holds(self, progress: Progress) -> bool:
        """Whether the weights are written after a step that has not decided, too."""

    @abstractmethod
    def write_(self, weight: Tensor, dense: Tensor, keep: Tensor, memory: Memory) -> None:
        """Make ``weight`` sparse where ``keep`` is False.

        ``weight`` is what the module holds, ``dense`` what training moves: the same tensor, unless
        the mask keeps a latent weight. ``memory`` is the mask's and the score's.
        """

    def draw_(self, memory: Memory, step: int, number: int) -> None:
        """Draw what the sample of the step after ``step`` needs into the memory of unit group
        ``number``; of site ``number``, where some of the memory is not per unit.

        By its arguments alone, so that resuming and ranks agree without further state.
        """
        raise NotImplementedError(f"{type(self).__name__} draws nothing")

    def samples(self, settled: bool) -> bool:
        """Whether forward passes in training see samples; ``settled`` says that the count of the
        latest decision is exact.
        """
        return self.stochastic

    def sample_(self, weight: Tensor, dense: Tensor, keep: Tensor, memory: Memory) -> None:
        """Write a sample of the weights into ``weight``; all as in :meth:`write_`."""
        raise NotImplementedError(f"{type(self).__name__} draws no samples")

    def settle_(self, keep: Tensor, memory: Memory) -> None:
        """Fit the memory to a decision whose count is final; all tensors of units' shape."""
        return None


class Project(Mask):
    """Write zeros into the weight. No other state, and gradients stay dense."""

    kind: Literal["project"] = "project"

    hold: bool | Literal["cooldown"] = False
    """True writes the zeros again after every step, so that pruned weights stay pruned until a
    decision takes them back. False writes them at decisions only: in between, gradient and momentum
    let pruned weights regrow and earn a score. ``cooldown`` is False on the ramp and True after
    it."""

    def holds(self, progress: Progress) -> bool:
        """As ``hold`` says."""
        return progress.ramp > 1 if self.hold == "cooldown" else self.hold

    def write_(self, weight: Tensor, dense: Tensor, keep: Tensor, memory: Memory) -> None:
        """Zero what is pruned."""
        zero_pruned_(weight, keep)


class Latent(Mask):
    """A mask that keeps the dense weights aside, as latent ones: the module holds latent x gate.

    The optimizer steps the latent weights. A pruned weight keeps its value, and comes back with it
    when its score does. Gradients of the latent weights and of the scores are formed from the one
    of what the module holds, ``gradient``; ``sampled`` says that this was a random sample.

    The gate of a head or neuron lies on the columns that read it, and these are all that the
    methods see: the unit's other weights are latent x mask, and dense in training's forward passes.
    """

    latent: ClassVar[bool] = True

    def fits(self, recipe: Any) -> None:
        """Beside scores of the weight at which the gradient was taken."""
        if recipe.score.observes_new:
            raise ValueError(
                "a latent mask takes gradients from pruned weights at the optimizer's step: "
                "use score.iterate=old with it"
            )
        super().fits(recipe)

    def holds(self, progress: Progress) -> bool:
        """Always: the optimizer has moved the latent weights."""
        return True

    @abstractmethod
    def score_gradient_(
        self, out: Tensor, gradient: Tensor, dense: Tensor, memory: Memory, sampled: bool
    ) -> None:
        """Write the gradient of the scores into ``out``, float32 (float64)."""

    @abstractmethod
    def weight_gradient_(
        self, gradient: Tensor, keep: Tensor, memory: Memory, sampled: bool
    ) -> None:
        """Turn ``gradient`` into the latent weights', in place."""

    def gradients_(
        self,
        out: Tensor,
        gradient: Tensor,
        dense: Tensor,
        keep: Tensor,
        memory: Memory,
        sampled: bool,
    ) -> None:
        """Do both, one after the other."""
        self.score_gradient_(out, gradient, dense, memory, sampled)
        self.weight_gradient_(gradient, keep, memory, sampled)


class StraightThrough(Latent):
    """The gate is the mask; scores learn straight through it.

    With g the gradient of what the module holds, the latent weights' is g x mask, and the scores' g
    x latent, as if the mask were the score itself (Bengio et al. 2013, arXiv 1308.3432; movement
    pruning, arXiv 2005.07683, eq. 6).
    """

    kind: Literal["straight_through"] = "straight_through"

    surrogate: Literal["identity", "sigmoid"] = "identity"
    """What stands for the mask in the scores' gradient: the score, or its sigmoid."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The score, where its sigmoid stands for the mask."""
        return ("score",) if self.surrogate == "sigmoid" else ()

    def fits(self, recipe: Any) -> None:
        """A sigmoid is of learned scores."""
        if self.reads and not recipe.score.learned:
            raise ValueError(
                "mask.surrogate: sigmoid is of learned scores: use score: learned, or surrogate: "
                "identity"
            )
        super().fits(recipe)

    def score_gradient_(
        self, out: Tensor, gradient: Tensor, dense: Tensor, memory: Memory, sampled: bool
    ) -> None:
        """G x latent, times the surrogate's slope."""
        product_(out, gradient, dense)
        if self.surrogate == "sigmoid":
            gate = torch.sigmoid(memory["score"])
            out.mul_(gate * (1 - gate))

    def weight_gradient_(
        self, gradient: Tensor, keep: Tensor, memory: Memory, sampled: bool
    ) -> None:
        """The gradient x mask."""
        zero_pruned_(gradient, keep)

    def write_(self, weight: Tensor, dense: Tensor, keep: Tensor, memory: Memory) -> None:
        """Latent x mask."""
        copy_kept_(weight, dense, keep)

"""What a weight is worth: importance scores, higher is kept, and the signals they remember.

A score works on flat pieces of a site: everything here is elementwise, in place, and float32
(float64 for float64 weights). Its memory is a dict of tensors shaped like the weight, owned by the
pruner. Under a latent mask, "the weight" is the latent one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sentei.parts.inputs import Inputs, Statistic
from sentei.parts.learning import Adam
from sentei.parts.part import Part
from sentei.parts.progress import Progress
from sentei.tensors import product_

Memory = Mapping[str, Tensor]


class Signal(Part):
    """What one optimizer step says about a weight."""

    axis: ClassVar[str] = "signal"

    @abstractmethod
    def measure_(self, out: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """Write the signal of ``weight`` with ``gradient`` (all one shape) into ``out``."""


class Sensitivity(Signal):
    """First-order sensitivity |w g|: the loss change, to first order, if the weight were zero.

    Molchanov et al. 2019, arXiv 1906.10771, eq. 7 before squaring; PLATON eq. 3.
    """

    kind: Literal["sensitivity"] = "sensitivity"

    def measure_(self, out: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """|w g|."""
        return product_(out, weight, gradient).abs_()


class SquaredSensitivity(Signal):
    """(w g)^2, as in Molchanov et al. 2019, arXiv 1906.10771, eq. 7."""

    kind: Literal["squared_sensitivity"] = "squared_sensitivity"

    def measure_(self, out: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """(w g)^2."""
        return product_(out, weight, gradient).square_()


class Score(Part):
    """Importance of every weight of a site."""

    axis: ClassVar[str] = "score"

    memory: ClassVar[tuple[str, ...]] = ()
    """Names of the tensors it remembers, each of the weight's shape, zero at the start."""

    per_unit: ClassVar[tuple[str, ...]] = ()
    """Those of them with one entry a unit instead, where a pattern prunes units of many weights."""

    means: ClassVar[tuple[str, ...]] = ()
    """Those of them that are running means: a pruner may be told to keep these in bf16. They come
    to the methods here as float32 (float64) all the same, and are rounded after
    :meth:`observe_`."""

    observes: ClassVar[bool] = False
    """Whether it reads the gradient at every optimizer step."""

    learned: ClassVar[bool] = False
    """Whether it is trained by the gradient of the mask, which a latent mask forms: then it has
    :meth:`learn_` and :meth:`unit_value`."""

    def fits(self, recipe: Any) -> None:
        """Beside a latent mask, where it is learned."""
        if self.learned and not recipe.mask.latent:
            raise ValueError(
                "a learned score needs the mask's gradient, which mask: straight_through forms; "
                f"mask is {recipe.mask.label}"
            )

    def start_(self, memory: Memory, weight: Tensor, number: int) -> None:
        """Give the memory of site ``number`` its first values; it holds zeros."""
        return None

    def start_units_(self, memory: Memory, number: int) -> None:
        """The same for the memory that is per unit, of unit group ``number``."""
        return None

    @property
    def share(self) -> float:
        """The smallest share of the way to what is observed by which a mean moves at a time."""
        return 1.0

    @property
    def observes_new(self) -> bool:
        """Whether it observes after the optimizer's step, with the weight the step made."""
        return False

    def observe_(
        self, memory: Memory, weight: Tensor, gradient: Tensor, step: int, scratch: Tensor
    ) -> None:
        """Take in step ``step`` (from 1); ``scratch`` is a free tensor of the same shape."""
        raise NotImplementedError(f"{type(self).__name__} does not observe")

    def learn_(self, memory: Memory, gradient: Tensor, progress: Progress) -> None:
        """Train on the gradient of the scores, of the memory's shape; free to be overwritten."""
        raise NotImplementedError(f"{type(self).__name__} does not learn")

    def changes_at(self, step: int) -> bool:
        """Whether the scores after ``step`` may differ from those after the step before."""
        return True

    def check(self, first_update: int) -> None:
        """Raise ValueError when the score means nothing yet at the first decision."""
        return None

    @abstractmethod
    def value(self, memory: Memory, weight: Tensor, out: Tensor) -> Tensor:
        """The scores of ``weight``, written into ``out`` (same shape) or standing in memory."""

    def unit_value(self, memory: Memory) -> Tensor:
        """The scores that stand in memory, of units or of weights, in its shape; no copy.

        For scores that are learned or have memory per unit.
        """
        raise NotImplementedError(f"{type(self).__name__} keeps no scores of units")


class Magnitude(Score):
    """|w|. Costs no memory and no gradient."""

    kind: Literal["magnitude"] = "magnitude"

    def value(self, memory: Memory, weight: Tensor, out: Tensor) -> Tensor:
        """|w|."""
        return torch.abs(out.copy_(weight), out=out)


class InputScore(Score):
    """A score that weighs a weight by what the input it multiplies is worth.

    Inputs of linear layers are observed before decisions, a statistic of them is made the worth of
    each input, and ``memory["worth"]`` gives :meth:`value` that of every weight's. Decisions in
    between rank the weights as they are then by the worth that was found last.
    """

    statistic: ClassVar[Statistic] = "squares"
    """What :meth:`worth` is made of: ``squares`` or ``products``."""

    inputs: Inputs = Inputs()
    """How inputs are observed; a reconstruction beside it must do likewise."""

    decisions: int = Field(50, ge=1)
    """Decisions before which inputs are observed, at most, evenly over the schedule's ramp, the
    first always; after the ramp there is none."""

    def fits(self, recipe: Any) -> None:
        """Beside a reconstruction that observes alike, and a schedule that prunes."""
        super().fits(recipe)
        if recipe.schedule.from_model:
            raise ValueError(
                f"score {self.label} ranks weights by their inputs, and schedule "
                f"{recipe.schedule.label} keeps those that are not zero: use score: nonzero"
            )
        other = recipe.reconstruction and recipe.reconstruction.inputs
        for name in type(self.inputs).model_fields if other else ():
            ours, theirs = getattr(self.inputs, name), getattr(other, name)
            if ours != theirs:
                raise ValueError(
                    f"score {self.label} and reconstruction {recipe.reconstruction.label} see the "
                    f"same inputs, and score.inputs.{name}={ours} is not "
                    f"reconstruction.inputs.{name}={theirs}: set both alike"
                )

    @abstractmethod
    def worth(self, statistic: Tensor) -> Tensor:
        """What each input is worth, (inputs,).

        Args:
            statistic: Of ``squares`` (inputs,), the mean of x_j^2; of ``products`` (inputs,
                inputs), the mean of x x^T, where a wide layer is cut into blocks one block at a
                time.
        """


class Learned(Score):
    """Scores trained beside the weights, by the gradient that a latent mask forms for them.

    Movement pruning (Sanh et al. 2020, arXiv 2005.07683): from 0, gradient descent makes S the sum
    of -lr g w, high for weights that move away from zero.
    """

    kind: Literal["learned"] = "learned"
    memory: ClassVar[tuple[str, ...]] = ("score", "exp_avg", "exp_avg_sq")
    per_unit: ClassVar[tuple[str, ...]] = memory
    learned: ClassVar[bool] = True

    initial: float = 0.0
    """Every score at the start."""

    optimizer: Adam = Adam()
    """Trains the scores."""

    def start_(self, memory: Memory, weight: Tensor, number: int) -> None:
        """Every score to ``initial``."""
        self.start_units_(memory, number)

    def start_units_(self, memory: Memory, number: int) -> None:
        """The same."""
        memory["score"].fill_(self.initial)

    def learn_(self, memory: Memory, gradient: Tensor, progress: Progress) -> None:
        """Step the scores."""
        averages = memory["exp_avg"], memory["exp_avg_sq"]
        self.optimizer.step_(memory["score"], gradient, *averages, progress)

    def value(self, memory: Memory, weight: Tensor, out: Tensor) -> Tensor:
        """The scores."""
        return memory["score"]

    def unit_value(self, memory: Memory) -> Tensor:
        """The scores."""
        return memory["score"]


class Windowed(Score):
    """A score that averages its signal over windows of steps and folds in whole windows.

    Steps count from 1. At a multiple of ``window`` the mean of the window just passed is folded
    into the score's averages and the step's own signal starts the next window, so that a score
    used at that step knows the steps before it only. Between multiples the scores stand still.
    """

    observes: ClassVar[bool] = True

    signal: Signal = Sensitivity()
    """What is measured at every step."""

    window: int = Field(10, ge=1)
    """Optimizer steps in a window."""

    iterate: Literal["new", "old"] = "new"
    """The weight that meets the gradient: ``new`` is the one the optimizer's step has just made
    (PLATON's authors' code), ``old`` the one at which the gradient was taken (the paper). They
    differ for a weight just zeroed: ``old`` gives it signal 0, so that it cannot come back while
    every step decides; ``new`` lets the step it has made since then count."""

    @property
    def share(self) -> float:
        """That of the window's last step."""
        return 1 / self.window

    @property
    def observes_new(self) -> bool:
        """True for ``iterate="new"``."""
        return self.iterate == "new"

    def observe_(
        self, memory: Memory, weight: Tensor, gradient: Tensor, step: int, scratch: Tensor
    ) -> None:
        """Fold at multiples of ``window``, average in between."""
        mean = memory["window"]
        passed = step % self.window
        if passed == 0:
            self.fold_(memory, mean)
            self.signal.measure_(mean, weight, gradient)
        else:
            mean.lerp_(self.signal.measure_(scratch, weight, gradient), 1 / (passed + 1))

    def changes_at(self, step: int) -> bool:
        """At multiples of ``window``."""
        return step % self.window == 0

    def check(self, first_update: int) -> None:
        """The first window must have been folded before the first decision."""
        needed = max(self.window, 2)
        if first_update < needed:
            raise ValueError(
                f"score.window={self.window}: the first decision comes at step {first_update}, "
                f"before step {needed}, when the first scores exist; "
                "use a longer warm-up or a shorter window"
            )

    @abstractmethod
    def fold_(self, memory: Memory, mean: Tensor) -> None:
        """Take in a window's mean; ``mean`` is free to be overwritten."""


class Smoothed(Windowed):
    """An exponential moving average of the signal's window means: smoothed sensitivity.

    ``beta=0`` is the plain mean over the last window.
    """

    kind: Literal["smoothed"] = "smoothed"
    memory: ClassVar[tuple[str, ...]] = ("window", "importance")
    means: ClassVar[tuple[str, ...]] = memory

    beta: float = Field(0.85, ge=0, lt=1)
    """Weight of the past in the average of importance."""

    @property
    def share(self) -> float:
        """That of the window or of the average."""
        return min(super().share, 1 - self.beta)

    def fold_(self, memory: Memory, mean: Tensor) -> None:
        """Average importance."""
        memory["importance"].lerp_(mean, 1 - self.beta)

    def value(self, memory: Memory, weight: Tensor, out: Tensor) -> Tensor:
        """Smoothed importance."""
        return out.copy_(memory["importance"])

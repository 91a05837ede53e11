r"""Reconstruction: what kept weights take over from pruned ones, before training goes on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal

import torch
from pydantic import Field
from torch import Tensor

from sentei.parts.inputs import Inputs, part_of_ramp
from sentei.parts.part import Part
from sentei.tensors import multiplies_bf16

Total = Callable[[Tensor], Tensor]
"""Makes a number that is of some rows of a matrix that of all."""


def itself(number: Tensor) -> Tensor:
    """The number, where all rows are here."""
    return number


class Reconstruction(Part):
    """How kept weights change at a decision, so that a layer does what it did before."""

    axis: ClassVar[str] = "reconstruction"

    inputs: Inputs = Inputs()
    """How inputs are observed."""

    decisions: int = Field(50, ge=1)
    """Decisions with a reconstruction in a training, at most, evenly over the schedule's ramp: in
    short trainings every decision has one. There is none after the ramp."""

    def fits(self, recipe: Any) -> None:
        """Beside a mask that leaves kept weights as they are, and decisions that change."""
        if not recipe.mask.exact:
            raise ValueError(
                f"reconstruction {self.label} gives kept weights their values, and mask "
                f"{recipe.mask.label} scales them: use mask: project or straight_through, or "
                "reconstruction: null"
            )
        if recipe.schedule.from_model:
            raise ValueError(
                f"reconstruction {self.label} has nothing to do where schedule "
                f"{recipe.schedule.label} never prunes: use reconstruction: null"
            )

    def slot(self, ramp: float) -> int:
        """Which of the ``decisions`` parts of the ramp a place on it is in; the first decision in
        a part has a reconstruction. -1 before the ramp.
        """
        return part_of_ramp(ramp, self.decisions)

    @abstractmethod
    def solve(
        self, wanted: Tensor, start: Tensor, keep: Tensor, gram: Tensor, total: Total = itself
    ) -> Tensor:
        """New weights of a linear map, zero where ``keep`` is False.

        Args:
            wanted: What it was before the decision (rows, inputs); x is mapped to ``wanted`` x.
            start: What it is after the decision, of the same shape; zero where ``keep`` is.
            keep: The mask, of the same shape; True = kept.
            gram: The mean of x x^T, (inputs, inputs), in the weights' precision or better.
            total: Sums a 0-d tensor over the processes that solve the other rows of a sharded map;
                all of them must call it equally often. There may be no rows here.
        """


class LeastSquares(Reconstruction):
    r"""Least squares on the layer's inputs: kept weights make its outputs what they were.

    With W the weights before the decision, M the mask, W0 the weights after it, G the mean of x x^T
    over the layer's inputs, and d a fraction of G's mean diagonal, each row of the result is the

        argmin over X = X . M of |(W - X) G^(1/2)|^2 + d |X - W0|^2

    by conjugate gradients from W0, all rows at once, with Jacobi's preconditioner. However few or
    many the iterations, no row's squared error on what was observed grows. Products are in bf16
    where the device has it; a last one in full says how far a row goes along what they have found.

    Optimal brain surgeon on a layer's inputs (Hassibi and Stork 1993; with one Gram matrix a layer
    as in Frantar and Alistarh 2023, SparseGPT, arXiv 2301.00774), solved again at each decision of
    gradual pruning.
    """

    kind: Literal["least_squares"] = "least_squares"

    damping: float = Field(0.01, gt=0)
    """d, in units of the mean of G's diagonal."""

    iterations: int = Field(8, ge=1)
    """Of conjugate gradients, at most. More fit what was observed more closely: where that is fewer
    tokens than a layer has inputs, too closely."""

    tolerance: float = Field(0.05, ge=0)
    """Iterations end with one that lowers the error by less than this fraction of what pruning has
    done, and none is made where that is next to nothing; 0 makes them all. On a CPU only: other
    devices would have to wait for the number, and make them all."""

    def solve(
        self, wanted: Tensor, start: Tensor, keep: Tensor, gram: Tensor, total: Total = itself
    ) -> Tensor:
        """Conjugate gradients."""
        waits = gram.device.type == "cpu" and self.tolerance > 0
        multiply, resolution = _product(gram)
        missing = wanted - start
        residual = multiply(missing)
        error = (residual * missing).sum()
        if waits:
            error = total(error)
            if error <= NEGLIGIBLE * total((wanted.square() @ gram.diagonal()).sum()):
                return start
        residual.mul_(keep)
        damping = self.damping * gram.diagonal().mean()
        scale = (gram.diagonal() + damping).clamp_min(torch.finfo(gram.dtype).tiny)
        change = torch.zeros_like(residual)
        ahead = residual / scale
        direction = ahead.clone()
        size = (residual * ahead).sum(1, keepdim=True)
        end = size * resolution**2  # where a row's residual is no more than what products round off
        for _ in range(self.iterations):
            curved = multiply(direction).add_(direction * damping).mul_(keep)
            curvature = (direction * curved).sum(1, keepdim=True)
            length = _ratio(size, curvature, (size <= end) | (curvature <= 0))
            change.addcmul_(direction, length)
            residual.addcmul_(curved, length, value=-1)
            if waits and total((length * size).sum()) <= self.tolerance * error:
                break
            torch.div(residual, scale, out=ahead)
            smaller = (residual * ahead).sum(1, keepdim=True)
            direction.mul_(_ratio(smaller, size, size <= end)).add_(ahead)
            size = smaller
        if resolution > torch.finfo(gram.dtype).eps:
            change.mul_(_best_length(change, missing, gram, damping))
        return change.add_(start)


ALL_ITERATIONS: Final = LeastSquares(tolerance=0)
"""As `auto` and `mgpp` have it."""
NEGLIGIBLE: Final = 1e-3
"""Of the squared outputs, about: an error that is left to training."""


def _product(gram: Tensor) -> tuple[Callable[[Tensor], Tensor], float]:
    """What multiplies by a Gram matrix, and its relative rounding."""
    if gram.dtype == torch.float32 and multiplies_bf16(gram.device):
        rounded, eps = gram.bfloat16(), torch.finfo(torch.bfloat16).eps
        return lambda rows: (rows.bfloat16() @ rounded).to(gram.dtype), eps
    return lambda rows: rows @ gram, torch.finfo(gram.dtype).eps


def _best_length(change: Tensor, missing: Tensor, gram: Tensor, damping: Tensor) -> Tensor:
    """How far along its ``change`` each row's damped error is least.

    Rounded products make a Gram matrix of nearly dependent inputs another one, along whose flat
    directions many iterations run away.
    """
    outputs = change @ gram
    gain = (outputs * missing).sum(1, keepdim=True)
    curvature = (outputs * change + damping * change.square()).sum(1, keepdim=True)
    return _ratio(gain, curvature, curvature <= 0)


def _ratio(numerator: Tensor, denominator: Tensor, ended: Tensor) -> Tensor:
    """The quotient; 0 where a row has come to its end."""
    return (numerator / denominator.masked_fill(ended, 1)).masked_fill_(ended, 0)

"""Which layout each product has, and what it should cost: what ``engine.plan`` prints."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sentei.runtime import cost
from sentei.runtime.cpu import Precision, Target
from sentei.runtime.encoder import Linear
from sentei.runtime.layout import Runs, pack


@dataclass(frozen=True)
class Step:
    """One product: its matrix, how it lies, and the predicted microseconds for 64 tokens."""

    name: str
    shape: tuple[int, int]
    density: float
    layout: str
    microseconds: float
    nbytes: int


@dataclass(frozen=True)
class Plan:
    """All products of a program."""

    precision: Precision
    isa: str
    steps: tuple[Step, ...]

    @property
    def microseconds(self) -> float:
        """Of all products, for 64 tokens and one thread."""
        return sum(step.microseconds for step in self.steps)

    def __str__(self) -> str:
        width = max((len(step.name) for step in self.steps), default=0)
        lines = [
            f"{step.name:{width}}  {step.shape[0]:>5} x {step.shape[1]:<5} "
            f"{100 * step.density:6.1f} % kept  {step.layout:6}  {step.microseconds:8.1f} us"
            for step in self.steps
        ]
        size = sum(step.nbytes for step in self.steps) / 2**20
        head = f"{self.precision} on {self.isa}: predicted for 64 tokens and one thread"
        return "\n".join(
            [head, *lines, f"products: {self.microseconds:.0f} us, weights: {size:.1f} MiB"]
        )


def product(
    linear: Linear, factor: float, precision: Precision, target: Target
) -> tuple[Runs, Step]:
    """Pack a matrix in the layout that is fastest for it.

    Args:
        linear: The matrix and its bias.
        factor: What both are multiplied with.
        precision: Of the weights.
        target: The CPU.
    """
    weight = linear.nonzeros().times(factor)
    choice = cost.best(weight, precision, target.isa)
    bias = linear.bias * np.float32(factor)
    runs = pack(weight, bias, precision, choice.outputs, shared=choice.shared, piece=choice.piece)
    kept, size = len(weight.values), math.prod(weight.shape)
    layout = "blocks" if choice.shared else "rows"
    if kept == size:
        layout = "dense"
    step = Step(
        name=linear.name,
        shape=weight.shape,
        density=kept / max(1, size),
        layout=layout,
        microseconds=choice.nanoseconds / 1000,
        nbytes=runs.nbytes,
    )
    return runs, step

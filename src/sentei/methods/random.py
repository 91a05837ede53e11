"""Random pruning: remove weights by lot.

The control of every comparison, used as a baseline by Zhu and Gupta's successors (see Blalock et
al. 2020, What is the state of neural network pruning?, arXiv 2003.03033): what a method gains over
it is what its score knows. The draw is made once, so masks are nested, on the same schedule as
magnitude pruning.

Cost: 5 bytes a weight (the draw in float32, the mask), no gradient read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sentei.methods.method import Method
from sentei.parts import Cubic, Memory, Pattern, Project, Scope, Score, Uniform
from sentei.recipe import Recipe


class Random(Score):
    """A number drawn once for every weight: what any method must beat."""

    kind: Literal["random"] = "random"
    memory: ClassVar[tuple[str, ...]] = ("draw",)

    seed: int = 0
    """Of the draw."""

    def start_(self, memory: Memory, weight: Tensor, number: int) -> None:
        """Draw, by site and seed."""
        generator = torch.Generator(weight.device).manual_seed(self.seed * 10_007 + number)
        memory["draw"].uniform_(generator=generator)

    def changes_at(self, step: int) -> bool:
        """Never."""
        return False

    def value(self, memory: Memory, weight: Tensor, out: Tensor) -> Tensor:
        """The draw."""
        return memory["draw"]


def random(
    sparsity: float = 0.8,
    *,
    seed: int = 0,
    warmup: float = 0.1,
    cooldown: float = 0.4,
    every: int = 10,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """Random pruning's recipe.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        seed: Of the draw.
        warmup: Fraction of training before the first pruning.
        cooldown: Fraction of training at the final sparsity.
        every: Optimizer steps between decisions on the ramp.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    return Recipe(
        method="random",
        scope=Scope.model_validate(scope or {}),
        pattern=Pattern.model_validate(pattern),
        score=Random(seed=seed),
        schedule=Cubic(
            sparsity=sparsity, warmup=warmup, cooldown=cooldown, every=every, cooldown_every=0
        ),
        budget=Uniform(),
        mask=Project(hold=True),
    )


METHOD = Method(
    name="random",
    build=random,
    summary="removes weights by lot: what every method must beat",
    paper="Blalock et al., What is the state of neural network pruning?, 2020, arXiv 2003.03033",
)

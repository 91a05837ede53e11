r"""Wanda: a weight is worth its size times the size of the input that it multiplies.

Sun, Liu, Bair and Kolter 2023, arXiv 2306.11695. For the weight from input j to output i of a
linear layer, with ||X_j|| the l2 norm of input j over the tokens seen:

    S_ij = |W_ij| ||X_j||

Scores are compared among the weights into one output, eq. 2 and section 3: every output of every
matrix keeps the same number (``budget="row"``). That is the default because norms say something
within a layer, where all outputs read the same inputs, and little between layers.

Written for pruning at once without training; here it also prunes gradually, with inputs seen anew
before decisions. Norms are square roots of means over tokens: the paper's, over the root of the
number of tokens, which is one for all weights of a layer.

Cost: 1 byte a weight (the mask), no gradient read; 8 bytes for each input of a
layer, and a pass over inputs in the few steps before a decision.

The authors' code prunes one block after another and feeds each with the outputs of those already
pruned; here all layers see the inputs of the model as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from sentei.methods.method import Method
from sentei.parts import (
    Budget,
    Cubic,
    Global,
    InputScore,
    Memory,
    Pattern,
    Project,
    Scope,
    Uniform,
    UniformRows,
)
from sentei.recipe import Recipe

BUDGETS: Mapping[str, Budget] = {
    "row": UniformRows(),
    "uniform": Uniform(),
    "global": Global(),
}
"""By the argument that names them."""


class Wanda(InputScore):
    """|w| times the root mean square of the input that it multiplies."""

    kind: Literal["wanda"] = "wanda"

    def worth(self, statistic: Tensor) -> Tensor:
        """The root mean square of each input."""
        return statistic.sqrt()

    def value(self, memory: Memory, weight: Tensor, out: Tensor) -> Tensor:
        """|w| ||x_j||."""
        return torch.abs(out.copy_(weight), out=out).mul_(memory["worth"])


def wanda(
    sparsity: float = 0.5,
    *,
    budget: Literal["row", "uniform", "global"] | None = None,
    hold: bool = True,
    warmup: float = 0.1,
    cooldown: float = 0.4,
    every: int = 10,
    pattern: Pattern | Mapping[str, object] | str = "unstructured",
    scope: Scope | Mapping[str, object] | None = None,
) -> Recipe:
    """Wanda's recipe.

    Args:
        sparsity: Fraction of the prunable weights to remove, in [0, 1).
        budget: Rank the weights into each output alone, as the paper does; those of each matrix;
            or all together [default: row; with patterns of several weights, uniform].
        hold: Keep pruned weights at zero. False lets them regrow between decisions, and then every
            step of the cool-down decides, by the inputs seen last on the ramp.
        warmup: Fraction of training before the first pruning.
        cooldown: Fraction of training at the final sparsity.
        every: Optimizer steps between decisions on the ramp.
        pattern: What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron.
        scope: What to prune; by default the model family's attention and FFN matrices.
    """
    shape = Pattern.model_validate(pattern)
    return Recipe(
        method="wanda",
        scope=Scope.model_validate(scope or {}),
        pattern=shape,
        score=Wanda(),
        schedule=Cubic(
            sparsity=sparsity,
            warmup=warmup,
            cooldown=cooldown,
            every=every,
            cooldown_every=0 if hold else 1,
        ),
        budget=BUDGETS[budget or ("uniform" if shape.pools else "row")],
        mask=Project(hold=hold),
    )


METHOD = Method(
    name="wanda",
    build=wanda,
    summary="removes weights that are small beside their input; works without training",
    paper="Sun et al., A simple and effective pruning approach for LLMs, 2023, arXiv 2306.11695",
)

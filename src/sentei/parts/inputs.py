"""The inputs of linear maps: how they are observed, for the parts that want to know them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from pydantic import Field
from torch import nn

from sentei.parts.part import Part
from sentei.parts.site import Site

Statistic = Literal["squares", "products"]
"""Of a layer's inputs x: the mean of each one's square, (inputs,); or the mean of x x^T, (inputs,
inputs), in blocks as :class:`Inputs` says."""


class Inputs(Part):
    """How the inputs of linear maps are observed: their squares, or their Gram matrix, the mean of
    x x^T.

    They are looked at in the steps before a decision only. Padding does not count.
    """

    steps: int = Field(3, ge=1)
    """In how many optimizer steps before a decision inputs are observed."""

    tokens: int = Field(512, ge=1)
    """Tokens looked at in a forward pass, at most: every n-th of its batch."""

    beta: float = Field(0.8, ge=0, lt=1)
    """Weight of the past: what was observed before earlier decisions counts so much at each."""

    width: int = Field(1536, ge=1)
    """Inputs whose products are kept, at most. A wider layer is cut into equal blocks, and
    products between blocks are left out: memory and time grow with this and not with the width."""

    def blocks(self, width: int) -> list[tuple[int, int]]:
        """The ``(start, stop)`` blocks in which ``width`` inputs are kept."""
        count = -(-width // self.width)
        ends = [width * block // count for block in range(count + 1)]
        return list(pairwise(ends))


def part_of_ramp(ramp: float, parts: int) -> int:
    """Which of so many equal parts of a schedule's ramp a place on it is in: -1 before it, and the
    last, ``parts``, from its end on.
    """
    return -1 if ramp < 0 else int(min(ramp, 1.0) * parts)


def linear_maps(model: nn.Module, sites: Sequence[Site]) -> dict[Site, nn.Module]:
    """The modules of a model that are called with the inputs of their one matrix, by that matrix.

    Args:
        model: Any model, wrapped or not.
        sites: Its prunable weights; those that are no matrix of a linear layer are left out.
    """
    matrices = {id(site.parameter): site for site in sites if site.parameter.ndim == 2}
    maps: dict[Site, nn.Module] = {}
    for module in model.modules():
        site = matrices.get(id(module._parameters.get("weight")))
        if site and (isinstance(module, nn.Linear) or site.transposed):
            maps.setdefault(site, module)
    return maps

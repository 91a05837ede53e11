"""Models of the zoo with units zeroed, to be shrunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from transformers import PreTrainedModel

from helpers.zoo import ZOO
from sentei.families import Structure
from sentei.models.structures import divide, family_of

DIVIDED = [case for case in ZOO if case != "albert"]
KINDS: dict[str, Callable[[int, Structure], Iterable[int]]] = {
    # The same of every block, which a config may be able to say.
    "alike": lambda n, s: [1] if s.unit == "head" else range(s.units // 4),
    # Other numbers of other units in each.
    "ragged": lambda n, s: [n % s.units] if s.unit == "head" and n % 4 else range(n % s.units),
    # Everything of some, and nothing of others.
    "whole": lambda n, s: range(s.units) if n % 4 in (0, 3) else [],
}


def structures(model: PreTrainedModel) -> list[Structure]:
    return [at.structure for at in divide(model, family_of(model))]


@torch.no_grad()
def zero_(
    model: PreTrainedModel,
    dead: Callable[[int, Structure], Iterable[int]],
    parts: Callable[[tuple[str, ...]], bool] = lambda holds: True,
    biases: bool = True,
) -> int:
    """Zero units; how many."""
    done = 0
    for number, structure in enumerate(structures(model)):
        for unit in dead(number, structure):
            done += 1
            for part in (*structure.weights, *(structure.biases if biases else ())):
                if parts(part.holds):
                    parameter = model.get_parameter(part.parameter)
                    parameter.narrow(part.dim, part.offset + unit * part.width, part.width).zero_()
    return done


def same(one: torch.Tensor, other: torch.Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance)

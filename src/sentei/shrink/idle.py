"""Which units of a structure give the same to every token, and what they give.

A unit adds to every token what the structure's last matrix makes of it. That is zero where this
matrix has only zeros for the unit, or where the unit itself is zero; it is a constant where the
unit has a bias and no weights. Attention weights sum to one, so that a head whose values are all
one vector hands on that vector, whatever it attends to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sentei.families import Slice, Structure

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Idle:
    """Units that can go.

    ``units`` (units,) is True for them. ``values`` (units, width) is what each hands to the matrix
    that reads it, for every token; zero where it is not constant or not read.
    """

    units: Tensor
    values: Tensor


@torch.no_grad()
def find_idle(
    structure: Structure,
    parameters: Mapping[str, Tensor],
    activation: Activation | None,
    *,
    bias: bool,
) -> Idle:
    """Find the units of a structure that can go without changing what the model computes.

    Args:
        structure: The structure.
        parameters: Plain name to parameter.
        activation: Of the feed-forward network; None if it is not a function of one number.
        bias: Whether the matrix that reads the units has a bias, which takes constants up.
    """
    out = _of_units(structure, structure.weights[-1], parameters)
    unread = _is_zero(out)
    if structure.unit == "head":
        constant, value = _value(structure, parameters)
        value = value.repeat(1, out.shape[1] // value.shape[1])  # for each head of the group
    else:
        constant, value = _neuron(structure, parameters, activation)
    silent = constant & _is_zero(value)
    return Idle(
        units=unread | (constant if bias else silent),
        values=torch.where((constant & ~unread).unsqueeze(1), value, 0),
    )


@torch.no_grad()
def contribution(
    structure: Structure, idle: Idle, removed: Tensor, parameters: Mapping[str, Tensor]
) -> Tensor:
    """What removed units added to every token: (width of the model,), in float64."""
    out = _of_units(structure, structure.weights[-1], parameters)[removed]
    return torch.einsum("uw,uwh->h", idle.values[removed], out.double())


def _value(structure: Structure, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Which heads have the same value for all tokens, and that value (units, size of a head)."""
    weight, bias = _part(structure, parameters, "value")
    return _is_zero(weight), bias.double()


def _neuron(
    structure: Structure, parameters: Mapping[str, Tensor], activation: Activation | None
) -> tuple[Tensor, Tensor]:
    """Which neurons give the same for all tokens, and what (units, 1)."""
    weight, bias = _part(structure, parameters, "ffn_in")
    gated = any("ffn_gate" in part.holds for part in structure.weights)
    if not gated:
        if activation is None:
            return torch.zeros_like(bias[:, 0], dtype=torch.bool), bias.double()
        return _is_zero(weight), activation(bias).double()
    constant, silent = _is_zero(weight), _is_zero(weight) & _is_zero(bias)
    gate_weight, gate_bias = _part(structure, parameters, "ffn_gate")
    if activation is None:
        return silent, bias.double()
    gate = activation(gate_bias)
    shut = _is_zero(gate_weight) & _is_zero(gate)
    value = torch.where(silent | shut, 0, (gate * bias).squeeze(1))
    return silent | shut | (constant & _is_zero(gate_weight)), value.double().unsqueeze(1)


def _part(
    structure: Structure, parameters: Mapping[str, Tensor], name: str
) -> tuple[Tensor, Tensor]:
    """A part of every unit: its weights (units, width, inputs) and biases (units, width)."""

    def entries(part: Slice) -> Tensor:
        units = _of_units(structure, part, parameters)
        return units.chunk(len(part.holds), dim=1)[part.holds.index(name)]

    [weight] = [entries(part) for part in structure.weights if name in part.holds]
    biases = [entries(part).squeeze(2) for part in structure.biases if name in part.holds]
    if not biases:
        return weight, weight.new_zeros(weight.shape[:2])
    return weight, torch.stack(biases).sum(0)


def _of_units(structure: Structure, part: Slice, parameters: Mapping[str, Tensor]) -> Tensor:
    """The entries of all units: (units, width, everything else)."""
    tensor = parameters[part.parameter].detach()
    entries = tensor.narrow(part.dim, part.offset, structure.units * part.width)
    return entries.movedim(part.dim, 0).reshape(structure.units, part.width, -1)


def _is_zero(units: Tensor) -> Tensor:
    return (units == 0).flatten(1).all(1)

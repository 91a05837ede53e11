"""Which entries of which parameters belong to one attention head or one neuron."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sentei.families.family import Family, Heads, Neurons, Rows
from sentei.messages import listing

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Slice:
    """What every unit of a structure owns of one parameter.

    Along ``dim``, unit u has the entries [offset + u * width, offset + (u + 1) * width).
    """

    parameter: str
    """Plain name of the parameter, as in the state dict."""

    dim: int
    offset: int
    width: int

    holds: tuple[str, ...] = field(default=(), compare=False)
    """What a unit's entries are, in equal parts: ``("value",)``, or several where the matrix has
    them unit by unit. ``("out",)`` is the matrix that reads the units."""


@dataclass(frozen=True)
class Structure:
    """Units of one block that are kept or removed whole.

    They are attention heads (where query heads share a key and value head: that one with all of
    its query heads) or neurons of the feed-forward network.
    """

    unit: Literal["head", "neuron"]

    name: str
    """The module that holds it, such as ``bert.encoder.layer.3.attention``."""

    layer: int
    units: int

    weights: tuple[Slice, ...]
    """Of matrices: outputs of those that make the units, inputs of the one that reads them, which
    comes last."""

    biases: tuple[Slice, ...]
    """Of vectors: what goes with the units. The bias of the matrix that reads them does not."""


def structures(
    family: Family, config: Mapping[str, object], shapes: Shapes
) -> tuple[Structure, ...]:
    """Find the attention heads and neurons of a model.

    The number of units is counted in the shapes, so that a model from which units were removed has
    those that it still has.

    Args:
        family: The family of the model.
        config: ``config.to_dict()`` of the model; read for the size of a head.
        shapes: Plain parameter name to shape, for all parameters of the model.

    Returns:
        In the order of ``shapes``; of a block first its attentions, then its feed-forward network.

    Raises:
        ValueError: The family describes no structures, a block lacks a matrix that they need, or a
            shape cannot be divided into whole units.
    """
    return tuple(at.structure for at in divide(family, config, shapes))


@dataclass(frozen=True)
class StructureAt:
    """A structure, the name of its block, and the family's description that it was found by."""

    structure: Structure
    block: str
    spec: Heads | Neurons


def divide(family: Family, config: Mapping[str, object], shapes: Shapes) -> tuple[StructureAt, ...]:
    """Find the structures as :func:`structures` does, each with what it was found by."""
    if not (family.heads or family.neurons):
        raise ValueError(
            f"family {family.name} has no heads and neurons that can be removed: "
            f"{family.undivided or 'its heads and neurons are not described'}"
        )
    blocks = _blocks(family, shapes)
    if not blocks:
        raise ValueError(
            f"family {family.name} does not fit: no parameter lies in a block {family.block}; "
            f"found {listing(shapes, 8)}"
        )
    every: tuple[Heads | Neurons, ...] = (*family.heads, *family.neurons)
    return tuple(
        StructureAt(_structure(family, spec, block, config, shapes), block.name, spec)
        for block in blocks
        for spec in every
        if spec.within in f"{block.name}."
        and (spec.out in block.weights or spec.out not in family.optional)
    )


@dataclass(frozen=True)
class _Block:
    name: str
    layer: int
    weights: dict[str, str]
    """Role to name of the weight."""
    parameters: list[str]


def _blocks(family: Family, shapes: Shapes) -> list[_Block]:
    blocks: dict[str, _Block] = {}
    for parameter in shapes:
        module, _, leaf = parameter.rpartition(".")
        if place := family.locate(module):
            block = blocks.setdefault(place.block, _Block(place.block, place.layer, {}, []))
            block.parameters.append(parameter)
            if place.role and leaf == "weight":
                block.weights[place.role] = parameter
    return list(blocks.values())


def _structure(
    family: Family,
    spec: Heads | Neurons,
    block: _Block,
    config: Mapping[str, object],
    shapes: Shapes,
) -> Structure:
    matrices, out = _matrices(family, spec, block)
    rows_dim, columns_dim = (1, 0) if family.transposed else (0, 1)
    heads = spec if isinstance(spec, Heads) else None
    size = _head_size(heads, config) if heads else 1
    counted, read = ("value", "query") if heads else ("ffn_in", "ffn_in")
    units = next(
        _divided(shapes, weight, rows_dim, size * len(rows.parts), f"heads of size {size}")
        for rows, weight in matrices
        if counted in rows.parts
    )

    widths: dict[str, int] = {}
    weights: list[Slice] = []
    biases: list[Slice] = []
    for rows, weight in matrices:
        width = _divided(shapes, weight, rows_dim, units * len(rows.parts), f"{units} units")
        widths |= dict.fromkeys(rows.parts, width)
        weights += _slices(rows, weight, rows_dim, width, units)
        bias = f"{weight.removesuffix('.weight')}.bias"
        if bias in shapes:
            biases += _slices(rows, bias, 0, width, units)
    for name, part in heads.vectors.items() if heads else ():
        parameter = f"{block.name}.{name}"
        width = _divided(shapes, parameter, 0, units, f"{units} units")
        biases.append(Slice(parameter, 0, 0, width, (part,)))
    width = _divided(shapes, out, columns_dim, units, f"{units} units")
    if width != widths[read]:
        raise ValueError(
            f"{out}: its shape {shapes[out]} does not fit the {units} units of {widths[read]} in "
            f"{block.name}; is it of another architecture than family {family.name}?"
        )
    weights.append(Slice(out, columns_dim, 0, width, ("out",)))
    return Structure(
        unit="head" if heads else "neuron",
        name=_holder(spec, block, out),
        layer=block.layer,
        units=units,
        weights=tuple(weights),
        biases=tuple(biases),
    )


def _matrices(
    family: Family, spec: Heads | Neurons, block: _Block
) -> tuple[list[tuple[Rows, str]], str]:
    """The matrices that make the units and the one that reads them, by name of their weights."""
    mixer = f"{block.name}.{spec.mixed_by}." if isinstance(spec, Heads) and spec.mixed_by else ""
    if mixer and any(parameter.startswith(mixer) for parameter in block.parameters):
        raise ValueError(
            f"{mixer.rstrip('.')} mixes the heads of {block.name}, so that none can be removed"
        )
    roles = {**family.roles, **family.optional}
    for role in (*(rows.role for rows in spec.rows), spec.out):
        if role not in block.weights and (role in family.roles or role == spec.out):
            raise ValueError(
                f"{block.name} has no {roles[role]}.weight ({role} of family {family.name}); "
                f"found {listing(block.parameters, 8)}"
            )
    weights = block.weights
    matrices = [(rows, weights[rows.role]) for rows in spec.rows if rows.role in weights]
    return matrices, weights[spec.out]


def _head_size(heads: Heads, config: Mapping[str, object]) -> int:
    if size := config.get(heads.size):
        return int(str(size))
    try:
        return int(str(config[heads.hidden])) // int(str(config[heads.count]))
    except KeyError as error:
        raise ValueError(
            f"config has no {error.args[0]}, which gives the size of a head; it has "
            f"{listing(sorted(config), 8)}"
        ) from None


def _divided(shapes: Shapes, parameter: str, dim: int, step: int, what: str) -> int:
    """How many times ``step`` goes into a dimension of a parameter."""
    shape = shapes.get(parameter, ())
    if len(shape) <= dim or shape[dim] < step or shape[dim] % step:
        raise ValueError(f"{parameter}: its shape {shape} cannot be divided into {what}")
    return shape[dim] // step


def _slices(rows: Rows, parameter: str, dim: int, width: int, units: int) -> list[Slice]:
    parts = rows.parts
    if rows.interleaved:
        return [Slice(parameter, dim, 0, width * len(parts), parts)]
    return [
        Slice(parameter, dim, number * units * width, width, (part,))
        for number, part in enumerate(parts)
    ]


def _holder(spec: Heads | Neurons, block: _Block, out: str) -> str:
    """Name of the module that holds a structure; numbers as the matrix that reads it has them."""
    inside = out.removeprefix(f"{block.name}.").split(".")
    depth = len(spec.module.split(".")) if spec.module else 0
    return ".".join([block.name, *inside[:depth]])

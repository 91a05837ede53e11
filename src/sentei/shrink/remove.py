"""From a model with zeros to a smaller one that computes the same."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.activations import ACT2CLS, ACT2FN

from sentei.families import Family, Neurons, StructureAt
from sentei.models.stock import Stock, apply_stock_, find_stock
from sentei.models.structures import divide, family_of, keep_
from sentei.records import Record
from sentei.shrink.cost import flops
from sentei.shrink.idle import Activation, Idle, contribution, find_idle


class StructureRecord(Record):
    """Units of one structure, before and after; those of a head group count as one."""

    unit: str
    name: str
    layer: int
    before: int
    after: int


class ShrinkReport(Record):
    """What was removed.

    ``folded`` of the removed units gave a constant, which is now in a bias. ``stock`` says that
    plain ``from_pretrained`` loads the model; where not, ``reason`` says why, and
    :func:`sentei.shrink.load` does. ``flops_*`` are the multiplications and additions of the
    blocks' matrix products for one sequence of ``length`` tokens.
    """

    model_type: str
    structures: tuple[StructureRecord, ...]
    folded: int
    stock: bool
    reason: str
    parameters_before: int
    parameters_after: int
    length: int
    flops_before: int
    flops_after: int

    def units(self, unit: str) -> tuple[int, int]:
        """How many there are of a unit, ``head`` or ``neuron``: before and after."""
        records = [record for record in self.structures if record.unit == unit]
        return sum(record.before for record in records), sum(record.after for record in records)

    @property
    def removed(self) -> int:
        """Number of units that were removed."""
        return sum(record.before - record.after for record in self.structures)


def shrink(
    model: PreTrainedModel,
    *,
    stock: bool = False,
    family: Family | None = None,
    length: int = 128,
) -> tuple[PreTrainedModel, ShrinkReport]:
    """Remove the attention heads and neurons that add nothing, or a constant, to every token.

    A unit goes if the matrix that reads it has only zeros for it, or if its own weights are zero:
    a head's value weights, a neuron's input weights, or in a gated network one of the two. What a
    bias without weights gives is a constant and moves into the bias behind it; where there is none,
    the unit stays. One unit of every structure stays, an idle one if all are: so every block keeps
    its modules, its attention weights and its place in a key-value cache.

    Args:
        model: A Transformers model; is not changed. There must be room for a copy of it.
        stock: Remove only what a config can say, so that plain ``from_pretrained`` loads the
            result: of every structure as many units as all of its kind can spare; of neurons
            alone, where heads cannot be said; or nothing.
        family: What its architecture calls its parts, where that is not known.
        length: Tokens of the sequence for which operations are counted.

    Returns:
        The smaller model (the same class and dtype; the very same model if there is nothing to
        remove), whose outputs are those of ``model`` in evaluation up to rounding, and what was
        removed. With dropout in training, a removed head's constant is no longer dropped.

    Raises:
        ValueError: The family is unknown, has no heads and neurons that can be removed or does not
            fit the model; or weights are shared, quantised or on the meta device.
    """
    family = family or family_of(model)
    before = divide(model, family)
    _check(model, before)
    idle = [_find(model, at) for at in before]
    spare = [_all_but_one(units) for units in idle]
    for removed in _expressible(before, spare) if stock else [spare]:
        smaller, folded = _without(model, family, before, idle, removed)
        after = before if smaller is model else divide(smaller, family)
        config = find_stock(smaller, family, after)
        if not config.reason:
            break
    if smaller is not model and not config.reason:
        apply_stock_(smaller, family, after, config)
    counted = flops(model, before, length), flops(smaller, after, length)
    report = _report(model, smaller, _records(before, after), folded, config, length, counted)
    return smaller, report


def _records(
    before: Sequence[StructureAt], after: Sequence[StructureAt]
) -> tuple[StructureRecord, ...]:
    return tuple(
        StructureRecord(
            unit=old.structure.unit,
            name=old.structure.name,
            layer=old.structure.layer,
            before=old.structure.units,
            after=new.structure.units,
        )
        for old, new in zip(before, after, strict=True)
    )


def _report(
    model: PreTrainedModel,
    smaller: PreTrainedModel,
    structures: tuple[StructureRecord, ...],
    folded: int,
    config: Stock,
    length: int,
    counted: tuple[int, int],
) -> ShrinkReport:
    return ShrinkReport(
        model_type=model.config.model_type,
        structures=structures,
        folded=folded,
        stock=not config.reason,
        reason=config.reason,
        parameters_before=sum(parameter.numel() for parameter in model.parameters()),
        parameters_after=sum(parameter.numel() for parameter in smaller.parameters()),
        length=length,
        flops_before=counted[0],
        flops_after=counted[1],
    )


def _expressible(
    structures: Sequence[StructureAt], idle: Sequence[Tensor]
) -> Iterator[list[Tensor]]:
    """What may be removed and leave a model that a config describes, most first."""
    spare: dict[str, int] = {}
    for at, units in zip(structures, idle, strict=True):
        key, count = at.spec.count, int(units.sum())
        spare[key] = min(count, spare.get(key, count))
    alike = [
        units & (units.cumsum(0) <= spare[at.spec.count])
        for at, units in zip(structures, idle, strict=True)
    ]
    nothing = [torch.zeros_like(units) for units in idle]
    yield alike
    yield [
        units if isinstance(at.spec, Neurons) else none
        for at, units, none in zip(structures, alike, nothing, strict=True)
    ]
    yield nothing


def _without(
    model: PreTrainedModel,
    family: Family,
    structures: Sequence[StructureAt],
    idle: Sequence[Idle],
    removed: Sequence[Tensor],
) -> tuple[PreTrainedModel, int]:
    """A copy without some units, and how many of them gave a constant; ``model`` if none go."""
    if not any(bool(units.any()) for units in removed):
        return model, 0
    smaller, folded = copy.deepcopy(model), 0
    for at, constants, units in zip(structures, idle, removed, strict=True):
        if units.any():
            folded += _fold_(smaller, at, constants, units)
            keep_(smaller, family, at, (~units).nonzero().flatten().tolist())
    return smaller, folded


def _check(model: PreTrainedModel, structures: tuple[StructureAt, ...]) -> None:
    named = dict(model.named_parameters(remove_duplicate=False))
    uses = Counter(id(parameter) for parameter in named.values())
    for at in structures:
        for part in (*at.structure.weights, *at.structure.biases):
            parameter = named[part.parameter]
            if uses[id(parameter)] > 1:
                raise ValueError(
                    f"{part.parameter} is shared with another module, so that units of "
                    f"{at.structure.name} cannot be removed alone"
                )
            if parameter.is_meta or not parameter.is_floating_point():
                what = "on the meta device" if parameter.is_meta else f"of {parameter.dtype}"
                raise ValueError(
                    f"{part.parameter} is {what}: load the model in memory and unquantised"
                )


def _find(model: PreTrainedModel, at: StructureAt) -> Idle:
    structure = at.structure
    parts = (*structure.weights, *structure.biases)
    parameters: dict[str, Tensor] = {p.parameter: model.get_parameter(p.parameter) for p in parts}
    activation = _activation(model, at.spec) if isinstance(at.spec, Neurons) else None
    return find_idle(structure, parameters, activation, bias=_bias(model, at) is not None)


def _activation(model: PreTrainedModel, spec: Neurons) -> Activation | None:
    name = getattr(model.config, spec.activation, None)
    # These two have parameters of their own.
    if not isinstance(name, str) or name not in ACT2CLS or name in ("prelu", "xielu"):
        return None
    activation: Activation = ACT2FN[name]
    return activation


def _bias(model: PreTrainedModel, at: StructureAt) -> Tensor | None:
    """The bias of the matrix that reads the units."""
    module = model.get_submodule(at.structure.weights[-1].parameter.removesuffix(".weight"))
    bias = module.bias
    return bias if isinstance(bias, Tensor) else None


def _all_but_one(idle: Idle) -> Tensor:
    """The idle units, without the first of them where nothing else would be left."""
    units = idle.units.clone()
    if units.all():
        units[0] = False
    return units


@torch.no_grad()
def _fold_(model: PreTrainedModel, at: StructureAt, idle: Idle, removed: Tensor) -> int:
    """Move constants of removed units into the bias behind them; the number of such units."""
    constant = removed & (idle.values != 0).any(dim=1)
    bias = _bias(model, at)
    if bias is None or not constant.any():
        return 0
    name = at.structure.weights[-1].parameter
    added = contribution(at.structure, idle, constant, {name: model.get_parameter(name)})
    bias.copy_(bias.double() + added)
    return int(constant.sum())

"""From a model with zeros to a smaller one that computes the same."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.activations import ACT2CLS, ACT2FN

from sentei.families import Division, Family, Neurons
from sentei.models.stock import apply_stock_, find_stock
from sentei.models.structures import divide, family_of, keep_
from sentei.records import Record
from sentei.shrink.cost import flops
from sentei.shrink.idle import Activation, Idle, find_idle, given


class StructureRecord(Record):
    """Units of one structure, before and after; those of a head group count as one."""

    kind: str
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

    def units(self, kind: str) -> tuple[int, int]:
        """Units of a kind, ``head`` or ``neuron``: before and after."""
        found = [one for one in self.structures if one.kind == kind]
        return sum(one.before for one in found), sum(one.after for one in found)

    @property
    def removed(self) -> int:
        """Number of units that were removed."""
        return sum(one.before - one.after for one in self.structures)


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
    divisions = divide(model, family)
    _check(model, divisions)
    found = [_find(model, division) for division in divisions]
    removed = [_all_but_one(idle) for idle in found]
    for chosen in _sayable(divisions, removed) if stock else [removed]:
        smaller, folded = _without(model, family, divisions, found, chosen)
        after = divisions if smaller is model else divide(smaller, family)
        said = find_stock(smaller, family, after)
        if not said.reason:
            break
    if smaller is not model and not said.reason:
        apply_stock_(smaller, family, after, said)
    return smaller, ShrinkReport(
        model_type=model.config.model_type,
        structures=tuple(
            StructureRecord(
                kind=old.structure.kind,
                name=old.structure.name,
                layer=old.structure.layer,
                before=old.structure.units,
                after=new.structure.units,
            )
            for old, new in zip(divisions, after, strict=True)
        ),
        folded=folded,
        stock=not said.reason,
        reason=said.reason,
        parameters_before=sum(parameter.numel() for parameter in model.parameters()),
        parameters_after=sum(parameter.numel() for parameter in smaller.parameters()),
        length=length,
        flops_before=flops(model, divisions, length),
        flops_after=flops(smaller, after, length),
    )


def _sayable(divisions: Sequence[Division], removed: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """What may be removed and leave a model that a config describes, most first."""
    spare: dict[str, int] = {}
    for division, units in zip(divisions, removed, strict=True):
        key, idle = division.said.count, int(units.sum())
        spare[key] = min(idle, spare.get(key, idle))
    alike = [
        units & (units.cumsum(0) <= spare[division.said.count])
        for division, units in zip(divisions, removed, strict=True)
    ]
    nothing = [torch.zeros_like(units) for units in removed]
    yield alike
    yield [
        units if isinstance(division.said, Neurons) else none
        for division, units, none in zip(divisions, alike, nothing, strict=True)
    ]
    yield nothing


def _without(
    model: PreTrainedModel,
    family: Family,
    divisions: Sequence[Division],
    found: Sequence[Idle],
    removed: Sequence[Tensor],
) -> tuple[PreTrainedModel, int]:
    """A copy without some units, and how many of them gave a constant; ``model`` if none go."""
    if not any(bool(units.any()) for units in removed):
        return model, 0
    smaller, folded = copy.deepcopy(model), 0
    for division, idle, units in zip(divisions, found, removed, strict=True):
        if units.any():
            folded += _fold_(smaller, division, idle, units)
            keep_(smaller, family, division, (~units).nonzero().flatten().tolist())
    return smaller, folded


def _check(model: PreTrainedModel, divisions: tuple[Division, ...]) -> None:
    named = dict(model.named_parameters(remove_duplicate=False))
    uses = Counter(id(parameter) for parameter in named.values())
    for division in divisions:
        for part in (*division.structure.weights, *division.structure.biases):
            parameter = named[part.parameter]
            if uses[id(parameter)] > 1:
                raise ValueError(
                    f"{part.parameter} is shared with another module, so that units of "
                    f"{division.structure.name} cannot be removed alone"
                )
            if parameter.is_meta or not parameter.is_floating_point():
                what = "on the meta device" if parameter.is_meta else f"of {parameter.dtype}"
                raise ValueError(
                    f"{part.parameter} is {what}: load the model in memory and unquantised"
                )


def _find(model: PreTrainedModel, division: Division) -> Idle:
    structure = division.structure
    parts = (*structure.weights, *structure.biases)
    parameters: dict[str, Tensor] = {p.parameter: model.get_parameter(p.parameter) for p in parts}
    activation = _activation(model, division.said) if isinstance(division.said, Neurons) else None
    return find_idle(structure, parameters, activation, bias=_bias(model, division) is not None)


def _activation(model: PreTrainedModel, said: Neurons) -> Activation | None:
    name = getattr(model.config, said.activation, None)
    # These two have parameters of their own.
    if not isinstance(name, str) or name not in ACT2CLS or name in ("prelu", "xielu"):
        return None
    activation: Activation = ACT2FN[name]
    return activation


def _bias(model: PreTrainedModel, division: Division) -> Tensor | None:
    """The bias of the matrix that reads the units."""
    module = model.get_submodule(division.structure.weights[-1].parameter.removesuffix(".weight"))
    bias = module.bias
    return bias if isinstance(bias, Tensor) else None


def _all_but_one(idle: Idle) -> Tensor:
    """The idle units, without the first of them where nothing else would be left."""
    units = idle.units.clone()
    if units.all():
        units[0] = False
    return units


@torch.no_grad()
def _fold_(model: PreTrainedModel, division: Division, idle: Idle, removed: Tensor) -> int:
    """Move constants of removed units into the bias behind them; the number of such units."""
    constant = removed & (idle.values != 0).any(dim=1)
    bias = _bias(model, division)
    if bias is None or not constant.any():
        return 0
    name = division.structure.weights[-1].parameter
    gives = given(division.structure, idle, constant, {name: model.get_parameter(name)})
    bias.copy_(bias.double() + gives)
    return int(constant.sum())

"""Whether a config can say what a model is: then plain ``from_pretrained`` loads it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel

from sentei.families import Family, Heads, StructureAt
from sentei.models.structures import divide, head_size, make_stock, query_heads, select_


@dataclass(frozen=True)
class Stock:
    """What the config has to say for the stock architecture to have a model's shapes.

    ``reason`` is empty, or says why no config does. ``tables`` are the columns that shared tables
    keep.
    """

    changes: dict[str, int] = field(default_factory=dict)
    tables: dict[str, list[int]] = field(default_factory=dict)
    reason: str = ""


def find_stock(
    model: PreTrainedModel, family: Family, structures: tuple[StructureAt, ...]
) -> Stock:
    """Look for the config that gives a model the shapes it has.

    Args:
        model: The model.
        family: Its family.
        structures: Its structures, as they are now.
    """
    config = model.config.to_dict()
    changes: dict[str, int] = {}
    for at in structures:
        for key, value in _config_values(at, config).items():
            if changes.setdefault(key, value) != value:
                return Stock(
                    reason=f"blocks differ, and {key} is one number for all of them: "
                    f"{changes[key]} and {value}"
                )
        key, spec = at.spec.count, at.spec
        if isinstance(spec, Heads) and not spec.stock and changes[key] != config.get(key):
            return Stock(
                reason=f"{key}={changes[key]} with heads of {head_size(at)} cannot be said "
                f"in a config of {model.config.model_type}, where their size follows from {key}"
            )
    tables: dict[str, list[int]] = {}
    for name, used in _columns(model, family, structures):
        if tables.setdefault(name, used) != used:
            return Stock(reason=f"blocks keep different heads, and share {name}")
    changes = {key: value for key, value in changes.items() if config.get(key) != value}
    reason = _unfit(model, config | changes, tables)
    return Stock(reason=reason) if reason else Stock(changes, tables)


def apply_stock_(
    model: PreTrainedModel, family: Family, structures: tuple[StructureAt, ...], stock: Stock
) -> None:
    """Make a model that a config can describe the stock model of that config."""
    for name, kept in stock.tables.items():
        if len(kept) < model.get_parameter(name).shape[1]:
            select_(model, name, 1, kept)
    if any(heads.table for heads in family.heads):
        from sentei.models.shared_bias import take_all_columns_  # loads two architectures

        for at in structures:
            take_all_columns_(model.get_submodule(at.structure.name))
    configs = {
        id(config): config
        for module in model.modules()
        if isinstance(config := getattr(module, "config", None), PreTrainedConfig)
    }
    for config in configs.values():
        for key, value in stock.changes.items():
            setattr(config, key, value)


def is_stock(model: PreTrainedModel, family: Family) -> bool:
    """Whether a model is what ``from_pretrained`` makes of its config."""
    used = _columns(model, family, divide(model, family))
    shared = {name: model.get_parameter(name).shape[1] for name, _ in used}
    if any(columns != list(range(shared[name])) for name, columns in used):
        return False
    return not _unfit(model, model.config.to_dict(), {})


def _config_values(at: StructureAt, config: dict[str, object]) -> dict[str, int]:
    spec, units = at.spec, at.structure.units
    heads = query_heads(at, units)
    values = {spec.count: heads}
    if isinstance(spec, Heads) and spec.shared:
        values[spec.shared] = units
    if isinstance(spec, Heads) and spec.stock and heads != config.get(spec.count):
        values[spec.size] = head_size(at)  # or it would follow from the number of heads
    return values


def _columns(
    model: PreTrainedModel, family: Family, structures: tuple[StructureAt, ...]
) -> list[tuple[str, list[int]]]:
    """Each use of a shared table: its name, and the columns."""
    if not any(heads.table for heads in family.heads):
        return []
    from sentei.models.shared_bias import columns  # loads two architectures

    uses = []
    for at in structures:
        structure, spec = at.structure, at.spec
        if isinstance(spec, Heads) and spec.table:
            beside = at.block.removesuffix(family.block.format(i=structure.layer))
            name = f"{beside}{spec.table}"
            used = columns(model.get_submodule(structure.name))
            every = list(range(model.get_parameter(name).shape[1]))
            uses.append((name, every if used is None else used))
    return uses


def _unfit(model: PreTrainedModel, config: dict[str, object], tables: dict[str, list[int]]) -> str:
    """Why the stock model of a config has other shapes; empty if it has not."""
    try:
        stock = make_stock(model, type(model.config).from_dict(copy.deepcopy(config)))
    except (StrictDataclassError, ValueError) as error:
        return "the architecture refuses it: " + " ".join(str(error).split())
    shapes = {name: list(parameter.shape) for name, parameter in stock.named_parameters()}
    for name, parameter in model.named_parameters():
        shape = list(parameter.shape)
        if name in tables:
            shape[1] = len(tables[name])
        if shapes.get(name) != shape:
            return f"{name} is {shape} here and {shapes.get(name)} in the stock model"
    return ""

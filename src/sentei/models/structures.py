"""Removing units from a model: its parameters, its modules, and the counts that modules keep."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

from sentei import families
from sentei.families import Family, Heads, StructureAt


def family_of(model: PreTrainedModel) -> Family:
    """The known family of a model.

    Raises:
        ValueError: It is no Transformers model, or of no known family.
    """
    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            f"a {type(model).__name__} cannot be shrunk: give the Transformers model itself, "
            "without a wrapper around it"
        )
    family = families.find(model.config.model_type)
    if family is None:
        names = ", ".join(name for known in families.known() for name in known.model_types)
        raise ValueError(
            f"model type {model.config.model_type} belongs to no known family: describe it and "
            f"pass it as family=. Known: {names}"
        )
    return family


def divide(model: PreTrainedModel, family: Family) -> tuple[StructureAt, ...]:
    """The structures of a model, each with the description that it was found by.

    Raises:
        ValueError: The family has none, or does not fit the model.
    """
    named = model.named_parameters(remove_duplicate=False)
    shapes = {name: tuple(parameter.shape) for name, parameter in named}
    return families.divide(family, model.config.to_dict(), shapes)


def head_size(at: StructureAt) -> int:
    """Entries of one value head; 1 for neurons."""
    parts = [part for part in at.structure.weights if "value" in part.holds]
    return parts[0].width // len(parts[0].holds) if parts else 1


def query_heads(at: StructureAt, units: int) -> int:
    """How many query heads so many units have; for neurons, their number."""
    return units * at.structure.weights[-1].width // head_size(at)


def make_stock(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """What a config makes of a model's class, on the meta device: for its names and shapes.

    Raises:
        ValueError: The class takes more than a config.
    """
    try:
        with torch.device("meta"), no_init_weights():
            return type(model)(config)
    except TypeError as error:
        raise ValueError(
            f"a {type(model).__name__} is not made of its config alone ({error}): give the other "
            "arguments of its constructor defaults"
        ) from error


@torch.no_grad()
def keep_(model: PreTrainedModel, family: Family, at: StructureAt, kept: Sequence[int]) -> None:
    """Remove all units of a structure but some.

    Args:
        model: The model; its weights may be on the meta device.
        family: Its family.
        at: The structure, as it is now.
        kept: Numbers of the units to keep, in their new order.

    Raises:
        ValueError: A module has not what the family says, in this version of Transformers.
    """
    structure, spec = at.structure, at.spec
    entries: dict[tuple[str, int], list[int]] = {}
    for part in sorted((*structure.weights, *structure.biases), key=lambda part: part.offset):
        starts = [part.offset + unit * part.width for unit in kept]
        entries.setdefault((part.parameter, part.dim), []).extend(
            entry for start in starts for entry in range(start, start + part.width)
        )
    for (parameter, dim), index in entries.items():
        select_(model, parameter, dim, index)

    heads = query_heads(at, len(kept))
    values = dict.fromkeys(spec.counts, heads)
    if isinstance(spec, Heads):
        values |= dict.fromkeys(spec.widths, heads * head_size(at))
    for attribute, value in values.items():
        owner, _, leaf = f"{at.block}.{attribute}".rpartition(".")
        module = model.get_submodule(owner)
        if not hasattr(module, leaf):
            raise ValueError(
                f"{owner} has no attribute {leaf}, which held the number of its heads or neurons "
                "in the version of transformers that this was written for"
            )
        setattr(module, leaf, value)
    if isinstance(spec, Heads) and any(attention.table for attention in family.heads):
        from sentei.models.shared_bias import take_columns_  # loads two architectures

        take_columns_(model.get_submodule(structure.name), kept)


@torch.no_grad()
def select_(model: nn.Module, name: str, dim: int, index: Sequence[int]) -> None:
    """Keep some entries of a parameter, and let its module know."""
    owner_name, _, leaf = name.rpartition(".")
    owner, parameter = model.get_submodule(owner_name), model.get_parameter(name)
    positions = torch.tensor(index, device=parameter.device, dtype=torch.long)
    selected = parameter.index_select(dim, positions)
    setattr(owner, leaf, nn.Parameter(selected, requires_grad=parameter.requires_grad))
    if leaf == "weight":
        if isinstance(owner, nn.Linear):
            owner.out_features, owner.in_features = selected.shape
        elif isinstance(owner, Conv1D):
            owner.nx, owner.nf = selected.shape
        elif isinstance(owner, nn.Embedding):
            owner.num_embeddings, owner.embedding_dim = selected.shape

"""Shards: what is done to whole weights, done by processes that hold a block of each.

Scores, masks and penalties are elementwise and need nothing of this. What a unit of several weights
needs, and what is drawn by lot, is made in the shape of the whole weight and cut to what is held
here: one matrix at a time, on each process for itself, so that nothing is gathered and the numbers
are those of one process.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from sentei.distributed import Ranks
from sentei.parts.patterns import Tiling, UnitGroup
from sentei.parts.site import Site
from sentei.pruning.sites import SiteState, UnitState
from sentei.sharded import Shard, shard_of


@contextmanager
def whole_memory(
    memory: Mapping[str, Tensor], shard: Shard | None, names: Collection[str] | None = None
) -> Iterator[Mapping[str, Tensor]]:
    """The memory of a site as it is of the whole weight, while it gets values; ``names`` are those
    of them that do, by default all.
    """
    if shard is None:
        yield memory
        return
    whole = {
        name: shard.whole(rows) for name, rows in memory.items() if names is None or name in names
    }
    yield whole
    for name, tensor in whole.items():
        memory[name].copy_(shard.part(tensor))


def spread_(tensor: Tensor, tiling: Tiling, units: Tensor, shard: Shard | None) -> None:
    """Give every entry of ``tensor``, of what is held of a site, the value of its unit, of
    ``units`` (count,).
    """
    whole = shard.whole(tensor) if shard else tensor
    tiling.write_(whole, units)
    if shard:
        tensor.copy_(shard.part(whole))


def spread(units: Iterable[UnitState], site: SiteState, reads: Sequence[str]) -> dict[str, Tensor]:
    """What a gate reads of its unit, by name, for every weight held of a site, flat."""
    spread = dict[str, Tensor]()
    names = [name for name in reads if name not in site.memory]
    for unit in units if names else ():
        for tiling in unit.group.tilings:
            for name in names if tiling.site is site.site else ():
                empty = torch.zeros_like(site.weight, dtype=unit.memory[name].dtype)
                tensor = spread.setdefault(name, empty)
                spread_(tensor, tiling, unit.memory[name], site.shard)
    return {name: tensor.view(-1) for name, tensor in spread.items()}


def pool(groups: Iterable[tuple[UnitGroup, Mapping[Site, Tensor]]], ranks: Ranks) -> list[Tensor]:
    """Values of the units of groups, (count,) each, from those of the weights held here, by site.

    Where processes share units out among them they pool them together, all groups in one exchange
    for each way to reduce; and a sum may differ in its last bits from one that was made in one
    piece.

    Args:
        groups: Each with its values, which are looked at once.
        ranks: Who holds the rest.
    """
    made, means = list[Tensor](), list[tuple[Tensor, int]]()
    ways = dict[Literal["sum", "min", "max"], list[Tensor]]()
    for group, values in groups:
        how = "sum" if group.reduce == "mean" else group.reduce
        fill = {"max": -torch.inf, "min": torch.inf}.get(how, 0.0)
        made.append(group.pool(_wholes(values, fill), how))
        ways.setdefault(how, []).append(made[-1])
        if group.reduce == "mean":
            means.append((made[-1], group.weights))
    for how, alike in ways.items():
        ranks.reduce_all_(alike, how)
    for one, weights in means:
        one /= weights
    return made


def pool_gates(group: UnitGroup, gradients: Mapping[Site, Tensor]) -> Tensor:
    """Gradients of the units' gates, (count,), from those of the weights held here: to be summed
    over those who hold the others.
    """
    return group.pool_gates(_wholes(gradients))


def _wholes(values: Mapping[Site, Tensor], fill: float = 0.0) -> dict[Site, Tensor]:
    """Values in the shapes of whole weights."""
    shards = {site: shard_of(site.parameter) for site in values}
    return {
        site: shard.whole(values[site], fill) if shard else values[site]
        for site, shard in shards.items()
    }
